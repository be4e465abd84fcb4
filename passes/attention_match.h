/* SPDX-License-Identifier: Apache-2.0 */
/* attention_match - is this value an attention over the cache, and which one? */
#ifndef KF_PASSES_ATTENTION_MATCH_H
#define KF_PASSES_ATTENTION_MATCH_H

#include "passes/element_trace.h"
#include "passes/passes.h"

/** What stands for the parameters of the slots in element expressions. ORDER: score(s, h, q, k);
 * the other slots begin at h. */
enum { KF_ATTENTION_S, KF_ATTENTION_H, KF_ATTENTION_Q, KF_ATTENTION_K };

#define KF_MAX_CAPTURES 8

typedef struct kf_attention_match {
    const kf_graph *g;
    kf_pass_ctx *cx;
    kf_value root; /* the value that is the attention, times |outside| */
    double outside;
    kf_el_trace t;
    kf_value keys, values; /* kv_read of either plane */
    kf_value pos, seq;     /* of the rows */
    kf_value q;
    const kf_el *q_at; /* element of q that meets a key */
    uint8_t n_heads, n_size;
    kf_atom row, key, head[KF_MAX_RANK], size[KF_MAX_RANK]; /* indices of the root; the key's */
    kf_atom inner;                                          /* contracted index of the scores */
    kf_el scores;                                           /* q . key */
    kf_attr_attention attr;
    uint32_t n_captures;
    kf_value capture[KF_MAX_CAPTURES];
    bool weighs;  /* values of the cache */
    bool divided; /* by a sum over keys */
    kf_reason why;
    kf_str detail;
} kf_attention_match;

/** Fills |out|, or says in out->why what stands in the way. */
bool kf_attention_match_root(kf_pass_ctx *cx, const kf_graph *g, kf_value root,
                             kf_attention_match *out);

/** Heads, rows and sizes of the operands (attention_view.c): the order of the heads, and where the
 * query comes from. */
bool kf_attention_match_views(kf_attention_match *m, const kf_el_node *key, const kf_el_node *value,
                              const kf_el_node *query);

/** The parts of an attention as expressions over VARs, scale and captures set apart
 * (attention_slot.c). Expressions may be KF_NO_EL. */
typedef struct kf_attention_work {
    kf_el score, mask, prob, sink;
} kf_attention_work;
/** Rewrites them from indices and loads to variables. */
bool kf_attention_variables(kf_attention_match *m, kf_attention_work *w);
/** Numbers that were taken for -inf count for nothing (attention_fill.c). */
bool kf_attention_fill_vanishes(kf_attention_match *m, const kf_attention_work *w);
bool kf_attention_slots(kf_attention_match *m, const kf_attention_work *w);

/** A LOAD of a kv_index of this view, at the key. */
bool kf_attention_is_key(const kf_attention_match *m, kf_el x, int plane);
/** A LOAD of an integer of each row: the value and the row's index; else KF_NO_VALUE. */
kf_value kf_attention_row_number(const kf_attention_match *m, kf_el x, kf_atom *out_row);

/** Notes the first reason; false. */
bool kf_attention_refuse(kf_attention_match *m, kf_reason why, const char *detail);

/** The query as [N, H, D], and the attention [N, H, D] as the root's type (attention_view.c). */
kf_value kf_attention_query(kf_graph *g, const kf_attention_match *m, kf_loc loc);
kf_value kf_attention_result(kf_graph *g, const kf_attention_match *m, kf_value a, kf_loc loc);

#endif
