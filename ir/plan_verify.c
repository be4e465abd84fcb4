/* SPDX-License-Identifier: Apache-2.0 */
/* plan_verify - what every plan guarantees:
 *
 *   names     of inputs, states, weights, kernels and of a phase's buffers are distinct
 *   kernels   bodies are valid graphs of the plan's module without parameters, calls or regions
 *   launches  the kernel exists; operands are body arguments, then results; each operand exists and
 *             has the type of the body's value (inputs and caches: but for symbols and layers);
 *             results are buffers or states
 *   steps     cover the launches once, in order; a loop's layers lie in the layers of its weights
 *             and states
 *   buffers   hold their type at the bucket's upper bounds, lie in the pool, are written before they
 *             are read; two that overlap in the pool are never alive together, but for one that
 *             shares the other's storage and is first written by the launch that reads the other
 *             last
 *   weights   bytes are those of the padded layout; recipe and type agree
 *   logits    is a buffer f32[.., ..]; next, if given, i32[.., 1] of as many rows
 *
 * Lifetimes are computed here anew, not taken from the pass that placed the buffers.
 */
#include "ir/phase.h"
#include "ir/plan.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <inttypes.h>
#include <stdarg.h>

typedef struct checker {
    const kf_plan *p;
    const kf_plan_phase *ph; /* now, or NULL */
    kf_sbuf *out;
    uint32_t n_errors;
} checker;

