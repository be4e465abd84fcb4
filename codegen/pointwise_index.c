/* SPDX-License-Identifier: Apache-2.0 */
/* Index ops of pointwise code: each turns the coordinates of its result into those of its operand.
 */
#include "base/check.h"
#include "codegen/fn_emit.h"
#include "codegen/pointwise.h"
#include "ir/rope.h"

/* ---- reshape --------------------------------------------------------------------------------- */

/* Dims out[o0..o1) and in[i0..i1) hold the same elements: through the linear index of the group. */
static void regroup(kf_pw *pw, const kf_type *to, uint32_t o0, uint32_t o1, const kf_coord *ix,
                    const kf_type *from, uint32_t i0, uint32_t i1, kf_coord *out)
{
    if (o1 - o0 == 1 && i1 - i0 == 1) {
        out[i0] = ix[o0];
        return;
    }
    kf_coord at = ix[o0];
    for (uint32_t o = o0 + 1; o < o1; o++)
        at = kf_coord_add(pw->b, kf_coord_muli(pw->b, at, to->dim[o].size), ix[o]);
    for (uint32_t i = i1; i-- > i0 + 1;) {
        out[i] = kf_coord_modi(pw->b, at, from->dim[i].size);
        at = kf_coord_divi(pw->b, at, from->dim[i].size);
    }
    out[i0] = at;
}

static void reshape(kf_pw *pw, const kf_type *to, const kf_type *from, const kf_coord *ix,
                    kf_coord *out)
{
    uint32_t o = 0, i = 0;
    for (uint32_t d = 0; d < from->rank; d++)
        out[d] = kf_coord_const(pw->b, 0);
    while (i < from->rank && o < to->rank) {
        const bool dynamic = !kf_dim_is_static(from->dim[i]) || !kf_dim_is_static(to->dim[o]);
        if (dynamic && kf_dim_is_one(from->dim[i])) {
            i++;
        } else if (dynamic && kf_dim_is_one(to->dim[o])) {
            o++;
        } else if (dynamic) {
            out[i++] = ix[o++];
        } else {
            const uint32_t i0 = i, o0 = o;
            int64_t a = from->dim[i++].size, b = to->dim[o++].size;
            while (a != b) {
                if (a < b)
                    a *= from->dim[i++].size;
                else
                    b *= to->dim[o++].size;
            }
            regroup(pw, to, o0, o, ix, from, i0, i, out);
        }
    }
}

/* ---- concat ---------------------------------------------------------------------------------- */

typedef struct join {
    uint32_t axis;
    bool whole; /* no vector straddles two parts */
} join;

static bool parts_whole(kf_pw *pw, const kf_node *n, uint32_t axis, const kf_coord *x)
{
    bool whole = x->kind != KF_COORD_VECTOR;
    int64_t start = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const int64_t size = kf_value_type(pw->g, n->in[i])->dim[axis].size;
        if (x->kind == KF_COORD_RAMP)
            whole = whole && x->stride == 1 && start % x->lanes == 0 && size % x->lanes == 0 &&
                    kf_coord_within(x, x->lanes);
        start += size;
    }
    return whole;
}

static kb_value below(kb *b, kf_coord x, int64_t limit, bool whole)
{
    kb_value v = whole ? x.v : kf_coord_lanes(b, x);
    return kb_icmp(b, KB_LT, v, kb_int(b, KB_I64, kb_lanes_of(v), limit));
}

static kb_value pick(kb *b, kb_value cond, kb_value x, kb_value y)
{
    uint32_t lanes = kb_lanes_of(cond);
    lanes = kb_lanes_of(x) > lanes ? kb_lanes_of(x) : lanes;
    lanes = kb_lanes_of(y) > lanes ? kb_lanes_of(y) : lanes;
    x = kb_lanes_of(x) < lanes ? kb_splat(b, x, lanes) : x;
    y = kb_lanes_of(y) < lanes ? kb_splat(b, y, lanes) : y;
    return kb_select(b, cond, x, y);
}

