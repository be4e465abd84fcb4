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
 * Design of the block form: Goto and van de
 * Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008.
 */
#include "codegen/families/matmul.h"

#include "base/check.h"
#include "codegen/cpu/gemm.h"

#include <string.h>

/* Rows of scratch blocks are kept off multiples of 4 KiB, where they would share cache sets. */
#define ROW_PAD 16

typedef struct emitter {
    kb *b;
    const kf_matmul_config *cfg;
    const kf_matmul_hooks *hooks;
    kf_matmul_tile tile;
    kb_value a;    /* f32 A as the kernel reads it: row 0 of the tile */
    uint32_t lda;  /* elements */
    kb_value bbuf; /* block: widened panel(s) [kc][nr] */
    kb_value w;    /* first panel of the tile */
} emitter;

#define LINE_BYTES 64

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

/* Rows of W that one load of a vector covers. */
static uint32_t k_step(const kf_matmul_config *cfg)
{
    return cfg->weight == KF_WEIGHT_BF16 ? 2 : 1;
}

/* Bytes of a panel that belong to one k; a pair of bf16 rows shares twice that. */
static uint32_t k_bytes(const kf_matmul_config *cfg)
{
    return cfg->weight == KF_WEIGHT_F32 ? 4 * KF_PANEL : 2 * KF_PANEL;
}

/* Distance of neighbouring columns. */
static uint32_t col_bytes(const kf_matmul_config *cfg)
{
    return k_bytes(cfg) * k_step(cfg) / KF_PANEL;
}

static uint64_t panel_bytes(const kf_matmul_config *cfg)
{
    return (uint64_t)k_bytes(cfg) * k_padded(cfg);
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
    /* The hardware does not follow several panels that are walked slowly (4 rows: 65% of the read
     * probe without, 100% with), nor any across small pages, in which weights of a file lie (1 row:
     * 87% without, 93% with). */
    cfg->prefetch_bytes = 2048;
}

static void configure_block(kf_matmul_config *cfg, uint32_t lanes)
{
    cfg->form = KF_MATMUL_BLOCK;
    cfg->tile_m = min_u32(cfg->max_rows, 128);
    cfg->nr = lanes == 16 && cfg->tile_n % 32 == 0 ? 32 : 16;
    cfg->mr = min_u32(cfg->max_rows, lanes == 16 ? 12 : 6);
    cfg->k_unroll = 4;
    cfg->prefetch_bytes = 1;
    cfg->kc = min_u32(256 * KF_PANEL / cfg->nr, round_up(cfg->k, 16)); /* 16 KiB of L1 */
}

/* Columns of a tile of the block form. Wide ones prepare A less often (512 or 256 against 128: 1 to
 * 3%), but a prompt of one row block must still give 16 threads something to do. */
