/* SPDX-License-Identifier: Apache-2.0 */
/* attention_match - see attention_match.h.
 *
 * The element of the root is brought into the form
 *
 *   c * SUM over k of (indicator(mask) e^score prob value) / (SUM over k of indicator(mask) e^score
 *                                                             + e^sink)
 *
 * or, without a normaliser, c * SUM over k of (indicator(mask) weight value). element.h sees to it
 * that maxima that were subtracted, guards against empty rows and the place of the division are
 * gone by then.
 */
#include "passes/attention_match.h"

#include "ir/phase.h"
#include "passes/match.h"

#include <math.h>
#include <string.h>

bool kf_attention_refuse(kf_attention_match *m, kf_reason why, const char *detail)
{
    if (m->why == KF_REASON_NONE) {
        m->why = why;
        m->detail = kf_str_from(detail);
    }
    return false;
}

/* ---- questions ------------------------------------------------------------------------------- */

/* A LOAD from the cache: |plane| keys or values. */
static const kf_el_node *cache_load(const kf_els *e, kf_el x, int plane)
{
    const kf_el_node *n = kf_el_at(e, x);

    if (n->kind != KF_EL_LOAD)
        return NULL;
    const kf_node *read = kf_value_is(e->g, n->value, KF_OP_kv_read);
    return read && KF_ATTR_OF(read, kv_read)->plane == plane ? n : NULL;
}

static bool binds_keys(const kf_els *e, const kf_el_node *n)
{
    return (n->kind == KF_EL_SUM || n->kind == KF_EL_MAX) && kf_dim_is_keys(e->atom[n->var]);
}

typedef struct survey {
    bool bound;        /* something runs over keys */
    bool sums;         /* a sum does, of something with scores */
    bool keys, values; /* of the cache are loaded */
    bool other_axis;   /* something runs over an index above a reduction, and not over keys */
    uint32_t n_scores; /* different products with cached keys */
    kf_el scores;
} survey;

static void look(const kf_els *e, kf_el x, void *user)
{
    survey *s = user;
    const kf_el_node *n = kf_el_at(e, x);
    bool binder = n->kind == KF_EL_SUM || n->kind == KF_EL_MAX;

    s->keys |= cache_load(e, x, KF_PLANE_KEYS) != NULL;
    s->values |= cache_load(e, x, KF_PLANE_VALUES) != NULL;
    s->bound |= binder && binds_keys(e, n);
    s->sums |= binder && binds_keys(e, n) && n->kind == KF_EL_SUM && n->height > 1;
    if (!binder || binds_keys(e, n))
        return;
    s->other_axis |= n->height > 1;
    if (n->kind == KF_EL_SUM && n->height == 1 && !kf_el_number(e, n->arg[0], &(double){0})) {
        s->n_scores++;
        s->scores = x;
    }
}

static survey look_at(const kf_els *e, kf_el x)
{
    survey s = {.scores = KF_NO_EL};

    if (x != KF_NO_EL)
        kf_el_visit(e, x, look, &s);
    return s;
}

/* ---- numerator and denominator --------------------------------------------------------------- */

typedef struct fraction {
    kf_el_product root; /* what is left of the root: guards and factors of rows */
    kf_el weighted;     /* SUM over keys with the values */
    kf_el divisor;      /* what holds the SUM of the weights, or NO_EL */
} fraction;

