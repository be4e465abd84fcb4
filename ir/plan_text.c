/* SPDX-License-Identifier: Apache-2.0 */
/* plan_text - plans as .kir text: print(parse(print(p))) equals print(p). docs/IR.md is the
 * grammar. */
#include "ir/plan.h"
#include "ir/print_impl.h"
#include "ir/text.h"

#include <inttypes.h>
#include <string.h>

/* ---- printing -------------------------------------------------------------------------------- */

static const char *const cost_units[] = {"", " N", " R", " K", " P"}; /* ORDER: kf_cost */

static void print_cost(const char *what, const kf_cost *c, kf_sbuf *out)
{
    const int64_t term[] = {c->fixed, c->per_token, c->per_row, c->per_key, c->per_pair};
    bool any = false;
    kf_sbuf_printf(out, " %s ", what);
    for (int i = 0; i < 5; i++) {
        if (term[i])
            kf_sbuf_printf(out, "%s%" PRId64 "%s", any ? " + " : "", term[i], cost_units[i]);
        any |= term[i] != 0;
    }
    kf_sbuf_c(out, any ? "" : "0");
}

static void print_operand(const kf_plan *p, const kf_plan_phase *ph, kf_operand o, kf_sbuf *out)
{
    switch (o.space) {
    case KF_SPACE_BUFFER:
        kf_name_print(o.index < ph->buffers.len ? ph->buffers.data[o.index].name : KF_STR("?"),
                      out);
        return;
    case KF_SPACE_WEIGHT:
        kf_sbuf_c(out, "weight ");
        kf_name_print(o.index < p->weights.len ? p->weights.data[o.index].name : KF_STR("?"), out);
        return;
    case KF_SPACE_STATE:
        kf_sbuf_c(out, "state ");
        kf_name_print(o.index < p->states.len ? p->states.data[o.index].name : KF_STR("?"), out);
        return;
    case KF_SPACE_INPUT:
        kf_sbuf_c(out, "input ");
        kf_name_print(o.index < p->inputs.len ? p->inputs.data[o.index].name : KF_STR("?"), out);
        return;
    }
}

static void print_weight(const kf_plan *p, const kf_plan_weight *w, kf_sbuf *out)
{
    kf_sbuf_c(out, "  weight ");
    kf_name_print(w->name, out);
    kf_sbuf_c(out, ": ");
    kf_type_print(p->module, &w->type, out);
    kf_sbuf_c(out, " = ");
    kf_recipe_print(p->module, w->recipe, !kf_type_eq(&w->type, &w->recipe->type), out);
    if (w->prefix.len) {
        kf_sbuf_c(out, " prefix ");
        kf_sbuf_quoted(out, w->prefix);
    }
    if (w->layers != 1)
        kf_sbuf_printf(out, " layers %" PRIu32, w->layers);
    kf_sbuf_printf(out, " bytes %" PRId64 "\n", w->size_bytes);
}

static void print_kernel(const kf_plan *p, const kf_kernel *k, uint32_t flags, kf_sbuf *out)
{
    kf_sbuf_c(out, "\n  kernel ");
    kf_name_print(k->name, out);
    kf_sbuf_printf(out, " %s config {", kf_family_names[k->family]);
    for (uint8_t i = 0; i < k->shape.config.n; i++)
        kf_sbuf_printf(out, "%s%s %" PRId64, i ? ", " : "", k->shape.config.key[i],
                       k->shape.config.value[i]);
    kf_sbuf_printf(out, "} tiles %" PRId64, k->shape.tiles.constant);
    for (uint8_t i = 0; i < k->shape.tiles.n_terms; i++) {
        uint32_t sym = k->shape.tiles.term[i].sym;
        kf_str name = sym < p->module->syms.len ? p->module->syms.data[sym].name : KF_STR("?");
        kf_sbuf_printf(out, " * %.*s/%" PRId64, KF_STR_ARG(name), k->shape.tiles.term[i].div);
    }
    kf_sbuf_printf(out, " scratch %" PRId64 " ", k->shape.scratch_bytes);
    if (k->shape.cells || k->shape.shared_bytes)
        kf_sbuf_printf(out, "cells %" PRId64 " shared %" PRId64 " ", k->shape.cells,
                       k->shape.shared_bytes);
    kf_body_print(k->body, flags, 2, out);
    kf_loc_print(p->module, k->loc, flags, out);
    kf_sbuf_char(out, '\n');
}

