/* SPDX-License-Identifier: Apache-2.0 */
/* merge_weights - linear maps of the same rows, summed or one behind the other, become one matrix.
 *
 *   before   %0 = matmul %x, %w                     after   %4 = matmul %x, %w'
 *            %1 = matmul %x, %a                             %w' = w + 2 * b a
 *            %2 = matmul %1, %b
 *            %3 = mul %2, 2 ; %4 = add %0, %3
 *
 * A low-rank update is merged, a low-rank product multiplied out, where the one matrix has no more
 * elements than those that it replaces: decoding reads every element once a step. Biases in the tree
 * become one behind the matrix: an update may be added to a product that has its bias already.
 * Fires when    a tree of sums, scales and linear matmuls of one value holds two matrices or more,
 *               each stored in f32.
 * Must not fire when a matrix is narrower than f32 (the sum would be rounded anew, which
 *               build.fold_narrow allows), has another reader, or an inner value is needed elsewhere.
 * Why here      before fold_weights, which then has one matrix to scale.
 * Needs uses. Keeps nothing. Terminates: the number of matmuls falls.
 */
#include "passes/match.h"

/* A value as a linear map of the rows |x|, or as a vector added to one. */
typedef struct map {
    kf_value x;
    const kf_recipe *r;     /* [n,k]; NULL: a vector alone */
    const kf_recipe *shift; /* [n], or NULL */
    int64_t elems;          /* of the matrices in it */
    uint32_t matrices;
    int64_t most; /* elements of the largest matrix, in whose dtype the result is stored */
    kf_dtype dtype;
    kf_reason reason; /* why they may not become one, or NONE */
    kf_str name;      /* of the first */
    kf_str shift_name;
    kf_sbuf names;
} map;

typedef struct finder {
    kf_graph *g;
    kf_pass_ctx *cx;
    const uint32_t *uses;
} finder;

static bool is_vector(const kf_graph *g, kf_value v)
{
    const kf_type *t = kf_value_type(g, v);

    return kf_value_is_param(g, v) && t->rank == 1 &&
           kf_dtype_infos[t->dtype].kind == KF_KIND_FLOAT;
}

static bool find_map(const finder *f, kf_value v, map *out);

static bool find_inner(const finder *f, kf_value v, map *out)
{
    return f->uses[v] == 1 && find_map(f, v, out);
}

static bool find_matmul(const finder *f, const kf_node *n, map *out)
{
    kf_arena *a = f->g->module->arena;
    const kf_value_info *w = &f->g->values.data[n->in[1]];
    const kf_recipe *r = f->g->recipes.data[w->def];
    map inner = {0};
    bool chain = find_inner(f, n->in[0], &inner) && !inner.shift;

    *out = chain ? inner : (map){.x = n->in[0]};
    out->r = chain ? kf_recipe_matmul(a, r, inner.r) : r;
    out->elems += kf_type_static_elems(&w->type);
    out->matrices++;
    if (kf_type_static_elems(&w->type) > out->most) {
        out->most = kf_type_static_elems(&w->type);
        out->dtype = w->type.dtype;
    }
    if (w->type.dtype != KF_DTYPE_f32 && !f->cx->fold_narrow)
        out->reason = KF_REASON_F0205;
    else if (kf_readers_of_recipe(f->g, r, f->uses) != 1 && !out->reason)
        out->reason = KF_REASON_F0206;
    out->names.arena = f->cx->scratch;
    kf_sbuf_printf(&out->names, "%s%%%.*s", chain ? ", " : "", KF_STR_ARG(w->name));
    out->name = chain ? inner.name : w->name;
    return true;
}

/* A vector in f32, so that what is computed from it is rounded as in the graph. */
static const kf_recipe *wide(const finder *f, const kf_recipe *r)
{
    return kf_recipe_as(f->g->module->arena, r, KF_DTYPE_f32);
}

/* A number, or a parameter that scales columns of the result, i.e. rows of the matrix. */
static bool find_scale(const finder *f, const kf_node *n, map *out)
{
    kf_arena *a = f->g->module->arena;
    double number;

    for (int i = 0; i < 2; i++) {
        kf_value s = n->in[i];
        bool is_number = kf_value_const(f->g, s, &number);
        if ((!is_vector(f->g, s) && !is_number) || !find_inner(f, n->in[1 - i], out))
            continue;
        const kf_recipe *by = is_number ? NULL : kf_value_recipe(f->g, s);
        out->r = is_number ? kf_recipe_times(a, out->r, number)
                           : kf_recipe_fn(a, KF_FN_mul, out->r, kf_recipe_transpose(a, by));
        if (out->shift)
            out->shift = is_number ? kf_recipe_times(a, wide(f, out->shift), number)
                                   : kf_recipe_fn(a, KF_FN_mul, wide(f, out->shift), by);
        return true;
    }
    return false;
}

