/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_read - what the readers of tokenizer.json's parts share; not for others. Every function
 * that returns bool has reported to the sink when it returns false. */
#ifndef KF_FRONTEND_TOKENIZER_READ_H
#define KF_FRONTEND_TOKENIZER_READ_H

#include "base/diag.h"
#include "frontend/tokenizer_table.h"

#include <jansson.h>

typedef struct kf_tok_reader {
    kf_tok_builder b;
    kf_arena *scratch; /* Owned by kf_tokenizer_compile. */
    kf_diags *diags;
    kf_loc loc;
    uint32_t n_vocab; /* entries of the model's vocabulary */
} kf_tok_reader;

/** Report and return false. |path| is where in the JSON. */
bool kf_tokr_unsupported(kf_tok_reader *r, const char *path, const char *what);
bool kf_tokr_malformed(kf_tok_reader *r, const char *path, const char *what);

/** "parent.key" and "parent[index]". */
const char *kf_tokr_path(kf_tok_reader *r, const char *parent, const char *key);
const char *kf_tokr_item(kf_tok_reader *r, const char *parent, size_t index);

kf_str kf_tokr_value(json_t *string);
bool kf_tokr_string(kf_tok_reader *r, const char *path, json_t *obj, const char *key, kf_str *out);
/** |fallback| is used when the key is absent or null; NULL: it must be there. */
bool kf_tokr_bool(kf_tok_reader *r, const char *path, json_t *obj, const char *key,
                  const bool *fallback, bool *out);

/* The parts; |value| may be NULL or null. */
bool kf_tokr_normalizer(kf_tok_reader *r, const char *path, json_t *value);
bool kf_tokr_pre_tokenizer(kf_tok_reader *r, const char *path, json_t *value);
bool kf_tokr_post_processor(kf_tok_reader *r, const char *path, json_t *value);
bool kf_tokr_decoder(kf_tok_reader *r, const char *path, json_t *value);

#endif
