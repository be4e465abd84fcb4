/* SPDX-License-Identifier: Apache-2.0 */
/* verify_bisect - the first pass after which results differ.
 *
 * The pipeline runs once and a clone is kept after each pass; the evaluator, in f64 and without
 * rounding, runs the whole prompt and two decode steps over the clones that a binary search asks
 * for. A later pass that undid the damage would mislead the search; then there is none to find in
 * what comes out.
 */
#include "base/fs.h"
#include "base/json.h"
#include "driver/verify.h"
#include "ir/eval.h"
#include "ir/phase.h"
#include "ir/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Passes reassociate sums; in f64 that costs 1e-30 or so, and a wrong graph costs more than this.
 */
#define MAX_NMSE     1e-14
#define DECODE_STEPS 2

typedef struct snapshot {
    const char *pass;
    const kf_module *module;
} snapshot;

typedef struct bisection {
    kf_compilation *c;
    const kf_prompt *prompt;
    KF_VEC(snapshot) states; /* 0: as it was built */
    const double *want;
    int64_t n; /* logits of one evaluation */
} bisection;

double kf_nmse(const double *got, const double *want, int64_t n)
{
    double err = 0, size = 0;

    for (int64_t i = 0; i < n; i++) {
        bool same = got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
        double d = same ? 0 : got[i] - want[i];
        err += d * d;
        size += isfinite(want[i]) ? want[i] * want[i] : 0;
    }
    return err == 0 ? 0 : isfinite(err) && size > 0 ? err / size : INFINITY;
}

const char *kf_verify_entry(kf_arena *arena, const kf_module *m, bool one_token)
{
    const char *unsplit = kf_module_entry(m);

    for (int i = 0; i < KF_PHASE_ID_COUNT && !unsplit; i++) {
        const kf_phase_info *p = &kf_phase_infos[i];
        kf_str name = kf_strf(arena, "%s.%s", p->entry, p->name);
        if (p->one_token == one_token && kf_module_find_func(m, name))
            return name.ptr;
    }
    return unsplit ? unsplit : "main";
}

bool kf_verify_encode(kf_eval *e, kf_arena *arena, const kf_module *m, const kf_prompt *p,
                      kf_sbuf *why)
{
    const kf_phase_info *ph = &kf_phase_infos[KF_PHASE_ID_encode];
    kf_str split = kf_strf(arena, "%s.%s", ph->entry, ph->name);
    const char *func = kf_module_find_func(m, split) ? split.ptr : ph->entry;
    const int32_t *tokens = p->ids;
    uint32_t seq = 0;
    kf_eval_step step = {.n_seqs = 1, .seq = &seq, .n_tokens = &p->n, .tokens = &tokens};
    kf_tensor rows;

    if (m->syms.len != KF_SYM_MEMORY || !kf_module_find_func(m, kf_str_from(func)))
        return true;
    return kf_eval_run(e, func, &step, true, &rows, why);
}

static void keep(void *user, const kf_module *m, kf_pass_id pass)
{
    bisection *b = user;

    kf_vec_push(b->c->arena, &b->states,
                (snapshot){kf_pass_infos[pass].name, kf_module_clone(m, b->c->arena)});
}

/* Logits of the prompt but its last tokens, then of these one by one, as decode steps. */
static const double *evaluate(bisection *b, uint32_t index)
{
    kf_arena *a = b->c->arena;
    const kf_module *m = b->states.data[index].module;
    kf_eval *e = kf_eval_create(a, m, KF_EVAL_IDEAL, kf_compilation_weights(b->c), 1);
    bool decodes = b->c->spec->kind != KF_MODEL_ENCODER && b->prompt->n > DECODE_STEPS;
    uint32_t seq = 0;
    int64_t at = 0;
    double *logits = KF_NEW_N(a, double, kf_spec_row_width(b->c->spec) * b->prompt->n);
    kf_sbuf why = {.arena = b->c->scratch};

    bool ok = kf_verify_encode(e, a, m, b->prompt, &why);
    for (uint32_t done = 0; done < b->prompt->n;) {
        uint32_t n = done ? 1 : b->prompt->n - (decodes ? DECODE_STEPS : 0);
        const int32_t *tokens = b->prompt->ids + done;
        kf_eval_step step = {.n_seqs = 1, .seq = &seq, .n_tokens = &n, .tokens = &tokens};
        kf_tensor out;
        if (!ok || !kf_eval_run(e, kf_verify_entry(a, m, done > 0), &step, !done, &out, &why)) {
            kf_diag_add(b->c->diags, KF_E0901, KF_NO_LOC, "after %s: %.*s",
                        b->states.data[index].pass, KF_STR_ARG(kf_sbuf_view(&why)));
            return NULL;
        }
        memcpy(logits + at, out.data, (size_t)out.n * sizeof(double));
        at += out.n;
        done += n;
    }
    b->n = at;
    return logits;
}

