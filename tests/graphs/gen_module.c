/* SPDX-License-Identifier: Apache-2.0 */
/* gen_module - functions around the motifs: an embedding, layers inline or repeated, a head. */
#include "tests/graphs/gen.h"
#include "tests/unit/support.h"

#include <math.h>
#include <string.h>

#define S(x)   kf_dim_static(x)
#define TOKENS kf_dim_sym(KF_SYM_N)

typedef kf_value (*motif)(gen *g, kf_value x);
static const motif motifs[] = {gen_norm_linear, gen_norm_linear, gen_gated,     gen_gated,
                               gen_siblings,    gen_attention,   gen_attention, gen_attention,
                               gen_tree,        gen_reduce,      gen_soup,      gen_soup};

/* ---- bodies ---------------------------------------------------------------------------------- */

/* |v| with |n| columns. */
static kf_value fit(gen *g, kf_value v, int64_t n)
{
    return gen_columns(g, v) == n ? v : gen_linear(g, v, n);
}

static bool large(const gen *g, kf_value v)
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
        kf_value y = motifs[gen_pick(g, sizeof motifs / sizeof motifs[0])](g, n);
        y = gen_linear(g, gen_flat(g, y), width);
        if (gen_chance(g, 40))
            y = gen_node(g, KF_OP_add, NULL, 2, (kf_value[]){y, gen_vector(g, width)}, g->range[y]);
        range r = {-12, 12, false};
        x = gen_node(g, KF_OP_add, NULL, 2,
                     gen_pick(g, 2) ? (kf_value[]){x, y} : (kf_value[]){y, x}, r);
    }
    return x;
}

