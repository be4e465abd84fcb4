/* SPDX-License-Identifier: Apache-2.0 */
/* attention - streaming softmax attention over the paged cache (CPU).
 *
 *   tile: tile_rows token rows x one kv head; a pair is (row, query head sharing the kv head)
 *   for each pair: Q'[pair] = scale * q; O[pair] = 0; m = -inf; l = 0
 *                  bound = keys the row may see at most
 *   for each sequence with rows in the tile:
 *       for each page of it from the mask's window to the largest bound:
 *           for each group of pairs with a key below its bound in this page:
 *               for keys, some vectors at a time:                  keys lie along the page
 *                   S[pair][keys] = sum over d: Q'[pair][d] * K[d][keys]
 *                   S = visible ? score(S, h, q, k) : -inf
 *               m' = max(m, max S); a = exp(m - m'); P = exp(S - m')
 *               l = l * a + sum P; m = m'
 *               O[pair][d..] = O * a + sum over keys: P[pair][key] * V[key][d..]
 *   out = l > 0 ? O / l : 0
 *
 * Pages are cut at absolute positions and every sum runs in one order, so a row's result depends
 * neither on the other rows of the call nor on how the prompt was cut into calls: keys that another
 * pair of the group needs add exact zeros. The rescaling is that of Milakov and Gimelshein 2018
 * (arXiv:1805.02867).
 */
#include "base/check.h"
#include "codegen/cpu/vmath.h"
#include "codegen/families/attention_mask.h"
#include "codegen/families/family.h"
#include "codegen/fn_emit.h"
#include "codegen/kv.h"

/* Sums of a group in registers, and its pairs at most: fewer pairs take more vectors, so that the
 * latency of the additions stays hidden. A sum's order does not depend on the shape. */
enum { SUMS = 8, MR = 4 };

/* Operands of the attention op. */
enum { Q, KV, POS, SEQ, SEQ_START, PAST, PAGES, CAPTURES };
/* Parameters of the slots. */
enum { SCORE_S, SCORE_H, SCORE_Q, SCORE_K };

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

static bool result_is(const kf_graph *g, kf_value attention)
{
    kf_value v = g->results.data[0];
    for (kf_node *n = kf_value_is(g, v, KF_OP_reshape); n; n = kf_value_is(g, v, KF_OP_reshape))
        v = n->in[0];
    return v == attention;
}

static bool match(const kf_target *t, const kf_graph *g, kf_arena *scratch, kf_sbuf *why)
{
    (void)scratch;
    const kf_node *n = find_node(g, why);
    if (!n)
        return false;
    const kf_type *kv = kf_value_type(g, n->in[KV]), *q = kf_value_type(g, n->in[Q]);
    if (g->results.len != 1 || !result_is(g, n->out[0]))
        return kf_refuse(why, "an attention region gives the attention and nothing else");
    if (kf_value_node(g, n->in[KV]))
        return kf_refuse(why, "the cache is not an argument of the region");
    for (uint32_t i = POS; i < CAPTURES; i++)
        if (kf_value_node(g, n->in[i]))
            return kf_refuse(why, "operand %u of attention is not an argument of the region", i);
    const kf_attr_attention *a = KF_ATTR_OF(n, attention);
    if (a->prob || a->sink || a->stored || a->normaliser != KF_NORMALISER_SOFTMAX)
        return kf_refuse(why, "factors, sinks, memories and other normalisers");
    if (kf_dim_is_static(q->dim[0]))
        return kf_refuse(why, "attention needs rows of a call, not a fixed number");
    if (kv->kv_page % kf_target_lanes(t) != 0)
        return kf_refuse(why, "pages of %u tokens are not whole vectors", kv->kv_page);
    return true;
}

/* ---- configuration --------------------------------------------------------------------------- */

typedef struct sizes {
    int64_t heads, group, dim, page;
    int64_t pairs;                       /* of a tile */
    int64_t q, o, p, m, l, bound, bytes; /* scratch offsets */
} sizes;

