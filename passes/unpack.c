/* SPDX-License-Identifier: Apache-2.0 */
/* unpack - a product of which only slices are read becomes a product for each slice.
 *
 *   before   %1 = matmul %x, %gate_up                 ; [2F,n]: gate, then up
 *            %2 = slice %1 {axis = 1, stop = F} ; %3 = slice %1 {axis = 1, start = F, stop = 2F}
 *   after    %2 = matmul %x, %gate_up_0               ; slice(axis 0, groups 1, start 0, stop F)
 *            %3 = matmul %x, %gate_up_1
 *
 * How a checkpoint packs q, k and v, or gate and up, is no concern of the passes that follow: they
 * join weights again, in the order that suits the kernel (interleaved where two columns meet). The
 * slices may lie behind a bias or other functions of an element, and behind a reshape: halves,
 * blocks of a head each, and every other column are all groups of columns.
 * Fires when    every reader of the product, through functions with constants and vectors, is a
 *               slice of columns, there are two or more of them, and the weight has no other
 *               reader.
 * Must not fire when something reads the product whole (F0203), or another value is added to it
 *               (F0202), or the weight has another reader (F0206).
 * Why here      before fold_weights and everything that looks at one product at a time.
 * Needs uses. Keeps nothing. Terminates: no product with sliced readers is made.
 */
#include "passes/match.h"

enum { MAX_SLICES = 16, MAX_DEPTH = 8 };

/** Columns of the product that one slice takes: |start|..|stop| of each of |groups| groups. */
typedef struct part {
    uint32_t node;
    int64_t groups, start, stop;
} part;

typedef struct parts {
    const kf_graph *g;
    uint32_t n;
    part part[MAX_SLICES];
    kf_reason why; /* NONE while every reader is known */
} parts;

static int64_t product_of(const kf_type *t, uint32_t from, uint32_t to)
{
    int64_t n = 1;

    for (uint32_t i = from; i < to; i++)
        n *= t->dim[i].size;
    return n;
}

/* Rows stay rows: dim 0 is that of the product, the others are static. */
static bool keeps_rows(const kf_graph *g, const kf_node *n)
{
    const kf_type *from = kf_value_type(g, n->in[0]), *to = kf_value_type(g, n->out[0]);

    for (uint32_t i = 1; i < to->rank; i++)
        if (!kf_dim_is_static(to->dim[i]))
            return false;
    return to->rank > 0 && kf_dim_eq(from->dim[0], to->dim[0]);
}

/* A function of |v|'s elements, constants and vectors along the columns. */
static bool is_column_map(const kf_graph *g, const kf_node *n, kf_value v)
{
    const kf_type *t = kf_value_type(g, v);
    double c;

    if (!kf_op_is_fn(n->op) || t->rank != 2 || !kf_type_eq(kf_value_type(g, n->out[0]), t))
        return false;
    for (uint32_t j = 0; j < n->n_in; j++) {
        const kf_type *in = kf_value_type(g, n->in[j]);
        bool vector = kf_value_is_param(g, n->in[j]) && in->rank == 1 &&
                      (kf_dim_eq(in->dim[0], t->dim[1]) || in->dim[0].size == 1);
        if (n->in[j] != v && !vector && !kf_value_const(g, n->in[j], &c))
            return false;
    }
    return true;
}

/* The first thing that stands in the way is what is reported. */
static void refuse(parts *p, kf_reason why)
{
    if (p->why == KF_REASON_NONE)
        p->why = why;
}

static void add_part(parts *p, uint32_t node)
{
    const kf_node *n = &p->g->nodes.data[node];
    const kf_attr_slice *s = KF_ATTR_OF(n, slice);
    const kf_type *t = kf_value_type(p->g, n->in[0]);
    uint32_t axis = (uint32_t)s->axis;
    int64_t inner = product_of(t, axis + 1, t->rank);

    if (axis == 0 || p->n == MAX_SLICES)
        refuse(p, KF_REASON_F0204);
    else
        p->part[p->n++] = (part){node, product_of(t, 1, axis), s->start * inner, s->stop * inner};
}

