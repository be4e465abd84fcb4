/* SPDX-License-Identifier: Apache-2.0 */
/* matmul_bench - the matmul tile kernels alone, against the probes of this machine.
 *
 *   matmul_bench [--arch NAME] [--threads N] [--rows M] [--rounds R] [--set key=value ...]
 *                [NxK ...]
 *
 * Weights are bf16 and lie one behind the other in 2 GiB, as a model's do, and every launch uses
 * the next one, so that decode reads memory and not a cache. Prints per shape the median over
 * rounds of GB/s (weights) and GFLOP/s, and their ratio to the probe run in the same round. With
 * one thread all times are CPU times.
 */
#include "bench/matmul_case.h"
#include "bench/probe.h"
#include "codegen/cpu/kernel_loader.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROUNDS 64

typedef struct options {
    const char *arch;
    uint32_t threads, rows, rounds;
    int staged; /* 1: A goes through a prologue that multiplies by a column scale */
    const char *sets[16];
    uint32_t n_sets;
    const char *dump, *dump_ir; /* files for the assembly and for the unoptimised IR */
} options;

typedef struct launch {
    kf_kernel_fn fn;
    kf_matmul_config cfg;
    uint32_t tiles;
    uint32_t layers;
    uint64_t weight_bytes;
    unsigned char *weights;
    float *a, *c, *gamma;
    int64_t dims[KF_DIM_COUNT];
    atomic_uint *next; /* per layer */
    atomic_uint *done;
} launch;

typedef struct worker {
    launch *l;
    void *scratch;
    uint32_t begin, end; /* layers */
} worker;

/* ---- the kernel: C = prologue(A) W ----------------------------------------------------------- */

static void set_field(kf_matmul_config *cfg, const char *text)
{
    char key[32];
    unsigned v;
    if (sscanf(text, "%31[a-z_]=%u", key, &v) != 2)
        exit(2);
    if (!strcmp(key, "tile_m"))
        cfg->tile_m = v;
    else if (!strcmp(key, "tile_n"))
        cfg->tile_n = v;
    else if (!strcmp(key, "mr"))
        cfg->mr = v;
    else if (!strcmp(key, "nr"))
        cfg->nr = v;
    else if (!strcmp(key, "kc"))
        cfg->kc = v;
    else if (!strcmp(key, "k_unroll"))
        cfg->k_unroll = v;
    else if (!strcmp(key, "prefetch"))
        cfg->prefetch_bytes = v;
    else if (!strcmp(key, "form"))
        cfg->form = v ? KF_MATMUL_BLOCK : KF_MATMUL_STREAM;
    else
        exit(2);
}

static void fail(const char *what)
{
    fprintf(stderr, "matmul_bench: %s\n", what);
    exit(1);
}

static void write_text(const char *path, kf_str text)
{
    FILE *f = fopen(path, "w");
    if (!f || fwrite(text.ptr, 1, text.len, f) != text.len || fclose(f) != 0)
        fail("cannot write the dump");
}

static void compile(launch *l, const options *o, kf_arena *arena)
{
    kf_str error = {0};
    kf_llvm_options lo = {0};
    if (!kf_cpu_arch_find(o->arch, &lo.arch))
        fail("unknown arch");
    kf_matmul_configure(&l->cfg, lo.arch.lanes, lo.arch.regs);
    for (uint32_t i = 0; i < o->n_sets; i++)
        set_field(&l->cfg, o->sets[i]);
    const char *why = NULL;
    if (!kf_matmul_config_ok(&l->cfg, lo.arch.regs, &why))
        fail(why);
    const double t0 = kf_probe_now();
    kf_llvm *ll = kf_llvm_create(arena, "bench", &lo, &error);
    kb *b = kb_create(arena, ll);
    matmul_case_emit(b, &l->cfg, o->staged);
    if (o->dump_ir)
        write_text(o->dump_ir, kf_llvm_print(ll, arena));
    const double t1 = kf_probe_now();
    kf_llvm_optimize(ll);
    const double t2 = kf_probe_now();
    kf_str object = kf_llvm_emit_object(ll, arena);
    const double t3 = kf_probe_now();
    printf("# IR in %.1f ms, optimised in %.1f ms, object of %u bytes in %.1f ms\n",
           1e3 * (t1 - t0), 1e3 * (t2 - t1), object.len, 1e3 * (t3 - t2));
    if (o->dump)
        write_text(o->dump, kf_llvm_emit_assembly(ll, arena));
    kf_kernel_library *lib = kf_kernel_library_open(arena, object, &error);
    if (!lib)
        fail(error.ptr);
    l->fn = kf_kernel_library_find(lib, "k");
    kb_destroy(b);
    kf_llvm_destroy(ll);
}

