/* SPDX-License-Identifier: Apache-2.0 */
/* matmul_case - one product as a kernel of its own, without a graph: what the bench of the matmul
 * kernels and their test share. C = (A * gamma) W over the operands A, W, C, gamma.
 */
#ifndef KF_BENCH_MATMUL_CASE_H
#define KF_BENCH_MATMUL_CASE_H

#include "codegen/families/matmul.h"

/** Emits the kernel "k". |staged|: A times gamma, which stands for a norm; else A as it stands. */
void matmul_case_emit(kb *b, const kf_matmul_config *cfg, bool staged);

/** Number of tiles of a call with |rows| rows. */
uint32_t matmul_case_tiles(const kf_matmul_config *cfg, uint32_t rows);

/** Bytes of W in packed form, and packing it. |src| is row-major [n][k] as checkpoints store a
 * linear layer, f32 or 16-bit patterns as |weight| says; |dst| is fully written. */
uint64_t matmul_case_bytes(kf_matmul_weight weight, uint32_t n, uint32_t k);
void matmul_case_pack(kf_matmul_weight weight, uint32_t n, uint32_t k, const void *src, void *dst);

/** The next of a sequence of numbers in [-1, 1). */
float matmul_case_random(uint32_t *state);

#endif
