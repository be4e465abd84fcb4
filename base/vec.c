/* SPDX-License-Identifier: Apache-2.0 */
/* vec - the one function behind the macros of vec.h: capacity doubles, from 8 elements on. */
#include "base/vec.h"

#include "base/check.h"

void *kf_vec_grow(kf_arena *arena, void *data, uint32_t len, uint32_t *cap, uint32_t more,
                  size_t elem_size, size_t align)
{
    KF_ASSERT(more <= UINT32_MAX - len, "an array holds fewer than 2^32 elements");
    uint32_t need = len + more;
    if (need <= *cap)
        return data;
    uint32_t next = *cap < 8 ? 8 : *cap;
    while (next < need)
        next = next > UINT32_MAX / 2 ? UINT32_MAX : next * 2;
    void *grown = kf_arena_grow(arena, data, elem_size * *cap, elem_size * next, align);
    *cap = next;
    return grown;
}
