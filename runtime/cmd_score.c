/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_score - how well the model predicts a file. The windows are described in the verb's help. */
#include "runtime/cli.h"

#include <math.h>
#include <stdint.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)

typedef struct score {
    double nats;
    uint64_t n_scored;
} score;

static double nats_of(const float *logits, uint32_t n, int32_t target)
{
    float best = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        best = logits[i] > best ? logits[i] : best;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - best);
    return log(sum) + best - logits[target];
}

/* One window: inputs ids[0..n), targets ids[1..n]. */
static kf_status score_window(kf_cli *c, const int32_t *ids, uint32_t n, uint32_t chunk, score *out)
{
    KF_TRY(kf_session_truncate(c->session, 0, 0));
    for (uint32_t at = 0; at < n && !kf_cli_is_interrupted(); at += chunk) {
        uint32_t now = n - at < chunk ? n - at : chunk;
        kf_append a = {0, now, ids + at, now, NULL};
        KF_TRY(kf_session_step(c->session, &a, 1));
        for (uint32_t row = 0; row < now; row++)
            out->nats += nats_of(kf_session_logits(c->session, row), c->model->vocab_size,
                                 ids[at + row + 1]);
        out->n_scored += now;
    }
    return KF_OK;
}

static uint64_t count_chars(const kf_cli_array *text)
{
    uint64_t n = 0;
    for (size_t i = 0; i < text->size_bytes; i++)
        n += ((unsigned char)text->data[i] & 0xC0) != 0x80;
    return n;
}

static void print_score(const kf_cli *c, const score *s, uint64_t n_tokens, uint64_t n_chars)
{
    double per_token = s->nats / (double)s->n_scored;
    double per_char = s->nats / (double)n_chars;
    if (c->opt.json)
        printf("{\"schema\": \"kerf.score.1\", \"tokens\": %llu, \"tokens_scored\": %llu, "
               "\"characters\": %llu, \"nats\": %.9g, "
               "\"nats_per_token\": %.9g, \"nats_per_character\": %.9g, \"perplexity\": %.9g}\n",
               (unsigned long long)n_tokens, (unsigned long long)s->n_scored,
               (unsigned long long)n_chars, s->nats, per_token, per_char, exp(per_token));
    else
        printf("tokens scored       %llu\nnats per token      %.6f\nnats per character  %.6f\n"
               "perplexity          %.6f\n",
               (unsigned long long)s->n_scored, per_token, per_char, exp(per_token));
}

static kf_status score_ids(kf_cli *c, const kf_cli_array *ids, uint64_t n_chars)
{
    const int32_t *id = (const int32_t *)(const void *)ids->data;
    uint64_t n = ids->size_bytes / sizeof *id;
    uint32_t window = c->engine->context, chunk = c->model->max_tokens;
    if (n < 2)
        return kf_fail(&c->log, KF_ERR_INPUT, "%s: a text of at least two tokens is needed",
                       c->opt.operand);
    if (c->model->max_rows < chunk)
        chunk = c->model->max_rows;
    if (c->opt.prefill_chunk && c->opt.prefill_chunk < chunk)
        chunk = (uint32_t)c->opt.prefill_chunk;
    score s = {0};
    for (uint64_t at = 0; at + 1 < n && !kf_cli_is_interrupted(); at += window) {
        uint64_t left = n - 1 - at;
        KF_TRY(score_window(c, id + at, left < window ? (uint32_t)left : window, chunk, &s));
        if (c->opt.verbose)
            kf_log(&c->log, KF_LOG_INFO, "%llu of %llu tokens: %.4f nats per token",
                   (unsigned long long)s.n_scored, (unsigned long long)n - 1,
                   s.nats / (double)s.n_scored);
    }
    if (!kf_cli_is_interrupted())
        print_score(c, &s, n, n_chars);
    return KF_OK;
}

kf_status kf_cli_score(kf_cli *c)
{
    KF_TRY(kf_cli_open(c));
    kf_cli_array text = {0}, ids = {0};
    kf_status status = kf_cli_read_file(c, c->opt.operand, MAX_TEXT_BYTES, &text);
    if (status == KF_OK)
        status = kf_cli_encode(c, text.data ? text.data : "", text.size_bytes, &ids);
    if (status == KF_OK)
        status = score_ids(c, &ids, count_chars(&text));
    kf_cli_array_free(c, &text);
    kf_cli_array_free(c, &ids);
    return status;
}
