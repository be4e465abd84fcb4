/* SPDX-License-Identifier: Apache-2.0 */
/* shape - result types: one function per word of the shape column of ops.def. Sharding is in
 * shard.c. */
#include "ir/shape.h"

#include "base/check.h"
#include "ir/shape_impl.h"
#include "ir/shard.h"
#include "ir/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

bool kf_shape_fail(kf_shape_query *q, const char *fmt, ...)
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

const char *kf_shape_text(const kf_shape_query *q, const kf_type *t)
{
    kf_sbuf text = {.arena = q->m->arena};
    kf_type_print(q->m, t, &text);
    return text.ptr;
}

const kf_type *kf_shape_operand(const kf_shape_query *q, uint32_t i)
{
    return kf_value_type(q->g, q->values[i]);
}

/* ---- what several rules ask ------------------------------------------------------------------ */

bool kf_shape_want_rank(kf_shape_query *q, uint32_t i, const char *what, uint8_t rank)
{
    const kf_type *t = kf_shape_operand(q, i);
    if (t->rank != rank)
        return kf_shape_fail(q, "%s has rank %u, not %u: %s", what, t->rank, rank,
                             kf_shape_text(q, t));
    return true;
}

bool kf_shape_want_float(kf_shape_query *q, uint32_t i, const char *what)
{
    const kf_type *t = kf_shape_operand(q, i);
    return kf_shape_is_float(t) ||
           kf_shape_fail(q, "%s is not of a float type: %s", what, kf_shape_text(q, t));
}

/* A vector of integers; |len| (may be NULL) is the operand whose dim 0 it must share. */
bool kf_shape_want_ints(kf_shape_query *q, uint32_t i, const char *what, const kf_type *len)
{
    const kf_type *t = kf_shape_operand(q, i);
    if (t->dtype != KF_DTYPE_i32 || t->rank != 1)
        return kf_shape_fail(q, "%s is i32[n], not %s", what, kf_shape_text(q, t));
    if (len && !kf_dim_eq(t->dim[0], len->dim[0]))
        return kf_shape_fail(q, "%s has another length: %s beside %s", what, kf_shape_text(q, t),
                             kf_shape_text(q, len));
    return true;
}

/* Loads of a slot index their captures with as many numbers as these have dims. */
bool kf_shape_check_loads(kf_shape_query *q, const kf_slot *s)
{
    for (uint32_t i = 0; s && i < s->n_insts; i++) {
        const kf_slot_inst *inst = &s->inst[i];
        if (inst->op != KF_SLOT_LOAD)
            continue;
        const kf_type *t = kf_shape_operand(q, q->n_in - s->captures + inst->index);
        if (t->kind != KF_TYPE_TENSOR || t->rank != inst->n_args)
            return kf_shape_fail(q, "a slot loads from %s with %u numbers", kf_shape_text(q, t),
                                 inst->n_args);
    }
    return true;
}

static bool want_axis(kf_shape_query *q, int64_t axis, uint8_t rank)
{
    return (axis >= 0 && axis < rank) ||
           kf_shape_fail(q, "axis %" PRId64 " of a value of rank %u", axis, rank);
}

bool kf_shape_result(kf_shape_query *q, kf_type t)
{
    q->out[q->n_out++] = t;
    return true;
}

/* |dtype| with the dims of |t|, row-major, replicated. */
kf_type kf_shape_dims_of(const kf_type *t, kf_dtype dtype)
{
    return kf_type_tensor(dtype, t->rank, t->dim);
}

/* Numpy broadcast of two shapes: equal dims, or a static 1, aligned at the last dim. */
static bool broadcast_types(const kf_type *a, const kf_type *b, kf_type *out)
{
    uint8_t rank = a->rank > b->rank ? a->rank : b->rank;
    kf_dim dim[KF_MAX_RANK];
    for (uint8_t i = 0; i < rank; i++) {
        const kf_dim one = kf_dim_static(1);
        kf_dim x = i < rank - a->rank ? one : a->dim[i - (rank - a->rank)];
        kf_dim y = i < rank - b->rank ? one : b->dim[i - (rank - b->rank)];
        if (!kf_dim_eq(x, y) && !kf_dim_is_one(x) && !kf_dim_is_one(y))
            return false;
        dim[i] = kf_dim_is_one(x) ? y : x;
    }
    *out = kf_type_tensor(a->dtype, rank, dim);
    return true;
}

