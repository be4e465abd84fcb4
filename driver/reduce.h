/* SPDX-License-Identifier: Apache-2.0 */
/* reduce - shrinking a text while a command keeps failing on it.
 *
 * Edits are numbered; each makes the text smaller, and one that the command still fails on is kept.
 * A round tries every edit of every kind, and rounds go on until one changes nothing: the result
 * cannot be made smaller by any one edit.
 */
#ifndef KF_DRIVER_REDUCE_H
#define KF_DRIVER_REDUCE_H

#include "driver/pipeline_run.h"
#include "driver/spawn.h"

typedef struct kf_reduction {
    kf_compilation *c;
    kf_str text;           /* the smallest so far, in c->arena */
    const char *candidate; /* the file that the command sees */
    kf_exit want;          /* how it ends on the whole text */
    uint32_t runs;
    KF_VEC(uint64_t) tried; /* hashes of texts that the command has seen */
} kf_reduction;

/** Edit |index| of |text|. */
typedef enum kf_edit {
    KF_EDIT_END,  /* there is no edit of this number, nor of a larger one */
    KF_EDIT_NONE, /* it does not apply here, or what it makes is not valid */
    KF_EDIT_MADE  /* |out|, in |arena| */
} kf_edit;
typedef kf_edit (*kf_edit_fn)(kf_arena *arena, kf_str text, uint32_t index, kf_str *out);

/** NULL-terminated lists of edits, the largest first. */
extern const kf_edit_fn kf_reduce_kir_edits[];
extern const kf_edit_fn kf_reduce_yaml_edits[];

/** Nodes of a module's text, 0 if it is none. */
uint32_t kf_reduce_count_nodes(kf_str text);

/** Edit: an integer above 1 becomes 1, 2 or half of it, wherever the text has it. */
kf_edit kf_reduce_number(kf_arena *arena, kf_str text, uint32_t index, kf_str *out);

#endif
