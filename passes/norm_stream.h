/* SPDX-License-Identifier: Apache-2.0 */
/* norm_stream - the rows that norms read, through sums, layers and phases: the residual stream.
 *
 * A stream is closed: whatever adds to its rows, picks some of them or scales them gives rows of
 * the same stream, in all functions that they pass. What reads them otherwise must be a norm that
 * does not see a shift of the row; what writes them otherwise must be a weight (a table, the matrix
 * or the bias of a matmul). Then the rows may be replaced by others that differ by a shift.
 */
#ifndef KF_PASSES_NORM_STREAM_H
#define KF_PASSES_NORM_STREAM_H

#include "passes/match.h"

/** A node, by function and index. */
typedef struct kf_node_ref {
    kf_graph *g;
    uint32_t node;
} kf_node_ref;

/** Operand |operand| of a node is a weight that writes the stream; its columns are dim |axis|. */
typedef struct kf_stream_writer {
    kf_node_ref at;
    uint32_t operand;
    uint8_t axis;
} kf_stream_writer;

typedef struct kf_stream {
    bool **in;       /* by function of the module, by value */
    uint32_t *known; /* by function: values that |in| tells about */
    int64_t width;
    KF_VEC(kf_node_ref) norms;
    KF_VEC(kf_stream_writer) writers;
    /* Why it is none, or NONE, and the node that stands in the way. */
    kf_reason reason;
    kf_node_ref where;
} kf_stream;

/** True for a row_reduce over the columns of [N,k] whose results do not change when a number is
 * added to a whole row, and which has a sum and a sum of deviations only. */
bool kf_ignores_shift(const kf_graph *g, const kf_node *n);

/** The stream that norm |index| of |g| reads, in the scratch of |cx|. */
kf_stream kf_stream_find(const kf_module *m, kf_graph *g, uint32_t index, const kf_pass_ctx *cx);

#endif
