/* SPDX-License-Identifier: Apache-2.0 */
/* region_run - see region_run.h.
 *
 * Operands are laid out in memory as the plan would: packed layouts, pages of caches under an
 * identity page table. What a kernel is to store is filled with NaN first, and so are the pages,
 * but for rows that are not its own to append.
 */
#include "driver/region_run.h"

#include "codegen/cpu/kernel_loader.h"
#include "codegen/kernel.h"
#include "driver/verify.h"

#include <math.h>
#include <string.h>

#define MAX_OPERANDS    (KF_MAX_OPERANDS + KF_MAX_RESULTS + 2) /* and what tiles share */
#define ATTENTION_FIXED 7   /* operands of attention before its captures */
#define SLACK           256 /* vectors may read, never use, what lies behind an operand */

/** A kernel that was made. */
typedef struct made {
    const kf_node *region;
    kf_kernel kernel;
    kf_kernel_library *lib;
    kf_kernel_fn fn;
} made;

struct kf_region_run {
    kf_compilation *c;
    kf_arena *arena; /* of one run: operands and results */
    kf_arena_mark empty;
    KF_VEC(made) kernels;
};

kf_region_run *kf_region_run_create(kf_compilation *c)
{
    kf_region_run *r = KF_NEW(c->arena, kf_region_run);

    r->c = c;
    r->arena = kf_arena_create("region");
    r->empty = kf_arena_save(r->arena);
    return r;
}

void kf_region_run_destroy(kf_region_run *r)
{
    for (uint32_t i = 0; i < r->kernels.len; i++)
        kf_kernel_library_close(r->kernels.data[i].lib);
    kf_arena_destroy(r->arena);
}

/* ---- kernels --------------------------------------------------------------------------------- */

static bool emit(kf_region_run *r, made *k, kf_sbuf *why)
{
    kf_arena *a = r->c->arena;
    kf_llvm_options options = {0};
    kf_str error = {"", 0};

    if (!kf_cpu_arch_find(r->c->arch, &options.arch))
        return false;
    kf_llvm *ll = kf_llvm_create(a, "region", &options, &error);
    bool ok = ll && kf_kernel_emit(ll, a, r->c->target, NULL, &k->kernel, why);
    if (ok) {
        kf_llvm_optimize(ll);
        k->lib = kf_kernel_library_open(a, kf_llvm_emit_object(ll, a), &error);
        k->fn = k->lib ? kf_kernel_library_find(k->lib, "region") : NULL;
    }
    if (ll)
        kf_llvm_destroy(ll);
    kf_sbuf_str(why, error);
    return k->fn != NULL;
}

static const made *kernel_of(kf_region_run *r, const kf_node *region, int64_t rows_hi, kf_sbuf *why)
{
    kf_family family = KF_ATTR_OF(region, region)->family;
    made k = {.region = region};

    for (uint32_t i = 0; i < r->kernels.len; i++)
        if (r->kernels.data[i].region == region)
            return &r->kernels.data[i];
    k.kernel = (kf_kernel){.name = KF_STR("region"), .family = family, .body = region->body};
    k.kernel.shape = r->c->target->configure(r->c->target, family, region->body, 1, rows_hi);
    if (!emit(r, &k, why))
        return NULL;
    kf_vec_push(r->c->arena, &r->kernels, k);
    return &r->kernels.data[r->kernels.len - 1];
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void put(void *base, kf_dtype dtype, int64_t i, double v)
{
    float f = (float)v;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    if (dtype == KF_DTYPE_f32)
        ((float *)base)[i] = f;
    else if (dtype == KF_DTYPE_bf16)
        ((uint16_t *)base)[i] = (uint16_t)(bits >> 16); /* |v| is one already */
    else if (dtype == KF_DTYPE_f16)
        ((_Float16 *)base)[i] = (_Float16)f;
    else if (dtype == KF_DTYPE_i32)
        ((int32_t *)base)[i] = (int32_t)v;
    else
        ((uint8_t *)base)[i] = v != 0;
}

static double get(const void *base, kf_dtype dtype, int64_t i)
{
    if (dtype == KF_DTYPE_f32)
        return ((const float *)base)[i];
    if (dtype == KF_DTYPE_f16)
        return (double)((const _Float16 *)base)[i];
    if (dtype == KF_DTYPE_i32)
        return ((const int32_t *)base)[i];
    if (dtype != KF_DTYPE_bf16)
        return ((const uint8_t *)base)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)base)[i] << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static void *new_memory(kf_arena *a, int64_t bytes)
{
    char *p = kf_arena_alloc(a, (size_t)bytes + SLACK, 64);

    memset(p, 0xff, (size_t)bytes + SLACK); /* NaN in every float format */
    return p;
}

