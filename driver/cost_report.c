/* SPDX-License-Identifier: Apache-2.0 */
/* cost_report - see cost_report.h. */
#include "driver/cost_report.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- the point ------------------------------------------------------------------------------- */

bool kf_cost_point_parse(kf_compilation *c, const char *text, kf_cost_report *out)
{
    int64_t tokens = 1, past = 0, memory = 0;
    const struct {
        const char *format;
        int64_t least, *v;
    } parts[] = {
        {"tokens=%lld%n", 1, &tokens}, {"past=%lld%n", 0, &past}, {"memory=%lld%n", 1, &memory}};

    for (const char *s = text; s && *s;) {
        long long v = -1;
        int used = 0;
        size_t i = 0;
        while (i < 3 && (sscanf(s, parts[i].format, &v, &used) != 1 || !used))
            i++;
        if (i == 3 || v < parts[i].least || v > INT32_MAX || (s[used] && s[used] != ',')) {
            kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                        "--at takes tokens=N,past=N,memory=N, not '%s'", text);
            return false;
        }
        *parts[i].v = v;
        s += used + (s[used] == ',');
    }
    *out = (kf_cost_report){.tokens = tokens, .past = past};
    out->at = (kf_cost_point){.tokens = tokens,
                              .rows = 1,
                              .keys = past + tokens,
                              .pairs = tokens * past + tokens * (tokens + 1) / 2,
                              .memory = memory ? memory : past + tokens};
    return true;
}

void kf_cost_report_unfused(kf_compilation *c, kf_cost_report *r)
{
    kf_compilation one = *c;
    kf_options quiet = *c->opt; /* one pipeline is dumped, traced and timed, not two */

    quiet.pass_dump = quiet.pass_trace = quiet.pass_time = quiet.dump_dir = NULL;
    one.opt = &quiet;
    one.runs = (kf_pass_runs){0};
    if (!kf_compilation_graph(&one))
        return;
    one.diags =
        kf_diags_create(c->scratch); /* an op that has no kernel alone is nobody's error here */
    if (kf_compilation_fuse(&one, KF_UNFUSED_OFF) && kf_compilation_plan(&one))
        r->unfused = one.plan;
}

/* ---- walking --------------------------------------------------------------------------------- */

/* The first bucket of each phase; |index| counts phases. NULL behind the last. */
static const kf_plan_phase *phase_at(const kf_plan *p, uint32_t index)
{
    for (uint32_t i = 0; i < p->phases.len; i++) {
        bool seen = false;
        for (uint32_t j = 0; j < i; j++)
            seen |= kf_str_eq(p->phases.data[j].name, p->phases.data[i].name);
        if (!seen && index-- == 0)
            return &p->phases.data[i];
    }
    return NULL;
}

kf_str kf_kernel_ops(const kf_kernel *k, kf_arena *arena)
{
    kf_sbuf text = {.arena = arena};

    for (uint32_t i = 0; i < k->body->nodes.len; i++)
        kf_sbuf_printf(&text, "%s%s", i ? " " : "", kf_op_infos[k->body->nodes.data[i].op].name);
    return kf_sbuf_view(&text);
}

/* The loop of |ph| that is number |index|, or NULL. */
static const kf_plan_step *loop_at(const kf_plan_phase *ph, uint32_t index)
{
    for (uint32_t i = 0; ph && i < ph->steps.len; i++)
        if (ph->steps.data[i].loop && index-- == 0)
            return &ph->steps.data[i];
    return NULL;
}

/* What one round of loop |index|, or the whole phase (UINT32_MAX), costs unfused; false: not known.
 */
static bool unfused_tally(const kf_cost_report *r, uint32_t phase, uint32_t loop, kf_tally *out)
{
    const kf_plan_phase *ph = r->unfused ? phase_at(r->unfused, phase) : NULL;
    const kf_plan_step *st = loop_at(ph, loop);

    if (ph && loop == UINT32_MAX)
        kf_tally_phase(r->unfused, ph, &r->at, out);
    else if (st)
        kf_tally_step(r->unfused, ph, st, &r->at, out);
    return ph && (st || loop == UINT32_MAX);
}

/* ---- text ------------------------------------------------------------------------------------ */

typedef struct table {
    const kf_cost_report *r;
    const kf_plan_phase *ph;
    uint32_t phase;
    const char *prefix;
    kf_sbuf *out;
} table;

