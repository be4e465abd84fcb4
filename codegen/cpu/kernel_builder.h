/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_builder - the `kb_` verbs that family emitters write CPU kernels with.
 *
 * A kernel is a tile function
 *
 *     void NAME(const kf_kernel_args *args, uint32_t tile, void *scratch)
 *
 * where args holds two arrays: ptr[i], the address of operand i, and dim[j], run-time dimensions as
 * int64. scratch is per worker, 64-byte aligned, of a size that the kernel's config decides. Tiles
 * are claimed by any worker in any order, so a tile reads nothing that another tile of the same
 * launch writes.
 *
 * Values are LLVM values; a lane count of 1 means a scalar, and every verb takes its shape from its
 * operands. Floating point is exact: no fast-math flag is ever set and multiply-add is fused only
 * by kb_fma, so that a result does not depend on the path (vector, remainder, masked) that computed
 * it. Verbs assert their preconditions (KF_ASSERT); they do not fail otherwise. Alignments are in
 * bytes. A builder is used by one thread. It knows nothing of graphs.
 */
#ifndef KF_CODEGEN_CPU_KERNEL_BUILDER_H
#define KF_CODEGEN_CPU_KERNEL_BUILDER_H

#include "codegen/llvm_backend.h"

#include <stdbool.h>
#include <stdint.h>

struct LLVMOpaqueValue;
struct LLVMOpaqueType;
struct LLVMOpaqueBasicBlock;
typedef struct LLVMOpaqueValue *kb_value;

typedef enum kb_elem {
    KB_I1,
    KB_I8,
    KB_I16,
    KB_I32,
    KB_I64,
    KB_F16,
    KB_BF16,
    KB_F32,
    KB_F64
} kb_elem;

typedef struct kb kb;

#define KB_MAX_CARRIED 64

/* ---- functions ------------------------------------------------------------------------------- */

/** A builder over |ll|'s module. |ll| is borrowed and must outlive it. Release with kb_destroy. */
kb *kb_create(kf_arena *arena, kf_llvm *ll);
void kb_destroy(kb *b);

/** f32 lanes of the target's vectors (8 or 16) and the number of vector registers (16 or 32). */
uint32_t kb_lanes(const kb *b);
uint32_t kb_regs(const kb *b);

/** Starts the tile function |name|; its operands are then read with kb_ptr, kb_dim, kb_tile,
 * kb_scratch. */
void kb_begin_kernel(kb *b, const char *name);
/** Ends the function with a return. */
void kb_end_kernel(kb *b);

/** Address of operand |i|; loaded once, in the entry block. */
kb_value kb_ptr(kb *b, uint32_t i);
/** Run-time dimension |j| as i64; loaded once, in the entry block. */
kb_value kb_dim(kb *b, uint32_t j);
/** The tile index as i64. */
kb_value kb_tile(kb *b);
kb_value kb_scratch(kb *b);

/* ---- constants and shapes -------------------------------------------------------------------- */

kb_value kb_i64(kb *b, int64_t v);
/** An integer constant of |elem|, in every one of |lanes| lanes. */
kb_value kb_int(kb *b, kb_elem elem, uint32_t lanes, int64_t v);
kb_value kb_f32(kb *b, uint32_t lanes, float v);
/** A floating point constant of |elem| (KB_F32 or KB_F64) in every lane. */
kb_value kb_float(kb *b, kb_elem elem, uint32_t lanes, double v);
/** Address of |n| f32 constants, stored with the kernel; 64-byte aligned. kb_table_i32 likewise. */
kb_value kb_table_f32(kb *b, const float *v, uint32_t n);
kb_value kb_table_i32(kb *b, const int32_t *v, uint32_t n);
uint32_t kb_lanes_of(kb_value v);
/** True if |v| is a predicate: i1 in each lane. */
bool kb_is_pred(kb_value v);
/** The constant behind |v|, if it is one: lets emitters drop loops and masks that are known not to
 * be needed. */
bool kb_is_const(kb_value v, int64_t *out_v);

/* ---- integers (any lane count; both operands of one type) ------------------------------------ */

