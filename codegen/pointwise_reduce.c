/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions and products inside pointwise code: loops over the last axis in a fixed order.
 *
 *   acc[lanes] = init; for c in 0, lanes, ..: acc = step(acc, x[c..])     vectors of the row
 *   acc = reduce(acc);  for the remaining c:  acc = step(acc, x[c])       one by one
 *
 * An accumulator that needs another (sum_exp of max) takes a second sweep. argmax does not: it goes
 * along with max, so that no element is computed twice and could be found unequal to itself.
 */
#include "base/check.h"
#include "codegen/fn_emit.h"
#include "codegen/pointwise.h"

typedef struct sweep {
    kf_pw *pw;
    kf_value x;
    kf_accs accs;
    bool second;                /* of the accumulators that need another */
    kb_value done[KF_MAX_ACCS]; /* scalars of the first sweep */
    kb_value size;              /* row length, i64 */
    uint32_t axis;              /* the last one of x */
    kf_coord at[KF_MAX_RANK];
} sweep;

static bool needs_whole_row(kf_acc acc)
{
    return kf_acc_infos[acc].needs != KF_ACC_none && acc != KF_ACC_argmax;
}

static bool in_sweep(const sweep *s, uint32_t i)
{
    return needs_whole_row(s->accs.acc[i]) == s->second;
}

static uint32_t needed(const sweep *s, uint32_t i)
{
    for (uint32_t j = 0; j < i; j++)
        if (s->accs.acc[j] == kf_acc_infos[s->accs.acc[i]].needs)
            return j;
    KF_ASSERT(false, "an accumulator stands before the one it needs");
}

/* The columns of this step as numbers. */
static kb_value column_numbers(const sweep *s, uint32_t lanes)
{
    kb *b = s->pw->b;
    kb_value first = kb_trunc(b, s->at[s->axis].v, KB_I32);
    if (lanes > 1)
        first = kb_add(b, kb_splat(b, first, lanes), kb_iota(b, KB_I32, lanes));
    return kb_sitofp(b, first);
}

/* Accumulator |i| after the element |v|; |acc|: all of the sweep before it. */
static kb_value step(const sweep *s, uint32_t i, const kb_value *acc, kb_value v)
{
    kb *b = s->pw->b;
    const uint32_t lanes = kb_lanes_of(v);
    switch (s->accs.acc[i]) {
    case KF_ACC_max:
        return kb_fmax(b, v, acc[i]);
    case KF_ACC_min:
        return kb_fmin(b, v, acc[i]);
    case KF_ACC_sum:
        return kb_fadd(b, acc[i], v);
    case KF_ACC_sum_sq:
        return kb_fma(b, v, v, acc[i]);
    case KF_ACC_argmax: /* a later one of the same size is not greater; nor is NaN */
        return kb_select(b, kb_fcmp(b, KB_GT, v, acc[needed(s, i)]), column_numbers(s, lanes),
                         acc[i]);
    case KF_ACC_sum_exp: {
        kb_value m = s->done[needed(s, i)];
        kb_value none = kb_fcmp(b, KB_EQ, m, kb_f32(b, 1, -__builtin_inff()));
        m = kb_splat(b, kb_select(b, none, kb_f32(b, 1, 0.0f), m), lanes);
        kb_value arg = kb_fsub(b, v, m);
        return kb_fadd(b, acc[i], kf_emit_fn(b, KF_FN_exp, &arg));
    }
    case KF_ACC_sum_dev: {
        kb_value mean = kb_fdiv(b, s->done[needed(s, i)], kb_sitofp(b, s->size));
        kb_value d = kb_fsub(b, v, kb_splat(b, mean, lanes));
        return kb_fma(b, d, d, acc[i]);
    }
    default:
        break;
    }
    KF_ASSERT(false, "accumulator out of range");
}

static kb_value least(kb *b, kb_value v)
{
    return kb_fneg(b, kb_reduce_fmax(b, kb_fneg(b, v)));
}

/* The lanes of accumulator |i| as one number; |row|: the numbers of those before it. */
static kb_value across_lanes(const sweep *s, uint32_t i, const kb_value *acc, const kb_value *row)
{
    kb *b = s->pw->b;
    const uint32_t lanes = kb_lanes_of(acc[i]);
    if (lanes == 1)
        return acc[i];
    switch (s->accs.acc[i]) {
    case KF_ACC_max:
        return kb_reduce_fmax(b, acc[i]);
    case KF_ACC_min:
        return least(b, acc[i]);
    case KF_ACC_argmax: { /* the first of the lanes that hold the largest */
        const uint32_t m = needed(s, i);
        kb_value best = kb_fcmp(b, KB_EQ, acc[m], kb_splat(b, row[m], lanes));
        kb_value none = kb_f32(b, lanes, (float)kf_acc_infos[KF_ACC_argmax].init);
        return least(b, kb_select(b, best, acc[i], none));
    }
    default:
        return kb_reduce_fadd(b, acc[i]);
    }
}

