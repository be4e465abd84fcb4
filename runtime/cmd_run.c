/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_run - continues prompts, one or a batch of them.
 *
 * Every request has a slot with tokens that wait to go in: first its prompt, then the token that
 * was picked last. One step takes what waits in all slots, as far as a call holds it, so prompts of
 * some and single tokens of others go through in one ragged call. A lone prompt is a batch of one.
 */
#define _GNU_SOURCE
#include "runtime/cli.h"
#include "runtime/utf8.h"

#include <string.h>
#include <unistd.h>

#define MAX_PROMPT_BYTES ((size_t)64 << 20)

typedef struct slot {
    bool is_active, is_done, is_stopped;
    uint64_t index; /* of the request, from 0 */
    kf_cli_array prompt_ids, ids, text;
    kf_cli_array
        begin; /* what goes into the decoder first: the prompt, or the start of an answer */
    uint64_t n_wanted;
    const int32_t *waiting; /* tokens that have not gone in */
    uint32_t n_waiting, n_now;
    int32_t last;
    size_t n_written; /* bytes of |text| that are out */
    kf_sampler sampler;
    kf_tok_stream *stream;
} slot;

typedef struct batch {
    kf_cli *c;
    slot *slots;
    kf_append *appends;
    uint32_t n_slots, max_tokens;
    kf_candidate *heap; /* shared: a pick ends before the next one begins */
    unsigned char *seen;
    size_t slots_bytes, heap_bytes, seen_bytes;
    kf_cli_array input; /* the text of --jsonl */
    size_t at;          /* of the next line */
    uint64_t n_lines, n_requests;
    const float *last_logits;
    kf_cli_npy logits; /* of --logits; opened before the work, written after it */
} batch;

/* ---- Text of a slot -------------------------------------------------------------------------- */

/* Cuts the text before the first stop string, if one has come. */
static void apply_stops(const kf_cli_options *o, slot *s, size_t from)
{
    for (uint64_t i = 0; i < o->n_stops; i++) {
        size_t len = strlen(o->stop[i]);
        size_t begin = from > len ? from - len : 0;
        if (s->text.size_bytes <= begin)
            continue;
        char *hit = memmem(s->text.data + begin, s->text.size_bytes - begin, o->stop[i], len);
        if (hit) {
            s->text.size_bytes = (size_t)(hit - s->text.data);
            s->is_done = s->is_stopped = true;
        }
    }
}

/* Bytes at the end that may yet become a stop string. */
static size_t held_bytes(const kf_cli_options *o, const slot *s)
{
    size_t held = 0;
    size_t fresh = s->text.size_bytes - s->n_written;
    for (uint64_t i = 0; i < o->n_stops && !s->is_done; i++) {
        size_t n = strlen(o->stop[i]) - 1;
        for (n = n < fresh ? n : fresh; n > held; n--) {
            if (memcmp(s->text.data + s->text.size_bytes - n, o->stop[i], n) == 0)
                held = n;
        }
    }
    return held;
}

static void write_fresh(const kf_cli_options *o, slot *s)
{
    size_t end = s->text.size_bytes - held_bytes(o, s);
    if (end <= s->n_written)
        return;
    fwrite(s->text.data + s->n_written, 1, end - s->n_written, stdout);
    fflush(stdout);
    s->n_written = end;
}

static kf_status add_text(batch *b, slot *s, const char *text, size_t len)
{
    size_t from = s->text.size_bytes;
    KF_TRY(kf_cli_array_add(b->c, &s->text, text, len));
    apply_stops(&b->c->opt, s, from);
    return KF_OK;
}

static bool is_end(const kf_cli *c, int32_t id)
{
    for (uint32_t i = 0; i < c->model->n_eos && !c->opt.ignore_eos; i++) {
        if (c->model->eos[i] == id)
            return true;
    }
    return false;
}

