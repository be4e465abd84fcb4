/* SPDX-License-Identifier: Apache-2.0 */
/* gen_motifs - what fusing passes look for, in several spellings, and what only resembles it. */
#include "tests/graphs/gen.h"

#include <math.h>

/* ---- reductions ------------------------------------------------------------------------------ */

static range acc_range(kf_acc acc, range v, double n)
{
    double most = fmax(fabs(v.lo), fabs(v.hi));

    switch (acc) {
    case KF_ACC_max:
    case KF_ACC_min:
        return (range){v.lo, v.hi, false};
    case KF_ACC_sum:
        return (range){n * v.lo, n * v.hi, false};
    case KF_ACC_sum_exp:
        return (range){1, n, false};
    case KF_ACC_argmax:
        return (range){0, n - 1, false};
    default: /* sums of squares */
        return (range){0, n * most * most, false};
    }
}

/* A random list that acc.def allows: what an accumulator needs stands before it. Which element is the
 * largest is for exact values to tell. */
static kf_accs random_accs(gen *g, bool exact)
{
    kf_accs a = {0};

    for (uint32_t tries = 1 + gen_pick(g, 3); tries > 0 && a.n + 1 < KF_MAX_ACCS; tries--) {
        kf_acc acc = (kf_acc)gen_pick(g, KF_ACC_COUNT);
        if (acc == KF_ACC_argmax && !exact)
            acc = KF_ACC_max;
        kf_acc needs = kf_acc_infos[acc].needs;
        bool has = false, has_needed = needs == KF_ACC_none;
        for (uint8_t i = 0; i < a.n; i++) {
            has |= a.acc[i] == acc;
            has_needed |= a.acc[i] == needs;
        }
        if (has)
            continue;
        if (!has_needed)
            a.acc[a.n++] = needs;
        a.acc[a.n++] = acc;
    }
    return a;
}

/* The largest column of a product, told apart by a bias that weighs more than what forms round
 * differently. */
static kf_value choice(gen *g, kf_value x)
{
    static const int64_t widths[] = {20, 64, 100, 200};
    kf_attr_row_reduce *a = KF_ATTR_NEW(g->arena, row_reduce);
    int64_t n = widths[gen_pick(g, 4)];
    kf_value y = gen_linear(g, x, n), bias = gen_vector(g, n);
    double most = g->range[y].hi;

    bias = gen_node(g, KF_OP_mul, NULL, 2, (kf_value[]){bias, gen_const(g, 8 * most)},
                    (range){0, 12 * most, false});
    y = gen_node(g, KF_OP_add, NULL, 2, (kf_value[]){y, bias},
                 (range){-13 * most, 13 * most, false});
    a->acc = (kf_accs){2, {KF_ACC_max, KF_ACC_argmax}};
    kf_value at =
        gen_node(g, KF_OP_row_reduce, a, 1, &y, acc_range(KF_ACC_argmax, g->range[y], (double)n));
    at = gen_node(g, KF_OP_mul, NULL, 2, (kf_value[]){at, gen_const(g, 1.0 / (double)n)},
                  (range){0, 1, false});
    return gen_fn(g, KF_FN_add, (kf_value[]){x, at});
}

/* A reduction with a random map, sometimes over captured vectors; without keep one value a row. Rows
 * of one value are added to |x|: a norm of such rows is nothing but rounding. */
