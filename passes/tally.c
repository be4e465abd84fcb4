/* SPDX-License-Identifier: Apache-2.0 */
/* tally - what a plan costs at one point, next to the least that its steps could move. */
#include "passes/cost.h"

/* ---- the minimum ----------------------------------------------------------------------------- */

/* The step whose least bytes are counted, and the point. */
typedef struct once {
    const kf_plan *p;
    const kf_plan_phase *ph;
    const kf_plan_step *st;
    const kf_cost_point *at;
} once;

static const kf_graph *body_of(const kf_plan *p, const kf_launch *l)
{
    return p->kernels.data[l->kernel].body;
}

static int64_t read_bytes(const once *o, const kf_launch *l, uint32_t arg)
{
    kf_cost c = kf_operand_cost(body_of(o->p, l), arg);
    kf_cost_point seen = kf_cost_point_of(body_of(o->p, l), o->at);

    return kf_cost_at(&c, &seen);
}

static bool is_operand(const kf_launch *l, uint32_t k, kf_operand what)
{
    return l->operand[k].space == what.space && l->operand[k].index == what.index;
}

/* The most that one launch of the step reads of |what|, a weight or an input. */
static int64_t largest_read(const once *o, kf_operand what)
{
    int64_t most = 0;

    for (uint32_t i = o->st->first; i < o->st->first + o->st->n; i++) {
        const kf_launch *l = &o->ph->launches.data[i];
        for (uint32_t k = 0; k < body_of(o->p, l)->args.len; k++) {
            int64_t bytes = is_operand(l, k, what) ? read_bytes(o, l, k) : 0;
            most = bytes > most ? bytes : most;
        }
    }
    return most;
}

/* Keys and values are read once as far as some launch sees them, new ones appended once, however
 * many launches do. */
static int64_t state_bytes(const once *o, uint32_t state)
{
    kf_operand what = {KF_SPACE_STATE, state};
    int64_t position = kf_position_bytes(&o->p->states.data[state].type);
    int64_t keys = 0;
    bool appends = false;

    for (uint32_t i = o->st->first; i < o->st->first + o->st->n; i++) {
        const kf_launch *l = &o->ph->launches.data[i];
        for (uint32_t k = 0; k < body_of(o->p, l)->args.len; k++) {
            bool r, a;
            if (!is_operand(l, k, what))
                continue;
            kf_state_use(body_of(o->p, l), k, &r, &a);
            int64_t seen = r ? kf_cost_point_of(body_of(o->p, l), o->at).keys : 0;
            keys = seen > keys ? seen : keys;
            appends |= a;
        }
    }
    return position * (keys + (appends ? o->at->tokens : 0));
}

/* ---- activations ----------------------------------------------------------------------------- */

typedef struct crossing {
    bool read_first; /* read before it is stored: it comes from outside, or from the round before */
    bool stored;
    int64_t bytes;
} crossing;

static crossing cross(const once *o, const kf_plan_step *st, uint32_t buffer)
{
    kf_operand what = {KF_SPACE_BUFFER, buffer};
    crossing c = {0};

    for (uint32_t i = st->first; i < st->first + st->n; i++) {
        const kf_launch *l = &o->ph->launches.data[i];
        uint32_t n_in = body_of(o->p, l)->args.len;
        for (uint32_t k = 0; k < l->n_operands; k++) {
            if (!is_operand(l, k, what))
                continue;
            c.read_first |= k < n_in && !c.stored;
            c.stored |= k >= n_in;
            int64_t bytes = k < n_in ? read_bytes(o, l, k) : 0;
            c.bytes = bytes > c.bytes ? bytes : c.bytes;
        }
    }
    return c;
}

static bool read_later(const once *o, uint32_t buffer)
{
    bool behind = false, later = kf_plan_phase_keeps(o->ph, buffer);

    for (uint32_t s = 0; s < o->ph->steps.len; s++) {
        const kf_plan_step *st = &o->ph->steps.data[s];
        later |= behind && cross(o, st, buffer).read_first;
        behind |= st == o->st;
    }
    return later;
}

