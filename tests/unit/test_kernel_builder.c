/* SPDX-License-Identifier: Apache-2.0 */
/* The kb_ verbs run: conversions over every bit pattern, control flow, reductions in their documented order; and the backend's promises: same bytes,
 * working address sanitizer pass.
 */
#include "codegen/cpu/kernel_builder.h"
#include "codegen/cpu/kernel_loader.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

typedef void (*emit_fn)(kb *b);

static kf_str compile(kf_arena *arena, emit_fn emit, bool sanitize, bool text)
{
    kf_llvm_options options = {.verify_each = true, .sanitize = sanitize};
    kf_str error = {0};
    assert_true(kf_cpu_arch_find("x86-64-v3", &options.arch));
    kf_llvm *ll = kf_llvm_create(arena, "test", &options, &error);
    assert_non_null(ll);
    kb *b = kb_create(arena, ll);
    kb_begin_kernel(b, "k");
    emit(b);
    kb_end_kernel(b);
    kf_llvm_optimize(ll);
    kf_str out = text ? kf_llvm_print(ll, arena) : kf_llvm_emit_object(ll, arena);
    kb_destroy(b);
    kf_llvm_destroy(ll);
    return out;
}

/* Compiles what |emit| emits and runs tile |tile| of it once. */
static void run(emit_fn emit, uint32_t tile, void **ptr, const int64_t *dim, void *scratch)
{
    kf_arena *arena = kf_arena_create("test");
    kf_str error = {0};
    kf_kernel_library *lib =
        kf_kernel_library_open(arena, compile(arena, emit, false, false), &error);
    assert_non_null(lib);
    assert_null(kf_kernel_library_find(lib, "absent"));
    const kf_kernel_args args = {ptr, dim};
    kf_kernel_library_find(lib, "k")(&args, tile, scratch);
    kf_kernel_library_close(lib);
    kf_arena_destroy(arena);
}

/* ---- conversions ------------------------------------------------------------------------------
 */