static bool split_root(kf_attention_match *m, fraction *f)
{
    kf_els *e = m->t.e;
    kf_el_product whole;

    *f = (fraction){.weighted = KF_NO_EL, .divisor = KF_NO_EL};
    m->weighs = look_at(e, m->t.element).values;
    if (!m->weighs)
        return kf_attention_refuse(m, KF_REASON_F0202, "no sum over values of the cache");
    kf_el_factor(e, m->t.element, &whole);
    f->root = whole;
    f->root.n = 0;
    for (uint8_t i = 0; i < whole.n; i++) {
        kf_el_part p = whole.part[i];
        const kf_el_node *n = kf_el_at(e, p.el);
        survey s = look_at(e, p.el);
        if (s.values && (f->weighted != KF_NO_EL || p.num != 1 || !binds_keys(e, n)))
            return kf_attention_refuse(m, KF_REASON_F0201, "the values enter more than a sum");
        if (s.values)
            f->weighted = p.el;
        else if (s.bound && p.num == -1 && f->divisor == KF_NO_EL)
            f->divisor = p.el, m->divided = true;
        else if (s.keys)
            return kf_attention_refuse(m, KF_REASON_F0221, "");
        else
            f->root.part[f->root.n++] = p;
    }
    return f->weighted != KF_NO_EL ||
           kf_attention_refuse(m, KF_REASON_F0201, "the values enter more than a sum");
}

/* The sum of weights in the divisor, and e^sink beside it as the sink's logit. */
static bool split_divisor(kf_attention_match *m, kf_el divisor, kf_el *out_sum, kf_el *out_sink)
{
    kf_els *e = m->t.e;
    const kf_el_node n = *kf_el_at(e, divisor);
    double coefficient = 1;
    kf_el_product sink;

    *out_sink = KF_NO_EL;
    *out_sum = divisor;
    if (n.kind != KF_EL_ADD)
        return binds_keys(e, &n) || kf_attention_refuse(m, KF_REASON_F0201, "");
    *out_sum = KF_NO_EL;
    kf_el rest = kf_el_num(e, n.number);
    for (uint8_t i = 0; i < n.n_part; i++) {
        kf_el_part p = n.part[i];
        if (binds_keys(e, kf_el_at(e, p.el)) && *out_sum == KF_NO_EL) {
            *out_sum = p.el;
            coefficient = p.num / p.den;
        } else {
            rest = kf_el_fn(e, KF_FN_add, rest, kf_el_scaled(e, p.el, p.num / p.den), 0);
        }
    }
    kf_el_factor(e, kf_el_scaled(e, rest, 1 / coefficient), &sink);
    double c = sink.num / sink.den;
    if (*out_sum == KF_NO_EL || sink.n || sink.mask != KF_NO_EL || !(c > 0))
        return kf_attention_refuse(m, KF_REASON_F0201,
                                   "more than weights and the power of a sink is divided by");
    *out_sink = kf_el_num(e, log(c));
    if (sink.exponent != KF_NO_EL)
        *out_sink = kf_el_fn(e, KF_FN_add, *out_sink, sink.exponent, 0);
    m->outside /= coefficient;
    return true;
}

/* ---- the bodies of the sums ------------------------------------------------------------------ */

static kf_el body_of(kf_attention_match *m, kf_el sum)
{
    const kf_el_node n = *kf_el_at(m->t.e, sum);

    return kf_el_rename(m->t.e, n.arg[0], n.var, m->key);
}

/* Takes the values out of the numerator's factors. */
static bool take_values(kf_attention_match *m, kf_el_product *num, const kf_el_node **out)
{
    *out = NULL;
    for (uint8_t i = 0; i < num->n; i++) {
        const kf_el_node *load = cache_load(m->t.e, num->part[i].el, KF_PLANE_VALUES);
        if (!load)
            continue;
        if (*out || num->part[i].num != 1)
            return kf_attention_refuse(m, KF_REASON_F0201, "a power of the values");
        *out = load;
        num->part[i--] = num->part[--num->n];
    }
    return *out || kf_attention_refuse(m, KF_REASON_F0202, "the values are computed with");
}

static bool has_conjunct(const kf_els *e, kf_el pred, kf_el one)
{
    kf_el each[KF_MAX_PARTS];
    uint32_t n = pred == KF_NO_EL ? 0 : kf_el_conjuncts(e, pred, each, KF_MAX_PARTS);

    for (uint32_t i = 0; i < n; i++)
        if (each[i] == one)
            return true;
    return false;
}

