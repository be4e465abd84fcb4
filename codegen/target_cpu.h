/* SPDX-License-Identifier: Apache-2.0 */
/* target_cpu - the CPU as passes see it (ir/target.h). */
#ifndef KF_CODEGEN_TARGET_CPU_H
#define KF_CODEGEN_TARGET_CPU_H

#include "ir/target.h"

/** The target for a micro-architecture of arch.def ("x86-64-v3", "native"); NULL if there is no
 * such name. */
const kf_target *kf_target_cpu(kf_arena *arena, const char *arch);

#endif
