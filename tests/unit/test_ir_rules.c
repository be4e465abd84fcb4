/* SPDX-License-Identifier: Apache-2.0 */
/* test_ir_rules - types and layouts, shape and sharding rules, slots, rewriting graphs, and the
 * verifier. */
#include "ir/plan.h"
#include "ir/shape.h"
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

/* ---- types ----------------------------------------------------------------------------------- */

static void layouts_place_elements(void **state)
{
    (void)state;
    kf_dim dims[] = {kf_dim_static(20), kf_dim_static(5)};
    kf_type t = kf_type_tensor(KF_DTYPE_bf16, 2, dims);
    assert_int_equal(kf_layout_offset(&t, (int64_t[]){3, 2}), 17);
    assert_int_equal(kf_type_stored_elems(&t, NULL), 100);
    t.layout = (kf_layout){4, 0, {{0, 16}, {1, 2}, {0, 1}, {1, 1}}}; /* [n/16, k/2, 16, 2] */
    assert_int_equal(kf_type_stored_elems(&t, NULL), 2 * 3 * 16 * 2);
    assert_int_equal(kf_layout_offset(&t, (int64_t[]){0, 0}), 0);
    assert_int_equal(kf_layout_offset(&t, (int64_t[]){0, 1}), 1);
    assert_int_equal(kf_layout_offset(&t, (int64_t[]){1, 0}), 2);
    assert_int_equal(kf_layout_offset(&t, (int64_t[]){18, 3}), ((1 * 3 + 1) * 16 + 2) * 2 + 1);
    bool seen[192] = {false}; /* every element has a place of its own */
    for (int64_t n = 0; n < 20; n++) {
        for (int64_t k = 0; k < 5; k++) {
            int64_t at = kf_layout_offset(&t, (int64_t[]){n, k});
            assert_true(at >= 0 && at < 192 && !seen[at]);
            seen[at] = true;
        }
    }
    kf_type kv = kf_type_kvcache(KF_DTYPE_bf16, 64, 4, 32, 6);
    assert_int_equal(kf_kvcache_page_bytes(&kv), 2 * 64 * 4 * 32 * 2);
    kf_type s = kf_type_tensor(KF_DTYPE_f32, 2, (kf_dim[]){kf_dim_sym(1), kf_dim_static(3)});
    assert_int_equal(kf_type_static_elems(&s), 3);
    assert_int_equal(kf_type_elems(&s, (int64_t[]){7, 5}), 15);
}

/* ---- shapes and sharding --------------------------------------------------------------------- */

#define CACHE                                                                                      \
    "%c: kvcache<page 4, 2 x 8, f32>, %q: f32[N,4,8], %p: i32[N], %s: i32[S], %g: i32[S,4], "      \
    "%b: f32[4], %d: f32[9,4]"

/* Each line is a node over operands of the types given in order; the type that follows, or a part
 * of the sentence that refuses it. */
