/* SPDX-License-Identifier: Apache-2.0 */
/* link - see link.h. The C compiler finds crt files and libraries; nothing here knows a
 * distribution. */
#include "driver/link.h"

#include "base/fs.h"
#include "driver/load.h"

#include <stdlib.h>
#include <string.h>

bool kf_runtime_find(kf_arena *arena, kf_diags *d, kf_runtime_paths *out)
{
    kf_str self;

    if (kf_fs_self(arena, &self) == 0) {
        kf_str root = kf_fs_join(arena, kf_fs_dirname(arena, self), KF_STR(".."));
        out->archive = kf_fs_join(arena, root, KF_STR("lib/kerf/libkf_runtime.a"));
        out->include = kf_fs_join(arena, root, KF_STR("include/kerf"));
        if (kf_fs_exists(out->archive.ptr) && kf_fs_is_dir(out->include.ptr))
            return true;
    }
    kf_diag_add(d, KF_E0604, KF_NO_LOC, "%.*s is not there", KF_STR_ARG(out->archive));
    return false;
}

#define MAX_ARGS 8192

typedef struct command {
    const char *argv[MAX_ARGS];
    uint32_t n;
} command;

static void add(command *c, const char *arg)
{
    if (c->n + 1 < MAX_ARGS)
        c->argv[c->n++] = arg;
    c->argv[c->n] = NULL;
}

/* Words of |text| as arguments. */
static void add_words(command *c, kf_arena *arena, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, " ");
        if (len)
            add(c, kf_str_dup(arena, (kf_str){text, (uint32_t)len}).ptr);
        text += len + strspn(text + len, " ");
    }
}

static bool run(const kf_link_job *job, const command *c, const char *what)
{
    kf_exit e = {0};
    int err = kf_spawn(c->argv, NULL, &e);

    if (err)
        kf_diag_add(job->diags, KF_E0601, KF_NO_LOC, "%s: cannot run %s: %s", what, c->argv[0],
                    strerror(err));
    else if (e.status != 0)
        kf_diag_add(job->diags, KF_E0601, KF_NO_LOC, "%s: %s ended with status %d", what,
                    c->argv[0], e.status);
    return !err && e.status == 0;
}

static const char *cc(void)
{
    const char *name = getenv("CC");

    return name && *name ? name : "cc";
}

static kf_str in_dir(const kf_link_job *job, const char *name)
{
    return kf_strf(job->arena, "%s/%s", job->dir, name);
}

static bool compile_host(const kf_link_job *job, const kf_runtime_paths *rt)
{
    command *c = KF_NEW(job->arena, command);

    add(c, cc());
    add_words(c, job->arena, KF_HOST_CFLAGS);
    add_words(c, job->arena,
              "-std=c11 -O1 -fPIC -g0 -Wall -Wextra -Werror -fstack-protector-strong -c -I");
    add(c, rt->include.ptr);
    add(c, job->host_c);
    add(c, "-o");
    add(c, in_dir(job, "host.o").ptr);
    return run(job, c, "host C");
}

/* Files as sections of an object, through the assembler's .incbin: the packed file in memory, the
 * plan beside it. */
static kf_str data_sections(const kf_link_job *job)
{
    kf_sbuf text = {.arena = job->arena};

    if (job->plan) {
        kf_sbuf_c(&text, ".section " KF_PLAN_SECTION ",\"R\",@progbits\n.incbin ");
        kf_sbuf_quoted(&text, kf_str_from(job->plan));
        kf_sbuf_char(&text, '\n');
    }
    if (job->embed) {
        kf_sbuf_c(&text,
                  ".section .rodata.kf_embedded,\"a\"\n.balign 4096\n.globl "
                  "kf_embedded_start\n.hidden kf_embedded_start\nkf_embedded_start:\n.incbin ");
        kf_sbuf_quoted(&text, kf_str_from(job->embed));
        kf_sbuf_c(&text, "\n.globl kf_embedded_end\n.hidden kf_embedded_end\nkf_embedded_end:\n"
                         ".byte 0\n");
    }
    kf_sbuf_c(&text, ".section .note.GNU-stack,\"\",@progbits\n");
    return kf_sbuf_view(&text);
}

static bool assemble_data(const kf_link_job *job)
{
    kf_str path = in_dir(job, "data.s");
    command *c = KF_NEW(job->arena, command);

    if (!job->embed && !job->plan)
        return true;
    if (kf_fs_write_scratch(path.ptr, data_sections(job))) {
        kf_diag_add(job->diags, KF_E0603, KF_NO_LOC, "cannot write %.*s", KF_STR_ARG(path));
        return false;
    }
    add(c, cc());
    add(c, "-c");
    add(c, path.ptr);
    add(c, "-o");
    add(c, in_dir(job, "data.o").ptr);
    return run(job, c, "data sections");
}

static void add_objects(command *c, const kf_link_job *job)
{
    add(c, in_dir(job, "host.o").ptr);
    for (uint32_t i = 0; i < job->kernels->c->plan->kernels.len; i++)
        add(c, kf_kernels_path(job->arena, job->kernels, i).ptr);
    if (job->embed || job->plan)
        add(c, in_dir(job, "data.o").ptr);
}

