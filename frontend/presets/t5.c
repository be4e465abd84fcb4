/* SPDX-License-Identifier: Apache-2.0 */
/* t5 - encoder and decoder with an RMSNorm before each part, biases by distance that the layers of
 * a stack share, no scale of the scores and no biases of projections.
 *
 * Raffel et al. 2019 (arXiv:1910.10683); transformers' modeling_t5.py and configuration_t5.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    {"d_model", KF_CONFIG_COPY, "hidden_size"},
    {"d_kv", KF_CONFIG_COPY, "head_dim"},
    {"d_ff", KF_CONFIG_COPY, "intermediate_size"},
    {"num_layers", KF_CONFIG_COPY, "num_hidden_layers"},
    {"num_decoder_layers", KF_CONFIG_COPY, NULL},
    {"num_heads", KF_CONFIG_COPY, "num_attention_heads"},
    {"relative_attention_num_buckets", KF_CONFIG_COPY, NULL},
    {"relative_attention_max_distance", KF_CONFIG_COPY, NULL},
    {"feed_forward_proj", KF_CONFIG_COPY, NULL},
    {"scale_decoder_outputs", KF_CONFIG_COPY, NULL},
    {"layer_norm_epsilon", KF_CONFIG_COPY, "rms_norm_eps"},
    {"is_encoder_decoder", KF_CONFIG_NEUTRAL, "true"},
    {"dense_act_fn", KF_CONFIG_HARMLESS, NULL}, /* follows from feed_forward_proj */
    {"is_gated_act", KF_CONFIG_HARMLESS, NULL},
    {"n_positions", KF_CONFIG_HARMLESS, NULL}, /* of the training; distances have no limit */
    {"dropout_rate", KF_CONFIG_HARMLESS, NULL},
    {"classifier_dropout", KF_CONFIG_HARMLESS, NULL},
    {"initializer_factor", KF_CONFIG_HARMLESS, NULL},
    {"output_past", KF_CONFIG_HARMLESS, NULL},
    {0},
};

static const kf_arch archs[] = {
    {.name = "T5ForConditionalGeneration", .rope = KF_ARCH_ROPE_NONE, .config = keys},
    {0},
};

#define SELF(mask)                                                                                 \
    "    - residual:\n"                                                                            \
    "        - rms_norm: {eps: $rms_norm_eps}\n"                                                   \
    "        - attention:\n"                                                                       \
    "            num_attention_heads: $num_attention_heads\n"                                      \
    "            head_dim: $head_dim\n"                                                            \
    "            scale: 1\n"                                                                       \
    "            relative_bias: true\n"                                                            \
    "            mask: " mask "\n"
#define FEED_FORWARD                                                                               \
    "    - residual:\n"                                                                            \
    "        - rms_norm: {eps: $rms_norm_eps}\n"                                                   \
    "        - $feed_forward:\n"                                                                   \
    "            intermediate_size: $intermediate_size\n"                                          \
    "            act: $feed_forward_act\n"                                                         \
    "            bias: false\n"
#define TABLE                                                                                      \
    "      num_attention_heads: $num_attention_heads\n"                                            \
    "      buckets: $relative_attention_num_buckets\n"                                             \
    "      max_distance: $relative_attention_max_distance\n"

#define NAMES_OF_SELF(block)                                                                       \
    "  " block ".rms_norm.gain: layer.0.layer_norm.weight\n"                                       \
    "  " block ".attention.q: layer.0.SelfAttention.q.weight\n"                                    \
    "  " block ".attention.k: layer.0.SelfAttention.k.weight\n"                                    \
    "  " block ".attention.v: layer.0.SelfAttention.v.weight\n"                                    \
    "  " block ".attention.o: layer.0.SelfAttention.o.weight\n"
#define NAMES_OF_FEED_FORWARD(block, nth, layer)                                                   \
    "  " block ".rms_norm" nth ".gain: layer." layer ".layer_norm.weight\n"                        \
    "  " block ".mlp.up: layer." layer ".DenseReluDense.wi.weight\n"                               \
    "  " block ".mlp.down: layer." layer ".DenseReluDense.wo.weight\n"                             \
    "  " block ".glu.gate: layer." layer ".DenseReluDense.wi_0.weight\n"                           \
    "  " block ".glu.up: layer." layer ".DenseReluDense.wi_1.weight\n"                             \
    "  " block ".glu.down: layer." layer ".DenseReluDense.wo.weight\n"
#define NAMES_OF_STACK(stack)                                                                      \
    "  " stack ".relative_bias.table: " stack                                                      \
    ".block.0.layer.0.SelfAttention.relative_attention_bias.weight\n"                              \
    "  " stack ".rms_norm.gain: " stack ".final_layer_norm.weight\n"

const kf_preset kf_preset_t5 = {
    .family = "t5",
    .summary = "encoder and decoder: RMSNorm before each part, biases by distance, cross attention",
    .defaults = "head_dim: 64\ntie_word_embeddings: true\n",
    .text = "blocks:\n"
            "  encoder_layer:\n" SELF("bidirectional") FEED_FORWARD "  decoder_layer:\n" SELF(
                "causal") "    - residual:\n"
                          "        - rms_norm: {eps: $rms_norm_eps}\n"
                          "        - cross_attention:\n"
                          "            num_attention_heads: $num_attention_heads\n"
                          "            head_dim: $head_dim\n"
                          "            scale: 1\n" FEED_FORWARD "encoder:\n"
                          "  - embedding: {}\n"
                          "  - relative_bias:\n" TABLE "      bidirectional: true\n"
                          "  - repeat: {times: $num_hidden_layers, block: encoder_layer, weights: "
                          "\"encoder.block.{i}\"}\n"
                          "  - rms_norm: {eps: $rms_norm_eps}\n"
                          "decoder:\n"
                          "  - embedding: {tied: encoder}\n"
                          "  - relative_bias:\n" TABLE
                          "  - repeat: {times: $num_decoder_layers, block: decoder_layer, weights: "
                          "\"decoder.block.{i}\"}\n"
                          "  - rms_norm: {eps: $rms_norm_eps}\n"
                          "  - linear: {out: vocab_size, tied: $tied, act: $decoder_output_act}\n"
                          "weight_names:\n" NAMES_OF_SELF("encoder_layer")
                              NAMES_OF_FEED_FORWARD("encoder_layer", "2", "1") NAMES_OF_SELF(
                                  "decoder_layer") "  decoder_layer.rms_norm2.gain: "
                                                   "layer.1.layer_norm.weight\n"
                                                   "  decoder_layer.cross_attention.q: "
                                                   "layer.1.EncDecAttention.q.weight\n"
                                                   "  decoder_layer.cross_attention.k: "
                                                   "layer.1.EncDecAttention.k.weight\n"
                                                   "  decoder_layer.cross_attention.v: "
                                                   "layer.1.EncDecAttention.v.weight\n"
                                                   "  decoder_layer.cross_attention.o: "
                                                   "layer.1.EncDecAttention.o."
                                                   "weight\n" NAMES_OF_FEED_FORWARD("decoder_layer",
                                                                                    "3", "2")
                                                       NAMES_OF_STACK("encoder") NAMES_OF_STACK(
                                                           "decoder") "  encoder.embedding.table: "
                                                                      "shared.weight\n",
    .arch = archs,
};
