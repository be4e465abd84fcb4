/* SPDX-License-Identifier: Apache-2.0 */
/* attr - the tables behind fn.def, acc.def, families.def, words.def and attrs.def, and attribute
 * structs. */
#include "ir/graph.h" /* the traits of fn.def */

#include <ctype.h>
#include <math.h>
#include <string.h>

/* ---- scalar functions and accumulators ------------------------------------------------------- */

const kf_fn_info kf_fn_infos[KF_FN_COUNT] = {
#define FN(name, arity, result, traits, eval, emit, oracle, summary)                               \
    {#name, arity, KF_FN_RESULT_##result, traits, summary},
#include "ir/fn.def"
#undef FN
};

#define FN(name, arity, result, traits, eval, emit, oracle, summary)                               \
    static double fn_##name(double a, double b, double c)                                          \
    {                                                                                              \
        (void)a, (void)b, (void)c;                                                                 \
        return eval;                                                                               \
    }
#include "ir/fn.def"
#undef FN

static double (*const fn_eval[KF_FN_COUNT])(double, double, double) = {
#define FN(name, arity, result, traits, eval, emit, oracle, summary) fn_##name,
#include "ir/fn.def"
#undef FN
};

double kf_fn_eval(kf_fn fn, double a, double b, double c)
{
    return fn_eval[fn](a, b, c);
}

bool kf_fn_find(kf_str name, kf_fn *out_fn)
{
    for (int i = 0; i < KF_FN_COUNT; i++) {
        if (kf_str_eq_c(name, kf_fn_infos[i].name)) {
            *out_fn = (kf_fn)i;
            return true;
        }
    }
    return false;
}

bool kf_fn_wants_pred(kf_fn fn, uint32_t i)
{
    return fn == KF_FN_and || fn == KF_FN_or || fn == KF_FN_not || (fn == KF_FN_select && i == 0);
}

const kf_acc_info kf_acc_infos[KF_ACC_COUNT] = {
#define ACC(name, needs, init, step, joined, summary)                                              \
    {#name, KF_ACC_##needs, init, KF_ACC_##joined, summary},
#include "ir/acc.def"
#undef ACC
};

#define ACC(name, needs, init, step, joined, summary)                                              \
    static double acc_step_##name(double s, double v, double m, double n, double c)                \
    {                                                                                              \
        (void)m, (void)n, (void)c;                                                                 \
        return step;                                                                               \
    }
#include "ir/acc.def"
#undef ACC

static double (*const acc_step[KF_ACC_COUNT])(double, double, double, double, double) = {
#define ACC(name, needs, init, step, joined, summary) acc_step_##name,
#include "ir/acc.def"
#undef ACC
};

double kf_acc_step(kf_acc acc, double s, double v, double m, double n, double c)
{
    return acc_step[acc](s, v, m, n, c);
}

bool kf_acc_find(kf_str name, kf_acc *out_acc)
{
    for (int i = 0; i < KF_ACC_COUNT; i++) {
        if (kf_str_eq_c(name, kf_acc_infos[i].name)) {
            *out_acc = (kf_acc)i;
            return true;
        }
    }
    return false;
}

/* ---- closed sets of words -------------------------------------------------------------------- */

const char *const kf_family_names[KF_FAMILY_COUNT] = {
#define FAMILY(name, summary) #name,
#include "ir/families.def"
#undef FAMILY
};

bool kf_family_find(kf_str name, kf_family *out_family)
{
    for (int i = 0; i < KF_FAMILY_COUNT; i++) {
        if (kf_str_eq_c(name, kf_family_names[i])) {
            *out_family = (kf_family)i;
            return true;
        }
    }
    return false;
}

static const struct {
    const char *set; /* upper case of the field's name */
    int number;
    const char *text;
} words[] = {
#define WORD(set, name, number, text) {#set, number, text},
#include "ir/words.def"
#undef WORD
};

static bool word_set_is(const char *set, const char *field)
{
    for (; *set && *field; set++, field++) {
        if (*set != toupper((unsigned char)*field))
            return false;
    }
    return *set == *field;
}

const char *kf_word_text(const char *field, int number)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (words[i].number == number && word_set_is(words[i].set, field))
            return words[i].text;
    }
    return NULL;
}

bool kf_word_find(const char *field, kf_str text, int *out_number)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (word_set_is(words[i].set, field) && kf_str_eq_c(text, words[i].text)) {
            *out_number = words[i].number;
            return true;
        }
    }
    return false;
}

/* ---- attribute structs ----------------------------------------------------------------------- */

#define ATTR(kind) static const kf_field_info fields_##kind[] = {
#define FIELD(kind, type, name, d)                                                                 \
    {#name, KF_FIELD_##type, offsetof(kf_attr_##kind, name), (double)(d)},
#define END(kind)                                                                                  \
    {NULL, KF_FIELD_int, 0, 0}                                                                     \
    }                                                                                              \
    ;
