/* SPDX-License-Identifier: Apache-2.0 */
/* canonicalize - one spelling per pattern: local rewrites from a table of rules.
 *
 *   before   %2 = mul %1, %0 ; %1 = sigmoid %0        after   %2 = silu %0
 *            %4 = reshape (reshape %3)                        %4 = reshape %3
 *            %5 = ge %q, %k                                   %5 = le %k, %q
 *            %6 = matmul %x, %w                               %6 = matmul %x, %w' {trans_b}
 *
 * What only moves the elements of a parameter (a slice, a transpose, the orientation that a matmul
 * wants) becomes part of its recipe: packing does it once.
 * Requirements on a rule. It keeps the type of what it replaces; looks at the node and its
 * operands only; is monotonic (fewer nodes, or the same number in a form that no rule turns back),
 * so that the pass ends.
 * After the rules, operands of commutative ops are put in the order of their structure (full
 * shapes first, broadcast ones, parameters, constants) and nodes in depth-first order from the
 * results, see canonical_order.h; bodies of slots likewise.
 * Why here      before every pass that matches patterns.
 * Needs topological order. Keeps nothing.
 */
#include "ir/shape.h"
#include "passes/canonical_order.h"
#include "passes/match.h"
#include "passes/view_chain.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef kf_value (*rule_fn)(kf_graph *g, const kf_node *n);

static bool is_const(const kf_graph *g, kf_value v, double want)
{
    double c;

    return kf_value_const(g, v, &c) && c == want;
}

/* |v|, if it has the type of the node's result; a broadcast operand cannot stand for the result. */
static kf_value same_type(const kf_graph *g, const kf_node *n, kf_value v)
{
    return kf_type_eq(kf_value_type(g, v), kf_value_type(g, n->out[0])) ? v : KF_NO_VALUE;
}

static bool is_float(const kf_graph *g, kf_value v)
{
    return kf_dtype_infos[kf_value_type(g, v)->dtype].kind == KF_KIND_FLOAT;
}

static kf_value mul_one(kf_graph *g, const kf_node *n)
{
    for (int i = 0; i < 2; i++)
        if (is_const(g, n->in[i], 1.0))
            return same_type(g, n, n->in[1 - i]);
    return KF_NO_VALUE;
}

static kf_value add_zero(kf_graph *g, const kf_node *n)
{
    for (int i = 0; i < 2; i++)
        if (is_const(g, n->in[i], 0.0))
            return same_type(g, n, n->in[1 - i]);
    return KF_NO_VALUE;
}

static kf_value div_one(kf_graph *g, const kf_node *n)
{
    return is_const(g, n->in[1], 1.0) ? same_type(g, n, n->in[0]) : KF_NO_VALUE;
}

static kf_value mul_self(kf_graph *g, const kf_node *n)
{
    return n->in[0] == n->in[1] ? kf_node_1(g, KF_OP_square, n->in[0], n->loc) : KF_NO_VALUE;
}

static kf_value mul_sigmoid(kf_graph *g, const kf_node *n)
{
    for (int i = 0; i < 2; i++) {
        const kf_node *s = kf_value_is(g, n->in[i], KF_OP_sigmoid);
        if (s && s->in[0] == n->in[1 - i])
            return kf_node_1(g, KF_OP_silu, n->in[1 - i], n->loc);
    }
    return KF_NO_VALUE;
}

/* Exact: the reciprocal of a power of two is one. */
static kf_value div_power_of_two(kf_graph *g, const kf_node *n)
{
    double c;
    int e;

    if (!kf_value_const(g, n->in[1], &c) || fabs(frexp(c, &e)) != 0.5)
        return KF_NO_VALUE;
    return kf_node_2(g, KF_OP_mul, n->in[0], kf_node_const(g, 1.0 / c, n->loc), n->loc);
}

static kf_value pow_two(kf_graph *g, const kf_node *n)
{
    return is_const(g, n->in[1], 2.0) ? kf_node_1(g, KF_OP_square, n->in[0], n->loc) : KF_NO_VALUE;
}

static kf_value undo_twice(kf_graph *g, const kf_node *n)
{
    const kf_node *inner = kf_value_is(g, n->in[0], n->op);

    return inner ? inner->in[0] : KF_NO_VALUE;
}

static kf_value ge_to_le(kf_graph *g, const kf_node *n)
{
    return kf_node_2(g, KF_OP_le, n->in[1], n->in[0], n->loc);
}

static kf_value gt_to_lt(kf_graph *g, const kf_node *n)
{
    return kf_node_2(g, KF_OP_lt, n->in[1], n->in[0], n->loc);
}

