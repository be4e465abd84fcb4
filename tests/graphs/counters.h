/* SPDX-License-Identifier: Apache-2.0 */
/* counters - what a run of random graphs has reached. */
#ifndef KF_TESTS_GRAPHS_COUNTERS_H
#define KF_TESTS_GRAPHS_COUNTERS_H

#include "ir/recipe.h"
#include "passes/passes.h"

/** What CPU time goes into. */
typedef enum stage_id {
    STAGE_OTHER, /* making modules, drawing values, comparing */
    STAGE_PASSES,
    STAGE_TEXTS, /* printing, verifying, parsing */
    STAGE_EVALUATE,
    STAGE_PLANS,
    STAGE_COMPILED,
    STAGE_COUNT
} stage_id;

/** What a module may have beside a decoder's ops and words. */
typedef enum feature {
    FEATURE_STORED_OP,   /* attention to a memory as the op */
    FEATURE_STORED_READ, /* a memory read, for attention written out */
    FEATURE_ENCODER,     /* alone */
    FEATURE_MEMORY,      /* an encoder beside a decoder */
    FEATURE_MIXED,       /* finished regions beside ops */
    FEATURE_REGIONS,     /* finished regions only */
    FEATURE_COUNT
} feature;

/** Modules in which something occurs. */
typedef struct counters {
    uint32_t modules, failed;
    uint32_t given[FEATURE_COUNT], made[FEATURE_COUNT]; /* before and behind the pipeline */
    uint32_t op[KF_OP_COUNT];                           /* rows of fn.def included */
    uint32_t fn[KF_FN_COUNT];                           /* in slots */
    uint32_t acc[KF_ACC_COUNT];                         /* of row_reduce */
    uint32_t recipe[KF_RECIPE_COUNT];
    uint32_t fired[KF_PASS_COUNT], refused[KF_PASS_COUNT], idle[KF_PASS_COUNT];
    uint32_t reason[KF_REASON_COUNT];
    uint32_t nodes, adversarial, searched, not_finite, planned, no_kernel, ran;
    uint32_t forms, texts, evaluated; /* forms asked for, different ones, those without NaN */
    stage_id stage;                   /* now */
    double since_s, cpu_s[STAGE_COUNT];
} counters;

/** CPU time of this process from here on goes into |next|; returns what it went into before. */
stage_id counters_stage(counters *c, stage_id next);
/** At the begin of a process: its CPU time goes into |first|. */
void counters_start(counters *c, stage_id first);

/** A module as it is |given| to the pipeline, or what that made of it. */
void counters_add_module(counters *c, const kf_module *m, bool given);
void counters_add_passes(counters *c, const kf_pass_ctx *cx, const kf_pass_runs *runs);
void counters_print(const counters *c);
/** True if everything was reached; else says what was not. */
bool counters_complete(const counters *c);

#endif
