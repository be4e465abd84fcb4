/* SPDX-License-Identifier: Apache-2.0 */
/* yaml_build - nodes from events, and every limit on what a description may cost.
 *
 * The limits are counted here and not in the sources of events, so that a refused input has cost at
 * most the events before it: libyaml itself has no depth limit and is quadratic in it.
 */
#include "frontend/yaml_build.h"

#include <stdlib.h>
#include <string.h>

kf_loc kf_yaml_place(kf_yaml_builder *b, uint32_t begin, uint32_t end)
{
    if (begin > b->text.len)
        begin = b->text.len;
    if (begin < b->cursor) { /* ends of collections may look back a little; start the line anew */
        b->cursor = b->line_start <= begin ? b->cursor : 0;
        if (b->cursor == 0) {
            b->line = 0;
            b->line_start = 0;
        }
    }
    while (b->cursor < begin) {
        const char *nl = memchr(b->text.ptr + b->cursor, '\n', begin - b->cursor);
        if (nl == NULL) {
            b->cursor = begin;
            break;
        }
        b->cursor = (uint32_t)(nl - b->text.ptr) + 1;
        b->line_start = b->cursor;
        b->line++;
    }
    uint32_t len = 0;
    if (end > begin) {
        uint32_t limit = (end < b->text.len ? end : b->text.len) - begin;
        if (limit > KF_YAML_MAX_SCALAR)
            limit = KF_YAML_MAX_SCALAR;
        while (len < limit && b->text.ptr[begin + len] != '\n')
            len++;
    }
    return (kf_loc){b->file, b->line + 1, begin - b->line_start + 1, len};
}

bool kf_yaml_fail(kf_yaml_builder *b, kf_diag_code code, kf_loc loc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    kf_sbuf msg = {.arena = b->arena};
    kf_sbuf_vprintf(&msg, fmt, ap);
    va_end(ap);
    kf_diag_add(b->diags, code, loc, "%.*s", KF_STR_ARG(kf_sbuf_view(&msg)));
    b->failed = true;
    return false;
}

static kf_loc first_char(kf_loc loc)
{
    loc.len = 1;
    return loc;
}

static bool count_event(kf_yaml_builder *b, kf_loc loc)
{
    if (b->failed)
        return false;
    if (++b->n_events > KF_YAML_MAX_EVENTS)
        return kf_yaml_fail(b, KF_E0704, loc, "more than %u YAML events", KF_YAML_MAX_EVENTS);
    return true;
}

static bool add_anchor(kf_yaml_builder *b, kf_loc loc, kf_str name, kf_yaml_node *node,
                       bool complete)
{
    if (name.len == 0)
        return true;
    if (b->anchors.len == KF_YAML_MAX_ANCHORS)
        return kf_yaml_fail(b, KF_E0706, loc, "more than %u anchors", KF_YAML_MAX_ANCHORS);
    kf_yaml_anchor anchor = {kf_str_dup(b->arena, name), node, complete};
    kf_vec_push(b->arena, &b->anchors, anchor);
    return true;
}

/** Puts a finished node where it belongs: root, next item, next key or the waiting key's value. */
static bool attach(kf_yaml_builder *b, kf_yaml_node *node, kf_loc loc)
{
    if (b->depth == 0) {
        b->root = node;
        return true;
    }
    if (b->depth + node->height > KF_YAML_MAX_NESTING + 1)
        return kf_yaml_fail(b, KF_E0703, loc, "nesting deeper than %u levels", KF_YAML_MAX_NESTING);
    kf_yaml_frame *f = &b->frames[b->depth - 1];
    f->node->n_expanded += node->n_expanded;
    if (f->node->height < node->height + 1)
        f->node->height = node->height + 1;
    if (f->node->kind == KF_YAML_SEQ) {
        kf_vec_push(b->arena, &f->items, node);
        return true;
    }
    if (f->key == NULL) {
        if (node->kind != KF_YAML_SCALAR)
            return kf_yaml_fail(b, KF_E0108, loc, "a key must be a plain word, not %s",
                                kf_yaml_kind_name(node));
        if (kf_str_eq_c(node->text, "<<") && !node->quoted)
            return kf_yaml_fail(b, KF_E0108, loc, "merge keys ('<<') are not accepted");
        f->key = node;
        return true;
    }
    kf_yaml_pair pair = {f->key, node};
    kf_vec_push(b->arena, &f->pairs, pair);
    f->key = NULL;
    return true;
}

static kf_yaml_node *new_node(kf_yaml_builder *b, kf_yaml_kind kind, kf_loc loc)
{
    kf_yaml_node *node = KF_NEW(b->arena, kf_yaml_node);
    node->kind = kind;
    node->origin = b->origin;
    node->loc = loc;
    node->n_expanded = 1;
    node->height = 1;
    return node;
}

bool kf_yaml_on_scalar(kf_yaml_builder *b, kf_loc loc, kf_str value, bool quoted, bool verbatim,
                       kf_str anchor)
{
    if (!count_event(b, loc))
        return false;
    if (value.len > KF_YAML_MAX_SCALAR)
        return kf_yaml_fail(b, KF_E0705, first_char(loc), "a value of %u bytes; the limit is %u",
                            value.len, KF_YAML_MAX_SCALAR);
    if (memchr(value.ptr, 0, value.len) != NULL)
        return kf_yaml_fail(b, KF_E0110, loc, "a NUL character in a value");
    kf_yaml_node *node = new_node(b, KF_YAML_SCALAR, loc);
    node->text = kf_str_dup(b->arena, value);
    node->quoted = quoted;
    node->verbatim = verbatim;
    return add_anchor(b, loc, anchor, node, true) && attach(b, node, loc);
}

