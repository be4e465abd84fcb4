/* SPDX-License-Identifier: Apache-2.0 */
/* plan - small questions about plans and kernels; text is plan_text.c, rules are plan_verify.c. */
#include "ir/plan.h"

#include <inttypes.h>
#include <string.h>

int64_t kf_config_get(const kf_config *c, const char *key)
{
    for (uint8_t i = 0; i < c->n; i++) {
        if (strcmp(c->key[i], key) == 0)
            return c->value[i];
    }
    return -1;
}

int64_t kf_cost_at(const kf_cost *c, int64_t tokens, int64_t rows, int64_t keys)
{
    return c->fixed + c->per_token * tokens + c->per_row * rows + c->per_key * keys;
}

int64_t kf_tile_count(const kf_tile_expr *e, const int64_t *sym_values)
{
    int64_t n = e->constant;
    for (uint8_t i = 0; i < e->n_terms; i++)
        n *= (sym_values[e->term[i].sym] + e->term[i].div - 1) / e->term[i].div;
    return n;
}

kf_str kf_plan_tensor_name(kf_arena *arena, kf_str prefix, uint32_t layer, kf_str tensor)
{
    kf_sbuf name = {.arena = arena};
    for (uint32_t i = 0; i < prefix.len; i++) {
        if (i + 3 <= prefix.len && memcmp(prefix.ptr + i, "{i}", 3) == 0) {
            kf_sbuf_printf(&name, "%" PRIu32, layer);
            i += 2;
        } else {
            kf_sbuf_char(&name, prefix.ptr[i]);
        }
    }
    kf_sbuf_str(&name, tensor);
    return kf_sbuf_view(&name);
}
