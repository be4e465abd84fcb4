/* SPDX-License-Identifier: Apache-2.0 */
/* cost - see cost.h. */
#include "passes/cost.h"

static bool has_sym(const kf_type *t, uint32_t sym)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (t->dim[i].sym == sym + 1)
            return true;
    return false;
}

/* |amount| for each element of |t|: where it goes depends on the symbols that |t| grows with. */
static void count(kf_cost *c, const kf_type *t, int64_t per_element)
{
    int64_t amount = kf_type_static_elems(t) * per_element;
    bool tokens = has_sym(t, KF_SYM_N) || has_sym(t, KF_SYM_S);

    if (has_sym(t, KF_SYM_K) || has_sym(t, KF_SYM_M))
        *(tokens ? &c->per_pair : &c->per_key) += amount;
    else if (has_sym(t, KF_SYM_R))
        c->per_row += amount;
    else if (tokens)
        c->per_token += amount;
    else
        c->fixed += amount;
}

static void add(kf_cost *to, const kf_cost *c)
{
    to->fixed += c->fixed;
    to->per_token += c->per_token;
    to->per_row += c->per_row;
    to->per_key += c->per_key;
    to->per_pair += c->per_pair;
}

/* ---- operands and results -------------------------------------------------------------------- */

/* What reading |v| moves where |gather| (or NULL) reads it as a table. Caches are counted by the
 * ops that read and write them, numbers are in the code. */
static void count_read(const kf_graph *g, kf_value v, const kf_node *gather, kf_cost *bytes)
{
    const kf_type *t = kf_value_type(g, v);
    const kf_node *def = kf_value_node(g, v);

    if (t->kind == KF_TYPE_KVCACHE || (def && def->op == KF_OP_const))
        return;
    count(bytes, gather ? kf_value_type(g, gather->out[0]) : t, kf_dtype_infos[t->dtype].bytes);
}

kf_cost kf_stored_cost(const kf_type *t)
{
    kf_cost c = {0};

    if (t->kind == KF_TYPE_TENSOR)
        count(&c, t, kf_dtype_infos[t->dtype].bytes);
    return c;
}

static void count_stored(const kf_graph *g, kf_value v, kf_cost *bytes)
{
    kf_cost c = kf_stored_cost(kf_value_type(g, v));

    add(bytes, &c);
}

/* The op that reads argument |v| as a table, or NULL. */
static const kf_node *gather_of(const kf_graph *g, kf_value v)
{
    for (uint32_t i = 0; i < g->nodes.len; i++)
        if (g->nodes.data[i].op == KF_OP_gather && g->nodes.data[i].in[0] == v)
            return &g->nodes.data[i];
    return NULL;
}

kf_cost kf_operand_cost(const kf_graph *body, uint32_t arg)
{
    kf_value v = body->args.data[arg];
    kf_cost c = {0};

    count_read(body, v, gather_of(body, v), &c);
    return c;
}

/* ---- caches ---------------------------------------------------------------------------------- */

int64_t kf_position_bytes(const kf_type *kv)
{
    return 2 * (int64_t)kv->kv_heads * kv->kv_head_dim * kf_dtype_infos[kv->dtype].bytes;
}

/* The cache operand of |n|, or KF_NO_VALUE. */
static kf_value cache_of(const kf_graph *g, const kf_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (kf_value_type(g, n->in[i])->kind == KF_TYPE_KVCACHE)
            return n->in[i];
    return KF_NO_VALUE;
}

static void count_state(const kf_graph *g, const kf_node *n, kf_cost *bytes)
{
    kf_value kv = cache_of(g, n);

    if (n->op == KF_OP_attention)
        bytes->per_key += kf_position_bytes(kf_value_type(g, kv));
    else if (n->op == KF_OP_kv_read)
        bytes->per_key += kf_position_bytes(kf_value_type(g, kv)) / 2; /* keys or values */
    else if (n->op == KF_OP_kv_append)
        bytes->per_token += kf_position_bytes(kf_value_type(g, kv));
}

/* The argument that |v|, a cache, came from. */
static kf_value cache_arg(const kf_graph *g, kf_value v)
{
    const kf_node *n = kf_value_node(g, v);

    return n ? cache_arg(g, cache_of(g, n)) : v;
}

void kf_state_use(const kf_graph *body, uint32_t arg, bool *out_reads, bool *out_appends)
{
    *out_reads = *out_appends = false;
    for (uint32_t i = 0; i < body->nodes.len; i++) {
        const kf_node *n = &body->nodes.data[i];
        kf_value kv = cache_of(body, n);
        if (kv == KF_NO_VALUE || cache_arg(body, kv) != body->args.data[arg])
            continue;
        *out_reads |= n->op != KF_OP_kv_append;
        *out_appends |= n->op == KF_OP_kv_append;
    }
}

