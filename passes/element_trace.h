/* SPDX-License-Identifier: Apache-2.0 */
/* element_trace - the element expression of a value of a graph, looked at from the keys in view.
 *
 * What has a dim of keys (K) is followed through elementwise work, index ops, matmuls and row
 * reductions down to the cache, arguments and parameters; a matmul of rows, a norm or any other op
 * without keys is a LOAD. The operands of the matmul that makes the scores are followed through
 * views and numeric factors only, so that a query stays what it is.
 */
#ifndef KF_PASSES_ELEMENT_TRACE_H
#define KF_PASSES_ELEMENT_TRACE_H

#include "passes/element.h"

/** Dims of the traced value are split into digits where a view below needs that. */
typedef struct kf_el_dims {
    uint8_t n[KF_MAX_RANK];
    kf_atom digit[KF_MAX_RANK][KF_MAX_RANK]; /* outermost first */
} kf_el_dims;

typedef struct kf_el_trace {
    kf_els *e;
    kf_el element;
    kf_el_dims dims;
    bool *visited; /* per node: its result was looked into */
    bool *scores;  /* per node: it contracts keys over another dim than themselves */
} kf_el_trace;

/** False if it grows beyond the tables. */
bool kf_el_trace_value(kf_arena *arena, const kf_graph *g, kf_value v, kf_el_trace *out);

/** Keys in view, of the call or of a memory. */
bool kf_dim_is_keys(kf_dim d);

#endif
