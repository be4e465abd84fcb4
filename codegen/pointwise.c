/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/pointwise.h"

#include "base/check.h"
#include "codegen/fn_emit.h"

kf_pw kf_pw_make(kf_arena *arena, kb *b, const kf_graph *g, const kf_pw_leaves *leaves)
{
    kf_pw pw = {.arena = arena, .b = b, .g = g, .kv_layers = 1};
    if (leaves)
        pw.leaves = *leaves;
    return pw;
}

/* ---- forms of values ----------------------------------------------------------------------------
 */

kb_elem kf_pw_elem(kf_dtype dtype)
{
    switch (dtype) {
    case KF_DTYPE_f32:
        return KB_F32;
    case KF_DTYPE_bf16:
        return KB_BF16;
    case KF_DTYPE_f16:
        return KB_F16;
    case KF_DTYPE_i32:
        return KB_I32;
    case KF_DTYPE_pred:
        return KB_I8;
    case KF_DTYPE_COUNT:
        break;
    }
    KF_ASSERT(false, "dtype out of range");
}

kb_value kf_pw_as_number(kb *b, kf_dtype dtype, kb_value v)
{
    const uint32_t lanes = kb_lanes_of(v);
    if (dtype == KF_DTYPE_i32)
        return kb_sitofp(b, v);
    if (dtype == KF_DTYPE_pred)
        return kb_select(b, v, kb_f32(b, lanes, 1.0f), kb_f32(b, lanes, 0.0f));
    return v;
}

/* |v| is f32; the result has the form of |dtype|. */
static kb_value from_number(kb *b, kf_dtype dtype, kb_value v)
{
    if (dtype == KF_DTYPE_i32)
        return kb_fptosi(b, v);
    if (dtype == KF_DTYPE_pred)
        return kb_fcmp(b, KB_NE, v, kb_f32(b, kb_lanes_of(v), 0.0f));
    return v;
}

static kb_value convert(kb *b, kf_dtype from, kf_dtype to, kb_value v)
{
    if (from == to)
        return v;
    v = kf_pw_as_number(b, from, v);
    if (to == KF_DTYPE_bf16)
        return kb_to_f32(b, kb_f32_to_bf16_bits(b, v));
    if (to == KF_DTYPE_f16) {
        const uint32_t lanes = kb_lanes_of(v);
        kb_value tmp = kb_stack(b, lanes * 2, 32);
        kb_store_f32(b, KB_F16, v, tmp, 2);
        return kb_load_f32(b, KB_F16, lanes, tmp, 2);
    }
    return from_number(b, to, v);
}

/* ---- memory ---------------------------------------------------------------------------------- */

kb_value kf_pw_dim(kf_pw *pw, kf_dim d)
{
    if (!pw->b)
        return NULL;
    if (kf_dim_is_static(d))
        return kb_i64(pw->b, d.size);
    return kb_addi(pw->b, kb_dim(pw->b, d.sym - 1), d.size);
}

/* Storage position by the splits of a layout; dims are static. */
static kf_coord laid_out(kf_pw *pw, const kf_type *t, const kf_coord *ix)
{
    int64_t covered[KF_MAX_RANK]; /* elements of the dim that the splits so far leave to the next */
    kf_coord at = kf_coord_const(pw->b, 0);
    for (uint32_t i = 0; i < t->rank; i++)
        covered[i] = 0;
    for (uint32_t i = 0; i < t->layout.n_splits; i++) {
        const uint32_t d = t->layout.split[i].dim;
        const int64_t block = t->layout.split[i].block;
        const int64_t whole = covered[d] ? covered[d] : t->dim[d].size;
        kf_coord part = covered[d] ? kf_coord_modi(pw->b, ix[d], covered[d]) : ix[d];
        at = kf_coord_muli(pw->b, at, (whole + block - 1) / block);
        at = kf_coord_add(pw->b, at, kf_coord_divi(pw->b, part, block));
        covered[d] = block;
    }
    return at;
}