static kf_value select_not(kf_graph *g, const kf_node *n)
{
    const kf_node *p = kf_value_is(g, n->in[0], KF_OP_not);

    return p ? kf_node_3(g, KF_OP_select, p->in[0], n->in[2], n->in[1], n->loc) : KF_NO_VALUE;
}

static kf_value both_equal(kf_graph *g, const kf_node *n)
{
    (void)g;
    return n->in[0] == n->in[1] ? n->in[0] : KF_NO_VALUE;
}

static kf_value same_as_operand(kf_graph *g, const kf_node *n)
{
    return same_type(g, n, n->in[0]);
}

static kf_value reshape_reshape(kf_graph *g, const kf_node *n)
{
    const kf_node *inner = kf_value_is(g, n->in[0], KF_OP_reshape);

    if (!inner)
        return KF_NO_VALUE;
    kf_type t = *kf_value_type(g, n->out[0]);
    return kf_node_reshape(g, inner->in[0], t.rank, t.dim, n->loc);
}

static kf_value transpose_identity(kf_graph *g, const kf_node *n)
{
    const kf_ints *p = &KF_ATTR_OF(n, perm)->perm;

    (void)g;
    for (uint8_t i = 0; i < p->n; i++)
        if (p->v[i] != i)
            return KF_NO_VALUE;
    return n->in[0];
}

/* A rotation is linear: rope (x * number) is (rope x) * number. */
static kf_value rope_factor(kf_graph *g, const kf_node *n)
{
    const kf_node *f = kf_value_node(g, n->in[0]);
    double c;

    if (!f || (f->op != KF_OP_mul && f->op != KF_OP_div))
        return KF_NO_VALUE;
    uint32_t number = f->op == KF_OP_div || kf_value_const(g, f->in[1], &c) ? 1 : 0;
    if (!kf_value_const(g, f->in[number], &c))
        return KF_NO_VALUE;
    const kf_op op = f->op;
    const kf_loc loc = f->loc;
    kf_value in[] = {f->in[1 - number], n->in[1]}, factor = f->in[number];
    kf_value turned = kf_node_add(g, KF_OP_rope, n->attr, 2, in, NULL, n->loc);
    return kf_node_2(g, op, turned, factor, loc);
}

/* matmul a, (transpose b of its last two dims) */
static kf_value matmul_transposed(kf_graph *g, const kf_node *n)
{
    const kf_node *t = kf_value_is(g, n->in[1], KF_OP_transpose);

    if (!t)
        return KF_NO_VALUE;
    const kf_ints *p = &KF_ATTR_OF(t, perm)->perm;
    for (uint8_t i = 0; i + 2 < p->n; i++)
        if (p->v[i] != i)
            return KF_NO_VALUE;
    if (p->v[p->n - 1] != p->n - 2 || p->v[p->n - 2] != p->n - 1)
        return KF_NO_VALUE;
    return kf_node_matmul(g, n->in[0], t->in[0], !KF_ATTR_OF(n, matmul)->trans_b, n->loc);
}

/* A repeated repetition; repeating to the same dims is same_as_operand. */
static kf_value expand_expand(kf_graph *g, const kf_node *n)
{
    const kf_node *inner = kf_value_is(g, n->in[0], KF_OP_expand);

    return inner ? kf_node_add(g, KF_OP_expand, NULL, 1, inner->in, kf_value_type(g, n->out[0]),
                               n->loc)
                 : KF_NO_VALUE;
}

/* Functions and batched products broadcast by themselves: add (expand x), y. */
static kf_value drop_expand(kf_graph *g, const kf_node *n)
{
    const kf_type want = *kf_value_type(g, n->out[0]);

    for (uint32_t i = 0; i < n->n_in; i++) {
        const kf_node *e = kf_value_is(g, n->in[i], KF_OP_expand);
        kf_value in[3];
        kf_type out;
        uint8_t n_out;
        if (!e)
            continue;
        memcpy(in, n->in, n->n_in * sizeof *in);
        in[i] = e->in[0];
        if (kf_shape_infer(g, n->op, n->attr, NULL, n->n_in, in, NULL, &out, &n_out, NULL) &&
            kf_type_eq(&out, &want))
            return kf_node_add(g, n->op, n->attr, n->n_in, in, NULL, n->loc);
    }
    return KF_NO_VALUE;
}

