/* SPDX-License-Identifier: Apache-2.0 */
/* build_func - see build_graph.h. Functions: what they take and return, repeats, the memory of an
 * encoder, entries. Blocks are build_graph.c. */
#include "frontend/build_graph.h"
#include "frontend/build_impl.h"
#include "ir/plan.h" /* names of layers' tensors */

#include <string.h>

/* ---- what a function needs ------------------------------------------------------------------- */

typedef void (*attention_fn)(kf_graph_builder *b, const kf_block *block, uint32_t layers,
                             void *user);

/* Calls |visit| for every block of |kind|, self or cross attention, in the order in which building
 * meets them. */
static void each_attention(kf_graph_builder *b, kf_blocks blocks, kf_block_kind kind,
                           bool into_repeats, uint32_t layers, attention_fn visit, void *user)
{
    for (uint32_t i = 0; i < blocks.n; i++) {
        const kf_block *k = &blocks.block[i];
        if (k->kind == kind)
            visit(b, k, layers, user);
        if (k->kind == KF_BLOCK_RESIDUAL)
            each_attention(b, k->u.residual.body, kind, into_repeats, layers, visit, user);
        for (uint32_t j = 0; k->kind == KF_BLOCK_PARALLEL && j < k->u.parallel.n_branches; j++)
            each_attention(b, k->u.parallel.branch[j], kind, into_repeats, layers, visit, user);
        for (uint32_t j = 0; k->kind == KF_BLOCK_REPEAT && into_repeats && j < k->u.repeat.block.n;
             j++)
            each_attention(b, kf_repeat_body(b->spec, &k->u.repeat, j), kind, true,
                           (uint32_t)k->u.repeat.times.v / k->u.repeat.block.n, visit, user);
    }
}

static void collect_rope(kf_graph_builder *b, const kf_block *block, uint32_t layers, void *user)
{
    kf_attr_rope_table t = kf_build_rope_attr(&block->u.attention);

    (void)layers;
    if (!block->u.attention.rope.present.v)
        return;
    for (uint32_t i = 0; i < b->n_ropes; i++)
        if (kf_attr_eq(KF_ATTR_rope_table, &b->rope[i], &t))
            return;
    if (b->n_ropes == KF_MAX_ROPES) {
        *(bool *)user = false;
        kf_diag_add(b->diags, KF_E0408, block->src.loc,
                    "more than %d different rotary tables in one model", KF_MAX_ROPES);
        return;
    }
    b->rope[b->n_ropes++] = t;
}

/** Caches to be made arguments of a function: their names, and those there are by now. */
typedef struct cache_list {
    const char *name;
    uint32_t n;
    bool ok;
} cache_list;

static void add_cache(kf_graph_builder *b, const kf_block *block, uint32_t layers, void *user)
{
    cache_list *list = user;
    kf_type t = kf_build_cache_type(b, &block->u.attention, layers);

    if (b->n_caches == KF_MAX_CACHES) {
        list->ok = false;
        kf_diag_add(b->diags, KF_E0408, block->src.loc,
                    "more than %d attention blocks in one function", KF_MAX_CACHES);
        return;
    }
    kf_str name =
        list->n ? kf_strf(b->arena, "%s%u", list->name, list->n) : kf_str_from(list->name);
    list->n++;
    b->cache[b->n_caches++] = kf_graph_add_arg(b->g, t, name, kf_build_loc(b, block->src.loc));
}

static void count_cache(kf_graph_builder *b, const kf_block *block, uint32_t layers, void *user)
{
    (void)b, (void)block, (void)layers;
    (*(uint32_t *)user)++;
}

/* ---- functions ------------------------------------------------------------------------------- */

static kf_value add_arg(kf_graph_builder *b, const char *name, kf_dtype dtype, uint8_t rank,
                        kf_dim d0, kf_dim d1)
{
    kf_dim dims[] = {d0, d1};

    return kf_graph_add_arg(b->g, kf_type_tensor(dtype, rank, dims), kf_str_from(name), KF_NO_LOC);
}

static kf_value add_pages(kf_graph_builder *b, const char *name)
{
    int64_t pages = (b->max_positions + KF_KV_PAGE_TOKENS - 1) / KF_KV_PAGE_TOKENS;

    return add_arg(b, name, KF_DTYPE_i32, 2, kf_dim_sym(KF_SYM_S), kf_dim_static(pages));
}