/* Takes the token that was picked: it ends the text, or is added and waits to go in. */
static kf_status take_token(batch *b, slot *s, int32_t id)
{
    if (is_end(b->c, id)) {
        s->is_done = true;
        return KF_OK;
    }
    kf_sampler_accept(&s->sampler, id);
    KF_TRY(kf_cli_array_add(b->c, &s->ids, &id, sizeof id));
    s->last = id;
    s->waiting = &s->last;
    s->n_waiting = 1;
    if (s->stream) {
        const char *text;
        size_t len;
        KF_TRY(kf_tok_stream_push(s->stream, (uint32_t)id, &text, &len));
        KF_TRY(add_text(b, s, text, len));
    }
    if (s->ids.size_bytes / sizeof id >= s->n_wanted)
        s->is_done = true;
    return KF_OK;
}

/* ---- Requests -------------------------------------------------------------------------------- */

static bool has_encoder(const kf_cli *c)
{
    return c->model->kind == KF_KIND_ENCODER_DECODER;
}

/* Sets what goes into the decoder first; beside an encoder, that takes the prompt. */
static kf_status begin_text(batch *b, slot *s)
{
    kf_cli *c = b->c;
    kf_append text = {(uint32_t)(s - b->slots), (uint32_t)(s->prompt_ids.size_bytes / 4),
                      (const int32_t *)(const void *)s->prompt_ids.data, 0, NULL};
    s->begin.size_bytes = 0;
    if (!has_encoder(c))
        return kf_cli_array_add(c, &s->begin, s->prompt_ids.data, s->prompt_ids.size_bytes);
    KF_TRY(kf_session_encode(c->session, &text, 1));
    if (c->opt.decoder_ids)
        KF_TRY(kf_cli_parse_ids(c, c->opt.decoder_ids, &s->begin));
    else
        KF_TRY(kf_cli_array_add(c, &s->begin, &c->model->start_id, sizeof c->model->start_id));
    return s->begin.size_bytes ? KF_OK
                               : kf_fail(&c->log, KF_ERR_INPUT, "--decoder-ids has no tokens");
}

/* Makes |s| ready for its prompt, which it already holds. */
static kf_status start_slot(batch *b, slot *s, uint64_t n, uint64_t seed, uint64_t stream)
{
    kf_cli *c = b->c;
    if (s->prompt_ids.size_bytes == 0)
        return kf_fail(&c->log, KF_ERR_INPUT, "the prompt has no tokens");
    KF_TRY(begin_text(b, s));
    size_t n_prompt = s->begin.size_bytes / sizeof(int32_t);
    uint32_t context = c->engine->context;
    if (n_prompt > context)
        return kf_fail(&c->log, KF_ERR_USAGE,
                       "the prompt has %zu tokens; the context holds %u (--ctx, at most %u)",
                       n_prompt, context, c->model->max_positions);
    /* The last token made needs no position: it is not fed back. */
    uint64_t room = (uint64_t)context - n_prompt + 1;
    s->n_wanted = n < room ? n : room;
    if (c->opt.has_n && n > room)
        kf_log(&c->log, KF_LOG_WARNING,
               "%llu tokens instead of %llu: the context holds %u positions",
               (unsigned long long)room, (unsigned long long)n, context);
    kf_sampling how = {.temperature = (float)c->opt.temperature,
                       .top_p = (float)c->opt.top_p,
                       .min_p = (float)c->opt.min_p,
                       .repeat_penalty = (float)c->opt.repeat_penalty,
                       .top_k = (uint32_t)c->opt.top_k,
                       .seed = seed};
    unsigned char *seen = b->seen + (size_t)(s - b->slots) * c->model->vocab_size;
    memset(seen, 0, c->model->vocab_size);
    kf_sampler_init(&s->sampler, &how, stream, c->model->vocab_size, b->heap, seen);
    s->waiting = (const int32_t *)(const void *)s->begin.data;
    s->n_waiting = (uint32_t)n_prompt;
    for (size_t i = 0; i < n_prompt; i++)
        kf_sampler_accept(&s->sampler, s->waiting[i]);
    if (c->tok && !s->stream)
        KF_TRY(kf_tok_stream_create(c->tok, true, &s->stream));
    s->is_active = true;
    return KF_OK;
}

static bool next_line(batch *b, const char **line, size_t *len)
{
    while (b->at < b->input.size_bytes) {
        const char *from = b->input.data + b->at;
        const char *end = memchr(from, '\n', b->input.size_bytes - b->at);
        *len = end ? (size_t)(end - from) : b->input.size_bytes - b->at;
        b->at += *len + (end != NULL);
        b->n_lines++;
        *line = from;
        for (size_t i = 0; i < *len; i++) {
            if (!strchr(" \t\r", from[i]))
                return true;
        }
    }
    return false;
}

