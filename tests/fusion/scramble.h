/* SPDX-License-Identifier: Apache-2.0 */
/* scramble - the same computation in other words: random rewrites of a module that keep what it
 * computes; and near misses, which change what may be fused but stay valid modules. */
#ifndef KF_TESTS_FUSION_SCRAMBLE_H
#define KF_TESTS_FUSION_SCRAMBLE_H

#include "ir/graph.h"

/** One way to write the same thing differently. */
typedef struct rewrite {
    const char *name;
    /** Rewrites node |index| of |g| (which it may leave as KF_OP_NONE, with new nodes at the end);
     * false if it does not apply. */
    bool (*at)(kf_graph *g, uint32_t index, uint64_t *random);
} rewrite;

extern const rewrite rewrites[];
extern const uint32_t n_rewrites;

/** A copy of |m| with rewrite |which| tried at every node (|percent| of them), or for
 * |which| = n_rewrites all of them mixed. Nodes stand in a random order, names are new.
 * |out_applied| counts. */
kf_module *scramble(kf_arena *arena, const kf_module *m, uint32_t which, uint32_t percent,
                    uint64_t seed, uint32_t *out_applied);

/** |v| with its last two dims exchanged. */
kf_value swap_last(kf_graph *g, kf_value v, kf_loc loc);

#endif
