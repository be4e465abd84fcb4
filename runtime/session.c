/* SPDX-License-Identifier: Apache-2.0 */
/* session - sequences, their paged cache, and one step over some of them.
 *
 * Beside an encoder a sequence has two caches with pages of their own: its own positions, and the
 * memory, those of the text it attends to.
 *
 * A sequence owns pages in order of its positions; free pages are a stack. The page table of a call
 * holds the rows of the sequences that take part. Nothing is allocated after the session is open.
 */
#include "runtime/internal.h"

#include <string.h>

#define POOL_PAD_BYTES 256u /* kernels may read a vector beyond the last buffer */

typedef struct seq_state {
    uint32_t length;  /* positions held */
    uint32_t n_pages; /* first entries of its row of |seq_pages| */
} seq_state;

/** Pages of the caches that hold the same positions. */
typedef struct page_table {
    seq_state *seqs;
    int32_t *seq_pages;  /* [max_sequences, seq_max_pages] */
    int32_t *free_pages; /* stack */
    uint32_t n_free;
} page_table;

enum { OWN, MEMORY, N_TABLES };

struct kf_session {
    kf_engine *engine;
    size_t size_bytes;
    size_t pool_bytes, counter_bytes;
    unsigned char *pool, *counters;
    unsigned char **kv_base;
    size_t *kv_bytes;
    page_table table[N_TABLES];
    bool *is_taken; /* sequences that the call being checked already names */
    uint32_t seq_max_pages;
    int32_t *input[KF_INPUT_COUNT];
    uint32_t n_rows; /* logits of the last step, from |logits| */
    const float *logits;
    const int32_t *next; /* NULL where the phase chooses none */
};

static bool has_memory(const kf_model *m)
{
    return m->kind == KF_KIND_ENCODER_DECODER;
}

/* ---- Open and close -------------------------------------------------------------------------- */

/* Hands out aligned parts of one block; with base NULL it only adds up. */
typedef struct carver {
    unsigned char *base;
    size_t at;
} carver;

static void *carve(carver *c, size_t count, size_t elem)
{
    size_t at = c->at;
    c->at = (at + count * elem + KF_CACHE_LINE - 1) / KF_CACHE_LINE * KF_CACHE_LINE;
    return c->base ? c->base + at : NULL;
}

static void carve_all(kf_session *s, carver *c, const kf_engine *e)
{
    const kf_model *m = e->model;
    size_t seqs = m->max_sequences, tokens = m->max_tokens, rows = m->max_rows;
    uint32_t seq_max_pages = (e->context + e->page_tokens - 1) / e->page_tokens;
    size_t count[KF_INPUT_COUNT] = {
        [KF_INPUT_IDS] = tokens,
        [KF_INPUT_POS] = tokens,
        [KF_INPUT_SEQ] = tokens,
        [KF_INPUT_SEQ_START] = seqs + 1,
        [KF_INPUT_PAST] = seqs,
        [KF_INPUT_LOGIT_ROWS] = rows,
        [KF_INPUT_PAGES] = seqs * e->max_pages,
        [KF_INPUT_TYPES] = tokens,
        [KF_INPUT_MEMORY_LEN] = seqs,
        [KF_INPUT_MEMORY_PAGES] = has_memory(m) ? seqs * e->max_pages : 0,
    };
    kf_session dry;
    kf_session *t = s ? s : &dry;
    carve(c, 1, sizeof *s);
    t->seq_max_pages = seq_max_pages;
    t->kv_base = carve(c, m->n_kv, sizeof *t->kv_base);
    t->kv_bytes = carve(c, m->n_kv, sizeof *t->kv_bytes);
    for (int i = 0; i < (has_memory(m) ? N_TABLES : MEMORY); i++) {
        page_table *p = &t->table[i];
        p->seqs = carve(c, seqs, sizeof *p->seqs);
        p->seq_pages = carve(c, seqs * seq_max_pages, sizeof *p->seq_pages);
        p->free_pages = carve(c, seqs * seq_max_pages, sizeof *p->free_pages);
    }
    t->is_taken = carve(c, seqs, sizeof *t->is_taken);
    for (int i = 0; i < KF_INPUT_COUNT; i++)
        t->input[i] = carve(c, count[i], sizeof(int32_t));
}

