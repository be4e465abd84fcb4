/* SPDX-License-Identifier: Apache-2.0 */
/* golden_logits - compiled executables against logits and greedy tokens of the same models in
 * transformers. See golden.h; a name is a folder of tests/golden/llama or of tests/golden/decoders.
 */
#include "golden.h"

#include <stdio.h>
#include <string.h>

enum { N_PROMPT = 24, N_GREEDY = 64, N_VOCAB = 64 };

static const char *const llama[] = {
    "act_gelu", "act_gelu_tanh", "act_relu",    "all_llama",  "all_qwen2", "all_qwen3", "base",
    "bias",     "gqa",           "head_dim",    "inter_50",   "inter_88",  "mqa",       "qk_norm",
    "qkv_bias", "rope_linear",   "rope_llama3", "rope_theta", "tied",
};

static const char *const decoders[] = {
    "bloom", "cohere",  "gemma", "gemma2", "gpt2", "gpt_neox", "gpt_neox_serial",
    "gptj",  "mistral", "opt",   "phi",    "phi3", "polynorm", "transnormer",
};

static const golden_mistake mistakes[] = {
    {"base", "eps_1e-06", "eps: 1e-05}", "eps: 1e-06}"},
    {"base", "eps_1e-06_norm", "\n  - rms_norm: {eps: 1e-05}", "\n  - rms_norm: {eps: 1e-06}"},
    {"base", "act_gelu", "act: silu", "act: gelu"},
    {"base", "act_relu", "act: silu", "act: relu"},
    {"base", "theta_500", "theta: 10000", "theta: 500"},
    {"base", "rope_interleaved", "theta: 10000", "theta: 10000, style: interleaved"},
    {"base", "no_rope", ", rope: {theta: 10000}", ""},
    {"base", "tied_to_embedding", "{out: vocab_size}", "{out: vocab_size, tied: embedding}"},
    {"act_gelu", "act_gelu_pytorch_tanh", "act: gelu", "act: gelu_tanh"},
    {"act_gelu_tanh", "act_gelu", "act: gelu_pytorch_tanh", "act: gelu"},
    {"act_relu", "act_silu", "act: relu", "act: silu"},
    {"rope_theta", "theta_10000", "theta: 500", "theta: 10000"},
    {"rope_linear", "no_rope_scaling", ", scaling: {type: linear, factor: 2.5}", ""},
    {"rope_llama3", "no_rope_scaling",
     ", scaling: {type: llama3, factor: 4, original_max_position_embeddings: 64}", ""},
    {"head_dim", "scale_of_hidden", "mask: causal", "mask: causal, scale: 0.35355339059327376"},
    {"qk_norm", "no_qk_norm", "qk_norm: rms, ", ""},
    {"qk_norm", "eps_of_qk_norm", "qk_norm_eps: 1e-05", "qk_norm_eps: 1e-06"},
    {"qkv_bias", "no_qkv_bias", "qkv_bias: true, ", ""},
    {"bias", "no_bias_o_proj", "o_bias: true, ", ""},
    {"bias", "no_mlp_bias", "intermediate_size: 48, bias: true", "intermediate_size: 48"},
    {"gpt2", "eps_1e-06", "eps: 1e-05", "eps: 1e-06"},
    {"gpt2", "act_gelu", "act: gelu_new", "act: gelu"},
    {"gpt2", "scale_off", "mask: causal", "mask: causal, scale: 1"},
    {"gpt2", "packed_order", "packed: [q, k, v]", "packed: [k, q, v]"},
    {"gptj", "act_gelu", "act: gelu_new", "act: gelu"},
    {"gptj", "rope_half", ", style: interleaved", ""},
    {"gptj", "rope_of_whole_heads", "dim: 4, ", ""},
    {"gptj", "no_bias_lm_head", ", bias: true}", "}"},
    {"bloom", "eps_1e-06", "eps: 1e-05", "eps: 1e-06"},
    {"bloom", "no_alibi", ", score: \"score + alibi(h, q, k)\"", ""},
    {"bloom", "alibi_plain_slopes", "alibi(h, q, k)",
     "exp(-0.92419624074659379 * (h + 1)) * (k - q)"},
    {"bloom", "not_by_heads", ", groups: 6", ""},
    {"opt", "act_gelu", "act: relu", "act: gelu"},
    {"opt", "row_0", "offset: 2, ", ""},
    {"phi", "act_gelu", "act: gelu_new", "act: gelu"},
    {"phi", "theta_500", "theta: 10000", "theta: 500"},
    {"phi", "fraction_1", ", fraction: 0.5", ""},
    {"phi", "rope_interleaved", "fraction: 0.5", "fraction: 0.5, style: interleaved"},
    {"phi", "no_bias_lm_head", "vocab_size, bias: true}", "vocab_size}"},
    {"phi3", "window_off", "\"causal & window(8)\"", "causal"},
    {"phi3", "window_9", "window(8)", "window(9)"},
    {"phi3", "fraction_1", ", fraction: 0.5", ""},
    {"phi3", "gate_and_up_swapped", "packed: [gate, up]", "packed: [up, gate]"},
    {"gpt_neox", "act_gelu_tanh", "act: gelu", "act: gelu_tanh"},
    {"gpt_neox", "fraction_1", ", fraction: 0.5", ""},
    {"gpt_neox", "not_by_heads", ", groups: 4", ""},
    {"gpt_neox_serial", "fraction_1", ", fraction: 0.5", ""},
    {"mistral", "window_off", "\"causal & window(8)\"", "causal"},
    {"mistral", "window_9", "window(8)", "window(9)"},
    {"cohere", "logit_scale_off", ", act: \"x * 0.0625\"", ""},
    {"cohere", "rope_half", ", style: interleaved", ""},
    {"gemma", "eps_1e-06", "eps: 1e-05", "eps: 1e-06"},
    {"gemma", "gain_without_1", ", gain_offset: 1", ""},
    {"gemma", "embedding_unscaled", "scale: 5.656854249492381", ""},
    {"gemma2", "window_off", "\"causal & window(8)\"", "causal"},
    {"gemma2", "layers_swapped", "[local, global]", "[global, local]"},
    {"gemma2", "scores_not_capped", ", score: \"softcap(score, 5.0)\"", ""},
    {"gemma2", "logits_not_capped", ", act: \"softcap(x, 3.0)\"", ""},
    {"gemma2", "scale_of_head_dim", "scale: 0.22360679774997896, ", ""},
    {"gemma2", "gain_without_1", ", gain_offset: 1", ""},
    {"transnormer", "act_silu", "act: none", "act: silu"},
    {"transnormer", "eps_1e-06", "eps: 1e-05", "eps: 1e-06"},
    {"polynorm", "poly_eps_1e-02", "poly_norm: {eps: 1e-06}", "poly_norm: {eps: 0.01}"},
};

