/* SPDX-License-Identifier: Apache-2.0 */
/* gen_ops - a soup of the ops that stand between the motifs: index ops, conversions, rope, partial
 * statistics. */
#include "tests/graphs/gen.h"

#include <math.h>

#define S(x) kf_dim_static(x)

/* [rows, n] as [rows, n / f, f] for some f that divides n. */
static kf_value by_heads(gen *g, kf_value x)
{
    int64_t n = gen_columns(g, x), f = 1 + gen_pick(g, 8);

    while (n % f)
        f--;
    if (gen_chance(g, 25) && n / f % 2 == 0)
        return gen_reshape(g, x, 4, (kf_dim[]){g->rows, S(n / f / 2), S(2), S(f)});
    return gen_reshape(g, x, 3, (kf_dim[]){g->rows, S(n / f), S(f)});
}

static kf_value soup_transpose(gen *g, kf_value x)
{
    kf_value v = by_heads(g, x);
    kf_ints perm = {gen_type(g, v)->rank, {0}};

    for (uint8_t i = 0; i < perm.n; i++)
        perm.v[i] = i;
    for (uint8_t i = perm.n; i-- > 1;) {
        uint32_t j = gen_pick(g, i + 1u);
        int64_t t = perm.v[i];
        perm.v[i] = perm.v[j];
        perm.v[j] = t;
    }
    v = gen_transpose(g, v, perm);
    return gen_chance(g, 50) ? gen_word(g, v) : v;
}

static kf_value soup_slice(gen *g, kf_value x)
{
    kf_value v = gen_chance(g, 50) ? by_heads(g, x) : x;
    const kf_type t = *gen_type(g, v);
    uint32_t axis = 1 + gen_pick(g, t.rank - 1u);
    int64_t n = t.dim[axis].size, lo = gen_pick(g, (uint32_t)n);
    kf_value r =
        kf_node_slice(g->g, v, axis, lo, lo + 1 + gen_pick(g, (uint32_t)(n - lo)), KF_NO_LOC);

    g->range[r] = g->range[x];
    return r;
}

static kf_value soup_concat(gen *g, kf_value x)
{
    kf_value part[3] = {x, gen_like(g, x), soup_slice(g, x)};
    kf_attr_axis *a = KF_ATTR_NEW(g->arena, axis);
    uint32_t n = gen_type(g, part[2])->rank == 2 ? 3 : 2;
    range r = g->range[x];

    a->axis = 1;
    for (uint32_t i = 0; i < n; i++) {
        r.lo = fmin(r.lo, g->range[part[i]].lo);
        r.hi = fmax(r.hi, g->range[part[i]].hi);
        r.exact &= g->range[part[i]].exact;
    }
    if (gen_chance(g, 20)) { /* the parts again, in another order */
        kf_value v = gen_node(g, KF_OP_concat, a, 2, (kf_value[]){part[1], part[0]}, r);
        kf_value back = kf_node_slice(g->g, v, 1, 1, gen_columns(g, v), KF_NO_LOC);
        g->range[back] = r;
        return back;
    }
    return gen_node(g, KF_OP_concat, a, n, part, r);
}

/* Through a narrower type, or an exact value through an integer one. */
static kf_value soup_convert(gen *g, kf_value x)
{
    kf_type t = *gen_type(g, x);

    t.dtype = g->range[x].exact ? KF_DTYPE_i32 : gen_pick(g, 2) ? KF_DTYPE_bf16 : KF_DTYPE_f16;
    kf_value v = kf_node_add(g->g, KF_OP_convert, NULL, 1, &x, &t, KF_NO_LOC);
    g->range[v] = g->range[x];
    t.dtype = KF_DTYPE_f32;
    v = kf_node_add(g->g, KF_OP_convert, NULL, 1, &v, &t, KF_NO_LOC);
    g->range[v] = g->range[x];
    return v;
}

/* Rows of other tokens, or of a table by position. */
static kf_value soup_gather(gen *g, kf_value x)
{
    if (g->seq == KF_NO_VALUE || !kf_dim_eq(g->rows, kf_dim_sym(KF_SYM_N)))
        return soup_slice(g, x);
    if (gen_chance(g, 50))
        return gen_node(g, KF_OP_gather, NULL, 2, (kf_value[]){x, g->seq}, g->range[x]);
    kf_value table = gen_param(g, 2, (kf_dim[]){S(64), S(gen_columns(g, x))}, g->weights, "table");
    kf_value v =
        gen_node(g, KF_OP_gather, NULL, 2, (kf_value[]){table, g->pos}, (range){-2, 2, true});
    return gen_fn(g, KF_FN_add, (kf_value[]){x, v});
}

