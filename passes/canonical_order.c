/* SPDX-License-Identifier: Apache-2.0 */
#include "passes/canonical_order.h"

#include "ir/structure.h"
#include "passes/match.h"

#include <string.h>

/* ---- operands -------------------------------------------------------------------------------- */

/* What has the result's shape first, then what is broadcast, then parameters, constants last. */
static int operand_rank(const kf_graph *g, const kf_node *n, kf_value v)
{
    double c;

    if (kf_value_const(g, v, &c))
        return 3;
    if (kf_value_is_param(g, v))
        return 2;
    return kf_type_static_elems(kf_value_type(g, v)) <
           kf_type_static_elems(kf_value_type(g, n->out[0]));
}

typedef struct order {
    const kf_graph *g;
    const uint64_t *shape, *full; /* structure without and with the names of tensors */
    const uint32_t *depth;        /* ops on the longest way from the arguments */
} order;

static int by_number(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* What two values differ in first, seen from their own ops downwards; what lies above both, and
 * names, do not count. Below 0 when |x| stands first. Unequal hashes have a cause below, so the
 * descent follows one path. */
static int compare_values(const order *o, kf_value x, kf_value y)
{
    while (o->shape[x] != o->shape[y]) {
        const kf_node *a = kf_value_node(o->g, x), *b = kf_value_node(o->g, y);
        uint32_t i = 0;
        if (!a || !b)
            return a ? 1 : b ? -1 : by_number(o->shape[x], o->shape[y]);
        if (a->op != b->op)
            return (int)a->op - (int)b->op;
        if (a->n_in != b->n_in)
            return (int)a->n_in - (int)b->n_in;
        kf_attr_kind kind = kf_op_infos[a->op].attr;
        int c = kind == KF_ATTR_none
                    ? 0
                    : by_number(kf_attr_hash(kind, a->attr), kf_attr_hash(kind, b->attr));
        if (!c)
            c = by_number(kf_type_hash(kf_value_type(o->g, x)),
                          kf_type_hash(kf_value_type(o->g, y)));
        if (c)
            return c;
        while (i < a->n_in && o->shape[a->in[i]] == o->shape[b->in[i]])
            i++;
        if (i == a->n_in)
            return by_number(o->shape[x], o->shape[y]);
        x = a->in[i];
        y = b->in[i];
    }
    return 0;
}

/* Kind first; then what is computed earlier, which is the stream of a residual wherever that comes
 * from; then structure. Only between operands of one structure, which may change places in a kernel
 * without trace, names decide. */
static bool in_order(const order *o, const kf_node *n)
{
    kf_value x = n->in[0], y = n->in[1];
    int c = operand_rank(o->g, n, x) - operand_rank(o->g, n, y);

    if (!c)
        c = by_number(o->depth[x], o->depth[y]);
    if (!c)
        c = compare_values(o, x, y);
    return c ? c < 0 : o->full[x] <= o->full[y];
}

static const uint32_t *depths(const kf_graph *g, kf_arena *scratch)
{
    uint32_t *depth = KF_NEW_N(scratch, uint32_t, g->values.len);

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        uint32_t most = 0;
        for (uint32_t k = 0; k < n->n_in; k++)
            most = depth[n->in[k]] > most ? depth[n->in[k]] : most;
        for (uint32_t r = 0; n->op != KF_OP_NONE && r < n->n_out; r++)
            depth[n->out[r]] = most + 1;
    }
    return depth;
}

/* Operands stand before their readers, so what is compared has its order already. */
bool kf_order_operands(kf_graph *g, kf_arena *scratch)
{
    order o = {g, kf_graph_structure(g, KF_WITHOUT_TENSORS, scratch),
               kf_graph_structure(g, KF_WITH_TENSORS, scratch), depths(g, scratch)};
    bool changed = false;

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_NONE || !(kf_op_infos[n->op].traits & KF_COMM) || in_order(&o, n))
            continue;
        kf_value first = n->in[0];
        n->in[0] = n->in[1];
        n->in[1] = first;
        changed = true;
    }
    return changed;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static void visit(const kf_graph *g, kf_value v, uint32_t *rank, uint32_t *next)
{
    const kf_node *n = kf_value_node(g, v);

    if (rank[v])
        return;
    rank[v] = 1;
    if (!n) {
        rank[v] = (*next)++;
        return;
    }
    for (uint32_t i = 0; i < n->n_in; i++)
        visit(g, n->in[i], rank, next);
    for (uint32_t r = 0; r < n->n_out; r++)
        rank[n->out[r]] = (*next)++;
}

bool kf_order_nodes(kf_graph *g, kf_arena *scratch)
{
    uint32_t *rank = KF_NEW_N(scratch, uint32_t, g->values.len), next = 2;
    kf_node *sorted = KF_NEW_N(scratch, kf_node, g->nodes.len);
    const uint32_t *by_rank;
    bool changed = false;

    for (uint32_t i = 0; i < g->results.len; i++)
        visit(g, g->results.data[i], rank, &next);
    uint32_t *node_at = KF_NEW_N(scratch, uint32_t, next),
             *param_at = KF_NEW_N(scratch, uint32_t, next);
    for (uint32_t i = 0; i < g->nodes.len; i++)
        if (g->nodes.data[i].op != KF_OP_NONE && rank[g->nodes.data[i].out[0]])
            node_at[rank[g->nodes.data[i].out[0]]] = i + 1;
    for (uint32_t i = 0; i < g->params.len; i++)
        if (rank[g->params.data[i]])
            param_at[rank[g->params.data[i]]] = i + 1;
    by_rank = node_at;
    uint32_t n = 0, p = 0;
    const kf_recipe **recipes = KF_NEW_N(scratch, const kf_recipe *, g->params.len);
    kf_value *params = KF_NEW_N(scratch, kf_value, g->params.len);
    for (uint32_t i = 0; i < next; i++) {
        if (by_rank[i]) {
            changed |= n != by_rank[i] - 1;
            sorted[n++] = g->nodes.data[by_rank[i] - 1];
        }
        if (param_at[i]) {
            changed |= p != param_at[i] - 1;
            params[p] = g->params.data[param_at[i] - 1];
            recipes[p++] = g->recipes.data[param_at[i] - 1];
        }
    }
    changed |= n != g->nodes.len || p != g->params.len;
    if (n)
        memcpy(g->nodes.data, sorted, n * sizeof *sorted);
    if (p) {
        memcpy(g->params.data, params, p * sizeof *params);
        memcpy(g->recipes.data, recipes, p * sizeof *recipes);
    }
    g->nodes.len = n;
    g->params.len = g->recipes.len = p;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t r = 0; r < g->nodes.data[i].n_out; r++)
            g->values.data[g->nodes.data[i].out[r]].def = i;
    for (uint32_t i = 0; i < p; i++)
        g->values.data[g->params.data[i]].def = i;
    return changed;
}
