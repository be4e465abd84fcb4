/* SPDX-License-Identifier: Apache-2.0 */
/* The packed file: what is right opens, everything else is refused with a sentence. */
#include "runtime/internal.h"
#include "tests/unit/mini_model.h"
#include "tests/unit/support.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { WEIGHTS_AT = 4096, MAX_FILE = 64 * 1024, N_PROBE_IDS = 5 };

typedef struct packed {
    _Alignas(4096) unsigned char bytes[MAX_FILE];
    uint64_t size;
    kf_model model; /* the mini model with the digest of |bytes| */
} packed;

static packed good;
static char last_error[1024];

static void keep_error(void *user, kf_log_level level, const char *message)
{
    (void)user;
    if (level == KF_LOG_ERROR)
        snprintf(last_error, sizeof last_error, "%s", message);
}

static const kf_logger log_hook = {keep_error, NULL};

static kf_artifact_header *header_of(packed *p)
{
    return (kf_artifact_header *)(void *)p->bytes;
}

static kf_artifact_section *sections_of(packed *p)
{
    return (kf_artifact_section *)(void *)(p->bytes + sizeof(kf_artifact_header));
}

static void seal(packed *p)
{
    kf_artifact_header *h = header_of(p);
    h->header_digest = kf_artifact_header_digest(h, sections_of(p));
    p->model = mini_model;
    p->model.header_digest = h->header_digest;
}

static void write_file(const char *path, const packed *p)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p->bytes, 1, p->size, f), p->size);
    assert_int_equal(fclose(f), 0);
}

/* What random_weights would make, as a packed file with a probe that is filled in afterwards. */
static void pack(packed *p)
{
    static const uint64_t seed = 7;
    kf_options o = {.random_seed = &seed, .threads = 1};
    kf_engine *e;
    assert_int_equal(kf_open(&mini_model, &o, &e), KF_OK);
    memset(p, 0, sizeof *p);
    memcpy(p->bytes + WEIGHTS_AT, e->weights, mini_model.weights_bytes);
    uint64_t probe_at = (WEIGHTS_AT + mini_model.weights_bytes + 4095) / 4096 * 4096;
    uint64_t probe_size = sizeof(kf_probe_header) + 4 * (N_PROBE_IDS + MINI_VOCAB);
    kf_artifact_section *s = sections_of(p);
    s[0] = (kf_artifact_section){"weights",  KF_SECTION_WEIGHTS,       0,
                                 WEIGHTS_AT, mini_model.weights_bytes, 0};
    s[0].digest = kf_digest_bytes(p->bytes + WEIGHTS_AT, mini_model.weights_bytes);
    s[1] = (kf_artifact_section){"probe", KF_SECTION_PROBE, 0, probe_at, probe_size, 0};
    p->size = probe_at + probe_size;
    *header_of(p) = (kf_artifact_header){
        .version = KF_ARTIFACT_VERSION, .n_sections = 2, .file_bytes = p->size, .model = "mini"};
    memcpy(header_of(p)->magic, KF_ARTIFACT_MAGIC, 8);
    seal(p);

    unsigned char *probe = p->bytes + probe_at;
    kf_probe_header ph = {0, N_PROBE_IDS, MINI_VOCAB};
    int32_t ids[N_PROBE_IDS] = {1, 5, 9, 2, 40};
    kf_session *session;
    assert_int_equal(kf_session_open(e, &session), KF_OK);
    assert_int_equal(kf_session_prefill(session, 0, ids, N_PROBE_IDS, 0), KF_OK);
    memcpy(probe + sizeof ph, ids, sizeof ids);
    memcpy(probe + sizeof ph + sizeof ids, kf_session_logits(session, 0), MINI_VOCAB * 4);
    memcpy(probe, &ph, sizeof ph);
    ph.digest = kf_digest_bytes(probe + 8, probe_size - 8);
    memcpy(probe, &ph, sizeof ph);
    kf_session_close(session);
    kf_close(e);
}

static int setup(void **state)
{
    (void)state;
    pack(&good);
    write_file("mini.kfw", &good);
    return 0;
}

static kf_status parse(const packed *p)
{
    kf_artifact a;
    last_error[0] = '\0';
    return kf_artifact_parse(&a, p->bytes, p->size, "test.kfw", &log_hook);
}

/* Published XXH64 values (seed 0), one of them longer than a stripe. */
static void test_digest_is_xxh64(void **state)
{
    (void)state;
    assert_true(kf_digest_bytes("", 0) == UINT64_C(0xEF46DB3751D8E999));
    assert_true(kf_digest_bytes("abc", 3) == UINT64_C(0x44BC2CF5AD770999));
    static const char text[] = "The quick brown fox jumps over the lazy dog";
    assert_true(kf_digest_bytes(text, sizeof text - 1) == UINT64_C(0x0B242D361FDA71BC));
    unsigned char data[257];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        for (size_t cut = 0; cut <= n; cut += 13) {
            kf_digest d;
            kf_digest_init(&d);
            kf_digest_add(&d, data, cut);
            kf_digest_add(&d, data + cut, n - cut);
            assert_true(kf_digest_end(&d) == kf_digest_bytes(data, n));
        }
    }
}

