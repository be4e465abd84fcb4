/* SPDX-License-Identifier: Apache-2.0 */
/* build_graph - Spec -> Graph: blocks become ops, names become values, places become locations.
 *
 * Everything is written out in ordinary ops (a norm is a row_reduce and a product, attention is two
 * matmuls around a softmax over the cache): what fuses is for the passes to find. A repeated block
 * is one function.
 */
#ifndef KF_FRONTEND_BUILD_GRAPH_H
#define KF_FRONTEND_BUILD_GRAPH_H

#include "frontend/spec.h"
#include "ir/graph.h"
#include "ir/tensor_source.h"

/** Tokens in a page of the cache. */
#define KF_KV_PAGE_TOKENS 64

/** Rows of logits that one call may ask for, at least (every sequence may always ask for one). */
#define KF_MIN_LOGIT_ROWS 32

/** Builds the module with its entry function, "main" or for encoders "encoder"; its inputs are
 * those of ir/phase.def, then one cache per attention block. Parameters are stored as in |stored|
 * (the checkpoint; may be NULL), unless build.dtypes.weights or dtype say otherwise. Returns NULL
 * after reporting (E04xx: a dtype that the graph cannot be built with). */
kf_module *kf_build_graph(kf_arena *arena, kf_diags *diags, const kf_spec *spec,
                          const kf_tensor_source *stored);

#endif
