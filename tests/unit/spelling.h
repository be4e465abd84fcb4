/* SPDX-License-Identifier: Apache-2.0 */
/* spelling - one computation written in many ways, held to one fused form.
 *
 * A program builds a function in each spelling; sp_run runs passes over it, evaluates it before and
 * after on the same numbers and gives the canonical text, which must not depend on the spelling.
 * With |commute| the short forms below write the operands of commutative functions the other way
 * round, with |detours| they put reshapes and transposes that cancel around views.
 */
#ifndef KF_TESTS_UNIT_SPELLING_H
#define KF_TESTS_UNIT_SPELLING_H

#include "passes/passes.h"

typedef struct spelling {
    kf_arena *arena;
    kf_module *m;
    kf_graph *g;
    bool commute, detours;
} spelling;

/** A module with the standard dims and an empty function "f". */
spelling sp_begin(kf_arena *arena);

/* ---- short forms ----------------------------------------------------------------------------- */

#define SP_N  kf_dim_sym(KF_SYM_N)
#define SP_K  kf_dim_sym(KF_SYM_K)
#define SP(n) kf_dim_static(n)
#define SP_DIMS(...)                                                                               \
    (uint8_t)(sizeof((kf_dim[]){__VA_ARGS__}) / sizeof(kf_dim)), (kf_dim[])                        \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

kf_value sp_arg(spelling *s, const char *name, kf_dtype dtype, uint8_t rank, const kf_dim *dims);
kf_value sp_param(spelling *s, const char *name, uint8_t rank, const kf_dim *dims);
kf_value sp_num(spelling *s, double v);
kf_value sp1(spelling *s, kf_op op, kf_value a);
kf_value sp2(spelling *s, kf_op op, kf_value a, kf_value b);
kf_value sp3(spelling *s, kf_op op, kf_value a, kf_value b, kf_value c);
kf_value sp_reshape(spelling *s, kf_value v, uint8_t rank, const kf_dim *dims);
kf_value sp_expand(spelling *s, kf_value v, uint8_t rank, const kf_dim *dims);
/** |perm|: digits, "102". */
kf_value sp_transpose(spelling *s, kf_value v, const char *perm);
kf_value sp_matmul(spelling *s, kf_value a, kf_value b, bool trans_b);
kf_value sp_iota(spelling *s, int64_t n);
/** One accumulator over the last axis, [.., 1]. */
kf_value sp_reduce(spelling *s, kf_acc acc, kf_value v);
/** row_reduce with |n| accumulators that keeps rows; |map| as text: "(v, m, s) { .. }". */
kf_value sp_row_map(spelling *s, kf_value v, uint8_t n, const kf_acc *acc, const kf_slot *map);

/* ---- running --------------------------------------------------------------------------------- */

typedef struct sp_outcome {
    kf_str text;      /* after the passes */
    double error;     /* largest difference of a result before and after, of the largest one */
    uint32_t n_fused; /* candidates logged */
    kf_reason why;    /* of the first refusal */
    kf_str detail;
} sp_outcome;

/** Runs |passes| (a list of names). Arguments are random; integers named pos, seq, seq_start, past
 * and pages describe two sequences with three and no cached tokens and two and three new ones. */
sp_outcome sp_run(spelling *s, const char *passes, uint64_t seed);

#endif
