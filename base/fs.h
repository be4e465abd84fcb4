/* SPDX-License-Identifier: Apache-2.0 */
/* fs - reading files with limits and writing them so that a crash leaves the old file or the new
 * one.
 *
 * All functions return 0 or an errno value; they report nothing themselves.
 */
#ifndef KF_BASE_FS_H
#define KF_BASE_FS_H

#include "base/str.h"

/** Reads a whole regular file of at most |max_bytes| (and below 2 GiB; EFBIG beyond) into the
 * arena, NUL-terminated. EISDIR for a directory, EINVAL for any other thing that is not a regular
 * file. */
int kf_fs_read(kf_arena *arena, const char *path, uint64_t max_bytes, kf_str *out_text);

/** An output file that appears under its name only when committed: written to a temporary name in
 * the same directory, fsync'ed, renamed, directory fsync'ed. */
typedef struct kf_outfile {
    int fd;
    char *tmp_path; /* Owned; NULL when nothing is open */
    char *path;     /* Owned */
} kf_outfile;

/** Creates the temporary file; |mode| (0644, 0755) is narrowed by the umask. On failure |f| is
 * zeroed in effect: write must not follow, abandon may. */
int kf_outfile_open(kf_outfile *f, const char *path, uint32_t mode);
int kf_outfile_write(kf_outfile *f, const void *data, size_t size_bytes);
/** Makes the file durable and visible. |f| is closed afterwards, whether it worked or not. */
int kf_outfile_commit(kf_outfile *f);
/** The same without fsync, for what nothing needs after a crash of the machine: waiting for a disk
 * takes longer than making a kernel. */
int kf_outfile_commit_scratch(kf_outfile *f);
/** Removes the temporary file; safe after commit and on a zeroed struct. */
void kf_outfile_abandon(kf_outfile *f);
/** Removes the temporary files of every open kf_outfile; async-signal-safe (for SIGINT/SIGTERM). */
void kf_outfile_abandon_all(void);

/** Opens, writes |text|, commits. */
int kf_fs_write(const char *path, kf_str text, uint32_t mode);
int kf_fs_write_scratch(const char *path, kf_str text);

/** Makes the directory |path| and what is missing above it; one that is there is no error. */
int kf_fs_make_dirs(const char *path);
bool kf_fs_is_dir(const char *path);
bool kf_fs_exists(const char *path);
/** Joins two path parts with one '/'. An absolute |name| is returned as it is. */
kf_str kf_fs_join(kf_arena *arena, kf_str dir, kf_str name);
/** The directory part of |path| ("." when there is none). */
kf_str kf_fs_dirname(kf_arena *arena, kf_str path);
/** Absolute path of the running executable. */
int kf_fs_self(kf_arena *arena, kf_str *out_path);

#endif
