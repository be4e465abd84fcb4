/* SPDX-License-Identifier: Apache-2.0 */
/* spec_print - the Spec as the open composition that reads back as an equal Spec.
 *
 * Printed are required keys, derived ones and whatever differs from the schema's default, in the
 * schema's order; so two descriptions of one model print alike. Blocks without blocks inside take
 * one line.
 */
#include "base/vec.h"
#include "frontend/schema.h"

#include <string.h>

typedef struct note {
    const char *key;
    kf_origin origin;
} note;

typedef struct printer {
    const kf_spec *spec;
    kf_sbuf *out;
    kf_arena *scratch;
    bool origins;
    KF_VEC(note) notes; /* of the current line */
} printer;

static const char *const origin_names[] = {
    [KF_ORIGIN_NONE] = "default", [KF_ORIGIN_FAMILY] = "family", [KF_ORIGIN_CONFIG] = "config.json",
    [KF_ORIGIN_SPEC] = "spec",    [KF_ORIGIN_FLAG] = "flag",
};

static void indent(printer *p, uint32_t depth)
{
    for (uint32_t i = 0; i < depth; i++)
        kf_sbuf_c(p->out, "  ");
}

/** Ends the line; with origins, a comment names what the spec file did not say. */
static void end_line(printer *p)
{
    kf_origin last = KF_ORIGIN_SPEC;
    for (uint32_t i = 0; p->origins && i < p->notes.len; i++) {
        const note *n = &p->notes.data[i];
        if (n->origin == KF_ORIGIN_SPEC)
            continue;
        kf_sbuf_c(p->out, last == KF_ORIGIN_SPEC ? "  # " : n->origin != last ? "; " : ", ");
        if (n->origin != last)
            kf_sbuf_printf(p->out, "%s: ", origin_names[n->origin]);
        kf_sbuf_c(p->out, n->key);
        last = n->origin;
    }
    p->notes.len = 0;
    kf_sbuf_char(p->out, '\n');
}

static void add_note(printer *p, const char *key, kf_origin origin)
{
    note n = {key, origin};
    kf_vec_push(p->scratch, &p->notes, n);
}

static bool is_printed(printer *p, const kf_key *key, const void *sv)
{
    if (key->type == KF_KEY_node)
        return false;
    if (key->need != KF_NEED_OPT)
        return true;
    if (key->def[0] == '\0')
        return kf_src_given(kf_key_src(key, sv));
    return !kf_key_is_default(p->scratch, key, sv);
}

/** The fields of one scope inside an open '{'. */
static void print_fields(printer *p, kf_scope scope, const void *values, bool *is_first)
{
    const kf_scope_info *info = &kf_scope_infos[scope];
    for (uint32_t i = 0; i < info->n_keys; i++) {
        const kf_key *key = &info->key[i];
        const void *sv = (const char *)values + key->offset;
        if (!is_printed(p, key, sv))
            continue;
        kf_sbuf_printf(p->out, "%s%s: ", *is_first ? "" : ", ", key->name);
        kf_key_print(key, sv, p->out);
        add_note(p, key->name, kf_key_src(key, sv).origin);
        *is_first = false;
    }
}

static void print_rope(printer *p, const kf_spec_rope *rope, bool *is_first)
{
    if (!rope->present.v)
        return;
    kf_sbuf_c(p->out, *is_first ? "rope: {" : ", rope: {");
    *is_first = true;
    print_fields(p, KF_SCOPE_ROPE, rope, is_first);
    if (rope->type.v != KF_ROPE_DEFAULT) {
        kf_sbuf_c(p->out, *is_first ? "scaling: {" : ", scaling: {");
        *is_first = true;
        print_fields(p, KF_SCOPE_SCALING, rope, is_first);
        kf_sbuf_char(p->out, '}');
    }
    kf_sbuf_char(p->out, '}');
    *is_first = false;
}

