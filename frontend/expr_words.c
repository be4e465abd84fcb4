/* SPDX-License-Identifier: Apache-2.0 */
/* expr_words - what the words of masks and scores mean, in functions of fn.def. */
#include "frontend/expr_parse.h"

#include <math.h>
#include <string.h>

static kf_expr *causal(kf_expr_parser *p, const kf_expr *const *args)
{
    (void)args;
    return kf_expr_fn(p, KF_FN_le, kf_expr_var_of(p, KF_EXPR_K), kf_expr_var_of(p, KF_EXPR_Q),
                      NULL);
}

static kf_expr *bidirectional(kf_expr_parser *p, const kf_expr *const *args)
{
    (void)args;
    return kf_expr_truth(p, true);
}

static kf_expr *window(kf_expr_parser *p, const kf_expr *const *args)
{
    const kf_expr *q = kf_expr_var_of(p, KF_EXPR_Q), *k = kf_expr_var_of(p, KF_EXPR_K);
    return kf_expr_fn(p, KF_FN_lt, kf_expr_fn(p, KF_FN_sub, q, k, NULL), args[0], NULL);
}

static kf_expr *chunk_of(kf_expr_parser *p, kf_expr_var var, const kf_expr *n)
{
    const kf_expr *quotient = kf_expr_fn(p, KF_FN_div, kf_expr_var_of(p, var), n, NULL);
    return kf_expr_fn(p, KF_FN_floor, quotient, NULL, NULL);
}

static kf_expr *chunk(kf_expr_parser *p, const kf_expr *const *args)
{
    return kf_expr_fn(p, KF_FN_eq, chunk_of(p, KF_EXPR_Q, args[0]), chunk_of(p, KF_EXPR_K, args[0]),
                      NULL);
}

static kf_expr *first_keys(kf_expr_parser *p, const kf_expr *const *args)
{
    return kf_expr_fn(p, KF_FN_lt, kf_expr_var_of(p, KF_EXPR_K), args[0], NULL);
}

static kf_expr *identity(kf_expr_parser *p, const kf_expr *const *args)
{
    (void)args;
    return kf_expr_var_of(p, KF_EXPR_X);
}

static kf_expr *softcap(kf_expr_parser *p, const kf_expr *const *args)
{
    const kf_expr *scaled = kf_expr_fn(p, KF_FN_div, args[0], args[1], NULL);
    return kf_expr_fn(p, KF_FN_mul, args[1], kf_expr_fn(p, KF_FN_tanh, scaled, NULL, NULL), NULL);
}

/** exp(-(a*h + c) * ln 2) */
static kf_expr *power_of_two(kf_expr_parser *p, double a, double c)
{
    const double ln2 = 0.69314718055994530942;
    const kf_expr *h = kf_expr_var_of(p, KF_EXPR_H);
    const kf_expr *scaled = kf_expr_fn(p, KF_FN_mul, h, kf_expr_num(p, -a * ln2), NULL);
    return kf_expr_fn(p, KF_FN_exp,
                      kf_expr_fn(p, KF_FN_add, scaled, kf_expr_num(p, -c * ln2), NULL), NULL, NULL);
}

/** Slopes 2^(-8(h+1)/m) for the first m = 2^floor(log2 H) heads; further heads j = h - m take every
 * other slope of 2m heads, 2^(-4(2j+1)/m) (the authors' rule for H that is no power of two). */
static kf_expr *alibi(kf_expr_parser *p, const kf_expr *const *args)
{
    (void)args;
    uint32_t n_heads = p->env.num_heads, m = 1;
    while (m * 2 <= n_heads)
        m *= 2;
    const kf_expr *slope = power_of_two(p, 8.0 / m, 8.0 / m);
    if (m != n_heads) {
        const kf_expr *rest = power_of_two(p, 8.0 / m, 4.0 / m - 8.0);
        const kf_expr *is_first =
            kf_expr_fn(p, KF_FN_lt, kf_expr_var_of(p, KF_EXPR_H), kf_expr_num(p, m), NULL);
        slope = kf_expr_fn(p, KF_FN_select, is_first, slope, rest);
    }
    const kf_expr *distance =
        kf_expr_fn(p, KF_FN_sub, kf_expr_var_of(p, KF_EXPR_K), kf_expr_var_of(p, KF_EXPR_Q), NULL);
    return kf_expr_fn(p, KF_FN_mul, slope, distance, NULL);
}

#define unsupported NULL

static const kf_expr_word words[] = {
#define WORD(word, kinds, args, expand, summary) {word, kinds, args, expand},
#include "frontend/expr_words.def"
#undef WORD
};

#undef unsupported

enum { N_WORDS = sizeof words / sizeof *words };

static const char kind_letters[] = {
    [KF_EXPR_ACT] = 'A', [KF_EXPR_MASK] = 'M', [KF_EXPR_SCORE] = 'S', [KF_EXPR_PROB] = 'P'};

/** Per variable the kinds it may stand in. */
static const char *const var_kinds[KF_EXPR_VAR_COUNT] = {
    [KF_EXPR_X] = "A",   [KF_EXPR_SCORE_VAR] = "S", [KF_EXPR_H] = "MSP",
    [KF_EXPR_Q] = "MSP", [KF_EXPR_K] = "MSP",
};

/* hidden_act of config.json -> fn.def (transformers/activations.py). */
static const struct act_alias {
    const char *name;
    kf_fn fn;
} act_aliases[] = {
    {"swish", KF_FN_silu},
    {"gelu_python", KF_FN_gelu},
    {"gelu_new", KF_FN_gelu_tanh},
    {"gelu_fast", KF_FN_gelu_tanh},
    {"gelu_pytorch_tanh", KF_FN_gelu_tanh},
    {"quick_gelu", KF_FN_gelu_quick},
};

const kf_expr_word *kf_expr_word_find(kf_str name, kf_expr_kind kind)
{
    for (uint32_t i = 0; i < N_WORDS; i++)
        if (kf_str_eq_c(name, words[i].name) && strchr(words[i].kinds, kind_letters[kind]) != NULL)
            return &words[i];
    return NULL;
}

bool kf_expr_var_allowed(kf_expr_var var, kf_expr_kind kind)
{
    return strchr(var_kinds[var], kind_letters[kind]) != NULL;
}

bool kf_expr_fn_find(kf_str name, kf_expr_kind kind, kf_fn *out_fn)
{
    for (uint32_t i = 0; kind == KF_EXPR_ACT && i < sizeof act_aliases / sizeof *act_aliases; i++) {
        if (!kf_str_eq_c(name, act_aliases[i].name))
            continue;
        *out_fn = act_aliases[i].fn;
        return true;
    }
    return kf_fn_find(name, out_fn);
}

kf_str kf_expr_word_nearest(kf_str name, kf_expr_kind kind)
{
    kf_str known[N_WORDS + KF_EXPR_VAR_COUNT + KF_FN_COUNT];
    uint32_t n = 0;
    for (uint32_t i = 0; i < N_WORDS; i++)
        if (strchr(words[i].kinds, kind_letters[kind]) != NULL)
            known[n++] = kf_str_from(words[i].name);
    for (uint32_t i = 0; i < KF_EXPR_VAR_COUNT; i++)
        if (kf_expr_var_allowed((kf_expr_var)i, kind))
            known[n++] = kf_str_from(kf_expr_var_names[i]);
    for (uint32_t i = 0; i < KF_FN_COUNT; i++)
        known[n++] = kf_str_from(kf_fn_infos[i].name);
    return kf_str_nearest(name, known, n);
}
