/* SPDX-License-Identifier: Apache-2.0 */
/* spec_read - blocks from nodes: every check of the model itself, shapes and names of parameters.
 *
 * Their parameters are spec_params.c, attention is spec_attention.c. Widths flow through a sequence
 * as tokens will; a block whose input does not fit what comes before is an error here, so that
 * nothing behind the Spec has to doubt it.
 */
#include "frontend/spec_read.h"

#include "frontend/spec_params.h"
#include "ir/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const kf_block_info kf_block_infos[KF_BLOCK_KIND_COUNT] = {
#define BLOCK(name, word, has_body, summary) {word, has_body, summary},
#include "frontend/blocks.def"
#undef BLOCK
};

static const char *const unsupported_words[] = {
#define UNSUPPORTED(word) word,
#include "frontend/blocks.def"
#undef UNSUPPORTED
};

#define MAX_SCOPE_BLOCKS 1024u

/* ---- the kinds of blocks; each takes rows of b->in_dim and sets b->out_dim ------------------- */

/** The decoder's embedding may be the encoder's. */
static bool tie_embedding(kf_spec_scope *s, kf_block *b)
{
    kf_spec_embedding *u = &b->u.embedding;
    const kf_spec *spec = s->r->spec;
    bool fits = kf_str_eq_c(u->tied.v, "encoder") && kf_str_eq_c(s->name, "decoder") &&
                spec->encoder.n > 0 && spec->encoder.block[0].kind == KF_BLOCK_EMBEDDING;
    if (fits)
        u->tied_to = &spec->encoder.block[0];
    else
        kf_diag_add(s->r->diags, KF_E0113, u->tied.src.loc,
                    "'tied' is 'encoder', in a decoder beside one; this is '%.*s'",
                    KF_STR_ARG(u->tied.v));
    return fits;
}

static bool read_embedding(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    const kf_spec *spec = s->r->spec;
    if (!kf_schema_read(s->r, KF_SCOPE_EMBEDDING, KF_SCOPE_COUNT, map, b->src, &b->u.embedding))
        return false;
    b->out_dim = spec->hidden_size.v;
    if (kf_src_given(b->u.embedding.tied.src))
        return tie_embedding(s, b);
    kf_scope_add_matrix(s, b, KF_PARAM_TABLE, spec->vocab_size.v, "vocab_size", spec->hidden_size.v,
                        "hidden_size");
    return true;
}

static bool read_position_embedding(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_spec_position_embedding *u = &b->u.position_embedding;
    const kf_sv_int *limit = &s->r->spec->max_position_embeddings;
    if (!kf_schema_read(s->r, KF_SCOPE_POSITION_EMBEDDING, KF_SCOPE_COUNT, map, b->src, u))
        return false;
    if (u->positions.v == 0)
        u->positions.v = limit->v + u->offset.v;
    if (u->positions.v < limit->v + u->offset.v)
        return kf_reject(
            s->r, KF_E0107, u->positions.src.loc,
            "a table of %lld positions for max_position_embeddings %lld and offset %lld",
            (long long)u->positions.v, (long long)limit->v, (long long)u->offset.v);
    kf_scope_add_matrix(s, b, KF_PARAM_TABLE, u->positions.v, "max_position_embeddings", b->in_dim,
                        "hidden_size");
    b->out_dim = b->in_dim;
    return true;
}

static bool read_types(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_spec_types *u = &b->u.types;
    if (!kf_schema_read(s->r, KF_SCOPE_TYPES, KF_SCOPE_COUNT, map, b->src, u))
        return false;
    kf_scope_add_matrix(s, b, KF_PARAM_TABLE, u->type_vocab_size.v, "type_vocab_size", b->in_dim,
                        "hidden_size");
    return true;
}

/** |out|: a number, or the name of a width. */
static bool read_out(kf_reader *r, const kf_yaml_node *out, kf_spec_linear *u)
{
    bool is_hidden = out->kind == KF_YAML_SCALAR && kf_str_eq_c(out->text, "hidden_size");
    u->out.src = kf_src_at(out);
    u->out_is_vocab = out->kind == KF_YAML_SCALAR && kf_str_eq_c(out->text, "vocab_size");
    if (u->out_is_vocab)
        u->out.v = r->spec->vocab_size.v;
    else if (is_hidden)
        u->out.v = r->spec->hidden_size.v;
    return u->out_is_vocab || is_hidden || kf_read_int(r, out, "out", 1, INT32_MAX, &u->out.v);
}

