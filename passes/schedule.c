/* SPDX-License-Identifier: Apache-2.0 */
/* schedule - Fused graph -> Plan: one launch per region in program order, loops over layers kept.
 *
 * For each phase and row bucket every region gets its kernel (equal ones are shared, also between
 * phases) and its
 * operands are bound: parameters to packed weights (equal recipes are one), caches to states,
 * everything else to buffers. A loop's iteration argument and result live in one buffer; where the
 * old value is still read when the new one is stored, a copy launch stands at the end of the loop.
 * Offsets are plan_buffers' business.
 */
#include "base/check.h"
#include "ir/phase.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/cost.h"
#include "passes/inplace.h"
#include "passes/match.h"
#include "passes/passes.h"

#include <string.h>

/** What a kernel computes: its body as text, and that text with N taken for S. */
typedef struct kernel_text {
    kf_str exact, narrow;
} kernel_text;

typedef struct scheduler {
    kf_plan *p;
    const kf_target *target;
    kf_plan_phase *phase;
    kf_arena *arena;
    KF_VEC(kernel_text) texts; /* by kernel */
} scheduler;

/** Where values of one function live while it is scheduled. */
typedef struct frame {
    const kf_graph *g;
    kf_operand *at;      /* by value */
    kf_str weight_scope; /* "" or "layer." */
    kf_str prefix;       /* of tensor names */
    uint32_t layers;
    kf_serials counted; /* nodes whose cost alone has been counted */
    bool repeated; /* a callee: its launches are one step of its loop, also when it runs once */
} frame;

/* ---- weights, states, buffers ---------------------------------------------------------------- */

static uint32_t get_weight(scheduler *s, const frame *f, uint32_t param)
{
    kf_plan *p = s->p;
    const kf_recipe *r = f->g->recipes.data[param];
    const kf_value_info *v = &f->g->values.data[f->g->params.data[param]];
    kf_str name = kf_strf(s->arena, "%.*s%.*s", KF_STR_ARG(f->weight_scope), KF_STR_ARG(v->name));
    uint32_t same_name = 0;

    for (uint32_t i = 0; i < p->weights.len; i++) {
        const kf_plan_weight *w = &p->weights.data[i];
        if (kf_recipe_eq(w->recipe, r) && kf_type_eq(&w->type, &v->type) &&
            kf_str_eq(w->prefix, f->prefix))
            return i;
        same_name += kf_str_eq(w->name, name);
    }
    if (same_name)
        name = kf_strf(s->arena, "%.*s.%u", KF_STR_ARG(name), p->weights.len);
    int64_t bytes = kf_type_stored_elems(&v->type, NULL) * kf_dtype_infos[v->type.dtype].bytes;
    kf_vec_push(s->arena, &p->weights,
                (kf_plan_weight){name, v->type, r, f->prefix, f->layers, bytes});
    return p->weights.len - 1;
}

/* Upper bounds of the symbols in this bucket. */
static void bucket_bounds(const scheduler *s, int64_t *hi)
{
    const kf_module *m = s->p->module;
    bool one_token = kf_phase_find(s->phase->name)->one_token;

    for (uint32_t i = 0; i < m->syms.len; i++)
        hi[i] = m->syms.data[i].hi;
    hi[KF_SYM_N] = s->phase->rows_hi;
    if (one_token)
        hi[KF_SYM_S] = hi[KF_SYM_R] = s->phase->rows_hi;
}

static kf_operand new_buffer(scheduler *s, const kf_type *t)
{
    int64_t hi[16];

    bucket_bounds(s, hi);
    kf_str name = kf_strf(s->arena, "b%u", s->phase->buffers.len);
    int64_t bytes = kf_type_stored_elems(t, hi) * kf_dtype_infos[t->dtype].bytes;
    kf_vec_push(s->arena, &s->phase->buffers, (kf_buffer){name, *t, 0, bytes, UINT32_MAX});
    return (kf_operand){KF_SPACE_BUFFER, s->phase->buffers.len - 1};
}

/* ---- kernels --------------------------------------------------------------------------------- */

/* N is S in a phase of one token a sequence. */
static uint32_t row_sym(uint32_t sym, bool one_token)
{
    return one_token && sym == KF_SYM_N ? KF_SYM_S : sym;
}

