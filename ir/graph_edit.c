/* SPDX-License-Identifier: Apache-2.0 */
/* graph_edit - rewriting graphs: replace, sort, compact, clone. */
#include "base/check.h"
#include "ir/graph.h"

#include <string.h>

void kf_graph_replace(kf_graph *g, kf_value old, kf_value new_value)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        kf_node *n = &g->nodes.data[i];
        for (uint32_t k = 0; k < n->n_in; k++) {
            if (n->in[k] == old)
                n->in[k] = new_value;
        }
    }
    for (uint32_t i = 0; i < g->results.len; i++) {
        if (g->results.data[i] == old)
            g->results.data[i] = new_value;
    }
}

/* Where each value's node went after nodes were moved. */
static void relink_values(kf_graph *g)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint8_t k = 0; n->op != KF_OP_NONE && k < n->n_out; k++)
            g->values.data[n->out[k]].def = i;
    }
}

void kf_graph_sort(kf_graph *g)
{
    enum { NEW, OPEN, DONE };
    kf_arena *arena = g->module->arena;
    uint32_t n_nodes = g->nodes.len, n_sorted = 0, depth = 0;
    kf_node *sorted = KF_NEW_N(arena, kf_node, n_nodes ? n_nodes : 1);
    uint8_t *state = KF_NEW_N(arena, uint8_t, n_nodes ? n_nodes : 1);
    uint32_t *next_in = KF_NEW_N(arena, uint32_t, n_nodes ? n_nodes : 1);
    uint32_t *stack = KF_NEW_N(arena, uint32_t, n_nodes ? n_nodes : 1);
    for (uint32_t first = 0; first < n_nodes; first++) {
        if (state[first] == DONE)
            continue;
        stack[depth++] = first;
        state[first] = OPEN;
        while (depth) {
            uint32_t i = stack[depth - 1];
            const kf_node *n = &g->nodes.data[i];
            if (n->op == KF_OP_NONE || next_in[i] == n->n_in) {
                state[i] = DONE;
                sorted[n_sorted++] = *n;
                depth--;
                continue;
            }
            const kf_value_info *v = &g->values.data[n->in[next_in[i]++]];
            if (v->kind != KF_VALUE_NODE || state[v->def] == DONE)
                continue;
            KF_ASSERT(state[v->def] == NEW, "a graph has no cycles");
            state[v->def] = OPEN;
            stack[depth++] = v->def;
        }
    }
    if (n_nodes)
        memcpy(g->nodes.data, sorted, n_nodes * sizeof *sorted);
    relink_values(g);
}

/* ---- compact --------------------------------------------------------------------------------- */

/* Nodes are in order, so one backward walk finds everything alive. */
static void mark_live(const kf_graph *g, bool *live)
{
    for (uint32_t i = 0; i < g->results.len; i++)
        live[g->results.data[i]] = true;
    for (uint32_t i = g->nodes.len; i-- > 0;) {
        const kf_node *n = &g->nodes.data[i];
        bool used = false;
        for (uint8_t k = 0; n->op != KF_OP_NONE && k < n->n_out; k++)
            used |= live[n->out[k]];
        for (uint32_t k = 0; used && k < n->n_in; k++)
            live[n->in[k]] = true;
    }
}

typedef struct renumbering {
    kf_graph *g;
    kf_value_info *values;
    kf_value *map;
    uint32_t n;
} renumbering;

static kf_value renumber(renumbering *r, kf_value old, uint32_t def)
{
    r->values[r->n] = r->g->values.data[old];
    r->values[r->n].def = def;
    r->map[old] = r->n;
    return r->n++;
}

static bool compact_params(renumbering *r, const bool *live)
{
    kf_graph *g = r->g;
    uint32_t kept = 0, n_params = g->params.len;
    for (uint32_t i = 0; i < g->params.len; i++) {
        kf_value old = g->params.data[i];
        if (!live[old])
            continue;
        g->recipes.data[kept] = g->recipes.data[i];
        g->params.data[kept] = renumber(r, old, kept);
        kept++;
    }
    g->params.len = g->recipes.len = kept;
    return kept != n_params;
}

static bool compact_nodes(renumbering *r, const bool *live)
{
    kf_graph *g = r->g;
    uint32_t kept = 0, n_nodes = g->nodes.len;
    for (uint32_t i = 0; i < n_nodes; i++) {
        kf_node n = g->nodes.data[i];
        bool used = false;
        for (uint8_t k = 0; n.op != KF_OP_NONE && k < n.n_out; k++)
            used |= live[n.out[k]];
        if (!used)
            continue;
        for (uint32_t k = 0; k < n.n_in; k++) {
            KF_ASSERT(r->map[n.in[k]] != KF_NO_VALUE, "compact needs topological order");
            n.in[k] = r->map[n.in[k]];
        }
        for (uint8_t k = 0; k < n.n_out; k++)
            n.out[k] = renumber(r, n.out[k], kept);
        g->nodes.data[kept++] = n;
    }
    g->nodes.len = kept;
    return kept != n_nodes;
}

static bool is_sorted(const kf_graph *g)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t k = 0; n->op != KF_OP_NONE && k < n->n_in; k++) {
            const kf_value_info *v = &g->values.data[n->in[k]];
            if (v->kind == KF_VALUE_NODE && v->def >= i)
                return false;
        }
    }
    return true;
}

