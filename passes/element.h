/* SPDX-License-Identifier: Apache-2.0 */
/* element - one element of a value as a scalar expression over index variables.
 *
 * A value of rank 2 at the indices (i, j) is an expression in i and j: reshapes, transposes and
 * broadcasts become arithmetic on indices, so that no layout is left to match; elementwise work
 * becomes scalar functions; matmul and row_reduce become sums and maxima over a bound index.
 *
 * Expressions are hash-consed and kept in one normal form, so that equal computations are equal
 * numbers however they were written:
 *   ADD   c + sum of (num/den) * part   no part is an ADD; the quotient keeps x / 3 exact
 *   MUL   product of part ^ power       no numbers; at most one exp (exponents are added) and one
 *                                       indicator (conditions are joined)
 *   exp of select(p, x, -inf) is indicator(p) * exp(x); indicator(p) is select(p, 1, 0)
 *   SUM   factors that do not depend on the bound index stand outside, of an exp too; hence a
 *         softmax is SUM(e^x v) / SUM(e^x) whatever was subtracted from x and wherever the division
 *         stands; conditions on indices stay inside
 * This is algebra over real numbers: it says what is computed, not how it is rounded.
 */
#ifndef KF_PASSES_ELEMENT_H
#define KF_PASSES_ELEMENT_H

#include "base/vec.h"
#include "ir/graph.h"

typedef uint32_t kf_el;
#define KF_NO_EL UINT32_MAX

/** Index variables are numbers below 64: sets of them are bits. */
typedef uint32_t kf_atom;
#define KF_MAX_ATOMS   64
#define KF_ATOM_BIT(a) (UINT64_C(1) << (a))

typedef enum kf_el_kind {
    KF_EL_NUM,
    KF_EL_VAR,   /* a named unknown, for whoever replaces parts of an expression */
    KF_EL_INDEX, /* start + sum of step * atom */
    KF_EL_LOAD,  /* element |arg| of |value|, which is not looked into */
    KF_EL_FN,    /* predicates are 0 or 1 */
    KF_EL_ADD,
    KF_EL_MUL,
    KF_EL_SUM, /* over |atom|, of arg[0] */
    KF_EL_MAX
} kf_el_kind;

typedef struct kf_el_part {
    kf_el el;
    double num, den; /* ADD: coefficient; MUL: num is the power, den is 1 */
} kf_el_part;

typedef struct kf_el_term {
    kf_atom atom;
    int64_t step;
} kf_el_term;

typedef struct kf_el_node {
    kf_el_kind kind;
    kf_fn fn;
    kf_value value;
    uint32_t var; /* VAR: which; SUM, MAX: the bound atom */
    double number;
    int64_t start;
    uint8_t n_arg, n_part, n_term;
    kf_el arg[KF_MAX_RANK];
    const kf_el_part *part;
    kf_el_term term[KF_MAX_RANK]; /* largest step first */
    uint64_t hash;                /* of the structure, free of numbering */
    uint64_t free;                /* atoms that it depends on */
    uint32_t height;              /* bound indices on the longest way down */
} kf_el_node;

/** A finite number that stands for -inf in a masked score, where it was taken for that. */
typedef struct kf_el_fill {
    bool used;
    bool added;   /* to the score, not put in its place */
    double value; /* the one nearest to zero */
} kf_el_fill;

/** An index that a view can express only when |atom| is split, with an inner digit of this size. */
typedef struct kf_el_split {
    bool wanted;
    kf_atom atom;
    int64_t inner;
} kf_el_split;

typedef struct kf_els {
    kf_arena *arena;
    const kf_graph *g;
    const uint64_t *value_hash; /* kf_graph_structure */
    KF_VEC(kf_el_node) nodes;
    uint32_t *table; /* open addressing: number + 1 */
    uint32_t table_cap;
    kf_dim atom[KF_MAX_ATOMS];
    uint32_t n_atoms;
    uint32_t bound_height[KF_MAX_ATOMS]; /* atoms of binders: their height; 0 for others */
    kf_el_fill fill;
    kf_el_split split;
    bool full; /* too much for the tables here: results are meaningless */
} kf_els;

