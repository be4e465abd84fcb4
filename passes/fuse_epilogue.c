/* SPDX-License-Identifier: Apache-2.0 */
/* fuse_epilogue - form regions: a contraction with its prologue and epilogue.
 *
 *   before   %1 = mul %x, %gamma            after   %x1, %s = region matmul(%x, %gamma, %w, %r0) {
 *            %2 = matmul %1, %w                         mul ; matmul ; add ; row_stat }
 *            %3 = add %r0, %2
 *            %4 = row_stat %3
 *
 * The prologue is what makes the rows: column scales, gathered rows, reshapes. It is copied in,
 * for it costs less than a trip through memory. The epilogue is everything behind the product that
 * the target can do on a tile: scalar work, row scales, rope, group norms, residual, cache stores,
 * partial statistics.
 * Fires when    the function holds a matmul or an attention.
 * Must not fire when an operand of the epilogue waits for the region itself (F0210) or the target
 *               cannot make one kernel of it (F0209); the region then stays smaller.
 * Why here      after layouts are known, before what is left is joined by fuse_rows.
 * Needs topological order, uses. Keeps nothing. Terminates: each step turns a contraction into a
 * region.
 */
#include "passes/region.h"

#include <string.h>

/* A product with a parameter vector, gathered rows or a reshape: what may stand in front of a
 * product. */
static bool is_row_maker(const kf_graph *g, const kf_node *n)
{
    if (n->op == KF_OP_reshape)
        return true;
    if (n->op == KF_OP_gather)
        return !kf_value_is_param(g, n->in[0]);
    return n->op == KF_OP_mul && kf_value_is_param(g, n->in[1]) &&
           kf_value_type(g, n->in[1])->rank == 1;
}

/* Nodes that only make rows for linear matmuls; they are no epilogue of what feeds them. */
static bool *find_prologues(const kf_graph *g, kf_arena *scratch)
{
    bool *prologue = KF_NEW_N(scratch, bool, g->nodes.len);
    uint32_t *as_rows = KF_NEW_N(scratch, uint32_t, g->values.len);
    const uint32_t *uses = kf_graph_use_counts(g, scratch);

    for (uint32_t i = g->nodes.len; i-- > 0;) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_NONE)
            continue;
        prologue[i] = n->n_out == 1 && is_row_maker(g, n) && uses[n->out[0]] > 0 &&
                      as_rows[n->out[0]] == uses[n->out[0]];
        if (prologue[i] || kf_node_is_linear(g, n))
            as_rows[n->in[0]]++;
    }
    return prologue;
}

static void pull_prologue(kf_selection *s, kf_value rows, const bool *prologue, kf_pass_ctx *cx)
{
    const kf_node *n = kf_value_node(s->g, rows);

    if (!n || !prologue[n - s->g->nodes.data] ||
        kf_report_forbidden(cx, s->g, n, &s->g->nodes.data[s->root]))
        return;
    s->copied[n - s->g->nodes.data] = true;
    pull_prologue(s, n->in[0], prologue, cx);
}

static bool matches(kf_selection *s, kf_pass_ctx *cx)
{
    kf_value_list operands, results;
    kf_sbuf why = {.arena = cx->scratch};

    kf_selection_pull_cheap(s, cx);
    kf_graph *body = kf_selection_body(s, &operands, &results);

    return kf_region_family(cx->target, body, &why) != KF_FAMILY_COUNT;
}

/* Functions of partial statistics and of what is finished from them: they join the blocks of a row, of
 * which no tile has all. */
static bool *find_joins(const kf_graph *g, const kf_recompute *r, kf_arena *scratch)
{
    bool *joins = KF_NEW_N(scratch, bool, g->nodes.len);

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        bool only = n->op != KF_OP_NONE && kf_op_is_fn(n->op), finished = false;
        for (uint32_t j = 0; only && j < n->n_in; j++) {
            const kf_node *def = kf_value_node(g, n->in[j]);
            size_t k = def ? (size_t)(def - g->nodes.data) : 0;
            bool of_row = def && (r->row_value[k] || joins[k]);
            only = of_row || (def && (def->op == KF_OP_row_stat || def->op == KF_OP_const));
            finished |= of_row;
        }
        joins[i] = only && finished;
    }
    return joins;
}

/* False if no kernel of the target takes the root. */
static bool form(kf_graph *g, uint32_t root, kf_pass_ctx *cx)
{
    const bool *prologue = find_prologues(g, cx->scratch);
    kf_selection s = kf_selection_new(g, root, cx->scratch);
    const kf_node n = g->nodes.data[root];
    kf_sbuf why = {.arena = cx->scratch};
    kf_value_list operands, results;

    if (kf_node_is_linear(g, &n)) {
        pull_prologue(&s, n.in[0], prologue, cx);
        if (!matches(&s, cx)) { /* the rows are stored first, then */
            s = kf_selection_new(g, root, cx->scratch);
            memset(s.recompute.again, 0, g->nodes.len * sizeof *s.recompute.again);
        }
    }
    if (!matches(&s, cx))
        return false; /* form_regions says so, if it cannot help either */
    bool *skip = find_joins(g, &s.recompute, cx->scratch);
    for (uint32_t i = 0; i < g->nodes.len; i++)
        skip[i] = skip[i] || prologue[i] || s.recompute.row_value[i] || s.recompute.again[i];
    kf_selection_grow(&s, skip, cx);
    kf_graph *body = kf_selection_body(&s, &operands, &results);
    kf_family family = kf_region_family(cx->target, body, &why);
    kf_str name = n.op == KF_OP_matmul && kf_value_is_param(g, n.in[1])
                      ? g->values.data[n.in[1]].name
                      : kf_str_from(kf_op_infos[n.op].name);
    kf_selection_commit(&s, family, name, n.loc, cx);
    return true;
}

/* The next contraction that is still loose and was not tried; nodes.len at the end. */
static uint32_t next_root(const kf_graph *g, const bool *tried)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (kf_node_is_loose(n) && (kf_op_infos[n->op].traits & KF_CONTRACT) && !tried[n->out[0]])
            return i;
    }
    return g->nodes.len;
}

bool kf_pass_fuse_epilogue(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        uint32_t failed = 0;
        for (;;) {
            bool *tried = KF_NEW_N(cx->scratch, bool, g->values.len);
            uint32_t root = next_root(g, tried);
            /* Skip roots that stayed loose: no target kernel takes them. */
            for (uint32_t k = 0; k < failed && root < g->nodes.len; k++) {
                tried[g->nodes.data[root].out[0]] = true;
                root = next_root(g, tried);
            }
            if (root == g->nodes.len)
                break;
            if (form(g, root, cx))
                progress = true;
            else
                failed++;
        }
    }
    return progress;
}