static bool read_linear(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_spec_linear *u = &b->u.linear;
    kf_reader *r = s->r;
    if (!kf_schema_read(r, KF_SCOPE_LINEAR, KF_SCOPE_COUNT, map, b->src, u) ||
        !kf_read_expr(r, map, "act", KF_EXPR_ACT, (kf_expr_env){0}, &u->act) ||
        !read_out(r, kf_yaml_get(map, "out"), u))
        return false;
    const char *why_out = u->out_is_vocab ? "vocab_size" : "out";
    b->out_dim = u->out.v;
    if (!kf_src_given(u->tied.src)) {
        kf_scope_add_matrix(s, b, KF_PARAM_WEIGHT, b->out_dim, why_out, b->in_dim, "hidden_size");
    } else {
        const kf_block *e = r->spec->embedding;
        if (!kf_str_eq_c(u->tied.v, "embedding") || e == NULL || !s->is_model) {
            kf_diag_add(r->diags, KF_E0113, u->tied.src.loc,
                        "'tied' is 'embedding', in the model itself; this is '%.*s'",
                        KF_STR_ARG(u->tied.v));
            return false;
        }
        if (b->out_dim != r->spec->vocab_size.v || b->in_dim != r->spec->hidden_size.v)
            return kf_reject(
                r, KF_E0107, u->tied.src.loc,
                "the embedding's table is [%lld, %lld], this linear needs [%lld, %lld]",
                (long long)r->spec->vocab_size.v, (long long)r->spec->hidden_size.v,
                (long long)b->out_dim, (long long)b->in_dim);
        u->tied_to = e->u.embedding.tied_to != NULL ? e->u.embedding.tied_to : e;
    }
    if (u->bias.v)
        kf_scope_add_vector(s, b, KF_PARAM_BIAS, b->out_dim, why_out);
    return true;
}

static bool read_norm(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    static const kf_scope scopes[KF_BLOCK_KIND_COUNT] = {
        [KF_BLOCK_RMS_NORM] = KF_SCOPE_RMS_NORM,
        [KF_BLOCK_LAYER_NORM] = KF_SCOPE_LAYER_NORM,
        [KF_BLOCK_BATCH_NORM] = KF_SCOPE_BATCH_NORM,
    };
    kf_spec_norm *u = &b->u.norm;
    if (!kf_schema_read(s->r, scopes[b->kind], KF_SCOPE_COUNT, map, b->src, u))
        return false;
    if (u->scale.v != KF_NORM_SCALE_NONE && s->is_model) {
        kf_diag_add(s->r->diags, KF_E0117, u->scale.src.loc,
                    "'inv_sqrt_depth' counts layers: it stands in a repeated block");
        return false;
    }
    if (u->gain.v)
        kf_scope_add_vector(s, b, KF_PARAM_GAIN, b->in_dim, "hidden_size");
    if (b->kind != KF_BLOCK_RMS_NORM && u->bias.v)
        kf_scope_add_vector(s, b, KF_PARAM_BIAS, b->in_dim, "hidden_size");
    if (b->kind == KF_BLOCK_BATCH_NORM) {
        kf_scope_add_vector(s, b, KF_PARAM_MEAN, b->in_dim, "hidden_size");
        kf_scope_add_vector(s, b, KF_PARAM_VARIANCE, b->in_dim, "hidden_size");
        if (u->residual.v)
            kf_scope_add_vector(s, b, KF_PARAM_ALPHA, 1, "one");
    }
    b->out_dim = b->in_dim;
    return true;
}

static bool read_poly_norm(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_spec_poly_norm *u = &b->u.poly_norm;
    if (!kf_schema_read(s->r, KF_SCOPE_POLY_NORM, KF_SCOPE_COUNT, map, b->src, u))
        return false;
    kf_scope_add_vector(s, b, KF_PARAM_WEIGHT, u->order.v, "order");
    kf_scope_add_vector(s, b, KF_PARAM_BIAS, 1, "one");
    b->out_dim = b->in_dim;
    return true;
}

/* Columns inside that are used. */
static bool check_nested(kf_reader *r, const kf_sv_int *nested, int64_t inner)
{
    return nested->v <= inner ||
           kf_reject(r, KF_E0107, nested->src.loc, "nested %lld exceeds intermediate_size %lld",
                     (long long)nested->v, (long long)inner);
}

