/* SPDX-License-Identifier: Apache-2.0 */
/* pipeline_run - see pipeline_run.h. */
#include "driver/pipeline_run.h"

#include "base/check.h"
#include "base/fs.h"
#include "codegen/cpu/arch.h"
#include "codegen/target_cpu.h"
#include "driver/load.h"
#include "driver/verbs.h"
#include "frontend/build_graph.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/contract.h"

#include <string.h>

#ifndef KF_CHECKS
#define KF_CHECKS 0
#endif

#define MAX_OVERRIDES 32

/* Reads the contract; keys of `build:` that nothing acts on yet must not pass in silence. */
static bool read_build(kf_compilation *c)
{
    const kf_spec_build *b = &c->spec->build;
    uint32_t before = kf_diags_errors(c->diags);

    c->contract = KF_NEW(c->arena, kf_contract);
    for (uint32_t i = 0; i < b->require.n + b->forbid.n; i++) {
        bool require = i < b->require.n;
        const kf_sv_strs *list = require ? &b->require : &b->forbid;
        uint32_t at = require ? i : i - b->require.n;
        kf_pattern p;
        if (!kf_pattern_parse(c->arena, c->diags, list->v[at], list->at[at], &p))
            continue;
        if (require)
            kf_vec_push(c->arena, &c->contract->require, p);
        else
            kf_vec_push(c->arena, &c->contract->forbid, p);
    }
    if (!c->opt->target && b->targets.n > 1)
        kf_diag_add(c->diags, KF_E0411, b->targets.src.loc,
                    "build.targets: %u targets; this version compiles for one at a time: "
                    "give one with --target",
                    b->targets.n);
    return kf_diags_errors(c->diags) == before;
}

bool kf_compilation_target(kf_compilation *c)
{
    const char *t = c->opt->target ? c->opt->target : "cpu";

    if (c->spec && !read_build(c))
        return false;
    if (c->spec && !c->opt->target && c->spec->build.targets.n == 1)
        t = kf_str_dup(c->arena, c->spec->build.targets.v[0]).ptr;
    if (strncmp(t, "cpu", 3) || (t[3] && t[3] != ':')) {
        kf_diag_add(c->diags, KF_E0410, KF_NO_LOC,
                    "target '%s': this build makes code for cpu, cpu:native and cpu:ARCH", t);
        return false;
    }
    c->arch = t[3] ? t + 4 : KF_CPU_ARCH_DEFAULT;
    c->target = kf_target_cpu(c->arena, c->arch);
    if (c->target)
        return true;
    kf_diag *e = kf_diag_add(c->diags, KF_E0410, KF_NO_LOC,
                             "no CPU micro-architecture is called '%s'", c->arch);
    kf_str names[64];
    kf_cpu_arch arch;
    uint32_t n = 0;
    while (n < 64 && kf_cpu_arch_at(n, &arch)) {
        names[n] = kf_str_from(arch.name);
        n++;
    }
    kf_str near = kf_str_nearest(kf_str_from(c->arch), names, n);
    if (near.len)
        kf_diag_hint(c->diags, e, "did you mean 'cpu:%.*s'?", KF_STR_ARG(near));
    return false;
}

/* Up to the comma that ends this KEY=VALUE: none inside brackets or a quoted value. */
static size_t override_length(const char *s)
{
    int depth = 0;
    char quote = 0;
    size_t i;

    for (i = 0; s[i] && (s[i] != ',' || depth > 0 || quote); i++) {
        if (quote)
            quote = s[i] == quote ? 0 : quote;
        else if ((s[i] == '"' || s[i] == '\'') && i && (depth > 0 || s[i - 1] == '='))
            quote = s[i];
        else
            depth += (s[i] == '[' || s[i] == '{') - (s[i] == ']' || s[i] == '}');
    }
    return i;
}

/* --set KEY=VALUE,... and --dtype as overrides of the description. */
static uint32_t overrides(kf_compilation *c, kf_override *out, uint32_t max)
{
    uint32_t n = 0;

    for (const char *s = c->opt->set; s && *s;) {
        size_t len = override_length(s);
        const char *eq = memchr(s, '=', len);
        if (!eq || eq == s || eq + 1 == s + len) {
            kf_diag_add(c->diags, KF_E0803, KF_NO_LOC, "--set takes KEY=VALUE, not '%.*s'",
                        (int)len, s);
            return n;
        }
        if (n == max) {
            kf_diag_add(c->diags, KF_E0803, KF_NO_LOC, "--set overrides at most %u keys", max);
            return n;
        }
        out[n++] = (kf_override){{s, (uint32_t)(eq - s)}, {eq + 1, (uint32_t)(s + len - eq - 1)}};
        s += len + (s[len] == ',');
    }
    if (c->opt->dtype)
        out[n++] = (kf_override){KF_STR("build.dtypes.weights"), kf_str_from(c->opt->dtype)};
    return n;
}

/* What is no description, but may be taken for one. */
static bool is_other(kf_compilation *c, const char *path)
{
    const char *what = kf_is_executable(path) ? "an executable"
                       : kf_is_kir(path)      ? "textual IR"
                                              : NULL;

    if (what)
        kf_diag_add(c->diags, KF_E0804, KF_NO_LOC,
                    "%s is %s; a description or a directory is wanted here", path, what);
    return what != NULL;
}

