/* SPDX-License-Identifier: Apache-2.0 */
/* attention kernels against the evaluator, and their independence of how a call is cut. */
#include "ir/slot_text.h"
#include "tests/unit/codegen_case.h"
#include "tests/unit/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N    kf_dim_sym(KF_SYM_N)
#define S(x) kf_dim_static(x)

static const char *const archs[] = {"x86-64-v3", "native"};

/* ---- building -------------------------------------------------------------------------------- */

/* Bodies of slots, NULL for none. Captures, the same in each: $0 i32[1024] of 0..2 by position,
 * $1 f32[heads], $2 f32[33, heads], $3 i32[heads] of 1..60. */
typedef struct form {
    uint32_t heads, group, d;
    kf_dtype kv;
    const char *score, *mask, *prob, *sink;
    bool plain, stored; /* plain: without a normaliser */
} form;

static const kf_slot *slot_of(kf_case *c, const char *params, const char *body)
{
    kf_lexer lx;
    if (!body)
        return NULL;
    const bool loads = strchr(body, '$');
    kf_str text = kf_strf(c->arena, "(%s%s) { %s }", params, loads ? " | 4" : "", body);
    kf_diags *d = kf_diags_create(c->arena);
    kf_lex_start(&lx, c->arena, d, KF_STR("slot"), text);
    const kf_slot *s = kf_slot_read(&lx);
    if (!s)
        fail_msg("'%s': %s", body, kf_diags_first(d)->message.ptr);
    return s;
}

static bool loads(const kf_slot *s)
{
    return s && s->captures;
}

static kf_value attend(kf_case *c, const form *f, kf_case_call *call)
{
    const uint32_t heads = f->heads * f->group;
    *call = kf_case_cache(c, f->kv, f->heads, f->d);
    kf_value q = kf_case_arg(c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(heads), S(f->d)}, "q");
    kf_attr_attention *a = KF_ATTR_NEW(c->arena, attention);
    a->scale = 0.7;
    a->score = slot_of(c, "s, h, q, k", f->score);
    a->mask = slot_of(c, "h, q, k", f->mask);
    a->prob = slot_of(c, "h, q, k", f->prob);
    a->sink = slot_of(c, "h", f->sink);
    a->normaliser = f->plain ? KF_NORMALISER_NONE : KF_NORMALISER_SOFTMAX;
    a->stored = f->stored;
    kf_value in[11] = {q, call->kv, call->pos, call->seq, call->seq_start, call->past, call->pages};
    uint32_t n = 7;
    if (loads(a->score) || loads(a->mask) || loads(a->prob) || loads(a->sink)) {
        in[n++] = kf_case_arg(c, KF_DTYPE_i32, 1, (kf_dim[]){S(1024)}, "doc");
        in[n++] = kf_case_arg(c, KF_DTYPE_f32, 1, (kf_dim[]){S(heads)}, "slope");
        in[n++] = kf_case_arg(c, KF_DTYPE_f32, 2, (kf_dim[]){S(33), S(heads)}, "table");
        in[n++] = kf_case_arg(c, KF_DTYPE_i32, 1, (kf_dim[]){S(heads)}, "length");
        kf_case_ints(c, in[7], 0, 3);
        kf_case_ints(c, in[10], 1, 60);
    }
    return kf_node_add(c->body, KF_OP_attention, a, n, in, NULL, KF_NO_LOC);
}

/* ---- against the evaluator ------------------------------------------------------------------- */

/* Sequences, tokens, and what the first one has stored; the second has half of that. */
static const int64_t calls[][3] = {{2, 40, 300}, {1, 1, 0},  {1, 1, 130}, {3, 3, 70}, {2, 75, 60},
                                   {1, 33, 0},   {1, 1, 63}, {1, 1, 255}, {2, 65, 64}};
enum { CALLS = sizeof calls / sizeof calls[0] };

