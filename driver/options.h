/* SPDX-License-Identifier: Apache-2.0 */
/* options - the command line of `kerf`: verbs, options, help. The table is options.def. */
#ifndef KF_DRIVER_OPTIONS_H
#define KF_DRIVER_OPTIONS_H

#include "base/diag.h"

typedef enum kf_verb {
#define VERB(name, operands, summary) KF_VERB_##name,
#include "driver/options.def"
#undef VERB
    KF_VERB_COUNT
} kf_verb;

typedef struct kf_options {
    bool folds, fold_narrow, help, version, no_weights, embed, no_embed, verify_each, canonical,
        help_passes, layers, bisect, json, verbose, quiet;
    const char *output, *target, *emit, *weights, *set, *dtype, *stage, *format, *passes, *pass_off,
        *pass_dump, *pass_time, *pass_trace, *stop_after, *dump_dir, *norm_rewrite, *at,
        *diagnostics, *color;
    int64_t seed, tokens, jobs;
    /* operands */
    const char *operand; /* SPEC, DIR, EXE, FILE.kir or CODE */
    const char *second;  /* weights random SPEC: the SPEC; diff A B: B */
    char **rest;         /* run, embed, bench: what follows the operand; reduce: what follows -- */
    int n_rest;
} kf_options;

/** Finds a verb; reports E0801 with the nearest one. */
bool kf_verb_find(kf_diags *d, const char *word, kf_verb *out_verb);
/** Parses what follows the verb. False after reporting (E0802 unknown option, E0803 bad or missing
 * argument, E0804 wrong operands). */
bool kf_options_parse(kf_arena *arena, kf_diags *d, kf_verb verb, int argc, char **argv,
                      kf_options *out);

void kf_help_print(FILE *out);
void kf_help_verb(FILE *out, kf_verb verb);
/** The same as Markdown, for docs/CLI.md. */
void kf_help_markdown(kf_sbuf *out);

#endif
