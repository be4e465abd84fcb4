/* SPDX-License-Identifier: Apache-2.0 */
/* cohere - decoders with attention and gated feed-forward in parallel, norms without bias, scaled
 * logits.
 *
 * Source: transformers' modeling_cohere.py and configuration_cohere.py.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key keys[] = {
    {"layer_norm_eps", KF_CONFIG_COPY, NULL},       {"logit_scale", KF_CONFIG_COPY, NULL},
    {"model_max_length", KF_CONFIG_HARMLESS, NULL}, /* of the tokenizer */
    {"use_qk_norm", KF_CONFIG_NEUTRAL, "false"},    {0},
};

static const kf_arch archs[] = {
    {.name = "CohereForCausalLM", .rope = KF_ARCH_ROPE_WHOLE, .config = keys},
    {0},
};

const kf_preset kf_preset_cohere = {
    .family = "cohere",
    .summary =
        "decoder: attention and gated feed-forward side by side behind one LayerNorm without bias, "
        "rope of pairs (2i, 2i + 1), scaled logits",
    .defaults = "tie_word_embeddings: true\n"
                "logit_scale: 0.0625\n"
                "rope: {style: interleaved}\n",
    .text = "blocks:\n"
            "  layer:\n"
            "    - residual:\n"
            "        - layer_norm: {eps: $layer_norm_eps, bias: false}\n"
            "        - parallel:\n"
            "            -\n"
            "              - attention:\n"
            "                  num_attention_heads: $num_attention_heads\n"
            "                  num_key_value_heads: $num_key_value_heads\n"
            "                  qkv_bias: $attention_bias\n"
            "                  o_bias: $attention_bias\n"
            "                  rope: $rope\n"
            "            -\n"
            "              - glu: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
            "model:\n"
            "  - embedding: {}\n"
            "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"model.layers.{i}\"}\n"
            "  - layer_norm: {eps: $layer_norm_eps, bias: false}\n"
            "  - linear: {out: vocab_size, tied: $tied, act: \"x * ${logit_scale}\"}\n",
    .arch = archs,
};
