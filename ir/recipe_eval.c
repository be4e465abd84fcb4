/* SPDX-License-Identifier: Apache-2.0 */
/* recipe_eval - see recipe_eval.h.
 *
 * A reader is a tree like its recipe. Ops that move elements hand bytes on, so they work in either
 * form; ops that compute ask their parts for doubles and, in the stored form, round what they made.
 */
#include "ir/recipe_eval.h"

#include "base/check.h"
#include "ir/convert.h"
#include "ir/eval_impl.h"
#include "ir/plan.h" /* names of layers' tensors */

#include <errno.h>
#include <math.h>
#include <string.h>

#define STRIP_BYTES ((uint64_t)32 << 20)

/* What all readers of a tree share. */
typedef struct origin {
    kf_arena *arena;
    const kf_tensor_source *src;
    kf_str prefix;
    uint32_t layer;
    kf_str fault; /* the tensor that could not be read */
} origin;

struct kf_recipe_reader {
    origin *o;
    const kf_recipe *r;
    kf_recipe_form form;
    uint64_t rows, width;
    uint32_t elem;           /* bytes of an element in this form */
    kf_recipe_reader **part; /* of a computing op: in the exact form */
    char *row;               /* a row of part 0, in its form */
    double *made;            /* computing ops: a row of their own */
    union {
        struct {
            kf_tensor_info info;
            void *raw, *typed; /* a row as stored, and in the recipe's dtype */
        } load;
        struct {
            char *strip;
            uint64_t first, n, room; /* columns of part 0 in the strip */
        } transpose;
        struct {
            kf_eval_slot *fn;
            kf_eval_vec *param;
            double **read; /* by part: where its rows are read, or NULL if it is the same for all */
            double layer;
        } map;
        double *all; /* matmul: part 1; centre: the means; spectral: the value */
    };
};

static void shape_of(const kf_type *t, uint64_t *rows, uint64_t *width)
{
    *rows = (uint64_t)t->dim[0].size;
    *width = *rows ? (uint64_t)kf_type_static_elems(t) / *rows : 0;
}

static int open_reader(origin *o, const kf_recipe *r, kf_recipe_form form, kf_recipe_reader **out);
static int read_row(kf_recipe_reader *rd, uint64_t row, void *out);

/* All of |rd|, which is in the exact form. */
static int read_all(kf_recipe_reader *rd, double **out)
{
    *out = KF_NEW_N(rd->o->arena, double, rd->rows * rd->width);
    int err = 0;

    for (uint64_t i = 0; !err && i < rd->rows; i++)
        err = read_row(rd, i, *out + i * rd->width);
    return err;
}

/* ---- load ------------------------------------------------------------------------------------ */

static int open_load(kf_recipe_reader *rd)
{
    origin *o = rd->o;
    const kf_type *t = &rd->r->type;
    kf_tensor_info *info = &rd->load.info;
    kf_str name = kf_plan_tensor_name(o->arena, o->prefix, o->layer, rd->r->tensor);

    o->fault = name;
    if (!o->src->find(o->src, name, info))
        return ENOENT;
    bool fits = info->rank == t->rank &&
                (info->dtype == t->dtype || (kf_dtype_infos[info->dtype].kind == KF_KIND_FLOAT &&
                                             kf_dtype_infos[t->dtype].kind == KF_KIND_FLOAT));
    for (uint8_t d = 0; fits && d < t->rank; d++)
        fits = info->dim[d] == t->dim[d].size;
    if (!fits)
        return EINVAL;
    rd->load.raw = kf_arena_alloc(o->arena, rd->width * kf_dtype_infos[info->dtype].bytes, 8);
    rd->load.typed = rd->load.raw;
    if (info->dtype != t->dtype)
        rd->load.typed = kf_arena_alloc(o->arena, rd->width * kf_dtype_infos[t->dtype].bytes, 8);
    return 0;
}

static void widen(kf_dtype t, const void *src, uint64_t n, double *out)
{
    for (uint64_t i = 0; i < n; i++) {
        if (t == KF_DTYPE_i32)
            out[i] = ((const int32_t *)src)[i];
        else if (t == KF_DTYPE_pred)
            out[i] = ((const unsigned char *)src)[i] != 0;
        else
            out[i] = (double)kf_float_load(t, src, i);
    }
}

/* The row as stored, in type |t|; ERANGE where that holds no number so large. */
static int narrow(kf_recipe_reader *rd, kf_dtype t, void *out)
{
    kf_dtype from = rd->load.info.dtype;

    kf_convert(from, rd->load.raw, t, out, rd->width);
    for (uint64_t i = 0; t != KF_DTYPE_f32 && from != t && i < rd->width; i++)
        if (isinf(kf_float_load(t, out, i)) && !isinf(kf_float_load(from, rd->load.raw, i))) {
            rd->o->fault = rd->load.info.name;
            return ERANGE;
        }
    return 0;
}

