/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_inspect - a stage of the IR as text, or the plan as JSON. */
#include "base/json.h"
#include "driver/verbs.h"
#include "ir/text.h"

#include <string.h>

/** Tokens of a call, the logit rows it wants, and the keys that its tokens see, added up. */
typedef struct point {
    int64_t tokens, rows, keys;
} point;

static void json_launch(kf_json *w, const kf_compilation *c, const point *at, const kf_launch *l,
                        int64_t layer)
{
    const kf_kernel *k = &c->plan->kernels.data[l->kernel];
    kf_sbuf region = {.arena = c->scratch};

    for (uint32_t i = 0; i < k->body->nodes.len; i++)
        kf_sbuf_printf(&region, "%s%s", i ? " " : "", kf_op_infos[k->body->nodes.data[i].op].name);
    kf_json_open(w, '{');
    kf_json_key(w, "layer");
    if (layer < 0)
        kf_json_null(w);
    else
        kf_json_int(w, layer);
    kf_json_kstr(w, "kernel", k->name);
    kf_json_kstr(w, "family", kf_str_from(kf_family_names[k->family]));
    kf_json_kstr(w, "region", kf_sbuf_view(&region));
    kf_json_kint(w, "flops", kf_cost_at(&l->flops, at->tokens, at->rows, at->keys));
    kf_json_kint(w, "bytes", kf_cost_at(&l->bytes, at->tokens, at->rows, at->keys));
    kf_json_close(w, '}');
}

/* Weights once, the cache that is seen once, the logits that go out: nothing can move less. */
static int64_t least_bytes(const kf_plan_phase *ph, const point *at)
{
    int64_t bytes = 0;

    for (uint32_t i = 0; i < ph->steps.len; i++) {
        const kf_plan_step *st = &ph->steps.data[i];
        for (uint32_t l = st->first; l < st->first + st->n; l++)
            bytes +=
                (ph->launches.data[l].bytes.fixed + ph->launches.data[l].bytes.per_key * at->keys) *
                st->times;
    }
    return bytes + kf_type_static_elems(&ph->buffers.data[ph->logits].type) *
                       kf_dtype_infos[ph->buffers.data[ph->logits].type.dtype].bytes;
}

static void json_phase(kf_json *w, const kf_compilation *c, const point *at,
                       const kf_plan_phase *ph)
{
    int64_t bytes = 0, per_layer = 0;

    kf_json_key(w, kf_strf(c->scratch, "%.*s", KF_STR_ARG(ph->name)).ptr);
    kf_json_open(w, '{');
    kf_json_kint(w, "rows_lo", ph->rows_lo);
    kf_json_kint(w, "rows_hi", ph->rows_hi);
    kf_json_key(w, "launches");
    kf_json_open(w, '[');
    for (uint32_t i = 0; i < ph->steps.len; i++) {
        const kf_plan_step *st = &ph->steps.data[i];
        per_layer = st->loop && st->n > per_layer ? st->n : per_layer;
        for (uint32_t t = 0; t < st->times; t++) {
            for (uint32_t l = st->first; l < st->first + st->n; l++) {
                json_launch(w, c, at, &ph->launches.data[l],
                            st->loop ? (int64_t)(st->first_layer + t) : -1);
                bytes += kf_cost_at(&ph->launches.data[l].bytes, at->tokens, at->rows, at->keys);
            }
        }
    }
    kf_json_close(w, ']');
    kf_json_kint(w, "launches_per_layer", per_layer);
    kf_json_kint(w, "bytes", bytes);
    kf_json_kint(w, "bytes_min", least_bytes(ph, at));
    kf_json_kint(w, "pool_bytes", ph->pool_bytes);
    kf_json_close(w, '}');
}

/* Of a phase with several buckets the first one. */
static void plan_json(const kf_compilation *c, const point *at, kf_sbuf *out)
{
    kf_json w = {.out = out};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.plan.1"));
    kf_json_key(&w, "phases");
    kf_json_open(&w, '{');
    for (uint32_t i = 0; i < c->plan->phases.len; i++) {
        bool seen = false;
        for (uint32_t j = 0; j < i; j++)
            seen |= kf_str_eq(c->plan->phases.data[j].name, c->plan->phases.data[i].name);
        if (!seen)
            json_phase(&w, c, at, &c->plan->phases.data[i]);
    }
    kf_json_close(&w, '}');
    kf_json_close(&w, '}');
}

