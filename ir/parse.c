/* SPDX-License-Identifier: Apache-2.0 */
/* parse - .kir text of modules to graphs, by recursive descent; docs/IR.md is the grammar.
 *
 * Everything a graph builder would assert is checked here first and reported with its place, so
 * that no text can break an invariant.
 */
#include "ir/parse_impl.h"
#include "ir/shape.h"
#include "ir/slot_text.h"
#include "ir/text.h"

#include <inttypes.h>

enum { N_BUCKETS = 64, MAX_BODY_DEPTH = 4, MAX_OPERANDS = 4096 };

/* The values of one graph by name: %x, %w, %12. Numbers and names do not meet (names that look like
 * numbers are quoted). */
typedef struct symbol {
    kf_str name;
    bool is_number;
    kf_value value;
    struct symbol *next;
} symbol;

typedef struct scope {
    kf_lexer *lx;
    kf_module *m;
    kf_graph *g;
    symbol *bucket[N_BUCKETS];
    uint32_t depth;
} scope;

static uint32_t hash_name(kf_str name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (uint32_t i = 0; i < name.len; i++)
        h = (h ^ (uint8_t)name.ptr[i]) * 16777619u;
    return h % N_BUCKETS;
}

static symbol *find_symbol(const scope *s, kf_str name, bool is_number)
{
    symbol *sym = s->bucket[hash_name(name)];
    while (sym && (sym->is_number != is_number || !kf_str_eq(sym->name, name)))
        sym = sym->next;
    return sym;
}

static bool define(scope *s, const kf_token *tok, kf_value value)
{
    if (find_symbol(s, tok->text, tok->is_int))
        return kf_lex_fail(s->lx, KF_E0504, tok->loc, "value '%%%.*s' is defined twice",
                           KF_STR_ARG(tok->text));
    symbol *sym = KF_NEW(s->lx->arena, symbol);
    uint32_t b = hash_name(tok->text);
    *sym = (symbol){tok->text, tok->is_int, value, s->bucket[b]};
    s->bucket[b] = sym;
    return true;
}

static bool take_value_token(scope *s, kf_token *out)
{
    *out = s->lx->tok;
    if (out->kind != KF_TOK_VALUE)
        return kf_lex_fail(s->lx, KF_E0501, out->loc, "expected a value, found '%.*s'",
                           KF_STR_ARG(out->text));
    kf_lex_next(s->lx);
    return true;
}

static bool parse_use(scope *s, kf_value *out)
{
    kf_token tok;
    if (!take_value_token(s, &tok))
        return false;
    const symbol *sym = find_symbol(s, tok.text, tok.is_int);
    if (!sym)
        return kf_lex_fail(s->lx, KF_E0502, tok.loc, "value '%%%.*s' is not defined before its use",
                           KF_STR_ARG(tok.text));
    *out = sym->value;
    return true;
}

/* ---- attributes ------------------------------------------------------------------------------ */

static bool parse_ints(kf_lexer *lx, kf_ints *out)
{
    out->n = 0;
    if (!kf_lex_expect(lx, "["))
        return false;
    do {
        if (out->n == KF_MAX_RANK)
            return kf_lex_fail(lx, KF_E0501, lx->tok.loc, "more than %d numbers", KF_MAX_RANK);
        if (!kf_lex_int(lx, INT32_MIN, INT32_MAX, &out->v[out->n++]))
            return false;
    } while (kf_lex_accept(lx, ","));
    return kf_lex_expect(lx, "]");
}

static bool parse_accs(kf_lexer *lx, kf_accs *out)
{
    out->n = 0;
    if (!kf_lex_expect(lx, "["))
        return false;
    do {
        kf_str name;
        kf_loc loc = lx->tok.loc;
        if (out->n == KF_MAX_ACCS)
            return kf_lex_fail(lx, KF_E0501, loc, "more than %d accumulators", KF_MAX_ACCS);
        if (!kf_lex_ident(lx, &name))
            return false;
        if (!kf_acc_find(name, &out->acc[out->n++]))
            return kf_lex_fail(lx, KF_E0502, loc, "unknown accumulator '%.*s'", KF_STR_ARG(name));
    } while (kf_lex_accept(lx, ","));
    return kf_lex_expect(lx, "]");
}

