/* SPDX-License-Identifier: Apache-2.0 */
/* read_probe - how fast all workers together can read memory: the yardstick of decode speed.
 *
 * Each tile sums 4 MiB with 32-byte loads into eight accumulators; tiles are claimed as in a
 * launch.
 */
#include "runtime/cli.h"

#include <immintrin.h>

#define TILE_BYTES ((uint64_t)4 << 20)

typedef struct probe {
    const unsigned char *data;
    uint64_t size_bytes;
    bool has_avx2;
    _Atomic uint64_t sum; /* keeps the loads alive */
} probe;

static uint64_t tile_bytes(const probe *p, uint32_t tile)
{
    uint64_t left = p->size_bytes - tile * TILE_BYTES;
    return left < TILE_BYTES ? left : TILE_BYTES;
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const unsigned char *p, uint64_t n)
{
    __m256i acc[8];
    for (int i = 0; i < 8; i++)
        acc[i] = _mm256_setzero_si256();
    for (uint64_t at = 0; at + 256 <= n; at += 256) {
        for (int i = 0; i < 8; i++)
            acc[i] = _mm256_add_epi64(
                acc[i], _mm256_load_si256((const __m256i *)(const void *)(p + at + 32 * i)));
    }
    uint64_t lanes[4], sum = 0;
    for (int i = 1; i < 8; i++)
        acc[0] = _mm256_add_epi64(acc[0], acc[i]);
    _mm256_storeu_si256((__m256i *)(void *)lanes, acc[0]);
    for (int i = 0; i < 4; i++)
        sum += lanes[i];
    return sum;
}

static uint64_t read_sse2(const unsigned char *p, uint64_t n)
{
    __m128i acc = _mm_setzero_si128();
    for (uint64_t at = 0; at + 16 <= n; at += 16)
        acc = _mm_add_epi64(acc, _mm_load_si128((const __m128i *)(const void *)(p + at)));
    uint64_t lanes[2];
    _mm_storeu_si128((__m128i *)(void *)lanes, acc);
    return lanes[0] + lanes[1];
}

static void read_tile(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    (void)scratch;
    probe *p = args->ptr[0];
    const unsigned char *from = p->data + tile * TILE_BYTES;
    uint64_t n = tile_bytes(p, tile);
    atomic_fetch_add(&p->sum, p->has_avx2 ? read_avx2(from, n) : read_sse2(from, n));
}

static void fill_tile(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    (void)scratch;
    const probe *p = args->ptr[0];
    uint64_t *out = (uint64_t *)(uintptr_t)(p->data + tile * TILE_BYTES);
    uint64_t n = tile_bytes(p, tile) / sizeof *out;
    for (uint64_t i = 0; i < n; i++)
        out[i] = i * UINT64_C(0x9E3779B97F4A7C15) + tile;
}

static uint32_t n_tiles(uint64_t size_bytes)
{
    return (uint32_t)((size_bytes + TILE_BYTES - 1) / TILE_BYTES);
}

void kf_cli_read_probe_fill(kf_pool *pool, void *buffer, uint64_t size_bytes)
{
    probe p = {.data = buffer, .size_bytes = size_bytes};
    kf_pool_for(pool, fill_tile, &p, n_tiles(size_bytes));
}

double kf_cli_read_probe(kf_pool *pool, const void *buffer, uint64_t size_bytes, uint32_t rounds)
{
    bool has_avx2 = kf_cpu_detect() & KF_CPU_AVX2;
    double best = 0;
    for (uint32_t i = 0; i < rounds; i++) {
        probe p = {.data = buffer, .size_bytes = size_bytes, .has_avx2 = has_avx2};
        double t0 = kf_now_s();
        kf_pool_for(pool, read_tile, &p, n_tiles(size_bytes));
        double speed = (double)size_bytes / (kf_now_s() - t0);
        best = speed > best ? speed : best;
    }
    return best;
}
