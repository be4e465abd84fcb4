/* SPDX-License-Identifier: Apache-2.0 */
/* element_mul - products and powers of e in their normal form. */
#include "passes/element_impl.h"

#include <math.h>
#include <string.h>

/* ---- products -------------------------------------------------------------------------------- */

static void mul_number(kf_el_product *p, double num, double den, double power)
{
    if (power < 0) {
        double t = num;
        num = den;
        den = t;
    }
    p->num *= pow(num, fabs(power));
    p->den *= pow(den, fabs(power));
    kf_el_quotient(&p->num, &p->den);
}

static void mul_exponent(kf_els *e, kf_el_product *p, kf_el x, double factor)
{
    kf_el_sum s = {0};

    if (p->exponent != KF_NO_EL)
        kf_el_sum_add(e, &s, p->exponent, 1, 1);
    kf_el_sum_add(e, &s, x, factor, 1);
    p->exponent = kf_el_sum_of(e, &s);
    if (kf_el_is_number(e, p->exponent, 0))
        p->exponent = KF_NO_EL;
}

static void mul_part(kf_els *e, kf_el_product *p, kf_el x, double power)
{
    uint8_t at = 0;

    while (at < p->n && p->part[at].el != x)
        at++;
    if (at == KF_MAX_PARTS) {
        e->full = true;
        return;
    }
    if (at == p->n)
        p->part[p->n++] = (kf_el_part){x, 0, 1};
    p->part[at].num += power;
    if (p->part[at].num == 0)
        p->part[at] = p->part[--p->n];
}

/* What the exponents of all parts of a sum have in common: e^a x + e^a y = e^a (x + y). NO_EL if
 * nothing. */
static kf_el common_exponent(kf_els *e, const kf_el_node *sum)
{
    kf_el_sum common = {0};

    for (uint8_t i = 0; i < sum->n_part; i++) {
        kf_el_product p;
        kf_el_sum terms = {0};
        kf_el_factor(e, sum->part[i].el, &p);
        if (p.exponent == KF_NO_EL)
            return KF_NO_EL;
        kf_el_sum_add(e, &terms, p.exponent, 1, 1);
        if (i == 0) {
            common = terms;
            common.number = 0;
            continue;
        }
        for (uint8_t k = common.n; k-- > 0;) {
            uint8_t j = 0;
            while (j < terms.n && (terms.part[j].el != common.part[k].el ||
                                   terms.part[j].num != common.part[k].num ||
                                   terms.part[j].den != common.part[k].den))
                j++;
            if (j == terms.n)
                common.part[k] = common.part[--common.n];
        }
    }
    return common.n ? kf_el_sum_of(e, &common) : KF_NO_EL;
}

/* A sum as a factor: common exponents and the coefficient of its first part stand outside. */
static void mul_sum(kf_els *e, kf_el_product *p, kf_el x, double power)
{
    const kf_el_node n = *kf_el_at(e, x);
    kf_el common = n.number == 0 ? common_exponent(e, &n) : KF_NO_EL;
    const kf_el_part first = n.part[0];
    kf_el_sum rest = {.number = n.number * first.den / first.num};

    if (n.n_part == 1 && n.number == 0) {
        mul_number(p, first.num, first.den, power);
        kf_el_product_mul(e, p, first.el, power);
        return;
    }
    for (uint8_t i = 0; i < n.n_part; i++) {
        kf_el_product each = KF_EL_ONE;
        kf_el_product_mul(e, &each, n.part[i].el, 1);
        if (common != KF_NO_EL)
            mul_exponent(e, &each, common, -1);
        kf_el_sum_add(e, &rest, kf_el_product_of(e, &each), n.part[i].num * first.den,
                      n.part[i].den * first.num);
    }
    kf_el factor = kf_el_sum_of(e, &rest);
    mul_number(p, first.num, first.den, power);
    if (common == KF_NO_EL) {
        mul_part(e, p, factor, power);
        return;
    }
    mul_exponent(e, p, common, power);
    kf_el_product_mul(e, p, factor, power);
}

/* A sum over a dim that only the call knows, alone or with other addends: of weights, that is. */
static bool is_sum_of_weights(kf_els *e, kf_el z)
{
    kf_el_product p;
    bool sum = false;

    kf_el_factor(e, z, &p);
    for (uint8_t i = 0; i < p.n; i++) {
        const kf_el_node *n = kf_el_at(e, p.part[i].el);
        sum |= n->kind == KF_EL_SUM && e->atom[n->var].sym;
        for (uint8_t k = 0; n->kind == KF_EL_ADD && k < n->n_part; k++) {
            const kf_el_node *part = kf_el_at(e, n->part[k].el);
            sum |= part->kind == KF_EL_SUM && e->atom[part->var].sym;
        }
    }
    return sum;
}

