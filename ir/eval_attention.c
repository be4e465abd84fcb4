/* SPDX-License-Identifier: Apache-2.0 */
/* eval_attention - rotary embedding, the cache and attention in plain loops. */
#include "ir/eval_impl.h"
#include "ir/rope.h"

#include <math.h>
#include <string.h>

#define ATTR(c, kind) KF_ATTR_OF((c)->node, kind)

/* ---- rope ------------------------------------------------------------------------------------ */

bool kf_eval_rope_table(kf_eval_call *c)
{
    const kf_attr_rope_table *a = ATTR(c, rope_table);
    int64_t half = a->dim / 2;
    float *freq = KF_NEW_N(c->ctx->arena, float, half);
    for (int64_t i = 0; i < half; i++)
        freq[i] = kf_rope_freq(a, (uint32_t)i);
    for (int64_t n = 0; n < c->in[0]->n; n++) {
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)c->in[0]->data[n] * freq[i];
            c->out[0].data[(n * half + i) * 2] = (float)cos((double)angle);
            c->out[0].data[(n * half + i) * 2 + 1] = (float)sin((double)angle);
        }
    }
    return true;
}

bool kf_eval_rope(kf_eval_call *c)
{
    const kf_tensor *x = c->in[0], *table = c->in[1];
    int64_t heads = x->dim[1], size = x->dim[2], half = table->dim[1];
    bool interleaved = ATTR(c, rope)->style == KF_STYLE_INTERLEAVED;
    memcpy(c->out[0].data, x->data, (size_t)x->n * sizeof(double));
    for (int64_t row = 0; row < x->dim[0] * heads; row++) {
        const double *from = x->data + row * size, *rot = table->data + row / heads * half * 2;
        double *to = c->out[0].data + row * size;
        for (int64_t i = 0; i < half; i++) {
            int64_t j = interleaved ? 2 * i : i, k = interleaved ? 2 * i + 1 : i + half;
            double cosine = rot[2 * i], sine = rot[2 * i + 1];
            to[j] = from[j] * cosine - from[k] * sine;
            to[k] = from[k] * cosine + from[j] * sine;
        }
    }
    return true;
}

/* ---- the cache ------------------------------------------------------------------------------- */

bool kf_eval_kv_append(kf_eval_call *c)
{
    kf_eval_kv *kv = c->in[0]->kv;
    int64_t width = (int64_t)kv->type.kv_heads * kv->type.kv_head_dim;
    for (int64_t n = 0; n < c->in[3]->n; n++) {
        for (uint32_t plane = 0; plane < 2; plane++) {
            const double *from = c->in[1 + plane]->data + n * width;
            double *to = kf_eval_kv_at(kv, plane == 1, (int64_t)c->in[4]->data[n],
                                       (int64_t)c->in[3]->data[n]);
            if (!to)
                return kf_eval_fail(c->ctx,
                                    "kv_append: position %g of sequence %g is outside the cache",
                                    c->in[3]->data[n], c->in[4]->data[n]);
            for (int64_t i = 0; i < width; i++)
                to[i] = kv->rounded ? kf_round_to(kv->type.dtype, from[i]) : from[i];
        }
    }
    c->out[0].kv = kv; /* in place: the old value shows fewer rows */
    return true;
}

/* New tokens of sequence |s| if the call has |n_tokens| in all. */
static int64_t new_tokens(const kf_tensor *seq_start, int64_t s, int64_t n_tokens)
{
    double end = s + 1 < seq_start->n ? seq_start->data[s + 1] : (double)n_tokens;
    return (int64_t)(end - seq_start->data[s]);
}

/* Keys of sequence |s| in view. */
static int64_t keys_of(const kf_tensor *seq_start, const kf_tensor *past, int64_t s,
                       int64_t n_tokens, bool stored)
{
    return (int64_t)past->data[s] + (stored ? 0 : new_tokens(seq_start, s, n_tokens));
}

/* Tokens of the call, from the keys in view: |keys| = all past and all new ones. */
static int64_t tokens_of_view(const kf_tensor *past, int64_t keys)
{
    for (int64_t s = 0; s < past->n; s++)
        keys -= (int64_t)past->data[s];
    return keys;
}

