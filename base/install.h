/* SPDX-License-Identifier: Apache-2.0 */
/* install - where the running compiler finds what belongs to it.
 *
 * The runtime archive and its headers lie beside the program, in the build tree as in an
 * installation:
 *
 *   PREFIX/bin/kerf   PREFIX/lib/kerf/libkf_runtime.a   PREFIX/include/kerf/kf_runtime.h
 *
 * so that an installation can be moved as a whole. There is no search path and no environment
 * variable.
 */
#ifndef KF_BASE_INSTALL_H
#define KF_BASE_INSTALL_H

#include "base/str.h"

typedef struct kf_install {
    kf_str runtime_archive; /* absolute path of libkf_runtime.a */
    kf_str include_dir;     /* absolute path of the folder that holds kf_runtime.h */
} kf_install;

/** Fills |out_install| relative to the running executable (a symbolic link to it is followed).
 * Returns 0, or ENOENT with |out_missing| naming the file that is not there, or another errno
 * value. */
int kf_install_find(kf_arena *arena, kf_install *out_install, kf_str *out_missing);

#endif
