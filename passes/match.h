/* SPDX-License-Identifier: Apache-2.0 */
/* match - small questions that several passes ask about a graph, and the rewrites they share. */
#ifndef KF_PASSES_MATCH_H
#define KF_PASSES_MATCH_H

#include "passes/passes.h"

/** The graphs a pass visits: functions of the module (region bodies excluded). */
#define KF_EACH_FUNC(m, g)                                                                         \
    for (uint32_t g##_i = 0; g##_i < (m)->funcs.len; g##_i++)                                      \
        for (kf_graph *g = (m)->funcs.data[g##_i], *g##_once = g; g##_once; g##_once = NULL)

/** True if the first dims of |m| are those of a model, S and N: textual IR may hold other
 * modules. */
bool kf_module_has_model_dims(const kf_module *m);
bool kf_value_is_param(const kf_graph *g, kf_value v);
bool kf_value_is_arg(const kf_graph *g, kf_value v);
bool kf_value_is_result(const kf_graph *g, kf_value v);
bool kf_accs_have(const kf_accs *accs, kf_acc acc);
/** The recipe of a parameter. */
const kf_recipe *kf_value_recipe(const kf_graph *g, kf_value v);

/** Operands that read the weight which |r| makes, in all parameters of |g| that are made by it. */
uint32_t kf_readers_of_recipe(const kf_graph *g, const kf_recipe *r, const uint32_t *uses);

/** True for a matmul of rows [M,K] with a parameter [N,K] as it stands in a checkpoint (trans_b).
 */
bool kf_node_is_linear(const kf_graph *g, const kf_node *n);

/** Instruction |root| of |s| and what it needs, built again in |b|; parameter i is param[i] there,
 * or itself with |param| NULL. */
uint32_t kf_slot_rebuild(kf_slot_builder *b, const kf_slot *s, uint32_t root,
                         const uint32_t *param);

/** If the slot is a product of its first parameter with what depends on the second alone, true and
 * the rest of the product as a slot of both in |out_scale| (arena of |a|). */
bool kf_slot_row_scale(kf_arena *a, const kf_slot *map, const kf_slot **out_scale);

/** Joins the weights of |n| linear matmuls of one input, group by group (kf_recipe CONCAT), and
 * replaces each matmul's result by its slice of the joined one. The new nodes stand at the end;
 * sort afterwards. */
void kf_merge_matmuls(kf_graph *g, uint32_t n, const uint32_t *node_index, uint32_t groups);

/** What |n| is to a reader of reports. */
kf_kind kf_node_kind(const kf_graph *g, const kf_node *n);
/** "matmul %wq", "gain %g", "elementwise silu": the kind, and the parameter or the op that tells
 * which one. A part of a candidate's subject. */
kf_str kf_node_title(kf_arena *a, const kf_graph *g, const kf_node *n);
/** "%gate, %up": the weights of linear matmuls, for reports. */
kf_str kf_weight_names(kf_arena *a, const kf_graph *g, uint32_t n, const uint32_t *node_index);

#endif
