/* SPDX-License-Identifier: Apache-2.0 */
/* map, row_reduce, contract and index kernels against the evaluator. */
#include "tests/unit/codegen_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define N    kf_dim_sym(KF_SYM_N)
#define S(x) kf_dim_static(x)

static const char *const archs[] = {"x86-64-v3", "native"};

static kf_value node1(kf_case *c, kf_op op, kf_value a)
{
    return kf_node_1(c->body, op, a, KF_NO_LOC);
}
static kf_value node2(kf_case *c, kf_op op, kf_value a, kf_value b)
{
    return kf_node_2(c->body, op, a, b, KF_NO_LOC);
}

/* y = silu(x * gamma) + 2 with broadcasting, for widths with and without a vector remainder. */
static void test_elementwise(void **state)
{
    (void)state;
    static const int64_t widths[] = {1, 3, 16, 37, 256};
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t i = 0; i < 5; i++) {
            kf_case c = kf_case_begin(1, 19, 1, 19);
            c.arch = archs[a];
            kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(widths[i])}, "x");
            kf_value g = kf_case_arg(&c, KF_DTYPE_bf16, 1, (kf_dim[]){S(widths[i])}, "g");
            kf_value m = node2(&c, KF_OP_mul, x, g);
            kf_value y =
                node2(&c, KF_OP_add, node1(&c, KF_OP_silu, m), kf_node_const(c.body, 2, KF_NO_LOC));
            kf_graph_add_result(c.body, y);
            kf_graph_add_result(c.body, m);
            kf_case_run(&c, KF_FAMILY_map);
            kf_case_end(&c);
        }
}

/* Operand |i| of |fn|: a predicate where it takes one, else numbers on which it is defined. */
static kf_value operand_of(kf_case *c, kf_fn fn, uint32_t i)
{
    static const char *const names[] = {"a", "b", "c"};
    kf_value x = kf_case_arg(c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(37)}, names[i]);
    const bool logic = fn == KF_FN_and || fn == KF_FN_or || fn == KF_FN_not;

    if (logic || (fn == KF_FN_select && i == 0))
        return node2(c, KF_OP_lt, x, kf_node_const(c->body, 0, KF_NO_LOC));
    if (i > 0 || !isnan(kf_fn_eval(fn, -1.5, 0.5, 0.5)))
        return x;
    return node2(c, KF_OP_add, node1(c, KF_OP_abs, x), kf_node_const(c->body, 0.125, KF_NO_LOC));
}

/* Every row of fn.def: what emit builds is what eval says. */
static void test_every_function(void **state)
{
    (void)state;
    for (kf_fn fn = 0; fn < KF_FN_COUNT; fn++) {
        kf_case c = kf_case_begin(1, 19, 1, 19);
        kf_value in[3] = {0};
        for (uint32_t i = 0; i < kf_fn_infos[fn].arity; i++)
            in[i] = operand_of(&c, fn, i);
        kf_value y =
            kf_node_add(c.body, (kf_op)fn, NULL, kf_fn_infos[fn].arity, in, NULL, KF_NO_LOC);
        if (kf_fn_infos[fn].result == KF_FN_RESULT_pred)
            y = kf_node_3(c.body, KF_OP_select, y, kf_node_const(c.body, 1, KF_NO_LOC),
                          kf_node_const(c.body, 0, KF_NO_LOC), KF_NO_LOC);
        kf_graph_add_result(c.body, y);
        kf_case_run(&c, KF_FAMILY_map);
        kf_case_end(&c);
    }
}

static kf_value row_reduce(kf_case *c, kf_value x, kf_accs acc, const kf_slot *map, bool keep,
                           kf_value capture)
{
    kf_attr_row_reduce *a = KF_ATTR_NEW(c->arena, row_reduce);
    a->acc = acc;
    a->map = map;
    a->keep = keep;
    const kf_value in[] = {x, capture};
    return kf_node_add(c->body, KF_OP_row_reduce, a, capture == KF_NO_VALUE ? 1 : 2, in, NULL,
                       KF_NO_LOC);
}

