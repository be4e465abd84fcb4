/* SPDX-License-Identifier: Apache-2.0 */
/* relative_bias - a table of biases by the distance between key and query, and by head.
 *
 * Raffel et al. 2019 (arXiv:1910.10683). Small distances have a bucket each; behind them buckets
 * widen logarithmically up to max_distance. The authors' code finds them with a logarithm in f32,
 * whose rounding decides at the edges. Here that arithmetic runs once, when the model is built, and
 * leaves whole numbers to compare with.
 */
#include "frontend/relative_bias.h"

#include "base/check.h"
#include "frontend/build_impl.h"

#include <math.h>

/* The bucket of distance |n| >= exact, in f32 as transformers' modeling_t5.py computes it. */
static int64_t far_bucket(const kf_bias_buckets *t, int64_t n, int64_t max_distance)
{
    float exact = (float)t->exact;
    float rate = (float)log((double)max_distance / (double)t->exact);
    float beyond = logf((float)n / exact) / rate * (float)(t->side - t->exact);
    int64_t bucket = t->exact + (int64_t)beyond;

    return bucket < t->side - 1 ? bucket : t->side - 1;
}

kf_bias_buckets kf_relative_buckets(int64_t buckets, int64_t max_distance, bool bidirectional)
{
    kf_bias_buckets t = {.side = bidirectional ? buckets / 2 : buckets};

    t.exact = t.side / 2;
    KF_ASSERT(t.exact > 0 && t.side <= KF_MAX_BIAS_BUCKETS && max_distance > t.exact,
              "the description was checked");
    for (int64_t n = t.exact, last = t.exact; last < t.side - 1; n++)
        for (int64_t now = far_bucket(&t, n, max_distance); last < now; last++)
            t.threshold[t.n_thresholds++] = n;
    return t;
}

static kf_value constant(kf_graph_builder *b, double v, kf_loc loc)
{
    return kf_node_const(b->g, v, loc);
}

/* |v| where |at_least| <= n, else 0. */
static kf_value step(kf_graph_builder *b, kf_value n, double at_least, double v, kf_loc loc)
{
    kf_value holds = kf_node_2(b->g, KF_OP_ge, n, constant(b, at_least, loc), loc);

    return kf_node_3(b->g, KF_OP_select, holds, constant(b, v, loc), constant(b, 0, loc), loc);
}

/* Bucket of k - q, as numbers. */
static kf_value bucket_of(kf_graph_builder *b, const kf_spec_bias *u, kf_value distance, kf_loc loc)
{
    kf_bias_buckets t = kf_relative_buckets(u->buckets.v, u->max_distance.v, u->bidirectional.v);
    kf_graph *g = b->g;
    kf_value n =
        u->bidirectional.v
            ? kf_node_add(g, KF_OP_abs, NULL, 1, &distance, NULL, loc)
            : kf_node_2(g, KF_OP_max, kf_node_add(g, KF_OP_neg, NULL, 1, &distance, NULL, loc),
                        constant(b, 0, loc), loc);
    kf_value bucket = kf_node_2(g, KF_OP_min, n, constant(b, (double)t.exact, loc), loc);

    for (uint32_t i = 0; i < t.n_thresholds; i++)
        bucket = kf_node_2(g, KF_OP_add, bucket, step(b, n, (double)t.threshold[i], 1, loc), loc);
    if (u->bidirectional.v)
        bucket = kf_node_2(g, KF_OP_add, bucket, step(b, distance, 1, (double)t.side, loc), loc);
    return bucket;
}

kf_value kf_build_relative_bias(kf_graph_builder *b, const kf_spec_attention *a, kf_value q,
                                kf_value k, kf_loc loc)
{
    kf_graph *g = b->g;
    int64_t heads = a->num_attention_heads.v, groups = a->num_key_value_heads.v;
    kf_value distance = kf_node_2(g, KF_OP_sub, k, q, loc);
    kf_value bucket = bucket_of(b, &b->bias->u.bias, distance, loc);
    kf_type rows = *kf_value_type(g, bucket);

    rows.dtype = KF_DTYPE_i32;
    bucket = kf_node_add(g, KF_OP_convert, NULL, 1, &bucket, &rows, loc);
    kf_value bias = kf_node_2(g, KF_OP_gather, b->in.bias, bucket, loc);
    bias = kf_node_transpose(g, bias, (kf_ints){3, {2, 0, 1}}, loc);
    kf_dim grouped[] = {kf_dim_static(groups), kf_dim_static(heads / groups), rows.dim[0],
                        rows.dim[1]};
    return kf_node_reshape(g, bias, 4, grouped, loc);
}
