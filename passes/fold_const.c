/* SPDX-License-Identifier: Apache-2.0 */
/* fold_const - evaluate ops whose operands are numbers.
 *
 *   before   %0 = const {value = 2}               after   %2 = const {value = 1.4142135623730951}
 *            %1 = sqrt %0
 *
 * Fires when    every operand of a row of fn.def is a const and the result is a scalar number; a
 *               predicate has no constant form and stays.
 * Must not fire when the value is not finite: an infinity that the user wrote stays as it was
 *               written.
 * Why here      after canonicalize, before cse.
 * Needs topological order. Keeps the order. Terminates: each step makes a leaf.
 */
/* fold_const - evaluate ops whose operands are numbers.
 *
 *   before   %0 = const {value = 2}               after   %2 = const {value = 1.4142135623730951}
 *            %1 = sqrt %0
 *
 * Fires when    every operand of a row of fn.def is a const and the result is a scalar number; a
 * predicate has no constant form and stays. Must not fire when the value is not finite: an infinity
 * that the user wrote stays as it was written. Why here      after canonicalize, before cse. Needs
 * topological order.  Keeps the order.  Terminates: each step makes a leaf.
 */
#include "passes/match.h"

#include <math.h>

static bool fold_node(kf_graph *g, uint32_t index)
{
    kf_node n = g->nodes.data[index];
    double v[3] = {0};

    if (!kf_op_is_fn(n.op) || kf_fn_infos[n.op].result != KF_FN_RESULT_num)
        return false;
    if (kf_value_type(g, n.out[0])->rank != 0)
        return false;
    for (uint32_t i = 0; i < n.n_in; i++)
        if (!kf_value_const(g, n.in[i], &v[i]))
            return false;
    double result = kf_fn_eval((kf_fn)n.op, v[0], v[1], v[2]);
    if (!isfinite(result))
        return false;
    kf_graph_replace(g, n.out[0], kf_node_const(g, result, n.loc));
    g->nodes.data[index].op = KF_OP_NONE;
    return true;
}

bool kf_pass_fold_const(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    (void)cx;
    KF_EACH_FUNC(m, g)
    {
        bool folded = false, any = true;
        while (any) { /* a folded operand is a const for the next round */
            any = false;
            for (uint32_t i = 0, end = g->nodes.len; i < end; i++)
                any |= g->nodes.data[i].op != KF_OP_NONE && fold_node(g, i);
            folded |= any;
        }
        if (folded)
            kf_graph_compact(g);
        progress |= folded;
    }
    return progress;
}
