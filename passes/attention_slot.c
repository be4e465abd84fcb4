/* SPDX-License-Identifier: Apache-2.0 */
/* attention_slot - what stands in a recognised attention as slots: indices and positions become the
 * variables s, h, q and k, tables become captures, expressions become instructions. */
#include "passes/attention_match.h"

#include <math.h>

/* ---- positions and heads as variables -------------------------------------------------------- */

/* Digits [first, first + n) of the head's number: h / below mod size. */
static kf_el head_digit(kf_els *e, kf_el h, int64_t below, int64_t size, bool top)
{
    kf_el rate = kf_el_num(e, (double)below);
    kf_el high = kf_el_fn(e, KF_FN_floor, kf_el_fn(e, KF_FN_div, h, rate, 0), 0, 0);

    if (below == 1)
        high = h;
    if (top)
        return high;
    kf_el all = kf_el_num(e, (double)(below * size));
    kf_el above = kf_el_fn(e, KF_FN_floor, kf_el_fn(e, KF_FN_div, h, all, 0), 0, 0);
    return kf_el_fn(e, KF_FN_sub, high, kf_el_scaled(e, above, (double)size), 0);
}

static int64_t atom_size(const kf_attention_match *m, kf_atom a)
{
    return m->t.e->atom[a].size;
}

/* An index over heads as an expression of the head's number; NO_EL for other indices. */
static kf_el head_number(kf_attention_match *m, const kf_el_node *index)
{
    kf_els *e = m->t.e;
    kf_el h = kf_el_var(e, KF_ATTENTION_H), sum = kf_el_num(e, (double)index->start);
    int64_t below = 1;
    uint8_t found = 0, whole = 0;

    for (uint8_t i = m->n_heads; i-- > 0;) {
        for (uint8_t t = 0; t < index->n_term; t++) {
            if (index->term[t].atom != m->head[i])
                continue;
            found++;
            whole += index->term[t].step == below;
            kf_el digit = head_digit(e, h, below, atom_size(m, m->head[i]), i == 0);
            sum =
                kf_el_fn(e, KF_FN_add, sum, kf_el_scaled(e, digit, (double)index->term[t].step), 0);
        }
        below *= atom_size(m, m->head[i]);
    }
    if (found != index->n_term)
        return KF_NO_EL;
    return whole == m->n_heads && found == m->n_heads && index->start == 0 ? h : sum;
}

static kf_el variable_hook(kf_els *e, kf_el x, void *user);

/* A static tensor, indexed by what became of its indices. */
static kf_el captured(kf_attention_match *m, const kf_el_node *load)
{
    kf_els *e = m->t.e;
    const kf_type *t = kf_value_type(m->g, load->value);
    kf_el at[KF_MAX_RANK];

    for (uint8_t i = 0; i < t->rank; i++)
        if (t->dim[i].sym)
            return KF_NO_EL;
    if (t->kind != KF_TYPE_TENSOR || t->rank < 1 || t->rank > KF_SLOT_MAX_ARGS)
        return KF_NO_EL;
    for (uint8_t i = 0; i < load->n_arg; i++)
        at[i] = kf_el_map(e, load->arg[i], variable_hook, m);
    return kf_el_load(e, load->value, load->n_arg, at);
}

/* What no slot can read, by name. */
static kf_el unknown(kf_attention_match *m, const kf_el_node *n)
{
    const char *what = "a row, a key or a dim of the head";

    if (n->kind == KF_EL_LOAD) {
        const kf_node *def = kf_value_node(m->g, n->value);
        kf_str name = m->g->values.data[n->value].name;
        what =
            def ? kf_op_infos[def->op].name : kf_strf(m->cx->arena, "%%%.*s", KF_STR_ARG(name)).ptr;
    }
    kf_attention_refuse(m, KF_REASON_F0222, what);
    return kf_el_num(m->t.e, 0);
}

