/* SPDX-License-Identifier: Apache-2.0 */
#include "ir/mask_bounds.h"

#include <math.h>

/* Limits that keep the bodies below KF_SLOT_MAX_INSTS: a longer mask is not looked into, and what
 * comes after so many instructions bounds nothing. */
enum { MAX_INSTS = 48, MAX_DEPTH = 6, MAX_BUILT = 1024 };
#define NONE UINT32_MAX
/* Numbers above every position, and up to which all whole numbers are f32. */
#define BEYOND 0x1p30
#define WHOLE  0x1p24
/* Error of a sum of a few dozen f32 terms, relative to their magnitudes. */
#define SUM_ERROR 0x1p-18

/* What is known of a number: WILD ones may be NaN or infinite. */
typedef enum nature { WILD, TAME, WHOLE_NUMBER } nature;

/* slope * k + f + e with e in [e_lo, e_hi]; |f| and the magnitude of its terms are instructions of
 * the bounds, NONE for 0. */
typedef struct affine {
    bool ok;
    double slope, e_lo, e_hi;
    uint32_t f, size;
    nature nature;
} affine;

/* Keys where a condition may hold: lo <= k < hi, either NONE; exactly those if |exact|. A condition
 * without k is |when|. */
typedef struct range {
    uint32_t lo, hi, when;
    bool exact;
} range;

typedef struct analysis {
    const kf_slot *s;
    kf_slot_builder *b;
    bool uses_k[MAX_INSTS];
    nature nature[MAX_INSTS];
    uint32_t copy[MAX_INSTS];
    affine affine[MAX_INSTS];
    range range[MAX_INSTS][2]; /* of the condition and of its opposite */
    bool known[MAX_INSTS][2];
} analysis;

static const range everything = {NONE, NONE, NONE, false};
static const affine not_affine = {.f = NONE, .size = NONE};

/* ---- what instructions are ------------------------------------------------------------------- */

static bool is_fn(const kf_slot_inst *i, kf_fn fn)
{
    return i->op == KF_SLOT_FN && i->fn == fn;
}

static bool const_of(const analysis *a, uint32_t inst, double *out)
{
    *out = a->s->inst[inst].value;
    return a->s->inst[inst].op == KF_SLOT_CONST && isfinite(*out);
}

static nature nature_of_fn(const analysis *a, const kf_slot_inst *i)
{
    const nature x = a->nature[i->arg[0]];
    const nature y = i->n_args > 1 ? a->nature[i->arg[1]] : x, both = x < y ? x : y;
    double c;
    if (kf_fn_infos[i->fn].result == KF_FN_RESULT_pred)
        return WHOLE_NUMBER;
    switch (i->fn) {
    case KF_FN_add:
    case KF_FN_sub:
    case KF_FN_neg:
    case KF_FN_abs:
    case KF_FN_min:
    case KF_FN_max:
        return both;
    case KF_FN_floor:
        return x == WILD ? WILD : WHOLE_NUMBER;
    case KF_FN_mul:
        return const_of(a, i->arg[0], &c) || const_of(a, i->arg[1], &c) ? both : WILD;
    case KF_FN_div:
        return const_of(a, i->arg[1], &c) && c != 0 && x != WILD ? TAME : WILD;
    default:
        return WILD;
    }
}

static nature nature_of(const analysis *a, const kf_slot_inst *i)
{
    switch (i->op) {
    case KF_SLOT_CONST:
        return !isfinite(i->value)                                     ? WILD
               : i->value == floor(i->value) && fabs(i->value) < WHOLE ? WHOLE_NUMBER
                                                                       : TAME;
    case KF_SLOT_PARAM:
        return WHOLE_NUMBER;
    case KF_SLOT_FN:
        return nature_of_fn(a, i);
    case KF_SLOT_LOAD:
        break;
    }
    return WILD;
}

/* ---- building the bounds --------------------------------------------------------------------- */

static uint32_t number(analysis *a, double v)
{
    return kf_slot_const(a->b, v);
}

static uint32_t sum(analysis *a, uint32_t x, uint32_t y)
{
    return x == NONE ? y : y == NONE ? x : kf_slot_fn(a->b, KF_FN_add, x, y, 0);
}

static uint32_t scaled(analysis *a, uint32_t x, double c)
{
    return x == NONE || c == 1 ? x : kf_slot_fn(a->b, KF_FN_mul, x, number(a, c), 0);
}