static bool prepare(const kf_link_job *job, kf_runtime_paths *rt)
{
    return kf_runtime_find(job->arena, job->diags, rt) && compile_host(job, rt) &&
           assemble_data(job);
}

kf_str kf_link_exe(const kf_link_job *job)
{
    kf_runtime_paths rt = {0};
    kf_str out = in_dir(job, "out");
    command *c = KF_NEW(job->arena, command);

    if (!prepare(job, &rt))
        return (kf_str){"", 0};
    add(c, cc());
    add_words(c, job->arena, KF_HOST_CFLAGS);
    add_words(c, job->arena,
              "-pie -s -Wl,--build-id=none -Wl,--gc-sections -Wl,-z,relro,-z,now,-z,noexecstack");
    add_objects(c, job);
    add(c, rt.archive.ptr);
    add_words(c, job->arena, "-Wl,-Bstatic -lpcre2-8 -lutf8proc -Wl,-Bdynamic -lpthread -lm -o");
    add(c, out.ptr);
    return run(job, c, "link") ? out : (kf_str){"", 0};
}

/* |dir|/model.o: the model's objects as one whose only global symbol is <name>_model, so that
 * several models, whose kernels have the same names, can be linked into one program. */
static bool combine(const kf_link_job *job)
{
    command *join = KF_NEW(job->arena, command), *hide = KF_NEW(job->arena, command);
    kf_str out = in_dir(job, "model.o");

    add(join, cc());
    add_words(join, job->arena, "-r -nostdlib -o");
    add(join, out.ptr);
    add_objects(join, job);
    add(hide, "objcopy");
    add(hide, kf_strf(job->arena, "--keep-global-symbol=%s_model", job->model_name).ptr);
    add(hide, out.ptr);
    return run(job, join, "join objects") && run(job, hide, "hide symbols");
}

/* One archive: the model and the runtime's objects, by an MRI script of `ar`. */
static bool archive(const kf_link_job *job, const kf_runtime_paths *rt)
{
    kf_sbuf script = {.arena = job->arena};
    kf_str path = in_dir(job, "lib.mri");
    command *c = KF_NEW(job->arena, command);

    kf_sbuf_printf(&script, "create %.*s\naddlib %.*s\naddmod %.*s\nsave\nend\n",
                   KF_STR_ARG(in_dir(job, "lib.a")), KF_STR_ARG(rt->archive),
                   KF_STR_ARG(in_dir(job, "model.o")));
    if (kf_fs_write_scratch(path.ptr, kf_sbuf_view(&script))) {
        kf_diag_add(job->diags, KF_E0603, KF_NO_LOC, "cannot write %.*s", KF_STR_ARG(path));
        return false;
    }
    add(c, "sh");
    add(c, "-c");
    add(c, "ar -M < \"$1\"");
    add(c, "ar");
    add(c, path.ptr);
    return run(job, c, "archive");
}

static bool shared_object(const kf_link_job *job, const kf_runtime_paths *rt)
{
    command *c = KF_NEW(job->arena, command);

    add(c, cc());
    add_words(c, job->arena, KF_HOST_CFLAGS);
    add_words(c, job->arena, "-shared -s -Wl,--build-id=none -Wl,-z,relro,-z,now,-z,noexecstack");
    add(c, in_dir(job, "model.o").ptr);
    add(c, "-Wl,--whole-archive");
    add(c, rt->archive.ptr);
    add_words(c, job->arena, "-Wl,--no-whole-archive -lpcre2-8 -lutf8proc -lpthread -lm -o");
    add(c, in_dir(job, "lib.so").ptr);
    return run(job, c, "shared object");
}

/* kf_model.h with the model's own function in front of its closing lines. */
static bool header(const kf_link_job *job, const kf_runtime_paths *rt)
{
    kf_str path = kf_fs_join(job->arena, rt->include, KF_STR("kf_model.h")), text;
    kf_sbuf out = {.arena = job->arena};

    if (kf_fs_read(job->arena, path.ptr, 1 << 20, &text)) {
        kf_diag_add(job->diags, KF_E0604, KF_NO_LOC, "%.*s cannot be read", KF_STR_ARG(path));
        return false;
    }
    kf_sbuf_str(&out, text);
    kf_sbuf_printf(
        &out,
        "\n/* The model in this library; give it to kf_open. */\n"
        "#ifdef __cplusplus\nextern \"C\"\n#endif\nconst struct kf_model *%s_model(void);\n",
        job->model_name);
    return kf_fs_write_scratch(in_dir(job, "lib.h").ptr, kf_sbuf_view(&out)) == 0;
}

bool kf_link_lib(const kf_link_job *job)
{
    kf_runtime_paths rt = {0};

    return prepare(job, &rt) && combine(job) && archive(job, &rt) && shared_object(job, &rt) &&
           header(job, &rt);
}
