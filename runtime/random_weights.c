/* SPDX-License-Identifier: Apache-2.0 */
/* random_weights - weights made in memory, for benches and for models compiled without any.
 *
 * Elements are uniform with the mean and deviation that the model's table gives, which keeps
 * activations finite. Every 64 bits come from the seed, the weight, the layer and the place alone,
 * so the number of threads does not matter. Padding inside a packed weight becomes random too;
 * kernels ignore it by contract (it may be read, not used).
 */
#include "runtime/internal.h"

#include <math.h>
#include <string.h>

#define CHUNK_BYTES ((uint64_t)1 << 20)

typedef struct fill {
    const kf_model *model;
    uint64_t seed;
    unsigned char *out;
    const kf_weight *weight;
    uint32_t layer;
} fill;

static uint16_t bf16_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Normal range only; what is below 2^-14 becomes 0, which random weights do not mind. */
static uint16_t f16_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    int32_t e = (int32_t)(bits >> 23 & 0xFF) - 127 + 15;
    uint32_t sign = bits >> 16 & 0x8000;
    if (e <= 0)
        return (uint16_t)sign;
    if (e >= 31)
        return (uint16_t)(sign | 0x7BFF);
    return (uint16_t)(sign | (uint32_t)e << 10 | (bits >> 13 & 0x3FF));
}

/* Four elements from 64 random bits. */
static void put4(uint32_t elem, unsigned char *at, uint64_t bits, float mean, float half_width)
{
    float v[4];
    for (int i = 0; i < 4; i++) {
        float unit = ((float)(bits >> 16 * i & 0xFFFF) - 32767.5f) * (1.0f / 32768.0f);
        v[i] = mean + half_width * unit;
    }
    if (elem == KF_ELEM_F32) {
        memcpy(at, v, sizeof v);
        return;
    }
    uint16_t h[4];
    for (int i = 0; i < 4; i++)
        h[i] = elem == KF_ELEM_BF16 ? bf16_of(v[i]) : f16_of(v[i]);
    memcpy(at, h, sizeof h);
}

static void fill_tile(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    (void)scratch;
    const fill *f = args->ptr[0];
    const kf_weight *w = f->weight;
    uint64_t from = tile * CHUNK_BYTES;
    uint64_t to = from + CHUNK_BYTES < w->size_bytes ? from + CHUNK_BYTES : w->size_bytes;
    unsigned char *out = f->out + w->offset[f->layer];
    if (w->constant) {
        memcpy(out + from, (const unsigned char *)w->constant + from, to - from);
        return;
    }
    uint64_t key = kf_mix64(f->seed ^ kf_mix64((uint64_t)(w - f->model->weights) << 32 | f->layer));
    bool is_float = w->elem <= KF_ELEM_F16;
    uint32_t step = !is_float ? 8 : w->elem == KF_ELEM_F32 ? 16 : 8;
    float half_width = w->std * sqrtf(3.0f);
    uint64_t at = from;
    for (; at + step <= to; at += step) {
        uint64_t bits = kf_mix64(key + at);
        if (is_float)
            put4(w->elem, out + at, bits, w->mean, half_width);
        else
            memcpy(out + at, &bits, 8);
    }
    if (at < to) {
        unsigned char last[16] = {0};
        uint64_t bits = kf_mix64(key + at);
        if (is_float)
            put4(w->elem, last, bits, w->mean, half_width);
        else
            memcpy(last, &bits, 8);
        memcpy(out + at, last, to - at);
    }
}

void kf_random_weights(const kf_model *model, uint64_t seed, kf_pool *pool, unsigned char *out)
{
    fill f = {.model = model, .seed = kf_mix64(seed), .out = out};
    for (uint32_t i = 0; i < model->n_weights; i++) {
        f.weight = &model->weights[i];
        for (f.layer = 0; f.layer < f.weight->layers; f.layer++) {
            uint64_t n = (f.weight->size_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
            kf_pool_for(pool, fill_tile, &f, (uint32_t)n);
        }
    }
}
