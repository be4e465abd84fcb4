/* SPDX-License-Identifier: Apache-2.0 */
/* element_fn - products, predicates and scalar functions of element expressions in their normal
 * form. */
#include "passes/element_impl.h"

#include <math.h>
#include <string.h>

static kf_el fn_node(kf_els *e, kf_fn fn, kf_el a, kf_el b, kf_el c)
{
    kf_el_node n = {.kind = KF_EL_FN, .fn = fn, .n_arg = kf_fn_infos[fn].arity, .arg = {a, b, c}};

    for (uint8_t i = n.n_arg; i < 3; i++)
        n.arg[i] = 0;
    if ((kf_fn_infos[fn].traits & KF_COMM) && kf_el_at(e, a)->hash > kf_el_at(e, b)->hash) {
        n.arg[0] = b;
        n.arg[1] = a;
    }
    return kf_el_intern(e, n);
}

static bool is_number(const kf_els *e, kf_el x, double want)
{
    double v;

    return kf_el_number(e, x, &v) && v == want;
}

/* ---- predicates ------------------------------------------------------------------------------ */

static void add_conjuncts(const kf_els *e, kf_el pred, kf_el *out, uint32_t *n, uint32_t max)
{
    const kf_el_node *p = kf_el_at(e, pred);

    if (p->kind == KF_EL_FN && p->fn == KF_FN_and && *n + 2 <= max) {
        add_conjuncts(e, p->arg[0], out, n, max - 1);
        add_conjuncts(e, p->arg[1], out, n, max);
        return;
    }
    out[(*n)++] = pred;
}

uint32_t kf_el_conjuncts(const kf_els *e, kf_el pred, kf_el *out, uint32_t max)
{
    uint32_t n = 0;

    add_conjuncts(e, pred, out, &n, max);
    return n;
}

static void add_leaves(const kf_els *e, kf_fn fn, kf_el x, kf_el_part *out, uint32_t *n)
{
    const kf_el_node *p = kf_el_at(e, x);

    if (p->kind == KF_EL_FN && p->fn == fn && *n + 2 <= KF_MAX_PARTS) {
        add_leaves(e, fn, p->arg[0], out, n);
        add_leaves(e, fn, p->arg[1], out, n);
        return;
    }
    for (uint32_t i = 0; i < *n; i++)
        if (out[i].el == x)
            return;
    if (*n < KF_MAX_PARTS)
        out[(*n)++] = (kf_el_part){x, 1, 1};
}

/* a and b, or a or b: one chain of different leaves in structural order. */
static kf_el join_preds(kf_els *e, kf_fn fn, kf_el a, kf_el b)
{
    double neutral = fn == KF_FN_and;
    kf_el_part leaf[KF_MAX_PARTS];
    uint32_t n = 0;

    if (is_number(e, a, neutral))
        return b;
    if (is_number(e, b, neutral))
        return a;
    if (is_number(e, a, 1 - neutral) || is_number(e, b, 1 - neutral))
        return kf_el_num(e, 1 - neutral);
    add_leaves(e, fn, a, leaf, &n);
    add_leaves(e, fn, b, leaf, &n);
    if (n == KF_MAX_PARTS) {
        e->full = true;
        return a;
    }
    kf_el_sort_parts(e, leaf, n);
    kf_el all = leaf[0].el;
    for (uint32_t i = 1; i < n; i++)
        all = kf_el_intern(
            e, (kf_el_node){.kind = KF_EL_FN, .fn = fn, .n_arg = 2, .arg = {all, leaf[i].el}});
    return all;
}

