/* SPDX-License-Identifier: Apache-2.0 */
/* fold_const - evaluate ops whose operands are numbers or weights.
 *
 *   before   %0 = const {value = 2}               after   %2 = const {value = 1.4142135623730951}
 *            %1 = sqrt %0
 *            %3 = add %gain, 1                            %gain_add = map(f32, "gain") (a) { a + 1
 * }
 *
 * Fires when    every operand of a row of fn.def is a const and the result is a scalar number, or
 *               every operand is a const or a parameter: then packing computes it, once.
 * Must not fire when the result is a predicate, which has no constant form; when the value is not
 *               finite: an infinity that the user wrote stays as it was written; when the result is
 *               a matrix larger than its parts or wider than they are stored, for reading it would
 *               cost more than computing it.
 * Why here      after canonicalize, before cse.
 * Needs topological order. Keeps the order. Terminates: each step makes a leaf.
 */
#include "passes/match.h"

#include <math.h>

/* ---- numbers --------------------------------------------------------------------------------- */

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

/* ---- weights --------------------------------------------------------------------------------- */

/* Whether a weight that is stored as |t| may stand for the function of |parts|. */
static bool is_worth_storing(const kf_graph *g, const kf_node *n, const kf_type *t)
{
    bool as_large = t->rank == 1;

    for (uint32_t i = 0; i < n->n_in; i++) {
        const kf_type *x = kf_value_type(g, n->in[i]);
        if (!kf_value_is_param(g, n->in[i]))
            continue;
        if (t->rank == 2 && x->rank == 2 && x->dtype != KF_DTYPE_f32)
            return false;
        as_large |= kf_type_static_elems(x) == kf_type_static_elems(t);
    }
    return as_large;
}

static bool is_stored_number(const kf_type *t)
{
    return kf_dtype_infos[t->dtype].kind == KF_KIND_FLOAT && t->layout.n_splits == 0;
}

/* The function as a slot over the parameters among its operands. */
static const kf_slot *slot_of(kf_graph *g, const kf_node *n, const kf_recipe **parts,
                              uint32_t *n_parts)
{
    static const char *const names[] = {"a", "b", "c"};
    uint32_t arg[3] = {0};

    *n_parts = 0;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (kf_value_is_param(g, n->in[i]))
            parts[(*n_parts)++] = kf_value_recipe(g, n->in[i]);
    kf_slot_builder *b = kf_slot_builder_create(g->module->arena, *n_parts, names, 0);
    for (uint32_t i = 0, param = 0; i < n->n_in; i++) {
        double v = 0;
        arg[i] = kf_value_const(g, n->in[i], &v) ? kf_slot_const(b, v) : kf_slot_param(b, param++);
    }
    return kf_slot_finish(b, kf_slot_fn(b, (kf_fn)n->op, arg[0], arg[1], arg[2]));
}

static bool fold_weights(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];
    const kf_recipe *parts[3];
    uint32_t n_parts = 0;
    double v;

    if (!kf_op_is_fn(n.op) || kf_fn_infos[n.op].result != KF_FN_RESULT_num)
        return false;
    for (uint32_t i = 0; i < n.n_in; i++) {
        bool param = kf_value_is_param(g, n.in[i]) && is_stored_number(kf_value_type(g, n.in[i]));
        if (!param && !kf_value_const(g, n.in[i], &v))
            return false;
        n_parts += param;
    }
    const kf_type t = *kf_value_type(g, n.out[0]);
    if (n_parts == 0 || !is_worth_storing(g, &n, &t))
        return false;
    const kf_slot *fn = slot_of(g, &n, parts, &n_parts);
    const kf_recipe *r = kf_recipe_map(g->module->arena, t.dtype, fn, n_parts, parts);
    if (!kf_type_eq(&r->type, &t))
        return false; /* sharded */
    kf_str name =
        kf_strf(g->module->arena, "%.*s_%s",
                KF_STR_ARG(g->values.data[n.in[kf_value_is_param(g, n.in[0]) ? 0 : 1]].name),
                kf_op_infos[n.op].name);
    kf_graph_replace(g, n.out[0], kf_graph_param_of(g, r, name, n.loc));
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
                any |= g->nodes.data[i].op != KF_OP_NONE && (fold_node(g, i) || fold_weights(g, i));
            folded |= any;
        }
        if (folded) {
            kf_graph_sort(g);
            kf_graph_compact(g);
        }
        progress |= folded;
    }
    return progress;
}
