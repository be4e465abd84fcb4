/* SPDX-License-Identifier: Apache-2.0 */
/* golden_logits - compiled executables against logits and greedy tokens of the same models in
 * transformers.
 *
 *   golden_logits MODEL           worst row within the gate, 64 greedy tokens identical
 *   golden_logits MODEL MISTAKE   the description with one switch the wrong way round: outside ten
 * times the gate, and, where golden.json says how far transformers then is, as far golden_logits
 * list            "MODEL" or "MODEL MISTAKE" for each test there is
 *
 * MODEL is a folder of tests/golden/llama or of tests/golden/decoders. A mistake is an edit of the
 * open composition that `kerf inspect
 * --stage spec` prints, so every switch can be turned, also those that config.json has no key for.
 */
#include "golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_PROMPT = 24, N_GREEDY = 64, N_VOCAB = 64 };

static const double gate_nmse = 1e-9;

static const char *const models[] = {
    "act_gelu",    "act_gelu_tanh",
    "act_relu",    "all_llama",
    "all_qwen2",   "all_qwen3",
    "base",        "bias",
    "gqa",         "head_dim",
    "inter_50",    "inter_88",
    "mqa",         "qk_norm",
    "qkv_bias",    "rope_linear",
    "rope_llama3", "rope_theta",
    "tied",        "bloom",
    "cohere",      "gemma",
    "gemma2",      "gpt2",
    "gpt_neox",    "gpt_neox_serial",
    "gptj",        "mistral",
    "opt",         "phi",
    "phi3",        "polynorm",
    "transnormer",
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

typedef struct golden {
    const char *model, *build;
    char dir[GOLDEN_PATH], out[GOLDEN_PATH], json[GOLDEN_TEXT];
    int ids[N_PROMPT], greedy[N_GREEDY];
    float logits[N_PROMPT * N_VOCAB];
} golden;

/** Logits [N_PROMPT, N_VOCAB], which end a file of that type and shape. */
static void read_logits(const char *path, float *out)
{
    static char bytes[N_PROMPT * N_VOCAB * sizeof(float) + 4096];
    const size_t size = N_PROMPT * N_VOCAB * sizeof(float);
    size_t n = golden_read(path, bytes, sizeof bytes);

    if (n <= size || !strstr(bytes + 10, "'<f4'") || !strstr(bytes + 10, "(24, 64)"))
        golden_fail(path, "is not float32 [24, 64]");
    memcpy(out, bytes + n - size, size);
}

static void read_list(const char *json, const char *key, int n, int *out)
{
    const char *p = strstr(json, key);

    p = p ? strchr(p, '[') : NULL;
    for (int i = 0; i < n; i++) {
        char *end = NULL;
        if (p)
            out[i] = (int)strtol(p + 1, &end, 10);
        if (!end || end == p + 1)
            golden_fail(key, "has too few numbers");
        p = end;
    }
}

/** The folder of |model|, in one of those that hold models. */
static void find_golden(golden *g, const char *model)
{
    static const char *const folders[] = {"llama", "decoders"};
    char path[GOLDEN_PATH + 32];

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(g->dir, sizeof g->dir, "%s/tests/golden/%s/%s",
                 golden_environment("KF_SOURCE_DIR"), folders[i], model);
        snprintf(path, sizeof path, "%s/golden.json", g->dir);
        FILE *f = fopen(path, "rb");
        if (!f)
            continue;
        fclose(f);
        return;
    }
    golden_fail(model, "no such model");
}

static void open_golden(golden *g, const char *model, const char *mistake)
{
    char path[GOLDEN_PATH + 32];

    g->model = model;
    g->build = golden_environment("KF_BUILD_DIR");
    find_golden(g, model);
    snprintf(g->out, sizeof g->out, "golden_logits.%s.%s", model, mistake);
    snprintf(path, sizeof path, "%s/golden.json", g->dir);
    golden_read(path, g->json, sizeof g->json);
    read_list(g->json, "\"ids\"", N_PROMPT, g->ids);
    read_list(g->json, "\"greedy\"", N_GREEDY, g->greedy);
    snprintf(path, sizeof path, "%s/logits.npy", g->dir);
    read_logits(path, g->logits);
}

