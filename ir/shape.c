/* SPDX-License-Identifier: Apache-2.0 */
/* shape - result types: one function per word of the shape column of ops.def. Sharding is in shard.c. */
#include "ir/shape.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/check.h"
#include "ir/shard.h"
#include "ir/text.h"

/* What a rule sees and fills. */
typedef struct query {
    const kf_graph *g;
    const kf_module *m;
    kf_op op;
    const void *attr;
    const kf_graph *body;
    uint32_t n_in;
    const kf_value *values;
    const kf_type *given;
    kf_type *out;
    uint8_t n_out;
    kf_sbuf *why;
} query;

#define ATTR(q, kind) ((const kf_attr_##kind *)(q)->attr)

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

static const char *type_text(const query *q, const kf_type *t)
{
    kf_sbuf text = {.arena = q->m->arena};
    kf_type_print(q->m, t, &text);
    return text.ptr;
}

static const kf_type *operand(const query *q, uint32_t i)
{
    return kf_value_type(q->g, q->values[i]);
}

static bool is_float(const kf_type *t) { return kf_dtype_infos[t->dtype].kind == KF_KIND_FLOAT; }
static bool is_static_one(kf_dim d) { return !d.sym && d.size == 1; }

/* ---- what several rules ask ----------------------------------------------------------------------- */

static bool want_rank(query *q, uint32_t i, const char *what, uint8_t rank)
{
    const kf_type *t = operand(q, i);
    if (t->rank != rank)
        return fail(q, "%s has rank %u, not %u: %s", what, t->rank, rank, type_text(q, t));
    return true;
}

static bool want_float(query *q, uint32_t i, const char *what)
{
    const kf_type *t = operand(q, i);
    return is_float(t) || fail(q, "%s is not of a float type: %s", what, type_text(q, t));
}

/* A vector of integers; |len| (may be NULL) is the operand whose dim 0 it must share. */
static bool want_ints(query *q, uint32_t i, const char *what, const kf_type *len)
{
    const kf_type *t = operand(q, i);
    if (t->dtype != KF_DTYPE_i32 || t->rank != 1)
        return fail(q, "%s is i32[n], not %s", what, type_text(q, t));
    if (len && !kf_dim_eq(t->dim[0], len->dim[0]))
        return fail(q, "%s has another length: %s beside %s", what,
                    type_text(q, t), type_text(q, len));
    return true;
}

/* seq_start i32[S], past i32[S], and with |pages| the page table i32[S,p]. */
static bool want_view(query *q, uint32_t first, bool pages)
{
    const kf_type *past = operand(q, first + 1);
    if (!want_ints(q, first + 1, "past", NULL) || !want_ints(q, first, "seq_start", past))
        return false;
    if (!pages)
        return true;
    const kf_type *t = operand(q, first + 2);
    if (t->dtype != KF_DTYPE_i32 || t->rank != 2 || !kf_dim_eq(t->dim[0], past->dim[0]))
        return fail(q, "pages is i32[sequences, pages], not %s", type_text(q, t));
    return true;
}

static bool want_cache(query *q, uint32_t i)
{
    const kf_type *t = operand(q, i);
    if (t->kind != KF_TYPE_KVCACHE)
        return fail(q, "operand %u is a kvcache, not %s", i, type_text(q, t));
    if (t->kv_layers != 1)
        return fail(q, "a cache of %" PRIu32 " layers is used inside repeat only", t->kv_layers);
    return true;
}

static bool want_kv_rows(query *q, uint32_t i, const char *what, const kf_type *kv)
{
    const kf_type *t = operand(q, i);
    if (t->rank != 3 || !is_float(t) || t->dim[1].sym || t->dim[1].size != kv->kv_heads ||
        t->dim[2].sym || t->dim[2].size != kv->kv_head_dim)
        return fail(q, "%s is [N,%" PRIu32 ",%" PRIu32 "] like the cache, not %s", what, kv->kv_heads,
                    kv->kv_head_dim, type_text(q, t));
    return true;
}

static bool want_axis(query *q, int64_t axis, uint8_t rank)
{
    return (axis >= 0 && axis < rank) ||
           fail(q, "axis %" PRId64 " of a value of rank %u", axis, rank);
}

static bool result(query *q, kf_type t)
{
    q->out[q->n_out++] = t;
    return true;
}

