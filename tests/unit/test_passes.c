/* SPDX-License-Identifier: Apache-2.0 */
/* test_passes - the pipeline keeps the order that passes/pipeline.c says it needs. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_holds),
        cmocka_unit_test(every_pass_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
