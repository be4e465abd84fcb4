/* SPDX-License-Identifier: Apache-2.0 */
/* eval - walks a graph node by node: dispatch by ops.def, rounding, regions, repeated functions,
 * caches.
 *
 * Loading weights and binding a call's inputs is eval_run.c.
 */
#include "ir/eval.h"

#include "base/check.h"
#include "ir/eval_impl.h"
#include "ir/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

/* ---- tensors and rounding -------------------------------------------------------------------- */

kf_tensor kf_tensor_new(kf_arena *arena, uint8_t rank, const int64_t *dims)
{
    kf_tensor t = {.rank = rank, .n = 1};
    for (uint8_t d = 0; d < rank; d++) {
        t.dim[d] = dims[d];
        t.n *= dims[d];
    }
    t.data = KF_NEW_N(arena, double, t.n ? t.n : 1);
    return t;
}

/* To |precision| significant bits, nearest even, with gradual underflow below 2^|emin|. */
static double round_bits(double v, int precision, int emin, double largest)
{
    if (v == 0 || !isfinite(v))
        return v;
    int e = ilogb(v);
    int unit = (e > emin ? e : emin) - precision + 1;
    double r = ldexp(nearbyint(ldexp(v, -unit)), unit);
    return fabs(r) > largest ? copysign(INFINITY, v) : r;
}

double kf_round_to(kf_dtype dtype, double v)
{
    switch (dtype) {
    case KF_DTYPE_f32:
        return (double)(float)v;
    case KF_DTYPE_bf16:
        return round_bits(v, 8, -126, 0x1.fep127);
    case KF_DTYPE_f16:
        return round_bits(v, 11, -14, 65504);
    case KF_DTYPE_i32:
        return trunc(v);
    case KF_DTYPE_pred:
        return v != 0;
    case KF_DTYPE_COUNT:
        break;
    }
    return v;
}

/* ---- caches ---------------------------------------------------------------------------------- */

static kf_eval_kv *create_kv(kf_arena *arena, const kf_type *type, kf_eval_mode mode,
                             uint32_t n_seqs)
{
    kf_eval_kv *kv = KF_NEW(arena, kf_eval_kv);
    size_t rows = (size_t)type->kv_layers * n_seqs;
    kv->type = *type;
    kv->rounded = mode == KF_EVAL_ROUNDED;
    kv->n_seqs = n_seqs;
    kv->cap = KF_NEW_N(arena, int64_t, n_seqs);
    kv->k = KF_NEW_N(arena, double *, rows);
    kv->v = KF_NEW_N(arena, double *, rows);
    return kv;
}

static double *grow_rows(kf_arena *arena, double *old, int64_t n, int64_t more)
{
    double *rows = KF_NEW_N(arena, double, more);
    if (n)
        memcpy(rows, old, (size_t)n * sizeof *rows);
    return rows;
}

void kf_eval_kv_reserve(kf_arena *arena, kf_eval_kv *kv, uint32_t seq, int64_t rows)
{
    int64_t width = (int64_t)kv->type.kv_heads * kv->type.kv_head_dim, cap = kv->cap[seq];
    if (rows <= cap)
        return;
    int64_t more = rows > 2 * cap ? rows : 2 * cap;
    for (uint32_t l = 0; l < kv->type.kv_layers; l++) {
        size_t i = (size_t)l * kv->n_seqs + seq;
        kv->k[i] = grow_rows(arena, kv->k[i], cap * width, more * width);
        kv->v[i] = grow_rows(arena, kv->v[i], cap * width, more * width);
    }
    kv->cap[seq] = more;
}

double *kf_eval_kv_at(const kf_eval_kv *kv, bool values, int64_t seq, int64_t pos)
{
    if (seq < 0 || (!kv->slot && seq >= kv->n_seqs))
        return NULL;
    uint32_t cache = kv->slot ? kv->slot[seq] : (uint32_t)seq;
    if (pos < 0 || pos >= kv->cap[cache])
        return NULL;
    return (values ? kv->v : kv->k)[cache] + pos * kv->type.kv_heads * kv->type.kv_head_dim;
}

/* Layer |layer| alone. */
static kf_eval_kv *kv_layer(kf_arena *arena, kf_eval_kv *kv, uint32_t layer)
{
    kf_eval_kv *view = KF_NEW(arena, kf_eval_kv);
    *view = *kv;
    view->type.kv_layers = 1;
    view->k += (size_t)layer * kv->n_seqs;
    view->v += (size_t)layer * kv->n_seqs;
    return view;
}

