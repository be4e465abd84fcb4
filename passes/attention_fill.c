/* SPDX-License-Identifier: Apache-2.0 */
/* attention_fill - a large negative number in the place of -inf: may it be taken for that?
 *
 * Only where e^(number - visible score) is 0 for every score that the computation can make, and
 * where each row sees a key, for a row that sees none would average all values. The product of
 * query and key has no bounds; a score that is capped has, and so have biases of positions.
 */
#include "passes/attention_match.h"

#include <float.h>
#include <math.h>

static kf_el own_position_hook(kf_els *e, kf_el x, void *user)
{
    const kf_el_node *n = kf_el_at(e, x);

    (void)user;
    return n->kind == KF_EL_VAR && n->var == KF_ATTENTION_K ? kf_el_var(e, KF_ATTENTION_Q)
                                                            : KF_NO_EL;
}

typedef struct range {
    double lo, hi;
} range;

static range range_of(const kf_attention_match *m, kf_el x);

static range range_of_sum(const kf_attention_match *m, const kf_el_node *n)
{
    range r = {n->number, n->number};

    for (uint8_t i = 0; i < n->n_part; i++) {
        range p = range_of(m, n->part[i].el);
        double c = n->part[i].num / n->part[i].den;
        r.lo += c * (c > 0 ? p.lo : p.hi);
        r.hi += c * (c > 0 ? p.hi : p.lo);
    }
    return r;
}

static range range_of_product(const kf_attention_match *m, const kf_el_node *n)
{
    range r = {1, 1};

    for (uint8_t i = 0; i < n->n_part; i++) {
        range p = range_of(m, n->part[i].el);
        if (n->part[i].num != 1)
            return (range){-INFINITY, INFINITY};
        double c[] = {r.lo * p.lo, r.lo * p.hi, r.hi * p.lo, r.hi * p.hi};
        r.lo = fmin(fmin(c[0], c[1]), fmin(c[2], c[3]));
        r.hi = fmax(fmax(c[0], c[1]), fmax(c[2], c[3]));
    }
    return r;
}

static range range_of_fn(const kf_attention_match *m, const kf_el_node *n)
{
    range a, b;

    switch (n->fn) {
    case KF_FN_tanh:
    case KF_FN_erf:
    case KF_FN_sin:
    case KF_FN_cos:
        return (range){-1, 1};
    case KF_FN_sigmoid:
        return (range){0, 1};
    case KF_FN_min:
    case KF_FN_max:
        a = range_of(m, n->arg[0]);
        b = range_of(m, n->arg[1]);
        return n->fn == KF_FN_min ? (range){fmin(a.lo, b.lo), fmin(a.hi, b.hi)}
                                  : (range){fmax(a.lo, b.lo), fmax(a.hi, b.hi)};
    case KF_FN_select:
        a = range_of(m, n->arg[1]);
        b = range_of(m, n->arg[2]);
        return (range){fmin(a.lo, b.lo), fmax(a.hi, b.hi)};
    default:
        return (range){-INFINITY, INFINITY};
    }
}

/* What a score can be, whatever the product with the key is. */
static range range_of(const kf_attention_match *m, kf_el x)
{
    const kf_el_node *n = kf_el_at(m->t.e, x);
    double most = (double)m->g->module->syms.data[KF_SYM_K].hi;

    switch (n->kind) {
    case KF_EL_NUM:
        return (range){n->number, n->number};
    case KF_EL_VAR:
        if (n->var == KF_ATTENTION_H)
            most = 65536;
        return n->var == KF_ATTENTION_S ? (range){-INFINITY, INFINITY} : (range){0, most};
    case KF_EL_ADD:
        return range_of_sum(m, n);
    case KF_EL_MUL:
        return range_of_product(m, n);
    case KF_EL_FN:
        return range_of_fn(m, n);
    default:
        return (range){-INFINITY, INFINITY};
    }
}

/* e^(fill - visible score) is 0, and every row sees at least its own key. */
bool kf_attention_fill_vanishes(kf_attention_match *m, const kf_attention_work *w)
{
    const kf_el_fill *f = &m->t.e->fill;
    const double underflow = 800; /* e^-800 is 0 in double precision */
    double v;

    if (!f->used)
        return true;
    kf_el self = kf_el_map(m->t.e, w->mask, own_position_hook, NULL);
    const kf_node *append = kf_value_is(m->g, kf_value_node(m->g, m->keys)->in[0], KF_OP_kv_append);
    bool sees_itself = append && append->in[3] == m->pos && append->in[4] == m->seq &&
                       !m->attr.stored && kf_el_number(m->t.e, self, &v) && v != 0;
    range s = range_of(m, w->score);
    bool below = f->value + (f->added ? s.hi : 0) < s.lo - underflow;
    below |= !f->added && f->value <= -(double)FLT_MAX; /* no f32 lies below */
    if (sees_itself && below)
        return true;
    const char *why = below ? "a row may see no key" : "scores have no bounds, or too wide ones";
    return kf_attention_refuse(m, KF_REASON_F0223,
                               kf_strf(m->cx->arena, "%g: %s", f->value, why).ptr);
}
