/* SPDX-License-Identifier: Apache-2.0 */
/* near_miss - see near_miss.h. */
#include "tests/fusion/near_miss.h"

#include "tests/fusion/scramble.h"

#include <math.h>

/* ---- pieces ---------------------------------------------------------------------------------- */

static kf_value halved(kf_graph *g, kf_value v, kf_loc loc)
{
    return kf_node_2(g, KF_OP_mul, v, kf_node_const(g, 0.3, loc), loc);
}

/* Every other reader of |old| reads |now|, which reads |old| itself. */
static void put_behind(kf_graph *g, kf_value old, kf_value now, kf_node *const *keep, uint32_t n)
{
    uint32_t first[8];

    for (uint32_t i = 0; i < n; i++)
        first[i] = (uint32_t)(keep[i] - g->nodes.data);
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        bool skip = false;
        for (uint32_t k = 0; k < n; k++)
            skip |= first[k] == i;
        for (uint32_t j = 0; !skip && j < g->nodes.data[i].n_in; j++)
            if (g->nodes.data[i].in[j] == old)
                g->nodes.data[i].in[j] = now;
    }
    for (uint32_t i = 0; i < g->results.len; i++)
        if (g->results.data[i] == old)
            g->results.data[i] = now;
}

/* v / sqrt(mean(v^2) + eps) over the last axis */
static kf_value rms(kf_graph *g, kf_value v, kf_loc loc)
{
    kf_arena *a = g->module->arena;
    static const char *const names[] = {"v", "s"};
    kf_attr_row_reduce *attr = KF_ATTR_NEW(a, row_reduce);
    kf_slot_builder *b = kf_slot_builder_create(a, 2, names, 0);
    uint32_t s = kf_slot_fn(b, KF_FN_add, kf_slot_param(b, 1), kf_slot_const(b, 0.5), 0);

    attr->acc = (kf_accs){1, {KF_ACC_sum_sq}};
    attr->keep = true;
    attr->map = kf_slot_finish(
        b, kf_slot_fn(b, KF_FN_mul, kf_slot_param(b, 0), kf_slot_fn(b, KF_FN_rsqrt, s, 0, 0), 0));
    return kf_node_add(g, KF_OP_row_reduce, attr, 1, &v, NULL, loc);
}

/* ---- attention ------------------------------------------------------------------------------- */

static bool is_softmax(const kf_node *n)
{
    return n->op == KF_OP_row_reduce && KF_ATTR_OF(n, row_reduce)->keep &&
           KF_ATTR_OF(n, row_reduce)->acc.n == 2 &&
           KF_ATTR_OF(n, row_reduce)->acc.acc[1] == KF_ACC_sum_exp;
}

/* The weights multiply the values once more, scaled. */
static bool other_user_of_weights(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];
    const kf_node *p = n.op == KF_OP_matmul ? kf_value_node(g, n.in[0]) : NULL;

    if (!p || !is_softmax(p))
        return false;
    kf_value again = kf_node_matmul(g, n.in[0], halved(g, n.in[1], n.loc), false, n.loc);
    kf_value sum = kf_node_2(g, KF_OP_add, n.out[0], again, n.loc);
    put_behind(g, n.out[0], sum, (kf_node *[]){kf_value_node(g, sum)}, 1);
    return true;
}

static bool reduction_of_scores(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];
    double hidden;

    if (n.op != KF_OP_select || !kf_value_const(g, n.in[2], &hidden) || hidden != -INFINITY)
        return false;
    n.in[1] = rms(g, n.in[1], n.loc);
    return true;
}

static bool softmax_over_rows(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];

    if (!is_softmax(&n))
        return false;
    kf_value in = swap_last(g, n.in[0], n.loc);
    kf_value p = kf_node_add(g, KF_OP_row_reduce, n.attr, 1, &in, NULL, n.loc);
    kf_graph_replace(g, n.out[0], swap_last(g, p, n.loc));
    g->nodes.data[index].op = KF_OP_NONE;
    return true;
}

/* ---- gated ----------------------------------------------------------------------------------- */

static bool is_linear(const kf_graph *g, kf_value v)
{
    const kf_node *n = kf_value_is(g, v, KF_OP_matmul);

    return n && g->values.data[n->in[1]].kind == KF_VALUE_PARAM;
}

