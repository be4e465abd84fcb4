/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions over the hand-written mini model: the same logits however a text is fed. */
#include "runtime/internal.h"
#include "tests/unit/mini_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Last: it needs the headers above and does not include them. */
#include <cmocka.h>

enum { TEXT = 290 };

static int32_t text[TEXT];
static char last_error[512];

static void keep_error(void *user, kf_log_level level, const char *message)
{
    (void)user;
    if (level == KF_LOG_ERROR)
        snprintf(last_error, sizeof last_error, "%s", message);
}

static kf_engine *open_engine(uint32_t threads, uint32_t context)
{
    static const uint64_t seed = 7;
    kf_options o = {
        .random_seed = &seed, .threads = threads, .context = context, .log = keep_error};
    kf_engine *e;
    assert_int_equal(kf_open(&mini_model, &o, &e), KF_OK);
    return e;
}

static kf_session *open_session(kf_engine *e)
{
    kf_session *s;
    assert_int_equal(kf_session_open(e, &s), KF_OK);
    return s;
}

static void close_both(kf_engine *e, kf_session *s)
{
    kf_session_close(s);
    kf_close(e);
}

static void take_row(kf_session *s, uint32_t row, float *out)
{
    const float *logits = kf_session_logits(s, row);
    assert_non_null(logits);
    memcpy(out, logits, MINI_VOCAB * sizeof *out);
}

/* Logits after text[0..n) fed in chunks, then 5 single tokens. */
static void run_text(uint32_t threads, uint32_t n, uint32_t chunk, float out[6][MINI_VOCAB])
{
    kf_engine *e = open_engine(threads, 0);
    kf_session *s = open_session(e);
    assert_int_equal(kf_session_prefill(s, 2, text, n, chunk), KF_OK);
    take_row(s, 0, out[0]);
    for (uint32_t i = 0; i < 5; i++) {
        kf_append a = {2, 1, text + n + i, 1, NULL};
        assert_int_equal(kf_session_step(s, &a, 1), KF_OK);
        take_row(s, 0, out[i + 1]);
    }
    assert_int_equal(kf_session_length(s, 2), n + 5);
    close_both(e, s);
}

static int fill_text(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < TEXT; i++)
        text[i] = (int32_t)(kf_mix64(i) % MINI_VOCAB);
    return 0;
}

static void test_logits_tell_texts_apart(void **state)
{
    (void)state;
    float a[6][MINI_VOCAB], b[6][MINI_VOCAB];
    run_text(1, 70, 0, a);
    int32_t kept = text[3];
    text[3] = (kept + 1) % MINI_VOCAB; /* only reachable through the cache */
    run_text(1, 70, 0, b);
    text[3] = kept;
    for (int i = 0; i < 6; i++)
        assert_memory_not_equal(a[i], b[i], sizeof a[i]);
}

static void test_any_thread_count_same_bits(void **state)
{
    (void)state;
    float one[6][MINI_VOCAB], many[6][MINI_VOCAB];
    run_text(1, 200, 0, one);
    static const uint32_t threads[] = {2, 3, 7};
    for (int i = 0; i < 3; i++) {
        run_text(threads[i], 200, 0, many);
        assert_memory_equal(one, many, sizeof one);
    }
}

static void test_any_chunking_same_bits(void **state)
{
    (void)state;
    float whole[6][MINI_VOCAB], parts[6][MINI_VOCAB];
    run_text(2, 39, 0, whole);
    static const uint32_t chunks[] = {1, 2, 7, 38};
    for (int i = 0; i < 4; i++) {
        run_text(2, 39, chunks[i], parts);
        assert_memory_equal(whole, parts, sizeof whole);
    }
}