static bool read_glu(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_spec_glu *u = &b->u.glu;
    if (!kf_schema_read(s->r, KF_SCOPE_GLU, KF_SCOPE_COUNT, map, b->src, u) ||
        !kf_read_expr(s->r, map, "act", KF_EXPR_ACT, (kf_expr_env){0}, &u->act))
        return false;
    int64_t inner = u->intermediate_size.v, width = b->in_dim;
    if (!check_nested(s->r, &u->nested, inner))
        return false;
    kf_scope_add_matrix(s, b, KF_PARAM_GATE, inner, "intermediate_size", width, "hidden_size");
    kf_scope_add_matrix(s, b, KF_PARAM_UP, inner, "intermediate_size", width, "hidden_size");
    kf_scope_add_matrix(s, b, KF_PARAM_DOWN, width, "hidden_size", inner, "intermediate_size");
    if (u->bias.v) {
        kf_scope_add_vector(s, b, KF_PARAM_GATE_BIAS, inner, "intermediate_size");
        kf_scope_add_vector(s, b, KF_PARAM_UP_BIAS, inner, "intermediate_size");
        kf_scope_add_vector(s, b, KF_PARAM_DOWN_BIAS, width, "hidden_size");
    }
    b->out_dim = b->in_dim;
    return true;
}

static bool read_mlp(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_spec_mlp *u = &b->u.mlp;
    if (!kf_schema_read(s->r, KF_SCOPE_MLP, KF_SCOPE_COUNT, map, b->src, u) ||
        !kf_read_expr(s->r, map, "act", KF_EXPR_ACT, (kf_expr_env){0}, &u->act))
        return false;
    int64_t inner = u->intermediate_size.v, width = b->in_dim;
    if (!check_nested(s->r, &u->nested, inner))
        return false;
    kf_scope_add_matrix(s, b, KF_PARAM_UP, inner, "intermediate_size", width, "hidden_size");
    kf_scope_add_matrix(s, b, KF_PARAM_DOWN, width, "hidden_size", inner, "intermediate_size");
    if (u->bias.v) {
        kf_scope_add_vector(s, b, KF_PARAM_UP_BIAS, inner, "intermediate_size");
        kf_scope_add_vector(s, b, KF_PARAM_DOWN_BIAS, width, "hidden_size");
    }
    b->out_dim = b->in_dim;
    return true;
}

static bool read_sequence(kf_spec_scope *s, const kf_yaml_node *node, const char *what,
                          int64_t in_dim, kf_blocks *out);

static bool keeps_width(kf_reader *r, kf_loc loc, const char *what, const kf_blocks *body,
                        int64_t in_dim)
{
    int64_t out = body->n > 0 ? body->block[body->n - 1].out_dim : in_dim;
    if (out == in_dim)
        return true;
    kf_diag_add(r->diags, KF_E0117, loc, "%s takes rows of %lld and gives rows of %lld", what,
                (long long)in_dim, (long long)out);
    return false;
}

static bool read_residual(kf_spec_scope *s, kf_block *b, const kf_yaml_node *node)
{
    b->out_dim = b->in_dim;
    return read_sequence(s, node, "residual", b->in_dim, &b->u.residual.body) &&
           keeps_width(s->r, b->src.loc, "a residual branch", &b->u.residual.body, b->in_dim);
}

static bool read_parallel(kf_spec_scope *s, kf_block *b, const kf_yaml_node *node)
{
    if (!kf_expect_kind(s->r, node, KF_YAML_SEQ, "parallel"))
        return false;
    bool ok = true;
    b->out_dim = b->in_dim;
    b->u.parallel.n_branches = node->n;
    b->u.parallel.branch = KF_NEW_N(s->r->arena, kf_blocks, node->n + 1);
    if (node->n < 2) {
        kf_diag_add(s->r->diags, KF_E0117, node->loc, "'parallel' has %u branch%s; it needs two",
                    node->n, node->n == 1 ? "" : "es");
        return false;
    }
    for (uint32_t i = 0; i < node->n; i++) {
        kf_blocks *branch = &b->u.parallel.branch[i];
        ok =
            read_sequence(s, node->u.items[i], "a branch of parallel", b->in_dim, branch) &&
            keeps_width(s->r, node->u.items[i]->loc, "a branch of 'parallel'", branch, b->in_dim) &&
            ok;
    }
    return ok;
}