static void run_form(const form *f, uint32_t call, const char *arch, bool mixed)
{
    const int64_t *at = calls[call];
    kf_case c = kf_case_begin(at[0], at[1], 1, at[1] + at[0] * at[2]);
    kf_case_call inputs;
    c.arch = arch;
    c.rows_hi = at[1] <= 8 ? 8 : 512;
    c.atol =
        f->plain || mixed ? 1e-4 : 1e-5; /* sums of values up to 1, weighted, or hundreds of them */
    c.nmse = mixed ? 1e-9 : 1e-11;
    c.rtol = mixed ? 1e-4 : c.rtol;
    for (int64_t s = 0; s < at[0]; s++)
        c.past[s] = at[2] - (s == 1 ? at[2] / 2 : 0);
    kf_value out = attend(&c, f, &inputs);
    const int64_t width = f->heads * f->group * (int64_t)f->d;
    if (call % 2 == 0)
        out = kf_node_reshape(c.body, out, 2, (kf_dim[]){N, S(width)}, KF_NO_LOC);
    kf_graph_add_result(c.body, out);
    kf_case_run(&c, KF_FAMILY_attention);
    kf_case_end(&c);
}

#define CAUSAL "le(k, q)"
#define SIDES  "lt(abs(sub(q, k)), 40)"
#define ALIBI  "add(s, mul($1[h], sub(k, q)))"
#define BUCKET "add(s, $2[min(max(add(sub(k, q), 16), 0), 32), h])"
/* Buckets of distance that grow with its logarithm; 16, 32, 64 and 128 lie on their borders. */
#define LOG_BUCKET                                                                                 \
    "add(s, $2[add(select(gt(k, q), 16, 0), select(lt(abs(sub(k, q)), 8), abs(sub(k, q)), "        \
    "min(15, "                                                                                     \
    "add(8, floor(mul(div(log(div(abs(sub(k, q)), 8)), 2.772588722239781), 8)))))), h])"
#define CAP  "mul(5, tanh(div(s, 5)))"
#define EVEN "eq(mul(2, floor(mul(q, 0.5))), q)"

/* clang-format off */
static const form forms[] = {
    {2, 3, 16, KF_DTYPE_f32,  NULL, CAUSAL, NULL, NULL, false, false},
    {1, 8, 64, KF_DTYPE_bf16, NULL, CAUSAL, NULL, NULL, false, false},
    {3, 1, 20, KF_DTYPE_f32,  CAP, "and(le(k, q), lt(sub(q, k), 40))", NULL, NULL, false, false},
    {2, 2, 8,  KF_DTYPE_f32,  ALIBI, "and(le(k, q), not(" EVEN "))", NULL, NULL, false, false},
    {2, 1, 40, KF_DTYPE_f16,  NULL, NULL, NULL, NULL, false, false},
    {1, 5, 36, KF_DTYPE_f32,  NULL, "eq($0[q], $0[k])", NULL, NULL, false, false},
    {2, 2, 16, KF_DTYPE_f32,  BUCKET, NULL, NULL, NULL, false, false},
    {2, 2, 16, KF_DTYPE_bf16, BUCKET, SIDES, NULL, "$1[h]", false, false},
    {2, 2, 16, KF_DTYPE_f32,  LOG_BUCKET, NULL, NULL, NULL, false, false},
    {1, 3, 24, KF_DTYPE_f32,  NULL, "or(le(k, q), lt(k, 20))", NULL, "mul(h, 3)", false, false},
    {2, 4, 16, KF_DTYPE_f32,  NULL, "and(le(k, q), lt(sub(q, k), $3[h]))", "$1[h]", NULL, false, false},
    {2, 2, 16, KF_DTYPE_f32,  "mul(s, 40)", "or(lt(h, 2), " SIDES ")", NULL, NULL, false, false},
    {1, 4, 32, KF_DTYPE_f32,  ALIBI, "eq(floor(div(k, 48)), floor(div(q, 48)))", NULL, NULL, false, false},
    {2, 2, 16, KF_DTYPE_f32,  "div(relu(s), add(q, 1))", CAUSAL, NULL, NULL, true, false},
    {1, 3, 20, KF_DTYPE_bf16, NULL, SIDES, "mul($1[h], div(1, add(1, abs(sub(q, k)))))", NULL, true, false},
    {2, 2, 16, KF_DTYPE_f32,  CAP, CAUSAL, "select(lt($0[k], 1), 0, 1.25)", NULL, false, false},
    {2, 2, 16, KF_DTYPE_f32,  NULL, NULL, NULL, NULL, false, true},
    {1, 4, 24, KF_DTYPE_f16,  "add(s, mul($1[h], $0[k]))", "ge(k, 10)", NULL, "$1[h]", false, true},
    {1, 1, 16, KF_DTYPE_f32,  NULL, "lt(k, sub(q, 400))", NULL, "neg(h)", false, false},
};
/* clang-format on */
enum { FORMS = sizeof forms / sizeof forms[0] };

