/* SPDX-License-Identifier: Apache-2.0 */
/* schema - values by the type of their key, defaults, unknown keys and their suggestions. */
#include "frontend/schema.h"

#include "base/check.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ------------------------------------------------------------------------------- */

#define SCOPE(scope, type, title, summary) typedef type struct_##scope;
#define KEY(...)
#define NODE(...)
#define END(scope)
#include "frontend/schema.def"
#undef SCOPE
#undef KEY
#undef NODE
#undef END

/* A trailing empty row lets a scope have no keys. */
#define SCOPE(scope, type, title, summary) static const kf_key keys_##scope[] = {
#define KEY(scope, key, type, field, min, max, need, def, doc)                                     \
    {#key, KF_KEY_##type, offsetof(struct_##scope, field), min, max, KF_NEED_##need, def, doc},
#define NODE(scope, key, need, doc) {#key, KF_KEY_node, 0, 0, 0, KF_NEED_##need, "", doc},
#define END(scope)                                                                                 \
    { NULL, KF_KEY_node, 0, 0, 0, KF_NEED_OPT, "", "" } }                                          \
    ;
#include "frontend/schema.def"
#undef SCOPE
#undef KEY
#undef NODE
#undef END

const kf_scope_info kf_scope_infos[KF_SCOPE_COUNT] = {
#define SCOPE(scope, type, title, summary)                                                         \
    {title, summary, keys_##scope, sizeof keys_##scope / sizeof(kf_key) - 1},
#define KEY(...)
#define NODE(...)
#define END(scope)
#include "frontend/schema.def"
#undef SCOPE
#undef KEY
#undef NODE
#undef END
};

#define WORDS(set, ...) static const char *const words_##set[] = {__VA_ARGS__};
#include "frontend/schema.def"
#undef WORDS

const char *const *kf_word_names(kf_key_type set, uint32_t *out_n)
{
    switch (set) {
#define WORDS(set, ...)                                                                            \
    case KF_KEY_##set:                                                                             \
        *out_n = sizeof words_##set / sizeof *words_##set;                                         \
        return words_##set;
#include "frontend/schema.def"
#undef WORDS
    default:
        *out_n = 0;
        return NULL;
    }
}

/* Names of other dialects, for "in this file it is". */
static const struct key_alias {
    const char *alias, *key;
} key_aliases[] = {
    {"d_model", "hidden_size"},
    {"n_embd", "hidden_size"},
    {"embedding_length", "hidden_size"},
    {"base_emb_dim", "hidden_size"},
    {"dim", "hidden_size"},
    {"n_layer", "num_hidden_layers"},
    {"n_layers", "num_hidden_layers"},
    {"num_layers", "num_hidden_layers"},
    {"block_count", "num_hidden_layers"},
    {"n_head", "num_attention_heads"},
    {"n_heads", "num_attention_heads"},
    {"num_heads", "num_attention_heads"},
    {"head_count", "num_attention_heads"},
    {"n_query_groups", "num_key_value_heads"},
    {"n_kv_heads", "num_key_value_heads"},
    {"num_kv_heads", "num_key_value_heads"},
    {"head_count_kv", "num_key_value_heads"},
    {"base_num_kv_heads", "num_key_value_heads"},
    {"d_kv", "head_dim"},
    {"head_size", "head_dim"},
    {"key_length", "head_dim"},
    {"d_ff", "intermediate_size"},
    {"ffn_dim", "intermediate_size"},
    {"feed_forward_length", "intermediate_size"},
    {"base_mlp_dim", "intermediate_size"},
    {"block_size", "max_position_embeddings"},
    {"context_length", "max_position_embeddings"},
    {"seq_length", "max_position_embeddings"},
    {"norm_eps", "rms_norm_eps"},
    {"layer_norm_epsilon", "layer_norm_eps"},
    {"rope_theta", "rope"},
    {"rope_scaling", "rope"},
    {"rope_parameters", "rope"},
    {"tie_embeddings", "tie_word_embeddings"},
    {"torch_dtype", "dtype"},
    {"act", "hidden_act"},
    {"activation", "act"},
    {"heads", "num_attention_heads"},
    {"kv_heads", "num_key_value_heads"},
    {"ffn", "glu"},
    {"target", "targets"},
};

/* Spellings of types besides those of dtype.def. */
static const struct dtype_alias {
    const char *alias;
    kf_dtype dtype;
} dtype_aliases[] = {
    {"bfloat16", KF_DTYPE_bf16}, {"float16", KF_DTYPE_f16}, {"half", KF_DTYPE_f16},
    {"float32", KF_DTYPE_f32},   {"float", KF_DTYPE_f32},
};

/* Types that the format names but that cannot be stored yet. */
static const char *const later_dtypes[] = {"float8_e4m3", "fp8", "int8", "i8", "int4", "i4"};

const kf_key *kf_schema_find(kf_scope scope, kf_str name)
{
    if (scope >= KF_SCOPE_COUNT)
        return NULL;
    const kf_scope_info *info = &kf_scope_infos[scope];
    for (uint32_t i = 0; i < info->n_keys; i++)
        if (kf_str_eq_c(name, info->key[i].name))
            return &info->key[i];
    return NULL;
}

/** The key that |alias| means in one of the two scopes, or NULL. */
static const char *find_alias(kf_scope scope, kf_scope other, kf_str alias)
{
    for (size_t i = 0; i < sizeof key_aliases / sizeof *key_aliases; i++) {
        kf_str key = kf_str_from(key_aliases[i].key);
        if (kf_str_eq_c(alias, key_aliases[i].alias) &&
            (kf_schema_find(scope, key) != NULL || kf_schema_find(other, key) != NULL))
            return key_aliases[i].key;
    }
    return NULL;
}

static void add_hint_for_key(kf_reader *r, kf_scope scope, kf_scope other, kf_str name, kf_diag *d)
{
    enum { N_ALIASES = sizeof key_aliases / sizeof *key_aliases, MAX_KEYS = 128 };
    kf_str known[MAX_KEYS], aliases[N_ALIASES];
    uint32_t n = 0;
    for (uint32_t s = 0; s < 2; s++) {
        kf_scope in = s == 0 ? scope : other;
        for (uint32_t i = 0; in < KF_SCOPE_COUNT && i < kf_scope_infos[in].n_keys; i++) {
            KF_ASSERT(n < MAX_KEYS, "the keys of two scopes are few");
            known[n++] = kf_str_from(kf_scope_infos[in].key[i].name);
        }
    }
    for (uint32_t i = 0; i < N_ALIASES; i++)
        aliases[i] = kf_str_from(key_aliases[i].alias);
    const char *key = find_alias(scope, other, name);
    kf_str near = kf_str_nearest(name, known, n);
    if (key == NULL && near.len == 0)
        key = find_alias(scope, other, kf_str_nearest(name, aliases, N_ALIASES));
    if (key != NULL)
        kf_diag_hint(r->diags, d, "in this file it is '%s'", key);
    else if (near.len > 0)
        kf_diag_hint(r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
}

/* Reports |key| (a scalar node) as unknown among the keys of two scopes, with alias or nearest
 * name. */
static void report_unknown_key(kf_reader *r, kf_scope scope, kf_scope other,
                               const kf_yaml_node *key)
{
    kf_diag *d =
        kf_diag_add(r->diags, KF_E0102, key->loc, "unknown key '%.*s'", KF_STR_ARG(key->text));
    add_hint_for_key(r, scope, other, key->text, d);
    const kf_scope_info *info = &kf_scope_infos[scope];
    kf_diag_note(r->diags, d, KF_NO_LOC, "'%s' has %u keys; see docs/SPEC.md", info->title,
                 info->n_keys);
}

/* ---- values ---------------------------------------------------------------------------------- */

bool kf_expect_kind(kf_reader *r, const kf_yaml_node *node, kf_yaml_kind kind, const char *what)
{
    if (node->kind == kind)
        return true;
    kf_yaml_node wanted = {.kind = kind};
    kf_diag_add(r->diags, KF_E0105, node->loc, "'%s' is %s; this is %s", what,
                kf_yaml_kind_name(&wanted), kf_yaml_kind_name(node));
    return false;
}

static kf_diag *wrong_type(kf_reader *r, const kf_yaml_node *node, const char *name,
                           const char *wanted)
{
    if (node->kind != KF_YAML_SCALAR)
        return kf_diag_add(r->diags, KF_E0105, node->loc, "'%s' is %s; this is %s", name, wanted,
                           kf_yaml_kind_name(node));
    kf_str shown = {node->text.ptr, node->text.len < 60 ? node->text.len : 60};
    return kf_diag_add(r->diags, KF_E0105, node->loc, "'%s' is %s; this is '%.*s'%s", name, wanted,
                       KF_STR_ARG(shown), node->quoted ? " in quotes" : "");
}

/** Digits with single underscores between them, and for numbers a fraction and an exponent. */
static bool plain_number(const kf_yaml_node *node, bool is_int, char *out, size_t cap)
{
    if (node->kind != KF_YAML_SCALAR || node->quoted || node->text.len == 0 ||
        node->text.len >= cap)
        return false;
    const char *s = node->text.ptr;
    size_t n = 0;
    for (uint32_t i = 0; i < node->text.len; i++) {
        char before = i > 0 ? s[i - 1] : '\0', after = i + 1 < node->text.len ? s[i + 1] : '\0';
        bool digit = s[i] >= '0' && s[i] <= '9';
        if (s[i] == '_') {
            if (before < '0' || before > '9' || after < '0' || after > '9')
                return false;
            continue;
        }
        bool sign = (s[i] == '-' || s[i] == '+') && (i == 0 || before == 'e' || before == 'E');
        if (!digit && !sign && (is_int || strchr(".eE", s[i]) == NULL))
            return false;
        out[n++] = s[i];
    }
    out[n] = '\0';
    return n > 0;
}

static bool out_of_range(kf_reader *r, const kf_yaml_node *node, const char *name, double min,
                         double max)
{
    kf_sbuf b = {.arena = r->arena};
    kf_sbuf_printf(&b, "'%s' is %.*s; it must be ", name, KF_STR_ARG(node->text));
    if (min == max) {
        kf_sbuf_double(&b, min);
    } else {
        kf_sbuf_printf(&b, fabs(min) < 1e15 && min == floor(min) ? "%.0f to " : "%g to ", min);
        kf_sbuf_printf(&b, fabs(max) < 1e15 && max == floor(max) ? "%.0f" : "%g", max);
    }
    kf_diag_add(r->diags, KF_E0106, node->loc, "%.*s", KF_STR_ARG(kf_sbuf_view(&b)));
    return false;
}

bool kf_read_int(kf_reader *r, const kf_yaml_node *node, const char *name, double min, double max,
                 int64_t *out)
{
    char digits[40];
    char *end;
    errno = 0;
    if (!plain_number(node, true, digits, sizeof digits)) {
        wrong_type(r, node, name, "a whole number");
        return false;
    }
    int64_t v = strtoll(digits, &end, 10);
    if (*end != '\0' || end == digits) {
        wrong_type(r, node, name, "a whole number");
        return false;
    }
    if (errno == ERANGE || (double)v < min || (double)v > max)
        return out_of_range(r, node, name, min, max);
    *out = v;
    return true;
}

static bool read_num(kf_reader *r, const kf_yaml_node *node, const char *name, double min,
                     double max, double *out)
{
    char digits[80];
    char *end = NULL;
    double v = 0;
    if (plain_number(node, false, digits, sizeof digits))
        v = strtod(digits, &end);
    if (end == NULL || *end != '\0' || end == digits || !isfinite(v)) {
        wrong_type(r, node, name, "a number");
        return false;
    }
    if (v < min || v > max)
        return out_of_range(r, node, name, min, max);
    *out = v;
    return true;
}

static bool is_one_of(kf_str s, const char *const *list)
{
    for (; *list != NULL; list++)
        if (kf_str_eq_c(s, *list))
            return true;
    return false;
}

static bool read_bool(kf_reader *r, const kf_yaml_node *node, const char *name, bool *out)
{
    static const char *const yes[] = {"yes",  "Yes",  "YES", "on", "On", "ON",
                                      "True", "TRUE", "y",   "Y",  "1",  NULL};
    static const char *const no[] = {"no",    "No",    "NO", "off", "Off", "OFF",
                                     "False", "FALSE", "n",  "N",   "0",   NULL};
    if (node->kind == KF_YAML_SCALAR && !node->quoted) {
        *out = kf_str_eq_c(node->text, "true");
        if (*out || kf_str_eq_c(node->text, "false"))
            return true;
    }
    kf_diag *d = wrong_type(r, node, name, "true or false");
    if (node->kind == KF_YAML_SCALAR && (is_one_of(node->text, yes) || is_one_of(node->text, no)))
        kf_diag_hint(r->diags, d, "write %s", is_one_of(node->text, yes) ? "true" : "false");
    return false;
}

static bool read_str(kf_reader *r, const kf_yaml_node *node, const char *name, double min,
                     double max, kf_str *out)
{
    if (node->kind != KF_YAML_SCALAR) {
        wrong_type(r, node, name, "a string");
        return false;
    }
    if (node->text.len < min || node->text.len > max) {
        kf_diag_add(r->diags, KF_E0106, node->loc,
                    "'%s' has %u characters; it must have %.0f to %.0f", name, node->text.len, min,
                    max);
        return false;
    }
    *out = node->text;
    return true;
}

static bool read_dtype(kf_reader *r, const kf_yaml_node *node, const char *name, kf_dtype *out)
{
    if (node->kind != KF_YAML_SCALAR) {
        wrong_type(r, node, name, "a type");
        return false;
    }
    for (size_t i = 0; i < sizeof dtype_aliases / sizeof *dtype_aliases; i++)
        if (kf_str_eq_c(node->text, dtype_aliases[i].alias)) {
            *out = dtype_aliases[i].dtype;
            return true;
        }
    for (size_t i = 0; i < sizeof later_dtypes / sizeof *later_dtypes; i++)
        if (kf_str_eq_c(node->text, later_dtypes[i])) {
            kf_diag_add(r->diags, KF_E0307, node->loc, "'%s': storing as %s is not supported yet",
                        name, later_dtypes[i]);
            return false;
        }
    if (kf_dtype_find(node->text, out) && kf_dtype_infos[*out].kind == KF_KIND_FLOAT)
        return true;
    static const kf_str known[] = {{"bfloat16", 8}, {"float16", 7}, {"float32", 7},
                                   {"bf16", 4},     {"f16", 3},     {"f32", 3}};
    kf_diag *d = kf_diag_add(r->diags, KF_E0113, node->loc,
                             "'%s' is bfloat16, float16 or float32; this is '%.*s'", name,
                             KF_STR_ARG(node->text));
    kf_str near = kf_str_nearest(node->text, known, 6);
    if (near.len > 0)
        kf_diag_hint(r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
    return false;
}

/** "512MiB": a whole number and a unit. */
static bool read_memory(kf_reader *r, const kf_yaml_node *node, const char *name, int64_t *out)
{
    static const struct unit {
        const char *name;
        int64_t bytes;
    } units[] = {{"B", 1},         {"KiB", 1 << 10},   {"MiB", 1 << 20},
                 {"GiB", 1 << 30}, {"TiB", 1ll << 40}, {"KB", 1000},
                 {"MB", 1000000},  {"GB", 1000000000}, {"TB", 1000000000000}};
    if (node->kind != KF_YAML_SCALAR || node->text.len == 0 || node->text.len > 40) {
        wrong_type(r, node, name, "an amount of memory like 512MiB");
        return false;
    }
    char *end;
    errno = 0;
    int64_t v = strtoll(node->text.ptr, &end, 10);
    if (end == node->text.ptr || errno != 0) {
        wrong_type(r, node, name, "an amount of memory like 512MiB");
        return false;
    }
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        if (v >= 1 && !__builtin_mul_overflow(v, units[i].bytes, out))
            return true;
        kf_diag_add(r->diags, KF_E0106, node->loc,
                    "'%s' is %.*s; it must be above 0 and below 2^63 bytes", name,
                    KF_STR_ARG(node->text));
        return false;
    }
    kf_diag *d = kf_diag_add(r->diags, KF_E0112, node->loc,
                             "'%s' needs a unit: B, KiB, MiB, GiB or TiB", name);
    if (*end == '\0')
        kf_diag_hint(r->diags, d, "%lldMiB?", (long long)v);
    return false;
}

static bool read_word(kf_reader *r, const kf_yaml_node *node, const kf_key *key, int *out)
{
    uint32_t n;
    const char *const *names = kf_word_names(key->type, &n);
    kf_str known[16];
    kf_sbuf list = {.arena = r->arena};
    KF_ASSERT(n <= 16, "word sets are small");
    if (node->kind != KF_YAML_SCALAR) {
        wrong_type(r, node, key->name, "a word");
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (kf_str_eq_c(node->text, names[i])) {
            *out = (int)i;
            return true;
        }
        known[i] = kf_str_from(names[i]);
        kf_sbuf_printf(&list, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", names[i]);
    }
    kf_diag *d = kf_diag_add(r->diags, KF_E0113, node->loc, "'%s' is %.*s; this is '%.*s'",
                             key->name, KF_STR_ARG(kf_sbuf_view(&list)), KF_STR_ARG(node->text));
    kf_str near = kf_str_nearest(node->text, known, n);
    if (near.len > 0)
        kf_diag_hint(r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
    return false;
}

static bool read_strs(kf_reader *r, const kf_yaml_node *node, const kf_key *key, kf_sv_strs *out)
{
    bool is_list = node->kind == KF_YAML_SEQ, ok = true;
    uint32_t n = is_list ? node->n : 1;
    kf_str *v = KF_NEW_N(r->arena, kf_str, n + 1);
    kf_loc *at = KF_NEW_N(r->arena, kf_loc, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        const kf_yaml_node *item = is_list ? node->u.items[i] : node;
        ok = read_str(r, item, key->name, key->min, key->max, &v[i]) && ok;
        at[i] = item->loc;
    }
    out->v = v;
    out->at = at;
    out->n = n;
    return ok;
}

static bool read_ints(kf_reader *r, const kf_yaml_node *node, const kf_key *key, kf_sv_ints *out)
{
    bool is_list = node->kind == KF_YAML_SEQ, ok = true;
    uint32_t n = is_list ? node->n : 1;
    int64_t *v = KF_NEW_N(r->arena, int64_t, n + 1);
    for (uint32_t i = 0; i < n; i++)
        ok = kf_read_int(r, is_list ? node->u.items[i] : node, key->name, key->min, key->max,
                         &v[i]) &&
             ok;
    out->v = v;
    out->n = n;
    return ok;
}

static bool read_expr_text(kf_reader *r, const kf_yaml_node *node, const kf_key *key,
                           kf_sv_expr *out)
{
    if (node->kind != KF_YAML_SCALAR) {
        wrong_type(r, node, key->name, "an expression");
        return false;
    }
    out->text = node->text;
    return true;
}

static kf_src *src_of(const kf_key *key, void *sv)
{
    switch (key->type) {
    case KF_KEY_int:
    case KF_KEY_memory:
        return &((kf_sv_int *)sv)->src;
    case KF_KEY_num:
        return &((kf_sv_num *)sv)->src;
    case KF_KEY_bool:
        return &((kf_sv_bool *)sv)->src;
    case KF_KEY_str:
        return &((kf_sv_str *)sv)->src;
    case KF_KEY_dtype:
        return &((kf_sv_dtype *)sv)->src;
    case KF_KEY_strs:
        return &((kf_sv_strs *)sv)->src;
    case KF_KEY_ints:
        return &((kf_sv_ints *)sv)->src;
    case KF_KEY_act:
    case KF_KEY_mask:
    case KF_KEY_score:
    case KF_KEY_prob:
        return &((kf_sv_expr *)sv)->src;
    default:
        return &((kf_sv_word *)sv)->src;
    }
}

static bool read_value(kf_reader *r, const kf_yaml_node *node, const kf_key *key, void *sv)
{
    switch (key->type) {
    case KF_KEY_int:
        return kf_read_int(r, node, key->name, key->min, key->max, &((kf_sv_int *)sv)->v);
    case KF_KEY_num:
        return read_num(r, node, key->name, key->min, key->max, &((kf_sv_num *)sv)->v);
    case KF_KEY_bool:
        return read_bool(r, node, key->name, &((kf_sv_bool *)sv)->v);
    case KF_KEY_str:
        return read_str(r, node, key->name, key->min, key->max, &((kf_sv_str *)sv)->v);
    case KF_KEY_dtype:
        return read_dtype(r, node, key->name, &((kf_sv_dtype *)sv)->v);
    case KF_KEY_memory:
        return read_memory(r, node, key->name, &((kf_sv_int *)sv)->v);
    case KF_KEY_strs:
        return read_strs(r, node, key, sv);
    case KF_KEY_ints:
        return read_ints(r, node, key, sv);
    case KF_KEY_act:
    case KF_KEY_mask:
    case KF_KEY_score:
    case KF_KEY_prob:
        return read_expr_text(r, node, key, sv);
    case KF_KEY_node:
        return true;
    default:
        return read_word(r, node, key, &((kf_sv_word *)sv)->v);
    }
}

static bool read_default(kf_reader *r, const kf_key *key, void *sv)
{
    if (key->def[0] == '\0' || key->type == KF_KEY_node)
        return true;
    kf_yaml_node node = {.kind = KF_YAML_SCALAR, .text = kf_str_from(key->def)};
    return read_value(r, &node, key, sv);
}

static void report_missing(kf_reader *r, kf_scope scope, const kf_key *key, kf_src owner)
{
    kf_diag *d = kf_diag_add(r->diags, KF_E0104, owner.loc, "'%s' needs the key '%s'",
                             kf_scope_infos[scope].title, key->name);
    kf_diag_note(r->diags, d, KF_NO_LOC, "%s: %s", key->name, key->doc);
}

bool kf_schema_read(kf_reader *r, kf_scope scope, kf_scope other, const kf_yaml_node *map,
                    kf_src owner, void *out)
{
    const kf_scope_info *info = &kf_scope_infos[scope];
    bool ok = true;
    if (map != NULL && !kf_expect_kind(r, map, KF_YAML_MAP, info->title))
        return false;
    for (uint32_t i = 0; i < info->n_keys; i++) {
        const kf_key *key = &info->key[i];
        void *sv = (char *)out + key->offset;
        const kf_yaml_node *node = kf_yaml_get(map, key->name);
        if (node == NULL && key->need == KF_NEED_REQ) {
            report_missing(r, scope, key, owner);
            ok = false;
        } else if (node == NULL) {
            ok = read_default(r, key, sv) && ok;
        } else if (key->type != KF_KEY_node) {
            ok = read_value(r, node, key, sv) && ok;
            *src_of(key, sv) = (kf_src){node->loc, node->origin};
        }
    }
    for (uint32_t i = 0; map != NULL && i < map->n; i++) {
        const kf_yaml_node *key = map->u.pairs[i].key;
        if (kf_schema_find(scope, key->text) != NULL || kf_schema_find(other, key->text) != NULL)
            continue;
        ok = false;
        if (kf_diags_errors(r->diags) >= KF_DIAG_MAX_ERRORS)
            break; /* suggestions cost more than the reader sees of them */
        report_unknown_key(r, scope, other, key);
    }
    return ok;
}

bool kf_read_expr(kf_reader *r, const kf_yaml_node *map, const char *key, kf_expr_kind kind,
                  kf_expr_env env, kf_sv_expr *sv)
{
    const kf_yaml_node *node = kf_yaml_get(map, key);
    kf_yaml_node def = {.kind = KF_YAML_SCALAR, .text = sv->text};
    if (node == NULL && sv->text.len == 0)
        return true;
    if (node != NULL && node->kind != KF_YAML_SCALAR)
        return false; /* reported as a wrong type */
    sv->expr = kf_expr_parse(r->arena, r->diags, node != NULL ? node : &def, kind, env);
    if (sv->expr == NULL || kind != KF_EXPR_ACT || kf_expr_uses(sv->expr, KF_EXPR_X))
        return sv->expr != NULL;
    kf_diag_add(r->diags, KF_E0107, node->loc, "'%s' does not depend on x", key);
    return false;
}

/* ---- questions ------------------------------------------------------------------------------- */

kf_src kf_key_src(const kf_key *key, const void *sv)
{
    /* src_of serves reading and so takes what it may change; here nothing is. */
    return *src_of(key, (void *)(uintptr_t)sv);
}

bool kf_key_is_default(kf_arena *arena, const kf_key *key, const void *sv)
{
    union {
        kf_sv_int i;
        kf_sv_num n;
        kf_sv_strs s;
        kf_sv_expr e;
    } def = {0};
    if (key->def[0] == '\0')
        return false;
    kf_reader r = {.arena = arena, .diags = kf_diags_create(arena)};
    bool ok = read_default(&r, key, &def);
    KF_ASSERT(ok, "defaults of the schema are valid");
    kf_sbuf a = {.arena = arena}, b = {.arena = arena};
    kf_key_print(key, &def, &a);
    kf_key_print(key, sv, &b);
    return kf_str_eq(kf_sbuf_view(&a), kf_sbuf_view(&b));
}