static bool same_shape(const kf_kernel_shape *a, const kf_kernel_shape *b, bool one_token)
{
    bool same = a->config.n == b->config.n && a->scratch_bytes == b->scratch_bytes &&
                a->cells == b->cells && a->shared_bytes == b->shared_bytes &&
                a->tiles.constant == b->tiles.constant && a->tiles.n_terms == b->tiles.n_terms;

    for (uint8_t i = 0; same && i < a->config.n; i++)
        same = a->config.value[i] == b->config.value[i];
    for (uint8_t i = 0; same && i < a->tiles.n_terms; i++)
        same =
            row_sym(a->tiles.term[i].sym, one_token) == row_sym(b->tiles.term[i].sym, one_token) &&
            a->tiles.term[i].div == b->tiles.term[i].div;
    return same;
}

static kf_str body_text(const kf_graph *body, kf_arena *a)
{
    kf_sbuf text = {.arena = a};

    kf_graph_print(body, KF_PRINT_CANONICAL, &text);
    return kf_sbuf_view(&text);
}

static kernel_text text_of(const kf_graph *body, kf_arena *a)
{
    kf_graph *narrow = kf_graph_clone(body, body->name);

    kf_graph_narrow_rows(narrow);
    return (kernel_text){body_text(body, a), body_text(narrow, a)};
}

/* Kernel |i| computes what |k| is to compute. In a phase of one token a sequence, a kernel of rows
 * over N serves rows over S: both numbers are the same in each of its calls. */
static bool same_kernel(const scheduler *s, uint32_t i, const kf_kernel *k, const kernel_text *text)
{
    const kf_kernel *have = &s->p->kernels.data[i];
    const kernel_text *t = &s->texts.data[i];
    bool one_token = kf_phase_find(s->phase->name)->one_token;

    return have->family == k->family && same_shape(&have->shape, &k->shape, one_token) &&
           (one_token ? kf_str_eq(t->narrow, text->narrow) : kf_str_eq(t->exact, text->exact));
}

static uint32_t get_kernel(scheduler *s, const kf_node *region)
{
    kf_plan *p = s->p;
    kf_family family = KF_ATTR_OF(region, region)->family;
    kf_kernel k = {.family = family, .body = region->body, .loc = region->loc};
    kernel_text text = text_of(region->body, s->arena);

    k.shape =
        s->target->configure(s->target, family, region->body, s->phase->rows_lo, s->phase->rows_hi);
    for (uint32_t i = 0; i < p->kernels.len; i++)
        if (same_kernel(s, i, &k, &text))
            return i;
    k.name = kf_strf(s->arena, "k%u_%.*s", p->kernels.len, KF_STR_ARG(region->name));
    kf_vec_push(s->arena, &p->kernels, k);
    kf_vec_push(s->arena, &s->texts, text);
    return p->kernels.len - 1;
}

/* The body argument whose state a kvcache result is. */
static uint32_t state_arg(const kf_graph *body, kf_value v)
{
    const kf_node *n = kf_value_node(body, v);

    return n ? state_arg(body, n->in[0]) : body->values.data[v].def;
}

/* |body| is the region's own: a kernel that it shares with another one has that one's nodes.
 * |counted| as in kf_region_alone. */
static void push_launch(scheduler *s, uint32_t kernel, const kf_graph *body, kf_serials *counted,
                        uint32_t n, kf_operand *operand, kf_loc loc)
{
    kf_launch l = {.kernel = kernel, .n_operands = n, .operand = operand, .loc = loc};

    kf_region_cost(body, &l.flops, &l.bytes);
    kf_region_alone(body, s->arena, counted, &l.ops, &l.alone);
    kf_vec_push(s->arena, &s->phase->launches, l);
}

static void schedule_region(scheduler *s, frame *f, const kf_node *n)
{
    uint32_t total = n->n_in + n->n_out;
    kf_operand *operand = KF_NEW_N(s->arena, kf_operand, total);

    for (uint32_t i = 0; i < n->n_in; i++)
        operand[i] = f->at[n->in[i]];
    for (uint32_t r = 0; r < n->n_out; r++) {
        const kf_type *t = kf_value_type(f->g, n->out[r]);
        if (t->kind == KF_TYPE_KVCACHE)
            f->at[n->out[r]] = operand[state_arg(n->body, n->body->results.data[r])];
        else if (f->at[n->out[r]].index == UINT32_MAX) /* not bound beforehand to a loop's buffer */
            f->at[n->out[r]] = new_buffer(s, t);
        operand[n->n_in + r] = f->at[n->out[r]];
    }
    push_launch(s, get_kernel(s, n), n->body, &f->counted, total, operand, n->loc);
}

