/* SPDX-License-Identifier: Apache-2.0 */
/* diag - errors and warnings about the user's input, with a place, a code and a hint.
 *
 * Every diagnostic is a row of diag.def: code, severity, the exit status it leads to, and the text
 * that `kerf explain CODE` prints. The message carries the values. Form (conventions of clang):
 *
 *   model.yaml:9:1: error[E0102]: unknown key 'num_kv_heads'
 *     9 | num_kv_heads: 8
 *       | ^~~~~~~~~~~~ did you mean 'num_key_value_heads'?
 *   note: ...
 *
 * A sink collects; the driver prints. Not thread safe.
 */
#ifndef KF_BASE_DIAG_H
#define KF_BASE_DIAG_H

#include "base/str.h"

#include <stdio.h>

/** A place in a source file. file 0 = no place. line and col count from 1 (col in bytes). */
typedef struct kf_loc {
    uint32_t file;
    uint32_t line;
    uint32_t col;
    uint32_t len;
} kf_loc;

#define KF_NO_LOC ((kf_loc){0, 0, 0, 0})

typedef enum kf_diag_code {
#define DIAG(code, severity, exit_status, title, explain) KF_##code,
#include "base/diag.def"
#undef DIAG
    KF_DIAG_COUNT
} kf_diag_code;

typedef enum kf_severity { KF_ERROR, KF_WARNING } kf_severity;

/** Static description of a code. */
typedef struct kf_diag_info {
    const char *name; /* "E0102" */
    kf_severity severity;
    int exit_status; /* 1 spec, 2 usage, 3 I/O, 4 unsupported, 5 memory, 6 device, 7 verification */
    const char *title;   /* one line */
    const char *explain; /* a paragraph: what it means and what to do */
} kf_diag_info;

extern const kf_diag_info kf_diag_infos[KF_DIAG_COUNT];

/** Finds a code by its name ("E0102"); false if there is none. */
bool kf_diag_find(kf_str name, kf_diag_code *out_code);

typedef struct kf_note {
    kf_loc loc; /* KF_NO_LOC: a plain note */
    kf_str text;
    struct kf_note *next;
} kf_note;

typedef struct kf_diag {
    kf_diag_code code;
    kf_loc loc;
    kf_str message;
    kf_str hint; /* written behind the caret; may be empty */
    kf_note *notes;
    struct kf_diag *next;
} kf_diag;

/** The sink: registered source files and what was reported, in order. */
typedef struct kf_diags kf_diags;

#define KF_DIAG_MAX_ERRORS 20

kf_diags *kf_diags_create(kf_arena *arena);

/** Registers a source text for positions and carets; both strings are copied. Returns its file
 * number. */
uint32_t kf_diags_add_file(kf_diags *d, kf_str path, kf_str text);
/** 0 for a file that is not registered. */
uint32_t kf_diags_find_file(const kf_diags *d, kf_str path);
/** The line of |loc| without its end; false if there is none. */
bool kf_diags_line(const kf_diags *d, kf_loc loc, kf_str *out_line);
kf_str kf_diags_file_path(const kf_diags *d, uint32_t file);

/** Reports; returns the record so that hint and notes can be added (never NULL). Errors beyond
 *  KF_DIAG_MAX_ERRORS are counted but not kept. */
kf_diag *kf_diag_add(kf_diags *d, kf_diag_code code, kf_loc loc, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void kf_diag_hint(kf_diags *d, kf_diag *diag, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void kf_diag_note(kf_diags *d, kf_diag *diag, kf_loc loc, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

uint32_t kf_diags_errors(const kf_diags *d);
uint32_t kf_diags_warnings(const kf_diags *d);
const kf_diag *kf_diags_first(const kf_diags *d);
/** Exit status of the first error, or 0. */
int kf_diags_exit_status(const kf_diags *d);

/** Prints everything as text; |color| adds ANSI colours. */
void kf_diags_print(const kf_diags *d, FILE *out, bool color);
/** Appends a JSON array of {code, severity, file, line, col, end, message, hint, notes}. */
void kf_diags_json(const kf_diags *d, kf_sbuf *out);

#endif
