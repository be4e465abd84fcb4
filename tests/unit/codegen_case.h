/* SPDX-License-Identifier: Apache-2.0 */
/* codegen_case - one region body, emitted, run and compared with the evaluator.
 *
 * The body is built with kf_node_add on case.body. Arguments are random unless given; caches hold
 * random rows of the past in shuffled pages of a state with several layers. Memory around operands
 * and scratch is poisoned with NaN, tiles run in a shuffled order.
 */
#ifndef KF_TESTS_UNIT_CODEGEN_CASE_H
#define KF_TESTS_UNIT_CODEGEN_CASE_H

#include "codegen/kernel.h"
#include "codegen/target_cpu.h"
#include "ir/eval.h"

#define CASE_MAX_ARGS 24

typedef struct kf_case {
    kf_arena *arena;
    kf_module *module;
    kf_graph *body;
    const char *arch;
    int64_t sym[KF_SYM_MEMORY]; /* values of this call; M is 1 unless set */
    int64_t past[8];            /* of each sequence */
    const double *given[CASE_MAX_ARGS];
    uint64_t seed;
    double rtol, atol;
    double nmse; /* limit of the squared error of each row over its squares; 0: none */
    /* of the last run */
    const char *text; /* LLVM assembly, when keep_text */
    bool keep_text;
    void *result[KF_MAX_RESULTS]; /* raw bytes of tensor results */
    double seconds;               /* one run of all tiles, best of |repeat| */
    uint32_t repeat;
    int64_t rows_hi;               /* bucket; 0: the symbol's bound */
    uint32_t over[KF_MAX_RESULTS]; /* result i lies over argument over[i] - 1; 0: apart */
} kf_case;

/** A case with symbols S, N, R, K of these values and upper bounds of 8, 512, 8, 4096; M is like K.
 */
kf_case kf_case_begin(int64_t s, int64_t n, int64_t r, int64_t k);
void kf_case_end(kf_case *c);

/** True for |percent| of the calls, evenly spread, scaled by KF_TEST_SCALE: thins out products of
 * options. */
bool kf_case_chosen(uint32_t percent);

kf_value kf_case_arg(kf_case *c, kf_dtype dtype, uint8_t rank, const kf_dim *dims,
                     const char *name);
/** A weight [n,k] in the target's storage order. */
kf_value kf_case_weight(kf_case *c, kf_dtype dtype, int64_t n, int64_t k, const char *name);
/** Integers lo..hi-1 for argument |v|. */
void kf_case_ints(kf_case *c, kf_value v, int64_t lo, int64_t hi);
/** Arguments pos, seq, seq_start, past, pages over |rows| dims, filled for a ragged call. */
typedef struct kf_case_call {
    kf_value kv, pos, seq, seq_start, past, pages;
} kf_case_call;
kf_case_call kf_case_cache(kf_case *c, kf_dtype dtype, uint32_t heads, uint32_t head_dim);

/** Emits, runs and compares; fails the test with a sentence. */
void kf_case_run(kf_case *c, kf_family family);
/** True if kf_kernel_emit takes the body with |config|; else the sentence is in |why|. */
bool kf_case_emits(kf_case *c, kf_family family, const kf_config *config, kf_sbuf *why);
/** What configure chooses for the body. */
kf_kernel_shape kf_case_shape(kf_case *c, kf_family family);
/** Expects no match; |needle| has to be in the sentence. */
void kf_case_refused(kf_case *c, kf_family family, const char *needle);

#endif
