/* SPDX-License-Identifier: Apache-2.0 */
/* attr - attribute structs of nodes, generated from attrs.def, and slots (scalar bodies).
 *
 * Attributes are immutable once attached to a node; copy to change. A generic field table drives
 * printing, parsing, equality and hashing, so no attribute is handled by hand anywhere.
 */
#ifndef KF_IR_ATTR_H
#define KF_IR_ATTR_H

#include "ir/type.h"

typedef enum kf_fn {
#define FN(name, arity, result, traits, eval, emit, oracle, summary) KF_FN_##name,
#include "ir/fn.def"
#undef FN
    KF_FN_COUNT
} kf_fn;

typedef enum kf_fn_result { KF_FN_RESULT_num, KF_FN_RESULT_pred } kf_fn_result;

typedef struct kf_fn_info {
    const char *name;
    uint8_t arity;
    kf_fn_result result;
    uint32_t traits;
    const char *summary;
} kf_fn_info;

extern const kf_fn_info kf_fn_infos[KF_FN_COUNT];
bool kf_fn_find(kf_str name, kf_fn *out_fn);
/** What operand |i| is: a truth value (of and, or, not, and the first of select), or a number. */
bool kf_fn_wants_pred(kf_fn fn, uint32_t i);
/** The value of a row of fn.def at the given operands (unused ones are ignored). */
double kf_fn_eval(kf_fn fn, double a, double b, double c);

typedef enum kf_acc {
    KF_ACC_none = -1,
#define ACC(name, needs, init, step, joined, summary) KF_ACC_##name,
#include "ir/acc.def"
#undef ACC
    KF_ACC_COUNT
} kf_acc;

typedef struct kf_acc_info {
    const char *name;
    kf_acc needs; /* must stand earlier in the list, or KF_ACC_none */
    double init;
    kf_acc joined; /* over partial results gives that of the row, or KF_ACC_none */
    const char *summary;
} kf_acc_info;

extern const kf_acc_info kf_acc_infos[KF_ACC_COUNT];
bool kf_acc_find(kf_str name, kf_acc *out_acc);
/** One step: |s| so far, element |v| in column |c|, needed accumulator |m|, row length |n|. */
double kf_acc_step(kf_acc acc, double s, double v, double m, double n, double c);

#define KF_MAX_ACCS 4
typedef struct kf_accs {
    uint8_t n;
    kf_acc acc[KF_MAX_ACCS];
} kf_accs;

typedef struct kf_ints {
    uint8_t n;
    int64_t v[KF_MAX_RANK];
} kf_ints;

typedef enum kf_family {
#define FAMILY(name, summary) KF_FAMILY_##name,
#include "ir/families.def"
#undef FAMILY
    KF_FAMILY_COUNT
} kf_family;

extern const char *const kf_family_names[KF_FAMILY_COUNT];
bool kf_family_find(kf_str name, kf_family *out_family);

enum {
#define WORD(set, name, number, text) KF_##set##_##name = (number),
#include "ir/words.def"
#undef WORD
};

/** The word of |field| ("style", "scaling", "plane") with this number; NULL if there is none. */
const char *kf_word_text(const char *field, int number);
bool kf_word_find(const char *field, kf_str text, int *out_number);

/* Slots: a small SSA body over named scalars, printed in nested form,
 * (v, a0) { mul(v, rsqrt(add(div(a0, 256), 1e-05))) }; shared subexpressions come first as `%0 =
 * ..., `; $0[i] loads from capture 0. Instructions are numbered in post-order from the result, so
 * equal bodies are equal arrays. */
typedef enum kf_slot_op { KF_SLOT_CONST, KF_SLOT_PARAM, KF_SLOT_FN, KF_SLOT_LOAD } kf_slot_op;

#define KF_SLOT_MAX_ARGS   3
#define KF_SLOT_MAX_PARAMS 8
#define KF_SLOT_MAX_INSTS  2048

typedef struct kf_slot_inst {
    kf_slot_op op;
    kf_fn fn;                       /* FN */
    double value;                   /* CONST */
    uint32_t index;                 /* PARAM: parameter; LOAD: capture number */
    uint32_t arg[KF_SLOT_MAX_ARGS]; /* instructions: operands of FN, index of LOAD */
    uint8_t n_args;
} kf_slot_inst;

/** |captures|: how many of the node's trailing operands the body may load from (capture j = operand
 *  n_in - captures + j). The result is the last instruction. */
