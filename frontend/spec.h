/* SPDX-License-Identifier: Apache-2.0 */
/* spec - the typed model description: what the user asked for, checked and normalized.
 *
 * In memory there is only the open composition: a tree of blocks. A preset (`family:`) or a Hugging
 * Face directory is written out as one while reading, so nothing behind this header knows of model
 * families. Every value carries its place in the user's text and where it came from; shapes and
 * checkpoint names of all parameters are resolved here. Everything lives in the caller's arena and
 * is immutable after kf_spec_load. Reading is spec_load.c (files, precedence) and spec_read.c
 * (blocks); the way back to text is spec_print.c.
 */
#ifndef KF_FRONTEND_SPEC_H
#define KF_FRONTEND_SPEC_H

#include "frontend/expr.h"
#include "frontend/yaml.h"
#include "ir/type.h"

/** Where a value stands and who gave it. origin NONE: not given, the schema's default holds. */
typedef struct kf_src {
    kf_loc loc;
    kf_origin origin;
} kf_src;

/* A value with its source. kf_sv_word holds an enumerator of the field's set. */
typedef struct kf_sv_int {
    int64_t v;
    kf_src src;
} kf_sv_int;
typedef struct kf_sv_num {
    double v;
    kf_src src;
} kf_sv_num;
typedef struct kf_sv_bool {
    bool v;
    kf_src src;
} kf_sv_bool;
typedef struct kf_sv_str {
    kf_str v;
    kf_src src;
} kf_sv_str;
typedef struct kf_sv_word {
    int v;
    kf_src src;
} kf_sv_word;
/** A dtype; origin NONE means "not chosen" (as stored, or the target's default). */
typedef struct kf_sv_dtype {
    kf_dtype v;
    kf_src src;
} kf_sv_dtype;
/** A list of strings or of integers. */
typedef struct kf_sv_strs {
    const kf_str *v;
    const kf_loc *at; /* place of each */
    uint32_t n;
    kf_src src;
} kf_sv_strs;
typedef struct kf_sv_ints {
    const int64_t *v;
    uint32_t n;
    kf_src src;
} kf_sv_ints;
/** An expression: its text as written (with places) and its meaning. expr NULL: none. */
typedef struct kf_sv_expr {
    kf_str text;
    const kf_expr *expr;
    kf_src src;
} kf_sv_expr;

static inline bool kf_src_given(kf_src src)
{
    return src.origin != KF_ORIGIN_NONE;
}

typedef enum kf_block_kind {
#define BLOCK(name, word, has_body, summary) KF_BLOCK_##name,
#include "frontend/blocks.def"
#undef BLOCK
    KF_BLOCK_KIND_COUNT
} kf_block_kind;

typedef enum kf_param_role {
#define PARAM(name, word, summary) KF_PARAM_##name,
#include "frontend/blocks.def"
#undef PARAM
    KF_PARAM_ROLE_COUNT
} kf_param_role;

typedef struct kf_block_info {
    const char *word; /* the key in the file */
    bool has_body;    /* residual, parallel, repeat */
    const char *summary;
} kf_block_info;

typedef struct kf_param_info {
    const char *word; /* last part of the key in weight_names */
    const char *summary;
} kf_param_info;

extern const kf_block_info kf_block_infos[KF_BLOCK_KIND_COUNT];
extern const kf_param_info kf_param_infos[KF_PARAM_ROLE_COUNT];

/** The tensors that make up a parameter; rows of PART in blocks.def. */
typedef enum kf_param_part {
#define PART(name, word, suffix, summary) KF_PART_##name,
#include "frontend/blocks.def"
#undef PART
    KF_PART_COUNT
} kf_param_part;

typedef struct kf_param_part_info {
    const char *word;   /* behind the role in weight_names; "" for the whole */
    const char *suffix; /* of its checkpoint name by default */
    const char *summary;
} kf_param_part_info;

extern const kf_param_part_info kf_param_part_infos[KF_PART_COUNT];

/** Where in a checkpoint tensor a parameter is, when it is not the whole of it. */
typedef struct kf_spec_view {
    kf_sv_str tensor;
    kf_sv_bool transposed; /* stored as [in, out] */
    kf_sv_strs packed;     /* roles of the block whose rows the tensor holds, in its order */
    kf_sv_int groups;      /* each with its share of every packed part */
} kf_spec_view;

