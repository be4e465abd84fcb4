/* SPDX-License-Identifier: Apache-2.0 */
/* check - the end of the road for a broken invariant: say it, let the driver save its input,
 * exit 70. */
#include "base/check.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_INTERNAL = 70 };

/* Process-wide on purpose: an assertion has no context argument, and it fires once. */
static kf_crash_hook crash_hook;
static void *crash_user;
static const char *crash_stage;
static const char *crash_subject;

void kf_check_set_hook(kf_crash_hook hook, void *user)
{
    crash_hook = hook;
    crash_user = user;
}

void kf_check_set_context(const char *stage, const char *subject)
{
    crash_stage = stage;
    crash_subject = subject;
}

void kf_check_print_context(void)
{
    if (crash_stage)
        fprintf(stderr, "  in %s%s%s\n", crash_stage, crash_subject ? " " : "",
                crash_subject ? crash_subject : "");
}

_Noreturn void kf_check_fail(const char *file, int line, const char *cond, const char *sentence)
{
    static bool failing; /* the hook itself may break an invariant */
    fprintf(stderr, "kerf: internal error: %s\n  at %s:%d: %s\n", sentence, file, line, cond);
    kf_check_print_context();
    if (!failing && crash_hook) {
        failing = true;
        crash_hook(crash_user, sentence);
    }
    fflush(NULL);
    exit(EXIT_INTERNAL);
}
