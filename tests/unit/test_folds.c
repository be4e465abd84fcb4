/* SPDX-License-Identifier: Apache-2.0 */
/* test_folds - every function of the files that test weight folding computes the same before and
 * after its pass; those that refuse stay as they are. The norms of a small stream are rewritten, on
 * rows far from zero. */
#include "base/fs.h"
#include "ir/convert.h"
#include "ir/eval.h"
#include "ir/recipe_eval.h"
#include "ir/text.h"
#include "passes/passes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- numbers --------------------------------------------------------------------------------- */

/* Element |i| of tensor |name|: multiples of 1/16 around 3, so that every dtype holds them. */
static double element(kf_str name, uint64_t i)
{
    uint64_t h = i * 2654435761u + 17;
    for (uint32_t c = 0; c < name.len; c++)
        h = h * 31 + (unsigned char)name.ptr[c];
    return (double)(int64_t)((h ^ h >> 15) >> 7 & 63) / 16.0 + 1.0;
}

/* Any tensor that the recipe behind |user| loads, with the type that it asks for. */
static bool find(const kf_tensor_source *self, kf_str name, kf_tensor_info *out)
{
    const kf_recipe *r = self->user;
    if (r->op != KF_RECIPE_load) {
        for (uint32_t i = 0; i < r->n_parts; i++) {
            kf_tensor_source part = *self;
            part.user = (void *)(uintptr_t)r->part[i];
            if (find(&part, name, out))
                return true;
        }
        return false;
    }
    if (!kf_str_eq(name, r->tensor))
        return false;
    *out = (kf_tensor_info){.name = r->tensor, .dtype = r->type.dtype, .rank = r->type.rank};
    for (uint8_t d = 0; d < r->type.rank; d++)
        out->dim[d] = r->type.dim[d].size;
    return true;
}

static int read(const kf_tensor_source *self, const kf_tensor_info *info, uint64_t first,
                uint64_t n, void *dst)
{
    (void)self;
    for (uint64_t i = 0; i < n; i++)
        kf_float_store(info->dtype, dst, i, (float)element(info->name, first + i));
    return 0;
}

static kf_tensor value_of(kf_arena *arena, const kf_recipe *r)
{
    kf_tensor_source source = {.find = find, .read = read, .user = (void *)(uintptr_t)r};
    kf_recipe_reader *rd;
    kf_str name;
    int64_t dim[KF_MAX_RANK];
    for (uint8_t d = 0; d < r->type.rank; d++)
        dim[d] = r->type.dim[d].size;
    kf_tensor t = kf_tensor_new(arena, r->type.rank, dim);
    assert_int_equal(
        kf_recipe_reader_open(arena, &source, r, KF_STR(""), 0, KF_RECIPE_EXACT, &rd, &name), 0);
    for (int64_t i = 0; i < dim[0]; i++)
        assert_int_equal(kf_recipe_read_row(rd, (uint64_t)i, t.data + i * (t.n / dim[0]), &name),
                         0);
    return t;
}

/* ---- functions ------------------------------------------------------------------------------- */

/* Results of |g| on arguments that depend on their names only; integers are 0 to 3. */
static void evaluate(kf_arena *arena, const kf_graph *g, kf_tensor *results)
{
    int64_t sym_values[KF_SYM_STANDARD];
    kf_tensor *args = KF_NEW_N(arena, kf_tensor, g->args.len + 1),
              *params = KF_NEW_N(arena, kf_tensor, g->params.len + 1);
    kf_sbuf why = {.arena = arena};
    for (uint32_t i = 0; i < KF_SYM_STANDARD; i++)
        sym_values[i] = g->module->syms.data[i].hi;
    for (uint32_t i = 0; i < g->args.len; i++) {
        const kf_value_info *v = &g->values.data[g->args.data[i]];
        int64_t dim[KF_MAX_RANK];
        for (uint8_t d = 0; d < v->type.rank; d++)
            dim[d] = kf_dim_value(v->type.dim[d], sym_values);
        args[i] = kf_tensor_new(arena, v->type.rank, dim);
        for (int64_t k = 0; k < args[i].n; k++) {
            double e = element(v->name, (uint64_t)k);
            args[i].data[k] = v->type.dtype == KF_DTYPE_i32 ? (double)((int)e % 4) : e;
        }
    }
    for (uint32_t i = 0; i < g->params.len; i++)
        params[i] = value_of(arena, g->recipes.data[i]);
    if (!kf_eval_graph(arena, g, KF_EVAL_IDEAL, sym_values, args, params, results, &why))
        fail_msg("@%.*s: %s", KF_STR_ARG(g->name), why.ptr);
}

