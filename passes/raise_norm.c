/* SPDX-License-Identifier: Apache-2.0 */
/* raise_norm - a norm that is written out op by op becomes one row_reduce.
 *
 *   before   %m = row_reduce %x {sum} map(v, s) { s / 256 }
 *            %d = sub %x, %m
 *            %v = row_reduce (square %d) {sum} map(v, s) { s / 256 }
 *            %y = div %d, (sqrt (add %v, 1e-05))
 *   after    %y = row_reduce %x {sum, sum_dev, keep} map(v, s, d) {
 *                     (v - s / 256) / sqrt(d / 256 + 1e-05) }
 *
 * What counts is what is computed: the chain from the rows to the result adds, multiplies and
 * divides by numbers of the row, and these are functions of sums over it. A sum of squares of
 * something that equals v - mean, evaluated, is a sum of squared deviations. Vectors along the row
 * that a map loads come out of it as ordinary products and sums, so that gain and bias look the
 * same wherever they were written.
 * Fires when    the rows are scaled by a number of the row made of sums, sums of squares and sums
 *               of squared deviations of the same rows.
 * Must not fire when the variance is the mean square less the squared mean (F0208): what cancels
 *               there depends on how the sums are rounded, so it stays as it is written. Nor over the
 *               keys in view, where a row divided by its sum is the end of an attention.
 * Why here      before fuse_norm, which looks at one op; after cse.
 * Needs topological order. Keeps nothing. Terminates: each step replaces a function by a
 * row_reduce.
 */
#include "passes/match.h"

#include <math.h>

/** Parameters of the map while it is built: every accumulator that may occur. */
enum { PARAM_V, PARAM_SUM, PARAM_SUM_SQ, PARAM_SUM_DEV, PARAMS };

static const char *const param_names[PARAMS] = {"v", "s", "q", "d"};
static const kf_acc param_accs[PARAMS] = {KF_ACC_none, KF_ACC_sum, KF_ACC_sum_sq, KF_ACC_sum_dev};

enum { MAX_CHAIN = 8, BUDGET = 200 };

typedef struct raising {
    const kf_graph *g;
    kf_arena *scratch;
    kf_value x;
    kf_slot_builder *b;
    uint32_t uses[PARAMS];
    uint32_t budget; /* shared values are visited once for each path to them */
    bool scaled;     /* by a number of the row */
} raising;

static bool full_expr(raising *r, kf_value v, uint32_t *out);
static bool row_expr(raising *r, kf_value v, uint32_t *out);

static uint32_t use_param(raising *r, uint32_t param)
{
    r->uses[param]++;
    if (param == PARAM_SUM_DEV)
        r->uses[PARAM_SUM]++;
    return kf_slot_param(r->b, param);
}

/* ---- deviations ------------------------------------------------------------------------------ */

/* A limit may lie beyond every point that is tried. */
static bool has_kink(const kf_slot *s)
{
    for (uint32_t i = 0; i < s->n_insts; i++)
        if (s->inst[i].op == KF_SLOT_FN && (kf_op_infos[s->inst[i].fn].traits & KF_KINK))
            return true;
    return false;
}

/* |s| is v - s/n, or the negative of it, whatever it looks like: it is tried. */
static bool is_deviation_slot(const kf_slot *s, double n)
{
    static const double at[][2] = {{1, 0.3}, {-2.5, 3000}, {1e4, -77}, {0, 1e5}, {3e-3, 2e-3}};
    int sign = 0;

    if (has_kink(s))
        return false;

    for (uint32_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        double want = at[i][0] - at[i][1] / n, bound = fabs(at[i][0]) + fabs(at[i][1] / n);
        double params[PARAMS] = {at[i][0], at[i][1], NAN, NAN};
        double got = kf_slot_eval(s, params, NULL, NULL);
        int here = fabs(got - want) <= 1e-14 * bound   ? 1
                   : fabs(got + want) <= 1e-14 * bound ? -1
                                                       : 0;
        if (here == 0 || (sign != 0 && here != sign))
            return false;
        sign = here;
    }
    return true;
}

static bool is_deviation(raising *r, kf_value v)
{
    const kf_type *t = kf_value_type(r->g, r->x);
    raising inner = {r->g, r->scratch, r->x, .budget = r->budget};
    uint32_t root;

    inner.b = kf_slot_builder_create(r->scratch, PARAMS, param_names, 0);
    bool deviation =
        v != r->x && full_expr(&inner, v, &root) &&
        is_deviation_slot(kf_slot_finish(inner.b, root), (double)t->dim[t->rank - 1].size);
    r->budget = inner.budget;
    return deviation;
}

