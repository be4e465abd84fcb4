/* SPDX-License-Identifier: Apache-2.0 */
/* fuse_horizontal - sibling matmuls of one input become one matmul over joined weights.
 *
 *   before   %1 = matmul %x, %wq     %2 = matmul %x, %wk     %3 = matmul %x, %wv
 *   after    %m = matmul %x, %wq_wk_wv      ; concat(groups 4): per KV group q heads, then k, v
 *            %1, %2, %3 = parts of %m
 *
 * One kernel reads the rows once, and what follows (rope, the cache store) sees q, k and v
 * together. Where the products are split into heads, weights are joined per group of heads, so
 * that a shard of the columns is whole groups and never a cut through q | k | v.
 * Fires when    two to eight linear matmuls read the same rows, with weights of equal depth and
 *               dtype that nothing else reads.
 * Must not fire when a weight has another reader (F0206), or dtype (F0202) or depth (F0204) differ.
 * Why here      after fuse_gated (which interleaves differently), before layout.
 * Needs uses. Keeps nothing. Terminates: the number of linear matmuls falls.
 */
#include "passes/match.h"

#define MAX_SIBLINGS 8

/* Heads that the product of a matmul is split into (reshape [N, heads, d] behind scalar work), or
 * 0. */
static int64_t heads_of(const kf_graph *g, kf_value v)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t j = 0; n->op != KF_OP_NONE && j < n->n_in; j++) {
            if (n->in[j] != v)
                continue;
            const kf_type *t = kf_value_type(g, n->out[0]);
            if (n->op == KF_OP_reshape && t->rank == 3)
                return t->dim[1].size;
            int64_t heads = kf_op_is_fn(n->op) ? heads_of(g, n->out[0]) : 0;
            if (heads)
                return heads;
        }
    }
    return 0;
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t t = a % b;
        a = b;
        b = t;
    }
    return a;
}

/* Groups in which the weights are joined: the common number of head groups, or 1. A product whose
 * numbers are repeated along heads further on has fewer columns than heads. */
static uint32_t groups_of(const kf_graph *g, uint32_t n, const uint32_t *node)
{
    int64_t groups = 0;

    for (uint32_t i = 0; i < n; i++) {
        const kf_node *mm = &g->nodes.data[node[i]];
        int64_t heads = heads_of(g, mm->out[0]);
        if (heads == 0)
            return 1;
        groups = gcd(gcd(groups, heads), kf_value_type(g, mm->in[1])->dim[0].size);
    }
    return (uint32_t)groups;
}

/* What keeps |b|, which reads the rows of |a|, out of one weight with it. */
static kf_reason why_not(const kf_graph *g, const kf_node *a, const kf_node *b,
                         const uint32_t *uses)
{
    const kf_type *wa = kf_value_type(g, a->in[1]), *wb = kf_value_type(g, b->in[1]);

    if (uses[a->in[1]] != 1 || uses[b->in[1]] != 1)
        return KF_REASON_F0206;
    if (wa->dtype != wb->dtype)
        return KF_REASON_F0202;
    return kf_dim_eq(wa->dim[1], wb->dim[1]) ? KF_REASON_NONE : KF_REASON_F0204;
}

/* The matmuls from |first| on that can be joined with it; the others are logged. */
static uint32_t find_siblings(const kf_graph *g, uint32_t first, const uint32_t *uses,
                              uint32_t *out, kf_pass_ctx *cx)
{
    const kf_node *a = &g->nodes.data[first];
    uint32_t n = 1;

    out[0] = first;
    for (uint32_t i = first + 1; i < g->nodes.len; i++) {
        const kf_node *b = &g->nodes.data[i];
        if (b->op == KF_OP_NONE || !kf_node_is_linear(g, b) || b->in[0] != a->in[0])
            continue;
        kf_reason why = n == MAX_SIBLINGS ? KF_REASON_F0204 : why_not(g, a, b, uses);
        if (why == KF_REASON_NONE) {
            out[n++] = i;
            continue;
        }
        kf_str what = kf_weight_names(cx->scratch, g, 2, (uint32_t[]){first, i});
        kf_report_refused(cx, g, b->loc, why, (kf_str){0}, "siblings %.*s -> matmul",
                          KF_STR_ARG(what));
    }
    return n;
}

static bool try_join(kf_graph *g, uint32_t index, kf_pass_ctx *cx)
{
    const uint32_t *uses = kf_graph_use_counts(g, cx->scratch);
    uint32_t node[MAX_SIBLINGS];
    uint32_t n = find_siblings(g, index, uses, node, cx);

    if (n < 2)
        return false;
    kf_str what = kf_weight_names(cx->scratch, g, n, node);
    if (!kf_report_fused(cx, g, g->nodes.data[index].loc, "siblings %.*s -> matmul",
                         KF_STR_ARG(what)))
        return false;
    kf_merge_matmuls(g, n, node, groups_of(g, n, node));
    kf_graph_compact(g);
    return true;
}

bool kf_pass_fuse_horizontal(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        if (!kf_node_is_linear(g, &g->nodes.data[i]) || !try_join(g, i, cx))
            continue;
        progress = true;
        i = (uint32_t)-1; /* numbers have changed */
    }
    return progress;
}
