/* SPDX-License-Identifier: Apache-2.0 */
/* lex - tokens of .kir text, and the parser state that the files reading .kir share.
 *
 * The first error stops reading: every later token is KF_TOK_END, so that callers simply unwind.
 */
#ifndef KF_IR_LEX_H
#define KF_IR_LEX_H

#include "ir/graph.h"

typedef enum kf_tok {
    KF_TOK_END,
    KF_TOK_IDENT,  /* text */
    KF_TOK_NUMBER, /* num; is_int and int_value if it is one */
    KF_TOK_STRING, /* text, escapes resolved */
    KF_TOK_VALUE,  /* %name, %12 or %"any": text without % */
    KF_TOK_PUNCT   /* text: one character, "->" or ".." */
} kf_tok;

typedef struct kf_token {
    kf_tok kind;
    kf_str text;
    double num;
    int64_t int_value;
    bool is_int;
    kf_loc loc;
} kf_token;

/** Zero-initialise but for arena, diags, file, at and end; then kf_lex_next once. */
typedef struct kf_lexer {
    kf_arena *arena;
    kf_diags *diags;
    uint32_t file;
    const char *at, *end;
    const char *line_start;
    uint32_t line;
    kf_token tok; /* the token not yet taken */
    bool failed;
} kf_lexer;

void kf_lex_start(kf_lexer *lx, kf_arena *arena, kf_diags *d, kf_str path, kf_str text);
void kf_lex_next(kf_lexer *lx);
/** Reports at |loc| (only the first time) and ends the text. Returns false. */
bool kf_lex_fail(kf_lexer *lx, kf_diag_code code, kf_loc loc, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

bool kf_lex_is(const kf_lexer *lx, const char *punct_or_word);
/** Takes the token if it is this punctuation or word. */
bool kf_lex_accept(kf_lexer *lx, const char *punct_or_word);
/** As accept, but it must be there. */
bool kf_lex_expect(kf_lexer *lx, const char *punct_or_word);
bool kf_lex_ident(kf_lexer *lx, kf_str *out);
/** An identifier or a string. */
bool kf_lex_name(kf_lexer *lx, kf_str *out);
bool kf_lex_string(kf_lexer *lx, kf_str *out);
bool kf_lex_int(kf_lexer *lx, int64_t lo, int64_t hi, int64_t *out);
/** A number; also inf, -inf and nan. */
bool kf_lex_num(kf_lexer *lx, double *out);

#endif
