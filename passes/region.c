/* SPDX-License-Identifier: Apache-2.0 */
/* region - see region.h. */
#include "passes/region.h"

#include "base/check.h"

#include <string.h>

kf_selection kf_selection_new(kf_graph *g, uint32_t root, kf_arena *scratch)
{
    kf_selection s = {g, root, KF_NEW_N(scratch, bool, g->nodes.len),
                      KF_NEW_N(scratch, bool, g->nodes.len), kf_recompute_find(g, scratch)};

    s.owned[root] = true;
    return s;
}

bool kf_node_is_loose(const kf_node *n)
{
    return n->op != KF_OP_NONE && n->op != KF_OP_region && n->op != KF_OP_repeat &&
           n->op != KF_OP_const;
}

static bool selected(const kf_selection *s, const kf_node *n)
{
    size_t i = (size_t)(n - s->g->nodes.data);

    return s->owned[i] || s->copied[i];
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static void add_operand(const kf_selection *s, kf_graph *body, kf_value v, kf_value *map,
                        kf_value_list *out)
{
    const kf_value_info *info = &s->g->values.data[v];
    const kf_node *def = kf_value_node(s->g, v);
    kf_arena *a = s->g->module->arena;

    if (map[v] != KF_NO_VALUE)
        return;
    if (def && def->op == KF_OP_const) {
        kf_graph_copy_node(body, s->g, def, map);
        return;
    }
    kf_str name = info->name.len ? info->name : kf_strf(a, "a%u", body->args.len);
    for (uint32_t i = 0; i < body->args.len; i++)
        if (kf_str_eq(body->values.data[body->args.data[i]].name, name))
            name = kf_strf(a, "%.*s_%u", KF_STR_ARG(name), body->args.len);
    map[v] = kf_graph_add_arg(body, info->type, name, info->loc);
    kf_vec_push(a, out, v);
}

static bool used_outside(const kf_selection *s, kf_value v)
{
    const kf_graph *g = s->g;

    if (kf_value_is_result(g, v))
        return true;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_NONE || s->owned[i])
            continue;
        for (uint32_t j = 0; j < n->n_in; j++)
            if (n->in[j] == v)
                return true;
    }
    return false;
}

kf_graph *kf_selection_body(const kf_selection *s, kf_value_list *out_operands,
                            kf_value_list *out_results)
{
    kf_graph *g = s->g, *body = kf_graph_create(g->module);
    kf_arena *a = g->module->arena;
    kf_value *map = KF_NEW_N(a, kf_value, g->values.len);

    *out_operands = (kf_value_list){0};
    *out_results = (kf_value_list){0};
    for (uint32_t v = 0; v < g->values.len; v++)
        map[v] = KF_NO_VALUE;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (!selected(s, n))
            continue;
        for (uint32_t j = 0; j < n->n_in; j++)
            add_operand(s, body, n->in[j], map, out_operands);
        kf_graph_copy_node(body, g, n, map);
    }
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t r = 0; s->owned[i] && r < n->n_out; r++) {
            if (!used_outside(s, n->out[r]))
                continue;
            kf_graph_add_result(body, map[n->out[r]]);
            kf_vec_push(a, out_results, n->out[r]);
        }
    }
    return body;
}

/* What a body holds decides which families may make it, best first. A weight's product is never
 * made by the general contraction together with other work: that would be slow without saying so.
 * Nor is a reduction joined to a general contraction: each pass over the row would compute the
 * products again. */
static uint32_t candidates(const kf_graph *body, kf_family *out)
{
    bool attends = false, stores = false, reduces = false, contracts = false, weighs = false;

    for (uint32_t i = 0; i < body->nodes.len; i++) {
        const kf_node *n = &body->nodes.data[i];
        attends |= n->op == KF_OP_attention;
        stores |= n->op == KF_OP_kv_append;
        reduces |= (kf_op_infos[n->op].traits & KF_ROWRED) != 0;
        contracts |= n->op == KF_OP_matmul;
        weighs |= n->op == KF_OP_matmul && kf_value_type(body, n->in[1])->layout.n_splits;
    }
    out[0] = attends     ? KF_FAMILY_attention
             : weighs    ? KF_FAMILY_matmul
             : contracts ? KF_FAMILY_contract
             : stores    ? KF_FAMILY_index
             : reduces   ? KF_FAMILY_row_reduce
                         : KF_FAMILY_map;
    if (out[0] == KF_FAMILY_contract && reduces)
        return 0;
    if (!weighs || attends || body->nodes.len > 1)
        return 1;
    out[1] = KF_FAMILY_contract;
    return 2;
}

kf_family kf_region_family(const kf_target *target, const kf_graph *body, kf_sbuf *why)
{
    kf_family family[2];
    uint32_t n = candidates(body, family);

    if (n == 0)
        kf_sbuf_c(why, "a row reduction would compute the products again in each of its passes");
    for (uint32_t i = 0; i < n; i++) {
        kf_sbuf reason = {.arena = why->arena};
        if (target->match(target, family[i], body, &reason))
            return family[i];
        *why = reason;
    }
    return KF_FAMILY_COUNT;
}

