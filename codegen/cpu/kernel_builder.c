/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/cpu/kernel_builder.h"

#include "base/check.h"

#include <llvm-c/Core.h>
#include <llvm-c/DebugInfo.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPERANDS 64

struct kb {
    kf_llvm *ll;
    LLVMContextRef cx;
    LLVMModuleRef module;
    LLVMBuilderRef ir;
    LLVMBuilderRef
        entry; /* positioned before the entry block's branch: operand loads and stack space */
    LLVMValueRef fn;
    LLVMValueRef ptrs[MAX_OPERANDS];
    LLVMValueRef dims[MAX_OPERANDS];
    LLVMValueRef tile;
    LLVMValueRef ptr_base;
    LLVMValueRef dim_base;
};

static LLVMTypeRef elem_type(kb *b, kb_elem elem)
{
    switch (elem) {
    case KB_I1:
        return LLVMInt1TypeInContext(b->cx);
    case KB_I8:
        return LLVMInt8TypeInContext(b->cx);
    case KB_I16:
        return LLVMInt16TypeInContext(b->cx);
    case KB_I32:
        return LLVMInt32TypeInContext(b->cx);
    case KB_I64:
        return LLVMInt64TypeInContext(b->cx);
    case KB_F16:
        return LLVMHalfTypeInContext(b->cx);
    case KB_BF16:
        return LLVMInt16TypeInContext(b->cx);
    case KB_F32:
        return LLVMFloatTypeInContext(b->cx);
    case KB_F64:
        return LLVMDoubleTypeInContext(b->cx);
    }
    KF_ASSERT(false, "element type out of range");
}

static LLVMTypeRef vec_type(kb *b, kb_elem elem, uint32_t lanes)
{
    LLVMTypeRef t = elem_type(b, elem);
    return lanes == 1 ? t : LLVMVectorType(t, lanes);
}

static LLVMTypeRef ptr_type(kb *b)
{
    return LLVMPointerTypeInContext(b->cx, 0);
}

uint32_t kb_elem_bytes(kb_elem elem)
{
    static const uint8_t bytes[] = {[KB_I1] = 1,   [KB_I8] = 1,  [KB_I16] = 2,
                                    [KB_I32] = 4,  [KB_I64] = 8, [KB_F16] = 2,
                                    [KB_BF16] = 2, [KB_F32] = 4, [KB_F64] = 8};
    return bytes[elem];
}

/* ---- functions ------------------------------------------------------------------------------- */

kb *kb_create(kf_arena *arena, kf_llvm *ll)
{
    kb *b = KF_NEW(arena, kb);
    b->ll = ll;
    b->cx = kf_llvm_context(ll);
    b->module = kf_llvm_module(ll);
    b->ir = LLVMCreateBuilderInContext(b->cx);
    b->entry = LLVMCreateBuilderInContext(b->cx);
    return b;
}

void kb_destroy(kb *b)
{
    if (!b)
        return;
    LLVMDisposeBuilder(b->ir);
    LLVMDisposeBuilder(b->entry);
}

uint32_t kb_lanes(const kb *b)
{
    return kf_llvm_get_options(b->ll)->arch.lanes;
}

uint32_t kb_regs(const kb *b)
{
    return kf_llvm_get_options(b->ll)->arch.regs;
}

static void string_attr(kb *b, const char *key, const char *value)
{
    LLVMAttributeRef a = LLVMCreateStringAttribute(b->cx, key, (unsigned)strlen(key), value,
                                                   (unsigned)strlen(value));
    LLVMAddAttributeAtIndex(b->fn, LLVMAttributeFunctionIndex, a);
}

static LLVMAttributeRef enum_attr(kb *b, const char *name, uint64_t value)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    KF_ASSERT(kind != 0, "LLVM does not know this attribute");
    return LLVMCreateEnumAttribute(b->cx, kind, value);
}

