/* SPDX-License-Identifier: Apache-2.0 */
/* attention_writer - see attention_writer.h. */
#include "tests/unit/attention_writer.h"

#include <math.h>

/* ---- parts ----------------------------------------------------------------------------------- */

static kf_value read_cache(writer *w, kf_value kv, int plane)
{
    kf_attr_kv_read *a = KF_ATTR_NEW(w->s.arena, kv_read);

    a->plane = plane;
    return kf_node_add(w->s.g, KF_OP_kv_read, a, 4,
                       (kf_value[]){kv, w->seq_start, w->past, w->pages}, NULL, KF_NO_LOC);
}

kf_value aw_key_index(writer *w, int plane)
{
    kf_attr_kv_read *a = KF_ATTR_NEW(w->s.arena, kv_read);

    a->plane = plane;
    return kf_node_add(w->s.g, KF_OP_kv_index, a, 2, (kf_value[]){w->seq_start, w->past}, NULL,
                       KF_NO_LOC);
}

kf_value aw_along_rows(writer *w, kf_value v)
{
    return w->how.layout == ROWS_FIRST ? sp_reshape(&w->s, v, SP_DIMS(SP_N, SP(1), SP(1), SP(1)))
                                       : sp_reshape(&w->s, v, SP_DIMS(SP_N, SP(1)));
}

/* The scores have one dim of heads, not two. */
static bool by_single_heads(const writer *w)
{
    return (w->how.layout >= EXPANDED && w->how.layout <= JOINED) || w->how.layout == TILED;
}

/* Numbers of heads, along the heads of the scores. */
static kf_value aw_along_heads(writer *w, kf_value v)
{
    switch (w->how.layout) {
    case ROWS_FIRST:
        return sp_reshape(&w->s, v, SP_DIMS(SP(G), SP(R), SP(1)));
    case EXPANDED:
    case GATHERED:
    case JOINED:
    case TILED:
        return sp_reshape(&w->s, v, SP_DIMS(SP(H), SP(1), SP(1)));
    default:
        return sp_reshape(&w->s, v, SP_DIMS(SP(G), SP(R), SP(1), SP(1)));
    }
}

void aw_begin(writer *w, kf_arena *arena, const form *f, spelled how)
{
    kf_dim grouped[] = {SP_N, SP(G), SP(D)};
    spelling *s = &w->s;

    *w = (writer){.s = sp_begin(arena), .f = f, .how = how};
    s->commute = how.commute;
    s->detours = how.detours;
    w->q = sp_arg(s, "q", KF_DTYPE_f32, SP_DIMS(SP_N, SP(H), SP(D)));
    kf_value k = sp_arg(s, "k", KF_DTYPE_f32, 3, grouped),
             v = sp_arg(s, "v", KF_DTYPE_f32, 3, grouped);
    kf_value kv =
        kf_graph_add_arg(s->g, kf_type_kvcache(KF_DTYPE_f32, 4, G, D, 1), KF_STR("kv"), KF_NO_LOC);
    w->pos = sp_arg(s, "pos", KF_DTYPE_i32, SP_DIMS(SP_N));
    w->seq = sp_arg(s, "seq", KF_DTYPE_i32, SP_DIMS(SP_N));
    w->seq_start = sp_arg(s, "seq_start", KF_DTYPE_i32, SP_DIMS(kf_dim_sym(KF_SYM_S)));
    w->past = sp_arg(s, "past", KF_DTYPE_i32, SP_DIMS(kf_dim_sym(KF_SYM_S)));
    w->pages = sp_arg(s, "pages", KF_DTYPE_i32, SP_DIMS(kf_dim_sym(KF_SYM_S), SP(4)));
    w->kv = kf_node_add(s->g, KF_OP_kv_append, NULL, 6,
                        (kf_value[]){kv, k, v, w->pos, w->seq, w->pages}, NULL, KF_NO_LOC);
    w->keys = read_cache(w, w->kv, KF_PLANE_KEYS);
    w->values = read_cache(w, w->kv, KF_PLANE_VALUES);
    w->row = aw_along_rows(w, w->pos);
    w->key = aw_key_index(w, KF_PLANE_POS);
}

