/* SPDX-License-Identifier: Apache-2.0 */
/* test_frontend_expr - expressions: precedence, meaning of every word, types, places and limits. */
#include "frontend.h"
#include "frontend/expr.h"

#include <math.h>

static const kf_expr *parse(fixture *f, kf_expr_kind kind, const char *text, uint32_t heads)
{
    uint32_t file = kf_diags_add_file(f->diags, KF_STR("t.yaml"), kf_str_from(text));
    kf_loc loc = {file, 1, 1, (uint32_t)strlen(text)};
    kf_yaml_node *node = kf_yaml_new_scalar(f->arena, kf_str_from(text), loc, KF_ORIGIN_SPEC);
    node->verbatim = true;
    return kf_expr_parse(f->arena, f->diags, node, kind, (kf_expr_env){.num_heads = heads});
}

static void expect_tree(fixture *f, kf_expr_kind kind, const char *text, const char *tree)
{
    const kf_expr *e = parse(f, kind, text, 8);
    if (e == NULL)
        kf_diags_print(f->diags, stderr, false);
    assert_non_null(e);
    kf_sbuf b = {.arena = f->arena};
    kf_expr_print(e, &b);
    assert_string_equal(b.ptr, tree);
}

static void precedence(void **state)
{
    fixture *f = *state;
    expect_tree(f, KF_EXPR_ACT, "1 + 2*x", "add(1, mul(2, x))");
    expect_tree(f, KF_EXPR_ACT, "x - 1 - 2", "sub(sub(x, 1), 2)");
    expect_tree(f, KF_EXPR_ACT, "-x*x", "mul(neg(x), x)");
    expect_tree(f, KF_EXPR_ACT, "-(x*x)/2", "div(neg(mul(x, x)), 2)");
    expect_tree(f, KF_EXPR_ACT, "-1_000.5e-1", "-100.05");
    expect_tree(f, KF_EXPR_ACT, "select(x > 0 & !(x >= 1), x, 0)",
                "select(and(gt(x, 0), not(ge(x, 1))), x, 0)");
    expect_tree(f, KF_EXPR_MASK, "k <= q & h < 2 | false", "or(and(le(k, q), lt(h, 2)), false)");
    expect_tree(f, KF_EXPR_SCORE, " score ", "score");
}

static void activations(void **state)
{
    fixture *f = *state;
    expect_tree(f, KF_EXPR_ACT, "silu", "silu(x)");
    expect_tree(f, KF_EXPR_ACT, "swish", "silu(x)");
    expect_tree(f, KF_EXPR_ACT, "gelu_pytorch_tanh", "gelu_tanh(x)");
    expect_tree(f, KF_EXPR_ACT, "quick_gelu", "gelu_quick(x)");
    expect_tree(f, KF_EXPR_ACT, "gelu_python", "gelu(x)");
    expect_tree(f, KF_EXPR_ACT, "x*sigmoid(1.5*x)", "mul(x, sigmoid(mul(1.5, x)))");
}

/** |mask| over all q, k < 12 against |want|. */
static void check_mask(fixture *f, const char *mask, bool (*want)(int, int))
{
    const kf_expr *e = parse(f, KF_EXPR_MASK, mask, 4);
    if (e == NULL)
        kf_diags_print(f->diags, stderr, false);
    assert_non_null(e);
    for (int q = 0; q < 12; q++)
        for (int k = 0; k < 12; k++) {
            double vars[KF_EXPR_VAR_COUNT] = {[KF_EXPR_Q] = q, [KF_EXPR_K] = k};
            assert_int_equal(kf_expr_eval(e, vars), want(q, k));
        }
}

static bool want_causal(int q, int k)
{
    return k <= q;
}
static bool want_window(int q, int k)
{
    return k <= q && k > q - 3;
}
static bool want_sink(int q, int k)
{
    return k <= q && (k > q - 3 || k < 2);
}
static bool want_chunk(int q, int k)
{
    return k <= q && k / 4 == q / 4;
}
static bool want_not(int q, int k)
{
    return k <= q && k >= 2;
}

static void masks(void **state)
{
    fixture *f = *state;
    check_mask(f, "causal", want_causal);
    check_mask(f, "q >= k", want_causal);
    check_mask(f, "causal & padding & bidirectional", want_causal);
    check_mask(f, "causal & window(3)", want_window);
    check_mask(f, "causal & (window(3) | sink(2))", want_sink);
    check_mask(f, "causal & window(3) | causal & prefix(2)", want_sink);
    check_mask(f, "causal & chunk(4)", want_chunk);
    check_mask(f, "causal & !sink(2)", want_not);
    check_mask(f, "k < q & k >= 2 | k == q & k >= 2", want_not);
}