static void text_launch(const table *t, const kf_launch *l, const char *indent)
{
    const kf_kernel *k = &t->r->plan->kernels.data[l->kernel];
    kf_tally sum = kf_tally_launch(t->r->plan, l, &t->r->at);

    kf_sbuf_printf(t->out,
                   "%s%s%-*.*s %-10s %5" PRIu32 " %14" PRId64 " %14" PRId64 " %14" PRId64 "\n",
                   t->prefix, indent, indent[0] ? 30 : 32, KF_STR_ARG(k->name),
                   kf_family_names[k->family], l->ops, sum.flops, sum.bytes_alone, sum.bytes);
}

/* "5 launches, 1404 FLOPs, 5623 bytes (1.002 x the minimum 5611); unfused 38 launches, 9134 bytes"
 */
static void text_tally(const table *t, const kf_tally *sum, uint32_t loop)
{
    kf_tally u;

    kf_sbuf_printf(
        t->out,
        "%" PRId64 " launch%s, %" PRId64 " FLOPs, %" PRId64 " bytes = %.3f x the minimum %" PRId64,
        sum->launches, sum->launches == 1 ? "" : "es", sum->flops, sum->bytes,
        (double)sum->bytes / (double)(sum->bytes_min ? sum->bytes_min : 1), sum->bytes_min);
    if (unfused_tally(t->r, t->phase, loop, &u))
        kf_sbuf_printf(t->out, "; unfused %" PRId64 " launches, %" PRId64 " bytes", u.launches,
                       u.bytes);
    kf_sbuf_char(t->out, '\n');
}

static void text_steps(const table *t)
{
    uint32_t loop = 0;

    for (uint32_t i = 0; i < t->ph->steps.len; i++) {
        const kf_plan_step *st = &t->ph->steps.data[i];
        kf_tally sum;
        uint32_t layers = kf_step_layers(t->r->plan, t->ph, st);
        if (st->loop)
            kf_sbuf_printf(t->out, "%slayers %" PRIu32 "..%" PRIu32 ", %s\n", t->prefix,
                           st->first_layer * layers, (st->first_layer + st->times) * layers - 1,
                           layers == 1 ? "each" : "several in turn");
        for (uint32_t l = st->first; l < st->first + st->n; l++)
            text_launch(t, &t->ph->launches.data[l], st->loop ? "  " : "");
        if (!st->loop)
            continue;
        kf_tally_step(t->r->plan, t->ph, st, &t->r->at, &sum);
        if (layers == 1)
            kf_sbuf_printf(t->out, "%s  a layer: ", t->prefix);
        else
            kf_sbuf_printf(t->out, "%s  %" PRIu32 " layers: ", t->prefix, layers);
        text_tally(t, &sum, loop++);
    }
}

static void text_phase(const table *t)
{
    kf_tally sum;

    kf_sbuf_printf(t->out, "%sphase %.*s, %" PRId64 " token%s behind %" PRId64 " in the cache\n",
                   t->prefix, KF_STR_ARG(t->ph->name), t->r->tokens, t->r->tokens == 1 ? "" : "s",
                   t->r->past);
    kf_sbuf_printf(t->out, "%s%-32s %-10s %5s %14s %14s %14s\n", t->prefix, "launch", "family",
                   "ops", "FLOPs", "bytes alone", "bytes");
    text_steps(t);
    kf_tally_phase(t->r->plan, t->ph, &t->r->at, &sum);
    kf_sbuf_printf(t->out, "%stotal: ", t->prefix);
    text_tally(t, &sum, UINT32_MAX);
}