static sizes sizes_of(const kf_graph *g, const kf_node *n, int64_t tile_rows)
{
    const kf_type *kv = kf_value_type(g, n->in[KV]), *q = kf_value_type(g, n->in[Q]);
    sizes s = {.heads = kv->kv_heads, .dim = kv->kv_head_dim, .page = kv->kv_page};
    s.group = q->dim[1].size / s.heads;
    s.pairs = tile_rows * s.group;
    const int64_t cells = (s.pairs * s.dim * 4 + 63) / 64 * 64, line = (s.pairs * 4 + 63) / 64 * 64;
    s.o = s.q + cells;
    s.p = s.o + cells;
    s.m = s.p + MR * s.page * 4;
    s.l = s.m + line;
    s.bound = s.l + line;
    s.bytes = s.bound + line;
    return s;
}

static kf_kernel_shape configure(const kf_target *t, const kf_graph *g, kf_arena *scratch,
                                 int64_t rows_hi)
{
    (void)t;
    (void)scratch;
    const kf_node *n = find_node(g, NULL);
    const kf_dim rows = kf_value_type(g, n->in[Q])->dim[0];
    const int64_t tile_rows = kf_dim_bound(g, rows, rows_hi) > 16 ? 16 : 1;
    const sizes z = sizes_of(g, n, tile_rows);
    kf_kernel_shape s = {.scratch_bytes = z.bytes};
    kf_config_set(&s.config, "tile_rows", tile_rows);
    s.tiles.constant = z.heads;
    s.tiles.n_terms = 1;
    s.tiles.term[0].sym = rows.sym - 1;
    s.tiles.term[0].div = tile_rows;
    return s;
}

static bool is_param(const kf_slot *s, uint32_t inst, uint32_t param)
{
    return s->inst[inst].op == KF_SLOT_PARAM && s->inst[inst].index == param;
}

/* ---- emission -------------------------------------------------------------------------------- */

typedef struct emitter {
    const kf_emit *e;
    kb *b;
    kf_pw pw;
    const kf_node *n;
    const kf_attr_attention *attr;
    sizes z;
    uint32_t lanes;
    kf_kv kv;
    kf_mask_bounds mask;
    kb_value scratch, row0, row1, head; /* head: of the cache */
} emitter;

static kb_value cell(emitter *em, int64_t array, kb_value index)
{
    return kb_index(em->b, kb_offset_c(em->b, em->scratch, array), KB_F32, index);
}

static kb_value load_cell(emitter *em, int64_t array, kb_value index)
{
    return kb_load(em->b, KB_F32, 1, cell(em, array, index), 4);
}

static kb_value load_bound(emitter *em, kb_value pair)
{
    return kb_sext(em->b, kb_load(em->b, KB_I32, 1, cell(em, em->z.bound, pair), 4), KB_I64);
}

static kb_value load_int(emitter *em, uint32_t operand, kb_value row)
{
    const kf_coord at = kf_coord_uniform(row, 1);
    return kb_sext(em->b, kf_pw_value(&em->pw, em->n->in[operand], &at), KB_I64);
}

static kb_value row_of(emitter *em, kb_value pair)
{
    return kb_add(em->b, em->row0, kb_udiv(em->b, pair, kb_i64(em->b, em->z.group)));
}

static kb_value head_of(emitter *em, kb_value pair)
{
    kb *b = em->b;
    kb_value in_group = kb_urem(b, pair, kb_i64(b, em->z.group));
    return kb_add(b, kb_muli(b, em->head, em->z.group), in_group);
}

