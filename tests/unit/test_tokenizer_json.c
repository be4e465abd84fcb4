/* SPDX-License-Identifier: Apache-2.0 */
/* test_tokenizer_json - what tokenizer.json may say and what not, limits, damaged tables, failing
 * memory, and the rewriting of patterns. */
#include "frontend/pattern.h"
#include "frontend/tokenizer_json.h"
#include "runtime/kf_tok_table.h"
#include "runtime/tokenizer.h"
#include "tests/unit/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MODEL "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define FILE_WITH(member)    "{\"version\":\"1.0\"," member ",\"model\":" MODEL "}"
#define FILE_OF_MODEL(model) "{\"version\":\"1.0\",\"model\":" model "}"

static kf_arena *arena;

static int setup(void **state)
{
    (void)state;
    arena = kf_arena_create("test");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kf_arena_destroy(arena);
    return 0;
}

/* Compiles; on failure *out_first is the first diagnostic. */
static bool compile(kf_str json, const void **out_table, uint64_t *out_size, int *out_exit,
                    const kf_diag **out_first)
{
    kf_diags *diags = kf_diags_create(arena);
    bool ok =
        kf_tokenizer_compile(arena, diags, KF_STR("tokenizer.json"), json, out_table, out_size);
    *out_exit = kf_diags_exit_status(diags);
    *out_first = kf_diags_first(diags);
    return ok;
}

static kf_tokenizer *open_json(const char *json, const kf_allocator *alloc)
{
    const void *table;
    uint64_t size;
    int exit_status;
    const kf_diag *first;
    kf_tokenizer *tok = NULL;
    const char *error = NULL;
    if (!compile(kf_str_from(json), &table, &size, &exit_status, &first))
        fail_msg("%.*s", KF_STR_ARG(first->message));
    assert_int_equal(kf_tokenizer_open(table, size, alloc, &tok, &error), KF_OK);
    return tok;
}

/* ---- Diagnostics ----------------------------------------------------------------------------- */

typedef struct refusal {
    const char *json;
    int exit_status;
    const char *message; /* the beginning, which is the path */
} refusal;

static void check_refusals(const refusal *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const void *table;
        uint64_t size;
        int exit_status;
        const kf_diag *first;
        if (compile(kf_str_from(rows[i].json), &table, &size, &exit_status, &first))
            fail_msg("accepted: %s", rows[i].json);
        if (exit_status != rows[i].exit_status ||
            !kf_str_starts_with(first->message, rows[i].message))
            fail_msg("%s\n gives %d: %.*s", rows[i].json, exit_status, KF_STR_ARG(first->message));
    }
}

static void unsupported_features_name_their_path(void **state)
{
    static const refusal rows[] = {
        {FILE_OF_MODEL("{\"type\":\"WordPiece\",\"vocab\":{}}"), 4, "model.type: "},
        {FILE_OF_MODEL("{\"type\":\"Unigram\",\"vocab\":[]}"), 4, "model.type: "},
        {FILE_OF_MODEL("{\"vocab\":{}}"), 4, "model.type: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}"), 4,
         "model.dropout: "},
        {FILE_OF_MODEL(
             "{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{},\"merges\":[]}"),
         4, "model.end_of_word_suffix: "},
        {FILE_OF_MODEL(
             "{\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\",\"vocab\":{},\"merges\":[]}"),
         4, "model.continuing_subword_prefix: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"future\":1,\"vocab\":{},\"merges\":[]}"), 4,
         "model.future: "},
        {"{\"version\":\"2.0\",\"model\":" MODEL "}", 4, "version: "},
        {FILE_WITH("\"future\":1"), 4, "future: "},
        {FILE_WITH("\"normalizer\":{\"type\":\"StripAccents\"}"), 4, "normalizer.type: "},
        {FILE_WITH("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
                   "{\"type\":\"Precompiled\"}]}"),
         4, "normalizer.normalizers[1].type: "},
        {FILE_WITH("\"normalizer\":{\"type\":\"NFC\",\"future\":1}"), 4, "normalizer.future: "},
        {FILE_WITH("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"), 4, "pre_tokenizer.type: "},
        {FILE_WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"},"
                   "\"behavior\":\"Isolated\",\"invert\":false}"),
         4, "pre_tokenizer.pattern: "},
        {FILE_WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"\"},"
                   "\"behavior\":\"Isolated\",\"invert\":false}"),
         4, "pre_tokenizer.pattern: "},
        {FILE_WITH("\"post_processor\":{\"type\":\"RobertaProcessing\"}"), 4,
         "post_processor.type: "},
        {FILE_WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":"
                   "{\"id\":\"B\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}"),
         4, "post_processor.single[0]: "},
        {FILE_WITH("\"decoder\":{\"type\":\"WordPiece\"}"), 4, "decoder.type: "},
        {FILE_WITH("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
                   "{\"type\":\"ByteFallback\"}]}"),
         4, "decoder.decoders[1]: "}};
    (void)state;
    check_refusals(rows, sizeof rows / sizeof *rows);
}

