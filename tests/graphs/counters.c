/* SPDX-License-Identifier: Apache-2.0 */
/* counters - see counters.h. */
#include "tests/graphs/counters.h"

#include "ir/phase.h"

#include <stdio.h>
#include <time.h>

/* ---- time ------------------------------------------------------------------------------------ */

static const char *const stage_names[STAGE_COUNT] = {
    [STAGE_OTHER] = "other",         [STAGE_PASSES] = "passes", [STAGE_TEXTS] = "texts",
    [STAGE_EVALUATE] = "evaluating", [STAGE_PLANS] = "plans",   [STAGE_COMPILED] = "compiled"};

static double cpu_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void counters_start(counters *c, stage_id first)
{
    c->stage = first;
    c->since_s = cpu_now();
}

stage_id counters_stage(counters *c, stage_id next)
{
    stage_id before = c->stage;
    double now = cpu_now();

    c->cpu_s[before] += now - c->since_s;
    c->stage = next;
    c->since_s = now;
    return before;
}

/* ---- counting -------------------------------------------------------------------------------- */

static const char *const feature_names[FEATURE_COUNT] = {[FEATURE_STORED_OP] =
                                                             "attention to a memory",
                                                         [FEATURE_STORED_READ] = "read of a memory",
                                                         [FEATURE_ENCODER] = "encoder",
                                                         [FEATURE_MEMORY] = "encoder and decoder",
                                                         [FEATURE_MIXED] = "regions beside ops",
                                                         [FEATURE_REGIONS] = "regions only"};

typedef struct seen {
    bool op[KF_OP_COUNT], fn[KF_FN_COUNT], acc[KF_ACC_COUNT], recipe[KF_RECIPE_COUNT];
    bool feature[FEATURE_COUNT];
} seen;

static void see_slot(seen *s, const kf_slot *slot)
{
    for (uint32_t i = 0; slot && i < slot->n_insts; i++)
        if (slot->inst[i].op == KF_SLOT_FN)
            s->fn[slot->inst[i].fn] = true;
}

static void see_attr(seen *s, const kf_node *n)
{
    const kf_attr_info *info = &kf_attr_infos[kf_op_infos[n->op].attr];

    for (uint32_t i = 0; i < info->n_fields; i++) {
        const void *field = (const char *)n->attr + info->field[i].offset;
        if (info->field[i].type == KF_FIELD_slot)
            see_slot(s, *(const kf_field_slot *)field);
        if (info->field[i].type == KF_FIELD_accs)
            for (uint8_t a = 0; a < ((const kf_accs *)field)->n; a++)
                s->acc[((const kf_accs *)field)->acc[a]] = true;
    }
}

static void see_recipe(seen *s, const kf_recipe *r)
{
    s->recipe[r->op] = true;
    for (uint32_t i = 0; i < r->n_parts; i++)
        see_recipe(s, r->part[i]);
}

static uint32_t see_graph(seen *s, const kf_graph *g)
{
    uint32_t n = g->nodes.len;

    for (uint32_t i = 0; i < g->params.len; i++)
        see_recipe(s, g->recipes.data[i]);
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *node = &g->nodes.data[i];
        s->op[node->op] = true;
        s->feature[FEATURE_STORED_OP] |=
            node->op == KF_OP_attention && KF_ATTR_OF(node, attention)->stored;
        s->feature[FEATURE_STORED_READ] |=
            node->op == KF_OP_kv_read && KF_ATTR_OF(node, kv_read)->stored;
        see_attr(s, node);
        if (node->body)
            n += see_graph(s, node->body);
    }
    return n;
}

static void see_features(seen *s, const kf_module *m)
{
    bool encoder = false, decoder = false, regions = false, ops = false;

    for (uint32_t i = 0; i < m->funcs.len; i++) {
        const kf_graph *g = m->funcs.data[i];
        encoder |= kf_is_encoder(g->name);
        decoder |= kf_is_entry(g->name) && !kf_is_encoder(g->name);
        for (uint32_t n = 0; n < g->nodes.len; n++) {
            const kf_node *node = &g->nodes.data[n];
            regions |= node->op == KF_OP_region;
            ops |= node->op != KF_OP_region && node->op != KF_OP_repeat;
        }
    }
    s->feature[FEATURE_ENCODER] = encoder && !decoder;
    s->feature[FEATURE_MEMORY] = encoder && decoder;
    s->feature[FEATURE_MIXED] = regions && ops;
    s->feature[FEATURE_REGIONS] = regions && !ops;
}

void counters_add_module(counters *c, const kf_module *m, bool given)
{
    seen s = {.op = {0}};

    see_features(&s, m);
    for (uint32_t i = 0; i < m->funcs.len; i++)
        c->nodes += see_graph(&s, m->funcs.data[i]);
    for (uint32_t i = 0; i < FEATURE_COUNT; i++)
        (given ? c->given : c->made)[i] += s.feature[i];
    for (uint32_t i = 0; i < KF_OP_COUNT; i++)
        c->op[i] += s.op[i];
    for (uint32_t i = 0; i < KF_FN_COUNT; i++)
        c->fn[i] += s.fn[i];
    for (uint32_t i = 0; i < KF_ACC_COUNT; i++)
        c->acc[i] += s.acc[i];
    for (uint32_t i = 0; i < KF_RECIPE_COUNT; i++)
        c->recipe[i] += s.recipe[i];
}

