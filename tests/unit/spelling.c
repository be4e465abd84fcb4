/* SPDX-License-Identifier: Apache-2.0 */
/* spelling - see spelling.h. */
#include "tests/unit/spelling.h"

#include "ir/eval.h"
#include "ir/text.h"
#include "tests/unit/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define A s->arena

spelling sp_begin(kf_arena *arena)
{
    spelling s = {.arena = arena, .m = kf_module_create(arena, KF_STR("m"))};

    kf_module_add_sym(s.m, KF_STR("S"), 1, 2);
    kf_module_add_sym(s.m, KF_STR("N"), 1, 8);
    kf_module_add_sym(s.m, KF_STR("R"), 1, 2);
    kf_module_add_sym(s.m, KF_STR("K"), 1, 16);
    s.g = kf_module_add_func(s.m, KF_STR("f"));
    return s;
}

/* ---- short forms ----------------------------------------------------------------------------- */

kf_value sp_arg(spelling *s, const char *name, kf_dtype dtype, uint8_t rank, const kf_dim *dims)
{
    return kf_graph_add_arg(s->g, kf_type_tensor(dtype, rank, dims), kf_str_from(name), KF_NO_LOC);
}

kf_value sp_param(spelling *s, const char *name, uint8_t rank, const kf_dim *dims)
{
    kf_type t = kf_type_tensor(KF_DTYPE_f32, rank, dims);

    return kf_graph_add_param(s->g, kf_recipe_load(A, kf_str_from(name), t), kf_str_from(name),
                              KF_NO_LOC);
}

kf_value sp_num(spelling *s, double v)
{
    return kf_node_const(s->g, v, KF_NO_LOC);
}

kf_value sp1(spelling *s, kf_op op, kf_value a)
{
    return kf_node_1(s->g, op, a, KF_NO_LOC);
}

kf_value sp2(spelling *s, kf_op op, kf_value a, kf_value b)
{
    bool turn = s->commute && (kf_op_infos[op].traits & KF_COMM);

    return kf_node_2(s->g, op, turn ? b : a, turn ? a : b, KF_NO_LOC);
}

kf_value sp3(spelling *s, kf_op op, kf_value a, kf_value b, kf_value c)
{
    return kf_node_3(s->g, op, a, b, c, KF_NO_LOC);
}

/* A dim of 1 in front, and away again. */
static kf_value detour(spelling *s, kf_value v)
{
    kf_dim dim[KF_MAX_RANK] = {SP(1)};
    const kf_type t = *kf_value_type(s->g, v);

    if (!s->detours || t.rank == KF_MAX_RANK)
        return v;
    memcpy(dim + 1, t.dim, t.rank * sizeof *dim);
    v = kf_node_reshape(s->g, v, (uint8_t)(t.rank + 1), dim, KF_NO_LOC);
    return kf_node_reshape(s->g, v, t.rank, t.dim, KF_NO_LOC);
}

kf_value sp_reshape(spelling *s, kf_value v, uint8_t rank, const kf_dim *dims)
{
    return detour(s, kf_node_reshape(s->g, v, rank, dims, KF_NO_LOC));
}

kf_value sp_expand(spelling *s, kf_value v, uint8_t rank, const kf_dim *dims)
{
    kf_type t = kf_type_tensor(kf_value_type(s->g, v)->dtype, rank, dims);

    return kf_node_add(s->g, KF_OP_expand, NULL, 1, &v, &t, KF_NO_LOC);
}

kf_value sp_transpose(spelling *s, kf_value v, const char *perm)
{
    kf_attr_perm *p = KF_ATTR_NEW(A, perm);

    for (; *perm; perm++)
        p->perm.v[p->perm.n++] = *perm - '0';
    return detour(s, kf_node_add(s->g, KF_OP_transpose, p, 1, &v, NULL, KF_NO_LOC));
}

kf_value sp_matmul(spelling *s, kf_value a, kf_value b, bool trans_b)
{
    return kf_node_matmul(s->g, a, b, trans_b, KF_NO_LOC);
}

kf_value sp_iota(spelling *s, int64_t n)
{
    kf_dim dim = SP(n);
    kf_type t = kf_type_tensor(KF_DTYPE_i32, 1, &dim);

    return kf_node_add(s->g, KF_OP_iota, KF_ATTR_NEW(A, axis), 0, NULL, &t, KF_NO_LOC);
}

kf_value sp_reduce(spelling *s, kf_acc acc, kf_value v)
{
    kf_attr_row_reduce *a = KF_ATTR_NEW(A, row_reduce);

    a->acc = (kf_accs){1, {acc}};
    return kf_node_add(s->g, KF_OP_row_reduce, a, 1, &v, NULL, KF_NO_LOC);
}

kf_value sp_row_map(spelling *s, kf_value v, uint8_t n, const kf_acc *acc, const kf_slot *map)
{
    kf_attr_row_reduce *a = KF_ATTR_NEW(A, row_reduce);

    a->acc.n = n;
    memcpy(a->acc.acc, acc, n * sizeof *acc);
    a->map = map;
    a->keep = true;
    return kf_node_add(s->g, KF_OP_row_reduce, a, 1, &v, NULL, KF_NO_LOC);
}

/* ---- numbers --------------------------------------------------------------------------------- */

