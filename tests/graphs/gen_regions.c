/* SPDX-License-Identifier: Apache-2.0 */
/* gen_regions - modules that are partly fused before they are given to the passes. */
#include "codegen/target_cpu.h"
#include "passes/pipeline.h"
#include "tests/graphs/gen.h"

/** What leaves finished regions; NULL: the pipeline up to some step. */
static const char *const beginnings[] = {"form_regions",
                                         "fuse_rows",
                                         "fuse_epilogue",
                                         "fuse_epilogue,fuse_rows",
                                         "fuse_attention,form_regions",
                                         "fuse_gated,fuse_horizontal,layout,fuse_epilogue",
                                         NULL,
                                         NULL};

/* The pipeline, at least to the step that forms the first regions. */
static const char *pipeline_prefix(gen *g)
{
    kf_sbuf list = {.arena = g->arena};
    uint32_t first = 0;

    while (kf_pipeline[first] != KF_PASS_ID_fuse_epilogue)
        first++;
    uint32_t n = first + 1 + gen_pick(g, kf_pipeline_length - first);
    for (uint32_t i = 0; i < n; i++)
        kf_sbuf_printf(&list, "%s%s", i ? "," : "", kf_pass_infos[kf_pipeline[i]].name);
    return list.ptr;
}

void gen_regions(gen *g)
{
    const char *passes = beginnings[gen_pick(g, sizeof beginnings / sizeof beginnings[0])];
    kf_pass_ctx cx = {.arena = g->arena,
                      .scratch = kf_arena_create("regions"),
                      .target = kf_target_cpu(g->arena, "x86-64-v3"),
                      .diags = kf_diags_create(g->arena)};
    kf_pipeline_options o = {.passes = passes ? passes : pipeline_prefix(g), .out = stderr};
    kf_pass_runs runs = {0};

    kf_pipeline_run(g->m, &cx, &o, &runs);
    kf_arena_destroy(cx.scratch);
}
