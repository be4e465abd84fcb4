/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of tokenizer.json: each type of the library is a row of a table with the keys it may
 * have and the function that adds its steps. A type without a row is not supported. */
#include "frontend/tokenizer_read.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include "frontend/pattern.h"

#include <pcre2.h>
#include <string.h>

#define MAX_KEYS  6
#define MAX_STRIP 65535
#define BYTE_LEVEL_PATTERN                                                                         \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef bool (*read_fn)(kf_tok_reader *r, const char *path, json_t *obj);

typedef struct step_type {
    const char *name;
    read_fn read;
    const char *keys[MAX_KEYS + 1]; /* besides "type" */
} step_type;

static const bool yes = true;

#define PUSH(list, ...) kf_vec_push(r->b.arena, &r->b.list, (kf_tok_op){__VA_ARGS__})

/* ---- Shared ---------------------------------------------------------------------------------- */

static bool has_key(const step_type *t, const char *key)
{
    for (const char *const *k = t->keys; *k != NULL; k++) {
        if (strcmp(*k, key) == 0)
            return true;
    }
    return strcmp(key, "type") == 0;
}

/* Dispatches on "type". */
static bool read_step(kf_tok_reader *r, const char *path, json_t *value, const step_type *types)
{
    kf_str name;
    const char *key;
    json_t *unused;
    if (value == NULL || json_is_null(value))
        return true;
    if (!json_is_object(value))
        return kf_tokr_malformed(r, path, "expected an object or null");
    if (!kf_tokr_string(r, path, value, "type", &name))
        return false;
    const step_type *t = types;
    while (t->name != NULL && !kf_str_eq_c(name, t->name))
        t++;
    if (t->name == NULL) {
        const char *what = kf_strf(r->b.arena, "'%.*s' is not supported", KF_STR_ARG(name)).ptr;
        return kf_tokr_unsupported(r, kf_tokr_path(r, path, "type"), what);
    }
    json_object_foreach(value, key, unused)
    {
        if (!has_key(t, key))
            return kf_tokr_unsupported(r, kf_tokr_path(r, path, key), "key is not known");
    }
    return t->read(r, path, value);
}

static bool read_sequence(kf_tok_reader *r, const char *path, json_t *obj, const char *key,
                          bool (*read)(kf_tok_reader *, const char *, json_t *))
{
    size_t index;
    json_t *item;
    json_t *list = json_object_get(obj, key);
    path = kf_tokr_path(r, path, key);
    if (!json_is_array(list))
        return kf_tokr_malformed(r, path, "expected an array");
    json_array_foreach(list, index, item)
    {
        if (!json_is_object(item))
            return kf_tokr_malformed(r, kf_tokr_item(r, path, index), "expected an object");
        if (!read(r, kf_tokr_item(r, path, index), item))
            return false;
    }
    return true;
}

