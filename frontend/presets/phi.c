/* SPDX-License-Identifier: Apache-2.0 */
/* phi - decoders with one LayerNorm before attention and MLP in parallel, biases, partial rope.
 *
 * Source: transformers' modeling_phi.py and configuration_phi.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    {"layer_norm_eps", KF_CONFIG_COPY, NULL},
    {"qk_layernorm", KF_CONFIG_NEUTRAL, "false"},
    {0},
};

static const kf_arch archs[] = {
    {.name = "PhiForCausalLM", .rope = KF_ARCH_ROPE_PARTIAL, .config = keys},
    {0},
};

const kf_preset kf_preset_phi = {
    .family = "phi",
    .summary = "decoder: attention and MLP side by side behind one LayerNorm, biases, partial rope",
    .defaults = "hidden_act: gelu_tanh\n"
                "rope: {fraction: 0.5}\n",
    .text = "blocks:\n"
            "  layer:\n"
            "    - residual:\n"
            "        - layer_norm: {eps: $layer_norm_eps}\n"
            "        - parallel:\n"
            "            -\n"
            "              - attention:\n"
            "                  num_attention_heads: $num_attention_heads\n"
            "                  num_key_value_heads: $num_key_value_heads\n"
            "                  qkv_bias: true\n"
            "                  o_bias: true\n"
            "                  rope: $rope\n"
            "            -\n"
            "              - mlp: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
            "model:\n"
            "  - embedding: {}\n"
            "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"model.layers.{i}\"}\n"
            "  - layer_norm: {eps: $layer_norm_eps}\n"
            "  - linear: {out: vocab_size, bias: true, tied: $tied}\n"
            "weight_names:\n"
            "  layer.attention.o: self_attn.dense.weight\n"
            "  layer.attention.o_bias: self_attn.dense.bias\n"
            "  layer.mlp.up: mlp.fc1.weight\n"
            "  layer.mlp.up_bias: mlp.fc1.bias\n"
            "  layer.mlp.down: mlp.fc2.weight\n"
            "  layer.mlp.down_bias: mlp.fc2.bias\n"
            "  model.layer_norm.gain: model.final_layernorm.weight\n"
            "  model.layer_norm.bias: model.final_layernorm.bias\n",
    .arch = archs,
};
