/* SPDX-License-Identifier: Apache-2.0 */
/* spec_docs - docs/SPEC.md from the tables: keys, blocks, parameters, words of expressions. */
#include "frontend/presets/preset.h"
#include "frontend/schema.h"

#include <math.h>

static const char *const type_names[KF_KEY_TYPE_COUNT] = {
    [KF_KEY_int] = "whole number",   [KF_KEY_num] = "number",
    [KF_KEY_bool] = "true or false", [KF_KEY_str] = "string",
    [KF_KEY_dtype] = "type",         [KF_KEY_memory] = "memory with unit",
    [KF_KEY_strs] = "strings",       [KF_KEY_ints] = "whole numbers",
    [KF_KEY_act] = "activation",     [KF_KEY_mask] = "mask",
    [KF_KEY_score] = "score",        [KF_KEY_prob] = "prob",
    [KF_KEY_node] = "see below",
};

static void write_type(const kf_key *key, kf_sbuf *out)
{
    uint32_t n = 0;
    const char *const *words = kf_word_names(key->type, &n);
    if (words == NULL)
        kf_sbuf_c(out, type_names[key->type]);
    for (uint32_t i = 0; i < n; i++)
        kf_sbuf_printf(out, "%s`%s`", i > 0 ? ", " : "", words[i]);
    if ((key->type == KF_KEY_int || key->type == KF_KEY_num) && key->max < 2147483647)
        kf_sbuf_printf(out, ", %g to %g", key->min, key->max);
}

static void write_keys(kf_sbuf *out)
{
    for (int s = 0; s < KF_SCOPE_COUNT; s++) {
        const kf_scope_info *info = &kf_scope_infos[s];
        kf_sbuf_printf(out, "### %s\n\n%s.\n\n", info->title, info->summary);
        if (info->n_keys == 0) {
            kf_sbuf_c(out, "No keys: write `{}`.\n\n");
            continue;
        }
        kf_sbuf_c(out, "| key | type | default | meaning |\n|---|---|---|---|\n");
        for (uint32_t i = 0; i < info->n_keys; i++) {
            const kf_key *key = &info->key[i];
            kf_sbuf_printf(out, "| `%s` | ", key->name);
            write_type(key, out);
            if (key->need == KF_NEED_REQ)
                kf_sbuf_c(out, " | **required**");
            else if (key->def[0] != '\0')
                kf_sbuf_printf(out, " | `%s`", key->def);
            else
                kf_sbuf_c(out, " | -");
            kf_sbuf_printf(out, " | %s |\n", key->doc);
        }
        kf_sbuf_char(out, '\n');
    }
}

static void write_blocks(kf_sbuf *out)
{
    kf_sbuf_c(out, "## Blocks\n\n| word | meaning |\n|---|---|\n");
    for (int i = 0; i < KF_BLOCK_KIND_COUNT; i++)
        kf_sbuf_printf(out, "| `%s` | %s |\n", kf_block_infos[i].word, kf_block_infos[i].summary);
    kf_sbuf_c(out, "\nKnown but not built yet (an error with exit status 4):");
#define UNSUPPORTED(word) kf_sbuf_c(out, " `" word "`");
#include "frontend/blocks.def"
#undef UNSUPPORTED
    kf_sbuf_c(
        out,
        ".\n\n## Parameters\n\nA parameter is called `SCOPE.BLOCK.ROLE`: the name under `blocks:` "
        "or `model`, the "
        "block's word (numbered from its second\noccurrence in the scope on: `rms_norm2`) and one "
        "of these roles. `weight_names:` gives its name in the checkpoint; inside a\nrepeated "
        "block "
        "that name follows the repeat's `weights:` prefix and a dot. In place of the name a "
        "mapping "
        "says where in a tensor\nthe parameter is: `{tensor: c_attn.weight, transposed: true, "
        "packed: "
        "[q, k, v]}`.\n\n| role | of |\n|---|---|\n");
    for (int i = 0; i < KF_PARAM_ROLE_COUNT; i++)
        kf_sbuf_printf(out, "| `%s` | %s |\n", kf_param_infos[i].word, kf_param_infos[i].summary);
    kf_sbuf_c(out, "\nA matrix that is stored in parts (`adapters:`, `weight_forms:`) has them "
                   "behind its role, as `layer.attention.q.lora_a`:\n\n"
                   "| part | is |\n|---|---|\n");
    for (int i = KF_PART_WHOLE + 1; i < KF_PART_COUNT; i++)
        kf_sbuf_printf(out, "| `%s` | %s |\n", kf_param_part_infos[i].word,
                       kf_param_part_infos[i].summary);
    kf_sbuf_char(out, '\n');
}

