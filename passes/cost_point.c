/* SPDX-License-Identifier: Apache-2.0 */
/* cost_point - which keys of a call a launch sees: those of its windows, or the memory's. */
#include "ir/mask_bounds.h"
#include "passes/cost.h"

#include <math.h>

/* Rows whose bounds are asked, at most; of a longer call as many, evenly spread. */
enum { MAX_ROWS = 1 << 16 };

static const kf_node *attention_of(const kf_graph *body)
{
    for (uint32_t i = 0; i < body->nodes.len; i++)
        if (body->nodes.data[i].op == KF_OP_attention)
            return &body->nodes.data[i];
    return NULL;
}

/* Whether something in |body| has an element for each position of the memory. */
static bool uses_memory(const kf_graph *body)
{
    const kf_node *n = attention_of(body);

    for (uint32_t v = 0; v < body->values.len; v++)
        for (uint8_t d = 0; d < kf_value_type(body, v)->rank; d++)
            if (kf_value_type(body, v)->dim[d].sym == KF_SYM_M + 1)
                return true;
    return n && KF_ATTR_OF(n, attention)->stored;
}

/* ---- windows --------------------------------------------------------------------------------- */

static bool reads_table(const kf_slot *s)
{
    for (uint32_t i = 0; i < s->n_insts; i++)
        if (s->inst[i].op == KF_SLOT_LOAD)
            return true;
    return false;
}

/* |bound| at a row, between 0 and |keys|; |open| where it is not known without the tables that it
 * reads. */
static int64_t bound_at(const kf_slot *bound, int64_t h, int64_t q, int64_t open, int64_t keys)
{
    if (!bound || reads_table(bound))
        return open;
    double v = kf_slot_eval(bound, (double[]){(double)h, (double)q}, NULL, NULL);
    return isnan(v) ? open : v <= 0 ? 0 : v >= (double)keys ? keys : (int64_t)ceil(v);
}

typedef struct view {
    int64_t first, end; /* keys that some row sees */
    double pairs;       /* of the rows that were asked */
} view;

static void add_row(view *v, const kf_mask_bounds *b, int64_t h, int64_t q, int64_t keys)
{
    int64_t lo = bound_at(b->lo, h, q, 0, keys), hi = bound_at(b->hi, h, q, keys, keys);

    if (lo >= hi)
        return;
    v->first = lo < v->first ? lo : v->first;
    v->end = hi > v->end ? hi : v->end;
    v->pairs += (double)(hi - lo);
}

/* Heads may differ: pairs are their mean. */
static void look(const kf_node *n, const kf_graph *body, kf_arena *arena, kf_cost_point *at)
{
    kf_mask_bounds b = kf_mask_bounds_of(arena, KF_ATTR_OF(n, attention)->mask);
    bool by_head = (b.lo && kf_slot_uses_param(b.lo, KF_MASK_H)) ||
                   (b.hi && kf_slot_uses_param(b.hi, KF_MASK_H));
    int64_t heads = by_head ? kf_value_type(body, n->in[0])->dim[1].size : 1;
    int64_t asked = MAX_ROWS / heads + 1, past = at->keys - at->tokens;
    view v = {.first = at->keys};

    asked = asked < at->tokens ? asked : at->tokens;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < asked; i++) {
            int64_t row = asked > 1 ? i * (at->tokens - 1) / (asked - 1) : 0;
            add_row(&v, &b, h, past + row, at->keys);
        }
    at->keys = v.end > v.first ? v.end - v.first : 0;
    at->pairs = (int64_t)(v.pairs / (double)(heads * asked) * (double)at->tokens + 0.5);
}

/* The point with the memory's positions for keys where these are what |body| works on. */
static kf_cost_point in_view(const kf_graph *body, const kf_cost_point *at)
{
    kf_cost_point seen = *at;

    if (uses_memory(body)) {
        seen.keys = at->memory;
        seen.pairs = at->tokens * at->memory;
    }
    return seen;
}

kf_cost_point kf_cost_point_of(const kf_graph *body, const kf_cost_point *at)
{
    kf_cost_point seen = in_view(body, at);
    const kf_node *n = attention_of(body);

    if (n && !uses_memory(body)) {
        kf_arena *arena = kf_arena_create("window");
        look(n, body, arena, &seen);
        kf_arena_destroy(arena);
    }
    return seen;
}

kf_tally kf_tally_launch(const kf_plan *p, const kf_launch *l, const kf_cost_point *at)
{
    const kf_graph *body = p->kernels.data[l->kernel].body;
    kf_cost_point all = in_view(body, at), seen = kf_cost_point_of(body, at);

    return (kf_tally){.launches = 1,
                      .flops = kf_cost_at(&l->flops, &seen),
                      .bytes = kf_cost_at(&l->bytes, &seen),
                      .ops = l->ops,
                      .bytes_alone = kf_cost_at(&l->alone, &all)};
}
