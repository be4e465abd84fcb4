/* SPDX-License-Identifier: Apache-2.0 */
/* hash - a thin wrapper of libxxhash, the only file that includes it. */
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

static XXH3_state_t *state_of(kf_hasher *h)
{
    return (XXH3_state_t *)h;
}

kf_hasher *kf_hasher_create(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state) {
        fprintf(stderr, "kerf: out of memory: a hash state\n");
        exit(5);
    }
    XXH3_128bits_reset(state);
    return (kf_hasher *)state;
}

void kf_hasher_add(kf_hasher *h, const void *data, size_t size_bytes)
{
    XXH3_128bits_update(state_of(h), data, size_bytes);
}

void kf_hasher_add_str(kf_hasher *h, kf_str s)
{
    unsigned char length[4];
    for (int i = 0; i < 4; i++)
        length[i] = (unsigned char)(s.len >> (8 * i));
    kf_hasher_add(h, length, sizeof length);
    kf_hasher_add(h, s.ptr, s.len);
}

kf_hash kf_hasher_finish(kf_hasher *h)
{
    XXH128_hash_t v = XXH3_128bits_digest(state_of(h));
    XXH3_freeState(state_of(h));
    return (kf_hash){v.high64, v.low64};
}

kf_hash kf_hash_bytes(const void *data, size_t size_bytes)
{
    XXH128_hash_t v = XXH3_128bits(data, size_bytes);
    return (kf_hash){v.high64, v.low64};
}

kf_str kf_hash_hex(kf_arena *arena, kf_hash h)
{
    return kf_strf(arena, "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
}
