/* SPDX-License-Identifier: Apache-2.0 */
/* matmul regions against the evaluator: prologues, epilogues, statistics and caches. */
#include "tests/unit/codegen_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N    kf_dim_sym(KF_SYM_N)
#define R    kf_dim_sym(KF_SYM_R)
#define S(x) kf_dim_static(x)

static const char *const archs[] = {"x86-64-v3", "native"};
static const int64_t row_counts[] = {1, 3, 8, 70};

static kf_value node1(kf_case *c, kf_op op, kf_value a)
{
    return kf_node_1(c->body, op, a, KF_NO_LOC);
}
static kf_value node2(kf_case *c, kf_op op, kf_value a, kf_value b)
{
    return kf_node_2(c->body, op, a, b, KF_NO_LOC);
}

/* A call of |n| rows in a bucket that fits it. */
static kf_case begin(uint32_t arch, int64_t n, int64_t past)
{
    const int64_t s = n > 1 ? 2 : 1;
    kf_case c = kf_case_begin(s, n, s, n + past * s);
    c.arch = archs[arch];
    c.rows_hi = n <= 1 ? 1 : n <= 8 ? 8 : 512;
    c.atol = 2e-5;
    for (int64_t i = 0; i < s; i++)
        c.past[i] = past;
    return c;
}

static kf_value times(kf_case *c, kf_value a, kf_value w)
{
    return kf_node_matmul(c->body, a, w, true, KF_NO_LOC);
}

/* rsqrt(sum(ss) / 256 + 1e-5) as [rows, 1] */
static kf_value row_scale(kf_case *c, kf_value ss)
{
    static const char *const names[] = {"v", "s"};
    kf_slot_builder *b = kf_slot_builder_create(c->arena, 2, names, 0);
    uint32_t mean = kf_slot_fn(b, KF_FN_div, kf_slot_param(b, 1), kf_slot_const(b, 256), 0);
    mean = kf_slot_fn(b, KF_FN_add, mean, kf_slot_const(b, 1e-5), 0);
    kf_attr_row_reduce *a = KF_ATTR_NEW(c->arena, row_reduce);
    a->acc = (kf_accs){1, {KF_ACC_sum}};
    a->map = kf_slot_finish(b, kf_slot_fn(b, KF_FN_rsqrt, mean, 0, 0));
    return kf_node_add(c->body, KF_OP_row_reduce, a, 1, &ss, NULL, KF_NO_LOC);
}

/* Positive statistics. */
static kf_value statistics(kf_case *c, kf_dim rows, int64_t parts)
{
    kf_value ss = kf_case_arg(c, KF_DTYPE_f32, 2, (kf_dim[]){rows, S(parts)}, "ss");
    kf_case_ints(c, ss, 10, 90);
    return ss;
}

static void test_plain(void **state)
{
    (void)state;
    static const int64_t shape[][2] = {{16, 8}, {100, 33}, {300, 260}};
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t r = 0; r < 4; r++)
            for (uint32_t i = 0; i < 3; i++)
                for (uint32_t t = 0; t < 3; t++) {
                    if (!kf_case_chosen(29))
                        continue;
                    if (!kf_case_chosen(37))
                        continue;
                    kf_case c = begin(a, row_counts[r], 0);
                    const kf_dtype dtype = t == 0   ? KF_DTYPE_f32
                                           : t == 1 ? KF_DTYPE_bf16
                                                    : KF_DTYPE_f16;
                    kf_value x =
                        kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(shape[i][1])}, "x");
                    kf_value w = kf_case_weight(&c, dtype, shape[i][0], shape[i][1], "w");
                    kf_graph_add_result(c.body, times(&c, x, w));
                    kf_case_run(&c, KF_FAMILY_matmul);
                    kf_case_end(&c);
                }
}

/* Output projection: residual added, partial statistic of what is stored, for widths that are no
 * multiple of a block. */
