/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/kv.h"

#include "base/check.h"

kf_kv kf_kv_of(kf_pw *pw, kf_value v)
{
    const kf_node *append = kf_value_is(pw->g, v, KF_OP_kv_append);
    if (append)
        v = append->in[0];
    const kf_value_info *info = &pw->g->values.data[v];
    KF_ASSERT(info->kind == KF_VALUE_ARG, "a cache reaches a kernel as an argument");
    kf_kv kv = {.type = &info->type, .elem = kf_pw_elem(info->type.dtype)};
    kv.page_stride_bytes = kf_kvcache_page_bytes(&info->type) * (int64_t)pw->kv_layers;
    kv.base = pw->b ? kb_ptr(pw->b, info->def) : NULL;
    return kv;
}

kb_value kf_kv_page(kb *b, const kf_kv *kv, kb_value page_id)
{
    return kb_offset(b, kv->base, kb_muli(b, kb_sext(b, page_id, KB_I64), kv->page_stride_bytes));
}

kb_value kf_kv_page_id(kf_pw *pw, kf_value pages, kb_value seq, kb_value pos, uint32_t page_tokens)
{
    const kf_coord at[2] = {kf_coord_uniform(seq, 1),
                            kf_coord_uniform(kb_udiv(pw->b, pos, kb_i64(pw->b, page_tokens)), 1)};
    return kf_pw_value(pw, pages, at);
}

kf_coord kf_kv_key_at(kb *b, const kf_kv *kv, kf_coord head, kf_coord d, kf_coord slot)
{
    kf_coord row = kf_coord_add(b, kf_coord_muli(b, head, kv->type->kv_head_dim), d);
    return kf_coord_add(b, kf_coord_muli(b, row, kv->type->kv_page), slot);
}

kf_coord kf_kv_value_at(kb *b, const kf_kv *kv, kf_coord head, kf_coord d, kf_coord slot)
{
    const int64_t keys = (int64_t)kv->type->kv_heads * kv->type->kv_head_dim * kv->type->kv_page;
    kf_coord row = kf_coord_add(b, kf_coord_muli(b, head, kv->type->kv_page), slot);
    kf_coord at = kf_coord_add(b, kf_coord_muli(b, row, kv->type->kv_head_dim), d);
    return kf_coord_addi(b, at, keys);
}

static kb_value load_int(kf_pw *pw, kf_value v, kb_value index)
{
    const kf_coord at = kf_coord_uniform(index, 1);
    return kb_sext(pw->b, kf_pw_value(pw, v, &at), KB_I64);
}

/* The row behind the last sequence is N: seq_start has one entry a sequence. */
kb_value kf_kv_new_tokens(kf_pw *pw, kf_value seq_start, kb_value seq)
{
    kb *b = pw->b;
    kb_value next = kb_addi(b, seq, 1);
    kb_value last = kb_icmp(b, KB_GE, next, kb_dim(b, KF_SYM_S));
    kb_value end = load_int(pw, seq_start, kb_select(b, last, seq, next));
    end = kb_select(b, last, kb_dim(b, KF_SYM_N), end);
    return kb_sub(b, end, load_int(pw, seq_start, seq));
}

kb_value kf_kv_keys(kf_pw *pw, kf_value seq_start, kf_value past, bool stored, kb_value seq)
{
    kb_value keys = load_int(pw, past, seq);
    return stored ? keys : kb_add(pw->b, keys, kf_kv_new_tokens(pw, seq_start, seq));
}

/* ---- append ---------------------------------------------------------------------------------- */

typedef struct append {
    kf_pw *pw;
    kf_value value; /* [N, heads, D] */
    int plane;
    kf_kv kv;
    kb_value page;
    kf_coord row, head, slot;
} append;

/* Keys: one page row per d, so lane by lane. */
static void store_keys(append *a, kb_value v, kb_value d0, uint32_t lanes)
{
    kb *b = a->pw->b;
    for (uint32_t i = 0; i < lanes; i++) {
        const kf_coord d = kf_coord_uniform(kb_addi(b, d0, i), 1);
        kb_value x = lanes > 1 ? kb_extract(b, v, i) : v;
        kf_pw_store(a->pw, KF_DTYPE_f32, x, a->kv.type->dtype, a->page,
                    kf_kv_key_at(b, &a->kv, a->head, d, a->slot));
    }
}

static void store_span(append *a, kb_value lo, kb_value hi, uint32_t lanes)
{
    kf_pw *pw = a->pw;
    kb *b = pw->b;
    kb_loop l;
    kb_loop_begin(b, &l, lo, hi, lanes, 0, NULL);
    const uint32_t mark = kf_pw_mark(pw);
    const kf_coord ix[3] = {a->row, a->head, kf_coord_ramp(l.iv, lanes, lanes)};
    kb_value v = kf_pw_number(pw, a->value, ix, lanes);
    if (a->plane == KF_PLANE_KEYS)
        store_keys(a, v, l.iv, lanes);
    else
        kf_pw_store(pw, KF_DTYPE_f32, v, a->kv.type->dtype, a->page,
                    kf_kv_value_at(b, &a->kv, a->head, ix[2], a->slot));
    kf_pw_release(pw, mark);
    kb_loop_end(b, &l, NULL);
}

