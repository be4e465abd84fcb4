/* SPDX-License-Identifier: Apache-2.0 */
/* bert - encoders with LayerNorm behind each part, learned positions and token types.
 *
 * Devlin et al. 2018 (arXiv:1810.04805); names and order: transformers' modeling_bert.py. A
 * checkpoint of the trunk alone lacks the "bert." before its names (frontend/weights.c).
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

#define LAYER                                                                                      \
    "blocks:\n"                                                                                    \
    "  layer:\n"                                                                                   \
    "    - residual:\n"                                                                            \
    "        - attention:\n"                                                                       \
    "            num_attention_heads: $num_attention_heads\n"                                      \
    "            qkv_bias: true\n"                                                                 \
    "            o_bias: true\n"                                                                   \
    "            mask: bidirectional\n"                                                            \
    "    - layer_norm: {eps: $layer_norm_eps}\n"                                                   \
    "    - residual:\n"                                                                            \
    "        - mlp: {intermediate_size: $intermediate_size, act: $hidden_act}\n"                   \
    "    - layer_norm: {eps: $layer_norm_eps}\n"
#define TRUNK                                                                                      \
    "encoder:\n"                                                                                   \
    "  - embedding: {}\n"                                                                          \
    "  - position_embedding: {}\n"                                                                 \
    "  - token_type_embedding: {type_vocab_size: $type_vocab_size}\n"                              \
    "  - layer_norm: {eps: $layer_norm_eps}\n"                                                     \
    "  - repeat:\n"                                                                                \
    "      times: $num_hidden_layers\n"                                                            \
    "      block: layer\n"                                                                         \
    "      weights: \"bert.encoder.layer.{i}\"\n"
#define NAMES                                                                                      \
    "weight_names:\n"                                                                              \
    "  layer.attention.q: attention.self.query.weight\n"                                           \
    "  layer.attention.k: attention.self.key.weight\n"                                             \
    "  layer.attention.v: attention.self.value.weight\n"                                           \
    "  layer.attention.o: attention.output.dense.weight\n"                                         \
    "  layer.attention.q_bias: attention.self.query.bias\n"                                        \
    "  layer.attention.k_bias: attention.self.key.bias\n"                                          \
    "  layer.attention.v_bias: attention.self.value.bias\n"                                        \
    "  layer.attention.o_bias: attention.output.dense.bias\n"                                      \
    "  layer.layer_norm.gain: attention.output.LayerNorm.weight\n"                                 \
    "  layer.layer_norm.bias: attention.output.LayerNorm.bias\n"                                   \
    "  layer.mlp.up: intermediate.dense.weight\n"                                                  \
    "  layer.mlp.up_bias: intermediate.dense.bias\n"                                               \
    "  layer.mlp.down: output.dense.weight\n"                                                      \
    "  layer.mlp.down_bias: output.dense.bias\n"                                                   \
    "  layer.layer_norm2.gain: output.LayerNorm.weight\n"                                          \
    "  layer.layer_norm2.bias: output.LayerNorm.bias\n"                                            \
    "  encoder.embedding.table: bert.embeddings.word_embeddings.weight\n"                          \
    "  encoder.position_embedding.table: bert.embeddings.position_embeddings.weight\n"             \
    "  encoder.token_type_embedding.table: bert.embeddings.token_type_embeddings.weight\n"         \
    "  encoder.layer_norm.gain: bert.embeddings.LayerNorm.weight\n"                                \
    "  encoder.layer_norm.bias: bert.embeddings.LayerNorm.bias\n"

#define DEFAULTS "hidden_act: gelu\nlayer_norm_eps: 1e-12\ntype_vocab_size: 2\n"

#define CONFIG_KEYS                                                                                \
    {"layer_norm_eps", KF_CONFIG_COPY, NULL}, {"type_vocab_size", KF_CONFIG_COPY, NULL},           \
        {"attention_probs_dropout_prob", KF_CONFIG_HARMLESS, NULL},                                \
        {"classifier_dropout", KF_CONFIG_HARMLESS, NULL},                                          \
        {"position_embedding_type", KF_CONFIG_NEUTRAL, "absolute"},                                \
        {"is_decoder", KF_CONFIG_NEUTRAL, "false"} /* it would be causal */

/* An untied head would have a bias of another name. */
static const kf_config_key head_keys[] = {
    CONFIG_KEYS, {"tie_word_embeddings", KF_CONFIG_NEUTRAL, "true"}, {0}};
/* Without a head nothing is tied. */
static const kf_config_key trunk_keys[] = {
    CONFIG_KEYS, {"tie_word_embeddings", KF_CONFIG_HARMLESS, NULL}, {0}};

static const kf_arch head_archs[] = {
    {.name = "BertForMaskedLM", .key = {{"task", "masked_lm", false}}, .config = head_keys},
    {0},
};
static const kf_arch trunk_archs[] = {
    {.name = "BertModel", .key = {{"task", "embedding", false}}, .config = trunk_keys},
    {0},
};

const kf_preset kf_preset_bert = {
    .family = "bert",
    .task = "masked_lm",
    .summary = "encoder: layer norms behind each part, learned positions, token types; logits of "
               "the word at every token",
    .defaults = DEFAULTS,
    .text = LAYER TRUNK "  - linear: {out: hidden_size, bias: true, act: $hidden_act}\n"
                        "  - layer_norm: {eps: $layer_norm_eps}\n"
                        "  - linear: {out: vocab_size, bias: true, tied: embedding}\n" NAMES
                        "  encoder.linear.weight: cls.predictions.transform.dense.weight\n"
                        "  encoder.linear.bias: cls.predictions.transform.dense.bias\n"
                        "  encoder.layer_norm2.gain: "
                        "cls.predictions.transform.LayerNorm.weight\n"
                        "  encoder.layer_norm2.bias: "
                        "cls.predictions.transform.LayerNorm.bias\n"
                        "  encoder.linear2.bias: cls.predictions.bias\n",
    .arch = head_archs,
};

const kf_preset kf_preset_bert_embedding = {
    .family = "bert",
    .task = "embedding",
    .summary = "the same without a head: one row a text",
    .defaults = DEFAULTS,
    .text = LAYER TRUNK "  - pool: {of: $pool}\n" NAMES,
    .arch = trunk_archs,
};

const kf_preset kf_preset_bert_pooler = {
    .family = "bert",
    .task = "pooler",
    .summary = "the same: tanh of a linear of the first token's row",
    .defaults = DEFAULTS,
    .text = LAYER TRUNK "  - pool: {of: cls}\n"
                        "  - linear: {out: hidden_size, bias: true, act: tanh}\n" NAMES
                        "  encoder.linear.weight: bert.pooler.dense.weight\n"
                        "  encoder.linear.bias: bert.pooler.dense.bias\n",
};