/* (v, s, c) { v * rsqrt(s / n + 1e-5) * gamma[c] } */
static const kf_slot *rms_map(kf_case *c, double n)
{
    static const char *const names[] = {"v", "s", "c"};
    kf_slot_builder *b = kf_slot_builder_create(c->arena, 3, names, 1);
    uint32_t mean = kf_slot_fn(b, KF_FN_div, kf_slot_param(b, 1), kf_slot_const(b, n), 0);
    uint32_t scale =
        kf_slot_fn(b, KF_FN_rsqrt, kf_slot_fn(b, KF_FN_add, mean, kf_slot_const(b, 1e-5), 0), 0, 0);
    uint32_t v = kf_slot_fn(b, KF_FN_mul, kf_slot_param(b, 0), scale, 0);
    uint32_t col = kf_slot_param(b, 2);
    return kf_slot_finish(b, kf_slot_fn(b, KF_FN_mul, v, kf_slot_load(b, 0, &col, 1), 0));
}

static void test_rms_norm(void **state)
{
    (void)state;
    static const int64_t widths[] = {5, 64, 100};
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t i = 0; i < 3; i++) {
            kf_case c = kf_case_begin(1, 21, 1, 21);
            c.arch = archs[a];
            kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(widths[i])}, "x");
            kf_value r = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(widths[i])}, "r");
            kf_value g = kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(widths[i])}, "g");
            kf_value sum = node2(&c, KF_OP_add, x, r);
            kf_accs acc = {1, {KF_ACC_sum_sq}};
            kf_graph_add_result(c.body, sum);
            kf_graph_add_result(c.body,
                                row_reduce(&c, sum, acc, rms_map(&c, (double)widths[i]), true, g));
            kf_case_run(&c, KF_FAMILY_row_reduce);
            kf_case_end(&c);
        }
}

/* A sum stored over its first operand, while a norm and a statistic of it are computed again. */
static void test_in_place(void **state)
{
    (void)state;
    kf_case c = kf_case_begin(1, 40, 1, 40);
    kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(70)}, "x");
    kf_value r = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(70)}, "r");
    kf_value g = kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(70)}, "g");
    kf_value sum = node2(&c, KF_OP_add, x, r);
    kf_accs acc = {1, {KF_ACC_sum_sq}};
    kf_attr_row_stat *stat = KF_ATTR_NEW(c.arena, row_stat);
    stat->acc = acc;
    stat->block = 32;
    c.over[0] = 1;
    kf_graph_add_result(c.body, sum);
    kf_graph_add_result(c.body, row_reduce(&c, sum, acc, rms_map(&c, 70), true, g));
    kf_graph_add_result(c.body,
                        kf_node_add(c.body, KF_OP_row_stat, stat, 1, &sum, NULL, KF_NO_LOC));
    kf_case_run(&c, KF_FAMILY_row_reduce);
    kf_case_end(&c);
}

/* Softmax over a last axis whose length is known at the call, with a mask; and a row without any
 * key. */
static void test_softmax(void **state)
{
    (void)state;
    static const char *const names[] = {"v", "m", "s"};
    for (uint32_t a = 0; a < 2; a++)
        for (int64_t k = 1; k < 80; k += 13) {
            kf_case c = kf_case_begin(1, 7, 1, k);
            c.arch = archs[a];
            const kf_dim K = kf_dim_sym(KF_SYM_K);
            kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 4, (kf_dim[]){S(2), S(3), N, K}, "x");
            kf_value pos = kf_case_arg(&c, KF_DTYPE_i32, 1, (kf_dim[]){N}, "pos");
            kf_value key = kf_case_arg(&c, KF_DTYPE_i32, 1, (kf_dim[]){K}, "key");
            kf_case_ints(&c, pos, 0, 40);
            kf_case_ints(&c, key, 3, 40);
            kf_value column = kf_node_reshape(c.body, pos, 2, (kf_dim[]){N, S(1)}, KF_NO_LOC);
            kf_value seen = node2(&c, KF_OP_le, key, column);
            kf_value none = kf_node_const(c.body, -__builtin_inf(), KF_NO_LOC);
            kf_value s = kf_node_3(c.body, KF_OP_select, seen, x, none, KF_NO_LOC);
            kf_slot_builder *b = kf_slot_builder_create(c.arena, 3, names, 0);
            uint32_t empty = kf_slot_fn(b, KF_FN_eq, kf_slot_param(b, 2), kf_slot_const(b, 0), 0);
            uint32_t e = kf_slot_fn(
                b, KF_FN_exp, kf_slot_fn(b, KF_FN_sub, kf_slot_param(b, 0), kf_slot_param(b, 1), 0),
                0, 0);
            uint32_t p = kf_slot_fn(b, KF_FN_div, e, kf_slot_param(b, 2), 0);
            const kf_slot *map =
                kf_slot_finish(b, kf_slot_fn(b, KF_FN_select, empty, kf_slot_const(b, 0), p));
            kf_accs acc = {2, {KF_ACC_max, KF_ACC_sum_exp}};
            kf_graph_add_result(c.body, row_reduce(&c, s, acc, map, true, KF_NO_VALUE));
            kf_case_run(&c, KF_FAMILY_row_reduce);
            kf_case_end(&c);
        }
}

