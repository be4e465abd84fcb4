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

/** Parses and verifies a module into c->module; false after a diagnostic. */
bool kf_module_load(kf_compilation *c, const char *path);

/** Brings |path| to c->plan: a description or directory is compiled that far, of an executable its
 * own plan is read, a .kir file is a plan, or a module that is fused and scheduled. False after a
 * diagnostic. */
bool kf_plan_load(kf_compilation *c, const char *path);

#endif
