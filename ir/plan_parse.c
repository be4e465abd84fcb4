/* SPDX-License-Identifier: Apache-2.0 */
/* plan_parse - reads the text of plan_text.c; whether the plan makes sense is plan_verify.c's
 * business. */
#include "ir/parse_impl.h"
#include "ir/plan.h"

#include <inttypes.h>
#include <string.h>

static const int64_t max_bytes = INT64_C(1) << 52;

typedef struct plan_reader {
    kf_lexer *lx;
    kf_plan *p;
    kf_plan_phase *ph; /* now */
} plan_reader;

static bool duplicate(plan_reader *r, kf_loc loc, kf_str name)
{
    return kf_lex_fail(r->lx, KF_E0504, loc, "'%.*s' is defined twice", KF_STR_ARG(name));
}

static bool unknown(plan_reader *r, kf_loc loc, const char *what, kf_str name)
{
    return kf_lex_fail(r->lx, KF_E0502, loc, "unknown %s '%.*s'", what, KF_STR_ARG(name));
}

/* Index of the entry of a table whose entries begin with their name; len if there is none. */
#define FIND(table, wanted, out_index)                                                             \
    for ((out_index) = 0; (out_index) < (table).len; (out_index)++) {                              \
        if (kf_str_eq((table).data[out_index].name, (wanted)))                                     \
            break;                                                                                 \
    }

/* ---- the plan's tables ----------------------------------------------------------------------- */

static bool read_named_type(plan_reader *r, kf_str *out_name, kf_type *out_type)
{
    kf_str name;
    if (!kf_lex_name(r->lx, &name) || !kf_lex_expect(r->lx, ":") ||
        !kf_parse_type(r->lx, r->p->module, out_type))
        return false;
    *out_name = kf_str_dup(r->p->arena, name);
    return true;
}

static bool read_input(plan_reader *r)
{
    kf_plan_input in;
    uint32_t i;
    kf_loc loc = r->lx->tok.loc;
    if (!read_named_type(r, &in.name, &in.type))
        return false;
    FIND(r->p->inputs, in.name, i)
    if (i < r->p->inputs.len)
        return duplicate(r, loc, in.name);
    kf_vec_push(r->p->arena, &r->p->inputs, in);
    return true;
}

static bool read_state(plan_reader *r)
{
    kf_plan_state st;
    uint32_t i;
    kf_loc loc = r->lx->tok.loc;
    if (!read_named_type(r, &st.name, &st.type))
        return false;
    FIND(r->p->states, st.name, i)
    if (i < r->p->states.len)
        return duplicate(r, loc, st.name);
    if (st.type.kind != KF_TYPE_KVCACHE)
        return kf_lex_fail(r->lx, KF_E0503, loc, "a state is a kvcache");
    kf_vec_push(r->p->arena, &r->p->states, st);
    return true;
}

static bool read_weight(plan_reader *r)
{
    kf_plan_weight w = {.prefix = KF_STR("")};
    kf_lexer *lx = r->lx;
    kf_loc loc = lx->tok.loc;
    int64_t layers = 1;
    kf_str prefix;
    uint32_t i;
    if (!read_named_type(r, &w.name, &w.type))
        return false;
    FIND(r->p->weights, w.name, i)
    if (i < r->p->weights.len)
        return duplicate(r, loc, w.name);
    if (!kf_lex_expect(lx, "=") || !kf_parse_recipe(lx, r->p->module, &w.type, &w.recipe))
        return false;
    if (kf_lex_accept(lx, "prefix")) {
        if (!kf_lex_string(lx, &prefix))
            return false;
        w.prefix = kf_str_dup(r->p->arena, prefix);
    }
    if (kf_lex_accept(lx, "layers") && !kf_lex_int(lx, 1, 1 << 16, &layers))
        return false;
    if (!kf_lex_expect(lx, "bytes") || !kf_lex_int(lx, 0, max_bytes, &w.size_bytes))
        return false;
    w.layers = (uint32_t)layers;
    kf_vec_push(r->p->arena, &r->p->weights, w);
    return true;
}

static bool read_config(plan_reader *r, kf_config *c)
{
    if (!kf_lex_expect(r->lx, "config") || !kf_lex_expect(r->lx, "{"))
        return false;
    while (!kf_lex_is(r->lx, "}")) {
        kf_str key;
        if (c->n == KF_MAX_CONFIG)
            return kf_lex_fail(r->lx, KF_E0505, r->lx->tok.loc, "more than %d keys", KF_MAX_CONFIG);
        if (!kf_lex_ident(r->lx, &key) ||
            !kf_lex_int(r->lx, -max_bytes, max_bytes, &c->value[c->n]))
            return false;
        c->key[c->n++] = kf_str_dup(r->p->arena, key).ptr;
        if (!kf_lex_accept(r->lx, ","))
            break;
    }
    return kf_lex_expect(r->lx, "}");
}