/* What an op of the cache reads as a matrix of i32, before its captures: page p of the sequence is page p. */
static bool is_page_table(const kf_graph *body, kf_value v)
{
    const kf_type *t = kf_value_type(body, v);
    bool is = false;

    for (uint32_t i = 0; t->dtype == KF_DTYPE_i32 && t->rank == 2 && i < body->nodes.len; i++) {
        const kf_node *n = &body->nodes.data[i];
        bool of_cache =
            n->op == KF_OP_attention || n->op == KF_OP_kv_append || n->op == KF_OP_kv_read;
        for (uint32_t j = 0; of_cache && j < n->n_in && j < ATTENTION_FIXED; j++)
            is |= n->in[j] == v;
    }
    return is;
}

/* |from| NULL: a result, that is nothing yet. */
static void *tensor_memory(kf_arena *a, const kf_type *t, const kf_tensor *from, bool pages,
                           const int64_t *sym_values)
{
    int64_t bytes = kf_type_stored_elems(t, sym_values) * kf_dtype_infos[t->dtype].bytes;
    void *base = new_memory(a, bytes);
    bool packed = t->layout.n_splits > 0;

    if (packed)
        memset(base, 0, (size_t)bytes); /* the padding of a block is zero */
    for (int64_t i = 0; from && i < from->n; i++) {
        int64_t columns = t->rank > 1 ? from->dim[1] : 1;
        int64_t index[KF_MAX_RANK] = {i / columns, i % columns};
        double v = pages ? (double)(i % columns) : from->data[i];
        put(base, t->dtype, packed ? kf_layout_offset(t, index) : i, v);
    }
    return base;
}

/* ---- caches ---------------------------------------------------------------------------------- */

/** Positions of a cache: those of this call are [new_from, end). */
typedef struct extent {
    int64_t new_from, end;
} extent;

/* Of the cache that is argument |v|: a memory was all there before the call. */
static extent extent_of(const kf_graph *body, kf_value v, const int64_t *sym_values)
{
    int64_t memory = sym_values[KF_SYM_M], keys = sym_values[KF_SYM_K];

    for (uint32_t i = 0; i < body->nodes.len; i++) {
        const kf_node *n = &body->nodes.data[i];
        bool stored =
            (n->op == KF_OP_attention && n->in[1] == v && KF_ATTR_OF(n, attention)->stored) ||
            (n->op == KF_OP_kv_read && n->in[0] == v && KF_ATTR_OF(n, kv_read)->stored);
        if (stored)
            return (extent){memory, memory};
    }
    return (extent){keys - sym_values[KF_SYM_N], keys};
}

/* Calls |visit| for each element of positions [from, end) of a cache of one layer. */
typedef void (*visit_fn)(void *user, void *memory, double *value);

static void each_row(const kf_type *t, const kf_tensor *kv, void *base, int64_t from, int64_t end,
                     visit_fn visit, void *user)
{
    uint32_t bytes = kf_dtype_infos[t->dtype].bytes;
    uint64_t stride = (uint64_t)kf_kvcache_page_bytes(t);

    for (int64_t pos = from; pos < end; pos++)
        for (uint32_t v = 0; v < 2; v++) {
            double *row = kf_eval_kv_row(kv, v, 0, 0, pos);
            for (uint32_t h = 0; h < t->kv_heads; h++)
                for (uint32_t d = 0; d < t->kv_head_dim; d++)
                    visit(user,
                          (char *)base + kf_kv_addr(stride, (uint32_t)(pos / t->kv_page),
                                                    (uint32_t)pos, v, h, d, t->kv_page, t->kv_heads,
                                                    t->kv_head_dim, bytes),
                          &row[h * t->kv_head_dim + d]);
        }
}

typedef struct cache_error {
    kf_dtype dtype;
    double err, size;
} cache_error;

static void fill(void *user, void *memory, double *value)
{
    put(memory, ((cache_error *)user)->dtype, 0, *value);
}

static void compare(void *user, void *memory, double *value)
{
    cache_error *e = user;
    double d = get(memory, e->dtype, 0) - *value;

    e->err += isnan(d) ? INFINITY : d * d;
    e->size += *value * *value;
}

static bool appends(const kf_graph *body)
{
    for (uint32_t i = 0; i < body->nodes.len; i++)
        if (body->nodes.data[i].op == KF_OP_kv_append)
            return true;
    return false;
}

