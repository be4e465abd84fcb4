/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_values - see kernel_builder.h. Constants, arithmetic, conversions and lanes. */
#include "base/check.h"
#include "codegen/cpu/kernel_builder_impl.h"

#include <stdlib.h>
#include <string.h>

/* ---- constants and shapes -------------------------------------------------------------------- */

uint32_t kb_lanes_of(kb_value v)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetVectorSize(t) : 1;
}

static LLVMTypeRef scalar_type_of(kb_value v)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t;
}

bool kb_is_pred(kb_value v)
{
    LLVMTypeRef t = scalar_type_of(v);
    return LLVMGetTypeKind(t) == LLVMIntegerTypeKind && LLVMGetIntTypeWidth(t) == 1;
}

static kb_value table(kb *b, LLVMValueRef init)
{
    LLVMValueRef g = LLVMAddGlobal(b->module, LLVMTypeOf(init), "table");
    LLVMSetInitializer(g, init);
    LLVMSetLinkage(g, LLVMPrivateLinkage);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetAlignment(g, 64);
    return g;
}

kb_value kb_table_f32(kb *b, const float *v, uint32_t n)
{
    LLVMTypeRef t = kb_elem_type(b, KB_F32);
    LLVMValueRef *cells = malloc(n * sizeof *cells);
    KF_ASSERT(cells, "a table of constants fits memory");
    for (uint32_t i = 0; i < n; i++)
        cells[i] = LLVMConstReal(t, (double)v[i]);
    LLVMValueRef init = LLVMConstArray2(t, cells, n);
    free(cells);
    return table(b, init);
}

kb_value kb_table_i32(kb *b, const int32_t *v, uint32_t n)
{
    LLVMTypeRef t = kb_elem_type(b, KB_I32);
    LLVMValueRef *cells = malloc(n * sizeof *cells);
    KF_ASSERT(cells, "a table of constants fits memory");
    for (uint32_t i = 0; i < n; i++)
        cells[i] = LLVMConstInt(t, (uint64_t)(int64_t)v[i], 1);
    LLVMValueRef init = LLVMConstArray2(t, cells, n);
    free(cells);
    return table(b, init);
}

static bool is_int(kb_value v)
{
    return LLVMGetTypeKind(scalar_type_of(v)) == LLVMIntegerTypeKind;
}

static kb_value splat_const(LLVMValueRef c, uint32_t lanes)
{
    if (lanes == 1)
        return c;
    LLVMValueRef all[64];
    KF_ASSERT(lanes <= 64, "more than 64 lanes");
    for (uint32_t i = 0; i < lanes; i++)
        all[i] = c;
    return LLVMConstVector(all, lanes);
}

kb_value kb_int(kb *b, kb_elem elem, uint32_t lanes, int64_t v)
{
    return splat_const(LLVMConstInt(kb_elem_type(b, elem), (uint64_t)v, 1), lanes);
}

kb_value kb_i64(kb *b, int64_t v)
{
    return kb_int(b, KB_I64, 1, v);
}

kb_value kb_float(kb *b, kb_elem elem, uint32_t lanes, double v)
{
    return splat_const(LLVMConstReal(kb_elem_type(b, elem), v), lanes);
}

kb_value kb_f32(kb *b, uint32_t lanes, float v)
{
    return kb_float(b, KB_F32, lanes, v);
}

bool kb_is_const(kb_value v, int64_t *out_v)
{
    if (!LLVMIsAConstantInt(v))
        return false;
    *out_v = LLVMConstIntGetSExtValue(v);
    return true;
}

kb_value kb_const_like(kb_value x, int64_t c)
{
    return splat_const(LLVMConstInt(scalar_type_of(x), (uint64_t)c, 1), kb_lanes_of(x));
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

#define BINARY(verb, build)                                                                        \
    kb_value kb_##verb(kb *b, kb_value x, kb_value y)                                              \
    {                                                                                              \
        return LLVMBuild##build(b->ir, x, y, "");                                                  \
    }
BINARY(add, Add)
BINARY(sub, Sub)
BINARY(mul, Mul)
BINARY(udiv, UDiv)
BINARY(urem, URem)
BINARY(and, And)
BINARY(or, Or)
BINARY(xor, Xor)
BINARY(fadd, FAdd)
BINARY(fsub, FSub)
BINARY(fmul, FMul)
BINARY(fdiv, FDiv)
#undef BINARY

#define SHIFT(verb, build)                                                                         \
    kb_value kb_##verb(kb *b, kb_value x, uint32_t bits)                                           \
    {                                                                                              \
        return LLVMBuild##build(b->ir, x, kb_const_like(x, bits), "");                             \
    }
SHIFT(shl, Shl)
SHIFT(lshr, LShr)
SHIFT(ashr, AShr)
#undef SHIFT

kb_value kb_addi(kb *b, kb_value x, int64_t c)
{
    return c ? kb_add(b, x, kb_const_like(x, c)) : x;
}

kb_value kb_muli(kb *b, kb_value x, int64_t c)
{
    return c == 1 ? x : kb_mul(b, x, kb_const_like(x, c));
}

/* Calls an intrinsic overloaded on the types of |over|. */
kb_value kb_intrinsic(kb *b, const char *name, LLVMTypeRef *over, unsigned n_over, kb_value *args,
                      unsigned n_args)
{
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    KF_ASSERT(id != 0, "LLVM does not know this intrinsic");
    LLVMValueRef fn = LLVMGetIntrinsicDeclaration(b->module, id, over, n_over);
    LLVMTypeRef type = LLVMIntrinsicGetType(b->cx, id, over, n_over);
    return LLVMBuildCall2(b->ir, type, fn, args, n_args, "");
}

static kb_value unary_intrinsic(kb *b, const char *name, kb_value x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    return kb_intrinsic(b, name, &t, 1, &x, 1);
}

static kb_value binary_intrinsic(kb *b, const char *name, kb_value x, kb_value y)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    LLVMValueRef args[] = {x, y};
    return kb_intrinsic(b, name, &t, 1, args, 2);
}

