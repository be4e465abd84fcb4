/* SPDX-License-Identifier: Apache-2.0 */
/* support - what several test programs need: amounts of random cases and a generator for them. */
#ifndef KF_TESTS_UNIT_SUPPORT_H
#define KF_TESTS_UNIT_SUPPORT_H

#include <stdint.h>
#include <stdlib.h>

/** |count| random cases scaled by KF_TEST_SCALE percent (sanitized builds do fewer), at least 1. */
static inline uint32_t scaled(uint32_t count)
{
    const char *percent = getenv("KF_TEST_SCALE");
    uint64_t n = percent ? count * strtoull(percent, NULL, 10) / 100 : count;
    return n > 0 ? (uint32_t)n : 1;
}

/** KF_TEST_SEED, or |usual|. Print it when a case fails. */
static inline uint64_t test_seed(uint64_t usual)
{
    const char *seed = getenv("KF_TEST_SEED");
    return seed ? strtoull(seed, NULL, 10) : usual;
}

/** splitmix64 (Steele, Lea and Flood 2014): a full-period step for any state. */
static inline uint64_t random_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
