/* SPDX-License-Identifier: Apache-2.0 */
/* What is emitted, in C:
 *
 *   stream:  A' = prologue(A rows)                        scratch, [rows][k]
 *            for each strip of nr columns:                registers: rows x nr sums
 *                for k: w = widen(W[strip][k]); for r: sum[r] += splat(A'[r][k]) * w
 *                C[.][strip] = sum
 *            epilogue(C)
 *
 *   block:   C = 0                                        scratch, [rows][tile_n]
 *            for each block of kc k:
 *                A' = prologue(A rows, kc columns)        scratch, L2
 *                for each strip of nr columns:
 *                    B = widen(W[strip][kc])              scratch, L1
 *                    for each group of <= mr rows:        registers: group x nr sums
 *                        sum = C; for k: sum[r] += splat(A'[r][k]) * B[k]; C = sum
 *            epilogue(C)
 *
 * Rows are dealt to groups evenly (8 rows with mr = 6 are 4 + 4, never 6 + 2): a group of two rows
 * has too few independent sums to fill the FMA pipeline. Design of the block form: Goto and van de
 * Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008.
 */
#include "codegen/families/matmul.h"

#include "base/check.h"

#include <string.h>

#define MAX_SUMS 64
/* Rows of scratch blocks are kept off multiples of 4 KiB, where they would share cache sets. */
#define ROW_PAD 16

typedef struct emitter {
    kb *b;
    const kf_matmul_config *cfg;
    const kf_matmul_hooks *hooks;
    kf_matmul_tile tile;
    kb_value a;    /* f32 A as the kernel reads it: row 0 of the tile */
    uint32_t lda;  /* elements */
    kb_value bbuf; /* block, bf16: widened panel(s) [kc][nr] */
    kb_value w;    /* first panel of the tile */
} emitter;

/* ---- sizes ----------------------------------------------------------------------------------- */

static uint32_t round_up(uint32_t x, uint32_t to)
{
    return (x + to - 1) / to * to;
}

static uint32_t k_padded(const kf_matmul_config *cfg)
{
    return cfg->weight == KF_WEIGHT_BF16 ? round_up(cfg->k, 2) : cfg->k;
}

static uint32_t panels(const kf_matmul_config *cfg)
{
    return round_up(cfg->n, KF_PANEL) / KF_PANEL;
}

/* Bytes of one k row (f32) or of one pair of k rows (bf16) of a panel: both 64. */
#define ROW_BYTES 64

static uint64_t panel_bytes(const kf_matmul_config *cfg)
{
    return (uint64_t)ROW_BYTES * (cfg->weight == KF_WEIGHT_BF16 ? k_padded(cfg) / 2 : cfg->k);
}

static uint32_t staged_k(const kf_matmul_config *cfg)
{
    return cfg->form == KF_MATMUL_BLOCK ? cfg->kc : k_padded(cfg);
}

static uint32_t staged_lda(const kf_matmul_config *cfg)
{
    return round_up(staged_k(cfg), 16) + ROW_PAD;
}

static uint64_t a_bytes(const kf_matmul_config *cfg)
{
    return (uint64_t)cfg->tile_m * staged_lda(cfg) * 4;
}

static uint64_t b_bytes(const kf_matmul_config *cfg)
{
    const bool widened = cfg->form == KF_MATMUL_BLOCK && cfg->weight != KF_WEIGHT_F32;
    return widened ? (uint64_t)cfg->kc * cfg->nr * 4 : 0;
}

static uint32_t tile_ldc(const kf_matmul_config *cfg)
{
    return cfg->tile_m == 1 ? cfg->tile_n : cfg->tile_n + ROW_PAD;
}

static uint64_t c_bytes(const kf_matmul_config *cfg)
{
    return (uint64_t)cfg->tile_m * tile_ldc(cfg) * 4;
}

uint64_t kf_matmul_scratch_bytes(const kf_matmul_config *cfg)
{
    return a_bytes(cfg) + b_bytes(cfg) + c_bytes(cfg) + (cfg->user_bytes + 63) / 64 * 64;
}

static uint32_t row_blocks(const kf_matmul_config *cfg, uint32_t rows)
{
    return (rows + cfg->tile_m - 1) / cfg->tile_m;
}