static bool alloc_buffers(kf_session *s)
{
    kf_engine *e = s->engine;
    const kf_model *m = e->model;
    uint64_t n_pages = (uint64_t)m->max_sequences * s->seq_max_pages;
    s->pool_bytes = m->pool_bytes + POOL_PAD_BYTES;
    s->counter_bytes = m->counter_bytes + sizeof(uint32_t);
    s->pool = kf_alloc(&e->allocator, s->pool_bytes, 4096);
    s->counters = kf_alloc(&e->allocator, s->counter_bytes, KF_CACHE_LINE);
    bool ok = s->pool && s->counters;
    for (uint32_t i = 0; i < m->n_kv && ok; i++) {
        uint64_t page = m->kv[i].layers * m->kv[i].page_bytes;
        ok = page <= (UINT64_C(1) << 46) / n_pages;
        if (!ok)
            break;
        s->kv_bytes[i] = n_pages * page + POOL_PAD_BYTES;
        s->kv_base[i] = kf_alloc(&e->allocator, s->kv_bytes[i], 4096);
        ok = s->kv_base[i] != NULL;
    }
    return ok;
}

kf_status kf_session_open(kf_engine *e, kf_session **out_session)
{
    carver c = {0};
    carve_all(NULL, &c, e);
    size_t size = c.at;
    *out_session = NULL;
    kf_session *s = kf_alloc(&e->allocator, size, KF_CACHE_LINE);
    if (!s)
        return kf_fail(&e->log, KF_ERR_MEMORY, "no memory for a session");
    c = (carver){(unsigned char *)s, 0};
    carve_all(s, &c, e);
    s->engine = e;
    s->size_bytes = size;
    if (!alloc_buffers(s)) {
        kf_session_close(s);
        kf_limits l;
        kf_engine_limits(e, &l);
        return kf_fail(&e->log, KF_ERR_MEMORY,
                       "no memory for %llu bytes of buffers and %llu of cache; a smaller context "
                       "needs less",
                       (unsigned long long)l.pool_bytes, (unsigned long long)l.kv_bytes);
    }
    for (int t = 0; t < (has_memory(e->model) ? N_TABLES : MEMORY); t++) {
        page_table *p = &s->table[t];
        p->n_free = e->model->max_sequences * s->seq_max_pages;
        for (uint32_t i = 0; i < p->n_free; i++)
            p->free_pages[i] = (int32_t)(p->n_free - 1 - i);
    }
    *out_session = s;
    return KF_OK;
}

void kf_session_close(kf_session *s)
{
    if (!s)
        return;
    kf_allocator a = s->engine->allocator;
    for (uint32_t i = 0; i < s->engine->model->n_kv; i++)
        kf_free(&a, s->kv_base[i], s->kv_bytes[i]);
    kf_free(&a, s->counters, s->counter_bytes);
    kf_free(&a, s->pool, s->pool_bytes);
    kf_free(&a, s, s->size_bytes);
}

/* ---- Poison ---------------------------------------------------------------------------------- */

/* In sanitized builds what a kernel must not use is NaN: activations of the step before, and the
 * positions of a page that its new owner has not written. */
static void poison_pool(kf_session *s)
{
    if (KF_HAS_ASAN)
        memset(s->pool, 0xFF, s->pool_bytes);
}

static void poison_page(kf_session *s, int table, int32_t page)
{
    const kf_model *m = s->engine->model;
    for (uint32_t i = 0; KF_HAS_ASAN && i < m->n_kv; i++) {
        if (m->kv[i].is_memory != (uint32_t)table)
            continue;
        size_t bytes = m->kv[i].layers * m->kv[i].page_bytes;
        memset(s->kv_base[i] + (size_t)page * bytes, 0xFF, bytes);
    }
}

/* ---- A step ---------------------------------------------------------------------------------- */

typedef struct totals {
    uint32_t tokens, rows;
    int64_t keys, pairs, memory;
    bool is_decode;  /* one token and one row each */
    bool is_encoder; /* the encoder's phase: whole sequences */
    int table;       /* of the positions that are added */
} totals;

static uint32_t pages_for(const kf_session *s, uint32_t positions)
{
    return (positions + s->engine->page_tokens - 1) / s->engine->page_tokens;
}

/* An encoder sees a sequence once, whole. */
static kf_status check_whole(const kf_session *s, const kf_append *a, uint32_t past)
{
    const kf_model *m = s->engine->model;
    const kf_logger *log = &s->engine->log;
    if (past > 0)
        return kf_fail(log, KF_ERR_USAGE,
                       "sequence %u holds %u positions; an encoder takes whole sequences",
                       a->sequence, past);
    if (a->n_tokens > m->max_tokens)
        return kf_fail(log, KF_ERR_USAGE,
                       "a sequence of %u tokens; the encoder was compiled for %u in one call",
                       a->n_tokens, m->max_tokens);
    if (m->is_pooled && a->n_logits != 1)
        return kf_fail(log, KF_ERR_USAGE, "sequence %u: %u rows wanted; the model gives one",
                       a->sequence, a->n_logits);
    return KF_OK;
}

