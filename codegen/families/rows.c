/* SPDX-License-Identifier: Apache-2.0 */
/* rows - map, row_reduce, contract and index kernels: results computed row by row from arguments.
 *
 *   tile t: rows [t * tile_rows, +tile_rows) of the tiled dim, the first dynamic one
 *   for each group of results of one shape:
 *       for row in rows, and the outer dims around and inside:
 *           reductions of the row, in scalars                 (row_reduce: norms, softmax)
 *           for c in columns, lanes at a time: result[row, c] = value
 *   for each cache that is appended to:
 *       for row in rows: for head: store keys and values at pages[seq, pos / page]
 *
 * A product of two activations (contract) is a loop over the contracted dim per vector of results:
 * right for any operand order and dynamic sizes; the fast product is the matmul family.
 */
#include "base/check.h"
#include "codegen/families/family.h"
#include "codegen/kv.h"

/* ---- the tiled dim --------------------------------------------------------------------------- */

/* Shape that a result is computed over: its own, or that of the keys which kv_append stores. */
static const kf_type *work_type(const kf_graph *g, kf_value v)
{
    const kf_node *append = kf_value_is(g, v, KF_OP_kv_append);
    return kf_value_type(g, append ? append->in[1] : v);
}

static kf_dim tiled_dim(const kf_graph *g)
{
    const kf_type *t = work_type(g, g->results.data[0]);
    for (uint32_t i = 0; i < t->rank; i++)
        if (!kf_dim_is_static(t->dim[i]))
            return t->dim[i];
    return t->rank ? t->dim[0] : kf_dim_static(1);
}

/* Which dim of |t| is tiled; -1: none. */
static int dim_index(const kf_type *t, kf_dim d)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (kf_dim_eq(t->dim[i], d))
            return (int)i;
    return -1;
}

static bool match(const kf_target *t, const kf_graph *g, kf_arena *scratch, kf_sbuf *why)
{
    (void)t;
    kf_result_order order;
    if (g->results.len == 0)
        return kf_refuse(why, "the region has no result");
    if (!kf_body_is_pointwise(g, why) || !kf_order_results(g, scratch, &order, why))
        return false;
    const kf_dim d = tiled_dim(g);
    for (uint32_t i = 0; i < g->results.len; i++) {
        const kf_value v = g->results.data[i];
        const kf_type *type = work_type(g, v);
        const bool append = kf_value_is(g, v, KF_OP_kv_append) != NULL;
        if (kf_value_type(g, v)->kind == KF_TYPE_KVCACHE && !append)
            return kf_refuse(why, "result %u is a cache that the region does not append to", i);
        if (type->rank && (dim_index(type, d) < 0 || (append && dim_index(type, d) != 0)))
            return kf_refuse(why, "result %u has no dim in common with result 0 to cut it along",
                             i);
    }
    return true;
}

/* ---- configuration --------------------------------------------------------------------------- */

/* About this many elements are computed by a tile. */
enum { TILE_ELEMS = 8192 };

static int64_t elems_per_row(const kf_graph *g, int64_t rows_hi)
{
    const kf_dim d = tiled_dim(g);
    int64_t most = 1;
    for (uint32_t i = 0; i < g->results.len; i++) {
        const kf_type *t = work_type(g, g->results.data[i]);
        const int skip = dim_index(t, d);
        int64_t n = 1;
        for (uint32_t j = 0; j < t->rank; j++)
            n *= (int)j == skip ? 1 : kf_dim_bound(g, t->dim[j], rows_hi);
        most = n > most ? n : most;
    }
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op != KF_OP_row_reduce && n->op != KF_OP_row_stat && n->op != KF_OP_matmul)
            continue;
        const kf_type *t = kf_value_type(g, n->in[0]);
        const int64_t k = kf_dim_bound(g, t->dim[t->rank - 1], rows_hi);
        most = n->op == KF_OP_matmul ? most * k : (k > most ? k : most);
    }
    return most;
}