bool kf_eval_kv_read(kf_eval_call *c)
{
    const kf_tensor *seq_start = c->in[1], *past = c->in[2];
    const kf_eval_kv *kv = c->in[0]->kv;
    int64_t width = (int64_t)kv->type.kv_heads * kv->type.kv_head_dim, row = 0;
    int64_t n_tokens = tokens_of_view(past, c->out[0].dim[0]);
    for (int64_t s = 0; s < past->n; s++) {
        int64_t keys = keys_of(seq_start, past, s, n_tokens, ATTR(c, kv_read)->stored);
        for (int64_t p = 0; p < keys; p++, row++) {
            const double *from =
                kf_eval_kv_at(kv, ATTR(c, kv_read)->plane == KF_PLANE_VALUES, s, p);
            if (!from || row >= c->out[0].dim[0])
                return kf_eval_fail(c->ctx, "kv_read: more keys than are in the cache");
            memcpy(c->out[0].data + row * width, from, (size_t)width * sizeof(double));
        }
    }
    return true;
}

bool kf_eval_kv_index(kf_eval_call *c)
{
    const kf_tensor *seq_start = c->in[0], *past = c->in[1];
    bool pos = ATTR(c, kv_read)->plane == KF_PLANE_POS;
    int64_t row = 0, n_tokens = tokens_of_view(past, c->out[0].n);
    for (int64_t s = 0; s < past->n; s++) {
        int64_t keys = keys_of(seq_start, past, s, n_tokens, ATTR(c, kv_read)->stored);
        for (int64_t p = 0; p < keys && row < c->out[0].n; p++)
            c->out[0].data[row++] = (double)(pos ? p : s);
    }
    return true;
}

/* ---- attention ------------------------------------------------------------------------------- */

enum { Q, KV, POS, SEQ, SEQ_START, PAST, PAGES, CAPTURES };

/* One row and head against the keys of its sequence. */
typedef struct row {
    const double *q;
    double h, pos; /* head and position */
    int64_t head, seq, keys;
} row;

typedef struct attention {
    kf_eval_call *c;
    const kf_attr_attention *attr;
    const kf_eval_kv *kv;
    kf_eval_slot *score, *mask, *prob, *sink;
    double *position; /* 0, 1, 2, ... */
    double *s, *visible, *factor;
} attention;

static const double *key_row(const attention *t, const row *r, bool values, int64_t k)
{
    const double *at = kf_eval_kv_at(t->kv, values, r->seq, k);
    int64_t group = r->head / (t->c->in[Q]->dim[1] / t->kv->type.kv_heads);
    return at + group * t->kv->type.kv_head_dim; /* all keys were looked up before */
}

/* |slot| (h, q, k) at every key, or 1. */
static bool for_keys(const attention *t, kf_eval_slot *slot, const row *r, double *out)
{
    kf_eval_vec p[] = {{&r->h, 0}, {&r->pos, 0}, {t->position, 1}};
    for (int64_t k = 0; !slot && k < r->keys; k++)
        out[k] = 1;
    return !slot || kf_eval_slot_run(slot, p, r->keys, out);
}

/* Visibility, factors and scores of all keys; false if a slot loads out of range. */
static bool score_keys(attention *t, const row *r)
{
    if (!for_keys(t, t->mask, r, t->visible) || !for_keys(t, t->prob, r, t->factor))
        return false;
    for (int64_t k = 0; k < r->keys; k++) {
        const double *key = key_row(t, r, false, k);
        double sum = 0;
        for (int64_t i = 0; t->visible[k] != 0 && i < t->kv->type.kv_head_dim; i++)
            sum += r->q[i] * key[i];
        t->s[k] = t->attr->scale * sum;
    }
    kf_eval_vec p[] = {{t->s, 1}, {&r->h, 0}, {&r->pos, 0}, {t->position, 1}};
    return !t->score || kf_eval_slot_run(t->score, p, r->keys, t->s);
}

/* Scores become weights before the factor; their sum, with the sink's, or 1 without a normaliser.
 */
