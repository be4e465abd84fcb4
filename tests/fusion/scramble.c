/* SPDX-License-Identifier: Apache-2.0 */
/* scramble - see scramble.h. */
#include "tests/fusion/scramble.h"

#include "tests/unit/support.h"

#include <math.h>
#include <string.h>

static uint32_t pick(uint64_t *random, uint32_t n)
{
    return (uint32_t)(random_u64(random) % n);
}

static void replace(kf_graph *g, uint32_t index, kf_value v)
{
    kf_graph_replace(g, g->nodes.data[index].out[0], v);
    g->nodes.data[index].op = KF_OP_NONE;
}

static kf_value num(kf_graph *g, double v, kf_loc loc)
{
    return kf_node_const(g, v, loc);
}

/* ---- operands -------------------------------------------------------------------------------- */

static void swap(kf_node *n)
{
    kf_value first = n->in[0];

    n->in[0] = n->in[1];
    n->in[1] = first;
}

static bool commute(kf_graph *g, uint32_t index, uint64_t *random)
{
    kf_node *n = &g->nodes.data[index];

    (void)random;
    if (!(kf_op_infos[n->op].traits & KF_COMM))
        return false;
    swap(n);
    return true;
}

static bool turn_comparison(kf_graph *g, uint32_t index, uint64_t *random)
{
    static const kf_op turned[][2] = {{KF_OP_le, KF_OP_ge}, {KF_OP_lt, KF_OP_gt}};
    kf_node *n = &g->nodes.data[index];

    (void)random;
    for (int i = 0; i < 4; i++)
        if (n->op == turned[i / 2][i % 2]) {
            n->op = turned[i / 2][1 - i % 2];
            swap(n);
            return true;
        }
    return false;
}

static bool select_other(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node n = g->nodes.data[index];

    (void)random;
    if (n.op != KF_OP_select)
        return false;
    kf_value p = kf_node_1(g, KF_OP_not, n.in[0], n.loc);
    replace(g, index, kf_node_3(g, KF_OP_select, p, n.in[2], n.in[1], n.loc));
    return true;
}

/* where(p, s, -inf) as s plus a mask */
static bool add_mask(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node n = g->nodes.data[index];
    double hidden;

    (void)random;
    if (n.op != KF_OP_select || !kf_value_const(g, n.in[2], &hidden) || hidden != -INFINITY)
        return false;
    kf_value mask = kf_node_3(g, KF_OP_select, n.in[0], num(g, 0, n.loc), n.in[2], n.loc);
    replace(g, index, kf_node_2(g, KF_OP_add, n.in[1], mask, n.loc));
    return true;
}

/* ---- views ----------------------------------------------------------------------------------- */

/* Operand of a random kind of node, f32, that may go round a detour. */
static bool takes_detour(const kf_graph *g, uint32_t index, uint64_t *random, uint32_t *out)
{
    const kf_node *n = &g->nodes.data[index];

    if (n->op == KF_OP_NONE || n->op == KF_OP_repeat || !n->n_in)
        return false;
    *out = pick(random, n->n_in);
    const kf_type *t = kf_value_type(g, n->in[*out]);
    const kf_node *def = kf_value_node(g, n->in[*out]);
    return t->kind == KF_TYPE_TENSOR && t->dtype == KF_DTYPE_f32 && t->rank >= 2 && t->rank < 5 &&
           def && def->op != KF_OP_repeat && def->op != KF_OP_const;
}

static bool reshape_detour(kf_graph *g, uint32_t index, uint64_t *random)
{
    uint32_t operand;

    if (!takes_detour(g, index, random, &operand))
        return false;
    const kf_node n = g->nodes.data[index];
    const kf_type t = *kf_value_type(g, n.in[operand]);
    kf_dim dim[KF_MAX_RANK] = {kf_dim_static(1)};
    memcpy(dim + 1, t.dim, t.rank * sizeof *dim);
    kf_value v = kf_node_reshape(g, n.in[operand], (uint8_t)(t.rank + 1), dim, n.loc);
    n.in[operand] = kf_node_reshape(g, v, t.rank, t.dim, n.loc);
    return true;
}

kf_value swap_last(kf_graph *g, kf_value v, kf_loc loc)
{
    kf_ints perm = {.n = kf_value_type(g, v)->rank};

    for (uint8_t i = 0; i < perm.n; i++)
        perm.v[i] = i;
    perm.v[perm.n - 1] = perm.n - 2;
    perm.v[perm.n - 2] = perm.n - 1;
    return kf_node_transpose(g, v, perm, loc);
}

