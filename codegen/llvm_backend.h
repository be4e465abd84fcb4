/* SPDX-License-Identifier: Apache-2.0 */
/* llvm_backend - one LLVM context, module and target machine: IR in, object file or text out.
 *
 * A backend holds the kernels of one group (one object file). The kernel builder fills its module;
 * kf_llvm_optimize and the emit functions do the rest. It knows nothing of kernels or models.
 * Same module, options and LLVM version give the same bytes.
 *
 * LLVM treats an instruction it cannot select as fatal: the installed handlers print the reason and
 * end the process with exit 70, since it is an emitter that produced it, never the user. A backend
 * is used by one thread at a time; different backends are independent.
 */
#ifndef KF_CODEGEN_LLVM_BACKEND_H
#define KF_CODEGEN_LLVM_BACKEND_H

#include "base/str.h"
#include "codegen/cpu/arch.h"

#include <stdbool.h>
#include <stddef.h>

/* LLVM's own opaque types, so that users of this header need no llvm-c. */
struct LLVMOpaqueContext;
struct LLVMOpaqueModule;

typedef struct kf_llvm_options {
    kf_cpu_arch arch;
    const char *pipeline; /* new-pass-manager text; NULL: the default */
    bool verify_each;     /* verify after every LLVM pass (checking builds) */
    bool sanitize;        /* functions carry sanitize_address and the asan pass runs last */
} kf_llvm_options;

typedef struct kf_llvm kf_llvm;

/** Creates a backend for the host's triple. |name| is the module's name. Allocates from |arena|;
 * release with kf_llvm_destroy. NULL with a reason in |out_error| when LLVM has no such target. */
kf_llvm *kf_llvm_create(kf_arena *arena, const char *name, const kf_llvm_options *options,
                        kf_str *out_error);
/** Throws the module away and begins an empty one in a context of its own, so that its bytes do not
 * depend on what came before; the target machine, which is dear to make, stays. */
void kf_llvm_restart(kf_llvm *ll, const char *name);
void kf_llvm_destroy(kf_llvm *ll);

const kf_llvm_options *kf_llvm_get_options(const kf_llvm *ll);
struct LLVMOpaqueContext *kf_llvm_context(kf_llvm *ll);
struct LLVMOpaqueModule *kf_llvm_module(kf_llvm *ll);

/** Text of target-cpu and target-features that every kernel function carries. Borrowed. */
const char *kf_llvm_cpu(const kf_llvm *ll);
const char *kf_llvm_features(const kf_llvm *ll);

/** Verifies the module (a failure is a bug of an emitter: exit 70), then runs the pipeline. */
void kf_llvm_optimize(kf_llvm *ll);

/** The module as LLVM assembly, in |arena|. */
kf_str kf_llvm_print(kf_llvm *ll, kf_arena *arena);

/** The module as native assembly, in |arena|. */
kf_str kf_llvm_emit_assembly(kf_llvm *ll, kf_arena *arena);

/** The module as a relocatable, position independent object file, in |arena|. */
kf_str kf_llvm_emit_object(kf_llvm *ll, kf_arena *arena);

/** Version of the LLVM library in use, "22.1.8"; for manifests. Static. */
const char *kf_llvm_version(void);

#endif