static const struct {
    const char *args, *node, *want;
} rules[] = {
    {"%a: f32[N,4], %b: f32[4]", "add %a, %b", "f32[N,4]"},
    {"%a: f32[N,1,4], %b: f32[3,1]", "mul %a, %b", "f32[N,3,4]"},
    {"%a: f32[N,4], %b: f32[S,4]", "add %a, %b", "do not broadcast"},
    {"%a: i32[N], %b: i32[N]", "sub %a, %b", "i32[N]"},
    {"%a: i32[N], %b: f32[]", "sub %a, %b", "f32[N]"},
    {"%a: i32[N], %b: i32[N]", "div %a, %b", "f32[N]"},
    {"%a: i32[N], %b: i32[1]", "le %a, %b", "pred[N]"},
    {"%a: pred[N], %b: i32[N]", "and %a, %b", "operand 1 is not a predicate"},
    {"%a: pred[N]", "exp %a", "operand 0 is a predicate"},
    {"%a: bf16[4], %b: bf16[4]", "add %a, %b", "f32[4]"},
    {"%a: f32[N,8]", "reshape %a", "f32[N,2,4]"},
    {"%a: f32[8,N,2,3]", "reshape %a", "f32[2,4,N,6]"},
    {"%a: f32[N,8]", "reshape %a : f32[8,N]", "only static dims"},
    {"%a: f32[N,8]", "reshape %a : bf16[N,8]", "the dtype stays"},
    {"%a: f32[N,1,8]", "expand %a", "f32[N,3,8]"},
    {"%a: f32[1,8]", "expand %a", "f32[2,N,8]"},
    {"%a: f32[N,2,8]", "expand %a : f32[N,4,8]", "does not broadcast"},
    {"%a: f32[S,8]", "expand %a : f32[N,8]", "does not broadcast"},
    {"%a: f32[N,1,8]", "expand %a : f32[1,8]", "does not broadcast"},
    {"%a: f32[N,1,8]", "expand %a : i32[N,3,8]", "the dtype stays"},
    {"%a: f32[N,8]", "transpose %a {perm = [0, 0]}", "not a permutation"},
    {"%a: f32[N,8], %b: f32[N,1]", "concat %a, %b {axis = 1}", "f32[N,9]"},
    {"%a: f32[N,8], %b: f32[N,8]", "concat %a, %b {axis = 0}", "do not join"},
    {"%a: bf16[9,8], %i: i32[N]", "gather %a, %i", "f32[N,8]"},
    {"%a: f32[N,8], %i: i32[R]", "gather %a, %i", "f32[R,8]"},
    {"%a: f32[9,8], %i: i32[N,K]", "gather %a, %i", "f32[N,K,8]"},
    {"%a: f32[9], %i: i32[N,K]", "gather %a, %i", "f32[N,K]"},
    {"%a: bf16[9,8], %i: f32[N]", "gather %a, %i", "ids is i32[n,..]"},
    {"%a: f32[9,2,2,2,2], %i: i32[N,2,2]", "gather %a, %i", "more than 6 dims"},
    {"%a: f32[N,8], %b: bf16[5,8]", "matmul %a, %b {trans_b}", "f32[N,5]"},
    {"%a: f32[N,8], %b: bf16[5,8]", "matmul %a, %b", "contracted dims differ"},
    {"%a: f32[2,N,8], %b: f32[2,8,N]", "matmul %a, %b", "f32[2,N,N]"},
    {"%a: f32[N,8]", "row_reduce %a {acc = [sum]}", "f32[N,1]"},
    {"%a: f32[N,8]", "row_reduce %a {acc = [sum]} map(v, s) { add(v, s) }", "without keep"},
    {"%a: f32[N,8]", "row_reduce %a {acc = [sum, sum]}", "sum twice"},
    {"%a: f32[N,8]", "row_reduce %a {acc = [sum], keep} map(v) { v }", "takes 2 parameters"},
    {"%a: f32[N,8]", "row_reduce %a {acc = [argmax]}", "argmax needs max before it"},
    {"%a: f32[N,16777216]", "row_reduce %a {acc = [max, argmax]}", "f32[N,1]"},
    {"%a: f32[N,16777217]", "row_reduce %a {acc = [max, argmax]}", "at most 16777216"},
    {"%a: f32[N,16777217]", "row_stat %a {acc = [max, argmax], block = 64}", "at most 16777216"},
    {"%a: f32[N,8], %g: f32[8]", "row_reduce %a, %g {keep} map(v) { v }", "captures 0"},
    {"%a: f32[N,9]", "row_stat %a {acc = [sum_sq], block = 4}", "f32[N,3]"},
    {"%a: f32[N,9]", "row_stat %a {acc = [sum_dev], block = 4}", "needs sum before it"},
    {"%p: i32[N]", "rope_table %p {dim = 6}", "f32[N,3,2]"},
    {"%p: i32[N]", "rope_table %p {dim = 7}", "even and positive"},
    {"%x: f32[N,2,8], %t: f32[N,3,2]", "rope %x, %t", "f32[N,2,8]"},
    {"%x: f32[N,2,4], %t: f32[N,3,2]", "rope %x, %t", "does not rotate"},
    {"%s: i32[S], %p: i32[S]", "kv_index %s, %p {plane = pos}", "i32[K]"},
    {"%s: i32[S], %p: i32[S]", "kv_index %s, %p", "gives pos or seq"},
    {"%s: i32[S], %p: i32[S]", "kv_index %s, %p {plane = pos, stored}", "i32[M]"},
    {CACHE, "kv_read %c, %s, %s, %g {stored}", "f32[M,2,8]"},
    {CACHE, "attention %q, %c, %p, %p, %s, %s, %g {normaliser = none, stored}", "f32[N,4,8]"},
    {CACHE, "attention %q, %c, %p, %p, %s, %s, %g prob(h, q) { h }", "prob takes 3 parameters"},
    {CACHE, "attention %q, %c, %p, %p, %s, %s, %g sink(h, q) { h }", "sink takes 1 parameters"},
    {CACHE, "attention %q, %c, %p, %p, %s, %s, %g {normaliser = none} sink(h) { h }",
     "a sink is a logit"},
    {CACHE, "attention %q, %c, %p, %p, %s, %s, %g, %b, %d mask(h, q, k | 1) { lt($0[h], q) }",
     "mask captures 1 operands, but all slots share 2"},
    {CACHE, "attention %q, %c, %p, %p, %s, %s, %g, %b sink(h) { h }", "no slot captures"},
    {CACHE, "attention %q, %c, %p, %p, %s, %s, %g, %b, %d sink(h | 2) { $1[h] }", "with 1 numbers"},
    {CACHE,
     "attention %q, %c, %p, %p, %s, %s, %g, %b, %d prob(h, q, k | 2) { $1[k, h] } sink(h | 2) { "
     "$0[h] }",
     "f32[N,4,8]"},
    {"%c: kvcache<page 4, 2 x 8, f32>", "neg %c", "operand 0 is a cache"},
    /* sharding */
    {"%a: f32[N,8@tp], %b: f32[8@tp]", "add %a, %b", "f32[N,8@tp]"},
    {"%a: f32[N,8@tp], %b: f32[8]", "add %a, %b", "cut otherwise"},
    {"%a: f32[N,8@tp], %b: f32[N@tp,8]", "add %a, %b", "along one axis"},
    {"%a: f32[N,8], %w: f32[6@tp,8]", "matmul %a, %w {trans_b}", "f32[N,6@tp]"},
    {"%a: f32[N,8@tp], %w: f32[6,8@tp]", "matmul %a, %w {trans_b}", "f32[N,6]{partial tp}"},
    {"%a: f32[N,8@tp], %w: f32[6,8]", "matmul %a, %w {trans_b}", "cut in one operand only"},
    {"%a: f32[N,8]{partial tp}, %w: f32[6,8]", "matmul %a, %w {trans_b}", "f32[N,6]{partial tp}"},
    {"%a: f32[N,8]{partial tp}, %b: f32[N,8]{partial tp}", "add %a, %b", "f32[N,8]{partial tp}"},
    {"%a: f32[N,8]{partial tp}, %b: f32[N,8]", "add %a, %b", "has to be reduced first"},
    {"%a: f32[N,8]{partial tp}, %b: f32[8]", "mul %a, %b", "f32[N,8]{partial tp}"},
    {"%a: f32[N,8]{partial tp}", "silu %a", "has to be reduced first"},
    {"%a: f32[N,8@tp]", "row_reduce %a {acc = [sum]}", "last axis has to be whole"},
    {"%a: f32[N@dp,8]", "row_reduce %a {acc = [sum]}", "f32[N@dp,1]"},
    {"%a: f32[N,8@tp]", "reshape %a", "f32[N,4@tp,2]"},
    {"%a: f32[N,4,2@tp]", "reshape %a : f32[N,8]", "cut behind dim 1"},
    {"%a: f32[N,4@tp,1,8]", "expand %a", "f32[N,4@tp,3,8]"},
    {"%a: f32[N,1]{partial tp}", "expand %a", "f32[N,8]{partial tp}"},
    {"%a: f32[N,8@tp]", "transpose %a {perm = [1, 0]}", "f32[8@tp,N]"},
    {"%a: f32[N,8@tp]", "slice %a {axis = 1, stop = 4}", "axis 1 of f32[N,8@tp] is cut"},
    {"%a: bf16[9@tp,8], %i: i32[N]", "gather %a, %i", "f32[N,8]{partial tp}"},
    {"%x: f32[N,4@tp,8], %t: f32[N,4,2]", "rope %x, %t", "f32[N,4@tp,8]"},
    {"%c: kvcache<page 4, 2@tp x 8, f32>, %k: f32[N,2@tp,8], %p: i32[N], %g: i32[S,4]",
     "kv_append %c, %k, %k, %p, %p, %g", "kvcache<page 4, 2@tp x 8, f32>"},
    {"%c: kvcache<page 4, 2@tp x 8, f32>, %k: f32[N,2,8], %p: i32[N], %g: i32[S,4]",
     "kv_append %c, %k, %k, %p, %p, %g", "heads are cut like the cache"},
    {"%c: kvcache<page 4, 2@tp x 8, f32>, %q: f32[N,4@tp,8], %p: i32[N], %s: i32[S], %g: i32[S,4]",
     "attention %q, %c, %p, %p, %s, %s, %g", "f32[N,4@tp,8]"},
    {"%c: kvcache<page 4, 2 x 8, f32>, %q: f32[N,3,8], %p: i32[N], %s: i32[S], %g: i32[S,4]",
     "attention %q, %c, %p, %p, %s, %s, %g", "does not fit"},
};

