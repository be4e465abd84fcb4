/* SPDX-License-Identifier: Apache-2.0 */
/* shape_state - result types of rope, the cache, attention, calls and regions. */
#include "ir/shape_impl.h"

#include <inttypes.h>

/* ---- rope and the cache ---------------------------------------------------------------------- */

/* seq_start i32[S], past i32[S], and with |pages| the page table i32[S,p]. */
static bool want_view(kf_shape_query *q, uint32_t first, bool pages)
{
    const kf_type *past = kf_shape_operand(q, first + 1);
    if (!kf_shape_want_ints(q, first + 1, "past", NULL) ||
        !kf_shape_want_ints(q, first, "seq_start", past))
        return false;
    if (!pages)
        return true;
    const kf_type *t = kf_shape_operand(q, first + 2);
    if (t->dtype != KF_DTYPE_i32 || t->rank != 2 || !kf_dim_eq(t->dim[0], past->dim[0]))
        return kf_shape_fail(q, "pages is i32[sequences, pages], not %s", kf_shape_text(q, t));
    return true;
}

static bool want_cache(kf_shape_query *q, uint32_t i)
{
    const kf_type *t = kf_shape_operand(q, i);
    if (t->kind != KF_TYPE_KVCACHE)
        return kf_shape_fail(q, "operand %u is a kvcache, not %s", i, kf_shape_text(q, t));
    if (t->kv_layers != 1)
        return kf_shape_fail(q, "a cache of %" PRIu32 " layers is used inside repeat only",
                             t->kv_layers);
    return true;
}

static bool want_kv_rows(kf_shape_query *q, uint32_t i, const char *what, const kf_type *kv)
{
    const kf_type *t = kf_shape_operand(q, i);
    if (t->rank != 3 || !kf_shape_is_float(t) || t->dim[1].sym || t->dim[1].size != kv->kv_heads ||
        t->dim[2].sym || t->dim[2].size != kv->kv_head_dim)
        return kf_shape_fail(q, "%s is [N,%" PRIu32 ",%" PRIu32 "] like the cache, not %s", what,
                             kv->kv_heads, kv->kv_head_dim, kf_shape_text(q, t));
    return true;
}

bool kf_shape_rope_table(kf_shape_query *q)
{
    const kf_attr_rope_table *a = KF_SHAPE_ATTR(q, rope_table);
    if (!kf_shape_want_ints(q, 0, "pos", NULL))
        return false;
    if (a->dim < 2 || a->dim % 2 || !(a->theta > 0) || !(a->factor > 0))
        return kf_shape_fail(
            q, "dim %" PRId64 " is even and positive, theta and factor are positive", a->dim);
    if (a->scaling == KF_SCALING_LLAMA3 && (a->original < 1 || !(a->high > a->low)))
        return kf_shape_fail(q, "llama3 scaling needs original >= 1 and low < high");
    kf_dim dims[] = {kf_shape_operand(q, 0)->dim[0], kf_dim_static(a->dim / 2), kf_dim_static(2)};
    return kf_shape_result(q, kf_type_tensor(KF_DTYPE_f32, 3, dims));
}

bool kf_shape_rope(kf_shape_query *q)
{
    if (!kf_shape_want_rank(q, 0, "x", 3) || !kf_shape_want_rank(q, 1, "the table", 3) ||
        !kf_shape_want_float(q, 0, "x"))
        return false;
    const kf_type *x = kf_shape_operand(q, 0), *t = kf_shape_operand(q, 1);
    if (x->dim[2].sym || t->dtype != KF_DTYPE_f32 || t->dim[1].sym || t->dim[2].size != 2 ||
        !kf_dim_eq(x->dim[0], t->dim[0]) || t->dim[1].size * 2 > x->dim[2].size)
        return kf_shape_fail(q, "%s does not rotate %s", kf_shape_text(q, t), kf_shape_text(q, x));
    return kf_shape_result(q, kf_shape_dims_of(x, KF_DTYPE_f32));
}

bool kf_shape_kv_append(kf_shape_query *q)
{
    if (!want_cache(q, 0))
        return false;
    const kf_type *kv = kf_shape_operand(q, 0), *k = kf_shape_operand(q, 1),
                  *v = kf_shape_operand(q, 2);
    if (!want_kv_rows(q, 1, "k", kv) || !want_kv_rows(q, 2, "v", kv))
        return false;
    if (!kf_dim_eq(k->dim[0], v->dim[0]))
        return kf_shape_fail(q, "as many keys as values: %s and %s", kf_shape_text(q, k),
                             kf_shape_text(q, v));
    if (!kf_shape_want_ints(q, 3, "pos", k) || !kf_shape_want_ints(q, 4, "seq", k))
        return false;
    const kf_type *pages = kf_shape_operand(q, 5);
    if (pages->dtype != KF_DTYPE_i32 || pages->rank != 2)
        return kf_shape_fail(q, "pages is i32[sequences, pages], not %s", kf_shape_text(q, pages));
    return kf_shape_result(q, *kv);
}