static uint32_t block_width(uint32_t n)
{
    for (uint32_t width = 512; width > 128; width /= 2)
        if (n >= 16 * width)
            return width;
    return n > 512 ? 128 : 64;
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
        cfg->tile_n = min_u32(n16, block_width(n16));
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

/* ---- A: the prologue ------------------------------------------------------------------------- */

/* Rows that are staged together: what belongs to a column, a gain, is loaded once for all of them. */
#define STAGE_ROWS 4

typedef struct staged {
    uint32_t n;
    kb_value row[STAGE_ROWS], dst[STAGE_ROWS]; /* of A; where its columns from k0 on go */
    kb_value k0;
} staged;

static uint32_t prepare(emitter *e, kb_value row, kb_value k, uint32_t lanes)
{
    const kf_matmul_hooks *h = e->hooks;
    return h->prepare ? h->prepare(e->b, h->user, row, k, lanes) : 0;
}

static void release(emitter *e, uint32_t mark)
{
    if (e->hooks->release)
        e->hooks->release(e->hooks->user, mark);
}

static void stage_span(emitter *e, const staged *s, kb_value lo, kb_value hi, uint32_t lanes)
{
    kb_loop l;
    kb_loop_begin(e->b, &l, lo, hi, lanes, 0, NULL);
    kb_value k = kb_add(e->b, s->k0, l.iv);
    const uint32_t mark = prepare(e, NULL, k, lanes);
    for (uint32_t i = 0; i < s->n; i++) {
        kb_value v = e->hooks->a_value(e->b, e->hooks->user, &e->tile, s->row[i], k, lanes);
        kb_store(e->b, v, kb_index(e->b, s->dst[i], KB_F32, l.iv), lanes == 1 ? 4 : lanes * 4);
    }
    release(e, mark);
    kb_loop_end(e->b, &l, NULL);
}

/* Columns k0 .. k0+len-1 of |n| rows from row |first| of the tile on. */
static void stage_rows(emitter *e, uint32_t n, kb_value first, kb_value k0, kb_value len)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    staged s = {.n = n, .k0 = k0};
    uint32_t mark = 0;
    for (uint32_t i = 0; i < n; i++) {
        kb_value row = kb_addi(b, first, i);
        s.row[i] = kb_add(b, e->tile.row0, row);
        s.dst[i] = kb_index(b, e->a, KB_F32, kb_muli(b, row, e->lda));
        const uint32_t before = prepare(e, s.row[i], NULL, cfg->lanes);
        mark = i == 0 ? before : mark;
    }
    kb_value whole = kb_and(b, len, kb_i64(b, -(int64_t)cfg->lanes));
    stage_span(e, &s, kb_i64(b, 0), whole, cfg->lanes);
    if (cfg->k % cfg->lanes != 0)
        stage_span(e, &s, whole, len, 1);
    for (uint32_t i = 0; i < n && k_padded(cfg) != cfg->k; i++)
        kb_store(b, kb_f32(b, 1, 0.0f), kb_index(b, s.dst[i], KB_F32, len), 4);
    release(e, mark);
}

/* Writes columns k0 .. k0+len-1 of the tile's rows; an odd K is followed by one zero for the
 * padding row. */
static void stage_a(emitter *e, kb_value k0, kb_value len)
{
    kb *b = e->b;
    kb_loop rows;
    kb_value done = kb_i64(b, 0);
    if (e->cfg->max_rows >= STAGE_ROWS) {
        done = kb_and(b, e->tile.rows, kb_i64(b, -STAGE_ROWS));
        kb_loop_begin(b, &rows, kb_i64(b, 0), done, STAGE_ROWS, 0, NULL);
        stage_rows(e, STAGE_ROWS, rows.iv, k0, len);
        kb_loop_end(b, &rows, NULL);
    }
    kb_loop_begin(b, &rows, done, e->tile.rows, 1, 0, NULL);
    stage_rows(e, 1, rows.iv, k0, len);
    kb_loop_end(b, &rows, NULL);
}

/* ---- W: addresses and widening --------------------------------------------------------------- */

/* Address of the first column of the strip that starts at column |col| of the tile. */
static kb_value strip_ptr(emitter *e, kb_value col, uint32_t nr)
{
    kb *b = e->b;
    kb_value panel = kb_lshr(b, col, 4);
    kb_value p = kb_offset(b, e->w, kb_muli(b, panel, (int64_t)panel_bytes(e->cfg)));
    if (nr >= KF_PANEL)
        return p;
    kb_value in_panel = kb_and(b, col, kb_i64(b, KF_PANEL - 1));
    return kb_offset(b, p, kb_muli(b, in_panel, col_bytes(e->cfg)));
}

/* Vector |v| of row k + dk of a strip (bf16: of the pair that starts there). */
static kb_value weight_ptr(emitter *e, kb_value strip, kb_value k, uint32_t dk, uint32_t v)
{
    const uint32_t col = v * e->cfg->lanes;
    const int64_t at = (int64_t)(col / KF_PANEL) * (int64_t)panel_bytes(e->cfg) +
                       col % KF_PANEL * col_bytes(e->cfg) + (int64_t)dk * k_bytes(e->cfg);
    kb_value row = kb_offset(e->b, strip, kb_muli(e->b, k, k_bytes(e->cfg)));
    return kb_offset_c(e->b, row, at);
}

