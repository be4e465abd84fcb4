/* SPDX-License-Identifier: Apache-2.0 */
/* presets - the list of families, and the names that checkpoints give parameters by default. */
#include "frontend/presets/preset.h"

#include <stddef.h>
#include <string.h>

#define PRESET(name) extern const kf_preset kf_preset_##name;
#include "frontend/presets/presets.def"
#undef PRESET

const kf_preset *const kf_presets[] = {
#define PRESET(name) &kf_preset_##name,
#include "frontend/presets/presets.def"
#undef PRESET
};
const uint32_t kf_n_presets = sizeof kf_presets / sizeof *kf_presets;

const kf_arch *kf_arch_next(const kf_arch *arch, const kf_preset **preset)
{
    uint32_t i = 0;

    if (arch != NULL && (++arch)->name != NULL)
        return arch;
    while (*preset != NULL && kf_presets[i++] != *preset) {
    }
    for (; i < kf_n_presets; i++) {
        *preset = kf_presets[i];
        if (kf_presets[i]->arch != NULL && kf_presets[i]->arch->name != NULL)
            return kf_presets[i]->arch;
    }
    return NULL;
}

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
        {"attention.sinks", "self_attn.sinks"},
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
      {"position_embedding.table", "model.embed_positions.weight"},
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
