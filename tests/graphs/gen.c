/* SPDX-License-Identifier: Apache-2.0 */
/* gen - see gen.h. Choosing, nodes with their ranges, what all makers share. */
#include "tests/graphs/gen.h"

#include "tests/unit/support.h"

#include <math.h>

/* ---- choosing -------------------------------------------------------------------------------- */

uint32_t gen_pick(gen *g, uint32_t n)
{
    return (uint32_t)(random_u64(&g->state) % n);
}

bool gen_chance(gen *g, uint32_t percent)
{
    return gen_pick(g, 100) < percent;
}

kf_value gen_any(gen *g)
{
    return g->pool[gen_pick(g, g->n_pool)];
}

kf_value gen_like(gen *g, kf_value v)
{
    uint32_t start = gen_pick(g, g->n_pool);

    for (uint32_t i = 0; i < g->n_pool; i++) {
        kf_value other = g->pool[(start + i) % g->n_pool];
        if (other != v && kf_type_eq(gen_type(g, other), gen_type(g, v)))
            return other;
    }
    return v;
}

/* ---- values ---------------------------------------------------------------------------------- */

const kf_type *gen_type(const gen *g, kf_value v)
{
    return kf_value_type(g->g, v);
}

int64_t gen_columns(const gen *g, kf_value v)
{
    return kf_type_static_elems(gen_type(g, v));
}

kf_value gen_keep(gen *g, kf_value v)
{
    uint32_t at = g->n_pool < GEN_MAX_POOL ? g->n_pool++ : gen_pick(g, GEN_MAX_POOL);

    g->pool[at] = v;
    return v;
}

kf_value gen_arg(gen *g, kf_type type, const char *name, range r)
{
    kf_value v = kf_graph_add_arg(g->g, type, kf_str_from(name), KF_NO_LOC);

    g->range[v] = r;
    return v;
}

kf_value gen_param(gen *g, uint8_t rank, const kf_dim *dims, kf_dtype dtype, const char *stem)
{
    kf_type t = kf_type_tensor(dtype, rank, dims);
    kf_str name = kf_strf(g->arena, "%s%u", stem, g->n_params++);
    kf_value v = kf_graph_add_param(g->g, kf_recipe_load(g->arena, name, t), name, KF_NO_LOC);

    g->range[v] = rank == 1 ? (range){0.5, 1.5, true} : (range){-2, 2, true};
    return v;
}

kf_value gen_vector(gen *g, int64_t n)
{
    kf_dim d = kf_dim_static(n);

    return gen_param(g, 1, &d, gen_chance(g, 40) ? KF_DTYPE_f32 : g->weights, "g");
}

kf_value gen_node(gen *g, kf_op op, const void *attr, uint32_t n, const kf_value *in, range r)
{
    kf_value v = kf_node_add(g->g, op, attr, n, in, NULL, KF_NO_LOC);

    g->range[v] = r;
    return v;
}

kf_value gen_const(gen *g, double value)
{
    kf_value v = kf_node_const(g->g, value, KF_NO_LOC);

    g->range[v] = (range){value, value, true};
    return v;
}

kf_value gen_reshape(gen *g, kf_value v, uint8_t rank, const kf_dim *dims)
{
    kf_value r = kf_node_reshape(g->g, v, rank, dims, KF_NO_LOC);

    g->range[r] = g->range[v];
    return r;
}

kf_value gen_transpose(gen *g, kf_value v, kf_ints perm)
{
    kf_attr_perm *p = KF_ATTR_NEW(g->arena, perm);

    p->perm = perm;
    return gen_node(g, KF_OP_transpose, p, 1, &v, g->range[v]);
}

/* ---- products -------------------------------------------------------------------------------- */

/* Weights are about 1 / sqrt(k): a product is about as large as its rows. */
kf_value gen_linear(gen *g, kf_value x, int64_t n)
{
    kf_dtype dtype = gen_chance(g, 25) ? KF_DTYPE_f32 : g->weights;
    kf_value w = gen_weight(g, n, gen_columns(g, x), dtype);
    double most = 1.5 * fmax(fabs(g->range[x].lo), fabs(g->range[x].hi));
    kf_value v = kf_node_matmul(g->g, x, w, true, KF_NO_LOC);

    g->range[v] = (range){-most, most, false};
    return v;
}

/* ---- joining --------------------------------------------------------------------------------- */

static uint8_t rows_axis(const gen *g, const kf_type *t)
{
    uint8_t i = 0;

    while (i < t->rank && !kf_dim_eq(t->dim[i], g->rows))
        i++;
    return i;
}

kf_value gen_flat(gen *g, kf_value v)
{
    const kf_type t = *gen_type(g, v);
    uint8_t axis = rows_axis(g, &t);

    if (axis && axis < t.rank) {
        kf_ints perm = {t.rank, {axis}};
        for (uint8_t i = 0, at = 1; i < t.rank; i++)
            if (i != axis)
                perm.v[at++] = i;
        v = gen_transpose(g, v, perm);
    }
    if (t.rank == 2 && axis == 0)
        return v;
    return gen_reshape(g, v, 2, (kf_dim[]){g->rows, kf_dim_static(gen_columns(g, v))});
}

kf_value gen_absorb(gen *g, kf_value y, kf_value v)
{
    kf_attr_row_reduce *a = KF_ATTR_NEW(g->arena, row_reduce);
    kf_value flat = gen_flat(g, v);
    double n = (double)gen_columns(g, flat);
    double most = fmax(fabs(g->range[v].lo), fabs(g->range[v].hi));

    a->acc = (kf_accs){1, {KF_ACC_sum}};
    kf_value sum = gen_node(g, KF_OP_row_reduce, a, 1, &flat, (range){-most * n, most * n, false});
    kf_value scaled = gen_fn(g, KF_FN_mul, (kf_value[]){sum, gen_const(g, 1 / (4 * n))});
    return gen_fn(g, KF_FN_add, (kf_value[]){y, scaled});
}
