/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_embed - what an encoder gives for texts: a row for each token, or one for each text.
 *
 * All texts are encoded first, so that the size of the result is known; then as many whole texts as
 * a call holds go through it together, in order.
 */
#include "runtime/cli.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)

typedef struct embed {
    kf_cli *c;
    kf_cli_array ids;   /* int32_t, of all texts */
    kf_cli_array types; /* int32_t; empty: none given */
    kf_cli_array ends;  /* uint64_t: where in |ids| each text ends */
    kf_cli_npy npy;
    kf_append *appends; /* [max_sequences] */
    uint64_t n_texts, n_rows;
} embed;

static uint64_t end_of(const embed *e, uint64_t text)
{
    return ((const uint64_t *)(const void *)e->ends.data)[text];
}

static uint64_t begin_of(const embed *e, uint64_t text)
{
    return text ? end_of(e, text - 1) : 0;
}

/* ---- Texts ----------------------------------------------------------------------------------- */

/* Closes the text whose ids were added last. */
static kf_status end_text(embed *e)
{
    kf_cli *c = e->c;
    uint64_t end = e->ids.size_bytes / sizeof(int32_t), begin = begin_of(e, e->n_texts);
    uint64_t most =
        c->model->max_tokens < c->engine->context ? c->model->max_tokens : c->engine->context;
    if (end == begin)
        return kf_fail(&c->log, KF_ERR_INPUT, "text %llu has no tokens",
                       (unsigned long long)e->n_texts);
    if (end - begin > most)
        return kf_fail(&c->log, KF_ERR_USAGE,
                       "text %llu has %llu tokens; the encoder takes %llu in one call",
                       (unsigned long long)e->n_texts, (unsigned long long)(end - begin),
                       (unsigned long long)most);
    KF_TRY(kf_cli_array_add(c, &e->ends, &end, sizeof end));
    e->n_texts++;
    e->n_rows += c->model->is_pooled ? 1 : end - begin;
    return KF_OK;
}

/* One text a line. */
static kf_status read_lines(embed *e)
{
    kf_cli_array text = {0};
    kf_status status = kf_cli_read_file(e->c, e->c->opt.operand, MAX_TEXT_BYTES, &text);
    for (size_t at = 0; status == KF_OK && at < text.size_bytes;) {
        const char *line = text.data + at, *end = memchr(line, '\n', text.size_bytes - at);
        size_t len = end ? (size_t)(end - line) : text.size_bytes - at;
        at += len + (end != NULL);
        len -= len > 0 && line[len - 1] == '\r';
        status = kf_cli_encode(e->c, line, len, &e->ids);
        if (status == KF_OK)
            status = end_text(e);
    }
    kf_cli_array_free(e->c, &text);
    return status;
}

/* The part of |text| before the next ';', in |part|; advances |text| behind it. */
static kf_status next_part(embed *e, const char **text, kf_cli_array *part)
{
    size_t len = strcspn(*text, ";");
    part->size_bytes = 0;
    KF_TRY(kf_cli_array_add(e->c, part, *text, len));
    KF_TRY(kf_cli_array_add(e->c, part, "", 1));
    *text += len + ((*text)[len] == ';');
    return KF_OK;
}

/* --ids and --types: texts divided by ';'. */
static kf_status read_parts(embed *e, kf_cli_array *part)
{
    const char *ids = e->c->opt.ids, *types = e->c->opt.types;
    while (*ids) {
        KF_TRY(next_part(e, &ids, part));
        KF_TRY(kf_cli_parse_ids(e->c, part->data, &e->ids));
        KF_TRY(end_text(e));
        if (!types)
            continue;
        KF_TRY(next_part(e, &types, part));
        KF_TRY(kf_cli_parse_ids(e->c, part->data, &e->types));
        if (e->types.size_bytes != e->ids.size_bytes)
            return kf_fail(&e->c->log, KF_ERR_USAGE, "--types: as many as --ids, text by text");
    }
    return KF_OK;
}

static kf_status read_ids(embed *e)
{
    kf_cli_array part = {0};
    kf_status status = read_parts(e, &part);
    kf_cli_array_free(e->c, &part);
    return status;
}

static kf_status read_texts(embed *e)
{
    const kf_cli_options *o = &e->c->opt;
    if ((o->ids != NULL) == (o->operand != NULL))
        return kf_fail(&e->c->log, KF_ERR_USAGE, "embed: give FILE or --ids");
    if (o->types && !o->ids)
        return kf_fail(&e->c->log, KF_ERR_USAGE, "--types goes with --ids");
    return o->ids ? read_ids(e) : read_lines(e);
}

