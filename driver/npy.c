/* SPDX-License-Identifier: Apache-2.0 */
/* npy - see npy.h. */
#include "driver/npy.h"

#include "base/fs.h"

#include <inttypes.h>
#include <string.h>

#define MAX_NPY_BYTES (1u << 30)
#define HEADER_ALIGN  64 /* numpy aligns the data */

const double *kf_npy_read_f32(kf_arena *arena, const char *path, uint64_t n)
{
    kf_str text;

    if (kf_fs_read(arena, path, MAX_NPY_BYTES, &text) || text.len < 10)
        return NULL;
    uint32_t start = 10u + (uint8_t)text.ptr[8] + 256u * (uint8_t)text.ptr[9];
    if (text.len < start || (text.len - start) / sizeof(float) != n)
        return NULL;
    double *out = KF_NEW_N(arena, double, n);
    for (uint64_t i = 0; i < n; i++) {
        float v;
        memcpy(&v, text.ptr + start + i * sizeof v, sizeof v);
        out[i] = v;
    }
    return out;
}

int kf_npy_write(kf_arena *arena, const char *path, const kf_tensor *t)
{
    kf_sbuf head = {.arena = arena}, file = {.arena = arena};

    kf_sbuf_c(&head, "{'descr': '<f8', 'fortran_order': False, 'shape': (");
    for (uint8_t i = 0; i < t->rank; i++)
        kf_sbuf_printf(&head, "%" PRId64 ",", t->dim[i]);
    kf_sbuf_c(&head, "), }");
    while ((10 + head.len + 1) % HEADER_ALIGN)
        kf_sbuf_char(&head, ' ');
    kf_sbuf_char(&head, '\n');
    kf_sbuf_str(&file, (kf_str){"\x93NUMPY\x01\x00", 8});
    kf_sbuf_char(&file, (char)(head.len & 0xff));
    kf_sbuf_char(&file, (char)(head.len >> 8));
    kf_sbuf_str(&file, kf_sbuf_view(&head));
    kf_sbuf_str(&file, (kf_str){(const char *)t->data, (uint32_t)((size_t)t->n * sizeof(double))});
    return kf_fs_write(path, kf_sbuf_view(&file), 0644);
}
