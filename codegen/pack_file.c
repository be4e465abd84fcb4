/* SPDX-License-Identifier: Apache-2.0 */
/* pack_file - the packed file around the weights: header, section table, digests; see pack.h.
 *
 * A weight is written in panels: the rows that the outermost split of its layout takes together are
 * read, permuted by a table made once per weight, and appended. The header comes last, by rewriting
 * the start.
 */
#include "base/check.h"
#include "codegen/pack.h"
#include "ir/recipe_eval.h"
#include "runtime/kf_artifact.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

typedef struct writer {
    kf_arena *arena;
    kf_outfile *f;
    uint64_t at;      /* bytes written */
    kf_digest digest; /* of the current section */
    kf_pack_progress progress;
    void *user;
    uint64_t total;
} writer;

static int put(writer *w, const void *data, uint64_t size)
{
    kf_digest_add(&w->digest, data, size);
    w->at += size;
    return kf_outfile_write(w->f, data, size);
}

static int put_zeros(writer *w, uint64_t size)
{
    static const char zeros[4096];

    while (size) {
        uint64_t n = size < sizeof zeros ? size : sizeof zeros;
        int err = put(w, zeros, n);
        if (err)
            return err;
        size -= n;
    }
    return 0;
}

/** How one weight is cut: |rows| logical rows give |bytes| stored bytes at a time. */
typedef struct panel {
    uint64_t rows, bytes;
    uint32_t *place; /* by row * width + column: element in the panel; NULL: as read */
} panel;

/* The first split must walk dim 0, so that a panel is a few whole rows. */
static panel make_panel(kf_arena *arena, const kf_type *t, uint64_t width)
{
    uint32_t elem = kf_dtype_infos[t->dtype].bytes;
    panel p = {.rows = 1, .bytes = width * elem};

    if (t->layout.n_splits == 0)
        return p;
    KF_ASSERT(t->layout.split[0].dim == 0, "a weight's layout walks its rows first");
    kf_type one = *t;
    p.rows = t->layout.split[0].block;
    one.dim[0].size = (int64_t)p.rows;
    p.bytes = (uint64_t)kf_type_stored_elems(&one, NULL) * elem;
    p.place = KF_NEW_N(arena, uint32_t, p.rows *width);
    for (uint64_t r = 0; r < p.rows; r++) {
        for (uint64_t c = 0; c < width; c++) {
            int64_t index[KF_MAX_RANK] = {(int64_t)r, (int64_t)c};
            p.place[r * width + c] = (uint32_t)kf_layout_offset(&one, index);
        }
    }
    return p;
}

static void scatter(const panel *p, uint64_t row, uint64_t width, uint32_t elem, const void *src,
                    char *dst)
{
    const uint32_t *place = p->place + row * width;

    if (elem == 2)
        for (uint64_t c = 0; c < width; c++)
            ((uint16_t *)(void *)dst)[place[c]] = ((const uint16_t *)src)[c];
    else
        for (uint64_t c = 0; c < width; c++)
            ((uint32_t *)(void *)dst)[place[c]] = ((const uint32_t *)src)[c];
}

static int write_weight(writer *w, const kf_plan_weight *pw, uint32_t layer,
                        const kf_tensor_source *src, kf_str *out_tensor)
{
    kf_arena_mark mark = kf_arena_save(w->arena);
    kf_recipe_reader *rd;
    uint64_t rows = (uint64_t)pw->type.dim[0].size;
    uint64_t width = (uint64_t)kf_type_static_elems(&pw->type) / rows;
    uint32_t elem = kf_dtype_infos[pw->type.dtype].bytes;
    int err = kf_recipe_reader_open(w->arena, src, pw->recipe, pw->prefix, layer, KF_RECIPE_STORED,
                                    &rd, out_tensor);

    if (err)
        return err;
    panel p = make_panel(w->arena, &pw->type, width);
    char *row = kf_arena_alloc(w->arena, width * elem, 64);
    char *out = kf_arena_alloc(w->arena, p.bytes, 64);
    for (uint64_t first = 0; !err && first < rows; first += p.rows) {
        memset(out, 0, p.bytes);
        for (uint64_t r = 0; !err && r < p.rows && first + r < rows; r++) {
            err = kf_recipe_read_row(rd, first + r, p.place ? row : out, out_tensor);
            if (p.place)
                scatter(&p, r, width, elem, row, out);
        }
        if (!err)
            err = put(w, out, p.bytes);
    }
    kf_arena_restore(w->arena, mark);
    if (w->progress)
        w->progress(w->user, w->at, w->total);
    return err;
}

