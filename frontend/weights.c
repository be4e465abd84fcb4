/* SPDX-License-Identifier: Apache-2.0 */
/* weights - opening shards under the rules of conventions for hostile indexes, and reading tensors.
 */
#define _GNU_SOURCE /* realpath */
#include "frontend/weights.h"

#include "base/check.h"
#include "base/fs.h"
#include "base/vec.h"
#include "frontend/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_INDEX_BYTES 100000000u
#define MAX_SHARDS      4096u

typedef struct shard {
    kf_str name; /* as in the index; empty for a single file */
    kf_str path;
    uint32_t diag_file;
    int fd;
} shard;

typedef struct tensor_entry {
    kf_st_tensor t;
    uint32_t shard;
} tensor_entry;

struct kf_checkpoint {
    kf_tensor_source source;
    kf_str path;
    uint32_t diag_file;
    KF_VEC(shard) shards;
    KF_VEC(tensor_entry) tensors; /* by name */
};

static int pread_all(int fd, void *dst, uint64_t size, uint64_t offset)
{
    char *p = dst;
    while (size > 0) {
        ssize_t n = pread(fd, p, size < 1u << 30 ? size : 1u << 30, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        p += n;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

typedef struct opener {
    kf_arena *arena;
    kf_diags *diags;
    kf_checkpoint *c;
} opener;

static kf_loc whole(uint32_t file)
{
    return (kf_loc){file, 0, 0, 0};
}

static bool io_error(opener *o, kf_loc loc, int err)
{
    kf_diag_add(o->diags, KF_E0701, loc, "cannot read the weights: %s", strerror(err));
    return false;
}

static bool read_header(opener *o, const shard *s, kf_st_header *out_header)
{
    struct stat st;
    kf_loc loc = whole(s->diag_file);
    if (fstat(s->fd, &st) != 0)
        return io_error(o, loc, errno);
    if (!S_ISREG(st.st_mode))
        return io_error(o, loc, S_ISDIR(st.st_mode) ? EISDIR : EINVAL);
    uint64_t size = (uint64_t)st.st_size;
    char first[8];
    uint32_t n = size < 8 ? (uint32_t)size : 8, header = 0;
    int err = pread_all(s->fd, first, n, 0);
    if (err != 0)
        return io_error(o, loc, err);
    if (!kf_st_header_size(o->diags, s->diag_file, (kf_str){first, n}, size, &header))
        return false;
    char *head = kf_arena_alloc(o->arena, (size_t)header + 8, 1);
    err = pread_all(s->fd, head, (uint64_t)header + 8, 0);
    if (err != 0)
        return io_error(o, loc, err);
    return kf_st_parse(o->arena, o->diags, s->diag_file, (kf_str){head, header + 8}, size,
                       out_header);
}

/** Opens one file and appends its tensors, unsorted. */
static bool open_shard(opener *o, kf_str name, kf_str path)
{
    shard s = {.name = name, .path = kf_str_dup(o->arena, path)};
    s.diag_file = kf_diags_add_file(o->diags, path, KF_STR(""));
    s.fd = open(s.path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s.fd < 0)
        return io_error(o, whole(s.diag_file), errno);
    uint32_t index = o->c->shards.len;
    kf_vec_push(o->arena, &o->c->shards, s);
    kf_st_header header;
    if (!read_header(o, &s, &header))
        return false;
    kf_vec_reserve(o->arena, &o->c->tensors, header.n_tensors);
    for (uint32_t i = 0; i < header.n_tensors; i++) {
        tensor_entry e = {header.tensor[i], index};
        kf_vec_push(o->arena, &o->c->tensors, e);
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return kf_str_cmp(((const tensor_entry *)a)->t.name, ((const tensor_entry *)b)->t.name);
}

static const tensor_entry *find_entry(const kf_checkpoint *c, kf_str name)
{
    tensor_entry key = {.t = {.name = name}};
    return c->tensors.len == 0 ? NULL
                               : bsearch(&key, c->tensors.data, c->tensors.len,
                                         sizeof *c->tensors.data, compare_names);
}

/** Whether any tensor's name begins with |prefix|. */
static bool has_prefix(const kf_checkpoint *c, kf_str prefix)
{
    uint32_t lo = 0, hi = c->tensors.len;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (kf_str_cmp(c->tensors.data[mid].t.name, prefix) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->tensors.len && c->tensors.data[lo].t.name.len >= prefix.len &&
           memcmp(c->tensors.data[lo].t.name.ptr, prefix.ptr, prefix.len) == 0;
}

/** |name| without what it stands below, "transformer." of "transformer.h.0.ln_1.weight", where
 * nothing of the checkpoint stands below it: one that was saved from the body of a model alone. */
static kf_str name_in(const kf_checkpoint *c, kf_str name)
{
    const char *dot = memchr(name.ptr, '.', name.len);
    if (dot == NULL)
        return name;
    kf_str body = {name.ptr, (uint32_t)(dot - name.ptr) + 1};
    return has_prefix(c, body) ? name : (kf_str){dot + 1, name.len - body.len};
}

/** By its name, or by an older one: norms of early checkpoints have a gamma and a beta. */
static const tensor_entry *find_tensor(const kf_checkpoint *c, kf_str name)
{
    static const char *const older[][2] = {{".weight", ".gamma"}, {".bias", ".beta"}};
    char text[256];
    const tensor_entry *e = find_entry(c, name);
    if (e == NULL)
        e = find_entry(c, name = name_in(c, name));
    for (uint32_t i = 0; e == NULL && name.len < sizeof text && i < 2; i++) {
        size_t end = strlen(older[i][0]), stem = name.len - end;
        if (name.len <= end || memcmp(name.ptr + stem, older[i][0], end) != 0)
            continue;
        int n = snprintf(text, sizeof text, "%.*s%s", (int)stem, name.ptr, older[i][1]);
        e = find_entry(c, (kf_str){text, (uint32_t)n});
    }
    return e;
}

static bool is_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == '/' || n == 1);
}

/** Links may stay in the directory, or lead from snapshots/X to the blobs of the same hub cache
 * entry. */
static bool link_is_allowed(const char *dir, const char *target)
{
    if (is_below(target, dir))
        return true;
    const char *cut = NULL;
    for (const char *p = strstr(dir, "/snapshots/"); p != NULL; p = strstr(p + 1, "/snapshots/"))
        cut = p;
    if (cut == NULL || strchr(cut + strlen("/snapshots/"), '/') != NULL)
        return false;
    size_t n = (size_t)(cut - dir);
    return strncmp(target, dir, n) == 0 && strncmp(target + n, "/blobs/", 7) == 0;
}

static bool check_shard_name(opener *o, kf_loc loc, kf_str dir, kf_str name)
{
    if (name.len == 0 || name.len > 255 || memchr(name.ptr, '/', name.len) != NULL ||
        name.ptr[0] == '.') {
        kf_diag_add(o->diags, KF_E0304, loc,
                    "shard '%.*s' is not the name of a file beside the index", KF_STR_ARG(name));
        return false;
    }
    char *real_dir = realpath(kf_str_dup(o->arena, dir).ptr, NULL);
    char *real = realpath(kf_fs_join(o->arena, dir, name).ptr, NULL);
    int err = errno;
    bool ok = real_dir != NULL && real != NULL && link_is_allowed(real_dir, real);
    if (real == NULL)
        kf_diag_add(o->diags, KF_E0308, loc, "shard '%.*s': %s", KF_STR_ARG(name), strerror(err));
    else if (!ok)
        kf_diag_add(o->diags, KF_E0304, loc, "shard '%.*s' is a link out of the directory",
                    KF_STR_ARG(name));
    free(real_dir);
    free(real);
    return ok;
}

static bool open_shard_once(opener *o, kf_loc loc, kf_str dir, kf_str name)
{
    for (uint32_t i = 0; i < o->c->shards.len; i++)
        if (kf_str_eq(o->c->shards.data[i].name, name))
            return true;
    if (o->c->shards.len == MAX_SHARDS) {
        kf_diag_add(o->diags, KF_E0304, loc, "more than %u shards", MAX_SHARDS);
        return false;
    }
    name = kf_str_dup(o->arena, name);
    return check_shard_name(o, loc, dir, name) &&
           open_shard(o, name, kf_fs_join(o->arena, dir, name));
}

static bool check_unique(opener *o, kf_loc loc)
{
    const kf_checkpoint *c = o->c;
    for (uint32_t i = 1; i < c->tensors.len; i++) {
        const tensor_entry *a = &c->tensors.data[i - 1], *b = &c->tensors.data[i];
        if (!kf_str_eq(a->t.name, b->t.name))
            continue;
        kf_diag_add(o->diags, KF_E0304, loc, "tensor '%.*s' is in two shards, '%.*s' and '%.*s'",
                    KF_STR_ARG(a->t.name), KF_STR_ARG(c->shards.data[a->shard].name),
                    KF_STR_ARG(c->shards.data[b->shard].name));
        return false;
    }
    return true;
}

static bool check_mapping(opener *o, kf_loc loc, json_t *map)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        const tensor_entry *e = find_entry(o->c, kf_str_from(key));
        kf_str shard_name = kf_str_from(json_string_value(value));
        if (e != NULL && kf_str_eq(o->c->shards.data[e->shard].name, shard_name))
            continue;
        kf_diag_add(o->diags, KF_E0304, loc, "tensor '%.200s' is not in its shard '%.*s'", key,
                    KF_STR_ARG(shard_name));
        return false;
    }
    return true;
}

static void check_total_size(opener *o, kf_loc loc, const json_t *root)
{
    const json_t *total = json_object_get(json_object_get(root, "metadata"), "total_size");
    uint64_t bytes = kf_checkpoint_bytes(o->c);
    if (total == NULL || (json_is_number(total) && json_number_value(total) == (double)bytes))
        return;
    kf_diag_add(o->diags, KF_W0103, loc, "metadata.total_size is %.0f, the shards hold %llu bytes",
                json_number_value(total), (unsigned long long)bytes);
}

static bool read_index(opener *o, kf_loc loc, kf_str dir, json_t *root)
{
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0 ||
        json_object_size(map) > KF_ST_MAX_TENSORS) {
        kf_diag_add(o->diags, KF_E0304, loc, "'weight_map' is not an object of 1 to %u tensors",
                    KF_ST_MAX_TENSORS);
        return false;
    }
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        if (!json_is_string(value)) {
            kf_diag_add(o->diags, KF_E0304, loc, "tensor '%.200s': its shard is not a string", key);
            return false;
        }
        if (!open_shard_once(o, loc, dir, kf_str_from(json_string_value(value))))
            return false;
    }
    if (o->c->tensors.len > 0)
        qsort(o->c->tensors.data, o->c->tensors.len, sizeof *o->c->tensors.data, compare_names);
    if (!check_unique(o, loc) || !check_mapping(o, loc, map))
        return false;
    check_total_size(o, loc, root);
    return true;
}

