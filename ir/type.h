/* SPDX-License-Identifier: Apache-2.0 */
/* type - what a value of the graph is: a tensor (dtype, dims, layout, sharding) or a KV cache.
 *
 * Types are small structs compared field by field (kf_type_eq). A dim is a static size or a symbol
 * of the module with bounds, known only at the call. Text: `f32[N,256]`, `bf16[2048@tp,256]{partial
 * dp} <d0/16, d1/2, d0, d1>`, `kvcache<page 64, 4 x 32, f32, layers 6>`.
 */
#ifndef KF_IR_TYPE_H
#define KF_IR_TYPE_H

#include "base/str.h"

typedef enum kf_dtype {
#define DTYPE(name, bytes, kind, st, summary) KF_DTYPE_##name,
#include "ir/dtype.def"
#undef DTYPE
    KF_DTYPE_COUNT
} kf_dtype;

typedef enum kf_dtype_kind { KF_KIND_FLOAT, KF_KIND_INT, KF_KIND_BOOL } kf_dtype_kind;

typedef struct kf_dtype_info {
    const char *name;
    uint32_t bytes;
    kf_dtype_kind kind;
    const char *safetensors; /* its name in a safetensors header */
    const char *summary;
} kf_dtype_info;

extern const kf_dtype_info kf_dtype_infos[KF_DTYPE_COUNT];
bool kf_dtype_find(kf_str name, kf_dtype *out_dtype);

/** A dim: |size| elements when sym is 0, else symbol |sym| - 1 of the module (size is then 0). */
typedef struct kf_dim {
    int64_t size;
    uint32_t sym;
} kf_dim;

#define KF_MAX_RANK   6
#define KF_MAX_SPLITS 8

/** One step of a layout: storage walks dim |dim| in units of |block| elements. From outermost to
 * innermost; the first split of a dim covers its size (rounded up, the padding is zero), each later
 * one the block before it. [n/16, k/2, 16, 2] of a matrix [n,k] is {(0,16),(1,2),(0,1),(1,1)}. */
typedef struct kf_split {
    uint8_t dim;
    uint32_t block;
} kf_split;

/** n_splits 0 = row-major. swizzle: XOR pattern of shared-memory layouts, 0 = none. */
typedef struct kf_layout {
    uint8_t n_splits;
    uint8_t swizzle;
    kf_split split[KF_MAX_SPLITS];
} kf_layout;

typedef enum kf_type_kind { KF_TYPE_TENSOR, KF_TYPE_KVCACHE } kf_type_kind;

typedef struct kf_type {
    kf_type_kind kind;
    kf_dtype dtype;
    uint8_t rank;
    kf_dim dim[KF_MAX_RANK];
    /* Sharding: mesh axis + 1 along which a dim is cut, 0 = replicated; partial: axis + 1 over
     * which the value still has to be summed. */
    uint8_t shard[KF_MAX_RANK];
    uint8_t partial;
    kf_layout layout;
    /* KF_TYPE_KVCACHE only; shard[0] cuts the heads */
    uint32_t kv_page; /* tokens a page */
    uint32_t kv_heads;
    uint32_t kv_head_dim;
    uint32_t kv_layers; /* 1 inside a layer function */
} kf_type;

kf_type kf_type_tensor(kf_dtype dtype, uint8_t rank, const kf_dim *dims);
kf_type kf_type_scalar(kf_dtype dtype);
kf_type kf_type_kvcache(kf_dtype dtype, uint32_t page, uint32_t heads, uint32_t head_dim,
                        uint32_t layers);
bool kf_type_eq(const kf_type *a, const kf_type *b);
bool kf_dim_eq(kf_dim a, kf_dim b);
static inline kf_dim kf_dim_static(int64_t size)
{
    return (kf_dim){size, 0};
}
static inline kf_dim kf_dim_sym(uint32_t sym_index)
{
    return (kf_dim){0, sym_index + 1};
}
static inline bool kf_dim_is_static(kf_dim d)
{
    return d.sym == 0;
}
static inline bool kf_dim_is_one(kf_dim d)
{
    return kf_dim_is_static(d) && d.size == 1;
}

/** Elements of |d| when symbol i has the value |sym_values|[i] (may be NULL for a static dim). */
int64_t kf_dim_value(kf_dim d, const int64_t *sym_values);

/** Product of the static dims; dynamic dims count as 1. */
int64_t kf_type_static_elems(const kf_type *t);
/** Elements when symbol i has the value |sym_values|[i]. */
int64_t kf_type_elems(const kf_type *t, const int64_t *sym_values);
/** Stored elements, padding of the layout included. */
int64_t kf_type_stored_elems(const kf_type *t, const int64_t *sym_values);
/** Position in storage of the element at |index| (rank entries); row-major without a layout. All
 * static. */
int64_t kf_layout_offset(const kf_type *t, const int64_t *index);
/** Bytes of one page of one layer: keys then values. */
int64_t kf_kvcache_page_bytes(const kf_type *t);

#endif
