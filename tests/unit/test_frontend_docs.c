/* SPDX-License-Identifier: Apache-2.0 */
/* test_frontend_docs - docs/SPEC.md is what the tables say; KF_BLESS=1 rewrites it. */
#include "base/fs.h"
#include "frontend.h"
#include "frontend/spec.h"

static void spec_md_is_fresh(void **state)
{
    fixture *f = *state;
    const char *path = source_path(f, "docs/SPEC.md");
    kf_sbuf now = {.arena = f->arena};
    kf_str then;
    kf_spec_docs(&now);
    if (getenv("KF_BLESS") != NULL)
        assert_int_equal(kf_fs_write(path, kf_sbuf_view(&now), 0644), 0);
    assert_int_equal(kf_fs_read(f->arena, path, 1 << 20, &then), 0);
    if (!kf_str_eq(then, kf_sbuf_view(&now)))
        fail_msg("docs/SPEC.md is stale; run this test with KF_BLESS=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {FIXTURE_TEST(spec_md_is_fresh)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
