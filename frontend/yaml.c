/* SPDX-License-Identifier: Apache-2.0 */
/* yaml - libyaml's events into the builder, file reading, and access to nodes.
 *
 * Directives are refused before libyaml sees the text: none is needed, and its check for repeated
 * %TAG lines is quadratic. Its marks count characters; places count bytes, hence the running
 * conversion.
 */
#include "frontend/yaml.h"

#include "base/fs.h"
#include "frontend/yaml_build.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

/** Characters to bytes; moves forwards with the events. */
typedef struct char_cursor {
    kf_str text;
    size_t chars;
    uint32_t bytes;
} char_cursor;

static uint32_t byte_offset(char_cursor *c, size_t index)
{
    if (index < c->chars) {
        c->chars = 0;
        c->bytes = 0;
    }
    while (c->chars < index && c->bytes < c->text.len) {
        c->bytes++;
        while (c->bytes < c->text.len && ((uint8_t)c->text.ptr[c->bytes] & 0xc0) == 0x80)
            c->bytes++;
        c->chars++;
    }
    return c->bytes;
}

static kf_str cstr_or_empty(const yaml_char_t *s)
{
    return s == NULL ? (kf_str){"", 0} : kf_str_from((const char *)s);
}

static kf_loc event_place(kf_yaml_builder *b, char_cursor *c, const yaml_event_t *e)
{
    uint32_t begin = byte_offset(c, e->start_mark.index);
    char_cursor ahead = *c;
    uint32_t end = byte_offset(&ahead, e->end_mark.index);
    return kf_yaml_place(b, begin, end);
}

/** Whether the value's bytes stand in the source as they are (behind the quote, if any). */
static bool is_verbatim(const kf_yaml_builder *b, kf_loc loc, uint32_t begin, kf_str value,
                        bool quoted)
{
    uint32_t skip = quoted ? 1 : 0;
    return loc.len == value.len + 2 * skip &&
           memcmp(b->text.ptr + begin + skip, value.ptr, value.len) == 0;
}

static bool on_scalar(kf_yaml_builder *b, char_cursor *c, const yaml_event_t *e, kf_loc loc)
{
    if (e->data.scalar.length > KF_YAML_MAX_SCALAR)
        return kf_yaml_fail(b, KF_E0705, (kf_loc){loc.file, loc.line, loc.col, 1},
                            "a value of %zu bytes; the limit is %u", e->data.scalar.length,
                            KF_YAML_MAX_SCALAR);
    kf_str value = {(const char *)e->data.scalar.value, (uint32_t)e->data.scalar.length};
    bool quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    bool verbatim = is_verbatim(b, loc, c->bytes, value, quoted);
    return kf_yaml_on_scalar(b, loc, value, quoted, verbatim, cstr_or_empty(e->data.scalar.anchor));
}

static const yaml_char_t *event_tag(const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return e->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT:
        return e->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT:
        return e->data.mapping_start.tag;
    default:
        return NULL;
    }
}

static bool on_event(kf_yaml_builder *b, char_cursor *c, const yaml_event_t *e)
{
    kf_loc loc = event_place(b, c, e);
    if (event_tag(e) != NULL)
        return kf_yaml_fail(b, KF_E0108, loc, "tag '%s' is not accepted", event_tag(e));
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(b, c, e, loc);
    case YAML_SEQUENCE_START_EVENT:
        return kf_yaml_on_start(b, loc, KF_YAML_SEQ, cstr_or_empty(e->data.sequence_start.anchor));
    case YAML_MAPPING_START_EVENT:
        return kf_yaml_on_start(b, loc, KF_YAML_MAP, cstr_or_empty(e->data.mapping_start.anchor));
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return kf_yaml_on_end(b, loc);
    case YAML_ALIAS_EVENT:
        return kf_yaml_on_alias(b, loc, cstr_or_empty(e->data.alias.anchor));
    case YAML_DOCUMENT_START_EVENT:
        if (b->root != NULL)
            return kf_yaml_fail(b, KF_E0108, loc, "a second document in one file");
        return true;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return true;
    }
    return true;
}

static bool syntax_error(kf_yaml_builder *b, const yaml_parser_t *p)
{
    char_cursor c = {.text = b->text};
    if (p->error == YAML_MEMORY_ERROR)
        return kf_yaml_fail(b, KF_E0708, KF_NO_LOC, "out of memory while reading YAML");
    /* The reader (bad characters) reports a byte offset, scanner and parser a mark. */
    uint32_t at = p->error == YAML_READER_ERROR ? (uint32_t)p->problem_offset
                                                : byte_offset(&c, p->problem_mark.index);
    kf_loc loc = kf_yaml_place(b, at, at + 1);
    const char *problem = p->problem != NULL ? p->problem : "not well-formed";
    kf_diag *d = kf_diag_add(b->diags, KF_E0101, loc, "%s", problem);
    if (p->context != NULL) {
        uint32_t from = byte_offset(&c, p->context_mark.index);
        kf_diag_note(b->diags, d, kf_yaml_place(b, from, from + 1), "%s", p->context);
    }
    b->failed = true;
    return false;
}

static void run_parser(kf_yaml_builder *b)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        kf_yaml_fail(b, KF_E0708, KF_NO_LOC, "out of memory while reading YAML");
        return;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)b->text.ptr, b->text.len);
    char_cursor cursor = {.text = b->text};
    for (bool more = true; more && !b->failed;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            syntax_error(b, &parser);
            break;
        }
        more = on_event(b, &cursor, &event) && event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
}

