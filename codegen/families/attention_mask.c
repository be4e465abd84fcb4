/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/families/attention_mask.h"

#include <math.h>

static bool is_param(const kf_slot *s, uint32_t inst, uint32_t param)
{
    return s->inst[inst].op == KF_SLOT_PARAM && s->inst[inst].index == param;
}

/* k <= q, in either spelling. */
static bool is_causal(const kf_slot *s, uint32_t inst)
{
    const kf_slot_inst *i = &s->inst[inst];
    if (i->op != KF_SLOT_FN)
        return false;
    if (i->fn == KF_FN_le)
        return is_param(s, i->arg[0], KF_MASK_K) && is_param(s, i->arg[1], KF_MASK_Q);
    return i->fn == KF_FN_ge && is_param(s, i->arg[0], KF_MASK_Q) &&
           is_param(s, i->arg[1], KF_MASK_K);
}

static bool implies_causal(const kf_slot *s, uint32_t inst)
{
    const kf_slot_inst *i = &s->inst[inst];
    if (i->op == KF_SLOT_FN && i->fn == KF_FN_and)
        return implies_causal(s, i->arg[0]) || implies_causal(s, i->arg[1]);
    return is_causal(s, inst);
}

static bool is_difference(const kf_slot *s, uint32_t inst)
{
    const kf_slot_inst *i = &s->inst[inst];
    return i->op == KF_SLOT_FN && i->fn == KF_FN_sub && is_param(s, i->arg[0], KF_MASK_Q) &&
           is_param(s, i->arg[1], KF_MASK_K);
}

/* q - c for a number c: true and c. */
static bool is_behind(const kf_slot *s, uint32_t inst, double *out)
{
    const kf_slot_inst *i = &s->inst[inst];
    if (i->op != KF_SLOT_FN || i->fn != KF_FN_sub || !is_param(s, i->arg[0], KF_MASK_Q) ||
        s->inst[i->arg[1]].op != KF_SLOT_CONST)
        return false;
    *out = s->inst[i->arg[1]].value;
    return true;
}

/* |small| < |large| (or <= with |equal|) as a window: keys at distance q - k of at least the result
 * are out of sight. KF_NO_WINDOW if it says nothing of that kind. */
static int64_t window_of_order(const kf_slot *s, uint32_t small, uint32_t large, bool equal)
{
    double c = 0;
    const bool distance = is_difference(s, small) && s->inst[large].op == KF_SLOT_CONST;
    if (distance)
        c = s->inst[large].value;
    else if (!is_behind(s, small, &c) || !is_param(s, large, KF_MASK_K))
        return KF_NO_WINDOW;
    c = equal ? floor(c) + 1 : ceil(c);
    return c >= 1 && c < (double)KF_NO_WINDOW ? (int64_t)c : KF_NO_WINDOW;
}

/* The narrowest window among the conjuncts. */
static int64_t window_of(const kf_slot *s, uint32_t inst)
{
    const kf_slot_inst *i = &s->inst[inst];
    if (i->op != KF_SLOT_FN)
        return KF_NO_WINDOW;
    switch (i->fn) {
    case KF_FN_and: {
        const int64_t a = window_of(s, i->arg[0]), b = window_of(s, i->arg[1]);
        return a < b ? a : b;
    }
    case KF_FN_lt:
    case KF_FN_le:
        return window_of_order(s, i->arg[0], i->arg[1], i->fn == KF_FN_le);
    case KF_FN_gt:
    case KF_FN_ge:
        return window_of_order(s, i->arg[1], i->arg[0], i->fn == KF_FN_ge);
    default:
        return KF_NO_WINDOW;
    }
}

kf_mask_bounds kf_mask_bounds_of(const kf_slot *mask)
{
    kf_mask_bounds b = {.window = KF_NO_WINDOW};
    if (!mask)
        return b;
    const uint32_t result = mask->n_insts - 1;
    b.causal = implies_causal(mask, result);
    b.only_causal = is_causal(mask, result);
    b.window = window_of(mask, result);
    return b;
}
