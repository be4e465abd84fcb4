/* SPDX-License-Identifier: Apache-2.0 */
/* relative_bias - the buckets of distances between a key and a query. */
#ifndef KF_FRONTEND_RELATIVE_BIAS_H
#define KF_FRONTEND_RELATIVE_BIAS_H

#include <stdbool.h>
#include <stdint.h>

#define KF_MAX_BIAS_BUCKETS 1024

/** How distances of one side fall into buckets: n into min(n, exact) + the number of thresholds
 * that are at most n. */
typedef struct kf_bias_buckets {
    int64_t side, exact; /* buckets of a side; those of single distances */
    uint32_t n_thresholds;
    int64_t threshold[KF_MAX_BIAS_BUCKETS]; /* ascending */
} kf_bias_buckets;

kf_bias_buckets kf_relative_buckets(int64_t buckets, int64_t max_distance, bool bidirectional);

#endif