/* ---- elementwise ----------------------------------------------------------------------------- */

/* Which functions of integers are integers; all others compute in f32. */
static bool keeps_ints(kf_fn fn)
{
    return fn == KF_FN_add || fn == KF_FN_sub || fn == KF_FN_mul || fn == KF_FN_min ||
           fn == KF_FN_max || fn == KF_FN_neg || fn == KF_FN_abs || fn == KF_FN_square ||
           fn == KF_FN_select;
}

static bool takes_preds(kf_fn fn)
{
    return fn == KF_FN_and || fn == KF_FN_or || fn == KF_FN_not;
}

bool kf_shape_elementwise(kf_shape_query *q)
{
    kf_fn fn = (kf_fn)q->op;
    kf_type t = *kf_shape_operand(q, 0);
    bool ints = true;
    for (uint32_t i = 0; i < q->n_in; i++) {
        const kf_type *x = kf_shape_operand(q, i);
        bool want_pred = takes_preds(fn) || (fn == KF_FN_select && i == 0);
        if (want_pred != (x->dtype == KF_DTYPE_pred))
            return kf_shape_fail(q, "operand %u is %sa predicate: %s", i, want_pred ? "not " : "",
                                 kf_shape_text(q, x));
        ints &= want_pred || x->dtype == KF_DTYPE_i32;
        if (!broadcast_types(&t, x, &t))
            return kf_shape_fail(q, "dims do not broadcast: %s and %s", kf_shape_text(q, &t),
                                 kf_shape_text(q, x));
    }
    kf_dtype dtype = kf_fn_infos[fn].result == KF_FN_RESULT_pred ? KF_DTYPE_pred
                     : ints && keeps_ints(fn)                    ? KF_DTYPE_i32
                                                                 : KF_DTYPE_f32;
    return kf_shape_result(q, kf_shape_dims_of(&t, dtype));
}

/* ---- constants and index functions ----------------------------------------------------------- */

bool kf_shape_constant(kf_shape_query *q)
{
    return kf_shape_result(q, kf_type_scalar(KF_DTYPE_f32));
}

bool kf_shape_given(kf_shape_query *q)
{
    if (!q->given)
        return kf_shape_fail(q, "the result type has to be given");
    int64_t axis = KF_SHAPE_ATTR(q, axis)->axis;
    if (!want_axis(q, axis, q->given->rank))
        return false;
    for (uint8_t i = 0; i < q->given->rank; i++) {
        if (i != axis && !kf_dim_is_one(q->given->dim[i]))
            return kf_shape_fail(q, "all dims but axis %" PRId64 " are 1: %s", axis,
                                 kf_shape_text(q, q->given));
    }
    if (q->given->dtype != KF_DTYPE_i32)
        return kf_shape_fail(q, "the result is i32, not %s", kf_shape_text(q, q->given));
    return kf_shape_result(q, kf_shape_dims_of(q->given, KF_DTYPE_i32));
}

/* The next dynamic dim of |t| from |*i| on, with the product of the static dims passed. */
static bool next_dynamic(const kf_type *t, uint8_t *i, int64_t *product, kf_dim *out)
{
    *product = 1;
    for (; *i < t->rank; (*i)++) {
        if (t->dim[*i].sym) {
            *out = t->dim[(*i)++];
            return true;
        }
        *product *= t->dim[*i].size;
    }
    return false;
}

bool kf_shape_reshape(kf_shape_query *q)
{
    const kf_type *x = kf_shape_operand(q, 0), *y = q->given;
    if (!y)
        return kf_shape_fail(q, "the result type has to be given");
    if (x->dtype != y->dtype)
        return kf_shape_fail(q, "the dtype stays: %s to %s", kf_shape_text(q, x),
                             kf_shape_text(q, y));
    uint8_t i = 0, j = 0;
    for (;;) {
        kf_dim dx = {0, 0}, dy = {0, 0};
        int64_t px, py;
        bool more_x = next_dynamic(x, &i, &px, &dx), more_y = next_dynamic(y, &j, &py, &dy);
        if (px != py || more_x != more_y || !kf_dim_eq(dx, dy))
            return kf_shape_fail(q, "only static dims between dynamic ones regroup: %s to %s",
                                 kf_shape_text(q, x), kf_shape_text(q, y));
        if (!more_x)
            return kf_shape_result(q, kf_shape_dims_of(y, x->dtype));
    }
}

