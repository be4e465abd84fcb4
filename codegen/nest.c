/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/nest.h"

#include "base/check.h"

uint32_t kf_nest_flat(const kf_type *type, int fixed, uint32_t lanes)
{
    if (type->rank == 0)
        return 0;
    uint32_t flat = type->rank - 1u;
    int64_t size = type->dim[flat].size;
    if (!kf_dim_is_static(type->dim[flat]))
        return flat;
    while (size % lanes != 0 && (int)flat - 1 > fixed && flat > 0 &&
           kf_dim_is_static(type->dim[flat - 1]) && size < 64)
        size *= type->dim[--flat].size;
    return flat;
}

typedef struct walk {
    kf_pw *pw;
    const kf_nest *nest;
    uint32_t lanes;
    kf_coord ix[KF_MAX_RANK];
} walk;

/* Coordinates of the joined dims from their index. */
static void split(walk *w, kf_coord c)
{
    const kf_type *t = w->nest->type;
    for (uint32_t d = t->rank; d-- > w->nest->flat + 1;) {
        w->ix[d] = kf_coord_modi(w->pw->b, c, t->dim[d].size);
        c = kf_coord_divi(w->pw->b, c, t->dim[d].size);
    }
    w->ix[w->nest->flat] = c;
}

static kf_coord offset(walk *w, kf_coord c)
{
    const kf_type *t = w->nest->type;
    kf_coord at = kf_coord_const(w->pw->b, 0);
    for (uint32_t d = 0; d < w->nest->flat; d++) {
        at = kf_coord_scale(w->pw->b, at, kf_pw_dim(w->pw, t->dim[d]));
        at = kf_coord_add(w->pw->b, at, w->ix[d]);
    }
    for (uint32_t d = w->nest->flat; d < t->rank; d++)
        at = kf_coord_scale(w->pw->b, at, kf_pw_dim(w->pw, t->dim[d]));
    return kf_coord_add(w->pw->b, at, c);
}

static void prepare(walk *w, uint32_t known)
{
    kf_coord ix[KF_MAX_RANK];
    for (uint32_t d = 0; d < w->nest->type->rank; d++)
        ix[d] = d < known ? w->ix[d] : kf_coord_later();
    for (uint32_t i = 0; i < w->nest->n; i++)
        kf_pw_prepare(w->pw, w->nest->value[i], ix);
}

static int64_t common(int64_t divisor, uint32_t lanes)
{
    int64_t a = divisor, b = lanes;
    while (b) {
        const int64_t t = a % b;
        a = b;
        b = t;
    }
    return a;
}

static void columns(walk *w, kb_value lo, kb_value hi, uint32_t lanes, int64_t divisor)
{
    kb *b = w->pw->b;
    kb_loop l;
    kb_loop_begin(b, &l, lo, hi, lanes, 0, NULL);
    const uint32_t mark = kf_pw_mark(w->pw);
    kf_coord c = kf_coord_ramp(l.iv, lanes, common(divisor, lanes));
    split(w, c);
    w->nest->visit(w->pw, w->nest->user, w->ix, offset(w, c), lanes);
    kf_pw_release(w->pw, mark);
    kb_loop_end(b, &l, NULL);
}

static void flat_range(walk *w, kf_range *r)
{
    kb *b = w->pw->b;
    const kf_nest *n = w->nest;
    *r = n->range[n->flat];
    if (r->lo)
        return;
    r->lo = kb_i64(b, 0);
    r->divisor = KF_COORD_ANY;
    r->hi = kb_i64(b, 1);
    for (uint32_t d = n->flat; d < n->type->rank; d++)
        r->hi = kb_mul(b, r->hi, kf_pw_dim(w->pw, n->type->dim[d]));
}

