/* SPDX-License-Identifier: Apache-2.0 */
/* fuse_norm - a norm before matmuls becomes row statistics that its producer leaves behind.
 *
 * Form 1, a scale by one statistic that only matmuls read: the scale goes behind the product, and
 * the product reads the rows as they are stored.
 *
 *   before   %1 = row_reduce %x {sum_sq} map(v, s) { v * rsqrt(s / 256 + eps) }
 *            %2 = mul %1, %gamma
 *            %3 = matmul %2, %wq
 *   after    %s = row_stat %x {sum_sq, block = 64}                : partial sums per column block
 *            %r = row_reduce %s {sum} map(v, s) { rsqrt(s / 256 + eps) } : f32[N,1]
 *            %2 = mul %x, %gamma
 *            %3 = mul (matmul %2, %wq), %r
 *
 * Form 2, every other norm: its map becomes ordinary functions of the row and of finished row
 * values, which each reader computes again (recompute.h): a product in its prologue, a residual in
 * its epilogue.
 *
 *   before   %1 = row_reduce %x {sum, sum_dev} map(v, s, d) {
 *                     (v - s / 256) * rsqrt(d / 256 + eps) }
 *            %2 = add (mul %1, %gamma), %beta
 *            %3 = matmul %2, %wq
 *   after    %s = row_stat %x {sum, block = 64}     %d = row_stat %x {sum, sum_dev, block = 64}
 *            %m = row_reduce %s {sum}
 *            %v = row_reduce %d {sum} + row_reduce %s {sum, sum_dev} / 64
 *            %1 = mul (sub %x, %m / 256), (rsqrt (%v / 256 + eps))
 *            %2, %3 as before
 *
 * The squared deviations of a row are those within its blocks plus those of the blocks' means:
 * exact for equal blocks, and nothing cancels (Chan, Golub and LeVeque, "Updating formulae and a
 * pairwise algorithm for computing sample variances", 1979).
 * Fires when    the accumulators are sums, sums of squares or of squared deviations, and every
 *               reader of the norm, through functions of an instruction, is a matmul or a function
 *               of another value too (a residual); one at least is a matmul.
 * Must not fire when another op reads the normalised rows: they are stored then (F0202); when a
 *               variance is written as a difference of sums (F0208): partial sums would give
 *               another number; when the row is not a whole number of blocks (F0204) or the map
 *               uses v in an expensive function or loads what is not a vector along the row
 *               (F0201).
 * Why here      after fold_weights (gains that could go into weights are gone), before matmuls are
 *               joined.
 * Needs uses. Keeps nothing. Terminates: each step removes a norm.
 */
#include "passes/recompute.h"
#include "passes/separate.h"

/** One use of the norm by a matmul: |node| reads it, through the product |gain| or directly. */
typedef struct reader {
    uint32_t node;
    kf_value gain;
} reader;

typedef KF_VEC(reader) readers;
typedef KF_VEC(uint32_t) node_list;

/** A norm that is fused, and how. */
typedef struct decision {
    uint32_t node;
    const kf_slot *scale; /* form 1: the map without v; NULL: form 2 */
    readers uses;         /* form 1 */
    int64_t block;
} decision;

typedef KF_VEC(decision) decisions;

static bool known_accs(const kf_accs *accs)
{
    bool known = accs->n > 0;

    for (uint8_t i = 0; i < accs->n; i++)
        known = known && (accs->acc[i] == KF_ACC_sum || accs->acc[i] == KF_ACC_sum_sq ||
                          accs->acc[i] == KF_ACC_sum_dev);
    return known;
}

/* ---- form 1 ---------------------------------------------------------------------------------- */

static kf_value column_gain(const kf_graph *g, const kf_node *n, kf_value rows)
{
    if (n->op != KF_OP_mul)
        return KF_NO_VALUE;
    kf_value other = n->in[0] == rows ? n->in[1] : n->in[0];
    bool vector = kf_value_is_param(g, other) && kf_value_type(g, other)->rank == 1;
    return vector ? other : KF_NO_VALUE;
}

/* Collects matmuls that read |v|; false if anything else does. */
static bool collect(const kf_graph *g, kf_value v, kf_value gain, kf_arena *a, readers *out)
{
    if (kf_value_is_result(g, v))
        return false;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t j = 0; n->op != KF_OP_NONE && j < n->n_in; j++) {
            if (n->in[j] != v)
                continue;
            kf_value by = gain == KF_NO_VALUE ? column_gain(g, n, v) : KF_NO_VALUE;
            if (by != KF_NO_VALUE) {
                if (!collect(g, n->out[0], by, a, out))
                    return false;
                continue;
            }
            if (j != 0 || !kf_node_is_linear(g, n))
                return false;
            kf_vec_push(a, out, (reader){i, gain});
        }
    }
    return true;
}