/* Q'[pair][lo..hi) = scale * q, O = 0. */
static void start_span(emitter *em, kb_value pair, kb_value row, kb_value head, int64_t lo,
                       int64_t hi, uint32_t lanes)
{
    kb *b = em->b;
    kb_loop l;
    if (lo == hi)
        return;
    kb_loop_begin(b, &l, kb_i64(b, lo), kb_i64(b, hi), lanes, 0, NULL);
    const uint32_t mark = kf_pw_mark(&em->pw);
    const kf_coord ix[3] = {kf_coord_uniform(row, 1), kf_coord_uniform(head, 1),
                            kf_coord_ramp(l.iv, lanes, lanes)};
    kb_value q = kf_pw_number(&em->pw, em->n->in[Q], ix, lanes);
    q = kb_fmul(b, q, kb_f32(b, lanes, (float)em->attr->scale));
    kb_value at = kb_add(b, kb_muli(b, pair, em->z.dim), l.iv);
    kb_store(b, q, cell(em, em->z.q, at), 4);
    kb_store(b, kb_f32(b, lanes, 0.0f), cell(em, em->z.o, at), 4);
    kf_pw_release(&em->pw, mark);
    kb_loop_end(b, &l, NULL);
}

/* Keys that the row of |pair| can see at most: those of its sequence, and not the future if the
 * mask says so. */
static kb_value bound_of(emitter *em, kb_value row)
{
    kb *b = em->b;
    kb_value keys =
        kf_kv_keys(&em->pw, em->n->in[SEQ_START], em->n->in[PAST], false, load_int(em, SEQ, row));
    return em->mask.causal ? kb_min(b, keys, kb_addi(b, load_int(em, POS, row), 1)) : keys;
}

static void start_pairs(emitter *em)
{
    kb *b = em->b;
    kb_loop l;
    kb_value n = kb_muli(b, kb_sub(b, em->row1, em->row0), em->z.group);
    kb_loop_begin(b, &l, kb_i64(b, 0), n, 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&em->pw);
    kb_value row = row_of(em, l.iv), head = head_of(em, l.iv);
    const kf_coord ix[3] = {kf_coord_uniform(row, 1), kf_coord_uniform(head, 1),
                            kf_coord_ramp(NULL, em->lanes, em->lanes)};
    const uint32_t lanes = kf_pw_feasible(&em->pw, em->n->in[Q], ix) ? em->lanes : 1;
    const int64_t whole = em->z.dim / lanes * lanes;
    start_span(em, l.iv, row, head, 0, whole, lanes);
    start_span(em, l.iv, row, head, whole, em->z.dim, 1);
    kb_store(b, kb_f32(b, 1, -__builtin_inff()), cell(em, em->z.m, l.iv), 4);
    kb_store(b, kb_f32(b, 1, 0.0f), cell(em, em->z.l, l.iv), 4);
    kb_store(b, kb_trunc(b, bound_of(em, row), KB_I32), cell(em, em->z.bound, l.iv), 4);
    kf_pw_release(&em->pw, mark);
    kb_loop_end(b, &l, NULL);
}

/* ---- scores of a group ----------------------------------------------------------------------- */

typedef struct group {
    uint32_t n;       /* pairs */
    uint32_t vectors; /* of keys at a time */
    kb_value pair0;
    kb_value page; /* address of the page */
    kb_value base; /* position of its first key */
    kb_value keys; /* keys of the page below the largest bound of the group */
    kb_value bound[MR], q_pos[MR], q_head[MR];
    kb_value alpha[MR];
} group;

typedef struct slot_env {
    emitter *em;
    kf_coord k;
    uint32_t k_param;
} slot_env;

/* Captures are read at indices clamped into them: keys beyond the bound are computed and thrown
 * away. */
static kb_value load_capture(void *user, const kf_slot *slot, const kf_slot_inst *load,
                             const kb_value *values)
{
    const slot_env *env = user;
    emitter *em = env->em;
    kf_coord at[KF_MAX_RANK];
    const kf_value v = em->n->in[CAPTURES + load->index];
    const kf_type *t = kf_value_type(em->pw.g, v);
    for (uint32_t i = 0; i < load->n_args; i++) {
        kb_value index = values[load->arg[i]];
        at[i] = is_param(slot, load->arg[i], env->k_param)
                    ? env->k
                    : kf_coord_from_i32(em->b, kb_fptosi(em->b, index), kb_lanes_of(index));
        kb_value last = kb_addi(em->b, kf_pw_dim(&em->pw, t->dim[i]), -1);
        at[i] = kf_coord_clamp(em->b, at[i], last, false);
    }
    return kf_pw_as_number(em->b, t->dtype, kf_pw_value(&em->pw, v, at));
}

