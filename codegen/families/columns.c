/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/families/columns.h"

/* The row coordinate: known only at the call, the same for a result and all it reads of the matmul.
 */
#define ROW (-1)

typedef struct tracer {
    const kf_graph *g;
    kf_value matmul;
    bool *depends; /* by value: computed from the matmul */
    kf_sbuf *why;
    int64_t lo, hi;
    kf_value cached; /* a reduction and where it was last followed: neighbours share their row */
    int64_t cached_ix[KF_MAX_RANK], cached_lo, cached_hi;
} tracer;

static bool follow(tracer *t, kf_value v, const int64_t *ix);

static void widen(tracer *t, int64_t lo, int64_t hi)
{
    t->lo = lo < t->lo ? lo : t->lo;
    t->hi = hi > t->hi ? hi : t->hi;
}

static bool follow_broadcast(tracer *t, const kf_node *n, const int64_t *ix)
{
    const kf_type *to = kf_value_type(t->g, n->out[0]);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const kf_type *from = kf_value_type(t->g, n->in[i]);
        int64_t at[KF_MAX_RANK];
        for (uint32_t d = 0; d < from->rank; d++) {
            const bool one = kf_dim_is_one(from->dim[d]);
            at[d] = one ? 0 : ix[to->rank - from->rank + d];
        }
        if (!follow(t, n->in[i], at))
            return false;
    }
    return true;
}

/* Rows are the leading, dynamic dim of both; the static dims regroup as one linear index. */
static bool follow_reshape(tracer *t, const kf_node *n, const int64_t *ix)
{
    const kf_type *to = kf_value_type(t->g, n->out[0]), *from = kf_value_type(t->g, n->in[0]);
    int64_t at[KF_MAX_RANK], linear = 0;
    uint32_t rows = 0, seen = 0;
    for (uint32_t d = 0; d < to->rank; d++) {
        if (ix[d] == ROW)
            rows++;
        else
            linear = linear * to->dim[d].size + ix[d];
        if (ix[d] != ROW && rows == 0 && to->dim[d].size != 1)
            return kf_refuse(t->why, "a reshape in the epilogue puts columns before the rows");
    }
    for (uint32_t d = from->rank; d-- > 0;) {
        if (!kf_dim_is_static(from->dim[d])) {
            at[d] = ROW;
            seen++;
            continue;
        }
        at[d] = linear % from->dim[d].size;
        linear /= from->dim[d].size;
    }
    if (seen != rows || rows != 1)
        return kf_refuse(t->why, "a reshape in the epilogue changes the rows");
    return follow(t, n->in[0], at);
}

static bool follow_concat(tracer *t, const kf_node *n, const int64_t *ix)
{
    const int64_t axis = KF_ATTR_OF(n, axis)->axis;
    int64_t at[KF_MAX_RANK];
    const uint32_t rank = kf_value_type(t->g, n->out[0])->rank;
    for (uint32_t d = 0; d < rank; d++)
        at[d] = ix[d];
    for (uint32_t i = 0; i < n->n_in; i++) {
        const int64_t size = kf_value_type(t->g, n->in[i])->dim[axis].size;
        if (at[axis] < size)
            return follow(t, n->in[i], at);
        at[axis] -= size;
    }
    return kf_refuse(t->why, "concat joins rows of the matmul");
}

static bool follow_rope(tracer *t, const kf_node *n, const int64_t *ix)
{
    const int64_t half = kf_value_type(t->g, n->in[1])->dim[1].size;
    int64_t at[3] = {ix[0], ix[1], ix[2]};
    if (t->depends[n->in[1]])
        return kf_refuse(t->why, "the rope table is computed from the matmul");
    if (!follow(t, n->in[0], at))
        return false;
    if (ix[2] >= 2 * half)
        return true;
    if (KF_ATTR_OF(n, rope)->style == KF_STYLE_INTERLEAVED)
        at[2] = ix[2] ^ 1;
    else
        at[2] = ix[2] < half ? ix[2] + half : ix[2] - half;
    return follow(t, n->in[0], at);
}

