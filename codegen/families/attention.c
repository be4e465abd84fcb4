/* SPDX-License-Identifier: Apache-2.0 */
/* attention - streaming attention over the paged cache (CPU).
 *
 *   tile: tile_rows token rows x one kv head; a pair is (row, query head sharing the kv head)
 *   for each pair: Q'[pair] = scale * q; O[pair] = 0; m = sink or -inf; l = with a sink 1, else 0,
 *                  for each part of the keys (attention_parts.c)
 *                  lo, bound = keys that the row may see at most: its sequence and the mask's
 *                  bounds (ir/mask_bounds.h)
 *   for each sequence with rows in the tile:
 *       for each page of it between the smallest lo and the largest bound:
 *           for each group of pairs with a key in this page:
 *               for keys, some vectors at a time:                  keys lie along the page
 *                   S[pair][keys] = sum over d: Q'[pair][d] * K[d][keys]
 *                   S = visible ? score(S, h, q, k) : -inf
 *               m' = max(m, max S); a = exp(m - m'); P = exp(S - m')
 *               l = l * a + sum P; m = m'; P = P * prob(h, q, k)
 *               O[pair][d..] = O * a + sum over keys: P[pair][key] * V[key][d..]
 *   the parts together: m = max m; O = sum of exp(m_p - m) * O_p, l likewise
 *   out = l > 0 ? O / l : 0, and what the region does with it
 *
 * Without a normaliser P = visible ? score * prob : 0 and out = O.
 *
 * Pages are cut at absolute positions and every sum runs in one order, so a row's result depends
 * neither on the other rows of the call nor on how the prompt was cut into calls: keys that another
 * pair of the group needs add exact zeros. Where rows are few, each part is a tile of its own, and
 * the last tile of a row and head that ends puts the parts together: the same sums. The rescaling
 * is that of Milakov and Gimelshein 2018 (arXiv:1805.02867).
 */
#include "codegen/families/attention_impl.h"

/* ---- match ----------------------------------------------------------------------------------- */

static const kf_node *find_node(const kf_graph *g, kf_sbuf *why)
{
    const kf_node *found = NULL;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_attention && found) {
            kf_refuse(why, "the region has two attentions");
            return NULL;
        }
        if (n->op == KF_OP_attention)
            found = n;
        else if (n->op == KF_OP_kv_append || n->op == KF_OP_repeat || n->op == KF_OP_region ||
                 n->op == KF_OP_matmul) {
            kf_refuse(why, "%s cannot stand in an attention region", kf_op_infos[n->op].name);
            return NULL;
        }
    }
    if (!found)
        kf_refuse(why, "the region has no attention");
    return found;
}

static bool match(const kf_target *t, const kf_graph *g, kf_arena *scratch, kf_sbuf *why)
{
    const kf_node *n = find_node(g, why);
    if (!n || !kf_att_match_results(g, n, scratch, why))
        return false;
    const kf_type *kv = kf_value_type(g, n->in[KF_ATT_KV]), *q = kf_value_type(g, n->in[KF_ATT_Q]);
    if (kf_value_node(g, n->in[KF_ATT_KV]))
        return kf_refuse(why, "the cache is not an argument of the region");
    for (uint32_t i = KF_ATT_POS; i < KF_ATT_CAPTURES; i++)
        if (kf_value_node(g, n->in[i]))
            return kf_refuse(why, "operand %u of attention is not an argument of the region", i);
    if (kf_dim_is_static(q->dim[0]))
        return kf_refuse(why, "attention needs rows of a call, not a fixed number");
    if (kv->kv_page % kf_target_lanes(t) != 0)
        return kf_refuse(why, "pages of %u tokens are not whole vectors", kv->kv_page);
    return true;
}

/* ---- configuration --------------------------------------------------------------------------- */

enum { PART_PAGES = 4, MAX_PARTS = 8, MAX_TILES_OF_ROW = 64 };