/* ---- expressions ----------------------------------------------------------------------------- */

/* The parameter that accumulator |acc| over |of| is, or 0: v is no accumulator. */
static uint32_t param_of(raising *r, kf_value of, kf_acc acc)
{
    const kf_node *square = kf_value_is(r->g, of, KF_OP_square);

    if (of == r->x) {
        for (uint32_t p = PARAM_SUM; p < PARAMS; p++)
            if (param_accs[p] == acc)
                return p;
        return 0;
    }
    if (square && acc == KF_ACC_sum)
        return square->in[0] == r->x            ? PARAM_SUM_SQ
               : is_deviation(r, square->in[0]) ? PARAM_SUM_DEV
                                                : 0;
    return acc == KF_ACC_sum_sq && is_deviation(r, of) ? PARAM_SUM_DEV : 0;
}

/* The map of a row_reduce without captures, in terms of the rows |r| is about. */
static bool inline_reduce(raising *r, const kf_node *n, uint32_t *out)
{
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);
    const kf_slot *map = attr->map;
    uint32_t param[KF_MAX_ACCS + 1] = {PARAM_V};

    if (n->n_in != 1 || (attr->keep && n->in[0] != r->x) ||
        (map && (map->captures || map->n_params != attr->acc.n + 1)))
        return false;
    for (uint8_t i = 0; i < attr->acc.n; i++) {
        param[i + 1] = param_of(r, n->in[0], attr->acc.acc[i]);
        if (param[i + 1] == 0)
            return false;
    }
    if (!map) {
        *out = use_param(r, param[attr->acc.n]);
        return attr->acc.n > 0;
    }
    for (uint8_t i = 0; i <= attr->acc.n; i++)
        if (kf_slot_uses_param(map, i))
            use_param(r, param[i]);
    *out = kf_slot_rebuild(r->b, map, map->n_insts - 1, param);
    return true;
}

static bool spend(raising *r)
{
    if (r->budget == 0)
        return false;
    r->budget--;
    return true;
}

/* A number of the row: constants, sums, and functions of these. */
static bool row_expr(raising *r, kf_value v, uint32_t *out)
{
    const kf_node *n = kf_value_node(r->g, v);
    uint32_t arg[3] = {0};
    double c;

    if (kf_value_const(r->g, v, &c)) {
        *out = kf_slot_const(r->b, c);
        return true;
    }
    if (!n || !spend(r))
        return false;
    if (n->op == KF_OP_row_reduce)
        return !KF_ATTR_OF(n, row_reduce)->keep && inline_reduce(r, n, out);
    if (!kf_op_is_fn(n->op))
        return false;
    for (uint32_t j = 0; j < n->n_in; j++)
        if (!row_expr(r, n->in[j], &arg[j]))
            return false;
    *out = kf_slot_fn(r->b, (kf_fn)n->op, arg[0], arg[1], arg[2]);
    return true;
}

static bool same_dims(const kf_graph *g, kf_value a, kf_value b)
{
    const kf_type *x = kf_value_type(g, a), *y = kf_value_type(g, b);
    bool same = x->rank == y->rank;

    for (uint32_t i = 0; same && i < x->rank; i++)
        same = kf_dim_eq(x->dim[i], y->dim[i]);
    return same;
}

/* Which operand of |n| are rows of its shape that it moves or scales, or -1. */
static int rows_operand(const kf_graph *g, const kf_node *n)
{
    int rows = -1;

    if (n->op == KF_OP_row_reduce)
        return KF_ATTR_OF(n, row_reduce)->keep && n->n_in == 1 ? 0 : -1;
    if (n->op != KF_OP_add && n->op != KF_OP_sub && n->op != KF_OP_mul && n->op != KF_OP_div &&
        n->op != KF_OP_neg)
        return -1;
    for (uint32_t j = 0; j < n->n_in; j++) {
        if (!same_dims(g, n->in[j], n->out[0]))
            continue;
        if (rows >= 0)
            return -1;
        rows = (int)j;
    }
    return n->op == KF_OP_div && rows == 1 ? -1 : rows;
}