static kf_el variable_hook(kf_els *e, kf_el x, void *user)
{
    kf_attention_match *m = user;
    const kf_el_node n = *kf_el_at(e, x);
    kf_el y = KF_NO_EL;
    kf_atom row;

    if (x == m->scores)
        return kf_el_var(e, KF_ATTENTION_S);
    if (n.kind == KF_EL_SUM || n.kind == KF_EL_MAX) {
        kf_attention_refuse(m, KF_REASON_F0201, "a reduction stands between the products");
        return kf_el_num(e, 0);
    }
    if (n.kind == KF_EL_INDEX) {
        y = head_number(m, &n);
    } else if (n.kind == KF_EL_LOAD) {
        kf_value v = kf_attention_row_number(m, x, &row);
        if (kf_attention_is_key(m, x, KF_PLANE_POS)) {
            y = kf_el_var(e, KF_ATTENTION_K);
        } else if (v != KF_NO_VALUE && row == m->row && (m->pos == KF_NO_VALUE || m->pos == v)) {
            m->pos = v;
            y = kf_el_var(e, KF_ATTENTION_Q);
        } else {
            y = captured(m, &n);
        }
    } else {
        return KF_NO_EL;
    }
    return y != KF_NO_EL ? y : unknown(m, &n);
}

static void to_variables(kf_attention_match *m, kf_el *x)
{
    if (*x != KF_NO_EL)
        *x = kf_el_map(m->t.e, *x, variable_hook, m);
}

bool kf_attention_variables(kf_attention_match *m, kf_attention_work *w)
{
    to_variables(m, &w->mask);
    to_variables(m, &w->score);
    to_variables(m, &w->prob);
    to_variables(m, &w->sink);
    if (m->pos == KF_NO_VALUE)
        m->pos = m->seq; /* no slot asks for it */
    return m->why == KF_REASON_NONE;
}

/* ---- slots ----------------------------------------------------------------------------------- */

static const char *const names[] = {"s", "h", "q", "k"};

typedef struct writer {
    kf_attention_match *m;
    kf_slot_builder *b;
    uint32_t first; /* the variable that is parameter 0 */
    uint32_t n_params;
    uint32_t *done; /* per expression: instruction + 1 */
} writer;

static uint32_t write(writer *w, kf_el x);

/* ---- captures -------------------------------------------------------------------------------- */

static void capture(const kf_els *e, kf_el x, void *user)
{
    kf_attention_match *m = user;
    const kf_el_node *n = kf_el_at(e, x);

    if (n->kind != KF_EL_LOAD)
        return;
    for (uint32_t i = 0; i < m->n_captures; i++)
        if (m->capture[i] == n->value)
            return;
    if (m->n_captures == KF_MAX_CAPTURES)
        kf_attention_refuse(m, KF_REASON_F0201, "it reads too many tables");
    else
        m->capture[m->n_captures++] = n->value;
}

static uint32_t capture_number(const kf_attention_match *m, kf_value v)
{
    uint32_t i = 0;

    while (m->capture[i] != v)
        i++;
    return i;
}