/* A part of a weight is a weight. */
static kf_value slice_param(kf_graph *g, const kf_node *n)
{
    const kf_attr_slice *a = KF_ATTR_OF(n, slice);

    if (!kf_value_is_param(g, n->in[0]) || !is_float(g, n->in[0]))
        return KF_NO_VALUE;
    const kf_value_info v = g->values.data[n->in[0]];
    if (a->axis > 1 || (a->axis == 1 && v.type.rank != 2) || v.type.layout.n_splits)
        return KF_NO_VALUE;
    const kf_recipe *r =
        kf_recipe_slice(g->module->arena, g->recipes.data[v.def], a->axis, 1, a->start, a->stop);
    if (!kf_type_eq(&r->type, kf_value_type(g, n->out[0])))
        return KF_NO_VALUE;
    kf_str name = kf_strf(g->module->arena, "%.*s_%" PRId64 "_%" PRId64, KF_STR_ARG(v.name),
                          a->start, a->stop);
    return kf_graph_param_of(g, r, name, v.loc);
}

static kf_value turned_param(kf_graph *g, kf_value param)
{
    const kf_value_info v = g->values.data[param];
    const kf_recipe *r = kf_recipe_transpose(g->module->arena, g->recipes.data[v.def]);

    return kf_graph_param_of(g, r, v.name, v.loc);
}

static bool is_plain_matrix(const kf_graph *g, kf_value v)
{
    const kf_type *t = kf_value_type(g, v);

    return kf_value_is_param(g, v) && is_float(g, v) && t->rank == 2 && t->layout.n_splits == 0 &&
           !t->shard[0] && !t->shard[1];
}

static kf_value transpose_param(kf_graph *g, const kf_node *n)
{
    return is_plain_matrix(g, n->in[0]) ? turned_param(g, n->in[0]) : KF_NO_VALUE;
}

/* Kernels know one orientation of a weight; packing turns it. */
static kf_value matmul_param(kf_graph *g, const kf_node *n)
{
    if (KF_ATTR_OF(n, matmul)->trans_b || !is_plain_matrix(g, n->in[1]))
        return KF_NO_VALUE;
    kf_value turned = turned_param(g, n->in[1]);
    return kf_node_matmul(g, n->in[0], turned, true, n->loc);
}

/** A rule for every row of fn.def. */
#define ANY_FN KF_OP_COUNT

static const struct {
    kf_op op;
    rule_fn rewrite;
} rules[] = {
    {ANY_FN, drop_expand},
    {KF_OP_mul, mul_one},
    {KF_OP_mul, mul_sigmoid},
    {KF_OP_mul, mul_self},
    {KF_OP_add, add_zero},
    {KF_OP_div, div_one},
    {KF_OP_div, div_power_of_two},
    {KF_OP_pow, pow_two},
    {KF_OP_neg, undo_twice},
    {KF_OP_not, undo_twice},
    {KF_OP_ge, ge_to_le},
    {KF_OP_gt, gt_to_lt},
    {KF_OP_select, select_not},
    {KF_OP_and, both_equal},
    {KF_OP_or, both_equal},
    {KF_OP_convert, same_as_operand},
    {KF_OP_slice, same_as_operand},
    {KF_OP_reshape, same_as_operand},
    {KF_OP_reshape, reshape_reshape},
    {KF_OP_expand, same_as_operand},
    {KF_OP_expand, expand_expand},
    {KF_OP_transpose, transpose_identity},
    {KF_OP_rope, rope_factor},
    {KF_OP_reshape, kf_view_chain},
    {KF_OP_transpose, kf_view_chain},
    {KF_OP_matmul, matmul_transposed},
    {KF_OP_matmul, drop_expand},
    {KF_OP_slice, slice_param},
    {KF_OP_transpose, transpose_param},
    {KF_OP_matmul, matmul_param},
};

static bool apply_rules(kf_graph *g, uint32_t index)
{
    for (uint32_t r = 0; r < sizeof rules / sizeof rules[0]; r++) {
        kf_node n = g->nodes.data[index]; /* a copy: rewriting moves the array */
        if (n.op != rules[r].op && !(rules[r].op == ANY_FN && kf_op_is_fn(n.op)))
            continue;
        kf_value v = rules[r].rewrite(g, &n);
        if (v == KF_NO_VALUE)
            continue;
        kf_graph_replace(g, n.out[0], v);
        g->nodes.data[index].op = KF_OP_NONE;
        return true;
    }
    return false;
}

/* ---- slots ----------------------------------------------------------------------------------- */

/* Where an operand of a commutative function stands: parameters, loads, expressions, constants. */
static int slot_rank(const kf_slot_inst *in)
{
    static const int ranks[] = {
        [KF_SLOT_PARAM] = 0, [KF_SLOT_LOAD] = 1, [KF_SLOT_FN] = 2, [KF_SLOT_CONST] = 3};

    return ranks[in->op];
}

/* Structural order of two instructions of one body in which equal ones are shared: below 0 when |x|
 * stands first. Different numbers differ, so the descent follows one path. */
