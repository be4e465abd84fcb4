/* SPDX-License-Identifier: Apache-2.0 */
/* module_weights - a tensor source that holds whatever a module asks for, filled by a hash of the
 * tensor's name. */
#ifndef KF_TESTS_GRAPHS_MODULE_WEIGHTS_H
#define KF_TESTS_GRAPHS_MODULE_WEIGHTS_H

#include "ir/graph.h"
#include "ir/tensor_source.h"

/** What the values look like. The first ones are drawn until a module has no NaN; the others are
 * adversarial. */
typedef enum fill {
    FILL_USUAL,
    FILL_SMALL,
    FILL_POSITIVE,
    FILL_SEARCHED, /* those above */
    FILL_DENORMAL = FILL_SEARCHED,
    FILL_LARGE,    /* magnitudes up to 1e4 */
    FILL_CONSTANT, /* rows without variance, ties everywhere */
    FILL_SPARSE,   /* mostly zeros of both signs */
    FILL_COUNT
} fill;

extern const char *const fill_names[FILL_COUNT];

/** All tensors that functions reached from main (or its phases) load. */
const kf_tensor_source *module_weights(kf_arena *arena, const kf_module *m, fill how,
                                       uint64_t seed);

/** Rows of the smallest table that an argument called ids looks up; token ids lie below. */
int64_t module_vocabulary(const kf_module *m);

#endif
