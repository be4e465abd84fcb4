/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_diff - two compilations: which regions one has and the other has not, and what each costs.
 *
 * Regions are equal when their bodies print equal without names. The exit status is that of
 * diff(1): 0 the same, 1 different, 2 or more trouble.
 */
#include "driver/cost_report.h"
#include "driver/load.h"
#include "driver/verbs.h"
#include "ir/text.h"

#include <inttypes.h>
#include <string.h>

enum { SAME = 0, DIFFERENT = 1, TROUBLE = 2 };

/** Something that both sides have some of: a region by its body, a weight by its recipe. */
typedef struct item {
    kf_str key, label;
    kf_str kind; /* of two that differ, what makes one the successor of the other */
    int64_t count[2];
} item;

typedef KF_VEC(item) items;

/** A figure of both sides. */
typedef struct figure {
    const char *key, *title;
    int64_t value[2];
} figure;

#define MAX_FIGURES 8

typedef struct section {
    kf_str name; /* of a phase; empty: the plan as a whole */
    figure figure[MAX_FIGURES];
    uint32_t n_figures;
    items items; /* regions, or weights */
} section;

typedef struct comparison {
    kf_arena *arena;
    const char *path[2];
    const kf_plan *plan[2];
    kf_cost_report at;
    KF_VEC(section) sections;
    bool same;
} comparison;

/* ---- gathering ------------------------------------------------------------------------------- */

static void count_item(comparison *d, items *list, int side, item what, int64_t n)
{
    for (uint32_t i = 0; i < list->len; i++) {
        if (!kf_str_eq(list->data[i].key, what.key))
            continue;
        list->data[i].count[side] += n;
        return;
    }
    kf_vec_push(d->arena, list, what);
    list->data[list->len - 1].count[side] = n;
}

static void add_figure(section *s, const char *key, const char *title, int64_t a, int64_t b)
{
    s->figure[s->n_figures++] = (figure){key, title, {a, b}};
}

static kf_str body_key(const comparison *d, const kf_kernel *k)
{
    kf_sbuf text = {.arena = d->arena};

    kf_sbuf_printf(&text, "%s ", kf_family_names[k->family]);
    kf_graph_print(k->body, KF_PRINT_CANONICAL, &text);
    return kf_sbuf_view(&text);
}

static void count_regions(comparison *d, section *s, int side, const kf_plan_phase *ph)
{
    const kf_plan *p = d->plan[side];

    for (uint32_t i = 0; ph && i < ph->steps.len; i++) {
        const kf_plan_step *st = &ph->steps.data[i];
        for (uint32_t l = st->first; l < st->first + st->n; l++) {
            const kf_kernel *k = &p->kernels.data[ph->launches.data[l].kernel];
            item it = {.key = body_key(d, k), .kind = kf_kernel_ops(k, d->arena)};
            it.label = kf_strf(d->arena, "%-10s %.*s: %.*s", kf_family_names[k->family],
                               KF_STR_ARG(k->name), KF_STR_ARG(it.kind));
            count_item(d, &s->items, side, it, st->times);
        }
    }
}

static const kf_plan_phase *find_phase(const kf_plan *p, kf_str name)
{
    for (uint32_t i = 0; i < p->phases.len; i++)
        if (kf_str_eq(p->phases.data[i].name, name))
            return &p->phases.data[i];
    return NULL;
}

static void compare_phase(comparison *d, kf_str name)
{
    section s = {.name = name};
    kf_tally t[2] = {0};
    int64_t per_layer[2] = {0};
    const kf_plan_phase *ph[2];

    for (uint32_t i = 0; i < d->sections.len; i++)
        if (kf_str_eq(d->sections.data[i].name, name))
            return;
    for (int side = 0; side < 2; side++) {
        ph[side] = find_phase(d->plan[side], name);
        if (ph[side]) {
            kf_tally_phase(d->plan[side], ph[side], &d->at.at, &t[side]);
            per_layer[side] = kf_phase_launches_per_layer(d->plan[side], ph[side]);
        }
        count_regions(d, &s, side, ph[side]);
    }
    add_figure(&s, "launches", "launches", t[0].launches, t[1].launches);
    add_figure(&s, "launches_per_layer", "launches a layer", per_layer[0], per_layer[1]);
    add_figure(&s, "flops", "FLOPs", t[0].flops, t[1].flops);
    add_figure(&s, "bytes", "bytes moved", t[0].bytes, t[1].bytes);
    add_figure(&s, "bytes_min", "minimum of bytes", t[0].bytes_min, t[1].bytes_min);
    add_figure(&s, "pool_bytes", "bytes of buffers", ph[0] ? ph[0]->pool_bytes : 0,
               ph[1] ? ph[1]->pool_bytes : 0);
    kf_vec_push(d->arena, &d->sections, s);
}

