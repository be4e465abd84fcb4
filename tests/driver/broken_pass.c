/* SPDX-License-Identifier: Apache-2.0 */
/* broken_pass - fold_const as nobody wants it: it leaves a graph that the verifier refuses
 * (KF_BROKEN=invariant), or one that computes something else (KF_BROKEN=result: the first sum of
 * rows becomes a difference). Linked in place of the pass.
 */
#include "passes/match.h"

#include <stdlib.h>
#include <string.h>

static bool breaks(kf_graph *g, bool invariant)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        kf_node *n = &g->nodes.data[i];
        if (invariant && n->op == KF_OP_matmul) {
            n->in[1] = n->in[0]; /* rows for a weight: the types do not follow any more */
            return true;
        }
        if (!invariant && kf_node_kind(g, n) == KF_KIND_residual) {
            n->op = KF_OP_sub;
            return true;
        }
    }
    return false;
}

bool kf_pass_fold_const(kf_module *m, kf_pass_ctx *cx)
{
    const char *how = getenv("KF_BROKEN");
    bool done = false;

    (void)cx;
    for (uint32_t i = 0; how && i < m->funcs.len && !done; i++)
        done = breaks(m->funcs.data[i], !strcmp(how, "invariant"));
    return done;
}
