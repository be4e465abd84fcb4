/* SPDX-License-Identifier: Apache-2.0 */
/* norm_stream - see norm_stream.h. */
#include "passes/norm_stream.h"

#include "base/check.h"
#include "ir/phase.h"

#include <math.h>

/* ---- norms ----------------------------------------------------------------------------------- */

/* By how much each instruction changes when 1 is added to the row, or NAN for "not by a constant".
 * The sum then grows by the width, the deviations stay. */
static double shift_of(const kf_slot_inst *in, const double *shift, const kf_slot_inst *all,
                       const double *of_param)
{
    const double a = in->n_args > 0 ? shift[in->arg[0]] : 0;
    const double b = in->n_args > 1 ? shift[in->arg[1]] : 0;
    bool still = true;

    if (in->op == KF_SLOT_CONST)
        return 0;
    if (in->op == KF_SLOT_PARAM)
        return of_param[in->index];
    if (in->op == KF_SLOT_LOAD)
        return NAN;
    for (uint32_t k = 0; k < in->n_args; k++)
        still = still && shift[in->arg[k]] == 0;
    if (still)
        return 0;
    const kf_slot_inst *x = &all[in->arg[0]], *y = in->n_args > 1 ? &all[in->arg[1]] : NULL;
    double moved = NAN;
    if (in->fn == KF_FN_add)
        moved = a + b;
    else if (in->fn == KF_FN_sub)
        moved = a - b;
    else if (in->fn == KF_FN_neg)
        moved = -a;
    else if (in->fn == KF_FN_mul && y && y->op == KF_SLOT_CONST)
        moved = a * y->value;
    else if (in->fn == KF_FN_mul && x->op == KF_SLOT_CONST)
        moved = b * x->value;
    else if (in->fn == KF_FN_div && y && y->op == KF_SLOT_CONST)
        moved = a / y->value;
    return fabs(moved) < 1e-12 ? 0 : moved; /* n * (1 / n) is 1 but for rounding */
}

bool kf_ignores_shift(const kf_graph *g, const kf_node *n)
{
    if (n->op != KF_OP_row_reduce || kf_value_type(g, n->in[0])->rank != 2)
        return false;
    const kf_attr_row_reduce *a = KF_ATTR_OF(n, row_reduce);
    kf_dim width = kf_value_type(g, n->in[0])->dim[1];
    if (!a->map || a->map->n_params != 3 || a->map->captures || n->n_in != 1 ||
        !kf_dim_is_static(width) || a->acc.n != 2 || a->acc.acc[0] != KF_ACC_sum ||
        a->acc.acc[1] != KF_ACC_sum_dev || !a->keep)
        return false;
    const double of_param[] = {1, (double)width.size, 0}; /* element, sum, deviations */
    double shift[KF_SLOT_MAX_INSTS];
    for (uint32_t i = 0; i < a->map->n_insts; i++)
        shift[i] = shift_of(&a->map->inst[i], shift, a->map->inst, of_param);
    return shift[a->map->n_insts - 1] == 0;
}

/* ---- the closure ----------------------------------------------------------------------------- */

typedef struct value_ref {
    uint32_t func;
    kf_value v;
} value_ref;

typedef struct finder {
    const kf_module *m;
    kf_arena *scratch;
    bool narrow; /* weights narrower than f32 may be rounded anew */
    kf_stream s;
    KF_VEC(value_ref) work;
} finder;

static void refuse(finder *f, uint32_t func, uint32_t node, kf_reason reason)
{
    if (f->s.reason)
        return;
    f->s.reason = reason;
    f->s.where = (kf_node_ref){f->m->funcs.data[func], node};
}

static void need(finder *f, uint32_t func, kf_value v)
{
    if (f->s.in[func][v])
        return;
    f->s.in[func][v] = true;
    kf_vec_push(f->scratch, &f->work, ((value_ref){func, v}));
}

static uint32_t func_named(const kf_module *m, kf_str name)
{
    for (uint32_t i = 0; i < m->funcs.len; i++)
        if (kf_str_eq(m->funcs.data[i]->name, name))
            return i;
    KF_ASSERT(false, "a repeat calls a function of the module");
    return 0;
}

/* A factor that is one number for all columns of a row. */
static bool is_row_factor(const kf_graph *g, kf_value v)
{
    const kf_type *t = kf_value_type(g, v);

    return t->rank == 0 || kf_dim_is_one(t->dim[t->rank - 1]);
}

static bool is_vector(const finder *f, const kf_graph *g, kf_value v)
{
    const kf_type *t = kf_value_type(g, v);

    return kf_value_is_param(g, v) && t->rank == 1 && t->dim[0].size == f->s.width;
}

/* A weight that has to be rewritten, for which it must be f32. */
static void add_writer(finder *f, uint32_t func, uint32_t node, uint32_t operand, uint8_t axis)
{
    kf_graph *g = f->m->funcs.data[func];
    kf_stream_writer w = {{g, node}, operand, axis};

    if (kf_value_type(g, g->nodes.data[node].in[operand])->dtype != KF_DTYPE_f32 && !f->narrow)
        refuse(f, func, node, KF_REASON_F0205);
    kf_vec_push(f->scratch, &f->s.writers, w);
}

/* Operand |k| of a repeat and what is the same rows inside and behind it. */
static void need_round(finder *f, uint32_t func, uint32_t node, uint32_t k)
{
    const kf_node *n = &f->m->funcs.data[func]->nodes.data[node];
    const kf_attr_repeat *a = KF_ATTR_OF(n, repeat);
    uint32_t callee = func_named(f->m, a->callee);
    const kf_graph *c = f->m->funcs.data[callee];

    need(f, func, n->in[k]);
    need(f, callee, c->args.data[k]);
    if (k >= a->iter)
        return;
    need(f, func, n->out[k]);
    need(f, callee, c->results.data[k]);
}

