/* SPDX-License-Identifier: Apache-2.0 */
/* gen - random modules that are valid by construction.
 *
 * One seed is one module: an embedding, layers inline or repeated, a head; a decoder, an encoder or
 * both with a memory in between; some of them partly fused before. Layers are strings of
 * motifs: what passes look for (norms before matmuls, gated pairs, siblings, attention written out)
 * in many spellings, with near misses; and a soup of every op. Words of fn.def are drawn from the
 * table itself: where a function is defined, how large its values get and whether it jumps is
 * found by trying it, so a new row needs no change here.
 *
 * For each value an interval is kept that usual weights stay in. Operands are moved to where the
 * function is defined (|guard|), or left to the search for weights without NaN. Jumps (floor,
 * comparisons) act on exact values only: those that no form of the module rounds.
 */
#ifndef KF_TESTS_GRAPHS_GEN_H
#define KF_TESTS_GRAPHS_GEN_H

#include "ir/graph.h"

enum { GEN_MAX_VALUES = 1024, GEN_MAX_POOL = 24, GEN_MAX_KV = 2 };

typedef struct range {
    double lo, hi;
    bool exact;
} range;

typedef struct gen {
    uint64_t state;
    kf_arena *arena;
    kf_module *m;
    bool guard;
    bool centred; /* residual rows: only layer norms read them, only weights write them */
    kf_dtype weights, cache;
    uint32_t n_params;

    /* The function being written. */
    kf_graph *g;
    kf_dim rows; /* N, behind logit_rows R */
    kf_value pos, seq, seq_start, past, pages, table;
    kf_value kv[GEN_MAX_KV]; /* caches nothing was appended to yet */
    uint32_t n_kv;
    kf_value new_kv[GEN_MAX_KV]; /* results */
    kf_value memory[GEN_MAX_KV]; /* what an encoder left */
    uint32_t n_memory;
    kf_value memory_len, memory_pages;
    bool ahead;                  /* an encoder: rows may see later ones */
    kf_value pool[GEN_MAX_POOL]; /* f32 values by rows, to draw operands from */
    uint32_t n_pool;
    range *range; /* by value */
} gen;

/** The module of |seed|. Without |guard| some functions get arguments from outside their domain. */
kf_module *gen_module(kf_arena *arena, uint64_t seed);

/* ---- choosing -------------------------------------------------------------------------------- */

uint32_t gen_pick(gen *g, uint32_t n);
/** True in |percent| of the cases. */
bool gen_chance(gen *g, uint32_t percent);
/** A value of the pool. */
kf_value gen_any(gen *g);
/** The pool's value of the type of |v|, another one than |v| if there is one; else |v|. */
kf_value gen_like(gen *g, kf_value v);

/* ---- nodes ----------------------------------------------------------------------------------- */

const kf_type *gen_type(const gen *g, kf_value v);
int64_t gen_columns(const gen *g, kf_value v);
/** Records |v| as drawable. */
kf_value gen_keep(gen *g, kf_value v);
kf_value gen_arg(gen *g, kf_type type, const char *name, range r);
/** A weight of its own tensor; of f32 in a quarter of the cases where weights are narrow. */
kf_value gen_param(gen *g, uint8_t rank, const kf_dim *dims, kf_dtype dtype, const char *stem);
kf_value gen_vector(gen *g, int64_t n);
/** A matrix [n,k], most often a tensor, else a recipe over some. */
kf_value gen_weight(gen *g, int64_t n, int64_t k, kf_dtype dtype);
kf_value gen_node(gen *g, kf_op op, const void *attr, uint32_t n, const kf_value *in, range r);
kf_value gen_const(gen *g, double value);
kf_value gen_reshape(gen *g, kf_value v, uint8_t rank, const kf_dim *dims);
kf_value gen_transpose(gen *g, kf_value v, kf_ints perm);
/** x times a weight of its own, [rows, n]; its own weight in |out_w| if not NULL. */
kf_value gen_linear(gen *g, kf_value x, int64_t n);
/** |v| as [rows, columns], whatever its rank and wherever its rows are. */
kf_value gen_flat(gen *g, kf_value v);
/** |y| + something small that depends on all of |v|: |v| gets another user. */
kf_value gen_absorb(gen *g, kf_value y, kf_value v);

/* ---- scalar functions ------------------------------------------------------------------------ */

/** What to do to operands so that |fn| is defined, tame and without jumps on them. */
typedef enum gen_wrap { WRAP_NONE, WRAP_ABS, WRAP_TANH, WRAP_TANH_ABS } gen_wrap;
typedef struct gen_call {
    bool ok;
    gen_wrap wrap[3];
    range result;
} gen_call;

/** Bit i: operand i is a predicate. */
uint32_t gen_takes_preds(kf_fn fn);
gen_call gen_plan_call(kf_fn fn, const range *arg, bool guard);
range gen_wrapped(range r, gen_wrap w);
/** fn(in...) on values of the graph, operands wrapped as needed; in[0] if that is impossible. */
kf_value gen_fn(gen *g, kf_fn fn, const kf_value *in);
/** A random function with |x| among its operands. */
kf_value gen_word(gen *g, kf_value x);
/** A predicate over exact values that broadcasts with |like|. */
kf_value gen_pred(gen *g, kf_value like);

/** A random slot over parameters of these ranges. Loads take captures of |n_captures| vectors with
 * |length| elements, indexed by exact parameters within |length|. */
typedef struct gen_slot {
    uint8_t n_params;
    const char *name[KF_SLOT_MAX_PARAMS];
    range param[KF_SLOT_MAX_PARAMS];
    uint8_t n_captures;
    int64_t length;
    bool pred;             /* the result is a predicate */
    uint32_t first, depth; /* parameter |first| is used at least; depth of the tree */
} gen_slot;
const kf_slot *gen_slot_make(gen *g, const gen_slot *s, range *out);

/* ---- motifs: rows [rows, n] in, rows of any width out ---------------------------------------- */

kf_value gen_norm(gen *g, kf_value x);
/** A layer norm with a gain, perhaps a bias. */
kf_value gen_layer_norm(gen *g, kf_value x);
kf_value gen_norm_linear(gen *g, kf_value x);
kf_value gen_gated(gen *g, kf_value x);
kf_value gen_siblings(gen *g, kf_value x);
kf_value gen_tree(gen *g, kf_value x);
kf_value gen_reduce(gen *g, kf_value x);
kf_value gen_soup(gen *g, kf_value x);
/** Takes a cache of kv[], or asks a memory; |x| if there is none left. */
kf_value gen_attention(gen *g, kf_value x);
/** |kv| with keys and values made of |x|. */
kf_value gen_append(gen *g, kf_value kv, kf_value x, bool rotate);

/* ---- whole modules --------------------------------------------------------------------------- */

/** |v| with |n| columns. */
kf_value gen_fit(gen *g, kf_value v, int64_t n);
/** Too large to be left as it is. */
bool gen_is_large(const gen *g, kf_value v);
/** |count| motifs one behind the other, most of them as residual branches. */
kf_value gen_body(gen *g, kf_value x, uint32_t count);
/** Lets some passes form regions before the module is given to anybody. */
void gen_regions(gen *g);

#endif
