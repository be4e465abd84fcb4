/* SPDX-License-Identifier: Apache-2.0 */
/* recompute - see recompute.h. */
#include "passes/recompute.h"

/* Partial statistics are this many times narrower than their rows: finishing them in every tile is
 * nothing against reading the rows. */
#define NARROW 8

typedef struct finder {
    const kf_graph *g;
    kf_arena *scratch;
    kf_recompute r;
    int64_t *width; /* by node: columns that a row value is finished from */
    kf_value *root; /* by value: the rows that constants and cheap functions alone lead back to */
} finder;

static uint32_t index_of(const kf_graph *g, const kf_node *n)
{
    return (uint32_t)(n - g->nodes.data);
}

static bool is_cheap(const kf_node *n)
{
    return kf_op_is_fn(n->op) && (kf_op_infos[n->op].traits & KF_CHEAP);
}

static bool is_row_type(const kf_type *t)
{
    return t->kind == KF_TYPE_TENSOR && t->rank == 2 && !kf_dim_is_static(t->dim[0]) &&
           kf_dim_eq(t->dim[1], kf_dim_static(1));
}

/* ---- finished row values --------------------------------------------------------------------- */

static bool is_finished(const kf_graph *g, const kf_node *n)
{
    return n->op == KF_OP_row_reduce && !KF_ATTR_OF(n, row_reduce)->keep &&
           kf_value_type(g, n->in[0])->rank == 2;
}

/* A scalar function of row values and constants. */
static bool maps_row_values(const finder *f, const kf_node *n, int64_t *out_width)
{
    double c;

    if (!kf_op_is_fn(n->op) || !is_row_type(kf_value_type(f->g, n->out[0])))
        return false;
    for (uint32_t j = 0; j < n->n_in; j++) {
        const kf_node *def = kf_value_node(f->g, n->in[j]);
        if (kf_value_const(f->g, n->in[j], &c))
            continue;
        if (!def || !f->r.row_value[index_of(f->g, def)])
            return false;
        int64_t width = f->width[index_of(f->g, def)];
        *out_width = width > *out_width ? width : *out_width;
    }
    return *out_width > 0;
}

static void find_row_values(finder *f)
{
    for (uint32_t i = 0; i < f->g->nodes.len; i++) {
        const kf_node *n = &f->g->nodes.data[i];
        if (n->op == KF_OP_NONE)
            continue;
        if (is_finished(f->g, n))
            f->width[i] = kf_value_type(f->g, n->in[0])->dim[1].size;
        f->r.row_value[i] = is_finished(f->g, n) || maps_row_values(f, n, &f->width[i]);
    }
}

/* ---- rows that are computed again ------------------------------------------------------------ */

/* Arguments, and what regions and loops have stored; also seen through views. */
static bool is_stored(const kf_graph *g, kf_value v)
{
    const kf_node *n = kf_value_node(g, v);

    if (!n)
        return true;
    if (n->op == KF_OP_gather || n->op == KF_OP_reshape)
        return is_stored(g, n->in[0]);
    return n->op == KF_OP_region || n->op == KF_OP_repeat;
}

/* What |row_value| depends on cannot be finished by a kernel that still uses it: it is stored. */
static bool depends_on(const finder *f, const kf_node *row_value, kf_value v)
{
    bool *needed = KF_NEW_N(f->scratch, bool, f->g->values.len);

    for (uint32_t i = index_of(f->g, row_value) + 1; i-- > 0;) {
        const kf_node *n = &f->g->nodes.data[i];
        bool here = n == row_value;
        for (uint32_t r = 0; r < n->n_out && n->op != KF_OP_NONE; r++)
            here |= needed[n->out[r]];
        for (uint32_t j = 0; here && j < n->n_in; j++)
            needed[n->in[j]] = true;
    }
    return needed[v];
}

static bool same_dims(const kf_type *a, const kf_type *b)
{
    bool same = a->kind == KF_TYPE_TENSOR && b->kind == KF_TYPE_TENSOR && a->rank == b->rank;

    for (uint32_t i = 0; same && i < a->rank; i++)
        same = kf_dim_eq(a->dim[i], b->dim[i]);
    return same;
}

/* Marks where constants and cheap functions alone lead from |n|: %u for square %u. */
static void find_root(finder *f, const kf_node *n)
{
    kf_value root = KF_NO_VALUE;
    bool pure = is_cheap(n);
    double c;

    for (uint32_t j = 0; pure && j < n->n_in; j++) {
        if (kf_value_const(f->g, n->in[j], &c))
            continue;
        kf_value from = f->root[n->in[j]];
        pure = (root == KF_NO_VALUE || root == from) &&
               same_dims(kf_value_type(f->g, from), kf_value_type(f->g, n->out[0]));
        root = from;
    }
    for (uint32_t r = 0; r < n->n_out; r++)
        f->root[n->out[r]] = pure && root != KF_NO_VALUE ? root : n->out[r];
}

/* What operand |v| of a cheap function of rows is. */
typedef enum operand { ALIEN, ALONG, ROW_VALUE, ROWS } operand;

