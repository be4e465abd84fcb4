/* SPDX-License-Identifier: Apache-2.0 */
/* hash - XXH3-128 for cache keys and artifact digests (not a defence against an adversary). */
#ifndef KF_BASE_HASH_H
#define KF_BASE_HASH_H

#include "base/str.h"

typedef struct kf_hash {
    uint64_t hi, lo;
} kf_hash;

/** A running hash; free with kf_hasher_finish. */
typedef struct kf_hasher kf_hasher;
kf_hasher *kf_hasher_create(void);
void kf_hasher_add(kf_hasher *h, const void *data, size_t size_bytes);
/** Adds the length too, so that ("ab","c") and ("a","bc") differ. */
void kf_hasher_add_str(kf_hasher *h, kf_str s);
kf_hash kf_hasher_finish(kf_hasher *h);

kf_hash kf_hash_bytes(const void *data, size_t size_bytes);
/** 32 lower-case hex digits. */
kf_str kf_hash_hex(kf_arena *arena, kf_hash h);

#endif
