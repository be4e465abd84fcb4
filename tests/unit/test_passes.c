/* SPDX-License-Identifier: Apache-2.0 */
/* test_passes - the pipeline keeps the order that passes/pipeline.c says it needs; subjects of
 * candidates and patterns over them. */
#include "passes/contract.h"
#include "passes/pipeline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void order_holds(void **state)
{
    const kf_pass_order *broken = NULL;

    (void)state;
    if (!kf_pipeline_order_holds(&broken))
        fail_msg("%s must stand before %s: %s", kf_pass_infos[broken->before].name,
                 kf_pass_infos[broken->after].name, broken->reason);
}

/* A pass that no step of the pipeline runs would be dead; a constraint on it would hold for
 * nothing. */
static void every_pass_runs(void **state)
{
    (void)state;
    for (int id = 0; id < KF_PASS_COUNT; id++) {
        bool runs = false;
        for (uint32_t i = 0; i < kf_pipeline_length; i++)
            runs |= kf_pipeline[i] == (kf_pass_id)id;
        if (!runs)
            fail_msg("%s is not in the pipeline", kf_pass_infos[id].name);
    }
}

/* ---- patterns of build.fusion ---------------------------------------------------------------- */

static bool matches(kf_arena *a, const char *pattern, const char *subject, const char *func)
{
    kf_diags *d = kf_diags_create(a);
    kf_candidate c = {.func = kf_str_from(func)};
    kf_pattern p;

    assert_true(kf_subject_parse(kf_str_from(subject), &c.parts));
    assert_true(kf_pattern_parse(a, d, kf_str_from(pattern), KF_NO_LOC, &p));
    return kf_pattern_matches(&p, &c);
}

static void patterns(void **state)
{
    static const struct {
        const char *pattern, *subject, *func;
        bool match;
    } cases[] = {
        {"attention", "attention", "layer", true},
        {"attention", "norm -> matmul %wq", "layer.decode", false},
        {"norm", "norm -> matmul %wq", "layer.decode", true}, /* whatever it joins */
        {"norm->matmul", "norm -> matmul %wq", "layer.decode", true},
        {"norm -> *", "norm -> matmul %wq", "layer.decode", true},
        {"* -> matmul", "norm -> matmul %wq", "layer.decode", true},
        {"attention -> *", "attention", "layer", false}, /* joins nothing */
        {"matmul", "norm -> matmul %wq", "layer.decode", false},
        {"norm -> matmul w*", "norm -> matmul %wq", "layer", true},
        {"norm -> matmul %wq", "norm -> matmul %wq", "layer", true},
        {"norm -> matmul wk", "norm -> matmul %wq", "layer", false},
        {"norm x -> matmul", "norm -> matmul %wq", "layer", false}, /* has no name */
        {"siblings wk -> matmul", "siblings %wq, %wk, %wv -> matmul", "layer", true},
        {"elementwise s*u", "elementwise silu -> matmul %wg", "layer", true},
        {"norm @layer", "norm -> matmul %wq", "layer.decode", true},
        {"norm @layer.*", "norm -> matmul %wq", "layer.decode", true},
        {"norm @layer.decode", "norm -> matmul %wq", "layer.prefill", false},
        {"attention @layer.decode", "attention", "layer", true}, /* phases are not split yet */
        {"attention @layer2*", "attention", "layer", false},
    };
    kf_arena *a = kf_arena_create("test");

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (matches(a, cases[i].pattern, cases[i].subject, cases[i].func) != cases[i].match)
            fail_msg("'%s' and '%s' in @%s", cases[i].pattern, cases[i].subject, cases[i].func);
    kf_arena_destroy(a);
}

static void subjects(void **state)
{
    kf_subject s;

    (void)state;
    assert_true(kf_subject_parse(KF_STR("gain %g -> weights"), &s));
    assert_int_equal(s.from.kind, KF_KIND_gain);
    assert_true(kf_str_eq_c(s.from.what, "%g"));
    assert_int_equal(s.to.kind, KF_KIND_weights);
    assert_int_equal(s.to.what.len, 0);
    assert_true(kf_subject_parse(KF_STR("attention"), &s));
    assert_int_equal(s.to.kind, KF_KIND_NONE);
    assert_false(kf_subject_parse(KF_STR("attention -> kernel"), &s));
    assert_false(kf_subject_parse(KF_STR("softmax between two matmuls -> attentions"), &s));
    assert_false(kf_subject_parse(KF_STR("gains"), &s));
    assert_false(kf_subject_parse(KF_STR(""), &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_holds),
        cmocka_unit_test(every_pass_runs),
        cmocka_unit_test(patterns),
        cmocka_unit_test(subjects),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
