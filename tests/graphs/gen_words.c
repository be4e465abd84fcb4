/* SPDX-License-Identifier: Apache-2.0 */
/* gen_words - scalar functions: their domains, sizes and jumps are found by trying them. */
#include "ir/shape.h"
#include "tests/graphs/gen.h"

#include <math.h>
#include <string.h>

/** Values beyond this would drown the others of a sum. */
#define TAME 60.0

/* ---- what a function takes ------------------------------------------------------------------- */

static uint32_t find_preds(kf_fn fn)
{
    kf_arena *a = kf_arena_create("probe");
    kf_module *m = kf_module_create(a, KF_STR("probe"));
    kf_graph *g = kf_graph_create(m);
    kf_value of[] = {kf_graph_add_arg(g, kf_type_scalar(KF_DTYPE_f32), KF_STR("x"), KF_NO_LOC),
                     kf_graph_add_arg(g, kf_type_scalar(KF_DTYPE_pred), KF_STR("p"), KF_NO_LOC)};
    kf_type out[KF_MAX_RESULTS];
    uint32_t found = UINT32_MAX;
    uint8_t n_out;

    for (uint32_t bits = 0; bits < 8 && found == UINT32_MAX; bits++) {
        kf_value in[] = {of[bits & 1], of[bits >> 1 & 1], of[bits >> 2 & 1]};
        kf_sbuf why = {.arena = a};
        if (kf_shape_infer(g, (kf_op)fn, NULL, NULL, kf_fn_infos[fn].arity, in, NULL, out, &n_out,
                           &why))
            found = bits;
    }
    kf_arena_destroy(a);
    return found;
}

uint32_t gen_takes_preds(kf_fn fn)
{
    static uint32_t known[KF_FN_COUNT]; /* + 1 */

    if (!known[fn])
        known[fn] = find_preds(fn) + 1;
    return known[fn] - 1;
}

/* ---- trying ---------------------------------------------------------------------------------- */

enum { STEPS = 7, GRID = STEPS + 1 };

/* Evenly spread over the range, then 0 if it lies inside: a pole there must not be missed. */
static double at(range r, uint32_t i)
{
    if (i == STEPS)
        return r.lo < 0 && r.hi > 0 ? 0 : r.lo;
    return r.lo + (r.hi - r.lo) * i / (STEPS - 1);
}

/* The range of fn over a box; |exact| tells whether all values are finite. */
static range try_box(kf_fn fn, const range *arg)
{
    uint32_t arity = kf_fn_infos[fn].arity;
    range r = {INFINITY, -INFINITY, true};

    for (uint32_t a = 0; a < GRID; a++)
        for (uint32_t b = 0; b < (arity > 1 ? GRID : 1); b++)
            for (uint32_t c = 0; c < (arity > 2 ? GRID : 1); c++) {
                double v = kf_fn_eval(fn, at(arg[0], a), arity > 1 ? at(arg[1], b) : 0,
                                      arity > 2 ? at(arg[2], c) : 0);
                r.exact &= isfinite(v) != 0;
                r.lo = fmin(r.lo, v);
                r.hi = fmax(r.hi, v);
            }
    return r;
}

/* A step of a bounded height at a whole or half number. */
static bool jumps(kf_fn fn, uint32_t operand)
{
    for (double t = -3; t <= 3; t += 0.5) {
        double below[3] = {1.25, 1.25, 1.25}, above[3] = {1.25, 1.25, 1.25};
        below[operand] = t - 1e-9;
        above[operand] = t + 1e-9;
        double d = fabs(kf_fn_eval(fn, above[0], above[1], above[2]) -
                        kf_fn_eval(fn, below[0], below[1], below[2]));
        if (d > 1e-3 && d < 100)
            return true;
    }
    return false;
}

