/* SPDX-License-Identifier: Apache-2.0 */
/* view_chain - see view_chain.h.
 *
 *   before   %1 = reshape %0 : [N,4,2,32]                     after   %1 = transpose %0 {1, 0, 2}
 *            %2 = transpose %1 {perm = [1, 2, 0, 3]}                  : [8,N,32] of %0 : [N,8,32]
 *            %3 = reshape %2 : [8,N,32]
 *
 * The first value's dims are cut into digits as the reshapes demand; each view is then an order of
 * digits, and neighbours that stay neighbours are one dim.
 */
#include "passes/view_chain.h"

#include <string.h>

enum { MAX_DIGITS = 16, MAX_CHAIN = 8 };

typedef struct views {
    kf_dim digit[MAX_DIGITS];
    uint8_t n_digits;
    uint8_t place[MAX_DIGITS]; /* digits as the first value has them, outermost first */
    uint8_t n_flat, flat[MAX_DIGITS];
    uint8_t rank, count[KF_MAX_RANK]; /* digits of each dim of the value reached */
} views;

static bool is_view(const kf_node *n)
{
    return n && (n->op == KF_OP_reshape || n->op == KF_OP_transpose);
}

static void start(views *v, const kf_type *t)
{
    *v = (views){.rank = t->rank};
    for (uint8_t d = 0; d < t->rank; d++) {
        if (kf_dim_is_one(t->dim[d]))
            continue;
        v->count[d] = 1;
        v->place[v->n_digits] = v->flat[v->n_digits] = v->n_digits;
        v->digit[v->n_digits++] = t->dim[d];
    }
    v->n_flat = v->n_digits;
}

static void insert(uint8_t *list, uint8_t n, uint8_t after, uint8_t digit)
{
    uint8_t at = 0;

    while (list[at] != after)
        at++;
    memmove(list + at + 2, list + at + 1, (size_t)(n - at - 1));
    list[at + 1] = digit;
}

/* Digit |d| becomes an outer one of |size| and a new inner one. */
static bool split(views *v, uint8_t d, int64_t size)
{
    if (v->n_digits == MAX_DIGITS || v->digit[d].size % size)
        return false;
    insert(v->place, v->n_digits, d, v->n_digits);
    insert(v->flat, v->n_flat++, d, v->n_digits);
    v->digit[v->n_digits++] = kf_dim_static(v->digit[d].size / size);
    v->digit[d].size = size;
    return true;
}

static bool apply_reshape(views *v, const kf_type *to)
{
    uint8_t at = 0;

    v->rank = to->rank;
    for (uint8_t d = 0; d < to->rank; d++) {
        int64_t size = to->dim[d].sym ? 1 : to->dim[d].size;
        v->count[d] = 0;
        if (to->dim[d].sym) {
            v->count[d] = 1;
            at++;
            continue;
        }
        while (size > 1) {
            uint8_t digit = v->flat[at];
            int64_t own = v->digit[digit].size;
            if (size % own && !split(v, digit, size))
                return false;
            size /= v->digit[digit].size;
            v->count[d]++;
            at++;
        }
    }
    return true;
}

static void apply_transpose(views *v, const kf_ints *perm)
{
    views old = *v;

    v->n_flat = 0;
    for (uint8_t d = 0; d < v->rank; d++) {
        uint8_t from = (uint8_t)perm->v[d], first = 0;
        for (uint8_t i = 0; i < from; i++)
            first = (uint8_t)(first + old.count[i]);
        v->count[d] = old.count[from];
        memcpy(v->flat + v->n_flat, old.flat + first, old.count[from]);
        v->n_flat = (uint8_t)(v->n_flat + old.count[from]);
    }
}

/* ---- the short form -------------------------------------------------------------------------- */

typedef struct short_form {
    uint8_t rank;
    kf_dim dim[MAX_DIGITS]; /* of the first value */
    kf_ints perm;
    bool moved;
} short_form;

