/* SPDX-License-Identifier: Apache-2.0 */
/* print_impl - what print.c shares with slot_text.c, verify.c and plan_text.c; not for other
 * folders. */
#ifndef KF_IR_PRINT_IMPL_H
#define KF_IR_PRINT_IMPL_H

#include "ir/text.h"

/** A sentence to be printed as a comment under a line of a graph. */
typedef struct kf_print_note {
    const kf_graph *graph;
    uint32_t node; /* nodes.len: the return; UINT32_MAX: the header */
    kf_str text;
} kf_print_note;

typedef struct kf_print_notes {
    uint32_t n;
    const kf_print_note *note;
} kf_print_notes;

/** kf_module_print with |notes| (may be NULL) in place. Prints broken graphs too. */
void kf_module_print_notes(const kf_module *m, uint32_t flags, const kf_print_notes *notes,
                           kf_sbuf *out);
/** "mesh ..." and "dim ..." lines. */
void kf_module_print_head(const kf_module *m, kf_sbuf *out);
/** "(args) {", the nodes and "}" of a region body whose closing brace stands at |indent| columns.
 */
void kf_body_print(const kf_graph *body, uint32_t flags, uint32_t indent, kf_sbuf *out);
/** "map(v, a0 | 2) { ... }". */
void kf_slot_print(const char *field, const kf_slot *s, uint32_t flags, kf_sbuf *out);
/** As it is if it is an identifier, else quoted. */
void kf_name_print(kf_str name, kf_sbuf *out);
bool kf_is_identifier(kf_str name);
/** "  @"file":line:col" if the flags ask for it and there is a place. */
void kf_loc_print(const kf_module *m, kf_loc loc, uint32_t flags, kf_sbuf *out);

#endif
