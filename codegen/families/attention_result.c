/* SPDX-License-Identifier: Apache-2.0 */
/* attention_result - what stands behind an attention in its region: functions of its elements,
 * norms over the elements of a head, all of which a pair has, and partial statistics of rows whose
 * blocks lie within heads.
 *
 *   for each norm:       its accumulators over the head
 *   for d..:             the result's elements, maps of norms with these accumulators
 *   for each statistic:  its blocks of the head
 */
#include "base/check.h"
#include "codegen/families/attention_impl.h"

#include <string.h>

/* ---- match ----------------------------------------------------------------------------------- */

/* Whether element i of a row of |v| stands for element i of a row of the attention |n|. */
static bool keeps_elements(const kf_graph *g, const kf_node *n, kf_value v)
{
    const kf_type *t = kf_value_type(g, v), *out = kf_value_type(g, n->out[0]);
    return t->kind == KF_TYPE_TENSOR && t->rank >= 2 && kf_dim_eq(t->dim[0], out->dim[0]) &&
           kf_type_static_elems(t) == kf_type_static_elems(out);
}

/* A norm of each head: its rows are what a pair of row and head has. */
static bool is_head_norm(const kf_graph *g, const kf_node *n, const kf_node *x)
{
    return x->op == KF_OP_row_reduce && KF_ATTR_OF(x, row_reduce)->keep &&
           kf_value_type(g, x->in[0])->rank == 3 && keeps_elements(g, n, x->in[0]) &&
           kf_dim_eq(kf_value_type(g, x->in[0])->dim[2], kf_value_type(g, n->out[0])->dim[2]);
}

static bool match_norm(const kf_graph *g, const kf_node *n, const kf_node *x, const bool *behind,
                       uint32_t *n_norms, kf_sbuf *why)
{
    if (!is_head_norm(g, n, x))
        return kf_refuse(why, "a reduction behind attention is not over a head");
    for (uint32_t k = 1; k < x->n_in; k++)
        if (behind[x->in[k]])
            return kf_refuse(why, "a norm loads from what stands behind attention");
    if (++*n_norms > KF_ATT_NORMS)
        return kf_refuse(why, "more than %d norms behind attention", KF_ATT_NORMS);
    return true;
}

/* Partial statistics of the row, whose blocks are parts of a head. */
static bool is_head_stat(const kf_graph *g, const kf_node *n, const kf_node *x)
{
    return x->op == KF_OP_row_stat && keeps_elements(g, n, x->in[0]) &&
           kf_value_type(g, n->out[0])->dim[2].size % KF_ATTR_OF(x, row_stat)->block == 0;
}

static bool is_stat(const kf_graph *g, kf_value v)
{
    return kf_value_is(g, v, KF_OP_row_stat) != NULL;
}

/* The result that holds the rows. */
static uint32_t rows_result(const kf_graph *g)
{
    uint32_t i = 0;
    while (i < g->results.len && is_stat(g, g->results.data[i]))
        i++;
    return i;
}

/* Results are rows, and statistics beside them. */
static bool match_stored(const kf_graph *g, const bool *behind, kf_sbuf *why)
{
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < g->results.len; i++) {
        if (!behind[g->results.data[i]])
            return kf_refuse(why, "a result of an attention region is made from the attention");
        n_rows += !is_stat(g, g->results.data[i]);
    }
    if (n_rows != 1)
        return kf_refuse(why, "an attention region gives one value");
    return true;
}

/* What stands behind the attention is done element by element, as results are stored, but for the
 * accumulators of norms and for statistics, which nothing in the region reads. */
