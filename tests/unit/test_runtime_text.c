/* SPDX-License-Identifier: Apache-2.0 */
/* Text through a produced executable: tokenizer, streaming, stop strings, scoring.
 *
 * The mini model gets weights with which it counts: after token v comes v + 1, whatever stood
 * before. Row v of its table is a vector at angle v * STEP that is longer by GROWTH than the row
 * before, and nothing reaches the cache. Token 63 ends the text.
 */
#include "frontend/tokenizer_json.h"
#include "runtime/internal.h"
#include "tests/unit/mini_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define STEP   0.049087385212341f /* pi / 64, so that 63 is not beside 0 */
#define GROWTH 1.0024f /* about 1 + STEP^2: the product of rows v and w is largest at w = v + 1 */
#define LENGTH 100.0f

/* Byte-level spelling: \u0120 is a blank, \u010a a line end; 3 and 4 are the bytes of U+00E9, 6 to
 * 9 those of U+1F600. */
static const char tokenizer_json[] =
    "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 63, \"content\": \"<|end|>\", \"special\": "
    "true,"
    "\"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false}],"
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": "
    "true},"
    "\"decoder\": {\"type\": \"ByteLevel\"},"
    "\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {\"a\": 0, \"b\": 1, \"\\u0120\": 2,"
    "\"\\u00c3\": 3, \"\\u00a9\": 4, \"c\": 5, \"\\u00f0\": 6, \"\\u0141\": 7, \"\\u013a\": 8,"
    "\"\\u0122\": 9, \"d\": 10, \"e\": 11, \"\\u010a\": 12";

static _Alignas(4096) unsigned char file[64 * 1024];
static kf_model model;
static float table[MINI_VOCAB][2];
static char out[65536], err[65536];

static uint64_t add_section(uint32_t i, const char *name, uint32_t kind, uint64_t at,
                            const void *data, uint64_t size)
{
    kf_artifact_section *s = (kf_artifact_section *)(void *)(file + sizeof(kf_artifact_header)) + i;
    memcpy(file + at, data, size);
    *s = (kf_artifact_section){.kind = kind, .offset = at, .size_bytes = size};
    snprintf(s->name, sizeof s->name, "%s", name);
    s->digest = kf_digest_bytes(data, size);
    return (at + size + 4095) / 4096 * 4096;
}

static void compile_tokenizer(const void **out_table, uint64_t *out_size, kf_arena *arena)
{
    char json[4096];
    int n = snprintf(json, sizeof json, "%s", tokenizer_json);
    for (int id = 13; id < 63; id++) {
        int ch = id < 34 ? 'f' + id - 13 : id < 44 ? '0' + id - 34 : 'A' + id - 44;
        n += snprintf(json + n, sizeof json - (size_t)n, ", \"%c\": %d", ch, id);
    }
    n += snprintf(json + n, sizeof json - (size_t)n, "}}}");
    kf_diags *diags = kf_diags_create(arena);
    kf_str text = {json, (size_t)n};
    if (!kf_tokenizer_compile(arena, diags, KF_STR("test.json"), text, out_table, out_size))
        fail_msg("%.*s", KF_STR_ARG(kf_diags_first(diags)->message));
}

static int setup(void **state)
{
    (void)state;
    static float weights[(MINI_VOCAB + MINI_LAYERS) * MINI_DIM + KF_ARTIFACT_WEIGHT_TAIL / 4];
    for (int v = 0; v < MINI_VOCAB; v++) {
        table[v][0] = LENGTH * powf(GROWTH, (float)v) * cosf(STEP * (float)v);
        table[v][1] = LENGTH * powf(GROWTH, (float)v) * sinf(STEP * (float)v);
        weights[v * MINI_DIM] = table[v][0];
        weights[v * MINI_DIM + 1] = table[v][1];
    }
    kf_arena *arena = kf_arena_create("test");
    const void *tok;
    uint64_t tok_size;
    compile_tokenizer(&tok, &tok_size, arena);
    assert_int_equal(sizeof weights, mini_model.weights_bytes);
    uint64_t at = add_section(0, "weights", KF_SECTION_WEIGHTS, 4096, weights, sizeof weights);
    assert_true(at + tok_size <= sizeof file);
    add_section(1, "tokenizer", KF_SECTION_TOKENIZER, at, tok, tok_size);
    kf_artifact_header *h = (kf_artifact_header *)(void *)file;
    *h = (kf_artifact_header){.version = KF_ARTIFACT_VERSION,
                              .n_sections = 2,
                              .file_bytes = at + tok_size,
                              .model = "mini"};
    memcpy(h->magic, KF_ARTIFACT_MAGIC, 8);
    h->header_digest = kf_artifact_header_digest(
        h, (kf_artifact_section *)(void *)(file + sizeof(kf_artifact_header)));
    model = mini_model;
    model.header_digest = h->header_digest;
    model.embedded_start = file;
    model.embedded_end = file + h->file_bytes;
    kf_arena_destroy(arena);
    return 0;
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void slurp(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    text[fread(text, 1, size - 1, f)] = '\0';
    fclose(f);
}

/* Arguments after the verb, up to NULL; |input| is standard input. */
static int run(const char *input, const char *verb, ...)
{
    char *argv[32] = {(char *)"mini", (char *)verb};
    int argc = 2;
    va_list args;
    va_start(args, verb);
    while ((argv[argc] = va_arg(args, char *)))
        argc++;
    va_end(args);
    put("text.in", input);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("text.out", "w", stdout) || !freopen("text.err", "w", stderr) ||
            !freopen("text.in", "r", stdin))
            _exit(99);
        int rc = kf_main(&model, argc, argv);
        fflush(NULL);
        _exit(rc);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    slurp("text.out", out, sizeof out);
    slurp("text.err", err, sizeof err);
    return WEXITSTATUS(status);
}

