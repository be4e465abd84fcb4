/* SPDX-License-Identifier: Apache-2.0 */
/* npy - NumPy files (numpy.lib.format 1.0): magic, version, length of the header, header, data. */
#ifndef KF_DRIVER_NPY_H
#define KF_DRIVER_NPY_H

#include "ir/eval.h"

/** |n| numbers of a file of f32 in C order, or NULL if it holds another number of bytes. */
const double *kf_npy_read_f32(kf_arena *arena, const char *path, uint64_t n);

/** Writes |t|, which is no cache, as f64. 0 or an errno value. */
int kf_npy_write(kf_arena *arena, const char *path, const kf_tensor *t);

#endif