static kf_att_sizes sizes_of(const kf_graph *g, const kf_node *n, int64_t tile_rows, int64_t parts,
                             bool split)
{
    const kf_type *kv = kf_value_type(g, n->in[KF_ATT_KV]), *q = kf_value_type(g, n->in[KF_ATT_Q]);
    kf_att_sizes s = {.heads = kv->kv_heads, .dim = kv->kv_head_dim, .page = kv->kv_page};
    s.group = q->dim[1].size / s.heads;
    s.pairs = tile_rows * s.group;
    const int64_t cells = (s.pairs * s.dim * 4 + 63) / 64 * 64, line = (s.pairs * 4 + 63) / 64 * 64;
    s.p = s.q + cells;
    s.lo = s.p + KF_ATT_PAIRS * s.page * 4;
    s.bound = s.lo + line;
    s.states = s.bound + line;
    s.l = s.m + line;
    s.o = s.l + line;
    s.state_bytes = s.o + cells;
    s.bytes = s.states + (split ? 0 : parts * s.state_bytes);
    return s;
}

/* Parts that keep workers busy when there are few rows and heads, each of some hundred keys. The
 * number depends on nothing but the model: prompts and single tokens, whose kernels differ, give
 * the same bits. */
static int64_t parts_of(const kf_graph *g, const kf_node *n)
{
    const kf_dim pages = kf_value_type(g, n->in[KF_ATT_PAGES])->dim[1];
    const int64_t heads = kf_value_type(g, n->in[KF_ATT_KV])->kv_heads;
    int64_t parts = 1;
    while (kf_dim_is_static(pages) && parts < MAX_PARTS && parts * PART_PAGES < pages.size &&
           2 * parts * heads <= MAX_TILES_OF_ROW)
        parts *= 2;
    return parts;
}

static kf_kernel_shape configure(const kf_target *t, const kf_graph *g, kf_arena *scratch,
                                 int64_t rows_hi)
{
    (void)t;
    (void)scratch;
    const kf_node *n = find_node(g, NULL);
    const kf_dim rows = kf_value_type(g, n->in[KF_ATT_Q])->dim[0];
    const int64_t most = kf_dim_bound(g, rows, rows_hi), tile_rows = most > 16 ? 16 : 1;
    const int64_t parts = parts_of(g, n);
    const bool split = parts > 1 && tile_rows == 1;
    const kf_att_sizes z = sizes_of(g, n, tile_rows, parts, split);
    kf_kernel_shape s = {.scratch_bytes = z.bytes};
    kf_config_set(&s.config, "tile_rows", tile_rows);
    kf_config_set(&s.config, "parts", parts);
    kf_config_set(&s.config, "part_pages", PART_PAGES);
    kf_config_set(&s.config, "split", split);
    if (split) {
        s.cells = most * z.heads;
        s.shared_bytes = s.cells * parts * z.state_bytes;
    }
    s.tiles.constant = z.heads * (split ? parts : 1);
    s.tiles.n_terms = 1;
    s.tiles.term[0].sym = rows.sym - 1;
    s.tiles.term[0].div = tile_rows;
    return s;
}

/* ---- pairs ----------------------------------------------------------------------------------- */

static kb_value load_i64(kf_att *t, int64_t array, kb_value pair)
{
    return kb_sext(t->b, kb_load(t->b, KB_I32, 1, kf_att_cell(t, array, pair), 4), KB_I64);
}

static void store_i64(kf_att *t, int64_t array, kb_value pair, kb_value v)
{
    kb_store(t->b, kb_trunc(t->b, v, KB_I32), kf_att_cell(t, array, pair), 4);
}

static kb_value load_int(kf_att *t, uint32_t operand, kb_value row)
{
    const kf_coord at = kf_coord_uniform(row, 1);
    return kb_sext(t->b, kf_pw_value(&t->pw, t->n->in[operand], &at), KB_I64);
}

kb_value kf_att_row(kf_att *t, kb_value pair)
{
    return kb_add(t->b, t->row0, kb_udiv(t->b, pair, kb_i64(t->b, t->z.group)));
}