static bool transpose_detour(kf_graph *g, uint32_t index, uint64_t *random)
{
    uint32_t operand;

    if (!takes_detour(g, index, random, &operand))
        return false;
    const kf_node n = g->nodes.data[index];
    n.in[operand] = swap_last(g, swap_last(g, n.in[operand], n.loc), n.loc);
    return true;
}

/* ---- products -------------------------------------------------------------------------------- */

/* The right factor the other way round: an activation through a transpose, a weight as another
 * parameter. */
static bool turn_factor(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node n = g->nodes.data[index];

    (void)random;
    if (n.op != KF_OP_matmul)
        return false;
    const kf_value_info b = g->values.data[n.in[1]];
    kf_value turned;
    if (b.kind != KF_VALUE_PARAM)
        turned = swap_last(g, n.in[1], n.loc);
    else if (b.type.rank == 2)
        turned = kf_graph_add_param(
            g, kf_recipe_transpose(g->module->arena, g->recipes.data[b.def]), b.name, b.loc);
    else
        return false;
    replace(g, index, kf_node_matmul(g, n.in[0], turned, !KF_ATTR_OF(&n, matmul)->trans_b, n.loc));
    return true;
}

static bool power_of_two(double c)
{
    int e;

    return c != 0 && fabs(frexp(c, &e)) == 0.5;
}

static bool divide(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node n = g->nodes.data[index];
    double c;

    (void)random;
    if (n.op != KF_OP_mul || !kf_value_const(g, n.in[1], &c) || 1 / (1 / c) != c)
        return false;
    replace(g, index, kf_node_2(g, KF_OP_div, n.in[0], num(g, 1 / c, n.loc), n.loc));
    return true;
}

/* c (a b) as (c a) b */
static bool scale_before(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node n = g->nodes.data[index];
    double c;

    (void)random;
    if (n.op != KF_OP_mul || !kf_value_const(g, n.in[1], &c) || !power_of_two(c))
        return false;
    const kf_node *p = kf_value_is(g, n.in[0], KF_OP_matmul);
    if (!p || kf_value_type(g, p->in[1])->rank < 3)
        return false;
    const kf_node mm = *p;
    kf_value a = kf_node_2(g, KF_OP_mul, mm.in[0], num(g, c, n.loc), n.loc);
    kf_attr_matmul *attr = KF_ATTR_NEW(g->module->arena, matmul);
    *attr = *KF_ATTR_OF(&mm, matmul);
    replace(g, index,
            kf_node_add(g, KF_OP_matmul, attr, 2, (kf_value[]){a, mm.in[1]}, NULL, n.loc));
    return true;
}

static bool is_weight(const kf_graph *g, kf_value v)
{
    return g->values.data[v].kind == KF_VALUE_PARAM && kf_value_type(g, v)->rank == 2;
}

/* Two products of one input as slices of one product. */
static bool pack(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node a = g->nodes.data[index];
    uint32_t other = index;

    (void)random;
    if (a.op != KF_OP_matmul || !is_weight(g, a.in[1]) || !KF_ATTR_OF(&a, matmul)->trans_b)
        return false;
    for (uint32_t i = index + 1; i < g->nodes.len && other == index; i++) {
        const kf_node *b = &g->nodes.data[i];
        if (b->op == KF_OP_matmul && b->in[0] == a.in[0] && b->in[1] != a.in[1] &&
            is_weight(g, b->in[1]) && KF_ATTR_OF(b, matmul)->trans_b &&
            kf_value_type(g, b->in[1])->dtype == kf_value_type(g, a.in[1])->dtype)
            other = i;
    }
    if (other == index)
        return false;
    const kf_node b = g->nodes.data[other];
    const kf_recipe *part[] = {g->recipes.data[g->values.data[a.in[1]].def],
                               g->recipes.data[g->values.data[b.in[1]].def]};
    int64_t n = part[0]->type.dim[0].size, both = n + part[1]->type.dim[0].size;
    kf_value w = kf_graph_add_param(g, kf_recipe_concat(g->module->arena, 1, 2, part),
                                    kf_strf(g->module->arena, "packed_%u", index), a.loc);
    kf_value p = kf_node_matmul(g, a.in[0], w, true, a.loc);
    uint32_t axis = kf_value_type(g, p)->rank - 1u;
    replace(g, index, kf_node_slice(g, p, axis, 0, n, a.loc));
    replace(g, other, kf_node_slice(g, p, axis, n, both, b.loc));
    return true;
}

/* ---- functions in steps ---------------------------------------------------------------------- */

