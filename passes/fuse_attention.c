/* SPDX-License-Identifier: Apache-2.0 */
/* fuse_attention - matmul, scalar work, softmax, matmul over the cache become one attention op.
 *
 *   before   %k = kv_read %kv {keys}    %v = kv_read %kv {values}
 *            %s = matmul %q4, (reshape (transpose %k)) {trans_b}          : f32[G,g,N,K]
 *            %m = select %visible, (score work of %s), -inf
 *            %p = row_reduce %m {max, sum_exp} map(v, m, s) { exp(v - m) / s, 0 where s = 0 }
 *            %o = matmul %p, (reshape (transpose %v))
 *   after    %a = attention %q, %kv, ... {scale, score, mask}             : f32[N,H,D]
 *            %o = reshape (transpose %a)
 *
 * The scalar work between the matmul and the softmax is read back as a slot body over (s, h, q,
 * k): positions of tokens are q, kv_index positions are k, an iota over heads is h. One factor of
 * the score becomes `scale`.
 * Fires when    both matmuls read one cache, the normaliser is softmax, the work between is scalar
 *               functions of those, and the mask confines each row to keys of its own sequence
 *               (that conjunct goes: the op implies it).
 * Must not fire when the mask lets a row see other sequences (F0207), an intermediate has another
 *               user (F0203), or another computation stands between (F0201).
 * Why here      after canonicalize (one spelling), before phases.
 * Needs topological order, uses. Keeps nothing. Terminates: each step removes a softmax over cache
 * keys.
 */
#include "passes/match.h"

#include <math.h>
#include <string.h>

/** What has been recognised of one candidate. */
typedef struct chain {
    kf_graph *g;
    const kf_node *out; /* the second matmul */
    const kf_node *softmax;
    const kf_node *scores;        /* the first matmul */
    const kf_node *keys, *values; /* kv_read */
    const kf_node *append;        /* kv_append that made the cache; names pos and seq */
    kf_value q;                   /* first matmul's rows [G,g,N,D] */
    double scale;
    const kf_slot *score, *mask;
    kf_str detail;
} chain;

/* ---- softmax --------------------------------------------------------------------------------- */

static bool inst_fn(const kf_slot *s, uint32_t i, kf_fn fn)
{
    return s->inst[i].op == KF_SLOT_FN && s->inst[i].fn == fn;
}

static bool inst_param(const kf_slot *s, uint32_t i, uint32_t param)
{
    return s->inst[i].op == KF_SLOT_PARAM && s->inst[i].index == param;
}

/* exp(v - m) / s of parameters (v, m, s). */
static bool is_exp_ratio(const kf_slot *s, uint32_t i)
{
    if (!inst_fn(s, i, KF_FN_div) || !inst_param(s, s->inst[i].arg[1], 2))
        return false;
    uint32_t e = s->inst[i].arg[0];
    if (!inst_fn(s, e, KF_FN_exp))
        return false;
    uint32_t d = s->inst[e].arg[0];
    return inst_fn(s, d, KF_FN_sub) && inst_param(s, s->inst[d].arg[0], 0) &&
           inst_param(s, s->inst[d].arg[1], 1);
}

