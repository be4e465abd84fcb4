/* SPDX-License-Identifier: Apache-2.0 */
/* structure - hashes of what values compute, free of the names of values, of order and of ids.
 *
 * Two values with equal hashes compute the same thing for all practical purposes (64 bits); cse
 * still compares before it merges. Arguments hash by number, parameters by recipe, constants by
 * value. Without the names of tensors, equal hashes mean equal kernels.
 */
#ifndef KF_IR_STRUCTURE_H
#define KF_IR_STRUCTURE_H

#include "ir/graph.h"

uint64_t kf_attr_hash(kf_attr_kind kind, const void *attr);
uint64_t kf_type_hash(const kf_type *t);

/** What tells parameters apart: their recipes with the names of tensors, or without them. */
typedef enum kf_structure_of { KF_WITH_TENSORS, KF_WITHOUT_TENSORS } kf_structure_of;

/** Hash of each value of |g| (values.len entries, in |arena|), the same for either order of the
 * operands of a commutative op. Nodes must be in topological order. */
uint64_t *kf_graph_structure(const kf_graph *g, kf_structure_of of, kf_arena *arena);

#endif
