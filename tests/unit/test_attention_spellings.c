/* SPDX-License-Identifier: Apache-2.0 */
/* test_attention_spellings - each form of attention, written out in many ways, becomes the same op;
 * what only resembles one is refused with its reason. */
#include "tests/unit/spelling.h"
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

/* Heads, KV heads, heads of a group, head size. */
enum { H = 4, G = 2, R = 2, D = 4, BUCKETS = 4 };
#define SCALE 0.25

typedef struct form {
    const char *name;
    bool cap, slopes, buckets, window, prefix, sink, factor, relu;
    const char *has; /* what the op must hold */
} form;

typedef enum layout {
    GROUPED,
    TURNED,
    ROWS_FIRST,
    EXPANDED,
    GATHERED,
    JOINED,
    SWAPPED,
    LAYOUTS
} layout;
typedef enum place { AFTER, DIVIDED, QUERY, KEYS, BOTH, SCALES } place;
typedef enum masking { SELECT, NOT, BIAS, TWICE, DE_MORGAN, WEIGHTS, MASKS } masking;
typedef enum softmax {
    GUARDED,
    PLAIN,
    STEPS,
    NO_MAX,
    LATE,
    LOGARITHM,
    SAFE_SUM,
    SOFTMAXES
} softmax;

typedef struct spelled {
    layout layout;
    place scale;
    masking mask;
    softmax softmax;
    bool commute, detours;
} spelled;

/* One function under construction. */
typedef struct writer {
    spelling s;
    const form *f;
    spelled how;
    kf_value q, pos, seq, seq_start, past, pages, kv, keys, values;
    kf_value row, key; /* positions along the axes of the scores */
} writer;

/* ---- parts ----------------------------------------------------------------------------------- */

static kf_value read_cache(writer *w, kf_value kv, int plane)
{
    kf_attr_kv_read *a = KF_ATTR_NEW(w->s.arena, kv_read);

    a->plane = plane;
    return kf_node_add(w->s.g, KF_OP_kv_read, a, 4,
                       (kf_value[]){kv, w->seq_start, w->past, w->pages}, NULL, KF_NO_LOC);
}

static kf_value key_index(writer *w, int plane)
{
    kf_attr_kv_read *a = KF_ATTR_NEW(w->s.arena, kv_read);

    a->plane = plane;
    return kf_node_add(w->s.g, KF_OP_kv_index, a, 2, (kf_value[]){w->seq_start, w->past}, NULL,
                       KF_NO_LOC);
}

/* Numbers of rows, along the rows of the scores. */
static kf_value along_rows(writer *w, kf_value v)
{
    return w->how.layout == ROWS_FIRST ? sp_reshape(&w->s, v, SP_DIMS(SP_N, SP(1), SP(1), SP(1)))
                                       : sp_reshape(&w->s, v, SP_DIMS(SP_N, SP(1)));
}

/* Numbers of heads, along the heads of the scores. */
static kf_value along_heads(writer *w, kf_value v)
{
    switch (w->how.layout) {
    case ROWS_FIRST:
        return sp_reshape(&w->s, v, SP_DIMS(SP(G), SP(R), SP(1)));
    case EXPANDED:
    case GATHERED:
    case JOINED:
        return sp_reshape(&w->s, v, SP_DIMS(SP(H), SP(1), SP(1)));
    default:
        return sp_reshape(&w->s, v, SP_DIMS(SP(G), SP(R), SP(1), SP(1)));
    }
}