static bool open_index(opener *o, kf_str dir, kf_str path)
{
    kf_str text;
    o->c->diag_file = kf_diags_add_file(o->diags, path, KF_STR(""));
    kf_loc loc = whole(o->c->diag_file);
    int err = kf_fs_read(o->arena, path.ptr, MAX_INDEX_BYTES, &text);
    if (err != 0)
        return io_error(o, loc, err);
    json_error_t error;
    json_t *root = json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        kf_diag_add(o->diags, KF_E0304, loc, "not JSON: %s (line %d)", error.text, error.line);
        return false;
    }
    bool ok = read_index(o, loc, dir, root);
    json_decref(root);
    return ok;
}

static bool open_any(opener *o, kf_str path)
{
    kf_str single = path;
    if (kf_fs_is_dir(path.ptr)) {
        single = kf_fs_join(o->arena, path, KF_STR("model.safetensors"));
        kf_str index = kf_fs_join(o->arena, path, KF_STR("model.safetensors.index.json"));
        if (!kf_fs_exists(single.ptr) && kf_fs_exists(index.ptr))
            return open_index(o, path, index);
    }
    if (!kf_fs_exists(single.ptr)) {
        uint32_t file = kf_diags_add_file(o->diags, path, KF_STR(""));
        kf_diag_add(o->diags, KF_E0308, whole(file), "no safetensors weights here");
        return false;
    }
    if (!open_shard(o, KF_STR(""), single))
        return false;
    o->c->diag_file = o->c->shards.data[0].diag_file;
    if (o->c->tensors.len > 0)
        qsort(o->c->tensors.data, o->c->tensors.len, sizeof *o->c->tensors.data, compare_names);
    return true;
}

