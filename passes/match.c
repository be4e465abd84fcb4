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

bool kf_value_is_result(const kf_graph *g, kf_value v)
{
    for (uint32_t i = 0; i < g->results.len; i++)
        if (g->results.data[i] == v)
            return true;
    return false;
}

bool kf_accs_have(const kf_accs *accs, kf_acc acc)
{
    for (uint8_t i = 0; i < accs->n; i++)
        if (accs->acc[i] == acc)
            return true;
    return false;
}

const kf_recipe *kf_value_recipe(const kf_graph *g, kf_value v)
{
    return g->recipes.data[g->values.data[v].def];
}

uint32_t kf_readers_of_recipe(const kf_graph *g, const kf_recipe *r, const uint32_t *uses)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->params.len; i++)
        if (kf_recipe_eq(g->recipes.data[i], r))
            n += uses[g->params.data[i]];
    return n;
}

bool kf_node_is_linear(const kf_graph *g, const kf_node *n)
{
    if (n->op != KF_OP_matmul || !KF_ATTR_OF(n, matmul)->trans_b)
        return false;
    return kf_value_is_param(g, n->in[1]) && kf_value_type(g, n->in[1])->rank == 2 &&
           kf_value_type(g, n->in[0])->rank == 2;
}

/* In order, not by descent: a value that is used twice at each of many levels would be visited as
 * often as it has paths. */
static void mark_reached(const kf_slot *s, uint32_t root, bool *reached)
{
    for (uint32_t i = 0; i < root; i++)
        reached[i] = false;
    reached[root] = true;
    for (uint32_t i = root + 1; i-- > 0;)
        for (uint32_t k = 0; reached[i] && k < s->inst[i].n_args; k++)
            reached[s->inst[i].arg[k]] = true;
}