static int row_load(kf_recipe_reader *rd, uint64_t row, void *out)
{
    const kf_tensor_info *info = &rd->load.info;
    kf_dtype t = rd->r->type.dtype;
    int err = rd->o->src->read(rd->o->src, info, row * rd->width, rd->width, rd->load.raw);

    if (err) {
        rd->o->fault = info->name;
        return err;
    }
    if (rd->form == KF_RECIPE_STORED)
        return narrow(rd, t, out);
    err = info->dtype == t ? 0 : narrow(rd, t, rd->load.typed);
    if (err)
        return err;
    widen(t, rd->load.typed, rd->width, out);
    return 0;
}

/* ---- ops that move elements ------------------------------------------------------------------ */

static int open_nothing(kf_recipe_reader *rd)
{
    (void)rd;
    return 0;
}
#define open_concat open_nothing
#define open_slice  open_nothing

static int row_concat(kf_recipe_reader *rd, uint64_t row, void *out)
{
    uint64_t groups = (uint64_t)rd->r->number[0], group_rows = rd->rows / groups,
             group = row / group_rows, at = row % group_rows;

    for (uint32_t i = 0; i < rd->r->n_parts; i++) {
        uint64_t share = rd->part[i]->rows / groups;
        if (at < share)
            return read_row(rd->part[i], group * share + at, out);
        at -= share;
    }
    KF_ASSERT(false, "the parts of a concat add up to its rows");
    return EINVAL;
}

static int row_slice(kf_recipe_reader *rd, uint64_t row, void *out)
{
    uint64_t groups = (uint64_t)rd->r->number[1], start = (uint64_t)rd->r->number[2],
             share = (uint64_t)rd->r->number[3] - start;

    if (rd->r->number[0] == 0) {
        uint64_t group_rows = rd->part[0]->rows / groups;
        return read_row(rd->part[0], row / share * group_rows + start + row % share, out);
    }
    uint64_t group_width = rd->part[0]->width / groups;
    int err = read_row(rd->part[0], row, rd->row);
    for (uint64_t g = 0; !err && g < groups; g++)
        memcpy((char *)out + g * share * rd->elem, rd->row + (g * group_width + start) * rd->elem,
               share * rd->elem);
    return err;
}

static int open_transpose(kf_recipe_reader *rd)
{
    uint64_t room = STRIP_BYTES / (rd->width * rd->elem);

    room = room < 1 ? 1 : room > rd->rows ? rd->rows : room;
    rd->transpose.room = room;
    rd->transpose.strip = kf_arena_alloc(rd->o->arena, room * rd->width * rd->elem, 64);
    return 0;
}

static void copy_elem(char *dst, const char *src, uint32_t elem)
{
    if (elem == 2)
        memcpy(dst, src, 2);
    else if (elem == 4)
        memcpy(dst, src, 4);
    else
        memcpy(dst, src, 8);
}

/* Columns of part 0 from |first| on, as many as there is room for. */
static int fill_strip(kf_recipe_reader *rd, uint64_t first)
{
    uint64_t left = rd->rows - first;
    int err = 0;

    rd->transpose.first = first;
    rd->transpose.n = left < rd->transpose.room ? left : rd->transpose.room;
    for (uint64_t i = 0; !err && i < rd->width; i++) {
        err = read_row(rd->part[0], i, rd->row);
        for (uint64_t c = 0; !err && c < rd->transpose.n; c++)
            copy_elem(rd->transpose.strip + (c * rd->width + i) * rd->elem,
                      rd->row + (first + c) * rd->elem, rd->elem);
    }
    return err;
}

static int row_transpose(kf_recipe_reader *rd, uint64_t row, void *out)
{
    if (rd->r->part[0]->type.rank == 1)
        return read_row(rd->part[0], row, out);
    if (row < rd->transpose.first || row >= rd->transpose.first + rd->transpose.n) {
        int err = fill_strip(rd, row);
        if (err)
            return err;
    }
    memcpy(out, rd->transpose.strip + (row - rd->transpose.first) * rd->width * rd->elem,
           rd->width * rd->elem);
    return 0;
}

#define open_regroup open_nothing

static int row_regroup(kf_recipe_reader *rd, uint64_t row, void *out)
{
    uint64_t blocks = (uint64_t)rd->r->number[1],
             group_rows = rd->rows / (uint64_t)rd->r->number[0], width = group_rows / blocks,
             at = row % group_rows;

    return read_row(rd->part[0], row - at + at % blocks * width + at / blocks, out);
}