/* The pattern must compile now, not when the program runs. */
static bool check_regex(kf_tok_reader *r, const char *path, kf_str pattern)
{
    int code;
    PCRE2_SIZE at;
    char text[128];
    pcre2_code *re = pcre2_compile(
        (PCRE2_SPTR)pattern.ptr, pattern.len,
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    pcre2_code_free(re);
    if (re != NULL)
        return true;
    (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    return kf_tokr_malformed(r, path, kf_strf(r->b.arena, "bad pattern: %s", text).ptr);
}

static bool add_regex(kf_tok_reader *r, const char *path, kf_str onig, kf_tok_op *op)
{
    kf_str pcre, error;
    if (onig.len == 0)
        return kf_tokr_unsupported(r, path, "an empty pattern");
    if (onig.len > 16384)
        return kf_tokr_unsupported(r, path, "a pattern longer than 16384 bytes");
    if (!kf_pattern_translate(r->b.arena, onig, &pcre, &error))
        return kf_tokr_unsupported(
            r, path, kf_strf(r->b.arena, "the pattern has %.*s", KF_STR_ARG(error)).ptr);
    if (pcre.len > 65535)
        return kf_tokr_unsupported(r, path, "a pattern that is too long when written out");
    op->arg = KF_TOK_PATTERN_REGEX;
    op->text = kf_tok_builder_str(&r->b, pcre);
    return check_regex(r, path, pcre);
}

/* {"String": "..."} or {"Regex": "..."}. */
static bool read_pattern(kf_tok_reader *r, const char *path, json_t *obj, kf_tok_op *op)
{
    json_t *pattern = json_object_get(obj, "pattern");
    path = kf_tokr_path(r, path, "pattern");
    json_t *literal = json_object_get(pattern, "String");
    json_t *regex = json_object_get(pattern, "Regex");
    if (json_object_size(pattern) == 1 && json_is_string(regex))
        return add_regex(r, path, kf_tokr_value(regex), op);
    if (json_object_size(pattern) != 1 || !json_is_string(literal))
        return kf_tokr_malformed(r, path, "expected {\"String\": ...} or {\"Regex\": ...}");
    if (json_string_length(literal) == 0)
        return kf_tokr_unsupported(r, path, "an empty pattern");
    op->arg = KF_TOK_PATTERN_LITERAL;
    op->text = kf_tok_builder_str(&r->b, kf_tokr_value(literal));
    return true;
}

static bool read_replace(kf_tok_reader *r, const char *path, json_t *obj, uint32_t kind,
                         kf_tok_op *out)
{
    kf_str content;
    *out = (kf_tok_op){.kind = kind};
    if (!read_pattern(r, path, obj, out) || !kf_tokr_string(r, path, obj, "content", &content))
        return false;
    out->text2 = kf_tok_builder_str(&r->b, content);
    return true;
}

static bool read_char(kf_tok_reader *r, const char *path, json_t *obj, const char *key,
                      kf_tok_str *out)
{
    kf_str s;
    if (!kf_tokr_string(r, path, obj, key, &s))
        return false;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s.len; i++)
        n += ((uint8_t)s.ptr[i] & 0xC0) != 0x80;
    if (n != 1)
        return kf_tokr_malformed(r, kf_tokr_path(r, path, key), "expected one character");
    *out = kf_tok_builder_str(&r->b, s);
    return true;
}

static bool has_room(kf_tok_reader *r, const char *path, uint32_t n)
{
    return n <= KF_TOK_MAX_OPS || kf_tokr_unsupported(r, path, "too many steps");
}

/* ---- Normalizer ------------------------------------------------------------------------------ */

static bool norm_sequence(kf_tok_reader *r, const char *path, json_t *obj)
{
    return read_sequence(r, path, obj, "normalizers", kf_tokr_normalizer);
}

static bool norm_unicode(kf_tok_reader *r, const char *path, json_t *obj)
{
    static const char *const names[KF_TOK_UNICODE_FORMS] = {
        [KF_TOK_NFC] = "NFC", [KF_TOK_NFKC] = "NFKC", [KF_TOK_NFD] = "NFD", [KF_TOK_NFKD] = "NFKD"};
    (void)path;
    for (uint32_t i = 0; i < KF_TOK_UNICODE_FORMS; i++) {
        if (strcmp(json_string_value(json_object_get(obj, "type")), names[i]) == 0)
            PUSH(norm, .kind = KF_TOK_NORM_UNICODE, .arg = i);
    }
    return true;
}

static bool norm_prepend(kf_tok_reader *r, const char *path, json_t *obj)
{
    kf_str s;
    if (!kf_tokr_string(r, path, obj, "prepend", &s))
        return false;
    if (s.len > 0)
        PUSH(norm, .kind = KF_TOK_NORM_PREPEND, .text = kf_tok_builder_str(&r->b, s));
    return true;
}

static bool norm_replace(kf_tok_reader *r, const char *path, json_t *obj)
{
    kf_tok_op op;
    if (!read_replace(r, path, obj, KF_TOK_NORM_REPLACE, &op))
        return false;
    kf_vec_push(r->b.arena, &r->b.norm, op);
    return true;
}

static bool norm_lowercase(kf_tok_reader *r, const char *path, json_t *obj)
{
    (void)path;
    (void)obj;
    PUSH(norm, .kind = KF_TOK_NORM_LOWERCASE);
    return true;
}

static bool norm_strip(kf_tok_reader *r, const char *path, json_t *obj)
{
    bool left, right;
    if (!kf_tokr_bool(r, path, obj, "strip_left", NULL, &left) ||
        !kf_tokr_bool(r, path, obj, "strip_right", NULL, &right))
        return false;
    PUSH(norm, .kind = KF_TOK_NORM_STRIP, .arg = (left ? 1u : 0u) | (right ? 2u : 0u));
    return true;
}

bool kf_tokr_normalizer(kf_tok_reader *r, const char *path, json_t *value)
{
    static const step_type types[] = {{"Sequence", norm_sequence, {"normalizers"}},
                                      {"NFC", norm_unicode, {NULL}},
                                      {"NFKC", norm_unicode, {NULL}},
                                      {"NFD", norm_unicode, {NULL}},
                                      {"NFKD", norm_unicode, {NULL}},
                                      {"Prepend", norm_prepend, {"prepend"}},
                                      {"Replace", norm_replace, {"pattern", "content"}},
                                      {"Lowercase", norm_lowercase, {NULL}},
                                      {"Strip", norm_strip, {"strip_left", "strip_right"}},
                                      {NULL, NULL, {NULL}}};
    return read_step(r, path, value, types) && has_room(r, path, r->b.norm.len);
}

/* ---- Pre-tokenizer --------------------------------------------------------------------------- */

static bool pre_sequence(kf_tok_reader *r, const char *path, json_t *obj)
{
    return read_sequence(r, path, obj, "pretokenizers", kf_tokr_pre_tokenizer);
}

static void push_fixed_split(kf_tok_reader *r, kf_pattern_name name, uint32_t behavior)
{
    kf_str pattern = kf_pattern_fixed(r->b.arena, name);
    PUSH(pre, .kind = KF_TOK_PRE_SPLIT, .arg = KF_TOK_PATTERN_REGEX, .behavior = behavior,
         .text = kf_tok_builder_str(&r->b, pattern));
}

static bool pre_byte_level(kf_tok_reader *r, const char *path, json_t *obj)
{
    bool prefix, regex, trim;
    if (!kf_tokr_bool(r, path, obj, "add_prefix_space", NULL, &prefix) ||
        !kf_tokr_bool(r, path, obj, "use_regex", &yes, &regex) ||
        !kf_tokr_bool(r, path, obj, "trim_offsets", &yes, &trim)) /* offsets are not made */
        return false;
    if (prefix)
        PUSH(pre, .kind = KF_TOK_PRE_PREFIX, .text = kf_tok_builder_str(&r->b, KF_STR(" ")));
    kf_tok_op split = {.kind = KF_TOK_PRE_SPLIT, .behavior = KF_TOK_SPLIT_ISOLATED};
    if (regex && !add_regex(r, path, KF_STR(BYTE_LEVEL_PATTERN), &split))
        return false;
    if (regex)
        kf_vec_push(r->b.arena, &r->b.pre, split);
    PUSH(pre, .kind = KF_TOK_PRE_BYTES);
    return true;
}

static bool read_behavior(kf_tok_reader *r, const char *path, json_t *obj, uint32_t *out)
{
    static const char *const names[KF_TOK_SPLIT_BEHAVIORS] = {
        [KF_TOK_SPLIT_ISOLATED] = "Isolated",
        [KF_TOK_SPLIT_REMOVED] = "Removed",
        [KF_TOK_SPLIT_MERGED_PREVIOUS] = "MergedWithPrevious",
        [KF_TOK_SPLIT_MERGED_NEXT] = "MergedWithNext",
        [KF_TOK_SPLIT_CONTIGUOUS] = "Contiguous"};
    kf_str name;
    if (!kf_tokr_string(r, path, obj, "behavior", &name))
        return false;
    for (*out = 0; *out < KF_TOK_SPLIT_BEHAVIORS; (*out)++) {
        if (kf_str_eq_c(name, names[*out]))
            return true;
    }
    return kf_tokr_malformed(r, kf_tokr_path(r, path, "behavior"), "not a behavior");
}

static bool pre_split(kf_tok_reader *r, const char *path, json_t *obj)
{
    kf_tok_op op = {.kind = KF_TOK_PRE_SPLIT};
    bool invert;
    if (!read_pattern(r, path, obj, &op) || !read_behavior(r, path, obj, &op.behavior) ||
        !kf_tokr_bool(r, path, obj, "invert", NULL, &invert))
        return false;
    op.behavior |= invert ? KF_TOK_INVERT : 0;
    kf_vec_push(r->b.arena, &r->b.pre, op);
    return true;
}

static bool pre_digits(kf_tok_reader *r, const char *path, json_t *obj)
{
    bool each;
    if (!kf_tokr_bool(r, path, obj, "individual_digits", NULL, &each))
        return false;
    push_fixed_split(r, KF_PATTERN_NUMERIC, each ? KF_TOK_SPLIT_ISOLATED : KF_TOK_SPLIT_CONTIGUOUS);
    return true;
}

static bool pre_whitespace(kf_tok_reader *r, const char *path, json_t *obj)
{
    (void)path;
    (void)obj;
    push_fixed_split(r, KF_PATTERN_WORDS, KF_TOK_SPLIT_REMOVED | KF_TOK_INVERT);
    return true;
}

static bool pre_whitespace_split(kf_tok_reader *r, const char *path, json_t *obj)
{
    (void)path;
    (void)obj;
    push_fixed_split(r, KF_PATTERN_SPACE, KF_TOK_SPLIT_REMOVED);
    return true;
}

static bool pre_punctuation(kf_tok_reader *r, const char *path, json_t *obj)
{
    uint32_t behavior = KF_TOK_SPLIT_ISOLATED;
    if (json_object_get(obj, "behavior") != NULL && !read_behavior(r, path, obj, &behavior))
        return false;
    push_fixed_split(r, KF_PATTERN_PUNCTUATION, behavior);
    return true;
}

static bool pre_delimiter(kf_tok_reader *r, const char *path, json_t *obj)
{
    kf_tok_op op = {.kind = KF_TOK_PRE_SPLIT, .behavior = KF_TOK_SPLIT_REMOVED};
    if (!read_char(r, path, obj, "delimiter", &op.text))
        return false;
    kf_vec_push(r->b.arena, &r->b.pre, op);
    return true;
}

/* The options that pre-tokenizer and decoder share. */
static bool read_metaspace(kf_tok_reader *r, const char *path, json_t *obj, kf_tok_str *out_char,
                           kf_str *out_scheme)
{
    json_t *scheme = json_object_get(obj, "prepend_scheme");
    bool prefix;
    *out_scheme =
        scheme != NULL && json_is_string(scheme) ? kf_tokr_value(scheme) : KF_STR("always");
    if (!read_char(r, path, obj, "replacement", out_char) ||
        !kf_tokr_bool(r, path, obj, "add_prefix_space", &yes, &prefix))
        return false;
    bool known = kf_str_eq_c(*out_scheme, "always") || kf_str_eq_c(*out_scheme, "first") ||
                 kf_str_eq_c(*out_scheme, "never");
    if ((scheme != NULL && !json_is_string(scheme)) || !known)
        return kf_tokr_malformed(r, kf_tokr_path(r, path, "prepend_scheme"),
                                 "expected \"always\", \"first\" or \"never\"");
    if (!prefix && scheme != NULL && !kf_str_eq_c(*out_scheme, "never"))
        return kf_tokr_malformed(r, kf_tokr_path(r, path, "add_prefix_space"),
                                 "contradicts prepend_scheme");
    if (!prefix)
        *out_scheme = KF_STR("never");
    return true;
}

static bool pre_metaspace(kf_tok_reader *r, const char *path, json_t *obj)
{
    kf_tok_str replacement;
    kf_str scheme;
    bool split;
    if (!read_metaspace(r, path, obj, &replacement, &scheme) ||
        !kf_tokr_bool(r, path, obj, "split", &yes, &split))
        return false;
    PUSH(pre, .kind = KF_TOK_PRE_REPLACE, .text = kf_tok_builder_str(&r->b, KF_STR(" ")),
         .text2 = replacement);
    if (!kf_str_eq_c(scheme, "never"))
        PUSH(pre, .kind = KF_TOK_PRE_PREFIX, .arg = kf_str_eq_c(scheme, "first"),
             .text = replacement);
    if (split)
        PUSH(pre, .kind = KF_TOK_PRE_SPLIT, .behavior = KF_TOK_SPLIT_MERGED_NEXT,
             .text = replacement);
    return true;
}

bool kf_tokr_pre_tokenizer(kf_tok_reader *r, const char *path, json_t *value)
{
    static const step_type types[] = {
        {"Sequence", pre_sequence, {"pretokenizers"}},
        {"ByteLevel", pre_byte_level, {"add_prefix_space", "trim_offsets", "use_regex"}},
        {"Split", pre_split, {"pattern", "behavior", "invert"}},
        {"Digits", pre_digits, {"individual_digits"}},
        {"Whitespace", pre_whitespace, {NULL}},
        {"WhitespaceSplit", pre_whitespace_split, {NULL}},
        {"Punctuation", pre_punctuation, {"behavior"}},
        {"CharDelimiterSplit", pre_delimiter, {"delimiter"}},
        {"Metaspace",
         pre_metaspace,
         {"replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"}},
        {NULL, NULL, {NULL}}};
    return read_step(r, path, value, types) && has_room(r, path, r->b.pre.len);
}

/* ---- Post-processor -------------------------------------------------------------------------- */

static bool post_sequence(kf_tok_reader *r, const char *path, json_t *obj)
{
    return read_sequence(r, path, obj, "processors", kf_tokr_post_processor);
}

/* Trims offsets, which are not made here. */
static bool post_byte_level(kf_tok_reader *r, const char *path, json_t *obj)
{
    (void)r;
    (void)path;
    (void)obj;
    return true;
}

typedef KF_VEC(uint32_t) id_list;

static bool add_special(kf_tok_reader *r, const char *path, json_t *specials, json_t *piece,
                        id_list *list)
{
    kf_str name;
    size_t index;
    json_t *item;
    if (!kf_tokr_string(r, path, piece, "id", &name))
        return false;
    json_t *ids = json_object_get(json_object_get(specials, name.ptr), "ids");
    if (!json_is_array(ids))
        return kf_tokr_malformed(r, path, "the special token is not in special_tokens");
    json_array_foreach(ids, index, item)
    {
        json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id >= (json_int_t)r->b.tokens.len || r->b.tokens.data[id].flags == 0)
            return kf_tokr_malformed(r, path, "the special token's id is not in the vocabulary");
        kf_vec_push(r->b.arena, list, (uint32_t)id);
    }
    return true;
}

