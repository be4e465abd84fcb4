/* SPDX-License-Identifier: Apache-2.0 */
/* form_regions - every op that is still alone becomes a region of its own.
 *
 *   before   %1 = silu %0              after   %1 = region map(%0) { silu }
 *
 * After this pass the Fused form holds: nothing but regions, repeats and the constants that bodies
 * have copied. With all fuse passes off this is the unfused program, one kernel an op.
 * Fires when    an op is loose. An op that no kernel family of the target can express is the
 *               user's error E0407.
 * Why here      last: only now is it known what stays alone.
 * Needs topological order. Keeps nothing. Terminates: each step removes a loose op.
 */
#include "passes/region.h"

static bool form(kf_graph *g, uint32_t index, kf_pass_ctx *cx)
{
    kf_selection s = kf_selection_new(g, index, cx->scratch);
    kf_value_list operands, results;
    kf_sbuf why = {.arena = cx->scratch};
    const kf_node n = g->nodes.data[index];

    kf_graph *body = kf_selection_body(&s, &operands, &results);
    kf_family family = kf_region_family(cx->target, body, &why);
    if (family == KF_FAMILY_COUNT) {
        kf_diag_add(cx->diags, KF_E0407, kf_module_diag_loc(g->module, cx->diags, n.loc),
                    "%s: %.*s", kf_op_infos[n.op].name, KF_STR_ARG(kf_sbuf_view(&why)));
        return false;
    }
    kf_selection_commit(&s, family, kf_str_from(kf_op_infos[n.op].name), n.loc, cx);
    return true;
}

bool kf_pass_form_regions(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        uint32_t i = 0;
        while (i < g->nodes.len) {
            if (kf_node_is_loose(&g->nodes.data[i]) && form(g, i, cx)) {
                progress = true;
                i = 0; /* numbers have changed */
                continue;
            }
            i++;
        }
    }
    return progress;
}