kb_value kb_min(kb *b, kb_value x, kb_value y)
{
    return binary_intrinsic(b, "llvm.smin", x, y);
}

kb_value kb_max(kb *b, kb_value x, kb_value y)
{
    return binary_intrinsic(b, "llvm.smax", x, y);
}

kb_value kb_fneg(kb *b, kb_value x)
{
    return LLVMBuildFNeg(b->ir, x, "");
}

kb_value kb_fabs(kb *b, kb_value x)
{
    return unary_intrinsic(b, "llvm.fabs", x);
}

kb_value kb_sqrt(kb *b, kb_value x)
{
    return unary_intrinsic(b, "llvm.sqrt", x);
}

kb_value kb_floor(kb *b, kb_value x)
{
    return unary_intrinsic(b, "llvm.floor", x);
}

kb_value kb_copysign(kb *b, kb_value magnitude, kb_value sign)
{
    return binary_intrinsic(b, "llvm.copysign", magnitude, sign);
}

kb_value kb_fma(kb *b, kb_value x, kb_value y, kb_value z)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    LLVMValueRef args[] = {x, y, z};
    return kb_intrinsic(b, "llvm.fma", &t, 1, args, 3);
}

kb_value kb_fmin(kb *b, kb_value x, kb_value y)
{
    return kb_select(b, kb_fcmp(b, KB_LT, x, y), x, y);
}

kb_value kb_fmax(kb *b, kb_value x, kb_value y)
{
    return kb_select(b, kb_fcmp(b, KB_GT, x, y), x, y);
}

kb_value kb_minnum(kb *b, kb_value x, kb_value y)
{
    return binary_intrinsic(b, "llvm.minnum", x, y);
}

kb_value kb_maxnum(kb *b, kb_value x, kb_value y)
{
    return binary_intrinsic(b, "llvm.maxnum", x, y);
}

kb_value kb_icmp(kb *b, kb_cmp op, kb_value x, kb_value y)
{
    static const LLVMIntPredicate preds[] = {[KB_EQ] = LLVMIntEQ,  [KB_NE] = LLVMIntNE,
                                             [KB_LT] = LLVMIntSLT, [KB_LE] = LLVMIntSLE,
                                             [KB_GT] = LLVMIntSGT, [KB_GE] = LLVMIntSGE};
    return LLVMBuildICmp(b->ir, preds[op], x, y, "");
}

kb_value kb_fcmp(kb *b, kb_cmp op, kb_value x, kb_value y)
{
    static const LLVMRealPredicate preds[] = {[KB_EQ] = LLVMRealOEQ, [KB_NE] = LLVMRealUNE,
                                              [KB_LT] = LLVMRealOLT, [KB_LE] = LLVMRealOLE,
                                              [KB_GT] = LLVMRealOGT, [KB_GE] = LLVMRealOGE};
    return LLVMBuildFCmp(b->ir, preds[op], x, y, "");
}

kb_value kb_select(kb *b, kb_value cond, kb_value x, kb_value y)
{
    return LLVMBuildSelect(b->ir, cond, x, y, "");
}

/* ---- conversion ------------------------------------------------------------------------------ */

kb_value kb_bitcast(kb *b, kb_value x, kb_elem elem, uint32_t lanes)
{
    return LLVMBuildBitCast(b->ir, x, kb_vec_type(b, elem, lanes), "");
}

kb_value kb_sext(kb *b, kb_value x, kb_elem elem)
{
    return LLVMBuildSExt(b->ir, x, kb_vec_type(b, elem, kb_lanes_of(x)), "");
}

kb_value kb_zext(kb *b, kb_value x, kb_elem elem)
{
    return LLVMBuildZExt(b->ir, x, kb_vec_type(b, elem, kb_lanes_of(x)), "");
}

kb_value kb_trunc(kb *b, kb_value x, kb_elem elem)
{
    return LLVMBuildTrunc(b->ir, x, kb_vec_type(b, elem, kb_lanes_of(x)), "");
}

kb_value kb_sitofp(kb *b, kb_value x)
{
    return LLVMBuildSIToFP(b->ir, x, kb_vec_type(b, KB_F32, kb_lanes_of(x)), "");
}

