/* SPDX-License-Identifier: Apache-2.0 */
/* The whole file: limits, syntax, the model's vocabulary and merges, added tokens. The steps of the
 * normalizer, pre-tokenizer, post-processor and decoder are tokenizer_steps.c's. */
#include "frontend/tokenizer_json.h"

#include "base/fs.h"
#include "frontend/pattern.h"
#include "frontend/tokenizer_read.h"

#include <errno.h>
#include <string.h>

/* Ids may leave holes, but not so many that a small file asks for much memory. */
#define MAX_HOLES(n) ((n) * 16 + 65536)

/* ---- Reading with diagnostics ---------------------------------------------------------------- */

bool kf_tokr_unsupported(kf_tok_reader *r, const char *path, const char *what)
{
    (void)kf_diag_add(r->diags, KF_E0420, r->loc, "%s: %s", path, what);
    return false;
}

bool kf_tokr_malformed(kf_tok_reader *r, const char *path, const char *what)
{
    (void)kf_diag_add(r->diags, KF_E0320, r->loc, "%s: %s", path, what);
    return false;
}

const char *kf_tokr_path(kf_tok_reader *r, const char *parent, const char *key)
{
    return parent[0] == '\0' ? key : kf_strf(r->b.arena, "%s.%s", parent, key).ptr;
}

const char *kf_tokr_item(kf_tok_reader *r, const char *parent, size_t index)
{
    return kf_strf(r->b.arena, "%s[%zu]", parent, index).ptr;
}

/* |known| ends with NULL. */
static bool known_keys(kf_tok_reader *r, const char *path, json_t *obj, const char *const *known)
{
    const char *key;
    json_t *value;
    json_object_foreach(obj, key, value)
    {
        bool found = false;
        for (const char *const *k = known; *k != NULL && !found; k++)
            found = strcmp(*k, key) == 0;
        if (!found)
            return kf_tokr_unsupported(r, kf_tokr_path(r, path, key), "key is not known");
    }
    return true;
}

kf_str kf_tokr_value(json_t *string)
{
    return (kf_str){json_string_value(string), (uint32_t)json_string_length(string)};
}

bool kf_tokr_string(kf_tok_reader *r, const char *path, json_t *obj, const char *key, kf_str *out)
{
    json_t *v = json_object_get(obj, key);
    if (!json_is_string(v))
        return kf_tokr_malformed(r, kf_tokr_path(r, path, key), "expected a string");
    *out = kf_tokr_value(v);
    return true;
}

bool kf_tokr_bool(kf_tok_reader *r, const char *path, json_t *obj, const char *key,
                  const bool *fallback, bool *out)
{
    json_t *v = json_object_get(obj, key);
    if ((v == NULL || json_is_null(v)) && fallback != NULL) {
        *out = *fallback;
        return true;
    }
    if (!json_is_boolean(v))
        return kf_tokr_malformed(r, kf_tokr_path(r, path, key), "expected true or false");
    *out = json_is_true(v);
    return true;
}

/* ---- Vocabulary and merges ------------------------------------------------------------------- */

static bool read_vocab(kf_tok_reader *r, json_t *vocab)
{
    const char *key;
    json_t *value;
    size_t n = json_object_size(vocab);
    if (!json_is_object(vocab))
        return kf_tokr_malformed(r, "model.vocab", "expected an object of texts and ids");
    json_object_foreach(vocab, key, value)
    {
        kf_str text = kf_str_from(key);
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)KF_TOK_MAX_IDS || (size_t)id >= MAX_HOLES(n)) {
            (void)kf_diag_add(r->diags, KF_E0320, r->loc,
                              "model.vocab: the id of '%.*s' is not an integer from 0 to %zu",
                              KF_STR_ARG(text), MAX_HOLES(n) - 1);
            return false;
        }
        if ((size_t)id < r->b.tokens.len && r->b.tokens.data[id].flags != 0) {
            (void)kf_diag_add(r->diags, KF_E0320, r->loc,
                              "model.vocab: two texts have the id %d, one is '%.*s'", (int)id,
                              KF_STR_ARG(text));
            return false;
        }
        kf_tok_builder_set(&r->b, (uint32_t)id, text, KF_TOK_ENTRY_MODEL);
    }
    kf_tok_builder_index(&r->b);
    r->n_vocab = (uint32_t)n;
    return true;
}