/* ---- Results --------------------------------------------------------------------------------- */

static void print_numbers(const float *v, uint32_t n, const char *between)
{
    for (uint32_t i = 0; i < n; i++) {
        if (isfinite(v[i]))
            printf("%s%.9g", i ? between : "", (double)v[i]);
        else
            printf("%snull", i ? between : "");
    }
}

/* |row| is the first of |n| rows of the last step. */
static void print_json(const embed *e, uint64_t text, uint32_t row, uint32_t n)
{
    const kf_model *m = e->c->model;
    uint64_t begin = begin_of(e, text);
    printf("{\"schema\": \"kerf.embed.1\", \"index\": %llu, \"ids\": ", (unsigned long long)text);
    kf_cli_json_ids(stdout, (const int32_t *)(const void *)e->ids.data + begin,
                    end_of(e, text) - begin);
    printf(", \"%s\": %s", m->is_pooled ? "row" : "rows", m->is_pooled ? "" : "[");
    for (uint32_t i = 0; i < n; i++) {
        fputs(i ? ", [" : "[", stdout);
        print_numbers(kf_session_logits(e->c->session, row + i), m->row_width, ", ");
        putchar(']');
    }
    puts(m->is_pooled ? "}" : "]}");
}

static void write_text(embed *e, uint64_t text, uint32_t row, uint32_t n)
{
    uint32_t width = e->c->model->row_width;
    if (e->c->opt.json)
        print_json(e, text, row, n);
    for (uint32_t i = 0; i < n; i++) {
        const float *v = kf_session_logits(e->c->session, row + i);
        if (e->npy.f)
            kf_cli_npy_row(&e->npy, v, width);
        if (!e->npy.f && !e->c->opt.json) {
            print_numbers(v, width, " ");
            putchar('\n');
        }
    }
}

/* One call from text |first| on; |*out_n| texts went through. */
static kf_status step(embed *e, uint64_t first, uint32_t *out_n)
{
    const kf_model *m = e->c->model;
    const int32_t *ids = (const int32_t *)(const void *)e->ids.data;
    const int32_t *types = (const int32_t *)(const void *)e->types.data;
    uint32_t n = 0, row = 0, budget = m->max_tokens;
    while (n < m->max_sequences && first + n < e->n_texts) {
        uint64_t begin = begin_of(e, first + n);
        uint32_t len = (uint32_t)(end_of(e, first + n) - begin);
        if (len > budget)
            break;
        budget -= len;
        KF_TRY(kf_session_truncate(e->c->session, n, 0));
        e->appends[n] =
            (kf_append){n, len, ids + begin, m->is_pooled ? 1 : len, types ? types + begin : NULL};
        n++;
    }
    KF_TRY(kf_session_step(e->c->session, e->appends, n));
    for (uint32_t i = 0; i < n; row += e->appends[i++].n_logits)
        write_text(e, first + i, row, e->appends[i].n_logits);
    *out_n = n;
    return KF_OK;
}

static kf_status embed_all(embed *e)
{
    kf_cli *c = e->c;
    KF_TRY(read_texts(e));
    if (c->opt.npy)
        KF_TRY(kf_cli_npy_open(c, &e->npy, c->opt.npy, e->n_rows, c->model->row_width));
    for (uint64_t at = 0; at < e->n_texts && !kf_cli_is_interrupted();) {
        uint32_t n = 0;
        KF_TRY(step(e, at, &n));
        at += n;
    }
    return e->npy.f && !kf_cli_is_interrupted() ? kf_cli_npy_close(c, &e->npy) : KF_OK;
}

kf_status kf_cli_embed(kf_cli *c)
{
    const kf_allocator *a = &kf_default_allocator;
    size_t bytes = c->model->max_sequences * sizeof(kf_append);
    KF_TRY(kf_cli_open(c));
    embed e = {.c = c, .appends = kf_alloc(a, bytes, 64)};
    kf_status status =
        e.appends ? embed_all(&e) : kf_fail(&c->log, KF_ERR_MEMORY, "no memory for a batch");
    kf_cli_npy_abandon(&e.npy);
    kf_cli_array_free(c, &e.ids);
    kf_cli_array_free(c, &e.types);
    kf_cli_array_free(c, &e.ends);
    kf_free(a, e.appends, bytes);
    return status;
}
