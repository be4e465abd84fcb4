/* SPDX-License-Identifier: Apache-2.0 */
/* llama - decoders with RMSNorm before each part, gated feed-forward, rope and grouped queries.
 *
 * The architectures below differ only in switches. Sources: transformers' modeling_llama.py,
 * modeling_qwen2.py, modeling_qwen3.py and modeling_mistral.py with their configuration files.
 */
#include "frontend/presets/preset.h"

#include <stddef.h>
#include <string.h>

const kf_preset kf_presets[] = {
    {"llama", "decoder: RMSNorm before each part, gated feed-forward, rope, grouped queries",
     "blocks:\n"
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
     "            mask: causal\n"
     "    - residual:\n"
     "        - rms_norm: {eps: $rms_norm_eps}\n"
     "        - glu: {intermediate_size: $intermediate_size, act: $hidden_act, bias: $mlp_bias}\n"
     "model:\n"
     "  - embedding: {}\n"
     "  - repeat: {times: $num_hidden_layers, block: layer, weights: \"model.layers.{i}\"}\n"
     "  - rms_norm: {eps: $rms_norm_eps}\n"
     "  - linear: {out: vocab_size, tied: $tied}\n"},
};
const uint32_t kf_n_presets = sizeof kf_presets / sizeof *kf_presets;

const kf_arch kf_archs[] = {
    {"LlamaForCausalLM", "llama", KF_WINDOW_IF_GIVEN, {{0}}},
    {"Qwen2ForCausalLM",
     "llama",
     KF_WINDOW_IF_ENABLED,
     {{"qkv_bias", "true", true}, {"o_bias", "false", true}, {"num_key_value_heads", "32", false}}},
    {"Qwen3ForCausalLM",
     "llama",
     KF_WINDOW_IF_ENABLED,
     {{"qk_norm", "rms", true}, {"head_dim", "128", false}, {"num_key_value_heads", "32", false}}},
    {"MistralForCausalLM",
     "llama",
     KF_WINDOW_IF_GIVEN,
     {{"attention_bias", "false", true}, {"num_key_value_heads", "8", false}}},
};
const uint32_t kf_n_archs = sizeof kf_archs / sizeof *kf_archs;

/* The names that transformers gives these modules; open compositions share them. */
static const struct weight_name {
    const char *parameter;
    const char *name;
} block_names[] =
    {
        {"rms_norm.gain", "input_layernorm.weight"},
        {"rms_norm2.gain", "post_attention_layernorm.weight"},
        {"layer_norm.gain", "input_layernorm.weight"},
        {"layer_norm.bias", "input_layernorm.bias"},
        {"layer_norm2.gain", "post_attention_layernorm.weight"},
        {"layer_norm2.bias", "post_attention_layernorm.bias"},
        {"attention.q", "self_attn.q_proj.weight"},
        {"attention.k", "self_attn.k_proj.weight"},
        {"attention.v", "self_attn.v_proj.weight"},
        {"attention.o", "self_attn.o_proj.weight"},
        {"attention.q_bias", "self_attn.q_proj.bias"},
        {"attention.k_bias", "self_attn.k_proj.bias"},
        {"attention.v_bias", "self_attn.v_proj.bias"},
        {"attention.o_bias", "self_attn.o_proj.bias"},
        {"attention.q_norm", "self_attn.q_norm.weight"},
        {"attention.k_norm", "self_attn.k_norm.weight"},
        {"glu.gate", "mlp.gate_proj.weight"},
        {"glu.up", "mlp.up_proj.weight"},
        {"glu.down", "mlp.down_proj.weight"},
        {"glu.gate_bias", "mlp.gate_proj.bias"},
        {"glu.up_bias", "mlp.up_proj.bias"},
        {"glu.down_bias", "mlp.down_proj.bias"},
        {"mlp.up", "mlp.up_proj.weight"},
        {"mlp.down", "mlp.down_proj.weight"},
        {"mlp.up_bias", "mlp.up_proj.bias"},
        {"mlp.down_bias", "mlp.down_proj.bias"},
},
  model_names[] = {
      {"embedding.table", "model.embed_tokens.weight"},
      {"rms_norm.gain", "model.norm.weight"},
      {"layer_norm.gain", "model.norm.weight"},
      {"layer_norm.bias", "model.norm.bias"},
      {"linear.weight", "lm_head.weight"},
      {"linear.bias", "lm_head.bias"},
};

const char *kf_default_weight_name(const char *parameter, bool in_block)
{
    const struct weight_name *table = in_block ? block_names : model_names;
    size_t n = in_block ? sizeof block_names / sizeof *block_names
                        : sizeof model_names / sizeof *model_names;
    for (size_t i = 0; i < n; i++)
        if (strcmp(table[i].parameter, parameter) == 0)
            return table[i].name;
    return NULL;
}
