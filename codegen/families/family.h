/* SPDX-License-Identifier: Apache-2.0 */
/* family - what each kernel family offers: match, configure, emit. */
#ifndef KF_CODEGEN_FAMILIES_FAMILY_H
#define KF_CODEGEN_FAMILIES_FAMILY_H

#include "codegen/nest.h"
#include "ir/target.h"

/** What emitting one kernel needs. */
typedef struct kf_emit {
    kf_arena *arena;
    kb *b;
    const kf_target *target;
    const kf_graph *body;
    const kf_config *config;
    uint32_t kv_layers; /* layers of the cache state behind a kvcache argument */
} kf_emit;

typedef struct kf_family_impl {
    /** True if |body| is one kernel; else a sentence in |why|. |scratch| is the caller's. */
    bool (*match)(const kf_target *t, const kf_graph *body, kf_arena *scratch, kf_sbuf *why);
    /** For a body that matched. */
    kf_kernel_shape (*configure)(const kf_target *t, const kf_graph *body, kf_arena *scratch,
                                 int64_t rows_hi);
    void (*emit)(const kf_emit *e);
} kf_family_impl;

extern const kf_family_impl kf_family_rows; /* map, row_reduce, contract, index */
extern const kf_family_impl kf_family_matmul;
extern const kf_family_impl kf_family_attention;

/** f32 lanes and vector registers of the target. */
static inline uint32_t kf_target_lanes(const kf_target *t)
{
    return t->vector_bytes / 4;
}
static inline uint32_t kf_target_regs(const kf_target *t)
{
    return t->vector_bytes == 64 ? 32 : 16;
}

/** Appends "key = value". */
void kf_config_set(kf_config *c, const char *key, int64_t value);
/** Upper bound of |d| when the call has at most |rows_hi| rows. */
int64_t kf_dim_bound(const kf_graph *body, kf_dim d, int64_t rows_hi);
/** False with a sentence if an op of |body| cannot stand in pointwise code. */
bool kf_body_is_pointwise(const kf_graph *body, kf_sbuf *why);
/** Pointer of result |i| of the kernel. */
kb_value kf_result_ptr(const kf_emit *e, uint32_t i);
bool kf_refuse(kf_sbuf *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
