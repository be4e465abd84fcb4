/* SPDX-License-Identifier: Apache-2.0 */
/* weights_random - counter-based random numbers, streamed into one safetensors file. */
#include "frontend/weights_random.h"

#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/vec.h"
#include "frontend/safetensors.h"
#include "ir/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_ELEMS = 1 << 16 };

typedef struct random_tensor {
    kf_st_tensor t;
    uint64_t key; /* of seed and name */
    float mean, spread;
} random_tensor;

typedef struct random_source {
    kf_tensor_source source;
    kf_arena *arena;
    uint64_t seed;
    kf_dtype dtype;
    KF_VEC(random_tensor) tensors; /* sorted by name for the source, in model order for the file */
} random_source;

/** Steele et al. 2014, "Fast splittable pseudorandom number generators": the output function. */
static uint64_t splitmix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/** Nearly normal, mean 0, deviation 1: four 16-bit uniforms summed (variance 4/12), bounded by 3.5.
 */
static float normal_at(uint64_t key, uint64_t index)
{
    uint64_t r = splitmix64(key ^ splitmix64(index));
    int32_t sum = (int32_t)(r & 0xffff) + (int32_t)(r >> 16 & 0xffff) +
                  (int32_t)(r >> 32 & 0xffff) + (int32_t)(r >> 48);
    return (float)(sum - 131070) * (1.7320508f / 65536);
}

static void generate(const random_tensor *t, kf_dtype dtype, uint64_t first, uint64_t n, void *dst)
{
    for (uint64_t i = 0; i < n; i++) {
        float v = t->mean + t->spread * normal_at(t->key, first + i);
        kf_float_store(dtype, dst, i, v);
    }
}

static bool is_gain(kf_param_role role)
{
    return role == KF_PARAM_GAIN || role == KF_PARAM_Q_NORM || role == KF_PARAM_K_NORM ||
           role == KF_PARAM_VARIANCE;
}

/** Mean of a gain: such that the norm multiplies by numbers around 1. */
static float mean_of(const kf_spec_param *p, const kf_block *block)
{
    if (block->kind == KF_BLOCK_POLY_NORM && p->role == KF_PARAM_WEIGHT)
        return 1 / (float)block->u.poly_norm.order.v;
    bool is_norm = block->kind == KF_BLOCK_RMS_NORM || block->kind == KF_BLOCK_LAYER_NORM;
    if (!is_gain(p->role))
        return p->part == KF_PART_SCALE ? 1 : 0;
    return is_norm ? (float)(1 - block->u.norm.gain_offset.v) : 1;
}

static bool add_tensor(void *user, kf_str name, const kf_spec_param *p, const kf_block *block)
{
    random_source *s = user;
    int64_t *dim = KF_NEW_N(s->arena, int64_t, 2);
    kf_spec_tensor_shape(p, dim);
    random_tensor r = {.t = {.name = kf_str_dup(s->arena, name),
                             .has_dtype = true,
                             .dtype = s->dtype,
                             .rank = p->rank,
                             .dim = dim}};
    kf_hash h = kf_hash_bytes(name.ptr, name.len);
    r.key = splitmix64(s->seed ^ h.lo);
    r.mean = mean_of(p, block);
    r.spread = p->rank == 2       ? (float)(1 / sqrt((double)p->dim[1]))
               : is_gain(p->role) ? 0.1f
                                  : 0.02f;
    r.t.begin = 0;
    r.t.end = (uint64_t)dim[0] * (p->rank == 2 ? (uint64_t)dim[1] : 1);
    kf_vec_push(s->arena, &s->tensors, r);
    return true;
}

static random_source *new_source(kf_arena *arena, const kf_spec *spec, uint64_t seed,
                                 kf_dtype dtype)
{
    random_source *s = KF_NEW(arena, random_source);
    s->arena = arena;
    s->seed = seed;
    s->dtype = dtype;
    kf_spec_each_param(arena, spec, add_tensor, s);
    return s;
}

/* ---- as a tensor source ---------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return kf_str_cmp(((const random_tensor *)a)->t.name, ((const random_tensor *)b)->t.name);
}

static bool source_find(const kf_tensor_source *self, kf_str name, kf_tensor_info *out_info)
{
    const random_source *s = self->user;
    random_tensor key = {.t = {.name = name}};
    const random_tensor *r =
        bsearch(&key, s->tensors.data, s->tensors.len, sizeof *s->tensors.data, compare_names);
    if (r == NULL)
        return false;
    *out_info = (kf_tensor_info){.name = r->t.name,
                                 .dtype = s->dtype,
                                 .rank = r->t.rank,
                                 .file = (uint32_t)(r - s->tensors.data),
                                 .size_bytes = r->t.end * kf_dtype_infos[s->dtype].bytes};
    memcpy(out_info->dim, r->t.dim, r->t.rank * sizeof *r->t.dim);
    return true;
}

static int source_read(const kf_tensor_source *self, const kf_tensor_info *info, uint64_t first,
                       uint64_t n, void *dst)
{
    const random_source *s = self->user;
    generate(&s->tensors.data[info->file], s->dtype, first, n, dst);
    return 0;
}

const kf_tensor_source *kf_weights_random_source(kf_arena *arena, const kf_spec *spec,
                                                 uint64_t seed, kf_dtype dtype)
{
    random_source *s = new_source(arena, spec, seed, dtype);
    qsort(s->tensors.data, s->tensors.len, sizeof *s->tensors.data, compare_names);
    s->source = (kf_tensor_source){.find = source_find, .read = source_read, .user = s};
    return &s->source;
}

/* ---- as files -------------------------------------------------------------------------------- */