static bool parse_word(kf_lexer *lx, const kf_field_info *f, void *at)
{
    kf_str word;
    kf_loc loc = lx->tok.loc;
    if (!kf_lex_ident(lx, &word))
        return false;
    bool ok = f->type == KF_FIELD_fam ? kf_family_find(word, at) : kf_word_find(f->name, word, at);
    return ok || kf_lex_fail(lx, KF_E0502, loc, "unknown %s '%.*s'", f->name, KF_STR_ARG(word));
}

static bool parse_field(kf_lexer *lx, const kf_field_info *f, void *at)
{
    if (f->type == KF_FIELD_bool) {
        *(kf_field_bool *)at = true;
        return true;
    }
    if (!kf_lex_expect(lx, "="))
        return false;
    switch (f->type) {
    case KF_FIELD_int:
        return kf_lex_int(lx, -(INT64_C(1) << 52), INT64_C(1) << 52, at);
    case KF_FIELD_num:
        return kf_lex_num(lx, at);
    case KF_FIELD_str: {
        kf_str text;
        if (!kf_lex_string(lx, &text))
            return false;
        *(kf_field_str *)at = kf_str_dup(lx->arena, text);
        return true;
    }
    case KF_FIELD_ints:
        return parse_ints(lx, at);
    case KF_FIELD_accs:
        return parse_accs(lx, at);
    case KF_FIELD_fam:
    case KF_FIELD_word:
        return parse_word(lx, f, at);
    case KF_FIELD_bool:
    case KF_FIELD_slot:
        break;
    }
    return true;
}

static const kf_field_info *find_field(const kf_attr_info *info, kf_str name, bool slot)
{
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const kf_field_info *f = &info->field[i];
        if (kf_str_eq_c(name, f->name) && (f->type == KF_FIELD_slot) == slot)
            return f;
    }
    return NULL;
}

