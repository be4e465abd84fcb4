/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_info - what the executable is, and whether its weights are what was compiled. */
#include "runtime/cli.h"

#include <math.h>
#include <string.h>

/* The probe runs the kernels that made it, on another processor of the same target at most. */
#define PROBE_MAX_NMSE 1e-9

static void print_info_json(const kf_cli *c)
{
    const kf_model *m = c->model;
    uint64_t embedded = m->embedded_start ? (uint64_t)(m->embedded_end - m->embedded_start) : 0;
    uint64_t page = 0;
    for (uint32_t i = 0; i < m->n_kv; i++)
        page += m->kv[i].layers * m->kv[i].page_bytes;
    printf("{\n  \"schema\": \"kerf.info.1\",\n  \"name\": ");
    kf_cli_json_string(stdout, m->name, strlen(m->name));
    printf(",\n  \"target\": ");
    kf_cli_json_string(stdout, m->target, strlen(m->target));
    printf(",\n  \"compiler_version\": ");
    kf_cli_json_string(stdout, m->compiler_version, strlen(m->compiler_version));
    if (m->header_digest)
        printf(",\n  \"weights_digest\": \"%016llx\"", (unsigned long long)m->header_digest);
    else
        printf(",\n  \"weights_digest\": null");
    printf(",\n  \"bounds\": {\"max_sequences\": %u, \"max_tokens\": %u, \"max_rows\": %u, "
           "\"max_positions\": %u, \"vocab_size\": %u}",
           m->max_sequences, m->max_tokens, m->max_rows, m->max_positions, m->vocab_size);
    printf(",\n  \"sizes\": {\"weights_bytes\": %llu, \"weight_bytes_per_token\": %llu, "
           "\"embedded_bytes\": %llu, \"pool_bytes\": %llu, \"scratch_bytes\": %llu, "
           "\"kv_page_bytes\": %llu, \"kv_page_tokens\": %u}",
           (unsigned long long)m->weights_bytes, (unsigned long long)kf_model_read_bytes(m),
           (unsigned long long)embedded, (unsigned long long)m->pool_bytes,
           (unsigned long long)m->scratch_bytes, (unsigned long long)page,
           m->n_kv ? m->kv[0].page_tokens : 0);
    printf(",\n  \"phases\": [");
    for (uint32_t i = 0; i < m->n_phases; i++)
        printf("%s{\"name\": \"%s\", \"rows\": [%u, %u], \"launches\": %u}", i ? ", " : "",
               m->phases[i].name, m->phases[i].rows_lo, m->phases[i].rows_hi,
               m->phases[i].n_launches);
    printf("],\n  \"manifest\": %s\n}\n", m->manifest ? m->manifest : "null");
}

static void print_info_text(const kf_model *m)
{
    printf("model        %s\ncompiled by  kerf %s for %s\n", m->name, m->compiler_version,
           m->target);
    if (m->header_digest)
        printf("weights      %016llx, %.1f MiB%s\n", (unsigned long long)m->header_digest,
               (double)m->weights_bytes / 1048576, m->embedded_start ? ", embedded" : "");
    else
        printf("weights      none (only --random-weights)\n");
    printf("bounds       %u sequences, %u tokens and %u logit rows a call, %u positions\n",
           m->max_sequences, m->max_tokens, m->max_rows, m->max_positions);
    printf("vocabulary   %u\nbuffers      %.1f MiB\n", m->vocab_size,
           (double)m->pool_bytes / 1048576);
    for (uint32_t i = 0; i < m->n_phases; i++)
        printf("phase        %s: %u to %u tokens, %u launches\n", m->phases[i].name,
               m->phases[i].rows_lo, m->phases[i].rows_hi, m->phases[i].n_launches);
}

kf_status kf_cli_info(kf_cli *c)
{
    if (c->opt.json)
        print_info_json(c);
    else
        print_info_text(c->model);
    return KF_OK;
}

/* ---- verify ---------------------------------------------------------------------------------- */

