/* SPDX-License-Identifier: Apache-2.0 */
/* build_attention - self and cross attention over a cache, written out in ordinary ops.
 *
 *   q, k, v = x Wq, x Wk, x Wv                             [N, heads*D]
 *   k, v join the cache; keys and values of all sequences in view are read back as [K, G, D]
 *   s = scale * q k^T                                      [G, heads/G, N, K]
 *   s += table[bucket(k - q), h], with a relative_bias
 *   p = softmax(s where the key is visible, else -inf), or s itself; times a factor
 *   y = (p v) Wo                                           [N, hidden]
 *
 * Cross attention reads the memory, a cache that the encoder's rows have joined before, and sees
 * all keys of its sequence. Vaswani et al. 2017 (arXiv:1706.03762); grouped queries: Ainslie et al.
 * 2023 (arXiv:2305.13245).
 */
#include "frontend/build_impl.h"

#include <math.h>

static kf_value reshape3(kf_graph_builder *b, kf_value v, int64_t heads, int64_t d, kf_loc loc)
{
    kf_dim dims[] = {kf_value_type(b->g, v)->dim[0], kf_dim_static(heads), kf_dim_static(d)};

    return kf_node_reshape(b->g, v, 3, dims, loc);
}

kf_attr_rope_table kf_build_rope_attr(const kf_spec_attention *a)
{
    static const int scaling[] = {KF_SCALING_NONE, KF_SCALING_LINEAR, KF_SCALING_LLAMA3};
    const kf_spec_rope *r = &a->rope;
    kf_attr_rope_table t = {.dim = r->rotated_dim,
                            .theta = r->theta.v,
                            .scaling = scaling[r->type.v],
                            .factor = 1,
                            .low = 1,
                            .high = 1};

    if (r->type.v != KF_ROPE_DEFAULT)
        t.factor = r->factor.v;
    if (r->type.v == KF_ROPE_LLAMA3) {
        t.low = r->low_freq_factor.v;
        t.high = r->high_freq_factor.v;
        t.original = r->original_max_position_embeddings.v;
    }
    return t;
}

kf_type kf_build_cache_type(const kf_graph_builder *b, const kf_spec_attention *a, uint32_t layers)
{
    kf_sv_dtype kv = b->spec->build.kv;

    return kf_type_kvcache(kf_src_given(kv.src) ? kv.v : KF_DTYPE_f32, KF_KV_PAGE_TOKENS,
                           (uint32_t)a->num_key_value_heads.v, (uint32_t)a->head_dim.v, layers);
}

static kf_value rope(kf_graph_builder *b, const kf_spec_attention *a, kf_value x, kf_loc loc)
{
    kf_attr_rope_table table = kf_build_rope_attr(a);
    kf_attr_rope *attr = KF_ATTR_NEW(b->arena, rope);

    if (!a->rope.present.v)
        return x;
    attr->style = a->rope.style.v == KF_ROPE_INTERLEAVED ? KF_STYLE_INTERLEAVED : KF_STYLE_HALF;
    for (uint32_t i = 0; i < b->n_ropes; i++) {
        if (!kf_attr_eq(KF_ATTR_rope_table, &b->rope[i], &table))
            continue;
        kf_value in[] = {x, b->in.rope[i]};
        return kf_node_add(b->g, KF_OP_rope, attr, 2, in, NULL, loc);
    }
    return x; /* unreachable: every table was collected before */
}

/* q or k as [N, heads, D], normalized and rotated. */
static kf_value heads_of(kf_graph_builder *b, const kf_block *block, kf_value flat, int64_t heads,
                         kf_param_role norm, const char *norm_name)
{
    const kf_spec_attention *a = &block->u.attention;
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value v = reshape3(b, flat, heads, a->head_dim.v, loc);

    if (a->qk_norm.v == KF_QK_NORM_RMS)
        v = kf_build_rms(b, v, a->qk_norm_eps.v, kf_build_param(b, block, norm, norm_name), loc);
    return rope(b, a, v, loc);
}

/** What a row attends to: a cache, and how its keys are found. */
typedef struct view {
    kf_value kv, past, pages;
    bool stored; /* all keys were there before the call */
} view;

