/* SPDX-License-Identifier: Apache-2.0 */
/* fn_emit - rows of fn.def and slot bodies as vector code.
 *
 * Numbers are f32, predicates i1. Operands of one lane are spread to the widest operand.
 */
#ifndef KF_CODEGEN_FN_EMIT_H
#define KF_CODEGEN_FN_EMIT_H

#include "codegen/cpu/kernel_builder.h"
#include "ir/attr.h"

/** fn(args...). An operand may be a number or a predicate; the result is a predicate for rows that
 * say so. */
kb_value kf_emit_fn(kb *b, kf_fn fn, const kb_value *args);

/** |v| as a predicate (not zero) and as a number (0 or 1). */
kb_value kf_emit_pred(kb *b, kb_value v);
kb_value kf_emit_num(kb *b, kb_value v);

/** Resolves a LOAD: |values| holds what the instructions before it gave. */
typedef kb_value (*kf_slot_emit_load)(void *user, const kf_slot *s, const kf_slot_inst *load,
                                      const kb_value *values);

/** The slot's result at |params| (one lane or many each). |load| may be NULL without captures. */
kb_value kf_emit_slot(kb *b, const kf_slot *s, const kb_value *params, kf_slot_emit_load load,
                      void *user);

#endif
