/* SPDX-License-Identifier: Apache-2.0 */
/* gptj - decoders with one LayerNorm before attention and MLP in parallel, rope of pairs (2i, 2i +
 * 1).
 *
 * Source: transformers' modeling_gptj.py and configuration_gptj.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    KF_CONFIG_KEYS_GPT,
    {"rotary_dim", KF_CONFIG_COPY, "rope.dim"},
    {"rotary", KF_CONFIG_NEUTRAL, "true"},
    {0},
};

static const kf_arch archs[] = {
    {.name = "GPTJForCausalLM", .rope = KF_ARCH_ROPE_NONE, .config = keys},
    {0},
};

const kf_preset kf_preset_gptj = {
    .family = "gptj",
    .summary = "decoder: attention and MLP side by side behind one LayerNorm, partial rope of "
               "pairs (2i, 2i + 1)",
    .defaults = "hidden_act: gelu_tanh\n"
                "intermediate_size: $4*hidden_size\n"
                "rope: {style: interleaved, dim: 64}\n",
    .text =
        "blocks:\n"
        "  layer:\n"
        "    - residual:\n"
        "        - layer_norm: {eps: $layer_norm_eps}\n"
        "        - parallel:\n"
        "            -\n"
        "              - attention: {num_attention_heads: $num_attention_heads, rope: $rope}\n"
        "            -\n"
        "              - mlp: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
        "model:\n"
        "  - embedding: {}\n"
        "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"transformer.h.{i}\"}\n"
        "  - layer_norm: {eps: $layer_norm_eps}\n"
        "  - linear: {out: vocab_size, bias: true, tied: $tied}\n"
        "weight_names:\n"
        "  model.embedding.table: transformer.wte.weight\n"
        "  layer.layer_norm.gain: ln_1.weight\n"
        "  layer.layer_norm.bias: ln_1.bias\n"
        "  layer.attention.q: attn.q_proj.weight\n"
        "  layer.attention.k: attn.k_proj.weight\n"
        "  layer.attention.v: attn.v_proj.weight\n"
        "  layer.attention.o: attn.out_proj.weight\n"
        "  layer.mlp.up: mlp.fc_in.weight\n"
        "  layer.mlp.up_bias: mlp.fc_in.bias\n"
        "  layer.mlp.down: mlp.fc_out.weight\n"
        "  layer.mlp.down_bias: mlp.fc_out.bias\n"
        "  model.layer_norm.gain: transformer.ln_f.weight\n"
        "  model.layer_norm.bias: transformer.ln_f.bias\n",
    .arch = archs,
};
