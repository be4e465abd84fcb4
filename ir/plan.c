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

int64_t kf_cost_at(const kf_cost *c, const kf_cost_point *at)
{
    return c->fixed + c->per_token * at->tokens + c->per_row * at->rows + c->per_key * at->keys +
           c->per_pair * at->pairs;
}

int64_t kf_tile_count(const kf_tile_expr *e, const int64_t *sym_values)
{
    int64_t n = e->constant;
    for (uint8_t i = 0; i < e->n_terms; i++)
        n *= (sym_values[e->term[i].sym] + e->term[i].div - 1) / e->term[i].div;
    return n;
}

/** A whole number at |*p|, or |none| where no digit stands. */
static uint32_t read_number(const char **p, const char *end, uint32_t none)
{
    uint32_t v = 0;
    if (*p == end || **p < '0' || **p > '9')
        return none;
    for (; *p < end && **p >= '0' && **p <= '9' && v < 1000000; (*p)++)
        v = 10 * v + (uint32_t)(**p - '0');
    return v;
}

uint32_t kf_layer_hole(kf_str s, uint32_t *out_factor, uint32_t *out_offset)
{
    const char *p = s.ptr + 1, *end = s.ptr + s.len;
    if (s.len < 3 || s.ptr[0] != '{')
        return 0;
    *out_factor = read_number(&p, end, 1);
    *out_offset = 0;
    if (p == end || *p++ != 'i')
        return 0;
    if (p < end && *p == '+') {
        p++;
        *out_offset = read_number(&p, end, 0);
    }
    return p < end && *p == '}' ? (uint32_t)(p + 1 - s.ptr) : 0;
}

static void fill_holes(kf_sbuf *out, kf_str pattern, uint32_t layer)
{
    for (uint32_t i = 0; i < pattern.len; i++) {
        uint32_t factor, offset;
        uint32_t n = kf_layer_hole((kf_str){pattern.ptr + i, pattern.len - i}, &factor, &offset);
        if (n > 0) {
            kf_sbuf_printf(out, "%" PRIu32, factor * layer + offset);
            i += n - 1;
        } else {
            kf_sbuf_char(out, pattern.ptr[i]);
        }
    }
}

kf_str kf_plan_tensor_name(kf_arena *arena, kf_str prefix, uint32_t layer, kf_str tensor)
{
    kf_sbuf name = {.arena = arena};
    fill_holes(&name, prefix, layer);
    fill_holes(&name, tensor, layer);
    return kf_sbuf_view(&name);
}
