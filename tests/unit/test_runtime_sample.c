/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler: its distribution by chi-square tests, its filters, its seeds. */
#include "runtime/sample.h"
#include "tests/unit/support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 50, DRAWS = 100000 };

static kf_candidate heap[VOCAB];
static unsigned char seen[VOCAB];

static const kf_sampling plain = {.temperature = 1, .top_p = 1, .repeat_penalty = 1};

static void make_logits(float *logits)
{
    uint64_t rng = 5;
    for (int i = 0; i < VOCAB; i++)
        logits[i] = 4.0f * (float)(random_u64(&rng) >> 40) / 16777216.0f;
}

static kf_sampler make_sampler(const kf_sampling *how, uint64_t stream)
{
    kf_sampler s;
    memset(seen, 0, sizeof seen);
    kf_sampler_init(&s, how, stream, VOCAB, heap, seen);
    return s;
}

/* The likeliest one as a model gives it: the first of the largest. */
static int32_t pick(kf_sampler *s, const float *logits)
{
    int32_t best = 0;
    float value = -INFINITY;
    for (int32_t i = 0; i < VOCAB; i++) {
        best = logits[i] > value ? i : best;
        value = logits[i] > value ? logits[i] : value;
    }
    return kf_sampler_pick(s, logits, best);
}