/* Softmax: the weights stand above and below alike; what stands above only is the factor. */
static bool compare_weights(kf_attention_match *m, kf_el_product *num, const kf_el_product *den,
                            kf_attention_work *w)
{
    kf_els *e = m->t.e;
    kf_el each[KF_MAX_PARTS];
    uint32_t n = den->mask == KF_NO_EL ? 0 : kf_el_conjuncts(e, den->mask, each, KF_MAX_PARTS);

    if (den->exponent == KF_NO_EL || den->n || num->exponent != den->exponent)
        return kf_attention_refuse(m, KF_REASON_F0201,
                                   "the weights are not exponentials over their own sum");
    for (uint32_t i = 0; i < n; i++)
        if (!has_conjunct(e, num->mask, each[i]))
            return kf_attention_refuse(m, KF_REASON_F0201,
                                       "the sum of the weights has a mask of its own");
    w->score = den->exponent;
    w->mask = den->mask;
    n = num->mask == KF_NO_EL ? 0 : kf_el_conjuncts(e, num->mask, each, KF_MAX_PARTS);
    num->exponent = num->mask = KF_NO_EL;
    for (uint32_t i = 0; i < n; i++)
        if (!has_conjunct(e, den->mask, each[i]))
            kf_el_product_mul(e, num, kf_el_indicator(e, each[i]), 1);
    kf_el prob = kf_el_product_of(e, num);
    w->prob = kf_el_number(e, prob, &(double){0}) ? KF_NO_EL : prob;
    if (w->prob != KF_NO_EL && look_at(e, prob).keys)
        return kf_attention_refuse(m, KF_REASON_F0221, "");
    return true;
}

static void look_for_float(const kf_els *e, kf_el x, void *user)
{
    const kf_el_node *n = kf_el_at(e, x);

    *(bool *)user |= n->kind == KF_EL_LOAD && kf_value_type(e->g, n->value)->dtype != KF_DTYPE_i32;
}

/* Whether |x| depends on more than numbers of heads, positions and sequences. */
static bool has_floats(const kf_els *e, kf_el x)
{
    bool found = false;

    kf_el_visit(e, x, look_for_float, &found);
    return found;
}

static void look_for_wild(const kf_els *e, kf_el x, void *user)
{
    const kf_el_node *n = kf_el_at(e, x);
    bool *found = user;

    *found |= n->kind == KF_EL_FN && (kf_op_infos[n->fn].traits & KF_PARTIAL) && has_floats(e, x);
    for (uint8_t i = 0; n->kind == KF_EL_MUL && i < n->n_part; i++)
        *found |= n->part[i].num < 0 && has_floats(e, n->part[i].el);
}

/* Whether the scores may be no numbers although what they are made of are numbers of moderate size;
 * of numbers of heads and positions alone, functions are taken to be that. */
static bool may_be_nan(const kf_els *e, kf_el score)
{
    bool found = false;

    kf_el_visit(e, score, look_for_wild, &found);
    return found;
}

/* What multiplies or hides whole rows behind the normaliser does that to each weight. Guards go:
 * what is divided is 0 where the sum of the weights is 0. One that asks for a sum above 0 also makes
 * 0 of NaN, which the op keeps. */
