/* SPDX-License-Identifier: Apache-2.0 */
/* cost - FLOPs and bytes of a region body: what reports, profiles and the cost model count with. */
#ifndef KF_PASSES_COST_H
#define KF_PASSES_COST_H

#include "ir/plan.h"

/** A multiply and an add are two FLOPs; a scalar function is one per element. Bytes count each
 * operand and result once, of a table only the rows that are gathered, of the cache what each token
 * sees. */
void kf_region_cost(const kf_graph *body, kf_cost *out_flops, kf_cost *out_bytes);

#endif
