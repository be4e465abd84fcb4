/* SPDX-License-Identifier: Apache-2.0 */
/* test_element - computations that are one function have one element expression, others do not. */
#include "ir/text.h"
#include "passes/element_trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The structure of each result of a function over %x, %y: f32[N,8], %i: i32[N]. */
static void structures(kf_arena *a, const char *body, uint64_t *out, uint32_t n)
{
    kf_sbuf text = {.arena = a};
    kf_diags *d = kf_diags_create(a);

    kf_sbuf_printf(&text,
                   "module @m {\n  dim S in 1..2\n  dim N in 1..8\n  dim R in 1..2\n"
                   "  dim K in 1..16\n  func @f(%%x: f32[N,8], %%y: f32[N,8], %%i: i32[N], "
                   "%%s: f32[2,N,K], %%kp: i32[K]) -> %s\n}\n",
                   body);
    kf_module *m = kf_module_parse(a, d, KF_STR("t.kir"), kf_sbuf_view(&text));
    if (!m) {
        kf_diags_print(d, stderr, false);
        fail_msg("%s", text.ptr);
    }
    const kf_graph *g = m->funcs.data[0];
    assert_int_equal(g->results.len, n);
    for (uint32_t r = 0; r < n; r++) {
        kf_el_trace t;
        assert_true(kf_el_trace_value(a, g, g->results.data[r], &t));
        out[r] = kf_el_at(t.e, t.element)->hash;
    }
}

#define TWO  "(f32[N,8], f32[N,8]) {\n"
#define C(n) "  %c" #n " = const {value = " #n "} : f32[]\n"

static const struct {
    const char *what, *body;
    bool same;
} pairs[] = {
    {"factors join",
     TWO C(3) C(6) "  %a = mul %x, %c3 : f32[N,8]\n  %b = div %a, %c6 : f32[N,8]\n"
                   "  %h = const {value = 0.5} : f32[]\n  %d = mul %h, %x : f32[N,8]\n"
                   "  return %b, %d\n  }",
     true},
    {"a quotient by 3 is no product with a rounded third",
     TWO C(3) "  %a = div %x, %c3 : f32[N,8]\n  %af = floor %a : f32[N,8]\n"
              "  %t = const {value = 0.3333333333333333} : f32[]\n"
              "  %b = mul %x, %t : f32[N,8]\n  %bf = floor %b : f32[N,8]\n  return %af, %bf\n  }",
     false},
    {"differences turn around",
     TWO "  %a = sub %x, %y : f32[N,8]\n  %b = sub %y, %x : f32[N,8]\n  %d = neg %b : f32[N,8]\n"
         "  return %a, %d\n  }",
     true},
    {"not commutative",
     TWO "  %a = sub %x, %y : f32[N,8]\n  %b = sub %y, %x : f32[N,8]\n"
         "  return %a, %b\n  }",
     false},
    {"powers of e",
     TWO "  %a = exp %x : f32[N,8]\n  %b = exp %y : f32[N,8]\n  %d = div %a, %b : f32[N,8]\n"
         "  %e = sub %x, %y : f32[N,8]\n  %f = exp %e : f32[N,8]\n  return %d, %f\n  }",
     true},
    {"the sum of a logarithm",
     TWO "  %l = log %y : f32[N,8]\n  %a = sub %x, %l : f32[N,8]\n  %b = exp %a : f32[N,8]\n"
         "  %e = exp %x : f32[N,8]\n  %d = div %e, %y : f32[N,8]\n  return %b, %d\n  }",
     true},
    {"a mask in the exponent and around the power",
     TWO C(0) "  %low = const {value = -inf} : f32[]\n  %p = lt %y, %c0 : pred[N,8]\n"
              "  %m = select %p, %x, %low : f32[N,8]\n  %a = exp %m : f32[N,8]\n"
              "  %e = exp %x : f32[N,8]\n  %q = ge %y, %c0 : pred[N,8]\n"
              "  %b = select %q, %c0, %e : f32[N,8]\n  return %a, %b\n  }",
     true},
    {"predicates by numbers",
     TWO C(0) C(1) "  %p = lt %x, %y : pred[N,8]\n  %z = select %p, %c0, %c1 : f32[N,8]\n"
                   "  %q = eq %z, %c0 : pred[N,8]\n  %a = select %q, %x, %y : f32[N,8]\n"
                   "  %b = select %p, %x, %y : f32[N,8]\n  return %a, %b\n  }",
     true},
    {"De Morgan",
     TWO C(0) "  %p = lt %x, %c0 : pred[N,8]\n  %q = le %y, %c0 : pred[N,8]\n"
              "  %o = or %p, %q : pred[N,8]\n  %n = not %o : pred[N,8]\n"
              "  %a = select %n, %x, %y : f32[N,8]\n  %r = ge %x, %c0 : pred[N,8]\n"
              "  %t = gt %y, %c0 : pred[N,8]\n  %u = and %t, %r : pred[N,8]\n"
              "  %b = select %u, %x, %y : f32[N,8]\n  return %a, %b\n  }",
     true},
    {"a guard of another divisor stays",
     TWO C(0) C(1) "  %p = eq %y, %c0 : pred[N,8]\n  %g = select %p, %c1, %y : f32[N,8]\n"
                   "  %a = div %x, %g : f32[N,8]\n  %b = div %x, %y : f32[N,8]\n"
                   "  return %a, %b\n  }",
     false},
    {"views come and go",
     TWO "  %a = reshape %x : f32[N,1,8]\n  %b = transpose %a {perm = [1, 2, 0]} : f32[1,8,N]\n"
         "  %d = square %b : f32[1,8,N]\n  %e = transpose %d {perm = [2, 0, 1]} : f32[N,1,8]\n"
         "  %f = reshape %e : f32[N,8]\n  %g = mul %x, %x : f32[N,8]\n  return %f, %g\n  }",
     true},
    {"a part of the columns again",
     TWO "  %a = slice %x {axis = 1, stop = 4} : f32[N,4]\n"
         "  %b = concat %a, %a {axis = 1} : f32[N,8]\n  return %b, %x\n  }",
     false},
    {"a product with a product",
     TWO C(2) C(1) "  %s1 = add %x, %c1 : f32[N,8]\n  %a = mul %s1, %y : f32[N,8]\n"
                   "  %x2 = mul %x, %c2 : f32[N,8]\n  %s2 = add %c2, %x2 : f32[N,8]\n"
                   "  %b = mul %s2, %y : f32[N,8]\n  %d = div %b, %c2 : f32[N,8]\n"
                   "  return %a, %d\n  }",
     true},
};

