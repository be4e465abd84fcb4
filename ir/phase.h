/* SPDX-License-Identifier: Apache-2.0 */
/* phase - phases and entry functions of a model, and the names of what a call gives them. */
#ifndef KF_IR_PHASE_H
#define KF_IR_PHASE_H

#include "ir/graph.h"

typedef enum kf_phase_id {
#define PHASE(name, entry, one_token, kind, summary) KF_PHASE_ID_##name,
#include "ir/phase.def"
#undef PHASE
    KF_PHASE_ID_COUNT
} kf_phase_id;

typedef struct kf_phase_info {
    const char *name, *entry;
    bool one_token;   /* one token of each sequence: N is S */
    const char *kind; /* its constant in emitted C */
    const char *summary;
} kf_phase_info;

extern const kf_phase_info kf_phase_infos[KF_PHASE_ID_COUNT];

/** The phase called |name|, or NULL. */
const kf_phase_info *kf_phase_find(kf_str name);

/** Writes S for N, as a phase of one token a sequence does; |g|: in the bodies inside, too. */
void kf_type_narrow_rows(kf_type *t);
void kf_graph_narrow_rows(kf_graph *g);

/** Whether |func| names an entry, before or after the phases are split. */
bool kf_is_entry(kf_str func);

/** Whether |func| is an encoder's entry: its calls take whole sequences, and leave a decoder beside
 * it a memory. */
bool kf_is_encoder(kf_str func);

/** The name of the function that a call of the unsplit module |m| runs, or NULL. */
const char *kf_module_entry(const kf_module *m);

typedef enum kf_input_id {
#define INPUT(name, summary) KF_INPUT_ID_##name,
#include "ir/phase.def"
#undef INPUT
    KF_INPUT_ID_COUNT
} kf_input_id;

/** The input called |name|; KF_INPUT_ID_COUNT: none. */
kf_input_id kf_input_find(kf_str name);

#endif
