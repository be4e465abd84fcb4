/* SPDX-License-Identifier: Apache-2.0 */
/* expr - the expression language of `act`, `mask`, `score` and `prob`.
 *
 * A Pratt parser gives a typed tree over the rows of fn.def: every operator and every word (causal,
 * window, softcap, ...) is written out as scalar functions while reading, so the tree has numbers,
 * variables and functions only. No loops, no state, bounded size. Places in messages are places in
 * the user's file. Precedence, loosest first:  |   &   < <= > >= == !=   + -   * /   unary - !
 */
#ifndef KF_FRONTEND_EXPR_H
#define KF_FRONTEND_EXPR_H

#include "frontend/yaml.h"
#include "ir/attr.h"

#define KF_EXPR_MAX_NODES   1024u
#define KF_EXPR_MAX_NESTING 64u

/** What an expression is for: decides its variables, words and result. */
typedef enum kf_expr_kind {
    KF_EXPR_ACT,   /* number over x; the name of a function alone means that function of x */
    KF_EXPR_MASK,  /* truth over h, q, k (head, absolute positions of query and key) */
    KF_EXPR_SCORE, /* number over score, h, q, k */
    KF_EXPR_PROB,  /* number over h, q, k */
} kf_expr_kind;

typedef enum kf_expr_var {
    KF_EXPR_X,
    KF_EXPR_SCORE_VAR,
    KF_EXPR_H,
    KF_EXPR_Q,
    KF_EXPR_K,
    KF_EXPR_VAR_COUNT
} kf_expr_var;

extern const char *const kf_expr_var_names[KF_EXPR_VAR_COUNT];

typedef enum kf_expr_op { KF_EXPR_NUM, KF_EXPR_VAR, KF_EXPR_FN } kf_expr_op;

/** A node. Truth constants are KF_EXPR_NUM with is_pred. Nodes may be shared. */
typedef struct kf_expr {
    kf_expr_op op;
    bool is_pred;
    double num;
    kf_expr_var var;
    kf_fn fn;
    const struct kf_expr *arg[3]; /* kf_fn_infos[fn].arity of them */
    uint32_t begin, end;          /* bytes of the text it was written as */
} kf_expr;

/** Constants that words need. */
typedef struct kf_expr_env {
    uint32_t num_heads;  /* of the attention block; alibi's slopes depend on it */
    bool may_look_ahead; /* masks need not imply k <= q */
} kf_expr_env;

/** Parses the scalar |text|. Returns NULL after reporting. A mask must imply k <= q (E0406)
 * unless |env| lifts that. */
const kf_expr *kf_expr_parse(kf_arena *arena, kf_diags *diags, const kf_yaml_node *text,
                             kf_expr_kind kind, kf_expr_env env);

/** Whether predicate |e| can only hold where k <= q; by structure, so "no" may mean "not seen". */
bool kf_expr_is_causal(const kf_expr *e);

/** Value at the given variables (indexed by kf_expr_var). */
double kf_expr_eval(const kf_expr *e, const double *vars);

/** Function form: "and(le(k, q), lt(sub(q, k), 1024))". */
void kf_expr_print(const kf_expr *e, kf_sbuf *out);

/** Whether |var| stands anywhere in |e|. */
bool kf_expr_uses(const kf_expr *e, kf_expr_var var);

#endif
