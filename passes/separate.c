/* SPDX-License-Identifier: Apache-2.0 */
/* separate - see separate.h. */
#include "passes/separate.h"

/* Blocks of less leave more statistics than they are worth. */
enum { STAT_BLOCK_LEAST = 16 };

bool kf_accs_can_join(const kf_accs *accs)
{
    bool can = accs->n > 0;

    for (uint8_t i = 0; i < accs->n; i++)
        can = can &&
              (kf_acc_infos[accs->acc[i]].joined != KF_ACC_none || accs->acc[i] == KF_ACC_sum_dev);
    return can;
}

/* Equal blocks where deviations are merged; a last block may be shorter for the others. */
int64_t kf_stat_block(const kf_accs *accs, int64_t columns)
{
    int64_t block = KF_STAT_BLOCK;

    while (kf_accs_have(accs, KF_ACC_sum_dev) && columns % block)
        block /= 2;
    return block < STAT_BLOCK_LEAST ? 0 : block;
}

/* ---- statistics ------------------------------------------------------------------------------ */

/* Rows gathered from a producer keep its statistic: gather (row_stat y) rather than row_stat
 * (gather y). */
kf_value kf_partial_stat(kf_graph *g, kf_value x, kf_accs acc, int64_t block, kf_loc loc)
{
    const kf_node *rows = kf_value_is(g, x, KF_OP_gather);

    if (rows && !kf_value_is_param(g, rows->in[0]) && kf_value_type(g, rows->in[1])->rank == 1) {
        kf_value ids = rows->in[1];
        kf_value stat = kf_partial_stat(g, rows->in[0], acc, block, loc);
        return kf_node_2(g, KF_OP_gather, stat, ids, loc);
    }
    kf_attr_row_stat *attr = KF_ATTR_NEW(g->module->arena, row_stat);
    attr->acc = acc;
    attr->block = block;
    return kf_node_add(g, KF_OP_row_stat, attr, 1, &x, NULL, loc);
}

kf_value kf_join_stat(kf_graph *g, kf_value stat, kf_accs acc, const kf_slot *map, kf_loc loc)
{
    kf_attr_row_reduce *attr = KF_ATTR_NEW(g->module->arena, row_reduce);

    attr->acc = acc;
    attr->map = map;
    return kf_node_add(g, KF_OP_row_reduce, attr, 1, &stat, NULL, loc);
}

/* The squared deviations within the blocks and those of the blocks' means. */
static kf_value joined_dev(kf_graph *g, kf_value x, int64_t block, kf_loc loc)
{
    const kf_accs sum = {1, {KF_ACC_sum}}, sum_and_dev = {2, {KF_ACC_sum, KF_ACC_sum_dev}};
    kf_value inside = kf_partial_stat(g, x, sum_and_dev, block, loc);
    kf_value sums = kf_partial_stat(g, x, sum, block, loc);
    kf_value between = kf_join_stat(g, sums, sum_and_dev, NULL, loc);
    kf_value part = kf_node_const(g, 1.0 / (double)block, loc);

    between = kf_node_2(g, KF_OP_mul, between, part, loc);
    return kf_node_2(g, KF_OP_add, kf_join_stat(g, inside, sum, NULL, loc), between, loc);
}

/* The accumulator over the whole row, from partial ones: all, or those of the blocks where what it
 * needs is as in the row. */
static kf_value joined_acc(kf_graph *g, kf_value x, kf_acc acc, int64_t block, kf_loc loc)
{
    const kf_acc_info *info = &kf_acc_infos[acc];
    const kf_accs by = {1, {info->joined}};

    if (acc == KF_ACC_sum_dev)
        return joined_dev(g, x, block, loc);
    if (info->needs == KF_ACC_none)
        return kf_join_stat(g, kf_partial_stat(g, x, (kf_accs){1, {acc}}, block, loc), by, NULL,
                            loc);
    kf_value needed = kf_partial_stat(g, x, (kf_accs){1, {info->needs}}, block, loc);
    kf_value part = kf_partial_stat(g, x, (kf_accs){2, {info->needs, acc}}, block, loc);
    kf_value of_row =
        kf_join_stat(g, needed, (kf_accs){1, {kf_acc_infos[info->needs].joined}}, NULL, loc);
    kf_value in[] = {kf_node_2(g, KF_OP_eq, needed, of_row, loc), part,
                     kf_node_const(g, kf_acc_infos[info->joined].init, loc)};
    kf_value kept = kf_node_add(g, KF_OP_select, NULL, 3, in, NULL, loc);
    return kf_join_stat(g, kept, by, NULL, loc);
}

/* ---- the map --------------------------------------------------------------------------------- */

/* Quotients by a row value become products with its reciprocal: one division a row. */
static kf_value expand_fn(kf_graph *g, kf_fn fn, uint32_t n_args, const kf_value *arg, kf_loc loc)
{
    const kf_type *by = n_args == 2 ? kf_value_type(g, arg[1]) : NULL;

    if (fn == KF_FN_div && by->rank == 2 && kf_dim_eq(by->dim[1], kf_dim_static(1)) &&
        !kf_dim_eq(kf_value_type(g, arg[0])->dim[1], kf_dim_static(1)))
        return kf_node_2(g, KF_OP_mul, arg[0], kf_node_1(g, KF_OP_recip, arg[1], loc), loc);
    return kf_node_add(g, (kf_op)fn, NULL, n_args, arg, NULL, loc);
}

/* The map as ops over the rows, joined accumulators and captured vectors. */
static kf_value expand_map(kf_graph *g, const kf_node *n, int64_t block, kf_arena *scratch)
{
    const kf_attr_row_reduce *attr = KF_ATTR_OF(n, row_reduce);
    const kf_slot *map = attr->map;
    kf_value *made = KF_NEW_N(scratch, kf_value, map->n_insts);

    for (uint32_t i = 0; i < map->n_insts; i++) {
        const kf_slot_inst *in = &map->inst[i];
        kf_value arg[KF_SLOT_MAX_ARGS] = {0};
        for (uint32_t k = 0; k < in->n_args; k++)
            arg[k] = made[in->arg[k]];
        switch (in->op) {
        case KF_SLOT_CONST:
            made[i] = kf_node_const(g, in->value, n->loc);
            break;
        case KF_SLOT_PARAM:
            made[i] = in->index == 0 || in->index > attr->acc.n
                          ? n->in[0]
                          : joined_acc(g, n->in[0], attr->acc.acc[in->index - 1], block, n->loc);
            break;
        case KF_SLOT_LOAD:
            made[i] = n->in[n->n_in - map->captures + in->index];
            break;
        case KF_SLOT_FN:
            made[i] = expand_fn(g, in->fn, in->n_args, arg, n->loc);
            break;
        }
    }
    return made[map->n_insts - 1];
}

void kf_separate(kf_graph *g, uint32_t node, int64_t block, kf_arena *scratch)
{
    const kf_node n = g->nodes.data[node];
    const kf_attr_row_reduce *attr = KF_ATTR_OF(&n, row_reduce);
    kf_value joined = attr->map
                          ? expand_map(g, &n, block, scratch)
                          : joined_acc(g, n.in[0], attr->acc.acc[attr->acc.n - 1], block, n.loc);

    kf_graph_replace(g, n.out[0], joined);
    g->nodes.data[node].op = KF_OP_NONE;
}