/** "word: {...}" of a block without blocks inside. */
static void print_leaf(printer *p, const kf_block *b)
{
    static const kf_scope scopes[KF_BLOCK_KIND_COUNT] = {
        [KF_BLOCK_EMBEDDING] = KF_SCOPE_EMBEDDING,
        [KF_BLOCK_POSITION_EMBEDDING] = KF_SCOPE_POSITION_EMBEDDING,
        [KF_BLOCK_TYPES] = KF_SCOPE_TYPES,
        [KF_BLOCK_POOL] = KF_SCOPE_POOL,
        [KF_BLOCK_CROSS] = KF_SCOPE_CROSS,
        [KF_BLOCK_BIAS] = KF_SCOPE_BIAS,
        [KF_BLOCK_LINEAR] = KF_SCOPE_LINEAR,
        [KF_BLOCK_RMS_NORM] = KF_SCOPE_RMS_NORM,
        [KF_BLOCK_LAYER_NORM] = KF_SCOPE_LAYER_NORM,
        [KF_BLOCK_BATCH_NORM] = KF_SCOPE_BATCH_NORM,
        [KF_BLOCK_POLY_NORM] = KF_SCOPE_POLY_NORM,
        [KF_BLOCK_ATTENTION] = KF_SCOPE_ATTENTION,
        [KF_BLOCK_GLU] = KF_SCOPE_GLU,
        [KF_BLOCK_MLP] = KF_SCOPE_MLP,
        [KF_BLOCK_REPEAT] = KF_SCOPE_REPEAT,
    };
    bool is_first = true;
    kf_sbuf_printf(p->out, "%s: {", kf_block_infos[b->kind].word);
    if (b->kind == KF_BLOCK_LINEAR) {
        if (b->u.linear.out_is_vocab)
            kf_sbuf_c(p->out, "out: vocab_size");
        else
            kf_sbuf_printf(p->out, "out: %lld", (long long)b->u.linear.out.v);
        is_first = false;
    }
    print_fields(p, scopes[b->kind], &b->u, &is_first);
    if (b->kind == KF_BLOCK_ATTENTION)
        print_rope(p, &b->u.attention.rope, &is_first);
    kf_sbuf_char(p->out, '}');
    end_line(p);
}

