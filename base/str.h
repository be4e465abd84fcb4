/* SPDX-License-Identifier: Apache-2.0 */
/* str - strings of the compiler: a pointer and a length, NUL-terminated when made here, never
 * owned.
 *
 * Interned strings compare by pointer. kf_sbuf builds text piece by piece; it is what every printer
 * uses.
 */
#ifndef KF_BASE_STR_H
#define KF_BASE_STR_H

#include "base/arena.h"

#include <stdarg.h>
#include <stdbool.h>

typedef struct kf_str {
    const char *ptr;
    uint32_t len;
} kf_str;

#define KF_STR(lit) ((kf_str){(lit), sizeof(lit) - 1})
/** printf arguments for "%.*s". */
#define KF_STR_ARG(s) (int)(s).len, (s).ptr

kf_str kf_str_from(const char *cstr);
bool kf_str_eq(kf_str a, kf_str b);
bool kf_str_eq_c(kf_str a, const char *b);
bool kf_str_starts_with(kf_str s, const char *prefix);
/** Orders like strcmp over bytes. */
int kf_str_cmp(kf_str a, kf_str b);

/** Copies |s| into the arena with a terminating NUL. */
kf_str kf_str_dup(kf_arena *arena, kf_str s);
kf_str kf_strf(kf_arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** |s| without spaces and tabs at its ends. */
kf_str kf_str_trim(kf_str s);

/** Optimal string alignment (Damerau-Levenshtein with adjacent swaps), capped at |limit| + 1.
 * Different strings of more than 64 bytes count as |limit| + 1 apart. */
uint32_t kf_str_distance(kf_str a, kf_str b, uint32_t limit);

/** Nearest of |n| candidates within distance 2 and half the length of |s| (ties: first), or an
 * empty string. For did-you-mean. */
kf_str kf_str_nearest(kf_str s, const kf_str *candidates, uint32_t n);

/** Growable text. Zero-initialise with .arena set; .ptr is NUL-terminated after any append. */
typedef struct kf_sbuf {
    kf_arena *arena;
    char *ptr;
    uint32_t len;
    uint32_t cap;
} kf_sbuf;

void kf_sbuf_str(kf_sbuf *b, kf_str s);
void kf_sbuf_c(kf_sbuf *b, const char *cstr);
void kf_sbuf_char(kf_sbuf *b, char c);
void kf_sbuf_printf(kf_sbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void kf_sbuf_vprintf(kf_sbuf *b, const char *fmt, va_list ap);
/** Shortest decimal text that reads back as the same double ("1e-05", "0.17677669", "inf", "nan").
 */
void kf_sbuf_double(kf_sbuf *b, double v);
/** The string with quotes and C escapes (\" \\ \n \t \r, other controls as three octal digits), as
 * every textual form of Kerf writes strings. */
void kf_sbuf_quoted(kf_sbuf *b, kf_str s);
kf_str kf_sbuf_view(const kf_sbuf *b);

#endif
