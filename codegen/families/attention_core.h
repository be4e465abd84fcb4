/* SPDX-License-Identifier: Apache-2.0 */
/* attention_core - tile functions for streaming softmax attention over a paged cache (CPU).
 *
 * Like matmul.h it owns loops, tiling and arithmetic and knows nothing of graphs: hooks say where
 * queries, pages and results are and what mask and score are.
 *
 * One tile is a block of token rows and one kv head with its |group| query heads, so that keys and
 * values are read once for all of them. The rows of a tile may belong to several sequences; each
 * sequence's part is computed apart:
 *
 *   Q[row, head][d] = q * scale                                  O = 0, m = -inf, l = 0
 *   for each page of the sequence's keys, ascending:
 *       S = Q K                      [rows*group][page]
 *       s = valid(key) and mask ? score(s) : -inf
 *       m' = max(m, s); P = exp(s - m'); l = l * exp(m - m') + sum P; O = O * exp(m - m')
 *       O += P V
 *   out[row, head] = l > 0 ? O / l : 0
 *
 * (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867; Dao et
 * al., arXiv:2205.14135.) Pages start at multiples of |page| whatever the tile, so a row's result
 * does not depend on tile_rows, on the rows beside it or on the number of workers. Slots of a page
 * beyond the last key are never used, whatever they hold.
 */
#ifndef KF_CODEGEN_FAMILIES_ATTENTION_CORE_H
#define KF_CODEGEN_FAMILIES_ATTENTION_CORE_H

#include "codegen/cpu/kernel_builder.h"

typedef struct kf_attention_config {
    uint32_t kv_heads;
    uint32_t group;    /* query heads that share a kv head */
    uint32_t head_dim; /* any */
    uint32_t page;     /* keys of a page: multiple of 16 */
    kb_elem kv_elem;   /* KB_F32, KB_F16 or KB_BF16 */
    float scale;
    uint32_t max_rows;  /* bound on the token rows of a call */
    uint32_t tile_rows; /* token rows of a tile */
    uint32_t mr;        /* rows of the register tile */
    uint32_t lanes;     /* f32 lanes of a vector: 8 or 16 */
} kf_attention_config;

/** What mask and score may depend on. |head| is the query head 0 .. kv_heads*group-1; all i64. */
typedef struct kf_attention_at {
    kb_value seq;
    kb_value row;
    kb_value head;
    kb_value key; /* absolute position of lane 0's key; lane i is key + i */
} kf_attention_at;

typedef struct kf_attention_hooks {
    void *user;
    /** Token rows of the call. */
    kb_value (*rows)(kb *b, void *user);
    /** Sequence of a token row (ascending with the row). */
    kb_value (*seq)(kb *b, void *user, kb_value row);
    /** Rows [lo, hi) of a sequence, and its keys in view (past + new). */
    void (*seq_rows)(kb *b, void *user, kb_value seq, kb_value *out_lo, kb_value *out_hi);
    kb_value (*keys)(kb *b, void *user, kb_value seq);
    /** Keys [lo, hi) that rows row_lo .. row_hi-1 of |seq| can see at all; others need not be
     * looked at. NULL: all keys in view. The result is clipped to those. */
    void (*key_range)(kb *b, void *user, kb_value seq, kb_value row_lo, kb_value row_hi,
                      kb_value *out_lo, kb_value *out_hi);
    /** Query elements d .. d+lanes-1 as f32; lanes is config.lanes or 1. */
    kb_value (*query)(kb *b, void *user, kb_value row, kb_value head, kb_value d, uint32_t lanes);
    /** The kv head's part of page number |index| of a sequence: keys [head_dim][page], values
     * [page][head_dim]. */
    void (*page)(kb *b, void *user, kb_value seq, kb_value index, kb_value kv_head,
                 kb_value *out_keys, kb_value *out_values);
    /** Changes scaled scores, lanes keys from at->key on. NULL: unchanged. */
    kb_value (*score)(kb *b, void *user, const kf_attention_at *at, kb_value s);
    /** i1 lanes: may the row see the keys. NULL: all that are in view. */
    kb_value (*mask)(kb *b, void *user, const kf_attention_at *at, uint32_t lanes);
    /** Stores result elements d .. d+lanes-1. */
    void (*store)(kb *b, void *user, kb_value row, kb_value head, kb_value d, kb_value v,
                  uint32_t lanes);
} kf_attention_hooks;

/** Fills the tiling; kv_heads, group, head_dim, page, kv_elem, scale and max_rows must be set. */
void kf_attention_configure(kf_attention_config *cfg, uint32_t lanes, uint32_t regs);

/** Number of tiles of a call with |rows| token rows. */
uint32_t kf_attention_tiles(const kf_attention_config *cfg, uint32_t rows);

/** Scratch bytes a worker needs. */
uint64_t kf_attention_scratch_bytes(const kf_attention_config *cfg);

/** Emits the body of the current tile function. */
void kf_emit_attention_tile(kb *b, const kf_attention_config *cfg, const kf_attention_hooks *hooks);

#endif