static bool check_text(kf_yaml_builder *b, uint32_t max_bytes)
{
    if (b->text.len > max_bytes)
        return kf_yaml_fail(b, KF_E0702, (kf_loc){b->file, 1, 1, 0},
                            "the file has %u bytes; the limit is %u", b->text.len, max_bytes);
    uint32_t valid = kf_yaml_utf8_prefix(b->text);
    const char *nul = memchr(b->text.ptr, 0, valid);
    if (nul != NULL)
        valid = (uint32_t)(nul - b->text.ptr);
    if (valid < b->text.len)
        return kf_yaml_fail(b, KF_E0110, kf_yaml_place(b, valid, valid + 1),
                            nul != NULL ? "a NUL byte" : "not UTF-8 text");
    return true;
}

static bool refuse_directives(kf_yaml_builder *b)
{
    const char *end = b->text.ptr + b->text.len;
    for (const char *p = b->text.ptr; p < end;) {
        if (*p == '%') {
            uint32_t at = (uint32_t)(p - b->text.ptr);
            return kf_yaml_fail(b, KF_E0108, kf_yaml_place(b, at, at + 1),
                                "YAML directives are not accepted");
        }
        /* libyaml also ends lines at a lone carriage return. */
        while (p < end && *p != '\n' && *p != '\r')
            p++;
        p += p < end;
    }
    return true;
}

static kf_str without_bom(kf_str text)
{
    if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0)
        return (kf_str){text.ptr + 3, text.len - 3};
    return text;
}

static kf_yaml_node *finish(kf_yaml_builder *b)
{
    if (b->failed)
        return NULL;
    if (b->root == NULL)
        kf_yaml_fail(b, b->syntax_code, (kf_loc){b->file, 1, 1, 0}, "the file is empty");
    return b->failed ? NULL : b->root;
}

kf_yaml_node *kf_yaml_parse(kf_arena *arena, kf_diags *diags, uint32_t file, kf_str text,
                            kf_origin origin)
{
    kf_yaml_builder *b = KF_NEW(arena, kf_yaml_builder);
    *b = (kf_yaml_builder){.arena = arena,
                           .diags = diags,
                           .file = file,
                           .origin = origin,
                           .text = without_bom(text),
                           .syntax_code = KF_E0101};
    if (check_text(b, KF_YAML_MAX_BYTES) && refuse_directives(b))
        run_parser(b);
    return finish(b);
}

kf_yaml_node *kf_json_parse(kf_arena *arena, kf_diags *diags, uint32_t file, kf_str text,
                            kf_origin origin)
{
    kf_yaml_builder *b = KF_NEW(arena, kf_yaml_builder);
    *b = (kf_yaml_builder){.arena = arena,
                           .diags = diags,
                           .file = file,
                           .origin = origin,
                           .text = text,
                           .syntax_code = KF_E0301};
    if (check_text(b, KF_JSON_MAX_BYTES))
        kf_json_events(b);
    return finish(b);
}

typedef kf_yaml_node *(*parse_fn)(kf_arena *, kf_diags *, uint32_t, kf_str, kf_origin);

static kf_yaml_node *read_file(kf_arena *arena, kf_diags *diags, kf_str path, uint32_t max_bytes,
                               parse_fn parse, kf_origin origin)
{
    kf_str text;
    int err = kf_fs_read(arena, kf_str_dup(arena, path).ptr, max_bytes, &text);
    if (err != 0) {
        uint32_t file = kf_diags_add_file(diags, path, KF_STR(""));
        kf_loc loc = {file, 1, 1, 0};
        if (err == EFBIG)
            kf_diag_add(diags, KF_E0702, loc, "the file is larger than %u bytes", max_bytes);
        else
            kf_diag_add(diags, KF_E0701, loc, "cannot read '%.*s': %s", KF_STR_ARG(path),
                        strerror(err));
        return NULL;
    }
    return parse(arena, diags, kf_diags_add_file(diags, path, text), text, origin);
}

kf_yaml_node *kf_json_read(kf_arena *arena, kf_diags *diags, kf_str path)
{
    return read_file(arena, diags, path, KF_JSON_MAX_BYTES, kf_json_parse, KF_ORIGIN_CONFIG);
}

const kf_yaml_pair *kf_yaml_find(const kf_yaml_node *map, const char *key)
{
    if (map == NULL || map->kind != KF_YAML_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->n; i++)
        if (kf_str_eq_c(map->u.pairs[i].key->text, key))
            return &map->u.pairs[i];
    return NULL;
}

kf_yaml_node *kf_yaml_get(const kf_yaml_node *map, const char *key)
{
    const kf_yaml_pair *pair = kf_yaml_find(map, key);
    return pair != NULL ? pair->value : NULL;
}

kf_loc kf_yaml_loc_at(const kf_yaml_node *scalar, uint32_t offset, uint32_t len)
{
    if (!scalar->verbatim || offset > scalar->text.len)
        return scalar->loc;
    kf_loc loc = scalar->loc;
    loc.col += offset + (scalar->quoted ? 1 : 0);
    loc.len = len;
    return loc;
}

kf_yaml_node *kf_yaml_new_scalar(kf_arena *arena, kf_str text, kf_loc loc, kf_origin origin)
{
    kf_yaml_node *node = KF_NEW(arena, kf_yaml_node);
    *node = (kf_yaml_node){.kind = KF_YAML_SCALAR,
                           .origin = origin,
                           .loc = loc,
                           .text = text,
                           .n_expanded = 1,
                           .height = 1};
    return node;
}
