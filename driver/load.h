/* SPDX-License-Identifier: Apache-2.0 */
/* load - operands of verbs that are no descriptions: textual IR, and the plan that an executable
 * holds. */
#ifndef KF_DRIVER_LOAD_H
#define KF_DRIVER_LOAD_H

#include "driver/pipeline_run.h"

/** Section of an executable that holds the text of its plan. */
#define KF_PLAN_SECTION ".kerf.plan"

/** True for a path that ends in .kir, or "-". */
bool kf_is_kir(const char *path);

/** The text of |path| ("-": standard input); false after E0701. */
bool kf_kir_read(kf_compilation *c, const char *path, kf_str *out);
/** Parses and verifies a module into c->module; false after a diagnostic. */
bool kf_module_load(kf_compilation *c, const char *path);

/** Contents of section |name| of an ELF64 file, or an empty string. */
kf_str kf_elf_section(kf_arena *arena, const char *path, const char *name);

/** Brings |path| to c->plan: a description or directory is compiled that far, of an executable its
 * own plan is read, a .kir file is a plan, or a module that is fused and scheduled. False after a
 * diagnostic. */
bool kf_plan_load(kf_compilation *c, const char *path);

#endif
