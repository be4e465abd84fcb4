/* SPDX-License-Identifier: Apache-2.0 */
/* test_norms - rows whose mean is 100 times their deviation, through norms as kernels: fused,
 * unfused and evaluated. A form that cancels misses by orders of magnitude; the last test is one.
 *
 * Each text is a function @f of rows %x. It is compiled with and without fusion, its regions run
 * one after the other as kernels, and the rows of the result are compared with the f64 evaluator.
 */
#include "ir/text.h"
#include "passes/passes.h"
#include "tests/unit/codegen_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MODULE(body)                                                                               \
    "module @t { dim S in 1..8 dim N in 1..512 dim R in 1..8 dim K in 1..4096 dim M in 1..4096\n"  \
    "func @f(%x: f32[N,256]) params {\n"                                                           \
    "  %g: f32[256] = \"g\", %b: f32[256] = \"b\", %w: f32[48,256] = \"w\",\n"                     \
    "  %u: f32[256,256] = \"u\", %c: f32[256] = \"mean\"\n"                                        \
    "} -> (f32[N,48]) {\n" body "}}\n"
#define LAYER_NORM(from, to)                                                                       \
    to " = row_reduce " from " {acc = [sum, sum_dev], keep} map(v, s, d) "                         \
       "{ mul(sub(v, div(s, 256)), rsqrt(add(div(d, 256), 1e-05))) } : f32[N,256]\n"
#define RMS(from, to)                                                                              \
    to " = row_reduce " from " {acc = [sum_sq], keep} map(v, s) "                                  \
       "{ mul(v, rsqrt(add(div(s, 256), 1e-05))) } : f32[N,256]\n"
#define HEAD(from) "%y = matmul " from ", %w {trans_b} : f32[N,48]\nreturn %y\n"

#define FUSED                                                                                      \
    "canonicalize,fold_const,cse,dce,raise_norm,cse,dce,fuse_norm,cse,dce,layout,"                 \
    "fuse_epilogue,dce,fuse_rows,form_regions,dce"
#define UNFUSED "canonicalize,fold_const,cse,dce,layout,form_regions"

/** What a run gives: rows of 48. */
typedef struct outcome {
    double row[80][48];
    uint32_t regions;
} outcome;

typedef struct bench {
    kf_arena *arena;
    kf_module *module;
    kf_graph *g;
    int64_t n; /* rows */
    int64_t sym[KF_SYM_MEMORY];
} bench;

/* ---- inputs ---------------------------------------------------------------------------------- */

static double noise(uint64_t *state)
{
    double sum = 0;

    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*state >> 11) / 9007199254740992.0;
    }
    return sum - 6; /* about normal */
}

/* Rows and the vector "mean" lie around 100, everything else around 0 with deviation 1 or 1/16. */
static double *fill(bench *t, kf_str name, int64_t n)
{
    double *v = KF_NEW_N(t->arena, double, n);
    uint64_t state = name.len * 977 + (unsigned char)name.ptr[0];
    bool around = kf_str_eq_c(name, "x") || kf_str_eq_c(name, "mean");

    for (int64_t i = 0; i < n; i++)
        v[i] = kf_round_to(KF_DTYPE_f32, noise(&state) * (n > 4000 && !around ? 1.0 / 16 : 1) +
                                             (around ? 100 : 0));
    return v;
}

static bench begin(const char *text, const char *passes, int64_t n)
{
    bench t = {.arena = kf_arena_create("norms"), .n = n, .sym = {1, n, 1, n, 1}};
    kf_diags *d = kf_diags_create(t.arena);
    kf_arena *scratch = kf_arena_create("norms scratch");
    kf_pass_ctx cx = {.arena = t.arena, .scratch = scratch, .diags = d};
    kf_pipeline_options opt = {.passes = passes, .out = stderr};
    kf_pass_runs runs = {0};

    t.module = kf_module_parse(t.arena, d, KF_STR("norms.kir"), kf_str_from(text));
    assert_non_null(t.module);
    cx.target = kf_target_cpu(t.arena, "x86-64-v3");
    if (passes)
        kf_pipeline_run(t.module, &cx, &opt, &runs);
    t.g = kf_module_find_func(t.module, KF_STR("f"));
    kf_arena_destroy(scratch);
    return t;
}

