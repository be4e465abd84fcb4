/* SPDX-License-Identifier: Apache-2.0 */
/* vmath against libm in f64: every function over its range, dense and at the edges, vector and
 * scalar path. */
#include "codegen/cpu/kernel_loader.h"
#include "codegen/cpu/vmath.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_POINTS 200000u

static double ref_log1p(double x)
{
    return log1p(x);
}

static double ref_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double ref_rsqrt(double x)
{
    return 1 / sqrt(x);
}

static const struct function {
    const char *name;
    kb_value (*emit)(kb *, kb_value);
    double (*ref)(double);
    float lo, hi; /* dense range; random bit patterns within it as well */
    double max_ulp;
} functions[] = {
    {"exp", kv_exp, exp, -110, 95, 2},
    {"log", kv_log, log, 0, INFINITY, 2},
    {"log1p", kv_log1p, ref_log1p, 0, 1e30f, 2},
    {"tanh", kv_tanh, tanh, -12, 12, 2},
    {"erf", kv_erf, erf, -6, 6, 2},
    {"sin", kv_sin, sin, -1e6f, 1e6f, 2},
    {"cos", kv_cos, cos, -1e6f, 1e6f, 2},
    {"sigmoid", kv_sigmoid, ref_sigmoid, -105, 105, 2.5},
    {"rsqrt", kv_rsqrt, ref_rsqrt, 1e-40f, INFINITY, 2},
};
#define N_FUNCTIONS (sizeof functions / sizeof functions[0])

static kf_arena *arena;
static kf_kernel_library *library;

/* out[i] = f(in[i]) for i in 0 .. dim 0, a multiple of the lanes; |f2| takes in2[i] too. */
static void emit_apply(kb *b, const char *name, uint32_t lanes, kb_value (*f)(kb *, kb_value),
                       kb_value (*f2)(kb *, kb_value, kb_value))
{
    kb_loop l;
    kb_begin_kernel(b, name);
    kb_loop_begin(b, &l, kb_i64(b, 0), kb_dim(b, 0), lanes, 0, NULL);
    kb_value x = kb_load(b, KB_F32, lanes, kb_index(b, kb_ptr(b, 0), KB_F32, l.iv), 4);
    kb_value y =
        f ? f(b, x)
          : f2(b, x, kb_load(b, KB_F32, lanes, kb_index(b, kb_ptr(b, 2), KB_F32, l.iv), 4));
    kb_store(b, y, kb_index(b, kb_ptr(b, 1), KB_F32, l.iv), 4);
    kb_loop_end(b, &l, NULL);
    kb_end_kernel(b);
}

static int setup(void **state)
{
    (void)state;
    arena = kf_arena_create("test");
    kf_llvm_options options = {.verify_each = true};
    kf_str error = {0};
    assert_true(kf_cpu_arch_find("x86-64-v3", &options.arch));
    kf_llvm *ll = kf_llvm_create(arena, "vmath", &options, &error);
    kb *b = kb_create(arena, ll);
    for (size_t i = 0; i < N_FUNCTIONS; i++) {
        emit_apply(b, functions[i].name, 8, functions[i].emit, NULL);
        emit_apply(b, kf_strf(arena, "%s_1", functions[i].name).ptr, 1, functions[i].emit, NULL);
    }
    emit_apply(b, "pow", 8, NULL, kv_pow);
    kf_llvm_optimize(ll);
    library = kf_kernel_library_open(arena, kf_llvm_emit_object(ll, arena), &error);
    if (!library)
        fprintf(stderr, "%s\n", error.ptr);
    kb_destroy(b);
    kf_llvm_destroy(ll);
    return library ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    kf_kernel_library_close(library);
    kf_arena_destroy(arena);
    return 0;
}

