/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of a produced executable, over the mini model with random weights. */
#include "runtime/internal.h"
#include "tests/unit/mini_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char out[65536], err[65536];

static void slurp(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(text, 1, size - 1, f);
    text[n] = '\0';
    fclose(f);
}

/* Splits |line| at blanks, runs it in a child, leaves stdout and stderr in |out| and |err|. */
static int run(const char *line)
{
    char copy[1024], *argv[64];
    int argc = 0;
    snprintf(copy, sizeof copy, "mini %s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("cli.out", "w", stdout) || !freopen("cli.err", "w", stderr) ||
            !freopen("cli.in", "r", stdin))
            _exit(99);
        int rc = kf_main(&mini_model, argc, argv);
        fflush(NULL);
        _exit(rc);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    slurp("cli.out", out, sizeof out);
    slurp("cli.err", err, sizeof err);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    (void)state;
    put("cli.in", "");
    return 0;
}

static void test_help_and_version(void **state)
{
    (void)state;
    static const char *const verbs[] = {"run", "score", "bench", "verify", "info"};
    assert_int_equal(run("--help"), 0);
    char overview[sizeof out];
    memcpy(overview, out, sizeof out);
    for (int i = 0; i < 5; i++) {
        char line[32], head[64];
        assert_non_null(strstr(overview, verbs[i]));
        snprintf(line, sizeof line, "%s --help", verbs[i]);
        assert_int_equal(run(line), 0);
        snprintf(head, sizeof head, "usage: mini %s", verbs[i]);
        assert_memory_equal(out, head, strlen(head));
        assert_string_equal(err, "");
    }
    assert_int_equal(run("--version"), 0);
    assert_non_null(strstr(out, "mini (kerf test"));
    assert_int_equal(run(""), KF_ERR_USAGE);
    assert_string_equal(out, "");
}

static void test_exit_codes(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
        int rc;
    } cases[] = {
        {"fly", "fly", 2},
        {"run --nonsense", "--nonsense", 2},
        {"run -n", "-n", 2},
        {"run -n -3 --ids 1 --random-weights 1", "-3", 2},
        {"run -n 99999999999999999999 --ids 1", "9999", 2},
        {"run --temp nan --ids 1", "nan", 2},
        {"run --top-p 1.5 --ids 1", "1.5", 2},
        {"run --ids 1 -p x", "-p", 2},
        {"run --ids 1,,2 --random-weights 1", "1,,2", 2},
        {"run --ids 1, --random-weights 1", "1,", 2},
        {"run --ids 64 --random-weights 1", "63", 2},
        {"run extra", "extra", 2},
        {"run --json=yes --ids 1", "--json", 2},
        {"run --ids 1 --ctx 301 --random-weights 1", "300", 2},
        {"run --ids 1,2,3 --ctx 2 --random-weights 1", "3 tokens", 2},
        {"run --ids 1 --device cuda:0 --random-weights 1", "cuda:0", 4},
        {"run --ids 1", "without weights", 4},
        {"run -p hello --random-weights 1", "tokenizer", 4},
        {"run --jsonl /nonexistent --random-weights 1", "/nonexistent", 3},
        {"run --ids 1 -n 1 --logits /nonexistent/x.npy --random-weights 1", "/nonexistent", 3},
        {"score", "FILE", 2},
        {"score /nonexistent --random-weights 1", "/nonexistent", 3},
        {"bench -p 290 -n 20 --random-weights 1", "300", 2},
        {"bench -b 5 --random-weights 1", "4", 2},
        {"verify --random-weights 1", "random", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rc = run(cases[i].line);
        if (rc != cases[i].rc || !strstr(err, cases[i].says))
            print_error("%s: exit %d, %s", cases[i].line, rc, err);
        assert_int_equal(rc, cases[i].rc);
        assert_non_null(strstr(err, cases[i].says));
        assert_string_equal(out, "");
    }
}

