/* SPDX-License-Identifier: Apache-2.0 */
/* matmul_region - matmul kernels: pointwise rows times a packed weight, then what the region
 * stores.
 *
 *   tile: tile_m rows x tile_n columns of the product
 *   row values of the prologue (a norm's scale): for r in rows: user[r] = ...     once a tile
 *   A' = prologue(A)                              called back by families/matmul.c
 *   C[rows][tile_n] = A' * W                      families/matmul.c
 *   for each item stored (results, cache planes), its columns [start[t], start[t+1]) of tile t:
 *       for r in rows:
 *           row values (norm scales from statistics), in scalars
 *           for c in columns, lanes at a time: store(value(r, c))     reading C for the product
 *
 * Which item columns belong to a tile, and which tile widths are legal, is what columns.c finds.
 */
#include "base/check.h"
#include "codegen/families/columns.h"
#include "codegen/families/matmul.h"
#include "codegen/kv.h"

/* ---- the parts of the body ------------------------------------------------------------------- */

typedef struct parts {
    const kf_graph *g;
    const kf_node *node; /* the matmul */
    kf_value a, weight;
    kf_value plain_a; /* argument that is A as it stands in memory, or KF_NO_VALUE */
    uint32_t n_rows;  /* row values of the prologue */
    kf_value row_value[8];
    kf_columns columns;
    kf_result_order order;
} parts;

static bool find_matmul(parts *p, kf_sbuf *why)
{
    for (uint32_t i = 0; i < p->g->nodes.len; i++) {
        const kf_node *n = &p->g->nodes.data[i];
        if (n->op != KF_OP_matmul)
            continue;
        if (p->node)
            return kf_refuse(why, "the region has two products");
        p->node = n;
    }
    if (!p->node)
        return kf_refuse(why, "the region has no product");
    p->a = p->node->in[0];
    p->weight = p->node->in[1];
    return true;
}

static bool same_layout(const kf_layout *a, const kf_layout *b)
{
    bool same = a->n_splits == b->n_splits && a->swizzle == b->swizzle;
    for (uint32_t i = 0; same && i < a->n_splits; i++)
        same = a->split[i].dim == b->split[i].dim && a->split[i].block == b->split[i].block;
    return same;
}

static bool check_weight(const kf_target *t, const parts *p, kf_sbuf *why)
{
    const kf_value_info *w = &p->g->values.data[p->weight];
    const kf_type *a = kf_value_type(p->g, p->a);
    const kf_layout wanted = t->weight_layout(t, &w->type);
    if (w->kind != KF_VALUE_ARG || w->type.rank != 2 || !KF_ATTR_OF(p->node, matmul)->trans_b)
        return kf_refuse(why, "the second operand of the product is not a weight [N,K]");
    if (kf_dtype_infos[w->type.dtype].kind != KF_KIND_FLOAT)
        return kf_refuse(why, "weights of dtype %s have no kernel",
                         kf_dtype_infos[w->type.dtype].name);
    if (!same_layout(&w->type.layout, &wanted))
        return kf_refuse(why, "the weight is not stored in the target's order");
    if (a->rank != 2 || kf_dim_is_static(a->dim[0]))
        return kf_refuse(why, "the first operand of the product is not rows [N,K]");
    return true;
}

/* An argument whose memory is A: rows of f32, at most regrouped. */
static kf_value plain_argument(const parts *p)
{
    kf_value v = p->a;
    const kf_dim rows = kf_value_type(p->g, v)->dim[0];
    for (kf_node *n = kf_value_is(p->g, v, KF_OP_reshape); n;
         n = kf_value_is(p->g, v, KF_OP_reshape))
        v = n->in[0];
    const kf_value_info *info = &p->g->values.data[v];
    const bool plain = info->kind == KF_VALUE_ARG && info->type.dtype == KF_DTYPE_f32 &&
                       info->type.layout.n_splits == 0 && kf_dim_eq(info->type.dim[0], rows);
    return plain && kf_value_type(p->g, p->a)->dim[1].size % 2 == 0 ? v : KF_NO_VALUE;
}

