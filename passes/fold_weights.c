/* SPDX-License-Identifier: Apache-2.0 */
/* fold_weights - what scales or shifts the rows around a matmul goes into its weight or its bias.
 *
 *   before   %1 = mul %0, %gamma                    after   %3 = matmul %0, %w'     w' = w * gamma
 *            %2 = add %1, %beta                             %4 = add %3, %b'        b' = w beta
 *            %3 = matmul %2, %w {trans_b}
 *
 *   gain     mul by a vector before matmuls: columns of the weights
 *   bias     add of a vector before matmuls: a vector behind them
 *   scale    mul by a vector or a number behind a matmul (and its bias): rows of the weight
 *   pair     two vectors added (or multiplied) one after the other: one vector
 *
 * Fires when    gain, bias: every reader of the rows is a linear matmul. gain, scale: the weights
 *               are stored in f32 and nothing else reads them.
 * Must not fire when a scaled weight is stored in a narrower type: the product would be rounded a
 *               second time, which costs about 2.6e-6 NMSE a matmul for bf16; there a gain stays
 *               a column scale of the prologue, unless build.fold_narrow allows it. A shift leaves the weight as it is, so neither its
 *               type nor its other readers matter (a tied embedding is read by gather too).
 * Why here      before fuse_norm, which then has no columns to scale and shift.
 * Needs uses. Keeps nothing. Terminates: scales disappear, shifts move towards the results.
 */
#include "passes/match.h"

/* A node and what rules ask about it. */
typedef struct site {
    kf_graph *g;
    kf_pass_ctx *cx;
    const uint32_t *uses;
    uint32_t index;
    kf_node n;
} site;

/* Operand of the node that is a parameter [k] or [1], with rows [N,k] as the other; or -1. */
static int vector_operand(const site *s)
{
    const kf_graph *g = s->g;

    for (int i = 0; i < 2; i++)
        if (kf_value_is_param(g, s->n.in[i]) && kf_value_type(g, s->n.in[i])->rank == 1 &&
            kf_value_type(g, s->n.in[1 - i])->rank == 2 &&
            kf_dtype_infos[kf_value_type(g, s->n.in[i])->dtype].kind == KF_KIND_FLOAT)
            return i;
    return -1;
}

static kf_str name_of(const site *s, kf_value v)
{
    return s->g->values.data[v].name;
}

/* Why weight |w| may not be replaced by a scaled one. */
static kf_reason why_not_scaled(const site *s, kf_value w)
{
    if (kf_value_type(s->g, w)->dtype != KF_DTYPE_f32 && !s->cx->fold_narrow)
        return KF_REASON_F0205;
    if (s->cx->norm_rewrite != KF_NORM_REWRITE_NONE)
        return KF_REASON_NONE; /* a tied table is untied */
    return kf_readers_of_recipe(s->g, kf_value_recipe(s->g, w), s->uses) == 1 ? KF_REASON_NONE
                                                                              : KF_REASON_F0206;
}

/* How many operands read |rows| as the left factor of a linear matmul. */
static uint32_t linear_readers(const site *s, kf_value rows)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->g->nodes.len; i++) {
        const kf_node *r = &s->g->nodes.data[i];
        n += r->op == KF_OP_matmul && r->in[0] == rows && kf_node_is_linear(s->g, r);
    }
    return n;
}

static bool is_reader(const kf_graph *g, uint32_t i, kf_value rows)
{
    const kf_node *r = &g->nodes.data[i];

    return r->op == KF_OP_matmul && r->in[0] == rows;
}

/* ---- before matmuls -------------------------------------------------------------------------- */

/* The rows are as wide as |x|: one number of a row is not repeated along a longer vector. */
static bool keeps_columns(const site *s, kf_value x)
{
    return kf_dim_eq(kf_value_type(s->g, x)->dim[1], kf_value_type(s->g, s->n.out[0])->dim[1]);
}

static kf_reason why_not_gain(const site *s, kf_value x, kf_value rows)
{
    if (linear_readers(s, rows) != s->uses[rows])
        return KF_REASON_F0202;
    if (!keeps_columns(s, x))
        return KF_REASON_F0204;
    for (uint32_t i = 0; i < s->g->nodes.len; i++) {
        kf_reason why = is_reader(s->g, i, rows) ? why_not_scaled(s, s->g->nodes.data[i].in[1])
                                                 : KF_REASON_NONE;
        if (why)
            return why;
    }
    return KF_REASON_NONE;
}

/* Who is in the way of folding into every reader of |rows|: what else reads them, or the weight. */
static kf_str in_the_way(const site *s, kf_reason why, kf_value rows)
{
    const kf_graph *g = s->g;

    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *r = &g->nodes.data[i];
        bool reads = false;
        for (uint32_t j = 0; j < r->n_in; j++)
            reads |= r->op != KF_OP_NONE && r->in[j] == rows;
        bool fits = is_reader(g, i, rows) && kf_node_is_linear(g, r);
        if (reads && !fits && why == KF_REASON_F0202)
            return kf_strf(s->cx->scratch, "'%s' reads what it makes", kf_op_infos[r->op].name);
        if (fits && why != KF_REASON_F0202 && why_not_scaled(s, r->in[1]) == why)
            return kf_strf(s->cx->scratch, "%%%.*s", KF_STR_ARG(name_of(s, r->in[1])));
    }
    return why == KF_REASON_F0202 ? KF_STR("the rows leave the function") : (kf_str){0};
}