static bool shorten(const views *v, short_form *s)
{
    uint8_t place_of[MAX_DIGITS], group_of_place[MAX_DIGITS], first_of_group[MAX_DIGITS];
    uint8_t n_groups = 0;

    for (uint8_t i = 0; i < v->n_digits; i++)
        place_of[v->place[i]] = i;
    for (uint8_t i = 0; i < v->n_flat; i++) {
        bool joins = i > 0 && place_of[v->flat[i]] == place_of[v->flat[i - 1]] + 1 &&
                     !v->digit[v->flat[i]].sym && !v->digit[v->flat[i - 1]].sym;
        if (!joins)
            first_of_group[n_groups++] = place_of[v->flat[i]];
        group_of_place[place_of[v->flat[i]]] = (uint8_t)(n_groups - 1);
    }
    *s = (short_form){.perm.n = n_groups};
    if (n_groups > KF_MAX_RANK)
        return false;
    for (uint8_t i = 0; i < v->n_digits; i++) {
        uint8_t group = group_of_place[i];
        if (first_of_group[group] == i) {
            s->perm.v[group] = s->rank;
            s->moved |= group != s->rank;
            s->dim[s->rank++] = v->digit[v->place[i]];
        } else {
            s->dim[s->rank - 1].size *= v->digit[v->place[i]].size;
        }
    }
    return true;
}

static bool same_dims(uint8_t n, const kf_dim *a, uint8_t m, const kf_dim *b)
{
    for (uint8_t i = 0; n == m && i < n; i++)
        if (!kf_dim_eq(a[i], b[i]))
            return false;
    return n == m;
}

/* Nodes of the short form, and the dims of the values between them. */
static uint32_t cost_of(const short_form *s, const kf_type *from, const kf_type *to)
{
    kf_dim moved[KF_MAX_RANK];
    bool before, after;

    if (!s->moved)
        return same_dims(from->rank, from->dim, to->rank, to->dim) ? 0 : 16;
    for (uint8_t i = 0; i < s->rank; i++)
        moved[i] = s->dim[s->perm.v[i]];
    before = !same_dims(s->rank, s->dim, from->rank, from->dim);
    after = !same_dims(s->rank, moved, to->rank, to->dim);
    return 16u + (before ? 16u + s->rank : 0) + (after ? 16u + s->rank : 0);
}

static kf_value build(kf_graph *g, const short_form *s, kf_value x, const kf_type *to, kf_loc loc)
{
    if (s->moved) {
        kf_attr_perm *p = KF_ATTR_NEW(g->module->arena, perm);
        p->perm = s->perm;
        const kf_type from = *kf_value_type(g, x);
        if (!same_dims(s->rank, s->dim, from.rank, from.dim))
            x = kf_node_reshape(g, x, s->rank, s->dim, loc);
        x = kf_node_add(g, KF_OP_transpose, p, 1, &x, NULL, loc);
    }
    const kf_type now = *kf_value_type(g, x);
    return same_dims(now.rank, now.dim, to->rank, to->dim)
               ? x
               : kf_node_reshape(g, x, to->rank, to->dim, loc);
}

kf_value kf_view_chain(kf_graph *g, const kf_node *n)
{
    const kf_node *chain[MAX_CHAIN];
    uint32_t length = 0, written = 0;
    kf_value x = n->out[0];
    const kf_type to = *kf_value_type(g, x);
    short_form s;
    views v;

    for (const kf_node *at = n; is_view(at) && length < MAX_CHAIN; at = kf_value_node(g, x)) {
        written += 16u + (length ? kf_value_type(g, x)->rank : 0);
        chain[length++] = at;
        x = at->in[0];
    }
    start(&v, kf_value_type(g, x));
    for (uint32_t i = length; i-- > 0;) {
        if (chain[i]->op == KF_OP_transpose)
            apply_transpose(&v, &KF_ATTR_OF(chain[i], perm)->perm);
        else if (!apply_reshape(&v, kf_value_type(g, chain[i]->out[0])))
            return KF_NO_VALUE;
    }
    if (length < 2 || !shorten(&v, &s) || cost_of(&s, kf_value_type(g, x), &to) >= written)
        return KF_NO_VALUE;
    return build(g, &s, x, &to, n->loc);
}