/* Before what an earlier template put there. */
static void wrap_prefix(kf_tok_reader *r, id_list *front)
{
    for (uint32_t i = 0; i < r->b.prefix.len; i++)
        kf_vec_push(r->b.arena, front, r->b.prefix.data[i]);
    r->b.prefix.data = front->data;
    r->b.prefix.len = front->len;
    r->b.prefix.cap = front->cap;
}

static bool post_template(kf_tok_reader *r, const char *path, json_t *obj)
{
    size_t index;
    json_t *piece;
    json_t *single = json_object_get(obj, "single");
    id_list front = {0}, back = {0};
    bool seen = false;
    path = kf_tokr_path(r, path, "single");
    if (!json_is_array(single))
        return kf_tokr_malformed(r, path, "expected an array");
    json_array_foreach(single, index, piece)
    {
        const char *at = kf_tokr_item(r, path, index);
        json_t *sequence = json_object_get(piece, "Sequence");
        json_t *special = json_object_get(piece, "SpecialToken");
        json_t *id = json_object_get(sequence, "id");
        if (sequence != NULL && (seen || !json_is_string(id) || strcmp(json_string_value(id), "A")))
            return kf_tokr_unsupported(r, at, "only one sequence, A, is supported");
        if (sequence == NULL && special == NULL)
            return kf_tokr_malformed(r, at, "expected a Sequence or a SpecialToken");
        seen = seen || sequence != NULL;
        if (special != NULL && !add_special(r, at, json_object_get(obj, "special_tokens"), special,
                                            seen ? &back : &front))
            return false;
    }
    if (!seen)
        return kf_tokr_unsupported(r, path, "a template without a sequence");
    wrap_prefix(r, &front);
    for (uint32_t i = 0; i < back.len; i++)
        kf_vec_push(r->b.arena, &r->b.suffix, back.data[i]);
    return true;
}