static kf_tensor tensor_of(bench *t, kf_value v, kf_str name)
{
    const kf_type *type = kf_value_type(t->g, v);
    int64_t dim[KF_MAX_RANK];

    for (uint32_t i = 0; i < type->rank; i++)
        dim[i] = kf_dim_value(type->dim[i], t->sym);
    kf_tensor x = kf_tensor_new(t->arena, type->rank, dim);
    x.data = fill(t, name, x.n);
    return x;
}

/* ---- the three ways -------------------------------------------------------------------------- */

static outcome evaluate(const char *text, const char *passes, kf_eval_mode mode, int64_t n)
{
    bench t = begin(text, passes, n);
    kf_tensor args[1] = {tensor_of(&t, t.g->args.data[0], KF_STR("x"))}, params[8], out;
    kf_sbuf why = {.arena = t.arena};
    outcome o = {0};

    for (uint32_t i = 0; i < t.g->params.len; i++) {
        kf_value p = t.g->params.data[i];
        params[i] = tensor_of(&t, p, t.g->recipes.data[i]->tensor);
    }
    if (!kf_eval_graph(t.arena, t.g, mode, t.sym, args, params, &out, &why))
        fail_msg("%s", why.ptr);
    memcpy(o.row, out.data, (size_t)out.n * sizeof *out.data);
    kf_arena_destroy(t.arena);
    return o;
}

/* One region as a kernel; results join |value|. */
static void run_region(bench *t, const kf_node *n, double **value)
{
    kf_case c = kf_case_begin(1, t->n, 1, t->n);

    c.body = n->body;
    c.rows_hi = t->n > 8 ? 512 : 8;
    c.rtol = 1e-3; /* against the evaluator; the outcome is held to far less */
    c.atol = 1e-2;
    for (uint32_t i = 0; i < n->n_in; i++)
        c.given[i] = value[n->in[i]];
    kf_case_run(&c, KF_ATTR_OF(n, region)->family);
    for (uint32_t r = 0; r < n->n_out; r++) {
        int64_t elems = kf_type_elems(kf_value_type(t->g, n->out[r]), t->sym);
        value[n->out[r]] = KF_NEW_N(t->arena, double, elems);
        for (int64_t i = 0; i < elems; i++)
            value[n->out[r]][i] = (double)((const float *)c.result[r])[i];
    }
    kf_case_end(&c);
}

static outcome run(const char *text, const char *passes, int64_t n)
{
    bench t = begin(text, passes, n);
    double **value = KF_NEW_N(t.arena, double *, t.g->values.len);
    outcome o = {0};

    value[t.g->args.data[0]] = tensor_of(&t, t.g->args.data[0], KF_STR("x")).data;
    for (uint32_t i = 0; i < t.g->params.len; i++) {
        kf_value p = t.g->params.data[i];
        value[p] = tensor_of(&t, p, t.g->recipes.data[i]->tensor).data;
    }
    for (uint32_t i = 0; i < t.g->nodes.len; i++) {
        const kf_node *region = &t.g->nodes.data[i];
        if (region->op == KF_OP_const)
            continue;
        assert_int_equal(region->op, KF_OP_region);
        run_region(&t, region, value);
        o.regions++;
    }
    memcpy(o.row, value[t.g->results.data[0]], (size_t)(n * 48) * sizeof(double));
    kf_arena_destroy(t.arena);
    return o;
}

/* ---- comparison ------------------------------------------------------------------------------ */

static double worst_row(const outcome *got, const outcome *want, int64_t n)
{
    double worst = 0;

    for (int64_t r = 0; r < n; r++) {
        double error = 0, squares = 0;
        for (int i = 0; i < 48; i++) {
            double d = got->row[r][i] - want->row[r][i];
            error += d * d;
            squares += want->row[r][i] * want->row[r][i];
        }
        worst = fmax(worst, error / squares);
    }
    return worst;
}

/** |regions|: kernels when fused. |limit|: worst row's squared error over its squares. */
typedef struct norm_case {
    const char *name, *text;
    uint32_t regions;
    double limit;
} norm_case;