static int64_t stored_bytes(const once *o, uint32_t buffer)
{
    const kf_type *t = &o->ph->buffers.data[buffer].type;
    kf_cost c = kf_stored_cost(t);

    return kf_cost_at(&c, o->at);
}

/* What a buffer brings into the step, and what it takes out of it. */
static int64_t crossing_bytes(const once *o, uint32_t buffer)
{
    crossing c = cross(o, o->st, buffer);
    bool leaves = c.stored && ((o->st->loop && c.read_first) || read_later(o, buffer));

    return (c.read_first ? c.bytes : 0) + (leaves ? stored_bytes(o, buffer) : 0);
}

static int64_t least_bytes(const once *o)
{
    int64_t bytes = 0;

    for (uint32_t i = 0; i < o->p->weights.len; i++)
        bytes += largest_read(o, (kf_operand){KF_SPACE_WEIGHT, i});
    for (uint32_t i = 0; i < o->p->inputs.len; i++)
        bytes += largest_read(o, (kf_operand){KF_SPACE_INPUT, i});
    for (uint32_t i = 0; i < o->p->states.len; i++)
        bytes += state_bytes(o, i);
    for (uint32_t i = 0; i < o->ph->buffers.len; i++)
        bytes += crossing_bytes(o, i);
    return bytes;
}

/* ---- layers ---------------------------------------------------------------------------------- */

bool kf_launch_begins_layer(const kf_plan *p, const kf_launch *l)
{
    const kf_graph *body = body_of(p, l);

    for (uint32_t i = 0; i < body->nodes.len; i++)
        if (body->nodes.data[i].op == KF_OP_kv_append)
            return true;
    return false;
}

uint32_t kf_step_layers(const kf_plan *p, const kf_plan_phase *ph, const kf_plan_step *st)
{
    uint32_t n = 0;

    for (uint32_t i = st->first; i < st->first + st->n; i++)
        n += kf_launch_begins_layer(p, &ph->launches.data[i]);
    return n ? n : 1;
}

int64_t kf_phase_launches_per_layer(const kf_plan *p, const kf_plan_phase *ph)
{
    int64_t most = 0;

    for (uint32_t i = 0; i < ph->steps.len; i++) {
        const kf_plan_step *st = &ph->steps.data[i];
        uint32_t layers = kf_step_layers(p, ph, st);
        int64_t each = st->loop ? (st->n + layers - 1) / layers : 0;
        most = each > most ? each : most;
    }
    return most;
}

/* ---- sums ------------------------------------------------------------------------------------ */

void kf_tally_step(const kf_plan *p, const kf_plan_phase *ph, const kf_plan_step *st,
                   const kf_cost_point *at, kf_tally *out)
{
    once o = {p, ph, st, at};

    *out = (kf_tally){.launches = st->n, .bytes_min = least_bytes(&o)};
    for (uint32_t i = st->first; i < st->first + st->n; i++) {
        kf_tally l = kf_tally_launch(p, &ph->launches.data[i], at);
        out->flops += l.flops;
        out->bytes += l.bytes;
        out->ops += l.ops;
        out->bytes_alone += l.bytes_alone;
    }
}

void kf_tally_phase(const kf_plan *p, const kf_plan_phase *ph, const kf_cost_point *at,
                    kf_tally *out)
{
    *out = (kf_tally){0};
    for (uint32_t i = 0; i < ph->steps.len; i++) {
        kf_tally t;
        kf_tally_step(p, ph, &ph->steps.data[i], at, &t);
        out->launches += t.launches * ph->steps.data[i].times;
        out->flops += t.flops * ph->steps.data[i].times;
        out->bytes += t.bytes * ph->steps.data[i].times;
        out->ops += t.ops * ph->steps.data[i].times;
        out->bytes_alone += t.bytes_alone * ph->steps.data[i].times;
        out->bytes_min += t.bytes_min * ph->steps.data[i].times;
    }
}
