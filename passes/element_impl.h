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

#endif
