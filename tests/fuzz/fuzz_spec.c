/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_spec - any text through the whole reader of descriptions: a Spec or an error, and what is
 * accepted prints as a description that reads back the same. */
#include "frontend/spec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kf_arena *arena = kf_arena_create("fuzz");
    kf_diags *diags = kf_diags_create(arena);
    kf_str text = {(const char *)data, (uint32_t)size};
    const kf_spec *spec = kf_spec_load_text(arena, diags, "fuzz", ".", text, NULL, 0);
    if ((spec == NULL) != (kf_diags_errors(diags) > 0))
        abort();
    if (spec) {
        kf_sbuf first = {.arena = arena}, again = {.arena = arena};
        kf_spec_print(spec, false, &first);
        const kf_spec *same =
            kf_spec_load_text(arena, diags, "fuzz", ".", kf_sbuf_view(&first), NULL, 0);
        if (!same)
            abort();
        kf_spec_print(same, false, &again);
        if (!kf_str_eq(kf_sbuf_view(&first), kf_sbuf_view(&again)))
            abort();
    }
    kf_arena_destroy(arena);
    return 0;
}