static void test_residual_statistic(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t r = 0; r < 4; r++)
            for (int64_t n = 96; n <= 320; n += 112) {
                if (!kf_case_chosen(37))
                    continue;
                kf_case c = begin(a, row_counts[r], 0);
                kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(n)}, "x");
                kf_value at = kf_case_arg(&c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(4), S(16)}, "a");
                kf_value w = kf_case_weight(&c, KF_DTYPE_bf16, n, 64, "w");
                kf_value flat = kf_node_reshape(c.body, at, 2, (kf_dim[]){N, S(64)}, KF_NO_LOC);
                kf_value x1 = node2(&c, KF_OP_add, x, times(&c, flat, w));
                c.over[0] = n > 100 ? 1 : 0; /* x1 over x */
                kf_attr_row_stat *stat = KF_ATTR_NEW(c.arena, row_stat);
                stat->acc = (kf_accs){1, {KF_ACC_sum_sq}};
                stat->block = 64;
                kf_graph_add_result(c.body, x1);
                kf_graph_add_result(
                    c.body, kf_node_add(c.body, KF_OP_row_stat, stat, 1, &x1, NULL, KF_NO_LOC));
                kf_case_run(&c, KF_FAMILY_matmul);
                kf_case_end(&c);
            }
}

static void add_stat(kf_case *c, kf_value x, kf_accs acc, int64_t block)
{
    kf_attr_row_stat *stat = KF_ATTR_NEW(c->arena, row_stat);
    stat->acc = acc;
    stat->block = block;
    kf_graph_add_result(c->body,
                        kf_node_add(c->body, KF_OP_row_stat, stat, 1, &x, NULL, KF_NO_LOC));
}

/* A head that leaves what is largest in each block of its logits and where. Every seventh row of the
 * weight is the same, so there are ties everywhere; the bias makes one column NaN, a block of them
 * and its end -inf, and one row of A makes NaN of all. */
static void test_choice(void **state)
{
    (void)state;
    enum { K = 24, MOST = 300, ROWS = 70, PERIOD = 7 };
    static double w[MOST * K], bias[MOST], x[ROWS * K];
    for (int64_t i = 0; i < MOST * K; i++)
        w[i] = (double)((i / K % PERIOD * 37 + i % K * 11) % 17 - 8) / 8;
    for (int64_t i = 0; i < MOST; i++)
        bias[i] = i == 3 ? NAN : i >= 60 && i < 130 ? -INFINITY : 0;
    for (int64_t i = 0; i < ROWS * K; i++)
        x[i] = i / K == 1 && i % K == 5 ? NAN : (double)((i * i + 3 * i) % 23 - 11) / 4;
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t r = 0; r < 4; r++)
            for (int64_t n = 64; n <= MOST; n += 59) {
                kf_case c = begin(a, row_counts[r], 0);
                kf_value at = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(K)}, "a");
                kf_value weight =
                    kf_case_weight(&c, r % 2 ? KF_DTYPE_bf16 : KF_DTYPE_f32, n, K, "w");
                kf_value b = kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(n)}, "b");
                const double *given[] = {x, w, bias};
                memcpy(c.given, given, sizeof given);
                kf_value y = node2(&c, KF_OP_add, times(&c, at, weight), b);
                kf_graph_add_result(c.body, y);
                add_stat(&c, y, (kf_accs){1, {KF_ACC_max}}, 64);
                add_stat(&c, y, (kf_accs){2, {KF_ACC_max, KF_ACC_argmax}}, 64);
                kf_case_run(&c, KF_FAMILY_matmul);
                kf_case_end(&c);
            }
}

/* Gate and up interleaved by blocks of |b|. */
static void test_gated(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t r = 0; r < 4; r++)
            for (int64_t b = 4; b <= 64; b *= 4) {
                if (!kf_case_chosen(37))
                    continue;
                kf_case c = begin(a, row_counts[r], 0);
                const int64_t f = b * 5;
                kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(48)}, "x");
                kf_value g = kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(48)}, "gamma");
                kf_value ss = statistics(&c, N, 4);
                kf_value w = kf_case_weight(&c, KF_DTYPE_bf16, 2 * f, 48, "w");
                kf_value m = times(&c, node2(&c, KF_OP_mul, x, g), w);
                m = node2(&c, KF_OP_mul, m, row_scale(&c, ss));
                kf_value m4 =
                    kf_node_reshape(c.body, m, 4, (kf_dim[]){N, S(f / b), S(2), S(b)}, KF_NO_LOC);
                kf_value gate = kf_node_slice(c.body, m4, 2, 0, 1, KF_NO_LOC);
                kf_value up = kf_node_slice(c.body, m4, 2, 1, 2, KF_NO_LOC);
                gate = kf_node_reshape(c.body, gate, 2, (kf_dim[]){N, S(f)}, KF_NO_LOC);
                up = kf_node_reshape(c.body, up, 2, (kf_dim[]){N, S(f)}, KF_NO_LOC);
                kf_graph_add_result(c.body, node2(&c, KF_OP_mul, node1(&c, KF_OP_silu, gate), up));
                kf_case_run(&c, KF_FAMILY_matmul);
                kf_case_end(&c);
            }
}

