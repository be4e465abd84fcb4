/* SPDX-License-Identifier: Apache-2.0 */
/* test_frontend_yaml - the reader of YAML and JSON: values, places, and every limit at it and one
 * above. */
#include "frontend.h"
#include "frontend/yaml.h"

#include <time.h>

static kf_yaml_node *parse(fixture *f, kf_str text)
{
    uint32_t file = kf_diags_add_file(f->diags, KF_STR("t.yaml"), text);
    return kf_yaml_parse(f->arena, f->diags, file, text, KF_ORIGIN_SPEC);
}

static kf_yaml_node *parse_json(fixture *f, kf_str text)
{
    uint32_t file = kf_diags_add_file(f->diags, KF_STR("t.json"), text);
    return kf_json_parse(f->arena, f->diags, file, text, KF_ORIGIN_CONFIG);
}

static void expect_str(const kf_yaml_node *node, const char *text)
{
    assert_non_null(node);
    assert_int_equal(node->kind, KF_YAML_SCALAR);
    assert_string_equal(node->text.ptr, text);
}

static void expect_place(kf_loc loc, uint32_t line, uint32_t col, uint32_t len)
{
    assert_int_equal(loc.line, line);
    assert_int_equal(loc.col, col);
    assert_int_equal(loc.len, len);
}

static void values_and_places(void **state)
{
    fixture *f = *state;
    kf_yaml_node *root =
        parse(f, KF_STR("a: 1\n\xc3\xa4: 'x y'   # umlaut key\nlist:\n  - {k: \"\\u00e4\"}\n"));
    assert_non_null(root);
    assert_int_equal(root->n, 3);
    const kf_yaml_node *umlaut = kf_yaml_get(root, "\xc3\xa4");
    expect_str(umlaut, "x y");
    assert_true(umlaut->quoted);
    expect_place(umlaut->loc, 2, 5, 5); /* columns are bytes */
    expect_place(kf_yaml_loc_at(umlaut, 2, 1), 2, 8, 1);
    const kf_yaml_node *list = kf_yaml_get(root, "list");
    const kf_yaml_node *k = kf_yaml_get(list->u.items[0], "k");
    expect_str(k, "\xc3\xa4");
    assert_false(
        k->verbatim); /* an escape: offsets are no columns, so the whole value is the place */
    expect_place(kf_yaml_loc_at(k, 1, 1), 4, 9, 8);
    assert_int_equal(root->n_expanded, 10);
}

static void aliases(void **state)
{
    fixture *f = *state;
    kf_yaml_node *root = parse(f, KF_STR("a: &x {p: 1}\nb: *x\nc: [*x, *x]\n"));
    assert_non_null(root);
    assert_ptr_equal(kf_yaml_get(root, "a"), kf_yaml_get(root, "b"));
    assert_int_equal(kf_yaml_get(root, "c")->n_expanded, 7);
}

static void json_values(void **state)
{
    fixture *f = *state;
    kf_yaml_node *root = parse_json(f, KF_STR("{\"s\": \"a\\/\\ud83d\\ude00\\n\", \"n\": "
                                              "-1.5e-3,\n\t\"l\": [true, null, {}], \"\": 0}"));
    assert_non_null(root);
    expect_str(kf_yaml_get(root, "s"), "a/\xf0\x9f\x98\x80\n");
    expect_str(kf_yaml_get(root, "n"), "-1.5e-3");
    expect_place(kf_yaml_find(root, "l")->key->loc, 2, 2, 3);
    assert_int_equal(kf_yaml_get(root, "l")->n, 3);
    assert_false(kf_yaml_get(root, "l")->u.items[1]->quoted);
}

