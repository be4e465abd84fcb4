/* SPDX-License-Identifier: Apache-2.0 */
/* verify_folds - weights as they are stored against weights as passes rewrote them.
 *
 * The graph as it was built, evaluated in f64, is the truth for the folded graph (all passes up to
 * the last that rewrites weights) in f64 and with roundings, and for the executables made with and
 * without folding. Errors are the largest difference over the largest logit. In f64 only the order
 * of sums differs: 1e-12. In f32 the gates are 1e-5, or 5e-5 where a column of the stream is
 * dropped, and twice the error of the unfolded form where that is larger (narrow caches). Weights
 * that fold_narrow rounds anew change results by about the rounding of their type: there 2^-5 is a
 * gate against wrong weights only.
 */
#include "base/json.h"
#include "driver/verbs.h"
#include "driver/verify.h"

#include <math.h>
#include <unistd.h>

#define LAST_FOLD "rewrite_norms"

static const kf_pass_id fold_passes[] = {KF_PASS_ID_merge_weights, KF_PASS_ID_fold_weights,
                                         KF_PASS_ID_rewrite_norms};

typedef struct form {
    const char *name;
    double error, bound;
} form;

typedef struct check {
    kf_compilation *c;
    const kf_prompt *p;
    const char *dir;
    const double *truth;
    form form[4];
    uint32_t n_forms, done, refused;
} check;

/* The largest difference over the largest number; NaN for a NaN anywhere. */
static double error_of(const check *k, const double *got)
{
    int64_t n = (int64_t)kf_verify_rows(k->c, k->p) * kf_spec_row_width(k->c->spec);
    double most = 0, size = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = fabs(got[i] - k->truth[i]);
        most = d > most || isnan(d) ? d : most;
        if (isnan(most))
            return most;
        size = fmax(size, fabs(k->truth[i]));
    }
    return size > 0 ? most / size : most;
}

static void add_form(check *k, const char *name, const double *got, double bound)
{
    k->form[k->n_forms++] = (form){name, error_of(k, got), bound};
}

/* The graph behind the last pass that rewrites weights. */
static bool fold(check *k, kf_compilation *one)
{
    kf_options *o = KF_NEW(one->arena, kf_options);

    *o = *one->opt;
    o->stop_after = LAST_FOLD;
    one->opt = o;
    one->runs = (kf_pass_runs){0};
    if (!kf_compilation_graph(one) || !kf_compilation_fuse(one, NULL))
        return false;
    for (uint32_t i = 0; i < one->passes.candidates.len; i++) {
        const kf_candidate *a = &one->passes.candidates.data[i];
        for (size_t p = 0; p < sizeof fold_passes / sizeof fold_passes[0]; p++) {
            k->done += a->pass == fold_passes[p] && a->reason == KF_REASON_NONE;
            k->refused += a->pass == fold_passes[p] && a->reason != KF_REASON_NONE;
        }
    }
    return true;
}

static bool add_executable(check *k, const char *name, const char *off, double bound)
{
    kf_compilation one = *k->c;
    kf_str exe = kf_strf(one.arena, "%s/model", k->dir),
           kfw = kf_strf(one.arena, "%s/model.kfw", k->dir);
    const double *got = NULL;

    one.runs = (kf_pass_runs){0};
    if (kf_compilation_graph(&one) && kf_compilation_fuse(&one, off) && kf_compilation_plan(&one) &&
        kf_compile_to(&one, exe.ptr, false))
        got = kf_verify_run(k->c, k->p, k->dir, exe.ptr, name, NULL, NULL);
    unlink(exe.ptr);
    unlink(kfw.ptr);
    if (got)
        add_form(k, name, got, bound);
    return got != NULL;
}

static bool compare(check *k)
{
    kf_compilation folded = *k->c;
    const double *rounded, *exact, *again;

    if (!kf_compilation_graph(k->c) ||
        !(k->truth = kf_verify_evaluate(k->c, k->p, KF_EVAL_IDEAL, "the graph")) ||
        !(rounded = kf_verify_evaluate(k->c, k->p, KF_EVAL_ROUNDED, "the rounded graph")) ||
        !fold(k, &folded) ||
        !(exact = kf_verify_evaluate(&folded, k->p, KF_EVAL_IDEAL, "the folded graph")) ||
        !(again = kf_verify_evaluate(&folded, k->p, KF_EVAL_ROUNDED, "the folded, rounded graph")))
        return false;
    bool drops = folded.passes.norm_rewrite == KF_NORM_REWRITE_CRMS;
    double gate = fmax(drops ? 5e-5 : 1e-5, 2 * error_of(k, rounded)), unfolded_gate = gate;
    if (folded.passes.fold_narrow)
        gate = fmax(gate, 0x1p-5);
    add_form(k, "folded, f64", exact, 1e-12);
    add_form(k, "folded, f32", again, gate);
    return add_executable(k, "unfolded executable", KF_FOLDS_OFF, unfolded_gate) &&
           add_executable(k, "folded executable", NULL, gate);
}

static void print_json(const check *k, bool ok)
{
    kf_sbuf text = {.arena = k->c->scratch};
    kf_json w = {.out = &text};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.verify_folds.1"));
    kf_json_kbool(&w, "ok", ok);
    kf_json_kint(&w, "folded", k->done);
    kf_json_kint(&w, "refused", k->refused);
    kf_json_key(&w, "forms");
    kf_json_open(&w, '[');
    for (uint32_t i = 0; i < k->n_forms; i++) {
        kf_json_open(&w, '{');
        kf_json_kstr(&w, "form", kf_str_from(k->form[i].name));
        kf_json_kdouble(&w, "error", k->form[i].error);
        kf_json_kdouble(&w, "bound", k->form[i].bound);
        kf_json_close(&w, '}');
    }
    kf_json_close(&w, ']');
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
}

static void print(const check *k, bool ok)
{
    if (k->c->opt->json) {
        print_json(k, ok);
        return;
    }
    printf("%-20s %12s %12s\n", "form", "error", "bound");
    for (uint32_t i = 0; i < k->n_forms; i++)
        printf("%-20s %12.3e %12.3e\n", k->form[i].name, k->form[i].error, k->form[i].bound);
    printf("%u folded, %u refused: %s\n", k->done, k->refused, ok ? "ok" : "exceeded");
}

void kf_verify_folds(kf_compilation *c, const kf_prompt *p)
{
    check k = {.c = c, .p = p, .dir = kf_scratch_dir(c)};
    const form *bad = NULL;

    if (!k.dir)
        return;
    if (compare(&k)) {
        for (uint32_t i = 0; i < k.n_forms && !bad; i++)
            bad = k.form[i].error <= k.form[i].bound ? NULL : &k.form[i];
        print(&k, bad == NULL);
    }
    if (bad)
        kf_diag_add(c->diags, KF_E0901, KF_NO_LOC,
                    "%s: off by %.3e of the largest logit, allowed are %.3e", bad->name, bad->error,
                    bad->bound);
    rmdir(k.dir);
}