static kf_el negate(kf_els *e, kf_el p)
{
    const kf_el_node n = *kf_el_at(e, p);
    double v;

    if (kf_el_number(e, p, &v))
        return kf_el_num(e, v == 0);
    if (n.kind != KF_EL_FN)
        return fn_node(e, KF_FN_not, p, 0, 0);
    switch (n.fn) {
    case KF_FN_not:
        return n.arg[0];
    case KF_FN_lt:
        return kf_el_fn(e, KF_FN_le, n.arg[1], n.arg[0], 0);
    case KF_FN_le:
        return kf_el_fn(e, KF_FN_lt, n.arg[1], n.arg[0], 0);
    case KF_FN_and:
        return join_preds(e, KF_FN_or, negate(e, n.arg[0]), negate(e, n.arg[1]));
    case KF_FN_or:
        return join_preds(e, KF_FN_and, negate(e, n.arg[0]), negate(e, n.arg[1]));
    default:
        return fn_node(e, KF_FN_not, p, 0, 0);
    }
}

/* x without positive factors, for comparisons with 0. */
static kf_el sign_of(kf_els *e, kf_el x)
{
    kf_el_product p;

    kf_el_factor(e, x, &p);
    p.exponent = KF_NO_EL;
    p.num = p.num < 0 ? -1 : p.num > 0;
    p.den = 1;
    return kf_el_product_of(e, &p);
}

/* lt, le or eq: a difference of two parts is compared part with part. */
static kf_el compare(kf_els *e, kf_fn fn, kf_el a, kf_el b)
{
    kf_el_sum d = {0};
    double v;

    if (a == b)
        return kf_el_num(e, fn != KF_FN_lt);
    if (is_number(e, a, 0))
        b = sign_of(e, b);
    if (is_number(e, b, 0))
        a = sign_of(e, a);
    kf_el_sum_add(e, &d, a, 1, 1);
    kf_el_sum_add(e, &d, b, -1, 1);
    kf_el diff = kf_el_sum_of(e, &d);
    const kf_el_node n = *kf_el_at(e, diff);
    if (kf_el_number(e, diff, &v) && isfinite(v))
        return kf_el_num(e, kf_fn_eval(fn, v, 0, 0));
    if (n.kind != KF_EL_ADD || n.n_part != 2 || n.number != 0 || n.part[0].den != 1 ||
        n.part[1].den != 1 || fabs(n.part[0].num) != 1 || n.part[0].num != -n.part[1].num)
        return fn_node(e, fn, a, b, 0);
    uint32_t minuend = n.part[0].num > 0 ? 0 : 1;
    return fn_node(e, fn, n.part[minuend].el, n.part[1 - minuend].el, 0);
}

kf_el kf_el_indicator(kf_els *e, kf_el pred)
{
    double v;

    if (kf_el_number(e, pred, &v))
        return kf_el_num(e, v != 0);
    return fn_node(e, KF_FN_select, pred, kf_el_num(e, 1), kf_el_num(e, 0));
}

static bool is_indicator(const kf_els *e, kf_el x)
{
    const kf_el_node *n = kf_el_at(e, x);

    return kf_el_is_fn(e, x, KF_FN_select) && is_number(e, n->arg[1], 1) &&
           is_number(e, n->arg[2], 0);
}

static bool is_infinite(const kf_els *e, kf_el x)
{
    double v;

    return kf_el_number(e, x, &v) && isinf(v);
}

