/* SPDX-License-Identifier: Apache-2.0 */
/* test_cost - FLOPs, bytes and minimum of small bodies and plans, against figures worked out by
 * hand. */
#include "ir/text.h"
#include "passes/cost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *const dims =
    "  dim S in 1..8\n  dim N in 1..64\n  dim R in 1..8\n  dim K in 1..512\n";

/* The body of the function in |text|, parsed. */
static const kf_graph *parse(kf_arena *a, const char *text)
{
    kf_diags *d = kf_diags_create(a);
    kf_module *m =
        kf_module_parse(a, d, KF_STR("cost.kir"), kf_strf(a, "module @m {\n%s%s}\n", dims, text));

    if (!m)
        kf_diags_print(d, stderr, false);
    assert_non_null(m);
    return m->funcs.data[0];
}

static void assert_cost(kf_cost c, kf_cost want)
{
    assert_int_equal(c.fixed, want.fixed);
    assert_int_equal(c.per_token, want.per_token);
    assert_int_equal(c.per_row, want.per_row);
    assert_int_equal(c.per_key, want.per_key);
    assert_int_equal(c.per_pair, want.per_pair);
}

static void product_with_epilogue(void **state)
{
    kf_arena *a = kf_arena_create("test");
    const kf_graph *g =
        parse(a, "func @f(%x: f32[N,8], %w: bf16[4,8], %r: f32[N,4]) -> (f32[N,4]) {\n"
                 "  %0 = matmul %x, %w {trans_b} : f32[N,4]\n"
                 "  %1 = add %r, %0 : f32[N,4]\n"
                 "  return %1\n}\n");
    kf_cost flops, bytes, alone;
    kf_serials counted = {0};
    uint32_t ops;

    (void)state;
    kf_region_cost(g, &flops, &bytes);
    assert_cost(flops, (kf_cost){.per_token = 2 * 8 * 4 + 4});
    assert_cost(bytes, (kf_cost){.fixed = 4 * 8 * 2, .per_token = 4 * (8 + 4 + 4)});
    kf_region_alone(g, a, &counted, &ops, &alone);
    assert_int_equal(ops, 2);
    assert_cost(alone, (kf_cost){.fixed = 64, .per_token = 4 * (8 + 4) + 4 * (4 + 4 + 4)});
    kf_region_alone(g, a, &counted, &ops, &alone); /* copied into a second region */
    assert_int_equal(ops, 0);
    assert_cost(alone, (kf_cost){0});
    kf_arena_destroy(a);
}

/* Rows of a table that is looked up count, the table does not; nor do numbers. */
static void gathered_rows(void **state)
{
    kf_arena *a = kf_arena_create("test");
    const kf_graph *g = parse(a, "func @f(%t: bf16[100,8], %ids: i32[N]) -> (f32[N,8]) {\n"
                                 "  %0 = const {value = 2} : f32[]\n"
                                 "  %1 = gather %t, %ids : f32[N,8]\n"
                                 "  %2 = mul %1, %0 : f32[N,8]\n"
                                 "  return %2\n}\n");
    kf_cost flops, bytes;

    (void)state;
    kf_region_cost(g, &flops, &bytes);
    assert_cost(flops, (kf_cost){.per_token = 8});
    assert_cost(bytes, (kf_cost){.per_token = 8 * 2 + 4 + 8 * 4});
    kf_arena_destroy(a);
}

/* What has a row per key in view counts those, what has a column per key counts pairs. */
static void written_out_scores(void **state)
{
    kf_arena *a = kf_arena_create("test");
    const kf_graph *g =
        parse(a, "func @f(%kv: kvcache<page 64, 2 x 8, bf16>, %q: f32[2,N,8], %start: i32[S], "
                 "%past: i32[S], %pages: i32[S,1]) -> (f32[2,N,8]) {\n"
                 "  %0 = kv_read %kv, %start, %past, %pages : f32[K,2,8]\n"
                 "  %1 = transpose %0 {perm = [1, 0, 2]} : f32[2,K,8]\n"
                 "  %2 = matmul %q, %1 {trans_b} : f32[2,N,K]\n"
                 "  %3 = matmul %2, %1 : f32[2,N,8]\n"
                 "  return %3\n}\n");
    kf_cost flops, bytes, alone;
    kf_serials counted = {0};
    uint32_t ops;

    (void)state;
    kf_region_cost(g, &flops, &bytes);
    assert_cost(flops, (kf_cost){.per_pair = 2 * (2 * 8) + 2 * (2 * 8)});
    assert_int_equal(bytes.per_key, 2 * 8 * 2); /* the keys, bf16 */
    assert_int_equal(bytes.per_pair, 0);
    kf_region_alone(g, a, &counted, &ops, &alone);
    assert_int_equal(ops, 4);
    /* keys: read bf16, stored; transposed: read, stored; read by both products */
    assert_int_equal(alone.per_key, 2 * 8 * 2 + 2 * 8 * 4 * (1 + 2 + 2));
    assert_int_equal(alone.per_pair, 2 * 4 * 2); /* scores, stored and read */
    kf_arena_destroy(a);
}

