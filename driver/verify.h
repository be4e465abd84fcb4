/* SPDX-License-Identifier: Apache-2.0 */
/* verify - what `kerf verify` is made of: forms against each other, the first pass that changes
 * results, the first region that differs. Each leaves E0901 where something differs. */
#ifndef KF_DRIVER_VERIFY_H
#define KF_DRIVER_VERIFY_H

#include "driver/pipeline_run.h"

/** The seeded prompt of a verification: one sequence. */
typedef struct kf_prompt {
    uint32_t n;
    int32_t *ids;
} kf_prompt;

/** The entry of |m| that takes a whole prompt, or one that takes one token a sequence: what it is
 * called before and after phases are split. */
const char *kf_verify_entry(kf_arena *arena, const kf_module *m, bool one_token);

/** Makes the directory |dir| unless it is there; false after E0603. */
bool kf_verify_dir(kf_compilation *c, const char *dir);

/** Error energy over signal energy of |n| numbers; NaN and infinity agree with themselves only. */
double kf_nmse(const double *got, const double *want, int64_t n);

/** Finds the first pass after which the evaluator gives other logits than for the graph as it was
 * built. */
void kf_verify_bisect(kf_compilation *c, const kf_prompt *p);

/** Finds the first region whose value differs from the graph's, and the first whose kernel differs
 * from the evaluator. */
void kf_verify_layers(kf_compilation *c, const kf_prompt *p);

#endif
