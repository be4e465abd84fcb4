/* SPDX-License-Identifier: Apache-2.0 */
/* preset - model families as data: the open composition that a family stands for, and the Hugging
 * Face architectures that map to it. Nothing outside this folder knows a family by name.
 */
#ifndef KF_FRONTEND_PRESETS_PRESET_H
#define KF_FRONTEND_PRESETS_PRESET_H

#include <stdbool.h>
#include <stdint.h>

/** What becomes of a key of config.json. */
typedef enum kf_config_action {
    KF_CONFIG_COPY,       /* the key |arg| of the description (NULL: the same name); null: absent */
    KF_CONFIG_GENERATION, /* a key of generation: */
    KF_CONFIG_HARMLESS,   /* does not reach the logits */
    KF_CONFIG_NEUTRAL,    /* harmless while null, or one of |arg|'s words, separated by '|' */
    KF_CONFIG_EQUAL,      /* harmless while null, or the same as the key |arg| of config.json */
    KF_CONFIG_CODE,       /* read by hf_import.c */
} kf_config_action;

typedef struct kf_config_key {
    const char *key;
    kf_config_action action;
    const char *arg;
} kf_config_key;

/** Rows of a kf_config_key table: config.json in the words of the first GPTs. */
#define KF_CONFIG_KEYS_GPT                                                                         \
    {"n_embd", KF_CONFIG_COPY, "hidden_size"}, {"n_layer", KF_CONFIG_COPY, "num_hidden_layers"},   \
        {"n_head", KF_CONFIG_COPY, "num_attention_heads"},                                         \
        {"n_positions", KF_CONFIG_COPY, "max_position_embeddings"},                                \
        {"n_inner", KF_CONFIG_COPY, "intermediate_size"},                                          \
        {"n_ctx", KF_CONFIG_HARMLESS, NULL}, /* an older name, beside n_positions */               \
        {"activation_function", KF_CONFIG_COPY, "hidden_act"},                                     \
        {"layer_norm_epsilon", KF_CONFIG_COPY, "layer_norm_eps"},                                  \
        {"scale_attn_weights", KF_CONFIG_NEUTRAL, "true"},                                         \
        {"attn_pdrop", KF_CONFIG_HARMLESS, NULL}, {"summary_type", KF_CONFIG_HARMLESS, NULL},      \
        {"summary_use_proj", KF_CONFIG_HARMLESS, NULL},                                            \
        {"summary_activation", KF_CONFIG_HARMLESS, NULL},                                          \
        {"summary_proj_to_labels", KF_CONFIG_HARMLESS, NULL},                                      \
    {                                                                                              \
        "summary_first_dropout", KF_CONFIG_HARMLESS, NULL                                          \
    }

/** How config.json's sliding_window counts for an architecture. */
typedef enum kf_arch_window {
    KF_WINDOW_NEVER,      /* there is no such key */
    KF_WINDOW_IF_GIVEN,   /* whenever it is not null */
    KF_WINDOW_IF_ENABLED, /* only with use_sliding_window: true */
} kf_arch_window;

/** What config.json says about rope. */
typedef enum kf_arch_rope {
    KF_ARCH_ROPE_NONE,  /* there is none, or the keys of the architecture say all of it */
    KF_ARCH_ROPE_WHOLE, /* rope_parameters, or rope_theta and rope_scaling; heads turn as a whole */
    KF_ARCH_ROPE_PARTIAL, /* the same, with partial_rotary_factor */
} kf_arch_rope;

/** A key that the architecture fixes (|fixed|) or whose default differs from the family's. Value:
 * YAML. */
typedef struct kf_arch_key {
    const char *key;
    const char *value;
    bool fixed;
} kf_arch_key;

#define KF_ARCH_MAX_KEYS  8
#define KF_ARCH_MAX_TYPES 8

typedef struct kf_arch {
    const char *name; /* in config.json's architectures */
    struct {
        const char *key, *value;
    } when; /* counts only where config.json has this value; rows are tried in order. key NULL: always */
    kf_arch_window window;
    const char *window_size; /* without the key sliding_window; NULL: none */
    int64_t window_from;     /* the same of max_window_layers, for KF_WINDOW_IF_ENABLED */
    kf_arch_rope rope;
    kf_arch_key key[KF_ARCH_MAX_KEYS]; /* ends at the first without a key */
    /* Keys of its own, before those that all architectures share; ends at the first without a key.
     * May be NULL. */
    const kf_config_key *config;
    /* The types of layers in turn, as far as layer_types may say something; none: full attention
     * throughout. */
    const char *layer_type[KF_ARCH_MAX_TYPES];
} kf_arch;

/** A family, or what it becomes for a task. |text|: YAML of blocks and model; a scalar $key stands
 * for the value of that key of the description, ${key} inside a longer scalar for its text, and a
 * pair whose value is absent is left out. |defaults|: YAML of keys that this family presets, put
 * below the description's. */
typedef struct kf_preset {
    const char *family;
    const char *task; /* NULL: the family has one form; else the first of a family is its default */
    const char *summary;
    const char *defaults;
    const char *text;
    const kf_arch *arch; /* architectures of config.json; ends at the first without a name */
} kf_preset;

extern const kf_preset *const kf_presets[];
extern const uint32_t kf_n_presets;

/** The architecture after |arch| in the order of the tables, and the preset it belongs to (which is
 * in/out); NULL, NULL begins, NULL ends. */
const kf_arch *kf_arch_next(const kf_arch *arch, const kf_preset **preset);

/** Default checkpoint names by parameter, without the scope ("attention.q"); NULL: none.
 * |in_block|: inside an entry of `blocks:`, else in `model:`. */
const char *kf_default_weight_name(const char *parameter, bool in_block);

#endif