/* acc = step(acc, x[lo..hi)), |lanes| at a time. */
static void sweep_span(sweep *s, kb_value lo, kb_value hi, uint32_t lanes, kb_value *acc)
{
    kb *b = s->pw->b;
    kb_value carried[KF_MAX_ACCS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->accs.n; i++)
        if (in_sweep(s, i))
            carried[n++] = acc[i];
    kb_loop l;
    kb_loop_begin(b, &l, lo, hi, lanes, n, carried);
    const uint32_t mark = kf_pw_mark(s->pw);
    s->at[s->axis] = kf_coord_ramp(l.iv, lanes, lanes);
    kb_value v = kf_pw_number(s->pw, s->x, s->at, lanes);
    for (uint32_t i = 0, j = 0; i < s->accs.n; i++)
        if (in_sweep(s, i))
            acc[i] = l.carried[j++];
    for (uint32_t i = 0, j = 0; i < s->accs.n; i++)
        if (in_sweep(s, i))
            carried[j++] = step(s, i, acc, v);
    kf_pw_release(s->pw, mark);
    kb_loop_end(b, &l, carried);
    for (uint32_t i = 0, j = 0; i < s->accs.n; i++)
        if (in_sweep(s, i))
            acc[i] = l.carried[j++];
}

static kb_value round_down(kb *b, kb_value v, uint32_t lanes)
{
    return kb_and(b, v, kb_i64(b, -(int64_t)lanes));
}

/* One pass over x[lo..hi); |lo| is a multiple of |lanes|. */
static void sweep_row(sweep *s, kb_value lo, kb_value hi, uint32_t lanes)
{
    kb *b = s->pw->b;
    kb_value acc[KF_MAX_ACCS], row[KF_MAX_ACCS];
    for (uint32_t i = 0; i < s->accs.n; i++)
        acc[i] = kb_f32(b, lanes, (float)kf_acc_infos[s->accs.acc[i]].init);
    kb_value whole = lanes > 1 ? kb_add(b, lo, round_down(b, kb_sub(b, hi, lo), lanes)) : hi;
    sweep_span(s, lo, whole, lanes, acc);
    int64_t from = 0, to = 1;
    const bool known = kb_is_const(whole, &from) && kb_is_const(hi, &to);
    for (uint32_t i = 0; i < s->accs.n; i++)
        row[i] = across_lanes(s, i, acc, row);
    if (lanes > 1 && !(known && from == to))
        sweep_span(s, whole, hi, 1, row);
    for (uint32_t i = 0; i < s->accs.n; i++)
        if (in_sweep(s, i))
            s->done[i] = row[i];
}

static uint32_t sweep_lanes(sweep *s, uint32_t align)
{
    const uint32_t lanes = kb_lanes(s->pw->b);
    if (align % lanes != 0)
        return 1;
    s->at[s->axis] = kf_coord_ramp(NULL, lanes, lanes);
    return kf_pw_feasible(s->pw, s->x, s->at) ? lanes : 1;
}

static void run_sweeps(sweep *s, kb_value lo, kb_value hi, uint32_t align)
{
    const uint32_t lanes = sweep_lanes(s, align);
    bool any[2] = {false, false};
    for (uint32_t i = 0; i < s->accs.n; i++)
        any[needs_whole_row(s->accs.acc[i])] = true;
    for (uint32_t i = 0; i < 2; i++) {
        s->second = i == 1;
        if (any[i])
            sweep_row(s, lo, hi, lanes);
    }
}

static bool row_known(kf_pw *pw, const kf_coord *ix, uint32_t rank)
{
    for (uint32_t i = 0; i < rank; i++)
        if (ix[i].kind == KF_COORD_RAMP || ix[i].kind == KF_COORD_VECTOR)
            pw->infeasible = true;
    return pw->b && !kf_pw_any_later(ix, rank);
}

