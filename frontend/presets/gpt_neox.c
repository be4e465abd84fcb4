/* SPDX-License-Identifier: Apache-2.0 */
/* gpt_neox - decoders with attention and MLP in parallel, a norm before each, partial rope, weights
 * packed per head; and the same with one after the other.
 *
 * Source: transformers' modeling_gpt_neox.py and configuration_gpt_neox.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    {"layer_norm_eps", KF_CONFIG_COPY, NULL},
    {"rotary_pct", KF_CONFIG_COPY, "rope.fraction"},
    {"rotary_emb_base", KF_CONFIG_COPY, "rope.theta"},
    /* What counts has the names above; some files have these beside them. */
    {"partial_rotary_factor", KF_CONFIG_EQUAL, "rotary_pct"},
    {"rope_theta", KF_CONFIG_EQUAL, "rotary_emb_base"},
    {"use_parallel_residual", KF_CONFIG_CODE, NULL}, /* chooses the family */
    {"classifier_dropout", KF_CONFIG_HARMLESS, NULL},
    {0},
};

#define DEFAULTS                                                                                   \
    "intermediate_size: $4*hidden_size\n"                                                          \
    "hidden_act: gelu\n"                                                                           \
    "attention_bias: true\n"                                                                       \
    "rope: {fraction: 0.25}\n"

/* What both kinds of layer stand in. */
#define MODEL                                                                                      \
    "model:\n"                                                                                     \
    "  - embedding: {}\n"                                                                          \
    "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"gpt_neox.layers.{i}\"}\n"    \
    "  - layer_norm: {eps: $layer_norm_eps}\n"                                                     \
    "  - linear: {out: vocab_size, tied: $tied}\n"                                                 \
    "weight_names:\n"                                                                              \
    "  model.embedding.table: gpt_neox.embed_in.weight\n"                                          \
    "  layer.attention.q: &qkv {tensor: attention.query_key_value.weight, packed: [q, k, v], "     \
    "groups: $num_attention_heads}\n"                                                              \
    "  layer.attention.k: *qkv\n"                                                                  \
    "  layer.attention.v: *qkv\n"                                                                  \
    "  layer.attention.q_bias: &qkv_bias {tensor: attention.query_key_value.bias, packed: "        \
    "[q_bias, k_bias, v_bias], groups: $num_attention_heads}\n"                                    \
    "  layer.attention.k_bias: *qkv_bias\n"                                                        \
    "  layer.attention.v_bias: *qkv_bias\n"                                                        \
    "  layer.attention.o: attention.dense.weight\n"                                                \
    "  layer.attention.o_bias: attention.dense.bias\n"                                             \
    "  layer.mlp.up: mlp.dense_h_to_4h.weight\n"                                                   \
    "  layer.mlp.up_bias: mlp.dense_h_to_4h.bias\n"                                                \
    "  layer.mlp.down: mlp.dense_4h_to_h.weight\n"                                                 \
    "  layer.mlp.down_bias: mlp.dense_4h_to_h.bias\n"                                              \
    "  model.layer_norm.gain: gpt_neox.final_layer_norm.weight\n"                                  \
    "  model.layer_norm.bias: gpt_neox.final_layer_norm.bias\n"                                    \
    "  model.linear.weight: embed_out.weight\n"

static const kf_arch archs[] = {
    {.name = "GPTNeoXForCausalLM", .rope = KF_ARCH_ROPE_PARTIAL, .config = keys},
    {0},
};

const kf_preset kf_preset_gpt_neox = {
    .family = "gpt_neox",
    .summary =
        "decoder: attention and MLP side by side, each behind its LayerNorm, biases, partial rope",
    .defaults = DEFAULTS,
    .text =
        "blocks:\n"
        "  layer:\n"
        "    - residual:\n"
        "        - parallel:\n"
        "            -\n"
        "              - layer_norm: {eps: $layer_norm_eps}\n"
        "              - attention:\n"
        "                  num_attention_heads: $num_attention_heads\n"
        "                  qkv_bias: $attention_bias\n"
        "                  o_bias: $attention_bias\n"
        "                  rope: $rope\n"
        "            -\n"
        "              - layer_norm: {eps: $layer_norm_eps}\n"
        "              - mlp: {intermediate_size: $intermediate_size, act: $hidden_act}\n" MODEL,
    .arch = archs,
};

static const kf_arch serial_archs[] = {
    {.name = "GPTNeoXForCausalLM",
     .when = {"use_parallel_residual", "false"},
     .rope = KF_ARCH_ROPE_PARTIAL,
     .config = keys},
    {0},
};

const kf_preset kf_preset_gpt_neox_serial = {
    .family = "gpt_neox_serial",
    .summary = "decoder: as gpt_neox, with the MLP behind attention",
    .defaults = DEFAULTS,
    .text = "blocks:\n"
            "  layer:\n"
            "    - residual:\n"
            "        - layer_norm: {eps: $layer_norm_eps}\n"
            "        - attention:\n"
            "            num_attention_heads: $num_attention_heads\n"
            "            qkv_bias: $attention_bias\n"
            "            o_bias: $attention_bias\n"
            "            rope: $rope\n"
            "    - residual:\n"
            "        - layer_norm: {eps: $layer_norm_eps}\n"
            "        - mlp: {intermediate_size: $intermediate_size, act: $hidden_act}\n" MODEL,
    .arch = serial_archs,
};
