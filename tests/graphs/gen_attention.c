/* SPDX-License-Identifier: Apache-2.0 */
/* gen_attention - attention, written out op by op in many spellings or as the op, and what only
 * resembles it. */
#include "tests/graphs/gen.h"

#include <math.h>

#define S(x)     kf_dim_static(x)
#define POSITION ((range){0, 63, true})

typedef struct heads {
    int64_t kv, per_kv, dim;     /* query heads: kv * per_kv */
    kf_value q;                  /* [N, heads, dim] */
    kf_value cache, past, pages; /* what is read, and how much of it */
    bool stored;                 /* a memory: nothing of this call is in it */
    kf_value q_pos, k_pos;       /* of the scores' axes, i32 */
    kf_value head;               /* i32[kv, per_kv, 1, 1] */
} heads;

static kf_value fn2(gen *g, kf_op op, kf_value a, kf_value b, range r)
{
    return gen_node(g, op, NULL, 2, (kf_value[]){a, b}, r);
}

/* Products of |x| by heads, sometimes normalised, rotated or scaled. */
static kf_value rows_of(gen *g, kf_value x, int64_t n, int64_t dim, bool rotate)
{
    kf_value v = gen_linear(g, x, n * dim);

    if (gen_chance(g, 20))
        v = fn2(g, KF_OP_add, v, gen_vector(g, n * dim), (range){-20, 20, false});
    v = gen_reshape(g, v, 3, (kf_dim[]){g->rows, S(n), S(dim)});
    if (gen_chance(g, 15))
        v = gen_norm(g, v);
    if (rotate && g->table != KF_NO_VALUE && dim >= 4) {
        kf_attr_rope *a = KF_ATTR_NEW(g->arena, rope);
        a->style = (int)gen_pick(g, 2);
        v = gen_node(g, KF_OP_rope, a, 2, (kf_value[]){v, g->table}, g->range[v]);
    }
    return v;
}

static void choose_heads(gen *g, kf_value cache, heads *h)
{
    const kf_type t = *gen_type(g, cache);

    h->kv = t.kv_heads;
    h->dim = t.kv_head_dim;
    h->per_kv = 1 + gen_pick(g, 3);
}

/* The rows join a cache and look at it. */
static void append(gen *g, kf_value x, heads *h)
{
    kf_value kv = g->kv[--g->n_kv];

    choose_heads(g, kv, h);
    bool rotate = gen_chance(g, 60);
    h->q = rows_of(g, x, h->kv * h->per_kv, h->dim, rotate);
    h->cache = gen_append(g, kv, x, rotate);
    g->new_kv[g->n_kv] = h->cache;
    h->past = g->past;
    h->pages = g->pages;
}

/* The rows look at what an encoder left. */
static void ask_memory(gen *g, kf_value x, heads *h)
{
    h->cache = g->memory[gen_pick(g, g->n_memory)];
    choose_heads(g, h->cache, h);
    h->q = rows_of(g, x, h->kv * h->per_kv, h->dim, gen_chance(g, 20));
    h->past = g->memory_len;
    h->pages = g->memory_pages;
    h->stored = true;
}

kf_value gen_append(gen *g, kf_value kv, kf_value x, bool rotate)
{
    const kf_type t = *gen_type(g, kv);
    kf_value k = rows_of(g, x, t.kv_heads, t.kv_head_dim, rotate),
             v = rows_of(g, x, t.kv_heads, t.kv_head_dim, false);

    return gen_node(g, KF_OP_kv_append, NULL, 6, (kf_value[]){kv, k, v, g->pos, g->seq, g->pages},
                    (range){0});
}

/* ---- as the op ------------------------------------------------------------------------------- */

/* A slot over (h, q, k), or only its first parameters. */
static const kf_slot *head_slot(gen *g, const heads *h, uint8_t n, uint8_t captures, bool pred)
{
    gen_slot s = {n,
                  {"h", "q", "k"},
                  {{0, (double)(h->kv * h->per_kv) - 1, true}, POSITION, POSITION},
                  .n_captures = gen_chance(g, 50) ? captures : 0,
                  .length = 8,
                  .pred = pred,
                  .depth = gen_pick(g, 3)};
    range r;

    return gen_slot_make(g, &s, &r);
}

