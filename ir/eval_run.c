/* SPDX-License-Identifier: Apache-2.0 */
/* eval_run - whole modules: weights by recipe, inputs of a ragged call by name, caches kept between
 * calls. */
#include "ir/eval_impl.h"
#include "ir/phase.h"
#include "ir/recipe_eval.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A weight as it was computed once. */
typedef struct loaded {
    const kf_recipe *recipe;
    kf_str prefix;
    uint32_t layer;
    kf_tensor value;
} loaded;

/** A cache argument of the entries, by name. */
typedef struct cache {
    kf_str name;
    kf_eval_kv *kv;
} cache;

struct kf_eval {
    kf_arena *arena;
    const kf_module *m;
    kf_eval_mode mode;
    const kf_tensor_source *source;
    uint32_t n_seqs;
    uint32_t *n_tokens; /* of each sequence */
    uint32_t *n_memory; /* that the encoder took of each */
    KF_VEC(cache) caches;
    KF_VEC(loaded) weights;
    kf_sbuf *why; /* of the running call */
    kf_eval_trace_fn trace;
    void *trace_user;
};

kf_eval *kf_eval_create(kf_arena *arena, const kf_module *m, kf_eval_mode mode,
                        const kf_tensor_source *weights, uint32_t seqs)
{
    kf_eval *e = KF_NEW(arena, kf_eval);
    e->arena = arena;
    e->m = m;
    e->mode = mode;
    e->source = weights;
    e->n_seqs = seqs;
    e->n_tokens = KF_NEW_N(arena, uint32_t, seqs ? seqs : 1);
    e->n_memory = KF_NEW_N(arena, uint32_t, seqs ? seqs : 1);
    return e;
}

static bool refuse(kf_eval *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(kf_eval *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (e->why)
        kf_sbuf_vprintf(e->why, fmt, ap);
    va_end(ap);
    return false;
}

/* ---- weights --------------------------------------------------------------------------------- */

static bool make_weight(kf_eval *e, const kf_recipe *r, kf_str prefix, uint32_t layer,
                        kf_tensor *out)
{
    kf_arena *scratch = kf_arena_create("weight");
    kf_recipe_reader *rd;
    kf_str name = {0};
    int64_t dim[KF_MAX_RANK];
    int err =
        kf_recipe_reader_open(scratch, e->source, r, prefix, layer, KF_RECIPE_EXACT, &rd, &name);

    for (uint8_t d = 0; d < r->type.rank; d++)
        dim[d] = r->type.dim[d].size;
    *out = kf_tensor_new(e->arena, r->type.rank, dim);
    for (int64_t i = 0; !err && i < dim[0]; i++)
        err = kf_recipe_read_row(rd, (uint64_t)i, out->data + i * (out->n / dim[0]), &name);
    for (int64_t i = 0; !err && e->mode == KF_EVAL_ROUNDED && i < out->n; i++)
        out->data[i] = kf_round_to(r->type.dtype, out->data[i]);
    if (err == ENOENT)
        refuse(e, "no tensor '%.*s'", KF_STR_ARG(name));
    else if (err == EINVAL)
        refuse(e, "tensor '%.*s' has another type than its recipe", KF_STR_ARG(name));
    else if (err)
        refuse(e, "tensor '%.*s': %s", KF_STR_ARG(name), strerror(err));
    kf_arena_destroy(scratch);
    return !err;
}

/* Phases share weights: they are found by recipe, not by parameter. */
static bool get_weight(kf_eval *e, const kf_recipe *r, kf_str prefix, uint32_t layer,
                       kf_tensor *out)
{
    for (uint32_t i = 0; i < e->weights.len; i++) {
        const loaded *w = &e->weights.data[i];
        if (w->layer == layer && kf_str_eq(w->prefix, prefix) && kf_recipe_eq(w->recipe, r)) {
            *out = w->value;
            return true;
        }
    }
    loaded w = {r, prefix, layer, {0}};
    if (!make_weight(e, r, prefix, layer, &w.value))
        return false;
    kf_vec_push(e->arena, &e->weights, w);
    *out = w.value;
    return true;
}

static bool layer_weight(void *user, const kf_graph *callee, uint32_t param, kf_str prefix,
                         uint32_t layer, kf_tensor *out)
{
    return get_weight(user, callee->recipes.data[param], prefix, layer, out);
}

/* Everything that a run of |g| will ask for: a run's own memory is dropped at its end, weights
 * stay. */
static bool load_all(kf_eval *e, const kf_graph *g, kf_str prefix, uint32_t layer)
{
    kf_tensor ignored;
    for (uint32_t i = 0; i < g->params.len; i++) {
        if (!get_weight(e, g->recipes.data[i], prefix, layer, &ignored))
            return false;
    }
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op != KF_OP_repeat)
            continue;
        const kf_attr_repeat *a = KF_ATTR_OF(n, repeat);
        const kf_graph *callee = kf_module_find_func(e->m, a->callee);
        for (uint32_t l = 0; l < a->times; l++) {
            if (!load_all(e, callee, a->weights, l))
                return false;
        }
    }
    return true;
}

