/* SPDX-License-Identifier: Apache-2.0 */
/* vmath - elementary functions of f32 as straight-line vector code, for any lane count.
 *
 * Every function is within 2 ulp of the true value over the range given with it, is exact about 0
 * and infinity, and returns NaN for NaN. No lane affects another, so a scalar remainder gives the
 * bits of the vector path. No calls, no tables, no branches.
 */
#ifndef KF_CODEGEN_CPU_VMATH_H
#define KF_CODEGEN_CPU_VMATH_H

#include "codegen/cpu/kernel_builder.h"

/** e^x; overflows to inf above 88.72, denormal and then 0 below -87.33. */
kb_value kv_exp(kb *b, kb_value x);
/** Natural logarithm; -inf at 0, NaN below. */
kb_value kv_log(kb *b, kb_value x);
/** log(1 + x) for x >= 0. */
kb_value kv_log1p(kb *b, kb_value x);
kb_value kv_tanh(kb *b, kb_value x);
kb_value kv_erf(kb *b, kb_value x);
/** Sine and cosine for |x| <= 2^40 radians; NaN for infinity. Absolute error below 1 ulp of 1 and
 * relative error within 2 ulp, also next to the zeros. */
kb_value kv_sin(kb *b, kb_value x);
kb_value kv_cos(kb *b, kb_value x);
/** 1 / (1 + e^-x), without overflow on either side; within 2.5 ulp. */
kb_value kv_sigmoid(kb *b, kb_value x);
/** 1 / sqrt(x), from the correctly rounded root and quotient. */
kb_value kv_rsqrt(kb *b, kb_value x);
/** x^y; negative x with an integer y as in C, NaN with another y. */
kb_value kv_pow(kb *b, kb_value x, kb_value y);

#endif