/* Row-major (or laid out) position of |ix| in |type|, in elements. */
static kf_coord offset_of(kf_pw *pw, const kf_type *type, const kf_coord *ix)
{
    if (type->layout.n_splits)
        return laid_out(pw, type, ix);
    kf_coord at = kf_coord_const(pw->b, 0);
    for (uint32_t i = 0; i < type->rank; i++) {
        const kf_dim d = type->dim[i];
        if (i > 0 && kf_dim_is_static(d))
            at = kf_coord_muli(pw->b, at, d.size);
        else if (i > 0)
            at = kf_coord_scale(pw->b, at, kf_pw_dim(pw, d));
        at = i == 0 ? ix[0] : kf_coord_add(pw->b, at, ix[i]);
    }
    return at;
}

/* Every second element: two vectors and a shuffle instead of a gather. The pair of the last element
 * is inside the array because the offset's parity is known. */
static kb_value load_pairs(kf_pw *pw, kb_elem elem, kb_value base, kf_coord at)
{
    kb *b = pw->b;
    const int32_t odd = at.rest % 2;
    int32_t mask[64];
    kb_value p = kb_index(b, base, elem, kb_addi(b, at.v, -odd));
    kb_value both = kb_load(b, elem, 2 * at.lanes, p, kb_elem_bytes(elem));
    for (uint32_t i = 0; i < at.lanes; i++)
        mask[i] = (int32_t)(2 * i) + odd;
    return kb_shuffle(b, both, both, mask, at.lanes);
}

static kb_value load_raw(kf_pw *pw, kb_elem elem, kb_value base, kf_coord at)
{
    kb *b = pw->b;
    if (at.kind == KF_COORD_UNIFORM)
        return kb_load(b, elem, 1, kb_index(b, base, elem, at.v), kb_elem_bytes(elem));
    if (at.kind == KF_COORD_RAMP && at.stride == 1)
        return kb_load(b, elem, at.lanes, kb_index(b, base, elem, at.v), kb_elem_bytes(elem));
    if (at.kind == KF_COORD_RAMP && at.stride == 2 && at.divisor % 2 == 0)
        return load_pairs(pw, elem, base, at);
    return kb_gather(b, elem, base, kf_coord_lanes(b, at));
}

kb_value kf_pw_load(kf_pw *pw, kf_dtype dtype, kb_value base, kf_coord at)
{
    const kb_elem elem = kf_pw_elem(dtype);
    kb_value v = load_raw(pw, elem, base, at);
    if (dtype == KF_DTYPE_i32)
        return v;
    if (dtype == KF_DTYPE_pred)
        return kb_icmp(pw->b, KB_NE, v, kb_int(pw->b, KB_I8, kb_lanes_of(v), 0));
    return kb_to_f32(pw->b, v);
}

void kf_pw_store(kf_pw *pw, kf_dtype from, kb_value value, kf_dtype dtype, kb_value base,
                 kf_coord at)
{
    kb *b = pw->b;
    const kb_elem elem = kf_pw_elem(dtype);
    KF_ASSERT(at.kind == KF_COORD_UNIFORM || (at.kind == KF_COORD_RAMP && at.stride == 1),
              "results are stored along their rows");
    if (kb_lanes_of(value) < at.lanes)
        value = kb_splat(b, value, at.lanes);
    value = convert(b, from, dtype, value);
    kb_value p = kb_index(b, base, elem, at.v);
    if (dtype == KF_DTYPE_pred)
        value = kb_zext(b, value, KB_I8);
    if (dtype == KF_DTYPE_pred || dtype == KF_DTYPE_i32)
        kb_store(b, value, p, kb_elem_bytes(elem));
    else
        kb_store_f32(b, elem, value, p, kb_elem_bytes(elem));
}

/* ---- what was emitted ------------------------------------------------------------------------ */

