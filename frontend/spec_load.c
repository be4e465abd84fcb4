/* SPDX-License-Identifier: Apache-2.0 */
/* spec_load - from files and flags to one normalized description, then to the Spec.
 *
 * Precedence is decided on nodes, before anything is typed: flags over the spec's keys over
 * config.json over the family's defaults. A family is then written out, so that reading knows open
 * compositions only.
 */
#include "base/fs.h"
#include "base/vec.h"
#include "frontend/presets/preset.h"
#include "frontend/spec_read.h"

#include <errno.h>
#include <string.h>

/* ---- merging --------------------------------------------------------------------------------- */

static kf_yaml_node *new_map(kf_arena *arena, const kf_yaml_node *like, kf_yaml_pair *pairs,
                             uint32_t n)
{
    kf_yaml_node *map = KF_NEW(arena, kf_yaml_node);
    *map = *like;
    map->kind = KF_YAML_MAP;
    map->n = n;
    map->u.pairs = pairs;
    return map;
}

kf_yaml_node *kf_yaml_merge(kf_arena *arena, kf_yaml_node *base, kf_yaml_node *over)
{
    if (base == NULL || over == NULL)
        return over != NULL ? over : base;
    if (base->kind != KF_YAML_MAP || over->kind != KF_YAML_MAP)
        return over;
    kf_yaml_pair *pairs = KF_NEW_N(arena, kf_yaml_pair, base->n + over->n + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < base->n; i++) {
        pairs[n] = base->u.pairs[i];
        const kf_yaml_pair *pair = kf_yaml_find(over, pairs[n].key->text.ptr);
        /* Kinds of scaling have different keys, so a new one replaces the old one. */
        if (pair != NULL && kf_str_eq_c(pair->key->text, "scaling"))
            pairs[n] = *pair;
        else if (pair != NULL)
            pairs[n] = (kf_yaml_pair){pair->key, kf_yaml_merge(arena, pairs[n].value, pair->value)};
        n++;
    }
    for (uint32_t i = 0; i < over->n; i++)
        if (kf_yaml_find(base, over->u.pairs[i].key->text.ptr) == NULL)
            pairs[n++] = over->u.pairs[i];
    return new_map(arena, over, pairs, n);
}

/** "build.max_tokens" and a value as nested mappings. */
static kf_yaml_node *override_node(kf_reader *r, const kf_override *o)
{
    kf_str title = kf_strf(r->arena, "<%.*s>", KF_STR_ARG(o->key));
    uint32_t file = kf_diags_add_file(r->diags, title, o->value);
    kf_yaml_node *node = kf_yaml_parse(r->arena, r->diags, file, o->value, KF_ORIGIN_FLAG);
    for (uint32_t end = o->key.len; node != NULL && end > 0;) {
        uint32_t begin = end;
        while (begin > 0 && o->key.ptr[begin - 1] != '.')
            begin--;
        kf_str key = kf_str_dup(r->arena, (kf_str){o->key.ptr + begin, end - begin});
        kf_yaml_pair *pair = KF_NEW(r->arena, kf_yaml_pair);
        *pair = (kf_yaml_pair){kf_yaml_new_scalar(r->arena, key, node->loc, KF_ORIGIN_FLAG), node};
        node = new_map(r->arena, node, pair, 1);
        end = begin > 0 ? begin - 1 : 0;
    }
    return node;
}

/* ---- families -------------------------------------------------------------------------------- */

/* $key of a preset that is another key's value when not given itself. */
static const struct fallback {
    const char *key, *then;
} fallbacks[] = {
    {"qkv_bias", "attention_bias"},
    {"o_bias", "attention_bias"},
    {"qk_norm_eps", "rms_norm_eps"},
};

typedef struct expander {
    kf_reader *r;
    const kf_yaml_node *root;
    kf_src owner;
} expander;

static kf_yaml_node *family_scalar(expander *x, const char *text)
{
    return kf_yaml_new_scalar(x->r->arena, kf_str_from(text), x->owner.loc, KF_ORIGIN_FAMILY);
}

