/* SPDX-License-Identifier: Apache-2.0 */
/* region_run - runs the kernel of one region in this process, on values of the evaluator. For `kerf
 * verify --layers`. */
#ifndef KF_DRIVER_REGION_RUN_H
#define KF_DRIVER_REGION_RUN_H

#include "driver/pipeline_run.h"
#include "ir/eval.h"

typedef struct kf_region_run kf_region_run;

/** Kernels of the regions of |c|->module for calls of up to |rows| rows. They are made when they
 * are first run and kept. */
kf_region_run *kf_region_run_create(kf_compilation *c, int64_t rows);
void kf_region_run_destroy(kf_region_run *r);

/** Runs |region| for one sequence that has nothing in its caches but the rows of this call, on the
 * operands |in|. |got|[i] becomes result i, until the next run; rows that it appends to caches are
 * compared in place: |cache_nmse|. False with a sentence in |why|. */
bool kf_region_run_kernel(kf_region_run *r, const kf_node *region, const kf_tensor *const *in,
                          const kf_tensor *want, const int64_t *sym_values, kf_tensor *got,
                          double *cache_nmse, kf_sbuf *why);

#endif