static kf_status check_sections(const kf_cli *c)
{
    const kf_artifact *a = &c->engine->artifact;
    for (uint32_t i = 0; i < a->header->n_sections; i++) {
        const kf_artifact_section *s = &a->sections[i];
        uint64_t stored = s->digest, digest;
        if (s->kind == KF_SECTION_PROBE) {
            if (s->size_bytes < sizeof(kf_probe_header))
                continue;
            memcpy(&stored, a->probe.data, sizeof stored);
            digest = kf_digest_bytes(a->probe.data + 8, a->probe.size_bytes - 8);
        } else {
            digest = kf_digest_bytes(a->base + s->offset, s->size_bytes);
        }
        if (digest != stored)
            return kf_fail(&c->log, KF_ERR_VERIFY,
                           "section '%s' is damaged: digest %016llx, stored "
                           "%016llx",
                           s->name, (unsigned long long)digest, (unsigned long long)stored);
        kf_log(&c->log, KF_LOG_INFO, "section '%s': %llu bytes, digest %016llx", s->name,
               (unsigned long long)s->size_bytes, (unsigned long long)digest);
    }
    return KF_OK;
}

/* Leaves the last row in row 0. */
static kf_status run_probe(const kf_cli *c, const int32_t *ids, uint32_t n)
{
    kf_append text = {0, n, ids, 0, NULL};
    if (c->model->kind != KF_KIND_ENCODER_DECODER)
        return kf_session_prefill(c->session, 0, ids, n, 0);
    KF_TRY(kf_session_encode(c->session, &text, 1));
    return kf_session_prefill(c->session, 0, &c->model->start_id, 1, 0);
}

static kf_status check_probe(const kf_cli *c, double *out_nmse)
{
    const unsigned char *data = c->engine->artifact.probe.data;
    kf_probe_header p = {0};
    *out_nmse = -1;
    if (data)
        memcpy(&p, data, sizeof p);
    if (p.n_ids == 0)
        return KF_OK;
    if (p.n_logits != c->model->row_width || p.n_ids > c->engine->context)
        return kf_fail(&c->log, KF_ERR_VERIFY, "the probe has %u ids and %u logits", p.n_ids,
                       p.n_logits);
    const int32_t *ids = (const int32_t *)(const void *)(data + sizeof p);
    const float *stored = (const float *)(const void *)(ids + p.n_ids);
    KF_TRY(run_probe(c, ids, p.n_ids));
    const float *now = kf_session_logits(c->session, 0);
    double error = 0, norm = 0;
    for (uint32_t i = 0; i < p.n_logits; i++) {
        error += ((double)now[i] - stored[i]) * ((double)now[i] - stored[i]);
        norm += (double)stored[i] * stored[i];
    }
    *out_nmse = norm > 0 ? error / norm : error;
    int32_t next = kf_session_next(c->session, 0);
    for (uint32_t i = 0; next >= 0 && i < p.n_logits; i++)
        if (now[i] > now[next])
            return kf_fail(&c->log, KF_ERR_VERIFY,
                           "token %d was chosen, but the logit of %u is larger", next, i);
    if (!(*out_nmse <= PROBE_MAX_NMSE))
        return kf_fail(&c->log, KF_ERR_VERIFY,
                       "logits differ from the stored ones: NMSE %.3g > %.0e", *out_nmse,
                       PROBE_MAX_NMSE);
    kf_log(&c->log, KF_LOG_INFO, "probe of %u tokens: NMSE %.3g", p.n_ids, *out_nmse);
    return KF_OK;
}

kf_status kf_cli_verify(kf_cli *c)
{
    if (c->opt.has_random)
        return kf_fail(&c->log, KF_ERR_USAGE,
                       "verify: random weights have nothing to compare with");
    KF_TRY(kf_cli_open(c));
    double nmse = -1;
    kf_status status = check_sections(c);
    if (status == KF_OK)
        status = check_probe(c, &nmse);
    char probe[40] = "null";
    if (nmse >= 0)
        snprintf(probe, sizeof probe, "%.6g", nmse);
    if (c->opt.json)
        printf(
            "{\"schema\": \"kerf.verify.1\", \"ok\": %s, \"sections\": %u, \"probe_nmse\": %s}\n",
            status == KF_OK ? "true" : "false", c->engine->artifact.header->n_sections, probe);
    else if (status == KF_OK)
        printf("ok: %u sections%s\n", c->engine->artifact.header->n_sections,
               nmse >= 0 ? " and the probe logits" : "; no probe is stored");
    return status;
}
