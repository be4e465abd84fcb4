/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_table - collects what a tokenizer consists of and lays it out as runtime/kf_tok_table.h
 * says. It knows nothing of JSON.
 */
#ifndef KF_FRONTEND_TOKENIZER_TABLE_H
#define KF_FRONTEND_TOKENIZER_TABLE_H

#include "base/str.h"
#include "base/vec.h"
#include "runtime/kf_tok_table.h"

#include <stddef.h>

typedef struct kf_tok_merge {
    uint32_t left, right, id;
} kf_tok_merge;

/** Zero-initialise with .arena set and .unk_id = KF_TOK_NONE. */
typedef struct kf_tok_builder {
    kf_arena *arena;
    uint32_t flags; /* KF_TOK_FLAG_* */
    uint32_t unk_id;
    kf_tok_str word_pattern;
    KF_VEC(char) strings;
    KF_VEC(kf_tok_entry) tokens;
    KF_VEC(kf_tok_merge) merges; /* in order of rank */
    KF_VEC(kf_tok_added) added;
    KF_VEC(kf_tok_op) norm, pre, dec;
    KF_VEC(uint32_t) prefix, suffix;
    kf_tok_vocab_slot *vocab;
    uint32_t n_vocab; /* slots */
} kf_tok_builder;

kf_tok_str kf_tok_builder_str(kf_tok_builder *b, kf_str s);

/** The text of |id| becomes |s|; ids in between become absent. */
void kf_tok_builder_set(kf_tok_builder *b, uint32_t id, kf_str s, uint32_t flags);

/** Builds the hash of all tokens that are KF_TOK_ENTRY_MODEL; call once, when these are complete.
 */
void kf_tok_builder_index(kf_tok_builder *b);

/** Id of a text of the model's vocabulary, or KF_TOK_NONE. Needs the index. */
uint32_t kf_tok_builder_find(const kf_tok_builder *b, kf_str s);

/** Lays out the table in the arena, 64-byte aligned. The same content gives the same bytes. */
void kf_tok_builder_finish(kf_tok_builder *b, const void **out_table, uint64_t *out_size_bytes);

#endif