static void test_forms(void **state)
{
    (void)state;
    for (uint32_t f = 0; f < FORMS; f++)
        for (uint32_t a = 0; a < 2; a++)
            run_form(&forms[f], (f + 2 * a) % CALLS, archs[a], false);
}

/* Slots of different forms together; some amplify the rounding of what goes in. */
static void test_mixed_forms(void **state)
{
    static const uint32_t sizes[] = {4, 20, 64, 80, 96, 128};
    (void)state;
    uint64_t seed = test_seed(11);
    for (uint32_t i = 0; i < scaled(8); i++) {
        form f = forms[random_u64(&seed) % FORMS];
        f.score = forms[random_u64(&seed) % FORMS].score;
        f.mask = forms[random_u64(&seed) % FORMS].mask;
        f.prob = forms[random_u64(&seed) % FORMS].prob;
        f.sink = f.plain ? NULL : forms[random_u64(&seed) % FORMS].sink;
        f.stored = random_u64(&seed) % 4 == 0;
        f.heads = 1 + (uint32_t)(random_u64(&seed) % 3);
        f.group = 1 + (uint32_t)(random_u64(&seed) % 9);
        f.d = sizes[random_u64(&seed) % (sizeof sizes / sizeof *sizes)];
        run_form(&f, (uint32_t)(random_u64(&seed) % CALLS), archs[i % 2], true);
    }
}

/* What stands behind the attention, element by element. */
static void test_results(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        const form f = {2,    2,    i & 1 ? 16 : 20, KF_DTYPE_f32, NULL, CAUSAL,
                        NULL, NULL, i & 2,           false};
        const int64_t width = 4 * f.d;
        kf_case c = kf_case_begin(2, 20, 1, 60);
        kf_case_call call;
        c.past[0] = c.past[1] = 20;
        c.atol = 1e-4;
        kf_value out = attend(&c, &f, &call);
        out = kf_node_reshape(c.body, out, 2, (kf_dim[]){N, S(width)}, KF_NO_LOC);
        kf_value gate = kf_case_arg(&c, KF_DTYPE_bf16, 2, (kf_dim[]){N, S(width)}, "gate");
        kf_value gain = kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(width)}, "gain");
        out = kf_node_2(c.body, KF_OP_mul, kf_node_1(c.body, KF_OP_sigmoid, gate, KF_NO_LOC), out,
                        KF_NO_LOC);
        out = kf_node_2(c.body, KF_OP_mul, out, gain, KF_NO_LOC);
        kf_graph_add_result(c.body, out);
        kf_case_run(&c, KF_FAMILY_attention);
        kf_case_end(&c);
    }
}

/* A norm of each last row of |x|, |d| wide. */
static kf_value norm_of(kf_case *c, kf_value x, uint32_t d, bool centred)
{
    kf_attr_row_reduce *a = KF_ATTR_NEW(c->arena, row_reduce);
    const char *scale = kf_strf(c->arena, "rsqrt(add(div(t, %u), 1e-3))", d).ptr;
    a->keep = true;
    a->acc = centred ? (kf_accs){2, {KF_ACC_sum, KF_ACC_sum_dev}} : (kf_accs){1, {KF_ACC_sum_sq}};
    a->map = centred ? slot_of(c, "v, s, t",
                               kf_strf(c->arena, "mul(sub(v, div(s, %u)), %s)", d, scale).ptr)
                     : slot_of(c, "v, t", kf_strf(c->arena, "mul(v, %s)", scale).ptr);
    return kf_node_add(c->body, KF_OP_row_reduce, a, 1, &x, NULL, KF_NO_LOC);
}

/* Norms of heads behind the attention: of its sum with other rows, and of a function of that. Few
 * rows split their keys among tiles. */