static void test_opens_and_runs(void **state)
{
    (void)state;
    static const uint64_t seed = 7;
    const int32_t ids[] = {3, 1, 4, 1, 5};
    const kf_options how[2] = {{.random_seed = &seed, .log = keep_error},
                               {.weights_path = "mini.kfw", .log = keep_error}};
    float logits[2][MINI_VOCAB];
    for (int i = 0; i < 2; i++) {
        kf_engine *e;
        kf_session *s;
        assert_int_equal(kf_open(&good.model, &how[i], &e), KF_OK);
        assert_int_equal(kf_session_open(e, &s), KF_OK);
        assert_int_equal(kf_session_prefill(s, 0, ids, 5, 0), KF_OK);
        memcpy(logits[i], kf_session_logits(s, 0), sizeof logits[i]);
        kf_session_close(s);
        kf_close(e);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
}

static void test_embedded(void **state)
{
    (void)state;
    kf_model m = good.model;
    m.embedded_start = good.bytes;
    m.embedded_end = good.bytes + good.size;
    kf_options o = {.log = keep_error};
    kf_engine *e;
    assert_int_equal(kf_open(&m, &o, &e), KF_OK);
    kf_close(e);
    m.embedded_end--;
    assert_int_equal(kf_open(&m, &o, &e), KF_ERR_IO);
}

static void test_mismatch_names_both(void **state)
{
    (void)state;
    kf_model m = good.model;
    m.header_digest ^= 1;
    m.name = "other";
    kf_options o = {.weights_path = "mini.kfw", .log = keep_error};
    kf_engine *e;
    assert_int_equal(kf_open(&m, &o, &e), KF_ERR_IO);
    char digest[2][20];
    snprintf(digest[0], sizeof digest[0], "%016llx", (unsigned long long)good.model.header_digest);
    snprintf(digest[1], sizeof digest[1], "%016llx", (unsigned long long)m.header_digest);
    assert_non_null(strstr(last_error, digest[0]));
    assert_non_null(strstr(last_error, digest[1]));
    assert_non_null(strstr(last_error, "'mini'"));
    assert_non_null(strstr(last_error, "'other'"));
    o.weights_path = "no-such-file.kfw";
    assert_int_equal(kf_open(&m, &o, &e), KF_ERR_IO);
    assert_non_null(strstr(last_error, "no-such-file.kfw"));
    o.weights_path = ".";
    assert_int_equal(kf_open(&m, &o, &e), KF_ERR_IO);
}

static void test_every_length_is_refused(void **state)
{
    (void)state;
    static packed p;
    p = good;
    for (p.size = 0; p.size < good.size; p.size++) {
        assert_int_equal(parse(&p), KF_ERR_IO);
        assert_true(last_error[0] != '\0');
    }
    assert_int_equal(parse(&p), KF_OK);
    p.size++;
    assert_int_equal(parse(&p), KF_ERR_IO);
}

static void test_every_header_bit_is_checked(void **state)
{
    (void)state;
    static packed p;
    p = good;
    size_t n = sizeof(kf_artifact_header) + 2 * sizeof(kf_artifact_section);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        p.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_equal(parse(&p), KF_ERR_IO);
        p.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_int_equal(parse(&p), KF_OK);
}

/* Wrong tables whose digest is right: the structure itself must be refused. */
static void test_hostile_tables(void **state)
{
    (void)state;
    static packed p;
    for (int i = 0;; i++) {
        p = good;
        kf_artifact_header *h = header_of(&p);
        kf_artifact_section *s = sections_of(&p);
        if (i == 0)
            s[0].offset = UINT64_MAX - 4095;
        else if (i == 1)
            s[0].size_bytes = UINT64_MAX;
        else if (i == 2)
            s[1].offset = s[0].offset; /* overlap */
        else if (i == 3)
            s[0].offset += 64; /* not aligned */
        else if (i == 4)
            s[0].offset = 0; /* the header itself */
        else if (i == 5)
            s[1].kind = KF_SECTION_WEIGHTS; /* two of a kind */
        else if (i == 6)
            s[0].kind = 77;
        else if (i == 7)
            s[0].kind = KF_SECTION_TOKENIZER; /* no weights */
        else if (i == 8)
            memset(s[0].name, 'x', sizeof s[0].name);
        else if (i == 9)
            memset(h->model, 'x', sizeof h->model);
        else if (i == 10)
            h->n_sections = KF_ARTIFACT_MAX_SECTIONS + 1;
        else if (i == 11)
            h->n_sections = UINT32_MAX;
        else if (i == 12)
            h->version++;
        else if (i == 13)
            memset(p.bytes + s[1].offset + 8, 0xFF, 8); /* probe of 4 G ids */
        else if (i == 14)
            s[1].size_bytes = 3;
        else
            break;
        if (h->n_sections <= KF_ARTIFACT_MAX_SECTIONS)
            seal(&p);
        assert_int_equal(parse(&p), KF_ERR_IO);
        assert_true(last_error[0] != '\0');
    }
}

static void test_random_damage_never_crashes(void **state)
{
    (void)state;
    static packed p;
    uint64_t rng = test_seed(11);
    for (uint32_t i = 0; i < scaled(20000); i++) {
        memcpy(p.bytes, good.bytes, 512);
        p.size = good.size;
        for (int k = 0; k < 4; k++)
            p.bytes[random_u64(&rng) % 256] = (unsigned char)random_u64(&rng);
        if (header_of(&p)->n_sections <= KF_ARTIFACT_MAX_SECTIONS)
            seal(&p);
        kf_status status = parse(&p);
        assert_true(status == KF_OK || status == KF_ERR_IO);
    }
}

/* ---- verify, as a user calls it ---------------------------------------------------------------
 */

static int run_main(const kf_model *m, char **argv, int argc)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("stdout.txt", "w", stdout) || !freopen("stderr.txt", "w", stderr))
            _exit(99);
        int rc = kf_main(m, argc, argv);
        fflush(NULL);
        _exit(rc);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_verify_finds_damage(void **state)
{
    (void)state;
    static packed p;
    char *argv[] = {"mini", "verify", "--weights", "mini.kfw", "-q", NULL};
    assert_int_equal(run_main(&good.model, argv, 5), 0);
    p = good;
    p.bytes[WEIGHTS_AT + 1000] ^= 1;
    write_file("damaged.kfw", &p);
    argv[3] = "damaged.kfw";
    assert_int_equal(run_main(&p.model, argv, 5), KF_ERR_VERIFY);
    p = good; /* other weights under a right digest: only the probe can tell */
    p.bytes[WEIGHTS_AT + 10] ^= 0x40;
    sections_of(&p)[0].digest = kf_digest_bytes(p.bytes + WEIGHTS_AT, mini_model.weights_bytes);
    seal(&p);
    write_file("damaged.kfw", &p);
    assert_int_equal(run_main(&p.model, argv, 5), KF_ERR_VERIFY);
    p = good;
    p.bytes[sections_of(&p)[1].offset + 40] ^= 1;
    write_file("damaged.kfw", &p);
    assert_int_equal(run_main(&p.model, argv, 5), KF_ERR_VERIFY);
}

