/* SPDX-License-Identifier: Apache-2.0 */
/* probe - the logits that a new executable computes for fixed ids, stored in its packed file, so
 * that its own `verify` can tell later whether it still computes them. */
#ifndef KF_DRIVER_PROBE_H
#define KF_DRIVER_PROBE_H

#include "base/str.h"

/** What a probe must know of the model. */
typedef struct kf_probe_model {
    int64_t vocab;
    int64_t width;      /* of a row of results */
    int64_t max_tokens; /* that one call takes */
    bool encoder;       /* it answers `embed` instead of `run` */
} kf_probe_model;

/** An empty probe section with room for such a model. */
kf_str kf_probe_section(kf_arena *arena, const kf_probe_model *m);

typedef enum kf_probe_result {
    KF_PROBE_STORED,
    KF_PROBE_OTHER_CPU, /* this machine cannot run the target's code */
    KF_PROBE_FAILED
} kf_probe_result;

/** Runs |dir|/out and fills the section in |dir|/out.kfw or, if |embedded|, in |dir|/out itself. A
 * file that cannot be completed keeps its empty section, which is valid. */
kf_probe_result kf_probe_store(kf_arena *arena, const char *dir, bool embedded,
                               const kf_probe_model *m);

#endif
