/* SPDX-License-Identifier: Apache-2.0 */
/* dce - drop ops without users, number values densely.
 *
 *   before   %3 = silu %1          after   (gone)
 *
 * Fires when    no result of a node reaches a result of the function; functions that no repeat
 *               calls and that are not entries go too. Use counts would keep two dead nodes alive
 *               that use each other through a dead chain, so kf_graph_compact marks from the
 *               results.
 * Keeps nothing. Terminates: nodes only go.
 */
#include "ir/phase.h"
#include "passes/match.h"

#include <string.h>

static bool has_entry(const kf_module *m)
{
    for (uint32_t i = 0; i < m->funcs.len; i++)
        if (kf_is_entry(m->funcs.data[i]->name))
            return true;
    return false;
}

static void mark_callees(const kf_module *m, const kf_graph *g, bool *live)
{
    for (uint32_t i = 0; i < m->funcs.len; i++) {
        if (m->funcs.data[i] != g)
            continue;
        if (live[i])
            return;
        live[i] = true;
    }
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_repeat)
            mark_callees(m, kf_module_find_func(m, KF_ATTR_OF(n, repeat)->callee), live);
    }
}

/* A module of test functions without an entry keeps them all. */
static bool drop_uncalled(kf_module *m, kf_arena *scratch)
{
    bool *live = KF_NEW_N(scratch, bool, m->funcs.len);
    uint32_t kept = 0;

    if (!has_entry(m))
        return false;
    for (uint32_t i = 0; i < m->funcs.len; i++)
        if (kf_is_entry(m->funcs.data[i]->name))
            mark_callees(m, m->funcs.data[i], live);
    for (uint32_t i = 0; i < m->funcs.len; i++)
        if (live[i])
            m->funcs.data[kept++] = m->funcs.data[i];
    bool progress = kept != m->funcs.len;
    m->funcs.len = kept;
    return progress;
}

bool kf_pass_dce(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    progress |= kf_graph_compact(g);
    progress |= drop_uncalled(m, cx->scratch);
    return progress;
}
