/* SPDX-License-Identifier: Apache-2.0 */
/* kernel - one kernel of the Plan becomes one function of an LLVM module. */
#ifndef KF_CODEGEN_KERNEL_H
#define KF_CODEGEN_KERNEL_H

#include "codegen/llvm_backend.h"
#include "ir/plan.h"

/** Adds the tile function |k|->name to the backend's module:
 *
 *      void NAME(const kf_kernel_args *args, uint32_t tile, void *scratch)
 *
 *  args->ptr: body arguments, then results; args->dim[j]: value of module symbol j. A result of
 * kvcache type aliases its operand and is not read. |plan| says how many layers share a cache's
 * pages; NULL: the number in the body's kvcache type. False with a sentence in |why| if the body is
 * not one kernel of its family or its config cannot be emitted. */
bool kf_kernel_emit(kf_llvm *backend, kf_arena *arena, const kf_target *target, const kf_plan *plan,
                    const kf_kernel *k, kf_sbuf *why);

struct kf_family_impl;
const struct kf_family_impl *kf_family_find_impl(kf_family family);

#endif