/* Positions, sequences and page table of the call, as arguments. */
static void add_call_inputs(kf_graph_builder *b)
{
    kf_dim n = kf_dim_sym(KF_SYM_N), s = kf_dim_sym(KF_SYM_S);

    b->in.pos = add_arg(b, "pos", KF_DTYPE_i32, 1, n, n);
    b->in.seq = add_arg(b, "seq", KF_DTYPE_i32, 1, n, n);
    b->in.seq_start = add_arg(b, "seq_start", KF_DTYPE_i32, 1, s, s);
    b->in.past = add_arg(b, "past", KF_DTYPE_i32, 1, s, s);
}

static bool has_memory(const kf_graph_builder *b)
{
    return b->spec->kind == KF_MODEL_ENCODER_DECODER;
}

/* What the encoder took before: its lengths, and the page table of the memory. */
static void add_memory_inputs(kf_graph_builder *b)
{
    kf_dim s = kf_dim_sym(KF_SYM_S);

    b->in.memory_len = add_arg(b, "memory_len", KF_DTYPE_i32, 1, s, s);
    b->in.memory_pages = add_pages(b, "memory_pages");
}

/* The function's name: those of its blocks, with a number where that is taken. */
static kf_str callee_name(const kf_graph_builder *b, const kf_spec_repeat *r, const char *suffix)
{
    kf_sbuf joined = {.arena = b->arena};

    for (uint32_t i = 0; i < r->block.n; i++)
        kf_sbuf_printf(&joined, "%s%.*s", i ? "_" : "", KF_STR_ARG(r->block.v[i]));
    kf_sbuf_c(&joined, suffix);
    kf_str first = kf_sbuf_view(&joined), name = first;
    for (uint32_t n = 2; kf_module_find_func(b->m, name); n++)
        name = kf_strf(b->arena, "%.*s%u", KF_STR_ARG(first), n);
    return name;
}

/* What stands before the first hole of |weights|: the prefix of a function of several blocks. */
static kf_str common_prefix(kf_str weights)
{
    uint32_t factor, offset, n = 0;

    while (n < weights.len &&
           !kf_layer_hole((kf_str){weights.ptr + n, weights.len - n}, &factor, &offset))
        n++;
    return (kf_str){weights.ptr, n};
}

/* |pattern| and a dot for block |k| of rounds of |n|: block k of round i is number n*i + k. */
static kf_str part_prefix(kf_arena *arena, kf_str pattern, uint32_t n, uint32_t k)
{
    kf_sbuf out = {.arena = arena};

    for (uint32_t i = 0, len; i < pattern.len; i += len) {
        uint32_t factor, offset;
        len = kf_layer_hole((kf_str){pattern.ptr + i, pattern.len - i}, &factor, &offset);
        if (len)
            kf_sbuf_printf(&out, factor * k + offset ? "{%ui+%u}" : "{%ui}", factor * n,
                           factor * k + offset);
        else
            kf_sbuf_char(&out, pattern.ptr[i + len++]);
    }
    kf_sbuf_char(&out, '.');
    return kf_sbuf_view(&out);
}

static kf_str callee_prefix(kf_arena *arena, const kf_spec_repeat *r)
{
    if (r->block.n == 1)
        return kf_strf(arena, "%.*s.", KF_STR_ARG(r->weights.v));
    return common_prefix(r->weights.v);
}

/* What building the |i|-th block of a repeat's list has to know. */
static void begin_turn(kf_graph_builder *b, const kf_spec_repeat *r, uint32_t i)
{
    kf_str weights = r->weights.v;
    uint32_t common = common_prefix(weights).len;

    b->round = r->block.n;
    b->turn = i;
    if (r->block.n > 1)
        b->part = part_prefix(b->arena, (kf_str){weights.ptr + common, weights.len - common},
                              r->block.n, i);
}

/* The blocks of a repeat in turn. */
static kf_value build_round(kf_graph_builder *b, const kf_spec_repeat *r, kf_value x)
{
    for (uint32_t i = 0; i < r->block.n; i++) {
        begin_turn(b, r, i);
        x = kf_build_blocks(b, kf_repeat_body(b->spec, r, i), x);
    }
    return x;
}

