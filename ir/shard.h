/* SPDX-License-Identifier: Apache-2.0 */
/* shard - transfer of sharding and partial sums through each op: the shard column of ops.def.
 *
 * Part of shape inference (shape.h); not called from elsewhere.
 */
#ifndef KF_IR_SHARD_H
#define KF_IR_SHARD_H

#include "ir/graph.h"

/** Fills shard and partial of the results |out|, whose dims are known. False with a sentence in
 * |why| if the op cannot take its operands as they are cut: a collective is missing. */
bool kf_shard_infer(const kf_graph *g, kf_op op, const void *attr, uint32_t n_in,
                    const kf_value *in, kf_type *out, uint8_t n_out, kf_sbuf *why);

#endif
