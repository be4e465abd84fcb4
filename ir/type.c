/* SPDX-License-Identifier: Apache-2.0 */
/* type - dtypes, dims and layouts; printing is in type_print.c because it needs the module's names.
 */
#include "ir/type.h"

#include "base/check.h"

#include <string.h>

const kf_dtype_info kf_dtype_infos[KF_DTYPE_COUNT] = {
#define DTYPE(name, bytes, kind, st, summary) {#name, bytes, kind, st, summary},
#include "ir/dtype.def"
#undef DTYPE
};

bool kf_dtype_find(kf_str name, kf_dtype *out_dtype)
{
    for (int i = 0; i < KF_DTYPE_COUNT; i++) {
        if (kf_str_eq_c(name, kf_dtype_infos[i].name)) {
            *out_dtype = (kf_dtype)i;
            return true;
        }
    }
    return false;
}

kf_type kf_type_tensor(kf_dtype dtype, uint8_t rank, const kf_dim *dims)
{
    KF_ASSERT(rank <= KF_MAX_RANK, "a type has at most KF_MAX_RANK dims");
    kf_type t = {.kind = KF_TYPE_TENSOR, .dtype = dtype, .rank = rank};
    for (uint8_t i = 0; i < rank; i++)
        t.dim[i] = dims[i];
    return t;
}

kf_type kf_type_scalar(kf_dtype dtype)
{
    return kf_type_tensor(dtype, 0, NULL);
}

kf_type kf_type_kvcache(kf_dtype dtype, uint32_t page, uint32_t heads, uint32_t head_dim,
                        uint32_t layers)
{
    return (kf_type){.kind = KF_TYPE_KVCACHE,
                     .dtype = dtype,
                     .kv_page = page,
                     .kv_heads = heads,
                     .kv_head_dim = head_dim,
                     .kv_layers = layers};
}

bool kf_dim_eq(kf_dim a, kf_dim b)
{
    return a.size == b.size && a.sym == b.sym;
}

static bool layout_eq(const kf_layout *a, const kf_layout *b)
{
    if (a->n_splits != b->n_splits || a->swizzle != b->swizzle)
        return false;
    for (uint8_t i = 0; i < a->n_splits; i++) {
        if (a->split[i].dim != b->split[i].dim || a->split[i].block != b->split[i].block)
            return false;
    }
    return true;
}

bool kf_type_eq(const kf_type *a, const kf_type *b)
{
    if (a->kind != b->kind || a->dtype != b->dtype || a->rank != b->rank ||
        a->partial != b->partial)
        return false;
    if (a->kind == KF_TYPE_KVCACHE)
        return a->kv_page == b->kv_page && a->kv_heads == b->kv_heads &&
               a->kv_head_dim == b->kv_head_dim && a->kv_layers == b->kv_layers &&
               a->shard[0] == b->shard[0];
    for (uint8_t i = 0; i < a->rank; i++) {
        if (!kf_dim_eq(a->dim[i], b->dim[i]) || a->shard[i] != b->shard[i])
            return false;
    }
    return layout_eq(&a->layout, &b->layout);
}

int64_t kf_dim_value(kf_dim d, const int64_t *sym_values)
{
    return d.sym ? sym_values[d.sym - 1] : d.size;
}

int64_t kf_type_static_elems(const kf_type *t)
{
    int64_t n = 1;
    for (uint8_t i = 0; i < t->rank; i++)
        n *= kf_dim_is_static(t->dim[i]) ? t->dim[i].size : 1;
    return n;
}

int64_t kf_type_elems(const kf_type *t, const int64_t *sym_values)
{
    int64_t n = 1;
    for (uint8_t i = 0; i < t->rank; i++)
        n *= kf_dim_value(t->dim[i], sym_values);
    return n;
}

int64_t kf_type_stored_elems(const kf_type *t, const int64_t *sym_values)
{
    if (!t->layout.n_splits)
        return kf_type_elems(t, sym_values);
    int64_t rest[KF_MAX_RANK]; /* what the next split of a dim has to cover */
    for (uint8_t i = 0; i < t->rank; i++)
        rest[i] = kf_dim_value(t->dim[i], sym_values);
    int64_t n = 1;
    for (uint8_t i = 0; i < t->layout.n_splits; i++) {
        const kf_split *s = &t->layout.split[i];
        n *= (rest[s->dim] + s->block - 1) / s->block;
        rest[s->dim] = s->block;
    }
    return n;
}

int64_t kf_layout_offset(const kf_type *t, const int64_t *index)
{
    int64_t offset = 0;
    if (!t->layout.n_splits) {
        for (uint8_t i = 0; i < t->rank; i++)
            offset = offset * t->dim[i].size + index[i];
        return offset;
    }
    int64_t rest[KF_MAX_RANK], at[KF_MAX_RANK];
    for (uint8_t i = 0; i < t->rank; i++) {
        rest[i] = t->dim[i].size;
        at[i] = index[i];
    }
    for (uint8_t i = 0; i < t->layout.n_splits; i++) {
        const kf_split *s = &t->layout.split[i];
        int64_t extent = (rest[s->dim] + s->block - 1) / s->block;
        offset = offset * extent + at[s->dim] / s->block;
        at[s->dim] %= s->block;
        rest[s->dim] = s->block;
    }
    return offset;
}

int64_t kf_kvcache_page_bytes(const kf_type *t)
{
    return (int64_t)2 * t->kv_page * t->kv_heads * t->kv_head_dim * kf_dtype_infos[t->dtype].bytes;
}
