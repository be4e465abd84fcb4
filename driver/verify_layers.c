/* SPDX-License-Identifier: Apache-2.0 */
/* verify_layers - the first region that differs between two forms.
 *
 * Graph: the evaluator, in f64, runs the description as it was built and as it was fused. A
 * region's result whose node is still one that was built (nodes keep their serials) is compared
 * with that node's value. Kernels: the evaluator, rounding as storage does, runs the fused form,
 * and each region's kernel runs on the very operands that the evaluator had. So the first line
 * names a wrong rewrite, the second wrong code; errors of earlier regions do not add up in it.
 */
#include "base/fs.h"
#include "base/json.h"
#include "driver/npy.h"
#include "driver/region_run.h"
#include "driver/verify.h"
#include "ir/text.h"

#include <stdio.h>
#include <string.h>

#define GRAPH_NMSE 1e-14 /* reassociated sums in f64 */

/** The value of a node of the graph as it was built. */
typedef struct record {
    kf_str func; /* without its phase */
    uint32_t call, layer, serial;
    kf_tensor value;
} record;

/** The first difference that was met. */
typedef struct difference {
    bool found;
    kf_str func;
    uint32_t layer;
    const kf_node *region;
    double nmse, bound;
} difference;

typedef struct walk {
    kf_compilation *c;
    const kf_prompt *prompt;
    kf_arena *arena;
    KF_VEC(uint32_t) wanted; /* serials of nodes that give results of regions */
    KF_VEC(record) records;
    uint32_t call; /* 0: the prompt but its last token; 1: that one, as a decode step */
    kf_region_run *kernels;
    difference graph, kernel;
    uint32_t compared, ran;
    const char *dir; /* for the operands of the first difference; NULL: none */
} walk;

/* ---- what is kept of the graph as it was built ----------------------------------------------- */

static bool is_wanted(const walk *w, uint32_t serial)
{
    for (uint32_t i = 0; i < w->wanted.len; i++)
        if (w->wanted.data[i] == serial)
            return true;
    return false;
}

/* The node whose value result |r| of a region is, or NULL. */
static const kf_node *result_node(const kf_node *region, uint32_t r)
{
    return kf_value_node(region->body, region->body->results.data[r]);
}

static void want_results(walk *w, const kf_module *fused)
{
    for (uint32_t f = 0; f < fused->funcs.len; f++)
        for (uint32_t i = 0; i < fused->funcs.data[f]->nodes.len; i++) {
            const kf_node *n = &fused->funcs.data[f]->nodes.data[i];
            for (uint32_t r = 0; n->op == KF_OP_region && r < n->n_out; r++)
                if (result_node(n, r))
                    kf_vec_push(w->arena, &w->wanted, result_node(n, r)->serial);
        }
}

static kf_tensor copy_of(kf_arena *a, const kf_tensor *t)
{
    kf_tensor c = kf_tensor_new(a, t->rank, t->dim);

    memcpy(c.data, t->data, (size_t)t->n * sizeof(double));
    return c;
}

static void record_node(void *user, const kf_graph *g, uint32_t layer, const kf_node *n,
                        const kf_tensor *const *in, const kf_tensor *out, const int64_t *sym_values)
{
    walk *w = user;

    (void)in;
    (void)sym_values;
    if (!out[0].kv && is_wanted(w, n->serial))
        kf_vec_push(w->arena, &w->records,
                    (record){kf_func_base_name(g->name), w->call, layer, n->serial,
                             copy_of(w->arena, &out[0])});
}

static const record *find_record(const walk *w, kf_str func, uint32_t layer, uint32_t serial)
{
    for (uint32_t i = 0; i < w->records.len; i++) {
        const record *r = &w->records.data[i];
        if (r->serial == serial && r->layer == layer && r->call == w->call &&
            kf_str_eq(r->func, kf_func_base_name(func)))
            return r;
    }
    return NULL;
}

/* ---- what a region was given ----------------------------------------------------------------- */

static void write_failed(walk *w, const char *path, int err)
{
    if (err)
        kf_diag_add(w->c->diags, KF_E0603, KF_NO_LOC, "%s: %s", path, strerror(err));
}

static void write_tensor(walk *w, const char *name, uint32_t i, const kf_tensor *t)
{
    kf_str path = kf_strf(w->arena, "%s/%s%u.npy", w->dir, name, i);

    if (!t->kv && t->n) /* caches are as the evaluator has them */
        write_failed(w, path.ptr, kf_npy_write(w->arena, path.ptr, t));
}

/* The body as a function that `kerf opt` reads. */
static void write_body(walk *w, const kf_node *region)
{
    kf_module alone = *w->c->module;
    kf_graph body = *region->body;
    kf_graph *funcs[] = {&body};
    kf_sbuf text = {.arena = w->arena};
    kf_str path = kf_strf(w->arena, "%s/region.kir", w->dir);

    body.name = KF_STR("region");
    alone.funcs.data = funcs;
    alone.funcs.len = 1;
    kf_module_print(&alone, KF_PRINT_LOCS, &text);
    write_failed(w, path.ptr, kf_fs_write(path.ptr, kf_sbuf_view(&text), 0644));
}

