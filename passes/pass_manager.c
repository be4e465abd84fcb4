/* SPDX-License-Identifier: Apache-2.0 */
/* pass_manager - runs passes; the only place that verifies, round-trips, dumps, times and stops.
 *
 * It is not where the order is decided (pipeline.c) nor where anything is rewritten.
 */
#include "base/check.h"
#include "base/fs.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pipeline.h"

#include <fnmatch.h>
#include <string.h>
#include <time.h>

const kf_pass_info kf_pass_infos[KF_PASS_COUNT] = {
#define PASS(name, kind, summary) {#name, kind, kf_pass_##name, summary},
#include "passes/passes.def"
#undef PASS
};

static bool find_pass(kf_str name, kf_pass_id *out_id)
{
    for (int i = 0; i < KF_PASS_COUNT; i++) {
        if (kf_str_eq_c(name, kf_pass_infos[i].name)) {
            *out_id = (kf_pass_id)i;
            return true;
        }
    }
    return false;
}

/* ---- lists of names and globs ---------------------------------------------------------------- */

/* Takes the next comma-separated word of |*list|; false at the end. */
static bool next_word(const char **list, char *word, size_t size)
{
    const char *s = *list;

    if (!s || !*s)
        return false;
    const char *end = strchr(s, ',');
    size_t len = end ? (size_t)(end - s) : strlen(s);
    KF_ASSERT(len < size, "pass names on the command line are checked for length first");
    memcpy(word, s, len);
    word[len] = 0;
    *list = end ? end + 1 : s + len;
    return true;
}

static bool listed(const char *list, const char *name)
{
    char word[64];

    while (next_word(&list, word, sizeof word))
        if (!strcmp(word, "all") || !fnmatch(word, name, 0))
            return true;
    return false;
}

static bool names_any_pass(const char *word)
{
    for (int i = 0; i < KF_PASS_COUNT; i++)
        if (!strcmp(word, "all") || !fnmatch(word, kf_pass_infos[i].name, 0))
            return true;
    return false;
}

static bool check_list(const char *list, const char *option, kf_diags *d)
{
    bool ok = true;

    while (list && *list) {
        size_t len = strcspn(list, ",");
        char word[64];
        if (len >= sizeof word) {
            kf_diag_add(d, KF_E0805, KF_NO_LOC, "%s: pass name of %zu characters", option, len);
            return false;
        }
        next_word(&list, word, sizeof word);
        if (!names_any_pass(word)) {
            kf_str names[KF_PASS_COUNT];
            for (int i = 0; i < KF_PASS_COUNT; i++)
                names[i] = kf_str_from(kf_pass_infos[i].name);
            kf_diag *e =
                kf_diag_add(d, KF_E0805, KF_NO_LOC, "%s: no pass is called '%s'", option, word);
            kf_str near = kf_str_nearest(kf_str_from(word), names, KF_PASS_COUNT);
            if (near.len)
                kf_diag_hint(d, e, "did you mean '%.*s'?", KF_STR_ARG(near));
            ok = false;
        }
    }
    return ok;
}

bool kf_pipeline_check(const kf_pipeline_options *opt, kf_diags *d)
{
    bool ok = check_list(opt->off, "--pass-off", d);

    ok &= check_list(opt->dump, "--pass-dump", d);
    ok &= check_list(opt->time, "--pass-time", d);
    ok &= check_list(opt->trace, "--pass-trace", d);
    ok &= check_list(opt->passes, "--passes", d);
    ok &= check_list(opt->stop_after, "--stop-after", d);
    if (opt->passes && opt->stop_after) {
        kf_diag_add(d, KF_E0803, KF_NO_LOC,
                    "--passes ends where its list ends: leave --stop-after out");
        ok = false;
    }
    const char *list = opt->off;
    char word[64];
    while (ok && next_word(&list, word, sizeof word)) {
        kf_pass_id id;
        if (!find_pass(kf_str_from(word), &id) || kf_pass_infos[id].kind != KF_PASS_LOWER)
            continue;
        kf_diag_add(d, KF_E0806, KF_NO_LOC, "pass '%s' is required and cannot be switched off",
                    word);
        ok = false;
    }
    return ok;
}

/* ---- running --------------------------------------------------------------------------------- */

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static uint32_t count_nodes(const kf_module *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->funcs.len; i++)
        n += m->funcs.data[i]->nodes.len;
    return n;
}

static kf_str module_text(const kf_module *m, kf_arena *a)
{
    kf_sbuf text = {.arena = a};

    kf_module_print(m, KF_PRINT_LOCS, &text);
    return kf_sbuf_view(&text);
}

static void verify(const kf_module *m, kf_arena *scratch, const char *stage)
{
    kf_sbuf why = {.arena = scratch};

    kf_check_set_context(stage, "verifier");
    if (!kf_module_verify(m, KF_VERIFY_GRAPH, &why)) {
        fprintf(stderr, "%.*s\n", KF_STR_ARG(kf_sbuf_view(&why)));
        KF_ASSERT(false, "a pass leaves a graph that the verifier accepts");
    }
}