static void json_errors(void **state)
{
    static const struct {
        const char *text;
        uint32_t line, col;
    } cases[] = {
        {"{'a': 1}", 1, 2},      {"{\"a\": 01}", 1, 7},  {"{\"a\": 1,}", 1, 9},
        {"[1 2]", 1, 4},         {"{\"a\" 1}", 1, 6},    {"[1]\n[2]", 2, 1},
        {"{\"a\": .5}", 1, 7},   {"\"\\ud800\"", 1, 2},  {"\"\\x\"", 1, 2},
        {"[tru]", 1, 2},         {"\"a\nb\"", 1, 3},     {"{\"a\": 1", 1, 8},
        {"[\"\\udc00\"]", 1, 3}, {"{\"a\": NaN}", 1, 7}, {"[1.]", 1, 4},
        {"# c\n{}", 1, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *inner;
        setup(&inner);
        assert_null(parse_json(inner, kf_str_from(cases[i].text)));
        expect_first(inner, KF_E0301, cases[i].line, cases[i].col);
        teardown(&inner);
    }
    fixture *f = *state;
    assert_null(parse_json(f, KF_STR("{\"a\": 1, \"\\u0061\": 2}")));
    expect_first(f, KF_E0103, 1, 10);
}

static void not_text(void **state)
{
    fixture *f = *state;
    assert_null(parse(f, KF_STR("a: \xff\n")));
    expect_first(f, KF_E0110, 1, 4);
    void *other;
    setup(&other);
    assert_null(parse(other, (kf_str){"a: b\nc: \0d", 10}));
    expect_first(other, KF_E0110, 2, 4);
    teardown(&other);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/** |head| + n times |unit| + |tail|. */
static kf_str repeated(fixture *f, const char *head, const char *unit, uint32_t n, const char *tail)
{
    kf_sbuf b = {.arena = f->arena};
    kf_sbuf_c(&b, head);
    for (uint32_t i = 0; i < n; i++)
        kf_sbuf_c(&b, unit);
    kf_sbuf_c(&b, tail);
    return kf_sbuf_view(&b);
}

/** Accepts |good|, refuses |bad| with |code|. */
static void check_limit(kf_str (*make)(fixture *, uint32_t), uint32_t limit, kf_diag_code code)
{
    for (uint32_t above = 0; above < 2; above++) {
        void *state;
        setup(&state);
        fixture *f = state;
        kf_yaml_node *root = parse(f, make(f, limit + above));
        if (above == 0) {
            if (root == NULL)
                kf_diags_print(f->diags, stderr, false);
            assert_non_null(root);
        } else {
            assert_null(root);
            expect_first(f, code, 0, 0);
        }
        teardown(&state);
    }
}

static kf_str make_bytes(fixture *f, uint32_t n)
{
    return repeated(f, "a: b\n#", "x", n - 6, "");
}

static kf_str make_depth(fixture *f, uint32_t n)
{
    kf_sbuf b = {.arena = f->arena};
    for (uint32_t i = 0; i < n; i++)
        kf_sbuf_char(&b, '[');
    for (uint32_t i = 0; i < n; i++)
        kf_sbuf_char(&b, ']');
    return kf_sbuf_view(&b);
}

/* n events: the sequence's start and end and n - 2 scalars. */
static kf_str make_events(fixture *f, uint32_t n)
{
    return repeated(f, "[", "a, ", n - 3, "a]");
}

static kf_str make_scalar(fixture *f, uint32_t n)
{
    return repeated(f, "a: \"", "x", n, "\"\n");
}

/* One anchored list of 10 nodes, n / 10 aliases; the rest aliases of one node. */
static kf_str make_aliases(fixture *f, uint32_t n)
{
    kf_sbuf b = {.arena = f->arena};
    kf_sbuf_c(&b, "a: &t [1,2,3,4,5,6,7,8,9]\nb: &o 1\nc:\n");
    for (uint32_t i = 0; i < n / 10; i++)
        kf_sbuf_c(&b, "- *t\n");
    for (uint32_t i = 0; i < n % 10; i++)
        kf_sbuf_c(&b, "- *o\n");
    return kf_sbuf_view(&b);
}

static kf_str make_anchors(fixture *f, uint32_t n)
{
    kf_sbuf b = {.arena = f->arena};
    for (uint32_t i = 0; i < n; i++)
        kf_sbuf_printf(&b, "- &a%u 1\n", i);
    return kf_sbuf_view(&b);
}

static void limits(void **state)
{
    (void)state;
    check_limit(make_bytes, KF_YAML_MAX_BYTES, KF_E0702);
    check_limit(make_depth, KF_YAML_MAX_NESTING, KF_E0703);
    check_limit(make_events, KF_YAML_MAX_EVENTS, KF_E0704);
    check_limit(make_scalar, KF_YAML_MAX_SCALAR, KF_E0705);
    check_limit(make_aliases, KF_YAML_MAX_ALIAS_NODES, KF_E0706);
    check_limit(make_anchors, KF_YAML_MAX_ANCHORS, KF_E0706);
}

/** Nesting through aliases counts as deep as it expands. */
static void alias_depth(void **state)
{
    fixture *f = *state;
    kf_sbuf b = {.arena = f->arena};
    kf_sbuf_c(&b, "a0: &a0 [[[[[[[[[[1]]]]]]]]]]\n");
    for (int i = 1; i < 8; i++)
        kf_sbuf_printf(&b, "a%d: &a%d [[[[[[[[[[*a%d]]]]]]]]]]\n", i, i, i - 1);
    assert_null(parse(f, kf_sbuf_view(&b)));
    expect_first(f, KF_E0703, 0, 0);
}

/* Inputs that are cheap to write and have cost readers dearly; each must be refused or read at
 * once. */
static void hostile_input_is_cheap(void **state)
{
    static const struct {
        const char *head, *unit, *tail;
        uint32_t n;
    } cases[] = {
        {"", "[", "", 100000}, /* quadratic in libyaml: 89 s */
        {"", "{a: ", "", 20000},        {"", "- ", "x", 500000},
        {"", "? ", "x", 500000},        {"", "%TAG !a! b\n", "--- a\n", 90000},
        {"a: ", "&a ", "b", 300000},    {"", "a: &a [*a]\n", "", 90000},
        {"[", "\"", "]", 1000000},      {"", "\n", "a", 1000000},
        {"a: |\n", " x\n", "", 300000}, {"", "*a ", "", 300000},
        {"!", "!", " a", 1000000},      {"", "a", ": b", 1000000},
        {"", "{\"", "", 100000},        {"# ", "#", "\na: b", 1000000},
    };
    (void)state;
    double worst = 0;
#ifdef __SANITIZE_ADDRESS__
    const double max_seconds = 1.0;
#else
    const double max_seconds = 0.1;
#endif
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *inner;
        setup(&inner);
        fixture *f = inner;
        kf_str text = repeated(f, cases[i].head, cases[i].unit, cases[i].n, cases[i].tail);
        double before = cpu_seconds();
        parse(f, text);
        parse_json(f, text);
        double took = cpu_seconds() - before;
        if (took > worst)
            worst = took;
        if (took > max_seconds)
            fail_msg("case %zu took %.2f s of CPU time", i, took);
        teardown(&inner);
    }
    print_message("worst case: %.0f ms of CPU time\n", worst * 1e3);
}

/** Many distinct keys are checked for duplicates without comparing all pairs. */
static void many_keys(void **state)
{
    fixture *f = *state;
    kf_sbuf b = {.arena = f->arena};
    for (int i = 0; i < 49999; i++)
        kf_sbuf_printf(&b, "k%d: 1\n", i);
    double before = cpu_seconds();
    kf_yaml_node *root = parse(f, kf_sbuf_view(&b));
    assert_non_null(root);
    assert_int_equal(root->n, 49999);
    assert_true(cpu_seconds() - before < 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(values_and_places),
        FIXTURE_TEST(aliases),
        FIXTURE_TEST(json_values),
        FIXTURE_TEST(json_errors),
        FIXTURE_TEST(not_text),
        FIXTURE_TEST(limits),
        FIXTURE_TEST(alias_depth),
        FIXTURE_TEST(many_keys),
        FIXTURE_TEST(hostile_input_is_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
