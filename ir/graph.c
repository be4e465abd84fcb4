/* SPDX-License-Identifier: Apache-2.0 */
/* graph - making and reading graphs. Rewriting them (sort, compact, clone) is in graph_edit.c. */
#include "ir/graph.h"

#include "base/check.h"
#include "ir/shape.h"

#include <string.h>

const kf_op_info kf_op_infos[KF_OP_COUNT] = {
#define FN(name, arity, result, traits, eval, emit, oracle, summary)                               \
    {#name, arity, KF_ATTR_none, KF_EW | (traits), "", summary},
#include "ir/fn.def"
#undef FN
#define OP(name, ins, attr, traits, shape, eval, shard, types, summary)                            \
    {#name, ins, KF_ATTR_##attr, traits, types, summary},
#include "ir/ops.def"
#undef OP
};

/* ORDER: elementwise ops have the numbers of their functions. */
_Static_assert((int)KF_OP_add == (int)KF_FN_add, "rows of fn.def come first");
_Static_assert((int)KF_OP_select == (int)KF_FN_select, "rows of fn.def come first, all of them");
_Static_assert((int)KF_OP_const == (int)KF_FN_COUNT, "rows of ops.def follow");

bool kf_op_find(kf_str name, kf_op *out_op)
{
    for (int i = 0; i < KF_OP_COUNT; i++) {
        if (kf_str_eq_c(name, kf_op_infos[i].name)) {
            *out_op = (kf_op)i;
            return true;
        }
    }
    return false;
}

/* ---- modules --------------------------------------------------------------------------------- */

kf_module *kf_module_create(kf_arena *arena, kf_str name)
{
    kf_module *m = KF_NEW(arena, kf_module);
    m->arena = arena;
    m->name = kf_str_dup(arena, name);
    return m;
}

uint32_t kf_module_add_sym(kf_module *m, kf_str name, int64_t lo, int64_t hi)
{
    kf_sym sym = {kf_str_dup(m->arena, name), lo, hi};
    kf_vec_push(m->arena, &m->syms, sym);
    return m->syms.len - 1;
}

uint32_t kf_module_add_file(kf_module *m, kf_str path)
{
    for (uint32_t i = 0; i < m->files.len; i++) {
        if (kf_str_eq(m->files.data[i], path))
            return i + 1;
    }
    kf_vec_push(m->arena, &m->files, kf_str_dup(m->arena, path));
    return m->files.len;
}

kf_loc kf_module_diag_loc(const kf_module *m, const kf_diags *d, kf_loc loc)
{
    loc.file = loc.file ? kf_diags_find_file(d, m->files.data[loc.file - 1]) : 0;
    return loc.file ? loc : KF_NO_LOC;
}

kf_graph *kf_module_add_func(kf_module *m, kf_str name)
{
    kf_graph *g = kf_graph_create(m);
    g->name = kf_str_dup(m->arena, name);
    kf_vec_push(m->arena, &m->funcs, g);
    return g;
}

kf_graph *kf_module_find_func(const kf_module *m, kf_str name)
{
    for (uint32_t i = 0; i < m->funcs.len; i++) {
        if (kf_str_eq(m->funcs.data[i]->name, name))
            return m->funcs.data[i];
    }
    return NULL;
}

kf_str kf_func_base_name(kf_str name)
{
    const char *dot = memchr(name.ptr, '.', name.len);

    return dot ? (kf_str){name.ptr, (uint32_t)(dot - name.ptr)} : name;
}

/* ---- building graphs ------------------------------------------------------------------------- */

kf_graph *kf_graph_create(kf_module *m)
{
    kf_graph *g = KF_NEW(m->arena, kf_graph);
    g->module = m;
    return g;
}

static kf_value add_value(kf_graph *g, kf_value_info info)
{
    kf_vec_push(g->module->arena, &g->values, info);
    return g->values.len - 1;
}

kf_value kf_graph_add_arg(kf_graph *g, kf_type type, kf_str name, kf_loc loc)
{
    kf_value v = add_value(g, (kf_value_info){.kind = KF_VALUE_ARG,
                                              .def = g->args.len,
                                              .type = type,
                                              .name = kf_str_dup(g->module->arena, name),
                                              .loc = loc});
    kf_vec_push(g->module->arena, &g->args, v);
    return v;
}

kf_value kf_graph_add_param(kf_graph *g, const kf_recipe *recipe, kf_str name, kf_loc loc)
{
    kf_value v = add_value(g, (kf_value_info){.kind = KF_VALUE_PARAM,
                                              .def = g->params.len,
                                              .type = recipe->type,
                                              .name = kf_str_dup(g->module->arena, name),
                                              .loc = loc});
    kf_vec_push(g->module->arena, &g->params, v);
    kf_vec_push(g->module->arena, &g->recipes, recipe);
    return v;
}

kf_value kf_graph_param_of(kf_graph *g, const kf_recipe *recipe, kf_str name, kf_loc loc)
{
    for (uint32_t i = 0; i < g->params.len; i++)
        if (kf_recipe_eq(g->recipes.data[i], recipe) &&
            kf_type_eq(kf_value_type(g, g->params.data[i]), &recipe->type))
            return g->params.data[i];
    return kf_graph_add_param(g, recipe, name, loc);
}

void kf_graph_add_result(kf_graph *g, kf_value v)
{
    KF_ASSERT(v < g->values.len, "a result is a value of its graph");
    kf_vec_push(g->module->arena, &g->results, v);
}

static kf_value add_node(kf_graph *g, kf_node n, const kf_type *given)
{
    kf_arena *arena = g->module->arena;
    kf_type types[KF_MAX_RESULTS];

    n.serial = ++g->module->serials;
    kf_sbuf why = {.arena = arena};
    if (!kf_shape_infer(g, n.op, n.attr, n.body, n.n_in, n.in, given, types, &n.n_out, &why))
        kf_check_fail(__FILE__, __LINE__, kf_op_infos[n.op].name, why.ptr ? why.ptr : "");
    kf_value *in = KF_NEW_N(arena, kf_value, n.n_in ? n.n_in : 1);
    for (uint32_t i = 0; i < n.n_in; i++)
        in[i] = n.in[i];
    n.in = in;
    for (uint8_t i = 0; i < n.n_out; i++)
        n.out[i] = add_value(g, (kf_value_info){.kind = KF_VALUE_NODE,
                                                .def = g->nodes.len,
                                                .result = i,
                                                .type = types[i],
                                                .loc = n.loc});
    kf_vec_push(arena, &g->nodes, n);
    return n.out[0];
}

kf_value kf_node_add(kf_graph *g, kf_op op, const void *attr, uint32_t n_in, const kf_value *in,
                     const kf_type *given, kf_loc loc)
{
    KF_ASSERT(op < KF_OP_COUNT && op != KF_OP_region, "regions are added by kf_node_add_region");
    kf_attr_kind kind = kf_op_infos[op].attr;
    kf_node n = {.op = op, .n_in = n_in, .in = (kf_value *)in, .loc = loc};
    n.attr = attr ? kf_attr_copy(g->module->arena, kind, attr, false)
                  : kf_attr_new(g->module->arena, kind);
    return add_node(g, n, given);
}

kf_value kf_node_add_region(kf_graph *g, kf_family family, kf_graph *body, kf_str name,
                            uint32_t n_in, const kf_value *in, kf_loc loc)
{
    kf_attr_region *attr = KF_ATTR_NEW(g->module->arena, region);
    attr->family = family;
    kf_node n = {.op = KF_OP_region,
                 .n_in = n_in,
                 .in = (kf_value *)in,
                 .attr = attr,
                 .body = body,
                 .name = kf_str_dup(g->module->arena, name),
                 .loc = loc};
    return add_node(g, n, NULL);
}

kf_value kf_node_1(kf_graph *g, kf_op op, kf_value a, kf_loc loc)
{
    return kf_node_add(g, op, NULL, 1, &a, NULL, loc);
}

kf_value kf_node_2(kf_graph *g, kf_op op, kf_value a, kf_value b, kf_loc loc)
{
    return kf_node_add(g, op, NULL, 2, (kf_value[]){a, b}, NULL, loc);
}

kf_value kf_node_3(kf_graph *g, kf_op op, kf_value a, kf_value b, kf_value c, kf_loc loc)
{
    return kf_node_add(g, op, NULL, 3, (kf_value[]){a, b, c}, NULL, loc);
}

kf_value kf_node_const(kf_graph *g, double value, kf_loc loc)
{
    return kf_node_add(g, KF_OP_const, &(kf_attr_constant){.value = value}, 0, NULL, NULL, loc);
}

kf_value kf_node_reshape(kf_graph *g, kf_value a, uint8_t rank, const kf_dim *dims, kf_loc loc)
{
    kf_type given = kf_type_tensor(kf_value_type(g, a)->dtype, rank, dims);
    return kf_node_add(g, KF_OP_reshape, NULL, 1, &a, &given, loc);
}

kf_value kf_node_transpose(kf_graph *g, kf_value a, kf_ints perm, kf_loc loc)
{
    return kf_node_add(g, KF_OP_transpose, &(kf_attr_perm){.perm = perm}, 1, &a, NULL, loc);
}

kf_value kf_node_slice(kf_graph *g, kf_value a, int64_t axis, int64_t start, int64_t stop,
                       kf_loc loc)
{
    kf_attr_slice attr = {.axis = axis, .start = start, .stop = stop};
    return kf_node_add(g, KF_OP_slice, &attr, 1, &a, NULL, loc);
}

kf_value kf_node_matmul(kf_graph *g, kf_value a, kf_value b, bool trans_b, kf_loc loc)
{
    kf_attr_matmul attr = {.trans_b = trans_b};
    return kf_node_add(g, KF_OP_matmul, &attr, 2, (kf_value[]){a, b}, NULL, loc);
}

/* ---- reading --------------------------------------------------------------------------------- */

kf_node *kf_value_node(const kf_graph *g, kf_value v)
{
    const kf_value_info *info = &g->values.data[v];
    return info->kind == KF_VALUE_NODE ? &g->nodes.data[info->def] : NULL;
}

kf_node *kf_value_is(const kf_graph *g, kf_value v, kf_op op)
{
    kf_node *n = kf_value_node(g, v);
    return n && n->op == op ? n : NULL;
}

bool kf_value_const(const kf_graph *g, kf_value v, double *out)
{
    const kf_node *n = kf_value_is(g, v, KF_OP_const);
    if (!n)
        return false;
    *out = KF_ATTR_OF(n, constant)->value;
    return true;
}

uint32_t *kf_graph_use_counts(const kf_graph *g, kf_arena *arena)
{
    uint32_t *uses = KF_NEW_N(arena, uint32_t, g->values.len ? g->values.len : 1);
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t k = 0; n->op != KF_OP_NONE && k < n->n_in; k++)
            uses[n->in[k]]++;
    }
    for (uint32_t i = 0; i < g->results.len; i++)
        uses[g->results.data[i]]++;
    return uses;
}