bool kf_yaml_on_start(kf_yaml_builder *b, kf_loc loc, kf_yaml_kind kind, kf_str anchor)
{
    if (!count_event(b, loc))
        return false;
    if (b->depth == KF_YAML_MAX_NESTING)
        return kf_yaml_fail(b, KF_E0703, first_char(loc), "nesting deeper than %u levels",
                            KF_YAML_MAX_NESTING);
    kf_yaml_node *node = new_node(b, kind, first_char(loc));
    if (!add_anchor(b, loc, anchor, node, false))
        return false;
    uint32_t anchor_ref = anchor.len > 0 ? b->anchors.len : 0;
    b->frames[b->depth++] = (kf_yaml_frame){.node = node, .anchor = anchor_ref};
    return true;
}

static int compare_pairs(const void *a, const void *b)
{
    const kf_yaml_pair *x = *(const kf_yaml_pair *const *)a;
    const kf_yaml_pair *y = *(const kf_yaml_pair *const *)b;
    int c = kf_str_cmp(x->key->text, y->key->text);
    return c != 0 ? c : (x < y ? -1 : x > y);
}

/** Sorted, not hashed: no choice of keys makes it slow. */
static bool check_duplicates(kf_yaml_builder *b, const kf_yaml_frame *f)
{
    uint32_t n = f->pairs.len;
    if (n < 2)
        return true;
    const kf_yaml_pair **sorted = KF_NEW_N(b->arena, const kf_yaml_pair *, n);
    for (uint32_t i = 0; i < n; i++)
        sorted[i] = &f->pairs.data[i];
    qsort(sorted, n, sizeof *sorted, compare_pairs);
    for (uint32_t i = 1; i < n; i++) {
        const kf_yaml_node *first = sorted[i - 1]->key, *again = sorted[i]->key;
        if (!kf_str_eq(first->text, again->text))
            continue;
        kf_diag *d = kf_diag_add(b->diags, KF_E0103, again->loc, "duplicate key '%.*s'",
                                 KF_STR_ARG(again->text));
        kf_diag_note(b->diags, d, first->loc, "first given here");
        b->failed = true;
        return false;
    }
    return true;
}

bool kf_yaml_on_end(kf_yaml_builder *b, kf_loc loc)
{
    if (!count_event(b, loc))
        return false;
    kf_yaml_frame *f = &b->frames[--b->depth];
    kf_yaml_node *node = f->node;
    if (node->kind == KF_YAML_SEQ) {
        node->n = f->items.len;
        node->u.items = f->items.data;
    } else {
        if (!check_duplicates(b, f))
            return false;
        node->n = f->pairs.len;
        node->u.pairs = f->pairs.data;
    }
    if (f->anchor != 0)
        b->anchors.data[f->anchor - 1].complete = true;
    return attach(b, node, node->loc);
}

bool kf_yaml_on_alias(kf_yaml_builder *b, kf_loc loc, kf_str name)
{
    if (!count_event(b, loc))
        return false;
    for (uint32_t i = b->anchors.len; i-- > 0;) {
        const kf_yaml_anchor *anchor = &b->anchors.data[i];
        if (!kf_str_eq(anchor->name, name))
            continue;
        if (!anchor->complete)
            return kf_yaml_fail(b, KF_E0109, loc, "alias '*%.*s' contains itself",
                                KF_STR_ARG(name));
        b->n_alias_nodes += anchor->node->n_expanded;
        if (b->n_alias_nodes > KF_YAML_MAX_ALIAS_NODES)
            return kf_yaml_fail(b, KF_E0706, loc, "aliases expand to more than %u nodes",
                                KF_YAML_MAX_ALIAS_NODES);
        return attach(b, anchor->node, loc);
    }
    return kf_yaml_fail(b, KF_E0109, loc, "alias '*%.*s' names no anchor before it",
                        KF_STR_ARG(name));
}

uint32_t kf_yaml_utf8_prefix(kf_str text)
{
    const uint8_t *s = (const uint8_t *)text.ptr;
    uint32_t i = 0;
    while (i < text.len) {
        uint8_t c = s[i];
        uint32_t n = c < 0x80                ? 1
                     : c >= 0xc2 && c < 0xe0 ? 2
                     : c >= 0xe0 && c < 0xf0 ? 3
                     : c >= 0xf0 && c < 0xf5 ? 4
                                             : 0;
        if (n == 0 || n > text.len - i)
            return i;
        uint32_t cp = n == 1 ? c : c & (0x7fu >> n);
        for (uint32_t j = 1; j < n; j++) {
            if ((s[i + j] & 0xc0) != 0x80)
                return i;
            cp = cp << 6 | (s[i + j] & 0x3fu);
        }
        bool overlong = (n == 3 && cp < 0x800) || (n == 4 && cp < 0x10000);
        if (overlong || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
            return i;
        i += n;
    }
    return i;
}

const char *kf_yaml_kind_name(const kf_yaml_node *node)
{
    switch (node->kind) {
    case KF_YAML_SCALAR:
        return "a scalar";
    case KF_YAML_SEQ:
        return "a sequence";
    case KF_YAML_MAP:
        return "a mapping";
    }
    return "";
}
