/* SPDX-License-Identifier: Apache-2.0 */
/* recompute - which values every region computes anew from what is stored, instead of reading
 * them.
 *
 * A finished row statistic needs all column blocks of its row, so nothing that uses it can join the
 * kernel that stores the row. What it is used for is cheap: (x - mean) * scale * gain + bias. So
 * these nodes belong to no region: each region that reads one holds a copy, which starts from the
 * stored rows and their partial statistics.
 *
 *   stored   %x, %s = row_stat %x
 *   finished %m = row_reduce %s {sum} map(v, s) { s / n }       : one number a row
 *   again    %1 = sub %x, %m ; %2 = mul %1, %gain               : in each reader
 */
#ifndef KF_PASSES_RECOMPUTE_H
#define KF_PASSES_RECOMPUTE_H

#include "passes/match.h"

typedef struct kf_recompute {
    bool *row_value; /* by node: one number a row, made from a few numbers a row */
    bool *again;     /* by node: rows that each reader computes anew */
    kf_value *base;  /* by node that is computed again: the stored rows it starts from */
} kf_recompute;

kf_recompute kf_recompute_find(const kf_graph *g, kf_arena *scratch);

#endif