static uint32_t magnitude(analysis *a, uint32_t x)
{
    return x == NONE ? NONE : kf_slot_fn(a->b, KF_FN_abs, x, 0, 0);
}

/* |inst|, which does not use k, as an instruction of the bounds. */
static uint32_t copied(analysis *a, uint32_t inst)
{
    const kf_slot_inst *i = &a->s->inst[inst];
    uint32_t arg[KF_SLOT_MAX_ARGS] = {0};
    if (a->copy[inst] != NONE)
        return a->copy[inst];
    for (uint8_t j = 0; j < i->n_args; j++)
        arg[j] = copied(a, i->arg[j]);
    return a->copy[inst] = i->op == KF_SLOT_CONST   ? kf_slot_const(a->b, i->value)
                           : i->op == KF_SLOT_PARAM ? kf_slot_param(a->b, i->index)
                           : i->op == KF_SLOT_LOAD
                               ? kf_slot_load(a->b, i->index, arg, i->n_args)
                               : kf_slot_fn(a->b, i->fn, arg[0], arg[1], arg[2]);
}

/* ---- numbers that are linear in k ------------------------------------------------------------ */

static affine affine_scale(analysis *a, affine x, double c)
{
    const double lo = x.e_lo * c, hi = x.e_hi * c;
    x.slope *= c;
    x.e_lo = c < 0 ? hi : lo;
    x.e_hi = c < 0 ? lo : hi;
    x.f = scaled(a, x.f, c);
    x.size = scaled(a, x.size, fabs(c));
    if (x.nature == WHOLE_NUMBER && c != floor(c))
        x.nature = TAME;
    return x;
}

static affine affine_add(analysis *a, affine x, affine y)
{
    return (affine){.ok = x.ok && y.ok,
                    .slope = x.slope + y.slope,
                    .e_lo = x.e_lo + y.e_lo,
                    .e_hi = x.e_hi + y.e_hi,
                    .f = sum(a, x.f, y.f),
                    .size = sum(a, x.size, y.size),
                    .nature = x.nature < y.nature ? x.nature : y.nature};
}

static affine affine_fn(analysis *a, const kf_slot_inst *i)
{
    const affine x = a->affine[i->arg[0]], y = i->n_args > 1 ? a->affine[i->arg[1]] : x;
    affine r = x;
    double c;
    switch (i->fn) {
    case KF_FN_neg:
        return affine_scale(a, x, -1);
    case KF_FN_add:
        return affine_add(a, x, y);
    case KF_FN_sub:
        return affine_add(a, x, affine_scale(a, y, -1));
    case KF_FN_mul:
        if (const_of(a, i->arg[0], &c) && c != 0)
            return affine_scale(a, y, c);
        return const_of(a, i->arg[1], &c) && c != 0 ? affine_scale(a, x, c) : not_affine;
    case KF_FN_div:
        return const_of(a, i->arg[1], &c) && c != 0 ? affine_scale(a, x, 1 / c) : not_affine;
    case KF_FN_floor: /* floor(x) lies in [x - 1, x] */
        r.e_lo -= x.nature == WHOLE_NUMBER ? 0 : 1;
        return r;
    default:
        return not_affine;
    }
}

static affine affine_of(analysis *a, uint32_t inst)
{
    const kf_slot_inst *i = &a->s->inst[inst];
    if (!a->uses_k[inst]) {
        const uint32_t f = copied(a, inst);
        return (affine){.ok = true, .f = f, .size = magnitude(a, f), .nature = a->nature[inst]};
    }
    if (i->op == KF_SLOT_PARAM)
        return (affine){.ok = true, .slope = 1, .f = NONE, .size = NONE, .nature = WHOLE_NUMBER};
    return i->op == KF_SLOT_FN ? affine_fn(a, i) : not_affine;
}

/* ---- conditions ------------------------------------------------------------------------------ */

/* Both bounds through |fn|, where there are both. */
static uint32_t joined(analysis *a, kf_fn fn, uint32_t x, uint32_t y, bool either)
{
    if (x == NONE || y == NONE)
        return !either ? NONE : x == NONE ? y : x;
    return kf_slot_fn(a->b, fn, x, y, 0);
}

