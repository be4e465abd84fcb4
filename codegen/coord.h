/* SPDX-License-Identifier: Apache-2.0 */
/* coord - index arithmetic of pointwise code: a coordinate is the same in all lanes, a ramp, or
 * arbitrary.
 *
 * Keeping ramps symbolic is what makes loads contiguous: splitting a ramp over [256] into [8,32] is
 * again a uniform head and a ramp inside it, as long as no vector crosses a boundary, which is
 * known from the divisor carried along. Everything works in two modes: with a builder, and dry
 * (builder NULL), where only the shapes are computed; so an emitter can ask what a vector width
 * would lead to before it emits.
 */
#ifndef KF_CODEGEN_COORD_H
#define KF_CODEGEN_COORD_H

#include "codegen/cpu/kernel_builder.h"

typedef enum kf_coord_kind {
    KF_COORD_UNIFORM, /* v: one i64 */
    KF_COORD_RAMP,    /* v + lane * stride */
    KF_COORD_VECTOR,  /* v: i64 lanes */
    KF_COORD_LATER    /* the loop over it is not open yet */
} kf_coord_kind;

typedef struct kf_coord {
    kf_coord_kind kind;
    uint32_t lanes;
    int64_t stride;
    int64_t divisor, rest; /* uniform, ramp: v = divisor * something + rest, 0 <= rest < divisor */
    kb_value v;            /* NULL when dry, and for LATER */
} kf_coord;

/** Divisor of a value of which everything is known to divide it (zero). */
#define KF_COORD_ANY (INT64_C(1) << 40)

kf_coord kf_coord_const(kb *b, int64_t value);
/** An i64 that |divisor| divides. */
kf_coord kf_coord_uniform(kb_value v, int64_t divisor);
/** v, v+1, ... in |lanes| lanes; one lane is a uniform coordinate. */
kf_coord kf_coord_ramp(kb_value v, uint32_t lanes, int64_t divisor);
/** From i32 lanes (or a scalar), sign-extended. */
kf_coord kf_coord_from_i32(kb *b, kb_value v, uint32_t lanes);
kf_coord kf_coord_later(void);

kf_coord kf_coord_add(kb *b, kf_coord x, kf_coord y);
kf_coord kf_coord_addi(kb *b, kf_coord x, int64_t c);
kf_coord kf_coord_muli(kb *b, kf_coord x, int64_t c);
/** x times a run-time i64. */
kf_coord kf_coord_scale(kb *b, kf_coord x, kb_value c);
/** Quotient and remainder of a non-negative coordinate by a positive constant. */
kf_coord kf_coord_divi(kb *b, kf_coord x, int64_t c);
kf_coord kf_coord_modi(kb *b, kf_coord x, int64_t c);
/** Limits to 0..hi. A ramp stays one when it cannot straddle a limit: |whole| promises that. */
kf_coord kf_coord_clamp(kb *b, kf_coord x, kb_value hi, bool whole);
/** The lanes as i64 (a scalar for a uniform one). Not dry. */
kb_value kf_coord_lanes(kb *b, kf_coord x);
/** The same value: conservative, may be false for equal ones. */
bool kf_coord_same(const kf_coord *x, const kf_coord *y);
/** True if the ramp's lanes stay between two neighbouring multiples of |c|. */
bool kf_coord_within(const kf_coord *x, int64_t c);

#endif