kb_value kb_add(kb *b, kb_value x, kb_value y);
kb_value kb_sub(kb *b, kb_value x, kb_value y);
kb_value kb_mul(kb *b, kb_value x, kb_value y);
kb_value kb_udiv(kb *b, kb_value x, kb_value y);
kb_value kb_urem(kb *b, kb_value x, kb_value y);
kb_value kb_and(kb *b, kb_value x, kb_value y);
kb_value kb_or(kb *b, kb_value x, kb_value y);
kb_value kb_xor(kb *b, kb_value x, kb_value y);
kb_value kb_shl(kb *b, kb_value x, uint32_t bits);
kb_value kb_lshr(kb *b, kb_value x, uint32_t bits);
kb_value kb_ashr(kb *b, kb_value x, uint32_t bits);
/** Signed minimum and maximum. */
kb_value kb_min(kb *b, kb_value x, kb_value y);
kb_value kb_max(kb *b, kb_value x, kb_value y);
/** x + c and x * c with a constant of x's type. */
kb_value kb_addi(kb *b, kb_value x, int64_t c);
kb_value kb_muli(kb *b, kb_value x, int64_t c);

/* ---- floating point -------------------------------------------------------------------------- */

kb_value kb_fadd(kb *b, kb_value x, kb_value y);
kb_value kb_fsub(kb *b, kb_value x, kb_value y);
kb_value kb_fmul(kb *b, kb_value x, kb_value y);
kb_value kb_fdiv(kb *b, kb_value x, kb_value y);
kb_value kb_fneg(kb *b, kb_value x);
kb_value kb_fabs(kb *b, kb_value x);
kb_value kb_sqrt(kb *b, kb_value x);
/** x * y + z with one rounding. */
kb_value kb_fma(kb *b, kb_value x, kb_value y, kb_value z);
/** x < y ? x : y and x > y ? x : y: one instruction on x86; y where either is NaN. */
kb_value kb_fmin(kb *b, kb_value x, kb_value y);
kb_value kb_fmax(kb *b, kb_value x, kb_value y);
/** The smaller and the larger; a NaN operand is ignored. */
kb_value kb_minnum(kb *b, kb_value x, kb_value y);
kb_value kb_maxnum(kb *b, kb_value x, kb_value y);
/** To the nearest integer, ties to even. */
kb_value kb_floor(kb *b, kb_value x);
kb_value kb_copysign(kb *b, kb_value magnitude, kb_value sign);

/* ---- comparison and selection ---------------------------------------------------------------- */

typedef enum kb_cmp { KB_EQ, KB_NE, KB_LT, KB_LE, KB_GT, KB_GE } kb_cmp;

/** Signed integer comparison. */
kb_value kb_icmp(kb *b, kb_cmp op, kb_value x, kb_value y);
/** Ordered comparison (false where either is NaN), except KB_NE, which is true there. */
kb_value kb_fcmp(kb *b, kb_cmp op, kb_value x, kb_value y);
kb_value kb_select(kb *b, kb_value cond, kb_value x, kb_value y);

/* ---- conversion ------------------------------------------------------------------------------ */

/** Reinterprets bits; element and lane count may change, the size may not. */
kb_value kb_bitcast(kb *b, kb_value x, kb_elem elem, uint32_t lanes);
/** Signed or unsigned integer resize, lane by lane. */
kb_value kb_sext(kb *b, kb_value x, kb_elem elem);
kb_value kb_zext(kb *b, kb_value x, kb_elem elem);
kb_value kb_trunc(kb *b, kb_value x, kb_elem elem);
/** Signed integer to f32, and f32 to i32 towards zero (undefined outside the range of i32). */
kb_value kb_sitofp(kb *b, kb_value x);
kb_value kb_fptosi(kb *b, kb_value x);
/** f32 to f64 and back, lane by lane, rounding to nearest. */
kb_value kb_f64_of(kb *b, kb_value x);
kb_value kb_f32_of(kb *b, kb_value x);
/** Any of f32, f16, bf16 (as KB_F16, or bf16 bits as KB_I16) to f32. */
kb_value kb_to_f32(kb *b, kb_value x);
/** f32 to bf16 bits (KB_I16), round to nearest even; NaN stays NaN (quiet). */
kb_value kb_f32_to_bf16_bits(kb *b, kb_value x);

/* ---- lanes ----------------------------------------------------------------------------------- */

