/* SPDX-License-Identifier: Apache-2.0 */
/* Matmul tile kernels: against sums in f64, and bit for bit against each other.
 *
 * The law under test: the result of a row depends on nothing but the row and W. So every form,
 * tiling, vector width and number of rows must give the same bits, and outputs beyond n or rows are
 * not touched.
 */
#include "bench/matmul_case.h"
#include "codegen/cpu/kernel_loader.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GUARD 77.0f

typedef struct problem {
    uint32_t n, k, rows;
    kf_matmul_weight weight;
    bool staged; /* A times a column scale, through the prologue */
    float *a, *gamma, *c;
    uint16_t *w16;
    float *w32;
    void *packed;
} problem;

static void *aligned(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    assert_non_null(p);
    return p;
}

static void make(problem *p)
{
    uint32_t seed = p->n * 31 + p->k;
    const size_t nk = (size_t)p->n * p->k;
    p->a = aligned((size_t)p->rows * p->k * 4);
    p->gamma = aligned((size_t)p->k * 4);
    p->c = aligned((size_t)(p->rows + 1) * p->n * 4);
    p->w16 = aligned(nk * 2);
    p->w32 = aligned(nk * 4);
    p->packed = aligned(matmul_case_bytes(p->weight, p->n, p->k));
    for (size_t i = 0; i < (size_t)p->rows * p->k; i++)
        p->a[i] = matmul_case_random(&seed);
    for (uint32_t i = 0; i < p->k; i++)
        p->gamma[i] = 1 + 0.3f * matmul_case_random(&seed);
    for (size_t i = 0; i < nk; i++) {
        const float f = matmul_case_random(&seed);
        const _Float16 half = (_Float16)f;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        p->w32[i] = p->weight == KF_WEIGHT_F16 ? (float)half : f;
        p->w16[i] = (uint16_t)(bits >> 16);
        bits &= 0xffff0000u;
        if (p->weight == KF_WEIGHT_F16)
            memcpy(&p->w16[i], &half, 2);
        else if (p->weight == KF_WEIGHT_BF16)
            memcpy(&p->w32[i], &bits, 4);
    }
    const void *src = p->weight == KF_WEIGHT_F32 ? (const void *)p->w32 : (const void *)p->w16;
    matmul_case_pack(p->weight, p->n, p->k, src, p->packed);
}

static void drop(problem *p)
{
    free(p->a), free(p->gamma), free(p->c), free(p->w16), free(p->w32), free(p->packed);
}

/* Compiles |cfg| for |arch| and runs it over the problem; C's guard row must survive. */
static void run(problem *p, const kf_matmul_config *cfg, const char *arch)
{
    kf_arena *arena = kf_arena_create("test");
    kf_llvm_options options = {.verify_each = true};
    kf_str error = {0};
    const char *why = NULL;
    assert_true(kf_cpu_arch_find(arch, &options.arch));
    if (!kf_matmul_config_ok(cfg, options.arch.regs, &why))
        fail_msg("%s", why);
    kf_llvm *ll = kf_llvm_create(arena, "matmul", &options, &error);
    kb *b = kb_create(arena, ll);
    matmul_case_emit(b, cfg, p->staged);
    kf_llvm_optimize(ll);
    kf_kernel_library *lib = kf_kernel_library_open(arena, kf_llvm_emit_object(ll, arena), &error);
    assert_non_null(lib);
    const uint64_t scratch_bytes = kf_matmul_scratch_bytes(cfg);
    void *scratch = aligned(scratch_bytes + 64);
    memset(scratch, 0xff, scratch_bytes + 64); /* NaN: what is not written must not be read */
    for (size_t i = 0; i < (size_t)(p->rows + 1) * p->n; i++)
        p->c[i] = GUARD;
    void *ptr[] = {p->a, p->packed, p->c, p->gamma};
    int64_t dims[KF_DIM_COUNT] = {0};
    dims[KF_DIM_TOKENS] = p->rows;
    const kf_kernel_args args = {ptr, dims};
    for (uint32_t t = matmul_case_tiles(cfg, p->rows); t-- > 0;)
        kf_kernel_library_find(lib, "k")(&args, t, scratch);
    for (uint32_t i = 0; i < p->n; i++)
        assert_true(p->c[(size_t)p->rows * p->n + i] == GUARD);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(((unsigned char *)scratch)[scratch_bytes + i], 0xff);
    free(scratch);
    kf_kernel_library_close(lib);
    kb_destroy(b);
    kf_llvm_destroy(ll);
    kf_arena_destroy(arena);
}

