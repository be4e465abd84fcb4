/* SPDX-License-Identifier: Apache-2.0 */
/* rewrite_norms - norms that subtract a mean become norms that need not, where asked for.
 *
 *   before   %0 = gather %table, %ids               after   %table' = centre(axis 1, "table")
 *            %1 = layer norm of %0                          %1 = rms norm of %0
 *            %2 = matmul %1, %w                              %w' = centre(axis 0, "w")
 *            %3 = add %0, %2                                 %3 = add %0, %2
 *
 * Rows of the residual stream whose mean is zero have the same layer norm as rms norm, and rows are
 * a sum of what weights write: tables, matrices, biases. So the mean of each is taken out when
 * weights are packed (rms). A row without mean follows from all but its last number, which need not
 * be stored: crms drops it, with the last row of what writes and, from each other column, the last
 * column of what reads (Jiang et al. 2023, arXiv:2305.14858).
 * Fires when    --norm-rewrite or build.norm_rewrite asks for it, and every reader of the stream is
 *               a norm that does not see a shift of the row (pre-norm), every writer a weight in
 *               f32; for crms also: every reader of the norms is a linear matmul in f32.
 * Must not fire when a stream is read as it is, as behind a post-norm; the refusal is an error that
 *               names the reader.
 * Why here      behind fold_weights: gains and biases stand in the matmuls then. A table that is
 *               tied to the head is untied.
 * Needs uses. Keeps nothing. Terminates: no norm that it leaves subtracts a mean.
 */
#include "passes/norm_stream.h"

#include <string.h>

/* ---- the body of the norm -------------------------------------------------------------------- */

/* |s| with its sum replaced by 0 and its sum of deviations by |deviations|; what vanishes beside 0
 * is left out, so that the result is spelled like a norm that never subtracted a mean. */
static const kf_slot *without_mean(kf_slot_builder *b, const kf_slot *s, uint32_t deviations)
{
    uint32_t number[KF_SLOT_MAX_INSTS];
    bool zero[KF_SLOT_MAX_INSTS] = {0};

    for (uint32_t i = 0; i < s->n_insts; i++) {
        const kf_slot_inst *in = &s->inst[i];
        const uint32_t *a = in->arg;
        bool first = in->n_args > 0 && zero[a[0]], second = in->n_args > 1 && zero[a[1]];
        if (in->op == KF_SLOT_CONST) {
            number[i] = kf_slot_const(b, in->value);
        } else if (in->op == KF_SLOT_PARAM) {
            zero[i] = in->index == 1;
            number[i] = in->index == 0   ? kf_slot_param(b, 0)
                        : in->index == 2 ? deviations
                                         : kf_slot_const(b, 0);
        } else if ((in->fn == KF_FN_mul && (first || second)) || (in->fn == KF_FN_div && first) ||
                   (in->fn == KF_FN_neg && first)) {
            zero[i] = true;
            number[i] = kf_slot_const(b, 0);
        } else if ((in->fn == KF_FN_add || in->fn == KF_FN_sub) && second) {
            number[i] = number[a[0]];
        } else if (in->fn == KF_FN_add && first) {
            number[i] = number[a[1]];
        } else {
            uint32_t arg[KF_SLOT_MAX_ARGS] = {0};
            for (uint32_t k = 0; k < in->n_args; k++)
                arg[k] = number[a[k]];
            number[i] = kf_slot_fn(b, in->fn, arg[0], arg[1], arg[2]);
        }
    }
    return kf_slot_finish(b, number[s->n_insts - 1]);
}