static void test_ragged_is_one_by_one(void **state)
{
    (void)state;
    static const uint32_t lens[3] = {3, 17, 9};
    float alone[3][MINI_VOCAB], together[3][MINI_VOCAB];
    kf_engine *e = open_engine(3, 0);
    kf_session *s = open_session(e);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(kf_session_prefill(s, 0, text + 50 * i, lens[i], 0), KF_OK);
        kf_append a = {0, 1, text + 49, 1, NULL};
        assert_int_equal(kf_session_step(s, &a, 1), KF_OK);
        take_row(s, 0, alone[i]);
        assert_int_equal(kf_session_truncate(s, 0, 0), KF_OK);
    }
    kf_append prompts[3], tokens[3];
    static const uint32_t where[3] = {2, 0, 3};
    for (uint32_t i = 0; i < 3; i++) {
        prompts[i] = (kf_append){where[i], lens[i], text + 50 * i, 1, NULL};
        tokens[i] = (kf_append){where[i], 1, text + 49, 1, NULL};
    }
    assert_int_equal(kf_session_step(s, prompts, 3), KF_OK);
    unsigned before = mini_decode_walks;
    assert_int_equal(kf_session_step(s, tokens, 3), KF_OK);
    assert_true(mini_decode_walks > before);
    for (uint32_t i = 0; i < 3; i++)
        take_row(s, i, together[i]);
    assert_memory_equal(alone, together, sizeof alone);
    close_both(e, s);
}

static void test_phase_follows_the_call(void **state)
{
    (void)state;
    kf_engine *e = open_engine(1, 0);
    kf_session *s = open_session(e);
    mini_decode_walks = mini_prefill_walks = 0;
    kf_append a = {0, 1, text, 1, NULL};
    assert_int_equal(kf_session_step(s, &a, 1), KF_OK);
    assert_int_equal(mini_decode_walks, 1);
    a.n_logits = 0; /* R would not be N */
    assert_int_equal(kf_session_step(s, &a, 1), KF_OK);
    assert_null(kf_session_logits(s, 0));
    kf_append two[] = {{0, 1, text, 1, NULL}, {1, 2, text, 1, NULL}};
    assert_int_equal(kf_session_step(s, two, 2), KF_OK);
    assert_int_equal(mini_decode_walks, 1);
    assert_int_equal(mini_prefill_walks, 2);
    close_both(e, s);
}

/* A decoder alone has neither token types nor texts to attend to. */
static void a_decoder_takes_no_types_and_no_texts(void **state)
{
    (void)state;
    kf_engine *e = open_engine(1, 0);
    kf_session *s = open_session(e);
    kf_append a = {0, 1, text, 0, NULL}, typed = {0, 1, text, 1, (const int32_t[]){0}};
    assert_int_equal(kf_session_encode(s, &a, 1), KF_ERR_UNSUPPORTED);
    assert_int_equal(kf_session_step(s, &typed, 1), KF_ERR_INPUT);
    assert_int_equal(kf_session_length(s, 0), 0);
    close_both(e, s);
}

static void test_every_row_of_logits(void **state)
{
    (void)state;
    kf_engine *e = open_engine(2, 0);
    kf_session *s = open_session(e);
    float rows[MINI_ROWS][MINI_VOCAB], one[MINI_VOCAB];
    kf_append a = {1, MINI_ROWS, text, MINI_ROWS, NULL};
    assert_int_equal(kf_session_step(s, &a, 1), KF_OK);
    for (uint32_t i = 0; i < MINI_ROWS; i++)
        take_row(s, i, rows[i]);
    assert_null(kf_session_logits(s, MINI_ROWS));
    assert_int_equal(kf_session_next(s, MINI_ROWS), -1);
    for (uint32_t i = 0; i < MINI_ROWS; i++)
        for (int v = 0; v < MINI_VOCAB; v++)
            assert_true(rows[i][v] <= rows[i][kf_session_next(s, i)]);
    for (uint32_t i = 0; i < MINI_ROWS; i++) {
        kf_append b = {0, 1, text + i, 1, NULL};
        assert_int_equal(kf_session_step(s, &b, 1), KF_OK);
        take_row(s, 0, one);
        assert_memory_equal(one, rows[i], sizeof one);
    }
    close_both(e, s);
}