/* |dtype| with the dims of |t|, row-major, replicated. */
static kf_type dims_of(const kf_type *t, kf_dtype dtype)
{
    return kf_type_tensor(dtype, t->rank, t->dim);
}

bool kf_shape_broadcast(const kf_type *a, const kf_type *b, kf_type *out)
{
    uint8_t rank = a->rank > b->rank ? a->rank : b->rank;
    kf_dim dim[KF_MAX_RANK];
    for (uint8_t i = 0; i < rank; i++) {
        const kf_dim one = kf_dim_static(1);
        kf_dim x = i < rank - a->rank ? one : a->dim[i - (rank - a->rank)];
        kf_dim y = i < rank - b->rank ? one : b->dim[i - (rank - b->rank)];
        if (!kf_dim_eq(x, y) && !is_static_one(x) && !is_static_one(y))
            return false;
        dim[i] = is_static_one(x) ? y : x;
    }
    *out = kf_type_tensor(a->dtype, rank, dim);
    return true;
}

/* ---- elementwise ---------------------------------------------------------------------------------- */

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

static bool shape_elementwise(query *q)
{
    kf_fn fn = (kf_fn)q->op;
    kf_type t = *operand(q, 0);
    bool ints = true;
    for (uint32_t i = 0; i < q->n_in; i++) {
        const kf_type *x = operand(q, i);
        bool want_pred = takes_preds(fn) || (fn == KF_FN_select && i == 0);
        if (want_pred != (x->dtype == KF_DTYPE_pred))
            return fail(q, "operand %u is %sa predicate: %s", i, want_pred ? "not " : "",
                        type_text(q, x));
        ints &= want_pred || x->dtype == KF_DTYPE_i32;
        if (!kf_shape_broadcast(&t, x, &t))
            return fail(q, "dims do not broadcast: %s and %s", type_text(q, &t), type_text(q, x));
    }
    kf_dtype dtype = kf_fn_infos[fn].result == KF_FN_RESULT_pred ? KF_DTYPE_pred
                     : ints && keeps_ints(fn)                    ? KF_DTYPE_i32
                                                                 : KF_DTYPE_f32;
    return result(q, dims_of(&t, dtype));
}

/* ---- constants and index functions ---------------------------------------------------------------- */

static bool shape_constant(query *q) { return result(q, kf_type_scalar(KF_DTYPE_f32)); }