static int64_t weight_bytes(const kf_plan *p)
{
    int64_t bytes = 0;

    for (uint32_t i = 0; i < p->weights.len; i++)
        bytes += p->weights.data[i].size_bytes * p->weights.data[i].layers;
    return bytes;
}

/* Weights are equal when they are made and stored alike. */
static void compare_weights(comparison *d)
{
    section s = {.name = {"", 0}};

    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < d->plan[side]->weights.len; i++) {
            const kf_plan_weight *w = &d->plan[side]->weights.data[i];
            kf_sbuf key = {.arena = d->arena};
            kf_sbuf_printf(&key, "%.*s ", KF_STR_ARG(w->prefix));
            kf_type_print(d->plan[side]->module, &w->type, &key);
            kf_sbuf_c(&key, " = ");
            kf_recipe_print(d->plan[side]->module, w->recipe, true, &key);
            item it = {.key = kf_sbuf_view(&key), .kind = w->name};
            it.label = kf_strf(d->arena, "weight %.*s", KF_STR_ARG(w->name));
            count_item(d, &s.items, side, it, w->layers);
        }
    }
    add_figure(&s, "kernels", "kernels", d->plan[0]->kernels.len, d->plan[1]->kernels.len);
    add_figure(&s, "weights", "weights", d->plan[0]->weights.len, d->plan[1]->weights.len);
    add_figure(&s, "weight_bytes", "bytes of weights", weight_bytes(d->plan[0]),
               weight_bytes(d->plan[1]));
    kf_vec_push(d->arena, &d->sections, s);
}

/* The plan without its first line, which names the model and the target. */
static kf_str plan_text(const comparison *d, int side)
{
    kf_sbuf text = {.arena = d->arena};

    kf_plan_print(d->plan[side], KF_PRINT_CANONICAL, &text);
    kf_str t = kf_sbuf_view(&text);
    const char *end = memchr(t.ptr, '\n', t.len);
    return (kf_str){end, t.len - (uint32_t)(end - t.ptr)};
}

static void compare(comparison *d)
{
    for (int side = 0; side < 2; side++)
        for (uint32_t i = 0; i < d->plan[side]->phases.len; i++)
            compare_phase(d, d->plan[side]->phases.data[i].name);
    compare_weights(d);
    d->same = kf_str_eq(plan_text(d, 0), plan_text(d, 1)) &&
              kf_str_eq(d->plan[0]->target, d->plan[1]->target);
}

/* ---- printing -------------------------------------------------------------------------------- */

static bool section_differs(const section *s)
{
    for (uint32_t i = 0; i < s->n_figures; i++)
        if (s->figure[i].value[0] != s->figure[i].value[1])
            return true;
    for (uint32_t i = 0; i < s->items.len; i++)
        if (s->items.data[i].count[0] != s->items.data[i].count[1])
            return true;
    return false;
}

/* The end of the line that begins at |at|. */
static uint32_t line_end(kf_str text, uint32_t at)
{
    const char *end = at < text.len ? memchr(text.ptr + at, '\n', text.len - at) : NULL;
    return end ? (uint32_t)(end - text.ptr) : text.len;
}

/* The first line in which the gained |it| differs from a lost one of its kind; false: there is none
 * of its kind. */
static bool first_difference(const section *s, const item *it, kf_str line[2])
{
    const item *old = NULL;

    for (uint32_t i = 0; i < s->items.len && !old; i++) {
        const item *k = &s->items.data[i];
        if (k->count[0] > k->count[1] && kf_str_eq(k->kind, it->kind))
            old = k;
    }
    if (!old)
        return false;
    kf_str text[2] = {old->key, it->key};
    for (uint32_t a = 0, b = 0; a <= text[0].len && b <= text[1].len;) {
        uint32_t end[2] = {line_end(text[0], a), line_end(text[1], b)};
        line[0] = kf_str_trim((kf_str){text[0].ptr + a, end[0] - a});
        line[1] = kf_str_trim((kf_str){text[1].ptr + b, end[1] - b});
        if (!kf_str_eq(line[0], line[1]))
            return true;
        a = end[0] + 1;
        b = end[1] + 1;
    }
    return false;
}

static void print_items(const section *s, int sign)
{
    for (uint32_t i = 0; i < s->items.len; i++) {
        const item *it = &s->items.data[i];
        int64_t more = (it->count[1] - it->count[0]) * sign;
        kf_str line[2];
        if (more <= 0)
            continue;
        printf("  %c %3" PRId64 " x %.*s\n", sign < 0 ? '-' : '+', more, KF_STR_ARG(it->label));
        if (sign > 0 && first_difference(s, it, line))
            printf("          was %.*s\n          is  %.*s\n", KF_STR_ARG(line[0]),
                   KF_STR_ARG(line[1]));
    }
}