/* What no prologue can hold: other kernels' work, and rows that need whole rows first. */
static bool check_prologue_op(const kf_node *n, kf_sbuf *why)
{
    const kf_op op = n->op;
    if (op == KF_OP_row_reduce && KF_ATTR_OF(n, row_reduce)->keep)
        return kf_refuse(why, "a row_reduce in the prologue has to give one value a row");
    if (op == KF_OP_matmul || op == KF_OP_kv_append || op == KF_OP_kv_read ||
        op == KF_OP_kv_index || op == KF_OP_attention || op == KF_OP_row_stat ||
        op == KF_OP_rope_table)
        return kf_refuse(why, "%s cannot stand in the prologue of a matmul", kf_op_infos[op].name);
    return true;
}

/* Walks the prologue and collects its row values: what is one number for each row of A, computed
 * once a tile. Nothing is collected inside one. |seen|, by value: walked inside a row value (1), or
 * outside too (2). */
static bool check_prologue(parts *p, kf_value v, uint8_t how, uint8_t *seen, kf_sbuf *why)
{
    const kf_node *n = kf_value_node(p->g, v);
    const kf_type *t = kf_value_type(p->g, v);
    if (!n || seen[v] >= how)
        return true;
    seen[v] = how;
    const bool row_value = t->rank == 2 && kf_dim_eq(t->dim[1], kf_dim_static(1)) &&
                           kf_dim_eq(t->dim[0], kf_value_type(p->g, p->a)->dim[0]);
    if (!check_prologue_op(n, why))
        return false;
    if (n->op == KF_OP_row_reduce && !row_value && how == 2)
        return kf_refuse(why, "a row_reduce in the prologue has to give one value a row");
    if (row_value && how == 2) {
        if (p->n_rows == sizeof p->row_value / sizeof p->row_value[0])
            return kf_refuse(why, "the prologue needs more than %u values a row", p->n_rows);
        p->row_value[p->n_rows++] = v;
        how = 1;
    }
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!check_prologue(p, n->in[i], how, seen, why))
            return false;
    return true;
}

static bool same_place(const kf_graph *g, const kf_column_item *a, const kf_column_item *b)
{
    bool same = a->plane < 0 && b->plane < 0 &&
                kf_same_dims(kf_value_type(g, a->value), kf_value_type(g, b->value));
    for (uint32_t j = 0; same && j < a->n; j++)
        same = a->first[j] == b->first[j] && a->last[j] == b->last[j];
    return same;
}

/* Results of one shape may lie over an argument of their type that they share, but only if the same
 * tile makes both. */
static bool check_sharing(const parts *p, kf_arena *arena, kf_sbuf *why)
{
    const kf_graph *g = p->g;
    const kf_columns *c = &p->columns;
    for (uint32_t k = 0; k < g->args.len; k++) {
        const bool *reads = kf_dependents(g, g->args.data[k], arena);
        if (reads[p->a]) /* a matmul operand is never stored over */
            continue;
        const kf_type *t = kf_value_type(g, g->args.data[k]);
        for (uint32_t i = 0; i < c->n_items; i++)
            for (uint32_t j = 0; j < i; j++) {
                const kf_type *a = kf_value_type(g, c->item[i].value);
                const kf_type *b = kf_value_type(g, c->item[j].value);
                if (kf_type_eq(t, a) && kf_type_eq(t, b) && reads[c->item[i].value] &&
                    reads[c->item[j].value] && !same_place(g, &c->item[i], &c->item[j]))
                    return kf_refuse(why,
                                     "results %u and %u share an operand of their shape but "
                                     "not their columns",
                                     c->item[j].result, c->item[i].result);
            }
    }
    return true;
}

