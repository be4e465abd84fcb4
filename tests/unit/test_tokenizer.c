/* SPDX-License-Identifier: Apache-2.0 */
/* test_tokenizer - compiled tokenizers against the tokenizers library: the files of
 * tests/golden/tokenizer (FORMAT.md there), streaming, concurrent encoders, large inputs. */
#include "base/fs.h"
#include "frontend/tokenizer_json.h"
#include "runtime/tokenizer.h"
#include "runtime/utf8.h"
#include "tests/unit/support.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN_MAX_BYTES (64u << 20)
#define SAME_TEXT        0xFFFFFFFFu

/* A tokenizer with everything that is needed to use it. */
typedef struct bench {
    kf_arena *arena;
    kf_tokenizer *tok;
    kf_tok_scratch *scratch;
    kf_tok_stream *all, *no_special;
} bench;

static const char *path_of(kf_arena *arena, const char *name, const char *file)
{
    const char *root = getenv("KF_SOURCE_DIR");
    if (strcmp(name, "shakespeare") == 0 && strcmp(file, "tokenizer.json") == 0)
        return kf_strf(arena, "%s/examples/shakespeare/model/%s", root, file).ptr;
    return kf_strf(arena, "%s/tests/golden/tokenizer/%s%s%s", root, name, name[0] ? "/" : "", file)
        .ptr;
}

static void open_bench(bench *b, const char *path)
{
    const void *table;
    uint64_t size_bytes;
    const char *error = NULL;
    b->arena = kf_arena_create("test");
    kf_diags *diags = kf_diags_create(b->arena);
    bool ok = kf_tokenizer_compile_file(b->arena, diags, path, &table, &size_bytes);
    kf_diags_print(diags, stderr, false);
    assert_true(ok);
    assert_int_equal(kf_tokenizer_open(table, size_bytes, NULL, &b->tok, &error), KF_OK);
    assert_int_equal(kf_tok_scratch_create(b->tok, &b->scratch), KF_OK);
    assert_int_equal(kf_tok_stream_create(b->tok, false, &b->all), KF_OK);
    assert_int_equal(kf_tok_stream_create(b->tok, true, &b->no_special), KF_OK);
}

static void close_bench(bench *b)
{
    kf_tok_stream_destroy(b->all);
    kf_tok_stream_destroy(b->no_special);
    kf_tok_scratch_destroy(b->scratch);
    kf_tokenizer_close(b->tok);
    kf_arena_destroy(b->arena);
}

/* ---- Golden files ---------------------------------------------------------------------------- */

typedef struct cursor {
    kf_str data;
    uint32_t at;
} cursor;

static cursor read_golden(kf_arena *arena, const char *name, const char *file)
{
    cursor c = {0};
    const char *path = path_of(arena, name, file);
    if (kf_fs_read(arena, path, GOLDEN_MAX_BYTES, &c.data) != 0)
        fail_msg("cannot read %s", path);
    return c;
}

static uint32_t take_int(cursor *c, uint32_t n_bytes)
{
    uint32_t v = 0;
    assert_true(c->data.len - c->at >= n_bytes);
    for (uint32_t i = 0; i < n_bytes; i++)
        v |= (uint32_t)(uint8_t)c->data.ptr[c->at++] << (8 * i);
    return v;
}

static kf_str take_bytes(cursor *c, uint32_t len)
{
    assert_true(c->data.len - c->at >= len);
    c->at += len;
    return (kf_str){c->data.ptr + c->at - len, len};
}

static kf_str take_text(cursor *c, kf_str same)
{
    uint32_t len = take_int(c, 4);
    return len == SAME_TEXT ? same : take_bytes(c, len);
}

static uint32_t take_ids(cursor *c, uint32_t *ids, uint32_t max)
{
    uint32_t n = take_int(c, 2);
    assert_true(n <= max);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = take_int(c, 2);
    return n;
}

static uint32_t fnv(uint32_t h, const void *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)data)[i]) * 16777619u;
    return h;
}