static void error(checker *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void error(checker *c, const char *fmt, ...)
{
    va_list ap;
    c->n_errors++;
    kf_sbuf_c(c->out, "error: ");
    if (c->ph)
        kf_sbuf_printf(c->out, "phase %.*s rows %" PRId64 "..%" PRId64 ": ",
                       KF_STR_ARG(c->ph->name), c->ph->rows_lo, c->ph->rows_hi);
    va_start(ap, fmt);
    kf_sbuf_vprintf(c->out, fmt, ap);
    va_end(ap);
    kf_sbuf_char(c->out, '\n');
}

#define CHECK_NAMES(c, table, what)                                                                \
    for (uint32_t i_ = 0; i_ < (table).len; i_++) {                                                \
        for (uint32_t j_ = 0; j_ < i_; j_++) {                                                     \
            if (kf_str_eq((table).data[i_].name, (table).data[j_].name))                           \
                error((c), "%s '%.*s' twice", (what), KF_STR_ARG((table).data[i_].name));          \
        }                                                                                          \
    }

/* ---- kernels and weights --------------------------------------------------------------------- */

static void check_kernels(checker *c)
{
    const kf_plan *p = c->p;
    kf_module probe = {.arena = p->arena, .name = p->name};
    for (uint32_t i = 0; i < p->module->syms.len; i++)
        kf_vec_push(p->arena, &probe.syms, p->module->syms.data[i]);
    for (uint32_t i = 0; i < p->module->mesh.len; i++)
        kf_vec_push(p->arena, &probe.mesh, p->module->mesh.data[i]);
    for (uint32_t i = 0; i < p->module->files.len; i++)
        kf_vec_push(p->arena, &probe.files, p->module->files.data[i]);
    for (uint32_t i = 0; i < p->kernels.len; i++) {
        const kf_kernel *k = &p->kernels.data[i];
        kf_graph *copy = kf_graph_clone(k->body, kf_strf(p->arena, "kernel.%" PRIu32, i));
        copy->module = &probe;
        kf_vec_push(p->arena, &probe.funcs, copy);
        for (uint32_t n = 0; n < copy->nodes.len; n++) {
            kf_op op = copy->nodes.data[n].op;
            if (op == KF_OP_region || op == KF_OP_repeat)
                error(c, "kernel '%.*s' holds a %s", KF_STR_ARG(k->name), kf_op_infos[op].name);
        }
        if (k->body->params.len)
            error(c, "kernel '%.*s' has parameters", KF_STR_ARG(k->name));
        for (uint8_t t = 0; t < k->shape.tiles.n_terms; t++) {
            if (k->shape.tiles.term[t].sym >= p->module->syms.len || k->shape.tiles.term[t].div < 1)
                error(c, "kernel '%.*s' counts tiles of an unknown dim", KF_STR_ARG(k->name));
        }
    }
    kf_sbuf text = {.arena = p->arena};
    if (!kf_module_verify(&probe, KF_VERIFY_GRAPH, &text))
        error(c, "kernel bodies:\n%s", text.ptr);
}

static void check_weights(checker *c)
{
    for (uint32_t i = 0; i < c->p->weights.len; i++) {
        const kf_plan_weight *w = &c->p->weights.data[i];
        const kf_type *r = &w->recipe->type;
        bool same = w->type.kind == KF_TYPE_TENSOR && w->type.rank == r->rank;
        for (uint8_t d = 0; same && d < r->rank; d++)
            same = kf_dim_eq(w->type.dim[d], r->dim[d]) && kf_dim_is_static(r->dim[d]);
        if (!same) {
            error(c, "weight '%.*s' has other dims than its recipe gives", KF_STR_ARG(w->name));
            continue;
        }
        int64_t bytes = kf_type_stored_elems(&w->type, NULL) * kf_dtype_infos[w->type.dtype].bytes;
        if (w->size_bytes != bytes)
            error(c, "weight '%.*s' has %" PRId64 " bytes, its layout %" PRId64,
                  KF_STR_ARG(w->name), w->size_bytes, bytes);
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

static bool operand_type(const checker *c, kf_operand o, kf_type *out, uint32_t *out_layers)
{
    const kf_plan *p = c->p;
    *out_layers = 1;
    switch (o.space) {
    case KF_SPACE_BUFFER:
        if (o.index >= c->ph->buffers.len)
            return false;
        *out = c->ph->buffers.data[o.index].type;
        return true;
    case KF_SPACE_WEIGHT:
        if (o.index >= p->weights.len)
            return false;
        *out = p->weights.data[o.index].type;
        *out_layers = p->weights.data[o.index].layers;
        return true;
    case KF_SPACE_STATE:
        if (o.index >= p->states.len)
            return false;
        *out = p->states.data[o.index].type;
        *out_layers = out->kv_layers;
        out->kv_layers = 1;
        return true;
    case KF_SPACE_INPUT:
        if (o.index >= p->inputs.len)
            return false;
        *out = p->inputs.data[o.index].type;
        return true;
    }
    return false;
}

/* Inputs are declared once for all phases; a phase may name one size by another symbol. N is S where
 * each sequence has one token: a kernel over N is used there as well. */
static bool fits(const checker *c, const kf_type *have, const kf_type *want, bool any_symbol)
{
    kf_type t = *have, w = *want;
    for (uint8_t d = 0; any_symbol && d < t.rank && d < w.rank; d++) {
        if (t.dim[d].sym && w.dim[d].sym)
            t.dim[d] = w.dim[d];
    }
    const kf_phase_info *phase = kf_phase_find(c->ph->name);
    if (phase && phase->one_token) {
        kf_type_narrow_rows(&t);
        kf_type_narrow_rows(&w);
    }
    return kf_type_eq(&t, &w);
}

static void check_launch(checker *c, uint32_t index, const kf_plan_step *step)
{
    const kf_launch *l = &c->ph->launches.data[index];
    if (l->kernel >= c->p->kernels.len) {
        error(c, "launch %" PRIu32 " has no kernel", index);
        return;
    }
    const kf_kernel *k = &c->p->kernels.data[l->kernel];
    const kf_graph *body = k->body;
    if (l->n_operands != body->args.len + body->results.len) {
        error(c, "launch %" PRIu32 " of '%.*s' has %" PRIu32 " operands", index,
              KF_STR_ARG(k->name), l->n_operands);
        return;
    }
    for (uint32_t i = 0; i < l->n_operands; i++) {
        bool is_result = i >= body->args.len;
        kf_value v = is_result ? body->results.data[i - body->args.len] : body->args.data[i];
        kf_type want = *kf_value_type(body, v), have;
        uint32_t layers, needed = step->loop ? step->first_layer + step->times : 1;
        if (want.kind == KF_TYPE_KVCACHE)
            want.kv_layers = 1;
        if (!operand_type(c, l->operand[i], &have, &layers)) {
            error(c, "operand %" PRIu32 " of '%.*s' does not exist", i, KF_STR_ARG(k->name));
            continue;
        }
        if (!fits(c, &have, &want, l->operand[i].space == KF_SPACE_INPUT)) {
            kf_sbuf text = {.arena = c->p->arena};
            kf_type_print(c->p->module, &have, &text);
            kf_sbuf_c(&text, ", the body has ");
            kf_type_print(c->p->module, &want, &text);
            error(c, "operand %" PRIu32 " of '%.*s' is %s", i, KF_STR_ARG(k->name), text.ptr);
        }
        if (is_result && l->operand[i].space != KF_SPACE_BUFFER &&
            l->operand[i].space != KF_SPACE_STATE)
            error(c, "'%.*s' stores into operand %" PRIu32, KF_STR_ARG(k->name), i);
        if (layers > 1 && (!step->loop || layers < needed))
            error(c,
                  "operand %" PRIu32 " of '%.*s' has %" PRIu32 " layers, the step needs %" PRIu32,
                  i, KF_STR_ARG(k->name), layers, needed);
    }
}

static bool check_steps(checker *c)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < c->ph->steps.len; i++) {
        const kf_plan_step *s = &c->ph->steps.data[i];
        if (s->first != next || s->n == 0 || s->n > c->ph->launches.len - next || s->times < 1 ||
            (!s->loop && s->times != 1)) {
            error(c, "step %" PRIu32 " does not continue the launches", i);
            return false;
        }
        for (uint32_t l = s->first; l < s->first + s->n; l++)
            check_launch(c, l, s);
        next += s->n;
    }
    if (next != c->ph->launches.len)
        error(c, "%" PRIu32 " of %" PRIu32 " launches are in steps", next, c->ph->launches.len);
    return next == c->ph->launches.len;
}

/* ---- buffers --------------------------------------------------------------------------------- */

/* Launches during which a buffer's bytes matter. */
typedef struct life {
    uint32_t first, last;
    bool used;
} life;

static void extend(life *l, uint32_t first, uint32_t last)
{
    l->first = !l->used || first < l->first ? first : l->first;
    l->last = !l->used || last > l->last ? last : l->last;
    l->used = true;
}

/* One step: what is read first in a loop body holds a value from before or from the last round, so
 * that it lives through the loop. */
static void live_in_step(checker *c, const kf_plan_step *s, life *lives)
{
    const kf_plan_phase *ph = c->ph;
    bool *seen = KF_NEW_N(c->p->arena, bool, ph->buffers.len + 1);
    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        const kf_launch *l = &ph->launches.data[i];
        uint32_t n_in = c->p->kernels.data[l->kernel].body->args.len;
        for (uint32_t o = 0; o < l->n_operands; o++) {
            uint32_t b = l->operand[o].index;
            if (l->operand[o].space != KF_SPACE_BUFFER)
                continue;
            if (!lives[b].used && o < n_in)
                error(c, "buffer '%.*s' is read before it is written",
                      KF_STR_ARG(ph->buffers.data[b].name));
            bool through = s->loop && !seen[b] && o < n_in;
            extend(&lives[b], through ? s->first : i, through ? s->first + s->n - 1 : i);
            seen[b] = true;
        }
    }
}