#include "ir/attrs.def"
#undef ATTR
#undef FIELD
#undef END

const kf_attr_info kf_attr_infos[KF_ATTR_COUNT] = {
#define ATTR(kind)                                                                                 \
    {#kind, sizeof(kf_attr_##kind), sizeof fields_##kind / sizeof *fields_##kind - 1,              \
     fields_##kind},
#define FIELD(kind, type, name, d)
#define END(kind)
#include "ir/attrs.def"
#undef ATTR
#undef FIELD
#undef END
};

void *kf_attr_new(kf_arena *arena, kf_attr_kind kind)
{
    const kf_attr_info *info = &kf_attr_infos[kind];
    char *attr = kf_arena_alloc(arena, info->size, _Alignof(max_align_t));
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const kf_field_info *f = &info->field[i];
        void *at = attr + f->offset;
        switch (f->type) {
        case KF_FIELD_int:
            *(kf_field_int *)at = (int64_t)f->def;
            break;
        case KF_FIELD_num:
            *(kf_field_num *)at = f->def;
            break;
        case KF_FIELD_bool:
            *(kf_field_bool *)at = f->def != 0;
            break;
        case KF_FIELD_fam:
            *(kf_field_fam *)at = (kf_family)f->def;
            break;
        case KF_FIELD_word:
            *(kf_field_word *)at = (int)f->def;
            break;
        case KF_FIELD_str:
            *(kf_field_str *)at = KF_STR("");
            break;
        case KF_FIELD_ints:
        case KF_FIELD_accs:
        case KF_FIELD_slot:
            break; /* zeroed: empty */
        }
    }
    return attr;
}

static bool num_eq(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

bool kf_field_eq(kf_field_type type, const void *a, const void *b)
{
    switch (type) {
    case KF_FIELD_int:
        return *(const kf_field_int *)a == *(const kf_field_int *)b;
    case KF_FIELD_num:
        return num_eq(*(const kf_field_num *)a, *(const kf_field_num *)b);
    case KF_FIELD_bool:
        return *(const kf_field_bool *)a == *(const kf_field_bool *)b;
    case KF_FIELD_str:
        return kf_str_eq(*(const kf_field_str *)a, *(const kf_field_str *)b);
    case KF_FIELD_fam:
        return *(const kf_field_fam *)a == *(const kf_field_fam *)b;
    case KF_FIELD_word:
        return *(const kf_field_word *)a == *(const kf_field_word *)b;
    case KF_FIELD_slot: {
        const kf_slot *x = *(const kf_field_slot *)a, *y = *(const kf_field_slot *)b;
        return x == y || (x && y && kf_slot_eq(x, y));
    }
    case KF_FIELD_ints: {
        const kf_ints *x = a, *y = b;
        return x->n == y->n && memcmp(x->v, y->v, x->n * sizeof *x->v) == 0;
    }
    case KF_FIELD_accs: {
        const kf_accs *x = a, *y = b;
        return x->n == y->n && memcmp(x->acc, y->acc, x->n * sizeof *x->acc) == 0;
    }
    }
    return false;
}

bool kf_attr_eq(kf_attr_kind kind, const void *a, const void *b)
{
    const kf_attr_info *info = &kf_attr_infos[kind];
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const kf_field_info *f = &info->field[i];
        if (!kf_field_eq(f->type, (const char *)a + f->offset, (const char *)b + f->offset))
            return false;
    }
    return true;
}

const kf_slot *kf_slot_copy(kf_arena *arena, const kf_slot *s)
{
    if (!s)
        return NULL;
    kf_slot *copy = KF_NEW(arena, kf_slot);
    *copy = *s;
    for (uint8_t i = 0; i < s->n_params; i++)
        copy->param[i] = kf_str_dup(arena, s->param[i]);
    kf_slot_inst *inst = KF_NEW_N(arena, kf_slot_inst, s->n_insts);
    memcpy(inst, s->inst, s->n_insts * sizeof *inst);
    copy->inst = inst;
    return copy;
}

void *kf_attr_copy(kf_arena *arena, kf_attr_kind kind, const void *attr, bool deep)
{
    const kf_attr_info *info = &kf_attr_infos[kind];
    char *copy = kf_arena_alloc(arena, info->size, _Alignof(max_align_t));
    memcpy(copy, attr, info->size);
    for (uint32_t i = 0; deep && i < info->n_fields; i++) {
        void *at = copy + info->field[i].offset;
        if (info->field[i].type == KF_FIELD_str)
            *(kf_field_str *)at = kf_str_dup(arena, *(kf_field_str *)at);
        else if (info->field[i].type == KF_FIELD_slot)
            *(kf_field_slot *)at = kf_slot_copy(arena, *(kf_field_slot *)at);
    }
    return copy;
}
