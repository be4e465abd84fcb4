/* SPDX-License-Identifier: Apache-2.0 */
/* element - see element.h: the table of expressions, sums, bound indices, replacing parts. Products
 * are in element_mul.c, functions in element_fn.c, what a node computes in element_trace.c. */
#include "ir/structure.h"
#include "passes/element_impl.h"

#include <math.h>
#include <string.h>

enum { MAX_NODES = 16384 };

/* ---- the table ------------------------------------------------------------------------------- */

kf_els *kf_els_create(kf_arena *arena, const kf_graph *g)
{
    kf_els *e = KF_NEW(arena, kf_els);

    e->arena = arena;
    e->g = g;
    e->value_hash = kf_graph_structure(g, KF_WITH_TENSORS, arena);
    e->table_cap = 256;
    e->table = KF_NEW_N(arena, uint32_t, e->table_cap);
    return e;
}

kf_atom kf_el_new_atom(kf_els *e, kf_dim dim)
{
    if (e->n_atoms == KF_MAX_ATOMS) {
        e->full = true;
        return 0;
    }
    e->atom[e->n_atoms] = dim;
    return e->n_atoms++;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    return h ^ (h >> 33);
}

static uint64_t mix_number(uint64_t h, double v)
{
    uint64_t bits;

    v += 0.0; /* -0 is 0 */
    memcpy(&bits, &v, sizeof bits);
    return mix(h, bits);
}

/* Bound indices by what they are; the others were made in the order of the traced value's dims. */
static uint64_t atom_hash(const kf_els *e, kf_atom a)
{
    uint64_t which = e->bound_height[a] ? KF_MAX_ATOMS + e->bound_height[a] : a;

    return mix(mix(which, e->atom[a].sym), (uint64_t)e->atom[a].size);
}

static void fill_derived(const kf_els *e, kf_el_node *n)
{
    bool binds = n->kind == KF_EL_SUM || n->kind == KF_EL_MAX;
    uint64_t h = mix((uint64_t)n->kind, (uint64_t)n->fn);

    h = mix(h, binds ? atom_hash(e, n->var) : n->var);

    if (n->kind == KF_EL_LOAD)
        h = mix(h, e->value_hash[n->value]);
    h = mix(mix_number(h, n->number), (uint64_t)n->start);
    for (uint8_t i = 0; i < n->n_arg; i++) {
        const kf_el_node *a = kf_el_at(e, n->arg[i]);
        h = mix(h, a->hash);
        n->free |= a->free;
        n->height = a->height > n->height ? a->height : n->height;
    }
    for (uint8_t i = 0; i < n->n_part; i++) {
        const kf_el_node *a = kf_el_at(e, n->part[i].el);
        h = mix_number(mix_number(mix(h, a->hash), n->part[i].num), n->part[i].den);
        n->free |= a->free;
        n->height = a->height > n->height ? a->height : n->height;
    }
    for (uint8_t i = 0; i < n->n_term; i++) {
        h = mix(mix(h, atom_hash(e, n->term[i].atom)), (uint64_t)n->term[i].step);
        n->free |= KF_ATOM_BIT(n->term[i].atom);
    }
    if (binds) {
        n->free &= ~KF_ATOM_BIT(n->var);
        n->height++;
    }
    n->hash = h;
}

static bool same(const kf_el_node *a, const kf_el_node *b)
{
    if (a->hash != b->hash || a->kind != b->kind || a->fn != b->fn || a->value != b->value ||
        a->var != b->var || a->number != b->number || a->start != b->start ||
        a->n_arg != b->n_arg || a->n_part != b->n_part || a->n_term != b->n_term)
        return false;
    for (uint8_t i = 0; i < a->n_arg; i++)
        if (a->arg[i] != b->arg[i])
            return false;
    for (uint8_t i = 0; i < a->n_part; i++)
        if (a->part[i].el != b->part[i].el || a->part[i].num != b->part[i].num ||
            a->part[i].den != b->part[i].den)
            return false;
    for (uint8_t i = 0; i < a->n_term; i++)
        if (a->term[i].atom != b->term[i].atom || a->term[i].step != b->term[i].step)
            return false;
    return true;
}

static void grow_table(kf_els *e)
{
    e->table_cap *= 2;
    e->table = KF_NEW_N(e->arena, uint32_t, e->table_cap);
    for (uint32_t i = 0; i < e->nodes.len; i++) {
        uint32_t at = (uint32_t)e->nodes.data[i].hash & (e->table_cap - 1);
        while (e->table[at])
            at = (at + 1) & (e->table_cap - 1);
        e->table[at] = i + 1;
    }
}

