/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors - checks in the order of the format: length, text, shape of the JSON, entries,
 * tiling. */
#include "frontend/safetensors.h"

#include "base/json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Types of the format and their bits (safetensors/src/tensor.rs). */
static const struct st_type {
    const char *name;
    uint32_t bits;
} st_types[] = {
    {"BOOL", 8},        {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8},     {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
    {"U16", 16},        {"F16", 16},        {"BF16", 16},   {"I32", 32},    {"U32", 32},
    {"F32", 32},        {"C64", 64},        {"F64", 64},    {"I64", 64},    {"U64", 64},
    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
};

typedef struct st_reader {
    kf_arena *arena;
    kf_diags *diags;
    kf_loc loc; /* the file as a whole */
    uint64_t data_size;
    kf_st_tensor *tensor;
    uint32_t n_tensors;
} st_reader;

#define malformed(r, ...) (kf_diag_add((r)->diags, KF_E0302, (r)->loc, __VA_ARGS__), false)

bool kf_st_header_size(kf_diags *diags, uint32_t file, kf_str first8, uint64_t file_size,
                       uint32_t *out_size)
{
    kf_loc loc = {file, 0, 0, 0};
    if (file_size < 8 || first8.len < 8) {
        kf_diag_add(diags, KF_E0303, loc, "the file has %llu bytes, too few for a header length",
                    (unsigned long long)file_size);
        return false;
    }
    uint64_t n = 0;
    for (uint32_t i = 8; i-- > 0;)
        n = n << 8 | (uint8_t)first8.ptr[i];
    if (n < 2 || n > KF_ST_MAX_HEADER) {
        kf_diag_add(diags, KF_E0302, loc, "the header length is %llu; it must be 2 to %u",
                    (unsigned long long)n, KF_ST_MAX_HEADER);
        return false;
    }
    if (n > file_size - 8) {
        kf_diag_add(diags, KF_E0303, loc, "the header needs %llu bytes, the file has %llu",
                    (unsigned long long)n + 8, (unsigned long long)file_size);
        return false;
    }
    *out_size = (uint32_t)n;
    return true;
}

/** Counts before jansson allocates: depth, and items that bound its memory. */
static bool check_text(st_reader *r, kf_str text)
{
    if (text.ptr[0] != '{')
        return malformed(r, "the header does not begin with '{'");
    uint32_t depth = 0, opened = 0, items = 0, last = 0;
    bool in_string = false;
    for (uint32_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c != ' ')
            last = i;
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        depth += c == '{' || c == '[';
        opened += c == '{' || c == '[';
        items += c == ',';
        if (depth > 3)
            return malformed(r, "the header nests deeper than the format does");
        depth -= depth > 0 && (c == '}' || c == ']');
    }
    if (text.ptr[last] != '}')
        return malformed(r, "something other than spaces follows the header's '}'");
    if (opened > 3 * KF_ST_MAX_TENSORS + 2 || items > 12 * KF_ST_MAX_TENSORS)
        return malformed(r, "more than %u tensors", KF_ST_MAX_TENSORS);
    return true;
}

static const struct st_type *find_type(const char *name)
{
    for (size_t i = 0; i < sizeof st_types / sizeof *st_types; i++)
        if (strcmp(st_types[i].name, name) == 0)
            return &st_types[i];
    return NULL;
}

static bool find_dtype(kf_str type, kf_dtype *out_dtype)
{
    for (int d = 0; d < KF_DTYPE_COUNT; d++) {
        if (!kf_str_eq_c(type, kf_dtype_infos[d].safetensors))
            continue;
        *out_dtype = (kf_dtype)d;
        return true;
    }
    return false;
}

/** A whole number that is not negative; jansson itself refuses what exceeds 2^63 - 1. */
static bool get_size(const json_t *v, uint64_t *out_size)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out_size = (uint64_t)json_integer_value(v);
    return true;
}