static void rules_give_types_or_reasons(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        kf_arena *arena = kf_arena_create("test");
        kf_diags *d = kf_diags_create(arena);
        bool is_type = strchr("fbipk", rules[i].want[0]) && strpbrk(rules[i].want, "[<") &&
                       !strchr(rules[i].want, ' ') == !strstr(rules[i].want, "{");
        is_type |= strncmp(rules[i].want, "kvcache<", 8) == 0;
        const char *colon = strstr(rules[i].node, " : ");
        const char *type = colon ? colon + 3 : is_type ? rules[i].want : "f32[1]";
        kf_str text =
            kf_strf(arena,
                    "module @m { mesh tp, dp dim S in 1..8 dim N in 1..8 dim R in 1..8 dim K in "
                    "1..8 dim M in 1..8\n"
                    "func @f(%s) -> (%s) { %%0 = %.*s : %s return %%0 } }",
                    rules[i].args, type,
                    (int)(colon ? (size_t)(colon - rules[i].node) : strlen(rules[i].node)),
                    rules[i].node, type);
        kf_module *m = kf_module_parse(arena, d, KF_STR("t.kir"), text);
        if (is_type != (m != NULL))
            fail_msg("'%s' over %s: %s", rules[i].node, rules[i].args,
                     m ? "accepted" : kf_diags_first(d)->message.ptr);
        if (!m && !strstr(kf_diags_first(d)->message.ptr, rules[i].want))
            fail_msg("'%s' over %s: %s", rules[i].node, rules[i].args,
                     kf_diags_first(d)->message.ptr);
        kf_arena_destroy(arena);
    }
}