/* Every block of |kind| of one round. */
static void each_attention_of_round(kf_graph_builder *b, const kf_spec_repeat *r,
                                    kf_block_kind kind, attention_fn visit, void *user)
{
    for (uint32_t i = 0; i < r->block.n; i++)
        each_attention(b, kf_repeat_body(b->spec, r, i), kind, false, 1, visit, user);
}

/* Arguments for the caches of one round; false after reporting. */
static bool add_caches_of_round(kf_graph_builder *b, const kf_spec_repeat *r)
{
    cache_list self = {"kv", 0, true}, memory = {"memory", 0, true};

    b->n_caches = b->next_cache = 0;
    each_attention_of_round(b, r, KF_BLOCK_ATTENTION, add_cache, &self);
    b->next_memory = b->n_caches;
    each_attention_of_round(b, r, KF_BLOCK_CROSS, add_cache, &memory);
    return self.ok && memory.ok;
}

static void add_cache_results(kf_graph_builder *b)
{
    for (uint32_t i = 0; i < b->n_caches; i++)
        kf_graph_add_result(b->g, b->cache[i]);
}

/* A function of its own for |r|, to be filled. */
static kf_graph_builder begin_callee(const kf_graph_builder *outer, const kf_spec_repeat *r,
                                     const char *suffix)
{
    kf_graph_builder b = *outer;

    b.g = kf_module_add_func(b.m, callee_name(&b, r, suffix));
    b.g->loc = kf_build_loc(&b, b.spec->block[r->block_index[0]].src.loc);
    b.prefix = callee_prefix(b.arena, r);
    return b;
}

/* The function of repeated blocks; arguments: rows, caches, call inputs, tables. */
static kf_graph *build_callee(kf_graph_builder *outer, const kf_block *block, int64_t width)
{
    const kf_spec_repeat *r = &block->u.repeat;
    kf_graph_builder b = begin_callee(outer, r, "");
    kf_value x = add_arg(&b, "x", KF_DTYPE_f32, 2, kf_dim_sym(KF_SYM_N), kf_dim_static(width));

    if (!add_caches_of_round(&b, r))
        return NULL;
    add_call_inputs(&b);
    b.in.pages = add_pages(&b, "pages");
    if (b.next_memory < b.n_caches)
        add_memory_inputs(&b);
    for (uint32_t i = 0; i < b.n_ropes; i++)
        b.in.rope[i] = kf_graph_add_arg(b.g, *kf_value_type(outer->g, outer->in.rope[i]),
                                        kf_strf(b.arena, i ? "rope%u" : "rope", i), KF_NO_LOC);
    if (b.bias)
        b.in.bias = kf_graph_add_arg(b.g, *kf_value_type(outer->g, outer->in.bias), KF_STR("bias"),
                                     KF_NO_LOC);
    kf_graph_add_result(b.g, build_round(&b, r, x));
    add_cache_results(&b);
    return b.g;
}

/* Operands of a repeat, and its states: |n| caches of the caller from |at| on. */
typedef struct repeat_call {
    kf_value in[2 + KF_MAX_CACHES + 8 + KF_MAX_ROPES];
    uint32_t n;
} repeat_call;

static void pass(repeat_call *call, kf_value v)
{
    call->in[call->n++] = v;
}

static void pass_caches(repeat_call *call, const kf_graph_builder *b, uint32_t at, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        pass(call, b->cache[at + i]);
}

static kf_attr_repeat *repeat_attr(kf_graph_builder *b, const kf_spec_repeat *r,
                                   const kf_graph *callee)
{
    kf_attr_repeat *attr = KF_ATTR_NEW(b->arena, repeat);

    attr->times = r->times.v / r->block.n;
    attr->callee = callee->name;
    attr->weights = callee_prefix(b->arena, r);
    return attr;
}