/** Whether 'blocks:' has |name|; its index. */
static bool find_block(kf_reader *r, kf_str name, kf_loc loc, uint32_t *out_index)
{
    kf_str names[64];
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->spec->n_blocks; i++) {
        if (n < 64)
            names[n++] = r->spec->block[i].name;
        if (!kf_str_eq(r->spec->block[i].name, name))
            continue;
        *out_index = i;
        r->spec->block[i].used = true;
        return true;
    }
    kf_diag *d = kf_diag_add(r->diags, KF_E0111, loc, "'blocks:' has no '%.*s'", KF_STR_ARG(name));
    kf_str near = kf_str_nearest(name, names, n);
    if (near.len > 0)
        kf_diag_hint(r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
    return false;
}

static bool find_blocks(kf_reader *r, kf_spec_repeat *u)
{
    uint32_t *index = KF_NEW_N(r->arena, uint32_t, u->block.n + 1);
    bool ok = true;
    for (uint32_t i = 0; i < u->block.n; i++)
        ok = find_block(r, u->block.v[i], u->block.src.loc, &index[i]) && ok;
    u->block_index = index;
    if (ok && (u->block.n == 0 || u->times.v % u->block.n != 0))
        return kf_reject(r, KF_E0107, u->times.src.loc,
                         "%lld blocks are no whole number of rounds of %u", (long long)u->times.v,
                         u->block.n);
    return ok;
}

/** A prefix that more than one layer has needs a hole for their numbers. */
static bool has_hole(kf_str s)
{
    uint32_t factor, offset;
    for (uint32_t i = 0; i < s.len; i++)
        if (kf_layer_hole((kf_str){s.ptr + i, s.len - i}, &factor, &offset) > 0 && factor > 0)
            return true;
    return false;
}

static bool read_repeat(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_reader *r = s->r;
    kf_spec_repeat *u = &b->u.repeat;
    static const char *const later[] = {"pattern", "share"};
    b->out_dim = b->in_dim;
    for (uint32_t i = 0; i < 2; i++) {
        const kf_yaml_pair *pair = kf_yaml_find(map, later[i]);
        if (pair == NULL)
            continue;
        kf_diag_add(r->diags, KF_E0403, pair->key->loc, "'%s' in 'repeat' is not supported yet",
                    later[i]);
        return false;
    }
    if (!kf_schema_read(r, KF_SCOPE_REPEAT, KF_SCOPE_COUNT, map, b->src, u) || !find_blocks(r, u))
        return false;
    if (!has_hole(u->weights.v) && u->times.v > 1) {
        kf_diag_add(r->diags, KF_E0116, u->weights.src.loc,
                    "the prefix needs '{i}' to tell %lld layers apart", (long long)u->times.v);
        return false;
    }
    if (b->in_dim != r->spec->hidden_size.v)
        return keeps_width(r, b->src.loc, "'repeat'",
                           &(kf_blocks){&(kf_block){.out_dim = r->spec->hidden_size.v}, 1},
                           b->in_dim);
    for (uint32_t i = 0; i < u->block.n; i++) {
        const kf_spec_block *block = &r->spec->block[u->block_index[i]];
        if (!keeps_width(r, block->src.loc, "a repeated block", &block->body, b->in_dim))
            return false;
    }
    return true;
}

/* ---- sequences ------------------------------------------------------------------------------- */