/* 1 / select(z = 0, c, z): what is divided by a sum of weights is 0 where that sum is. */
static kf_el guarded_divisor(kf_els *e, kf_el x)
{
    const kf_el_node *n = kf_el_at(e, x);

    if (!kf_el_is_fn(e, x, KF_FN_select))
        return x;
    const kf_el_node *p = kf_el_at(e, n->arg[0]);
    kf_el number = n->arg[1], z = n->arg[2];
    double v;
    if (p->kind == KF_EL_FN && p->fn == KF_FN_lt) { /* 0 < z: z, else a number */
        number = n->arg[2];
        z = n->arg[1];
    } else if (p->kind != KF_EL_FN || (p->fn != KF_FN_eq && p->fn != KF_FN_le)) {
        return x;
    }
    kf_el sign = kf_el_sign(e, z);
    p = kf_el_at(e, kf_el_at(e, x)->arg[0]);
    bool of_zero = (p->fn != KF_FN_le && kf_el_is_number(e, p->arg[0], 0) && p->arg[1] == sign) ||
                   (p->fn != KF_FN_lt && kf_el_is_number(e, p->arg[1], 0) && p->arg[0] == sign);
    return of_zero && kf_el_number(e, number, &v) && is_sum_of_weights(e, z) ? z : x;
}

void kf_el_product_mul(kf_els *e, kf_el_product *p, kf_el x, double power)
{
    const kf_el_node n = *kf_el_at(e, x);
    double v;

    if (power < 0 && n.kind == KF_EL_FN && n.fn == KF_FN_select) {
        kf_el z = guarded_divisor(e, x);
        if (z != x) {
            kf_el_product_mul(e, p, z, power);
            return;
        }
    }
    if (kf_el_number(e, x, &v)) {
        mul_number(p, v, 1, power);
    } else if (n.kind == KF_EL_ADD) {
        mul_sum(e, p, x, power);
    } else if (n.kind == KF_EL_MUL) {
        for (uint8_t i = 0; i < n.n_part; i++)
            kf_el_product_mul(e, p, n.part[i].el, n.part[i].num * power);
    } else if (n.kind == KF_EL_FN && n.fn == KF_FN_exp) {
        mul_exponent(e, p, n.arg[0], power);
    } else if (power > 0 && kf_el_is_indicator(e, x)) {
        p->mask = p->mask == KF_NO_EL ? n.arg[0] : kf_el_join(e, KF_FN_and, p->mask, n.arg[0]);
    } else {
        mul_part(e, p, x, power);
    }
}

void kf_el_factor(kf_els *e, kf_el x, kf_el_product *out)
{
    *out = KF_EL_ONE;
    kf_el_product_mul(e, out, x, 1);
}

kf_el kf_el_product_of(kf_els *e, kf_el_product *p)
{
    kf_el_part part[KF_MAX_PARTS + 2];
    uint8_t n = p->n;
    kf_el whole;

    if (p->num == 0 || (p->mask != KF_NO_EL && kf_el_is_number(e, p->mask, 0)))
        return kf_el_num(e, 0);
    memcpy(part, p->part, n * sizeof *part);
    if (p->exponent != KF_NO_EL)
        part[n++] = (kf_el_part){kf_el_fn_node(e, KF_FN_exp, p->exponent, 0, 0), 1, 1};
    if (p->mask != KF_NO_EL && !kf_el_is_number(e, p->mask, 1))
        part[n++] = (kf_el_part){kf_el_indicator(e, p->mask), 1, 1};
    if (n == 0)
        return kf_el_num(e, p->num / p->den);
    kf_el_sort_parts(e, part, n);
    if (n == 1 && part[0].num == 1)
        whole = part[0].el;
    else
        whole = kf_el_intern(e, (kf_el_node){.kind = KF_EL_MUL, .n_part = n, .part = part});
    kf_el_sum s = {0};
    kf_el_sum_add(e, &s, whole, p->num, p->den);
    return kf_el_sum_of(e, &s);
}

/* ---- exp ------------------------------------------------------------------------------------- */

