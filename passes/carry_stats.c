/* SPDX-License-Identifier: Apache-2.0 */
/* carry_stats - carry a row statistic across the layer boundary as an iteration argument.
 *
 *   before   func @layer(%x, ...) { %s = row_stat %x ... return %y, ... }
 *            func @main { %1 = repeat 6 (%x0, ...) ;  %s1 = row_stat %1 }
 *   after    func @layer(%x, %s, ...) { ... %t = row_stat %y  return %y, %t, ... }
 *            func @main { %s0 = row_stat %x0 ; %1, %s1 = repeat 6 (%x0, %s0, ...) }
 *
 * The statistic of a layer's input then comes out of the epilogue that stored that input: the norm
 * fuses across the boundary, and no kernel reads the rows only to sum them.
 * Fires when    a repeated function takes the row_stat of one of its iteration arguments; each of
 *               several statistics is an argument of its own.
 * Must not fire when the function is repeated in several places, or has all the results there may
 *               be (F0211).
 * Why here      after fuse_norm, which makes the statistics; cse then merges %s1 with the repeat's
 *               result.
 * Needs topological order. Keeps nothing. Terminates: the row_stat of an argument becomes an
 * argument.
 */
#include "passes/match.h"

#include <string.h>

/** The repeat of |caller| at node |node| that calls |callee|. */
typedef struct call {
    kf_graph *caller, *callee;
    uint32_t node;
} call;

/* How many repeats call |callee|; |out| is the last of them. */
static uint32_t find_call(kf_module *m, kf_graph *callee, call *out)
{
    uint32_t found = 0;

    KF_EACH_FUNC(m, g)
    {
        for (uint32_t i = 0; i < g->nodes.len; i++) {
            const kf_node *n = &g->nodes.data[i];
            if (n->op == KF_OP_repeat && kf_str_eq(KF_ATTR_OF(n, repeat)->callee, callee->name)) {
                *out = (call){g, callee, i};
                found++;
            }
        }
    }
    return found;
}

static kf_value stat_like(kf_graph *g, kf_value x, const kf_attr_row_stat *attr, kf_loc loc)
{
    return kf_node_add(g, KF_OP_row_stat, attr, 1, &x, NULL, loc);
}

/* Puts value |v| at place |at| of a list of values. */
static void insert_value(kf_arena *a, kf_value **data, uint32_t *len, uint32_t at, kf_value v)
{
    kf_value *wider = KF_NEW_N(a, kf_value, *len + 1);

    memcpy(wider, *data, at * sizeof v);
    wider[at] = v;
    memcpy(wider + at + 1, *data + at, (*len - at) * sizeof v);
    *data = wider;
    (*len)++;
}

/* The callee gains argument and result number |iter|; returns the argument. */
static kf_value widen_callee(kf_graph *g, uint32_t iter, uint32_t x_arg, uint32_t stat_node)
{
    kf_arena *a = g->module->arena;
    const kf_node stat = g->nodes.data[stat_node];
    kf_str name = kf_strf(a, "%.*s_stat", KF_STR_ARG(g->values.data[g->args.data[x_arg]].name));
    kf_value arg = kf_graph_add_arg(g, *kf_value_type(g, stat.out[0]), name, stat.loc);

    g->args.len--; /* from the end to its place */
    insert_value(a, &g->args.data, &g->args.len, iter, arg);
    g->args.cap = g->args.len;
    for (uint32_t i = 0; i < g->args.len; i++)
        g->values.data[g->args.data[i]].def = i;
    kf_graph_replace(g, stat.out[0], arg);
    g->nodes.data[stat_node].op = KF_OP_NONE;
    kf_value next = stat_like(g, g->results.data[x_arg], stat.attr, stat.loc);
    insert_value(a, &g->results.data, &g->results.len, iter, next);
    g->results.cap = g->results.len;
    return arg;
}

static void widen_call(const call *c, uint32_t iter, uint32_t x_arg, const kf_attr_row_stat *stat)
{
    kf_graph *g = c->caller;
    kf_arena *a = g->module->arena;
    const kf_node old = g->nodes.data[c->node];
    kf_attr_repeat *attr = KF_ATTR_NEW(a, repeat);
    kf_value *in = KF_NEW_N(a, kf_value, old.n_in);
    uint32_t n_in = old.n_in;

    *attr = *KF_ATTR_OF(&old, repeat);
    attr->iter++;
    memcpy(in, old.in, old.n_in * sizeof *in);
    insert_value(a, &in, &n_in, iter, stat_like(g, old.in[x_arg], stat, old.loc));
    kf_value first = kf_node_add(g, KF_OP_repeat, attr, n_in, in, NULL, old.loc);
    for (uint32_t r = 0; r < old.n_out; r++)
        kf_graph_replace(g, old.out[r], first + r + (r >= iter ? 1 : 0));
    /* A row_stat of the rows that come out is the statistic that comes out. */
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_row_stat && n->in[0] == first + x_arg &&
            kf_attr_eq(KF_ATTR_row_stat, n->attr, stat))
            kf_graph_replace(g, n->out[0], first + iter);
    }
    g->nodes.data[c->node].op = KF_OP_NONE;
    kf_graph_compact(g);
}

/* The next row_stat of an iteration argument from |*node| on, or false. */
static bool find_stat(const kf_graph *g, uint32_t iter, uint32_t *node, uint32_t *out_arg)
{
    for (; *node < g->nodes.len; (*node)++) {
        const kf_node *n = &g->nodes.data[*node];
        if (n->op != KF_OP_row_stat || !kf_value_is_arg(g, n->in[0]))
            continue;
        *out_arg = g->values.data[n->in[0]].def;
        if (*out_arg < iter)
            return true;
    }
    return false;
}

/* Carries the statistic at |stat_node|, unless something stands in the way, which is logged. */
static bool carry(const call *c, uint32_t n_calls, uint32_t stat_node, uint32_t x_arg,
                  kf_pass_ctx *cx)
{
    kf_graph *g = c->callee;
    const kf_node stat = g->nodes.data[stat_node];
    const kf_node *repeat = &c->caller->nodes.data[c->node];
    uint32_t iter = (uint32_t)KF_ATTR_OF(repeat, repeat)->iter;
    kf_str name = g->values.data[stat.in[0]].name, what = {0};

    if (n_calls > 1)
        what = KF_STR("the function is repeated in several places");
    else if (repeat->n_out == KF_MAX_RESULTS)
        what = KF_STR("too many results");
    if (what.len) {
        kf_report_refused(cx, g, stat.loc, KF_REASON_F0211, what, "statistic %%%.*s -> layer",
                          KF_STR_ARG(name));
        return false;
    }
    if (!kf_report_fused(cx, g, stat.loc, "statistic %%%.*s -> layer", KF_STR_ARG(name)))
        return false;
    widen_callee(g, iter, x_arg, stat_node);
    kf_graph_compact(g);
    widen_call(c, iter, x_arg, stat.attr);
    return true;
}

bool kf_pass_carry_stats(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        call c = {0};
        uint32_t n_calls = find_call(m, g, &c), node = 0, x_arg = 0;
        while (n_calls &&
               find_stat(g, (uint32_t)KF_ATTR_OF(&c.caller->nodes.data[c.node], repeat)->iter,
                         &node, &x_arg)) {
            if (!carry(&c, n_calls, node, x_arg, cx)) {
                node++;
                continue;
            }
            progress = true;
            n_calls = find_call(m, g, &c);
            node = 0; /* numbers have changed */
        }
    }
    return progress;
}
