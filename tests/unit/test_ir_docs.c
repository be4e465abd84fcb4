/* SPDX-License-Identifier: Apache-2.0 */
/* test_ir_docs - docs/OPS.md is what the tables say; KF_BLESS=1 rewrites it. Examples of docs/IR.md
 * are IR. */
#include "base/fs.h"
#include "ir/ops_docs.h"
#include "ir/plan.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kf_str source_path(kf_arena *arena, const char *path)
{
    const char *root = getenv("KF_SOURCE_DIR");
    return kf_strf(arena, "%s/%s", root ? root : ".", path);
}

static void ops_md_is_fresh(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_str path = source_path(arena, "docs/OPS.md"), then;
    kf_sbuf now = {.arena = arena};
    kf_ops_docs(&now);
    if (getenv("KF_BLESS"))
        assert_int_equal(kf_fs_write(path.ptr, kf_sbuf_view(&now), 0644), 0);
    assert_int_equal(kf_fs_read(arena, path.ptr, 1 << 20, &then), 0);
    if (!kf_str_eq(then, kf_sbuf_view(&now)))
        fail_msg("docs/OPS.md is stale; run this test with KF_BLESS=1");
    kf_arena_destroy(arena);
}

/* Every ```kir block is a module or a plan that parses, verifies and is printed as it stands. */
static void examples_of_ir_md_are_ir(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_str text;
    uint32_t n = 0;
    assert_int_equal(kf_fs_read(arena, source_path(arena, "docs/IR.md").ptr, 1 << 20, &text), 0);
    for (const char *p = strstr(text.ptr, "```kir\n"); p; p = strstr(p, "```kir\n"), n++) {
        p += 7;
        const char *end = strstr(p, "```");
        assert_non_null(end);
        kf_str example = kf_str_dup(arena, (kf_str){p, (uint32_t)(end - p)});
        kf_diags *d = kf_diags_create(arena);
        kf_sbuf printed = {.arena = arena}, errors = {.arena = arena};
        bool ok;
        if (kf_str_starts_with(example, "plan")) {
            kf_plan *plan = kf_plan_parse(arena, d, KF_STR("docs/IR.md"), example);
            ok = plan && kf_plan_verify(plan, &errors);
            if (ok)
                kf_plan_print(plan, KF_PRINT_LOCS, &printed);
        } else {
            kf_module *m = kf_module_parse(arena, d, KF_STR("docs/IR.md"), example);
            ok = m && kf_module_verify(m, KF_VERIFY_GRAPH, &errors);
            if (ok)
                kf_module_print(m, KF_PRINT_LOCS, &printed);
        }
        kf_diags_print(d, stderr, false);
        if (!ok)
            fail_msg("example %u: %s", n, errors.ptr ? errors.ptr : "does not parse");
        assert_string_equal(printed.ptr, example.ptr);
    }
    assert_true(n >= 3);
    kf_arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_md_is_fresh),
        cmocka_unit_test(examples_of_ir_md_are_ir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