static kf_value head_norm(kf_case *c, kf_value x, int64_t d, kf_value gain)
{
    static const char *const names[] = {"v", "s", "c"};
    kf_slot_builder *b = kf_slot_builder_create(c->arena, 3, names, 1);
    uint32_t mean = kf_slot_fn(b, KF_FN_div, kf_slot_param(b, 1), kf_slot_const(b, (double)d), 0);
    mean =
        kf_slot_fn(b, KF_FN_rsqrt, kf_slot_fn(b, KF_FN_add, mean, kf_slot_const(b, 1e-6), 0), 0, 0);
    uint32_t col = kf_slot_param(b, 2);
    uint32_t v = kf_slot_fn(b, KF_FN_mul, kf_slot_fn(b, KF_FN_mul, kf_slot_param(b, 0), mean, 0),
                            kf_slot_load(b, 0, &col, 1), 0);
    kf_attr_row_reduce *a = KF_ATTR_NEW(c->arena, row_reduce);
    a->acc = (kf_accs){1, {KF_ACC_sum_sq}};
    a->map = kf_slot_finish(b, v);
    a->keep = true;
    const kf_value in[] = {x, gain};
    return kf_node_add(c->body, KF_OP_row_reduce, a, 2, in, NULL, KF_NO_LOC);
}

typedef struct qkv {
    int64_t q, g, d;
    bool norm, bias, interleaved;
    kf_dtype kv;
} qkv;

static kf_value segment(kf_case *c, kf_value y, const qkv *o, int64_t lo, int64_t hi)
{
    kf_value s = kf_node_slice(c->body, y, 2, lo, hi, KF_NO_LOC);
    return kf_node_reshape(c->body, s, 3, (kf_dim[]){N, S(o->g * (hi - lo)), S(o->d)}, KF_NO_LOC);
}

/* Norm scale, projection to q, k, v, head norms, rope, append: the first kernel of a layer. */
static void build_qkv(kf_case *c, const qkv *o)
{
    const int64_t n = o->g * (o->q + 2) * o->d, k = 64;
    kf_case_call call = kf_case_cache(c, o->kv, (uint32_t)o->g, (uint32_t)o->d);
    kf_value x = kf_case_arg(c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(k)}, "x");
    kf_value gamma = kf_case_arg(c, KF_DTYPE_f32, 1, (kf_dim[]){S(k)}, "gamma");
    kf_value ss = statistics(c, N, 3);
    kf_value w = kf_case_weight(c, KF_DTYPE_bf16, n, k, "w");
    kf_value table = kf_case_arg(c, KF_DTYPE_f32, 3, (kf_dim[]){N, S(o->d / 2), S(2)}, "table");
    kf_value gain = kf_case_arg(c, KF_DTYPE_f32, 1, (kf_dim[]){S(o->d)}, "gain");
    kf_value y = node2(c, KF_OP_mul, times(c, node2(c, KF_OP_mul, x, gamma), w), row_scale(c, ss));
    if (o->bias)
        y = node2(c, KF_OP_add, y, kf_case_arg(c, KF_DTYPE_f32, 1, (kf_dim[]){S(n)}, "bias"));
    y = kf_node_reshape(c->body, y, 4, (kf_dim[]){N, S(o->g), S(o->q + 2), S(o->d)}, KF_NO_LOC);
    kf_value q = segment(c, y, o, 0, o->q), kk = segment(c, y, o, o->q, o->q + 1);
    kf_value v = segment(c, y, o, o->q + 1, o->q + 2);
    if (o->norm) {
        q = head_norm(c, q, o->d, gain);
        kk = head_norm(c, kk, o->d, gain);
    }
    kf_attr_rope *r = KF_ATTR_NEW(c->arena, rope);
    r->style = o->interleaved ? KF_STYLE_INTERLEAVED : KF_STYLE_HALF;
    const kf_value rq[] = {q, table}, rk[] = {kk, table};
    q = kf_node_add(c->body, KF_OP_rope, r, 2, rq, NULL, KF_NO_LOC);
    kk = kf_node_add(c->body, KF_OP_rope, r, 2, rk, NULL, KF_NO_LOC);
    const kf_value in[] = {call.kv, kk, v, call.pos, call.seq, call.pages};
    kf_graph_add_result(c->body, q);
    kf_graph_add_result(c->body,
                        kf_node_add(c->body, KF_OP_kv_append, NULL, 6, in, NULL, KF_NO_LOC));
}

