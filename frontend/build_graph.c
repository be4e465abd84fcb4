/* SPDX-License-Identifier: Apache-2.0 */
/* build_graph - blocks as ops; functions are build_func.c, attention is build_attention.c. */
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

/* Names of arguments and parameters are unique in a function: wq, wq2, ... */
static kf_str block_name(const kf_graph_builder *b, const char *name)
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
    return kf_graph_param_of(b->g, kf_build_recipe(b, p), block_name(b, name), loc);
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
    return kf_graph_param_of(b->g, r, block_name(b, "gain"), kf_build_loc(b, block->src.loc));
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
                                       block_name(b, "weight"), loc);
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
    kf_value sum = kf_build_blocks(b, block->u.parallel.branch[0], x);

    for (uint32_t i = 1; i < block->u.parallel.n_branches; i++)
        sum = kf_node_2(b->g, KF_OP_add, sum, kf_build_blocks(b, block->u.parallel.branch[i], x),
                        loc);
    return sum;
}

static kf_value build_embedding(kf_graph_builder *b, const kf_block *block, kf_value ids)
{
    kf_loc loc = kf_build_loc(b, block->src.loc);
    const kf_block *owner = block->u.embedding.tied_to ? block->u.embedding.tied_to : block;
    kf_value table = kf_build_param(b, owner, KF_PARAM_TABLE, "embed");

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
    case KF_BLOCK_CROSS:
        return kf_build_cross(b, block, x);
    case KF_BLOCK_BIAS:
        b->bias = block;
        b->in.bias = kf_build_param(b, block, KF_PARAM_TABLE, "bias");
        return x;
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
        return kf_node_2(b->g, KF_OP_add, x, kf_build_blocks(b, block->u.residual.body, x), loc);
    case KF_BLOCK_PARALLEL:
        return build_parallel(b, block, x);
    case KF_BLOCK_REPEAT:
        return kf_build_repeat(b, block, x);
    case KF_BLOCK_KIND_COUNT:
        break;
    }
    KF_ASSERT(false, "every block kind is built");
    return x;
}

kf_value kf_build_blocks(kf_graph_builder *b, kf_blocks blocks, kf_value x)
{
    for (uint32_t i = 0; i < blocks.n; i++)
        x = build_block(b, &blocks.block[i], x);
    return x;
}