static int write_weights(writer *w, const kf_plan *p, const kf_tensor_source *src,
                         kf_str *out_tensor)
{
    kf_pack_layout l = kf_pack_plan(w->arena, p);
    uint64_t start = w->at;

    for (uint32_t layer = 0, more = 1; more; layer++) {
        more = 0;
        for (uint32_t i = 0; i < p->weights.len; i++) {
            const kf_plan_weight *pw = &p->weights.data[i];
            if (layer >= pw->layers)
                continue;
            more = 1;
            int err = put_zeros(w, start + l.offset[i][layer] - w->at);
            if (!err)
                err = write_weight(w, pw, layer, src, out_tensor);
            if (err)
                return err;
        }
    }
    return put_zeros(w, start + l.section_bytes - w->at);
}

static uint64_t align_section(uint64_t v)
{
    return (v + KF_ARTIFACT_SECTION_ALIGN - 1) / KF_ARTIFACT_SECTION_ALIGN *
           KF_ARTIFACT_SECTION_ALIGN;
}

static void begin_section(writer *w, kf_artifact_section *s, const char *name, uint32_t kind)
{
    strncpy(s->name, name, sizeof s->name - 1);
    s->kind = kind;
    s->offset = w->at;
    kf_digest_init(&w->digest);
}

static void end_section(writer *w, kf_artifact_section *s)
{
    s->size_bytes = w->at - s->offset;
    s->digest = s->kind == KF_SECTION_PROBE ? 0 : kf_digest_end(&w->digest);
}

static int write_start(writer *w, const kf_artifact_header *h, const kf_artifact_section *s)
{
    size_t table = h->n_sections * sizeof *s;

    if (pwrite(w->f->fd, h, sizeof *h, 0) != (ssize_t)sizeof *h)
        return errno ? errno : EIO;
    if (pwrite(w->f->fd, s, table, sizeof *h) != (ssize_t)table)
        return errno ? errno : EIO;
    return 0;
}

int kf_pack_write(kf_arena *arena, const kf_plan *p, const kf_tensor_source *src,
                  const kf_pack_section *sections, uint32_t n_sections, kf_outfile *f,
                  kf_pack_progress progress, void *user, uint64_t *out_digest, kf_str *out_tensor)
{
    kf_artifact_section table[KF_ARTIFACT_MAX_SECTIONS];
    kf_artifact_header h = {.version = KF_ARTIFACT_VERSION, .n_sections = 1 + n_sections};
    writer w = {.arena = arena, .f = f, .progress = progress, .user = user};

    *out_tensor = (kf_str){"", 0};
    memset(table, 0, sizeof table);
    KF_ASSERT(n_sections < KF_ARTIFACT_MAX_SECTIONS, "the packed file has few sections");
    w.total = kf_pack_plan(arena, p).section_bytes;
    memcpy(h.magic, KF_ARTIFACT_MAGIC, sizeof h.magic);
    memcpy(h.model, p->name.ptr, p->name.len < sizeof h.model ? p->name.len : sizeof h.model - 1);
    int err = put_zeros(&w, align_section(sizeof h + h.n_sections * sizeof table[0]));
    begin_section(&w, &table[0], "weights", KF_SECTION_WEIGHTS);
    if (!err)
        err = write_weights(&w, p, src, out_tensor);
    end_section(&w, &table[0]);
    for (uint32_t i = 0; !err && i < n_sections; i++) {
        err = put_zeros(&w, align_section(w.at) - w.at);
        begin_section(&w, &table[1 + i], sections[i].name, sections[i].kind);
        if (!err)
            err = put(&w, sections[i].data.ptr, sections[i].data.len);
        end_section(&w, &table[1 + i]);
    }
    if (err)
        return err;
    h.file_bytes = w.at;
    h.header_digest = kf_artifact_header_digest(&h, table);
    *out_digest = h.header_digest;
    return write_start(&w, &h, table);
}
