/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/matmul_case.h"

#include "runtime/kf_artifact.h"

#include <string.h>

static kb_value scaled_a(kb *b, void *user, const kf_matmul_tile *tile, kb_value row, kb_value k,
                         uint32_t lanes)
{
    kb_value at = kb_add(b, kb_muli(b, row, tile->config->k), k);
    kb_value a = kb_load(b, KB_F32, lanes, kb_index(b, kb_ptr(b, 0), KB_F32, at), 4);

    (void)user;
    return kb_fmul(b, a, kb_load(b, KB_F32, lanes, kb_index(b, kb_ptr(b, 3), KB_F32, k), 4));
}

static void copy_columns(kb *b, kb_value from, kb_value to, kb_value lo, kb_value hi,
                         uint32_t lanes)
{
    kb_loop cols;

    kb_loop_begin(b, &cols, lo, hi, lanes, 0, NULL);
    kb_value v = kb_load(b, KB_F32, lanes, kb_index(b, from, KB_F32, cols.iv), lanes * 4);
    kb_store(b, v, kb_index(b, to, KB_F32, cols.iv), 4);
    kb_loop_end(b, &cols, NULL);
}

/* Whole vectors, then the columns that are left. */
static void store_c(kb *b, void *user, const kf_matmul_tile *tile)
{
    const kf_matmul_config *cfg = tile->config;
    kb_loop rows;

    (void)user;
    kb_loop_begin(b, &rows, kb_i64(b, 0), tile->rows, 1, 0, NULL);
    kb_value from = kb_index(b, tile->c, KB_F32, kb_muli(b, rows.iv, tile->ldc));
    kb_value row = kb_muli(b, kb_add(b, tile->row0, rows.iv), cfg->n);
    kb_value to = kb_index(b, kb_ptr(b, 2), KB_F32, kb_add(b, row, tile->col0));
    kb_value whole = kb_sub(b, tile->cols, kb_urem(b, tile->cols, kb_i64(b, cfg->lanes)));
    copy_columns(b, from, to, kb_i64(b, 0), whole, cfg->lanes);
    copy_columns(b, from, to, whole, tile->cols, 1);
    kb_loop_end(b, &rows, NULL);
}

void matmul_case_emit(kb *b, const kf_matmul_config *cfg, bool staged)
{
    kf_matmul_hooks hooks = {.weight_operand = 1,
                             .rows_dim = KF_DIM_TOKENS,
                             .epilogue = store_c,
                             .a_operand = 0,
                             .a_stride = cfg->k,
                             .a_value = staged ? scaled_a : NULL};

    kb_begin_kernel(b, "k");
    kf_emit_matmul_tile(b, cfg, &hooks);
    kb_end_kernel(b);
}

uint32_t matmul_case_tiles(const kf_matmul_config *cfg, uint32_t rows)
{
    return (rows + cfg->tile_m - 1) / cfg->tile_m * ((cfg->n + cfg->tile_n - 1) / cfg->tile_n);
}

/* ---- packing --------------------------------------------------------------------------------- */

/* Rows of k that are stored: bf16 holds pairs of them. */
static uint64_t stored_k(kf_matmul_weight weight, uint32_t k)
{
    return weight == KF_WEIGHT_BF16 ? ((uint64_t)k + 1) / 2 * 2 : k;
}

uint64_t matmul_case_bytes(kf_matmul_weight weight, uint32_t n, uint32_t k)
{
    uint64_t panels = (n + KF_PANEL - 1) / KF_PANEL;

    return panels * KF_PANEL * stored_k(weight, k) * (weight == KF_WEIGHT_F32 ? 4 : 2);
}

#define PACK(name, type)                                                                           \
    static void name(uint32_t n, uint32_t k, const type *src, type *dst)                           \
    {                                                                                              \
        for (uint32_t col = 0; col < n; col++) {                                                   \
            type *panel = dst + (uint64_t)(col / KF_PANEL) * k * KF_PANEL + col % KF_PANEL;        \
            for (uint32_t i = 0; i < k; i++)                                                       \
                panel[(uint64_t)i * KF_PANEL] = src[(uint64_t)col * k + i];                        \
        }                                                                                          \
    }
PACK(pack_32, uint32_t)
PACK(pack_16, uint16_t)
#undef PACK

static void pack_bf16(uint32_t n, uint32_t k, const uint16_t *src, uint16_t *dst)
{
    const uint64_t k2 = stored_k(KF_WEIGHT_BF16, k);

    for (uint32_t col = 0; col < n; col++) {
        uint16_t *panel = dst + col / KF_PANEL * k2 * KF_PANEL + 2 * (col % KF_PANEL);
        for (uint32_t i = 0; i < k; i++)
            panel[(uint64_t)(i / 2) * 2 * KF_PANEL + i % 2] = src[(uint64_t)col * k + i];
    }
}

void matmul_case_pack(kf_matmul_weight weight, uint32_t n, uint32_t k, const void *src, void *dst)
{
    if (n % KF_PANEL != 0 || k % 2 != 0)
        memset(dst, 0, matmul_case_bytes(weight, n, k));
    switch (weight) {
    case KF_WEIGHT_F32:
        pack_32(n, k, src, dst);
        return;
    case KF_WEIGHT_F16:
        pack_16(n, k, src, dst);
        return;
    case KF_WEIGHT_BF16:
        pack_bf16(n, k, src, dst);
        return;
    }
}

float matmul_case_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}