static bool take_apart(const kf_target *t, const kf_graph *g, kf_arena *arena, parts *p,
                       kf_sbuf *why)
{
    *p = (parts){.g = g};
    if (!kf_body_is_pointwise(g, why) || !find_matmul(p, why) || !check_weight(t, p, why))
        return false;
    if (!check_prologue(p, p->a, 2, KF_NEW_N(arena, uint8_t, g->values.len), why))
        return false;
    p->plain_a = plain_argument(p);
    return kf_columns_trace(g, p->node->out[0], arena, &p->columns, why) &&
           check_sharing(p, arena, why) && kf_order_results(g, arena, &p->order, why);
}

/* ---- configuration --------------------------------------------------------------------------- */

/* C of a tile stays below this, or rows are taken off it. A tile wider than MAX_TILE_N would leave
 * workers idle: whole rows of a wide product are normalised by a kernel of their own. */
enum { MAX_C_BYTES = 512 << 10, MAX_TILE_N = 1024 };

static uint32_t panels_of(uint32_t n)
{
    return (n + KF_PANEL - 1) / KF_PANEL * KF_PANEL;
}

/* Narrowest legal tile at least as wide as |wanted|, else the widest legal one below; 0: none. */
static uint32_t legal_tile_n(const parts *p, uint32_t n, uint32_t wanted)
{
    const uint32_t all = panels_of(n);
    for (uint32_t w = wanted; w < all && w <= MAX_TILE_N; w += KF_PANEL)
        if (kf_columns_tile_ok(&p->columns, p->g, w))
            return w;
    if (all <= MAX_TILE_N && kf_columns_tile_ok(&p->columns, p->g, all))
        return all;
    for (uint32_t w = wanted; w >= KF_PANEL; w -= KF_PANEL)
        if (kf_columns_tile_ok(&p->columns, p->g, w))
            return w;
    return 0;
}

static kf_matmul_config shape_of(const parts *p, int64_t rows_hi)
{
    const kf_type *w = kf_value_type(p->g, p->weight);
    kf_matmul_config c = {.n = (uint32_t)w->dim[0].size, .k = (uint32_t)w->dim[1].size};
    c.weight = w->dtype == KF_DTYPE_f32   ? KF_WEIGHT_F32
               : w->dtype == KF_DTYPE_f16 ? KF_WEIGHT_F16
                                          : KF_WEIGHT_BF16;
    c.max_rows = (uint32_t)kf_dim_bound(p->g, kf_value_type(p->g, p->a)->dim[0], rows_hi);
    return c;
}

static void fit_tile_n(kf_matmul_config *c, uint32_t tile_n)
{
    c->tile_n = tile_n;
    while (c->nr > KF_PANEL && tile_n % c->nr != 0)
        c->nr -= KF_PANEL;
    while (c->form == KF_MATMUL_BLOCK && c->tile_m > c->mr && c->tile_m * tile_n * 4 > MAX_C_BYTES)
        c->tile_m -= c->tile_m > 2 * c->mr ? c->mr : 1;
}

static bool match(const kf_target *t, const kf_graph *g, kf_arena *scratch, kf_sbuf *why)
{
    parts p;
    if (!take_apart(t, g, scratch, &p, why))
        return false;
    const uint32_t n = (uint32_t)kf_value_type(g, p.weight)->dim[0].size;
    if (!legal_tile_n(&p, n, 64))
        return kf_refuse(why, "no tile of columns holds what the epilogue reads together");
    return true;
}