kf_value gen_reduce(gen *g, kf_value x)
{
    static const char *const acc_names[] = {"a", "b", "c", "d"};
    const kf_type t = *gen_type(g, x);
    int64_t n = t.dim[t.rank - 1].size;
    kf_attr_row_reduce *a = KF_ATTR_NEW(g->arena, row_reduce);
    kf_value in[3] = {x, 0, 0};
    range out = {0};

    if (t.rank == 2 && gen_chance(g, 20))
        return choice(g, x);
    a->acc = random_accs(g, g->range[x].exact);
    a->keep = gen_chance(g, 65);
    gen_slot s = {.name = {"v"}, .param = {g->range[x]}, .length = n, .depth = 1 + gen_pick(g, 3)};
    s.param[0].exact = false;
    for (s.n_params = 1; s.n_params <= a->acc.n; s.n_params++) {
        s.name[s.n_params] = acc_names[s.n_params - 1];
        s.param[s.n_params] = acc_range(a->acc.acc[s.n_params - 1], g->range[x], (double)n);
    }
    if (a->keep && gen_chance(g, 40)) {
        s.name[s.n_params] = "i";
        s.param[s.n_params++] = (range){0, (double)n - 1, true};
        s.n_captures = (uint8_t)gen_pick(g, 3);
    }
    if (!a->keep) { /* the map sees accumulators only */
        s.first = 1;
        s.param[0] = s.param[1];
    }
    for (uint32_t i = 0; i < s.n_captures; i++)
        in[1 + i] = gen_vector(g, n);
    if (gen_chance(g, 90) || s.n_captures)
        a->map = gen_slot_make(g, &s, &out);
    if (a->map && !a->keep && kf_slot_uses_param(a->map, 0))
        a->map = NULL;
    if (!a->map)
        out = acc_range(a->acc.acc[a->acc.n - 1], g->range[x], (double)n);
    bool varies = a->keep && a->map && kf_slot_uses_param(a->map, 0);
    kf_value v = gen_node(g, KF_OP_row_reduce, a, 1u + s.n_captures, in, out);
    if (fmax(fabs(out.lo), fabs(out.hi)) > 20)
        v = gen_fn(g, KF_FN_tanh, &v);
    return varies ? v : gen_fn(g, KF_FN_add, (kf_value[]){x, v});
}

/* ---- norms ----------------------------------------------------------------------------------- */

typedef enum norm_kind { RMS, RMS_DIV, CENTRED, SOFTMAX, LARGEST, N_NORMS } norm_kind;

static const kf_accs norm_accs[N_NORMS] = {[RMS] = {1, {KF_ACC_sum_sq}},
                                           [RMS_DIV] = {1, {KF_ACC_sum_sq}},
                                           [CENTRED] = {2, {KF_ACC_sum, KF_ACC_sum_dev}},
                                           [SOFTMAX] = {2, {KF_ACC_max, KF_ACC_sum_exp}},
                                           [LARGEST] = {2, {KF_ACC_max, KF_ACC_min}}};

static uint32_t mean_plus_eps(kf_slot_builder *b, uint32_t sum, int64_t n, double eps)
{
    return kf_slot_fn(b, KF_FN_add, kf_slot_fn(b, KF_FN_div, sum, kf_slot_const(b, (double)n), 0),
                      kf_slot_const(b, eps), 0);
}

static uint32_t norm_map(kf_slot_builder *b, norm_kind kind, int64_t n, double eps)
{
    uint32_t v = kf_slot_param(b, 0), p = kf_slot_param(b, 1);

    if (kind == RMS)
        return kf_slot_fn(b, KF_FN_mul, v,
                          kf_slot_fn(b, KF_FN_rsqrt, mean_plus_eps(b, p, n, eps), 0, 0), 0);
    if (kind == RMS_DIV)
        return kf_slot_fn(b, KF_FN_div, v,
                          kf_slot_fn(b, KF_FN_sqrt, mean_plus_eps(b, p, n, eps), 0, 0), 0);
    uint32_t q = kf_slot_param(b, 2);
    if (kind == CENTRED)
        return kf_slot_fn(b, KF_FN_mul,
                          kf_slot_fn(b, KF_FN_sub, v,
                                     kf_slot_fn(b, KF_FN_div, p, kf_slot_const(b, (double)n), 0),
                                     0),
                          kf_slot_fn(b, KF_FN_rsqrt, mean_plus_eps(b, q, n, eps), 0, 0), 0);
    if (kind == SOFTMAX)
        return kf_slot_fn(b, KF_FN_div,
                          kf_slot_fn(b, KF_FN_exp, kf_slot_fn(b, KF_FN_sub, v, p, 0), 0, 0), q, 0);
    return kf_slot_fn(
        b, KF_FN_div, v,
        kf_slot_fn(b, KF_FN_add, kf_slot_const(b, 1), kf_slot_fn(b, KF_FN_sub, p, q, 0), 0), 0);
}

