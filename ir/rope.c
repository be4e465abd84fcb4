/* SPDX-License-Identifier: Apache-2.0 */
#include "ir/rope.h"

#include <math.h>

/* Operation by operation as transformers computes it in f32. */
static float llama3(const kf_attr_rope_table *a, float freq)
{
    const float wavelength = (1.0f / freq) * 6.28318530717958647692f;
    if (wavelength > (float)((double)a->original / a->low))
        return freq / (float)a->factor;
    if (wavelength < (float)((double)a->original / a->high))
        return freq;
    const float part = (1.0f / wavelength) * (float)a->original;
    const float smooth = (part - (float)a->low) / (float)(a->high - a->low);
    return (1.0f - smooth) * freq / (float)a->factor + smooth * freq;
}

float kf_rope_freq(const kf_attr_rope_table *attr, uint32_t i)
{
    const float exponent = (float)(2 * i) / (float)attr->dim;
    const float freq = 1.0f / (float)pow((double)(float)attr->theta, (double)exponent);
    if (attr->scaling == KF_SCALING_LINEAR)
        return freq / (float)attr->factor;
    return attr->scaling == KF_SCALING_LLAMA3 ? llama3(attr, freq) : freq;
}