/* Score of pair |i| at keys |k| (i64 ramp), -inf where it may not look. */
static kb_value visible_score(emitter *em, const group *g, uint32_t i, kb_value s, kb_value first)
{
    kb *b = em->b;
    const uint32_t lanes = em->lanes;
    slot_env env = {.em = em, .k = kf_coord_ramp(first, lanes, lanes)};
    kb_value k32 =
        kb_add(b, kb_splat(b, kb_trunc(b, first, KB_I32), lanes), kb_iota(b, KB_I32, lanes));
    kb_value bound = kb_splat(b, kb_trunc(b, g->bound[i], KB_I32), lanes);
    kb_value seen = kb_icmp(b, KB_LT, k32, bound);
    kb_value k = kb_sitofp(b, k32);
    if (em->attr->score) {
        const kb_value params[] = {s, g->q_head[i], g->q_pos[i], k};
        env.k_param = SCORE_K;
        s = kf_emit_num(b, kf_emit_slot(b, em->attr->score, params, load_capture, &env));
        s = kb_lanes_of(s) < lanes ? kb_splat(b, s, lanes) : s;
    }
    if (em->attr->mask && !em->mask.only_causal) {
        const kb_value params[] = {g->q_head[i], g->q_pos[i], k};
        env.k_param = KF_MASK_K;
        kb_value m = kf_emit_pred(b, kf_emit_slot(b, em->attr->mask, params, load_capture, &env));
        seen = kb_and(b, seen, kb_lanes_of(m) < lanes ? kb_splat(b, m, lanes) : m);
    }
    return kb_select(b, seen, s, kb_f32(b, lanes, -__builtin_inff()));
}

/* sums[pair][vector] = Q' * K over d, for the vectors of keys at |slot|. */
static void dot_keys(emitter *em, const group *g, kb_value slot, kb_value *sums)
{
    kb *b = em->b;
    const uint32_t n = g->n * g->vectors;
    kb_loop l;
    for (uint32_t i = 0; i < n; i++)
        sums[i] = kb_f32(b, em->lanes, 0.0f);
    kb_loop_begin(b, &l, kb_i64(b, 0), kb_i64(b, em->z.dim), 1, n, sums);
    kb_value keys[SUMS];
    const kf_coord at = kf_kv_key_at(b, &em->kv, kf_coord_uniform(em->head, 1),
                                     kf_coord_uniform(l.iv, 1), kf_coord_uniform(slot, 1));
    kb_value p = kb_index(b, g->page, em->kv.elem, at.v);
    for (uint32_t v = 0; v < g->vectors; v++) {
        const int64_t skip = (int64_t)v * em->lanes * kb_elem_bytes(em->kv.elem);
        keys[v] = kb_load_f32(b, em->kv.elem, em->lanes, kb_offset_c(b, p, skip),
                              kb_elem_bytes(em->kv.elem), NULL);
    }
    for (uint32_t i = 0; i < g->n; i++) {
        kb_value at_q = kb_add(b, kb_muli(b, kb_addi(b, g->pair0, i), em->z.dim), l.iv);
        kb_value q = kb_splat(b, load_cell(em, em->z.q, at_q), em->lanes);
        for (uint32_t v = 0; v < g->vectors; v++) {
            const uint32_t j = i * g->vectors + v;
            sums[j] = kb_fma(b, q, keys[v], l.carried[j]);
        }
    }
    kb_loop_end(b, &l, sums);
    for (uint32_t i = 0; i < n; i++)
        sums[i] = l.carried[i];
}

