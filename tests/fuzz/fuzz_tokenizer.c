/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_tokenizer - tokenizer.json: what the compiler accepts, the runtime opens, and text survives
 * it. */
#include "frontend/tokenizer_json.h"
#include "runtime/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const kf_tokenizer *tok)
{
    static const char text[] = "Hello,  world \xc3\xa9\xf0\x9f\x98\x80 <s>\n 123";
    kf_tok_scratch *scratch = NULL;
    kf_tok_stream *stream = NULL;
    if (kf_tok_scratch_create(tok, &scratch) || kf_tok_stream_create(tok, false, &stream))
        abort();
    const uint32_t *ids = NULL;
    size_t n_ids = 0;
    if (kf_tokenizer_encode(tok, scratch, text, sizeof text - 1, true, &ids, &n_ids) == 0) {
        const char *out = NULL;
        size_t len = 0;
        for (size_t i = 0; i < n_ids; i++) {
            if (ids[i] >= kf_tokenizer_n_ids(tok))
                abort();
            /* A pattern of the decoder may run over its match limits. */
            if (kf_tok_stream_push(stream, ids[i], &out, &len) > KF_ERR_INPUT)
                abort();
        }
        if (kf_tok_stream_finish(stream, &out, &len) > KF_ERR_INPUT)
            abort();
    }
    kf_tok_stream_destroy(stream);
    kf_tok_scratch_destroy(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kf_arena *arena = kf_arena_create("fuzz");
    kf_diags *diags = kf_diags_create(arena);
    kf_str json = {(const char *)data, (uint32_t)size};
    const void *table = NULL;
    uint64_t table_bytes = 0;
    bool ok =
        kf_tokenizer_compile(arena, diags, KF_STR("tokenizer.json"), json, &table, &table_bytes);
    if (ok == (kf_diags_errors(diags) > 0))
        abort();
    if (ok) {
        kf_tokenizer *tok = NULL;
        const char *error = NULL;
        if (kf_tokenizer_open(table, table_bytes, NULL, &tok, &error)) {
            fprintf(stderr, "refused by the runtime: %s\n", error);
            abort();
        }
        round_trip(tok);
        kf_tokenizer_close(tok);
    }
    kf_arena_destroy(arena);
    return 0;
}
