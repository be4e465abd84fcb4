/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_run - run and bench: hand over to a produced executable, compiling a description first. */
#include "driver/spawn.h"
#include "driver/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool kf_is_executable(const char *path)
{
    char magic[4] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool elf = fd >= 0 && read(fd, magic, 4) == 4 && !memcmp(magic, "\177ELF", 4);

    if (fd >= 0)
        close(fd);
    return elf;
}

int kf_run_executable(kf_compilation *c, const char *exe, const char *verb)
{
    const char **argv = KF_NEW_N(c->arena, const char *, (uint32_t)c->opt->n_rest + 6);
    int n = 0;
    kf_exit e = {0};

    /* A name without a slash is a file here, not a command on PATH. */
    argv[n++] = strchr(exe, '/') ? exe : kf_strf(c->arena, "./%s", exe).ptr;
    argv[n++] = verb;
    if (c->opt->json)
        argv[n++] = "--json";
    if (c->opt->verbose)
        argv[n++] = "--verbose";
    if (c->opt->quiet)
        argv[n++] = "--quiet";
    for (int i = 0; i < c->opt->n_rest; i++)
        argv[n++] = c->opt->rest[i];
    int err = kf_spawn(argv, NULL, &e);
    if (err) {
        kf_diag_add(c->diags, KF_E0701, KF_NO_LOC, "%s: %s", exe, strerror(err));
        return 0;
    }
    return e.signal ? 128 + e.signal : e.status;
}

const char *kf_scratch_dir(kf_compilation *c)
{
    const char *tmp = getenv("TMPDIR");
    kf_str dir = kf_strf(c->arena, "%s/kerf-XXXXXX", tmp && *tmp ? tmp : "/tmp");

    if (mkdtemp((char *)(uintptr_t)dir.ptr))
        return dir.ptr;
    kf_diag_add(c->diags, KF_E0603, KF_NO_LOC, "%s: %s", dir.ptr, strerror(errno));
    return NULL;
}

static int compile_and_run(kf_compilation *c, const char *verb)
{
    const char *made = kf_scratch_dir(c);
    int status = 0;

    if (!made)
        return 0;
    kf_str exe = kf_strf(c->arena, "%s/model", made), kfw = kf_strf(c->arena, "%s/model.kfw", made);
    if (kf_compilation_run(c, c->opt->operand) && kf_compile_to(c, exe.ptr, false))
        status = kf_run_executable(c, exe.ptr, verb);
    unlink(exe.ptr);
    unlink(kfw.ptr);
    rmdir(made);
    return status;
}

static int run_or_bench(kf_compilation *c, const char *verb)
{
    if (kf_is_executable(c->opt->operand))
        return kf_run_executable(c, c->opt->operand, verb);
    return compile_and_run(c, verb);
}

int kf_verb_run(kf_compilation *c)
{
    return run_or_bench(c, "run");
}

int kf_verb_embed(kf_compilation *c)
{
    return run_or_bench(c, "embed");
}

int kf_verb_bench(kf_compilation *c)
{
    return run_or_bench(c, "bench");
}