static kf_value half_times_one_plus(kf_graph *g, kf_value x, kf_value t, kf_loc loc)
{
    t = kf_node_2(g, KF_OP_add, t, num(g, 1, loc), loc);
    return kf_node_2(g, KF_OP_mul, kf_node_2(g, KF_OP_mul, x, num(g, 0.5, loc), loc), t, loc);
}

static kf_value tanh_of_cubic(kf_graph *g, kf_value x, kf_loc loc)
{
    kf_value cube = kf_node_2(g, KF_OP_mul, kf_node_2(g, KF_OP_mul, x, x, loc), x, loc);
    kf_value t =
        kf_node_2(g, KF_OP_add, x, kf_node_2(g, KF_OP_mul, cube, num(g, 0.044715, loc), loc), loc);

    t = kf_node_2(g, KF_OP_mul, t, num(g, 0.79788456080286535588, loc), loc);
    return kf_node_1(g, KF_OP_tanh, t, loc);
}

static kf_value in_steps(kf_graph *g, kf_op op, kf_value x, kf_value y, kf_loc loc)
{
    switch (op) {
    case KF_OP_silu:
        return kf_node_2(g, KF_OP_mul, x, kf_node_1(g, KF_OP_sigmoid, x, loc), loc);
    case KF_OP_square:
        return kf_node_2(g, KF_OP_mul, x, x, loc);
    case KF_OP_rsqrt:
        return kf_node_2(g, KF_OP_div, num(g, 1, loc), kf_node_1(g, KF_OP_sqrt, x, loc), loc);
    case KF_OP_sub:
        return kf_node_2(g, KF_OP_add, x, kf_node_1(g, KF_OP_neg, y, loc), loc);
    case KF_OP_gelu:
        y = kf_node_2(g, KF_OP_mul, x, num(g, 0.70710678118654752440, loc), loc);
        return half_times_one_plus(g, x, kf_node_1(g, KF_OP_erf, y, loc), loc);
    case KF_OP_gelu_tanh:
        return half_times_one_plus(g, x, tanh_of_cubic(g, x, loc), loc);
    default:
        return KF_NO_VALUE;
    }
}

static bool function_in_steps(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node n = g->nodes.data[index];

    (void)random;
    if (!kf_op_is_fn(n.op) || kf_value_type(g, n.out[0])->dtype != KF_DTYPE_f32)
        return false;
    kf_value v = in_steps(g, n.op, n.in[0], n.n_in > 1 ? n.in[1] : KF_NO_VALUE, n.loc);
    if (v == KF_NO_VALUE)
        return false;
    replace(g, index, v);
    return true;
}

/* A map as nodes: parameters are the rows, the accumulators and perhaps the column. */
static kf_value map_in_steps(kf_graph *g, const kf_slot *s, const kf_value *param, kf_loc loc)
{
    kf_value *v = KF_NEW_N(g->module->arena, kf_value, s->n_insts);

    for (uint32_t i = 0; i < s->n_insts; i++) {
        const kf_slot_inst *in = &s->inst[i];
        kf_value arg[3] = {0};
        for (uint8_t a = 0; a < in->n_args; a++)
            arg[a] = v[in->arg[a]];
        if (in->op == KF_SLOT_CONST)
            v[i] = num(g, in->value, loc);
        else if (in->op == KF_SLOT_PARAM)
            v[i] = param[in->index];
        else
            v[i] = kf_node_add(g, (kf_op)in->fn, NULL, in->n_args, arg, NULL, loc);
    }
    return v[s->n_insts - 1];
}

static kf_value row_value(kf_graph *g, kf_acc acc, kf_value x, kf_loc loc)
{
    kf_attr_row_reduce *a = KF_ATTR_NEW(g->module->arena, row_reduce);

    a->acc = (kf_accs){1, {acc}};
    return kf_node_add(g, KF_OP_row_reduce, a, 1, &x, NULL, loc);
}

/* An accumulator of its own; those that need another one as sums of what they sum. */
static kf_value acc_in_steps(kf_graph *g, kf_acc acc, kf_value x, kf_value needed, kf_loc loc)
{
    const kf_type *t = kf_value_type(g, x);
    double n = (double)t->dim[t->rank - 1].size;

    if (acc == KF_ACC_sum_dev) {
        kf_value mean = kf_node_2(g, KF_OP_div, needed, num(g, n, loc), loc);
        kf_value d = kf_node_2(g, KF_OP_sub, x, mean, loc);
        return row_value(g, KF_ACC_sum, kf_node_1(g, KF_OP_square, d, loc), loc);
    }
    if (acc == KF_ACC_sum_exp) {
        kf_value e = kf_node_1(g, KF_OP_exp, kf_node_2(g, KF_OP_sub, x, needed, loc), loc);
        return row_value(g, KF_ACC_sum, e, loc);
    }
    return row_value(g, acc, x, loc);
}