static bool normalise(attention *t, const row *r, double *out_sum)
{
    double top = kf_acc_infos[KF_ACC_max].init, sink = top;
    kf_eval_vec p[] = {{&r->h, 0}};
    *out_sum = 1;
    if (t->attr->normaliser == KF_NORMALISER_NONE)
        return true;
    if (t->sink && !kf_eval_slot_run(t->sink, p, 1, &sink))
        return false;
    for (int64_t k = 0; k < r->keys; k++)
        top = t->visible[k] != 0 ? kf_acc_step(KF_ACC_max, top, t->s[k], 0, 0, 0) : top;
    top = kf_acc_step(KF_ACC_max, top, sink, 0, 0, 0);
    double sum = kf_acc_step(KF_ACC_sum_exp, 0, sink, top, 0, 0);
    for (int64_t k = 0; k < r->keys; k++) {
        t->s[k] = kf_acc_step(KF_ACC_sum_exp, 0, t->s[k], top, 0, 0);
        sum += t->visible[k] != 0 ? t->s[k] : 0;
    }
    *out_sum = sum;
    return true;
}

static bool attend(attention *t, const row *r, double *out)
{
    int64_t size = t->kv->type.kv_head_dim;
    double sum = 0;
    if (!score_keys(t, r) || !normalise(t, r, &sum))
        return kf_eval_fail(t->c->ctx, "attention: a slot loads outside its operand");
    for (int64_t k = 0; k < r->keys; k++) {
        const double *value = key_row(t, r, true, k);
        for (int64_t i = 0; t->visible[k] != 0 && i < size; i++)
            out[i] += t->s[k] * t->factor[k] * value[i];
    }
    for (int64_t i = 0; i < size; i++)
        out[i] = sum == 0 ? 0 : out[i] / sum; /* a row that sees nothing gives 0 */
    return true;
}

static kf_eval_slot *slot_of(const kf_eval_call *c, const kf_slot *s)
{
    return s ? kf_eval_slot_create(c->ctx->arena, s, c->in + CAPTURES) : NULL;
}

static attention attention_of(kf_eval_call *c, int64_t most)
{
    const kf_attr_attention *a = ATTR(c, attention);
    kf_arena *arena = c->ctx->arena;
    attention t = {.c = c,
                   .attr = a,
                   .kv = c->in[KV]->kv,
                   .score = slot_of(c, a->score),
                   .mask = slot_of(c, a->mask),
                   .prob = slot_of(c, a->prob),
                   .sink = slot_of(c, a->sink),
                   .position = KF_NEW_N(arena, double, most + 1),
                   .s = KF_NEW_N(arena, double, most + 1),
                   .visible = KF_NEW_N(arena, double, most + 1),
                   .factor = KF_NEW_N(arena, double, most + 1)};
    for (int64_t k = 0; k < most; k++)
        t.position[k] = (double)k;
    return t;
}

static int64_t keys_in_call(const kf_eval_call *c, int64_t s)
{
    return keys_of(c->in[SEQ_START], c->in[PAST], s, c->in[Q]->dim[0], ATTR(c, attention)->stored);
}

bool kf_eval_attention(kf_eval_call *c)
{
    const kf_tensor *q = c->in[Q];
    int64_t heads = q->dim[1], size = q->dim[2], n_seqs = c->in[PAST]->n, most = 0;
    for (int64_t s = 0; s < n_seqs; s++) {
        int64_t keys = keys_in_call(c, s);
        most = keys > most ? keys : most;
        if (keys > 0 && !kf_eval_kv_at(c->in[KV]->kv, false, s, keys - 1))
            return kf_eval_fail(c->ctx, "attention: more keys than are in the cache");
    }
    attention t = attention_of(c, most);
    for (int64_t i = 0; i < q->dim[0] * heads; i++) {
        int64_t n = i / heads, s = (int64_t)c->in[SEQ]->data[n];
        if (s < 0 || s >= n_seqs)
            return kf_eval_fail(c->ctx, "attention: row %lld belongs to no sequence", (long long)n);
        row r = {.q = q->data + i * size,
                 .h = (double)(i % heads),
                 .pos = c->in[POS]->data[n],
                 .head = i % heads,
                 .seq = s,
                 .keys = keys_in_call(c, s)};
        if (!attend(&t, &r, c->out[0].data + i * size))
            return false;
    }
    return true;
}
