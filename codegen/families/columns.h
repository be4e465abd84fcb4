/* SPDX-License-Identifier: Apache-2.0 */
/* columns - which columns of a matmul each column of a region's results is made of.
 *
 * An epilogue may regroup, cut, rotate and reduce columns; a tile can compute a result column only
 * if it holds every matmul column behind it. Rather than recognising shapes of epilogues, the index
 * maps are followed for every result column, once, at compile time. From the spans follow the legal
 * tile widths and the result columns of each tile.
 */
#ifndef KF_CODEGEN_FAMILIES_COLUMNS_H
#define KF_CODEGEN_FAMILIES_COLUMNS_H

#include "codegen/families/family.h"

/** Something the region stores: a result, or one plane of a kv_append. */
typedef struct kf_column_item {
    uint32_t result;
    int plane;             /* kv_append: KF_PLANE_KEYS or KF_PLANE_VALUES; else -1 */
    kf_value value;        /* what is stored: [rows, ...], all dims but the first static */
    uint32_t n;            /* columns: product of the static dims */
    int32_t *first, *last; /* matmul columns behind each */
} kf_column_item;

typedef struct kf_columns {
    kf_value matmul;
    uint32_t n_items;
    kf_column_item item[2 * KF_MAX_RESULTS];
} kf_columns;

/** False with a sentence if a result is not computed row by row from the matmul and arguments. */
bool kf_columns_trace(const kf_graph *g, kf_value matmul, kf_arena *arena, kf_columns *out,
                      kf_sbuf *why);

/** True if tiles of |tile_n| columns hold what their result columns need. */
bool kf_columns_tile_ok(const kf_columns *c, const kf_graph *g, uint32_t tile_n);

/** First result column of each of the |n_tiles| tiles, and behind them the number of columns. */
int32_t *kf_columns_starts(const kf_column_item *item, kf_arena *arena, uint32_t tile_n,
                           uint32_t n_tiles);

#endif