static void begin(writer *w, kf_arena *arena, const form *f, spelled how)
{
    kf_dim grouped[] = {SP_N, SP(G), SP(D)};
    spelling *s = &w->s;

    *w = (writer){.s = sp_begin(arena), .f = f, .how = how};
    s->commute = how.commute;
    s->detours = how.detours;
    w->q = sp_arg(s, "q", KF_DTYPE_f32, SP_DIMS(SP_N, SP(H), SP(D)));
    kf_value k = sp_arg(s, "k", KF_DTYPE_f32, 3, grouped),
             v = sp_arg(s, "v", KF_DTYPE_f32, 3, grouped);
    kf_value kv =
        kf_graph_add_arg(s->g, kf_type_kvcache(KF_DTYPE_f32, 4, G, D, 1), KF_STR("kv"), KF_NO_LOC);
    w->pos = sp_arg(s, "pos", KF_DTYPE_i32, SP_DIMS(SP_N));
    w->seq = sp_arg(s, "seq", KF_DTYPE_i32, SP_DIMS(SP_N));
    w->seq_start = sp_arg(s, "seq_start", KF_DTYPE_i32, SP_DIMS(kf_dim_sym(KF_SYM_S)));
    w->past = sp_arg(s, "past", KF_DTYPE_i32, SP_DIMS(kf_dim_sym(KF_SYM_S)));
    w->pages = sp_arg(s, "pages", KF_DTYPE_i32, SP_DIMS(kf_dim_sym(KF_SYM_S), SP(4)));
    w->kv = kf_node_add(s->g, KF_OP_kv_append, NULL, 6,
                        (kf_value[]){kv, k, v, w->pos, w->seq, w->pages}, NULL, KF_NO_LOC);
    w->keys = read_cache(w, w->kv, KF_PLANE_KEYS);
    w->values = read_cache(w, w->kv, KF_PLANE_VALUES);
    w->row = along_rows(w, w->pos);
    w->key = key_index(w, KF_PLANE_POS);
}

/* Keys or values by heads, so that matmul broadcasts or repeats them. */
static kf_value by_heads(writer *w, kf_value rows)
{
    spelling *s = &w->s;
    kf_value v = sp_transpose(s, rows, "102"), part[H];

    switch (w->how.layout) {
    case ROWS_FIRST:
        return sp_reshape(s, v, SP_DIMS(SP(1), SP(G), SP_K, SP(D)));
    case EXPANDED:
        v = sp_reshape(s, v, SP_DIMS(SP(G), SP(1), SP_K, SP(D)));
        v = sp_expand(s, v, SP_DIMS(SP(G), SP(R), SP_K, SP(D)));
        return sp_reshape(s, v, SP_DIMS(SP(H), SP_K, SP(D)));
    case GATHERED: {
        kf_value group = sp1(s, KF_OP_floor, sp2(s, KF_OP_div, sp_iota(s, H), sp_num(s, R)));
        kf_type ids = kf_type_tensor(KF_DTYPE_i32, SP_DIMS(SP(H)));
        group = kf_node_add(s->g, KF_OP_convert, NULL, 1, &group, &ids, KF_NO_LOC);
        return kf_node_2(s->g, KF_OP_gather, v, group, KF_NO_LOC);
    }
    case JOINED:
        for (int64_t h = 0; h < H; h++)
            part[h] = kf_node_slice(s->g, v, 0, h / R, h / R + 1, KF_NO_LOC);
        return kf_node_add(s->g, KF_OP_concat, KF_ATTR_NEW(s->arena, axis), H, part, NULL,
                           KF_NO_LOC);
    default:
        return sp_reshape(s, v, SP_DIMS(SP(G), SP(1), SP_K, SP(D)));
    }
}

static kf_value query_by_heads(writer *w, kf_value q)
{
    if (w->how.layout == ROWS_FIRST)
        return sp_reshape(&w->s, q, SP_DIMS(SP_N, SP(G), SP(R), SP(D)));
    q = sp_transpose(&w->s, q, "102");
    if (w->how.layout >= EXPANDED && w->how.layout <= JOINED)
        return q;
    return sp_reshape(&w->s, q, SP_DIMS(SP(G), SP(R), SP_N, SP(D)));
}

