/* SPDX-License-Identifier: Apache-2.0 */
/* probe - what this machine can do right now: read bandwidth and FMA rate.
 *
 * Every bandwidth or FLOP fraction that Kerf reports is against these, measured in the same run
 * between the rounds of the thing measured, because neighbours on the same host move both by tens
 * of percent.
 */
#ifndef KF_BENCH_PROBE_H
#define KF_BENCH_PROBE_H

#include <stddef.h>
#include <stdint.h>

/** Bytes that a read probe goes through: large enough that caches hold little of it. */
#define KF_PROBE_READ_BYTES ((size_t)2 << 30)

typedef struct kf_probe kf_probe;

/** Allocates and touches |bytes| (a multiple of 256 * threads), to be read by |threads| threads.
 * NULL if there is no memory for it. */
kf_probe *kf_probe_create(size_t bytes, uint32_t threads);
void kf_probe_destroy(kf_probe *p);

/** The best of |rounds| reads. */
double kf_probe_read_best(kf_probe *p, uint32_t rounds);

/** f32 multiply-adds from registers with |lanes| (8: AVX2, 16: AVX-512), for about |seconds|, on
 * all of the probe's threads: FLOP per second, two a multiply-add. 0 where the CPU lacks the
 * instructions. */
double kf_probe_fma(kf_probe *p, uint32_t lanes, double seconds);

/** Makes a probe of one thread count its CPU time instead of the wall clock: on a machine shared
 * with others the ratio of two CPU times says more than the ratio of two waits. */
void kf_probe_use_cpu_time(kf_probe *p);

/** Seconds: monotonic, and of this thread's CPU time. */
double kf_probe_now(void);
double kf_probe_cpu_now(void);

#endif