static kf_status take_request(batch *b, slot *s, const char *line, size_t len)
{
    kf_cli *c = b->c;
    kf_cli_request r;
    kf_status status = kf_cli_request_parse(c, line, len, b->n_lines, &r);
    if (status == KF_OK && r.has_ids)
        status = kf_cli_array_add(c, &s->prompt_ids, r.ids.data, r.ids.size_bytes);
    else if (status == KF_OK)
        status = kf_cli_encode(c, r.prompt.data ? r.prompt.data : "", r.prompt.size_bytes,
                               &s->prompt_ids);
    s->index = b->n_requests++;
    uint64_t n = r.has_n ? (uint64_t)r.n : c->opt.n_tokens;
    uint64_t seed = r.has_seed ? (uint64_t)r.seed : c->opt.seed;
    kf_cli_request_free(c, &r);
    KF_TRY(status);
    return start_slot(b, s, n, seed, s->index);
}

static kf_status fill_slots(batch *b)
{
    for (uint32_t i = 0; i < b->n_slots; i++) {
        const char *line;
        size_t len;
        if (b->slots[i].is_active || !next_line(b, &line, &len))
            continue;
        KF_TRY(take_request(b, &b->slots[i], line, len));
    }
    return KF_OK;
}

/* ---- Steps ----------------------------------------------------------------------------------- */

/* One call over all slots that wait; then picks a token in each that has nothing left to go in. */
static kf_status step(batch *b)
{
    uint32_t n = 0, row = 0, n_active = 0, budget = b->max_tokens;
    for (uint32_t i = 0; i < b->n_slots; i++)
        n_active += b->slots[i].is_active && b->slots[i].n_waiting > 0;
    for (uint32_t i = 0; i < b->n_slots; i++) {
        slot *s = &b->slots[i];
        if (!s->is_active || s->n_waiting == 0)
            continue;
        uint32_t room = budget - --n_active; /* one token for each slot after this one */
        s->n_now = s->n_waiting < room ? s->n_waiting : room;
        budget -= s->n_now;
        b->appends[n++] = (kf_append){i, s->n_now, s->waiting, s->n_now == s->n_waiting, NULL};
    }
    KF_TRY(kf_session_step(b->c->session, b->appends, n));
    for (uint32_t i = 0; i < n; i++) {
        slot *s = &b->slots[b->appends[i].sequence];
        s->waiting += s->n_now;
        s->n_waiting -= s->n_now;
        if (s->n_waiting > 0)
            continue;
        const float *logits = kf_session_logits(b->c->session, row);
        int32_t likeliest = kf_session_next(b->c->session, row++);
        b->last_logits = logits;
        if (s->n_wanted == 0)
            s->is_done = true;
        else
            KF_TRY(take_token(b, s, kf_sampler_pick(&s->sampler, logits, likeliest)));
    }
    return KF_OK;
}

static kf_status finish_text(batch *b, slot *s)
{
    const char *text;
    size_t len;
    if (!s->stream)
        return KF_OK;
    KF_TRY(kf_tok_stream_finish(s->stream, &text, &len));
    return s->is_stopped ? KF_OK : add_text(b, s, text, len);
}

static void print_object(const batch *b, const slot *s)
{
    putchar('{');
    if (b->c->opt.jsonl)
        printf("\"index\": %llu, ", (unsigned long long)s->index);
    else
        fputs("\"schema\": \"kerf.run.1\", ", stdout);
    fputs("\"text\": ", stdout);
    kf_cli_json_string(stdout, s->text.data, s->text.size_bytes);
    fputs(", \"prompt_ids\": ", stdout);
    kf_cli_json_ids(stdout, (const int32_t *)(const void *)s->prompt_ids.data,
                    s->prompt_ids.size_bytes / sizeof(int32_t));
    fputs(", \"ids\": ", stdout);
    kf_cli_json_ids(stdout, (const int32_t *)(const void *)s->ids.data,
                    s->ids.size_bytes / sizeof(int32_t));
    puts("}");
}