static void test_qkv(void **state)
{
    (void)state;
    static const qkv options[] = {
        {2, 2, 16, false, false, false, KF_DTYPE_f32},
        {1, 3, 32, false, true, false, KF_DTYPE_bf16},
        {8, 1, 8, true, false, true, KF_DTYPE_f32},
        {3, 2, 24, true, true, false, KF_DTYPE_f32},
        {4, 2, 64, true, true, true, KF_DTYPE_bf16},
    };
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t r = 0; r < 4; r++)
            for (uint32_t i = 0; i < 5; i++) {
                if (!kf_case_chosen(37))
                    continue;
                kf_case c = begin(a, row_counts[r], 60);
                build_qkv(&c, &options[i]);
                kf_case_run(&c, KF_FAMILY_matmul);
                kf_case_end(&c);
            }
}

/* Head sizes of whole vectors need no gather anywhere: not in rope, norms, segments or the cache.
 */
static void test_contiguous(void **state)
{
    (void)state;
    static const qkv options[] = {{4, 2, 64, true, true, false, KF_DTYPE_f32},
                                  {1, 2, 32, false, false, false, KF_DTYPE_bf16}};
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t i = 0; i < 2; i++) {
            kf_case c = begin(a, 3, 10);
            c.keep_text = true;
            build_qkv(&c, &options[i]);
            kf_case_run(&c, KF_FAMILY_matmul);
            assert_non_null(strstr(c.text, a ? "load <16 x float>" : "load <8 x float>"));
            assert_null(strstr(c.text, "masked.gather"));
            kf_case_end(&c);
        }
}

/* The head sees the wanted rows only, also for the statistics. */
static void test_head(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t r = 1; r < 4; r++) {
            kf_case c = begin(a, row_counts[r], 0);
            kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(40)}, "x");
            kf_value ss = statistics(&c, N, 2);
            kf_value rows = kf_case_arg(&c, KF_DTYPE_i32, 1, (kf_dim[]){R}, "rows");
            kf_case_ints(&c, rows, 0, row_counts[r]);
            kf_value w = kf_case_weight(&c, KF_DTYPE_f32, 200, 40, "w");
            kf_value gamma = kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(40)}, "gamma");
            const kf_value gx[] = {x, rows}, gs[] = {ss, rows};
            kf_value xr = kf_node_add(c.body, KF_OP_gather, NULL, 2, gx, NULL, KF_NO_LOC);
            kf_value sr = kf_node_add(c.body, KF_OP_gather, NULL, 2, gs, NULL, KF_NO_LOC);
            kf_value m = times(&c, node2(&c, KF_OP_mul, xr, gamma), w);
            kf_graph_add_result(c.body, node2(&c, KF_OP_mul, m, row_scale(&c, sr)));
            kf_case_run(&c, KF_FAMILY_matmul);
            kf_case_end(&c);
        }
}

/* A row value in the prologue, and a norm over all columns in the epilogue: one tile holds the row.
 */
static void test_prologue_scale_and_post_norm(void **state)
{
    (void)state;
    for (uint32_t a = 0; a < 2; a++)
        for (uint32_t r = 0; r < 4; r++) {
            kf_case c = begin(a, row_counts[r], 0);
            kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(40)}, "x");
            kf_value ss = statistics(&c, N, 20);
            kf_value w = kf_case_weight(&c, KF_DTYPE_f32, 600, 40, "w");
            kf_value gain = kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(600)}, "gain");
            kf_value m = times(&c, node2(&c, KF_OP_mul, x, row_scale(&c, ss)), w);
            kf_graph_add_result(c.body, head_norm(&c, m, 600, gain));
            kf_graph_add_result(c.body, node2(&c, KF_OP_add, m, gain));
            kf_case_run(&c, KF_FAMILY_matmul);
            kf_case_end(&c);
        }
}