static void note_fill(kf_els *e, double value, bool added)
{
    kf_el_fill *f = &e->fill;

    f->value = !f->used || value > f->value ? value : f->value;
    f->added |= added;
    f->used = true;
}

static bool is_fill(const kf_els *e, kf_el x, double scale, double *out)
{
    if (!kf_el_number(e, x, out))
        return false;
    *out *= scale;
    return *out <= KF_EL_FILL;
}

/* One term of an exponent, num/den * x, that is a score where a condition holds and -inf elsewhere:
 * the condition goes to |p|, the score to |rest|. |alone|: nothing else is added to the score. False
 * for other terms. */
static bool mask_of_term(kf_els *e, const kf_el_part *t, bool alone, kf_el_product *p,
                         kf_el_sum *rest)
{
    const kf_el_node n = *kf_el_at(e, t->el);
    double scale = t->num / t->den, fill;

    if (n.kind != KF_EL_FN || n.fn != KF_FN_select)
        return false;
    if (kf_el_is_indicator(e, t->el)) { /* -1e9 where hidden */
        if (scale > KF_EL_FILL)
            return false;
        note_fill(e, scale, true);
        kf_el_product_mul(e, p, kf_el_indicator(e, kf_el_negate(e, n.arg[0])), 1);
        return true;
    }
    bool hidden = is_fill(e, n.arg[1], scale, &fill);
    if (!hidden && !is_fill(e, n.arg[2], scale, &fill))
        return false;
    kf_el score = n.arg[hidden ? 2 : 1];
    double v;
    if (isfinite(fill))
        note_fill(e, fill, !alone || kf_el_number(e, score, &v));
    kf_el_product_mul(e, p, kf_el_indicator(e, hidden ? kf_el_negate(e, n.arg[0]) : n.arg[0]), 1);
    kf_el_sum_add(e, rest, score, t->num, t->den);
    return true;
}

/* -c + c * indicator(p): 0 where p, -c elsewhere. */
static void settle_fill(kf_els *e, kf_el_sum *s, kf_el_product *p)
{
    for (uint8_t i = 0; i < s->n && s->number <= KF_EL_FILL; i++) {
        if (!kf_el_is_indicator(e, s->part[i].el) || s->part[i].num / s->part[i].den != -s->number)
            continue;
        note_fill(e, s->number, true);
        kf_el_product_mul(e, p, s->part[i].el, 1);
        s->number = 0;
        s->part[i] = s->part[--s->n];
    }
}

/* e^(num/den * log(x)) for a whole power. */
static bool power_of_log(kf_els *e, const kf_el_part *t, kf_el_product *p)
{
    if (!kf_el_is_fn(e, t->el, KF_FN_log) || t->den != 1 || floor(t->num) != t->num ||
        fabs(t->num) > 4)
        return false;
    kf_el_product_mul(e, p, kf_el_at(e, t->el)->arg[0], t->num);
    return true;
}

/* True if all but term |at| only shift rows: what was subtracted before exp. */
static bool is_alone(const kf_els *e, const kf_el_sum *s, uint8_t at)
{
    for (uint8_t i = 0; i < s->n; i++)
        if (i != at && kf_el_at(e, s->part[i].el)->kind != KF_EL_MAX &&
            !kf_el_is_fn(e, s->part[i].el, KF_FN_log))
            return false;
    return true;
}

kf_el kf_el_exp(kf_els *e, kf_el x)
{
    kf_el_product p = KF_EL_ONE;
    kf_el_sum s = {0}, rest = {0};
    bool again = false;

    kf_el_sum_add(e, &s, x, 1, 1);
    settle_fill(e, &s, &p);
    rest.number = s.number;
    for (uint8_t i = 0; i < s.n; i++) {
        bool taken = mask_of_term(e, &s.part[i], is_alone(e, &s, i), &p, &rest) ||
                     power_of_log(e, &s.part[i], &p);
        if (!taken)
            kf_el_sum_add(e, &rest, s.part[i].el, s.part[i].num, s.part[i].den);
        again |= taken;
    }
    kf_el exponent = kf_el_sum_of(e, &rest);
    double v;
    if (again && !e->full) /* a mask within a mask */
        kf_el_product_mul(e, &p, kf_el_exp(e, exponent), 1);
    else if (kf_el_number(e, exponent, &v))
        mul_number(&p, exp(v), 1, 1);
    else
        mul_exponent(e, &p, exponent, 1);
    return kf_el_product_of(e, &p);
}