/* "a b", or ["a", "b"]. */
static bool split_merge(json_t *item, kf_str *out_left, kf_str *out_right)
{
    if (json_is_array(item) && json_array_size(item) == 2 &&
        json_is_string(json_array_get(item, 0)) && json_is_string(json_array_get(item, 1))) {
        *out_left = kf_tokr_value(json_array_get(item, 0));
        *out_right = kf_tokr_value(json_array_get(item, 1));
        return true;
    }
    if (!json_is_string(item))
        return false;
    kf_str s = kf_tokr_value(item);
    const char *space = (const char *)memchr(s.ptr, ' ', s.len);
    if (space == NULL)
        return false;
    *out_left = (kf_str){s.ptr, (uint32_t)(space - s.ptr)};
    *out_right = (kf_str){space + 1, s.len - out_left->len - 1};
    return memchr(out_right->ptr, ' ', out_right->len) == NULL;
}

static bool add_merge(kf_tok_reader *r, size_t index, json_t *item)
{
    kf_str left, right;
    if (!split_merge(item, &left, &right))
        return kf_tokr_malformed(r, kf_tokr_item(r, "model.merges", index),
                                 "expected a pair of texts");
    kf_arena_mark mark = kf_arena_save(r->scratch);
    kf_str both = kf_strf(r->scratch, "%.*s%.*s", KF_STR_ARG(left), KF_STR_ARG(right));
    kf_tok_merge m = {kf_tok_builder_find(&r->b, left), kf_tok_builder_find(&r->b, right),
                      kf_tok_builder_find(&r->b, both)};
    bool found = m.left != KF_TOK_NONE && m.right != KF_TOK_NONE && m.id != KF_TOK_NONE;
    if (!found)
        (void)kf_diag_add(r->diags, KF_E0320, r->loc,
                          "model.merges[%zu]: '%.*s' + '%.*s' is not in model.vocab with its parts",
                          index, KF_STR_ARG(left), KF_STR_ARG(right));
    kf_arena_restore(r->scratch, mark);
    if (found)
        kf_vec_push(r->b.arena, &r->b.merges, m);
    return found;
}

static bool read_merges(kf_tok_reader *r, json_t *merges)
{
    size_t index;
    json_t *item;
    if (!json_is_array(merges))
        return kf_tokr_malformed(r, "model.merges", "expected an array");
    json_array_foreach(merges, index, item)
    {
        if (json_is_string(item) && kf_str_starts_with(kf_tokr_value(item), "#version"))
            continue;
        if (!add_merge(r, index, item))
            return false;
    }
    return true;
}

/* A switch that the runtime lacks; harmless while it is off. */
static bool is_off(kf_tok_reader *r, json_t *model, const char *key)
{
    json_t *v = json_object_get(model, key);
    bool off = v == NULL || json_is_null(v) || (json_is_number(v) && json_number_value(v) == 0) ||
               (json_is_string(v) && json_string_length(v) == 0);
    return off || kf_tokr_unsupported(r, kf_tokr_path(r, "model", key), "only null is supported");
}

static bool read_flags(kf_tok_reader *r, json_t *model)
{
    static const struct {
        const char *key;
        uint32_t flag;
    } rows[] = {{"ignore_merges", KF_TOK_FLAG_IGNORE_MERGES},
                {"byte_fallback", KF_TOK_FLAG_BYTE_FALLBACK},
                {"fuse_unk", KF_TOK_FLAG_FUSE_UNK}};
    static const bool no = false;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool on;
        if (!kf_tokr_bool(r, "model", model, rows[i].key, &no, &on))
            return false;
        r->b.flags |= on ? rows[i].flag : 0;
    }
    json_t *unk = json_object_get(model, "unk_token");
    if (unk == NULL || json_is_null(unk))
        return true;
    if (!json_is_string(unk))
        return kf_tokr_malformed(r, "model.unk_token", "expected a string or null");
    r->b.unk_id = kf_tok_builder_find(&r->b, kf_tokr_value(unk));
    return r->b.unk_id != KF_TOK_NONE ||
           kf_tokr_malformed(r, "model.unk_token", "not in model.vocab");
}

static bool read_model(kf_tok_reader *r, json_t *model)
{
    static const char *const keys[] = {"type",
                                       "dropout",
                                       "unk_token",
                                       "continuing_subword_prefix",
                                       "end_of_word_suffix",
                                       "fuse_unk",
                                       "byte_fallback",
                                       "ignore_merges",
                                       "vocab",
                                       "merges",
                                       NULL};
    if (!json_is_object(model))
        return kf_tokr_malformed(r, "model", "expected an object");
    json_t *type = json_object_get(model, "type");
    bool is_bpe = type != NULL ? json_is_string(type) && strcmp(json_string_value(type), "BPE") == 0
                               : json_object_get(model, "merges") != NULL;
    if (!is_bpe)
        return kf_tokr_unsupported(r, "model.type", "only BPE is supported");
    return known_keys(r, "model", model, keys) && is_off(r, model, "dropout") &&
           is_off(r, model, "continuing_subword_prefix") &&
           is_off(r, model, "end_of_word_suffix") &&
           read_vocab(r, json_object_get(model, "vocab")) && read_flags(r, model) &&
           read_merges(r, json_object_get(model, "merges"));
}