static int write_tensors(kf_arena *arena, const random_source *s, kf_outfile *f)
{
    kf_st_tensor *order = KF_NEW_N(arena, kf_st_tensor, s->tensors.len);
    for (uint32_t i = 0; i < s->tensors.len; i++)
        order[i] = s->tensors.data[i].t;
    kf_str header = kf_st_write_header(arena, order, s->tensors.len);
    int err = kf_outfile_write(f, header.ptr, header.len);
    uint32_t elem = kf_dtype_infos[s->dtype].bytes;
    void *chunk = kf_arena_alloc(arena, (size_t)CHUNK_ELEMS * elem, 64);
    for (uint32_t i = 0; i < s->tensors.len && err == 0; i++) {
        uint64_t n = s->tensors.data[i].t.end;
        for (uint64_t at = 0; at < n && err == 0; at += CHUNK_ELEMS) {
            uint64_t now = n - at < CHUNK_ELEMS ? n - at : CHUNK_ELEMS;
            generate(&s->tensors.data[i], s->dtype, at, now, chunk);
            err = kf_outfile_write(f, chunk, now * elem);
        }
    }
    return err;
}

/* Seeded files can be made again: none of them is synced. */
static int write_weights(kf_arena *arena, const random_source *s, const char *path)
{
    kf_outfile f = {0};
    int err = kf_outfile_open(&f, path, 0644);
    if (err == 0)
        err = write_tensors(arena, s, &f);
    if (err == 0)
        err = kf_outfile_commit_scratch(&f);
    kf_outfile_abandon(&f);
    return err;
}

static kf_str generation_json(kf_arena *arena, const kf_spec_generation *g)
{
    kf_sbuf out = {.arena = arena};
    kf_json j = {.out = &out};
    kf_json_open(&j, '{');
    if (kf_src_given(g->bos_token_id.src))
        kf_json_kint(&j, "bos_token_id", g->bos_token_id.v);
    if (kf_src_given(g->eos_token_id.src)) {
        kf_json_key(&j, "eos_token_id");
        kf_json_open(&j, '[');
        for (uint32_t i = 0; i < g->eos_token_id.n; i++)
            kf_json_int(&j, g->eos_token_id.v[i]);
        kf_json_close(&j, ']');
    }
    if (kf_src_given(g->do_sample.src))
        kf_json_kbool(&j, "do_sample", g->do_sample.v);
    if (kf_src_given(g->temperature.src))
        kf_json_kdouble(&j, "temperature", g->temperature.v);
    if (kf_src_given(g->top_p.src))
        kf_json_kdouble(&j, "top_p", g->top_p.v);
    if (kf_src_given(g->top_k.src))
        kf_json_kint(&j, "top_k", g->top_k.v);
    kf_json_close(&j, '}');
    kf_sbuf_char(&out, '\n');
    return kf_sbuf_view(&out);
}

static int write_description(kf_arena *arena, const kf_spec *spec, kf_str dir, kf_dtype dtype)
{
    kf_sbuf text = {.arena = arena};
    if (!kf_hf_export_config(spec, dtype, &text)) {
        kf_spec copy = *spec;
        copy.weights = (kf_sv_str){KF_STR("."), {KF_NO_LOC, KF_ORIGIN_SPEC}};
        kf_spec_print(&copy, false, &text);
        return kf_fs_write_scratch(kf_fs_join(arena, dir, KF_STR("model.yaml")).ptr,
                                   kf_sbuf_view(&text));
    }
    int err =
        kf_fs_write_scratch(kf_fs_join(arena, dir, KF_STR("config.json")).ptr, kf_sbuf_view(&text));
    if (err != 0)
        return err;
    kf_str generation = generation_json(arena, &spec->generation);
    return kf_fs_write_scratch(kf_fs_join(arena, dir, KF_STR("generation_config.json")).ptr,
                               generation);
}

bool kf_weights_random_write(kf_arena *arena, kf_diags *diags, const kf_spec *spec, const char *dir,
                             uint64_t seed, kf_dtype dtype)
{
    kf_str path = kf_str_dup(arena, kf_str_from(dir));
    int err = kf_fs_make_dirs(dir);
    if (err == 0)
        err = write_weights(arena, new_source(arena, spec, seed, dtype),
                            kf_fs_join(arena, path, KF_STR("model.safetensors")).ptr);
    if (err == 0)
        err = write_description(arena, spec, path, dtype);
    if (err == 0)
        return true;
    uint32_t file = kf_diags_add_file(diags, path, KF_STR(""));
    kf_diag_add(diags, KF_E0603, (kf_loc){file, 0, 0, 0}, "cannot write the weights: %s",
                strerror(err));
    return false;
}