static operand classify(const kf_graph *g, kf_value v, const kf_type *out, const bool *row_value)
{
    const kf_node *def = kf_value_node(g, v);
    double c;

    if (kf_value_const(g, v, &c))
        return ALONG;
    if (kf_value_is_param(g, v) && kf_value_type(g, v)->rank <= 1)
        return ALONG;
    if (def && row_value[index_of(g, def)])
        return ROW_VALUE;
    return same_dims(kf_value_type(g, v), out) ? ROWS : ALIEN;
}

/* The rows that operand |v| starts from; KF_NO_VALUE if they are not stored whatever happens. */
static kf_value base_of(const finder *f, kf_value v, const kf_node *row_value)
{
    const kf_node *def = kf_value_node(f->g, v);

    if (def && f->r.again[index_of(f->g, def)])
        return f->r.base[index_of(f->g, def)];
    kf_value root = f->root[v];
    if (is_stored(f->g, root) || (row_value && depends_on(f, row_value, root)))
        return root;
    return KF_NO_VALUE;
}

static bool starts_again(finder *f, const kf_node *n, kf_value *out_base)
{
    const kf_type *out = kf_value_type(f->g, n->out[0]);
    const kf_node *row_value = NULL;
    bool again = false;

    *out_base = KF_NO_VALUE;
    if (!is_cheap(n) || out->rank != 2 || kf_dim_is_static(out->dim[0]))
        return false;
    for (uint32_t j = 0; j < n->n_in; j++)
        if (classify(f->g, n->in[j], out, f->r.row_value) == ROW_VALUE)
            row_value = kf_value_node(f->g, n->in[j]);
    if (row_value && f->width[index_of(f->g, row_value)] * NARROW > out->dim[1].size)
        return false;
    for (uint32_t j = 0; j < n->n_in; j++) {
        operand kind = classify(f->g, n->in[j], out, f->r.row_value);
        if (kind == ALIEN)
            return false;
        if (kind != ROWS)
            continue;
        kf_value base = base_of(f, n->in[j], row_value);
        if (base == KF_NO_VALUE || (*out_base != KF_NO_VALUE && base != *out_base))
            return false;
        const kf_node *def = kf_value_node(f->g, n->in[j]);
        again |= def && f->r.again[index_of(f->g, def)];
        *out_base = base;
    }
    return *out_base != KF_NO_VALUE && (row_value || again);
}

/* The functions between |v| and the rows |base| are computed again as well. */
static void mark_back(finder *f, kf_value v, kf_value base)
{
    const kf_node *n = kf_value_node(f->g, v);

    if (v == base || !n || f->r.again[index_of(f->g, n)])
        return;
    f->r.again[index_of(f->g, n)] = true;
    f->r.base[index_of(f->g, n)] = base;
    for (uint32_t j = 0; j < n->n_in; j++)
        if (f->root[n->in[j]] == base)
            mark_back(f, n->in[j], base);
}

static void find_again(finder *f)
{
    for (uint32_t i = 0; i < f->g->nodes.len; i++) {
        const kf_node *n = &f->g->nodes.data[i];
        kf_value base;
        if (n->op == KF_OP_NONE)
            continue;
        find_root(f, n);
        if (!starts_again(f, n, &base))
            continue;
        f->r.again[i] = true;
        f->r.base[i] = base;
        for (uint32_t j = 0; j < n->n_in; j++)
            if (same_dims(kf_value_type(f->g, n->in[j]), kf_value_type(f->g, n->out[0])))
                mark_back(f, n->in[j], base);
    }
}

/* What something reads that cannot hold a copy is stored after all. */
static void drop_stored(finder *f)
{
    const kf_graph *g = f->g;
    bool *stored = KF_NEW_N(f->scratch, bool, g->values.len);

    for (uint32_t i = 0; i < g->results.len; i++)
        stored[g->results.data[i]] = true;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        bool holds = n->op == KF_OP_NONE || kf_op_is_fn(n->op) || n->op == KF_OP_row_stat ||
                     n->op == KF_OP_row_reduce;
        for (uint32_t j = 0; !holds && j < n->n_in; j++)
            stored[n->in[j]] |= j > 0 || !kf_node_is_linear(g, n);
    }
    for (uint32_t i = 0; i < g->nodes.len; i++)
        if (f->r.again[i] && stored[g->nodes.data[i].out[0]])
            f->r.again[i] = false;
}

kf_recompute kf_recompute_find(const kf_graph *g, kf_arena *scratch)
{
    finder f = {.g = g, .scratch = scratch};

    f.r.row_value = KF_NEW_N(scratch, bool, g->nodes.len);
    f.r.again = KF_NEW_N(scratch, bool, g->nodes.len);
    f.width = KF_NEW_N(scratch, int64_t, g->nodes.len);
    f.r.base = KF_NEW_N(scratch, kf_value, g->nodes.len);
    f.root = KF_NEW_N(scratch, kf_value, g->values.len);
    for (uint32_t v = 0; v < g->values.len; v++)
        f.root[v] = v;
    find_row_values(&f);
    find_again(&f);
    drop_stored(&f);
    return f.r;
}
