/* SPDX-License-Identifier: Apache-2.0 */
/* gemma - decoders whose norms multiply by 1 + weight, with a scaled embedding and GeGLU.
 *
 * Sources: transformers' modeling_gemma.py and modeling_gemma2.py with their configuration files.
 * The second generation norms each branch before and after, alternates windows with full attention
 * and caps scores and logits.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>

static const kf_config_key gemma_keys[] = {
    /* The authors' files say gelu and mean its tanh form (configuration_gemma.py). */
    {"hidden_act", KF_CONFIG_NEUTRAL, "gelu|gelu_pytorch_tanh"},
    {"hidden_activation", KF_CONFIG_NEUTRAL, "gelu_pytorch_tanh"},
    {"use_bidirectional_attention", KF_CONFIG_NEUTRAL, "false"},
    {0},
};

static const kf_arch gemma_archs[] = {
    {.name = "GemmaForCausalLM", .rope = KF_ARCH_ROPE_WHOLE, .config = gemma_keys},
    {0},
};

const kf_preset kf_preset_gemma = {
    .family = "gemma",
    .summary = "decoder: as llama, with norms of gain 1 + weight, GeGLU and a scaled embedding",
    .defaults = "head_dim: 256\n"
                "hidden_act: gelu_tanh\n"
                "tie_word_embeddings: true\n",
    .text = "blocks:\n"
            "  layer:\n"
            "    - residual:\n"
            "        - rms_norm: {eps: $rms_norm_eps, gain_offset: 1}\n"
            "        - attention:\n"
            "            num_attention_heads: $num_attention_heads\n"
            "            num_key_value_heads: $num_key_value_heads\n"
            "            head_dim: $head_dim\n"
            "            qkv_bias: $attention_bias\n"
            "            o_bias: $attention_bias\n"
            "            rope: $rope\n"
            "    - residual:\n"
            "        - rms_norm: {eps: $rms_norm_eps, gain_offset: 1}\n"
            "        - glu: {intermediate_size: $intermediate_size, act: $hidden_act}\n"
            "model:\n"
            "  - embedding: {scale: $sqrt(hidden_size)}\n"
            "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"model.layers.{i}\"}\n"
            "  - rms_norm: {eps: $rms_norm_eps, gain_offset: 1}\n"
            "  - linear: {out: vocab_size, tied: $tied}\n",
    .arch = gemma_archs,
};

static const kf_config_key gemma2_keys[] = {
    {"hidden_activation", KF_CONFIG_COPY, "hidden_act"},
    {"hidden_act", KF_CONFIG_HARMLESS, NULL}, /* not read: hidden_activation counts */
    {"query_pre_attn_scalar", KF_CONFIG_COPY, NULL},
    {"attn_logit_softcapping", KF_CONFIG_COPY, NULL},
    {"final_logit_softcapping", KF_CONFIG_COPY, NULL},
    {"use_bidirectional_attention", KF_CONFIG_NEUTRAL, "false"},
    {"cache_implementation", KF_CONFIG_HARMLESS, NULL},
    {"sliding_window_size", KF_CONFIG_HARMLESS, NULL}, /* an older name, beside sliding_window */
    {0},
};

static const kf_arch gemma2_archs[] = {
    {.name = "Gemma2ForCausalLM",
     .window = KF_WINDOW_IF_GIVEN,
     .rope = KF_ARCH_ROPE_WHOLE,
     .config = gemma2_keys,
     .layer_type = {"sliding_attention", "full_attention"}},
    {0},
};

/* Both kinds of layer; |mask|: a line of the attention, or nothing. */
#define LAYER(name, mask)                                                                          \
    "  " name ":\n"                                                                                \
    "    - residual:\n"                                                                            \
    "        - rms_norm: {eps: $rms_norm_eps, gain_offset: 1}\n"                                   \
    "        - attention:\n"                                                                       \
    "            num_attention_heads: $num_attention_heads\n"                                      \
    "            num_key_value_heads: $num_key_value_heads\n"                                      \
    "            head_dim: $head_dim\n"                                                            \
    "            qkv_bias: $attention_bias\n"                                                      \
    "            o_bias: $attention_bias\n"                                                        \
    "            rope: $rope\n"                                                                    \
    "            scale: $1/sqrt(query_pre_attn_scalar)\n" mask                                     \
    "            score: softcap(score, ${attn_logit_softcapping})\n"                               \
    "        - rms_norm: {eps: $rms_norm_eps, gain_offset: 1}\n"                                   \
    "    - residual:\n"                                                                            \
    "        - rms_norm: {eps: $rms_norm_eps, gain_offset: 1}\n"                                   \
    "        - glu: {intermediate_size: $intermediate_size, act: $hidden_act}\n"                   \
    "        - rms_norm: {eps: $rms_norm_eps, gain_offset: 1}\n"

/* The names of what llama's layer has not. */
#define NAMES(name)                                                                                \
    "  " name ".rms_norm3.gain: pre_feedforward_layernorm.weight\n"                                \
    "  " name ".rms_norm4.gain: post_feedforward_layernorm.weight\n"

const kf_preset kf_preset_gemma2 = {
    .family = "gemma2",
    .summary =
        "decoder: as gemma, with a norm behind each branch too, windows in every other layer and "
        "caps of scores and logits",
    .defaults = "head_dim: 256\n"
                "hidden_act: gelu_tanh\n"
                "tie_word_embeddings: true\n"
                "query_pre_attn_scalar: 256\n"
                "sliding_window: 4096\n",
    .text = "blocks:\n" LAYER("local", "            mask: causal & window(${sliding_window})\n")
        LAYER("global",
              "") "model:\n"
                  "  - embedding: {scale: $sqrt(hidden_size)}\n"
                  "  - repeat: {times: $num_hidden_layers, block: [local, global], weights: "
                  "\"model.layers.{i}\"}\n"
                  "  - rms_norm: {eps: $rms_norm_eps, gain_offset: 1}\n"
                  "  - linear: {out: vocab_size, tied: $tied, act: \"softcap(x, "
                  "${final_logit_softcapping})\"}\n"
                  "weight_names:\n" NAMES("local") NAMES("global"),
    .arch = gemma2_archs,
};
