/* SPDX-License-Identifier: Apache-2.0 */
/* Sources. Argument reduction by constants split in two (exp) or three: Cody and Waite, "Software
 * Manual for the Elementary Functions", 1980. Polynomials of exp, log, tanh, sin, cos: Moshier,
 * Cephes Mathematical Library, single precision (expf.c, logf.c, tanhf.c, sinf.c). log1p from log:
 * Kahan's correction, see Goldberg, "What every computer scientist should know about floating-point
 * arithmetic", theorem 4. erf: least maximum fits made for this file, erf(x)/x - 1 over x^2 in [0,
 * 1] and -log erfc(x) over [0.95, 4] weighted by erfc.
 */
#include "codegen/cpu/vmath.h"

/* c[0] * x^(n-1) + ... + c[n-1], by Horner's rule with fused steps. */
static kb_value poly(kb *b, kb_elem elem, kb_value x, const double *c, uint32_t n)
{
    const uint32_t lanes = kb_lanes_of(x);
    kb_value p = kb_float(b, elem, lanes, c[0]);
    for (uint32_t i = 1; i < n; i++)
        p = kb_fma(b, p, x, kb_float(b, elem, lanes, c[i]));
    return p;
}

#define POLY(b, x, c)   poly(b, KB_F32, x, c, sizeof(c) / sizeof((c)[0]))
#define POLY64(b, x, c) poly(b, KB_F64, x, c, sizeof(c) / sizeof((c)[0]))

static kb_value f32_like(kb *b, kb_value x, double v)
{
    return kb_float(b, KB_F32, kb_lanes_of(x), v);
}

static kb_value i32_like(kb *b, kb_value x, int64_t v)
{
    return kb_int(b, KB_I32, kb_lanes_of(x), v);
}

/* 2^n as f32 for n in -126 .. 127. */
static kb_value pow2(kb *b, kb_value n)
{
    return kb_bitcast(b, kb_shl(b, kb_addi(b, n, 127), 23), KB_F32, kb_lanes_of(n));
}

kb_value kv_exp(kb *b, kb_value x)
{
    static const double c[] = {1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3,
                               4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1};
    /* Adding 1.5 * 2^23 leaves the nearest integer in the low bits: no conversion that a NaN could
     * upset. */
    const double magic = 12582912.0;
    const uint32_t lanes = kb_lanes_of(x);
    x = kb_fmin(b, f32_like(b, x, 89.0), x);
    x = kb_fmax(b, f32_like(b, x, -104.0), x);
    kb_value t = kb_fma(b, x, f32_like(b, x, 1.44269504088896341), f32_like(b, x, magic));
    kb_value n = kb_fsub(b, t, f32_like(b, x, magic));
    kb_value r = kb_fma(b, n, f32_like(b, x, -0.693359375), x);
    r = kb_fma(b, n, f32_like(b, x, 2.12194440e-4), r);
    kb_value p = kb_fma(b, POLY(b, r, c), kb_fmul(b, r, r), r);
    p = kb_fadd(b, p, f32_like(b, x, 1.0));
    /* 2^n in two factors, because n reaches -150 and 128 */
    kb_value i = kb_sub(b, kb_bitcast(b, t, KB_I32, lanes), i32_like(b, x, 0x4b400000));
    kb_value half = kb_ashr(b, i, 1);
    return kb_fmul(b, kb_fmul(b, p, pow2(b, half)), pow2(b, kb_sub(b, i, half)));
}

