/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/cpu/vmath.h"
#include "codegen/families/attention_impl.h"
#include "codegen/fn_emit.h"

static kb_value weight_cell(kf_att *t, uint32_t i, kb_value slot)
{
    return kf_att_cell(t, t->z.p + (int64_t)i * t->z.page * 4, slot);
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Which of the keys |first|.. pair |i| sees. */
static kb_value visible(kf_att *t, const kf_att_pair *pair, kb_value first)
{
    kb *b = t->b;
    const uint32_t lanes = t->lanes;
    kb_value k =
        kb_add(b, kb_splat(b, kb_trunc(b, first, KB_I32), lanes), kb_iota(b, KB_I32, lanes));
    kb_value seen = kb_icmp(b, KB_LT, k, kb_splat(b, kb_trunc(b, pair->bound, KB_I32), lanes));
    if (t->mask.lo && t->mask.exact) {
        kb_value lo = kb_splat(b, kb_trunc(b, pair->lo, KB_I32), lanes);
        seen = kb_and(b, seen, kb_icmp(b, KB_GE, k, lo));
    }
    if (t->mask.exact)
        return seen;
    return kb_and(b, seen, kf_emit_pred(b, kf_att_key_slot(t, t->attr->mask, pair, NULL, first)));
}

/* The score of |pair| at keys |first|.., or without a normaliser its weight; |none| where it may
 * not look. */
static kb_value visible_score(kf_att *t, const kf_att_pair *pair, kb_value s, kb_value first,
                              kb_value none)
{
    kb *b = t->b;
    if (t->attr->score)
        s = kf_emit_num(b, kf_att_key_slot(t, t->attr->score, pair, s, first));
    if (t->attr->prob && !t->softmax)
        s = kb_fmul(b, s, kf_emit_num(b, kf_att_key_slot(t, t->attr->prob, pair, NULL, first)));
    return kb_select(b, visible(t, pair, first), s, none);
}

/* sums[pair][vector] = Q' * K over d, for the vectors of keys at |slot|. */
static void dot_keys(kf_att *t, const kf_att_group *g, kb_value slot, kb_value *sums)
{
    kb *b = t->b;
    const uint32_t n = g->n * g->vectors;
    kb_loop l;
    for (uint32_t i = 0; i < n; i++)
        sums[i] = kb_f32(b, t->lanes, 0.0f);
    kb_loop_begin(b, &l, kb_i64(b, 0), kb_i64(b, t->z.dim), 1, n, sums);
    kb_value keys[KF_ATT_SUMS];
    const kf_coord at = kf_kv_key_at(b, &t->kv, kf_coord_uniform(t->head, 1),
                                     kf_coord_uniform(l.iv, 1), kf_coord_uniform(slot, 1));
    kb_value p = kb_index(b, g->page, t->kv.elem, at.v);
    for (uint32_t v = 0; v < g->vectors; v++) {
        const int64_t skip = (int64_t)v * t->lanes * kb_elem_bytes(t->kv.elem);
        keys[v] = kb_load_f32(b, t->kv.elem, t->lanes, kb_offset_c(b, p, skip),
                              kb_elem_bytes(t->kv.elem));
    }
    for (uint32_t i = 0; i < g->n; i++) {
        kb_value at_q = kb_add(b, kb_muli(b, kb_addi(b, g->pair0, i), t->z.dim), l.iv);
        kb_value q = kb_splat(b, kf_att_load(t, t->z.q, at_q), t->lanes);
        for (uint32_t v = 0; v < g->vectors; v++) {
            const uint32_t j = i * g->vectors + v;
            sums[j] = kb_fma(b, q, keys[v], l.carried[j]);
        }
    }
    kb_loop_end(b, &l, sums);
    for (uint32_t i = 0; i < n; i++)
        sums[i] = l.carried[i];
}

/* P = scores; peak[pair] = their maximum. */
static void group_scores(kf_att *t, const kf_att_group *g, kb_value *peak)
{
    kb *b = t->b;
    kb_loop l;
    kb_value init[KF_ATT_PAIRS], next[KF_ATT_PAIRS], sums[KF_ATT_SUMS];
    kb_value none = kb_f32(b, t->lanes, t->softmax ? -__builtin_inff() : 0.0f);
    for (uint32_t i = 0; i < g->n; i++)
        init[i] = none;
    kb_loop_begin(b, &l, g->first, g->keys, t->lanes * g->vectors, g->n, init);
    const uint32_t mark = kf_pw_mark(&t->pw);
    dot_keys(t, g, l.iv, sums);
    for (uint32_t i = 0; i < g->n; i++) {
        next[i] = l.carried[i];
        for (uint32_t v = 0; v < g->vectors; v++) {
            kb_value slot = kb_addi(b, l.iv, (int64_t)v * t->lanes);
            kb_value s = visible_score(t, &g->pair[i], sums[i * g->vectors + v],
                                       kb_add(b, g->base, slot), none);
            kb_store(b, s, weight_cell(t, i, slot), 4);
            next[i] = t->softmax ? kb_fmax(b, s, next[i]) : next[i];
        }
    }
    kf_pw_release(&t->pw, mark);
    kb_loop_end(b, &l, next);
    for (uint32_t i = 0; t->softmax && i < g->n; i++)
        peak[i] = kb_reduce_fmax(b, l.carried[i]);
}

/* ---- weights --------------------------------------------------------------------------------- */

/* Denormal weights are nothing next to a sum of at least 1, but processors take a hundred cycles
 * for every such number, and masked keys are all of that kind. */
kb_value kf_att_weight(kb *b, kb_value x)
{
    const uint32_t lanes = kb_lanes_of(x);
    kb_value least = kb_f32(b, lanes, -87.0f);
    kb_value p = kv_exp(b, kb_fmax(b, least, x)); /* NaN stays */
    return kb_select(b, kb_fcmp(b, KB_LT, x, least), kb_f32(b, lanes, 0.0f), p);
}

/* top = m', alpha = exp(m - m'), m = m'. */
static void raise_peaks(kf_att *t, kf_att_group *g, const kb_value *peak, kb_value *top)
{
    kb *b = t->b;
    for (uint32_t i = 0; i < g->n; i++) {
        kb_value at = kf_att_state_cell(t, t->z.m, kb_addi(b, g->pair0, i));
        kb_value old = kb_load(b, KB_F32, 1, at, 4);
        kb_value m = kb_fmax(b, old, peak[i]);
        kb_store(b, m, at, 4);
        kb_value none = kb_fcmp(b, KB_EQ, m, kb_f32(b, 1, -__builtin_inff()));
        m = kb_select(b, none, kb_f32(b, 1, 0.0f), m);
        g->alpha[i] = kf_att_weight(b, kb_fsub(b, old, m));
        top[i] = kb_splat(b, m, t->lanes);
    }
}

/* |p| times the factor at keys |first|.., which never is of interest where p is 0. */
static kb_value with_factor(kf_att *t, const kf_att_pair *pair, kb_value p, kb_value first)
{
    kb *b = t->b;
    if (!t->attr->prob)
        return p;
    kb_value zero = kb_f32(b, t->lanes, 0.0f);
    kb_value by = kf_emit_num(b, kf_att_key_slot(t, t->attr->prob, pair, NULL, first));
    return kb_select(b, kb_fcmp(b, KB_EQ, p, zero), zero, kb_fmul(b, p, by));
}

/* P = exp(P - m') and the factor, l = l * alpha + sum of exp(P - m'). */
static void group_softmax(kf_att *t, kf_att_group *g, const kb_value *peak)
{
    kb *b = t->b;
    kb_loop l;
    kb_value top[KF_ATT_PAIRS], sum[KF_ATT_PAIRS];
    raise_peaks(t, g, peak, top);
    for (uint32_t i = 0; i < g->n; i++)
        sum[i] = kb_f32(b, t->lanes, 0.0f);
    kb_loop_begin(b, &l, g->first, g->keys, t->lanes * g->vectors, g->n, sum);
    const uint32_t mark = kf_pw_mark(&t->pw);
    for (uint32_t i = 0; i < g->n; i++) {
        sum[i] = l.carried[i];
        for (uint32_t v = 0; v < g->vectors; v++) {
            kb_value slot = kb_addi(b, l.iv, (int64_t)v * t->lanes);
            kb_value at = weight_cell(t, i, slot);
            kb_value p = kf_att_weight(b, kb_fsub(b, kb_load(b, KB_F32, t->lanes, at, 4), top[i]));
            kb_store(b, with_factor(t, &g->pair[i], p, kb_add(b, g->base, slot)), at, 4);
            sum[i] = kb_fadd(b, sum[i], p);
        }
    }
    kf_pw_release(&t->pw, mark);
    kb_loop_end(b, &l, sum);
    for (uint32_t i = 0; i < g->n; i++) {
        kb_value at = kf_att_state_cell(t, t->z.l, kb_addi(b, g->pair0, i));
        kb_value old = kb_fmul(b, kb_load(b, KB_F32, 1, at, 4), g->alpha[i]);
        kb_store(b, kb_fadd(b, old, kb_reduce_fadd(b, l.carried[i])), at, 4);
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* O[pair][d..] = O * alpha + sum over keys P * V, |vectors| of |lanes| columns from |d| on. */
static void weigh_columns(kf_att *t, const kf_att_group *g, kb_value d, uint32_t lanes,
                          uint32_t vectors)
{
    kb *b = t->b;
    kb_loop l;
    kb_value acc[KF_ATT_SUMS], at[KF_ATT_SUMS];
    const uint32_t n = g->n * vectors;
    for (uint32_t j = 0; j < n; j++) {
        const uint32_t i = j / vectors, v = j % vectors;
        kb_value row = kb_muli(b, kb_addi(b, g->pair0, i), t->z.dim);
        at[j] = kf_att_state_cell(t, t->z.o, kb_addi(b, kb_add(b, row, d), (int64_t)v * lanes));
        acc[j] = kb_load(b, KB_F32, lanes, at[j], 4);
        if (t->softmax)
            acc[j] = kb_fmul(b, acc[j], kb_splat(b, g->alpha[i], lanes));
    }
    kb_loop_begin(b, &l, g->first, g->keys, 1, n, acc);
    const kf_coord where = kf_kv_value_at(b, &t->kv, kf_coord_uniform(t->head, 1),
                                          kf_coord_uniform(d, 1), kf_coord_uniform(l.iv, 1));
    kb_value p = kb_index(b, g->page, t->kv.elem, where.v);
    kb_value row[KF_ATT_SUMS];
    for (uint32_t v = 0; v < vectors; v++)
        row[v] = kb_load_f32(b, t->kv.elem, lanes,
                             kb_offset_c(b, p, (int64_t)v * lanes * kb_elem_bytes(t->kv.elem)),
                             kb_elem_bytes(t->kv.elem));
    for (uint32_t i = 0; i < g->n; i++) {
        kb_value w = kb_splat(b, kb_load(b, KB_F32, 1, weight_cell(t, i, l.iv), 4), lanes);
        for (uint32_t v = 0; v < vectors; v++)
            acc[i * vectors + v] = kb_fma(b, w, row[v], l.carried[i * vectors + v]);
    }
    kb_loop_end(b, &l, acc);
    for (uint32_t j = 0; j < n; j++)
        kb_store(b, l.carried[j], at[j], 4);
}

static void weigh_span(kf_att *t, const kf_att_group *g, int64_t lo, int64_t hi, uint32_t lanes,
                       uint32_t vectors)
{
    kb_loop l;
    if (lo == hi)
        return;
    kb_loop_begin(t->b, &l, kb_i64(t->b, lo), kb_i64(t->b, hi), (int64_t)lanes * vectors, 0, NULL);
    weigh_columns(t, g, l.iv, lanes, vectors);
    kb_loop_end(t->b, &l, NULL);
}

static void group_values(kf_att *t, const kf_att_group *g)
{
    const int64_t dim = t->z.dim, singles = dim / t->lanes * t->lanes;
    int64_t done = 0;
    for (uint32_t vectors = KF_ATT_SUMS / g->n; vectors > 0; vectors /= 2) {
        const int64_t width = (int64_t)vectors * t->lanes,
                      end = done + (dim - done) / width * width;
        weigh_span(t, g, done, end, t->lanes, vectors);
        done = end;
    }
    weigh_span(t, g, singles, dim, 1, 1);
}

void kf_att_page(kf_att *t, kf_att_group *g)
{
    kb_value peak[KF_ATT_PAIRS];
    group_scores(t, g, peak);
    if (t->softmax)
        group_softmax(t, g, peak);
    group_values(t, g);
}
