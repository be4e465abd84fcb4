/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_verify - the forms of a model against each other; or an executable's own check.
 *
 * The evaluator in f64 is the truth. The rounded evaluator, the unfused executable and the fused
 * one are compared with it on a seeded prompt, logits of every position. Rule: the RMS error of the
 * unfused form is at most twice that of the rounded evaluator, that of a fused form at most twice
 * the larger of these two, each plus 1e-5 of the largest logit. The fused executable also runs with
 * other numbers of threads (the same bits) and with the prompt in chunks, down to one token a call,
 * which are decode steps (the same rule). -o DIR keeps both executables.
 */
#include "base/json.h"
#include "driver/npy.h"
#include "driver/spawn.h"
#include "driver/verbs.h"
#include "driver/verify.h"
#include "frontend/weights_random.h"
#include "ir/eval.h"
#include "ir/phase.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** Logits, or an encoder's rows, [rows, width] of one form. */
typedef struct form {
    const char *name;
    const double *logits;
    double rms, worst_nmse;
} form;

typedef struct check {
    kf_compilation *c;
    const kf_prompt *p;
    uint32_t rows;
    int64_t width;
    const char *dir; /* scratch folder */
    form form[10];
    uint32_t n_forms;
} check;

/* ---- numbers --------------------------------------------------------------------------------- */

static void measure(const check *k, form *f, const double *ref)
{
    double sum = 0;

    for (uint32_t r = 0; r < k->rows; r++) {
        double err = 0, size = 0;
        for (int64_t i = 0; i < k->width; i++) {
            double want = ref[r * k->width + i], d = f->logits[r * k->width + i] - want;
            err += d * d;
            size += want * want;
        }
        sum += err;
        double nmse = err / (size > 0 ? size : 1);
        if (!(nmse <= f->worst_nmse))
            f->worst_nmse = nmse;
    }
    f->rms = sqrt(sum / ((double)k->rows * (double)k->width));
}

static double largest(const check *k, const double *v)
{
    double most = 0;

    for (int64_t i = 0; i < k->rows * k->width; i++)
        most = fmax(most, fabs(v[i]));
    return most;
}

/* ---- forms ----------------------------------------------------------------------------------- */

static void add_form(check *k, const char *name, const double *logits)
{
    form *f = &k->form[k->n_forms++];

    *f = (form){.name = name, .logits = logits};
    measure(k, f, k->form[0].logits);
}

uint32_t kf_verify_rows(const kf_compilation *c, const kf_prompt *p)
{
    return kf_spec_is_pooled(c->spec) ? 1 : p->n;
}

const double *kf_verify_evaluate(kf_compilation *c, const kf_prompt *p, kf_eval_mode mode,
                                 const char *name)
{
    kf_sbuf why = {.arena = c->scratch};
    kf_eval *e = kf_eval_create(c->arena, c->module, mode, kf_compilation_weights(c), 1);
    uint32_t seq = 0;
    const int32_t *tokens = p->ids;
    kf_eval_step step = {.n_seqs = 1, .seq = &seq, .n_tokens = &p->n, .tokens = &tokens};
    kf_tensor logits;

    if (kf_verify_encode(e, c->arena, c->module, p, &why) &&
        kf_eval_run(e, kf_verify_entry(c->arena, c->module, false), &step, true, &logits, &why))
        return logits.data;
    kf_diag_add(c->diags, KF_E0901, KF_NO_LOC, "%s: %.*s", name, KF_STR_ARG(kf_sbuf_view(&why)));
    return NULL;
}

static bool evaluate(check *k, kf_eval_mode mode, const char *name)
{
    const double *logits = kf_verify_evaluate(k->c, k->p, mode, name);

    if (logits)
        add_form(k, name, logits);
    return logits != NULL;
}

static kf_str ids_text(kf_arena *arena, const kf_prompt *p)
{
    kf_sbuf text = {.arena = arena};

    for (uint32_t i = 0; i < p->n; i++)
        kf_sbuf_printf(&text, "%s%d", i ? "," : "", p->ids[i]);
    return kf_sbuf_view(&text);
}