/* Attention of four heads, with |attrs| that may read a table of numbers per head. */
static const kf_graph *attention(kf_arena *a, const char *attrs)
{
    const char *table = strchr(attrs, '|') ? ", %t" : "";
    kf_str text = kf_strf(
        a,
        "func @f(%%q: f32[N,4,8], %%kv: kvcache<page 64, 4 x 8, f32>, %%pos: i32[N], %%seq: "
        "i32[N], "
        "%%start: i32[S], %%past: i32[S], %%pages: i32[S,8], %%t: f32[4]) -> (f32[N,4,8]) {\n"
        "  %%0 = attention %%q, %%kv, %%pos, %%seq, %%start, %%past, %%pages%s %s : f32[N,4,8]\n"
        "  return %%0\n}\n",
        table, attrs);

    return parse(a, text.ptr);
}

/* A window is counted as long as it is at each row: what it shows, tried key by key. */
static void keys_in_windows(void **state)
{
    static const struct {
        const char *text;
        int64_t more; /* keys that a row's bounds may hold beside those it sees */
    } masks[] = {
        {"le(k, q)", 0},
        {"and(le(k, q), lt(sub(q, k), 7))", 0},
        {"le(abs(sub(q, k)), 5)", 0},
        {"or(le(k, q), lt(k, 16))", 0},
        {"eq(floor(div(k, 8)), floor(div(q, 8)))", 2},
        {"and(le(k, q), lt(sub(q, k), mul(3, add(h, 1))))", 0},
        {"lt(k, 0)", 0},
    };
    static const kf_cost_point points[] = {{.tokens = 1, .keys = 1},
                                           {.tokens = 1, .keys = 101},
                                           {.tokens = 60, .keys = 60},
                                           {.tokens = 9, .keys = 40}};
    kf_arena *a = kf_arena_create("test");

    (void)state;
    for (size_t m = 0; m < sizeof masks / sizeof *masks; m++) {
        const kf_graph *g = attention(a, kf_strf(a, "mask(h, q, k) { %s }", masks[m].text).ptr);
        const kf_slot *mask = KF_ATTR_OF(&g->nodes.data[0], attention)->mask;
        for (size_t p = 0; p < sizeof points / sizeof *points; p++) {
            const kf_cost_point at = points[p], seen = kf_cost_point_of(g, &at);
            int64_t pairs = 0, first = at.keys, end = 0;
            for (int h = 0; h < 4; h++)
                for (int64_t q = at.keys - at.tokens; q < at.keys; q++)
                    for (int64_t k = 0; k < at.keys; k++) {
                        if (!kf_slot_eval(mask, (double[]){h, (double)q, (double)k}, NULL, NULL))
                            continue;
                        pairs++;
                        first = k < first ? k : first;
                        end = k + 1 > end ? k + 1 : end;
                    }
            int64_t keys = end > first ? end - first : 0;
            assert_true(seen.pairs >= pairs / 4 &&
                        seen.pairs <= (pairs + 3) / 4 + masks[m].more * at.tokens);
            assert_true(seen.keys >= keys && seen.keys <= keys + masks[m].more);
        }
    }
    kf_arena_destroy(a);
}

