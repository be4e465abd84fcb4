/* SPDX-License-Identifier: Apache-2.0 */
/* target - what passes may ask about the machine and the code generator: limits and predicates.
 *
 * A constant struct filled by codegen (passes never see LLVM). match says whether a region body is
 * one kernel of a family and why not; configure picks the integers of its kernel. Both are pure.
 */
#ifndef KF_IR_TARGET_H
#define KF_IR_TARGET_H

#include "ir/graph.h"

#define KF_MAX_CONFIG 12

/** The integers of one kernel that tuning changes. Order is the family's; names are the printed
 * keys. */
typedef struct kf_config {
    uint8_t n;
    const char *key[KF_MAX_CONFIG];
    int64_t value[KF_MAX_CONFIG];
} kf_config;

/** -1 if there is no such key. */
int64_t kf_config_get(const kf_config *c, const char *key);

/** Number of tiles of a launch: |constant| * product of ceil(sym_value[sym] / div). */
typedef struct kf_tile_expr {
    int64_t constant;
    uint8_t n_terms;
    struct {
        uint32_t sym; /* index of the module's symbols */
        int64_t div;
    } term[2];
} kf_tile_expr;

typedef struct kf_kernel_shape {
    kf_config config;
    kf_tile_expr tiles;
    int64_t scratch_bytes; /* per worker */
    /* What the tiles of a launch share: counters that are 0 before and after it, and bytes. */
    int64_t cells, shared_bytes;
} kf_kernel_shape;

typedef struct kf_target {
    const char *name; /* "cpu:x86-64-v3" */
    uint32_t vector_bytes;
    int64_t l1_bytes, l2_bytes;
    /** True if |body| is one kernel of |family|; else a sentence in |why| (may be NULL). */
    bool (*match)(const struct kf_target *t, kf_family family, const kf_graph *body, kf_sbuf *why);
    /** Integers for 1..|rows_hi| rows. |body| has matched. */
    kf_kernel_shape (*configure)(const struct kf_target *t, kf_family family, const kf_graph *body,
                                 int64_t rows_lo, int64_t rows_hi);
    /** Storage layout of a matmul weight of this dtype and shape ([N,K]). */
    kf_layout (*weight_layout)(const struct kf_target *t, const kf_type *weight);
} kf_target;

#endif