static bool key_dim(kf_shape_query *q, kf_dim *out)
{
    const bool stored = KF_SHAPE_ATTR(q, kv_read)->stored;
    const uint32_t sym = stored ? KF_SYM_M : KF_SYM_K;
    if (q->m->syms.len <= sym)
        return kf_shape_fail(q, "the module has no symbol for the keys %s",
                             stored ? "of a memory" : "in view");
    *out = kf_dim_sym(sym);
    return true;
}

bool kf_shape_kv_read(kf_shape_query *q)
{
    kf_dim dims[3];
    int plane = KF_SHAPE_ATTR(q, kv_read)->plane;
    if (!want_cache(q, 0) || !want_view(q, 1, true) || !key_dim(q, &dims[0]))
        return false;
    if (plane != KF_PLANE_KEYS && plane != KF_PLANE_VALUES)
        return kf_shape_fail(q, "reads keys or values");
    dims[1] = kf_dim_static(kf_shape_operand(q, 0)->kv_heads);
    dims[2] = kf_dim_static(kf_shape_operand(q, 0)->kv_head_dim);
    return kf_shape_result(q, kf_type_tensor(KF_DTYPE_f32, 3, dims));
}

bool kf_shape_kv_index(kf_shape_query *q)
{
    kf_dim dim;
    int plane = KF_SHAPE_ATTR(q, kv_read)->plane;
    if (!want_view(q, 0, false) || !key_dim(q, &dim))
        return false;
    if (plane != KF_PLANE_POS && plane != KF_PLANE_SEQ)
        return kf_shape_fail(q, "gives pos or seq");
    return kf_shape_result(q, kf_type_tensor(KF_DTYPE_i32, 1, &dim));
}

/* ---- attention ------------------------------------------------------------------------------- */

/* Captures are shared: capture j of every slot is operand 7 + j. A slot that loads nothing may
 * declare none. */
static bool check_attention_slot(kf_shape_query *q, const char *what, const kf_slot *s,
                                 uint8_t n_params)
{
    const uint32_t shared = q->n_in - 7;
    if (!s)
        return true;
    if (s->n_params != n_params)
        return kf_shape_fail(q, "%s takes %u parameters, not %u", what, n_params, s->n_params);
    if (s->captures && s->captures != shared)
        return kf_shape_fail(q, "%s captures %u operands, but all slots share %u", what,
                             s->captures, shared);
    return kf_shape_check_loads(q, s);
}

static bool check_attention_slots(kf_shape_query *q, const kf_attr_attention *a)
{
    const struct {
        const char *name;
        const kf_slot *slot;
        uint8_t n_params;
    } slots[] = {
        {"score", a->score, 4}, {"mask", a->mask, 3}, {"prob", a->prob, 3}, {"sink", a->sink, 1}};
    bool captures = q->n_in == 7;
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        if (!check_attention_slot(q, slots[i].name, slots[i].slot, slots[i].n_params))
            return false;
        captures |= slots[i].slot && slots[i].slot->captures;
    }
    if (a->sink && a->normaliser != KF_NORMALISER_SOFTMAX)
        return kf_shape_fail(q, "a sink is a logit of a softmax");
    return captures || kf_shape_fail(q, "operands that no slot captures");
}

bool kf_shape_attention(kf_shape_query *q)
{
    if (q->n_in < 7)
        return kf_shape_fail(q, "%u operands of at least 7", q->n_in);
    if (!kf_shape_want_rank(q, 0, "q", 3) || !kf_shape_want_float(q, 0, "q") || !want_cache(q, 1))
        return false;
    const kf_type *x = kf_shape_operand(q, 0), *kv = kf_shape_operand(q, 1);
    if (x->dim[1].sym || x->dim[2].sym || x->dim[1].size % kv->kv_heads ||
        x->dim[2].size != kv->kv_head_dim)
        return kf_shape_fail(q, "%s does not fit %s", kf_shape_text(q, x), kf_shape_text(q, kv));
    if (!kf_shape_want_ints(q, 2, "pos", x) || !kf_shape_want_ints(q, 3, "seq", x) ||
        !want_view(q, 4, true) || !check_attention_slots(q, KF_SHAPE_ATTR(q, attention)))
        return false;
    return kf_shape_result(q, kf_shape_dims_of(x, KF_DTYPE_f32));
}

