/* SPDX-License-Identifier: Apache-2.0 */
/* attention kernels against the evaluator, and their independence of how a call is cut. */
#include "codegen/families/attention_mask.h"
#include "tests/unit/codegen_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N    kf_dim_sym(KF_SYM_N)
#define S(x) kf_dim_static(x)

static const char *const archs[] = {"x86-64-v3", "native"};
static const char *const mask_names[] = {"h", "q", "k"};
static const char *const score_names[] = {"s", "h", "q", "k"};

typedef enum mask_kind { NO_MASK, CAUSAL, WINDOW, NOTHING, DOCUMENT } mask_kind;

static const kf_slot *mask_of(kf_case *c, mask_kind kind)
{
    if (kind == NO_MASK)
        return NULL;
    kf_slot_builder *b = kf_slot_builder_create(c->arena, 3, mask_names, kind == DOCUMENT ? 1 : 0);
    uint32_t q = kf_slot_param(b, 1), k = kf_slot_param(b, 2);
    uint32_t causal = kf_slot_fn(b, KF_FN_le, k, q, 0), out = causal;
    if (kind == WINDOW)
        out = kf_slot_fn(
            b, KF_FN_and, causal,
            kf_slot_fn(b, KF_FN_lt, kf_slot_fn(b, KF_FN_sub, q, k, 0), kf_slot_const(b, 40), 0), 0);
    if (kind == NOTHING) /* rows with an even position see nothing */
        out = kf_slot_fn(
            b, KF_FN_and, causal,
            kf_slot_fn(
                b, KF_FN_ne,
                kf_slot_fn(b, KF_FN_mul, kf_slot_const(b, 2),
                           kf_slot_fn(b, KF_FN_floor,
                                      kf_slot_fn(b, KF_FN_mul, q, kf_slot_const(b, 0.5), 0), 0, 0),
                           0),
                q, 0),
            0);
    if (kind == DOCUMENT)
        out = kf_slot_fn(b, KF_FN_eq, kf_slot_load(b, 0, &q, 1), kf_slot_load(b, 0, &k, 1), 0);
    return kf_slot_finish(b, out);
}

/* Scores capped by tanh. */
static const kf_slot *soft_cap(kf_case *c, uint8_t captures)
{
    kf_slot_builder *b = kf_slot_builder_create(c->arena, 4, score_names, captures);
    uint32_t t = kf_slot_fn(
        b, KF_FN_tanh, kf_slot_fn(b, KF_FN_div, kf_slot_param(b, 0), kf_slot_const(b, 5), 0), 0, 0);
    uint32_t s = kf_slot_fn(b, KF_FN_mul, t, kf_slot_const(b, 5), 0);
    if (captures) { /* ALiBi: slopes[h] * (k - q) */
        uint32_t h = kf_slot_param(b, 1);
        uint32_t far = kf_slot_fn(b, KF_FN_sub, kf_slot_param(b, 3), kf_slot_param(b, 2), 0);
        s = kf_slot_fn(b, KF_FN_add, s, kf_slot_fn(b, KF_FN_mul, kf_slot_load(b, 0, &h, 1), far, 0),
                       0);
    }
    return kf_slot_finish(b, s);
}

typedef struct options {
    uint32_t heads, group, d;
    kf_dtype kv;
    mask_kind mask;
    int score; /* 0 none, 1 cap, 2 cap and ALiBi */
} options;

static kf_value build(kf_case *c, const options *o)
{
    kf_case_call call = kf_case_cache(c, o->kv, o->heads, o->d);
    kf_value q =
        kf_case_arg(c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(o->heads * o->group), S(o->d)}, "q");
    kf_attr_attention *a = KF_ATTR_NEW(c->arena, attention);
    a->scale = 0.7;
    a->mask = mask_of(c, o->mask);
    a->score = o->score ? soft_cap(c, (uint8_t)(o->score - 1)) : NULL;
    kf_value in[8] = {q, call.kv, call.pos, call.seq, call.seq_start, call.past, call.pages};
    uint32_t n = 7;
    if (o->mask == DOCUMENT) {
        in[n++] = kf_case_arg(c, KF_DTYPE_i32, 1, (kf_dim[]){S(1024)}, "doc");
        kf_case_ints(c, in[7], 0, 3);
    } else if (o->score == 2) {
        in[n++] = kf_case_arg(c, KF_DTYPE_f32, 1, (kf_dim[]){S(o->heads * o->group)}, "slope");
    }
    return kf_node_add(c->body, KF_OP_attention, a, n, in, NULL, KF_NO_LOC);
}