/* ---- the tensor source ----------------------------------------------------------------------- */

static bool is_readable(const kf_st_tensor *t)
{
    return t->has_dtype && kf_dtype_infos[t->dtype].kind == KF_KIND_FLOAT && t->rank <= KF_MAX_RANK;
}

static bool source_find(const kf_tensor_source *self, kf_str name, kf_tensor_info *out_info)
{
    const tensor_entry *e = find_tensor(self->user, name);
    if (e == NULL || !is_readable(&e->t))
        return false;
    *out_info = (kf_tensor_info){.name = e->t.name,
                                 .dtype = e->t.dtype,
                                 .rank = e->t.rank,
                                 .file = e->shard,
                                 .offset = e->t.begin,
                                 .size_bytes = e->t.end - e->t.begin};
    if (e->t.rank > 0)
        memcpy(out_info->dim, e->t.dim, e->t.rank * sizeof *e->t.dim);
    return true;
}

static int source_read(const kf_tensor_source *self, const kf_tensor_info *info, uint64_t first,
                       uint64_t n, void *dst)
{
    const kf_checkpoint *c = self->user;
    uint64_t elem = kf_dtype_infos[info->dtype].bytes;
    KF_ASSERT(info->file < c->shards.len && first <= info->size_bytes / elem &&
                  n <= info->size_bytes / elem - first,
              "a read stays inside its tensor");
    return pread_all(c->shards.data[info->file].fd, dst, n * elem, info->offset + first * elem);
}

