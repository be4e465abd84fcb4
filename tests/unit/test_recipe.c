/* SPDX-License-Identifier: Apache-2.0 */
/* test_recipe - every op of recipe.def against a plain formula of it, in both forms; shapes that
 * are refused. */
#include "ir/convert.h"
#include "ir/eval.h"
#include "ir/recipe_eval.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- tensors --------------------------------------------------------------------------------- */

/* Element |i| of tensor |name|: multiples of 1/16 below 8, so that every dtype holds them; "huge"
 * ones are 2^20 times as large. */
static double element(kf_str name, uint64_t i)
{
    uint64_t h = i * 2654435761u + 17;
    for (uint32_t c = 0; c < name.len; c++)
        h = h * 31 + (unsigned char)name.ptr[c];
    double v = (double)(int64_t)(h >> 7 & 255) / 16.0 - 8.0;
    return name.ptr[0] == 'h' ? v * 0x1p20 : v;
}

/* "w_6x4" is f32[6,4]; with "h" in front of the sizes it is stored as bf16. */
static bool find(const kf_tensor_source *self, kf_str name, kf_tensor_info *out)
{
    (void)self;
    const char *p = strchr(name.ptr, '_');
    if (!p)
        return false;
    *out = (kf_tensor_info){.name = name};
    out->dtype = p[1] == 'h' ? KF_DTYPE_bf16 : KF_DTYPE_f32;
    p += out->dtype == KF_DTYPE_bf16 ? 2 : 1;
    for (char *end; *p; p = *end ? end + 1 : end)
        out->dim[out->rank++] = strtoll(p, &end, 10);
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

static const kf_tensor_source source = {.find = find, .read = read};

static double at(const char *name, int64_t i)
{
    return element(kf_str_from(name), (uint64_t)i);
}

/* ---- what each op means ---------------------------------------------------------------------- */

static double concat(int64_t r, int64_t c) /* groups of 2 + 1 rows */
{
    return r % 3 < 2 ? at("q_4x3", (r / 3 * 2 + r % 3) * 3 + c) : at("k_2x3", r / 3 * 3 + c);
}

static double slice_rows(int64_t r, int64_t c) /* rows 1..3 of each of two groups of 4 */
{
    return at("w_8x3", (r / 2 * 4 + 1 + r % 2) * 3 + c);
}

static double slice_columns(int64_t r, int64_t c)
{
    return at("w_2x9", r * 9 + c / 2 * 3 + 1 + c % 2);
}

static double transpose(int64_t r, int64_t c)
{
    return at("w_3x5", c * 5 + r);
}

static double column(int64_t r, int64_t c)
{
    (void)c;
    return at("v_4", r);
}

static double regroup(int64_t r, int64_t c) /* two groups of 6 rows, [2, 3] read as [3, 2] */
{
    return at("w_12x2", (r / 6 * 6 + r % 2 * 3 + r % 6 / 2) * 2 + c);
}

static double scale_columns(int64_t r, int64_t c)
{
    return at("w_3x4", r * 4 + c) * at("g_4", c);
}

static double scale_rows(int64_t r, int64_t c)
{
    return at("w_3x4", r * 4 + c) * at("g_3", r);
}

static double add_and_half(int64_t r, int64_t c)
{
    return (at("a_h3x4", r * 4 + c) - at("b_3x4", r * 4 + c)) * 0.5;
}

static double by_layer(int64_t r, int64_t c)
{
    (void)c;
    return at("g_5", r) / sqrt(3 + 1); /* the layer is 3 */
}

static double only_layer(int64_t r, int64_t c)
{
    (void)r;
    (void)c;
    return 1 / sqrt(4);
}

static double matmul(int64_t r, int64_t c)
{
    double sum = 0;
    for (int64_t k = 0; k < 2; k++)
        sum += at("b_4x2", r * 2 + k) * at("a_2x3", k * 3 + c);
    return sum;
}

static double matvec(int64_t r, int64_t c)
{
    (void)c;
    double sum = 0;
    for (int64_t k = 0; k < 3; k++)
        sum += at("w_4x3", r * 3 + k) * at("b_3", k);
    return sum;
}

static double mean(const char *name, int64_t first, int64_t step, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += at(name, first + i * step);
    return sum / (double)n;
}

static double centre_columns(int64_t r, int64_t c)
{
    return at("w_4x3", r * 3 + c) - mean("w_4x3", c, 3, 4);
}

static double centre_rows(int64_t r, int64_t c)
{
    return at("w_4x3", r * 3 + c) - mean("w_4x3", r * 3, 1, 3);
}

static double centre_vector(int64_t r, int64_t c)
{
    (void)c;
    return at("v_6", r) - mean("v_6", 0, 1, 6);
}

static double spectral(int64_t r, int64_t c) /* [2,3]: eigenvalues of W W^T in closed form */
{
    (void)r;
    (void)c;
    double g[2][2] = {{0}};
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            for (int k = 0; k < 3; k++)
                g[i][j] += at("w_2x3", i * 3 + k) * at("w_2x3", j * 3 + k);
    double half = (g[0][0] + g[1][1]) / 2, d = (g[0][0] - g[1][1]) / 2;
    return sqrt(half + sqrt(d * d + g[0][1] * g[1][0]));
}

static double drop_column(int64_t r, int64_t c) /* readers behind a norm that lost a coordinate */
{
    return at("w_3x5", r * 5 + c) - at("w_3x5", r * 5 + 4);
}

static double merged(int64_t r, int64_t c) /* a low-rank update inside a norm's gain */
{
    double sum = at("w_h4x3", r * 3 + c);
    for (int64_t k = 0; k < 2; k++)
        sum += 2 * at("b_4x2", r * 2 + k) * at("a_2x3", k * 3 + c);
    return sum * at("g_3", c);
}

typedef struct op_case {
    const char *type, *recipe;
    double (*want)(int64_t r, int64_t c);
} op_case;

static const op_case op_cases[] = {
    {"f32[6,3]", "concat(groups 2, \"q_4x3\": f32[4,3], \"k_2x3\": f32[2,3])", concat},
    {"f32[4,3]", "slice(axis 0, groups 2, start 1, stop 3, \"w_8x3\": f32[8,3])", slice_rows},
    {"f32[2,6]", "slice(axis 1, groups 3, start 1, stop 3, \"w_2x9\": f32[2,9])", slice_columns},
    {"f32[5,3]", "transpose(\"w_3x5\": f32[3,5])", transpose},
    {"f32[4,1]", "transpose(\"v_4\": f32[4])", column},
    {"f32[12,2]", "regroup(groups 2, blocks 2, \"w_12x2\": f32[12,2])", regroup},
    {"f32[3,4]", "map(f32, \"w_3x4\": f32[3,4], \"g_4\": f32[4]) (w, g) { mul(w, g) }",
     scale_columns},
    {"bf16[3,4]", "map(bf16, \"w_3x4\": f32[3,4], \"g_4\": f32[4]) (w, g) { mul(w, g) }",
     scale_columns},
    {"f32[3,4]", "map(f32, \"w_3x4\": f32[3,4], transpose(\"g_3\": f32[3])) (w, g) { mul(w, g) }",
     scale_rows},
    {"f32[3,4]",
     "map(f32, \"a_h3x4\": bf16[3,4], \"b_3x4\": f32[3,4]) (a, b) { mul(sub(a, b), 0.5) }",
     add_and_half},
    {"f32[5]", "map(f32, \"g_5\": f32[5]) (g, l) { mul(g, rsqrt(add(l, 1))) }", by_layer},
    {"f32[1]", "map(f32) (l) { rsqrt(add(l, 1)) }", only_layer},
    {"f32[4,3]", "matmul(\"b_4x2\": f32[4,2], \"a_2x3\": f32[2,3])", matmul},
    {"f32[4]", "matmul(\"w_4x3\": f32[4,3], \"b_3\": f32[3])", matvec},
    {"f32[4,3]", "centre(axis 0, \"w_4x3\": f32[4,3])", centre_columns},
    {"f32[4,3]", "centre(axis 1, \"w_4x3\": f32[4,3])", centre_rows},
    {"f32[6]", "centre(axis 0, \"v_6\": f32[6])", centre_vector},
    {"f32[1]", "spectral(\"w_2x3\": f32[2,3])", spectral},
    {"f32[3,4]",
     "map(f32, slice(axis 1, groups 1, start 0, stop 4, \"w_3x5\": f32[3,5]), slice(axis 1, "
     "groups 1, start 4, stop 5, \"w_3x5\": f32[3,5])) (w, last) { sub(w, last) }",
     drop_column},
    {"bf16[4,3]",
     "map(bf16, map(bf16, \"w_h4x3\": bf16[4,3], matmul(\"b_4x2\": f32[4,2], \"a_2x3\": "
     "f32[2,3])) (w, d) { add(w, mul(d, 2)) }, \"g_3\": f32[3]) (w, g) { mul(w, g) }",
     merged},
};

/* A module with one parameter, or NULL with the message in |out_error|. */
static const kf_recipe *parse(kf_arena *arena, const char *type, const char *recipe,
                              kf_sbuf *printed, kf_sbuf *errors)
{
    kf_str text = kf_strf(arena,
                          "module @m {\n  func @f() params {\n      %%w: %s = %s\n  } -> (%s) {\n"
                          "    return %%w\n  }\n}\n",
                          type, recipe, type);
    kf_diags *d = kf_diags_create(arena);
    kf_module *m = kf_module_parse(arena, d, KF_STR("test.kir"), text);
    if (!m || !kf_module_verify(m, KF_VERIFY_GRAPH, errors)) {
        for (const kf_diag *e = kf_diags_first(d); e; e = e->next)
            kf_sbuf_str(errors, e->message);
        return NULL;
    }
    kf_module_print(m, 0, printed);
    assert_string_equal(kf_sbuf_view(printed).ptr, text.ptr);
    return m->funcs.data[0]->recipes.data[0];
}

static void ops_mean_their_formula(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof op_cases / sizeof op_cases[0]; i++) {
        const op_case *c = &op_cases[i];
        kf_arena *arena = kf_arena_create("test");
        kf_sbuf printed = {.arena = arena}, errors = {.arena = arena};
        const kf_recipe *r = parse(arena, c->type, c->recipe, &printed, &errors);
        if (!r)
            fail_msg("%s: %s", c->recipe, errors.ptr);
        assert_true(kf_recipe_eq(r, kf_recipe_copy(arena, r)));
        kf_recipe_reader *exact, *stored;
        kf_str name;
        assert_int_equal(
            kf_recipe_reader_open(arena, &source, r, KF_STR(""), 3, KF_RECIPE_EXACT, &exact, &name),
            0);
        assert_int_equal(kf_recipe_reader_open(arena, &source, r, KF_STR(""), 3, KF_RECIPE_STORED,
                                               &stored, &name),
                         0);
        int64_t width = kf_type_static_elems(&r->type) / r->type.dim[0].size;
        for (int64_t row = 0; row < r->type.dim[0].size; row++) {
            double got[16];
            float kept[16];
            assert_int_equal(kf_recipe_read_row(exact, (uint64_t)row, got, &name), 0);
            assert_int_equal(kf_recipe_read_row(stored, (uint64_t)row, kept, &name), 0);
            for (int64_t k = 0; k < width; k++) {
                double want = c->want(row, k);
                if (fabs(got[k] - want) > 1e-13 * (1 + fabs(want)))
                    fail_msg("%s [%d,%d]: %.17g, not %.17g", c->recipe, (int)row, (int)k, got[k],
                             want);
                assert_true((double)kf_float_load(r->type.dtype, kept, (uint64_t)k) ==
                            kf_round_to(r->type.dtype, got[k]));
            }
        }
        kf_arena_destroy(arena);
    }
}

