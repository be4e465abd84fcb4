/* SPDX-License-Identifier: Apache-2.0 */
/* slot_text - slot bodies as nested expressions: map(v, a0) { %0 = exp(v), mul(%0, rsqrt(%0)) }. */
#include "ir/slot_text.h"

#include "ir/print_impl.h"

#include <inttypes.h>

/* ---- printing -------------------------------------------------------------------------------- */

static bool names_are_usable(const kf_slot *s)
{
    for (uint8_t i = 0; i < s->n_params; i++) {
        if (!kf_is_identifier(s->param[i]) || kf_str_eq_c(s->param[i], "inf") ||
            kf_str_eq_c(s->param[i], "nan"))
            return false;
        for (uint8_t j = 0; j < i; j++) {
            if (kf_str_eq(s->param[i], s->param[j]))
                return false;
        }
    }
    return true;
}

typedef struct slot_printer {
    const kf_slot *s;
    bool own_names;
    uint32_t *let; /* number of an instruction's let + 1, or 0 */
    kf_sbuf *out;
} slot_printer;

static void print_param(const slot_printer *p, uint32_t index)
{
    if (p->own_names)
        kf_sbuf_str(p->out, p->s->param[index]);
    else
        kf_sbuf_printf(p->out, "p%" PRIu32, index);
}

static void print_inst(const slot_printer *p, uint32_t i, bool in_full)
{
    const kf_slot_inst *inst = &p->s->inst[i];
    if (p->let[i] && !in_full) {
        kf_sbuf_printf(p->out, "%%%" PRIu32, p->let[i] - 1);
        return;
    }
    switch (inst->op) {
    case KF_SLOT_CONST:
        kf_sbuf_double(p->out, inst->value);
        return;
    case KF_SLOT_PARAM:
        print_param(p, inst->index);
        return;
    case KF_SLOT_FN:
        kf_sbuf_printf(p->out, "%s(", kf_fn_infos[inst->fn].name);
        break;
    case KF_SLOT_LOAD:
        kf_sbuf_printf(p->out, "$%" PRIu32 "[", inst->index);
        break;
    }
    for (uint8_t a = 0; a < inst->n_args; a++) {
        kf_sbuf_c(p->out, a ? ", " : "");
        print_inst(p, inst->arg[a], false);
    }
    kf_sbuf_char(p->out, inst->op == KF_SLOT_FN ? ')' : ']');
}

void kf_slot_print(const char *field, const kf_slot *s, uint32_t flags, kf_sbuf *out)
{
    slot_printer p = {s, !(flags & KF_PRINT_CANONICAL) && names_are_usable(s),
                      KF_NEW_N(out->arena, uint32_t, s->n_insts), out};
    uint32_t *uses = KF_NEW_N(out->arena, uint32_t, s->n_insts);
    for (uint32_t i = 0; i < s->n_insts; i++) {
        for (uint8_t a = 0; a < s->inst[i].n_args; a++)
            uses[s->inst[i].arg[a]]++;
    }
    kf_sbuf_printf(out, "%s(", field);
    for (uint8_t i = 0; i < s->n_params; i++) {
        kf_sbuf_c(out, i ? ", " : "");
        print_param(&p, i);
    }
    if (s->captures)
        kf_sbuf_printf(out, " | %u", s->captures);
    kf_sbuf_c(out, ") { ");
    uint32_t n_lets = 0;
    for (uint32_t i = 0; i < s->n_insts; i++) {
        bool leaf = s->inst[i].op == KF_SLOT_CONST || s->inst[i].op == KF_SLOT_PARAM;
        if (uses[i] < 2 || leaf)
            continue;
        kf_sbuf_printf(out, "%%%" PRIu32 " = ", n_lets);
        print_inst(&p, i, true);
        kf_sbuf_c(out, ", ");
        p.let[i] = ++n_lets;
    }
    print_inst(&p, s->n_insts - 1, true);
    kf_sbuf_c(out, " }");
}

/* ---- reading --------------------------------------------------------------------------------- */

enum { MAX_DEPTH = 256, MAX_LETS = 512 };

typedef struct slot_reader {
    kf_lexer *lx;
    kf_slot_builder *b;
    kf_str param[KF_SLOT_MAX_PARAMS];
    uint8_t n_params;
    uint8_t captures;
    uint32_t let[MAX_LETS];
    uint32_t n_lets;
    uint32_t depth;
} slot_reader;

static bool read_expr(slot_reader *r, uint32_t *out);

/* "a, b, c<close>" into |arg|; the opening bracket is taken. */
static bool read_args(slot_reader *r, uint8_t max, const char *close, uint32_t *arg, uint8_t *out_n)
{
    *out_n = 0;
    do {
        if (*out_n == max)
            return kf_lex_fail(r->lx, KF_E0501, r->lx->tok.loc, "more than %u operands", max);
        if (!read_expr(r, &arg[(*out_n)++]))
            return false;
    } while (kf_lex_accept(r->lx, ","));
    return kf_lex_expect(r->lx, close);
}

static bool read_call(slot_reader *r, kf_str name, kf_loc loc, uint32_t *out)
{
    kf_fn fn;
    uint32_t arg[KF_SLOT_MAX_ARGS] = {0};
    uint8_t n;
    if (!kf_fn_find(name, &fn))
        return kf_lex_fail(r->lx, KF_E0502, loc, "unknown function '%.*s'", KF_STR_ARG(name));
    if (!read_args(r, KF_SLOT_MAX_ARGS, ")", arg, &n))
        return false;
    if (n != kf_fn_infos[fn].arity)
        return kf_lex_fail(r->lx, KF_E0503, loc, "%s takes %u operands, not %u",
                           kf_fn_infos[fn].name, kf_fn_infos[fn].arity, n);
    *out = kf_slot_fn(r->b, fn, arg[0], arg[1], arg[2]);
    return true;
}