kf_tensor kf_tensor_new_kv(kf_arena *arena, const kf_type *type, kf_eval_mode mode, uint32_t n_seqs,
                           int64_t capacity)
{
    kf_tensor t = {.kv = create_kv(arena, type, mode, n_seqs)};
    for (uint32_t s = 0; s < n_seqs; s++)
        kf_eval_kv_reserve(arena, t.kv, s, capacity);
    return t;
}

double *kf_eval_kv_row(const kf_tensor *kv, bool values, uint32_t layer, uint32_t seq, int64_t pos)
{
    kf_eval_kv one = *kv->kv;
    KF_ASSERT(layer < one.type.kv_layers, "the cache has this layer");
    one.k += (size_t)layer * one.n_seqs;
    one.v += (size_t)layer * one.n_seqs;
    double *row = kf_eval_kv_at(&one, values, seq, pos);
    KF_ASSERT(row, "the cache has this row");
    return row;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

bool kf_eval_fail(kf_eval_ctx *ctx, const char *fmt, ...)
{
    if (ctx->why) {
        va_list ap;
        va_start(ap, fmt);
        kf_sbuf_vprintf(ctx->why, fmt, ap);
        va_end(ap);
    }
    return false;
}

static bool (*const evals[KF_OP_COUNT])(kf_eval_call *) = {
#define FN(name, arity, result, traits, eval, emit, oracle, summary) kf_eval_elementwise,
#include "ir/fn.def"
#undef FN
#define OP(name, ins, attr, traits, shape, eval, shard, types, summary) kf_eval_##eval,
#include "ir/ops.def"
#undef OP
};

static void round_tensor(kf_dtype dtype, kf_tensor *t)
{
    for (int64_t i = 0; i < t->n; i++)
        t->data[i] = kf_round_to(dtype, t->data[i]);
}

static kf_tensor new_of_type(kf_eval_ctx *ctx, const kf_type *t)
{
    int64_t dim[KF_MAX_RANK];
    if (t->kind == KF_TYPE_KVCACHE)
        return (kf_tensor){.rank = 0};
    for (uint8_t d = 0; d < t->rank; d++)
        dim[d] = kf_dim_value(t->dim[d], ctx->sym_values);
    return kf_tensor_new(ctx->arena, t->rank, dim);
}

/* Ops that make their result's storage themselves. */
static bool makes_storage(kf_op op)
{
    return op == KF_OP_reshape || op == KF_OP_region || op == KF_OP_repeat;
}

static bool eval_node(kf_eval_ctx *ctx, const kf_graph *g, bool is_body, const kf_node *n,
                      kf_tensor *env)
{
    const kf_tensor **in = KF_NEW_N(ctx->arena, const kf_tensor *, n->n_in ? n->n_in : 1);
    kf_tensor out[KF_MAX_RESULTS];
    for (uint32_t i = 0; i < n->n_in; i++)
        in[i] = &env[n->in[i]];
    for (uint8_t i = 0; i < n->n_out; i++)
        out[i] = new_of_type(ctx, kf_value_type(g, n->out[i]));
    kf_eval_call call = {ctx, n, n->n_in, in, kf_value_type(g, n->out[0]), out};
    if (!evals[n->op](&call))
        return false;
    for (uint8_t i = 0; i < n->n_out; i++) {
        if (ctx->mode == KF_EVAL_ROUNDED && !is_body && !out[i].kv && !makes_storage(n->op))
            round_tensor(kf_value_type(g, n->out[i])->dtype, &out[i]);
        env[n->out[i]] = out[i];
    }
    if (ctx->trace && !is_body && n->op != KF_OP_repeat)
        ctx->trace(ctx->trace_user, g, ctx->layer, n, in, out, ctx->sym_values);
    return true;
}

static bool same_dims(kf_eval_ctx *ctx, const kf_type *type, const kf_tensor *t)
{
    if (type->kind == KF_TYPE_KVCACHE)
        return t->kv != NULL;
    bool same = type->rank == t->rank && !t->kv;
    for (uint8_t d = 0; same && d < t->rank; d++)
        same = t->dim[d] == kf_dim_value(type->dim[d], ctx->sym_values);
    return same;
}

static bool bind(kf_eval_ctx *ctx, const kf_graph *g, uint32_t n, const kf_value *values,
                 const kf_tensor *from, kf_tensor *env)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!same_dims(ctx, kf_value_type(g, values[i]), &from[i])) {
            kf_sbuf text = {.arena = ctx->arena};
            kf_type_print(ctx->m, kf_value_type(g, values[i]), &text);
            return kf_eval_fail(ctx, "value %" PRIu32 " '%.*s' of @%.*s is not a %s", i,
                                KF_STR_ARG(g->values.data[values[i]].name), KF_STR_ARG(g->name),
                                text.ptr);
        }
        env[values[i]] = from[i];
    }
    return true;
}