static bool fold_gain(const site *s)
{
    kf_graph *g = s->g;
    int v = vector_operand(s);

    if (v < 0)
        return false;
    kf_value gain = s->n.in[v], x = s->n.in[1 - v], rows = s->n.out[0];
    kf_str title = name_of(s, gain);
    kf_reason why = why_not_gain(s, x, rows);
    if (why) {
        kf_report_refused(s->cx, g, s->n.loc, why, in_the_way(s, why, rows),
                          "gain %%%.*s -> weights", KF_STR_ARG(title));
        return false;
    }
    if (!kf_report_fused(s->cx, g, s->n.loc, "gain %%%.*s -> weights", KF_STR_ARG(title)))
        return false;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        if (!is_reader(g, i, rows))
            continue;
        const kf_value_info w = g->values.data[g->nodes.data[i].in[1]];
        const kf_recipe *r = kf_recipe_fn(g->module->arena, KF_FN_mul, g->recipes.data[w.def],
                                          kf_value_recipe(g, gain));
        kf_value scaled = kf_graph_param_of(g, r, w.name, w.loc);
        g->nodes.data[i].in[0] = x;
        g->nodes.data[i].in[1] = scaled;
    }
    return true;
}

static bool fold_bias(const site *s)
{
    kf_graph *g = s->g;
    int v = vector_operand(s);

    if (v < 0 || !linear_readers(s, s->n.out[0]))
        return false;
    kf_value bias = s->n.in[v], x = s->n.in[1 - v], rows = s->n.out[0];
    kf_str title = name_of(s, bias);
    bool fits = kf_dim_eq(kf_value_type(g, bias)->dim[0], kf_value_type(g, x)->dim[1]);
    if (linear_readers(s, rows) != s->uses[rows] || !fits) {
        kf_reason why = fits ? KF_REASON_F0202 : KF_REASON_F0204;
        kf_report_refused(s->cx, g, s->n.loc, why, in_the_way(s, why, rows),
                          "bias %%%.*s -> weights", KF_STR_ARG(title));
        return false;
    }
    if (!kf_report_fused(s->cx, g, s->n.loc, "bias %%%.*s -> weights", KF_STR_ARG(title)))
        return false;
    for (uint32_t i = 0, end = g->nodes.len; i < end; i++) {
        if (!is_reader(g, i, rows))
            continue;
        const kf_node m = g->nodes.data[i];
        const kf_recipe *w = kf_value_recipe(g, m.in[1]);
        const kf_recipe *r = kf_recipe_matmul(g->module->arena, w, kf_value_recipe(g, bias));
        kf_value shift = kf_graph_param_of(g, r, title, s->n.loc);
        kf_value y = kf_node_matmul(g, x, m.in[1], true, m.loc);
        kf_graph_replace(g, m.out[0], kf_node_2(g, KF_OP_add, y, shift, s->n.loc));
        g->nodes.data[i].op = KF_OP_NONE;
    }
    return true;
}

/* ---- behind matmuls -------------------------------------------------------------------------- */

/* y = x w^T, or x w^T + shift, each value with one user: what a scale behind it would scale. */
typedef struct product {
    kf_node m;
    kf_value shift; /* KF_NO_VALUE: none */
    bool is_shared; /* some value in it has other users */
} product;

static bool find_product(const site *s, kf_value y, product *out)
{
    const kf_graph *g = s->g;
    const kf_node *n = kf_value_is(g, y, KF_OP_add);
    site inner = *s;

    *out = (product){.shift = KF_NO_VALUE, .is_shared = s->uses[y] != 1};
    if (n) {
        inner.n = *n;
        int v = vector_operand(&inner);
        if (v < 0)
            return false;
        out->shift = n->in[v];
        y = n->in[1 - v];
        out->is_shared |= s->uses[y] != 1;
    }
    n = kf_value_is(g, y, KF_OP_matmul);
    if (!n || !kf_node_is_linear(g, n))
        return false;
    out->m = *n;
    return true;
}

/* A factor that scales columns of rows: a vector or a number. */
typedef struct factor {
    kf_str title;
    const kf_recipe *r; /* NULL: the number */
    double number;
} factor;

