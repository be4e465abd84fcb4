/* SPDX-License-Identifier: Apache-2.0 */
/* forms - see forms.h. */
#include "tests/graphs/forms.h"

#include "codegen/target_cpu.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "tests/graphs/compiled.h"
#include "tests/unit/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SEQS = 3, CALLS = 3, MAX_TOKENS = 4 };

/** Tokens of each sequence in each call; the second call is a decode step. */
static const uint32_t n_tokens[CALLS][SEQS] = {{3, 1, 4}, {1, 1, 1}, {2, 0, 1}};

/** Logits of all calls, one behind the other. */
typedef struct output {
    double *v;
    int64_t n;
    bool finite;
} output;

typedef struct checker {
    kf_arena *arena; /* outputs */
    const kf_module *m;
    const forms_choice *how;
    const kf_tensor_source *weights;
    int32_t tokens[CALLS][SEQS][MAX_TOKENS];
    output ref, rounded;
    double bound; /* of the rounded evaluator */
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

/* ---- evaluating ------------------------------------------------------------------------------ */

static uint32_t sequences(const kf_module *m)
{
    int64_t hi = m->syms.data[KF_SYM_S].hi;

    return hi < SEQS ? (uint32_t)hi : SEQS;
}

/** The arguments of call number |number|. */
typedef struct call {
    uint32_t seq[SEQS], tokens[SEQS];
    const int32_t *ids[SEQS];
    kf_eval_step step;
} call;

static void make_call(const checker *k, uint32_t number, call *c)
{
    c->step = (kf_eval_step){0, c->seq, c->tokens, c->ids, NULL};
    for (uint32_t s = 0; s < sequences(k->m); s++) {
        if (!n_tokens[number][s])
            continue;
        c->seq[c->step.n_seqs] = s;
        c->tokens[c->step.n_seqs] = n_tokens[number][s];
        c->ids[c->step.n_seqs++] = k->tokens[number][s];
    }
}

/* The text that the encoder takes of each sequence: what that begins with. */
static void make_texts(const checker *k, call *c)
{
    c->step = (kf_eval_step){0, c->seq, c->tokens, c->ids, NULL};
    for (uint32_t s = 0; s < sequences(k->m); s++) {
        uint32_t first = 0;
        while (!n_tokens[first][s])
            first++;
        c->seq[s] = s;
        c->tokens[s] = n_tokens[first][s];
        c->ids[s] = k->tokens[first][s];
        c->step.n_seqs++;
    }
}

/* The first of two functions that the module has, or NULL. */
static const char *either(const kf_module *m, const char *split, const char *whole)
{
    return kf_module_find_func(m, kf_str_from(split))   ? split
           : kf_module_find_func(m, kf_str_from(whole)) ? whole
                                                        : NULL;
}

/* The decoder's function for call number |number|, or NULL. */
static const char *decoder_of(const kf_module *m, uint32_t number)
{
    return either(m, number == 1 ? "main.decode" : "main.prefill", "main");
}

static void add_output(checker *k, const kf_tensor *t, output *o)
{
    o->v = kf_arena_grow(k->arena, o->v, (size_t)o->n * sizeof *o->v,
                         (size_t)(o->n + t->n) * sizeof *o->v, 8);
    memcpy(o->v + o->n, t->data, (size_t)t->n * sizeof *o->v);
    o->n += t->n;
    for (int64_t i = 0; i < t->n; i++)
        o->finite &= isfinite(t->data[i]) != 0;
}

static bool run_call(checker *k, kf_eval *e, const char *func, const call *c, output *o)
{
    kf_tensor t;
    bool ok = !func || kf_eval_run(e, func, &c->step, true, &t, k->why);

    if (func && ok)
        add_output(k, &t, o);
    return ok;
}

/* The encoder's call, where there is one, and then the decoder's. */
static bool evaluate(checker *k, const kf_module *m, kf_eval_mode mode, output *o)
{
    kf_arena *a = kf_arena_create("eval");
    kf_eval *e = kf_eval_create(a, m, mode, k->weights, SEQS);
    call c;

    *o = (output){.finite = true};
    make_texts(k, &c);
    bool ok = run_call(k, e, either(m, "encoder.encode", "encoder"), &c, o);
    for (uint32_t i = 0; ok && i < CALLS; i++) {
        make_call(k, i, &c);
        ok = run_call(k, e, decoder_of(m, i), &c, o);
    }
    kf_arena_destroy(a);
    return ok;
}

/* ---- comparing ------------------------------------------------------------------------------- */

static double largest(const output *o)
{
    double most = 0;

    for (int64_t i = 0; i < o->n; i++)
        most = fmax(most, fabs(o->v[i]));
    return most;
}

static double rms(const output *a, const output *b)
{
    double sum = 0;

    for (int64_t i = 0; i < a->n; i++)
        sum += (a->v[i] - b->v[i]) * (a->v[i] - b->v[i]);
    return a->n ? sqrt(sum / (double)a->n) : 0;
}

/* Adversarial values may leave the range of f32 where a form stores what another keeps, and of rows
 * without variance only the rounding of their mean is left: such forms are compared in f64 only. */
static bool compare(checker *k, const kf_module *m, const char *form, double *out_rms)
{
    output ideal, rounded;

    if (!evaluate(k, m, KF_EVAL_IDEAL, &ideal) || !evaluate(k, m, KF_EVAL_ROUNDED, &rounded))
        return fail(k, " in the form '%s'", form);
    if (ideal.n != k->ref.n)
        return fail(k, "the form '%s' has %lld outputs, not %lld", form, (long long)ideal.n,
                    (long long)k->ref.n);
    double most = largest(&k->ref), off = rms(&ideal, &k->ref);
    /* Rows without variance leave nothing but the noise of f64, enlarged by 1 / sqrt(eps). */
    double noise = k->how->how == FILL_CONSTANT ? 1e-10 : 1e-14;
    if (!(off <= 1e-9 * most + noise))
        return fail(k, "the form '%s' is off by %.3e RMS in f64; the largest output is %.3e", form,
                    off, most);
    *out_rms = rms(&rounded, &k->ref);
    bool skip = k->how->how == FILL_CONSTANT ||
                (k->how->how >= FILL_SEARCHED && (!rounded.finite || !k->rounded.finite));
    if (!skip && !(*out_rms <= k->bound))
        return fail(k, "the form '%s' is off by %.3e RMS rounded; allowed are %.3e", form, *out_rms,
                    k->bound);
    return true;
}

/* ---- forms ----------------------------------------------------------------------------------- */

typedef struct form {
    const char *name;
    const char *passes, *off; /* of the pipeline */
    kf_norm_rewrite rewrite;
    bool count; /* passes and ops of this form */
    double rms;
} form;

static fused run_rewriting(const kf_module *m, const char *passes, const char *off, bool verify,
                           kf_norm_rewrite rewrite)
{
    fused f = {.arena = kf_arena_create("form"), .scratch = kf_arena_create("scratch")};
    kf_pipeline_options p = {.passes = passes, .off = off, .verify_each = verify, .out = stderr};

    f.m = kf_module_clone(m, f.arena);
    f.cx = (kf_pass_ctx){.arena = f.arena,
                         .scratch = f.scratch,
                         .target = kf_target_cpu(f.arena, "x86-64-v3"),
                         .diags = kf_diags_create(f.arena),
                         .norm_rewrite = rewrite};
    kf_pipeline_run(f.m, &f.cx, &p, &f.runs);
    return f;
}

fused forms_run(const kf_module *m, const char *passes, const char *off, bool verify)
{
    return run_rewriting(m, passes, off, verify, KF_NORM_REWRITE_NONE);
}

void forms_drop(fused *f)
{
    kf_arena_destroy(f->arena);
    kf_arena_destroy(f->scratch);
}

static kf_str plan_text(const kf_plan *p, kf_arena *a)
{
    kf_sbuf text = {.arena = a};

    kf_plan_print(p, KF_PRINT_LOCS, &text);
    return kf_sbuf_view(&text);
}

/* The plan of a whole form is valid and reads back as itself. */
static bool check_plan(checker *k, fused *f, const char *name)
{
    if (kf_diags_errors(f->cx.diags)) {
        k->c->no_kernel++;
        return true;
    }
    if (!kf_module_verify(f->m, KF_VERIFY_FUSED, k->why))
        return fail(k, "the form '%s' is not wholly in regions", name);
    kf_plan *p = kf_schedule(f->m, f->cx.target, f->arena);
    if (!kf_plan_verify(p, k->why))
        return fail(k, "the plan of the form '%s' is not valid", name);
    kf_str text = plan_text(p, f->scratch);
    kf_plan *again = kf_plan_parse(f->scratch, f->cx.diags, KF_STR("plan.kir"), text);
    if (!again || !kf_str_eq(text, plan_text(again, f->scratch)))
        return fail(k, "the plan of the form '%s' does not read back as itself", name);
    k->c->planned++;
    return true;
}

/* The plan as machine code, by the same rule. */
static bool check_compiled(checker *k, fused *f)
{
    if (kf_diags_errors(f->cx.diags))
        return true;
    const kf_plan *p = kf_schedule(f->m, f->cx.target, f->arena);
    compiled *code = compiled_open(f->arena, p, f->cx.target, k->weights, k->why);
    output o = {.finite = true};

    for (uint32_t i = 0; code && i < CALLS; i++) {
        call c;
        kf_tensor t;
        make_call(k, i, &c);
        if (!compiled_call(code, &c.step, i == 1, &t, k->why))
            return fail(k, " in the compiled form");
        add_output(k, &t, &o);
    }
    if (!code)
        return fail(k, " in the compiled form");
    compiled_close(code);
    k->c->ran++;
    double off = o.n == k->ref.n ? rms(&o, &k->ref) : INFINITY;
    return off <= k->bound ||
           fail(k, "the compiled form is off by %.3e RMS; allowed are %.3e", off, k->bound);
}

static bool check_form(checker *k, form *how)
{
    fused f = run_rewriting(k->m, how->passes, how->off, true, how->rewrite);
    bool refused = f.cx.is_norm_rewrite_refused; /* then the form is the usual one */
    bool ok = refused || (compare(k, f.m, how->name, &how->rms) &&
                          (how->passes || check_plan(k, &f, how->name)));

    ok = ok && (!how->count || !k->how->run || check_compiled(k, &f));
    if (ok && how->count) {
        counters_add_passes(k->c, &f.cx, &f.runs);
        counters_add_module(k->c, f.m);
    }
    forms_drop(&f);
    return ok;
}

/* Norms without their mean, and without a column, where that is possible. */
static bool check_rewritten(checker *k)
{
    form rms = {.name = "rms norms", .rewrite = KF_NORM_REWRITE_RMS},
         crms = {.name = "crms norms", .rewrite = KF_NORM_REWRITE_CRMS};

    return check_form(k, &rms) && check_form(k, &crms);
}

/* Each chosen pass alone, and the pipeline without it. */
static bool check_single_passes(checker *k)
{
    for (uint32_t i = 0; i < k->how->n; i++) {
        const kf_pass_info *p = &kf_pass_infos[(k->how->first + i) % KF_PASS_COUNT];
        form alone = {.name = kf_strf(k->arena, "only %s", p->name).ptr, .passes = p->name};
        form without = {.name = kf_strf(k->arena, "without %s", p->name).ptr, .off = p->name};
        if (!check_form(k, &alone) || (p->kind != KF_PASS_LOWER && !check_form(k, &without)))
            return false;
    }
    return true;
}

/* ---- values ---------------------------------------------------------------------------------- */

static void draw_tokens(checker *k)
{
    uint64_t state = k->how->seed;
    int64_t vocabulary = module_vocabulary(k->m);

    for (int i = 0; i < CALLS; i++)
        for (int s = 0; s < SEQS; s++)
            for (int t = 0; t < MAX_TOKENS; t++)
                k->tokens[i][s][t] = (int32_t)(random_u64(&state) % (uint64_t)vocabulary);
}

/* The module as written in f64 and rounded, with weights that give no NaN or infinity, if some are
 * found; |out_found| tells. */
static bool find_weights(checker *k, bool *out_found)
{
    bool fixed = k->how->how >= FILL_SEARCHED;

    *out_found = false;
    for (uint32_t i = 0; i < (fixed ? 1 : 2 * FILL_SEARCHED) && !*out_found; i++) {
        fill how = fixed ? k->how->how : (fill)(i % FILL_SEARCHED);
        k->weights = module_weights(k->arena, k->m, how, k->how->seed + i / FILL_SEARCHED);
        if (!evaluate(k, k->m, KF_EVAL_IDEAL, &k->ref) ||
            !evaluate(k, k->m, KF_EVAL_ROUNDED, &k->rounded))
            return false;
        *out_found = k->ref.finite && (fixed || k->rounded.finite);
        k->c->searched += i == 1;
    }
    k->c->not_finite += !*out_found;
    return true;
}

/* Twice what rounding costs the written module, or the form with one kernel an op. */
static double bound_of(double error, const checker *k)
{
    return 2 * error + 1e-5 * largest(&k->ref);
}

bool forms_check(const kf_module *m, const forms_choice *how, counters *c, kf_sbuf *why)
{
    checker k = {.arena = kf_arena_create("check"), .m = m, .how = how, .c = c, .why = why};
    form unfused = {.name = "unfused", .off = KF_UNFUSED_OFF};
    form all = {.name = "fused", .count = true};
    bool found;

    counters_add_module(c, m);
    draw_tokens(&k);
    bool ok = find_weights(&k, &found);
    if (ok && found) {
        double error = k.rounded.finite ? rms(&k.rounded, &k.ref) : INFINITY;
        k.bound = bound_of(error, &k);
        ok = check_form(&k, &unfused);
        k.bound = bound_of(fmax(error, unfused.rms), &k);
        ok = ok && check_form(&k, &all) && check_rewritten(&k) && check_single_passes(&k);
    }
    kf_arena_destroy(k.arena);
    return ok;
}

bool forms_same(const kf_module *a, const kf_module *b, uint64_t seed, kf_sbuf *why)
{
    const forms_choice how = {.seed = seed};
    counters ignored = {0};
    checker k = {.arena = kf_arena_create("same"), .m = a, .how = &how, .c = &ignored, .why = why};
    output other;

    draw_tokens(&k);
    k.weights = module_weights(k.arena, a, FILL_USUAL, seed);
    bool ok = evaluate(&k, a, KF_EVAL_IDEAL, &k.ref) && evaluate(&k, b, KF_EVAL_IDEAL, &other);
    double off = ok && other.n == k.ref.n ? rms(&other, &k.ref) : INFINITY;
    ok = off <= 1e-9 * largest(&k.ref) || (ok && fail(&k, "off by %.3e RMS in f64", off));
    kf_arena_destroy(k.arena);
    return ok;
}

void forms_count(const kf_module *m, counters *c)
{
    fused f = forms_run(m, NULL, NULL, false);

    counters_add_module(c, m);
    counters_add_passes(c, &f.cx, &f.runs);
    counters_add_module(c, f.m);
    fused again = forms_run(f.m, NULL, NULL, false); /* where nothing is left to do */
    counters_add_passes(c, &again.cx, &again.runs);
    forms_drop(&again);
    forms_drop(&f);
    for (int to = KF_NORM_REWRITE_RMS; to <= KF_NORM_REWRITE_CRMS; to++) {
        f = run_rewriting(m, "fold_weights,rewrite_norms", NULL, false, (kf_norm_rewrite)to);
        counters_add_passes(c, &f.cx, &f.runs);
        forms_drop(&f);
    }
    for (int i = 0; i < KF_PASS_COUNT; i++) {
        f = forms_run(m, kf_pass_infos[i].name, NULL, false);
        counters_add_passes(c, &f.cx, &f.runs);
        forms_drop(&f);
    }
}
