/* SPDX-License-Identifier: Apache-2.0 */
/* mask_bounds - which keys a mask slot lets a row see at most.
 *
 * The mask is read as conditions on k: comparisons that are linear in k give a half line, `and`
 * intersects, `or` spans, a condition without k opens or closes everything. What comes out are
 * bodies over (h, q), so that a window, a prefix of a length per head or a block of a local pattern
 * cost what is visible and not what is cached:
 *
 *   and(le(k, q), lt(sub(q, k), 128))        lo = sub(q, 127)          hi = add(q, 1)
 *   lt(abs(sub(q, k)), $0[h])                lo = q - $0[h]            hi = q + $0[h] + 1
 *   eq(floor(div(k, 64)), floor(div(q, 64))) lo = 64 * floor(q / 64)   hi = lo + 65
 *   or(le(k, q), lt(k, 16))                  lo = none                 hi = max(add(q, 1), 16)
 */
#ifndef KF_IR_MASK_BOUNDS_H
#define KF_IR_MASK_BOUNDS_H

#include "ir/attr.h"

/** Parameters of a mask slot; its bounds have the first two. */
enum { KF_MASK_H, KF_MASK_Q, KF_MASK_K };

typedef struct kf_mask_bounds {
    const kf_slot *lo; /* no key before it is visible; NULL: from the first */
    const kf_slot *hi; /* no key from it on is visible; NULL: to the last */
    bool exact;        /* every key between them is visible */
} kf_mask_bounds;

/** |mask| NULL: everything is visible. The bodies are whole numbers where |exact|; a bound that is
 * NaN says nothing. */
kf_mask_bounds kf_mask_bounds_of(kf_arena *arena, const kf_slot *mask);

#endif
