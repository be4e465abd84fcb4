/* SPDX-License-Identifier: Apache-2.0 */
/* pool - the workers that walk a phase function and claim tiles.
 *
 * Every kf_tiles call of every worker has an instance number; workers walk the same list, so equal
 * numbers mean the same launch. One word, |claim| = instance << TILE_BITS | next tile, says which
 * launch is open and which of its tiles is free. A tile is claimed by compare-and-swap of that
 * word, so a worker that slept through a launch can never take a tile of a later one: it sees a
 * larger instance and walks on. The worker that finishes the last tile opens the next launch.
 * Nobody waits for a *thread*: a worker that the system has stopped delays the others by the one
 * tile it holds.
 *
 * For the same reason a worker may still be walking a call that has ended. It touches nothing of
 * the call before it holds a tile, and reads dims from its own copy of the step.
 */
#define _GNU_SOURCE
#include "runtime/internal.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TILE_BITS    24
#define TILE_MASK    ((UINT64_C(1) << TILE_BITS) - 1)
#define SPIN_SECONDS 40e-6
#define STACK_BYTES  ((size_t)1 << 20)

/* A place to sleep: |word| changes at every event, |sleepers| says whether a wake call is needed.
 */
typedef struct gate {
    _Atomic uint32_t word;
    _Atomic uint32_t sleepers;
} gate;

struct kf_pool {
    _Alignas(KF_CACHE_LINE) _Atomic uint64_t claim;
    _Alignas(KF_CACHE_LINE) _Atomic uint32_t done; /* finished tiles of the open launch */
    _Alignas(KF_CACHE_LINE) gate opened;           /* a launch was opened */
    _Alignas(KF_CACHE_LINE) gate posted;           /* a call was posted, or the end */
    _Alignas(KF_CACHE_LINE) pthread_mutex_t lock;  /* guards step, generation, stop */
    kf_step step;
    uint64_t generation;
    bool stop;
    uint32_t n_threads, n_started;
    uint32_t spins; /* pauses that take SPIN_SECONDS */
    uint64_t scratch_bytes;
    size_t size_bytes;
    kf_worker *workers; /* trails this object; [0] is the caller of kf_pool_run */
};

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void gate_signal(gate *g)
{
    atomic_fetch_add(&g->word, 1);
    if (atomic_load(&g->sleepers) > 0)
        futex(&g->word, FUTEX_WAKE, INT32_MAX);
}

static inline void pause_once(void)
{
    __asm__ volatile("pause" ::: "memory");
}

static uint32_t measure_spins(void)
{
    enum { ROUNDS = 5, PAUSES = 200 };
    double best = 1; /* the shortest round: the others may have lost the processor */
    for (int r = 0; r < ROUNDS; r++) {
        double t0 = kf_now_s();
        for (int i = 0; i < PAUSES; i++)
            pause_once();
        double each = (kf_now_s() - t0) / PAUSES;
        best = each < best ? each : best;
    }
    double n = SPIN_SECONDS / (best > 1e-9 ? best : 1e-9);
    return n < 100 ? 100 : n > 20000 ? 20000 : (uint32_t)n;
}

/* ---- Launches -------------------------------------------------------------------------------- */

static bool is_open(kf_pool *p, uint64_t instance)
{
    return atomic_load(&p->claim) >> TILE_BITS == instance;
}

static void open_next(kf_pool *p, uint64_t instance)
{
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->claim, (instance + 1) << TILE_BITS);
    gate_signal(&p->opened);
}

static void wait_closed(kf_pool *p, uint64_t instance)
{
    for (uint32_t i = 0; i < p->spins; i++) {
        if (!is_open(p, instance))
            return;
        pause_once();
    }
    /* Sequentially consistent on purpose: either the opener sees this sleeper, or this worker sees
     * the new claim; the word read before the check closes the gap in between. */
    atomic_fetch_add(&p->opened.sleepers, 1);
    for (;;) {
        uint32_t word = atomic_load(&p->opened.word);
        if (!is_open(p, instance))
            break;
        futex(&p->opened.word, FUTEX_WAIT, word);
    }
    atomic_fetch_sub(&p->opened.sleepers, 1);
}

uint64_t kf_tile_count_eval(const kf_tile_count *t, const int64_t *dim)
{
    uint64_t n = t->base;
    for (uint32_t i = 0; i < t->n_terms; i++)
        n *= ((uint64_t)dim[t->term[i].dim] + t->term[i].div - 1) / t->term[i].div;
    return n;
}