/* Vector |v| of row k + dk as f32; bf16 also gives that of the next row. */
static kb_value load_row(emitter *e, kb_value strip, kb_value k, uint32_t dk, uint32_t v,
                         kb_value *out_next)
{
    kb *b = e->b;
    const uint32_t lanes = e->cfg->lanes;
    kb_value p = weight_ptr(e, strip, k, dk, v);
    if (e->cfg->weight == KF_WEIGHT_F32)
        return kb_load(b, KB_F32, lanes, p, lanes * 4);
    if (e->cfg->weight == KF_WEIGHT_F16)
        return kb_load_f32(b, KB_F16, lanes, p, lanes * 2);
    kb_value pair = kb_load(b, KB_I32, lanes, p, lanes * 4);
    kb_value upper = kb_and(b, pair, kb_int(b, KB_I32, lanes, 0xffff0000));
    *out_next = kb_bitcast(b, upper, KB_F32, lanes);
    return kb_bitcast(b, kb_shl(b, pair, 16), KB_F32, lanes);
}

/* |vectors| vectors of row k + dk. */
static void load_rows(emitter *e, kb_value strip, kb_value k, uint32_t dk, uint32_t vectors,
                      kb_value *out_w, kb_value *out_next)
{
    for (uint32_t v = 0; v < vectors; v++)
        out_w[v] = load_row(e, strip, k, dk, v, &out_next[v]);
}

/* ---- stream form ----------------------------------------------------------------------------- */

static void prefetch_strip(emitter *e, const kf_regtile *t, kb_value strip, kb_value k,
                           uint32_t n_k)
{
    kb *b = e->b;
    const uint32_t bytes = n_k * k_bytes(e->cfg);
    for (uint32_t v = 0; v < t->vectors; v += KF_PANEL / e->cfg->lanes) {
        kb_value p = kb_offset_c(b, weight_ptr(e, strip, k, 0, v), e->cfg->prefetch_bytes);
        for (uint32_t at = 0; at < bytes; at += LINE_BYTES)
            kb_prefetch(b, kb_offset_c(b, p, at));
    }
}

static void add_rows(emitter *e, kf_regtile *t, kb_value strip, kb_value k, uint32_t dk)
{
    kb_value w[KF_REGTILE_SUMS], next[KF_REGTILE_SUMS];
    load_rows(e, strip, k, dk, t->vectors, w, next);
    kf_regtile_fma(e->b, t, k, dk, w);
    if (k_step(e->cfg) == 2)
        kf_regtile_fma(e->b, t, k, dk + 1, next);
}

/* The same sums in the same order for a single row, whose vectors leave no registers to keep the
 * next row of W in: each vector is used up as soon as it is loaded. */
static void add_row(emitter *e, kf_regtile *t, kb_value strip, kb_value k, uint32_t dk)
{
    kb *b = e->b;
    const uint32_t lanes = e->cfg->lanes;
    kb_value at = kb_index(b, kb_index(b, t->a, KB_F32, k), KB_F32, kb_i64(b, dk)), next = NULL;
    kb_value a = kb_splat(b, kb_load(b, KB_F32, 1, at, 4), lanes), a_next = NULL;
    if (k_step(e->cfg) == 2)
        a_next = kb_splat(b, kb_load(b, KB_F32, 1, kb_offset_c(b, at, 4), 4), lanes);
    for (uint32_t v = 0; v < t->vectors; v++) {
        kb_value w = load_row(e, strip, k, dk, v, &next);
        t->sums[v] = kb_fma(b, a, w, t->sums[v]);
        if (a_next)
            t->sums[v] = kb_fma(b, a_next, next, t->sums[v]);
    }
}

