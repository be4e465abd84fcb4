/* SPDX-License-Identifier: Apache-2.0 */
/* attention_impl - what the files of the attention family share; not for others.
 *
 * attention.c       match, configuration; tiles, sequences and pages; results
 * attention_parts.c the keys in parts: what each has found, and all of them together
 * attention_group.c scores, weights and weighted values of a few rows on one page
 * attention_slot.c  bodies of slots at a row and keys
 * attention_result.c what stands behind the attention in its region
 */
#ifndef KF_CODEGEN_FAMILIES_ATTENTION_IMPL_H
#define KF_CODEGEN_FAMILIES_ATTENTION_IMPL_H

#include "codegen/families/family.h"
#include "codegen/kv.h"
#include "ir/mask_bounds.h"

/* Sums of a group in registers, and its pairs at most: fewer pairs take more vectors, so that the
 * latency of the additions stays hidden. A sum's order does not depend on the shape. */
enum { KF_ATT_SUMS = 8, KF_ATT_PAIRS = 4 };

/** Operands of the attention op. */
enum {
    KF_ATT_Q,
    KF_ATT_KV,
    KF_ATT_POS,
    KF_ATT_SEQ,
    KF_ATT_SEQ_START,
    KF_ATT_PAST,
    KF_ATT_PAGES,
    KF_ATT_CAPTURES
};

typedef struct kf_att_sizes {
    int64_t heads, group, dim, page;
    int64_t pairs;                          /* of a tile */
    int64_t q, p, lo, bound, states, bytes; /* scratch offsets */
    int64_t m, l, o, state_bytes;           /* offsets in the state of a part */
} kf_att_sizes;

/** Elements that are being stored: |lanes| from |d| on of |pair|. |d| NULL: a norm asks for some. */
typedef struct kf_att_out {
    kb_value pair, d;
    uint32_t lanes;
} kf_att_out;

/** A norm of a head behind the attention: what it accumulates over the pair's. */
enum { KF_ATT_NORMS = 4 };
typedef struct kf_att_norm {
    const kf_node *node;
    kb_value acc[KF_MAX_ACCS];
} kf_att_norm;

/** One kernel under emission. */
typedef struct kf_att {
    const kf_emit *e;
    kb *b;
    kf_pw pw;
    const kf_node *n;
    const kf_attr_attention *attr;
    kf_att_sizes z;
    uint32_t lanes;
    kf_kv kv;
    kf_mask_bounds mask;
    bool softmax; /* or weights as they are */
    kf_att_out out;
    kf_att_norm norm[KF_ATT_NORMS];
    uint32_t n_norms;
    int64_t parts, part_pages;
    bool split;                         /* a tile does one part */
    kb_value part, arrived;             /* split: which part, and the cell that counts those done */
    kb_value states, state;             /* of the first part, and of the one at work */
    kb_value used;                      /* parts that have keys */
    kb_value scratch, row0, row1, head; /* head: of the cache */
} kf_att;

/** A row and a query head that shares the kv head. */
typedef struct kf_att_pair {
    kb_value lo, bound; /* i64: first key, and behind the last key, that it may see */
    kb_value pos, head; /* f32 */
} kf_att_pair;

/** Pairs that walk the keys of a page together. */
typedef struct kf_att_group {
    uint32_t n;       /* pairs */
    uint32_t vectors; /* of keys at a time */
    kb_value pair0;
    kb_value page;        /* address of the page */
    kb_value base;        /* position of its first key */
    kb_value first, keys; /* places in the page: from the first key that one sees, to the last */
    kf_att_pair pair[KF_ATT_PAIRS];
    kb_value alpha[KF_ATT_PAIRS]; /* NULL without a normaliser */
} kf_att_group;

/** Address of f32 or i32 |index| (i64) of the scratch array at |array|. */
static inline kb_value kf_att_cell(kf_att *t, int64_t array, kb_value index)
{
    return kb_index(t->b, kb_offset_c(t->b, t->scratch, array), KB_F32, index);
}

static inline kb_value kf_att_load(kf_att *t, int64_t array, kb_value index)
{
    return kb_load(t->b, KB_F32, 1, kf_att_cell(t, array, index), 4);
}

static inline kb_value kf_att_state_cell(kf_att *t, int64_t array, kb_value index)
{
    return kb_index(t->b, kb_offset_c(t->b, t->state, array), KB_F32, index);
}

/** Row of the call and query head of |pair|. */
kb_value kf_att_row(kf_att *t, kb_value pair);
kb_value kf_att_head(kf_att *t, kb_value pair);
/** Position and head of |pair|, without its bounds. */
kf_att_pair kf_att_place(kf_att *t, kb_value pair);

/* Keys are worked on in parts, part_pages pages in turn to each: a row's result is the sum over
 * the parts in their order, whether one tile does them all or each is a tile. */

/** The number of parts that have keys if |most| are visible. */
void kf_att_count_parts(kf_att *t, kb_value most);
/** What follows works on the state of |part|. */
void kf_att_enter(kf_att *t, kb_value part);
/** The state of |part| before its first key, for |pairs| pairs. */
void kf_att_clear(kf_att *t, kb_value part, kb_value pairs);
/** The parts together in the state of the first one, which is entered. */
void kf_att_merge(kf_att *t, kb_value pairs);
/** Counts this tile's part as done; true in the last of them, which leaves the count at 0. */
kb_value kf_att_arrive(kf_att *t);

/** Whether the region can compute what stands behind attention |n| of |g|. */
bool kf_att_match_results(const kf_graph *g, const kf_node *n, kf_arena *scratch, kf_sbuf *why);
/** What the evaluator of the region's body asks for. */
kf_pw_leaves kf_att_leaves(kf_att *t);
/** Stores what the region makes of |pair|, whose state is entered. */
void kf_att_finish(kf_att *t, kb_value pair, kb_value row);

/** e^x for x <= 0; 0 where that would be denormal. */
kb_value kf_att_weight(kb *b, kb_value x);
/** Scores, weights and values of the group's page, added to what its pairs have. */
void kf_att_page(kf_att *t, kf_att_group *g);

/** The number of slot |s| (with parameters from |h| on) at |pair|, one lane. */
kb_value kf_att_row_slot(kf_att *t, const kf_slot *s, const kf_att_pair *pair);
/** The same with parameters h, q, k - after |score|, unless NULL - at the keys |first|.. (i64);
 * |t->lanes| numbers, or predicates. */
kb_value kf_att_key_slot(kf_att *t, const kf_slot *s, const kf_att_pair *pair, kb_value score,
                         kb_value first);

#endif
