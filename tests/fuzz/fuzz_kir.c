/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_kir - IR text: modules that verify, and plans, print to a fixed point of print and parse; no
 * text breaks an invariant or hangs the verifiers. */
#include "ir/plan.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_plan(kf_arena *arena, kf_str text)
{
    kf_diags *diags = kf_diags_create(arena);
    kf_plan *p = kf_plan_parse(arena, diags, KF_STR("fuzz.kir"), text);
    if ((p == NULL) != (kf_diags_errors(diags) > 0))
        abort();
    if (!p)
        return;
    kf_sbuf errors = {.arena = arena}, once = {.arena = arena}, twice = {.arena = arena};
    kf_plan_verify(p, &errors);
    kf_plan_print(p, KF_PRINT_LOCS, &once);
    kf_plan *again = kf_plan_parse(arena, diags, KF_STR("fuzz.kir"), kf_sbuf_view(&once));
    if (!again) {
        kf_diags_print(diags, stderr, false);
        abort();
    }
    kf_plan_print(again, KF_PRINT_LOCS, &twice);
    if (!kf_str_eq(kf_sbuf_view(&once), kf_sbuf_view(&twice))) {
        fprintf(stderr, "%s\n----\n%s\n", once.ptr, twice.ptr);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kf_arena *arena = kf_arena_create("fuzz");
    kf_diags *diags = kf_diags_create(arena);
    kf_str text = {(const char *)data, (uint32_t)size};
    kf_module *m = kf_module_parse(arena, diags, KF_STR("fuzz.kir"), text);
    if ((m == NULL) != (kf_diags_errors(diags) > 0))
        abort();
    kf_sbuf errors = {.arena = arena};
    if (m && kf_module_verify(m, KF_VERIFY_GRAPH, &errors)) {
        kf_sbuf once = {.arena = arena}, twice = {.arena = arena};
        kf_module_print(m, KF_PRINT_LOCS, &once);
        kf_module *again = kf_module_parse(arena, diags, KF_STR("fuzz.kir"), kf_sbuf_view(&once));
        if (!again) {
            kf_diags_print(diags, stderr, false);
            abort();
        }
        kf_module_print(again, KF_PRINT_LOCS, &twice);
        if (!kf_str_eq(kf_sbuf_view(&once), kf_sbuf_view(&twice))) {
            fprintf(stderr, "%s\n----\n%s\n", once.ptr, twice.ptr);
            abort();
        }
    }
    if (!m)
        check_plan(arena, text);
    kf_arena_destroy(arena);
    return 0;
}
