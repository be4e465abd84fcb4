/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/cpu/gemm.h"

#include "base/check.h"

#include <string.h>

/* ---- the register tile ------------------------------------------------------------------------
 */

static uint32_t n_sums(const kf_regtile *t)
{
    return t->rows * t->vectors;
}

static kb_value sum_ptr(kb *b, const kf_regtile *t, uint32_t i, kb_value c, uint32_t ldc)
{
    const uint32_t r = i / t->vectors, v = i % t->vectors;
    return kb_offset_c(b, c, 4 * ((int64_t)r * ldc + v * t->lanes));
}

void kf_regtile_zero(kb *b, kf_regtile *t)
{
    KF_ASSERT(n_sums(t) <= KF_REGTILE_SUMS, "register tile is too large");
    for (uint32_t i = 0; i < n_sums(t); i++)
        t->sums[i] = kb_f32(b, t->lanes, 0.0f);
}

/* Row r, vector v at c + 4 * (r * ldc + v * lanes); aligned to the vector. */
static void load_tile(kb *b, kf_regtile *t, kb_value c, uint32_t ldc)
{
    KF_ASSERT(n_sums(t) <= KF_REGTILE_SUMS, "register tile is too large");
    for (uint32_t i = 0; i < n_sums(t); i++)
        t->sums[i] = kb_load(b, KB_F32, t->lanes, sum_ptr(b, t, i, c, ldc), t->lanes * 4);
}

void kf_regtile_store(kb *b, const kf_regtile *t, kb_value c, uint32_t ldc)
{
    for (uint32_t i = 0; i < n_sums(t); i++)
        kb_store(b, t->sums[i], sum_ptr(b, t, i, c, ldc), t->lanes * 4);
}

void kf_regtile_fma(kb *b, kf_regtile *t, kb_value k, uint32_t dk, const kb_value *w)
{
    kb_value at = kb_index(b, t->a, KB_F32, k);
    for (uint32_t r = 0; r < t->rows; r++) {
        kb_value p = kb_offset_c(b, at, 4 * ((int64_t)r * t->lda + dk));
        kb_value a = kb_splat(b, kb_load(b, KB_F32, 1, p, 4), t->lanes);
        for (uint32_t v = 0; v < t->vectors; v++) {
            kb_value *sum = &t->sums[r * t->vectors + v];
            *sum = kb_fma(b, a, w[v], *sum);
        }
    }
}

void kf_regtile_loop_begin(kb *b, kf_regtile *t, kb_loop *loop, kb_value lo, kb_value hi,
                           uint32_t step)
{
    kb_loop_begin(b, loop, lo, hi, step, n_sums(t), t->sums);
    memcpy(t->sums, loop->carried, n_sums(t) * sizeof t->sums[0]);
}

void kf_regtile_loop_end(kb *b, kf_regtile *t, kb_loop *loop)
{
    kb_loop_end(b, loop, t->sums);
    memcpy(t->sums, loop->carried, n_sums(t) * sizeof t->sums[0]);
}

/* ---- a strip ------------------------------------------------------------------------------------
 */

static void span(kb *b, const kf_gemm_strip *g, kf_regtile *t, kb_value lo, kb_value hi,
                 uint32_t unroll)
{
    kb_loop l;
    kf_regtile_loop_begin(b, t, &l, lo, hi, unroll);
    kb_value row = kb_index(b, g->b, KB_F32, kb_muli(b, l.iv, g->ldb));
    for (uint32_t dk = 0; dk < unroll; dk++) {
        kb_value w[KF_REGTILE_SUMS];
        for (uint32_t v = 0; v < t->vectors; v++) {
            const uint32_t col = v * g->lanes;
            const int64_t at = col / KF_PANEL * g->panel_bytes + 4 * (col % KF_PANEL);
            w[v] = kb_load(b, KB_F32, g->lanes, kb_offset_c(b, row, at + 4 * (int64_t)dk * g->ldb),
                           g->lanes * 4);
        }
        kf_regtile_fma(b, t, l.iv, dk, w);
    }
    kf_regtile_loop_end(b, t, &l);
}

/* |rows| rows from row |r0| of the strip on. */
static void group(kb *b, const kf_gemm_strip *g, uint32_t rows, kb_value r0)
{
    kf_regtile t = {.rows = rows, .vectors = g->nr / g->lanes, .lanes = g->lanes, .lda = g->lda};
    t.a = kb_index(b, g->a, KB_F32, kb_muli(b, r0, g->lda));
    kb_value c = kb_index(b, g->c, KB_F32, kb_muli(b, r0, g->ldc));
    load_tile(b, &t, c, g->ldc);
    kb_value whole = g->len;
    if (g->k_tail)
        whole = kb_muli(b, kb_udiv(b, g->len, kb_i64(b, g->k_unroll)), g->k_unroll);
    span(b, g, &t, kb_i64(b, 0), whole, g->k_unroll);
    if (g->k_tail)
        span(b, g, &t, whole, g->len, 1);
    kf_regtile_store(b, &t, c, g->ldc);
}

void kf_emit_gemm_strip(kb *b, const kf_gemm_strip *g)
{
    const uint32_t most = g->max_rows < g->mr ? g->max_rows : g->mr;
    kb_value n = kb_udiv(b, kb_addi(b, g->rows, g->mr - 1), kb_i64(b, g->mr));
    kb_value size = kb_udiv(b, g->rows, n);
    kb_value extra = kb_sub(b, g->rows, kb_mul(b, size, n));
    kb_loop groups;
    kb_value r0 = kb_i64(b, 0);
    kb_loop_begin(b, &groups, kb_i64(b, 0), n, 1, 1, &r0);
    kb_value bigger = kb_icmp(b, KB_LT, groups.iv, extra);
    kb_value rows = kb_select(b, bigger, kb_addi(b, size, 1), size);
    kb_switch sw;
    kb_switch_begin(b, &sw, rows, most);
    for (uint32_t i = 1; i <= most; i++) {
        kb_switch_case(b, &sw, i);
        group(b, g, i, groups.carried[0]);
    }
    kb_switch_end(b, &sw);
    if (g->after_group)
        g->after_group(b, g->user, groups.iv);
    kb_value next = kb_add(b, groups.carried[0], rows);
    kb_loop_end(b, &groups, &next);
}