kb_value kf_att_head(kf_att *t, kb_value pair)
{
    kb *b = t->b;
    kb_value in_group = kb_urem(b, pair, kb_i64(b, t->z.group));
    return kb_add(b, kb_muli(b, t->head, t->z.group), in_group);
}

kf_att_pair kf_att_place(kf_att *t, kb_value pair)
{
    return (kf_att_pair){.pos = kb_sitofp(t->b, load_int(t, KF_ATT_POS, kf_att_row(t, pair))),
                         .head = kb_sitofp(t->b, kf_att_head(t, pair))};
}

/* Q'[pair][lo..hi) = scale * q. */
static void start_span(kf_att *t, kb_value pair, const kf_coord *at, int64_t lo, int64_t hi,
                       uint32_t lanes)
{
    kb *b = t->b;
    kb_loop l;
    if (lo == hi)
        return;
    kb_loop_begin(b, &l, kb_i64(b, lo), kb_i64(b, hi), lanes, 0, NULL);
    const uint32_t mark = kf_pw_mark(&t->pw);
    const kf_coord ix[3] = {at[0], at[1], kf_coord_ramp(l.iv, lanes, lanes)};
    kb_value q = kf_pw_number(&t->pw, t->n->in[KF_ATT_Q], ix, lanes);
    q = kb_fmul(b, q, kb_f32(b, lanes, (float)t->attr->scale));
    kb_value cell = kb_add(b, kb_muli(b, pair, t->z.dim), l.iv);
    kb_store(b, q, kf_att_cell(t, t->z.q, cell), 4);
    kf_pw_release(&t->pw, mark);
    kb_loop_end(b, &l, NULL);
}

static void start_query(kf_att *t, kb_value pair, kb_value row)
{
    kf_coord ix[3] = {kf_coord_uniform(row, 1), kf_coord_uniform(kf_att_head(t, pair), 1),
                      kf_coord_ramp(NULL, t->lanes, t->lanes)};
    const uint32_t lanes = kf_pw_feasible(&t->pw, t->n->in[KF_ATT_Q], ix) ? t->lanes : 1;
    const int64_t whole = t->z.dim / lanes * lanes;
    ix[2] = kf_coord_later();
    kf_pw_prepare(&t->pw, t->n->in[KF_ATT_Q], ix);
    start_span(t, pair, ix, 0, whole, lanes);
    start_span(t, pair, ix, whole, t->z.dim, 1);
}

/* A key that slot |s| names, between 0 and |keys|; |otherwise| where it names none (NaN) or there
 * is no slot. */
static kb_value key_of(kf_att *t, const kf_slot *s, const kf_att_pair *at, kb_value keys,
                       kb_value otherwise)
{
    kb *b = t->b;
    if (!s)
        return otherwise;
    kb_value x = kf_att_row_slot(t, s, at), last = kb_sitofp(b, keys);
    kb_value number = kb_fcmp(b, KB_EQ, x, x);
    x = kb_fmin(b, kb_fmax(b, x, kb_f32(b, 1, 0.0f)), last);
    return kb_select(b, number, kb_sext(b, kb_fptosi(b, x), KB_I64), otherwise);
}

/* Keys that the row of |pair| can see at most: those of its sequence, within the mask's bounds. */
static void start_bounds(kf_att *t, kb_value pair, kb_value row)
{
    kb *b = t->b;
    const kf_att_pair at = kf_att_place(t, pair);
    kb_value keys = kf_kv_keys(&t->pw, t->n->in[KF_ATT_SEQ_START], t->n->in[KF_ATT_PAST],
                               t->attr->stored, load_int(t, KF_ATT_SEQ, row));
    store_i64(t, t->z.lo, pair, key_of(t, t->mask.lo, &at, keys, kb_i64(b, 0)));
    store_i64(t, t->z.bound, pair, key_of(t, t->mask.hi, &at, keys, keys));
}

static kb_value pairs_of(kf_att *t)
{
    return kb_muli(t->b, kb_sub(t->b, t->row1, t->row0), t->z.group);
}