/* Decodes at once and token by token: the same text, in whole characters, for every split. */
static void check_decode(kf_tok_stream *stream, const uint32_t *ids, size_t n, kf_str expected)
{
    const char *text;
    size_t len, at = 0;
    assert_int_equal(kf_tok_stream_decode(stream, ids, n, &text, &len), KF_OK);
    assert_int_equal(len, expected.len);
    assert_memory_equal(len ? text : "", expected.len ? expected.ptr : "", len);
    for (size_t i = 0; i <= n; i++) {
        kf_status status = i < n ? kf_tok_stream_push(stream, ids[i], &text, &len)
                                 : kf_tok_stream_finish(stream, &text, &len);
        assert_int_equal(status, KF_OK);
        assert_true(len <= expected.len - at);
        assert_true(len == 0 || memcmp(text, expected.ptr + at, len) == 0);
        assert_true(kf_utf8_valid(text, len));
        at += len;
    }
    assert_int_equal(at, expected.len);
}

static void check_chosen(bench *b, const char *name)
{
    cursor strings = read_golden(b->arena, "", "strings_chosen.bin");
    cursor want = read_golden(b->arena, name, "chosen.bin");
    uint32_t n = take_int(&strings, 4);
    uint32_t *expected = KF_NEW_N(b->arena, uint32_t, 65536);
    assert_int_equal(n, 2000);
    assert_int_equal(take_int(&want, 4), n);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t *ids;
        size_t n_ids;
        kf_str s = take_bytes(&strings, take_int(&strings, 2));
        uint32_t n_expected = take_ids(&want, expected, 65536);
        assert_int_equal(kf_tokenizer_encode(b->tok, b->scratch, s.ptr, s.len, true, &ids, &n_ids),
                         KF_OK);
        bool same =
            n_ids == n_expected && (n_ids == 0 || memcmp(ids, expected, n_ids * sizeof *ids) == 0);
        if (!same)
            fail_msg("%s: chosen string %u: '%.*s'", name, i, KF_STR_ARG(s));
        kf_str text = take_text(&want, s);
        check_decode(b->all, ids, n_ids, text);
        check_decode(b->no_special, ids, n_ids, take_text(&want, text));
    }
}

static void check_random(bench *b, const char *name)
{
    cursor strings = read_golden(b->arena, "", "strings_random.bin");
    cursor want = read_golden(b->arena, name, "random.bin");
    uint32_t n = take_int(&strings, 4);
    assert_int_equal(n, 10000);
    assert_int_equal(take_int(&want, 4), n);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t *ids;
        const char *text;
        size_t n_ids, len;
        kf_str s = take_bytes(&strings, take_int(&strings, 2));
        assert_int_equal(kf_tokenizer_encode(b->tok, b->scratch, s.ptr, s.len, true, &ids, &n_ids),
                         KF_OK);
        if (fnv(2166136261u, ids, n_ids * sizeof *ids) != take_int(&want, 4))
            fail_msg("%s: ids of random string %u: '%.*s'", name, i, KF_STR_ARG(s));
        assert_int_equal(kf_tok_stream_decode(b->all, ids, n_ids, &text, &len), KF_OK);
        if (fnv(2166136261u, text, len) != take_int(&want, 4))
            fail_msg("%s: text of random string %u: '%.*s'", name, i, KF_STR_ARG(s));
        kf_str once = kf_str_dup(b->arena, (kf_str){text, (uint32_t)len});
        check_decode(b->all, ids, n_ids, once);
    }
}

static void check_decoding(bench *b, const char *name)
{
    cursor want = read_golden(b->arena, name, "decode.bin");
    uint32_t n = take_int(&want, 4);
    uint32_t *ids = KF_NEW_N(b->arena, uint32_t, 65536);
    assert_int_equal(n, 500);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_ids = take_ids(&want, ids, 65536);
        kf_str text = take_text(&want, KF_STR(""));
        check_decode(b->all, ids, n_ids, text);
        check_decode(b->no_special, ids, n_ids, take_text(&want, text));
    }
}

