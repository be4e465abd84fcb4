/* SPDX-License-Identifier: Apache-2.0 */
/* str - comparison, copies, spelling distance and the text builder. */
#include "base/str.h"

#include "base/check.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DISTANCE_LEN = 64, FIRST_SBUF_BYTES = 64 };

/* ---- views ----------------------------------------------------------------------------------- */

kf_str kf_str_from(const char *cstr)
{
    return (kf_str){cstr, (uint32_t)strlen(cstr)};
}

bool kf_str_eq(kf_str a, kf_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool kf_str_eq_c(kf_str a, const char *b)
{
    return kf_str_eq(a, kf_str_from(b));
}

bool kf_str_starts_with(kf_str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.len >= n && (n == 0 || memcmp(s.ptr, prefix, n) == 0);
}

int kf_str_cmp(kf_str a, kf_str b)
{
    uint32_t n = a.len < b.len ? a.len : b.len;
    int order = n ? memcmp(a.ptr, b.ptr, n) : 0;
    if (order)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

kf_str kf_str_dup(kf_arena *arena, kf_str s)
{
    char *copy = kf_arena_alloc(arena, (size_t)s.len + 1, 1);
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    return (kf_str){copy, s.len};
}

kf_str kf_strf(kf_arena *arena, const char *fmt, ...)
{
    kf_sbuf b = {.arena = arena};
    va_list ap;
    va_start(ap, fmt);
    kf_sbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    return kf_sbuf_view(&b);
}

/* ---- spelling -------------------------------------------------------------------------------- */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

uint32_t kf_str_distance(kf_str a, kf_str b, uint32_t limit)
{
    uint32_t gap = a.len > b.len ? a.len - b.len : b.len - a.len;
    if (kf_str_eq(a, b))
        return 0;
    if (gap > limit || a.len > MAX_DISTANCE_LEN || b.len > MAX_DISTANCE_LEN)
        return limit + 1;
    /* Three rows of the dynamic program of Wagner and Fischer (1974), with the adjacent swap of
     * Damerau; rows[i % 3][j] = distance of a[0..i) and b[0..j). */
    uint32_t rows[3][MAX_DISTANCE_LEN + 1] = {{0}};
    for (uint32_t j = 0; j <= b.len; j++)
        rows[0][j] = j;
    for (uint32_t i = 1; i <= a.len; i++) {
        uint32_t *now = rows[i % 3];
        const uint32_t *before = rows[(i + 2) % 3];
        now[0] = i;
        for (uint32_t j = 1; j <= b.len; j++) {
            uint32_t change = before[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);
            now[j] = min_u32(min_u32(before[j], now[j - 1]) + 1, change);
            bool swapped =
                i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1];
            if (swapped)
                now[j] = min_u32(now[j], rows[(i + 1) % 3][j - 2] + 1);
        }
    }
    return min_u32(rows[a.len % 3][b.len], limit + 1);
}

kf_str kf_str_nearest(kf_str s, const kf_str *candidates, uint32_t n)
{
    kf_str best = {"", 0};
    /* Half the letters must stay: otherwise any two-letter word is near any other. */
    uint32_t best_distance = min_u32(2, s.len / 2) + 1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t distance = kf_str_distance(s, candidates[i], 2);
        if (distance < best_distance) {
            best = candidates[i];
            best_distance = distance;
        }
    }
    return best;
}

/* ---- text builder ---------------------------------------------------------------------------- */

/* Makes room for |more| bytes and the terminating NUL. */
static void sbuf_reserve(kf_sbuf *b, size_t more)
{
    size_t need = (size_t)b->len + more + 1;
    if (need <= b->cap)
        return;
    KF_ASSERT(need <= UINT32_MAX / 2, "a text builder holds at most 2 GiB");
    size_t cap = b->cap ? b->cap : FIRST_SBUF_BYTES;
    while (cap < need)
        cap *= 2;
    b->ptr = kf_arena_grow(b->arena, b->ptr, b->cap, cap, 1);
    b->cap = (uint32_t)cap;
}

void kf_sbuf_str(kf_sbuf *b, kf_str s)
{
    sbuf_reserve(b, s.len);
    if (s.len)
        memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += s.len;
    b->ptr[b->len] = '\0';
}

void kf_sbuf_c(kf_sbuf *b, const char *cstr)
{
    kf_sbuf_str(b, kf_str_from(cstr));
}

void kf_sbuf_char(kf_sbuf *b, char c)
{
    sbuf_reserve(b, 1);
    b->ptr[b->len++] = c;
    b->ptr[b->len] = '\0';
}

void kf_sbuf_printf(kf_sbuf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    kf_sbuf_vprintf(b, fmt, ap);
    va_end(ap);
}

void kf_sbuf_vprintf(kf_sbuf *b, const char *fmt, va_list ap)
{
    va_list again;

    sbuf_reserve(b, 0);
    uint32_t left = b->cap - b->len;
    va_copy(again, ap);
    int n = vsnprintf(b->ptr + b->len, left, fmt, ap);
    KF_ASSERT(n >= 0, "a printf format is valid");
    if ((uint32_t)n >= left) {
        sbuf_reserve(b, (size_t)n);
        vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    b->len += (uint32_t)n;
}

/* "inf", "-inf" and "nan" do not depend on the C library's spelling. */
void kf_sbuf_double(kf_sbuf *b, double v)
{
    char text[40];
    if (!isfinite(v)) {
        kf_sbuf_c(b, isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
        return;
    }
    /* A normal number that has a form of <= DBL_DIG digits gets it from DBL_DIG digits with
     * trailing zeros dropped; subnormal ones have fewer correct digits. */
    int digits = v == 0 || fabs(v) >= DBL_MIN ? DBL_DIG : 1;
    do
        snprintf(text, sizeof text, "%.*g", digits, v);
    while (strtod(text, NULL) != v && ++digits <= DBL_DECIMAL_DIG);
    kf_sbuf_c(b, text);
}

static const char *short_escape(unsigned char c)
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\t':
        return "\\t";
    case '\r':
        return "\\r";
    default:
        return NULL;
    }
}

void kf_sbuf_quoted(kf_sbuf *b, kf_str s)
{
    uint32_t plain = 0; /* first character not yet written */

    kf_sbuf_char(b, '"');
    for (uint32_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        const char *escape = short_escape(c);
        if (!escape && c >= 0x20 && c != 0x7f)
            continue;
        kf_sbuf_str(b, (kf_str){s.ptr + plain, i - plain});
        plain = i + 1;
        if (escape)
            kf_sbuf_c(b, escape);
        else
            kf_sbuf_printf(b, "\\%03o", c); /* three octal digits end by themselves; \x does not */
    }
    if (s.len)
        kf_sbuf_str(b, (kf_str){s.ptr + plain, s.len - plain});
    kf_sbuf_char(b, '"');
}

kf_str kf_sbuf_view(const kf_sbuf *b)
{
    return b->ptr ? (kf_str){b->ptr, b->len} : (kf_str){"", 0};
}

kf_str kf_str_trim(kf_str s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = (kf_str){s.ptr + 1, s.len - 1};
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}