/** One parameter of a block. Matrices are [out, in], as most checkpoints store them. */
typedef struct kf_spec_param {
    kf_param_role role;
    kf_param_part part;
    kf_str key;  /* "layer.attention.q": how weight_names calls it */
    kf_str name; /* checkpoint name; inside a repeated block relative to the repeat's |weights| */
    kf_src src;  /* of the weight_names entry; origin NONE: the default name */
    uint8_t rank;
    int64_t dim[2];
    const char *why[2]; /* per dim: the keys that imply it, for messages */
    /* The tensor that holds it: itself, unless weight_names gave a view. */
    kf_spec_view view;
    int64_t tensor_rows; /* rows of the whole tensor */
    int64_t first_row;   /* in each group */
    bool is_first_part;  /* of the parameters of one tensor */
} kf_spec_param;

typedef struct kf_block kf_block;

/** Blocks one after the other. */
typedef struct kf_blocks {
    kf_block *block;
    uint32_t n;
} kf_blocks;

/* Words of the schema; ORDER: schema.def. */
typedef enum kf_qk_norm { KF_QK_NORM_NONE, KF_QK_NORM_RMS } kf_qk_norm;
typedef enum kf_normaliser_of { KF_NORMALISE_SOFTMAX, KF_NORMALISE_NONE } kf_normaliser_of;
typedef enum kf_pool_of { KF_POOL_MEAN, KF_POOL_CLS } kf_pool_of;
typedef enum kf_rope_style { KF_ROPE_HALF, KF_ROPE_INTERLEAVED } kf_rope_style;
typedef enum kf_rope_type { KF_ROPE_DEFAULT, KF_ROPE_LINEAR, KF_ROPE_LLAMA3 } kf_rope_type;

/** Rotary position embedding (Su et al. 2021, arXiv:2104.09864). present.v false: no rope. */
typedef struct kf_spec_rope {
    kf_sv_bool present;
    kf_sv_num theta;
    kf_sv_num fraction; /* of head_dim that is rotated, from its start; rotated_dim is even */
    kf_sv_int dim;      /* instead of fraction; valid when given */
    kf_sv_word style;   /* kf_rope_style */
    uint32_t rotated_dim;
    /* scaling: */
    kf_sv_word type; /* kf_rope_type */
    kf_sv_num factor;
    kf_sv_num low_freq_factor;                  /* llama3 */
    kf_sv_num high_freq_factor;                 /* llama3 */
    kf_sv_int original_max_position_embeddings; /* llama3 */
} kf_spec_rope;

/** Self attention, or cross attention, which has no norms, rope, mask and score. Parameters: q, k,
 * v, o and their biases; q_norm and k_norm gains [head_dim]; sinks [num_attention_heads]. */
typedef struct kf_spec_attention {
    kf_sv_int num_attention_heads;
    kf_sv_int num_key_value_heads; /* divides num_attention_heads */
    kf_sv_int head_dim;
    kf_sv_bool qkv_bias;
    kf_sv_bool o_bias;
    kf_sv_word qk_norm; /* kf_qk_norm: over head_dim, before rope */
    kf_sv_num qk_norm_eps;
    kf_spec_rope rope;
    kf_sv_bool relative_bias; /* adds the table of the relative_bias before it */
    kf_sv_num scale;          /* of q.k; default head_dim^-0.5 */
    kf_sv_expr mask;          /* over h, q, k; implies k <= q, except in encoders */
    kf_sv_expr score;         /* over score, h, q, k; expr NULL: the score itself */
    kf_sv_word normaliser;    /* kf_normaliser_of */
    kf_sv_expr prob;          /* over h, q, k; expr NULL: 1 */
    kf_sv_bool sinks;         /* with softmax only */
} kf_spec_attention;

/** act(gate(x)) * up(x), then down. Parameters: gate, up, down and their biases. */
typedef struct kf_spec_glu {
    kf_sv_expr act;
    kf_sv_int intermediate_size;
    kf_sv_int nested; /* columns inside that are used; 0: all */
    kf_sv_bool bias;
} kf_spec_glu;

/** down(act(up(x))). Parameters: up, down and their biases. */
typedef struct kf_spec_mlp {
    kf_sv_expr act;
    kf_sv_int intermediate_size;
    kf_sv_int nested; /* 0: all */
    kf_sv_bool bias;
} kf_spec_mlp;

typedef enum kf_norm_scale { KF_NORM_SCALE_NONE, KF_NORM_SCALE_INV_SQRT_DEPTH } kf_norm_scale;

/** rms_norm (gain), layer_norm and batch_norm (gain and bias) over hidden_size. */
typedef struct kf_spec_norm {
    kf_sv_num eps;
    kf_sv_bool gain;
    kf_sv_num gain_offset; /* multiplied is gain_offset + the parameter */
    kf_sv_bool bias;       /* layer_norm, batch_norm */
    kf_sv_word scale;      /* kf_norm_scale */
    kf_sv_bool residual;   /* batch_norm: adds alpha * x */
} kf_spec_norm;

