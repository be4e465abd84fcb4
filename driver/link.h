/* SPDX-License-Identifier: Apache-2.0 */
/* link - host C and kernel objects become an executable or a library, by `cc`. */
#ifndef KF_DRIVER_LINK_H
#define KF_DRIVER_LINK_H

#include "driver/kernels.h"

/** Where the runtime lies: relative to the kerf binary, in an installation as in the build tree. */
typedef struct kf_runtime_paths {
    kf_str archive; /* lib/kerf/libkf_runtime.a */
    kf_str include; /* include/kerf */
} kf_runtime_paths;

/** False after reporting E0604. */
bool kf_runtime_find(kf_arena *arena, kf_diags *d, kf_runtime_paths *out);

typedef struct kf_link_job {
    kf_arena *arena;
    kf_diags *diags;
    const char *dir;    /* scratch folder */
    const char *host_c; /* path of the emitted C */
    const kf_kernel_objects *kernels;
    const char *embed;      /* packed file to link in, or NULL */
    const char *plan;       /* text of the plan to link in, for tools; NULL for libraries */
    const char *model_name; /* C identifier, for libraries */
} kf_link_job;

/** Compiles and links into |dir|/out; returns its path, or an empty string after reporting E0601.
 */
kf_str kf_link_exe(const kf_link_job *job);
/** Makes |dir|/lib.a, lib.so and lib.h. */
bool kf_link_lib(const kf_link_job *job);

#endif
