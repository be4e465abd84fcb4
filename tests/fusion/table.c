/* SPDX-License-Identifier: Apache-2.0 */
/* table - launches and bytes of a decode layer for each block of rows.def, counted anew from the
 * plan's buffers, weights and caches, and held against the table of docs/FUSION.md.
 *
 *   table KERF FOLDER FUSION.MD        KF_BLESS=1 rewrites the table
 *
 * A launch moves each operand and result once; of a table that is gathered the rows wanted; of a
 * cache the keys that are seen, or what is appended. The minimum of a layer: each weight, the cache in
 * view, what is appended, the call's inputs and what is computed before the layers, once; the rows
 * that enter and that leave with their statistics, once. Fails also where a layer has more launches
 * than its row allows, moves more than 1.02 times the minimum, or holds a launch of nothing but
 * scalar functions.
 */
#include "base/fs.h"
#include "ir/plan.h"
#include "ir/text.h"
#include "passes/passes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAST = 1024, MAX_TEXT = 1 << 24 };

typedef struct row {
    const char *label, *file;
    int64_t layers;
    const char *phase;
    int64_t most;
} row;

static const row rows[] = {
#define ROW(label, file, layers, phase, most, small) {label, file, layers, phase, most},
#include "tests/fusion/rows.def"
#undef ROW
};
#define N_ROWS (sizeof rows / sizeof rows[0])

/** One layer of a plan. */
typedef struct tally {
    double launches, bytes, least;
    kf_str alone; /* a launch of scalar functions only, or empty */
} tally;

/* ---- bytes ----------------------------------------------------------------------------------- */

typedef struct counting {
    const kf_plan *p;
    const kf_plan_phase *phase;
    int64_t sym[KF_SYM_MEMORY]; /* of the call */
} counting;

static int64_t type_bytes(const counting *c, const kf_type *t)
{
    return kf_type_elems(t, c->sym) * kf_dtype_infos[t->dtype].bytes;
}

static int64_t position_bytes(const kf_type *kv)
{
    return 2 * (int64_t)kv->kv_heads * kv->kv_head_dim * kf_dtype_infos[kv->dtype].bytes;
}

/* Keys that reader |n| of a cache sees: the memory's, or those of its mask, tried one by one. */
static int64_t keys_seen(const counting *c, const kf_graph *body, const kf_node *n)
{
    const kf_attr_attention *a = n->op == KF_OP_attention ? KF_ATTR_OF(n, attention) : NULL;
    int64_t all = c->sym[KF_SYM_K], seen = 0;

    if (a ? a->stored : kf_value_type(body, n->out[0])->dim[0].sym == KF_SYM_M + 1)
        return c->sym[KF_SYM_M];
    if (!a || !a->mask)
        return all;
    for (uint32_t i = 0; i < a->mask->n_insts; i++)
        if (a->mask->inst[i].op == KF_SLOT_LOAD)
            return all;
    for (int64_t k = 0; k < all; k++)
        seen += kf_slot_eval(a->mask, (double[]){0, (double)(all - 1), (double)k}, NULL, NULL) != 0;
    return seen;
}

/* What |body| does with the cache that is its argument |v|: keys seen for a reader, new ones for
 * an append. */
static int64_t cache_bytes(const counting *c, const kf_graph *body, kf_value v)
{
    int64_t bytes = 0;

    for (uint32_t i = 0; i < body->nodes.len; i++) {
        const kf_node *n = &body->nodes.data[i];
        for (uint32_t j = 0; j < n->n_in; j++) {
            const kf_type *t = kf_value_type(body, n->in[j]);
            bool same = n->in[j] == v || (t->kind == KF_TYPE_KVCACHE &&
                                          kf_value_is(body, n->in[j], KF_OP_kv_append));
            if (t->kind != KF_TYPE_KVCACHE || !same)
                continue;
            bytes += n->op == KF_OP_kv_append ? c->sym[KF_SYM_N] * position_bytes(t)
                     : n->op == KF_OP_kv_read ? keys_seen(c, body, n) * position_bytes(t) / 2
                                              : keys_seen(c, body, n) * position_bytes(t);
        }
    }
    return bytes;
}

/* Argument |i| of a body: all of it, or the rows that are gathered if nothing else reads it. */
static int64_t argument_bytes(const counting *c, const kf_graph *body, uint32_t i, int64_t whole)
{
    kf_value v = body->args.data[i];
    int64_t rows_only = 0;

    if (kf_value_type(body, v)->kind == KF_TYPE_KVCACHE)
        return cache_bytes(c, body, v);
    for (uint32_t k = 0; k < body->nodes.len; k++) {
        const kf_node *n = &body->nodes.data[k];
        for (uint32_t j = 0; j < n->n_in; j++) {
            if (n->in[j] != v)
                continue;
            if (n->op != KF_OP_gather || j != 0)
                return whole;
            rows_only += kf_type_elems(kf_value_type(body, n->out[0]), c->sym) *
                         kf_dtype_infos[kf_value_type(body, v)->dtype].bytes;
        }
    }
    return rows_only;
}