/* All parts are read, each at coordinates clamped into it; the right one is selected. */
static kb_value concat(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    const uint32_t axis = (uint32_t)KF_ATTR_OF(n, axis)->axis;
    const uint32_t rank = kf_value_type(pw->g, n->out[0])->rank;
    const bool whole = parts_whole(pw, n, axis, &ix[axis]);
    kf_coord at[KF_MAX_RANK];
    for (uint32_t d = 0; d < rank; d++)
        at[d] = ix[d];
    kb_value out = NULL;
    int64_t start = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const int64_t size = kf_value_type(pw->g, n->in[i])->dim[axis].size;
        kb_value hi = pw->b ? kb_i64(pw->b, size - 1) : NULL;
        at[axis] = kf_coord_clamp(pw->b, kf_coord_addi(pw->b, ix[axis], -start), hi, whole);
        kb_value v = kf_pw_value(pw, n->in[i], at);
        if (v && out)
            v = pick(pw->b, below(pw->b, ix[axis], start, whole), out, v);
        out = v;
        start += size;
    }
    return kf_pw_any_later(ix, rank) ? NULL : out;
}

/* ---- gather ---------------------------------------------------------------------------------- */

static kb_value gather(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    const uint32_t rank = kf_value_type(pw->g, n->in[0])->rank;
    const uint32_t id_rank = kf_value_type(pw->g, n->in[1])->rank;
    kf_coord at[KF_MAX_RANK];
    kb_value id = kf_pw_value(pw, n->in[1], ix);
    const uint32_t lanes = kf_pw_lanes_of(ix, id_rank);
    at[0] = kf_coord_later();
    if (!kf_pw_any_later(ix, id_rank) && (id || !pw->b))
        at[0] = kf_coord_from_i32(pw->b, id, id ? kb_lanes_of(id) : lanes);
    for (uint32_t d = 1; d < rank; d++)
        at[d] = ix[id_rank + d - 1];
    return kf_pw_value(pw, n->in[0], at);
}

kb_value kf_pw_index_op(kf_pw *pw, const kf_node *n, kf_value v, const kf_coord *ix)
{
    const kf_type *to = kf_value_type(pw->g, v);
    const kf_type *from = kf_value_type(pw->g, n->in[0]);
    kf_coord at[KF_MAX_RANK];
    for (uint32_t d = 0; d < to->rank; d++)
        at[d] = ix[d];
    switch (n->op) {
    case KF_OP_concat:
        return concat(pw, n, ix);
    case KF_OP_gather:
        return gather(pw, n, ix);
    case KF_OP_reshape:
        reshape(pw, to, from, ix, at);
        break;
    case KF_OP_expand:
        kf_pw_broadcast(pw, from, to, ix, at);
        break;
    case KF_OP_transpose:
        for (uint32_t d = 0; d < to->rank; d++)
            at[KF_ATTR_OF(n, perm)->perm.v[d]] = ix[d];
        break;
    case KF_OP_slice: {
        const kf_attr_slice *s = KF_ATTR_OF(n, slice);
        at[s->axis] = kf_coord_addi(pw->b, ix[s->axis], s->start);
        break;
    }
    default:
        KF_ASSERT(false, "not an index op");
    }
    return kf_pw_value(pw, n->in[0], at);
}

/* ---- rope ------------------------------------------------------------------------------------ */

typedef struct rotation {
    kf_coord pair;    /* of the table */
    kf_coord partner; /* the other coordinate of the pair */
    kb_value first;   /* i1: the coordinate is the first of its pair */
    kb_value inside;  /* i1: below the rotated part; NULL: always */
} rotation;

static kb_value compare(kb *b, kb_cmp op, kf_coord x, int64_t c)
{
    kb_value v = kf_coord_lanes(b, x);
    return kb_icmp(b, op, v, kb_int(b, KB_I64, kb_lanes_of(v), c));
}

/* Pairs (i, i + half). */
static rotation rotate_half(kf_pw *pw, kf_coord d, int64_t half)
{
    kb *b = pw->b;
    rotation r = {.pair = kf_coord_modi(b, d, half)};
    kf_coord part = kf_coord_divi(b, d, half);
    kf_coord shift = part;
    shift.divisor = part.kind == KF_COORD_UNIFORM ? half : 1;
    shift.rest = 0;
    if (b && d.kind != KF_COORD_LATER) {
        r.first = compare(b, KB_EQ, part, 0);
        r.inside = compare(b, KB_LT, part, 2);
        const uint32_t lanes = kb_lanes_of(r.first);
        shift.v =
            kb_select(b, r.first, kb_int(b, KB_I64, lanes, half), kb_int(b, KB_I64, lanes, 0));
        if (part.kind == KF_COORD_RAMP)
            shift.kind = KF_COORD_VECTOR;
    }
    r.partner = kf_coord_add(b, r.pair, shift);
    return r;
}

