/* SPDX-License-Identifier: Apache-2.0 */
/* type_print - the text of a type, with the names of the module's symbols and mesh axes. */
#include "ir/text.h"

#include <inttypes.h>

static void print_axis(const kf_module *m, uint8_t shard, kf_sbuf *out)
{
    if (!shard)
        return;
    kf_sbuf_char(out, '@');
    if (m && shard <= m->mesh.len)
        kf_sbuf_str(out, m->mesh.data[shard - 1]);
    else
        kf_sbuf_printf(out, "axis%u", shard - 1);
}

static void print_dim(const kf_module *m, kf_dim d, kf_sbuf *out)
{
    if (!d.sym) {
        kf_sbuf_printf(out, "%" PRId64, d.size);
        return;
    }
    if (m && d.sym <= m->syms.len)
        kf_sbuf_str(out, m->syms.data[d.sym - 1].name);
    else
        kf_sbuf_printf(out, "sym%u", d.sym - 1);
}

static void print_layout(const kf_layout *l, kf_sbuf *out)
{
    if (!l->n_splits)
        return;
    kf_sbuf_c(out, " <");
    for (uint8_t i = 0; i < l->n_splits; i++) {
        kf_sbuf_printf(out, i ? ", d%u" : "d%u", l->split[i].dim);
        if (l->split[i].block != 1)
            kf_sbuf_printf(out, "/%" PRIu32, l->split[i].block);
    }
    if (l->swizzle)
        kf_sbuf_printf(out, ", swizzle %u", l->swizzle);
    kf_sbuf_char(out, '>');
}

void kf_type_print(const kf_module *m, const kf_type *t, kf_sbuf *out)
{
    const char *dtype = kf_dtype_infos[t->dtype].name;
    if (t->kind == KF_TYPE_KVCACHE) {
        kf_sbuf_printf(out, "kvcache<page %" PRIu32 ", %" PRIu32, t->kv_page, t->kv_heads);
        print_axis(m, t->shard[0], out);
        kf_sbuf_printf(out, " x %" PRIu32 ", %s", t->kv_head_dim, dtype);
        if (t->kv_layers != 1)
            kf_sbuf_printf(out, ", layers %" PRIu32, t->kv_layers);
        kf_sbuf_char(out, '>');
        return;
    }
    kf_sbuf_c(out, dtype);
    kf_sbuf_char(out, '[');
    for (uint8_t i = 0; i < t->rank; i++) {
        if (i)
            kf_sbuf_char(out, ',');
        print_dim(m, t->dim[i], out);
        print_axis(m, t->shard[i], out);
    }
    kf_sbuf_char(out, ']');
    if (t->partial) {
        kf_sbuf_c(out, "{partial ");
        if (m && t->partial <= m->mesh.len)
            kf_sbuf_str(out, m->mesh.data[t->partial - 1]);
        else
            kf_sbuf_printf(out, "axis%u", t->partial - 1);
        kf_sbuf_char(out, '}');
    }
    print_layout(&t->layout, out);
}