static int64_t operand_bytes(const counting *c, const kf_operand *o)
{
    switch (o->space) {
    case KF_SPACE_BUFFER:
        return type_bytes(c, &c->phase->buffers.data[o->index].type);
    case KF_SPACE_WEIGHT:
        return c->p->weights.data[o->index].size_bytes;
    case KF_SPACE_INPUT:
        return type_bytes(c, &c->p->inputs.data[o->index].type);
    default:
        return 0; /* caches are counted by the ops that use them */
    }
}

static int64_t launch_bytes(const counting *c, const kf_launch *l)
{
    const kf_graph *body = c->p->kernels.data[l->kernel].body;
    int64_t bytes = 0;

    for (uint32_t i = 0; i < l->n_operands; i++) {
        int64_t whole = operand_bytes(c, &l->operand[i]);
        bytes += i < body->args.len                      ? argument_bytes(c, body, i, whole)
                 : l->operand[i].space == KF_SPACE_STATE ? 0
                                                         : whole;
    }
    return bytes;
}

/* ---- the least ------------------------------------------------------------------------------- */

/** What a round of the loop has touched. */
typedef struct touched {
    bool *weight, *input, *written, *entered;
} touched;

/* What comes from outside: rows with their statistics, rope's table. */
static int64_t entering(const counting *c, const kf_plan_step *s, uint32_t buffer)
{
    const kf_type *t = &c->phase->buffers.data[buffer].type;
    bool later = false;

    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        const kf_launch *l = &c->phase->launches.data[i];
        uint32_t n_args = c->p->kernels.data[l->kernel].body->args.len;
        for (uint32_t j = n_args; j < l->n_operands; j++)
            later |= l->operand[j].space == KF_SPACE_BUFFER && l->operand[j].index == buffer;
    }
    return type_bytes(c, t) * (later ? 2 : 1); /* goes in, and comes out again */
}

static int64_t least_of(const counting *c, const kf_plan_step *s, const kf_operand *o, touched *t)
{
    switch (o->space) {
    case KF_SPACE_WEIGHT:
        if (t->weight[o->index])
            return 0;
        t->weight[o->index] = true;
        return operand_bytes(c, o);
    case KF_SPACE_INPUT:
        if (t->input[o->index])
            return 0;
        t->input[o->index] = true;
        return operand_bytes(c, o);
    case KF_SPACE_BUFFER:
        if (t->written[o->index] || t->entered[o->index])
            return 0;
        t->entered[o->index] = true;
        return entering(c, s, o->index);
    default:
        return 0;
    }
}

static int64_t step_least(const counting *c, const kf_plan_step *s)
{
    kf_arena *a = kf_arena_create("least");
    touched t = {KF_NEW_N(a, bool, c->p->weights.len + 1), KF_NEW_N(a, bool, c->p->inputs.len + 1),
                 KF_NEW_N(a, bool, c->phase->buffers.len + 1),
                 KF_NEW_N(a, bool, c->phase->buffers.len + 1)};
    int64_t bytes = 0;

    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        const kf_launch *l = &c->phase->launches.data[i];
        const kf_graph *body = c->p->kernels.data[l->kernel].body;
        for (uint32_t j = 0; j < l->n_operands; j++) {
            const kf_operand *o = &l->operand[j];
            if (j >= body->args.len && o->space == KF_SPACE_BUFFER)
                t.written[o->index] = true;
            else if (j < body->args.len && o->space == KF_SPACE_STATE)
                bytes += cache_bytes(c, body, body->args.data[j]);
            else if (j < body->args.len)
                bytes += least_of(c, s, o, &t);
        }
    }
    kf_arena_destroy(a);
    return bytes;
}

/* ---- layers ---------------------------------------------------------------------------------- */

static bool only_scalar_functions(const kf_graph *body)
{
    const uint32_t other = KF_CONTRACT | KF_ROWRED | KF_STATE;

    for (uint32_t i = 0; i < body->nodes.len; i++)
        if (kf_op_infos[body->nodes.data[i].op].traits & other)
            return false;
    return true;
}

static const kf_plan_phase *find_phase(const kf_plan *p, const char *name)
{
    for (uint32_t i = 0; i < p->phases.len; i++)
        if (kf_str_eq_c(p->phases.data[i].name, name))
            return &p->phases.data[i];
    return NULL;
}

