/* SPDX-License-Identifier: Apache-2.0 */
/* slot_text - reading slot bodies; printing is declared in print_impl.h. */
#ifndef KF_IR_SLOT_TEXT_H
#define KF_IR_SLOT_TEXT_H

#include "ir/lex.h"

/** Reads "(v, a0 | 1) { ... }" behind the field's name. NULL after an error. */
const kf_slot *kf_slot_read(kf_lexer *lx);

#endif
