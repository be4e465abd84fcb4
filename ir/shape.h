/* SPDX-License-Identifier: Apache-2.0 */
/* shape - result types and sharding of each op: the functions named in ops.def. */
#ifndef KF_IR_SHAPE_H
#define KF_IR_SHAPE_H

#include "ir/graph.h"

/** Infers the result types of a node about to be added. Returns false with a sentence in |why|
 * (values included) if a rule is broken. |out| holds KF_MAX_RESULTS types. */
bool kf_shape_infer(const kf_graph *g, kf_op op, const void *attr, const kf_graph *body,
                    uint32_t n_in, const kf_value *in, const kf_type *given, kf_type *out,
                    uint8_t *out_n, kf_sbuf *why);

#endif