/* Layer norm statistics: two accumulators, one of which needs the other, without keep; min and max
 * beside. */
static void test_statistics(void **state)
{
    (void)state;
    kf_case c = kf_case_begin(1, 9, 1, 9);
    kf_value x = kf_case_arg(&c, KF_DTYPE_bf16, 3, (kf_dim[]){N, S(3), S(45)}, "x");
    kf_value y = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(100)}, "y");
    kf_accs dev = {2, {KF_ACC_sum, KF_ACC_sum_dev}}, low = {1, {KF_ACC_min}},
            high = {1, {KF_ACC_max}};
    kf_graph_add_result(c.body, row_reduce(&c, x, dev, NULL, false, KF_NO_VALUE));
    kf_graph_add_result(c.body, row_reduce(&c, x, low, NULL, false, KF_NO_VALUE));
    kf_graph_add_result(c.body, row_reduce(&c, x, high, NULL, true, KF_NO_VALUE));
    kf_attr_row_stat *stat = KF_ATTR_NEW(c.arena, row_stat);
    stat->acc = (kf_accs){1, {KF_ACC_sum_sq}};
    stat->block = 32;
    kf_graph_add_result(c.body, kf_node_add(c.body, KF_OP_row_stat, stat, 1, &y, NULL, KF_NO_LOC));
    kf_case_run(&c, KF_FAMILY_row_reduce);
    kf_case_end(&c);
}

/* The first largest element of whole rows and of blocks, with ties, NaN and -inf; a row of nothing
 * else has none. */
static void test_argmax(void **state)
{
    (void)state;
    enum { ROWS = 9, WIDTH = 100 };
    static double x[ROWS * WIDTH];
    static const int64_t blocks[] = {64, 32, 5};
    for (int64_t i = 0; i < ROWS * WIDTH; i++)
        x[i] = (double)((i / WIDTH + 7) * i % 13);
    for (int64_t i = 0; i < WIDTH; i++) {
        x[2 * WIDTH + i] = i % 3 ? -INFINITY : NAN;
        x[3 * WIDTH + i] = i == 98 ? -7 : -INFINITY;
        x[4 * WIDTH + i] = i < 70 ? NAN : x[4 * WIDTH + i];
    }
    const kf_accs accs = {2, {KF_ACC_max, KF_ACC_argmax}};
    for (uint32_t a = 0; a < 2; a++) {
        kf_case c = kf_case_begin(1, ROWS, 1, ROWS);
        c.arch = archs[a];
        kf_value v = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(WIDTH)}, "x");
        c.given[0] = x;
        kf_graph_add_result(c.body, row_reduce(&c, v, accs, NULL, false, KF_NO_VALUE));
        for (uint32_t i = 0; i < 3; i++) {
            kf_attr_row_stat *stat = KF_ATTR_NEW(c.arena, row_stat);
            stat->acc = accs;
            stat->block = blocks[i];
            kf_graph_add_result(c.body,
                                kf_node_add(c.body, KF_OP_row_stat, stat, 1, &v, NULL, KF_NO_LOC));
        }
        kf_case_run(&c, KF_FAMILY_row_reduce);
        kf_case_end(&c);
    }
}