static kf_value attention_op(gen *g, const heads *h)
{
    kf_attr_attention *a = KF_ATTR_NEW(g->arena, attention);
    kf_value in[9] = {h->q, h->cache, g->pos, g->seq, g->seq_start, h->past, h->pages};
    uint8_t captures = gen_chance(g, 25) ? (uint8_t)(1 + gen_pick(g, 2)) : 0;
    gen_slot score = {
        4,
        {"s", "h", "q", "k"},
        {{-9, 9, false}, {0, (double)(h->kv * h->per_kv) - 1, true}, POSITION, POSITION},
        .n_captures = captures,
        .length = 8,
        .depth = 1 + gen_pick(g, 3)};
    range r = {-9, 9, false};

    a->stored = h->stored;
    a->scale = gen_chance(g, 80) ? 1 / sqrt((double)h->dim) : 1;
    a->normaliser = gen_chance(g, 15) ? KF_NORMALISER_NONE : KF_NORMALISER_SOFTMAX;
    if (captures || gen_chance(g, 50))
        a->score = gen_slot_make(g, &score, &r);
    if (gen_chance(g, 80))
        a->mask = head_slot(g, h, 3, captures, true);
    if (gen_chance(g, 15))
        a->prob = head_slot(g, h, 3, captures, false);
    if (gen_chance(g, 15) && a->normaliser == KF_NORMALISER_SOFTMAX)
        a->sink = head_slot(g, h, 1, captures, false);
    for (uint32_t i = 0; i < captures; i++)
        in[7 + i] = gen_vector(g, 8);
    r = (range){-24, 24, false};
    kf_value v = gen_node(g, KF_OP_attention, a, 7u + captures, in, r);
    return a->normaliser == KF_NORMALISER_NONE || a->prob ? gen_node(g, KF_OP_tanh, NULL, 1, &v, r)
                                                          : v;
}

/* ---- written out ----------------------------------------------------------------------------- */

static kf_value cache_rows(gen *g, const heads *h, int plane)
{
    kf_attr_kv_read *a = KF_ATTR_NEW(g->arena, kv_read);

    a->plane = plane;
    a->stored = h->stored;
    kf_value v =
        gen_node(g, KF_OP_kv_read, a, 4, (kf_value[]){h->cache, g->seq_start, h->past, h->pages},
                 (range){-12, 12, false});
    v = gen_transpose(g, v, (kf_ints){3, {1, 0, 2}});
    return gen_reshape(g, v, 4, (kf_dim[]){S(h->kv), S(1), gen_type(g, v)->dim[1], S(h->dim)});
}

static kf_value key_index(gen *g, const heads *h, int plane)
{
    kf_attr_kv_read *a = KF_ATTR_NEW(g->arena, kv_read);

    a->plane = plane;
    a->stored = h->stored;
    return gen_node(g, KF_OP_kv_index, a, 2, (kf_value[]){g->seq_start, h->past}, POSITION);
}

static kf_value both(gen *g, kf_value a, kf_value b)
{
    return fn2(g, KF_OP_and, gen_pick(g, 2) ? a : b, gen_pick(g, 2) ? b : a, (range){0, 1, true});
}

/* Conjuncts in any order: own sequence, order of positions (seldom where rows look ahead), windows,
 * or anything. */
static kf_value visible(gen *g, const heads *h)
{
    const range p = {0, 1, true}, d = {-63, 63, true};
    kf_value row_seq = gen_reshape(g, g->seq, 2, (kf_dim[]){g->rows, S(1)});
    kf_value key_seq = key_index(g, h, KF_PLANE_SEQ);
    kf_value m = gen_pick(g, 2) ? fn2(g, KF_OP_eq, key_seq, row_seq, p)
                                : fn2(g, KF_OP_eq, row_seq, key_seq, p);

    if (gen_chance(g, 6)) /* rows see other sequences */
        m = fn2(g, KF_OP_le, key_seq, row_seq, p);
    if (gen_chance(g, g->ahead || h->stored ? 15 : 80)) {
        kf_value c = gen_pick(g, 2) ? fn2(g, KF_OP_le, h->k_pos, h->q_pos, p)
                                    : fn2(g, KF_OP_ge, h->q_pos, h->k_pos, p);
        m = gen_pick(g, 2) ? both(g, m, c) : both(g, c, m);
    }
    if (gen_chance(g, 30)) {
        kf_value far = fn2(g, KF_OP_sub, h->q_pos, h->k_pos, d);
        m = both(g, m, fn2(g, KF_OP_lt, far, gen_const(g, 2 + gen_pick(g, 6)), p));
    }
    if (gen_chance(g, 15))
        m = both(g, m,
                 fn2(g, KF_OP_or, fn2(g, KF_OP_lt, h->k_pos, gen_const(g, 3), p),
                     fn2(g, KF_OP_ne, h->head, gen_const(g, 1), p), p));
    return m;
}

