/* SPDX-License-Identifier: Apache-2.0 */
/* region_run - runs the kernel of one region in this process, on values of the evaluator. For `kerf
 * verify --layers`. */
#ifndef KF_DRIVER_REGION_RUN_H
#define KF_DRIVER_REGION_RUN_H

#include "driver/pipeline_run.h"
#include "ir/eval.h"

typedef struct kf_region_run kf_region_run;

/** Kernels of regions of |c|->module. They are made when they are first run and kept. */
kf_region_run *kf_region_run_create(kf_compilation *c);
void kf_region_run_destroy(kf_region_run *r);

/** Runs |region| for one sequence on the operands |in|; caches hold what is in view behind the call. The kernel is one for
 * calls of up to |rows_hi| rows. |got|[i] becomes result i, until the next run; rows that it appends to caches are
 * compared in place: |cache_nmse|. False with a sentence in |why|. */
bool kf_region_run_kernel(kf_region_run *r, const kf_node *region, int64_t rows_hi,
                          const kf_tensor *const *in, const kf_tensor *want,
                          const int64_t *sym_values, kf_tensor *got, double *cache_nmse,
                          kf_sbuf *why);

#endif
