/* SPDX-License-Identifier: Apache-2.0 */
/* smaller - see smaller.h.
 *
 * Steps are numbered function by function from the last one, node by node from the last one; each
 * result of a node has one step per operand of its type and one for the first value of its type,
 * each slot one step per operand of its last instruction.
 */
#include "ir/smaller.h"

#include "ir/verify.h"

#include <string.h>

typedef struct cursor {
    uint32_t left; /* steps before the wanted one */
    bool done;
} cursor;

/* True when the wanted step has come. */
static bool here(cursor *c)
{
    if (c->done || c->left-- > 0)
        return false;
    c->done = true;
    return true;
}

/* ---- values ---------------------------------------------------------------------------------- */

static kf_value first_of_type(const kf_graph *g, uint32_t before, const kf_type *t)
{
    for (kf_value v = 0; v < g->values.len; v++) {
        const kf_value_info *info = &g->values.data[v];
        bool earlier = info->kind != KF_VALUE_NODE || info->def < before;
        if (earlier && kf_type_eq(&info->type, t))
            return v;
    }
    return KF_NO_VALUE;
}

static bool is_used(const kf_graph *g, kf_value v)
{
    for (uint32_t i = 0; i < g->results.len; i++)
        if (g->results.data[i] == v)
            return true;
    for (uint32_t i = 0; i < g->nodes.len; i++)
        for (uint32_t j = 0; j < g->nodes.data[i].n_in; j++)
            if (g->nodes.data[i].in[j] == v)
                return true;
    return false;
}

static bool step_result(kf_graph *g, uint32_t index, kf_value out, cursor *c)
{
    const kf_node n = g->nodes.data[index];
    const kf_type t = *kf_value_type(g, out);

    if (!is_used(g, out)) /* it would be the same module */
        return false;
    for (uint32_t i = 0; i < n.n_in; i++) {
        if (!kf_type_eq(kf_value_type(g, n.in[i]), &t) || !here(c))
            continue;
        kf_graph_replace(g, out, n.in[i]);
        return true;
    }
    kf_value v = first_of_type(g, index, &t);
    if (v == KF_NO_VALUE || !here(c))
        return false;
    kf_graph_replace(g, out, v);
    return true;
}

/* ---- slots ----------------------------------------------------------------------------------- */

/* The slot whose result is instruction |root| of |s|. */
static const kf_slot *part_of_slot(kf_arena *arena, const kf_slot *s, uint32_t root)
{
    const char *names[KF_SLOT_MAX_PARAMS];
    uint32_t *number = KF_NEW_N(arena, uint32_t, s->n_insts);

    for (uint8_t i = 0; i < s->n_params; i++)
        names[i] = kf_str_dup(arena, s->param[i]).ptr;
    kf_slot_builder *b = kf_slot_builder_create(arena, s->n_params, names, s->captures);
    for (uint32_t i = 0; i <= root; i++) {
        const kf_slot_inst *in = &s->inst[i];
        uint32_t arg[KF_SLOT_MAX_ARGS] = {0};
        for (uint8_t a = 0; a < in->n_args; a++)
            arg[a] = number[in->arg[a]];
        number[i] = in->op == KF_SLOT_CONST   ? kf_slot_const(b, in->value)
                    : in->op == KF_SLOT_PARAM ? kf_slot_param(b, in->index)
                    : in->op == KF_SLOT_LOAD  ? kf_slot_load(b, in->index, arg, in->n_args)
                                              : kf_slot_fn(b, in->fn, arg[0], arg[1], arg[2]);
    }
    return kf_slot_finish(b, number[root]);
}

static bool step_slots(kf_graph *g, kf_node *n, cursor *c)
{
    kf_attr_kind kind = kf_op_infos[n->op].attr;
    const kf_attr_info *info = &kf_attr_infos[kind];

    for (uint32_t i = 0; i < info->n_fields; i++) {
        if (info->field[i].type != KF_FIELD_slot)
            continue;
        const kf_slot *s =
            *(const kf_field_slot *)(const void *)((const char *)n->attr + info->field[i].offset);
        for (uint8_t a = 0; s && a < s->inst[s->n_insts - 1].n_args; a++) {
            if (!here(c))
                continue;
            char *copy = kf_attr_copy(g->module->arena, kind, n->attr, false);
            *(kf_field_slot *)(void *)(copy + info->field[i].offset) =
                part_of_slot(g->module->arena, s, s->inst[s->n_insts - 1].arg[a]);
            n->attr = copy;
            return true;
        }
    }
    return false;
}

/* ---- modules --------------------------------------------------------------------------------- */

static bool step_graph(kf_graph *g, cursor *c)
{
    for (uint32_t i = g->nodes.len; i-- > 0;) {
        for (uint8_t r = 0; r < g->nodes.data[i].n_out; r++)
            if (step_result(g, i, g->nodes.data[i].out[r], c))
                return true;
        if (step_slots(g, &g->nodes.data[i], c))
            return true;
        if (g->nodes.data[i].body && step_graph(g->nodes.data[i].body, c))
            return true;
    }
    return false;
}

static bool is_called(const kf_module *m, const kf_graph *callee)
{
    if (kf_str_starts_with(callee->name, "main"))
        return true;
    for (uint32_t f = 0; f < m->funcs.len; f++)
        for (uint32_t i = 0; i < m->funcs.data[f]->nodes.len; i++) {
            const kf_node *n = &m->funcs.data[f]->nodes.data[i];
            if (n->op == KF_OP_repeat && kf_str_eq(KF_ATTR_OF(n, repeat)->callee, callee->name))
                return true;
        }
    return false;
}

static void compact_bodies(kf_graph *g)
{
    for (uint32_t i = 0; i < g->nodes.len; i++)
        if (g->nodes.data[i].body) {
            compact_bodies(g->nodes.data[i].body);
            kf_graph_compact(g->nodes.data[i].body);
        }
}

static void tidy(kf_module *m)
{
    uint32_t kept = 0;

    for (uint32_t f = 0; f < m->funcs.len; f++) {
        compact_bodies(m->funcs.data[f]);
        kf_graph_compact(m->funcs.data[f]);
    }
    for (uint32_t f = 0; f < m->funcs.len; f++)
        if (is_called(m, m->funcs.data[f]))
            m->funcs.data[kept++] = m->funcs.data[f];
    m->funcs.len = kept;
}

kf_module *kf_module_smaller(kf_arena *arena, const kf_module *m, uint32_t step, bool *out_end)
{
    kf_module *small = kf_module_clone(m, arena);
    cursor c = {step, false};
    kf_sbuf why = {.arena = arena};

    for (uint32_t f = small->funcs.len; f-- > 0 && !c.done;)
        step_graph(small->funcs.data[f], &c);
    *out_end = !c.done;
    if (!c.done)
        return NULL;
    tidy(small);
    return kf_module_verify(small, KF_VERIFY_GRAPH, &why) ? small : NULL;
}
