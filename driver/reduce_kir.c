/* SPDX-License-Identifier: Apache-2.0 */
/* reduce_kir - edits of textual IR: functions, results, nodes, arguments, attributes and sizes.
 * What an edit makes is verified before the command sees it. */
#include "driver/reduce.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <string.h>

/* ---- parsing and printing around an edit ----------------------------------------------------- */

/** Applies edit |index| to |m|: KF_EDIT_MADE if it changed something. */
typedef kf_edit (*module_edit_fn)(kf_module *m, uint32_t index);

static kf_edit on_module(kf_arena *a, kf_str text, uint32_t index, kf_str *out, module_edit_fn edit)
{
    kf_module *m = kf_module_parse(a, kf_diags_create(a), KF_STR("candidate.kir"), text);
    kf_sbuf printed = {.arena = a}, why = {.arena = a};
    kf_edit e = m ? edit(m, index) : KF_EDIT_END;

    if (e != KF_EDIT_MADE)
        return e;
    for (uint32_t i = 0; i < m->funcs.len; i++)
        kf_graph_compact(m->funcs.data[i]);
    if (!kf_module_verify(m, KF_VERIFY_GRAPH, &why))
        return KF_EDIT_NONE;
    kf_module_print(m, KF_PRINT_LOCS, &printed);
    *out = kf_sbuf_view(&printed);
    return KF_EDIT_MADE;
}

static uint32_t count_nodes(const kf_graph *g)
{
    uint32_t n = g->nodes.len;

    for (uint32_t i = 0; i < g->nodes.len; i++)
        n += g->nodes.data[i].body ? count_nodes(g->nodes.data[i].body) : 0;
    return n;
}

uint32_t kf_reduce_count_nodes(kf_str text)
{
    kf_arena *a = kf_arena_create("count");
    kf_module *m = kf_module_parse(a, kf_diags_create(a), KF_STR("count.kir"), text);
    uint32_t n = 0;

    for (uint32_t i = 0; m && i < m->funcs.len; i++)
        n += count_nodes(m->funcs.data[i]);
    kf_arena_destroy(a);
    return n;
}

/* ---- numbering ------------------------------------------------------------------------------- */

/* Node |*index| of |g| and of its region bodies, last ones first; takes them off |*index| where it
 * is behind them. */
static kf_node *node_in(kf_graph *g, uint32_t *index, kf_graph **out_graph)
{
    for (uint32_t i = g->nodes.len; i-- > 0;) {
        kf_node *n = &g->nodes.data[i];
        *out_graph = g;
        if ((*index)-- == 0)
            return n;
        kf_node *inside = n->body ? node_in(n->body, index, out_graph) : NULL;
        if (inside)
            return inside;
    }
    return NULL;
}

static kf_node *node_at(kf_module *m, uint32_t index, kf_graph **out_graph)
{
    for (uint32_t f = m->funcs.len; f-- > 0;) {
        kf_node *n = node_in(m->funcs.data[f], &index, out_graph);
        if (n)
            return n;
    }
    return NULL;
}

/* Arguments and results of a called function, and of a region's body, are those of its caller too.
 */
static bool is_free(const kf_module *m, const kf_graph *g)
{
    if (!kf_module_find_func(m, g->name))
        return false;
    for (uint32_t f = 0; f < m->funcs.len; f++)
        for (uint32_t i = 0; i < m->funcs.data[f]->nodes.len; i++) {
            const kf_node *n = &m->funcs.data[f]->nodes.data[i];
            if (n->op == KF_OP_repeat && kf_str_eq(KF_ATTR_OF(n, repeat)->callee, g->name))
                return false;
        }
    return true;
}

/* ---- the edits ------------------------------------------------------------------------------- */

static kf_edit without_function(kf_module *m, uint32_t index)
{
    if (index >= m->funcs.len || m->funcs.len == 1)
        return KF_EDIT_END;
    memmove(&m->funcs.data[index], &m->funcs.data[index + 1],
            (m->funcs.len - index - 1) * sizeof *m->funcs.data);
    m->funcs.len--;
    return KF_EDIT_MADE;
}

/* The function returns the results of one node, first ones first: everything behind it goes. */
static kf_edit cut_behind(kf_module *m, uint32_t index)
{
    for (uint32_t f = 0; f < m->funcs.len; f++) {
        kf_graph *g = m->funcs.data[f];
        if (index >= g->nodes.len) {
            index -= g->nodes.len;
            continue;
        }
        const kf_node *n = &g->nodes.data[index];
        bool is_end = index + 1 == g->nodes.len && g->results.len == n->n_out;
        if (!is_free(m, g) || is_end)
            return KF_EDIT_NONE;
        g->results.len = 0;
        for (uint32_t r = 0; r < n->n_out; r++)
            kf_graph_add_result(g, n->out[r]);
        return KF_EDIT_MADE;
    }
    return KF_EDIT_END;
}

static kf_edit one_result(kf_module *m, uint32_t index)
{
    for (uint32_t f = 0; f < m->funcs.len; f++) {
        kf_graph *g = m->funcs.data[f];
        if (index >= g->results.len) {
            index -= g->results.len;
            continue;
        }
        if (!is_free(m, g) || g->results.len == 1)
            return KF_EDIT_NONE;
        g->results.data[0] = g->results.data[index];
        g->results.len = 1;
        return KF_EDIT_MADE;
    }
    return KF_EDIT_END;
}

/* Users of a node read one of its operands: the results become operand |index| modulo MAX_TRIED of
 * equal type. */
#define MAX_TRIED 4

