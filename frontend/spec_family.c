/* SPDX-License-Identifier: Apache-2.0 */
/* spec_family - a family written out as the open composition that it stands for.
 *
 * A preset is YAML with holes: `$key` is the value of that key of the description, `${key}` inside
 * a longer scalar its text. Beside the keys there are a few derived values (rows of `derived`).
 * What has no value leaves its pair out. A key that the preset has no hole for is an error, so that
 * no dimension is silently ignored.
 */
#include "frontend/presets/preset.h"
#include "frontend/spec_read.h"

#include <math.h>
#include <string.h>

typedef struct expander {
    kf_reader *r;
    const kf_yaml_node *root;
    const kf_yaml_node *task; /* the mapping of `task: {WORD: {...}}`, or NULL */
    kf_src owner;
    kf_schema_family dims; /* typed; read before the composition is written out */
    int64_t positions;
    uint64_t used; /* keys of KF_SCOPE_FAMILY by number */
} expander;

static kf_yaml_node *lookup(expander *x, const char *key);

/* ---- derived values -------------------------------------------------------------------------- */

static kf_yaml_node *tied(expander *x)
{
    kf_yaml_node *tie = lookup(x, "tie_word_embeddings");
    if (!kf_str_eq_c(tie->text, "true"))
        return NULL;
    return kf_yaml_new_scalar(x->r->arena, KF_STR("embedding"), tie->loc, tie->origin);
}

/** A window that no sequence can outgrow is none. */
static kf_yaml_node *mask(expander *x)
{
    const kf_yaml_node *window = lookup(x, "sliding_window");
    if (window == NULL || x->dims.sliding_window.v >= x->positions)
        return kf_yaml_new_scalar(x->r->arena, KF_STR("causal"), x->owner.loc, KF_ORIGIN_FAMILY);
    kf_str text =
        kf_strf(x->r->arena, "causal & window(%lld)", (long long)x->dims.sliding_window.v);
    return kf_yaml_new_scalar(x->r->arena, text, window->loc, window->origin);
}

static kf_yaml_node *number(expander *x, const kf_yaml_node *from, double v)
{
    kf_sbuf text = {.arena = x->r->arena};
    kf_sbuf_double(&text, v);
    return kf_yaml_new_scalar(x->r->arena, kf_sbuf_view(&text), from->loc, from->origin);
}

/** The value of |key| as a number of 1 to INT32_MAX, NAN after reporting or when there is none. */
static double number_of(expander *x, const char *key, kf_yaml_node **out_node)
{
    int64_t v;
    *out_node = lookup(x, key);
    return *out_node != NULL && kf_read_int(x->r, *out_node, key, 1, INT32_MAX, &v) ? (double)v
                                                                                    : NAN;
}

static kf_yaml_node *four_hidden_sizes(expander *x)
{
    kf_yaml_node *node;
    double v = number_of(x, "hidden_size", &node);
    return isnan(v) ? NULL : number(x, node, 4 * v);
}

static kf_yaml_node *root_of_hidden_size(expander *x)
{
    kf_yaml_node *node;
    double v = number_of(x, "hidden_size", &node);
    return isnan(v) ? NULL : number(x, node, sqrt(v));
}

static kf_yaml_node *scale_of_query(expander *x)
{
    kf_yaml_node *node = lookup(x, "query_pre_attn_scalar");
    return node == NULL ? NULL : number(x, node, 1 / sqrt(x->dims.query_pre_attn_scalar.v));
}

/* feed_forward_proj: an activation, or "gated-" and one; the authors' gated gelu is the tanh one.
 */
static kf_yaml_node *feed_forward(expander *x)
{
    kf_yaml_node *proj = lookup(x, "feed_forward_proj");
    bool gated = kf_str_starts_with(proj->text, "gated-");
    return kf_yaml_new_scalar(x->r->arena, gated ? KF_STR("glu") : KF_STR("mlp"), proj->loc,
                              proj->origin);
}

static kf_yaml_node *feed_forward_act(expander *x)
{
    kf_yaml_node *proj = lookup(x, "feed_forward_proj");
    uint32_t skip = kf_str_starts_with(proj->text, "gated-") ? 6 : 0;
    kf_str act =
        kf_str_eq_c(proj->text, "gated-gelu")
            ? KF_STR("gelu_tanh")
            : kf_str_dup(x->r->arena, (kf_str){proj->text.ptr + skip, proj->text.len - skip});
    return kf_yaml_new_scalar(x->r->arena, act, proj->loc, proj->origin);
}