/* "{a = 1, b}" and then slots. */
static bool parse_attr(kf_lexer *lx, kf_attr_kind kind, char *attr)
{
    const kf_attr_info *info = &kf_attr_infos[kind];
    uint32_t seen = 0;
    bool braces = kf_lex_accept(lx, "{");
    while (braces || lx->tok.kind == KF_TOK_IDENT) {
        kf_str name;
        kf_loc loc = lx->tok.loc;
        if (!kf_lex_ident(lx, &name))
            return false;
        const kf_field_info *f = find_field(info, name, !braces);
        if (!f)
            return kf_lex_fail(lx, KF_E0502, loc, "no attribute '%.*s' here", KF_STR_ARG(name));
        uint32_t bit = 1u << (f - info->field);
        if (seen & bit)
            return kf_lex_fail(lx, KF_E0504, loc, "attribute '%s' twice", f->name);
        seen |= bit;
        if (!braces) {
            *(kf_field_slot *)(attr + f->offset) = kf_slot_read(lx);
            if (lx->failed)
                return false;
            continue;
        }
        if (!parse_field(lx, f, attr + f->offset))
            return false;
        if (kf_lex_accept(lx, ","))
            continue;
        if (!kf_lex_expect(lx, "}"))
            return false;
        braces = false;
    }
    return true;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

typedef struct node_text {
    kf_token out[KF_MAX_RESULTS];
    uint8_t n_out;
    kf_op op;
    kf_loc op_loc;
    KF_VEC(kf_value) in;
    void *attr;
    kf_graph *body;
    kf_str name;
    kf_type type[KF_MAX_RESULTS];
    kf_loc loc;
} node_text;

static bool parse_outs(scope *s, node_text *n)
{
    do {
        if (n->n_out == KF_MAX_RESULTS)
            return kf_lex_fail(s->lx, KF_E0501, s->lx->tok.loc, "a node has at most %d results",
                               KF_MAX_RESULTS);
        if (!take_value_token(s, &n->out[n->n_out++]))
            return false;
    } while (kf_lex_accept(s->lx, ","));
    return kf_lex_expect(s->lx, "=");
}

static bool parse_op(scope *s, node_text *n)
{
    kf_lexer *lx = s->lx;
    kf_str name;
    n->op_loc = lx->tok.loc;
    if (!kf_lex_ident(lx, &name))
        return false;
    if (!kf_op_find(name, &n->op))
        return kf_lex_fail(lx, KF_E0502, n->op_loc, "unknown op '%.*s'", KF_STR_ARG(name));
    n->attr = kf_attr_new(lx->arena, kf_op_infos[n->op].attr);
    if (n->op == KF_OP_region) {
        static const kf_field_info family = {"family", KF_FIELD_fam, 0, 0};
        if (!parse_word(lx, &family, &((kf_attr_region *)n->attr)->family))
            return false;
        if (lx->tok.kind == KF_TOK_STRING && !kf_lex_string(lx, &n->name))
            return false;
    }
    while (lx->tok.kind == KF_TOK_VALUE) {
        kf_value v;
        if (n->in.len == MAX_OPERANDS)
            return kf_lex_fail(lx, KF_E0505, lx->tok.loc, "too many operands");
        if (!parse_use(s, &v))
            return false;
        kf_vec_push(lx->arena, &n->in, v);
        if (!kf_lex_accept(lx, ","))
            break;
    }
    if (n->op == KF_OP_region)
        return kf_parse_body(lx, s->m, s->depth + 1, &n->body);
    return parse_attr(lx, kf_op_infos[n->op].attr, n->attr);
}

static bool parse_types(scope *s, node_text *n)
{
    uint8_t i = 0;
    if (!kf_lex_expect(s->lx, ":"))
        return false;
    do {
        if (i == n->n_out)
            return kf_lex_fail(s->lx, KF_E0503, s->lx->tok.loc, "more types than results");
        if (!kf_parse_type(s->lx, s->m, &n->type[i++]))
            return false;
    } while (kf_lex_accept(s->lx, ","));
    return i == n->n_out ||
           kf_lex_fail(s->lx, KF_E0503, s->lx->tok.loc, "%u results, but %u types", n->n_out, i);
}

static bool check_node(scope *s, const node_text *n)
{
    kf_type types[KF_MAX_RESULTS];
    uint8_t n_types;
    kf_sbuf why = {.arena = s->lx->arena};
    if (!kf_shape_infer(s->g, n->op, n->attr, n->body, n->in.len, n->in.data, n->type, types,
                        &n_types, &why))
        return kf_lex_fail(s->lx, KF_E0503, n->op_loc, "%s", why.ptr);
    if (n_types != n->n_out)
        return kf_lex_fail(s->lx, KF_E0503, n->op_loc, "%s has %u results here, not %u",
                           kf_op_infos[n->op].name, n_types, n->n_out);
    for (uint8_t i = 0; i < n_types; i++) {
        if (kf_type_eq(&types[i], &n->type[i]))
            continue;
        kf_type_print(s->m, &types[i], &why);
        return kf_lex_fail(s->lx, KF_E0503, n->op_loc, "result %u of %s is %s here", i,
                           kf_op_infos[n->op].name, why.ptr);
    }
    return true;
}

static bool parse_node(scope *s)
{
    node_text n = {.n_out = 0};
    if (!parse_outs(s, &n) || !parse_op(s, &n) || !parse_types(s, &n) ||
        !kf_parse_loc(s->lx, s->m, &n.loc) || !check_node(s, &n))
        return false;
    kf_value first;
    if (n.op == KF_OP_region)
        first = kf_node_add_region(s->g, ((kf_attr_region *)n.attr)->family, n.body, n.name,
                                   n.in.len, n.in.data, n.loc);
    else
        first = kf_node_add(s->g, n.op, n.attr, n.in.len, n.in.data, n.type, n.loc);
    for (uint8_t i = 0; i < n.n_out; i++) {
        if (!define(s, &n.out[i], first + i))
            return false;
    }
    return true;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static bool parse_arg_list(scope *s)
{
    if (!kf_lex_expect(s->lx, "("))
        return false;
    while (!kf_lex_is(s->lx, ")")) {
        kf_token tok;
        kf_type type;
        if (!take_value_token(s, &tok) || !kf_lex_expect(s->lx, ":") ||
            !kf_parse_type(s->lx, s->m, &type))
            return false;
        if (!define(s, &tok, kf_graph_add_arg(s->g, type, tok.text, KF_NO_LOC)))
            return false;
        if (!kf_lex_accept(s->lx, ","))
            break;
    }
    return kf_lex_expect(s->lx, ")");
}

/* Nodes, "return" and the closing brace. */
static bool parse_nodes(scope *s)
{
    while (s->lx->tok.kind == KF_TOK_VALUE) {
        if (!parse_node(s))
            return false;
    }
    if (!kf_lex_expect(s->lx, "return"))
        return false;
    while (s->lx->tok.kind == KF_TOK_VALUE) {
        kf_value v;
        if (!parse_use(s, &v))
            return false;
        kf_graph_add_result(s->g, v);
        if (!kf_lex_accept(s->lx, ","))
            break;
    }
    return kf_lex_expect(s->lx, "}");
}

bool kf_parse_body(kf_lexer *lx, kf_module *m, uint32_t depth, kf_graph **out)
{
    if (depth > MAX_BODY_DEPTH)
        return kf_lex_fail(lx, KF_E0505, lx->tok.loc, "bodies nest too deep");
    scope s = {.lx = lx, .m = m, .g = kf_graph_create(m), .depth = depth};
    *out = s.g;
    return parse_arg_list(&s) && kf_lex_expect(lx, "{") && parse_nodes(&s);
}

static bool parse_params(scope *s)
{
    if (!kf_lex_expect(s->lx, "{"))
        return false;
    do {
        kf_token tok;
        kf_type type;
        const kf_recipe *recipe = NULL;
        if (!take_value_token(s, &tok) || !kf_lex_expect(s->lx, ":") ||
            !kf_parse_type(s->lx, s->m, &type) || !kf_lex_expect(s->lx, "=") ||
            !kf_parse_recipe(s->lx, s->m, &type, &recipe))
            return false;
        kf_value v = kf_graph_add_param(s->g, recipe, tok.text, KF_NO_LOC);
        s->g->values.data[v].type = type;
        if (!define(s, &tok, v))
            return false;
    } while (kf_lex_accept(s->lx, ","));
    return kf_lex_expect(s->lx, "}");
}

typedef KF_VEC(kf_type) type_list;

/* "-> (types)" */
static bool parse_result_types(kf_lexer *lx, const kf_module *m, type_list *out)
{
    if (!kf_lex_expect(lx, "->") || !kf_lex_expect(lx, "("))
        return false;
    while (!kf_lex_is(lx, ")")) {
        kf_type t;
        if (!kf_parse_type(lx, m, &t))
            return false;
        kf_vec_push(lx->arena, out, t);
        if (!kf_lex_accept(lx, ","))
            break;
    }
    return kf_lex_expect(lx, ")");
}

static bool parse_func(kf_lexer *lx, kf_module *m)
{
    kf_str name;
    kf_loc loc = lx->tok.loc;
    type_list types = {0};
    if (!kf_lex_expect(lx, "@") || !kf_lex_name(lx, &name))
        return false;
    if (kf_module_find_func(m, name))
        return kf_lex_fail(lx, KF_E0504, loc, "function '@%.*s' is defined twice",
                           KF_STR_ARG(name));
    kf_graph *g = kf_graph_create(m);
    g->name = kf_str_dup(m->arena, name);
    scope s = {.lx = lx, .m = m, .g = g};
    if (!parse_arg_list(&s) || (kf_lex_accept(lx, "params") && !parse_params(&s)))
        return false;
    loc = lx->tok.loc;
    if (!parse_result_types(lx, m, &types) || !kf_lex_expect(lx, "{") || !parse_nodes(&s))
        return false;
    bool same = types.len == g->results.len;
    for (uint32_t i = 0; same && i < types.len; i++)
        same = kf_type_eq(&types.data[i], kf_value_type(g, g->results.data[i]));
    if (!same)
        return kf_lex_fail(lx, KF_E0503, loc,
                           "the function returns other types than its header says");
    kf_vec_push(m->arena, &m->funcs, g); /* only now: a function cannot call itself */
    return true;
}

kf_module *kf_module_parse(kf_arena *arena, kf_diags *d, kf_str path, kf_str text)
{
    kf_lexer lx;
    kf_str name;
    kf_lex_start(&lx, arena, d, path, text);
    if (!kf_lex_expect(&lx, "module") || !kf_lex_expect(&lx, "@") || !kf_lex_name(&lx, &name) ||
        !kf_lex_expect(&lx, "{"))
        return NULL;
    kf_module *m = kf_module_create(arena, name);
    if (!kf_parse_module_head(&lx, m))
        return NULL;
    while (kf_lex_accept(&lx, "func")) {
        if (!parse_func(&lx, m))
            return NULL;
    }
    if (!kf_lex_expect(&lx, "}"))
        return NULL;
    if (lx.tok.kind != KF_TOK_END) {
        kf_lex_fail(&lx, KF_E0501, lx.tok.loc, "text behind the module");
        return NULL;
    }
    return lx.failed ? NULL : m;
}
