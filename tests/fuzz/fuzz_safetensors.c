/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_safetensors - the header of a safetensors file whose data are |first two bytes| * 8 bytes
 * long. */
#include "frontend/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint64_t data_bytes = (uint64_t)(data[0] | data[1] << 8) * 8;
    size_t header_bytes = size - 2;
    kf_arena *arena = kf_arena_create("fuzz");
    kf_diags *diags = kf_diags_create(arena);
    char *head = kf_arena_alloc(arena, 8 + header_bytes + 1, 8);
    for (int i = 0; i < 8; i++)
        head[i] = (char)((uint64_t)header_bytes >> (8 * i));
    memcpy(head + 8, data + 2, header_bytes);
    uint32_t file = kf_diags_add_file(diags, KF_STR("fuzz"), KF_STR(""));
    kf_st_header header = {0};
    uint64_t file_size = 8 + header_bytes + data_bytes;
    bool ok = kf_st_parse(arena, diags, file, (kf_str){head, (uint32_t)(8 + header_bytes)},
                          file_size, &header);
    if (ok == (kf_diags_errors(diags) > 0))
        abort();
    /* Accepted tensors tile the data. */
    uint64_t at = header.data_begin;
    for (uint32_t i = 0; ok && i < header.n_tensors; i++) {
        if (header.tensor[i].begin != at || header.tensor[i].end < at)
            abort();
        at = header.tensor[i].end;
    }
    if (ok && at != file_size)
        abort();
    kf_arena_destroy(arena);
    return 0;
}