static void rewrite_scale(kf_graph *g, const decision *d)
{
    const kf_node norm = g->nodes.data[d->node];
    kf_value x = norm.in[0];
    kf_value stat = kf_partial_stat(g, x, (kf_accs){1, {KF_ACC_sum_sq}}, KF_STAT_BLOCK, norm.loc);
    kf_value r = kf_join_stat(g, stat, (kf_accs){1, {KF_ACC_sum}}, d->scale, norm.loc);

    for (uint32_t i = 0; i < d->uses.len; i++) {
        const reader *u = &d->uses.data[i];
        kf_node mm = g->nodes.data[u->node];
        kf_value rows = u->gain == KF_NO_VALUE ? x : kf_node_2(g, KF_OP_mul, x, u->gain, norm.loc);
        kf_value product = kf_node_matmul(g, rows, mm.in[1], true, mm.loc);
        kf_graph_replace(g, mm.out[0], kf_node_2(g, KF_OP_mul, product, r, mm.loc));
        g->nodes.data[u->node].op = KF_OP_NONE;
    }
}

/* ---- form 2 ---------------------------------------------------------------------------------- */

/* Slot instructions that depend on the element are cheap, loads are vectors along the row. A map
 * without the element, of vectors alone, would be no rows as functions of ops. */
static bool map_is_cheap(const kf_graph *g, const kf_node *n)
{
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);
    const kf_slot *map = attr->map;
    bool by_element[KF_SLOT_MAX_INSTS];

    for (uint32_t i = 0; i < map->n_insts; i++) {
        const kf_slot_inst *in = &map->inst[i];
        by_element[i] = in->op == KF_SLOT_PARAM && in->index == 0;
        if (in->op == KF_SLOT_PARAM && in->index > attr->acc.n)
            by_element[i] = true; /* the column; only loads may use it */
        for (uint32_t k = 0; k < in->n_args; k++)
            by_element[i] |= by_element[in->arg[k]];
        if (in->op == KF_SLOT_FN && by_element[i]) {
            if (!(kf_op_infos[in->fn].traits & KF_CHEAP))
                return false;
            for (uint32_t k = 0; k < in->n_args; k++) {
                const kf_slot_inst *arg = &map->inst[in->arg[k]];
                if (arg->op == KF_SLOT_PARAM && arg->index > attr->acc.n)
                    return false;
            }
        }
        if (in->op != KF_SLOT_LOAD)
            continue;
        const kf_slot_inst *at = &map->inst[in->arg[0]];
        kf_value vector = n->in[n->n_in - map->captures + in->index];
        if (in->n_args != 1 || at->op != KF_SLOT_PARAM || at->index != attr->acc.n + 1u ||
            !kf_value_is_param(g, vector) ||
            !kf_dim_eq(kf_value_type(g, vector)->dim[0], kf_value_type(g, n->in[0])->dim[1]))
            return false;
    }
    return kf_slot_uses_param(map, 0) && by_element[map->n_insts - 1];
}

/* A function of norms that are made again, with one of them in |v|: a sum of several norms. */
static bool made_of_norms(const kf_graph *g, kf_value v, uint32_t depth)
{
    const kf_node *n = kf_value_node(g, v);
    const kf_type *t = kf_value_type(g, v);
    double c;

    if (!n)
        return kf_value_is_param(g, v) && t->rank <= 1;
    if (n->op == KF_OP_row_reduce)
        return KF_ATTR_OF(n, row_reduce)->keep && t->rank == 2;
    if (kf_value_const(g, v, &c))
        return true;
    if (!kf_op_is_fn(n->op) || !(kf_op_infos[n->op].traits & KF_CHEAP) || depth == 0)
        return false;
    for (uint32_t j = 0; j < n->n_in; j++)
        if (!made_of_norms(g, n->in[j], depth - 1))
            return false;
    return true;
}

/* Nested functions of norms are followed this far: gain, bias and a sum of a few. */
enum { NORM_DEPTH = 8 };

/* Collects what reads the norm |v| and can make it again: matmuls, and functions of other rows too.
 * False if something else reads it. */