range gen_wrapped(range r, gen_wrap w)
{
    if (w == WRAP_TANH || w == WRAP_TANH_ABS)
        r = (range){tanh(r.lo), tanh(r.hi), false};
    if (w == WRAP_ABS || w == WRAP_TANH_ABS) {
        double most = fmax(fabs(r.lo), fabs(r.hi));
        r = (range){0.5, 0.5 + most, r.exact};
    }
    return r;
}

/* All ways to wrap up to three operands, mildest first. */
static const gen_wrap ways[][3] = {
    {WRAP_NONE, WRAP_NONE, WRAP_NONE},     {WRAP_NONE, WRAP_ABS, WRAP_NONE},
    {WRAP_ABS, WRAP_NONE, WRAP_NONE},      {WRAP_ABS, WRAP_ABS, WRAP_NONE},
    {WRAP_TANH, WRAP_TANH, WRAP_TANH},     {WRAP_TANH, WRAP_TANH_ABS, WRAP_TANH},
    {WRAP_TANH_ABS, WRAP_TANH, WRAP_TANH}, {WRAP_TANH_ABS, WRAP_TANH_ABS, WRAP_TANH},
};

static bool acceptable(kf_fn fn, const range *arg, uint32_t preds, bool guard)
{
    range r = try_box(fn, arg);

    for (uint32_t i = 0; i < kf_fn_infos[fn].arity; i++)
        if (!(preds >> i & 1) && !arg[i].exact &&
            (kf_fn_infos[fn].result == KF_FN_RESULT_pred || jumps(fn, i)))
            return false;
    /* Poles stay guarded: beside one, the rounding of a form is enlarged by chance. */
    if (!guard && !r.exact && isfinite(r.lo) && isfinite(r.hi))
        return true;
    return r.exact && r.hi - r.lo < 2 * TAME && fmax(fabs(r.lo), fabs(r.hi)) < TAME;
}

gen_call gen_plan_call(kf_fn fn, const range *arg, bool guard)
{
    uint32_t preds = gen_takes_preds(fn), arity = kf_fn_infos[fn].arity;
    gen_call c = {0};

    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        range r[3];
        for (uint32_t i = 0; i < arity; i++) {
            c.wrap[i] = preds >> i & 1 ? WRAP_NONE : ways[w][i];
            r[i] = preds >> i & 1 ? (range){0, 1, true} : gen_wrapped(arg[i], c.wrap[i]);
        }
        if (!acceptable(fn, r, preds, guard))
            continue;
        c.ok = true;
        c.result = try_box(fn, r);
        if (!c.result.exact) /* left to the search for weights */
            c.result = (range){-4, 4, false};
        for (uint32_t i = 0; i < arity; i++)
            c.result.exact &= r[i].exact;
        /* A sum or product of exact numbers is rounded. */
        c.result.exact &= kf_fn_infos[fn].result == KF_FN_RESULT_pred || arity == 1;
        return c;
    }
    return c;
}

/* ---- on values of the graph ------------------------------------------------------------------ */

static kf_value add_word(gen *g, kf_fn fn, uint32_t n, const kf_value *in, range r)
{
    return gen_node(g, (kf_op)fn, NULL, n, in, r);
}

static kf_value wrap(gen *g, kf_value v, gen_wrap w)
{
    if (w == WRAP_TANH || w == WRAP_TANH_ABS)
        v = add_word(g, KF_FN_tanh, 1, &v, gen_wrapped(g->range[v], WRAP_TANH));
    if (w == WRAP_ABS || w == WRAP_TANH_ABS) {
        range r = gen_wrapped(g->range[v], WRAP_ABS);
        v = add_word(g, KF_FN_abs, 1, &v, (range){0, r.hi - 0.5, r.exact});
        v = add_word(g, KF_FN_add, 2, (kf_value[]){v, gen_const(g, 0.5)}, r);
    }
    return v;
}

