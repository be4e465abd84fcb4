/* SPDX-License-Identifier: Apache-2.0 */
/* opt - decoders with learned positions from row 2 on, LayerNorm before each part, ReLU.
 *
 * Source: transformers' modeling_opt.py and configuration_opt.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    {"ffn_dim", KF_CONFIG_COPY, "intermediate_size"},
    {"activation_function", KF_CONFIG_COPY, "hidden_act"},
    {"word_embed_proj_dim", KF_CONFIG_EQUAL, "hidden_size"},
    {"do_layer_norm_before", KF_CONFIG_NEUTRAL, "true"},
    {"enable_bias", KF_CONFIG_NEUTRAL, "true"},
    {"layer_norm_elementwise_affine", KF_CONFIG_NEUTRAL, "true"},
    {"_remove_final_layer_norm", KF_CONFIG_NEUTRAL, "false"},
    {"dropout", KF_CONFIG_HARMLESS, NULL},
    {"activation_dropout", KF_CONFIG_HARMLESS, NULL},
    {"layerdrop", KF_CONFIG_HARMLESS, NULL},
    {"init_std", KF_CONFIG_HARMLESS, NULL},
    {"prefix", KF_CONFIG_HARMLESS, NULL},
    {0},
};

static const kf_arch archs[] = {
    {.name = "OPTForCausalLM", .rope = KF_ARCH_ROPE_NONE, .config = keys},
    {0},
};

const kf_preset kf_preset_opt = {
    .family = "opt",
    .summary =
        "decoder: learned positions from row 2 on, LayerNorm before each part, ReLU, tied head",
    .defaults = "intermediate_size: $4*hidden_size\n"
                "hidden_act: relu\n"
                "tie_word_embeddings: true\n",
    .text = "blocks:\n"
            "  layer:\n"
            "    - residual:\n"
            "        - layer_norm: {eps: $layer_norm_eps}\n"
            "        - attention: {num_attention_heads: $num_attention_heads, qkv_bias: true, "
            "o_bias: true}\n"
            "    - residual:\n"
            "        - layer_norm: {eps: $layer_norm_eps}\n"
            "        - mlp: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
            "model:\n"
            "  - embedding: {}\n"
            "  - position_embedding: {offset: 2}\n"
            "  - repeat: {times: $num_hidden_layers, block: layer, weights: "
            "\"model.decoder.layers.{i}\"}\n"
            "  - layer_norm: {eps: $layer_norm_eps}\n"
            "  - linear: {out: vocab_size, tied: $tied}\n"
            "weight_names:\n"
            "  model.embedding.table: model.decoder.embed_tokens.weight\n"
            "  model.position_embedding.table: model.decoder.embed_positions.weight\n"
            "  layer.layer_norm.gain: self_attn_layer_norm.weight\n"
            "  layer.layer_norm.bias: self_attn_layer_norm.bias\n"
            "  layer.attention.o: self_attn.out_proj.weight\n"
            "  layer.attention.o_bias: self_attn.out_proj.bias\n"
            "  layer.layer_norm2.gain: final_layer_norm.weight\n"
            "  layer.layer_norm2.bias: final_layer_norm.bias\n"
            "  layer.mlp.up: fc1.weight\n"
            "  layer.mlp.up_bias: fc1.bias\n"
            "  layer.mlp.down: fc2.weight\n"
            "  layer.mlp.down_bias: fc2.bias\n"
            "  model.layer_norm.gain: model.decoder.final_layer_norm.weight\n"
            "  model.layer_norm.bias: model.decoder.final_layer_norm.bias\n",
    .arch = archs,
};
