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
    /** Whether the config, which a tuner or a hand may have changed, can be emitted. */
    bool (*check)(const kf_emit *e, kf_sbuf *why);
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
/** False with a sentence unless the integer |key| is in lo..hi. */
bool kf_config_in(const kf_config *c, const char *key, int64_t lo, int64_t hi, kf_sbuf *why);
/** Upper bound of |d| when the call has at most |rows_hi| rows. */
int64_t kf_dim_bound(const kf_graph *body, kf_dim d, int64_t rows_hi);
/** False with a sentence if an op of |body| cannot stand in pointwise code. */
bool kf_body_is_pointwise(const kf_graph *body, kf_sbuf *why);
/** Order in which results are stored. A result may lie over an operand that it reads element by
 * element, so what is computed from a stored result (again, from the operands) comes before it, and
 * results of one shape go through one loop. */
typedef struct kf_result_order {
    uint32_t n_groups;
    uint32_t group[KF_MAX_RESULTS]; /* of each result; groups are stored from 0 on */
} kf_result_order;

/** False with a sentence if there is no such order. */
bool kf_order_results(const kf_graph *g, kf_arena *scratch, kf_result_order *out, kf_sbuf *why);
/** True if |a| and |b| have equal dims. */
bool kf_same_dims(const kf_type *a, const kf_type *b);
/** For each value, is it computed from |from| (or is it)? */
bool *kf_dependents(const kf_graph *g, kf_value from, kf_arena *scratch);
/** Pointer of result |i| of the kernel. */
kb_value kf_result_ptr(const kf_emit *e, uint32_t i);
bool kf_refuse(kf_sbuf *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