bool kf_shape_expand(kf_shape_query *q)
{
    const kf_type *x = kf_shape_operand(q, 0), *y = q->given;
    kf_type t;
    if (!y)
        return kf_shape_fail(q, "the result type has to be given");
    if (x->dtype != y->dtype)
        return kf_shape_fail(q, "the dtype stays: %s to %s", kf_shape_text(q, x),
                             kf_shape_text(q, y));
    bool fits = x->rank <= y->rank && broadcast_types(x, y, &t);
    for (uint8_t i = 0; fits && i < y->rank; i++)
        fits = kf_dim_eq(t.dim[i], y->dim[i]);
    if (!fits)
        return kf_shape_fail(q, "%s does not broadcast to %s", kf_shape_text(q, x),
                             kf_shape_text(q, y));
    return kf_shape_result(q, kf_shape_dims_of(y, x->dtype));
}

bool kf_shape_transpose(kf_shape_query *q)
{
    const kf_type *x = kf_shape_operand(q, 0);
    const kf_ints *perm = &KF_SHAPE_ATTR(q, perm)->perm;
    if (perm->n != x->rank)
        return kf_shape_fail(q, "perm has %u entries for %s", perm->n, kf_shape_text(q, x));
    kf_type t = kf_shape_dims_of(x, x->dtype);
    unsigned seen = 0;
    for (uint8_t i = 0; i < x->rank; i++) {
        if (perm->v[i] < 0 || perm->v[i] >= x->rank || (seen >> perm->v[i] & 1))
            return kf_shape_fail(q, "perm is not a permutation of the dims of %s",
                                 kf_shape_text(q, x));
        seen |= 1u << perm->v[i];
        t.dim[i] = x->dim[perm->v[i]];
    }
    return kf_shape_result(q, t);
}

bool kf_shape_slice(kf_shape_query *q)
{
    const kf_attr_slice *a = KF_SHAPE_ATTR(q, slice);
    const kf_type *x = kf_shape_operand(q, 0);
    if (!want_axis(q, a->axis, x->rank))
        return false;
    kf_dim d = x->dim[a->axis];
    if (d.sym || a->start < 0 || a->stop <= a->start || a->stop > d.size)
        return kf_shape_fail(q,
                             "[%" PRId64 ", %" PRId64 ") is not a part of axis %" PRId64 " of %s",
                             a->start, a->stop, a->axis, kf_shape_text(q, x));
    kf_type t = kf_shape_dims_of(x, x->dtype);
    t.dim[a->axis] = kf_dim_static(a->stop - a->start);
    return kf_shape_result(q, t);
}

bool kf_shape_concat(kf_shape_query *q)
{
    int64_t axis = KF_SHAPE_ATTR(q, axis)->axis;
    if (q->n_in == 0)
        return kf_shape_fail(q, "needs an operand");
    kf_type t = kf_shape_dims_of(kf_shape_operand(q, 0), kf_shape_operand(q, 0)->dtype);
    if (!want_axis(q, axis, t.rank))
        return false;
    for (uint32_t i = 0; i < q->n_in; i++) {
        const kf_type *x = kf_shape_operand(q, i);
        bool fits = x->rank == t.rank && x->dtype == t.dtype && !x->dim[axis].sym;
        for (uint8_t d = 0; fits && d < t.rank; d++)
            fits = d == axis || kf_dim_eq(x->dim[d], t.dim[d]);
        if (!fits)
            return kf_shape_fail(q, "%s and %s do not join along axis %" PRId64,
                                 kf_shape_text(q, kf_shape_operand(q, 0)), kf_shape_text(q, x),
                                 axis);
        if (i)
            t.dim[axis].size += x->dim[axis].size;
    }
    return kf_shape_result(q, t);
}

bool kf_shape_convert(kf_shape_query *q)
{
    const kf_type *x = kf_shape_operand(q, 0);
    if (!q->given)
        return kf_shape_fail(q, "the result type has to be given");
    kf_type t = kf_shape_dims_of(x, q->given->dtype),
            given = kf_shape_dims_of(q->given, q->given->dtype);
    if (!kf_type_eq(&t, &given))
        return kf_shape_fail(q, "the dims stay: %s to %s", kf_shape_text(q, x),
                             kf_shape_text(q, q->given));
    return kf_shape_result(q, t);
}

