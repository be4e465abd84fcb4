/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_loader - brings freshly emitted kernels into this process: for tests, benches and tuning.
 *
 * The object is written to a private temporary directory, linked with `cc -shared` and opened. It
 * is the very object that would go into an executable; nothing is jitted. Not used when compiling a
 * model.
 */
#ifndef KF_CODEGEN_CPU_KERNEL_LOADER_H
#define KF_CODEGEN_CPU_KERNEL_LOADER_H

#include "base/str.h"
#include "runtime/kf_artifact.h"

typedef struct kf_kernel_library kf_kernel_library;

/** Links and opens |object|. NULL with a reason in |out_error| (in |arena|). */
kf_kernel_library *kf_kernel_library_open(kf_arena *arena, kf_str object, kf_str *out_error);
/** Unmaps the code; functions found in it are gone. NULL is allowed. */
void kf_kernel_library_close(kf_kernel_library *lib);

/** The tile function |name|, or NULL. */
kf_kernel_fn kf_kernel_library_find(const kf_kernel_library *lib, const char *name);

#endif
