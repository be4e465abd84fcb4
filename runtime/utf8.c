/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/utf8.h"

#include <string.h>

/* Bounds of the second byte by lead byte, after table 3-7 of the Unicode Standard. */
static void second_byte_bounds(uint8_t lead, uint8_t *out_lo, uint8_t *out_hi)
{
    *out_lo = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *out_hi = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
}

uint32_t kf_utf8_decode(const char *s, size_t n, uint32_t *out_cp)
{
    const uint8_t *p = (const uint8_t *)s;
    *out_cp = n > 0 ? 1 : 0;
    if (n == 0)
        return 0;
    if (p[0] < 0x80) {
        *out_cp = p[0];
        return 1;
    }
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return 0;
    uint32_t len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    uint32_t cp = p[0] & (0x7Fu >> len);
    uint8_t lo, hi;
    second_byte_bounds(p[0], &lo, &hi);
    for (uint32_t i = 1; i < len; i++) {
        if (i >= n || p[i] < lo || p[i] > hi) {
            *out_cp = i;
            return 0;
        }
        cp = cp << 6 | (p[i] & 0x3Fu);
        lo = 0x80;
        hi = 0xBF;
    }
    *out_cp = cp;
    return len;
}

uint32_t kf_utf8_next(const char *s, uint32_t *out_cp)
{
    const uint8_t *p = (const uint8_t *)s;
    if (p[0] < 0x80) {
        *out_cp = p[0];
        return 1;
    }
    if (p[0] < 0xE0) {
        *out_cp = (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
        return 2;
    }
    if (p[0] < 0xF0) {
        *out_cp = (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
        return 3;
    }
    *out_cp = (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    return 4;
}

uint32_t kf_utf8_encode(uint32_t cp, char *out)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

/* Length of the longest well-formed prefix; |n| when all of it is. */
static size_t valid_prefix(const char *s, size_t n)
{
    size_t at = 0;
    while (at < n) {
        uint64_t word;
        if (at + 8 <= n && (memcpy(&word, s + at, 8), (word & UINT64_C(0x8080808080808080)) == 0)) {
            at += 8;
            continue;
        }
        uint32_t cp;
        uint32_t len = kf_utf8_decode(s + at, n - at, &cp);
        if (len == 0)
            break;
        at += len;
    }
    return at;
}

bool kf_utf8_valid(const char *s, size_t n)
{
    return valid_prefix(s, n) == n;
}

bool kf_utf8_is_incomplete(const char *s, size_t n)
{
    uint32_t bad;
    if (n == 0 || n > 3 || kf_utf8_decode(s, n, &bad) != 0 || bad != n)
        return false;
    /* A byte that cannot lead has a maximal subpart of 1, too. */
    return n > 1 || ((uint8_t)s[0] >= 0xC2 && (uint8_t)s[0] <= 0xF4);
}

/* Completes or rejects the held beginning with the bytes at *s; false if the sink stops. */
static bool resolve_held(kf_utf8_lossy *st, const char **s, size_t *n, kf_utf8_sink sink,
                         void *user)
{
    while (st->n_held > 0 && *n > 0) {
        char buf[4];
        uint32_t cp;
        memcpy(buf, st->held, st->n_held);
        buf[st->n_held] = **s;
        uint32_t len = kf_utf8_decode(buf, st->n_held + 1, &cp);
        if (len == 0 && cp == st->n_held) { /* the new byte does not continue it */
            st->n_held = 0;
            return sink(user, KF_UTF8_REPLACEMENT, 3);
        }
        st->held[st->n_held++] = **s;
        (*s)++;
        (*n)--;
        if (len > 0) {
            st->n_held = 0;
            return sink(user, buf, len);
        }
    }
    return true;
}

bool kf_utf8_lossy_feed(kf_utf8_lossy *state, const char *s, size_t n, kf_utf8_sink sink,
                        void *user)
{
    if (!resolve_held(state, &s, &n, sink, user))
        return false;
    while (n > 0) {
        size_t good = valid_prefix(s, n);
        if (good > 0 && !sink(user, s, good))
            return false;
        s += good;
        n -= good;
        if (n == 0)
            return true;
        if (kf_utf8_is_incomplete(s, n)) {
            memcpy(state->held, s, n);
            state->n_held = (uint32_t)n;
            return true;
        }
        uint32_t bad;
        (void)kf_utf8_decode(s, n, &bad);
        if (!sink(user, KF_UTF8_REPLACEMENT, 3))
            return false;
        s += bad;
        n -= bad;
    }
    return true;
}

bool kf_utf8_lossy_finish(kf_utf8_lossy *state, kf_utf8_sink sink, void *user)
{
    if (state->n_held == 0)
        return true;
    state->n_held = 0;
    return sink(user, KF_UTF8_REPLACEMENT, 3);
}