uint32_t kf_matmul_tiles(const kf_matmul_config *cfg, uint32_t rows)
{
    return row_blocks(cfg, rows) * ((cfg->n + cfg->tile_n - 1) / cfg->tile_n);
}

/* ---- packing --------------------------------------------------------------------------------- */

uint64_t kf_matmul_packed_bytes(kf_matmul_weight weight, uint32_t n, uint32_t k)
{
    const kf_matmul_config cfg = {.n = n, .k = k, .weight = weight};
    return panels(&cfg) * panel_bytes(&cfg);
}

static void pack_f32(uint32_t n, uint32_t k, const uint32_t *src, uint32_t *dst)
{
    for (uint32_t col = 0; col < n; col++) {
        uint32_t *panel = dst + (uint64_t)(col / KF_PANEL) * k * KF_PANEL + col % KF_PANEL;
        for (uint32_t i = 0; i < k; i++)
            panel[(uint64_t)i * KF_PANEL] = src[(uint64_t)col * k + i];
    }
}

static void pack_bf16(uint32_t n, uint32_t k, const uint16_t *src, uint16_t *dst)
{
    const uint64_t k2 = round_up(k, 2);
    for (uint32_t col = 0; col < n; col++) {
        uint16_t *panel = dst + col / KF_PANEL * k2 * KF_PANEL + 2 * (col % KF_PANEL);
        for (uint32_t i = 0; i < k; i++)
            panel[(uint64_t)(i / 2) * 2 * KF_PANEL + i % 2] = src[(uint64_t)col * k + i];
    }
}

void kf_matmul_pack(kf_matmul_weight weight, uint32_t n, uint32_t k, const void *src, void *dst)
{
    if (n % KF_PANEL != 0 || k % 2 != 0)
        memset(dst, 0, kf_matmul_packed_bytes(weight, n, k));
    if (weight == KF_WEIGHT_F32)
        pack_f32(n, k, src, dst);
    else
        pack_bf16(n, k, src, dst);
}

/* ---- configuration --------------------------------------------------------------------------- */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Registers: sums, one widened strip of W per k row, and the splat of A. */
static void configure_stream(kf_matmul_config *cfg, uint32_t lanes, uint32_t regs)
{
    static const uint32_t widths[] = {64, 32, 16, 8};
    cfg->form = KF_MATMUL_STREAM;
    cfg->mr = cfg->tile_m = cfg->max_rows;
    cfg->nr = lanes == 16 ? 16 : 8;
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t vectors = widths[i] / lanes;
        if (vectors > 0 && vectors * cfg->mr <= regs - 4 && cfg->tile_n % widths[i] == 0) {
            cfg->nr = widths[i];
            break;
        }
    }
    cfg->kc = 0;
    cfg->k_unroll = cfg->mr == 1 ? 8 : 4;
    /* One row keeps four panels in flight and the hardware follows; more rows walk one or two
     * panels slowly enough that it does not (4 rows: 65% of the read probe without, 100% with). */
    cfg->prefetch_bytes = cfg->mr == 1 ? 0 : 2048;
}

static void configure_block(kf_matmul_config *cfg, uint32_t lanes)
{
    cfg->form = KF_MATMUL_BLOCK;
    cfg->tile_m = min_u32(cfg->max_rows, 128);
    cfg->nr = lanes == 16 && cfg->tile_n % 32 == 0 ? 32 : 16;
    cfg->mr = min_u32(cfg->max_rows, lanes == 16 ? 12 : 6);
    cfg->k_unroll = 4;
    cfg->prefetch_bytes = 1;
    cfg->kc = min_u32(256, round_up(cfg->k, 16));
}

void kf_matmul_configure(kf_matmul_config *cfg, uint32_t lanes, uint32_t regs)
{
    const uint32_t n16 = panels(cfg) * KF_PANEL;
    const uint32_t stream_rows = lanes == 16 ? 12 : 8;
    cfg->lanes = lanes;
    if (cfg->max_rows <= stream_rows) {
        cfg->tile_n = min_u32(n16, 64);
        configure_stream(cfg, lanes, regs);
    } else {
        cfg->tile_n = min_u32(n16, n16 >= 8192 ? 512 : 256);
        configure_block(cfg, lanes);
    }
}

