/* SPDX-License-Identifier: Apache-2.0 */
/* parse_impl - readers of .kir pieces that modules and plans share; not for other folders. */
#ifndef KF_IR_PARSE_IMPL_H
#define KF_IR_PARSE_IMPL_H

#include "ir/lex.h"

/** Each returns false after reporting. The module knows the symbols, mesh axes, files and
 * functions. */
bool kf_parse_type(kf_lexer *lx, const kf_module *m, kf_type *out);
bool kf_parse_recipe(kf_lexer *lx, const kf_module *m, const kf_type *top, const kf_recipe **out);
/** "@"file":line:col", or nothing: KF_NO_LOC. */
bool kf_parse_loc(kf_lexer *lx, kf_module *m, kf_loc *out);
/** "(args) { nodes return values }": the body of a region. */
bool kf_parse_body(kf_lexer *lx, kf_module *m, uint32_t depth, kf_graph **out);
/** "mesh ..." and "dim ..." lines. */
bool kf_parse_module_head(kf_lexer *lx, kf_module *m);

#endif
