/* SPDX-License-Identifier: Apache-2.0 */
/* golden_rows - compiled encoders, and encoders with a decoder, against what transformers computes.
 * See golden.h; a name is a case: a folder of tests/golden/encoders, what is set in its
 * description, and the rows wanted, of two texts in one call; "logits" are those of a decoder.
 */
#include "golden.h"

#include <stdio.h>
#include <string.h>

enum { N_GREEDY = 16 };

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

static bool find(golden *g)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct golden_case *c = &cases[i];
        if (strcmp(c->name, g->name) != 0)
            continue;
        g->set = c->set;
        g->rows = c->rows;
        g->n = c->n;
        g->width = c->width;
        return golden_folder(g, "encoders", c->folder);
    }
    return false;
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

static bool run(const golden *g, const char *npy)
{
    static char command[4 * GOLDEN_PATH], output[GOLDEN_TEXT];
    int greedy[N_GREEDY], got[N_GREEDY];
    const char *ids, *more;
    bool pair = !strcmp(g->rows, "logits");
    int n_ids = text_of(g, "\"ids\": \"", &ids);
    int n_more = text_of(g, pair ? "\"decoder_ids\": \"" : "\"types\": \"", &more);

    snprintf(command, sizeof command,
             pair ? "./%s run -n 16 --temp 0 --ignore-eos --json --all-logits %s --ids '%.*s' "
                    "--decoder-ids '%.*s'"
                  : "./%s embed --npy %s --ids '%.*s' --types '%.*s'",
             g->out, npy, n_ids, ids, n_more, more);
    golden_run(command, output, sizeof output);
    if (!pair)
        return true;
    golden_list(g->json, "\"greedy\"", N_GREEDY, greedy);
    golden_list(output, ", \"ids\"", N_GREEDY, got);
    return !memcmp(got, greedy, sizeof greedy);
}

int main(int argc, char **argv)
{
    static const golden_program program = {"golden_rows", find, run, mistakes,
                                           sizeof mistakes / sizeof *mistakes};

    return golden_main(&program, argc, argv);
}
