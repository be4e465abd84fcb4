/* SPDX-License-Identifier: Apache-2.0 */
/* spec_params - the parameters of blocks while they are read: shapes, checkpoint names, and parts
 * of packed tensors. Private to the frontend. */
#ifndef KF_FRONTEND_SPEC_PARAMS_H
#define KF_FRONTEND_SPEC_PARAMS_H

#include "base/vec.h"
#include "frontend/schema.h"

/** A row of weight_names. */
typedef struct kf_name_entry {
    const kf_yaml_pair *pair;
    bool is_used;
} kf_name_entry;

/** An entry of blocks, or the model: what numbers the blocks of one kind and names their
 * parameters. */
typedef struct kf_spec_scope {
    kf_reader *r;
    kf_str name;
    bool is_model;
    kf_loc loc;
    kf_name_entry *names; /* weight_names, sorted by key */
    uint32_t n_names;
    uint32_t count[KF_BLOCK_KIND_COUNT];
    uint32_t n_blocks;
    KF_VEC(kf_spec_param *) params;
} kf_spec_scope;

static inline kf_src kf_src_at(const kf_yaml_node *node)
{
    return (kf_src){node->loc, node->origin};
}

/** Reports, and is false. */
bool kf_reject(kf_reader *r, kf_diag_code code, kf_loc loc, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/** Adds a parameter of |b|; |why|: the keys that imply the size. */
void kf_scope_add_matrix(kf_spec_scope *s, kf_block *b, kf_param_role role, int64_t d0,
                         const char *why0, int64_t d1, const char *why1);
void kf_scope_add_vector(kf_spec_scope *s, kf_block *b, kf_param_role role, int64_t n,
                         const char *why);

/** Finds where in their tensors the packed parameters of |b| lie; after the last was added. */
bool kf_scope_place_parts(kf_spec_scope *s, kf_block *b);

/** Two parameters of a scope have one checkpoint name only as parts of one packed tensor. */
bool kf_scope_check_unique(kf_spec_scope *s);

/** Puts the rows of |map| (weight_names; may be NULL) into |s|. */
bool kf_scope_open_names(kf_reader *r, const kf_yaml_node *map, kf_spec_scope *s);
bool kf_scope_check_names_used(kf_reader *r, const kf_spec_scope *s);

/** Blocks of spec_attention.c: each takes rows of b->in_dim and sets b->out_dim. */
bool kf_read_attention(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map);
bool kf_read_cross(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map);
bool kf_read_bias(kf_spec_scope *s, kf_block *b, const kf_yaml_node *map);

#endif