/* |x| where the condition |p| holds, else |closed|; an open bound is |open|. */
static uint32_t gated(analysis *a, uint32_t p, uint32_t x, double open, double closed)
{
    x = x == NONE ? number(a, open) : x;
    return kf_slot_fn(a->b, KF_FN_select, p, x, number(a, closed));
}

static range both(analysis *a, range x, range y)
{
    if (x.when != NONE && y.when != NONE)
        return (range){NONE, NONE, kf_slot_fn(a->b, KF_FN_and, x.when, y.when, 0), false};
    if (x.when != NONE)
        return both(a, y, x);
    if (y.when != NONE)
        return (range){gated(a, y.when, x.lo, 0, BEYOND), gated(a, y.when, x.hi, BEYOND, 0), NONE,
                       x.exact};
    return (range){joined(a, KF_FN_max, x.lo, y.lo, true), joined(a, KF_FN_min, x.hi, y.hi, true),
                   NONE, x.exact && y.exact};
}

static range either(analysis *a, range x, range y)
{
    if (x.when != NONE && y.when != NONE)
        return (range){NONE, NONE, kf_slot_fn(a->b, KF_FN_or, x.when, y.when, 0), false};
    if (x.when != NONE)
        return either(a, y, x);
    if (y.when != NONE) {
        const uint32_t shut = kf_slot_fn(a->b, KF_FN_not, y.when, 0, 0);
        x.lo = x.lo == NONE ? NONE : gated(a, shut, x.lo, 0, 0);
        x.hi = x.hi == NONE ? NONE : gated(a, shut, x.hi, 0, BEYOND);
        return x;
    }
    /* Two half lines that open to one side leave no gap. */
    const bool one_way = (x.lo == NONE && y.lo == NONE) || (x.hi == NONE && y.hi == NONE);
    return (range){joined(a, KF_FN_min, x.lo, y.lo, false), joined(a, KF_FN_max, x.hi, y.hi, false),
                   NONE, x.exact && y.exact && one_way};
}

/* d < 0, or d <= 0 with |equal|. */
static range negative(analysis *a, affine d, bool equal)
{
    if (!d.ok || d.slope == 0 || !isfinite(d.slope) || !isfinite(d.e_lo) ||
        kf_slot_builder_len(a->b) > MAX_BUILT)
        return everything;
    const bool exact = d.nature == WHOLE_NUMBER && fabs(d.slope) == 1 && d.e_lo == 0;
    const double ends = -d.e_lo / d.slope + (exact && equal == (d.slope > 0) ? 1 : 0);
    uint32_t at = scaled(a, d.f, -1 / d.slope);
    at = ends == 0 && at != NONE ? at : sum(a, at, number(a, ends));
    if (!exact) {
        const uint32_t size = sum(a, d.size, number(a, fabs(d.e_lo)));
        const double error = SUM_ERROR / fabs(d.slope);
        at = sum(a, at, scaled(a, size, d.slope > 0 ? error : -error));
        at = kf_slot_fn(a->b, KF_FN_floor, at, 0, 0);
        at = d.slope > 0 ? sum(a, at, number(a, 1)) : at;
    }
    return d.slope > 0 ? (range){NONE, at, NONE, exact} : (range){at, NONE, NONE, exact};
}

/* An instruction or its negative. */
typedef struct side {
    uint32_t inst;
    bool neg;
} side;

static side opposite(side x)
{
    return (side){x.inst, !x.neg};
}

static range less(analysis *a, side x, side y, bool equal, uint32_t depth);

/* |x| < |y| where x is a magnitude or an extreme of two: the conditions on what it is of. */
static bool less_parts(analysis *a, side x, side y, bool equal, uint32_t depth, range *out)
{
    const kf_slot_inst *i = &a->s->inst[x.inst];
    if (depth == MAX_DEPTH || !a->uses_k[x.inst] || kf_slot_builder_len(a->b) > MAX_BUILT)
        return false;
    const bool size = is_fn(i, KF_FN_abs) && !x.neg;
    const bool greatest = is_fn(i, x.neg ? KF_FN_min : KF_FN_max);
    if (!size && !greatest && !is_fn(i, x.neg ? KF_FN_max : KF_FN_min))
        return false;
    const side first = {i->arg[0], x.neg}, second = {i->arg[size ? 0 : 1], size ? true : x.neg};
    const range one = less(a, first, y, equal, depth + 1),
                two = less(a, second, y, equal, depth + 1);
    *out = size || greatest ? both(a, one, two) : either(a, one, two);
    return true;
}

