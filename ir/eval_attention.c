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
        int64_t keys = (int64_t)past->data[s] + new_tokens(seq_start, s, n_tokens);
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
        int64_t keys = (int64_t)past->data[s] + new_tokens(seq_start, s, n_tokens);
        for (int64_t p = 0; p < keys && row < c->out[0].n; p++)
            c->out[0].data[row++] = (double)(pos ? p : s);
    }
    return true;
}

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct attention {
    kf_eval_call *c;
    const kf_eval_kv *kv;
    kf_eval_slot *score, *mask;
    double *position; /* 0, 1, 2, ... */
    double *s, *visible;
} attention;

/* Scores of one row and head against |keys| keys; false if a slot loads out of range. */
static bool score_keys(attention *t, const double *q, int64_t head, double pos, int64_t seq,
                       int64_t keys)
{
    const kf_attr_attention *a = ATTR(t->c, attention);
    int64_t size = t->kv->type.kv_head_dim;
    int64_t group = head / (t->c->in[0]->dim[1] / t->kv->type.kv_heads);
    double h = (double)head;
    if (t->mask) {
        kf_eval_vec p[] = {{&h, 0}, {&pos, 0}, {t->position, 1}};
        if (!kf_eval_slot_run(t->mask, p, keys, t->visible))
            return false;
    }
    for (int64_t k = 0; k < keys; k++) {
        t->s[k] = 0;
        if (t->mask && t->visible[k] == 0)
            continue;
        const double *key = kf_eval_kv_at(t->kv, false, seq, k);
        double sum = 0;
        for (int64_t i = 0; key && i < size; i++)
            sum += q[i] * key[group * size + i];
        t->s[k] = a->scale * sum;
    }
    kf_eval_vec p[] = {{t->s, 1}, {&h, 0}, {&pos, 0}, {t->position, 1}};
    return !t->score || kf_eval_slot_run(t->score, p, keys, t->s);
}

static void weigh_values(attention *t, int64_t head, int64_t seq, int64_t keys, double *out)
{
    int64_t size = t->kv->type.kv_head_dim;
    int64_t group = head / (t->c->in[0]->dim[1] / t->kv->type.kv_heads);
    double top = kf_acc_infos[KF_ACC_max].init, sum = 0;
    for (int64_t k = 0; k < keys; k++) {
        if (!t->mask || t->visible[k] != 0)
            top = kf_acc_step(KF_ACC_max, top, t->s[k], 0, 0);
    }
    for (int64_t k = 0; k < keys; k++) {
        if (t->mask && t->visible[k] == 0)
            continue;
        double weight = kf_acc_step(KF_ACC_sum_exp, 0, t->s[k], top, 0);
        const double *value = kf_eval_kv_at(t->kv, true, seq, k);
        sum += weight;
        for (int64_t i = 0; value && i < size; i++)
            out[i] += weight * value[group * size + i];
    }
    for (int64_t i = 0; i < size; i++)
        out[i] = sum == 0 ? 0 : out[i] / sum; /* a row that sees nothing gives 0 */
}

bool kf_eval_attention(kf_eval_call *c)
{
    const kf_attr_attention *a = ATTR(c, attention);
    const kf_tensor *q = c->in[0], *pos = c->in[2], *seq = c->in[3], *past = c->in[5];
    int64_t heads = q->dim[1], size = q->dim[2], most = 0;
    for (int64_t s = 0; s < past->n; s++) {
        int64_t keys = (int64_t)past->data[s] + new_tokens(c->in[4], s, q->dim[0]);
        most = keys > most ? keys : most;
        if (keys > 0 && !kf_eval_kv_at(c->in[1]->kv, false, s, keys - 1))
            return kf_eval_fail(c->ctx, "attention: more keys than are in the cache");
    }
    attention t = {.c = c,
                   .kv = c->in[1]->kv,
                   .position = KF_NEW_N(c->ctx->arena, double, most + 1),
                   .s = KF_NEW_N(c->ctx->arena, double, most + 1),
                   .visible = KF_NEW_N(c->ctx->arena, double, most + 1)};
    for (int64_t k = 0; k < most; k++)
        t.position[k] = (double)k;
    if (a->score)
        t.score =
            kf_eval_slot_create(c->ctx->arena, a->score, c->in + c->n_in - a->score->captures);
    if (a->mask)
        t.mask = kf_eval_slot_create(c->ctx->arena, a->mask, c->in + c->n_in - a->mask->captures);
    for (int64_t n = 0; n < q->dim[0]; n++) {
        int64_t s = (int64_t)seq->data[n];
        if (s < 0 || s >= past->n)
            return kf_eval_fail(c->ctx, "attention: row %lld belongs to no sequence", (long long)n);
        int64_t keys = (int64_t)past->data[s] + new_tokens(c->in[4], s, q->dim[0]);
        for (int64_t h = 0; h < heads; h++) {
            if (!score_keys(&t, q->data + (n * heads + h) * size, h, pos->data[n], s, keys))
                return kf_eval_fail(c->ctx, "attention: a slot loads outside its operand");
            weigh_values(&t, h, s, keys, c->out[0].data + (n * heads + h) * size);
        }
    }
    return true;
}