static void *resolve_operand(const kf_step *s, const kf_operand *o, uint32_t layer)
{
    switch (o->space) {
    case KF_SPACE_BUFFER:
        return s->pool + o->offset + layer * o->layer_stride;
    case KF_SPACE_WEIGHT: {
        const kf_weight *wt = &s->model->weights[o->index];
        uint32_t at = layer < wt->layers ? layer : wt->layers - 1;
        /* Kernels take one pointer type; that they only read weights is the mapping's to enforce.
         */
        return (void *)(uintptr_t)(s->weights + wt->offset[at] + o->offset);
    }
    case KF_SPACE_STATE:
        return s->kv_base[o->index] + layer * s->model->kv[o->index].page_bytes;
    case KF_SPACE_INPUT:
        return s->input[o->index];
    default:
        return s->counters + o->offset;
    }
}

static void run_launch(kf_worker *w, const kf_launch *l, uint32_t layer, uint64_t instance)
{
    kf_pool *p = w->pool;
    const uint64_t n_tiles = kf_tile_count_eval(&l->tiles, w->step.dim);
    const kf_kernel_args args = {w->ptr, w->step.dim};
    bool is_resolved = false;
    uint64_t claim = atomic_load(&p->claim);
    while (claim >> TILE_BITS == instance && (claim & TILE_MASK) < n_tiles) {
        if (!atomic_compare_exchange_weak(&p->claim, &claim, claim + 1))
            continue;
        if (!is_resolved) {
            for (uint32_t i = 0; i < l->n_operands; i++)
                w->ptr[i] = resolve_operand(&w->step, &l->operands[i], layer);
            is_resolved = true;
        }
        l->kernel(&args, (uint32_t)(claim & TILE_MASK), w->scratch);
        if (atomic_fetch_add_explicit(&p->done, 1, memory_order_acq_rel) + 1 == n_tiles) {
            open_next(p, instance);
            return;
        }
        claim = atomic_load(&p->claim);
    }
    if (n_tiles == 0) {
        uint64_t empty = instance << TILE_BITS;
        if (atomic_compare_exchange_strong(&p->claim, &empty, (instance + 1) << TILE_BITS))
            gate_signal(&p->opened);
        return;
    }
    wait_closed(p, instance);
}

static double eval_work(const kf_work *work, const int64_t *dim)
{
    double sum = (double)work->fixed;
    for (int d = 0; d < KF_DIM_COUNT; d++)
        sum += (double)work->per_dim[d] * (double)dim[d];
    return sum;
}