static void memory_and_unknown_windows(void **state)
{
    const kf_cost_point at = {.tokens = 3, .rows = 1, .keys = 50, .pairs = 144, .memory = 20};
    kf_arena *a = kf_arena_create("test");
    kf_cost_point seen = kf_cost_point_of(attention(a, "{stored}"), &at);

    (void)state;
    assert_int_equal(seen.keys, 20);
    assert_int_equal(seen.pairs, 60);
    /* as long as a table says: only that no later key is seen is known */
    const char *table = "mask(h, q, k | 1) { and(le(k, q), lt(sub(q, k), $0[h])) }";
    seen = kf_cost_point_of(attention(a, table), &at);
    assert_int_equal(seen.keys, 50);
    seen = kf_cost_point_of(attention(a, ""), &at); /* no mask: both directions */
    assert_int_equal(seen.keys, 50);
    assert_int_equal(seen.pairs, 150);
    /* a call that is too long to ask every row */
    const kf_cost_point many = {.tokens = 1 << 20, .keys = 1 << 20};
    seen = kf_cost_point_of(attention(a, "mask(h, q, k) { le(k, q) }"), &many);
    assert_int_equal(seen.keys, 1 << 20);
    double all = 0.5 * (1 << 20) * ((1 << 20) + 1);
    assert_true(seen.pairs > all * 0.9999 && seen.pairs < all * 1.0001);
    kf_arena_destroy(a);
}

/* A row that a loop carries, a weight that two launches read, a value that stays inside, one that
 * goes on to the head. */
static void least_of_a_plan(void **state)
{
    static const char text[] =
        "plan @p target \"cpu:x86-64-v3\" {\n"
        "  dim S in 1..8\n  dim N in 1..64\n  dim R in 1..8\n  dim K in 1..512\n"
        "  input ids: i32[N]\n"
        "  weight embed: f32[100,8] = \"e\": f32[100,8] bytes 3200\n"
        "  weight layer.w: f32[8,8] = \"w\": f32[8,8] prefix \"l.{i}.\" layers 3 bytes 256\n"
        "  kernel k0_gather map config {} tiles 1 scratch 0 (%t: f32[100,8], %ids: i32[N]) {\n"
        "    %0 = gather %t, %ids : f32[N,8]\n    return %0\n  }\n"
        "  kernel k1_w matmul config {} tiles 1 scratch 0 (%x: f32[N,8], %w: f32[8,8]) {\n"
        "    %0 = matmul %x, %w {trans_b} : f32[N,8]\n    return %0\n  }\n"
        "  phase prefill rows 1..64 pool 6144 logits b0 {\n"
        "    buffer b0: f32[N,8] offset 0 bytes 2048\n"
        "    buffer b1: f32[N,8] offset 2048 bytes 2048\n"
        "    launch k0_gather (weight embed, input ids) -> (b0) flops 0 bytes 68 N\n"
        "    loop 3 {\n"
        "      launch k1_w (b0, weight layer.w) -> (b1) flops 128 N bytes 256 + 64 N\n"
        "      launch k1_w (b1, weight layer.w) -> (b0) flops 128 N bytes 256 + 64 N ops 2 alone "
        "256 + 128 N\n"
        "    }\n"
        "  }\n}\n";
    const kf_cost_point at = {.tokens = 10, .rows = 1, .keys = 10, .pairs = 55};
    kf_arena *a = kf_arena_create("test");
    kf_diags *d = kf_diags_create(a);
    kf_plan *p = kf_plan_parse(a, d, KF_STR("plan.kir"), kf_str_from(text));
    kf_tally t;

    (void)state;
    if (!p)
        kf_diags_print(d, stderr, false);
    assert_non_null(p);
    kf_tally_step(p, &p->phases.data[0], &p->phases.data[0].steps.data[1], &at, &t);
    assert_int_equal(t.launches, 2);
    assert_int_equal(t.ops, 3);
    assert_int_equal(t.flops, 2 * 128 * 10);
    assert_int_equal(t.bytes, 2 * (256 + 640));
    assert_int_equal(t.bytes_alone, (256 + 640) + (256 + 1280));
    /* the weight once, b0 in and out; b1 is born and dies in the round */
    assert_int_equal(t.bytes_min, 256 + 2 * 320);
    kf_tally_phase(p, &p->phases.data[0], &at, &t);
    assert_int_equal(t.launches, 7);
    assert_int_equal(t.bytes, 680 + 3 * 1792);
    assert_int_equal(t.bytes_min, 40 + 320 + 320 + 3 * 896); /* ids, rows of the table, b0 */
    kf_arena_destroy(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(product_with_epilogue),      cmocka_unit_test(gathered_rows),
        cmocka_unit_test(written_out_scores),         cmocka_unit_test(keys_in_windows),
        cmocka_unit_test(memory_and_unknown_windows), cmocka_unit_test(least_of_a_plan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