kb_value kb_fptosi(kb *b, kb_value x)
{
    return LLVMBuildFPToSI(b->ir, x, kb_vec_type(b, KB_I32, kb_lanes_of(x)), "");
}

kb_value kb_f64_of(kb *b, kb_value x)
{
    return LLVMBuildFPExt(b->ir, x, kb_vec_type(b, KB_F64, kb_lanes_of(x)), "");
}

kb_value kb_f32_of(kb *b, kb_value x)
{
    return LLVMBuildFPTrunc(b->ir, x, kb_vec_type(b, KB_F32, kb_lanes_of(x)), "");
}

kb_value kb_to_f32(kb *b, kb_value x)
{
    const uint32_t lanes = kb_lanes_of(x);
    if (LLVMGetTypeKind(scalar_type_of(x)) == LLVMFloatTypeKind)
        return x;
    if (!is_int(x))
        return LLVMBuildFPExt(b->ir, x, kb_vec_type(b, KB_F32, lanes), "");
    return kb_bitcast(b, kb_shl(b, kb_zext(b, x, KB_I32), 16), KB_F32, lanes);
}

kb_value kb_f32_to_bf16_bits(kb *b, kb_value x)
{
    const uint32_t lanes = kb_lanes_of(x);
    kb_value bits = kb_bitcast(b, x, KB_I32, lanes);
    kb_value odd = kb_and(b, kb_lshr(b, bits, 16), kb_int(b, KB_I32, lanes, 1));
    kb_value rounded = kb_lshr(b, kb_add(b, kb_addi(b, bits, 0x7fff), odd), 16);
    /* rounding could carry a NaN's payload into infinity: keep its upper half and set the quiet bit
     */
    kb_value nan = kb_or(b, kb_lshr(b, bits, 16), kb_int(b, KB_I32, lanes, 0x40));
    kb_value r = kb_select(b, kb_fcmp(b, KB_NE, x, x), nan, rounded);
    return kb_trunc(b, r, KB_I16);
}

/* ---- lanes ----------------------------------------------------------------------------------- */

static LLVMValueRef lane_index(kb *b, uint32_t lane)
{
    return LLVMConstInt(kb_elem_type(b, KB_I32), lane, 0);
}

kb_value kb_extract(kb *b, kb_value v, uint32_t lane)
{
    return kb_lanes_of(v) == 1 ? v : LLVMBuildExtractElement(b->ir, v, lane_index(b, lane), "");
}

kb_value kb_insert(kb *b, kb_value v, kb_value scalar, uint32_t lane)
{
    return LLVMBuildInsertElement(b->ir, v, scalar, lane_index(b, lane), "");
}

kb_value kb_shuffle(kb *b, kb_value x, kb_value y, const int32_t *mask, uint32_t lanes)
{
    LLVMValueRef m[64];
    LLVMTypeRef i32 = kb_elem_type(b, KB_I32);
    KF_ASSERT(lanes <= 64, "more than 64 lanes");
    for (uint32_t i = 0; i < lanes; i++)
        m[i] = mask[i] < 0 ? LLVMGetUndef(i32) : LLVMConstInt(i32, (uint64_t)mask[i], 0);
    return LLVMBuildShuffleVector(b->ir, x, y, LLVMConstVector(m, lanes), "");
}

kb_value kb_splat(kb *b, kb_value scalar, uint32_t lanes)
{
    if (lanes == 1)
        return scalar;
    static const int32_t zeros[64] = {0};
    kb_value poison = LLVMGetPoison(LLVMVectorType(LLVMTypeOf(scalar), lanes));
    return kb_shuffle(b, kb_insert(b, poison, scalar, 0), poison, zeros, lanes);
}

static kb_value reduce(kb *b, kb_value v, kb_value (*op)(kb *, kb_value, kb_value))
{
    for (uint32_t lanes = kb_lanes_of(v); lanes > 1; lanes /= 2) {
        int32_t low[32], high[32];
        for (uint32_t i = 0; i < lanes / 2; i++) {
            low[i] = (int32_t)i;
            high[i] = (int32_t)(i + lanes / 2);
        }
        kb_value poison = LLVMGetPoison(LLVMTypeOf(v));
        v = op(b, kb_shuffle(b, v, poison, low, lanes / 2),
               kb_shuffle(b, v, poison, high, lanes / 2));
    }
    return kb_lanes_of(v) == 1 && LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind
               ? LLVMBuildExtractElement(b->ir, v, lane_index(b, 0), "")
               : v;
}

kb_value kb_reduce_fadd(kb *b, kb_value v)
{
    return reduce(b, v, kb_fadd);
}

kb_value kb_reduce_fmax(kb *b, kb_value v)
{
    return reduce(b, v, kb_fmax);
}

kb_value kb_iota(kb *b, kb_elem elem, uint32_t lanes)
{
    LLVMValueRef c[64];
    KF_ASSERT(lanes <= 64, "more than 64 lanes");
    for (uint32_t i = 0; i < lanes; i++)
        c[i] = LLVMConstInt(kb_elem_type(b, elem), i, 0);
    return lanes == 1 ? c[0] : LLVMConstVector(c, lanes);
}
