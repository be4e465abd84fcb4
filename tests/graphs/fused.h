/* SPDX-License-Identifier: Apache-2.0 */
/* fused - copies of a module behind passes.
 *
 * Many ways through the passes meet in one text. A text is checked once (the verifier accepts it, it
 * reads back as itself), evaluated once, planned once: what was done with it is kept by its hash.
 */
#ifndef KF_TESTS_GRAPHS_FUSED_H
#define KF_TESTS_GRAPHS_FUSED_H

#include "base/hash.h"
#include "passes/pipeline.h"
#include "tests/graphs/counters.h"

typedef enum text_use { TEXT_CHECKED = 1, TEXT_EVALUATED = 2, TEXT_PLANNED = 4 } text_use;

typedef struct seen_text {
    kf_hash hash;
    uint32_t uses; /* of text_use */
} seen_text;

/** The texts of one module and of all its forms. */
typedef struct texts {
    kf_arena *arena;
    counters *c;
    KF_VEC(seen_text) list;
} texts;

kf_hash text_hash(const kf_module *m);
bool text_same(kf_hash a, kf_hash b);
/** True the first time that a text is put to |use|. */
bool texts_first(texts *t, kf_hash hash, text_use use);

/** Where the pipeline first changed something by a pass. */
typedef struct first_change {
    uint32_t step;     /* of kf_pipeline */
    kf_module *before; /* NULL: nowhere */
} first_change;

typedef struct fused_how {
    const char *passes, *off; /* exactly these; or the pipeline without some */
    kf_norm_rewrite rewrite;
    texts *texts; /* each text is checked; NULL: not */
    bool record;  /* fill |first|, and check that a pass changes nothing if it says so */
} fused_how;

typedef struct fused {
    kf_arena *arena, *scratch;
    kf_module *m;
    kf_hash hash; /* of its text, if texts are checked */
    kf_pass_ctx cx;
    kf_pass_runs runs;
    first_change first[KF_PASS_COUNT];
} fused;

fused fused_run(const kf_module *m, const fused_how *how);
/** The pipeline without |off|, which changed something in |all|, a recorded run: that run up to there
 * and, from there on, the other passes. */
fused fused_without(const fused *all, kf_pass_id off, texts *t);
void fused_drop(fused *f);

#endif
