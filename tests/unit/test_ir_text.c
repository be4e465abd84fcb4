/* SPDX-License-Identifier: Apache-2.0 */
/* test_ir_text - .kir text of modules and plans: the fixed point of print and parse, and errors
 * with places. */
#include "base/fs.h"
#include "ir/plan.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kf_str read_source(kf_arena *arena, const char *path)
{
    const char *root = getenv("KF_SOURCE_DIR");
    kf_str text, full = kf_strf(arena, "%s/%s", root ? root : ".", path);
    if (kf_fs_read(arena, full.ptr, 1 << 24, &text) != 0)
        fail_msg("cannot read %s", full.ptr);
    return text;
}

static kf_module *parse(kf_arena *arena, kf_str text)
{
    kf_diags *d = kf_diags_create(arena);
    kf_module *m = kf_module_parse(arena, d, KF_STR("test.kir"), text);
    kf_sbuf errors = {.arena = arena};
    if (!m) {
        kf_diags_print(d, stderr, false);
        fail_msg("does not parse:\n%.*s", KF_STR_ARG(text));
    }
    if (!kf_module_verify(m, KF_VERIFY_GRAPH, &errors))
        fail_msg("does not verify:\n%s", errors.ptr);
    return m;
}

static kf_str print(kf_arena *arena, const kf_module *m, uint32_t flags)
{
    kf_sbuf out = {.arena = arena};
    kf_module_print(m, flags, &out);
    return kf_sbuf_view(&out);
}

/* The law, in every form of the text. */
static void check_fixed_point(kf_arena *arena, const kf_module *m)
{
    static const uint32_t forms[] = {0, KF_PRINT_LOCS, KF_PRINT_CANONICAL,
                                     KF_PRINT_LOCS | KF_PRINT_CANONICAL};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        kf_str once = print(arena, m, forms[i]);
        kf_str twice = print(arena, parse(arena, once), forms[i]);
        assert_string_equal(once.ptr, twice.ptr);
    }
}

static void decoder_is_a_fixed_point(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_module *m = parse(arena, read_source(arena, "tests/ir/tiny.kir"));
    check_fixed_point(arena, m);
    kf_arena *other = kf_arena_create("clone");
    kf_module *clone = kf_module_clone(m, other);
    kf_str text = print(other, m, KF_PRINT_LOCS);
    memset((void *)(uintptr_t)m->funcs.data[0]->nodes.data, 0xee, sizeof(kf_node)); /* not shared */
    assert_string_equal(text.ptr, print(other, clone, KF_PRINT_LOCS).ptr);
    kf_arena_destroy(arena);
    assert_string_equal(text.ptr, print(other, clone, KF_PRINT_LOCS).ptr);
    kf_arena_destroy(other);
}

/* Everything the grammar can say, as printed. */
static const char everything[] =
    "module @\"odd name\" {\n"
    "  mesh tp, dp\n"
    "  dim S in 0..8\n"
    "  dim N in 1..512\n"
    "\n"
    "  func @\"f 1\"(%x: f32[N,256@tp], %\"0\": bf16[32,8] <d0/16, d1/2, d0, d1>, %p: pred[N,1]) "
    "params {\n"
    "      %w: bf16[8,4] <d1, d0, swizzle 3> = \"a.\\\"b\\\"\\n\": bf16[8,4],\n"
    "      %v: bf16[12,4] = concat(groups 2, \"q\": bf16[8,4], map(bf16, \"k\": bf16[4,4], \"g\": "
    "f32[4]) (a, b) { mul(a, b) })\n"
    "  } -> (f32[N,256@tp]) {\n"
    "    %0 = const {value = -1e-300} : f32[]  @\"a b.yaml\":3:14\n"
    "    %1 = mul %x, %0 : f32[N,256@tp]\n"
    "    %2 = select %p, %1, %x : f32[N,256@tp]\n"
    "    return %2\n"
    "  }\n"
    "\n"
    "  func @slots(%x: f32[N,4], %a: f32[4]) -> (f32[N,4], f32[N,1]) {\n"
    "    %0 = row_reduce %x, %a {acc = [max, sum_exp], keep} map(v, m, s, c | 1) "
    "{ %0 = sub(v, m), %1 = exp(%0), add(div(%1, s), mul(%1, select(lt(%0, -inf), $0[c], nan))) }"
    " : f32[N,4]\n"
    "    %1, %2 = region row_reduce \"k\" %x (%x: f32[N,4]) {\n"
    "      %0 = row_reduce %x {acc = [min]} : f32[N,1]\n"
    "      %1 = add %x, %0 : f32[N,4]\n"
    "      return %1, %0\n"
    "    } : f32[N,4], f32[N,1]\n"
    "    %3 = transpose %1 {perm = [1, 0]} : f32[4,N]\n"
    "    %4 = transpose %3 {perm = [1, 0]} : f32[N,4]\n"
    "    %5 = add %0, %4 : f32[N,4]\n"
    "    return %5, %2\n"
    "  }\n"
    "}\n";