static bool follow_span(tracer *t, kf_value v, const int64_t *ix, uint32_t axis, int64_t lo,
                        int64_t hi)
{
    int64_t at[KF_MAX_RANK];
    for (uint32_t d = 0; d <= axis; d++)
        at[d] = ix[d];
    for (at[axis] = lo; at[axis] < hi; at[axis]++)
        if (!follow(t, v, at))
            return false;
    return true;
}

static bool follow_reduce(tracer *t, const kf_node *n, const int64_t *ix)
{
    const kf_type *x = kf_value_type(t->g, n->in[0]);
    const uint32_t axis = x->rank - 1u;
    bool same = t->cached == n->out[0];
    for (uint32_t d = 0; d < axis; d++)
        same = same && t->cached_ix[d] == ix[d];
    if (!same) {
        const int64_t lo = t->lo, hi = t->hi;
        t->lo = INT64_MAX;
        t->hi = -1;
        if (!kf_dim_is_static(x->dim[axis]))
            return kf_refuse(t->why, "a reduction in the epilogue runs over the rows");
        if (!follow_span(t, n->in[0], ix, axis, 0, x->dim[axis].size))
            return false;
        t->cached = n->out[0];
        for (uint32_t d = 0; d < axis; d++)
            t->cached_ix[d] = ix[d];
        t->cached_lo = t->lo;
        t->cached_hi = t->hi;
        widen(t, lo, hi);
    }
    widen(t, t->cached_lo, t->cached_hi);
    for (uint32_t i = 1; i < n->n_in; i++)
        if (t->depends[n->in[i]])
            return kf_refuse(t->why, "a reduction captures values of the matmul");
    return true;
}

static bool follow_index(tracer *t, const kf_node *n, const int64_t *ix)
{
    const uint32_t rank = kf_value_type(t->g, n->out[0])->rank;
    int64_t at[KF_MAX_RANK];
    for (uint32_t d = 0; d < rank; d++)
        at[d] = ix[d];
    if (n->op == KF_OP_slice) {
        const kf_attr_slice *s = KF_ATTR_OF(n, slice);
        if (ix[s->axis] == ROW)
            return kf_refuse(t->why, "the epilogue takes some of the rows");
        at[s->axis] += s->start;
    } else {
        for (uint32_t d = 0; d < rank; d++)
            at[KF_ATTR_OF(n, perm)->perm.v[d]] = ix[d];
    }
    return follow(t, n->in[0], at);
}

static bool follow(tracer *t, kf_value v, const int64_t *ix)
{
    if (!t->depends[v])
        return true;
    if (v == t->matmul) {
        if (ix[0] != ROW)
            return kf_refuse(t->why, "the epilogue reads other rows of the product than its own");
        widen(t, ix[1], ix[1]);
        return true;
    }
    const kf_node *n = kf_value_node(t->g, v);
    if (kf_op_is_fn(n->op) || n->op == KF_OP_convert)
        return follow_broadcast(t, n, ix);
    switch (n->op) {
    case KF_OP_reshape:
        return follow_reshape(t, n, ix);
    case KF_OP_transpose:
    case KF_OP_slice:
        return follow_index(t, n, ix);
    case KF_OP_concat:
        return follow_concat(t, n, ix);
    case KF_OP_rope:
        return follow_rope(t, n, ix);
    case KF_OP_row_reduce:
        return follow_reduce(t, n, ix);
    case KF_OP_row_stat: {
        const int64_t block = KF_ATTR_OF(n, row_stat)->block;
        const int64_t size = kf_value_type(t->g, n->in[0])->dim[1].size;
        const int64_t lo = ix[1] * block, hi = lo + block < size ? lo + block : size;
        return follow_span(t, n->in[0], ix, 1, lo, hi);
    }
    default:
        break;
    }
    return kf_refuse(t->why, "%s cannot stand in the epilogue of a matmul",
                     kf_op_infos[n->op].name);
}

/* ---- items ----------------------------------------------------------------------------------- */

/** Each column of a result is looked at and remembered. */
enum { MAX_COLUMNS = 1 << 24 };

