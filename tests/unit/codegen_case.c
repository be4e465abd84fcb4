/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/codegen_case.h"

#include "codegen/cpu/kernel_loader.h"
#include "tests/unit/support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

enum { LAYERS = 3, LAYER = 1, GUARD = 256 };

kf_case kf_case_begin(int64_t s, int64_t n, int64_t r, int64_t k)
{
    kf_case c = {.arch = "x86-64-v3", .seed = 1, .rtol = 1e-5, .atol = 1e-6, .repeat = 1};
    const int64_t value[KF_SYM_MEMORY] = {s, n, r, k, 1};
    c.arena = kf_arena_create("case");
    c.module = kf_module_create(c.arena, KF_STR("case"));
    kf_module_add_sym(c.module, KF_STR("S"), 1, 8);
    kf_module_add_sym(c.module, KF_STR("N"), 1, 512);
    kf_module_add_sym(c.module, KF_STR("R"), 1, 8);
    kf_module_add_sym(c.module, KF_STR("K"), 1, 4096);
    kf_module_add_sym(c.module, KF_STR("M"), 1, 4096);
    memcpy(c.sym, value, sizeof value);
    c.body = kf_graph_create(c.module);
    return c;
}

void kf_case_end(kf_case *c)
{
    kf_arena_destroy(c->arena);
}

bool kf_case_chosen(uint32_t percent)
{
    static uint32_t sum = 99;
    sum += scaled(percent);
    const bool chosen = sum >= 100;
    sum %= 100;
    return chosen;
}

kf_value kf_case_arg(kf_case *c, kf_dtype dtype, uint8_t rank, const kf_dim *dims, const char *name)
{
    return kf_graph_add_arg(c->body, kf_type_tensor(dtype, rank, dims), kf_str_from(name),
                            KF_NO_LOC);
}

kf_value kf_case_weight(kf_case *c, kf_dtype dtype, int64_t n, int64_t k, const char *name)
{
    const kf_dim dims[] = {kf_dim_static(n), kf_dim_static(k)};
    const kf_target *t = kf_target_cpu(c->arena, c->arch);
    kf_type type = kf_type_tensor(dtype, 2, dims);
    type.layout = t->weight_layout(t, &type);
    return kf_graph_add_arg(c->body, type, kf_str_from(name), KF_NO_LOC);
}

static int64_t elems(const kf_case *c, kf_value v)
{
    return kf_type_elems(kf_value_type(c->body, v), c->sym);
}

static double *give(kf_case *c, kf_value v)
{
    double *data = KF_NEW_N(c->arena, double, elems(c, v) + 1);
    c->given[c->body->values.data[v].def] = data;
    return data;
}

void kf_case_ints(kf_case *c, kf_value v, int64_t lo, int64_t hi)
{
    double *data = give(c, v);
    uint64_t state = c->seed + v;
    for (int64_t i = 0; i < elems(c, v); i++)
        data[i] = (double)(lo + (int64_t)(random_u64(&state) % (uint64_t)(hi - lo)));
}

static int64_t first_row(const kf_case *c, int64_t seq)
{
    return seq * c->sym[KF_SYM_N] / c->sym[KF_SYM_S];
}

