/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/fn_emit.h"

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

/* ---- the verbs of fn.def's emit column ------------------------------------------------------- */

static kb_value square(kb *kb_, kb_value v)
{
    return kb_fmul(kb_, v, v);
}

static kb_value cube(kb *kb_, kb_value v)
{
    return kb_fmul(kb_, kb_fmul(kb_, v, v), v);
}

/* clang-format off */
#define NUM(v)          kb_f32(kb_, kb_lanes_of(a), (float)(v))
#define ADD(p, q)       kb_fadd(kb_, p, q)
#define SUB(p, q)       kb_fsub(kb_, p, q)
#define MUL(p, q)       kb_fmul(kb_, p, q)
#define DIV(p, q)       kb_fdiv(kb_, p, q)
#define FMA(p, q, r)    kb_fma(kb_, p, q, r)
#define MIN(p, q)       kb_minnum(kb_, p, q)
#define MAX(p, q)       kb_maxnum(kb_, p, q)
#define MAX0(p)         kb_fmax(kb_, p, NUM(0))
#define POW(p, q)       kv_pow(kb_, p, q)
#define NEG(p)          kb_fneg(kb_, p)
#define ABS(p)          kb_fabs(kb_, p)
#define SQUARE(p)       square(kb_, p)
#define CUBE(p)         cube(kb_, p)
#define FLOOR(p)        kb_floor(kb_, p)
#define EXP(p)          kv_exp(kb_, p)
#define LOG(p)          kv_log(kb_, p)
#define LOG1P(p)        kv_log1p(kb_, p)
#define SQRT(p)         kb_sqrt(kb_, p)
#define RSQRT(p)        kv_rsqrt(kb_, p)
#define SIN(p)          kv_sin(kb_, p)
#define COS(p)          kv_cos(kb_, p)
#define TANH(p)         kv_tanh(kb_, p)
#define ERF(p)          kv_erf(kb_, p)
#define SIGMOID(p)      kv_sigmoid(kb_, p)
#define LT(p, q)        kb_fcmp(kb_, KB_LT, p, q)
#define LE(p, q)        kb_fcmp(kb_, KB_LE, p, q)
#define GT(p, q)        kb_fcmp(kb_, KB_GT, p, q)
#define GE(p, q)        kb_fcmp(kb_, KB_GE, p, q)
#define EQ(p, q)        kb_fcmp(kb_, KB_EQ, p, q)
#define NE(p, q)        kb_fcmp(kb_, KB_NE, p, q)
#define AND(p, q)       kb_and(kb_, p, q)
#define OR(p, q)        kb_or(kb_, p, q)
#define NOT(p)          kb_xor(kb_, p, kb_int(kb_, KB_I1, kb_lanes_of(p), 1))
#define SELECT(p, q, r) kb_select(kb_, p, q, r)
#define ROW(name, p)    emit_##name(kb_, p, NULL, NULL)
/* clang-format on */

/* ---- one function per row of fn.def ---------------------------------------------------------- */

#define FN(name, arity, result, traits, eval, emit, oracle, summary)                               \
    static kb_value emit_##name(kb *kb_, kb_value a, kb_value b, kb_value c);
#include "ir/fn.def"
#undef FN

#define FN(name, arity, result, traits, eval, emit, oracle, summary)                               \
    static kb_value emit_##name(kb *kb_, kb_value a, kb_value b, kb_value c)                       \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        return emit;                                                                               \
    }
#include "ir/fn.def"
#undef FN

typedef kb_value (*emitter)(kb *b, kb_value x, kb_value y, kb_value z);

static const emitter emitters[KF_FN_COUNT] = {
#define FN(name, arity, result, traits, eval, emit, oracle, summary) [KF_FN_##name] = emit_##name,
#include "ir/fn.def"
#undef FN
};

kb_value kf_emit_fn(kb *b, kf_fn fn, const kb_value *args)
{
    const uint32_t n = kf_fn_infos[fn].arity;
    kb_value x[3] = {NULL, NULL, NULL};
    uint32_t lanes = 1;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = kf_fn_wants_pred(fn, i) ? kf_emit_pred(b, args[i]) : kf_emit_num(b, args[i]);
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