typedef struct kf_slot {
    uint8_t n_params;
    uint8_t captures;
    kf_str param[KF_SLOT_MAX_PARAMS]; /* names, for printing only */
    uint32_t n_insts;
    const kf_slot_inst *inst;
} kf_slot;

/** Value of the slot. |load| resolves LOAD (may be NULL without captures). */
typedef double (*kf_slot_load_fn)(void *user, uint32_t capture, const double *index,
                                  uint8_t n_index);
double kf_slot_eval(const kf_slot *s, const double *params, kf_slot_load_fn load, void *user);
bool kf_slot_eq(const kf_slot *a, const kf_slot *b);
/** A deep copy that shares nothing; NULL stays NULL. */
const kf_slot *kf_slot_copy(kf_arena *arena, const kf_slot *s);
/** True if the result depends on parameter |param|. */
bool kf_slot_uses_param(const kf_slot *s, uint32_t param);

/** Builder: appends instructions into an arena; equal instructions are shared. */
typedef struct kf_slot_builder kf_slot_builder;
kf_slot_builder *kf_slot_builder_create(kf_arena *arena, uint8_t n_params,
                                        const char *const *param_names, uint8_t captures);
uint32_t kf_slot_const(kf_slot_builder *b, double value);
uint32_t kf_slot_param(kf_slot_builder *b, uint32_t index);
uint32_t kf_slot_load(kf_slot_builder *b, uint32_t capture, const uint32_t *index, uint8_t n_index);
uint32_t kf_slot_fn(kf_slot_builder *b, kf_fn fn, uint32_t x, uint32_t y, uint32_t z);
/** Instructions so far (of at most KF_SLOT_MAX_INSTS). */
uint32_t kf_slot_builder_len(const kf_slot_builder *b);
/** Finishes with |result|; unreachable instructions are dropped. */
const kf_slot *kf_slot_finish(kf_slot_builder *b, uint32_t result);

/* Attribute structs: kf_attr_matmul { bool trans_b; } and so on. */
typedef int64_t kf_field_int;
typedef double kf_field_num;
typedef bool kf_field_bool;
typedef kf_str kf_field_str;
typedef kf_ints kf_field_ints;
typedef kf_accs kf_field_accs;
typedef const kf_slot *kf_field_slot;
typedef kf_family kf_field_fam;
typedef int kf_field_word;

#define ATTR(kind)                                                                                 \
    typedef struct kf_attr_##kind {                                                                \
        char unused_;
#define FIELD(kind, type, name, d) kf_field_##type name;
#define END(kind)                                                                                  \
    }                                                                                              \
    kf_attr_##kind;
#include "ir/attrs.def"
#undef ATTR
#undef FIELD
#undef END

typedef enum kf_attr_kind {
#define ATTR(kind) KF_ATTR_##kind,
#define FIELD(kind, type, name, d)
#define END(kind)
#include "ir/attrs.def"
#undef ATTR
#undef FIELD
#undef END
    KF_ATTR_COUNT
} kf_attr_kind;

typedef enum kf_field_type {
    KF_FIELD_int,
    KF_FIELD_num,
    KF_FIELD_bool,
    KF_FIELD_str,
    KF_FIELD_ints,
    KF_FIELD_accs,
    KF_FIELD_slot,
    KF_FIELD_fam,
    KF_FIELD_word
} kf_field_type;

typedef struct kf_field_info {
    const char *name;
    kf_field_type type;
    size_t offset;
    double def; /* value that is not printed */
} kf_field_info;

typedef struct kf_attr_info {
    const char *name;
    size_t size;
    uint32_t n_fields;
    const kf_field_info *field;
} kf_attr_info;

extern const kf_attr_info kf_attr_infos[KF_ATTR_COUNT];
/** Equality of two fields of one type (numbers by their bits). */
bool kf_field_eq(kf_field_type type, const void *a, const void *b);
bool kf_attr_eq(kf_attr_kind kind, const void *a, const void *b);
/** Defaults filled in. */
void *kf_attr_new(kf_arena *arena, kf_attr_kind kind);
/** A shallow copy, or with |deep| one that shares nothing (another arena). */
void *kf_attr_copy(kf_arena *arena, kf_attr_kind kind, const void *attr, bool deep);
#define KF_ATTR_NEW(arena, kind) ((kf_attr_##kind *)kf_attr_new((arena), KF_ATTR_##kind))

#endif