static void set_attributes(kb *b)
{
    string_attr(b, "target-cpu", kf_llvm_cpu(b->ll));
    string_attr(b, "target-features", kf_llvm_features(b->ll));
    if (kb_lanes(b) == 16) { /* LLVM halves 512-bit vectors on most cores unless told otherwise */
        string_attr(b, "prefer-vector-width", "512");
        string_attr(b, "min-legal-vector-width", "512");
    }
    LLVMAddAttributeAtIndex(b->fn, LLVMAttributeFunctionIndex, enum_attr(b, "nounwind", 0));
    if (kf_llvm_get_options(b->ll)->sanitize)
        LLVMAddAttributeAtIndex(b->fn, LLVMAttributeFunctionIndex,
                                enum_attr(b, "sanitize_address", 0));
    LLVMAddAttributeAtIndex(b->fn, 1, enum_attr(b, "readonly", 0));
    LLVMAddAttributeAtIndex(b->fn, 1, enum_attr(b, "noalias", 0));
    LLVMAddAttributeAtIndex(b->fn, 3, enum_attr(b, "noalias", 0));
    LLVMAddAttributeAtIndex(b->fn, 3, enum_attr(b, "align", 64));
}

static LLVMValueRef entry_load(kb *b, LLVMTypeRef type, LLVMValueRef base, uint32_t i,
                               const char *name)
{
    LLVMValueRef at[] = {LLVMConstInt(elem_type(b, KB_I64), i, 0)};
    LLVMValueRef p = LLVMBuildInBoundsGEP2(b->entry, type, base, at, 1, "");
    LLVMValueRef v = LLVMBuildLoad2(b->entry, type, p, name);
    LLVMSetAlignment(v, 8);
    return v;
}

void kb_begin_kernel(kb *b, const char *name)
{
    LLVMTypeRef params[] = {ptr_type(b), elem_type(b, KB_I32), ptr_type(b)};
    LLVMTypeRef type = LLVMFunctionType(LLVMVoidTypeInContext(b->cx), params, 3, 0);
    b->fn = LLVMAddFunction(b->module, name, type);
    set_attributes(b);
    memset(b->ptrs, 0, sizeof b->ptrs);
    memset(b->dims, 0, sizeof b->dims);
    LLVMBasicBlockRef entry = LLVMAppendBasicBlockInContext(b->cx, b->fn, "entry");
    LLVMBasicBlockRef body = LLVMAppendBasicBlockInContext(b->cx, b->fn, "body");
    LLVMPositionBuilderAtEnd(b->entry, entry);
    LLVMPositionBuilderBefore(b->entry, LLVMBuildBr(b->entry, body));
    LLVMPositionBuilderAtEnd(b->ir, body);
    LLVMValueRef args = LLVMGetParam(b->fn, 0);
    b->ptr_base = entry_load(b, ptr_type(b), args, 0, "ptrs");
    b->dim_base = entry_load(b, ptr_type(b), args, 1, "dims");
    b->tile = LLVMBuildZExt(b->entry, LLVMGetParam(b->fn, 1), elem_type(b, KB_I64), "tile");
}

void kb_end_kernel(kb *b)
{
    LLVMBuildRetVoid(b->ir);
    b->fn = NULL;
}

kb_value kb_ptr(kb *b, uint32_t i)
{
    KF_ASSERT(i < MAX_OPERANDS, "too many operands for one kernel");
    if (!b->ptrs[i])
        b->ptrs[i] = entry_load(b, ptr_type(b), b->ptr_base, i, "p");
    return b->ptrs[i];
}

kb_value kb_dim(kb *b, uint32_t j)
{
    KF_ASSERT(j < MAX_OPERANDS, "too many dimensions for one kernel");
    if (!b->dims[j])
        b->dims[j] = entry_load(b, elem_type(b, KB_I64), b->dim_base, j, "d");
    return b->dims[j];
}

kb_value kb_tile(kb *b)
{
    return b->tile;
}

kb_value kb_scratch(kb *b)
{
    return LLVMGetParam(b->fn, 2);
}

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
    LLVMTypeRef t = elem_type(b, KB_F32);
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
    LLVMTypeRef t = elem_type(b, KB_I32);
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
    return splat_const(LLVMConstInt(elem_type(b, elem), (uint64_t)v, 1), lanes);
}

kb_value kb_i64(kb *b, int64_t v)
{
    return kb_int(b, KB_I64, 1, v);
}

kb_value kb_float(kb *b, kb_elem elem, uint32_t lanes, double v)
{
    return splat_const(LLVMConstReal(elem_type(b, elem), v), lanes);
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

static kb_value const_like(kb_value x, int64_t c)
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
        return LLVMBuild##build(b->ir, x, const_like(x, bits), "");                                \
    }
