/* SPDX-License-Identifier: Apache-2.0 */
/* hf_export - a Spec as config.json, where one of the known architectures computes exactly it.
 *
 * It looks at the structure alone, so an open composition of the right shape has a config.json too.
 */
#include "base/json.h"
#include "frontend/weights_random.h"

#include <math.h>

/** The decoder that all known architectures share, found in a Spec. */
typedef struct decoder {
    const kf_spec_attention *attention;
    const kf_spec_glu *glu;
    const kf_spec_repeat *repeat;
    const kf_spec_linear *head;
    double eps;
    const char *act; /* in config.json's words */
} decoder;

/* Functions of x that config.json can name (transformers/activations.py). */
static const struct act_name {
    kf_fn fn;
    const char *name;
} act_names[] = {
    {KF_FN_silu, "silu"},
    {KF_FN_gelu, "gelu"},
    {KF_FN_gelu_tanh, "gelu_pytorch_tanh"},
    {KF_FN_gelu_quick, "quick_gelu"},
    {KF_FN_relu, "relu"},
    {KF_FN_relu2, "relu2"},
    {KF_FN_tanh, "tanh"},
    {KF_FN_sigmoid, "sigmoid"},
};

static const char *find_act(const kf_expr *e)
{
    if (e->op != KF_EXPR_FN || kf_fn_infos[e->fn].arity != 1 || e->arg[0]->op != KF_EXPR_VAR)
        return NULL;
    for (size_t i = 0; i < sizeof act_names / sizeof *act_names; i++)
        if (act_names[i].fn == e->fn)
            return act_names[i].name;
    return NULL;
}

static bool is_plain_norm(const kf_block *b, double eps)
{
    return b->kind == KF_BLOCK_RMS_NORM && b->u.norm.eps.v == eps && b->u.norm.gain.v &&
           b->u.norm.gain_offset.v == 0 && b->u.norm.scale.v == KF_NORM_SCALE_NONE;
}

/** residual: [rms_norm, |kind|]; the norm's epsilon must be |eps|. */
static const kf_block *find_branch(const kf_block *b, kf_block_kind kind, double eps)
{
    if (b->kind != KF_BLOCK_RESIDUAL || b->u.residual.body.n != 2)
        return NULL;
    const kf_block *norm = &b->u.residual.body.block[0], *part = &b->u.residual.body.block[1];
    return is_plain_norm(norm, eps) && part->kind == kind ? part : NULL;
}

static bool has_default_names(const kf_blocks *blocks)
{
    for (uint32_t i = 0; i < blocks->n; i++) {
        const kf_block *b = &blocks->block[i];
        for (uint32_t j = 0; j < b->n_params; j++)
            if (kf_src_given(b->param[j].src) || b->param[j].part != KF_PART_WHOLE)
                return false;
        if (b->kind == KF_BLOCK_RESIDUAL && !has_default_names(&b->u.residual.body))
            return false;
    }
    return true;
}

static bool is_plain_causal(const kf_expr *e)
{
    return e->op == KF_EXPR_FN && e->fn == KF_FN_le && e->arg[0]->op == KF_EXPR_VAR &&
           e->arg[0]->var == KF_EXPR_K && e->arg[1]->op == KF_EXPR_VAR &&
           e->arg[1]->var == KF_EXPR_Q;
}

static bool is_plain_attention(const kf_spec_attention *a, double eps)
{
    return a->rope.present.v && a->rope.rotated_dim == a->head_dim.v &&
           a->rope.style.v == KF_ROPE_HALF && a->score.expr == NULL &&
           a->normaliser.v == KF_NORMALISE_SOFTMAX && a->prob.expr == NULL && !a->sinks.v &&
           is_plain_causal(a->mask.expr) && a->scale.v == 1 / sqrt((double)a->head_dim.v) &&
           (a->qk_norm.v == KF_QK_NORM_NONE || a->qk_norm_eps.v == eps);
}

static bool find_decoder(const kf_spec *spec, decoder *d)
{
    const kf_block *m = spec->model.block;
    if (spec->kind != KF_MODEL_DECODER || spec->n_blocks != 1 || spec->model.n != 4 ||
        m[1].kind != KF_BLOCK_REPEAT || m[2].kind != KF_BLOCK_RMS_NORM ||
        !is_plain_norm(&m[2], m[2].u.norm.eps.v) || spec->block[0].body.n != 2 ||
        m[0].u.embedding.scale.v != 1)
        return false;
    d->eps = m[2].u.norm.eps.v;
    d->repeat = &m[1].u.repeat;
    d->head = &m[3].u.linear;
    const kf_block *attention =
        find_branch(&spec->block[0].body.block[0], KF_BLOCK_ATTENTION, d->eps);
    const kf_block *glu = find_branch(&spec->block[0].body.block[1], KF_BLOCK_GLU, d->eps);
    if (attention == NULL || glu == NULL || glu->u.glu.nested.v != 0 || d->head->bias.v ||
        d->head->act.expr != NULL || d->repeat->block.n != 1 ||
        !kf_str_eq_c(d->repeat->weights.v, "model.layers.{i}") ||
        !has_default_names(&spec->model) || !has_default_names(&spec->block[0].body))
        return false;
    d->attention = &attention->u.attention;
    d->glu = &glu->u.glu;
    d->act = find_act(d->glu->act.expr);
    return d->act != NULL && is_plain_attention(d->attention, d->eps);
}

