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
 * What is compared is not how the parts are written but what one element of the result is
 * (element.h): a quotient of two sums over keys. Every layout, order of operands, place of the
 * scale, form of the mask (select, added bias, factor of the weights), softmax in one op or many,
 * divided before or after the second matmul, and every way to repeat keys for a group of heads
 * comes to the same expression.
 * Positions of tokens are q, kv_index positions are k, indices over heads are h; parameters and
 * other values without rows that are indexed by those become captures. One factor of the score
 * becomes `scale`, what multiplies the weights behind the normaliser `prob`, an exponential that is
 * added to their sum `sink`. Without such a sum the weights are taken as they are (normaliser none).
 * Fires when    keys and values are those of one cache, the work between is scalar functions, and
 *               the mask confines each row to keys of its own sequence (that condition goes: the op
 *               implies it).
 * Must not fire when the mask lets a row see other sequences (F0207), an intermediate has another
 *               user (F0203), the weights enter more than a product (F0221), the normaliser runs
 *               over another axis (F0220), a slot would need more than positions, heads and tables
 *               (F0222), a finite number that stands for -inf may show (F0223), a guard makes 0
 *               of NaN (F0224), or another computation stands between (F0201).
 * Why here      after canonicalize (one spelling), before phases.
 * Needs topological order, uses. Keeps nothing. Terminates: each step removes a sum over cached
 * values.
 */
#include "passes/attention_match.h"
#include "passes/match.h"

enum { MAX_CLIMB = 8 };

/* The one node that uses |v|; NULL if there are more, or |v| is a result. */
static const kf_node *only_user(const kf_graph *g, kf_value v)
{
    const kf_node *user = NULL;

    if (kf_value_is_result(g, v))
        return NULL;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t k = 0; k < n->n_in; k++) {
            if (n->in[k] != v)
                continue;
            if (user && user != n)
                return NULL;
            user = n;
        }
    }
    return user;
}

/* F0203: what depends on the scores is used outside of what was looked into. */
static bool is_private(kf_attention_match *m)
{
    const kf_graph *g = m->g;
    bool *scored = KF_NEW_N(m->cx->scratch, bool, g->values.len);
    uint32_t root = g->values.data[m->root].def;

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        bool uses = m->t.scores[i];
        for (uint32_t k = 0; n->op != KF_OP_NONE && k < n->n_in; k++)
            uses |= scored[n->in[k]];
        if (!uses)
            continue;
        if (!m->t.visited[i])
            return kf_attention_refuse(m, KF_REASON_F0203, kf_op_infos[n->op].name);
        scored[n->out[0]] = i != root;
    }
    for (uint32_t i = 0; i < g->results.len; i++)
        if (scored[g->results.data[i]])
            return kf_attention_refuse(m, KF_REASON_F0203, "a result of the function");
    return true;
}

/* A value above the second matmul that may hold the division. */
static bool may_normalise(const kf_node *n)
{
    return n->op == KF_OP_mul || n->op == KF_OP_div || n->op == KF_OP_select;
}

static bool is_view(const kf_node *n)
{
    return n->op == KF_OP_reshape || n->op == KF_OP_transpose;
}

/* Looks at the second matmul and at the scalar work that follows it: a quotient is better than a
 * sum, and of sums the one that holds most. */
static bool match_above(kf_pass_ctx *cx, const kf_graph *g, kf_value v, kf_attention_match *best)
{
    bool found = kf_attention_match_root(cx, g, v, best) && is_private(best);

    for (uint32_t step = 0; step < MAX_CLIMB; step++) {
        kf_attention_match m;
        if (found && best->attr.normaliser == KF_NORMALISER_SOFTMAX)
            break;
        const kf_node *user = only_user(g, v);
        if (!user || (!may_normalise(user) && !is_view(user)))
            break;
        v = user->out[0];
        if (is_view(user))
            continue;
        bool here = kf_attention_match_root(cx, g, v, &m) && is_private(&m);
        if (here || (!found && m.divided && !best->divided))
            *best = m;
        found |= here;
    }
    return found;
}

