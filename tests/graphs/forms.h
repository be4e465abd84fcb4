/* SPDX-License-Identifier: Apache-2.0 */
/* forms - one module in all its forms, through the evaluator.
 *
 * Forms: unfused, fused, with norms rewritten, behind each pass alone, behind the pipeline without
 * each pass, behind passes in any order. The f64 evaluator of the module as written is the truth. Every form must agree with it
 * in f64 to 1e-9 of the largest output, and in the rounded evaluator hold the 2x rule: RMS error at
 * most twice the larger of the written module's and the unfused form's, plus 1e-5 of the largest
 * output. After every pass the verifier accepts the module and its text reads back as itself.
 *
 * Forms with one text are one form. Without a pass that changed nothing in the pipeline, the
 * pipeline is the same: that is run for a sample only.
 */
#ifndef KF_TESTS_GRAPHS_FORMS_H
#define KF_TESTS_GRAPHS_FORMS_H

#include "tests/graphs/fused.h"
#include "tests/graphs/module_weights.h"

typedef struct forms_choice {
    fill how;      /* below FILL_SEARCHED: the first kind without NaN, from FILL_USUAL on */
    uint64_t seed; /* of weights and tokens */
    bool run;      /* also compile the fused form and run it (usual values) */
} forms_choice;

typedef enum verdict {
    VERDICT_OK,
    VERDICT_WRONG,   /* a form is */
    VERDICT_UNUSABLE /* the module itself cannot be evaluated */
} verdict;

/** With a sentence in |why| if it is not OK. */
verdict forms_check(const kf_module *m, const forms_choice *how, counters *c, kf_sbuf *why);

/** The pipeline, then each pass alone, over copies: for the counters. */
void forms_count(const kf_module *m, counters *c);

/** True if both modules compute the same in f64. */
bool forms_same(const kf_module *a, const kf_module *b, uint64_t seed, kf_sbuf *why);

#endif
