/* SPDX-License-Identifier: Apache-2.0 */
/* lex - hand-written tokens of .kir text; comments run from ';' to the end of the line. */
#include "ir/lex.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NUMBER_CHARS = 64 };

void kf_lex_start(kf_lexer *lx, kf_arena *arena, kf_diags *d, kf_str path, kf_str text)
{
    *lx = (kf_lexer){.arena = arena,
                     .diags = d,
                     .file = kf_diags_add_file(d, path, text),
                     .at = text.ptr,
                     .end = text.ptr + text.len,
                     .line_start = text.ptr,
                     .line = 1};
    kf_lex_next(lx);
}

bool kf_lex_fail(kf_lexer *lx, kf_diag_code code, kf_loc loc, const char *fmt, ...)
{
    if (!lx->failed) {
        va_list ap;
        kf_sbuf text = {.arena = lx->arena};
        va_start(ap, fmt);
        kf_sbuf_vprintf(&text, fmt, ap);
        va_end(ap);
        kf_diag_add(lx->diags, code, loc, "%s", text.ptr);
        lx->failed = true;
    }
    lx->at = lx->end;
    lx->tok = (kf_token){.kind = KF_TOK_END, .text = KF_STR("end of text"), .loc = loc};
    return false;
}

static bool is_word(int c)
{
    return isalnum(c) || c == '_';
}

static int peek(const kf_lexer *lx, int ahead)
{
    return lx->end - lx->at > ahead ? (unsigned char)lx->at[ahead] : -1;
}

static void skip_blank(kf_lexer *lx)
{
    for (; lx->at < lx->end; lx->at++) {
        if (*lx->at == '\n') {
            lx->line++;
            lx->line_start = lx->at + 1;
        } else if (*lx->at == ';') {
            while (peek(lx, 1) >= 0 && peek(lx, 1) != '\n')
                lx->at++;
        } else if (*lx->at != ' ' && *lx->at != '\t' && *lx->at != '\r') {
            return;
        }
    }
}

static kf_str word_at(kf_lexer *lx)
{
    const char *start = lx->at;
    while (is_word(peek(lx, 0)) || (peek(lx, 0) == '.' && is_word(peek(lx, 1))))
        lx->at++;
    return (kf_str){start, (uint32_t)(lx->at - start)};
}

/* Escapes: the letter and, at the same place, what it stands for. */
static const char escape_letters[] = "nrt\"\\";
static const char escape_values[] = "\n\r\t\"\\";

/* One character of a string behind the backslash. */
static bool read_escape(kf_lexer *lx, char *out)
{
    int c = peek(lx, 0);
    if (c >= '0' && c <= '3') {
        int value = 0;
        for (int i = 0; i < 3; i++, lx->at++) {
            if (peek(lx, 0) < '0' || peek(lx, 0) > '7')
                return false;
            value = value * 8 + (*lx->at - '0');
        }
        *out = (char)value;
        return true;
    }
    lx->at++;
    const char *found = c > 0 ? strchr(escape_letters, c) : NULL;
    if (!found)
        return false;
    *out = escape_values[found - escape_letters];
    return true;
}

static void read_string(kf_lexer *lx)
{
    kf_sbuf text = {.arena = lx->arena};
    kf_loc loc = lx->tok.loc;
    lx->at++;
    while (peek(lx, 0) != '"') {
        if (peek(lx, 0) < 0 || peek(lx, 0) == '\n') {
            kf_lex_fail(lx, KF_E0501, loc, "string without an end");
            return;
        }
        char c = *lx->at++;
        if (c == '\\' && !read_escape(lx, &c)) {
            kf_lex_fail(lx, KF_E0501, loc, "unknown escape in a string");
            return;
        }
        kf_sbuf_char(&text, c);
    }
    lx->at++;
    lx->tok.text = text.len ? kf_sbuf_view(&text) : KF_STR("");
}

static void read_number(kf_lexer *lx)
{
    const char *start = lx->at;
    bool is_int = true;
    if (*lx->at == '-')
        lx->at++;
    if (isalpha(peek(lx, 0))) { /* -inf */
        word_at(lx);
        is_int = false;
    }
    while (isdigit(peek(lx, 0)))
        lx->at++;
    if (peek(lx, 0) == '.' && isdigit(peek(lx, 1))) {
        is_int = false;
        for (lx->at++; isdigit(peek(lx, 0));)
            lx->at++;
    }
    int sign = peek(lx, 1) == '-' || peek(lx, 1) == '+';
    if ((peek(lx, 0) == 'e' || peek(lx, 0) == 'E') && isdigit(peek(lx, 1 + sign))) {
        is_int = false;
        for (lx->at += 1 + sign; isdigit(peek(lx, 0));)
            lx->at++;
    }
    char text[MAX_NUMBER_CHARS];
    size_t n = (size_t)(lx->at - start);
    if (n >= sizeof text || is_word(peek(lx, 0))) {
        kf_lex_fail(lx, KF_E0501, lx->tok.loc, "malformed number");
        return;
    }
    memcpy(text, start, n);
    text[n] = '\0';
    char *stop = NULL;
    errno = 0;
    lx->tok.int_value = is_int ? strtoll(text, &stop, 10) : 0;
    lx->tok.is_int = is_int && errno == 0;
    lx->tok.num = strtod(text, &stop);
    if (*stop)
        kf_lex_fail(lx, KF_E0501, lx->tok.loc, "malformed number");
}