static bool report_unknown_block(kf_reader *r, const kf_yaml_node *word)
{
    kf_str known[KF_BLOCK_KIND_COUNT];
    for (size_t i = 0; i < sizeof unsupported_words / sizeof *unsupported_words; i++) {
        if (!kf_str_eq_c(word->text, unsupported_words[i]))
            continue;
        kf_diag_add(r->diags, KF_E0403, word->loc, "'%s' is not supported yet",
                    unsupported_words[i]);
        return false;
    }
    for (uint32_t i = 0; i < KF_BLOCK_KIND_COUNT; i++)
        known[i] = kf_str_from(kf_block_infos[i].word);
    kf_diag *d =
        kf_diag_add(r->diags, KF_E0102, word->loc, "unknown block '%.*s'", KF_STR_ARG(word->text));
    kf_str near = kf_str_nearest(word->text, known, KF_BLOCK_KIND_COUNT);
    if (near.len > 0)
        kf_diag_hint(r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
    return false;
}

static bool find_kind(kf_reader *r, const kf_yaml_node *word, kf_block_kind *out_kind)
{
    for (uint32_t i = 0; i < KF_BLOCK_KIND_COUNT; i++) {
        if (!kf_str_eq_c(word->text, kf_block_infos[i].word))
            continue;
        *out_kind = (kf_block_kind)i;
        return true;
    }
    return report_unknown_block(r, word);
}

/** Reads what depends on the kind. |node| is a mapping or, for a bare word, NULL. */
static bool read_body(kf_spec_scope *s, kf_block *b, const kf_yaml_node *node)
{
    static const kf_yaml_node no_keys = {.kind = KF_YAML_MAP}, nothing = {.kind = KF_YAML_SEQ};
    const kf_yaml_node *map = node != NULL ? node : &no_keys;
    const kf_yaml_node *seq = node != NULL ? node : &nothing;
    switch (b->kind) {
    case KF_BLOCK_EMBEDDING:
        return read_embedding(s, b, map);
    case KF_BLOCK_POSITION_EMBEDDING:
        return read_position_embedding(s, b, map);
    case KF_BLOCK_TYPES:
        return read_types(s, b, map);
    case KF_BLOCK_CROSS:
        return kf_read_cross(s, b, map);
    case KF_BLOCK_BIAS:
        return kf_read_bias(s, b, map);
    case KF_BLOCK_POOL:
        return kf_schema_read(s->r, KF_SCOPE_POOL, KF_SCOPE_COUNT, map, b->src, &b->u.pool);
    case KF_BLOCK_LINEAR:
        return read_linear(s, b, map);
    case KF_BLOCK_RMS_NORM:
    case KF_BLOCK_LAYER_NORM:
    case KF_BLOCK_BATCH_NORM:
        return read_norm(s, b, map);
    case KF_BLOCK_POLY_NORM:
        return read_poly_norm(s, b, map);
    case KF_BLOCK_ATTENTION:
        return kf_read_attention(s, b, map);
    case KF_BLOCK_GLU:
        return read_glu(s, b, map);
    case KF_BLOCK_MLP:
        return read_mlp(s, b, map);
    case KF_BLOCK_RESIDUAL:
        return read_residual(s, b, seq);
    case KF_BLOCK_PARALLEL:
        return read_parallel(s, b, seq);
    case KF_BLOCK_REPEAT:
        return read_repeat(s, b, map);
    case KF_BLOCK_KIND_COUNT:
        break;
    }
    return false;
}

/** One item of a sequence: `word`, or `word: {...}`. */
static bool read_block(kf_spec_scope *s, const kf_yaml_node *item, int64_t in_dim, kf_block *b)
{
    kf_reader *r = s->r;
    const kf_yaml_node *word = item, *body = NULL;
    if (item->kind == KF_YAML_MAP && item->n == 1) {
        word = item->u.pairs[0].key;
        body = item->u.pairs[0].value;
    } else if (item->kind != KF_YAML_SCALAR) {
        kf_diag *d = kf_diag_add(
            r->diags, KF_E0105, item->loc, "a block is one word with its keys; this is %s",
            item->kind == KF_YAML_MAP && item->n > 1 ? "a mapping of several"
                                                     : kf_yaml_kind_name(item));
        if (item->kind == KF_YAML_MAP && item->n > 1)
            kf_diag_note(r->diags, d, item->u.pairs[1].key->loc,
                         "indent this below the word, or give it a '-'");
        return false;
    }
    if (body != NULL && body->kind == KF_YAML_SCALAR && body->text.len == 0 && !body->quoted)
        body = NULL;
    b->src = kf_src_at(word);
    b->in_dim = b->out_dim = in_dim;
    if (!find_kind(r, word, &b->kind))
        return false;
    uint32_t nth = ++s->count[b->kind];
    if (++s->n_blocks > MAX_SCOPE_BLOCKS) {
        kf_diag_add(r->diags, KF_E0709, word->loc, "more than %u blocks in one scope",
                    MAX_SCOPE_BLOCKS);
        return false;
    }
    b->label = kf_strf(r->arena, nth > 1 ? "%.*s.%s%u" : "%.*s.%s", KF_STR_ARG(s->name),
                       kf_block_infos[b->kind].word, nth);
    return read_body(s, b, body) && kf_scope_place_parts(s, b);
}

static bool read_sequence(kf_spec_scope *s, const kf_yaml_node *node, const char *what,
                          int64_t in_dim, kf_blocks *out)
{
    if (!kf_expect_kind(s->r, node, KF_YAML_SEQ, what))
        return false;
    bool ok = true;
    out->n = node->n;
    out->block = KF_NEW_N(s->r->arena, kf_block, node->n + 1);
    for (uint32_t i = 0; i < node->n; i++) {
        kf_block *b = &out->block[i];
        ok = read_block(s, node->u.items[i], in_dim, b) && ok;
        in_dim = b->out_dim;
        if (s->is_model && i == 0 && b->kind == KF_BLOCK_EMBEDDING)
            s->r->spec->embedding = b; /* in the end the decoder's: it is read last */
        if (kf_diags_errors(s->r->diags) >= KF_DIAG_MAX_ERRORS)
            return false;
    }
    if (node->n == 0) {
        kf_diag_add(s->r->diags, KF_E0117, node->loc, "'%s' has no blocks", what);
        return false;
    }
    return ok;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool is_block_name(kf_str s)
{
    for (uint32_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return s.len > 0 && s.len <= 64 && !kf_str_eq_c(s, "model") && !kf_str_eq_c(s, "encoder") &&
           !kf_str_eq_c(s, "decoder");
}

static bool read_named_blocks(kf_reader *r, const kf_yaml_node *blocks, kf_spec_scope *base)
{
    bool ok = true;
    if (blocks == NULL)
        return true;
    if (!kf_expect_kind(r, blocks, KF_YAML_MAP, "blocks"))
        return false;
    r->spec->block = KF_NEW_N(r->arena, kf_spec_block, blocks->n + 1);
    for (uint32_t i = 0; i < blocks->n; i++) {
        const kf_yaml_pair *pair = &blocks->u.pairs[i];
        if (!is_block_name(pair->key->text)) {
            kf_diag_add(r->diags, KF_E0106, pair->key->loc,
                        "a block's name is a word of letters, digits and '_' other than 'model', "
                        "'encoder' and 'decoder'");
            ok = false;
            continue;
        }
        kf_spec_block *block = &r->spec->block[r->spec->n_blocks++];
        block->name = pair->key->text;
        block->src = kf_src_at(pair->key);
        kf_spec_scope s = *base;
        s.name = block->name;
        s.loc = block->src.loc;
        ok = read_sequence(&s, pair->value, pair->key->text.ptr, r->spec->hidden_size.v,
                           &block->body) &&
             kf_scope_check_unique(&s) && ok;
    }
    return ok;
}

const char *const kf_model_words[] = {[KF_MODEL_DECODER] = "model",
                                      [KF_MODEL_ENCODER] = "encoder",
                                      [KF_MODEL_ENCODER_DECODER] = "decoder"};

/** The sequence under |word|, whose parameters are called after it. */
static bool read_stack(kf_reader *r, const kf_yaml_node *root, const char *word,
                       const kf_spec_scope *base, kf_blocks *out)
{
    kf_spec_scope s = *base;
    const kf_yaml_node *blocks = kf_yaml_get(root, word);
    s.name = kf_str_from(word);
    s.is_model = true;
    s.loc = blocks->loc;
    return read_sequence(&s, blocks, word, r->spec->hidden_size.v, out) &&
           kf_scope_check_unique(&s);
}

bool kf_read_blocks(kf_reader *r, const kf_yaml_node *root)
{
    kf_spec_scope base = {.r = r};
    kf_spec *spec = r->spec;
    spec->kind = kf_yaml_get(root, "decoder") != NULL   ? KF_MODEL_ENCODER_DECODER
                 : kf_yaml_get(root, "encoder") != NULL ? KF_MODEL_ENCODER
                                                        : KF_MODEL_DECODER;
    if (!kf_read_forms(r, root) ||
        !kf_scope_open_names(r, kf_yaml_get(root, "weight_names"), &base))
        return false;
    bool ok = read_named_blocks(r, kf_yaml_get(root, "blocks"), &base);
    if (spec->kind == KF_MODEL_ENCODER_DECODER)
        ok = read_stack(r, root, "encoder", &base, &spec->encoder) && ok;
    ok = read_stack(r, root, kf_model_words[spec->kind], &base, &spec->model) && ok;
    return ok && kf_scope_check_names_used(r, &base) && kf_check_forms(r) && kf_check_places(r);
}