void counters_add_passes(counters *c, const kf_pass_ctx *cx, const kf_pass_runs *runs)
{
    bool fired[KF_PASS_COUNT] = {0}, refused[KF_PASS_COUNT] = {0}, idle[KF_PASS_COUNT] = {0};
    bool reason[KF_REASON_COUNT] = {0};

    for (uint32_t i = 0; i < cx->candidates.len; i++) {
        const kf_candidate *k = &cx->candidates.data[i];
        (k->reason ? refused : fired)[k->pass] = true;
        reason[k->reason] = true;
    }
    for (uint32_t i = 0; i < runs->len; i++)
        (runs->data[i].progress ? fired : idle)[runs->data[i].pass] = true;
    for (uint32_t p = 0; p < KF_PASS_COUNT; p++) {
        c->fired[p] += fired[p];
        c->refused[p] += refused[p];
        c->idle[p] += idle[p];
    }
    for (uint32_t r = 0; r < KF_REASON_COUNT; r++)
        c->reason[r] += reason[r];
}

/* ---- reporting ------------------------------------------------------------------------------- */

void counters_print(const counters *c)
{
    printf(
        "%u modules, %u failed, %u nodes each; %u with adversarial values, %u searched for values "
        "without NaN, %u without such values; %u planned, %u with an op without a kernel, %u run\n",
        c->modules, c->failed, c->modules ? c->nodes / c->modules : 0, c->adversarial, c->searched,
        c->not_finite, c->planned, c->no_kernel, c->ran);
    printf("%u forms, %u different ones, %u of them evaluated; CPU time:", c->forms, c->texts,
           c->evaluated);
    for (int i = 0; i < STAGE_COUNT; i++)
        printf("  %s %.2f s", stage_names[i], c->cpu_s[i]);
    printf("\n");
    for (int i = 0; i < KF_OP_COUNT; i++)
        printf("%s%s %u", i % 8 ? "  " : "\n  ", kf_op_infos[i].name, c->op[i]);
    printf("\nin slots:");
    for (int i = 0; i < KF_FN_COUNT; i++)
        printf("%s%s %u", i % 8 ? "  " : "\n  ", kf_fn_infos[i].name, c->fn[i]);
    printf("\naccumulators:");
    for (int i = 0; i < KF_ACC_COUNT; i++)
        printf("  %s %u", kf_acc_infos[i].name, c->acc[i]);
    printf("\nrecipes:");
    for (int i = 0; i < KF_RECIPE_COUNT; i++)
        printf("  %s %u", kf_recipe_infos[i].name, c->recipe[i]);
    printf("\nmodules with, as given and fused:");
    for (int i = 0; i < FEATURE_COUNT; i++)
        printf("  %s %u, %u", feature_names[i], c->given[i], c->made[i]);
    printf("\n%-16s %6s %7s %6s\n", "pass", "fired", "refused", "idle");
    for (int i = 0; i < KF_PASS_COUNT; i++)
        printf("%-16s %6u %7u %6u\n", kf_pass_infos[i].name, c->fired[i], c->refused[i],
               c->idle[i]);
    for (int i = 1; i < KF_REASON_COUNT; i++)
        printf("%s %u  ", kf_reason_codes[i], c->reason[i]);
    printf("\n");
}

static bool reached(uint32_t n, const char *what, const char *name)
{
    if (!n)
        printf("not reached: %s %s\n", what, name);
    return n > 0;
}

bool counters_complete(const counters *c)
{
    bool ok = true;

    for (int i = 0; i < KF_OP_COUNT; i++)
        ok &= reached(c->op[i], "op", kf_op_infos[i].name);
    for (int i = 0; i < KF_FN_COUNT; i++)
        ok &= reached(c->fn[i], "word in a slot", kf_fn_infos[i].name);
    for (int i = 0; i < KF_ACC_COUNT; i++)
        ok &= reached(c->acc[i], "accumulator", kf_acc_infos[i].name);
    for (int i = 0; i < KF_RECIPE_COUNT; i++)
        ok &= reached(c->recipe[i], "recipe", kf_recipe_infos[i].name);
    for (int i = 0; i < FEATURE_COUNT; i++)
        ok &= reached(c->given[i], "given:", feature_names[i]);
    ok &= reached(c->made[FEATURE_STORED_OP], "made:", feature_names[FEATURE_STORED_OP]);
    /* A pass that logs candidates refuses some; the others leave some modules as they are. */
    for (int i = 0; i < KF_PASS_COUNT; i++) {
        ok &= reached(c->fired[i], "fired:", kf_pass_infos[i].name);
        ok &= reached(c->refused[i] + c->idle[i], "refused or idle:", kf_pass_infos[i].name);
    }
    return ok;
}
