/* SPDX-License-Identifier: Apache-2.0 */
/* graph - the Graph form: a module of isolated functions, each SSA over tensors.
 *
 * A kf_graph is a list of nodes in topological order with its own values; functions and the bodies
 * of region ops are both kf_graphs. Values are dense 32-bit ids; passes keep side arrays indexed by
 * id. There are no use lists: kf_graph_uses computes them. Everything lives in the module's arena
 * and is not thread safe.
 */
#ifndef KF_IR_GRAPH_H
#define KF_IR_GRAPH_H

#include "base/diag.h"
#include "base/vec.h"
#include "ir/attr.h"
#include "ir/recipe.h"

enum {
    KF_EW = 1 << 0,   /* elementwise with broadcast */
    KF_COMM = 1 << 1, /* commutative in its two operands */
    KF_CONTRACT = 1 << 2,
    KF_ROWRED = 1 << 3,
    KF_INDEX = 1 << 4, /* result elements are elements of the first operand */
    KF_STATE = 1 << 5,
    KF_CALL = 1 << 6,
    KF_REGION = 1 << 7,
    KF_LEAF = 1 << 8,
    KF_CHEAP = 1 << 9,   /* an instruction or so: may be computed again instead of stored */
    KF_KINK = 1 << 10,   /* a scalar function that is not smooth everywhere */
    KF_PARTIAL = 1 << 11 /* one that is not a finite number for every moderate number */
};

/** Rows of fn.def come first (KF_OP_add == (kf_op)KF_FN_add, ORDER), then ops.def. */
typedef enum kf_op {
#define FN(name, arity, result, traits, eval, emit, oracle, summary) KF_OP_##name,
#include "ir/fn.def"
#undef FN
#define OP(name, ins, attr, traits, shape, eval, shard, types, summary) KF_OP_##name,
#include "ir/ops.def"
#undef OP
    KF_OP_COUNT,
    KF_OP_NONE = KF_OP_COUNT /* a deleted node */
} kf_op;

typedef struct kf_op_info {
    const char *name;
    int8_t n_in; /* -1: variadic */
    kf_attr_kind attr;
    uint32_t traits;
    const char *types; /* operands and results, for readers; empty for rows of fn.def */
    const char *summary;
} kf_op_info;

extern const kf_op_info kf_op_infos[KF_OP_COUNT];
bool kf_op_find(kf_str name, kf_op *out_op);
static inline bool kf_op_is_fn(kf_op op)
{
    return op < (kf_op)KF_FN_COUNT;
}

typedef uint32_t kf_value;
#define KF_NO_VALUE    UINT32_MAX
#define KF_MAX_RESULTS 8

typedef struct kf_graph kf_graph;
typedef struct kf_module kf_module;

typedef enum kf_value_kind { KF_VALUE_ARG, KF_VALUE_PARAM, KF_VALUE_NODE } kf_value_kind;

typedef struct kf_value_info {
    kf_value_kind kind;
    uint32_t def;    /* ARG: argument number; PARAM: parameter number; NODE: node index */
    uint32_t result; /* NODE: which result */
    kf_type type;
    kf_str name; /* arguments and parameters: printed; node results: empty (printed as %number) */
    kf_loc loc;
} kf_value_info;

typedef struct kf_node {
    kf_op op;
    uint8_t n_out;
    uint32_t n_in;
    kf_value *in;
    kf_value out[KF_MAX_RESULTS]; /* dense ids */
    const void *attr;             /* struct of kf_op_infos[op].attr, never NULL unless attr none */
    kf_graph *body;               /* region: its ops; else NULL */
    kf_str name;                  /* region: kernel name hint, else empty */
    kf_loc loc;
    uint32_t
        serial; /* given when the node is made, kept by copies: which one it was, for reports */
} kf_node;

struct kf_graph {
    kf_module *module;
    kf_str name; /* functions: "layer.decode"; bodies: empty */
    kf_loc loc;
    KF_VEC(kf_value) args;
    KF_VEC(kf_value) params; /* weights; empty in region bodies (weights are operands there) */
    KF_VEC(const kf_recipe *) recipes; /* parallel to params */
    KF_VEC(kf_value_info) values;
    KF_VEC(kf_node) nodes;
    KF_VEC(kf_value) results;
};

/** A symbolic dim with inclusive bounds. */
typedef struct kf_sym {
    kf_str name;
    int64_t lo, hi;
} kf_sym;

/** ORDER: the dim symbols every decoder module has, in this order (run-time dim[] of kernels too);
 * M, keys of a memory (`stored`), follows in modules that have one. */
enum {
    KF_SYM_S,
    KF_SYM_N,
    KF_SYM_R,
    KF_SYM_K,
    KF_SYM_STANDARD,
    KF_SYM_M = KF_SYM_STANDARD,
    KF_SYM_MEMORY /* how many a module with a memory has */
};

struct kf_module {
    kf_arena *arena;
    kf_str name;
    KF_VEC(kf_sym) syms;
    KF_VEC(kf_str) mesh;      /* axis names */
    KF_VEC(kf_str) files;     /* loc.file - 1 indexes this */
    KF_VEC(kf_graph *) funcs; /* entry functions are named main or main.<phase> */
    uint32_t serials;         /* nodes made so far */
};

