/* SPDX-License-Identifier: Apache-2.0 */
/* counters - what a run of random graphs has reached. */
#ifndef KF_TESTS_GRAPHS_COUNTERS_H
#define KF_TESTS_GRAPHS_COUNTERS_H

#include "ir/recipe.h"
#include "passes/passes.h"

/** Modules in which something occurs. */
typedef struct counters {
    uint32_t modules, failed;
    uint32_t op[KF_OP_COUNT];   /* rows of fn.def included */
    uint32_t fn[KF_FN_COUNT];   /* in slots */
    uint32_t acc[KF_ACC_COUNT]; /* of row_reduce */
    uint32_t recipe[KF_RECIPE_COUNT];
    uint32_t fired[KF_PASS_COUNT], refused[KF_PASS_COUNT], idle[KF_PASS_COUNT];
    uint32_t reason[KF_REASON_COUNT];
    uint32_t nodes, adversarial, searched, not_finite, planned, no_kernel, ran;
} counters;

void counters_add_module(counters *c, const kf_module *m);
void counters_add_passes(counters *c, const kf_pass_ctx *cx, const kf_pass_runs *runs);
void counters_print(const counters *c);
/** True if everything was reached; else says what was not. */
bool counters_complete(const counters *c);

#endif