/* What the filters leave, computed plainly: sort, cut, renormalise. */
static void expected(const kf_sampling *how, const float *logits, double *p)
{
    int order[VOCAB], kept = VOCAB;
    double weight[VOCAB], best = -1e30, sum = 0;
    for (int i = 0; i < VOCAB; i++)
        best = logits[i] > best ? logits[i] : best;
    for (int i = 0; i < VOCAB; i++) {
        weight[i] = exp((logits[i] - best) / how->temperature);
        int at = i;
        for (; at > 0 && weight[order[at - 1]] < weight[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    if (how->top_k > 0 && how->top_k < VOCAB)
        kept = (int)how->top_k;
    for (int i = 0; i < kept; i++)
        sum += weight[order[i]];
    double run = 0;
    for (int i = 0; i < kept && how->top_p < 1; i++) {
        run += weight[order[i]];
        if (run >= (double)how->top_p * sum)
            kept = i + 1;
    }
    sum = 0;
    memset(p, 0, VOCAB * sizeof *p);
    for (int i = 0; i < kept; i++)
        if (weight[order[i]] >= how->min_p)
            sum += p[order[i]] = weight[order[i]];
    for (int i = 0; i < VOCAB; i++)
        p[i] /= sum;
}

/* The Wilson-Hilferty normal deviate of chi-square over the cells that can occur; an impossible
 * token that occurs gives infinity. */
static double deviate(const kf_sampling *how, const float *logits)
{
    double p[VOCAB], chi2 = 0, cells = 0;
    uint32_t count[VOCAB] = {0};
    expected(how, logits, p);
    kf_sampler s = make_sampler(how, 0);
    for (int i = 0; i < DRAWS; i++)
        count[pick(&s, logits)]++;
    for (int i = 0; i < VOCAB; i++) {
        if (p[i] == 0 && count[i] > 0)
            return INFINITY;
        if (p[i] == 0)
            continue;
        double want = p[i] * DRAWS;
        chi2 += (count[i] - want) * (count[i] - want) / want;
        cells++;
    }
    double free = cells - 1;
    if (free < 1)
        return 0;
    return (cbrt(chi2 / free) - (1 - 2 / (9 * free))) / sqrt(2 / (9 * free));
}

static void test_distributions(void **state)
{
    (void)state;
    static const struct {
        float temperature, top_p, min_p;
        uint32_t top_k;
    } cases[] = {
        {1, 1, 0, 0},       {0.5f, 1, 0, 0},   {2, 1, 0, 0},         {1, 1, 0, 7},
        {1, 0.6f, 0, 0},    {1, 1, 0.3f, 0},   {0.8f, 0.9f, 0, 20},  {1.3f, 0.95f, 0.05f, 40},
        {1, 0.5f, 0.2f, 9}, {1, 0.001f, 0, 0}, {1, 1, 0, VOCAB * 2}, {0.3f, 1, 0, 2},
    };
    float logits[VOCAB];
    make_logits(logits);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kf_sampling how = {cases[i].temperature, cases[i].top_p, cases[i].min_p, 1,
                           cases[i].top_k,       100 + i};
        double z = deviate(&how, logits);
        if (!(z < 4))
            print_error("case %zu: deviate %.2f\n", i, z);
        assert_true(z < 4);
    }
}

/* The test above can tell: a slightly different temperature is far outside. */
static void test_the_test_can_fail(void **state)
{
    (void)state;
    float logits[VOCAB], warmer[VOCAB];
    make_logits(logits);
    for (int i = 0; i < VOCAB; i++)
        warmer[i] = logits[i] * 0.97f;
    double p[VOCAB], chi2 = 0;
    uint32_t count[VOCAB] = {0};
    expected(&plain, warmer, p);
    kf_sampler s = make_sampler(&plain, 0);
    for (int i = 0; i < DRAWS; i++)
        count[pick(&s, logits)]++;
    for (int i = 0; i < VOCAB; i++)
        chi2 += (count[i] - p[i] * DRAWS) * (count[i] - p[i] * DRAWS) / (p[i] * DRAWS);
    assert_true(chi2 > 120); /* 49 degrees of freedom: chance 1e-7 */
}

static void test_greedy(void **state)
{
    (void)state;
    float logits[VOCAB];
    make_logits(logits);
    logits[31] = 9;
    logits[40] = 9; /* a tie goes to the smaller id */
    logits[3] = NAN;
    kf_sampling how = plain;
    how.temperature = 0;
    kf_sampler s = make_sampler(&how, 0);
    assert_int_equal(pick(&s, logits), 31);
    assert_int_equal(kf_sampler_pick(&s, NULL, 7), 7); /* greedy: the logits are not read */
    how.temperature = 1;
    how.top_k = 1;
    s = make_sampler(&how, 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(pick(&s, logits), 31);
}

static void test_nan_and_infinity(void **state)
{
    (void)state;
    float logits[VOCAB];
    kf_sampler s = make_sampler(&plain, 0);
    for (int i = 0; i < VOCAB; i++)
        logits[i] = i % 2 ? NAN : -INFINITY;
    int32_t id = pick(&s, logits);
    assert_true(id >= 0 && id < VOCAB);
    logits[8] = 0;
    for (int i = 0; i < 100; i++)
        assert_int_equal(pick(&s, logits), 8);
}

static void test_seeds_and_streams(void **state)
{
    (void)state;
    float logits[VOCAB];
    int32_t ids[4][64];
    make_logits(logits);
    for (int i = 0; i < 4; i++) {
        kf_sampling how = plain;
        how.seed = i == 2 ? 43 : 42;
        kf_sampler s = make_sampler(&how, i == 3 ? 1 : 0);
        for (int k = 0; k < 64; k++)
            ids[i][k] = pick(&s, logits);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_not_equal(ids[0], ids[2], sizeof ids[0]);
    assert_memory_not_equal(ids[0], ids[3], sizeof ids[0]);
}

static void test_repeat_penalty(void **state)
{
    (void)state;
    float logits[VOCAB] = {0};
    logits[4] = 2;
    logits[5] = 1.5f;
    kf_sampling how = plain;
    how.temperature = 0;
    how.repeat_penalty = 1.5f;
    kf_sampler s = make_sampler(&how, 0);
    assert_int_equal(pick(&s, logits), 4);
    kf_sampler_accept(&s, 4);
    kf_sampler_accept(&s, -1);
    kf_sampler_accept(&s, VOCAB);
    assert_int_equal(pick(&s, logits), 5);
    for (int i = 0; i < VOCAB; i++)
        logits[i] = i == 4 ? -1 : -1.2f;
    assert_int_equal(pick(&s, logits), 0); /* a negative logit moves down as well */
}

/* pcg32-demo of the reference C library (pcg-c-basic 0.9): seed 42, stream 54. */
static void test_generator(void **state)
{
    (void)state;
    static const uint32_t want[6] = {0xa15c02b7, 0x7b47f409, 0xba1d3330,
                                     0x83d2f293, 0xbfa4784b, 0xcbed606e};
    kf_rng r;
    kf_rng_seed(&r, 42, 54);
    for (int i = 0; i < 6; i++)
        assert_int_equal(kf_rng_next(&r), want[i]);
    for (int i = 0; i < 1000; i++) {
        double u = kf_rng_unit(&r);
        assert_true(u >= 0 && u < 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_the_test_can_fail),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_nan_and_infinity),
        cmocka_unit_test(test_seeds_and_streams),
        cmocka_unit_test(test_repeat_penalty),
        cmocka_unit_test(test_generator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