bool kf_tokr_post_processor(kf_tok_reader *r, const char *path, json_t *value)
{
    static const step_type types[] = {
        {"Sequence", post_sequence, {"processors"}},
        {"ByteLevel", post_byte_level, {"add_prefix_space", "trim_offsets", "use_regex"}},
        {"TemplateProcessing", post_template, {"single", "pair", "special_tokens"}},
        {NULL, NULL, {NULL}}};
    return read_step(r, path, value, types);
}

/* ---- Decoder --------------------------------------------------------------------------------- */

/* The steps behind these see one text in pieces. */
static bool is_fused(const kf_tok_reader *r)
{
    for (uint32_t i = 0; i < r->b.dec.len; i++) {
        if (r->b.dec.data[i].kind == KF_TOK_DEC_FUSE || r->b.dec.data[i].kind == KF_TOK_DEC_BYTES)
            return true;
    }
    return false;
}

static bool dec_sequence(kf_tok_reader *r, const char *path, json_t *obj)
{
    return read_sequence(r, path, obj, "decoders", kf_tokr_decoder);
}

static bool dec_whole(kf_tok_reader *r, const char *path, uint32_t kind)
{
    if (is_fused(r))
        return kf_tokr_unsupported(r, path, "this step behind Fuse or ByteLevel");
    PUSH(dec, .kind = kind);
    return true;
}