kf_value kf_build_repeat(kf_graph_builder *b, const kf_block *block, kf_value x)
{
    const kf_spec_repeat *r = &block->u.repeat;
    kf_graph *callee = build_callee(b, block, kf_value_type(b->g, x)->dim[1].size);
    repeat_call call = {.n = 0};
    uint32_t caches = 0, memories = 0;

    if (!callee)
        return x;
    kf_attr_repeat *attr = repeat_attr(b, r, callee);
    attr->iter = 1;
    each_attention_of_round(b, r, KF_BLOCK_ATTENTION, count_cache, &caches);
    each_attention_of_round(b, r, KF_BLOCK_CROSS, count_cache, &memories);
    pass(&call, x);
    pass_caches(&call, b, b->next_cache, caches);
    pass_caches(&call, b, b->next_memory, memories);
    const kf_value inputs[] = {b->in.pos,   b->in.seq,        b->in.seq_start,   b->in.past,
                               b->in.pages, b->in.memory_len, b->in.memory_pages};
    for (uint32_t i = 0; i < (memories ? 7 : 5); i++)
        pass(&call, inputs[i]);
    for (uint32_t i = 0; i < b->n_ropes; i++)
        pass(&call, b->in.rope[i]);
    if (b->bias)
        pass(&call, b->in.bias);
    kf_value first = kf_node_add(b->g, KF_OP_repeat, attr, call.n, call.in, NULL,
                                 kf_build_loc(b, block->src.loc));
    for (uint32_t i = 0; i < caches; i++)
        b->cache[b->next_cache++] = first + 1 + i;
    for (uint32_t i = 0; i < memories; i++)
        b->cache[b->next_memory++] = first + 1 + caches + i;
    return first;
}

/* ---- the memory ------------------------------------------------------------------------------ */

static void fill_memory(kf_graph_builder *b, const kf_block *block, uint32_t layers, void *user)
{
    (void)layers;
    kf_build_memory(b, block, *(kf_value *)user);
}

/* Keys and values of the encoder's rows |x| for each layer of a repeat of the decoder. */
static void build_memory_of_repeat(kf_graph_builder *outer, const kf_block *block, kf_value x)
{
    const kf_spec_repeat *r = &block->u.repeat;
    kf_graph_builder b = begin_callee(outer, r, "_memory");
    cache_list list = {"memory", 0, true};
    repeat_call call = {.n = 0};
    uint32_t n;

    b.n_caches = b.next_memory = 0;
    each_attention_of_round(&b, r, KF_BLOCK_CROSS, add_cache, &list);
    n = b.n_caches;
    kf_value rows = kf_graph_add_arg(b.g, *kf_value_type(outer->g, x), KF_STR("x"), KF_NO_LOC);
    b.in.pos = add_arg(&b, "pos", KF_DTYPE_i32, 1, kf_dim_sym(KF_SYM_N), kf_dim_sym(KF_SYM_N));
    b.in.seq = add_arg(&b, "seq", KF_DTYPE_i32, 1, kf_dim_sym(KF_SYM_N), kf_dim_sym(KF_SYM_N));
    b.in.pages = add_pages(&b, "pages");
    for (uint32_t i = 0; i < r->block.n; i++) {
        begin_turn(&b, r, i);
        each_attention(&b, kf_repeat_body(b.spec, r, i), KF_BLOCK_CROSS, false, 1, fill_memory,
                       &rows);
    }
    add_cache_results(&b);
    pass_caches(&call, outer, outer->next_memory, n);
    const kf_value inputs[] = {x, outer->in.pos, outer->in.seq, outer->in.pages};
    for (uint32_t i = 0; i < 4; i++)
        pass(&call, inputs[i]);
    kf_value first = kf_node_add(outer->g, KF_OP_repeat, repeat_attr(outer, r, b.g), call.n,
                                 call.in, NULL, kf_build_loc(outer, block->src.loc));
    for (uint32_t i = 0; i < n; i++)
        outer->cache[outer->next_memory++] = first + i;
}

/* For every cross attention of the decoder, in the order in which that meets them. */
static void build_memories(kf_graph_builder *b, kf_value x)
{
    for (uint32_t i = 0; i < b->spec->model.n; i++) {
        const kf_block *k = &b->spec->model.block[i];
        uint32_t n = 0;
        if (k->kind == KF_BLOCK_REPEAT)
            each_attention_of_round(b, &k->u.repeat, KF_BLOCK_CROSS, count_cache, &n);
        if (n)
            build_memory_of_repeat(b, k, x);
        else
            each_attention(b, (kf_blocks){&b->spec->model.block[i], 1}, KF_BLOCK_CROSS, false, 1,
                           fill_memory, &x);
    }
}

/* ---- entries --------------------------------------------------------------------------------- */

/* Whether the blocks read only the rows themselves: no other tokens, no positions, and no function
 * that takes those of all rows. */
