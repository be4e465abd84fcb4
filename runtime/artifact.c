/* SPDX-License-Identifier: Apache-2.0 */
/* artifact - opens a packed file and believes nothing in it before it has been checked.
 *
 * What is not checked here are the digests of the sections (a pass over all bytes): that is
 * `verify`.
 */
#define _GNU_SOURCE
#include "runtime/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static kf_status check_header(const kf_artifact *a, const char *name, const kf_logger *log)
{
    const kf_artifact_header *h = a->header;
    if (memcmp(h->magic, KF_ARTIFACT_MAGIC, sizeof h->magic) != 0)
        return kf_fail(log, KF_ERR_IO, "%s: not a packed weights file (wrong magic)", name);
    if (h->version != KF_ARTIFACT_VERSION)
        return kf_fail(log, KF_ERR_IO, "%s: format version %u; this executable reads version %u",
                       name, h->version, KF_ARTIFACT_VERSION);
    if (h->file_bytes != a->size_bytes)
        return kf_fail(log, KF_ERR_IO, "%s: %llu bytes long; its header says %llu", name,
                       (unsigned long long)a->size_bytes, (unsigned long long)h->file_bytes);
    if (h->n_sections > KF_ARTIFACT_MAX_SECTIONS ||
        sizeof *h + (uint64_t)h->n_sections * sizeof *a->sections > a->size_bytes)
        return kf_fail(log, KF_ERR_IO, "%s: %u sections do not fit", name, h->n_sections);
    if (h->model[sizeof h->model - 1] != '\0')
        return kf_fail(log, KF_ERR_IO, "%s: the model's name is not terminated", name);
    return KF_OK;
}

static kf_status take_section(kf_artifact *a, const kf_artifact_section *s, uint64_t *end,
                              const char *name, const kf_logger *log)
{
    if (s->name[sizeof s->name - 1] != '\0')
        return kf_fail(log, KF_ERR_IO, "%s: a section's name is not terminated", name);
    if (s->offset % KF_ARTIFACT_SECTION_ALIGN != 0 || s->offset < *end ||
        s->offset > a->size_bytes || s->size_bytes > a->size_bytes - s->offset)
        return kf_fail(log, KF_ERR_IO, "%s: section '%s' at %llu, %llu bytes: misplaced", name,
                       s->name, (unsigned long long)s->offset, (unsigned long long)s->size_bytes);
    *end = s->offset + s->size_bytes;
    kf_section_view *view = s->kind == KF_SECTION_WEIGHTS     ? &a->weights
                            : s->kind == KF_SECTION_TOKENIZER ? &a->tokenizer
                            : s->kind == KF_SECTION_PROBE     ? &a->probe
                                                              : NULL;
    if (!view)
        return kf_fail(log, KF_ERR_IO, "%s: section '%s' is of unknown kind %u", name, s->name,
                       s->kind);
    if (view->data)
        return kf_fail(log, KF_ERR_IO, "%s: section '%s': a second one of its kind", name, s->name);
    *view = (kf_section_view){a->base + s->offset, s->size_bytes, s->digest};
    return KF_OK;
}

static kf_status check_probe(const kf_artifact *a, const char *name, const kf_logger *log)
{
    if (!a->probe.data)
        return KF_OK;
    kf_probe_header p;
    if (a->probe.size_bytes < sizeof p)
        return kf_fail(log, KF_ERR_IO, "%s: the probe section is cut short", name);
    memcpy(&p, a->probe.data, sizeof p);
    if (((uint64_t)p.n_ids + p.n_logits) * 4 > a->probe.size_bytes - sizeof p)
        return kf_fail(log, KF_ERR_IO, "%s: the probe section is cut short", name);
    return KF_OK;
}

kf_status kf_artifact_parse(kf_artifact *a, const unsigned char *data, uint64_t size_bytes,
                            const char *name, const kf_logger *log)
{
    *a = (kf_artifact){.base = data, .size_bytes = size_bytes};
    if (size_bytes < sizeof *a->header)
        return kf_fail(log, KF_ERR_IO, "%s: %llu bytes are no packed weights file", name,
                       (unsigned long long)size_bytes);
    if ((uintptr_t)data % KF_ARTIFACT_WEIGHT_ALIGN != 0)
        return kf_fail(log, KF_ERR_IO, "%s: not aligned in memory", name);
    a->header = (const kf_artifact_header *)data;
    a->sections = (const kf_artifact_section *)(data + sizeof *a->header);
    KF_TRY(check_header(a, name, log));
    uint64_t end = sizeof *a->header + a->header->n_sections * sizeof *a->sections;
    for (uint32_t i = 0; i < a->header->n_sections; i++)
        KF_TRY(take_section(a, &a->sections[i], &end, name, log));
    uint64_t digest = kf_artifact_header_digest(a->header, a->sections);
    if (digest != a->header->header_digest)
        return kf_fail(log, KF_ERR_IO, "%s: the header is damaged (digest %016llx, stored %016llx)",
                       name, (unsigned long long)digest,
                       (unsigned long long)a->header->header_digest);
    if (!a->weights.data)
        return kf_fail(log, KF_ERR_IO, "%s: no weights section", name);
    return check_probe(a, name, log);
}

static kf_status map_file(kf_artifact *a, const char *path, const kf_logger *log)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return kf_fail(log, KF_ERR_IO, "cannot open the weights %s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= 0) {
        close(fd);
        return kf_fail(log, KF_ERR_IO, "%s: not a packed weights file", path);
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int error = errno;
    close(fd);
    if (p == MAP_FAILED)
        return kf_fail(log, error == ENOMEM ? KF_ERR_MEMORY : KF_ERR_IO, "cannot map %s: %s", path,
                       strerror(error));
    madvise(p, (size_t)st.st_size, MADV_WILLNEED);
    kf_status status = kf_artifact_parse(a, p, (uint64_t)st.st_size, path, log);
    a->is_mapped = true;
    if (status != KF_OK)
        kf_artifact_close(a);
    return status;
}

static kf_status check_identity(const kf_artifact *a, const kf_model *m, const char *name,
                                const kf_logger *log)
{
    if (a->header->header_digest != m->header_digest)
        return kf_fail(
            log, KF_ERR_IO,
            "%s holds weights %016llx of '%s'; this executable was compiled with weights "
            "%016llx of '%s'",
            name, (unsigned long long)a->header->header_digest, a->header->model,
            (unsigned long long)m->header_digest, m->name);
    if (a->weights.size_bytes != m->weights_bytes)
        return kf_fail(log, KF_ERR_IO, "%s: %llu bytes of weights; %llu are needed", name,
                       (unsigned long long)a->weights.size_bytes,
                       (unsigned long long)m->weights_bytes);
    return KF_OK;
}

kf_status kf_artifact_open(kf_artifact *a, const kf_model *m, const char *path,
                           const kf_logger *log)
{
    const char *name = path ? path : "the embedded packed file";
    if (m->header_digest == 0)
        return kf_fail(log, KF_ERR_UNSUPPORTED,
                       "'%s' was compiled without weights; only random weights can be used",
                       m->name);
    if (path)
        KF_TRY(map_file(a, path, log));
    else
        KF_TRY(kf_artifact_parse(a, m->embedded_start,
                                 (uint64_t)(m->embedded_end - m->embedded_start), name, log));
    kf_status status = check_identity(a, m, name, log);
    if (status != KF_OK)
        kf_artifact_close(a);
    return status;
}

void kf_artifact_close(kf_artifact *a)
{
    if (a->is_mapped)
        munmap((void *)(uintptr_t)a->base, a->size_bytes);
    *a = (kf_artifact){0};
}