kb_value kv_log(kb *b, kb_value x)
{
    static const double c[] = {7.0376836292e-2,  -1.1514610310e-1, 1.1676998740e-1,
                               -1.2420140846e-1, 1.4249322787e-1,  -1.6668057665e-1,
                               2.0000714765e-1,  -2.4999993993e-1, 3.3333331174e-1};
    const uint32_t lanes = kb_lanes_of(x);
    kb_value tiny = kb_fcmp(b, KB_LT, x, f32_like(b, x, 0x1p-126));
    kb_value scaled = kb_select(b, tiny, kb_fmul(b, x, f32_like(b, x, 0x1p23)), x);
    kb_value bits = kb_bitcast(b, scaled, KB_I32, lanes);
    /* mantissa in [sqrt(1/2), sqrt(2)): subtract the bits of sqrt(1/2) and split at the exponent */
    kb_value d = kb_sub(b, bits, i32_like(b, x, 0x3f3504f3));
    kb_value e = kb_sitofp(b, kb_ashr(b, d, 23));
    e = kb_select(b, tiny, kb_fsub(b, e, f32_like(b, x, 23.0)), e);
    kb_value m = kb_add(b, kb_and(b, d, i32_like(b, x, 0x7fffff)), i32_like(b, x, 0x3f3504f3));
    kb_value f = kb_fsub(b, kb_bitcast(b, m, KB_F32, lanes), f32_like(b, x, 1.0));
    kb_value z = kb_fmul(b, f, f);
    kb_value y = kb_fmul(b, POLY(b, f, c), kb_fmul(b, f, z));
    y = kb_fma(b, e, f32_like(b, x, -2.12194440e-4), y);
    y = kb_fma(b, z, f32_like(b, x, -0.5), y);
    y = kb_fma(b, e, f32_like(b, x, 0.693359375), kb_fadd(b, f, y));
    const double inf = __builtin_inf();
    y = kb_select(b, kb_fcmp(b, KB_EQ, x, f32_like(b, x, inf)), x, y);
    y = kb_select(b, kb_fcmp(b, KB_EQ, x, f32_like(b, x, 0.0)), f32_like(b, x, -inf), y);
    kb_value valid = kb_fcmp(b, KB_GE, x, f32_like(b, x, 0.0));
    return kb_select(b, valid, y, f32_like(b, x, __builtin_nan("")));
}

kb_value kv_log1p(kb *b, kb_value x)
{
    kb_value one = f32_like(b, x, 1.0);
    kb_value w = kb_fadd(b, x, one);
    kb_value lost = kb_fsub(b, x, kb_fsub(b, w, one));
    kb_value y = kb_fadd(b, kv_log(b, w), kb_fdiv(b, lost, w));
    return kb_select(b, kb_fcmp(b, KB_EQ, w, f32_like(b, x, __builtin_inf())), w, y);
}

kb_value kv_tanh(kb *b, kb_value x)
{
    static const double c[] = {-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2,
                               1.33314422036e-1, -3.33332819422e-1};
    kb_value a = kb_fabs(b, x);
    kb_value z = kb_fmul(b, x, x);
    kb_value small = kb_fma(b, kb_fmul(b, POLY(b, z, c), z), x, x);
    kb_value e = kv_exp(b, kb_fadd(b, a, a));
    kb_value one = f32_like(b, x, 1.0);
    kb_value q = kb_fdiv(b, f32_like(b, x, 2.0), kb_fadd(b, e, one));
    kb_value large = kb_copysign(b, kb_fsub(b, one, q), x);
    return kb_select(b, kb_fcmp(b, KB_LT, a, f32_like(b, x, 0.625)), small, large);
}

kb_value kv_erf(kb *b, kb_value x)
{
    static const double near[] = {
        -9.680136827228125e-06, 1.1270544928265736e-4, -8.4847112884745e-4,    5.221074912697077e-3,
        -2.686544507741928e-2,  1.1283782869577408e-1, -3.7612637877464294e-1, 1.28379225730896e-1};
    static const double far[] = {
        1.697455473959053e-07, 1.926273944263812e-05,  -4.265054303687066e-4,
        4.153776448220015e-3,  -2.5101762264966965e-2, 1.0827848315238953e-1,
        6.333328485488892e-1,  1.1295273303985596,     -1.7812417354434729e-4};
    kb_value a = kb_fabs(b, x);
    kb_value small = kb_fma(b, POLY(b, kb_fmul(b, x, x), near), x, x);
    kb_value capped = kb_fmin(b, f32_like(b, x, 4.0), a);
    kb_value erfc = kv_exp(b, kb_fneg(b, POLY(b, capped, far)));
    kb_value large = kb_copysign(b, kb_fsub(b, f32_like(b, x, 1.0), erfc), x);
    return kb_select(b, kb_fcmp(b, KB_LT, a, f32_like(b, x, 1.0)), small, large);
}

