/* SPDX-License-Identifier: Apache-2.0 */
/* host_c - Plan -> the host C of an executable: tables, one function per phase and bucket, main.
 *
 * The text is a product: formatted, warning-free, readable, with the names and places of the user's
 * file. It includes nothing but kf_runtime.h. Everything it says comes from the plan and from
 * kf_host_c.
 */
#ifndef KF_CODEGEN_HOST_C_H
#define KF_CODEGEN_HOST_C_H

#include "ir/plan.h"

/** What the plan does not know. */
typedef struct kf_host_c {
    const char *compiler_version;
    const char *source;     /* the user's file, without its folder */
    kf_str manifest;        /* a JSON object */
    uint64_t header_digest; /* of the packed file; 0 without weights */
    bool embedded; /* the packed file is linked in as kf_embedded_start .. kf_embedded_end */
    bool library;  /* no main, but `const kf_model *<name>_model(void)` */
    uint32_t cpu_features;                              /* KF_CPU_* of runtime/kf_artifact.h */
    int64_t max_positions, vocab_size, type_vocab_size; /* the last 0: no token types */
    int64_t start_id; /* first token of a decoder beside an encoder */
    uint32_t n_eos;
    const int64_t *eos;
    double temperature, top_p, min_p;
    int64_t top_k;
} kf_host_c;

/** Appends the C text. */
void kf_host_c_emit(kf_arena *arena, const kf_plan *p, const kf_host_c *h, kf_sbuf *out);

/** |name| as a C identifier: other characters become '_', a leading digit gets one before it. */
kf_str kf_c_identifier(kf_arena *arena, kf_str name);

#endif