static kb_value prob_cell(emitter *em, uint32_t i, kb_value slot)
{
    return cell(em, em->z.p + (int64_t)i * em->z.page * 4, slot);
}

/* P = scores; peak[pair] = their maximum. */
static void group_scores(emitter *em, const group *g, kb_value *peak)
{
    kb *b = em->b;
    kb_loop l;
    kb_value init[MR], next[MR], sums[SUMS];
    for (uint32_t i = 0; i < g->n; i++)
        init[i] = kb_f32(b, em->lanes, -__builtin_inff());
    kb_loop_begin(b, &l, kb_i64(b, 0), g->keys, em->lanes * g->vectors, g->n, init);
    const uint32_t mark = kf_pw_mark(&em->pw);
    dot_keys(em, g, l.iv, sums);
    for (uint32_t i = 0; i < g->n; i++) {
        next[i] = l.carried[i];
        for (uint32_t v = 0; v < g->vectors; v++) {
            kb_value slot = kb_addi(b, l.iv, (int64_t)v * em->lanes);
            kb_value s =
                visible_score(em, g, i, sums[i * g->vectors + v], kb_add(b, g->base, slot));
            kb_store(b, s, prob_cell(em, i, slot), 4);
            next[i] = kb_fmax(b, s, next[i]);
        }
    }
    kf_pw_release(&em->pw, mark);
    kb_loop_end(b, &l, next);
    for (uint32_t i = 0; i < g->n; i++)
        peak[i] = kb_reduce_fmax(b, l.carried[i]);
}

/* P = exp(P - m'), l = l * alpha + sum P, m = m'. */
static void group_softmax(emitter *em, group *g, const kb_value *peak)
{
    kb *b = em->b;
    kb_loop l;
    kb_value top[MR], sum[MR];
    for (uint32_t i = 0; i < g->n; i++) {
        kb_value pair = kb_addi(b, g->pair0, i);
        kb_value old = load_cell(em, em->z.m, pair);
        kb_value m = kb_fmax(b, old, peak[i]);
        kb_store(b, m, cell(em, em->z.m, pair), 4);
        kb_value none = kb_fcmp(b, KB_EQ, m, kb_f32(b, 1, -__builtin_inff()));
        m = kb_select(b, none, kb_f32(b, 1, 0.0f), m);
        g->alpha[i] = kv_exp(b, kb_fsub(b, old, m));
        top[i] = kb_splat(b, m, em->lanes);
        sum[i] = kb_f32(b, em->lanes, 0.0f);
    }
    kb_loop_begin(b, &l, kb_i64(b, 0), g->keys, em->lanes * g->vectors, g->n, sum);
    for (uint32_t i = 0; i < g->n; i++) {
        sum[i] = l.carried[i];
        for (uint32_t v = 0; v < g->vectors; v++) {
            kb_value at = prob_cell(em, i, kb_addi(b, l.iv, (int64_t)v * em->lanes));
            kb_value p = kv_exp(b, kb_fsub(b, kb_load(b, KB_F32, em->lanes, at, 4), top[i]));
            kb_store(b, p, at, 4);
            sum[i] = kb_fadd(b, sum[i], p);
        }
    }
    kb_loop_end(b, &l, sum);
    for (uint32_t i = 0; i < g->n; i++) {
        kb_value at = cell(em, em->z.l, kb_addi(b, g->pair0, i));
        kb_value old = kb_fmul(b, kb_load(b, KB_F32, 1, at, 4), g->alpha[i]);
        kb_store(b, kb_fadd(b, old, kb_reduce_fadd(b, l.carried[i])), at, 4);
    }
}

