/* SPDX-License-Identifier: Apache-2.0 */
/* hf_import - config.json and generation_config.json as a description with `family:`.
 *
 * Every key is a row of the tables below: copied, known to be harmless, or harmless only at a
 * neutral value. A key in no table is a warning; one that changes the mathematics in a way that is
 * not supported is an error (E0402), never silence. Values stay nodes of config.json, so later
 * errors point into it.
 */
#include "base/fs.h"
#include "base/vec.h"
#include "frontend/presets/preset.h"
#include "frontend/spec_read.h"

#include <stdlib.h>
#include <string.h>

/* What all architectures share; the rows of an architecture's own table come first. */
static const kf_config_key config_keys[] = {
    {"vocab_size", KF_CONFIG_COPY, NULL},
    {"hidden_size", KF_CONFIG_COPY, NULL},
    {"num_hidden_layers", KF_CONFIG_COPY, NULL},
    {"num_attention_heads", KF_CONFIG_COPY, NULL},
    {"num_key_value_heads", KF_CONFIG_COPY, NULL},
    {"head_dim", KF_CONFIG_COPY, NULL},
    {"intermediate_size", KF_CONFIG_COPY, NULL},
    {"hidden_act", KF_CONFIG_COPY, NULL},
    {"rms_norm_eps", KF_CONFIG_COPY, NULL},
    {"max_position_embeddings", KF_CONFIG_COPY, NULL},
    {"tie_word_embeddings", KF_CONFIG_COPY, NULL},
    {"attention_bias", KF_CONFIG_COPY, NULL},
    {"mlp_bias", KF_CONFIG_COPY, NULL},
    {"bos_token_id", KF_CONFIG_GENERATION, NULL},
    {"eos_token_id", KF_CONFIG_GENERATION, NULL},
    {"pad_token_id", KF_CONFIG_GENERATION, NULL},
    {"decoder_start_token_id", KF_CONFIG_GENERATION, NULL},
    {"architectures", KF_CONFIG_CODE, NULL},
    {"dtype", KF_CONFIG_CODE, NULL},
    {"torch_dtype", KF_CONFIG_CODE, NULL},
    {"rope_theta", KF_CONFIG_CODE, NULL},
    {"rope_scaling", KF_CONFIG_CODE, NULL},
    {"rope_parameters", KF_CONFIG_CODE, NULL},
    {"partial_rotary_factor", KF_CONFIG_CODE, NULL},
    {"sliding_window", KF_CONFIG_CODE, NULL},
    {"use_sliding_window", KF_CONFIG_CODE, NULL},
    {"max_window_layers", KF_CONFIG_CODE, NULL},
    {"layer_types", KF_CONFIG_CODE, NULL},
    {"model_type", KF_CONFIG_HARMLESS, NULL},
    {"transformers_version", KF_CONFIG_HARMLESS, NULL},
    {"use_cache", KF_CONFIG_HARMLESS, NULL},
    {"initializer_range", KF_CONFIG_HARMLESS, NULL},
    {"attention_dropout", KF_CONFIG_HARMLESS, NULL},
    {"hidden_dropout", KF_CONFIG_HARMLESS, NULL},
    {"hidden_dropout_prob", KF_CONFIG_HARMLESS, NULL},
    {"resid_pdrop", KF_CONFIG_HARMLESS, NULL},
    {"embd_pdrop", KF_CONFIG_HARMLESS, NULL},
    {"pretraining_tp", KF_CONFIG_HARMLESS, NULL},
    {"_name_or_path", KF_CONFIG_HARMLESS, NULL},
    {"name_or_path", KF_CONFIG_HARMLESS, NULL},
    {"_attn_implementation", KF_CONFIG_HARMLESS, NULL},
    {"_attn_implementation_autoset", KF_CONFIG_HARMLESS, NULL},
    {"attn_implementation", KF_CONFIG_HARMLESS, NULL},
    {"output_attentions", KF_CONFIG_HARMLESS, NULL},
    {"output_hidden_states", KF_CONFIG_HARMLESS, NULL},
    {"return_dict", KF_CONFIG_HARMLESS, NULL},
    {"torchscript", KF_CONFIG_HARMLESS, NULL},
    {"gradient_checkpointing", KF_CONFIG_HARMLESS, NULL},
    {"id2label", KF_CONFIG_HARMLESS, NULL},
    {"label2id", KF_CONFIG_HARMLESS, NULL},
    {"problem_type", KF_CONFIG_HARMLESS, NULL},
    {"task_specific_params", KF_CONFIG_HARMLESS, NULL},
    {"chunk_size_feed_forward", KF_CONFIG_HARMLESS, NULL},
    {"unsloth_version", KF_CONFIG_HARMLESS, NULL},
    {"unsloth_fixed", KF_CONFIG_HARMLESS, NULL},
    {"max_sequence_length", KF_CONFIG_HARMLESS, NULL},
    {"tokenizer_class", KF_CONFIG_HARMLESS, NULL},
    {"eos_token", KF_CONFIG_HARMLESS, NULL},
    {"bos_token", KF_CONFIG_HARMLESS, NULL},
    {"is_decoder", KF_CONFIG_HARMLESS, NULL},
    {"is_llama_config", KF_CONFIG_HARMLESS, NULL},
    {"transformers.js_config", KF_CONFIG_HARMLESS, NULL},
    {"is_encoder_decoder", KF_CONFIG_NEUTRAL, "false"},
    {"add_cross_attention", KF_CONFIG_NEUTRAL, "false"},
    {"quantization_config", KF_CONFIG_NEUTRAL, ""},
    {"compression_config", KF_CONFIG_NEUTRAL, ""},
    {"auto_map", KF_CONFIG_NEUTRAL, ""},
    {"rope_interleaved", KF_CONFIG_NEUTRAL, "false"},
    {"use_mrope", KF_CONFIG_NEUTRAL, "false"},
    {"rope_interleave", KF_CONFIG_NEUTRAL, "false"},
    {"logit_scale", KF_CONFIG_NEUTRAL, "1|1.0"},
    {"logits_scaling", KF_CONFIG_NEUTRAL, "1|1.0"},
    {"embedding_multiplier", KF_CONFIG_NEUTRAL, "1|1.0"},
    {"residual_multiplier", KF_CONFIG_NEUTRAL, "1|1.0"},
    {"attention_multiplier", KF_CONFIG_NEUTRAL, ""},
    {"final_logit_softcapping", KF_CONFIG_NEUTRAL, ""},
    {"attn_logit_softcapping", KF_CONFIG_NEUTRAL, ""},
    {"query_pre_attn_scalar", KF_CONFIG_NEUTRAL, ""},
    {"clip_qkv", KF_CONFIG_NEUTRAL, ""},
    {"no_rope_layers", KF_CONFIG_NEUTRAL, ""},
    {"no_rope_layer_interval", KF_CONFIG_NEUTRAL, ""},
    {"attention_chunk_size", KF_CONFIG_NEUTRAL, ""},
    {"use_qk_norm", KF_CONFIG_NEUTRAL, "false"},
    {"num_local_experts", KF_CONFIG_NEUTRAL, "0"},
    {"num_experts", KF_CONFIG_NEUTRAL, "0"},
    {"n_routed_experts", KF_CONFIG_NEUTRAL, "0"},
    {"num_experts_per_tok", KF_CONFIG_NEUTRAL, "0"},
    {0},
};