static void check_golden(const char *name)
{
    bench b;
    kf_arena *arena = kf_arena_create("path");
    open_bench(&b, path_of(arena, name, "tokenizer.json"));
    check_chosen(&b, name);
    check_random(&b, name);
    check_decoding(&b, name);
    close_bench(&b);
    kf_arena_destroy(arena);
}

static void gpt2_is_as_the_library(void **state)
{
    (void)state;
    check_golden("gpt2");
}

static void llama2_is_as_the_library(void **state)
{
    (void)state;
    check_golden("llama2");
}

static void llama3_is_as_the_library(void **state)
{
    (void)state;
    check_golden("llama3");
}

static void shakespeare_is_as_the_library(void **state)
{
    (void)state;
    check_golden("shakespeare");
}

/* ---- Concurrency and size -------------------------------------------------------------------- */

typedef struct job {
    const kf_tokenizer *tok;
    kf_str text;
    uint32_t hash;
    bool ok;
} job;

static void *encode_job(void *arg)
{
    job *j = (job *)arg;
    kf_tok_scratch *scratch;
    j->hash = 2166136261u;
    j->ok = kf_tok_scratch_create(j->tok, &scratch) == KF_OK;
    for (uint32_t at = 0; j->ok && at < j->text.len; at += 1000) {
        const uint32_t *ids;
        size_t n;
        uint32_t len = j->text.len - at < 1000 ? j->text.len - at : 1000;
        j->ok =
            kf_tokenizer_encode(j->tok, scratch, j->text.ptr + at, len, false, &ids, &n) == KF_OK;
        j->hash = fnv(j->hash, ids, n * sizeof *ids);
    }
    kf_tok_scratch_destroy(scratch);
    return NULL;
}

static void threads_share_one_table(void **state)
{
    enum { N_THREADS = 4 };
    (void)state;
    bench b;
    kf_str text;
    kf_arena *arena = kf_arena_create("path");
    open_bench(&b, path_of(arena, "llama3", "tokenizer.json"));
    const char *path =
        kf_strf(arena, "%s/examples/shakespeare/tinyshakespeare.txt", getenv("KF_SOURCE_DIR")).ptr;
    assert_int_equal(kf_fs_read(arena, path, GOLDEN_MAX_BYTES, &text), 0);
    text.len = text.len > 200000 ? 200000 : text.len;
    job jobs[N_THREADS + 1];
    pthread_t threads[N_THREADS];
    for (int i = 0; i <= N_THREADS; i++)
        jobs[i] = (job){.tok = b.tok, .text = text};
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_job, &jobs[i]), 0);
    (void)encode_job(&jobs[N_THREADS]);
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(jobs[i].ok);
        assert_int_equal(jobs[i].hash, jobs[N_THREADS].hash);
    }
    close_bench(&b);
    kf_arena_destroy(arena);
}

/* Inputs on which careless merging, ordering of marks or splitting is quadratic; the time limit of
 * the test is the assertion. */
static void megabyte_inputs_are_fast(void **state)
{
    static const char *const parts[] = {
        "a", " ", "\xCC\x81\xCC\x96", "ab ", "\xE6\x97\xA5", "\n ", "\xE2\x96\x81", "0"};
    static const char *const names[] = {"gpt2", "llama2", "llama3"};
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        bench b;
        kf_arena *arena = kf_arena_create("path");
        open_bench(&b, path_of(arena, names[k], "tokenizer.json"));
        size_t size = (size_t)scaled(1000000);
        char *text = KF_NEW_N(arena, char, size + 8);
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
            size_t len = 0;
            const uint32_t *ids;
            size_t n_ids;
            for (; len + strlen(parts[p]) <= size; len += strlen(parts[p]))
                memcpy(text + len, parts[p], strlen(parts[p]));
            assert_int_equal(kf_tokenizer_encode(b.tok, b.scratch, text, len, false, &ids, &n_ids),
                             KF_OK);
            const char *out;
            size_t out_len;
            assert_int_equal(kf_tok_stream_decode(b.all, ids, n_ids, &out, &out_len), KF_OK);
            bool is_meta = strcmp(parts[p], "\xE2\x96\x81") == 0 && k == 1; /* means a space */
            assert_int_equal(out_len, is_meta ? len / 3 : len);
            assert_true(is_meta || memcmp(out, text, len) == 0);
        }
        close_bench(&b);
        kf_arena_destroy(arena);
    }
}

