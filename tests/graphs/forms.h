/* SPDX-License-Identifier: Apache-2.0 */
/* forms - one module in all its forms, through the evaluator.
 *
 * A call is a ragged prompt of three sequences, a decode step, a second chunk. The f64 evaluator of
 * the module as written is the truth. Every form must agree with it in f64 to 1e-9 of the largest
 * output, and in the rounded evaluator hold the 2x rule: RMS error at most twice the larger of the
 * written module's and the unfused form's, plus 1e-5 of the largest output. After every pass the
 * verifier accepts the module and its text reads back as itself.
 */
#ifndef KF_TESTS_GRAPHS_FORMS_H
#define KF_TESTS_GRAPHS_FORMS_H

#include "tests/graphs/counters.h"
#include "tests/graphs/module_weights.h"

typedef struct forms_choice {
    fill how;          /* below FILL_SEARCHED: the first kind without NaN, from FILL_USUAL on */
    uint64_t seed;     /* of weights and tokens */
    uint32_t first, n; /* passes number first .. first + n - 1 (modulo their number) run alone and
                          are switched off; n = KF_PASS_COUNT: all */
    bool run;          /* also compile the fused form and run it (usual values) */
} forms_choice;

/** False with a sentence in |why| if a form is wrong. */
bool forms_check(const kf_module *m, const forms_choice *how, counters *c, kf_sbuf *why);

/** The pipeline, then each pass alone, over copies: for the counters. */
void forms_count(const kf_module *m, counters *c);

/* ---- pieces ---------------------------------------------------------------------------------- */

/** A copy of a module behind passes. */
typedef struct fused {
    kf_arena *arena, *scratch;
    kf_module *m;
    kf_pass_ctx cx;
    kf_pass_runs runs;
} fused;

/** |passes|, or the pipeline without |off|; checked after each pass with |verify|. */
fused forms_run(const kf_module *m, const char *passes, const char *off, bool verify);
void forms_drop(fused *f);

/** True if both modules compute the same in f64. */
bool forms_same(const kf_module *a, const kf_module *b, uint64_t seed, kf_sbuf *why);

#endif