static bool read_tiles(plan_reader *r, kf_tile_expr *t)
{
    if (!kf_lex_expect(r->lx, "tiles") || !kf_lex_int(r->lx, 0, max_bytes, &t->constant))
        return false;
    while (kf_lex_accept(r->lx, "*")) {
        kf_str name;
        kf_loc loc = r->lx->tok.loc;
        uint32_t sym;
        if (t->n_terms == sizeof t->term / sizeof *t->term)
            return kf_lex_fail(r->lx, KF_E0505, loc, "too many factors");
        if (!kf_lex_ident(r->lx, &name))
            return false;
        FIND(r->p->module->syms, name, sym)
        if (sym == r->p->module->syms.len)
            return unknown(r, loc, "dim", name);
        t->term[t->n_terms].sym = sym;
        if (!kf_lex_expect(r->lx, "/") ||
            !kf_lex_int(r->lx, 1, max_bytes, &t->term[t->n_terms++].div))
            return false;
    }
    return true;
}

static bool read_kernel(plan_reader *r)
{
    kf_kernel k = {.name = KF_STR("")};
    kf_lexer *lx = r->lx;
    kf_str name, family;
    kf_loc loc = lx->tok.loc;
    uint32_t i;
    if (!kf_lex_name(lx, &name))
        return false;
    FIND(r->p->kernels, name, i)
    if (i < r->p->kernels.len)
        return duplicate(r, loc, name);
    k.name = kf_str_dup(r->p->arena, name);
    loc = lx->tok.loc;
    if (!kf_lex_ident(lx, &family))
        return false;
    if (!kf_family_find(family, &k.family))
        return unknown(r, loc, "family", family);
    if (!read_config(r, &k.shape.config) || !read_tiles(r, &k.shape.tiles) ||
        !kf_lex_expect(lx, "scratch") || !kf_lex_int(lx, 0, max_bytes, &k.shape.scratch_bytes) ||
        (kf_lex_accept(lx, "cells") &&
         (!kf_lex_int(lx, 0, max_bytes, &k.shape.cells) || !kf_lex_expect(lx, "shared") ||
          !kf_lex_int(lx, 0, max_bytes, &k.shape.shared_bytes))) ||
        !kf_parse_body(lx, r->p->module, 1, &k.body) || !kf_parse_loc(lx, r->p->module, &k.loc))
        return false;
    kf_vec_push(r->p->arena, &r->p->kernels, k);
    return true;
}

/* ---- phases ---------------------------------------------------------------------------------- */

static bool read_buffer_name(plan_reader *r, uint32_t *out)
{
    kf_str name;
    kf_loc loc = r->lx->tok.loc;
    if (!kf_lex_name(r->lx, &name))
        return false;
    FIND(r->ph->buffers, name, *out)
    return *out < r->ph->buffers.len || unknown(r, loc, "buffer", name);
}

/* |shared| collects the names of shared buffers, which may be defined later. */
typedef KF_VEC(kf_token) token_list;

static bool read_buffer(plan_reader *r, token_list *shared)
{
    kf_buffer b = {.shares = UINT32_MAX};
    kf_lexer *lx = r->lx;
    kf_loc loc = lx->tok.loc;
    kf_token share = {.text = KF_STR("")};
    kf_str name;
    uint32_t i;
    if (!read_named_type(r, &b.name, &b.type))
        return false;
    FIND(r->ph->buffers, b.name, i)
    if (i < r->ph->buffers.len)
        return duplicate(r, loc, b.name);
    if (!kf_lex_expect(lx, "offset") || !kf_lex_int(lx, 0, max_bytes, &b.offset) ||
        !kf_lex_expect(lx, "bytes") || !kf_lex_int(lx, 0, max_bytes, &b.size_bytes))
        return false;
    if (kf_lex_accept(lx, "shares")) {
        share = lx->tok;
        if (!kf_lex_name(lx, &name))
            return false;
    }
    kf_vec_push(r->p->arena, &r->ph->buffers, b);
    kf_vec_push(r->p->arena, shared, share);
    return true;
}

static bool resolve_shares(plan_reader *r, const token_list *shared)
{
    for (uint32_t i = 0; i < shared->len; i++) {
        uint32_t owner;
        if (shared->data[i].kind == KF_TOK_END)
            continue;
        FIND(r->ph->buffers, shared->data[i].text, owner)
        if (owner == r->ph->buffers.len)
            return unknown(r, shared->data[i].loc, "buffer", shared->data[i].text);
        r->ph->buffers.data[i].shares = owner;
    }
    return true;
}

