/* SPDX-License-Identifier: Apache-2.0 */
/* fuse_gated - two matmuls of one input that meet in a product become one gated matmul.
 *
 *   before   %1 = matmul %x, %gate     %3 = silu (mul %1, %r)
 *            %2 = matmul %x, %up       %4 = mul %3, (mul %2, %r)
 *   after    %m = matmul %x, %gate_up       ; concat(groups F/16): 16 columns of gate, then of up
 *            %1 = part 0 of %m, %2 = part 1 of %m, and the same scalar work
 *
 * Interleaving puts both factors of an output column into one tile, so the product joins the
 * epilogue and the wide intermediate never reaches memory.
 * Fires when    a product depends, through scalar functions only, on exactly two linear matmuls of
 *               the same rows with weights of the same shape and dtype, each read by nothing else.
 * Must not fire when a third matmul takes part (F0201), the rows (F0202) or the weights (F0204)
 *               differ, or a factor (F0203) or a weight (F0206) has another user.
 * Why here      after fuse_norm (both sides scaled alike), before fuse_horizontal.
 * Needs uses. Keeps nothing. Terminates: the number of linear matmuls falls.
 */
#include "passes/match.h"

#define MAX_LEAVES 3

typedef struct leaves {
    uint32_t n;
    uint32_t node[MAX_LEAVES];
    bool shared; /* an intermediate has another user */
} leaves;

static void find_leaves(const kf_graph *g, kf_value v, kf_value root, const uint32_t *uses,
                        leaves *out)
{
    const kf_node *n = kf_value_node(g, v);

    if (!n || out->n == MAX_LEAVES)
        return;
    if (kf_node_is_linear(g, n)) {
        uint32_t index = g->values.data[v].def;
        for (uint32_t i = 0; i < out->n; i++)
            if (out->node[i] == index)
                return;
        out->shared |= uses[v] != 1;
        out->node[out->n++] = index;
        return;
    }
    if (!kf_op_is_fn(n->op))
        return;
    uint32_t before = out->n;
    for (uint32_t i = 0; i < n->n_in; i++)
        find_leaves(g, n->in[i], root, uses, out);
    if (v != root && out->n > before && uses[v] != 1)
        out->shared = true;
}

/* What stands in the way of joining the weights of |l|. */
static kf_reason why_not(const kf_graph *g, const leaves *l, const uint32_t *uses)
{
    const kf_node *a = &g->nodes.data[l->node[0]], *b = &g->nodes.data[l->node[1]];

    if (l->n > 2)
        return KF_REASON_F0201;
    if (a->in[0] != b->in[0])
        return KF_REASON_F0202;
    if (!kf_type_eq(kf_value_type(g, a->in[1]), kf_value_type(g, b->in[1])))
        return KF_REASON_F0204;
    if (l->shared)
        return KF_REASON_F0203;
    return uses[a->in[1]] != 1 || uses[b->in[1]] != 1 ? KF_REASON_F0206 : KF_REASON_NONE;
}

/* Largest power of two up to 16 that divides |n|: the width of a column block. */
static int64_t block_of(int64_t n)
{
    int64_t block = 16;

    while (n % block)
        block /= 2;
    return block;
}

static bool try_gated(kf_graph *g, uint32_t index, kf_pass_ctx *cx)
{
    const kf_node product = g->nodes.data[index];
    const uint32_t *uses = kf_graph_use_counts(g, cx->scratch);
    leaves l = {0};

    find_leaves(g, product.out[0], product.out[0], uses, &l);
    if (l.n < 2)
        return false;
    const kf_node *a = &g->nodes.data[l.node[0]];
    kf_str what = kf_weight_names(cx->scratch, g, l.n, l.node);
    kf_reason why = why_not(g, &l, uses);
    if (why != KF_REASON_NONE) {
        kf_report_refused(cx, g, product.loc, why, (kf_str){0}, "gated %.*s -> matmul",
                          KF_STR_ARG(what));
        return false;
    }
    if (!kf_report_fused(cx, g, product.loc, "gated %.*s -> matmul", KF_STR_ARG(what)))
        return false;
    int64_t columns = kf_value_type(g, a->in[1])->dim[0].size;
    kf_merge_matmuls(g, 2, l.node, (uint32_t)(columns / block_of(columns)));
    kf_graph_compact(g);
    return true;
}

bool kf_pass_fuse_gated(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        if (g->nodes.data[i].op != KF_OP_mul || !try_gated(g, i, cx))
            continue;
        progress = true;
        i = (uint32_t)-1; /* numbers have changed */
    }
    return progress;
}