bool kf_graph_compact(kf_graph *g)
{
    bool changed = !is_sorted(g);
    if (changed)
        kf_graph_sort(g);
    kf_arena *arena = g->module->arena;
    uint32_t n_values = g->values.len;
    bool *live = KF_NEW_N(arena, bool, n_values ? n_values : 1);
    renumbering r = {.g = g,
                     .values = KF_NEW_N(arena, kf_value_info, n_values ? n_values : 1),
                     .map = KF_NEW_N(arena, kf_value, n_values ? n_values : 1)};
    memset(r.map, 0xff, n_values * sizeof *r.map);
    mark_live(g, live);
    for (uint32_t i = 0; i < g->args.len; i++)
        g->args.data[i] = renumber(&r, g->args.data[i], i);
    changed |= compact_params(&r, live);
    changed |= compact_nodes(&r, live);
    for (uint32_t i = 0; i < g->results.len; i++)
        g->results.data[i] = r.map[g->results.data[i]];
    g->values.data = r.values;
    g->values.len = r.n;
    g->values.cap = n_values;
    return changed;
}

/* ---- clone ----------------------------------------------------------------------------------- */

static kf_str copy_str(kf_arena *arena, kf_str s, bool deep)
{
    return deep ? kf_str_dup(arena, s) : s;
}

/* |deep|: into the arena of another module, sharing nothing. Else attributes, strings and recipes,
 * which never change, are shared. */
static kf_graph *copy_graph(kf_module *to, const kf_graph *g, kf_str name, bool deep)
{
    kf_arena *arena = to->arena;
    kf_graph *c = kf_graph_create(to);
    c->name = kf_str_dup(arena, name);
    c->loc = g->loc;
    for (uint32_t i = 0; i < g->args.len; i++)
        kf_vec_push(arena, &c->args, g->args.data[i]);
    for (uint32_t i = 0; i < g->params.len; i++) {
        const kf_recipe *r = g->recipes.data[i];
        kf_vec_push(arena, &c->params, g->params.data[i]);
        kf_vec_push(arena, &c->recipes, deep ? kf_recipe_copy(arena, r) : r);
    }
    for (uint32_t i = 0; i < g->values.len; i++) {
        kf_value_info v = g->values.data[i];
        v.name = copy_str(arena, v.name, deep);
        kf_vec_push(arena, &c->values, v);
    }
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        kf_node n = g->nodes.data[i];
        kf_value *in = KF_NEW_N(arena, kf_value, n.n_in ? n.n_in : 1);
        for (uint32_t k = 0; k < n.n_in; k++)
            in[k] = n.in[k];
        n.in = in;
        n.name = copy_str(arena, n.name, deep);
        if (n.op != KF_OP_NONE && deep)
            n.attr = kf_attr_copy(arena, kf_op_infos[n.op].attr, n.attr, true);
        if (n.body)
            n.body = copy_graph(to, n.body, n.body->name, deep);
        kf_vec_push(arena, &c->nodes, n);
    }
    for (uint32_t i = 0; i < g->results.len; i++)
        kf_vec_push(arena, &c->results, g->results.data[i]);
    return c;
}

kf_graph *kf_graph_clone(const kf_graph *g, kf_str name)
{
    return copy_graph(g->module, g, name, false);
}

kf_value kf_graph_copy_node(kf_graph *to, const kf_graph *from, const kf_node *n, kf_value *map)
{
    kf_arena *arena = to->module->arena;
    kf_value *in = KF_NEW_N(arena, kf_value, n->n_in ? n->n_in : 1);
    for (uint32_t i = 0; i < n->n_in; i++) {
        KF_ASSERT(map[n->in[i]] != KF_NO_VALUE, "operands are copied before their users");
        in[i] = map[n->in[i]];
    }
    kf_value first;
    if (n->op == KF_OP_region) {
        kf_graph *body = copy_graph(to->module, n->body, n->body->name, false);
        first = kf_node_add_region(to, KF_ATTR_OF(n, region)->family, body, n->name, n->n_in, in,
                                   n->loc);
    } else {
        first =
            kf_node_add(to, n->op, n->attr, n->n_in, in, kf_value_type(from, n->out[0]), n->loc);
    }
    if (to->module == from->module)
        to->nodes.data[to->nodes.len - 1].serial = n->serial;
    for (uint8_t i = 0; i < n->n_out; i++)
        map[n->out[i]] = first + i;
    return first;
}

kf_module *kf_module_clone(const kf_module *m, kf_arena *arena)
{
    kf_module *c = kf_module_create(arena, m->name);
    c->serials = m->serials;
    for (uint32_t i = 0; i < m->syms.len; i++)
        kf_module_add_sym(c, m->syms.data[i].name, m->syms.data[i].lo, m->syms.data[i].hi);
    for (uint32_t i = 0; i < m->mesh.len; i++)
        kf_vec_push(arena, &c->mesh, kf_str_dup(arena, m->mesh.data[i]));
    for (uint32_t i = 0; i < m->files.len; i++)
        kf_vec_push(arena, &c->files, kf_str_dup(arena, m->files.data[i]));
    for (uint32_t i = 0; i < m->funcs.len; i++)
        kf_vec_push(arena, &c->funcs,
                    copy_graph(c, m->funcs.data[i], m->funcs.data[i]->name, true));
    return c;
}
