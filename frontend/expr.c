/* SPDX-License-Identifier: Apache-2.0 */
/* expr - Pratt parser (Pratt 1973), type rules, evaluation and printing of expressions. */
#include "frontend/expr.h"

#include "frontend/expr_parse.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const kf_expr_var_names[KF_EXPR_VAR_COUNT] = {
    [KF_EXPR_X] = "x", [KF_EXPR_SCORE_VAR] = "score", [KF_EXPR_H] = "h", [KF_EXPR_Q] = "q",
    [KF_EXPR_K] = "k",
};

/* Binary operators, longest spelling first. All associate to the left. */
static const struct binary_op {
    const char *text;
    uint8_t binds; /* higher binds tighter */
    kf_fn fn;
} binary_ops[] = {
    {"<=", 3, KF_FN_le}, {">=", 3, KF_FN_ge}, {"==", 3, KF_FN_eq}, {"!=", 3, KF_FN_ne},
    {"<", 3, KF_FN_lt},  {">", 3, KF_FN_gt},  {"|", 1, KF_FN_or},  {"&", 2, KF_FN_and},
    {"+", 4, KF_FN_add}, {"-", 4, KF_FN_sub}, {"*", 5, KF_FN_mul}, {"/", 5, KF_FN_div},
};

/* ---- nodes ----------------------------------------------------------------------------------- */

/* Reports once per expression; returns NULL so that callers can return it. */
static kf_expr *fail(kf_expr_parser *p, kf_diag_code code, uint32_t begin, uint32_t end,
                     const char *fmt, ...)
{
    if (p->failed)
        return NULL;
    p->failed = true;
    va_list ap;
    va_start(ap, fmt);
    kf_sbuf msg = {.arena = p->arena};
    kf_sbuf_vprintf(&msg, fmt, ap);
    va_end(ap);
    if (!p->source->verbatim)
        kf_sbuf_printf(&msg, " (at character %u of the expression)", begin + 1);
    kf_loc loc = kf_yaml_loc_at(p->source, begin, end > begin ? end - begin : 1);
    kf_diag_add(p->diags, code, loc, "%.*s", KF_STR_ARG(kf_sbuf_view(&msg)));
    return NULL;
}

static kf_expr *new_node(kf_expr_parser *p, kf_expr_op op)
{
    if (++p->n_nodes > KF_EXPR_MAX_NODES) {
        fail(p, KF_E0707, 0, p->text.len, "the expression has more than %u nodes",
             KF_EXPR_MAX_NODES);
        return NULL;
    }
    kf_expr *e = KF_NEW(p->arena, kf_expr);
    e->op = op;
    e->begin = e->end = p->at;
    return e;
}

kf_expr *kf_expr_num(kf_expr_parser *p, double v)
{
    kf_expr *e = new_node(p, KF_EXPR_NUM);
    if (e != NULL)
        e->num = v;
    return e;
}

kf_expr *kf_expr_truth(kf_expr_parser *p, bool v)
{
    kf_expr *e = new_node(p, KF_EXPR_NUM);
    if (e == NULL)
        return NULL;
    e->num = v;
    e->is_pred = true;
    return e;
}

kf_expr *kf_expr_var_of(kf_expr_parser *p, kf_expr_var var)
{
    kf_expr *e = new_node(p, KF_EXPR_VAR);
    if (e != NULL)
        e->var = var;
    return e;
}

kf_expr *kf_expr_fn(kf_expr_parser *p, kf_fn fn, const kf_expr *a, const kf_expr *b,
                    const kf_expr *c)
{
    const kf_fn_info *info = &kf_fn_infos[fn];
    const kf_expr *args[3] = {a, b, c};
    kf_expr *e = new_node(p, KF_EXPR_FN);
    if (e == NULL)
        return NULL;
    e->fn = fn;
    e->is_pred = info->result == KF_FN_RESULT_pred;
    for (uint32_t i = 0; i < info->arity; i++) {
        if (args[i] == NULL)
            return NULL;
        if (args[i]->is_pred != kf_fn_wants_pred(fn, i))
            return fail(p, KF_E0203, args[i]->begin, args[i]->end,
                        "'%s' takes a %s here, this is a %s", info->name,
                        kf_fn_wants_pred(fn, i) ? "truth value" : "number",
                        args[i]->is_pred ? "truth value" : "number");
        e->arg[i] = args[i];
        if (args[i]->begin < e->begin)
            e->begin = args[i]->begin;
        if (args[i]->end > e->end)
            e->end = args[i]->end;
    }
    return e;
}