/* ---- slots ----------------------------------------------------------------------------------- */

static double twice(void *user, uint32_t capture, const double *index, uint8_t n_index)
{
    (void)user;
    assert_int_equal(n_index, 1);
    return 2 * index[0] + capture;
}

static void slots_share_and_compare(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    const char *names[] = {"x", "y"};
    kf_slot_builder *b = kf_slot_builder_create(arena, 2, names, 2);
    uint32_t x = kf_slot_param(b, 0), y = kf_slot_param(b, 1);
    uint32_t sum = kf_slot_fn(b, KF_FN_add, x, y, 0);
    assert_int_equal(sum, kf_slot_fn(b, KF_FN_add, kf_slot_param(b, 0), y, 0));
    kf_slot_fn(b, KF_FN_exp, sum, 0, 0);
    const kf_slot *s =
        kf_slot_finish(b, kf_slot_fn(b, KF_FN_mul, sum, kf_slot_load(b, 1, &y, 1), 0));
    assert_int_equal(s->n_insts, 5);
    double value = kf_slot_eval(s, (double[]){3, 4}, twice, NULL);
    assert_true(value == 7 * 9);
    assert_true(kf_slot_uses_param(s, 0));
    /* The same body built in another order. */
    kf_slot_builder *c = kf_slot_builder_create(arena, 2, names, 2);
    uint32_t y2 = kf_slot_param(c, 1), load = kf_slot_load(c, 1, &y2, 1);
    uint32_t sum2 = kf_slot_fn(c, KF_FN_add, kf_slot_param(c, 0), y2, 0);
    assert_true(kf_slot_eq(s, kf_slot_finish(c, kf_slot_fn(c, KF_FN_mul, sum2, load, 0))));
    assert_false(kf_slot_eq(s, kf_slot_finish(c, kf_slot_fn(c, KF_FN_mul, load, sum2, 0))));
    kf_arena_destroy(arena);
}