static void test_truncate_goes_back(void **state)
{
    (void)state;
    float first[MINI_VOCAB], again[MINI_VOCAB];
    kf_engine *e = open_engine(2, 0);
    kf_session *s = open_session(e);
    for (uint32_t keep = 62; keep <= 66; keep++) { /* around a page's edge */
        assert_int_equal(kf_session_prefill(s, 1, text, keep, 0), KF_OK);
        assert_int_equal(kf_session_prefill(s, 1, text + 200, 20, 0), KF_OK);
        take_row(s, 0, first);
        assert_int_equal(kf_session_prefill(s, 3, text, 80, 0), KF_OK); /* takes pages meanwhile */
        assert_int_equal(kf_session_truncate(s, 1, keep), KF_OK);
        assert_int_equal(kf_session_length(s, 1), keep);
        assert_int_equal(kf_session_prefill(s, 1, text + 200, 20, 0), KF_OK);
        take_row(s, 0, again);
        assert_memory_equal(first, again, sizeof first);
        assert_int_equal(kf_session_truncate(s, 1, 0), KF_OK);
        assert_int_equal(kf_session_truncate(s, 3, 0), KF_OK);
    }
    assert_int_equal(kf_session_truncate(s, 1, 1), KF_ERR_USAGE);
    assert_int_equal(kf_session_truncate(s, MINI_SEQUENCES, 0), KF_ERR_USAGE);
    close_both(e, s);
}

/* Every sequence can be filled to the context, over and over: pages come back. */
static void test_pages_come_back(void **state)
{
    (void)state;
    kf_engine *e = open_engine(2, 130);
    kf_session *s = open_session(e);
    for (int round = 0; round < 3; round++) {
        for (uint32_t q = 0; q < MINI_SEQUENCES; q++)
            assert_int_equal(kf_session_prefill(s, q, text, 130, 0), KF_OK);
        for (uint32_t q = 0; q < MINI_SEQUENCES; q++) {
            kf_append a = {q, 1, text, 1, NULL};
            assert_int_equal(kf_session_step(s, &a, 1), KF_ERR_USAGE);
            assert_non_null(strstr(last_error, "130"));
            assert_int_equal(kf_session_truncate(s, q, (uint32_t)round * 64), KF_OK);
            assert_int_equal(kf_session_truncate(s, q, 0), KF_OK);
        }
    }
    close_both(e, s);
}