static kf_value scores_of(writer *w)
{
    spelling *s = &w->s;
    double root = sqrt(SCALE);
    place p = w->how.scale;
    kf_value q = w->q, k = w->keys, x;

    if (p == QUERY || p == BOTH)
        q = sp2(s, KF_OP_mul, q, sp_num(s, p == BOTH ? root : SCALE));
    if (p == KEYS || p == BOTH)
        k = sp2(s, KF_OP_mul, k, sp_num(s, p == BOTH ? root : SCALE));
    q = query_by_heads(w, q);
    k = by_heads(w, k);
    if (w->how.layout == TURNED)
        x = sp_matmul(s, q, sp_transpose(s, k, "0132"), false);
    else if (w->how.layout == SWAPPED)
        x = sp_transpose(s, sp_matmul(s, k, q, true), "0132");
    else
        x = sp_matmul(s, q, k, true);
    if (p == AFTER)
        x = sp2(s, KF_OP_mul, x, sp_num(s, SCALE));
    return p == DIVIDED ? sp2(s, KF_OP_div, x, sp_num(s, 1 / SCALE)) : x;
}

/* Rows of a table [BUCKETS, H] at how far a key lies back, along the scores. */
static kf_value table_by_distance(writer *w, const char *name)
{
    spelling *s = &w->s;
    kf_value table = sp_param(s, name, SP_DIMS(SP(BUCKETS), SP(H)));
    kf_type ids = kf_type_tensor(KF_DTYPE_i32, SP_DIMS(SP_N, SP_K));
    kf_value row = sp_reshape(s, w->pos, SP_DIMS(SP_N, SP(1)));
    kf_value back = sp2(s, KF_OP_max, sp2(s, KF_OP_sub, row, w->key), sp_num(s, 0));

    back = sp2(s, KF_OP_min, back, sp_num(s, BUCKETS - 1));
    back = kf_node_add(s->g, KF_OP_convert, NULL, 1, &back, &ids, KF_NO_LOC);
    kf_value v = kf_node_2(s->g, KF_OP_gather, table, back, KF_NO_LOC); /* [N, K, H] */
    if (w->how.layout == ROWS_FIRST)
        return sp_reshape(s, sp_transpose(s, v, "021"), SP_DIMS(SP_N, SP(G), SP(R), SP_K));
    v = sp_transpose(s, v, "201");
    if (w->how.layout >= EXPANDED && w->how.layout <= JOINED)
        return v;
    return sp_reshape(s, v, SP_DIMS(SP(G), SP(R), SP_N, SP_K));
}

static kf_value work_on(writer *w, kf_value x)
{
    spelling *s = &w->s;

    if (w->f->cap) {
        x = sp1(s, KF_OP_tanh, sp2(s, KF_OP_div, x, sp_num(s, 5)));
        x = sp2(s, KF_OP_mul, x, sp_num(s, 5));
    }
    if (w->f->slopes) {
        kf_value slope = along_heads(w, sp_param(s, "slopes", SP_DIMS(SP(H))));
        kf_value bias = sp2(s, KF_OP_mul, slope, sp2(s, KF_OP_sub, w->key, w->row));
        x = sp2(s, KF_OP_add, x, bias);
    }
    return w->f->buckets ? sp2(s, KF_OP_add, x, table_by_distance(w, "buckets")) : x;
}

/* ---- masks ----------------------------------------------------------------------------------- */

static kf_value own_sequence(writer *w)
{
    return sp2(&w->s, KF_OP_eq, key_index(w, KF_PLANE_SEQ), along_rows(w, w->seq));
}

static kf_value in_sight(writer *w)
{
    spelling *s = &w->s;
    kf_value m =
        w->how.commute ? sp2(s, KF_OP_ge, w->row, w->key) : sp2(s, KF_OP_le, w->key, w->row);

    if (w->f->window)
        m = sp2(s, KF_OP_and, m, sp2(s, KF_OP_lt, sp2(s, KF_OP_sub, w->row, w->key), sp_num(s, 3)));
    return w->f->prefix ? sp2(s, KF_OP_or, m, sp2(s, KF_OP_lt, w->key, sp_num(s, 2))) : m;
}

