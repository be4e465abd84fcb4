/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/coord.h"

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        const int64_t t = a % b;
        a = b;
        b = t;
    }
    return a;
}

/* Beyond KF_COORD_ANY only the power of two is kept: a smaller divisor is only less knowledge. */
static void set_divisor(kf_coord *x, int64_t divisor, int64_t rest)
{
    x->divisor = divisor > KF_COORD_ANY ? gcd(divisor, KF_COORD_ANY) : divisor;
    x->rest = rest % x->divisor;
    if (x->rest < 0)
        x->rest += x->divisor;
}

kf_coord kf_coord_const(kb *b, int64_t value)
{
    kf_coord x = {.kind = KF_COORD_UNIFORM, .lanes = 1};
    x.divisor = KF_COORD_ANY;
    x.rest = value & (KF_COORD_ANY - 1);
    x.v = b ? kb_i64(b, value) : NULL;
    return x;
}

kf_coord kf_coord_uniform(kb_value v, int64_t divisor)
{
    return (kf_coord){.kind = KF_COORD_UNIFORM, .lanes = 1, .divisor = divisor, .v = v};
}

kf_coord kf_coord_ramp(kb_value v, uint32_t lanes, int64_t divisor)
{
    kf_coord x = kf_coord_uniform(v, divisor);
    if (lanes > 1) {
        x.kind = KF_COORD_RAMP;
        x.lanes = lanes;
        x.stride = 1;
    }
    return x;
}

kf_coord kf_coord_from_i32(kb *b, kb_value v, uint32_t lanes)
{
    kf_coord x = kf_coord_uniform(b ? kb_sext(b, v, KB_I64) : NULL, 1);
    if (lanes > 1) {
        x.kind = KF_COORD_VECTOR;
        x.lanes = lanes;
    }
    return x;
}

kf_coord kf_coord_later(void)
{
    return (kf_coord){.kind = KF_COORD_LATER, .lanes = 1, .divisor = 1};
}

kb_value kf_coord_lanes(kb *b, kf_coord x)
{
    if (x.kind != KF_COORD_RAMP)
        return x.v;
    kb_value steps = kb_muli(b, kb_iota(b, KB_I64, x.lanes), x.stride);
    return kb_add(b, kb_splat(b, x.v, x.lanes), steps);
}

static kb_value spread(kb *b, kf_coord x, uint32_t lanes)
{
    kb_value v = kf_coord_lanes(b, x);
    return kb_lanes_of(v) == lanes ? v : kb_splat(b, v, lanes);
}

kf_coord kf_coord_add(kb *b, kf_coord x, kf_coord y)
{
    if (x.kind == KF_COORD_LATER || y.kind == KF_COORD_LATER)
        return kf_coord_later();
    kf_coord r = x;
    r.lanes = x.lanes > y.lanes ? x.lanes : y.lanes;
    if (x.kind == KF_COORD_VECTOR || y.kind == KF_COORD_VECTOR) {
        r.kind = KF_COORD_VECTOR;
        r.v = b ? kb_add(b, spread(b, x, r.lanes), spread(b, y, r.lanes)) : NULL;
        return r;
    }
    r.stride = x.stride + y.stride;
    r.kind = r.lanes > 1 ? KF_COORD_RAMP : KF_COORD_UNIFORM;
    set_divisor(&r, gcd(x.divisor, y.divisor), x.rest + y.rest);
    r.v = b ? kb_add(b, x.v, y.v) : NULL;
    return r;
}

kf_coord kf_coord_addi(kb *b, kf_coord x, int64_t c)
{
    if (x.kind == KF_COORD_LATER || c == 0)
        return x;
    if (x.kind != KF_COORD_VECTOR)
        set_divisor(&x, x.divisor, x.rest + c % x.divisor);
    x.v = b ? kb_addi(b, x.v, c) : NULL;
    return x;
}

kf_coord kf_coord_muli(kb *b, kf_coord x, int64_t c)
{
    if (x.kind == KF_COORD_LATER || c == 1)
        return x;
    if (c == 0)
        return kf_coord_const(b, 0);
    x.stride *= c;
    if (c > 0 && x.divisor <= KF_COORD_ANY / c)
        set_divisor(&x, x.divisor * c, x.rest * c);
    else
        set_divisor(&x, 1, 0);
    x.v = b ? kb_muli(b, x.v, c) : NULL;
    return x;
}