/* More than one strip: 48 MiB of doubles. */
static void a_long_transpose_goes_in_strips(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_dim dim[] = {kf_dim_static(3000), kf_dim_static(2000)};
    const kf_recipe *w =
        kf_recipe_load(arena, KF_STR("w_3000x2000"), kf_type_tensor(KF_DTYPE_f32, 2, dim));
    kf_recipe_reader *rd;
    kf_str name;
    assert_ptr_equal(kf_recipe_transpose(arena, kf_recipe_transpose(arena, w)), w);
    assert_int_equal(kf_recipe_reader_open(arena, &source, kf_recipe_transpose(arena, w),
                                           KF_STR(""), 0, KF_RECIPE_EXACT, &rd, &name),
                     0);
    double *row = KF_NEW_N(arena, double, 3000);
    static const uint64_t rows[] = {0, 7, 1397, 1398, 1999, 3};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(kf_recipe_read_row(rd, rows[i], row, &name), 0);
        for (int64_t k = 0; k < 3000; k++)
            assert_true(row[k] == at("w_3000x2000", k * 2000 + (int64_t)rows[i]));
    }
    kf_arena_destroy(arena);
}

static void a_tensor_is_missed_by_name(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_dim dim[] = {kf_dim_static(4)};
    kf_type t = kf_type_tensor(KF_DTYPE_f32, 1, dim);
    const kf_recipe *none = kf_recipe_load(arena, KF_STR("none"), t),
                    *other = kf_recipe_load(arena, KF_STR("v_5"), t);
    kf_recipe_reader *rd;
    kf_str name;
    assert_int_equal(kf_recipe_reader_open(arena, &source,
                                           kf_recipe_fn(arena, KF_FN_mul, none, none),
                                           KF_STR("x{i}."), 2, KF_RECIPE_STORED, &rd, &name),
                     ENOENT);
    assert_string_equal(name.ptr, "x2.none");
    assert_int_equal(
        kf_recipe_reader_open(arena, &source, other, KF_STR(""), 2, KF_RECIPE_STORED, &rd, &name),
        EINVAL);
    assert_string_equal(name.ptr, "v_5");
    kf_arena_destroy(arena);
}