SHIFT(shl, Shl)
SHIFT(lshr, LShr)
SHIFT(ashr, AShr)
#undef SHIFT

kb_value kb_addi(kb *b, kb_value x, int64_t c)
{
    return c ? kb_add(b, x, const_like(x, c)) : x;
}

kb_value kb_muli(kb *b, kb_value x, int64_t c)
{
    return c == 1 ? x : kb_mul(b, x, const_like(x, c));
}

/* Calls an intrinsic overloaded on the types of |over|. */
static kb_value intrinsic(kb *b, const char *name, LLVMTypeRef *over, unsigned n_over,
                          kb_value *args, unsigned n_args)
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
    return intrinsic(b, name, &t, 1, &x, 1);
}

static kb_value binary_intrinsic(kb *b, const char *name, kb_value x, kb_value y)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    LLVMValueRef args[] = {x, y};
    return intrinsic(b, name, &t, 1, args, 2);
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
    return intrinsic(b, "llvm.fma", &t, 1, args, 3);
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
    return LLVMBuildBitCast(b->ir, x, vec_type(b, elem, lanes), "");
}

kb_value kb_sext(kb *b, kb_value x, kb_elem elem)
{
    return LLVMBuildSExt(b->ir, x, vec_type(b, elem, kb_lanes_of(x)), "");
}

kb_value kb_zext(kb *b, kb_value x, kb_elem elem)
{
    return LLVMBuildZExt(b->ir, x, vec_type(b, elem, kb_lanes_of(x)), "");
}

kb_value kb_trunc(kb *b, kb_value x, kb_elem elem)
{
    return LLVMBuildTrunc(b->ir, x, vec_type(b, elem, kb_lanes_of(x)), "");
}

kb_value kb_sitofp(kb *b, kb_value x)
{
    return LLVMBuildSIToFP(b->ir, x, vec_type(b, KB_F32, kb_lanes_of(x)), "");
}

kb_value kb_fptosi(kb *b, kb_value x)
{
    return LLVMBuildFPToSI(b->ir, x, vec_type(b, KB_I32, kb_lanes_of(x)), "");
}

kb_value kb_f64_of(kb *b, kb_value x)
{
    return LLVMBuildFPExt(b->ir, x, vec_type(b, KB_F64, kb_lanes_of(x)), "");
}

kb_value kb_f32_of(kb *b, kb_value x)
{
    return LLVMBuildFPTrunc(b->ir, x, vec_type(b, KB_F32, kb_lanes_of(x)), "");
}

kb_value kb_to_f32(kb *b, kb_value x)
{
    const uint32_t lanes = kb_lanes_of(x);
    if (LLVMGetTypeKind(scalar_type_of(x)) == LLVMFloatTypeKind)
        return x;
    if (!is_int(x))
        return LLVMBuildFPExt(b->ir, x, vec_type(b, KB_F32, lanes), "");
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
    return LLVMConstInt(elem_type(b, KB_I32), lane, 0);
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
    LLVMTypeRef i32 = elem_type(b, KB_I32);
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
        c[i] = LLVMConstInt(elem_type(b, elem), i, 0);
    return lanes == 1 ? c[0] : LLVMConstVector(c, lanes);
}

/* ---- memory ---------------------------------------------------------------------------------- */

kb_value kb_offset(kb *b, kb_value base, kb_value bytes)
{
    return LLVMBuildInBoundsGEP2(b->ir, elem_type(b, KB_I8), base, &bytes, 1, "");
}

kb_value kb_offset_c(kb *b, kb_value base, int64_t bytes)
{
    return bytes ? kb_offset(b, base, kb_i64(b, bytes)) : base;
}

kb_value kb_index(kb *b, kb_value base, kb_elem elem, kb_value index)
{
    return LLVMBuildInBoundsGEP2(b->ir, elem_type(b, elem), base, &index, 1, "");
}

kb_value kb_load(kb *b, kb_elem elem, uint32_t lanes, kb_value ptr, uint32_t align)
{
    LLVMValueRef v = LLVMBuildLoad2(b->ir, vec_type(b, elem, lanes), ptr, "");
    LLVMSetAlignment(v, align);
    return v;
}