/* Sine of x + quarter * pi/2. The reduction is in f64: its 53 bits, with pi/2 in two parts, are
 * enough for any angle that a model computes. */
static kb_value sine(kb *b, kb_value x, int64_t quarter)
{
    static const double s[] = {-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1};
    static const double c[] = {2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2};
    const uint32_t lanes = kb_lanes_of(x);
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: see kv_exp */
    kb_value x64 = kb_f64_of(b, x);
    kb_value t = kb_fma(b, x64, kb_float(b, KB_F64, lanes, 0.63661977236758134308),
                        kb_float(b, KB_F64, lanes, magic));
    kb_value n = kb_fsub(b, t, kb_float(b, KB_F64, lanes, magic));
    kb_value r64 = kb_fma(b, n, kb_float(b, KB_F64, lanes, -1.57079632679489655800e+00), x64);
    r64 = kb_fma(b, n, kb_float(b, KB_F64, lanes, -6.12323399573676603587e-17), r64);
    kb_value q = kb_trunc(b, kb_bitcast(b, t, KB_I64, lanes), KB_I32);
    q = kb_addi(b, q, quarter);
    kb_value r = kb_f32_of(b, r64);
    kb_value z = kb_fmul(b, r, r);
    kb_value sin_r = kb_fma(b, kb_fmul(b, POLY(b, z, s), z), r, r);
    kb_value cos_r = kb_fma(b, kb_fmul(b, POLY(b, z, c), z), z,
                            kb_fma(b, z, f32_like(b, x, -0.5), f32_like(b, x, 1.0)));
    kb_value odd = kb_icmp(b, KB_NE, kb_and(b, q, i32_like(b, x, 1)), i32_like(b, x, 0));
    kb_value sign = kb_shl(b, kb_and(b, q, i32_like(b, x, 2)), 30);
    kb_value y = kb_bitcast(b, kb_select(b, odd, cos_r, sin_r), KB_I32, lanes);
    return kb_bitcast(b, kb_xor(b, y, sign), KB_F32, lanes);
}

kb_value kv_sin(kb *b, kb_value x)
{
    return sine(b, x, 0);
}

kb_value kv_cos(kb *b, kb_value x)
{
    return sine(b, x, 1);
}

kb_value kv_sigmoid(kb *b, kb_value x)
{
    kb_value one = f32_like(b, x, 1.0);
    kb_value e = kv_exp(b, kb_fneg(b, kb_fabs(b, x)));
    kb_value top = kb_select(b, kb_fcmp(b, KB_LT, x, f32_like(b, x, 0.0)), e, one);
    return kb_fdiv(b, top, kb_fadd(b, one, e));
}

kb_value kv_rsqrt(kb *b, kb_value x)
{
    return kb_fdiv(b, f32_like(b, x, 1.0), kb_sqrt(b, x));
}

/* log2 of a positive finite f32, in f64 to about 1e-12: log2 m = 2/ln 2 * atanh((m - 1) / (m + 1)).
 */