/* |step| for every pair of the tile; the bounds first, which say how much there is to do. */
static void each_pair(kf_att *t, void (*step)(kf_att *t, kb_value pair, kb_value row))
{
    kb *b = t->b;
    kb_loop l;
    kb_loop_begin(b, &l, kb_i64(b, 0), pairs_of(t), 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&t->pw);
    step(t, l.iv, kf_att_row(t, l.iv));
    kf_pw_release(&t->pw, mark);
    kb_loop_end(b, &l, NULL);
}

/* ---- walking pairs, pages and sequences ------------------------------------------------------ */

/* Where the group looks in its page: first is a multiple of what the loops step by, so that a key
 * always meets the same lane. */
static void group_keys(kf_att *t, kf_att_group *g)
{
    kb *b = t->b;
    kb_value least = NULL, most = NULL;
    for (uint32_t i = 0; i < g->n; i++) {
        kf_att_pair *p = &g->pair[i];
        p->lo = load_i64(t, t->z.lo, kb_addi(b, g->pair0, i));
        p->bound = load_i64(t, t->z.bound, kb_addi(b, g->pair0, i));
        least = least ? kb_min(b, least, p->lo) : p->lo;
        most = most ? kb_max(b, most, p->bound) : p->bound;
    }
    g->keys = kb_min(b, kb_sub(b, most, g->base), kb_i64(b, t->z.page));
    g->first = kb_i64(b, 0);
    if (t->mask.lo) {
        kb_value first = kb_max(b, kb_sub(b, least, g->base), g->first);
        g->first = kb_and(b, first, kb_i64(b, -(int64_t)(g->vectors * t->lanes)));
    }
}

static void one_group(kf_att *t, kb_value pair0, uint32_t n, kb_value page, kb_value base)
{
    kb *b = t->b;
    kf_att_group g = {
        .n = n, .vectors = KF_ATT_SUMS / n, .pair0 = pair0, .page = page, .base = base};
    while (t->z.page % (g.vectors * t->lanes) != 0)
        g.vectors /= 2;
    const uint32_t mark = kf_pw_mark(&t->pw);
    group_keys(t, &g);
    kb_if some;
    kb_if_begin(b, &some, kb_icmp(b, KB_GT, g.keys, g.first));
    for (uint32_t i = 0; i < n; i++) {
        const kf_att_pair at = kf_att_place(t, kb_addi(b, pair0, i));
        g.pair[i].pos = at.pos;
        g.pair[i].head = at.head;
    }
    kf_att_page(t, &g);
    kb_if_end(b, &some);
    kf_pw_release(&t->pw, mark);
}

static void groups(kf_att *t, kb_value lo, kb_value hi, uint32_t n, kb_value page, kb_value base)
{
    kb_loop l;
    kb_loop_begin(t->b, &l, lo, hi, n, 0, NULL);
    one_group(t, l.iv, n, page, base);
    kb_loop_end(t->b, &l, NULL);
}

/* Smallest lo and largest bound of the pairs lo..hi-1. */
static void reach(kf_att *t, kb_value lo, kb_value hi, kb_value *out)
{
    kb *b = t->b;
    kb_loop l;
    kb_value next[2] = {kb_i64(b, INT32_MAX), kb_i64(b, 0)};
    kb_loop_begin(b, &l, lo, hi, 1, 2, next);
    next[0] = kb_min(b, l.carried[0], load_i64(t, t->z.lo, l.iv));
    next[1] = kb_max(b, l.carried[1], load_i64(t, t->z.bound, l.iv));
    kb_loop_end(b, &l, next);
    out[0] = l.carried[0];
    out[1] = l.carried[1];
}

