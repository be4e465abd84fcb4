/* SPDX-License-Identifier: Apache-2.0 */
/* pointwise - the value of one element of a body, emitted as vector code: the heart of all
 * families.
 *
 * kf_pw_value walks from a value to the arguments it is made of, through elementwise ops, index
 * ops, reductions and products, and emits what computes it at the given coordinates. Floating point
 * values come as f32, i32 as i32, predicates as i1; one value in all lanes comes as a scalar. What
 * a family holds elsewhere (the matmul tile in scratch, a materialised row value) is a leaf.
 * Everything emitted is remembered by coordinates until released, so shared operands are computed
 * once and kf_pw_prepare can hoist what an inner loop does not change. In dry mode (no builder)
 * nothing is emitted and only the feasibility of a vector width is found.
 *
 * Results never depend on how work is split: a reduction always runs over its whole axis in one
 * order.
 */
#ifndef KF_CODEGEN_POINTWISE_H
#define KF_CODEGEN_POINTWISE_H

#include "codegen/coord.h"
#include "ir/graph.h"

typedef struct kf_pw kf_pw;

/** Values that are not computed from their definition. |load| is called with a builder only. */
typedef struct kf_pw_leaves {
    void *user;
    bool (*is_leaf)(void *user, kf_value v);
    kb_value (*load)(kf_pw *pw, void *user, kf_value v, const kf_coord *ix);
    /** Accumulators of a row_reduce that the family holds already, or NULL. May be NULL. */
    const kb_value *(*accs)(void *user, const kf_node *n);
} kf_pw_leaves;

struct kf_pw {
    kf_arena *arena;
    kb *b; /* NULL: dry */
    const kf_graph *g;
    kf_pw_leaves leaves; /* is_leaf NULL: none */
    uint32_t kv_layers;  /* of the whole state: a page holds all layers */
    bool infeasible;     /* dry: the vector form needs what cannot be emitted */
    KF_VEC(struct kf_pw_memo) memo;
};

/** What was emitted for (|value|, |what|) at |ix|. */
typedef struct kf_pw_memo {
    kf_value value;
    uint32_t what;
    uint32_t rank;
    kf_coord ix[KF_MAX_RANK];
    kb_value out[KF_MAX_ACCS];
} kf_pw_memo;

enum { KF_PW_VALUE, KF_PW_ACCS, KF_PW_PLACE };

/** An evaluator over |g|; |b| NULL: dry. |leaves| may be NULL. */
kf_pw kf_pw_make(kf_arena *arena, kb *b, const kf_graph *g, const kf_pw_leaves *leaves);

/** The value of |v| at |ix| (rank of v entries); NULL when dry or if a coordinate is LATER. */
kb_value kf_pw_value(kf_pw *pw, kf_value v, const kf_coord *ix);
/** The same as f32 in exactly |lanes| lanes. */
kb_value kf_pw_number(kf_pw *pw, kf_value v, const kf_coord *ix, uint32_t lanes);

/** Emits now, and remembers, every part of |v| whose coordinates are known; the others are LATER.
 */
static inline void kf_pw_prepare(kf_pw *pw, kf_value v, const kf_coord *ix)
{
    kf_pw_value(pw, v, ix);
}

/** What was remembered after the mark is forgotten: it belongs to a loop that has ended. */
static inline uint32_t kf_pw_mark(const kf_pw *pw)
{
    return pw->memo.len;
}
static inline void kf_pw_release(kf_pw *pw, uint32_t mark)
{
    pw->memo.len = mark;
}

/** True if |v| can be emitted at coordinates of this kind (their values are not looked at). */
bool kf_pw_feasible(const kf_pw *pw, kf_value v, const kf_coord *ix);

/** Storage element of a dtype. */
kb_elem kf_pw_elem(kf_dtype dtype);
/** Size of |d| as i64. */
kb_value kf_pw_dim(kf_pw *pw, kf_dim d);
/** Element(s) of |type| at |offset| from |base|, in the form of kf_pw_value. */
kb_value kf_pw_load(kf_pw *pw, kf_dtype dtype, kb_value base, kf_coord offset);
/** Stores |value| (of |from|'s form) as |dtype| at |offset|; a ramp must have stride 1. */
void kf_pw_store(kf_pw *pw, kf_dtype from, kb_value value, kf_dtype dtype, kb_value base,
                 kf_coord offset);
/** |v| of the form of |dtype| as f32; lanes stay. */
kb_value kf_pw_as_number(kb *b, kf_dtype dtype, kb_value v);

/* ---- between the files of pointwise -------------------------------------------------------------
 */

bool kf_pw_any_later(const kf_coord *ix, uint32_t rank);
uint32_t kf_pw_lanes_of(const kf_coord *ix, uint32_t rank);
kf_pw_memo *kf_pw_find(kf_pw *pw, kf_value v, uint32_t what, const kf_coord *ix, uint32_t rank);
void kf_pw_remember(kf_pw *pw, kf_value v, uint32_t what, const kf_coord *ix, uint32_t rank,
                    uint32_t n, const kb_value *out);
/** Coordinates of an operand of type |from| that is broadcast to |to|. */
void kf_pw_broadcast(kf_pw *pw, const kf_type *from, const kf_type *to, const kf_coord *ix,
                     kf_coord *out);

/** The accumulators of the row at |ix| (without the last axis), or NULL while it is not known. */
const kb_value *kf_pw_row_accs(kf_pw *pw, const kf_node *n, const kf_coord *ix);

kb_value kf_pw_index_op(kf_pw *pw, const kf_node *n, kf_value v, const kf_coord *ix);
kb_value kf_pw_row_reduce(kf_pw *pw, const kf_node *n, const kf_coord *ix);
kb_value kf_pw_row_stat(kf_pw *pw, const kf_node *n, const kf_coord *ix);
kb_value kf_pw_matmul(kf_pw *pw, const kf_node *n, const kf_coord *ix);
kb_value kf_pw_rope(kf_pw *pw, const kf_node *n, const kf_coord *ix);
kb_value kf_pw_rope_table(kf_pw *pw, const kf_node *n, const kf_coord *ix);
kb_value kf_pw_kv_read(kf_pw *pw, const kf_node *n, const kf_coord *ix);
kb_value kf_pw_kv_index(kf_pw *pw, const kf_node *n, const kf_coord *ix);

#endif
