/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/families/attention_impl.h"

/* ---- places ---------------------------------------------------------------------------------- */

static kb_value state_of(kf_att *t, kb_value part)
{
    kb *b = t->b;
    return t->parts == 1 ? t->states : kb_offset(b, t->states, kb_muli(b, part, t->z.state_bytes));
}

void kf_att_enter(kf_att *t, kb_value part)
{
    t->state = state_of(t, part);
}

void kf_att_count_parts(kf_att *t, kb_value most)
{
    kb *b = t->b;
    const int64_t keys = t->z.page * t->part_pages;
    kb_value n = kb_udiv(b, kb_addi(b, most, keys - 1), kb_i64(b, keys));
    t->used = kb_max(b, kb_min(b, n, kb_i64(b, t->parts)), kb_i64(b, 1));
}

/* ---- before the first key -------------------------------------------------------------------- */

static void clear_span(kf_att *t, kb_value pair, int64_t lo, int64_t hi, uint32_t lanes)
{
    kb *b = t->b;
    kb_loop l;
    if (lo == hi)
        return;
    kb_loop_begin(b, &l, kb_i64(b, lo), kb_i64(b, hi), lanes, 0, NULL);
    kb_value at = kb_add(b, kb_muli(b, pair, t->z.dim), l.iv);
    kb_store(b, kb_f32(b, lanes, 0.0f), kf_att_state_cell(t, t->z.o, at), 4);
    kb_loop_end(b, &l, NULL);
}

void kf_att_clear(kf_att *t, kb_value part, kb_value pairs)
{
    kb *b = t->b;
    kb_loop l;
    const int64_t whole = t->z.dim / t->lanes * t->lanes;
    kb_value none = kb_f32(b, 1, -__builtin_inff()), zero = kb_f32(b, 1, 0.0f);
    kf_att_enter(t, part);
    kb_loop_begin(b, &l, kb_i64(b, 0), pairs, 1, 0, NULL);
    kb_value m = none;
    if (t->attr->sink) { /* the first part has it */
        const kf_att_pair at = kf_att_place(t, l.iv);
        kb_value first = kb_icmp(b, KB_EQ, part, kb_i64(b, 0));
        m = kb_select(b, first, kf_att_row_slot(t, t->attr->sink, &at), none);
    }
    kb_value sum = kb_select(b, kb_fcmp(b, KB_EQ, m, none), zero, kb_f32(b, 1, 1.0f));
    kb_store(b, m, kf_att_state_cell(t, t->z.m, l.iv), 4);
    kb_store(b, sum, kf_att_state_cell(t, t->z.l, l.iv), 4);
    clear_span(t, l.iv, 0, whole, t->lanes);
    clear_span(t, l.iv, whole, t->z.dim, 1);
    kb_loop_end(b, &l, NULL);
}

/* ---- behind the last key --------------------------------------------------------------------- */

static kb_value load_state(kf_att *t, int64_t array, kb_value index, uint32_t lanes)
{
    return kb_load(t->b, KB_F32, lanes, kf_att_state_cell(t, array, index), 4);
}

/* Largest m of |pair|; 0 if none has seen a key. */
static kb_value highest(kf_att *t, kb_value pair)
{
    kb *b = t->b;
    kb_loop l;
    kb_value top = kb_f32(b, 1, -__builtin_inff());
    kb_loop_begin(b, &l, kb_i64(b, 0), t->used, 1, 1, &top);
    kf_att_enter(t, l.iv);
    top = kb_fmax(b, load_state(t, t->z.m, pair, 1), l.carried[0]);
    kb_loop_end(b, &l, &top);
    top = l.carried[0];
    kb_value none = kb_fcmp(b, KB_EQ, top, kb_f32(b, 1, -__builtin_inff()));
    return kb_select(b, none, kb_f32(b, 1, 0.0f), top);
}

/* m of each part becomes its weight exp(m - top), l of the first one the sum of the parts'. */
static void merge_sums(kf_att *t, kb_value pair)
{
    kb *b = t->b;
    kb_loop l;
    kb_value sum = kb_f32(b, 1, 0.0f), top = highest(t, pair);
    kb_loop_begin(b, &l, kb_i64(b, 0), t->used, 1, 1, &sum);
    kf_att_enter(t, l.iv);
    kb_value w = kf_att_weight(b, kb_fsub(b, load_state(t, t->z.m, pair, 1), top));
    kb_store(b, w, kf_att_state_cell(t, t->z.m, pair), 4);
    sum = kb_fma(b, w, load_state(t, t->z.l, pair, 1), l.carried[0]);
    kb_loop_end(b, &l, &sum);
    kf_att_enter(t, kb_i64(b, 0));
    kb_store(b, l.carried[0], kf_att_state_cell(t, t->z.l, pair), 4);
}

/* O of the first part becomes the sum of weight * O, in the order of the parts. */
static void merge_span(kf_att *t, kb_value pair, int64_t lo, int64_t hi, uint32_t lanes)
{
    kb *b = t->b;
    kb_loop d, p;
    if (lo == hi)
        return;
    kb_loop_begin(b, &d, kb_i64(b, lo), kb_i64(b, hi), lanes, 0, NULL);
    kb_value at = kb_add(b, kb_muli(b, pair, t->z.dim), d.iv), sum = kb_f32(b, lanes, 0.0f);
    kb_loop_begin(b, &p, kb_i64(b, 0), t->used, 1, 1, &sum);
    kf_att_enter(t, p.iv);
    kb_value o = load_state(t, t->z.o, at, lanes);
    sum = t->softmax
              ? kb_fma(b, kb_splat(b, load_state(t, t->z.m, pair, 1), lanes), o, p.carried[0])
              : kb_fadd(b, o, p.carried[0]);
    kb_loop_end(b, &p, &sum);
    kf_att_enter(t, kb_i64(b, 0));
    kb_store(b, p.carried[0], kf_att_state_cell(t, t->z.o, at), 4);
    kb_loop_end(b, &d, NULL);
}

void kf_att_merge(kf_att *t, kb_value pairs)
{
    kb *b = t->b;
    kb_if several;
    kb_loop l;
    const int64_t whole = t->z.dim / t->lanes * t->lanes;
    if (t->parts > 1) {
        kb_if_begin(b, &several, kb_icmp(b, KB_GT, t->used, kb_i64(b, 1)));
        kb_loop_begin(b, &l, kb_i64(b, 0), pairs, 1, 0, NULL);
        if (t->softmax)
            merge_sums(t, l.iv);
        merge_span(t, l.iv, 0, whole, t->lanes);
        merge_span(t, l.iv, whole, t->z.dim, 1);
        kb_loop_end(b, &l, NULL);
        kb_if_end(b, &several);
    }
    kf_att_enter(t, kb_i64(b, 0));
}

kb_value kf_att_arrive(kf_att *t)
{
    kb *b = t->b;
    kb_if done;
    kb_value last = kb_int(b, KB_I32, 1, t->parts - 1);
    kb_value before = kb_atomic_add(b, t->arrived, kb_int(b, KB_I32, 1, 1));
    kb_value is_last = kb_icmp(b, KB_EQ, before, last);
    kb_if_begin(b, &done, is_last);
    kb_store(b, kb_int(b, KB_I32, 1, 0), t->arrived, 4);
    kb_if_end(b, &done);
    return is_last;
}
