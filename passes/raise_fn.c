/* SPDX-License-Identifier: Apache-2.0 */
/* raise_fn - a tree of scalar functions of one value becomes the function that it computes.
 *
 *   before   %1 = mul %0, 0.70710678 ; %2 = erf %1 ; %3 = add %2, 1
 *            %4 = mul %0, %3 ; %5 = mul %4, 0.5
 *   after    %5 = gelu %0
 *
 * An activation that is written out has many spellings: factors in any order, quotients or
 * reciprocals, a sigmoid or its exponential. They are not matched one by one: the tree is
 * evaluated at sample points and compared with every unary row of fn.def. Trees and rows are made
 * of smooth functions only, so that agreement at the points is agreement between them, and a new
 * row of fn.def is recognised in all its spellings without a line here.
 * Fires when    smooth functions of one value and constants agree with a row to 2e-6, which is what
 *               constants of seven digits allow.
 * Must not fire when a constant differs by more (0.0447 for 0.044715) or an epsilon is added, or the tree holds a function
 *               with a kink (a clamp beyond the points would go unnoticed).
 * Why here      first: every pass that matches sees one op for an activation.
 * Needs topological order. Keeps nothing. Terminates: each step leaves
 * fewer functions of two operands, or fewer functions.
 */
#include "passes/match.h"

#include <math.h>

/** |node|: the tree's nodes in topological order; the root last. */
enum { MAX_TREE = 24, SAMPLES = 51, SAMPLES_NEAR = 40 };

typedef struct tree {
    const kf_graph *g;
    uint32_t n;
    uint32_t node[MAX_TREE];
} tree;

static double sample_at(uint32_t i)
{
    static const double far[SAMPLES - SAMPLES_NEAR] = {-300, -80,  -25, -12.5, -1e-3, 0,
                                                       1e-3, 12.5, 25,  80,    300};

    return i < SAMPLES_NEAR ? -6.0 + 12.0 * (i + 0.37) / SAMPLES_NEAR : far[i - SAMPLES_NEAR];
}

static bool is_smooth(const kf_node *n)
{
    return kf_op_is_fn(n->op) && !(kf_op_infos[n->op].traits & KF_KINK) &&
           kf_fn_infos[n->op].result == KF_FN_RESULT_num;
}

/* Same type, or a constant: what may stand inside a tree. */
static bool grows(const kf_graph *g, kf_value v, const kf_type *type)
{
    const kf_node *n = kf_value_node(g, v);

    return n && is_smooth(n) && kf_type_eq(kf_value_type(g, v), type);
}

static bool holds(const tree *t, uint32_t node)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (t->node[i] == node)
            return true;
    return false;
}

/* Node numbers ascend along operands, so sorting them is topological order. */
static void sort_nodes(tree *t)
{
    for (uint32_t i = 1; i < t->n; i++)
        for (uint32_t j = i; j > 0 && t->node[j - 1] > t->node[j]; j--) {
            uint32_t node = t->node[j];
            t->node[j] = t->node[j - 1];
            t->node[j - 1] = node;
        }
}

/* Everything below |root| that may belong to it, nearest first, as far as there is room. */
static tree collect(const kf_graph *g, uint32_t root)
{
    tree t = {g, 1, {root}};
    const kf_type *type = kf_value_type(g, g->nodes.data[root].out[0]);

    for (uint32_t i = 0; i < t.n; i++) {
        const kf_node *n = &g->nodes.data[t.node[i]];
        for (uint32_t j = 0; j < n->n_in && t.n < MAX_TREE; j++)
            if (grows(g, n->in[j], type) && !holds(&t, g->values.data[n->in[j]].def))
                t.node[t.n++] = g->values.data[n->in[j]].def;
    }
    sort_nodes(&t);
    return t;
}

