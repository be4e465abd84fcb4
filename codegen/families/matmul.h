/* SPDX-License-Identifier: Apache-2.0 */
/* matmul - tile functions for C[M,N] = A[M,K] * W[K,N] with packed weights (CPU).
 *
 * The emitter owns loops, tiling and the inner kernel. What is fused before and after it (norms,
 * scales, biases, activations, stores) is emitted by hooks: the prologue produces elements of A,
 * the epilogue reads the finished f32 tile of C from scratch. Nothing here knows the graph.
 *
 * Packed weights. N is padded to a multiple of 16 with zero columns; a *panel* is 16 columns.
 *     f32   [N/16][K][16]            one 64-byte row a k
 *     f16   [N/16][K][16]            one 32-byte row a k
 *     bf16  [N/16][K/2][16][2]       K padded to even with zeros; 64 bytes hold two k
 * In each 32-bit lane of bf16, k is the low half and k+1 the high half, so one shift and one mask
 * widen a vector to the f32 of two rows, with columns in order. A gated product is one W whose
 * panels alternate (gate, up); pairing them is the epilogue's business.
 *
 * Order of work, the same in both forms: each element of C is one chain of fused multiply-adds over
 * k = 0, 1, ... K-1, starting at 0. So the result of a row does not depend on the form, the tile
 * sizes, the number of rows or the vector width: prefill and decode agree bit for bit.
 *
 * Tiles. tile = column_block * row_blocks + row_block: row blocks are the fastest, so that workers
 * at neighbouring tiles read the same columns of W, which is the larger operand and comes from
 * memory once, while A (a few MB at 512 rows) stays in the last-level cache.
 */
#ifndef KF_CODEGEN_FAMILIES_MATMUL_H
#define KF_CODEGEN_FAMILIES_MATMUL_H

#include "codegen/cpu/gemm.h"

typedef enum kf_matmul_weight { KF_WEIGHT_F32, KF_WEIGHT_BF16, KF_WEIGHT_F16 } kf_matmul_weight;

typedef enum kf_matmul_form {
    KF_MATMUL_STREAM, /* rows <= mr: every weight is read once, widened in registers; memory bound
                       */
    KF_MATMUL_BLOCK, /* many rows: W widened to an L1-resident panel of kc rows, used by all rows */
} kf_matmul_form;

/** Pure integers; everything a tuner may change and everything the emitter needs to know. */
typedef struct kf_matmul_config {
    uint32_t n; /* logical columns of W */
    uint32_t k; /* logical rows of W = columns of A */
    kf_matmul_weight weight;
    kf_matmul_form form;
    uint32_t max_rows; /* bound on the rows of a call */
    uint32_t tile_m;   /* rows of a tile; stream: the bound max_rows */
    uint32_t tile_n;   /* columns of a tile: multiple of 16 */
    uint32_t mr;       /* rows of the register tile; stream: = max_rows */
    uint32_t nr; /* columns of the register tile: 8, or a multiple of 16 that divides tile_n */
    uint32_t kc; /* block: k rows of W widened at a time; multiple of k_unroll */
    uint32_t k_unroll;       /* even */
    uint32_t lanes;          /* f32 lanes of a vector: 8 or 16 */
    uint32_t prefetch_bytes; /* 0: no software prefetch; stream: its distance within a panel; block:
                                any other value fetches the next strip of W during this one */
    uint32_t user_bytes; /* scratch that the hooks want for themselves, at kf_matmul_tile.user */
} kf_matmul_config;

/** What a hook knows of the tile being emitted. All values are i64 unless said otherwise. */
typedef struct kf_matmul_tile {
    const kf_matmul_config *config;
    kb_value row0; /* first row of the tile in A and C */
    kb_value rows; /* rows of the tile, 1..tile_m */
    kb_value col0; /* first column of the tile, multiple of tile_n */
    kb_value cols; /* columns of the tile: min(tile_n, n - col0), without padding */
    kb_value c;    /* scratch: f32 [tile_m][ldc], valid in the epilogue; 64-byte aligned rows */
    uint32_t ldc;  /* elements, multiple of 16 */
    kb_value user; /* scratch of user_bytes, 64-byte aligned */
} kf_matmul_tile;

typedef struct kf_matmul_hooks {
    void *user;
    uint32_t weight_operand; /* kb_ptr index of the packed weights, 64-byte aligned */
    uint32_t rows_dim;       /* kb_dim index of the number of rows M */

    /** Emitted once, before A is read. May be NULL. */
    void (*begin)(kb *b, void *user, const kf_matmul_tile *tile);
    /** A after the prologue: f32 lanes (row, k .. k+lanes-1); |row| counts in the whole of A, and
     * no lane is outside it. lanes is config.lanes or 1. NULL: A is f32 in memory and read where it
     * is. */
    kb_value (*a_value)(kb *b, void *user, const kf_matmul_tile *tile, kb_value row, kb_value k,
                        uint32_t lanes);
    /** Emits what values of A share before several are asked for: those of |row| (NULL: of any) at
     * |k| (NULL: at any); |release| with the returned mark ends that. May be NULL. */
    uint32_t (*prepare)(kb *b, void *user, kb_value row, kb_value k, uint32_t lanes);
    void (*release)(void *user, uint32_t mark);
    /** With a_value NULL: operand index of A and the elements between its rows. */
    uint32_t a_operand;
    uint32_t a_stride;
    /** Emitted once, when tile->c is complete. Stores the results. */
    void (*epilogue)(kb *b, void *user, const kf_matmul_tile *tile);
} kf_matmul_hooks;

/** Fills the tiling for a target with |lanes| and |regs|: n, k, weight, max_rows and user_bytes
 * must be set. */
void kf_matmul_configure(kf_matmul_config *cfg, uint32_t lanes, uint32_t regs);

/** Whether |cfg| can be emitted; if not, |out_why| says which rule it breaks. */
bool kf_matmul_config_ok(const kf_matmul_config *cfg, uint32_t regs, const char **out_why);

/** Scratch bytes a worker needs. */
uint64_t kf_matmul_scratch_bytes(const kf_matmul_config *cfg);

/** Emits the body of the current tile function. */
void kf_emit_matmul_tile(kb *b, const kf_matmul_config *cfg, const kf_matmul_hooks *hooks);

#endif