static void attributes_have_defaults(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_attr_rope_table *a = KF_ATTR_NEW(arena, rope_table), *b = KF_ATTR_NEW(arena, rope_table);
    assert_true(a->theta == 10000 && a->scaling == KF_SCALING_NONE && a->factor == 1);
    assert_true(kf_attr_eq(KF_ATTR_rope_table, a, b));
    b->low = -0.0;
    a->low = 0.0; /* numbers are equal bit by bit, as they are printed */
    assert_false(kf_attr_eq(KF_ATTR_rope_table, a, b));
    int number;
    assert_true(kf_word_find("style", KF_STR("interleaved"), &number));
    assert_int_equal(number, KF_STYLE_INTERLEAVED);
    assert_string_equal(kf_word_text("plane", KF_PLANE_SEQ), "seq");
    assert_false(kf_word_find("style", KF_STR("keys"), &number));
    kf_arena_destroy(arena);
}

/* ---- rewriting ------------------------------------------------------------------------------- */

typedef struct fixture {
    kf_arena *arena;
    kf_module *m;
    kf_graph *g;
    kf_value x, w;
} fixture;

static fixture new_fixture(void)
{
    fixture f;
    f.arena = kf_arena_create("test");
    f.m = kf_module_create(f.arena, KF_STR("m"));
    kf_module_add_sym(f.m, KF_STR("S"), 1, 8);
    kf_module_add_sym(f.m, KF_STR("N"), 1, 64);
    f.g = kf_module_add_func(f.m, KF_STR("f"));
    kf_type t = kf_type_tensor(KF_DTYPE_f32, 2, (kf_dim[]){kf_dim_sym(KF_SYM_N), kf_dim_static(4)});
    kf_type v = kf_type_tensor(KF_DTYPE_f32, 1, (kf_dim[]){kf_dim_static(4)});
    f.x = kf_graph_add_arg(f.g, t, KF_STR("x"), KF_NO_LOC);
    f.w = kf_graph_add_param(f.g, kf_recipe_load(f.arena, KF_STR("w"), v), KF_STR("w"), KF_NO_LOC);
    return f;
}

static kf_str text_of(const fixture *f)
{
    kf_sbuf out = {.arena = f->arena};
    kf_graph_print(f->g, 0, &out);
    return kf_sbuf_view(&out);
}