/* ---- ops that compute ------------------------------------------------------------------------ */

/* Parts that do not depend on the row are read once; the others row by row. */
static int open_map(kf_recipe_reader *rd)
{
    kf_arena *a = rd->o->arena;
    uint32_t n = rd->r->n_parts;
    int err = 0;

    rd->map.fn = kf_eval_slot_create(a, rd->r->fn, NULL);
    rd->map.param = KF_NEW_N(a, kf_eval_vec, n + 1);
    rd->map.read = KF_NEW_N(a, double *, n + 1);
    rd->map.layer = rd->o->layer;
    rd->map.param[n] = (kf_eval_vec){&rd->map.layer, 0};
    for (uint32_t i = 0; !err && i < n; i++) {
        kf_recipe_reader *p = rd->part[i];
        bool is_vector = p->r->type.rank == 1 && rd->r->type.rank > 1;
        bool fixed = is_vector || (p->rows == 1 && rd->rows > 1);
        double *values = NULL;
        if (fixed)
            err = read_all(p, &values);
        else
            values = rd->map.read[i] = KF_NEW_N(a, double, p->width);
        uint64_t width = is_vector ? p->rows : p->width;
        rd->map.param[i] = (kf_eval_vec){values, width == 1 ? 0 : 1};
    }
    return err;
}

static int row_map(kf_recipe_reader *rd, uint64_t row, void *out)
{
    for (uint32_t i = 0; i < rd->r->n_parts; i++) {
        int err = rd->map.read[i] ? read_row(rd->part[i], row, rd->map.read[i]) : 0;
        if (err)
            return err;
    }
    bool ran = kf_eval_slot_run(rd->map.fn, rd->map.param, (int64_t)rd->width, out);
    KF_ASSERT(ran, "the function of a map loads nothing");
    return 0;
}

static int open_matmul(kf_recipe_reader *rd)
{
    return read_all(rd->part[1], &rd->all);
}

static int row_matmul(kf_recipe_reader *rd, uint64_t row, void *out)
{
    const double *a = (const double *)(const void *)rd->row;
    double *sum = out;
    int err = read_row(rd->part[0], row, rd->row);

    memset(out, 0, rd->width * sizeof(double));
    for (uint64_t k = 0; !err && k < rd->part[0]->width; k++)
        for (uint64_t j = 0; j < rd->width; j++)
            sum[j] += a[k] * rd->all[k * rd->width + j];
    return err;
}

/* Means of columns; those of rows are taken on the way. */
static int open_centre(kf_recipe_reader *rd)
{
    double *row = (double *)(void *)rd->row;
    int err = 0;

    rd->all = KF_NEW_N(rd->o->arena, double, rd->width);
    for (uint64_t i = 0; !err && rd->r->number[0] == 0 && i < rd->rows; i++) {
        err = read_row(rd->part[0], i, row);
        for (uint64_t j = 0; j < rd->width; j++)
            rd->all[j] += row[j];
    }
    for (uint64_t j = 0; j < rd->width; j++)
        rd->all[j] /= (double)rd->rows;
    return err;
}

static int row_centre(kf_recipe_reader *rd, uint64_t row, void *out)
{
    double *v = out, mean = 0;
    int err = read_row(rd->part[0], row, out);

    for (uint64_t j = 0; rd->r->number[0] == 1 && j < rd->width; j++)
        mean += v[j] / (double)rd->width;
    for (uint64_t j = 0; j < rd->width; j++)
        v[j] -= rd->r->number[0] == 1 ? mean : rd->all[j];
    return err;
}

static double norm(const double *v, uint64_t n)
{
    double s = 0;

    for (uint64_t i = 0; i < n; i++)
        s += v[i] * v[i];
    return sqrt(s);
}

/* |v| becomes W^T W v; out_length is the length of W v. */
static int power_step(kf_recipe_reader *w, double *row, double *v, double *next, double *out_length)
{
    double sum = 0;
    int err = 0;

    memset(next, 0, w->width * sizeof *next);
    for (uint64_t i = 0; !err && i < w->rows; i++) {
        double dot = 0;
        err = read_row(w, i, row);
        for (uint64_t j = 0; j < w->width; j++)
            dot += row[j] * v[j];
        for (uint64_t j = 0; j < w->width; j++)
            next[j] += dot * row[j];
        sum += dot * dot;
    }
    memcpy(v, next, w->width * sizeof *v);
    *out_length = sqrt(sum);
    return err;
}

/* The start has a share of every direction (a fixed sequence of irrational steps); values of two
 * steps that agree to 1e-15 end it. */