/** The node that $|key| stands for; NULL for none. */
static kf_yaml_node *lookup(expander *x, const char *key)
{
    if (strcmp(key, "tied") == 0) {
        kf_yaml_node *tie = lookup(x, "tie_word_embeddings");
        if (!kf_str_eq_c(tie->text, "true"))
            return NULL;
        return kf_yaml_new_scalar(x->r->arena, KF_STR("embedding"), tie->loc, tie->origin);
    }
    kf_yaml_node *given = kf_yaml_get(x->root, key);
    if (given != NULL)
        return given;
    if (strcmp(key, "rope") == 0) {
        kf_yaml_node like = {.loc = x->owner.loc, .origin = KF_ORIGIN_FAMILY, .height = 1};
        return new_map(x->r->arena, &like, NULL, 0);
    }
    for (size_t i = 0; i < sizeof fallbacks / sizeof *fallbacks; i++)
        if (strcmp(key, fallbacks[i].key) == 0)
            return lookup(x, fallbacks[i].then);
    const kf_key *row = kf_schema_find(KF_SCOPE_FAMILY, kf_str_from(key));
    return row != NULL && row->def[0] != '\0' ? family_scalar(x, row->def) : NULL;
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

static const kf_preset *find_preset(kf_reader *r, kf_str family, kf_loc loc)
{
    kf_str known[32];
    kf_sbuf list = {.arena = r->arena};
    for (uint32_t i = 0; i < kf_n_presets && i < 32; i++) {
        if (kf_str_eq_c(family, kf_presets[i].family))
            return &kf_presets[i];
        known[i] = kf_str_from(kf_presets[i].family);
        kf_sbuf_printf(&list, "%s%s", i > 0 ? ", " : "", kf_presets[i].family);
    }
    kf_diag *d = kf_diag_add(r->diags, KF_E0114, loc, "unknown family '%.*s'", KF_STR_ARG(family));
    kf_str near = kf_str_nearest(family, known, kf_n_presets < 32 ? kf_n_presets : 32);
    if (near.len > 0)
        kf_diag_hint(r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
    kf_diag_note(r->diags, d, KF_NO_LOC, "families: %.*s", KF_STR_ARG(kf_sbuf_view(&list)));
    return NULL;
}

/** The dimensions by their own names, so that errors use the words that the user wrote. */
static bool check_dimensions(kf_reader *r, const kf_yaml_node *root, kf_src owner)
{
    kf_schema_family dims = {0};
    const kf_yaml_node *limit = kf_yaml_get(root, "max_position_embeddings");
    if (!kf_schema_read(r, KF_SCOPE_FAMILY, KF_SCOPE_TOP, root, owner, &dims))
        return false;
    int64_t positions = 2048;
    if (limit != NULL &&
        !kf_read_int(r, limit, "max_position_embeddings", 1, INT32_MAX, &positions))
        return false;
    if (!kf_src_given(dims.sliding_window.src) || dims.sliding_window.v >= positions)
        return true;
    kf_diag_add(
        r->diags, KF_E0402, dims.sliding_window.src.loc,
        "'sliding_window' %lld is below max_position_embeddings %lld; windows are not supported",
        (long long)dims.sliding_window.v, (long long)positions);
    return false;
}

kf_yaml_node *kf_expand_family(kf_reader *r, const kf_yaml_node *root, kf_str family, kf_src owner)
{
    static const char *const open_keys[] = {"blocks", "model"};
    const kf_preset *preset = find_preset(r, family, owner.loc);
    if (preset == NULL)
        return NULL;
    for (uint32_t i = 0; i < 2; i++) {
        const kf_yaml_pair *pair = kf_yaml_find(root, open_keys[i]);
        if (pair == NULL)
            continue;
        kf_diag *d =
            kf_diag_add(r->diags, KF_E0115, pair->key->loc, "'%s' beside a family", open_keys[i]);
        kf_diag_note(r->diags, d, owner.loc, "the family is named here");
        return NULL;
    }
    if (!check_dimensions(r, root, owner))
        return NULL;
    kf_yaml_node *text =
        kf_yaml_parse(r->arena, r->diags, 0, kf_str_from(preset->text), KF_ORIGIN_FAMILY);
    expander x = {r, root, owner};
    kf_yaml_node *open = instantiate(&x, text);
    /* The dimensions are used up; what remains is a description of its own. */
    kf_yaml_pair *pairs = KF_NEW_N(r->arena, kf_yaml_pair, root->n + open->n + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < root->n; i++)
        if (kf_schema_find(KF_SCOPE_FAMILY, root->u.pairs[i].key->text) == NULL)
            pairs[n++] = root->u.pairs[i];
    for (uint32_t i = 0; i < open->n; i++)
        pairs[n++] = open->u.pairs[i];
    return new_map(r->arena, root, pairs, n);
}

/* ---- loading --------------------------------------------------------------------------------- */

typedef struct loader {
    kf_reader r;
    kf_schema_top top;
    kf_yaml_node *root; /* merged so far */
    bool is_dir;        /* the description is a Hugging Face directory */
} loader;

static kf_str resolve(loader *l, kf_str path)
{
    if (kf_str_eq_c(l->r.spec->dir, "."))
        return path;
    return kf_fs_join(l->r.arena, l->r.spec->dir, path);
}

/** Adds what config.json of |dir| says below what is there. */
static bool import_dir(loader *l, kf_str dir, kf_src from)
{
    kf_yaml_node *config = kf_hf_import(&l->r, dir, from);
    if (config == NULL)
        return false;
    l->root = kf_yaml_merge(l->r.arena, config, l->root);
    return true;
}

static bool apply_overrides(loader *l, const kf_override *overrides, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        kf_yaml_node *node = override_node(&l->r, &overrides[i]);
        if (node == NULL)
            return false;
        l->root = kf_yaml_merge(l->r.arena, l->root, node);
    }
    return true;
}

/** Weights and tokenizer of a `from:` directory, where they exist and nothing else is named. */
static void default_paths(loader *l, kf_str dir, kf_src src)
{
    kf_spec *spec = l->r.spec;
    kf_arena *arena = l->r.arena;
    kf_str tokenizer = kf_fs_join(arena, dir, KF_STR("tokenizer.json"));
    kf_src at = {src.loc, KF_ORIGIN_CONFIG};
    bool has_weights =
        kf_fs_exists(kf_fs_join(arena, dir, KF_STR("model.safetensors")).ptr) ||
        kf_fs_exists(kf_fs_join(arena, dir, KF_STR("model.safetensors.index.json")).ptr);
    if (!kf_src_given(spec->weights.src) && has_weights)
        spec->weights = (kf_sv_str){dir, at};
    if (!kf_src_given(spec->tokenizer.src) && kf_fs_exists(tokenizer.ptr))
        spec->tokenizer = (kf_sv_str){tokenizer, at};
}

static kf_str default_name(kf_arena *arena, kf_str path)
{
    uint32_t end = path.len;
    while (end > 1 && path.ptr[end - 1] == '/')
        end--;
    uint32_t begin = end;
    while (begin > 0 && path.ptr[begin - 1] != '/')
        begin--;
    for (uint32_t i = end; i > begin + 1; i--)
        if (path.ptr[i - 1] == '.' && (end - i == 4 || end - i == 3)) {
            kf_str ext = {path.ptr + i, end - i};
            if (kf_str_eq_c(ext, "yaml") || kf_str_eq_c(ext, "yml"))
                end = i - 1;
            break;
        }
    kf_str name = kf_str_dup(arena, (kf_str){path.ptr + begin, end - begin});
    return name.len > 0 && !kf_str_eq_c(name, ".") && !kf_str_eq_c(name, "..") ? name
                                                                               : KF_STR("model");
}

static void take_top(loader *l)
{
    kf_spec *spec = l->r.spec;
    const kf_schema_top *top = &l->top;
    spec->name = top->name;
    if (!kf_src_given(top->name.src))
        spec->name.v = default_name(l->r.arena, spec->path);
    spec->vocab_size = top->vocab_size;
    spec->hidden_size = top->hidden_size;
    spec->max_position_embeddings = top->max_position_embeddings;
    spec->dtype = top->dtype;
    spec->weights = top->weights;
    spec->tokenizer = top->tokenizer;
    if (kf_src_given(top->weights.src))
        spec->weights.v = resolve(l, top->weights.v);
    if (kf_src_given(top->tokenizer.src))
        spec->tokenizer.v = resolve(l, top->tokenizer.v);
}

/** `from:` before everything else, because it supplies what the other keys default to. */
static bool apply_from(loader *l)
{
    const kf_yaml_node *from = kf_yaml_get(l->root, "from");
    kf_src src = {{l->r.spec->file, 0, 0, 0}, KF_ORIGIN_SPEC};
    if (l->is_dir)
        return import_dir(l, l->r.spec->dir, src);
    if (from == NULL)
        return true;
    if (!kf_expect_kind(&l->r, from, KF_YAML_SCALAR, "from"))
        return false;
    src = (kf_src){from->loc, from->origin};
    return import_dir(l, resolve(l, from->text), src);
}

static kf_spec *read_root(loader *l)
{
    kf_reader *r = &l->r;
    kf_src whole = {{r->spec->file, 1, 1, 0}, KF_ORIGIN_SPEC};
    if (l->is_dir)
        whole.loc = (kf_loc){r->spec->file, 0, 0, 0};
    const kf_yaml_node *family = kf_yaml_get(l->root, "family");
    bool has_family = family != NULL && family->kind == KF_YAML_SCALAR;
    if (has_family) {
        kf_src owner = {family->loc, family->origin};
        l->root = kf_expand_family(r, l->root, family->text, owner);
        if (l->root == NULL)
            return NULL;
    }
    bool ok = kf_schema_read(r, KF_SCOPE_TOP, KF_SCOPE_COUNT, l->root, whole, &l->top);
    if (!has_family && kf_yaml_get(l->root, "model") == NULL) {
        kf_diag_add(r->diags, KF_E0104, whole.loc,
                    "no model: give 'family:', 'from:', or 'blocks:' and 'model:'");
        ok = false;
    }
    if (!ok)
        return NULL;
    take_top(l);
    if (l->is_dir)
        default_paths(l, r->spec->dir, whole);
    else if (kf_src_given(l->top.from.src))
        default_paths(l, resolve(l, l->top.from.v), l->top.from.src);
    return kf_read_blocks(r, l->root) && kf_read_build(r, l->root) ? r->spec : NULL;
}

static kf_spec *load(loader *l, const kf_override *overrides, uint32_t n_overrides)
{
    uint32_t errors = kf_diags_errors(l->r.diags);
    kf_spec *spec = NULL;
    if (kf_expect_kind(&l->r, l->root, KF_YAML_MAP, "a description") &&
        apply_overrides(l, overrides, n_overrides) && apply_from(l))
        spec = read_root(l);
    return kf_diags_errors(l->r.diags) == errors ? spec : NULL;
}

static kf_spec *new_spec(kf_arena *arena, const char *path, kf_str dir)
{
    kf_spec *spec = KF_NEW(arena, kf_spec);
    spec->path = kf_str_dup(arena, kf_str_from(path));
    spec->dir = dir;
    return spec;
}

kf_spec *kf_spec_load_text(kf_arena *arena, kf_diags *diags, const char *path, const char *dir,
                           kf_str text, const kf_override *overrides, uint32_t n_overrides)
{
    loader l = {.r = {arena, diags, new_spec(arena, path, kf_str_dup(arena, kf_str_from(dir)))}};
    l.r.spec->text = kf_str_dup(arena, text);
    l.r.spec->file = kf_diags_add_file(diags, l.r.spec->path, text);
    l.root = kf_yaml_parse(arena, diags, l.r.spec->file, l.r.spec->text, KF_ORIGIN_SPEC);
    return l.root != NULL ? load(&l, overrides, n_overrides) : NULL;
}

/** A bare directory is the description `{spec: 1, from: DIR}`. */
static kf_spec *load_dir(kf_arena *arena, kf_diags *diags, const char *path,
                         const kf_override *overrides, uint32_t n_overrides)
{
    kf_str dir = kf_str_dup(arena, kf_str_from(path));
    loader l = {.r = {arena, diags, new_spec(arena, path, dir)}, .is_dir = true};
    l.r.spec->file = kf_diags_add_file(diags, dir, KF_STR(""));
    l.root = kf_yaml_parse(arena, diags, 0, KF_STR("spec: 1"), KF_ORIGIN_NONE);
    return load(&l, overrides, n_overrides);
}

kf_spec *kf_spec_load(kf_arena *arena, kf_diags *diags, const char *path,
                      const kf_override *overrides, uint32_t n_overrides)
{
    if (kf_fs_is_dir(path)) {
        /* Directories that Kerf wrote for models without an architecture hold a description
         * instead. */
        kf_str dir_path = kf_str_from(path);
        kf_str own = kf_fs_join(arena, dir_path, KF_STR("model.yaml"));
        if (kf_fs_exists(kf_fs_join(arena, dir_path, KF_STR("config.json")).ptr) ||
            !kf_fs_exists(own.ptr))
            return load_dir(arena, diags, path, overrides, n_overrides);
        path = own.ptr;
    }
    kf_str text, dir = kf_fs_dirname(arena, kf_str_from(path));
    int err = kf_fs_read(arena, path, KF_YAML_MAX_BYTES, &text);
    if (err == 0)
        return kf_spec_load_text(arena, diags, path, dir.ptr, text, overrides, n_overrides);
    uint32_t file = kf_diags_add_file(diags, kf_str_from(path), KF_STR(""));
    if (err == EFBIG)
        kf_diag_add(diags, KF_E0702, (kf_loc){file, 0, 0, 0}, "the file is larger than %u bytes",
                    KF_YAML_MAX_BYTES);
    else
        kf_diag_add(diags, KF_E0701, (kf_loc){file, 0, 0, 0}, "cannot read it: %s", strerror(err));
    return NULL;
}