/* A norm or softmax op by op. A softmax guarded against rows that see nothing keeps its guard; its
 * steps have NaN there unless every row sees something, which all descriptions here give. */
static bool norm_in_steps(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node n = g->nodes.data[index];

    (void)random;
    if (n.op != KF_OP_row_reduce || n.n_in != 1)
        return false;
    const kf_attr_row_reduce *a = KF_ATTR_OF(&n, row_reduce);
    if (!a->keep || !a->map || a->map->n_params != 1 + a->acc.n || a->acc.n == 0)
        return false;
    kf_value param[1 + KF_MAX_ACCS] = {n.in[0]};
    for (uint8_t i = 0; i < a->acc.n; i++)
        param[1 + i] = acc_in_steps(g, a->acc.acc[i], n.in[0], param[i], n.loc);
    replace(g, index, map_in_steps(g, a->map, param, n.loc));
    return true;
}

/* ---- nothing done ---------------------------------------------------------------------------- */

static bool neutral(kf_graph *g, uint32_t index, uint64_t *random)
{
    const kf_node n = g->nodes.data[index];
    bool num_out = kf_op_is_fn(n.op) && kf_value_type(g, n.out[0])->dtype == KF_DTYPE_f32;

    if (!num_out || kf_value_type(g, n.out[0])->rank == 0)
        return false;
    kf_value again = kf_node_add(g, n.op, NULL, n.n_in, n.in, NULL, n.loc), v;
    switch (pick(random, 3)) {
    case 0:
        v = kf_node_2(g, KF_OP_mul, again, num(g, 1, n.loc), n.loc);
        break;
    case 1:
        v = kf_node_2(g, KF_OP_add, num(g, 0, n.loc), again, n.loc);
        break;
    default:
        v = kf_node_1(g, KF_OP_neg, kf_node_1(g, KF_OP_neg, again, n.loc), n.loc);
    }
    replace(g, index, v);
    return true;
}

const rewrite rewrites[] = {
    {"operands swapped", commute},
    {"comparisons turned", turn_comparison},
    {"select of not", select_other},
    {"mask added", add_mask},
    {"reshapes", reshape_detour},
    {"transposes", transpose_detour},
    {"factors transposed", turn_factor},
    {"quotients", divide},
    {"scale before", scale_before},
    {"packed weights", pack},
    {"functions in steps", function_in_steps},
    {"norms in steps", norm_in_steps},
    {"neutral work", neutral},
};
const uint32_t n_rewrites = sizeof rewrites / sizeof rewrites[0];

/* ---- modules --------------------------------------------------------------------------------- */

/* Nodes in a random order that is still topological, arguments under other names. */
static void disguise(kf_graph *g, uint64_t *random)
{
    kf_graph_sort(g);
    for (uint32_t round = 0; round < 4; round++)
        for (uint32_t i = 0; i + 1 < g->nodes.len; i++) {
            kf_node *a = &g->nodes.data[i], *b = a + 1;
            bool depends = pick(random, 2) || a->op == KF_OP_NONE || b->op == KF_OP_NONE;
            for (uint32_t j = 0; j < b->n_in; j++)
                for (uint32_t r = 0; r < a->n_out; r++)
                    depends |= b->in[j] == a->out[r];
            if (depends)
                continue;
            kf_node t = *a;
            *a = *b;
            *b = t;
            for (uint32_t r = 0; r < a->n_out; r++)
                g->values.data[a->out[r]].def = i;
            for (uint32_t r = 0; r < b->n_out; r++)
                g->values.data[b->out[r]].def = i + 1;
        }
    for (uint32_t i = 0; i < g->params.len; i++)
        g->values.data[g->params.data[i]].name = kf_strf(g->module->arena, "p%u", i);
    kf_graph_compact(g);
}

kf_module *scramble(kf_arena *arena, const kf_module *m, uint32_t which, uint32_t percent,
                    uint64_t seed, uint32_t *out_applied)
{
    kf_module *s = kf_module_clone(m, arena);
    uint64_t random = seed;

    *out_applied = 0;
    for (uint32_t f = 0; f < s->funcs.len; f++) {
        kf_graph *g = s->funcs.data[f];
        for (uint32_t i = 0, end = g->nodes.len; i < end; i++) {
            uint32_t r = which < n_rewrites ? which : pick(&random, n_rewrites);
            if (g->nodes.data[i].op != KF_OP_NONE && pick(&random, 100) < percent)
                *out_applied += rewrites[r].at(g, i, &random);
        }
        disguise(g, &random);
    }
    return s;
}