static bool read_shape(st_reader *r, kf_st_tensor *t, const json_t *shape, uint32_t bits)
{
    size_t rank = json_is_array(shape) ? json_array_size(shape) : KF_ST_MAX_RANK + 1;
    if (rank > KF_ST_MAX_RANK)
        return malformed(r, "tensor '%.*s': shape is not a list of at most %u sizes",
                         KF_STR_ARG(t->name), KF_ST_MAX_RANK);
    int64_t *dim = KF_NEW_N(r->arena, int64_t, rank + 1);
    uint64_t total_bits = bits, v = 0;
    for (size_t i = 0; i < rank; i++) {
        if (!get_size(json_array_get(shape, i), &v))
            return malformed(r, "tensor '%.*s': a size of its shape is not a whole number >= 0",
                             KF_STR_ARG(t->name));
        dim[i] = (int64_t)v;
        if (__builtin_mul_overflow(total_bits, v, &total_bits))
            return malformed(r, "tensor '%.*s': the product of its shape overflows",
                             KF_STR_ARG(t->name));
    }
    t->rank = (uint8_t)rank;
    t->dim = dim;
    if (total_bits % 8 != 0 || total_bits / 8 != t->end - t->begin)
        return malformed(
            r, "tensor '%.*s': shape and type need %llu bits, its offsets span %llu bytes",
            KF_STR_ARG(t->name), (unsigned long long)total_bits,
            (unsigned long long)(t->end - t->begin));
    return true;
}

static bool read_offsets(st_reader *r, kf_st_tensor *t, const json_t *offsets)
{
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !get_size(json_array_get(offsets, 0), &t->begin) ||
        !get_size(json_array_get(offsets, 1), &t->end))
        return malformed(r, "tensor '%.*s': data_offsets are not two whole numbers >= 0",
                         KF_STR_ARG(t->name));
    if (t->begin > t->end)
        return malformed(r, "tensor '%.*s': data_offsets begin at %llu and end at %llu",
                         KF_STR_ARG(t->name), (unsigned long long)t->begin,
                         (unsigned long long)t->end);
    return true;
}

static bool read_entry(st_reader *r, kf_str name, json_t *entry)
{
    if (name.len == 0 || name.len > KF_ST_MAX_NAME)
        return malformed(r, "a tensor name of %u bytes; 1 to %u are allowed", name.len,
                         KF_ST_MAX_NAME);
    kf_st_tensor *t = &r->tensor[r->n_tensors];
    t->name = kf_str_dup(r->arena, name);
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (!json_is_object(entry) || json_object_size(entry) != 3 || type == NULL)
        return malformed(r, "tensor '%.*s': not an object of dtype, shape and data_offsets",
                         KF_STR_ARG(t->name));
    const struct st_type *st = find_type(type);
    if (st == NULL)
        return malformed(r, "tensor '%.*s': unknown dtype '%.40s'", KF_STR_ARG(t->name), type);
    t->type = kf_str_from(st->name);
    t->has_dtype = find_dtype(t->type, &t->dtype);
    if (!read_offsets(r, t, json_object_get(entry, "data_offsets")) ||
        !read_shape(r, t, json_object_get(entry, "shape"), st->bits))
        return false;
    r->n_tensors++;
    return true;
}

static bool check_metadata(st_reader *r, json_t *metadata)
{
    if (!json_is_object(metadata))
        return malformed(r, "__metadata__ is not an object");
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return malformed(r, "__metadata__: the value of '%.80s' is not a string", key);
    }
    return true;
}

static int compare_offsets(const void *a, const void *b)
{
    const kf_st_tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return kf_str_cmp(x->name, y->name);
}

