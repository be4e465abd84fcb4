/* SPDX-License-Identifier: Apache-2.0 */
/* build_linear - x W^T + b, where W may be stored in parts or used in part; see spec_forms.c.
 *
 *   low_rank   (x A^T) B^T
 *   spectral   x W^T * (scale / sigma(W))
 *   lora       + (x A^T) B^T * (alpha / rank)
 *
 * All are written out as ordinary ops, so that an unmerged model runs too; fold_params and
 * fold_weights make one matrix of them where that is right.
 */
#include "frontend/build_impl.h"

/* The matrix under construction. */
typedef struct linear {
    kf_graph_builder *b;
    const kf_block *block;
    kf_param_role role;
    const char *name;
    kf_linear_cut cut;
    kf_loc loc;
} linear;

/* The first |n| of dim |axis|, if |n| is not 0 and this is the dim that is cut. */
static kf_value cut_param(const linear *l, kf_value v, int64_t axis)
{
    if (!l->cut.n || l->cut.axis != axis)
        return v;
    return kf_node_slice(l->b->g, v, axis, 0, l->cut.n, l->loc);
}

static kf_value part(const linear *l, kf_param_part which, const char *suffix)
{
    kf_str name = kf_strf(l->b->arena, "%s%s", l->name, suffix);

    return kf_build_part(l->b, l->block, l->role, which, name.ptr);
}

/* (x A^T) B^T */
static kf_value product(const linear *l, kf_value x, kf_param_part a, kf_param_part b)
{
    kf_value right = cut_param(l, part(l, a, "_a"), 1), left = cut_param(l, part(l, b, "_b"), 0);
    kf_value inner = kf_node_matmul(l->b->g, x, right, true, l->loc);

    return kf_node_matmul(l->b->g, inner, left, true, l->loc);
}

/* scale / sigma of what is stored, as a number [1]. */
static kf_value spectral_factor(const linear *l)
{
    kf_graph_builder *b = l->b;
    const kf_spec_param *p = kf_block_param(l->block, l->role);
    const kf_recipe *stored =
        p ? kf_build_recipe(b, p)
          : kf_recipe_matmul(
                b->arena, kf_build_recipe(b, kf_block_part(l->block, l->role, KF_PART_FACTOR_B)),
                kf_build_recipe(b, kf_block_part(l->block, l->role, KF_PART_FACTOR_A)));
    kf_str name = kf_strf(b->arena, "%s_sigma", l->name);
    kf_value sigma = kf_graph_param_of(b->g, kf_recipe_spectral(b->arena, stored), name, l->loc);

    return kf_node_2(b->g, KF_OP_div, part(l, KF_PART_SCALE, "_scale"), sigma, l->loc);
}

static kf_value multiply(const linear *l, kf_value x)
{
    kf_graph_builder *b = l->b;
    const kf_spec_form *update = kf_form_of(b->spec, KF_FORM_LORA, l->role);
    kf_value y;

    if (kf_form_of(b->spec, KF_FORM_LOW_RANK, l->role)) {
        y = product(l, x, KF_PART_FACTOR_A, KF_PART_FACTOR_B);
    } else {
        kf_value w = kf_build_part(b, l->block, l->role, KF_PART_WHOLE, l->name);
        y = kf_node_matmul(b->g, x, cut_param(l, cut_param(l, w, 0), 1), true, l->loc);
    }
    if (kf_form_of(b->spec, KF_FORM_SPECTRAL, l->role))
        y = kf_node_2(b->g, KF_OP_mul, y, spectral_factor(l), l->loc);
    if (update) {
        kf_value factor = kf_node_const(b->g, update->alpha.v / (double)update->rank.v, l->loc);
        kf_value u = product(l, x, KF_PART_LORA_A, KF_PART_LORA_B);
        y = kf_node_2(b->g, KF_OP_add, y, kf_node_2(b->g, KF_OP_mul, u, factor, l->loc), l->loc);
    }
    return y;
}

kf_value kf_build_linear_cut(kf_graph_builder *b, const kf_block *block, kf_param_role weight,
                             const char *weight_name, kf_param_role bias, const char *bias_name,
                             kf_linear_cut cut, kf_value x)
{
    linear l = {b, block, weight, weight_name, cut, kf_build_loc(b, block->src.loc)};
    kf_value y = multiply(&l, x), add = kf_build_param(b, block, bias, bias_name);

    return add == KF_NO_VALUE ? y : kf_node_2(b->g, KF_OP_add, y, cut_param(&l, add, 0), l.loc);
}

kf_value kf_build_linear(kf_graph_builder *b, const kf_block *block, kf_param_role weight,
                         const char *weight_name, kf_param_role bias, const char *bias_name,
                         kf_value x)
{
    return kf_build_linear_cut(b, block, weight, weight_name, bias, bias_name, (kf_linear_cut){0},
                               x);
}