/* Index ops on top of each other, with vectors that do and do not fit the dims. */
static void test_index_maps(void **state)
{
    (void)state;
    static const int64_t sizes[] = {4, 6, 16, 32};
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t i = 0; i < 4; i++) {
            const int64_t d = sizes[i];
            kf_case c = kf_case_begin(1, 5, 1, 5);
            c.arch = archs[a];
            kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(4 * 3 * d)}, "x");
            kf_value y = kf_case_arg(&c, KF_DTYPE_f16, 3, (kf_dim[]){N, S(2), S(d)}, "y");
            kf_value x4 = kf_node_reshape(c.body, x, 4, (kf_dim[]){N, S(4), S(3), S(d)}, KF_NO_LOC);
            kf_value part = kf_node_slice(c.body, x4, 2, 1, 3, KF_NO_LOC);
            kf_value flat = kf_node_reshape(c.body, part, 3, (kf_dim[]){N, S(8), S(d)}, KF_NO_LOC);
            kf_attr_axis *axis = KF_ATTR_NEW(c.arena, axis);
            axis->axis = 1;
            const kf_type f32 = kf_type_tensor(KF_DTYPE_f32, 3, (kf_dim[]){N, S(2), S(d)});
            y = kf_node_add(c.body, KF_OP_convert, NULL, 1, &y, &f32, KF_NO_LOC);
            const kf_value parts[] = {flat, y};
            kf_value joined = kf_node_add(c.body, KF_OP_concat, axis, 2, parts, NULL, KF_NO_LOC);
            axis->axis = 2;
            const kf_value twice[] = {joined, joined};
            kf_value wide = kf_node_add(c.body, KF_OP_concat, axis, 2, twice, NULL, KF_NO_LOC);
            kf_attr_perm *perm = KF_ATTR_NEW(c.arena, perm);
            perm->perm = (kf_ints){3, {0, 2, 1}};
            kf_value turned =
                kf_node_add(c.body, KF_OP_transpose, perm, 1, &joined, NULL, KF_NO_LOC);
            const kf_type given = kf_type_tensor(KF_DTYPE_i32, 2, (kf_dim[]){S(1), S(2 * d)});
            kf_attr_axis *last = KF_ATTR_NEW(c.arena, axis);
            last->axis = 1;
            kf_value count = kf_node_add(c.body, KF_OP_iota, last, 0, NULL, &given, KF_NO_LOC);
            kf_graph_add_result(c.body, node2(&c, KF_OP_mul, wide, count));
            kf_graph_add_result(c.body, turned);
            const kf_type repeated =
                kf_type_tensor(KF_DTYPE_f32, 5, (kf_dim[]){S(2), N, S(10), S(3), S(d)});
            kf_value one =
                kf_node_reshape(c.body, joined, 4, (kf_dim[]){N, S(10), S(1), S(d)}, KF_NO_LOC);
            kf_graph_add_result(
                c.body, kf_node_add(c.body, KF_OP_expand, NULL, 1, &one, &repeated, KF_NO_LOC));
            const kf_type bf16 = kf_type_tensor(KF_DTYPE_bf16, 3, (kf_dim[]){N, S(10), S(d)});
            kf_graph_add_result(
                c.body, kf_node_add(c.body, KF_OP_convert, NULL, 1, &joined, &bf16, KF_NO_LOC));
            kf_case_run(&c, KF_FAMILY_map);
            kf_case_end(&c);
        }
}

/* Embedding rows through a packed table, with the statistic of the first norm; both weight orders.
 */
