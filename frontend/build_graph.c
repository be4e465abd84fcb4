/* SPDX-License-Identifier: Apache-2.0 */
/* build_graph - see build_graph.h. Functions and blocks; attention is build_attention.c. */
#include "frontend/build_graph.h"

#include "base/check.h"
#include "frontend/build_impl.h"
#include "ir/plan.h"

#include <string.h>

/* ---- small parts ----------------------------------------------------------------------------- */

kf_loc kf_build_loc(kf_graph_builder *b, kf_loc loc)
{
    if (loc.file == 0)
        return KF_NO_LOC;
    loc.file = kf_module_add_file(b->m, kf_diags_file_path(b->diags, loc.file));
    return loc;
}

kf_str kf_build_name(const kf_graph_builder *b, const char *name)
{
    kf_str s = kf_str_from(name);

    for (uint32_t n = 2;; n++) {
        bool taken = false;
        for (uint32_t i = 0; i < b->g->values.len; i++)
            taken |= kf_str_eq(b->g->values.data[i].name, s);
        if (!taken)
            return s;
        s = kf_strf(b->arena, "%s%u", name, n);
    }
}

static kf_str tensor_name(const kf_graph_builder *b, const kf_spec_param *p)
{
    return kf_strf(b->arena, "%.*s%.*s", KF_STR_ARG(b->part), KF_STR_ARG(p->name));
}

/* How a parameter is stored: as the user said for matrices, else as the checkpoint has it, else
 * `dtype`. */
static kf_dtype param_dtype(const kf_graph_builder *b, const kf_spec_param *p)
{
    const kf_spec *s = b->spec;
    kf_tensor_info info;

    if (p->rank == 2 && kf_src_given(s->build.weights.src))
        return s->build.weights.v;
    kf_str full = kf_plan_tensor_name(b->arena, b->prefix, 0, tensor_name(b, p));
    if (b->stored && b->stored->find(b->stored, full, &info))
        return info.dtype;
    return kf_src_given(s->dtype.src) ? s->dtype.v : KF_DTYPE_f32;
}

const kf_recipe *kf_build_recipe(kf_graph_builder *b, const kf_spec_param *p)
{
    int64_t shape[2];
    kf_spec_tensor_shape(p, shape);
    kf_dim dims[2] = {kf_dim_static(shape[0]), kf_dim_static(shape[1])};
    kf_type t = kf_type_tensor(param_dtype(b, p), p->rank, dims);
    const kf_recipe *r = kf_recipe_load(b->arena, tensor_name(b, p), t);

    if (p->view.transposed.v)
        r = kf_recipe_transpose(b->arena, r);
    if (p->tensor_rows == p->dim[0])
        return r;
    return kf_recipe_slice(b->arena, r, 0, p->view.groups.v, p->first_row,
                           p->first_row + p->dim[0] / p->view.groups.v);
}

kf_value kf_build_part(kf_graph_builder *b, const kf_block *block, kf_param_role role,
                       kf_param_part part, const char *name)
{
    const kf_spec_param *p = kf_block_part(block, role, part);
    kf_loc loc = kf_build_loc(b, block->src.loc);

    if (!p)
        return KF_NO_VALUE;
    return kf_graph_param_of(b->g, kf_build_recipe(b, p), kf_build_name(b, name), loc);
}

