/* SPDX-License-Identifier: Apache-2.0 */
/* model_check - checks the constant description of a model once, so that no step has to. */
#include "runtime/internal.h"

#include <string.h>

static kf_status bad(const kf_logger *log, const char *what, const char *name)
{
    return kf_fail(log, KF_ERR_UNSUPPORTED, "the model's description is broken: %s (%s)", what,
                   name ? name : "?");
}

static kf_status check_weights(const kf_model *m, const kf_logger *log)
{
    if (m->weights_bytes < KF_ARTIFACT_WEIGHT_TAIL)
        return bad(log, "weights section without tail", m->name);
    uint64_t usable = m->weights_bytes - KF_ARTIFACT_WEIGHT_TAIL;
    for (uint32_t i = 0; i < m->n_weights; i++) {
        const kf_weight *w = &m->weights[i];
        if (w->layers == 0 || w->elem > KF_ELEM_I32)
            return bad(log, "weight without layers or of unknown type", w->name);
        for (uint32_t k = 0; k < w->layers; k++) {
            if (w->offset[k] % KF_ARTIFACT_WEIGHT_ALIGN != 0 || w->offset[k] > usable ||
                w->size_bytes > usable - w->offset[k])
                return bad(log, "weight outside its section", w->name);
        }
    }
    for (uint32_t i = 0; i < m->n_kv; i++) {
        const kf_kv_state *kv = &m->kv[i];
        if (kv->layers == 0 || kv->page_bytes == 0 || kv->page_tokens == 0 ||
            kv->page_tokens != m->kv[0].page_tokens)
            return bad(log, "state with odd pages", kv->name);
    }
    return KF_OK;
}

static kf_status check_operand(const kf_model *m, const kf_operand *o, const char *launch,
                               const kf_logger *log)
{
    bool ok = false;
    switch (o->space) {
    case KF_SPACE_BUFFER:
        ok = o->offset < m->pool_bytes;
        break;
    case KF_SPACE_WEIGHT:
        ok = o->index < m->n_weights && o->offset <= m->weights[o->index].size_bytes;
        break;
    case KF_SPACE_STATE:
        ok = o->index < m->n_kv;
        break;
    case KF_SPACE_INPUT:
        ok = o->index < KF_INPUT_COUNT;
        break;
    case KF_SPACE_COUNTER:
        ok = o->offset % 4 == 0 && o->offset < m->counter_bytes;
        break;
    }
    return ok ? KF_OK : bad(log, "operand out of range", launch);
}

static kf_status check_launch(const kf_model *m, uint32_t id, const int64_t *bounds,
                              const kf_logger *log)
{
    const kf_launch *l = m->launches[id];
    if (!l->kernel || l->id != id || l->n_operands > KF_MAX_OPERANDS ||
        l->tiles.n_terms > KF_MAX_TILE_TERMS)
        return bad(log, "launch with wrong id, operands or tile terms", l->name);
    for (uint32_t i = 0; i < l->tiles.n_terms; i++) {
        if (l->tiles.term[i].dim >= KF_DIM_COUNT || l->tiles.term[i].div == 0)
            return bad(log, "tile count of an unknown dim", l->name);
    }
    if (kf_tile_count_eval(&l->tiles, bounds) > KF_MAX_TILES)
        return bad(log, "too many tiles", l->name);
    for (uint32_t i = 0; i < l->n_operands; i++)
        KF_TRY(check_operand(m, &l->operands[i], l->name, log));
    return KF_OK;
}

static kf_status check_logits(const kf_model *m, const kf_phase *p, const kf_logger *log)
{
    uint64_t most = m->is_pooled ? m->max_sequences : m->max_rows;
    uint64_t rows = p->rows_hi < most ? p->rows_hi : most;
    uint64_t bytes = rows * m->logits_stride * sizeof(float);
    if (m->row_width == 0 || m->logits_stride < m->row_width ||
        p->logits_offset % sizeof(float) != 0 || p->logits_offset > m->pool_bytes ||
        bytes > m->pool_bytes - p->logits_offset)
        return bad(log, "logits outside the pool", p->name);
    return KF_OK;
}