/* The number of an expression; parts are copied when it is new. */
kf_el kf_el_intern(kf_els *e, kf_el_node n)
{
    fill_derived(e, &n);
    uint32_t at = (uint32_t)n.hash & (e->table_cap - 1);
    while (e->table[at]) {
        if (same(&e->nodes.data[e->table[at] - 1], &n))
            return e->table[at] - 1;
        at = (at + 1) & (e->table_cap - 1);
    }
    if (e->nodes.len >= MAX_NODES) {
        e->full = true;
        return 0;
    }
    if (n.n_part) {
        kf_el_part *own = KF_NEW_N(e->arena, kf_el_part, n.n_part);
        memcpy(own, n.part, n.n_part * sizeof *own);
        n.part = own;
    }
    kf_vec_push(e->arena, &e->nodes, n);
    e->table[at] = e->nodes.len;
    if (e->nodes.len * 2 > e->table_cap)
        grow_table(e);
    return e->nodes.len - 1;
}

kf_el kf_el_num(kf_els *e, double v)
{
    return kf_el_intern(e, (kf_el_node){.kind = KF_EL_NUM, .number = v + 0.0});
}

kf_el kf_el_var(kf_els *e, uint32_t var)
{
    return kf_el_intern(e, (kf_el_node){.kind = KF_EL_VAR, .var = var});
}

kf_el kf_el_load(kf_els *e, kf_value v, uint8_t n, const kf_el *at)
{
    kf_el_node x = {.kind = KF_EL_LOAD, .value = v, .n_arg = n};

    memcpy(x.arg, at, n * sizeof *at);
    return kf_el_intern(e, x);
}

bool kf_el_number(const kf_els *e, kf_el x, double *out)
{
    const kf_el_node *n = kf_el_at(e, x);

    if (n->kind == KF_EL_NUM)
        *out = n->number;
    else if (n->kind == KF_EL_INDEX && n->n_term == 0)
        *out = (double)n->start;
    else
        return false;
    return true;
}

bool kf_el_is_fn(const kf_els *e, kf_el x, kf_fn fn)
{
    return kf_el_at(e, x)->kind == KF_EL_FN && kf_el_at(e, x)->fn == fn;
}

/* ---- sums ------------------------------------------------------------------------------------ */

static double common_divisor(double a, double b)
{
    while (b != 0) {
        double rest = fmod(a, b);
        a = b;
        b = rest;
    }
    return a;
}

/* A quotient in one form: positive below, whole numbers without a common divisor, no power of two
 * below, no whole quotient left undone. */
void kf_el_quotient(double *num, double *den)
{
    const double whole = 0x1p53;
    int exponent;

    if (*den < 0) {
        *num = -*num;
        *den = -*den;
    }
    if (floor(*num) == *num && floor(*den) == *den && fabs(*num) < whole && *den < whole &&
        *num != 0 && *den != 0) {
        double by = common_divisor(fabs(*num), *den);
        *num /= by;
        *den /= by;
    }
    if (frexp(*den, &exponent) == 0.5 || fmod(*num, *den) == 0) {
        *num /= *den;
        *den = 1;
    }
}

void kf_el_sum_add(kf_els *e, kf_el_sum *s, kf_el x, double num, double den)
{
    const kf_el_node n = *kf_el_at(e, x);
    double c;

    if (kf_el_number(e, x, &c)) {
        s->number += c * num / den;
        return;
    }
    if (n.kind == KF_EL_ADD) {
        s->number += n.number * num / den;
        for (uint8_t i = 0; i < n.n_part; i++)
            kf_el_sum_add(e, s, n.part[i].el, n.part[i].num * num, n.part[i].den * den);
        return;
    }
    uint8_t at = 0;
    while (at < s->n && s->part[at].el != x)
        at++;
    if (at == KF_MAX_PARTS) {
        e->full = true;
        return;
    }
    if (at == s->n)
        s->part[s->n++] = (kf_el_part){x, 0, den};
    kf_el_part *p = &s->part[at];
    if (p->den != den) {
        num = num / den + p->num / p->den;
        p->num = 0;
        p->den = 1;
    }
    p->num += num;
    kf_el_quotient(&p->num, &p->den);
}

