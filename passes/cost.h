/* SPDX-License-Identifier: Apache-2.0 */
/* cost - FLOPs and bytes of a region body: what reports, profiles and the cost model count with.
 *
 * A multiply and an add are two FLOPs; a scalar function is one per element. Bytes count each
 * operand and result once: of a table the rows that are gathered, of a cache what is in view, and
 * what is appended. Scores and whatever else has a row per token and a column per key count the
 * keys that the token may see. Costs know keys and pairs; how many of them a launch sees at a point
 * is asked of its mask (kf_cost_point_of).
 */
#ifndef KF_PASSES_COST_H
#define KF_PASSES_COST_H

#include "ir/plan.h"

/** Serials of nodes that have been counted in one function. */
typedef KF_VEC(uint32_t) kf_serials;

void kf_region_cost(const kf_graph *body, kf_cost *out_flops, kf_cost *out_bytes);

/** The same ops as launches of their own, attention written out: how many, and what they move. A
 * node that stands in |counted| was copied into an earlier region and is left out; the others are
 * added. */
void kf_region_alone(const kf_graph *body, kf_arena *arena, kf_serials *counted, uint32_t *out_ops,
                     kf_cost *out_bytes);

/** What a body moves of its operand |arg|, which is no cache. */
kf_cost kf_operand_cost(const kf_graph *body, uint32_t arg);

/** What storing a tensor of type |t| moves. */
kf_cost kf_stored_cost(const kf_type *t);

/** Whether a body reads, or appends to, the cache that is its operand |arg|. */
void kf_state_use(const kf_graph *body, uint32_t arg, bool *out_reads, bool *out_appends);
/** Bytes of one position of a cache: keys and values of one layer. */
int64_t kf_position_bytes(const kf_type *kv);

/** Launches, FLOPs and bytes of one round of a step, or of a whole call. */
typedef struct kf_tally {
    int64_t launches, flops, bytes;
    int64_t ops, bytes_alone; /* unfused: every op a launch of its own */
    int64_t bytes_min;        /* weights once, activations that enter or leave the step once */
} kf_tally;

/** |at| as |body| sees it: keys and pairs within the windows of its attention, which read less than
 * what is in view; or of the memory. A window of a length that is read from a table is not known:
 * everything counts. */
kf_cost_point kf_cost_point_of(const kf_graph *body, const kf_cost_point *at);

/** One launch; its ops alone are written out and see everything. No least bytes. */
kf_tally kf_tally_launch(const kf_plan *p, const kf_launch *l, const kf_cost_point *at);

void kf_tally_step(const kf_plan *p, const kf_plan_phase *ph, const kf_plan_step *st,
                   const kf_cost_point *at, kf_tally *out);
/** Layers of one round of a step: the caches that it appends to, at least 1. A repeat of several blocks in turn
 * has several. */
uint32_t kf_step_layers(const kf_plan *p, const kf_plan_phase *ph, const kf_plan_step *st);
/** Launches of a layer, rounded up, of the loop that has most; 0 without one. */
int64_t kf_phase_launches_per_layer(const kf_plan *p, const kf_plan_phase *ph);
/** True if launch |l| appends to a cache: with it a layer begins. */
bool kf_launch_begins_layer(const kf_plan *p, const kf_launch *l);
/** All rounds of all steps. */
void kf_tally_phase(const kf_plan *p, const kf_plan_phase *ph, const kf_cost_point *at,
                    kf_tally *out);

#endif