/* A decoder beside an encoder needs a text to attend to. */
static kf_status check_memory(const kf_session *s, const kf_append *a, totals *t)
{
    const kf_model *m = s->engine->model;
    if (!has_memory(m))
        return KF_OK;
    uint32_t length = s->table[MEMORY].seqs[a->sequence].length;
    t->memory += t->is_encoder ? a->n_tokens : length;
    if (t->is_encoder && a->n_logits > 0)
        return kf_fail(&s->engine->log, KF_ERR_USAGE, "sequence %u: an encoded text has no logits",
                       a->sequence);
    if (!t->is_encoder && length == 0)
        return kf_fail(&s->engine->log, KF_ERR_USAGE, "sequence %u: no text was encoded for it",
                       a->sequence);
    return KF_OK;
}

static kf_status check_ids(const kf_session *s, const kf_append *a)
{
    const kf_model *m = s->engine->model;
    const kf_logger *log = &s->engine->log;
    for (uint32_t i = 0; i < a->n_tokens; i++) {
        if (a->tokens[i] < 0 || (uint32_t)a->tokens[i] >= m->vocab_size)
            return kf_fail(log, KF_ERR_INPUT, "token id %d; the vocabulary has %u", a->tokens[i],
                           m->vocab_size);
    }
    for (uint32_t i = 0; a->types && i < a->n_tokens; i++) {
        if (a->types[i] < 0 || (uint32_t)a->types[i] >= m->type_vocab_size)
            return kf_fail(log, KF_ERR_INPUT, "token type %d; the model has %u", a->types[i],
                           m->type_vocab_size);
    }
    return KF_OK;
}

static kf_status check_append(kf_session *s, const kf_append *a, totals *t)
{
    const kf_model *m = s->engine->model;
    const kf_logger *log = &s->engine->log;
    if (a->sequence >= m->max_sequences)
        return kf_fail(log, KF_ERR_USAGE, "sequence %u; the model was compiled for %u", a->sequence,
                       m->max_sequences);
    if (s->is_taken[a->sequence])
        return kf_fail(log, KF_ERR_USAGE, "sequence %u twice in one step", a->sequence);
    s->is_taken[a->sequence] = true;
    if (a->n_tokens == 0 || a->n_logits > a->n_tokens)
        return kf_fail(log, KF_ERR_USAGE, "sequence %u: %u tokens, %u logit rows", a->sequence,
                       a->n_tokens, a->n_logits);
    /* What a new text replaces does not count. */
    uint32_t past = t->table == MEMORY ? 0 : s->table[OWN].seqs[a->sequence].length;
    if (t->is_encoder)
        KF_TRY(check_whole(s, a, past));
    KF_TRY(check_memory(s, a, t));
    if (a->n_tokens > s->engine->context - past)
        return kf_fail(log, KF_ERR_USAGE, "sequence %u: %u + %u positions; the context holds %u",
                       a->sequence, past, a->n_tokens, s->engine->context);
    if (a->n_tokens > m->max_tokens - t->tokens || a->n_logits > m->max_rows - t->rows)
        return kf_fail(log, KF_ERR_USAGE, "a step of more than %u tokens or %u logit rows",
                       m->max_tokens, m->max_rows);
    KF_TRY(check_ids(s, a));
    t->tokens += a->n_tokens;
    t->rows += a->n_logits;
    t->keys += (int64_t)past + a->n_tokens;
    int64_t n = a->n_tokens, later = t->is_encoder ? n * (n - 1) / 2 : 0;
    t->pairs += n * past + n * (n + 1) / 2 + later;
    t->is_decode = t->is_decode && a->n_tokens == 1 && a->n_logits == 1;
    return KF_OK;
}

static kf_status check_step(kf_session *s, const kf_append *appends, uint32_t n, totals *t)
{
    const kf_logger *log = &s->engine->log;
    if (n == 0 || n > s->engine->model->max_sequences)
        return kf_fail(log, KF_ERR_USAGE, "a step over %u sequences; the model was compiled for %u",
                       n, s->engine->model->max_sequences);
    memset(s->is_taken, 0, s->engine->model->max_sequences * sizeof *s->is_taken);
    t->is_decode = !t->is_encoder;
    for (uint32_t i = 0; i < n; i++)
        KF_TRY(check_append(s, &appends[i], t));
    return KF_OK; /* there are pages for all sequences at their longest */
}