static void expect_same(kf_arena *arena, const kf_graph *before, const kf_graph *after)
{
    kf_tensor a[KF_MAX_RESULTS], b[KF_MAX_RESULTS];
    evaluate(arena, before, a);
    evaluate(arena, after, b);
    for (uint32_t r = 0; r < before->results.len; r++) {
        double size = 0, most = 0;
        assert_int_equal(a[r].n, b[r].n);
        for (int64_t i = 0; i < a[r].n; i++) {
            size = fmax(size, fabs(a[r].data[i]));
            most = fmax(most, fabs(a[r].data[i] - b[r].data[i]));
        }
        if (!(most <= 1e-12 * size))
            fail_msg("@%.*s: result %u is off by %g of %g", KF_STR_ARG(before->name), r, most,
                     size);
    }
}

static kf_module *run(kf_arena *arena, const kf_module *m, const char *passes,
                      kf_norm_rewrite rewrite)
{
    kf_module *copy = kf_module_clone(m, arena);
    kf_arena *scratch = kf_arena_create("scratch");
    kf_diags *d = kf_diags_create(arena);
    kf_pass_ctx cx = {.arena = arena, .scratch = scratch, .diags = d, .norm_rewrite = rewrite};
    kf_pipeline_options options = {.passes = passes, .verify_each = true, .out = stderr};
    kf_pass_runs runs = {0};
    kf_pipeline_run(copy, &cx, &options, &runs);
    assert_int_equal(kf_diags_errors(d), 0);
    kf_arena_destroy(scratch);
    return copy;
}

static kf_module *load(kf_arena *arena, const char *name)
{
    const char *root = getenv("KF_SOURCE_DIR");
    kf_str path = kf_strf(arena, "%s/tests/passes/%s.kir", root ? root : ".", name), text;
    kf_diags *d = kf_diags_create(arena);
    assert_int_equal(kf_fs_read(arena, path.ptr, 1 << 20, &text), 0);
    kf_module *m = kf_module_parse(arena, d, path, text);
    kf_diags_print(d, stderr, false);
    assert_non_null(m);
    return m;
}

static bool is_unchanged(kf_arena *arena, const kf_graph *before, const kf_graph *after)
{
    kf_sbuf a = {.arena = arena}, b = {.arena = arena};
    kf_graph_print(before, KF_PRINT_CANONICAL, &a);
    kf_graph_print(after, KF_PRINT_CANONICAL, &b);
    return kf_str_eq(kf_sbuf_view(&a), kf_sbuf_view(&b));
}

static void files_compute_the_same(void **state)
{
    static const char *const passes[] = {"fold_params", "merge_weights", "fold_weights"};
    (void)state;
    for (size_t p = 0; p < sizeof passes / sizeof passes[0]; p++) {
        kf_arena *arena = kf_arena_create("test");
        kf_module *before = load(arena, passes[p]),
                  *after = run(arena, before, passes[p], KF_NORM_REWRITE_NONE);
        uint32_t folded = 0, refused = 0;
        for (uint32_t i = 0; i < before->funcs.len; i++) {
            const kf_graph *g = before->funcs.data[i], *h = kf_module_find_func(after, g->name);
            bool same = is_unchanged(arena, g, h);
            if (same != kf_str_starts_with(g->name, "unsupported"))
                fail_msg("@%.*s is%s folded", KF_STR_ARG(g->name), same ? " not" : "");
            folded += !same;
            refused += same;
            expect_same(arena, g, h);
        }
        assert_true(folded >= 2 && refused >= 1);
        kf_arena_destroy(arena);
    }
}

/* What canonicalize moves into recipes: parts and transposes of weights, the orientation of a
 * matmul. */