/** Sum of weight[order - i] * x^i / rms(x^i) over i = 1 .. order, + bias. */
typedef struct kf_spec_poly_norm {
    kf_sv_int order;
    kf_sv_num eps;
} kf_spec_poly_norm;

/** table[bucket(k - q), head] for the attentions behind it. */
typedef struct kf_spec_bias {
    kf_sv_int num_attention_heads, buckets, max_distance;
    kf_sv_bool bidirectional;
} kf_spec_bias;

/** Token embedding, [vocab_size, hidden_size]; first block of the model. */
typedef struct kf_spec_embedding {
    kf_sv_num scale;
    kf_sv_str tied;          /* "encoder": has no table of its own */
    const kf_block *tied_to; /* the encoder's embedding, or NULL */
} kf_spec_embedding;

/** x + table[position + offset], table [positions, hidden_size]. */
typedef struct kf_spec_position_embedding {
    kf_sv_int positions;
    kf_sv_int offset; /* row of position 0 */
} kf_spec_position_embedding;

/** x + table[type of the token]. */
typedef struct kf_spec_types {
    kf_sv_int type_vocab_size;
} kf_spec_types;

/** One row a sequence instead of one a token. */
typedef struct kf_spec_pool {
    kf_sv_word of; /* kf_pool_of */
} kf_spec_pool;

/** act(x W^T + b). The head of a decoder is its last block, with out = vocab_size. */
typedef struct kf_spec_linear {
    kf_sv_int out;
    bool out_is_vocab; /* written as the word vocab_size */
    kf_sv_bool bias;
    kf_sv_str tied; /* "embedding": shares the embedding's table and has no weight of its own */
    const kf_block *tied_to; /* that block, or NULL */
    kf_sv_expr act;          /* expr NULL: the value itself */
} kf_spec_linear;

/** |times| blocks, gone through in turn, with parameters named |weights| + "." + name; {i} is the
 * block's number: 0, 1, ... */
typedef struct kf_spec_repeat {
    kf_sv_int times; /* a multiple of block.n */
    kf_sv_strs block;
    kf_sv_str weights;
    const uint32_t *block_index; /* into kf_spec.block, per block.v */
} kf_spec_repeat;

struct kf_block {
    kf_block_kind kind;
    kf_src src;   /* of the block's word */
    kf_str label; /* "layer.attention": scope and word, numbered from the second of a kind on */
    kf_spec_param *param;
    uint32_t n_params;
    int64_t in_dim, out_dim; /* width of rows; hidden_size except after a linear */
    union {
        kf_spec_embedding embedding;
        kf_spec_position_embedding position_embedding;
        kf_spec_types types;
        kf_spec_bias bias;
        kf_spec_pool pool;
        kf_spec_linear linear;
        kf_spec_norm norm;
        kf_spec_poly_norm poly_norm;
        kf_spec_attention attention;
        kf_spec_glu glu;
        kf_spec_mlp mlp;
        kf_spec_repeat repeat;
        struct {
            kf_blocks body; /* residual: x + body(x) */
        } residual;
        struct {
            kf_blocks *branch; /* parallel: sum of branch(x) */
            uint32_t n_branches;
        } parallel;
    } u;
};

/** A named entry of `blocks:`. */
typedef struct kf_spec_block {
    kf_str name;
    kf_src src;
    kf_blocks body;
    bool used;
} kf_spec_block;

/** `build:` - how to build, apart from what the model is. */
typedef struct kf_spec_build {
    kf_sv_strs targets;                   /* "cpu", "cpu:native", "cuda:sm_90"; default cpu */
    kf_sv_dtype weights, activations, kv; /* dtypes */
    kf_sv_int max_sequences;              /* bound of S: sequences in one call */
    kf_sv_int max_tokens;                 /* bound of N: tokens in one call */
    kf_sv_int max_positions; /* bound of past + new per sequence; default max_position_embeddings */
    kf_sv_int memory;        /* bytes; 0: no limit */
    kf_sv_bool fold_narrow;
    kf_sv_word norm_rewrite;    /* none, rms, crms */
    kf_sv_strs require, forbid; /* fusion contracts */
} kf_spec_build;

/** Ways in which a matrix is stored in parts; `adapters:` and `weight_forms:`. */
typedef enum kf_form { KF_FORM_LORA, KF_FORM_LOW_RANK, KF_FORM_SPECTRAL, KF_FORM_COUNT } kf_form;

typedef struct kf_spec_form {
    kf_sv_bool present;
    kf_sv_int rank;
    kf_sv_num alpha;
    kf_sv_strs targets;
    uint64_t roles, used; /* sets of kf_param_role: targets, and those that a block has */
} kf_spec_form;

