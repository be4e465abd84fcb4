/* SPDX-License-Identifier: Apache-2.0 */
/* kernels - the kernels of a plan as object files, made by children that run LLVM, and cached by
 * content.
 *
 * LLVM ends its process on errors; in a child that becomes a diagnostic. The cache (KERF_CACHE_DIR,
 * else $XDG_CACHE_HOME/kerf, else ~/.cache/kerf) is keyed by everything that decides the bytes; a
 * damaged entry is a miss, and an unwritable cache is no error.
 */
#ifndef KF_DRIVER_KERNELS_H
#define KF_DRIVER_KERNELS_H

#include "driver/pipeline_run.h"
#include "driver/spawn.h"

typedef struct kf_kernel_objects {
    const kf_compilation *c;
    const char *dir; /* where kN.o go */
    bool sanitize;
    kf_str arch_key;    /* micro-architecture, as it decides the code */
    kf_str compiler;    /* digest of the running program; empty: unknown, nothing is cached */
    uint32_t n_missing; /* not in the cache */
    uint32_t *missing;  /* kernel numbers */
    uint32_t children;
    kf_fork_group group;
} kf_kernel_objects;

/** Takes what the cache has and starts children for the rest. */
void kf_kernels_start(kf_kernel_objects *k, const kf_compilation *c, const char *dir,
                      bool sanitize);
/** Waits for them. False after reporting (E0602, E0605). */
bool kf_kernels_join(kf_kernel_objects *k);
kf_str kf_kernels_path(kf_arena *arena, const kf_kernel_objects *k, uint32_t kernel);

/** All kernels as LLVM assembly (--emit=llvm), made in this process; false after reporting. */
bool kf_kernels_llvm(const kf_compilation *c, kf_sbuf *out);

#endif
