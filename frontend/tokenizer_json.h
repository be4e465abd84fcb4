/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_json - compiles a Hugging Face tokenizer.json into the table that the runtime maps.
 *
 * BPE models only (byte-level and SentencePiece-style). Whatever the runtime cannot do exactly as
 * the tokenizers library does is a diagnostic that names the JSON path, never an approximation.
 */
#ifndef KF_FRONTEND_TOKENIZER_JSON_H
#define KF_FRONTEND_TOKENIZER_JSON_H

#include "base/diag.h"

#define KF_TOKENIZER_JSON_MAX_BYTES (128u << 20)
#define KF_TOKENIZER_JSON_MAX_DEPTH 64u

/** Compiles |json|, the text of the file |path| (for messages). The table lives in |arena|, 64-byte
 *  aligned; the same text gives the same bytes. False: reported to |diags|. Not thread safe. */
bool kf_tokenizer_compile(kf_arena *arena, kf_diags *diags, kf_str path, kf_str json,
                          const void **out_table, uint64_t *out_size_bytes);

/** Reads the file and compiles it. */
bool kf_tokenizer_compile_file(kf_arena *arena, kf_diags *diags, const char *path,
                               const void **out_table, uint64_t *out_size_bytes);

#endif