/* Infinite where the graph cannot be evaluated. */
static double nmse_after(bisection *b, uint32_t index)
{
    const double *got = evaluate(b, index);

    return got ? kf_nmse(got, b->want, b->n) : INFINITY;
}

/* The first state that differs, given that |last| does. */
static uint32_t search(bisection *b, uint32_t last, double *out_nmse)
{
    uint32_t good = 0;

    while (last - good > 1) {
        uint32_t mid = good + (last - good) / 2;
        double nmse = nmse_after(b, mid);
        if (nmse > MAX_NMSE) {
            last = mid;
            *out_nmse = nmse;
        } else
            good = mid;
    }
    return last;
}

bool kf_verify_dir(kf_compilation *c, const char *dir)
{
    int err = kf_fs_make_dirs(dir);

    if (err)
        kf_diag_add(c->diags, KF_E0603, KF_NO_LOC, "%s: %s", dir, strerror(err));
    return !err;
}

static void write_state(bisection *b, const char *dir, const char *name, const kf_module *m)
{
    kf_str path = kf_strf(b->c->arena, "%s/%s.kir", dir, name);
    kf_sbuf text = {.arena = b->c->arena};

    kf_module_print(m, KF_PRINT_LOCS, &text);
    int err = kf_fs_write(path.ptr, kf_sbuf_view(&text), 0644);
    if (err)
        kf_diag_add(b->c->diags, KF_E0603, KF_NO_LOC, "%s: %s", path.ptr, strerror(err));
}

static void print_json(const bisection *b, uint32_t bad, double nmse)
{
    kf_sbuf text = {.arena = b->c->scratch};
    kf_json w = {.out = &text};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.bisect.1"));
    kf_json_kbool(&w, "ok", bad == 0);
    kf_json_kint(&w, "passes", (int64_t)b->states.len - 1);
    kf_json_key(&w, "pass");
    if (bad)
        kf_json_c(&w, b->states.data[bad].pass);
    else
        kf_json_null(&w);
    kf_json_kint(&w, "run", bad);
    kf_json_kdouble(&w, "nmse", nmse);
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
}

static void report(bisection *b, uint32_t bad, double nmse)
{
    uint32_t passes = b->states.len - 1;

    if (b->c->opt->json)
        print_json(b, bad, nmse);
    else if (!bad)
        printf("none of %u passes changes the results (NMSE %.1e)\n", passes, nmse);
    if (!bad)
        return;
    kf_diag *e = kf_diag_add(b->c->diags, KF_E0901, KF_NO_LOC,
                             "results differ first after pass %s, %u of %u: NMSE %.1e",
                             b->states.data[bad].pass, bad, passes, nmse);
    const char *dir = b->c->opt->output;
    kf_sbuf switches = {.arena = b->c->arena};
    if (!dir) {
        kf_diag_note(b->c->diags, e, KF_NO_LOC, "-o DIR writes before.kir and after.kir");
        return;
    }
    if (!kf_verify_dir(b->c, dir))
        return;
    write_state(b, dir, "before", b->states.data[bad - 1].module);
    write_state(b, dir, "after", b->states.data[bad].module);
    kf_compilation_switches(b->c, &switches);
    kf_diag_note(b->c->diags, e, KF_NO_LOC, "kerf opt --passes=%s%.*s %s/before.kir",
                 b->states.data[bad].pass, KF_STR_ARG(kf_sbuf_view(&switches)), dir);
}

void kf_verify_bisect(kf_compilation *c, const kf_prompt *p)
{
    bisection b = {.c = c, .prompt = p};

    if (!kf_compilation_graph(c))
        return;
    kf_vec_push(c->arena, &b.states, (snapshot){"build", kf_module_clone(c->module, c->arena)});
    b.want = evaluate(&b, 0);
    c->after_pass = keep;
    c->after_pass_user = &b;
    bool ok = b.want && kf_compilation_fuse(c, NULL);
    c->after_pass = NULL;
    c->after_pass_user = NULL;
    if (!ok)
        return;
    uint32_t errors = kf_diags_errors(c->diags), last = b.states.len - 1;
    double nmse = nmse_after(&b, last);
    if (kf_diags_errors(c->diags) == errors)
        report(&b, nmse > MAX_NMSE ? search(&b, last, &nmse) : 0, nmse);
}