/* Softmax, with or without the guard that gives 0 where nothing is visible. */
static bool is_softmax(const kf_node *n)
{
    const kf_attr_row_reduce *a = KF_ATTR_OF(n, row_reduce);
    const kf_slot *s = a->map;

    if (!s || !a->keep || a->acc.n != 2 || a->acc.acc[0] != KF_ACC_max ||
        a->acc.acc[1] != KF_ACC_sum_exp)
        return false;
    uint32_t root = s->n_insts - 1;
    if (is_exp_ratio(s, root))
        return true;
    if (!inst_fn(s, root, KF_FN_select) || !is_exp_ratio(s, s->inst[root].arg[1]))
        return false;
    const kf_slot_inst *zero = &s->inst[s->inst[root].arg[2]];
    return zero->op == KF_SLOT_CONST && zero->value == 0.0;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* reshape (transpose [1,0,2] (kv_read plane)) : [G,1,K,D], or without the reshape : [G,K,D]. */
static const kf_node *cache_rows(const kf_graph *g, kf_value v, int plane)
{
    const kf_node *n = kf_value_is(g, v, KF_OP_reshape);

    if (n)
        v = n->in[0];
    n = kf_value_is(g, v, KF_OP_transpose);
    if (!n)
        return NULL;
    const kf_ints *p = &KF_ATTR_OF(n, perm)->perm;
    if (p->n != 3 || p->v[0] != 1 || p->v[1] != 0)
        return NULL;
    n = kf_value_is(g, n->in[0], KF_OP_kv_read);
    return n && KF_ATTR_OF(n, kv_read)->plane == plane ? n : NULL;
}

/* Looks through reshapes that only add dims of size 1. */
static kf_value strip_unit_dims(const kf_graph *g, kf_value v)
{
    const kf_node *n;

    while ((n = kf_value_is(g, v, KF_OP_reshape))) {
        if (kf_type_static_elems(kf_value_type(g, n->in[0])) !=
            kf_type_static_elems(kf_value_type(g, v)))
            break;
        v = n->in[0];
    }
    return v;
}

static bool is_key_index(const kf_graph *g, kf_value v, int plane)
{
    const kf_node *n = kf_value_is(g, strip_unit_dims(g, v), KF_OP_kv_index);

    return n && KF_ATTR_OF(n, kv_read)->plane == plane;
}

/* eq(sequence of the key, sequence of the row) */
static bool is_own_sequence(const chain *c, kf_value v)
{
    const kf_node *n = kf_value_is(c->g, v, KF_OP_eq);

    if (!n)
        return false;
    for (int i = 0; i < 2; i++)
        if (is_key_index(c->g, n->in[i], KF_PLANE_SEQ) &&
            strip_unit_dims(c->g, n->in[1 - i]) == c->append->in[4])
            return true;
    return false;
}

/* ---- scalar work as a slot ------------------------------------------------------------------- */

enum { P_SCORE, P_H, P_Q, P_K };

typedef struct slot_reader {
    const chain *c;
    kf_slot_builder *b;
    kf_value score; /* becomes parameter P_SCORE; KF_NO_VALUE in masks */
    uint32_t *done; /* per value: instruction + 1 */
    bool ok;
} slot_reader;

static uint32_t slot_leaf(slot_reader *r, kf_value v)
{
    const kf_graph *g = r->c->g;
    uint32_t param_base = r->score == KF_NO_VALUE ? 1 : 0;
    kf_value base = strip_unit_dims(g, v);
    const kf_node *iota = kf_value_is(g, base, KF_OP_iota);
    double number;

    if (v == r->score)
        return kf_slot_param(r->b, P_SCORE);
    if (kf_value_const(g, base, &number))
        return kf_slot_const(r->b, number);
    if (base == r->c->append->in[3])
        return kf_slot_param(r->b, P_Q - param_base);
    if (is_key_index(g, v, KF_PLANE_POS))
        return kf_slot_param(r->b, P_K - param_base);
    if (iota && KF_ATTR_OF(iota, axis)->axis == 0)
        return kf_slot_param(r->b, P_H - param_base);
    r->ok = false;
    return kf_slot_const(r->b, 0);
}

static uint32_t slot_read(slot_reader *r, kf_value v)
{
    const kf_node *n = kf_value_node(r->c->g, v);
    uint32_t arg[3] = {0};

    if (r->done[v])
        return r->done[v] - 1;
    if (v == r->score || !n || !kf_op_is_fn(n->op)) {
        r->done[v] = slot_leaf(r, v) + 1;
        return r->done[v] - 1;
    }
    for (uint32_t i = 0; i < n->n_in; i++)
        arg[i] = slot_read(r, n->in[i]);
    r->done[v] = kf_slot_fn(r->b, (kf_fn)n->op, arg[0], arg[1], arg[2]) + 1;
    return r->done[v] - 1;
}

static const char *const score_params[] = {"s", "h", "q", "k"};

/* |conjuncts| joined by `and` as a slot (h, q, k), or NULL with ok false. */
static const kf_slot *mask_slot(chain *c, const kf_value *conjunct, uint32_t n, kf_pass_ctx *cx)
{
    slot_reader r = {.c = c, .score = KF_NO_VALUE, .ok = true};
    uint32_t all = 0;

    if (n == 0)
        return NULL;
    r.b = kf_slot_builder_create(cx->arena, 3, score_params + 1, 0);
    r.done = KF_NEW_N(cx->scratch, uint32_t, c->g->values.len);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t one = slot_read(&r, conjunct[i]);
        all = i ? kf_slot_fn(r.b, KF_FN_and, all, one, 0) : one;
    }
    if (!r.ok)
        c->detail = KF_STR("the mask reads a value that is neither a position nor a head");
    return r.ok ? kf_slot_finish(r.b, all) : NULL;
}

