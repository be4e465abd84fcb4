/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/mini_model.h"

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>

enum {
    HEAD = MINI_DIM /
           2, /* one KV head of this size: keys are the first half of x, values the second */
    PAGE = KF_KV_PAGE_TOKENS,
    MAX_PAGES = (MINI_POSITIONS + PAGE - 1) / PAGE,
    PAGE_BYTES = 2 * PAGE * HEAD * 4,
    PAGE_STRIDE = MINI_LAYERS * PAGE_BYTES,
    X_OFFSET = 0,
    PART_OFFSET = MINI_TOKENS * MINI_DIM * 4,
    STAT_OFFSET = PART_OFFSET + MINI_TOKENS * 4 * 4,
    LOGITS_OFFSET = STAT_OFFSET + 256,
    STRIDE = MINI_VOCAB + 16,
    NEXT_OFFSET = LOGITS_OFFSET + MINI_ROWS * STRIDE * 4,
    POOL_BYTES = NEXT_OFFSET + MINI_ROWS * 4
};

_Atomic unsigned mini_decode_walks, mini_prefill_walks;

/* ---- Tile functions -------------------------------------------------------------------------- */

/* ids, pos, table -> x; 4 rows a tile */
static void k_embed(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    const int32_t *ids = args->ptr[0], *pos = args->ptr[1];
    const float *table = args->ptr[2];
    float *x = args->ptr[3];
    (void)scratch;
    for (int64_t n = 4 * (int64_t)tile; n < args->dim[KF_DIM_TOKENS] && n < 4 * (int64_t)tile + 4;
         n++)
        for (int i = 0; i < MINI_DIM; i++)
            x[n * MINI_DIM + i] = table[ids[n] * MINI_DIM + i] + 0.01f * (float)(pos[n] % 7);
}

static float *kv_at(void *kv, const int32_t *pages, int32_t seq, int32_t pos, int is_value, int d)
{
    uint32_t page = (uint32_t)pages[seq * MAX_PAGES + pos / PAGE];
    return (float *)(void *)((char *)kv + kf_kv_addr(PAGE_STRIDE, page, (uint32_t)pos,
                                                     (uint32_t)is_value, 0, (uint32_t)d, PAGE, 1,
                                                     HEAD, 4));
}

/* x, pos, seq, pages, w -> kv; one row a tile */
static void k_append(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    const float *x = (const float *)args->ptr[0] + tile * MINI_DIM, *w = args->ptr[4];
    const int32_t *pos = args->ptr[1], *seq = args->ptr[2], *pages = args->ptr[3];
    (void)scratch;
    for (int i = 0; i < MINI_DIM; i++)
        *kv_at(args->ptr[5], pages, seq[tile], pos[tile], i >= HEAD, i % HEAD) = x[i] * w[i];
}

/* kv, pos, seq, pages -> x; one row a tile */
static void k_attend(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    void *kv = args->ptr[0];
    const int32_t *pos = args->ptr[1], *seq = args->ptr[2], *pages = args->ptr[3];
    float *x = (float *)args->ptr[4] + tile * MINI_DIM;
    float *acc = scratch, sum = 0;
    for (int i = 0; i < HEAD; i++)
        acc[i] = 0;
    for (int32_t key = 0; key <= pos[tile]; key++) {
        float dot = 0;
        for (int i = 0; i < HEAD; i++)
            dot += x[i] * *kv_at(kv, pages, seq[tile], key, 0, i);
        float p = expf(dot * 0.25f);
        sum += p;
        for (int i = 0; i < HEAD; i++)
            acc[i] += p * *kv_at(kv, pages, seq[tile], key, 1, i);
    }
    for (int i = 0; i < HEAD; i++)
        x[i] += acc[i] / sum;
}

/* x, counter -> part, stat: sum of |x| of the rows, split in 4 tiles, added up by the last in order
 */
static void k_stat(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    const float *x = args->ptr[0];
    _Atomic uint32_t *done = args->ptr[1];
    float *part = args->ptr[2], *stat = args->ptr[3];
    (void)scratch;
    float sum = 0;
    for (int64_t i = tile; i < args->dim[KF_DIM_TOKENS] * MINI_DIM; i += 4)
        sum += fabsf(x[i]);
    part[tile] = sum;
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < 4)
        return;
    atomic_store_explicit(done, 0, memory_order_relaxed);
    stat[0] = ((part[0] + part[1]) + part[2]) + part[3];
}