/* Computed, or only stored, in a type that ends before: no infinity goes into a model. */
static void a_number_out_of_range_is_found(void **state)
{
    (void)state;
    static const char *const recipes[] = {
        "map(f16, \"v_4\": f16[4]) (a) { mul(add(a, 1000), 1000) }",
        "transpose(map(f16, \"v_4\": f16[4]) (a) { add(square(a), 65520) })", "\"huge_4\""};
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        kf_arena *arena = kf_arena_create("test");
        kf_sbuf printed = {.arena = arena}, errors = {.arena = arena};
        const kf_recipe *r =
            parse(arena, i == 1 ? "f16[4,1]" : "f16[4]", recipes[i], &printed, &errors);
        kf_recipe_reader *rd;
        uint16_t row[4];
        kf_str name;
        int err = 0;
        assert_non_null(r);
        assert_int_equal(
            kf_recipe_reader_open(arena, &source, r, KF_STR(""), 0, KF_RECIPE_STORED, &rd, &name),
            0);
        for (uint64_t k = 0; !err && k < 4; k++)
            err = kf_recipe_read_row(rd, k, row, &name);
        assert_int_equal(err, ERANGE);
        assert_string_equal(name.ptr, i == 2 ? "huge_4" : "v_4");
        kf_arena_destroy(arena);
    }
}