bool kf_pw_any_later(const kf_coord *ix, uint32_t rank)
{
    for (uint32_t i = 0; i < rank; i++)
        if (ix[i].kind == KF_COORD_LATER)
            return true;
    return false;
}

uint32_t kf_pw_lanes_of(const kf_coord *ix, uint32_t rank)
{
    for (uint32_t i = 0; i < rank; i++)
        if (ix[i].lanes > 1)
            return ix[i].lanes;
    return 1;
}

kf_pw_memo *kf_pw_find(kf_pw *pw, kf_value v, uint32_t what, const kf_coord *ix, uint32_t rank)
{
    for (uint32_t i = pw->memo.len; i-- > 0;) {
        kf_pw_memo *m = &pw->memo.data[i];
        if (m->value != v || m->what != what)
            continue;
        bool same = true;
        for (uint32_t d = 0; d < rank && same; d++)
            same = kf_coord_same(&m->ix[d], &ix[d]);
        if (same)
            return m;
    }
    return NULL;
}

void kf_pw_remember(kf_pw *pw, kf_value v, uint32_t what, const kf_coord *ix, uint32_t rank,
                    uint32_t n, const kb_value *out)
{
    kf_pw_memo m = {.value = v, .what = what, .rank = rank};
    for (uint32_t i = 0; i < rank; i++)
        m.ix[i] = ix[i];
    for (uint32_t i = 0; i < n; i++)
        m.out[i] = out[i];
    kf_vec_push(pw->arena, &pw->memo, m);
}

/* ---- values ---------------------------------------------------------------------------------- */

void kf_pw_broadcast(kf_pw *pw, const kf_type *from, const kf_type *to, const kf_coord *ix,
                     kf_coord *out)
{
    const uint32_t skip = to->rank - from->rank;
    for (uint32_t i = 0; i < from->rank; i++) {
        const bool one = kf_dim_is_one(from->dim[i]);
        out[i] = one ? kf_coord_const(pw->b, 0) : ix[skip + i];
    }
}

static kb_value elementwise(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    const kf_type *type = kf_value_type(pw->g, n->out[0]);
    kb_value arg[3];
    bool known = pw->b != NULL;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const kf_type *t = kf_value_type(pw->g, n->in[i]);
        kf_coord at[KF_MAX_RANK];
        kf_pw_broadcast(pw, t, type, ix, at);
        arg[i] = kf_pw_value(pw, n->in[i], at);
        known = known && arg[i];
        if (known && t->dtype == KF_DTYPE_i32)
            arg[i] = kb_sitofp(pw->b, arg[i]);
    }
    if (!known || kf_pw_any_later(ix, type->rank))
        return NULL;
    const kf_fn fn = (kf_fn)n->op;
    kb_value v = kf_emit_fn(pw->b, fn, arg);
    if (kf_fn_infos[fn].result == KF_FN_RESULT_pred)
        return type->dtype == KF_DTYPE_pred ? v : kf_pw_as_number(pw->b, KF_DTYPE_pred, v);
    return from_number(pw->b, type->dtype, v);
}

static kb_value argument(kf_pw *pw, kf_value v, const kf_coord *ix)
{
    const kf_value_info *info = &pw->g->values.data[v];
    kf_coord at = offset_of(pw, &info->type, ix);
    if (!pw->b || at.kind == KF_COORD_LATER)
        return NULL;
    return kf_pw_load(pw, info->type.dtype, kb_ptr(pw->b, info->def), at);
}

static kb_value constant(kf_pw *pw, const kf_node *n)
{
    if (!pw->b)
        return NULL;
    const kf_dtype dtype = kf_value_type(pw->g, n->out[0])->dtype;
    const double v = KF_ATTR_OF(n, constant)->value;
    if (dtype == KF_DTYPE_i32)
        return kb_int(pw->b, KB_I32, 1, (int64_t)v);
    return from_number(pw->b, dtype, kb_f32(pw->b, 1, (float)v));
}