uint32_t kf_slot_rebuild(kf_slot_builder *b, const kf_slot *s, uint32_t root, const uint32_t *param)
{
    uint32_t number[KF_SLOT_MAX_INSTS];
    bool reached[KF_SLOT_MAX_INSTS];

    mark_reached(s, root, reached);
    for (uint32_t i = 0; i <= root; i++) {
        const kf_slot_inst *in = &s->inst[i];
        uint32_t arg[KF_SLOT_MAX_ARGS] = {0};
        if (!reached[i])
            continue;
        for (uint32_t k = 0; k < in->n_args; k++)
            arg[k] = number[in->arg[k]];
        switch (in->op) {
        case KF_SLOT_CONST:
            number[i] = kf_slot_const(b, in->value);
            break;
        case KF_SLOT_PARAM:
            number[i] = kf_slot_param(b, param ? param[in->index] : in->index);
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

/* |root| without parameter 0, which it is proportional to: v * a / b gives a / b. */
static bool factor_out(kf_slot_builder *b, const kf_slot *s, uint32_t root, uint32_t *out)
{
    const kf_slot_inst *in = &s->inst[root];

    if (in->op == KF_SLOT_PARAM && in->index == 0) {
        *out = kf_slot_const(b, 1.0);
        return true;
    }
    if (in->op != KF_SLOT_FN || (in->fn != KF_FN_mul && in->fn != KF_FN_div))
        return false;
    uint32_t v_side = inst_uses_param(s, in->arg[0], 0) ? 0 : 1, inner;
    uint32_t other = in->arg[1 - v_side];
    if (inst_uses_param(s, other, 0) || (v_side == 1 && in->fn == KF_FN_div))
        return false;
    if (!factor_out(b, s, in->arg[v_side], &inner))
        return false;
    const kf_slot_inst *v = &s->inst[in->arg[v_side]];
    if (v->op != KF_SLOT_PARAM)
        *out = kf_slot_fn(b, in->fn, inner, kf_slot_rebuild(b, s, other, NULL), 0);
    else if (in->fn == KF_FN_mul)
        *out = kf_slot_rebuild(b, s, other, NULL);
    else
        *out = kf_slot_fn(b, KF_FN_recip, kf_slot_rebuild(b, s, other, NULL), 0, 0);
    return true;
}

bool kf_slot_row_scale(kf_arena *a, const kf_slot *map, const kf_slot **out_scale)
{
    static const char *const names[] = {"v", "s"};
    kf_slot_builder *b = kf_slot_builder_create(a, 2, names, 0);
    uint32_t scale;

    if (!map || map->n_params != 2 || map->captures ||
        !factor_out(b, map, map->n_insts - 1, &scale))
        return false;
    *out_scale = kf_slot_finish(b, scale);
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

/* ---- reports --------------------------------------------------------------------------------- */

/* Kinds that follow from the op alone; all others are elementwise. */
static const kf_kind op_kinds[KF_OP_COUNT] = {
    [KF_OP_const] = KF_KIND_view,      [KF_OP_iota] = KF_KIND_view,
    [KF_OP_reshape] = KF_KIND_view,    [KF_OP_transpose] = KF_KIND_view,
    [KF_OP_slice] = KF_KIND_view,      [KF_OP_concat] = KF_KIND_view,
    [KF_OP_matmul] = KF_KIND_matmul,   [KF_OP_row_stat] = KF_KIND_statistic,
    [KF_OP_rope_table] = KF_KIND_rope, [KF_OP_rope] = KF_KIND_rope,
    [KF_OP_kv_append] = KF_KIND_cache, [KF_OP_kv_read] = KF_KIND_cache,
    [KF_OP_kv_index] = KF_KIND_cache,  [KF_OP_attention] = KF_KIND_attention,
};

/* The operand of |n| that is a parameter vector, or KF_NO_VALUE. */
static kf_value vector_operand(const kf_graph *g, const kf_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (kf_value_is_param(g, n->in[i]) && kf_value_type(g, n->in[i])->rank == 1)
            return n->in[i];
    return KF_NO_VALUE;
}

static kf_kind sum_kind(const kf_graph *g, const kf_node *n)
{
    const kf_type *out = kf_value_type(g, n->out[0]);
    bool whole = out->rank == 2;

    if (vector_operand(g, n) != KF_NO_VALUE)
        return KF_KIND_bias;
    for (uint32_t i = 0; i < n->n_in; i++)
        whole =
            whole && !kf_value_is_param(g, n->in[i]) && kf_type_eq(kf_value_type(g, n->in[i]), out);
    return whole ? KF_KIND_residual : KF_KIND_elementwise;
}

static kf_kind reduction_kind(const kf_node *n)
{
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);

    if (!attr->keep && kf_accs_have(&attr->acc, KF_ACC_argmax))
        return KF_KIND_choice;
    return !attr->keep                      ? KF_KIND_statistic
           : attr->acc.acc[0] == KF_ACC_max ? KF_KIND_softmax
                                            : KF_KIND_norm;
}

kf_kind kf_node_kind(const kf_graph *g, const kf_node *n)
{
    if (op_kinds[n->op] != KF_KIND_NONE)
        return op_kinds[n->op];
    if (n->op == KF_OP_gather)
        return kf_value_is_param(g, n->in[0]) ? KF_KIND_embedding : KF_KIND_view;
    if (n->op == KF_OP_row_reduce)
        return reduction_kind(n);
    if (n->op == KF_OP_mul && vector_operand(g, n) != KF_NO_VALUE)
        return KF_KIND_gain;
    return n->op == KF_OP_add ? sum_kind(g, n) : KF_KIND_elementwise;
}

kf_str kf_node_title(kf_arena *a, const kf_graph *g, const kf_node *n)
{
    kf_kind kind = kf_node_kind(g, n);
    kf_value param = kind == KF_KIND_gain || kind == KF_KIND_bias ? vector_operand(g, n)
                     : kind == KF_KIND_matmul                     ? n->in[1]
                     : kind == KF_KIND_embedding                  ? n->in[0]
                                                                  : KF_NO_VALUE;

    if (param != KF_NO_VALUE && kf_value_is_param(g, param))
        return kf_strf(a, "%s %%%.*s", kf_kind_names[kind], KF_STR_ARG(g->values.data[param].name));
    if (kind == KF_KIND_elementwise || kind == KF_KIND_view)
        return kf_strf(a, "%s %s", kf_kind_names[kind], kf_op_infos[n->op].name);
    return kf_str_from(kf_kind_names[kind]);
}

kf_str kf_weight_names(kf_arena *a, const kf_graph *g, uint32_t n, const uint32_t *node_index)
{
    kf_sbuf names = {.arena = a};

    for (uint32_t i = 0; i < n; i++) {
        kf_value w = g->nodes.data[node_index[i]].in[1];
        kf_sbuf_printf(&names, "%s%%%.*s", i ? ", " : "", KF_STR_ARG(g->values.data[w].name));
    }
    return kf_sbuf_view(&names);
}