static bool dec_byte_level(kf_tok_reader *r, const char *path, json_t *obj)
{
    (void)obj;
    return dec_whole(r, path, KF_TOK_DEC_BYTES);
}

static bool dec_byte_fallback(kf_tok_reader *r, const char *path, json_t *obj)
{
    (void)obj;
    return dec_whole(r, path, KF_TOK_DEC_BYTE_FALLBACK);
}

static bool dec_fuse(kf_tok_reader *r, const char *path, json_t *obj)
{
    (void)path;
    (void)obj;
    PUSH(dec, .kind = KF_TOK_DEC_FUSE);
    return true;
}

static bool dec_replace(kf_tok_reader *r, const char *path, json_t *obj)
{
    kf_tok_op op;
    if (!read_replace(r, path, obj, KF_TOK_DEC_REPLACE, &op))
        return false;
    if (op.arg == KF_TOK_PATTERN_REGEX && is_fused(r))
        return kf_tokr_unsupported(r, path, "a regular expression behind Fuse or ByteLevel");
    kf_vec_push(r->b.arena, &r->b.dec, op);
    return true;
}

static bool dec_strip(kf_tok_reader *r, const char *path, json_t *obj)
{
    kf_tok_op op = {.kind = KF_TOK_DEC_STRIP};
    json_t *start = json_object_get(obj, "start");
    json_t *stop = json_object_get(obj, "stop");
    if (!read_char(r, path, obj, "content", &op.text))
        return false;
    if (!json_is_integer(start) || json_integer_value(start) < 0 ||
        json_integer_value(start) > MAX_STRIP || !json_is_integer(stop) ||
        json_integer_value(stop) < 0 || json_integer_value(stop) > MAX_STRIP)
        return kf_tokr_malformed(r, path, "start and stop must be integers from 0 to 65535");
    op.arg = (uint32_t)json_integer_value(start);
    op.behavior = (uint32_t)json_integer_value(stop);
    kf_vec_push(r->b.arena, &r->b.dec, op);
    return true;
}