void kf_cost_report_text(const kf_cost_report *r, const char *prefix, kf_sbuf *out)
{
    const kf_plan_phase *ph;

    for (uint32_t i = 0; (ph = phase_at(r->plan, i)); i++) {
        table t = {r, ph, i, prefix, out};
        kf_sbuf_printf(out, "%s\n", i ? prefix : "");
        text_phase(&t);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void json_launch(kf_json *w, const kf_cost_report *r, kf_arena *scratch, const kf_launch *l,
                        int64_t layer)
{
    const kf_kernel *k = &r->plan->kernels.data[l->kernel];
    kf_tally sum = kf_tally_launch(r->plan, l, &r->at);

    kf_json_open(w, '{');
    kf_json_key(w, "layer");
    if (layer < 0)
        kf_json_null(w);
    else
        kf_json_int(w, layer);
    kf_json_kstr(w, "kernel", k->name);
    kf_json_kstr(w, "family", kf_str_from(kf_family_names[k->family]));
    kf_json_kstr(w, "region", kf_kernel_ops(k, scratch));
    kf_json_kint(w, "flops", sum.flops);
    kf_json_kint(w, "bytes", sum.bytes);
    kf_json_kint(w, "ops", l->ops);
    kf_json_kint(w, "bytes_alone", sum.bytes_alone);
    kf_json_kint(w, "line", l->loc.line);
    kf_json_close(w, '}');
}

static void json_tally(kf_json *w, const kf_cost_report *r, uint32_t phase, uint32_t loop,
                       const kf_tally *sum)
{
    kf_tally u;

    kf_json_kint(w, "flops", sum->flops);
    kf_json_kint(w, "bytes", sum->bytes);
    kf_json_kint(w, "bytes_min", sum->bytes_min);
    if (!unfused_tally(r, phase, loop, &u))
        return;
    kf_json_kint(w, "launches_unfused", u.launches);
    kf_json_kint(w, "bytes_unfused", u.bytes);
}

/* Of each loop what one round costs. */
static void json_layers(kf_json *w, const kf_cost_report *r, uint32_t phase,
                        const kf_plan_phase *ph)
{
    const kf_plan_step *st;

    kf_json_key(w, "layers");
    kf_json_open(w, '[');
    for (uint32_t loop = 0; (st = loop_at(ph, loop)); loop++) {
        kf_tally sum;
        kf_tally_step(r->plan, ph, st, &r->at, &sum);
        kf_json_open(w, '{');
        kf_json_kint(w, "first", st->first_layer);
        kf_json_kint(w, "times", st->times);
        kf_json_kint(w, "layers", kf_step_layers(r->plan, ph, st));
        kf_json_kint(w, "launches", sum.launches);
        json_tally(w, r, phase, loop, &sum);
        kf_json_close(w, '}');
    }
    kf_json_close(w, ']');
}

/* Launches of all rounds. Of several layers in a round each begins where its cache is appended to. */
static void json_step(kf_json *w, const kf_cost_report *r, kf_arena *scratch,
                      const kf_plan_phase *ph, const kf_plan_step *st)
{
    uint32_t layers = kf_step_layers(r->plan, ph, st);

    for (uint32_t t = 0; t < st->times; t++) {
        uint32_t begun = 0;
        for (uint32_t l = st->first; l < st->first + st->n; l++) {
            begun += kf_launch_begins_layer(r->plan, &ph->launches.data[l]);
            int64_t layer = (int64_t)(st->first_layer + t) * layers + (begun ? begun - 1 : 0);
            json_launch(w, r, scratch, &ph->launches.data[l], st->loop ? layer : -1);
        }
    }
}

static void json_phase(kf_json *w, const kf_cost_report *r, kf_arena *scratch, uint32_t phase,
                       const kf_plan_phase *ph)
{
    kf_tally sum;

    kf_json_key(w, kf_strf(scratch, "%.*s", KF_STR_ARG(ph->name)).ptr);
    kf_json_open(w, '{');
    kf_json_kint(w, "rows_lo", ph->rows_lo);
    kf_json_kint(w, "rows_hi", ph->rows_hi);
    kf_json_key(w, "launches");
    kf_json_open(w, '[');
    for (uint32_t i = 0; i < ph->steps.len; i++)
        json_step(w, r, scratch, ph, &ph->steps.data[i]);
    kf_json_close(w, ']');
    kf_json_kint(w, "launches_per_layer", kf_phase_launches_per_layer(r->plan, ph));
    kf_tally_phase(r->plan, ph, &r->at, &sum);
    json_tally(w, r, phase, UINT32_MAX, &sum);
    kf_json_kint(w, "pool_bytes", ph->pool_bytes);
    json_layers(w, r, phase, ph);
    kf_json_close(w, '}');
}

void kf_cost_report_json(const kf_cost_report *r, kf_arena *scratch, kf_json *w)
{
    const kf_plan_phase *ph;

    kf_json_key(w, "phases");
    kf_json_open(w, '{');
    for (uint32_t i = 0; (ph = phase_at(r->plan, i)); i++)
        json_phase(w, r, scratch, i, ph);
    kf_json_close(w, '}');
}
