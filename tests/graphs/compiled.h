/* SPDX-License-Identifier: Apache-2.0 */
/* compiled - a plan as machine code in this process: its kernels linked and opened, its launches
 * walked tile by tile.
 *
 * What a produced executable does, without its host C and threads: tiles of a launch run in an
 * order that is not ascending, memory that nothing has written is NaN, weights are placed element
 * by element through the layout (not by the code that packs them).
 */
#ifndef KF_TESTS_GRAPHS_COMPILED_H
#define KF_TESTS_GRAPHS_COMPILED_H

#include "ir/eval.h"
#include "ir/phase.h"
#include "ir/plan.h"

typedef struct compiled compiled;

/** Compiles for x86-64-v3. NULL with a sentence in |why|. */
compiled *compiled_open(kf_arena *arena, const kf_plan *p, const kf_target *target,
                        const kf_tensor_source *weights, kf_sbuf *why);
/** One call with the logits of every row, [rows, columns]; sequences keep their caches. */
bool compiled_call(compiled *c, const kf_eval_step *step, kf_phase_id phase, kf_tensor *out,
                   kf_sbuf *why);
void compiled_close(compiled *c);

#endif