static void read_value(kf_lexer *lx)
{
    lx->at++;
    if (peek(lx, 0) == '"') {
        read_string(lx);
        /* %"7" is a name, %7 a number: names never start with a digit unless marked. */
        lx->tok.is_int = false;
        return;
    }
    lx->tok.is_int = isdigit(peek(lx, 0));
    lx->tok.text = word_at(lx);
    if (!lx->tok.text.len)
        kf_lex_fail(lx, KF_E0501, lx->tok.loc, "a name or a number follows '%%'");
}

void kf_lex_next(kf_lexer *lx)
{
    if (lx->failed)
        return;
    skip_blank(lx);
    kf_loc loc = {lx->file, lx->line, (uint32_t)(lx->at - lx->line_start) + 1, 1};
    lx->tok = (kf_token){.kind = KF_TOK_END, .text = KF_STR("end of text"), .loc = loc};
    int c = peek(lx, 0);
    const char *start = lx->at;
    if (c < 0)
        return;
    if (isalpha(c) || c == '_') {
        lx->tok.kind = KF_TOK_IDENT;
        lx->tok.text = word_at(lx);
    } else if (isdigit(c) || (c == '-' && (isdigit(peek(lx, 1)) || peek(lx, 1) == 'i'))) {
        lx->tok.kind = KF_TOK_NUMBER;
        read_number(lx);
        lx->tok.text = (kf_str){start, (uint32_t)(lx->at - start)};
    } else if (c == '"') {
        lx->tok.kind = KF_TOK_STRING;
        read_string(lx);
    } else if (c == '%') {
        lx->tok.kind = KF_TOK_VALUE;
        read_value(lx);
    } else {
        bool two = (c == '-' && peek(lx, 1) == '>') || (c == '.' && peek(lx, 1) == '.');
        lx->tok.kind = KF_TOK_PUNCT;
        lx->tok.text = (kf_str){lx->at, two ? 2 : 1};
        lx->at += two ? 2 : 1;
    }
    if (lx->failed) { /* the failing token ends the text */
        lx->tok = (kf_token){.kind = KF_TOK_END, .text = KF_STR("end of text"), .loc = loc};
        return;
    }
    lx->tok.loc.len = (uint32_t)(lx->at - start);
}

bool kf_lex_is(const kf_lexer *lx, const char *punct_or_word)
{
    return (lx->tok.kind == KF_TOK_PUNCT || lx->tok.kind == KF_TOK_IDENT) &&
           kf_str_eq_c(lx->tok.text, punct_or_word);
}

bool kf_lex_accept(kf_lexer *lx, const char *punct_or_word)
{
    if (!kf_lex_is(lx, punct_or_word))
        return false;
    kf_lex_next(lx);
    return true;
}

bool kf_lex_expect(kf_lexer *lx, const char *punct_or_word)
{
    return kf_lex_accept(lx, punct_or_word) ||
           kf_lex_fail(lx, KF_E0501, lx->tok.loc, "expected '%s', found '%.*s'", punct_or_word,
                       KF_STR_ARG(lx->tok.text));
}

static bool take(kf_lexer *lx, bool fits, const char *what, kf_str *out)
{
    if (!fits)
        return kf_lex_fail(lx, KF_E0501, lx->tok.loc, "expected %s, found '%.*s'", what,
                           KF_STR_ARG(lx->tok.text));
    *out = lx->tok.text;
    kf_lex_next(lx);
    return true;
}

bool kf_lex_ident(kf_lexer *lx, kf_str *out)
{
    return take(lx, lx->tok.kind == KF_TOK_IDENT, "a word", out);
}

bool kf_lex_name(kf_lexer *lx, kf_str *out)
{
    return take(lx, lx->tok.kind == KF_TOK_IDENT || lx->tok.kind == KF_TOK_STRING, "a name", out);
}

bool kf_lex_string(kf_lexer *lx, kf_str *out)
{
    return take(lx, lx->tok.kind == KF_TOK_STRING, "a string", out);
}

bool kf_lex_int(kf_lexer *lx, int64_t lo, int64_t hi, int64_t *out)
{
    if (lx->tok.kind != KF_TOK_NUMBER || !lx->tok.is_int || lx->tok.int_value < lo ||
        lx->tok.int_value > hi)
        return kf_lex_fail(lx, KF_E0501, lx->tok.loc,
                           "expected a whole number from %" PRId64 " to %" PRId64 ", found '%.*s'",
                           lo, hi, KF_STR_ARG(lx->tok.text));
    *out = lx->tok.int_value;
    kf_lex_next(lx);
    return true;
}

bool kf_lex_num(kf_lexer *lx, double *out)
{
    if (lx->tok.kind == KF_TOK_NUMBER) {
        *out = lx->tok.num;
    } else if (kf_lex_is(lx, "inf")) {
        *out = INFINITY;
    } else if (kf_lex_is(lx, "nan")) {
        *out = NAN;
    } else {
        return kf_lex_fail(lx, KF_E0501, lx->tok.loc, "expected a number, found '%.*s'",
                           KF_STR_ARG(lx->tok.text));
    }
    kf_lex_next(lx);
    return true;
}
