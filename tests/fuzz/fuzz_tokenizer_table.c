/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_tokenizer_table - a sound compiled tokenizer with bytes written over it: it is refused, or
 * text goes through it. The input is a list of writes (2 bytes place, 2 bytes kind and value), then
 * text. */
#include "frontend/tokenizer_json.h"
#include "runtime/kf_tok_table.h"
#include "runtime/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define WRITE_BYTES 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ADDED(id, text, flags)                                                                     \
    "{\"id\":" id ",\"content\":\"" text "\",\"single_word\":" flags ",\"lstrip\":" flags          \
    ",\"rstrip\":" flags ",\"normalized\":" flags ",\"special\":true}"

static const char json[] =
    "{\"version\":\"1.0\",\"added_tokens\":[" ADDED("0", "<s>", "false") "," ADDED(
        "7", "aa",
        "true") "],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
                "\"NFKD\"},{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},"
                "{\"type\":\"Prepend\",\"prepend\":\"a\"},{\"type\":\"Replace\","
                "\"pattern\":{\"Regex\":\"c+\"},\"content\":\"b\"}]},"
                "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                "\"Metaspace\","
                "\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"split\":true},{\"type\":"
                "\"Punctuation\"}]},"
                "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
                "{\"id\":"
                "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],"
                "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[0],\"tokens\":[\"<s>\"]}}},"
                "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
                "\"pattern\":{\"String\":"
                "\"_\"},\"content\":\" "
                "\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","
                "\"content\":\" "
                "\",\"start\":1,\"stop\":2},{\"type\":\"Replace\",\"pattern\":{\"String\":\"ab\"},"
                "\"content\":\"x\"}]},\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"fuse_unk\":"
                "true,"
                "\"byte_fallback\":true,\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"ab\":3,\"abab\":4,"
                "\"u\":5,"
                "\"<0xC3>\":6},\"merges\":[\"a b\",\"ab ab\"]}}";

/* Half of the places are in the header and half of the values are large or small numbers. */
static void write_over(uint8_t *table, uint64_t size, const uint8_t *w)
{
    static const uint32_t words[] = {0, 1, 2, 64, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    uint64_t place = (uint64_t)w[0] << 8 | w[1];
    uint64_t words_in = ((w[2] & 1) != 0 ? sizeof(kf_tok_header) : size) / 4;
    uint32_t value = (w[2] & 2) != 0 ? words[w[3] & 7] : w[3];
    memcpy(table + place % words_in * 4, &value, (w[2] & 4) != 0 ? 4 : 1);
}

static void use(const kf_tokenizer *tok, const char *text, size_t len)
{
    kf_tok_scratch *scratch = NULL;
    kf_tok_stream *stream = NULL;
    const uint32_t *ids;
    const char *out;
    size_t n_ids, out_len;
    if (kf_tok_scratch_create(tok, &scratch) != KF_OK ||
        kf_tok_stream_create(tok, false, &stream) != KF_OK)
        abort();
    if (kf_tokenizer_encode(tok, scratch, text, len, true, &ids, &n_ids) == KF_OK) {
        for (size_t i = 0; i < n_ids; i++)
            (void)kf_tok_stream_push(stream, ids[i], &out, &out_len);
        (void)kf_tok_stream_finish(stream, &out, &out_len);
    }
    kf_tok_stream_destroy(stream);
    kf_tok_scratch_destroy(scratch);
}

/* Compiled once; it lives as long as the process. */
static const void *sound_table(uint64_t *out_size_bytes)
{
    static const void *sound;
    static uint64_t size_bytes;
    if (sound == NULL) {
        kf_arena *arena = kf_arena_create("fuzz");
        kf_diags *diags = kf_diags_create(arena);
        if (!kf_tokenizer_compile(arena, diags, KF_STR("x"), KF_STR(json), &sound, &size_bytes))
            abort();
    }
    *out_size_bytes = size_bytes;
    return sound;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "<s> abab aa \xC3\xA9! ccc  ";
    uint64_t table_bytes;
    const void *sound = sound_table(&table_bytes);
    kf_tokenizer *tok = NULL;
    uint8_t *table = malloc(table_bytes); /* of its exact size, so that reading beyond is seen */
    if (table == NULL)
        abort();
    memcpy(table, sound, table_bytes);
    size_t n_writes = size > 0 ? data[0] % 16u : 0;
    size_t at = size > 0 ? 1 : 0;
    for (; n_writes > 0 && size - at >= WRITE_BYTES; n_writes--, at += WRITE_BYTES)
        write_over(table, table_bytes, data + at);
    if (kf_tokenizer_open(table, table_bytes, NULL, &tok, NULL) == KF_OK) {
        use(tok, text, sizeof text - 1);
        use(tok, (const char *)data + at, size - at);
    }
    kf_tokenizer_close(tok);
    free(table);
    return 0;
}