static void test_continues_a_prompt(void **state)
{
    (void)state;
    assert_int_equal(run("", "run", "-p", "a", "-n", "12", "--json", NULL), 0);
    assert_string_equal(out,
                        "{\"schema\": \"kerf.run.1\", \"text\": \"b \xC3\xA9"
                        "c\xF0\x9F\x98\x80"
                        "de\\n\", \"prompt_ids\": [0], \"ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "
                        "11, 12]}\n");
    assert_int_equal(run("", "run", "-p", "a", "-n", "11", NULL), 0);
    assert_string_equal(out, "b \xC3\xA9"
                             "c\xF0\x9F\x98\x80"
                             "de\n"); /* a line end is added */
    assert_int_equal(run("", "run", "-p", "a", "-n", "12", NULL), 0);
    assert_string_equal(out, "b \xC3\xA9"
                             "c\xF0\x9F\x98\x80"
                             "de\n"); /* here it is the model's own */
    put("prompt.txt", "fea");
    assert_int_equal(run("", "run", "-f", "prompt.txt", "-n", "1", NULL), 0);
    assert_string_equal(out, "b\n");
    assert_int_equal(run("c d", "run", "-n", "1", NULL), 0);
    assert_string_equal(out, "e\n");
}

static void test_half_a_character_at_the_end(void **state)
{
    (void)state;
    assert_int_equal(run("", "run", "-p", "b", "-n", "2", NULL), 0);
    assert_string_equal(out, " \xEF\xBF\xBD\n");
}

static void test_end_of_text(void **state)
{
    (void)state;
    assert_int_equal(run("", "run", "-p", "P", "-n", "50", "--json", NULL), 0);
    assert_string_equal(out, "{\"schema\": \"kerf.run.1\", \"text\": \"QRS\", \"prompt_ids\": "
                             "[59], \"ids\": [60, 61, 62]}\n");
}

