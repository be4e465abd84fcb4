/* SPDX-License-Identifier: Apache-2.0 */
/* plan - the Plan form: per phase and row bucket the ordered launches, with buffers, weights and
 * states.
 *
 * Nothing downstream reasons about shapes: a launch names its kernel and binds operands to buffers,
 * weights, states and inputs; a kernel is a region body plus integers. Equal kernels are shared.
 * Text round-trips.
 */
#ifndef KF_IR_PLAN_H
#define KF_IR_PLAN_H

#include "ir/target.h"

typedef enum kf_space { KF_SPACE_BUFFER, KF_SPACE_WEIGHT, KF_SPACE_STATE, KF_SPACE_INPUT } kf_space;

typedef struct kf_operand {
    kf_space space;
    uint32_t index; /* of the phase's buffers, the plan's weights, states or inputs */
} kf_operand;

/** One kernel: a tile function. Its pointer arguments are the body's arguments, then its results.
 */
typedef struct kf_kernel {
    kf_str name; /* "k0_qkv" */
    kf_family family;
    kf_kernel_shape shape;
    kf_graph *body;
    kf_loc loc;
} kf_kernel;

/** An amount that grows with the call. */
typedef struct kf_cost {
    int64_t fixed, per_token, per_row;
    int64_t per_key;  /* key in view of a sequence */
    int64_t per_pair; /* token and key that it may see */
} kf_cost;

/** A call of one sequence: its tokens, the logit rows it wants, the keys in view (past and new), the
 * keys that each token may see, summed over the tokens, and the positions of its memory. */
typedef struct kf_cost_point {
    int64_t tokens, rows, keys, pairs, memory;
} kf_cost_point;

typedef struct kf_launch {
    uint32_t kernel;
    uint32_t n_operands;
    kf_operand *operand; /* body arguments, then results */
    kf_cost flops;
    kf_cost bytes; /* moved to or from memory, each operand and result once */
    uint32_t ops;  /* of the graph that it is made of: the launches of the unfused program */
    kf_cost alone; /* bytes that these move, each on its own */
    kf_loc loc;
} kf_launch;

/** A straight launch (times 1) or a loop over layers of |n| launches starting at |first|. */
typedef struct kf_plan_step {
    uint32_t first, n;
    uint32_t times; /* layers; 1 outside a loop */
    bool loop;
    uint32_t first_layer; /* of the weight tables and states */
} kf_plan_step;

/** A buffer of the activation pool. The bytes hold the type at the bucket's upper bounds. Buffers
 * with overlapping lifetimes do not overlap; |shares| names the buffer whose storage it reuses in
 * place, or UINT32_MAX. */
typedef struct kf_buffer {
    kf_str name;
    kf_type type;
    int64_t offset, size_bytes;
    uint32_t shares;
} kf_buffer;

typedef struct kf_plan_phase {
    kf_str name;              /* "prefill", "decode" */
    int64_t rows_lo, rows_hi; /* bound of N in this bucket */
    KF_VEC(kf_buffer) buffers;
    KF_VEC(kf_launch) launches;
    KF_VEC(kf_plan_step) steps;
    int64_t pool_bytes;
    uint32_t logits; /* buffer that holds f32[R, vocab] at the end */
    uint32_t next; /* buffer that holds i32[R, 1] at the end, their likeliest tokens; UINT32_MAX */
} kf_plan_phase;

/** True for a buffer that is read after the call. */
static inline bool kf_plan_phase_keeps(const kf_plan_phase *ph, uint32_t buffer)
{
    return buffer == ph->logits || buffer == ph->next;
}

/** A packed weight: made by |recipe| for each of |layers| layers (names relative to |prefix|, "{i}"
 * is the layer, see kf_layer_hole), stored with type.layout. */
typedef struct kf_plan_weight {
    kf_str name;
    kf_type type; /* layout set */
    const kf_recipe *recipe;
    kf_str prefix; /* "" or "model.layers.{i}." */
    uint32_t layers;
    int64_t size_bytes; /* of one layer, padded storage */
} kf_plan_weight;

typedef struct kf_plan_state {
    kf_str name;
    kf_type type; /* kvcache with all layers */
} kf_plan_state;

typedef struct kf_plan_input {
    kf_str name;
    kf_type type;
} kf_plan_input;

typedef struct kf_plan {
    kf_arena *arena;
    kf_module *module; /* owns symbols and files; the bodies belong to it */
    kf_str name;
    kf_str target;
    KF_VEC(kf_plan_input) inputs;
    KF_VEC(kf_plan_weight) weights;
    KF_VEC(kf_plan_state) states;
    KF_VEC(kf_kernel) kernels;
    KF_VEC(kf_plan_phase) phases;
} kf_plan;

void kf_plan_print(const kf_plan *p, uint32_t flags, kf_sbuf *out);
kf_plan *kf_plan_parse(kf_arena *arena, kf_diags *d, kf_str path, kf_str text);
/** Buffers in range and not overlapping while alive, operands typed like the body, kernels matched;
 * all errors in |out|. */
bool kf_plan_verify(const kf_plan *p, kf_sbuf *out);
int64_t kf_cost_at(const kf_cost *c, const kf_cost_point *at);
/** Total tiles of a launch at these symbol values. */
int64_t kf_tile_count(const kf_tile_expr *e, const int64_t *sym_values);
/** A hole of a layer's number at the start of |s|: "{i}", "{2i}", "{2i+1}" stand for factor * layer
 * + offset. Returns its length, 0 for none. */
uint32_t kf_layer_hole(kf_str s, uint32_t *out_factor, uint32_t *out_offset);
/** Name of layer |layer|'s tensor: prefix, then the recipe's tensor name, the holes of both filled.
 */
kf_str kf_plan_tensor_name(kf_arena *arena, kf_str prefix, uint32_t layer, kf_str tensor);

#endif
