/* SPDX-License-Identifier: Apache-2.0 */
/* smaller - modules that are one step smaller than a given one: what a shrinker tries. */
#ifndef KF_IR_SMALLER_H
#define KF_IR_SMALLER_H

#include "ir/graph.h"

/** Candidate number |step| (from 0) of the modules one step smaller than |m|: a node's result
 * replaced by a value of its type that stands before it, a slot by a part of itself, a function
 * that nothing calls left out. Later nodes come first. Valid modules only: |out_end| is set when
 * there is no such step any more, NULL alone means that this step gives nothing valid. */
kf_module *kf_module_smaller(kf_arena *arena, const kf_module *m, uint32_t step, bool *out_end);

#endif
