/* SPDX-License-Identifier: Apache-2.0 */
/* ops_docs - docs/OPS.md: one table per .def file, and nothing that is not in them. */
#include "ir/ops_docs.h"

#include "ir/graph.h"

#include <string.h>

static const char intro[] =
    "<!-- Generated from the tables of ir/ by tests/unit/test_ir_docs; "
    "KF_BLESS=1 rewrites it. -->\n"
    "# Ops\n"
    "\n"
    "What a node of a graph can be. `docs/IR.md` says how graphs are "
    "written. The meaning of every row is its function in\n"
    "the reference evaluator (`ir/eval_*.c`); `tests/golden/ops/cases.txt` "
    "checks each against PyTorch.\n"
    "\n"
    "Letters: N tokens of the call, S sequences, R rows whose logits are "
    "wanted, K keys in view of all sequences together,\n"
    "M keys of a memory (a cache filled from something else, for cross attention),\n"
    "H heads, G heads of keys and values, D size of a head; `[..]` any "
    "leading dims. The inputs of a call: `pos`, `seq`\n"
    "`i32[N]` position and sequence of each token; `seq_start` `i32[S]` "
    "first row of each sequence; `past` `i32[S]` tokens\n"
    "already in the cache; `pages` `i32[S,P]` the page table.\n"
    "\n";

/* Text of a table's cell: bars would end it. */
static void cell(kf_sbuf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            kf_sbuf_char(out, '\\');
        kf_sbuf_char(out, *text);
    }
}

static void write_default(kf_sbuf *out, const kf_field_info *f)
{
    switch (f->type) {
    case KF_FIELD_int:
    case KF_FIELD_num:
        kf_sbuf_double(out, f->def);
        return;
    case KF_FIELD_bool:
        kf_sbuf_c(out, "absent");
        return;
    case KF_FIELD_str:
    case KF_FIELD_ints:
    case KF_FIELD_accs:
    case KF_FIELD_slot:
        kf_sbuf_c(out, "none");
        return;
    case KF_FIELD_fam:
        kf_sbuf_c(out, kf_family_names[(int)f->def]);
        return;
    case KF_FIELD_word:
        kf_sbuf_c(out, kf_word_text(f->name, (int)f->def));
        return;
    }
}

static void write_ops(kf_sbuf *out)
{
    kf_sbuf_c(out, "## Ops with rules of their own (`ir/ops.def`)\n\n"
                   "| op | operands -> results | attributes | meaning |\n|---|---|---|---|\n");
    for (int op = KF_FN_COUNT; op < KF_OP_COUNT; op++) {
        const kf_op_info *info = &kf_op_infos[op];
        const kf_attr_info *attr = &kf_attr_infos[info->attr];
        kf_sbuf_printf(out, "| `%s` | `", info->name);
        cell(out, info->types);
        kf_sbuf_c(out, "` | ");
        for (uint32_t i = 0; i < attr->n_fields; i++)
            kf_sbuf_printf(out, "%s`%s`", i ? ", " : "", attr->field[i].name);
        kf_sbuf_c(out, attr->n_fields ? " | " : "- | ");
        cell(out, info->summary);
        kf_sbuf_c(out, " |\n");
    }
}

static void write_attributes(kf_sbuf *out)
{
    static const char *const types[] = {
        /* ORDER: kf_field_type */
        "whole number",         "number", "mark",   "string", "list of whole numbers",
        "list of accumulators", "body",   "family", "word"};
    kf_sbuf_c(out,
              "\n## Attributes (`ir/attrs.def`)\n\nOne that has its default is not written.\n\n"
              "| of | attribute | type | default |\n|---|---|---|---|\n");
    for (int k = 0; k < KF_ATTR_COUNT; k++) {
        for (uint32_t i = 0; i < kf_attr_infos[k].n_fields; i++) {
            const kf_field_info *f = &kf_attr_infos[k].field[i];
            kf_sbuf_c(out, "| ");
            uint32_t n = 0;
            for (int op = KF_FN_COUNT; op < KF_OP_COUNT; op++) {
                if (kf_op_infos[op].attr == (kf_attr_kind)k)
                    kf_sbuf_printf(out, "%s`%s`", n++ ? ", " : "", kf_op_infos[op].name);
            }
            kf_sbuf_printf(out, " | `%s` | %s | ", f->name, types[f->type]);
            write_default(out, f);
            kf_sbuf_c(out, " |\n");
        }
    }
}

