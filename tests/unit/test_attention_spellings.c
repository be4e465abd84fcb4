/* SPDX-License-Identifier: Apache-2.0 */
/* test_attention_spellings - each form of attention, written out in many ways, becomes the same op;
 * what only resembles one is refused with its reason. */
#include "tests/unit/attention_writer.h"
#include "tests/unit/support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PASSES "canonicalize,fold_const,cse,dce,fuse_attention,canonicalize,cse,dce"

/* ---- the spellings --------------------------------------------------------------------------- */

static const form forms[] = {
    {.name = "plain", .has = "{scale = 0.25} mask(h, q, k) { le(k, q) }"},
    {.name = "capped", .cap = true, .has = "{scale = 0.05} score(s, h, q, k) { mul(tanh(s), 5) }"},
    {.name = "slopes", .slopes = true, .has = "$0[h]"},
    {.name = "buckets", .buckets = true, .has = "add(s, $0[min("},
    {.name = "log_buckets", .buckets = true, .logs = true, .has = "floor("},
    {.name = "window", .window = true, .has = "lt(sub(q, k), 3)"},
    {.name = "prefix", .prefix = true, .has = "lt(k, 2)"},
    {.name = "sink", .sink = true, .has = "sink(h | 1) { $0[h] }"},
    {.name = "factor", .factor = true, .has = "prob(h, q, k | 1)"},
    {.name = "grid", .grid = true, .has = "add(s, $0[q, k])"},
    {.name = "decay",
     .decay = true,
     .has = "{scale = 0.25, normaliser = none} score(s, h, q, k | 1)"},
    {.name = "relu",
     .relu = true,
     .has = "normaliser = none} score(s, h, q, k) { div(relu(s), add(q, 1)) }"},
    {.name = "all",
     .cap = true,
     .slopes = true,
     .buckets = true,
     .window = true,
     .prefix = true,
     .sink = true,
     .factor = true,
     .has = "sink(h | "},
};

/* Spellings that a form does not have become ones that it has. */
static spelled possible(const form *f, spelled h)
{
    bool op = h.softmax == GUARDED || h.softmax == PLAIN;

    bool weights = f->relu || f->decay;

    if (weights && h.softmax > LATE)
        h.softmax = STEPS;
    if (weights && h.mask == BIAS)
        h.mask = SELECT;
    if (!weights && op && (f->sink || h.mask == WEIGHTS))
        h.softmax = STEPS;
    return h;
}

static kf_str fused_text(const form *f, spelled h, kf_arena *arena)
{
    writer w;

    h = possible(f, h);
    aw_begin(&w, arena, f, h);
    aw_write(&w);
    sp_outcome o = sp_run(&w.s, PASSES, test_seed(1));
    char where[96];
    snprintf(where, sizeof where, "%s: layout %d scale %d mask %d softmax %d%s%s", f->name,
             h.layout, h.scale, h.mask, h.softmax, h.commute ? " commuted" : "",
             h.detours ? " detours" : "");
    if (o.n_fused != 1)
        fail_msg("%s: refused with %s %.*s\n%.*s", where, kf_reason_codes[o.why],
                 KF_STR_ARG(o.detail), KF_STR_ARG(o.text));
    if (!(o.error < 1e-9))
        fail_msg("%s: off by %g\n%.*s", where, o.error, KF_STR_ARG(o.text));
    return o.text;
}

static void same_as(const form *f, kf_str want, spelled h)
{
    kf_arena *arena = kf_arena_create("spelling");
    kf_str text = fused_text(f, h, arena);

    if (!kf_str_eq(text, want))
        fail_msg("%s: layout %d scale %d mask %d softmax %d%s%s becomes\n%.*sand not\n%.*s",
                 f->name, h.layout, h.scale, h.mask, h.softmax, h.commute ? " commuted" : "",
                 h.detours ? " detours" : "", KF_STR_ARG(text), KF_STR_ARG(want));
    kf_arena_destroy(arena);
}

