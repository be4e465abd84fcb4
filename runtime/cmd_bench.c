/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_bench - tokens per second beside the read bandwidth of the machine, and the profile table. */
#include "runtime/cli.h"

#include <stdlib.h>
#include <string.h>

#define PROBE_BYTES ((uint64_t)2 << 30)
#define MIN_PROBES  5u

typedef struct bench {
    kf_cli *c;
    uint32_t n_prompt, n_decode, batch, rounds, chunk;
    int32_t *ids; /* [n_prompt + n_decode] random token ids, from a fixed seed */
    size_t ids_bytes;
    kf_append *appends;
    size_t appends_bytes;
    double *prefill, *decode; /* [rounds] tokens per second */
    size_t times_bytes;
    void *probe;
    double bandwidth;
} bench;

static kf_status set_sizes(bench *b)
{
    kf_cli *c = b->c;
    const kf_cli_options *o = &c->opt;
    uint32_t context = c->engine->context;
    bool encoder = c->model->kind == KF_KIND_ENCODER;
    bool whole = c->model->kind != KF_KIND_DECODER; /* prompts go through an encoder */
    if (whole && c->model->max_tokens < context)
        context = c->model->max_tokens;
    uint64_t n_prompt = o->n_prompt, n_decode = encoder ? 0 : o->n_tokens;
    if (!o->has_prompt_len && n_prompt + n_decode > context)
        n_prompt = context > n_decode ? context - n_decode : 1;
    if (n_prompt + n_decode > context)
        return kf_fail(&c->log, KF_ERR_USAGE, "%llu + %llu positions; the context holds %u",
                       (unsigned long long)n_prompt, (unsigned long long)n_decode, context);
    if (o->batch > c->model->max_sequences || o->batch > c->model->max_rows)
        return kf_fail(&c->log, KF_ERR_USAGE, "a batch of %llu; the model was compiled for %u",
                       (unsigned long long)o->batch, c->model->max_sequences);
    b->n_prompt = (uint32_t)n_prompt;
    b->n_decode = (uint32_t)n_decode;
    b->batch = (uint32_t)o->batch;
    b->rounds = (uint32_t)o->repeats;
    b->chunk = o->prefill_chunk < UINT32_MAX ? (uint32_t)o->prefill_chunk : 0;
    return KF_OK;
}

/* What the bench needs of the context unless --ctx says otherwise. */
static void widen_context(kf_cli *c)
{
    uint64_t bound = c->model->max_positions;
    uint64_t need = c->opt.n_prompt + c->opt.n_tokens;
    if (!c->opt.has_context && need > KF_DEFAULT_CONTEXT)
        c->opt.context = need < bound ? need : bound;
}

static kf_status alloc_bench(bench *b)
{
    const kf_allocator *a = &kf_default_allocator;
    b->ids_bytes = ((size_t)b->n_prompt + b->n_decode) * sizeof *b->ids;
    b->appends_bytes = b->batch * sizeof *b->appends;
    b->times_bytes = 2 * b->rounds * sizeof *b->prefill;
    b->ids = kf_alloc(a, b->ids_bytes, 64);
    b->appends = kf_alloc(a, b->appends_bytes, 64);
    b->prefill = kf_alloc(a, b->times_bytes, 64);
    b->probe = kf_alloc(a, PROBE_BYTES, 4096);
    if (!b->ids || !b->appends || !b->prefill || !b->probe)
        return kf_fail(&b->c->log, KF_ERR_MEMORY,
                       "no memory for the bench (the probe reads 2 GiB)");
    b->decode = b->prefill + b->rounds;
    kf_rng rng;
    kf_rng_seed(&rng, 1, 0);
    for (size_t i = 0; i < (size_t)b->n_prompt + b->n_decode; i++)
        b->ids[i] = (int32_t)(kf_rng_next(&rng) % b->c->model->vocab_size);
    return KF_OK;
}

static void free_bench(bench *b)
{
    const kf_allocator *a = &kf_default_allocator;
    kf_free(a, b->ids, b->ids_bytes);
    kf_free(a, b->appends, b->appends_bytes);
    kf_free(a, b->prefill, b->times_bytes);
    kf_free(a, b->probe, PROBE_BYTES);
}

