/* SPDX-License-Identifier: Apache-2.0 */
/* nest - loops over the part of an index space that belongs to a tile, vectorised along the last
 * dims.
 *
 *   for d0 in range[0]: prepare; for d1 in range[1]: prepare; ...
 *       for c in range[flat], lanes at a time: visit(coords); for the remaining c: visit(coords)
 *
 * From dim |flat| on all dims are static and one loop runs over their joined index. Before each
 * inner loop the parts of the visited values that do not depend on it are emitted (kf_pw_prepare).
 */
#ifndef KF_CODEGEN_NEST_H
#define KF_CODEGEN_NEST_H

#include "codegen/pointwise.h"

/** lo .. hi-1; |lo| NULL: the whole dim. |divisor| divides lo. */
typedef struct kf_range {
    kb_value lo, hi;
    int64_t divisor;
} kf_range;

typedef struct kf_nest {
    const kf_type *type;
    uint32_t flat;
    kf_range range[KF_MAX_RANK]; /* range[flat]: of the joined index */
    uint32_t n;                  /* values of this shape that are visited together */
    const kf_value *value;
    void *user;
    /** |ix|: coordinates of the element(s); |at|: row-major offset. */
    void (*visit)(kf_pw *pw, void *user, const kf_coord *ix, kf_coord at, uint32_t lanes);
} kf_nest;

/** First joined dim for |type|, if dim |fixed| (or none: -1) has a range of its own: as few dims as
 * fill |lanes|. */
uint32_t kf_nest_flat(const kf_type *type, int fixed, uint32_t lanes);

/** Emits one nest that stores |n| values of one shape at the pointers |dst|. */
void kf_nest_store(kf_pw *pw, const kf_nest *nest, const kb_value *dst);

#endif
