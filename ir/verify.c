/* SPDX-License-Identifier: Apache-2.0 */
/* verify - what every graph guarantees, at any stage:
 *
 *   module     names of symbols are identifiers, distinct, with 0 <= lo <= hi; mesh axes are
 *              distinct; names of functions are distinct; calls do not recur
 *   values     every type has a dtype, known symbols and mesh axes, positive sizes, a layout over
 *              its dims
 *   order      operands and results are values of the same graph, defined before their use; a
 *              value's record and the place that defines it name each other
 *   nodes      the operand count is the op's; attributes are there; result types (dims, dtype,
 *              sharding and partial sums) are those that shape and sharding rules give
 *   params     each has a recipe; dims agree with it; region bodies have none
 *   caches     a node that writes a cache is the only user of the value that it writes to
 *   regions    bodies are isolated: no repeat and no region inside, operands typed like the
 *              arguments
 *   entries    functions main and main.<phase> return whole sums: a partial result is a missing
 *              all-reduce
 *   places     file numbers of locations are the module's
 *   fused      (KF_VERIFY_FUSED) functions hold regions and repeats only
 *
 * All errors are collected; the report is the module printed with each error under its line.
 */
#include "ir/verify.h"

#include "ir/phase.h"
#include "ir/print_impl.h"
#include "ir/shape.h"

#include <inttypes.h>
#include <stdarg.h>

typedef struct verifier {
    const kf_module *m;
    kf_verify_level level;
    kf_arena *arena;
    const kf_graph *g; /* now */
    uint32_t node;     /* now, or UINT32_MAX */
    KF_VEC(kf_print_note) notes;
} verifier;

static void error(verifier *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void error(verifier *v, const char *fmt, ...)
{
    va_list ap;
    kf_sbuf text = {.arena = v->arena};
    va_start(ap, fmt);
    kf_sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    kf_print_note note = {v->g, v->node, kf_sbuf_view(&text)};
    kf_vec_push(v->arena, &v->notes, note);
}

/* ---- types ----------------------------------------------------------------------------------- */

static void check_layout(verifier *v, const kf_type *t, const char *what)
{
    uint32_t last[KF_MAX_RANK] = {0};
    if (t->layout.n_splits > KF_MAX_SPLITS) {
        error(v, "%s has a layout of %u splits", what, t->layout.n_splits);
        return;
    }
    for (uint8_t i = 0; i < t->layout.n_splits; i++) {
        const kf_split *s = &t->layout.split[i];
        if (s->dim >= t->rank || !s->block || (last[s->dim] && last[s->dim] % s->block)) {
            error(v, "%s has a layout whose split %u does not fit", what, i);
            return;
        }
        last[s->dim] = s->block;
    }
    for (uint8_t d = 0; t->layout.n_splits && d < t->rank; d++) {
        if (last[d] != 1)
            error(v, "%s has a layout whose last block of d%u is not 1", what, d);
    }
}

static void check_type(verifier *v, const kf_type *t, const char *what)
{
    if ((unsigned)t->dtype >= KF_DTYPE_COUNT || t->rank > KF_MAX_RANK) {
        error(v, "%s has a broken type", what);
        return;
    }
    if (t->partial > v->m->mesh.len || t->shard[0] > v->m->mesh.len)
        error(v, "%s names an unknown mesh axis", what);
    if (t->kind == KF_TYPE_KVCACHE) {
        if (!t->kv_page || !t->kv_heads || !t->kv_head_dim || !t->kv_layers)
            error(v, "%s is a cache with a size of 0", what);
        return;
    }
    for (uint8_t d = 0; d < t->rank; d++) {
        if (t->dim[d].sym > v->m->syms.len)
            error(v, "%s: dim %u names an unknown symbol", what, d);
        else if (t->dim[d].sym ? t->dim[d].size != 0 : t->dim[d].size < 1)
            error(v, "%s: dim %u has size %" PRId64, what, d, t->dim[d].size);
        if (t->shard[d] > v->m->mesh.len)
            error(v, "%s: dim %u is cut along an unknown mesh axis", what, d);
    }
    check_layout(v, t, what);
}

static void check_loc(verifier *v, kf_loc loc)
{
    if (loc.file > v->m->files.len)
        error(v, "the location names file %" PRIu32 " of %" PRIu32, loc.file, v->m->files.len);
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static bool check_header(verifier *v, bool is_body)
{
    const kf_graph *g = v->g;
    bool ok = true;
    for (uint32_t i = 0; i < g->args.len; i++) {
        kf_value a = g->args.data[i];
        if (a >= g->values.len || g->values.data[a].kind != KF_VALUE_ARG ||
            g->values.data[a].def != i) {
            error(v, "argument %" PRIu32 " and its value disagree", i);
            ok = false;
        } else {
            check_type(v, kf_value_type(g, a), "an argument");
        }
    }
    if (g->params.len != g->recipes.len || (is_body && g->params.len)) {
        error(v, "%" PRIu32 " parameters with %" PRIu32 " recipes", g->params.len, g->recipes.len);
        return false;
    }
    for (uint32_t i = 0; i < g->params.len; i++) {
        kf_value w = g->params.data[i];
        if (w >= g->values.len || g->values.data[w].kind != KF_VALUE_PARAM ||
            g->values.data[w].def != i) {
            error(v, "parameter %" PRIu32 " and its value disagree", i);
            ok = false;
            continue;
        }
        const kf_type *t = kf_value_type(g, w), *r = &g->recipes.data[i]->type;
        bool same = t->kind == KF_TYPE_TENSOR && t->rank == r->rank && t->dtype == r->dtype;
        for (uint8_t d = 0; same && d < t->rank; d++)
            same = kf_dim_eq(t->dim[d], r->dim[d]);
        check_type(v, t, "a parameter");
        const char *why;
        if (!same)
            error(v, "parameter %" PRIu32 " has another type than its recipe gives", i);
        if (!kf_recipe_check(g->recipes.data[i], &why))
            error(v, "the recipe of parameter %" PRIu32 ": %s", i, why);
    }
    return ok;
}

/* Values are known from the header or from earlier nodes; |defined| says which. */
static bool check_operands(verifier *v, const kf_node *n, const bool *defined)
{
    const kf_graph *g = v->g;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] >= g->values.len) {
            error(v, "operand %" PRIu32 " is no value of this graph", i);
            return false;
        }
        if (!defined[n->in[i]]) {
            error(v, "operand %" PRIu32 " is not defined before its use", i);
            return false;
        }
    }
    return true;
}

