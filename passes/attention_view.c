/* SPDX-License-Identifier: Apache-2.0 */
/* attention_view - heads, rows and sizes of a recognised attention: what the op wants as [N, H, D]
 * stands in the graph in some layout, and is brought there by reshape - transpose - reshape. Where
 * the layout was the usual one, canonicalize cancels these. */
#include "base/check.h"
#include "passes/attention_match.h"

#include <string.h>

static bool is_atom(const kf_els *e, kf_el x, kf_atom a)
{
    const kf_el_node *n = kf_el_at(e, x);

    return n->kind == KF_EL_INDEX && n->start == 0 && n->n_term == 1 && n->term[0].atom == a &&
           n->term[0].step == 1;
}

/* True if |x| runs through all of |dim|, each term a digit. */
static bool is_dense(const kf_els *e, kf_el x, kf_dim dim)
{
    const kf_el_node *n = kf_el_at(e, x);
    int64_t step = 1;

    if (n->kind != KF_EL_INDEX || n->start != 0)
        return false;
    for (uint8_t i = n->n_term; i-- > 0;) {
        kf_dim d = e->atom[n->term[i].atom];
        if (n->term[i].step != step)
            return false;
        if (d.sym)
            return n->n_term == 1 && kf_dim_eq(d, dim);
        step *= d.size;
    }
    return !dim.sym && step == dim.size;
}

static bool among(const kf_atom *set, uint8_t n, kf_atom a)
{
    for (uint8_t i = 0; i < n; i++)
        if (set[i] == a)
            return true;
    return false;
}

static uint64_t bits_of(const kf_atom *set, uint8_t n)
{
    uint64_t bits = 0;

    for (uint8_t i = 0; i < n; i++)
        bits |= KF_ATOM_BIT(set[i]);
    return bits;
}

/* Row, heads and size are the root's indices, all of them. */
static bool covers_root(const kf_attention_match *m)
{
    uint64_t root = 0, parts[] = {KF_ATOM_BIT(m->row), bits_of(m->head, m->n_heads),
                                  bits_of(m->size, m->n_size)};

    for (uint8_t d = 0; d < kf_value_type(m->g, m->root)->rank; d++)
        root |= bits_of(m->t.dims.digit[d], m->t.dims.n[d]);
    bool apart = !(parts[0] & parts[1]) && !(parts[0] & parts[2]) && !(parts[1] & parts[2]);
    return apart && root == (parts[0] | parts[1] | parts[2]);
}

/* The heads in order: those that choose the keys' head first, so that head / (H / G) is that. */
static bool order_heads(kf_attention_match *m, const kf_el_node *group)
{
    const kf_el_dims *dims = &m->t.dims;
    uint8_t rank = kf_value_type(m->g, m->root)->rank;

    for (uint8_t i = 0; i < group->n_term; i++)
        m->head[m->n_heads++] = group->term[i].atom;
    for (uint8_t d = 0; d < rank; d++) {
        for (uint8_t i = 0; i < dims->n[d]; i++) {
            kf_atom a = dims->digit[d][i];
            if (a == m->row || among(m->size, m->n_size, a) || among(m->head, m->n_heads, a))
                continue;
            if (m->t.e->atom[a].sym || m->n_heads == KF_MAX_RANK)
                return kf_attention_refuse(m, KF_REASON_F0204, "a dim is neither rows nor heads");
            m->head[m->n_heads++] = a;
        }
    }
    return (m->n_heads + m->n_size < KF_MAX_RANK && covers_root(m)) ||
           kf_attention_refuse(m, KF_REASON_F0204, "a dim is neither rows nor heads");
}

/* Each of row, heads and the contracted index once, nothing else. */
static bool query_fits(kf_attention_match *m, const kf_el_node *query)
{
    const kf_els *e = m->t.e;
    const kf_type *t = kf_value_type(m->g, query->value);
    uint64_t found = 0,
             want = KF_ATOM_BIT(m->row) | KF_ATOM_BIT(m->inner) | bits_of(m->head, m->n_heads);

    for (uint8_t d = 0; d < t->rank; d++) {
        const kf_el_node *n = kf_el_at(e, query->arg[d]);
        if (!is_dense(e, query->arg[d], t->dim[d]))
            return kf_attention_refuse(m, KF_REASON_F0204, "the query is a part of a value");
        for (uint8_t i = 0; i < n->n_term; i++) {
            uint64_t bit = KF_ATOM_BIT(n->term[i].atom);
            if (!(want & bit) || (found & bit))
                return kf_attention_refuse(m, KF_REASON_F0204, "the query has another index");
            found |= bit;
        }
    }
    return found == want || kf_attention_refuse(m, KF_REASON_F0204, "a query serves several heads");
}