static kf_status run_round(bench *b, double *out_prefill, double *out_decode)
{
    kf_session *s = b->c->session;
    double t0 = kf_now_s();
    for (uint32_t i = 0; i < b->batch; i++) {
        kf_append text = {i, b->n_prompt, b->ids, 0, NULL};
        KF_TRY(kf_session_truncate(s, i, 0));
        if (b->c->model->kind == KF_KIND_ENCODER_DECODER)
            KF_TRY(kf_session_encode(s, &text, 1));
        else
            KF_TRY(kf_session_prefill(s, i, b->ids, b->n_prompt, b->chunk));
    }
    double t1 = kf_now_s();
    for (uint32_t k = 0; k < b->n_decode && !kf_cli_is_interrupted(); k++) {
        for (uint32_t i = 0; i < b->batch; i++)
            b->appends[i] = (kf_append){i, 1, b->ids + b->n_prompt + k, 1, NULL};
        KF_TRY(kf_session_step(s, b->appends, b->batch));
    }
    double t2 = kf_now_s();
    *out_prefill = (double)b->batch * b->n_prompt / (t1 - t0);
    *out_decode = b->n_decode ? (double)b->batch * b->n_decode / (t2 - t1) : 0;
    return KF_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, uint32_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static kf_status run_rounds(bench *b)
{
    kf_pool *pool = b->c->engine->pool;
    uint32_t probes = (MIN_PROBES + b->rounds - 1) / b->rounds;
    double warm[2];
    kf_cli_read_probe_fill(pool, b->probe, PROBE_BYTES);
    KF_TRY(run_round(b, &warm[0], &warm[1]));
    if (b->c->stats)
        memset(b->c->stats, 0, b->c->model->n_launches * sizeof *b->c->stats);
    for (uint32_t i = 0; i < b->rounds && !kf_cli_is_interrupted(); i++) {
        double speed = kf_cli_read_probe(pool, b->probe, PROBE_BYTES, probes);
        b->bandwidth = speed > b->bandwidth ? speed : b->bandwidth;
        KF_TRY(run_round(b, &b->prefill[i], &b->decode[i]));
        if (b->c->opt.verbose)
            kf_log(&b->c->log, KF_LOG_INFO,
                   "round %u: prefill %.1f tokens/s, decode %.2f tokens/s, read %.2f GB/s", i + 1,
                   b->prefill[i], b->decode[i], speed / 1e9);
    }
    return KF_OK;
}

static void print_encoder(bench *b)
{
    double encode = median(b->prefill, b->rounds);
    if (b->c->opt.json)
        printf("{\"schema\": \"kerf.bench.1\", \"encode_tokens_per_s\": %.6g, "
               "\"read_bandwidth_bytes_per_s\": %.6g}\n",
               encode, b->bandwidth);
    else
        printf("encode %u x %u tokens   %12.2f tokens/s\nread bandwidth         %12.2f GB/s\n",
               b->batch, b->n_prompt, encode, b->bandwidth / 1e9);
}

static void print_bench(bench *b)
{
    double prefill = median(b->prefill, b->rounds), decode = median(b->decode, b->rounds);
    double per_token = (double)kf_model_read_bytes(b->c->model) / b->batch;
    double fraction = per_token * decode / b->bandwidth;
    if (b->c->opt.json)
        printf("{\"schema\": \"kerf.bench.1\", \"prefill_tokens_per_s\": %.6g, "
               "\"decode_tokens_per_s\": %.6g, "
               "\"weight_bytes_per_token\": %.12g, \"read_bandwidth_bytes_per_s\": %.6g, "
               "\"decode_bandwidth_fraction\": %.6g}\n",
               prefill, decode, per_token, b->bandwidth, fraction);
    else
        printf("prefill %u tokens      %12.2f tokens/s\ndecode %u x %u tokens   %12.2f tokens/s\n"
               "weights per token      %12.2f MB\nread bandwidth         %12.2f GB/s\n"
               "fraction of it         %12.1f %%\n",
               b->n_prompt, prefill, b->batch, b->n_decode, decode, per_token / 1e6,
               b->bandwidth / 1e9, 100 * fraction);
}

kf_status kf_cli_bench(kf_cli *c)
{
    widen_context(c);
    KF_TRY(kf_cli_open(c));
    bench b = {.c = c};
    KF_TRY(set_sizes(&b));
    kf_status status = alloc_bench(&b);
    if (status == KF_OK)
        status = run_rounds(&b);
    bool whole = status == KF_OK && !kf_cli_is_interrupted();
    if (whole && c->model->kind == KF_KIND_ENCODER)
        print_encoder(&b);
    else if (whole)
        print_bench(&b);
    free_bench(&b);
    return status;
}

/* ---- Profile --------------------------------------------------------------------------------- */

void kf_cli_print_profile(const kf_cli *c)
{
    double total = 0;
    for (uint32_t i = 0; i < c->model->n_launches; i++)
        total += c->stats[i].seconds;
    fprintf(stderr, "%-28s %8s %10s %10s %8s %9s %6s  %s\n", "launch", "calls", "us/call",
            "KB/call", "GB/s", "GFLOP/s", "share", "place");
    for (uint32_t i = 0; i < c->model->n_launches; i++) {
        const kf_launch_stats *s = &c->stats[i];
        const kf_launch *l = c->model->launches[i];
        if (s->calls == 0)
            continue;
        double seconds = s->seconds > 0 ? s->seconds : 1e-9, calls = (double)s->calls;
        fprintf(stderr, "%-28s %8llu %10.2f %10.1f %8.2f %9.2f %5.1f%%  %s %s\n", l->name,
                (unsigned long long)s->calls, 1e6 * seconds / calls, s->bytes / calls / 1e3,
                s->bytes / seconds / 1e9, s->flops / seconds / 1e9, 100 * seconds / total,
                l->place ? l->place : "", l->what ? l->what : "");
    }
}