kf_value aw_by_heads(writer *w, kf_value rows)
{
    spelling *s = &w->s;
    kf_value v = sp_transpose(s, rows, "102"), part[H];

    switch (w->how.layout) {
    case ROWS_FIRST:
        return sp_reshape(s, v, SP_DIMS(SP(1), SP(G), SP_K, SP(D)));
    case EXPANDED:
        v = sp_reshape(s, v, SP_DIMS(SP(G), SP(1), SP_K, SP(D)));
        v = sp_expand(s, v, SP_DIMS(SP(G), SP(R), SP_K, SP(D)));
        return sp_reshape(s, v, SP_DIMS(SP(H), SP_K, SP(D)));
    case GATHERED: {
        kf_value group = sp1(s, KF_OP_floor, sp2(s, KF_OP_div, sp_iota(s, H), sp_num(s, R)));
        kf_type ids = kf_type_tensor(KF_DTYPE_i32, SP_DIMS(SP(H)));
        group = kf_node_add(s->g, KF_OP_convert, NULL, 1, &group, &ids, KF_NO_LOC);
        return kf_node_2(s->g, KF_OP_gather, v, group, KF_NO_LOC);
    }
    case TILED: {
        kf_value twice[] = {v, v};
        return kf_node_add(s->g, KF_OP_concat, KF_ATTR_NEW(s->arena, axis), R, twice, NULL,
                           KF_NO_LOC);
    }
    case JOINED:
        for (int64_t h = 0; h < H; h++)
            part[h] = kf_node_slice(s->g, v, 0, h / R, h / R + 1, KF_NO_LOC);
        return kf_node_add(s->g, KF_OP_concat, KF_ATTR_NEW(s->arena, axis), H, part, NULL,
                           KF_NO_LOC);
    default:
        return sp_reshape(s, v, SP_DIMS(SP(G), SP(1), SP_K, SP(D)));
    }
}

static kf_value query_by_heads(writer *w, kf_value q)
{
    if (w->how.layout == ROWS_FIRST)
        return sp_reshape(&w->s, q, SP_DIMS(SP_N, SP(G), SP(R), SP(D)));
    q = sp_transpose(&w->s, q, "102");
    if (by_single_heads(w))
        return q;
    return sp_reshape(&w->s, q, SP_DIMS(SP(G), SP(R), SP_N, SP(D)));
}

/* Products and sums instead of a matmul. */
static kf_value products_with_keys(writer *w, kf_value q, kf_value k)
{
    spelling *s = &w->s;

    q = sp_reshape(s, q, SP_DIMS(SP(G), SP(R), SP_N, SP(1), SP(D)));
    k = sp_reshape(s, k, SP_DIMS(SP(G), SP(1), SP(1), SP_K, SP(D)));
    k = sp_reduce(s, KF_ACC_sum, sp2(s, KF_OP_mul, q, k));
    return sp_reshape(s, k, SP_DIMS(SP(G), SP(R), SP_N, SP_K));
}

kf_value aw_scores(writer *w)
{
    spelling *s = &w->s;
    double root = sqrt(SCALE);
    place p = w->how.scale;
    kf_value q = w->q, k = w->keys, x;

    if (p == QUERY || p == BOTH)
        q = sp2(s, KF_OP_mul, q, sp_num(s, p == BOTH ? root : SCALE));
    if (p == SPREAD)
        q = sp2(s, KF_OP_div, sp2(s, KF_OP_mul, q, sp_num(s, 2)), sp_num(s, 1 / SCALE));
    if (p == KEYS || p == BOTH)
        k = sp2(s, KF_OP_mul, k, sp_num(s, p == BOTH ? root : SCALE));
    q = query_by_heads(w, q);
    k = aw_by_heads(w, k);
    if (w->how.layout == TURNED)
        x = sp_matmul(s, q, sp_transpose(s, k, "0132"), false);
    else if (w->how.layout == SWAPPED)
        x = sp_transpose(s, sp_matmul(s, k, q, true), "0132");
    else if (w->how.layout == PRODUCTS)
        x = products_with_keys(w, q, k);
    else
        x = sp_matmul(s, q, k, true);
    if (p == SPREAD)
        x = sp2(s, KF_OP_mul, x, sp_num(s, 0.5));
    if (p == AFTER)
        x = sp2(s, KF_OP_mul, x, sp_num(s, SCALE));
    return p == DIVIDED ? sp2(s, KF_OP_div, x, sp_num(s, 1 / SCALE)) : x;
}

/* Half of the buckets hold one distance each, the others grow by powers of 2 (Raffel et al. 2019,
 * arXiv:1910.10683). */