bool kf_attention_match_views(kf_attention_match *m, const kf_el_node *key, const kf_el_node *value,
                              const kf_el_node *query)
{
    const kf_els *e = m->t.e;
    const kf_type *cache = kf_value_type(m->g, kf_value_node(m->g, m->keys)->in[0]);
    const kf_el_node *size = kf_el_at(e, value->arg[2]);

    if (!is_atom(e, key->arg[0], m->key) || !is_atom(e, value->arg[0], m->key) ||
        !is_atom(e, key->arg[2], m->inner) || key->arg[1] != value->arg[1])
        return kf_attention_refuse(m, KF_REASON_F0204, "keys and values of different heads");
    if (!is_dense(e, key->arg[1], kf_dim_static(cache->kv_heads)) ||
        !is_dense(e, value->arg[2], kf_dim_static(cache->kv_head_dim)))
        return kf_attention_refuse(m, KF_REASON_F0204, "a part of the cached heads");
    for (uint8_t i = 0; i < size->n_term; i++)
        m->size[m->n_size++] = size->term[i].atom;
    m->q = query->value;
    kf_el *at = KF_NEW_N(m->cx->scratch, kf_el, KF_MAX_RANK);
    memcpy(at, query->arg, sizeof query->arg);
    m->q_at = at;
    return order_heads(m, kf_el_at(e, key->arg[1])) && query_fits(m, query);
}

/* ---- building -------------------------------------------------------------------------------- */

typedef struct order {
    uint8_t n;
    kf_atom atom[KF_MAX_RANK];
} order;

static kf_value view(kf_graph *g, kf_value v, const kf_els *e, const order *o, kf_loc loc)
{
    kf_dim dim[KF_MAX_RANK] = {{0}};

    for (uint8_t i = 0; i < o->n; i++)
        dim[i] = e->atom[o->atom[i]];
    return kf_node_reshape(g, v, o->n, dim, loc);
}

/* |v|, whose dims are the atoms of |from|, with the dims of |to|. */
static kf_value permuted(kf_graph *g, kf_value v, const order *from, const order *to, kf_loc loc)
{
    kf_ints perm = {.n = to->n};

    for (uint8_t i = 0; i < to->n; i++) {
        uint8_t at = 0;
        while (at < from->n && from->atom[at] != to->atom[i])
            at++;
        KF_ASSERT(at < from->n, "the same indices in another order");
        perm.v[i] = at;
    }
    return kf_node_transpose(g, v, perm, loc);
}

/* Row, heads, then |last|. */
static order op_order(const kf_attention_match *m, const kf_atom *last, uint8_t n_last)
{
    order o = {.n = 1, .atom = {m->row}};

    for (uint8_t i = 0; i < m->n_heads; i++)
        o.atom[o.n++] = m->head[i];
    for (uint8_t i = 0; i < n_last; i++)
        o.atom[o.n++] = last[i];
    return o;
}

kf_value kf_attention_query(kf_graph *g, const kf_attention_match *m, kf_loc loc)
{
    const kf_els *e = m->t.e;
    const kf_type *t = kf_value_type(g, m->q);
    int64_t heads = 1;
    order from = {0}, to = op_order(m, &m->inner, 1);

    for (uint8_t d = 0; d < t->rank; d++) {
        const kf_el_node *n = kf_el_at(e, m->q_at[d]);
        for (uint8_t i = 0; i < n->n_term; i++)
            from.atom[from.n++] = n->term[i].atom;
    }
    for (uint8_t i = 0; i < m->n_heads; i++)
        heads *= e->atom[m->head[i]].size;
    kf_dim dims[] = {e->atom[m->row], kf_dim_static(heads), e->atom[m->inner]};
    kf_value q = permuted(g, view(g, m->q, e, &from, loc), &from, &to, loc);
    return kf_node_reshape(g, q, 3, dims, loc);
}

kf_value kf_attention_result(kf_graph *g, const kf_attention_match *m, kf_value a, kf_loc loc)
{
    const kf_els *e = m->t.e;
    const kf_type t = *kf_value_type(g, m->root);
    order from = op_order(m, m->size, m->n_size), to = {0};

    for (uint8_t d = 0; d < t.rank; d++)
        for (uint8_t i = 0; i < m->t.dims.n[d]; i++)
            to.atom[to.n++] = m->t.dims.digit[d][i];
    /* In front of the views, which then meet those of the reader; the kernel takes a number. */
    if (m->outside != 1)
        a = kf_node_2(g, KF_OP_mul, a, kf_node_const(g, m->outside, loc), loc);
    a = permuted(g, view(g, a, e, &from, loc), &from, &to, loc);
    return kf_node_reshape(g, a, t.rank, t.dim, loc);
}