static void rewriting_keeps_order(void **state)
{
    (void)state;
    fixture f = new_fixture();
    kf_value a = kf_node_1(f.g, KF_OP_exp, f.x, KF_NO_LOC);
    kf_value b = kf_node_2(f.g, KF_OP_add, a, f.w, KF_NO_LOC);
    kf_value c = kf_node_1(f.g, KF_OP_neg, b, KF_NO_LOC);
    kf_graph_add_result(f.g, c);
    /* exp(x) + w becomes log(x) + log(x), made at the end; w and exp are not needed any more. */
    kf_value d = kf_node_1(f.g, KF_OP_log, f.x, KF_NO_LOC);
    kf_value e = kf_node_2(f.g, KF_OP_add, d, d, KF_NO_LOC);
    kf_graph_replace(f.g, b, e);
    assert_int_equal(kf_graph_use_counts(f.g, f.arena)[d], 2);
    assert_ptr_equal(kf_value_is(f.g, e, KF_OP_add), kf_value_node(f.g, e));
    assert_null(kf_value_is(f.g, f.x, KF_OP_add));
    kf_graph_sort(f.g);
    assert_true(kf_graph_compact(f.g));
    assert_string_equal(text_of(&f).ptr, "  func @f(%x: f32[N,4]) -> (f32[N,4]) {\n"
                                         "    %0 = log %x : f32[N,4]\n"
                                         "    %1 = add %0, %0 : f32[N,4]\n"
                                         "    %2 = neg %1 : f32[N,4]\n"
                                         "    return %2\n"
                                         "  }\n");
    assert_int_equal(f.g->values.len, 4);
    assert_int_equal(f.g->params.len, 0);
    assert_false(kf_graph_compact(f.g));
    kf_sbuf errors = {.arena = f.arena};
    assert_true(kf_module_verify(f.m, KF_VERIFY_GRAPH, &errors));
    kf_arena_destroy(f.arena);
}

/* A chain and a comb, long enough to overflow a stack if sort recursed. */
static void sort_is_iterative_and_stable(void **state)
{
    (void)state;
    fixture f = new_fixture();
    kf_value v = f.x;
    for (int i = 0; i < 50000; i++)
        v = kf_node_1(f.g, KF_OP_neg, v, KF_NO_LOC);
    kf_graph_add_result(f.g, v);
    uint32_t n = f.g->nodes.len;
    for (uint32_t i = 0; i < n / 2; i++) { /* backwards */
        kf_node t = f.g->nodes.data[i];
        f.g->nodes.data[i] = f.g->nodes.data[n - 1 - i];
        f.g->nodes.data[n - 1 - i] = t;
    }
    for (uint32_t i = 0; i < n; i++)
        f.g->values.data[f.g->nodes.data[i].out[0]].def = i;
    kf_graph_sort(f.g);
    for (uint32_t i = 0; i + 1 < n; i++)
        assert_int_equal(f.g->nodes.data[i].out[0], f.g->nodes.data[i + 1].in[0]);
    kf_arena_destroy(f.arena);
}

static void clones_are_apart(void **state)
{
    (void)state;
    fixture f = new_fixture();
    kf_graph *body = kf_graph_create(f.m);
    kf_value p = kf_graph_add_arg(body, *kf_value_type(f.g, f.x), KF_STR("x"), KF_NO_LOC);
    kf_graph_add_result(body, kf_node_1(body, KF_OP_exp, p, KF_NO_LOC));
    kf_graph_add_result(
        f.g, kf_node_add_region(f.g, KF_FAMILY_map, body, KF_STR("k"), 1, &f.x, KF_NO_LOC));
    kf_str before = text_of(&f);
    kf_graph *copy = kf_graph_clone(f.g, KF_STR("f.decode"));
    copy->nodes.data[0].body->nodes.data[0].op = KF_OP_log;
    copy->nodes.data[0].in[0] = f.w;
    assert_string_equal(before.ptr, text_of(&f).ptr);
    assert_string_equal(copy->name.ptr, "f.decode");
    kf_graph *to = kf_module_add_func(f.m, KF_STR("g"));
    kf_value map[8];
    memset(map, 0xff, sizeof map);
    map[f.x] = kf_graph_add_arg(to, *kf_value_type(f.g, f.x), KF_STR("x"), KF_NO_LOC);
    kf_value r = kf_graph_copy_node(to, f.g, &f.g->nodes.data[0], map);
    kf_graph_add_result(to, r);
    assert_int_equal(map[f.g->nodes.data[0].out[0]], r);
    assert_ptr_not_equal(to->nodes.data[0].body, f.g->nodes.data[0].body);
    kf_sbuf errors = {.arena = f.arena};
    assert_true(kf_module_verify(f.m, KF_VERIFY_GRAPH, &errors));
    kf_arena_destroy(f.arena);
}