static bool read_word(slot_reader *r, uint32_t *out)
{
    kf_loc loc = r->lx->tok.loc;
    kf_str name;
    if (!kf_lex_ident(r->lx, &name))
        return false;
    if (kf_lex_accept(r->lx, "("))
        return read_call(r, name, loc, out);
    for (uint8_t i = 0; i < r->n_params; i++) {
        if (kf_str_eq(r->param[i], name)) {
            *out = kf_slot_param(r->b, i);
            return true;
        }
    }
    return kf_lex_fail(r->lx, KF_E0502, loc, "unknown parameter '%.*s'", KF_STR_ARG(name));
}

static bool read_load(slot_reader *r, uint32_t *out)
{
    int64_t capture;
    uint32_t arg[KF_SLOT_MAX_ARGS];
    uint8_t n;
    if (!kf_lex_int(r->lx, 0, (int64_t)r->captures - 1, &capture) || !kf_lex_expect(r->lx, "[") ||
        !read_args(r, KF_SLOT_MAX_ARGS, "]", arg, &n))
        return false;
    *out = kf_slot_load(r->b, (uint32_t)capture, arg, n);
    return true;
}

static bool read_let(slot_reader *r, uint32_t *out)
{
    kf_str text = r->lx->tok.text;
    uint32_t number = 0;
    for (uint32_t i = 0; i < text.len && i < 4; i++)
        number = number * 10 + (uint32_t)(text.ptr[i] - '0');
    if (!r->lx->tok.is_int || text.len > 3 || number >= r->n_lets)
        return kf_lex_fail(r->lx, KF_E0502, r->lx->tok.loc, "unknown value '%%%.*s'",
                           KF_STR_ARG(text));
    *out = r->let[number];
    kf_lex_next(r->lx);
    return true;
}

static bool read_expr(slot_reader *r, uint32_t *out)
{
    double value;
    bool ok;
    kf_lexer *lx = r->lx;
    if (++r->depth > MAX_DEPTH || kf_slot_builder_len(r->b) + 1 >= KF_SLOT_MAX_INSTS)
        return kf_lex_fail(lx, KF_E0505, lx->tok.loc, "the body is too large or too deep");
    if (lx->tok.kind == KF_TOK_VALUE) {
        ok = read_let(r, out);
    } else if (kf_lex_accept(lx, "$")) {
        ok = read_load(r, out);
    } else if (lx->tok.kind == KF_TOK_IDENT && !kf_lex_is(lx, "inf") && !kf_lex_is(lx, "nan")) {
        ok = read_word(r, out);
    } else {
        ok = kf_lex_num(lx, &value);
        if (ok)
            *out = kf_slot_const(r->b, value);
    }
    r->depth--;
    return ok;
}

static bool read_params(slot_reader *r)
{
    kf_lexer *lx = r->lx;
    if (!kf_lex_expect(lx, "("))
        return false;
    while (!kf_lex_is(lx, "|") && !kf_lex_is(lx, ")")) {
        if (r->n_params == KF_SLOT_MAX_PARAMS)
            return kf_lex_fail(lx, KF_E0501, lx->tok.loc, "more than %d parameters",
                               KF_SLOT_MAX_PARAMS);
        if (!kf_lex_ident(lx, &r->param[r->n_params++]))
            return false;
        if (!kf_lex_accept(lx, ","))
            break;
    }
    int64_t captures = 0;
    if (kf_lex_accept(lx, "|") && !kf_lex_int(lx, 1, UINT8_MAX, &captures))
        return false;
    r->captures = (uint8_t)captures;
    return kf_lex_expect(lx, ")");
}

const kf_slot *kf_slot_read(kf_lexer *lx)
{
    slot_reader r = {.lx = lx};
    const char *names[KF_SLOT_MAX_PARAMS];
    uint32_t value;
    if (!read_params(&r) || !kf_lex_expect(lx, "{"))
        return NULL;
    for (uint8_t i = 0; i < r.n_params; i++)
        names[i] = kf_str_dup(lx->arena, r.param[i]).ptr;
    r.b = kf_slot_builder_create(lx->arena, r.n_params, names, r.captures);
    for (;;) {
        kf_str text = lx->tok.text;
        bool number = lx->tok.kind == KF_TOK_VALUE && lx->tok.is_int;
        kf_lexer before = *lx;
        kf_lex_next(lx);
        if (lx->failed)
            return NULL;
        if (!number || !kf_lex_accept(lx, "=")) { /* not a let: the result */
            *lx = before;
            break;
        }
        if (r.n_lets == MAX_LETS || !kf_str_eq(text, kf_strf(lx->arena, "%" PRIu32, r.n_lets))) {
            kf_lex_fail(lx, KF_E0501, before.tok.loc,
                        "shared values are numbered %%0, %%1, ... in order");
            return NULL;
        }
        if (!read_expr(&r, &value) || !kf_lex_expect(lx, ","))
            return NULL;
        r.let[r.n_lets++] = value; /* only now: a value cannot use itself */
    }
    if (!read_expr(&r, &value) || !kf_lex_expect(lx, "}"))
        return NULL;
    return kf_slot_finish(r.b, value);
}