static void malformed_files_name_their_path(void **state)
{
    static const refusal rows[] = {
        {"", 1, ""},
        {"[]", 1, "tokenizer: "},
        {"{\"version\":\"1.0\",\"version\":\"1.0\"}", 1, "duplicate"},
        {"{\"version\":\"1.0\"}", 1, "model: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"), 1,
         "model.vocab: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"), 1,
         "model.vocab: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":1.5},\"merges\":[]}"), 1,
         "model.vocab: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":9999999},\"merges\":[]}"), 1,
         "model.vocab: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}"), 1,
         "model.merges[0]: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}"), 1,
         "model.merges[0]: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}"), 1,
         "model.merges[0]: "},
        {FILE_OF_MODEL("{\"type\":\"BPE\",\"unk_token\":\"u\",\"vocab\":{\"a\":0},\"merges\":[]}"),
         1, "model.unk_token: "},
        {FILE_WITH("\"added_tokens\":[{\"id\":3,\"content\":\"x\"}]"), 1,
         "added_tokens[0].single_word: "},
        {FILE_WITH("\"normalizer\":{\"type\":\"Prepend\"}"), 1, "normalizer.prepend: "},
        {FILE_WITH("\"normalizer\":7"), 1, "normalizer: "},
        {FILE_WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
                   "\"behavior\":\"Sideways\",\"invert\":false}"),
         1, "pre_tokenizer.behavior: "},
        {FILE_WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\"ab\",\"start\":0,\"stop\":0}"), 1,
         "decoder.content: "},
        {FILE_WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1,\"stop\":0}"), 1,
         "decoder: "}};
    (void)state;
    check_refusals(rows, sizeof rows / sizeof *rows);
}

static void warnings_do_not_stop(void **state)
{
    static const char *const rows[] = {
        FILE_WITH("\"truncation\":{\"max_length\":3}"),
        FILE_WITH("\"added_tokens\":[{\"id\":77,\"content\":\"x\",\"single_word\":false,\"lstrip\":"
                  "false,\"rstrip\":false,\"normalized\":false,\"special\":true}]")};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const void *table;
        uint64_t size;
        int exit_status;
        const kf_diag *first;
        assert_true(compile(kf_str_from(rows[i]), &table, &size, &exit_status, &first));
        assert_non_null(first);
        assert_int_equal(kf_diag_infos[first->code].severity, KF_WARNING);
    }
}

/* ---- Limits ---------------------------------------------------------------------------------- */

/* A file whose deepest nesting is |depth|: root, normalizers in sequences. */
static kf_str nested(uint32_t depth)
{
    kf_sbuf b = {.arena = arena};
    kf_sbuf_c(&b, "{\"version\":\"1.0\",\"model\":" MODEL ",\"normalizer\":");
    uint32_t sequences =
        (depth - 2) / 2; /* each is an object and an array; the last object is NFC */
    for (uint32_t i = 0; i < sequences; i++)
        kf_sbuf_c(&b, "{\"type\":\"Sequence\",\"normalizers\":[");
    kf_sbuf_c(&b, (depth - 2) % 2 != 0 ? "{\"type\":\"Sequence\",\"normalizers\":[]}"
                                       : "{\"type\":\"NFC\"}");
    for (uint32_t i = 0; i < sequences; i++)
        kf_sbuf_c(&b, "]}");
    kf_sbuf_c(&b, "}");
    return kf_sbuf_view(&b);
}

