/* SPDX-License-Identifier: Apache-2.0 */
/* eval_ops - constants, index functions, contractions and row reductions in plain loops. */
#include "ir/eval_impl.h"

#include <math.h>
#include <string.h>

#define ATTR(c, kind) KF_ATTR_OF((c)->node, kind)

/* ---- constants and index functions ----------------------------------------------------------- */

bool kf_eval_constant(kf_eval_call *c)
{
    c->out[0].data[0] = ATTR(c, constant)->value;
    return true;
}

bool kf_eval_iota(kf_eval_call *c)
{
    for (int64_t i = 0; i < c->out[0].n; i++)
        c->out[0].data[i] = (double)i;
    return true;
}

bool kf_eval_reshape(kf_eval_call *c)
{
    c->out[0].data = c->in[0]->data; /* nothing is written after it is made */
    return true;
}

bool kf_eval_expand(kf_eval_call *c)
{
    const kf_tensor *x = c->in[0], *out = &c->out[0];
    const int skip = out->rank - x->rank;
    for (int64_t i = 0; i < out->n; i++) {
        int64_t at = 0, step = 1, rest = i;
        for (int d = out->rank - 1; d >= skip; d--) {
            at += x->dim[d - skip] == 1 ? 0 : rest % out->dim[d] * step;
            step *= x->dim[d - skip];
            rest /= out->dim[d];
        }
        out->data[i] = x->data[at];
    }
    return true;
}

bool kf_eval_transpose(kf_eval_call *c)
{
    const kf_ints *perm = &ATTR(c, perm)->perm;
    const kf_tensor *x = c->in[0], *out = &c->out[0];
    int64_t stride[KF_MAX_RANK], step[KF_MAX_RANK], index[KF_MAX_RANK] = {0}, at = 0, product = 1;
    for (int d = x->rank - 1; d >= 0; d--) {
        step[d] = product;
        product *= x->dim[d];
    }
    for (uint8_t d = 0; d < out->rank; d++)
        stride[d] = step[perm->v[d]];
    for (int64_t i = 0; i < out->n; i++) {
        out->data[i] = x->data[at];
        for (int d = out->rank - 1; d >= 0; d--) {
            at += stride[d];
            if (++index[d] < out->dim[d])
                break;
            index[d] = 0;
            at -= stride[d] * out->dim[d];
        }
    }
    return true;
}

/* Elements before and after |axis|. */
static void split_at(const kf_tensor *t, int64_t axis, int64_t *outer, int64_t *inner)
{
    *outer = *inner = 1;
    for (int d = 0; d < t->rank; d++) {
        if (d < axis)
            *outer *= t->dim[d];
        else if (d > axis)
            *inner *= t->dim[d];
    }
}

bool kf_eval_slice(kf_eval_call *c)
{
    const kf_attr_slice *a = ATTR(c, slice);
    const kf_tensor *x = c->in[0];
    int64_t outer, inner, rows = a->stop - a->start;
    split_at(x, a->axis, &outer, &inner);
    for (int64_t o = 0; o < outer; o++)
        memcpy(c->out[0].data + o * rows * inner,
               x->data + (o * x->dim[a->axis] + a->start) * inner,
               (size_t)(rows * inner) * sizeof(double));
    return true;
}

bool kf_eval_concat(kf_eval_call *c)
{
    int64_t axis = ATTR(c, axis)->axis, outer, inner, first = 0;
    kf_tensor *out = &c->out[0];
    split_at(out, axis, &outer, &inner);
    for (uint32_t k = 0; k < c->n_in; k++) {
        int64_t rows = c->in[k]->dim[axis];
        for (int64_t o = 0; o < outer; o++)
            memcpy(out->data + (o * out->dim[axis] + first) * inner,
                   c->in[k]->data + o * rows * inner, (size_t)(rows * inner) * sizeof(double));
        first += rows;
    }
    return true;
}