/* Decoders choose; what an encoder gives is not chosen from. */
static kf_status check_next(const kf_model *m, const kf_phase *p, const kf_logger *log)
{
    uint64_t rows = p->rows_hi < m->max_rows ? p->rows_hi : m->max_rows;
    if ((p->kind == KF_PHASE_ENCODE) != (p->next_offset == KF_NO_NEXT))
        return bad(log, "the next tokens of a decoder missing, or given by an encoder", p->name);
    if (p->kind != KF_PHASE_ENCODE &&
        (p->next_offset % sizeof(int32_t) != 0 || p->next_offset > m->pool_bytes ||
         rows * sizeof(int32_t) > m->pool_bytes - p->next_offset))
        return bad(log, "next tokens outside the pool", p->name);
    return KF_OK;
}

static kf_status check_phases(const kf_model *m, const kf_logger *log)
{
    uint32_t covered[KF_PHASE_ENCODE + 1] = {0}; /* buckets of the kind hold 1..covered */
    for (uint32_t i = 0; i < m->n_phases; i++) {
        const kf_phase *p = &m->phases[i];
        if (!p->fn || p->rows_lo == 0 || p->rows_lo > p->rows_hi || p->kind > KF_PHASE_ENCODE)
            return bad(log, "phase with an empty bucket", p->name);
        /* The rows of an encoder beside a decoder are not shown. */
        if (p->kind != KF_PHASE_ENCODE || m->kind == KF_KIND_ENCODER)
            KF_TRY(check_logits(m, p, log));
        KF_TRY(check_next(m, p, log));
        if (p->rows_lo <= covered[p->kind] + 1 && p->rows_hi > covered[p->kind])
            covered[p->kind] = p->rows_hi;
    }
    bool encodes = m->kind == KF_KIND_DECODER || covered[KF_PHASE_ENCODE] >= m->max_tokens;
    bool decodes = m->kind == KF_KIND_ENCODER || covered[KF_PHASE_PREFILL] >= m->max_tokens;
    return encodes && decodes ? KF_OK : bad(log, "no phase for some number of tokens", m->name);
}

kf_status kf_model_check(const kf_model *m, const kf_logger *log)
{
    if (m->abi != KF_ABI_VERSION)
        return kf_fail(log, KF_ERR_UNSUPPORTED, "compiled for runtime ABI %u; this one is %u",
                       m->abi, KF_ABI_VERSION);
    if (m->max_sequences == 0 || m->max_tokens < m->max_sequences || m->max_positions == 0 ||
        m->max_rows == 0 || m->vocab_size == 0 || m->kind > KF_KIND_ENCODER_DECODER ||
        m->start_id < 0 || (uint32_t)m->start_id >= m->vocab_size ||
        (m->is_pooled && m->kind != KF_KIND_ENCODER) || m->max_positions > INT32_MAX ||
        m->max_tokens > INT32_MAX || m->vocab_size > INT32_MAX)
        return bad(log, "bounds", m->name);
    KF_TRY(check_weights(m, log));
    int64_t keys = (int64_t)m->max_sequences * m->max_positions;
    int64_t bounds[KF_DIM_COUNT] = {[KF_DIM_SEQUENCES] = m->max_sequences,
                                    [KF_DIM_TOKENS] = m->max_tokens,
                                    [KF_DIM_ROWS] = m->max_rows,
                                    [KF_DIM_KEYS] = keys,
                                    [KF_DIM_MEMORY] = keys,
                                    [KF_DIM_PAIRS] = (int64_t)m->max_tokens * m->max_positions};
    for (uint32_t i = 0; i < m->n_launches; i++)
        KF_TRY(check_launch(m, i, bounds, log));
    return check_phases(m, log);
}

uint64_t kf_model_read_bytes(const kf_model *m)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->n_weights; i++)
        sum += m->weights[i].read_bytes * m->weights[i].layers;
    return sum;
}