/* Slices below |v|, which holds the columns of the product in order. */
static void find_parts(parts *p, kf_value v, uint32_t depth)
{
    if (kf_value_is_result(p->g, v) || depth == 0)
        refuse(p, KF_REASON_F0203);
    for (uint32_t i = 0; i < p->g->nodes.len && depth > 0; i++) {
        const kf_node *n = &p->g->nodes.data[i];
        bool reads = false;
        for (uint32_t j = 0; n->op != KF_OP_NONE && j < n->n_in; j++)
            reads |= n->in[j] == v;
        if (!reads)
            continue;
        if (n->op == KF_OP_slice)
            add_part(p, i);
        else if ((n->op == KF_OP_reshape && keeps_rows(p->g, n)) || is_column_map(p->g, n, v))
            find_parts(p, n->out[0], depth - 1);
        else
            refuse(p, kf_op_is_fn(n->op) ? KF_REASON_F0202 : KF_REASON_F0203);
    }
}

/* The parameter |v| cut to the columns of |c|. */
static kf_value cut_param(kf_graph *g, kf_value v, const part *c, uint32_t number)
{
    const kf_value_info w = g->values.data[v];
    kf_arena *a = g->module->arena;
    const kf_recipe *r = kf_recipe_slice(a, kf_value_recipe(g, v), 0, c->groups, c->start, c->stop);

    return kf_graph_add_param(g, r, kf_strf(a, "%.*s_%u", KF_STR_ARG(w.name), number), w.loc);
}

/* |v|, which is computed from product |mm|, for the columns of |c| alone. */
static kf_value cut_value(kf_graph *g, kf_value v, const kf_node *mm, const part *c,
                          uint32_t number)
{
    const kf_node *def = kf_value_node(g, v);
    kf_value in[3];

    if (!def)
        return kf_value_type(g, v)->dim[0].size == 1 ? v : cut_param(g, v, c, number);
    const kf_node n = *def;
    if (n.op == KF_OP_const)
        return v;
    if (n.op == KF_OP_reshape)
        return cut_value(g, n.in[0], mm, c, number);
    if (n.out[0] == mm->out[0])
        return kf_node_matmul(g, mm->in[0], cut_param(g, mm->in[1], c, number), true, mm->loc);
    for (uint32_t j = 0; j < n.n_in; j++)
        in[j] = cut_value(g, n.in[j], mm, c, number);
    return kf_node_add(g, n.op, NULL, n.n_in, in, NULL, n.loc);
}

static void rewrite(kf_graph *g, const kf_node *mm, const parts *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        const kf_node slice = g->nodes.data[p->part[i].node];
        const kf_type t = *kf_value_type(g, slice.out[0]);
        kf_value v = cut_value(g, slice.in[0], mm, &p->part[i], i);
        kf_graph_replace(g, slice.out[0], kf_node_reshape(g, v, t.rank, t.dim, slice.loc));
        g->nodes.data[p->part[i].node].op = KF_OP_NONE;
    }
}

static bool try_unpack(kf_graph *g, uint32_t index, kf_pass_ctx *cx)
{
    const kf_node mm = g->nodes.data[index];
    const uint32_t *uses = kf_graph_use_counts(g, cx->scratch);
    parts p = {.g = g};

    find_parts(&p, mm.out[0], MAX_DEPTH);
    if (p.n == 0 || (p.n < 2 && p.why == KF_REASON_NONE))
        return false;
    if (p.why == KF_REASON_NONE && uses[mm.in[1]] != 1)
        p.why = KF_REASON_F0206;
    kf_str title = kf_node_title(cx->scratch, g, &mm);
    if (p.why != KF_REASON_NONE) {
        kf_report_refused(cx, g, mm.loc, p.why, (kf_str){0}, "view slice -> %.*s",
                          KF_STR_ARG(title));
        return false;
    }
    if (!kf_report_fused(cx, g, mm.loc, "view slice -> %.*s", KF_STR_ARG(title)))
        return false;
    rewrite(g, &mm, &p);
    return true;
}

bool kf_pass_unpack(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        bool changed = false;
        for (uint32_t i = 0, end = g->nodes.len; i < end; i++) {
            const kf_node *n = &g->nodes.data[i];
            if (n->op != KF_OP_NONE && kf_node_is_linear(g, n))
                changed |= try_unpack(g, i, cx);
        }
        if (changed)
            kf_graph_compact(g);
        progress |= changed;
    }
    return progress;
}