static void print_blocks(printer *p, const kf_blocks *blocks, uint32_t depth)
{
    for (uint32_t i = 0; i < blocks->n; i++) {
        const kf_block *b = &blocks->block[i];
        indent(p, depth);
        kf_sbuf_c(p->out, "- ");
        if (b->kind != KF_BLOCK_RESIDUAL && b->kind != KF_BLOCK_PARALLEL) {
            print_leaf(p, b);
            continue;
        }
        kf_sbuf_printf(p->out, "%s:\n", kf_block_infos[b->kind].word);
        if (b->kind == KF_BLOCK_RESIDUAL)
            print_blocks(p, &b->u.residual.body, depth + 2);
        for (uint32_t j = 0; b->kind == KF_BLOCK_PARALLEL && j < b->u.parallel.n_branches; j++) {
            indent(p, depth + 2);
            kf_sbuf_c(p->out, "-\n");
            print_blocks(p, &b->u.parallel.branch[j], depth + 3);
        }
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

static void print_name(printer *p, const kf_spec_param *param)
{
    bool is_first = true;
    if (!kf_src_given(param->view.tensor.src)) {
        kf_print_yaml_str(param->name, p->out);
        return;
    }
    kf_sbuf_char(p->out, '{');
    print_fields(p, KF_SCOPE_VIEW, &param->view, &is_first);
    kf_sbuf_char(p->out, '}');
    p->notes.len = 0;
}

/** Entries of weight_names that were given; prints the heading before the first. */
static void print_names(printer *p, const kf_blocks *blocks, bool *has_heading)
{
    for (uint32_t i = 0; i < blocks->n; i++) {
        const kf_block *b = &blocks->block[i];
        for (uint32_t j = 0; j < b->n_params; j++) {
            const kf_spec_param *param = &b->param[j];
            if (!kf_src_given(param->src))
                continue;
            if (!*has_heading)
                kf_sbuf_c(p->out, "weight_names:\n");
            *has_heading = true;
            kf_sbuf_c(p->out, "  ");
            kf_print_yaml_str(param->key, p->out);
            kf_sbuf_c(p->out, ": ");
            print_name(p, param);
            end_line(p);
        }
        if (b->kind == KF_BLOCK_RESIDUAL)
            print_names(p, &b->u.residual.body, has_heading);
        for (uint32_t j = 0; b->kind == KF_BLOCK_PARALLEL && j < b->u.parallel.n_branches; j++)
            print_names(p, &b->u.parallel.branch[j], has_heading);
    }
}

/* ---- top level ------------------------------------------------------------------------------- */

/** "title: {...}" when it has any field. Nested scopes come as title and values. */
typedef struct part {
    kf_scope scope;
    const char *title; /* NULL: fields of the mapping itself */
    const void *values;
} part;

static void cut(kf_sbuf *b, uint32_t len)
{
    b->len = len;
    b->ptr[len] = '\0';
}

static void print_mapping(printer *p, const char *title, const part *parts, uint32_t n)
{
    uint32_t begin = p->out->len;
    bool is_first = true, any = false;
    kf_sbuf_printf(p->out, "%s: {", title);
    for (uint32_t i = 0; i < n; i++) {
        if (parts[i].title == NULL) {
            print_fields(p, parts[i].scope, parts[i].values, &is_first);
            any = any || !is_first;
            continue;
        }
        uint32_t before = p->out->len;
        bool inner_first = true;
        kf_sbuf_printf(p->out, "%s%s: {", is_first ? "" : ", ", parts[i].title);
        print_fields(p, parts[i].scope, parts[i].values, &inner_first);
        if (inner_first) {
            cut(p->out, before);
            continue;
        }
        kf_sbuf_char(p->out, '}');
        is_first = false;
        any = true;
    }
    if (!any) {
        cut(p->out, begin);
        return;
    }
    kf_sbuf_char(p->out, '}');
    end_line(p);
}

static void print_top(printer *p)
{
    const kf_spec *s = p->spec;
    kf_schema_top top = {.spec = {1, {KF_NO_LOC, KF_ORIGIN_SPEC}},
                         .name = s->name,
                         .vocab_size = s->vocab_size,
                         .hidden_size = s->hidden_size,
                         .max_position_embeddings = s->max_position_embeddings,
                         .dtype = s->dtype,
                         .weights = s->weights,
                         .tokenizer = s->tokenizer};
    const kf_scope_info *info = &kf_scope_infos[KF_SCOPE_TOP];
    for (uint32_t i = 0; i < info->n_keys; i++) {
        const kf_key *key = &info->key[i];
        const void *sv = (const char *)&top + key->offset;
        if (!is_printed(p, key, sv))
            continue;
        kf_sbuf_printf(p->out, "%s: ", key->name);
        kf_key_print(key, sv, p->out);
        add_note(p, key->name, kf_key_src(key, sv).origin);
        end_line(p);
    }
}

static void print_forms(printer *p)
{
    const kf_spec_form *f = p->spec->form;
    part lora = {KF_SCOPE_LORA, "lora", &f[KF_FORM_LORA]}, weights[2];
    uint32_t n = 0;

    if (f[KF_FORM_LORA].present.v)
        print_mapping(p, "adapters", &lora, 1);
    if (f[KF_FORM_LOW_RANK].present.v)
        weights[n++] = (part){KF_SCOPE_LOW_RANK, "low_rank", &f[KF_FORM_LOW_RANK]};
    if (f[KF_FORM_SPECTRAL].present.v)
        weights[n++] = (part){KF_SCOPE_SPECTRAL, "spectral", &f[KF_FORM_SPECTRAL]};
    print_mapping(p, "weight_forms", weights, n);
}

void kf_spec_print(const kf_spec *spec, bool origins, kf_sbuf *out)
{
    printer p = {.spec = spec, .out = out, .origins = origins};
    p.scratch = kf_arena_create("spec_print");
    print_top(&p);
    if (spec->n_blocks > 0)
        kf_sbuf_c(out, "blocks:\n");
    for (uint32_t i = 0; i < spec->n_blocks; i++) {
        kf_sbuf_printf(out, "  %.*s:\n", KF_STR_ARG(spec->block[i].name));
        print_blocks(&p, &spec->block[i].body, 2);
    }
    if (spec->encoder.n > 0)
        kf_sbuf_c(out, "encoder:\n");
    print_blocks(&p, &spec->encoder, 1);
    kf_sbuf_printf(out, "%s:\n", kf_model_words[spec->kind]);
    print_blocks(&p, &spec->model, 1);
    bool has_heading = false;
    for (uint32_t i = 0; i < spec->n_blocks; i++)
        print_names(&p, &spec->block[i].body, &has_heading);
    print_names(&p, &spec->encoder, &has_heading);
    print_names(&p, &spec->model, &has_heading);
    print_forms(&p);
    part generation = {KF_SCOPE_GENERATION, NULL, &spec->generation};
    print_mapping(&p, "generation", &generation, 1);
    part build[] = {{KF_SCOPE_BUILD, NULL, &spec->build},
                    {KF_SCOPE_DTYPES, "dtypes", &spec->build},
                    {KF_SCOPE_FUSION, "fusion", &spec->build}};
    print_mapping(&p, "build", build, 3);
    kf_arena_destroy(p.scratch);
}