static kf_value soup_rope(gen *g, kf_value x)
{
    int64_t n = gen_columns(g, x), dim = 2 * (1 + (int64_t)gen_pick(g, 4));

    if (g->pos == KF_NO_VALUE || n % 8 || !kf_dim_eq(g->rows, kf_dim_sym(KF_SYM_N)))
        return soup_slice(g, x);
    kf_value heads = gen_reshape(g, x, 3, (kf_dim[]){g->rows, S(n / 8), S(8)}), table = g->table;
    if (table == KF_NO_VALUE || gen_chance(g, 50)) {
        kf_attr_rope_table *a = KF_ATTR_NEW(g->arena, rope_table);
        a->dim = dim;
        a->theta = gen_pick(g, 2) ? 10000 : 500;
        a->scaling = (int)gen_pick(g, 3);
        a->factor = a->scaling ? 4 : 1;
        a->high = a->scaling == KF_SCALING_LLAMA3 ? 4 : 1;
        a->original = a->scaling == KF_SCALING_LLAMA3 ? 16 : 0;
        table = gen_node(g, KF_OP_rope_table, a, 1, &g->pos, (range){-1, 1, false});
    }
    kf_attr_rope *a = KF_ATTR_NEW(g->arena, rope);
    a->style = (int)gen_pick(g, 2);
    double most = 1.5 * fmax(fabs(g->range[x].lo), fabs(g->range[x].hi));
    return gen_node(g, KF_OP_rope, a, 2, (kf_value[]){heads, table}, (range){-most, most, false});
}

/* Partial statistics by blocks of columns, finished by a reduction over them. */
static kf_value soup_stat(gen *g, kf_value x)
{
    static const kf_acc accs[] = {KF_ACC_sum, KF_ACC_sum_sq, KF_ACC_max, KF_ACC_min};
    static const int64_t blocks[] = {4, 8, 64, 5};
    kf_attr_row_stat *a = KF_ATTR_NEW(g->arena, row_stat);
    kf_attr_row_reduce *all = KF_ATTR_NEW(g->arena, row_reduce);
    uint32_t which = gen_pick(g, 4);
    double n = (double)gen_columns(g, x), most = fmax(fabs(g->range[x].lo), fabs(g->range[x].hi));

    a->acc = (kf_accs){1, {accs[which]}};
    a->block = blocks[gen_pick(g, 4)];
    range r = {-n * (most + most * most), n * (most + most * most), false};
    kf_value v = gen_node(g, KF_OP_row_stat, a, 1, &x, r);
    all->acc = (kf_accs){1, {which < 2 ? KF_ACC_sum : accs[which]}};
    v = gen_node(g, KF_OP_row_reduce, all, 1, &v, r);
    v = gen_fn(g, KF_FN_tanh, &v);
    return gen_fn(g, gen_pick(g, 2) ? KF_FN_add : KF_FN_mul, (kf_value[]){x, v});
}

/* A product of two activations, by heads. */
static kf_value soup_contract(gen *g, kf_value x)
{
    int64_t n = gen_columns(g, x), f = n % 4 ? 1 : 4;
    kf_dim dims[] = {g->rows, S(n / f), S(f)};
    kf_value a = gen_reshape(g, x, 3, dims), b = gen_reshape(g, gen_like(g, x), 3, dims);
    double most = fmax(fabs(g->range[a].lo), fabs(g->range[a].hi)),
           other = fmax(fabs(g->range[b].lo), fabs(g->range[b].hi));

    if (gen_chance(g, 50))
        b = gen_transpose(g, b, (kf_ints){3, {0, 2, 1}});
    bool trans = gen_type(g, b)->dim[2].size == f && f != n / f;
    if (gen_type(g, b)->dim[trans ? 2 : 1].size != f)
        b = gen_transpose(g, b, (kf_ints){3, {0, 2, 1}});
    kf_value v = kf_node_matmul(g->g, a, b, trans, KF_NO_LOC);
    g->range[v] = (range){-most * other * (double)f, most * other * (double)f, false};
    return gen_fn(g, KF_FN_tanh, &v);
}

/* A vector, or one value a row, written out over all rows. */
static kf_value soup_expand(gen *g, kf_value x)
{
    kf_type t = *gen_type(g, x);
    kf_value v = gen_vector(g, gen_columns(g, x));

    if (gen_chance(g, 50)) {
        int64_t at = gen_pick(g, (uint32_t)gen_columns(g, x));
        v = kf_node_slice(g->g, x, 1, at, at + 1, KF_NO_LOC);
        g->range[v] = g->range[x];
    }
    t.dtype = gen_type(g, v)->dtype;
    kf_value wide = kf_node_add(g->g, KF_OP_expand, NULL, 1, &v, &t, KF_NO_LOC);
    g->range[wide] = g->range[v];
    return gen_fn(g, gen_pick(g, 2) ? KF_FN_add : KF_FN_mul, (kf_value[]){wide, x});
}

static kf_value soup_word(gen *g, kf_value x)
{
    return gen_word(g, by_heads(g, x));
}

static kf_value soup_group(gen *g, kf_value x)
{
    return gen_norm(g, by_heads(g, x));
}

typedef kf_value (*maker)(gen *g, kf_value x);
static const maker makers[] = {soup_transpose, soup_slice, soup_concat, soup_convert,
                               soup_gather,    soup_rope,  soup_stat,   soup_contract,
                               soup_word,      soup_group, soup_expand};

kf_value gen_soup(gen *g, kf_value x)
{
    for (uint32_t i = 1 + gen_pick(g, 4); i > 0; i--) {
        x = gen_flat(g, makers[gen_pick(g, sizeof makers / sizeof makers[0])](g, x));
        if (gen_columns(g, x) > 96)
            x = gen_linear(g, x, 16);
        if (gen_chance(g, 30))
            gen_keep(g, x);
    }
    return x;
}