static void pairs_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        kf_arena *a = kf_arena_create("pair");
        uint64_t hash[2];
        structures(a, pairs[i].body, hash, 2);
        if ((hash[0] == hash[1]) != pairs[i].same)
            fail_msg("%s: %s", pairs[i].what, pairs[i].same ? "two expressions" : "one expression");
        kf_arena_destroy(a);
    }
}

/* Whatever is subtracted, and whether the sum divides the weights or what they weigh: one quotient.
 */
static void softmaxes_agree(void **state)
{
    static const char body[] =
        "(f32[2,N,K], f32[2,N,K], f32[2,N,K], f32[2,N,K]) {\n"
        "  %0 = row_reduce %s {acc = [max, sum_exp], keep} map(v, m, z) "
        "{ select(lt(0, z), div(exp(sub(v, m)), z), 0) } : f32[2,N,K]\n"
        "  %1 = row_reduce %s {acc = [max]} : f32[2,N,1]\n"
        "  %2 = sub %s, %1 : f32[2,N,K]\n"
        "  %3 = exp %2 : f32[2,N,K]\n"
        "  %4 = row_reduce %3 {acc = [sum]} : f32[2,N,1]\n"
        "  %5 = div %3, %4 : f32[2,N,K]\n"
        "  %6 = exp %s : f32[2,N,K]\n"
        "  %7 = row_reduce %6 {acc = [sum], keep} map(v, z) { div(v, z) } : f32[2,N,K]\n"
        "  %8 = row_reduce %s {acc = [min]} : f32[2,N,1]\n"
        "  %9 = sub %s, %8 : f32[2,N,K]\n"
        "  %10 = exp %9 : f32[2,N,K]\n"
        "  %11 = row_reduce %10 {acc = [sum]} : f32[2,N,1]\n"
        "  %12 = recip %11 : f32[2,N,1]\n"
        "  %13 = mul %12, %10 : f32[2,N,K]\n"
        "  return %5, %7, %13, %0\n  }";
    kf_arena *a = kf_arena_create("softmax");
    uint64_t hash[4];

    (void)state;
    structures(a, body, hash, 4);
    assert_true(hash[0] == hash[1] && hash[1] == hash[2]);
    assert_true(hash[0] != hash[3]); /* with a guard for rows without weight */
    kf_arena_destroy(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pairs_agree),
                                       cmocka_unit_test(softmaxes_agree)};

    return cmocka_run_group_tests_name("element", tests, NULL, NULL);
}