/** Slopes of the authors' own get_slopes for 8 and for 12 heads. */
static void alibi(void **state)
{
    fixture *f = *state;
    for (uint32_t n_heads = 8; n_heads <= 12; n_heads += 4) {
        const kf_expr *e = parse(f, KF_EXPR_SCORE, "score + alibi(h, q, k)", n_heads);
        assert_non_null(e);
        for (uint32_t h = 0; h < n_heads; h++) {
            double slope = h < 8 ? pow(2, -(h + 1.0)) : pow(2, -(0.5 + (h - 8.0)));
            double vars[KF_EXPR_VAR_COUNT] = {
                [KF_EXPR_SCORE_VAR] = 0.5, [KF_EXPR_H] = h, [KF_EXPR_Q] = 9, [KF_EXPR_K] = 4};
            assert_true(fabs(kf_expr_eval(e, vars) - (0.5 - 5 * slope)) < 1e-12);
        }
    }
}

static void softcap(void **state)
{
    fixture *f = *state;
    expect_tree(f, KF_EXPR_PROB, "exp((k - q) * 0.5)", "exp(mul(sub(k, q), 0.5))");
    expect_tree(f, KF_EXPR_SCORE, "softcap(score, 50)", "mul(50, tanh(div(score, 50)))");
}

static void causality(void **state)
{
    static const char *const bad[] = {"true", "k < q + 1", "causal | sink(2)", "!causal",
                                      "window(4)"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        void *inner;
        setup(&inner);
        assert_null(parse(inner, KF_EXPR_MASK, bad[i], 4));
        expect_first(inner, KF_E0406, 1, 1);
        teardown(&inner);
    }
}

static void errors_have_places(void **state)
{
    static const struct {
        kf_expr_kind kind;
        const char *text;
        kf_diag_code code;
        uint32_t col;
    } cases[] = {
        {KF_EXPR_MASK, "causal & foo(3)", KF_E0202, 10},
        {KF_EXPR_MASK, "causal & window(0)", KF_E0205, 17},
        {KF_EXPR_MASK, "causal & window(1.5)", KF_E0205, 17},
        {KF_EXPR_MASK, "causal & (q + 1)", KF_E0203, 11},
        {KF_EXPR_MASK, "causal & document", KF_E0404, 10},
        {KF_EXPR_MASK, "causal & b < 1", KF_E0404, 10},
        {KF_EXPR_SCORE, "score +", KF_E0201, 8},
        {KF_EXPR_SCORE, "score score", KF_E0201, 7},
        {KF_EXPR_SCORE, "softcap(score, q)", KF_E0205, 16},
        {KF_EXPR_SCORE, "softcap(score)", KF_E0204, 1},
        {KF_EXPR_SCORE, "exp(score, score)", KF_E0204, 1},
        {KF_EXPR_SCORE, "1e999", KF_E0201, 1},
        {KF_EXPR_PROB, "score", KF_E0202, 1},
        {KF_EXPR_PROB, "k <= q", KF_E0203, 1},
        {KF_EXPR_ACT, "", KF_E0201, 1},
        {KF_EXPR_ACT, "x ? 1", KF_E0201, 3},
        {KF_EXPR_ACT, "score", KF_E0202, 1},
        {KF_EXPR_ACT, "x & x", KF_E0203, 1},
        {KF_EXPR_ACT, "(x", KF_E0201, 3},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *inner;
        setup(&inner);
        assert_null(parse(inner, cases[i].kind, cases[i].text, 4));
        expect_first(inner, cases[i].code, 1, cases[i].col);
        teardown(&inner);
    }
}

/** x + 1 + 1 ...: n nodes for odd n. */
static kf_str chain(fixture *f, uint32_t n)
{
    kf_sbuf b = {.arena = f->arena};
    kf_sbuf_c(&b, "x");
    for (uint32_t i = 1; i < n; i += 2)
        kf_sbuf_c(&b, "+1");
    return kf_sbuf_view(&b);
}

static void limits(void **state)
{
    fixture *f = *state;
    assert_non_null(parse(f, KF_EXPR_ACT, chain(f, KF_EXPR_MAX_NODES - 1).ptr, 4));
    assert_null(parse(f, KF_EXPR_ACT, chain(f, KF_EXPR_MAX_NODES + 1).ptr, 4));
    expect_first(f, KF_E0707, 1, 1);
    for (uint32_t above = 0; above < 2; above++) {
        void *inner;
        setup(&inner);
        kf_sbuf b = {.arena = ((fixture *)inner)->arena};
        for (uint32_t i = 1; i < KF_EXPR_MAX_NESTING + above; i++)
            kf_sbuf_char(&b, '(');
        kf_sbuf_char(&b, 'x');
        for (uint32_t i = 1; i < KF_EXPR_MAX_NESTING + above; i++)
            kf_sbuf_char(&b, ')');
        const kf_expr *e = parse(inner, KF_EXPR_ACT, b.ptr, 4);
        assert_int_equal(e != NULL, above == 0);
        if (above)
            expect_first(inner, KF_E0707, 1, 0);
        teardown(&inner);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(precedence), FIXTURE_TEST(activations),
        FIXTURE_TEST(masks),      FIXTURE_TEST(alibi),
        FIXTURE_TEST(softcap),    FIXTURE_TEST(causality),
        FIXTURE_TEST(limits),     FIXTURE_TEST(errors_have_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