static void store_head(append *a)
{
    kf_pw *pw = a->pw;
    const int64_t size = a->kv.type->kv_head_dim;
    uint32_t lanes = kb_lanes(pw->b);
    kf_coord ix[3] = {a->row, a->head, kf_coord_ramp(NULL, lanes, lanes)};
    if (!kf_pw_feasible(pw, a->value, ix))
        lanes = 1;
    ix[2] = kf_coord_later();
    kf_pw_prepare(pw, a->value, ix);
    const int64_t whole = size / lanes * lanes;
    if (whole)
        store_span(a, kb_i64(pw->b, 0), kb_i64(pw->b, whole), lanes);
    if (whole < size)
        store_span(a, kb_i64(pw->b, whole), kb_i64(pw->b, size), 1);
}

void kf_kv_append_row(kf_pw *pw, const kf_node *n, int plane, kf_coord row, kb_value head_lo,
                      kb_value head_hi)
{
    kb *b = pw->b;
    append a = {.pw = pw, .plane = plane, .kv = kf_kv_of(pw, n->in[0]), .row = row};
    a.value = n->in[plane == KF_PLANE_KEYS ? 1 : 2];
    const uint32_t mark = kf_pw_mark(pw);
    kb_value pos = kb_sext(b, kf_pw_value(pw, n->in[3], &row), KB_I64);
    kb_value seq = kb_sext(b, kf_pw_value(pw, n->in[4], &row), KB_I64);
    a.page = kf_kv_page(b, &a.kv, kf_kv_page_id(pw, n->in[5], seq, pos, a.kv.type->kv_page));
    a.slot = kf_coord_uniform(kb_urem(b, pos, kb_i64(b, a.kv.type->kv_page)), 1);
    const kf_coord ix[3] = {row, kf_coord_later(), kf_coord_later()};
    kf_pw_prepare(pw, a.value, ix);
    kb_loop heads;
    kb_loop_begin(b, &heads, head_lo, head_hi, 1, 0, NULL);
    const uint32_t inner = kf_pw_mark(pw);
    a.head = kf_coord_uniform(heads.iv, 1);
    store_head(&a);
    kf_pw_release(pw, inner);
    kb_loop_end(b, &heads, NULL);
    kf_pw_release(pw, mark);
}

/* ---- reading by row of all keys in view ------------------------------------------------------ */

/* Sequence and position of row |k| of kv_read or kv_index |n|, whose view starts at operand
 * |first|: a walk over the sequences. */
static void locate(kf_pw *pw, const kf_node *n, uint32_t first, kb_value k, kb_value *out)
{
    kb *b = pw->b;
    kb_value init[3] = {kb_i64(b, 0), kb_i64(b, 0),
                        kb_i64(b, 0)}; /* keys before, sequence, position */
    kb_loop l;
    kb_loop_begin(b, &l, kb_i64(b, 0), kb_dim(b, KF_SYM_S), 1, 3, init);
    const uint32_t mark = kf_pw_mark(pw);
    kb_value keys =
        kf_kv_keys(pw, n->in[first], n->in[first + 1], KF_ATTR_OF(n, kv_read)->stored, l.iv);
    kb_value end = kb_add(b, l.carried[0], keys);
    kb_value here = kb_and(b, kb_icmp(b, KB_GE, k, l.carried[0]), kb_icmp(b, KB_LT, k, end));
    kb_value next[3] = {end, kb_select(b, here, l.iv, l.carried[1]),
                        kb_select(b, here, kb_sub(b, k, l.carried[0]), l.carried[2])};
    kf_pw_release(pw, mark);
    kb_loop_end(b, &l, next);
    out[0] = l.carried[1];
    out[1] = l.carried[2];
}

/* |at|: the coordinate of the key; false while it is not a single known one. */
static bool place(kf_pw *pw, const kf_node *n, uint32_t first, const kf_coord *at, kb_value *out)
{
    if (at->kind == KF_COORD_RAMP || at->kind == KF_COORD_VECTOR)
        pw->infeasible = true;
    if (!pw->b || at->kind == KF_COORD_LATER)
        return false;
    const kf_pw_memo *m = kf_pw_find(pw, n->out[0], KF_PW_PLACE, at, 1);
    if (m) {
        out[0] = m->out[0];
        out[1] = m->out[1];
        return true;
    }
    locate(pw, n, first, at->v, out);
    kf_pw_remember(pw, n->out[0], KF_PW_PLACE, at, 1, 2, out);
    return true;
}

kb_value kf_pw_kv_index(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    kb_value at[2];
    if (!place(pw, n, 0, ix, at))
        return NULL;
    return kb_trunc(pw->b, KF_ATTR_OF(n, kv_read)->plane == KF_PLANE_SEQ ? at[0] : at[1], KB_I32);
}

kb_value kf_pw_kv_read(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    kb *b = pw->b;
    kb_value at[2];
    if (!place(pw, n, 1, ix, at) || kf_pw_any_later(ix, 3))
        return NULL;
    kf_kv kv = kf_kv_of(pw, n->in[0]);
    kb_value page = kf_kv_page(b, &kv, kf_kv_page_id(pw, n->in[3], at[0], at[1], kv.type->kv_page));
    const kf_coord slot = kf_coord_uniform(kb_urem(b, at[1], kb_i64(b, kv.type->kv_page)), 1);
    const bool keys = KF_ATTR_OF(n, kv_read)->plane == KF_PLANE_KEYS;
    kf_coord where = keys ? kf_kv_key_at(b, &kv, ix[1], ix[2], slot)
                          : kf_kv_value_at(b, &kv, ix[1], ix[2], slot);
    return kf_pw_load(pw, kv.type->dtype, page, where);
}
