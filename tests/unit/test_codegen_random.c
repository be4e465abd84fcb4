/* SPDX-License-Identifier: Apache-2.0 */
/* Random bodies of elementwise ops, index ops and row reductions, alone and behind a product,
 * against the evaluator. KF_TEST_SEED repeats a failure. */
#include "tests/unit/codegen_case.h"
#include "tests/unit/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define N    kf_dim_sym(KF_SYM_N)
#define S(x) kf_dim_static(x)

enum { MAX_VALUES = 32 };

typedef struct gen {
    kf_case c;
    uint64_t state;
    kf_value value[MAX_VALUES]; /* f32, rows first */
    uint32_t n;
    kf_value ids; /* i32 rows, or KF_NO_VALUE */
} gen;

static uint32_t pick(gen *g, uint32_t n)
{
    return (uint32_t)(random_u64(&g->state) % n);
}

static kf_value any(gen *g)
{
    return g->value[pick(g, g->n)];
}

static const kf_type *type_of(gen *g, kf_value v)
{
    return kf_value_type(g->c.body, v);
}

static int64_t columns(gen *g, kf_value v)
{
    return kf_type_static_elems(type_of(g, v));
}

static kf_value add_node(gen *g, kf_op op, const void *attr, uint32_t n, const kf_value *in)
{
    return kf_node_add(g->c.body, op, attr, n, in, NULL, KF_NO_LOC);
}

/* Results stay in (-1, 1), so that one tolerance fits all. */
static kf_value bounded(gen *g, kf_value v)
{
    return add_node(g, KF_OP_tanh, NULL, 1, &v);
}

static kf_value make_unary(gen *g)
{
    static const kf_op ops[] = {KF_OP_neg,    KF_OP_abs,      KF_OP_sigmoid, KF_OP_silu,
                                KF_OP_gelu,   KF_OP_relu,     KF_OP_erf,     KF_OP_tanh,
                                KF_OP_square, KF_OP_softplus, KF_OP_sin,     KF_OP_exp};
    const kf_value v = any(g);
    return bounded(g, add_node(g, ops[pick(g, sizeof ops / sizeof ops[0])], NULL, 1, &v));
}

/* With a value of the same shape, a row of columns, or one value a row. */
static kf_value make_binary(gen *g)
{
    static const kf_op ops[] = {KF_OP_add, KF_OP_sub, KF_OP_mul, KF_OP_min, KF_OP_max};
    kf_value in[2] = {any(g), KF_NO_VALUE};
    const kf_type t = *type_of(g, in[0]);
    for (uint32_t i = 0; i < 4 && in[1] == KF_NO_VALUE; i++) {
        const kf_value v = any(g);
        bool same = type_of(g, v)->rank == t.rank;
        for (uint32_t d = 0; same && d < t.rank; d++)
            same = kf_dim_eq(type_of(g, v)->dim[d], t.dim[d]);
        if (same)
            in[1] = v;
    }
    if (in[1] == KF_NO_VALUE && g->c.body->args.len < 8)
        in[1] = pick(g, 2) ? kf_case_arg(&g->c, KF_DTYPE_bf16, 1, &t.dim[t.rank - 1], "col")
                           : kf_case_arg(&g->c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(1)}, "row");
    if (in[1] == KF_NO_VALUE || (t.rank != 2 && type_of(g, in[1])->rank == 2))
        in[1] = in[0];
    return bounded(g, add_node(g, ops[pick(g, 5)], NULL, 2, in));
}

static kf_value make_reshape(gen *g)
{
    static const int64_t factors[] = {2, 3, 4, 5, 8, 16, 32};
    const kf_value v = any(g);
    const int64_t n = columns(g, v), f = factors[pick(g, 7)];
    if (n % f || type_of(g, v)->rank > 2 || n == f)
        return kf_node_reshape(g->c.body, v, 2, (kf_dim[]){N, S(n)}, KF_NO_LOC);
    if (pick(g, 2) && n / f % 2 == 0 && n / f > 2)
        return kf_node_reshape(g->c.body, v, 4, (kf_dim[]){N, S(n / f / 2), S(2), S(f)}, KF_NO_LOC);
    return kf_node_reshape(g->c.body, v, 3, (kf_dim[]){N, S(n / f), S(f)}, KF_NO_LOC);
}