static void one_form(const form *f)
{
    kf_arena *arena = kf_arena_create("base");
    kf_str want = fused_text(f, (spelled){0}, arena);
    uint64_t state = test_seed(2);

    if (!strstr(want.ptr, f->has))
        fail_msg("%s: no '%s' in\n%.*s", f->name, f->has, KF_STR_ARG(want));
    same_as(f, want, (spelled){.commute = true});
    same_as(f, want, (spelled){.detours = true});
    for (int i = 1; i < LAYOUTS; i++)
        same_as(f, want, (spelled){.layout = (layout)i});
    for (int i = 1; i < SCALES; i++)
        same_as(f, want, (spelled){.scale = (place)i});
    for (int i = 1; i < MASKS; i++)
        same_as(f, want, (spelled){.mask = (masking)i});
    for (int i = 1; i < SOFTMAXES; i++)
        same_as(f, want, (spelled){.softmax = (softmax)i});
    for (uint32_t i = 0; i < scaled(12); i++) {
        uint64_t x = random_u64(&state);
        same_as(f, want,
                (spelled){(layout)(x % LAYOUTS), (place)(x / 8 % SCALES), (masking)(x / 64 % MASKS),
                          (softmax)(x / 512 % SOFTMAXES), x >> 40 & 1, x >> 41 & 1});
    }
    kf_arena_destroy(arena);
}

static void spellings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        one_form(&forms[i]);
}

/* Query heads that share keys stand apart: their order changes, and numbers of heads with it. */
static void tiled_heads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        kf_arena *arena = kf_arena_create("tiled");
        fused_text(&forms[i], (spelled){.layout = TILED}, arena);
        kf_arena_destroy(arena);
    }
}

/* ---- near misses ----------------------------------------------------------------------------- */

typedef kf_value (*miss_fn)(writer *w);

static kf_value finish(writer *w, kf_value p)
{
    return aw_to_rows(w, aw_weigh(w, p));
}

static kf_value weights(writer *w, kf_value x)
{
    kf_value late;

    return aw_probabilities(w, x, &late);
}

static kf_value other_reader(writer *w)
{
    kf_value p = weights(w, aw_scores(w));

    kf_graph_add_result(w->s.g, p);
    return finish(w, p);
}

static kf_value reader_of_scores(writer *w)
{
    kf_value x = aw_scores(w);

    kf_graph_add_result(w->s.g, sp_reduce(&w->s, KF_ACC_max, x));
    return finish(w, weights(w, x));
}

static kf_value reduction_between(writer *w)
{
    kf_value x = aw_scores(w);

    x = sp2(&w->s, KF_OP_mul, x, sp_reduce(&w->s, KF_ACC_max, sp1(&w->s, KF_OP_abs, x)));
    return finish(w, weights(w, x));
}

/* Softmax over the rows: the scores stand the other way round. */
static kf_value over_rows(writer *w)
{
    kf_value x = aw_hide(w, aw_scores(w), -1), e, sum;

    e = sp1(&w->s, KF_OP_exp, sp_transpose(&w->s, x, "0132"));
    sum = sp_reduce(&w->s, KF_ACC_sum, e);
    e = sp_transpose(&w->s, sp2(&w->s, KF_OP_div, e, sum), "0132");
    return finish(w, aw_hide(w, e, 0));
}

static kf_value over_heads(writer *w)
{
    kf_value x = sp_transpose(&w->s, aw_scores(w), "0231"), e;

    e = sp1(&w->s, KF_OP_exp, x);
    e = sp2(&w->s, KF_OP_div, e, sp_reduce(&w->s, KF_ACC_sum, e));
    return finish(w, aw_hide(w, sp_transpose(&w->s, e, "0312"), 0));
}

static kf_value masked_by(writer *w, kf_value mask)
{
    kf_value low = sp_num(&w->s, -INFINITY), x = aw_scores(w);
    static const kf_acc acc[] = {KF_ACC_max, KF_ACC_sum_exp};
    static const char *const names[] = {"v", "m", "s"};
    kf_slot_builder *b = kf_slot_builder_create(w->s.arena, 3, names, 0);
    uint32_t shifted = kf_slot_fn(b, KF_FN_sub, kf_slot_param(b, 0), kf_slot_param(b, 1), 0);
    uint32_t p = kf_slot_fn(b, KF_FN_exp, shifted, 0, 0);

    p = kf_slot_fn(b, KF_FN_div, p, kf_slot_param(b, 2), 0);
    x = sp3(&w->s, KF_OP_select, mask, x, low);
    return finish(w, sp_row_map(&w->s, x, 2, acc, kf_slot_finish(b, p)));
}

static kf_value all_sequences(writer *w)
{
    return masked_by(w, aw_in_sight(w));
}

/* One's own sequence, or the first key of any. */
static kf_value own_or_first(writer *w)
{
    kf_value first = sp2(&w->s, KF_OP_lt, w->key, sp_num(&w->s, 1));

    return masked_by(w, sp2(&w->s, KF_OP_or, aw_own_sequence(w), first));
}

