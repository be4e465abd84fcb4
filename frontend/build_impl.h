/* SPDX-License-Identifier: Apache-2.0 */
/* build_impl - shared between build_graph.c (blocks), build_func.c (functions),
 * build_attention.c, build_linear.c and relative_bias.c. Private to the frontend. */
#ifndef KF_FRONTEND_BUILD_IMPL_H
#define KF_FRONTEND_BUILD_IMPL_H

#include "frontend/build_graph.h"

#define KF_MAX_ROPES  4
#define KF_MAX_CACHES 4

/** Inputs that every function has, as values of the function under construction. */
typedef struct kf_call_inputs {
    kf_value pos, seq, seq_start, past, pages;
    kf_value types; /* of the entry; KF_NO_VALUE in a model without token types */
    kf_value memory_len, memory_pages; /* of a decoder beside an encoder */
    kf_value bias;                     /* table of the relative_bias in effect, or KF_NO_VALUE */
    kf_value rope[KF_MAX_ROPES];
} kf_call_inputs;

typedef struct kf_graph_builder {
    kf_arena *arena;
    kf_diags *diags;
    const kf_spec *spec;
    const kf_tensor_source *stored;
    kf_module *m;
    kf_graph *g; /* function under construction */
    /* Checkpoint names of its parameters: |prefix| is that of the function, |part| that of the
     * block of a repeat's list which is being built, below it. */
    kf_str prefix, part;
    uint32_t round, turn; /* blocks in that list, and which of them it is */
    kf_call_inputs in;
    uint32_t n_caches; /* of the function under construction */
    kf_value cache[KF_MAX_CACHES];
    uint32_t next_cache;
    uint32_t next_memory; /* caches of cross attentions stand behind those of the others */
    const kf_block *bias; /* the relative_bias in effect, or NULL */
    /* distinct rotary tables of the whole model */
    uint32_t n_ropes;
    kf_attr_rope_table rope[KF_MAX_ROPES];
    int64_t max_positions;
} kf_graph_builder;

kf_loc kf_build_loc(kf_graph_builder *b, kf_loc spec_loc);
/** The parameter of |block| with |role| as a value, or KF_NO_VALUE if the block has none. */
kf_value kf_build_param(kf_graph_builder *b, const kf_block *block, kf_param_role role,
                        const char *name);
/** One of the tensors that make it up. */
kf_value kf_build_part(kf_graph_builder *b, const kf_block *block, kf_param_role role,
                       kf_param_part part, const char *name);
/** How the checkpoint's tensor becomes |p|. */
const kf_recipe *kf_build_recipe(kf_graph_builder *b, const kf_spec_param *p);
/** x W^T (+ bias); what W is stored as is the description's business. */
kf_value kf_build_linear(kf_graph_builder *b, const kf_block *block, kf_param_role weight,
                         const char *weight_name, kf_param_role bias, const char *bias_name,
                         kf_value x);
/** Uses only the first |n| rows (axis 0) or columns (axis 1) of the matrix; n 0: all. */
typedef struct kf_linear_cut {
    int64_t axis, n;
} kf_linear_cut;
kf_value kf_build_linear_cut(kf_graph_builder *b, const kf_block *block, kf_param_role weight,
                             const char *weight_name, kf_param_role bias, const char *bias_name,
                             kf_linear_cut cut, kf_value x);
/** Blocks one after the other, and a repeat of some. */
kf_value kf_build_blocks(kf_graph_builder *b, kf_blocks blocks, kf_value x);
kf_value kf_build_repeat(kf_graph_builder *b, const kf_block *block, kf_value x);
/** rms over the last axis, times a gain. */
kf_value kf_build_rms(kf_graph_builder *b, kf_value x, double eps, kf_value gain, kf_loc loc);
/** |e| over values for its variables (indexed by kf_expr_var; unused ones KF_NO_VALUE). */
kf_value kf_build_expr(kf_graph_builder *b, const kf_expr *e, const kf_value *vars, kf_loc loc);
/** Attributes of the block's rotary table. */
kf_attr_rope_table kf_build_rope_attr(const kf_spec_attention *a);
kf_type kf_build_cache_type(const kf_graph_builder *b, const kf_spec_attention *a, uint32_t layers);
kf_value kf_build_attention(kf_graph_builder *b, const kf_block *block, kf_value x);
/** Attention of the rows of |x| to the memory. */
kf_value kf_build_cross(kf_graph_builder *b, const kf_block *block, kf_value x);
/** Keys and values of the encoder's rows |x| join the memory of a cross attention. */
void kf_build_memory(kf_graph_builder *b, const kf_block *block, kf_value x);
/** table[bucket(k - q), h] as [G, heads/G, N, keys] (relative_bias.c). |q|: a column, |k|: a row.
 */
kf_value kf_build_relative_bias(kf_graph_builder *b, const kf_spec_attention *a, kf_value q,
                                kf_value k, kf_loc loc);

#endif
