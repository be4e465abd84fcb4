/* SPDX-License-Identifier: Apache-2.0 */
/* verify - what `kerf verify` is made of: forms against each other, folded
 * weights against stored ones, the first pass that changes
 * results, the first region that differs. Each leaves E0901 where something differs. */
#ifndef KF_DRIVER_VERIFY_H
#define KF_DRIVER_VERIFY_H

#include "driver/pipeline_run.h"
#include "ir/eval.h"

/** The seeded prompt of a verification: one sequence. */
typedef struct kf_prompt {
    uint32_t n;
    int32_t *ids;
} kf_prompt;

/** The entry of |m| that takes a whole prompt, or one that takes one token a sequence: what it is
 * called before and after phases are split. */
const char *kf_verify_entry(kf_arena *arena, const kf_module *m, bool one_token);

/** Where |m| is an encoder with a decoder, the encoder takes the whole prompt; else nothing happens.
 * False with a sentence in |why|. */
bool kf_verify_encode(kf_eval *e, kf_arena *arena, const kf_module *m, const kf_prompt *p,
                      kf_sbuf *why);

/** Makes the directory |dir| unless it is there; false after E0603. */
bool kf_verify_dir(kf_compilation *c, const char *dir);

/** Error energy over signal energy of |n| numbers; NaN and infinity agree with themselves only. */
double kf_nmse(const double *got, const double *want, int64_t n);

/** Rows that a form gives for |p|: one of a pooled encoder, else one a token. */
uint32_t kf_verify_rows(const kf_compilation *c, const kf_prompt *p);
/** All rows of the evaluator over c->module (an entry that takes a whole prompt), or NULL after
 * E0901. |name| is for the message. */
const double *kf_verify_evaluate(kf_compilation *c, const kf_prompt *p, kf_eval_mode mode,
                                 const char *name);
/** All rows of executable |exe|, run with |option| and |value| (NULL: none), or NULL after E0901.
 */
const double *kf_verify_run(kf_compilation *c, const kf_prompt *p, const char *dir, const char *exe,
                            const char *name, const char *option, const char *value);

/** Compares weights as stored with weights as passes folded them. */
void kf_verify_folds(kf_compilation *c, const kf_prompt *p);

/** Finds the first pass after which the evaluator gives other logits than for the graph as it was
 * built. */
void kf_verify_bisect(kf_compilation *c, const kf_prompt *p);

/** Finds the first region whose value differs from the graph's, and the first whose kernel differs
 * from the evaluator. */
void kf_verify_layers(kf_compilation *c, const kf_prompt *p);

#endif