kb_value kb_splat(kb *b, kb_value scalar, uint32_t lanes);
kb_value kb_extract(kb *b, kb_value v, uint32_t lane);
kb_value kb_insert(kb *b, kb_value v, kb_value scalar, uint32_t lane);
/** Lane i of the result is lane mask[i] of the concatenation x, y; -1 leaves it undefined. */
kb_value kb_shuffle(kb *b, kb_value x, kb_value y, const int32_t *mask, uint32_t lanes);
/** Sum and maximum over lanes by halving: (0+h), then quarters, ... - always in this order. */
kb_value kb_reduce_fadd(kb *b, kb_value v);
kb_value kb_reduce_fmax(kb *b, kb_value v);
/** <0, 1, ... lanes-1> of |elem|. */
kb_value kb_iota(kb *b, kb_elem elem, uint32_t lanes);

/* ---- memory ---------------------------------------------------------------------------------- */

uint32_t kb_elem_bytes(kb_elem elem);
/** base + bytes, and base + index * size of |elem| (index i64). */
kb_value kb_offset(kb *b, kb_value base, kb_value bytes);
kb_value kb_offset_c(kb *b, kb_value base, int64_t bytes);
kb_value kb_index(kb *b, kb_value base, kb_elem elem, kb_value index);

kb_value kb_load(kb *b, kb_elem elem, uint32_t lanes, kb_value ptr, uint32_t align);
void kb_store(kb *b, kb_value v, kb_value ptr, uint32_t align);
/** Adds |v| (an i32) to the i32 at |ptr|, 4-byte aligned, and gives what was there: what other
 * threads stored before they did the same is seen after it. */
kb_value kb_atomic_add(kb *b, kb_value ptr, kb_value v);
/** Loads f32, f16 or bf16 as f32. */
kb_value kb_load_f32(kb *b, kb_elem elem, uint32_t lanes, kb_value ptr, uint32_t align);
/** Stores f32 as f32, f16 or bf16, rounding to nearest even. */
void kb_store_f32(kb *b, kb_elem elem, kb_value v, kb_value ptr, uint32_t align);
/** Gathers base[index[i]] (index i32 or i64 lanes, in elements). */
kb_value kb_gather(kb *b, kb_elem elem, kb_value base, kb_value index);
/** Prefetch for reading into all cache levels. */
void kb_prefetch(kb *b, kb_value ptr);
/** Uninitialised stack space in the entry block. */
kb_value kb_stack(kb *b, uint32_t bytes, uint32_t align);

/* ---- control --------------------------------------------------------------------------------- */

/** A counted loop `for (iv = lo; iv < hi; iv += step)` that carries values. Between begin and end,
 *  carried[] holds this iteration's values; after kb_loop_end, the final ones. */
typedef struct kb_loop {
    kb_value iv;
    kb_value carried[KB_MAX_CARRIED];
    uint32_t n;
    int64_t step;
    struct LLVMOpaqueBasicBlock *header;
    struct LLVMOpaqueBasicBlock *body;
    struct LLVMOpaqueBasicBlock *exit;
} kb_loop;

/** |step| > 0; bounds are i64. |init|: the |n| carried values before the first iteration. */
void kb_loop_begin(kb *b, kb_loop *loop, kb_value lo, kb_value hi, int64_t step, uint32_t n,
                   const kb_value *init);
/** |next|: the |n| carried values for the next iteration. */
void kb_loop_end(kb *b, kb_loop *loop, const kb_value *next);

/** What is emitted between begin and end happens only under a condition. Yields nothing. */
typedef struct kb_if {
    struct LLVMOpaqueBasicBlock *end;
} kb_if;

void kb_if_begin(kb *b, kb_if *branch, kb_value cond);
void kb_if_end(kb *b, kb_if *branch);

/** A switch over 1..n: kb_switch_case(i) starts the case for value i (in any order, each at most
 * once), and values without a case are undefined. Yields nothing. */
typedef struct kb_switch {
    struct LLVMOpaqueBasicBlock *end;
    kb_value inst;
    bool open;
} kb_switch;

void kb_switch_begin(kb *b, kb_switch *sw, kb_value v, uint32_t n_cases);
void kb_switch_case(kb *b, kb_switch *sw, int64_t v);
void kb_switch_end(kb *b, kb_switch *sw);

#endif