/* All calls of a function one of whose arguments or results is in the stream. An entry is called
 * with what nobody rewrites. */
static void need_calls(finder *f, uint32_t func, uint32_t k, kf_reason if_none)
{
    bool is_called = false;

    for (uint32_t i = 0; i < f->m->funcs.len; i++) {
        const kf_graph *g = f->m->funcs.data[i];
        for (uint32_t j = 0; j < g->nodes.len; j++) {
            const kf_node *n = &g->nodes.data[j];
            if (n->op != KF_OP_repeat ||
                !kf_str_eq(KF_ATTR_OF(n, repeat)->callee, f->m->funcs.data[func]->name))
                continue;
            need_round(f, i, j, k);
            is_called = true;
        }
    }
    if (!is_called || kf_is_entry(f->m->funcs.data[func]->name))
        refuse(f, func, UINT32_MAX, if_none);
}

static void follow_sum(finder *f, uint32_t func, uint32_t node)
{
    const kf_graph *g = f->m->funcs.data[func];
    const kf_node *n = &g->nodes.data[node];

    for (uint32_t i = 0; i < 2; i++) {
        if (is_vector(f, g, n->in[i]))
            add_writer(f, func, node, i, 0);
        else if (kf_type_eq(kf_value_type(g, n->in[i]), kf_value_type(g, n->out[0])))
            need(f, func, n->in[i]);
        else
            refuse(f, func, node, KF_REASON_F0214);
    }
}

/* Whole rows of a table or of other rows, not single numbers. */
static bool gathers_rows(const kf_graph *g, const kf_node *n)
{
    return kf_value_type(g, n->in[0])->rank == 2;
}

/* What gives the rows |v|. */
static void follow_def(finder *f, uint32_t func, kf_value v)
{
    const kf_graph *g = f->m->funcs.data[func];
    const kf_value_info *info = &g->values.data[v];
    uint32_t node = info->def;

    if (info->kind == KF_VALUE_ARG) {
        need_calls(f, func, info->def, KF_REASON_F0214);
        return;
    }
    if (info->kind == KF_VALUE_PARAM) {
        refuse(f, func, UINT32_MAX, KF_REASON_F0214);
        return;
    }
    const kf_node *n = &g->nodes.data[node];
    if (n->op == KF_OP_add)
        follow_sum(f, func, node);
    else if (n->op == KF_OP_mul && is_row_factor(g, n->in[1]))
        need(f, func, n->in[0]);
    else if (n->op == KF_OP_mul && is_row_factor(g, n->in[0]))
        need(f, func, n->in[1]);
    else if (n->op == KF_OP_gather && kf_value_is_param(g, n->in[0]) && gathers_rows(g, n))
        add_writer(f, func, node, 0, 1);
    else if (n->op == KF_OP_gather && gathers_rows(g, n))
        need(f, func, n->in[0]);
    else if (kf_node_is_linear(g, n))
        add_writer(f, func, node, 1, 0);
    else if (n->op == KF_OP_repeat && info->result < KF_ATTR_OF(n, repeat)->iter)
        need_round(f, func, node, info->result);
    else
        refuse(f, func, node, KF_REASON_F0214);
}

static void add_norm(finder *f, uint32_t func, uint32_t node)
{
    kf_vec_push(f->scratch, &f->s.norms, ((kf_node_ref){f->m->funcs.data[func], node}));
}

/* Node |node| reads the rows as operand |k|. */
static void follow_use(finder *f, uint32_t func, uint32_t node, uint32_t k)
{
    const kf_graph *g = f->m->funcs.data[func];
    const kf_node *n = &g->nodes.data[node];

    if (kf_ignores_shift(g, n))
        add_norm(f, func, node);
    else if (n->op == KF_OP_add || (n->op == KF_OP_gather && k == 0) ||
             (n->op == KF_OP_mul && is_row_factor(g, n->in[1 - k])))
        need(f, func, n->out[0]);
    else if (n->op == KF_OP_repeat)
        need_round(f, func, node, k);
    else
        refuse(f, func, node, KF_REASON_F0213);
}

static void follow_uses(finder *f, uint32_t func, kf_value v)
{
    const kf_graph *g = f->m->funcs.data[func];

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t k = 0; n->op != KF_OP_NONE && k < n->n_in; k++)
            if (n->in[k] == v)
                follow_use(f, func, i, k);
    }
    for (uint32_t i = 0; i < g->results.len; i++) {
        if (g->results.data[i] == v)
            need_calls(f, func, i, KF_REASON_F0213);
    }
}

kf_stream kf_stream_find(const kf_module *m, kf_graph *g, uint32_t index, const kf_pass_ctx *cx)
{
    kf_arena *scratch = cx->scratch;
    finder f = {.m = m, .scratch = scratch, .narrow = cx->fold_narrow};
    kf_value rows = g->nodes.data[index].in[0];

    f.s.width = kf_value_type(g, rows)->dim[1].size;
    f.s.in = KF_NEW_N(scratch, bool *, m->funcs.len);
    f.s.known = KF_NEW_N(scratch, uint32_t, m->funcs.len);
    for (uint32_t i = 0; i < m->funcs.len; i++) {
        f.s.known[i] = m->funcs.data[i]->values.len;
        f.s.in[i] = KF_NEW_N(scratch, bool, f.s.known[i] + 1);
    }
    need(&f, func_named(m, g->name), rows);
    while (f.work.len && !f.s.reason) {
        value_ref at = f.work.data[--f.work.len];
        follow_uses(&f, at.func, at.v);
        follow_def(&f, at.func, at.v);
    }
    return f.s;
}