static void test_refusals(void **state)
{
    (void)state;
    /* Halves of the product added to one operand: stored over it by one tile, still to be read by
     * another. */
    kf_case h = begin(0, 8, 0);
    kf_value a = kf_case_arg(&h, KF_DTYPE_f32, 2, (kf_dim[]){N, S(40)}, "a");
    kf_value b = kf_case_arg(&h, KF_DTYPE_f32, 2, (kf_dim[]){N, S(64)}, "b");
    kf_value y = times(&h, a, kf_case_weight(&h, KF_DTYPE_f32, 128, 40, "w"));
    for (int64_t i = 0; i < 128; i += 64)
        kf_graph_add_result(
            h.body, node2(&h, KF_OP_add, b, kf_node_slice(h.body, y, 1, i, i + 64, KF_NO_LOC)));
    kf_case_refused(&h, KF_FAMILY_matmul, "share an operand");
    kf_case_end(&h);

    kf_case c = begin(0, 8, 0);
    kf_value x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(40)}, "x");
    kf_value w = kf_case_weight(&c, KF_DTYPE_f32, 40, 40, "w");
    kf_value m = times(&c, x, w);
    kf_value rows = kf_case_arg(&c, KF_DTYPE_i32, 1, (kf_dim[]){R}, "rows");
    const kf_value in[] = {m, rows};
    kf_graph_add_result(c.body, kf_node_add(c.body, KF_OP_gather, NULL, 2, in, NULL, KF_NO_LOC));
    kf_case_refused(&c, KF_FAMILY_matmul, "rows of the product");
    kf_case_end(&c);

    c = begin(0, 8, 0);
    x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(40)}, "x");
    w = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){S(40), S(40)}, "w");
    kf_graph_add_result(c.body, times(&c, x, w));
    kf_case_refused(&c, KF_FAMILY_matmul, "not stored in the target's order");
    kf_case_end(&c);

    c = begin(0, 8, 0);
    x = kf_case_arg(&c, KF_DTYPE_f32, 2, (kf_dim[]){N, S(40)}, "x");
    w = kf_case_weight(&c, KF_DTYPE_f32, 40, 40, "w");
    kf_graph_add_result(
        c.body,
        times(&c, head_norm(&c, x, 40, kf_case_arg(&c, KF_DTYPE_f32, 1, (kf_dim[]){S(40)}, "g")),
              w));
    kf_case_refused(&c, KF_FAMILY_matmul, "one value a row");
    kf_graph_add_result(c.body, times(&c, x, w));
    kf_case_refused(&c, KF_FAMILY_matmul, "two products");
    kf_case_end(&c);
}

/* configure gives tiles that hold whole heads; other integers are checked, not trusted. */
static void test_config(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        int64_t value;
        const char *says;
    } wrong[] = {{"tile_n", 16, "cut what the epilogue reads"},
                 {"tile_n", 40, "multiple of 16"},
                 {"nr", 12, "nr must be 8"},
                 {"mr", 7, "mr = tile_m"},
                 {"k_unroll", 3, "even"},
                 {"max_rows", 0, "positive"},
                 {"kc", -1, "not in"}};
    const qkv options = {3, 2, 24, true, true, false, KF_DTYPE_f32};
    kf_case c = begin(0, 8, 60);
    build_qkv(&c, &options);
    const kf_kernel_shape s = kf_case_shape(&c, KF_FAMILY_matmul);
    assert_int_equal(kf_config_get(&s.config, "tile_n") % 48, 0);
    assert_int_equal(s.tiles.term[0].sym, KF_SYM_N);
    assert_true(s.scratch_bytes > 0);
    for (uint32_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        kf_config config = s.config;
        kf_sbuf why = {.arena = c.arena};
        for (uint32_t k = 0; k < config.n; k++)
            if (strcmp(config.key[k], wrong[i].key) == 0)
                config.value[k] = wrong[i].value;
        assert_false(kf_case_emits(&c, KF_FAMILY_matmul, &config, &why));
        if (!strstr(why.ptr, wrong[i].says))
            fail_msg("'%s' does not say '%s'", why.ptr, wrong[i].says);
    }
    kf_case_end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),  cmocka_unit_test(test_residual_statistic),
        cmocka_unit_test(test_choice), cmocka_unit_test(test_gated),
        cmocka_unit_test(test_qkv),    cmocka_unit_test(test_contiguous),
        cmocka_unit_test(test_head),   cmocka_unit_test(test_prologue_scale_and_post_norm),
        cmocka_unit_test(test_config), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