/* O[pair][d..] = O * alpha + sum over keys P * V, |vectors| of |lanes| columns from |d| on. */
static void weigh_columns(emitter *em, const group *g, kb_value d, uint32_t lanes, uint32_t vectors)
{
    kb *b = em->b;
    kb_loop l;
    kb_value acc[SUMS], at[SUMS];
    const uint32_t n = g->n * vectors;
    for (uint32_t j = 0; j < n; j++) {
        const uint32_t i = j / vectors, v = j % vectors;
        kb_value row = kb_muli(b, kb_addi(b, g->pair0, i), em->z.dim);
        at[j] = cell(em, em->z.o, kb_addi(b, kb_add(b, row, d), (int64_t)v * lanes));
        kb_value alpha = lanes > 1 ? kb_splat(b, g->alpha[i], lanes) : g->alpha[i];
        acc[j] = kb_fmul(b, kb_load(b, KB_F32, lanes, at[j], 4), alpha);
    }
    kb_loop_begin(b, &l, kb_i64(b, 0), g->keys, 1, n, acc);
    const kf_coord where = kf_kv_value_at(b, &em->kv, kf_coord_uniform(em->head, 1),
                                          kf_coord_uniform(d, 1), kf_coord_uniform(l.iv, 1));
    kb_value p = kb_index(b, g->page, em->kv.elem, where.v);
    kb_value row[SUMS];
    for (uint32_t v = 0; v < vectors; v++)
        row[v] = kb_load_f32(b, em->kv.elem, lanes,
                             kb_offset_c(b, p, (int64_t)v * lanes * kb_elem_bytes(em->kv.elem)),
                             kb_elem_bytes(em->kv.elem), NULL);
    for (uint32_t i = 0; i < g->n; i++) {
        kb_value w = kb_load(b, KB_F32, 1, prob_cell(em, i, l.iv), 4);
        w = lanes > 1 ? kb_splat(b, w, lanes) : w;
        for (uint32_t v = 0; v < vectors; v++)
            acc[i * vectors + v] = kb_fma(b, w, row[v], l.carried[i * vectors + v]);
    }
    kb_loop_end(b, &l, acc);
    for (uint32_t j = 0; j < n; j++)
        kb_store(b, l.carried[j], at[j], 4);
}

static void weigh_span(emitter *em, const group *g, int64_t lo, int64_t hi, uint32_t lanes,
                       uint32_t vectors)
{
    kb_loop l;
    if (lo == hi)
        return;
    kb_loop_begin(em->b, &l, kb_i64(em->b, lo), kb_i64(em->b, hi), (int64_t)lanes * vectors, 0,
                  NULL);
    weigh_columns(em, g, l.iv, lanes, vectors);
    kb_loop_end(em->b, &l, NULL);
}

static void group_values(emitter *em, const group *g)
{
    const int64_t dim = em->z.dim, singles = dim / em->lanes * em->lanes;
    int64_t done = 0;
    for (uint32_t vectors = SUMS / g->n; vectors > 0; vectors /= 2) {
        const int64_t width = (int64_t)vectors * em->lanes,
                      end = done + (dim - done) / width * width;
        weigh_span(em, g, done, end, em->lanes, vectors);
        done = end;
    }
    weigh_span(em, g, singles, dim, 1, 1);
}

/* ---- walking pairs, pages and sequences ------------------------------------------------------ */

static void one_group(emitter *em, kb_value pair0, uint32_t n, kb_value page, kb_value base)
{
    kb *b = em->b;
    group g = {.n = n, .vectors = SUMS / n, .pair0 = pair0, .page = page, .base = base};
    while (em->z.page % (g.vectors * em->lanes) != 0)
        g.vectors /= 2;
    const uint32_t mark = kf_pw_mark(&em->pw);
    kb_value most = kb_i64(b, 0), peak[MR];
    for (uint32_t i = 0; i < n; i++) {
        kb_value pair = kb_addi(b, pair0, i);
        g.bound[i] = load_bound(em, pair);
        most = kb_max(b, most, g.bound[i]);
    }
    g.keys = kb_min(b, kb_sub(b, most, base), kb_i64(b, em->z.page));
    kb_if some;
    kb_if_begin(b, &some, kb_icmp(b, KB_GT, g.keys, kb_i64(b, 0)));
    for (uint32_t i = 0; i < n; i++) {
        kb_value pair = kb_addi(b, pair0, i);
        g.q_pos[i] = kb_sitofp(b, load_int(em, POS, row_of(em, pair)));
        g.q_head[i] = kb_sitofp(b, head_of(em, pair));
    }
    group_scores(em, &g, peak);
    group_softmax(em, &g, peak);
    group_values(em, &g);
    kb_if_end(b, &some, NULL);
    kf_pw_release(&em->pw, mark);
}