kf_coord kf_coord_scale(kb *b, kf_coord x, kb_value c)
{
    int64_t known;
    if (x.kind == KF_COORD_LATER)
        return x;
    if (b && kb_is_const(c, &known))
        return kf_coord_muli(b, x, known);
    kf_coord r = x;
    if (b)
        r.v = kb_mul(b, kf_coord_lanes(b, x), x.lanes > 1 ? kb_splat(b, c, x.lanes) : c);
    if (x.kind == KF_COORD_RAMP)
        r.kind = KF_COORD_VECTOR;
    r.stride = 0;
    set_divisor(&r, 1, 0);
    return r;
}

bool kf_coord_within(const kf_coord *x, int64_t c)
{
    if (x->kind == KF_COORD_UNIFORM)
        return true;
    if (x->kind != KF_COORD_RAMP || x->stride != 1)
        return false;
    const int64_t step = gcd(x->divisor, c);
    return x->rest % step + x->lanes <= step;
}

static kf_coord quotient(kb *b, kf_coord x, int64_t c, bool rem)
{
    kf_coord r = x;
    r.kind = KF_COORD_VECTOR;
    r.stride = 0;
    r.divisor = 1;
    r.rest = 0;
    if (b) {
        kb_value v = kf_coord_lanes(b, x);
        kb_value by = kb_int(b, KB_I64, x.lanes, c);
        r.v = rem ? kb_urem(b, v, by) : kb_udiv(b, v, by);
    }
    return r;
}

kf_coord kf_coord_divi(kb *b, kf_coord x, int64_t c)
{
    if (x.kind == KF_COORD_LATER || c == 1)
        return x;
    const bool even = x.kind == KF_COORD_RAMP && x.stride % c == 0;
    if (!even && !kf_coord_within(&x, c))
        return quotient(b, x, c, false);
    x.stride = even ? x.stride / c : 0;
    x.kind = x.stride ? KF_COORD_RAMP : KF_COORD_UNIFORM;
    x.lanes = x.stride ? x.lanes : 1;
    if (x.divisor % c == 0)
        set_divisor(&x, x.divisor / c, x.rest / c);
    else
        set_divisor(&x, 1, 0);
    x.v = b ? kb_udiv(b, x.v, kb_i64(b, c)) : NULL;
    return x;
}

kf_coord kf_coord_modi(kb *b, kf_coord x, int64_t c)
{
    if (x.kind == KF_COORD_LATER)
        return x;
    if (c == 1)
        return kf_coord_const(b, 0);
    const bool even = x.kind == KF_COORD_RAMP && x.stride % c == 0;
    if (!even && !kf_coord_within(&x, c))
        return quotient(b, x, c, true);
    if (even) {
        x.kind = KF_COORD_UNIFORM;
        x.stride = 0;
        x.lanes = 1;
    }
    if (x.divisor % c == 0 && b) {
        kf_coord known = kf_coord_const(b, x.rest % c);
        if (x.kind == KF_COORD_UNIFORM)
            return known;
    }
    set_divisor(&x, gcd(x.divisor, c), x.rest);
    x.v = b ? kb_urem(b, x.v, kb_i64(b, c)) : NULL;
    return x;
}

kf_coord kf_coord_clamp(kb *b, kf_coord x, kb_value hi, bool whole)
{
    if (x.kind == KF_COORD_LATER)
        return x;
    if (x.kind == KF_COORD_RAMP && !whole) {
        x.v = b ? kf_coord_lanes(b, x) : NULL;
        x.kind = KF_COORD_VECTOR;
    }
    if (b) {
        kb_value zero = kb_i64(b, 0);
        if (x.kind == KF_COORD_RAMP)
            hi = kb_addi(b, hi, 1 - (int64_t)x.lanes);
        if (x.kind == KF_COORD_VECTOR) {
            zero = kb_splat(b, zero, x.lanes);
            hi = kb_splat(b, hi, x.lanes);
        }
        x.v = kb_min(b, kb_max(b, x.v, zero), hi);
    }
    if (x.kind == KF_COORD_RAMP)
        set_divisor(&x, gcd(x.divisor, x.lanes), x.rest);
    else
        set_divisor(&x, 1, 0);
    return x;
}

bool kf_coord_same(const kf_coord *x, const kf_coord *y)
{
    if (x->kind != y->kind || x->lanes != y->lanes || x->v != y->v)
        return false;
    return x->kind != KF_COORD_RAMP ||
           (x->stride == y->stride && x->divisor == y->divisor && x->rest == y->rest);
}