void kf_tiles(kf_worker *w, const kf_launch *l, uint32_t layer)
{
    uint64_t instance = w->instance++;
    if (!w->stats) {
        if (is_open(w->pool, instance))
            run_launch(w, l, layer, instance);
        return;
    }
    double t0 = kf_now_s();
    if (is_open(w->pool, instance))
        run_launch(w, l, layer, instance);
    kf_launch_stats *st = &w->stats[l->id];
    st->seconds += kf_now_s() - t0;
    st->calls++;
    st->flops += eval_work(&l->flops, w->step.dim);
    st->bytes += eval_work(&l->bytes, w->step.dim);
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static bool spin_for_post(kf_pool *p, uint32_t word)
{
    for (uint32_t i = 0; i < p->spins; i++) {
        if (atomic_load(&p->posted.word) != word)
            return true;
        pause_once();
    }
    return false;
}

/* Sleeps until a call newer than |seen| is posted; false: the pool ends. */
static bool next_call(kf_worker *w, uint64_t *seen)
{
    kf_pool *p = w->pool;
    for (;;) {
        uint32_t word = atomic_load(&p->posted.word);
        pthread_mutex_lock(&p->lock);
        bool is_new = p->generation != *seen, stop = p->stop;
        if (is_new && !stop) {
            *seen = p->generation;
            w->step = p->step;
            w->instance = w->step.first_instance;
        }
        pthread_mutex_unlock(&p->lock);
        if (is_new || stop)
            return !stop;
        if (spin_for_post(p, word))
            continue;
        atomic_fetch_add(&p->posted.sleepers, 1);
        futex(&p->posted.word, FUTEX_WAIT, word);
        atomic_fetch_sub(&p->posted.sleepers, 1);
    }
}

static void *worker_main(void *arg)
{
    kf_worker *w = arg;
    uint64_t seen = 0;
    while (next_call(w, &seen))
        w->step.run(w, &w->step);
    return NULL;
}

void kf_pool_run(kf_pool *p, const kf_step *step)
{
    kf_worker *w = &p->workers[0];
    w->step = *step;
    w->step.first_instance = w->instance;
    if (p->n_started > 0) {
        pthread_mutex_lock(&p->lock);
        p->step = w->step;
        p->generation++;
        pthread_mutex_unlock(&p->lock);
        gate_signal(&p->posted);
    }
    step->run(w, &w->step);
}

typedef struct for_job {
    kf_kernel_fn kernel;
    void *user;
} for_job;

static void for_tile(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    const for_job *job = args->ptr[0];
    const kf_kernel_args inner = {&job->user, args->dim};
    job->kernel(&inner, tile, scratch);
}

static const kf_operand for_operand = {KF_SPACE_INPUT, 0, 0, 0};
static const kf_launch for_launch = {
    .name = "for",
    .kernel = for_tile,
    .operands = &for_operand,
    .n_operands = 1,
    .tiles = {.base = 1, .n_terms = 1, .term = {{KF_DIM_TOKENS, 1}}},
};

static void run_for(kf_worker *w, const kf_step *s)
{
    (void)s;
    kf_tiles(w, &for_launch, 0);
}

void kf_pool_for(kf_pool *p, kf_kernel_fn kernel, void *user, uint32_t n_tiles)
{
    for_job job = {kernel, user};
    kf_step step = {.run = run_for, .input = {&job}};
    step.dim[KF_DIM_TOKENS] = n_tiles;
    kf_launch_stats *stats = p->workers[0].stats;
    p->workers[0].stats = NULL;
    kf_pool_run(p, &step);
    p->workers[0].stats = stats;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static bool start_thread(kf_worker *w)
{
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) != 0)
        return false;
    /* Signals are the caller's business, but for those that the thread's own instructions raise:
     * blocked, these would kill the process past every handler. */
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t blocked, old;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    bool ok = pthread_create(&w->thread, &attr, worker_main, w) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return ok;
}

kf_status kf_pool_create(const kf_allocator *a, uint32_t n_threads, uint64_t scratch_bytes,
                         const kf_logger *log, kf_pool **out_pool)
{
    size_t size = sizeof(kf_pool) + n_threads * sizeof(kf_worker);
    kf_pool *p = kf_alloc(a, size, KF_CACHE_LINE);
    if (!p)
        return kf_fail(log, KF_ERR_MEMORY, "no memory for %u workers", n_threads);
    p->size_bytes = size;
    p->workers = (kf_worker *)(p + 1);
    p->n_threads = n_threads;
    p->spins = measure_spins();
    p->scratch_bytes = (scratch_bytes + 4095) / 4096 * 4096;
    pthread_mutex_init(&p->lock, NULL);
    bool ok = true;
    for (uint32_t i = 0; i < n_threads && ok; i++) {
        p->workers[i].pool = p;
        p->workers[i].scratch = kf_alloc(a, p->scratch_bytes, 4096);
        ok = p->workers[i].scratch != NULL;
    }
    if (!ok) {
        kf_pool_destroy(p, a);
        return kf_fail(log, KF_ERR_MEMORY, "no memory for %u x %llu bytes of scratch", n_threads,
                       (unsigned long long)scratch_bytes);
    }
    while (p->n_started + 1 < n_threads && start_thread(&p->workers[p->n_started + 1]))
        p->n_started++;
    if (p->n_started + 1 < n_threads) {
        kf_log(log, KF_LOG_WARNING, "the system gives %u of %u threads", p->n_started + 1,
               n_threads);
        p->n_threads = p->n_started + 1;
    }
    *out_pool = p;
    return KF_OK;
}

void kf_pool_destroy(kf_pool *p, const kf_allocator *a)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_mutex_unlock(&p->lock);
    gate_signal(&p->posted);
    for (uint32_t i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    size_t n_workers = (p->size_bytes - sizeof(kf_pool)) / sizeof(kf_worker);
    for (size_t i = 0; i < n_workers; i++)
        kf_free(a, p->workers[i].scratch, p->scratch_bytes);
    pthread_mutex_destroy(&p->lock);
    kf_free(a, p, p->size_bytes);
}

void kf_pool_profile(kf_pool *p, kf_launch_stats *stats)
{
    p->workers[0].stats = stats;
}

uint32_t kf_pool_threads(const kf_pool *p)
{
    return p->n_threads;
}
