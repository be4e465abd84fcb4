/* SPDX-License-Identifier: Apache-2.0 */
/* arch - names of CPU micro-architectures and what kernels may use on them.
 *
 * Plain data, no LLVM: the backend turns a kf_cpu_arch into a target machine.
 */
#ifndef KF_CODEGEN_CPU_ARCH_H
#define KF_CODEGEN_CPU_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#define KF_CPU_ARCH_DEFAULT "x86-64-v3"

typedef struct kf_cpu_arch {
    const char *name;  /* LLVM's -mcpu name; "native" stands for the machine the compiler runs on */
    uint32_t lanes;    /* f32 lanes of a vector register: 8 or 16 */
    uint32_t regs;     /* vector registers: 16 or 32 */
    uint32_t features; /* KF_CPU_* that its code may use and an executable checks at start */
} kf_cpu_arch;

/** Finds |name| in arch.def, or "native". False: no such name, or this machine is below x86-64-v3.
 */
bool kf_cpu_arch_find(const char *name, kf_cpu_arch *out_arch);

/** The i-th row of arch.def; false past the end. For messages that list the names. */
bool kf_cpu_arch_at(uint32_t i, kf_cpu_arch *out_arch);

#endif