const double *kf_verify_run(kf_compilation *c, const kf_prompt *p, const char *dir, const char *exe,
                            const char *name, const char *option, const char *value)
{
    kf_str out = kf_strf(c->arena, "%s/logits.npy", dir), ids = ids_text(c->arena, p);
    const char *const run[] = {exe,     "run", "--ids", ids.ptr, "-n", "0", "--all-logits",
                               out.ptr, "-q",  option,  value,   NULL};
    const char *const embed[] = {exe,     "embed", "--ids", ids.ptr, "--npy",
                                 out.ptr, "-q",    option,  value,   NULL};
    const char *const pair[] = {
        exe, "run",          "--ids", ids.ptr, "--decoder-ids", ids.ptr, "-n",
        "0", "--all-logits", out.ptr, "-q",    option,          value,   NULL};
    const char *const *argv[] = {
        [KF_MODEL_DECODER] = run, [KF_MODEL_ENCODER] = embed, [KF_MODEL_ENCODER_DECODER] = pair};
    uint64_t n = (uint64_t)kf_verify_rows(c, p) * (uint64_t)kf_spec_row_width(c->spec);
    kf_exit e = {0};
    int err = kf_spawn(argv[c->spec->kind], "/dev/null", &e);
    const double *logits = err || e.status ? NULL : kf_npy_read_f32(c->arena, out.ptr, n);

    unlink(out.ptr);
    if (!logits)
        kf_diag_add(c->diags, KF_E0901, KF_NO_LOC, "the %s executable gave no logits (status %d)",
                    name, e.status);
    return logits;
}

/* |option| NULL: none. */
static bool run_form(check *k, const char *exe, const char *name, const char *option,
                     const char *value)
{
    const double *logits = kf_verify_run(k->c, k->p, k->dir, exe, name, option, value);

    if (logits)
        add_form(k, name, logits);
    return logits != NULL;
}

/* The ways to run one executable. */
static const struct {
    const char *name, *option, *value;
    bool same_bits; /* as the plain run */
    bool parts;     /* the prompt in parts, which an encoder does not take */
} variants[] = {
    {"fused", NULL, NULL, true, false},
    {"1 thread", "--threads", "1", true, false},
    {"3 threads", "--threads", "3", true, false},
    {"7 threads", "--threads", "7", true, false},
    {"chunks of 5", "--prefill-chunk", "5", false, true},
    {"one by one", "--prefill-chunk", "1", false, true},
};
#define N_VARIANTS  (sizeof variants / sizeof variants[0])
#define FIRST_FUSED 3 /* behind reference, rounded and unfused */

/* ORDER: those in parts are last. */
static uint32_t n_variants(const check *k)
{
    uint32_t n = N_VARIANTS;

    while (k->c->spec->kind == KF_MODEL_ENCODER && variants[n - 1].parts)
        n--;
    return n;
}

static bool run_variants(check *k, const char *exe)
{
    for (uint32_t i = 0; i < n_variants(k); i++)
        if (!run_form(k, exe, variants[i].name, variants[i].option, variants[i].value))
            return false;
    return true;
}

/* The executable of a form: kept in the folder of -o, else in the scratch folder for a while. */
static kf_str form_path(const check *k, const char *off)
{
    const char *keep = k->c->opt->output;

    return kf_strf(k->c->arena, "%s/%s", keep ? keep : k->dir, off ? "unfused" : "fused");
}

static bool compile_form(check *k, const char *off)
{
    kf_compilation one = *k->c;
    kf_spec spec = *one.spec;
    kf_str exe = form_path(k, off);

    one.runs = (kf_pass_runs){0};
    if (off) /* it runs one prompt: kernels for more sequences would not run */
        spec.build.max_sequences.v = 1;
    one.spec = &spec;
    bool ok = kf_compilation_graph(&one) && kf_compilation_fuse(&one, off) &&
              kf_compilation_plan(&one) && kf_compile_to(&one, exe.ptr, false) &&
              (off ? run_form(k, exe.ptr, "unfused", NULL, NULL) : run_variants(k, exe.ptr));
    if (!one.opt->output) {
        unlink(exe.ptr);
        unlink(kf_strf(one.arena, "%.*s.kfw", KF_STR_ARG(exe)).ptr);
    }
    return ok;
}

/* ---- the verb -------------------------------------------------------------------------------- */

static void print(const check *k, double bound, bool ok)
{
    if (k->c->opt->json) {
        kf_sbuf text = {.arena = k->c->scratch};
        kf_json w = {.out = &text};
        kf_json_open(&w, '{');
        kf_json_kstr(&w, "schema", KF_STR("kerf.verify.1"));
        kf_json_kbool(&w, "ok", ok);
        kf_json_kdouble(&w, "bound_rms", bound);
        kf_json_key(&w, "forms");
        kf_json_open(&w, '[');
        for (uint32_t i = 0; i < k->n_forms; i++) {
            kf_json_open(&w, '{');
            kf_json_kstr(&w, "form", kf_str_from(k->form[i].name));
            kf_json_kdouble(&w, "rms", k->form[i].rms);
            kf_json_kdouble(&w, "worst_row_nmse", k->form[i].worst_nmse);
            kf_json_close(&w, '}');
        }
        kf_json_close(&w, ']');
        kf_json_close(&w, '}');
        printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
        return;
    }
    printf("%-12s %12s %16s\n", "form", "rms error", "worst row NMSE");
    for (uint32_t i = 1; i < k->n_forms; i++)
        printf("%-12s %12.3e %16.3e\n", k->form[i].name, k->form[i].rms, k->form[i].worst_nmse);
    printf("bound of the fused forms: %.3e: %s\n", bound, ok ? "ok" : "exceeded");
}

