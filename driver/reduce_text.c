/* SPDX-License-Identifier: Apache-2.0 */
/* reduce_text - edits of YAML by its lines and brackets, and of numbers in any text. What they make
 * need not be a description: then the command ends otherwise, and the edit is not kept. */
#include "driver/reduce.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* |text| without [from, to). */
static kf_str without(kf_arena *a, kf_str text, uint32_t from, uint32_t to)
{
    kf_sbuf out = {.arena = a};

    kf_sbuf_str(&out, (kf_str){text.ptr, from});
    kf_sbuf_str(&out, (kf_str){text.ptr + to, text.len - to});
    return kf_sbuf_view(&out);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static uint32_t line_end(kf_str text, uint32_t at)
{
    while (at < text.len && text.ptr[at] != '\n')
        at++;
    return at < text.len ? at + 1 : at;
}

/* Columns before the first character; a line without one, or a comment, belongs to what stands
 * before. */
static uint32_t indent_of(kf_str text, uint32_t at)
{
    uint32_t n = 0;

    while (at + n < text.len && text.ptr[at + n] == ' ')
        n++;
    bool blank = at + n >= text.len || text.ptr[at + n] == '\n' || text.ptr[at + n] == '#';
    return blank ? UINT32_MAX : n;
}

/* A line with all that is indented deeper behind it; larger blocks come before their parts. */
static kf_edit edit_block(kf_arena *a, kf_str text, uint32_t index, kf_str *out)
{
    uint32_t at = 0;

    for (; index > 0 && at < text.len; index--)
        at = line_end(text, at);
    if (at >= text.len)
        return KF_EDIT_END;
    uint32_t end = line_end(text, at), depth = indent_of(text, at);
    while (depth != UINT32_MAX && end < text.len && indent_of(text, end) > depth)
        end = line_end(text, end);
    *out = without(a, text, at, end);
    return KF_EDIT_MADE;
}

/* ---- what is not YAML's -----------------------------------------------------------------------
 */

/* True for what is neither in a comment nor quoted. */
typedef struct scanner {
    char quote;
    bool comment;
} scanner;

static bool is_text(scanner *s, kf_str text, uint32_t i)
{
    char c = text.ptr[i];

    if (c == '\n')
        s->comment = false;
    else if (s->quote)
        s->quote = c == s->quote ? 0 : s->quote;
    else if (c == '#' && (i == 0 || text.ptr[i - 1] == ' ' || text.ptr[i - 1] == '\n'))
        s->comment = true;
    else if (!s->comment && (c == '"' || c == '\''))
        s->quote = c;
    else
        return !s->comment;
    return false;
}

/* All comments at once, and the blanks before them. */
static kf_edit edit_comments(kf_arena *a, kf_str text, uint32_t index, kf_str *out)
{
    kf_sbuf kept = {.arena = a};
    scanner s = {0};

    for (uint32_t i = 0; i < text.len; i++) {
        is_text(&s, text, i);
        while (s.comment && kept.len && kept.ptr[kept.len - 1] == ' ')
            kept.len--;
        if (!s.comment)
            kf_sbuf_char(&kept, text.ptr[i]);
    }
    *out = kf_sbuf_view(&kept);
    return index > 0 ? KF_EDIT_END : out->len < text.len ? KF_EDIT_MADE : KF_EDIT_NONE;
}

/* ---- brackets -------------------------------------------------------------------------------- */

/* The item of a flow collection that begins at |from|: up to its comma, or to the closing bracket.
 */
static uint32_t item_end(kf_str text, uint32_t from)
{
    scanner s = {0};
    int depth = 0;

    for (uint32_t i = from; i < text.len; i++) {
        if (!is_text(&s, text, i))
            continue;
        char c = text.ptr[i];
        if (depth == 0 && (c == ',' || c == ']' || c == '}'))
            return i;
        depth += (c == '[' || c == '{') - (c == ']' || c == '}');
    }
    return text.len;
}

/* One item of [a, b] or {a: 1, b: 2}. */
static kf_edit edit_item(kf_arena *a, kf_str text, uint32_t index, kf_str *out)
{
    scanner s = {0};
    int depth = 0;

    for (uint32_t i = 0; i < text.len; i++) {
        if (!is_text(&s, text, i))
            continue;
        char c = text.ptr[i];
        depth += (c == '[' || c == '{') - (c == ']' || c == '}');
        bool begins = c == '[' || c == '{' || (c == ',' && depth > 0);
        if (!begins || index-- > 0)
            continue;
        uint32_t end = item_end(text, i + 1);
        uint32_t to = end + (c != ',' && end < text.len && text.ptr[end] == ',');
        if (end == i + 1)
            return KF_EDIT_NONE; /* empty */
        while (to > end && to < text.len && text.ptr[to] == ' ')
            to++;
        *out = without(a, text, c == ',' ? i : i + 1, to);
        return KF_EDIT_MADE;
    }
    return KF_EDIT_END;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static bool in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '%' || c == '.';
}

/* The next integer that is a word of its own, from |*at| on; places in files (":4:7") are not. */
static bool next_integer(kf_str text, uint32_t *at, uint32_t *out_len)
{
    scanner s = {0};

    for (uint32_t i = 0; i < text.len; i++) {
        bool plain = is_text(&s, text, i), digit = isdigit((unsigned char)text.ptr[i]);
        char before = i ? text.ptr[i - 1] : ' ';
        if (!plain || !digit || i < *at || before == ':' || (in_word(before) && before != '.'))
            continue;
        if (before == '.' && (i < 2 || text.ptr[i - 2] != '.')) /* but 1..64 are two */
            continue;
        uint32_t n = 1;
        while (i + n < text.len && isdigit((unsigned char)text.ptr[i + n]))
            n++;
        char behind = i + n < text.len ? text.ptr[i + n] : ' ';
        bool range = behind == '.' && i + n + 1 < text.len && text.ptr[i + n + 1] == '.';
        if (n > 9 || (in_word(behind) && !range)) {
            *at = i + n;
            continue;
        }
        *at = i;
        *out_len = n;
        return true;
    }
    return false;
}

#define MAX_NUMBERS 256

/* Distinct integers above 1 in order of appearance. */
static uint32_t find_numbers(kf_str text, int64_t *out)
{
    uint32_t n = 0, at = 0, len;

    while (n < MAX_NUMBERS && next_integer(text, &at, &len)) {
        int64_t v = strtoll(text.ptr + at, NULL, 10);
        bool seen = v < 2;
        for (uint32_t i = 0; i < n; i++)
            seen |= out[i] == v;
        if (!seen)
            out[n++] = v;
        at += len;
    }
    return n;
}

static kf_str replace_number(kf_arena *a, kf_str text, int64_t old, int64_t new_value)
{
    kf_sbuf out = {.arena = a};
    uint32_t done = 0, at = 0, len;

    while (next_integer(text, &at, &len)) {
        if (strtoll(text.ptr + at, NULL, 10) == old) {
            kf_sbuf_str(&out, (kf_str){text.ptr + done, at - done});
            kf_sbuf_printf(&out, "%" PRId64, new_value);
            done = at + len;
        }
        at += len;
    }
    kf_sbuf_str(&out, (kf_str){text.ptr + done, text.len - done});
    return kf_sbuf_view(&out);
}

kf_edit kf_reduce_number(kf_arena *a, kf_str text, uint32_t index, kf_str *out)
{
    int64_t *numbers = KF_NEW_N(a, int64_t, MAX_NUMBERS);

    if (index / 3 >= find_numbers(text, numbers))
        return KF_EDIT_END;
    int64_t v = numbers[index / 3], smaller[] = {1, 2, v / 2}, to = smaller[index % 3];
    if (to >= v)
        return KF_EDIT_NONE;
    *out = replace_number(a, text, v, to);
    return KF_EDIT_MADE;
}

/* One integer alone: sizes that only happen to be equal. */
static kf_edit edit_one_number(kf_arena *a, kf_str text, uint32_t index, kf_str *out)
{
    uint32_t at = 0, len = 0;

    for (uint32_t i = 0; i <= index / 3; i++, at += len)
        if (!next_integer(text, &at, &len))
            return KF_EDIT_END;
    at -= len;
    int64_t v = strtoll(text.ptr + at, NULL, 10), smaller[] = {1, 2, v / 2},
            to = smaller[index % 3];
    if (to >= v)
        return KF_EDIT_NONE;
    *out = kf_strf(a, "%.*s%" PRId64 "%.*s", (int)at, text.ptr, to, (int)(text.len - at - len),
                   text.ptr + at + len);
    return KF_EDIT_MADE;
}

const kf_edit_fn kf_reduce_yaml_edits[] = {edit_comments,    edit_block,      edit_item,
                                           kf_reduce_number, edit_one_number, NULL};