/* ---- running the compiled model -------------------------------------------------------------- */

static void compile(const golden *g, const char *description, const char *options)
{
    static char command[3 * GOLDEN_PATH], output[GOLDEN_TEXT];

    snprintf(command, sizeof command, "'%s/bin/kerf' compile '%s' %s -q -j1 -o %s", g->build,
             description, options, g->out);
    golden_run(command, output, sizeof output);
}

/** Runs the executable: logits of the prompt, and N_GREEDY tokens after it. */
static void execute(const golden *g, float *out_logits, int *out_ids)
{
    static char command[2 * GOLDEN_PATH + 512], output[GOLDEN_TEXT];
    char npy[GOLDEN_PATH + 8];
    size_t n;

    snprintf(npy, sizeof npy, "%s.npy", g->out);
    n = (size_t)snprintf(command, sizeof command,
                         "./%s run --temp 0 --ignore-eos -n %d --json --all-logits %s --ids ",
                         g->out, N_GREEDY, npy);
    for (int i = 0; i < N_PROMPT; i++)
        n += (size_t)snprintf(command + n, sizeof command - n, "%s%d", i ? "," : "", g->ids[i]);
    golden_run(command, output, sizeof output);
    read_logits(npy, out_logits);
    read_list(output, "\"ids\"", N_GREEDY, out_ids);
    remove(npy);
    remove(g->out);
}

static int check_right(golden *g)
{
    static float logits[N_PROMPT * N_VOCAB];
    int ids[N_GREEDY], wrong = 0;
    double worst;

    compile(g, g->dir, "");
    execute(g, logits, ids);
    double all = golden_nmse(logits, g->logits, N_PROMPT, N_VOCAB, &worst);
    printf("%s: NMSE %.3g, worst row %.3g\n", g->model, all, worst);
    wrong += !(all <= gate_nmse) || !(worst <= gate_nmse);
    for (int i = 0; i < N_GREEDY; i++) {
        if (ids[i] == g->greedy[i])
            continue;
        printf("token %d is %d, not %d\n", i, ids[i], g->greedy[i]);
        wrong++;
        break;
    }
    return wrong != 0;
}

/* ---- mistakes -------------------------------------------------------------------------------- */

static int check_mistake(golden *g, const golden_mistake *m)
{
    static char command[3 * GOLDEN_PATH], text[GOLDEN_TEXT], edited[GOLDEN_TEXT];
    static float logits[N_PROMPT * N_VOCAB];
    char path[GOLDEN_PATH + 8], options[GOLDEN_PATH + 32];
    int ids[N_GREEDY];
    double worst, known = golden_figure(g->json, m->name);

    snprintf(command, sizeof command, "'%s/bin/kerf' inspect '%s' --stage spec", g->build, g->dir);
    golden_run(command, text, sizeof text);
    golden_edit(text, m, edited, sizeof edited);
    snprintf(path, sizeof path, "%s.yaml", g->out);
    snprintf(options, sizeof options, "--weights '%s'", g->dir);
    golden_write(path, edited);
    compile(g, path, options);
    execute(g, logits, ids);
    remove(path);
    double all = golden_nmse(logits, g->logits, N_PROMPT, N_VOCAB, &worst);
    printf("%s with %s: NMSE %.3g, worst row %.3g; transformers %.3g\n", g->model, m->name, all,
           worst, known);
    return !(all >= 10 * gate_nmse) || (known > 0 && !(fabs(all - known) <= 0.01 * known));
}

static int list(void)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        printf("%s\n", models[i]);
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        printf("%s %s\n", mistakes[i].model, mistakes[i].name);
    return 0;
}

int main(int argc, char **argv)
{
    static golden g;

    if (argc == 2 && !strcmp(argv[1], "list"))
        return list();
    if (argc < 2)
        golden_fail("usage", "golden_logits MODEL [MISTAKE]");
    open_golden(&g, argv[1], argc > 2 ? argv[2] : "right");
    if (argc == 2)
        return check_right(&g);
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        if (!strcmp(mistakes[i].model, argv[1]) && !strcmp(mistakes[i].name, argv[2]))
            return check_mistake(&g, &mistakes[i]);
    golden_fail(argv[2], "no such mistake");
    return 1;
}
