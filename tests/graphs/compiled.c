/* SPDX-License-Identifier: Apache-2.0 */
/* compiled - see compiled.h. */
#include "tests/graphs/compiled.h"

#include "codegen/cpu/kernel_loader.h"
#include "codegen/kernel.h"
#include "ir/convert.h"
#include "ir/recipe_eval.h"

#include <math.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

enum { MAX_SEQS = 3, PAGES = 8, ALIGN = 64 };

struct compiled {
    kf_arena *arena;
    const kf_plan *p;
    kf_kernel_library *lib;
    kf_kernel_fn *fn; /* by kernel */
    char ***weight;   /* by weight, layer */
    char **state;
    uint32_t past[MAX_SEQS];   /* tokens of each sequence in the caches, */
    uint32_t memory[MAX_SEQS]; /* in the memory of an encoder */
};

/** One call on its way. */
typedef struct call {
    compiled *c;
    const kf_eval_step *step;
    kf_phase_id id;
    const kf_plan_phase *phase;
    int64_t sym[KF_SYM_MEMORY];
    char **input;
    char *pool;
    void *scratch, *cells, *shared;
} call;

static void *memory(kf_arena *arena, int64_t bytes)
{
    char *p = kf_arena_alloc(arena, (size_t)bytes + ALIGN, ALIGN);

    memset(p, 0xff, (size_t)bytes + ALIGN); /* NaN in every float format */
    return p;
}

/* ---- opening --------------------------------------------------------------------------------- */

static bool emit(compiled *c, const kf_target *target, kf_sbuf *why)
{
    kf_str error = {0};
    kf_llvm_options options = {.sanitize = SANITIZED};

    kf_cpu_arch_find("x86-64-v3", &options.arch);
    kf_llvm *ll = kf_llvm_create(c->arena, "graph", &options, &error);
    if (!ll) {
        kf_sbuf_str(why, error);
        return false;
    }
    bool ok = true;
    for (uint32_t i = 0; ok && i < c->p->kernels.len; i++)
        ok = kf_kernel_emit(ll, c->arena, target, c->p, &c->p->kernels.data[i], why);
    if (ok) {
        kf_llvm_optimize(ll);
        c->lib = kf_kernel_library_open(c->arena, kf_llvm_emit_object(ll, c->arena), &error);
        if (!c->lib)
            kf_sbuf_str(why, error);
    }
    kf_llvm_destroy(ll);
    if (!c->lib)
        return false;
    c->fn = KF_NEW_N(c->arena, kf_kernel_fn, c->p->kernels.len);
    for (uint32_t i = 0; i < c->p->kernels.len; i++)
        c->fn[i] =
            kf_kernel_library_find(c->lib, kf_str_dup(c->arena, c->p->kernels.data[i].name).ptr);
    return true;
}

static bool place_weight(compiled *c, const kf_plan_weight *w, uint32_t layer,
                         const kf_tensor_source *source, char *to, kf_sbuf *why)
{
    const uint32_t size = kf_dtype_infos[w->type.dtype].bytes;
    const int64_t rows = w->type.dim[0].size, width = kf_type_static_elems(&w->type) / rows;
    char *row = kf_arena_alloc(c->arena, (size_t)(width * size), 8);
    kf_recipe_reader *reader;
    kf_str name = {0};

    memset(to, 0, (size_t)w->size_bytes);
    int err = kf_recipe_reader_open(c->arena, source, w->recipe, w->prefix, layer, KF_RECIPE_STORED,
                                    &reader, &name);
    for (int64_t i = 0; !err && i < rows; i++) {
        err = kf_recipe_read_row(reader, (uint64_t)i, row, &name);
        for (int64_t j = 0; !err && j < width; j++) {
            int64_t at = w->type.layout.n_splits ? kf_layout_offset(&w->type, (int64_t[]){i, j})
                                                 : i * width + j;
            memcpy(to + at * size, row + j * size, size);
        }
    }
    if (err)
        kf_sbuf_printf(why, "weight %.*s: error %d", KF_STR_ARG(name), err);
    return !err;
}

static bool load_weights(compiled *c, const kf_tensor_source *source, kf_sbuf *why)
{
    c->weight = KF_NEW_N(c->arena, char **, c->p->weights.len);
    for (uint32_t i = 0; i < c->p->weights.len; i++) {
        const kf_plan_weight *w = &c->p->weights.data[i];
        c->weight[i] = KF_NEW_N(c->arena, char *, w->layers);
        for (uint32_t l = 0; l < w->layers; l++) {
            c->weight[i][l] = memory(c->arena, w->size_bytes + 4096); /* kernels read ahead */
            if (!place_weight(c, w, l, source, c->weight[i][l], why))
                return false;
        }
    }
    return true;
}