/* The row of sequence |i| of the call in a page table of the kernels. */
static void fill_pages(kf_session *s, int input, int table, uint32_t sequence, uint32_t i)
{
    const page_table *p = &s->table[table];
    const int32_t *pages = p->seq_pages + (size_t)sequence * s->seq_max_pages;
    memcpy(s->input[input] + (size_t)i * s->engine->max_pages, pages,
           p->seqs[sequence].n_pages * sizeof *pages);
}

/* Pages for |n| positions of a sequence. */
static void give_pages(kf_session *s, int table, uint32_t sequence, uint32_t n)
{
    page_table *p = &s->table[table];
    seq_state *q = &p->seqs[sequence];
    int32_t *pages = p->seq_pages + (size_t)sequence * s->seq_max_pages;
    for (uint32_t need = pages_for(s, n); q->n_pages < need; q->n_pages++) {
        pages[q->n_pages] = p->free_pages[--p->n_free];
        poison_page(s, table, pages[q->n_pages]);
    }
}

static void take_pages(kf_session *s, int table, uint32_t sequence, uint32_t n)
{
    page_table *p = &s->table[table];
    seq_state *q = &p->seqs[sequence];
    const int32_t *pages = p->seq_pages + (size_t)sequence * s->seq_max_pages;
    q->length = n;
    while (q->n_pages > pages_for(s, n))
        p->free_pages[p->n_free++] = pages[--q->n_pages];
}

/* Fills the rows of append |i|, whose first token row is |row|; gives its sequence the pages. */
static void fill_append(kf_session *s, const kf_append *a, int table, uint32_t i, uint32_t row,
                        uint32_t *rows)
{
    const seq_state *q = &s->table[table].seqs[a->sequence];
    give_pages(s, table, a->sequence, q->length + a->n_tokens);
    fill_pages(s, KF_INPUT_PAGES, table, a->sequence, i);
    if (has_memory(s->engine->model) && table == OWN) {
        fill_pages(s, KF_INPUT_MEMORY_PAGES, MEMORY, a->sequence, i);
        s->input[KF_INPUT_MEMORY_LEN][i] = (int32_t)s->table[MEMORY].seqs[a->sequence].length;
    }
    memcpy(s->input[KF_INPUT_IDS] + row, a->tokens, a->n_tokens * sizeof(int32_t));
    if (a->types)
        memcpy(s->input[KF_INPUT_TYPES] + row, a->types, a->n_tokens * sizeof(int32_t));
    else
        memset(s->input[KF_INPUT_TYPES] + row, 0, a->n_tokens * sizeof(int32_t));
    for (uint32_t k = 0; k < a->n_tokens; k++) {
        s->input[KF_INPUT_POS][row + k] = (int32_t)(q->length + k);
        s->input[KF_INPUT_SEQ][row + k] = (int32_t)i;
    }
    s->input[KF_INPUT_SEQ_START][i] = (int32_t)row;
    s->input[KF_INPUT_PAST][i] = (int32_t)q->length;
    for (uint32_t k = a->n_tokens - a->n_logits; k < a->n_tokens; k++)
        s->input[KF_INPUT_LOGIT_ROWS][(*rows)++] = (int32_t)(row + k);
}

/* The narrowest bucket that holds the call: its kernels are made for the fewest rows. */
static const kf_phase *choose_phase(const kf_model *m, const totals *t)
{
    const kf_phase *best = NULL; /* kf_model_check excludes that none fits */
    for (uint32_t i = 0; i < m->n_phases; i++) {
        const kf_phase *p = &m->phases[i];
        if (t->tokens < p->rows_lo || t->tokens > p->rows_hi)
            continue;
        if ((p->kind == KF_PHASE_ENCODE) != t->is_encoder ||
            (p->kind == KF_PHASE_DECODE && !t->is_decode))
            continue;
        if (!best || p->rows_hi - p->rows_lo < best->rows_hi - best->rows_lo)
            best = p;
    }
    return best;
}