static bool dec_metaspace(kf_tok_reader *r, const char *path, json_t *obj)
{
    kf_tok_op op = {.kind = KF_TOK_DEC_META};
    kf_str scheme;
    if (!read_metaspace(r, path, obj, &op.text, &scheme))
        return false;
    op.arg = !kf_str_eq_c(scheme, "never");
    kf_vec_push(r->b.arena, &r->b.dec, op);
    return true;
}

bool kf_tokr_decoder(kf_tok_reader *r, const char *path, json_t *value)
{
    static const step_type types[] = {
        {"Sequence", dec_sequence, {"decoders"}},
        {"ByteLevel", dec_byte_level, {"add_prefix_space", "trim_offsets", "use_regex"}},
        {"ByteFallback", dec_byte_fallback, {NULL}},
        {"Fuse", dec_fuse, {NULL}},
        {"Replace", dec_replace, {"pattern", "content"}},
        {"Strip", dec_strip, {"content", "start", "stop"}},
        {"Metaspace",
         dec_metaspace,
         {"replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"}},
        {NULL, NULL, {NULL}}};
    if (value == NULL || json_is_null(value)) {
        PUSH(dec, .kind = KF_TOK_DEC_JOIN, .text = kf_tok_builder_str(&r->b, KF_STR(" ")));
        return true;
    }
    return read_step(r, path, value, types) && has_room(r, path, r->b.dec.len);
}