void kb_store(kb *b, kb_value v, kb_value ptr, uint32_t align)
{
    LLVMSetAlignment(LLVMBuildStore(b->ir, v, ptr), align);
}

kb_value kb_atomic_add(kb *b, kb_value ptr, kb_value v)
{
    return LLVMBuildAtomicRMW(b->ir, LLVMAtomicRMWBinOpAdd, ptr, v,
                              LLVMAtomicOrderingAcquireRelease, false);
}

kb_value kb_load_f32(kb *b, kb_elem elem, uint32_t lanes, kb_value ptr, uint32_t align)
{
    KF_ASSERT(elem == KB_F32 || elem == KB_F16 || elem == KB_BF16,
              "not a floating point storage type");
    return kb_to_f32(b, kb_load(b, elem, lanes, ptr, align));
}

void kb_store_f32(kb *b, kb_elem elem, kb_value v, kb_value ptr, uint32_t align)
{
    KF_ASSERT(elem == KB_F32 || elem == KB_F16 || elem == KB_BF16,
              "not a floating point storage type");
    if (elem == KB_BF16)
        v = kb_f32_to_bf16_bits(b, v);
    else if (elem == KB_F16)
        v = LLVMBuildFPTrunc(b->ir, v, vec_type(b, KB_F16, kb_lanes_of(v)), "");
    kb_store(b, v, ptr, align);
}

kb_value kb_gather(kb *b, kb_elem elem, kb_value base, kb_value index)
{
    const uint32_t lanes = kb_lanes_of(index);
    kb_value ptrs = kb_index(b, base, elem, index);
    if (lanes == 1)
        return kb_load(b, elem, 1, ptrs, kb_elem_bytes(elem));
    LLVMTypeRef over[] = {vec_type(b, elem, lanes), LLVMTypeOf(ptrs)};
    LLVMValueRef args[] = {ptrs, LLVMConstAllOnes(vec_type(b, KB_I1, lanes)),
                           LLVMGetPoison(over[0])};
    kb_value v = intrinsic(b, "llvm.masked.gather", over, 2, args, 3);
    LLVMAddCallSiteAttribute(v, 1, enum_attr(b, "align", kb_elem_bytes(elem)));
    return v;
}

void kb_prefetch(kb *b, kb_value ptr)
{
    LLVMTypeRef over[] = {ptr_type(b)};
    LLVMValueRef args[] = {ptr, kb_int(b, KB_I32, 1, 0), kb_int(b, KB_I32, 1, 3),
                           kb_int(b, KB_I32, 1, 1)};
    intrinsic(b, "llvm.prefetch", over, 1, args, 4);
}

kb_value kb_stack(kb *b, uint32_t bytes, uint32_t align)
{
    LLVMValueRef v = LLVMBuildAlloca(b->entry, LLVMArrayType2(elem_type(b, KB_I8), bytes), "stack");
    LLVMSetAlignment(v, align);
    return v;
}

/* ---- control --------------------------------------------------------------------------------- */

static LLVMBasicBlockRef new_block(kb *b, const char *name)
{
    return LLVMAppendBasicBlockInContext(b->cx, b->fn, name);
}

/* Marks the loop behind |branch| as unrolled enough: a distinct self-referencing node, as LLVM
 * wants it. */
static void forbid_unrolling(kb *b, LLVMValueRef branch)
{
    static const char text[] = "llvm.loop.unroll.disable";
    LLVMMetadataRef name = LLVMMDStringInContext2(b->cx, text, sizeof text - 1);
    LLVMMetadataRef disable = LLVMMDNodeInContext2(b->cx, &name, 1);
    LLVMMetadataRef self = LLVMTemporaryMDNode(b->cx, NULL, 0);
    LLVMMetadataRef ops[] = {self, disable};
    LLVMMetadataRef node = LLVMMDNodeInContext2(b->cx, ops, 2);
    LLVMMetadataReplaceAllUsesWith(self, node);
    LLVMSetMetadata(branch, LLVMGetMDKindIDInContext(b->cx, "llvm.loop", 9),
                    LLVMMetadataAsValue(b->cx, node));
}