static kf_kernel_shape configure(const kf_target *t, const kf_graph *g, kf_arena *scratch,
                                 int64_t rows_hi)
{
    parts p;
    const char *rule;
    KF_ASSERT(take_apart(t, g, scratch, &p, NULL), "a body is configured after it has matched");
    kf_matmul_config c = shape_of(&p, rows_hi);
    kf_matmul_configure(&c, kf_target_lanes(t), kf_target_regs(t));
    fit_tile_n(&c, legal_tile_n(&p, c.n, c.tile_n));
    c.user_bytes = c.tile_m * p.n_rows * 4;
    KF_ASSERT(kf_matmul_config_ok(&c, kf_target_regs(t), &rule), "the chosen tiling is legal");
    kf_kernel_shape s = {.scratch_bytes = (int64_t)kf_matmul_scratch_bytes(&c)};
    kf_config_set(&s.config, "stream", c.form == KF_MATMUL_STREAM);
    kf_config_set(&s.config, "max_rows", c.max_rows);
    kf_config_set(&s.config, "tile_m", c.tile_m);
    kf_config_set(&s.config, "tile_n", c.tile_n);
    kf_config_set(&s.config, "mr", c.mr);
    kf_config_set(&s.config, "nr", c.nr);
    kf_config_set(&s.config, "kc", c.kc);
    kf_config_set(&s.config, "k_unroll", c.k_unroll);
    kf_config_set(&s.config, "prefetch", c.prefetch_bytes);
    s.tiles.constant = (c.n + c.tile_n - 1) / c.tile_n;
    s.tiles.n_terms = 1;
    s.tiles.term[0].sym = kf_value_type(g, p.a)->dim[0].sym - 1;
    s.tiles.term[0].div = c.tile_m;
    return s;
}

/* The tiling that |config| describes. */
static kf_matmul_config read_config(const kf_emit *e, const parts *p)
{
    const kf_config *k = e->config;
    kf_matmul_config c = shape_of(p, kf_config_get(k, "max_rows"));
    c.form = kf_config_get(k, "stream") ? KF_MATMUL_STREAM : KF_MATMUL_BLOCK;
    c.tile_m = (uint32_t)kf_config_get(k, "tile_m");
    c.tile_n = (uint32_t)kf_config_get(k, "tile_n");
    c.mr = (uint32_t)kf_config_get(k, "mr");
    c.nr = (uint32_t)kf_config_get(k, "nr");
    c.kc = (uint32_t)kf_config_get(k, "kc");
    c.k_unroll = (uint32_t)kf_config_get(k, "k_unroll");
    c.prefetch_bytes = (uint32_t)kf_config_get(k, "prefetch");
    c.lanes = kb_lanes(e->b);
    c.user_bytes = c.tile_m * p->n_rows * 4;
    return c;
}

/* ---- emission -------------------------------------------------------------------------------- */

typedef struct region {
    const kf_emit *e;
    parts p;
    kf_pw pw;
    const kf_matmul_tile *tile;
    uint32_t n_tiles; /* of columns */
} region;

static int row_value_index(const region *r, kf_value v)
{
    for (uint32_t i = 0; i < r->p.n_rows; i++)
        if (r->p.row_value[i] == v)
            return (int)i;
    return -1;
}

static bool is_leaf(void *user, kf_value v)
{
    const region *r = user;
    return v == r->p.columns.matmul || row_value_index(r, v) >= 0;
}

/* The product from the tile in scratch; a row value from where the tile began. */
static kb_value load_leaf(kf_pw *pw, void *user, kf_value v, const kf_coord *ix)
{
    const region *r = user;
    kb *b = pw->b;
    const int value = row_value_index(r, v);
    kb_value row = kb_sub(b, ix[0].v, r->tile->row0);
    KF_ASSERT(ix[0].kind == KF_COORD_UNIFORM, "rows are walked one by one");
    if (value >= 0) {
        kb_value at = kb_addi(b, kb_muli(b, row, r->p.n_rows), value);
        return kf_pw_load(pw, KF_DTYPE_f32, r->tile->user, kf_coord_uniform(at, 1));
    }
    kb_value base = kb_index(b, r->tile->c, KB_F32, kb_muli(b, row, r->tile->ldc));
    kb_value back = kb_sub(b, kb_i64(b, 0), r->tile->col0);
    return kf_pw_load(pw, KF_DTYPE_f32, base,
                      kf_coord_add(b, ix[1], kf_coord_uniform(back, KF_PANEL)));
}

