/* SPDX-License-Identifier: Apache-2.0 */
/* golden_rows - compiled encoders, and encoders with a decoder, against what transformers computes.
 *
 *   golden_rows CASE           rows of two texts in one call, or logits of a decoder's tokens:
 * worst row within the gate; the decoder's greedy tokens identical golden_rows CASE MISTAKE   the
 * description with one switch the wrong way round: outside ten times the gate, and, where
 * golden.json says how far transformers then is, as far
 *
 * A case is a folder of tests/golden/encoders, what is set in its description, and the rows wanted;
 * "logits" are those of a decoder.
 */
#include "golden.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NUMBERS = 4096, N_GREEDY = 16 };

static const double gate_nmse = 1e-9;

static const struct golden_case {
    const char *name, *folder, *set, *rows;
    int n, width;
} cases[] = {
    {"bert_masked_lm", "bert_masked_lm", "", "rows", 33, 64},
    {"bert_other", "bert_other", "", "rows", 33, 64},
    {"bert_mean", "bert_model", "", "mean", 2, 32},
    {"bert_cls", "bert_model", "--set 'task={embedding: {pool: cls}}'", "cls", 2, 32},
    {"bert_pooler", "bert_model", "--set task=pooler", "pooler", 2, 32},
    {"longformer", "longformer", "", "rows", 33, 32},
    {"t5_relu", "t5_relu", "", "logits", 30, 64},
    {"t5_gated", "t5_gated", "", "logits", 30, 64},
};

static const golden_mistake mistakes[] = {
    {"bert_masked_lm", "eps_1e-12", "eps: 1e-05", "eps: 1e-12"},
    {"bert_masked_lm", "act_gelu_new", "act: gelu", "act: gelu_tanh"},
    {"bert_masked_lm", "causal", "mask: bidirectional", "mask: causal"},
    {"bert_masked_lm", "no_scale", "mask: bidirectional", "mask: bidirectional, scale: 1"},
    {"bert_masked_lm", "no_head_act", "bias: true, act: gelu}", "bias: true}"},
    {"bert_other", "act_gelu", "act: gelu_new", "act: gelu"},
    {"bert_mean", "cls", "of: mean", "of: cls"},
    {"bert_pooler", "eps_1e-12", "eps: 1e-05", "eps: 1e-12"},
    {"bert_pooler", "no_tanh", ", act: tanh", ""},
    {"longformer", "window_6", "abs(q - k) <= 4", "abs(q - k) <= 3"},
    {"longformer", "one_sided", "abs(q - k) <= 4", "causal & window(5)"},
    {"longformer", "positions_from_0", "offset: 2", "offset: 0"},
    {"t5_relu", "eps_1e-06", "eps: 0.0001", "eps: 1e-06"},
    {"t5_relu", "max_distance_40", "max_distance: 20", "max_distance: 40"},
    {"t5_relu", "act_other", "act: relu", "act: silu"},
    {"t5_relu", "no_bias", "relative_bias: true, ", ""},
    {"t5_relu", "one_sided", ", bidirectional: true", ""},
    {"t5_relu", "scaled", "scale: 1", "scale: 0.3535"},
    {"t5_relu", "causal_encoder", "mask: bidirectional", "mask: causal"},
    {"t5_relu", "no_output_scale", ", act: \"x * 0.17677669529663687\"", ""},
    {"t5_gated", "act_other", "act: gelu_tanh", "act: gelu"},
};

typedef struct golden {
    const struct golden_case *c;
    const char *build;
    char dir[GOLDEN_PATH], out[GOLDEN_PATH], json[GOLDEN_TEXT];
    float rows[MAX_NUMBERS];
} golden;

static void read_rows(const char *path, const struct golden_case *c, float *out)
{
    static char bytes[MAX_NUMBERS * sizeof(float) + 4096];
    size_t size = (size_t)c->n * (size_t)c->width * sizeof(float);
    size_t n = golden_read(path, bytes, sizeof bytes);
    char shape[32];

    snprintf(shape, sizeof shape, "(%d, %d)", c->n, c->width);
    if (n <= size || !strstr(bytes + 10, "'<f4'") || !strstr(bytes + 10, shape))
        golden_fail(path, "is not float32 of that shape");
    memcpy(out, bytes + n - size, size);
}

static void open_golden(golden *g, const char *name, const char *mistake)
{
    char path[GOLDEN_PATH + 32];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(cases[i].name, name))
            g->c = &cases[i];
    if (!g->c)
        golden_fail(name, "no such case");
    g->build = golden_environment("KF_BUILD_DIR");
    snprintf(g->dir, sizeof g->dir, "%s/tests/golden/encoders/%s",
             golden_environment("KF_SOURCE_DIR"), g->c->folder);
    snprintf(g->out, sizeof g->out, "golden_rows.%s.%s", name, mistake);
    snprintf(path, sizeof path, "%s/golden.json", g->dir);
    golden_read(path, g->json, sizeof g->json);
    snprintf(path, sizeof path, "%s/%s.npy", g->dir, g->c->rows);
    read_rows(path, g->c, g->rows);
}