/* A call that was checked. */
static void run_step(kf_session *s, const kf_append *appends, uint32_t n, const totals *t)
{
    kf_engine *e = s->engine;
    uint32_t row = 0, rows = 0;
    for (uint32_t i = 0; i < n; i++) {
        fill_append(s, &appends[i], t->table, i, row, &rows);
        row += appends[i].n_tokens;
    }
    s->input[KF_INPUT_SEQ_START][n] = (int32_t)row;
    /* Dims are at least 1 for the kernels: a call without wanted logits computes the last row's. */
    if (rows == 0)
        s->input[KF_INPUT_LOGIT_ROWS][0] = (int32_t)(row - 1);
    const kf_phase *phase = choose_phase(e->model, t);
    kf_step step = {.run = phase->fn,
                    .dim = {[KF_DIM_SEQUENCES] = n,
                            [KF_DIM_TOKENS] = t->tokens,
                            [KF_DIM_ROWS] = rows ? rows : 1,
                            [KF_DIM_KEYS] = t->keys,
                            [KF_DIM_MEMORY] = t->memory,
                            [KF_DIM_PAIRS] = t->pairs},
                    .pool = s->pool,
                    .counters = s->counters,
                    .weights = e->weights,
                    .model = e->model,
                    .kv_base = s->kv_base};
    for (int i = 0; i < KF_INPUT_COUNT; i++)
        step.input[i] = s->input[i];
    poison_pool(s);
    pthread_mutex_lock(&e->step_lock);
    kf_pool_run(e->pool, &step);
    pthread_mutex_unlock(&e->step_lock);
    for (uint32_t i = 0; i < n; i++)
        s->table[t->table].seqs[appends[i].sequence].length += appends[i].n_tokens;
    s->n_rows = rows;
    s->logits = (const float *)(const void *)(s->pool + phase->logits_offset);
    s->next = NULL;
    if (phase->next_offset != KF_NO_NEXT)
        s->next = (const int32_t *)(const void *)(s->pool + phase->next_offset);
}

kf_status kf_session_step(kf_session *s, const kf_append *appends, uint32_t n)
{
    totals t = {.is_encoder = s->engine->model->kind == KF_KIND_ENCODER, .table = OWN};
    KF_TRY(check_step(s, appends, n, &t));
    run_step(s, appends, n, &t);
    return KF_OK;
}

kf_status kf_session_encode(kf_session *s, const kf_append *texts, uint32_t n)
{
    totals t = {.is_encoder = true, .table = MEMORY};
    if (!has_memory(s->engine->model))
        return kf_fail(&s->engine->log, KF_ERR_UNSUPPORTED,
                       "'%s' is no model of an encoder and a decoder", s->engine->model->name);
    KF_TRY(check_step(s, texts, n, &t));
    for (uint32_t i = 0; i < n; i++) {
        take_pages(s, OWN, texts[i].sequence, 0);
        take_pages(s, MEMORY, texts[i].sequence, 0);
    }
    run_step(s, texts, n, &t);
    return KF_OK;
}

kf_status kf_session_prefill(kf_session *s, uint32_t sequence, const int32_t *tokens,
                             uint32_t n_tokens, uint32_t chunk)
{
    const kf_engine *e = s->engine;
    if (chunk == 0 || chunk > e->model->max_tokens)
        chunk = e->model->max_tokens;
    if (e->model->kind == KF_KIND_ENCODER)
        chunk = n_tokens;
    if (sequence < e->model->max_sequences &&
        n_tokens > e->context - s->table[OWN].seqs[sequence].length)
        return kf_fail(&e->log, KF_ERR_USAGE,
                       "sequence %u: %u + %u positions; the context holds %u", sequence,
                       s->table[OWN].seqs[sequence].length, n_tokens, e->context);
    for (uint32_t at = 0;;) {
        uint32_t now = n_tokens - at < chunk ? n_tokens - at : chunk;
        kf_append a = {sequence, now, tokens + at, at + now == n_tokens, NULL};
        KF_TRY(kf_session_step(s, &a, 1));
        at += now;
        if (at == n_tokens)
            return KF_OK;
    }
}

const float *kf_session_logits(const kf_session *s, uint32_t row)
{
    return row < s->n_rows ? s->logits + (size_t)row * s->engine->model->logits_stride : NULL;
}

int32_t kf_session_next(const kf_session *s, uint32_t row)
{
    return row < s->n_rows && s->next ? s->next[row] : -1;
}

uint32_t kf_session_length(const kf_session *s, uint32_t sequence)
{
    return sequence < s->engine->model->max_sequences ? s->table[OWN].seqs[sequence].length : 0;
}

kf_status kf_session_truncate(kf_session *s, uint32_t sequence_id, uint32_t n)
{
    if (sequence_id >= s->engine->model->max_sequences ||
        n > s->table[OWN].seqs[sequence_id].length)
        return kf_fail(&s->engine->log, KF_ERR_USAGE, "truncate sequence %u to %u positions",
                       sequence_id, n);
    take_pages(s, OWN, sequence_id, n);
    return KF_OK;
}
