/* SPDX-License-Identifier: Apache-2.0 */
/* What a mask says about the keys that a row can see: never too few, and for the usual masks
 * exactly those. */
#include "ir/mask_bounds.h"
#include "ir/slot_text.h"
#include "tests/unit/support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { HEADS = 4, POSITIONS = 200 };

static const kf_slot *mask_of(kf_arena *arena, const char *body)
{
    kf_lexer lx;
    kf_diags *d = kf_diags_create(arena);
    kf_lex_start(&lx, arena, d, KF_STR("mask"), kf_strf(arena, "(h, q, k | 1) { %s }", body));
    const kf_slot *s = kf_slot_read(&lx);
    if (!s)
        fail_msg("'%s': %s", body, kf_diags_first(d)->message.ptr);
    return s;
}

/* $0[i]: a few numbers and one that is none. */
static double table(void *user, uint32_t capture, const double *index, uint8_t n)
{
    static const double v[] = {17, 40.5, 0, 3};
    (void)user, (void)capture;
    assert_int_equal(n, 1);
    return index[0] >= 0 && index[0] < 4 ? v[(int)index[0]] : NAN;
}

/* The bound as the kernel reads it. */
static double bound_of(const kf_slot *s, double h, double q, double otherwise)
{
    const double x = s ? kf_slot_eval(s, (double[]){h, q}, table, NULL) : otherwise;
    return isnan(x) ? otherwise : fmin(fmax(x, 0), POSITIONS);
}

/* Keys between the bounds that are not visible, summed over heads and rows. */
static int64_t check_bounds(const kf_slot *mask, const kf_mask_bounds *b, const char *text)
{
    int64_t idle = 0;
    for (int h = 0; h < HEADS; h++)
        for (int q = 0; q < POSITIONS; q += 7) {
            const double lo = bound_of(b->lo, h, q, 0), hi = bound_of(b->hi, h, q, POSITIONS);
            for (int k = 0; k < POSITIONS; k++) {
                const bool seen = kf_slot_eval(mask, (double[]){h, q, k}, table, NULL) != 0;
                const bool inside = k >= lo && k < hi;
                if (seen && !inside)
                    fail_msg("%s: row %d of head %d sees key %d, outside %g..%g", text, q, h, k, lo,
                             hi);
                if (b->exact && seen != inside)
                    fail_msg("%s: row %d of head %d does not see key %d", text, q, h, k);
                idle += inside && !seen;
            }
        }
    return idle;
}

/* Every spelling of a window is understood. |idle|: keys looked at in vain, for each row at most.
 */
static void usual_masks(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool exact;
        int idle;
    } rows[] = {
        {"le(k, q)", true, 0},
        {"ge(q, k)", true, 0},
        {"not(gt(k, q))", true, 0},
        {"ge(sub(q, k), 0)", true, 0},
        {"and(le(k, q), lt(sub(q, k), 40))", true, 0},
        {"and(ge(q, k), lt(sub(q, 8), k))", true, 0},
        {"and(le(k, q), gt(add(k, 40), q))", true, 0},
        {"lt(abs(sub(q, k)), 12)", true, 0},
        {"le(abs(sub(k, q)), 11)", true, 0},
        {"lt(max(sub(k, q), sub(q, k)), 12)", true, 0},
        {"and(lt(sub(k, q), 5), gt(sub(k, q), neg(9)))", true, 0},
        {"or(le(k, q), lt(k, 16))", true, 0},
        {"le(k, max(q, 15))", true, 0},
        {"eq(k, q)", true, 0},
        {"and(le(k, q), or(lt(h, 2), lt(sub(q, k), 30)))", true, 0},
        {"or(and(lt(h, 2), le(k, q)), and(ge(h, 2), lt(abs(sub(q, k)), 9)))", false, 0},
        {"and(le(k, q), lt(sub(q, k), $0[h]))", false, 2},
        {"le(k, mul(q, 0.5))", false, 1},
        {"eq(floor(div(k, 16)), floor(div(q, 16)))", false, 3},
        {"le(mul(floor(div(k, 8)), 8), q)", false, 8},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kf_arena *arena = kf_arena_create("test");
        const kf_slot *mask = mask_of(arena, rows[i].text);
        const kf_mask_bounds b = kf_mask_bounds_of(arena, mask);
        const int64_t idle = check_bounds(mask, &b, rows[i].text);
        const int64_t pairs = HEADS * ((POSITIONS + 6) / 7);
        if (b.exact != rows[i].exact || idle > rows[i].idle * pairs)
            fail_msg("%s: %s, %g keys a row in vain", rows[i].text, b.exact ? "exact" : "not exact",
                     (double)idle / (double)pairs);
        kf_arena_destroy(arena);
    }
}