/* ---- a call ---------------------------------------------------------------------------------- */

/* Tokens that sequence |s| of the call held before it; an encoder takes whole ones. */
static uint32_t past_of(const kf_eval *e, const kf_graph *g, const kf_eval_step *step, uint32_t s)
{
    return kf_is_encoder(g->name) ? 0 : e->n_tokens[step->seq[s]];
}

static bool check_step(kf_eval *e, const kf_graph *g, const kf_eval_step *step, bool all_rows,
                       int64_t *sym_values)
{
    int64_t n = 0, keys = 0, memory = 0;
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        if (step->seq[s] >= e->n_seqs)
            return refuse(e, "sequence %" PRIu32 " of %" PRIu32, step->seq[s], e->n_seqs);
        n += step->n_tokens[s];
        keys += (int64_t)past_of(e, g, step, s) + step->n_tokens[s];
        memory += kf_is_encoder(g->name) ? step->n_tokens[s] : e->n_memory[step->seq[s]];
        if (!step->n_tokens[s])
            return refuse(e, "sequence %" PRIu32 " has no new token", step->seq[s]);
    }
    if (e->m->syms.len != KF_SYM_STANDARD && e->m->syms.len != KF_SYM_MEMORY)
        return refuse(e, "the module has other dims than a decoder's");
    sym_values[KF_SYM_S] = step->n_seqs;
    sym_values[KF_SYM_N] = n;
    sym_values[KF_SYM_R] = all_rows ? n : step->n_seqs;
    sym_values[KF_SYM_K] = keys;
    sym_values[KF_SYM_M] = memory;
    for (uint32_t i = 0; i < e->m->syms.len; i++) {
        const kf_sym *sym = &e->m->syms.data[i];
        bool any = i == KF_SYM_R && all_rows; /* the reference may show every row */
        if (!any && (sym_values[i] < sym->lo || sym_values[i] > sym->hi))
            return refuse(e, "%.*s is %" PRId64 ", not in %" PRId64 "..%" PRId64,
                          KF_STR_ARG(sym->name), sym_values[i], sym->lo, sym->hi);
    }
    return true;
}

/* By-token and by-sequence inputs; pages stay 0, caches of the evaluator have none. */
static void fill_input(const kf_eval *e, const kf_graph *g, const kf_eval_step *step, bool all_rows,
                       kf_input_id which, kf_tensor *t)
{
    int64_t row = 0;
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        uint32_t past = past_of(e, g, step, s);
        if (which == KF_INPUT_ID_seq_start)
            t->data[s] = (double)row;
        if (which == KF_INPUT_ID_past)
            t->data[s] = past;
        if (which == KF_INPUT_ID_memory_len)
            t->data[s] = e->n_memory[step->seq[s]];
        for (uint32_t i = 0; i < step->n_tokens[s]; i++, row++) {
            if (which == KF_INPUT_ID_ids)
                t->data[row] = step->tokens[s][i];
            if (which == KF_INPUT_ID_pos)
                t->data[row] = (double)past + i;
            if (which == KF_INPUT_ID_seq)
                t->data[row] = s;
            if (which == KF_INPUT_ID_types && step->types)
                t->data[row] = step->types[s][i];
            if (which == KF_INPUT_ID_logit_rows && all_rows)
                t->data[row] = (double)row;
        }
        if (which == KF_INPUT_ID_logit_rows && !all_rows)
            t->data[s] = (double)(row - 1);
    }
}

static kf_eval_kv *get_cache(kf_eval *e, kf_str name, const kf_type *type)
{
    for (uint32_t i = 0; i < e->caches.len; i++)
        if (kf_str_eq(e->caches.data[i].name, name))
            return e->caches.data[i].kv;
    kf_tensor t = kf_tensor_new_kv(e->arena, type, e->mode, e->n_seqs, 0);
    kf_vec_push(e->arena, &e->caches, (cache){name, t.kv});
    return t.kv;
}

/* Caches live as long as the evaluator, inputs as long as the call. */
static bool bind_caches(kf_eval *e, const kf_graph *g, const kf_eval_step *step, kf_tensor *args)
{
    for (uint32_t i = 0; i < g->args.len; i++) {
        kf_str name = g->values.data[g->args.data[i]].name;
        const kf_type *type = kf_value_type(g, g->args.data[i]);
        if (type->kind != KF_TYPE_KVCACHE)
            continue;
        kf_eval_kv *kv = get_cache(e, name, type);
        if (!kf_type_eq(&kv->type, type))
            return refuse(e, "phases disagree about cache '%.*s'", KF_STR_ARG(name));
        for (uint32_t s = 0; s < step->n_seqs; s++)
            kf_eval_kv_reserve(e->arena, kv, step->seq[s],
                               (int64_t)past_of(e, g, step, s) + step->n_tokens[s]);
        args[i].kv = kv;
        kv->slot = step->seq;
    }
    return true;
}

