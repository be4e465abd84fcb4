/* SPDX-License-Identifier: Apache-2.0 */
/* calls - the calls that every form of a module answers: a ragged prompt of three sequences, a
 * decode step, a second chunk; before them, where there is an encoder, the texts that it reads. */
#ifndef KF_TESTS_GRAPHS_CALLS_H
#define KF_TESTS_GRAPHS_CALLS_H

#include "ir/eval.h"
#include "ir/phase.h"

enum { CALL_SEQS = 3, CALL_COUNT = 4, CALL_MAX_TOKENS = 4 };

/** What all calls returned, one behind the other. */
typedef struct output {
    double *v;
    int64_t n;
    bool finite;
} output;

typedef struct calls {
    kf_arena *arena; /* outputs */
    const kf_tensor_source *weights;
    uint32_t seqs;
    int32_t tokens[CALL_COUNT][CALL_SEQS][CALL_MAX_TOKENS];
} calls;

/** Draws the tokens for |m|. */
void calls_begin(calls *k, kf_arena *arena, const kf_module *m, uint64_t seed);

/** One call: what runs, and what it is given. */
typedef struct call {
    kf_phase_id phase;
    const char *func; /* of this phase, or the entry that phases are made of */
    uint32_t seq[CALL_SEQS], n_tokens[CALL_SEQS];
    const int32_t *ids[CALL_SEQS];
    kf_eval_step step; /* points into this */
} call;

/** Fills call |number| of CALL_COUNT, which has to stay where it is; false if |m| has no function
 * for it. */
bool calls_get(const calls *k, const kf_module *m, uint32_t number, call *out);

void output_add(const calls *k, output *o, const kf_tensor *t);
bool calls_evaluate(const calls *k, const kf_module *m, kf_eval_mode mode, output *o, kf_sbuf *why);

double output_largest(const output *o);
/** RMS of the difference; infinite where |a| and |b| are not of one size. */
double output_rms(const output *a, const output *b);

#endif
