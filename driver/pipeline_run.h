/* SPDX-License-Identifier: Apache-2.0 */
/* pipeline_run - the common way of all verbs: description -> checkpoint -> graph -> fused graph ->
 * plan. */
#ifndef KF_DRIVER_PIPELINE_RUN_H
#define KF_DRIVER_PIPELINE_RUN_H

#include "driver/options.h"
#include "frontend/spec.h"
#include "frontend/weights.h"
#include "passes/passes.h"

/** One model on its way. Stages fill it from top to bottom; a stage that fails leaves its field
 * NULL. */
typedef struct kf_compilation {
    kf_arena *arena, *scratch;
    kf_diags *diags;
    const kf_options *opt;
    const char *arch; /* of the CPU target: "x86-64-v3" */
    const kf_target *target;
    kf_spec *spec;
    kf_checkpoint *checkpoint;      /* NULL: no weights at hand */
    const kf_tensor_source *random; /* seeded weights instead of a checkpoint's, or NULL */
    kf_module *module;
    kf_contract *contract; /* build.fusion of the description, or NULL */
    kf_pass_ctx passes;
    kf_pass_runs runs;
    kf_plan *plan;
    void (*after_pass)(void *user, const kf_module *m, kf_pass_id pass); /* or NULL */
    void *after_pass_user;
} kf_compilation;

/** Chooses the target (E0410 for one that this build cannot make). */
bool kf_compilation_target(kf_compilation *c);
/** Reads the description and opens its weights, if it names any. */
bool kf_compilation_load(kf_compilation *c, const char *path);
bool kf_compilation_graph(kf_compilation *c);
/** Runs the passes with the command line's switches; |off| is added to --pass-off (NULL: nothing).
 * What build.fusion requires is checked (E0131) after a whole pipeline, that is without |off| and
 * --stop-after. */
bool kf_compilation_fuse(kf_compilation *c, const char *off);
/** The command line's words for what passes read besides the graph, each behind a blank. */
void kf_compilation_switches(const kf_compilation *c, kf_sbuf *out);
bool kf_compilation_plan(kf_compilation *c);
void kf_compilation_close(kf_compilation *c);

/** All of the above up to the plan. */
bool kf_compilation_run(kf_compilation *c, const char *path);

/** Weights of the model as an interface, or NULL. */
const kf_tensor_source *kf_compilation_weights(const kf_compilation *c);

#endif