static bool find_factor(const site *s, factor *out, kf_value *out_rows)
{
    int v = vector_operand(s);

    for (int i = 0; v < 0 && i < 2; i++)
        v = kf_value_const(s->g, s->n.in[i], &out->number) ? i : v;
    if (v < 0)
        return false;
    *out_rows = s->n.in[1 - v];
    bool is_vector = kf_value_is_param(s->g, s->n.in[v]);
    out->r = is_vector ? kf_value_recipe(s->g, s->n.in[v]) : NULL;
    out->title = is_vector
                     ? kf_strf(s->cx->scratch, "gain %%%.*s", KF_STR_ARG(name_of(s, s->n.in[v])))
                     : KF_STR("elementwise mul");
    return true;
}

static const kf_recipe *scaled(kf_arena *a, const kf_recipe *r, const factor *f)
{
    if (!f->r)
        return kf_recipe_times(a, r, f->number);
    bool rows = r->type.rank == 2;
    return kf_recipe_fn(a, KF_FN_mul, r, rows ? kf_recipe_transpose(a, f->r) : f->r);
}

static bool fold_scale(const site *s)
{
    kf_graph *g = s->g;
    kf_arena *a = g->module->arena;
    factor f;
    product p;
    kf_value rows;

    if (!find_factor(s, &f, &rows) || !find_product(s, rows, &p))
        return false;
    const kf_value_info w = g->values.data[p.m.in[1]];
    kf_reason why = p.is_shared ? KF_REASON_F0203 : why_not_scaled(s, p.m.in[1]);
    if (why) {
        kf_report_refused(s->cx, g, s->n.loc, why, (kf_str){0}, "%.*s -> weights %%%.*s",
                          KF_STR_ARG(f.title), KF_STR_ARG(w.name));
        return false;
    }
    if (!kf_report_fused(s->cx, g, s->n.loc, "%.*s -> weights %%%.*s", KF_STR_ARG(f.title),
                         KF_STR_ARG(w.name)))
        return false;
    kf_value sw = kf_graph_param_of(g, scaled(a, g->recipes.data[w.def], &f), w.name, w.loc);
    kf_value y = kf_node_matmul(g, p.m.in[0], sw, true, p.m.loc);
    if (p.shift != KF_NO_VALUE) {
        const kf_recipe *b = kf_recipe_as(a, kf_value_recipe(g, p.shift), KF_DTYPE_f32);
        kf_value sb = kf_graph_param_of(g, scaled(a, b, &f), name_of(s, p.shift), s->n.loc);
        y = kf_node_2(g, KF_OP_add, y, sb, s->n.loc);
    }
    kf_graph_replace(g, s->n.out[0], y);
    return true;
}

/* ---- vectors --------------------------------------------------------------------------------- */

/* (x + p) + q, or (x * p) * q */
static bool fold_pair(const site *s)
{
    kf_graph *g = s->g;
    site inner = *s;
    int v = vector_operand(s);
    const kf_node *node = v < 0 ? NULL : kf_value_is(g, s->n.in[1 - v], s->n.op);

    if (!node || s->uses[node->out[0]] != 1)
        return false;
    inner.n = *node;
    int u = vector_operand(&inner);
    if (u < 0)
        return false;
    kf_value p = inner.n.in[u], q = s->n.in[v];
    const char *kind = s->n.op == KF_OP_add ? "bias" : "gain";
    kf_str p_name = name_of(s, p), q_name = name_of(s, q);
    if (!kf_report_fused(s->cx, g, s->n.loc, "%s %%%.*s -> %s %%%.*s", kind, KF_STR_ARG(p_name),
                         kind, KF_STR_ARG(q_name)))
        return false;
    const kf_recipe *r = kf_recipe_fn(g->module->arena, (kf_fn)s->n.op, kf_value_recipe(g, p),
                                      kf_value_recipe(g, q));
    r = kf_recipe_as(g->module->arena, r, KF_DTYPE_f32);
    kf_value both = kf_graph_param_of(g, r, q_name, s->n.loc);
    kf_graph_replace(g, s->n.out[0], kf_node_2(g, s->n.op, inner.n.in[1 - u], both, s->n.loc));
    return true;
}

/* ---- the pass -------------------------------------------------------------------------------- */

/* In this order: a gain is looked at when no shift stands between it and its matmul. */
static const struct {
    kf_op op;
    bool (*fold)(const site *s);
} rules[] = {
    {KF_OP_mul, fold_pair},  {KF_OP_add, fold_pair}, {KF_OP_add, fold_bias},
    {KF_OP_mul, fold_scale}, {KF_OP_mul, fold_gain},
};

static bool fold_one(kf_graph *g, kf_pass_ctx *cx)
{
    const uint32_t *uses = kf_graph_use_counts(g, cx->scratch);

    for (uint32_t r = 0; r < sizeof rules / sizeof rules[0]; r++)
        for (uint32_t i = 0; i < g->nodes.len; i++) {
            site s = {g, cx, uses, i, g->nodes.data[i]};
            if (s.n.op == rules[r].op && rules[r].fold(&s))
                return true;
        }
    return false;
}

bool kf_pass_fold_weights(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    while (fold_one(g, cx)) {
        progress = true;
        kf_graph_compact(g);
    }
    return progress;
}
