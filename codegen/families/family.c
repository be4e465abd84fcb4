/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/families/family.h"

#include "base/check.h"

#include <inttypes.h>

bool kf_refuse(kf_sbuf *why, const char *fmt, ...)
{
    if (!why)
        return false;
    va_list ap;
    va_start(ap, fmt);
    kf_sbuf_vprintf(why, fmt, ap);
    va_end(ap);
    return false;
}

void kf_config_set(kf_config *c, const char *key, int64_t value)
{
    KF_ASSERT(c->n < KF_MAX_CONFIG, "a kernel has at most KF_MAX_CONFIG integers");
    c->key[c->n] = key;
    c->value[c->n++] = value;
}

bool kf_config_in(const kf_config *c, const char *key, int64_t lo, int64_t hi, kf_sbuf *why)
{
    const int64_t v = kf_config_get(c, key);
    if (v >= lo && v <= hi)
        return true;
    return kf_refuse(why, "config %s is %" PRId64 ", not in %" PRId64 "..%" PRId64, key, v, lo, hi);
}

int64_t kf_dim_bound(const kf_graph *body, kf_dim d, int64_t rows_hi)
{
    if (kf_dim_is_static(d))
        return d.size;
    const int64_t hi = body->module->syms.data[d.sym - 1].hi;
    const bool keys = d.sym - 1 == KF_SYM_K || d.sym - 1 == KF_SYM_M;
    return !keys && hi > rows_hi ? rows_hi : hi;
}

kb_value kf_result_ptr(const kf_emit *e, uint32_t i)
{
    return kb_ptr(e->b, e->body->args.len + i);
}

static bool static_axis(const kf_graph *g, const kf_node *n, kf_sbuf *why)
{
    const int64_t axis = KF_ATTR_OF(n, axis)->axis;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!kf_dim_is_static(kf_value_type(g, n->in[i])->dim[axis]))
            return kf_refuse(why, "concat joins an axis whose size is known only at the call");
    return true;
}

bool kf_same_dims(const kf_type *a, const kf_type *b)
{
    bool same = a->kind == b->kind && a->rank == b->rank;
    for (uint32_t i = 0; same && i < a->rank; i++)
        same = kf_dim_eq(a->dim[i], b->dim[i]);
    return same;
}

bool *kf_dependents(const kf_graph *g, kf_value from, kf_arena *scratch)
{
    bool *d = KF_NEW_N(scratch, bool, g->values.len);
    d[from] = true;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        bool any = false;
        for (uint32_t j = 0; j < n->n_in; j++)
            any = any || d[n->in[j]];
        for (uint32_t j = 0; any && j < n->n_out; j++)
            d[n->out[j]] = true;
    }
    return d;
}

typedef struct ordering {
    const kf_graph *g;
    uint32_t first[KF_MAX_RESULTS];             /* first result of the same dims */
    bool after[KF_MAX_RESULTS][KF_MAX_RESULTS]; /* [a][b]: group a is stored after group b */
    bool stored[KF_MAX_RESULTS];
} ordering;

static void find_groups(ordering *o, kf_arena *scratch)
{
    const kf_graph *g = o->g;
    const uint32_t n = g->results.len;
    for (uint32_t i = 0; i < n; i++) {
        const kf_type *t = kf_value_type(g, g->results.data[i]);
        o->first[i] = i;
        for (uint32_t j = 0; j < i && t->kind == KF_TYPE_TENSOR && o->first[i] == i; j++)
            if (kf_same_dims(t, kf_value_type(g, g->results.data[j])))
                o->first[i] = o->first[j];
    }
    for (uint32_t a = 0; a < n; a++) {
        const bool *needs = kf_dependents(g, g->results.data[a], scratch);
        for (uint32_t b = 0; b < n; b++)
            if (needs[g->results.data[b]] && o->first[a] != o->first[b])
                o->after[o->first[a]][o->first[b]] = true;
    }
}

static bool is_next(const ordering *o, uint32_t a)
{
    bool next = o->first[a] == a && !o->stored[a];
    for (uint32_t b = 0; next && b < o->g->results.len; b++)
        next = !o->after[a][b] || o->stored[b];
    return next;
}

bool kf_order_results(const kf_graph *g, kf_arena *scratch, kf_result_order *out, kf_sbuf *why)
{
    ordering o = {.g = g};
    uint32_t left = 0;
    *out = (kf_result_order){0};
    find_groups(&o, scratch);
    for (uint32_t i = 0; i < g->results.len; i++)
        left += o.first[i] == i;
    while (left > 0) {
        uint32_t a = 0;
        while (a < g->results.len && !is_next(&o, a))
            a++;
        if (a == g->results.len)
            return kf_refuse(why, "results of two shapes are computed from each other");
        for (uint32_t i = 0; i < g->results.len; i++)
            if (o.first[i] == a)
                out->group[i] = out->n_groups;
        o.stored[a] = true;
        out->n_groups++;
        left--;
    }
    return true;
}

static bool reads_own_append(const kf_graph *g, const kf_node *n)
{
    return kf_value_node(g, n->in[0]) != NULL;
}

bool kf_body_is_pointwise(const kf_graph *body, kf_sbuf *why)
{
    for (uint32_t i = 0; i < body->nodes.len; i++) {
        const kf_node *n = &body->nodes.data[i];
        switch (n->op) {
        case KF_OP_attention:
        case KF_OP_repeat:
        case KF_OP_region:
            return kf_refuse(why, "%s is a kernel of its own", kf_op_infos[n->op].name);
        case KF_OP_kv_read:
            if (reads_own_append(body, n))
                return kf_refuse(why, "keys are read while they are appended");
            break;
        case KF_OP_concat:
            if (!static_axis(body, n, why))
                return false;
            break;
        default:
            break;
        }
    }
    return true;
}