static void print_section(const comparison *d, const section *s)
{
    if (s->name.len)
        printf("phase %.*s, %" PRId64 " token%s behind %" PRId64 " in the cache\n",
               KF_STR_ARG(s->name), d->at.tokens, d->at.tokens == 1 ? "" : "s", d->at.past);
    else
        printf("plan\n");
    for (uint32_t i = 0; i < s->n_figures; i++) {
        const figure *f = &s->figure[i];
        if (f->value[0] != f->value[1])
            printf("  %-18s %14" PRId64 " -> %14" PRId64 "  %+" PRId64 "\n", f->title, f->value[0],
                   f->value[1], f->value[1] - f->value[0]);
    }
    print_items(s, -1);
    print_items(s, 1);
}

static void print_text(const comparison *d)
{
    bool any = false;

    if (d->same)
        return;
    printf("--- %s (%.*s, %.*s)\n+++ %s (%.*s, %.*s)\n", d->path[0], KF_STR_ARG(d->plan[0]->name),
           KF_STR_ARG(d->plan[0]->target), d->path[1], KF_STR_ARG(d->plan[1]->name),
           KF_STR_ARG(d->plan[1]->target));
    for (uint32_t i = 0; i < d->sections.len; i++) {
        if (!section_differs(&d->sections.data[i]))
            continue;
        print_section(d, &d->sections.data[i]);
        any = true;
    }
    if (!any)
        printf("the same regions at the same cost; their order, buckets, configurations, bounds or "
               "the "
               "target differ\n");
}

static void json_items(kf_json *w, const section *s, const char *key, int side)
{
    kf_json_key(w, key);
    kf_json_open(w, '[');
    for (uint32_t i = 0; i < s->items.len; i++) {
        const item *it = &s->items.data[i];
        kf_str line[2];
        if (it->count[side] <= it->count[1 - side])
            continue;
        kf_json_open(w, '{');
        kf_json_kint(w, "count", it->count[side] - it->count[1 - side]);
        kf_json_kstr(w, "what", it->label);
        if (side == 1 && first_difference(s, it, line)) {
            kf_json_kstr(w, "was", line[0]);
            kf_json_kstr(w, "is", line[1]);
        }
        kf_json_close(w, '}');
    }
    kf_json_close(w, ']');
}

static void json_section(kf_json *w, const section *s)
{
    for (uint32_t i = 0; i < s->n_figures; i++) {
        kf_json_key(w, s->figure[i].key);
        kf_json_open(w, '[');
        kf_json_int(w, s->figure[i].value[0]);
        kf_json_int(w, s->figure[i].value[1]);
        kf_json_close(w, ']');
    }
    json_items(w, s, "lost", 0);
    json_items(w, s, "gained", 1);
}

static void print_json(const comparison *d)
{
    kf_sbuf text = {.arena = d->arena};
    kf_json w = {.out = &text};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.diff.1"));
    kf_json_kbool(&w, "same", d->same);
    kf_json_kstr(&w, "a", kf_str_from(d->path[0]));
    kf_json_kstr(&w, "b", kf_str_from(d->path[1]));
    kf_json_key(&w, "phases");
    kf_json_open(&w, '{');
    for (uint32_t i = 0; i + 1 < d->sections.len; i++) {
        kf_json_key(&w, kf_str_dup(d->arena, d->sections.data[i].name).ptr);
        kf_json_open(&w, '{');
        json_section(&w, &d->sections.data[i]);
        kf_json_close(&w, '}');
    }
    kf_json_close(&w, '}');
    json_section(&w, &d->sections.data[d->sections.len - 1]);
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
}

int kf_verb_diff(kf_compilation *c)
{
    kf_compilation b = *c;
    comparison d = {.arena = c->arena, .path = {c->opt->operand, c->opt->second}};
    bool ok = kf_cost_point_parse(c, c->opt->at, &d.at) && kf_plan_load(c, d.path[0]) &&
              kf_plan_load(&b, d.path[1]);

    kf_compilation_close(&b);
    if (!ok) /* 1 means "different" here */
        return kf_diags_exit_status(c->diags) == DIFFERENT ? TROUBLE : 0;
    d.plan[0] = c->plan;
    d.plan[1] = b.plan;
    compare(&d);
    if (c->opt->json)
        print_json(&d);
    else
        print_text(&d);
    return d.same ? SAME : DIFFERENT;
}
