/* SPDX-License-Identifier: Apache-2.0 */
/* element_trace - see element_trace.h. */
#include "passes/element_trace.h"

#include "passes/match.h"

#include <math.h>
#include <string.h>

enum { MAX_DEPTH = 400, MAX_SPLITS = 8 };

typedef enum reach { WHOLE, OPERAND } reach;

typedef struct memo {
    kf_value value;
    reach how;
    uint8_t n;
    kf_el at[KF_MAX_RANK];
    kf_el result;
    struct memo *next;
} memo;

typedef struct tracer {
    kf_els *e;
    const kf_graph *g;
    memo **memo; /* per value */
    bool *visited, *scores;
    uint32_t level;
} tracer;

static kf_el trace(tracer *t, kf_value v, const kf_el *at, reach how);

bool kf_dim_is_keys(kf_dim d)
{
    return d.sym == KF_SYM_K + 1 || d.sym == KF_SYM_M + 1;
}

static bool has_keys(const kf_type *t)
{
    for (uint8_t i = 0; t->kind == KF_TYPE_TENSOR && i < t->rank; i++)
        if (kf_dim_is_keys(t->dim[i]))
            return true;
    return false;
}

static kf_el zero(tracer *t)
{
    return kf_el_index(t->e, 0, 0, NULL);
}

/* ---- index ops ------------------------------------------------------------------------------- */

/* Indices of an operand that is broadcast to the result: the last dims belong together. */
static void through_broadcast(tracer *t, const kf_type *to, const kf_type *from, const kf_el *at,
                              kf_el *out)
{
    for (uint8_t d = 0; d < from->rank; d++)
        out[d] = kf_dim_is_one(from->dim[d]) ? zero(t) : at[d + to->rank - from->rank];
}

/* x / c with c a whole number, or x alone (c = 1), for an index x. */
static bool whole_quotient(const kf_els *e, kf_el x, kf_el *out, int64_t *c)
{
    const kf_el_node *n = kf_el_at(e, x);

    *c = 1;
    *out = x;
    if (n->kind == KF_EL_ADD) {
        if (n->n_part != 1 || n->number != 0)
            return false;
        double by = n->part[0].den / n->part[0].num;
        if (by < 1 || floor(by) != by || by > 1e9)
            return false;
        *c = (int64_t)by;
        *out = n->part[0].el;
    }
    return kf_el_at(e, *out)->kind == KF_EL_INDEX;
}

/* A number that is used as an index: floor(index / c) and whole multiples are indices again. */
static kf_el as_index(tracer *t, kf_el x)
{
    const kf_el_node n = *kf_el_at(t->e, x);
    kf_el inner, quotient, remainder;
    int64_t c;
    double v;

    if (kf_el_number(t->e, x, &v) && v >= 0 && v < 1e9 && floor(v) == v)
        return kf_el_index(t->e, (int64_t)v, 0, NULL);
    if (n.kind == KF_EL_FN && n.fn == KF_FN_floor && whole_quotient(t->e, n.arg[0], &inner, &c) &&
        kf_el_divide(t->e, inner, c, &quotient, &remainder))
        return quotient;
    if (n.kind != KF_EL_ADD || floor(n.number) != n.number || fabs(n.number) > 1e9)
        return x;
    kf_el sum = kf_el_index(t->e, (int64_t)n.number, 0, NULL);
    for (uint8_t i = 0; i < n.n_part; i++) {
        kf_el part = as_index(t, n.part[i].el);
        double step = n.part[i].num / n.part[i].den;
        if (kf_el_at(t->e, part)->kind != KF_EL_INDEX || floor(step) != step || fabs(step) > 1e9)
            return x;
        sum = kf_el_index_sum(t->e, part, (int64_t)step, sum);
    }
    return sum;
}

static bool all_alike(const kf_node *n)
{
    for (uint32_t i = 1; i < n->n_in; i++)
        if (n->in[i] != n->in[0])
            return false;
    return n->n_in > 0;
}

