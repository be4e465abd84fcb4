/* SPDX-License-Identifier: Apache-2.0 */
/* eval - the reference evaluator: the semantics of every op, in plain loops.
 *
 * KF_EVAL_IDEAL computes and keeps everything in f64 (rope angles and tables in f32, as in every
 * form). KF_EVAL_ROUNDED computes in f64 too but rounds a value to its storage dtype where it is
 * stored: the result of every node outside a region, and of each region. It is the truth that
 * kernels are compared with.
 */
#ifndef KF_IR_EVAL_H
#define KF_IR_EVAL_H

#include "ir/graph.h"
#include "ir/tensor_source.h"

typedef enum kf_eval_mode { KF_EVAL_IDEAL, KF_EVAL_ROUNDED } kf_eval_mode;

/** A dense tensor of doubles, row-major; or a KV cache (|kv| set). */
typedef struct kf_tensor {
    uint8_t rank;
    int64_t dim[KF_MAX_RANK];
    int64_t n;
    double *data;
    struct kf_eval_kv *kv;
} kf_tensor;

/** An evaluator-side cache: for each layer and sequence a growing list of rows of keys and values
 *  [kv_heads, head_dim]; the page table plays no role here. Rounds to |dtype| in the rounded mode.
 */
typedef struct kf_eval_kv kf_eval_kv;

/** An empty cache of |type| (all its layers) for |n_seqs| sequences of at most |capacity| tokens,
 * to be passed as an argument of kf_eval_graph. It grows no further. */
kf_tensor kf_tensor_new_kv(kf_arena *arena, const kf_type *type, kf_eval_mode mode, uint32_t n_seqs,
                           int64_t capacity);
/** Row |pos| ([heads, head_dim]) of keys or values; to be read or filled by tests. */
double *kf_eval_kv_row(const kf_tensor *kv, bool values, uint32_t layer, uint32_t seq, int64_t pos);

typedef struct kf_eval kf_eval;

/** An evaluator over |m| with weights from |weights| (read once, cached by recipe). |seqs|:
 * sequences whose caches are kept between steps. Everything lives in |arena|. */
kf_eval *kf_eval_create(kf_arena *arena, const kf_module *m, kf_eval_mode mode,
                        const kf_tensor_source *weights, uint32_t seqs);

/** One call over a ragged batch; a sequence occurs at most once. */
typedef struct kf_eval_step {
    uint32_t n_seqs;
    const uint32_t *seq;      /* which cache each sequence of this call uses */
    const uint32_t *n_tokens; /* new tokens of each */
    const int32_t *const *tokens;
    const int32_t *const *types; /* token types; NULL: all 0 */
} kf_eval_step;

/** Runs function |func|, an entry ("main", "encoder", "main.decode"); its inputs are bound by name
 * (ir/phase.def; logit_rows = last row of each sequence unless |all_rows|).
 * Caches advance. Returns false with a sentence in |why| for a missing weight or a dim out of
 * bounds. */
bool kf_eval_run(kf_eval *e, const char *func, const kf_eval_step *step, bool all_rows,
                 kf_tensor *out_logits, kf_sbuf *why);
/** Called behind every node of a function, but for repeat; nodes of region bodies are not seen.
 * |layer|: which round of the repeat it is. What the tensors hold lives until the call returns. */
typedef void (*kf_eval_trace_fn)(void *user, const kf_graph *g, uint32_t layer, const kf_node *n,
                                 const kf_tensor *const *in, const kf_tensor *out,
                                 const int64_t *sym_values);
void kf_eval_trace(kf_eval *e, kf_eval_trace_fn fn, void *user);

/** Evaluates one graph with given arguments (and params as tensors): tests, fold_const, random
 * graphs. A graph without a name is a region body: nothing inside is rounded, only its results.
 * Results lie in |arena|; repeated functions may not have parameters. |sym_values| holds all
 * symbols of the module. */
bool kf_eval_graph(kf_arena *arena, const kf_graph *g, kf_eval_mode mode, const int64_t *sym_values,
                   const kf_tensor *args, const kf_tensor *params, kf_tensor *out_results,
                   kf_sbuf *why);

/** Zeros. */
kf_tensor kf_tensor_new(kf_arena *arena, uint8_t rank, const int64_t *dims);
/** v rounded to storage |dtype| and back: nearest even; towards zero for i32; 0 or 1 for pred. */
double kf_round_to(kf_dtype dtype, double v);

#endif