static bool full_expr(raising *r, kf_value v, uint32_t *out)
{
    const kf_node *n = kf_value_node(r->g, v);
    uint32_t arg[2] = {0}, sums = r->uses[PARAM_SUM] + r->uses[PARAM_SUM_SQ];

    if (v == r->x) {
        *out = use_param(r, PARAM_V);
        return true;
    }
    int rows = n && spend(r) ? rows_operand(r->g, n) : -1;
    if (rows < 0)
        return false;
    if (n->op == KF_OP_row_reduce)
        return inline_reduce(r, n, out);
    for (uint32_t j = 0; j < n->n_in; j++)
        if ((int)j != rows && !row_expr(r, n->in[j], &arg[j]))
            return false;
    if ((n->op == KF_OP_mul || n->op == KF_OP_div) &&
        sums != r->uses[PARAM_SUM] + r->uses[PARAM_SUM_SQ])
        r->scaled = true;
    if (!full_expr(r, n->in[rows], &arg[rows]))
        return false;
    *out = kf_slot_fn(r->b, (kf_fn)n->op, arg[0], arg[1], 0);
    return true;
}

/* ---- the norm -------------------------------------------------------------------------------- */

/* |map| with the accumulators that are used, and no others. */
static void finish(const raising *r, const kf_slot *map, kf_arena *a, kf_attr_row_reduce *attr)
{
    const char *names[PARAMS] = {"v"};
    uint32_t number[PARAMS] = {0};

    attr->keep = true;
    for (uint32_t p = PARAM_SUM; p < PARAMS; p++) {
        if (r->uses[p] == 0)
            continue;
        attr->acc.acc[attr->acc.n++] = param_accs[p];
        number[p] = attr->acc.n;
        names[attr->acc.n] = param_names[p];
    }
    kf_slot_builder *b = kf_slot_builder_create(a, attr->acc.n + 1, names, 0);
    attr->map = kf_slot_finish(b, kf_slot_rebuild(b, map, map->n_insts - 1, number));
}

/* NONE if |y| is a norm of |x|, whose attribute then is in |out|; F0201 if it is not one. */
static kf_reason match_norm(const kf_graph *g, kf_value y, kf_value x, kf_pass_ctx *cx,
                            kf_attr_row_reduce *out)
{
    const kf_type *t = kf_value_type(g, x);
    raising r = {g, cx->scratch, x, .budget = BUDGET};
    uint32_t root;

    if (!kf_dim_is_static(t->dim[t->rank - 1])) /* keys in view: a softmax, or what stands for it */
        return KF_REASON_F0201;
    r.b = kf_slot_builder_create(cx->scratch, PARAMS, param_names, 0);
    if (!full_expr(&r, y, &root) || !r.scaled)
        return KF_REASON_F0201;
    if (r.uses[PARAM_SUM] && r.uses[PARAM_SUM_SQ])
        return KF_REASON_F0208;
    finish(&r, kf_slot_finish(r.b, root), g->module->arena, out);
    return KF_REASON_NONE;
}

static bool try_raise(kf_graph *g, uint32_t index, kf_pass_ctx *cx)
{
    const kf_node n = g->nodes.data[index];
    kf_value chain[MAX_CHAIN];
    uint32_t len = 0;
    int rows = rows_operand(g, &n);

    for (const kf_node *at = &n; at && rows >= 0 && len < MAX_CHAIN;) {
        chain[len++] = at->in[rows];
        at = kf_value_node(g, at->in[rows]);
        rows = at && at->op != KF_OP_NONE ? rows_operand(g, at) : -1;
    }
    while (len-- > 0) { /* from the far end: the rows themselves before their deviations */
        kf_attr_row_reduce *attr = KF_ATTR_NEW(g->module->arena, row_reduce);
        kf_reason why = match_norm(g, n.out[0], chain[len], cx, attr);
        if (why == KF_REASON_F0201)
            continue;
        const char *op = kf_op_infos[n.op].name;
        if (why != KF_REASON_NONE) {
            kf_report_refused(cx, g, n.loc, why, (kf_str){0}, "elementwise %s -> norm", op);
            return false;
        }
        if (!kf_report_fused(cx, g, n.loc, "elementwise %s -> norm", op))
            return false;
        kf_value norm = kf_node_add(g, KF_OP_row_reduce, attr, 1, &chain[len], NULL, n.loc);
        kf_graph_replace(g, n.out[0], norm);
        g->nodes.data[index].op = KF_OP_NONE;
        return true;
    }
    return false;
}

/* ---- vectors in a map ------------------------------------------------------------------------ */

/** What the map does last with a vector along the row. */
typedef struct vector_step {
    kf_op op;
    kf_value vector;
} vector_step;