void kb_loop_begin(kb *b, kb_loop *loop, kb_value lo, kb_value hi, int64_t step, uint32_t n,
                   const kb_value *init)
{
    KF_ASSERT(n <= KB_MAX_CARRIED && step > 0, "loop carries too much or does not advance");
    LLVMBasicBlockRef before = LLVMGetInsertBlock(b->ir);
    loop->n = n;
    loop->step = step;
    loop->header = new_block(b, "loop");
    loop->body = new_block(b, "loop.body");
    loop->exit = new_block(b, "loop.end");
    LLVMBuildBr(b->ir, loop->header);
    LLVMPositionBuilderAtEnd(b->ir, loop->header);
    loop->iv = LLVMBuildPhi(b->ir, LLVMTypeOf(lo), "iv");
    LLVMAddIncoming(loop->iv, &lo, &before, 1);
    for (uint32_t i = 0; i < n; i++) {
        loop->carried[i] = LLVMBuildPhi(b->ir, LLVMTypeOf(init[i]), "");
        LLVMValueRef v = init[i];
        LLVMAddIncoming(loop->carried[i], &v, &before, 1);
    }
    LLVMValueRef more = LLVMBuildICmp(b->ir, LLVMIntSLT, loop->iv, hi, "");
    LLVMBuildCondBr(b->ir, more, loop->body, loop->exit);
    LLVMPositionBuilderAtEnd(b->ir, loop->body);
}

void kb_loop_end(kb *b, kb_loop *loop, const kb_value *next)
{
    LLVMBasicBlockRef latch = LLVMGetInsertBlock(b->ir);
    LLVMValueRef iv = LLVMBuildNSWAdd(b->ir, loop->iv, const_like(loop->iv, loop->step), "");
    LLVMAddIncoming(loop->iv, &iv, &latch, 1);
    for (uint32_t i = 0; i < loop->n; i++) {
        LLVMValueRef v = next[i];
        LLVMAddIncoming(loop->carried[i], &v, &latch, 1);
    }
    forbid_unrolling(b, LLVMBuildBr(b->ir, loop->header));
    LLVMMoveBasicBlockAfter(loop->exit, latch);
    LLVMPositionBuilderAtEnd(b->ir, loop->exit);
}

void kb_if_begin(kb *b, kb_if *branch, kb_value cond)
{
    LLVMBasicBlockRef then = new_block(b, "then");
    branch->end = new_block(b, "endif");
    LLVMBuildCondBr(b->ir, cond, then, branch->end);
    LLVMPositionBuilderAtEnd(b->ir, then);
}

void kb_if_end(kb *b, kb_if *branch)
{
    LLVMBasicBlockRef last = LLVMGetInsertBlock(b->ir);
    LLVMBuildBr(b->ir, branch->end);
    LLVMMoveBasicBlockAfter(branch->end, last);
    LLVMPositionBuilderAtEnd(b->ir, branch->end);
}

void kb_switch_begin(kb *b, kb_switch *sw, kb_value v, uint32_t n_cases)
{
    LLVMBasicBlockRef none = new_block(b, "switch.none");
    *sw = (kb_switch){.end = new_block(b, "switch.end")};
    sw->inst = LLVMBuildSwitch(b->ir, v, none, n_cases);
    LLVMPositionBuilderAtEnd(b->ir, none);
    LLVMBuildUnreachable(b->ir);
}

void kb_switch_case(kb *b, kb_switch *sw, int64_t v)
{
    if (sw->open)
        LLVMBuildBr(b->ir, sw->end);
    LLVMBasicBlockRef block = new_block(b, "case");
    LLVMAddCase(sw->inst, LLVMConstInt(LLVMTypeOf(LLVMGetOperand(sw->inst, 0)), (uint64_t)v, 1),
                block);
    LLVMPositionBuilderAtEnd(b->ir, block);
    sw->open = true;
}

void kb_switch_end(kb *b, kb_switch *sw)
{
    KF_ASSERT(sw->open, "a switch needs a case");
    LLVMBuildBr(b->ir, sw->end);
    LLVMMoveBasicBlockAfter(sw->end, LLVMGetInsertBlock(b->ir));
    LLVMPositionBuilderAtEnd(b->ir, sw->end);
}
