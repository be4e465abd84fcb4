/* SPDX-License-Identifier: Apache-2.0 */
/* fused - see fused.h. */
#include "tests/graphs/fused.h"

#include "base/check.h"
#include "codegen/target_cpu.h"
#include "ir/text.h"

/* ---- texts ----------------------------------------------------------------------------------- */

bool text_same(kf_hash a, kf_hash b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

bool texts_first(texts *t, kf_hash hash, text_use use)
{
    uint32_t i = 0;

    while (i < t->list.len && !text_same(t->list.data[i].hash, hash))
        i++;
    if (i == t->list.len)
        kf_vec_push(t->arena, &t->list, (seen_text){hash, 0});
    bool first = !(t->list.data[i].uses & use);
    t->list.data[i].uses |= use;
    return first;
}

kf_hash text_hash(const kf_module *m)
{
    kf_arena *a = kf_arena_create("text");
    kf_sbuf s = {.arena = a};

    kf_module_print(m, KF_PRINT_LOCS, &s);
    kf_hash hash = kf_hash_bytes(s.ptr, s.len);
    kf_arena_destroy(a);
    return hash;
}

/* The hash of the text of |m|, which is checked if it is new. */
static kf_hash check_text(texts *t, const kf_module *m, kf_arena *scratch, const char *stage)
{
    stage_id before = counters_stage(t->c, STAGE_TEXTS);
    kf_hash hash = text_hash(m);

    if (texts_first(t, hash, TEXT_CHECKED))
        kf_module_check(m, scratch, stage);
    counters_stage(t->c, before);
    return hash;
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct run {
    fused *f;
    const fused_how *how;
} run;

/* Behind each pass. The text of a module that did not change is looked at in recorded runs only. */
static void after(void *user, const kf_module *m, kf_pass_id id)
{
    const run *r = user;
    fused *f = r->f;
    uint32_t step = f->runs.len - 1;
    bool progress = f->runs.data[step].progress;

    if (r->how->record && progress && !f->first[id].before)
        f->first[id] = (first_change){step, kf_module_clone(f->cx.before, f->arena)};
    if (!r->how->texts || (!progress && !r->how->record))
        return;
    kf_hash hash = check_text(r->how->texts, m, f->cx.scratch, kf_pass_infos[id].name);
    KF_ASSERT(progress || text_same(hash, f->hash),
              "a pass that reports no progress changed nothing");
    f->hash = hash;
}

fused fused_run(const kf_module *m, const fused_how *how)
{
    fused f = {.arena = kf_arena_create("form"), .scratch = kf_arena_create("scratch")};
    run r = {&f, how};
    kf_pipeline_options p = {
        .passes = how->passes, .off = how->off, .out = stderr, .after = after, .user = &r};

    f.m = kf_module_clone(m, f.arena);
    f.cx = (kf_pass_ctx){.arena = f.arena,
                         .scratch = f.scratch,
                         .target = kf_target_cpu(f.arena, "x86-64-v3"),
                         .diags = kf_diags_create(f.arena),
                         .norm_rewrite = how->rewrite};
    if (!how->texts) {
        kf_pipeline_run(f.m, &f.cx, &p, &f.runs);
        return f;
    }
    stage_id before = counters_stage(how->texts->c, STAGE_PASSES);
    f.hash = check_text(how->texts, f.m, f.scratch, "input");
    kf_pipeline_run(f.m, &f.cx, &p, &f.runs);
    counters_stage(how->texts->c, before);
    return f;
}

fused fused_without(const fused *all, kf_pass_id off, texts *t)
{
    kf_sbuf rest = {.arena = t->arena};

    for (uint32_t i = all->first[off].step + 1; i < kf_pipeline_length; i++)
        if (kf_pipeline[i] != off)
            kf_sbuf_printf(&rest, "%s%s", rest.len ? "," : "", kf_pass_infos[kf_pipeline[i]].name);
    const char *passes = rest.len ? rest.ptr : "";
    return fused_run(all->first[off].before, &(fused_how){.passes = passes, .texts = t});
}

void fused_drop(fused *f)
{
    kf_arena_destroy(f->arena);
    kf_arena_destroy(f->scratch);
}
