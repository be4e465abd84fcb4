/* SPDX-License-Identifier: Apache-2.0 */
/* parse_type - types, locations and the head of a module: what .kir text says of values,
 * not ops. */
#include "ir/parse_impl.h"
#include "ir/text.h"

#include <inttypes.h>

static const int64_t max_dim = INT64_C(1) << 40;
static const int64_t max_elems = INT64_C(1) << 48;

/* ---- types ----------------------------------------------------------------------------------- */

static bool parse_axis(kf_lexer *lx, const kf_module *m, uint8_t *out)
{
    kf_str name;
    kf_loc loc = lx->tok.loc;
    if (!kf_lex_ident(lx, &name))
        return false;
    for (uint32_t i = 0; i < m->mesh.len; i++) {
        if (kf_str_eq(m->mesh.data[i], name)) {
            *out = (uint8_t)(i + 1);
            return true;
        }
    }
    return kf_lex_fail(lx, KF_E0502, loc, "unknown mesh axis '%.*s'", KF_STR_ARG(name));
}

static bool parse_dim(kf_lexer *lx, const kf_module *m, kf_dim *out)
{
    if (lx->tok.kind == KF_TOK_NUMBER) {
        *out = (kf_dim){0, 0};
        return kf_lex_int(lx, 1, max_dim, &out->size);
    }
    kf_str name;
    kf_loc loc = lx->tok.loc;
    if (!kf_lex_ident(lx, &name))
        return false;
    for (uint32_t i = 0; i < m->syms.len; i++) {
        if (kf_str_eq(m->syms.data[i].name, name)) {
            *out = kf_dim_sym(i);
            return true;
        }
    }
    return kf_lex_fail(lx, KF_E0502, loc, "unknown dim '%.*s'", KF_STR_ARG(name));
}

/* "d1/16" into a split. */
static bool parse_split(kf_lexer *lx, uint8_t rank, kf_split *out)
{
    kf_str name;
    kf_loc loc = lx->tok.loc;
    int64_t block = 1;
    if (!kf_lex_ident(lx, &name))
        return false;
    if (name.len != 2 || name.ptr[0] != 'd' || name.ptr[1] < '0' || name.ptr[1] >= '0' + rank)
        return kf_lex_fail(lx, KF_E0501, loc, "a layout names dims d0, d1, ...; not '%.*s'",
                           KF_STR_ARG(name));
    if (kf_lex_accept(lx, "/") && !kf_lex_int(lx, 1, UINT16_MAX, &block))
        return false;
    *out = (kf_split){(uint8_t)(name.ptr[1] - '0'), (uint32_t)block};
    return true;
}

/* The last split of each dim has to be 1 and no split may be larger than the one before it. */
static bool check_layout(kf_lexer *lx, kf_loc loc, const kf_type *t)
{
    uint32_t last[KF_MAX_RANK] = {0};
    for (uint8_t i = 0; i < t->layout.n_splits; i++) {
        const kf_split *s = &t->layout.split[i];
        if (last[s->dim] && last[s->dim] % s->block)
            return kf_lex_fail(lx, KF_E0503, loc, "a block divides the block of its dim before it");
        last[s->dim] = s->block;
    }
    for (uint8_t d = 0; d < t->rank; d++) {
        if (last[d] != 1)
            return kf_lex_fail(lx, KF_E0503, loc, "the last block of each dim is 1");
    }
    return true;
}

static bool parse_layout(kf_lexer *lx, kf_type *t)
{
    kf_loc loc = lx->tok.loc;
    if (!kf_lex_accept(lx, "<"))
        return true;
    do {
        if (kf_lex_accept(lx, "swizzle")) {
            int64_t swizzle;
            if (!kf_lex_int(lx, 1, UINT8_MAX, &swizzle))
                return false;
            t->layout.swizzle = (uint8_t)swizzle;
            break;
        }
        if (t->layout.n_splits == KF_MAX_SPLITS)
            return kf_lex_fail(lx, KF_E0501, loc, "a layout has at most %d splits", KF_MAX_SPLITS);
        if (!parse_split(lx, t->rank, &t->layout.split[t->layout.n_splits++]))
            return false;
    } while (kf_lex_accept(lx, ","));
    return kf_lex_expect(lx, ">") && check_layout(lx, loc, t);
}

static bool parse_cache(kf_lexer *lx, const kf_module *m, kf_type *t)
{
    int64_t page, heads, head_dim, layers = 1;
    uint8_t axis = 0;
    kf_str dtype_name;
    kf_dtype dtype;
    kf_loc loc;
    if (!kf_lex_expect(lx, "<") || !kf_lex_expect(lx, "page") ||
        !kf_lex_int(lx, 1, 1 << 20, &page) || !kf_lex_expect(lx, ",") ||
        !kf_lex_int(lx, 1, 1 << 16, &heads))
        return false;
    if (kf_lex_accept(lx, "@") && !parse_axis(lx, m, &axis))
        return false;
    if (!kf_lex_expect(lx, "x") || !kf_lex_int(lx, 1, 1 << 16, &head_dim) ||
        !kf_lex_expect(lx, ","))
        return false;
    loc = lx->tok.loc;
    if (!kf_lex_ident(lx, &dtype_name))
        return false;
    if (!kf_dtype_find(dtype_name, &dtype))
        return kf_lex_fail(lx, KF_E0502, loc, "unknown type '%.*s'", KF_STR_ARG(dtype_name));
    if (kf_lex_accept(lx, ",") &&
        (!kf_lex_expect(lx, "layers") || !kf_lex_int(lx, 1, 1 << 16, &layers)))
        return false;
    *t = kf_type_kvcache(dtype, (uint32_t)page, (uint32_t)heads, (uint32_t)head_dim,
                         (uint32_t)layers);
    t->shard[0] = axis;
    return kf_lex_expect(lx, ">");
}