static bool check_results(verifier *v, const kf_node *n, uint32_t index, bool *defined)
{
    const kf_graph *g = v->g;
    bool ok = n->n_out >= 1 && n->n_out <= KF_MAX_RESULTS;
    for (uint8_t i = 0; ok && i < n->n_out; i++) {
        ok = n->out[i] < g->values.len && !defined[n->out[i]];
        if (ok) {
            const kf_value_info *info = &g->values.data[n->out[i]];
            ok = info->kind == KF_VALUE_NODE && info->def == index && info->result == i;
            defined[n->out[i]] = true;
            check_type(v, &info->type, "a result");
        }
    }
    if (!ok)
        error(v, "results and their values disagree");
    return ok;
}

static void check_inferred(verifier *v, const kf_node *n)
{
    kf_type types[KF_MAX_RESULTS];
    uint8_t n_types = 0;
    kf_sbuf why = {.arena = v->arena};
    if (!kf_shape_infer(v->g, n->op, n->attr, n->body, n->n_in, n->in,
                        kf_value_type(v->g, n->out[0]), types, &n_types, &why)) {
        error(v, "%s", why.ptr);
        return;
    }
    if (n_types != n->n_out)
        error(v, "%u results instead of %u", n->n_out, n_types);
    for (uint8_t i = 0; i < n_types && i < n->n_out; i++) {
        if (kf_type_eq(&types[i], kf_value_type(v->g, n->out[i])))
            continue;
        kf_sbuf text = {.arena = v->arena};
        kf_type_print(v->m, &types[i], &text);
        error(v, "the type of result %u should be %s", i, text.ptr);
    }
}

static void check_graph(verifier *v, const kf_graph *g, bool is_body);

static void check_node(verifier *v, uint32_t index, bool is_body, bool *defined)
{
    const kf_graph *g = v->g;
    const kf_node *n = &g->nodes.data[index];
    if ((unsigned)n->op >= KF_OP_COUNT || !n->attr) {
        error(v, "no op or no attributes");
        return;
    }
    bool is_call = n->op == KF_OP_repeat || n->op == KF_OP_region;
    if (is_call && is_body)
        error(v, "%s inside a region", kf_op_infos[n->op].name);
    if (v->level == KF_VERIFY_FUSED && !is_call && !is_body)
        error(v, "%s outside a region", kf_op_infos[n->op].name);
    check_loc(v, n->loc);
    bool ok = check_operands(v, n, defined);
    ok &= check_results(v, n, index, defined);
    if (n->op == KF_OP_region && n->body) {
        uint32_t before = v->notes.len;
        check_graph(v, n->body, true);
        v->g = g;
        v->node = index;
        ok &= before == v->notes.len;
    }
    if (ok)
        check_inferred(v, n);
}

static bool is_cache(const kf_graph *g, kf_value v)
{
    return v < g->values.len && kf_value_type(g, v)->kind == KF_TYPE_KVCACHE;
}

static bool writes_cache(const kf_graph *g, const kf_node *n)
{
    for (uint32_t r = 0; r < n->n_out; r++)
        if (is_cache(g, n->out[r]))
            return true;
    return false;
}

/* A cache is one place, whatever its value is called: what reads it beside a node that writes it
 * would read before or behind that. */
