/* SPDX-License-Identifier: Apache-2.0 */
/* cost_report - what a plan costs at one point: a table for people, fields for `kerf.plan.1`. */
#ifndef KF_DRIVER_COST_REPORT_H
#define KF_DRIVER_COST_REPORT_H

#include "base/json.h"
#include "driver/pipeline_run.h"
#include "passes/cost.h"

typedef struct kf_cost_report {
    const kf_plan *plan;
    const kf_plan *unfused; /* of the same description, every op a kernel; NULL: not known */
    kf_cost_point at;
    int64_t tokens, past; /* as the user gave them */
} kf_cost_report;

/** Reads "tokens=1,past=1024,memory=512" (by default 1, 0 and as many as there are keys): one
 * sequence that wants the logits of its last token. E0803 otherwise. */
bool kf_cost_point_parse(kf_compilation *c, const char *text, kf_cost_report *out);

/** Compiles the description of |c| again with all fusion off, for the report. What has no kernel
 * alone leaves it unknown. */
void kf_cost_report_unfused(kf_compilation *c, kf_cost_report *r);

/** A table of each phase (of several buckets the first one), every line begun by |prefix|. */
void kf_cost_report_text(const kf_cost_report *r, const char *prefix, kf_sbuf *out);
/** The object "phases" of kerf.plan.1. */
void kf_cost_report_json(const kf_cost_report *r, kf_arena *scratch, kf_json *w);

/** The ops of a kernel, "mul matmul add". */
kf_str kf_kernel_ops(const kf_kernel *k, kf_arena *arena);

#endif
