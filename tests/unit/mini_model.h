/* SPDX-License-Identifier: Apache-2.0 */
/* mini_model - a hand-written model in the form of emitted C, to test the runtime without a
 * compiler.
 *
 * Embedding, two layers that attend over the paged cache, one split reduction with a counter, a
 * head. Its kernels are plain C; every result is a fixed order of f32 operations.
 */
#ifndef KF_TESTS_MINI_MODEL_H
#define KF_TESTS_MINI_MODEL_H

#include "runtime/kf_artifact.h"
#include "runtime/kf_runtime.h"

enum {
    MINI_VOCAB = 64,
    MINI_DIM = 32,
    MINI_LAYERS = 2,
    MINI_SEQUENCES = 4,
    MINI_TOKENS = 40,
    MINI_ROWS = 8,
    MINI_POSITIONS = 300
};

extern const kf_model mini_model;

/** Calls that ran the decode phases and the prefill phase, per worker walk. */
extern _Atomic unsigned mini_decode_walks, mini_prefill_walks;

#endif