kf_checkpoint *kf_checkpoint_open(kf_arena *arena, kf_diags *diags, kf_str path)
{
    kf_checkpoint *c = KF_NEW(arena, kf_checkpoint);
    c->path = kf_str_dup(arena, path);
    c->source = (kf_tensor_source){.find = source_find, .read = source_read, .user = c};
    opener o = {arena, diags, c};
    if (open_any(&o, c->path))
        return c;
    kf_checkpoint_close(c);
    return NULL;
}

void kf_checkpoint_close(kf_checkpoint *c)
{
    for (uint32_t i = 0; i < c->shards.len; i++)
        close(c->shards.data[i].fd);
    c->shards.len = 0;
}

const kf_tensor_source *kf_checkpoint_source(const kf_checkpoint *c)
{
    return &c->source;
}

uint32_t kf_checkpoint_n_tensors(const kf_checkpoint *c)
{
    return c->tensors.len;
}

uint64_t kf_checkpoint_bytes(const kf_checkpoint *c)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < c->tensors.len; i++)
        bytes += c->tensors.data[i].t.end - c->tensors.data[i].t.begin;
    return bytes;
}

/* ---- against the description ----------------------------------------------------------------- */

typedef struct checker {
    kf_arena *arena;
    kf_diags *diags;
    const kf_checkpoint *c;
    bool *used; /* parallel to tensors */
    bool ok;
} checker;

static kf_str shape_text(kf_arena *arena, uint32_t rank, const int64_t *dim)
{
    kf_sbuf b = {.arena = arena};
    kf_sbuf_char(&b, '[');
    for (uint32_t i = 0; i < rank; i++)
        kf_sbuf_printf(&b, "%s%lld", i > 0 ? ", " : "", (long long)dim[i]);
    kf_sbuf_char(&b, ']');
    return kf_sbuf_view(&b);
}

static bool same_shape(const kf_st_tensor *t, const kf_spec_param *p)
{
    int64_t dim[2];
    kf_spec_tensor_shape(p, dim);
    return t->rank == p->rank && memcmp(t->dim, dim, p->rank * sizeof *dim) == 0;
}

static kf_str tensor_text(checker *k, const kf_spec_param *p)
{
    int64_t dim[2];
    kf_spec_tensor_shape(p, dim);
    return shape_text(k->arena, p->rank, dim);
}

/** What a tensor of several parameters holds. */
static void note_parts(checker *k, kf_diag *d, const kf_spec_param *p)
{
    kf_sbuf words = {.arena = k->arena};
    for (uint32_t i = 0; i < p->view.packed.n; i++)
        kf_sbuf_printf(&words, "%s%.*s", i > 0 ? ", " : "", KF_STR_ARG(p->view.packed.v[i]));
    kf_diag_note(k->diags, d, KF_NO_LOC, "%lld %s of %.*s", (long long)p->tensor_rows,
                 p->view.transposed.v ? "columns" : "rows", KF_STR_ARG(kf_sbuf_view(&words)));
}

static void report_missing(checker *k, kf_str name, const kf_spec_param *p, kf_loc loc)
{
    kf_diag *d = kf_diag_add(k->diags, KF_E0305, loc, "the checkpoint has no tensor '%.*s'",
                             KF_STR_ARG(name));
    kf_diag_note(k->diags, d, KF_NO_LOC, "parameter '%.*s', shape %.*s", KF_STR_ARG(p->key),
                 KF_STR_ARG(tensor_text(k, p)));
    if (p->view.packed.n > 0)
        note_parts(k, d, p);
    kf_str best = {"", 0};
    uint32_t best_distance = 3;
    for (uint32_t i = 0; i < k->c->tensors.len && i < 4096; i++) {
        uint32_t distance = kf_str_distance(name, k->c->tensors.data[i].t.name, 2);
        if (distance < best_distance && !k->used[i]) {
            best = k->c->tensors.data[i].t.name;
            best_distance = distance;
        }
    }
    if (best.len > 0)
        kf_diag_note(k->diags, d, KF_NO_LOC, "it has '%.*s'", KF_STR_ARG(best));
}

