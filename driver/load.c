/* SPDX-License-Identifier: Apache-2.0 */
/* load - see load.h. */
#include "driver/load.h"

#include "base/fs.h"
#include "driver/verbs.h"
#include "ir/phase.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_KIR_BYTES (64u << 20)

/* ---- textual IR ------------------------------------------------------------------------------ */

bool kf_is_kir(const char *path)
{
    size_t len = strlen(path);

    return !strcmp(path, "-") || (len > 4 && !strcmp(path + len - 4, ".kir"));
}

static int read_stdin(kf_arena *arena, kf_str *out)
{
    kf_sbuf text = {.arena = arena};
    char chunk[4096];
    size_t n;

    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0 && text.len <= MAX_KIR_BYTES)
        kf_sbuf_str(&text, (kf_str){chunk, (uint32_t)n});
    *out = kf_sbuf_view(&text);
    return text.len > MAX_KIR_BYTES ? EFBIG : ferror(stdin) ? errno : 0;
}

/* The text of |path| ("-": standard input); false after E0701. */
static bool read_kir(kf_compilation *c, const char *path, kf_str *out)
{
    int err = strcmp(path, "-") ? kf_fs_read(c->arena, path, MAX_KIR_BYTES, out)
                                : read_stdin(c->arena, out);

    if (err)
        kf_diag_add(c->diags, KF_E0701, KF_NO_LOC, "%s: %s", path,
                    err == EINVAL ? "not a regular file; '-' reads standard input" : strerror(err));
    return err == 0;
}

static bool verified(kf_compilation *c, const char *path, bool ok, const kf_sbuf *why)
{
    if (ok)
        return true;
    kf_diag_add(c->diags, KF_E0503, KF_NO_LOC, "the verifier refuses %s", path);
    fprintf(stderr, "%.*s\n", KF_STR_ARG(kf_sbuf_view(why)));
    return false;
}

static bool parse_module(kf_compilation *c, const char *path, kf_str text)
{
    kf_sbuf why = {.arena = c->scratch};

    c->module = kf_module_parse(c->arena, c->diags, kf_str_from(path), text);
    return c->module && verified(c, path, kf_module_verify(c->module, KF_VERIFY_GRAPH, &why), &why);
}

bool kf_module_load(kf_compilation *c, const char *path)
{
    kf_str text;

    return read_kir(c, path, &text) && parse_module(c, path, text);
}

/* ---- sections of executables ----------------------------------------------------------------- */

static bool read_at(int fd, void *out, size_t size, uint64_t at)
{
    return at <= INT64_MAX && pread(fd, out, size, (off_t)at) == (ssize_t)size;
}

/* The bytes of section |h|, as text that ends in NUL; empty if they cannot be read. */
static kf_str section_bytes(kf_arena *arena, int fd, const Elf64_Shdr *h)
{
    if (h->sh_type == SHT_NOBITS || h->sh_size > MAX_KIR_BYTES)
        return (kf_str){"", 0};
    char *data = KF_NEW_N(arena, char, h->sh_size + 1);
    if (!read_at(fd, data, h->sh_size, h->sh_offset))
        return (kf_str){"", 0};
    return (kf_str){data, (uint32_t)h->sh_size};
}

static bool is_named(kf_str names, uint32_t at, const char *name)
{
    return at < names.len && !strcmp(names.ptr + at, name); /* names ends in NUL */
}

static kf_str find_section(kf_arena *arena, int fd, const char *name)
{
    Elf64_Ehdr e;
    Elf64_Shdr h;
    kf_str names = {"", 0};

    if (!read_at(fd, &e, sizeof e, 0) || e.e_ident[EI_CLASS] != ELFCLASS64 ||
        e.e_ident[EI_DATA] != ELFDATA2LSB || e.e_shentsize != sizeof h)
        return names;
    if (!read_at(fd, &h, sizeof h, e.e_shoff + (uint64_t)e.e_shstrndx * sizeof h))
        return names;
    names = section_bytes(arena, fd, &h);
    for (uint32_t i = 0; i < e.e_shnum; i++)
        if (read_at(fd, &h, sizeof h, e.e_shoff + (uint64_t)i * sizeof h) &&
            is_named(names, h.sh_name, name))
            return section_bytes(arena, fd, &h);
    return (kf_str){"", 0};
}

/* Contents of section |name| of an ELF64 file, or an empty string. */
static kf_str elf_section(kf_arena *arena, const char *path, const char *name)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    kf_str found = {"", 0};

    if (fd < 0)
        return found;
    found = find_section(arena, fd, name);
    close(fd);
    return found;
}

/* ---- plans ----------------------------------------------------------------------------------- */

static bool parse_plan(kf_compilation *c, const char *path, kf_str text)
{
    kf_sbuf why = {.arena = c->scratch};

    c->plan = kf_plan_parse(c->arena, c->diags, kf_str_from(path), text);
    return c->plan && verified(c, path, kf_plan_verify(c->plan, &why), &why);
}

static bool plan_of_exe(kf_compilation *c, const char *path)
{
    kf_str text = elf_section(c->arena, path, KF_PLAN_SECTION);

    if (text.len)
        return parse_plan(c, path, text);
    kf_diag_add(c->diags, KF_E0701, KF_NO_LOC, "%s: not an executable that kerf made", path);
    return false;
}

/* A graph goes through the passes; a fused one, which has its phases, is scheduled as it is. */
static bool plan_of_module(kf_compilation *c, const char *path)
{
    kf_sbuf why = {.arena = c->scratch};

    if (kf_module_entry(c->module) && !kf_compilation_fuse(c, NULL))
        return false;
    if (kf_schedule_can(c->module, c->target, &why))
        return kf_compilation_plan(c);
    kf_diag_add(c->diags, KF_E0503, KF_NO_LOC, "%s holds no plan, and none can be made of it: %.*s",
                path, KF_STR_ARG(kf_sbuf_view(&why)));
    return false;
}

/* The first word that is not in a comment. */
static bool is_plan(kf_str text)
{
    uint32_t i = 0;

    while (i < text.len && (text.ptr[i] == ';' || text.ptr[i] <= ' ')) {
        if (text.ptr[i] == ';')
            while (i < text.len && text.ptr[i] != '\n')
                i++;
        else
            i++;
    }
    return kf_str_starts_with((kf_str){text.ptr + i, text.len - i}, "plan ");
}

static bool plan_of_kir(kf_compilation *c, const char *path)
{
    kf_str text;

    if (!read_kir(c, path, &text))
        return false;
    if (is_plan(text))
        return parse_plan(c, path, text);
    return kf_compilation_target(c) && parse_module(c, path, text) && plan_of_module(c, path);
}

bool kf_plan_load(kf_compilation *c, const char *path)
{
    if (kf_is_executable(path))
        return plan_of_exe(c, path);
    return kf_is_kir(path) ? plan_of_kir(c, path) : kf_compilation_run(c, path);
}