/* Scalar work on the scores: scale, cap, slopes, a bias by head, or any word. */
static kf_value score_work(gen *g, const heads *h, kf_value s)
{
    range r = {-9, 9, false};

    g->range[s] = r;
    if (gen_chance(g, 70))
        s = gen_pick(g, 2) ? fn2(g, KF_OP_mul, s, gen_const(g, 1 / sqrt((double)h->dim)), r)
                           : fn2(g, KF_OP_div, s, gen_const(g, sqrt((double)h->dim)), r);
    if (gen_chance(g, 20)) {
        s = fn2(g, KF_OP_div, s, gen_const(g, 5), r);
        s = gen_node(g, KF_OP_tanh, NULL, 1, &s, (range){-1, 1, false});
        s = fn2(g, KF_OP_mul, gen_const(g, 5), s, (range){-5, 5, false});
    }
    if (gen_chance(g, 20)) {
        kf_value slope = fn2(g, KF_OP_mul, h->head, gen_const(g, -0.5), (range){-6, 0, true});
        slope = gen_node(g, KF_OP_exp, NULL, 1, &slope, (range){0, 1, false});
        kf_value far = fn2(g, KF_OP_sub, h->k_pos, h->q_pos, (range){-63, 63, true});
        s = fn2(g, KF_OP_add, s, fn2(g, KF_OP_mul, slope, far, r), r);
    }
    if (gen_chance(g, 12)) {
        kf_value bias = gen_vector(g, h->kv * h->per_kv);
        kf_dim dims[] = {S(h->kv), S(h->per_kv), S(1), S(1)};
        s = fn2(g, KF_OP_add, s, gen_reshape(g, bias, 4, dims), r);
    }
    return gen_chance(g, 20) ? gen_word(g, s) : s;
}

static kf_value masked(gen *g, kf_value s, kf_value m)
{
    kf_value hidden = gen_const(g, gen_chance(g, 92) ? -INFINITY : -1e9);
    range r = g->range[s];

    if (gen_chance(g, 15))
        return fn2(g, KF_OP_add, s,
                   gen_node(g, KF_OP_select, NULL, 3, (kf_value[]){m, gen_const(g, 0), hidden}, r),
                   r);
    if (gen_chance(g, 20)) {
        m = gen_node(g, KF_OP_not, NULL, 1, &m, (range){0, 1, true});
        return gen_node(g, KF_OP_select, NULL, 3, (kf_value[]){m, hidden, s}, r);
    }
    return gen_node(g, KF_OP_select, NULL, 3, (kf_value[]){m, s, hidden}, r);
}

/* |ratio| where something is visible, else 0. Guards that hide NaN stand in modules without. */
static uint32_t guarded(gen *g, kf_slot_builder *b, uint32_t sum, uint32_t ratio)
{
    uint32_t zero = kf_slot_const(b, 0);

    switch (gen_pick(g, g->guard ? 4 : 2)) {
    case 0:
        return kf_slot_fn(b, KF_FN_select, kf_slot_fn(b, KF_FN_eq, sum, zero, 0), zero, ratio);
    case 1:
        return kf_slot_fn(b, KF_FN_select, kf_slot_fn(b, KF_FN_ne, zero, sum, 0), ratio, zero);
    case 2:
        return kf_slot_fn(b, KF_FN_select, kf_slot_fn(b, KF_FN_lt, zero, sum, 0), ratio, zero);
    default:
        return kf_slot_fn(b, KF_FN_select, kf_slot_fn(b, KF_FN_gt, sum, zero, 0), ratio, zero);
    }
}

