/* SPDX-License-Identifier: Apache-2.0 */
/* cse - equal ops on equal operands are one op.
 *
 *   before   %1 = mul %x, %g              after   %1 = mul %x, %g
 *            %2 = mul %x, %g                      %3 = matmul %1, %wq
 *            %3 = matmul %2, %wq
 *
 * Fires when    op, attributes, operands and result type are equal; repeat and region are left
 *               alone (their bodies are big and equal ones do not arise).
 * Why here      after canonicalize (equal things look equal) and after passes that copy a column
 *               scale to each reader.
 * Needs topological order. Keeps the order. Terminates: nodes only go.
 */
#include "ir/structure.h"
#include "passes/match.h"

static bool equal_nodes(const kf_graph *g, const kf_node *a, const kf_node *b)
{
    if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out)
        return false;
    for (uint32_t i = 0; i < a->n_in; i++)
        if (a->in[i] != b->in[i])
            return false;
    for (uint32_t r = 0; r < a->n_out; r++)
        if (!kf_type_eq(kf_value_type(g, a->out[r]), kf_value_type(g, b->out[r])))
            return false;
    return kf_attr_eq(kf_op_infos[a->op].attr, a->attr, b->attr);
}

static bool mergeable(const kf_node *n)
{
    return n->op != KF_OP_NONE && n->op != KF_OP_repeat && n->op != KF_OP_region;
}

/* Open addressing from structure hash to node number + 1. */
static bool cse_graph(kf_graph *g, kf_arena *scratch)
{
    uint32_t cap = 16;
    bool progress = false;

    while (cap < g->nodes.len * 2)
        cap *= 2;
    uint32_t *slot = KF_NEW_N(scratch, uint32_t, cap);
    const uint64_t *hash = kf_graph_structure(g, KF_WITH_TENSORS, scratch);
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        kf_node *n = &g->nodes.data[i];
        if (!mergeable(n))
            continue;
        uint32_t at = (uint32_t)hash[n->out[0]] & (cap - 1);
        while (slot[at] && !equal_nodes(g, &g->nodes.data[slot[at] - 1], n))
            at = (at + 1) & (cap - 1);
        if (!slot[at]) {
            slot[at] = i + 1;
            continue;
        }
        for (uint32_t r = 0; r < n->n_out; r++)
            kf_graph_replace(g, n->out[r], g->nodes.data[slot[at] - 1].out[r]);
        n->op = KF_OP_NONE;
        progress = true;
    }
    return kf_graph_compact(g) || progress;
}

bool kf_pass_cse(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    progress |= cse_graph(g, cx->scratch);
    return progress;
}