/* user[row][i] = row value i. They are computed from their definitions, so without the leaves. */
static void begin(kb *b, void *user, const kf_matmul_tile *tile)
{
    region *r = user;
    r->tile = tile;
    if (r->p.n_rows == 0)
        return;
    kf_pw pw = kf_pw_make(r->e->arena, b, r->e->body, NULL);
    kb_loop l;
    kb_loop_begin(b, &l, kb_i64(b, 0), tile->rows, 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&pw);
    const kf_coord ix[2] = {kf_coord_uniform(kb_add(b, tile->row0, l.iv), 1), kf_coord_const(b, 0)};
    kb_value row = kb_muli(b, l.iv, r->p.n_rows);
    for (uint32_t i = 0; i < r->p.n_rows; i++) {
        kb_value v = kf_pw_number(&pw, r->p.row_value[i], ix, 1);
        const kf_coord at = kf_coord_uniform(kb_addi(b, row, i), 1);
        kf_pw_store(&pw, KF_DTYPE_f32, v, KF_DTYPE_f32, tile->user, at);
    }
    kf_pw_release(&pw, mark);
    kb_loop_end(b, &l, NULL);
}

/* Row values, and gain and bias at |k|, ahead of the rows and columns that are made of them. */
static uint32_t prepare(kb *b, void *user, kb_value row, kb_value k, uint32_t lanes)
{
    region *r = user;
    const uint32_t mark = kf_pw_mark(&r->pw);
    kf_coord ix[2] = {kf_coord_later(), kf_coord_later()};
    (void)b;
    if (row)
        ix[0] = kf_coord_uniform(row, 1);
    if (k) {
        const kf_coord whole[2] = {kf_coord_uniform(NULL, 1), kf_coord_ramp(k, lanes, lanes)};
        if (lanes > 1 && !kf_pw_feasible(&r->pw, r->p.a, whole))
            return mark; /* the lanes are computed one by one */
        ix[1] = whole[1];
    }
    kf_pw_prepare(&r->pw, r->p.a, ix);
    return mark;
}

static void release(void *user, uint32_t mark)
{
    region *r = user;
    kf_pw_release(&r->pw, mark);
}

static kb_value a_value(kb *b, void *user, const kf_matmul_tile *tile, kb_value row, kb_value k,
                        uint32_t lanes)
{
    region *r = user;
    (void)b;
    (void)tile;
    const uint32_t mark = kf_pw_mark(&r->pw);
    kf_coord ix[2] = {kf_coord_uniform(row, 1), kf_coord_ramp(k, lanes, lanes)};
    kb_value parts_of[64];
    kb_value v = NULL;
    if (lanes == 1 || kf_pw_feasible(&r->pw, r->p.a, ix)) {
        v = kf_pw_number(&r->pw, r->p.a, ix, lanes);
    } else {
        v = kb_f32(b, lanes, 0.0f);
        for (uint32_t i = 0; i < lanes; i++) {
            ix[1] = kf_coord_uniform(kb_addi(b, k, i), 1);
            parts_of[i] = kf_pw_number(&r->pw, r->p.a, ix, 1);
            v = kb_insert(b, v, parts_of[i], i);
        }
    }
    kf_pw_release(&r->pw, mark);
    return v;
}

/* Item columns of this tile. Evenly spread starts are arithmetic, others a table. */
static kf_range item_range(region *r, const kf_column_item *item)
{
    kb *b = r->e->b;
    const uint32_t tile_n = r->tile->config->tile_n;
    const int32_t *start = kf_columns_starts(item, r->e->arena, tile_n, r->n_tiles);
    kb_value t = kb_udiv(b, r->tile->col0, kb_i64(b, tile_n));
    kf_range range = {.divisor = KF_COORD_ANY};
    const int64_t step = r->n_tiles > 1 ? start[1] : start[r->n_tiles];
    bool even = true;
    for (uint32_t i = 0; i <= r->n_tiles; i++) {
        even = even && start[i] == (step * i < item->n ? step * i : item->n);
        for (int64_t a = start[i]; a % range.divisor != 0;)
            range.divisor /= 2;
    }
    if (even) {
        kb_value n = kb_i64(b, item->n); /* tiles behind the item's columns have an empty range */
        range.lo = kb_min(b, kb_muli(b, t, step), n);
        range.hi = kb_min(b, kb_addi(b, range.lo, step), n);
        return range;
    }
    kb_value table = kb_table_i32(b, start, r->n_tiles + 1);
    range.lo = kb_sext(b, kb_load(b, KB_I32, 1, kb_index(b, table, KB_I32, t), 4), KB_I64);
    range.hi =
        kb_sext(b, kb_load(b, KB_I32, 1, kb_index(b, table, KB_I32, kb_addi(b, t, 1)), 4), KB_I64);
    return range;
}

