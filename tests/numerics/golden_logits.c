/* SPDX-License-Identifier: Apache-2.0 */
/* golden_logits - compiled executables against logits and greedy tokens of the same models in
 * transformers.
 *
 *   golden_logits MODEL           worst row within the gate, 64 greedy tokens identical
 *   golden_logits MODEL MISTAKE   the description with one switch the wrong way round: outside ten
 * times the gate, and, where golden.json says how far transformers then is, as far golden_logits
 * list            "MODEL" or "MODEL MISTAKE" for each test there is
 *
 * MODEL is a folder of tests/golden/llama. A mistake is an edit of the open composition that `kerf
 * inspect
 * --stage spec` prints, so every switch can be turned, also those that config.json has no key for.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_PROMPT = 24, N_GREEDY = 64, N_VOCAB = 64, MAX_TEXT = 1 << 16, MAX_PATH = 1024 };

static const double gate_nmse = 1e-9;

static const char *const models[] = {
    "act_gelu", "act_gelu_tanh", "act_relu",    "all_llama",  "all_qwen2", "all_qwen3", "base",
    "bias",     "gqa",           "head_dim",    "inter_50",   "inter_88",  "mqa",       "qk_norm",
    "qkv_bias", "rope_linear",   "rope_llama3", "rope_theta", "tied",
};

/** Every |from| in the description becomes |to|. Names are those of golden.json where it has the
 * figure. */
static const struct mistake {
    const char *model, *name, *from, *to;
} mistakes[] = {
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
};

typedef struct golden {
    const char *model, *build;
    char dir[MAX_PATH], out[MAX_PATH], json[MAX_TEXT];
    int ids[N_PROMPT], greedy[N_GREEDY];
    float logits[N_PROMPT * N_VOCAB];
} golden;

static void fail(const char *what, const char *detail)
{
    fprintf(stderr, "golden_logits: %s: %s\n", what, detail);
    exit(1);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);

    if (!value)
        fail(name, "not set");
    return value;
}

/* ---- files and commands ---------------------------------------------------------------------- */

static size_t read_file(const char *path, char *out, size_t max)
{
    FILE *f = fopen(path, "rb");

    if (!f)
        fail(path, "cannot be opened");
    size_t n = fread(out, 1, max - 1, f);
    fclose(f);
    out[n] = '\0';
    return n;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");

    if (!f || fputs(text, f) < 0 || fclose(f))
        fail(path, "cannot be written");
}

/** The command's output; a status other than 0 ends the test. */
static void run(const char *command, char *out, size_t max)
{
    FILE *f = popen(command, "r");

    if (!f)
        fail(command, "cannot be started");
    size_t n = fread(out, 1, max - 1, f);
    out[n] = '\0';
    if (pclose(f))
        fail(command, "failed");
}

/** Logits [N_PROMPT, N_VOCAB], which end a file of that type and shape. */
static void read_logits(const char *path, float *out)
{
    static char bytes[N_PROMPT * N_VOCAB * sizeof(float) + 4096];
    const size_t size = N_PROMPT * N_VOCAB * sizeof(float);
    size_t n = read_file(path, bytes, sizeof bytes);

    if (n <= size || !strstr(bytes + 10, "'<f4'") || !strstr(bytes + 10, "(24, 64)"))
        fail(path, "is not float32 [24, 64]");
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
            fail(key, "has too few numbers");
        p = end;
    }
}

static void open_golden(golden *g, const char *model, const char *mistake)
{
    char path[MAX_PATH + 32];

    g->model = model;
    g->build = environment("KF_BUILD_DIR");
    snprintf(g->dir, sizeof g->dir, "%s/tests/golden/llama/%s", environment("KF_SOURCE_DIR"),
             model);
    snprintf(g->out, sizeof g->out, "golden_logits.%s.%s", model, mistake);
    snprintf(path, sizeof path, "%s/golden.json", g->dir);
    read_file(path, g->json, sizeof g->json);
    read_list(g->json, "\"ids\"", N_PROMPT, g->ids);
    read_list(g->json, "\"greedy\"", N_GREEDY, g->greedy);
    snprintf(path, sizeof path, "%s/logits.npy", g->dir);
    read_logits(path, g->logits);
}

/* ---- running the compiled model -------------------------------------------------------------- */

static void compile(const golden *g, const char *description, const char *options)
{
    static char command[3 * MAX_PATH], output[MAX_TEXT];

    snprintf(command, sizeof command, "'%s/bin/kerf' compile '%s' %s -q -j1 -o %s", g->build,
             description, options, g->out);
    run(command, output, sizeof output);
}