/* rms: over the sum of squares. crms: the last number is minus the sum of the others. */
static void rewrite_norm(kf_node_ref at, kf_norm_rewrite to)
{
    static const char *const rms_names[] = {"v", "ss"}, *const crms_names[] = {"v", "s", "ss"};
    kf_arena *arena = at.g->module->arena;
    kf_node *n = &at.g->nodes.data[at.node];
    const kf_attr_row_reduce *old = KF_ATTR_OF(n, row_reduce);
    kf_attr_row_reduce *a = kf_attr_copy(arena, KF_ATTR_row_reduce, old, false);
    bool is_rms = to == KF_NORM_REWRITE_RMS;
    kf_slot_builder *b =
        kf_slot_builder_create(arena, is_rms ? 2 : 3, is_rms ? rms_names : crms_names, 0);
    uint32_t squares = kf_slot_param(b, is_rms ? 1 : 2);

    if (is_rms) {
        a->acc = (kf_accs){1, {KF_ACC_sum_sq}};
    } else {
        a->acc = (kf_accs){2, {KF_ACC_sum, KF_ACC_sum_sq}};
        squares = kf_slot_fn(b, KF_FN_add, squares,
                             kf_slot_fn(b, KF_FN_square, kf_slot_param(b, 1), 0, 0), 0);
    }
    a->map = without_mean(b, old->map, squares);
    n->attr = a;
}

/* ---- weights --------------------------------------------------------------------------------- */

static void replace_weight(kf_node_ref at, uint32_t operand, const kf_recipe *r)
{
    kf_value old = at.g->nodes.data[at.node].in[operand];
    const kf_value_info info = at.g->values.data[old];
    kf_value made = kf_graph_param_of(at.g, r, info.name, info.loc);

    at.g->nodes.data[at.node].in[operand] = made;
}

static void rewrite_writer(const kf_stream *s, const kf_stream_writer *w, kf_norm_rewrite to)
{
    kf_arena *a = w->at.g->module->arena;
    kf_value v = w->at.g->nodes.data[w->at.node].in[w->operand];
    const kf_recipe *r = kf_recipe_centre(a, kf_value_recipe(w->at.g, v), w->axis);

    if (to == KF_NORM_REWRITE_CRMS)
        r = kf_recipe_slice(a, r, w->axis, 1, 0, s->width - 1);
    replace_weight(w->at, w->operand, r);
}

/* Behind a norm that lost a column: W x = sum over the others of (W_j - W_last) x_j. */
static void rewrite_readers(const kf_stream *s, kf_node_ref norm)
{
    kf_graph *g = norm.g;
    kf_arena *a = g->module->arena;
    kf_value y = g->nodes.data[norm.node].out[0];

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op != KF_OP_matmul || n->in[0] != y)
            continue;
        const kf_recipe *w = kf_value_recipe(g, n->in[1]);
        const kf_recipe *rest = kf_recipe_slice(a, w, 1, 1, 0, s->width - 1),
                        *last = kf_recipe_slice(a, w, 1, 1, s->width - 1, s->width);
        replace_weight((kf_node_ref){g, i}, 1, kf_recipe_fn(a, KF_FN_sub, rest, last));
    }
    g->values.data[y].type.dim[1] = kf_dim_static(s->width - 1);
}

static void rewrite_stream(kf_module *m, const kf_stream *s, kf_norm_rewrite to)
{
    for (uint32_t i = 0; i < s->writers.len; i++)
        rewrite_writer(s, &s->writers.data[i], to);
    for (uint32_t i = 0; i < s->norms.len; i++)
        rewrite_norm(s->norms.data[i], to);
    if (to != KF_NORM_REWRITE_CRMS)
        return;
    for (uint32_t i = 0; i < s->norms.len; i++)
        rewrite_readers(s, s->norms.data[i]);
    for (uint32_t f = 0; f < m->funcs.len; f++) {
        kf_graph *g = m->funcs.data[f];
        for (kf_value v = 0; v < g->values.len; v++)
            if (s->known[f] > v && s->in[f][v])
                g->values.data[v].type.dim[1] = kf_dim_static(s->width - 1);
    }
}

/* ---- the pass -------------------------------------------------------------------------------- */