bool kf_matmul_config_ok(const kf_matmul_config *cfg, uint32_t regs, const char **out_why)
{
    const char *why = NULL;
    const bool stream = cfg->form == KF_MATMUL_STREAM;
    if (cfg->n == 0 || cfg->k == 0 || cfg->max_rows == 0)
        why = "n, k and max_rows must be positive";
    else if (cfg->lanes != 8 && cfg->lanes != 16)
        why = "lanes must be 8 or 16";
    else if (cfg->tile_n == 0 || cfg->tile_n % KF_PANEL != 0)
        why = "tile_n must be a multiple of 16";
    else if (cfg->nr % cfg->lanes != 0 || (cfg->nr % KF_PANEL != 0 && cfg->nr != 8) || cfg->nr == 0)
        why = "nr must be 8 or a multiple of 16, and of the lanes";
    else if (cfg->tile_n % cfg->nr != 0)
        why = "nr must divide tile_n";
    else if (cfg->mr == 0 || cfg->mr * (cfg->nr / cfg->lanes) > regs - 3)
        why = "mr * nr does not fit the registers";
    else if (cfg->k_unroll == 0 || cfg->k_unroll % 2 != 0)
        why = "k_unroll must be even";
    else if (stream && (cfg->mr != cfg->max_rows || cfg->tile_m != cfg->max_rows))
        why = "the stream form needs mr = tile_m = max_rows";
    else if (!stream &&
             (cfg->kc == 0 || cfg->kc % 16 != 0 || cfg->kc % cfg->k_unroll != 0 || cfg->nr == 8))
        why = "the block form needs kc, a multiple of 16 and of k_unroll, and whole panels";
    *out_why = why;
    return why == NULL;
}

/* ---- A: the prologue
 * ------------------------------------------------------------------------------ */

static void stage_span(emitter *e, kb_value row, kb_value dst_row, kb_value k0, kb_value lo,
                       kb_value hi, uint32_t lanes)
{
    kb_loop l;
    kb_loop_begin(e->b, &l, lo, hi, lanes, 0, NULL);
    kb_value k = kb_add(e->b, k0, l.iv);
    kb_value v = e->hooks->a_value(e->b, e->hooks->user, &e->tile, row, k, lanes);
    kb_store(e->b, v, kb_index(e->b, dst_row, KB_F32, l.iv), lanes == 1 ? 4 : lanes * 4);
    kb_loop_end(e->b, &l, NULL);
}

/* Writes columns k0 .. k0+len-1 of the tile's rows; an odd K is followed by one zero for the
 * padding row. */
static void stage_a(emitter *e, kb_value k0, kb_value len)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    const int64_t lanes = cfg->lanes;
    kb_loop rows;
    kb_loop_begin(b, &rows, kb_i64(b, 0), e->tile.rows, 1, 0, NULL);
    kb_value row = kb_add(b, e->tile.row0, rows.iv);
    kb_value dst = kb_index(b, e->a, KB_F32, kb_muli(b, rows.iv, e->lda));
    kb_value whole = kb_and(b, len, kb_i64(b, -lanes));
    stage_span(e, row, dst, k0, kb_i64(b, 0), whole, cfg->lanes);
    if (cfg->k % lanes != 0)
        stage_span(e, row, dst, k0, whole, len, 1);
    if (k_padded(cfg) != cfg->k)
        kb_store(b, kb_f32(b, 1, 0.0f), kb_index(b, dst, KB_F32, len), 4);
    kb_loop_end(b, &rows, NULL);
}

/* ---- W: addresses and widening
 * -------------------------------------------------------------------- */

/* Address of the first vector of the strip that starts at column |col| of the tile. */
static kb_value strip_ptr(emitter *e, kb_value col, uint32_t nr)
{
    kb *b = e->b;
    kb_value panel = kb_lshr(b, col, 4);
    kb_value p = kb_offset(b, e->w, kb_muli(b, panel, (int64_t)panel_bytes(e->cfg)));
    if (nr >= KF_PANEL)
        return p;
    kb_value in_panel = kb_and(b, col, kb_i64(b, KF_PANEL - 1));
    return kb_offset(b, p, kb_muli(b, in_panel, 4));
}