static kf_value hide(writer *w, kf_value x, double hidden)
{
    spelling *s = &w->s;
    kf_value own = own_sequence(w), seen = in_sight(w), low = sp_num(s, hidden);

    switch (w->how.mask) {
    case NOT:
        return sp3(s, KF_OP_select, sp1(s, KF_OP_not, sp2(s, KF_OP_and, own, seen)), low, x);
    case BIAS:
        if (isinf(hidden))
            return sp2(s, KF_OP_add, x,
                       sp3(s, KF_OP_select, sp2(s, KF_OP_and, seen, own), sp_num(s, 0), low));
        break;
    case TWICE:
        return sp3(s, KF_OP_select, own, sp3(s, KF_OP_select, seen, x, low), low);
    case DE_MORGAN:
        own = sp1(s, KF_OP_not, own);
        seen = sp1(s, KF_OP_not, seen);
        return sp3(s, KF_OP_select, sp2(s, KF_OP_or, own, seen), low, x);
    default:
        break;
    }
    return sp3(s, KF_OP_select, sp2(s, KF_OP_and, own, seen), x, low);
}

/* ---- normalisers ----------------------------------------------------------------------------- */

/* exp(v - m) / s of a row, perhaps 0 where s is. */
static kf_value softmax_op(writer *w, kf_value x)
{
    static const char *const names[] = {"v", "m", "s"};
    static const kf_acc acc[] = {KF_ACC_max, KF_ACC_sum_exp};
    kf_slot_builder *b = kf_slot_builder_create(w->s.arena, 3, names, 0);
    uint32_t v = kf_slot_param(b, 0), m = kf_slot_param(b, 1), sum = kf_slot_param(b, 2);
    uint32_t zero = kf_slot_const(b, 0);
    uint32_t p = kf_slot_fn(b, KF_FN_exp, kf_slot_fn(b, KF_FN_sub, v, m, 0), 0, 0);

    p = kf_slot_fn(b, KF_FN_div, p, sum, 0);
    if (w->how.softmax == GUARDED)
        p = kf_slot_fn(b, KF_FN_select, kf_slot_fn(b, KF_FN_lt, zero, sum, 0), p, zero);
    return sp_row_map(&w->s, x, 2, acc, kf_slot_finish(b, p));
}

/* Weights e and what they are divided by. */
static kf_value softmax_steps(writer *w, kf_value x, kf_value *out_sum)
{
    spelling *s = &w->s;
    kf_value sink = KF_NO_VALUE, top = sp_reduce(s, KF_ACC_max, x);

    if (w->f->sink) {
        sink = along_heads(w, sp_param(s, "sinks", SP_DIMS(SP(H))));
        top = sp2(s, KF_OP_max, top, sink);
    }
    bool shift = w->how.softmax != NO_MAX;
    kf_value e = sp1(s, KF_OP_exp, shift ? sp2(s, KF_OP_sub, x, top) : x);
    if (w->how.mask == WEIGHTS)
        e = hide(w, e, 0);
    kf_value sum = sp_reduce(s, KF_ACC_sum, e);
    if (sink != KF_NO_VALUE)
        sum =
            sp2(s, KF_OP_add, sum, sp1(s, KF_OP_exp, shift ? sp2(s, KF_OP_sub, sink, top) : sink));
    if (w->how.softmax == SAFE_SUM)
        sum = sp3(s, KF_OP_select, sp2(s, KF_OP_eq, sum, sp_num(s, 0)), sp_num(s, 1), sum);
    *out_sum = sum;
    if (w->how.softmax == LOGARITHM && w->how.mask != WEIGHTS)
        return sp1(s, KF_OP_exp,
                   sp2(s, KF_OP_sub, sp2(s, KF_OP_sub, x, top), sp1(s, KF_OP_log, sum)));
    return w->how.softmax == LATE ? e : sp2(s, KF_OP_div, e, sum);
}

