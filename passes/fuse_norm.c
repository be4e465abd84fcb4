/* SPDX-License-Identifier: Apache-2.0 */
/* fuse_norm - a norm before a matmul becomes a row statistic, column scales and a row scale.
 *
 *   before   %1 = row_reduce %x {sum_sq} map(v, s) { v * rsqrt(s / 256 + eps) }
 *            %2 = mul %1, %gamma
 *            %3 = matmul %2, %wq
 *   after    %s = row_stat %x {sum_sq, block = 64}                : partial sums per column block
 *            %r = row_reduce %s {sum} map(v, s) { rsqrt(s / 256 + eps) } : f32[N,1]
 *            %2 = mul %x, %gamma
 *            %3 = mul (matmul %2, %wq), %r
 *
 * A row scale commutes with the matmul, so the norm no longer needs a pass over the row before the
 * product: the producer of %x leaves the statistic behind, and the scale joins the epilogue. Bias,
 * activation and everything else that uses the product sees it scaled.
 * Fires when    the map is v * g(s) with one accumulator sum_sq, and every user of the norm
 *               (through a product with a [n] parameter) is a linear matmul.
 * Must not fire when the norm subtracts a mean (F0208): the epilogue form cancels; the graph has
 *               to be recentred first. Nor when something else than a matmul reads the normalised
 *               rows (F0202).
 * Why here      after fold_weights (gains that could go into weights are gone), before matmuls are
 *               joined.
 * Needs uses. Keeps nothing. Terminates: each step removes a norm.
 */
#include "passes/match.h"

/** Columns per partial statistic. A matmul's column tile that leaves statistics covers whole
 * blocks. */
#define STAT_BLOCK 64

/** One use of the norm: matmul |node| reads it, through the product |scaled| or directly
 * (KF_NO_VALUE). */
typedef struct reader {
    uint32_t node;
    kf_value scaled;
    kf_value gain;
} reader;

typedef KF_VEC(reader) readers;

static kf_value column_gain(const kf_graph *g, const kf_node *n, kf_value rows)
{
    if (n->op != KF_OP_mul)
        return KF_NO_VALUE;
    kf_value other = n->in[0] == rows ? n->in[1] : n->in[0];
    bool vector = kf_value_is_param(g, other) && kf_value_type(g, other)->rank == 1;
    return vector ? other : KF_NO_VALUE;
}

/* Collects matmuls that read |v|; false if anything else does. */
static bool collect(const kf_graph *g, kf_value v, kf_value scaled, kf_value gain, kf_arena *a,
                    readers *out)
{
    for (uint32_t i = 0; i < g->results.len; i++)
        if (g->results.data[i] == v)
            return false;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t j = 0; n->op != KF_OP_NONE && j < n->n_in; j++) {
            if (n->in[j] != v)
                continue;
            kf_value by = scaled == KF_NO_VALUE ? column_gain(g, n, v) : KF_NO_VALUE;
            if (by != KF_NO_VALUE) {
                if (!collect(g, n->out[0], n->out[0], by, a, out))
                    return false;
                continue;
            }
            if (j != 0 || !kf_node_is_linear(g, n))
                return false;
            kf_vec_push(a, out, (reader){i, scaled, gain});
        }
    }
    return true;
}

static kf_reason match_norm(const kf_graph *g, const kf_node *n, kf_arena *a,
                            const kf_slot **out_scale)
{
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);

    for (uint8_t i = 0; i < attr->acc.n; i++)
        if (attr->acc.acc[i] == KF_ACC_sum_dev)
            return KF_REASON_F0208;
    if (attr->acc.n != 1 || attr->acc.acc[0] != KF_ACC_sum_sq || n->n_in != 1)
        return KF_REASON_F0201;
    if (kf_value_type(g, n->in[0])->rank != 2 || !kf_slot_row_scale(a, attr->map, out_scale))
        return KF_REASON_F0201;
    return KF_REASON_NONE;
}

