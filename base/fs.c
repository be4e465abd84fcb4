/* SPDX-License-Identifier: Apache-2.0 */
/* fs - files by system calls, so that every failure is an errno value and nothing is buffered. */
#define _GNU_SOURCE /* asprintf */
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_OPEN_OUTFILES = 64, MAX_TMP_TRIES = 1000, MAX_IO_BYTES = 1 << 30 };

/* Temporary names of open output files, for the signal handler; an entry is set before the file
 * exists and cleared after it is gone. Process-wide because signals are. */
static _Atomic(char *) open_tmp_paths[MAX_OPEN_OUTFILES];

/* ---- reading --------------------------------------------------------------------------------- */

static int read_all(int fd, char *buf, size_t size, size_t *out_got)
{
    size_t got = 0;
    while (got < size) {
        size_t want = size - got < MAX_IO_BYTES ? size - got : MAX_IO_BYTES;
        ssize_t n = read(fd, buf + got, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    *out_got = got;
    return 0;
}

static int read_open(kf_arena *arena, int fd, uint64_t max_bytes, kf_str *out_text)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (!S_ISREG(st.st_mode))
        return EINVAL;
    if ((uint64_t)st.st_size > max_bytes || st.st_size >= INT32_MAX)
        return EFBIG;
    size_t size = (size_t)st.st_size;
    char *buf = kf_arena_alloc(arena, size + 1, 1);
    size_t got = 0;
    int err = read_all(fd, buf, size, &got);
    if (err)
        return err;
    *out_text = (kf_str){buf, (uint32_t)got};
    return 0;
}

int kf_fs_read(kf_arena *arena, const char *path, uint64_t max_bytes, kf_str *out_text)
{
    /* O_NONBLOCK: a FIFO named as input must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno;
    int err = read_open(arena, fd, max_bytes, out_text);
    close(fd);
    return err;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Takes a slot for |tmp_path|; false when all are in use. */
static bool register_tmp(char *tmp_path)
{
    for (int i = 0; i < MAX_OPEN_OUTFILES; i++) {
        char *expected = NULL;
        if (atomic_compare_exchange_strong(&open_tmp_paths[i], &expected, tmp_path))
            return true;
    }
    return false;
}

static void unregister_tmp(char *tmp_path)
{
    for (int i = 0; i < MAX_OPEN_OUTFILES; i++) {
        char *expected = tmp_path;
        if (atomic_compare_exchange_strong(&open_tmp_paths[i], &expected, NULL))
            return;
    }
}

static void release(kf_outfile *f)
{
    unregister_tmp(f->tmp_path);
    free(f->tmp_path);
    free(f->path);
    *f = (kf_outfile){.fd = -1};
}

static int open_tmp(kf_outfile *f, const char *path, unsigned attempt, uint32_t mode)
{
    if (asprintf(&f->tmp_path, "%s.%ld.%u.tmp", path, (long)getpid(), attempt) < 0) {
        f->tmp_path = NULL;
        return ENOMEM;
    }
    f->path = strdup(path);
    int err = 0;
    if (!f->path)
        err = ENOMEM;
    else if (!register_tmp(f->tmp_path))
        err = EMFILE;
    if (!err) {
        f->fd = open(f->tmp_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
        err = f->fd < 0 ? errno : 0;
    }
    if (err)
        release(f);
    return err;
}

int kf_outfile_open(kf_outfile *f, const char *path, uint32_t mode)
{
    *f = (kf_outfile){.fd = -1};
    int err = EEXIST;
    for (unsigned attempt = 0; err == EEXIST && attempt < MAX_TMP_TRIES; attempt++)
        err = open_tmp(f, path, attempt, mode);
    return err;
}

int kf_outfile_write(kf_outfile *f, const void *data, size_t size_bytes)
{
    const char *p = data;
    while (size_bytes > 0) {
        size_t chunk = size_bytes < MAX_IO_BYTES ? size_bytes : MAX_IO_BYTES;
        ssize_t n = write(f->fd, p, chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        p += n;
        size_bytes -= (size_t)n;
    }
    return 0;
}

static int sync_dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!dir)
        return ENOMEM;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 ? errno : 0;
    free(dir);
    if (err)
        return err;
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) /* some file systems cannot */
        err = errno;
    close(fd);
    return err;
}

static int commit(kf_outfile *f, bool durable)
{
    int err = durable && fsync(f->fd) != 0 ? errno : 0;
    if (close(f->fd) != 0 && !err)
        err = errno;
    f->fd = -1;
    if (!err && rename(f->tmp_path, f->path) != 0)
        err = errno;
    if (err) {
        kf_outfile_abandon(f);
        return err;
    }
    err = durable ? sync_dir_of(f->path) : 0;
    release(f);
    return err;
}

int kf_outfile_commit(kf_outfile *f)
{
    return commit(f, true);
}

int kf_outfile_commit_scratch(kf_outfile *f)
{
    return commit(f, false);
}

void kf_outfile_abandon(kf_outfile *f)
{
    if (!f->tmp_path)
        return;
    if (f->fd >= 0)
        close(f->fd);
    unlink(f->tmp_path);
    release(f);
}

void kf_outfile_abandon_all(void)
{
    for (int i = 0; i < MAX_OPEN_OUTFILES; i++) {
        char *path = atomic_load(&open_tmp_paths[i]);
        if (path)
            unlink(path);
    }
}

static int write_whole(const char *path, kf_str text, uint32_t mode, bool durable)
{
    kf_outfile f;
    int err = kf_outfile_open(&f, path, mode);
    if (err)
        return err;
    err = kf_outfile_write(&f, text.ptr, text.len);
    if (err) {
        kf_outfile_abandon(&f);
        return err;
    }
    return commit(&f, durable);
}

int kf_fs_write(const char *path, kf_str text, uint32_t mode)
{
    return write_whole(path, text, mode, true);
}

int kf_fs_write_scratch(const char *path, kf_str text)
{
    return write_whole(path, text, 0644, false);
}

/* ---- paths ----------------------------------------------------------------------------------- */

int kf_fs_make_dirs(const char *path)
{
    char *copy = strdup(path);
    int err = copy ? 0 : ENOMEM;

    for (char *p = copy; p && *p && !err; p++) {
        if (p == copy || *p != '/')
            continue;
        *p = 0;
        err = mkdir(copy, 0777) == 0 || errno == EEXIST ? 0 : errno;
        *p = '/';
    }
    if (!err && mkdir(copy, 0777) != 0)
        err = errno != EEXIST ? errno : kf_fs_is_dir(copy) ? 0 : ENOTDIR;
    free(copy);
    return err;
}

bool kf_fs_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool kf_fs_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

kf_str kf_fs_join(kf_arena *arena, kf_str dir, kf_str name)
{
    if (dir.len == 0 || (name.len > 0 && name.ptr[0] == '/'))
        return kf_str_dup(arena, name);
    const char *sep = dir.ptr[dir.len - 1] == '/' ? "" : "/";
    return kf_strf(arena, "%.*s%s%.*s", KF_STR_ARG(dir), sep, KF_STR_ARG(name));
}

kf_str kf_fs_dirname(kf_arena *arena, kf_str path)
{
    uint32_t end = path.len;
    while (end > 1 && path.ptr[end - 1] == '/')
        end--;
    while (end > 0 && path.ptr[end - 1] != '/')
        end--;
    if (end == 0)
        return KF_STR(".");
    while (end > 1 && path.ptr[end - 1] == '/')
        end--;
    return kf_str_dup(arena, (kf_str){path.ptr, end});
}

int kf_fs_self(kf_arena *arena, kf_str *out_path)
{
    char buf[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", buf, sizeof buf);
    if (n < 0)
        return errno;
    if ((size_t)n == sizeof buf)
        return ENAMETOOLONG;
    *out_path = kf_str_dup(arena, (kf_str){buf, (uint32_t)n});
    return 0;
}
