/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/cpu/kernel_loader.h"

#include <dlfcn.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct kf_kernel_library {
    void *handle;
};

static bool write_file(const char *path, kf_str bytes)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return false;
    const bool written = fwrite(bytes.ptr, 1, bytes.len, f) == bytes.len;
    return fclose(f) == 0 && written;
}

static bool link_shared(const char *object, const char *shared)
{
    char *argv[] = {"cc", "-shared", "-nostdlib", "-o", (char *)shared, (char *)object, NULL};
    pid_t child = 0;
    int status = 0;
    if (posix_spawnp(&child, "cc", NULL, NULL, argv, environ) != 0)
        return false;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

kf_kernel_library *kf_kernel_library_open(kf_arena *arena, kf_str object, kf_str *out_error)
{
    const char *tmp = getenv("TMPDIR");
    kf_str dir = kf_strf(arena, "%s/kerf-kernels-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp((char *)dir.ptr)) {
        *out_error = kf_strf(arena, "cannot make a temporary directory %s", dir.ptr);
        return NULL;
    }
    const char *o = kf_strf(arena, "%s/kernels.o", dir.ptr).ptr;
    const char *so = kf_strf(arena, "%s/kernels.so", dir.ptr).ptr;
    void *handle = NULL;
    if (!write_file(o, object))
        *out_error = kf_strf(arena, "cannot write %s", o);
    else if (!link_shared(o, so))
        *out_error = kf_strf(arena, "cc could not link %s", o);
    else if (!(handle = dlopen(so, RTLD_NOW | RTLD_LOCAL)))
        *out_error = kf_str_dup(arena, kf_str_from(dlerror()));
    unlink(o);
    unlink(so);
    rmdir(dir.ptr);
    if (!handle)
        return NULL;
    kf_kernel_library *lib = KF_NEW(arena, kf_kernel_library);
    lib->handle = handle;
    return lib;
}

void kf_kernel_library_close(kf_kernel_library *lib)
{
    if (lib)
        dlclose(lib->handle);
}

kf_kernel_fn kf_kernel_library_find(const kf_kernel_library *lib, const char *name)
{
    kf_kernel_fn fn = NULL;
    void *symbol = dlsym(lib->handle, name);
    memcpy(&fn, &symbol, sizeof fn); /* ISO C has no cast from object to function pointers */
    return fn;
}