static void write_region(walk *w, const kf_node *region, const kf_tensor *const *in,
                         const kf_tensor *want, const kf_tensor *got)
{
    if (!w->dir || !kf_verify_dir(w->c, w->dir))
        return;
    write_body(w, region);
    for (uint32_t i = 0; i < region->n_in; i++)
        write_tensor(w, "operand", i, in[i]);
    for (uint32_t i = 0; i < region->n_out; i++) {
        write_tensor(w, "want", i, &want[i]);
        write_tensor(w, "got", i, &got[i]);
    }
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* True, and noted, if this is the first difference. */
static bool differs(difference *d, const kf_graph *g, uint32_t layer, const kf_node *region,
                    double nmse, double bound)
{
    if (d->found || nmse <= bound)
        return false;
    *d = (difference){true, g->name, layer, region, nmse, bound};
    return true;
}

static void compare_values(void *user, const kf_graph *g, uint32_t layer, const kf_node *n,
                           const kf_tensor *const *in, const kf_tensor *out,
                           const int64_t *sym_values)
{
    walk *w = user;

    (void)sym_values;
    for (uint32_t r = 0; n->op == KF_OP_region && r < n->n_out && !w->graph.found; r++) {
        const kf_node *from = result_node(n, r);
        const record *was = from ? find_record(w, g->name, layer, from->serial) : NULL;
        if (!was || out[r].kv || was->value.n != out[r].n)
            continue;
        w->compared++;
        double nmse = kf_nmse(out[r].data, was->value.data, out[r].n);
        kf_tensor want[KF_MAX_RESULTS];
        memcpy(want, out, n->n_out * sizeof *out); /* of the others nothing else is known */
        want[r] = was->value;
        if (differs(&w->graph, g, layer, n, nmse, GRAPH_NMSE))
            write_region(w, n, in, want, out);
    }
}

/* What storing in |t| and summing in f32 may cost. */
static double kernel_bound(const kf_type *t)
{
    return t->dtype == KF_DTYPE_f32    ? 1e-9
           : t->dtype == KF_DTYPE_f16  ? 1e-6
           : t->dtype == KF_DTYPE_bf16 ? 4e-5
                                       : 0;
}

static bool has_argmax(const kf_node *n)
{
    const kf_accs *accs = n->op == KF_OP_row_stat     ? &KF_ATTR_OF(n, row_stat)->acc
                          : n->op == KF_OP_row_reduce ? &KF_ATTR_OF(n, row_reduce)->acc
                                                      : NULL;

    for (uint8_t i = 0; accs && i < accs->n; i++)
        if (accs->acc[i] == KF_ACC_argmax)
            return true;
    return false;
}

/* Result |r| of a region tells which column is the largest: of nearly equal ones, rounding decides. How
 * large it is stands in another result. */
static bool is_choice(const kf_node *region, uint32_t r)
{
    const kf_node *n = result_node(region, r);

    while (n && n->n_in && !has_argmax(n) && (n->op == KF_OP_convert || kf_op_is_fn(n->op)))
        n = kf_value_node(region->body, n->in[n->op == KF_OP_select ? 1 : 0]);
    return n && has_argmax(n);
}

static void compare_kernel(void *user, const kf_graph *g, uint32_t layer, const kf_node *n,
                           const kf_tensor *const *in, const kf_tensor *out,
                           const int64_t *sym_values)
{
    walk *w = user;
    kf_tensor got[KF_MAX_RESULTS];
    double nmse[KF_MAX_RESULTS + 1], bound[KF_MAX_RESULTS + 1];
    kf_sbuf why = {.arena = w->c->scratch};

    if (n->op != KF_OP_region || w->kernel.found || kf_diags_errors(w->c->diags))
        return;
    w->ran++;
    int64_t rows = w->call ? 1 : w->c->spec->build.max_tokens.v;
    if (!kf_region_run_kernel(w->kernels, n, rows, in, out, sym_values, got, &nmse[n->n_out],
                              &why)) {
        kf_diag_add(w->c->diags, KF_E0602, KF_NO_LOC, "region '%.*s': %.*s", KF_STR_ARG(n->name),
                    KF_STR_ARG(kf_sbuf_view(&why)));
        return;
    }
    bound[n->n_out] = 4e-5; /* of a cache */
    for (uint32_t r = 0; r <= n->n_out; r++) {
        if (r < n->n_out) {
            nmse[r] =
                out[r].kv || is_choice(n, r) ? 0 : kf_nmse(got[r].data, out[r].data, out[r].n);
            bound[r] = kernel_bound(kf_value_type(g, n->out[r]));
        }
        if (differs(&w->kernel, g, layer, n, nmse[r], bound[r]))
            write_region(w, n, in, out, got);
    }
}

/* ---- the verb -------------------------------------------------------------------------------- */

/* The prompt but its last token, then that one as a decode step; all of it in one call where there is nothing to decode. */
static bool evaluate(walk *w, const kf_module *m, kf_eval_mode mode, kf_eval_trace_fn trace)
{
    kf_arena *own =
        kf_arena_create("evaluate"); /* given back layer by layer, unlike what is kept here */
    kf_eval *e = kf_eval_create(own, m, mode, kf_compilation_weights(w->c), 1);
    bool decodes = w->c->spec->kind != KF_MODEL_ENCODER && w->prompt->n > 1, ok = true;
    kf_sbuf why = {.arena = w->c->scratch};
    uint32_t seq = 0;

    kf_eval_trace(e, trace, w);
    w->call = 0;
    ok = kf_verify_encode(e, w->arena, m, w->prompt, &why);
    if (!ok)
        kf_diag_add(w->c->diags, KF_E0901, KF_NO_LOC, "the encoder: %.*s",
                    KF_STR_ARG(kf_sbuf_view(&why)));
    for (w->call = 0; ok && w->call <= decodes; w->call++) {
        uint32_t before = w->prompt->n - decodes, n = w->call ? 1 : before;
        const char *func = kf_verify_entry(w->arena, m, w->call > 0);
        const int32_t *tokens = w->prompt->ids + (w->call ? before : 0);
        kf_eval_step step = {.n_seqs = 1, .seq = &seq, .n_tokens = &n, .tokens = &tokens};
        kf_tensor logits;
        ok = kf_eval_run(e, func, &step, false, &logits, &why);
        if (!ok)
            kf_diag_add(w->c->diags, KF_E0901, KF_NO_LOC, "@%s: %.*s", func,
                        KF_STR_ARG(kf_sbuf_view(&why)));
    }
    kf_arena_destroy(own);
    return ok;
}

static void report_difference(walk *w, const difference *d, const char *against)
{
    kf_compilation *c = w->c;

    if (!d->found)
        return;
    kf_diag *e = kf_diag_add(
        c->diags, KF_E0901, kf_module_diag_loc(c->module, c->diags, d->region->loc),
        "region '%.*s' of @%.*s, layer %u, is the first that differs from %s: NMSE %.1e, allowed "
        "are %.0e",
        KF_STR_ARG(d->region->name), KF_STR_ARG(d->func), d->layer, against, d->nmse, d->bound);
    if (w->dir)
        kf_diag_note(c->diags, e, KF_NO_LOC,
                     "%s holds region.kir, operandN.npy, wantN.npy and gotN.npy", w->dir);
    else
        kf_diag_note(c->diags, e, KF_NO_LOC, "-o DIR writes its body and its operands");
}

static void json_difference(kf_json *w, const char *key, const difference *d)
{
    kf_json_key(w, key);
    if (!d->found) {
        kf_json_null(w);
        return;
    }
    kf_json_open(w, '{');
    kf_json_kstr(w, "region", d->region->name);
    kf_json_kstr(w, "function", d->func);
    kf_json_kint(w, "layer", d->layer);
    kf_json_kint(w, "line", d->region->loc.line);
    kf_json_kdouble(w, "nmse", d->nmse);
    kf_json_close(w, '}');
}

static void report(walk *w)
{
    kf_sbuf text = {.arena = w->c->scratch};
    kf_json j = {.out = &text};

    if (w->c->opt->json) {
        kf_json_open(&j, '{');
        kf_json_kstr(&j, "schema", KF_STR("kerf.layers.1"));
        kf_json_kbool(&j, "ok", !w->graph.found && !w->kernel.found);
        kf_json_kint(&j, "values", w->compared);
        kf_json_kint(&j, "kernels", w->ran);
        json_difference(&j, "graph", &w->graph);
        json_difference(&j, "kernel", &w->kernel);
        kf_json_close(&j, '}');
        printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
    } else if (!w->graph.found && !w->kernel.found)
        printf("%u values of regions are those of the graph, %u kernels give what the evaluator "
               "gives\n",
               w->compared, w->ran);
    report_difference(w, &w->graph, "the graph as it was built");
    report_difference(w, &w->kernel, "the evaluator on the same operands");
}

void kf_verify_layers(kf_compilation *c, const kf_prompt *p)
{
    walk w = {.c = c, .prompt = p, .arena = c->arena, .dir = c->opt->output};

    if (!kf_compilation_graph(c))
        return;
    const kf_module *built = kf_module_clone(c->module, c->arena);
    if (!kf_compilation_fuse(c, NULL))
        return;
    want_results(&w, c->module);
    w.kernels = kf_region_run_create(c);
    if (evaluate(&w, built, KF_EVAL_IDEAL, record_node) &&
        evaluate(&w, c->module, KF_EVAL_IDEAL, compare_values) &&
        evaluate(&w, c->module, KF_EVAL_ROUNDED, compare_kernel) && !kf_diags_errors(c->diags))
        report(&w);
    kf_region_run_destroy(w.kernels);
}
