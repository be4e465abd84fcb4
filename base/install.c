/* SPDX-License-Identifier: Apache-2.0 */
/* install - paths relative to /proc/self/exe, each checked once. */
#include "base/install.h"

#include "base/fs.h"

#include <errno.h>

int kf_install_find(kf_arena *arena, kf_install *out_install, kf_str *out_missing)
{
    kf_str self;
    int err = kf_fs_self(arena, &self);
    if (err)
        return err;
    kf_str prefix = kf_fs_dirname(arena, kf_fs_dirname(arena, self));
    out_install->runtime_archive = kf_fs_join(arena, prefix, KF_STR("lib/kerf/libkf_runtime.a"));
    out_install->include_dir = kf_fs_join(arena, prefix, KF_STR("include/kerf"));
    kf_str needed[] = {
        out_install->runtime_archive,
        kf_fs_join(arena, out_install->include_dir, KF_STR("kf_runtime.h")),
    };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (!kf_fs_exists(needed[i].ptr)) {
            *out_missing = needed[i];
            return ENOENT;
        }
    }
    return 0;
}