/* Vector |v| of a strip at byte |row| of its panels: the f32 of one k, or the bf16 of a pair. */
static kb_value weight_ptr(emitter *e, kb_value strip, kb_value row, uint32_t v)
{
    const uint32_t col = v * e->cfg->lanes;
    const int64_t at =
        (int64_t)(col / KF_PANEL) * (int64_t)panel_bytes(e->cfg) + col % KF_PANEL * 4;
    return kb_offset(e->b, kb_offset_c(e->b, strip, at), row);
}

static kb_value low_half(kb *b, kb_value pair, uint32_t lanes)
{
    return kb_bitcast(b, kb_shl(b, pair, 16), KB_F32, lanes);
}

static kb_value high_half(kb *b, kb_value pair, uint32_t lanes)
{
    return kb_bitcast(b, kb_and(b, pair, kb_int(b, KB_I32, lanes, 0xffff0000)), KB_F32, lanes);
}

/* ---- the register tile
 * ------------------------------------------------------------------------------- */

typedef struct regtile {
    uint32_t rows;
    uint32_t vectors;
    kb_value a; /* row 0 of the group */
    kb_value sums[MAX_SUMS];
} regtile;

/* One k: every sum gets its product. |w| holds the vectors of W's row. */
static void fma_row(emitter *e, regtile *t, kb_value k, uint32_t dk, const kb_value *w)
{
    kb *b = e->b;
    kb_value at = kb_index(b, t->a, KB_F32, k);
    for (uint32_t r = 0; r < t->rows; r++) {
        kb_value ap = kb_offset_c(b, at, 4 * ((int64_t)r * e->lda + dk));
        kb_value a = kb_splat(b, kb_load(b, KB_F32, 1, ap, 4), e->cfg->lanes);
        for (uint32_t v = 0; v < t->vectors; v++)
            t->sums[r * t->vectors + v] = kb_fma(b, a, w[v], t->sums[r * t->vectors + v]);
    }
}

static void stream_pair(emitter *e, regtile *t, kb_value strip, kb_value k, uint32_t dk)
{
    kb *b = e->b;
    const uint32_t lanes = e->cfg->lanes;
    kb_value pair[MAX_SUMS], w[MAX_SUMS];
    kb_value row = kb_addi(b, kb_muli(b, k, ROW_BYTES / 2), (int64_t)dk * ROW_BYTES / 2);
    for (uint32_t v = 0; v < t->vectors; v++)
        pair[v] = kb_load(b, KB_I32, lanes, weight_ptr(e, strip, row, v), lanes * 4);
    for (uint32_t v = 0; v < t->vectors; v++)
        w[v] = low_half(b, pair[v], lanes);
    fma_row(e, t, k, dk, w);
    for (uint32_t v = 0; v < t->vectors; v++)
        w[v] = high_half(b, pair[v], lanes);
    fma_row(e, t, k, dk + 1, w);
}

static void stream_f32(emitter *e, regtile *t, kb_value strip, kb_value k, uint32_t dk)
{
    kb *b = e->b;
    const uint32_t lanes = e->cfg->lanes;
    kb_value w[MAX_SUMS];
    kb_value row = kb_addi(b, kb_muli(b, k, ROW_BYTES), (int64_t)dk * ROW_BYTES);
    for (uint32_t v = 0; v < t->vectors; v++)
        w[v] = kb_load(b, KB_F32, lanes, weight_ptr(e, strip, row, v), lanes * 4);
    fma_row(e, t, k, dk, w);
}

static void prefetch_strip(emitter *e, regtile *t, kb_value strip, kb_value k, uint32_t n_k)
{
    kb *b = e->b;
    const bool pairs = e->cfg->weight == KF_WEIGHT_BF16;
    const uint32_t lines = pairs ? n_k / 2 : n_k;
    kb_value row = kb_muli(b, k, pairs ? ROW_BYTES / 2 : ROW_BYTES);
    for (uint32_t v = 0; v < t->vectors; v += KF_PANEL / e->cfg->lanes) {
        kb_value p = kb_offset_c(b, weight_ptr(e, strip, row, v), e->cfg->prefetch_bytes);
        for (uint32_t i = 0; i < lines; i++)
            kb_prefetch(b, kb_offset_c(b, p, (int64_t)i * ROW_BYTES));
    }
}

