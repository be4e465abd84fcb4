/* SPDX-License-Identifier: Apache-2.0 */
/* json - the writer: two spaces of indentation, one item a line, valid UTF-8 whatever comes in. */
#include "base/json.h"

#include "base/check.h"

#include <math.h>

static void newline(kf_json *j)
{
    kf_sbuf_char(j->out, '\n');
    for (uint32_t i = 0; i < j->depth; i++)
        kf_sbuf_c(j->out, "  ");
}

/* What must stand between the previous text and the next key or value. */
static void separate(kf_json *j)
{
    if (j->after_key) {
        j->after_key = false;
        return;
    }
    if (j->depth == 0)
        return;
    if (j->has_items[j->depth])
        kf_sbuf_char(j->out, ',');
    j->has_items[j->depth] = true;
    newline(j);
}

/* Length of the well-formed UTF-8 sequence at s[i], 0 if there is none (Unicode 15, table 3-7). */
static uint32_t utf8_len(kf_str s, uint32_t i)
{
    const unsigned char *p = (const unsigned char *)s.ptr + i;
    uint32_t left = s.len - i;
    if (p[0] < 0x80)
        return 1;
    uint32_t n = p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (p[0] < 0xc2 || p[0] > 0xf4 || left < n)
        return 0;
    for (uint32_t k = 1; k < n; k++) {
        if ((p[k] & 0xc0) != 0x80)
            return 0;
    }
    bool bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
               (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : n;
}

static void append_string(kf_sbuf *out, kf_str s)
{
    kf_sbuf_char(out, '"');
    for (uint32_t i = 0; i < s.len;) {
        unsigned char c = (unsigned char)s.ptr[i];
        uint32_t n = utf8_len(s, i);
        if (n == 0)
            kf_sbuf_c(out, "\\ufffd");
        else if (c == '"' || c == '\\')
            kf_sbuf_printf(out, "\\%c", c);
        else if (c == '\n')
            kf_sbuf_c(out, "\\n");
        else if (c < 0x20)
            kf_sbuf_printf(out, "\\u%04x", c);
        else
            kf_sbuf_str(out, (kf_str){s.ptr + i, n});
        i += n ? n : 1;
    }
    kf_sbuf_char(out, '"');
}

void kf_json_open(kf_json *j, char bracket)
{
    KF_ASSERT(bracket == '{' || bracket == '[', "a JSON container opens with { or [");
    KF_ASSERT(j->depth + 1 < KF_JSON_MAX_DEPTH, "JSON output nests less than 64 deep");
    separate(j);
    kf_sbuf_char(j->out, bracket);
    j->has_items[++j->depth] = false;
}

void kf_json_close(kf_json *j, char bracket)
{
    KF_ASSERT(bracket == '}' || bracket == ']', "a JSON container closes with } or ]");
    KF_ASSERT(j->depth > 0 && !j->after_key,
              "a JSON container is open and its last key has a value");
    bool had_items = j->has_items[j->depth--];
    if (had_items)
        newline(j);
    kf_sbuf_char(j->out, bracket);
    if (j->depth == 0)
        kf_sbuf_char(j->out, '\n');
}

void kf_json_key(kf_json *j, const char *key)
{
    KF_ASSERT(!j->after_key, "a JSON key is followed by a value");
    separate(j);
    append_string(j->out, kf_str_from(key));
    kf_sbuf_c(j->out, ": ");
    j->after_key = true;
}

void kf_json_str(kf_json *j, kf_str s)
{
    separate(j);
    append_string(j->out, s);
}

void kf_json_c(kf_json *j, const char *s)
{
    kf_json_str(j, kf_str_from(s));
}

void kf_json_int(kf_json *j, int64_t v)
{
    separate(j);
    kf_sbuf_printf(j->out, "%lld", (long long)v);
}

void kf_json_null(kf_json *j)
{
    separate(j);
    kf_sbuf_c(j->out, "null");
}

void kf_json_kstr(kf_json *j, const char *key, kf_str s)
{
    kf_json_key(j, key);
    kf_json_str(j, s);
}

void kf_json_kint(kf_json *j, const char *key, int64_t v)
{
    kf_json_key(j, key);
    kf_json_int(j, v);
}

void kf_json_kdouble(kf_json *j, const char *key, double v)
{
    kf_json_key(j, key);
    if (!isfinite(v)) {
        kf_json_null(j);
        return;
    }
    separate(j);
    kf_sbuf_double(j->out, v);
}

void kf_json_kbool(kf_json *j, const char *key, bool v)
{
    kf_json_key(j, key);
    separate(j);
    kf_sbuf_c(j->out, v ? "true" : "false");
}
