/* SPDX-License-Identifier: Apache-2.0 */
/* bloom - decoders with linear position biases (ALiBi), a norm of the embedding and weights packed
 * per head.
 *
 * Source: transformers' modeling_bloom.py and configuration_bloom.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    {"n_embed", KF_CONFIG_COPY, "hidden_size"},
    {"n_layer", KF_CONFIG_COPY, "num_hidden_layers"},
    {"n_head", KF_CONFIG_COPY, "num_attention_heads"},
    {"seq_length", KF_CONFIG_COPY, "max_position_embeddings"}, /* of training; no other limit */
    {"layer_norm_epsilon", KF_CONFIG_COPY, "layer_norm_eps"},
    {"apply_residual_connection_post_layernorm", KF_CONFIG_NEUTRAL, "false"},
    {"slow_but_exact", KF_CONFIG_HARMLESS, NULL},
    {"masked_softmax_fusion", KF_CONFIG_HARMLESS, NULL},
    {"bias_dropout_fusion", KF_CONFIG_HARMLESS, NULL},
    {"attention_softmax_in_fp32", KF_CONFIG_HARMLESS, NULL},
    {"skip_bias_add", KF_CONFIG_HARMLESS, NULL},
    {"skip_bias_add_qkv", KF_CONFIG_HARMLESS, NULL},
    {"offset_alibi", KF_CONFIG_HARMLESS, NULL}, /* the same for all keys of a row */
    {"n_inner", KF_CONFIG_NEUTRAL, ""},
    {"unk_token_id", KF_CONFIG_HARMLESS, NULL},
    {0},
};

static const kf_arch archs[] = {
    {.name = "BloomForCausalLM", .rope = KF_ARCH_ROPE_NONE, .config = keys},
    {0},
};

const kf_preset kf_preset_bloom = {
    .family = "bloom",
    .summary = "decoder: linear position biases, LayerNorm behind the embedding and before each "
               "part, biases",
    .defaults = "intermediate_size: $4*hidden_size\n"
                "hidden_act: gelu_tanh\n"
                "tie_word_embeddings: true\n",
    .text =
        "blocks:\n"
        "  layer:\n"
        "    - residual:\n"
        "        - layer_norm: {eps: $layer_norm_eps}\n"
        "        - attention:\n"
        "            num_attention_heads: $num_attention_heads\n"
        "            qkv_bias: true\n"
        "            o_bias: true\n"
        "            score: \"score + alibi(h, q, k)\"\n"
        "    - residual:\n"
        "        - layer_norm: {eps: $layer_norm_eps}\n"
        "        - mlp: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
        "model:\n"
        "  - embedding: {}\n"
        "  - layer_norm: {eps: $layer_norm_eps}\n"
        "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"transformer.h.{i}\"}\n"
        "  - layer_norm: {eps: $layer_norm_eps}\n"
        "  - linear: {out: vocab_size, tied: $tied}\n"
        "weight_names:\n"
        "  model.embedding.table: transformer.word_embeddings.weight\n"
        "  model.layer_norm.gain: transformer.word_embeddings_layernorm.weight\n"
        "  model.layer_norm.bias: transformer.word_embeddings_layernorm.bias\n"
        "  layer.attention.q: &qkv {tensor: self_attention.query_key_value.weight, packed: [q, k, "
        "v], groups: $num_attention_heads}\n"
        "  layer.attention.k: *qkv\n"
        "  layer.attention.v: *qkv\n"
        "  layer.attention.q_bias: &qkv_bias {tensor: self_attention.query_key_value.bias, packed: "
        "[q_bias, k_bias, v_bias], groups: $num_attention_heads}\n"
        "  layer.attention.k_bias: *qkv_bias\n"
        "  layer.attention.v_bias: *qkv_bias\n"
        "  layer.attention.o: self_attention.dense.weight\n"
        "  layer.attention.o_bias: self_attention.dense.bias\n"
        "  layer.mlp.up: mlp.dense_h_to_4h.weight\n"
        "  layer.mlp.up_bias: mlp.dense_h_to_4h.bias\n"
        "  layer.mlp.down: mlp.dense_4h_to_h.weight\n"
        "  layer.mlp.down_bias: mlp.dense_4h_to_h.bias\n"
        "  model.layer_norm2.gain: transformer.ln_f.weight\n"
        "  model.layer_norm2.bias: transformer.ln_f.bias\n",
    .arch = archs,
};