static bool read_operand(plan_reader *r, kf_operand *out)
{
    static const char *const words[] = {"weight", "state", "input"};
    static const kf_space spaces[] = {KF_SPACE_WEIGHT, KF_SPACE_STATE, KF_SPACE_INPUT};
    kf_plan *p = r->p;
    for (int i = 0; i < 3; i++) {
        kf_str name;
        uint32_t index, len;
        if (!kf_lex_accept(r->lx, words[i]))
            continue;
        kf_loc loc = r->lx->tok.loc;
        if (!kf_lex_name(r->lx, &name))
            return false;
        if (spaces[i] == KF_SPACE_WEIGHT) {
            FIND(p->weights, name, index)
            len = p->weights.len;
        } else if (spaces[i] == KF_SPACE_STATE) {
            FIND(p->states, name, index)
            len = p->states.len;
        } else {
            FIND(p->inputs, name, index)
            len = p->inputs.len;
        }
        *out = (kf_operand){spaces[i], index};
        return index < len || unknown(r, loc, words[i], name);
    }
    out->space = KF_SPACE_BUFFER;
    return read_buffer_name(r, &out->index);
}

static bool read_cost(plan_reader *r, const char *what, kf_cost *out)
{
    int64_t term[5] = {0};
    static const char *const units[] = {"N", "R", "K", "P"}; /* ORDER: kf_cost behind fixed */
    if (!kf_lex_expect(r->lx, what))
        return false;
    do {
        int64_t amount;
        int unit = 0;
        if (!kf_lex_int(r->lx, -max_bytes, max_bytes, &amount))
            return false;
        for (int i = 0; i < 4 && unit == 0; i++)
            unit = kf_lex_accept(r->lx, units[i]) ? i + 1 : 0;
        term[unit] = amount;
    } while (kf_lex_accept(r->lx, "+"));
    *out = (kf_cost){term[0], term[1], term[2], term[3], term[4]};
    return true;
}

typedef KF_VEC(kf_operand) operand_list;

static bool read_operands(plan_reader *r, operand_list *out)
{
    if (!kf_lex_expect(r->lx, "("))
        return false;
    while (!kf_lex_is(r->lx, ")")) {
        kf_operand o;
        if (!read_operand(r, &o))
            return false;
        kf_vec_push(r->p->arena, out, o);
        if (!kf_lex_accept(r->lx, ","))
            break;
    }
    return kf_lex_expect(r->lx, ")");
}

/* What is not written is one op, which moves what the launch moves. */
static bool read_alone(plan_reader *r, kf_launch *l)
{
    int64_t ops = 1;

    l->alone = l->bytes;
    if (kf_lex_accept(r->lx, "ops") &&
        (!kf_lex_int(r->lx, 0, UINT32_MAX, &ops) || !read_cost(r, "alone", &l->alone)))
        return false;
    l->ops = (uint32_t)ops;
    return true;
}

static bool read_launch(plan_reader *r)
{
    kf_launch l = {.kernel = 0};
    operand_list operands = {0};
    kf_lexer *lx = r->lx;
    kf_str name;
    kf_loc loc = lx->tok.loc;
    if (!kf_lex_name(lx, &name))
        return false;
    FIND(r->p->kernels, name, l.kernel)
    if (l.kernel == r->p->kernels.len)
        return unknown(r, loc, "kernel", name);
    if (!read_operands(r, &operands))
        return false;
    const kf_graph *body = r->p->kernels.data[l.kernel].body;
    if (operands.len != body->args.len)
        return kf_lex_fail(lx, KF_E0503, loc, "the kernel reads %" PRIu32 " operands",
                           body->args.len);
    if (!kf_lex_expect(lx, "->") || !read_operands(r, &operands))
        return false;
    if (operands.len != body->args.len + body->results.len)
        return kf_lex_fail(lx, KF_E0503, loc, "the kernel has %" PRIu32 " results",
                           body->results.len);
    l.n_operands = operands.len;
    l.operand = operands.data;
    if (!read_cost(r, "flops", &l.flops) || !read_cost(r, "bytes", &l.bytes) ||
        !read_alone(r, &l) || !kf_parse_loc(lx, r->p->module, &l.loc))
        return false;
    kf_vec_push(r->p->arena, &r->ph->launches, l);
    return true;
}

static void end_step(plan_reader *r, kf_plan_step step)
{
    step.n = r->ph->launches.len - step.first;
    if (step.n || step.loop)
        kf_vec_push(r->p->arena, &r->ph->steps, step);
}