static void emit_to_bf16(kb *b)
{
    kb_loop l;
    kb_loop_begin(b, &l, kb_i64(b, 0), kb_dim(b, 0), 8, 0, NULL);
    kb_value v = kb_load_f32(b, KB_F32, 8, kb_index(b, kb_ptr(b, 0), KB_F32, l.iv), 4);
    kb_store_f32(b, KB_BF16, v, kb_index(b, kb_ptr(b, 1), KB_BF16, l.iv), 2);
    kb_loop_end(b, &l, NULL);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const struct {
        uint32_t in;
        uint16_t out;
    } cases[8] = {
        {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, /* tie to even: down */
        {0x3f818000, 0x3f82},                       /* tie to even: up */
        {0x3f808001, 0x3f81}, {0x7f7fffff, 0x7f80}, /* the largest float rounds to infinity */
        {0x7f800001, 0x7fc0},                       /* a NaN whose payload is all in the low half */
        {0xff800000, 0xff80}, {0x00000001, 0x0000},
    };
    uint32_t in[8];
    uint16_t out[8];
    const int64_t n = 8;
    for (int i = 0; i < 8; i++)
        in[i] = cases[i].in;
    void *ptr[] = {in, out};
    run(emit_to_bf16, 0, ptr, &n, NULL);
    for (int i = 0; i < 8; i++)
        assert_int_equal(out[i], cases[i].out);
}

static void emit_halves(kb *b)
{
    kb_loop l;
    kb_loop_begin(b, &l, kb_i64(b, 0), kb_dim(b, 0), 8, 0, NULL);
    kb_value h = kb_load_f32(b, KB_F16, 8, kb_index(b, kb_ptr(b, 0), KB_F16, l.iv), 2);
    kb_store_f32(b, KB_F16, h, kb_index(b, kb_ptr(b, 1), KB_F16, l.iv), 2);
    kb_value f = kb_load_f32(b, KB_BF16, 8, kb_index(b, kb_ptr(b, 0), KB_BF16, l.iv), 2);
    kb_store_f32(b, KB_F32, f, kb_index(b, kb_ptr(b, 2), KB_F32, l.iv), 4);
    kb_loop_end(b, &l, NULL);
}

static void every_half_survives(void **state)
{
    (void)state;
    enum { N = 65536 };
    uint16_t *in = malloc(N * 2), *out = malloc(N * 2);
    uint32_t *wide = malloc(N * 4);
    const int64_t n = N;
    for (uint32_t i = 0; i < N; i++)
        in[i] = (uint16_t)i;
    void *ptr[] = {in, out, wide};
    run(emit_halves, 0, ptr, &n, NULL);
    for (uint32_t i = 0; i < N; i++) {
        const bool nan = (i & 0x7c00) == 0x7c00 && (i & 0x3ff) != 0;
        if (nan) /* stays a NaN; whether it turns quiet is the optimiser's choice */
            assert_int_equal(out[i] | 0x200, i | 0x200);
        else
            assert_int_equal(out[i], i);
        assert_int_equal(wide[i], i << 16);
    }
    free(in), free(out), free(wide);
}

/* ---- control --------------------------------------------------------------------------------- */

/* out[0] = sum of i in [0, n); out[1] by the switch, out[2] by the branch. */
static void emit_control(kb *b)
{
    kb_loop l;
    kb_switch sw;
    kb_value zero = kb_i64(b, 0);
    kb_loop_begin(b, &l, zero, kb_dim(b, 0), 1, 1, &zero);
    kb_value next = kb_add(b, l.carried[0], l.iv);
    kb_loop_end(b, &l, &next);
    kb_store(b, l.carried[0], kb_ptr(b, 0), 8);
    kb_switch_begin(b, &sw, kb_tile(b), 3);
    for (int64_t i = 1; i <= 3; i++) {
        kb_switch_case(b, &sw, i);
        kb_store(b, kb_i64(b, 10 * i), kb_offset_c(b, kb_ptr(b, 0), 8), 8);
    }
    kb_switch_end(b, &sw);
    kb_if only;
    kb_if_begin(b, &only, kb_icmp(b, KB_GT, kb_tile(b), kb_i64(b, 1)));
    kb_store(b, kb_tile(b), kb_offset_c(b, kb_ptr(b, 0), 16), 8);
    kb_if_end(b, &only);
}

static void loops_branches_and_switches(void **state)
{
    (void)state;
    static const int64_t want[][3] = {{0, 10, -1}, {6, 20, 2}, {45, 30, 3}};
    static const int64_t n[] = {0, 4, 10};
    for (uint32_t i = 0; i < 3; i++) {
        int64_t out[3] = {-1, -1, -1};
        void *ptr[] = {out};
        run(emit_control, i + 1, ptr, &n[i], NULL);
        assert_int_equal(out[0], want[i][0]);
        assert_int_equal(out[1], want[i][1]);
        assert_int_equal(out[2], want[i][2]);
    }
}

static void emit_reductions(kb *b)
{
    kb_value v = kb_load(b, KB_F32, 8, kb_ptr(b, 0), 4);
    kb_store(b, kb_reduce_fadd(b, v), kb_ptr(b, 1), 4);
    kb_store(b, kb_reduce_fmax(b, v), kb_offset_c(b, kb_ptr(b, 1), 4), 4);
    kb_value x = kb_extract(b, v, 1), y = kb_extract(b, v, 2);
    kb_store(b, kb_fmul(b, x, y), kb_scratch(b), 4);
    kb_value product = kb_load(b, KB_F32, 1, kb_scratch(b), 4);
    kb_store(b, kb_fadd(b, product, kb_extract(b, v, 3)), kb_offset_c(b, kb_ptr(b, 1), 8), 4);
    kb_store(b, kb_fma(b, x, y, kb_extract(b, v, 3)), kb_offset_c(b, kb_ptr(b, 1), 12), 4);
}

static void sums_have_one_order(void **state)
{
    (void)state;
    const float v[8] = {1e8f, 1.0001f, 1.0003f, -1.0004f, -1e8f, 3.25f, 1e-3f, 7.0f};
    float out[4];
    _Alignas(64) float scratch[16];
    void *ptr[] = {(void *)v, out};
    run(emit_reductions, 0, ptr, NULL, scratch);
    float half[4];
    for (int i = 0; i < 4; i++)
        half[i] = v[i] + v[i + 4];
    const float want = (half[0] + half[2]) + (half[1] + half[3]);
    assert_true(out[0] == want);
    assert_true(out[1] == 1e8f);
    /* a product and a sum are never fused behind the emitter's back, and kb_fma always is */
    const volatile float product = v[1] * v[2];
    assert_true(out[2] == product + v[3]);
    assert_true(out[3] == fmaf(v[1], v[2], v[3]));
    assert_true(out[2] != out[3]);
}

/* ---- the backend ----------------------------------------------------------------------------- */

static void objects_are_reproducible(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    const kf_str x = compile(arena, emit_control, false, false);
    const kf_str y = compile(arena, emit_control, false, false);
    assert_true(kf_str_eq(x, y));
    kf_arena_destroy(arena);
}

static void sanitized_kernels_check_their_accesses(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    const kf_str plain = compile(arena, emit_to_bf16, false, true);
    const kf_str checked = compile(arena, emit_to_bf16, true, true);
    assert_null(strstr(plain.ptr, "__asan_report"));
    assert_non_null(strstr(checked.ptr, "sanitize_address"));
    assert_non_null(strstr(checked.ptr, "__asan_report"));
    kf_arena_destroy(arena);
}

static void unknown_archs_are_not_found(void **state)
{
    (void)state;
    kf_cpu_arch arch;
    assert_false(kf_cpu_arch_find("pentium4", &arch));
    assert_false(kf_cpu_arch_find("", &arch));
    assert_true(kf_cpu_arch_find("znver4", &arch));
    assert_int_equal(arch.lanes, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(every_half_survives),
        cmocka_unit_test(loops_branches_and_switches),
        cmocka_unit_test(sums_have_one_order),
        cmocka_unit_test(objects_are_reproducible),
        cmocka_unit_test(sanitized_kernels_check_their_accesses),
        cmocka_unit_test(unknown_archs_are_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