/* The product of two linear matmuls, one of them perhaps behind a function. */
static bool is_gated(const kf_graph *g, const kf_node *n, uint32_t *out_act)
{
    if (n->op != KF_OP_mul)
        return false;
    for (uint32_t i = 0; i < 2; i++) {
        const kf_node *act = kf_value_node(g, n->in[i]);
        bool behind = act && kf_op_is_fn(act->op) && act->n_in == 1 && is_linear(g, act->in[0]);
        *out_act = i;
        kf_value gate = behind ? act->in[0] : n->in[i];
        if (is_linear(g, gate) && is_linear(g, n->in[1 - i]) && gate != n->in[1 - i])
            return true;
    }
    return false;
}

static bool other_user_of_gate(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];
    uint32_t act;

    if (!is_gated(g, &n, &act))
        return false;
    kf_value sum = kf_node_2(g, KF_OP_add, n.out[0], n.in[act], n.loc);
    put_behind(g, n.out[0], sum, (kf_node *[]){kf_value_node(g, sum)}, 1);
    return true;
}

static bool gate_of_other_rows(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];
    uint32_t act;

    if (!is_gated(g, &n, &act))
        return false;
    kf_node *up = kf_value_node(g, n.in[1 - act]);
    kf_value rows = up->in[0];
    kf_loc loc = up->loc;
    kf_value other = kf_node_1(g, KF_OP_tanh, rows, loc);
    kf_value_node(g, n.in[1 - act])->in[0] = other;
    return true;
}

/* ---- norms ----------------------------------------------------------------------------------- */

static bool is_norm(const kf_graph *g, const kf_node *n)
{
    return n->op == KF_OP_row_reduce && KF_ATTR_OF(n, row_reduce)->keep && !is_softmax(n) &&
           kf_value_type(g, n->out[0])->rank == 2;
}

/* Over the tokens instead of the columns. */
static bool norm_over_rows(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];

    if (!is_norm(g, &n))
        return false;
    kf_value y = swap_last(g, rms(g, swap_last(g, n.in[0], n.loc), n.loc), n.loc);
    kf_graph_replace(g, n.out[0], y);
    g->nodes.data[index].op = KF_OP_NONE;
    return true;
}

/* The rows that the norm made are reduced once more. */
static bool softmax_of_norm(kf_graph *g, uint32_t index)
{
    static const char *const names[] = {"v", "m", "s"};
    const kf_node n = g->nodes.data[index];

    if (!is_norm(g, &n))
        return false;
    kf_attr_row_reduce *attr = KF_ATTR_NEW(g->module->arena, row_reduce);
    kf_slot_builder *b = kf_slot_builder_create(g->module->arena, 3, names, 0);
    uint32_t e = kf_slot_fn(b, KF_FN_sub, kf_slot_param(b, 0), kf_slot_param(b, 1), 0);
    attr->acc = (kf_accs){2, {KF_ACC_max, KF_ACC_sum_exp}};
    attr->keep = true;
    attr->map = kf_slot_finish(
        b, kf_slot_fn(b, KF_FN_div, kf_slot_fn(b, KF_FN_exp, e, 0, 0), kf_slot_param(b, 2), 0));
    kf_value y = kf_node_add(g, KF_OP_row_reduce, attr, 1, n.out, NULL, n.loc);
    put_behind(g, n.out[0], y, (kf_node *[]){kf_value_node(g, y)}, 1);
    return true;
}

#define MISS(pass, code) KF_PASS_ID_##pass, KF_REASON_##code

const near_miss near_misses[] = {
    {"another user of the attention's weights", MISS(fuse_attention, F0203), other_user_of_weights},
    {"a reduction between scores and softmax", MISS(fuse_attention, F0201), reduction_of_scores},
    {"a softmax over the rows", MISS(fuse_attention, F0220), softmax_over_rows},
    {"another user of the gate", MISS(fuse_gated, F0203), other_user_of_gate},
    {"gate and up of other rows", MISS(fuse_gated, F0202), gate_of_other_rows},
    {"a norm over the tokens", MISS(fuse_norm, F0201), norm_over_rows},
    {"a softmax behind the norm", MISS(fuse_norm, F0202), softmax_of_norm},
};
const uint32_t n_near_misses = sizeof near_misses / sizeof near_misses[0];

kf_module *near_miss_make(kf_arena *arena, const kf_module *m, const near_miss *miss)
{
    kf_module *s = kf_module_clone(m, arena);
    bool any = false;

    for (uint32_t f = 0; f < s->funcs.len; f++) {
        kf_graph *g = s->funcs.data[f];
        bool done = false;
        for (uint32_t i = 0, end = g->nodes.len; i < end && !done; i++)
            done = g->nodes.data[i].op != KF_OP_NONE && miss->at(g, i);
        kf_graph_sort(g);
        kf_graph_compact(g);
        any |= done;
    }
    return any ? s : NULL;
}