/* ---- running --------------------------------------------------------------------------------- */

static void *work(void *arg)
{
    worker *w = arg;
    launch *l = w->l;
    for (uint32_t layer = w->begin; layer < w->end; layer++) {
        void *ptr[] = {l->a, l->weights + layer * l->weight_bytes, l->c, l->gamma};
        const kf_kernel_args args = {ptr, l->dims};
        uint32_t tile;
        while ((tile = atomic_fetch_add(&l->next[layer], 1)) < l->tiles) {
            l->fn(&args, tile, w->scratch);
            atomic_fetch_add(&l->done[layer], 1);
        }
        while (atomic_load_explicit(&l->done[layer], memory_order_acquire) < l->tiles)
            __builtin_ia32_pause();
    }
    return NULL;
}

static double run_layers(launch *l, const options *o, worker *workers, uint32_t layers)
{
    pthread_t threads[256];
    for (uint32_t i = 0; i < layers; i++) {
        atomic_store(&l->next[i], 0);
        atomic_store(&l->done[i], 0);
    }
    double (*now)(void) = o->threads == 1 ? kf_probe_cpu_now : kf_probe_now;
    const double t0 = now();
    for (uint32_t i = 0; i < o->threads; i++) {
        workers[i].begin = 0;
        workers[i].end = layers;
        if (i > 0)
            pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    work(&workers[0]);
    for (uint32_t i = 1; i < o->threads; i++)
        pthread_join(threads[i], NULL);
    return now() - t0;
}

static int by_value(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double median(double *v, uint32_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

static float from_bf16(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Layer 0's result against sums in double; the worst error relative to the row's norm. */
static double worst_error(const launch *l, const uint16_t *w, const options *o)
{
    double worst = 0;
    const uint32_t n = l->cfg.n, k = l->cfg.k;
    for (uint32_t r = 0; r < o->rows; r += o->rows > 8 ? 7 : 1) {
        for (uint32_t c = 0; c < n; c += 13) {
            double sum = 0, norm = 0;
            for (uint32_t i = 0; i < k; i++) {
                const double a = o->staged ? (double)l->a[(size_t)r * k + i] * l->gamma[i]
                                           : l->a[(size_t)r * k + i];
                const double p = a * from_bf16(w[(size_t)c * k + i]);
                sum += p;
                norm += p * p;
            }
            double e = (l->c[(size_t)r * n + c] - sum) / __builtin_sqrt(norm);
            worst = e < 0 ? (-e > worst ? -e : worst) : (e > worst ? e : worst);
            if (e != e)
                return 1e30;
        }
    }
    return worst;
}

static void bench_shape(const options *o, kf_probe *probe, unsigned char *pool, uint32_t n,
                        uint32_t k)
{
    kf_arena *arena = kf_arena_create("bench");
    launch l = {.cfg = {.n = n, .k = k, .weight = KF_WEIGHT_BF16, .max_rows = o->rows},
                .weights = pool};
    l.dims[KF_DIM_TOKENS] = o->rows;
    compile(&l, o, arena);
    l.tiles = matmul_case_tiles(&l.cfg, o->rows);
    l.weight_bytes = matmul_case_bytes(KF_WEIGHT_BF16, n, k);
    l.layers = (uint32_t)(KF_PROBE_READ_BYTES / l.weight_bytes);
    if (o->rows > 8 && l.layers > 8)
        l.layers = 8;
    l.a = aligned_alloc(64, (size_t)o->rows * k * 4 + 64);
    l.c = aligned_alloc(64, (size_t)o->rows * n * 4 + 64);
    l.gamma = aligned_alloc(64, (size_t)k * 4 + 64);
    l.next = calloc(l.layers, sizeof *l.next);
    l.done = calloc(l.layers, sizeof *l.done);
    uint32_t seed = 1;
    for (size_t i = 0; i < (size_t)o->rows * k; i++)
        l.a[i] = matmul_case_random(&seed);
    for (size_t i = 0; i < k; i++)
        l.gamma[i] = 1 + 0.3f * matmul_case_random(&seed);
    uint16_t *w = malloc((size_t)n * k * 2);
    for (size_t i = 0; i < (size_t)n * k; i++) {
        const float f = matmul_case_random(&seed);
        uint32_t bits;
        memcpy(&bits, &f, 4);
        w[i] = (uint16_t)(bits >> 16);
    }
    matmul_case_pack(KF_WEIGHT_BF16, n, k, w, pool);
    for (uint32_t i = 1; i < l.layers; i++)
        memcpy(pool + i * l.weight_bytes, pool, l.weight_bytes);
    worker workers[256];
    for (uint32_t i = 0; i < o->threads; i++)
        workers[i] = (worker){
            .l = &l,
            .scratch = aligned_alloc(64, (kf_matmul_scratch_bytes(&l.cfg) + 4095) / 4096 * 4096)};

    run_layers(&l, o, workers, 1);
    const double err = worst_error(&l, w, o);
    double gbs[MAX_ROUNDS], gfl[MAX_ROUNDS], rb[MAX_ROUNDS], rf[MAX_ROUNDS], pr[MAX_ROUNDS],
        pf[MAX_ROUNDS];
    for (uint32_t r = 0; r < o->rounds; r++) {
        pr[r] = kf_probe_read_best(probe, 2) * 1e-9;
        pf[r] = kf_probe_fma(probe, l.cfg.lanes, 0.05) * 1e-9;
        const double t = run_layers(&l, o, workers, l.layers);
        gbs[r] = 1e-9 * (double)l.weight_bytes * l.layers / t;
        gfl[r] = 2e-9 * (double)n * k * o->rows * l.layers / t;
        rb[r] = gbs[r] / pr[r];
        rf[r] = gfl[r] / pf[r];
    }
    printf("%6ux%-5u rows %3u  %6.2f GB/s %5.1f%% of read %5.1f  %7.1f GFLOP/s %5.1f%% of fma "
           "%5.1f   err %.1e  "
           "[tm %u tn %u mr %u nr %u kc %u u %u tiles %u]\n",
           n, k, o->rows, median(gbs, o->rounds), 100 * median(rb, o->rounds),
           median(pr, o->rounds), median(gfl, o->rounds), 100 * median(rf, o->rounds),
           median(pf, o->rounds), err, l.cfg.tile_m, l.cfg.tile_n, l.cfg.mr, l.cfg.nr, l.cfg.kc,
           l.cfg.k_unroll, l.tiles);
    fflush(stdout);
    for (uint32_t i = 0; i < o->threads; i++)
        free(workers[i].scratch);
    free(l.a), free(l.c), free(l.gamma), free(l.next), free(l.done), free(w);
    kf_arena_destroy(arena);
}

int main(int argc, char **argv)
{
    options o = {.arch = "x86-64-v3", .threads = 2, .rows = 1, .rounds = 5};
    const char *shapes[32] = {"2048x2048", "2560x2048", "11264x2048", "2048x5632", "32000x2048"};
    uint32_t n_shapes = 5, given = 0;
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--arch"))
            o.arch = next, i++;
        else if (!strcmp(argv[i], "--threads"))
            o.threads = (uint32_t)atoi(next), i++;
        else if (!strcmp(argv[i], "--rows"))
            o.rows = (uint32_t)atoi(next), i++;
        else if (!strcmp(argv[i], "--rounds"))
            o.rounds = (uint32_t)atoi(next), i++;
        else if (!strcmp(argv[i], "--staged"))
            o.staged = 1;
        else if (!strcmp(argv[i], "--dump"))
            o.dump = next, i++;
        else if (!strcmp(argv[i], "--dump-ir"))
            o.dump_ir = next, i++;
        else if (!strcmp(argv[i], "--set") && o.n_sets < 16)
            o.sets[o.n_sets++] = next, i++;
        else if (given < 32)
            shapes[given++] = argv[i];
    }
    n_shapes = given ? given : n_shapes;
    if (o.rounds > MAX_ROUNDS || o.threads == 0 || o.threads > 256 || o.rows == 0)
        fail("an option is out of range");
    kf_probe *probe = kf_probe_create(KF_PROBE_READ_BYTES, o.threads);
    unsigned char *pool = aligned_alloc(1 << 21, KF_PROBE_READ_BYTES);
    if (!probe || !pool)
        fail("not enough memory");
    if (o.threads == 1)
        kf_probe_use_cpu_time(probe);
    for (uint32_t i = 0; i < n_shapes; i++) {
        unsigned n, k;
        if (sscanf(shapes[i], "%ux%u", &n, &k) != 2)
            fail("a shape is written NxK");
        bench_shape(&o, probe, pool, n, k);
    }
    kf_probe_destroy(probe);
    free(pool);
    return 0;
}