static const char *choose_architecture(const decoder *d)
{
    bool same_bias = d->attention->qkv_bias.v == d->attention->o_bias.v;
    if (d->attention->qk_norm.v == KF_QK_NORM_RMS)
        return same_bias && !d->glu->bias.v ? "Qwen3ForCausalLM" : NULL;
    if (same_bias)
        return "LlamaForCausalLM";
    return d->attention->qkv_bias.v && !d->glu->bias.v ? "Qwen2ForCausalLM" : NULL;
}

static const char *model_type(const char *architecture)
{
    return architecture[0] == 'L' ? "llama" : architecture[4] == '2' ? "qwen2" : "qwen3";
}

static void write_rope(kf_json *j, const kf_spec_rope *rope)
{
    static const char *const types[] = {"default", "linear", "llama3"}; /* ORDER: kf_rope_type */
    kf_json_key(j, "rope_parameters");
    kf_json_open(j, '{');
    kf_json_kdouble(j, "rope_theta", rope->theta.v);
    kf_json_kstr(j, "rope_type", kf_str_from(types[rope->type.v]));
    if (rope->type.v != KF_ROPE_DEFAULT)
        kf_json_kdouble(j, "factor", rope->factor.v);
    if (rope->type.v == KF_ROPE_LLAMA3) {
        kf_json_kdouble(j, "low_freq_factor", rope->low_freq_factor.v);
        kf_json_kdouble(j, "high_freq_factor", rope->high_freq_factor.v);
        kf_json_kint(j, "original_max_position_embeddings",
                     rope->original_max_position_embeddings.v);
    }
    kf_json_close(j, '}');
}

static const char *dtype_name(kf_dtype dtype)
{
    return dtype == KF_DTYPE_bf16 ? "bfloat16" : dtype == KF_DTYPE_f16 ? "float16" : "float32";
}

static void write_ids(kf_json *j, const kf_spec_generation *g)
{
    if (kf_src_given(g->bos_token_id.src))
        kf_json_kint(j, "bos_token_id", g->bos_token_id.v);
    if (kf_src_given(g->eos_token_id.src) && g->eos_token_id.n == 1)
        kf_json_kint(j, "eos_token_id", g->eos_token_id.v[0]);
}

bool kf_hf_export_config(const kf_spec *spec, kf_dtype dtype, kf_sbuf *out)
{
    decoder d;
    const char *architecture = find_decoder(spec, &d) ? choose_architecture(&d) : NULL;
    if (architecture == NULL)
        return false;
    kf_json j = {.out = out};
    kf_json_open(&j, '{');
    kf_json_key(&j, "architectures");
    kf_json_open(&j, '[');
    kf_json_c(&j, architecture);
    kf_json_close(&j, ']');
    kf_json_kstr(&j, "model_type", kf_str_from(model_type(architecture)));
    kf_json_kint(&j, "vocab_size", spec->vocab_size.v);
    kf_json_kint(&j, "hidden_size", spec->hidden_size.v);
    kf_json_kint(&j, "num_hidden_layers", d.repeat->times.v);
    kf_json_kint(&j, "num_attention_heads", d.attention->num_attention_heads.v);
    kf_json_kint(&j, "num_key_value_heads", d.attention->num_key_value_heads.v);
    kf_json_kint(&j, "head_dim", d.attention->head_dim.v);
    kf_json_kint(&j, "intermediate_size", d.glu->intermediate_size.v);
    kf_json_kint(&j, "max_position_embeddings", spec->max_position_embeddings.v);
    kf_json_kstr(&j, "hidden_act", kf_str_from(d.act));
    kf_json_kdouble(&j, "rms_norm_eps", d.eps);
    if (d.attention->qkv_bias.v == d.attention->o_bias.v)
        kf_json_kbool(&j, "attention_bias", d.attention->o_bias.v);
    if (d.glu->bias.v)
        kf_json_kbool(&j, "mlp_bias", true);
    kf_json_kbool(&j, "tie_word_embeddings", d.head->tied_to != NULL);
    write_rope(&j, &d.attention->rope);
    write_ids(&j, &spec->generation);
    kf_json_kstr(&j, "dtype", kf_str_from(dtype_name(dtype)));
    kf_json_close(&j, '}');
    kf_sbuf_char(out, '\n');
    return true;
}