static bool take_row_factors(kf_attention_match *m, const kf_el_product *root, kf_el sum,
                             kf_attention_work *w)
{
    kf_els *e = m->t.e;
    kf_el guard[KF_MAX_PARTS], zero = kf_el_num(e, 0);
    kf_el above = kf_el_fn(e, KF_FN_lt, zero, sum, 0),
          not_zero = kf_el_fn(e, KF_FN_ne, zero, sum, 0);
    uint32_t n = root->mask == KF_NO_EL ? 0 : kf_el_conjuncts(e, root->mask, guard, KF_MAX_PARTS);
    kf_el_product p;

    kf_el_factor(e, w->prob == KF_NO_EL ? kf_el_num(e, 1) : w->prob, &p);
    for (uint32_t i = 0; i < n; i++) {
        if (guard[i] == above && may_be_nan(e, w->score))
            return kf_attention_refuse(m, KF_REASON_F0224,
                                       "it asks for a sum above 0, not for one that is not 0");
        if (guard[i] != above && guard[i] != not_zero)
            kf_el_product_mul(e, &p, kf_el_indicator(e, guard[i]), 1);
    }
    for (uint8_t i = 0; i < root->n; i++)
        kf_el_product_mul(e, &p, root->part[i].el, root->part[i].num);
    if (root->exponent != KF_NO_EL)
        kf_el_product_mul(e, &p, kf_el_fn(e, KF_FN_exp, root->exponent, 0, 0), 1);
    kf_el prob = kf_el_product_of(e, &p);
    w->prob = kf_el_number(e, prob, &(double){0}) ? KF_NO_EL : prob;
    return true;
}

/* No normaliser: all but the values and the mask is the weight. */
static void gather_weight(kf_attention_match *m, kf_el_product *num, const kf_el_product *root,
                          kf_attention_work *w)
{
    kf_els *e = m->t.e;

    w->mask = num->mask;
    num->mask = KF_NO_EL;
    for (uint8_t i = 0; i < root->n; i++)
        kf_el_product_mul(e, num, root->part[i].el, root->part[i].num);
    if (root->exponent != KF_NO_EL)
        kf_el_product_mul(e, num, kf_el_fn(e, KF_FN_exp, root->exponent, 0, 0), 1);
    w->score = kf_el_scaled(e, kf_el_product_of(e, num), m->outside);
    m->outside = 1;
    m->attr.normaliser = KF_NORMALISER_NONE;
}

static bool split_bodies(kf_attention_match *m, fraction *f, const kf_el_node **value,
                         kf_attention_work *w)
{
    kf_els *e = m->t.e;
    kf_el sum;
    kf_el_product num, den;

    m->key = kf_el_new_atom(e, e->atom[kf_el_at(e, f->weighted)->var]);
    m->outside = f->root.num / f->root.den;
    kf_el_factor(e, body_of(m, f->weighted), &num);
    if (!take_values(m, &num, value))
        return false;
    if (f->divisor == KF_NO_EL) {
        if (f->root.mask != KF_NO_EL)
            return kf_attention_refuse(m, KF_REASON_F0201, "rows are left out by a condition");
        gather_weight(m, &num, &f->root, w);
        return !look_at(e, w->score).sums || kf_attention_refuse(m, KF_REASON_F0221, "");
    }
    if (!split_divisor(m, f->divisor, &sum, &w->sink))
        return false;
    kf_el_factor(e, body_of(m, sum), &den);
    return compare_weights(m, &num, &den, w) && take_row_factors(m, &f->root, sum, w);
}

/* ---- scores ---------------------------------------------------------------------------------- */

static bool find_scores(kf_attention_match *m, kf_el x, const kf_el_node **key,
                        const kf_el_node **query)
{
    kf_els *e = m->t.e;
    survey s = look_at(e, x);

    if (!s.keys)
        return kf_attention_refuse(m, KF_REASON_F0202,
                                   "the scores are not made of keys of the cache");
    if (s.n_scores != 1)
        return kf_attention_refuse(m, KF_REASON_F0201, "more than one product with the keys");
    kf_el_product p;
    m->scores = s.scores;
    m->inner = kf_el_at(e, s.scores)->var;
    kf_el_factor(e, kf_el_at(e, s.scores)->arg[0], &p);
    bool plain = p.n == 2 && p.part[0].num == 1 && p.part[1].num == 1 && p.mask == KF_NO_EL &&
                 p.exponent == KF_NO_EL;
    *key = *query = NULL;
    for (uint8_t i = 0; plain && i < 2; i++) {
        *key = cache_load(e, p.part[i].el, KF_PLANE_KEYS);
        *query = kf_el_at(e, p.part[1 - i].el);
        if (*key && (*query)->kind == KF_EL_LOAD)
            return true;
    }
    return kf_attention_refuse(m, KF_REASON_F0202, "keys are computed with after they were read");
}

