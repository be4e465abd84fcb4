/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/sample.h"

#include <math.h>
#include <stdbool.h>

void kf_rng_seed(kf_rng *r, uint64_t seed, uint64_t stream)
{
    r->state = 0;
    r->increment = stream << 1 | 1;
    kf_rng_next(r);
    r->state += seed;
    kf_rng_next(r);
}

uint32_t kf_rng_next(kf_rng *r)
{
    uint64_t old = r->state;
    r->state = old * UINT64_C(6364136223846793005) + r->increment;
    uint32_t mixed = (uint32_t)((old >> 18 ^ old) >> 27);
    uint32_t rot = (uint32_t)(old >> 59);
    return mixed >> rot | mixed << (-rot & 31);
}

double kf_rng_unit(kf_rng *r)
{
    uint64_t hi = kf_rng_next(r) >> 5, lo = kf_rng_next(r) >> 6;
    return (double)(hi << 26 | lo) * 0x1p-53;
}

void kf_sampler_init(kf_sampler *s, const kf_sampling *how, uint64_t stream, uint32_t vocab_size,
                     kf_candidate *heap, unsigned char *seen)
{
    *s = (kf_sampler){.how = *how, .vocab_size = vocab_size, .heap = heap, .seen = seen};
    kf_rng_seed(&s->rng, how->seed, stream);
}

void kf_sampler_accept(kf_sampler *s, int32_t id)
{
    if (id >= 0 && (uint32_t)id < s->vocab_size)
        s->seen[id] = 1;
}

static int penalises(const kf_sampler *s)
{
    return s->how.repeat_penalty != 1.0f && s->how.repeat_penalty > 0.0f;
}

static float penalised(const kf_sampler *s, const float *logits, uint32_t id)
{
    float v = logits[id];
    float penalty = s->how.repeat_penalty;
    if (!penalises(s) || !s->seen[id])
        return v;
    return v > 0 ? v / penalty : v * penalty;
}

/* The first of the largest penalised logits. */
static int32_t best_penalised(const kf_sampler *s, const float *logits)
{
    int32_t best = 0;
    float value = -INFINITY;
    for (uint32_t i = 0; i < s->vocab_size; i++) {
        float v = penalised(s, logits, i);
        if (v > value) {
            value = v;
            best = (int32_t)i;
        }
    }
    return best;
}

static int is_before(kf_candidate a, kf_candidate b)
{
    return a.p > b.p || (a.p == b.p && a.id < b.id);
}

static void sift_down(kf_candidate *h, uint32_t n, uint32_t at)
{
    kf_candidate moved = h[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && is_before(h[child + 1], h[child]))
            child++;
        if (!is_before(h[child], moved))
            break;
        h[at] = h[child];
        at = child;
    }
    h[at] = moved;
}

/* Moves the best |k| of |n| to the end of the array, best last, or fewer once their sum reaches
 * |enough|; returns how many. A heap costs only as much as is taken from it. */
static uint32_t take_best(kf_candidate *h, uint32_t n, uint32_t k, double enough)
{
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(h, n, i);
    uint32_t taken = 0;
    double sum = 0;
    while (taken < k && sum < enough) {
        kf_candidate best = h[0];
        h[0] = h[n - 1 - taken];
        h[n - 1 - taken] = best;
        taken++;
        sift_down(h, n - taken, 0);
        sum += best.p;
    }
    return taken;
}

static double sum_of(const kf_candidate *c, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += c[i].p;
    return sum;
}

/* Applies the filters; the survivors are |*out_n| candidates from the returned place. */
static const kf_candidate *filter(const kf_sampler *s, uint32_t n, uint32_t *out_n)
{
    kf_candidate *h = s->heap;
    const kf_sampling *how = &s->how;
    bool has_k = how->top_k > 0 && how->top_k < n;
    bool has_p = how->top_p < 1.0f;
    uint32_t kept = n;
    if (has_k)
        kept = take_best(h, n, how->top_k, INFINITY);
    const kf_candidate *from = h + (n - kept);
    if (has_p) {
        double enough = (double)how->top_p * sum_of(from, kept);
        if (!has_k) {
            kept = take_best(h, n, n, enough);
        } else {
            uint32_t cut = 0;
            double sum = 0;
            while (cut < kept && (cut == 0 || sum < enough))
                sum += h[n - 1 - cut++].p;
            kept = cut;
        }
        if (kept == 0)
            kept = take_best(h, n, 1, INFINITY);
        from = h + (n - kept);
    }
    *out_n = kept;
    return from;
}

int32_t kf_sampler_pick(kf_sampler *s, const float *logits, int32_t likeliest)
{
    int32_t best = penalises(s) ? best_penalised(s, logits) : likeliest;
    if (s->how.temperature <= 0)
        return best;
    float best_value = penalised(s, logits, (uint32_t)best);
    if (!isfinite(best_value))
        return best;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->vocab_size; i++) {
        float p = expf((penalised(s, logits, i) - best_value) / s->how.temperature);
        if (p > 0) /* false for NaN */
            s->heap[n++] = (kf_candidate){p, (int32_t)i};
    }
    uint32_t kept;
    const kf_candidate *c = filter(s, n, &kept);
    double sum = 0;
    for (uint32_t i = 0; i < kept; i++)
        sum += c[i].p >= s->how.min_p ? c[i].p : 0;
    double at = kf_rng_unit(&s->rng) * sum;
    for (uint32_t i = 0; i < kept; i++) {
        at -= c[i].p >= s->how.min_p ? c[i].p : 0;
        if (at < 0)
            return c[i].id;
    }
    return best;
}