/* Copies of one value joined along a dim: the index repeats. */
static bool through_copies(tracer *t, const kf_node *n, const kf_el *at, kf_el *out)
{
    int64_t axis = KF_ATTR_OF(n, axis)->axis;
    const kf_type *from = kf_value_type(t->g, n->in[0]);
    kf_el round;

    memcpy(out, at, from->rank * sizeof *at);
    if (from->dim[axis].sym)
        return false;
    return all_alike(n) && kf_el_divide(t->e, at[axis], from->dim[axis].size, &round, &out[axis]);
}

/* Where the elements of an index op's result come from; false if that cannot be said. */
static bool through_view(tracer *t, const kf_node *n, const kf_el *at, kf_el *out)
{
    const kf_type *to = kf_value_type(t->g, n->out[0]), *from = kf_value_type(t->g, n->in[0]);
    const kf_ints *perm;
    const kf_attr_slice *slice;

    switch (n->op) {
    case KF_OP_reshape:
        return kf_el_reshaped(t->e, to, from, at, out);
    case KF_OP_expand:
        through_broadcast(t, to, from, at, out);
        return true;
    case KF_OP_transpose:
        perm = &KF_ATTR_OF(n, perm)->perm;
        for (uint8_t d = 0; d < to->rank; d++)
            out[perm->v[d]] = at[d];
        return true;
    case KF_OP_slice:
        slice = KF_ATTR_OF(n, slice);
        memcpy(out, at, to->rank * sizeof *at);
        if (kf_el_at(t->e, at[slice->axis])->kind != KF_EL_INDEX)
            return false;
        out[slice->axis] =
            kf_el_index_sum(t->e, at[slice->axis], 1, kf_el_index(t->e, slice->start, 0, NULL));
        return true;
    case KF_OP_concat:
        return through_copies(t, n, at, out);
    default:
        return false;
    }
}

static kf_el trace_gather(tracer *t, const kf_node *n, const kf_el *at, reach how)
{
    uint8_t ids = kf_value_type(t->g, n->in[1])->rank, rank = kf_value_type(t->g, n->in[0])->rank;
    kf_el from[KF_MAX_RANK];

    from[0] = as_index(t, trace(t, n->in[1], at, WHOLE));
    for (uint8_t d = 1; d < rank; d++)
        from[d] = at[ids + d - 1];
    return trace(t, n->in[0], from, how);
}

/* Slices of single rows of one value, joined: the index of the part as the index of the row, for
 * rows that follow i / c. */
static kf_el trace_joined(tracer *t, const kf_node *n, kf_value v, const kf_el *at, reach how)
{
    int64_t axis = KF_ATTR_OF(n, axis)->axis, copies = 0;
    kf_value base = KF_NO_VALUE;

    for (uint32_t i = 0; i < n->n_in; i++) {
        const kf_node *part = kf_value_is(t->g, n->in[i], KF_OP_slice);
        const kf_attr_slice *s = part ? KF_ATTR_OF(part, slice) : NULL;
        bool fits =
            s && s->axis == axis && s->stop == s->start + 1 && (i == 0 || part->in[0] == base);
        if (!fits)
            return kf_el_load(t->e, v, kf_value_type(t->g, v)->rank, at);
        base = part->in[0];
        copies += s->start == 0;
        t->visited[t->g->values.data[n->in[i]].def] = true;
    }
    for (uint32_t i = 0; i < n->n_in && copies; i++)
        if (KF_ATTR_OF(kf_value_node(t->g, n->in[i]), slice)->start != i / copies)
            copies = 0;
    kf_el from[KF_MAX_RANK], within;
    memcpy(from, at, kf_value_type(t->g, v)->rank * sizeof *at);
    if (!copies || !kf_el_divide(t->e, at[axis], copies, &from[axis], &within))
        return kf_el_load(t->e, v, kf_value_type(t->g, v)->rank, at);
    return trace(t, base, from, how);
}

