/* SPDX-License-Identifier: Apache-2.0 */
/* recipe_eval - the values of a recipe, row by row; the one evaluator that packing, the reference
 * evaluator and tests use.
 *
 * Rows are streamed: memory beside the source is a few rows of the widest matrix, a strip of at
 * most 32 MiB for each transpose, and the whole right factor of a matmul. Rows are cheapest in
 * order. A reader serves one thread.
 */
#ifndef KF_IR_RECIPE_EVAL_H
#define KF_IR_RECIPE_EVAL_H

#include "ir/recipe.h"
#include "ir/tensor_source.h"

typedef struct kf_recipe_reader kf_recipe_reader;

/** In which form rows come: EXACT as doubles, computed in f64 and not rounded at the end; STORED in
 * the recipe's dtype, rounded once. */
typedef enum kf_recipe_form { KF_RECIPE_STORED, KF_RECIPE_EXACT } kf_recipe_form;

/** Opens |r| of layer |layer|; tensor names are completed by |prefix|. Returns 0, or an errno value
 * (ENOENT: no such tensor; EINVAL: it has another type than the recipe says) and the tensor's name
 * in |out_name|. */
int kf_recipe_reader_open(kf_arena *arena, const kf_tensor_source *src, const kf_recipe *r,
                          kf_str prefix, uint32_t layer, kf_recipe_form form,
                          kf_recipe_reader **out_reader, kf_str *out_name);
/** Row |row| of a matrix (of a tensor of more dims: all below dim 0); a vector is n rows of one.
 * Errors as above; ERANGE: a number that is too large for its type. */
int kf_recipe_read_row(kf_recipe_reader *reader, uint64_t row, void *out, kf_str *out_name);

#endif