/* Op by op: square, sum, root, product. */
static kf_value norm_in_ops(gen *g, kf_value x, double eps)
{
    kf_attr_row_reduce *a = KF_ATTR_NEW(g->arena, row_reduce);
    double n = (double)gen_columns(g, x), most = fmax(fabs(g->range[x].lo), fabs(g->range[x].hi));
    bool squares = gen_chance(g, 50);
    kf_value sq =
        squares ? gen_node(g, KF_OP_square, NULL, 1, &x, (range){0, most * most, false}) : x;

    a->acc = (kf_accs){1, {squares ? KF_ACC_sum : KF_ACC_sum_sq}};
    kf_value s = gen_node(g, KF_OP_row_reduce, a, 1, &sq, (range){0, n * most * most, false});
    s = gen_chance(g, 50)
            ? gen_node(g, KF_OP_mul, NULL, 2, (kf_value[]){gen_const(g, 1 / n), s}, (range){0})
            : gen_node(g, KF_OP_div, NULL, 2, (kf_value[]){s, gen_const(g, n)}, (range){0});
    s = gen_node(g, KF_OP_add, NULL, 2, (kf_value[]){s, gen_const(g, eps)},
                 (range){eps, most * most + eps, false});
    range root = {0, 1 / sqrt(eps), false}, y = {-sqrt(n), sqrt(n), false};
    if (gen_chance(g, 50)) {
        s = gen_node(g, KF_OP_rsqrt, NULL, 1, &s, root);
        return gen_node(g, KF_OP_mul, NULL, 2, (kf_value[]){x, s}, y);
    }
    s = gen_node(g, KF_OP_sqrt, NULL, 1, &s, root);
    return gen_node(g, KF_OP_div, NULL, 2, (kf_value[]){x, s}, y);
}

static kf_value norm_of(gen *g, kf_value x, norm_kind kind, double eps)
{
    static const char *const names[] = {"v", "s", "t"};
    const kf_type t = *gen_type(g, x);
    int64_t n = t.dim[t.rank - 1].size;
    kf_attr_row_reduce *a = KF_ATTR_NEW(g->arena, row_reduce);

    a->acc = norm_accs[kind];
    a->keep = true;
    kf_slot_builder *b = kf_slot_builder_create(g->arena, 1 + a->acc.n, names, 0);
    a->map = kf_slot_finish(b, norm_map(b, kind, n, eps));
    double most = kind == SOFTMAX || kind == LARGEST ? 1 : sqrt((double)n);
    return gen_node(g, KF_OP_row_reduce, a, 1, &x, (range){-most, most, false});
}

kf_value gen_norm(gen *g, kf_value x)
{
    static const double eps_of[] = {1e-5, 1e-6, 1e-3, 0.1};
    norm_kind kind = gen_chance(g, 50) ? RMS : (norm_kind)gen_pick(g, N_NORMS);
    double eps = eps_of[gen_pick(g, 4)];

    if (gen_type(g, x)->rank == 2 && gen_chance(g, 20))
        return norm_in_ops(g, x, eps);
    return norm_of(g, x, kind, eps);
}

/* Rows times a vector of weights, either way round; plus another one in some cases. */
static kf_value gain(gen *g, kf_value x)
{
    kf_value v = gen_vector(g, gen_columns(g, x));

    x = gen_fn(g, KF_FN_mul, gen_pick(g, 2) ? (kf_value[]){x, v} : (kf_value[]){v, x});
    if (gen_chance(g, 25))
        x = gen_fn(g, KF_FN_add, (kf_value[]){x, gen_vector(g, gen_columns(g, x))});
    return x;
}

kf_value gen_layer_norm(gen *g, kf_value x)
{
    return gain(g, norm_of(g, x, CENTRED, 1e-5));
}