/* sums += A'[group][lo..hi) * W[lo..hi)[strip], |unroll| k a turn. */
static void stream_span(emitter *e, regtile *t, kb_value strip, kb_value lo, kb_value hi,
                        uint32_t unroll)
{
    kb *b = e->b;
    kb_loop l;
    const uint32_t n = t->rows * t->vectors;
    kb_loop_begin(b, &l, lo, hi, unroll, n, t->sums);
    memcpy(t->sums, l.carried, n * sizeof t->sums[0]);
    if (e->cfg->prefetch_bytes)
        prefetch_strip(e, t, strip, l.iv, unroll);
    if (e->cfg->weight == KF_WEIGHT_BF16) {
        for (uint32_t dk = 0; dk < unroll; dk += 2)
            stream_pair(e, t, strip, l.iv, dk);
    } else {
        for (uint32_t dk = 0; dk < unroll; dk++)
            stream_f32(e, t, strip, l.iv, dk);
    }
    kb_loop_end(b, &l, t->sums);
    memcpy(t->sums, l.carried, n * sizeof t->sums[0]);
}

static void store_sums(emitter *e, const regtile *t, kb_value c)
{
    for (uint32_t i = 0; i < t->rows * t->vectors; i++) {
        const uint32_t r = i / t->vectors, v = i % t->vectors;
        const int64_t at = 4 * ((int64_t)r * e->tile.ldc + v * e->cfg->lanes);
        kb_store(e->b, t->sums[i], kb_offset_c(e->b, c, at), e->cfg->lanes * 4);
    }
}

/* ---- stream form
 * ---------------------------------------------------------------------------------------- */

static void stream_strips(emitter *e, uint32_t rows, uint32_t nr, kb_value lo, kb_value hi)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_loop strips;
    kb_loop_begin(b, &strips, lo, hi, nr, 0, NULL);
    regtile t = {.rows = rows, .vectors = nr / cfg->lanes, .a = e->a};
    for (uint32_t i = 0; i < rows * t.vectors; i++)
        t.sums[i] = kb_f32(b, cfg->lanes, 0.0f);
    kb_value strip = strip_ptr(e, strips.iv, nr);
    const uint32_t k = k_padded(cfg), whole = k / cfg->k_unroll * cfg->k_unroll;
    if (whole)
        stream_span(e, &t, strip, kb_i64(b, 0), kb_i64(b, whole), cfg->k_unroll);
    if (whole < k)
        stream_span(e, &t, strip, kb_i64(b, whole), kb_i64(b, k),
                    cfg->weight == KF_WEIGHT_BF16 ? 2 : 1);
    store_sums(e, &t, kb_index(b, e->tile.c, KB_F32, strips.iv));
    kb_loop_end(b, &strips, NULL);
}

/* All strips of the tile for a fixed number of rows; the last tile may end on a panel within a
 * strip. */
static void stream_rows(emitter *e, uint32_t rows)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_value cols16 = kb_and(b, kb_addi(b, e->tile.cols, KF_PANEL - 1), kb_i64(b, -KF_PANEL));
    if (cfg->nr <= KF_PANEL || panels(cfg) * KF_PANEL % cfg->nr == 0) {
        stream_strips(e, rows, cfg->nr, kb_i64(b, 0), cols16);
        return;
    }
    kb_value whole = kb_muli(b, kb_udiv(b, cols16, kb_i64(b, cfg->nr)), cfg->nr);
    stream_strips(e, rows, cfg->nr, kb_i64(b, 0), whole);
    stream_strips(e, rows, KF_PANEL, whole, cols16);
}

static void emit_stream(emitter *e)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    if (e->hooks->a_value)
        stage_a(e, kb_i64(b, 0), kb_i64(b, cfg->k));
    if (cfg->max_rows == 1) {
        stream_rows(e, 1);
        return;
    }
    kb_switch sw;
    kb_switch_begin(b, &sw, e->tile.rows, cfg->max_rows);
    for (uint32_t rows = 1; rows <= cfg->max_rows; rows++) {
        kb_switch_case(b, &sw, rows);
        stream_rows(e, rows);
    }
    kb_switch_end(b, &sw);
}

/* ---- block form
 * ------------------------------------------------------------------------------------------- */