/* x, table, rows -> logits; 16 columns of one row a tile */
static void k_head(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    const int32_t *rows = args->ptr[2];
    uint32_t row = tile / 4;
    const float *x = (const float *)args->ptr[0] + rows[row] * MINI_DIM, *table = args->ptr[1];
    float *logits = (float *)args->ptr[3] + row * STRIDE;
    (void)scratch;
    for (uint32_t v = tile % 4 * 16; v < tile % 4 * 16 + 16; v++) {
        float dot = 0;
        for (int i = 0; i < MINI_DIM; i++)
            dot += x[i] * table[v * MINI_DIM + i];
        logits[v] = dot;
    }
}

/* logits -> next; one row a tile */
static void k_choose(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    const float *logits = (const float *)args->ptr[0] + tile * STRIDE;
    int32_t *next = args->ptr[1];
    (void)scratch;
    next[tile] = 0;
    for (int32_t v = 1; v < MINI_VOCAB; v++)
        next[tile] = logits[v] > logits[next[tile]] ? v : next[tile];
}

/* ---- Launches -------------------------------------------------------------------------------- */

static const kf_operand o_embed[] = {{KF_SPACE_INPUT, KF_INPUT_IDS, 0, 0},
                                     {KF_SPACE_INPUT, KF_INPUT_POS, 0, 0},
                                     {KF_SPACE_WEIGHT, 0, 0, 0},
                                     {KF_SPACE_BUFFER, 0, X_OFFSET, 0}};
static const kf_operand o_append[] = {
    {KF_SPACE_BUFFER, 0, X_OFFSET, 0},    {KF_SPACE_INPUT, KF_INPUT_POS, 0, 0},
    {KF_SPACE_INPUT, KF_INPUT_SEQ, 0, 0}, {KF_SPACE_INPUT, KF_INPUT_PAGES, 0, 0},
    {KF_SPACE_WEIGHT, 1, 0, 0},           {KF_SPACE_STATE, 0, 0, 0}};
static const kf_operand o_attend[] = {{KF_SPACE_STATE, 0, 0, 0},
                                      {KF_SPACE_INPUT, KF_INPUT_POS, 0, 0},
                                      {KF_SPACE_INPUT, KF_INPUT_SEQ, 0, 0},
                                      {KF_SPACE_INPUT, KF_INPUT_PAGES, 0, 0},
                                      {KF_SPACE_BUFFER, 0, X_OFFSET, 0}};
static const kf_operand o_stat[] = {{KF_SPACE_BUFFER, 0, X_OFFSET, 0},
                                    {KF_SPACE_COUNTER, 0, 0, 0},
                                    {KF_SPACE_BUFFER, 0, PART_OFFSET, 0},
                                    {KF_SPACE_BUFFER, 0, STAT_OFFSET, 0}};
static const kf_operand o_head[] = {{KF_SPACE_BUFFER, 0, X_OFFSET, 0},
                                    {KF_SPACE_WEIGHT, 0, 0, 0},
                                    {KF_SPACE_INPUT, KF_INPUT_LOGIT_ROWS, 0, 0},
                                    {KF_SPACE_BUFFER, 0, LOGITS_OFFSET, 0}};
static const kf_operand o_choose[] = {{KF_SPACE_BUFFER, 0, LOGITS_OFFSET, 0},
                                      {KF_SPACE_BUFFER, 0, NEXT_OFFSET, 0}};

#define LAUNCH(num, fn, n, ...)                                                                    \
    static const kf_launch l_##fn = {.name = #fn,                                                  \
                                     .what = "test",                                               \
                                     .place = "mini.yaml:1:1",                                     \
                                     .family = "map",                                              \
                                     .kernel = k_##fn,                                             \
                                     .operands = o_##fn,                                           \
                                     .n_operands = n,                                              \
                                     .id = num,                                                    \
                                     .tiles = __VA_ARGS__,                                         \
                                     .flops = {.per_dim = {[KF_DIM_TOKENS] = 64}},                 \
                                     .bytes = {.fixed = 128}}
