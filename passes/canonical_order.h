/* SPDX-License-Identifier: Apache-2.0 */
/* canonical_order - one order of operands and nodes for equal computations, for canonicalize.
 *
 * Names, the order of writing and the order of operands leave no trace, so equal computations print
 * equal. Nor does it count where their inputs come from, so layers that are equal but for the names
 * of their weights become equal kernels, also one behind the other in one function.
 */
#ifndef KF_PASSES_CANONICAL_ORDER_H
#define KF_PASSES_CANONICAL_ORDER_H

#include "ir/graph.h"

/** Operands of commutative ops. Nodes must be in topological order. */
bool kf_order_operands(kf_graph *g, kf_arena *scratch);

/** Nodes in depth-first order from the results, parameters in the order of first use. Dead nodes go.
 */
bool kf_order_nodes(kf_graph *g, kf_arena *scratch);

#endif