/* ---- While it runs ----------------------------------------------------------------------------
 */

/* Starts `run --jsonl FIFO --weights |weights|` in a child and returns the writing end of the FIFO:
 * opening it waits for the child, which has mapped its weights by then. */
static int start_child(const char *weights, pid_t *out_pid)
{
    char *argv[] = {"mini",          "run", "--jsonl", "fifo", "--weights",
                    (char *)weights, "-n",  "20",      NULL};
    unlink("fifo");
    assert_int_equal(mkfifo("fifo", 0600), 0);
    fflush(NULL);
    *out_pid = fork();
    if (*out_pid == 0) {
        if (!freopen("stdout.txt", "w", stdout) || !freopen("stderr.txt", "w", stderr))
            _exit(99);
        int rc = kf_main(&good.model, 8, argv);
        fflush(NULL);
        _exit(rc);
    }
    int fd = open("fifo", O_WRONLY);
    assert_true(fd >= 0);
    return fd;
}

static int end_child(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_file_shrinks_while_mapped(void **state)
{
    (void)state;
    static const char request[] = "{\"ids\": [1, 2]}\n";
    pid_t pid;
    write_file("shrinks.kfw", &good);
    int fd = start_child("shrinks.kfw", &pid);
    assert_int_equal(truncate("shrinks.kfw", WEIGHTS_AT), 0);
    assert_int_equal(write(fd, request, sizeof request - 1), sizeof request - 1);
    close(fd);
    assert_int_equal(end_child(pid), KF_ERR_IO);
}

static void test_interrupt(void **state)
{
    (void)state;
    pid_t pid;
    int fd = start_child("mini.kfw", &pid);
    assert_int_equal(kill(pid, SIGINT), 0);
    close(fd); /* the signal may have come before the child began to read */
    assert_int_equal(end_child(pid), 128 + SIGINT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest_is_xxh64),
        cmocka_unit_test(test_opens_and_runs),
        cmocka_unit_test(test_embedded),
        cmocka_unit_test(test_mismatch_names_both),
        cmocka_unit_test(test_every_length_is_refused),
        cmocka_unit_test(test_every_header_bit_is_checked),
        cmocka_unit_test(test_hostile_tables),
        cmocka_unit_test(test_random_damage_never_crashes),
        cmocka_unit_test(test_verify_finds_damage),
        cmocka_unit_test(test_file_shrinks_while_mapped),
        cmocka_unit_test(test_interrupt),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