static void print_plain(batch *b, slot *s)
{
    if (!s->stream) {
        const int32_t *ids = (const int32_t *)(const void *)s->ids.data;
        for (size_t i = 0; i < s->ids.size_bytes / sizeof *ids; i++)
            printf("%s%d", i ? "," : "", ids[i]);
        putchar('\n');
        return;
    }
    write_fresh(&b->c->opt, s);
    if (s->text.size_bytes == 0 || s->text.data[s->text.size_bytes - 1] != '\n')
        putchar('\n');
}

static kf_status end_slot(batch *b, slot *s)
{
    KF_TRY(finish_text(b, s));
    s->is_done = true; /* nothing is held back any more */
    if (b->c->opt.json || b->c->opt.jsonl)
        print_object(b, s);
    else
        print_plain(b, s);
    fflush(stdout);
    s->prompt_ids.size_bytes = s->ids.size_bytes = s->text.size_bytes = 0;
    s->n_written = 0;
    s->is_active = s->is_done = s->is_stopped = false;
    s->n_waiting = 0;
    return kf_session_truncate(b->c->session, (uint32_t)(s - b->slots), 0);
}

static kf_status run_all(batch *b)
{
    bool streams = !b->c->opt.json && !b->c->opt.jsonl;
    for (;;) {
        uint32_t n_active = 0;
        KF_TRY(fill_slots(b));
        for (uint32_t i = 0; i < b->n_slots; i++)
            n_active += b->slots[i].is_active;
        if (n_active == 0)
            return KF_OK;
        KF_TRY(step(b));
        for (uint32_t i = 0; i < b->n_slots; i++) {
            slot *s = &b->slots[i];
            if (s->is_active && (s->is_done || kf_cli_is_interrupted()))
                KF_TRY(end_slot(b, s));
            else if (s->is_active && streams)
                write_fresh(&b->c->opt, s);
        }
        if (kf_cli_is_interrupted())
            return KF_OK;
    }
}

/* ---- The verb -------------------------------------------------------------------------------- */

static kf_status read_prompt(batch *b, slot *s)
{
    kf_cli *c = b->c;
    const kf_cli_options *o = &c->opt;
    if (o->ids)
        return kf_cli_parse_ids(c, o->ids, &s->prompt_ids);
    if (o->prompt)
        return kf_cli_encode(c, o->prompt, strlen(o->prompt), &s->prompt_ids);
    if (!o->file && isatty(STDIN_FILENO))
        kf_log(&c->log, KF_LOG_INFO, "reading the prompt from the terminal, up to Ctrl-D");
    kf_cli_array text = {0};
    kf_status status = kf_cli_read_file(c, o->file ? o->file : "-", MAX_PROMPT_BYTES, &text);
    if (status == KF_OK)
        status = kf_cli_encode(c, text.data ? text.data : "", text.size_bytes, &s->prompt_ids);
    kf_cli_array_free(c, &text);
    return status;
}

/* Prefills the prompt with all rows wanted, writes them, and forgets it again. */
static kf_status write_all_logits(batch *b, const slot *s)
{
    kf_cli *c = b->c;
    const int32_t *ids = (const int32_t *)(const void *)s->begin.data;
    uint32_t n = (uint32_t)(s->begin.size_bytes / sizeof *ids);
    uint32_t chunk = c->model->max_rows < b->max_tokens ? c->model->max_rows : b->max_tokens;
    kf_cli_npy file;
    KF_TRY(kf_cli_npy_open(c, &file, c->opt.all_logits, n, c->model->vocab_size));
    kf_status status = KF_OK;
    for (uint32_t at = 0; at < n && status == KF_OK; at += chunk) {
        uint32_t now = n - at < chunk ? n - at : chunk;
        kf_append a = {0, now, ids + at, now, NULL};
        status = kf_session_step(c->session, &a, 1);
        for (uint32_t row = 0; row < now && status == KF_OK; row++)
            kf_cli_npy_row(&file, kf_session_logits(c->session, row), c->model->vocab_size);
    }
    if (status == KF_OK)
        status = kf_cli_npy_close(c, &file);
    kf_cli_npy_abandon(&file);
    KF_TRY(status);
    return kf_session_truncate(c->session, 0, 0);
}