static void print_launch(const kf_plan *p, const kf_plan_phase *ph, const kf_launch *l,
                         uint32_t flags, bool in_loop, kf_sbuf *out)
{
    bool known = l->kernel < p->kernels.len;
    uint32_t n_in = known ? p->kernels.data[l->kernel].body->args.len : l->n_operands;
    kf_sbuf_c(out, in_loop ? "      launch " : "    launch ");
    kf_name_print(known ? p->kernels.data[l->kernel].name : KF_STR("?"), out);
    kf_sbuf_c(out, " (");
    for (uint32_t i = 0; i < l->n_operands; i++) {
        kf_sbuf_c(out, i == n_in ? ") -> (" : i ? ", " : "");
        print_operand(p, ph, l->operand[i], out);
    }
    kf_sbuf_char(out, ')');
    print_cost("flops", &l->flops, out);
    print_cost("bytes", &l->bytes, out);
    if (l->ops != 1) {
        kf_sbuf_printf(out, " ops %" PRIu32, l->ops);
        print_cost("alone", &l->alone, out);
    }
    kf_loc_print(p->module, l->loc, flags, out);
    kf_sbuf_char(out, '\n');
}

static void print_steps(const kf_plan *p, const kf_plan_phase *ph, uint32_t flags, kf_sbuf *out)
{
    for (uint32_t i = 0; i < ph->steps.len; i++) {
        const kf_plan_step *s = &ph->steps.data[i];
        if (s->loop) {
            kf_sbuf_printf(out, "    loop %" PRIu32, s->times);
            if (s->first_layer)
                kf_sbuf_printf(out, " from %" PRIu32, s->first_layer);
            kf_sbuf_c(out, " {\n");
        }
        for (uint32_t l = s->first; l < s->first + s->n && l < ph->launches.len; l++)
            print_launch(p, ph, &ph->launches.data[l], flags, s->loop, out);
        kf_sbuf_c(out, s->loop ? "    }\n" : "");
    }
}

static void print_phase(const kf_plan *p, const kf_plan_phase *ph, uint32_t flags, kf_sbuf *out)
{
    kf_sbuf_c(out, "\n  phase ");
    kf_name_print(ph->name, out);
    kf_sbuf_printf(out, " rows %" PRId64 "..%" PRId64 " pool %" PRId64 " logits ", ph->rows_lo,
                   ph->rows_hi, ph->pool_bytes);
    print_operand(p, ph, (kf_operand){KF_SPACE_BUFFER, ph->logits}, out);
    if (ph->next < ph->buffers.len) {
        kf_sbuf_c(out, " next ");
        print_operand(p, ph, (kf_operand){KF_SPACE_BUFFER, ph->next}, out);
    }
    kf_sbuf_c(out, " {\n");
    for (uint32_t i = 0; i < ph->buffers.len; i++) {
        const kf_buffer *b = &ph->buffers.data[i];
        kf_sbuf_c(out, "    buffer ");
        kf_name_print(b->name, out);
        kf_sbuf_c(out, ": ");
        kf_type_print(p->module, &b->type, out);
        kf_sbuf_printf(out, " offset %" PRId64 " bytes %" PRId64, b->offset, b->size_bytes);
        if (b->shares < ph->buffers.len) {
            kf_sbuf_c(out, " shares ");
            kf_name_print(ph->buffers.data[b->shares].name, out);
        }
        kf_sbuf_char(out, '\n');
    }
    print_steps(p, ph, flags, out);
    kf_sbuf_c(out, "  }\n");
}

void kf_plan_print(const kf_plan *p, uint32_t flags, kf_sbuf *out)
{
    kf_sbuf_c(out, "plan @");
    kf_name_print(p->name, out);
    kf_sbuf_c(out, " target ");
    kf_sbuf_quoted(out, p->target);
    kf_sbuf_c(out, " {\n");
    kf_module_print_head(p->module, out);
    for (uint32_t i = 0; i < p->inputs.len; i++) {
        kf_sbuf_c(out, "  input ");
        kf_name_print(p->inputs.data[i].name, out);
        kf_sbuf_c(out, ": ");
        kf_type_print(p->module, &p->inputs.data[i].type, out);
        kf_sbuf_char(out, '\n');
    }
    for (uint32_t i = 0; i < p->states.len; i++) {
        kf_sbuf_c(out, "  state ");
        kf_name_print(p->states.data[i].name, out);
        kf_sbuf_c(out, ": ");
        kf_type_print(p->module, &p->states.data[i].type, out);
        kf_sbuf_char(out, '\n');
    }
    for (uint32_t i = 0; i < p->weights.len; i++)
        print_weight(p, &p->weights.data[i], out);
    for (uint32_t i = 0; i < p->kernels.len; i++)
        print_kernel(p, &p->kernels.data[i], flags, out);
    for (uint32_t i = 0; i < p->phases.len; i++)
        print_phase(p, &p->phases.data[i], flags, out);
    kf_sbuf_c(out, "}\n");
}
