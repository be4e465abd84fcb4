/* SPDX-License-Identifier: Apache-2.0 */
/* element_impl - what the files of element.h share. */
#ifndef KF_PASSES_ELEMENT_IMPL_H
#define KF_PASSES_ELEMENT_IMPL_H

#include "passes/element.h"

/** number + sum of (num/den) * part, while it is built. */
typedef struct kf_el_sum {
    double number;
    uint8_t n;
    kf_el_part part[KF_MAX_PARTS];
} kf_el_sum;

#define KF_EL_ONE ((kf_el_product){.num = 1, .den = 1, .exponent = KF_NO_EL, .mask = KF_NO_EL})

kf_el kf_el_intern(kf_els *e, kf_el_node n);
void kf_el_sum_add(kf_els *e, kf_el_sum *s, kf_el x, double num, double den);
kf_el kf_el_sum_of(kf_els *e, kf_el_sum *s);
void kf_el_quotient(double *num, double *den);
/** By structure, so that the order does not depend on how things were written. */
void kf_el_sort_parts(const kf_els *e, kf_el_part *part, uint32_t n);

/* ---- functions (element_fn.c) ---------------------------------------------------------------- */

/** fn(a, b, c) as it is, commutative operands in order. */
kf_el kf_el_fn_node(kf_els *e, kf_fn fn, kf_el a, kf_el b, kf_el c);
bool kf_el_is_number(const kf_els *e, kf_el x, double want);
bool kf_el_is_indicator(const kf_els *e, kf_el x);
/** and, or: one chain of different leaves in structural order. */
kf_el kf_el_join(kf_els *e, kf_fn fn, kf_el a, kf_el b);
kf_el kf_el_negate(kf_els *e, kf_el p);
/** |x| without positive factors, for comparisons with 0. */
kf_el kf_el_sign(kf_els *e, kf_el x);

/** e^x (element_mul.c). */
kf_el kf_el_exp(kf_els *e, kf_el x);

#endif
