/* SPDX-License-Identifier: Apache-2.0 */
/* region - selecting nodes of a function and making one region op of them; shared by the
 * region-forming passes. */
#ifndef KF_PASSES_REGION_H
#define KF_PASSES_REGION_H

#include "passes/recompute.h"

/** A selection of nodes of |g|, by node index. |owned| nodes move into the region; |copied| ones
 * are computed inside as well and stay for their other users. */
typedef struct kf_selection {
    kf_graph *g;
    uint32_t root; /* what the others join; owned from the start */
    bool *owned;
    bool *copied;
    kf_recompute recompute; /* what is never owned where it can be copied */
} kf_selection;

kf_selection kf_selection_new(kf_graph *g, uint32_t root, kf_arena *scratch);

kf_selection kf_selection_copy(const kf_selection *s, kf_arena *scratch);

/** True if a part of the selection reads what is computed from a stored result of another. */
bool kf_selection_waits_for_itself(const kf_selection *s, kf_arena *scratch);

/** The body that the selection would have. Constants that it reads are copied into it.
 * |out_operands| are the values of g that become operands, |out_results| those of g that become
 * results, in order. */
typedef KF_VEC(kf_value) kf_value_list;
kf_graph *kf_selection_body(const kf_selection *s, kf_value_list *out_operands,
                            kf_value_list *out_results);

/** The family whose kernel |target| makes of |body|, or KF_FAMILY_COUNT; then |why| holds its
 * objection. */
kf_family kf_region_family(const kf_target *target, const kf_graph *body, kf_sbuf *why);

/** Makes the region: appends the node, redirects users, removes owned nodes and sorts. Node indices
 * change. What joined the root is logged, but for views, which cost nothing. */
void kf_selection_commit(const kf_selection *s, kf_family family, kf_str name, kf_loc loc,
                         kf_pass_ctx *cx);

/** True if node |n| may still be put into a region. */
bool kf_node_is_loose(const kf_node *n);

/** Adds to |s| as copied everything cheap that its nodes read: what is computed again
 * (recompute.h), views of arguments. */
void kf_selection_pull_cheap(kf_selection *s, kf_pass_ctx *cx);

/** Grows |s| by loose consumers of its results, all at once where the target agrees, else one by
 * one, with a refusal logged for each that it cannot take; then by what is made for it alone. |skip|
 * marks nodes that must stay outside (by index). */
void kf_selection_grow(kf_selection *s, const bool *skip, kf_pass_ctx *cx);

#endif
