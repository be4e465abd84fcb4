/* SPDX-License-Identifier: Apache-2.0 */
/* inplace - see inplace.h. */
#include "passes/inplace.h"

/* Every path from |v| goes through scalar functions of the same shape until it ends in |result| or
 * in a value that is stored nowhere else than at the same place. */
static bool elementwise_to(const kf_graph *g, kf_value v, kf_value result)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t j = 0; j < n->n_in; j++) {
            if (n->in[j] != v)
                continue;
            if (!kf_op_is_fn(n->op))
                return false;
            if (!kf_type_eq(kf_value_type(g, n->out[0]), kf_value_type(g, result)))
                return false;
            if (n->out[0] != result && !elementwise_to(g, n->out[0], result))
                return false;
        }
    }
    return true;
}

bool kf_region_in_place(const kf_node *region, uint32_t operand, uint32_t result)
{
    const kf_graph *g = region->body;
    kf_value arg = g->args.data[operand], out = g->results.data[result];

    if (!kf_type_eq(kf_value_type(g, arg), kf_value_type(g, out)))
        return false;
    /* A value stored under two results would be overwritten while the other is still computed from
     * it. */
    return arg != out && elementwise_to(g, arg, out);
}
