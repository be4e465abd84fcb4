/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_builder_impl - what the files of the kernel builder share; not for others. */
#ifndef KF_CODEGEN_CPU_KERNEL_BUILDER_IMPL_H
#define KF_CODEGEN_CPU_KERNEL_BUILDER_IMPL_H

#include "codegen/cpu/kernel_builder.h"

#include <llvm-c/Core.h>

#define KB_MAX_OPERANDS 64

struct kb {
    kf_llvm *ll;
    LLVMContextRef cx;
    LLVMModuleRef module;
    LLVMBuilderRef ir;
    LLVMBuilderRef
        entry; /* positioned before the entry block's branch: operand loads and stack space */
    LLVMValueRef fn;
    LLVMValueRef ptrs[KB_MAX_OPERANDS];
    LLVMValueRef dims[KB_MAX_OPERANDS];
    LLVMValueRef tile;
    LLVMValueRef ptr_base;
    LLVMValueRef dim_base;
};

LLVMTypeRef kb_elem_type(kb *b, kb_elem elem);
LLVMTypeRef kb_vec_type(kb *b, kb_elem elem, uint32_t lanes);
/** |c| in all lanes of the type of |x|. */
kb_value kb_const_like(kb_value x, int64_t c);
/** A call of intrinsic |name| for the types |over|. */
kb_value kb_intrinsic(kb *b, const char *name, LLVMTypeRef *over, unsigned n_over, kb_value *args,
                      unsigned n_args);

#endif
