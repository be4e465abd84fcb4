/* SPDX-License-Identifier: Apache-2.0 */
/* fold_params - what is computed from weights alone becomes part of their recipes.
 *
 *   before   %0 = add %gain, 1                      after   %1 = mul %x, %gain'
 *            %1 = mul %x, %0                                %gain' = map("gain") { g + 1 }
 *
 * The result of such an op is stored in f32, so its recipe is f32 too and nothing is rounded that
 * was not rounded before. A matrix may become wider or larger than its parts; a call would store
 * and read it in that form as well.
 * Fires when    every operand of a row of fn.def is a parameter or a number, at least one a
 *               parameter; both factors of a matmul are parameters; a parameter is converted.
 * Must not fire when shapes are such that packing could not broadcast them, or a parameter has a
 *               layout already.
 * Why here      with fold_const, before the passes that look for gains and weights.
 * Needs topological order. Keeps nothing. Terminates: each step makes a leaf.
 */
#include "passes/match.h"

static bool is_plain_param(const kf_graph *g, kf_value v)
{
    const kf_type *t = kf_value_type(g, v);

    return kf_value_is_param(g, v) && t->rank > 0 && t->layout.n_splits == 0 &&
           kf_dtype_infos[t->dtype].kind == KF_KIND_FLOAT;
}

/* The function of node |n| over its operands that are parameters; the numbers go inside. NULL if
 * some operand is neither. */
static const kf_slot *function_of(const kf_graph *g, const kf_node *n, const kf_recipe **part,
                                  uint32_t *out_parts)
{
    static const char *const names[] = {"a", "b", "c"};
    uint32_t arg[3] = {0}, parts = 0;
    double number;

    for (uint32_t i = 0; i < n->n_in; i++) {
        if (is_plain_param(g, n->in[i]))
            part[parts++] = kf_value_recipe(g, n->in[i]);
        else if (!kf_value_const(g, n->in[i], &number))
            return NULL;
    }
    if (!parts)
        return NULL;
    kf_slot_builder *b = kf_slot_builder_create(g->module->arena, (uint8_t)parts, names, 0);
    *out_parts = parts;
    parts = 0;
    for (uint32_t i = 0; i < n->n_in; i++)
        arg[i] = kf_value_const(g, n->in[i], &number) ? kf_slot_const(b, number)
                                                      : kf_slot_param(b, parts++);
    if (n->op == KF_OP_convert)
        return kf_slot_finish(b, arg[0]);
    return kf_slot_finish(b, kf_slot_fn(b, (kf_fn)n->op, arg[0], arg[1], arg[2]));
}

static const kf_recipe *map_of(const kf_graph *g, const kf_node *n)
{
    const kf_recipe *part[3];
    const kf_type *t = kf_value_type(g, n->out[0]);
    uint32_t parts;

    if (kf_dtype_infos[t->dtype].kind != KF_KIND_FLOAT || t->rank == 0)
        return NULL;
    const kf_slot *fn = function_of(g, n, part, &parts);
    return fn ? kf_recipe_try_map(g->module->arena, t->dtype, fn, parts, part) : NULL;
}

static const kf_recipe *product_of(const kf_graph *g, const kf_node *n)
{
    kf_arena *a = g->module->arena;

    for (uint32_t i = 0; i < 2; i++)
        if (!is_plain_param(g, n->in[i]) || kf_value_type(g, n->in[i])->rank != 2)
            return NULL;
    const kf_recipe *right = kf_value_recipe(g, n->in[1]);
    if (KF_ATTR_OF(n, matmul)->trans_b)
        right = kf_recipe_transpose(a, right);
    return kf_recipe_matmul(a, kf_value_recipe(g, n->in[0]), right);
}

/* That of the largest operand, which is what the result still is. */
static kf_str name_of(const kf_graph *g, const kf_node *n)
{
    kf_str name = {0};
    int64_t most = 0;

    for (uint32_t i = 0; i < n->n_in; i++) {
        int64_t elems = kf_type_static_elems(kf_value_type(g, n->in[i]));
        if (!kf_value_is_param(g, n->in[i]) || elems <= most)
            continue;
        most = elems;
        name = g->values.data[n->in[i]].name;
    }
    return name;
}

static bool fold_node(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];
    const kf_recipe *r = NULL;

    if (kf_op_is_fn(n.op) || n.op == KF_OP_convert)
        r = map_of(g, &n);
    else if (n.op == KF_OP_matmul)
        r = product_of(g, &n);
    if (!r || !kf_type_eq(&r->type, kf_value_type(g, n.out[0])))
        return false;
    kf_graph_replace(g, n.out[0], kf_graph_param_of(g, r, name_of(g, &n), n.loc));
    g->nodes.data[index].op = KF_OP_NONE;
    return true;
}

bool kf_pass_fold_params(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    (void)cx;
    KF_EACH_FUNC(m, g)
    {
        bool folded = false;
        for (uint32_t i = 0, end = g->nodes.len; i < end; i++)
            folded |= g->nodes.data[i].op != KF_OP_NONE && fold_node(g, i);
        if (folded)
            kf_graph_compact(g);
        progress |= folded;
    }
    return progress;
}
