/* SPDX-License-Identifier: Apache-2.0 */
/* gen_module - functions around the motifs: an embedding, layers inline or repeated, a head; an
 * encoder, and the memory that it leaves. */
#include "tests/graphs/gen.h"
#include "tests/unit/support.h"

#include <math.h>
#include <string.h>

#define S(x)   kf_dim_static(x)
#define TOKENS kf_dim_sym(KF_SYM_N)

/** An entry with its layers. */
typedef struct part {
    const char *entry, *layer, *weights; /* names */
    const char *kv_names[GEN_MAX_KV];
    int64_t width;
    uint32_t n_kv, times, extra; /* iteration arguments beside the rows */
    kf_type kv[GEN_MAX_KV];
    bool rope, ahead;
    bool rows;                    /* returns all its rows, not some behind a head */
    uint32_t n_memory, memory_in; /* memories; in that many layers */
    kf_type memory[GEN_MAX_KV];
} part;

static const char *const memory_names[GEN_MAX_KV] = {"memory", "memory_1"};

/* ---- arguments ------------------------------------------------------------------------------- */

static kf_type ints(kf_dim d)
{
    return kf_type_tensor(KF_DTYPE_i32, 1, &d);
}

static kf_type rows_type(int64_t width)
{
    return kf_type_tensor(KF_DTYPE_f32, 2, (kf_dim[]){TOKENS, S(width)});
}

static kf_type table_type(void)
{
    return kf_type_tensor(KF_DTYPE_f32, 3, (kf_dim[]){TOKENS, S(2), S(2)});
}

