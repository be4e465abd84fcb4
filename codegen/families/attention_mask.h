/* SPDX-License-Identifier: Apache-2.0 */
/* attention_mask - what a mask slot says about which keys need not be looked at.
 *
 * Conjuncts `k <= q` and `q - k < c`, in any spelling, bound the keys of a row; everything else is
 * evaluated key by key.
 */
#ifndef KF_CODEGEN_FAMILIES_ATTENTION_MASK_H
#define KF_CODEGEN_FAMILIES_ATTENTION_MASK_H

#include "ir/attr.h"

/** Parameters of a mask slot. */
enum { KF_MASK_H, KF_MASK_Q, KF_MASK_K };

#define KF_NO_WINDOW (INT64_C(1) << 31)

typedef struct kf_mask_bounds {
    bool causal;      /* no key after the row is visible */
    bool only_causal; /* and that is all the mask says */
    int64_t window; /* keys at a distance q - k of at least this are not visible; or KF_NO_WINDOW */
} kf_mask_bounds;

/** |mask| NULL: everything is visible. */
kf_mask_bounds kf_mask_bounds_of(const kf_slot *mask);

#endif
