/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_kfw - a packed file of the input's bytes: it is refused, or every byte of every section can
 * be read. Header and table are sealed with the right digest, which chance would not find. */
#include "runtime/internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t read_section(const kf_section_view *s)
{
    return s->data ? kf_digest_bytes(s->data, s->size_bytes) : 0;
}

static void seal(uint8_t *file, size_t size)
{
    kf_artifact_header *h = (kf_artifact_header *)(void *)file;
    memcpy(h->magic, KF_ARTIFACT_MAGIC, sizeof h->magic);
    h->version = KF_ARTIFACT_VERSION;
    h->file_bytes = size;
    h->n_sections %= 4;
    if (sizeof *h + h->n_sections * sizeof(kf_artifact_section) <= size)
        h->header_digest = kf_artifact_header_digest(
            h, (const kf_artifact_section *)(const void *)(file + sizeof *h));
}

/* The input's first byte gives the file's length in pages; the rest of the file is zero. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 + sizeof(kf_artifact_header))
        return 0;
    size_t file_size = 4096 * (size_t)(data[0] % 8) + size - 1;
    uint8_t *file = aligned_alloc(4096, (file_size + 4095) / 4096 * 4096);
    if (!file)
        return 0;
    memset(file, 0, file_size);
    memcpy(file, data + 1, size - 1);
    seal(file, file_size);
    kf_artifact a;
    if (kf_artifact_parse(&a, file, file_size, "input", NULL) == KF_OK) {
        volatile uint64_t sink =
            read_section(&a.weights) ^ read_section(&a.tokenizer) ^ read_section(&a.probe);
        (void)sink;
    }
    free(file);
    return 0;
}