static bool read_score(chain *c, kf_value v, kf_pass_ctx *cx)
{
    const kf_graph *g = c->g;
    kf_value s = c->scores->out[0];
    slot_reader r = {.c = c, .score = s, .ok = true};

    c->scale = 1;
    /* A product directly above the matmul is the scale. */
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        double factor;
        bool mul = n->op == KF_OP_mul, div = n->op == KF_OP_div;
        if ((mul || div) && n->in[0] == s && kf_value_const(g, n->in[1], &factor)) {
            c->scale = mul ? factor : 1.0 / factor;
            r.score = n->out[0];
            break;
        }
    }
    if (v == r.score)
        return true;
    r.b = kf_slot_builder_create(cx->arena, 4, score_params, 0);
    r.done = KF_NEW_N(cx->scratch, uint32_t, g->values.len);
    uint32_t root = slot_read(&r, v);
    if (!r.ok) {
        c->detail = KF_STR("the score depends on a value that is neither a position nor a head");
        return false;
    }
    c->score = kf_slot_finish(r.b, root);
    return true;
}

/* ---- matching -------------------------------------------------------------------------------- */

#define MAX_CONJUNCTS 16

static bool split_conjuncts(const kf_graph *g, kf_value v, kf_value *out, uint32_t *n)
{
    const kf_node *both = kf_value_is(g, v, KF_OP_and);

    if (both)
        return split_conjuncts(g, both->in[0], out, n) && split_conjuncts(g, both->in[1], out, n);
    if (*n == MAX_CONJUNCTS)
        return false;
    out[(*n)++] = v;
    return true;
}

static kf_reason match_mask(chain *c, kf_value mask, kf_pass_ctx *cx)
{
    kf_value conjunct[MAX_CONJUNCTS], rest[MAX_CONJUNCTS];
    uint32_t n = 0, n_rest = 0;

    if (!split_conjuncts(c->g, mask, conjunct, &n))
        return KF_REASON_F0201;
    for (uint32_t i = 0; i < n; i++)
        if (!is_own_sequence(c, conjunct[i]))
            rest[n_rest++] = conjunct[i];
    if (n_rest == n)
        return KF_REASON_F0207;
    c->mask = mask_slot(c, rest, n_rest, cx);
    return c->detail.len ? KF_REASON_F0201 : KF_REASON_NONE;
}

/* The first matmul, found below the softmax through scalar functions only. */
static const kf_node *find_scores(const kf_graph *g, kf_value v, uint32_t depth)
{
    const kf_node *n = kf_value_node(g, v);

    if (!n || depth > 64)
        return NULL;
    if (n->op == KF_OP_matmul)
        return n;
    if (!kf_op_is_fn(n->op))
        return NULL;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const kf_node *found = find_scores(g, n->in[i], depth + 1);
        if (found)
            return found;
    }
    return NULL;
}

static kf_reason match_operands(chain *c)
{
    const kf_graph *g = c->g;

    if (KF_ATTR_OF(c->out, matmul)->trans_b || !KF_ATTR_OF(c->scores, matmul)->trans_b)
        return KF_REASON_F0201;
    c->values = cache_rows(g, c->out->in[1], KF_PLANE_VALUES);
    c->keys = cache_rows(g, c->scores->in[1], KF_PLANE_KEYS);
    if (!c->values || !c->keys || c->values->in[0] != c->keys->in[0])
        return KF_REASON_F0202;
    c->append = kf_value_is(g, c->keys->in[0], KF_OP_kv_append);
    if (!c->append)
        return KF_REASON_F0202;
    c->q = c->scores->in[0];
    uint8_t rank = kf_value_type(g, c->q)->rank;
    return rank == 3 || rank == 4 ? KF_REASON_NONE : KF_REASON_F0204;
}