static bool read_loop(plan_reader *r)
{
    int64_t times, from = 0;
    kf_plan_step step = {.first = r->ph->launches.len, .loop = true};
    if (!kf_lex_int(r->lx, 1, 1 << 16, &times))
        return false;
    if (kf_lex_accept(r->lx, "from") && !kf_lex_int(r->lx, 1, 1 << 16, &from))
        return false;
    step.times = (uint32_t)times;
    step.first_layer = (uint32_t)from;
    if (!kf_lex_expect(r->lx, "{"))
        return false;
    while (kf_lex_accept(r->lx, "launch")) {
        if (!read_launch(r))
            return false;
    }
    end_step(r, step);
    return kf_lex_expect(r->lx, "}");
}

static bool read_steps(plan_reader *r)
{
    kf_plan_step straight = {.first = 0, .times = 1};
    while (!kf_lex_is(r->lx, "}")) {
        if (kf_lex_accept(r->lx, "launch")) {
            if (!read_launch(r))
                return false;
            continue;
        }
        if (!kf_lex_expect(r->lx, "loop"))
            return false;
        end_step(r, straight);
        if (!read_loop(r))
            return false;
        straight.first = r->ph->launches.len;
    }
    end_step(r, straight);
    return kf_lex_expect(r->lx, "}");
}

/* The buffer that |name| said would follow. */
static bool resolve_kept(plan_reader *r, kf_token at, kf_str name, uint32_t *out)
{
    FIND(r->ph->buffers, name, *out)
    return *out < r->ph->buffers.len || unknown(r, at.loc, "buffer", name);
}

static bool read_phase(plan_reader *r)
{
    kf_plan_phase ph = {.next = UINT32_MAX};
    kf_lexer *lx = r->lx;
    kf_str name, next;
    token_list shared = {0};
    if (!kf_lex_name(lx, &name) || !kf_lex_expect(lx, "rows") ||
        !kf_lex_int(lx, 0, max_bytes, &ph.rows_lo) || !kf_lex_expect(lx, "..") ||
        !kf_lex_int(lx, ph.rows_lo, max_bytes, &ph.rows_hi) || !kf_lex_expect(lx, "pool") ||
        !kf_lex_int(lx, 0, max_bytes, &ph.pool_bytes) || !kf_lex_expect(lx, "logits"))
        return false;
    ph.name = kf_str_dup(r->p->arena, name);
    kf_token logits = lx->tok;
    if (!kf_lex_name(lx, &name))
        return false;
    bool chooses = kf_lex_accept(lx, "next");
    kf_token chosen = lx->tok;
    if ((chooses && !kf_lex_name(lx, &next)) || !kf_lex_expect(lx, "{"))
        return false;
    kf_vec_push(r->p->arena, &r->p->phases, ph);
    r->ph = &r->p->phases.data[r->p->phases.len - 1];
    while (kf_lex_accept(lx, "buffer")) {
        if (!read_buffer(r, &shared))
            return false;
    }
    if (!resolve_kept(r, logits, name, &r->ph->logits) ||
        (chooses && !resolve_kept(r, chosen, next, &r->ph->next)))
        return false;
    return resolve_shares(r, &shared) && read_steps(r);
}

static bool read_plan(plan_reader *r)
{
    kf_lexer *lx = r->lx;
    bool ok = kf_parse_module_head(lx, r->p->module);
    while (ok && kf_lex_accept(lx, "input"))
        ok = read_input(r);
    while (ok && kf_lex_accept(lx, "state"))
        ok = read_state(r);
    while (ok && kf_lex_accept(lx, "weight"))
        ok = read_weight(r);
    while (ok && kf_lex_accept(lx, "kernel"))
        ok = read_kernel(r);
    while (ok && kf_lex_accept(lx, "phase"))
        ok = read_phase(r);
    return ok && kf_lex_expect(lx, "}") &&
           (lx->tok.kind == KF_TOK_END ||
            kf_lex_fail(lx, KF_E0501, lx->tok.loc, "text behind the plan"));
}

kf_plan *kf_plan_parse(kf_arena *arena, kf_diags *d, kf_str path, kf_str text)
{
    kf_lexer lx;
    kf_str name, target;
    kf_lex_start(&lx, arena, d, path, text);
    if (!kf_lex_expect(&lx, "plan") || !kf_lex_expect(&lx, "@") || !kf_lex_name(&lx, &name) ||
        !kf_lex_expect(&lx, "target") || !kf_lex_string(&lx, &target) || !kf_lex_expect(&lx, "{"))
        return NULL;
    kf_plan *p = KF_NEW(arena, kf_plan);
    p->arena = arena;
    p->module = kf_module_create(arena, name);
    p->name = kf_str_dup(arena, name);
    p->target = kf_str_dup(arena, target);
    plan_reader r = {.lx = &lx, .p = p};
    return read_plan(&r) && !lx.failed ? p : NULL;
}