/* A launch that copies |from| to |to|. */
static void schedule_copy(scheduler *s, const kf_type *t, kf_operand from, kf_operand to,
                          kf_loc loc)
{
    kf_graph *body = kf_graph_create(s->p->module);
    kf_value x = kf_graph_add_arg(body, *t, KF_STR("x"), loc);
    kf_graph_add_result(body, kf_node_add(body, KF_OP_convert, NULL, 1, &x, t, loc));
    kf_attr_region attr = {.family = KF_FAMILY_map};
    kf_node region = {
        .op = KF_OP_region, .attr = &attr, .body = body, .name = KF_STR("copy"), .loc = loc};
    kf_operand *operand = KF_NEW_N(s->arena, kf_operand, 2);

    operand[0] = from;
    operand[1] = to;
    kf_serials counted = {0};
    push_launch(s, get_kernel(s, &region), body, &counted, 2, operand, loc);
}

/* ---- functions ------------------------------------------------------------------------------- */

static void push_step(scheduler *s, uint32_t first, uint32_t times, bool loop)
{
    uint32_t n = s->phase->launches.len - first;

    if (n)
        kf_vec_push(s->arena, &s->phase->steps, (kf_plan_step){first, n, times, loop, 0});
}

static frame new_frame(scheduler *s, const kf_graph *g, kf_str scope, kf_str prefix,
                       uint32_t layers, bool repeated)
{
    frame f = {.g = g,
               .at = KF_NEW_N(s->arena, kf_operand, g->values.len),
               .weight_scope = scope,
               .prefix = prefix,
               .layers = layers,
               .repeated = repeated};

    for (uint32_t v = 0; v < g->values.len; v++)
        f.at[v] = (kf_operand){KF_SPACE_BUFFER, UINT32_MAX};
    for (uint32_t i = 0; i < g->params.len; i++)
        f.at[g->params.data[i]] = (kf_operand){KF_SPACE_WEIGHT, get_weight(s, &f, i)};
    return f;
}

static bool used_after(const kf_graph *g, kf_value v, const kf_node *after)
{
    if (kf_value_is_result(g, v))
        return true;
    for (uint32_t i = (uint32_t)(after - g->nodes.data) + 1; i < g->nodes.len; i++)
        for (uint32_t j = 0; j < g->nodes.data[i].n_in; j++)
            if (g->nodes.data[i].in[j] == v)
                return true;
    return false;
}

/* True if the result |v| of the callee may be stored over its argument |arg|: nothing reads the
 * argument at or after the region that stores |v|, except that region itself element by element. */
static bool may_overwrite(const kf_graph *g, kf_value arg, kf_value v)
{
    const kf_node *def = kf_value_node(g, v);

    if (!def || def->op != KF_OP_region || used_after(g, arg, def))
        return false;
    for (uint32_t j = 0; j < def->n_in; j++)
        if (def->in[j] == arg && !kf_region_in_place(def, j, g->values.data[v].result))
            return false;
    return true;
}

static void schedule_loop(scheduler *s, frame *outer, const kf_node *n);

static void schedule_nodes(scheduler *s, frame *f)
{
    uint32_t first = s->phase->launches.len;

    for (uint32_t i = 0; i < f->g->nodes.len; i++) {
        const kf_node *n = &f->g->nodes.data[i];
        if (n->op == KF_OP_region) {
            schedule_region(s, f, n);
            continue;
        }
        KF_ASSERT(n->op == KF_OP_repeat && !f->repeated,
                  "a fused function holds regions, and main repeats");
        push_step(s, first, 1, false);
        schedule_loop(s, f, n);
        first = s->phase->launches.len;
    }
    if (!f->repeated)
        push_step(s, first, 1, false);
}

/* True if another iteration argument before |i|, or an invariant, is the same value. */
static bool taken(const kf_node *repeat, uint32_t i)
{
    uint32_t iter = (uint32_t)KF_ATTR_OF(repeat, repeat)->iter;

    for (uint32_t j = 0; j < repeat->n_in; j++)
        if ((j < i || j >= iter) && repeat->in[j] == repeat->in[i])
            return true;
    return false;
}

/* The buffer that carries iteration argument |i|: the one of its first value where that dies here.
 */
static kf_operand loop_buffer(scheduler *s, frame *outer, const kf_node *n, uint32_t i)
{
    kf_operand init = outer->at[n->in[i]];
    const kf_type *t = kf_value_type(outer->g, n->in[i]);

    if (init.space == KF_SPACE_BUFFER && !used_after(outer->g, n->in[i], n) && !taken(n, i))
        return init;
    uint32_t first = s->phase->launches.len;
    kf_operand own = new_buffer(s, t);
    schedule_copy(s, t, init, own, n->loc);
    push_step(s, first, 1, false);
    return own;
}