bool kf_compilation_load(kf_compilation *c, const char *path)
{
    kf_override set[MAX_OVERRIDES + 1]; /* and --dtype */
    uint32_t n = overrides(c, set, MAX_OVERRIDES);

    if (kf_diags_errors(c->diags) || is_other(c, path))
        return false;
    c->spec = kf_spec_load(c->arena, c->diags, path, set, n);
    if (!c->spec)
        return false;
    kf_str weights = c->opt->weights ? kf_str_from(c->opt->weights) : c->spec->weights.v;
    if (!weights.len || c->opt->no_weights)
        return true;
    kf_str dir = kf_str_dup(c->arena, weights);
    kf_str single = kf_fs_join(c->arena, dir, KF_STR("model.safetensors"));
    kf_str index = kf_fs_join(c->arena, dir, KF_STR("model.safetensors.index.json"));
    bool named = c->opt->weights || !kf_fs_is_dir(c->spec->path.ptr);
    if (kf_fs_is_dir(dir.ptr) && !named && !kf_fs_exists(single.ptr) && !kf_fs_exists(index.ptr))
        return true; /* a directory with only config.json is legal */
    c->checkpoint = kf_checkpoint_open(c->arena, c->diags, dir);
    return c->checkpoint && kf_checkpoint_check(c->arena, c->diags, c->checkpoint, c->spec);
}

const kf_tensor_source *kf_compilation_weights(const kf_compilation *c)
{
    return c->checkpoint ? kf_checkpoint_source(c->checkpoint) : c->random;
}

bool kf_compilation_graph(kf_compilation *c)
{
    kf_sbuf why = {.arena = c->scratch};

    c->module = kf_build_graph(c->arena, c->diags, c->spec, kf_compilation_weights(c));
    if (!c->module)
        return false;
    kf_check_set_context("build_graph", c->module->name.ptr);
    if (!kf_module_verify(c->module, KF_VERIFY_GRAPH, &why)) {
        fprintf(stderr, "%.*s\n", KF_STR_ARG(kf_sbuf_view(&why)));
        KF_ASSERT(false, "the graph that the frontend builds is valid");
    }
    return true;
}

static const char *const rewrite_words[] = {"none", "rms", "crms"}; /* ORDER: kf_norm_rewrite */

/* The command line's word, or the description's. */
static bool choose_norm_rewrite(kf_compilation *c)
{
    const char *word = c->opt->norm_rewrite;

    c->passes.norm_rewrite =
        c->spec ? (kf_norm_rewrite)c->spec->build.norm_rewrite.v : KF_NORM_REWRITE_NONE;
    for (int i = 0; word && i < 3; i++) {
        if (strcmp(word, rewrite_words[i]) != 0)
            continue;
        c->passes.norm_rewrite = (kf_norm_rewrite)i;
        return true;
    }
    if (word)
        kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                    "--norm-rewrite takes none, rms or crms, not '%s'", word);
    return !word;
}

void kf_compilation_switches(const kf_compilation *c, kf_sbuf *out)
{
    if (c->passes.norm_rewrite != KF_NORM_REWRITE_NONE)
        kf_sbuf_printf(out, " --norm-rewrite=%s", rewrite_words[c->passes.norm_rewrite]);
    if (c->passes.fold_narrow)
        kf_sbuf_c(out, " --fold-narrow");
}

bool kf_compilation_fuse(kf_compilation *c, const char *off)
{
    const kf_options *o = c->opt;
    const char *all_off = o->pass_off && off ? kf_strf(c->arena, "%s,%s", o->pass_off, off).ptr
                          : off              ? off
                                             : o->pass_off;
    kf_pipeline_options p = {.off = all_off,
                             .dump = o->pass_dump,
                             .time = o->pass_time,
                             .trace = o->pass_trace,
                             .passes = o->passes,
                             .stop_after = o->stop_after,
                             .dump_dir = o->dump_dir,
                             .verify_each = o->verify_each || KF_CHECKS,
                             .out = stderr,
                             .after = c->after_pass,
                             .user = c->after_pass_user};

    int err = 0;
    if (!kf_pipeline_check(&p, c->diags))
        return false;
    if (p.dump_dir && (err = kf_fs_make_dirs(p.dump_dir)) != 0) {
        kf_diag_add(c->diags, KF_E0603, KF_NO_LOC, "%s: %s", p.dump_dir, strerror(err));
        return false;
    }
    c->passes = (kf_pass_ctx){.arena = c->arena,
                              .scratch = c->scratch,
                              .target = c->target,
                              .diags = c->diags,
                              .contract = c->contract};
    if (!choose_norm_rewrite(c))
        return false;
    c->passes.fold_narrow = o->fold_narrow || (c->spec && c->spec->build.fold_narrow.v);
    kf_pipeline_run(c->module, &c->passes, &p, &c->runs);
    if (!off && !o->stop_after)
        kf_contract_check(&c->passes, c->module, c->diags);
    return kf_diags_errors(c->diags) == 0;
}

bool kf_compilation_plan(kf_compilation *c)
{
    kf_sbuf why = {.arena = c->scratch};

    if (c->opt->stop_after) {
        kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                    "--stop-after leaves a graph without a plan: look at it with --emit fused");
        return false;
    }

    kf_check_set_context("schedule", c->module->name.ptr);
    c->plan = kf_schedule(c->module, c->target, c->arena);
    if (!kf_plan_verify(c->plan, &why)) {
        fprintf(stderr, "%.*s\n", KF_STR_ARG(kf_sbuf_view(&why)));
        KF_ASSERT(false, "the plan is valid");
    }
    kf_check_set_context(NULL, NULL);
    return true;
}

void kf_compilation_close(kf_compilation *c)
{
    if (c->checkpoint)
        kf_checkpoint_close(c->checkpoint);
    c->checkpoint = NULL;
}

bool kf_compilation_run(kf_compilation *c, const char *path)
{
    return kf_compilation_load(c, path) && kf_compilation_target(c) && kf_compilation_graph(c) &&
           kf_compilation_fuse(c, NULL) && kf_compilation_plan(c);
}
