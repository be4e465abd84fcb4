/* SPDX-License-Identifier: Apache-2.0 */
/* convert - see convert.h. */
#include "ir/convert.h"

#include "base/check.h"

#include <string.h>

static float bits_to_float(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t float_to_bits(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u,
             fraction = h & 0x3ffu;

    if (exponent == 31)
        return bits_to_float(sign | 0x7f800000u | fraction << 13);
    if (exponent)
        return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
    float tiny = (float)fraction * 0x1p-24f;
    return sign ? -tiny : tiny;
}

static uint16_t to_bf16(float f)
{
    uint32_t bits = float_to_bits(f);

    if (f != f)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static uint16_t to_f16(float f)
{
    uint32_t bits = float_to_bits(f), sign = bits >> 16 & 0x8000u;
    float magnitude = bits_to_float(bits & 0x7fffffffu);

    if (f != f)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 65520.0f)
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x1p-14f) { /* subnormal: adding 0.5 aligns the fraction and rounds it */
        float aligned = magnitude + 0.5f;
        return (uint16_t)(sign | (float_to_bits(aligned) - float_to_bits(0.5f)));
    }
    uint32_t m = float_to_bits(magnitude);
    m += 0xfffu + (m >> 13 & 1u);
    return (uint16_t)(sign | (m - (112u << 23)) >> 13);
}

float kf_float_load(kf_dtype t, const void *p, uint64_t i)
{
    switch (t) {
    case KF_DTYPE_f32:
        return ((const float *)p)[i];
    case KF_DTYPE_bf16:
        return bits_to_float((uint32_t)((const uint16_t *)p)[i] << 16);
    case KF_DTYPE_f16:
        return from_f16(((const uint16_t *)p)[i]);
    case KF_DTYPE_i32:
    case KF_DTYPE_pred:
    case KF_DTYPE_COUNT:
        break;
    }
    KF_ASSERT(false, "weights are floats");
    return 0;
}

void kf_float_store(kf_dtype t, void *p, uint64_t i, float v)
{
    if (t == KF_DTYPE_f32)
        ((float *)p)[i] = v;
    else
        ((uint16_t *)p)[i] = t == KF_DTYPE_bf16 ? to_bf16(v) : to_f16(v);
}

void kf_convert(kf_dtype from, const void *src, kf_dtype to, void *dst, uint64_t n)
{
    if (from == to) {
        memcpy(dst, src, n * kf_dtype_infos[from].bytes);
        return;
    }
    for (uint64_t i = 0; i < n; i++)
        kf_float_store(to, dst, i, kf_float_load(from, src, i));
}