static const kf_config_key generation_keys[] = {
    {"bos_token_id", KF_CONFIG_GENERATION, NULL},
    {"eos_token_id", KF_CONFIG_GENERATION, NULL},
    {"pad_token_id", KF_CONFIG_GENERATION, NULL},
    {"decoder_start_token_id", KF_CONFIG_GENERATION, NULL},
    {"do_sample", KF_CONFIG_GENERATION, NULL},
    {"temperature", KF_CONFIG_GENERATION, NULL},
    {"top_p", KF_CONFIG_GENERATION, NULL},
    {"top_k", KF_CONFIG_GENERATION, NULL},
    {"_from_model_config", KF_CONFIG_HARMLESS, NULL},
    {"transformers_version", KF_CONFIG_HARMLESS, NULL},
    {"max_length", KF_CONFIG_HARMLESS, NULL},
    {"max_new_tokens", KF_CONFIG_HARMLESS, NULL},
    {"use_cache", KF_CONFIG_HARMLESS, NULL},
    {"output_attentions", KF_CONFIG_HARMLESS, NULL},
    {"output_hidden_states", KF_CONFIG_HARMLESS, NULL},
    {"trust_remote_code", KF_CONFIG_HARMLESS, NULL},
    {"user_token_id", KF_CONFIG_HARMLESS, NULL},
    {"assistant_token_id", KF_CONFIG_HARMLESS, NULL},
    {0},
};

