/* SPDX-License-Identifier: Apache-2.0 */
/* ops_docs - docs/OPS.md, written from the tables of ir/. tests/unit/test_ir_docs.c keeps the file
 * fresh. */
#ifndef KF_IR_OPS_DOCS_H
#define KF_IR_OPS_DOCS_H

#include "base/str.h"

void kf_ops_docs(kf_sbuf *out);

#endif