/* With the guard that gives 0 where nothing is visible; rarely another normaliser. */
static kf_value weights_of(gen *g, kf_value s)
{
    static const char *const names[] = {"v", "m", "s"};
    kf_attr_row_reduce *a = KF_ATTR_NEW(g->arena, row_reduce);
    kf_slot_builder *b = kf_slot_builder_create(g->arena, 3, names, 0);
    uint32_t v = kf_slot_param(b, 0), m = kf_slot_param(b, 1), sum = kf_slot_param(b, 2);
    uint32_t e = kf_slot_fn(b, KF_FN_exp, kf_slot_fn(b, KF_FN_sub, v, m, 0), 0, 0);

    if (gen_chance(g, 6)) /* one more in the sum */
        sum = kf_slot_fn(b, KF_FN_add, sum, kf_slot_const(b, 1), 0);
    uint32_t ratio = kf_slot_fn(b, KF_FN_div, e, sum, 0);
    uint32_t weight = guarded(g, b, sum, ratio);
    a->acc = (kf_accs){2, {KF_ACC_max, KF_ACC_sum_exp}};
    a->keep = true;
    a->map = kf_slot_finish(b, weight);
    return gen_node(g, KF_OP_row_reduce, a, 1, &s, (range){0, 1, false});
}

static kf_value back_to_rows(gen *g, const heads *h, kf_value o)
{
    o = gen_reshape(g, o, 3, (kf_dim[]){S(h->kv * h->per_kv), g->rows, S(h->dim)});
    return gen_transpose(g, o, (kf_ints){3, {1, 0, 2}});
}

static kf_value written_out(gen *g, heads *h)
{
    kf_dim by_group[] = {S(h->kv), S(h->per_kv), g->rows, S(h->dim)};
    kf_value q = gen_reshape(g, gen_transpose(g, h->q, (kf_ints){3, {1, 0, 2}}), 4, by_group);
    kf_value keys = cache_rows(g, h, KF_PLANE_KEYS), values = cache_rows(g, h, KF_PLANE_VALUES);
    kf_type t = kf_type_tensor(KF_DTYPE_i32, 3, (kf_dim[]){S(h->kv * h->per_kv), S(1), S(1)});

    h->q_pos = gen_reshape(g, g->pos, 2, (kf_dim[]){g->rows, S(1)});
    g->range[h->q_pos] = POSITION;
    h->k_pos = key_index(g, h, KF_PLANE_POS);
    h->head = kf_node_add(g->g, KF_OP_iota, KF_ATTR_NEW(g->arena, axis), 0, NULL, &t, KF_NO_LOC);
    g->range[h->head] = (range){0, (double)(h->kv * h->per_kv) - 1, true};
    h->head = gen_reshape(g, h->head, 4, (kf_dim[]){S(h->kv), S(h->per_kv), S(1), S(1)});
    if (gen_chance(g, 10))
        q = fn2(g, KF_OP_mul, q, gen_const(g, 1 / sqrt((double)h->dim)), g->range[q]);
    if (gen_chance(g, 20))
        keys = gen_transpose(g, keys, (kf_ints){4, {0, 1, 3, 2}});
    bool trans = gen_type(g, keys)->dim[3].size > 0;
    kf_value s = kf_node_matmul(g->g, q, keys, trans, KF_NO_LOC);
    kf_value p = weights_of(g, masked(g, score_work(g, h, s), visible(g, h)));
    if (gen_chance(g, 6))
        p = fn2(g, KF_OP_mul, p, gen_const(g, 0.5), (range){0, 1, false});
    kf_value o = kf_node_matmul(g->g, p, values, false, KF_NO_LOC);
    g->range[o] = (range){-12, 12, false};
    kf_value y = back_to_rows(g, h, o);
    if (gen_chance(g, 8)) { /* another reader of the weights */
        kf_value again = kf_node_matmul(g->g, p, cache_rows(g, h, KF_PLANE_KEYS), false, KF_NO_LOC);
        g->range[again] = (range){-12, 12, false};
        y = fn2(g, KF_OP_add, y, back_to_rows(g, h, again), (range){-24, 24, false});
    }
    return y;
}

kf_value gen_attention(gen *g, kf_value x)
{
    heads h = {0};

    if (!kf_dim_eq(g->rows, kf_dim_sym(KF_SYM_N)) || (!g->n_kv && !g->n_memory))
        return x;
    if (g->n_memory && (!g->n_kv || gen_chance(g, 50)))
        ask_memory(g, x, &h);
    else
        append(g, x, &h);
    kf_value y = gen_chance(g, 30) ? attention_op(g, &h) : written_out(g, &h);
    y = gen_flat(g, y);
    return gen_chance(g, 85) ? gen_linear(g, y, gen_columns(g, x)) : y;
}