/* "tokens=1,past=1024" in any order; one sequence, logits of its last token. */
static bool parse_point(kf_compilation *c, const char *text, point *out)
{
    int64_t tokens = 1, past = 0;

    for (const char *s = text; s && *s;) {
        long long v;
        int used = 0;
        bool is_tokens = sscanf(s, "tokens=%lld%n", &v, &used) == 1 && used;
        bool is_past = !is_tokens && sscanf(s, "past=%lld%n", &v, &used) == 1 && used;
        if ((!is_tokens && !is_past) || v < is_tokens || v > INT32_MAX ||
            (s[used] && s[used] != ',')) {
            kf_diag_add(c->diags, KF_E0803, KF_NO_LOC, "--at takes tokens=N,past=N, not '%s'",
                        text);
            return false;
        }
        *(is_tokens ? &tokens : &past) = v;
        s += used + (s[used] == ',');
    }
    *out = (point){tokens, 1, tokens * past + tokens * (tokens + 1) / 2};
    return true;
}

void kf_stage_json(kf_str model, const char *stage, kf_str text, kf_sbuf *out)
{
    kf_json w = {.out = out};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.stage.1"));
    kf_json_kstr(&w, "model", model);
    kf_json_kstr(&w, "stage", kf_str_from(stage));
    kf_json_kstr(&w, "text", text);
    kf_json_close(&w, '}');
}

void kf_print_output(const kf_compilation *c, const char *schema, const char *output)
{
    kf_sbuf text = {.arena = c->scratch};
    kf_json w = {.out = &text};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", kf_str_from(schema));
    kf_json_kstr(&w, "output", kf_str_from(output));
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
}

static bool stage_text(kf_compilation *c, const char *stage, kf_sbuf *text)
{
    uint32_t flags = c->opt->canonical ? KF_PRINT_CANONICAL : KF_PRINT_LOCS;

    if (!kf_compilation_load(c, c->opt->operand) || !kf_compilation_target(c))
        return false;
    if (!strcmp(stage, "spec")) {
        kf_spec_print(c->spec, true, text);
        return true;
    }
    if (!kf_compilation_graph(c))
        return false;
    if (!strcmp(stage, "graph")) {
        kf_module_print(c->module, flags, text);
        return true;
    }
    if (!kf_compilation_fuse(c, NULL))
        return false;
    if (!strcmp(stage, "fused"))
        kf_module_print(c->module, flags, text);
    else if (kf_compilation_plan(c))
        kf_plan_print(c->plan, flags, text);
    return true;
}

int kf_verb_inspect(kf_compilation *c)
{
    static const char *const stages[] = {"spec", "graph", "fused", "plan"};
    const char *stage = c->opt->stage ? c->opt->stage : "fused";
    bool known = false, json = c->opt->json || (c->opt->format && !strcmp(c->opt->format, "json"));
    kf_sbuf text = {.arena = c->arena}, out = {.arena = c->arena};

    if (kf_is_executable(c->opt->operand))
        return kf_run_executable(c, c->opt->operand, "info");
    for (uint32_t i = 0; i < 4; i++)
        known |= !strcmp(stages[i], stage);
    if (!known)
        kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                    "--stage takes spec, graph, fused or plan, not '%s'", stage);
    if (c->opt->format && strcmp(c->opt->format, "text") && !json)
        kf_diag_add(c->diags, KF_E0411, KF_NO_LOC, "--format takes text or json, not '%s'",
                    c->opt->format);
    point at;
    if (!parse_point(c, c->opt->at, &at) || kf_diags_errors(c->diags) ||
        !stage_text(c, stage, &text))
        return 0;
    if (json && !strcmp(stage, "plan"))
        plan_json(c, &at, &out);
    else if (json)
        kf_stage_json(c->spec->name.v, stage, kf_sbuf_view(&text), &out);
    else
        kf_sbuf_str(&out, kf_sbuf_view(&text));
    printf("%.*s%s", KF_STR_ARG(kf_sbuf_view(&out)), json ? "\n" : "");
    return 0;
}