static void begin(gen *g, const char *name)
{
    g->g = kf_module_add_func(g->m, kf_str_from(name));
    g->rows = TOKENS;
    g->range = KF_NEW_N(g->arena, range, 8 * GEN_MAX_VALUES);
    g->n_pool = g->n_kv = g->n_memory = 0;
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

static kf_value page_arg(gen *g, const char *name)
{
    kf_dim dims[] = {kf_dim_sym(KF_SYM_S), S(8)};

    return gen_arg(g, kf_type_tensor(KF_DTYPE_i32, 2, dims), name, (range){0});
}

/* Caches of |layers| layers. */
static void kv_args(gen *g, uint32_t n, const kf_type *types, const char *const *names,
                    uint32_t layers, kf_value *out)
{
    for (uint32_t i = 0; i < n; i++) {
        kf_type t = types[i];
        t.kv_layers = layers;
        out[i] = gen_arg(g, t, names[i], (range){0});
    }
}

/* The caches, and what an encoder left, for |layers| layers, or |memory_in| of those. */
static void cache_args(gen *g, const part *p, uint32_t layers, uint32_t memory_in)
{
    kv_args(g, p->n_kv, p->kv, p->kv_names, layers, g->kv);
    memcpy(g->new_kv, g->kv, sizeof g->kv);
    g->n_kv = p->n_kv;
    kv_args(g, p->n_memory, p->memory, memory_names, memory_in, g->memory);
}

/* How much an encoder left; for whoever reads it. */
static void memory_args(gen *g, const part *p)
{
    if (!p->n_memory || p->ahead)
        return;
    g->memory_len = gen_arg(g, ints(kf_dim_sym(KF_SYM_S)), "memory_len", (range){0});
    g->memory_pages = page_arg(g, "memory_pages");
    g->n_memory = p->n_memory;
}

static void return_caches(gen *g, const part *p)
{
    for (uint32_t i = 0; i < p->n_kv; i++)
        kf_graph_add_result(g->g, g->new_kv[i]);
    for (uint32_t i = 0; i < p->n_memory; i++)
        kf_graph_add_result(g->g, g->memory[i]);
}

/* ---- a repeated layer ------------------------------------------------------------------------ */

static void layer(gen *g, const part *whole)
{
    static const char *const names[] = {"y0", "y1", "y2", "y3", "y4", "y5", "y6"};
    const range r = {-12, 12, false};
    kf_value extra[8];
    part p = *whole;

    p.n_memory = p.ahead ? 0 : p.n_memory; /* filled behind the last layer */
    begin(g, p.layer);
    kf_value x = gen_keep(g, gen_arg(g, rows_type(p.width), "x", r));
    for (uint32_t i = 0; i < p.extra; i++)
        extra[i] = gen_keep(g, gen_arg(g, rows_type(p.width), names[i], r));
    cache_args(g, &p, 1, 1);
    call_args(g);
    g->pages = page_arg(g, "pages");
    memory_args(g, &p);
    if (p.rope)
        g->table = gen_arg(g, table_type(), "rope", (range){-1, 1, false});
    kf_value y = gen_body(g, x, 1 + gen_pick(g, 4));
    if (gen_is_large(g, y) && !g->centred)
        y = gen_norm(g, y);
    kf_graph_add_result(g->g, y);
    for (uint32_t i = 0; i < p.extra; i++) {
        kf_value e = gen_chance(g, 50) ? extra[i] : gen_any(g);
        e = gen_columns(g, e) == p.width && gen_type(g, e)->rank == 2 ? e : extra[i];
        kf_graph_add_result(g->g, gen_fn(g, KF_FN_tanh, &e));
    }
    return_caches(g, &p);
}

static kf_attr_repeat *repeat_of(gen *g, uint32_t times, const char *callee, const char *weights)
{
    kf_attr_repeat *a = KF_ATTR_NEW(g->arena, repeat);

    a->times = times;
    a->callee = kf_str_from(callee);
    a->weights = kf_str_from(weights);
    return a;
}

static kf_value repeated(gen *g, const part *p, kf_value x)
{
    kf_attr_repeat *a = repeat_of(g, p->times, p->layer, p->weights);
    uint32_t n = 0, n_memory = p->ahead ? 0 : p->n_memory;
    kf_value in[24];

    a->iter = 1 + p->extra;
    in[n++] = x;
    for (uint32_t i = 0; i < p->extra; i++)
        in[n++] = gen_like(g, x);
    for (uint32_t i = 0; i < p->n_kv; i++)
        in[n++] = g->kv[i];
    for (uint32_t i = 0; i < n_memory; i++)
        in[n++] = g->memory[i];
    const kf_value rest[] = {g->pos, g->seq, g->seq_start, g->past, g->pages};
    memcpy(in + n, rest, sizeof rest);
    n += sizeof rest / sizeof rest[0];
    if (n_memory) {
        in[n++] = g->memory_len;
        in[n++] = g->memory_pages;
    }
    if (p->rope)
        in[n++] = g->table;
    kf_value v = gen_node(g, KF_OP_repeat, a, n, in, (range){-12, 12, false});
    for (uint32_t i = 1; i <= p->extra; i++) {
        g->range[v + i] = (range){-1, 1, false};
        gen_keep(g, v + i);
    }
    for (uint32_t i = 0; i < p->n_kv; i++)
        g->new_kv[i] = v + 1 + p->extra + i;
    for (uint32_t i = 0; i < n_memory; i++)
        g->memory[i] = v + 1 + p->extra + p->n_kv + i;
    return gen_keep(g, v);
}

/* ---- a memory -------------------------------------------------------------------------------- */

/* One layer of the memories, filled from the rows. */
static void memory_layer(gen *g, const part *p)
{
    begin(g, "memory_layer");
    kv_args(g, p->n_memory, p->memory, memory_names, 1, g->memory);
    kf_value x = gen_arg(g, rows_type(p->width), "x", (range){-12, 12, false});
    g->pos = gen_arg(g, ints(TOKENS), "pos", (range){0, 63, true});
    g->seq = gen_arg(g, ints(TOKENS), "seq", (range){0, 7, true});
    g->pages = page_arg(g, "pages");
    for (uint32_t i = 0; i < p->n_memory; i++)
        kf_graph_add_result(g->g, gen_append(g, g->memory[i], x, false));
}

static void fill_memory(gen *g, const part *p, kf_value x)
{
    if (p->memory_in > 1) {
        kf_attr_repeat *a = repeat_of(g, p->memory_in, "memory_layer", "layers.{i}.");
        kf_value in[GEN_MAX_KV + 4];
        memcpy(in, g->memory, sizeof g->memory);
        const kf_value rest[] = {x, g->pos, g->seq, g->pages};
        memcpy(in + p->n_memory, rest, sizeof rest);
        kf_value v = gen_node(g, KF_OP_repeat, a, p->n_memory + 4, in, (range){0});
        for (uint32_t i = 0; i < p->n_memory; i++)
            g->memory[i] = v + i;
        return;
    }
    for (uint32_t i = 0; i < p->n_memory; i++)
        g->memory[i] = gen_append(g, g->memory[i], x, gen_chance(g, 30));
}

/* ---- entries --------------------------------------------------------------------------------- */

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
    x = gen_node(g, KF_OP_gather, NULL, 2, (kf_value[]){x, rows}, g->range[x]);
    g->rows = kf_dim_sym(KF_SYM_R);
    g->n_pool = 0;
    gen_keep(g, x);
    if (!g->centred && gen_chance(g, 80))
        x = gen_norm(g, x);
    x = gen_body(g, x, gen_pick(g, 2));
    if (g->centred)
        x = gen_layer_norm(g, x);
    if (gen_chance(g, 40)) {
        kf_value v = kf_node_matmul(g->g, x, embed, true, KF_NO_LOC);
        g->range[v] = (range){-40, 40, false};
        x = v;
    } else {
        x = gen_linear(g, x, 10 + gen_pick(g, 30));
    }
    return gen_chance(g, 20) ? gen_word(g, x) : x;
}