kf_value gen_fn(gen *g, kf_fn fn, const kf_value *in)
{
    uint32_t arity = kf_fn_infos[fn].arity;
    kf_value v[3];
    range r[3] = {{0}};

    for (uint32_t i = 0; i < arity; i++)
        r[i] = g->range[in[i]];
    gen_call c = gen_plan_call(fn, r, g->guard);
    if (!c.ok)
        return in[0];
    for (uint32_t i = 0; i < arity; i++)
        v[i] = wrap(g, in[i], c.wrap[i]);
    return add_word(g, fn, arity, v, c.result);
}

/* What may stand beside |x| in an elementwise op. */
static kf_value partner(gen *g, kf_value x, bool exact)
{
    const kf_type t = *gen_type(g, x);
    kf_dim last = t.rank ? t.dim[t.rank - 1] : kf_dim_static(1);
    bool columns = t.rank >= 2 && !last.sym;

    switch (gen_pick(g, exact ? 4 : 6)) {
    case 0:
        if (columns && t.rank <= 4) {
            kf_attr_axis *a = KF_ATTR_NEW(g->arena, axis);
            kf_dim dims[KF_MAX_RANK];
            for (uint8_t i = 0; i < t.rank; i++)
                dims[i] = i + 1 == t.rank ? last : kf_dim_static(1);
            kf_type it = kf_type_tensor(KF_DTYPE_i32, t.rank, dims);
            a->axis = t.rank - 1;
            kf_value v = kf_node_add(g->g, KF_OP_iota, a, 0, NULL, &it, KF_NO_LOC);
            g->range[v] = (range){0, (double)last.size - 1, true};
            return v;
        }
        return gen_const(g, gen_pick(g, 2) ? 1.5 : -0.75);
    case 1:
        return columns ? gen_vector(g, last.size) : gen_const(g, 0.25);
    case 2:
        if (t.rank == 2 && kf_dim_eq(t.dim[0], kf_dim_sym(KF_SYM_N)) && g->pos != KF_NO_VALUE)
            return gen_reshape(g, g->pos, 2, (kf_dim[]){t.dim[0], kf_dim_static(1)});
        return gen_const(g, 2);
    case 3:
        return gen_const(g, (double)(1 + gen_pick(g, 7)) / 2);
    default:
        return gen_like(g, x);
    }
}

kf_value gen_pred(gen *g, kf_value like)
{
    kf_fn fn;
    kf_value in[2];

    do
        fn = (kf_fn)gen_pick(g, KF_FN_COUNT);
    while (kf_fn_infos[fn].result != KF_FN_RESULT_pred);
    for (uint32_t i = 0; i < kf_fn_infos[fn].arity; i++) {
        in[i] = gen_takes_preds(fn) >> i & 1 ? gen_pred(g, like) : partner(g, like, true);
        if (!g->range[in[i]].exact)
            in[i] = gen_const(g, 0.5);
    }
    return gen_node(g, (kf_op)fn, NULL, kf_fn_infos[fn].arity, in, (range){0, 1, true});
}

kf_value gen_word(gen *g, kf_value x)
{
    kf_fn fn = (kf_fn)gen_pick(g, KF_FN_COUNT);
    uint32_t arity = kf_fn_infos[fn].arity, preds = gen_takes_preds(fn);
    kf_value in[3];

    if (kf_fn_infos[fn].result == KF_FN_RESULT_pred) { /* as a number: select(p, x, y) */
        in[0] = gen_pred(g, x);
        in[1] = x;
        in[2] = partner(g, x, false);
        return gen_fn(g, KF_FN_select, in);
    }
    uint32_t place = gen_pick(g, arity);
    while (preds >> place & 1)
        place = (place + 1) % arity;
    for (uint32_t i = 0; i < arity; i++)
        in[i] = preds >> i & 1 ? gen_pred(g, x) : i == place ? x : partner(g, x, false);
    kf_value v = gen_fn(g, fn, in);
    return gen_type(g, v)->dtype == KF_DTYPE_f32 ? v : x;
}