bool kf_att_match_results(const kf_graph *g, const kf_node *n, kf_arena *scratch, kf_sbuf *why)
{
    const bool *behind = kf_dependents(g, n->out[0], scratch);
    uint32_t n_norms = 0;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *x = &g->nodes.data[i];
        if (x == n || !behind[x->out[0]])
            continue;
        if (is_head_stat(g, n, x))
            continue;
        if (x->op == KF_OP_row_reduce) {
            if (!match_norm(g, n, x, behind, &n_norms, why))
                return false;
        } else if (!kf_op_is_fn(x->op) && x->op != KF_OP_reshape && x->op != KF_OP_convert)
            return kf_refuse(why, "%s cannot stand behind attention", kf_op_infos[x->op].name);
        if (!keeps_elements(g, n, x->out[0]))
            return kf_refuse(why, "the rows change behind attention");
    }
    return match_stored(g, behind, why);
}

/* ---- results --------------------------------------------------------------------------------- */

static bool is_attention(void *user, kf_value v)
{
    const kf_att *t = user;
    return v == t->n->out[0];
}

/* The attention where results are being stored, or at |ix| of a head that a norm sums over: O / l,
 * and 0 where nothing was seen. What stands behind it keeps elements in place, so when results are
 * stored |ix| names just these. */
static kb_value load_attention(kf_pw *pw, void *user, kf_value v, const kf_coord *ix)
{
    kf_att *t = user;
    kb *b = pw->b;
    const uint32_t lanes = t->out.d ? t->out.lanes : ix[2].lanes;
    kb_value at = kb_add(b, kb_muli(b, t->out.pair, t->z.dim), t->out.d ? t->out.d : ix[2].v);
    (void)v;
    kb_value o = kb_load(b, KB_F32, lanes, kf_att_state_cell(t, t->z.o, at), 4);
    if (!t->softmax)
        return o;
    kb_value l = kb_load(b, KB_F32, 1, kf_att_state_cell(t, t->z.l, t->out.pair), 4);
    l = kb_select(b, kb_fcmp(b, KB_EQ, l, kb_f32(b, 1, 0.0f)), kb_f32(b, 1, 1.0f), l);
    return kb_fdiv(b, o, kb_splat(b, l, lanes));
}

/* Accumulators of a norm over the pair's head, which start_norms has found. */
static const kb_value *norm_accs(void *user, const kf_node *n)
{
    const kf_att *t = user;
    for (uint32_t i = 0; i < t->n_norms; i++)
        if (t->norm[i].node == n)
            return t->norm[i].acc;
    return NULL;
}

kf_pw_leaves kf_att_leaves(kf_att *t)
{
    return (kf_pw_leaves){t, is_attention, load_attention, norm_accs};
}

static void start_norms(kf_att *t, kb_value pair)
{
    const kf_graph *g = t->e->body;
    const bool *behind = kf_dependents(g, t->n->out[0], t->e->arena);
    const kf_coord ix[3] = {kf_coord_uniform(kf_att_row(t, pair), 1),
                            kf_coord_uniform(kf_att_head(t, pair), 1), kf_coord_later()};
    t->out = (kf_att_out){.pair = pair};
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *x = &g->nodes.data[i];
        if (x->op != KF_OP_row_reduce || !behind[x->out[0]])
            continue;
        const kb_value *acc = kf_pw_row_accs(&t->pw, x, ix);
        kf_att_norm *norm = &t->norm[t->n_norms++];
        norm->node = x;
        memcpy(norm->acc, acc, KF_ATTR_OF(x, row_reduce)->acc.n * sizeof *acc);
    }
}

/* Elements |at|.. of a row of |type| as coordinates of its dims but the first. */
static void row_coords(kb *b, const kf_type *type, kf_coord at, kf_coord *ix)
{
    for (uint32_t i = type->rank; i-- > 1;) {
        ix[i] = i > 1 ? kf_coord_modi(b, at, type->dim[i].size) : at;
        at = i > 1 ? kf_coord_divi(b, at, type->dim[i].size) : at;
    }
}

/* |at| + 0, 1, ..: vectors start at multiples of their length in a head. */
static kf_coord row_ramp(const kf_att *t, kb_value at, uint32_t lanes)
{
    int64_t divisor = lanes;
    while (t->z.dim % divisor != 0)
        divisor /= 2;
    return kf_coord_ramp(at, lanes, divisor);
}

