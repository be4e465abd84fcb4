/* SPDX-License-Identifier: Apache-2.0 */
/* near_miss - modules that only resemble what a pass fuses: one thing is in the way, and the pass
 * has to say which. */
#ifndef KF_TESTS_FUSION_NEAR_MISS_H
#define KF_TESTS_FUSION_NEAR_MISS_H

#include "passes/passes.h"

typedef struct near_miss {
    const char *name;
    kf_pass_id pass;
    kf_reason reason;
    /** Changes |g| at node |index|; false if it does not apply there. */
    bool (*at)(kf_graph *g, uint32_t index);
} near_miss;

extern const near_miss near_misses[];
extern const uint32_t n_near_misses;

/** A copy of |m|, changed in the first place of each function where |miss| applies; NULL if there is
 * none. */
kf_module *near_miss_make(kf_arena *arena, const kf_module *m, const near_miss *miss);

#endif