/* ---- contractions and reductions ------------------------------------------------------------- */

static kf_el trace_matmul(tracer *t, const kf_node *n, kf_value v, const kf_el *at)
{
    const kf_type *a = kf_value_type(t->g, n->in[0]), *b = kf_value_type(t->g, n->in[1]),
                  *to = kf_value_type(t->g, v);
    kf_dim inner = a->dim[a->rank - 1];
    kf_el at_a[KF_MAX_RANK], at_b[KF_MAX_RANK];

    if (!kf_dim_is_keys(inner) && !has_keys(to))
        return kf_el_load(t->e, v, to->rank, at);
    kf_atom atom = kf_el_new_atom(t->e, inner);
    through_broadcast(t, to, a, at, at_a);
    through_broadcast(t, to, b, at, at_b);
    bool trans_b = KF_ATTR_OF(n, matmul)->trans_b;
    at_a[a->rank - 1] = kf_el_atom(t->e, atom);
    at_a[a->rank - 2] = at[to->rank - 2];
    at_b[b->rank - (trans_b ? 1 : 2)] = kf_el_atom(t->e, atom);
    at_b[b->rank - (trans_b ? 2 : 1)] = at[to->rank - 1];
    reach how = kf_dim_is_keys(inner) ? WHOLE : OPERAND;
    t->scores[t->g->values.data[v].def] = how == OPERAND;
    kf_el x = trace(t, n->in[0], at_a, how), y = trace(t, n->in[1], at_b, how);
    return kf_el_bind(t->e, KF_EL_SUM, atom, kf_el_fn(t->e, KF_FN_mul, x, y, 0));
}

/* One accumulator over |atom| of |x|; |max| is what it needs. NO_EL for those that no chain over
 * keys is made of. */
static kf_el accumulate(tracer *t, kf_acc acc, kf_atom atom, kf_el x)
{
    kf_els *e = t->e;

    switch (acc) {
    case KF_ACC_max:
        return kf_el_bind(e, KF_EL_MAX, atom, x);
    case KF_ACC_min:
        return kf_el_scaled(e, kf_el_bind(e, KF_EL_MAX, atom, kf_el_scaled(e, x, -1)), -1);
    case KF_ACC_sum:
        return kf_el_bind(e, KF_EL_SUM, atom, x);
    case KF_ACC_sum_sq:
        return kf_el_bind(e, KF_EL_SUM, atom, kf_el_fn(e, KF_FN_square, x, 0, 0));
    case KF_ACC_sum_exp: {
        kf_el top = kf_el_bind(e, KF_EL_MAX, atom, x);
        kf_el shifted = kf_el_fn(e, KF_FN_sub, x, top, 0);
        return kf_el_bind(e, KF_EL_SUM, atom, kf_el_fn(e, KF_FN_exp, shifted, 0, 0));
    }
    default:
        return KF_NO_EL;
    }
}

/* The map of a row_reduce with its parameters in place. */
static kf_el apply_map(tracer *t, const kf_node *n, const kf_slot *s, const kf_el *param)
{
    kf_el *done = KF_NEW_N(t->e->arena, kf_el, s->n_insts);

    for (uint32_t i = 0; i < s->n_insts; i++) {
        const kf_slot_inst *in = &s->inst[i];
        kf_el arg[KF_MAX_RANK] = {0};
        for (uint8_t k = 0; k < in->n_args; k++)
            arg[k] = done[in->arg[k]];
        switch (in->op) {
        case KF_SLOT_CONST:
            done[i] = kf_el_num(t->e, in->value);
            break;
        case KF_SLOT_PARAM:
            done[i] = param[in->index];
            break;
        case KF_SLOT_FN:
            done[i] = kf_el_fn(t->e, in->fn, arg[0], arg[1], arg[2]);
            break;
        case KF_SLOT_LOAD:
            for (uint8_t k = 0; k < in->n_args; k++)
                arg[k] = as_index(t, arg[k]);
            done[i] = trace(t, n->in[n->n_in - s->captures + in->index], arg, WHOLE);
            break;
        }
    }
    return done[s->n_insts - 1];
}