/** Defaults of generation; from generation_config.json or config.json. */
typedef struct kf_spec_generation {
    kf_sv_int bos_token_id; /* valid when given */
    kf_sv_ints eos_token_id;
    kf_sv_int pad_token_id;
    kf_sv_int decoder_start_token_id;
    kf_sv_bool do_sample;
    kf_sv_num temperature;
    kf_sv_num top_p;
    kf_sv_int top_k;
} kf_spec_generation;

/** What a call of the model is. */
typedef enum kf_model_kind {
    KF_MODEL_DECODER, /* tokens join those that the cache holds; a token sees earlier ones */
    KF_MODEL_ENCODER, /* whole sequences in one call; a token may see later ones */
    KF_MODEL_ENCODER_DECODER, /* a decoder that attends to what an encoder took before */
} kf_model_kind;

/** The key that holds kf_spec.model, by kind. */
extern const char *const kf_model_words[];

typedef struct kf_spec {
    uint32_t file; /* diagnostics file number of the description */
    kf_str path;   /* as given */
    kf_str dir;    /* directory that relative paths start from */
    kf_str text;   /* source text, for digests */
    kf_sv_str name;
    kf_sv_int vocab_size;
    kf_sv_int hidden_size;
    kf_sv_int max_position_embeddings;
    kf_sv_dtype dtype;    /* storage type of the weights; not given: as stored */
    kf_sv_str weights;    /* directory or file, resolved against |dir|; empty: none */
    kf_sv_str tokenizer;  /* tokenizer.json, resolved; empty: none */
    kf_spec_block *block; /* `blocks:` */
    uint32_t n_blocks;
    kf_model_kind kind;
    kf_blocks model;           /* `model:`, or `encoder:` of an encoder, or `decoder:` */
    kf_blocks encoder;         /* beside a decoder; else none */
    const kf_block *embedding; /* first block of the model */
    const kf_block *head;      /* last block of the model; a decoder's goes onto the vocabulary */
    kf_spec_form form[KF_FORM_COUNT];
    kf_spec_generation generation;
    kf_spec_build build;
} kf_spec;

/** One `key=value` from the command line ("build.max_tokens", "dtype"); the value is YAML text. */
typedef struct kf_override {
    kf_str key;
    kf_str value;
} kf_override;

/** Reads |path|: a YAML file, or a Hugging Face directory. Reports all errors that it can find;
 * returns NULL when there was any. Files that the description names besides config.json are not
 * opened. */
kf_spec *kf_spec_load(kf_arena *arena, kf_diags *diags, const char *path,
                      const kf_override *overrides, uint32_t n_overrides);

/** The same from text registered under |path|; relative paths start from |dir|. */
kf_spec *kf_spec_load_text(kf_arena *arena, kf_diags *diags, const char *path, const char *dir,
                           kf_str text, const kf_override *overrides, uint32_t n_overrides);

/** Appends the normalized open composition: YAML that reads back as an equal Spec. |origins|: a
 * comment behind each value that did not come from the spec file itself says where it came from. */
void kf_spec_print(const kf_spec *spec, bool origins, kf_sbuf *out);

/** The body of the |i|-th block of a repeat's list. */
static inline kf_blocks kf_repeat_body(const kf_spec *spec, const kf_spec_repeat *r, uint32_t i)
{
    return spec->block[r->block_index[i]].body;
}
/** Token types that a call may name; 0: the model has none. */
int64_t kf_spec_token_types(const kf_spec *spec);

/** Whether a sequence has one row of results instead of one for each token. */
bool kf_spec_is_pooled(const kf_spec *spec);

/** Numbers in a row of results: the vocabulary's size, or an encoder's width. */
int64_t kf_spec_row_width(const kf_spec *spec);

/** Parameter of |block| by role, or NULL. */
const kf_spec_param *kf_block_param(const kf_block *block, kf_param_role role);
const kf_spec_param *kf_block_part(const kf_block *block, kf_param_role role, kf_param_part part);
/** The form |which| if matrices of |role| have it, else NULL. */
const kf_spec_form *kf_form_of(const kf_spec *spec, kf_form which, kf_param_role role);

/** Shape of the checkpoint tensor that holds |p|; a vector has dim[1] 0. */
void kf_spec_tensor_shape(const kf_spec_param *p, int64_t dim[2]);

/** Visits every tensor of the model once, in model order: |name| is the checkpoint name with the
 * layer number filled in, |param| the parameter that it is or the first that it holds, |block| its
 * owner. Stops and returns false when |visit| does. */
typedef bool (*kf_spec_visit_fn)(void *user, kf_str name, const kf_spec_param *param,
                                 const kf_block *block);
bool kf_spec_each_param(kf_arena *arena, const kf_spec *spec, kf_spec_visit_fn visit, void *user);

/** The keys of the schema as Markdown (docs/SPEC.md). */
void kf_spec_docs(kf_sbuf *out);

#endif