static void test_stop_strings(void **state)
{
    (void)state;
    static const struct {
        const char *stop, *text;
    } cases[] = {
        {"c", "b \xC3\xA9"},
        {"\xC3\xA9", "b "}, /* comes in two tokens */
        {"\xF0\x9F\x98\x80", "b \xC3\xA9"
                             "c"}, /* in four */
        {"b", ""},
        {"de\n", "b \xC3\xA9"
                 "c\xF0\x9F\x98\x80"}, /* held back for two tokens */
        {"dx", "b \xC3\xA9"
               "c\xF0\x9F\x98\x80"
               "de\n"}, /* held back and let go */
        {"cd", "b \xC3\xA9"
               "c\xF0\x9F\x98\x80"
               "de\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char want[64];
        size_t n = strlen(cases[i].text);
        bool has_end = n > 0 && cases[i].text[n - 1] == '\n';
        snprintf(want, sizeof want, "%s%s", cases[i].text, has_end ? "" : "\n");
        assert_int_equal(run("", "run", "-p", "a", "-n", "12", "--stop", cases[i].stop, NULL), 0);
        assert_string_equal(out, want);
        assert_int_equal(
            run("", "run", "-p", "a", "-n", "12", "--stop", "zz", "--stop", cases[i].stop, NULL),
            0);
        assert_string_equal(out, want);
    }
}

static void test_batch_of_prompts(void **state)
{
    (void)state;
    assert_int_equal(run("{\"prompt\": \"a\", \"n\": 2}\n{\"prompt\": \"\\u0063\\uD83D\\ude00d\", "
                         "\"n\": 1}\n",
                         "run", "--jsonl", "-", NULL),
                     0);
    assert_non_null(
        strstr(out, "{\"index\": 0, \"text\": \"b \", \"prompt_ids\": [0], \"ids\": [1, 2]}"));
    assert_non_null(strstr(out,
                           "{\"index\": 1, \"text\": \"e\", \"prompt_ids\": [5, 6, 7, 8, 9, 10], "
                           "\"ids\": [11]}"));
}

static void test_bad_text(void **state)
{
    (void)state;
    assert_int_equal(run("", "run", "-p", "a\xC3", NULL), KF_ERR_INPUT);
    assert_int_equal(run("", "run", "-p", "", NULL), KF_ERR_INPUT);
    assert_int_equal(run("a", "score", "-", NULL), KF_ERR_INPUT);
    assert_int_equal(run("\xFF\xFE", "score", "-", NULL), KF_ERR_INPUT);
}

/* ---- score ----------------------------------------------------------------------------------- */

/* What the model is, in double: logits of |id| at position |pos|. */
static double nats(int id, int pos, int target)
{
    double x[2], sum = 0, at = 0, best = -1e30, logit[MINI_VOCAB];
    for (int i = 0; i < 2; i++)
        x[i] = (double)table[id][i] + 0.01 * (pos % 7);
    for (int v = 0; v < MINI_VOCAB; v++) {
        logit[v] = x[0] * table[v][0] + x[1] * table[v][1];
        best = logit[v] > best ? logit[v] : best;
    }
    for (int v = 0; v < MINI_VOCAB; v++)
        sum += exp(logit[v] - best);
    at = logit[target];
    return log(sum) + best - at;
}

static double field(const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(out, quoted);
    assert_non_null(at);
    return strtod(at + strlen(quoted), NULL);
}

static void test_score_windows(void **state)
{
    (void)state;
    static const char text[] = "abab \xC3\xA9"
                               "dcab";
    static const int ids[] = {0, 1, 0, 1, 2, 3, 4, 10, 5, 0, 1};
    static const char *const windows[] = {"1", "3", "4", "5", "10", "11", "300"};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        double want = 0;
        int window = atoi(windows[i]);
        for (int k = 0; k < 10; k++)
            want += nats(ids[k], k % window, ids[k + 1]);
        assert_int_equal(run(text, "score", "-", "--ctx", windows[i], "--json", NULL), 0);
        assert_true(field("tokens") == 11 && field("tokens_scored") == 10);
        assert_true(field("characters") == 10);
        assert_true(fabs(field("nats") / want - 1) < 1e-5);
        assert_true(fabs(field("nats_per_token") / (want / 10) - 1) < 1e-5);
        assert_true(fabs(field("nats_per_character") / (want / 10) - 1) < 1e-5);
        double perplexity = exp(want / 10);
        if (isfinite(perplexity))
            assert_true(fabs(log(field("perplexity")) / (want / 10) - 1) < 1e-4);
    }
    put("score.txt", text);
    assert_int_equal(run("", "score", "score.txt", "--prefill-chunk", "2", NULL), 0);
    assert_non_null(strstr(out, "nats per token"));
}

/* ---- The library's calls ----------------------------------------------------------------------
 */

static void test_encode_and_decode(void **state)
{
    (void)state;
    kf_engine *e;
    assert_int_equal(kf_open(&model, NULL, &e), KF_OK);
    int32_t ids[4] = {-1, -1, -1, -1};
    size_t n;
    assert_int_equal(kf_encode(e, "ab\xC3\xA9", 4, ids, 3, &n), KF_OK);
    assert_int_equal(n, 4);
    assert_int_equal(ids[2], 3);
    assert_int_equal(ids[3], -1); /* beyond the capacity */
    assert_int_equal(kf_encode(e, "ab\xC3\xA9", 4, ids, 4, &n), KF_OK);
    char text[8] = "xxxxxxx";
    assert_int_equal(kf_decode(e, ids, n, text, 3, &n), KF_OK);
    assert_int_equal(n, 4);
    assert_memory_equal(text, "ab\xC3x", 4);
    assert_int_equal(kf_encode(e, "\xFF", 1, ids, 4, &n), KF_ERR_INPUT);
    kf_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_continues_a_prompt),
        cmocka_unit_test(test_half_a_character_at_the_end),
        cmocka_unit_test(test_end_of_text),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_batch_of_prompts),
        cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_score_windows),
        cmocka_unit_test(test_encode_and_decode),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
