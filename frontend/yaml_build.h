/* SPDX-License-Identifier: Apache-2.0 */
/* yaml_build - the builder behind yaml.h: events in, nodes out, limits counted. Private to the
 * reader. */
#ifndef KF_FRONTEND_YAML_BUILD_H
#define KF_FRONTEND_YAML_BUILD_H

#include "base/vec.h"
#include "frontend/yaml.h"

/** One open collection. */
typedef struct kf_yaml_frame {
    kf_yaml_node *node;
    kf_yaml_node *key; /* mapping: key waiting for its value */
    uint32_t anchor;   /* 1 + index of its anchor, 0 for none */
    KF_VEC(kf_yaml_node *) items;
    KF_VEC(kf_yaml_pair) pairs;
} kf_yaml_frame;

typedef struct kf_yaml_anchor {
    kf_str name;
    kf_yaml_node *node;
    bool complete;
} kf_yaml_anchor;

typedef struct kf_yaml_builder {
    kf_arena *arena;
    kf_diags *diags;
    uint32_t file;
    kf_origin origin;
    kf_str text;
    kf_diag_code syntax_code; /* E0101 or E0301 */

    /* Byte offset -> line and column; moves forwards only, as events do. */
    uint32_t cursor;
    uint32_t line;
    uint32_t line_start;

    uint32_t depth;
    kf_yaml_frame frames[KF_YAML_MAX_NESTING];
    KF_VEC(kf_yaml_anchor) anchors;
    uint32_t n_events;
    uint32_t n_alias_nodes;
    kf_yaml_node *root;
    bool failed;
} kf_yaml_builder;

/** Place of the bytes [begin, end), cut at the end of the first line. */
kf_loc kf_yaml_place(kf_yaml_builder *b, uint32_t begin, uint32_t end);

/** Reports one error and stops; returns false so that callers can return it. */
bool kf_yaml_fail(kf_yaml_builder *b, kf_diag_code code, kf_loc loc, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Events. All return false once the builder has failed. |anchor| is empty for none. */
bool kf_yaml_on_scalar(kf_yaml_builder *b, kf_loc loc, kf_str value, bool quoted, bool verbatim,
                       kf_str anchor);
bool kf_yaml_on_start(kf_yaml_builder *b, kf_loc loc, kf_yaml_kind kind, kf_str anchor);
bool kf_yaml_on_end(kf_yaml_builder *b, kf_loc loc);
bool kf_yaml_on_alias(kf_yaml_builder *b, kf_loc loc, kf_str anchor);

/** Feeds the JSON text into the builder (json_events.c). */
void kf_json_events(kf_yaml_builder *b);

/** Returns the byte offset of the first byte that is not part of valid UTF-8 text, or text.len. */
uint32_t kf_yaml_utf8_prefix(kf_str text);

#endif