/* Which results are copied to their arguments at the end of a round; the others are stored there.
 */
static bool *bind_results(scheduler *s, frame *f, uint32_t iter)
{
    const kf_graph *g = f->g;
    bool *copy = KF_NEW_N(s->arena, bool, iter);

    for (uint32_t i = 0; i < iter; i++) {
        kf_value result = g->results.data[i];
        bool bound = f->at[result].index != UINT32_MAX; /* returned twice, or an argument */
        copy[i] = bound || !may_overwrite(g, g->args.data[i], result);
        if (!copy[i])
            f->at[result] = f->at[g->args.data[i]];
    }
    return copy;
}

static bool same_place(kf_operand a, kf_operand b)
{
    return a.space == b.space && a.index == b.index;
}

/* All copies at once, as it were: what an earlier one would overwrite is put aside first. */
static void schedule_copies(scheduler *s, const frame *f, uint32_t iter, const bool *copy,
                            kf_loc loc)
{
    const kf_graph *g = f->g;
    kf_operand *from = KF_NEW_N(s->arena, kf_operand, iter);

    for (uint32_t i = 0; i < iter; i++) {
        from[i] = f->at[g->results.data[i]];
        for (uint32_t j = 0; j < i && copy[i]; j++) {
            if (!copy[j] || !same_place(from[i], f->at[g->args.data[j]]))
                continue;
            kf_operand aside = new_buffer(s, kf_value_type(g, g->results.data[i]));
            schedule_copy(s, kf_value_type(g, g->results.data[i]), from[i], aside, loc);
            from[i] = aside;
        }
    }
    for (uint32_t i = 0; i < iter; i++)
        if (copy[i] && !same_place(from[i], f->at[g->args.data[i]]))
            schedule_copy(s, kf_value_type(g, g->results.data[i]), from[i], f->at[g->args.data[i]],
                          loc);
}

static void schedule_loop(scheduler *s, frame *outer, const kf_node *n)
{
    const kf_attr_repeat *attr = KF_ATTR_OF(n, repeat);
    const kf_graph *g = kf_module_find_func(s->p->module, attr->callee);
    kf_str scope = kf_strf(s->arena, "%.*s.", KF_STR_ARG(kf_func_base_name(g->name)));
    frame f = new_frame(s, g, scope, attr->weights, (uint32_t)attr->times, true);
    uint32_t iter = (uint32_t)attr->iter;

    for (uint32_t i = 0; i < n->n_in; i++)
        f.at[g->args.data[i]] = i < iter ? loop_buffer(s, outer, n, i) : outer->at[n->in[i]];
    const bool *copy = bind_results(s, &f, iter);
    uint32_t first = s->phase->launches.len;
    schedule_nodes(s, &f);
    schedule_copies(s, &f, iter, copy, n->loc);
    push_step(s, first, (uint32_t)attr->times, true);
    for (uint32_t r = 0; r < n->n_out; r++)
        outer->at[n->out[r]] = r < iter ? f.at[g->args.data[r]] : f.at[g->results.data[r]];
}

/* ---- phases ---------------------------------------------------------------------------------- */

/* Entries share inputs and states by name. */
static uint32_t get_input(scheduler *s, const kf_value_info *v)
{
    kf_plan *p = s->p;

    for (uint32_t i = 0; i < p->inputs.len; i++)
        if (kf_str_eq(p->inputs.data[i].name, v->name))
            return i;
    kf_vec_push(s->arena, &p->inputs, (kf_plan_input){v->name, v->type});
    return p->inputs.len - 1;
}

static uint32_t get_state(scheduler *s, const kf_value_info *v)
{
    kf_plan *p = s->p;

    for (uint32_t i = 0; i < p->states.len; i++)
        if (kf_str_eq(p->states.data[i].name, v->name))
            return i;
    kf_vec_push(s->arena, &p->states, (kf_plan_state){v->name, v->type});
    return p->states.len - 1;
}

static void bind_inputs(scheduler *s, frame *f)
{
    for (uint32_t i = 0; i < f->g->args.len; i++) {
        const kf_value_info *v = &f->g->values.data[f->g->args.data[i]];
        bool state = v->type.kind == KF_TYPE_KVCACHE;
        f->at[f->g->args.data[i]] = state ? (kf_operand){KF_SPACE_STATE, get_state(s, v)}
                                          : (kf_operand){KF_SPACE_INPUT, get_input(s, v)};
    }
}