static kb_value iota(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    const kf_coord x = ix[KF_ATTR_OF(n, axis)->axis];
    if (!pw->b || x.kind == KF_COORD_LATER)
        return NULL;
    const kf_dtype dtype = kf_value_type(pw->g, n->out[0])->dtype;
    kb_value v = kb_trunc(pw->b, kf_coord_lanes(pw->b, x), KB_I32);
    return convert(pw->b, KF_DTYPE_i32, dtype, v);
}

static kb_value conversion(kf_pw *pw, const kf_node *n, const kf_coord *ix)
{
    kb_value v = kf_pw_value(pw, n->in[0], ix);
    const kf_dtype from = kf_value_type(pw->g, n->in[0])->dtype;
    return v ? convert(pw->b, from, kf_value_type(pw->g, n->out[0])->dtype, v) : NULL;
}

static kb_value definition(kf_pw *pw, kf_value v, const kf_coord *ix)
{
    const kf_node *n = kf_value_node(pw->g, v);
    if (!n)
        return argument(pw, v, ix);
    if (kf_op_is_fn(n->op))
        return elementwise(pw, n, ix);
    switch (n->op) {
    case KF_OP_const:
        return constant(pw, n);
    case KF_OP_iota:
        return iota(pw, n, ix);
    case KF_OP_convert:
        return conversion(pw, n, ix);
    case KF_OP_matmul:
        return kf_pw_matmul(pw, n, ix);
    case KF_OP_row_reduce:
        return kf_pw_row_reduce(pw, n, ix);
    case KF_OP_row_stat:
        return kf_pw_row_stat(pw, n, ix);
    case KF_OP_rope:
        return kf_pw_rope(pw, n, ix);
    case KF_OP_rope_table:
        return kf_pw_rope_table(pw, n, ix);
    case KF_OP_kv_read:
        return kf_pw_kv_read(pw, n, ix);
    case KF_OP_kv_index:
        return kf_pw_kv_index(pw, n, ix);
    default:
        KF_ASSERT(kf_op_infos[n->op].traits & KF_INDEX, "a pointwise body has pointwise ops only");
        return kf_pw_index_op(pw, n, v, ix);
    }
}

kb_value kf_pw_value(kf_pw *pw, kf_value v, const kf_coord *ix)
{
    const uint32_t rank = kf_value_type(pw->g, v)->rank;
    const kf_pw_memo *known = kf_pw_find(pw, v, KF_PW_VALUE, ix, rank);
    if (known)
        return known->out[0];
    kb_value out = NULL;
    if (!pw->leaves.is_leaf || !pw->leaves.is_leaf(pw->leaves.user, v))
        out = definition(pw, v, ix);
    else if (pw->b && !kf_pw_any_later(ix, rank))
        out = pw->leaves.load(pw, pw->leaves.user, v, ix);
    kf_pw_remember(pw, v, KF_PW_VALUE, ix, rank, 1, &out);
    return out;
}

kb_value kf_pw_number(kf_pw *pw, kf_value v, const kf_coord *ix, uint32_t lanes)
{
    kb_value x = kf_pw_value(pw, v, ix);
    if (!x)
        return NULL;
    x = kf_pw_as_number(pw->b, kf_value_type(pw->g, v)->dtype, x);
    return kb_lanes_of(x) < lanes ? kb_splat(pw->b, x, lanes) : x;
}

bool kf_pw_feasible(const kf_pw *pw, kf_value v, const kf_coord *ix)
{
    kf_pw dry = kf_pw_make(pw->arena, NULL, pw->g, &pw->leaves);
    kf_coord at[KF_MAX_RANK];
    for (uint32_t i = 0; i < kf_value_type(pw->g, v)->rank; i++) {
        at[i] = ix[i];
        at[i].v = NULL;
    }
    kf_pw_value(&dry, v, at);
    return !dry.infeasible;
}