static void test_norms(void **state)
{
    (void)state;
    static const uint32_t size[] = {16, 20, 3, 64};
    for (uint32_t i = 0; i < 8; i++) {
        const form f = {2, 2, size[i % 4], KF_DTYPE_f32, NULL, CAUSAL, NULL, NULL, false, false};
        const int64_t tokens = i < 4 ? 20 : 2;
        kf_case c = kf_case_begin(2, tokens, 1, tokens + 600);
        kf_case_call call;
        c.past[0] = c.past[1] = 300;
        c.rows_hi = i < 4 ? 512 : 8;
        c.atol = 1e-4;
        kf_value other = kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(4), S(f.d)}, "other");
        kf_value out = kf_node_2(c.body, KF_OP_add, attend(&c, &f, &call), other, KF_NO_LOC);
        out = norm_of(&c, out, f.d, i & 1);
        out = norm_of(&c, kf_node_1(c.body, KF_OP_exp, out, KF_NO_LOC), f.d, true);
        out = kf_node_reshape(c.body, out, 2, (kf_dim[]){N, S(4 * f.d)}, KF_NO_LOC);
        kf_value gain = kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(4 * f.d)}, "gain");
        kf_graph_add_result(c.body, kf_node_2(c.body, KF_OP_mul, out, gain, KF_NO_LOC));
        kf_case_run(&c, KF_FAMILY_attention);
        kf_case_end(&c);
    }
}

/* Statistics of the rows that are stored, in blocks within heads. */
static void test_stats(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        const form f = {2, 2, 32, KF_DTYPE_f32, NULL, CAUSAL, NULL, NULL, false, false};
        kf_case c = kf_case_begin(2, i < 2 ? 20 : 2, 1, 620);
        kf_case_call call;
        c.past[0] = c.past[1] = 300;
        c.rows_hi = i < 2 ? 512 : 8;
        c.atol = 1e-4;
        kf_value gate = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(128)}, "gate");
        kf_value out = attend(&c, &f, &call);
        out = i & 1 ? norm_of(&c, out, f.d, true) : out;
        out = kf_node_reshape(c.body, out, 2, (kf_dim[]){N, S(128)}, KF_NO_LOC);
        out = kf_node_2(c.body, KF_OP_mul, out, gate, KF_NO_LOC);
        kf_attr_row_stat sums = {.acc = {1, {KF_ACC_sum_sq}}, .block = 32};
        kf_attr_row_stat devs = {.acc = {2, {KF_ACC_sum, KF_ACC_sum_dev}}, .block = 16};
        kf_graph_add_result(c.body,
                            kf_node_add(c.body, KF_OP_row_stat, &sums, 1, &out, NULL, KF_NO_LOC));
        kf_graph_add_result(c.body, out);
        kf_graph_add_result(c.body,
                            kf_node_add(c.body, KF_OP_row_stat, &devs, 1, &out, NULL, KF_NO_LOC));
        kf_case_run(&c, KF_FAMILY_attention);
        kf_case_end(&c);
    }
}

/* A norm of all heads of a row: no tile has them. */
static void test_wide_norm(void **state)
{
    (void)state;
    const form f = {2, 2, 16, KF_DTYPE_f32, NULL, CAUSAL, NULL, NULL, false, false};
    kf_case c = kf_case_begin(1, 20, 1, 20);
    kf_case_call call;
    kf_value out =
        kf_node_reshape(c.body, attend(&c, &f, &call), 2, (kf_dim[]){N, S(64)}, KF_NO_LOC);
    kf_graph_add_result(c.body, norm_of(&c, out, 64, true));
    kf_case_refused(&c, KF_FAMILY_attention, "is not over a head");
    kf_case_end(&c);
}

static void test_refusals(void **state)
{
    (void)state;
    const form f = {2, 2, 16, KF_DTYPE_f32, NULL, CAUSAL, NULL, NULL, false, false};
    kf_attr_perm perm = {.perm = {3, {1, 0, 2}}};
    for (uint32_t i = 0; i < 2; i++) {
        kf_case c = kf_case_begin(1, 20, 1, 20);
        kf_case_call call;
        kf_value out = attend(&c, &f, &call);
        kf_graph_add_result(
            c.body,
            i ? out : kf_node_add(c.body, KF_OP_transpose, &perm, 1, &out, NULL, KF_NO_LOC));
        if (i)
            kf_graph_add_result(c.body, kf_node_1(c.body, KF_OP_neg, out, KF_NO_LOC));
        kf_case_refused(&c, KF_FAMILY_attention,
                        i ? "gives one value" : "transpose cannot stand behind attention");
        kf_case_end(&c);
    }
}

