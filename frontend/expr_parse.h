/* SPDX-License-Identifier: Apache-2.0 */
/* expr_parse - the parser's state, shared by expr.c and expr_words.c. Private to the two. */
#ifndef KF_FRONTEND_EXPR_PARSE_H
#define KF_FRONTEND_EXPR_PARSE_H

#include "frontend/expr.h"

typedef struct kf_expr_parser {
    kf_arena *arena;
    kf_diags *diags;
    const kf_yaml_node *source;
    kf_str text;
    kf_expr_kind kind;
    kf_expr_env env;
    uint32_t at;
    uint32_t depth;
    uint32_t n_nodes;
    bool failed;
} kf_expr_parser;

/* Nodes; NULL operands and broken limits give NULL. Types are checked against fn.def. */
kf_expr *kf_expr_num(kf_expr_parser *p, double v);
kf_expr *kf_expr_truth(kf_expr_parser *p, bool v);
kf_expr *kf_expr_var_of(kf_expr_parser *p, kf_expr_var var);
kf_expr *kf_expr_fn(kf_expr_parser *p, kf_fn fn, const kf_expr *a, const kf_expr *b,
                    const kf_expr *c);

typedef struct kf_expr_word kf_expr_word;
typedef kf_expr *(*kf_expr_expand_fn)(kf_expr_parser *p, const kf_expr *const *args);

struct kf_expr_word {
    const char *name;
    const char *kinds;
    const char *args;
    kf_expr_expand_fn expand; /* NULL: known, not supported */
};

#define KF_EXPR_MAX_ARGS 3

/** Finds a word that may stand in expressions of |kind|. */
const kf_expr_word *kf_expr_word_find(kf_str name, kf_expr_kind kind);

/** Nearest variable, word or function for did-you-mean; may be empty. */
kf_str kf_expr_word_nearest(kf_str name, kf_expr_kind kind);

/** Whether |var| may stand in expressions of |kind|. */
bool kf_expr_var_allowed(kf_expr_var var, kf_expr_kind kind);

/** The row of fn.def behind a function name; knows the names of config.json in activations. */
bool kf_expr_fn_find(kf_str name, kf_expr_kind kind, kf_fn *out_fn);

#endif
