/* SPDX-License-Identifier: Apache-2.0 */
/* fuse_rows - form regions: what is left, joined along rows.
 *
 *   before   %1 = gather %embed, %ids          after   %1, %2 = region row_reduce(%embed, %ids) {
 *            %2 = row_stat %1                               gather ; row_stat }
 *
 * Fires when    an op outside regions has consumers outside regions that the target can compute in
 *               the same pass over the rows: embedding and first statistic, residual and norm,
 *               chains of scalar functions; or is a statistic, for others of the same rows. What is
 *               made for the region alone joins it, too: rows of a second table.
 *               A row value of rows that nothing else reads is finished with them; the others are
 *               finished by each reader.
 * Why here      after contractions have taken their neighbours.
 * Needs topological order. Keeps nothing. Terminates: each step makes a region of two or more ops.
 */
#include "passes/region.h"

static uint32_t count(const bool *set, uint32_t n)
{
    uint32_t k = 0;

    for (uint32_t i = 0; i < n; i++)
        k += set[i];
    return k;
}

/* The stored rows that |n| reads, seen through what is computed again. */
static kf_value rows_of(const kf_graph *g, const kf_node *n, const kf_recompute *r)
{
    const kf_node *def = kf_value_node(g, n->in[0]);
    uint32_t i = def ? (uint32_t)(def - g->nodes.data) : 0;

    return def && r->again[i] ? r->base[i] : n->in[0];
}

/* Statistics of the same rows are left by one pass over them. */
static void join_statistics(kf_selection *s, kf_pass_ctx *cx)
{
    kf_graph *g = s->g;
    const kf_node *root = &g->nodes.data[s->root];
    kf_value_list operands, results;
    kf_sbuf why = {.arena = cx->scratch};

    for (uint32_t i = 0; i < g->nodes.len && root->op == KF_OP_row_stat; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op != KF_OP_row_stat || i == s->root ||
            rows_of(g, n, &s->recompute) != rows_of(g, root, &s->recompute) ||
            kf_report_forbidden(cx, g, n, root))
            continue;
        kf_selection with = kf_selection_copy(s, cx->scratch);
        with.owned[i] = true;
        kf_selection_pull_cheap(&with, cx);
        kf_graph *body = kf_selection_body(&with, &operands, &results);
        if (!kf_selection_waits_for_itself(&with, cx->scratch) &&
            kf_region_family(cx->target, body, &why) != KF_FAMILY_COUNT)
            *s = with;
    }
}

/* Row values whose rows would be stored for them alone: of functions that only they read, and functions
 * of such values. */
static bool *find_own_values(const kf_graph *g, const kf_recompute *r, kf_arena *scratch)
{
    bool *own = KF_NEW_N(scratch, bool, g->nodes.len);
    const uint32_t *uses = kf_graph_use_counts(g, scratch);

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        double c;
        own[i] = n->op != KF_OP_NONE && r->row_value[i];
        for (uint32_t j = 0; own[i] && j < n->n_in; j++) {
            const kf_node *def = kf_value_node(g, n->in[j]);
            size_t k = def ? (size_t)(def - g->nodes.data) : 0;
            if (n->op == KF_OP_row_reduce)
                own[i] = def && kf_op_is_fn(def->op) && kf_node_is_loose(def) && !r->again[k] &&
                         uses[n->in[j]] == 1;
            else
                own[i] = kf_value_const(g, n->in[j], &c) || (def && own[k]);
        }
    }
    return own;
}

/* One region from node |root| on; false if it stays alone. */
static bool form(kf_graph *g, uint32_t root, kf_pass_ctx *cx)
{
    kf_selection s = kf_selection_new(g, root, cx->scratch);
    bool *skip = KF_NEW_N(cx->scratch, bool, g->nodes.len);
    kf_value_list operands, results;
    kf_sbuf why = {.arena = cx->scratch};
    const kf_node n = g->nodes.data[root];

    const bool *own = find_own_values(g, &s.recompute, cx->scratch);
    for (uint32_t i = 0; i < g->nodes.len; i++)
        skip[i] = (s.recompute.row_value[i] && !own[i]) || s.recompute.again[i];
    kf_selection_pull_cheap(&s, cx);
    join_statistics(&s, cx);
    kf_selection_grow(&s, skip, cx);
    if (count(s.owned, g->nodes.len) + count(s.copied, g->nodes.len) < 2)
        return false;
    kf_family family =
        kf_region_family(cx->target, kf_selection_body(&s, &operands, &results), &why);
    if (family == KF_FAMILY_COUNT)
        return false;
    kf_selection_commit(&s, family, kf_str_from(kf_op_infos[n.op].name), n.loc, cx);
    return true;
}

static bool is_root(const kf_graph *g, uint32_t index, const kf_recompute *r)
{
    const kf_node *n = &g->nodes.data[index];

    return kf_node_is_loose(n) && !(kf_op_infos[n->op].traits & (KF_CONTRACT | KF_STATE)) &&
           !r->row_value[index] && !r->again[index];
}

bool kf_pass_fuse_rows(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        kf_recompute r = kf_recompute_find(g, cx->scratch);
        uint32_t i = 0;
        while (i < g->nodes.len) {
            if (is_root(g, i, &r) && form(g, i, cx)) {
                r = kf_recompute_find(g, cx->scratch);
                progress = true;
                i = 0; /* numbers have changed */
                continue;
            }
            i++;
        }
    }
    return progress;
}