/* The tree's value where |leaf| is |x|; false if it depends on something else. */
static bool evaluate(const tree *t, kf_value leaf, double x, double *out)
{
    double value[MAX_TREE];
    bool known[MAX_TREE];

    for (uint32_t i = 0; i < t->n; i++) {
        const kf_node *n = &t->g->nodes.data[t->node[i]];
        double arg[3] = {0};
        known[i] = true;
        for (uint32_t j = 0; j < n->n_in; j++) {
            bool found = n->in[j] == leaf;
            if (found)
                arg[j] = x;
            else
                found = kf_value_const(t->g, n->in[j], &arg[j]);
            for (uint32_t k = 0; k < i && !found; k++)
                if (t->g->nodes.data[t->node[k]].out[0] == n->in[j] && known[k]) {
                    arg[j] = value[k];
                    found = true;
                }
            known[i] = known[i] && found;
        }
        value[i] = kf_fn_eval((kf_fn)n->op, arg[0], arg[1], arg[2]);
    }
    *out = value[t->n - 1];
    return known[t->n - 1];
}

/* Tails are differences of numbers near 1; around 0, where an added epsilon shows, nothing is. */
static bool agree(double x, double a, double b)
{
    double least = fabs(x) > 1 ? 1e-14 : 1e-16;

    if (!isfinite(a) || !isfinite(b))
        return a == b || (isnan(a) && isnan(b));
    return fabs(a - b) <= 2e-6 * fabs(b) + least;
}

/* The row of fn.def that has these values at the samples, or KF_FN_COUNT. */
static kf_fn find_row(const double *value)
{
    uint32_t numbers = 0;

    for (uint32_t i = 0; i < SAMPLES; i++)
        numbers += isfinite(value[i]) != 0;
    if (2 * numbers < SAMPLES)
        return KF_FN_COUNT;
    for (kf_fn fn = 0; fn < KF_FN_COUNT; fn++) {
        const kf_fn_info *info = &kf_fn_infos[fn];
        bool same = info->arity == 1 && info->result == KF_FN_RESULT_num &&
                    !(kf_op_infos[fn].traits & KF_KINK);
        for (uint32_t i = 0; i < SAMPLES && same; i++)
            same = agree(sample_at(i), value[i], kf_fn_eval(fn, sample_at(i), 0, 0));
        if (same)
            return fn;
    }
    return KF_FN_COUNT;
}

static kf_fn match_leaf(const tree *t, kf_value leaf)
{
    double value[SAMPLES];

    for (uint32_t i = 0; i < SAMPLES; i++)
        if (!evaluate(t, leaf, sample_at(i), &value[i]))
            return KF_FN_COUNT;
    return find_row(value);
}

static bool try_raise(kf_graph *g, uint32_t root, kf_pass_ctx *cx)
{
    const kf_node n = g->nodes.data[root];
    const tree t = collect(g, root);
    double c;

    for (uint32_t i = 0; i < t.n; i++) {
        const kf_node *at = &g->nodes.data[t.node[i]];
        for (uint32_t j = 0; j < at->n_in; j++) {
            kf_value leaf = at->in[j];
            if (!kf_type_eq(kf_value_type(g, leaf), kf_value_type(g, n.out[0])) ||
                kf_value_const(g, leaf, &c))
                continue;
            kf_fn fn = match_leaf(&t, leaf);
            if (fn == KF_FN_COUNT || (n.n_in == 1 && n.in[0] == leaf))
                continue;
            if (!kf_report_fused(cx, g, n.loc, "elementwise %s -> elementwise %s",
                                 kf_op_infos[n.op].name, kf_fn_infos[fn].name))
                return false;
            kf_graph_replace(g, n.out[0], kf_node_1(g, (kf_op)fn, leaf, n.loc));
            g->nodes.data[root].op = KF_OP_NONE;
            return true;
        }
    }
    return false;
}

bool kf_pass_raise_fn(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        bool changed = false;
        for (uint32_t i = g->nodes.len; i-- > 0;) {
            const kf_node *n = &g->nodes.data[i];
            if (n->op != KF_OP_NONE && is_smooth(n))
                changed |= try_raise(g, i, cx);
        }
        if (changed)
            kf_graph_compact(g);
        progress |= changed;
    }
    return progress;
}
