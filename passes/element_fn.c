/* SPDX-License-Identifier: Apache-2.0 */
/* element_fn - predicates and scalar functions of element expressions in their normal form. Products
 * and exp are in element_mul.c. */
#include "passes/element_impl.h"

#include <math.h>
#include <string.h>

kf_el kf_el_fn_node(kf_els *e, kf_fn fn, kf_el a, kf_el b, kf_el c)
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

bool kf_el_is_number(const kf_els *e, kf_el x, double want)
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
kf_el kf_el_join(kf_els *e, kf_fn fn, kf_el a, kf_el b)
{
    double neutral = fn == KF_FN_and;
    kf_el_part leaf[KF_MAX_PARTS];
    uint32_t n = 0;

    if (kf_el_is_number(e, a, neutral))
        return b;
    if (kf_el_is_number(e, b, neutral))
        return a;
    if (kf_el_is_number(e, a, 1 - neutral) || kf_el_is_number(e, b, 1 - neutral))
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

kf_el kf_el_negate(kf_els *e, kf_el p)
{
    const kf_el_node n = *kf_el_at(e, p);
    double v;

    if (kf_el_number(e, p, &v))
        return kf_el_num(e, v == 0);
    if (n.kind != KF_EL_FN)
        return kf_el_fn_node(e, KF_FN_not, p, 0, 0);
    switch (n.fn) {
    case KF_FN_not:
        return n.arg[0];
    case KF_FN_lt:
        return kf_el_fn(e, KF_FN_le, n.arg[1], n.arg[0], 0);
    case KF_FN_le:
        return kf_el_fn(e, KF_FN_lt, n.arg[1], n.arg[0], 0);
    case KF_FN_and:
        return kf_el_join(e, KF_FN_or, kf_el_negate(e, n.arg[0]), kf_el_negate(e, n.arg[1]));
    case KF_FN_or:
        return kf_el_join(e, KF_FN_and, kf_el_negate(e, n.arg[0]), kf_el_negate(e, n.arg[1]));
    default:
        return kf_el_fn_node(e, KF_FN_not, p, 0, 0);
    }
}

/* x without positive factors, for comparisons with 0. */
kf_el kf_el_sign(kf_els *e, kf_el x)
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
    if (kf_el_is_number(e, a, 0))
        b = kf_el_sign(e, b);
    if (kf_el_is_number(e, b, 0))
        a = kf_el_sign(e, a);
    kf_el_sum_add(e, &d, a, 1, 1);
    kf_el_sum_add(e, &d, b, -1, 1);
    kf_el diff = kf_el_sum_of(e, &d);
    const kf_el_node n = *kf_el_at(e, diff);
    if (kf_el_number(e, diff, &v) && isfinite(v))
        return kf_el_num(e, kf_fn_eval(fn, v, 0, 0));
    if (n.kind != KF_EL_ADD || n.n_part != 2 || n.number != 0 || n.part[0].den != 1 ||
        n.part[1].den != 1 || fabs(n.part[0].num) != 1 || n.part[0].num != -n.part[1].num)
        return kf_el_fn_node(e, fn, a, b, 0);
    uint32_t minuend = n.part[0].num > 0 ? 0 : 1;
    return kf_el_fn_node(e, fn, n.part[minuend].el, n.part[1 - minuend].el, 0);
}

kf_el kf_el_indicator(kf_els *e, kf_el pred)
{
    double v;

    if (kf_el_number(e, pred, &v))
        return kf_el_num(e, v != 0);
    return kf_el_fn_node(e, KF_FN_select, pred, kf_el_num(e, 1), kf_el_num(e, 0));
}

bool kf_el_is_indicator(const kf_els *e, kf_el x)
{
    const kf_el_node *n = kf_el_at(e, x);

    return kf_el_is_fn(e, x, KF_FN_select) && kf_el_is_number(e, n->arg[1], 1) &&
           kf_el_is_number(e, n->arg[2], 0);
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
    bool over = kf_el_is_number(e, x, 0) && !is_infinite(e, y);
    if (over || (kf_el_is_number(e, y, 0) && !is_infinite(e, x))) {
        kf_el_product only = KF_EL_ONE;
        kf_el_product_mul(e, &only, over ? y : x, 1);
        kf_el_product_mul(e, &only, kf_el_indicator(e, over ? kf_el_negate(e, p) : p), 1);
        return kf_el_product_of(e, &only);
    }
    return kf_el_fn_node(e, KF_FN_select, p, x, y);
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
        return yes == no ? kf_el_num(e, yes) : yes != 0 ? pred : kf_el_negate(e, pred);
    return choose(e, pred, kf_el_num(e, yes), kf_el_num(e, no));
}

static kf_el power(kf_els *e, kf_el a, kf_el b)
{
    double v;

    if (kf_el_number(e, b, &v) && floor(v) == v && v != 0 && fabs(v) <= 4)
        return product(e, a, v, a, 0);
    return kf_el_fn_node(e, KF_FN_pow, a, b, 0);
}

static bool keeps_number(const kf_els *e, kf_fn fn, const kf_el *arg)
{
    return fn == KF_FN_max && (kf_el_is_number(e, arg[0], 0) || kf_el_is_number(e, arg[1], 0));
}

kf_el kf_el_fn(kf_els *e, kf_fn fn, kf_el a, kf_el b, kf_el c)
{
    const kf_el arg[] = {a, b, c};
    kf_el known = fn == KF_FN_select ? KF_NO_EL : spread(e, fn, arg);

    if (known != KF_NO_EL)
        return known;
    if (keeps_number(e, fn, arg))
        return kf_el_fn_node(e, KF_FN_relu, kf_el_is_number(e, a, 0) ? b : a, 0, 0);
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
        return kf_el_exp(e, a);
    case KF_FN_and:
    case KF_FN_or:
        return kf_el_join(e, fn, a, b);
    case KF_FN_not:
        return kf_el_negate(e, a);
    case KF_FN_lt:
    case KF_FN_le:
    case KF_FN_eq:
        return compare(e, fn, a, b);
    case KF_FN_gt:
        return compare(e, KF_FN_lt, b, a);
    case KF_FN_ge:
        return compare(e, KF_FN_le, b, a);
    case KF_FN_ne:
        return kf_el_negate(e, compare(e, KF_FN_eq, a, b));
    case KF_FN_select:
        return choose(e, a, b, c);
    default:
        return kf_el_fn_node(e, fn, a, b, c);
    }
}