static void everything_is_a_fixed_point(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_module *m = parse(arena, kf_str_from(everything));
    assert_string_equal(print(arena, m, KF_PRINT_LOCS).ptr, everything);
    check_fixed_point(arena, m);
    kf_arena_destroy(arena);
}

/* Graphs as passes build them: no names, equal names, callers before callees, unreadable slot
 * parameters. */
static void built_graphs_are_fixed_points(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_module *m = kf_module_create(arena, KF_STR("built"));
    kf_graph *main_func = kf_module_add_func(m, KF_STR("main"));
    kf_graph *g = kf_module_add_func(m, KF_STR("layer"));
    kf_dim dims[] = {kf_dim_static(3), kf_dim_static(4)};
    kf_type t = kf_type_tensor(KF_DTYPE_f32, 2, dims);
    kf_value x = kf_graph_add_arg(g, t, KF_STR(""), KF_NO_LOC);
    kf_value y = kf_graph_add_arg(g, t, KF_STR("a0"), KF_NO_LOC);
    kf_value w =
        kf_graph_add_param(g, kf_recipe_load(arena, KF_STR("w"), t), KF_STR("a0"), KF_NO_LOC);
    static const char *const names[] = {"inf", "7", "x"};
    kf_slot_builder *b = kf_slot_builder_create(arena, 3, names, 0);
    uint32_t e = kf_slot_fn(b, KF_FN_exp, kf_slot_param(b, 1), 0, 0);
    kf_slot_fn(b, KF_FN_neg, e, 0, 0); /* not reached */
    kf_attr_row_reduce attr = {.keep = true};
    attr.acc = (kf_accs){2, {KF_ACC_sum, KF_ACC_sum_dev}};
    attr.map = kf_slot_finish(b, kf_slot_fn(b, KF_FN_select, kf_slot_param(b, 2), e, e));
    kf_value r = kf_node_add(g, KF_OP_row_reduce, &attr, 1, &x, NULL, KF_NO_LOC);
    kf_graph_add_result(
        g, kf_node_3(g, KF_OP_select, kf_node_2(g, KF_OP_lt, r, y, KF_NO_LOC), w, r, KF_NO_LOC));
    kf_value in[] = {kf_graph_add_arg(main_func, t, KF_STR("x"), KF_NO_LOC), 0};
    in[1] = in[0];
    kf_attr_repeat repeat = {
        .times = 2, .callee = KF_STR("layer"), .weights = KF_STR("l.{i}."), .iter = 1};
    kf_graph_add_result(main_func,
                        kf_node_add(main_func, KF_OP_repeat, &repeat, 2, in, NULL, KF_NO_LOC));
    assert_int_equal(attr.map->n_insts, 4);
    check_fixed_point(arena, m);
    kf_arena_destroy(arena);
}

/* Canonical text is equal exactly for equal computations. */
static void canonical_text_ignores_names(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    static const char form[] =
        "module @m { func @f(%%%s: f32[2]) -> (f32[2]) { "
        "%%0 = add %%%s, %%%s : f32[2] @\"%s\":%d:1 %%1 = %s %%0 : f32[2] return %%1 } }";
    kf_str a = print(arena, parse(arena, kf_strf(arena, form, "x", "x", "x", "f", 1, "exp")),
                     KF_PRINT_CANONICAL);
    kf_str b = print(arena, parse(arena, kf_strf(arena, form, "y", "y", "y", "g", 2, "exp")),
                     KF_PRINT_CANONICAL);
    kf_str c = print(arena, parse(arena, kf_strf(arena, form, "x", "x", "x", "f", 1, "log")),
                     KF_PRINT_CANONICAL);
    assert_string_equal(a.ptr, b.ptr);
    assert_string_not_equal(a.ptr, c.ptr);
    kf_arena_destroy(arena);
}

/* ---- errors ---------------------------------------------------------------------------------- */

#define FUNC(body) "module @m {\n  dim N in 1..4\n  func @f(%x: f32[N,4]) -> (f32[N,4]) {\n" body
#define TAIL       "\n    return %x\n  }\n}\n"

