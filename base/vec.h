/* SPDX-License-Identifier: Apache-2.0 */
/* vec - growable arrays in an arena: KF_VEC(int) v = {0}; kf_vec_push(arena, &v, 3); v.data[0];
 * v.len.
 *
 * Growth abandons the old storage to the arena unless it was the last allocation. Pointers into
 * .data are invalidated by a push.
 */
#ifndef KF_BASE_VEC_H
#define KF_BASE_VEC_H

#include "base/arena.h"

#define KF_VEC(T)                                                                                  \
    struct {                                                                                       \
        T *data;                                                                                   \
        uint32_t len;                                                                              \
        uint32_t cap;                                                                              \
    }

/** Makes room for |n| more elements. */
#define kf_vec_reserve(arena, v, n)                                                                \
    ((v)->data = kf_vec_grow((arena), (v)->data, (v)->len, &(v)->cap, (n), sizeof *(v)->data,      \
                             _Alignof(max_align_t)))

#define kf_vec_push(arena, v, ...)                                                                 \
    do {                                                                                           \
        if ((v)->len == (v)->cap)                                                                  \
            kf_vec_reserve((arena), (v), 1);                                                       \
        (v)->data[(v)->len++] = (__VA_ARGS__);                                                     \
    } while (0)

/** Implementation of kf_vec_reserve: returns storage for at least |len| + |more| elements. */
void *kf_vec_grow(kf_arena *arena, void *data, uint32_t len, uint32_t *cap, uint32_t more,
                  size_t elem_size, size_t align);

#endif
