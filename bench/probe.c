/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/probe.h"

#include <immintrin.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_THREADS 256

struct kf_probe {
    unsigned char *bytes;
    size_t size;
    uint32_t threads;
    clockid_t clock;
};

typedef struct job {
    const unsigned char *bytes;
    size_t size;
    uint64_t turns;
    uint32_t lanes;
    pthread_barrier_t *start;
    clockid_t clock;
    double begin, end;
    uint64_t sink; /* keeps the loops from being removed */
} job;

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double kf_probe_now(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

double kf_probe_cpu_now(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

void kf_probe_use_cpu_time(kf_probe *p)
{
    p->clock = CLOCK_THREAD_CPUTIME_ID;
}

kf_probe *kf_probe_create(size_t bytes, uint32_t threads)
{
    kf_probe *p = calloc(1, sizeof *p);
    if (!p || threads == 0 || threads > MAX_THREADS) {
        free(p);
        return NULL;
    }
    p->size = bytes;
    p->threads = threads;
    p->clock = CLOCK_MONOTONIC;
    p->bytes = aligned_alloc(1 << 21, (bytes + (1 << 21) - 1) >> 21 << 21);
    if (!p->bytes) {
        free(p);
        return NULL;
    }
    memset(p->bytes, 0x5a, bytes);
    return p;
}

void kf_probe_destroy(kf_probe *p)
{
    if (!p)
        return;
    free(p->bytes);
    free(p);
}

/* Runs |fn| on every thread's job; the seconds from the first start to the last end. */
static double run(uint32_t n, job *jobs, void *(*fn)(void *))
{
    pthread_t threads[MAX_THREADS];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, n);
    for (uint32_t i = 0; i < n; i++) {
        jobs[i].start = &start;
        if (i > 0)
            pthread_create(&threads[i], NULL, fn, &jobs[i]);
    }
    fn(&jobs[0]);
    double begin = jobs[0].begin, end = jobs[0].end;
    for (uint32_t i = 1; i < n; i++) {
        pthread_join(threads[i], NULL);
        begin = jobs[i].begin < begin ? jobs[i].begin : begin;
        end = jobs[i].end > end ? jobs[i].end : end;
    }
    pthread_barrier_destroy(&start);
    return end - begin;
}

__attribute__((target("avx2"))) static void *read_all(void *arg)
{
    job *j = arg;
    pthread_barrier_wait(j->start);
    j->begin = seconds_of(j->clock);
    __m256i sum[8];
    for (int i = 0; i < 8; i++)
        sum[i] = _mm256_setzero_si256();
    for (size_t at = 0; at + 256 <= j->size; at += 256) {
        for (int i = 0; i < 8; i++) {
            const __m256i v = _mm256_load_si256((const __m256i *)(j->bytes + at + 32 * (size_t)i));
            sum[i] = _mm256_xor_si256(sum[i], v);
        }
    }
    for (int i = 1; i < 8; i++)
        sum[0] = _mm256_xor_si256(sum[0], sum[i]);
    j->end = seconds_of(j->clock);
    j->sink = (uint64_t)_mm256_extract_epi64(sum[0], 0);
    __asm__ volatile("" ::"r"(j->sink));
    return NULL;
}

/* One read of everything with 32-byte loads, each thread its own contiguous part: bytes per
 * second. */
static double probe_read(kf_probe *p)
{
    job jobs[MAX_THREADS] = {0};
    const size_t part = p->size / p->threads / 256 * 256;
    for (uint32_t i = 0; i < p->threads; i++)
        jobs[i] = (job){.bytes = p->bytes + i * part, .size = part, .clock = p->clock};
    return (double)(part * p->threads) / run(p->threads, jobs, read_all);
}

double kf_probe_read_best(kf_probe *p, uint32_t rounds)
{
    double best = 0;
    for (uint32_t i = 0; i < rounds; i++) {
        const double r = probe_read(p);
        best = r > best ? r : best;
    }
    return best;
}

/* Twelve independent sums: more than latency (4) times throughput (2) asks for on any core so far.
 * One asm block a turn, so that no compiler and no option changes what is measured. */
#define FMA1(i) "vfmadd213ps %13, %12, %" #i "\n\t"
#define FMA_LOOP(VEC, SET)                                                                         \
    do {                                                                                           \
        const VEC x = SET(0.999f), y = SET(1e-3f);                                                 \
        VEC s0 = x, s1 = x, s2 = x, s3 = x, s4 = x, s5 = x, s6 = x, s7 = x, s8 = x, s9 = x,        \
            s10 = x, s11 = x;                                                                      \
        for (uint64_t t = 0; t < j->turns; t++)                                                    \
            __asm__ volatile(FMA1(0) FMA1(1) FMA1(2) FMA1(3) FMA1(4) FMA1(5) FMA1(6) FMA1(7)       \
                                 FMA1(8) FMA1(9) FMA1(10) FMA1(11)                                 \
                             : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5),         \
                               "+v"(s6), "+v"(s7), "+v"(s8), "+v"(s9), "+v"(s10), "+v"(s11)        \
                             : "v"(x), "v"(y));                                                    \
    } while (0)

__attribute__((target("avx2,fma"))) static void fma_8(job *j)
{
    FMA_LOOP(__m256, _mm256_set1_ps);
}

__attribute__((target("avx512f"))) static void fma_16(job *j)
{
    FMA_LOOP(__m512, _mm512_set1_ps);
}

static void *fma_all(void *arg)
{
    job *j = arg;
    pthread_barrier_wait(j->start);
    j->begin = seconds_of(j->clock);
    if (j->lanes == 16)
        fma_16(j);
    else
        fma_8(j);
    j->end = seconds_of(j->clock);
    return NULL;
}

double kf_probe_fma(kf_probe *p, uint32_t lanes, double seconds)
{
    const bool wide = lanes == 16;
    __builtin_cpu_init();
    if (wide ? !__builtin_cpu_supports("avx512f") : !__builtin_cpu_supports("fma"))
        return 0;
    job jobs[MAX_THREADS] = {0};
    uint64_t turns = 1 << 16;
    for (;;) {
        for (uint32_t i = 0; i < p->threads; i++)
            jobs[i] = (job){.turns = turns, .lanes = lanes, .clock = p->clock};
        const double t = run(p->threads, jobs, fma_all);
        if (t >= seconds / 2)
            return 2.0 * 12.0 * lanes * (double)turns * p->threads / t;
        turns *= t < seconds / 16 ? 8 : 2;
    }
}