static const struct {
    const char *text;
    kf_diag_code code;
    uint32_t line, col;
    const char *message; /* a part of it */
} errors[] = {
    {"", KF_E0501, 1, 1, "expected 'module'"},
    {"module @m { dim N in 4..1 }", KF_E0501, 1, 25, "whole number from 4"},
    {"module @m { dim N in 1..2 dim N in 1..2 }", KF_E0504, 1, 31, "dim 'N' twice"},
    {"module @m { } x", KF_E0501, 1, 15, "behind the module"},
    {"module @m { func @f(%x: f99[2]", KF_E0502, 1, 25, "unknown type 'f99'"},
    {"module @m { func @f(%x: f32[M]", KF_E0502, 1, 29, "unknown dim 'M'"},
    {"module @m { func @f(%x: f32[2@tp]", KF_E0502, 1, 31, "unknown mesh axis"},
    {"module @m { func @f(%x: f32[1099511627776,257]", KF_E0505, 1, 43, "too many elements"},
    {"module @m { func @f(%x: f32[2] <d0/2>", KF_E0503, 1, 32, "last block"},
    {"module @m { func @f(%x: f32[2], %x: f32[2]", KF_E0504, 1, 33, "'%x' is defined twice"},
    {"module @m { func @f() -> () { return } func @f() -> () { return } }", KF_E0504, 1, 45,
     "'@f'"},
    {"module @m { func @f(%x: f32[2]) -> () { return %x } }", KF_E0503, 1, 33, "header"},
    {FUNC("    %0 = frob %x : f32[N,4]"), KF_E0502, 4, 10, "unknown op 'frob'"},
    {FUNC("    %0 = exp %y : f32[N,4]"), KF_E0502, 4, 14, "'%y' is not defined"},
    {FUNC("    %0 = exp %x : f32[N,5]"), KF_E0503, 4, 10, "result 0 of exp is f32[N,4] here"},
    {FUNC("    %0 = add %x : f32[N,4]"), KF_E0503, 4, 10, "1 operands instead of 2"},
    {FUNC("    %0, %1 = exp %x : f32[N,4], f32[N,4]"), KF_E0503, 4, 14, "1 results here, not 2"},
    {FUNC("    %0 = exp %x : f32[N,4], f32[N,4]"), KF_E0503, 4, 29, "more types"},
    {FUNC("    %0 = slice %x {axis = 1, stop = 9} : f32[N,4]"), KF_E0503, 4, 10,
     "[0, 9) is not a part"},
    {FUNC("    %0 = slice %x {axle = 1} : f32[N,4]"), KF_E0502, 4, 20, "no attribute 'axle'"},
    {FUNC("    %0 = slice %x {axis = 1, axis = 1} : f32[N,4]"), KF_E0504, 4, 30,
     "attribute 'axis' twice"},
    {FUNC("    %0 = row_reduce %x {acc = [frob]} : f32[N,1]"), KF_E0502, 4, 32,
     "accumulator 'frob'"},
    {FUNC("    %0 = row_reduce %x {acc = [sum_exp]} : f32[N,1]"), KF_E0503, 4, 10,
     "sum_exp needs max"},
    {FUNC("    %0 = row_reduce %x {keep} map(v) { exq(v) } : f32[N,4]"), KF_E0502, 4, 40, "'exq'"},
    {FUNC("    %0 = row_reduce %x {keep} map(v) { exp(u) } : f32[N,4]"), KF_E0502, 4, 44,
     "parameter 'u'"},
    {FUNC("    %0 = row_reduce %x {keep} map(v) { exp(v, v) } : f32[N,4]"), KF_E0503, 4, 40,
     "takes 1"},
    {FUNC("    %0 = row_reduce %x {keep} map(v) { $0[v] } : f32[N,4]"), KF_E0501, 4, 41,
     "whole number"},
    {FUNC("    %0 = row_reduce %x {keep} map(v) { add(%0, v) } : f32[N,4]"), KF_E0502, 4, 44,
     "'%0'"},
    {FUNC("    %0 = row_reduce %x {keep} map(v) { %0 = exp(%0), %0 } : f32[N,4]"), KF_E0502, 4, 49,
     "unknown value '%0'"},
    {FUNC("    %0 = const {value = 1e} : f32[]"), KF_E0501, 4, 25, "malformed number"},
    {FUNC("    %0 = repeat %x {callee = \"f\", times = 1, iter = 1} : f32[N,4]"), KF_E0503, 4, 10,
     "no function @f"},
    {FUNC("    %0 = exp %x : f32[N,4] @\"f:1:1"), KF_E0501, 4, 29, "string without an end"},
    {FUNC("    %0 = region matmul %x (%x: f32[4,N]) {\n return %x } : f32[N,4]"), KF_E0503, 4, 10,
     "argument 0 of the body is f32[4,N], the operand is f32[N,4]"},
    {FUNC("    %0 = region frob %x"), KF_E0502, 4, 17, "unknown family 'frob'"},
};