/* ---- the mask -------------------------------------------------------------------------------- */

bool kf_attention_is_key(const kf_attention_match *m, kf_el x, int plane)
{
    const kf_el_node *n = kf_el_at(m->t.e, x);
    const kf_node *keys = kf_value_node(m->g, m->keys);

    if (n->kind != KF_EL_LOAD)
        return false;
    const kf_node *index = kf_value_is(m->g, n->value, KF_OP_kv_index);
    return index && KF_ATTR_OF(index, kv_read)->plane == plane &&
           KF_ATTR_OF(index, kv_read)->stored == KF_ATTR_OF(keys, kv_read)->stored &&
           index->in[0] == keys->in[1] && index->in[1] == keys->in[2] &&
           n->arg[0] == kf_el_atom(m->t.e, m->key);
}

kf_value kf_attention_row_number(const kf_attention_match *m, kf_el x, kf_atom *out_row)
{
    const kf_el_node *n = kf_el_at(m->t.e, x);

    if (n->kind != KF_EL_LOAD || n->n_arg != 1 ||
        kf_value_type(m->g, n->value)->dtype != KF_DTYPE_i32)
        return KF_NO_VALUE;
    const kf_el_node *at = kf_el_at(m->t.e, n->arg[0]);
    if (at->kind != KF_EL_INDEX || at->n_term != 1 || at->start != 0 || at->term[0].step != 1 ||
        at->term[0].atom == m->key)
        return KF_NO_VALUE;
    *out_row = at->term[0].atom;
    return n->value;
}

/* Argument |k| of |g| is none of the inputs of a call but its `seq`: entries have them by name. */
static bool may_be_seq(const kf_graph *g, uint32_t k)
{
    kf_input_id input = kf_input_find(g->values.data[g->args.data[k]].name);
    bool called = false, may = true;

    KF_EACH_FUNC(g->module, caller)
    for (uint32_t i = 0; i < caller->nodes.len; i++) {
        const kf_node *n = &caller->nodes.data[i];
        if (n->op != KF_OP_repeat || !kf_str_eq(KF_ATTR_OF(n, repeat)->callee, g->name))
            continue;
        called = true;
        may = may && k >= KF_ATTR_OF(n, repeat)->iter && kf_value_is_arg(caller, n->in[k]) &&
              may_be_seq(caller, caller->values.data[n->in[k]].def);
    }
    return called ? may : input == KF_INPUT_ID_seq || input == KF_INPUT_ID_COUNT;
}

/* |v| holds the sequences of the rows as the call numbers them: what the function stores keys by,
 * or an argument where it stores none. The op looks lengths and pages up by it; a comparison with
 * other numbers asks for less. */
static bool is_seq(const kf_graph *g, kf_value v)
{
    bool stores = false;

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_kv_append && n->in[4] == v)
            return true;
        stores |= n->op == KF_OP_kv_append;
    }
    return !stores && kf_value_is_arg(g, v) && may_be_seq(g, g->values.data[v].def);
}

typedef struct own {
    kf_attention_match *m;
    double holds;
} own;

/* eq(sequence of the key, sequence of the row) as a number. */
static kf_el own_hook(kf_els *e, kf_el x, void *user)
{
    const own *o = user;
    kf_attention_match *m = o->m;

    if (!kf_el_is_fn(e, x, KF_FN_eq))
        return KF_NO_EL;
    for (int i = 0; i < 2; i++) {
        const kf_el_node *n = kf_el_at(e, x);
        kf_atom row;
        if (!kf_attention_is_key(m, n->arg[i], KF_PLANE_SEQ))
            continue;
        kf_value seq = kf_attention_row_number(m, n->arg[1 - i], &row);
        if (seq == KF_NO_VALUE || !is_seq(m->g, seq) ||
            (m->seq != KF_NO_VALUE && (m->seq != seq || m->row != row)))
            continue;
        m->seq = seq;
        m->row = row;
        return kf_el_num(e, o->holds);
    }
    return KF_NO_EL;
}