LAUNCH(0, embed, 4, {1, 1, {{KF_DIM_TOKENS, 4}}});
LAUNCH(1, append, 6, {1, 1, {{KF_DIM_TOKENS, 1}}});
LAUNCH(2, attend, 5, {1, 1, {{KF_DIM_TOKENS, 1}}});
LAUNCH(3, stat, 4, {4, 0, {{0, 0}}});
LAUNCH(4, head, 4, {4, 1, {{KF_DIM_ROWS, 1}}});
LAUNCH(5, choose, 2, {1, 1, {{KF_DIM_ROWS, 1}}});

static void all_launches(kf_worker *w)
{
    kf_tiles(w, &l_embed, 0);
    for (uint32_t layer = 0; layer < MINI_LAYERS; layer++) {
        kf_tiles(w, &l_append, layer);
        kf_tiles(w, &l_attend, layer);
        kf_tiles(w, &l_stat, layer);
    }
    kf_tiles(w, &l_head, 0);
    kf_tiles(w, &l_choose, 0);
}

static void decode(kf_worker *w, const kf_step *s)
{
    (void)s;
    mini_decode_walks++;
    all_launches(w);
}

static void prefill(kf_worker *w, const kf_step *s)
{
    (void)s;
    mini_prefill_walks++;
    all_launches(w);
}

/* ---- The model ------------------------------------------------------------------------------- */

enum { TABLE_BYTES = MINI_VOCAB * MINI_DIM * 4, W_BYTES = MINI_DIM * 4 };

static const uint64_t table_at[] = {0};
static const uint64_t w_at[] = {TABLE_BYTES, TABLE_BYTES + W_BYTES};
static const kf_weight weights[] = {
    {"table", KF_ELEM_F32, 1, table_at, TABLE_BYTES, MINI_DIM * 4, 0.0f, 0.5f, NULL},
    {"layers.{i}.w", KF_ELEM_F32, MINI_LAYERS, w_at, W_BYTES, W_BYTES, 1.0f, 0.1f, NULL},
};
static const kf_kv_state kv[] = {{"kv", MINI_LAYERS, PAGE, PAGE_BYTES, 0}};
static const kf_launch *const launches[] = {&l_embed, &l_append, &l_attend,
                                            &l_stat,  &l_head,   &l_choose};
static const kf_phase phases[] = {
    {"decode_r1", KF_PHASE_DECODE, 1, 1, 9, decode, LOGITS_OFFSET, NEXT_OFFSET},
    {"decode_r4", KF_PHASE_DECODE, 2, 4, 9, decode, LOGITS_OFFSET, NEXT_OFFSET},
    {"prefill", KF_PHASE_PREFILL, 1, MINI_TOKENS, 9, prefill, LOGITS_OFFSET, NEXT_OFFSET},
};
static const int32_t eos[] = {63};

const kf_model mini_model = {
    .abi = KF_ABI_VERSION,
    .cpu_features = KF_CPU_SSE42,
    .name = "mini",
    .target = "cpu:x86-64",
    .compiler_version = "test",
    .manifest = "{}",
    .max_sequences = MINI_SEQUENCES,
    .max_tokens = MINI_TOKENS,
    .max_rows = MINI_ROWS,
    .max_positions = MINI_POSITIONS,
    .vocab_size = MINI_VOCAB,
    .row_width = MINI_VOCAB,
    .pool_bytes = POOL_BYTES,
    .counter_bytes = 4,
    .scratch_bytes = HEAD * 4,
    .logits_stride = STRIDE,
    .n_eos = 1,
    .eos = eos,
    .sampling = {0.0f, 1.0f, 0.0f, 0},
    .weights_bytes = TABLE_BYTES + 2 * W_BYTES + KF_ARTIFACT_WEIGHT_TAIL,
    .weights = weights,
    .kv = kv,
    .launches = launches,
    .phases = phases,
    .n_weights = 2,
    .n_kv = 1,
    .n_launches = 6,
    .n_phases = 3,
};