typedef KF_VEC(kf_yaml_pair) pair_list;

typedef struct importer {
    kf_reader *r;
    const kf_yaml_node *config;
    const kf_arch *arch;
    const kf_preset *preset; /* the architecture's */
    kf_src src;              /* of the architecture's name */
    pair_list out;
    pair_list generation;
    pair_list rope;
    bool windows; /* a switch is on and gives each layer a window */
    bool ok;
} importer;

static bool is_null(const kf_yaml_node *node)
{
    return node == NULL ||
           (node->kind == KF_YAML_SCALAR && !node->quoted && kf_str_eq_c(node->text, "null"));
}

/** The value of a key of config.json; NULL when absent or null. */
static kf_yaml_node *value_of(const importer *m, const char *key)
{
    kf_yaml_node *node = kf_yaml_get(m->config, key);
    return is_null(node) ? NULL : node;
}

static void add_pair(importer *m, pair_list *list, const char *key, kf_yaml_node *value)
{
    kf_yaml_pair pair = {
        kf_yaml_new_scalar(m->r->arena, kf_str_from(key), value->loc, value->origin), value};
    kf_vec_push(m->r->arena, list, pair);
}

static kf_yaml_node *new_map(importer *m, const pair_list *list, kf_src src)
{
    kf_yaml_node *map = KF_NEW(m->r->arena, kf_yaml_node);
    *map = (kf_yaml_node){.kind = KF_YAML_MAP,
                          .origin = src.origin,
                          .loc = src.loc,
                          .n = list->len,
                          .n_expanded = 1 + 2 * list->len,
                          .height = 2};
    map->u.pairs = list->data;
    return map;
}

static void changes_maths(importer *m, const kf_yaml_node *key, const char *why)
{
    kf_diag_add(m->r->diags, KF_E0402, key->loc, "'%.*s' %s", KF_STR_ARG(key->text), why);
    m->ok = false;
}

static bool is_neutral(const kf_yaml_node *value, const char *neutral)
{
    if (is_null(value))
        return true;
    if (value->kind != KF_YAML_SCALAR)
        return false;
    for (const char *p = neutral; *p != '\0';) {
        size_t n = strcspn(p, "|");
        if (value->text.len == n && memcmp(p, value->text.ptr, n) == 0)
            return true;
        p += n + (p[n] == '|');
    }
    return false;
}

/** A key of the description from one of config.json; two names of it have to agree. */
static void copy_key(importer *m, pair_list *list, const char *name, const kf_yaml_pair *pair)
{
    for (uint32_t i = 0; i < list->len; i++) {
        const kf_yaml_node *have = list->data[i].value;
        if (!kf_str_eq_c(list->data[i].key->text, name))
            continue;
        if (have->kind == KF_YAML_SCALAR && pair->value->kind == KF_YAML_SCALAR &&
            kf_str_eq(have->text, pair->value->text))
            return;
        kf_diag *e =
            kf_diag_add(m->r->diags, KF_E0107, pair->key->loc, "'%.*s' gives %s another value",
                        KF_STR_ARG(pair->key->text), name);
        kf_diag_note(m->r->diags, e, have->loc, "the first one is here");
        m->ok = false;
        return;
    }
    add_pair(m, list, name, pair->value);
}

