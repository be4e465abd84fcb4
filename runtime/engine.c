/* SPDX-License-Identifier: Apache-2.0 */
/* engine - weights and workers of one opened model. */
#define _GNU_SOURCE
#include "runtime/internal.h"
#include "runtime/tokenizer.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_THREADS 1024u

/* <this executable>.kfw */
static kf_status default_weights_path(char *out, size_t size, const kf_logger *log)
{
    static const char suffix[] = ".kfw";
    ssize_t n = readlink("/proc/self/exe", out, size - sizeof suffix);
    if (n <= 0 || (size_t)n >= size - sizeof suffix)
        return kf_fail(log, KF_ERR_IO, "cannot find the path of this executable");
    memcpy(out + n, suffix, sizeof suffix);
    return KF_OK;
}

static kf_status open_weights(kf_engine *e, const kf_options *o)
{
    const kf_model *m = e->model;
    if (o->random_seed) {
        e->random_weights = kf_alloc(&e->allocator, m->weights_bytes, 4096);
        if (!e->random_weights)
            return kf_fail(&e->log, KF_ERR_MEMORY, "no memory for %llu bytes of weights",
                           (unsigned long long)m->weights_bytes);
        kf_random_weights(m, *o->random_seed, e->pool, e->random_weights);
        e->weights = e->random_weights;
        return KF_OK;
    }
    char path[PATH_MAX];
    const char *use = o->weights_path;
    if (!use && !m->embedded_start && m->header_digest != 0) {
        KF_TRY(default_weights_path(path, sizeof path, &e->log));
        use = path;
    }
    KF_TRY(kf_artifact_open(&e->artifact, m, use, &e->log));
    e->weights = e->artifact.weights.data;
    return KF_OK;
}

static kf_status open_tokenizer(kf_engine *e)
{
    const kf_section_view *s = &e->artifact.tokenizer;
    if (!s->data || s->size_bytes == 0)
        return KF_OK;
    const char *where = NULL;
    kf_status status = kf_tokenizer_open(s->data, s->size_bytes, &e->allocator, &e->tok, &where);
    if (status != KF_OK)
        return kf_fail(&e->log, status, "the tokenizer section: %s",
                       where ? where : kf_status_text(status));
    return KF_OK;
}

static kf_status set_context(kf_engine *e, const kf_options *o)
{
    uint32_t bound = e->model->max_positions;
    if (o->context > bound)
        return kf_fail(&e->log, KF_ERR_USAGE,
                       "a context of %u positions; the model was compiled for %u", o->context,
                       bound);
    e->context = o->context ? o->context : bound < KF_DEFAULT_CONTEXT ? bound : KF_DEFAULT_CONTEXT;
    e->page_tokens = e->model->n_kv ? e->model->kv[0].page_tokens : KF_KV_PAGE_TOKENS;
    e->max_pages = (bound + e->page_tokens - 1) / e->page_tokens;
    return KF_OK;
}

static kf_status open_parts(kf_engine *e, const kf_options *o)
{
    KF_TRY(kf_model_check(e->model, &e->log));
    KF_TRY(kf_cpu_require(e->model->cpu_features, kf_cpu_detect(), &e->log));
    KF_TRY(set_context(e, o));
    if (o->threads > MAX_THREADS)
        return kf_fail(&e->log, KF_ERR_USAGE, "%u threads; at most %u", o->threads, MAX_THREADS);
    uint32_t threads = o->threads ? o->threads : kf_cpu_count();
    KF_TRY(kf_pool_create(&e->allocator, threads, e->model->scratch_bytes, &e->log, &e->pool));
    KF_TRY(open_weights(e, o));
    return open_tokenizer(e);
}

kf_status kf_open(const kf_model *model, const kf_options *options, kf_engine **out_engine)
{
    static const kf_options defaults;
    const kf_options *o = options ? options : &defaults;
    kf_logger log = {o->log, o->log_user};
    const kf_allocator *a = o->allocator ? o->allocator : &kf_default_allocator;
    *out_engine = NULL;
    kf_engine *e = kf_alloc(a, sizeof *e, KF_CACHE_LINE);
    if (!e)
        return kf_fail(&log, KF_ERR_MEMORY, "no memory for the engine");
    e->model = model;
    e->allocator = *a;
    e->log = log;
    pthread_mutex_init(&e->step_lock, NULL);
    kf_status status = open_parts(e, o);
    if (status != KF_OK) {
        kf_close(e);
        return status;
    }
    *out_engine = e;
    return KF_OK;
}

void kf_close(kf_engine *e)
{
    if (!e)
        return;
    kf_allocator a = e->allocator;
    kf_pool_destroy(e->pool, &a);
    kf_tokenizer_close(e->tok);
    kf_artifact_close(&e->artifact);
    kf_free(&a, e->random_weights, e->model->weights_bytes);
    pthread_mutex_destroy(&e->step_lock);
    kf_free(&a, e, sizeof *e);
}

void kf_engine_limits(const kf_engine *e, kf_limits *out)
{
    const kf_model *m = e->model;
    uint64_t pages =
        (uint64_t)m->max_sequences * ((e->context + e->page_tokens - 1) / e->page_tokens);
    *out = (kf_limits){.sequences = m->max_sequences,
                       .tokens = m->max_tokens,
                       .rows = m->max_rows,
                       .context = e->context,
                       .vocab_size = m->vocab_size,
                       .threads = kf_pool_threads(e->pool),
                       .row_width = m->row_width,
                       .encoder = m->kind == KF_KIND_ENCODER,
                       .pooled = m->is_pooled,
                       .memory = m->kind == KF_KIND_ENCODER_DECODER,
                       .start_id = m->start_id,
                       .weights_bytes = m->weights_bytes,
                       .pool_bytes = m->pool_bytes + m->counter_bytes};
    for (uint32_t i = 0; i < m->n_kv; i++)
        out->kv_bytes += pages * m->kv[i].layers * m->kv[i].page_bytes;
}

/* ---- Text ------------------------------------------------------------------------------------ */

static kf_status no_tokenizer(const kf_engine *e)
{
    return kf_fail(&e->log, KF_ERR_UNSUPPORTED, "'%s' was opened without a tokenizer",
                   e->model->name);
}

kf_status kf_encode(kf_engine *e, const char *text, size_t len, int32_t *ids, size_t capacity,
                    size_t *out_n)
{
    kf_tok_scratch *scratch;
    const uint32_t *found;
    *out_n = 0;
    if (!e->tok)
        return no_tokenizer(e);
    KF_TRY(kf_tok_scratch_create(e->tok, &scratch));
    kf_status status = kf_tokenizer_encode(e->tok, scratch, text, len, true, &found, out_n);
    if (status == KF_OK)
        memcpy(ids, found, (*out_n < capacity ? *out_n : capacity) * sizeof *ids);
    kf_tok_scratch_destroy(scratch);
    return status;
}

kf_status kf_decode(kf_engine *e, const int32_t *ids, size_t n, char *text, size_t capacity,
                    size_t *out_len)
{
    kf_tok_stream *stream;
    const char *found;
    *out_len = 0;
    if (!e->tok)
        return no_tokenizer(e);
    KF_TRY(kf_tok_stream_create(e->tok, true, &stream));
    kf_status status = kf_tok_stream_decode(stream, (const uint32_t *)ids, n, &found, out_len);
    if (status == KF_OK && *out_len > 0)
        memcpy(text, found, *out_len < capacity ? *out_len : capacity);
    kf_tok_stream_destroy(stream);
    return status;
}
