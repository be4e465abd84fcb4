/* SPDX-License-Identifier: Apache-2.0 */
/* recipe - how a weight is made from tensors of the checkpoint: an algebra of a few ops
 * (recipe.def), evaluated when weights are packed.
 *
 * A recipe is an immutable tree in an arena. Tensor names are relative to the prefix under which a
 * repeated function looks up its layer's weights, so one recipe serves all layers. What it computes
 * is in recipe_eval.h.
 */
#ifndef KF_IR_RECIPE_H
#define KF_IR_RECIPE_H

#include "ir/attr.h"
#include "ir/type.h"

typedef enum kf_recipe_op {
#define RECIPE(name, min, max, n1, n2, n3, n4, text, summary) KF_RECIPE_##name,
#include "ir/recipe.def"
#undef RECIPE
    KF_RECIPE_COUNT
} kf_recipe_op;

#define KF_RECIPE_MAX_NUMBERS 4

typedef struct kf_recipe_info {
    const char *name;
    uint32_t min, max; /* parts */
    const char *number[KF_RECIPE_MAX_NUMBERS];
    const char *text, *summary;
} kf_recipe_info;

extern const kf_recipe_info kf_recipe_infos[KF_RECIPE_COUNT];

typedef struct kf_recipe {
    kf_recipe_op op;
    kf_type type;      /* logical; load: dtype that counts, whatever the checkpoint stores */
    kf_str tensor;     /* load */
    const kf_slot *fn; /* map */
    int64_t number[KF_RECIPE_MAX_NUMBERS];
    uint32_t n_parts;
    const struct kf_recipe *const *part;
} kf_recipe;

bool kf_recipe_eq(const kf_recipe *a, const kf_recipe *b);
/** A deep copy that shares nothing. */
const kf_recipe *kf_recipe_copy(kf_arena *arena, const kf_recipe *r);
/** Sets the type of |r| (load: checks it) from its parts and numbers; map keeps its dtype. False
 * with what is wrong in |why|. */
bool kf_recipe_infer(kf_recipe *r, const char **why);
/** True if every type in the tree is what kf_recipe_infer gives. */
bool kf_recipe_check(const kf_recipe *r, const char **why);

/* ---- making; each aborts on a broken rule ---------------------------------------------------- */

const kf_recipe *kf_recipe_load(kf_arena *arena, kf_str tensor, kf_type type);
const kf_recipe *kf_recipe_concat(kf_arena *arena, uint32_t groups, uint32_t n_parts,
                                  const kf_recipe *const *parts);
/** The whole is |r| itself. */
const kf_recipe *kf_recipe_slice(kf_arena *arena, const kf_recipe *r, int64_t axis, int64_t groups,
                                 int64_t start, int64_t stop);
/** Twice is |r| itself. */
const kf_recipe *kf_recipe_transpose(kf_arena *arena, const kf_recipe *r);
const kf_recipe *kf_recipe_regroup(kf_arena *arena, const kf_recipe *r, int64_t groups,
                                   int64_t blocks);
const kf_recipe *kf_recipe_map(kf_arena *arena, kf_dtype dtype, const kf_slot *fn, uint32_t n_parts,
                               const kf_recipe *const *parts);
/** NULL if the parts do not broadcast. */
const kf_recipe *kf_recipe_try_map(kf_arena *arena, kf_dtype dtype, const kf_slot *fn,
                                   uint32_t n_parts, const kf_recipe *const *parts);
/** map with one function of one or two parts, in the first one's dtype: kf_recipe_fn(a, KF_FN_mul,
 * matrix, gain) scales columns, with kf_recipe_transpose(gain) rows. |y| NULL: a function of one.
 */
const kf_recipe *kf_recipe_fn(kf_arena *arena, kf_fn fn, const kf_recipe *x, const kf_recipe *y);
/** |r| rounded to |dtype| alone, whatever dtype it has. */
const kf_recipe *kf_recipe_as(kf_arena *arena, const kf_recipe *r, kf_dtype dtype);
/** |r| times a number. */
const kf_recipe *kf_recipe_times(kf_arena *arena, const kf_recipe *r, double factor);
const kf_recipe *kf_recipe_matmul(kf_arena *arena, const kf_recipe *a, const kf_recipe *b);
const kf_recipe *kf_recipe_centre(kf_arena *arena, const kf_recipe *r, int64_t axis);
const kf_recipe *kf_recipe_spectral(kf_arena *arena, const kf_recipe *r);

#endif