static void apply_key(importer *m, const kf_config_key *row, const kf_yaml_pair *pair)
{
    const char *name = row->arg != NULL ? row->arg : row->key;
    const kf_yaml_node *other;
    switch (row->action) {
    case KF_CONFIG_COPY:
        if (!is_null(pair->value) && strncmp(name, "rope.", 5) == 0)
            copy_key(m, &m->rope, name + 5, pair);
        else if (!is_null(pair->value))
            copy_key(m, &m->out, name, pair);
        return;
    case KF_CONFIG_GENERATION:
        if (!is_null(pair->value))
            add_pair(m, &m->generation, row->key, pair->value);
        return;
    case KF_CONFIG_NEUTRAL:
        if (!is_neutral(pair->value, row->arg))
            changes_maths(m, pair->key, "changes the mathematics and is not supported");
        return;
    case KF_CONFIG_EQUAL:
        other = value_of(m, row->arg);
        if (!is_null(pair->value) &&
            (other == NULL || !is_neutral(pair->value, kf_str_dup(m->r->arena, other->text).ptr)))
            changes_maths(
                m, pair->key,
                kf_strf(m->r->arena, "is supported only with the value of '%s'", row->arg).ptr);
        return;
    case KF_CONFIG_HARMLESS:
    case KF_CONFIG_CODE:
        return;
    }
}

/** The row of |key| in a table that ends at the first row without a key; NULL: none. */
static const kf_config_key *find_key(const kf_config_key *table, kf_str key)
{
    for (; table != NULL && table->key != NULL; table++)
        if (kf_str_eq_c(key, table->key))
            return table;
    return NULL;
}

/** |own| before |common|; it may be NULL. */
static void apply_keys(importer *m, const kf_yaml_node *map, const kf_config_key *own,
                       const kf_config_key *common, const char *file)
{
    enum { MAX_WARNINGS = 20 };
    uint32_t unknown = 0;
    for (uint32_t i = 0; i < map->n; i++) {
        const kf_yaml_pair *pair = &map->u.pairs[i];
        const kf_config_key *row = find_key(own, pair->key->text);
        if (row == NULL)
            row = find_key(common, pair->key->text);
        if (row != NULL)
            apply_key(m, row, pair);
        else if (unknown++ < MAX_WARNINGS)
            kf_diag_add(m->r->diags, KF_W0101, pair->key->loc, "unknown key '%.*s' in %s",
                        KF_STR_ARG(pair->key->text), file);
    }
    if (unknown > MAX_WARNINGS)
        kf_diag_add(m->r->diags, KF_W0101, map->loc, "%u more unknown keys in %s",
                    unknown - MAX_WARNINGS, file);
}

/* ---- architecture ---------------------------------------------------------------------------- */