/* |text|: a module, printed. */
static void check_text(kf_str text, kf_arena *scratch)
{
    kf_diags *d = kf_diags_create(scratch);
    kf_module *again = kf_module_parse(scratch, d, KF_STR("round-trip.kir"), text);

    if (!again)
        kf_diags_print(d, stderr, false);
    KF_ASSERT(again != NULL, "the printed graph parses");
    KF_ASSERT(kf_str_eq(text, module_text(again, scratch)),
              "print(parse(print(x))) equals print(x)");
}

void kf_module_check(const kf_module *m, kf_arena *scratch, const char *stage)
{
    verify(m, scratch, stage);
    check_text(module_text(m, scratch), scratch);
}

/* The same behind a pass. Most passes change nothing: a text that has just been checked is not
 * parsed again. */
static void check_again(const kf_module *m, kf_pass_ctx *cx, const char *stage)
{
    verify(m, cx->scratch, stage);
    kf_str text = module_text(m, cx->scratch);
    kf_hash hash = kf_hash_bytes(text.ptr, text.len);
    if (hash.hi == cx->checked.hi && hash.lo == cx->checked.lo)
        return;
    check_text(text, cx->scratch);
    cx->checked = hash;
}

static void dump(const kf_module *m, kf_pass_ctx *cx, const kf_pipeline_options *opt,
                 const char *name, uint32_t number, bool progress)
{
    if (opt->dump && listed(opt->dump, name))
        fprintf(opt->out, "; after %s%s\n%.*s", name, progress ? "" : " (no change)",
                KF_STR_ARG(module_text(m, cx->scratch)));
    if (opt->dump_dir && progress) {
        kf_str file = kf_strf(cx->scratch, "%s/%02u_%s.kir", opt->dump_dir, number, name);
        int err = kf_fs_write(file.ptr, module_text(m, cx->scratch), 0644);
        if (err)
            kf_diag_add(cx->diags, KF_E0603, KF_NO_LOC, "%s: %s", file.ptr, strerror(err));
    }
}

static void trace(const kf_pass_ctx *cx, uint32_t from, const kf_pipeline_options *opt,
                  const char *name)
{
    if (!opt->trace || !listed(opt->trace, name))
        return;
    for (uint32_t i = from; i < cx->candidates.len; i++) {
        const kf_candidate *c = &cx->candidates.data[i];
        fprintf(opt->out, "; %s: %s %.*s in @%.*s%s%s%s%.*s\n", name,
                c->reason ? "refused" : "fused", KF_STR_ARG(c->subject), KF_STR_ARG(c->func),
                c->reason ? ": " : "", kf_reason_codes[c->reason], c->detail.len ? " " : "",
                KF_STR_ARG(c->detail));
    }
}

static void run_pass(kf_module *m, kf_pass_ctx *cx, const kf_pipeline_options *opt, kf_pass_id id,
                     kf_pass_runs *runs)
{
    const kf_pass_info *p = &kf_pass_infos[id];
    kf_arena_mark mark = kf_arena_save(cx->scratch);
    uint32_t candidates = cx->candidates.len;
    double start = now_ms();

    cx->current = id;
    cx->before = kf_module_clone(m, cx->scratch);
    kf_check_set_context(p->name, m->name.ptr);
    bool progress = p->run(m, cx);
    double ms = now_ms() - start;
    if (opt->verify_each)
        check_again(m, cx, p->name);
    kf_vec_push(cx->arena, runs, (kf_pass_run){id, progress, ms, count_nodes(m)});
    dump(m, cx, opt, p->name, runs->len, progress);
    trace(cx, candidates, opt, p->name);
    if (opt->time && listed(opt->time, p->name))
        fprintf(opt->out, "; %-16s %8.3f ms  %5u nodes%s\n", p->name, ms, count_nodes(m),
                progress ? "" : "  (no change)");
    if (opt->after)
        opt->after(opt->user, m, id);
    cx->before = NULL;
    kf_arena_restore(cx->scratch, mark);
}

void kf_pipeline_run(kf_module *m, kf_pass_ctx *cx, const kf_pipeline_options *opt,
                     kf_pass_runs *out_runs)
{
    char word[64];
    const char *list = opt->passes;

    if (opt->verify_each)
        check_again(m, cx, "input");
    while (next_word(&list, word, sizeof word)) {
        kf_pass_id id;
        KF_ASSERT(find_pass(kf_str_from(word), &id), "--passes was checked before");
        run_pass(m, cx, opt, id, out_runs);
    }
    for (uint32_t i = 0; !opt->passes && i < kf_pipeline_length; i++) {
        kf_pass_id id = kf_pipeline[i];
        const char *name = kf_pass_infos[id].name;
        if (kf_pass_infos[id].kind == KF_PASS_LOWER || !opt->off || !listed(opt->off, name))
            run_pass(m, cx, opt, id, out_runs);
        bool last_of_name = true;
        for (uint32_t j = i + 1; j < kf_pipeline_length; j++)
            last_of_name &= kf_pipeline[j] != id;
        if (opt->stop_after && !strcmp(opt->stop_after, name) && last_of_name)
            break;
    }
    kf_check_set_context(NULL, NULL);
}