/* Rows gathered from a producer keep its statistic: gather (row_stat y) rather than row_stat
 * (gather y). */
static kf_value row_stat_of(kf_graph *g, kf_value x, kf_loc loc)
{
    const kf_node *rows = kf_value_is(g, x, KF_OP_gather);

    if (rows && !kf_value_is_param(g, rows->in[0])) {
        kf_value ids = rows->in[1];
        return kf_node_2(g, KF_OP_gather, row_stat_of(g, rows->in[0], loc), ids, loc);
    }
    kf_attr_row_stat *attr = KF_ATTR_NEW(g->module->arena, row_stat);
    attr->acc = (kf_accs){1, {KF_ACC_sum_sq}};
    attr->block = STAT_BLOCK;
    return kf_node_add(g, KF_OP_row_stat, attr, 1, &x, NULL, loc);
}

static void rewrite(kf_graph *g, kf_value x, const kf_slot *scale, const readers *uses, kf_loc loc)
{
    kf_value stat = row_stat_of(g, x, loc);
    kf_attr_row_reduce *attr = KF_ATTR_NEW(g->module->arena, row_reduce);

    attr->acc = (kf_accs){1, {KF_ACC_sum}};
    attr->map = scale;
    kf_value r = kf_node_add(g, KF_OP_row_reduce, attr, 1, &stat, NULL, loc);
    for (uint32_t i = 0; i < uses->len; i++) {
        const reader *u = &uses->data[i];
        kf_node mm = g->nodes.data[u->node];
        kf_value rows = u->gain == KF_NO_VALUE ? x : kf_node_2(g, KF_OP_mul, x, u->gain, loc);
        kf_value product = kf_node_matmul(g, rows, mm.in[1], true, mm.loc);
        kf_graph_replace(g, mm.out[0], kf_node_2(g, KF_OP_mul, product, r, mm.loc));
        g->nodes.data[u->node].op = KF_OP_NONE;
    }
}

static bool try_norm(kf_graph *g, uint32_t index, kf_pass_ctx *cx)
{
    const kf_node n = g->nodes.data[index];
    const kf_slot *scale = NULL;
    readers uses = {0};
    kf_reason why = match_norm(g, &n, cx->arena, &scale);

    if (why == KF_REASON_NONE &&
        !collect(g, n.out[0], KF_NO_VALUE, KF_NO_VALUE, cx->scratch, &uses))
        why = KF_REASON_F0202;
    if (why == KF_REASON_NONE && uses.len == 0)
        return false; /* dead */
    if (why != KF_REASON_NONE) {
        kf_report_refused(cx, g, n.loc, why, (kf_str){0}, "norm -> matmul");
        return false;
    }
    uint32_t logged = cx->candidates.len;
    bool allowed = true;
    for (uint32_t i = 0; i < uses.len; i++) {
        kf_str mm = kf_node_title(cx->scratch, g, &g->nodes.data[uses.data[i].node]);
        allowed &= kf_report_fused(cx, g, n.loc, "norm -> %.*s", KF_STR_ARG(mm));
    }
    if (!allowed) {
        kf_report_withdraw(cx, logged);
        return false;
    }
    rewrite(g, n.in[0], scale, &uses, n.loc);
    return true;
}

/* A row_reduce that keeps its row is a norm unless it is a softmax. */
static bool is_norm(const kf_node *n)
{
    return n->op == KF_OP_row_reduce && KF_ATTR_OF(n, row_reduce)->keep &&
           KF_ATTR_OF(n, row_reduce)->acc.acc[0] != KF_ACC_max;
}

bool kf_pass_fuse_norm(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        bool changed = false;
        for (uint32_t i = 0, end = g->nodes.len; i < end; i++)
            if (is_norm(&g->nodes.data[i]))
                changed |= try_norm(g, i, cx);
        if (changed) {
            kf_graph_sort(g);
            kf_graph_compact(g);
        }
        progress |= changed;
    }
    return progress;
}