bool kf_eval_convert(kf_eval_call *c)
{
    kf_dtype to = c->out_type[0].dtype;
    bool exact = c->ctx->mode == KF_EVAL_IDEAL && kf_dtype_infos[to].kind == KF_KIND_FLOAT;
    for (int64_t i = 0; i < c->out[0].n; i++)
        c->out[0].data[i] = exact ? c->in[0]->data[i] : kf_round_to(to, c->in[0]->data[i]);
    return true;
}

bool kf_eval_gather(kf_eval_call *c)
{
    const kf_tensor *table = c->in[0], *ids = c->in[1];
    int64_t rows = table->dim[0], width = rows ? table->n / rows : 0;
    for (int64_t i = 0; i < ids->n; i++) {
        double id = ids->data[i];
        if (!(id >= 0 && id < (double)rows))
            return kf_eval_fail(c->ctx, "gather: row %g of a table of %lld", id, (long long)rows);
        memcpy(c->out[0].data + i * width, table->data + (int64_t)id * width,
               (size_t)width * sizeof(double));
    }
    return true;
}

/* ---- matmul ---------------------------------------------------------------------------------- */

enum { PANEL = 8, FEW_ROWS = 3 };

static double dot(const double *a, const double *b, int64_t k, int64_t b_step)
{
    double sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += a[i] * b[i * b_step];
    return sum;
}

/* |b| as columns b_step apart along k and n_step along n. Sums run over k in order, in every path.
 */
static void multiply(const double *a, const double *b, double *out, int64_t m, int64_t n, int64_t k,
                     int64_t b_step, int64_t n_step, double *panel)
{
    for (int64_t j = 0; j < n; j += PANEL) {
        int64_t width = n - j < PANEL ? n - j : PANEL;
        if (m <= FEW_ROWS || width < PANEL) {
            for (int64_t r = 0; r < m; r++) {
                for (int64_t w = 0; w < width; w++)
                    out[r * n + j + w] = dot(a + r * k, b + (j + w) * n_step, k, b_step);
            }
            continue;
        }
        for (int64_t i = 0; i < k; i++) {
            for (int64_t w = 0; w < PANEL; w++)
                panel[i * PANEL + w] = b[(j + w) * n_step + i * b_step];
        }
        for (int64_t r = 0; r < m; r++) {
            double sum[PANEL] = {0};
            for (int64_t i = 0; i < k; i++) {
                double x = a[r * k + i];
                for (int w = 0; w < PANEL; w++)
                    sum[w] += x * panel[i * PANEL + w];
            }
            memcpy(out + r * n + j, sum, sizeof sum);
        }
    }
}

bool kf_eval_matmul(kf_eval_call *c)
{
    const kf_tensor *a = c->in[0], *b = c->in[1], *out = &c->out[0];
    bool trans_b = ATTR(c, matmul)->trans_b;
    int64_t m = a->dim[a->rank - 2], k = a->dim[a->rank - 1], n = out->dim[out->rank - 1];
    double *panel = KF_NEW_N(c->ctx->arena, double, k *PANEL + 1);
    int64_t matrix = m * n, batches = matrix ? out->n / matrix : 0;
    for (int64_t at = 0; at < batches; at++) {
        /* Position of this batch in a and b, whose batch dims may be 1 or absent. */
        int64_t rest = at, at_a = 0, at_b = 0, step_a = 1, step_b = 1;
        for (int d = out->rank - 3; d >= 0; d--) {
            int64_t i = rest % out->dim[d];
            int da = d - (out->rank - a->rank), db = d - (out->rank - b->rank);
            rest /= out->dim[d];
            if (da >= 0 && a->dim[da] > 1)
                at_a += i * step_a;
            if (db >= 0 && b->dim[db] > 1)
                at_b += i * step_b;
            step_a *= da >= 0 ? a->dim[da] : 1;
            step_b *= db >= 0 ? b->dim[db] : 1;
        }
        multiply(a->data + at_a * m * k, b->data + at_b * k * n, out->data + at * m * n, m, n, k,
                 trans_b ? 1 : n, trans_b ? k : 1, panel);
    }
    return true;
}