static void depth_is_limited(void **state)
{
    const void *table;
    uint64_t size;
    int exit_status;
    const kf_diag *first;
    (void)state;
    assert_true(compile(nested(KF_TOKENIZER_JSON_MAX_DEPTH), &table, &size, &exit_status, &first));
    assert_false(
        compile(nested(KF_TOKENIZER_JSON_MAX_DEPTH + 1), &table, &size, &exit_status, &first));
    assert_int_equal(first->code, KF_E0703);
}

static void size_is_limited(void **state)
{
    static const char json[] = FILE_WITH("\"normalizer\":null");
    const void *table;
    uint64_t size;
    int exit_status;
    const kf_diag *first;
    (void)state;
    char *text = malloc((size_t)KF_TOKENIZER_JSON_MAX_BYTES + 1);
    assert_non_null(text);
    memset(text, ' ', (size_t)KF_TOKENIZER_JSON_MAX_BYTES + 1);
    memcpy(text, json, sizeof json - 1);
    kf_str s = {text, KF_TOKENIZER_JSON_MAX_BYTES};
    assert_true(compile(s, &table, &size, &exit_status, &first));
    s.len++;
    assert_false(compile(s, &table, &size, &exit_status, &first));
    assert_int_equal(first->code, KF_E0702);
    free(text);
}

