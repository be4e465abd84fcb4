/* SPDX-License-Identifier: Apache-2.0 */
/* passes - the transformations Graph -> fused Graph -> Plan, and what runs them.
 *
 * A pass is one function in one file; passes.def lists them, pipeline.c orders them. Only the pass
 * manager verifies, round-trips, dumps and times. Passes log every fusion candidate, taken or
 * refused.
 */
#ifndef KF_PASSES_PASSES_H
#define KF_PASSES_PASSES_H

#include "base/hash.h"
#include "ir/plan.h"
#include "ir/target.h"

typedef enum kf_pass_id {
#define PASS(name, kind, summary) KF_PASS_ID_##name,
#include "passes/passes.def"
#undef PASS
    KF_PASS_COUNT
} kf_pass_id;

typedef enum kf_pass_kind {
    KF_PASS_OPT,  /* may run */
    KF_PASS_FUSE, /* may run; shapes kernels */
    KF_PASS_LOWER /* must run; cannot be switched off */
} kf_pass_kind;

typedef enum kf_reason {
    KF_REASON_NONE,
#define REASON(code, text, more) KF_REASON_##code,
#include "passes/reasons.def"
#undef REASON
    KF_REASON_COUNT
} kf_reason;

/** Code ("F0203") and sentence of a reason, and what there is to know or to do about it. */
extern const char *const kf_reason_codes[KF_REASON_COUNT];
extern const char *const kf_reason_texts[KF_REASON_COUNT];
extern const char *const kf_reason_helps[KF_REASON_COUNT];

/** What a part of a candidate is (kinds.def). */
typedef enum kf_kind {
    KF_KIND_NONE,
#define KIND(name, meaning) KF_KIND_##name,
#include "passes/kinds.def"
#undef KIND
    KF_KIND_COUNT
} kf_kind;

extern const char *const kf_kind_names[KF_KIND_COUNT];
/** KF_KIND_NONE for a word that is no kind. */
kf_kind kf_kind_find(kf_str name);

typedef struct kf_subject_part {
    kf_kind kind;
    kf_str what; /* "%wq", "silu"; may be empty */
} kf_subject_part;

/** `KIND [what] -> KIND [what]`, or `KIND [what]`: then to.kind is NONE. */
typedef struct kf_subject {
    kf_subject_part from, to;
} kf_subject;

/** False if a word that should be a kind is none. Parts point into |text|. */
bool kf_subject_parse(kf_str text, kf_subject *out);

/** One fusion candidate: fused (reason NONE) or refused. */
typedef struct kf_candidate {
    kf_pass_id pass;
    kf_reason reason;
    kf_str subject; /* "norm -> matmul %wq" */
    kf_subject parts;
    kf_str detail; /* what exactly stood in the way; may be empty */
    kf_str func;
    kf_loc loc;
    uint32_t serial; /* of the node that joins a region; 0: not told */
} kf_candidate;

typedef struct kf_contract kf_contract;

/** What becomes of norms that subtract a mean; ORDER: words of schema.def. */
typedef enum kf_norm_rewrite {
    KF_NORM_REWRITE_NONE,
    KF_NORM_REWRITE_RMS,
    KF_NORM_REWRITE_CRMS
} kf_norm_rewrite;

typedef struct kf_pass_ctx {
    kf_arena *arena;   /* lives as long as the module: reports, new attributes */
    kf_arena *scratch; /* restored by the manager after each pass */
    const kf_target *target;
    kf_diags *diags; /* for what the target cannot do at all (E0407) */
    KF_VEC(kf_candidate) candidates;
    kf_pass_id current;
    const kf_module
        *before; /* what the running pass was given, for a reproducer; NULL: none runs */
    const kf_contract *contract; /* contract.h; NULL: none */
    kf_norm_rewrite norm_rewrite;
    bool fold_narrow; /* weights narrower than f32 may be folded into, and rounded anew */
    bool is_norm_rewrite_refused; /* and reported (E0412) */
    kf_hash checked;              /* of the last text that the manager checked, if it checks */
} kf_pass_ctx;

/** Logs that a candidate is about to be fused; |fmt| gives its subject (kinds.def). False if a
 * contract of the description forbids it: it is then logged as refused and the pass must leave the
 * graph as it is. Hence it is called before the rewrite. */