static kf_value later_sequences(writer *w)
{
    return masked_by(w,
                     sp2(&w->s, KF_OP_le, aw_key_index(w, KF_PLANE_SEQ), aw_along_rows(w, w->seq)));
}

static kf_value squared(writer *w)
{
    return finish(w, sp1(&w->s, KF_OP_square, weights(w, aw_scores(w))));
}

static kf_value above_threshold(writer *w)
{
    kf_value p = weights(w, aw_scores(w));

    return finish(w, sp1(&w->s, KF_OP_relu, sp2(&w->s, KF_OP_sub, p, sp_num(&w->s, 0.01))));
}

static kf_value factor_of_score(writer *w)
{
    kf_value x = aw_scores(w);

    return finish(w, sp2(&w->s, KF_OP_mul, weights(w, x), sp1(&w->s, KF_OP_sigmoid, x)));
}

/* e^x c / sum of (e^x c) has no form with a factor, and c no logarithm that is known. */
static kf_value factor_in_sum(writer *w)
{
    kf_value x = aw_hide(w, aw_scores(w), -INFINITY), c = sp2(&w->s, KF_OP_sub, w->row, w->key);
    kf_value e = sp2(&w->s, KF_OP_mul, sp1(&w->s, KF_OP_exp, x), c);

    return finish(w, sp2(&w->s, KF_OP_div, e, sp_reduce(&w->s, KF_ACC_sum, e)));
}

static kf_value finite_fill(writer *w)
{
    kf_value x = aw_hide(w, aw_scores(w), -1e9);

    return finish(w, sp2(&w->s, KF_OP_div, sp1(&w->s, KF_OP_exp, x),
                         sp_reduce(&w->s, KF_ACC_sum, sp1(&w->s, KF_OP_exp, x))));
}

/* Bounded, but rows that see nothing would average. */
static kf_value fill_of_blind_rows(writer *w)
{
    kf_value x = sp1(&w->s, KF_OP_tanh, aw_scores(w)), e;
    kf_value near = sp2(&w->s, KF_OP_lt, w->key, w->row);

    near = sp2(&w->s, KF_OP_and, near, aw_own_sequence(w));
    x = sp3(&w->s, KF_OP_select, near, x, sp_num(&w->s, -1e9));
    e = sp1(&w->s, KF_OP_exp, x);
    return finish(w, sp2(&w->s, KF_OP_div, e, sp_reduce(&w->s, KF_ACC_sum, e)));
}

/* The lowest number, but a bias is added to it that may be large. */
static kf_value lowest_with_bias(writer *w)
{
    kf_value x = aw_hide(w, aw_scores(w), -3.4028234663852886e38);
    kf_value slope = sp_param(&w->s, "slope", SP_DIMS(SP(1)));

    x = sp2(&w->s, KF_OP_add, x, sp2(&w->s, KF_OP_mul, slope, w->key));
    x = sp1(&w->s, KF_OP_exp, sp2(&w->s, KF_OP_sub, x, sp_reduce(&w->s, KF_ACC_max, x)));
    return finish(w, sp2(&w->s, KF_OP_div, x, sp_reduce(&w->s, KF_ACC_sum, x)));
}

/* A query that several heads share, each with its keys. */
static kf_value shared_query(writer *w)
{
    spelling *s = &w->s;
    kf_value q = sp_arg(s, "q1", KF_DTYPE_f32, SP_DIMS(SP(1), SP(1), SP_N, SP(D)));
    kf_value p, x = sp_matmul(s, q, aw_by_heads(w, w->keys), true), late;

    p = aw_probabilities(w, x, &late);
    return sp_reshape(s, sp_transpose(s, aw_weigh(w, p), "2013"), SP_DIMS(SP_N, SP(G * D)));
}

static kf_value number_of_row(writer *w)
{
    kf_value gate = sp_arg(&w->s, "gate", KF_DTYPE_f32, SP_DIMS(SP_N, SP(1)));

    return finish(w, weights(w, sp2(&w->s, KF_OP_mul, aw_scores(w), gate)));
}

static kf_value other_positions(writer *w)
{
    kf_value more = sp_arg(&w->s, "past_more", KF_DTYPE_i32, SP_DIMS(SP_N));
    kf_value x = sp2(&w->s, KF_OP_add, aw_scores(w), aw_along_rows(w, w->pos));

    x = sp2(&w->s, KF_OP_mul, x, aw_along_rows(w, more));
    return finish(w, weights(w, x));
}