static void apply(const char *name, const float *x, float *y, const float *x2, int64_t n)
{
    void *ptr[] = {(void *)x, y, (void *)x2};
    const kf_kernel_args args = {ptr, &n};
    kf_kernel_fn fn = kf_kernel_library_find(library, name);
    assert_non_null(fn);
    fn(&args, 0, NULL);
}

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static uint32_t next_random(uint32_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

/* Half the points evenly over [lo, hi], half random bit patterns that fall into it. */
static void fill(const struct function *f, float *x)
{
    uint32_t seed = 1, n = 0;
    const float top = isinf(f->hi) ? 1000.0f : f->hi;
    for (; n < N_POINTS / 2; n++)
        x[n] = f->lo + (top - f->lo) * ((float)n / (N_POINTS / 2));
    while (n < N_POINTS) {
        const float v = from_bits(next_random(&seed));
        if (v >= f->lo && v <= f->hi)
            x[n++] = v;
    }
}

static double ulp_error(float got, double want)
{
    const float w = (float)want;
    if (isinf(w) || isinf(got))
        return got == w ? 0 : INFINITY;
    int e = -125;
    if (want != 0)
        frexp(want, &e);
    const double ulp = ldexp(1, (e < -125 ? -125 : e) - 24);
    return fabs((double)got - want) / ulp;
}

static void check_accuracy(void **state)
{
    (void)state;
    float *x = malloc(N_POINTS * sizeof *x), *y = malloc(N_POINTS * sizeof *y);
    float *y1 = malloc(N_POINTS * sizeof *y1);
    for (size_t i = 0; i < N_FUNCTIONS; i++) {
        const struct function *f = &functions[i];
        double worst = 0;
        float where = 0;
        fill(f, x);
        apply(f->name, x, y, NULL, N_POINTS);
        apply(kf_strf(arena, "%s_1", f->name).ptr, x, y1, NULL, N_POINTS);
        assert_memory_equal(y, y1, N_POINTS * sizeof *y);
        for (uint32_t k = 0; k < N_POINTS; k++) {
            const double e = ulp_error(y[k], f->ref(x[k]));
            if (!(e <= worst)) {
                worst = e;
                where = x[k];
            }
        }
        printf("%-8s worst error %.2f ulp at %a\n", f->name, worst, (double)where);
        assert_true(worst <= f->max_ulp);
    }
    free(x), free(y), free(y1);
}

static void check_edges(void **state)
{
    (void)state;
    const float edges[8] = {0.0f, -0.0f,     INFINITY,        -INFINITY,
                            NAN,  0x1p-149f, 0x1.fffffep127f, -0x1.fffffep127f};
    for (size_t i = 0; i < N_FUNCTIONS; i++) {
        const struct function *f = &functions[i];
        float y[8];
        apply(f->name, edges, y, NULL, 8);
        for (int k = 0; k < 8; k++) {
            const double want = f->ref(edges[k]);
            const bool periodic = f->emit == kv_sin || f->emit == kv_cos;
            if (periodic && fabs((double)edges[k]) > 0x1p40 && !isinf(edges[k]))
                continue; /* beyond the documented range */
            if (f->emit == kv_log1p && edges[k] < 0)
                continue;
            if (isnan(want)) {
                assert_true(isnan(y[k]));
            } else if (!(ulp_error(y[k], want) <= 2)) {
                printf("%s(%a) = %a, want %a\n", f->name, (double)edges[k], (double)y[k], want);
                fail();
            }
        }
    }
}

static void check_pow(void **state)
{
    (void)state;
    enum { N = 100000 };
    float *x = malloc(N * sizeof *x), *p = malloc(N * sizeof *p), *y = malloc(N * sizeof *y);
    static const float special[] = {0,    -0.0f, 1,      -1,       2,         -2,  3,
                                    0.5f, -0.5f, 1e-40f, INFINITY, -INFINITY, NAN, -3};
    enum { S = sizeof special / sizeof special[0] };
    uint32_t seed = 7;
    for (uint32_t i = 0; i < N; i++) {
        x[i] = i < S * S ? special[i / S] : from_bits(next_random(&seed) & 0x7fffffff);
        p[i] = i < S * S ? special[i % S] : (float)(int32_t)next_random(&seed) * 0x1p-27f;
    }
    apply("pow", x, y, p, N);
    for (uint32_t i = 0; i < N; i++) {
        const double want = pow(x[i], p[i]);
        const bool ok = isnan(want) ? isnan(y[i]) : ulp_error(y[i], want) <= 1;
        if (!ok) {
            printf("pow(%a, %a) = %a, want %a\n", (double)x[i], (double)p[i], (double)y[i], want);
            fail();
        }
    }
    free(x), free(p), free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_accuracy),
        cmocka_unit_test(check_edges),
        cmocka_unit_test(check_pow),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