/* ---- Added tokens ---------------------------------------------------------------------------- */

static bool read_added_flags(kf_tok_reader *r, const char *path, json_t *item, uint32_t *out_flags,
                             bool *out_special)
{
    static const struct {
        const char *key;
        uint32_t flag;
    } rows[] = {{"single_word", KF_TOK_ADDED_SINGLE_WORD},
                {"lstrip", KF_TOK_ADDED_LSTRIP},
                {"rstrip", KF_TOK_ADDED_RSTRIP},
                {"normalized", KF_TOK_ADDED_NORMALIZED}};
    *out_flags = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool on;
        if (!kf_tokr_bool(r, path, item, rows[i].key, NULL, &on))
            return false;
        *out_flags |= on ? rows[i].flag : 0;
    }
    return kf_tokr_bool(r, path, item, "special", NULL, out_special);
}

/* The id that the library gives: the text's own, or the next behind the vocabulary. */
static uint32_t id_of_added(kf_tok_reader *r, kf_str text, uint32_t *next_id)
{
    uint32_t id = kf_tok_builder_find(&r->b, text);
    for (uint32_t i = 0; i < r->b.added.len && id == KF_TOK_NONE; i++) {
        const kf_tok_str *s = &r->b.tokens.data[r->b.added.data[i].id].text;
        if (s->len == text.len && memcmp(r->b.strings.data + s->offset, text.ptr, text.len) == 0)
            id = r->b.added.data[i].id;
    }
    return id != KF_TOK_NONE ? id : (*next_id)++;
}

static void put_added(kf_tok_reader *r, kf_tok_added added)
{
    uint32_t at = 0;
    while (at < r->b.added.len && r->b.added.data[at].id < added.id)
        at++;
    if (at == r->b.added.len || r->b.added.data[at].id != added.id) {
        kf_vec_push(r->b.arena, &r->b.added, added);
        memmove(&r->b.added.data[at + 1], &r->b.added.data[at],
                (r->b.added.len - 1 - at) * sizeof added);
    }
    r->b.added.data[at] = added;
}

static bool read_added(kf_tok_reader *r, const char *path, json_t *item, uint32_t *next_id)
{
    static const char *const keys[] = {"id",     "content",    "single_word", "lstrip",
                                       "rstrip", "normalized", "special",     NULL};
    kf_str text;
    kf_tok_added added;
    bool special;
    json_t *file_id = json_object_get(item, "id");
    if (!json_is_object(item))
        return kf_tokr_malformed(r, path, "expected an object");
    if (!known_keys(r, path, item, keys) || !kf_tokr_string(r, path, item, "content", &text) ||
        !read_added_flags(r, path, item, &added.flags, &special))
        return false;
    if (!json_is_integer(file_id))
        return kf_tokr_malformed(r, kf_tokr_path(r, path, "id"), "expected an integer");
    if (text.len == 0)
        return true;
    added.id = id_of_added(r, text, next_id);
    if (added.id >= KF_TOK_MAX_IDS)
        return kf_tokr_malformed(r, path, "too many tokens");
    if (json_integer_value(file_id) != (json_int_t)added.id)
        (void)kf_diag_add(r->diags, KF_W0120, r->loc, "%s: '%.*s' has id %lld, but its id is %u",
                          path, KF_STR_ARG(text), (long long)json_integer_value(file_id), added.id);
    uint32_t old = added.id < r->b.tokens.len ? r->b.tokens.data[added.id].flags : 0;
    uint32_t flags = KF_TOK_ENTRY_ADDED | (special ? KF_TOK_ENTRY_SPECIAL : 0);
    if (old != 0)
        r->b.tokens.data[added.id].flags |= flags;
    else
        kf_tok_builder_set(&r->b, added.id, text, flags);
    if ((added.flags & KF_TOK_ADDED_SINGLE_WORD) != 0 && r->b.word_pattern.len == 0)
        r->b.word_pattern =
            kf_tok_builder_str(&r->b, kf_pattern_fixed(r->b.arena, KF_PATTERN_WORD));
    put_added(r, added);
    return true;
}

static bool read_all_added(kf_tok_reader *r, json_t *list)
{
    size_t index;
    json_t *item;
    uint32_t next_id = r->n_vocab;
    if (list == NULL || json_is_null(list))
        return true;
    if (!json_is_array(list))
        return kf_tokr_malformed(r, "added_tokens", "expected an array");
    json_array_foreach(list, index, item)
    {
        if (!read_added(r, kf_tokr_item(r, "added_tokens", index), item, &next_id))
            return false;
    }
    return true;
}

/* ---- The file -------------------------------------------------------------------------------- */

