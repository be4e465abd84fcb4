/* SPDX-License-Identifier: Apache-2.0 */
/* yaml - text of a YAML or JSON file to a tree of nodes with places; the only reader of either.
 *
 * It knows nothing of models: scalars stay text, the schema types them later (scalar.h). What it
 * does decide is what hostile input may cost. YAML arrives as libyaml events, JSON as events of our
 * own tokenizer (json_events.c); one builder turns both into nodes and counts against the same
 * limits, so that no input can make the reader slow, deep or large before it is refused.
 */
#ifndef KF_FRONTEND_YAML_H
#define KF_FRONTEND_YAML_H

#include "base/diag.h"

#define KF_YAML_MAX_BYTES       (1u << 20)
#define KF_JSON_MAX_BYTES       (4u << 20)
#define KF_YAML_MAX_NESTING     64u
#define KF_YAML_MAX_EVENTS      100000u
#define KF_YAML_MAX_SCALAR      (64u << 10)
#define KF_YAML_MAX_ALIAS_NODES 10000u
#define KF_YAML_MAX_ANCHORS     256u

/** Which input a value came from; the larger wins. Printed by the normalized spec. */
typedef enum kf_origin {
    KF_ORIGIN_NONE,   /* not given: the schema's default */
    KF_ORIGIN_FAMILY, /* the family's default */
    KF_ORIGIN_CONFIG, /* config.json or generation_config.json */
    KF_ORIGIN_SPEC,   /* the user's YAML */
    KF_ORIGIN_FLAG,   /* the command line */
} kf_origin;

typedef enum kf_yaml_kind { KF_YAML_SCALAR, KF_YAML_SEQ, KF_YAML_MAP } kf_yaml_kind;

typedef struct kf_yaml_pair kf_yaml_pair;

/** A node. Aliased nodes are shared, so the tree is a DAG whose expansion is bounded by the limits.
 */
typedef struct kf_yaml_node {
    kf_yaml_kind kind;
    kf_origin origin;
    bool quoted;         /* scalar in quotes: a string, whatever it looks like */
    bool verbatim;       /* scalar whose source text is its value, so offsets are columns */
    kf_loc loc;          /* of the whole node; len is limited to its first line */
    kf_str text;         /* scalar value, decoded */
    uint32_t n;          /* elements of a sequence, pairs of a mapping */
    uint32_t n_expanded; /* nodes in this subtree, aliases counted as often as they occur */
    uint32_t height;     /* 1 for a scalar */
    union {
        struct kf_yaml_node **items;
        kf_yaml_pair *pairs;
    } u;
} kf_yaml_node;

struct kf_yaml_pair {
    kf_yaml_node *key; /* always a scalar */
    kf_yaml_node *value;
};

/** Parses the YAML |text| registered as |file|. Returns NULL after reporting the first error. */
kf_yaml_node *kf_yaml_parse(kf_arena *arena, kf_diags *diags, uint32_t file, kf_str text,
                            kf_origin origin);

/** The same for strict JSON (RFC 8259). */
kf_yaml_node *kf_json_parse(kf_arena *arena, kf_diags *diags, uint32_t file, kf_str text,
                            kf_origin origin);

/** Reads and parses |path| as strict JSON, within its size limit. */
kf_yaml_node *kf_json_read(kf_arena *arena, kf_diags *diags, kf_str path);

/** The value of |key| in a mapping, or NULL; |map| may be NULL or of another kind. */
kf_yaml_node *kf_yaml_get(const kf_yaml_node *map, const char *key);
/** The pair of |key|, for its place. */
const kf_yaml_pair *kf_yaml_find(const kf_yaml_node *map, const char *key);

/** "a mapping", "a sequence" or "a scalar", for messages. */
const char *kf_yaml_kind_name(const kf_yaml_node *node);

/** The place of byte |offset| of a scalar's value; the whole scalar when offsets do not map to
 * columns. */
kf_loc kf_yaml_loc_at(const kf_yaml_node *scalar, uint32_t offset, uint32_t len);

/** New nodes, for what is not written by the user (presets, flags). Text is borrowed. */
kf_yaml_node *kf_yaml_new_scalar(kf_arena *arena, kf_str text, kf_loc loc, kf_origin origin);

#endif
