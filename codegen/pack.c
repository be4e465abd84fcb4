/* SPDX-License-Identifier: Apache-2.0 */
/* pack - see pack.h. Where weights stand; the file is written by pack_file.c. */
#include "codegen/pack.h"

#include "runtime/kf_artifact.h"

static uint64_t align_up(uint64_t v, uint64_t a)
{
    return (v + a - 1) / a * a;
}

kf_pack_layout kf_pack_plan(kf_arena *arena, const kf_plan *p)
{
    kf_pack_layout l = {.offset = KF_NEW_N(arena, uint64_t *, p->weights.len)};
    uint32_t layers = 1;
    uint64_t at = 0;

    for (uint32_t w = 0; w < p->weights.len; w++) {
        l.offset[w] = KF_NEW_N(arena, uint64_t, p->weights.data[w].layers);
        if (p->weights.data[w].layers > layers)
            layers = p->weights.data[w].layers;
    }
    for (uint32_t layer = 0; layer < layers; layer++) {
        for (uint32_t w = 0; w < p->weights.len; w++) {
            if (layer >= p->weights.data[w].layers)
                continue;
            l.offset[w][layer] = at;
            at = align_up(at + (uint64_t)p->weights.data[w].size_bytes, KF_ARTIFACT_WEIGHT_ALIGN);
        }
    }
    l.section_bytes = at + KF_ARTIFACT_WEIGHT_TAIL;
    return l;
}