/* relu(x) / (q + 1) where a key is seen. */
static kf_value relu_weights(writer *w, kf_value x)
{
    spelling *s = &w->s;
    kf_value count = sp2(s, KF_OP_add, w->row, sp_num(s, 1));

    x = w->how.commute ? sp2(s, KF_OP_max, x, sp_num(s, 0)) : sp1(s, KF_OP_relu, x);
    if (w->how.softmax == STEPS)
        return hide(w, sp2(s, KF_OP_mul, x, sp1(s, KF_OP_recip, count)), 0);
    return w->how.softmax == LATE ? hide(w, x, 0) : hide(w, sp2(s, KF_OP_div, x, count), 0);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static kf_value weigh(writer *w, kf_value p)
{
    spelling *s = &w->s;
    kf_value v = by_heads(w, w->values);

    if (w->how.layout == TURNED)
        return sp_matmul(s, p, sp_transpose(s, v, "0132"), true);
    if (w->how.layout == SWAPPED)
        return sp_transpose(s, sp_matmul(s, sp_transpose(s, v, "0132"), p, true), "0132");
    return sp_matmul(s, p, v, false);
}

static kf_value to_rows(writer *w, kf_value o)
{
    spelling *s = &w->s;

    if (w->how.layout != ROWS_FIRST) {
        o = sp_reshape(s, o, SP_DIMS(SP(H), SP_N, SP(D)));
        o = sp_transpose(s, o, "102");
    }
    return sp_reshape(s, o, SP_DIMS(SP_N, SP(H * D)));
}

static kf_value probabilities(writer *w, kf_value x, kf_value *late)
{
    *late = KF_NO_VALUE;
    if (w->f->relu) {
        if (w->how.softmax == LATE)
            *late = sp2(&w->s, KF_OP_add, w->row, sp_num(&w->s, 1));
        return relu_weights(w, x);
    }
    if (w->how.mask != WEIGHTS)
        x = hide(w, x, -INFINITY);
    if (w->how.softmax == GUARDED || w->how.softmax == PLAIN)
        return softmax_op(w, x);
    kf_value sum, p = softmax_steps(w, x, &sum);
    if (w->how.softmax == LATE)
        *late = sum;
    return p;
}

static void write_attention(writer *w)
{
    kf_value late, p = probabilities(w, work_on(w, scores_of(w)), &late);

    if (w->f->factor)
        p = sp2(&w->s, KF_OP_mul, p, table_by_distance(w, "factors"));
    kf_value o = weigh(w, p);
    if (late != KF_NO_VALUE)
        o = sp2(&w->s, KF_OP_div, o, late);
    kf_graph_add_result(w->s.g, to_rows(w, o));
}

/* ---- the spellings --------------------------------------------------------------------------- */

static const form forms[] = {
    {.name = "plain", .has = "{scale = 0.25} mask(h, q, k) { le(k, q) }"},
    {.name = "capped", .cap = true, .has = "{scale = 0.05} score(s, h, q, k) { mul(tanh(s), 5) }"},
    {.name = "slopes", .slopes = true, .has = "$0[h]"},
    {.name = "buckets", .buckets = true, .has = "add(s, $0[min("},
    {.name = "window", .window = true, .has = "lt(sub(q, k), 3)"},
    {.name = "prefix", .prefix = true, .has = "lt(k, 2)"},
    {.name = "sink", .sink = true, .has = "sink(h | 1) { $0[h] }"},
    {.name = "factor", .factor = true, .has = "prob(h, q, k | 1)"},
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

    if (f->relu && h.softmax > LATE)
        h.softmax = STEPS;
    if (f->relu && h.mask == BIAS)
        h.mask = SELECT;
    if (!f->relu && op && (f->sink || h.mask == WEIGHTS))
        h.softmax = STEPS;
    return h;
}

static kf_str fused_text(const form *f, spelled h, kf_arena *arena)
{
    writer w;

    h = possible(f, h);
    begin(&w, arena, f, h);
    write_attention(&w);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(spellings)};

    return cmocka_run_group_tests_name("attention_spellings", tests, NULL, NULL);
}
