/* SPDX-License-Identifier: Apache-2.0 */
/* match - see match.h. */
#include "passes/match.h"

#include "base/check.h"

#include <string.h>

bool kf_value_is_param(const kf_graph *g, kf_value v)
{
    return g->values.data[v].kind == KF_VALUE_PARAM;
}

bool kf_value_is_arg(const kf_graph *g, kf_value v)
{
    return g->values.data[v].kind == KF_VALUE_ARG;
}

const kf_recipe *kf_value_recipe(const kf_graph *g, kf_value v)
{
    return g->recipes.data[g->values.data[v].def];
}

bool kf_node_is_linear(const kf_graph *g, const kf_node *n)
{
    if (n->op != KF_OP_matmul || !KF_ATTR_OF(n, matmul)->trans_b)
        return false;
    return kf_value_is_param(g, n->in[1]) && kf_value_type(g, n->in[1])->rank == 2 &&
           kf_value_type(g, n->in[0])->rank == 2;
}

/* Instructions of |s| up to |root|, rebuilt in |b| with parameter |from| as |to|. In order, not by
 * descent: a value that is used twice at each of many levels would be visited as often as it has
 * paths. */
static uint32_t rebuild(kf_slot_builder *b, const kf_slot *s, uint32_t root)
{
    uint32_t number[KF_SLOT_MAX_INSTS];

    for (uint32_t i = 0; i <= root; i++) {
        const kf_slot_inst *in = &s->inst[i];
        uint32_t arg[KF_SLOT_MAX_ARGS] = {0};
        for (uint32_t k = 0; k < in->n_args; k++)
            arg[k] = number[in->arg[k]];
        switch (in->op) {
        case KF_SLOT_CONST:
            number[i] = kf_slot_const(b, in->value);
            break;
        case KF_SLOT_PARAM:
            number[i] = kf_slot_param(b, in->index);
            break;
        case KF_SLOT_LOAD:
            number[i] = kf_slot_load(b, in->index, arg, in->n_args);
            break;
        case KF_SLOT_FN:
            number[i] = kf_slot_fn(b, in->fn, arg[0], arg[1], arg[2]);
            break;
        }
    }
    return number[root];
}

static bool inst_uses_param(const kf_slot *s, uint32_t root, uint32_t param)
{
    bool uses[KF_SLOT_MAX_INSTS];

    for (uint32_t i = 0; i <= root; i++) {
        const kf_slot_inst *in = &s->inst[i];
        uses[i] = in->op == KF_SLOT_PARAM && in->index == param;
        for (uint32_t k = 0; k < in->n_args; k++)
            uses[i] |= uses[in->arg[k]];
    }
    return uses[root];
}

static bool inst_is_param(const kf_slot *s, uint32_t root, uint32_t param)
{
    return s->inst[root].op == KF_SLOT_PARAM && s->inst[root].index == param;
}

bool kf_slot_row_scale(kf_arena *a, const kf_slot *map, const kf_slot **out_scale)
{
    static const char *const names[] = {"v", "s"};

    if (map->n_params != 2 || map->captures)
        return false;
    const kf_slot_inst *root = &map->inst[map->n_insts - 1];
    if (root->op != KF_SLOT_FN || (root->fn != KF_FN_mul && root->fn != KF_FN_div))
        return false;
    uint32_t v_side = inst_is_param(map, root->arg[0], 0) ? 0 : 1;
    if (v_side == 1 && (root->fn == KF_FN_div || !inst_is_param(map, root->arg[1], 0)))
        return false;
    uint32_t scale = root->arg[1 - v_side];
    if (inst_uses_param(map, scale, 0))
        return false;
    kf_slot_builder *b = kf_slot_builder_create(a, 2, names, 0);
    uint32_t g = rebuild(b, map, scale);
    if (root->fn == KF_FN_div)
        g = kf_slot_fn(b, KF_FN_recip, g, 0, 0);
    *out_scale = kf_slot_finish(b, g);
    return true;
}

void kf_merge_matmuls(kf_graph *g, uint32_t n, const uint32_t *node_index, uint32_t groups)
{
    kf_arena *a = g->module->arena;
    const kf_recipe *part[8];
    kf_value old[8];
    int64_t rows[8], total = 0;

    KF_ASSERT(n <= 8, "at most 8 matmuls are joined at once");
    for (uint32_t i = 0; i < n; i++) {
        const kf_node *mm = &g->nodes.data[node_index[i]];
        part[i] = kf_value_recipe(g, mm->in[1]);
        rows[i] = part[i]->type.dim[0].size;
        old[i] = mm->out[0];
        total += rows[i];
    }
    const kf_node first = g->nodes.data[node_index[0]];
    kf_str name = {0};
    kf_sbuf joined = {.arena = a};
    for (uint32_t i = 0; i < n; i++) {
        if (i)
            kf_sbuf_char(&joined, '_');
        kf_sbuf_str(&joined, g->values.data[g->nodes.data[node_index[i]].in[1]].name);
    }
    name = kf_sbuf_view(&joined);
    kf_value w = kf_graph_add_param(g, kf_recipe_concat(a, groups, n, part), name, first.loc);
    kf_value mm = kf_node_matmul(g, first.in[0], w, true, first.loc);
    kf_dim lead = kf_value_type(g, mm)->dim[0];
    kf_dim grouped[] = {lead, kf_dim_static(groups), kf_dim_static(total / groups)};
    kf_value view = kf_node_reshape(g, mm, 3, grouped, first.loc);
    int64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        kf_loc loc = g->nodes.data[node_index[i]].loc;
        int64_t width = rows[i] / groups;
        kf_value part_v = kf_node_slice(g, view, 2, at, at + width, loc);
        kf_dim flat[] = {lead, kf_dim_static(rows[i])};
        kf_graph_replace(g, old[i], kf_node_reshape(g, part_v, 2, flat, loc));
        at += width;
    }
}

kf_str kf_node_title(kf_arena *a, const kf_graph *g, const kf_node *n)
{
    const char *op = kf_op_infos[n->op].name;

    if (n->op == KF_OP_matmul && kf_value_is_param(g, n->in[1]))
        return kf_strf(a, "%s %%%.*s", op, KF_STR_ARG(g->values.data[n->in[1]].name));
    return kf_strf(a, "%s", op);
}
