/* SPDX-License-Identifier: Apache-2.0 */
#include "ir/rope.h"

#include <math.h>

static float llama3(const kf_attr_rope_table *a, float freq)
{
    const float original = (float)a->original, low = (float)a->low, high = (float)a->high;
    const float slow = freq / (float)a->factor;
    const float wavelength = 6.2831853071795864769f / freq;
    if (wavelength < original / high)
        return freq;
    if (wavelength > original / low)
        return slow;
    const float smooth = (original / wavelength - low) / (high - low);
    return (1.0f - smooth) * slow + smooth * freq;
}

float kf_rope_freq(const kf_attr_rope_table *attr, uint32_t i)
{
    const float exponent = (float)(2 * i) / (float)attr->dim;
    const float freq = 1.0f / (float)pow((double)(float)attr->theta, (double)exponent);
    if (attr->scaling == KF_SCALING_LINEAR)
        return freq / (float)attr->factor;
    return attr->scaling == KF_SCALING_LLAMA3 ? llama3(attr, freq) : freq;
}