static void write_words(kf_sbuf *out)
{
    kf_sbuf_c(out, "\nWords (`ir/words.def`): ");
    const char *set = NULL;
#define WORD(words, name, number, text)                                                            \
    if (set == NULL || strcmp(set, #words) != 0)                                                   \
        kf_sbuf_printf(out, "%s" #words " `" text "`", set ? "; " : "");                           \
    else                                                                                           \
        kf_sbuf_c(out, ", `" text "`");                                                            \
    set = #words;
#include "ir/words.def"
#undef WORD
    kf_sbuf_c(out, ".\n");
}

static const char *const fn_formulas[] = {
#define FN(name, arity, result, traits, eval, emit, oracle, summary) #eval,
#include "ir/fn.def"
#undef FN
};

static const char *const acc_formulas[][2] = {
#define ACC(name, needs, init, step, joined, summary) {#init, #step},
#include "ir/acc.def"
#undef ACC
};

static void write_functions(kf_sbuf *out)
{
    kf_sbuf_c(out, "\n## Scalar functions (`ir/fn.def`)\n\nEach is an elementwise op with "
                   "broadcast and a word of bodies "
                   "and expressions. Operands are a, b, c.\n\n"
                   "| name | operands | result | value | meaning |\n|---|---|---|---|---|\n");
    for (int fn = 0; fn < KF_FN_COUNT; fn++) {
        const kf_fn_info *info = &kf_fn_infos[fn];
        kf_sbuf_printf(out, "| `%s` | %u | %s | `", info->name, info->arity,
                       info->result == KF_FN_RESULT_pred ? "pred" : "number");
        cell(out, fn_formulas[fn]);
        kf_sbuf_c(out, "` | ");
        cell(out, info->summary);
        kf_sbuf_c(out, " |\n");
    }
    kf_sbuf_c(out,
              "\n## Accumulators of rows (`ir/acc.def`)\n\n"
              "s is the value so far, v the element, c its column, m the accumulator needed, n "
              "the length of the row.\n\n"
              "| name | needs | starts as | becomes | meaning |\n|---|---|---|---|---|\n");
    for (int acc = 0; acc < KF_ACC_COUNT; acc++) {
        const kf_acc_info *info = &kf_acc_infos[acc];
        kf_sbuf_printf(out, "| `%s` | %s | `%s` | `", info->name,
                       info->needs == KF_ACC_none ? "-" : kf_acc_infos[info->needs].name,
                       acc_formulas[acc][0]);
        cell(out, acc_formulas[acc][1]);
        kf_sbuf_c(out, "` | ");
        cell(out, info->summary);
        kf_sbuf_c(out, " |\n");
    }
}

static void write_kinds(kf_sbuf *out)
{
    kf_sbuf_c(out, "\n## Types of elements (`ir/dtype.def`)\n\n"
                   "| name | bytes | in safetensors | meaning |\n|---|---|---|---|\n");
    for (int i = 0; i < KF_DTYPE_COUNT; i++)
        kf_sbuf_printf(out, "| `%s` | %u | %s | %s |\n", kf_dtype_infos[i].name,
                       kf_dtype_infos[i].bytes, kf_dtype_infos[i].safetensors,
                       kf_dtype_infos[i].summary);
    kf_sbuf_c(out, "\n## Families of kernels (`ir/families.def`)\n\n"
                   "| name | what one region becomes |\n|---|---|\n");
#define FAMILY(name, summary) kf_sbuf_c(out, "| `" #name "` | " summary " |\n");
#include "ir/families.def"
#undef FAMILY
}

static void write_recipes(kf_sbuf *out)
{
    kf_sbuf_c(out, "\n## Recipes of weights (`ir/recipe.def`)\n\n"
                   "A parameter is made from tensors of the checkpoint when weights are packed: "
                   "computed in f64 from values as stored, rounded once.\n\n"
                   "| written | makes |\n|---|---|\n");
    for (int op = 0; op < KF_RECIPE_COUNT; op++) {
        kf_sbuf_c(out, "| `");
        cell(out, kf_recipe_infos[op].text);
        kf_sbuf_c(out, "` | ");
        cell(out, kf_recipe_infos[op].summary);
        kf_sbuf_c(out, " |\n");
    }
}

void kf_ops_docs(kf_sbuf *out)
{
    kf_sbuf_c(out, intro);
    write_ops(out);
    write_attributes(out);
    write_words(out);
    write_functions(out);
    write_kinds(out);
    write_recipes(out);
}