static bool is_in(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], name))
            return true;
    return false;
}

static bool find(golden *g)
{
    bool is_llama = is_in(llama, sizeof llama / sizeof *llama, g->name);

    if (!is_llama && !is_in(decoders, sizeof decoders / sizeof *decoders, g->name))
        return false;
    g->set = "";
    g->rows = "logits";
    g->n = N_PROMPT;
    g->width = N_VOCAB;
    return golden_folder(g, is_llama ? "llama" : "decoders", g->name);
}

/** Logits of the prompt, and N_GREEDY tokens after it. */
static bool run(const golden *g, const char *npy)
{
    static char command[2 * GOLDEN_PATH + 512], output[GOLDEN_TEXT];
    int ids[N_PROMPT], greedy[N_GREEDY], got[N_GREEDY];
    size_t n;

    golden_list(g->json, "\"ids\"", N_PROMPT, ids);
    golden_list(g->json, "\"greedy\"", N_GREEDY, greedy);
    n = (size_t)snprintf(command, sizeof command,
                         "./%s run --temp 0 --ignore-eos -n %d --json --all-logits %s --ids ",
                         g->out, N_GREEDY, npy);
    for (int i = 0; i < N_PROMPT; i++)
        n += (size_t)snprintf(command + n, sizeof command - n, "%s%d", i ? "," : "", ids[i]);
    golden_run(command, output, sizeof output);
    golden_list(output, "\"ids\"", N_GREEDY, got);
    return !memcmp(got, greedy, sizeof greedy);
}

int main(int argc, char **argv)
{
    static const golden_program program = {"golden_logits", find, run, mistakes,
                                           sizeof mistakes / sizeof *mistakes};

    return golden_main(&program, argc, argv);
}