static kf_reason match_chain(chain *c, kf_pass_ctx *cx)
{
    const kf_graph *g = c->g;
    const kf_node *masked = kf_value_is(g, c->softmax->in[0], KF_OP_select);
    double fill;

    if (!is_softmax(c->softmax))
        return KF_REASON_F0201;
    c->scores = find_scores(g, c->softmax->in[0], 0);
    if (!c->scores)
        return KF_REASON_F0201;
    kf_reason why = match_operands(c);
    if (why != KF_REASON_NONE)
        return why;
    if (!masked || !kf_value_const(g, masked->in[2], &fill) || !(isinf(fill) && fill < 0))
        return KF_REASON_F0207;
    why = match_mask(c, masked->in[0], cx);
    if (why != KF_REASON_NONE)
        return why;
    const uint32_t *uses = kf_graph_use_counts(g, cx->scratch);
    if (uses[c->softmax->out[0]] != 1 || uses[masked->out[0]] != 1 || uses[c->scores->out[0]] != 1)
        return KF_REASON_F0203;
    return read_score(c, masked->in[1], cx) ? KF_REASON_NONE : KF_REASON_F0201;
}

/* ---- rewriting ------------------------------------------------------------------------------- */

static kf_value swap_first_two(kf_graph *g, kf_value v, kf_loc loc)
{
    kf_attr_perm *p = KF_ATTR_NEW(g->module->arena, perm);

    p->perm = (kf_ints){3, {1, 0, 2}};
    return kf_node_add(g, KF_OP_transpose, p, 1, &v, NULL, loc);
}

/* The attention op works on [N,H,D]; the reshapes and transposes around it cancel in canonicalize.
 */
static void rewrite(chain *c)
{
    kf_graph *g = c->g;
    kf_loc loc = c->softmax->loc;
    kf_type wide = *kf_value_type(g, c->q);
    kf_value old = c->out->out[0];
    uint32_t d = wide.rank - 1u;
    int64_t heads = wide.rank == 4 ? wide.dim[0].size * wide.dim[1].size : wide.dim[0].size;
    kf_dim by_head[] = {kf_dim_static(heads), wide.dim[d - 1], wide.dim[d]};
    const kf_node keys = *c->keys, append = *c->append;

    kf_attr_attention *attr = KF_ATTR_NEW(g->module->arena, attention);
    attr->scale = c->scale;
    attr->score = c->score;
    attr->mask = c->mask;
    kf_value q = swap_first_two(g, kf_node_reshape(g, c->q, 3, by_head, loc), loc);
    kf_value in[] = {q, keys.in[0], append.in[3], append.in[4], keys.in[1], keys.in[2], keys.in[3]};
    kf_value a = kf_node_add(g, KF_OP_attention, attr, 7, in, NULL, loc);
    a = kf_node_reshape(g, swap_first_two(g, a, loc), wide.rank, wide.dim, loc);
    kf_graph_replace(g, old, a);
}

static bool is_candidate(const kf_graph *g, const kf_node *n, chain *c)
{
    if (n->op != KF_OP_matmul || kf_node_is_linear(g, n))
        return false;
    *c = (chain){.g = (kf_graph *)(uintptr_t)g, .out = n};
    c->softmax = kf_value_is(g, n->in[0], KF_OP_row_reduce);
    return c->softmax != NULL;
}

bool kf_pass_fuse_attention(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        bool changed = false;
        for (uint32_t i = 0, end = g->nodes.len; i < end; i++) {
            chain c;
            if (!is_candidate(g, &g->nodes.data[i], &c))
                continue;
            kf_loc loc = c.softmax->loc;
            kf_reason why = match_chain(&c, cx);
            if (why != KF_REASON_NONE) {
                kf_report_refused(cx, g, loc, why, c.detail, "attention");
                continue;
            }
            if (!kf_report_fused(cx, g, loc, "attention"))
                continue;
            rewrite(&c);
            changed = true;
        }
        if (changed) {
            kf_graph_sort(g);
            kf_graph_compact(g);
        }
        progress |= changed;
    }
    return progress;
}