/* |count| motifs one behind the other, most of them as residual branches. */
static kf_value body(gen *g, kf_value x, uint32_t count)
{
    int64_t width = gen_columns(g, x);

    if (g->centred)
        return centred_body(g, x, count);

    for (uint32_t i = 0; i < count; i++) {
        if (large(g, x))
            x = gen_norm(g, x);
        kf_value before = x, y = motifs[gen_pick(g, sizeof motifs / sizeof motifs[0])](g, x);
        y = fit(g, gen_flat(g, y), width);
        if (large(g, y))
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

static kf_type ints(kf_dim d)
{
    return kf_type_tensor(KF_DTYPE_i32, 1, &d);
}

static void begin(gen *g, const char *name)
{
    g->g = kf_module_add_func(g->m, kf_str_from(name));
    g->rows = TOKENS;
    g->range = KF_NEW_N(g->arena, range, 8 * GEN_MAX_VALUES);
    g->n_pool = g->n_kv = 0;
    g->table = KF_NO_VALUE;
}

static void call_args(gen *g)
{
    const range none = {0}, position = {0, 63, true};

    g->pos = gen_arg(g, ints(TOKENS), "pos", position);
    g->seq = gen_arg(g, ints(TOKENS), "seq", (range){0, 7, true});
    g->seq_start = gen_arg(g, ints(kf_dim_sym(KF_SYM_S)), "seq_start", none);
    g->past = gen_arg(g, ints(kf_dim_sym(KF_SYM_S)), "past", none);
}

static void page_arg(gen *g)
{
    kf_dim dims[] = {kf_dim_sym(KF_SYM_S), S(8)};

    g->pages = gen_arg(g, kf_type_tensor(KF_DTYPE_i32, 2, dims), "pages", (range){0});
}

static void cache_args(gen *g, uint32_t n, const kf_type *types, uint32_t layers)
{
    static const char *const names[GEN_MAX_KV] = {"kv", "kv_1"};

    for (uint32_t i = 0; i < n; i++) {
        kf_type t = types[i];
        t.kv_layers = layers;
        g->kv[i] = gen_arg(g, t, names[i], (range){0});
        g->new_kv[i] = g->kv[i];
    }
    g->n_kv = n;
}

/* ---- a repeated layer ------------------------------------------------------------------------ */

typedef struct plan {
    int64_t width;
    uint32_t n_kv, times, extra; /* iteration arguments beside the rows */
    kf_type kv[GEN_MAX_KV];
    bool rope;
} plan;

static kf_type rows_type(int64_t width)
{
    return kf_type_tensor(KF_DTYPE_f32, 2, (kf_dim[]){TOKENS, S(width)});
}

static kf_type table_type(void)
{
    return kf_type_tensor(KF_DTYPE_f32, 3, (kf_dim[]){TOKENS, S(2), S(2)});
}

static void layer(gen *g, const plan *p)
{
    static const char *const names[] = {"y0", "y1", "y2", "y3", "y4", "y5", "y6"};
    const range r = {-12, 12, false};
    kf_value extra[8];

    begin(g, "layer");
    kf_value x = gen_keep(g, gen_arg(g, rows_type(p->width), "x", r));
    for (uint32_t i = 0; i < p->extra; i++)
        extra[i] = gen_keep(g, gen_arg(g, rows_type(p->width), names[i], r));
    cache_args(g, p->n_kv, p->kv, 1);
    call_args(g);
    page_arg(g);
    if (p->rope)
        g->table = gen_arg(g, table_type(), "rope", (range){-1, 1, false});
    kf_value y = body(g, x, 1 + gen_pick(g, 4));
    if (large(g, y) && !g->centred)
        y = gen_norm(g, y);
    kf_graph_add_result(g->g, y);
    for (uint32_t i = 0; i < p->extra; i++) {
        kf_value e = gen_chance(g, 50) ? extra[i] : gen_any(g);
        e = gen_columns(g, e) == p->width && gen_type(g, e)->rank == 2 ? e : extra[i];
        kf_graph_add_result(g->g, gen_fn(g, KF_FN_tanh, &e));
    }
    for (uint32_t i = 0; i < p->n_kv; i++)
        kf_graph_add_result(g->g, g->new_kv[i]);
}

static kf_value repeated(gen *g, const plan *p, kf_value x)
{
    kf_attr_repeat *a = KF_ATTR_NEW(g->arena, repeat);
    kf_value in[20];
    uint32_t n = 0;

    a->times = p->times;
    a->callee = KF_STR("layer");
    a->weights = KF_STR("layers.{i}.");
    a->iter = 1 + p->extra;
    in[n++] = x;
    for (uint32_t i = 0; i < p->extra; i++)
        in[n++] = gen_like(g, x);
    for (uint32_t i = 0; i < p->n_kv; i++)
        in[n++] = g->kv[i];
    kf_value rest[] = {g->pos, g->seq, g->seq_start, g->past, g->pages, g->table};
    memcpy(in + n, rest, sizeof rest);
    n += p->rope ? 6 : 5;
    kf_value v = gen_node(g, KF_OP_repeat, a, n, in, (range){-12, 12, false});
    for (uint32_t i = 1; i <= p->extra; i++) {
        g->range[v + i] = (range){-1, 1, false};
        gen_keep(g, v + i);
    }
    for (uint32_t i = 0; i < p->n_kv; i++)
        g->new_kv[i] = v + 1 + p->extra + i;
    return gen_keep(g, v);
}

/* ---- main ------------------------------------------------------------------------------------ */

static void rope_table(gen *g)
{
    kf_attr_rope_table *a = KF_ATTR_NEW(g->arena, rope_table);

    a->dim = 4;
    a->theta = gen_pick(g, 2) ? 10000 : 500;
    g->table = gen_node(g, KF_OP_rope_table, a, 1, &g->pos, (range){-1, 1, false});
}

/* Wanted rows, a norm, and the head's product; the table of the embedding again in some cases. */
static kf_value head(gen *g, kf_value x, kf_value rows, kf_value embed)
{
    kf_value pool[GEN_MAX_POOL];
    uint32_t n = g->n_pool;

    memcpy(pool, g->pool, sizeof pool);
    x = gen_node(g, KF_OP_gather, NULL, 2, (kf_value[]){x, rows}, g->range[x]);
    g->rows = kf_dim_sym(KF_SYM_R);
    g->n_pool = 0;
    gen_keep(g, x);
    if (!g->centred && gen_chance(g, 80))
        x = gen_norm(g, x);
    x = body(g, x, gen_pick(g, 2));
    if (g->centred)
        x = gen_layer_norm(g, x);
    if (gen_chance(g, 40)) {
        kf_value v = kf_node_matmul(g->g, x, embed, true, KF_NO_LOC);
        g->range[v] = (range){-40, 40, false};
        x = v;
    } else {
        x = gen_linear(g, x, 10 + gen_pick(g, 30));
    }
    memcpy(g->pool, pool, sizeof pool);
    g->n_pool = n;
    return gen_chance(g, 20) ? gen_word(g, x) : x;
}

static void main_func(gen *g, const plan *p)
{
    begin(g, "main");
    kf_value ids = gen_arg(g, ints(TOKENS), "ids", (range){0, 20, true});
    call_args(g);
    kf_value rows = gen_arg(g, ints(kf_dim_sym(KF_SYM_R)), "logit_rows", (range){0, 63, true});
    page_arg(g);
    cache_args(g, p->n_kv, p->kv, p->times ? p->times : 1);
    g->n_kv = p->times ? 0 : p->n_kv;
    kf_value embed =
        gen_param(g, 2, (kf_dim[]){S(21 + gen_pick(g, 30)), S(p->width)}, g->weights, "embed");
    kf_value x = gen_keep(
        g, gen_node(g, KF_OP_gather, NULL, 2, (kf_value[]){embed, ids}, (range){-2, 2, true}));
    if (p->rope)
        rope_table(g);
    if (gen_chance(g, 25))
        x = body(g, x, 1);
    x = p->times ? repeated(g, p, fit(g, x, p->width)) : body(g, x, 1 + gen_pick(g, 4));
    kf_graph_add_result(g->g, head(g, x, rows, embed));
    for (uint32_t i = 0; i < p->n_kv; i++)
        kf_graph_add_result(g->g, g->new_kv[i]);
}

static kf_dtype any_float(gen *g)
{
    uint32_t n = gen_pick(g, 100);

    return n < 50 ? KF_DTYPE_f32 : n < 80 ? KF_DTYPE_bf16 : KF_DTYPE_f16;
}

kf_module *gen_module(kf_arena *arena, uint64_t seed)
{
    static const int64_t widths[] = {8, 16, 24, 32, 12, 20, 16, 72, 128, 32};
    static const uint32_t dims[] = {4, 8, 6};
    gen g = {.state = seed * 0xd1342543de82ef95u, .arena = arena};
    plan p = {0};

    g.state = random_u64(&g.state);
    g.guard = !gen_chance(&g, 20);
    g.m = kf_module_create(arena, kf_strf(arena, "random_%llu", (unsigned long long)seed));
    kf_module_add_sym(g.m, KF_STR("S"), 1, 8);
    kf_module_add_sym(g.m, KF_STR("N"), 1, 64);
    kf_module_add_sym(g.m, KF_STR("R"), 1, 64);
    kf_module_add_sym(g.m, KF_STR("K"), 1, 512);
    g.centred = gen_chance(&g, 10);
    g.weights = g.centred ? KF_DTYPE_f32 : any_float(&g);
    g.cache = any_float(&g);
    p.width = widths[gen_pick(&g, 10)];
    p.times = gen_chance(&g, 55) ? 1 + gen_pick(&g, 3) : 0;
    p.n_kv = gen_pick(&g, 4) % 3;
    p.extra = p.times && !g.centred && gen_chance(&g, 12) ? (gen_pick(&g, 2) ? 7 - p.n_kv : 1) : 0;
    p.rope = gen_chance(&g, 60);
    for (uint32_t i = 0; i < p.n_kv; i++)
        p.kv[i] = kf_type_kvcache(g.cache, 64, 1 + gen_pick(&g, 2), dims[gen_pick(&g, 3)], 1);
    if (p.times)
        layer(&g, &p);
    main_func(&g, &p);
    return g.m; /* values that nothing uses stay: dce has its work */
}
