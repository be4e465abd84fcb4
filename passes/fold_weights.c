/* SPDX-License-Identifier: Apache-2.0 */
/* fold_weights - fold a norm's gain into the weights that follow, where rounding allows.
 *
 *   before   %1 = mul %0, %gamma                  after   %2 = matmul %0, %wq'
 *            %2 = matmul %1, %wq {trans_b}                %wq' = map("wq", "gamma") { mul }
 *
 * Fires when    every reader of the product is a linear matmul whose weight is stored in f32.
 * Must not fire when the weight is stored in a narrower type: the product would be rounded a
 *               second time, which costs about 2.6e-6 NMSE a matmul for bf16; there the gain stays
 *               a column scale of the prologue. Nor when the weight has another reader (a tied
 *               embedding is read by gather too).
 * Why here      before fuse_norm, which then has no column scale to carry.
 * Needs uses. Keeps nothing. Terminates: each step removes a product.
 */
#include "passes/match.h"

/* The gain operand of a mul of rows by a parameter vector, or KF_NO_VALUE. */
static kf_value gain_of(const kf_graph *g, const kf_node *n)
{
    if (n->op != KF_OP_mul)
        return KF_NO_VALUE;
    for (int i = 0; i < 2; i++)
        if (kf_value_is_param(g, n->in[i]) && kf_value_type(g, n->in[i])->rank == 1 &&
            kf_value_type(g, n->in[1 - i])->rank == 2)
            return n->in[i];
    return KF_NO_VALUE;
}

/* Weights are shared through their recipe, also between functions; a LOAD named in two parameters
 * has two readers. */
static uint32_t readers_of_tensor(const kf_graph *g, const kf_recipe *r, const uint32_t *uses)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->params.len; i++)
        if (kf_recipe_eq(g->recipes.data[i], r))
            n += uses[g->params.data[i]];
    return n;
}

static kf_reason why_not(const kf_graph *g, kf_value product, const uint32_t *uses)
{
    uint32_t seen = 0;

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t j = 0; n->op != KF_OP_NONE && j < n->n_in; j++) {
            if (n->in[j] != product)
                continue;
            seen++;
            if (j != 0 || !kf_node_is_linear(g, n))
                return KF_REASON_F0202;
            if (kf_value_type(g, n->in[1])->dtype != KF_DTYPE_f32)
                return KF_REASON_F0205;
            if (readers_of_tensor(g, kf_value_recipe(g, n->in[1]), uses) != 1)
                return KF_REASON_F0206;
        }
    }
    return seen == uses[product] ? KF_REASON_NONE : KF_REASON_F0203;
}

static void fold(kf_graph *g, kf_value product, kf_value x, kf_value gain)
{
    kf_arena *a = g->module->arena;

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_NONE || n->in == NULL || n->op != KF_OP_matmul || n->in[0] != product)
            continue;
        const kf_value_info w = g->values.data[n->in[1]];
        const kf_recipe *r =
            kf_recipe_fn(a, KF_FN_mul, g->recipes.data[w.def], kf_value_recipe(g, gain));
        kf_value folded = kf_graph_add_param(g, r, w.name, w.loc);
        n = &g->nodes.data[i];
        n->in[0] = x;
        n->in[1] = folded;
    }
}

bool kf_pass_fold_weights(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        for (uint32_t i = 0; i < g->nodes.len; i++) {
            kf_node n = g->nodes.data[i];
            kf_value gain = n.op == KF_OP_NONE ? KF_NO_VALUE : gain_of(g, &n);
            if (gain == KF_NO_VALUE)
                continue;
            kf_str title = g->values.data[gain].name;
            kf_reason why = why_not(g, n.out[0], kf_graph_use_counts(g, cx->scratch));
            if (why != KF_REASON_NONE) {
                kf_report_refused(cx, g, n.loc, why, (kf_str){0}, "gain %%%.*s -> weights",
                                  KF_STR_ARG(title));
                continue;
            }
            if (!kf_report_fused(cx, g, n.loc, "gain %%%.*s -> weights", KF_STR_ARG(title)))
                continue;
            fold(g, n.out[0], n.in[0] == gain ? n.in[1] : n.in[0], gain);
            progress = true;
        }
        kf_graph_compact(g);
    }
    return progress;
}
