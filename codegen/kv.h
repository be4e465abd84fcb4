/* SPDX-License-Identifier: Apache-2.0 */
/* kv - addresses in the paged cache, as emitted code. The layout is that of runtime/kf_artifact.h:
 * in a page first the keys [heads, head_dim, page], then the values [heads, page, head_dim]; a page
 * holds all layers.
 */
#ifndef KF_CODEGEN_KV_H
#define KF_CODEGEN_KV_H

#include "codegen/pointwise.h"

/** The cache operand of a kernel. */
typedef struct kf_kv {
    const kf_type *type;
    kb_value base; /* the launch's layer of page 0 */
    kb_elem elem;
    int64_t page_stride_bytes;
} kf_kv;

/** |v| is an argument of the body, or what kv_append makes of one. */
kf_kv kf_kv_of(kf_pw *pw, kf_value v);
/** Address of the page |page_id| (i32) of this layer. */
kb_value kf_kv_page(kb *b, const kf_kv *kv, kb_value page_id);
/** Page id of position |pos| (i64) of sequence |seq| (i64); |pages| is the body's i32[S, max]
 * table. */
kb_value kf_kv_page_id(kf_pw *pw, kf_value pages, kb_value seq, kb_value pos, uint32_t page_tokens);
/** Element offsets inside a page: key element |d| and value element |d| of |head| at |slot|. */
kf_coord kf_kv_key_at(kb *b, const kf_kv *kv, kf_coord head, kf_coord d, kf_coord slot);
kf_coord kf_kv_value_at(kb *b, const kf_kv *kv, kf_coord head, kf_coord d, kf_coord slot);

/** Tokens of sequence |seq| (i64) in this call. */
kb_value kf_kv_new_tokens(kf_pw *pw, kf_value seq_start, kb_value seq);
/** Its keys in view: past + new, or with |stored| those of the past. */
kb_value kf_kv_keys(kf_pw *pw, kf_value seq_start, kf_value past, bool stored, kb_value seq);

/** Emits one plane (KF_PLANE_KEYS or VALUES) of kv_append |n| for one row: heads lo..hi-1 (i64),
 * all of D. */
void kf_kv_append_row(kf_pw *pw, const kf_node *n, int plane, kf_coord row, kb_value head_lo,
                      kb_value head_hi);

#endif