static void zero_c(emitter *e)
{
    kb *b = e->b;
    kb_loop l;
    kb_value n = kb_muli(b, e->tile.rows, e->tile.ldc);
    kb_loop_begin(b, &l, kb_i64(b, 0), n, 16, 0, NULL);
    for (uint32_t i = 0; i < 16; i += e->cfg->lanes) {
        kb_value p = kb_offset_c(b, kb_index(b, e->tile.c, KB_F32, l.iv), 4 * (int64_t)i);
        kb_store(b, kb_f32(b, e->cfg->lanes, 0.0f), p, e->cfg->lanes * 4);
    }
    kb_loop_end(b, &l, NULL);
}

/* bbuf[len][nr] = widened W[k0 .. k0+len)[strip], bf16; |strip| is at k0. */
static void widen_panel(emitter *e, kb_value strip, uint32_t nr, kb_value len)
{
    kb *b = e->b;
    const uint32_t lanes = e->cfg->lanes;
    kb_loop l;
    kb_loop_begin(b, &l, kb_i64(b, 0), len, 2, 0, NULL);
    kb_value row = kb_muli(b, l.iv, ROW_BYTES / 2);
    kb_value dst = kb_offset(b, e->bbuf, kb_muli(b, l.iv, 4 * (int64_t)nr));
    for (uint32_t v = 0; v < nr / lanes; v++) {
        kb_value pair = kb_load(b, KB_I32, lanes, weight_ptr(e, strip, row, v), lanes * 4);
        kb_value at = kb_offset_c(b, dst, 4 * (int64_t)v * lanes);
        kb_store(b, low_half(b, pair, lanes), at, lanes * 4);
        kb_store(b, high_half(b, pair, lanes), kb_offset_c(b, at, 4 * (int64_t)nr), lanes * 4);
    }
    kb_loop_end(b, &l, NULL);
}

typedef struct block {
    kb_value strip; /* the strip of W at row k0 */
    kb_value a;     /* A' of the tile, column k0 */
    kb_value c;     /* C of the tile at the strip's column */
    kb_value len;   /* k of this block, padded */
    uint32_t nr;
} block;

static void block_row(emitter *e, regtile *t, const block *blk, kb_value k, uint32_t dk)
{
    kb *b = e->b;
    const uint32_t lanes = e->cfg->lanes;
    kb_value w[MAX_SUMS];
    for (uint32_t v = 0; v < t->vectors; v++) {
        kb_value p;
        if (e->cfg->weight == KF_WEIGHT_F32) {
            p = weight_ptr(e, blk->strip, kb_addi(b, kb_muli(b, k, ROW_BYTES), dk * ROW_BYTES), v);
        } else {
            p = kb_index(b, e->bbuf, KB_F32, kb_muli(b, k, blk->nr));
            p = kb_offset_c(b, p, 4 * ((int64_t)dk * blk->nr + v * lanes));
        }
        w[v] = kb_load(b, KB_F32, lanes, p, lanes * 4);
    }
    fma_row(e, t, k, dk, w);
}

static void block_span(emitter *e, regtile *t, const block *blk, kb_value lo, kb_value hi,
                       uint32_t unroll)
{
    kb_loop l;
    const uint32_t n = t->rows * t->vectors;
    kb_loop_begin(e->b, &l, lo, hi, unroll, n, t->sums);
    memcpy(t->sums, l.carried, n * sizeof t->sums[0]);
    for (uint32_t dk = 0; dk < unroll; dk++)
        block_row(e, t, blk, l.iv, dk);
    kb_loop_end(e->b, &l, t->sums);
    memcpy(t->sums, l.carried, n * sizeof t->sums[0]);
}

/* The micro-kernel for a group of |rows| rows that starts at row |r0| of the tile. */
static void block_group(emitter *e, const block *blk, uint32_t rows, kb_value r0)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    regtile t = {.rows = rows, .vectors = blk->nr / cfg->lanes};
    t.a = kb_index(b, blk->a, KB_F32, kb_muli(b, r0, e->lda));
    kb_value c = kb_index(b, blk->c, KB_F32, kb_muli(b, r0, e->tile.ldc));
    for (uint32_t i = 0; i < rows * t.vectors; i++) {
        const uint32_t r = i / t.vectors, v = i % t.vectors;
        const int64_t at = 4 * ((int64_t)r * e->tile.ldc + v * cfg->lanes);
        t.sums[i] = kb_load(b, KB_F32, cfg->lanes, kb_offset_c(b, c, at), cfg->lanes * 4);
    }
    kb_value whole = kb_muli(b, kb_udiv(b, blk->len, kb_i64(b, cfg->k_unroll)), cfg->k_unroll);
    block_span(e, &t, blk, kb_i64(b, 0), whole, cfg->k_unroll);
    if (k_padded(cfg) % cfg->k_unroll != 0)
        block_span(e, &t, blk, whole, blk->len, 1);
    store_sums(e, &t, c);
}

