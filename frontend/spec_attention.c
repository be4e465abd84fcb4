/* SPDX-License-Identifier: Apache-2.0 */
/* spec_attention - attention, cross attention, their rope and tables of biases by distance, read
 * and checked; see spec_read.c.
 */
#include "frontend/spec_params.h"

#include <math.h>
#include <string.h>

/** scaling: of rope; |u| holds what the rest of rope said. */
static bool read_scaling(kf_reader *r, const kf_yaml_node *map, kf_spec_rope *u, kf_src owner)
{
    static const char *const later[] = {"dynamic", "yarn",  "longrope",    "su",
                                        "ntk",     "mrope", "proportional"};
    const kf_yaml_node *type = map != NULL ? kf_yaml_get(map, "type") : NULL;
    for (size_t i = 0; type != NULL && i < sizeof later / sizeof *later; i++) {
        if (!kf_str_eq_c(type->text, later[i]) || type->kind != KF_YAML_SCALAR)
            continue;
        kf_diag_add(r->diags, KF_E0405, type->loc, "rope scaling '%s' is not supported", later[i]);
        return false;
    }
    if (map == NULL) /* the defaults of the mapping, without its required key */
        return true;
    if (!kf_schema_read(r, KF_SCOPE_SCALING, KF_SCOPE_COUNT, map, owner, u))
        return false;
    if (u->type.v != KF_ROPE_LLAMA3)
        return true;
    if (!kf_src_given(u->original_max_position_embeddings.src)) {
        kf_diag_add(r->diags, KF_E0104, type->loc,
                    "scaling 'llama3' needs the key 'original_max_position_embeddings'");
        return false;
    }
    if (u->low_freq_factor.v >= u->high_freq_factor.v)
        return kf_reject(r, KF_E0107, type->loc,
                         "low_freq_factor %g is not below high_freq_factor %g",
                         u->low_freq_factor.v, u->high_freq_factor.v);
    return true;
}

static bool find_rotated(kf_reader *r, kf_loc loc, int64_t head_dim, kf_spec_rope *u)
{
    if (kf_src_given(u->dim.src) && u->dim.src.origin == u->fraction.src.origin) {
        kf_diag_add(r->diags, KF_E0115, u->dim.src.loc, "rope has 'dim' and 'fraction'");
        return false;
    }
    /* One of the two is a family's default or config.json's: the other was said instead of it. */
    if (u->dim.src.origin > u->fraction.src.origin)
        u->fraction = (kf_sv_num){1, {KF_NO_LOC, KF_ORIGIN_NONE}};
    else
        u->dim.src.origin = KF_ORIGIN_NONE;
    bool by_dim = kf_src_given(u->dim.src);
    double rotated = by_dim ? (double)u->dim.v : floor((double)head_dim * u->fraction.v);
    if (by_dim && (u->dim.v > head_dim || u->dim.v % 2 != 0))
        return kf_reject(r, KF_E0107, u->dim.src.loc, "rope rotates pairs: %lld of head_dim %lld",
                         (long long)u->dim.v, (long long)head_dim);
    if (rotated < 2 || fmod(rotated, 2) != 0)
        return kf_reject(r, KF_E0107, kf_src_given(u->fraction.src) ? u->fraction.src.loc : loc,
                         "rope rotates pairs: head_dim %lld * fraction %g gives %g dimensions",
                         (long long)head_dim, u->fraction.v, rotated);
    u->rotated_dim = (uint32_t)rotated;
    return true;
}

static bool read_rope(kf_reader *r, const kf_yaml_node *node, int64_t head_dim, kf_spec_rope *u)
{
    bool is_none =
        node == NULL || (node->kind == KF_YAML_SCALAR && kf_str_eq_c(node->text, "none"));
    u->factor.v = 1;
    if (is_none) {
        if (node != NULL)
            u->present.src = kf_src_at(node);
        return true;
    }
    u->present = (kf_sv_bool){true, kf_src_at(node)};
    const kf_yaml_node *scaling = kf_yaml_get(node, "scaling");
    if (!kf_schema_read(r, KF_SCOPE_ROPE, KF_SCOPE_COUNT, node, u->present.src, u) ||
        !read_scaling(r, scaling, u, u->present.src))
        return false;
    return find_rotated(r, node->loc, head_dim, u);
}

