/* SPDX-License-Identifier: Apache-2.0 */
/* pipeline - the order of the passes as numbered steps, and the constraints it must keep.
 *
 * The constraints document the order and are checked by a test; nothing computes an order from
 * them.
 */
#include "passes/pipeline.h"

#define P(name) KF_PASS_ID_##name

/* clang-format off */
const kf_pass_id kf_pipeline[] = {
    /* 1. One spelling of everything that users and importers write. */
    P(canonicalize), P(fold_const), P(fold_params), P(cse), P(dce), P(unpack), P(raise_fn), P(raise_norm), P(cse), P(dce),
    /* 2. Attention is recognised while its parts are still apart. */
    P(fuse_attention), P(canonicalize), P(cse), P(dce),
    /* 3. One function per phase; from here on prefill and decode may differ. */
    P(phases),
    /* 4. Weight algebra, then norms: both look at norm -> gain -> matmul. */
    P(merge_weights), P(fold_weights), P(rewrite_norms), P(fuse_norm), P(fuse_reduce), P(cse), P(dce), P(carry_stats), P(cse), P(dce),
    /* 5. Matmuls of one input become one; the gated pair first, for it interleaves its weights. */
    P(fuse_gated), P(fuse_horizontal), P(canonicalize), P(cse), P(dce),
    /* 6. Storage order of weights, which decides what one kernel can do. */
    P(layout),
    /* 7. Regions: contractions with their surroundings, rows, and the rest. */
    P(fuse_epilogue), P(dce), P(fuse_rows), P(form_regions), P(dce),
};
const uint32_t kf_pipeline_length = sizeof kf_pipeline / sizeof kf_pipeline[0];

static const kf_pass_order orders[] = {
    {P(unpack), P(fold_weights), "a gain goes into the weights that remain"},
    {P(unpack), P(fuse_gated), "halves of one weight are two weights that meet in a product"},
    {P(raise_fn), P(fuse_attention), "an activation is one op in every pattern"},
    {P(raise_norm), P(fuse_norm), "a norm is one op there"},
    {P(fuse_attention), P(phases), "the written-out form is matched once, not per phase"},
    {P(fold_params), P(fold_weights), "a gain that is made from weights is a parameter"},
    {P(merge_weights), P(fold_weights), "one matrix is scaled instead of several"},
    {P(fold_weights), P(rewrite_norms), "gains and biases of norms stand in the matmuls"},
    {P(rewrite_norms), P(fuse_norm), "statistics are those of the norms that remain"},
    {P(fold_weights), P(fuse_norm), "a folded gain is a column scale less in the prologue"},
    {P(fuse_norm), P(fuse_gated), "the row scale must stand behind gate and up before they are joined"},
    {P(fuse_norm), P(fuse_reduce), "the statistics of norms are its own"},
    {P(fuse_norm), P(carry_stats), "carrying moves the statistics that fuse_norm makes"},
    {P(fuse_gated), P(fuse_horizontal), "gate and up are interleaved, not laid side by side"},
    {P(fuse_horizontal), P(layout), "joined weights get one layout"},
    {P(layout), P(fuse_epilogue), "a target decides on packed weights whether a region is one kernel"},
    {P(fuse_epilogue), P(fuse_rows), "contractions take their neighbours first: they move the most bytes"},
    {P(fuse_rows), P(form_regions), "what stays alone is known only then"},
};
/* clang-format on */

bool kf_pipeline_order_holds(const kf_pass_order **out_broken)
{
    for (uint32_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        uint32_t last_before = 0, first_after = kf_pipeline_length;
        for (uint32_t j = 0; j < kf_pipeline_length; j++) {
            if (kf_pipeline[j] == orders[i].before)
                last_before = j;
            if (kf_pipeline[j] == orders[i].after && first_after == kf_pipeline_length)
                first_after = j;
        }
        if (last_before >= first_after) {
            *out_broken = &orders[i];
            return false;
        }
    }
    return true;
}