static kf_el choose(kf_els *e, kf_el p, kf_el x, kf_el y)
{
    double v;

    if (kf_el_number(e, p, &v))
        return v != 0 ? x : y;
    if (x == y)
        return x;
    if (kf_el_is_fn(e, p, KF_FN_not))
        return choose(e, kf_el_at(e, p)->arg[0], y, x);
    bool over = is_number(e, x, 0) && !is_infinite(e, y);
    if (over || (is_number(e, y, 0) && !is_infinite(e, x))) {
        kf_el_product only = KF_EL_ONE;
        kf_el_product_mul(e, &only, over ? y : x, 1);
        kf_el_product_mul(e, &only, kf_el_indicator(e, over ? negate(e, p) : p), 1);
        return kf_el_product_of(e, &only);
    }
    return fn_node(e, KF_FN_select, p, x, y);
}

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
    if (is_number(e, p->exponent, 0))
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
    kf_el sign = sign_of(e, z);
    p = kf_el_at(e, kf_el_at(e, x)->arg[0]);
    bool of_zero = (p->fn != KF_FN_le && is_number(e, p->arg[0], 0) && p->arg[1] == sign) ||
                   (p->fn != KF_FN_lt && is_number(e, p->arg[1], 0) && p->arg[0] == sign);
    return of_zero && kf_el_number(e, number, &v) ? z : x;
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
    } else if (power > 0 && is_indicator(e, x)) {
        p->mask = p->mask == KF_NO_EL ? n.arg[0] : join_preds(e, KF_FN_and, p->mask, n.arg[0]);
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

    if (p->num == 0 || (p->mask != KF_NO_EL && is_number(e, p->mask, 0)))
        return kf_el_num(e, 0);
    memcpy(part, p->part, n * sizeof *part);
    if (p->exponent != KF_NO_EL)
        part[n++] = (kf_el_part){fn_node(e, KF_FN_exp, p->exponent, 0, 0), 1, 1};
    if (p->mask != KF_NO_EL && !is_number(e, p->mask, 1))
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
 * the condition goes to |p|, the score to |rest|. False for other terms. */
static bool mask_of_term(kf_els *e, const kf_el_part *t, kf_el_product *p, kf_el_sum *rest)
{
    const kf_el_node n = *kf_el_at(e, t->el);
    double scale = t->num / t->den, fill;

    if (n.kind != KF_EL_FN || n.fn != KF_FN_select)
        return false;
    if (is_indicator(e, t->el)) { /* -1e9 where hidden */
        if (scale > KF_EL_FILL)
            return false;
        note_fill(e, scale, true);
        kf_el_product_mul(e, p, kf_el_indicator(e, negate(e, n.arg[0])), 1);
        return true;
    }
    bool hidden = is_fill(e, n.arg[1], scale, &fill);
    if (!hidden && !is_fill(e, n.arg[2], scale, &fill))
        return false;
    kf_el score = n.arg[hidden ? 2 : 1];
    double v;
    if (isfinite(fill))
        note_fill(e, fill, kf_el_number(e, score, &v));
    kf_el_product_mul(e, p, kf_el_indicator(e, hidden ? negate(e, n.arg[0]) : n.arg[0]), 1);
    kf_el_sum_add(e, rest, score, t->num, t->den);
    return true;
}

/* -c + c * indicator(p): 0 where p, -c elsewhere. */
static void settle_fill(kf_els *e, kf_el_sum *s, kf_el_product *p)
{
    for (uint8_t i = 0; i < s->n && s->number <= KF_EL_FILL; i++) {
        if (!is_indicator(e, s->part[i].el) || s->part[i].num / s->part[i].den != -s->number)
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

static kf_el exponential(kf_els *e, kf_el x)
{
    kf_el_product p = KF_EL_ONE;
    kf_el_sum s = {0}, rest = {0};
    bool again = false;

    kf_el_sum_add(e, &s, x, 1, 1);
    settle_fill(e, &s, &p);
    rest.number = s.number;
    for (uint8_t i = 0; i < s.n; i++) {
        bool taken = mask_of_term(e, &s.part[i], &p, &rest) || power_of_log(e, &s.part[i], &p);
        if (!taken)
            kf_el_sum_add(e, &rest, s.part[i].el, s.part[i].num, s.part[i].den);
        again |= taken;
    }
    kf_el exponent = kf_el_sum_of(e, &rest);
    double v;
    if (again && !e->full) /* a mask within a mask */
        kf_el_product_mul(e, &p, exponential(e, exponent), 1);
    else if (kf_el_number(e, exponent, &v))
        mul_number(&p, exp(v), 1, 1);
    else
        mul_exponent(e, &p, exponent, 1);
    return kf_el_product_of(e, &p);
}

/* ---- functions ------------------------------------------------------------------------------- */

static kf_el difference(kf_els *e, kf_el a, kf_el b, double sign)
{
    kf_el_sum s = {0};

    kf_el_sum_add(e, &s, a, 1, 1);
    kf_el_sum_add(e, &s, b, sign, 1);
    return kf_el_sum_of(e, &s);
}

static kf_el product(kf_els *e, kf_el a, double pa, kf_el b, double pb)
{
    kf_el_product p = KF_EL_ONE;

    kf_el_product_mul(e, &p, a, pa);
    if (pb != 0)
        kf_el_product_mul(e, &p, b, pb);
    return kf_el_product_of(e, &p);
}

/* f(select(p, 1, 2), 3) = select(p, f(1, 3), f(2, 3)): predicates that went through numbers. */
static kf_el spread(kf_els *e, kf_fn fn, const kf_el *arg)
{
    uint8_t arity = kf_fn_infos[fn].arity, at = 3;
    double v, one[3] = {0}, other[3] = {0};
    kf_el pred = KF_NO_EL;

    for (uint8_t i = 0; i < arity; i++) {
        const kf_el_node *n = kf_el_at(e, arg[i]);
        if (kf_el_number(e, arg[i], &v)) {
            one[i] = other[i] = v;
        } else if (at == 3 && n->kind == KF_EL_FN && n->fn == KF_FN_select &&
                   kf_el_number(e, n->arg[1], &one[i]) && kf_el_number(e, n->arg[2], &other[i])) {
            at = i;
            pred = n->arg[0];
        } else {
            return KF_NO_EL;
        }
    }
    double yes = kf_fn_eval(fn, one[0], one[1], one[2]);
    double no = kf_fn_eval(fn, other[0], other[1], other[2]);
    if (pred == KF_NO_EL)
        return kf_el_num(e, yes);
    if (kf_fn_infos[fn].result == KF_FN_RESULT_pred)
        return yes == no ? kf_el_num(e, yes) : yes != 0 ? pred : negate(e, pred);
    return choose(e, pred, kf_el_num(e, yes), kf_el_num(e, no));
}

static kf_el power(kf_els *e, kf_el a, kf_el b)
{
    double v;

    if (kf_el_number(e, b, &v) && floor(v) == v && v != 0 && fabs(v) <= 4)
        return product(e, a, v, a, 0);
    return fn_node(e, KF_FN_pow, a, b, 0);
}

static bool keeps_number(const kf_els *e, kf_fn fn, const kf_el *arg)
{
    return fn == KF_FN_max && (is_number(e, arg[0], 0) || is_number(e, arg[1], 0));
}

kf_el kf_el_fn(kf_els *e, kf_fn fn, kf_el a, kf_el b, kf_el c)
{
    const kf_el arg[] = {a, b, c};
    kf_el known = fn == KF_FN_select ? KF_NO_EL : spread(e, fn, arg);

    if (known != KF_NO_EL)
        return known;
    if (keeps_number(e, fn, arg))
        return fn_node(e, KF_FN_relu, is_number(e, a, 0) ? b : a, 0, 0);
    switch (fn) {
    case KF_FN_add:
        return difference(e, a, b, 1);
    case KF_FN_sub:
        return difference(e, a, b, -1);
    case KF_FN_neg:
        return kf_el_scaled(e, a, -1);
    case KF_FN_mul:
        return product(e, a, 1, b, 1);
    case KF_FN_div:
        return product(e, a, 1, b, -1);
    case KF_FN_recip:
        return product(e, a, -1, a, 0);
    case KF_FN_square:
        return product(e, a, 2, a, 0);
    case KF_FN_pow:
        return power(e, a, b);
    case KF_FN_exp:
        return exponential(e, a);
    case KF_FN_and:
    case KF_FN_or:
        return join_preds(e, fn, a, b);
    case KF_FN_not:
        return negate(e, a);
    case KF_FN_lt:
    case KF_FN_le:
    case KF_FN_eq:
        return compare(e, fn, a, b);
    case KF_FN_gt:
        return compare(e, KF_FN_lt, b, a);
    case KF_FN_ge:
        return compare(e, KF_FN_le, b, a);
    case KF_FN_ne:
        return negate(e, compare(e, KF_FN_eq, a, b));
    case KF_FN_select:
        return choose(e, a, b, c);
    default:
        return fn_node(e, fn, a, b, c);
    }
}
