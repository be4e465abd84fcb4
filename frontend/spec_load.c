/* SPDX-License-Identifier: Apache-2.0 */
/* spec_load - from files and flags to one normalized description, then to the Spec.
 *
 * Precedence is decided on nodes, before anything is typed: flags over the spec's keys over
 * config.json over the family's defaults. A family is then written out (spec_family.c), so that
 * reading knows open compositions only.
 */
#include "base/fs.h"
#include "base/vec.h"
#include "frontend/spec_read.h"

#include <errno.h>
#include <string.h>

/* ---- merging --------------------------------------------------------------------------------- */

kf_yaml_node *kf_yaml_new_map(kf_arena *arena, const kf_yaml_node *like, kf_yaml_pair *pairs,
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
    return kf_yaml_new_map(arena, over, pairs, n);
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
        node = kf_yaml_new_map(r->arena, node, pair, 1);
        end = begin > 0 ? begin - 1 : 0;
    }
    return node;
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

/** `model`, `encoder`, or `encoder` and `decoder`. */
static bool check_stack_keys(loader *l, bool has_family, kf_loc whole)
{
    kf_diags *diags = l->r.diags;
    const kf_yaml_pair *model = kf_yaml_find(l->root, "model");
    const kf_yaml_pair *encoder = kf_yaml_find(l->root, "encoder");
    const kf_yaml_pair *decoder = kf_yaml_find(l->root, "decoder");
    if (!has_family && model == NULL && encoder == NULL && decoder == NULL)
        kf_diag_add(diags, KF_E0104, whole,
                    "no model: give 'family:', 'from:', or 'blocks:' and 'model:' or 'encoder:'");
    else if (decoder != NULL && encoder == NULL)
        kf_diag_add(diags, KF_E0104, decoder->key->loc, "'decoder' needs the key 'encoder'");
    else if (model != NULL && encoder != NULL)
        kf_diag_add(diags, KF_E0115, encoder->key->loc, "'encoder' beside 'model'");
    else
        return true;
    return false;
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
    ok = check_stack_keys(l, has_family, whole.loc) && ok;
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