/* sums += A'[group][lo..hi) * W[lo..hi)[strip], |unroll| k a turn. */
static void stream_span(emitter *e, kf_regtile *t, kb_value strip, kb_value lo, kb_value hi,
                        uint32_t unroll)
{
    kb *b = e->b;
    kb_loop l;
    const uint32_t step = k_step(e->cfg);
    kf_regtile_loop_begin(b, t, &l, lo, hi, unroll);
    if (e->cfg->prefetch_bytes)
        prefetch_strip(e, t, strip, l.iv, unroll);
    for (uint32_t dk = 0; dk < unroll; dk += step) {
        if (t->rows == 1)
            add_row(e, t, strip, l.iv, dk);
        else
            add_rows(e, t, strip, l.iv, dk);
    }
    kf_regtile_loop_end(b, t, &l);
}

static void stream_strips(emitter *e, uint32_t rows, uint32_t nr, kb_value lo, kb_value hi)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_loop strips;
    kb_loop_begin(b, &strips, lo, hi, nr, 0, NULL);
    kf_regtile t = {.rows = rows, .vectors = nr / cfg->lanes, .lanes = cfg->lanes, .a = e->a};
    t.lda = e->lda;
    kf_regtile_zero(b, &t);
    kb_value strip = strip_ptr(e, strips.iv, nr);
    const uint32_t k = k_padded(cfg), whole = k / cfg->k_unroll * cfg->k_unroll;
    if (whole)
        stream_span(e, &t, strip, kb_i64(b, 0), kb_i64(b, whole), cfg->k_unroll);
    if (whole < k)
        stream_span(e, &t, strip, kb_i64(b, whole), kb_i64(b, k), k_step(cfg));
    kf_regtile_store(b, &t, kb_index(b, e->tile.c, KB_F32, strips.iv), e->tile.ldc);
    kb_loop_end(b, &strips, NULL);
}

/* Columns of the tile up to the end of its last panel. */
static kb_value padded_cols(emitter *e)
{
    kb_value up = kb_addi(e->b, e->tile.cols, KF_PANEL - 1);
    return kb_and(e->b, up, kb_i64(e->b, -KF_PANEL));
}

/* All strips of the tile for a fixed number of rows; the last tile may end within a strip. */
static void stream_rows(emitter *e, uint32_t rows)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_value cols = padded_cols(e);
    if (cfg->nr <= KF_PANEL || panels(cfg) * KF_PANEL % cfg->nr == 0) {
        stream_strips(e, rows, cfg->nr, kb_i64(b, 0), cols);
        return;
    }
    kb_value whole = kb_muli(b, kb_udiv(b, cols, kb_i64(b, cfg->nr)), cfg->nr);
    stream_strips(e, rows, cfg->nr, kb_i64(b, 0), whole);
    stream_strips(e, rows, KF_PANEL, whole, cols);
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

/* ---- block form ------------------------------------------------------------------------------ */

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

/* bbuf[len][nr] = W[k0 .. k0+len)[strip] as f32; |strip| is at k0. */
static void widen_panel(emitter *e, kb_value strip, uint32_t nr, kb_value len)
{
    kb *b = e->b;
    const uint32_t lanes = e->cfg->lanes, step = k_step(e->cfg);
    kb_loop l;
    kb_loop_begin(b, &l, kb_i64(b, 0), len, step, 0, NULL);
    kb_value dst = kb_offset(b, e->bbuf, kb_muli(b, l.iv, 4 * (int64_t)nr));
    kb_value w[KF_REGTILE_SUMS], next[KF_REGTILE_SUMS];
    load_rows(e, strip, l.iv, 0, nr / lanes, w, next);
    for (uint32_t v = 0; v < nr / lanes; v++) {
        kb_value at = kb_offset_c(b, dst, 4 * (int64_t)v * lanes);
        kb_store(b, w[v], at, lanes * 4);
        if (step == 2)
            kb_store(b, next[v], kb_offset_c(b, at, 4 * (int64_t)nr), lanes * 4);
    }
    kb_loop_end(b, &l, NULL);
}

typedef struct prefetch {
    emitter *e;
    kb_value strip; /* of W, at row k0 */
    uint32_t nr;
} prefetch;