void kf_el_sort_parts(const kf_els *e, kf_el_part *part, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        kf_el_part p = part[i];
        uint32_t at = i;
        for (; at > 0 && kf_el_at(e, part[at - 1].el)->hash > kf_el_at(e, p.el)->hash; at--)
            part[at] = part[at - 1];
        part[at] = p;
    }
}

kf_el kf_el_sum_of(kf_els *e, kf_el_sum *s)
{
    uint8_t kept = 0;

    for (uint8_t i = 0; i < s->n; i++)
        if (s->part[i].num != 0)
            s->part[kept++] = s->part[i];
    if (!kept || !isfinite(s->number))
        return kf_el_num(e, s->number);
    if (kept == 1 && s->number == 0 && s->part[0].num == 1 && s->part[0].den == 1)
        return s->part[0].el;
    kf_el_sort_parts(e, s->part, kept);
    return kf_el_intern(
        e, (kf_el_node){
               .kind = KF_EL_ADD, .number = s->number + 0.0, .n_part = kept, .part = s->part});
}

kf_el kf_el_scaled(kf_els *e, kf_el x, double factor)
{
    kf_el_sum s = {0};

    kf_el_sum_add(e, &s, x, factor, 1);
    return kf_el_sum_of(e, &s);
}

/* ---- bound indices --------------------------------------------------------------------------- */

/* The atom of binders over |dim| that stand above |height| others: equal bodies get equal names. */
static kf_atom bound_atom(kf_els *e, kf_dim dim, uint32_t height)
{
    for (uint32_t a = 0; a < e->n_atoms; a++)
        if (e->bound_height[a] == height + 1 && kf_dim_eq(e->atom[a], dim))
            return a;
    kf_atom a = kf_el_new_atom(e, dim);
    e->bound_height[a] = height + 1;
    return a;
}

static kf_el bind_whole(kf_els *e, kf_el_kind kind, kf_atom atom, kf_el body)
{
    kf_atom bound = bound_atom(e, e->atom[atom], kf_el_at(e, body)->height);

    body = kf_el_rename(e, body, atom, bound);
    return kf_el_intern(e, (kf_el_node){.kind = kind, .var = bound, .n_arg = 1, .arg = {body}});
}

/* Terms of |x| that depend on the atom into |in|, the others into |out|. */
static void part_terms(kf_els *e, kf_el x, uint64_t bit, kf_el_sum *in, kf_el_sum *out)
{
    const kf_el_node n = *kf_el_at(e, x);

    if (n.kind != KF_EL_ADD) {
        kf_el_sum_add(e, n.free & bit ? in : out, x, 1, 1);
        return;
    }
    in->number += n.number;
    for (uint8_t i = 0; i < n.n_part; i++)
        kf_el_sum_add(e, kf_el_free(e, n.part[i].el) & bit ? in : out, n.part[i].el, n.part[i].num,
                      n.part[i].den);
}

/* A guard, which asks about a sum that does not depend on the atom, goes to |out|; conditions on
 * indices stay, so that what is divided and what it is divided by are hidden alike. */
static void part_conjuncts(kf_els *e, kf_el pred, uint64_t bit, kf_el_product *in,
                           kf_el_product *out)
{
    kf_el each[KF_MAX_PARTS];
    uint32_t n = kf_el_conjuncts(e, pred, each, KF_MAX_PARTS);

    for (uint32_t i = 0; i < n; i++) {
        bool guards = !(kf_el_free(e, each[i]) & bit) && kf_el_at(e, each[i])->height > 0;
        kf_el_product_mul(e, guards ? out : in, kf_el_indicator(e, each[i]), 1);
    }
}

kf_el kf_el_bind(kf_els *e, kf_el_kind kind, kf_atom atom, kf_el body)
{
    uint64_t bit = KF_ATOM_BIT(atom);
    kf_el_product p, in = KF_EL_ONE, out = KF_EL_ONE;

    if (kind == KF_EL_MAX)
        return bind_whole(e, kind, atom, body);
    kf_el_factor(e, body, &p);
    out.num = p.num;
    out.den = p.den;
    for (uint8_t i = 0; i < p.n; i++)
        kf_el_product_mul(e, kf_el_free(e, p.part[i].el) & bit ? &in : &out, p.part[i].el,
                          p.part[i].num);
    if (p.exponent != KF_NO_EL) {
        kf_el_sum terms_in = {0}, terms_out = {0};
        part_terms(e, p.exponent, bit, &terms_in, &terms_out);
        kf_el_product_mul(e, &in, kf_el_fn(e, KF_FN_exp, kf_el_sum_of(e, &terms_in), 0, 0), 1);
        kf_el_product_mul(e, &out, kf_el_fn(e, KF_FN_exp, kf_el_sum_of(e, &terms_out), 0, 0), 1);
    }
    if (p.mask != KF_NO_EL)
        part_conjuncts(e, p.mask, bit, &in, &out);
    kf_el_product_mul(e, &out, bind_whole(e, kind, atom, kf_el_product_of(e, &in)), 1);
    return kf_el_product_of(e, &out);
}

