/* SPDX-License-Identifier: Apache-2.0 */
/* spec_read - the steps of reading between files and the Spec. Private to the frontend. */
#ifndef KF_FRONTEND_SPEC_READ_H
#define KF_FRONTEND_SPEC_READ_H

#include "frontend/schema.h"

/** Reads `blocks:`, `model:` and `weight_names:` of the normalized description |root| into r->spec,
 * whose scalars (vocab_size, hidden_size) are there already. */
bool kf_read_blocks(kf_reader *r, const kf_yaml_node *root);

/** Reads `adapters:` and `weight_forms:`; before the blocks, whose parameters they change. */
bool kf_read_forms(kf_reader *r, const kf_yaml_node *root);
/** Reports targets that no block has; after the blocks. */
bool kf_check_forms(kf_reader *r);

/** Reads `build:` and `generation:`, and checks the bounds and the memory limit; needs the blocks.
 */
bool kf_read_build(kf_reader *r, const kf_yaml_node *root);

/** A description with its family written out: adds `blocks:` and `model:` to the pairs of |root|.
 * |owner|: where the family was named. Returns NULL after reporting. */
kf_yaml_node *kf_expand_family(kf_reader *r, kf_yaml_node *root, kf_str family, kf_src owner);

/** A mapping of |pairs| with the place and origin of |like|. */
kf_yaml_node *kf_yaml_new_map(kf_arena *arena, const kf_yaml_node *like, kf_yaml_pair *pairs,
                              uint32_t n);

/** Pairs of |over| put on top of |base|: mappings are merged key by key, everything else is
 * replaced. Either may be NULL. */
kf_yaml_node *kf_yaml_merge(kf_arena *arena, kf_yaml_node *base, kf_yaml_node *over);

/** Reads config.json and generation_config.json of |dir| as a description with `family:`. |from| is
 * where the directory was named. Returns NULL after reporting. */
kf_yaml_node *kf_hf_import(kf_reader *r, kf_str dir, kf_src from);

/** Checks where the blocks of the read model stand, and finds its head. */
bool kf_check_places(kf_reader *r);

#endif