static kf_yaml_node *decoder_output_act(expander *x)
{
    kf_yaml_node *scaled = lookup(x, "scale_decoder_outputs"), *node;
    double size = number_of(x, "hidden_size", &node);
    if (isnan(size) || !kf_str_eq_c(scaled->text, "true"))
        return NULL;
    kf_sbuf text = {.arena = x->r->arena};
    kf_sbuf_c(&text, "x * ");
    kf_sbuf_double(&text, 1 / sqrt(size));
    return kf_yaml_new_scalar(x->r->arena, kf_sbuf_view(&text), scaled->loc, scaled->origin);
}

static const struct derived {
    const char *name;
    kf_yaml_node *(*make)(expander *x);
} derived[] = {
    {"tied", tied},
    {"mask", mask},
    {"4*hidden_size", four_hidden_sizes},
    {"sqrt(hidden_size)", root_of_hidden_size},
    {"1/sqrt(query_pre_attn_scalar)", scale_of_query},
    {"feed_forward", feed_forward},
    {"feed_forward_act", feed_forward_act},
    {"decoder_output_act", decoder_output_act},
};

/* $key of a preset that is another key's value when not given itself. */
static const struct fallback {
    const char *key, *then;
} fallbacks[] = {
    {"qkv_bias", "attention_bias"},
    {"o_bias", "attention_bias"},
    {"qk_norm_eps", "rms_norm_eps"},
    {"num_decoder_layers", "num_hidden_layers"},
    {"scale_decoder_outputs", "tie_word_embeddings"},
};

/* ---- holes ----------------------------------------------------------------------------------- */

static void mark_used(expander *x, const char *key)
{
    const kf_key *row = kf_schema_find(KF_SCOPE_FAMILY, kf_str_from(key));
    if (row != NULL)
        x->used |= 1ull << (row - kf_scope_infos[KF_SCOPE_FAMILY].key);
    for (size_t i = 0; i < sizeof fallbacks / sizeof *fallbacks; i++)
        if (strcmp(key, fallbacks[i].key) == 0)
            mark_used(x, fallbacks[i].then);
}

/** The node that $|key| stands for; NULL for none. */
static kf_yaml_node *lookup(expander *x, const char *key)
{
    for (size_t i = 0; i < sizeof derived / sizeof *derived; i++)
        if (strcmp(key, derived[i].name) == 0)
            return derived[i].make(x);
    mark_used(x, key);
    kf_yaml_node *given = kf_yaml_get(x->root, key);
    if (given == NULL)
        given = kf_yaml_get(x->task, key);
    if (given != NULL)
        return given;
    if (strcmp(key, "rope") == 0) {
        kf_yaml_node like = {.loc = x->owner.loc, .origin = KF_ORIGIN_FAMILY, .height = 1};
        return kf_yaml_new_map(x->r->arena, &like, NULL, 0);
    }
    for (size_t i = 0; i < sizeof fallbacks / sizeof *fallbacks; i++)
        if (strcmp(key, fallbacks[i].key) == 0)
            return lookup(x, fallbacks[i].then);
    const kf_key *row = kf_schema_find(KF_SCOPE_FAMILY, kf_str_from(key));
    return row != NULL && row->def[0] != '\0'
               ? kf_yaml_new_scalar(x->r->arena, kf_str_from(row->def), x->owner.loc,
                                    KF_ORIGIN_FAMILY)
               : NULL;
}

/** |text| with every ${key} replaced; NULL when one stands for nothing. */
static kf_yaml_node *fill_holes(expander *x, const char *text)
{
    kf_sbuf out = {.arena = x->r->arena};
    const kf_yaml_node *last = NULL;
    for (const char *hole; (hole = strstr(text, "${")) != NULL; text = strchr(hole, '}') + 1) {
        kf_str key = {hole + 2, (uint32_t)(strchr(hole, '}') - hole - 2)};
        last = lookup(x, kf_str_dup(x->r->arena, key).ptr);
        if (last == NULL || last->kind != KF_YAML_SCALAR)
            return NULL;
        kf_sbuf_printf(&out, "%.*s%.*s", (int)(hole - text), text, KF_STR_ARG(last->text));
    }
    kf_sbuf_c(&out, text);
    return kf_yaml_new_scalar(x->r->arena, kf_sbuf_view(&out), last->loc, last->origin);
}