/* ---- building -------------------------------------------------------------------------------- */

kf_module *kf_module_create(kf_arena *arena, kf_str name);
uint32_t kf_module_add_sym(kf_module *m, kf_str name, int64_t lo, int64_t hi);
/** File number for kf_loc.file; equal paths share one. */
uint32_t kf_module_add_file(kf_module *m, kf_str path);
/** |loc| of the module as |d| numbers its files; no place where |d| does not hold the file. */
kf_loc kf_module_diag_loc(const kf_module *m, const kf_diags *d, kf_loc loc);
kf_graph *kf_module_add_func(kf_module *m, kf_str name);
/** NULL if there is none. */
kf_graph *kf_module_find_func(const kf_module *m, kf_str name);
/** "layer" of "layer.decode": the name without that of the phase. */
kf_str kf_func_base_name(kf_str name);

/** An empty graph that is not (yet) a function of the module: region bodies. */
kf_graph *kf_graph_create(kf_module *m);
kf_value kf_graph_add_arg(kf_graph *g, kf_type type, kf_str name, kf_loc loc);
kf_value kf_graph_add_param(kf_graph *g, const kf_recipe *recipe, kf_str name, kf_loc loc);
/** The parameter that |recipe| makes: one that is there, or a new one. */
kf_value kf_graph_param_of(kf_graph *g, const kf_recipe *recipe, kf_str name, kf_loc loc);
void kf_graph_add_result(kf_graph *g, kf_value v);

/** Appends a node and infers its result types through the op's shape function. Operands and attr
 * are copied (attr NULL = defaults). Aborts on a broken rule: callers check user input first.
 * Returns the first result; further results are the following ids. |given| is the result type for
 * ops whose shape is given (iota, reshape, expand, convert), else NULL. region and repeat take
 * their types from |body| / the callee. */
kf_value kf_node_add(kf_graph *g, kf_op op, const void *attr, uint32_t n_in, const kf_value *in,
                     const kf_type *given, kf_loc loc);
kf_value kf_node_add_region(kf_graph *g, kf_family family, kf_graph *body, kf_str name,
                            uint32_t n_in, const kf_value *in, kf_loc loc);

/* Short forms used by passes and the frontend. */
kf_value kf_node_1(kf_graph *g, kf_op op, kf_value a, kf_loc loc);
kf_value kf_node_2(kf_graph *g, kf_op op, kf_value a, kf_value b, kf_loc loc);
kf_value kf_node_3(kf_graph *g, kf_op op, kf_value a, kf_value b, kf_value c, kf_loc loc);
kf_value kf_node_const(kf_graph *g, double value, kf_loc loc);
kf_value kf_node_reshape(kf_graph *g, kf_value a, uint8_t rank, const kf_dim *dims, kf_loc loc);
kf_value kf_node_transpose(kf_graph *g, kf_value a, kf_ints perm, kf_loc loc);
kf_value kf_node_slice(kf_graph *g, kf_value a, int64_t axis, int64_t start, int64_t stop,
                       kf_loc loc);
kf_value kf_node_matmul(kf_graph *g, kf_value a, kf_value b, bool trans_b, kf_loc loc);

/* ---- reading --------------------------------------------------------------------------------- */

static inline const kf_type *kf_value_type(const kf_graph *g, kf_value v)
{
    return &g->values.data[v].type;
}
/** The node that defines |v|, or NULL for arguments and parameters. Invalidated by adding nodes. */
kf_node *kf_value_node(const kf_graph *g, kf_value v);
/** The defining node if its op is |op|, else NULL. */
kf_node *kf_value_is(const kf_graph *g, kf_value v, kf_op op);
/** True and the number if |v| is a const. */
bool kf_value_const(const kf_graph *g, kf_value v, double *out);
/** For each value the number of uses (operands and results), in a new array of values.len entries.
 */
uint32_t *kf_graph_use_counts(const kf_graph *g, kf_arena *arena);
#define KF_ATTR_OF(node, kind) ((const kf_attr_##kind *)(node)->attr)

/* ---- changing -------------------------------------------------------------------------------- */

/** Every use of |old| (operands and results) becomes |new_value|; the defining node stays. */
void kf_graph_replace(kf_graph *g, kf_value old, kf_value new_value);
/** Stable topological order (by first position), after nodes were appended out of order. */
void kf_graph_sort(kf_graph *g);
/** Sorts if needed and removes nodes without used results (KF_OP_NONE ones too), renumbers values
 * densely in order: arguments, parameters, node results. Unused parameters go; arguments stay.
 * Returns true if something went or the order is another one. */
bool kf_graph_compact(kf_graph *g);
/** Deep copy into the same module under |name| (not added to funcs). */
kf_graph *kf_graph_clone(const kf_graph *g, kf_str name);
/** Copies node |n| of |from| into |to| with operands mapped through |map| (indexed by from's
 * values; filled with the new results). */
kf_value kf_graph_copy_node(kf_graph *to, const kf_graph *from, const kf_node *n, kf_value *map);
/** The repeat's callee, region bodies included: everything deep. */
kf_module *kf_module_clone(const kf_module *m, kf_arena *arena);

#endif