static void test_run_ids(void **state)
{
    (void)state;
    static const char want[] =
        "{\"schema\": \"kerf.run.1\", \"text\": \"\", \"prompt_ids\": [1, 2, 3], \"ids\": [";
    assert_int_equal(run("run --ids 1,2,3 -n 6 --temp 0 --random-weights 4 --threads 1 --json"), 0);
    assert_memory_equal(out, want, sizeof want - 1);
    char first[sizeof out];
    memcpy(first, out, sizeof out);
    assert_int_equal(run("run --ids=1,2,3 -n6 --random-weights=4 -t 3 --prefill-chunk 1 --json"),
                     0);
    assert_string_equal(out, first);
    assert_int_equal(run("run --ids 1,2,3 -n 6 --temp 2 --seed 1 --random-weights 4 --json"), 0);
    memcpy(first, out, sizeof out);
    assert_int_equal(run("run --ids 1,2,3 -n 6 --temp 2 --seed 1 --random-weights 4 --json"), 0);
    assert_string_equal(out, first);
    assert_int_equal(run("run --ids 1,2,3 -n 6 --temp 2 --seed 2 --random-weights 4 --json"), 0);
    assert_string_not_equal(out, first);
    /* The context ends the text: 300 positions hold 299 + 1 tokens, and one more is made. */
    assert_int_equal(run("run --ids 1 -n 4000 --ignore-eos --random-weights 4 --json"), 0);
    int n = 0;
    for (const char *at = strstr(out, "\"ids\""); *at; at++)
        n += *at == ',';
    assert_int_equal(n + 1, MINI_POSITIONS);
    assert_non_null(strstr(err, "warning"));
}

/* The mini model repeats its last token often; a prompt of the end token ends at once. */
static void test_eos(void **state)
{
    (void)state;
    assert_int_equal(run("run --ids 63,63,63 -n 9 --random-weights 4 --json"), 0);
    assert_non_null(strstr(out, "\"ids\": []"));
    assert_int_equal(run("run --ids 63,63,63 -n 2 --ignore-eos --random-weights 4 --json"), 0);
    assert_non_null(strstr(out, "\"ids\": [63"));
}

static void test_batches(void **state)
{
    (void)state;
    put("cli.in", "{\"ids\": [1, 2, 3], \"n\": 9}\n\n"
                  "{\"ids\":[7],\"n\":2}\r\n"
                  "{\"ids\":[4,5,6,7,8,9,10,11,12],\"n\":4}\n"
                  "{\"n\":5,\"ids\":[20,21]}\n"
                  "{\"ids\":[30,31,32],\"seed\":5}\n"
                  "{\"ids\":[40]}");
    assert_int_equal(run("run --jsonl - -n 3 --prefill-chunk 6 --random-weights 4"), 0);
    char batch[sizeof out];
    memcpy(batch, out, sizeof out);
    static const struct {
        const char *ids;
        int n;
    } alone[] = {{"1,2,3", 9}, {"7", 2},        {"4,5,6,7,8,9,10,11,12", 4},
                 {"20,21", 5}, {"30,31,32", 3}, {"40", 3}};
    for (int i = 0; i < 6; i++) {
        char line[128], key[32];
        snprintf(line, sizeof line, "run --ids %s -n %d --random-weights 4 --json", alone[i].ids,
                 alone[i].n);
        assert_int_equal(run(line), 0);
        snprintf(key, sizeof key, "{\"index\": %d, ", i);
        const char *found = strstr(batch, key);
        assert_non_null(found);
        found += strlen(key);
        const char *alone_text = strstr(out, "\"text\"");
        assert_memory_equal(found, alone_text, strlen(alone_text));
    }
    put("cli.in", "");
}