/** A block's place is that of the first dimension that the user gave it (the spec's before
 * config.json's), else where the family was named. */
static void point_at_dimension(kf_yaml_node *word, const kf_yaml_node *keys)
{
    kf_origin best = KF_ORIGIN_FAMILY;
    for (uint32_t i = 0; keys->kind == KF_YAML_MAP && i < keys->n; i++) {
        const kf_yaml_node *value = keys->u.pairs[i].value;
        if (value->origin <= best)
            continue;
        word->loc = value->loc;
        best = value->origin;
    }
}

/** A copy of the preset's node with every $key replaced; NULL when it stands for nothing. */
static kf_yaml_node *instantiate(expander *x, const kf_yaml_node *node)
{
    if (node->kind == KF_YAML_SCALAR && strstr(node->text.ptr, "${") != NULL)
        return fill_holes(x, node->text.ptr);
    if (node->kind == KF_YAML_SCALAR && node->text.len > 0 && node->text.ptr[0] == '$')
        return lookup(x, node->text.ptr + 1);
    kf_yaml_node *copy = KF_NEW(x->r->arena, kf_yaml_node);
    *copy = *node;
    copy->loc = x->owner.loc;
    copy->origin = KF_ORIGIN_FAMILY;
    copy->verbatim = false;
    if (node->kind == KF_YAML_SEQ) {
        copy->u.items = KF_NEW_N(x->r->arena, kf_yaml_node *, node->n + 1);
        for (uint32_t i = 0; i < node->n; i++)
            copy->u.items[i] = instantiate(x, node->u.items[i]);
    } else if (node->kind == KF_YAML_MAP) {
        copy->u.pairs = KF_NEW_N(x->r->arena, kf_yaml_pair, node->n + 1);
        copy->n = 0;
        for (uint32_t i = 0; i < node->n; i++) {
            kf_yaml_node *value = instantiate(x, node->u.pairs[i].value);
            if (value == NULL)
                continue;
            kf_yaml_node *key = instantiate(x, node->u.pairs[i].key);
            point_at_dimension(key, value);
            copy->u.pairs[copy->n++] = (kf_yaml_pair){key, value};
        }
    }
    return copy;
}

/* ---- families -------------------------------------------------------------------------------- */