static bool starts_divide(const region *r, const kf_column_item *item, int64_t by)
{
    const int32_t *start =
        kf_columns_starts(item, r->e->arena, r->tile->config->tile_n, r->n_tiles);
    for (uint32_t i = 0; i <= r->n_tiles; i++)
        if (start[i] % by != 0)
            return false;
    return true;
}

static kf_range tile_rows(const region *r)
{
    return (kf_range){r->tile->row0, kb_add(r->e->b, r->tile->row0, r->tile->rows), 1};
}

static void emit_append_item(region *r, const kf_column_item *item)
{
    kb *b = r->e->b;
    const kf_graph *g = r->e->body;
    const kf_node *n = kf_value_node(g, g->results.data[item->result]);
    kb_value size = kb_i64(b, kf_value_type(g, item->value)->dim[2].size);
    kf_range heads = item_range(r, item), rows = tile_rows(r);
    heads.lo = kb_udiv(b, heads.lo, size);
    heads.hi = kb_udiv(b, heads.hi, size);
    kb_loop l;
    kb_loop_begin(b, &l, rows.lo, rows.hi, 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&r->pw);
    kf_kv_append_row(&r->pw, n, item->plane, kf_coord_uniform(l.iv, 1), heads.lo, heads.hi);
    kf_pw_release(&r->pw, mark);
    kb_loop_end(b, &l, NULL);
}

/* Whole inner dims get a loop of their own where the tile holds whole ones, so that what belongs to
 * a head is computed once a head. */
static void emit_tensor_item(region *r, const kf_column_item *item, uint32_t n,
                             const kf_value *value, const kb_value *dst)
{
    kb *b = r->e->b;
    const kf_type *t = kf_value_type(r->e->body, item->value);
    kf_nest nest = {.type = t, .flat = t->rank > 1 ? 1 : 0, .n = n, .value = value};
    nest.range[0] = tile_rows(r);
    if (t->rank > 1) {
        const uint32_t flat = t->rank == 3 ? kf_nest_flat(t, 0, kb_lanes(b)) : 1;
        nest.range[1] = item_range(r, item);
        if (flat == 2 && starts_divide(r, item, t->dim[2].size)) {
            nest.flat = 2;
            nest.range[1].lo = kb_udiv(b, nest.range[1].lo, kb_i64(b, t->dim[2].size));
            nest.range[1].hi = kb_udiv(b, nest.range[1].hi, kb_i64(b, t->dim[2].size));
        }
    }
    kf_nest_store(&r->pw, &nest, dst);
}

/* Items of one shape and place go through one loop, all read before any is stored. */
static void emit_group(region *r, uint32_t first, bool *done)
{
    const kf_columns *c = &r->p.columns;
    kf_value value[KF_MAX_RESULTS];
    kb_value dst[KF_MAX_RESULTS];
    uint32_t n = 0;
    for (uint32_t i = first; i < c->n_items; i++) {
        if (done[i] || !same_place(r->e->body, &c->item[first], &c->item[i]))
            continue;
        done[i] = true;
        value[n] = c->item[i].value;
        dst[n++] = kf_result_ptr(r->e, c->item[i].result);
    }
    emit_tensor_item(r, &c->item[first], n, value, dst);
}

