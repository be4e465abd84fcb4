/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/probe.h"

#include "base/fs.h"
#include "driver/spawn.h"
#include "runtime/kf_artifact.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PROBE_IDS   12u
#define SEARCH_STEP 4096u /* the packed file keeps its alignment inside an executable */
#define EXIT_DEVICE 6

/* Fixed ids spread over the vocabulary (Knuth's multiplicative hash). */
static uint32_t fill_ids(int32_t *ids, const kf_probe_model *m)
{
    uint32_t n = m->max_tokens < PROBE_IDS ? (uint32_t)m->max_tokens : PROBE_IDS;

    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i + 1) * 2654435761u % (uint64_t)m->vocab);
    return n;
}

static void seal(char *section, uint64_t size)
{
    uint64_t digest = kf_digest_bytes(section + sizeof digest, size - sizeof digest);

    memcpy(section, &digest, sizeof digest);
}

kf_str kf_probe_section(kf_arena *arena, const kf_probe_model *m)
{
    int32_t ids[PROBE_IDS];
    uint64_t size = sizeof(kf_probe_header) + 4 * (fill_ids(ids, m) + (uint64_t)m->width);
    char *section = kf_arena_alloc(arena, size, 8);

    memset(section, 0, size);
    seal(section, size);
    return (kf_str){section, (uint32_t)size};
}

/* ---- The packed file inside a file ----------------------------------------------------------- */

static bool read_at(int fd, void *out, size_t size, uint64_t at)
{
    return pread(fd, out, size, (off_t)at) == (ssize_t)size;
}

/* Where the packed file begins in |fd|: at the start, or, if embedded, at the first header whose
 * digest is right. */
static bool find_packed(int fd, bool embedded, uint64_t *out_at, kf_artifact_section *out_probe)
{
    kf_artifact_header h;
    kf_artifact_section table[KF_ARTIFACT_MAX_SECTIONS];

    for (uint64_t at = 0; read_at(fd, &h, sizeof h, at); at += SEARCH_STEP) {
        if (memcmp(h.magic, KF_ARTIFACT_MAGIC, sizeof h.magic) == 0 &&
            h.n_sections <= KF_ARTIFACT_MAX_SECTIONS &&
            read_at(fd, table, h.n_sections * sizeof *table, at + sizeof h) &&
            kf_artifact_header_digest(&h, table) == h.header_digest) {
            for (uint32_t i = 0; i < h.n_sections; i++)
                if (table[i].kind == KF_SECTION_PROBE) {
                    *out_at = at;
                    *out_probe = table[i];
                    return true;
                }
        }
        if (!embedded)
            return false;
    }
    return false;
}

/* The last |n| numbers of a .npy file of f32, or NULL: the row of the last token. */
static const char *npy_data(kf_str file, uint64_t n)
{
    const unsigned char *p = (const unsigned char *)file.ptr;
    uint64_t head = file.len < 10 ? 0 : 10 + ((uint64_t)p[8] | (uint64_t)p[9] << 8);

    return head && file.len >= head + 4 * n ? file.ptr + (file.len - 4 * n) : NULL;
}

static bool write_probe(kf_arena *arena, int fd, bool embedded, const int32_t *ids, uint32_t n_ids,
                        kf_str npy)
{
    kf_artifact_section s;
    uint64_t packed_at;

    if (!find_packed(fd, embedded, &packed_at, &s))
        return false;
    uint64_t n_logits = (s.size_bytes - sizeof(kf_probe_header)) / 4 - n_ids;
    kf_probe_header h = {0, n_ids, (uint32_t)n_logits};
    const char *data = npy_data(npy, n_logits);
    char *section = kf_arena_alloc(arena, s.size_bytes, 8);
    if (!data)
        return false;
    memcpy(section, &h, sizeof h);
    memcpy(section + sizeof h, ids, 4 * n_ids);
    memcpy(section + sizeof h + 4 * n_ids, data, 4 * n_logits);
    seal(section, s.size_bytes);
    return pwrite(fd, section, s.size_bytes, (off_t)(packed_at + s.offset)) ==
               (ssize_t)s.size_bytes &&
           fsync(fd) == 0;
}

static kf_str join_ids(kf_arena *arena, const int32_t *ids, uint32_t n)
{
    kf_sbuf text = {.arena = arena};

    for (uint32_t i = 0; i < n; i++)
        kf_sbuf_printf(&text, "%s%d", i ? "," : "", ids[i]);
    return kf_str_dup(arena, kf_sbuf_view(&text));
}

kf_probe_result kf_probe_store(kf_arena *arena, const char *dir, bool embedded,
                               const kf_probe_model *m)
{
    kf_str exe = kf_strf(arena, "%s/out", dir), npy = kf_strf(arena, "%s/probe.npy", dir), logits;
    kf_str file = embedded ? exe : kf_strf(arena, "%s/out.kfw", dir);
    int32_t ids[PROBE_IDS];
    uint32_t n_ids = fill_ids(ids, m);
    const char *text = join_ids(arena, ids, n_ids).ptr;
    const char *const run[] = {exe.ptr, "run", "--ids",    text,    "-n",
                               "0",     "-q",  "--logits", npy.ptr, NULL};
    const char *const embed[] = {exe.ptr, "embed", "--ids", text, "-q", "--npy", npy.ptr, NULL};
    kf_exit end = {-1, 0};

    if (kf_spawn(m->encoder ? embed : run, "/dev/null", &end) || end.status != 0)
        return end.status == EXIT_DEVICE ? KF_PROBE_OTHER_CPU : KF_PROBE_FAILED;
    if (kf_fs_read(arena, npy.ptr, 1u << 30, &logits))
        return KF_PROBE_FAILED;
    int fd = open(file.ptr, O_RDWR | O_CLOEXEC);
    bool ok = fd >= 0 && write_probe(arena, fd, embedded, ids, n_ids, logits);
    if (fd >= 0)
        close(fd);
    return ok ? KF_PROBE_STORED : KF_PROBE_FAILED;
}
