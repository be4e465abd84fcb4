/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer - text to token ids and back, by a compiled table (kf_tok_table.h).
 *
 * The results are those of the library that defines tokenizer.json (Hugging Face tokenizers, 0.23).
 * It reads no JSON; that is the compiler's business. No globals: a kf_tokenizer is immutable and
 * may be shared by threads; a scratch and a stream belong to one thread at a time. All memory comes
 * from the allocator that was given.
 */
#ifndef KF_RUNTIME_TOKENIZER_H
#define KF_RUNTIME_TOKENIZER_H

#include "runtime/kf_model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kf_tokenizer kf_tokenizer;
typedef struct kf_tok_scratch kf_tok_scratch;
typedef struct kf_tok_stream kf_tok_stream;

/** Checks every offset and index of |table| and compiles its patterns. |table| is aligned to 8
 * bytes, borrowed, and must not change while the tokenizer is open. |alloc| NULL: malloc; it is
 * copied. KF_ERR_IO: the table is damaged, |out_error| (may be NULL) is a static sentence saying
 * where. */
kf_status kf_tokenizer_open(const void *table, size_t size_bytes, const kf_allocator *alloc,
                            kf_tokenizer **out_tok, const char **out_error);
/** Scratches and streams must be gone before. NULL is allowed. */
void kf_tokenizer_close(kf_tokenizer *tok);

/** One more than the largest token id. */
uint32_t kf_tokenizer_n_ids(const kf_tokenizer *tok);

/** The text of |id| as the vocabulary spells it (not decoded), borrowed; false if there is none. */
bool kf_tokenizer_text(const kf_tokenizer *tok, uint32_t id, const char **out_text,
                       size_t *out_len);
bool kf_tokenizer_is_special(const kf_tokenizer *tok, uint32_t id);
/** Finds an added token or a vocabulary entry by its exact spelling. */
bool kf_tokenizer_find(const kf_tokenizer *tok, const char *text, size_t len, uint32_t *out_id);

/** Working memory of one encoder; grows to what the longest text needed. */
kf_status kf_tok_scratch_create(const kf_tokenizer *tok, kf_tok_scratch **out_scratch);
void kf_tok_scratch_destroy(kf_tok_scratch *scratch);

/** Encodes |len| bytes of UTF-8. |add_special|: with the ids of the post-processor's template. The
 * ids live in |scratch| until its next use. KF_ERR_INPUT: not UTF-8, or a pattern ran over its
 * match limits; KF_ERR_MEMORY. */
kf_status kf_tokenizer_encode(const kf_tokenizer *tok, kf_tok_scratch *scratch, const char *text,
                              size_t len, bool add_special, const uint32_t **out_ids,
                              size_t *out_n_ids);

/** A decoder that gives out text as soon as it is decided, in whole characters only. The pieces put
 *  together equal the text decoded at once. A run of byte-fallback tokens is held until it ends,
 * for a later byte decides whether the earlier ones are a character. */
kf_status kf_tok_stream_create(const kf_tokenizer *tok, bool skip_special,
                               kf_tok_stream **out_stream);
void kf_tok_stream_destroy(kf_tok_stream *stream);
/** Adds one id (unknown ids are ignored). The text lives until the next call on |stream|. */
kf_status kf_tok_stream_push(kf_tok_stream *stream, uint32_t id, const char **out_text,
                             size_t *out_len);
/** Ends the text; what is still incomplete becomes U+FFFD. Resets the stream. */
kf_status kf_tok_stream_finish(kf_tok_stream *stream, const char **out_text, size_t *out_len);
/** Decodes |n_ids| ids at once (resetting |stream| first). */
kf_status kf_tok_stream_decode(kf_tok_stream *stream, const uint32_t *ids, size_t n_ids,
                               const char **out_text, size_t *out_len);

#endif