static bool collect_again(const kf_graph *g, kf_value v, uint32_t depth, kf_arena *a,
                          node_list *linear, node_list *other)
{
    if (kf_value_is_result(g, v) || depth == 0)
        return false;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t j = 0; n->op != KF_OP_NONE && j < n->n_in; j++) {
            if (n->in[j] != v)
                continue;
            if (j == 0 && kf_node_is_linear(g, n)) {
                kf_vec_push(a, linear, i);
                continue;
            }
            if (!kf_op_is_fn(n->op))
                return false;
            if (!made_of_norms(g, n->out[0], NORM_DEPTH))
                kf_vec_push(a, other, i);
            else if (!collect_again(g, n->out[0], depth - 1, a, linear, other))
                return false;
        }
    }
    return true;
}

/* ---- decisions ------------------------------------------------------------------------------- */

static bool report(kf_graph *g, kf_loc loc, uint32_t n, const uint32_t *node, kf_pass_ctx *cx)
{
    bool allowed = true;

    for (uint32_t i = 0; i < n; i++) {
        kf_str title = kf_node_title(cx->scratch, g, &g->nodes.data[node[i]]);
        allowed &= kf_report_fused(cx, g, loc, "norm -> %.*s", KF_STR_ARG(title));
    }
    return allowed;
}

/* Form 1 needs no pass over the rows of the product, so it goes before form 2. */
static kf_reason decide(const kf_graph *g, const kf_node *n, kf_pass_ctx *cx, decision *out,
                        node_list *readers_of)
{
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);
    const kf_type *x = kf_value_type(g, n->in[0]);
    node_list other = {0};

    if (!known_accs(&attr->acc) || !attr->map || kf_dim_is_static(x->dim[0]))
        return KF_REASON_F0201;
    if (kf_accs_have(&attr->acc, KF_ACC_sum) && kf_accs_have(&attr->acc, KF_ACC_sum_sq))
        return KF_REASON_F0208;
    bool scales = attr->acc.n == 1 && attr->acc.acc[0] == KF_ACC_sum_sq && n->n_in == 1 &&
                  kf_slot_row_scale(cx->arena, attr->map, &out->scale);
    if (scales && collect(g, n->out[0], KF_NO_VALUE, cx->scratch, &out->uses)) {
        for (uint32_t i = 0; i < out->uses.len; i++)
            kf_vec_push(cx->scratch, readers_of, out->uses.data[i].node);
        return KF_REASON_NONE;
    }
    out->scale = NULL;
    out->block = kf_stat_block(&attr->acc, x->dim[1].size);
    if (!map_is_cheap(g, n))
        return KF_REASON_F0201;
    if (!collect_again(g, n->out[0], NORM_DEPTH, cx->scratch, readers_of, &other) ||
        (readers_of->len == 0 && other.len > 0))
        return KF_REASON_F0202;
    for (uint32_t i = 0; i < other.len; i++)
        kf_vec_push(cx->scratch, readers_of, other.data[i]);
    return out->block ? KF_REASON_NONE : KF_REASON_F0204;
}

/* A row_reduce of rows that keeps them is a norm unless it is a softmax. */
static bool is_norm(const kf_graph *g, const kf_node *n)
{
    return n->op == KF_OP_row_reduce && KF_ATTR_OF(n, row_reduce)->keep &&
           kf_value_type(g, n->in[0])->rank == 2 &&
           KF_ATTR_OF(n, row_reduce)->acc.acc[0] != KF_ACC_max;
}

static void find_norms(kf_graph *g, kf_pass_ctx *cx, decisions *out)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        decision d = {.node = i};
        node_list read = {0};
        if (!is_norm(g, n))
            continue;
        kf_reason why = decide(g, n, cx, &d, &read);
        uint32_t logged = cx->candidates.len;
        if (why == KF_REASON_NONE && read.len == 0)
            continue; /* dead */
        if (why != KF_REASON_NONE)
            kf_report_node_refused(cx, g, n, why, KF_STR("norm -> matmul"));
        else if (report(g, n->loc, read.len, read.data, cx))
            kf_vec_push(cx->scratch, out, d);
        else
            kf_report_withdraw(cx, logged);
    }
}

bool kf_pass_fuse_norm(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    {
        decisions found = {0};
        find_norms(g, cx, &found);
        for (uint32_t i = 0; i < found.len; i++) {
            if (found.data[i].scale)
                rewrite_scale(g, &found.data[i]);
            else
                kf_separate(g, found.data[i].node, found.data[i].block, cx->scratch);
        }
        if (found.len)
            kf_graph_compact(g);
        progress |= found.len > 0;
    }
    return progress;
}