static void report_joined(const kf_selection *s, kf_pass_ctx *cx)
{
    for (uint32_t i = 0; i < s->g->nodes.len; i++) {
        const kf_node *n = &s->g->nodes.data[i];
        if (i == s->root || !selected(s, n) || kf_node_kind(s->g, n) == KF_KIND_view)
            continue;
        bool joined = kf_report_joined(cx, s->g, n, &s->g->nodes.data[s->root]);
        KF_ASSERT(joined, "regions grow only by what no contract forbids");
    }
}

void kf_selection_commit(const kf_selection *s, kf_family family, kf_str name, kf_loc loc,
                         kf_pass_ctx *cx)
{
    kf_value_list operands, results;

    report_joined(s, cx);
    kf_graph *g = s->g, *body = kf_selection_body(s, &operands, &results);
    kf_value first = kf_node_add_region(g, family, body, name, operands.len, operands.data, loc);
    uint32_t added = g->nodes.len - 1;

    for (uint32_t i = 0; i < added; i++)
        if (s->owned[i])
            g->nodes.data[i].op = KF_OP_NONE;
    for (uint32_t r = 0; r < results.len; r++)
        kf_graph_replace(g, results.data[r], first + r);
    kf_graph_compact(g);
}

/* ---- what may be copied in ------------------------------------------------------------------- */

/* A gather of partial statistics, or a view of an argument: index work only. */
static bool is_cheap_view(const kf_graph *g, const kf_node *n)
{
    if (n->op == KF_OP_gather)
        return !kf_value_is_param(g, n->in[0]);
    if (n->op != KF_OP_reshape && n->op != KF_OP_iota)
        return false;
    return n->n_in == 0 || kf_value_is_arg(g, n->in[0]) || kf_value_is_param(g, n->in[0]);
}

static bool pull(kf_selection *s, kf_value v, kf_pass_ctx *cx)
{
    const kf_node *n = kf_value_node(s->g, v);

    if (!n || !kf_node_is_loose(n) || selected(s, n))
        return false;
    size_t i = (size_t)(n - s->g->nodes.data);
    if (!s->recompute.row_value[i] && !s->recompute.again[i] && !is_cheap_view(s->g, n))
        return false;
    if (kf_report_forbidden(cx, s->g, n, &s->g->nodes.data[s->root]))
        return false;
    s->copied[i] = true;
    return true;
}

void kf_selection_pull_cheap(kf_selection *s, kf_pass_ctx *cx)
{
    bool again = true;

    while (again) {
        again = false;
        for (uint32_t i = 0; i < s->g->nodes.len; i++) {
            const kf_node *n = &s->g->nodes.data[i];
            for (uint32_t j = 0; selected(s, n) && j < n->n_in; j++)
                again |= pull(s, n->in[j], cx);
        }
    }
}

/* ---- growing --------------------------------------------------------------------------------- */

/** What lies behind the selection, by value. |at_hand|: owned, or computed again from what is.
 * |waits|: depends on a stored result, so whoever reads it waits for the region to end. */
typedef struct frontier {
    bool *at_hand, *waits;
} frontier;

static frontier find_frontier(const kf_selection *s, kf_arena *scratch)
{
    const kf_graph *g = s->g;
    frontier f = {KF_NEW_N(scratch, bool, g->values.len), KF_NEW_N(scratch, bool, g->values.len)};

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        bool reads = false, waits = false;
        for (uint32_t j = 0; n->op != KF_OP_NONE && j < n->n_in; j++) {
            reads |= f.at_hand[n->in[j]];
            waits |= f.waits[n->in[j]];
        }
        bool copy = s->recompute.again[i] && !waits;
        for (uint32_t r = 0; r < n->n_out && n->op != KF_OP_NONE; r++) {
            f.at_hand[n->out[r]] = s->owned[i] || (reads && copy);
            f.waits[n->out[r]] = !s->owned[i] && (waits || (reads && !copy));
        }
    }
    return f;
}

static bool reads_any(const kf_node *n, const bool *set)
{
    for (uint32_t j = 0; j < n->n_in; j++)
        if (set[n->in[j]])
            return true;
    return false;
}

bool kf_selection_waits_for_itself(const kf_selection *s, kf_arena *scratch)
{
    const frontier f = find_frontier(s, scratch);

    for (uint32_t i = 0; i < s->g->nodes.len; i++)
        if (selected(s, &s->g->nodes.data[i]) && reads_any(&s->g->nodes.data[i], f.waits))
            return true;
    return false;
}

/* Contractions are roots of their own regions and are never swallowed. */
static bool absorbable(const kf_selection *s, uint32_t index, const bool *skip, const frontier *f)
{
    const kf_node *n = &s->g->nodes.data[index];

    return kf_node_is_loose(n) && !s->owned[index] && !skip[index] &&
           !(kf_op_infos[n->op].traits & KF_CONTRACT) && reads_any(n, f->at_hand);
}

static bool try_match(kf_selection *s, kf_pass_ctx *cx, kf_sbuf *why)
{
    kf_value_list operands, results;

    kf_selection_pull_cheap(s, cx);
    kf_graph *body = kf_selection_body(s, &operands, &results);
    return kf_region_family(cx->target, body, why) != KF_FAMILY_COUNT;
}