/* One chain of fused multiply-adds over k, as the header promises: equal bits. */
static void check_exact(const problem *p)
{
    for (uint32_t r = 0; r < p->rows; r++) {
        for (uint32_t c = 0; c < p->n; c++) {
            float sum = 0;
            for (uint32_t i = 0; i < p->k; i++) {
                float a = p->a[(size_t)r * p->k + i];
                a = p->staged ? a * p->gamma[i] : a;
                sum = fmaf(a, p->w32[(size_t)c * p->k + i], sum);
            }
            if (p->c[(size_t)r * p->n + c] != sum) {
                print_message("n %u k %u rows %u: c[%u][%u] = %a, want %a\n", p->n, p->k, p->rows,
                              r, c, (double)p->c[(size_t)r * p->n + c], (double)sum);
                fail();
            }
        }
    }
}

static kf_matmul_config configured(const problem *p, uint32_t max_rows, const char *arch)
{
    kf_cpu_arch target;
    assert_true(kf_cpu_arch_find(arch, &target));
    kf_matmul_config cfg = {.n = p->n, .k = p->k, .weight = p->weight, .max_rows = max_rows};
    kf_matmul_configure(&cfg, target.lanes, target.regs);
    return cfg;
}

static void stream_rows_one_to_eight(void **state)
{
    (void)state;
    for (uint32_t weight = 0; weight < 3; weight++) {
        for (uint32_t rows = 1; rows <= 8; rows++) {
            problem p = {.n = 100, .k = 70, .rows = rows, .weight = weight, .staged = rows % 2};
            make(&p);
            kf_matmul_config cfg = configured(&p, rows, "x86-64-v3");
            assert_int_equal(cfg.form, KF_MATMUL_STREAM);
            run(&p, &cfg, "x86-64-v3");
            check_exact(&p);
            cfg = configured(&p, 8, "x86-64-v3"); /* a bucket for up to 8 rows, called with fewer */
            run(&p, &cfg, "x86-64-v3");
            check_exact(&p);
            drop(&p);
        }
    }
}

static void block_row_remainders(void **state)
{
    (void)state;
    static const uint32_t rows[] = {1, 2, 5, 6, 7, 8, 13, 31, 64, 65};
    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        problem p = {.n = 150, .k = 300, .rows = rows[i], .weight = i % 3, .staged = i % 2 == 0};
        make(&p);
        kf_matmul_config cfg = configured(&p, 512, "x86-64-v3");
        assert_int_equal(cfg.form, KF_MATMUL_BLOCK);
        cfg.tile_m = 32;
        cfg.tile_n = 64;
        run(&p, &cfg, "x86-64-v3");
        check_exact(&p);
        drop(&p);
    }
}

static void odd_shapes(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, k;
    } shapes[] = {{1, 1}, {16, 2}, {17, 33}, {5, 257}, {48, 64}, {300, 1}};
    for (uint32_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (uint32_t weight = 0; weight < 3; weight++) {
            for (uint32_t rows = 1; rows <= 20; rows += 19) {
                problem p = {.n = shapes[i].n,
                             .k = shapes[i].k,
                             .rows = rows,
                             .weight = weight,
                             .staged = true};
                make(&p);
                kf_matmul_config cfg = configured(&p, rows, "x86-64-v3");
                run(&p, &cfg, "x86-64-v3");
                check_exact(&p);
                drop(&p);
            }
        }
    }
}

static void wide_vectors(void **state)
{
    (void)state;
    kf_cpu_arch native;
    if (!kf_cpu_arch_find("native", &native) || native.lanes != 16)
        skip();
    for (uint32_t rows = 1; rows <= 40; rows += 13) {
        problem p = {.n = 144, .k = 290, .rows = rows, .weight = KF_WEIGHT_BF16, .staged = true};
        make(&p);
        kf_matmul_config cfg = configured(&p, rows, "native");
        run(&p, &cfg, "native");
        check_exact(&p);
        drop(&p);
    }
}

static void bad_configs_are_refused(void **state)
{
    (void)state;
    const problem p = {.n = 64, .k = 64, .weight = KF_WEIGHT_BF16};
    const char *why = NULL;
    kf_matmul_config cfg = configured(&p, 1, "x86-64-v3");
    assert_true(kf_matmul_config_ok(&cfg, 16, &why));
    cfg.tile_n = 24;
    assert_false(kf_matmul_config_ok(&cfg, 16, &why));
    cfg = configured(&p, 128, "x86-64-v3");
    cfg.mr = 8; /* 8 x 16 sums need every register there is */
    assert_false(kf_matmul_config_ok(&cfg, 16, &why));
    cfg = configured(&p, 128, "x86-64-v3");
    cfg.kc = 24;
    assert_false(kf_matmul_config_ok(&cfg, 16, &why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_rows_one_to_eight),
        cmocka_unit_test(block_row_remainders),
        cmocka_unit_test(odd_shapes),
        cmocka_unit_test(wide_vectors),
        cmocka_unit_test(bad_configs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
