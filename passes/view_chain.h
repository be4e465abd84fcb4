/* SPDX-License-Identifier: Apache-2.0 */
/* view_chain - a chain of reshapes and transposes in its shortest form. */
#ifndef KF_PASSES_VIEW_CHAIN_H
#define KF_PASSES_VIEW_CHAIN_H

#include "ir/graph.h"

/** What the views up to |n| do together as at most reshape - transpose - reshape over as few dims
 * as possible. KF_NO_VALUE if that is how it is written. The new nodes stand at the end. */
kf_value kf_view_chain(kf_graph *g, const kf_node *n);

#endif