static kf_value log_bucket(writer *w, kf_value back)
{
    spelling *s = &w->s;
    const double exact = (double)BUCKETS / 2;
    kf_value steps = sp1(s, KF_OP_log, sp2(s, KF_OP_div, back, sp_num(s, exact)));

    steps = sp2(s, KF_OP_mul, sp2(s, KF_OP_div, steps, sp_num(s, log(4))), sp_num(s, exact));
    steps = sp2(s, KF_OP_add, sp1(s, KF_OP_floor, steps), sp_num(s, exact));
    steps = sp2(s, KF_OP_min, steps, sp_num(s, BUCKETS - 1));
    return sp3(s, KF_OP_select, sp2(s, KF_OP_lt, back, sp_num(s, exact)), back, steps);
}

/* Rows of a table [BUCKETS, H] at how far a key lies back, along the scores. */
static kf_value table_by_distance(writer *w, const char *name)
{
    spelling *s = &w->s;
    kf_value table = sp_param(s, name, SP_DIMS(SP(BUCKETS), SP(H)));
    kf_type ids = kf_type_tensor(KF_DTYPE_i32, SP_DIMS(SP_N, SP_K));
    kf_value row = sp_reshape(s, w->pos, SP_DIMS(SP_N, SP(1)));
    kf_value back = sp2(s, KF_OP_max, sp2(s, KF_OP_sub, row, w->key), sp_num(s, 0));

    back = w->f->logs ? log_bucket(w, back) : sp2(s, KF_OP_min, back, sp_num(s, BUCKETS - 1));
    back = kf_node_add(s->g, KF_OP_convert, NULL, 1, &back, &ids, KF_NO_LOC);
    kf_value v = kf_node_2(s->g, KF_OP_gather, table, back, KF_NO_LOC); /* [N, K, H] */
    if (w->how.layout == ROWS_FIRST)
        return sp_reshape(s, sp_transpose(s, v, "021"), SP_DIMS(SP_N, SP(G), SP(R), SP_K));
    v = sp_transpose(s, v, "201");
    if (by_single_heads(w))
        return v;
    return sp_reshape(s, v, SP_DIMS(SP(G), SP(R), SP_N, SP_K));
}

/* A table [positions, positions], rows taken by query, then columns by key. */
static kf_value grid_of_positions(writer *w)
{
    spelling *s = &w->s;
    kf_value rows = sp_param(s, "grid", SP_DIMS(SP(POSITIONS), SP(POSITIONS)));

    rows = kf_node_2(s->g, KF_OP_gather, rows, w->pos, KF_NO_LOC);
    rows = kf_node_2(s->g, KF_OP_gather, sp_transpose(s, rows, "10"), w->key, KF_NO_LOC);
    rows = sp_transpose(s, rows, "10");
    return w->how.layout == ROWS_FIRST ? sp_reshape(s, rows, SP_DIMS(SP_N, SP(1), SP(1), SP_K))
                                       : rows;
}

static kf_value work(writer *w, kf_value x)
{
    spelling *s = &w->s;

    if (w->f->cap) {
        x = sp1(s, KF_OP_tanh, sp2(s, KF_OP_div, x, sp_num(s, 5)));
        x = sp2(s, KF_OP_mul, x, sp_num(s, 5));
    }
    if (w->f->slopes) {
        kf_value slope = aw_along_heads(w, sp_param(s, "slopes", SP_DIMS(SP(H))));
        kf_value bias = sp2(s, KF_OP_mul, slope, sp2(s, KF_OP_sub, w->key, w->row));
        x = sp2(s, KF_OP_add, x, bias);
    }
    if (w->f->grid)
        x = sp2(s, KF_OP_add, x, grid_of_positions(w));
    return w->f->buckets ? sp2(s, KF_OP_add, x, table_by_distance(w, "buckets")) : x;
}

/* ---- masks ----------------------------------------------------------------------------------- */

kf_value aw_own_sequence(writer *w)
{
    return sp2(&w->s, KF_OP_eq, aw_key_index(w, KF_PLANE_SEQ), aw_along_rows(w, w->seq));
}

kf_value aw_in_sight(writer *w)
{
    spelling *s = &w->s;
    kf_value m =
        w->how.commute ? sp2(s, KF_OP_ge, w->row, w->key) : sp2(s, KF_OP_le, w->key, w->row);

    if (w->f->window)
        m = sp2(s, KF_OP_and, m, sp2(s, KF_OP_lt, sp2(s, KF_OP_sub, w->row, w->key), sp_num(s, 3)));
    return w->f->prefix ? sp2(s, KF_OP_or, m, sp2(s, KF_OP_lt, w->key, sp_num(s, 2))) : m;
}

