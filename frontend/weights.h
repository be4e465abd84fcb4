/* SPDX-License-Identifier: Apache-2.0 */
/* weights - a checkpoint on disk: one safetensors file or an index and its shards, as a tensor
 * source.
 *
 * Headers are read and checked at opening; tensor data is read on demand with pread, never mapped,
 * so a file that shrinks later is EIO and not SIGBUS, and memory stays with the caller.
 */
#ifndef KF_FRONTEND_WEIGHTS_H
#define KF_FRONTEND_WEIGHTS_H

#include "frontend/spec.h"
#include "ir/tensor_source.h"

typedef struct kf_checkpoint kf_checkpoint;

/** Opens a directory (model.safetensors, else model.safetensors.index.json) or a .safetensors file.
 *  Returns NULL after reporting. Close before the arena goes. */
kf_checkpoint *kf_checkpoint_open(kf_arena *arena, kf_diags *diags, kf_str path);
void kf_checkpoint_close(kf_checkpoint *c);

/** The interface for packing and evaluating; valid until closed. find() leaves out tensors whose
 * type is no kf_dtype or whose rank exceeds KF_MAX_RANK (kf_checkpoint_check reports them). */
const kf_tensor_source *kf_checkpoint_source(const kf_checkpoint *c);

uint32_t kf_checkpoint_n_tensors(const kf_checkpoint *c);
/** Bytes of all tensors. */
uint64_t kf_checkpoint_bytes(const kf_checkpoint *c);

/** Compares with what |spec| needs: every parameter present, of the implied shape, of a readable
 * type; tensors that no parameter uses are one warning. Returns false after reporting errors. */
bool kf_checkpoint_check(kf_arena *arena, kf_diags *diags, const kf_checkpoint *c,
                         const kf_spec *spec);

#endif