const kb_value *kf_pw_row_accs(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    const kf_type *x = kf_value_type(pw->g, n->in[0]);
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);
    const uint32_t axis = x->rank - 1u;
    sweep s = {.pw = pw, .x = n->in[0], .accs = attr->acc, .axis = axis};
    const kb_value *held = pw->b && pw->leaves.accs ? pw->leaves.accs(pw->leaves.user, n) : NULL;
    if (held)
        return held;
    for (uint32_t i = 0; i < axis; i++)
        s.at[i] = ix[i];
    if (!row_known(pw, ix, axis)) {
        s.at[axis] = kf_coord_later();
        if (pw->b)
            kf_pw_prepare(pw, n->in[0], s.at);
        return NULL;
    }
    const kf_pw_memo *m = kf_pw_find(pw, n->out[0], KF_PW_ACCS, ix, axis);
    if (!m) {
        s.size = kf_pw_dim(pw, x->dim[axis]);
        if (attr->acc.n)
            run_sweeps(&s, kb_i64(pw->b, 0), s.size, kb_lanes(pw->b));
        kf_pw_remember(pw, n->out[0], KF_PW_ACCS, ix, axis, attr->acc.n, s.done);
        m = &pw->memo.data[pw->memo.len - 1];
    }
    return m->out;
}

/* ---- the map of row_reduce ------------------------------------------------------------------- */

typedef struct captured {
    kf_pw *pw;
    const kf_node *n;
    uint32_t column; /* parameter */
    kf_coord col;
} captured;

/* Capture at computed indices; at the column itself the load stays contiguous. */
static kb_value load_capture(void *user, const kf_slot *slot, const kf_slot_inst *load,
                             const kb_value *values)
{
    captured *c = user;
    kf_pw *pw = c->pw;
    kf_coord at[KF_MAX_RANK];
    const kf_value v = c->n->in[c->n->n_in - slot->captures + load->index];
    for (uint32_t i = 0; i < load->n_args; i++) {
        const kf_slot_inst *arg = &slot->inst[load->arg[i]];
        kb_value index = values[load->arg[i]];
        if (arg->op == KF_SLOT_PARAM && arg->index == c->column)
            at[i] = c->col;
        else
            at[i] = kf_coord_from_i32(pw->b, kb_fptosi(pw->b, index), kb_lanes_of(index));
    }
    return kf_pw_as_number(pw->b, kf_value_type(pw->g, v)->dtype, kf_pw_value(pw, v, at));
}

kb_value kf_pw_row_reduce(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);
    const uint32_t rank = kf_value_type(pw->g, n->out[0])->rank;
    const kb_value *accs = kf_pw_row_accs(pw, n, ix);
    kb_value params[KF_MAX_ACCS + 2];
    const uint32_t n_accs = attr->acc.n;
    for (uint32_t i = 0; accs && i < n_accs; i++)
        params[i + 1] = accs[i];
    kb_value v = NULL;
    if (attr->keep)
        v = kf_pw_number(pw, n->in[0], ix, 1);
    if (!pw->b || kf_pw_any_later(ix, rank))
        return NULL;
    params[0] = v ? v : kb_f32(pw->b, 1, 0.0f);
    if (!attr->map)
        return params[n_accs];
    captured c = {.pw = pw, .n = n, .column = n_accs + 1, .col = ix[rank - 1]};
    if (attr->map->n_params == n_accs + 2)
        params[n_accs + 1] =
            kb_sitofp(pw->b, kb_trunc(pw->b, kf_coord_lanes(pw->b, c.col), KB_I32));
    return kf_emit_num(pw->b, kf_emit_slot(pw->b, attr->map, params, load_capture, &c));
}

/* Of the statistics of the same blocks the one that |n|'s accumulators are the beginning of and that
 * goes on furthest: its sweeps give them all. */
static const kf_node *widest_stat(const kf_graph *g, const kf_node *n)
{
    const kf_attr_row_stat *a = KF_ATTR_OF(n, row_stat);
    const kf_node *widest = n;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *m = &g->nodes.data[i];
        if (m->op != KF_OP_row_stat || m->in[0] != n->in[0])
            continue;
        const kf_attr_row_stat *b = KF_ATTR_OF(m, row_stat);
        bool begins = b->block == a->block && b->acc.n > KF_ATTR_OF(widest, row_stat)->acc.n;
        for (uint32_t k = 0; begins && k < a->acc.n; k++)
            begins = a->acc.acc[k] == b->acc.acc[k];
        widest = begins ? m : widest;
    }
    return widest;
}

