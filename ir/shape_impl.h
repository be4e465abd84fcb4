/* SPDX-License-Identifier: Apache-2.0 */
/* shape_impl - what the shape rules see and share; not for other files than shape.c and
 * shape_state.c. */
#ifndef KF_IR_SHAPE_IMPL_H
#define KF_IR_SHAPE_IMPL_H

#include "ir/shape.h"

/* What a rule sees and fills. */
typedef struct kf_shape_query {
    const kf_graph *g;
    const kf_module *m;
    kf_op op;
    const void *attr;
    const kf_graph *body;
    uint32_t n_in;
    const kf_value *values;
    const kf_type *given;
    kf_type *out;
    uint8_t n_out;
    kf_sbuf *why;
} kf_shape_query;

#define KF_SHAPE_ATTR(q, kind) ((const kf_attr_##kind *)(q)->attr)

/** Writes the sentence behind the op's name and returns false. */
bool kf_shape_fail(kf_shape_query *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *kf_shape_text(const kf_shape_query *q, const kf_type *t);
const kf_type *kf_shape_operand(const kf_shape_query *q, uint32_t i);
/** Appends a result. Returns true. */
bool kf_shape_result(kf_shape_query *q, kf_type t);
/** |dtype| with the dims of |t|, row-major, replicated. */
kf_type kf_shape_dims_of(const kf_type *t, kf_dtype dtype);

static inline bool kf_shape_is_float(const kf_type *t)
{
    return kf_dtype_infos[t->dtype].kind == KF_KIND_FLOAT;
}

/** Conditions on operand |i|, called |what| in the sentence. */
bool kf_shape_want_rank(kf_shape_query *q, uint32_t i, const char *what, uint8_t rank);
bool kf_shape_want_float(kf_shape_query *q, uint32_t i, const char *what);
/** A vector of integers; |len| (may be NULL) is the type whose dim 0 it must share. */
bool kf_shape_want_ints(kf_shape_query *q, uint32_t i, const char *what, const kf_type *len);
bool kf_shape_check_loads(kf_shape_query *q, const kf_slot *s);

/* The words of the shape column of ops.def: kf_shape_<word>, in shape.c and shape_state.c. */
bool kf_shape_elementwise(kf_shape_query *q);
#define OP(name, ins, attr, traits, shape, eval, shard, types, summary)                            \
    bool kf_shape_##shape(kf_shape_query *q);
#include "ir/ops.def"
#undef OP

#endif
