/* SPDX-License-Identifier: Apache-2.0 */
/* eval_impl - what the files of the evaluator share; not for other folders. */
#ifndef KF_IR_EVAL_IMPL_H
#define KF_IR_EVAL_IMPL_H

#include "ir/eval.h"

/** A cache: rows [heads, head_dim] of keys and values for each layer and sequence. One layer of it
 * is a view that shares the rows. |slot| maps the sequences of a call to caches (NULL: as they
 * are). */
struct kf_eval_kv {
    kf_type type;
    bool rounded;
    uint32_t n_seqs;
    int64_t *cap;    /* rows there is room for, by cache; shared by all views */
    double **k, **v; /* [layers][n_seqs] */
    const uint32_t *slot;
};

/** Room for |rows| rows in cache |seq|, all layers. */
void kf_eval_kv_reserve(kf_arena *arena, kf_eval_kv *kv, uint32_t seq, int64_t rows);
/** Row |pos| of call sequence |seq| of a one-layer view, or NULL if it is outside the cache. */
double *kf_eval_kv_at(const kf_eval_kv *kv, bool values, int64_t seq, int64_t pos);

/** Weights of parameter |param| of |callee| in layer |layer|; false after reporting. */
typedef bool (*kf_eval_weights_fn)(void *user, const kf_graph *callee, uint32_t param,
                                   kf_str prefix, uint32_t layer, kf_tensor *out);

typedef struct kf_eval_ctx {
    kf_arena *arena; /* scratch */
    const kf_module *m;
    kf_eval_mode mode;
    const int64_t *sym_values;
    kf_eval_weights_fn weights; /* NULL: callees with parameters cannot be called */
    void *user;
    kf_sbuf *why;
    kf_eval_trace_fn trace; /* or NULL */
    void *trace_user;
    uint32_t layer; /* of the repeat that runs */
} kf_eval_ctx;

/** Operands, attributes and results of one node. Results have their dims; data is allocated (zero).
 */
typedef struct kf_eval_call {
    kf_eval_ctx *ctx;
    const kf_node *node;
    uint32_t n_in;
    const kf_tensor *const *in;
    const kf_type *out_type;
    kf_tensor *out;
} kf_eval_call;

/** Adds the sentence and returns false. */
bool kf_eval_fail(kf_eval_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool kf_eval_values(kf_eval_ctx *ctx, const kf_graph *g, bool is_body, const kf_tensor *args,
                    const kf_tensor *params, kf_tensor *out_results);

/* The words of the eval column of ops.def: kf_eval_<word>, in eval_ops.c and eval_attention.c;
 * elementwise in eval_map.c. */
bool kf_eval_elementwise(kf_eval_call *c);
#define OP(name, ins, attr, traits, shape, eval, shard, types, summary)                            \
    bool kf_eval_##eval(kf_eval_call *c);
#include "ir/ops.def"
#undef OP

/** A vector of scalars that may be one scalar repeated (stride 0). */
typedef struct kf_eval_vec {
    const double *ptr;
    int64_t stride;
} kf_eval_vec;

/** A slot over vectors: made once per node, run for many rows. */
typedef struct kf_eval_slot kf_eval_slot;
/** |captures|: the operands that the body may load from. */
kf_eval_slot *kf_eval_slot_create(kf_arena *arena, const kf_slot *s,
                                  const kf_tensor *const *captures);
/** Writes |n| results. False if a load is out of range. */
bool kf_eval_slot_run(kf_eval_slot *e, const kf_eval_vec *params, int64_t n, double *out);

#endif