static bool shape_given(query *q)
{
    if (!q->given)
        return fail(q, "the result type has to be given");
    int64_t axis = ATTR(q, axis)->axis;
    if (!want_axis(q, axis, q->given->rank))
        return false;
    for (uint8_t i = 0; i < q->given->rank; i++) {
        if (i != axis && !is_static_one(q->given->dim[i]))
            return fail(q, "all dims but axis %" PRId64 " are 1: %s", axis, type_text(q, q->given));
    }
    if (q->given->dtype != KF_DTYPE_i32)
        return fail(q, "the result is i32, not %s", type_text(q, q->given));
    return result(q, dims_of(q->given, KF_DTYPE_i32));
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

static bool shape_reshape(query *q)
{
    const kf_type *x = operand(q, 0), *y = q->given;
    if (!y)
        return fail(q, "the result type has to be given");
    if (x->dtype != y->dtype)
        return fail(q, "the dtype stays: %s to %s", type_text(q, x), type_text(q, y));
    uint8_t i = 0, j = 0;
    for (;;) {
        kf_dim dx = {0, 0}, dy = {0, 0};
        int64_t px, py;
        bool more_x = next_dynamic(x, &i, &px, &dx), more_y = next_dynamic(y, &j, &py, &dy);
        if (px != py || more_x != more_y || !kf_dim_eq(dx, dy))
            return fail(q, "only static dims between dynamic ones regroup: %s to %s",
                        type_text(q, x), type_text(q, y));
        if (!more_x)
            return result(q, dims_of(y, x->dtype));
    }
}

static bool shape_transpose(query *q)
{
    const kf_type *x = operand(q, 0);
    const kf_ints *perm = &ATTR(q, perm)->perm;
    if (perm->n != x->rank)
        return fail(q, "perm has %u entries for %s", perm->n, type_text(q, x));
    kf_type t = dims_of(x, x->dtype);
    unsigned seen = 0;
    for (uint8_t i = 0; i < x->rank; i++) {
        if (perm->v[i] < 0 || perm->v[i] >= x->rank || (seen >> perm->v[i] & 1))
            return fail(q, "perm is not a permutation of the dims of %s", type_text(q, x));
        seen |= 1u << perm->v[i];
        t.dim[i] = x->dim[perm->v[i]];
    }
    return result(q, t);
}

static bool shape_slice(query *q)
{
    const kf_attr_slice *a = ATTR(q, slice);
    const kf_type *x = operand(q, 0);
    if (!want_axis(q, a->axis, x->rank))
        return false;
    kf_dim d = x->dim[a->axis];
    if (d.sym || a->start < 0 || a->stop <= a->start || a->stop > d.size)
        return fail(q, "[%" PRId64 ", %" PRId64 ") is not a part of axis %" PRId64 " of %s", a->start,
                    a->stop, a->axis, type_text(q, x));
    kf_type t = dims_of(x, x->dtype);
    t.dim[a->axis] = kf_dim_static(a->stop - a->start);
    return result(q, t);
}

static bool shape_concat(query *q)
{
    int64_t axis = ATTR(q, axis)->axis;
    if (q->n_in == 0)
        return fail(q, "needs an operand");
    kf_type t = dims_of(operand(q, 0), operand(q, 0)->dtype);
    if (!want_axis(q, axis, t.rank))
        return false;
    for (uint32_t i = 0; i < q->n_in; i++) {
        const kf_type *x = operand(q, i);
        bool fits = x->rank == t.rank && x->dtype == t.dtype && !x->dim[axis].sym;
        for (uint8_t d = 0; fits && d < t.rank; d++)
            fits = d == axis || kf_dim_eq(x->dim[d], t.dim[d]);
        if (!fits)
            return fail(q, "%s and %s do not join along axis %" PRId64, type_text(q, operand(q, 0)),
                        type_text(q, x), axis);
        if (i)
            t.dim[axis].size += x->dim[axis].size;
    }
    return result(q, t);
}

static bool shape_convert(query *q)
{
    const kf_type *x = operand(q, 0);
    if (!q->given)
        return fail(q, "the result type has to be given");
    kf_type t = dims_of(x, q->given->dtype), given = dims_of(q->given, q->given->dtype);
    if (!kf_type_eq(&t, &given))
        return fail(q, "the dims stay: %s to %s", type_text(q, x), type_text(q, q->given));
    return result(q, t);
}

static bool shape_gather(query *q)
{
    const kf_type *table = operand(q, 0), *ids = operand(q, 1);
    if (table->rank < 1)
        return fail(q, "the table has rows, not %s", type_text(q, table));
    if (!want_ints(q, 1, "ids", NULL))
        return false;
    kf_type t = dims_of(table, is_float(table) ? KF_DTYPE_f32 : table->dtype);
    t.dim[0] = ids->dim[0];
    return result(q, t);
}

/* ---- contractions and reductions ------------------------------------------------------------------ */

static bool shape_matmul(query *q)
{
    const kf_type *a = operand(q, 0), *b = operand(q, 1);
    bool trans_b = ATTR(q, matmul)->trans_b;
    if (a->rank < 2 || b->rank < 2)
        return fail(q, "operands are matrices: %s and %s", type_text(q, a), type_text(q, b));
    if (!want_float(q, 0, "a") || !want_float(q, 1, "b"))
        return false;
    kf_dim k = b->dim[b->rank - (trans_b ? 1 : 2)], n = b->dim[b->rank - (trans_b ? 2 : 1)];
    if (!kf_dim_eq(a->dim[a->rank - 1], k))
        return fail(q, "the contracted dims differ: %s and %s", type_text(q, a), type_text(q, b));
    kf_type batch_a = kf_type_tensor(KF_DTYPE_f32, (uint8_t)(a->rank - 2), a->dim);
    kf_type batch_b = kf_type_tensor(KF_DTYPE_f32, (uint8_t)(b->rank - 2), b->dim);
    kf_type t;
    if (!kf_shape_broadcast(&batch_a, &batch_b, &t))
        return fail(q, "batch dims do not broadcast: %s and %s", type_text(q, a), type_text(q, b));
    t.dim[t.rank++] = a->dim[a->rank - 2];
    t.dim[t.rank++] = n;
    return result(q, t);
}

static bool check_accs(query *q, const kf_accs *accs)
{
    for (uint8_t i = 0; i < accs->n; i++) {
        kf_acc needs = kf_acc_infos[accs->acc[i]].needs;
        bool found = needs == KF_ACC_none;
        for (uint8_t j = 0; j < i; j++) {
            found |= accs->acc[j] == needs;
            if (accs->acc[j] == accs->acc[i])
                return fail(q, "accumulator %s twice", kf_acc_infos[accs->acc[i]].name);
        }
        if (!found)
            return fail(q, "accumulator %s needs %s before it", kf_acc_infos[accs->acc[i]].name,
                        kf_acc_infos[needs].name);
    }
    return true;
}

static bool shape_row_reduce(query *q)
{
    const kf_attr_row_reduce *a = ATTR(q, row_reduce);
    if (q->n_in < 1 || operand(q, 0)->rank < 1)
        return fail(q, "needs an operand with a last axis");
    const kf_type *x = operand(q, 0);
    if (!want_float(q, 0, "x") || !check_accs(q, &a->acc))
        return false;
    if (a->acc.n == 0 && !a->map)
        return fail(q, "needs an accumulator or a map");
    uint32_t captures = a->map ? a->map->captures : 0;
    if (q->n_in != 1 + captures)
        return fail(q, "%u operands, but the map captures %u", q->n_in, captures);
    uint32_t n_params = 1u + a->acc.n;
    if (a->map && a->map->n_params != n_params && a->map->n_params != n_params + 1)
        return fail(q, "the map takes %u parameters: v, the accumulators and perhaps the column",
                    n_params);
    kf_type t = dims_of(x, KF_DTYPE_f32);
    if (!a->keep) {
        if (a->map && (kf_slot_uses_param(a->map, 0) || kf_slot_uses_param(a->map, n_params)))
            return fail(q, "without keep the map sees accumulators only");
        t.dim[t.rank - 1] = kf_dim_static(1);
    }
    return result(q, t);
}

static bool shape_row_stat(query *q)
{
    const kf_attr_row_stat *a = ATTR(q, row_stat);
    if (!want_rank(q, 0, "x", 2) || !want_float(q, 0, "x"))
        return false;
    const kf_type *x = operand(q, 0);
    if (a->acc.n != 1 || kf_acc_infos[a->acc.acc[0]].needs != KF_ACC_none)
        return fail(q, "takes one accumulator that needs no other");
    if (a->block < 1 || x->dim[1].sym)
        return fail(q, "blocks of %" PRId64 " columns of %s", a->block, type_text(q, x));
    kf_type t = dims_of(x, KF_DTYPE_f32);
    t.dim[1].size = (x->dim[1].size + a->block - 1) / a->block;
    return result(q, t);
}

/* ---- rope and the cache --------------------------------------------------------------------------- */

static bool shape_rope_table(query *q)
{
    const kf_attr_rope_table *a = ATTR(q, rope_table);
    if (!want_ints(q, 0, "pos", NULL))
        return false;
    if (a->dim < 2 || a->dim % 2 || !(a->theta > 0) || !(a->factor > 0))
        return fail(q, "dim %" PRId64 " is even and positive, theta and factor are positive", a->dim);
    if (a->scaling == KF_SCALING_LLAMA3 && (a->original < 1 || !(a->high > a->low)))
        return fail(q, "llama3 scaling needs original >= 1 and low < high");
    kf_dim dims[] = {operand(q, 0)->dim[0], kf_dim_static(a->dim / 2), kf_dim_static(2)};
    return result(q, kf_type_tensor(KF_DTYPE_f32, 3, dims));
}

static bool shape_rope(query *q)
{
    if (!want_rank(q, 0, "x", 3) || !want_rank(q, 1, "the table", 3) || !want_float(q, 0, "x"))
        return false;
    const kf_type *x = operand(q, 0), *t = operand(q, 1);
    if (x->dim[2].sym || t->dtype != KF_DTYPE_f32 || t->dim[1].sym || t->dim[2].size != 2 ||
        !kf_dim_eq(x->dim[0], t->dim[0]) || t->dim[1].size * 2 > x->dim[2].size)
        return fail(q, "%s does not rotate %s", type_text(q, t), type_text(q, x));
    return result(q, dims_of(x, KF_DTYPE_f32));
}

static bool shape_kv_append(query *q)
{
    if (!want_cache(q, 0))
        return false;
    const kf_type *kv = operand(q, 0), *k = operand(q, 1), *v = operand(q, 2);
    if (!want_kv_rows(q, 1, "k", kv) || !want_kv_rows(q, 2, "v", kv))
        return false;
    if (!kf_dim_eq(k->dim[0], v->dim[0]))
        return fail(q, "as many keys as values: %s and %s", type_text(q, k), type_text(q, v));
    if (!want_ints(q, 3, "pos", k) || !want_ints(q, 4, "seq", k))
        return false;
    const kf_type *pages = operand(q, 5);
    if (pages->dtype != KF_DTYPE_i32 || pages->rank != 2)
        return fail(q, "pages is i32[sequences, pages], not %s", type_text(q, pages));
    return result(q, *kv);
}

static bool key_dim(query *q, kf_dim *out)
{
    if (q->m->syms.len <= KF_SYM_K)
        return fail(q, "the module has no symbol for the keys in view");
    *out = kf_dim_sym(KF_SYM_K);
    return true;
}

static bool shape_kv_read(query *q)
{
    kf_dim dims[3];
    int plane = ATTR(q, kv_read)->plane;
    if (!want_cache(q, 0) || !want_view(q, 1, true) || !key_dim(q, &dims[0]))
        return false;
    if (plane != KF_PLANE_KEYS && plane != KF_PLANE_VALUES)
        return fail(q, "reads keys or values");
    dims[1] = kf_dim_static(operand(q, 0)->kv_heads);
    dims[2] = kf_dim_static(operand(q, 0)->kv_head_dim);
    return result(q, kf_type_tensor(KF_DTYPE_f32, 3, dims));
}

static bool shape_kv_index(query *q)
{
    kf_dim dim;
    int plane = ATTR(q, kv_read)->plane;
    if (!want_view(q, 0, false) || !key_dim(q, &dim))
        return false;
    if (plane != KF_PLANE_POS && plane != KF_PLANE_SEQ)
        return fail(q, "gives pos or seq");
    return result(q, kf_type_tensor(KF_DTYPE_i32, 1, &dim));
}

static bool check_attention_slot(query *q, const char *what, const kf_slot *s, uint8_t n_params)
{
    if (!s)
        return true;
    if (s->n_params != n_params)
        return fail(q, "%s takes %u parameters, not %u", what, n_params, s->n_params);
    if (7u + s->captures > q->n_in)
        return fail(q, "%s captures %u of %u operands", what, s->captures, q->n_in);
    return true;
}

static bool shape_attention(query *q)
{
    const kf_attr_attention *a = ATTR(q, attention);
    if (q->n_in < 7)
        return fail(q, "%u operands of at least 7", q->n_in);
    if (!want_rank(q, 0, "q", 3) || !want_float(q, 0, "q") || !want_cache(q, 1))
        return false;
    const kf_type *x = operand(q, 0), *kv = operand(q, 1);
    if (x->dim[1].sym || x->dim[2].sym || x->dim[1].size % kv->kv_heads ||
        x->dim[2].size != kv->kv_head_dim)
        return fail(q, "%s does not fit %s", type_text(q, x), type_text(q, kv));
    if (!want_ints(q, 2, "pos", x) || !want_ints(q, 3, "seq", x) || !want_view(q, 4, true))
        return false;
    if (!check_attention_slot(q, "score", a->score, 4) || !check_attention_slot(q, "mask", a->mask, 3))
        return false;
    uint32_t score = a->score ? a->score->captures : 0, mask = a->mask ? a->mask->captures : 0;
    if (7 + (score > mask ? score : mask) != q->n_in)
        return fail(q, "operands that no slot captures");
    return result(q, dims_of(x, KF_DTYPE_f32));
}

/* ---- calls and regions ---------------------------------------------------------------------------- */

/* A type as the callee sees it: one layer of a cache. */
static kf_type inner_type(const kf_type *t)
{
    kf_type inner = *t;
    if (t->kind == KF_TYPE_KVCACHE)
        inner.kv_layers = 1;
    return inner;
}

static bool check_callee(query *q, const kf_graph *callee, uint32_t iter)
{
    if (callee->args.len != q->n_in)
        return fail(q, "@%.*s takes %u arguments, not %u", KF_STR_ARG(callee->name), callee->args.len,
                    q->n_in);
    for (uint32_t i = 0; i < q->n_in; i++) {
        kf_type inner = inner_type(operand(q, i));
        const kf_type *arg = kf_value_type(callee, callee->args.data[i]);
        if (!kf_type_eq(&inner, arg))
            return fail(q, "argument %u of @%.*s is %s, not %s", i, KF_STR_ARG(callee->name),
                        type_text(q, arg), type_text(q, operand(q, i)));
        if ((arg->kind == KF_TYPE_KVCACHE) && i < iter)
            return fail(q, "operand %u is a state among the iteration arguments", i);
    }
    return true;
}

static bool shape_repeat(query *q)
{
    const kf_attr_repeat *a = ATTR(q, repeat);
    const kf_graph *callee = kf_module_find_func(q->m, a->callee);
    if (!callee || callee == q->g)
        return fail(q, "no function @%.*s", KF_STR_ARG(a->callee));
    if (a->times < 1 || a->times > UINT32_MAX)
        return fail(q, "%" PRId64 " times", a->times);
    if (a->iter < 0 || a->iter > q->n_in)
        return fail(q, "%" PRId64 " iteration arguments of %u operands", a->iter, q->n_in);
    uint32_t iter = (uint32_t)a->iter, states = iter;
    if (!check_callee(q, callee, iter))
        return false;
    while (states < q->n_in && operand(q, states)->kind == KF_TYPE_KVCACHE) {
        if (operand(q, states)->kv_layers != a->times)
            return fail(q, "state %s has another number of layers than %" PRId64,
                        type_text(q, operand(q, states)), a->times);
        states++;
    }
    if (callee->results.len != states || states > KF_MAX_RESULTS)
        return fail(q, "@%.*s returns %u values for %u iteration arguments and states",
                    KF_STR_ARG(callee->name), callee->results.len, states);
    for (uint32_t i = 0; i < states; i++) {
        const kf_type *r = kf_value_type(callee, callee->results.data[i]);
        kf_type inner = inner_type(operand(q, i));
        if (!kf_type_eq(r, &inner))
            return fail(q, "result %u of @%.*s is %s, but its argument is %s", i,
                        KF_STR_ARG(callee->name), type_text(q, r), type_text(q, &inner));
        result(q, *operand(q, i));
    }
    return states > 0 || fail(q, "without iteration arguments or states");
}

static bool shape_region(query *q)
{
    const kf_graph *body = q->body;
    if (!body)
        return fail(q, "has no body");
    if (body->args.len != q->n_in || body->params.len)
        return fail(q, "the body has %u arguments and %u parameters for %u operands", body->args.len,
                    body->params.len, q->n_in);
    for (uint32_t i = 0; i < q->n_in; i++) {
        const kf_type *arg = kf_value_type(body, body->args.data[i]);
        if (!kf_type_eq(arg, operand(q, i)))
            return fail(q, "argument %u of the body is %s, the operand is %s", i, type_text(q, arg),
                        type_text(q, operand(q, i)));
    }
    if (body->results.len < 1 || body->results.len > KF_MAX_RESULTS)
        return fail(q, "the body returns %u values", body->results.len);
    for (uint32_t i = 0; i < body->results.len; i++)
        result(q, *kf_value_type(body, body->results.data[i]));
    return true;
}

/* ---- dispatch ------------------------------------------------------------------------------------- */

static bool (*const shape_rules[KF_OP_COUNT])(query *) = {
#define FN(name, arity, res, traits, eval, emit, summary) shape_elementwise,
#include "ir/fn.def"
#undef FN
#define OP(name, ins, attr, traits, shape, eval, shard, types, summary) shape_##shape,
#include "ir/ops.def"
#undef OP
};

/* Caches flow only through ops that know them. */
static bool check_operands(query *q)
{
    int8_t want = kf_op_infos[q->op].n_in;
    if (want >= 0 && q->n_in != (uint32_t)want)
        return fail(q, "%u operands instead of %d", q->n_in, want);
    bool any = q->op == KF_OP_repeat || q->op == KF_OP_region;
    for (uint32_t i = 0; i < q->n_in && !any; i++) {
        bool takes_cache =
            (i == 0 && (q->op == KF_OP_kv_append || q->op == KF_OP_kv_read)) ||
            (i == 1 && q->op == KF_OP_attention);
        if (operand(q, i)->kind == KF_TYPE_KVCACHE && !takes_cache)
            return fail(q, "operand %u is a cache", i);
    }
    return true;
}

bool kf_shape_infer(const kf_graph *g, kf_op op, const void *attr, const kf_graph *body, uint32_t n_in,
                    const kf_value *in, const kf_type *given, kf_type *out, uint8_t *out_n, kf_sbuf *why)
{
    query q = {.g = g,
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