/* Pages first..end-1 of sequence |seq| for its pairs lo..hi-1. */
static void walk_pages(kf_att *t, kb_value seq, kb_value lo, kb_value hi, kb_value first,
                       kb_value end)
{
    kb *b = t->b;
    kb_loop pages;
    const int64_t page = t->z.page;
    kb_loop_begin(b, &pages, first, end, 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&t->pw);
    kb_value base = kb_muli(b, pages.iv, page);
    kb_value id = kf_kv_page_id(&t->pw, t->n->in[KF_ATT_PAGES], seq, base, (uint32_t)page);
    kb_value address = kf_kv_page(b, &t->kv, id);
    bool rest = true; /* lo and hi are multiples of the heads that share a kv head */
    for (uint32_t mr = KF_ATT_PAIRS; rest; mr /= 2) {
        kb_value whole = kb_add(b, lo, kb_and(b, kb_sub(b, hi, lo), kb_i64(b, -(int64_t)mr)));
        groups(t, lo, whole, mr, address, base);
        lo = whole;
        rest = t->z.group % mr != 0;
    }
    kf_pw_release(&t->pw, mark);
    kb_loop_end(b, &pages, NULL);
}

/* Pairs lo..hi-1 are of sequence |seq|. Runs of part_pages pages go to the parts in turn; a tile
 * that does one part takes every parts-th run. */
static void sequence(kf_att *t, kb_value seq, kb_value lo, kb_value hi)
{
    kb *b = t->b;
    kb_loop runs;
    kb_value seen[2], parts = kb_i64(b, t->parts), run = kb_i64(b, t->part_pages);
    reach(t, lo, hi, seen);
    kb_value first = kb_udiv(b, seen[0], kb_i64(b, t->z.page));
    kb_value end = kb_udiv(b, kb_addi(b, seen[1], t->z.page - 1), kb_i64(b, t->z.page));
    if (t->parts == 1) {
        walk_pages(t, seq, lo, hi, first, end);
        return;
    }
    kb_value at = kb_udiv(b, first, run),
             ends = kb_udiv(b, kb_addi(b, end, t->part_pages - 1), run);
    if (t->split) {
        kb_value skip = kb_sub(b, kb_add(b, t->part, parts), kb_urem(b, at, parts));
        at = kb_add(b, at, kb_urem(b, skip, parts));
    }
    kb_loop_begin(b, &runs, at, ends, t->split ? t->parts : 1, 0, NULL);
    if (!t->split)
        kf_att_enter(t, kb_urem(b, runs.iv, parts));
    kb_value page0 = kb_muli(b, runs.iv, t->part_pages);
    walk_pages(t, seq, lo, hi, kb_max(b, first, page0),
               kb_min(b, end, kb_addi(b, page0, t->part_pages)));
    kb_loop_end(b, &runs, NULL);
}

/* Rows are in order of their sequences, so a tile holds a run of rows of each. */
static void sequences(kf_att *t)
{
    kb *b = t->b;
    kb_value first = load_int(t, KF_ATT_SEQ, t->row0),
             last = load_int(t, KF_ATT_SEQ, kb_addi(b, t->row1, -1));
    kb_loop l;
    kb_loop_begin(b, &l, first, kb_addi(b, last, 1), 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&t->pw);
    kb_value from = load_int(t, KF_ATT_SEQ_START, l.iv);
    kb_value to = kb_add(b, from, kf_kv_new_tokens(&t->pw, t->n->in[KF_ATT_SEQ_START], l.iv));
    kb_value lo = kb_sub(b, kb_max(b, from, t->row0), t->row0);
    kb_value hi = kb_sub(b, kb_min(b, to, t->row1), t->row0);
    sequence(t, l.iv, kb_muli(b, lo, t->z.group), kb_muli(b, hi, t->z.group));
    kf_pw_release(&t->pw, mark);
    kb_loop_end(b, &l, NULL);
}

/* ---- the tile -------------------------------------------------------------------------------- */

/* All parts in one tile, their states in scratch. */
static void whole_tile(kf_att *t)
{
    kb *b = t->b;
    kb_loop l;
    each_pair(t, start_query);
    kb_loop_begin(b, &l, kb_i64(b, 0), t->used, 1, 0, NULL);
    kf_att_clear(t, l.iv, pairs_of(t));
    kb_loop_end(b, &l, NULL);
    kf_att_enter(t, kb_i64(b, 0));
    sequences(t);
    kf_att_merge(t, pairs_of(t));
    each_pair(t, kf_att_finish);
}