static void check_caches(verifier *v, const kf_graph *g)
{
    uint32_t *users = KF_NEW_N(v->arena, uint32_t, g->values.len ? g->values.len : 1);
    for (uint32_t i = 0; i < g->results.len; i++)
        if (is_cache(g, g->results.data[i]))
            users[g->results.data[i]]++;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t j = 0; n->op != KF_OP_NONE && j < n->n_in; j++)
            if (is_cache(g, n->in[j]))
                users[n->in[j]]++;
    }
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        v->node = i;
        for (uint32_t j = 0; n->op != KF_OP_NONE && writes_cache(g, n) && j < n->n_in; j++)
            if (is_cache(g, n->in[j]) && users[n->in[j]] > 1)
                error(v, "operand %" PRIu32 " is a cache that something else uses, too", j);
    }
}

static void check_graph(verifier *v, const kf_graph *g, bool is_body)
{
    v->g = g;
    v->node = UINT32_MAX;
    if (g->module != v->m)
        error(v, "the graph belongs to another module");
    if (!check_header(v, is_body))
        return;
    bool *defined = KF_NEW_N(v->arena, bool, g->values.len ? g->values.len : 1);
    for (uint32_t i = 0; i < g->args.len; i++)
        defined[g->args.data[i]] = true;
    for (uint32_t i = 0; i < g->params.len; i++)
        defined[g->params.data[i]] = true;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        v->node = i;
        if (g->nodes.data[i].op != KF_OP_NONE)
            check_node(v, i, is_body, defined);
    }
    v->node = g->nodes.len;
    bool is_entry = !is_body && kf_is_entry(g->name);
    for (uint32_t i = 0; i < g->results.len; i++) {
        kf_value r = g->results.data[i];
        if (r >= g->values.len || !defined[r])
            error(v, "result %" PRIu32 " is not defined", i);
        else if (is_entry && kf_value_type(g, r)->partial)
            error(v, "result %" PRIu32 " is a partial sum: an all-reduce is missing", i);
    }
    check_caches(v, g);
}

/* ---- modules --------------------------------------------------------------------------------- */

static void check_symbols(verifier *v, kf_sbuf *out)
{
    const kf_module *m = v->m;
    for (uint32_t i = 0; i < m->syms.len; i++) {
        const kf_sym *s = &m->syms.data[i];
        if (!kf_is_identifier(s->name) || s->lo < 0 || s->lo > s->hi)
            kf_sbuf_printf(out, "; error: dim %" PRIu32 " has no usable name or bounds\n", i);
        for (uint32_t j = 0; j < i; j++) {
            if (kf_str_eq(m->syms.data[j].name, s->name))
                kf_sbuf_printf(out, "; error: dim %.*s is declared twice\n", KF_STR_ARG(s->name));
        }
    }
    for (uint32_t i = 0; i < m->mesh.len; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (kf_str_eq(m->mesh.data[j], m->mesh.data[i]))
                kf_sbuf_printf(out, "; error: mesh axis %.*s is declared twice\n",
                               KF_STR_ARG(m->mesh.data[i]));
        }
    }
}

/* state: 0 new, 1 on the way, 2 done */
static bool calls_recur(const kf_module *m, uint32_t func, uint8_t *state)
{
    const kf_graph *g = m->funcs.data[func];
    state[func] = 1;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t f = 0; n->op == KF_OP_repeat && n->attr && f < m->funcs.len; f++) {
            if (!kf_str_eq(m->funcs.data[f]->name, KF_ATTR_OF(n, repeat)->callee))
                continue;
            if (state[f] == 1 || (state[f] == 0 && calls_recur(m, f, state)))
                return true;
        }
    }
    state[func] = 2;
    return false;
}

static void check_functions(verifier *v, kf_sbuf *out)
{
    const kf_module *m = v->m;
    uint8_t *state = KF_NEW_N(v->arena, uint8_t, m->funcs.len ? m->funcs.len : 1);
    for (uint32_t i = 0; i < m->funcs.len; i++) {
        kf_str name = m->funcs.data[i]->name;
        if (!name.len || kf_module_find_func(m, name) != m->funcs.data[i])
            kf_sbuf_printf(out, "; error: function %" PRIu32 " '%.*s' has no name of its own\n", i,
                           KF_STR_ARG(name));
        if (state[i] == 0 && calls_recur(m, i, state)) {
            kf_sbuf_printf(out, "; error: function '%.*s' calls itself\n", KF_STR_ARG(name));
            return;
        }
    }
}

bool kf_module_verify(const kf_module *m, kf_verify_level level, kf_sbuf *out)
{
    verifier v = {.m = m, .level = level, .arena = out->arena};
    kf_sbuf head = {.arena = out->arena};
    check_symbols(&v, &head);
    check_functions(&v, &head);
    for (uint32_t i = 0; i < m->funcs.len && !head.len; i++)
        check_graph(&v, m->funcs.data[i], false);
    if (!head.len && !v.notes.len)
        return true;
    kf_print_notes notes = {v.notes.len, v.notes.data};
    if (head.len)
        kf_sbuf_str(out, kf_sbuf_view(&head));
    kf_module_print_notes(m, KF_PRINT_LOCS, &notes, out);
    return false;
}