/* Whether some tile has none of the item's columns. What is the same for all columns is computed in
 * front of the loop over them, so there the loop must not be reached: with a single column that is
 * the product itself, which lies in another tile. */
static bool misses_a_tile(const region *r, const kf_column_item *item)
{
    const int32_t *start =
        kf_columns_starts(item, r->e->arena, r->tile->config->tile_n, r->n_tiles);
    for (uint32_t i = 0; i < r->n_tiles; i++)
        if (start[i] == start[i + 1])
            return true;
    return false;
}

static void emit_item(region *r, uint32_t i, bool *done)
{
    kb *b = r->e->b;
    const kf_column_item *item = &r->p.columns.item[i];
    const bool guarded = misses_a_tile(r, item);
    const uint32_t mark = kf_pw_mark(&r->pw);
    kb_if some;
    if (guarded) {
        const kf_range columns = item_range(r, item);
        kb_if_begin(b, &some, kb_icmp(b, KB_LT, columns.lo, columns.hi));
    }
    if (item->plane >= 0)
        emit_append_item(r, item);
    else
        emit_group(r, i, done);
    if (guarded) {
        kf_pw_release(&r->pw, mark);
        kb_if_end(b, &some);
    }
}

static void epilogue(kb *b, void *user, const kf_matmul_tile *tile)
{
    region *r = user;
    const kf_columns *c = &r->p.columns;
    bool done[2 * KF_MAX_RESULTS] = {false};
    (void)b;
    r->tile = tile;
    for (uint32_t group = 0; group < r->p.order.n_groups; group++)
        for (uint32_t i = 0; i < c->n_items; i++)
            if (!done[i] && r->p.order.group[c->item[i].result] == group)
                emit_item(r, i, done);
}

static void emit(const kf_emit *e)
{
    region r = {.e = e};
    KF_ASSERT(take_apart(e->target, e->body, e->arena, &r.p, NULL),
              "a body is emitted after it has matched");
    const kf_pw_leaves leaves = {&r, is_leaf, load_leaf, NULL};
    r.pw = kf_pw_make(e->arena, e->b, e->body, &leaves);
    r.pw.kv_layers = e->kv_layers;
    const kf_matmul_config c = read_config(e, &r.p);
    r.n_tiles = (c.n + c.tile_n - 1) / c.tile_n;
    kf_matmul_hooks hooks = {.user = &r, .begin = begin, .epilogue = epilogue};
    hooks.weight_operand = e->body->values.data[r.p.weight].def;
    hooks.rows_dim = kf_value_type(e->body, r.p.a)->dim[0].sym - 1;
    if (r.p.plain_a == KF_NO_VALUE) {
        hooks.a_value = a_value;
        hooks.prepare = prepare;
        hooks.release = release;
    } else {
        hooks.a_operand = e->body->values.data[r.p.plain_a].def;
        hooks.a_stride = c.k;
    }
    kf_emit_matmul_tile(e->b, &c, &hooks);
}

static bool check(const kf_emit *e, kf_sbuf *why)
{
    static const char *const keys[] = {"max_rows", "tile_m",   "tile_n",   "mr",    "nr",
                                       "kc",       "k_unroll", "prefetch", "stream"};
    parts p;
    const char *rule;
    for (uint32_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (!kf_config_in(e->config, keys[i], 0, 1 << 20, why))
            return false;
    KF_ASSERT(take_apart(e->target, e->body, e->arena, &p, NULL),
              "a body is checked after it matched");
    const kf_matmul_config c = read_config(e, &p);
    if (!kf_matmul_config_ok(&c, kf_target_regs(e->target), &rule))
        return kf_refuse(why, "config: %s", rule);
    if (!kf_columns_tile_ok(&p.columns, e->body, c.tile_n))
        return kf_refuse(why, "config: tiles of %u columns cut what the epilogue reads together",
                         c.tile_n);
    return true;
}

const kf_family_impl kf_family_matmul = {match, configure, check, emit};
