/* SPDX-License-Identifier: Apache-2.0 */
/* llama - decoders with RMSNorm before each part, gated feed-forward, rope and grouped queries.
 *
 * The architectures below differ only in switches. Sources: transformers' modeling_llama.py,
 * modeling_qwen2.py and modeling_mistral.py with their configuration files.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_arch archs[] = {
    {.name = "LlamaForCausalLM", .window = KF_WINDOW_IF_GIVEN, .rope = KF_ARCH_ROPE_WHOLE},
    {.name = "Qwen2ForCausalLM",
     .window = KF_WINDOW_IF_ENABLED,
     .window_size = "4096",
     .window_from = 28,
     .rope = KF_ARCH_ROPE_WHOLE,
     .key = {{"qkv_bias", "true", true},
             {"o_bias", "false", true},
             {"num_key_value_heads", "32", false}}},
    {.name = "MistralForCausalLM",
     .window = KF_WINDOW_IF_GIVEN,
     .window_size = "4096",
     .rope = KF_ARCH_ROPE_WHOLE,
     .key = {{"attention_bias", "false", true}, {"num_key_value_heads", "8", false}}},
    {0},
};

const kf_preset kf_preset_llama = {
    .family = "llama",
    .summary = "decoder: RMSNorm before each part, gated feed-forward, rope, grouped queries",
    .text = "blocks:\n"
            "  layer:\n"
            "    - residual:\n"
            "        - rms_norm: {eps: $rms_norm_eps}\n"
            "        - attention:\n"
            "            num_attention_heads: $num_attention_heads\n"
            "            num_key_value_heads: $num_key_value_heads\n"
            "            head_dim: $head_dim\n"
            "            qkv_bias: $qkv_bias\n"
            "            o_bias: $o_bias\n"
            "            qk_norm: $qk_norm\n"
            "            qk_norm_eps: $qk_norm_eps\n"
            "            rope: $rope\n"
            "            mask: $mask\n"
            "    - residual:\n"
            "        - rms_norm: {eps: $rms_norm_eps}\n"
            "        - glu: {intermediate_size: $intermediate_size, act: $hidden_act, bias: "
            "$mlp_bias}\n"
            "model:\n"
            "  - embedding: {}\n"
            "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"model.layers.{i}\"}\n"
            "  - rms_norm: {eps: $rms_norm_eps}\n"
            "  - linear: {out: vocab_size, tied: $tied}\n",
    .arch = archs,
};
