/* SPDX-License-Identifier: Apache-2.0 */
/* weights_random - a checkpoint of seeded random numbers in the shape of a Spec, to try a model
 * without one.
 *
 * Not an initialisation for training: matrices have standard deviation 1/sqrt(fan in), gains 1 +
 * 0.1 n, biases 0.02 n, so that activations and logits stay near one whatever the depth. A number
 * depends on the seed, the tensor's name and the element only, and is made with integer arithmetic:
 * the same bytes on every machine.
 */
#ifndef KF_FRONTEND_WEIGHTS_RANDOM_H
#define KF_FRONTEND_WEIGHTS_RANDOM_H

#include "frontend/spec.h"
#include "ir/tensor_source.h"

/** Writes |dir| (created if absent): model.safetensors, and config.json with generation_config.json
 * where a Hugging Face architecture computes this model, else model.yaml. |dtype|: storage type.
 * Files are replaced whole or not at all. Returns false after reporting E0603. */
bool kf_weights_random_write(kf_arena *arena, kf_diags *diags, const kf_spec *spec, const char *dir,
                             uint64_t seed, kf_dtype dtype);

/** The same numbers in memory, as a source: tensors of |spec| by checkpoint name. Lives in |arena|.
 */
const kf_tensor_source *kf_weights_random_source(kf_arena *arena, const kf_spec *spec,
                                                 uint64_t seed, kf_dtype dtype);

/** Appends the config.json of the architecture that computes |spec|; false (and nothing) if there
 * is none. */
bool kf_hf_export_config(const kf_spec *spec, kf_dtype dtype, kf_sbuf *out);

#endif