static void test_bad_requests(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "[1]",
        "{}",
        "{\"ids\": [1]",
        "{\"ids\": [1]} x",
        "{\"ids\": [64]}",
        "{\"ids\": [-1]}",
        "{\"ids\": [1.5]}",
        "{\"ids\": [1], \"ids\": [2]}",
        "{\"ids\": [1], \"prompt\": \"x\"}",
        "{\"ids\": [1], \"temperature\": 1}",
        "{\"ids\": [99999999999999999999999]}",
        "{\"prompt\": \"\\ud800\"}",
        "{\"prompt\": \"\\x\"}",
        "{\"prompt\": \"a",
        "{\"prompt\": \"a\\",
        "{\"prompt\": \"\\u00",
        "{\"ids\": []}",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        put("cli.in", lines[i]);
        int rc = run("run --jsonl - --random-weights 4");
        if (rc != KF_ERR_INPUT)
            print_error("%s: exit %d, %s", lines[i], rc, err);
        assert_int_equal(rc, KF_ERR_INPUT);
    }
    put("cli.in", "");
}

static void read_npy(const char *path, const char *shape, float *data, size_t n)
{
    char header[256];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(header, 1, 10, f), 10);
    assert_memory_equal(header, "\x93NUMPY\x01\x00", 8);
    size_t len = (unsigned char)header[8] | (size_t)(unsigned char)header[9] << 8;
    assert_int_equal((10 + len) % 64, 0);
    assert_int_equal(fread(header, 1, len, f), len);
    header[len] = '\0';
    assert_non_null(strstr(header, "'descr': '<f4', 'fortran_order': False"));
    assert_non_null(strstr(header, shape));
    assert_int_equal(header[len - 1], '\n');
    assert_int_equal(fread(data, sizeof *data, n, f), n);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
}

static void test_logits_files(void **state)
{
    (void)state;
    static float all[20 * MINI_VOCAB], last[MINI_VOCAB];
    assert_int_equal(run("run --ids 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20 -n 0 "
                         "--random-weights 4 --logits last.npy --all-logits all.npy"),
                     0);
    read_npy("all.npy", "(20, 64)", all, 20 * MINI_VOCAB);
    read_npy("last.npy", "(64,)", last, MINI_VOCAB);
    assert_memory_equal(all + 19 * MINI_VOCAB, last, sizeof last);
    assert_int_equal(run("run --ids 1,2,3 -n 1 --random-weights 4 --logits last.npy"), 0);
    read_npy("last.npy", "(64,)", last, MINI_VOCAB);
    assert_memory_equal(all + 2 * MINI_VOCAB, last, sizeof last);
}

static void test_bench_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {"prefill_tokens_per_s", "decode_tokens_per_s",
                                       "weight_bytes_per_token", "read_bandwidth_bytes_per_s",
                                       "decode_bandwidth_fraction"};
    assert_int_equal(run("bench -p 32 -n 8 -b 3 -r 2 --random-weights 4 --json --profile"), 0);
    double value[5];
    const char *at = out;
    for (int i = 0; i < 5; i++) {
        char key[64];
        snprintf(key, sizeof key, "\"%s\": ", keys[i]);
        at = strstr(at, key);
        assert_non_null(at);
        value[i] = strtod(at + strlen(key), NULL);
        assert_true(value[i] > 0);
    }
    assert_string_equal(strchr(at, '}'), "}\n");
    double fraction = value[1] * value[2] / value[3];
    assert_true(value[4] > 0.99 * fraction && value[4] < 1.01 * fraction);
    /* The table has every launch; 2 rounds of 3 prefills and 8 steps: 22 calls a loop-free launch.
     */
    assert_non_null(strstr(err, "embed "));
    assert_non_null(strstr(strstr(err, "head "), " 22 "));
    assert_non_null(strstr(strstr(err, "attend "), " 44 "));
}

static void test_info(void **state)
{
    (void)state;
    assert_int_equal(run("info --json"), 0);
    assert_non_null(strstr(out, "\"weights_digest\": null"));
    assert_non_null(strstr(out, "\"max_positions\": 300"));
    assert_non_null(strstr(out, "\"manifest\": {}"));
    assert_int_equal(run("info"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_run_ids),
        cmocka_unit_test(test_eos),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_logits_files),
        cmocka_unit_test(test_bench_keys),
        cmocka_unit_test(test_info),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