/* Group |g|'s share of the lines that the next strip of W will widen, while this one computes. */
static void prefetch_next_strip(kb *b, void *user, kb_value g)
{
    const prefetch *p = user;
    const kf_matmul_config *cfg = p->e->cfg;
    const uint32_t lines = cfg->kc * k_bytes(cfg) / LINE_BYTES;
    const uint32_t groups = (cfg->tile_m + cfg->mr - 1) / cfg->mr;
    const uint32_t share = (lines + groups - 1) / groups;
    kb_value line = kb_muli(b, g, (int64_t)share * LINE_BYTES);
    for (uint32_t panel = 0; panel < p->nr / KF_PANEL; panel++) {
        const int64_t at = (int64_t)(p->nr / KF_PANEL + panel) * (int64_t)panel_bytes(cfg);
        kb_value first = kb_offset(b, kb_offset_c(b, p->strip, at), line);
        for (uint32_t i = 0; i < share; i++)
            kb_prefetch(b, kb_offset_c(b, first, (int64_t)i * LINE_BYTES));
    }
}

static void block_strips(emitter *e, uint32_t nr, kb_value k0, kb_value len, kb_value lo,
                         kb_value hi)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_loop strips;
    kb_loop_begin(b, &strips, lo, hi, nr, 0, NULL);
    kb_value strip = kb_offset(b, strip_ptr(e, strips.iv, nr), kb_muli(b, k0, k_bytes(cfg)));
    kf_gemm_strip g = {.a = e->a, .lda = e->lda, .b = strip, .ldb = KF_PANEL, .ldc = e->tile.ldc};
    g.panel_bytes = (int64_t)panel_bytes(cfg);
    if (!e->hooks->a_value)
        g.a = kb_index(b, e->a, KB_F32, k0);
    if (cfg->weight != KF_WEIGHT_F32) {
        widen_panel(e, strip, nr, len);
        g.b = e->bbuf;
        g.ldb = nr;
        g.panel_bytes = 4 * KF_PANEL;
    }
    g.c = kb_index(b, e->tile.c, KB_F32, strips.iv);
    g.rows = e->tile.rows;
    g.len = len;
    g.nr = nr;
    g.mr = cfg->mr;
    g.max_rows = cfg->tile_m;
    g.k_unroll = cfg->k_unroll;
    g.k_tail = k_padded(cfg) % cfg->k_unroll != 0;
    g.lanes = cfg->lanes;
    prefetch next = {e, strip, nr};
    if (cfg->prefetch_bytes) {
        g.after_group = prefetch_next_strip;
        g.user = &next;
    }
    kf_emit_gemm_strip(b, &g);
    kb_loop_end(b, &strips, NULL);
}

static void emit_block(emitter *e)
{
    kb *b = e->b;
    const kf_matmul_config *cfg = e->cfg;
    kb_value cols = padded_cols(e);
    zero_c(e);
    kb_loop blocks;
    kb_loop_begin(b, &blocks, kb_i64(b, 0), kb_i64(b, cfg->k), cfg->kc, 0, NULL);
    kb_value k0 = blocks.iv;
    if (e->hooks->a_value)
        stage_a(e, k0, kb_min(b, kb_i64(b, cfg->kc), kb_sub(b, kb_i64(b, cfg->k), k0)));
    kb_value len = kb_min(b, kb_i64(b, cfg->kc), kb_sub(b, kb_i64(b, k_padded(cfg)), k0));
    if (panels(cfg) * KF_PANEL % cfg->nr == 0) {
        block_strips(e, cfg->nr, k0, len, kb_i64(b, 0), cols);
    } else {
        kb_value whole = kb_muli(b, kb_udiv(b, cols, kb_i64(b, cfg->nr)), cfg->nr);
        block_strips(e, cfg->nr, k0, len, kb_i64(b, 0), whole);
        block_strips(e, KF_PANEL, k0, len, whole, cols);
    }
    kb_loop_end(b, &blocks, NULL);
}

/* ---- the tile -------------------------------------------------------------------------------- */

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