kf_selection kf_selection_copy(const kf_selection *s, kf_arena *scratch)
{
    kf_selection c = *s;

    c.owned = KF_NEW_N(scratch, bool, s->g->nodes.len);
    c.copied = KF_NEW_N(scratch, bool, s->g->nodes.len);
    memcpy(c.owned, s->owned, s->g->nodes.len * sizeof *c.owned);
    memcpy(c.copied, s->copied, s->g->nodes.len * sizeof *c.copied);
    return c;
}

/* What reads the region, and something that waits for it. Another region may take it. */
static void report_waiting(const kf_selection *s, const bool *skip, const frontier *f,
                           kf_pass_ctx *cx)
{
    const kf_node *nodes = s->g->nodes.data;

    for (uint32_t i = 0; i < s->g->nodes.len; i++)
        if (absorbable(s, i, skip, f) && reads_any(&nodes[i], f->waits))
            kf_report_not_joined(cx, s->g, &nodes[i], &nodes[s->root], KF_REASON_F0210,
                                 (kf_str){"", 0});
}

/* Everything behind the region that does not wait for something else. */
static bool grow_at_once(kf_selection *s, const bool *skip, kf_pass_ctx *cx)
{
    kf_selection all = kf_selection_copy(s, cx->scratch);
    kf_sbuf why = {.arena = cx->scratch};
    frontier f = find_frontier(&all, cx->scratch);
    bool any = false;

    for (uint32_t i = 0; i < s->g->nodes.len; i++) {
        if (!absorbable(&all, i, skip, &f) || reads_any(&s->g->nodes.data[i], f.waits) ||
            kf_report_forbidden(cx, s->g, &s->g->nodes.data[i], &s->g->nodes.data[s->root]))
            continue;
        all.owned[i] = any = true;
        all.copied[i] = false;
        f = find_frontier(&all, cx->scratch);
    }
    if (any && !try_match(&all, cx, &why))
        return false;
    if (any)
        *s = all;
    report_waiting(s, skip, &f, cx);
    return true;
}

/* True if only owned nodes read |v|, and none of them is a contraction: what feeds a product is its
 * prologue, and is computed once for each tile. */
static bool read_by_owned_only(const kf_selection *s, kf_value v)
{
    bool read = false;

    if (used_outside(s, v))
        return false;
    for (uint32_t i = 0; i < s->g->nodes.len; i++) {
        const kf_node *n = &s->g->nodes.data[i];
        for (uint32_t j = 0; s->owned[i] && j < n->n_in; j++) {
            if (n->in[j] != v)
                continue;
            if (kf_op_infos[n->op].traits & KF_CONTRACT)
                return false;
            read = true;
        }
    }
    return read;
}

/* What is made for the region alone is made in it: the other summand, another table's rows. Users
 * come before what they use, so whole chains are taken. */
static void take_producers(kf_selection *s, const bool *skip, kf_pass_ctx *cx)
{
    for (uint32_t i = s->g->nodes.len; i-- > 0;) {
        const kf_node *n = &s->g->nodes.data[i];
        if (!kf_node_is_loose(n) || selected(s, n) || skip[i] || n->n_out != 1 ||
            (kf_op_infos[n->op].traits & (KF_CONTRACT | KF_STATE)) ||
            !read_by_owned_only(s, n->out[0]) ||
            kf_report_forbidden(cx, s->g, n, &s->g->nodes.data[s->root]))
            continue;
        kf_selection with = kf_selection_copy(s, cx->scratch);
        kf_sbuf why = {.arena = cx->scratch};
        with.owned[i] = true;
        if (try_match(&with, cx, &why))
            *s = with;
    }
}

static void take_consumers(kf_selection *s, const bool *skip, kf_pass_ctx *cx)
{
    if (grow_at_once(s, skip, cx))
        return;
    frontier f = find_frontier(s, cx->scratch);
    for (uint32_t i = 0; i < s->g->nodes.len; i++) {
        const kf_node *n = &s->g->nodes.data[i], *root = &s->g->nodes.data[s->root];
        if (!absorbable(s, i, skip, &f) || kf_report_forbidden(cx, s->g, n, root))
            continue;
        if (reads_any(n, f.waits)) {
            kf_report_not_joined(cx, s->g, n, root, KF_REASON_F0210, (kf_str){"", 0});
            continue;
        }
        kf_selection with = kf_selection_copy(s, cx->scratch);
        kf_sbuf why = {.arena = cx->scratch};
        with.owned[i] = true;
        with.copied[i] = false;
        if (try_match(&with, cx, &why)) {
            *s = with;
            f = find_frontier(s, cx->scratch);
        } else {
            kf_report_not_joined(cx, s->g, n, root, KF_REASON_F0209, kf_sbuf_view(&why));
        }
    }
}

void kf_selection_grow(kf_selection *s, const bool *skip, kf_pass_ctx *cx)
{
    take_consumers(s, skip, cx);
    take_producers(s, skip, cx);
}
