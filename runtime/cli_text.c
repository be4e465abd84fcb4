/* SPDX-License-Identifier: Apache-2.0 */
/* cli_text - reading prompts, writing JSON strings and .npy files. */
#define _GNU_SOURCE
#include "runtime/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

kf_status kf_cli_array_add(const kf_cli *c, kf_cli_array *a, const void *data, size_t size_bytes)
{
    const kf_allocator *alloc = &kf_default_allocator;
    if (a->size_bytes + size_bytes > a->cap_bytes) {
        size_t cap = a->cap_bytes ? a->cap_bytes : 256;
        while (cap < a->size_bytes + size_bytes)
            cap *= 2;
        char *grown = kf_alloc(alloc, cap, 16);
        if (!grown)
            return kf_fail(&c->log, KF_ERR_MEMORY, "no memory for %zu bytes of text", cap);
        if (a->size_bytes > 0)
            memcpy(grown, a->data, a->size_bytes);
        kf_free(alloc, a->data, a->cap_bytes);
        a->data = grown;
        a->cap_bytes = cap;
    }
    if (size_bytes > 0)
        memcpy(a->data + a->size_bytes, data, size_bytes);
    a->size_bytes += size_bytes;
    return KF_OK;
}

void kf_cli_array_free(const kf_cli *c, kf_cli_array *a)
{
    (void)c;
    kf_free(&kf_default_allocator, a->data, a->cap_bytes);
    *a = (kf_cli_array){0};
}

static kf_status read_all(const kf_cli *c, FILE *f, const char *path, size_t max_bytes,
                          kf_cli_array *out)
{
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, f)) > 0) {
        if (out->size_bytes + n > max_bytes)
            return kf_fail(&c->log, KF_ERR_INPUT, "%s: longer than %zu bytes", path, max_bytes);
        KF_TRY(kf_cli_array_add(c, out, block, n));
    }
    if (ferror(f) && !kf_cli_is_interrupted())
        return kf_fail(&c->log, KF_ERR_IO, "%s: %s", path, strerror(errno));
    return KF_OK;
}

kf_status kf_cli_read_file(const kf_cli *c, const char *path, size_t max_bytes, kf_cli_array *out)
{
    if (strcmp(path, "-") == 0)
        return read_all(c, stdin, "standard input", max_bytes, out);
    FILE *f = fopen(path, "rbe");
    if (!f)
        return kf_fail(&c->log, KF_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    kf_status status = read_all(c, f, path, max_bytes, out);
    fclose(f);
    return status;
}

kf_status kf_cli_encode(kf_cli *c, const char *text, size_t len, kf_cli_array *out_ids)
{
    if (!c->tok)
        return kf_fail(&c->log, KF_ERR_UNSUPPORTED,
                       "'%s' was compiled without a tokenizer; give the prompt as --ids",
                       c->model->name);
    const uint32_t *ids;
    size_t n;
    kf_status status = kf_tokenizer_encode(c->tok, c->scratch, text, len, true, &ids, &n);
    if (status != KF_OK)
        return kf_fail(&c->log, status, "cannot encode the text: %s",
                       status == KF_ERR_INPUT ? "it is not UTF-8" : kf_status_text(status));
    return kf_cli_array_add(c, out_ids, ids, n * sizeof *ids);
}

kf_status kf_cli_parse_ids(const kf_cli *c, const char *text, kf_cli_array *out_ids)
{
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long long v = strtoll(at, &end, 10);
        if (end == at || errno != 0 || v < 0 || v >= c->model->vocab_size ||
            (*end != ',' && *end != '\0'))
            return kf_fail(&c->log, KF_ERR_USAGE,
                           "--ids %s: numbers from 0 to %u, separated by commas", text,
                           c->model->vocab_size - 1);
        int32_t id = (int32_t)v;
        KF_TRY(kf_cli_array_add(c, out_ids, &id, sizeof id));
        if (*end == '\0')
            return KF_OK;
        at = end;
    }
}

void kf_cli_json_string(FILE *f, const char *s, size_t len)
{
    putc('"', f);
    for (size_t i = 0; i < len; i++) {
        unsigned char ch = (unsigned char)s[i];
        if (ch == '"' || ch == '\\')
            fprintf(f, "\\%c", ch);
        else if (ch == '\n')
            fputs("\\n", f);
        else if (ch < 0x20 || ch == 0x7F)
            fprintf(f, "\\u%04x", ch);
        else
            putc(ch, f);
    }
    putc('"', f);
}

void kf_cli_json_ids(FILE *f, const int32_t *ids, size_t n)
{
    putc('[', f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s%d", i ? ", " : "", ids[i]);
    putc(']', f);
}

kf_status kf_cli_npy_open(const kf_cli *c, kf_cli_npy *n, const char *path, uint64_t rows,
                          uint64_t cols)
{
    *n = (kf_cli_npy){fopen(path, "wbe"), path};
    if (!n->f)
        return kf_fail(&c->log, KF_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    char dict[128], shape[64];
    if (rows > 0)
        snprintf(shape, sizeof shape, "(%" PRIu64 ", %" PRIu64 ")", rows, cols);
    else
        snprintf(shape, sizeof shape, "(%" PRIu64 ",)", cols);
    /* Magic (6), version (2), length (2) and the padded dict are together a multiple of 64. */
    int len = snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }",
                       shape);
    uint16_t padded = (uint16_t)((10 + len + 1 + 63) / 64 * 64 - 10);
    fwrite("\x93NUMPY\x01\x00", 1, 8, n->f);
    fwrite(&padded, 2, 1, n->f);
    fprintf(n->f, "%-*s\n", padded - 1, dict);
    return KF_OK;
}

void kf_cli_npy_row(kf_cli_npy *n, const float *row, uint64_t cols)
{
    fwrite(row, sizeof *row, cols, n->f);
}

kf_status kf_cli_npy_close(const kf_cli *c, kf_cli_npy *n)
{
    bool failed = ferror(n->f) != 0;
    failed |= fclose(n->f) != 0;
    n->f = NULL;
    if (!failed)
        return KF_OK;
    kf_status status = kf_fail(&c->log, KF_ERR_IO, "cannot write %s: %s", n->path, strerror(errno));
    unlink(n->path);
    return status;
}

void kf_cli_npy_abandon(kf_cli_npy *n)
{
    if (!n->f)
        return;
    fclose(n->f);
    unlink(n->path);
    n->f = NULL;
}