/* Pairs (2i, 2i + 1). */
static rotation rotate_interleaved(kf_pw *pw, kf_coord d, int64_t half)
{
    kb *b = pw->b;
    kf_coord odd = kf_coord_modi(b, d, 2);
    kb_value last = b ? kb_i64(b, half - 1) : NULL;
    rotation r = {.pair = kf_coord_clamp(b, kf_coord_divi(b, d, 2), last, false)};
    r.partner = kf_coord_add(b, kf_coord_addi(b, d, 1), kf_coord_muli(b, odd, -2));
    if (b && d.kind != KF_COORD_LATER) {
        r.first = compare(b, KB_EQ, odd, 0);
        r.inside = compare(b, KB_LT, d, 2 * half);
    }
    return r;
}

/* Neighbouring lanes change places. */
static kb_value swap_pairs(kb *b, kb_value x)
{
    int32_t mask[64];
    const uint32_t lanes = kb_lanes_of(x);
    for (uint32_t i = 0; i < lanes; i++)
        mask[i] = (int32_t)(i ^ 1);
    return lanes == 1 ? x : kb_shuffle(b, x, x, mask, lanes);
}

kb_value kf_pw_rope(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    kb *b = pw->b;
    const int64_t half = kf_value_type(pw->g, n->in[1])->dim[1].size;
    const int64_t size = kf_value_type(pw->g, n->out[0])->dim[2].size;
    const bool interleaved = KF_ATTR_OF(n, rope)->style == KF_STYLE_INTERLEAVED;
    const kf_coord d = ix[2];
    rotation r = interleaved ? rotate_interleaved(pw, d, half) : rotate_half(pw, d, half);
    const bool swap =
        interleaved && d.kind == KF_COORD_RAMP && d.divisor % 2 == 0 && d.rest % 2 == 0;
    kf_coord other[3] = {ix[0], ix[1], r.partner};
    kf_coord cos_at[3] = {ix[0], r.pair, kf_coord_const(b, 0)};
    kf_coord sin_at[3] = {ix[0], r.pair, kf_coord_const(b, 1)};
    const uint32_t lanes = kf_pw_lanes_of(ix, 3);
    kb_value x = kf_pw_number(pw, n->in[0], ix, lanes);
    kb_value y = swap ? NULL : kf_pw_number(pw, n->in[0], other, lanes);
    kb_value c = kf_pw_number(pw, n->in[1], cos_at, lanes);
    kb_value s = kf_pw_number(pw, n->in[1], sin_at, lanes);
    if (!b || kf_pw_any_later(ix, 3))
        return NULL;
    y = swap ? swap_pairs(b, x) : y;
    y = pick(b, r.first, kb_fneg(b, y), y);
    kb_value out = kb_fma(b, y, s, kb_fmul(b, x, c));
    return 2 * half < size ? pick(b, r.inside, out, x) : out;
}

/* Angles are f32 products of position and frequency, as in every form of Kerf. */
kb_value kf_pw_rope_table(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    kb *b = pw->b;
    const kf_attr_rope_table *attr = KF_ATTR_OF(n, rope_table);
    const uint32_t half = (uint32_t)(attr->dim / 2), lanes = kf_pw_lanes_of(ix, 3);
    kb_value pos = kf_pw_number(pw, n->in[0], ix, lanes);
    if (!b || kf_pw_any_later(ix, 3))
        return NULL;
    float *freq = KF_NEW_N(pw->arena, float, half);
    for (uint32_t i = 0; i < half; i++)
        freq[i] = kf_rope_freq(attr, i);
    kb_value table = kb_table_f32(b, freq, half);
    kb_value f = kf_pw_load(pw, KF_DTYPE_f32, table, ix[1]);
    if (kb_lanes_of(f) < lanes)
        f = kb_splat(b, f, lanes);
    kb_value angle = kb_fmul(b, pos, f);
    kb_value args[3] = {angle};
    kb_value c = kf_emit_fn(b, KF_FN_cos, args), s = kf_emit_fn(b, KF_FN_sin, args);
    return pick(b, compare(b, KB_EQ, ix[2], 0), c, s);
}