static void entry(gen *g, const part *p)
{
    kf_value rows = KF_NO_VALUE;

    begin(g, p->entry);
    kf_value ids = gen_arg(g, ints(TOKENS), "ids", (range){0, 20, true});
    call_args(g);
    if (!p->rows)
        rows = gen_arg(g, ints(kf_dim_sym(KF_SYM_R)), "logit_rows", (range){0, 63, true});
    g->pages = page_arg(g, "pages");
    cache_args(g, p, p->times ? p->times : 1, p->memory_in);
    g->n_kv = p->times ? 0 : p->n_kv;
    memory_args(g, p);
    g->n_memory = p->times ? 0 : g->n_memory;
    kf_value embed =
        gen_param(g, 2, (kf_dim[]){S(21 + gen_pick(g, 30)), S(p->width)}, g->weights, "embed");
    kf_value x = gen_keep(
        g, gen_node(g, KF_OP_gather, NULL, 2, (kf_value[]){embed, ids}, (range){-2, 2, true}));
    if (p->rope)
        rope_table(g);
    if (gen_chance(g, 25))
        x = gen_body(g, x, 1);
    x = p->times ? repeated(g, p, gen_fit(g, x, p->width)) : gen_body(g, x, 1 + gen_pick(g, 4));
    if (p->rows)
        x = gen_norm(g, x);
    if (p->ahead)
        fill_memory(g, p, x);
    kf_graph_add_result(g->g, p->rows ? x : head(g, x, rows, embed));
    return_caches(g, p);
}

/* An entry and what it calls. */
static void write_part(gen *g, const part *p)
{
    g->ahead = p->ahead;
    if (p->times)
        layer(g, p);
    if (p->ahead && p->memory_in > 1)
        memory_layer(g, p);
    entry(g, p);
}

/* ---- modules --------------------------------------------------------------------------------- */

static kf_dtype any_float(gen *g)
{
    uint32_t n = gen_pick(g, 100);

    return n < 50 ? KF_DTYPE_f32 : n < 80 ? KF_DTYPE_bf16 : KF_DTYPE_f16;
}

static uint32_t random_caches(gen *g, uint32_t n, kf_type *out)
{
    static const uint32_t dims[] = {4, 8, 6};

    for (uint32_t i = 0; i < n; i++)
        out[i] = kf_type_kvcache(g->cache, 64, 1 + gen_pick(g, 2), dims[gen_pick(g, 3)], 1);
    return n;
}

static part random_part(gen *g, part p)
{
    static const int64_t widths[] = {8, 16, 24, 32, 12, 20, 16, 72, 128, 32};

    p.width = widths[gen_pick(g, 10)];
    p.times = gen_chance(g, 55) ? 1 + gen_pick(g, 3) : 0;
    p.n_kv = random_caches(g, gen_pick(g, 4) % 3, p.kv);
    p.rope = gen_chance(g, 60);
    return p;
}

static void random_extra(gen *g, part *p)
{
    uint32_t most = 7 - p->n_kv - p->n_memory;

    if (p->times && !g->centred && gen_chance(g, 12))
        p->extra = gen_pick(g, 2) ? most : 1;
}

/* A decoder, an encoder, or both with memories in between. */
static void write_entries(gen *g)
{
    uint32_t what = gen_pick(g, 100);
    part d = {
        .entry = "main", .layer = "layer", .weights = "layers.{i}.", .kv_names = {"kv", "kv_1"}};
    part e = {.entry = "encoder",
              .layer = "encoder_layer",
              .weights = "encoder.{i}.",
              .kv_names = {"encoder_kv", "encoder_kv_1"},
              .ahead = true};

    d = random_part(g, d);
    e = random_part(g, e);
    if (what >= 6 && what < 18) {
        kf_module_add_sym(g->m, KF_STR("M"), 1, 512);
        e.rows = true;
        e.n_memory = d.n_memory = random_caches(g, 1 + gen_pick(g, 2), d.memory);
        e.memory_in = d.memory_in = d.times ? d.times : 1;
        memcpy(e.memory, d.memory, sizeof d.memory);
    }
    random_extra(g, &e);
    random_extra(g, &d);
    if (what < 18)
        write_part(g, &e);
    if (what >= 6)
        write_part(g, &d);
}

kf_module *gen_module(kf_arena *arena, uint64_t seed)
{
    gen g = {.state = seed * 0xd1342543de82ef95u, .arena = arena};

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
    write_entries(&g);
    if (gen_chance(&g, 12))
        gen_regions(&g);
    return g.m; /* values that nothing uses stay: dce has its work */
}