/** Runs the executable: logits of the prompt, and N_GREEDY tokens after it. */
static void execute(const golden *g, float *out_logits, int *out_ids)
{
    static char command[2 * MAX_PATH + 512], output[MAX_TEXT];
    char npy[MAX_PATH + 8];
    size_t n;

    snprintf(npy, sizeof npy, "%s.npy", g->out);
    n = (size_t)snprintf(command, sizeof command,
                         "./%s run --temp 0 --ignore-eos -n %d --json --all-logits %s --ids ",
                         g->out, N_GREEDY, npy);
    for (int i = 0; i < N_PROMPT; i++)
        n += (size_t)snprintf(command + n, sizeof command - n, "%s%d", i ? "," : "", g->ids[i]);
    run(command, output, sizeof output);
    read_logits(npy, out_logits);
    read_list(output, "\"ids\"", N_GREEDY, out_ids);
    remove(npy);
    remove(g->out);
}

/** NMSE over all rows, and of the worst row. */
static double nmse(const float *got, const float *want, double *out_worst)
{
    double error = 0, norm = 0;

    *out_worst = 0;
    for (int r = 0; r < N_PROMPT; r++) {
        double row_error = 0, row_norm = 0;
        for (int i = r * N_VOCAB; i < (r + 1) * N_VOCAB; i++) {
            double d = (double)got[i] - (double)want[i];
            row_error += d * d;
            row_norm += (double)want[i] * (double)want[i];
        }
        *out_worst = fmax(*out_worst, row_error / row_norm);
        error += row_error;
        norm += row_norm;
    }
    return error / norm;
}

static int check_right(golden *g)
{
    static float logits[N_PROMPT * N_VOCAB];
    int ids[N_GREEDY], wrong = 0;
    double worst;

    compile(g, g->dir, "");
    execute(g, logits, ids);
    double all = nmse(logits, g->logits, &worst);
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

/** |text| with the comments gone and every |from| replaced; at least one must be there. */
static void edit(const char *text, const struct mistake *m, char *out, size_t max)
{
    size_t n = 0, length = strlen(m->from);
    int edits = 0;

    while (*text && n + strlen(m->to) + 2 < max) {
        if (!strncmp(text, m->from, length)) {
            n += (size_t)snprintf(out + n, max - n, "%s", m->to);
            text += length;
            edits++;
        } else if (!strncmp(text, "  # ", 4))
            text += strcspn(text, "\n");
        else
            out[n++] = *text++;
    }
    out[n] = '\0';
    if (!edits)
        fail(m->from, "is not in the description");
}

/** How far off transformers is with the same mistake; 0 where golden.json does not say. */
static double figure_of(const golden *g, const char *mistake)
{
    char key[64];
    const char *flips = strstr(g->json, "\"flips\"");

    snprintf(key, sizeof key, "\"%s\": {\"nmse\": ", mistake);
    const char *at = flips ? strstr(flips, key) : NULL;
    return at ? strtod(at + strlen(key), NULL) : 0;
}

static int check_mistake(golden *g, const struct mistake *m)
{
    static char command[3 * MAX_PATH], text[MAX_TEXT], edited[MAX_TEXT];
    static float logits[N_PROMPT * N_VOCAB];
    char path[MAX_PATH + 8], options[MAX_PATH + 32];
    int ids[N_GREEDY];
    double worst, known = figure_of(g, m->name);

    snprintf(command, sizeof command, "'%s/bin/kerf' inspect '%s' --stage spec", g->build, g->dir);
    run(command, text, sizeof text);
    edit(text, m, edited, sizeof edited);
    snprintf(path, sizeof path, "%s.yaml", g->out);
    snprintf(options, sizeof options, "--weights '%s'", g->dir);
    write_file(path, edited);
    compile(g, path, options);
    execute(g, logits, ids);
    remove(path);
    double all = nmse(logits, g->logits, &worst);
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
        fail("usage", "golden_logits MODEL [MISTAKE]");
    open_golden(&g, argv[1], argc > 2 ? argv[2] : "right");
    if (argc == 2)
        return check_right(&g);
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        if (!strcmp(mistakes[i].model, argv[1]) && !strcmp(mistakes[i].name, argv[2]))
            return check_mistake(&g, &mistakes[i]);
    fail(argv[2], "no such mistake");
    return 1;
}