/* The vector that instruction |i| loads at the column, or KF_NO_VALUE. */
static kf_value loaded_vector(const kf_graph *g, const kf_node *n, uint32_t i)
{
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);
    const kf_slot_inst *load = &attr->map->inst[i];

    if (load->op != KF_SLOT_LOAD || load->n_args != 1)
        return KF_NO_VALUE;
    const kf_slot_inst *at = &attr->map->inst[load->arg[0]];
    kf_value v = n->in[n->n_in - attr->map->captures + load->index];
    const kf_type *x = kf_value_type(g, n->in[0]);
    bool column = at->op == KF_SLOT_PARAM && at->index == attr->acc.n + 1u;
    bool fits =
        kf_dim_eq(kf_value_type(g, v)->dim[0], x->dim[x->rank - 1]); /* else: a part of it */
    return column && fits && kf_value_is_param(g, v) ? v : KF_NO_VALUE;
}

/* The map below |root| in terms of v and the accumulators; NULL if it uses more. */
static const kf_slot *map_below(kf_arena *a, const kf_slot *map, uint8_t n_acc, uint32_t root)
{
    const char *names[KF_MAX_ACCS + 1];
    bool reached[KF_SLOT_MAX_INSTS] = {false};

    reached[root] = true;
    for (uint32_t i = root + 1; i-- > 0;) {
        const kf_slot_inst *in = &map->inst[i];
        if (reached[i] &&
            (in->op == KF_SLOT_LOAD || (in->op == KF_SLOT_PARAM && in->index > n_acc)))
            return NULL;
        for (uint32_t k = 0; reached[i] && k < in->n_args; k++)
            reached[in->arg[k]] = true;
    }
    for (uint8_t i = 0; i <= n_acc; i++)
        names[i] = kf_str_dup(a, map->param[i]).ptr;
    kf_slot_builder *b = kf_slot_builder_create(a, n_acc + 1, names, 0);
    return kf_slot_finish(b, kf_slot_rebuild(b, map, root, NULL));
}

/* Products and sums with vectors, taken off the end of the map. */
static bool take_vectors_out(kf_graph *g, uint32_t index)
{
    const kf_node n = g->nodes.data[index];
    const kf_attr_row_reduce *old = KF_ATTR_OF(&n, row_reduce);
    vector_step step[4];
    uint32_t n_steps = 0, root = old->map->n_insts - 1;

    while (n_steps < 4) {
        const kf_slot_inst *in = &old->map->inst[root];
        if (in->op != KF_SLOT_FN || (in->fn != KF_FN_mul && in->fn != KF_FN_add))
            break;
        kf_value left = loaded_vector(g, &n, in->arg[0]), right = loaded_vector(g, &n, in->arg[1]);
        if ((left == KF_NO_VALUE) == (right == KF_NO_VALUE))
            break;
        step[n_steps++] = (vector_step){(kf_op)in->fn, left == KF_NO_VALUE ? right : left};
        root = left == KF_NO_VALUE ? in->arg[0] : in->arg[1];
    }
    const kf_slot *map = n_steps ? map_below(g->module->arena, old->map, old->acc.n, root) : NULL;
    if (!map)
        return false;
    kf_attr_row_reduce *attr = KF_ATTR_NEW(g->module->arena, row_reduce);
    attr->acc = old->acc;
    attr->keep = true;
    attr->map = map;
    kf_value v = kf_node_add(g, KF_OP_row_reduce, attr, 1, n.in, NULL, n.loc);
    while (n_steps-- > 0)
        v = kf_node_2(g, step[n_steps].op, v, step[n_steps].vector, n.loc);
    kf_graph_replace(g, n.out[0], v);
    g->nodes.data[index].op = KF_OP_NONE;
    return true;
}

static bool has_vectors(const kf_node *n)
{
    const kf_attr_row_reduce *attr = n->op == KF_OP_row_reduce ? KF_ATTR_OF(n, row_reduce) : NULL;

    return attr && attr->keep && attr->map && attr->map->captures;
}

/* One step; then what has become dead is gone. */
static bool raise_one(kf_graph *g, kf_pass_ctx *cx)
{
    for (uint32_t i = g->nodes.len; i-- > 0;) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_NONE)
            continue;
        bool raised = has_vectors(n) ? take_vectors_out(g, i)
                                     : n->op != KF_OP_row_reduce && try_raise(g, i, cx);
        if (!raised)
            continue;
        kf_graph_compact(g);
        return true;
    }
    return false;
}

bool kf_pass_raise_norm(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    while (raise_one(g, cx))
        progress = true;
    return progress;
}
