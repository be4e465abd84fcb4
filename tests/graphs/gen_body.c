/* SPDX-License-Identifier: Apache-2.0 */
/* gen_body - motifs one behind the other. */
#include "tests/graphs/gen.h"

#include <math.h>

typedef kf_value (*motif)(gen *g, kf_value x);
static const motif motifs[] = {gen_norm_linear, gen_norm_linear, gen_gated,     gen_gated,
                               gen_siblings,    gen_attention,   gen_attention, gen_attention,
                               gen_tree,        gen_reduce,      gen_soup,      gen_soup};

/* Where there is a memory, the first motif asks it, or may. */
static motif any_motif(gen *g, uint32_t number)
{
    return g->n_memory && number == 0 ? gen_attention
                                      : motifs[gen_pick(g, sizeof motifs / sizeof motifs[0])];
}

kf_value gen_fit(gen *g, kf_value v, int64_t n)
{
    return gen_columns(g, v) == n ? v : gen_linear(g, v, n);
}

bool gen_is_large(const gen *g, kf_value v)
{
    return fmax(fabs(g->range[v].lo), fabs(g->range[v].hi)) > 24;
}

/* |count| pre-norm branches: layer norms read the rows, products in f32 are added to them. */
static kf_value centred_body(gen *g, kf_value x, uint32_t count)
{
    int64_t width = gen_columns(g, x);

    for (uint32_t i = 0; i < count; i++) {
        kf_value n = gen_layer_norm(g, x);
        g->n_pool = 0;
        gen_keep(g, n);
        kf_value y = any_motif(g, i)(g, n);
        y = gen_linear(g, gen_flat(g, y), width);
        if (gen_chance(g, 40))
            y = gen_node(g, KF_OP_add, NULL, 2, (kf_value[]){y, gen_vector(g, width)}, g->range[y]);
        range r = {-12, 12, false};
        x = gen_node(g, KF_OP_add, NULL, 2,
                     gen_pick(g, 2) ? (kf_value[]){x, y} : (kf_value[]){y, x}, r);
    }
    return x;
}

kf_value gen_body(gen *g, kf_value x, uint32_t count)
{
    int64_t width = gen_columns(g, x);

    if (g->centred)
        return centred_body(g, x, count);

    for (uint32_t i = 0; i < count; i++) {
        if (gen_is_large(g, x))
            x = gen_norm(g, x);
        kf_value before = x, y = any_motif(g, i)(g, x);
        y = gen_fit(g, gen_flat(g, y), width);
        if (gen_is_large(g, y))
            y = gen_fn(g, KF_FN_tanh, &y);
        x = gen_chance(g, 70)
                ? gen_fn(g, KF_FN_add, gen_pick(g, 2) ? (kf_value[]){x, y} : (kf_value[]){y, x})
                : y;
        gen_keep(g, x);
        if (gen_chance(g, 10))
            x = gen_absorb(g, x, before);
    }
    return x;
}