/* ---- replacing ------------------------------------------------------------------------------- */

typedef struct mapping {
    kf_els *e;
    kf_el_hook hook;
    void *user;
    kf_el *done; /* of the expressions that were there at the start: image + 1 */
    uint32_t n;
} mapping;

static kf_el map_one(mapping *m, kf_el x);

static kf_el map_inside(mapping *m, kf_el x)
{
    kf_els *e = m->e;
    const kf_el_node n = *kf_el_at(e, x);
    kf_el arg[KF_MAX_RANK] = {0};

    for (uint8_t i = 0; i < n.n_arg; i++)
        arg[i] = map_one(m, n.arg[i]);
    if (n.kind == KF_EL_LOAD)
        return kf_el_load(e, n.value, n.n_arg, arg);
    if (n.kind == KF_EL_FN)
        return kf_el_fn(e, n.fn, arg[0], arg[1], arg[2]);
    if (n.kind == KF_EL_SUM || n.kind == KF_EL_MAX)
        return kf_el_bind(e, n.kind, n.var, arg[0]);
    if (n.kind == KF_EL_ADD) {
        kf_el_sum s = {.number = n.number};
        for (uint8_t i = 0; i < n.n_part; i++)
            kf_el_sum_add(e, &s, map_one(m, n.part[i].el), n.part[i].num, n.part[i].den);
        return kf_el_sum_of(e, &s);
    }
    if (n.kind == KF_EL_MUL) {
        kf_el_product p = KF_EL_ONE;
        for (uint8_t i = 0; i < n.n_part; i++)
            kf_el_product_mul(e, &p, map_one(m, n.part[i].el), n.part[i].num);
        return kf_el_product_of(e, &p);
    }
    return x;
}

static kf_el map_one(mapping *m, kf_el x)
{
    if (x < m->n && m->done[x])
        return m->done[x] - 1;
    kf_el y = m->hook(m->e, x, m->user);
    if (y == KF_NO_EL)
        y = map_inside(m, x);
    if (x < m->n)
        m->done[x] = y + 1;
    return y;
}

kf_el kf_el_map(kf_els *e, kf_el x, kf_el_hook hook, void *user)
{
    mapping m = {e, hook, user, KF_NEW_N(e->arena, kf_el, e->nodes.len), e->nodes.len};

    return map_one(&m, x);
}

typedef struct renaming {
    kf_atom from, to;
} renaming;

static kf_el rename_hook(kf_els *e, kf_el x, void *user)
{
    const renaming *r = user;
    kf_el_node n = *kf_el_at(e, x);

    if (!(n.free & KF_ATOM_BIT(r->from)))
        return x;
    if (n.kind != KF_EL_INDEX)
        return KF_NO_EL;
    for (uint8_t i = 0; i < n.n_term; i++)
        if (n.term[i].atom == r->from)
            n.term[i].atom = r->to;
    return kf_el_index(e, n.start, n.n_term, n.term);
}

kf_el kf_el_rename(kf_els *e, kf_el x, kf_atom from, kf_atom to)
{
    return from == to ? x : kf_el_map(e, x, rename_hook, &(renaming){from, to});
}

/* ---- visiting -------------------------------------------------------------------------------- */

static void visit_one(const kf_els *e, kf_el x, kf_el_visitor visit, void *user, bool *seen)
{
    const kf_el_node *n = kf_el_at(e, x);

    if (seen[x])
        return;
    seen[x] = true;
    for (uint8_t i = 0; i < n->n_arg; i++)
        visit_one(e, n->arg[i], visit, user, seen);
    for (uint8_t i = 0; i < n->n_part; i++)
        visit_one(e, n->part[i].el, visit, user, seen);
    visit(e, x, user);
}

void kf_el_visit(const kf_els *e, kf_el x, kf_el_visitor visit, void *user)
{
    visit_one(e, x, visit, user, KF_NEW_N(e->arena, bool, e->nodes.len));
}