static bool trace_item(tracer *t, kf_column_item *item, kf_arena *arena)
{
    const kf_type *type = kf_value_type(t->g, item->value);
    const kf_dim rows = kf_value_type(t->g, t->matmul)->dim[0];
    if (type->rank < 1 || !kf_dim_eq(type->dim[0], rows))
        return kf_refuse(t->why, "result %u does not have the rows of the product", item->result);
    if (!t->depends[item->value])
        return kf_refuse(t->why, "result %u does not depend on the product", item->result);
    item->n = 1;
    for (uint32_t d = 1; d < type->rank; d++) {
        if (!kf_dim_is_static(type->dim[d]))
            return kf_refuse(t->why, "result %u has a second dim known only at the call",
                             item->result);
        if (type->dim[d].size > MAX_COLUMNS / item->n)
            return kf_refuse(t->why, "result %u has more than %d columns", item->result,
                             MAX_COLUMNS);
        item->n *= (uint32_t)type->dim[d].size;
    }
    item->first = KF_NEW_N(arena, int32_t, item->n);
    item->last = KF_NEW_N(arena, int32_t, item->n);
    for (uint32_t j = 0; j < item->n; j++) {
        int64_t ix[KF_MAX_RANK] = {ROW}, c = j;
        for (uint32_t d = type->rank; d-- > 1; c /= type->dim[d].size)
            ix[d] = c % type->dim[d].size;
        t->lo = INT64_MAX;
        t->hi = -1;
        if (!follow(t, item->value, ix))
            return false;
        if (t->hi < 0)
            return kf_refuse(t->why, "a column of result %u does not depend on the product",
                             item->result);
        item->first[j] = (int32_t)t->lo;
        item->last[j] = (int32_t)t->hi;
    }
    return true;
}

bool kf_columns_trace(const kf_graph *g, kf_value matmul, kf_arena *arena, kf_columns *out,
                      kf_sbuf *why)
{
    tracer t = {.g = g, .matmul = matmul, .why = why, .cached = KF_NO_VALUE};
    t.depends = kf_dependents(g, matmul, arena);
    *out = (kf_columns){.matmul = matmul};
    for (uint32_t i = 0; i < g->results.len; i++) {
        const kf_value v = g->results.data[i];
        const kf_node *append = kf_value_is(g, v, KF_OP_kv_append);
        if (kf_value_type(g, v)->kind == KF_TYPE_KVCACHE && !append)
            return kf_refuse(why, "result %u is a cache that the region does not append to", i);
        for (int p = 0; p < (append ? 2 : 1); p++) {
            kf_column_item *item = &out->item[out->n_items++];
            *item = (kf_column_item){.result = i, .plane = -1, .value = v};
            if (append) {
                item->plane = p == 0 ? KF_PLANE_KEYS : KF_PLANE_VALUES;
                item->value = append->in[1 + p];
            }
            if (!trace_item(&t, item, arena))
                return false;
        }
    }
    return true;
}

static bool item_ok(const kf_column_item *item, uint32_t unit, uint32_t tile_n)
{
    uint32_t owner = 0;
    for (uint32_t j = 0; j < item->n; j++) {
        const uint32_t o = (uint32_t)item->first[j] / tile_n;
        if ((uint32_t)item->last[j] / tile_n != o || o < owner)
            return false;
        if (o != owner && j % unit != 0)
            return false;
        owner = o;
    }
    return true;
}

bool kf_columns_tile_ok(const kf_columns *c, const kf_graph *g, uint32_t tile_n)
{
    for (uint32_t i = 0; i < c->n_items; i++) {
        const kf_type *t = kf_value_type(g, c->item[i].value);
        const uint32_t unit = c->item[i].plane >= 0 ? (uint32_t)t->dim[2].size : 1;
        if (!item_ok(&c->item[i], unit, tile_n))
            return false;
    }
    return true;
}

int32_t *kf_columns_starts(const kf_column_item *item, kf_arena *arena, uint32_t tile_n,
                           uint32_t n_tiles)
{
    int32_t *start = KF_NEW_N(arena, int32_t, n_tiles + 1);
    uint32_t j = 0;
    for (uint32_t t = 0; t < n_tiles; t++) {
        while (j < item->n && (uint32_t)item->first[j] / tile_n < t)
            j++;
        start[t] = (int32_t)j;
    }
    start[n_tiles] = (int32_t)item->n;
    return start;
}