bool kf_shape_gather(kf_shape_query *q)
{
    const kf_type *table = kf_shape_operand(q, 0), *ids = kf_shape_operand(q, 1);
    if (table->rank < 1)
        return kf_shape_fail(q, "the table has rows, not %s", kf_shape_text(q, table));
    if (ids->kind != KF_TYPE_TENSOR || ids->dtype != KF_DTYPE_i32 || ids->rank < 1)
        return kf_shape_fail(q, "ids is i32[n,..], not %s", kf_shape_text(q, ids));
    if (ids->rank + table->rank - 1 > KF_MAX_RANK)
        return kf_shape_fail(q, "rows of %s at %s have more than %d dims", kf_shape_text(q, table),
                             kf_shape_text(q, ids), KF_MAX_RANK);
    kf_type t = kf_shape_dims_of(ids, kf_shape_is_float(table) ? KF_DTYPE_f32 : table->dtype);
    for (uint8_t d = 1; d < table->rank; d++)
        t.dim[t.rank++] = table->dim[d];
    return kf_shape_result(q, t);
}

/* ---- contractions and reductions ------------------------------------------------------------- */

bool kf_shape_matmul(kf_shape_query *q)
{
    const kf_type *a = kf_shape_operand(q, 0), *b = kf_shape_operand(q, 1);
    bool trans_b = KF_SHAPE_ATTR(q, matmul)->trans_b;
    if (a->rank < 2 || b->rank < 2)
        return kf_shape_fail(q, "operands are matrices: %s and %s", kf_shape_text(q, a),
                             kf_shape_text(q, b));
    if (!kf_shape_want_float(q, 0, "a") || !kf_shape_want_float(q, 1, "b"))
        return false;
    kf_dim k = b->dim[b->rank - (trans_b ? 1 : 2)], n = b->dim[b->rank - (trans_b ? 2 : 1)];
    if (!kf_dim_eq(a->dim[a->rank - 1], k))
        return kf_shape_fail(q, "the contracted dims differ: %s and %s", kf_shape_text(q, a),
                             kf_shape_text(q, b));
    kf_type batch_a = kf_type_tensor(KF_DTYPE_f32, (uint8_t)(a->rank - 2), a->dim);
    kf_type batch_b = kf_type_tensor(KF_DTYPE_f32, (uint8_t)(b->rank - 2), b->dim);
    kf_type t;
    if (!broadcast_types(&batch_a, &batch_b, &t))
        return kf_shape_fail(q, "batch dims do not broadcast: %s and %s", kf_shape_text(q, a),
                             kf_shape_text(q, b));
    t.dim[t.rank++] = a->dim[a->rank - 2];
    t.dim[t.rank++] = n;
    return kf_shape_result(q, t);
}

/* Columns are counted in f32. */
enum { MAX_COUNTED_COLUMNS = 1 << 24 };

static bool check_accs(kf_shape_query *q, const kf_accs *accs, kf_dim columns)
{
    int64_t n = columns.sym ? q->m->syms.data[columns.sym - 1].hi : columns.size;

    for (uint8_t i = 0; i < accs->n; i++) {
        kf_acc needs = kf_acc_infos[accs->acc[i]].needs;
        bool found = needs == KF_ACC_none;
        for (uint8_t j = 0; j < i; j++) {
            found |= accs->acc[j] == needs;
            if (accs->acc[j] == accs->acc[i])
                return kf_shape_fail(q, "accumulator %s twice", kf_acc_infos[accs->acc[i]].name);
        }
        if (!found)
            return kf_shape_fail(q, "accumulator %s needs %s before it",
                                 kf_acc_infos[accs->acc[i]].name, kf_acc_infos[needs].name);
        if (accs->acc[i] == KF_ACC_argmax && n > MAX_COUNTED_COLUMNS)
            return kf_shape_fail(q, "argmax of %" PRId64 " columns; at most %d can be counted", n,
                                 MAX_COUNTED_COLUMNS);
    }
    return true;
}