/* Rows of this call are the kernel's to append, if it does. */
static void *cache_memory(kf_arena *a, const kf_graph *body, const kf_type *t, const kf_tensor *kv,
                          extent x)
{
    int64_t pages = (x.end + t->kv_page - 1) / t->kv_page;
    void *base = new_memory(a, pages * kf_kvcache_page_bytes(t));
    cache_error e = {.dtype = t->dtype};

    each_row(t, kv, base, 0, appends(body) ? x.new_from : x.end, fill, &e);
    return base;
}

/* ---- a run ----------------------------------------------------------------------------------- */

/* Behind operands and results stand counters, which are 0, and the memory that tiles of a launch share. */
static void run_tiles(kf_arena *a, const made *k, void **ptr, const int64_t *sym_values)
{
    uint32_t n = k->kernel.body->args.len + k->kernel.body->results.len;
    int64_t counters = k->kernel.shape.cells * (int64_t)sizeof(uint32_t);
    int64_t tiles = kf_tile_count(&k->kernel.shape.tiles, sym_values);
    void *scratch = new_memory(a, k->kernel.shape.scratch_bytes);
    kf_kernel_args args = {ptr, sym_values};

    ptr[n] = memset(new_memory(a, counters), 0, (size_t)counters);
    ptr[n + 1] = new_memory(a, k->kernel.shape.shared_bytes);
    for (int64_t t = 0; t < tiles; t++)
        k->fn(&args, (uint32_t)t, scratch);
}

static void take_results(const kf_graph *body, void *const *ptr, const kf_tensor *want, kf_arena *a,
                         kf_tensor *got)
{
    for (uint32_t i = 0; i < body->results.len; i++) {
        const kf_type *t = kf_value_type(body, body->results.data[i]);
        got[i] = (kf_tensor){0};
        if (t->kind != KF_TYPE_TENSOR)
            continue;
        got[i] = kf_tensor_new(a, want[i].rank, want[i].dim);
        for (int64_t j = 0; j < got[i].n; j++)
            got[i].data[j] = get(ptr[body->args.len + i], t->dtype, j);
    }
}

/* The worst of the caches that the region appends to; pages are read back as they were filled. */
static double check_caches(const kf_graph *body, void *const *ptr, const kf_tensor *const *in,
                           const int64_t *sym_values)
{
    double worst = 0;

    for (uint32_t i = 0; appends(body) && i < body->args.len; i++) {
        const kf_type *t = kf_value_type(body, body->args.data[i]);
        cache_error e = {.dtype = t->dtype};
        if (t->kind != KF_TYPE_KVCACHE)
            continue;
        extent x = extent_of(body, body->args.data[i], sym_values);
        each_row(t, in[i], ptr[i], x.new_from, x.end, compare, &e);
        double nmse = e.err > 0 ? e.err / (e.size > 0 ? e.size : 1) : 0;
        worst = nmse > worst ? nmse : worst;
    }
    return worst;
}

bool kf_region_run_kernel(kf_region_run *r, const kf_node *region, int64_t rows_hi,
                          const kf_tensor *const *in, const kf_tensor *want,
                          const int64_t *sym_values, kf_tensor *got, double *cache_nmse,
                          kf_sbuf *why)
{
    const kf_graph *body = region->body;
    const made *k = kernel_of(r, region, rows_hi, why);
    kf_arena *a = r->arena;
    void *ptr[MAX_OPERANDS];

    if (!k)
        return false;
    kf_arena_restore(a, r->empty);
    for (uint32_t i = 0; i < body->args.len; i++) {
        const kf_type *t = kf_value_type(body, body->args.data[i]);
        extent x = extent_of(body, body->args.data[i], sym_values);
        bool pages = is_page_table(body, body->args.data[i]);
        ptr[i] = t->kind == KF_TYPE_KVCACHE ? cache_memory(a, body, t, in[i], x)
                                            : tensor_memory(a, t, in[i], pages, sym_values);
    }
    for (uint32_t i = 0; i < body->results.len; i++) {
        const kf_type *t = kf_value_type(body, body->results.data[i]);
        ptr[body->args.len + i] =
            t->kind == KF_TYPE_TENSOR ? tensor_memory(a, t, NULL, false, sym_values) : NULL;
    }
    run_tiles(a, k, ptr, sym_values);
    take_results(body, ptr, want, a, got);
    *cache_nmse = check_caches(body, ptr, in, sym_values);
    return true;
}