compiled *compiled_open(kf_arena *arena, const kf_plan *p, const kf_target *target,
                        const kf_tensor_source *weights, kf_sbuf *why)
{
    compiled *c = KF_NEW(arena, compiled);

    c->arena = arena;
    c->p = p;
    if (!emit(c, target, why))
        return NULL;
    c->state = KF_NEW_N(arena, char *, p->states.len);
    for (uint32_t i = 0; i < p->states.len; i++) {
        const kf_type *t = &p->states.data[i].type;
        c->state[i] = memory(arena, MAX_SEQS * PAGES * t->kv_layers * kf_kvcache_page_bytes(t));
    }
    if (load_weights(c, weights, why))
        return c;
    compiled_close(c);
    return NULL;
}

void compiled_close(compiled *c)
{
    kf_kernel_library_close(c->lib);
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static bool is_encoder(const call *k)
{
    return kf_is_encoder(kf_str_from(kf_phase_infos[k->id].entry));
}

/* Tokens of sequence |s| of the call in the caches before it. */
static int32_t past_of(const call *k, uint32_t s)
{
    return is_encoder(k) ? 0 : (int32_t)k->c->past[k->step->seq[s]];
}

/* Page |page| of the table of sequence |s|: shuffled, 5 is prime to 24. */
static int32_t page_of(const call *k, uint32_t s, uint32_t page)
{
    return (int32_t)((k->step->seq[s] * PAGES + page) * 5 % (MAX_SEQS * PAGES));
}

/* The number of input |which| at token |i| of sequence |s|; |row| tokens come before it. */
static int32_t by_token(const call *k, kf_input_id which, uint32_t s, uint32_t i, uint32_t row)
{
    switch (which) {
    case KF_INPUT_ID_ids:
        return k->step->tokens[s][i];
    case KF_INPUT_ID_pos:
        return past_of(k, s) + (int32_t)i;
    case KF_INPUT_ID_seq:
        return (int32_t)s;
    default: /* logit_rows: all */
        return (int32_t)row;
    }
}

static void fill_input(call *k, kf_input_id which, int32_t *to)
{
    uint32_t row = 0;

    for (uint32_t s = 0; s < k->step->n_seqs; s++) {
        uint32_t n = k->step->n_tokens[s];
        switch (which) {
        case KF_INPUT_ID_seq_start:
            to[s] = (int32_t)row;
            break;
        case KF_INPUT_ID_past:
            to[s] = past_of(k, s);
            break;
        case KF_INPUT_ID_memory_len:
            to[s] = (int32_t)k->c->memory[k->step->seq[s]];
            break;
        case KF_INPUT_ID_pages:
        case KF_INPUT_ID_memory_pages:
            for (uint32_t p = 0; p < PAGES; p++)
                to[s * PAGES + p] = page_of(k, s, p);
            break;
        default:
            for (uint32_t i = 0; i < n; i++)
                to[row + i] = by_token(k, which, s, i, row + i);
        }
        row += n;
    }
}

static bool bind_inputs(call *k, kf_sbuf *why)
{
    const kf_plan *p = k->c->p;

    k->input = KF_NEW_N(k->c->arena, char *, p->inputs.len);
    for (uint32_t i = 0; i < p->inputs.len; i++) {
        kf_input_id which = kf_input_find(p->inputs.data[i].name);
        if (which == KF_INPUT_ID_COUNT || which == KF_INPUT_ID_types) {
            kf_sbuf_printf(why, "an input %.*s", KF_STR_ARG(p->inputs.data[i].name));
            return false;
        }
        k->input[i] = memory(k->c->arena, 4 * kf_type_elems(&p->inputs.data[i].type, k->sym));
        fill_input(k, which, (int32_t *)(void *)k->input[i]);
    }
    return true;
}

/* ---- launches -------------------------------------------------------------------------------- */

static void *operand(const call *k, const kf_operand *o, uint32_t layer)
{
    const kf_plan *p = k->c->p;

    switch (o->space) {
    case KF_SPACE_BUFFER:
        return k->pool + k->phase->buffers.data[o->index].offset;
    case KF_SPACE_WEIGHT:
        return k->c->weight[o->index][layer < p->weights.data[o->index].layers ? layer : 0];
    case KF_SPACE_STATE:
        return k->c->state[o->index] +
               layer * kf_kvcache_page_bytes(&p->states.data[o->index].type);
    case KF_SPACE_INPUT:
        return k->input[o->index];
    }
    return NULL;
}

static void launch(const call *k, const kf_launch *l, uint32_t layer)
{
    void *ptr[64] = {0};
    int64_t dim[KF_DIM_COUNT + KF_SYM_MEMORY] = {0};
    const kf_kernel_args args = {ptr, dim};

    for (uint32_t i = 0; i < l->n_operands; i++)
        ptr[i] = operand(k, &l->operand[i], layer);
    ptr[l->n_operands] = k->cells;
    ptr[l->n_operands + 1] = k->shared;
    memcpy(dim, k->sym, sizeof k->sym);
    int64_t tiles = kf_tile_count(&k->c->p->kernels.data[l->kernel].shape.tiles, k->sym);
    for (int64_t t = 0; t < tiles; t++)
        k->c->fn[l->kernel](&args, (uint32_t)(tiles % 7 ? (t * 7 + 3) % tiles : tiles - 1 - t),
                            k->scratch);
}

static void walk(const call *k)
{
    for (uint32_t i = 0; i < k->phase->steps.len; i++) {
        const kf_plan_step *s = &k->phase->steps.data[i];
        for (uint32_t round = 0; round < s->times; round++)
            for (uint32_t l = s->first; l < s->first + s->n; l++)
                launch(k, &k->phase->launches.data[l], s->loop ? s->first_layer + round : 0);
    }
}

static const kf_plan_phase *find_phase(const kf_plan *p, kf_phase_id phase, int64_t rows)
{
    for (uint32_t i = 0; i < p->phases.len; i++) {
        const kf_plan_phase *ph = &p->phases.data[i];
        if (kf_str_eq_c(ph->name, kf_phase_infos[phase].name) && ph->rows_lo <= rows &&
            rows <= ph->rows_hi)
            return ph;
    }
    return NULL;
}

/* What the kernels work in besides their operands. */
static void take_memory(call *k)
{
    kf_kernel_shape most = {0};

    for (uint32_t i = 0; i < k->c->p->kernels.len; i++) {
        const kf_kernel_shape *s = &k->c->p->kernels.data[i].shape;
        most.scratch_bytes =
            s->scratch_bytes > most.scratch_bytes ? s->scratch_bytes : most.scratch_bytes;
        most.shared_bytes =
            s->shared_bytes > most.shared_bytes ? s->shared_bytes : most.shared_bytes;
        most.cells = s->cells > most.cells ? s->cells : most.cells;
    }
    k->pool = memory(k->c->arena, k->phase->pool_bytes);
    k->scratch = memory(k->c->arena, most.scratch_bytes);
    k->shared = memory(k->c->arena, most.shared_bytes);
    k->cells = memory(k->c->arena, most.cells * 4);
    memset(k->cells, 0, (size_t)most.cells * 4);
}

static void begin(call *k)
{
    for (uint32_t s = 0; s < k->step->n_seqs; s++) {
        uint32_t seq = k->step->seq[s], n = k->step->n_tokens[s];
        k->sym[KF_SYM_N] += n;
        k->sym[KF_SYM_K] += past_of(k, s) + n;
        k->sym[KF_SYM_M] += is_encoder(k) ? n : k->c->memory[seq];
    }
    k->sym[KF_SYM_S] = k->step->n_seqs;
    k->sym[KF_SYM_R] = k->sym[KF_SYM_N];
}

/* The sequences are longer now, or their memory is filled. */
static void end(const call *k)
{
    for (uint32_t s = 0; s < k->step->n_seqs; s++) {
        uint32_t seq = k->step->seq[s];
        if (is_encoder(k))
            k->c->memory[seq] = k->step->n_tokens[s];
        else
            k->c->past[seq] += k->step->n_tokens[s];
    }
}

bool compiled_call(compiled *c, const kf_eval_step *step, kf_phase_id phase, kf_tensor *out,
                   kf_sbuf *why)
{
    call k = {.c = c, .step = step, .id = phase};

    begin(&k);
    k.phase = find_phase(c->p, phase, k.sym[KF_SYM_N]);
    if (!k.phase) {
        kf_sbuf_printf(why, "no phase for %lld rows", (long long)k.sym[KF_SYM_N]);
        return false;
    }
    if (!bind_inputs(&k, why))
        return false;
    take_memory(&k);
    walk(&k);
    const kf_buffer *b = &k.phase->buffers.data[k.phase->logits];
    const int64_t dims[] = {k.sym[KF_SYM_N], kf_type_static_elems(&b->type)};
    *out = kf_tensor_new(c->arena, 2, dims);
    for (int64_t i = 0; i < out->n; i++)
        out->data[i] = kf_float_load(b->type.dtype, k.pool + b->offset, (uint64_t)i);
    end(&k);
    return true;
}