/* transformers sets both for each call; a text is never cut or padded here. */
static void note_ignored(kf_tok_reader *r, json_t *root, const char *key)
{
    json_t *v = json_object_get(root, key);
    if (v != NULL && !json_is_null(v))
        (void)kf_diag_add(r->diags, KF_W0121, r->loc, "%s is not applied", key);
}

static bool read_root(kf_tok_reader *r, json_t *root)
{
    static const char *const keys[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    kf_str version;
    if (!json_is_object(root))
        return kf_tokr_malformed(r, "tokenizer", "expected an object");
    if (!known_keys(r, "", root, keys) || !kf_tokr_string(r, "", root, "version", &version))
        return false;
    if (!kf_str_eq_c(version, "1.0"))
        return kf_tokr_unsupported(r, "version", "only 1.0 is supported");
    note_ignored(r, root, "truncation");
    note_ignored(r, root, "padding");
    return read_model(r, json_object_get(root, "model")) &&
           read_all_added(r, json_object_get(root, "added_tokens")) &&
           kf_tokr_normalizer(r, "normalizer", json_object_get(root, "normalizer")) &&
           kf_tokr_pre_tokenizer(r, "pre_tokenizer", json_object_get(root, "pre_tokenizer")) &&
           kf_tokr_post_processor(r, "post_processor", json_object_get(root, "post_processor")) &&
           kf_tokr_decoder(r, "decoder", json_object_get(root, "decoder"));
}

/* Deepest nesting of brackets outside of strings; jansson's own limit is a constant of its build.
 */
static uint32_t depth_of(kf_str json)
{
    uint32_t depth = 0, deepest = 0;
    bool in_string = false;
    for (uint32_t i = 0; i < json.len; i++) {
        char c = json.ptr[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return deepest;
}

static json_t *parse(kf_tok_reader *r, kf_str json)
{
    json_error_t error;
    if (json.len > KF_TOKENIZER_JSON_MAX_BYTES) {
        (void)kf_diag_add(r->diags, KF_E0702, r->loc, "%u bytes; a tokenizer has at most %u",
                          json.len, KF_TOKENIZER_JSON_MAX_BYTES);
        return NULL;
    }
    if (depth_of(json) > KF_TOKENIZER_JSON_MAX_DEPTH) {
        (void)kf_diag_add(r->diags, KF_E0703, r->loc, "more than %u levels of nesting",
                          KF_TOKENIZER_JSON_MAX_DEPTH);
        return NULL;
    }
    json_t *root = json_loadb(json.ptr, json.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (root != NULL)
        return root;
    if (json_error_code(&error) == json_error_out_of_memory) {
        (void)kf_diag_add(r->diags, KF_E0708, r->loc, "reading the tokenizer");
        return NULL;
    }
    kf_loc loc = r->loc;
    loc.line = error.line > 0 ? (uint32_t)error.line : 0;
    (void)kf_diag_add(r->diags, KF_E0301, loc, "%s", error.text);
    return NULL;
}

bool kf_tokenizer_compile(kf_arena *arena, kf_diags *diags, kf_str path, kf_str json,
                          const void **out_table, uint64_t *out_size_bytes)
{
    /* The text itself may be large and has no line worth showing. */
    uint32_t file = kf_diags_add_file(diags, path, KF_STR(""));
    kf_tok_reader r = {.b = {.arena = arena, .unk_id = KF_TOK_NONE},
                       .scratch = kf_arena_create("tokenizer"),
                       .diags = diags,
                       .loc = {.file = file}};
    json_t *root = parse(&r, json);
    bool ok = root != NULL && read_root(&r, root);
    json_decref(root);
    if (ok)
        kf_tok_builder_finish(&r.b, out_table, out_size_bytes);
    kf_arena_destroy(r.scratch);
    return ok;
}

bool kf_tokenizer_compile_file(kf_arena *arena, kf_diags *diags, const char *path,
                               const void **out_table, uint64_t *out_size_bytes)
{
    kf_arena *text_arena = kf_arena_create("tokenizer.json");
    kf_str json;
    int error = kf_fs_read(text_arena, path, KF_TOKENIZER_JSON_MAX_BYTES, &json);
    bool ok = error == 0;
    if (error == EFBIG)
        (void)kf_diag_add(diags, KF_E0702, KF_NO_LOC, "%s: a tokenizer has at most %u bytes", path,
                          KF_TOKENIZER_JSON_MAX_BYTES);
    else if (error != 0)
        (void)kf_diag_add(diags, KF_E0701, KF_NO_LOC, "%s: %s", path, strerror(error));
    ok = ok &&
         kf_tokenizer_compile(arena, diags, kf_str_from(path), json, out_table, out_size_bytes);
    kf_arena_destroy(text_arena);
    return ok;
}