static void test_embedding(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        kf_case c = kf_case_begin(1, 13, 1, 13);
        kf_value table = kf_case_weight(&c, i ? KF_DTYPE_bf16 : KF_DTYPE_f32, 50, 72, "embed");
        kf_value ids = kf_case_arg(&c, KF_DTYPE_i32, 1, (kf_dim[]){N}, "ids");
        kf_case_ints(&c, ids, 0, 50);
        const kf_value in[] = {table, ids};
        kf_value x = kf_node_add(c.body, KF_OP_gather, NULL, 2, in, NULL, KF_NO_LOC);
        kf_attr_row_stat *stat = KF_ATTR_NEW(c.arena, row_stat);
        stat->acc = (kf_accs){1, {KF_ACC_sum_sq}};
        stat->block = 64;
        kf_graph_add_result(c.body, x);
        kf_graph_add_result(c.body,
                            kf_node_add(c.body, KF_OP_row_stat, stat, 1, &x, NULL, KF_NO_LOC));
        kf_case_run(&c, KF_FAMILY_row_reduce);
        kf_case_end(&c);
    }
}

/* A table at pairs of indices, as biases of positions are written out. */
static void test_gather_pairs(void **state)
{
    (void)state;
    for (uint32_t rank = 1; rank < 3; rank++) {
        kf_case c = kf_case_begin(1, 13, 1, 13);
        kf_value table = kf_case_arg(&c, KF_DTYPE_f32, (uint8_t)rank, (kf_dim[]){S(9), S(5)}, "t");
        kf_value ids = kf_case_arg(&c, KF_DTYPE_i32, 2, (kf_dim[]){N, S(7)}, "ids");
        kf_case_ints(&c, ids, 0, 9);
        const kf_value in[] = {table, ids};
        kf_graph_add_result(c.body,
                            kf_node_add(c.body, KF_OP_gather, NULL, 2, in, NULL, KF_NO_LOC));
        kf_case_run(&c, KF_FAMILY_map);
        kf_case_end(&c);
    }
}

/* Tables at positions up to a million, then rope in both styles, whole and partial. */
static void test_rope(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < 2; a++)
        for (int style = 0; style < 2; style++)
            for (int64_t d = 8; d <= 48; d += 20) {
                kf_case c = kf_case_begin(1, 6, 1, 6);
                c.arch = archs[a];
                kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(3), S(d)}, "x");
                kf_value pos = kf_case_arg(&c, KF_DTYPE_i32, 1, (kf_dim[]){N}, "pos");
                kf_case_ints(&c, pos, 0, 1000000);
                kf_attr_rope_table *t = KF_ATTR_NEW(c.arena, rope_table);
                t->dim = style && d == 8 ? 6 : d; /* one partial rotation */
                kf_value table = kf_node_add(c.body, KF_OP_rope_table, t, 1, &pos, NULL, KF_NO_LOC);
                kf_value given =
                    kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(t->dim / 2), S(2)}, "t");
                kf_attr_rope *r = KF_ATTR_NEW(c.arena, rope);
                r->style = style;
                const kf_value in[] = {x, given}, own[] = {x, table};
                kf_graph_add_result(c.body, table);
                kf_graph_add_result(c.body,
                                    kf_node_add(c.body, KF_OP_rope, r, 2, in, NULL, KF_NO_LOC));
                kf_graph_add_result(c.body,
                                    kf_node_add(c.body, KF_OP_rope, r, 2, own, NULL, KF_NO_LOC));
                kf_case_run(&c, KF_FAMILY_map);
                kf_case_end(&c);
            }
}

/* Scores and weighted sums of written-out attention. */
static void test_contract(void **state)
{
    (void)state;
    const kf_dim K = kf_dim_sym(KF_SYM_K);
    for (uint32_t a = 0; a < 2; a++)
        for (int64_t d = 4; d <= 24; d += 10) {
            kf_case c = kf_case_begin(1, 5, 1, 37);
            c.arch = archs[a];
            kf_value q = kf_case_arg(&c, KF_DTYPE_f32, 4, (kf_dim[]){S(2), S(3), N, S(d)}, "q");
            kf_value k = kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){K, S(2), S(d)}, "k");
            kf_attr_perm *perm = KF_ATTR_NEW(c.arena, perm);
            perm->perm = (kf_ints){3, {1, 0, 2}};
            kf_value kt = kf_node_add(c.body, KF_OP_transpose, perm, 1, &k, NULL, KF_NO_LOC);
            kf_value k4 =
                kf_node_reshape(c.body, kt, 4, (kf_dim[]){S(2), S(1), K, S(d)}, KF_NO_LOC);
            kf_value s = kf_node_matmul(c.body, q, k4, true, KF_NO_LOC);
            kf_graph_add_result(c.body, s);
            kf_case_run(&c, KF_FAMILY_contract);
            kf_case_end(&c);

            c = kf_case_begin(1, 5, 1, 37);
            c.arch = archs[a];
            kf_value p = kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){S(2), N, K}, "p");
            kf_value v = kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){S(1), K, S(d)}, "v");
            kf_graph_add_result(c.body, kf_node_matmul(c.body, p, v, false, KF_NO_LOC));
            kf_case_run(&c, KF_FAMILY_contract);
            kf_case_end(&c);
        }
}