/* The mask without the conjunct that the op implies. */
static bool confine(kf_attention_match *m, kf_el *mask)
{
    kf_els *e = m->t.e;

    if (*mask != KF_NO_EL) {
        kf_el outside = kf_el_map(e, *mask, own_hook, &(own){m, 0});
        double v;
        if (m->seq != KF_NO_VALUE && kf_el_number(e, outside, &v) && v == 0) {
            *mask = kf_el_map(e, *mask, own_hook, &(own){m, 1});
            return true;
        }
    }
    return kf_attention_refuse(m, KF_REASON_F0207,
                               m->seq == KF_NO_VALUE ? "no comparison of sequences"
                                                     : "keys of others can pass");
}

/* ---- all together ---------------------------------------------------------------------------- */

static void name_rows(kf_attention_match *m)
{
    const kf_node *keys = kf_value_node(m->g, m->keys);
    const kf_node *append = kf_value_is(m->g, keys->in[0], KF_OP_kv_append);

    m->attr.stored = KF_ATTR_OF(keys, kv_read)->stored;
    if (append && !m->attr.stored)
        m->pos = append->in[3];
}

static bool same_view(kf_attention_match *m)
{
    const kf_node *k = kf_value_node(m->g, m->keys), *v = kf_value_node(m->g, m->values);
    bool same = KF_ATTR_OF(k, kv_read)->stored == KF_ATTR_OF(v, kv_read)->stored;

    for (uint32_t i = 0; i < 4; i++)
        same &= k->in[i] == v->in[i];
    return same || kf_attention_refuse(m, KF_REASON_F0202, "keys and values of different caches");
}

static bool match(kf_attention_match *m)
{
    kf_attention_work w = {KF_NO_EL, KF_NO_EL, KF_NO_EL, KF_NO_EL};
    const kf_el_node *value = NULL, *key = NULL, *query = NULL;
    fraction f;

    if (look_at(m->t.e, m->t.element).other_axis)
        return kf_attention_refuse(m, KF_REASON_F0220, "");
    if (!split_root(m, &f) || !split_bodies(m, &f, &value, &w) ||
        !find_scores(m, w.score, &key, &query))
        return false;
    /* Expressions move when others are made. */
    const kf_el_node v = *value, k = *key, q = *query;
    m->keys = k.value;
    m->values = v.value;
    if (!same_view(m) || !confine(m, &w.mask))
        return false;
    name_rows(m);
    if (!kf_attention_match_views(m, &k, &v, &q))
        return false;
    return kf_attention_variables(m, &w) && kf_attention_fill_vanishes(m, &w) &&
           kf_attention_slots(m, &w);
}

bool kf_attention_match_root(kf_pass_ctx *cx, const kf_graph *g, kf_value root,
                             kf_attention_match *out)
{
    *out = (kf_attention_match){.g = g,
                                .cx = cx,
                                .root = root,
                                .keys = KF_NO_VALUE,
                                .values = KF_NO_VALUE,
                                .pos = KF_NO_VALUE,
                                .seq = KF_NO_VALUE};
    bool small = kf_el_trace_value(cx->scratch, g, root, &out->t);
    if (!small)
        return kf_attention_refuse(out, KF_REASON_F0201, "it is too long a computation");
    bool matched = match(out);
    if (out->t.e->full) {
        out->why = KF_REASON_NONE;
        return kf_attention_refuse(out, KF_REASON_F0201, "it is too long a computation");
    }
    return matched;
}
