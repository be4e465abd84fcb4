/* SPDX-License-Identifier: Apache-2.0 */
/* gpt2 - decoders with learned positions, LayerNorm before each part, biases, packed and transposed
 * weights.
 *
 * Source: transformers' modeling_gpt2.py and configuration_gpt2.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    KF_CONFIG_KEYS_GPT,
    {"scale_attn_by_inverse_layer_idx", KF_CONFIG_NEUTRAL, "false"},
    {"reorder_and_upcast_attn", KF_CONFIG_HARMLESS, NULL}, /* rounding of half precision */
    {0},
};

static const kf_arch archs[] = {
    {.name = "GPT2LMHeadModel", .rope = KF_ARCH_ROPE_NONE, .config = keys},
    {0},
};

const kf_preset kf_preset_gpt2 = {
    .family = "gpt2",
    .summary = "decoder: learned positions, LayerNorm before each part, biases, tied head",
    .defaults = "max_position_embeddings: 1024\n"
                "intermediate_size: $4*hidden_size\n"
                "hidden_act: gelu_tanh\n"
                "tie_word_embeddings: true\n",
    .text =
        "blocks:\n"
        "  layer:\n"
        "    - residual:\n"
        "        - layer_norm: {eps: $layer_norm_eps}\n"
        "        - attention: {num_attention_heads: $num_attention_heads, qkv_bias: true, o_bias: "
        "true}\n"
        "    - residual:\n"
        "        - layer_norm: {eps: $layer_norm_eps}\n"
        "        - mlp: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
        "model:\n"
        "  - embedding: {}\n"
        "  - position_embedding: {}\n"
        "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"transformer.h.{i}\"}\n"
        "  - layer_norm: {eps: $layer_norm_eps}\n"
        "  - linear: {out: vocab_size, tied: $tied}\n"
        "weight_names:\n"
        "  model.embedding.table: transformer.wte.weight\n"
        "  model.position_embedding.table: transformer.wpe.weight\n"
        "  layer.layer_norm.gain: ln_1.weight\n"
        "  layer.layer_norm.bias: ln_1.bias\n"
        "  layer.attention.q: &qkv {tensor: attn.c_attn.weight, transposed: true, packed: [q, k, "
        "v]}\n"
        "  layer.attention.k: *qkv\n"
        "  layer.attention.v: *qkv\n"
        "  layer.attention.q_bias: &qkv_bias {tensor: attn.c_attn.bias, packed: [q_bias, k_bias, "
        "v_bias]}\n"
        "  layer.attention.k_bias: *qkv_bias\n"
        "  layer.attention.v_bias: *qkv_bias\n"
        "  layer.attention.o: {tensor: attn.c_proj.weight, transposed: true}\n"
        "  layer.attention.o_bias: attn.c_proj.bias\n"
        "  layer.layer_norm2.gain: ln_2.weight\n"
        "  layer.layer_norm2.bias: ln_2.bias\n"
        "  layer.mlp.up: {tensor: mlp.c_fc.weight, transposed: true}\n"
        "  layer.mlp.up_bias: mlp.c_fc.bias\n"
        "  layer.mlp.down: {tensor: mlp.c_proj.weight, transposed: true}\n"
        "  layer.mlp.down_bias: mlp.c_proj.bias\n"
        "  model.layer_norm.gain: transformer.ln_f.weight\n"
        "  model.layer_norm.bias: transformer.ln_f.bias\n",
    .arch = archs,
};