static void shapes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *type, *recipe, *error;
    } cases[] = {
        {"f32[3]", "concat(groups 2, \"a\": f32[3])", "does not join in these groups"},
        {"f32[4]", "slice(axis 0, groups 2, start 1, stop 3, \"a\": f32[4])", "within a group"},
        {"f32[4]", "slice(axis 1, groups 1, start 1, stop 3, \"a\": f32[4])",
         "columns of a matrix"},
        {"f32[4]", "slice(axis 0, groups 1, start 3, stop 3, \"a\": f32[4])", "within a group"},
        {"f32[2,2,2]", "transpose(\"a\": f32[2,2,2])", "a matrix or a vector"},
        {"f32[6]", "regroup(groups 2, blocks 2, \"a\": f32[6])", "whole blocks"},
        {"f32[6]", "map(f32, \"a\": f32[6], \"b\": f32[4]) (a, b) { add(a, b) }", "broadcast"},
        {"f32[6]", "map(f32, \"a\": f32[6]) (a, b, c) { add(a, b) }", "has a parameter for each"},
        {"f32[6]", "map(i32, \"a\": f32[6]) (a) { a }", "no type of weights"},
        {"f32[2,2,2]", "map(f32, \"a\": f32[2,2,2], \"b\": f32[2]) (a, b) { add(a, b) }",
         "more than two dims"},
        {"f32[4,4]", "matmul(\"a\": f32[4,3], \"b\": f32[4,4])", "[n,k] and [k,m]"},
        {"f32[4]", "centre(axis 1, \"a\": f32[4])", "centre takes a dim"},
        {"f32[1]", "spectral(\"a\": f32[4])", "spectral takes a matrix"},
        {"f32[4]", "transpose(\"a\": i32[4])", "tensors of floats"},
        {"f32[4]", "matmul(\"a\": f32[4,3])", "another number of parts"},
        {"f32[4]", "twist(\"a\": f32[4,3])", "an op of recipes"},
        {"f32[1099511627776,1099511627776]",
         "matmul(\"a\": f32[1099511627776,1], \"b\": f32[1,1099511627776])", "too many elements"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kf_arena *arena = kf_arena_create("test");
        kf_sbuf printed = {.arena = arena}, errors = {.arena = arena};
        const kf_recipe *r = parse(arena, cases[i].type, cases[i].recipe, &printed, &errors);
        if (r || !errors.ptr || !strstr(errors.ptr, cases[i].error))
            fail_msg("%s: %s", cases[i].recipe, errors.ptr ? errors.ptr : "accepted");
        kf_arena_destroy(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_mean_their_formula),
        cmocka_unit_test(a_long_transpose_goes_in_strips),
        cmocka_unit_test(a_tensor_is_missed_by_name),
        cmocka_unit_test(a_number_out_of_range_is_found),
        cmocka_unit_test(shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