/* |b| starts in the storage of |a| where |a| is read for the last time. */
static bool takes_over(const kf_plan_phase *ph, uint32_t a, uint32_t b, const life *lives)
{
    uint32_t owner = ph->buffers.data[b].shares, hops = 0;
    if (lives[a].last != lives[b].first)
        return false;
    uint32_t root_a = a;
    while (ph->buffers.data[root_a].shares < ph->buffers.len && hops++ < ph->buffers.len)
        root_a = ph->buffers.data[root_a].shares;
    while (owner < ph->buffers.len && owner != root_a && hops++ < 2 * ph->buffers.len)
        owner = ph->buffers.data[owner].shares;
    return owner == root_a;
}

static void check_overlaps(checker *c, const life *lives)
{
    const kf_plan_phase *ph = c->ph;
    for (uint32_t a = 0; a < ph->buffers.len; a++) {
        for (uint32_t b = 0; b < a; b++) {
            const kf_buffer *x = &ph->buffers.data[a], *y = &ph->buffers.data[b];
            bool apart =
                x->offset + x->size_bytes <= y->offset || y->offset + y->size_bytes <= x->offset;
            if (apart || !lives[a].used || !lives[b].used || lives[a].last < lives[b].first ||
                lives[b].last < lives[a].first)
                continue;
            if (!takes_over(ph, a, b, lives) && !takes_over(ph, b, a, lives))
                error(c, "buffers '%.*s' and '%.*s' overlap and are alive together",
                      KF_STR_ARG(x->name), KF_STR_ARG(y->name));
        }
    }
}