kf_value aw_hide(writer *w, kf_value x, double hidden)
{
    spelling *s = &w->s;
    kf_value own = aw_own_sequence(w), seen = aw_in_sight(w), low = sp_num(s, hidden);

    switch (w->how.mask) {
    case NOT:
        return sp3(s, KF_OP_select, sp1(s, KF_OP_not, sp2(s, KF_OP_and, own, seen)), low, x);
    case BIAS:
        if (isinf(hidden))
            return sp2(s, KF_OP_add, x,
                       sp3(s, KF_OP_select, sp2(s, KF_OP_and, seen, own), sp_num(s, 0), low));
        break;
    case TWICE:
        return sp3(s, KF_OP_select, own, sp3(s, KF_OP_select, seen, x, low), low);
    case DE_MORGAN:
        own = sp1(s, KF_OP_not, own);
        seen = sp1(s, KF_OP_not, seen);
        return sp3(s, KF_OP_select, sp2(s, KF_OP_or, own, seen), low, x);
    default:
        break;
    }
    return sp3(s, KF_OP_select, sp2(s, KF_OP_and, own, seen), x, low);
}

/* ---- normalisers ----------------------------------------------------------------------------- */

/* exp(v - m) / s of a row, perhaps 0 where s is. */
static kf_value softmax_op(writer *w, kf_value x)
{
    static const char *const names[] = {"v", "m", "s"};
    static const kf_acc acc[] = {KF_ACC_max, KF_ACC_sum_exp};
    kf_slot_builder *b = kf_slot_builder_create(w->s.arena, 3, names, 0);
    uint32_t v = kf_slot_param(b, 0), m = kf_slot_param(b, 1), sum = kf_slot_param(b, 2);
    uint32_t zero = kf_slot_const(b, 0);
    uint32_t p = kf_slot_fn(b, KF_FN_exp, kf_slot_fn(b, KF_FN_sub, v, m, 0), 0, 0);

    p = kf_slot_fn(b, KF_FN_div, p, sum, 0);
    if (w->how.softmax == GUARDED)
        p = kf_slot_fn(b, KF_FN_select, kf_slot_fn(b, KF_FN_lt, zero, sum, 0), p, zero);
    return sp_row_map(&w->s, x, 2, acc, kf_slot_finish(b, p));
}

/* v / sum of v in one op. */
static kf_value over_own_sum(writer *w, kf_value e)
{
    static const char *const names[] = {"v", "s"};
    static const kf_acc acc[] = {KF_ACC_sum};
    kf_slot_builder *b = kf_slot_builder_create(w->s.arena, 2, names, 0);
    uint32_t p = kf_slot_fn(b, KF_FN_div, kf_slot_param(b, 0), kf_slot_param(b, 1), 0);

    return sp_row_map(&w->s, e, 1, acc, kf_slot_finish(b, p));
}

/* Weights e and what they are divided by. */
static kf_value softmax_steps(writer *w, kf_value x, kf_value *out_sum)
{
    spelling *s = &w->s;
    kf_value sink = KF_NO_VALUE, top = sp_reduce(s, KF_ACC_max, x);

    if (w->f->sink) {
        sink = aw_along_heads(w, sp_param(s, "sinks", SP_DIMS(SP(H))));
        top = sp2(s, KF_OP_max, top, sink);
    }
    bool shift = w->how.softmax != NO_MAX;
    kf_value e = sp1(s, KF_OP_exp, shift ? sp2(s, KF_OP_sub, x, top) : x);
    if (w->how.mask == WEIGHTS)
        e = aw_hide(w, e, 0);
    kf_value sum = sp_reduce(s, KF_ACC_sum, e);
    if (sink != KF_NO_VALUE)
        sum =
            sp2(s, KF_OP_add, sum, sp1(s, KF_OP_exp, shift ? sp2(s, KF_OP_sub, sink, top) : sink));
    if (w->how.softmax == SAFE_SUM)
        sum = sp3(s, KF_OP_select, sp2(s, KF_OP_eq, sum, sp_num(s, 0)), sp_num(s, 1), sum);
    *out_sum = sum;
    if (w->how.softmax == LOGARITHM && w->how.mask != WEIGHTS)
        return sp1(s, KF_OP_exp,
                   sp2(s, KF_OP_sub, sp2(s, KF_OP_sub, x, top), sp1(s, KF_OP_log, sum)));
    if (w->how.softmax == OVER_SUM && sink == KF_NO_VALUE)
        return over_own_sum(w, e);
    return w->how.softmax == LATE ? e : sp2(s, KF_OP_div, e, sum);
}