static void is_load(const kf_els *e, kf_el x, void *user)
{
    *(bool *)user |= kf_el_at(e, x)->kind == KF_EL_LOAD;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* num/den * x without its sign. */
static uint32_t write_part(writer *w, const kf_el_part *p)
{
    uint32_t x = write(w, p->el);
    double num = fabs(p->num);

    if (p->den != 1)
        x = kf_slot_fn(w->b, KF_FN_div, x, kf_slot_const(w->b, p->den), 0);
    if (num != 1)
        x = kf_slot_fn(w->b, KF_FN_mul, x, kf_slot_const(w->b, num), 0);
    return x;
}

/* What is added first, then what is subtracted. */
static uint32_t write_add(writer *w, const kf_el_node *n)
{
    uint32_t sum = UINT32_MAX;

    for (uint8_t i = 0; i < n->n_part; i++) {
        if (n->part[i].num < 0)
            continue;
        uint32_t x = write_part(w, &n->part[i]);
        sum = sum == UINT32_MAX ? x : kf_slot_fn(w->b, KF_FN_add, sum, x, 0);
    }
    if (n->number != 0 && sum != UINT32_MAX)
        sum = kf_slot_fn(w->b, n->number > 0 ? KF_FN_add : KF_FN_sub, sum,
                         kf_slot_const(w->b, fabs(n->number)), 0);
    else if (n->number != 0)
        sum = kf_slot_const(w->b, n->number);
    for (uint8_t i = 0; i < n->n_part; i++) {
        if (n->part[i].num > 0)
            continue;
        uint32_t x = write_part(w, &n->part[i]);
        sum = sum == UINT32_MAX ? kf_slot_fn(w->b, KF_FN_neg, x, 0, 0)
                                : kf_slot_fn(w->b, KF_FN_sub, sum, x, 0);
    }
    return sum;
}

static uint32_t write_power(writer *w, uint32_t x, double power)
{
    uint32_t all = x;

    if (power == 2)
        return kf_slot_fn(w->b, KF_FN_square, x, 0, 0);
    for (double i = 1; i < power; i++)
        all = kf_slot_fn(w->b, KF_FN_mul, all, x, 0);
    return all;
}

static uint32_t write_mul(writer *w, const kf_el_node *n)
{
    uint32_t over = UINT32_MAX, under = UINT32_MAX, where = UINT32_MAX;

    for (uint8_t i = 0; i < n->n_part; i++) {
        const kf_el_part *p = &n->part[i];
        const kf_el_node *f = kf_el_at(w->m->t.e, p->el);
        double v;
        if (p->num == 1 && kf_el_is_fn(w->m->t.e, p->el, KF_FN_select) &&
            kf_el_number(w->m->t.e, f->arg[1], &v) && v == 1 &&
            kf_el_number(w->m->t.e, f->arg[2], &v) && v == 0) {
            where = write(w, f->arg[0]);
            continue;
        }
        uint32_t *side = p->num > 0 ? &over : &under;
        uint32_t x = write_power(w, write(w, p->el), fabs(p->num));
        *side = *side == UINT32_MAX ? x : kf_slot_fn(w->b, KF_FN_mul, *side, x, 0);
    }
    if (over == UINT32_MAX)
        over = under == UINT32_MAX ? kf_slot_const(w->b, 1)
                                   : kf_slot_fn(w->b, KF_FN_recip, under, 0, 0);
    else if (under != UINT32_MAX)
        over = kf_slot_fn(w->b, KF_FN_div, over, under, 0);
    return where == UINT32_MAX
               ? over
               : kf_slot_fn(w->b, KF_FN_select, where, over, kf_slot_const(w->b, 0));
}

static uint32_t write_new(writer *w, const kf_el_node *n)
{
    uint32_t arg[KF_MAX_RANK] = {0};

    if (n->kind == KF_EL_ADD)
        return write_add(w, n);
    if (n->kind == KF_EL_MUL)
        return write_mul(w, n);
    if (n->kind == KF_EL_VAR && n->var >= w->first && n->var < w->first + w->n_params)
        return kf_slot_param(w->b, n->var - w->first);
    if (n->kind == KF_EL_NUM || n->kind == KF_EL_INDEX)
        return kf_slot_const(w->b, n->kind == KF_EL_NUM ? n->number : (double)n->start);
    for (uint8_t i = 0; i < n->n_arg; i++)
        arg[i] = write(w, n->arg[i]);
    if (n->kind == KF_EL_LOAD)
        return kf_slot_load(w->b, capture_number(w->m, n->value), arg, n->n_arg);
    if (n->kind == KF_EL_FN)
        return kf_slot_fn(w->b, n->fn, arg[0], arg[1], arg[2]);
    kf_attention_refuse(w->m, KF_REASON_F0222,
                        "a sink that depends on the key, or a factor on the score");
    return kf_slot_const(w->b, 0);
}

static uint32_t write(writer *w, kf_el x)
{
    if (w->done[x])
        return w->done[x] - 1;
    if (kf_slot_builder_len(w->b) + KF_MAX_PARTS * 4 > KF_SLOT_MAX_INSTS) {
        kf_attention_refuse(w->m, KF_REASON_F0201, "it is too long a computation");
        return kf_slot_const(w->b, 0);
    }
    const kf_el_node n = *kf_el_at(w->m->t.e, x);
    uint32_t i = write_new(w, &n);
    w->done[x] = i + 1;
    return i;
}

/* |x| as a slot of |n_params| parameters from variable |first| on; NULL for KF_NO_EL. */
static const kf_slot *slot_of(kf_attention_match *m, kf_el x, uint32_t first, uint8_t n_params)
{
    kf_els *e = m->t.e;
    bool loads = false;

    if (x == KF_NO_EL)
        return NULL;
    kf_el_visit(e, x, is_load, &loads);
    writer w = {.m = m,
                .first = first,
                .n_params = n_params,
                .done = KF_NEW_N(m->cx->scratch, uint32_t, e->nodes.len)};
    w.b = kf_slot_builder_create(m->cx->arena, n_params, names + first,
                                 loads ? (uint8_t)m->n_captures : 0);
    uint32_t root = write(&w, x);
    return kf_slot_finish(w.b, root);
}

/* ---- the scale ------------------------------------------------------------------------------- */

typedef struct find_scale {
    kf_el s;
    bool found;
    kf_el_part part;
} find_scale;

/* s, or a product with s. */
static bool is_linear(const kf_els *e, kf_el x, kf_el s)
{
    const kf_el_node *n = kf_el_at(e, x);

    for (uint8_t i = 0; n->kind == KF_EL_MUL && i < n->n_part; i++)
        if (n->part[i].el == s && n->part[i].num == 1)
            return true;
    return x == s;
}

static void scale_in(const kf_els *e, kf_el x, void *user)
{
    find_scale *f = user;
    const kf_el_node *n = kf_el_at(e, x);

    for (uint8_t i = 0; n->kind == KF_EL_ADD && !f->found && i < n->n_part; i++) {
        if (!is_linear(e, n->part[i].el, f->s))
            continue;
        f->found = true;
        f->part = n->part[i];
    }
}

static kf_el unscale_hook(kf_els *e, kf_el x, void *user)
{
    const find_scale *f = user;

    if (x != f->s)
        return KF_NO_EL;
    kf_el num = kf_el_num(e, f->part.num), den = kf_el_num(e, f->part.den);
    return kf_el_fn(e, KF_FN_div, kf_el_fn(e, KF_FN_mul, x, den, 0), num, 0);
}

/* A factor of the product stands in |scale|, the rest in the slot. */
static kf_el take_scale(kf_attention_match *m, kf_el score)
{
    kf_els *e = m->t.e;
    find_scale f = {.s = kf_el_var(e, KF_ATTENTION_S)};

    m->attr.scale = 1;
    kf_el_visit(e, score, scale_in, &f);
    if (f.found) {
        m->attr.scale = f.part.num / f.part.den;
        score = kf_el_map(e, score, unscale_hook, &f);
    }
    return score == f.s ? KF_NO_EL : score;
}

bool kf_attention_slots(kf_attention_match *m, const kf_attention_work *w)
{
    kf_els *e = m->t.e;
    const kf_el part[] = {take_scale(m, w->score), w->mask, w->prob, w->sink};
    double v;

    for (int i = 0; i < 4; i++)
        if (part[i] != KF_NO_EL)
            kf_el_visit(e, part[i], capture, m);
    if (m->why != KF_REASON_NONE)
        return false;
    m->attr.score = slot_of(m, part[0], KF_ATTENTION_S, 4);
    bool all = kf_el_number(e, w->mask, &v) && v != 0;
    m->attr.mask = slot_of(m, all ? KF_NO_EL : w->mask, KF_ATTENTION_H, 3);
    m->attr.prob = slot_of(m, w->prob, KF_ATTENTION_H, 3);
    m->attr.sink = slot_of(m, w->sink, KF_ATTENTION_H, 1);
    return m->why == KF_REASON_NONE;
}
