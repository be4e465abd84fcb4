/* SPDX-License-Identifier: Apache-2.0 */
/* text - .kir, the textual form of modules and plans. docs/IR.md is its reference.
 *
 * Law: print(parse(print(x))) equals print(x) byte for byte.
 */
#ifndef KF_IR_TEXT_H
#define KF_IR_TEXT_H

#include "ir/graph.h"

typedef enum kf_print_flags {
    KF_PRINT_LOCS = 1, /* @"file":line:col behind nodes */
    KF_PRINT_CANONICAL =
        2 /* names of arguments and parameters replaced by order, no locations, no file
             names: two modules are the same computation in the same order iff equal */
} kf_print_flags;

void kf_module_print(const kf_module *m, uint32_t flags, kf_sbuf *out);
void kf_graph_print(const kf_graph *g, uint32_t flags, kf_sbuf *out);
void kf_type_print(const kf_module *m, const kf_type *t, kf_sbuf *out);
/** How a weight is made; |with_type|: with the type of each tensor that is loaded. */
void kf_recipe_print(const kf_module *m, const kf_recipe *r, bool with_type, kf_sbuf *out);

/** Parses a module. Errors go to |d| (E05xx, with positions in the .kir text); NULL if there were
 * any. */
kf_module *kf_module_parse(kf_arena *arena, kf_diags *d, kf_str path, kf_str text);

#endif