static void rewrite(kf_graph *g, kf_attention_match *m)
{
    kf_loc loc = kf_value_node(g, m->root)->loc;
    const kf_node keys = *kf_value_node(g, m->keys);
    kf_value q = kf_attention_query(g, m, loc);
    kf_value in[7 + KF_MAX_CAPTURES] = {q,          keys.in[0], m->pos,    m->seq,
                                        keys.in[1], keys.in[2], keys.in[3]};

    for (uint32_t i = 0; i < m->n_captures; i++)
        in[7 + i] = m->capture[i];
    kf_attr_attention *attr = KF_ATTR_NEW(g->module->arena, attention);
    *attr = m->attr;
    kf_value a = kf_node_add(g, KF_OP_attention, attr, 7 + m->n_captures, in, NULL, loc);
    kf_graph_replace(g, m->root, kf_attention_result(g, m, a, loc));
}

/* True if |v| is made of exponentials by scalar work, row reductions and views. */
static bool is_exponential(const kf_graph *g, kf_value v, uint32_t depth)
{
    const kf_node *n = kf_value_node(g, v);

    if (!n || depth == 0)
        return false;
    if (n->op == KF_OP_exp || (n->op == KF_OP_row_reduce &&
                               kf_accs_have(&KF_ATTR_OF(n, row_reduce)->acc, KF_ACC_sum_exp)))
        return true;
    bool through = is_view(n) || kf_op_is_fn(n->op) || n->op == KF_OP_row_reduce;
    for (uint32_t i = 0; through && i < n->n_in; i++)
        if (is_exponential(g, n->in[i], depth - 1))
            return true;
    return false;
}

static bool is_sum_over_keys(const kf_graph *g, const kf_node *n)
{
    const kf_attr_row_reduce *a = KF_ATTR_OF(n, row_reduce);
    const kf_type *t = kf_value_type(g, n->in[0]);

    return kf_dim_is_keys(t->dim[t->rank - 1]) && !a->map && !a->keep && a->acc.n == 1 &&
           a->acc.acc[0] == KF_ACC_sum;
}

/* A product of two computed values over the keys in view, or of a softmax over another dim that
 * only the call knows. */
static bool is_candidate(const kf_graph *g, const kf_node *n)
{
    if (n->op == KF_OP_row_reduce)
        return is_sum_over_keys(g, n);
    if (n->op != KF_OP_matmul || kf_node_is_linear(g, n))
        return false;
    const kf_type *a = kf_value_type(g, n->in[0]);
    kf_dim inner = a->dim[a->rank - 1];
    return kf_dim_is_keys(inner) || (inner.sym && is_exponential(g, n->in[0], 6));
}

static bool fuse_graph(kf_graph *g, kf_pass_ctx *cx)
{
    KF_VEC(kf_value) candidates = {0};
    bool changed = false;

    for (uint32_t i = 0; i < g->nodes.len; i++)
        if (is_candidate(g, &g->nodes.data[i]))
            kf_vec_push(cx->scratch, &candidates, g->nodes.data[i].out[0]);
    for (uint32_t i = 0; i < candidates.len; i++) {
        kf_attention_match m;
        kf_loc loc = kf_value_node(g, candidates.data[i])->loc;
        if (!match_above(cx, g, candidates.data[i], &m)) {
            if (m.weighs || !kf_value_is(g, candidates.data[i], KF_OP_row_reduce))
                kf_report_refused(cx, g, loc, m.why, m.detail, "attention");
            continue;
        }
        if (!kf_report_fused(cx, g, loc, "attention"))
            continue;
        rewrite(g, &m);
        kf_graph_sort(g);
        changed = true;
    }
    if (changed)
        kf_graph_compact(g);
    return changed;
}

bool kf_pass_fuse_attention(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    progress |= fuse_graph(g, cx);
    return progress;
}