static int compare_insts(const kf_slot_inst *inst, uint32_t x, uint32_t y)
{
    const kf_slot_inst *a = &inst[x], *b = &inst[y];

    if (x == y)
        return 0;
    if (slot_rank(a) != slot_rank(b))
        return slot_rank(a) - slot_rank(b);
    if (a->op == KF_SLOT_CONST)
        return a->value < b->value ? -1 : a->value > b->value;
    if (a->op == KF_SLOT_FN && a->fn != b->fn)
        return (int)a->fn - (int)b->fn;
    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    if (a->n_args != b->n_args)
        return a->n_args - b->n_args;
    for (uint32_t i = 0; i < a->n_args; i++)
        if (a->arg[i] != b->arg[i])
            return compare_insts(inst, a->arg[i], b->arg[i]);
    return 0;
}

/* A function in its one spelling: ge and gt turned around, commutative operands in order. */
static void spell_inst(kf_slot_inst *in, const kf_slot_inst *before)
{
    bool turn = in->fn == KF_FN_ge || in->fn == KF_FN_gt;

    if (turn)
        in->fn = in->fn == KF_FN_ge ? KF_FN_le : KF_FN_lt;
    else
        turn = (kf_fn_infos[in->fn].traits & KF_COMM) &&
               compare_insts(before, in->arg[1], in->arg[0]) < 0;
    if (!turn)
        return;
    uint32_t first = in->arg[0];
    in->arg[0] = in->arg[1];
    in->arg[1] = first;
}

static const kf_slot *spell_slot(const kf_slot *s, kf_arena *arena)
{
    const char *names[KF_SLOT_MAX_PARAMS];
    kf_slot_inst *made = KF_NEW_N(arena, kf_slot_inst, s->n_insts);
    uint32_t *number = KF_NEW_N(arena, uint32_t, s->n_insts);

    for (uint8_t i = 0; i < s->n_params; i++)
        names[i] = kf_str_dup(arena, s->param[i]).ptr;
    kf_slot_builder *b = kf_slot_builder_create(arena, s->n_params, names, s->captures);
    for (uint32_t i = 0; i < s->n_insts; i++) {
        kf_slot_inst in = s->inst[i];
        for (uint32_t k = 0; k < in.n_args; k++)
            in.arg[k] = number[in.arg[k]];
        if (in.op == KF_SLOT_FN)
            spell_inst(&in, made);
        number[i] = in.op == KF_SLOT_CONST   ? kf_slot_const(b, in.value)
                    : in.op == KF_SLOT_PARAM ? kf_slot_param(b, in.index)
                    : in.op == KF_SLOT_LOAD ? kf_slot_load(b, in.index, in.arg, in.n_args)
                                            : kf_slot_fn(b, in.fn, in.arg[0], in.arg[1], in.arg[2]);
        made[number[i]] = in;
    }
    return kf_slot_finish(b, number[s->n_insts - 1]);
}

/* The bodies of a node's slots in one spelling. */
static bool spell_slots(kf_graph *g, kf_node *n, kf_arena *scratch)
{
    kf_attr_kind kind = kf_op_infos[n->op].attr;
    const kf_attr_info *info = &kf_attr_infos[kind];
    kf_arena *arena = g->module->arena;
    bool changed = false;

    for (uint32_t i = 0; i < info->n_fields; i++) {
        if (info->field[i].type != KF_FIELD_slot)
            continue;
        const kf_slot *s =
            *(const kf_field_slot *)(const void *)((const char *)n->attr + info->field[i].offset);
        if (!s || kf_slot_eq(s, spell_slot(s, scratch)))
            continue;
        char *copy = kf_attr_copy(arena, kind, n->attr, false);
        *(kf_field_slot *)(void *)(copy + info->field[i].offset) = spell_slot(s, arena);
        n->attr = copy;
        changed = true;
    }
    return changed;
}

static bool canonicalize_graph(kf_graph *g, kf_arena *scratch)
{
    bool progress = false, again = true;

    while (again) {
        again = false;
        for (uint32_t i = 0; i < g->nodes.len; i++)
            if (g->nodes.data[i].op != KF_OP_NONE)
                again |= apply_rules(g, i);
        if (again)
            kf_graph_compact(g);
        progress |= again;
    }
    for (uint32_t i = 0; i < g->nodes.len; i++)
        if (g->nodes.data[i].op != KF_OP_NONE && kf_op_infos[g->nodes.data[i].op].attr)
            progress |= spell_slots(g, &g->nodes.data[i], scratch);
    progress |= kf_order_operands(g, scratch);
    progress |= kf_order_nodes(g, scratch);
    kf_graph_compact(g);
    return progress;
}

bool kf_pass_canonicalize(kf_module *m, kf_pass_ctx *cx)
{
    bool progress = false;

    KF_EACH_FUNC(m, g)
    progress |= canonicalize_graph(g, cx->scratch);
    return progress;
}