static bool bind_inputs(kf_eval *e, const kf_graph *g, const kf_eval_step *step, bool all_rows,
                        const int64_t *sym_values, kf_tensor *args)
{
    for (uint32_t i = 0; i < g->args.len; i++) {
        const kf_value_info *v = &g->values.data[g->args.data[i]];
        int64_t dim[KF_MAX_RANK];
        kf_input_id which = kf_input_find(v->name);
        if (args[i].kv)
            continue;
        if (which == KF_INPUT_ID_COUNT)
            return refuse(e, "@%.*s has an input '%.*s' that no call gives", KF_STR_ARG(g->name),
                          KF_STR_ARG(v->name));
        for (uint8_t d = 0; d < v->type.rank; d++)
            dim[d] = kf_dim_value(v->type.dim[d], sym_values);
        args[i] = kf_tensor_new(e->arena, v->type.rank, dim);
        static const uint32_t by_seq =
            1u << KF_INPUT_ID_seq_start | 1u << KF_INPUT_ID_past | 1u << KF_INPUT_ID_memory_len;
        int64_t want = which == KF_INPUT_ID_logit_rows ? sym_values[KF_SYM_R]
                       : by_seq >> which & 1           ? sym_values[KF_SYM_S]
                                                       : sym_values[KF_SYM_N];
        if (which == KF_INPUT_ID_pages || which == KF_INPUT_ID_memory_pages)
            continue;
        if (args[i].n != want)
            return refuse(e, "input '%.*s' takes %" PRId64 " numbers, the call has %" PRId64,
                          KF_STR_ARG(v->name), args[i].n, want);
        fill_input(e, g, step, all_rows, which, &args[i]);
    }
    return true;
}

/* The run itself, in memory that is given back; |logits| is the caller's to free. */
static bool run_graph(kf_eval *e, const kf_graph *g, const kf_eval_step *step, bool all_rows,
                      const int64_t *sym_values, kf_tensor *args, kf_tensor *out, double **logits)
{
    kf_eval_ctx ctx = {.arena = e->arena,
                       .m = e->m,
                       .mode = e->mode,
                       .sym_values = sym_values,
                       .weights = layer_weight,
                       .user = e,
                       .why = e->why,
                       .trace = e->trace,
                       .trace_user = e->trace_user};
    kf_tensor *params = KF_NEW_N(e->arena, kf_tensor, g->params.len ? g->params.len : 1);
    kf_tensor results[KF_MAX_RESULTS];
    if (g->results.len < 1 || g->results.len > KF_MAX_RESULTS)
        return refuse(e, "@%.*s returns no logits", KF_STR_ARG(g->name));
    for (uint32_t i = 0; i < g->params.len; i++) {
        if (!get_weight(e, g->recipes.data[i], KF_STR(""), 0, &params[i]))
            return false;
    }
    if (!bind_inputs(e, g, step, all_rows, sym_values, args) ||
        !kf_eval_values(&ctx, g, false, args, params, results))
        return false;
    size_t size_bytes = (size_t)results[0].n * sizeof(double);
    *logits = malloc(size_bytes ? size_bytes : 1);
    if (!*logits)
        return refuse(e, "no memory for %zu bytes of logits", size_bytes);
    memcpy(*logits, results[0].data, size_bytes);
    *out = results[0];
    return true;
}

bool kf_eval_run(kf_eval *e, const char *func, const kf_eval_step *step, bool all_rows,
                 kf_tensor *out_logits, kf_sbuf *why)
{
    const kf_graph *g = kf_module_find_func(e->m, kf_str_from(func));
    int64_t sym_values[KF_SYM_MEMORY];
    double *logits = NULL;
    e->why = why;
    if (!g)
        return refuse(e, "no function @%s", func);
    if (!check_step(e, g, step, all_rows, sym_values) || !load_all(e, g, KF_STR(""), 0))
        return false;
    kf_tensor *args = KF_NEW_N(e->arena, kf_tensor, g->args.len ? g->args.len : 1);
    if (!bind_caches(e, g, step, args))
        return false;
    kf_arena_mark mark = kf_arena_save(e->arena);
    bool ok = run_graph(e, g, step, all_rows, sym_values, args, out_logits, &logits);
    /* The sentence may lie in the memory that is given back. */
    if (ok || !why || why->arena != e->arena)
        kf_arena_restore(e->arena, mark);
    if (!ok)
        return false;
    *out_logits = kf_tensor_new(e->arena, out_logits->rank, out_logits->dim);
    memcpy(out_logits->data, logits, (size_t)out_logits->n * sizeof(double));
    free(logits);
    for (uint32_t s = 0; s < step->n_seqs; s++)
        if (kf_is_encoder(g->name))
            e->n_memory[step->seq[s]] = step->n_tokens[s];
        else
            e->n_tokens[step->seq[s]] += step->n_tokens[s];
    return true;
}

void kf_eval_trace(kf_eval *e, kf_eval_trace_fn fn, void *user)
{
    e->trace = fn;
    e->trace_user = user;
}