/* Keys or values in view as [G, 1, K, D]. */
static kf_value cache_rows(kf_graph_builder *b, const view *w, int plane, kf_loc loc)
{
    kf_attr_kv_read *attr = KF_ATTR_NEW(b->arena, kv_read);
    kf_value in[] = {w->kv, b->in.seq_start, w->past, w->pages};

    attr->plane = plane;
    attr->stored = w->stored;
    kf_value rows = kf_node_add(b->g, KF_OP_kv_read, attr, 4, in, NULL, loc);
    rows = kf_node_transpose(b->g, rows, (kf_ints){3, {1, 0, 2}}, loc);
    const kf_type t = *kf_value_type(b->g, rows);
    kf_dim dims[] = {t.dim[0], kf_dim_static(1), t.dim[1], t.dim[2]};
    return kf_node_reshape(b->g, rows, 4, dims, loc);
}

static kf_value key_index(kf_graph_builder *b, const view *w, int plane, kf_loc loc)
{
    kf_attr_kv_read *attr = KF_ATTR_NEW(b->arena, kv_read);
    kf_value in[] = {b->in.seq_start, w->past};

    attr->plane = plane;
    attr->stored = w->stored;
    return kf_node_add(b->g, KF_OP_kv_index, attr, 2, in, NULL, loc);
}

static kf_value as_column(kf_graph_builder *b, kf_value v, kf_loc loc)
{
    kf_dim dims[] = {kf_value_type(b->g, v)->dim[0], kf_dim_static(1)};

    return kf_node_reshape(b->g, v, 2, dims, loc);
}

/* Index of the head as [G, heads/G, 1, 1]. */
static kf_value head_index(kf_graph_builder *b, const kf_spec_attention *a, kf_loc loc)
{
    int64_t heads = a->num_attention_heads.v, groups = a->num_key_value_heads.v;
    kf_attr_axis *attr = KF_ATTR_NEW(b->arena, axis);
    kf_dim one = kf_dim_static(1);
    kf_dim flat[] = {kf_dim_static(heads), one, one};
    kf_dim grouped[] = {kf_dim_static(groups), kf_dim_static(heads / groups), one, one};
    kf_type t = kf_type_tensor(KF_DTYPE_i32, 3, flat);

    kf_value h = kf_node_add(b->g, KF_OP_iota, attr, 0, NULL, &t, loc);
    return kf_node_reshape(b->g, h, 4, grouped, loc);
}

/* |s| for every head, row and key, as |scores| are: an expression need not ask for the score. */
static kf_value for_all(kf_graph_builder *b, kf_value s, kf_value scores, kf_loc loc)
{
    kf_type t = *kf_value_type(b->g, scores);

    t.dtype = kf_value_type(b->g, s)->dtype;
    return kf_type_eq(kf_value_type(b->g, s), &t)
               ? s
               : kf_node_add(b->g, KF_OP_expand, NULL, 1, &s, &t, loc);
}

/* Scores with the user's expression applied; where the key is not visible what gives it no weight.
 */
static kf_value masked_scores(kf_graph_builder *b, const kf_spec_attention *a, const view *w,
                              const kf_value *vars, kf_loc loc)
{
    kf_value s = vars[KF_EXPR_SCORE_VAR];
    double nothing = a->normaliser.v == KF_NORMALISE_NONE ? 0 : -INFINITY;

    if (a->score.expr)
        s = for_all(b, kf_build_expr(b, a->score.expr, vars, kf_build_loc(b, a->score.src.loc)), s,
                    loc);
    kf_value seen = kf_node_2(b->g, KF_OP_eq, key_index(b, w, KF_PLANE_SEQ, loc),
                              as_column(b, b->in.seq, loc), loc);
    if (a->mask.expr)
        seen = kf_node_2(b->g, KF_OP_and, kf_build_expr(b, a->mask.expr, vars, loc), seen, loc);
    return kf_node_3(b->g, KF_OP_select, seen, s, kf_node_const(b->g, nothing, loc), loc);
}

/* A row reduction to one number a row. */
static kf_value reduce(kf_graph_builder *b, kf_value x, kf_acc acc, kf_loc loc)
{
    kf_attr_row_reduce *attr = KF_ATTR_NEW(b->arena, row_reduce);

    attr->acc = (kf_accs){1, {acc}};
    return kf_node_add(b->g, KF_OP_row_reduce, attr, 1, &x, NULL, loc);
}