/* ---- any mask -------------------------------------------------------------------------------- */

static void write_number(kf_sbuf *out, uint64_t *seed, int depth)
{
    static const char *const leaves[] = {"k",  "q",   "h",  "k",     "q",    "3",
                                         "-7", "0.5", "64", "$0[h]", "$0[k]"};
    static const char *const two[] = {"add", "sub", "sub", "mul", "div", "min", "max"};
    static const char *const one[] = {"neg", "abs", "floor", "floor", "sqrt"};
    const uint64_t kind = depth == 0 ? 0 : random_u64(seed) % 4;
    if (kind == 0) {
        kf_sbuf_c(out, leaves[random_u64(seed) % (sizeof leaves / sizeof *leaves)]);
        return;
    }
    kf_sbuf_printf(out, "%s(", kind == 1 ? one[random_u64(seed) % 5] : two[random_u64(seed) % 7]);
    write_number(out, seed, depth - 1);
    if (kind > 1) {
        kf_sbuf_c(out, ", ");
        write_number(out, seed, depth - 1);
    }
    kf_sbuf_c(out, ")");
}

static void write_condition(kf_sbuf *out, uint64_t *seed, int depth)
{
    static const char *const order[] = {"lt", "le", "gt", "ge", "eq", "ne"};
    const uint64_t kind = depth == 0 ? 3 : random_u64(seed) % 5;
    kf_sbuf_printf(out, "%s(",
                   kind == 0   ? "and"
                   : kind == 1 ? "or"
                   : kind == 2 ? "not"
                               : order[random_u64(seed) % 6]);
    for (int i = 0; i < (kind == 2 ? 1 : 2); i++) {
        kf_sbuf_c(out, i ? ", " : "");
        if (kind < 3)
            write_condition(out, seed, depth - 1);
        else
            write_number(out, seed, 3);
    }
    kf_sbuf_c(out, ")");
}

static void any_mask(void **state)
{
    (void)state;
    uint64_t seed = test_seed(5);
    uint32_t bounded = 0, exact = 0, n = scaled(500);
    for (uint32_t i = 0; i < n; i++) {
        kf_arena *arena = kf_arena_create("test");
        kf_sbuf text = {.arena = arena};
        write_condition(&text, &seed, 3);
        const kf_slot *mask = mask_of(arena, text.ptr);
        const kf_mask_bounds b = kf_mask_bounds_of(arena, mask);
        check_bounds(mask, &b, text.ptr);
        bounded += b.lo || b.hi;
        exact += b.exact;
        kf_arena_destroy(arena);
    }
    assert_true(bounded > n / 20 && exact > n / 100);
}

/* Masks beyond the limits are left alone. */
static void long_masks(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_sbuf text = {.arena = arena};
    for (int i = 0; i < 20; i++)
        kf_sbuf_printf(&text, "and(le(k, add(q, %d)), ", i);
    kf_sbuf_c(&text, "le(k, q)");
    for (int i = 0; i < 20; i++)
        kf_sbuf_c(&text, ")");
    const kf_mask_bounds b = kf_mask_bounds_of(arena, mask_of(arena, text.ptr));
    assert_null(b.hi);
    assert_false(b.exact);
    assert_true(kf_mask_bounds_of(arena, NULL).exact);
    /* Sharing does not multiply the work. */
    text = (kf_sbuf){.arena = arena};
    kf_sbuf_c(&text, "%0 = le(k, q), ");
    for (int i = 1; i < 20; i++)
        kf_sbuf_printf(&text, "%%%d = and(%%%d, not(not(%%%d))), ", i, i - 1, i - 1);
    kf_sbuf_c(&text, "%19");
    const kf_slot *mask = mask_of(arena, text.ptr);
    const kf_mask_bounds shared = kf_mask_bounds_of(arena, mask);
    check_bounds(mask, &shared, text.ptr);
    kf_arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usual_masks),
        cmocka_unit_test(any_mask),
        cmocka_unit_test(long_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