/* The second result is the likeliest token behind each row of the first. */
static bool chooses(const kf_graph *g)
{
    if (g->results.len < 2 || !kf_value_node(g, g->results.data[1]))
        return false;
    const kf_type *t = kf_value_type(g, g->results.data[1]);
    const kf_type *logits = kf_value_type(g, g->results.data[0]);
    return t->kind == KF_TYPE_TENSOR && t->dtype == KF_DTYPE_i32 && t->rank == 2 &&
           kf_dim_eq(t->dim[0], logits->dim[0]) && kf_dim_eq(t->dim[1], kf_dim_static(1));
}

static void schedule_phase(scheduler *s, const kf_graph *g, kf_str name, int64_t lo, int64_t hi)
{
    kf_vec_push(s->arena, &s->p->phases,
                (kf_plan_phase){.name = name, .rows_lo = lo, .rows_hi = hi});
    s->phase = &s->p->phases.data[s->p->phases.len - 1];
    frame f = new_frame(s, g, (kf_str){"", 0}, (kf_str){"", 0}, 1, false);
    bind_inputs(s, &f);
    schedule_nodes(s, &f);
    kf_operand logits = f.at[g->results.data[0]];
    KF_ASSERT(logits.space == KF_SPACE_BUFFER, "the first result of an entry is computed");
    s->phase->logits = logits.index;
    s->phase->next = chooses(g) ? f.at[g->results.data[1]].index : UINT32_MAX;
}

static bool regions_match(const kf_graph *g, const kf_target *target, kf_sbuf *why)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_region &&
            !target->match(target, KF_ATTR_OF(n, region)->family, n->body, why))
            return false;
    }
    return true;
}

/* The first result is stored by a region: no argument, and no cache. */
static bool makes_logits(const kf_graph *g)
{
    return g && g->results.len && kf_value_node(g, g->results.data[0]) &&
           kf_value_type(g, g->results.data[0])->kind == KF_TYPE_TENSOR;
}

static const kf_graph *phase_func(const kf_module *m, const kf_phase_info *ph)
{
    return kf_module_find_func(m, kf_strf(m->arena, "%s.%s", ph->entry, ph->name));
}

/* One entry is there, with all its phases. */
static bool has_phases(const kf_module *m)
{
    bool any = false;

    for (uint32_t i = 0; i < KF_PHASE_ID_COUNT; i++) {
        const kf_phase_info *ph = &kf_phase_infos[i];
        bool here = makes_logits(phase_func(m, ph));
        for (uint32_t j = 0; j < KF_PHASE_ID_COUNT; j++)
            if (!strcmp(kf_phase_infos[j].entry, ph->entry) &&
                here != makes_logits(phase_func(m, &kf_phase_infos[j])))
                return false;
        any = any || here;
    }
    return any;
}

bool kf_schedule_can(const kf_module *m, const kf_target *target, kf_sbuf *why)
{
    if (!has_phases(m)) {
        kf_sbuf_c(why, "@main, or @main.prefill and @main.decode that return logits, or @encoder, "
                       "are missing");
        return false;
    }
    if (!kf_module_has_model_dims(m)) {
        kf_sbuf_c(why, "its first dims are not S and N");
        return false;
    }
    bool ok = kf_module_verify(m, KF_VERIFY_FUSED, why);
    for (uint32_t i = 0; ok && i < m->funcs.len; i++)
        ok = regions_match(m->funcs.data[i], target, why);
    return ok;
}

kf_plan *kf_schedule(const kf_module *m, const kf_target *target, kf_arena *arena)
{
    kf_plan *p = KF_NEW(arena, kf_plan);
    scheduler s = {.p = p, .target = target, .arena = arena};
    int64_t tokens = m->syms.data[KF_SYM_N].hi, seqs = m->syms.data[KF_SYM_S].hi;

    p->arena = arena;
    p->module = (kf_module *)(uintptr_t)m;
    p->name = m->name;
    p->target = kf_str_from(target->name);
    for (uint32_t i = 0; i < KF_PHASE_ID_COUNT; i++) {
        const kf_phase_info *ph = &kf_phase_infos[i];
        kf_str name = kf_str_from(ph->name);
        const kf_graph *g = phase_func(m, ph);
        if (!g)
            continue;
        schedule_phase(&s, g, name, 1, ph->one_token ? 1 : tokens);
        if (ph->one_token && seqs > 1)
            schedule_phase(&s, g, name, 2, seqs);
    }
    KF_ASSERT(p->phases.len, "phases has run");
    kf_plan_buffers(p);
    return p;
}