static bool is_row_local(kf_blocks blocks)
{
    bool local = true;

    for (uint32_t i = 0; i < blocks.n; i++) {
        const kf_block *k = &blocks.block[i];
        local = local && k->kind != KF_BLOCK_ATTENTION && k->kind != KF_BLOCK_REPEAT &&
                k->kind != KF_BLOCK_CROSS && k->kind != KF_BLOCK_BIAS &&
                k->kind != KF_BLOCK_POSITION_EMBEDDING && k->kind != KF_BLOCK_TYPES &&
                k->kind != KF_BLOCK_POOL;
        if (k->kind == KF_BLOCK_RESIDUAL)
            local = local && is_row_local(k->u.residual.body);
        for (uint32_t j = 0; k->kind == KF_BLOCK_PARALLEL && j < k->u.parallel.n_branches; j++)
            local = local && is_row_local(k->u.parallel.branch[j]);
    }
    return local;
}

/* Blocks up to here need all tokens; behind it only the rows whose logits are wanted go on. */
static uint32_t first_row_local_block(const kf_graph_builder *b)
{
    uint32_t end = b->spec->model.n;

    while (end > 0 && is_row_local((kf_blocks){&b->spec->model.block[end - 1], 1}))
        end--;
    return end > 0 ? end : 1;
}

/* Only wanted rows go on; a pooled model has one row a sequence, all of them wanted. */
static kf_value wanted_rows(kf_graph_builder *b, kf_value x, kf_value rows)
{
    if (kf_spec_is_pooled(b->spec))
        return x;
    return kf_node_2(b->g, KF_OP_gather, x, rows, kf_build_loc(b, b->spec->head->src.loc));
}

/* The likeliest token behind each row of |logits|: the first of the largest; 0 where nothing can be
 * compared. */
static kf_value likeliest(kf_graph_builder *b, kf_value logits)
{
    static const char *const names[] = {"v", "m", "i"};
    kf_loc loc = kf_build_loc(b, b->spec->head->src.loc);
    kf_attr_row_reduce *attr = KF_ATTR_NEW(b->arena, row_reduce);
    kf_slot_builder *sb = kf_slot_builder_create(b->arena, 3, names, 0);
    uint32_t i = kf_slot_param(sb, 2), n = kf_slot_const(sb, (double)b->spec->vocab_size.v);
    uint32_t found = kf_slot_fn(sb, KF_FN_lt, i, n, 0);

    attr->acc = (kf_accs){2, {KF_ACC_max, KF_ACC_argmax}};
    attr->map = kf_slot_finish(sb, kf_slot_fn(sb, KF_FN_select, found, i, kf_slot_const(sb, 0)));
    kf_value next = kf_node_add(b->g, KF_OP_row_reduce, attr, 1, &logits, NULL, loc);
    kf_dim one[] = {kf_value_type(b->g, next)->dim[0], kf_dim_static(1)};
    kf_type ids = kf_type_tensor(KF_DTYPE_i32, 2, one);
    return kf_node_add(b->g, KF_OP_convert, NULL, 1, &next, &ids, loc);
}

/* An entry for |stack| with its inputs and caches; returns the token ids, or KF_NO_VALUE after
 * reporting. */
static kf_value begin_entry(kf_graph_builder *b, const char *name, kf_blocks stack,
                            const char *caches)
{
    kf_dim n = kf_dim_sym(KF_SYM_N);
    cache_list self = {caches, 0, true}, memory = {"memory", 0, true};
    bool ok = true;

    b->g = kf_module_add_func(b->m, kf_str_from(name));
    b->prefix = b->part = (kf_str){"", 0};
    b->n_caches = b->next_cache = b->n_ropes = 0;
    b->bias = NULL;
    kf_value ids = add_arg(b, "ids", KF_DTYPE_i32, 1, n, n);
    add_call_inputs(b);
    b->in.pages = add_pages(b, "pages");
    each_attention(b, stack, KF_BLOCK_ATTENTION, true, 1, add_cache, &self);
    b->next_memory = b->n_caches;
    each_attention(b, b->spec->model, KF_BLOCK_CROSS, true, 1, add_cache, &memory);
    each_attention(b, stack, KF_BLOCK_ATTENTION, true, 1, collect_rope, &ok);
    for (uint32_t i = 0; i < b->n_ropes; i++) {
        kf_attr_rope_table *attr = KF_ATTR_NEW(b->arena, rope_table);
        *attr = b->rope[i];
        b->in.rope[i] = kf_node_add(b->g, KF_OP_rope_table, attr, 1, &b->in.pos, NULL,
                                    kf_build_loc(b, stack.block[0].src.loc));
    }
    return ok && self.ok && memory.ok ? ids : KF_NO_VALUE;
}

