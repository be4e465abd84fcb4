/* SPDX-License-Identifier: Apache-2.0 */
/* shard - one transfer rule per word of the shard column of ops.def.
 *
 * A dim cut along a mesh axis stays cut where the op works on each part alone; a sum over a cut dim
 * gives a partial value, which only linear ops may pass on. Everything else is an error: a
 * collective is missing.
 */
#include "ir/shard.h"

#include "ir/text.h"

#include <stdarg.h>

typedef struct query {
    const kf_graph *g;
    kf_op op;
    const void *attr;
    uint32_t n_in;
    const kf_value *in;
    kf_type *out;
    uint8_t n_out;
    kf_sbuf *why;
} query;

static bool fail(query *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(query *q, const char *fmt, ...)
{
    if (q->why) {
        va_list ap;
        va_start(ap, fmt);
        kf_sbuf_printf(q->why, "%s: ", kf_op_infos[q->op].name);
        kf_sbuf_vprintf(q->why, fmt, ap);
        va_end(ap);
    }
    return false;
}

static const kf_type *operand(const query *q, uint32_t i)
{
    return kf_value_type(q->g, q->in[i]);
}

static const char *type_text(const query *q, const kf_type *t)
{
    kf_sbuf text = {.arena = q->g->module->arena};
    kf_type_print(q->g->module, t, &text);
    return text.ptr;
}

static bool is_cut(const kf_type *t)
{
    if (t->partial)
        return true;
    if (t->kind == KF_TYPE_KVCACHE)
        return t->shard[0] != 0;
    for (uint8_t i = 0; i < t->rank; i++) {
        if (t->shard[i])
            return true;
    }
    return false;
}

/* Operands from |first| on are whole. */
static bool want_whole(query *q, uint32_t first)
{
    for (uint32_t i = first; i < q->n_in; i++) {
        if (is_cut(operand(q, i)))
            return fail(q, "operand %u has to be whole: %s", i, type_text(q, operand(q, i)));
    }
    return true;
}

static bool want_summed(query *q)
{
    for (uint32_t i = 0; i < q->n_in; i++) {
        if (operand(q, i)->partial)
            return fail(q, "operand %u is a partial sum: %s", i, type_text(q, operand(q, i)));
    }
    return true;
}

/* Dim |dim| of result 0 takes the axis |shard|, which no other dim of it may have. */
static bool cut_result(query *q, uint8_t dim, uint8_t shard)
{
    kf_type *t = &q->out[0];
    if (t->shard[dim] && shard && t->shard[dim] != shard)
        return fail(q, "dim %u is cut along two axes", dim);
    for (uint8_t i = 0; shard && i < t->rank; i++) {
        if (i != dim && t->shard[i] == shard)
            return fail(q, "dims %u and %u are cut along one axis", i, dim);
    }
    if (shard)
        t->shard[dim] = shard;
    return true;
}

static bool shard_replicated(query *q)
{
    return want_whole(q, 0);
}

/* Which functions commute with a sum over ranks, given which operands are partial. */
static bool passes_partial(kf_op op, const bool *partial)
{
    switch (op) {
    case KF_OP_add:
    case KF_OP_sub:
        return partial[0] && partial[1];
    case KF_OP_neg:
        return true;
    case KF_OP_mul:
        return partial[0] != partial[1];
    case KF_OP_div:
        return partial[0] && !partial[1];
    default:
        return false;
    }
}

static bool shard_elementwise(query *q)
{
    kf_type *t = &q->out[0];
    bool partial[3] = {false};
    for (uint32_t i = 0; i < q->n_in; i++) {
        const kf_type *x = operand(q, i);
        for (uint8_t d = 0; d < x->rank; d++) {
            if (!cut_result(q, (uint8_t)(t->rank - x->rank + d), x->shard[d]))
                return false;
        }
        partial[i] = x->partial != 0;
        if (x->partial && t->partial && t->partial != x->partial)
            return fail(q, "partial sums over two axes");
        t->partial = x->partial ? x->partial : t->partial;
    }
    for (uint32_t i = 0; i < q->n_in; i++) { /* a dim cut in one operand is cut or 1 in all */
        const kf_type *x = operand(q, i);
        for (uint8_t d = 0; d < x->rank; d++) {
            uint8_t at = (uint8_t)(t->rank - x->rank + d);
            bool one = kf_dim_is_one(x->dim[d]);
            if (t->shard[at] != x->shard[d] && !one)
                return fail(q, "operand %u is cut otherwise than the result %s: %s", i,
                            type_text(q, t), type_text(q, x));
        }
    }
    if (t->partial && !passes_partial(q->op, partial))
        return fail(q, "a partial sum has to be reduced first");
    return true;
}

/* Walks groups of dims with equal products; a cut dim may only lead its group. */
static bool shard_reshape(query *q)
{
    const kf_type *x = operand(q, 0);
    kf_type *t = &q->out[0];
    t->partial = x->partial;
    uint8_t i = 0, j = 0;
    while (i < x->rank && j < t->rank) {
        uint8_t lead = i;
        if (!cut_result(q, j, x->shard[i]))
            return false;
        if (x->dim[i].sym) { /* dynamic dims face each other once 1s are skipped */
            if (!t->dim[j].sym) {
                t->shard[j] = 0;
                j++;
                continue;
            }
            i++, j++;
            continue;
        }
        if (t->dim[j].sym) {
            t->shard[j] = 0;
            if (x->shard[i])
                return fail(q, "cannot cut %s like %s", type_text(q, t), type_text(q, x));
            i++;
            continue;
        }
        int64_t px = x->dim[i++].size, pt = t->dim[j++].size;
        while (px != pt) {
            if (px < pt && i < x->rank && x->shard[i])
                return fail(q, "dim %u of %s is cut behind dim %u", i, type_text(q, x), lead);
            if (px < pt)
                px *= x->dim[i++].size;
            else
                pt *= t->dim[j++].size;
        }
    }
    return true;
}

/* What is repeated is whole; the other dims are cut as they were. */
static bool shard_expand(query *q)
{
    const kf_type *x = operand(q, 0);
    kf_type *t = &q->out[0];
    t->partial = x->partial;
    for (uint8_t d = 0; d < t->rank; d++)
        t->shard[d] = 0;
    for (uint8_t d = 0; d < x->rank; d++)
        t->shard[t->rank - x->rank + d] = x->shard[d];
    return true;
}

static bool shard_transpose(query *q)
{
    const kf_type *x = operand(q, 0);
    const kf_ints *perm = &((const kf_attr_perm *)q->attr)->perm;
    q->out[0].partial = x->partial;
    for (uint8_t i = 0; i < x->rank; i++)
        q->out[0].shard[i] = x->shard[perm->v[i]];
    return true;
}

/* slice and concat: everything but the axis passes, equally in all operands. */
static bool shard_slice(query *q)
{
    int64_t axis = q->op == KF_OP_slice ? ((const kf_attr_slice *)q->attr)->axis
                                        : ((const kf_attr_axis *)q->attr)->axis;
    const kf_type *x = operand(q, 0);
    q->out[0].partial = x->partial;
    for (uint8_t d = 0; d < x->rank; d++) {
        q->out[0].shard[d] = x->shard[d];
        for (uint32_t i = 1; i < q->n_in; i++) {
            if (operand(q, i)->shard[d] != x->shard[d] || operand(q, i)->partial != x->partial)
                return fail(q, "operands are cut differently: %s and %s", type_text(q, x),
                            type_text(q, operand(q, i)));
        }
    }
    if (x->shard[axis])
        return fail(q, "axis %d of %s is cut", (int)axis, type_text(q, x));
    return true;
}

/* A table cut by rows gives each rank the rows it has, and zeros: a partial sum. */
static bool shard_gather(query *q)
{
    const kf_type *table = operand(q, 0), *ids = operand(q, 1);
    if (!want_summed(q))
        return false;
    for (uint8_t d = 0; d < ids->rank; d++) {
        if (!cut_result(q, d, ids->shard[d]))
            return false;
    }
    for (uint8_t d = 1; d < table->rank; d++) {
        if (!cut_result(q, (uint8_t)(ids->rank + d - 1), table->shard[d]))
            return false;
    }
    q->out[0].partial = table->shard[0];
    return true;
}

static bool shard_contract(query *q)
{
    const kf_type *a = operand(q, 0), *b = operand(q, 1);
    bool trans_b = ((const kf_attr_matmul *)q->attr)->trans_b;
    kf_type *t = &q->out[0];
    uint8_t ka = a->shard[a->rank - 1], kb = b->shard[b->rank - (trans_b ? 1 : 2)];
    if (ka != kb)
        return fail(q, "the contracted dim is cut in one operand only: %s and %s", type_text(q, a),
                    type_text(q, b));
    uint8_t sources = (ka != 0) + (a->partial != 0) + (b->partial != 0);
    if (sources > 1)
        return fail(q, "a product of partial sums: %s and %s", type_text(q, a), type_text(q, b));
    t->partial = ka ? ka : a->partial ? a->partial : b->partial;
    const kf_type *both[] = {a, b};
    for (int s = 0; s < 2; s++) {
        uint8_t batch = (uint8_t)(both[s]->rank - 2);
        for (uint8_t d = 0; d < batch; d++) {
            if (!cut_result(q, (uint8_t)(t->rank - 2 - batch + d), both[s]->shard[d]))
                return false;
        }
    }
    return cut_result(q, (uint8_t)(t->rank - 2), a->shard[a->rank - 2]) &&
           cut_result(q, (uint8_t)(t->rank - 1), b->shard[b->rank - (trans_b ? 2 : 1)]);
}

static bool shard_rows(query *q)
{
    const kf_type *x = operand(q, 0);
    if (!want_summed(q) || !want_whole(q, 1))
        return false;
    bool vector = q->op == KF_OP_rope_table; /* its only dim is the rows */
    for (uint8_t d = 0; d < x->rank; d++) {
        if (x->shard[d] && d == x->rank - 1 && !vector)
            return fail(q, "the last axis has to be whole: %s", type_text(q, x));
        q->out[0].shard[d] = x->shard[d];
    }
    return true;
}

/* Heads of queries, keys and cache are cut alike; rows may not be: a cache holds whole sequences.
 */
static bool shard_heads(query *q)
{
    if (!want_summed(q))
        return false;
    bool has_cache = q->op != KF_OP_rope;
    const kf_type *kv = has_cache ? operand(q, q->op == KF_OP_attention ? 1 : 0) : NULL;
    uint8_t heads = kv ? kv->shard[0] : operand(q, 0)->shard[1];
    for (uint32_t i = 0; i < q->n_in; i++) {
        const kf_type *t = operand(q, i);
        bool by_head = (q->op == KF_OP_kv_append && (i == 1 || i == 2)) ||
                       (i == 0 && (q->op == KF_OP_attention || q->op == KF_OP_rope));
        for (uint8_t d = 0; d < t->rank; d++) {
            uint8_t want = by_head && d == 1 ? heads : 0;
            if (t->shard[d] != want)
                return fail(q, "heads are cut like the cache and nothing else is: %s",
                            type_text(q, t));
        }
    }
    if (q->out[0].kind == KF_TYPE_TENSOR)
        q->out[0].shard[1] = heads;
    return true;
}

/* Types come with the body or the callee. */
static bool shard_callee(query *q)
{
    (void)q;
    return true;
}

static bool shard_body(query *q)
{
    (void)q;
    return true;
}

static bool (*const shard_rules[KF_OP_COUNT])(query *) = {
#define FN(name, arity, result, traits, eval, emit, oracle, summary) shard_elementwise,
#include "ir/fn.def"
#undef FN
#define OP(name, ins, attr, traits, shape, eval, shard, types, summary) shard_##shard,
#include "ir/ops.def"
#undef OP
};

bool kf_shard_infer(const kf_graph *g, kf_op op, const void *attr, uint32_t n_in,
                    const kf_value *in, kf_type *out, uint8_t n_out, kf_sbuf *why)
{
    query q = {g, op, attr, n_in, in, out, n_out, why};
    bool any = false;
    for (uint32_t i = 0; i < n_in; i++)
        any |= is_cut(operand(&q, i));
    return !any || shard_rules[op](&q);
}