/* Group |g|'s share of the lines that the next strip of W will widen, while this one computes. */
static void prefetch_next_strip(emitter *e, const block *blk, kb_value g)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    const uint32_t panel_lines = cfg->weight == KF_WEIGHT_BF16 ? cfg->kc / 2 : cfg->kc;
    const uint32_t groups = (cfg->tile_m + cfg->mr - 1) / cfg->mr;
    const uint32_t share = (panel_lines + groups - 1) / groups;
    kb_value line = kb_muli(b, g, (int64_t)share * ROW_BYTES);
    for (uint32_t panel = 0; panel < blk->nr / KF_PANEL; panel++) {
        const int64_t at = (int64_t)(blk->nr / KF_PANEL + panel) * (int64_t)panel_bytes(cfg);
        kb_value p = kb_offset(b, kb_offset_c(b, blk->strip, at), line);
        for (uint32_t i = 0; i < share; i++)
            kb_prefetch(b, kb_offset_c(b, p, (int64_t)i * ROW_BYTES));
    }
}

/* Deals the tile's rows to ceil(rows / mr) groups of nearly equal size and runs each. */
static void block_groups(emitter *e, const block *blk)
{
    kb *b = e->b;
    const uint32_t mr = e->cfg->mr;
    kb_value n = kb_udiv(b, kb_addi(b, e->tile.rows, mr - 1), kb_i64(b, mr));
    kb_value size = kb_udiv(b, e->tile.rows, n);
    kb_value extra = kb_sub(b, e->tile.rows, kb_mul(b, size, n));
    kb_loop groups;
    kb_value r0 = kb_i64(b, 0);
    kb_loop_begin(b, &groups, kb_i64(b, 0), n, 1, 1, &r0);
    kb_value bigger = kb_icmp(b, KB_LT, groups.iv, extra);
    kb_value rows = kb_select(b, bigger, kb_addi(b, size, 1), size);
    kb_switch sw;
    kb_switch_begin(b, &sw, rows, mr);
    for (uint32_t i = 1; i <= mr; i++) {
        kb_switch_case(b, &sw, i);
        block_group(e, blk, i, groups.carried[0]);
    }
    kb_switch_end(b, &sw);
    if (e->cfg->prefetch_bytes)
        prefetch_next_strip(e, blk, groups.iv);
    kb_value next = kb_add(b, groups.carried[0], rows);
    kb_loop_end(b, &groups, &next);
}

static void block_strips(emitter *e, uint32_t nr, kb_value k0, kb_value len, kb_value lo,
                         kb_value hi)
{
    kb *b = e->b;
    kb_loop strips;
    kb_loop_begin(b, &strips, lo, hi, nr, 0, NULL);
    block blk = {.nr = nr, .len = len, .a = e->a};
    blk.strip = strip_ptr(e, strips.iv, nr);
    blk.c = kb_index(b, e->tile.c, KB_F32, strips.iv);
    if (!e->hooks->a_value)
        blk.a = kb_index(b, e->a, KB_F32, k0);
    const bool pairs = e->cfg->weight == KF_WEIGHT_BF16;
    blk.strip = kb_offset(b, blk.strip, kb_muli(b, k0, pairs ? ROW_BYTES / 2 : ROW_BYTES));
    if (pairs)
        widen_panel(e, blk.strip, nr, len);
    block_groups(e, &blk);
    kb_loop_end(b, &strips, NULL);
}