static kf_el trace_reduce(tracer *t, const kf_node *n, kf_value v, const kf_el *at)
{
    const kf_attr_row_reduce *a = KF_ATTR_OF(n, row_reduce);
    const kf_type *from = kf_value_type(t->g, n->in[0]);
    kf_el param[KF_MAX_ACCS + 2], row[KF_MAX_RANK];
    uint8_t last = (uint8_t)(from->rank - 1);

    if (!has_keys(from))
        return kf_el_load(t->e, v, from->rank, at);
    kf_atom atom = kf_el_new_atom(t->e, from->dim[last]);
    t->scores[t->g->values.data[v].def] = !kf_dim_is_keys(from->dim[last]);
    memcpy(row, at, from->rank * sizeof *at);
    param[0] = a->keep ? trace(t, n->in[0], at, WHOLE) : zero(t);
    row[last] = kf_el_atom(t->e, atom);
    kf_el each = trace(t, n->in[0], row, WHOLE);
    for (uint8_t i = 0; i < a->acc.n; i++) {
        param[1 + i] = accumulate(t, a->acc.acc[i], atom, each);
        if (param[1 + i] == KF_NO_EL)
            return kf_el_load(t->e, v, from->rank, at);
    }
    param[1 + a->acc.n] = at[last];
    return a->map ? apply_map(t, n, a->map, param) : param[a->acc.n];
}

/* ---- elementwise ----------------------------------------------------------------------------- */

static bool is_whole(const kf_els *e, kf_el x)
{
    const kf_el_node *n = kf_el_at(e, x);

    if (n->kind == KF_EL_NUM)
        return floor(n->number) == n->number;
    if (n->kind == KF_EL_LOAD)
        return kf_value_type(e->g, n->value)->dtype == KF_DTYPE_i32;
    if (n->kind == KF_EL_FN && n->fn == KF_FN_select)
        return is_whole(e, n->arg[1]) && is_whole(e, n->arg[2]);
    if (n->kind == KF_EL_FN && (n->fn == KF_FN_min || n->fn == KF_FN_max))
        return is_whole(e, n->arg[0]) && is_whole(e, n->arg[1]);
    if (n->kind == KF_EL_FN && (n->fn == KF_FN_relu || n->fn == KF_FN_abs))
        return is_whole(e, n->arg[0]);
    bool whole = n->kind != KF_EL_ADD || floor(n->number) == n->number;
    for (uint8_t i = 0; whole && i < n->n_part; i++)
        whole = n->part[i].den == 1 && floor(n->part[i].num) == n->part[i].num &&
                (n->kind == KF_EL_ADD || n->part[i].num > 0) && is_whole(e, n->part[i].el);
    return whole && (n->kind == KF_EL_INDEX || n->n_part || kf_el_is_fn(e, x, KF_FN_floor));
}

/* A conversion that changes no value, or a predicate as a number; NO_EL where it rounds. */
static kf_el converted(tracer *t, kf_el x, kf_dtype from, kf_dtype to)
{
    if (from == to)
        return x;
    if (from == KF_DTYPE_pred)
        return kf_el_indicator(t->e, x);
    if (to == KF_DTYPE_pred)
        return kf_el_fn(t->e, KF_FN_ne, x, kf_el_num(t->e, 0), 0);
    if (to == KF_DTYPE_f32 || (to == KF_DTYPE_i32 && is_whole(t->e, x)))
        return x;
    return KF_NO_EL;
}