/* ---- FLOPs ----------------------------------------------------------------------------------- */

/* The contracted dim of a weighted sum over keys is the keys themselves. */
static void count_matmul(const kf_type *out, const kf_type *in, kf_cost *flops)
{
    kf_dim deep = in->dim[in->rank - 1];

    if (kf_dim_is_static(deep))
        count(flops, out, 2 * deep.size);
    else
        flops->per_pair += 2 * kf_type_static_elems(out);
}

static void count_flops(const kf_graph *g, const kf_node *n, kf_cost *flops)
{
    const kf_type *out = kf_value_type(g, n->out[0]);
    const kf_type *in = n->n_in ? kf_value_type(g, n->in[0]) : out;

    if (n->op == KF_OP_matmul)
        count_matmul(out, in, flops);
    else if (n->op == KF_OP_attention)
        flops->per_pair += 4 * in->dim[1].size * in->dim[2].size;
    else if (n->op == KF_OP_row_reduce || n->op == KF_OP_row_stat)
        count(flops, in, 2);
    else if (n->op == KF_OP_rope)
        count(flops, out, 3);
    else if (kf_op_is_fn(n->op))
        count(flops, out, 1);
}

/* ---- regions --------------------------------------------------------------------------------- */

void kf_region_cost(const kf_graph *body, kf_cost *out_flops, kf_cost *out_bytes)
{
    *out_flops = *out_bytes = (kf_cost){0};
    for (uint32_t i = 0; i < body->args.len; i++) {
        kf_cost c = kf_operand_cost(body, i);
        add(out_bytes, &c);
    }
    for (uint32_t i = 0; i < body->nodes.len; i++) {
        count_flops(body, &body->nodes.data[i], out_flops);
        count_state(body, &body->nodes.data[i], out_bytes);
    }
    for (uint32_t i = 0; i < body->results.len; i++)
        count_stored(body, body->results.data[i], out_bytes);
}

static bool is_counted(const kf_serials *counted, uint32_t serial)
{
    for (uint32_t i = 0; i < counted->len; i++)
        if (counted->data[i] == serial)
            return true;
    return false;
}

static uint32_t scalar_ops(const kf_slot *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; s && i < s->n_insts; i++)
        n += s->inst[i].op == KF_SLOT_FN;
    return n;
}

/* What attention is beyond its operands and results when it is written out: keys and values are
 * read from the cache and stored as rows, two products, a normaliser, and an op for each scalar
 * function between them, all over a row per token and a column per key. Returns the number of ops.
 */
static uint32_t count_written_out(const kf_graph *g, const kf_node *n, kf_cost *bytes)
{
    const kf_attr_attention *a = KF_ATTR_OF(n, attention);
    const kf_type *q = kf_value_type(g, n->in[0]), *kv = kf_value_type(g, n->in[1]);
    int64_t scores = 4 * q->dim[1].size, rows = 4 * (int64_t)kv->kv_heads * kv->kv_head_dim;
    uint32_t between = scalar_ops(a->score) + scalar_ops(a->mask) + scalar_ops(a->prob) +
                       (a->mask != NULL) + (a->scale != 1) +
                       (a->normaliser == KF_NORMALISER_SOFTMAX);

    bytes->per_key += 4 * rows; /* keys and values, stored and read */
    bytes->per_pair += scores * (2 + 2 * (int64_t)between);
    return 4 + between;
}

void kf_region_alone(const kf_graph *body, kf_arena *arena, kf_serials *counted, uint32_t *out_ops,
                     kf_cost *out_bytes)
{
    *out_ops = 0;
    *out_bytes = (kf_cost){0};
    for (uint32_t i = 0; i < body->nodes.len; i++) {
        const kf_node *n = &body->nodes.data[i];
        if (n->op == KF_OP_const || is_counted(counted, n->serial))
            continue;
        kf_vec_push(arena, counted, n->serial);
        *out_ops += n->op == KF_OP_attention ? count_written_out(body, n, out_bytes) : 1;
        for (uint32_t j = 0; j < n->n_in; j++)
            count_read(body, n->in[j], n->op == KF_OP_gather && j == 0 ? n : NULL, out_bytes);
        for (uint32_t r = 0; r < n->n_out; r++)
            count_stored(body, n->out[r], out_bytes);
        count_state(body, n, out_bytes);
    }
}
