/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_inspect - a stage of the IR as text, or the plan as JSON. */
#include "driver/cost_report.h"
#include "driver/load.h"
#include "driver/verbs.h"
#include "ir/text.h"

#include <string.h>

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

static bool has_only_plan(const char *operand)
{
    return kf_is_executable(operand) || kf_is_kir(operand);
}

static bool stage_text(kf_compilation *c, const char *stage, kf_sbuf *text)
{
    uint32_t flags = c->opt->canonical ? KF_PRINT_CANONICAL : KF_PRINT_LOCS;

    if (has_only_plan(c->opt->operand)) {
        if (!kf_plan_load(c, c->opt->operand))
            return false;
        kf_plan_print(c->plan, flags, text);
        return true;
    }
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
    if ((!strcmp(stage, "plan") || !c->opt->stop_after) && !kf_compilation_plan(c))
        return false;
    if (!strcmp(stage, "plan"))
        kf_plan_print(c->plan, flags, text);
    return true;
}

/* The stage, and what it costs where there is a plan: behind the text as comments, so that it still
 * parses; as "phases" of the object. */
static void print_stage(kf_compilation *c, const char *stage, kf_str text, kf_cost_report *r,
                        bool json)
{
    kf_sbuf out = {.arena = c->arena};
    kf_json w = {.out = &out};
    bool is_plan = !strcmp(stage, "plan"), costs = c->plan && !c->opt->canonical;

    r->plan = c->plan;
    if (costs && c->spec)
        kf_cost_report_unfused(c, r);
    if (!json) {
        kf_sbuf_str(&out, text);
        if (costs)
            kf_cost_report_text(r, "; ", &out);
        printf("%.*s", KF_STR_ARG(kf_sbuf_view(&out)));
        return;
    }
    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", is_plan ? KF_STR("kerf.plan.1") : KF_STR("kerf.stage.1"));
    kf_json_kstr(&w, "model", c->spec ? c->spec->name.v : c->plan->name);
    kf_json_kstr(&w, "stage", kf_str_from(stage));
    if (!is_plan)
        kf_json_kstr(&w, "text", text);
    if (costs) {
        kf_json_kint(&w, "tokens", r->tokens);
        kf_json_kint(&w, "past", r->past);
        kf_cost_report_json(r, c->scratch, &w);
    }
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&out)));
}

int kf_verb_inspect(kf_compilation *c)
{
    static const char *const stages[] = {"spec", "graph", "fused", "plan"};
    const char *stage = c->opt->stage ? c->opt->stage : "fused";
    bool known = false, json = c->opt->json || (c->opt->format && !strcmp(c->opt->format, "json"));
    kf_sbuf text = {.arena = c->arena};
    kf_cost_report report;

    if (kf_is_executable(c->opt->operand) && !c->opt->stage)
        return kf_run_executable(c, c->opt->operand, "info");
    if (has_only_plan(c->opt->operand) && strcmp(stage, "plan"))
        kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                    "of an executable or a .kir file --stage takes plan, not '%s'; 'kerf opt' runs "
                    "passes over a .kir file",
                    stage);
    for (uint32_t i = 0; i < 4; i++)
        known |= !strcmp(stages[i], stage);
    if (!known)
        kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                    "--stage takes spec, graph, fused or plan, not '%s'", stage);
    if (c->opt->format && strcmp(c->opt->format, "text") && !json)
        kf_diag_add(c->diags, KF_E0411, KF_NO_LOC, "--format takes text or json, not '%s'",
                    c->opt->format);
    if (kf_cost_point_parse(c, c->opt->at, &report) && !kf_diags_errors(c->diags) &&
        stage_text(c, stage, &text))
        print_stage(c, stage, kf_sbuf_view(&text), &report, json);
    return 0;
}