bool kf_report_fused(kf_pass_ctx *cx, const kf_graph *g, kf_loc loc, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), warn_unused_result));
/** The same for node |n| that joins the region of |root|, under whatever roots it is tried. */
bool kf_report_joined(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n, const kf_node *root);
void kf_report_not_joined(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n, const kf_node *root,
                          kf_reason reason, kf_str detail);
/** True, and logged as refused, if a contract forbids that |n| joins |root|. */
bool kf_report_forbidden(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n, const kf_node *root);
/** True for two candidates about one op of one function, or with one subject at one place. */
bool kf_candidate_is_same(const kf_candidate *a, const kf_candidate *b);
/** A refusal of an op that something else took. */
bool kf_candidate_is_overcome(const kf_pass_ctx *cx, const kf_candidate *c);
kf_str kf_candidate_file(const kf_module *m, const kf_candidate *c);
/** Turns what was logged as fused since |from| (an earlier candidates.len) into refusals: a
 * contract forbids one of several candidates that a rewrite can only take together. */
void kf_report_withdraw(kf_pass_ctx *cx, uint32_t from);
void kf_report_refused(kf_pass_ctx *cx, const kf_graph *g, kf_loc loc, kf_reason reason,
                       kf_str detail, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/** The same for node |n|, which a later pass may take all the same. */
void kf_report_node_refused(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n, kf_reason reason,
                            kf_str subject);

typedef bool (*kf_pass_fn)(kf_module *m, kf_pass_ctx *cx);

typedef struct kf_pass_info {
    const char *name;
    kf_pass_kind kind;
    kf_pass_fn run;
    const char *summary;
} kf_pass_info;

extern const kf_pass_info kf_pass_infos[KF_PASS_COUNT];

#define PASS(name, kind, summary) bool kf_pass_##name(kf_module *m, kf_pass_ctx *cx);
#include "passes/passes.def"
#undef PASS

/** Passes that fuse, for |off|: without them every op is a kernel of its own. */
#define KF_FOLDS_OFF   "fold_params,merge_weights,fold_weights,rewrite_norms"
#define KF_UNFUSED_OFF "fuse_*,carry_stats," KF_FOLDS_OFF

/** What the user asked of the runner. Lists are comma separated names or globs ("fuse_*", "all").
 */
typedef struct kf_pipeline_options {
    const char *off, *dump, *time, *trace;
    const char *passes;     /* run exactly these, in this order; NULL = the pipeline */
    const char *stop_after; /* a pass name, or NULL */
    const char *dump_dir;   /* NN_pass.kir on progress; NULL = no */
    bool verify_each;       /* verify and round-trip after every pass */
    FILE *out;              /* for dump, time and trace */
    /* called after every pass, NULL: no. The module changes with the next one. */
    void (*after)(void *user, const kf_module *m, kf_pass_id pass);
    void *user;
} kf_pipeline_options;

/** One executed pass, for reports. */
typedef struct kf_pass_run {
    kf_pass_id pass;
    bool progress;
    double ms;
    uint32_t nodes;
} kf_pass_run;

typedef KF_VEC(kf_pass_run) kf_pass_runs;

/** Checks names in |opt| (E0805 for an unknown pass, E0806 for switching off a required one). */
bool kf_pipeline_check(const kf_pipeline_options *opt, kf_diags *d);

/** Runs the pipeline over |m|. Asserts (with a reproducer through base/check.h) if a pass breaks
 * the IR. */
void kf_pipeline_run(kf_module *m, kf_pass_ctx *cx, const kf_pipeline_options *opt,
                     kf_pass_runs *out_runs);

/** Asserts that the verifier accepts |m| and that its text reads back as itself; |stage| is where a
 * failure is said to be. */
void kf_module_check(const kf_module *m, kf_arena *scratch, const char *stage);

/** True for a module that kf_schedule takes, as the pipeline makes them: prefill and decode, whose
 * ops all stand in regions of which |target| makes kernels. Else |why| says what is missing. */
bool kf_schedule_can(const kf_module *m, const kf_target *target, kf_sbuf *why);

/** Writes the Plan of a fused module: launches per phase and bucket (schedule.c). |max_rows_*|
 * follow from the module's symbols. Buffers are placed by kf_plan_buffers. */
kf_plan *kf_schedule(const kf_module *m, const kf_target *target, kf_arena *arena);

/** Lifetimes, aliasing and offsets of every phase's buffers (plan_buffers.c). */
void kf_plan_buffers(kf_plan *p);

#endif
