/* SPDX-License-Identifier: Apache-2.0 */
/* inplace - may a region store a result over one of its operands? Asked by schedule and
 * plan_buffers. */
#ifndef KF_PASSES_INPLACE_H
#define KF_PASSES_INPLACE_H

#include "ir/graph.h"

/** True if |region| reads operand |operand| only element by element at the places where it stores
 * result |result|: an epilogue operand with the output's own index map. A matmul operand never
 * qualifies, nor a value that a row reduction or an index function reads. Types must be equal. */
bool kf_region_in_place(const kf_node *region, uint32_t operand, uint32_t result);

#endif