static kf_status write_logits(batch *b)
{
    if (!b->logits.f || !b->last_logits)
        return KF_OK;
    kf_cli_npy_row(&b->logits, b->last_logits, b->c->model->vocab_size);
    return kf_cli_npy_close(b->c, &b->logits);
}

static kf_status alloc_batch(batch *b)
{
    kf_cli *c = b->c;
    const kf_model *m = c->model;
    const kf_allocator *a = &kf_default_allocator;
    uint32_t slots = m->max_sequences < m->max_rows ? m->max_sequences : m->max_rows;
    b->n_slots = c->opt.jsonl ? slots : 1;
    uint64_t chunk = c->opt.prefill_chunk;
    b->max_tokens = chunk && chunk < m->max_tokens ? (uint32_t)chunk : m->max_tokens;
    if (b->max_tokens < b->n_slots)
        b->max_tokens = b->n_slots;
    b->slots_bytes = b->n_slots * (sizeof *b->slots + sizeof *b->appends);
    b->heap_bytes = m->vocab_size * sizeof *b->heap;
    b->seen_bytes = (size_t)b->n_slots * m->vocab_size;
    b->slots = kf_alloc(a, b->slots_bytes, 64);
    b->heap = kf_alloc(a, b->heap_bytes, 64);
    b->seen = kf_alloc(a, b->seen_bytes, 64);
    if (!b->slots || !b->heap || !b->seen)
        return kf_fail(&c->log, KF_ERR_MEMORY, "no memory for %u requests", b->n_slots);
    b->appends = (kf_append *)(void *)(b->slots + b->n_slots);
    return KF_OK;
}

static void free_batch(batch *b)
{
    const kf_allocator *a = &kf_default_allocator;
    for (uint32_t i = 0; b->slots && i < b->n_slots; i++) {
        slot *s = &b->slots[i];
        kf_tok_stream_destroy(s->stream);
        kf_cli_array_free(b->c, &s->prompt_ids);
        kf_cli_array_free(b->c, &s->begin);
        kf_cli_array_free(b->c, &s->ids);
        kf_cli_array_free(b->c, &s->text);
    }
    kf_cli_npy_abandon(&b->logits);
    kf_cli_array_free(b->c, &b->input);
    kf_free(a, b->slots, b->slots_bytes);
    kf_free(a, b->heap, b->heap_bytes);
    kf_free(a, b->seen, b->seen_bytes);
}

static kf_status run_batch(batch *b)
{
    const kf_cli_options *o = &b->c->opt;
    KF_TRY(alloc_batch(b));
    if (o->jsonl) {
        KF_TRY(kf_cli_read_file(b->c, o->jsonl, (size_t)1 << 30, &b->input));
        return run_all(b);
    }
    KF_TRY(read_prompt(b, &b->slots[0]));
    KF_TRY(start_slot(b, &b->slots[0], o->n_tokens, o->seed, 0));
    if (o->logits)
        KF_TRY(kf_cli_npy_open(b->c, &b->logits, o->logits, 0, b->c->model->vocab_size));
    if (o->all_logits)
        KF_TRY(write_all_logits(b, &b->slots[0]));
    KF_TRY(run_all(b));
    return write_logits(b);
}

kf_status kf_cli_run(kf_cli *c)
{
    const kf_cli_options *o = &c->opt;
    int sources = (o->prompt != NULL) + (o->file != NULL) + (o->ids != NULL) + (o->jsonl != NULL);
    if (sources > 1 || (o->jsonl && (o->logits || o->all_logits)))
        return kf_fail(&c->log, KF_ERR_USAGE,
                       "give one of -p, -f, --ids and --jsonl (the last without --logits)");
    if (o->decoder_ids && !has_encoder(c))
        return kf_fail(&c->log, KF_ERR_USAGE, "--decoder-ids: '%s' has no encoder", c->model->name);
    for (uint64_t i = 0; i < o->n_stops; i++) {
        if (!kf_utf8_valid(o->stop[i], strlen(o->stop[i])))
            return kf_fail(&c->log, KF_ERR_USAGE, "--stop: not UTF-8");
    }
    KF_TRY(kf_cli_open(c));
    batch b = {.c = c};
    kf_status status = run_batch(&b);
    free_batch(&b);
    return status;
}