static kf_kernel_shape configure(const kf_target *t, const kf_graph *g, kf_arena *scratch,
                                 int64_t rows_hi)
{
    (void)scratch;
    kf_kernel_shape s = {.scratch_bytes = 0};
    const kf_dim d = tiled_dim(g);
    int64_t rows = TILE_ELEMS / elems_per_row(g, rows_hi);
    /* A tile of single elements is still whole vectors. */
    if (rows > kf_target_lanes(t))
        rows = rows / kf_target_lanes(t) * kf_target_lanes(t);
    rows = rows < 1 ? 1 : rows;
    /* Whatever a bucket's bound is: fewer rows than that are one tile, too, and all buckets have the
     * same kernel. */
    if (kf_dim_is_static(d) && rows > d.size)
        rows = d.size;
    kf_config_set(&s.config, "tile_rows", rows);
    s.tiles.constant = 1;
    if (kf_dim_is_static(d)) {
        s.tiles.constant = (d.size + rows - 1) / rows;
    } else {
        s.tiles.n_terms = 1;
        s.tiles.term[0].sym = d.sym - 1;
        s.tiles.term[0].div = rows;
    }
    return s;
}

/* ---- emission -------------------------------------------------------------------------------- */

typedef struct rows {
    const kf_emit *e;
    kf_pw pw;
    kf_dim dim;
    kf_range range;
} rows;

/* The results of one shape, in one nest. */
static void emit_group(rows *r, const kf_result_order *order, uint32_t group)
{
    const kf_graph *g = r->e->body;
    kf_value values[KF_MAX_RESULTS];
    kb_value dst[KF_MAX_RESULTS];
    kf_nest nest = {.value = values};
    for (uint32_t i = 0; i < g->results.len; i++) {
        if (order->group[i] != group)
            continue;
        values[nest.n] = g->results.data[i];
        dst[nest.n++] = kf_result_ptr(r->e, i);
    }
    nest.type = kf_value_type(g, values[0]);
    const int at = dim_index(nest.type, r->dim);
    nest.flat = kf_nest_flat(nest.type, at, kb_lanes(r->e->b));
    if (at >= 0)
        nest.range[at] = r->range;
    kf_nest_store(&r->pw, &nest, dst);
}

static void emit_append(rows *r, const kf_node *n)
{
    kb *b = r->e->b;
    kb_loop l;
    kb_loop_begin(b, &l, r->range.lo, r->range.hi, 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&r->pw);
    kb_value heads = kb_i64(b, kf_value_type(r->e->body, n->in[0])->kv_heads);
    const kf_coord row = kf_coord_uniform(l.iv, 1);
    kf_kv_append_row(&r->pw, n, KF_PLANE_KEYS, row, kb_i64(b, 0), heads);
    kf_kv_append_row(&r->pw, n, KF_PLANE_VALUES, row, kb_i64(b, 0), heads);
    kf_pw_release(&r->pw, mark);
    kb_loop_end(b, &l, NULL);
}

static void emit(const kf_emit *e)
{
    kb *b = e->b;
    rows r = {.e = e, .pw = kf_pw_make(e->arena, b, e->body, NULL), .dim = tiled_dim(e->body)};
    r.pw.kv_layers = e->kv_layers;
    const int64_t tile_rows = kf_config_get(e->config, "tile_rows");
    kb_value size = kf_pw_dim(&r.pw, r.dim);
    r.range.lo = kb_muli(b, kb_tile(b), tile_rows);
    r.range.hi = kb_min(b, kb_addi(b, r.range.lo, tile_rows), size);
    r.range.divisor = tile_rows;
    kf_result_order order;
    KF_ASSERT(kf_order_results(e->body, e->arena, &order, NULL),
              "a body is emitted after it matched");
    for (uint32_t group = 0; group < order.n_groups; group++) {
        uint32_t i = 0;
        while (order.group[i] != group)
            i++;
        const kf_node *append = kf_value_is(e->body, e->body->results.data[i], KF_OP_kv_append);
        if (append)
            emit_append(&r, append);
        else
            emit_group(&r, &order, group);
    }
}

static bool check(const kf_emit *e, kf_sbuf *why)
{
    return kf_config_in(e->config, "tile_rows", 1, 1 << 20, why);
}

const kf_family_impl kf_family_rows = {match, configure, check, emit};
