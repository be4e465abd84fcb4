/* SPDX-License-Identifier: Apache-2.0 */
/* memory - the default allocator, the log and the status texts. */
#define _GNU_SOURCE
#include "runtime/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Sanitized builds see the ends of blocks of malloc only. */
#define MMAP_FROM_BYTES ((size_t)1 << (KF_HAS_ASAN ? 26 : 20))

static void *default_alloc(void *user, size_t size_bytes, size_t align)
{
    (void)user;
    if (size_bytes >= MMAP_FROM_BYTES) {
        void *p = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            return NULL;
        madvise(p, size_bytes, MADV_HUGEPAGE);
        return p;
    }
    size_t rounded = (size_bytes + align - 1) & ~(align - 1);
    void *p = aligned_alloc(align, rounded);
    if (p)
        memset(p, 0, rounded);
    return p;
}

static void default_free(void *user, void *p, size_t size_bytes)
{
    (void)user;
    if (size_bytes >= MMAP_FROM_BYTES)
        munmap(p, size_bytes);
    else
        free(p);
}

const kf_allocator kf_default_allocator = {default_alloc, default_free, NULL};

void *kf_alloc(const kf_allocator *a, size_t size_bytes, size_t align)
{
    return a->alloc(a->user, size_bytes ? size_bytes : 1, align);
}

void kf_free(const kf_allocator *a, void *p, size_t size_bytes)
{
    if (p)
        a->free(a->user, p, size_bytes ? size_bytes : 1);
}

static void log_v(const kf_logger *l, kf_log_level level, const char *format, va_list args)
{
    if (!l || !l->log)
        return;
    char text[768];
    vsnprintf(text, sizeof text, format, args);
    l->log(l->user, level, text);
}

void kf_log(const kf_logger *l, kf_log_level level, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_v(l, level, format, args);
    va_end(args);
}

kf_status kf_fail(const kf_logger *l, kf_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_v(l, KF_LOG_ERROR, format, args);
    va_end(args);
    return status;
}

const char *kf_status_text(kf_status status)
{
    switch (status) {
    case KF_OK:
        return "ok";
    case KF_ERR_INPUT:
        return "bad input";
    case KF_ERR_USAGE:
        return "bad call or option";
    case KF_ERR_IO:
        return "file missing, unreadable or damaged";
    case KF_ERR_UNSUPPORTED:
        return "not supported by this build of the model";
    case KF_ERR_MEMORY:
        return "out of memory";
    case KF_ERR_DEVICE:
        return "processor or device not suitable";
    case KF_ERR_VERIFY:
        return "verification failed";
    }
    return "unknown status";
}