static void report_shape(checker *k, kf_str name, const kf_spec_param *p, const kf_st_tensor *t,
                         kf_loc loc)
{
    int64_t dim[2];
    kf_diag *d =
        kf_diag_add(k->diags, KF_E0306, loc, "tensor '%.*s' is %.*s, the description implies %.*s",
                    KF_STR_ARG(name), KF_STR_ARG(shape_text(k->arena, t->rank, t->dim)),
                    KF_STR_ARG(tensor_text(k, p)));
    kf_spec_tensor_shape(p, dim);
    for (uint32_t i = 0; i < p->rank; i++) {
        uint32_t own = p->view.transposed.v ? 1 - i : i;
        if (t->rank == p->rank && t->dim[i] == dim[i])
            continue;
        if (own == 0 && p->view.packed.n > 0)
            note_parts(k, d, p);
        else
            kf_diag_note(k->diags, d, KF_NO_LOC, "%lld is %s", (long long)dim[i], p->why[own]);
    }
}

static bool check_param(void *user, kf_str name, const kf_spec_param *p, const kf_block *block)
{
    checker *k = user;
    kf_loc loc = kf_src_given(p->src) ? p->src.loc : block->src.loc;
    const tensor_entry *e = find_tensor(k->c, name);
    uint32_t errors = kf_diags_errors(k->diags);
    if (e == NULL) {
        report_missing(k, name, p, loc);
    } else {
        k->used[e - k->c->tensors.data] = true;
        if (!is_readable(&e->t) && e->t.rank == p->rank)
            kf_diag_add(k->diags, KF_E0307, loc, "tensor '%.*s' is stored as %.*s",
                        KF_STR_ARG(name), KF_STR_ARG(e->t.type));
        else if (!same_shape(&e->t, p))
            report_shape(k, name, p, &e->t, loc);
    }
    k->ok = k->ok && kf_diags_errors(k->diags) == errors;
    return kf_diags_errors(k->diags) < KF_DIAG_MAX_ERRORS;
}

static bool ends_with(kf_str name, const char *suffix)
{
    size_t n = strlen(suffix);
    return name.len >= n && memcmp(name.ptr + name.len - n, suffix, n) == 0;
}

/** Buffers that some exporters store beside parameters; they follow from the configuration. The
 * causal mask of older files is a "bias" [1, 1, n, n]. */
static bool is_harmless_extra(const kf_spec *spec, const kf_st_tensor *t)
{
    bool is_mask = t->rank == 4 && t->dim[0] == 1 && t->dim[1] == 1 && t->dim[2] == t->dim[3];
    return ends_with(t->name, ".rotary_emb.inv_freq") || ends_with(t->name, ".masked_bias") ||
           (is_mask && ends_with(t->name, ".bias")) ||
           (spec->head->u.linear.tied_to != NULL && kf_str_eq_c(t->name, "lm_head.weight"));
}

static void warn_unused(checker *k, const kf_spec *spec)
{
    uint32_t n = 0;
    kf_sbuf names = {.arena = k->arena};
    for (uint32_t i = 0; i < k->c->tensors.len; i++) {
        kf_str name = k->c->tensors.data[i].t.name;
        if (k->used[i] || is_harmless_extra(spec, &k->c->tensors.data[i].t))
            continue;
        if (n < 3)
            kf_sbuf_printf(&names, "%s'%.*s'", n > 0 ? ", " : "", KF_STR_ARG(name));
        n++;
    }
    if (n > 0)
        kf_diag_add(k->diags, KF_W0102, whole(k->c->diag_file),
                    "%u tensor%s of the checkpoint %s not used: %.*s%s", n, n > 1 ? "s" : "",
                    n > 1 ? "are" : "is", KF_STR_ARG(kf_sbuf_view(&names)), n > 3 ? ", ..." : "");
}

bool kf_checkpoint_check(kf_arena *arena, kf_diags *diags, const kf_checkpoint *c,
                         const kf_spec *spec)
{
    checker k = {.arena = arena, .diags = diags, .c = c, .ok = true};
    k.used = KF_NEW_N(arena, bool, c->tensors.len + 1);
    if (kf_spec_each_param(arena, spec, check_param, &k))
        warn_unused(&k, spec);
    return k.ok;
}