static void errors_have_places(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        kf_arena *arena = kf_arena_create("test");
        kf_diags *d = kf_diags_create(arena);
        kf_str text =
            kf_strf(arena, "%s%s", errors[i].text, strchr(errors[i].text, '\n') ? TAIL : "");
        assert_null(kf_module_parse(arena, d, KF_STR("t.kir"), text));
        const kf_diag *first = kf_diags_first(d);
        assert_int_equal(kf_diags_errors(d), 1);
        if (first->code != errors[i].code || first->loc.line != errors[i].line ||
            first->loc.col != errors[i].col || !strstr(first->message.ptr, errors[i].message))
            fail_msg("case %zu: %s %u:%u %s\nof: %s", i, kf_diag_infos[first->code].name,
                     first->loc.line, first->loc.col, first->message.ptr, errors[i].text);
        kf_arena_destroy(arena);
    }
}

/* Deep and long bodies are refused, not followed until the stack ends. */
static void limits_are_errors(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        kf_arena *arena = kf_arena_create("test");
        kf_diags *d = kf_diags_create(arena);
        kf_sbuf text = {.arena = arena};
        kf_sbuf_c(&text, FUNC("    %0 = row_reduce %x {keep} map(v) { "));
        for (int i = 0; i < 100000; i++) {
            if (kind == 0)
                kf_sbuf_c(&text, "exp(");
            else
                kf_sbuf_printf(&text, "add(%d, ", i);
        }
        assert_null(kf_module_parse(arena, d, KF_STR("t.kir"), kf_sbuf_view(&text)));
        assert_int_equal(kf_diags_first(d)->code, KF_E0505);
        kf_arena_destroy(arena);
    }
}

/* ---- plans ----------------------------------------------------------------------------------- */

static kf_plan *parse_plan(kf_arena *arena, kf_str text)
{
    kf_diags *d = kf_diags_create(arena);
    kf_plan *p = kf_plan_parse(arena, d, KF_STR("plan.kir"), text);
    if (!p) {
        kf_diags_print(d, stderr, false);
        fail_msg("the plan does not parse");
    }
    return p;
}

static void plan_is_a_fixed_point(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_str text = read_source(arena, "tests/ir/plan.kir");
    kf_plan *p = parse_plan(arena, text);
    kf_sbuf once = {.arena = arena}, twice = {.arena = arena}, out = {.arena = arena};
    kf_plan_print(p, KF_PRINT_LOCS, &once);
    kf_plan_print(parse_plan(arena, kf_sbuf_view(&once)), KF_PRINT_LOCS, &twice);
    assert_string_equal(once.ptr, twice.ptr);
    assert_string_equal(once.ptr, strstr(text.ptr, "plan @")); /* the file is as printed */
    if (!kf_plan_verify(p, &out))
        fail_msg("%s", out.ptr);
    kf_arena_destroy(arena);
}

/* Replaces |from| by |to| in the plan and expects the verifier to say |message|. */
static void expect_plan_error(const char *from, const char *to, const char *message)
{
    kf_arena *arena = kf_arena_create("test");
    kf_str text = read_source(arena, "tests/ir/plan.kir");
    const char *at = strstr(text.ptr, from);
    assert_non_null(at);
    kf_str changed =
        kf_strf(arena, "%.*s%s%s", (int)(at - text.ptr), text.ptr, to, at + strlen(from));
    kf_sbuf out = {.arena = arena};
    if (kf_plan_verify(parse_plan(arena, changed), &out) || !strstr(out.ptr, message))
        fail_msg("'%s' -> '%s' gives: %s", from, to, out.ptr ? out.ptr : "no error");
    kf_arena_destroy(arena);
}

static void broken_plans_are_refused(void **state)
{
    (void)state;
    expect_plan_error("x: f32[N,8] offset 0", "x: f32[N,8] offset 64", "'t' and 'x' overlap");
    expect_plan_error("logits: f32[R,32] offset 256 bytes 256",
                      "logits: f32[R,32] offset 256 bytes 128", "its type needs 256");
    expect_plan_error("pool 512", "pool 384", "outside the pool");
    expect_plan_error("loop 2 {", "loop 3 {", "has 2 layers, the step needs 3");
    expect_plan_error("(x, weight layer.w) -> (t)", "(t, weight layer.w) -> (x)", "read before");
    expect_plan_error("(x, weight layer.w)", "(x, weight embed)", "the body has bf16[8,8]");
    expect_plan_error("layers 2 bytes 128", "layers 2 bytes 100", "has 100 bytes, its layout 128");
    expect_plan_error("-> (logits) flops", "-> (t) flops", "the body has f32[R,32]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoder_is_a_fixed_point),
        cmocka_unit_test(everything_is_a_fixed_point),
        cmocka_unit_test(built_graphs_are_fixed_points),
        cmocka_unit_test(canonical_text_ignores_names),
        cmocka_unit_test(errors_have_places),
        cmocka_unit_test(limits_are_errors),
        cmocka_unit_test(plan_is_a_fixed_point),
        cmocka_unit_test(broken_plans_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