static bool count_layers(const kf_plan *p, const row *r, tally *out)
{
    counting c = {p, find_phase(p, r->phase), {0}};
    bool decodes = !strcmp(r->phase, "decode");

    *out = (tally){0};
    if (!c.phase)
        return false;
    c.sym[KF_SYM_S] = c.sym[KF_SYM_R] = c.sym[KF_SYM_N] = 1;
    c.sym[KF_SYM_K] = decodes ? PAST + 1 : 1;
    c.sym[KF_SYM_M] = PAST;
    for (uint32_t i = 0; i < c.phase->steps.len; i++) {
        const kf_plan_step *s = &c.phase->steps.data[i];
        if (!s->loop)
            continue;
        double share = (double)s->times / (double)r->layers;
        out->launches += s->n * share;
        out->least += (double)step_least(&c, s) * share;
        for (uint32_t l = s->first; l < s->first + s->n; l++) {
            const kf_launch *launch = &c.phase->launches.data[l];
            out->bytes += (double)launch_bytes(&c, launch) * share;
            if (only_scalar_functions(p->kernels.data[launch->kernel].body))
                out->alone = p->kernels.data[launch->kernel].name;
        }
    }
    return out->launches > 0;
}

/* ---- plans ----------------------------------------------------------------------------------- */

static kf_plan *read_plan(kf_arena *a, const char *kerf, const char *folder, const row *r,
                          const char *off)
{
    kf_str command = kf_strf(a, "%s inspect %s/%s.yaml --stage plan --pass-off '%s'", kerf, folder,
                             r->file, off);
    kf_diags *d = kf_diags_create(a);
    FILE *pipe = popen(command.ptr, "r");
    char *text = malloc(MAX_TEXT);
    kf_plan *p = NULL;

    if (pipe && text) {
        uint32_t n = (uint32_t)fread(text, 1, MAX_TEXT, pipe);
        p = kf_plan_parse(a, d, command, kf_str_dup(a, (kf_str){text, n}));
    }
    if (pipe && pclose(pipe))
        p = NULL;
    free(text);
    if (!p)
        kf_diags_print(d, stdout, false);
    return p;
}

static bool add_row(kf_arena *a, const row *r, const char *kerf, const char *folder, kf_sbuf *out)
{
    kf_plan *fused = read_plan(a, kerf, folder, r, ""),
            *unfused = read_plan(a, kerf, folder, r, KF_UNFUSED_OFF);
    tally f, u;

    if (!fused || !unfused || !count_layers(fused, r, &f) || !count_layers(unfused, r, &u))
        return printf("%s: no plan with layers\n", r->file), false;
    kf_sbuf_printf(out, "| %s | %g | %.0f | %g | %.0f | %.0f | %.3f | %lld |\n", r->label,
                   u.launches, u.bytes, f.launches, f.bytes, f.least, f.bytes / f.least,
                   (long long)r->most);
    bool ok = true;
    if (f.launches > (double)r->most)
        ok = printf("%s: %g launches a layer, at most %lld are allowed\n", r->file, f.launches,
                    (long long)r->most) < 0;
    if (f.bytes > 1.02 * f.least)
        ok = printf("%s: %.0f bytes a layer, more than 1.02 x %.0f\n", r->file, f.bytes, f.least) <
             0;
    if (f.alone.len)
        ok = printf("%s: kernel %.*s is nothing but scalar functions\n", r->file,
                    KF_STR_ARG(f.alone)) < 0;
    return ok;
}

/* ---- the file -------------------------------------------------------------------------------- */

static const char begin_mark[] = "<!-- table: written by tests/fusion/table -->\n";
static const char end_mark[] = "<!-- end of table -->\n";

static bool update(kf_arena *a, const char *path, kf_str table)
{
    kf_str text;

    if (kf_fs_read(a, path, MAX_TEXT, &text))
        return printf("cannot read %s\n", path), false;
    const char *from = strstr(text.ptr, begin_mark), *to = strstr(text.ptr, end_mark);
    if (!from || !to)
        return printf("%s has no place for the table\n", path), false;
    from += strlen(begin_mark);
    kf_str old = {from, (uint32_t)(to - from)};
    if (kf_str_eq(old, table))
        return true;
    if (!getenv("KF_BLESS"))
        return printf("the table of %s is stale (KF_BLESS=1 rewrites it); it should be\n%.*s", path,
                      KF_STR_ARG(table)),
               false;
    kf_str new_text =
        kf_strf(a, "%.*s%.*s%s", (int)(from - text.ptr), text.ptr, KF_STR_ARG(table), to);
    return kf_fs_write(path, new_text, 0644) == 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return fprintf(stderr, "usage: table KERF FOLDER FUSION.MD\n"), 2;
    kf_arena *a = kf_arena_create("table");
    kf_sbuf table = {.arena = a};
    bool ok = true;

    kf_sbuf_c(&table, "| block | unfused: launches | bytes | fused: launches | bytes | minimum | "
                      "ratio | launches at most |\n|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < N_ROWS; i++)
        ok &= add_row(a, &rows[i], argv[1], argv[2], &table);
    ok &= update(a, argv[3], kf_sbuf_view(&table));
    kf_arena_destroy(a);
    return !ok;
}