static void bad_utf8_is_refused(void **state)
{
    static const char *const bad[] = {"\xFF", "a\xC3", "\xED\xA0\x80", "\xC0\x80",
                                      "\xF4\x90\x80\x80"};
    (void)state;
    bench b;
    kf_arena *arena = kf_arena_create("path");
    open_bench(&b, path_of(arena, "gpt2", "tokenizer.json"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const uint32_t *ids;
        size_t n;
        assert_int_equal(
            kf_tokenizer_encode(b.tok, b.scratch, bad[i], strlen(bad[i]), true, &ids, &n),
            KF_ERR_INPUT);
    }
    close_bench(&b);
    kf_arena_destroy(arena);
}

/* ---- UTF-8 ----------------------------------------------------------------------------------- */

typedef struct collected {
    char text[64];
    size_t len;
} collected;

static bool collect(void *user, const char *text, size_t len)
{
    collected *c = (collected *)user;
    memcpy(c->text + c->len, text, len);
    c->len += len;
    return true;
}

/* The examples of the Unicode Standard 16.0, tables 3-8 to 3-11, for every way to cut them in two.
 */
static void lossy_decoding_replaces_maximal_subparts(void **state)
{
#define R KF_UTF8_REPLACEMENT
    static const struct {
        const char *bytes, *text;
    } rows[] = {{"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", R R R R R R R R "\x41"},
                {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", R R R R R R R R "\x41"},
                {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", R R R R R "\x41" R R "\x42"},
                {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "\x41"},
                {"\xF0\x9F\x98\x80\xC3\xA9\xE2\x82", "\xF0\x9F\x98\x80\xC3\xA9" R},
                {"\xF0\x9F\x98", R},
                {"plain", "plain"}};
#undef R
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(rows[i].bytes);
        for (size_t cut = 0; cut <= n; cut++) {
            kf_utf8_lossy lossy = {0};
            collected c = {0};
            assert_true(kf_utf8_lossy_feed(&lossy, rows[i].bytes, cut, collect, &c));
            assert_true(kf_utf8_lossy_feed(&lossy, rows[i].bytes + cut, n - cut, collect, &c));
            assert_true(kf_utf8_lossy_finish(&lossy, collect, &c));
            assert_int_equal(c.len, strlen(rows[i].text));
            assert_memory_equal(c.text, rows[i].text, c.len);
        }
    }
}

static void utf8_round_trips_every_scalar_value(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char buf[4];
        uint32_t back, len = kf_utf8_encode(cp, buf);
        bool surrogate = cp >= 0xD800 && cp <= 0xDFFF;
        assert_int_equal(kf_utf8_decode(buf, len, &back), surrogate ? 0 : len);
        assert_true(surrogate || back == cp);
        assert_true(surrogate || (kf_utf8_next(buf, &back) == len && back == cp));
        for (uint32_t n = 1; n < len && !surrogate; n++)
            assert_true(kf_utf8_is_incomplete(buf, n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_is_as_the_library),
        cmocka_unit_test(llama2_is_as_the_library),
        cmocka_unit_test(llama3_is_as_the_library),
        cmocka_unit_test(shakespeare_is_as_the_library),
        cmocka_unit_test(threads_share_one_table),
        cmocka_unit_test(megabyte_inputs_are_fast),
        cmocka_unit_test(bad_utf8_is_refused),
        cmocka_unit_test(lossy_decoding_replaces_maximal_subparts),
        cmocka_unit_test(utf8_round_trips_every_scalar_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