/* norm -> gain -> one or several products; sometimes with another reader in between. */
kf_value gen_norm_linear(gen *g, kf_value x)
{
    kf_value n = gen_norm(g, x), y = gen_chance(g, 75) ? gain(g, n) : n;
    uint32_t readers = 1 + gen_pick(g, 3);
    int64_t width = gen_chance(g, 60) ? gen_columns(g, x) : 8 * (1 + (int64_t)gen_pick(g, 3));
    kf_value sum = KF_NO_VALUE;

    for (uint32_t i = 0; i < readers; i++) {
        kf_value p = gen_keep(g, gen_linear(g, y, width));
        if (gen_chance(g, 30))
            p = gen_fn(g, KF_FN_add, (kf_value[]){p, gen_vector(g, width)});
        sum = sum == KF_NO_VALUE ? p : gen_fn(g, KF_FN_sub, (kf_value[]){sum, p});
    }
    if (gen_chance(g, 20))
        sum = gen_absorb(g, sum, gen_pick(g, 2) ? n : y);
    return sum;
}

/* ---- products that meet ---------------------------------------------------------------------- */

static kf_value activated(gen *g, kf_value v)
{
    if (gen_chance(g, 15))
        return gen_fn(g, KF_FN_mul, (kf_value[]){v, gen_fn(g, KF_FN_sigmoid, &v)});
    return gen_chance(g, 80) ? gen_word(g, v) : v;
}

/* act(x Wg) * (x Wu), either way round, packed in one weight, or with something in the way. */
kf_value gen_gated(gen *g, kf_value x)
{
    int64_t n = 8 * (1 + (int64_t)gen_pick(g, 3)) + (gen_chance(g, 20) ? 2 : 0);
    kf_value a, b;

    if (gen_chance(g, 25)) {
        kf_value both = gen_linear(g, x, 2 * n);
        a = kf_node_slice(g->g, both, 1, 0, n, KF_NO_LOC);
        b = kf_node_slice(g->g, both, 1, n, 2 * n, KF_NO_LOC);
        g->range[a] = g->range[b] = g->range[both];
    } else {
        kf_value other = gen_chance(g, 15) ? gen_like(g, x) : x;
        a = gen_linear(g, x, n);
        b = gen_linear(g, other, n);
    }
    if (gen_chance(g, 15))
        a = gen_fn(g, KF_FN_add, (kf_value[]){a, gen_vector(g, n)});
    kf_value left = activated(g, a);
    kf_value y =
        gen_fn(g, KF_FN_mul, gen_pick(g, 2) ? (kf_value[]){left, b} : (kf_value[]){b, left});
    return gen_chance(g, 15) ? gen_absorb(g, y, gen_pick(g, 2) ? a : left) : y;
}

/* Several products of one input; sometimes one weight is read twice. */
kf_value gen_siblings(gen *g, kf_value x)
{
    uint32_t n = 2 + gen_pick(g, 3);
    int64_t width = 4 * (1 + (int64_t)gen_pick(g, 4));
    kf_value sum = gen_keep(g, gen_linear(g, x, width));

    if (gen_chance(g, 20)) {
        const kf_node *first = kf_value_node(g->g, sum);
        kf_value w = first->in[1], again = gen_like(g, x);
        kf_value twice = kf_node_matmul(g->g, again, w, true, KF_NO_LOC);
        g->range[twice] = g->range[sum];
        sum = gen_fn(g, KF_FN_add, (kf_value[]){sum, twice});
    }
    for (uint32_t i = 1; i < n; i++) {
        kf_value p = gen_linear(g, x, width);
        if (gen_chance(g, 30))
            p = gen_word(g, p);
        sum = gen_fn(g, KF_FN_add, gen_pick(g, 2) ? (kf_value[]){sum, p} : (kf_value[]){p, sum});
    }
    return sum;
}

/* A tree of scalar functions. */
kf_value gen_tree(gen *g, kf_value x)
{
    for (uint32_t i = 1 + gen_pick(g, 6); i > 0; i--) {
        x = gen_word(g, x);
        if (gen_chance(g, 25))
            gen_keep(g, x);
    }
    return x;
}
