/* SPDX-License-Identifier: Apache-2.0 */
/* schema - reading and printing mappings by the table schema.def. Private to the frontend.
 *
 * Scalars are typed here, by the key they stand under and never by how they look: 1e-5 and
 * 1_000_000 are numbers, only true and false are booleans, memory has a unit.
 */
#ifndef KF_FRONTEND_SCHEMA_H
#define KF_FRONTEND_SCHEMA_H

#include "frontend/spec.h"

typedef enum kf_key_type {
    KF_KEY_int,
    KF_KEY_num,
    KF_KEY_bool,
    KF_KEY_str,
    KF_KEY_dtype,
    KF_KEY_memory,
    KF_KEY_strs,
    KF_KEY_ints,
    KF_KEY_act, /* the four expressions are stored as text; kf_read_expr parses them */
    KF_KEY_mask,
    KF_KEY_score,
    KF_KEY_prob,
    KF_KEY_node,
#define WORDS(set, ...) KF_KEY_##set,
#include "frontend/schema.def"
#undef WORDS
    KF_KEY_TYPE_COUNT
} kf_key_type;

typedef enum kf_key_need { KF_NEED_OPT, KF_NEED_REQ, KF_NEED_DRV } kf_key_need;

typedef struct kf_key {
    const char *name;
    kf_key_type type;
    size_t offset; /* of a kf_sv_* in the scope's struct */
    double min, max;
    kf_key_need need;
    const char *def; /* YAML text; "" for none */
    const char *doc;
} kf_key;

typedef enum kf_scope {
#define SCOPE(scope, type, title, summary) KF_SCOPE_##scope,
#define KEY(...)
#define NODE(...)
#define END(scope)
#include "frontend/schema.def"
#undef SCOPE
#undef KEY
#undef NODE
#undef END
    KF_SCOPE_COUNT
} kf_scope;

typedef struct kf_scope_info {
    const char *title;
    const char *summary;
    const kf_key *key;
    uint32_t n_keys;
} kf_scope_info;

extern const kf_scope_info kf_scope_infos[KF_SCOPE_COUNT];

/** The keys of TOP that are used up by reading; the others go into the Spec. */
typedef struct kf_schema_top {
    kf_sv_int spec;
    kf_sv_str name, family, from;
    kf_sv_int vocab_size, hidden_size, max_position_embeddings;
    kf_sv_dtype dtype;
    kf_sv_str weights, tokenizer;
} kf_schema_top;

typedef struct kf_schema_family {
    kf_sv_int num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim;
    kf_sv_int intermediate_size;
    kf_sv_expr hidden_act;
    kf_sv_num rms_norm_eps, layer_norm_eps;
    kf_sv_bool tie_word_embeddings, attention_bias, qkv_bias, o_bias, mlp_bias;
    kf_sv_word qk_norm;
    kf_sv_int sliding_window, type_vocab_size;
    kf_sv_int num_decoder_layers, relative_attention_num_buckets, relative_attention_max_distance;
    kf_sv_str feed_forward_proj;
    kf_sv_bool scale_decoder_outputs;
    kf_sv_num query_pre_attn_scalar, attn_logit_softcapping, final_logit_softcapping, logit_scale;
} kf_schema_family;

typedef struct kf_schema_task {
    kf_sv_word pool;
} kf_schema_task;

/** What every reading function needs. */
typedef struct kf_reader {
    kf_arena *arena;
    kf_diags *diags;
    kf_spec *spec;
} kf_reader;

/** Reads |map| into |out| (the scope's struct). |owner| is what the mapping belongs to, for the
 * place of a missing key. Unknown keys are reported unless |other| (a scope, or KF_SCOPE_COUNT)
 * knows them. Returns false after any error; what could be read is stored. |map| NULL: defaults
 * only. */
bool kf_schema_read(kf_reader *r, kf_scope scope, kf_scope other, const kf_yaml_node *map,
                    kf_src owner, void *out);

const kf_key *kf_schema_find(kf_scope scope, kf_str name);

/** Parses the expression under |key| of |map|, or the default text that |sv| holds. */
bool kf_read_expr(kf_reader *r, const kf_yaml_node *map, const char *key, kf_expr_kind kind,
                  kf_expr_env env, kf_sv_expr *sv);

/** A whole number of |min| to |max|; |name| is for messages. */
bool kf_read_int(kf_reader *r, const kf_yaml_node *node, const char *name, double min, double max,
                 int64_t *out);

/** Checks the kind of |node|, reporting E0105. */
bool kf_expect_kind(kf_reader *r, const kf_yaml_node *node, kf_yaml_kind kind, const char *what);

/** The names of a word set, and how many. */
const char *const *kf_word_names(kf_key_type set, uint32_t *out_n);

/** Whether the value at |sv| is the schema's constant default. */
bool kf_key_is_default(kf_arena *arena, const kf_key *key, const void *sv);
kf_src kf_key_src(const kf_key *key, const void *sv);
/** Appends the value as YAML that reads back the same. */
void kf_key_print(const kf_key *key, const void *sv, kf_sbuf *out);
/** Appends a YAML scalar for a string: plain where that is safe, else in double quotes. */
void kf_print_yaml_str(kf_str s, kf_sbuf *out);

#endif
