/* SPDX-License-Identifier: Apache-2.0 */
/* arena - blocks in a list, newest first; an allocation never moves and is never freed alone.
 *
 * Under AddressSanitizer everything not handed out is poisoned, with a gap after each allocation,
 * so that overruns and uses after a restore are caught although malloc sees only whole blocks.
 */
#include "base/arena.h"

#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define KF_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KF_ASAN 1
#endif
#endif

#ifdef KF_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(ptr, size)   __asan_poison_memory_region((ptr), (size))
#define UNPOISON(ptr, size) __asan_unpoison_memory_region((ptr), (size))
enum { GAP_BYTES = 16 };
#else
#define POISON(ptr, size)   ((void)(ptr), (void)(size))
#define UNPOISON(ptr, size) ((void)(ptr), (void)(size))
enum { GAP_BYTES = 0 };
#endif

enum {
    FIRST_BLOCK_BYTES = 64 << 10,
    MAX_BLOCK_BYTES = 4 << 20,
    MIN_ALIGN = 8, /* the sanitizer's granule */
    MAX_ALIGN = 64
};

typedef struct block {
    struct block *prev; /* Owned */
    size_t cap;
    size_t used;
    _Alignas(MAX_ALIGN) unsigned char data[];
} block;

struct kf_arena {
    const char *tag; /* Borrowed */
    block *head;     /* Owned */
    block *spare;    /* Owned; the last block dropped, so that save and restore in a loop is free */
    void *last;      /* the newest allocation, the only one that can grow in place */
    size_t used;     /* bytes handed out */
    size_t total;    /* bytes taken from the system */
    size_t next_block_bytes;
};

static _Noreturn void out_of_memory(const char *tag, size_t size)
{
    fprintf(stderr, "kerf: out of memory: %zu bytes for '%s'\n", size, tag);
    exit(5);
}

kf_arena *kf_arena_create(const char *tag)
{
    kf_arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        out_of_memory(tag, sizeof *arena);
    arena->tag = tag;
    arena->next_block_bytes = FIRST_BLOCK_BYTES;
    return arena;
}

static void free_block(kf_arena *arena, block *b)
{
    if (!b)
        return;
    arena->total -= sizeof *b + b->cap;
    UNPOISON(b->data, b->cap);
    free(b);
}

static void drop_head(kf_arena *arena)
{
    block *b = arena->head;
    arena->head = b->prev;
    if (b->cap > MAX_BLOCK_BYTES) {
        free_block(arena, b);
        return;
    }
    free_block(arena, arena->spare);
    POISON(b->data, b->cap);
    arena->spare = b;
}

void kf_arena_destroy(kf_arena *arena)
{
    if (!arena)
        return;
    while (arena->head)
        drop_head(arena);
    free_block(arena, arena->spare);
    free(arena);
}

static void push_block(kf_arena *arena, block *b)
{
    b->prev = arena->head;
    b->used = 0;
    arena->head = b;
}

static void add_block(kf_arena *arena, size_t min_bytes)
{
    if (arena->spare && arena->spare->cap >= min_bytes) {
        push_block(arena, arena->spare);
        arena->spare = NULL;
        return;
    }
    size_t cap = arena->next_block_bytes;
    if (cap < min_bytes)
        cap = min_bytes;
    else if (arena->next_block_bytes < MAX_BLOCK_BYTES)
        arena->next_block_bytes *= 2;
    cap = (cap + MAX_ALIGN - 1) & ~(size_t)(MAX_ALIGN - 1);
    block *b = NULL;
    if (cap >= min_bytes)
        b = aligned_alloc(MAX_ALIGN, sizeof *b + cap);
    if (!b)
        out_of_memory(arena->tag, min_bytes);
    b->cap = cap;
    POISON(b->data, cap);
    push_block(arena, b);
    arena->total += sizeof *b + cap;
}

void *kf_arena_alloc(kf_arena *arena, size_t size, size_t align)
{
    KF_ASSERT(align && align <= MAX_ALIGN && (align & (align - 1)) == 0,
              "an arena alignment is a power of two of at most 64");
    if (align < MIN_ALIGN)
        align = MIN_ALIGN;
    if (size > SIZE_MAX / 2)
        out_of_memory(arena->tag, size);
    block *b = arena->head;
    size_t start = b ? (b->used + align - 1) & ~(align - 1) : 0;
    if (!b || start > b->cap || b->cap - start < size + GAP_BYTES) {
        add_block(arena, size + GAP_BYTES);
        b = arena->head;
        start = 0;
    }
    unsigned char *ptr = b->data + start;
    b->used = start + size + GAP_BYTES;
    arena->used += size;
    arena->last = ptr;
    UNPOISON(ptr, size);
    memset(ptr, 0, size);
    return ptr;
}

void *kf_arena_grow(kf_arena *arena, void *old, size_t old_size, size_t new_size, size_t align)
{
    KF_ASSERT(new_size >= old_size, "kf_arena_grow does not shrink");
    block *b = arena->head;
    if (old && old == arena->last) {
        size_t start = (size_t)((unsigned char *)old - b->data);
        if (new_size <= SIZE_MAX / 2 && b->cap - start >= new_size + GAP_BYTES) {
            b->used = start + new_size + GAP_BYTES;
            arena->used += new_size - old_size;
            UNPOISON(old, new_size);
            memset((unsigned char *)old + old_size, 0, new_size - old_size);
            return old;
        }
    }
    void *ptr = kf_arena_alloc(arena, new_size, align);
    if (old_size)
        memcpy(ptr, old, old_size);
    return ptr;
}

kf_arena_mark kf_arena_save(kf_arena *arena)
{
    block *b = arena->head;
    arena->last = NULL; /* growth across a mark would outlive the restore only in part */
    return (kf_arena_mark){b, b ? b->used : 0, arena->used};
}

void kf_arena_restore(kf_arena *arena, kf_arena_mark mark)
{
    while (arena->head && arena->head != mark.block)
        drop_head(arena);
    KF_ASSERT(arena->head == mark.block, "an arena mark is restored after an older one");
    if (arena->head) {
        arena->head->used = mark.used;
        POISON(arena->head->data + mark.used, arena->head->cap - mark.used);
    }
    arena->used = mark.total;
    arena->last = NULL;
}

size_t kf_arena_used(const kf_arena *arena)
{
    return arena->used;
}

size_t kf_arena_allocated(const kf_arena *arena)
{
    return arena->total;
}