/* Each column |f| times, as keys of one head are repeated for a group of query heads. */
static kf_value make_expand(gen *g)
{
    static const int64_t factors[] = {2, 3, 4, 8};
    const kf_value v = any(g);
    const int64_t n = columns(g, v), f = factors[pick(g, 4)];
    const kf_type wide = kf_type_tensor(type_of(g, v)->dtype, 3, (kf_dim[]){N, S(n), S(f)});
    if (n * f > 320)
        return make_reshape(g);
    kf_value one = kf_node_reshape(g->c.body, v, 3, (kf_dim[]){N, S(n), S(1)}, KF_NO_LOC);
    one = kf_node_add(g->c.body, KF_OP_expand, NULL, 1, &one, &wide, KF_NO_LOC);
    return kf_node_reshape(g->c.body, one, 2, (kf_dim[]){N, S(n * f)}, KF_NO_LOC);
}

static uint32_t axis_of(gen *g, kf_value v)
{
    return 1 + pick(g, type_of(g, v)->rank - 1u);
}

static kf_value make_slice(gen *g)
{
    const kf_value v = any(g);
    const uint32_t axis = axis_of(g, v);
    const int64_t size = type_of(g, v)->dim[axis].size;
    const int64_t lo = pick(g, (uint32_t)size), hi = lo + 1 + pick(g, (uint32_t)(size - lo));
    return kf_node_slice(g->c.body, v, axis, lo, hi, KF_NO_LOC);
}

static kf_value make_concat(gen *g)
{
    kf_value in[2] = {any(g), any(g)};
    kf_attr_axis *a = KF_ATTR_NEW(g->c.arena, axis);
    a->axis = axis_of(g, in[0]);
    const kf_type *x = type_of(g, in[0]), *y = type_of(g, in[1]);
    bool fits = x->rank == y->rank;
    for (uint32_t d = 0; fits && d < x->rank; d++)
        fits = (int64_t)d == a->axis || kf_dim_eq(x->dim[d], y->dim[d]);
    in[1] = fits ? in[1] : in[0];
    return add_node(g, KF_OP_concat, a, 2, in);
}

static kf_value make_transpose(gen *g)
{
    const kf_value v = any(g);
    if (type_of(g, v)->rank != 3)
        return make_reshape(g);
    kf_attr_perm *p = KF_ATTR_NEW(g->c.arena, perm);
    p->perm = (kf_ints){3, {0, 2, 1}};
    return add_node(g, KF_OP_transpose, p, 1, &v);
}

static kf_value make_gather(gen *g)
{
    if (g->ids == KF_NO_VALUE)
        return make_slice(g);
    const kf_value in[] = {any(g), g->ids};
    return add_node(g, KF_OP_gather, NULL, 2, in);
}

static kf_value make_reduce(gen *g)
{
    static const char *const names[] = {"v", "a"};
    static const kf_acc accs[] = {KF_ACC_max, KF_ACC_min, KF_ACC_sum, KF_ACC_sum_sq};
    const kf_value v = any(g);
    const kf_type *t = type_of(g, v);
    kf_attr_row_reduce *a = KF_ATTR_NEW(g->c.arena, row_reduce);
    a->acc = (kf_accs){1, {accs[pick(g, 4)]}};
    a->keep = pick(g, 2);
    kf_slot_builder *b = kf_slot_builder_create(g->c.arena, 2, names, 0);
    uint32_t s = kf_slot_fn(b, KF_FN_div, kf_slot_param(b, 1),
                            kf_slot_const(b, (double)t->dim[t->rank - 1].size), 0);
    if (a->keep)
        s = kf_slot_fn(b, KF_FN_sub, kf_slot_param(b, 0), s, 0);
    a->map = kf_slot_finish(b, s);
    return bounded(g, add_node(g, KF_OP_row_reduce, a, 1, &v));
}