/** Parsed nodes cover exactly their text; written-out words the text of the word. */
static kf_expr *spanning(kf_expr *e, uint32_t begin, uint32_t end)
{
    if (e != NULL) {
        e->begin = begin;
        e->end = end;
    }
    return e;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static char peek(kf_expr_parser *p)
{
    while (p->at < p->text.len && strchr(" \t\r\n", p->text.ptr[p->at]) != NULL)
        p->at++;
    return p->at < p->text.len ? p->text.ptr[p->at] : '\0';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static kf_expr *expected(kf_expr_parser *p, const char *what)
{
    if (peek(p) == '\0')
        return fail(p, KF_E0201, p->at, p->at, "the expression ends where %s is expected", what);
    return fail(p, KF_E0201, p->at, p->at + 1, "expected %s", what);
}

static bool take(kf_expr_parser *p, char c, const char *what)
{
    if (peek(p) != c) {
        expected(p, what);
        return false;
    }
    p->at++;
    return true;
}

static const struct binary_op *peek_binary(kf_expr_parser *p)
{
    peek(p);
    kf_str rest = {p->text.ptr + p->at, p->text.len - p->at};
    for (size_t i = 0; i < sizeof binary_ops / sizeof *binary_ops; i++)
        if (kf_str_starts_with(rest, binary_ops[i].text))
            return &binary_ops[i];
    return NULL;
}

static kf_str take_name(kf_expr_parser *p)
{
    uint32_t begin = p->at;
    while (p->at < p->text.len && (is_letter(p->text.ptr[p->at]) || is_digit(p->text.ptr[p->at])))
        p->at++;
    return (kf_str){p->text.ptr + begin, p->at - begin};
}

/* ---- the parser ------------------------------------------------------------------------------ */

static kf_expr *parse_binary(kf_expr_parser *p, uint8_t min_binds);

static kf_expr *parse_number(kf_expr_parser *p)
{
    char digits[64];
    uint32_t n = 0, begin = p->at;
    while (p->at < p->text.len) {
        char c = p->text.ptr[p->at];
        bool is_sign = (c == '+' || c == '-') && n > 0 && strchr("eE", digits[n - 1]) != NULL;
        if (!is_digit(c) && strchr(".eE_", c) == NULL && !is_sign)
            break;
        if (c != '_' && n < sizeof digits - 1)
            digits[n++] = c;
        p->at++;
    }
    digits[n] = '\0';
    char *end;
    double v = strtod(digits, &end);
    if (*end != '\0' || end == digits || p->at - begin >= sizeof digits || !isfinite(v))
        return fail(p, KF_E0201, begin, p->at, "not a number");
    return spanning(kf_expr_num(p, v), begin, p->at);
}

/** Arguments in parentheses; none when |n| is 0 and no parenthesis follows. */
static bool parse_args(kf_expr_parser *p, kf_str name, uint32_t begin, uint32_t n,
                       const kf_expr **out_args)
{
    if (peek(p) != '(') {
        if (n == 0)
            return true;
        fail(p, KF_E0204, begin, begin + name.len, "'%.*s' takes %u argument%s, none given",
             KF_STR_ARG(name), n, n > 1 ? "s" : "");
        return false;
    }
    p->at++;
    uint32_t got = 0;
    while (peek(p) != ')' && got <= n) {
        if (got > 0 && !take(p, ',', "',' or ')'"))
            return false;
        const kf_expr *arg = parse_binary(p, 1);
        if (arg == NULL)
            return false;
        if (got < n)
            out_args[got] = arg;
        got++;
    }
    if (got != n) {
        fail(p, KF_E0204, begin, begin + name.len, "'%.*s' takes %u argument%s, %s%u given",
             KF_STR_ARG(name), n, n == 1 ? "" : "s", got > n ? "at least " : "", got);
        return false;
    }
    p->at++;
    return true;
}

/** One letter of a word's argument list against the argument. */
static bool check_arg(kf_expr_parser *p, const kf_expr_word *w, char want, const kf_expr *arg)
{
    static const kf_expr_var vars[128] = {['h'] = KF_EXPR_H, ['q'] = KF_EXPR_Q, ['k'] = KF_EXPR_K};
    if (want == 's') {
        if (!arg->is_pred)
            return true;
        fail(p, KF_E0203, arg->begin, arg->end, "'%s' takes a number here", w->name);
        return false;
    }
    if (strchr("hqk", want) != NULL) {
        if (arg->op == KF_EXPR_VAR && arg->var == vars[(int)want])
            return true;
        fail(p, KF_E0205, arg->begin, arg->end, "this argument of '%s' must be '%c' itself",
             w->name, want);
        return false;
    }
    bool is_const = arg->op == KF_EXPR_NUM && !arg->is_pred;
    bool ok = is_const &&
              (want == 'n' ? arg->num > 0
                           : arg->num >= 1 && arg->num <= INT32_MAX && arg->num == floor(arg->num));
    if (!ok)
        fail(p, KF_E0205, arg->begin, arg->end, "this argument of '%s' must be %s", w->name,
             want == 'n' ? "a number above 0, written out"
                         : "a whole number of 1 to 2147483647, written out");
    return ok;
}

static kf_expr *parse_word(kf_expr_parser *p, const kf_expr_word *w, kf_str name, uint32_t begin)
{
    const kf_expr *args[KF_EXPR_MAX_ARGS] = {0};
    if (w->expand == NULL)
        return fail(p, KF_E0404, begin, p->at, "'%s' is not supported yet", w->name);
    uint32_t n = (uint32_t)strlen(w->args);
    if (!parse_args(p, name, begin, n, args))
        return NULL;
    for (uint32_t i = 0; i < n; i++)
        if (!check_arg(p, w, w->args[i], args[i]))
            return NULL;
    return spanning(w->expand(p, args), begin, p->at);
}

static bool find_var(kf_str name, kf_expr_kind kind, kf_expr_var *out_var)
{
    for (int v = 0; v < KF_EXPR_VAR_COUNT; v++) {
        if (!kf_expr_var_allowed((kf_expr_var)v, kind) || !kf_str_eq_c(name, kf_expr_var_names[v]))
            continue;
        *out_var = (kf_expr_var)v;
        return true;
    }
    return false;
}

/** By kf_expr_kind. */
static const char *const kinds[] = {"an activation", "a mask", "a score", "a factor"};

static kf_expr *unknown_name(kf_expr_parser *p, kf_str name, uint32_t begin)
{
    kf_str near = kf_expr_word_nearest(name, p->kind);
    if (near.len > 0)
        return fail(p, KF_E0202, begin, begin + name.len,
                    "unknown word '%.*s' in %s; did you mean '%.*s'?", KF_STR_ARG(name),
                    kinds[p->kind], KF_STR_ARG(near));
    return fail(p, KF_E0202, begin, begin + name.len, "unknown word '%.*s' in %s", KF_STR_ARG(name),
                kinds[p->kind]);
}

static kf_expr *parse_name(kf_expr_parser *p)
{
    uint32_t begin = p->at;
    kf_str name = take_name(p);
    kf_expr_var var;
    kf_fn fn;
    if (kf_str_eq_c(name, "true") || kf_str_eq_c(name, "false"))
        return spanning(kf_expr_truth(p, name.len == 4), begin, p->at);
    if (find_var(name, p->kind, &var))
        return spanning(kf_expr_var_of(p, var), begin, p->at);
    const kf_expr_word *word = kf_expr_word_find(name, p->kind);
    if (word != NULL)
        return parse_word(p, word, name, begin);
    if (!kf_expr_fn_find(name, p->kind, &fn))
        return unknown_name(p, name, begin);
    const kf_expr *args[3] = {0};
    bool is_alone = begin == 0 && peek(p) == '\0';
    if (p->kind == KF_EXPR_ACT && is_alone && kf_fn_infos[fn].arity == 1)
        args[0] = kf_expr_var_of(p, KF_EXPR_X);
    else if (!parse_args(p, name, begin, kf_fn_infos[fn].arity, args))
        return NULL;
    return spanning(kf_expr_fn(p, fn, args[0], args[1], args[2]), begin, p->at);
}

static kf_expr *parse_unary(kf_expr_parser *p)
{
    uint32_t begin = p->at;
    char c = peek(p);
    begin = p->at;
    if (c == '-' || c == '!') {
        p->at++;
        kf_expr *arg = parse_binary(p, 6);
        if (arg == NULL)
            return NULL;
        if (c == '-' && arg->op == KF_EXPR_NUM && !arg->is_pred)
            return spanning(kf_expr_num(p, -arg->num), begin, p->at);
        return spanning(kf_expr_fn(p, c == '-' ? KF_FN_neg : KF_FN_not, arg, NULL, NULL), begin,
                        p->at);
    }
    if (c == '(') {
        p->at++;
        kf_expr *inner = parse_binary(p, 1);
        return inner != NULL && take(p, ')', "')'") ? inner : NULL;
    }
    if (is_digit(c) || c == '.')
        return parse_number(p);
    if (is_letter(c))
        return parse_name(p);
    return expected(p, "a number, a variable or a function");
}

static kf_expr *parse_binary(kf_expr_parser *p, uint8_t min_binds)
{
    if (++p->depth > KF_EXPR_MAX_NESTING)
        return fail(p, KF_E0707, p->at, p->at + 1, "the expression nests deeper than %u levels",
                    KF_EXPR_MAX_NESTING);
    kf_expr *left = parse_unary(p);
    while (left != NULL) {
        const struct binary_op *op = peek_binary(p);
        if (op == NULL || op->binds < min_binds)
            break;
        p->at += (uint32_t)strlen(op->text);
        kf_expr *right = parse_binary(p, (uint8_t)(op->binds + 1));
        if (right == NULL)
            left = NULL;
        else
            left = spanning(kf_expr_fn(p, op->fn, left, right, NULL), left->begin, right->end);
    }
    p->depth--;
    return left;
}

static const kf_expr *check_result(kf_expr_parser *p, const kf_expr *e)
{
    bool want_pred = p->kind == KF_EXPR_MASK;
    if (e->is_pred != want_pred)
        return fail(p, KF_E0203, 0, p->text.len, "%s is a %s, this is a %s", kinds[p->kind],
                    want_pred ? "truth value" : "number", want_pred ? "number" : "truth value");
    if (p->kind == KF_EXPR_MASK && !p->env.may_look_ahead && !kf_expr_is_causal(e))
        return fail(p, KF_E0406, 0, p->text.len,
                    "the mask does not imply k <= q; write it as 'causal & ...', or the "
                    "model as an 'encoder:'");
    return e;
}

const kf_expr *kf_expr_parse(kf_arena *arena, kf_diags *diags, const kf_yaml_node *text,
                             kf_expr_kind kind, kf_expr_env env)
{
    kf_expr_parser p = {.arena = arena,
                        .diags = diags,
                        .source = text,
                        .text = text->text,
                        .kind = kind,
                        .env = env};
    const kf_expr *e = parse_binary(&p, 1);
    if (e == NULL)
        return NULL;
    if (peek(&p) != '\0' || p.at < p.text.len)
        return expected(&p, "an operator or the end");
    return check_result(&p, e);
}

/* ---- what a tree means ----------------------------------------------------------------------- */

static bool is_var(const kf_expr *e, kf_expr_var var)
{
    return e->op == KF_EXPR_VAR && e->var == var;
}

bool kf_expr_is_causal(const kf_expr *e)
{
    if (e->op == KF_EXPR_NUM)
        return e->num == 0;
    if (e->op != KF_EXPR_FN)
        return false;
    switch (e->fn) {
    case KF_FN_and:
        return kf_expr_is_causal(e->arg[0]) || kf_expr_is_causal(e->arg[1]);
    case KF_FN_or:
        return kf_expr_is_causal(e->arg[0]) && kf_expr_is_causal(e->arg[1]);
    case KF_FN_le:
    case KF_FN_lt:
        return is_var(e->arg[0], KF_EXPR_K) && is_var(e->arg[1], KF_EXPR_Q);
    case KF_FN_ge:
    case KF_FN_gt:
        return is_var(e->arg[0], KF_EXPR_Q) && is_var(e->arg[1], KF_EXPR_K);
    case KF_FN_eq:
        return (is_var(e->arg[0], KF_EXPR_K) && is_var(e->arg[1], KF_EXPR_Q)) ||
               (is_var(e->arg[0], KF_EXPR_Q) && is_var(e->arg[1], KF_EXPR_K));
    default:
        return false;
    }
}

double kf_expr_eval(const kf_expr *e, const double *vars)
{
    if (e->op == KF_EXPR_NUM)
        return e->num;
    if (e->op == KF_EXPR_VAR)
        return vars[e->var];
    double v[3] = {0};
    for (uint32_t i = 0; i < kf_fn_infos[e->fn].arity; i++)
        v[i] = kf_expr_eval(e->arg[i], vars);
    return kf_fn_eval(e->fn, v[0], v[1], v[2]);
}

void kf_expr_print(const kf_expr *e, kf_sbuf *out)
{
    if (e->op == KF_EXPR_VAR) {
        kf_sbuf_c(out, kf_expr_var_names[e->var]);
        return;
    }
    if (e->op == KF_EXPR_NUM) {
        if (e->is_pred)
            kf_sbuf_c(out, e->num != 0 ? "true" : "false");
        else
            kf_sbuf_double(out, e->num);
        return;
    }
    kf_sbuf_printf(out, "%s(", kf_fn_infos[e->fn].name);
    for (uint32_t i = 0; i < kf_fn_infos[e->fn].arity; i++) {
        kf_sbuf_c(out, i > 0 ? ", " : "");
        kf_expr_print(e->arg[i], out);
    }
    kf_sbuf_char(out, ')');
}

bool kf_expr_uses(const kf_expr *e, kf_expr_var var)
{
    if (e->op == KF_EXPR_VAR)
        return e->var == var;
    for (uint32_t i = 0; e->op == KF_EXPR_FN && i < kf_fn_infos[e->fn].arity; i++)
        if (kf_expr_uses(e->arg[i], var))
            return true;
    return false;
}