/* relu(x) / (q + 1) where a key is seen. */
static kf_value relu_weights(writer *w, kf_value x)
{
    spelling *s = &w->s;
    kf_value count = sp2(s, KF_OP_add, w->row, sp_num(s, 1));

    x = w->how.commute ? sp2(s, KF_OP_max, x, sp_num(s, 0)) : sp1(s, KF_OP_relu, x);
    if (w->how.softmax == STEPS)
        return aw_hide(w, sp2(s, KF_OP_mul, x, sp1(s, KF_OP_recip, count)), 0);
    return w->how.softmax == LATE ? aw_hide(w, x, 0) : aw_hide(w, sp2(s, KF_OP_div, x, count), 0);
}

/* x e^(slope (k - q)) where a key is seen: retention. */
static kf_value decayed_scores(writer *w, kf_value x)
{
    spelling *s = &w->s;
    kf_value slope = aw_along_heads(w, sp_param(s, "decays", SP_DIMS(SP(H))));
    kf_value far = sp2(s, KF_OP_sub, w->key, w->row);

    if (w->how.softmax == STEPS) {
        far = sp2(s, KF_OP_mul, slope, sp2(s, KF_OP_sub, w->row, w->key));
        return sp2(s, KF_OP_div, aw_hide(w, x, 0), sp1(s, KF_OP_exp, far));
    }
    return aw_hide(w, sp2(s, KF_OP_mul, x, sp1(s, KF_OP_exp, sp2(s, KF_OP_mul, slope, far))), 0);
}

/* ---- all of it ------------------------------------------------------------------------------- */

kf_value aw_weigh(writer *w, kf_value p)
{
    spelling *s = &w->s;
    kf_value v = aw_by_heads(w, w->values);

    if (w->how.layout == TURNED)
        return sp_matmul(s, p, sp_transpose(s, v, "0132"), true);
    if (w->how.layout == SWAPPED)
        return sp_transpose(s, sp_matmul(s, sp_transpose(s, v, "0132"), p, true), "0132");
    if (w->how.layout != PRODUCTS)
        return sp_matmul(s, p, v, false);
    p = sp_reshape(s, p, SP_DIMS(SP(G), SP(R), SP_N, SP(1), SP_K));
    v = sp_transpose(s, v, "0132");
    v = sp_reshape(s, v, SP_DIMS(SP(G), SP(1), SP(1), SP(D), SP_K));
    v = sp_reduce(s, KF_ACC_sum, sp2(s, KF_OP_mul, p, v));
    return sp_reshape(s, v, SP_DIMS(SP(G), SP(R), SP_N, SP(D)));
}

kf_value aw_to_rows(writer *w, kf_value o)
{
    spelling *s = &w->s;

    if (w->how.layout != ROWS_FIRST) {
        o = sp_reshape(s, o, SP_DIMS(SP(H), SP_N, SP(D)));
        o = sp_transpose(s, o, "102");
    }
    return sp_reshape(s, o, SP_DIMS(SP_N, SP(H * D)));
}

kf_value aw_probabilities(writer *w, kf_value x, kf_value *late)
{
    *late = KF_NO_VALUE;
    if (w->f->decay)
        return decayed_scores(w, x);
    if (w->f->relu) {
        if (w->how.softmax == LATE)
            *late = sp2(&w->s, KF_OP_add, w->row, sp_num(&w->s, 1));
        return relu_weights(w, x);
    }
    if (w->how.mask != WEIGHTS)
        x = aw_hide(w, x, -INFINITY);
    if (w->how.softmax == GUARDED || w->how.softmax == PLAIN)
        return softmax_op(w, x);
    kf_value sum, p = softmax_steps(w, x, &sum);
    if (w->how.softmax == LATE)
        *late = sum;
    return p;
}

void aw_write(writer *w)
{
    kf_value late, p = aw_probabilities(w, work(w, aw_scores(w)), &late);

    if (w->f->factor)
        p = sp2(&w->s, KF_OP_mul, p, table_by_distance(w, "factors"));
    kf_value o = aw_weigh(w, p);
    if (late != KF_NO_VALUE)
        o = sp2(&w->s, KF_OP_div, o, late);
    kf_graph_add_result(w->s.g, aw_to_rows(w, o));
}