/** The data area must be covered exactly once. */
static bool check_tiling(st_reader *r)
{
    qsort(r->tensor, r->n_tensors, sizeof *r->tensor, compare_offsets);
    uint64_t at = 0;
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        const kf_st_tensor *t = &r->tensor[i];
        if (t->begin != at)
            return malformed(r, "tensor '%.*s' begins at byte %llu, %s byte %llu",
                             KF_STR_ARG(t->name), (unsigned long long)t->begin,
                             t->begin < at ? "overlapping the one that ends at"
                                           : "leaving a hole from",
                             (unsigned long long)at);
        at = t->end;
        if (at > r->data_size) {
            kf_diag_add(r->diags, KF_E0303, r->loc,
                        "tensor '%.*s' ends at byte %llu of the data, the file has %llu",
                        KF_STR_ARG(t->name), (unsigned long long)at,
                        (unsigned long long)r->data_size);
            return false;
        }
    }
    if (at != r->data_size)
        return malformed(r, "%llu bytes behind the last tensor belong to none",
                         (unsigned long long)(r->data_size - at));
    return true;
}

static bool read_entries(st_reader *r, json_t *root)
{
    if (json_object_size(root) > KF_ST_MAX_TENSORS + 1)
        return malformed(r, "more than %u tensors", KF_ST_MAX_TENSORS);
    r->tensor = KF_NEW_N(r->arena, kf_st_tensor, json_object_size(root) + 1);
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        bool ok = strcmp(key, "__metadata__") == 0 ? check_metadata(r, value)
                                                   : read_entry(r, kf_str_from(key), value);
        if (!ok)
            return false;
    }
    return check_tiling(r);
}

bool kf_st_parse(kf_arena *arena, kf_diags *diags, uint32_t file, kf_str head, uint64_t file_size,
                 kf_st_header *out_header)
{
    uint32_t n;
    if (!kf_st_header_size(diags, file, head, file_size, &n))
        return false;
    st_reader r = {
        .arena = arena, .diags = diags, .loc = {file, 0, 0, 0}, .data_size = file_size - 8 - n};
    if (head.len - 8 < n) {
        kf_diag_add(diags, KF_E0303, r.loc, "the file became shorter while its header was read");
        return false;
    }
    kf_str text = {head.ptr + 8, n};
    if (!check_text(&r, text))
        return false;
    json_error_t error;
    json_t *root = json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return malformed(&r, "the header is not JSON: %s (byte %d)", error.text, error.position);
    bool ok = read_entries(&r, root);
    json_decref(root);
    *out_header = (kf_st_header){r.tensor, r.n_tensors, 8 + (uint64_t)n};
    for (uint32_t i = 0; ok && i < r.n_tensors; i++) {
        r.tensor[i].begin += 8 + (uint64_t)n;
        r.tensor[i].end += 8 + (uint64_t)n;
    }
    return ok;
}

kf_str kf_st_write_header(kf_arena *arena, const kf_st_tensor *tensors, uint32_t n_tensors)
{
    kf_sbuf out = {.arena = arena};
    kf_sbuf_c(&out, "........{\"__metadata__\":{\"format\":\"pt\"}");
    uint64_t at = 0;
    for (uint32_t i = 0; i < n_tensors; i++) {
        const kf_st_tensor *t = &tensors[i];
        uint64_t size = kf_dtype_infos[t->dtype].bytes;
        kf_sbuf_char(&out, ',');
        kf_json name = {.out = &out}; /* checkpoint names need JSON's escapes, not ours */
        kf_json_str(&name, t->name);
        kf_sbuf_printf(&out, ":{\"dtype\":\"%s\",\"shape\":[",
                       kf_dtype_infos[t->dtype].safetensors);
        for (uint32_t d = 0; d < t->rank; d++) {
            kf_sbuf_printf(&out, "%s%lld", d > 0 ? "," : "", (long long)t->dim[d]);
            size *= (uint64_t)t->dim[d];
        }
        kf_sbuf_printf(&out, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                       (unsigned long long)(at + size));
        at += size;
    }
    kf_sbuf_char(&out, '}');
    while (out.len % 8 != 0)
        kf_sbuf_char(&out, ' ');
    uint64_t n = out.len - 8;
    for (uint32_t i = 0; i < 8; i++)
        out.ptr[i] = (char)(n >> (8 * i));
    return kf_sbuf_view(&out);
}
