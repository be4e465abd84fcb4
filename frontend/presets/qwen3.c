/* SPDX-License-Identifier: Apache-2.0 */
/* qwen3 - the llama decoder with a norm of every query and key head before rope.
 *
 * Source: transformers' modeling_qwen3.py and configuration_qwen3.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_arch archs[] = {
    {.name = "Qwen3ForCausalLM",
     .window = KF_WINDOW_IF_ENABLED,
     .window_size = "4096",
     .window_from = 28,
     .rope = KF_ARCH_ROPE_WHOLE,
     .key = {{"num_key_value_heads", "32", false}}},
    {0},
};

const kf_preset kf_preset_qwen3 = {
    .family = "qwen3",
    .summary = "decoder: as llama, with a norm of every query and key head before rope",
    .defaults = "head_dim: 128\n",
    .text = "blocks:\n"
            "  layer:\n"
            "    - residual:\n"
            "        - rms_norm: {eps: $rms_norm_eps}\n"
            "        - attention:\n"
            "            num_attention_heads: $num_attention_heads\n"
            "            num_key_value_heads: $num_key_value_heads\n"
            "            head_dim: $head_dim\n"
            "            qkv_bias: $attention_bias\n"
            "            o_bias: $attention_bias\n"
            "            qk_norm: rms\n"
            "            qk_norm_eps: $rms_norm_eps\n"
            "            rope: $rope\n"
            "            mask: $mask\n"
            "    - residual:\n"
            "        - rms_norm: {eps: $rms_norm_eps}\n"
            "        - glu: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
            "model:\n"
            "  - embedding: {}\n"
            "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"model.layers.{i}\"}\n"
            "  - rms_norm: {eps: $rms_norm_eps}\n"
            "  - linear: {out: vocab_size, tied: $tied}\n",
    .arch = archs,
};