static void groups(emitter *em, kb_value lo, kb_value hi, uint32_t n, kb_value page, kb_value base)
{
    kb_loop l;
    kb_loop_begin(em->b, &l, lo, hi, n, 0, NULL);
    one_group(em, l.iv, n, page, base);
    kb_loop_end(em->b, &l, NULL);
}

/* Largest bound of the pairs lo..hi-1. */
static kb_value largest_bound(emitter *em, kb_value lo, kb_value hi)
{
    kb *b = em->b;
    kb_loop l;
    kb_value most = kb_i64(b, 0);
    kb_loop_begin(b, &l, lo, hi, 1, 1, &most);
    most = kb_max(b, l.carried[0], load_bound(em, l.iv));
    kb_loop_end(b, &l, &most);
    return l.carried[0];
}

/* First page that the pairs from |lo| on can see: theirs ascend with the rows. */
static kb_value first_page(emitter *em, kb_value lo)
{
    kb *b = em->b;
    if (em->mask.window == KF_NO_WINDOW)
        return kb_i64(b, 0);
    kb_value oldest = kb_addi(b, load_int(em, POS, row_of(em, lo)), 1 - em->mask.window);
    return kb_udiv(b, kb_max(b, oldest, kb_i64(b, 0)), kb_i64(b, em->z.page));
}

/* Pairs lo..hi-1 are of sequence |seq|. */
static void sequence(emitter *em, kb_value seq, kb_value lo, kb_value hi)
{
    kb *b = em->b;
    kb_loop pages;
    const int64_t page = em->z.page;
    kb_value n = kb_udiv(b, kb_addi(b, largest_bound(em, lo, hi), page - 1), kb_i64(b, page));
    kb_loop_begin(b, &pages, first_page(em, lo), n, 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&em->pw);
    kb_value base = kb_muli(b, pages.iv, page);
    kb_value id = kf_kv_page_id(&em->pw, em->n->in[PAGES], seq, base, (uint32_t)page);
    kb_value address = kf_kv_page(b, &em->kv, id);
    bool rest = true; /* lo and hi are multiples of the heads that share a kv head */
    for (uint32_t mr = MR; rest; mr /= 2) {
        kb_value whole = kb_add(b, lo, kb_and(b, kb_sub(b, hi, lo), kb_i64(b, -(int64_t)mr)));
        groups(em, lo, whole, mr, address, base);
        lo = whole;
        rest = em->z.group % mr != 0;
    }
    kf_pw_release(&em->pw, mark);
    kb_loop_end(b, &pages, NULL);
}

/* Rows are in order of their sequences, so a tile holds a run of rows of each. */
static void sequences(emitter *em)
{
    kb *b = em->b;
    kb_value first = load_int(em, SEQ, em->row0),
             last = load_int(em, SEQ, kb_addi(b, em->row1, -1));
    kb_loop l;
    kb_loop_begin(b, &l, first, kb_addi(b, last, 1), 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&em->pw);
    kb_value from = load_int(em, SEQ_START, l.iv);
    kb_value to = kb_add(b, from, kf_kv_new_tokens(&em->pw, em->n->in[SEQ_START], l.iv));
    kb_value lo = kb_sub(b, kb_max(b, from, em->row0), em->row0);
    kb_value hi = kb_sub(b, kb_min(b, to, em->row1), em->row0);
    sequence(em, l.iv, kb_muli(b, lo, em->z.group), kb_muli(b, hi, em->z.group));
    kf_pw_release(&em->pw, mark);
    kb_loop_end(b, &l, NULL);
}

