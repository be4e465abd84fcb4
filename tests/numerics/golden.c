/* SPDX-License-Identifier: Apache-2.0 */
#include "golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double gate_nmse = 1e-9;

void golden_fail(const char *what, const char *detail)
{
    fprintf(stderr, "%s: %s\n", what, detail);
    exit(1);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);

    if (!value)
        golden_fail(name, "not set");
    return value;
}

/* ---- files and commands ---------------------------------------------------------------------- */

/** Bytes read, at most |max| - 1; |out| is terminated. */
static size_t read_file(const char *path, char *out, size_t max)
{
    FILE *f = fopen(path, "rb");

    if (!f)
        golden_fail(path, "cannot be opened");
    size_t n = fread(out, 1, max - 1, f);
    fclose(f);
    out[n] = '\0';
    return n;
}

static void write_file(const char *path, const char *text)
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

void golden_list(const char *json, const char *key, int n, int *out)
{
    const char *p = strstr(json, key);

    p = p ? strchr(p, '[') : NULL;
    for (int i = 0; i < n; i++) {
        char *end = NULL;
        if (p)
            out[i] = (int)strtol(p + 1, &end, 10);
        if (!end || end == p + 1)
            golden_fail(key, "has too few numbers");
        p = end;
    }
}

bool golden_folder(golden *g, const char *folder, const char *model)
{
    char path[GOLDEN_PATH + 16];

    snprintf(g->dir, sizeof g->dir, "%s/tests/golden/%s/%s", environment("KF_SOURCE_DIR"), folder,
             model);
    snprintf(path, sizeof path, "%s/golden.json", g->dir);
    FILE *f = fopen(path, "rb");
    return f && !fclose(f);
}

/** Rows of |g|, which end a file of that type and shape. */
static void read_rows(const golden *g, const char *path, float *out)
{
    static char bytes[GOLDEN_FLOATS * sizeof(float) + 4096];
    size_t size = (size_t)g->n * (size_t)g->width * sizeof(float);
    size_t n = read_file(path, bytes, sizeof bytes);
    char shape[32];

    snprintf(shape, sizeof shape, "(%d, %d)", g->n, g->width);
    if (n <= size || !strstr(bytes + 10, "'<f4'") || !strstr(bytes + 10, shape))
        golden_fail(path, "is not float32 of that shape");
    memcpy(out, bytes + n - size, size);
}

/* ---- the two checks -------------------------------------------------------------------------- */

/** NMSE over all rows, and of the worst row. */
static double nmse(const golden *g, const float *got, const float *want, double *out_worst)
{
    double error = 0, norm = 0;

    *out_worst = 0;
    for (int r = 0; r < g->n; r++) {
        double row_error = 0, row_norm = 0;
        for (int i = r * g->width; i < (r + 1) * g->width; i++) {
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

/** |text| with the comments gone and every m->from replaced; at least one must be there. */
static void edit(const char *text, const golden_mistake *m, char *out, size_t max)
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

/** How far off transformers is with the same mistake; 0 where golden.json does not say. */
static double figure(const char *json, const char *mistake)
{
    char key[64];
    const char *flips = strstr(json, "\"flips\"");

    snprintf(key, sizeof key, "\"%s\": {\"nmse\": ", mistake);
    const char *at = flips ? strstr(flips, key) : NULL;
    return at ? strtod(at + strlen(key), NULL) : 0;
}

typedef struct distance {
    double all, worst;
    bool same_tokens;
} distance;

static distance measure(const golden_program *p, const golden *g, const char *description,
                        const char *options)
{
    static char command[4 * GOLDEN_PATH], output[GOLDEN_TEXT];
    static float got[GOLDEN_FLOATS], want[GOLDEN_FLOATS];
    char path[GOLDEN_PATH + 64];
    distance d;

    snprintf(command, sizeof command, "'%s/bin/kerf' compile '%s' %s -q -j1 -o %s",
             environment("KF_BUILD_DIR"), description, options, g->out);
    golden_run(command, output, sizeof output);
    snprintf(path, sizeof path, "%s/%s.npy", g->dir, g->rows);
    read_rows(g, path, want);
    snprintf(path, sizeof path, "%s.npy", g->out);
    d.same_tokens = p->run(g, path);
    read_rows(g, path, got);
    remove(path);
    remove(g->out);
    d.all = nmse(g, got, want, &d.worst);
    return d;
}

static int check_right(const golden_program *p, const golden *g)
{
    distance d = measure(p, g, g->dir, g->set);

    printf("%s: NMSE %.3g, worst row %.3g%s\n", g->name, d.all, d.worst,
           d.same_tokens ? "" : ", other tokens");
    return !(d.all <= gate_nmse) || !(d.worst <= gate_nmse) || !d.same_tokens;
}

static int check_mistake(const golden_program *p, const golden *g, const golden_mistake *m)
{
    static char command[3 * GOLDEN_PATH], text[GOLDEN_TEXT], edited[GOLDEN_TEXT];
    char path[GOLDEN_PATH + 8], options[GOLDEN_PATH + 32];
    double known = figure(g->json, m->name);

    snprintf(command, sizeof command, "'%s/bin/kerf' inspect '%s' %s --stage spec",
             environment("KF_BUILD_DIR"), g->dir, g->set);
    golden_run(command, text, sizeof text);
    edit(text, m, edited, sizeof edited);
    snprintf(path, sizeof path, "%s.yaml", g->out);
    snprintf(options, sizeof options, "--weights '%s'", g->dir);
    write_file(path, edited);
    distance d = measure(p, g, path, options);
    remove(path);
    printf("%s with %s: NMSE %.3g, worst row %.3g; transformers %.3g\n", g->name, m->name, d.all,
           d.worst, known);
    return !(d.all >= 10 * gate_nmse) || (known > 0 && !(fabs(d.all - known) <= 0.01 * known));
}

int golden_main(const golden_program *p, int argc, char **argv)
{
    static golden g;
    char path[GOLDEN_PATH + 16];

    if (argc < 2)
        golden_fail(p->name, "NAME [MISTAKE]");
    g.name = argv[1];
    if (!p->find(&g))
        golden_fail(argv[1], "no such model");
    snprintf(g.out, sizeof g.out, "%s.%s.%s", p->name, argv[1], argc > 2 ? argv[2] : "right");
    snprintf(path, sizeof path, "%s/golden.json", g.dir);
    read_file(path, g.json, sizeof g.json);
    if (argc == 2)
        return check_right(p, &g);
    for (size_t i = 0; i < p->n_mistakes; i++)
        if (!strcmp(p->mistakes[i].model, argv[1]) && !strcmp(p->mistakes[i].name, argv[2]))
            return check_mistake(p, &g, &p->mistakes[i]);
    golden_fail(argv[2], "no such mistake");
    return 1;
}