/* One part of one row and kv head; the last of its tiles puts them together. */
static void part_tile(kf_att *t)
{
    kb *b = t->b;
    kb_if some, last;
    kb_if_begin(b, &some, kb_icmp(b, KB_LT, t->part, t->used));
    const uint32_t mark = kf_pw_mark(&t->pw);
    each_pair(t, start_query);
    kf_att_clear(t, t->part, pairs_of(t));
    sequences(t);
    kf_pw_release(&t->pw, mark);
    kb_if_end(b, &some);
    kb_if_begin(b, &last, kf_att_arrive(t));
    kf_att_merge(t, pairs_of(t));
    each_pair(t, kf_att_finish);
    kb_if_end(b, &last);
}

/* Which rows, head and part the tile is, and where its states are. */
static void place_tile(kf_att *t, int64_t tile_rows)
{
    kb *b = t->b;
    const kf_graph *g = t->e->body;
    const uint32_t n = g->args.len + g->results.len;
    kb_value rows = kf_pw_dim(&t->pw, kf_value_type(g, t->n->in[KF_ATT_Q])->dim[0]);
    kb_value blocks = kb_udiv(b, kb_addi(b, rows, tile_rows - 1), kb_i64(b, tile_rows));
    kb_value block = kb_urem(b, kb_tile(b), blocks), parts = kb_i64(b, t->parts);
    t->head = kb_udiv(b, kb_tile(b), blocks);
    t->row0 = kb_muli(b, block, tile_rows);
    t->row1 = kb_min(b, kb_addi(b, t->row0, tile_rows), rows);
    t->scratch = kb_scratch(b);
    t->states = kb_offset_c(b, t->scratch, t->z.states);
    if (!t->split)
        return;
    t->part = kb_urem(b, t->head, parts);
    t->head = kb_udiv(b, t->head, parts);
    kb_value cell = kb_add(b, kb_muli(b, t->row0, t->z.heads), t->head);
    t->arrived = kb_index(b, kb_ptr(b, n), KB_I32, cell);
    t->states = kb_offset(b, kb_ptr(b, n + 1), kb_muli(b, cell, t->parts * t->z.state_bytes));
}

static void emit(const kf_emit *e)
{
    kf_att t = {.e = e, .b = e->b, .n = find_node(e->body, NULL)};
    const kf_pw_leaves leaves = kf_att_leaves(&t);
    t.pw = kf_pw_make(e->arena, e->b, e->body, &leaves);
    t.pw.kv_layers = e->kv_layers;
    t.attr = KF_ATTR_OF(t.n, attention);
    t.softmax = t.attr->normaliser == KF_NORMALISER_SOFTMAX;
    t.parts = kf_config_get(e->config, "parts");
    t.part_pages = kf_config_get(e->config, "part_pages");
    t.split = kf_config_get(e->config, "split") == 1;
    const int64_t tile_rows = kf_config_get(e->config, "tile_rows");
    t.z = sizes_of(e->body, t.n, tile_rows, t.parts, t.split);
    t.lanes = kb_lanes(e->b);
    t.kv = kf_kv_of(&t.pw, t.n->in[KF_ATT_KV]);
    t.mask = kf_mask_bounds_of(e->arena, t.attr->mask);
    place_tile(&t, tile_rows);
    kb_value seen[2];
    each_pair(&t, start_bounds);
    reach(&t, kb_i64(e->b, 0), pairs_of(&t), seen);
    kf_att_count_parts(&t, seen[1]);
    if (t.split)
        part_tile(&t);
    else
        whole_tile(&t);
}

static bool check(const kf_emit *e, kf_sbuf *why)
{
    const int64_t rows = kf_config_get(e->config, "split") == 1 ? 1 : 1024;
    return kf_config_in(e->config, "tile_rows", 1, rows, why) &&
           kf_config_in(e->config, "parts", 1, MAX_PARTS, why) &&
           kf_config_in(e->config, "part_pages", 1, 1 << 20, why) &&
           kf_config_in(e->config, "split", 0, 1, why);
}

const kf_family_impl kf_family_attention = {match, configure, check, emit};
