/* SPDX-License-Identifier: Apache-2.0 */
/* phi3 - the llama decoder with q, k, v and gate, up packed in one weight each.
 *
 * Source: transformers' modeling_phi3.py and configuration_phi3.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    {"original_max_position_embeddings", KF_CONFIG_HARMLESS, NULL}, /* of a rope scaling */
    {"attention_bias", KF_CONFIG_NEUTRAL, "false"},
    {"auto_map", KF_CONFIG_HARMLESS, NULL}, /* the authors' copy of modeling_phi3.py */
    {0},
};

static const kf_arch archs[] = {
    {.name = "Phi3ForCausalLM",
     .window = KF_WINDOW_IF_GIVEN,
     .rope = KF_ARCH_ROPE_PARTIAL,
     .config = keys},
    {0},
};

const kf_preset kf_preset_phi3 = {
    .family = "phi3",
    .summary = "decoder: as llama, with q, k, v and gate, up packed in one weight each",
    .defaults = "rms_norm_eps: 1e-5\n",
    .text = "blocks:\n"
            "  layer:\n"
            "    - residual:\n"
            "        - rms_norm: {eps: $rms_norm_eps}\n"
            "        - attention:\n"
            "            num_attention_heads: $num_attention_heads\n"
            "            num_key_value_heads: $num_key_value_heads\n"
            "            rope: $rope\n"
            "            mask: $mask\n"
            "    - residual:\n"
            "        - rms_norm: {eps: $rms_norm_eps}\n"
            "        - glu: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
            "model:\n"
            "  - embedding: {}\n"
            "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"model.layers.{i}\"}\n"
            "  - rms_norm: {eps: $rms_norm_eps}\n"
            "  - linear: {out: vocab_size, tied: $tied}\n"
            "weight_names:\n"
            "  layer.attention.q: &qkv {tensor: self_attn.qkv_proj.weight, packed: [q, k, v]}\n"
            "  layer.attention.k: *qkv\n"
            "  layer.attention.v: *qkv\n"
            "  layer.glu.gate: &gate_up {tensor: mlp.gate_up_proj.weight, packed: [gate, up]}\n"
            "  layer.glu.up: *gate_up\n",
    .arch = archs,
};