static void recipes_join_by_groups(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_type q = kf_type_tensor(KF_DTYPE_bf16, 2, (kf_dim[]){kf_dim_static(8), kf_dim_static(4)});
    kf_type k = kf_type_tensor(KF_DTYPE_bf16, 2, (kf_dim[]){kf_dim_static(4), kf_dim_static(4)});
    const kf_recipe *parts[] = {kf_recipe_load(arena, KF_STR("q"), q),
                                kf_recipe_load(arena, KF_STR("k"), k)};
    const kf_recipe *a = kf_recipe_concat(arena, 2, 2, parts),
                    *b = kf_recipe_concat(arena, 2, 2, parts);
    assert_int_equal(a->type.dim[0].size, 12);
    assert_true(kf_recipe_eq(a, b));
    assert_false(kf_recipe_eq(a, kf_recipe_concat(arena, 4, 2, parts)));
    assert_false(kf_recipe_eq(parts[0], parts[1]));
    assert_string_equal(kf_plan_tensor_name(arena, KF_STR("m.{i}.x."), 12, KF_STR("w")).ptr,
                        "m.12.x.w");
    kf_arena_destroy(arena);
}

/* ---- the verifier ---------------------------------------------------------------------------- */

static void expect_refusal(const fixture *f, kf_verify_level level, const char *message)
{
    kf_sbuf out = {.arena = f->arena};
    if (kf_module_verify(f->m, level, &out))
        fail_msg("accepted, expected: %s", message);
    if (!strstr(out.ptr, message))
        fail_msg("expected '%s' in:\n%s", message, out.ptr);
}

static void verifier_annotates_the_line(void **state)
{
    (void)state;
    fixture f = new_fixture();
    kf_value a = kf_node_1(f.g, KF_OP_exp, f.x, KF_NO_LOC);
    kf_value b = kf_node_2(f.g, KF_OP_add, a, f.w, KF_NO_LOC);
    kf_graph_add_result(f.g, b);
    expect_refusal(&f, KF_VERIFY_FUSED,
                   "    %0 = exp %x : f32[N,4]\n    ; ^ error: exp outside a region\n"
                   "    %1 = add %0, %w : f32[N,4]\n    ; ^ error: add outside");
    kf_node *exp_node = kf_value_node(f.g, a), *add_node = kf_value_node(f.g, b);
    f.g->values.data[a].type.dim[1].size = 5;
    expect_refusal(&f, KF_VERIFY_GRAPH,
                   "    %0 = exp %x : f32[N,5]\n"
                   "    ; ^ error: the type of result 0 should be f32[N,4]\n");
    f.g->values.data[a].type.dim[1].size = 4;
    add_node->in[1] = b;
    expect_refusal(&f, KF_VERIFY_GRAPH, "operand 1 is not defined before its use");
    add_node->in[1] = 77;
    expect_refusal(&f, KF_VERIFY_GRAPH,
                   "add %0, %? : f32[N,4]\n    ; ^ error: operand 1 is no value");
    add_node->in[1] = f.w;
    exp_node->out[0] = f.x;
    expect_refusal(&f, KF_VERIFY_GRAPH, "results and their values disagree");
    exp_node->out[0] = a;
    exp_node->loc.file = 3;
    expect_refusal(&f, KF_VERIFY_GRAPH, "names file 3 of 0");
    exp_node->loc.file = 0;
    f.g->values.data[f.x].type.dim[0].sym = 9;
    expect_refusal(&f, KF_VERIFY_GRAPH, "unknown symbol");
    f.g->values.data[f.x].type.dim[0].sym = KF_SYM_N + 1;
    f.g->values.data[f.w].type.dtype = KF_DTYPE_bf16;
    expect_refusal(&f, KF_VERIFY_GRAPH, "another type than its recipe gives");
    f.g->values.data[f.w].type.dtype = KF_DTYPE_f32;
    kf_sbuf out = {.arena = f.arena};
    assert_true(kf_module_verify(f.m, KF_VERIFY_GRAPH, &out));
    kf_arena_destroy(f.arena);
}