/* ---- calls and regions ----------------------------------------------------------------------- */

/* A type as the callee sees it: one layer of a cache. */
static kf_type inner_type(const kf_type *t)
{
    kf_type inner = *t;
    if (t->kind == KF_TYPE_KVCACHE)
        inner.kv_layers = 1;
    return inner;
}

static bool check_callee(kf_shape_query *q, const kf_graph *callee, uint32_t iter)
{
    if (callee->args.len != q->n_in)
        return kf_shape_fail(q, "@%.*s takes %u arguments, not %u", KF_STR_ARG(callee->name),
                             callee->args.len, q->n_in);
    for (uint32_t i = 0; i < q->n_in; i++) {
        kf_type inner = inner_type(kf_shape_operand(q, i));
        const kf_type *arg = kf_value_type(callee, callee->args.data[i]);
        if (!kf_type_eq(&inner, arg))
            return kf_shape_fail(q, "argument %u of @%.*s is %s, not %s", i,
                                 KF_STR_ARG(callee->name), kf_shape_text(q, arg),
                                 kf_shape_text(q, kf_shape_operand(q, i)));
        if ((arg->kind == KF_TYPE_KVCACHE) && i < iter)
            return kf_shape_fail(q, "operand %u is a state among the iteration arguments", i);
    }
    return true;
}

bool kf_shape_repeat(kf_shape_query *q)
{
    const kf_attr_repeat *a = KF_SHAPE_ATTR(q, repeat);
    const kf_graph *callee = kf_module_find_func(q->m, a->callee);
    if (!callee || callee == q->g)
        return kf_shape_fail(q, "no function @%.*s", KF_STR_ARG(a->callee));
    if (a->times < 1 || a->times > UINT32_MAX)
        return kf_shape_fail(q, "%" PRId64 " times", a->times);
    if (a->iter < 0 || a->iter > q->n_in)
        return kf_shape_fail(q, "%" PRId64 " iteration arguments of %u operands", a->iter, q->n_in);
    uint32_t iter = (uint32_t)a->iter, states = iter;
    if (!check_callee(q, callee, iter))
        return false;
    while (states < q->n_in && kf_shape_operand(q, states)->kind == KF_TYPE_KVCACHE) {
        if (kf_shape_operand(q, states)->kv_layers != a->times)
            return kf_shape_fail(q, "state %s has another number of layers than %" PRId64,
                                 kf_shape_text(q, kf_shape_operand(q, states)), a->times);
        states++;
    }
    if (callee->results.len != states || states > KF_MAX_RESULTS)
        return kf_shape_fail(q, "@%.*s returns %u values for %u iteration arguments and states",
                             KF_STR_ARG(callee->name), callee->results.len, states);
    for (uint32_t i = 0; i < states; i++) {
        const kf_type *r = kf_value_type(callee, callee->results.data[i]);
        kf_type inner = inner_type(kf_shape_operand(q, i));
        if (!kf_type_eq(r, &inner))
            return kf_shape_fail(q, "result %u of @%.*s is %s, but its argument is %s", i,
                                 KF_STR_ARG(callee->name), kf_shape_text(q, r),
                                 kf_shape_text(q, &inner));
        kf_shape_result(q, *kf_shape_operand(q, i));
    }
    return states > 0 || kf_shape_fail(q, "without iteration arguments or states");
}

bool kf_shape_region(kf_shape_query *q)
{
    const kf_graph *body = q->body;
    if (!body)
        return kf_shape_fail(q, "has no body");
    if (body->args.len != q->n_in || body->params.len)
        return kf_shape_fail(q, "the body has %u arguments and %u parameters for %u operands",
                             body->args.len, body->params.len, q->n_in);
    for (uint32_t i = 0; i < q->n_in; i++) {
        const kf_type *arg = kf_value_type(body, body->args.data[i]);
        if (!kf_type_eq(arg, kf_shape_operand(q, i)))
            return kf_shape_fail(q, "argument %u of the body is %s, the operand is %s", i,
                                 kf_shape_text(q, arg), kf_shape_text(q, kf_shape_operand(q, i)));
    }
    if (body->results.len < 1 || body->results.len > KF_MAX_RESULTS)
        return kf_shape_fail(q, "the body returns %u values", body->results.len);
    for (uint32_t i = 0; i < body->results.len; i++)
        kf_shape_result(q, *kf_value_type(body, body->results.data[i]));
    return true;
}
