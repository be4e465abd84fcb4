/* SPDX-License-Identifier: Apache-2.0 */
/* slot - building, comparing and evaluating slot bodies. Their text is in slot_text.c. */
#include "base/check.h"
#include "base/vec.h"
#include "ir/attr.h"

#include <string.h>

struct kf_slot_builder {
    kf_arena *arena;
    kf_slot slot; /* inst and n_insts are set at the end */
    KF_VEC(kf_slot_inst) insts;
};

kf_slot_builder *kf_slot_builder_create(kf_arena *arena, uint8_t n_params,
                                        const char *const *param_names, uint8_t captures)
{
    KF_ASSERT(n_params <= KF_SLOT_MAX_PARAMS, "a slot has at most KF_SLOT_MAX_PARAMS parameters");
    kf_slot_builder *b = KF_NEW(arena, kf_slot_builder);
    b->arena = arena;
    b->slot.n_params = n_params;
    b->slot.captures = captures;
    for (uint8_t i = 0; i < n_params; i++)
        b->slot.param[i] = kf_str_dup(arena, kf_str_from(param_names[i]));
    return b;
}

static bool inst_eq(const kf_slot_inst *a, const kf_slot_inst *b)
{
    if (a->op != b->op || a->n_args != b->n_args || a->index != b->index || a->fn != b->fn ||
        memcmp(&a->value, &b->value, sizeof a->value) != 0)
        return false;
    for (uint8_t i = 0; i < a->n_args; i++) {
        if (a->arg[i] != b->arg[i])
            return false;
    }
    return true;
}

static uint32_t add_inst(kf_slot_builder *b, const kf_slot_inst *inst)
{
    for (uint8_t i = 0; i < inst->n_args; i++)
        KF_ASSERT(inst->arg[i] < b->insts.len, "a slot instruction uses earlier ones");
    for (uint32_t i = 0; i < b->insts.len; i++) {
        if (inst_eq(&b->insts.data[i], inst))
            return i;
    }
    KF_ASSERT(b->insts.len < KF_SLOT_MAX_INSTS,
              "a slot has at most KF_SLOT_MAX_INSTS instructions");
    kf_vec_push(b->arena, &b->insts, *inst);
    return b->insts.len - 1;
}

uint32_t kf_slot_const(kf_slot_builder *b, double value)
{
    return add_inst(b, &(kf_slot_inst){.op = KF_SLOT_CONST, .value = value});
}

uint32_t kf_slot_param(kf_slot_builder *b, uint32_t index)
{
    KF_ASSERT(index < b->slot.n_params, "the slot has this parameter");
    return add_inst(b, &(kf_slot_inst){.op = KF_SLOT_PARAM, .index = index});
}

uint32_t kf_slot_load(kf_slot_builder *b, uint32_t capture, const uint32_t *index, uint8_t n_index)
{
    KF_ASSERT(capture < b->slot.captures && n_index <= KF_SLOT_MAX_ARGS,
              "the slot has this capture");
    kf_slot_inst inst = {.op = KF_SLOT_LOAD, .index = capture, .n_args = n_index};
    for (uint8_t i = 0; i < n_index; i++)
        inst.arg[i] = index[i];
    return add_inst(b, &inst);
}

uint32_t kf_slot_fn(kf_slot_builder *b, kf_fn fn, uint32_t x, uint32_t y, uint32_t z)
{
    uint8_t n = kf_fn_infos[fn].arity;
    kf_slot_inst inst = {.op = KF_SLOT_FN, .fn = fn, .n_args = n};
    const uint32_t arg[] = {x, y, z};
    for (uint8_t i = 0; i < n; i++)
        inst.arg[i] = arg[i];
    return add_inst(b, &inst);
}

uint32_t kf_slot_builder_len(const kf_slot_builder *b)
{
    return b->insts.len;
}

/* Post-order from the result: equal bodies get equal numbers however they were built, and what the
 * result does not need is dropped. */
static uint32_t emit_inst(const kf_slot_builder *b, uint32_t i, uint32_t *number, kf_slot *slot,
                          kf_slot_inst *kept)
{
    if (number[i] != UINT32_MAX)
        return number[i];
    kf_slot_inst inst = b->insts.data[i];
    for (uint8_t a = 0; a < inst.n_args; a++)
        inst.arg[a] = emit_inst(b, inst.arg[a], number, slot, kept);
    kept[slot->n_insts] = inst;
    number[i] = slot->n_insts++;
    return number[i];
}

const kf_slot *kf_slot_finish(kf_slot_builder *b, uint32_t result)
{
    KF_ASSERT(result < b->insts.len, "the result of a slot is one of its instructions");
    uint32_t *number = KF_NEW_N(b->arena, uint32_t, result + 1);
    memset(number, 0xff, (result + 1) * sizeof *number);
    kf_slot *slot = KF_NEW(b->arena, kf_slot);
    kf_slot_inst *kept = KF_NEW_N(b->arena, kf_slot_inst, result + 1);
    *slot = b->slot;
    slot->inst = kept;
    emit_inst(b, result, number, slot, kept);
    return slot;
}

double kf_slot_eval(const kf_slot *s, const double *params, kf_slot_load_fn load, void *user)
{
    double value[KF_SLOT_MAX_INSTS];
    for (uint32_t i = 0; i < s->n_insts; i++) {
        const kf_slot_inst *inst = &s->inst[i];
        switch (inst->op) {
        case KF_SLOT_CONST:
            value[i] = inst->value;
            break;
        case KF_SLOT_PARAM:
            value[i] = params[inst->index];
            break;
        case KF_SLOT_FN: {
            double a = value[inst->arg[0]];
            double b = inst->n_args > 1 ? value[inst->arg[1]] : 0;
            double c = inst->n_args > 2 ? value[inst->arg[2]] : 0;
            value[i] = kf_fn_eval(inst->fn, a, b, c);
            break;
        }
        case KF_SLOT_LOAD: {
            double index[KF_SLOT_MAX_ARGS];
            for (uint8_t k = 0; k < inst->n_args; k++)
                index[k] = value[inst->arg[k]];
            value[i] = load(user, inst->index, index, inst->n_args);
            break;
        }
        }
    }
    return value[s->n_insts - 1];
}

bool kf_slot_eq(const kf_slot *a, const kf_slot *b)
{
    if (a->n_params != b->n_params || a->captures != b->captures || a->n_insts != b->n_insts)
        return false;
    for (uint32_t i = 0; i < a->n_insts; i++) {
        if (!inst_eq(&a->inst[i], &b->inst[i]))
            return false;
    }
    return true;
}

bool kf_slot_uses_param(const kf_slot *s, uint32_t param)
{
    for (uint32_t i = 0; i < s->n_insts; i++) {
        if (s->inst[i].op == KF_SLOT_PARAM && s->inst[i].index == param)
            return true;
    }
    return false;
}
