/* SPDX-License-Identifier: Apache-2.0 */
/* recipe_text - recipes of weights in .kir text: OP(number n, ..., part, ...); a tensor is its name
 * and type. */
#include "ir/parse_impl.h"
#include "ir/print_impl.h"
#include "ir/slot_text.h"

#include <inttypes.h>

enum { MAX_DEPTH = 64 };

/* ---- printing -------------------------------------------------------------------------------- */

void kf_recipe_print(const kf_module *m, const kf_recipe *r, bool with_type, kf_sbuf *out)
{
    const kf_recipe_info *info = &kf_recipe_infos[r->op];
    const char *comma = "";

    if (r->op == KF_RECIPE_load) {
        kf_sbuf_quoted(out, r->tensor);
        if (with_type) {
            kf_sbuf_c(out, ": ");
            kf_type_print(m, &r->type, out);
        }
        return;
    }
    kf_sbuf_printf(out, "%s(", info->name);
    if (r->op == KF_RECIPE_map) {
        kf_sbuf_c(out, kf_dtype_infos[r->type.dtype].name);
        comma = ", ";
    }
    for (int i = 0; i < KF_RECIPE_MAX_NUMBERS && info->number[i]; i++, comma = ", ")
        kf_sbuf_printf(out, "%s%s %" PRId64, comma, info->number[i], r->number[i]);
    for (uint32_t i = 0; i < r->n_parts; i++, comma = ", ") {
        kf_sbuf_c(out, comma);
        kf_recipe_print(m, r->part[i], true, out);
    }
    kf_sbuf_char(out, ')');
    if (r->fn)
        kf_slot_print(" ", r->fn, 0, out);
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool parse_recipe(kf_lexer *lx, const kf_module *m, const kf_type *top, uint32_t depth,
                         const kf_recipe **out);

static bool find_op(kf_lexer *lx, kf_recipe_op *out)
{
    for (int op = KF_RECIPE_load + 1; op < KF_RECIPE_COUNT; op++) {
        if (kf_lex_accept(lx, kf_recipe_infos[op].name)) {
            *out = (kf_recipe_op)op;
            return true;
        }
    }
    return kf_lex_fail(lx, KF_E0501, lx->tok.loc, "expected a tensor name or an op of recipes");
}

static bool parse_dtype(kf_lexer *lx, kf_dtype *out)
{
    kf_str name;
    kf_loc loc = lx->tok.loc;

    if (!kf_lex_ident(lx, &name))
        return false;
    for (int t = 0; t < KF_DTYPE_COUNT; t++) {
        if (kf_str_eq_c(name, kf_dtype_infos[t].name) && kf_dtype_infos[t].kind == KF_KIND_FLOAT) {
            *out = (kf_dtype)t;
            return true;
        }
    }
    return kf_lex_fail(lx, KF_E0504, loc, "'%.*s' is no type of weights", KF_STR_ARG(name));
}

/* What stands before the parts; true in |more| if a part follows. */
static bool parse_head(kf_lexer *lx, kf_recipe *r, bool *more)
{
    const kf_recipe_info *info = &kf_recipe_infos[r->op];

    *more = true;
    if (r->op == KF_RECIPE_map) {
        if (!parse_dtype(lx, &r->type.dtype))
            return false;
        *more = kf_lex_accept(lx, ",");
    }
    for (int i = 0; i < KF_RECIPE_MAX_NUMBERS && info->number[i]; i++) {
        if (!kf_lex_expect(lx, info->number[i]) ||
            !kf_lex_int(lx, 0, INT64_C(1) << 40, &r->number[i]) || !kf_lex_expect(lx, ","))
            return false;
    }
    return true;
}

static bool parse_parts(kf_lexer *lx, const kf_module *m, uint32_t depth, kf_recipe *r)
{
    KF_VEC(const kf_recipe *) parts = {0};

    do {
        const kf_recipe *part = NULL;
        if (parts.len == kf_recipe_infos[r->op].max || depth == MAX_DEPTH)
            return kf_lex_fail(lx, KF_E0505, lx->tok.loc, "the recipe is too large");
        if (!parse_recipe(lx, m, NULL, depth + 1, &part))
            return false;
        kf_vec_push(lx->arena, &parts, part);
    } while (kf_lex_accept(lx, ","));
    r->part = parts.data;
    r->n_parts = parts.len;
    return true;
}

static bool parse_combined(kf_lexer *lx, const kf_module *m, uint32_t depth, const kf_recipe **out)
{
    kf_recipe *r = KF_NEW(lx->arena, kf_recipe);
    kf_loc loc = lx->tok.loc;
    const char *why;
    bool more;

    if (!find_op(lx, &r->op) || !kf_lex_expect(lx, "(") || !parse_head(lx, r, &more))
        return false;
    if ((more && !parse_parts(lx, m, depth, r)) || !kf_lex_expect(lx, ")"))
        return false;
    if (r->op == KF_RECIPE_map) {
        r->fn = kf_slot_read(lx);
        if (!r->fn)
            return false;
    }
    if (!kf_recipe_infer(r, &why))
        return kf_lex_fail(lx, KF_E0503, loc, "%s: %s", kf_recipe_infos[r->op].name, why);
    *out = r;
    return true;
}

/* |top|: the type of a tensor that does not write its own, or NULL. */
static bool parse_recipe(kf_lexer *lx, const kf_module *m, const kf_type *top, uint32_t depth,
                         const kf_recipe **out)
{
    kf_str tensor;
    kf_type type;

    if (lx->tok.kind != KF_TOK_STRING)
        return parse_combined(lx, m, depth, out);
    if (!kf_lex_string(lx, &tensor))
        return false;
    if (kf_lex_accept(lx, ":")) {
        if (!kf_parse_type(lx, m, &type))
            return false;
    } else if (top) {
        type = *top;
    } else {
        return kf_lex_fail(lx, KF_E0501, lx->tok.loc, "a part needs a type: \"name\": bf16[8,8]");
    }
    *out = kf_recipe_load(lx->arena, tensor, type);
    return true;
}

bool kf_parse_recipe(kf_lexer *lx, const kf_module *m, const kf_type *top, const kf_recipe **out)
{
    return parse_recipe(lx, m, top, 0, out);
}