kf_case_call kf_case_cache(kf_case *c, kf_dtype dtype, uint32_t heads, uint32_t head_dim)
{
    kf_case_call k;
    const kf_dim n = kf_dim_sym(KF_SYM_N), s = kf_dim_sym(KF_SYM_S);
    const kf_dim pages[] = {s, kf_dim_static(16)};
    k.kv = kf_graph_add_arg(c->body, kf_type_kvcache(dtype, 64, heads, head_dim, 1), KF_STR("kv"),
                            KF_NO_LOC);
    k.pos = kf_case_arg(c, KF_DTYPE_i32, 1, &n, "pos");
    k.seq = kf_case_arg(c, KF_DTYPE_i32, 1, &n, "seq");
    k.seq_start = kf_case_arg(c, KF_DTYPE_i32, 1, &s, "seq_start");
    k.past = kf_case_arg(c, KF_DTYPE_i32, 1, &s, "past");
    k.pages = kf_case_arg(c, KF_DTYPE_i32, 2, pages, "pages");
    double *pos = give(c, k.pos), *seq = give(c, k.seq), *start = give(c, k.seq_start);
    double *past = give(c, k.past), *page = give(c, k.pages);
    for (int64_t q = 0; q < c->sym[KF_SYM_S]; q++) {
        start[q] = (double)first_row(c, q);
        past[q] = (double)c->past[q];
        for (int64_t i = first_row(c, q); i < first_row(c, q + 1); i++) {
            seq[i] = (double)q;
            pos[i] = (double)(c->past[q] + i - first_row(c, q));
        }
        for (int64_t p = 0; p < 16; p++) /* shuffled: 5 is prime to 128 */
            page[q * 16 + p] = (double)((q * 16 + p) * 5 % 128);
    }
    return k;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static float f16_bits_value(uint16_t h)
{
    _Float16 v;
    memcpy(&v, &h, 2);
    return (float)v;
}

static void put(void *base, kf_dtype dtype, int64_t i, double v)
{
    const float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    switch (dtype) {
    case KF_DTYPE_f32:
        ((float *)base)[i] = f;
        break;
    case KF_DTYPE_bf16:
        ((uint16_t *)base)[i] = (uint16_t)(bits >> 16);
        break;
    case KF_DTYPE_f16:
        ((_Float16 *)base)[i] = (_Float16)f;
        break;
    case KF_DTYPE_i32:
        ((int32_t *)base)[i] = (int32_t)v;
        break;
    default:
        ((uint8_t *)base)[i] = v != 0;
        break;
    }
}

static double get(const void *base, kf_dtype dtype, int64_t i)
{
    switch (dtype) {
    case KF_DTYPE_f32:
        return ((const float *)base)[i];
    case KF_DTYPE_bf16: {
        const uint32_t bits = (uint32_t)((const uint16_t *)base)[i] << 16;
        float f;
        memcpy(&f, &bits, 4);
        return f;
    }
    case KF_DTYPE_f16:
        return f16_bits_value(((const uint16_t *)base)[i]);
    case KF_DTYPE_i32:
        return ((const int32_t *)base)[i];
    default:
        return ((const uint8_t *)base)[i];
    }
}

static void *guarded(kf_case *c, int64_t bytes)
{
    char *p = kf_arena_alloc(c->arena, (size_t)bytes + 2 * GUARD, 64);
    memset(p, 0xff, (size_t)bytes + 2 * GUARD); /* NaN in every float format */
    return p + GUARD;
}

static void check_guard(const void *p, int64_t bytes, uint32_t i)
{
    const uint8_t *at = p;
    for (int64_t g = 1; g <= GUARD; g++)
        if (at[-g] != 0xff || at[bytes + g - 1] != 0xff)
            fail_msg("operand %u is written outside its bounds", i);
}

/* ---- caches ---------------------------------------------------------------------------------- */

typedef struct cache {
    const kf_type *type;
    char *base; /* of the layer */
    int64_t page_bytes;
    kf_tensor tensor; /* the evaluator's */
} cache;

static int64_t cache_at(const cache *k, bool value, int64_t head, int64_t d, int64_t slot)
{
    const int64_t g = k->type->kv_heads, n = k->type->kv_head_dim, page = k->type->kv_page;
    return value ? g * n * page + (head * page + slot) * n + d : (head * n + d) * page + slot;
}

static char *cache_page(const cache *k, int64_t seq, int64_t pos)
{
    const int64_t id = (seq * 16 + pos / k->type->kv_page) * 5 % 128;
    return k->base + id * LAYERS * k->page_bytes;
}

static bool appends(const kf_case *c)
{
    for (uint32_t i = 0; i < c->body->results.len; i++)
        if (kf_value_type(c->body, c->body->results.data[i])->kind == KF_TYPE_KVCACHE)
            return true;
    return false;
}

/* Fills the rows of each sequence at random on both sides, or compares them. The rows of this call
 * are the kernel's to fill, if it appends. */
static void cache_rows(kf_case *c, cache *k, bool compare)
{
    uint64_t state = c->seed + 77;
    for (int64_t s = 0; s < c->sym[KF_SYM_S]; s++) {
        const int64_t total = c->past[s] + first_row(c, s + 1) - first_row(c, s);
        for (int64_t pos = 0; pos < (compare || !appends(c) ? total : c->past[s]); pos++)
            for (int value = 0; value < 2; value++) {
                double *row = kf_eval_kv_row(&k->tensor, value, 0, (uint32_t)s, pos);
                for (int64_t i = 0; i < (int64_t)k->type->kv_heads * k->type->kv_head_dim; i++) {
                    char *page = cache_page(k, s, pos);
                    const int64_t at = cache_at(k, value, i / k->type->kv_head_dim,
                                                i % k->type->kv_head_dim, pos % k->type->kv_page);
                    if (compare) {
                        const double got = get(page, k->type->dtype, at);
                        const double tol = k->type->dtype == KF_DTYPE_f32 ? c->rtol : 0.008;
                        if (!(fabs(got - row[i]) <= c->atol + tol * fabs(row[i])))
                            fail_msg("cache row %d of sequence %d, element %d: %g, want %g",
                                     (int)pos, (int)s, (int)i, got, row[i]);
                    } else {
                        const double v =
                            (double)(int64_t)(random_u64(&state) % 4001) / 2000.0 - 1.0;
                        row[i] = kf_round_to(k->type->dtype, v);
                        put(page, k->type->dtype, at, row[i]);
                    }
                }
            }
    }
}

static cache make_cache(kf_case *c, const kf_type *type)
{
    cache k = {.type = type, .page_bytes = kf_kvcache_page_bytes(type)};
    k.tensor = kf_tensor_new_kv(c->arena, type, KF_EVAL_ROUNDED, 8, 1024);
    k.base = guarded(c, 128 * LAYERS * k.page_bytes);
    k.base += LAYER * k.page_bytes;
    cache_rows(c, &k, false);
    return k;
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct run {
    kf_kernel kernel;
    kf_kernel_fn fn;
    kf_kernel_library *lib;
    void *ptr[CASE_MAX_ARGS + 2]; /* then what tiles share */
    kf_tensor arg[CASE_MAX_ARGS], want[KF_MAX_RESULTS];
    cache caches[2];
    uint32_t n_caches;
} run;

static void fill_arg(kf_case *c, run *r, uint32_t i)
{
    const kf_type *t = kf_value_type(c->body, c->body->args.data[i]);
    if (t->kind == KF_TYPE_KVCACHE) {
        cache *k = &r->caches[r->n_caches++];
        *k = make_cache(c, t);
        r->arg[i] = k->tensor;
        r->ptr[i] = k->base;
        return;
    }
    int64_t dims[KF_MAX_RANK];
    for (uint32_t d = 0; d < t->rank; d++)
        dims[d] = kf_dim_value(t->dim[d], c->sym);
    r->arg[i] = kf_tensor_new(c->arena, t->rank, dims);
    const int64_t bytes = kf_type_stored_elems(t, c->sym) * kf_dtype_infos[t->dtype].bytes;
    r->ptr[i] = guarded(c, bytes);
    if (t->layout.n_splits)
        memset(r->ptr[i], 0, (size_t)bytes);
    uint64_t state = c->seed * 1000 + i;
    for (int64_t j = 0; j < r->arg[i].n; j++) {
        double v = (double)(int64_t)(random_u64(&state) % 4001) / 2000.0 - 1.0;
        v = kf_round_to(t->dtype, c->given[i] ? c->given[i][j] : v);
        r->arg[i].data[j] = v;
        const int64_t index[2] = {t->rank > 1 ? j / dims[1] : j, t->rank > 1 ? j % dims[1] : 0};
        put(r->ptr[i], t->dtype, t->layout.n_splits ? kf_layout_offset(t, index) : j, v);
    }
}

static void emit(kf_case *c, run *r, kf_family family)
{
    kf_sbuf why = {.arena = c->arena};
    kf_str error = {0};
    kf_cpu_arch arch;
    const kf_target *t = kf_target_cpu(c->arena, c->arch);
    assert_true(kf_cpu_arch_find(c->arch, &arch));
    if (!t->match(t, family, c->body, &why))
        fail_msg("the body does not match: %s", why.ptr ? why.ptr : "");
    for (uint32_t i = 0; i < c->body->args.len; i++)
        c->body->values.data[c->body->args.data[i]].type.kv_layers *= LAYERS;
    r->kernel = (kf_kernel){.name = KF_STR("k0"), .family = family, .body = c->body};
    r->kernel.shape = t->configure(t, family, c->body, 1, c->rows_hi ? c->rows_hi : 512);
    kf_llvm_options options = {.arch = arch, .verify_each = true, .sanitize = SANITIZED};
    kf_llvm *ll = kf_llvm_create(c->arena, "case", &options, &error);
    assert_non_null(ll);
    assert_true(kf_kernel_emit(ll, c->arena, t, NULL, &r->kernel, &why));
    kf_llvm_optimize(ll);
    if (c->keep_text)
        c->text = kf_llvm_print(ll, c->arena).ptr;
    r->lib = kf_kernel_library_open(c->arena, kf_llvm_emit_object(ll, c->arena), &error);
    if (!r->lib)
        fail_msg("the kernel does not link: %.*s", KF_STR_ARG(error));
    r->fn = kf_kernel_library_find(r->lib, "k0");
    kf_llvm_destroy(ll);
    for (uint32_t i = 0; i < c->body->args.len; i++)
        c->body->values.data[c->body->args.data[i]].type.kv_layers /= LAYERS;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run_tiles(kf_case *c, run *r)
{
    const int64_t tiles = kf_tile_count(&r->kernel.shape.tiles, c->sym),
                  scratch = r->kernel.shape.scratch_bytes;
    void *s = guarded(c, scratch);
    const int64_t cells = r->kernel.shape.cells * 4, shared = r->kernel.shape.shared_bytes;
    const uint32_t n_ptrs = c->body->args.len + c->body->results.len;
    r->ptr[n_ptrs] = guarded(c, cells);
    r->ptr[n_ptrs + 1] = guarded(c, shared);
    memset(r->ptr[n_ptrs], 0, (size_t)cells);
    const kf_kernel_args args = {r->ptr, c->sym};
    c->seconds = INFINITY;
    for (uint32_t i = 0; i < c->repeat; i++) {
        const double start = now();
        for (int64_t t = 0; t < tiles; t++) /* 7 and 1: an order that is not ascending, each once */
            r->fn(&args, (uint32_t)(tiles % 7 ? (t * 7 + 3) % tiles : tiles - 1 - t), s);
        const double took = now() - start;
        c->seconds = took < c->seconds ? took : c->seconds;
    }
    check_guard(s, scratch, 99);
    check_guard(r->ptr[n_ptrs], cells, n_ptrs);
    check_guard(r->ptr[n_ptrs + 1], shared, n_ptrs + 1);
    for (int64_t i = 0; i < cells; i++)
        if (((const char *)r->ptr[n_ptrs])[i])
            fail_msg("a counter is left at another number than 0");
}

static void compare(kf_case *c, run *r, uint32_t i)
{
    const kf_type *t = kf_value_type(c->body, c->body->results.data[i]);
    const double tol = t->dtype == KF_DTYPE_bf16  ? 0.008
                       : t->dtype == KF_DTYPE_f16 ? 0.001
                                                  : c->rtol;
    c->result[i] = r->ptr[c->body->args.len + i];
    for (int64_t j = 0; j < r->want[i].n; j++) {
        const double got = get(c->result[i], t->dtype, j), want = r->want[i].data[j];
        const bool same = got == want || (isnan(got) && isnan(want));
        if (!same && !(fabs(got - want) <= c->atol + tol * fabs(want)))
            fail_msg("result %u element %d of %d: %.9g, want %.9g", i, (int)j, (int)r->want[i].n,
                     got, want);
    }
}

/* The worst row of result |i|. */
static void compare_rows(const kf_case *c, const run *r, uint32_t i)
{
    const kf_tensor *want = &r->want[i];
    const int64_t rows = want->dim[0], n = want->n / rows;
    const kf_dtype dtype = kf_value_type(c->body, c->body->results.data[i])->dtype;
    for (int64_t row = 0; row < rows; row++) {
        double error = 0, squares = 0;
        for (int64_t j = row * n; j < (row + 1) * n; j++) {
            const double d = get(c->result[i], dtype, j) - want->data[j];
            error += d * d;
            squares += want->data[j] * want->data[j];
        }
        if (!(error <= c->nmse * squares))
            fail_msg("result %u row %d: NMSE %.3g", i, (int)row, error / squares);
    }
}

void kf_case_run(kf_case *c, kf_family family)
{
    run r = {0};
    kf_sbuf why = {.arena = c->arena};
    int64_t bytes[CASE_MAX_ARGS] = {0};
    const uint32_t n_args = c->body->args.len;
    for (uint32_t i = 0; i < n_args; i++)
        fill_arg(c, &r, i);
    for (uint32_t i = 0; i < c->body->results.len; i++) {
        const kf_type *t = kf_value_type(c->body, c->body->results.data[i]);
        bytes[i] = t->kind == KF_TYPE_TENSOR
                       ? kf_type_elems(t, c->sym) * kf_dtype_infos[t->dtype].bytes
                       : 0;
        r.ptr[n_args + i] = t->kind == KF_TYPE_TENSOR ? guarded(c, bytes[i]) : NULL;
    }
    for (uint32_t i = 0; i < c->body->results.len; i++)
        if (c->over[i])
            r.ptr[n_args + i] = r.ptr[c->over[i] - 1];
    if (!kf_eval_graph(c->arena, c->body, KF_EVAL_ROUNDED, c->sym, r.arg, NULL, r.want, &why))
        fail_msg("the evaluator refuses: %s", why.ptr);
    emit(c, &r, family);
    run_tiles(c, &r);
    for (uint32_t i = 0; i < c->body->results.len; i++)
        if (r.ptr[n_args + i]) {
            check_guard(r.ptr[n_args + i], bytes[i], n_args + i);
            compare(c, &r, i);
            if (c->nmse > 0)
                compare_rows(c, &r, i);
        }
    for (uint32_t i = 0; i < r.n_caches; i++)
        cache_rows(c, &r.caches[i], true);
    kf_kernel_library_close(r.lib);
}

void kf_case_refused(kf_case *c, kf_family family, const char *needle)
{
    kf_sbuf why = {.arena = c->arena};
    const kf_target *t = kf_target_cpu(c->arena, c->arch);
    assert_false(t->match(t, family, c->body, &why));
    assert_non_null(why.ptr);
    if (!strstr(why.ptr, needle))
        fail_msg("'%s' does not say '%s'", why.ptr, needle);
}

kf_kernel_shape kf_case_shape(kf_case *c, kf_family family)
{
    const kf_target *t = kf_target_cpu(c->arena, c->arch);
    return t->configure(t, family, c->body, 1, c->rows_hi ? c->rows_hi : 512);
}

bool kf_case_emits(kf_case *c, kf_family family, const kf_config *config, kf_sbuf *why)
{
    kf_cpu_arch arch;
    kf_str error;
    assert_true(kf_cpu_arch_find(c->arch, &arch));
    const kf_target *t = kf_target_cpu(c->arena, c->arch);
    const kf_llvm_options options = {.arch = arch};
    kf_llvm *ll = kf_llvm_create(c->arena, "case", &options, &error);
    kf_kernel k = {.name = KF_STR("k0"), .family = family, .body = c->body};
    k.shape = kf_case_shape(c, family);
    k.shape.config = *config;
    const bool ok = kf_kernel_emit(ll, c->arena, t, NULL, &k, why);
    kf_llvm_destroy(ll);
    return ok;
}
