/* SPDX-License-Identifier: Apache-2.0 */
/* recipe - see recipe.h. Shape rules and making; values are in recipe_eval.c. */
#include "ir/recipe.h"

#include "base/check.h"

#include <string.h>

const kf_recipe_info kf_recipe_infos[KF_RECIPE_COUNT] = {
#define RECIPE(name, min, max, n1, n2, n3, n4, text, summary)                                      \
    {#name, min, max, {n1, n2, n3, n4}, text, summary},
#include "ir/recipe.def"
#undef RECIPE
};

static const int64_t max_dim = INT64_C(1) << 40, max_elems = INT64_C(1) << 48;

/* ---- shape rules: NULL, or what is wrong ----------------------------------------------------- */

static const char *shape_load(kf_recipe *r)
{
    (void)r;
    return NULL;
}

static const char *shape_concat(kf_recipe *r)
{
    int64_t groups = r->number[0], rows = 0;

    if (groups < 1)
        return "concat has at least one group";
    for (uint32_t i = 0; i < r->n_parts; i++) {
        const kf_type *t = &r->part[i]->type, *first = &r->part[0]->type;
        bool fits = t->rank > 0 && t->rank == first->rank && t->dtype == first->dtype &&
                    t->dim[0].size % groups == 0;
        for (uint8_t d = 1; fits && d < t->rank; d++)
            fits = kf_dim_eq(t->dim[d], first->dim[d]);
        if (!fits)
            return "a part does not join in these groups";
        rows += t->dim[0].size;
    }
    r->type = r->part[0]->type;
    r->type.dim[0].size = rows;
    return NULL;
}

static const char *shape_slice(kf_recipe *r)
{
    int64_t axis = r->number[0], groups = r->number[1], start = r->number[2], stop = r->number[3];
    const kf_type *t = &r->part[0]->type;

    if (axis < 0 || axis > 1 || axis >= t->rank || (axis == 1 && t->rank != 2))
        return "slice cuts rows, or columns of a matrix";
    int64_t size = t->dim[axis].size;
    if (groups < 1 || size % groups || start < 0 || start >= stop || stop > size / groups)
        return "slice stays within a group";
    r->type = *t;
    r->type.dim[axis].size = groups * (stop - start);
    return NULL;
}

static const char *shape_transpose(kf_recipe *r)
{
    const kf_type *t = &r->part[0]->type;

    if (t->rank != 1 && t->rank != 2)
        return "transpose takes a matrix or a vector";
    r->type = *t;
    r->type.rank = 2;
    r->type.dim[0] = t->dim[t->rank - 1];
    r->type.dim[1] = t->rank == 2 ? t->dim[0] : kf_dim_static(1);
    return NULL;
}

static const char *shape_regroup(kf_recipe *r)
{
    int64_t groups = r->number[0], blocks = r->number[1];
    const kf_type *t = &r->part[0]->type;

    if (groups < 1 || blocks < 1 || t->rank < 1 || t->dim[0].size % groups ||
        t->dim[0].size / groups % blocks)
        return "regroup takes whole blocks in whole groups";
    r->type = *t;
    return NULL;
}

/* Broadcasting aligns at the last dim. */
static const char *broadcast_dims(kf_type *out, const kf_type *t)
{
    for (uint8_t d = 0; d < t->rank; d++) {
        kf_dim *o = &out->dim[out->rank - t->rank + d];
        if (o->size == 1)
            *o = t->dim[d];
        else if (t->dim[d].size != 1 && t->dim[d].size != o->size)
            return "parts of a map broadcast to one shape";
    }
    return NULL;
}

static const char *shape_map(kf_recipe *r)
{
    kf_type out = kf_type_tensor(r->type.dtype, 1, (kf_dim[]){{.size = 1}});
    const char *wrong = NULL;

    if (!r->fn || r->fn->captures || r->fn->n_params < r->n_parts ||
        r->fn->n_params > r->n_parts + 1)
        return "the function of a map has a parameter for each part, and one for the layer";
    for (uint32_t i = 0; i < r->n_parts; i++)
        if (r->part[i]->type.rank > out.rank)
            out.rank = r->part[i]->type.rank;
    for (uint8_t d = 0; d < out.rank; d++)
        out.dim[d] = kf_dim_static(1);
    for (uint32_t i = 0; !wrong && i < r->n_parts; i++)
        wrong = broadcast_dims(&out, &r->part[i]->type);
    for (uint32_t i = 0; !wrong && out.rank > 2 && i < r->n_parts; i++) {
        int64_t n = kf_type_static_elems(&r->part[i]->type);
        if (n != 1 && n != kf_type_static_elems(&out))
            wrong = "parts of more than two dims do not broadcast";
    }
    r->type = out;
    return wrong;
}

static const char *shape_matmul(kf_recipe *r)
{
    const kf_type *a = &r->part[0]->type, *b = &r->part[1]->type;

    if (a->rank != 2 || (b->rank != 1 && b->rank != 2) || !kf_dim_eq(a->dim[1], b->dim[0]))
        return "matmul takes [n,k] and [k,m] or [k]";
    kf_dim dim[] = {a->dim[0], b->rank == 2 ? b->dim[1] : kf_dim_static(1)};
    r->type = kf_type_tensor(KF_DTYPE_f32, b->rank, dim);
    return NULL;
}

static const char *shape_centre(kf_recipe *r)
{
    const kf_type *t = &r->part[0]->type;

    if (t->rank < 1 || t->rank > 2 || r->number[0] < 0 || r->number[0] >= t->rank)
        return "centre takes a dim of a matrix or a vector";
    r->type = *t;
    return NULL;
}

static const char *shape_spectral(kf_recipe *r)
{
    if (r->part[0]->type.rank != 2)
        return "spectral takes a matrix";
    r->type = kf_type_tensor(KF_DTYPE_f32, 1, (kf_dim[]){{.size = 1}});
    return NULL;
}

static const char *const too_large = "the weight has too many elements";

static const char *check_size(const kf_type *t)
{
    int64_t elems = 1;

    for (uint8_t d = 0; d < t->rank; d++) {
        int64_t size = t->dim[d].size;
        if (size > max_dim || size > max_elems / elems)
            return too_large;
        elems *= size > 0 ? size : 1;
    }
    return NULL;
}

static const char *check_parts(const kf_recipe *r)
{
    const kf_recipe_info *info = &kf_recipe_infos[r->op];

    if (r->n_parts < info->min || r->n_parts > info->max)
        return "another number of parts";
    for (uint32_t i = 0; i < r->n_parts; i++) {
        const kf_type *t = &r->part[i]->type;
        bool plain = t->kind == KF_TYPE_TENSOR && t->layout.n_splits == 0 && t->rank > 0;
        for (uint8_t d = 0; plain && d < t->rank; d++)
            plain = kf_dim_is_static(t->dim[d]);
        if (!plain || kf_dtype_infos[t->dtype].kind != KF_KIND_FLOAT)
            return "parts are tensors of floats with static dims and no layout";
    }
    return NULL;
}

bool kf_recipe_infer(kf_recipe *r, const char **why)
{
    static const char *(*const shape[])(kf_recipe *) = {
#define RECIPE(name, min, max, n1, n2, n3, n4, text, summary) shape_##name,
#include "ir/recipe.def"
#undef RECIPE
    };
    const char *wrong = check_parts(r);

    if (!wrong)
        wrong = shape[r->op](r);
    if (!wrong && r->op != KF_RECIPE_load)
        wrong = check_size(&r->type);
    *why = wrong;
    return !wrong;
}

bool kf_recipe_check(const kf_recipe *r, const char **why)
{
    kf_recipe fresh = *r;

    for (uint32_t i = 0; i < r->n_parts; i++)
        if (!kf_recipe_check(r->part[i], why))
            return false;
    if (!kf_recipe_infer(&fresh, why))
        return false;
    *why = "the type is not what the parts give";
    return kf_type_eq(&fresh.type, &r->type);
}

bool kf_recipe_eq(const kf_recipe *a, const kf_recipe *b)
{
    if (a == b)
        return true;
    if (a->op != b->op || !kf_type_eq(&a->type, &b->type) || a->n_parts != b->n_parts ||
        memcmp(a->number, b->number, sizeof a->number) != 0 || !kf_str_eq(a->tensor, b->tensor) ||
        !a->fn != !b->fn || (a->fn && !kf_slot_eq(a->fn, b->fn)))
        return false;
    for (uint32_t i = 0; i < a->n_parts; i++) {
        if (!kf_recipe_eq(a->part[i], b->part[i]))
            return false;
    }
    return true;
}

const kf_recipe *kf_recipe_copy(kf_arena *arena, const kf_recipe *r)
{
    kf_recipe *copy = KF_NEW(arena, kf_recipe);
    const kf_recipe **part = KF_NEW_N(arena, const kf_recipe *, r->n_parts ? r->n_parts : 1);

    *copy = *r;
    copy->tensor = kf_str_dup(arena, r->tensor);
    copy->fn = kf_slot_copy(arena, r->fn);
    for (uint32_t i = 0; i < r->n_parts; i++)
        part[i] = kf_recipe_copy(arena, r->part[i]);
    copy->part = part;
    return copy;
}

/* ---- making ---------------------------------------------------------------------------------- */

/* NULL with the reason in |why| if the parts do not fit. */
static const kf_recipe *try_make(kf_arena *arena, kf_recipe proto, uint32_t n_parts,
                                 const kf_recipe *const *parts, const char **why)
{
    kf_recipe *r = KF_NEW(arena, kf_recipe);
    const kf_recipe **part = KF_NEW_N(arena, const kf_recipe *, n_parts ? n_parts : 1);

    *r = proto;
    for (uint32_t i = 0; i < n_parts; i++)
        part[i] = parts[i];
    r->n_parts = n_parts;
    r->part = part;
    return kf_recipe_infer(r, why) ? r : NULL;
}

static const kf_recipe *make(kf_arena *arena, kf_recipe proto, uint32_t n_parts,
                             const kf_recipe *const *parts)
{
    const char *why;
    const kf_recipe *r = try_make(arena, proto, n_parts, parts, &why);

    KF_ASSERT(r, why);
    return r;
}

const kf_recipe *kf_recipe_load(kf_arena *arena, kf_str tensor, kf_type type)
{
    kf_recipe proto = {.op = KF_RECIPE_load, .type = type, .tensor = kf_str_dup(arena, tensor)};

    return make(arena, proto, 0, NULL);
}

const kf_recipe *kf_recipe_concat(kf_arena *arena, uint32_t groups, uint32_t n_parts,
                                  const kf_recipe *const *parts)
{
    return make(arena, (kf_recipe){.op = KF_RECIPE_concat, .number = {groups}}, n_parts, parts);
}

const kf_recipe *kf_recipe_slice(kf_arena *arena, const kf_recipe *r, int64_t axis, int64_t groups,
                                 int64_t start, int64_t stop)
{
    kf_recipe proto = {.op = KF_RECIPE_slice, .number = {axis, groups, start, stop}};
    const kf_recipe *cut = make(arena, proto, 1, &r);

    return kf_type_eq(&cut->type, &r->type) ? r : cut;
}

const kf_recipe *kf_recipe_transpose(kf_arena *arena, const kf_recipe *r)
{
    if (r->op == KF_RECIPE_transpose && r->part[0]->type.rank == 2)
        return r->part[0];
    return make(arena, (kf_recipe){.op = KF_RECIPE_transpose}, 1, &r);
}

const kf_recipe *kf_recipe_regroup(kf_arena *arena, const kf_recipe *r, int64_t groups,
                                   int64_t blocks)
{
    return make(arena, (kf_recipe){.op = KF_RECIPE_regroup, .number = {groups, blocks}}, 1, &r);
}

const kf_recipe *kf_recipe_map(kf_arena *arena, kf_dtype dtype, const kf_slot *fn, uint32_t n_parts,
                               const kf_recipe *const *parts)
{
    kf_recipe proto = {.op = KF_RECIPE_map, .type.dtype = dtype, .fn = fn};

    return make(arena, proto, n_parts, parts);
}

const kf_recipe *kf_recipe_try_map(kf_arena *arena, kf_dtype dtype, const kf_slot *fn,
                                   uint32_t n_parts, const kf_recipe *const *parts)
{
    kf_recipe proto = {.op = KF_RECIPE_map, .type.dtype = dtype, .fn = fn};
    const char *why;

    return try_make(arena, proto, n_parts, parts, &why);
}

const kf_recipe *kf_recipe_as(kf_arena *arena, const kf_recipe *r, kf_dtype dtype)
{
    static const char *const names[] = {"a"};

    if (r->type.dtype == dtype)
        return r;
    if (r->op == KF_RECIPE_map)
        return kf_recipe_map(arena, dtype, r->fn, r->n_parts, r->part);
    kf_slot_builder *b = kf_slot_builder_create(arena, 1, names, 0);
    return kf_recipe_map(arena, dtype, kf_slot_finish(b, kf_slot_param(b, 0)), 1, &r);
}

const kf_recipe *kf_recipe_fn(kf_arena *arena, kf_fn fn, const kf_recipe *x, const kf_recipe *y)
{
    static const char *const names[] = {"a", "b"};
    const kf_recipe *parts[] = {x, y};
    uint8_t n = y ? 2 : 1;
    kf_slot_builder *b = kf_slot_builder_create(arena, n, names, 0);
    uint32_t first = kf_slot_param(b, 0), second = y ? kf_slot_param(b, 1) : 0;
    const kf_slot *body = kf_slot_finish(b, kf_slot_fn(b, fn, first, second, 0));

    return kf_recipe_map(arena, x->type.dtype, body, n, parts);
}

const kf_recipe *kf_recipe_times(kf_arena *arena, const kf_recipe *r, double factor)
{
    static const char *const names[] = {"a"};
    kf_slot_builder *b = kf_slot_builder_create(arena, 1, names, 0);
    uint32_t product = kf_slot_fn(b, KF_FN_mul, kf_slot_param(b, 0), kf_slot_const(b, factor), 0);

    return kf_recipe_map(arena, r->type.dtype, kf_slot_finish(b, product), 1, &r);
}

const kf_recipe *kf_recipe_matmul(kf_arena *arena, const kf_recipe *a, const kf_recipe *b)
{
    const kf_recipe *parts[] = {a, b};

    return make(arena, (kf_recipe){.op = KF_RECIPE_matmul}, 2, parts);
}

const kf_recipe *kf_recipe_centre(kf_arena *arena, const kf_recipe *r, int64_t axis)
{
    return make(arena, (kf_recipe){.op = KF_RECIPE_centre, .number = {axis}}, 1, &r);
}

const kf_recipe *kf_recipe_spectral(kf_arena *arena, const kf_recipe *r)
{
    return make(arena, (kf_recipe){.op = KF_RECIPE_spectral}, 1, &r);
}