kf_value kf_build_param(kf_graph_builder *b, const kf_block *block, kf_param_role role,
                        const char *name)
{
    return kf_build_part(b, block, role, KF_PART_WHOLE, name);
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* scale * rsqrt(sum / n + eps) as slot instructions. */
static uint32_t times_rsqrt(kf_slot_builder *sb, uint32_t v, uint32_t sum, double n, double eps)
{
    uint32_t mean = kf_slot_fn(sb, KF_FN_div, sum, kf_slot_const(sb, n), 0);
    uint32_t root = kf_slot_fn(sb, KF_FN_add, mean, kf_slot_const(sb, eps), 0);

    return kf_slot_fn(sb, KF_FN_mul, v, kf_slot_fn(sb, KF_FN_rsqrt, root, 0, 0), 0);
}

static double last_dim(const kf_graph_builder *b, kf_value x)
{
    const kf_type *t = kf_value_type(b->g, x);

    return (double)t->dim[t->rank - 1].size;
}

static kf_value times_const(kf_graph_builder *b, kf_value x, double factor, kf_loc loc)
{
    return factor == 1 ? x : kf_node_2(b->g, KF_OP_mul, x, kf_node_const(b->g, factor, loc), loc);
}

/* 1 / sqrt(l) in layer l, counted from 1: a number [1] that packing makes. */
static kf_value depth_scale(kf_graph_builder *b, kf_loc loc)
{
    static const char *const names[] = {"layer"};
    kf_slot_builder *sb = kf_slot_builder_create(b->arena, 1, names, 0);
    uint32_t rounds = kf_slot_param(sb, 0);

    if (b->round > 1)
        rounds = kf_slot_fn(sb, KF_FN_mul, rounds, kf_slot_const(sb, b->round), 0);
    uint32_t depth = kf_slot_fn(sb, KF_FN_add, rounds, kf_slot_const(sb, b->turn + 1.0), 0);
    const kf_slot *body = kf_slot_finish(sb, kf_slot_fn(sb, KF_FN_rsqrt, depth, 0, 0));
    const kf_recipe *r = kf_recipe_map(b->arena, KF_DTYPE_f32, body, 0, NULL);

    return kf_graph_param_of(b->g, r, KF_STR("depth_scale"), loc);
}

/* Times the norm's scale, which it applies to gain and bias alike. |v| may be KF_NO_VALUE. */
static kf_value scaled(kf_graph_builder *b, const kf_block *block, kf_value v, kf_loc loc)
{
    if (block->u.norm.scale.v == KF_NORM_SCALE_NONE)
        return v;
    kf_value s = depth_scale(b, loc);
    return v == KF_NO_VALUE ? s : kf_node_2(b->g, KF_OP_mul, v, s, loc);
}

/* gain_offset + what is stored, summed once while packing; KF_NO_VALUE for none. */
static kf_value offset_gain(kf_graph_builder *b, const kf_block *block)
{
    static const char *const names[] = {"w"};
    const kf_spec_param *p = kf_block_param(block, KF_PARAM_GAIN);
    double offset = block->u.norm.gain_offset.v;

    if (!p || offset == 0)
        return kf_build_param(b, block, KF_PARAM_GAIN, "gain");
    kf_slot_builder *sb = kf_slot_builder_create(b->arena, 1, names, 0);
    const kf_recipe *stored = kf_build_recipe(b, p);
    const kf_slot *sum = kf_slot_finish(
        sb, kf_slot_fn(sb, KF_FN_add, kf_slot_param(sb, 0), kf_slot_const(sb, offset), 0));
    const kf_recipe *r = kf_recipe_map(b->arena, KF_DTYPE_f32, sum, 1, &stored);
    return kf_graph_param_of(b->g, r, kf_build_name(b, "gain"), kf_build_loc(b, block->src.loc));
}

/* The gain of a norm, scaled; KF_NO_VALUE for none. */
static kf_value build_gain(kf_graph_builder *b, const kf_block *block)
{
    return scaled(b, block, offset_gain(b, block), kf_build_loc(b, block->src.loc));
}

/* x * rsqrt(mean(x^2) + eps) * gain (Zhang and Sennrich 2019, arXiv:1910.07467) */
kf_value kf_build_rms(kf_graph_builder *b, kf_value x, double eps, kf_value gain, kf_loc loc)
{
    static const char *const names[] = {"v", "s"};
    kf_attr_row_reduce *attr = KF_ATTR_NEW(b->arena, row_reduce);
    kf_slot_builder *sb = kf_slot_builder_create(b->arena, 2, names, 0);

    attr->acc = (kf_accs){1, {KF_ACC_sum_sq}};
    attr->map = kf_slot_finish(
        sb, times_rsqrt(sb, kf_slot_param(sb, 0), kf_slot_param(sb, 1), last_dim(b, x), eps));
    attr->keep = true;
    kf_value y = kf_node_add(b->g, KF_OP_row_reduce, attr, 1, &x, NULL, loc);
    return gain == KF_NO_VALUE ? y : kf_node_2(b->g, KF_OP_mul, y, gain, loc);
}

/* (x - mean) * rsqrt(var + eps) * gain + bias (Ba et al. 2016, arXiv:1607.06450) */
static kf_value build_layer_norm(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    static const char *const names[] = {"v", "s", "d"};
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_attr_row_reduce *attr = KF_ATTR_NEW(b->arena, row_reduce);
    kf_slot_builder *sb = kf_slot_builder_create(b->arena, 3, names, 0);
    double n = last_dim(b, x);

    attr->acc = (kf_accs){2, {KF_ACC_sum, KF_ACC_sum_dev}};
    uint32_t mean = kf_slot_fn(sb, KF_FN_div, kf_slot_param(sb, 1), kf_slot_const(sb, n), 0);
    uint32_t dev = kf_slot_fn(sb, KF_FN_sub, kf_slot_param(sb, 0), mean, 0);
    attr->map =
        kf_slot_finish(sb, times_rsqrt(sb, dev, kf_slot_param(sb, 2), n, block->u.norm.eps.v));
    attr->keep = true;
    kf_value y = kf_node_add(b->g, KF_OP_row_reduce, attr, 1, &x, NULL, loc);
    kf_value gain = build_gain(b, block);
    kf_value bias = kf_build_param(b, block, KF_PARAM_BIAS, "bias");
    y = gain == KF_NO_VALUE ? y : kf_node_2(b->g, KF_OP_mul, y, gain, loc);
    return bias == KF_NO_VALUE ? y
                               : kf_node_2(b->g, KF_OP_add, y, scaled(b, block, bias, loc), loc);
}

/* x * s + t with s = gain * rsqrt(variance + eps) (+ alpha) and t = bias - mean * gain *
 * rsqrt(variance + eps), functions of weights alone (Ioffe and Szegedy 2015, arXiv:1502.03167;
 * alpha: Guo et al. 2024, arXiv:2405.11582). */
static kf_value build_batch_norm(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    kf_graph *g = b->g;
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value variance = kf_build_param(b, block, KF_PARAM_VARIANCE, "variance"),
             mean = kf_build_param(b, block, KF_PARAM_MEAN, "mean"),
             gain = kf_build_param(b, block, KF_PARAM_GAIN, "gain"),
             bias = kf_build_param(b, block, KF_PARAM_BIAS, "bias"),
             alpha = kf_build_param(b, block, KF_PARAM_ALPHA, "alpha");
    kf_value eps = kf_node_const(g, block->u.norm.eps.v, loc);
    kf_value s = kf_node_1(g, KF_OP_rsqrt, kf_node_2(g, KF_OP_add, variance, eps, loc), loc);

    s = gain == KF_NO_VALUE ? s : kf_node_2(g, KF_OP_mul, gain, s, loc);
    kf_value t = kf_node_2(g, KF_OP_mul, mean, s, loc);
    t = bias == KF_NO_VALUE ? kf_node_1(g, KF_OP_neg, t, loc)
                            : kf_node_2(g, KF_OP_sub, bias, t, loc);
    s = alpha == KF_NO_VALUE ? s : kf_node_2(g, KF_OP_add, s, alpha, loc);
    return kf_node_2(g, KF_OP_add, kf_node_2(g, KF_OP_mul, x, s, loc), t, loc);
}

/* sum of weight[order - i] * x^i / rms(x^i), + bias (Zhuo et al. 2024, arXiv:2411.03884) */
static kf_value build_poly_norm(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    const kf_spec_poly_norm *u = &block->u.poly_norm;
    const kf_recipe *weight = kf_build_recipe(b, kf_block_param(block, KF_PARAM_WEIGHT));
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value sum = kf_build_param(b, block, KF_PARAM_BIAS, "bias"), power = x;

    for (int64_t i = 1; i <= u->order.v; i++) {
        int64_t at = u->order.v - i;
        kf_value w = kf_graph_param_of(b->g, kf_recipe_slice(b->arena, weight, 0, 1, at, at + 1),
                                       kf_build_name(b, "weight"), loc);
        power = i == 1 ? x : kf_node_2(b->g, KF_OP_mul, power, x, loc);
        kf_value term = kf_build_rms(b, power, u->eps.v, w, loc);
        sum = i == 1 ? kf_node_2(b->g, KF_OP_add, term, sum, loc)
                     : kf_node_2(b->g, KF_OP_add, sum, term, loc);
    }
    return sum;
}

/* ---- expressions ----------------------------------------------------------------------------- */

/* Shared subtrees come out as equal nodes; cse makes them one. */
kf_value kf_build_expr(kf_graph_builder *b, const kf_expr *e, const kf_value *vars, kf_loc loc)
{
    kf_value arg[3] = {0};

    if (e->op == KF_EXPR_VAR)
        return vars[e->var];
    if (e->op == KF_EXPR_NUM) {
        kf_value n = kf_node_const(b->g, e->num, loc);
        return e->is_pred ? kf_node_2(b->g, KF_OP_ne, n, kf_node_const(b->g, 0, loc), loc) : n;
    }
    for (uint32_t i = 0; i < kf_fn_infos[e->fn].arity; i++)
        arg[i] = kf_build_expr(b, e->arg[i], vars, loc);
    return kf_node_add(b->g, (kf_op)e->fn, NULL, kf_fn_infos[e->fn].arity, arg, NULL, loc);
}

/* One that is not given stands where its block stands. */
static kf_value build_act(kf_graph_builder *b, const kf_block *block, const kf_sv_expr *act,
                          kf_value x)
{
    kf_value vars[KF_EXPR_VAR_COUNT] = {[KF_EXPR_X] = x};
    kf_loc loc = act->src.loc.file ? act->src.loc : block->src.loc;

    return kf_build_expr(b, act->expr, vars, kf_build_loc(b, loc));
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static kf_value build_blocks(kf_graph_builder *b, kf_blocks blocks, kf_value x);

static kf_value build_glu(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    const kf_spec_glu *u = &block->u.glu;
    kf_linear_cut rows = {0, u->nested.v}, columns = {1, u->nested.v};
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value gate =
        kf_build_linear_cut(b, block, KF_PARAM_GATE, "wg", KF_PARAM_GATE_BIAS, "bg", rows, x);
    kf_value up = kf_build_linear_cut(b, block, KF_PARAM_UP, "wu", KF_PARAM_UP_BIAS, "bu", rows, x);
    kf_value h = kf_node_2(b->g, KF_OP_mul, build_act(b, block, &u->act, gate), up, loc);

    return kf_build_linear_cut(b, block, KF_PARAM_DOWN, "wd", KF_PARAM_DOWN_BIAS, "bd", columns, h);
}

static kf_value build_mlp(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    const kf_spec_mlp *u = &block->u.mlp;
    kf_linear_cut rows = {0, u->nested.v}, columns = {1, u->nested.v};
    kf_value up = kf_build_linear_cut(b, block, KF_PARAM_UP, "wu", KF_PARAM_UP_BIAS, "bu", rows, x);

    return kf_build_linear_cut(b, block, KF_PARAM_DOWN, "wd", KF_PARAM_DOWN_BIAS, "bd", columns,
                               build_act(b, block, &u->act, up));
}

static kf_value build_parallel(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value sum = build_blocks(b, block->u.parallel.branch[0], x);

    for (uint32_t i = 1; i < block->u.parallel.n_branches; i++)
        sum = kf_node_2(b->g, KF_OP_add, sum, build_blocks(b, block->u.parallel.branch[i], x), loc);
    return sum;
}

static kf_value build_embedding(kf_graph_builder *b, const kf_block *block, kf_value ids)
{
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value table = kf_build_param(b, block, KF_PARAM_TABLE, "embed");

    return times_const(b, kf_node_2(b->g, KF_OP_gather, table, ids, loc),
                       block->u.embedding.scale.v, loc);
}

/* x + table[index] */
static kf_value add_rows(kf_graph_builder *b, const kf_block *block, const char *name,
                         kf_value index, kf_value x)
{
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value table = kf_build_param(b, block, KF_PARAM_TABLE, name);

    return kf_node_2(b->g, KF_OP_add, x, kf_node_2(b->g, KF_OP_gather, table, index, loc), loc);
}

static kf_value build_position_embedding(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    int64_t offset = block->u.position_embedding.offset.v;
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value index = b->in.pos;

    if (offset) {
        const kf_type t = *kf_value_type(b->g, index);
        index = kf_node_2(b->g, KF_OP_add, index, kf_node_const(b->g, (double)offset, loc), loc);
        index = kf_node_add(b->g, KF_OP_convert, NULL, 1, &index, &t, loc);
    }
    return add_rows(b, block, "positions", index, x);
}

/* v / sum of the row */
static kf_value share_of_row(kf_graph_builder *b, kf_value x, kf_loc loc)
{
    static const char *const names[] = {"v", "s"};
    kf_attr_row_reduce *attr = KF_ATTR_NEW(b->arena, row_reduce);
    kf_slot_builder *sb = kf_slot_builder_create(b->arena, 2, names, 0);

    attr->acc = (kf_accs){1, {KF_ACC_sum}};
    attr->map = kf_slot_finish(
        sb, kf_slot_fn(sb, KF_FN_div, kf_slot_param(sb, 0), kf_slot_param(sb, 1), 0));
    attr->keep = true;
    return kf_node_add(b->g, KF_OP_row_reduce, attr, 1, &x, NULL, loc);
}

/* Each sequence's first row, or the mean of its rows: a product with the matrix [S,N] that has
 * 1 / length where the row is the sequence's. */
static kf_value build_pool(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_graph *g = b->g;
    kf_dim dims[] = {kf_dim_sym(KF_SYM_S), kf_dim_static(1)};
    kf_type t = kf_type_tensor(KF_DTYPE_i32, 2, dims);

    if (block->u.pool.of.v == KF_POOL_CLS)
        return kf_node_2(g, KF_OP_gather, x, b->in.seq_start, loc);
    kf_value s = kf_node_add(g, KF_OP_iota, KF_ATTR_NEW(b->arena, axis), 0, NULL, &t, loc);
    kf_value own = kf_node_2(g, KF_OP_eq, s, b->in.seq, loc);
    own = kf_node_3(g, KF_OP_select, own, kf_node_const(g, 1, loc), kf_node_const(g, 0, loc), loc);
    return kf_node_matmul(g, share_of_row(b, own, loc), x, false, loc);
}

static kf_value build_block_linear(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    const kf_spec_linear *u = &block->u.linear;
    kf_loc loc = kf_build_loc(b, block->src.loc);
    kf_value y;

    if (u->tied_to) {
        kf_value bias = kf_build_param(b, block, KF_PARAM_BIAS, "head_bias");
        y = kf_node_matmul(b->g, x, kf_build_param(b, u->tied_to, KF_PARAM_TABLE, "embed"), true,
                           loc);
        y = bias == KF_NO_VALUE ? y : kf_node_2(b->g, KF_OP_add, y, bias, loc);
    } else {
        y = kf_build_linear(b, block, KF_PARAM_WEIGHT, "head", KF_PARAM_BIAS, "head_bias", x);
    }
    return u->act.expr ? build_act(b, block, &u->act, y) : y;
}

static kf_value build_repeat(kf_graph_builder *b, const kf_block *block, kf_value x);

static kf_value build_block(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    kf_loc loc = kf_build_loc(b, block->src.loc);

    switch (block->kind) {
    case KF_BLOCK_EMBEDDING:
        return build_embedding(b, block, x);
    case KF_BLOCK_POSITION_EMBEDDING:
        return build_position_embedding(b, block, x);
    case KF_BLOCK_TYPES:
        return add_rows(b, block, "types", b->in.types, x);
    case KF_BLOCK_POOL:
        return build_pool(b, block, x);
    case KF_BLOCK_LINEAR:
        return build_block_linear(b, block, x);
    case KF_BLOCK_RMS_NORM:
        return kf_build_rms(b, x, block->u.norm.eps.v, build_gain(b, block), loc);
    case KF_BLOCK_LAYER_NORM:
        return build_layer_norm(b, block, x);
    case KF_BLOCK_BATCH_NORM:
        return build_batch_norm(b, block, x);
    case KF_BLOCK_POLY_NORM:
        return build_poly_norm(b, block, x);
    case KF_BLOCK_ATTENTION:
        return kf_build_attention(b, block, x);
    case KF_BLOCK_GLU:
        return build_glu(b, block, x);
    case KF_BLOCK_MLP:
        return build_mlp(b, block, x);
    case KF_BLOCK_RESIDUAL:
        return kf_node_2(b->g, KF_OP_add, x, build_blocks(b, block->u.residual.body, x), loc);
    case KF_BLOCK_PARALLEL:
        return build_parallel(b, block, x);
    case KF_BLOCK_REPEAT:
        return build_repeat(b, block, x);
    case KF_BLOCK_KIND_COUNT:
        break;
    }
    KF_ASSERT(false, "every block kind is built");
    return x;
}

static kf_value build_blocks(kf_graph_builder *b, kf_blocks blocks, kf_value x)
{
    for (uint32_t i = 0; i < blocks.n; i++)
        x = build_block(b, &blocks.block[i], x);
    return x;
}

/* ---- what a function needs ------------------------------------------------------------------- */

typedef void (*attention_fn)(kf_graph_builder *b, const kf_block *block, uint32_t layers,
                             void *user);

/* Calls |visit| for every attention block in the order in which building meets them. */
static void each_attention(kf_graph_builder *b, kf_blocks blocks, bool into_repeats,
                           uint32_t layers, attention_fn visit, void *user)
{
    for (uint32_t i = 0; i < blocks.n; i++) {
        const kf_block *k = &blocks.block[i];
        if (k->kind == KF_BLOCK_ATTENTION)
            visit(b, k, layers, user);
        if (k->kind == KF_BLOCK_RESIDUAL)
            each_attention(b, k->u.residual.body, into_repeats, layers, visit, user);
        for (uint32_t j = 0; k->kind == KF_BLOCK_PARALLEL && j < k->u.parallel.n_branches; j++)
            each_attention(b, k->u.parallel.branch[j], into_repeats, layers, visit, user);
        for (uint32_t j = 0; k->kind == KF_BLOCK_REPEAT && into_repeats && j < k->u.repeat.block.n;
             j++)
            each_attention(b, kf_repeat_body(b->spec, &k->u.repeat, j), true,
                           (uint32_t)k->u.repeat.times.v / k->u.repeat.block.n, visit, user);
    }
}

static void collect_rope(kf_graph_builder *b, const kf_block *block, uint32_t layers, void *user)
{
    kf_attr_rope_table t = kf_build_rope_attr(&block->u.attention);

    (void)layers;
    if (!block->u.attention.rope.present.v)
        return;
    for (uint32_t i = 0; i < b->n_ropes; i++)
        if (kf_attr_eq(KF_ATTR_rope_table, &b->rope[i], &t))
            return;
    if (b->n_ropes == KF_MAX_ROPES) {
        *(bool *)user = false;
        kf_diag_add(b->diags, KF_E0408, block->src.loc,
                    "more than %d different rotary tables in one model", KF_MAX_ROPES);
        return;
    }
    b->rope[b->n_ropes++] = t;
}

static void add_cache(kf_graph_builder *b, const kf_block *block, uint32_t layers, void *user)
{
    kf_type t = kf_build_cache_type(b, &block->u.attention, layers);

    if (b->n_caches == KF_MAX_CACHES) {
        *(bool *)user = false;
        kf_diag_add(b->diags, KF_E0408, block->src.loc,
                    "more than %d attention blocks in one function", KF_MAX_CACHES);
        return;
    }
    kf_str name = b->n_caches ? kf_strf(b->arena, "kv%u", b->n_caches) : KF_STR("kv");
    b->cache[b->n_caches++] = kf_graph_add_arg(b->g, t, name, kf_build_loc(b, block->src.loc));
}

static void count_cache(kf_graph_builder *b, const kf_block *block, uint32_t layers, void *user)
{
    (void)b, (void)block, (void)layers;
    (*(uint32_t *)user)++;
}

/* ---- functions ------------------------------------------------------------------------------- */

static kf_value add_arg(kf_graph_builder *b, const char *name, kf_dtype dtype, uint8_t rank,
                        kf_dim d0, kf_dim d1)
{
    kf_dim dims[] = {d0, d1};

    return kf_graph_add_arg(b->g, kf_type_tensor(dtype, rank, dims), kf_str_from(name), KF_NO_LOC);
}

static kf_value add_pages(kf_graph_builder *b)
{
    int64_t pages = (b->max_positions + KF_KV_PAGE_TOKENS - 1) / KF_KV_PAGE_TOKENS;

    return add_arg(b, "pages", KF_DTYPE_i32, 2, kf_dim_sym(KF_SYM_S), kf_dim_static(pages));
}

/* Positions, sequences and page table of the call, as arguments. */
static void add_call_inputs(kf_graph_builder *b)
{
    kf_dim n = kf_dim_sym(KF_SYM_N), s = kf_dim_sym(KF_SYM_S);

    b->in.pos = add_arg(b, "pos", KF_DTYPE_i32, 1, n, n);
    b->in.seq = add_arg(b, "seq", KF_DTYPE_i32, 1, n, n);
    b->in.seq_start = add_arg(b, "seq_start", KF_DTYPE_i32, 1, s, s);
    b->in.past = add_arg(b, "past", KF_DTYPE_i32, 1, s, s);
}

/* The function's name: those of its blocks, with a number where that is taken. */
static kf_str callee_name(const kf_graph_builder *b, const kf_spec_repeat *r)
{
    kf_sbuf joined = {.arena = b->arena};

    for (uint32_t i = 0; i < r->block.n; i++)
        kf_sbuf_printf(&joined, "%s%.*s", i ? "_" : "", KF_STR_ARG(r->block.v[i]));
    kf_str first = kf_sbuf_view(&joined), name = first;
    for (uint32_t n = 2; kf_module_find_func(b->m, name); n++)
        name = kf_strf(b->arena, "%.*s%u", KF_STR_ARG(first), n);
    return name;
}

/* What stands before the first hole of |weights|: the prefix of a function of several blocks. */
static kf_str common_prefix(kf_str weights)
{
    uint32_t factor, offset, n = 0;

    while (n < weights.len &&
           !kf_layer_hole((kf_str){weights.ptr + n, weights.len - n}, &factor, &offset))
        n++;
    return (kf_str){weights.ptr, n};
}

/* |pattern| and a dot for block |k| of rounds of |n|: block k of round i is number n*i + k. */
static kf_str part_prefix(kf_arena *arena, kf_str pattern, uint32_t n, uint32_t k)
{
    kf_sbuf out = {.arena = arena};

    for (uint32_t i = 0, len; i < pattern.len; i += len) {
        uint32_t factor, offset;
        len = kf_layer_hole((kf_str){pattern.ptr + i, pattern.len - i}, &factor, &offset);
        if (len)
            kf_sbuf_printf(&out, factor * k + offset ? "{%ui+%u}" : "{%ui}", factor * n,
                           factor * k + offset);
        else
            kf_sbuf_char(&out, pattern.ptr[i + len++]);
    }
    kf_sbuf_char(&out, '.');
    return kf_sbuf_view(&out);
}

static kf_str callee_prefix(kf_arena *arena, const kf_spec_repeat *r)
{
    if (r->block.n == 1)
        return kf_strf(arena, "%.*s.", KF_STR_ARG(r->weights.v));
    return common_prefix(r->weights.v);
}

/* The blocks of a repeat in turn. */
static kf_value build_round(kf_graph_builder *b, const kf_spec_repeat *r, kf_value x)
{
    kf_str weights = r->weights.v;
    uint32_t common = common_prefix(weights).len;

    b->round = r->block.n;
    for (uint32_t i = 0; i < r->block.n; i++) {
        b->turn = i;
        if (r->block.n > 1)
            b->part = part_prefix(b->arena, (kf_str){weights.ptr + common, weights.len - common},
                                  r->block.n, i);
        x = build_blocks(b, kf_repeat_body(b->spec, r, i), x);
    }
    return x;
}

/* Every attention block of one round. */
static void each_attention_of_round(kf_graph_builder *b, const kf_spec_repeat *r,
                                    attention_fn visit, void *user)
{
    for (uint32_t i = 0; i < r->block.n; i++)
        each_attention(b, kf_repeat_body(b->spec, r, i), false, 1, visit, user);
}

/* The function of repeated blocks; arguments: rows, caches, call inputs, rotary tables. */
static kf_graph *build_callee(kf_graph_builder *outer, const kf_block *block, int64_t width)
{
    const kf_spec_repeat *r = &block->u.repeat;
    kf_graph_builder b = *outer;
    bool ok = true;

    b.g = kf_module_add_func(b.m, callee_name(&b, r));
    b.g->loc = kf_build_loc(&b, b.spec->block[r->block_index[0]].src.loc);
    b.n_caches = b.next_cache = 0;
    b.prefix = callee_prefix(b.arena, r);
    kf_value x = add_arg(&b, "x", KF_DTYPE_f32, 2, kf_dim_sym(KF_SYM_N), kf_dim_static(width));
    each_attention_of_round(&b, r, add_cache, &ok);
    if (!ok)
        return NULL;
    add_call_inputs(&b);
    b.in.pages = add_pages(&b);
    for (uint32_t i = 0; i < b.n_ropes; i++)
        b.in.rope[i] = kf_graph_add_arg(b.g, *kf_value_type(outer->g, outer->in.rope[i]),
                                        kf_strf(b.arena, i ? "rope%u" : "rope", i), KF_NO_LOC);
    kf_graph_add_result(b.g, build_round(&b, r, x));
    for (uint32_t i = 0; i < b.n_caches; i++)
        kf_graph_add_result(b.g, b.cache[i]);
    return b.g;
}

static kf_value build_repeat(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    const kf_spec_repeat *r = &block->u.repeat;
    const kf_type *rows = kf_value_type(b->g, x);
    kf_graph *callee = build_callee(b, block, rows->dim[1].size);
    kf_attr_repeat *attr = KF_ATTR_NEW(b->arena, repeat);
    kf_value in[1 + KF_MAX_CACHES + 5 + KF_MAX_ROPES];
    uint32_t n = 0, caches = 0;

    if (!callee)
        return x;
    each_attention_of_round(b, r, count_cache, &caches);
    attr->times = r->times.v / r->block.n;
    attr->callee = callee->name;
    attr->weights = callee_prefix(b->arena, r);
    attr->iter = 1;
    in[n++] = x;
    for (uint32_t i = 0; i < caches; i++)
        in[n++] = b->cache[b->next_cache + i];
    in[n++] = b->in.pos;
    in[n++] = b->in.seq;
    in[n++] = b->in.seq_start;
    in[n++] = b->in.past;
    in[n++] = b->in.pages;
    for (uint32_t i = 0; i < b->n_ropes; i++)
        in[n++] = b->in.rope[i];
    kf_value first =
        kf_node_add(b->g, KF_OP_repeat, attr, n, in, NULL, kf_build_loc(b, block->src.loc));
    for (uint32_t i = 0; i < caches; i++)
        b->cache[b->next_cache++] = first + 1 + i;
    return first;
}

/* Whether the blocks read only the rows themselves: no other tokens, no positions, and no function
 * that takes those of all rows. */
static bool is_row_local(kf_blocks blocks)
{
    bool local = true;

    for (uint32_t i = 0; i < blocks.n; i++) {
        const kf_block *k = &blocks.block[i];
        local = local && k->kind != KF_BLOCK_ATTENTION && k->kind != KF_BLOCK_REPEAT &&
                k->kind != KF_BLOCK_POSITION_EMBEDDING && k->kind != KF_BLOCK_TYPES &&
                k->kind != KF_BLOCK_POOL;
        if (k->kind == KF_BLOCK_RESIDUAL)
            local = local && is_row_local(k->u.residual.body);
        for (uint32_t j = 0; k->kind == KF_BLOCK_PARALLEL && j < k->u.parallel.n_branches; j++)
            local = local && is_row_local(k->u.parallel.branch[j]);
    }
    return local;
}

/* Blocks up to here need all tokens; behind it only the rows whose logits are wanted go on. */
static uint32_t first_row_local_block(const kf_graph_builder *b)
{
    uint32_t end = b->spec->model.n;

    while (end > 0 && is_row_local((kf_blocks){&b->spec->model.block[end - 1], 1}))
        end--;
    return end > 0 ? end : 1;
}

/* Only wanted rows go on; a pooled model has one row a sequence, all of them wanted. */
static kf_value wanted_rows(kf_graph_builder *b, kf_value x, kf_value rows)
{
    if (kf_spec_is_pooled(b->spec))
        return x;
    return kf_node_2(b->g, KF_OP_gather, x, rows, kf_build_loc(b, b->spec->head->src.loc));
}

static bool build_entry(kf_graph_builder *b, const char *name)
{
    kf_dim n = kf_dim_sym(KF_SYM_N), r = kf_dim_sym(KF_SYM_R);
    bool ok = true;

    b->g = kf_module_add_func(b->m, kf_str_from(name));
    b->prefix = (kf_str){"", 0};
    kf_value ids = add_arg(b, "ids", KF_DTYPE_i32, 1, n, n);
    add_call_inputs(b);
    kf_value rows = add_arg(b, "logit_rows", KF_DTYPE_i32, 1, r, r);
    b->in.pages = add_pages(b);
    b->in.types =
        kf_spec_token_types(b->spec) ? add_arg(b, "types", KF_DTYPE_i32, 1, n, n) : KF_NO_VALUE;
    each_attention(b, b->spec->model, true, 1, add_cache, &ok);
    each_attention(b, b->spec->model, true, 1, collect_rope, &ok);
    if (!ok)
        return false;
    for (uint32_t i = 0; i < b->n_ropes; i++) {
        kf_attr_rope_table *attr = KF_ATTR_NEW(b->arena, rope_table);
        *attr = b->rope[i];
        b->in.rope[i] = kf_node_add(b->g, KF_OP_rope_table, attr, 1, &b->in.pos, NULL,
                                    kf_build_loc(b, b->spec->model.block[0].src.loc));
    }
    uint32_t split = first_row_local_block(b);
    kf_blocks first = {b->spec->model.block, split};
    kf_blocks rest = {b->spec->model.block + split, b->spec->model.n - split};
    kf_value x = build_blocks(b, first, ids);
    x = wanted_rows(b, x, rows);
    kf_graph_add_result(b->g, build_blocks(b, rest, x));
    for (uint32_t i = 0; i < b->n_caches; i++)
        kf_graph_add_result(b->g, b->cache[i]);
    return kf_diags_errors(b->diags) == 0;
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

kf_module *kf_build_graph(kf_arena *arena, kf_diags *diags, const kf_spec *spec,
                          const kf_tensor_source *stored)
{
    kf_module *m = kf_module_create(arena, spec->name.v);
    kf_graph_builder b = {.arena = arena, .diags = diags, .spec = spec, .stored = stored, .m = m};
    const kf_spec_build *build = &spec->build;

    if (kf_src_given(build->activations.src) && build->activations.v != KF_DTYPE_f32) {
        kf_diag_add(diags, KF_E0408, build->activations.src.loc,
                    "activations are computed and stored in f32 on this target, not %s",
                    kf_dtype_infos[build->activations.v].name);
        return NULL;
    }
    b.max_positions = build->max_positions.v;
    bool is_encoder = spec->kind == KF_MODEL_ENCODER;
    int64_t keys = build->max_sequences.v * b.max_positions;
    int64_t rows = is_encoder ? build->max_tokens.v : KF_MIN_LOGIT_ROWS;
    kf_module_add_sym(m, KF_STR("S"), 1, build->max_sequences.v);
    kf_module_add_sym(m, KF_STR("N"), 1, max_i64(build->max_tokens.v, build->max_sequences.v));
    kf_module_add_sym(m, KF_STR("R"), 1, max_i64(build->max_sequences.v, rows));
    kf_module_add_sym(m, KF_STR("K"), 1, keys);
    if (!build_entry(&b, is_encoder ? "encoder" : "main"))
        return NULL;
    /* Definitions before uses: the entry is last. */
    kf_graph *entry = m->funcs.data[0];
    memmove(m->funcs.data, m->funcs.data + 1, (m->funcs.len - 1) * sizeof entry);
    m->funcs.data[m->funcs.len - 1] = entry;
    return m;
}