static void verifier_checks_modules(void **state)
{
    (void)state;
    fixture f = new_fixture();
    kf_graph_add_result(f.g, f.x);
    f.m->syms.data[1].name = KF_STR("S");
    expect_refusal(&f, KF_VERIFY_GRAPH, "dim S is declared twice");
    f.m->syms.data[1].name = KF_STR("N");
    kf_graph *g = kf_module_add_func(f.m, KF_STR("f"));
    kf_graph_add_result(g, kf_graph_add_arg(g, *kf_value_type(f.g, f.x), KF_STR("x"), KF_NO_LOC));
    expect_refusal(&f, KF_VERIFY_GRAPH, "has no name of its own");
    g->name = KF_STR("g");
    kf_attr_repeat repeat = {.times = 1, .callee = KF_STR("g"), .iter = 1};
    kf_value x = f.x;
    kf_value r = kf_node_add(f.g, KF_OP_repeat, &repeat, 1, &x, NULL, KF_NO_LOC);
    kf_graph_add_result(f.g, r);
    kf_value y = g->args.data[0];
    repeat.callee = KF_STR("f");
    f.g->results.len = 1;
    kf_node_add(g, KF_OP_repeat, &repeat, 1, &y, NULL, KF_NO_LOC);
    expect_refusal(&f, KF_VERIFY_GRAPH, "function 'f' calls itself");
    kf_arena_destroy(f.arena);
}

static void a_missing_all_reduce_is_an_error(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_diags *d = kf_diags_create(arena);
    kf_sbuf out = {.arena = arena};
    kf_module *m =
        kf_module_parse(arena, d, KF_STR("t"),
                        KF_STR("module @m { mesh tp func @main(%a: f32[2,8@tp], %b: f32[8@tp,4]) "
                               "-> (f32[2,4]{partial tp}) {"
                               " %0 = matmul %a, %b : f32[2,4]{partial tp} return %0 } }"));
    assert_non_null(m);
    assert_false(kf_module_verify(m, KF_VERIFY_GRAPH, &out));
    assert_non_null(strstr(out.ptr, "an all-reduce is missing"));
    kf_arena_destroy(arena);
}

static void functions_are_partial_where_they_say_so(void **state)
{
    static const double at[] = {-1000, -7, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 7, 1000};
    enum { N = sizeof at / sizeof at[0] };

    (void)state;
    for (int fn = 0; fn < KF_FN_COUNT; fn++) {
        bool partial = false;
        for (int i = 0; i < N * N; i++) /* the last operand is that of select */
            partial |= !isfinite(kf_fn_eval((kf_fn)fn, at[i / N], at[i % N], at[i % N]));
        if (partial != ((kf_op_infos[fn].traits & KF_PARTIAL) != 0))
            fail_msg("%s: its trait KF_PARTIAL is wrong", kf_fn_infos[fn].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_are_partial_where_they_say_so),
        cmocka_unit_test(layouts_place_elements),
        cmocka_unit_test(rules_give_types_or_reasons),
        cmocka_unit_test(slots_share_and_compare),
        cmocka_unit_test(attributes_have_defaults),
        cmocka_unit_test(rewriting_keeps_order),
        cmocka_unit_test(sort_is_iterative_and_stable),
        cmocka_unit_test(clones_are_apart),
        cmocka_unit_test(recipes_join_by_groups),
        cmocka_unit_test(verifier_annotates_the_line),
        cmocka_unit_test(verifier_checks_modules),
        cmocka_unit_test(a_missing_all_reduce_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