static void report_arch(importer *m, const kf_yaml_node *name)
{
    enum { MAX_KNOWN = 64 };
    kf_str known[MAX_KNOWN];
    uint32_t n = 0;
    kf_diag *d = kf_diag_add(m->r->diags, KF_E0401, name->loc,
                             "architecture '%.*s' is not supported", KF_STR_ARG(name->text));
    kf_sbuf list = {.arena = m->r->arena};
    const kf_preset *preset = NULL;
    for (const kf_arch *a = kf_arch_next(NULL, &preset); a != NULL && n < MAX_KNOWN;
         a = kf_arch_next(a, &preset)) {
        if (a->when.key != NULL)
            continue;
        kf_sbuf_printf(&list, "%s%s", n > 0 ? ", " : "", a->name);
        known[n++] = kf_str_from(a->name);
    }
    kf_str near = kf_str_nearest(name->text, known, n);
    if (near.len > 0)
        kf_diag_hint(m->r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
    kf_diag_note(m->r->diags, d, KF_NO_LOC, "supported are %.*s", KF_STR_ARG(kf_sbuf_view(&list)));
}

static bool is_arch(const importer *m, kf_str name, const kf_arch *arch)
{
    const kf_yaml_node *given = arch->when.key != NULL ? value_of(m, arch->when.key) : NULL;
    bool holds = arch->when.key == NULL || (given != NULL && given->kind == KF_YAML_SCALAR &&
                                            kf_str_eq_c(given->text, arch->when.value));
    return holds && kf_str_eq_c(name, arch->name);
}

static bool find_arch(importer *m)
{
    const kf_yaml_node *list = value_of(m, "architectures");
    if (list == NULL || list->kind != KF_YAML_SEQ || list->n != 1 ||
        list->u.items[0]->kind != KF_YAML_SCALAR) {
        kf_loc loc = list != NULL ? list->loc : m->config->loc;
        kf_diag_add(m->r->diags, KF_E0104, loc, "config.json needs 'architectures' with one name");
        return false;
    }
    const kf_yaml_node *name = list->u.items[0];
    m->src = (kf_src){name->loc, KF_ORIGIN_CONFIG};
    m->arch = kf_arch_next(NULL, &m->preset);
    while (m->arch != NULL && !is_arch(m, name->text, m->arch))
        m->arch = kf_arch_next(m->arch, &m->preset);
    if (m->arch == NULL)
        report_arch(m, name);
    return m->arch != NULL;
}

/** What the architecture fixes goes over config.json; its other defaults only where a key is
 * absent: null is a value of the authors' configurations, too. */
static void apply_arch(importer *m)
{
    for (const kf_arch_key *k = m->arch->key; k < m->arch->key + KF_ARCH_MAX_KEYS && k->key; k++) {
        const kf_yaml_node *given = value_of(m, k->key);
        if (!k->fixed && kf_yaml_get(m->config, k->key) != NULL)
            continue;
        if (given != NULL && given->kind == KF_YAML_SCALAR && !kf_str_eq_c(given->text, k->value)) {
            changes_maths(m, kf_yaml_find(m->config, k->key)->key,
                          "has another value than the architecture's");
            continue;
        }
        if (given == NULL)
            add_pair(m, &m->out, k->key,
                     kf_yaml_new_scalar(m->r->arena, kf_str_from(k->value), m->src.loc,
                                        KF_ORIGIN_FAMILY));
    }
}

/* ---- rope: rope_parameters (transformers 5), or rope_theta and rope_scaling ------------------ */

static void add_if_given(importer *m, pair_list *list, const char *key, kf_yaml_node *value)
{
    if (!is_null(value))
        add_pair(m, list, key, value);
}

static void warn_rope_keys(importer *m, const kf_yaml_node *map)
{
    static const char *const known[] = {"rope_theta",
                                        "rope_type",
                                        "type",
                                        "factor",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "original_max_position_embeddings",
                                        "partial_rotary_factor"};
    for (uint32_t i = 0; map != NULL && i < map->n; i++) {
        const kf_yaml_node *key = map->u.pairs[i].key;
        size_t j = 0;
        while (j < sizeof known / sizeof *known && !kf_str_eq_c(key->text, known[j]))
            j++;
        if (j == sizeof known / sizeof *known)
            kf_diag_add(m->r->diags, KF_W0101, key->loc, "unknown key '%.*s' in config.json's rope",
                        KF_STR_ARG(key->text));
    }
}

/** Where an architecture's own key of config.json gave |key| already, |wins| puts |value| over it. */
static void add_to_rope(importer *m, const char *key, kf_yaml_node *value, bool wins)
{
    for (uint32_t i = 0; i < m->rope.len; i++)
        if (kf_str_eq_c(m->rope.data[i].key->text, key)) {
            if (wins && !is_null(value))
                m->rope.data[i].value = value;
            return;
        }
    add_if_given(m, &m->rope, key, value);
}

/** |map|: rope_scaling or rope_parameters. Returns the scaling mapping, or NULL for none. */
static kf_yaml_node *rope_scaling(importer *m, const kf_yaml_node *map)
{
    kf_yaml_node *type = kf_yaml_get(map, "rope_type");
    if (is_null(type))
        type = kf_yaml_get(map, "type");
    if (is_null(type) || (type->kind == KF_YAML_SCALAR && kf_str_eq_c(type->text, "default")))
        return NULL;
    pair_list list = {0};
    add_pair(m, &list, "type", type);
    add_if_given(m, &list, "factor", kf_yaml_get(map, "factor"));
    if (type->kind == KF_YAML_SCALAR && kf_str_eq_c(type->text, "llama3")) {
        static const char *const keys[] = {"low_freq_factor", "high_freq_factor",
                                           "original_max_position_embeddings"};
        for (uint32_t i = 0; i < 3; i++)
            add_if_given(m, &list, keys[i], kf_yaml_get(map, keys[i]));
    }
    return new_map(m, &list, (kf_src){type->loc, KF_ORIGIN_CONFIG});
}

/** partial_rotary_factor: inside |map| where it is there, else in config.json itself. */
static void apply_fraction(importer *m, const kf_yaml_node *map)
{
    const kf_yaml_pair *fraction = kf_yaml_find(map, "partial_rotary_factor");
    bool inside = fraction != NULL;
    if (!inside)
        fraction = kf_yaml_find(m->config, "partial_rotary_factor");
    if (fraction == NULL || is_null(fraction->value))
        return;
    if (m->arch->rope == KF_ARCH_ROPE_PARTIAL)
        add_to_rope(m, "fraction", fraction->value, inside);
    else if (!is_neutral(fraction->value, "1|1.0"))
        changes_maths(m, fraction->key, "is not part of this architecture's mathematics");
}

/** theta, fraction and scaling from rope_scaling or rope_parameters; as in transformers, the older
 * word wins, which is the one that people add by hand. */
static void read_rope(importer *m)
{
    const char *word = "rope_scaling";
    const kf_yaml_node *map = value_of(m, word);
    if (map == NULL || (map->kind == KF_YAML_MAP && map->n == 0))
        map = value_of(m, word = "rope_parameters");
    if (map != NULL && !kf_expect_kind(m->r, map, KF_YAML_MAP, word)) {
        m->ok = false;
        return;
    }
    for (uint32_t i = 0; map != NULL && i < map->n; i++)
        if (map->u.pairs[i].value->kind == KF_YAML_MAP) {
            changes_maths(m, map->u.pairs[i].key,
                          "is a rope of its own for some layers, which is not supported");
            return;
        }
    kf_yaml_node *theta = kf_yaml_get(map, "rope_theta");
    add_to_rope(m, "theta", is_null(theta) ? value_of(m, "rope_theta") : theta, !is_null(theta));
    apply_fraction(m, map);
    kf_yaml_node *scaling = rope_scaling(m, map);
    if (scaling != NULL)
        add_to_rope(m, "scaling", scaling, true);
    warn_rope_keys(m, map);
}

static void apply_rope(importer *m)
{
    if (m->arch->rope != KF_ARCH_ROPE_NONE)
        read_rope(m);
    if (m->rope.len > 0)
        add_pair(m, &m->out, "rope", new_map(m, &m->rope, m->src));
}

/* ---- the rest -------------------------------------------------------------------------------- */

static bool type_is(const kf_yaml_node *type, const char *word)
{
    return type->kind == KF_YAML_SCALAR && kf_str_eq_c(type->text, word);
}

/** How many of |layers| have the window of an architecture that has it from a layer on: as
 * layer_types says, else those from max_window_layers on. */
static int64_t count_windows(importer *m, int64_t layers)
{
    const kf_yaml_node *types = value_of(m, "layer_types");
    const kf_yaml_node *from = value_of(m, "max_window_layers");
    int64_t first = m->arch->window_from, n = 0;
    if (types == NULL || types->kind != KF_YAML_SEQ) {
        if (from != NULL && !kf_read_int(m->r, from, "max_window_layers", 0, INT32_MAX, &first))
            m->ok = false;
        return first < layers ? layers - first : 0;
    }
    for (uint32_t i = 0; i < types->n; i++)
        n += type_is(types->u.items[i], "sliding_attention");
    return n;
}

/** sliding_window; where config.json has no such key, the architecture's own. */
static kf_yaml_node *window_size(const importer *m)
{
    if (m->arch->window_size != NULL && kf_yaml_get(m->config, "sliding_window") == NULL)
        return kf_yaml_new_scalar(m->r->arena, kf_str_from(m->arch->window_size), m->src.loc,
                                  KF_ORIGIN_FAMILY);
    return value_of(m, "sliding_window");
}

/** False: layers differ in a way that is not supported, and that was said. */
static bool apply_window(importer *m)
{
    kf_yaml_node *window = window_size(m);
    const kf_yaml_node *use = value_of(m, "use_sliding_window");
    const kf_yaml_node *all = value_of(m, "num_hidden_layers");
    int64_t layers = 1, n = 1;
    if (window == NULL || m->arch->window == KF_WINDOW_NEVER)
        return true;
    if (m->arch->window == KF_WINDOW_IF_ENABLED) {
        if (use == NULL || !type_is(use, "true"))
            return true;
        if (all == NULL || !kf_read_int(m->r, all, "num_hidden_layers", 1, INT32_MAX, &layers))
            return true; /* said when the dimensions are read */
        n = count_windows(m, layers);
        m->windows = n == layers;
    }
    if (n > 0 && n != layers)
        changes_maths(m,
                      window->origin == KF_ORIGIN_FAMILY
                          ? kf_yaml_find(m->config, "use_sliding_window")->key
                          : kf_yaml_find(m->config, "sliding_window")->key,
                      "is a window for some of the layers, which is not supported");
    else if (n > 0)
        add_pair(m, &m->out, "sliding_window", window);
    return n == 0 || n == layers;
}

/** layer_types may only say what the architecture does anyway. */
static void check_layer_types(importer *m)
{
    const kf_yaml_node *types = value_of(m, "layer_types");
    uint32_t n = 0;
    while (n < KF_ARCH_MAX_TYPES && m->arch->layer_type[n] != NULL)
        n++;
    for (uint32_t i = 0; types != NULL && types->kind == KF_YAML_SEQ && i < types->n; i++) {
        const kf_yaml_node *type = types->u.items[i];
        const char *expected = n > 0        ? m->arch->layer_type[i % n]
                               : m->windows ? "sliding_attention"
                                            : "full_attention";
        if (type_is(type, expected))
            continue;
        kf_diag_add(m->r->diags, KF_E0402, type->loc,
                    "layer type '%.*s' of layer %u is not supported",
                    KF_STR_ARG(type->kind == KF_YAML_SCALAR ? type->text : KF_STR("?")), i);
        m->ok = false;
        return;
    }
}

/** generation_config.json wins over the ids of config.json. */
static bool apply_generation_file(importer *m, kf_str dir)
{
    kf_str path = kf_fs_join(m->r->arena, dir, KF_STR("generation_config.json"));
    if (!kf_fs_exists(path.ptr))
        return true;
    kf_yaml_node *file = kf_json_read(m->r->arena, m->r->diags, path);
    if (file == NULL || !kf_expect_kind(m->r, file, KF_YAML_MAP, "generation_config.json"))
        return false;
    pair_list from_config = m->generation;
    m->generation = (pair_list){0};
    apply_keys(m, file, NULL, generation_keys, "generation_config.json");
    for (uint32_t i = 0; i < from_config.len; i++) {
        const kf_yaml_node *given = kf_yaml_get(file, from_config.data[i].key->text.ptr);
        if (is_null(given))
            kf_vec_push(m->r->arena, &m->generation, from_config.data[i]);
    }
    return true;
}

kf_yaml_node *kf_hf_import(kf_reader *r, kf_str dir, kf_src from)
{
    kf_str path = kf_fs_join(r->arena, dir, KF_STR("config.json"));
    if (!kf_fs_exists(path.ptr)) {
        kf_diag_add(r->diags, KF_E0701, from.loc, "'%.*s' holds no config.json", KF_STR_ARG(dir));
        return NULL;
    }
    importer m = {.r = r, .ok = true};
    m.config = kf_json_read(r->arena, r->diags, path);
    if (m.config == NULL || !kf_expect_kind(r, m.config, KF_YAML_MAP, "config.json") ||
        !find_arch(&m))
        return NULL;
    apply_keys(&m, m.config, m.arch->config, config_keys, "config.json");
    apply_arch(&m);
    apply_rope(&m);
    if (apply_window(&m))
        check_layer_types(&m);
    if (!apply_generation_file(&m, dir) || !m.ok)
        return NULL;
    kf_yaml_node *dtype = value_of(&m, "dtype");
    if (dtype == NULL)
        dtype = value_of(&m, "torch_dtype");
    if (dtype != NULL)
        add_pair(&m, &m.out, "dtype", dtype);
    add_pair(
        &m, &m.out, "family",
        kf_yaml_new_scalar(r->arena, kf_str_from(m.preset->family), m.src.loc, KF_ORIGIN_CONFIG));
    if (m.generation.len > 0)
        add_pair(&m, &m.out, "generation", new_map(&m, &m.generation, m.src));
    return new_map(&m, &m.out, m.src);
}