static void finish_span(kf_att *t, kb_value pair, int64_t lo, int64_t hi, uint32_t lanes)
{
    kb *b = t->b;
    kb_loop loop;
    if (lo == hi)
        return;
    const uint32_t number = rows_result(t->e->body);
    const kf_value result = t->e->body->results.data[number];
    const kf_type *type = kf_value_type(t->e->body, result);
    kf_coord ix[KF_MAX_RANK] = {kf_coord_uniform(kf_att_row(t, pair), 1)};
    kb_loop_begin(b, &loop, kb_i64(b, lo), kb_i64(b, hi), lanes, 0, NULL);
    const uint32_t mark = kf_pw_mark(&t->pw);
    kf_coord at =
        row_ramp(t, kb_add(b, kb_muli(b, kf_att_head(t, pair), t->z.dim), loop.iv), lanes);
    row_coords(b, type, at, ix);
    t->out = (kf_att_out){.pair = pair, .d = loop.iv, .lanes = lanes};
    kb_value value = kf_pw_value(&t->pw, result, ix);
    kb_value row = kb_muli(b, ix[0].v, kf_type_static_elems(type));
    kf_pw_store(&t->pw, type->dtype, value, type->dtype, kf_result_ptr(t->e, number),
                kf_coord_add(b, kf_coord_uniform(row, 1), at));
    kf_pw_release(&t->pw, mark);
    kb_loop_end(b, &loop, NULL);
}

/* Whether what stands behind the attention can be computed in vectors. */
static bool finishes_in_vectors(kf_att *t)
{
    const kf_value result = t->e->body->results.data[rows_result(t->e->body)];
    kf_coord ix[KF_MAX_RANK] = {kf_coord_uniform(NULL, 1)};
    row_coords(NULL, kf_value_type(t->e->body, result), row_ramp(t, NULL, t->lanes), ix);
    return kf_pw_feasible(&t->pw, result, ix);
}

/* Result |number|, a statistic: its blocks of the pair's head. */
static void finish_stat(kf_att *t, uint32_t number, kb_value pair, kb_value row)
{
    kb *b = t->b;
    kb_loop loop;
    const kf_graph *g = t->e->body;
    const kf_value result = g->results.data[number];
    const kf_type *type = kf_value_type(g, result);
    const int64_t blocks = t->z.dim / KF_ATTR_OF(kf_value_node(g, result), row_stat)->block;
    t->out = (kf_att_out){.pair = pair};
    kb_loop_begin(b, &loop, kb_i64(b, 0), kb_i64(b, blocks), 1, 0, NULL);
    const uint32_t mark = kf_pw_mark(&t->pw);
    kb_value block = kb_add(b, kb_muli(b, kf_att_head(t, pair), blocks), loop.iv);
    const kf_coord ix[2] = {kf_coord_uniform(row, 1), kf_coord_uniform(block, 1)};
    kb_value at = kb_add(b, kb_muli(b, row, type->dim[1].size), block);
    kf_pw_store(&t->pw, type->dtype, kf_pw_value(&t->pw, result, ix), type->dtype,
                kf_result_ptr(t->e, number), kf_coord_uniform(at, 1));
    kf_pw_release(&t->pw, mark);
    kb_loop_end(b, &loop, NULL);
}

void kf_att_finish(kf_att *t, kb_value pair, kb_value row)
{
    const kf_graph *g = t->e->body;
    start_norms(t, pair);
    const int64_t whole = finishes_in_vectors(t) ? t->z.dim / t->lanes * t->lanes : 0;
    finish_span(t, pair, 0, whole, t->lanes);
    finish_span(t, pair, whole, t->z.dim, 1);
    for (uint32_t i = 0; i < g->results.len; i++)
        if (is_stat(g, g->results.data[i]))
            finish_stat(t, i, pair, row);
}
