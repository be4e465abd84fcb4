/* SPDX-License-Identifier: Apache-2.0 */
/* layout - give matmul weights the storage order that the target's kernels read.
 *
 *   before   %w: bf16[512,256]             after   %w: bf16[512,256]<d0/16, d1/2, d0, d1>
 *
 * One layout a weight for all phases; other readers of the tensor (the gather of a tied embedding)
 * read through the same layout, so equal recipes get equal types in every function of the module.
 * Fires when    a parameter is the weight of a linear matmul.
 * Must not fire when a finished region reads it: the types of its body are settled.
 * Why here      after weights are joined, before regions are formed: what one kernel can do
 *               depends on it.
 * Needs nothing. Keeps everything but types of parameters. Terminates: one round.
 */
#include "passes/match.h"

static bool is_matmul_weight(const kf_module *m, const kf_recipe *r)
{
    KF_EACH_FUNC(m, g)
    {
        for (uint32_t i = 0; i < g->nodes.len; i++) {
            const kf_node *n = &g->nodes.data[i];
            if (n->op != KF_OP_NONE && kf_node_is_linear(g, n) &&
                kf_recipe_eq(kf_value_recipe(g, n->in[1]), r))
                return true;
        }
    }
    return false;
}

static bool is_read_by_region(const kf_graph *g, kf_value v)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t k = 0; n->op == KF_OP_region && k < n->n_in; k++)
            if (n->in[k] == v)
                return true;
    }
    return false;
}

bool kf_pass_layout(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        for (uint32_t i = 0; i < g->params.len; i++) {
            kf_type *t = &g->values.data[g->params.data[i]].type;
            if (t->layout.n_splits || !is_matmul_weight(m, g->recipes.data[i]) ||
                is_read_by_region(g, g->params.data[i]))
                continue;
            t->layout = cx->target->weight_layout(cx->target, t);
            progress |= t->layout.n_splits != 0;
        }
    }
    return progress;
}
