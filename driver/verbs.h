/* SPDX-License-Identifier: Apache-2.0 */
/* verbs - one function per verb; each returns an exit status and leaves diagnostics in the sink. */
#ifndef KF_DRIVER_VERBS_H
#define KF_DRIVER_VERBS_H

#include "driver/pipeline_run.h"

#define VERB(name, operands, summary) int kf_verb_##name(kf_compilation *c);
#include "driver/options.def"
#undef VERB

/** Compiles into |output| (an executable, without weights if the description has none). Used by
 * run, bench and verify too. |library|: --emit lib. */
bool kf_compile_to(kf_compilation *c, const char *output, bool library);

/** Runs |verb| of a produced executable with the switches that were given to kerf and what followed
 *  the operand. Returns its exit status (128 + n after a signal), or 0 after reporting E0701. */
int kf_run_executable(kf_compilation *c, const char *exe, const char *verb);

/** A new folder in $TMPDIR (in the compilation's arena); NULL after reporting E0603. The caller
 * removes it. */
const char *kf_scratch_dir(kf_compilation *c);

/** True if |path| is an ELF file. */
bool kf_is_executable(const char *path);

/** {"schema": |schema|, "output": |output|} on standard output. */
void kf_print_output(const kf_compilation *c, const char *schema, const char *output);
/** The text of a stage as a JSON object of schema kerf.stage.1. */
void kf_stage_json(kf_str model, const char *stage, kf_str text, kf_sbuf *out);

#endif