/** |list|: every family, or with |family| every task of that one. */
static void report_no_preset(kf_reader *r, kf_loc loc, const char *family, kf_str word)
{
    kf_str known[32];
    uint32_t n = 0;
    kf_sbuf list = {.arena = r->arena};
    for (uint32_t i = 0; i < kf_n_presets && n < 32; i++) {
        const kf_preset *p = kf_presets[i];
        bool is_first = i == 0 || strcmp(p->family, kf_presets[i - 1]->family) != 0;
        if (family != NULL ? strcmp(p->family, family) != 0 || p->task == NULL : !is_first)
            continue;
        known[n++] = kf_str_from(family != NULL ? p->task : p->family);
        kf_sbuf_printf(&list, "%s%s", n > 1 ? ", " : "", known[n - 1].ptr);
    }
    kf_diag *d =
        family != NULL
            ? kf_diag_add(r->diags, KF_E0114, loc, "family '%s' has no task '%.*s'", family,
                          KF_STR_ARG(word))
            : kf_diag_add(r->diags, KF_E0114, loc, "unknown family '%.*s'", KF_STR_ARG(word));
    kf_str near = kf_str_nearest(word, known, n);
    if (near.len > 0)
        kf_diag_hint(r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
    if (n > 0)
        kf_diag_note(r->diags, d, KF_NO_LOC, "%s: %.*s", family != NULL ? "tasks" : "families",
                     KF_STR_ARG(kf_sbuf_view(&list)));
}

/** The word of `task: WORD` or `task: {WORD: {...}}`; NULL: none, or reported. */
static const kf_yaml_node *read_task(expander *x, bool *out_ok)
{
    const kf_yaml_node *task = kf_yaml_get(x->root, "task");
    kf_schema_task unused;
    *out_ok = true;
    if (task == NULL || task->kind == KF_YAML_SCALAR)
        return task;
    if (task->kind != KF_YAML_MAP || task->n != 1) {
        *out_ok = kf_expect_kind(x->r, task, KF_YAML_SCALAR, "task");
        return NULL;
    }
    const kf_yaml_node *word = task->u.pairs[0].key;
    x->task = task->u.pairs[0].value;
    *out_ok = kf_schema_read(x->r, KF_SCOPE_TASK, KF_SCOPE_COUNT, x->task,
                             (kf_src){word->loc, word->origin}, &unused);
    return word;
}

static const kf_preset *find_preset(expander *x, kf_str family)
{
    const kf_preset *any = NULL;
    bool ok;
    const kf_yaml_node *word = read_task(x, &ok);
    if (!ok)
        return NULL;
    for (uint32_t i = 0; i < kf_n_presets; i++) {
        const kf_preset *p = kf_presets[i];
        if (!kf_str_eq_c(family, p->family))
            continue;
        any = p;
        if (word == NULL || (p->task != NULL && kf_str_eq_c(word->text, p->task)))
            return p;
    }
    if (any != NULL)
        report_no_preset(x->r, word->loc, any->family, word->text);
    else
        report_no_preset(x->r, x->owner.loc, NULL, family);
    return NULL;
}

/** The dimensions by their own names, so that errors use the words that the user wrote. */
static bool read_dimensions(expander *x)
{
    const kf_yaml_node *limit = kf_yaml_get(x->root, "max_position_embeddings");
    x->positions = 2048;
    return kf_schema_read(x->r, KF_SCOPE_FAMILY, KF_SCOPE_TOP, x->root, x->owner, &x->dims) &&
           (limit == NULL ||
            kf_read_int(x->r, limit, "max_position_embeddings", 1, INT32_MAX, &x->positions));
}

/** Keys of other families. */
static bool check_used(expander *x, kf_str family)
{
    const kf_scope_info *info = &kf_scope_infos[KF_SCOPE_FAMILY];
    bool ok = true;
    for (uint32_t i = 0; i < info->n_keys; i++) {
        const kf_yaml_pair *pair = kf_yaml_find(x->root, info->key[i].name);
        if (pair == NULL || x->used >> i & 1 || strcmp(info->key[i].name, "task") == 0)
            continue;
        kf_diag_add(x->r->diags, KF_E0102, pair->key->loc, "family '%.*s' has no key '%s'",
                    KF_STR_ARG(family), info->key[i].name);
        ok = false;
    }
    return ok;
}

static kf_yaml_node *parse(kf_reader *r, const char *text)
{
    return kf_yaml_parse(r->arena, r->diags, 0, kf_str_from(text), KF_ORIGIN_FAMILY);
}

/** The description with the preset's composition in place of the dimensions, which are used up. */
static kf_yaml_node *write_out(expander *x, kf_yaml_node *open)
{
    const kf_yaml_node *root = x->root;
    kf_yaml_pair *pairs = KF_NEW_N(x->r->arena, kf_yaml_pair, root->n + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < root->n; i++)
        if (kf_schema_find(KF_SCOPE_FAMILY, root->u.pairs[i].key->text) == NULL)
            pairs[n++] = root->u.pairs[i];
    return kf_yaml_merge(x->r->arena, open, kf_yaml_new_map(x->r->arena, root, pairs, n));
}

kf_yaml_node *kf_expand_family(kf_reader *r, kf_yaml_node *root, kf_str family, kf_src owner)
{
    static const char *const open_keys[] = {"blocks", "model", "encoder", "decoder"};
    expander x = {.r = r, .root = root, .owner = owner};
    uint32_t errors = kf_diags_errors(r->diags);
    const kf_preset *preset = find_preset(&x, family);
    if (preset == NULL)
        return NULL;
    for (uint32_t i = 0; i < sizeof open_keys / sizeof *open_keys; i++) {
        const kf_yaml_pair *pair = kf_yaml_find(root, open_keys[i]);
        if (pair == NULL)
            continue;
        kf_diag *d =
            kf_diag_add(r->diags, KF_E0115, pair->key->loc, "'%s' beside a family", open_keys[i]);
        kf_diag_note(r->diags, d, owner.loc, "the family is named here");
        return NULL;
    }
    if (preset->defaults != NULL)
        x.root = kf_yaml_merge(r->arena, instantiate(&x, parse(r, preset->defaults)), root);
    x.used = 0;
    if (kf_diags_errors(r->diags) > errors || !read_dimensions(&x))
        return NULL;
    kf_yaml_node *open = instantiate(&x, parse(r, preset->text));
    return check_used(&x, family) ? write_out(&x, open) : NULL;
}
