/* SPDX-License-Identifier: Apache-2.0 */
/* convert - storage types of floats and f32, round to nearest even: for packing and for making
 * weights.
 *
 * The evaluator rounds by its own arithmetic (kf_round_to), so that tests compare two ways of
 * writing it.
 */
#ifndef KF_IR_CONVERT_H
#define KF_IR_CONVERT_H

#include "ir/type.h"

/** Element |i| of an array of a float dtype. */
float kf_float_load(kf_dtype dtype, const void *p, uint64_t i);
/** Stores |v|, rounded; overflow gives infinity, a NaN stays one. */
void kf_float_store(kf_dtype dtype, void *p, uint64_t i, float v);

/** Converts |n| elements; equal types are copied. */
void kf_convert(kf_dtype from, const void *src, kf_dtype to, void *dst, uint64_t n);

#endif
