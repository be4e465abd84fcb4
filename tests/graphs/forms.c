/* SPDX-License-Identifier: Apache-2.0 */
/* forms - see forms.h. */
#include "tests/graphs/forms.h"

#include "ir/text.h"
#include "tests/graphs/calls.h"
#include "tests/graphs/compiled.h"
#include "tests/unit/support.h"

#include <math.h>
#include <stdio.h>

enum { SHUFFLED = 12 };

typedef struct checker {
    kf_arena *arena;
    const kf_module *m;
    const forms_choice *how;
    calls calls;
    texts texts;
    output ref, rounded; /* of the module as written */
    double bound;        /* of the rounded evaluator */
    double last_rms;     /* of the form that was compared last */
    counters *c;
    kf_sbuf *why;
} checker;

static bool fail(checker *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(checker *k, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    kf_sbuf_vprintf(k->why, fmt, ap);
    va_end(ap);
    return false;
}

static bool evaluate(checker *k, const kf_module *m, kf_eval_mode mode, output *o)
{
    stage_id before = counters_stage(k->c, STAGE_EVALUATE);
    bool ok = calls_evaluate(&k->calls, m, mode, o, k->why);

    counters_stage(k->c, before);
    return ok;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* Adversarial values may leave the range of f32 where a form stores what another keeps, and of rows
 * without variance only the rounding of their mean is left: such forms are compared in f64 only. */
static bool compare(checker *k, const kf_module *m, const char *form)
{
    output ideal, rounded;

    if (!evaluate(k, m, KF_EVAL_IDEAL, &ideal) || !evaluate(k, m, KF_EVAL_ROUNDED, &rounded))
        return fail(k, " in the form '%s'", form);
    if (ideal.n != k->ref.n)
        return fail(k, "the form '%s' has %lld outputs, not %lld", form, (long long)ideal.n,
                    (long long)k->ref.n);
    double most = output_largest(&k->ref), off = output_rms(&ideal, &k->ref);
    /* Rows without variance leave nothing but the noise of f64, enlarged by 1 / sqrt(eps). */
    double noise = k->how->how == FILL_CONSTANT ? 1e-10 : 1e-14;
    if (!(off <= 1e-9 * most + noise))
        return fail(k, "the form '%s' is off by %.3e RMS in f64; the largest output is %.3e", form,
                    off, most);
    k->last_rms = output_rms(&rounded, &k->ref);
    bool skip = k->how->how == FILL_CONSTANT ||
                (k->how->how >= FILL_SEARCHED && (!rounded.finite || !k->rounded.finite));
    if (!skip && !(k->last_rms <= k->bound))
        return fail(k, "the form '%s' is off by %.3e RMS rounded; allowed are %.3e", form,
                    k->last_rms, k->bound);
    k->c->evaluated++;
    return true;
}

/* ---- plans ----------------------------------------------------------------------------------- */

static kf_str plan_text(const kf_plan *p, kf_arena *a)
{
    kf_sbuf text = {.arena = a};

    kf_plan_print(p, KF_PRINT_LOCS, &text);
    return kf_sbuf_view(&text);
}

/* The plan of a whole form is valid and reads back as itself. */
static bool check_plan(checker *k, fused *f, const char *form)
{
    if (kf_diags_errors(f->cx.diags)) {
        k->c->no_kernel++;
        return true;
    }
    if (!kf_schedule_can(f->m, f->cx.target, k->why))
        return fail(k, " in the form '%s'", form);
    kf_plan *p = kf_schedule(f->m, f->cx.target, f->arena);
    if (!kf_plan_verify(p, k->why))
        return fail(k, "the plan of the form '%s' is not valid", form);
    kf_str text = plan_text(p, f->scratch);
    kf_plan *again = kf_plan_parse(f->scratch, f->cx.diags, KF_STR("plan.kir"), text);
    if (!again || !kf_str_eq(text, plan_text(again, f->scratch)))
        return fail(k, "the plan of the form '%s' does not read back as itself", form);
    k->c->planned++;
    return true;
}

/* The plan as machine code, by the same rule. */
static bool run_compiled(checker *k, compiled *code)
{
    output o = {.finite = true};
    kf_tensor t;
    call c;

    for (uint32_t i = 0; i < CALL_COUNT; i++) {
        if (!calls_get(&k->calls, k->m, i, &c))
            continue;
        if (!compiled_call(code, &c.step, c.phase, &t, k->why))
            return fail(k, " in the compiled form");
        output_add(&k->calls, &o, &t);
    }
    k->c->ran++;
    double off = output_rms(&o, &k->ref);
    return off <= k->bound ||
           fail(k, "the compiled form is off by %.3e RMS; allowed are %.3e", off, k->bound);
}

static bool check_compiled(checker *k, fused *f)
{
    if (kf_diags_errors(f->cx.diags))
        return true;
    stage_id before = counters_stage(k->c, STAGE_COMPILED);
    const kf_plan *p = kf_schedule(f->m, f->cx.target, f->arena);
    compiled *code = compiled_open(f->arena, p, f->cx.target, k->calls.weights, k->why);
    bool ok = code ? run_compiled(k, code) : fail(k, " in the compiled form");

    if (code)
        compiled_close(code);
    counters_stage(k->c, before);
    return ok;
}

/* ---- forms ----------------------------------------------------------------------------------- */

/* Evaluates and, where it is |whole|, plans the form |f|, unless its text is known. */
static bool check_form(checker *k, fused *f, const char *form, bool whole)
{
    k->c->forms++;
    if (texts_first(&k->texts, f->hash, TEXT_EVALUATED)) {
        k->c->texts++;
        if (!compare(k, f->m, form))
            return false;
    }
    if (!whole || !texts_first(&k->texts, f->hash, TEXT_PLANNED))
        return true;
    stage_id before = counters_stage(k->c, STAGE_PLANS);
    bool ok = check_plan(k, f, form);
    counters_stage(k->c, before);
    return ok;
}

static bool run_form(checker *k, const fused_how *how, const char *form)
{
    fused f = fused_run(k->m, how);
    bool refused = f.cx.is_norm_rewrite_refused; /* then the form is the usual one */
    bool ok = refused || check_form(k, &f, form, !how->passes);

    fused_drop(&f);
    return ok;
}

/* The largest error that the written module may make, in f32 or with one kernel an op. */
static double bound_of(double error, const checker *k)
{
    return 2 * error + 1e-5 * output_largest(&k->ref);
}

static bool check_unfused(checker *k)
{
    double error = k->rounded.finite ? output_rms(&k->rounded, &k->ref) : INFINITY;

    k->bound = bound_of(error, k);
    k->last_rms = 0;
    bool ok = run_form(k, &(fused_how){.off = KF_UNFUSED_OFF, .texts = &k->texts}, "unfused");
    k->bound = bound_of(fmax(error, k->last_rms), k);
    return ok;
}

/* Norms without their mean, and without a column, where that is possible. */
static bool check_rewritten(checker *k)
{
    const fused_how rms = {.rewrite = KF_NORM_REWRITE_RMS, .texts = &k->texts},
                    crms = {.rewrite = KF_NORM_REWRITE_CRMS, .texts = &k->texts};

    return run_form(k, &rms, "rms norms") && run_form(k, &crms, "crms norms");
}

/* The pipeline again without |off|, a pass that changed nothing in |all|. */
static bool check_idle(checker *k, const fused *all, const kf_pass_info *off)
{
    fused f = fused_run(k->m, &(fused_how){.off = off->name});
    bool ok = text_same(text_hash(f.m), all->hash);

    fused_drop(&f);
    return ok ||
           fail(k, "'%s' reports no progress, but the form without it is another one", off->name);
}

static bool check_without(checker *k, const fused *all, const kf_pass_info *off)
{
    kf_pass_id id = (kf_pass_id)(off - kf_pass_infos);
    char form[64];

    if (!all->first[id].before)
        return k->how->seed % KF_PASS_COUNT != id || check_idle(k, all, off);
    fused f = fused_without(all, id, &k->texts);
    snprintf(form, sizeof form, "without %s", off->name);
    bool ok = check_form(k, &f, form, true);
    fused_drop(&f);
    return ok;
}

/* Each pass alone, and the pipeline without it. */
static bool check_single_passes(checker *k, const fused *all)
{
    for (uint32_t i = 0; i < KF_PASS_COUNT; i++) {
        const kf_pass_info *p = &kf_pass_infos[i];
        const fused_how alone = {.passes = p->name, .texts = &k->texts, .record = true};
        char form[64];
        snprintf(form, sizeof form, "only %s", p->name);
        if (!run_form(k, &alone, form) || (p->kind != KF_PASS_LOWER && !check_without(k, all, p)))
            return false;
    }
    return true;
}

/* Passes in an order that nobody chose. */
static bool check_shuffled(checker *k)
{
    uint64_t state = k->how->seed;
    kf_sbuf list = {.arena = k->arena};

    for (int i = 0; i < SHUFFLED; i++)
        kf_sbuf_printf(&list, "%s%s", i ? "," : "",
                       kf_pass_infos[random_u64(&state) % KF_PASS_COUNT].name);
    return run_form(k, &(fused_how){.passes = list.ptr, .texts = &k->texts, .record = true},
                    list.ptr);
}

static bool check_fused(checker *k)
{
    fused f = fused_run(k->m, &(fused_how){.texts = &k->texts, .record = true});
    bool ok = check_form(k, &f, "fused", true) && (!k->how->run || check_compiled(k, &f));

    if (ok) {
        counters_add_passes(k->c, &f.cx, &f.runs);
        counters_add_module(k->c, f.m, false);
    }
    ok = ok && check_rewritten(k) && check_single_passes(k, &f) && check_shuffled(k);
    fused_drop(&f);
    return ok;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* The module as written in f64 and rounded, with weights that give no NaN or infinity, if some are
 * found; |out_found| tells. */
static bool find_weights(checker *k, bool *out_found)
{
    bool fixed = k->how->how >= FILL_SEARCHED;

    *out_found = false;
    for (uint32_t i = 0; i < (fixed ? 1 : 2 * FILL_SEARCHED) && !*out_found; i++) {
        fill how = fixed ? k->how->how : (fill)(i % FILL_SEARCHED);
        k->calls.weights = module_weights(k->arena, k->m, how, k->how->seed + i / FILL_SEARCHED);
        if (!evaluate(k, k->m, KF_EVAL_IDEAL, &k->ref) ||
            !evaluate(k, k->m, KF_EVAL_ROUNDED, &k->rounded))
            return false;
        *out_found = k->ref.finite && (fixed || k->rounded.finite);
        k->c->searched += i == 1;
    }
    k->c->not_finite += !*out_found;
    return true;
}

verdict forms_check(const kf_module *m, const forms_choice *how, counters *c, kf_sbuf *why)
{
    checker k = {.arena = kf_arena_create("check"), .m = m, .how = how, .c = c, .why = why};
    verdict v = VERDICT_OK;
    bool found;

    k.texts = (texts){.arena = k.arena, .c = c};
    counters_start(c, STAGE_OTHER);
    counters_add_module(c, m, true);
    calls_begin(&k.calls, k.arena, m, how->seed);
    if (!find_weights(&k, &found)) {
        v = VERDICT_UNUSABLE;
    } else if (found) {
        texts_first(&k.texts, text_hash(m), TEXT_EVALUATED);
        v = check_unfused(&k) && check_fused(&k) ? VERDICT_OK : VERDICT_WRONG;
    }
    kf_arena_destroy(k.arena);
    counters_stage(c, STAGE_OTHER);
    return v;
}

bool forms_same(const kf_module *a, const kf_module *b, uint64_t seed, kf_sbuf *why)
{
    kf_arena *arena = kf_arena_create("same");
    output x, y;
    calls k;

    calls_begin(&k, arena, a, seed);
    k.weights = module_weights(arena, a, FILL_USUAL, seed);
    bool ok = calls_evaluate(&k, a, KF_EVAL_IDEAL, &x, why) &&
              calls_evaluate(&k, b, KF_EVAL_IDEAL, &y, why);
    double off = ok ? output_rms(&x, &y) : 0;
    if (ok && !(off <= 1e-9 * output_largest(&x))) {
        kf_sbuf_printf(why, "off by %.3e RMS in f64", off);
        ok = false;
    }
    kf_arena_destroy(arena);
    return ok;
}

/* ---- counting -------------------------------------------------------------------------------- */

static void count_run(const kf_module *m, const fused_how *how, counters *c)
{
    fused f = fused_run(m, how);

    counters_add_passes(c, &f.cx, &f.runs);
    fused_drop(&f);
}

void forms_count(const kf_module *m, counters *c)
{
    fused f = fused_run(m, &(fused_how){0});

    counters_add_module(c, m, true);
    counters_add_passes(c, &f.cx, &f.runs);
    counters_add_module(c, f.m, false);
    count_run(f.m, &(fused_how){0}, c); /* where nothing is left to do */
    fused_drop(&f);
    for (int to = KF_NORM_REWRITE_RMS; to <= KF_NORM_REWRITE_CRMS; to++)
        count_run(
            m, &(fused_how){.passes = "fold_weights,rewrite_norms", .rewrite = (kf_norm_rewrite)to},
            c);
    for (int i = 0; i < KF_PASS_COUNT; i++)
        count_run(m, &(fused_how){.passes = kf_pass_infos[i].name}, c);
}