/* The model itself: a decoder, or an encoder alone. */
static bool build_entry(kf_graph_builder *b, const char *name)
{
    kf_dim n = kf_dim_sym(KF_SYM_N), r = kf_dim_sym(KF_SYM_R);
    kf_value ids = begin_entry(b, name, b->spec->model, "kv");

    if (ids == KF_NO_VALUE)
        return false;
    kf_value rows = add_arg(b, "logit_rows", KF_DTYPE_i32, 1, r, r);
    b->in.types =
        kf_spec_token_types(b->spec) ? add_arg(b, "types", KF_DTYPE_i32, 1, n, n) : KF_NO_VALUE;
    if (has_memory(b))
        add_memory_inputs(b);
    uint32_t split = first_row_local_block(b);
    kf_blocks first = {b->spec->model.block, split};
    kf_blocks rest = {b->spec->model.block + split, b->spec->model.n - split};
    kf_value x = kf_build_blocks(b, first, ids);
    x = wanted_rows(b, x, rows);
    x = kf_build_blocks(b, rest, x);
    kf_graph_add_result(b->g, x);
    if (b->spec->kind != KF_MODEL_ENCODER)
        kf_graph_add_result(b->g, likeliest(b, x));
    add_cache_results(b);
    return kf_diags_errors(b->diags) == 0;
}

/* The encoder beside a decoder: its rows, and the memory that they leave. */
static bool build_encoder(kf_graph_builder *b)
{
    kf_value ids = begin_entry(b, "encoder", b->spec->encoder, "encoder_kv");

    if (ids == KF_NO_VALUE)
        return false;
    kf_value x = kf_build_blocks(b, b->spec->encoder, ids);
    kf_graph_add_result(b->g, x);
    build_memories(b, x);
    add_cache_results(b);
    return kf_diags_errors(b->diags) == 0;
}

/* Definitions before uses: functions are made caller first. */
static void put_last(kf_module *m, uint32_t entry)
{
    kf_graph *g = m->funcs.data[entry];

    memmove(m->funcs.data + entry, m->funcs.data + entry + 1,
            (m->funcs.len - entry - 1) * sizeof g);
    m->funcs.data[m->funcs.len - 1] = g;
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

kf_module *kf_build_graph(kf_arena *arena, kf_diags *diags, const kf_spec *spec,
                          const kf_tensor_source *stored)
{
    kf_module *m = kf_module_create(arena, spec->name.v);
    kf_graph_builder b = {.arena = arena, .diags = diags, .spec = spec, .stored = stored, .m = m};
    const kf_spec_build *build = &spec->build;

    if (kf_src_given(build->activations.src) && build->activations.v != KF_DTYPE_f32) {
        kf_diag_add(diags, KF_E0408, build->activations.src.loc,
                    "activations are computed and stored in f32 on this target, not %s",
                    kf_dtype_infos[build->activations.v].name);
        return NULL;
    }
    b.max_positions = build->max_positions.v;
    bool is_encoder = spec->kind == KF_MODEL_ENCODER;
    int64_t keys = build->max_sequences.v * b.max_positions;
    int64_t rows = is_encoder ? build->max_tokens.v : KF_MIN_LOGIT_ROWS;
    kf_module_add_sym(m, KF_STR("S"), 1, build->max_sequences.v);
    kf_module_add_sym(m, KF_STR("N"), 1, max_i64(build->max_tokens.v, build->max_sequences.v));
    kf_module_add_sym(m, KF_STR("R"), 1, max_i64(build->max_sequences.v, rows));
    kf_module_add_sym(m, KF_STR("K"), 1, keys);
    if (has_memory(&b)) {
        kf_module_add_sym(m, KF_STR("M"), 1, keys);
        if (!build_encoder(&b))
            return NULL;
        put_last(m, 0);
    }
    uint32_t n_funcs = m->funcs.len;
    if (!build_entry(&b, is_encoder ? "encoder" : "main"))
        return NULL;
    put_last(m, n_funcs);
    return m;
}