static kf_el trace_fn(tracer *t, const kf_node *n, const kf_el *at)
{
    const kf_type *to = kf_value_type(t->g, n->out[0]);
    kf_el arg[3] = {0};

    for (uint32_t i = 0; i < n->n_in; i++) {
        kf_el from[KF_MAX_RANK];
        through_broadcast(t, to, kf_value_type(t->g, n->in[i]), at, from);
        arg[i] = trace(t, n->in[i], from, WHOLE);
    }
    return kf_el_fn(t->e, (kf_fn)n->op, arg[0], arg[1], arg[2]);
}

/* The number that every element of |v| is. */
static bool is_number_everywhere(tracer *t, kf_value v, double *out)
{
    const kf_type *type = kf_value_type(t->g, v);
    kf_el at[KF_MAX_RANK];

    for (uint8_t d = 0; d < type->rank; d++) {
        if (!kf_dim_is_one(type->dim[d]))
            return false;
        at[d] = zero(t);
    }
    return type->kind == KF_TYPE_TENSOR && kf_el_number(t->e, trace(t, v, at, WHOLE), out);
}

/* x * number, x / number, -x: what stands before a matmul can stand behind it. NO_EL for other
 * work. */
static kf_el trace_factor(tracer *t, const kf_node *n, const kf_el *at)
{
    kf_el from[KF_MAX_RANK];
    double c = -1;

    for (uint32_t i = 0; i < n->n_in; i++) {
        bool mul = n->op == KF_OP_mul || (n->op == KF_OP_div && i == 1);
        if (n->op != KF_OP_neg && (!mul || !is_number_everywhere(t, n->in[i], &c)))
            continue;
        kf_value x = n->in[n->op == KF_OP_neg ? 0 : 1 - i];
        through_broadcast(t, kf_value_type(t->g, n->out[0]), kf_value_type(t->g, x), at, from);
        kf_fn fn = n->op == KF_OP_neg ? KF_FN_mul : (kf_fn)n->op;
        return kf_el_fn(t->e, fn, trace(t, x, from, OPERAND), kf_el_num(t->e, c), 0);
    }
    return KF_NO_EL;
}

static kf_el trace_node(tracer *t, const kf_node *n, kf_value v, const kf_el *at, reach how)
{
    kf_el from[KF_MAX_RANK], x = KF_NO_EL,
                             leaf = kf_el_load(t->e, v, kf_value_type(t->g, v)->rank, at);
    bool keys = has_keys(kf_value_type(t->g, v));
    double c;

    if (kf_value_const(t->g, v, &c))
        return kf_el_num(t->e, c);
    if (kf_op_is_fn(n->op))
        x = how == WHOLE ? trace_fn(t, n, at) : trace_factor(t, n, at);
    else if (n->op == KF_OP_iota && how == WHOLE)
        x = at[KF_ATTR_OF(n, axis)->axis];
    else if (n->op == KF_OP_gather && (how == WHOLE || keys))
        x = trace_gather(t, n, at, how);
    else if (n->op == KF_OP_matmul && how == WHOLE)
        x = trace_matmul(t, n, v, at);
    else if (n->op == KF_OP_row_reduce && how == WHOLE)
        x = trace_reduce(t, n, v, at);
    else if (n->op == KF_OP_convert && how == WHOLE)
        x = converted(t, trace(t, n->in[0], at, WHOLE), kf_value_type(t->g, n->in[0])->dtype,
                      kf_value_type(t->g, v)->dtype);
    else if (n->op == KF_OP_concat && !all_alike(n) && keys)
        x = trace_joined(t, n, v, at, how);
    else if ((n->op != KF_OP_slice || how == WHOLE || keys) && through_view(t, n, at, from))
        x = trace(t, n->in[0], from, how);
    return x == KF_NO_EL ? leaf : x;
}

