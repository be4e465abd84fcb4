/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_builder - see kernel_builder.h. Functions, memory and control; values are kernel_values.c. */
#include "base/check.h"
#include "codegen/cpu/kernel_builder_impl.h"

#include <llvm-c/DebugInfo.h>
#include <stdlib.h>
#include <string.h>

LLVMTypeRef kb_elem_type(kb *b, kb_elem elem)
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

LLVMTypeRef kb_vec_type(kb *b, kb_elem elem, uint32_t lanes)
{
    LLVMTypeRef t = kb_elem_type(b, elem);
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
    LLVMValueRef at[] = {LLVMConstInt(kb_elem_type(b, KB_I64), i, 0)};
    LLVMValueRef p = LLVMBuildInBoundsGEP2(b->entry, type, base, at, 1, "");
    LLVMValueRef v = LLVMBuildLoad2(b->entry, type, p, name);
    LLVMSetAlignment(v, 8);
    return v;
}

void kb_begin_kernel(kb *b, const char *name)
{
    LLVMTypeRef params[] = {ptr_type(b), kb_elem_type(b, KB_I32), ptr_type(b)};
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
    b->tile = LLVMBuildZExt(b->entry, LLVMGetParam(b->fn, 1), kb_elem_type(b, KB_I64), "tile");
}

void kb_end_kernel(kb *b)
{
    LLVMBuildRetVoid(b->ir);
    b->fn = NULL;
}

kb_value kb_ptr(kb *b, uint32_t i)
{
    KF_ASSERT(i < KB_MAX_OPERANDS, "too many operands for one kernel");
    if (!b->ptrs[i])
        b->ptrs[i] = entry_load(b, ptr_type(b), b->ptr_base, i, "p");
    return b->ptrs[i];
}

kb_value kb_dim(kb *b, uint32_t j)
{
    KF_ASSERT(j < KB_MAX_OPERANDS, "too many dimensions for one kernel");
    if (!b->dims[j])
        b->dims[j] = entry_load(b, kb_elem_type(b, KB_I64), b->dim_base, j, "d");
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

/* ---- memory ---------------------------------------------------------------------------------- */

kb_value kb_offset(kb *b, kb_value base, kb_value bytes)
{
    return LLVMBuildInBoundsGEP2(b->ir, kb_elem_type(b, KB_I8), base, &bytes, 1, "");
}

kb_value kb_offset_c(kb *b, kb_value base, int64_t bytes)
{
    return bytes ? kb_offset(b, base, kb_i64(b, bytes)) : base;
}

kb_value kb_index(kb *b, kb_value base, kb_elem elem, kb_value index)
{
    return LLVMBuildInBoundsGEP2(b->ir, kb_elem_type(b, elem), base, &index, 1, "");
}

kb_value kb_load(kb *b, kb_elem elem, uint32_t lanes, kb_value ptr, uint32_t align)
{
    LLVMValueRef v = LLVMBuildLoad2(b->ir, kb_vec_type(b, elem, lanes), ptr, "");
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
        v = LLVMBuildFPTrunc(b->ir, v, kb_vec_type(b, KB_F16, kb_lanes_of(v)), "");
    kb_store(b, v, ptr, align);
}

kb_value kb_gather(kb *b, kb_elem elem, kb_value base, kb_value index)
{
    const uint32_t lanes = kb_lanes_of(index);
    kb_value ptrs = kb_index(b, base, elem, index);
    if (lanes == 1)
        return kb_load(b, elem, 1, ptrs, kb_elem_bytes(elem));
    LLVMTypeRef over[] = {kb_vec_type(b, elem, lanes), LLVMTypeOf(ptrs)};
    LLVMValueRef args[] = {ptrs, LLVMConstAllOnes(kb_vec_type(b, KB_I1, lanes)),
                           LLVMGetPoison(over[0])};
    kb_value v = kb_intrinsic(b, "llvm.masked.gather", over, 2, args, 3);
    LLVMAddCallSiteAttribute(v, 1, enum_attr(b, "align", kb_elem_bytes(elem)));
    return v;
}

void kb_prefetch(kb *b, kb_value ptr)
{
    LLVMTypeRef over[] = {ptr_type(b)};
    LLVMValueRef args[] = {ptr, kb_int(b, KB_I32, 1, 0), kb_int(b, KB_I32, 1, 3),
                           kb_int(b, KB_I32, 1, 1)};
    kb_intrinsic(b, "llvm.prefetch", over, 1, args, 4);
}

kb_value kb_stack(kb *b, uint32_t bytes, uint32_t align)
{
    LLVMValueRef v =
        LLVMBuildAlloca(b->entry, LLVMArrayType2(kb_elem_type(b, KB_I8), bytes), "stack");
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
    LLVMValueRef iv = LLVMBuildNSWAdd(b->ir, loop->iv, kb_const_like(loop->iv, loop->step), "");
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