static kf_value keys_computed(writer *w)
{
    w->keys = sp2(&w->s, KF_OP_mul, w->keys, sp_param(&w->s, "gain", SP_DIMS(SP(D))));
    return finish(w, weights(w, aw_scores(w)));
}

static kf_value values_computed(writer *w)
{
    w->values = sp1(&w->s, KF_OP_tanh, w->values);
    return finish(w, weights(w, aw_scores(w)));
}

static kf_value values_of_keys(writer *w)
{
    w->values = w->keys;
    return finish(w, weights(w, aw_scores(w)));
}

/* Values of the heads in the other order. */
static kf_value heads_turned(writer *w)
{
    kf_value v = w->values;
    kf_value part[] = {kf_node_slice(w->s.g, v, 1, 1, 2, KF_NO_LOC),
                       kf_node_slice(w->s.g, v, 1, 0, 1, KF_NO_LOC)};
    kf_attr_axis *a = KF_ATTR_NEW(w->s.arena, axis);

    a->axis = 1;
    w->values = kf_node_add(w->s.g, KF_OP_concat, a, 2, part, NULL, KF_NO_LOC);
    return finish(w, weights(w, aw_scores(w)));
}

/* Rows of the call attend to each other: nothing is read from a cache. */
static kf_value without_cache(writer *w)
{
    spelling *s = &w->s;
    kf_value k = sp_arg(s, "k4", KF_DTYPE_f32, SP_DIMS(SP(H), SP_N, SP(D)));
    kf_value e = sp1(s, KF_OP_exp, sp_matmul(s, sp_transpose(s, w->q, "102"), k, true));

    e = sp2(s, KF_OP_div, e, sp_reduce(s, KF_ACC_sum, e));
    return aw_to_rows(w, sp_matmul(s, e, k, false));
}

static const struct {
    const char *name;
    miss_fn write;
    kf_reason why;
} misses[] = {
    {"another reader of the weights", other_reader, KF_REASON_F0203},
    {"another reader of the scores", reader_of_scores, KF_REASON_F0203},
    {"a reduction between", reduction_between, KF_REASON_F0201},
    {"softmax over the rows", over_rows, KF_REASON_F0220},
    {"softmax over the heads", over_heads, KF_REASON_F0220},
    {"keys of all sequences", all_sequences, KF_REASON_F0207},
    {"own keys or any first one", own_or_first, KF_REASON_F0207},
    {"keys of earlier sequences", later_sequences, KF_REASON_F0207},
    {"squared weights", squared, KF_REASON_F0221},
    {"weights above a threshold", above_threshold, KF_REASON_F0221},
    {"a factor of the score", factor_of_score, KF_REASON_F0221},
    {"a factor in the sum", factor_in_sum, KF_REASON_F0201},
    {"-1e9 beside scores without bounds", finite_fill, KF_REASON_F0223},
    {"-1e9 for rows that see nothing", fill_of_blind_rows, KF_REASON_F0223},
    {"the lowest number and a bias", lowest_with_bias, KF_REASON_F0223},
    {"a query for several heads", shared_query, KF_REASON_F0204},
    {"a number of the row", number_of_row, KF_REASON_F0222},
    {"two positions of a row", other_positions, KF_REASON_F0222},
    {"keys multiplied after reading", keys_computed, KF_REASON_F0202},
    {"values computed after reading", values_computed, KF_REASON_F0202},
    {"keys for values", values_of_keys, KF_REASON_F0202},
    {"nothing cached", without_cache, KF_REASON_F0202},
    {"values of other heads", heads_turned, KF_REASON_F0202},
};

static void near_misses(void **state)
{
    static const form plain = {.name = "plain"};

    (void)state;
    for (size_t i = 0; i < sizeof misses / sizeof *misses; i++) {
        kf_arena *arena = kf_arena_create("miss");
        writer w;
        aw_begin(&w, arena, &plain, (spelled){0});
        kf_graph_add_result(w.s.g, misses[i].write(&w));
        sp_outcome o = sp_run(&w.s, PASSES, test_seed(1));
        if (o.n_fused || o.why != misses[i].why)
            fail_msg("%s: %s %s %.*s, not %s\n%.*s", misses[i].name,
                     o.n_fused ? "fused" : "refused", kf_reason_codes[o.why], KF_STR_ARG(o.detail),
                     kf_reason_codes[misses[i].why], KF_STR_ARG(o.text));
        kf_arena_destroy(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(spellings), cmocka_unit_test(tiled_heads),
                                       cmocka_unit_test(near_misses)};

    return cmocka_run_group_tests_name("attention_spellings", tests, NULL, NULL);
}