static void write_families(kf_sbuf *out)
{
    kf_sbuf_c(out, "## Families\n\n`$key` stands for the value of that key, and a pair whose value "
                   "is not given is left out.\n\n");
    for (uint32_t i = 0; i < kf_n_presets; i++) {
        const kf_preset *p = kf_presets[i];
        kf_sbuf_printf(out, p->task != NULL ? "### %s, task %s\n\n%s" : "### %s%s\n\n%s", p->family,
                       p->task != NULL ? p->task : "", p->summary);
        const char *word = ". Read from `config.json`:";
        for (const kf_arch *a = p->arch; a != NULL && a->name != NULL; a++, word = ",") {
            kf_sbuf_printf(out, "%s `%s`", word, a->name);
            if (a->when.key != NULL)
                kf_sbuf_printf(out, " with `%s: %s`", a->when.key, a->when.value);
        }
        kf_sbuf_printf(out, ".\n\n```yaml\n%s```\n\n", p->text);
        if (p->defaults != NULL)
            kf_sbuf_printf(out, "Its own defaults:\n\n```yaml\n%s```\n\n", p->defaults);
    }
}

static void write_expressions(kf_sbuf *out)
{
    kf_sbuf_c(
        out,
        "## Expressions\n\n"
        "`act` is a number over `x`, or the name of one function. `mask` is a truth value over `h, "
        "q, k`: "
        "head, and absolute\npositions of query and key; it must imply `k <= q`, except in an "
        "`encoder:`. `score` is a "
        "number "
        "over `score, h, q, k`, `prob` one over `h, q, k`. Operators, loosest first:\n`|`, `&`, `< "
        "<= > >= == !=`, `+ -`, "
        "`* /`, then `-` and `!` before a value. At most 1024 nodes.\n\n| word | in | meaning "
        "|\n|---|---|---|\n");
#define WORD(word, kinds, args, expand, summary)                                                   \
    kf_sbuf_printf(out, "| `%s%s` | %s | %s |\n", word,                                            \
                   args[0] == 'c'   ? "(n)"                                                        \
                   : args[0] == 's' ? "(score, c)"                                                 \
                   : args[0] == 'h' ? "(h, q, k)"                                                  \
                                    : "",                                                          \
                   kinds[0] == 'A'   ? "act"                                                       \
                   : kinds[0] == 'S' ? (kinds[1] == 'A' ? "score, act" : "score")                  \
                   : kinds[1] == 'S' ? "mask, score"                                               \
                                     : "mask",                                                     \
                   summary);
#include "frontend/expr_words.def"
#undef WORD
    kf_sbuf_c(out, "\n| function | arguments | meaning |\n|---|---|---|\n");
    for (int i = 0; i < KF_FN_COUNT; i++)
        kf_sbuf_printf(out, "| `%s` | %u | %s |\n", kf_fn_infos[i].name, kf_fn_infos[i].arity,
                       kf_fn_infos[i].summary);
}

void kf_spec_docs(kf_sbuf *out)
{
    kf_sbuf_c(
        out,
        "<!-- Generated from frontend/schema.def, blocks.def, expr_words.def and ir/fn.def by "
        "tests/unit/test_frontend_docs. -->\n"
        "# Model descriptions\n\n"
        "A description is a YAML file, or a Hugging Face directory. It says what the model is: as "
        "a directory "
        "(`from:`), as a\nfamily with dimensions (`family:`), or block by block (`blocks:` and "
        "`model:`). The first two stand for the third;\n`kerf inspect SPEC --stage spec` prints it "
        "with the "
        "origin of every value. A flag wins over a key of the file, that over\n`config.json`, that "
        "over the family's default.\n\n"
        "Values are typed by their key: `1e-5` and `1_000_000` are numbers, only `true` and "
        "`false` are truth "
        "values, memory has a\nunit (`512MiB`). Files hold at most 1 MiB, 64 levels, 100000 YAML "
        "events; "
        "aliases at most 10000 nodes. Tags, merge\nkeys and several documents are refused.\n\n## "
        "Keys\n\n");
    write_keys(out);
    write_blocks(out);
    write_families(out);
    write_expressions(out);
}