/* The text behind "key": " in golden.json. */
static int text_of(const golden *g, const char *key, const char **out)
{
    const char *at = strstr(g->json, key);

    if (!at)
        golden_fail(key, "is not in golden.json");
    *out = at + strlen(key);
    return (int)strcspn(*out, "\"");
}

/* The last "ids" of the executable's object, as in golden.json. */
static bool same_greedy(const golden *g, const char *output)
{
    const char *want = strstr(g->json, "\"greedy\": "), *got = strstr(output, ", \"ids\": ");

    if (!want || !got)
        golden_fail(g->c->name, "no greedy tokens");
    want = strchr(want, '[') + 1;
    got = strchr(got, '[') + 1;
    for (int i = 0; i < N_GREEDY; i++)
        if (strtol(want, (char **)&want, 10) != strtol(got, (char **)&got, 10) || *want++ != *got++)
            return false;
    return true;
}

/** Compiles |description|, runs the texts in one call, and measures. */
static double measure(const golden *g, const char *description, const char *options,
                      double *out_worst, bool *out_greedy)
{
    static char command[4 * GOLDEN_PATH], output[GOLDEN_TEXT];
    static float rows[MAX_NUMBERS];
    char npy[GOLDEN_PATH + 8];
    const char *ids, *more;
    bool pair = !strcmp(g->c->rows, "logits");
    int n_ids = text_of(g, "\"ids\": \"", &ids);
    int n_more = text_of(g, pair ? "\"decoder_ids\": \"" : "\"types\": \"", &more);

    snprintf(command, sizeof command, "'%s/bin/kerf' compile '%s' %s -q -j1 -o %s", g->build,
             description, options, g->out);
    golden_run(command, output, sizeof output);
    snprintf(npy, sizeof npy, "%s.npy", g->out);
    snprintf(command, sizeof command,
             pair ? "./%s run -n 16 --temp 0 --ignore-eos --json --all-logits %s --ids '%.*s' "
                    "--decoder-ids '%.*s'"
                  : "./%s embed --npy %s --ids '%.*s' --types '%.*s'",
             g->out, npy, n_ids, ids, n_more, more);
    golden_run(command, output, sizeof output);
    read_rows(npy, g->c, rows);
    *out_greedy = !pair || same_greedy(g, output);
    remove(npy);
    remove(g->out);
    return golden_nmse(rows, g->rows, g->c->n, g->c->width, out_worst);
}

static int check_right(const golden *g)
{
    static char options[2 * GOLDEN_PATH];
    double worst;
    bool greedy;

    snprintf(options, sizeof options, "--weights '%s' %s", g->dir, g->c->set);
    double all = measure(g, g->dir, options, &worst, &greedy);
    printf("%s: NMSE %.3g, worst row %.3g%s\n", g->c->name, all, worst,
           greedy ? "" : ", other tokens");
    return !(all <= gate_nmse) || !(worst <= gate_nmse) || !greedy;
}

static int check_mistake(const golden *g, const golden_mistake *m)
{
    static char command[3 * GOLDEN_PATH], text[GOLDEN_TEXT], edited[GOLDEN_TEXT];
    char path[GOLDEN_PATH + 8], options[GOLDEN_PATH + 32];
    double worst, known = golden_figure(g->json, m->name);
    bool greedy;

    snprintf(command, sizeof command, "'%s/bin/kerf' inspect '%s' %s --stage spec", g->build,
             g->dir, g->c->set);
    golden_run(command, text, sizeof text);
    golden_edit(text, m, edited, sizeof edited);
    snprintf(path, sizeof path, "%s.yaml", g->out);
    snprintf(options, sizeof options, "--weights '%s'", g->dir);
    golden_write(path, edited);
    double all = measure(g, path, options, &worst, &greedy);
    remove(path);
    printf("%s with %s: NMSE %.3g, worst row %.3g; transformers %.3g\n", g->c->name, m->name, all,
           worst, known);
    return !(all >= 10 * gate_nmse) || (known > 0 && !(fabs(all - known) <= 0.01 * known));
}

int main(int argc, char **argv)
{
    static golden g;

    if (argc < 2)
        golden_fail("usage", "golden_rows CASE [MISTAKE]");
    open_golden(&g, argv[1], argc > 2 ? argv[2] : "right");
    if (argc == 2)
        return check_right(&g);
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        if (!strcmp(mistakes[i].model, argv[1]) && !strcmp(mistakes[i].name, argv[2]))
            return check_mistake(&g, &mistakes[i]);
    golden_fail(argv[2], "no such mistake");
    return 1;
}
