/* SPDX-License-Identifier: Apache-2.0 */
/* eval_map - elementwise ops and slot bodies over vectors: the eval column of fn.def as loops. */
#include "ir/eval_impl.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64 };

#define FN(name, arity, result, traits, eval, emit, oracle, summary)                               \
    static void loop_##name(double *out, kf_eval_vec x, kf_eval_vec y, kf_eval_vec z, int64_t n)   \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            double a = x.ptr[i * x.stride], b = y.ptr[i * y.stride], c = z.ptr[i * z.stride];      \
            (void)a, (void)b, (void)c;                                                             \
            out[i] = eval;                                                                         \
        }                                                                                          \
    }
#include "ir/fn.def"
#undef FN

static void (*const loops[KF_FN_COUNT])(double *, kf_eval_vec, kf_eval_vec, kf_eval_vec,
                                        int64_t) = {
#define FN(name, arity, result, traits, eval, emit, oracle, summary) loop_##name,
#include "ir/fn.def"
#undef FN
};

static const double zero = 0;

/* ---- elementwise ops ------------------------------------------------------------------------- */

/* Element strides of |t| seen with the rank and dims of |out|; 0 where it is broadcast. */
static void broadcast_strides(const kf_tensor *t, const kf_tensor *out, int64_t *stride)
{
    int64_t step = 1;
    for (int d = out->rank - 1; d >= 0; d--) {
        int i = d - (out->rank - t->rank);
        stride[d] = i < 0 || t->dim[i] == 1 ? 0 : step;
        step *= i < 0 ? 1 : t->dim[i];
    }
}

bool kf_eval_elementwise(kf_eval_call *c)
{
    kf_tensor *out = &c->out[0];
    int64_t stride[3][KF_MAX_RANK] = {{0}}, at[3] = {0}, index[KF_MAX_RANK] = {0};
    kf_eval_vec x[3] = {{&zero, 0}, {&zero, 0}, {&zero, 0}};
    bool flat = true; /* every operand is a scalar or has the result's dims: one long row */
    for (uint32_t k = 0; k < c->n_in; k++) {
        broadcast_strides(c->in[k], out, stride[k]);
        flat &= c->in[k]->n == 1 || c->in[k]->n == out->n;
    }
    int64_t row = flat || !out->rank ? out->n : out->dim[out->rank - 1];
    for (uint32_t k = 0; k < c->n_in; k++)
        x[k].stride = flat ? c->in[k]->n != 1 || out->n == 1 : stride[k][out->rank - 1];
    for (int64_t done = 0; done < out->n; done += row) {
        for (uint32_t k = 0; k < c->n_in; k++)
            x[k].ptr = c->in[k]->data + at[k];
        loops[c->node->op](out->data + done, x[0], x[1], x[2], row);
        for (int d = out->rank - 2; d >= 0 && !flat; d--) {
            for (uint32_t k = 0; k < c->n_in; k++)
                at[k] += stride[k][d];
            if (++index[d] < out->dim[d])
                break;
            index[d] = 0;
            for (uint32_t k = 0; k < c->n_in; k++)
                at[k] -= stride[k][d] * out->dim[d];
        }
    }
    return true;
}

/* ---- slots ----------------------------------------------------------------------------------- */

struct kf_eval_slot {
    const kf_slot *s;
    const kf_tensor *const *captures;
    double *scratch; /* BLOCK numbers per instruction */
    kf_eval_vec *value;
};

kf_eval_slot *kf_eval_slot_create(kf_arena *arena, const kf_slot *s,
                                  const kf_tensor *const *captures)
{
    kf_eval_slot *e = KF_NEW(arena, kf_eval_slot);
    e->s = s;
    e->captures = captures;
    e->scratch = KF_NEW_N(arena, double, (size_t)s->n_insts *BLOCK);
    e->value = KF_NEW_N(arena, kf_eval_vec, s->n_insts);
    return e;
}

static bool load(const kf_eval_slot *e, const kf_slot_inst *inst, int64_t n, double *out)
{
    const kf_tensor *t = e->captures[inst->index];
    if (t->rank != inst->n_args)
        return false;
    for (int64_t i = 0; i < n; i++) {
        int64_t offset = 0;
        for (uint8_t a = 0; a < inst->n_args; a++) {
            const kf_eval_vec *v = &e->value[inst->arg[a]];
            double at = v->ptr[i * v->stride];
            if (!(at >= 0 && at < (double)t->dim[a]))
                return false;
            offset = offset * t->dim[a] + (int64_t)at;
        }
        out[i] = t->data[offset];
    }
    return true;
}

static bool run_block(kf_eval_slot *e, const kf_eval_vec *params, int64_t n)
{
    for (uint32_t i = 0; i < e->s->n_insts; i++) {
        const kf_slot_inst *inst = &e->s->inst[i];
        double *out = e->scratch + (size_t)i * BLOCK;
        kf_eval_vec x[3] = {{&zero, 0}, {&zero, 0}, {&zero, 0}};
        bool varies = false;
        for (uint8_t a = 0; a < inst->n_args; a++) {
            x[a] = e->value[inst->arg[a]];
            varies |= x[a].stride != 0;
        }
        e->value[i] = (kf_eval_vec){out, varies};
        switch (inst->op) {
        case KF_SLOT_CONST:
            e->value[i].ptr = &inst->value;
            break;
        case KF_SLOT_PARAM:
            e->value[i] = params[inst->index];
            break;
        case KF_SLOT_FN:
            loops[inst->fn](out, x[0], x[1], x[2], varies ? n : 1);
            break;
        case KF_SLOT_LOAD:
            if (!load(e, inst, varies ? n : 1, out))
                return false;
            break;
        }
    }
    return true;
}

bool kf_eval_slot_run(kf_eval_slot *e, const kf_eval_vec *params, int64_t n, double *out)
{
    kf_eval_vec p[KF_SLOT_MAX_PARAMS];
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t count = n - first < BLOCK ? n - first : BLOCK;
        for (uint8_t k = 0; k < e->s->n_params; k++)
            p[k] = (kf_eval_vec){params[k].ptr + first * params[k].stride, params[k].stride};
        if (!run_block(e, p, count))
            return false;
        kf_eval_vec r = e->value[e->s->n_insts - 1];
        for (int64_t i = 0; i < count; i++)
            out[first + i] = r.ptr[i * r.stride];
    }
    return true;
}
