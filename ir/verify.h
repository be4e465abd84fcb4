/* SPDX-License-Identifier: Apache-2.0 */
/* verify - the invariants of the Graph form; verify.c begins with the full list. */
#ifndef KF_IR_VERIFY_H
#define KF_IR_VERIFY_H

#include "ir/graph.h"

typedef enum kf_verify_level {
    KF_VERIFY_GRAPH, /* any stage */
    KF_VERIFY_FUSED  /* after region forming: no op outside a region except repeat */
} kf_verify_level;

/** Collects all errors. True if there is none; else |out| receives the graph printed with each
 * error under the line it belongs to. */
bool kf_module_verify(const kf_module *m, kf_verify_level level, kf_sbuf *out);

#endif