static void finish_span(emitter *em, kb_value pair, kb_value l, int64_t lo, int64_t hi,
                        uint32_t lanes)
{
    kb *b = em->b;
    kb_loop loop;
    if (lo == hi)
        return;
    const kf_dtype dtype = kf_value_type(em->e->body, em->e->body->results.data[0])->dtype;
    kb_value heads = kb_i64(b, em->z.heads * em->z.group);
    kb_value out_row = kb_add(b, kb_mul(b, row_of(em, pair), heads), head_of(em, pair));
    kb_loop_begin(b, &loop, kb_i64(b, lo), kb_i64(b, hi), lanes, 0, NULL);
    kb_value at = kb_add(b, kb_muli(b, pair, em->z.dim), loop.iv);
    kb_value o = kb_load(b, KB_F32, lanes, cell(em, em->z.o, at), 4);
    kb_value none = kb_fcmp(b, KB_EQ, l, kb_f32(b, 1, 0.0f));
    kb_value by = kb_select(b, none, kb_f32(b, 1, 1.0f), l);
    o = kb_fdiv(b, o, lanes > 1 ? kb_splat(b, by, lanes) : by);
    kb_value to = kb_add(b, kb_muli(b, out_row, em->z.dim), loop.iv);
    kf_pw_store(&em->pw, KF_DTYPE_f32, o, dtype, kf_result_ptr(em->e, 0),
                kf_coord_ramp(to, lanes, 1));
    kb_loop_end(b, &loop, NULL);
}

static void finish_pairs(emitter *em)
{
    kb *b = em->b;
    kb_loop l;
    kb_value n = kb_muli(b, kb_sub(b, em->row1, em->row0), em->z.group);
    kb_loop_begin(b, &l, kb_i64(b, 0), n, 1, 0, NULL);
    kb_value sum = load_cell(em, em->z.l, l.iv);
    const int64_t whole = em->z.dim / em->lanes * em->lanes;
    finish_span(em, l.iv, sum, 0, whole, em->lanes);
    finish_span(em, l.iv, sum, whole, em->z.dim, 1);
    kb_loop_end(b, &l, NULL);
}

static void emit(const kf_emit *e)
{
    kb *b = e->b;
    emitter em = {.e = e, .b = b, .pw = kf_pw_make(e->arena, b, e->body, NULL)};
    em.pw.kv_layers = e->kv_layers;
    em.n = find_node(e->body, NULL);
    em.attr = KF_ATTR_OF(em.n, attention);
    const int64_t tile_rows = kf_config_get(e->config, "tile_rows");
    em.z = sizes_of(e->body, em.n, tile_rows);
    em.lanes = kb_lanes(b);
    em.kv = kf_kv_of(&em.pw, em.n->in[KV]);
    em.mask = kf_mask_bounds_of(em.attr->mask);
    em.scratch = kb_scratch(b);
    kb_value rows = kf_pw_dim(&em.pw, kf_value_type(e->body, em.n->in[Q])->dim[0]);
    kb_value blocks = kb_udiv(b, kb_addi(b, rows, tile_rows - 1), kb_i64(b, tile_rows));
    em.head = kb_udiv(b, kb_tile(b), blocks);
    em.row0 = kb_muli(b, kb_urem(b, kb_tile(b), blocks), tile_rows);
    em.row1 = kb_min(b, kb_addi(b, em.row0, tile_rows), rows);
    start_pairs(&em);
    sequences(&em);
    finish_pairs(&em);
}

static bool check(const kf_emit *e, kf_sbuf *why)
{
    return kf_config_in(e->config, "tile_rows", 1, 1024, why);
}

const kf_family_impl kf_family_attention = {match, configure, check, emit};