static void weights_move_into_recipes(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_module *before = load(arena, "canonicalize"),
              *after = run(arena, before, "canonicalize", KF_NORM_REWRITE_NONE);
    static const char *const names[] = {"transposed_weight", "stored_the_other_way",
                                        "packed_and_turned", "unsupported_slices"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        kf_str name = kf_str_from(names[i]);
        expect_same(arena, kf_module_find_func(before, name), kf_module_find_func(after, name));
    }
    kf_arena_destroy(arena);
}

/* ---- streams --------------------------------------------------------------------------------- */

#define NORM                                                                                       \
    "{acc = [sum, sum_dev], keep} map(v, s, d) { mul(sub(v, div(s, 12)), rsqrt(add(div(d, 12), "   \
    "1e-05))) }"

/* Two tables, two branches in a row and two beside each other, a scaled one, a head. */
static const char stream[] =
    "module @m {\n  dim S in 1..2\n  dim N in 1..8\n  dim R in 1..2\n  dim K in 1..16\n\n"
    "  func @main(%ids: i32[N], %pos: i32[N], %rows: i32[R]) params {\n"
    "      %embed: f32[9,12] = \"embed\", %positions: f32[4,12] = \"positions\",\n"
    "      %w1: f32[20,12] = \"w1\", %o1: f32[12,20] = \"o1\", %b1: f32[12] = \"b1\",\n"
    "      %w2: f32[8,12] = \"w2\", %o2: f32[12,8] = \"o2\",\n"
    "      %w3: f32[8,12] = \"w3\", %o3: f32[12,8] = \"o3\"\n"
    "  } -> (f32[R,9]) {\n"
    "    %0 = gather %embed, %ids : f32[N,12]\n"
    "    %1 = gather %positions, %pos : f32[N,12]\n"
    "    %2 = add %0, %1 : f32[N,12]\n"
    "    %3 = row_reduce %2 " NORM " : f32[N,12]\n"
    "    %4 = matmul %3, %w1 {trans_b} : f32[N,20]\n"
    "    %5 = tanh %4 : f32[N,20]\n"
    "    %6 = matmul %5, %o1 {trans_b} : f32[N,12]\n"
    "    %7 = add %6, %b1 : f32[N,12]\n"
    "    %8 = add %2, %7 : f32[N,12]\n"
    "    %9 = row_reduce %8 " NORM " : f32[N,12]\n"
    "    %10 = matmul %9, %w2 {trans_b} : f32[N,8]\n"
    "    %11 = sigmoid %10 : f32[N,8]\n"
    "    %12 = matmul %11, %o2 {trans_b} : f32[N,12]\n"
    "    %13 = matmul %9, %w3 {trans_b} : f32[N,8]\n"
    "    %14 = tanh %13 : f32[N,8]\n"
    "    %15 = matmul %14, %o3 {trans_b} : f32[N,12]\n"
    "    %16 = const {value = 0.3} : f32[]\n"
    "    %17 = mul %15, %16 : f32[N,12]\n"
    "    %18 = add %12, %17 : f32[N,12]\n"
    "    %19 = add %8, %18 : f32[N,12]\n"
    "    %20 = gather %19, %rows : f32[R,12]\n"
    "    %21 = row_reduce %20 " NORM " : f32[R,12]\n"
    "    %22 = matmul %21, %embed {trans_b} : f32[R,9]\n"
    "    return %22\n  }\n}\n";

static void norms_are_rewritten(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_diags *d = kf_diags_create(arena);
    kf_module *before = kf_module_parse(arena, d, KF_STR("stream.kir"), kf_str_from(stream));
    kf_diags_print(d, stderr, false);
    assert_non_null(before);
    for (int to = KF_NORM_REWRITE_RMS; to <= KF_NORM_REWRITE_CRMS; to++) {
        kf_module *after = run(arena, before, "rewrite_norms", (kf_norm_rewrite)to);
        kf_sbuf text = {.arena = arena};
        kf_module_print(after, 0, &text);
        assert_null(strstr(text.ptr, "sum_dev"));
        assert_true(!strstr(text.ptr, "f32[N,12]") == (to == KF_NORM_REWRITE_CRMS));
        expect_same(arena, before->funcs.data[0], after->funcs.data[0]);
    }
    kf_arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_compute_the_same),
        cmocka_unit_test(weights_move_into_recipes),
        cmocka_unit_test(norms_are_rewritten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
