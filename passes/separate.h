/* SPDX-License-Identifier: Apache-2.0 */
/* separate - a row reduction as partial statistics per block of columns, and what joins them.
 *
 *   before   %1 = row_reduce %x {max, argmax} map(v, m, i) { i + 1 }
 *   after    %m = row_stat %x {max, block = 64}     %i = row_stat %x {max, argmax, block = 64}
 *            %t = row_reduce %m {max}
 *            %j = row_reduce (select (eq %m, %t), %i, inf) {min}
 *            %1 = add %j, 1
 *
 * The partial ones are left behind by the kernel that stores %x: it holds whole blocks, not whole
 * rows. A map becomes ordinary functions of the rows and of the joined accumulators.
 */
#ifndef KF_PASSES_SEPARATE_H
#define KF_PASSES_SEPARATE_H

#include "passes/match.h"

/** Columns per partial statistic. A matmul's column tile that leaves statistics covers whole
 * blocks. */
enum { KF_STAT_BLOCK = 64 };

/** True if each of |accs| follows from partial ones. */
bool kf_accs_can_join(const kf_accs *accs);

/** Columns of a block for |accs| over |columns|; 0: there is no such number. */
int64_t kf_stat_block(const kf_accs *accs, int64_t columns);

/** row_stat of |x|, made where gathered rows come from. */
kf_value kf_partial_stat(kf_graph *g, kf_value x, kf_accs acc, int64_t block, kf_loc loc);

/** row_reduce of |stat| to one value a row; |map| may be NULL. */
kf_value kf_join_stat(kf_graph *g, kf_value stat, kf_accs acc, const kf_slot *map, kf_loc loc);

/** Replaces the row_reduce at |node| by the forms above. */
void kf_separate(kf_graph *g, uint32_t node, int64_t block, kf_arena *scratch);

#endif
