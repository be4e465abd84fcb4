/* SPDX-License-Identifier: Apache-2.0 */
/* json_events - strict JSON (RFC 8259) as events of the builder, so that values keep their places.
 *
 * Not through libyaml although JSON is nearly YAML: libyaml refuses \u surrogate pairs and keys of
 * more than 1,024 characters, and accepts what is not JSON. jansson is strict but forgets
 * positions.
 */
#include "frontend/yaml_build.h"

#include <string.h>

typedef struct json_reader {
    kf_yaml_builder *b;
    kf_str text;
    uint32_t at;
} json_reader;

static bool json_error(json_reader *r, const char *what)
{
    if (r->at >= r->text.len)
        return kf_yaml_fail(r->b, KF_E0301, kf_yaml_place(r->b, r->at, r->at),
                            "the text ends where %s is expected", what);
    return kf_yaml_fail(r->b, KF_E0301, kf_yaml_place(r->b, r->at, r->at + 1), "expected %s", what);
}

static char peek(json_reader *r)
{
    while (r->at < r->text.len && strchr(" \t\r\n", r->text.ptr[r->at]) != NULL)
        r->at++;
    return r->at < r->text.len ? r->text.ptr[r->at] : '\0';
}

static int hex4(const json_reader *r, uint32_t at)
{
    int v = 0;
    if (at + 4 > r->text.len)
        return -1;
    for (uint32_t i = at; i < at + 4; i++) {
        char c = r->text.ptr[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

static void append_utf8(kf_sbuf *out, uint32_t cp)
{
    if (cp < 0x80) {
        kf_sbuf_char(out, (char)cp);
        return;
    }
    uint32_t n = cp < 0x800 ? 1 : cp < 0x10000 ? 2 : 3; /* continuation bytes */
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    kf_sbuf_char(out, (char)(lead[n] | cp >> (6 * n)));
    while (n-- > 0)
        kf_sbuf_char(out, (char)(0x80 | (cp >> (6 * n) & 0x3f)));
}

/** At the backslash of "\uXXXX"; consumes the second half of a pair too. */
static bool unicode_escape(json_reader *r, kf_sbuf *out)
{
    int hi = hex4(r, r->at + 2);
    if (hi < 0)
        return json_error(r, "four hexadecimal digits after '\\u'");
    uint32_t cp = (uint32_t)hi;
    if (cp >= 0xd800 && cp < 0xdc00) {
        bool follows = r->at + 8 <= r->text.len && r->text.ptr[r->at + 6] == '\\' &&
                       r->text.ptr[r->at + 7] == 'u';
        int lo = follows ? hex4(r, r->at + 8) : -1;
        if (lo < 0xdc00 || lo > 0xdfff)
            return json_error(r, "the second half of a surrogate pair");
        cp = 0x10000 + ((cp - 0xd800) << 10) + ((uint32_t)lo - 0xdc00);
        r->at += 6;
    } else if (cp >= 0xdc00 && cp < 0xe000) {
        return json_error(r, "a surrogate pair (this is only its second half)");
    }
    append_utf8(out, cp);
    r->at += 6;
    return true;
}

static bool escape(json_reader *r, kf_sbuf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = r->at + 1 < r->text.len ? r->text.ptr[r->at + 1] : '\0';
    if (c == 'u')
        return unicode_escape(r, out);
    const char *hit = c != '\0' ? strchr(from, c) : NULL;
    if (hit == NULL)
        return json_error(r, "a JSON escape");
    kf_sbuf_char(out, to[hit - from]);
    r->at += 2;
    return true;
}

static bool read_string(json_reader *r)
{
    uint32_t begin = r->at++;
    kf_sbuf out = {.arena = r->b->arena};
    bool verbatim = true;
    for (;;) {
        if (r->at >= r->text.len)
            return json_error(r, "a closing '\"'");
        char c = r->text.ptr[r->at];
        if (c == '"')
            break;
        if ((uint8_t)c < 0x20)
            return json_error(r, "an escape instead of a control character");
        if (c == '\\') {
            verbatim = false;
            if (!escape(r, &out))
                return false;
            continue;
        }
        uint32_t from = r->at;
        while (r->at < r->text.len && (uint8_t)r->text.ptr[r->at] >= 0x20 &&
               r->text.ptr[r->at] != '"' && r->text.ptr[r->at] != '\\')
            r->at++;
        kf_sbuf_str(&out, (kf_str){r->text.ptr + from, r->at - from});
    }
    r->at++;
    kf_str value = out.len > 0 ? kf_sbuf_view(&out) : KF_STR("");
    return kf_yaml_on_scalar(r->b, kf_yaml_place(r->b, begin, r->at), value, true, verbatim,
                             KF_STR(""));
}

static bool digits(json_reader *r)
{
    uint32_t from = r->at;
    while (r->at < r->text.len && r->text.ptr[r->at] >= '0' && r->text.ptr[r->at] <= '9')
        r->at++;
    return r->at > from || json_error(r, "a digit");
}

static bool at_char(const json_reader *r, const char *set)
{
    return r->at < r->text.len && strchr(set, r->text.ptr[r->at]) != NULL;
}

static bool read_number(json_reader *r)
{
    uint32_t begin = r->at;
    r->at += at_char(r, "-");
    bool zero = at_char(r, "0");
    uint32_t int_begin = r->at;
    if (!digits(r))
        return false;
    if (zero && r->at > int_begin + 1) {
        r->at = int_begin;
        return json_error(r, "a number without leading zeros");
    }
    if (at_char(r, ".")) {
        r->at++;
        if (!digits(r))
            return false;
    }
    if (at_char(r, "eE")) {
        r->at++;
        r->at += at_char(r, "+-");
        if (!digits(r))
            return false;
    }
    return kf_yaml_on_scalar(r->b, kf_yaml_place(r->b, begin, r->at),
                             (kf_str){r->text.ptr + begin, r->at - begin}, false, true, KF_STR(""));
}

static bool read_word(json_reader *r)
{
    static const kf_str words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
    for (uint32_t i = 0; i < 3; i++) {
        kf_str rest = {r->text.ptr + r->at, r->text.len - r->at};
        if (!kf_str_starts_with(rest, words[i].ptr))
            continue;
        uint32_t begin = r->at;
        r->at += words[i].len;
        return kf_yaml_on_scalar(r->b, kf_yaml_place(r->b, begin, r->at), words[i], false, true,
                                 KF_STR(""));
    }
    return json_error(r, "a JSON value");
}

/** A scalar, or the opening of a collection. */
static bool read_value_start(json_reader *r)
{
    char c = peek(r);
    if (c == '{' || c == '[') {
        kf_loc loc = kf_yaml_place(r->b, r->at, r->at + 1);
        r->at++;
        return kf_yaml_on_start(r->b, loc, c == '{' ? KF_YAML_MAP : KF_YAML_SEQ, KF_STR(""));
    }
    if (c == '"')
        return read_string(r);
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(r);
    return read_word(r);
}

static bool read_key(json_reader *r)
{
    if (peek(r) != '"')
        return json_error(r, "a key in double quotes");
    if (!read_string(r))
        return false;
    if (peek(r) != ':')
        return json_error(r, "':' after the key");
    r->at++;
    return true;
}

static bool close_collection(json_reader *r)
{
    kf_loc loc = kf_yaml_place(r->b, r->at, r->at + 1);
    r->at++;
    return kf_yaml_on_end(r->b, loc);
}

/** After a value: closes what ends here, then takes the comma. False: stop (end or error). */
static bool read_separators(json_reader *r)
{
    while (r->b->depth > 0) {
        bool is_map = r->b->frames[r->b->depth - 1].node->kind == KF_YAML_MAP;
        char c = peek(r);
        if (c == ',') {
            r->at++;
            return !is_map || read_key(r);
        }
        if (c != (is_map ? '}' : ']'))
            return json_error(r, is_map ? "',' or '}'" : "',' or ']'");
        if (!close_collection(r))
            return false;
    }
    peek(r);
    if (r->at < r->text.len)
        json_error(r, "the end of the text");
    return false;
}

void kf_json_events(kf_yaml_builder *b)
{
    json_reader r = {.b = b, .text = b->text};
    if (peek(&r) == '\0' && r.at >= r.text.len)
        return; /* the caller reports an empty file */
    for (;;) {
        uint32_t depth = b->depth;
        if (!read_value_start(&r))
            return;
        if (b->depth > depth) {
            bool is_map = b->frames[b->depth - 1].node->kind == KF_YAML_MAP;
            if (peek(&r) != (is_map ? '}' : ']')) {
                if (is_map && !read_key(&r))
                    return;
                continue;
            }
            if (!close_collection(&r))
                return;
        }
        if (!read_separators(&r))
            return;
    }
}
