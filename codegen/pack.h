/* SPDX-License-Identifier: Apache-2.0 */
/* pack - the packed weights file: recipes over checkpoint tensors, evaluated (ir/recipe_eval.h) and
 * stored in kernel order. Weights are streamed, a panel of rows at a time.
 */
#ifndef KF_CODEGEN_PACK_H
#define KF_CODEGEN_PACK_H

#include "base/fs.h"
#include "ir/plan.h"
#include "ir/tensor_source.h"

/** Where every weight stands in the weights section: offset[w][layer], and the section's size.
 * Layers follow each other (all weights of layer 0, then of layer 1, ...), as a step reads them. */
typedef struct kf_pack_layout {
    uint64_t **offset; /* by weight, by layer */
    uint64_t section_bytes;
} kf_pack_layout;

kf_pack_layout kf_pack_plan(kf_arena *arena, const kf_plan *p);

/** A further section of the file. */
typedef struct kf_pack_section {
    const char *name;
    uint32_t kind; /* KF_SECTION_TOKENIZER, KF_SECTION_PROBE */
    kf_str data;
} kf_pack_section;

/** Called now and then with the bytes written so far and the total. May be NULL. */
typedef void (*kf_pack_progress)(void *user, uint64_t done, uint64_t total);

/** Writes the whole file into |f| (not committed). 0 or an errno value: of the output when
 * |out_tensor| is empty, else of reading that tensor. |out_digest| is the header's digest. */
int kf_pack_write(kf_arena *arena, const kf_plan *p, const kf_tensor_source *src,
                  const kf_pack_section *sections, uint32_t n_sections, kf_outfile *f,
                  kf_pack_progress progress, void *user, uint64_t *out_digest, kf_str *out_tensor);

#endif