/* A launch has room for so many operands. */
static void test_many_operands(void **state)
{
    (void)state;
    kf_case c = kf_case_begin(1, 5, 1, 5);
    kf_value sum = KF_NO_VALUE;
    for (uint32_t i = 0; i < 24; i++) {
        kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(8)}, "x");
        sum = i ? kf_node_2(c.body, KF_OP_add, sum, x, KF_NO_LOC) : x;
    }
    kf_graph_add_result(c.body, sum);
    kf_case_refused(&c, KF_FAMILY_map, "25 operands; a launch has at most 24");
    kf_case_end(&c);
}

static const int64_t cache_past[] = {70, 0, 64};

static void append_rows(kf_dtype dtype, uint32_t d)
{
    kf_case c = kf_case_begin(3, 80, 1, 80 + 70 + 0 + 64);
    memcpy(c.past, cache_past, sizeof cache_past);
    kf_case_call k = kf_case_cache(&c, dtype, 2, d);
    kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(2), S(d)}, "k");
    kf_value y = kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(2), S(d)}, "v");
    const kf_value in[] = {k.kv, x, node1(&c, KF_OP_neg, y), k.pos, k.seq, k.pages};
    kf_graph_add_result(c.body, kf_node_add(c.body, KF_OP_kv_append, NULL, 6, in, NULL, KF_NO_LOC));
    kf_case_run(&c, KF_FAMILY_index);
    kf_case_end(&c);
}

static void read_rows(kf_dtype dtype, uint32_t d, bool stored)
{
    kf_case c = kf_case_begin(3, 6, 1, 6 + 70 + 0 + 64);
    memcpy(c.past, cache_past, sizeof cache_past);
    c.sym[KF_SYM_M] = 70 + 0 + 64;
    kf_case_call k = kf_case_cache(&c, dtype, 2, d);
    for (int plane = 0; plane < 4; plane++) {
        kf_attr_kv_read *read = KF_ATTR_NEW(c.arena, kv_read);
        read->plane = plane;
        read->stored = stored;
        const kf_value from[] = {k.kv, k.seq_start, k.past, k.pages};
        const bool rows = plane <= KF_PLANE_VALUES;
        kf_graph_add_result(c.body,
                            kf_node_add(c.body, rows ? KF_OP_kv_read : KF_OP_kv_index, read,
                                        rows ? 4 : 2, rows ? from : from + 1, NULL, KF_NO_LOC));
    }
    kf_case_run(&c, KF_FAMILY_map);
    kf_case_end(&c);
}

/* Append for a ragged call; read everything in view, or stored, by rows. */
static void test_cache(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        const kf_dtype dtype = i & 1 ? KF_DTYPE_bf16 : KF_DTYPE_f32;
        const uint32_t d = i & 2 ? 20 : 8;
        append_rows(dtype, d);
        read_rows(dtype, d, false);
        read_rows(dtype, d, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_function), cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_rms_norm),       cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_softmax),        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_argmax),         cmocka_unit_test(test_index_maps),
        cmocka_unit_test(test_embedding),      cmocka_unit_test(test_gather_pairs),
        cmocka_unit_test(test_rope),           cmocka_unit_test(test_contract),
        cmocka_unit_test(test_cache),          cmocka_unit_test(test_many_operands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
