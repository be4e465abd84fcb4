/* SPDX-License-Identifier: Apache-2.0 */
/* internal - what the files of the runtime share among themselves: engine, session, worker pool.
 *
 * Not installed and not seen by emitted C. Nothing here knows what an op is.
 */
#ifndef KF_RUNTIME_INTERNAL_H
#define KF_RUNTIME_INTERNAL_H

#include "runtime/kf_artifact.h"
#include "runtime/kf_model.h"
#include "runtime/kf_runtime.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>

#if defined(__has_feature)
#define KF_HAS_ASAN __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define KF_HAS_ASAN 1
#else
#define KF_HAS_ASAN 0
#endif

#define KF_CACHE_LINE      64
#define KF_DEFAULT_CONTEXT 4096u

/* ---- Memory and log -------------------------------------------------------------------------- */

/** The allocator used where the caller gives none: mmap (lazily committed, huge pages advised) for
 *  1 MiB and more, aligned_alloc below. */
extern const kf_allocator kf_default_allocator;

void *kf_alloc(const kf_allocator *a, size_t size_bytes, size_t align);
/** NULL is allowed. */
void kf_free(const kf_allocator *a, void *p, size_t size_bytes);

typedef struct kf_logger {
    void (*log)(void *user, kf_log_level level, const char *text);
    void *user;
} kf_logger;

/** Formats into a fixed buffer and calls the hook; does nothing without one. */
void kf_log(const kf_logger *l, kf_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Logs an error and returns |status|. */
kf_status kf_fail(const kf_logger *l, kf_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define KF_TRY(expr)                                                                               \
    do {                                                                                           \
        kf_status kf_try_status = (expr);                                                          \
        if (kf_try_status != KF_OK)                                                                \
            return kf_try_status;                                                                  \
    } while (0)

/* ---- Processor ------------------------------------------------------------------------------- */

/** Mask of KF_CPU_* that this processor and operating system have. */
uint32_t kf_cpu_detect(void);
/** KF_ERR_DEVICE naming every feature of |needed| that |present| lacks. */
kf_status kf_cpu_require(uint32_t needed, uint32_t present, const kf_logger *log);
/** Processors this process may use: affinity mask, cut by the cgroup CPU quota (rounded up); >= 1.
 */
uint32_t kf_cpu_count(void);
/** Seconds from a monotonic clock. */
double kf_now_s(void);

/* ---- Packed file ----------------------------------------------------------------------------- */

typedef struct kf_section_view {
    const unsigned char *data; /* Borrowed from the mapping. NULL: no such section. */
    uint64_t size_bytes;
    uint64_t digest;
} kf_section_view;

typedef struct kf_artifact {
    const unsigned char *base; /* mapping or embedded bytes */
    uint64_t size_bytes;
    bool is_mapped;
    const kf_artifact_header *header;
    const kf_artifact_section *sections;
    kf_section_view weights, tokenizer, probe;
} kf_artifact;

/** Maps |path| (or takes the embedded bytes when |path| is NULL and the model has them), validates
 *  everything but the digests of the sections, and compares the header digest with |model|'s. */
kf_status kf_artifact_open(kf_artifact *a, const kf_model *model, const char *path,
                           const kf_logger *log);
/** Validates |size_bytes| of a packed file in memory; |a| borrows them. |name| is for messages. */
kf_status kf_artifact_parse(kf_artifact *a, const unsigned char *data, uint64_t size_bytes,
                            const char *name, const kf_logger *log);
void kf_artifact_close(kf_artifact *a);

/* ---- Worker pool ----------------------------------------------------------------------------- */

/** What one call computes; copied by every worker when it starts on the call. */
struct kf_step {
    kf_phase_fn run;
    int64_t dim[KF_DIM_COUNT];
    void *input[KF_INPUT_COUNT];
    unsigned char *pool;
    unsigned char *counters;
    const unsigned char *weights;
    const kf_model *model;
    unsigned char *const *kv_base; /* [model->n_kv] */
    uint64_t first_instance;       /* set by kf_pool_run */
};

typedef struct kf_launch_stats {
    uint64_t calls;
    double seconds, flops, bytes;
} kf_launch_stats;

typedef struct kf_pool kf_pool;

struct kf_worker {
    kf_pool *pool;
    void *scratch;
    uint64_t instance;      /* of the next launch this worker meets */
    kf_launch_stats *stats; /* by launch id; worker 0 with --profile only */
    kf_step step;
    void *ptr[KF_MAX_OPERANDS];
    pthread_t thread;
};

/** |n_threads| >= 1 counts the caller of kf_pool_run. */
kf_status kf_pool_create(const kf_allocator *a, uint32_t n_threads, uint64_t scratch_bytes,
                         const kf_logger *log, kf_pool **out_pool);
void kf_pool_destroy(kf_pool *pool, const kf_allocator *a);
uint32_t kf_pool_threads(const kf_pool *pool);
/** Runs step->run on all workers; returns when its last launch is done. Not reentrant. */
void kf_pool_run(kf_pool *pool, const kf_step *step);
/** Statistics by launch id are added to |stats| until called with NULL. */
void kf_pool_profile(kf_pool *pool, kf_launch_stats *stats);

/** A loop over [0, n_tiles) on the pool; |kernel| finds |user| in args->ptr[0]. */
void kf_pool_for(kf_pool *pool, kf_kernel_fn kernel, void *user, uint32_t n_tiles);

uint64_t kf_tile_count_eval(const kf_tile_count *t, const int64_t *dim);

/* ---- Engine and session ---------------------------------------------------------------------- */

struct kf_engine {
    const kf_model *model; /* Borrowed */
    kf_allocator allocator;
    kf_logger log;
    kf_artifact artifact;
    const unsigned char *weights;
    unsigned char *random_weights; /* Owned; NULL when the file is used */
    kf_pool *pool;                 /* Owned */
    struct kf_tokenizer *tok;      /* Owned; NULL: the packed file has none */
    pthread_mutex_t step_lock;
    uint32_t context;
    uint32_t page_tokens;
    uint32_t max_pages; /* row length of the page table */
};

/** Checks the constant description once, so that a step needs no checks of it. */
kf_status kf_model_check(const kf_model *m, const kf_logger *log);

/** Fills |out| (model->weights_bytes) from |seed|; the same for any number of threads. */
void kf_random_weights(const kf_model *model, uint64_t seed, kf_pool *pool, unsigned char *out);

/** Bytes of weights that one decode step reads. */
uint64_t kf_model_read_bytes(const kf_model *model);

/** splitmix64 (Steele, Lea, Flood 2014; S. Vigna, prng.di.unimi.it/splitmix64.c): mixes one word.
 */
static inline uint64_t kf_mix64(uint64_t z)
{
    z += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

#endif