kb_value kf_pw_row_stat(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    kb *b = pw->b;
    const kf_node *all = widest_stat(pw->g, n);
    const kf_attr_row_stat *attr = KF_ATTR_OF(all, row_stat);
    sweep s = {.pw = pw, .x = n->in[0], .accs = attr->acc, .axis = 1, .at = {ix[0]}};
    if (!row_known(pw, ix, 2)) {
        s.at[1] = kf_coord_later();
        if (b)
            kf_pw_prepare(pw, n->in[0], s.at);
        return NULL;
    }
    const kf_pw_memo *m = kf_pw_find(pw, all->out[0], KF_PW_ACCS, ix, 2);
    if (!m) {
        kb_value lo = kb_muli(b, ix[1].v, attr->block);
        kb_value size = kf_pw_dim(pw, kf_value_type(pw->g, n->in[0])->dim[1]);
        kb_value hi = kb_min(b, kb_addi(b, lo, attr->block), size);
        s.size = kb_sub(b, hi, lo);
        run_sweeps(&s, lo, hi, (uint32_t)attr->block);
        kf_pw_remember(pw, all->out[0], KF_PW_ACCS, ix, 2, attr->acc.n, s.done);
        m = &pw->memo.data[pw->memo.len - 1];
    }
    return m->out[KF_ATTR_OF(n, row_stat)->acc.n - 1];
}

/* ---- products of two activations ------------------------------------------------------------- */

typedef struct product {
    kf_pw *pw;
    const kf_node *n;
    kf_coord a[KF_MAX_RANK], b[KF_MAX_RANK];
    kf_coord *a_k, *b_k; /* the contracted coordinate of each */
    uint32_t lanes;      /* of the result */
} product;

static kb_value product_span(product *p, kb_value lo, kb_value hi, uint32_t step, kb_value acc)
{
    kb *b = p->pw->b;
    kb_loop l;
    kb_loop_begin(b, &l, lo, hi, step, 1, &acc);
    const uint32_t mark = kf_pw_mark(p->pw);
    const uint32_t lanes = step > 1 ? step : p->lanes;
    *p->a_k = *p->b_k = kf_coord_ramp(l.iv, step, step);
    kb_value x = kf_pw_number(p->pw, p->n->in[0], p->a, lanes);
    kb_value y = kf_pw_number(p->pw, p->n->in[1], p->b, lanes);
    acc = kb_fma(b, x, y, l.carried[0]);
    kf_pw_release(p->pw, mark);
    kb_loop_end(b, &l, &acc);
    return l.carried[0];
}

static bool product_along_k(product *p)
{
    const uint32_t lanes = kb_lanes(p->pw->b);
    if (p->lanes > 1 || !KF_ATTR_OF(p->n, matmul)->trans_b)
        return false;
    *p->a_k = *p->b_k = kf_coord_ramp(NULL, lanes, lanes);
    return kf_pw_feasible(p->pw, p->n->in[0], p->a) && kf_pw_feasible(p->pw, p->n->in[1], p->b);
}

kb_value kf_pw_matmul(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    kb *b = pw->b;
    const kf_type *to = kf_value_type(pw->g, n->out[0]);
    const kf_type *ta = kf_value_type(pw->g, n->in[0]), *tb = kf_value_type(pw->g, n->in[1]);
    const bool trans = KF_ATTR_OF(n, matmul)->trans_b;
    const uint32_t ra = ta->rank, rb = tb->rank;
    product p = {.pw = pw, .n = n, .lanes = kf_pw_lanes_of(ix, to->rank)};
    for (uint32_t i = 0; i + 2 < ra; i++)
        p.a[i] =
            kf_dim_eq(ta->dim[i], kf_dim_static(1)) ? kf_coord_const(b, 0) : ix[to->rank - ra + i];
    for (uint32_t i = 0; i + 2 < rb; i++)
        p.b[i] =
            kf_dim_eq(tb->dim[i], kf_dim_static(1)) ? kf_coord_const(b, 0) : ix[to->rank - rb + i];
    p.a[ra - 2] = ix[to->rank - 2];
    p.b[trans ? rb - 2 : rb - 1] = ix[to->rank - 1];
    p.a_k = &p.a[ra - 1];
    p.b_k = &p.b[trans ? rb - 1 : rb - 2];
    if (!b || kf_pw_any_later(ix, to->rank)) {
        *p.a_k = *p.b_k = b ? kf_coord_later() : kf_coord_uniform(NULL, 1);
        kf_pw_prepare(pw, n->in[0], p.a);
        kf_pw_prepare(pw, n->in[1], p.b);
        return NULL;
    }
    kb_value zero = kb_i64(b, 0), size = kf_pw_dim(pw, ta->dim[ra - 1]);
    if (!product_along_k(&p))
        return product_span(&p, zero, size, 1, kb_f32(b, p.lanes, 0.0f));
    const uint32_t lanes = kb_lanes(b);
    kb_value whole = round_down(b, size, lanes);
    kb_value acc = kb_reduce_fadd(b, product_span(&p, zero, whole, lanes, kb_f32(b, lanes, 0.0f)));
    return product_span(&p, whole, size, 1, acc);
}