static kf_el trace(tracer *t, kf_value v, const kf_el *at, reach how)
{
    const kf_node *n = kf_value_node(t->g, v);
    uint8_t rank = kf_value_type(t->g, v)->rank;

    if (!n || t->e->full || t->level >= MAX_DEPTH) {
        t->e->full |= t->level >= MAX_DEPTH;
        return kf_el_load(t->e, v, rank, at);
    }
    for (const memo *m = t->memo[v]; m; m = m->next)
        if (m->how == how && !memcmp(m->at, at, rank * sizeof *at))
            return m->result;
    t->level++;
    t->visited[t->g->values.data[v].def] = true;
    kf_el x = trace_node(t, n, v, at, how);
    t->level--;
    memo *m = KF_NEW(t->e->arena, memo);
    *m = (memo){.value = v, .how = how, .n = rank, .result = x, .next = t->memo[v]};
    memcpy(m->at, at, rank * sizeof *at);
    t->memo[v] = m;
    return x;
}

/* ---- the traced value ------------------------------------------------------------------------ */

typedef struct digits {
    uint8_t n[KF_MAX_RANK];
    int64_t size[KF_MAX_RANK][KF_MAX_RANK];
} digits;

static digits whole_dims(const kf_type *type)
{
    digits d = {0};

    for (uint8_t i = 0; i < type->rank; i++) {
        d.n[i] = !kf_dim_is_one(type->dim[i]);
        d.size[i][0] = type->dim[i].size; /* 0: the dim's symbol */
    }
    return d;
}

static void make_atoms(kf_els *e, const kf_type *type, const digits *d, kf_el_dims *out, kf_el *at)
{
    for (uint8_t i = 0; i < type->rank; i++) {
        kf_el_term term[KF_MAX_RANK];
        int64_t step = 1;
        out->n[i] = d->n[i];
        for (uint8_t k = d->n[i]; k-- > 0;) {
            kf_dim dim = type->dim[i].sym ? type->dim[i] : kf_dim_static(d->size[i][k]);
            out->digit[i][k] = kf_el_new_atom(e, dim);
            term[k] = (kf_el_term){out->digit[i][k], step};
            step *= d->size[i][k];
        }
        at[i] = kf_el_index(e, 0, d->n[i], term);
    }
}

/* Splits the digit that is |atom|; false if it is no digit of the value or cannot be split. */
static bool split_digit(digits *d, const kf_el_dims *dims, kf_atom atom, int64_t inner)
{
    for (uint8_t i = 0; i < KF_MAX_RANK; i++) {
        for (uint8_t k = 0; k < dims->n[i]; k++) {
            if (dims->digit[i][k] != atom || d->n[i] == KF_MAX_RANK)
                continue;
            memmove(&d->size[i][k + 1], &d->size[i][k],
                    (size_t)(d->n[i] - k) * sizeof d->size[i][k]);
            d->size[i][k] /= inner;
            d->size[i][k + 1] = inner;
            d->n[i]++;
            return true;
        }
    }
    return false;
}

bool kf_el_trace_value(kf_arena *arena, const kf_graph *g, kf_value v, kf_el_trace *out)
{
    const kf_type *type = kf_value_type(g, v);
    digits d = whole_dims(type);

    for (uint32_t round = 0; round <= MAX_SPLITS; round++) {
        kf_el at[KF_MAX_RANK];
        tracer t = {.e = kf_els_create(arena, g),
                    .g = g,
                    .memo = KF_NEW_N(arena, memo *, g->values.len),
                    .visited = KF_NEW_N(arena, bool, g->nodes.len),
                    .scores = KF_NEW_N(arena, bool, g->nodes.len)};
        *out = (kf_el_trace){.e = t.e, .visited = t.visited, .scores = t.scores};
        make_atoms(t.e, type, &d, &out->dims, at);
        out->element = trace(&t, v, at, WHOLE);
        if (!t.e->split.wanted || !split_digit(&d, &out->dims, t.e->split.atom, t.e->split.inner))
            return !t.e->full;
    }
    return false;
}
