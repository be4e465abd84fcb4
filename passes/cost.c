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

/* |amount| for each element of |t|: where it goes depends on the symbol that |t| grows with. */
static void count(kf_cost *c, const kf_type *t, int64_t per_element)
{
    int64_t amount = kf_type_static_elems(t) * per_element;

    if (has_sym(t, KF_SYM_K) || has_sym(t, KF_SYM_M))
        c->per_key += amount; /* [N, K] grows with the visible keys, summed over tokens */
    else if (has_sym(t, KF_SYM_R))
        c->per_row += amount;
    else if (has_sym(t, KF_SYM_N) || has_sym(t, KF_SYM_S))
        c->per_token += amount;
    else
        c->fixed += amount;
}

/* The op that reads argument |v| as a table, or NULL. */
static const kf_node *gather_of(const kf_graph *g, kf_value v)
{
    for (uint32_t i = 0; i < g->nodes.len; i++)
        if (g->nodes.data[i].op == KF_OP_gather && g->nodes.data[i].in[0] == v)
            return &g->nodes.data[i];
    return NULL;
}

static void count_arg(const kf_graph *g, kf_value v, kf_cost *bytes)
{
    const kf_type *t = kf_value_type(g, v);
    const kf_node *gather = gather_of(g, v);

    if (t->kind == KF_TYPE_KVCACHE)
        return; /* counted by the ops that read and write it */
    count(bytes, gather ? kf_value_type(g, gather->out[0]) : t, kf_dtype_infos[t->dtype].bytes);
}

static int64_t cache_row_bytes(const kf_type *kv)
{
    return 2 * (int64_t)kv->kv_heads * kv->kv_head_dim * kf_dtype_infos[kv->dtype].bytes;
}

static void count_node(const kf_graph *g, const kf_node *n, kf_cost *flops, kf_cost *bytes)
{
    const kf_type *out = kf_value_type(g, n->out[0]);
    const kf_type *in = n->n_in ? kf_value_type(g, n->in[0]) : out;

    if (n->op == KF_OP_matmul)
        count(flops, out, 2 * in->dim[in->rank - 1].size);
    else if (n->op == KF_OP_attention) {
        const kf_type *kv = kf_value_type(g, n->in[1]);
        flops->per_key += 4 * in->dim[1].size * in->dim[2].size;
        bytes->per_key += cache_row_bytes(kv);
    } else if (n->op == KF_OP_kv_append)
        bytes->per_token += cache_row_bytes(in);
    else if (n->op == KF_OP_kv_read)
        bytes->per_key += cache_row_bytes(in) / 2;
    else if (n->op == KF_OP_row_reduce || n->op == KF_OP_row_stat)
        count(flops, in, 2);
    else if (n->op == KF_OP_rope)
        count(flops, out, 3);
    else if (kf_op_is_fn(n->op))
        count(flops, out, 1);
}

void kf_region_cost(const kf_graph *body, kf_cost *out_flops, kf_cost *out_bytes)
{
    *out_flops = *out_bytes = (kf_cost){0};
    for (uint32_t i = 0; i < body->args.len; i++)
        count_arg(body, body->args.data[i], out_bytes);
    for (uint32_t i = 0; i < body->nodes.len; i++)
        count_node(body, &body->nodes.data[i], out_flops, out_bytes);
    for (uint32_t i = 0; i < body->results.len; i++) {
        const kf_type *t = kf_value_type(body, body->results.data[i]);
        if (t->kind == KF_TYPE_TENSOR)
            count(out_bytes, t, kf_dtype_infos[t->dtype].bytes);
    }
}