/* The first form that breaks its rule, or NULL. */
static const form *first_bad(const check *k, double unfused_bound, double bound)
{
    if (!(k->form[FIRST_FUSED - 1].rms <= unfused_bound))
        return &k->form[FIRST_FUSED - 1];
    size_t bytes = (size_t)k->rows * (size_t)k->width * sizeof(double);

    for (uint32_t i = 0; i < n_variants(k); i++) {
        const form *f = &k->form[FIRST_FUSED + i];
        if (!(f->rms <= bound))
            return f;
        if (variants[i].same_bits && memcmp(f->logits, k->form[FIRST_FUSED].logits, bytes))
            return f;
    }
    return NULL;
}

static void verify_forms(check *k)
{
    kf_compilation *c = k->c;

    if (!kf_compilation_graph(c) || !evaluate(k, KF_EVAL_IDEAL, "reference") ||
        !evaluate(k, KF_EVAL_ROUNDED, "rounded") || !compile_form(k, KF_UNFUSED_OFF) ||
        !compile_form(k, NULL))
        return;
    double slack = 1e-5 * largest(k, k->form[0].logits);
    double bound = 2 * fmax(k->form[1].rms, k->form[2].rms) + slack;
    const form *bad = first_bad(k, 2 * k->form[1].rms + slack, bound);
    print(k, bound, bad == NULL);
    if (bad > &k->form[FIRST_FUSED] && bad->rms <= bound)
        kf_diag_add(c->diags, KF_E0901, KF_NO_LOC, "the form '%s' gives other bits than '%s'",
                    bad->name, k->form[FIRST_FUSED].name);
    else if (bad)
        kf_diag_add(c->diags, KF_E0901, KF_NO_LOC,
                    "the form '%s' is off by %.3e RMS, allowed are %.3e", bad->name, bad->rms,
                    bad < &k->form[FIRST_FUSED] ? 2 * k->form[1].rms + slack : bound);
}

/* splitmix64 (Steele, Lea and Flood 2014) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* One call of the evaluator takes the whole prompt, with logits of every position. False after a
 * diagnostic. */
static bool prompt_tokens(const kf_compilation *c, uint32_t *out)
{
    const kf_spec_build *b = &c->spec->build;
    int64_t most = b->max_tokens.v < b->max_positions.v ? b->max_tokens.v : b->max_positions.v;
    int64_t n = c->opt->tokens ? c->opt->tokens : most < 24 ? most : 24;

    *out = (uint32_t)n;
    if (n <= most)
        return true;
    kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                "--tokens takes 1 to %" PRId64 ", which is what the model takes in a call, not "
                "%" PRId64,
                most, n);
    return false;
}

/* The description with its weights, or seeded ones, and a seeded prompt. */
static bool prepare(kf_compilation *c, kf_prompt *out)
{
    uint64_t state = (uint64_t)c->opt->seed;

    if (!kf_compilation_load(c, c->opt->operand) || !kf_compilation_target(c))
        return false;
    if (!kf_compilation_weights(c))
        c->random = kf_weights_random_source(c->arena, c->spec, state,
                                             kf_src_given(c->spec->dtype.src) ? c->spec->dtype.v
                                                                              : KF_DTYPE_f32);
    if (!prompt_tokens(c, &out->n))
        return false;
    out->ids = KF_NEW_N(c->arena, int32_t, out->n);
    for (uint32_t i = 0; i < out->n; i++)
        out->ids[i] = (int32_t)(next_random(&state) % (uint64_t)c->spec->vocab_size.v);
    return true;
}

static void run_forms(kf_compilation *c, const kf_prompt *p)
{
    check k = {.c = c, .p = p, .rows = kf_verify_rows(c, p), .width = kf_spec_row_width(c->spec)};

    k.dir = kf_scratch_dir(c);
    if (!k.dir)
        return;
    verify_forms(&k);
    rmdir(k.dir);
}

int kf_verb_verify(kf_compilation *c)
{
    kf_prompt p;

    if (kf_is_executable(c->opt->operand))
        return kf_run_executable(c, c->opt->operand, "verify");
    if (!prepare(c, &p))
        return 0;
    if (c->opt->bisect)
        kf_verify_bisect(c, &p);
    else if (c->opt->layers)
        kf_verify_layers(c, &p);
    else if (c->opt->folds)
        kf_verify_folds(c, &p);
    else
        run_forms(c, &p);
    return 0;
}