bool kf_eval_values(kf_eval_ctx *ctx, const kf_graph *g, bool is_body, const kf_tensor *args,
                    const kf_tensor *params, kf_tensor *out_results)
{
    kf_tensor *env = KF_NEW_N(ctx->arena, kf_tensor, g->values.len ? g->values.len : 1);
    if (!bind(ctx, g, g->args.len, g->args.data, args, env) ||
        !bind(ctx, g, g->params.len, g->params.data, params, env))
        return false;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        if (g->nodes.data[i].op != KF_OP_NONE &&
            !eval_node(ctx, g, is_body, &g->nodes.data[i], env))
            return false;
    }
    for (uint32_t i = 0; i < g->results.len; i++) {
        const kf_type *type = kf_value_type(g, g->results.data[i]);
        kf_tensor r = env[g->results.data[i]];
        if (ctx->mode == KF_EVAL_ROUNDED && is_body && !r.kv) {
            /* A copy: an operand that is also a result, or a reshape of one, stays as it is. */
            kf_tensor copy = kf_tensor_new(ctx->arena, r.rank, r.dim);
            memcpy(copy.data, r.data, (size_t)r.n * sizeof *r.data);
            round_tensor(type->dtype, &copy);
            r = copy;
        }
        out_results[i] = r;
    }
    return true;
}

bool kf_eval_region(kf_eval_call *c)
{
    kf_tensor *args = KF_NEW_N(c->ctx->arena, kf_tensor, c->n_in ? c->n_in : 1);
    for (uint32_t i = 0; i < c->n_in; i++)
        args[i] = *c->in[i];
    return kf_eval_values(c->ctx, c->node->body, true, args, NULL, c->out);
}

/* Parameters of the callee in layer |layer|. */
static bool callee_weights(kf_eval_ctx *ctx, const kf_graph *callee, kf_str prefix, uint32_t layer,
                           kf_tensor *params)
{
    for (uint32_t i = 0; i < callee->params.len; i++) {
        if (!ctx->weights)
            return kf_eval_fail(ctx, "@%.*s has parameters, but there are no weights",
                                KF_STR_ARG(callee->name));
        if (!ctx->weights(ctx->user, callee, i, prefix, layer, &params[i]))
            return false;
    }
    return true;
}

bool kf_eval_repeat(kf_eval_call *c)
{
    const kf_attr_repeat *a = KF_ATTR_OF(c->node, repeat);
    kf_arena *arena = c->ctx->arena;
    const kf_graph *callee = kf_module_find_func(c->ctx->m, a->callee);
    kf_tensor *args = KF_NEW_N(arena, kf_tensor, c->n_in ? c->n_in : 1);
    kf_tensor *params = KF_NEW_N(arena, kf_tensor, callee->params.len ? callee->params.len : 1);
    kf_tensor results[KF_MAX_RESULTS];
    for (uint32_t i = 0; i < c->n_in; i++)
        args[i] = *c->in[i];
    for (int64_t i = 0; i < a->iter; i++) { /* c->out carries the values from layer to layer */
        memcpy(c->out[i].data, c->in[i]->data, (size_t)c->in[i]->n * sizeof(double));
        args[i] = c->out[i];
    }
    for (uint32_t layer = 0; layer < a->times; layer++) {
        if (!callee_weights(c->ctx, callee, a->weights, layer, params))
            return false;
        kf_arena_mark mark = kf_arena_save(arena);
        c->ctx->layer = layer;
        for (uint32_t i = (uint32_t)a->iter; i < callee->results.len; i++)
            args[i].kv = kv_layer(arena, c->in[i]->kv, layer);
        if (!kf_eval_values(c->ctx, callee, false, args, params, results))
            return false;
        for (int64_t i = 0; i < a->iter; i++)
            memcpy(c->out[i].data, results[i].data, (size_t)results[i].n * sizeof(double));
        kf_arena_restore(arena, mark);
    }
    for (uint32_t i = (uint32_t)a->iter; i < callee->results.len; i++)
        c->out[i] = *c->in[i];
    return true;
}

bool kf_eval_graph(kf_arena *arena, const kf_graph *g, kf_eval_mode mode, const int64_t *sym_values,
                   const kf_tensor *args, const kf_tensor *params, kf_tensor *out_results,
                   kf_sbuf *why)
{
    kf_eval_ctx ctx = {
        .arena = arena, .m = g->module, .mode = mode, .sym_values = sym_values, .why = why};
    return kf_eval_values(&ctx, g, g->name.len == 0, args, params, out_results);
}