static int open_spectral(kf_recipe_reader *rd)
{
    kf_recipe_reader *w = rd->part[0];
    kf_arena *a = rd->o->arena;
    double *v = KF_NEW_N(a, double, w->width), *next = KF_NEW_N(a, double, w->width);
    double *sigma = rd->all = KF_NEW_N(a, double, 1);
    int err = 0;

    for (uint64_t j = 0; j < w->width; j++)
        v[j] = 0.5 + fmod((double)(j + 1) * 0.6180339887498949, 1.0);
    for (int step = 0; !err && step < 2000; step++) {
        double before = *sigma, length = norm(v, w->width);
        for (uint64_t j = 0; length > 0 && j < w->width; j++)
            v[j] /= length;
        err = power_step(w, (double *)(void *)rd->row, v, next, sigma);
        if (fabs(*sigma - before) <= 1e-15 * *sigma)
            break;
    }
    return err;
}

static int row_spectral(kf_recipe_reader *rd, uint64_t row, void *out)
{
    (void)row;
    *(double *)out = *rd->all;
    return 0;
}

/* ---- readers --------------------------------------------------------------------------------- */

static const struct {
    int (*open)(kf_recipe_reader *);
    int (*row)(kf_recipe_reader *, uint64_t, void *);
} readers[] = {
#define RECIPE(name, min, max, n1, n2, n3, n4, text, summary) {open_##name, row_##name},
#include "ir/recipe.def"
#undef RECIPE
};

static bool computes(kf_recipe_op op)
{
    return op == KF_RECIPE_map || op == KF_RECIPE_matmul || op == KF_RECIPE_centre ||
           op == KF_RECIPE_spectral;
}

static int open_reader(origin *o, const kf_recipe *r, kf_recipe_form form, kf_recipe_reader **out)
{
    kf_recipe_reader *rd = KF_NEW(o->arena, kf_recipe_reader);
    kf_recipe_form inner = computes(r->op) ? KF_RECIPE_EXACT : form;

    rd->o = o;
    rd->r = r;
    rd->form = form;
    shape_of(&r->type, &rd->rows, &rd->width);
    rd->elem = form == KF_RECIPE_EXACT ? sizeof(double) : kf_dtype_infos[r->type.dtype].bytes;
    rd->part = KF_NEW_N(o->arena, kf_recipe_reader *, r->n_parts ? r->n_parts : 1);
    for (uint32_t i = 0; i < r->n_parts; i++) {
        int err = open_reader(o, r->part[i], inner, &rd->part[i]);
        if (err)
            return err;
    }
    if (r->n_parts)
        rd->row = kf_arena_alloc(o->arena, rd->part[0]->width * rd->part[0]->elem, 64);
    if (computes(r->op) && form == KF_RECIPE_STORED)
        rd->made = KF_NEW_N(o->arena, double, rd->width);
    *out = rd;
    return readers[r->op].open(rd);
}

/* The first tensor that |r| is made from, or nothing. */
static kf_str first_tensor(const kf_recipe *r)
{
    kf_str name = r->op == KF_RECIPE_load ? r->tensor : (kf_str){0};

    for (uint32_t i = 0; i < r->n_parts && !name.len; i++)
        name = first_tensor(r->part[i]);
    return name;
}

static int read_row(kf_recipe_reader *rd, uint64_t row, void *out)
{
    kf_dtype t = rd->r->type.dtype;

    if (!rd->made)
        return readers[rd->r->op].row(rd, row, out);
    int err = readers[rd->r->op].row(rd, row, rd->made);
    for (uint64_t i = 0; !err && i < rd->width; i++) {
        double v = kf_round_to(t, rd->made[i]);
        kf_float_store(t, out, i, (float)v);
        if (!isinf(v) || isinf(rd->made[i]))
            continue;
        rd->o->fault =
            kf_plan_tensor_name(rd->o->arena, rd->o->prefix, rd->o->layer, first_tensor(rd->r));
        err = ERANGE;
    }
    return err;
}

int kf_recipe_reader_open(kf_arena *arena, const kf_tensor_source *src, const kf_recipe *r,
                          kf_str prefix, uint32_t layer, kf_recipe_form form,
                          kf_recipe_reader **out_reader, kf_str *out_name)
{
    origin *o = KF_NEW(arena, origin);

    o->arena = arena;
    o->src = src;
    o->prefix = prefix;
    o->layer = layer;
    int err = open_reader(o, r, form, out_reader);
    *out_name = err ? o->fault : (kf_str){0};
    return err;
}

int kf_recipe_read_row(kf_recipe_reader *rd, uint64_t row, void *out, kf_str *out_name)
{
    int err = read_row(rd, row, out);

    if (err)
        *out_name = rd->o->fault;
    return err;
}
