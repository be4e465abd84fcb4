/* SPDX-License-Identifier: Apache-2.0 */
/* gemm - the register tile and the inner f32 product C += A B of one strip of columns.
 *
 * A, B and C are f32 in memory near the core (scratch, or a packed panel); what they mean is the
 * families' business. Each element of C is continued by one chain of fused multiply-adds over k
 * ascending, whatever the tile: results do not depend on mr, on the other rows or on the vector
 * width.
 */
#ifndef KF_CODEGEN_CPU_GEMM_H
#define KF_CODEGEN_CPU_GEMM_H

#include "codegen/cpu/kernel_builder.h"

#define KF_PANEL        16
#define KF_REGTILE_SUMS 32

/** rows x vectors sums in registers; sums[r * vectors + v]. |a| is row 0, with |lda| elements
 * between rows. */
typedef struct kf_regtile {
    uint32_t rows;
    uint32_t vectors;
    uint32_t lanes;
    kb_value a;
    uint32_t lda;
    kb_value sums[KF_REGTILE_SUMS];
} kf_regtile;

void kf_regtile_zero(kb *b, kf_regtile *t);
void kf_regtile_store(kb *b, const kf_regtile *t, kb_value c, uint32_t ldc);
/** sums[r][v] += A[r][k + dk] * w[v]. */
void kf_regtile_fma(kb *b, kf_regtile *t, kb_value k, uint32_t dk, const kb_value *w);
/** Loops carry the sums: begin takes them from the tile and leaves this iteration's there. */
void kf_regtile_loop_begin(kb *b, kf_regtile *t, kb_loop *loop, kb_value lo, kb_value hi,
                           uint32_t step);
void kf_regtile_loop_end(kb *b, kf_regtile *t, kb_loop *loop);

/** C[rows][nr] += A[rows][len] B[len][nr]. */
typedef struct kf_gemm_strip {
    kb_value a;
    uint32_t lda;        /* elements */
    kb_value b;          /* vector-aligned rows; columns in panels of 16 */
    uint32_t ldb;        /* elements between rows of B within a panel */
    int64_t panel_bytes; /* between panels; 64 where a row of B is contiguous */
    kb_value c;
    uint32_t ldc;
    kb_value rows; /* i64, >= 1 */
    kb_value len;  /* i64, >= 0 */
    uint32_t nr;   /* columns: multiple of lanes */
    uint32_t mr;
    uint32_t max_rows; /* bound on rows: smaller than mr saves code */
    uint32_t k_unroll;
    bool k_tail; /* len may not be a multiple of k_unroll */
    uint32_t lanes;
    /** Emitted after each group of rows, |group| counting from 0; may be NULL. */
    void (*after_group)(kb *b, void *user, kb_value group);
    void *user;
} kf_gemm_strip;

/** Deals the rows to ceil(rows / mr) groups of nearly equal size (8 rows with mr = 6 are 4 + 4,
 * never 6 + 2: two rows have too few independent sums to fill the FMA pipeline) and runs the
 * register tile for each. */
void kf_emit_gemm_strip(kb *b, const kf_gemm_strip *g);

#endif