static kb_value log2_f64(kb *b, kb_value x)
{
    static const double c[] = {1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9,
                               1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
    const uint32_t lanes = kb_lanes_of(x);
    kb_value x64 = kb_f64_of(b, x); /* f32 denormals are normal here */
    kb_value bits = kb_bitcast(b, x64, KB_I64, lanes);
    kb_value base = kb_int(b, KB_I64, lanes, 0x3fe6a09e667f3bcd); /* sqrt(1/2) */
    kb_value d = kb_sub(b, bits, base);
    kb_value e = kb_f64_of(b, kb_sitofp(b, kb_trunc(b, kb_ashr(b, d, 52), KB_I32)));
    kb_value mantissa = kb_and(b, d, kb_int(b, KB_I64, lanes, 0xfffffffffffff));
    kb_value m = kb_bitcast(b, kb_add(b, mantissa, base), KB_F64, lanes);
    kb_value one = kb_float(b, KB_F64, lanes, 1.0);
    kb_value s = kb_fdiv(b, kb_fsub(b, m, one), kb_fadd(b, m, one));
    kb_value series = kb_fmul(b, POLY64(b, kb_fmul(b, s, s), c), s);
    return kb_fma(b, series, kb_float(b, KB_F64, lanes, 2.88539008177792681472), e);
}

/* 2^y for |y| <= 200, in f64, rounded to f32: overflow and denormals come from that rounding. */
static kb_value exp2_f32(kb *b, kb_value y)
{
    static const double c[] = {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                               1.0 / 5040,     1.0 / 720,     1.0 / 120,    1.0 / 24,
                               1.0 / 6,        0.5,           1.0,          1.0};
    const uint32_t lanes = kb_lanes_of(y);
    const double magic = 6755399441055744.0;
    kb_value t = kb_fadd(b, y, kb_float(b, KB_F64, lanes, magic));
    kb_value f = kb_fsub(b, y, kb_fsub(b, t, kb_float(b, KB_F64, lanes, magic)));
    kb_value p = POLY64(b, kb_fmul(b, f, kb_float(b, KB_F64, lanes, 0.69314718055994530942)), c);
    kb_value exponent = kb_shl(b, kb_bitcast(b, t, KB_I64, lanes), 52);
    kb_value scaled = kb_add(b, kb_bitcast(b, p, KB_I64, lanes), exponent);
    return kb_f32_of(b, kb_bitcast(b, scaled, KB_F64, lanes));
}

kb_value kv_pow(kb *b, kb_value x, kb_value y)
{
    const uint32_t lanes = kb_lanes_of(x);
    const double inf = __builtin_inf();
    kb_value zero = f32_like(b, x, 0.0), one = f32_like(b, x, 1.0);
    kb_value a = kb_fabs(b, x);
    kb_value whole = kb_fcmp(b, KB_EQ, kb_floor(b, y), y);
    kb_value half = kb_fmul(b, y, f32_like(b, x, 0.5));
    kb_value odd = kb_and(b, whole, kb_fcmp(b, KB_NE, kb_floor(b, half), half));
    /* inner range: 2^(y log2 a), with the exponent capped where the result is 0 or inf anyway */
    kb_value l = log2_f64(b, a);
    l = kb_select(b, kb_fcmp(b, KB_EQ, a, zero), kb_float(b, KB_F64, lanes, -1e300), l);
    l = kb_select(b, kb_fcmp(b, KB_EQ, a, f32_like(b, x, inf)), kb_float(b, KB_F64, lanes, 1e300),
                  l);
    kb_value zero64 = kb_float(b, KB_F64, lanes, 0.0);
    kb_value e = kb_fmul(b, kb_f64_of(b, y), l);
    e = kb_select(b, kb_fcmp(b, KB_EQ, l, zero64), zero64, e); /* 1 to the infinite power */
    e = kb_fmin(b, kb_float(b, KB_F64, lanes, 200.0), e);
    e = kb_fmax(b, kb_float(b, KB_F64, lanes, -200.0), e);
    kb_value r = exp2_f32(b, e);
    kb_value nan = kb_float(b, KB_F32, lanes, __builtin_nan(""));
    kb_value finite = kb_fcmp(b, KB_LT, a, f32_like(b, x, inf));
    kb_value negative = kb_and(b, finite, kb_fcmp(b, KB_LT, x, zero));
    kb_value signed_r = kb_select(b, odd, kb_copysign(b, r, x), r);
    r = kb_select(b, negative, kb_select(b, whole, signed_r, nan), signed_r);
    r = kb_select(b, kb_or(b, kb_fcmp(b, KB_NE, x, x), kb_fcmp(b, KB_NE, y, y)), nan, r);
    kb_value to_one = kb_or(b, kb_fcmp(b, KB_EQ, y, zero), kb_fcmp(b, KB_EQ, x, one));
    return kb_select(b, to_one, one, r);
}
