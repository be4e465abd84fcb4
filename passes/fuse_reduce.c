/* SPDX-License-Identifier: Apache-2.0 */
/* fuse_reduce - a reduction over the columns of a product becomes statistics that the product leaves
 * behind.
 *
 *   before   %1 = matmul %x, %head                                   : f32[R,32000]
 *            %2 = row_reduce %1 {max, argmax}                        : f32[R,1]
 *   after    %1 as before
 *            %m = row_stat %1 {max, block = 64}                      : f32[R,500]
 *            %i = row_stat %1 {max, argmax, block = 64}              : f32[R,500]
 *            %t = row_reduce %m {max}                                : f32[R,1]
 *            %2 = row_reduce (select (eq %m, %t), %i, inf) {min}     : f32[R,1]
 *
 * The likeliest token is chosen beside the head: one kernel has the logits at hand and stores what
 * is largest in each block of them, a second one reads these few numbers. Nobody reads the logits
 * to find it.
 * Fires when    a row_reduce gives one value a row of what a matmul stores: its product, or
 *               functions of it. The log has argmax as `choice`, the others as `statistic`.
 * Must not fire when the accumulators of blocks do not give that of the row, as sums of
 *               exponentials relative to a maximum, or the map loads (F0201); when squared
 *               deviations find no equal blocks (F0204). A choice among other rows than a
 *               product's is refused (F0202).
 * Why here      after fuse_norm, which takes the statistics of norms; cse then merges equal ones.
 * Needs uses. Keeps nothing. Terminates: each step removes a reduction over a product.
 */
#include "passes/separate.h"

/* Functions between the product and the reduction are followed this far. */
enum { EPILOGUE_DEPTH = 8 };

/* The matmul whose kernel stores |v|: its product, or functions of it of the same shape. */
static const kf_node *stored_by(const kf_graph *g, kf_value v, uint32_t depth)
{
    const kf_node *n = kf_value_node(g, v), *found = NULL;

    if (!n || kf_node_is_linear(g, n))
        return n;
    for (uint32_t i = 0; kf_op_is_fn(n->op) && depth > 0 && !found && i < n->n_in; i++)
        if (kf_type_eq(kf_value_type(g, n->in[i]), kf_value_type(g, v)))
            found = stored_by(g, n->in[i], depth - 1);
    return found;
}

/* Maps see accumulators only; what loads would need an index op. */
static bool map_expands(const kf_attr_row_reduce *a)
{
    bool uses = !a->map;

    for (uint32_t i = 0; a->map && i < a->acc.n; i++)
        uses = uses || kf_slot_uses_param(a->map, 1 + i);
    return uses && (!a->map || a->map->captures == 0);
}

static kf_reason decide(const kf_graph *g, const kf_node *n, const kf_node *product)
{
    const kf_attr_row_reduce *a = KF_ATTR_OF(n, row_reduce);

    if (!product)
        return KF_REASON_F0202;
    if (!kf_accs_can_join(&a->acc) || !map_expands(a))
        return KF_REASON_F0201;
    int64_t columns = kf_value_type(g, n->in[0])->dim[1].size;
    return kf_stat_block(&a->acc, columns) ? KF_REASON_NONE : KF_REASON_F0204;
}

static bool reduces_rows(const kf_graph *g, const kf_node *n)
{
    const kf_type *x = n->op == KF_OP_row_reduce ? kf_value_type(g, n->in[0]) : NULL;

    return x && x->rank == 2 && !kf_dim_is_static(x->dim[0]) && kf_dim_is_static(x->dim[1]) &&
           !KF_ATTR_OF(n, row_reduce)->keep && KF_ATTR_OF(n, row_reduce)->acc.n > 0;
}

/* Separates the reduction at |node| if it is one over a product; logs what is done. */
static bool try_separate(kf_graph *g, uint32_t node, kf_pass_ctx *cx)
{
    const kf_node n = g->nodes.data[node];

    if (!reduces_rows(g, &n))
        return false;
    const kf_node *product = stored_by(g, n.in[0], EPILOGUE_DEPTH);
    kf_kind kind = kf_node_kind(g, &n);
    if (!product && kind != KF_KIND_choice)
        return false;
    kf_reason why = decide(g, &n, product);
    kf_str what = kf_node_title(cx->scratch, g, &n);
    kf_str into = product ? kf_node_title(cx->scratch, g, product) : KF_STR("matmul");
    if (why != KF_REASON_NONE) {
        kf_report_refused(cx, g, n.loc, why, (kf_str){0}, "%.*s -> %.*s", KF_STR_ARG(what),
                          KF_STR_ARG(into));
        return false;
    }
    if (!kf_report_fused(cx, g, n.loc, "%.*s -> %.*s", KF_STR_ARG(what), KF_STR_ARG(into)))
        return false;
    const kf_accs *accs = &KF_ATTR_OF(&n, row_reduce)->acc;
    kf_separate(g, node, kf_stat_block(accs, kf_value_type(g, n.in[0])->dim[1].size), cx->scratch);
    return true;
}

bool kf_pass_fuse_reduce(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        bool changed = false;
        uint32_t n = g->nodes.len; /* what is added has statistics as operands */
        for (uint32_t i = 0; i < n; i++)
            changed |= try_separate(g, i, cx);
        if (changed)
            kf_graph_compact(g);
        progress |= changed;
    }
    return progress;
}