/** Scores this far below the others count as masked, if kf_el_fill can be shown to be harmless. */
#define KF_EL_FILL (-1e9)

kf_els *kf_els_create(kf_arena *arena, const kf_graph *g);
kf_atom kf_el_new_atom(kf_els *e, kf_dim dim);

static inline const kf_el_node *kf_el_at(const kf_els *e, kf_el x)
{
    return &e->nodes.data[x];
}
static inline uint64_t kf_el_free(const kf_els *e, kf_el x)
{
    return e->nodes.data[x].free;
}

/* ---- building -------------------------------------------------------------------------------- */

kf_el kf_el_num(kf_els *e, double v);
kf_el kf_el_var(kf_els *e, uint32_t var);
kf_el kf_el_index(kf_els *e, int64_t start, uint8_t n, const kf_el_term *term);
kf_el kf_el_atom(kf_els *e, kf_atom a);
kf_el kf_el_load(kf_els *e, kf_value v, uint8_t n, const kf_el *at);
/** Any scalar function; unused operands are ignored. */
kf_el kf_el_fn(kf_els *e, kf_fn fn, kf_el a, kf_el b, kf_el c);
kf_el kf_el_scaled(kf_els *e, kf_el x, double factor);
kf_el kf_el_indicator(kf_els *e, kf_el pred);
/** SUM or MAX of |body| over |atom|. */
kf_el kf_el_bind(kf_els *e, kf_el_kind kind, kf_atom atom, kf_el body);

/* ---- indices (element_index.c) --------------------------------------------------------------- */

/** x = size * quotient + remainder, if no term straddles; else false, and e->split may tell why. */
bool kf_el_divide(kf_els *e, kf_el x, int64_t size, kf_el *quotient, kf_el *remainder);
/** a * step + b, both indices. */
kf_el kf_el_index_sum(kf_els *e, kf_el a, int64_t step, kf_el b);
/** Indices |at| of a reshape's result as indices of its operand. */
bool kf_el_reshaped(kf_els *e, const kf_type *to, const kf_type *from, const kf_el *at, kf_el *out);

/* ---- reading --------------------------------------------------------------------------------- */

bool kf_el_number(const kf_els *e, kf_el x, double *out);
/** fn(args) that is kept as such. */
bool kf_el_is_fn(const kf_els *e, kf_el x, kf_fn fn);

/** x = coefficient * e^exponent where |mask| * product of |part|^power. |exponent| and |mask| are
 * KF_NO_EL when absent. */
#define KF_MAX_PARTS 24
typedef struct kf_el_product {
    double num, den;
    kf_el exponent, mask;
    uint8_t n;
    kf_el_part part[KF_MAX_PARTS];
} kf_el_product;
void kf_el_factor(kf_els *e, kf_el x, kf_el_product *out);
kf_el kf_el_product_of(kf_els *e, kf_el_product *p);
/** Multiplies by x ^ power. */
void kf_el_product_mul(kf_els *e, kf_el_product *p, kf_el x, double power);

/** Conjuncts of a predicate, at most |max|; more count as one. */
uint32_t kf_el_conjuncts(const kf_els *e, kf_el pred, kf_el *out, uint32_t max);

/** |x| with parts replaced: |hook| is asked for each expression from the top and answers with what
 * stands in its place, or KF_NO_EL to look inside. */
typedef kf_el (*kf_el_hook)(kf_els *e, kf_el x, void *user);
kf_el kf_el_map(kf_els *e, kf_el x, kf_el_hook hook, void *user);
/** |x| with index |from| renamed |to|. */
kf_el kf_el_rename(kf_els *e, kf_el x, kf_atom from, kf_atom to);

/** Calls |visit| once for each expression in |x|, operands first. */
typedef void (*kf_el_visitor)(const kf_els *e, kf_el x, void *user);
void kf_el_visit(const kf_els *e, kf_el x, kf_el_visitor visit, void *user);

#endif