static void steps_are_limited(void **state)
{
    (void)state;
    for (uint32_t extra = 0; extra < 2; extra++) {
        const void *table;
        uint64_t size;
        int exit_status;
        const kf_diag *first;
        kf_sbuf b = {.arena = arena};
        kf_sbuf_c(&b, "{\"version\":\"1.0\",\"model\":" MODEL
                      ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
        for (uint32_t i = 0; i < KF_TOK_MAX_OPS + extra; i++)
            kf_sbuf_c(&b, i > 0 ? ",{\"type\":\"NFC\"}" : "{\"type\":\"NFC\"}");
        kf_sbuf_c(&b, "]}}");
        assert_int_equal(compile(kf_sbuf_view(&b), &table, &size, &exit_status, &first),
                         extra == 0);
    }
}

/* ---- The table ------------------------------------------------------------------------------- */

/* One of everything. */
#define TOKEN(id, text, more)                                                                      \
    "{\"id\":" id ",\"content\":\"" text "\",\"lstrip\":true,\"rstrip\":true," more                \
    ",\"special\":true}"
static const char rich_json[] = "{\"version\":\"1.0\",\"added_tokens\":[" TOKEN(
    "5", "<s>",
    "\"single_word\":false,\"normalized\":false") "," TOKEN("6", "aa",
                                                            "\"single_word\":true,\"normalized\":"
                                                            "true") "],"
                                                                    "\"normalizer\":{\"type\":"
                                                                    "\"Sequence\",\"normalizers\":["
                                                                    "{\"type\":\"NFKC\"},{\"type\":"
                                                                    "\"Lowercase\"},{\"type\":"
                                                                    "\"Replace\",\"pattern\":{"
                                                                    "\"Regex\":\"c+\"},\"content\":"
                                                                    "\"b\"}]},"
                                                                    "\"pre_tokenizer\":{\"type\":"
                                                                    "\"Sequence\","
                                                                    "\"pretokenizers\":[{\"type\":"
                                                                    "\"Digits\","
                                                                    "\"individual_digits\":true},{"
                                                                    "\"type\":\"Split\","
                                                                    "\"pattern\":{\"Regex\":"
                                                                    "\"\\\\s+\"},\"behavior\":"
                                                                    "\"Removed\",\"invert\":false},"
                                                                    "{\"type\":\"ByteLevel\",\"add_"
                                                                    "prefix_space\":true,\"trim_"
                                                                    "offsets\":"
                                                                    "true}]},\"post_processor\":{"
                                                                    "\"type\":"
                                                                    "\"TemplateProcessing\","
                                                                    "\"single\":[{\"SpecialToken\":"
                                                                    "{"
                                                                    "\"id\":\"<s>\",\"type_id\":0}}"
                                                                    ",{\"Sequence\":{\"id\":\"A\","
                                                                    "\"type_id\":0}}],\"pair\":[],"
                                                                    "\"special_tokens\":{\"<s>\":{"
                                                                    "\"id\":\"<s>\",\"ids\":[5],"
                                                                    "\"tokens\":[\"<s>\"]}}},"
                                                                    "\"decoder\":{\"type\":"
                                                                    "\"Sequence\",\"decoders\":[{"
                                                                    "\"type\":\"Replace\","
                                                                    "\"pattern\":{\"Regex\":"
                                                                    "\"x\"},\"content\":\"y\"},{"
                                                                    "\"type\":\"ByteLevel\"},{"
                                                                    "\"type\":\"Strip\","
                                                                    "\"content\":\" \","
                                                                    "\"start\":1,\"stop\":1},{"
                                                                    "\"type\":\"Replace\","
                                                                    "\"pattern\":{\"String\":"
                                                                    "\"ab\"},\"content\":"
                                                                    "\"AB\"}]},\"model\":{\"type\":"
                                                                    "\"BPE\",\"unk_token\":\"u\","
                                                                    "\"fuse_unk\":true,\"byte_"
                                                                    "fallback\":"
                                                                    "true,\"vocab\":{\"a\":0,\"b\":"
                                                                    "1,\"ab\":2,\"u\":3,\"<0x64>\":"
                                                                    "4},\"merges\":[\"a b\"]}}";
static const char rich_text[] = "<s> aB  abab 12 \xC3\xA9 d aa ccc<s>";

/* Encodes and decodes without looking at the result; errors are allowed, crashes are not. */
static kf_status use(const kf_tokenizer *tok)
{
    kf_tok_scratch *scratch = NULL;
    kf_tok_stream *stream = NULL;
    const uint32_t *ids;
    const char *text;
    size_t n_ids, len;
    kf_status status = kf_tok_scratch_create(tok, &scratch);
    if (status == KF_OK)
        status = kf_tok_stream_create(tok, true, &stream);
    if (status == KF_OK)
        status =
            kf_tokenizer_encode(tok, scratch, rich_text, sizeof rich_text - 1, true, &ids, &n_ids);
    if (status == KF_OK)
        status = kf_tok_stream_decode(stream, ids, n_ids, &text, &len);
    kf_tok_stream_destroy(stream);
    kf_tok_scratch_destroy(scratch);
    return status;
}

static void same_text_gives_same_bytes_anywhere(void **state)
{
    const void *a, *b;
    uint64_t size_a, size_b;
    int exit_status;
    const kf_diag *first;
    (void)state;
    assert_true(compile(kf_str_from(rich_json), &a, &size_a, &exit_status, &first));
    assert_true(compile(kf_str_from(rich_json), &b, &size_b, &exit_status, &first));
    assert_int_equal(size_a, size_b);
    assert_memory_equal(a, b, size_a);
    char *moved = malloc(size_a + 8);
    assert_non_null(moved);
    memcpy(moved + 8, a, size_a);
    kf_tokenizer *tok;
    const char *error;
    assert_int_equal(kf_tokenizer_open(moved + 8, size_a, NULL, &tok, &error), KF_OK);
    assert_int_equal(use(tok), KF_OK);
    uint32_t id;
    assert_true(kf_tokenizer_find(tok, "<s>", 3, &id));
    assert_int_equal(id, 5);
    assert_true(kf_tokenizer_is_special(tok, 5));
    assert_int_equal(kf_tokenizer_n_ids(tok), 7);
    kf_tokenizer_close(tok);
    free(moved);
}

static void truncated_tables_are_refused(void **state)
{
    const void *table;
    uint64_t size;
    int exit_status;
    const kf_diag *first;
    (void)state;
    assert_true(compile(kf_str_from(rich_json), &table, &size, &exit_status, &first));
    for (uint64_t n = 0; n < size; n += n < 512 ? 1 : 61) {
        kf_tokenizer *tok;
        const char *error = NULL;
        uint64_t *copy = malloc(n + 8);
        assert_non_null(copy);
        memcpy(copy, table, n);
        assert_int_equal(kf_tokenizer_open(copy, n, NULL, &tok, &error), KF_ERR_IO);
        assert_non_null(error);
        assert_null(tok);
        free(copy);
    }
}

/* Whatever is written over the table, opening it fails or the tokenizer can be used. */
static void damaged_tables_do_no_harm(void **state)
{
    static const uint32_t words[] = {0, 1, 7, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    const void *table;
    uint64_t size, seed = test_seed(11);
    int exit_status;
    const kf_diag *first;
    uint32_t opened = 0, refused = 0;
    (void)state;
    assert_true(compile(kf_str_from(rich_json), &table, &size, &exit_status, &first));
    uint64_t *copy = malloc(size);
    assert_non_null(copy);
    for (uint32_t i = 0; i < scaled(20000); i++) {
        memcpy(copy, table, size);
        for (uint64_t k = random_u64(&seed) % 4 + 1; k > 0; k--) {
            bool in_header = random_u64(&seed) % 2 == 0;
            uint64_t at = random_u64(&seed) % ((in_header ? sizeof(kf_tok_header) : size) / 4);
            uint64_t word = random_u64(&seed);
            uint32_t value = word % 3 == 0 ? (uint32_t)(word >> 32) % 512 : words[word >> 8 & 7];
            memcpy((char *)copy + 4 * at, &value, 4);
        }
        kf_tokenizer *tok = NULL;
        const char *error;
        if (kf_tokenizer_open(copy, size, NULL, &tok, &error) == KF_OK) {
            (void)use(tok);
            opened++;
        } else {
            refused++;
        }
        kf_tokenizer_close(tok);
    }
    free(copy);
    assert_true(opened > 0 && refused > 0);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

typedef struct failing {
    uint32_t n_calls, fail_at; /* the call that fails; 0: none */
    size_t held_bytes;
} failing;

static void *failing_alloc(void *user, size_t size_bytes, size_t align)
{
    failing *f = (failing *)user;
    (void)align;
    if (++f->n_calls == f->fail_at)
        return NULL;
    f->held_bytes += size_bytes;
    return calloc(1, size_bytes);
}

static void failing_free(void *user, void *p, size_t size_bytes)
{
    ((failing *)user)->held_bytes -= size_bytes;
    free(p);
}

static void every_failing_allocation_is_reported(void **state)
{
    const void *table;
    uint64_t size;
    int exit_status;
    const kf_diag *first;
    (void)state;
    assert_true(compile(kf_str_from(rich_json), &table, &size, &exit_status, &first));
    failing f = {0};
    const kf_allocator alloc = {failing_alloc, failing_free, &f};
    bool reached_end = false;
    uint32_t n_reported = 0;
    for (uint32_t at = 1; !reached_end; at++) {
        kf_tokenizer *tok = NULL;
        f = (failing){.fail_at = at};
        kf_status status = kf_tokenizer_open(table, size, &alloc, &tok, NULL);
        if (status == KF_OK)
            status = use(tok);
        kf_tokenizer_close(tok);
        reached_end = f.n_calls < at;
        /* Without memory for machine code PCRE2 goes on with its interpreter. */
        assert_true(status == KF_ERR_MEMORY || status == KF_OK);
        assert_true(!reached_end || status == KF_OK);
        n_reported += status == KF_ERR_MEMORY;
        assert_int_equal(f.held_bytes, 0);
        assert_true(at < 1000);
    }
    assert_true(n_reported >= 20);
}

/* ---- Patterns -------------------------------------------------------------------------------- */

static void patterns_are_rewritten(void **state)
{
    static const struct {
        const char *onig, *pcre;
    } rows[] = {{"a|b", "a|b"},
                {"(a)(?:b)", "(?:a)(?:b)"},
                {"(?i:'s)", "(?i:'s)"},
                {"(?i)a", "(?i)a"},
                {"(?i:sa)ss", "(?i:sa)ss"},
                {"(?i:s|s[st])", "(?i:s|s[\\x{73}\\x{74}])"},
                {"a++b?+c*?", "a++b?+c*?"},
                {"a{2,3}+", "(?:a{2,3})+"},
                {"(ab){2}+", "(?:(?:ab){2})+"},
                {"a{,3}", "a{0,3}"},
                {"a{x}", "a\\{x\\}"},
                {"[\\r\\n]", "[\\x{D}\\x{A}]"},
                {"[a-c\\-]", "[\\x{61}-\\x{63}\\x{2D}]"},
                {"[-a]", "[\\x{2D}\\x{61}]"},
                {"\\h", "[0-9A-Fa-f]"},
                {"\\p{Lt}", "[\\p{Lt}]"},
                {"\\P{Zs}", "[^\\p{Zs}]"},
                {"\\p{^Zs}", "[^\\p{Zs}]"},
                {"\\u4e00", "\\x{4E00}"},
                {"\\.", "\\x{2E}"},
                {"\xE4\xB8\x80", "\xE4\xB8\x80"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kf_str pcre, error;
        if (!kf_pattern_translate(arena, kf_str_from(rows[i].onig), &pcre, &error))
            fail_msg("%s: %.*s", rows[i].onig, KF_STR_ARG(error));
        if (!kf_str_eq_c(pcre, rows[i].pcre))
            fail_msg("%s gives %.*s", rows[i].onig, KF_STR_ARG(pcre));
    }
}

static void unsupported_patterns_are_refused(void **state)
{
    static const char *const rows[] = {
        "[a&&b]",  "[a[b]]",        "[[:alpha:]]", "[]a]",     "[a-\\d]",    "[\\d-a]", "[\\D]",
        "[b-a]",   "(?<n>a)",       "(?m:a)",      "(?x)a",    "a(?i)b",     "\\1",     "\\k<n>",
        "\\R",     "\\X",           "\\K",         "\\G",      "\\p{Greek}", "\\p{Mn}", "(?i:ss)",
        "(?i)aFi", "(?i:\xC3\xA9)", "(?i:[^a])",   "(?i:\\s)", "\\pL",       "a{2}?",   "a**",
        "*a",      "a{70000}",      "(a",          "a)",       "[a",         "\\",      "\\xFF",
        "\\ud800", "\\x{110000}"};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kf_str pcre, error;
        if (kf_pattern_translate(arena, kf_str_from(rows[i]), &pcre, &error))
            fail_msg("%s gives %.*s", rows[i], KF_STR_ARG(pcre));
        assert_true(error.len > 0);
    }
}

/* ---- Small models ---------------------------------------------------------------------------- */

static void expect_ids(const char *json, const char *text, const uint32_t *expected, size_t n)
{
    kf_tokenizer *tok = open_json(json, NULL);
    kf_tok_scratch *scratch;
    const uint32_t *ids;
    size_t n_ids;
    assert_int_equal(kf_tok_scratch_create(tok, &scratch), KF_OK);
    assert_int_equal(kf_tokenizer_encode(tok, scratch, text, strlen(text), true, &ids, &n_ids),
                     KF_OK);
    assert_int_equal(n_ids, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], expected[i]);
    kf_tok_scratch_destroy(scratch);
    kf_tokenizer_close(tok);
}

/* Values from the tokenizers library. */
static void unknown_characters_are_fused_or_not(void **state)
{
#define UNK(fuse)                                                                                  \
    FILE_OF_MODEL("{\"type\":\"BPE\",\"unk_token\":\"u\",\"fuse_unk\":" fuse                       \
                  ",\"vocab\":{\"a\":0,\"u\":1},\"merges\":[]}")
    static const uint32_t fused[] = {0, 1, 0}, single[] = {0, 1, 1, 0};
    (void)state;
    expect_ids(UNK("true"), "axya", fused, 3);
    expect_ids(UNK("false"), "axya", single, 4);
#undef UNK
}

static void merges_go_by_rank_then_from_the_left(void **state)
{
#define RANKS                                                                                      \
    FILE_OF_MODEL("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,\"ab\":3,\"aab\":4},"     \
                  "\"merges\":[\"a a\",\"a b\",\"a ab\"]}")
    static const uint32_t left[] = {2, 0}, ranks[] = {2, 3}, first[] = {2, 1};
    (void)state;
    expect_ids(RANKS, "aaa", left, 2);
    expect_ids(RANKS, "aaab", ranks, 2);
    expect_ids(RANKS, "aab", first, 2);
#undef RANKS
}

#define ADDED(id, text, flags) "{\"id\":" #id ",\"content\":\"" text "\",\"single_word\":" flags "}"
#define FLAGS(word, left, right, normal, special)                                                  \
    #word ",\"lstrip\":" #left ",\"rstrip\":" #right ",\"normalized\":" #normal                    \
          ",\"special\":" #special
#define FILE_OF_ADDED(added, more)                                                                 \
    "{\"version\":\"1.0\",\"added_tokens\":[" added "]," more "\"decoder\":{\"type\":\"Fuse\"},"   \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\" \":2,\"x\":3,\"A\":4,\"c\":5},"     \
    "\"merges\":[]}}"

/* Values from the tokenizers library. */
static void added_tokens_take_white_space_once(void **state)
{
    static const char json[] =
        FILE_OF_ADDED(ADDED(6, "ab", FLAGS(false, false, true, false, false)) "," ADDED(
                          7, "  ", FLAGS(false, true, false, true, false)),
                      "");
    static const uint32_t taken[] = {6, 3}, own[] = {3, 7, 6};
    (void)state;
    expect_ids(json, "ab  x", taken, 2);
    expect_ids(json, "x  ab", own, 3);
}

static void added_tokens_keep_to_whole_words(void **state)
{
    static const char json[] =
        FILE_OF_ADDED(ADDED(6, "ab", FLAGS(true, false, false, false, false)) "," ADDED(
                          7, "xx", FLAGS(false, true, false, false, false)),
                      "");
    static const uint32_t inside[] = {0, 0, 1, 2, 6}, whole[] = {6, 6}, left[] = {0, 7, 2, 1};
    (void)state;
    expect_ids(json, "aab ab", inside, 5);
    expect_ids(json, "ab.ab", whole, 2);
    expect_ids(json, "a  xx b", left, 4);
}

static void normalized_special_tokens_decode_as_normalized(void **state)
{
    static const char json[] = FILE_OF_ADDED(ADDED(6, "AB", FLAGS(false, false, false, true, true)),
                                             "\"normalizer\":{\"type\":\"Lowercase\"},");
    static const uint32_t ids[] = {3, 6, 3};
    (void)state;
    expect_ids(json, "xAbx", ids, 3);
    kf_tokenizer *tok = open_json(json, NULL);
    kf_tok_stream *stream;
    const char *text;
    size_t len;
    assert_int_equal(kf_tok_stream_create(tok, true, &stream), KF_OK);
    assert_int_equal(kf_tok_stream_decode(stream, ids, 3, &text, &len), KF_OK);
    assert_int_equal(len, 4);
    assert_memory_equal(text, "xabx", 4);
    kf_tok_stream_destroy(stream);
    kf_tokenizer_close(tok);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(unsupported_features_name_their_path),
        TEST(malformed_files_name_their_path),
        TEST(warnings_do_not_stop),
        TEST(depth_is_limited),
        TEST(size_is_limited),
        TEST(steps_are_limited),
        TEST(same_text_gives_same_bytes_anywhere),
        TEST(truncated_tables_are_refused),
        TEST(damaged_tables_do_no_harm),
        TEST(every_failing_allocation_is_reported),
        TEST(patterns_are_rewritten),
        TEST(unsupported_patterns_are_refused),
        TEST(unknown_characters_are_fused_or_not),
        TEST(merges_go_by_rank_then_from_the_left),
        TEST(added_tokens_take_white_space_once),
        TEST(added_tokens_keep_to_whole_words),
        TEST(normalized_special_tokens_decode_as_normalized),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