/* exp(v - m) / (sum of exp(v - m) + exp(sink - m)) with m the largest of v and the sink. */
static kf_value softmax_with_sink(kf_graph_builder *b, const kf_block *block, kf_value x,
                                  kf_loc loc)
{
    kf_graph *g = b->g;
    const kf_type *t = kf_value_type(g, x);
    kf_dim one = kf_dim_static(1), by_head[] = {t->dim[0], t->dim[1], one, one};
    kf_value sink = kf_build_param(b, block, KF_PARAM_SINKS, "sinks");

    sink = kf_node_reshape(g, sink, 4, by_head, loc);
    kf_value m = kf_node_2(g, KF_OP_max, reduce(b, x, KF_ACC_max, loc), sink, loc);
    kf_value e = kf_node_1(g, KF_OP_exp, kf_node_2(g, KF_OP_sub, x, m, loc), loc);
    kf_value rest = kf_node_1(g, KF_OP_exp, kf_node_2(g, KF_OP_sub, sink, m, loc), loc);
    kf_value sum = kf_node_2(g, KF_OP_add, reduce(b, e, KF_ACC_sum, loc), rest, loc);
    return kf_node_2(g, KF_OP_div, e, sum, loc);
}

/* exp(v - max) / sum, and 0 where no key is visible; NaN stays. */
static kf_value softmax(kf_graph_builder *b, kf_value x, kf_loc loc)
{
    static const char *const names[] = {"v", "m", "s"};
    kf_attr_row_reduce *attr = KF_ATTR_NEW(b->arena, row_reduce);
    kf_slot_builder *sb = kf_slot_builder_create(b->arena, 3, names, 0);
    uint32_t v = kf_slot_param(sb, 0), m = kf_slot_param(sb, 1), s = kf_slot_param(sb, 2);
    uint32_t zero = kf_slot_const(sb, 0);

    uint32_t e = kf_slot_fn(sb, KF_FN_exp, kf_slot_fn(sb, KF_FN_sub, v, m, 0), 0, 0);
    uint32_t p = kf_slot_fn(sb, KF_FN_div, e, s, 0);
    uint32_t none = kf_slot_fn(sb, KF_FN_eq, s, zero, 0);
    attr->acc = (kf_accs){2, {KF_ACC_max, KF_ACC_sum_exp}};
    attr->map = kf_slot_finish(sb, kf_slot_fn(sb, KF_FN_select, none, zero, p));
    attr->keep = true;
    return kf_node_add(b->g, KF_OP_row_reduce, attr, 1, &x, NULL, loc);
}

static bool uses_head(const kf_spec_attention *a)
{
    const kf_sv_expr *const exprs[] = {&a->mask, &a->score, &a->prob};

    for (uint32_t i = 0; i < 3; i++)
        if (exprs[i]->expr && kf_expr_uses(exprs[i]->expr, KF_EXPR_H))
            return true;
    return false;
}

/* What the values are weighed with, from the scaled products |s|. */
static kf_value weights_of(kf_graph_builder *b, const kf_block *block, const view *w, kf_value s,
                           kf_loc loc)
{
    const kf_spec_attention *a = &block->u.attention;
    kf_value vars[KF_EXPR_VAR_COUNT] = {
        [KF_EXPR_X] = KF_NO_VALUE,
        [KF_EXPR_SCORE_VAR] = s,
        [KF_EXPR_H] = uses_head(a) ? head_index(b, a, loc) : KF_NO_VALUE,
        [KF_EXPR_Q] = as_column(b, b->in.pos, loc),
        [KF_EXPR_K] = key_index(b, w, KF_PLANE_POS, loc),
    };

    if (a->relative_bias.v)
        vars[KF_EXPR_SCORE_VAR] =
            kf_node_2(b->g, KF_OP_add, s,
                      kf_build_relative_bias(b, a, vars[KF_EXPR_Q], vars[KF_EXPR_K], loc), loc);
    kf_value p = masked_scores(b, a, w, vars, loc);
    if (a->sinks.v)
        p = softmax_with_sink(b, block, p, loc);
    else if (a->normaliser.v == KF_NORMALISE_SOFTMAX)
        p = softmax(b, p, loc);
    if (!a->prob.expr)
        return p;
    kf_loc at = kf_build_loc(b, a->prob.src.loc);
    return kf_node_2(b->g, KF_OP_mul, p, kf_build_expr(b, a->prob.expr, vars, at), at);
}