/* |x| < |y|, or <= with |equal|. */
static range less(analysis *a, side x, side y, bool equal, uint32_t depth)
{
    range r;
    if (less_parts(a, x, y, equal, depth, &r) ||
        less_parts(a, opposite(y), opposite(x), equal, depth, &r))
        return r;
    const affine small = affine_scale(a, a->affine[x.inst], x.neg ? -1 : 1);
    return negative(a, affine_add(a, small, affine_scale(a, a->affine[y.inst], y.neg ? 1 : -1)),
                    equal);
}

static range range_of(analysis *a, uint32_t inst, bool opposite);

/* |x| < |y| (or <=), or the opposite of that, which says nothing where a side may be NaN. */
static range ordered(analysis *a, uint32_t x, uint32_t y, bool equal, bool opposite)
{
    if (!opposite)
        return less(a, (side){x, false}, (side){y, false}, equal, 0);
    if (a->nature[x] == WILD || a->nature[y] == WILD)
        return everything;
    return less(a, (side){y, false}, (side){x, false}, !equal, 0);
}

static range range_of_fn(analysis *a, const kf_slot_inst *i, bool opposite)
{
    switch (i->fn) {
    case KF_FN_and:
    case KF_FN_or: {
        const range x = range_of(a, i->arg[0], opposite), y = range_of(a, i->arg[1], opposite);
        return (i->fn == KF_FN_and) != opposite ? both(a, x, y) : either(a, x, y);
    }
    case KF_FN_not:
        return range_of(a, i->arg[0], !opposite);
    case KF_FN_lt:
    case KF_FN_le:
        return ordered(a, i->arg[0], i->arg[1], i->fn == KF_FN_le, opposite);
    case KF_FN_gt:
    case KF_FN_ge:
        return ordered(a, i->arg[1], i->arg[0], i->fn == KF_FN_ge, opposite);
    case KF_FN_eq:
        return opposite ? everything
                        : both(a, ordered(a, i->arg[0], i->arg[1], true, false),
                               ordered(a, i->arg[1], i->arg[0], true, false));
    default:
        return everything;
    }
}

static range range_of(analysis *a, uint32_t inst, bool opposite)
{
    const kf_slot_inst *i = &a->s->inst[inst];
    range *r = &a->range[inst][opposite];
    if (a->known[inst][opposite])
        return *r;
    *r = everything;
    if (!a->uses_k[inst])
        r->when = opposite ? kf_slot_fn(a->b, KF_FN_not, copied(a, inst), 0, 0) : copied(a, inst);
    else if (i->op == KF_SLOT_FN)
        *r = range_of_fn(a, i, opposite);
    a->known[inst][opposite] = true;
    return *r;
}

static void read_insts(analysis *a)
{
    for (uint32_t inst = 0; inst < a->s->n_insts; inst++) {
        const kf_slot_inst *i = &a->s->inst[inst];
        a->copy[inst] = NONE;
        a->uses_k[inst] = i->op == KF_SLOT_PARAM && i->index == KF_MASK_K;
        for (uint8_t j = 0; j < i->n_args; j++)
            a->uses_k[inst] |= a->uses_k[i->arg[j]];
        a->nature[inst] = nature_of(a, i);
        a->affine[inst] = affine_of(a, inst);
    }
}

kf_mask_bounds kf_mask_bounds_of(kf_arena *arena, const kf_slot *mask)
{
    static const char *const names[] = {"h", "q"};
    if (!mask)
        return (kf_mask_bounds){.exact = true};
    if (mask->n_insts > MAX_INSTS)
        return (kf_mask_bounds){.exact = false};
    analysis *a = KF_NEW(arena, analysis);
    a->s = mask;
    a->b = kf_slot_builder_create(arena, 2, names, mask->captures);
    read_insts(a);
    range r = range_of(a, mask->n_insts - 1, false);
    if (r.when != NONE) /* the same for every key */
        r = (range){NONE, gated(a, r.when, NONE, BEYOND, 0), NONE, true};
    kf_mask_bounds out = {.exact = r.exact};
    /* Both come from one builder: finishing the first takes what it needs. */
    out.lo = r.lo == NONE ? NULL : kf_slot_finish(a->b, r.lo);
    out.hi = r.hi == NONE ? NULL : kf_slot_finish(a->b, r.hi);
    return out;
}
