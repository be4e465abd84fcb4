/* SPDX-License-Identifier: Apache-2.0 */
/* gen_weights - weights made from tensors in every way of recipe.def. */
#include "ir/recipe.h"
#include "tests/graphs/gen.h"

static const kf_recipe *load(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    const kf_dim dims[] = {kf_dim_static(n), kf_dim_static(k)};

    return kf_recipe_load(g->arena, kf_strf(g->arena, "w%u", g->n_params++),
                          kf_type_tensor(dtype, k ? 2 : 1, dims));
}

typedef const kf_recipe *(*maker)(gen *g, kf_dtype dtype, int64_t n, int64_t k);

static const kf_recipe *joined(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    const kf_recipe *part[] = {load(g, dtype, n / 2, k), load(g, dtype, n / 2, k)};

    return kf_recipe_concat(g->arena, gen_pick(g, 2) && n % 4 == 0 ? 2 : 1, 2, part);
}

static const kf_recipe *sliced(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    bool rows = gen_pick(g, 2);
    int64_t at = gen_pick(g, 2) ? (rows ? n : k) : 0;

    return kf_recipe_slice(g->arena, load(g, dtype, rows ? 2 * n : n, rows ? k : 2 * k),
                           rows ? 0 : 1, 1, at, at + (rows ? n : k));
}

static const kf_recipe *transposed(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    return kf_recipe_transpose(g->arena, load(g, dtype, k, n));
}

static const kf_recipe *regrouped(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    return kf_recipe_regroup(g->arena, load(g, dtype, n, k), n % 4 ? 1 : 2, 2);
}

static const kf_recipe *scaled_columns(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    return kf_recipe_fn(g->arena, KF_FN_mul, load(g, dtype, n, k), load(g, dtype, k, 0));
}

static const kf_recipe *multiplied(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    (void)dtype;
    return kf_recipe_matmul(g->arena, load(g, KF_DTYPE_f32, n, 4), load(g, KF_DTYPE_f32, 4, k));
}

static const kf_recipe *centred(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    return kf_recipe_centre(g->arena, load(g, dtype, n, k), gen_pick(g, 2));
}

/* Singular values of large random matrices lie close together: hundreds of power iterations, in
 * every evaluator of every form. */
enum { MAX_SPECTRAL = 4096 };

static const kf_recipe *normalised(gen *g, kf_dtype dtype, int64_t n, int64_t k)
{
    if (n * k > MAX_SPECTRAL)
        return scaled_columns(g, dtype, n, k);
    const kf_recipe *w = load(g, dtype, n, k);

    return kf_recipe_fn(g->arena, KF_FN_div, w, kf_recipe_spectral(g->arena, w));
}

static const maker makers[] = {joined,         sliced,     transposed, regrouped,
                               scaled_columns, multiplied, centred,    normalised};

kf_value gen_weight(gen *g, int64_t n, int64_t k, kf_dtype dtype)
{
    const kf_recipe *r =
        n % 2 || !gen_chance(g, 12)
            ? load(g, dtype, n, k)
            : makers[gen_pick(g, sizeof makers / sizeof makers[0])](g, dtype, n, k);
    kf_str name = kf_strf(g->arena, "w%u", g->n_params++);

    return kf_graph_add_param(g->g, r, name, KF_NO_LOC);
}
