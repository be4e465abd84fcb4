/* SPDX-License-Identifier: Apache-2.0 */
/* plan_buffers - lifetimes, aliasing and offsets of the activation pool.
 *
 * A buffer lives from the launch that stores it to the last one that reads it; one that is older
 * than a loop and read in it lives through the whole loop. Offsets are given by first fit over
 * buffers sorted by size (Pisarchyk and Lee 2020, arXiv:2001.03288, "greedy by size"), which places
 * big buffers low and lets small ones fill the gaps between lifetimes. Loop-carried values already
 * share a buffer (schedule.c); a result may further take the place of an operand that dies in the
 * same launch and is read element by element.
 */
#include "passes/inplace.h"
#include "passes/passes.h"

#define ALIGN 64

typedef struct span {
    uint32_t first, last;
    bool used;
} span;

static void touch(span *s, uint32_t at)
{
    if (!s->used || at < s->first)
        s->first = at;
    if (!s->used || at > s->last)
        s->last = at;
    s->used = true;
}

/* Loops: what crosses the border of a loop is alive in all of it. */
static void widen_over_loops(const kf_plan_phase *ph, span *life)
{
    for (uint32_t i = 0; i < ph->steps.len; i++) {
        const kf_plan_step *st = &ph->steps.data[i];
        uint32_t end = st->first + st->n - 1;
        if (!st->loop)
            continue;
        for (uint32_t b = 0; b < ph->buffers.len; b++) {
            span *s = &life[b];
            bool overlaps = s->used && s->first <= end && s->last >= st->first;
            bool crosses = s->first < st->first || s->last > end;
            if (overlaps && crosses) {
                touch(s, st->first);
                touch(s, end);
            }
        }
    }
}

/* A buffer read before it is stored in the same loop body carries a value from one round to the
 * next. */
static void widen_carried(const kf_plan *p, const kf_plan_phase *ph, span *life)
{
    for (uint32_t i = 0; i < ph->steps.len; i++) {
        const kf_plan_step *st = &ph->steps.data[i];
        for (uint32_t b = 0; st->loop && b < ph->buffers.len; b++) {
            bool stored = false, carried = false;
            for (uint32_t l = st->first; l < st->first + st->n; l++) {
                const kf_launch *la = &ph->launches.data[l];
                uint32_t n_in = p->kernels.data[la->kernel].body->args.len;
                for (uint32_t o = 0; o < la->n_operands; o++) {
                    if (la->operand[o].space != KF_SPACE_BUFFER || la->operand[o].index != b)
                        continue;
                    carried |= o < n_in && !stored;
                    stored |= o >= n_in;
                }
            }
            if (stored && carried) {
                touch(&life[b], st->first);
                touch(&life[b], st->first + st->n - 1);
            }
        }
    }
}

static span *lifetimes(const kf_plan *p, const kf_plan_phase *ph)
{
    span *life = KF_NEW_N(p->arena, span, ph->buffers.len);

    for (uint32_t l = 0; l < ph->launches.len; l++) {
        const kf_launch *la = &ph->launches.data[l];
        for (uint32_t o = 0; o < la->n_operands; o++)
            if (la->operand[o].space == KF_SPACE_BUFFER)
                touch(&life[la->operand[o].index], l);
    }
    for (uint32_t b = 0; b < ph->buffers.len; b++)
        if (kf_plan_phase_keeps(ph, b))
            touch(&life[b], ph->launches.len);
    widen_over_loops(ph, life);
    widen_carried(p, ph, life);
    return life;
}

/* Results that take the place of an operand: |shares| is set, and the lifetimes are joined in the
 * owner. */
static void share_in_place(const kf_plan *p, kf_plan_phase *ph, span *life)
{
    for (uint32_t l = 0; l < ph->launches.len; l++) {
        const kf_launch *la = &ph->launches.data[l];
        kf_graph *body = p->kernels.data[la->kernel].body;
        kf_node region = {.op = KF_OP_region, .body = body};
        uint32_t n_in = body->args.len;
        for (uint32_t r = 0; r + n_in < la->n_operands; r++) {
            kf_operand out = la->operand[n_in + r];
            if (out.space != KF_SPACE_BUFFER || life[out.index].first != l ||
                ph->buffers.data[out.index].shares != UINT32_MAX)
                continue;
            for (uint32_t j = 0; j < n_in; j++) {
                kf_operand in = la->operand[j];
                if (in.space != KF_SPACE_BUFFER || in.index == out.index ||
                    life[in.index].last != l || !kf_region_in_place(&region, j, r))
                    continue;
                uint32_t owner = in.index;
                while (ph->buffers.data[owner].shares != UINT32_MAX)
                    owner = ph->buffers.data[owner].shares;
                ph->buffers.data[out.index].shares = owner;
                touch(&life[owner], life[out.index].last);
                touch(&life[in.index], life[out.index].last); /* taken: nobody else may */
                break;
            }
        }
    }
}

static bool overlap(const span *a, const span *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static int64_t align_up(int64_t v)
{
    return (v + ALIGN - 1) / ALIGN * ALIGN;
}

/* Lowest offset where |b| fits beside the already placed buffers that are alive with it. */
static int64_t find_offset(const kf_plan_phase *ph, const span *life, const uint32_t *placed,
                           uint32_t n, uint32_t b)
{
    int64_t at = 0, size = align_up(ph->buffers.data[b].size_bytes);
    bool moved = true;

    while (moved) {
        moved = false;
        for (uint32_t i = 0; i < n; i++) {
            const kf_buffer *o = &ph->buffers.data[placed[i]];
            int64_t end = o->offset + align_up(o->size_bytes);
            if (overlap(&life[placed[i]], &life[b]) && at < end && o->offset < at + size) {
                at = end;
                moved = true;
            }
        }
    }
    return at;
}

static void place(const kf_plan *p, kf_plan_phase *ph, const span *life)
{
    uint32_t *order = KF_NEW_N(p->arena, uint32_t, ph->buffers.len), n = 0;

    for (uint32_t b = 0; b < ph->buffers.len; b++) {
        if (ph->buffers.data[b].shares != UINT32_MAX)
            continue;
        uint32_t at = n++;
        while (at > 0 &&
               ph->buffers.data[order[at - 1]].size_bytes < ph->buffers.data[b].size_bytes) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = b;
    }
    for (uint32_t i = 0; i < n; i++) {
        kf_buffer *b = &ph->buffers.data[order[i]];
        b->offset = find_offset(ph, life, order, i, order[i]);
        int64_t end = b->offset + align_up(b->size_bytes);
        ph->pool_bytes = end > ph->pool_bytes ? end : ph->pool_bytes;
    }
    for (uint32_t b = 0; b < ph->buffers.len; b++)
        if (ph->buffers.data[b].shares != UINT32_MAX)
            ph->buffers.data[b].offset = ph->buffers.data[ph->buffers.data[b].shares].offset;
}

void kf_plan_buffers(kf_plan *p)
{
    for (uint32_t i = 0; i < p->phases.len; i++) {
        kf_plan_phase *ph = &p->phases.data[i];
        span *life = lifetimes(p, ph);
        share_in_place(p, ph, life);
        place(p, ph, life);
    }
}