static bool parse_dims(kf_lexer *lx, const kf_module *m, kf_type *t)
{
    int64_t elems = 1;
    if (!kf_lex_expect(lx, "["))
        return false;
    while (!kf_lex_is(lx, "]")) {
        kf_loc loc = lx->tok.loc;
        if (t->rank == KF_MAX_RANK)
            return kf_lex_fail(lx, KF_E0501, loc, "a type has at most %d dims", KF_MAX_RANK);
        if (!parse_dim(lx, m, &t->dim[t->rank]))
            return false;
        int64_t size = t->dim[t->rank].sym ? 1 : t->dim[t->rank].size;
        if (size > max_elems / elems)
            return kf_lex_fail(lx, KF_E0505, loc, "the type has too many elements");
        elems *= size;
        if (kf_lex_accept(lx, "@") && !parse_axis(lx, m, &t->shard[t->rank]))
            return false;
        t->rank++;
        if (!kf_lex_accept(lx, ","))
            break;
    }
    return kf_lex_expect(lx, "]");
}

bool kf_parse_type(kf_lexer *lx, const kf_module *m, kf_type *out)
{
    kf_str name;
    kf_loc loc = lx->tok.loc;
    *out = (kf_type){.kind = KF_TYPE_TENSOR};
    if (!kf_lex_ident(lx, &name))
        return false;
    if (kf_str_eq_c(name, "kvcache"))
        return parse_cache(lx, m, out);
    if (!kf_dtype_find(name, &out->dtype))
        return kf_lex_fail(lx, KF_E0502, loc, "unknown type '%.*s'", KF_STR_ARG(name));
    if (!parse_dims(lx, m, out))
        return false;
    if (kf_lex_is(lx, "{")) {
        if (!kf_lex_accept(lx, "{") || !kf_lex_expect(lx, "partial") ||
            !parse_axis(lx, m, &out->partial) || !kf_lex_expect(lx, "}"))
            return false;
    }
    return parse_layout(lx, out);
}

/* ---- places and the head --------------------------------------------------------------------- */

bool kf_parse_loc(kf_lexer *lx, kf_module *m, kf_loc *out)
{
    kf_str file;
    int64_t line, col;
    *out = KF_NO_LOC;
    if (!kf_lex_accept(lx, "@"))
        return true;
    if (!kf_lex_string(lx, &file) || !kf_lex_expect(lx, ":") ||
        !kf_lex_int(lx, 0, UINT32_MAX, &line) || !kf_lex_expect(lx, ":") ||
        !kf_lex_int(lx, 0, UINT32_MAX, &col))
        return false;
    *out = (kf_loc){kf_module_add_file(m, file), (uint32_t)line, (uint32_t)col, 0};
    return true;
}

static bool parse_mesh(kf_lexer *lx, kf_module *m)
{
    do {
        kf_str name;
        kf_loc loc = lx->tok.loc;
        if (!kf_lex_ident(lx, &name))
            return false;
        if (m->mesh.len == 8)
            return kf_lex_fail(lx, KF_E0505, loc, "a mesh has at most 8 axes");
        for (uint32_t i = 0; i < m->mesh.len; i++) {
            if (kf_str_eq(m->mesh.data[i], name))
                return kf_lex_fail(lx, KF_E0504, loc, "axis '%.*s' twice", KF_STR_ARG(name));
        }
        kf_vec_push(m->arena, &m->mesh, kf_str_dup(m->arena, name));
    } while (kf_lex_accept(lx, ","));
    return true;
}

static bool parse_sym(kf_lexer *lx, kf_module *m)
{
    kf_str name;
    int64_t lo, hi;
    kf_loc loc = lx->tok.loc;
    if (!kf_lex_ident(lx, &name))
        return false;
    for (uint32_t i = 0; i < m->syms.len; i++) {
        if (kf_str_eq(m->syms.data[i].name, name))
            return kf_lex_fail(lx, KF_E0504, loc, "dim '%.*s' twice", KF_STR_ARG(name));
    }
    if (!kf_lex_expect(lx, "in") || !kf_lex_int(lx, 0, max_dim, &lo) || !kf_lex_expect(lx, "..") ||
        !kf_lex_int(lx, lo, max_dim, &hi))
        return false;
    kf_module_add_sym(m, name, lo, hi);
    return true;
}

bool kf_parse_module_head(kf_lexer *lx, kf_module *m)
{
    for (;;) {
        if (kf_lex_accept(lx, "mesh")) {
            if (!parse_mesh(lx, m))
                return false;
        } else if (kf_lex_accept(lx, "dim")) {
            if (!parse_sym(lx, m))
                return false;
        } else {
            return !lx->failed;
        }
    }
}