static void emit_block(emitter *e)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_value cols16 = kb_and(b, kb_addi(b, e->tile.cols, KF_PANEL - 1), kb_i64(b, -KF_PANEL));
    zero_c(e);
    kb_loop blocks;
    kb_loop_begin(b, &blocks, kb_i64(b, 0), kb_i64(b, cfg->k), cfg->kc, 0, NULL);
    kb_value k0 = blocks.iv;
    if (e->hooks->a_value)
        stage_a(e, k0, kb_min(b, kb_i64(b, cfg->kc), kb_sub(b, kb_i64(b, cfg->k), k0)));
    kb_value len = kb_min(b, kb_i64(b, cfg->kc), kb_sub(b, kb_i64(b, k_padded(cfg)), k0));
    if (panels(cfg) * KF_PANEL % cfg->nr == 0) {
        block_strips(e, cfg->nr, k0, len, kb_i64(b, 0), cols16);
    } else {
        kb_value whole = kb_muli(b, kb_udiv(b, cols16, kb_i64(b, cfg->nr)), cfg->nr);
        block_strips(e, cfg->nr, k0, len, kb_i64(b, 0), whole);
        block_strips(e, KF_PANEL, k0, len, whole, cols16);
    }
    kb_loop_end(b, &blocks, NULL);
}

/* ---- the tile
 * ---------------------------------------------------------------------------------------------- */

static void place_tile(emitter *e)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_value m = kb_dim(b, e->hooks->rows_dim);
    kb_value col_block = kb_tile(b);
    e->tile.row0 = kb_i64(b, 0);
    e->tile.rows = cfg->max_rows == 1 ? kb_i64(b, 1) : m;
    if (cfg->max_rows > cfg->tile_m) {
        kb_value blocks = kb_udiv(b, kb_addi(b, m, cfg->tile_m - 1), kb_i64(b, cfg->tile_m));
        col_block = kb_udiv(b, kb_tile(b), blocks);
        e->tile.row0 = kb_muli(b, kb_urem(b, kb_tile(b), blocks), cfg->tile_m);
        e->tile.rows = kb_min(b, kb_i64(b, cfg->tile_m), kb_sub(b, m, e->tile.row0));
    }
    e->tile.col0 = kb_muli(b, col_block, cfg->tile_n);
    e->tile.cols = kb_i64(b, cfg->tile_n);
    if (cfg->n % cfg->tile_n != 0)
        e->tile.cols = kb_min(b, e->tile.cols, kb_sub(b, kb_i64(b, cfg->n), e->tile.col0));
}

static void place_scratch(emitter *e)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_value s = kb_scratch(b);
    e->tile.ldc = tile_ldc(cfg);
    e->bbuf = kb_offset_c(b, s, (int64_t)a_bytes(cfg));
    e->tile.c = kb_offset_c(b, s, (int64_t)(a_bytes(cfg) + b_bytes(cfg)));
    e->tile.user = kb_offset_c(b, s, (int64_t)(a_bytes(cfg) + b_bytes(cfg) + c_bytes(cfg)));
    e->a = s;
    e->lda = staged_lda(cfg);
    if (!e->hooks->a_value) {
        e->lda = e->hooks->a_stride;
        kb_value first = kb_muli(b, e->tile.row0, e->lda);
        e->a = kb_index(b, kb_ptr(b, e->hooks->a_operand), KB_F32, first);
    }
    kb_value panel = kb_lshr(b, e->tile.col0, 4);
    e->w = kb_offset(b, kb_ptr(b, e->hooks->weight_operand),
                     kb_muli(b, panel, (int64_t)panel_bytes(cfg)));
}

void kf_emit_matmul_tile(kb *b, const kf_matmul_config *cfg, const kf_matmul_hooks *hooks)
{
    const char *why = NULL;
    KF_ASSERT(kf_matmul_config_ok(cfg, kb_regs(b), &why), "matmul config breaks a rule");
    KF_ASSERT(hooks->a_value || k_padded(cfg) == cfg->k, "an odd K needs a staged A");
    emitter e = {.b = b, .cfg = cfg, .hooks = hooks, .tile = {.config = cfg}};
    place_tile(&e);
    place_scratch(&e);
    if (hooks->begin)
        hooks->begin(b, hooks->user, &e.tile);
    if (cfg->form == KF_MATMUL_STREAM)
        emit_stream(&e);
    else
        emit_block(&e);
    hooks->epilogue(b, hooks->user, &e.tile);
}