/* For crms: what the norms give goes into f32 matmuls alone. */
static void check_readers(kf_stream *s, const kf_pass_ctx *cx)
{
    for (uint32_t i = 0; i < s->norms.len && !s->reason; i++) {
        const kf_graph *g = s->norms.data[i].g;
        kf_value y = g->nodes.data[s->norms.data[i].node].out[0];
        uint32_t linear = 0;
        for (uint32_t k = 0; k < g->nodes.len && !s->reason; k++) {
            const kf_node *n = &g->nodes.data[k];
            if (n->op != KF_OP_matmul || n->in[0] != y || !kf_node_is_linear(g, n))
                continue;
            linear++;
            if (kf_value_type(g, n->in[1])->dtype != KF_DTYPE_f32 && !cx->fold_narrow) {
                s->reason = KF_REASON_F0205;
                s->where = (kf_node_ref){s->norms.data[i].g, k};
            }
        }
        if (!s->reason && linear != kf_graph_use_counts(g, cx->scratch)[y]) {
            s->reason = KF_REASON_F0215;
            s->where = s->norms.data[i];
        }
    }
}

static void refuse(kf_pass_ctx *cx, kf_node_ref norm, const kf_stream *s)
{
    static const char *const names[] = {"", "rms", "crms"};
    const kf_graph *g = s->where.g;
    bool has_node = s->where.node < g->nodes.len;
    const kf_node *n = has_node ? &g->nodes.data[s->where.node] : NULL;
    kf_loc loc = has_node ? n->loc : g->loc;
    kf_str title = has_node ? kf_node_title(cx->scratch, g, n) : KF_STR("the model's result");
    const kf_node *from = &norm.g->nodes.data[norm.node];

    kf_report_refused(cx, norm.g, from->loc, s->reason, title, "norm row_reduce -> norm %s",
                      names[cx->norm_rewrite]);
    if (cx->is_norm_rewrite_refused)
        return;
    cx->is_norm_rewrite_refused = true;
    kf_diag *d = kf_diag_add(cx->diags, KF_E0412, kf_module_diag_loc(g->module, cx->diags, loc),
                             "norms cannot be rewritten as %s: %s: %.*s", names[cx->norm_rewrite],
                             kf_reason_texts[s->reason], KF_STR_ARG(title));
    kf_diag_note(cx->diags, d, kf_module_diag_loc(norm.g->module, cx->diags, from->loc),
                 "the norm of these rows");
}

/* All streams are looked at before any is changed: a model is rewritten as a whole or not at all.
 */
typedef KF_VEC(kf_stream) streams;

static bool is_known(const streams *all, kf_node_ref norm)
{
    for (uint32_t i = 0; i < all->len; i++)
        for (uint32_t k = 0; k < all->data[i].norms.len; k++)
            if (all->data[i].norms.data[k].g == norm.g &&
                all->data[i].norms.data[k].node == norm.node)
                return true;
    return false;
}

static bool find_streams(kf_module *m, kf_pass_ctx *cx, streams *out)
{
    bool ok = true;

    KF_EACH_FUNC(m, g)
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        kf_node_ref norm = {g, i};
        if (!kf_ignores_shift(g, &g->nodes.data[i]) || is_known(out, norm))
            continue;
        kf_stream s = kf_stream_find(m, g, i, cx);
        if (!s.reason && cx->norm_rewrite == KF_NORM_REWRITE_CRMS)
            check_readers(&s, cx);
        if (s.reason) {
            refuse(cx, norm, &s);
            ok = false;
            continue;
        }
        kf_vec_push(cx->scratch, out, s);
    }
    return ok;
}

bool kf_pass_rewrite_norms(kf_module *m, kf_pass_ctx *cx)
{
    streams all = {0};
    bool progress = false;

    if (cx->norm_rewrite == KF_NORM_REWRITE_NONE || !find_streams(m, cx, &all))
        return false;
    for (uint32_t i = 0; i < all.len; i++) {
        const kf_node_ref *at = &all.data[i].norms.data[0];
        const char *name = cx->norm_rewrite == KF_NORM_REWRITE_RMS ? "rms" : "crms";
        if (!kf_report_fused(cx, at->g, at->g->nodes.data[at->node].loc,
                             "norm row_reduce -> norm %s", name))
            continue;
        rewrite_stream(m, &all.data[i], cx->norm_rewrite);
        progress = true;
    }
    KF_EACH_FUNC(m, g)
    kf_graph_compact(g);
    return progress;
}
