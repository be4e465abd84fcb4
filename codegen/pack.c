/* SPDX-License-Identifier: Apache-2.0 */
/* pack - see pack.h. Recipes and layouts; the file around them is pack_file.c. */
#include "codegen/pack.h"

#include "base/check.h"
#include "ir/convert.h"
#include "runtime/kf_artifact.h"

#include <errno.h>
#include <string.h>

/* ---- recipes --------------------------------------------------------------------------------- */

struct kf_recipe_reader {
    const kf_tensor_source *src;
    const kf_recipe *r;
    uint64_t rows, width; /* a vector is |rows| rows of 1 */
    kf_tensor_info info;  /* LOAD */
    void *raw;            /* LOAD: a row as stored in the checkpoint */
    kf_recipe_reader *part[8];
    double *scale; /* SCALE */
};

static void shape_of(const kf_type *t, uint64_t *rows, uint64_t *width)
{
    *rows = (uint64_t)t->dim[0].size;
    *width = t->rank > 1 ? (uint64_t)(kf_type_static_elems(t) / t->dim[0].size) : 1;
}

static bool open_scale(kf_arena *arena, kf_recipe_reader *rd, kf_str *out_name)
{
    kf_recipe_reader *v = rd->part[1];
    float *one = KF_NEW_N(arena, float, 1);

    rd->scale = KF_NEW_N(arena, double, v->rows);
    for (uint64_t i = 0; i < v->rows; i++) {
        if (kf_recipe_read_row(v, i, one, out_name))
            return false;
        rd->scale[i] = kf_float_load(v->r->type.dtype, one, 0);
    }
    return true;
}

kf_recipe_reader *kf_recipe_reader_open(kf_arena *arena, const kf_tensor_source *src,
                                        const kf_recipe *r, kf_str prefix, uint32_t layer,
                                        kf_str *out_name)
{
    kf_recipe_reader *rd = KF_NEW(arena, kf_recipe_reader);

    rd->src = src;
    rd->r = r;
    shape_of(&r->type, &rd->rows, &rd->width);
    if (r->op == KF_RECIPE_LOAD) {
        kf_str name = kf_plan_tensor_name(arena, prefix, layer, r->tensor);
        *out_name = name;
        if (!src->find(src, name, &rd->info))
            return NULL;
        rd->raw = kf_arena_alloc(arena, rd->width * kf_dtype_infos[rd->info.dtype].bytes, 8);
        return rd;
    }
    KF_ASSERT(r->n_parts <= 8, "a recipe has at most 8 parts");
    for (uint32_t i = 0; i < r->n_parts; i++) {
        rd->part[i] = kf_recipe_reader_open(arena, src, r->part[i], prefix, layer, out_name);
        if (!rd->part[i])
            return NULL;
    }
    if (r->op == KF_RECIPE_SCALE && !open_scale(arena, rd, out_name))
        return NULL;
    return rd;
}

static int read_load(kf_recipe_reader *rd, uint64_t row, void *out, kf_str *out_name)
{
    int err = rd->src->read(rd->src, &rd->info, row * rd->width, rd->width, rd->raw);

    if (err) {
        *out_name = rd->info.name;
        return err;
    }
    kf_convert(rd->info.dtype, rd->raw, rd->r->type.dtype, out, rd->width);
    return 0;
}

/* Row |row| of the joined matrix: group by group, each part gives its share. */
static int read_concat(kf_recipe_reader *rd, uint64_t row, void *out, kf_str *out_name)
{
    uint64_t group_rows = rd->rows / rd->r->groups, group = row / group_rows, at = row % group_rows;

    for (uint32_t i = 0; i < rd->r->n_parts; i++) {
        uint64_t share = rd->part[i]->rows / rd->r->groups;
        if (at < share)
            return kf_recipe_read_row(rd->part[i], group * share + at, out, out_name);
        at -= share;
    }
    KF_ASSERT(false, "the parts of a concat add up to its rows");
    return EINVAL;
}

static int read_scale(kf_recipe_reader *rd, uint64_t row, void *out, kf_str *out_name)
{
    int err = kf_recipe_read_row(rd->part[0], row, out, out_name);
    kf_dtype t = rd->r->type.dtype;

    for (uint64_t i = 0; !err && i < rd->width; i++)
        kf_float_store(t, out, i, (float)(kf_float_load(t, out, i) * rd->scale[i]));
    return err;
}

int kf_recipe_read_row(kf_recipe_reader *rd, uint64_t row, void *out, kf_str *out_name)
{
    switch (rd->r->op) {
    case KF_RECIPE_LOAD:
        return read_load(rd, row, out, out_name);
    case KF_RECIPE_CONCAT:
        return read_concat(rd, row, out, out_name);
    case KF_RECIPE_SCALE:
        return read_scale(rd, row, out, out_name);
    }
    return EINVAL;
}

/* ---- the weights section --------------------------------------------------------------------- */

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
