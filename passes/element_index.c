/* SPDX-License-Identifier: Apache-2.0 */
/* element_index - indices as sums of steps, and what reshapes make of them. */
#include "passes/element_impl.h"

#include <string.h>

kf_el kf_el_index(kf_els *e, int64_t start, uint8_t n, const kf_el_term *term)
{
    kf_el_node x = {.kind = KF_EL_INDEX, .start = start};

    for (uint8_t i = 0; i < n; i++) {
        uint8_t at = 0;
        while (at < x.n_term && x.term[at].atom != term[i].atom)
            at++;
        if (at == KF_MAX_RANK) {
            e->full = true;
            return 0;
        }
        if (at == x.n_term)
            x.term[x.n_term++] = (kf_el_term){term[i].atom, 0};
        x.term[at].step += term[i].step;
    }
    uint8_t kept = 0;
    for (uint8_t i = 0; i < x.n_term; i++)
        if (x.term[i].step)
            x.term[kept++] = x.term[i];
    memset(x.term + kept, 0, (KF_MAX_RANK - kept) * sizeof *x.term);
    x.n_term = kept;
    for (uint8_t i = 1; i < x.n_term; i++) {
        kf_el_term t = x.term[i];
        uint8_t at = i;
        for (; at > 0 && (x.term[at - 1].step < t.step ||
                          (x.term[at - 1].step == t.step && x.term[at - 1].atom > t.atom));
             at--)
            x.term[at] = x.term[at - 1];
        x.term[at] = t;
    }
    return kf_el_intern(e, x);
}

kf_el kf_el_atom(kf_els *e, kf_atom a)
{
    return kf_el_index(e, 0, 1, &(kf_el_term){a, 1});
}

/* ---- division -------------------------------------------------------------------------------- */

bool kf_el_divide(kf_els *e, kf_el x, int64_t size, kf_el *quotient, kf_el *remainder)
{
    const kf_el_node n = *kf_el_at(e, x);
    kf_el_term q[KF_MAX_RANK], r[KF_MAX_RANK];
    uint8_t nq = 0, nr = 0;
    int64_t most = n.start % size;

    if (n.kind != KF_EL_INDEX || n.start < 0)
        return false;
    for (uint8_t i = 0; i < n.n_term; i++) {
        kf_el_term term = n.term[i];
        kf_dim dim = e->atom[term.atom];
        if (term.step % size == 0) {
            q[nq++] = (kf_el_term){term.atom, term.step / size};
            continue;
        }
        if (dim.sym || term.step < 0)
            return false;
        r[nr++] = term;
        most += term.step * (dim.size - 1);
        int64_t inner = size / term.step;
        if (most < size || size % term.step || dim.size % inner)
            continue;
        e->split.wanted = true;
        e->split.atom = term.atom;
        e->split.inner = inner;
        return false;
    }
    if (most >= size)
        return false;
    *quotient = kf_el_index(e, n.start / size, nq, q);
    *remainder = kf_el_index(e, n.start % size, nr, r);
    return true;
}

kf_el kf_el_index_sum(kf_els *e, kf_el a, int64_t step, kf_el b)
{
    kf_el_term term[2 * KF_MAX_RANK];
    const kf_el_node x = *kf_el_at(e, a), y = *kf_el_at(e, b);
    uint8_t n = 0;

    for (uint8_t i = 0; i < x.n_term; i++)
        term[n++] = (kf_el_term){x.term[i].atom, x.term[i].step * step};
    for (uint8_t i = 0; i < y.n_term; i++)
        term[n++] = y.term[i];
    return kf_el_index(e, x.start * step + y.start, n, term);
}

/* ---- reshape --------------------------------------------------------------------------------- */

/* Dims to[o0..o1) and from[i0..i1) hold the same elements in the same order. */
static bool regroup(kf_els *e, const kf_type *to, uint8_t o0, uint8_t o1, const kf_el *at,
                    const kf_type *from, uint8_t i0, uint8_t i1, kf_el *out)
{
    if (o1 - o0 == 1 && i1 - i0 == 1) {
        out[i0] = at[o0];
        return true;
    }
    kf_el x = kf_el_index(e, 0, 0, NULL);
    for (uint8_t o = o0; o < o1; o++) {
        if (kf_el_at(e, at[o])->kind != KF_EL_INDEX)
            return false;
        x = kf_el_index_sum(e, x, to->dim[o].size, at[o]);
    }
    for (uint8_t i = i1; i-- > i0 + 1;)
        if (!kf_el_divide(e, x, from->dim[i].size, &x, &out[i]))
            return false;
    out[i0] = x;
    return true;
}

bool kf_el_reshaped(kf_els *e, const kf_type *to, const kf_type *from, const kf_el *at, kf_el *out)
{
    uint8_t o = 0, i = 0;

    for (uint8_t d = 0; d < from->rank; d++)
        out[d] = kf_el_index(e, 0, 0, NULL);
    while (i < from->rank && o < to->rank) {
        bool dynamic = from->dim[i].sym || to->dim[o].sym;
        if (kf_dim_is_one(from->dim[i])) {
            i++;
        } else if (kf_dim_is_one(to->dim[o])) {
            o++;
        } else if (dynamic) {
            out[i++] = at[o++];
        } else {
            uint8_t i0 = i, o0 = o;
            int64_t a = from->dim[i++].size, b = to->dim[o++].size;
            while (a != b) {
                if (a < b)
                    a *= from->dim[i++].size;
                else
                    b *= to->dim[o++].size;
            }
            if (!regroup(e, to, o0, o, at, from, i0, i, out))
                return false;
        }
    }
    return true;
}