/* What becomes of queries [N, heads, D]: weighed values, times the last matrix. */
static kf_value attend(kf_graph_builder *b, const kf_block *block, const view *w, kf_value q)
{
    const kf_spec_attention *a = &block->u.attention;
    kf_loc loc = kf_build_loc(b, block->src.loc);
    int64_t heads = a->num_attention_heads.v, groups = a->num_key_value_heads.v, d = a->head_dim.v;
    kf_graph *g = b->g;
    kf_dim n = kf_value_type(g, q)->dim[0];
    kf_dim grouped[] = {kf_dim_static(groups), kf_dim_static(heads / groups), n, kf_dim_static(d)};
    kf_dim flat_heads[] = {kf_dim_static(heads), n, kf_dim_static(d)};
    kf_dim flat[] = {n, kf_dim_static(heads * d)};

    q = kf_node_reshape(g, kf_node_transpose(b->g, q, (kf_ints){3, {1, 0, 2}}, loc), 4, grouped,
                        loc);
    kf_value s = kf_node_matmul(g, q, cache_rows(b, w, KF_PLANE_KEYS, loc), true, loc);
    s = kf_node_2(g, KF_OP_mul, s, kf_node_const(g, a->scale.v, loc), loc);
    kf_value p = weights_of(b, block, w, s, loc);
    kf_value o = kf_node_matmul(g, p, cache_rows(b, w, KF_PLANE_VALUES, loc), false, loc);
    o = kf_node_transpose(b->g, kf_node_reshape(g, o, 3, flat_heads, loc), (kf_ints){3, {1, 0, 2}},
                          loc);
    o = kf_node_reshape(g, o, 2, flat, loc);
    return kf_build_linear(b, block, KF_PARAM_O, "wo", KF_PARAM_O_BIAS, "bo", o);
}

static kf_value query(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    return kf_build_linear(b, block, KF_PARAM_Q, "wq", KF_PARAM_Q_BIAS, "bq", x);
}

static kf_value query_heads(kf_graph_builder *b, const kf_block *block, kf_value q)
{
    return heads_of(b, block, q, block->u.attention.num_attention_heads.v, KF_PARAM_Q_NORM,
                    "q_norm");
}

/** Keys and values of some rows, before they are divided into heads. */
typedef struct key_rows {
    kf_value k, v;
} key_rows;

static key_rows keys_of(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    key_rows r;

    r.k = kf_build_linear(b, block, KF_PARAM_K, "wk", KF_PARAM_K_BIAS, "bk", x);
    r.v = kf_build_linear(b, block, KF_PARAM_V, "wv", KF_PARAM_V_BIAS, "bv", x);
    return r;
}

/* They join cache |cache| of the function. */
static void append(kf_graph_builder *b, const kf_block *block, uint32_t cache, key_rows r)
{
    const kf_spec_attention *a = &block->u.attention;
    kf_loc loc = kf_build_loc(b, block->src.loc);
    int64_t groups = a->num_key_value_heads.v;
    kf_value k = heads_of(b, block, r.k, groups, KF_PARAM_K_NORM, "k_norm");
    kf_value in[] = {b->cache[cache], k,         reshape3(b, r.v, groups, a->head_dim.v, loc),
                     b->in.pos,       b->in.seq, b->in.pages};

    b->cache[cache] = kf_node_add(b->g, KF_OP_kv_append, NULL, 6, in, NULL, loc);
}

kf_value kf_build_attention(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    uint32_t cache = b->next_cache++;
    kf_value q = query(b, block, x);
    key_rows r = keys_of(b, block, x);

    q = query_heads(b, block, q);
    append(b, block, cache, r);
    view w = {b->cache[cache], b->in.past, b->in.pages, false};
    return attend(b, block, &w, q);
}

void kf_build_memory(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    append(b, block, b->next_memory++, keys_of(b, block, x));
}

kf_value kf_build_cross(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    view w = {b->cache[b->next_memory++], b->in.memory_len, b->in.memory_pages, true};

    return attend(b, block, &w, query_heads(b, block, query(b, block, x)));
}
