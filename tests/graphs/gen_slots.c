/* SPDX-License-Identifier: Apache-2.0 */
/* gen_slots - random scalar bodies. */
#include "tests/graphs/gen.h"

#include <math.h>

typedef struct maker {
    gen *g;
    const gen_slot *s;
    kf_slot_builder *b;
} maker;

typedef struct expr {
    uint32_t inst;
    range r;
} expr;

static expr constant(maker *k, double v)
{
    return (expr){kf_slot_const(k->b, v), {v, v, true}};
}

static expr parameter(maker *k, uint32_t i)
{
    return (expr){kf_slot_param(k->b, i), k->s->param[i]};
}

/* A number that no form of the module rounds: a position, a column, a head, a number. */
static expr exact_leaf(maker *k)
{
    uint32_t start = gen_pick(k->g, k->s->n_params + 1u);

    for (uint32_t i = start; i < k->s->n_params; i++)
        if (k->s->param[i].exact)
            return parameter(k, i);
    return constant(k, (double)gen_pick(k->g, 9) / 2 - 1);
}

/* $capture[min(index, length - 1)]; the index is a parameter that counts something. */
static expr load(maker *k)
{
    const gen_slot *s = k->s;

    for (uint32_t i = s->n_params; i-- > 0;) {
        range r = s->param[i];
        if (!r.exact || r.lo < 0 || r.hi != floor(r.hi))
            continue;
        uint32_t at = kf_slot_param(k->b, i);
        if (r.hi >= (double)s->length)
            at = kf_slot_fn(k->b, KF_FN_min, at, kf_slot_const(k->b, (double)s->length - 1), 0);
        uint32_t capture = gen_pick(k->g, s->n_captures);
        return (expr){kf_slot_load(k->b, capture, &at, 1), {0.5, 1.5, true}};
    }
    return constant(k, 1);
}

static expr leaf(maker *k)
{
    uint32_t what = gen_pick(k->g, 10);

    if (what < 2 && k->s->n_captures)
        return load(k);
    if (what < 8)
        return parameter(k, gen_pick(k->g, k->s->n_params));
    return constant(k, (double)(1 + gen_pick(k->g, 8)) / 4);
}

static expr wrapped(maker *k, expr e, gen_wrap w)
{
    range r = gen_wrapped(e.r, w);

    if (w == WRAP_TANH || w == WRAP_TANH_ABS)
        e.inst = kf_slot_fn(k->b, KF_FN_tanh, e.inst, 0, 0);
    if (w == WRAP_ABS || w == WRAP_TANH_ABS)
        e.inst = kf_slot_fn(k->b, KF_FN_add, kf_slot_fn(k->b, KF_FN_abs, e.inst, 0, 0),
                            kf_slot_const(k->b, 0.5), 0);
    return (expr){e.inst, r};
}

static expr call(maker *k, kf_fn fn, const expr *in)
{
    expr v[3] = {{0}};
    range r[3] = {{0}};

    for (uint32_t i = 0; i < kf_fn_infos[fn].arity; i++)
        r[i] = in[i].r;
    gen_call c = gen_plan_call(fn, r, true);
    if (!c.ok)
        return in[0];
    for (uint32_t i = 0; i < kf_fn_infos[fn].arity; i++)
        v[i] = wrapped(k, in[i], c.wrap[i]);
    return (expr){kf_slot_fn(k->b, fn, v[0].inst, v[1].inst, v[2].inst), c.result};
}

static expr predicate(maker *k)
{
    kf_fn fn;
    expr in[3] = {{0}};

    do
        fn = (kf_fn)gen_pick(k->g, KF_FN_COUNT);
    while (kf_fn_infos[fn].result != KF_FN_RESULT_pred);
    for (uint32_t i = 0; i < kf_fn_infos[fn].arity; i++)
        in[i] = gen_takes_preds(fn) >> i & 1 ? predicate(k) : exact_leaf(k);
    return (expr){kf_slot_fn(k->b, fn, in[0].inst, in[1].inst, in[2].inst), {0, 1, true}};
}

static expr number(maker *k, uint32_t depth)
{
    if (depth == 0)
        return leaf(k);
    kf_fn fn;
    do
        fn = (kf_fn)gen_pick(k->g, KF_FN_COUNT);
    while (kf_fn_infos[fn].result == KF_FN_RESULT_pred);
    expr in[3] = {{0}};
    for (uint32_t i = 0; i < kf_fn_infos[fn].arity; i++)
        in[i] = gen_takes_preds(fn) >> i & 1 ? predicate(k) : number(k, depth - 1);
    if (gen_takes_preds(fn) & 1 && kf_fn_infos[fn].arity == 1)
        return in[0];
    return call(k, fn, in);
}

const kf_slot *gen_slot_make(gen *g, const gen_slot *s, range *out)
{
    maker k = {g, s, kf_slot_builder_create(g->arena, s->n_params, s->name, s->n_captures)};
    expr e;

    if (s->pred) {
        e = predicate(&k);
    } else {
        e = number(&k, s->depth);
        if (gen_chance(g, 70))
            e = call(&k, KF_FN_add, (expr[]){e, parameter(&k, s->first)});
        if (fmax(fabs(e.r.lo), fabs(e.r.hi)) > 20)
            e = wrapped(&k, e, WRAP_TANH);
    }
    *out = e.r;
    return kf_slot_finish(k.b, e.inst);
}
