/* SPDX-License-Identifier: Apache-2.0 */
/* pipeline - the order of the passes, for the pass manager. */
#ifndef KF_PASSES_PIPELINE_H
#define KF_PASSES_PIPELINE_H

#include "passes/passes.h"

extern const kf_pass_id kf_pipeline[];
extern const uint32_t kf_pipeline_length;

/** One ordering constraint, with its reason. */
typedef struct kf_pass_order {
    kf_pass_id before, after;
    const char *reason;
} kf_pass_order;

/** False and the broken constraint in |out_broken| if the pipeline contradicts one:
 * every run of |before| that is the last one must stand ahead of the first run of |after|. */
bool kf_pipeline_order_holds(const kf_pass_order **out_broken);

#endif
