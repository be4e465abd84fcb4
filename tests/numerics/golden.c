/* SPDX-License-Identifier: Apache-2.0 */
#include "golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void golden_fail(const char *what, const char *detail)
{
    fprintf(stderr, "golden_logits: %s: %s\n", what, detail);
    exit(1);
}

const char *golden_environment(const char *name)
{
    const char *value = getenv(name);

    if (!value)
        golden_fail(name, "not set");
    return value;
}

/* ---- files and commands ---------------------------------------------------------------------- */

size_t golden_read(const char *path, char *out, size_t max)
{
    FILE *f = fopen(path, "rb");

    if (!f)
        golden_fail(path, "cannot be opened");
    size_t n = fread(out, 1, max - 1, f);
    fclose(f);
    out[n] = '\0';
    return n;
}

void golden_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");

    if (!f || fputs(text, f) < 0 || fclose(f))
        golden_fail(path, "cannot be written");
}

void golden_run(const char *command, char *out, size_t max)
{
    FILE *f = popen(command, "r");

    if (!f)
        golden_fail(command, "cannot be started");
    size_t n = fread(out, 1, max - 1, f);
    out[n] = '\0';
    if (pclose(f))
        golden_fail(command, "failed");
}

double golden_nmse(const float *got, const float *want, int rows, int width, double *out_worst)
{
    double error = 0, norm = 0;

    *out_worst = 0;
    for (int r = 0; r < rows; r++) {
        double row_error = 0, row_norm = 0;
        for (int i = r * width; i < (r + 1) * width; i++) {
            double d = (double)got[i] - (double)want[i];
            row_error += d * d;
            row_norm += (double)want[i] * (double)want[i];
        }
        *out_worst = fmax(*out_worst, row_error / row_norm);
        error += row_error;
        norm += row_norm;
    }
    return error / norm;
}

void golden_edit(const char *text, const golden_mistake *m, char *out, size_t max)
{
    size_t n = 0, length = strlen(m->from);
    int edits = 0;

    while (*text && n + strlen(m->to) + 2 < max) {
        if (!strncmp(text, m->from, length)) {
            n += (size_t)snprintf(out + n, max - n, "%s", m->to);
            text += length;
            edits++;
        } else if (!strncmp(text, "  # ", 4))
            text += strcspn(text, "\n");
        else
            out[n++] = *text++;
    }
    out[n] = '\0';
    if (!edits)
        golden_fail(m->from, "is not in the description");
}

double golden_figure(const char *json, const char *mistake)
{
    char key[64];
    const char *flips = strstr(json, "\"flips\"");

    snprintf(key, sizeof key, "\"%s\": {\"nmse\": ", mistake);
    const char *at = flips ? strstr(flips, key) : NULL;
    return at ? strtod(at + strlen(key), NULL) : 0;
}