static bool derive_heads(kf_reader *r, kf_block *b)
{
    kf_spec_attention *u = &b->u.attention;
    int64_t heads = u->num_attention_heads.v;
    if (u->num_key_value_heads.v == 0)
        u->num_key_value_heads.v = heads;
    if (heads % u->num_key_value_heads.v != 0)
        return kf_reject(r, KF_E0107, u->num_key_value_heads.src.loc,
                         "num_attention_heads %lld is not divisible by num_key_value_heads %lld",
                         (long long)heads, (long long)u->num_key_value_heads.v);
    if (u->head_dim.v == 0) {
        if (b->in_dim % heads != 0)
            return kf_reject(r, KF_E0107, u->num_attention_heads.src.loc,
                             "hidden_size %lld is not divisible by num_attention_heads %lld",
                             (long long)b->in_dim, (long long)heads);
        u->head_dim.v = b->in_dim / heads;
    }
    if (heads * u->head_dim.v > INT32_MAX)
        return kf_reject(r, KF_E0107, u->num_attention_heads.src.loc,
                         "num_attention_heads %lld * head_dim %lld exceeds 2147483647",
                         (long long)heads, (long long)u->head_dim.v);
    if (!kf_src_given(u->scale.src))
        u->scale.v = 1 / sqrt((double)u->head_dim.v);
    return true;
}

static void add_attention_params(kf_spec_scope *s, kf_block *b)
{
    static const char *const q_why = "num_attention_heads * head_dim";
    static const char *const kv_why = "num_key_value_heads * head_dim";
    const kf_spec_attention *u = &b->u.attention;
    int64_t width = b->in_dim, q = u->num_attention_heads.v * u->head_dim.v;
    int64_t kv = u->num_key_value_heads.v * u->head_dim.v;
    kf_scope_add_matrix(s, b, KF_PARAM_Q, q, q_why, width, "hidden_size");
    kf_scope_add_matrix(s, b, KF_PARAM_K, kv, kv_why, width, "hidden_size");
    kf_scope_add_matrix(s, b, KF_PARAM_V, kv, kv_why, width, "hidden_size");
    kf_scope_add_matrix(s, b, KF_PARAM_O, width, "hidden_size", q, q_why);
    if (u->qkv_bias.v) {
        kf_scope_add_vector(s, b, KF_PARAM_Q_BIAS, q, q_why);
        kf_scope_add_vector(s, b, KF_PARAM_K_BIAS, kv, kv_why);
        kf_scope_add_vector(s, b, KF_PARAM_V_BIAS, kv, kv_why);
    }
    if (u->o_bias.v)
        kf_scope_add_vector(s, b, KF_PARAM_O_BIAS, width, "hidden_size");
    if (u->qk_norm.v == KF_QK_NORM_RMS) {
        kf_scope_add_vector(s, b, KF_PARAM_Q_NORM, u->head_dim.v, "head_dim");
        kf_scope_add_vector(s, b, KF_PARAM_K_NORM, u->head_dim.v, "head_dim");
    }
    if (u->sinks.v)
        kf_scope_add_vector(s, b, KF_PARAM_SINKS, u->num_attention_heads.v, "num_attention_heads");
}

bool kf_read_attention(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_reader *r = s->r;
    kf_spec_attention *u = &b->u.attention;
    if (!kf_schema_read(r, KF_SCOPE_ATTENTION, KF_SCOPE_COUNT, map, b->src, u) ||
        !derive_heads(r, b))
        return false;
    kf_expr_env env = {(uint32_t)u->num_attention_heads.v, r->spec->kind != KF_MODEL_DECODER};
    bool ok = read_rope(r, kf_yaml_get(map, "rope"), u->head_dim.v, &u->rope);
    ok = kf_read_expr(r, map, "mask", KF_EXPR_MASK, env, &u->mask) && ok;
    ok = kf_read_expr(r, map, "score", KF_EXPR_SCORE, env, &u->score) && ok;
    ok = kf_read_expr(r, map, "prob", KF_EXPR_PROB, env, &u->prob) && ok;
    if (u->sinks.v && u->normaliser.v == KF_NORMALISE_NONE) {
        kf_diag_add(r->diags, KF_E0107, u->sinks.src.loc,
                    "sinks are logits of a softmax; normaliser is none");
        ok = false;
    }
    add_attention_params(s, b);
    b->out_dim = b->in_dim;
    return ok;
}

bool kf_read_cross(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    if (!kf_schema_read(s->r, KF_SCOPE_CROSS, KF_SCOPE_COUNT, map, b->src, &b->u.attention) ||
        !derive_heads(s->r, b))
        return false;
    add_attention_params(s, b);
    return true;
}

bool kf_read_bias(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map)
{
    kf_spec_bias *u = &b->u.bias;
    if (!kf_schema_read(s->r, KF_SCOPE_BIAS, KF_SCOPE_COUNT, map, b->src, u))
        return false;
    int64_t side = u->bidirectional.v ? u->buckets.v / 2 : u->buckets.v;
    if (u->buckets.v % (u->bidirectional.v ? 4 : 2) != 0 || u->max_distance.v <= side / 2)
        return kf_reject(s->r, KF_E0107, b->src.loc,
                         "%lld buckets up to distance %lld: half of those of a side are for "
                         "single distances, below max_distance",
                         (long long)u->buckets.v, (long long)u->max_distance.v);
    kf_scope_add_matrix(s, b, KF_PARAM_TABLE, u->buckets.v, "buckets", u->num_attention_heads.v,
                        "num_attention_heads");
    return true;
}
