/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/fn_emit.h"

#include "base/check.h"
#include "codegen/cpu/vmath.h"

kb_value kf_emit_pred(kb *b, kb_value v)
{
    return kb_is_pred(v) ? v : kb_fcmp(b, KB_NE, v, kb_f32(b, kb_lanes_of(v), 0.0f));
}

kb_value kf_emit_num(kb *b, kb_value v)
{
    const uint32_t lanes = kb_lanes_of(v);
    return kb_is_pred(v) ? kb_select(b, v, kb_f32(b, lanes, 1.0f), kb_f32(b, lanes, 0.0f)) : v;
}

/* ---- one function per row of fn.def, named by its emit column -------------------------------- */

#define LIKE(c) kb_f32(b, kb_lanes_of(x), (c))
#define UNUSED  (void)y, (void)z
#define EMIT(name, ...)                                                                            \
    static kb_value emit_##name(kb *b, kb_value x, kb_value y, kb_value z)                         \
    {                                                                                              \
        UNUSED;                                                                                    \
        __VA_ARGS__                                                                                \
    }

EMIT(add, return kb_fadd(b, x, y);)
EMIT(sub, return kb_fsub(b, x, y);)
EMIT(mul, return kb_fmul(b, x, y);)
EMIT(div, return kb_fdiv(b, x, y);)
EMIT(min, return kb_minnum(b, x, y);)
EMIT(max, return kb_maxnum(b, x, y);)
EMIT(pow, return kv_pow(b, x, y);)
EMIT(neg, return kb_fneg(b, x);)
EMIT(abs, return kb_fabs(b, x);)
EMIT(square, return kb_fmul(b, x, x);)
EMIT(recip, return kb_fdiv(b, LIKE(1.0f), x);)
EMIT(floor, return kb_floor(b, x);)
EMIT(exp, return kv_exp(b, x);)
EMIT(log, return kv_log(b, x);)
EMIT(sqrt, return kb_sqrt(b, x);)
EMIT(rsqrt, return kv_rsqrt(b, x);)
EMIT(sin, return kv_sin(b, x);)
EMIT(cos, return kv_cos(b, x);)
EMIT(tanh, return kv_tanh(b, x);)
EMIT(erf, return kv_erf(b, x);)
EMIT(sigmoid, return kv_sigmoid(b, x);)
EMIT(silu, return kb_fmul(b, x, kv_sigmoid(b, x));)
EMIT(gelu_quick, return kb_fmul(b, x, kv_sigmoid(b, kb_fmul(b, x, LIKE(1.702f))));)
EMIT(lt, return kb_fcmp(b, KB_LT, x, y);)
EMIT(le, return kb_fcmp(b, KB_LE, x, y);)
EMIT(gt, return kb_fcmp(b, KB_GT, x, y);)
EMIT(ge, return kb_fcmp(b, KB_GE, x, y);)
EMIT(eq, return kb_fcmp(b, KB_EQ, x, y);)
EMIT(ne, return kb_fcmp(b, KB_NE, x, y);)
EMIT(and, return kb_and(b, x, y);)
EMIT(or, return kb_or(b, x, y);)
EMIT(not, return kb_xor(b, x, kb_int(b, KB_I1, kb_lanes_of(x), 1));)
EMIT(select, return kb_select(b, x, y, z);)

EMIT(softplus, kb_value tail = kv_log1p(b, kv_exp(b, kb_fneg(b, kb_fabs(b, x))));
     return kb_fadd(b, kb_fmax(b, x, LIKE(0.0f)), tail);)

/* x where it is positive or NaN. */
EMIT(relu, return kb_select(b, kb_fcmp(b, KB_LE, x, LIKE(0.0f)), LIKE(0.0f), x);)
EMIT(relu2, kb_value r = emit_relu(b, x, y, z); return kb_fmul(b, r, r);)

EMIT(gelu, kb_value e = kv_erf(b, kb_fmul(b, x, LIKE(0.70710678118654752f)));
     return kb_fmul(b, kb_fmul(b, x, LIKE(0.5f)), kb_fadd(b, e, LIKE(1.0f)));)

EMIT(gelu_tanh, kb_value cube = kb_fmul(b, kb_fmul(b, x, x), x);
     kb_value inner = kb_fma(b, cube, LIKE(0.044715f), x);
     kb_value t = kv_tanh(b, kb_fmul(b, inner, LIKE(0.79788456080286535588f)));
     return kb_fmul(b, kb_fmul(b, x, LIKE(0.5f)), kb_fadd(b, t, LIKE(1.0f)));)

typedef kb_value (*emitter)(kb *b, kb_value x, kb_value y, kb_value z);

static const emitter emitters[KF_FN_COUNT] = {
#define FN(name, arity, result, traits, eval, emit, summary) [KF_FN_##name] = emit_##emit,
#include "ir/fn.def"
#undef FN
};

/* What operand |i| has to be. */
static bool wants_pred(kf_fn fn, uint32_t i)
{
    return fn == KF_FN_and || fn == KF_FN_or || fn == KF_FN_not || (fn == KF_FN_select && i == 0);
}

kb_value kf_emit_fn(kb *b, kf_fn fn, const kb_value *args)
{
    const uint32_t n = kf_fn_infos[fn].arity;
    kb_value x[3] = {NULL, NULL, NULL};
    uint32_t lanes = 1;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = wants_pred(fn, i) ? kf_emit_pred(b, args[i]) : kf_emit_num(b, args[i]);
        lanes = kb_lanes_of(x[i]) > lanes ? kb_lanes_of(x[i]) : lanes;
    }
    for (uint32_t i = 0; i < n; i++)
        if (kb_lanes_of(x[i]) < lanes)
            x[i] = kb_splat(b, x[i], lanes);
    return emitters[fn](b, x[0], x[1], x[2]);
}

/* ---- slots ----------------------------------------------------------------------------------- */

static kb_value apply(kb *b, const kf_slot_inst *inst, const kb_value *values)
{
    kb_value args[KF_SLOT_MAX_ARGS];
    for (uint32_t i = 0; i < inst->n_args; i++)
        args[i] = values[inst->arg[i]];
    return kf_emit_fn(b, inst->fn, args);
}

kb_value kf_emit_slot(kb *b, const kf_slot *s, const kb_value *params, kf_slot_emit_load load,
                      void *user)
{
    kb_value values[KF_SLOT_MAX_INSTS];
    for (uint32_t i = 0; i < s->n_insts; i++) {
        const kf_slot_inst *inst = &s->inst[i];
        switch (inst->op) {
        case KF_SLOT_CONST:
            values[i] = kb_f32(b, 1, (float)inst->value);
            break;
        case KF_SLOT_PARAM:
            values[i] = params[inst->index];
            break;
        case KF_SLOT_FN:
            values[i] = apply(b, inst, values);
            break;
        case KF_SLOT_LOAD:
            values[i] = load(user, s, inst, values);
            break;
        }
    }
    return values[s->n_insts - 1];
}