/* ---- what is read, and in which order -------------------------------------------------------- */

/* Pages out of sight of every row are not touched: they hold NaN, which a factor 0 would show. */
static void test_reach(void **state)
{
    (void)state;
    static const struct {
        const char *mask;
        int64_t first, last; /* pages in sight of positions 600..603 */
    } rows[] = {
        {"and(le(k, q), lt(sub(q, k), 64))", 8, 9},
        {"lt(abs(sub(q, k)), $3[h])", 8, 9},
        {"lt(k, 100)", 0, 1},
        {"and(ge(k, 130), lt(k, 260))", 2, 4},
        {"eq(floor(div(k, 100)), sub(floor(div(q, 100)), 3))", 4, 6},
    };
    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const form f = {1, 3, 16, KF_DTYPE_f32, NULL, rows[i].mask, NULL, NULL, false, false};
        kf_case c = kf_case_begin(1, 4, 1, 604);
        kf_case_call call;
        c.past[0] = 600;
        kf_graph_add_result(c.body, attend(&c, &f, &call));
        double *page = KF_NEW_N(c.arena, double, 16);
        for (int64_t p = 0; p < 16; p++) /* those of another sequence are never filled */
            page[p] = (double)((p + (p < rows[i].first || p > rows[i].last ? 16 : 0)) * 5 % 128);
        c.given[c.body->values.data[call.pages].def] = page;
        kf_case_run(&c, KF_FAMILY_attention);
        kf_case_end(&c);
    }
}

static const form chunked[] = {
    {2, 4, 32, KF_DTYPE_f32, NULL, CAUSAL, NULL, NULL, false, false},
    {2, 4, 32, KF_DTYPE_f32, NULL, "and(le(k, q), lt(sub(q, k), 29))", "div(1, add(k, 1))", "1",
     false, false},
};

/* Result bytes of rows |from|.. of one sequence with |past| + |n| tokens, computed as a call of its
 * own. */
static void rows_of_call(const form *f, int64_t past, int64_t n, int64_t from, float *out,
                         int64_t rows, int64_t rows_hi)
{
    kf_case c = kf_case_begin(1, n, 1, n + past);
    const int64_t width = 2 * 4 * 32;
    double *q = KF_NEW_N(c.arena, double, n *width);
    kf_case_call call;
    c.past[0] = past;
    c.atol = 1e-5;
    c.rows_hi = rows_hi;
    kf_graph_add_result(c.body, attend(&c, f, &call));
    for (int64_t i = 0; i < n * width; i++) /* q of a position is the same in every call */
        q[i] = (double)((past * width + i) * 7919 % 2001) / 1000.0 - 1.0;
    c.given[6] = q;
    kf_case_run(&c, KF_FAMILY_attention);
    memcpy(out, (const float *)c.result[0] + from * width, (size_t)(rows * width) * sizeof(float));
    kf_case_end(&c);
}

/* A prompt at once, its end as a second chunk, and its last token as a decode step, whose keys are
 * split among tiles: the same bits. */
static void test_chunks(void **state)
{
    (void)state;
    static float whole[20 * 256], chunk[20 * 256], step[256];
    for (uint32_t i = 0; i < 2; i++) {
        rows_of_call(&chunked[i], 0, 500, 480, whole, 20, 512);
        rows_of_call(&chunked[i], 480, 20, 0, chunk, 20, 512);
        rows_of_call(&chunked[i], 499, 1, 0, step, 1, 1);
        assert_memory_equal(whole, chunk, sizeof whole);
        assert_memory_equal(whole + 19 * 256, step, sizeof step);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),   cmocka_unit_test(test_mixed_forms),
        cmocka_unit_test(test_results), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_norms),   cmocka_unit_test(test_wide_norm),
        cmocka_unit_test(test_stats),   cmocka_unit_test(test_reach),
        cmocka_unit_test(test_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