enum { SEQS = 2, TOKENS = 5, PAST = 3, KEYS = PAST + TOKENS };

static const int64_t sizes[] = {
    [KF_SYM_S] = SEQS, [KF_SYM_N] = TOKENS, [KF_SYM_R] = 2, [KF_SYM_K] = KEYS};

static const struct {
    const char *name;
    double value[TOKENS];
} inputs[] = {
    {"pos", {3, 4, 0, 1, 2}}, {"seq", {0, 0, 1, 1, 1}}, {"seq_start", {0, 2}}, {"past", {PAST, 0}}};

static double uniform(uint64_t *state)
{
    return (double)(random_u64(state) >> 11) * 0x1p-52 - 1;
}

static void fill(kf_tensor *t, uint64_t *state)
{
    for (int64_t i = 0; i < t->n; i++)
        t->data[i] = uniform(state);
}

static kf_tensor tensor_of(spelling *s, const kf_value_info *v, uint64_t *state)
{
    const kf_type *type = &v->type;
    int64_t dim[KF_MAX_RANK];

    if (type->kind == KF_TYPE_KVCACHE) {
        kf_tensor kv = kf_tensor_new_kv(A, type, KF_EVAL_IDEAL, SEQS, 16);
        for (int64_t i = 0; i < 2 * PAST; i++)
            for (uint32_t k = 0; k < type->kv_heads * type->kv_head_dim; k++)
                kf_eval_kv_row(&kv, i % 2, 0, 0, i / 2)[k] = uniform(state);
        return kv;
    }
    for (uint8_t d = 0; d < type->rank; d++)
        dim[d] = kf_dim_value(type->dim[d], sizes);
    kf_tensor t = kf_tensor_new(A, type->rank, dim);
    if (type->dtype != KF_DTYPE_i32)
        fill(&t, state);
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        if (kf_str_eq_c(v->name, inputs[i].name))
            memcpy(t.data, inputs[i].value, (size_t)t.n * sizeof *t.data);
    return t;
}

/* The results of the function on numbers that follow from the seed and the names. */
static bool evaluate(spelling *s, const kf_module *m, uint64_t seed, kf_tensor *out, kf_sbuf *why)
{
    const kf_graph *g = kf_module_find_func(m, KF_STR("f"));
    kf_tensor *args = KF_NEW_N(A, kf_tensor, g->args.len + 1),
              *params = KF_NEW_N(A, kf_tensor, g->params.len + 1);

    for (uint32_t i = 0; i < g->args.len; i++) {
        uint64_t state = seed + i;
        args[i] = tensor_of(s, &g->values.data[g->args.data[i]], &state);
    }
    for (uint32_t i = 0; i < g->params.len; i++) {
        const kf_value_info *v = &g->values.data[g->params.data[i]];
        uint64_t state = seed;
        for (uint32_t k = 0; k < v->name.len; k++)
            state = state * 31 + (unsigned char)v->name.ptr[k];
        params[i] = tensor_of(s, v, &state);
    }
    return kf_eval_graph(A, g, KF_EVAL_IDEAL, sizes, args, params, out, why);
}

static double difference(const kf_graph *g, const kf_tensor *a, const kf_tensor *b)
{
    double worst = 0;

    for (uint32_t r = 0; r < g->results.len; r++) {
        double top = 0, off = 0;
        for (int64_t i = 0; i < a[r].n && !a[r].kv; i++) {
            double d = fabs(a[r].data[i] - b[r].data[i]);
            top = fmax(top, fabs(a[r].data[i]));
            off = d > off || isnan(d) ? d : off;
        }
        off = top > 0 ? off / top : off;
        worst = off > worst || isnan(off) ? off : worst;
    }
    return worst;
}

/* ---- running --------------------------------------------------------------------------------- */

sp_outcome sp_run(spelling *s, const char *passes, uint64_t seed)
{
    kf_pass_ctx cx = {
        .arena = A, .scratch = kf_arena_create("scratch"), .diags = kf_diags_create(A)};
    kf_pipeline_options opt = {.passes = passes, .verify_each = true, .out = stderr};
    sp_outcome o = {.error = INFINITY};
    kf_tensor before[KF_MAX_RESULTS], after[KF_MAX_RESULTS];
    kf_sbuf text = {.arena = A}, why = {.arena = A};
    kf_pass_runs runs = {0};

    kf_module *m = kf_module_clone(s->m, A);
    kf_pipeline_run(m, &cx, &opt, &runs);
    for (uint32_t i = 0; i < cx.candidates.len; i++) {
        const kf_candidate *c = &cx.candidates.data[i];
        o.n_fused += c->reason == KF_REASON_NONE;
        if (c->reason != KF_REASON_NONE && o.why == KF_REASON_NONE) {
            o.why = c->reason;
            o.detail = c->detail;
        }
    }
    kf_module_print(m, 0, &text);
    o.text = kf_sbuf_view(&text);
    if (evaluate(s, s->m, seed, before, &why) && evaluate(s, m, seed, after, &why))
        o.error = difference(s->g, before, after);
    else
        fprintf(stderr, "evaluation: %.*s\n", KF_STR_ARG(kf_sbuf_view(&why)));
    kf_arena_destroy(cx.scratch);
    return o;
}