static const norm_case cases[] = {
    {"layer norm",
     MODULE(LAYER_NORM("%x", "%0") "%1 = mul %0, %g : f32[N,256]\n"
                                   "%2 = add %1, %b : f32[N,256]\n" HEAD("%2")),
     2, 1e-10},
    {"layer norm op by op",
     MODULE("%n = const {value = 256} : f32[]\n%e = const {value = 1e-05} : f32[]\n"
            "%s = row_reduce %x {acc = [sum]} : f32[N,1]\n%m = div %s, %n : f32[N,1]\n"
            "%d = sub %x, %m : f32[N,256]\n%q = square %d : f32[N,256]\n"
            "%v = row_reduce %q {acc = [sum]} : f32[N,1]\n%k = div %v, %n : f32[N,1]\n"
            "%a = add %k, %e : f32[N,1]\n%r = sqrt %a : f32[N,1]\n"
            "%0 = div %d, %r : f32[N,256]\n" HEAD("%0")),
     2, 1e-10},
    {"rms", MODULE(RMS("%x", "%0") "%1 = mul %0, %g : f32[N,256]\n" HEAD("%1")), 2, 1e-11},
    {"rms of a post-norm block",
     MODULE("%p = matmul %x, %u {trans_b} : f32[N,256]\n" RMS(
         "%p", "%0") "%q = matmul %0, %u {trans_b} : f32[N,256]\n"
                     "%r = add %0, %q : f32[N,256]\n%1 = mul %r, %g : f32[N,256]\n" HEAD("%1")),
     3, 1e-11},
    {"statistics of a product far from zero",
     MODULE(LAYER_NORM("%x", "%h") "%p = matmul %h, %u {trans_b} : f32[N,256]\n"
                                   "%q = add %p, %c : f32[N,256]\n" LAYER_NORM(
                                       "%q", "%0") "%1 = mul %0, %g : f32[N,256]\n"
                                                   "%2 = add %1, %b : f32[N,256]\n" HEAD("%2")),
     3, 3e-10},
    {"norms of powers",
     MODULE("%h = matmul %x, %u {trans_b} : f32[N,256]\n%s = square %h : f32[N,256]\n"
            "%c3 = mul %s, %h : f32[N,256]\n" RMS("%h", "%p") RMS("%s", "%q")
                RMS("%c3", "%r") "%a = add %p, %q : f32[N,256]\n%z = add %a, %r : f32[N,256]\n"
                                 "%1 = add %z, %b : f32[N,256]\n" HEAD("%1")),
     2, 1e-8},
};

static void test_norms(void **state)
{
    static const int64_t rows[] = {1, 5, 70};

    (void)state;
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint32_t r = 0; r < 3; r++) {
            if (r != i % 3)
                continue;
            const norm_case *c = &cases[i];
            outcome ideal = evaluate(c->text, NULL, KF_EVAL_IDEAL, rows[r]);
            outcome rounded = evaluate(c->text, FUSED, KF_EVAL_ROUNDED, rows[r]);
            outcome fused = run(c->text, FUSED, rows[r]);
            outcome apart = run(c->text, UNFUSED, rows[r]);
            double f = worst_row(&fused, &ideal, rows[r]), a = worst_row(&apart, &ideal, rows[r]);
            double e = worst_row(&rounded, &ideal, rows[r]);
            print_message("%s, %d rows: fused %.2g in %u kernels, apart %.2g in %u, rounded %.2g\n",
                          c->name, (int)rows[r], f, fused.regions, a, apart.regions, e);
            assert_int_equal(fused.regions, c->regions);
            assert_true(f <= c->limit);
            assert_true(sqrt(f) <= 2 * fmax(sqrt(a), sqrt(e)) + 1e-6);
        }
}

/* The form that the statistics avoid: the mean square less the squared mean. */
static void test_cancelling(void **state)
{
    static const char text[] = MODULE(
        "%0 = row_reduce %x {acc = [sum, sum_sq], keep} map(v, s, q) { mul(sub(v, div(s, 256)), "
        "rsqrt(add(sub(div(q, 256), square(div(s, 256))), 1e-05))) } : f32[N,256]\n" HEAD("%0"));

    (void)state;
    outcome ideal = evaluate(text, NULL, KF_EVAL_IDEAL, 5);
    outcome got = run(text, FUSED, 5);
    assert_true(worst_row(&got, &ideal, 5) > 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_cancelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