/* A map, or a parameter that is added to one. */
static bool find_term(const finder *f, kf_value v, map *out)
{
    if (!is_vector(f->g, v))
        return find_inner(f, v, out);
    *out = (map){.x = KF_NO_VALUE,
                 .shift = kf_value_recipe(f->g, v),
                 .shift_name = f->g->values.data[v].name};
    return true;
}

/* a + b or a - b, where either may be missing. */
static const kf_recipe *joined(const finder *f, kf_op op, const kf_recipe *a, const kf_recipe *b)
{
    kf_arena *arena = f->g->module->arena;

    if (!b)
        return a;
    if (a)
        return kf_recipe_fn(arena, (kf_fn)op, a, b);
    return op == KF_OP_add ? b : kf_recipe_times(arena, b, -1);
}

static bool find_sum(const finder *f, const kf_node *n, map *out)
{
    map a, b;

    if (!find_term(f, n->in[0], &a) || !find_term(f, n->in[1], &b) || (!a.r && !b.r) ||
        (a.r && b.r && a.x != b.x))
        return false;
    bool both = a.shift && b.shift;
    const kf_recipe *shift =
        joined(f, n->op, both ? wide(f, a.shift) : a.shift,
               both || (b.shift && n->op == KF_OP_sub) ? wide(f, b.shift) : b.shift);
    *out = a.r ? a : b;
    const map *other = a.r ? &b : &a;
    out->r = joined(f, n->op, a.r, b.r);
    out->shift = shift;
    out->shift_name = a.shift ? a.shift_name : b.shift_name;
    out->elems += other->elems;
    out->matrices += other->matrices;
    if (other->most > out->most) {
        out->most = other->most;
        out->dtype = other->dtype;
    }
    out->reason = out->reason ? out->reason : other->reason;
    if (other->r)
        kf_sbuf_printf(&out->names, ", %.*s", KF_STR_ARG(kf_sbuf_view(&other->names)));
    return true;
}

static bool find_map(const finder *f, kf_value v, map *out)
{
    const kf_node *n = kf_value_node(f->g, v);

    if (!n || kf_value_type(f->g, v)->rank != 2)
        return false;
    if (kf_node_is_linear(f->g, n))
        return find_matmul(f, n, out);
    if (n->op == KF_OP_mul)
        return find_scale(f, n, out);
    return (n->op == KF_OP_add || n->op == KF_OP_sub) && find_sum(f, n, out);
}

/* A bias at the end of a tree has no part in what is merged, and is not looked at again. */
static bool adds_vector(const kf_graph *g, const kf_node *n)
{
    return (n->op == KF_OP_add || n->op == KF_OP_sub) &&
           (is_vector(g, n->in[0]) || is_vector(g, n->in[1]));
}

/* Merges the map that node |index| ends; false if it is none or may not be. */
static bool try_merge(kf_graph *g, uint32_t index, kf_pass_ctx *cx)
{
    const kf_node n = g->nodes.data[index];
    finder f = {g, cx, kf_graph_use_counts(g, cx->scratch)};
    map m;

    if (n.op == KF_OP_NONE || n.n_out != 1 || adds_vector(g, &n) || !find_map(&f, n.out[0], &m) ||
        m.matrices < 2)
        return false;
    kf_str names = kf_sbuf_view(&m.names);
    if (!m.reason && kf_type_static_elems(&m.r->type) > m.elems)
        m.reason = KF_REASON_F0212;
    if (m.reason) {
        kf_report_refused(cx, g, n.loc, m.reason, (kf_str){0}, "matmul %.*s -> weights",
                          KF_STR_ARG(names));
        return false;
    }
    if (!kf_report_fused(cx, g, n.loc, "matmul %.*s -> weights", KF_STR_ARG(names)))
        return false;
    const kf_recipe *r = kf_recipe_as(g->module->arena, m.r, m.dtype);
    kf_value w = kf_graph_param_of(g, r, m.name, n.loc);
    kf_value y = kf_node_matmul(g, m.x, w, true, n.loc);
    if (m.shift)
        y = kf_node_2(g, KF_OP_add, y, kf_graph_param_of(g, m.shift, m.shift_name, n.loc), n.loc);
    kf_graph_replace(g, n.out[0], y);
    g->nodes.data[index].op = KF_OP_NONE;
    kf_graph_compact(g);
    return true;
}

bool kf_pass_merge_weights(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    for (uint32_t i = g->nodes.len; i > 0; i--) { /* the largest tree first */
        if (!try_merge(g, i - 1, cx))
            continue;
        progress = true;
        i = g->nodes.len + 1; /* numbers have changed */
    }
    return progress;
}