static void check_next(checker *c, const kf_plan_phase *ph, life *lives)
{
    if (ph->next >= ph->buffers.len || !lives[ph->next].used) {
        error(c, "the next tokens are never written");
        return;
    }
    const kf_type *t = &ph->buffers.data[ph->next].type, *of = &ph->buffers.data[ph->logits].type;
    if (t->dtype != KF_DTYPE_i32 || t->rank != 2 || !kf_dim_eq(t->dim[0], of->dim[0]) ||
        !kf_dim_eq(t->dim[1], kf_dim_static(1)))
        error(c, "the next tokens are no i32, one for each row of logits");
    extend(&lives[ph->next], ph->launches.len, ph->launches.len);
}

/* The bucket's rows bound tokens, and with them sequences and wanted rows. */
static void upper_bounds(const checker *c, int64_t *out)
{
    const kf_module *m = c->p->module;
    for (uint32_t i = 0; i < m->syms.len; i++) {
        bool by_rows = i == KF_SYM_S || i == KF_SYM_N || i == KF_SYM_R;
        int64_t hi = m->syms.data[i].hi;
        out[i] = by_rows && c->ph->rows_hi < hi ? c->ph->rows_hi : hi;
    }
}

static void check_buffers(checker *c)
{
    const kf_plan_phase *ph = c->ph;
    int64_t *hi = KF_NEW_N(c->p->arena, int64_t, c->p->module->syms.len + 1);
    life *lives = KF_NEW_N(c->p->arena, life, ph->buffers.len + 1);
    upper_bounds(c, hi);
    for (uint32_t i = 0; i < ph->buffers.len; i++) {
        const kf_buffer *b = &ph->buffers.data[i];
        int64_t bytes = b->type.kind == KF_TYPE_TENSOR ? kf_type_stored_elems(&b->type, hi) *
                                                             kf_dtype_infos[b->type.dtype].bytes
                                                       : INT64_MAX;
        if (b->size_bytes < bytes)
            error(c, "buffer '%.*s' has %" PRId64 " bytes, its type needs %" PRId64,
                  KF_STR_ARG(b->name), b->size_bytes, bytes);
        if (b->offset < 0 || b->offset > ph->pool_bytes - b->size_bytes)
            error(c, "buffer '%.*s' lies outside the pool", KF_STR_ARG(b->name));
    }
    for (uint32_t i = 0; i < ph->steps.len; i++)
        live_in_step(c, &ph->steps.data[i], lives);
    if (ph->logits >= ph->buffers.len || !lives[ph->logits].used) {
        error(c, "the logits are never written");
        return;
    }
    const kf_type *t = &ph->buffers.data[ph->logits].type;
    if (t->dtype != KF_DTYPE_f32 || t->rank != 2)
        error(c, "the logits are no f32 matrix");
    extend(&lives[ph->logits], ph->launches.len, ph->launches.len); /* read after the call */
    if (ph->next != UINT32_MAX)
        check_next(c, ph, lives);
    check_overlaps(c, lives);
}

bool kf_plan_verify(const kf_plan *p, kf_sbuf *out)
{
    checker c = {.p = p, .out = out};
    CHECK_NAMES(&c, p->inputs, "input")
    CHECK_NAMES(&c, p->states, "state")
    CHECK_NAMES(&c, p->weights, "weight")
    CHECK_NAMES(&c, p->kernels, "kernel")
    check_kernels(&c);
    check_weights(&c);
    for (uint32_t i = 0; i < p->phases.len; i++) {
        c.ph = &p->phases.data[i];
        uint32_t before = c.n_errors;
        CHECK_NAMES(&c, c.ph->buffers, "buffer")
        if (check_steps(&c) && before == c.n_errors)
            check_buffers(&c);
    }
    return c.n_errors == 0;
}