static kf_value make_rope(gen *g)
{
    const kf_value v = any(g);
    const kf_type t = *type_of(g, v);
    if (t.rank != 3 || t.dim[2].size < 2 || g->c.body->args.len > 10)
        return make_unary(g);
    const int64_t half = 1 + pick(g, (uint32_t)(t.dim[2].size / 2));
    kf_attr_rope *a = KF_ATTR_NEW(g->c.arena, rope);
    a->style = (int)pick(g, 2);
    const kf_value in[] = {v,
                           kf_case_arg(&g->c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(half), S(2)}, "t")};
    return bounded(g, add_node(g, KF_OP_rope, a, 2, in));
}

typedef kf_value (*maker)(gen *g);
static const maker makers[] = {make_unary,   make_binary, make_binary,    make_reshape,
                               make_reshape, make_expand, make_slice,     make_concat,
                               make_gather,  make_reduce, make_transpose, make_rope};

static void grow(gen *g, uint32_t ops)
{
    for (uint32_t i = 0; i < ops && g->n < MAX_VALUES; i++) {
        const kf_value v = makers[pick(g, sizeof makers / sizeof makers[0])](g);
        if (columns(g, v) <= 2000)
            g->value[g->n++] = v;
    }
}

static gen begin(uint64_t seed)
{
    gen g = {.state = seed, .ids = KF_NO_VALUE};
    const int64_t rows = 1 + (int64_t)(random_u64(&g.state) % 40);
    g.c = kf_case_begin(1, rows, 1, rows);
    g.c.arch = pick(&g, 2) ? "native" : "x86-64-v3";
    g.c.seed = seed;
    g.c.rtol = g.c.atol = 1e-4;
    g.c.rows_hi = rows <= 8 ? 8 : 512;
    return g;
}

static void add_results(gen *g, uint32_t first)
{
    const uint32_t n = 1 + pick(g, 3);
    for (uint32_t i = 0; i < n; i++)
        kf_graph_add_result(g->c.body, g->value[first + pick(g, g->n - first)]);
    kf_graph_compact(g->c.body);
}

static const int64_t widths[] = {1, 6, 16, 24, 40, 64, 96, 120, 160};

static void test_rows(void **state)
{
    (void)state;
    const uint64_t first = test_seed(1000);
    for (uint64_t seed = first; seed < first + scaled(60); seed++) {
        gen g = begin(seed);
        printf("seed %llu\n", (unsigned long long)seed);
        g.ids = kf_case_arg(&g.c, KF_DTYPE_i32, 1, (kf_dim[]){N}, "ids");
        kf_case_ints(&g.c, g.ids, 0, g.c.sym[KF_SYM_N]);
        g.value[g.n++] =
            kf_case_arg(&g.c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(widths[pick(&g, 9)])}, "x");
        g.value[g.n++] =
            kf_case_arg(&g.c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(widths[pick(&g, 9)])}, "y");
        grow(&g, 4 + pick(&g, 10));
        add_results(&g, 0);
        kf_case_run(&g.c, KF_FAMILY_row_reduce);
        kf_case_end(&g.c);
    }
}

/* Only what depends on the product may be a result; bodies that no tile of columns can compute are
 * refused with a reason and counted. */
static void test_epilogues(void **state)
{
    (void)state;
    const uint64_t first = test_seed(2000);
    uint32_t refused = 0, ran = 0;
    for (uint64_t seed = first; seed < first + scaled(40); seed++) {
        gen g = begin(seed);
        printf("seed %llu\n", (unsigned long long)seed);
        const int64_t k = widths[1 + pick(&g, 4)];
        kf_value x = kf_case_arg(&g.c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(k)}, "x");
        kf_value w = kf_case_weight(&g.c, KF_DTYPE_bf16, widths[1 + pick(&g, 8)], k, "w");
        g.value[g.n++] = bounded(&g, kf_node_matmul(g.c.body, x, w, true, KF_NO_LOC));
        grow(&g, 2 + pick(&g, 8));
        add_results(&g, 0);
        kf_sbuf why = {.arena = g.c.arena};
        const kf_target *t = kf_target_cpu(g.c.arena, g.c.arch);
        if (t->match(t, KF_FAMILY_matmul, g.c.body, &why)) {
            kf_case_run(&g.c, KF_FAMILY_matmul);
            ran++;
        } else {
            assert_true(why.len > 10);
            refused++;
        }
        kf_case_end(&g.c);
    }
    printf("%u epilogues ran, %u were refused\n", ran, refused);
    assert_true(ran >= refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_epilogues),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
