/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_expr - the expression language; the first byte chooses act, mask, score or prob. */
#include "frontend/expr.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    kf_expr_kind kind = (kf_expr_kind)(data[0] % 4);
    kf_arena *arena = kf_arena_create("fuzz");
    kf_diags *diags = kf_diags_create(arena);
    kf_str text = {(const char *)data + 1, (uint32_t)size - 1};
    uint32_t file = kf_diags_add_file(diags, KF_STR("fuzz"), text);
    kf_loc loc = {file, 1, 1, 1};
    const kf_yaml_node *node = kf_yaml_new_scalar(arena, text, loc, KF_ORIGIN_SPEC);
    const kf_expr *e = kf_expr_parse(arena, diags, node, kind, (kf_expr_env){.num_heads = 4});
    if ((e == NULL) != (kf_diags_errors(diags) > 0))
        abort();
    if (e) {
        const double vars[KF_EXPR_VAR_COUNT] = {0.5, -1.5, 1, 7, 3};
        kf_sbuf out = {.arena = arena};
        kf_expr_print(e, &out);
        double v = kf_expr_eval(e, vars);
        if (out.len == 0 || (e->is_pred && v != 0 && v != 1))
            abort();
        if (kind == KF_EXPR_MASK && !kf_expr_is_causal(e))
            abort();
    }
    kf_arena_destroy(arena);
    return 0;
}