static void inner(walk *w)
{
    kb *b = w->pw->b;
    kf_range r;
    flat_range(w, &r);
    if (w->lanes == 1) {
        columns(w, r.lo, r.hi, 1, r.divisor);
        return;
    }
    const uint32_t lanes = w->lanes;
    kb_value whole = kb_and(b, kb_sub(b, r.hi, r.lo), kb_i64(b, -(int64_t)lanes));
    whole = kb_add(b, r.lo, whole);
    columns(w, r.lo, whole, lanes, r.divisor);
    int64_t x = 0, y = 1;
    if (!(kb_is_const(whole, &x) && kb_is_const(r.hi, &y) && x == y))
        columns(w, whole, r.hi, 1, 1);
}

static void level(walk *w, uint32_t d)
{
    kb *b = w->pw->b;
    if (d == w->nest->flat) {
        inner(w);
        return;
    }
    const kf_range *r = &w->nest->range[d];
    kb_value lo = r->lo ? r->lo : kb_i64(b, 0);
    kb_value hi = r->lo ? r->hi : kf_pw_dim(w->pw, w->nest->type->dim[d]);
    kb_loop l;
    kb_loop_begin(b, &l, lo, hi, 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(w->pw);
    w->ix[d] = kf_coord_uniform(l.iv, 1);
    prepare(w, d + 1);
    level(w, d + 1);
    kf_pw_release(w->pw, mark);
    kb_loop_end(b, &l, NULL);
}

/* Vectors if every value can be had at the coordinates of a full vector. */
static uint32_t choose_lanes(kf_pw *pw, const kf_nest *nest)
{
    const uint32_t lanes = kb_lanes(pw->b);
    kf_pw dry = kf_pw_make(pw->arena, NULL, pw->g, NULL);
    walk w = {.pw = &dry, .nest = nest};
    for (uint32_t d = 0; d < nest->flat; d++)
        w.ix[d] = kf_coord_uniform(NULL, 1);
    const kf_range *r = &nest->range[nest->flat];
    split(&w, kf_coord_ramp(NULL, lanes, r->lo ? common(r->divisor, lanes) : lanes));
    for (uint32_t i = 0; i < nest->n; i++)
        if (!kf_pw_feasible(pw, nest->value[i], w.ix))
            return 1;
    return lanes;
}

static void emit_nest(kf_pw *pw, const kf_nest *nest)
{
    walk w = {.pw = pw, .nest = nest};
    const uint32_t mark = kf_pw_mark(pw);
    if (nest->type->rank == 0) {
        nest->visit(pw, nest->user, NULL, kf_coord_const(pw->b, 0), 1);
    } else {
        w.lanes = choose_lanes(pw, nest);
        prepare(&w, 0);
        level(&w, 0);
    }
    kf_pw_release(pw, mark);
}

/* ---- storing --------------------------------------------------------------------------------- */

typedef struct store {
    const kf_nest *nest;
    const kb_value *dst;
} store;

/* All values first, then all stores: one may replace what another reads at the same place. */
static void store_visit(kf_pw *pw, void *user, const kf_coord *ix, kf_coord at, uint32_t lanes)
{
    const store *s = user;
    kb_value v[KF_MAX_RESULTS];
    (void)lanes;
    for (uint32_t i = 0; i < s->nest->n; i++)
        v[i] = kf_pw_value(pw, s->nest->value[i], ix);
    for (uint32_t i = 0; i < s->nest->n; i++) {
        const kf_dtype dtype = kf_value_type(pw->g, s->nest->value[i])->dtype;
        kf_pw_store(pw, dtype, v[i], dtype, s->dst[i], at);
    }
}

void kf_nest_store(kf_pw *pw, const kf_nest *nest, const kb_value *dst)
{
    KF_ASSERT(nest->n <= KF_MAX_RESULTS, "results of one region");
    kf_nest copy = *nest;
    store s = {.nest = &copy, .dst = dst};
    copy.user = &s;
    copy.visit = store_visit;
    emit_nest(pw, &copy);
}