/* ---- row reductions -------------------------------------------------------------------------- */

#define ACC(name, needs, init, step, joined, summary)                                              \
    static double reduce_##name(const double *x, double m, int64_t first, int64_t count)           \
    {                                                                                              \
        double s = init, n = (double)count;                                                        \
        (void)m, (void)n;                                                                          \
        for (int64_t i = 0; i < count; i++) {                                                      \
            double v = x[i], c = (double)(first + i);                                              \
            (void)c;                                                                               \
            s = step;                                                                              \
        }                                                                                          \
        return s;                                                                                  \
    }
#include "ir/acc.def"
#undef ACC

static double (*const reduce[KF_ACC_COUNT])(const double *, double, int64_t, int64_t) = {
#define ACC(name, needs, init, step, joined, summary) reduce_##name,
#include "ir/acc.def"
#undef ACC
};

/* All accumulators over |n| elements of a row from column |first| on, in order: a later one may need
 * an earlier one. */
static void reduce_row(const kf_accs *accs, const double *x, int64_t first, int64_t n, double *out)
{
    for (uint8_t i = 0; i < accs->n; i++) {
        double needed = 0;
        for (uint8_t j = 0; j < i; j++) {
            if (accs->acc[j] == kf_acc_infos[accs->acc[i]].needs)
                needed = out[j];
        }
        out[i] = reduce[accs->acc[i]](x + first, needed, first, n);
    }
}

bool kf_eval_row_reduce(kf_eval_call *c)
{
    const kf_attr_row_reduce *a = ATTR(c, row_reduce);
    const kf_tensor *x = c->in[0], *out = &c->out[0];
    int64_t n = x->dim[x->rank - 1], rows = n ? x->n / n : 0;
    kf_eval_slot *map = a->map ? kf_eval_slot_create(c->ctx->arena, a->map, c->in + 1) : NULL;
    double *column = KF_NEW_N(c->ctx->arena, double, n + 1);
    for (int64_t i = 0; i < n; i++)
        column[i] = (double)i;
    for (int64_t r = 0; r < rows; r++) {
        double acc[KF_MAX_ACCS + 1];
        kf_eval_vec p[KF_MAX_ACCS + 2] = {{x->data + r * n, 1}};
        reduce_row(&a->acc, x->data + r * n, 0, n, acc);
        for (uint8_t i = 0; i < a->acc.n; i++)
            p[1 + i] = (kf_eval_vec){&acc[i], 0};
        p[1 + a->acc.n] = (kf_eval_vec){column, 1};
        int64_t width = a->keep ? n : 1;
        double *to = out->data + r * width;
        if (map) {
            if (!kf_eval_slot_run(map, p, width, to))
                return kf_eval_fail(c->ctx, "row_reduce: the map loads outside its operand");
            continue;
        }
        for (int64_t i = 0; i < width; i++) /* without a map: the last accumulator */
            to[i] = acc[a->acc.n - 1];
    }
    return true;
}

bool kf_eval_row_stat(kf_eval_call *c)
{
    const kf_attr_row_stat *a = ATTR(c, row_stat);
    const kf_tensor *x = c->in[0], *out = &c->out[0];
    int64_t n = x->dim[1], blocks = out->dim[1];
    for (int64_t r = 0; r < x->dim[0]; r++) {
        for (int64_t b = 0; b < blocks; b++) {
            int64_t first = b * a->block, count = n - first < a->block ? n - first : a->block;
            double acc[KF_MAX_ACCS];
            reduce_row(&a->acc, x->data + r * n, first, count, acc);
            out->data[r * blocks + b] = acc[a->acc.n - 1];
        }
    }
    return true;
}
