/* SPDX-License-Identifier: Apache-2.0 */
/* contract - `build.fusion`: patterns over fusion candidates that must, or must not, be fused.
 *
 *   pattern = part [ "->" part ] [ "@" glob ]        norm -> matmul w* @layer.*
 *   part    = kind [ glob ]                          kind: a row of kinds.def, or "*"
 *
 * The first part is what joins, the second what it joins; without a second one, anything. The glob
 * of a part is held against the names behind the kind (parameters without their "%", ops), the one
 * behind "@" against the function: its full name, its name without the phase, and, where the
 * candidate stands before the phases are split, its name in each phase.
 */
#ifndef KF_PASSES_CONTRACT_H
#define KF_PASSES_CONTRACT_H

#include "passes/passes.h"

typedef struct kf_pattern_part {
    kf_kind kind;     /* NONE: any */
    const char *glob; /* NULL: any */
} kf_pattern_part;

typedef struct kf_pattern {
    kf_str text;
    kf_loc loc; /* in the numbering of the diagnostics */
    kf_pattern_part from, to;
    bool has_to;
    const char *func; /* NULL: any */
} kf_pattern;

struct kf_contract {
    KF_VEC(kf_pattern) require;
    KF_VEC(kf_pattern) forbid;
};

/** Reports E0130 where |text| is no pattern. */
bool kf_pattern_parse(kf_arena *arena, kf_diags *d, kf_str text, kf_loc loc, kf_pattern *out);
bool kf_pattern_matches(const kf_pattern *p, const kf_candidate *c);

/** The pattern of cx->contract that forbids |c|, or NULL. */
const kf_pattern *kf_contract_forbids(const kf_pass_ctx *cx, const kf_candidate *c);

/** After the pipeline: E0131 at each required pattern that is not met, with a note at each
 * candidate that stood in the way. */
bool kf_contract_check(const kf_pass_ctx *cx, const kf_module *m, kf_diags *d);

#endif
