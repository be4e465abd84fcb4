/* SPDX-License-Identifier: Apache-2.0 */
/* frontend - helpers of the frontend's test programs: an arena and diagnostics per test, paths. */
#ifndef KF_TESTS_UNIT_FRONTEND_H
#define KF_TESTS_UNIT_FRONTEND_H

#include "base/diag.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    kf_arena *arena;
    kf_diags *diags;
} fixture;

static inline int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->arena = kf_arena_create("test");
    f->diags = kf_diags_create(f->arena);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    fixture *f = *state;
    kf_arena_destroy(f->arena);
    free(f);
    return 0;
}

#define FIXTURE_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

/** A path below the source tree. */
static inline const char *source_path(fixture *f, const char *name)
{
    const char *root = getenv("KF_SOURCE_DIR");
    return kf_strf(f->arena, "%s/%s", root ? root : ".", name).ptr;
}

/** The first diagnostic is |code| at |line|:|col| (0: anywhere); prints all when it is not. */
static inline void expect_first(fixture *f, kf_diag_code code, uint32_t line, uint32_t col)
{
    const kf_diag *d = kf_diags_first(f->diags);
    bool ok = d && d->code == code && (line == 0 || d->loc.line == line) &&
              (col == 0 || d->loc.col == col);
    if (!ok) {
        kf_diags_print(f->diags, stderr, false);
        fail_msg("expected %s at %u:%u, got %s at %u:%u", kf_diag_infos[code].name, line, col,
                 d ? kf_diag_infos[d->code].name : "nothing", d ? d->loc.line : 0,
                 d ? d->loc.col : 0);
    }
}

#endif