static kf_edit node_to_operand(kf_module *m, uint32_t index)
{
    kf_graph *g;
    kf_node *n = node_at(m, index / MAX_TRIED, &g);
    uint32_t skip = index % MAX_TRIED;

    if (!n)
        return KF_EDIT_END;
    if (n->n_out != 1)
        return KF_EDIT_NONE;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!kf_type_eq(kf_value_type(g, n->in[i]), kf_value_type(g, n->out[0])) || skip-- > 0)
            continue;
        kf_graph_replace(g, n->out[0], n->in[i]);
        return KF_EDIT_MADE;
    }
    return KF_EDIT_NONE;
}

/* What a node gave comes from outside: everything that only it needed goes. */
static kf_edit node_to_argument(kf_module *m, uint32_t index)
{
    kf_graph *g;
    kf_node *found = node_at(m, index, &g);

    if (!found)
        return KF_EDIT_END;
    if (!is_free(m, g))
        return KF_EDIT_NONE;
    const kf_node n = *found;
    for (uint32_t r = 0; r < n.n_out; r++) {
        kf_str name = kf_strf(m->arena, "cut%u", g->args.len);
        kf_value v = kf_graph_add_arg(g, *kf_value_type(g, n.out[r]), name, n.loc);
        kf_graph_replace(g, n.out[r], v);
    }
    return KF_EDIT_MADE;
}

/* |g| without argument |drop|, which nothing uses. */
static kf_graph *without_argument(kf_module *m, const kf_graph *g, uint32_t drop)
{
    kf_graph *c = kf_graph_create(m);
    kf_value *map = KF_NEW_N(m->arena, kf_value, g->values.len);

    c->name = g->name;
    c->loc = g->loc;
    memset(map, 0xff, g->values.len * sizeof *map);
    for (uint32_t i = 0; i < g->args.len; i++) {
        const kf_value_info *v = &g->values.data[g->args.data[i]];
        if (i != drop)
            map[g->args.data[i]] = kf_graph_add_arg(c, v->type, v->name, v->loc);
    }
    for (uint32_t i = 0; i < g->params.len; i++) {
        const kf_value_info *v = &g->values.data[g->params.data[i]];
        map[g->params.data[i]] = kf_graph_add_param(c, g->recipes.data[i], v->name, v->loc);
        c->values.data[map[g->params.data[i]]].type = v->type; /* with its layout */
    }
    for (uint32_t i = 0; i < g->nodes.len; i++)
        kf_graph_copy_node(c, g, &g->nodes.data[i], map);
    for (uint32_t i = 0; i < g->results.len; i++)
        kf_graph_add_result(c, map[g->results.data[i]]);
    return c;
}

static kf_edit unused_argument(kf_module *m, uint32_t index)
{
    for (uint32_t f = 0; f < m->funcs.len; f++) {
        kf_graph *g = m->funcs.data[f];
        if (index >= g->args.len) {
            index -= g->args.len;
            continue;
        }
        if (!is_free(m, g) || kf_graph_use_counts(g, m->arena)[g->args.data[index]])
            return KF_EDIT_NONE;
        m->funcs.data[f] = without_argument(m, g, index);
        return KF_EDIT_MADE;
    }
    return KF_EDIT_END;
}

/* Every attribute of a node as it is when nothing is written. */
static kf_edit plain_attributes(kf_module *m, uint32_t index)
{
    kf_graph *g;
    kf_node *n = node_at(m, index, &g);

    if (!n)
        return KF_EDIT_END;
    kf_attr_kind kind = kf_op_infos[n->op].attr;
    const void *plain = kf_attr_new(m->arena, kind);
    if (kind == KF_ATTR_none || n->op == KF_OP_region || n->op == KF_OP_repeat ||
        kf_attr_eq(kind, n->attr, plain))
        return KF_EDIT_NONE;
    n->attr = plain;
    return KF_EDIT_MADE;
}

static kf_edit without_places(kf_module *m, uint32_t index)
{
    if (index > 0)
        return KF_EDIT_END;
    for (uint32_t i = 0; i < m->files.len; i++)
        if (m->files.data[i].len == 0)
            return KF_EDIT_NONE;
    kf_graph *g;
    kf_node *n;
    bool any = false;
    for (uint32_t i = 0; (n = node_at(m, i, &g)); i++) {
        any |= n->loc.file != 0;
        n->loc = KF_NO_LOC;
    }
    return any ? KF_EDIT_MADE : KF_EDIT_NONE;
}

#define ON_MODULE(name)                                                                            \
    static kf_edit edit_##name(kf_arena *a, kf_str text, uint32_t index, kf_str *out)              \
    {                                                                                              \
        return on_module(a, text, index, out, name);                                               \
    }
ON_MODULE(without_function)
ON_MODULE(cut_behind)
ON_MODULE(one_result)
ON_MODULE(node_to_operand)
ON_MODULE(node_to_argument)
ON_MODULE(unused_argument)
ON_MODULE(plain_attributes)
ON_MODULE(without_places)
#undef ON_MODULE

static kf_edit unchanged(kf_module *m, uint32_t index)
{
    (void)m;
    (void)index;
    return KF_EDIT_MADE;
}

/* Sizes, bounds of dims, numbers of rounds: whatever the verifier accepts. */
static kf_edit edit_number(kf_arena *a, kf_str text, uint32_t index, kf_str *out)
{
    kf_str smaller;
    kf_edit e = kf_reduce_number(a, text, index, &smaller);

    if (e != KF_EDIT_MADE)
        return e;
    return on_module(a, smaller, 0, out, unchanged) == KF_EDIT_MADE ? KF_EDIT_MADE : KF_EDIT_NONE;
}

const kf_edit_fn kf_reduce_kir_edits[] = {edit_without_function, edit_cut_behind,
                                          edit_one_result,       edit_node_to_argument,
                                          edit_node_to_operand,  edit_unused_argument,
                                          edit_plain_attributes, edit_number,
                                          edit_without_places,   NULL};