bool kf_shape_row_reduce(kf_shape_query *q)
{
    const kf_attr_row_reduce *a = KF_SHAPE_ATTR(q, row_reduce);
    if (q->n_in < 1 || kf_shape_operand(q, 0)->rank < 1)
        return kf_shape_fail(q, "needs an operand with a last axis");
    const kf_type *x = kf_shape_operand(q, 0);
    if (!kf_shape_want_float(q, 0, "x") || !check_accs(q, &a->acc, x->dim[x->rank - 1]))
        return false;
    if (a->acc.n == 0 && !a->map)
        return kf_shape_fail(q, "needs an accumulator or a map");
    uint32_t captures = a->map ? a->map->captures : 0;
    if (q->n_in != 1 + captures)
        return kf_shape_fail(q, "%u operands, but the map captures %u", q->n_in, captures);
    uint32_t n_params = 1u + a->acc.n;
    if (a->map && a->map->n_params != n_params && a->map->n_params != n_params + 1)
        return kf_shape_fail(
            q, "the map takes %u parameters: v, the accumulators and perhaps the column", n_params);
    if (!kf_shape_check_loads(q, a->map))
        return false;
    kf_type t = kf_shape_dims_of(x, KF_DTYPE_f32);
    if (!a->keep) {
        if (a->map && (kf_slot_uses_param(a->map, 0) || kf_slot_uses_param(a->map, n_params)))
            return kf_shape_fail(q, "without keep the map sees accumulators only");
        t.dim[t.rank - 1] = kf_dim_static(1);
    }
    return kf_shape_result(q, t);
}

bool kf_shape_row_stat(kf_shape_query *q)
{
    const kf_attr_row_stat *a = KF_SHAPE_ATTR(q, row_stat);
    if (!kf_shape_want_rank(q, 0, "x", 2) || !kf_shape_want_float(q, 0, "x"))
        return false;
    const kf_type *x = kf_shape_operand(q, 0);
    if (!check_accs(q, &a->acc, x->dim[1]))
        return false;
    if (a->acc.n == 0)
        return kf_shape_fail(q, "needs an accumulator");
    if (a->block < 1 || x->dim[1].sym)
        return kf_shape_fail(q, "blocks of %" PRId64 " columns of %s", a->block,
                             kf_shape_text(q, x));
    kf_type t = kf_shape_dims_of(x, KF_DTYPE_f32);
    t.dim[1].size = (x->dim[1].size + a->block - 1) / a->block;
    return kf_shape_result(q, t);
}

/* ---- dispatch -------------------------------------------------------------------------------- */

static bool (*const shape_rules[KF_OP_COUNT])(kf_shape_query *) = {
#define FN(name, arity, res, traits, eval, emit, oracle, summary) kf_shape_elementwise,
#include "ir/fn.def"
#undef FN
#define OP(name, ins, attr, traits, shape, eval, shard, types, summary) kf_shape_##shape,
#include "ir/ops.def"
#undef OP
};

/* Caches flow only through ops that know them. */
static bool check_operands(kf_shape_query *q)
{
    int8_t want = kf_op_infos[q->op].n_in;
    if (want >= 0 && q->n_in != (uint32_t)want)
        return kf_shape_fail(q, "%u operands instead of %d", q->n_in, want);
    bool any = q->op == KF_OP_repeat || q->op == KF_OP_region;
    for (uint32_t i = 0; i < q->n_in && !any; i++) {
        bool takes_cache = (i == 0 && (q->op == KF_OP_kv_append || q->op == KF_OP_kv_read)) ||
                           (i == 1 && q->op == KF_OP_attention);
        if (kf_shape_operand(q, i)->kind == KF_TYPE_KVCACHE && !takes_cache)
            return kf_shape_fail(q, "operand %u is a cache", i);
    }
    return true;
}

bool kf_shape_infer(const kf_graph *g, kf_op op, const void *attr, const kf_graph *body,
                    uint32_t n_in, const kf_value *in, const kf_type *given, kf_type *out,
                    uint8_t *out_n, kf_sbuf *why)
{
    kf_shape_query q = {.g = g,
                        .m = g->module,
                        .op = op,
                        .attr = attr,
                        .body = body,
                        .n_in = n_in,
                        .values = in,
                        .given = given && given->kind == KF_TYPE_TENSOR ? given : NULL,
                        .out = out,
                        .why = why};
    for (uint32_t i = 0; i < n_in; i++)
        KF_ASSERT(in[i] < g->values.len, "an operand is a value of the graph");
    if (!check_operands(&q) || !shape_rules[op](&q))
        return false;
    *out_n = q.n_out;
    return kf_shard_infer(g, op, attr, n_in, in, out, q.n_out, why);
}
