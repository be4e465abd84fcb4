/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/families/attention_impl.h"
#include "codegen/fn_emit.h"

typedef struct slot_env {
    kf_att *t;
    kf_coord k;
    uint32_t k_param; /* UINT32_MAX: the slot has none */
} slot_env;

/* Beyond every position, and small enough for i32. */
#define FAR 0x1p30f

/* Number |index| as a coordinate from 0 on: the upper end is limited by the caller. */
static kf_coord coord_of(kb *b, kb_value index)
{
    const uint32_t lanes = kb_lanes_of(index);
    index = kb_fmax(b, kf_emit_num(b, index), kb_f32(b, lanes, 0.0f)); /* NaN becomes 0 */
    index = kb_fptosi(b, kb_fmin(b, index, kb_f32(b, lanes, FAR)));
    return kf_coord_from_i32(b, index, lanes);
}

/* Captures are read at indices limited to them: keys that are not visible are computed and thrown
 * away. */
static kb_value load_capture(void *user, const kf_slot *slot, const kf_slot_inst *load,
                             const kb_value *values)
{
    const slot_env *env = user;
    kf_att *t = env->t;
    kf_coord at[KF_MAX_RANK];
    const kf_value v = t->n->in[KF_ATT_CAPTURES + load->index];
    const kf_type *type = kf_value_type(t->pw.g, v);
    for (uint32_t i = 0; i < load->n_args; i++) {
        const kf_slot_inst *arg = &slot->inst[load->arg[i]];
        const bool is_k = arg->op == KF_SLOT_PARAM && arg->index == env->k_param;
        at[i] = is_k ? env->k : coord_of(t->b, values[load->arg[i]]);
        kb_value last = kb_addi(t->b, kf_pw_dim(&t->pw, type->dim[i]), -1);
        at[i] = kf_coord_clamp(t->b, at[i], last, false);
    }
    return kf_pw_as_number(t->b, type->dtype, kf_pw_value(&t->pw, v, at));
}

kb_value kf_att_row_slot(kf_att *t, const kf_slot *s, const kf_att_pair *pair)
{
    slot_env env = {.t = t, .k_param = UINT32_MAX};
    const kb_value params[] = {pair->head, pair->pos};
    const uint32_t mark = kf_pw_mark(&t->pw);
    kb_value v = kf_emit_num(t->b, kf_emit_slot(t->b, s, params, load_capture, &env));
    kf_pw_release(&t->pw, mark);
    return v;
}

kb_value kf_att_key_slot(kf_att *t, const kf_slot *s, const kf_att_pair *pair, kb_value score,
                         kb_value first)
{
    kb *b = t->b;
    slot_env env = {
        .t = t, .k = kf_coord_ramp(first, t->lanes, t->lanes), .k_param = score ? 3 : 2};
    kb_value k = kb_splat(b, kb_trunc(b, first, KB_I32), t->lanes);
    k = kb_sitofp(b, kb_add(b, k, kb_iota(b, KB_I32, t->lanes)));
    const kb_value params[] = {score, pair->head, pair->pos, k};
    kb_value v = kf_emit_slot(b, s, params + (score ? 0 : 1), load_capture, &env);
    return kb_lanes_of(v) < t->lanes ? kb_splat(b, v, t->lanes) : v;
}