static void test_refused_calls_change_nothing(void **state)
{
    (void)state;
    kf_engine *e = open_engine(2, 64);
    kf_session *s = open_session(e);
    assert_int_equal(kf_session_prefill(s, 0, text, 10, 0), KF_OK);
    static const int32_t wrong[] = {1, MINI_VOCAB}, negative[] = {-1};
    const struct {
        kf_append a[2];
        uint32_t n;
        kf_status want;
    } cases[] = {
        {{{0, 1, text, 1, NULL}, {MINI_SEQUENCES, 1, text, 1, NULL}}, 2, KF_ERR_USAGE},
        {{{0, 1, text, 1, NULL}, {0, 1, text, 1, NULL}}, 2, KF_ERR_USAGE},
        {{{1, 1, text, 1, NULL}, {0, 0, text, 0, NULL}}, 2, KF_ERR_USAGE},
        {{{1, 1, text, 1, NULL}, {0, 1, text, 2, NULL}}, 2, KF_ERR_USAGE},
        {{{1, 1, text, 1, NULL}, {0, 2, wrong, 1, NULL}}, 2, KF_ERR_INPUT},
        {{{1, 1, text, 1, NULL}, {0, 1, negative, 1, NULL}}, 2, KF_ERR_INPUT},
        {{{1, 1, text, 1, NULL}, {0, MINI_TOKENS, text, 1, NULL}}, 2, KF_ERR_USAGE},
        {{{1, MINI_ROWS, text, MINI_ROWS, NULL}, {0, 1, text, 1, NULL}}, 2, KF_ERR_USAGE},
        {{{0, 1, text, 1, NULL}}, 0, KF_ERR_USAGE},
        {{{0, 1, text, 1, NULL}}, MINI_SEQUENCES + 1, KF_ERR_USAGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        last_error[0] = '\0';
        assert_int_equal(kf_session_step(s, cases[i].a, cases[i].n), cases[i].want);
        assert_true(last_error[0] != '\0');
        assert_int_equal(kf_session_length(s, 0), 10);
        assert_int_equal(kf_session_length(s, 1), 0);
    }
    assert_int_equal(kf_session_prefill(s, 0, text, 55, 0), KF_ERR_USAGE);
    assert_int_equal(kf_session_length(s, 0), 10);
    assert_int_equal(kf_session_prefill(s, 0, text, 54, 0), KF_OK);
    close_both(e, s);
}

static void test_options_out_of_bounds(void **state)
{
    (void)state;
    static const uint64_t seed = 7;
    kf_engine *e;
    kf_options o = {.random_seed = &seed, .context = MINI_POSITIONS + 1, .log = keep_error};
    assert_int_equal(kf_open(&mini_model, &o, &e), KF_ERR_USAGE);
    assert_null(e);
    kf_options no_weights = {.log = keep_error};
    assert_int_equal(kf_open(&mini_model, &no_weights, &e), KF_ERR_UNSUPPORTED);
    kf_model m = mini_model;
    m.abi++;
    o.context = 0;
    assert_int_equal(kf_open(&m, &o, &e), KF_ERR_UNSUPPORTED);
    m = mini_model;
    m.pool_bytes = m.phases[0].logits_offset;
    assert_int_equal(kf_open(&m, &o, &e), KF_ERR_UNSUPPORTED);
    for (int i = 0; i < 2; i++) {
        const uint64_t next[] = {mini_model.pool_bytes - 4, KF_NO_NEXT};
        kf_phase phases[3];
        m = mini_model;
        memcpy(phases, m.phases, sizeof phases);
        phases[2].next_offset = next[i]; /* behind the pool; none at all */
        m.phases = phases;
        assert_int_equal(kf_open(&m, &o, &e), KF_ERR_UNSUPPORTED);
    }
    m = mini_model;
    m.n_phases = 2; /* decode only */
    assert_int_equal(kf_open(&m, &o, &e), KF_ERR_UNSUPPORTED);
}

static void test_missing_processor_feature(void **state)
{
    (void)state;
    const kf_logger log = {keep_error, NULL};
    const uint32_t have = KF_CPU_SSE42 | KF_CPU_AVX | KF_CPU_FMA;
    assert_int_equal(kf_cpu_require(KF_CPU_FMA | KF_CPU_AVX, have, &log), KF_OK);
    assert_int_equal(kf_cpu_require(KF_CPU_X86_64_V3, have, &log), KF_ERR_DEVICE);
    assert_non_null(strstr(last_error, "popcnt, avx2, f16c"));
    assert_null(strstr(last_error, "fma"));
    assert_int_equal(kf_cpu_require(KF_CPU_SSE42, kf_cpu_detect(), &log), KF_OK);
}

/* ---- Allocation ------------------------------------------------------------------------------ */

typedef struct failing {
    int left; /* allocations that still succeed */
    long balance;
} failing;

static void *failing_alloc(void *user, size_t size, size_t align)
{
    failing *f = user;
    if (f->left-- <= 0)
        return NULL;
    f->balance += (long)size;
    return kf_alloc(&kf_default_allocator, size, align);
}

static void failing_free(void *user, void *p, size_t size)
{
    failing *f = user;
    f->balance -= (long)size;
    kf_free(&kf_default_allocator, p, size);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    static const uint64_t seed = 7;
    bool reached_end = false;
    for (int n = 0; n < 50 && !reached_end; n++) {
        failing f = {n, 0};
        kf_allocator a = {failing_alloc, failing_free, &f};
        kf_options o = {.random_seed = &seed, .threads = 3, .allocator = &a, .log = keep_error};
        kf_engine *e;
        kf_session *s = NULL;
        kf_status status = kf_open(&mini_model, &o, &e);
        if (status == KF_OK)
            status = kf_session_open(e, &s);
        if (status == KF_OK) {
            f.left = 0; /* a step allocates nothing */
            assert_int_equal(kf_session_prefill(s, 0, text, 100, 0), KF_OK);
            reached_end = true;
        } else {
            assert_int_equal(status, KF_ERR_MEMORY);
        }
        close_both(e, s);
        assert_int_equal(f.balance, 0);
    }
    assert_true(reached_end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decoder_takes_no_types_and_no_texts),
        cmocka_unit_test(test_logits_tell_texts_apart),
        cmocka_unit_test(test_any_thread_count_same_bits),
        cmocka_unit_test(test_any_chunking_same_bits),
        cmocka_unit_test(test_ragged_is_one_by_one),
        cmocka_unit_test(test_phase_follows_the_call),
        cmocka_unit_test(test_every_row_of_logits),
        cmocka_unit_test(test_truncate_goes_back),
        cmocka_unit_test(test_pages_come_back),
        cmocka_unit_test(test_refused_calls_change_nothing),
        cmocka_unit_test(test_options_out_of_bounds),
        cmocka_unit_test(test_missing_processor_feature),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, fill_text, NULL);
}