static void test_forms(void **state)
{
    (void)state;
    static const options forms[] = {
        {2, 3, 16, KF_DTYPE_f32, CAUSAL, 0},  {1, 8, 64, KF_DTYPE_bf16, CAUSAL, 0},
        {3, 1, 20, KF_DTYPE_f32, WINDOW, 1},  {2, 2, 8, KF_DTYPE_f32, NOTHING, 2},
        {2, 1, 40, KF_DTYPE_f16, NO_MASK, 0}, {1, 5, 36, KF_DTYPE_f32, DOCUMENT, 0},
    };
    static const int64_t calls[][3] = {{2, 40, 300}, {1, 1, 0},   {1, 1, 130},
                                       {3, 3, 70},   {2, 75, 60}, {1, 33, 0}};
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t f = 0; f < 6; f++)
            for (uint32_t i = 0; i < 6; i++) {
                if (!kf_case_chosen(43))
                    continue;
                kf_case c = kf_case_begin(calls[i][0], calls[i][1], 1,
                                          calls[i][1] + calls[i][0] * calls[i][2]);
                c.arch = archs[a];
                c.rows_hi = calls[i][1] <= 8 ? 8 : 512;
                c.atol = 1e-5; /* weighted sums of values up to 1 */
                for (int64_t s = 0; s < calls[i][0]; s++)
                    c.past[s] = calls[i][2] - (s == 1 ? calls[i][2] / 2 : 0);
                kf_value at = build(&c, &forms[f]);
                const int64_t width = forms[f].heads * forms[f].group * (int64_t)forms[f].d;
                kf_graph_add_result(
                    c.body,
                    i % 2 ? at
                          : kf_node_reshape(c.body, at, 2, (kf_dim[]){N, S(width)}, KF_NO_LOC));
                kf_case_run(&c, KF_FAMILY_attention);
                kf_case_end(&c);
            }
}

/* Result bytes of rows |from|.. of one sequence with |past| + |n| tokens, computed as a call of its
 * own. */
static void rows_of_call(int64_t past, int64_t n, int64_t from, float *out, int64_t rows,
                         int64_t rows_hi)
{
    const options o = {2, 4, 32, KF_DTYPE_f32, CAUSAL, 0};
    kf_case c = kf_case_begin(1, n, 1, n + past);
    const int64_t width = 2 * 4 * 32;
    double *q = KF_NEW_N(c.arena, double, n *width);
    c.past[0] = past;
    c.atol = 1e-5;
    c.rows_hi = rows_hi;
    kf_graph_add_result(c.body, build(&c, &o));
    for (int64_t i = 0; i < n * width; i++) /* q of a position is the same in every call */
        q[i] = (double)((past * width + i) * 7919 % 2001) / 1000.0 - 1.0;
    c.given[6] = q;
    kf_case_run(&c, KF_FAMILY_attention);
    memcpy(out, (const float *)c.result[0] + from * width, (size_t)(rows * width) * sizeof(float));
    kf_case_end(&c);
}

/* A prompt at once, its end as a second chunk, and its last token as a decode step: the same bits.
 */
static void test_chunks(void **state)
{
    (void)state;
    static float whole[20 * 256], chunk[20 * 256], step[256];
    rows_of_call(0, 100, 80, whole, 20, 512);
    rows_of_call(80, 20, 0, chunk, 20, 512);
    rows_of_call(99, 1, 0, step, 1, 1);
    assert_memory_equal(whole, chunk, sizeof whole);
    assert_memory_equal(whole + 19 * 256, step, sizeof step);
}

/* Every spelling of a window is understood, and what only looks like one is not. */
static void test_mask_bounds(void **state)
{
    (void)state;
    static const struct {
        kf_fn fn;
        bool distance, swapped; /* q - k < c, or q - c < k; sides exchanged */
        double c;
        int64_t window;
    } rows[] = {
        {KF_FN_lt, true, false, 40, 40},          {KF_FN_le, true, false, 40, 41},
        {KF_FN_gt, true, true, 40, 40},           {KF_FN_ge, true, true, 39.5, 40},
        {KF_FN_lt, true, false, 2.5, 3},          {KF_FN_lt, false, false, 8, 8},
        {KF_FN_le, false, false, 8, 9},           {KF_FN_gt, false, true, 8, 8},
        {KF_FN_gt, true, false, 8, KF_NO_WINDOW}, {KF_FN_lt, true, false, 0, KF_NO_WINDOW},
    };
    kf_case c = kf_case_begin(1, 1, 1, 1);
    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kf_slot_builder *b = kf_slot_builder_create(c.arena, 3, mask_names, 0);
        uint32_t q = kf_slot_param(b, 1), k = kf_slot_param(b, 2), n = kf_slot_const(b, rows[i].c);
        uint32_t small = kf_slot_fn(b, KF_FN_sub, q, rows[i].distance ? k : n, 0);
        uint32_t large = rows[i].distance ? n : k;
        uint32_t order = kf_slot_fn(b, rows[i].fn, rows[i].swapped ? large : small,
                                    rows[i].swapped ? small : large, 0);
        uint32_t causal = kf_slot_fn(b, KF_FN_ge, q, k, 0);
        kf_mask_bounds got =
            kf_mask_bounds_of(kf_slot_finish(b, kf_slot_fn(b, KF_FN_and, order, causal, 0)));
        assert_int_equal(got.window, rows[i].window);
        assert_true(got.causal);
        assert_false(got.only_causal);
        got = kf_mask_bounds_of(kf_slot_finish(b, kf_slot_fn(b, KF_FN_or, order, causal, 0)));
        assert_false(got.causal);
        assert_int_equal(got.window, KF_NO_WINDOW);
    }
    kf_case_end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_mask_bounds),
        cmocka_unit_test(test_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
