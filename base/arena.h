/* SPDX-License-Identifier: Apache-2.0 */
/* arena - all memory of the compiler.
 *
 * Bump allocation from blocks with one lifetime each (ctx, graph, plan, scratch); there is no free.
 * Failure to allocate ends the process with exit 5 and the arena's tag: right for a compiler, never
 * used by the runtime. Arenas are not thread safe; give each thread its own.
 */
#ifndef KF_BASE_ARENA_H
#define KF_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct kf_arena kf_arena;

/** A savepoint: everything allocated after it is returned by kf_arena_restore. */
typedef struct kf_arena_mark {
    void *block;
    size_t used;
    size_t total;
} kf_arena_mark;

/** Creates an arena. |tag| names it in messages and reports (borrowed, static storage expected). */
kf_arena *kf_arena_create(const char *tag);

/** Frees the arena and everything in it; NULL is allowed. */
void kf_arena_destroy(kf_arena *arena);

/** Returns |size| zeroed bytes aligned to |align| (a power of two <= 64). Never NULL. */
void *kf_arena_alloc(kf_arena *arena, size_t size, size_t align);

/** Grows the array |old| of |old_size| bytes to |new_size|; in place when it was the last
 * allocation. */
void *kf_arena_grow(kf_arena *arena, void *old, size_t old_size, size_t new_size, size_t align);

kf_arena_mark kf_arena_save(kf_arena *arena);

/** Drops (and, under ASan, poisons) everything allocated since |mark|. */
void kf_arena_restore(kf_arena *arena, kf_arena_mark mark);

/** Bytes handed out and bytes taken from the system. */
size_t kf_arena_used(const kf_arena *arena);
size_t kf_arena_allocated(const kf_arena *arena);

#define KF_NEW(arena, T)      ((T *)kf_arena_alloc((arena), sizeof(T), _Alignof(T)))
#define KF_NEW_N(arena, T, n) ((T *)kf_arena_alloc((arena), sizeof(T) * (size_t)(n), _Alignof(T)))

#endif
