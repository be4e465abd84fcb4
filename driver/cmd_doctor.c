/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_doctor - what compiling and running need on this machine, found or not. */
#include "base/json.h"
#include "codegen/cpu/arch.h"
#include "codegen/llvm_backend.h"
#include "driver/link.h"
#include "driver/verbs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

typedef struct finding {
    const char *what;
    bool ok;
    kf_str detail;
} finding;

static finding find_cc(kf_compilation *c)
{
    const char *cc = getenv("CC");
    const char *const argv[] = {cc && *cc ? cc : "cc", "--version", NULL};
    kf_exit e = {0};
    int err = kf_spawn(argv, "/dev/null", &e);

    return (finding){"C compiler", !err && e.status == 0, kf_strf(c->arena, "%s", argv[0])};
}

static finding find_runtime(kf_compilation *c)
{
    kf_arena *a = c->arena;
    kf_diags *quiet = kf_diags_create(a);
    kf_runtime_paths paths = {0};
    bool ok = kf_runtime_find(a, quiet, &paths);

    return (finding){"runtime", ok, ok ? KF_STR("lib/kerf and include/kerf") : paths.archive};
}

static finding find_cpu(kf_compilation *c)
{
    kf_cpu_arch arch;
    bool ok = kf_cpu_arch_find("native", &arch);

    return (finding){"processor", ok,
                     ok ? kf_strf(c->arena, "%u vector lanes, runs cpu:%s", arch.lanes,
                                  arch.lanes == 16 ? "x86-64-v4" : "x86-64-v3")
                        : KF_STR("below x86-64-v3: executables for `cpu` will not start here")};
}

static finding find_space(kf_compilation *c)
{
    struct statvfs v;
    bool ok = statvfs(".", &v) == 0;
    double gib = ok ? (double)v.f_bavail * (double)v.f_frsize / (1u << 30) : 0;

    return (finding){"disk", ok && gib > 0.1, kf_strf(c->arena, "%.1f GiB free here", gib)};
}

static void print_json(kf_compilation *c, const finding *f, uint32_t n)
{
    kf_sbuf text = {.arena = c->scratch};
    kf_json w = {.out = &text};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.doctor.1"));
    kf_json_key(&w, "findings");
    kf_json_open(&w, '[');
    for (uint32_t i = 0; i < n; i++) {
        kf_json_open(&w, '{');
        kf_json_kstr(&w, "what", kf_str_from(f[i].what));
        kf_json_kbool(&w, "ok", f[i].ok);
        kf_json_kstr(&w, "detail", f[i].detail);
        kf_json_close(&w, '}');
    }
    kf_json_close(&w, ']');
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
}

int kf_verb_doctor(kf_compilation *c)
{
    finding f[] = {
        {"kerf", true, KF_STR(KF_VERSION)},
        {"LLVM", true, kf_str_from(kf_llvm_version())},
        find_cc(c),
        find_runtime(c),
        find_cpu(c),
        find_space(c),
    };
    uint32_t n = sizeof f / sizeof f[0];
    bool all = true;

    for (uint32_t i = 0; i < n; i++)
        all &= f[i].ok;
    if (c->opt->json)
        print_json(c, f, n);
    for (uint32_t i = 0; !c->opt->json && i < n; i++)
        printf("%-4s %-12s %.*s\n", f[i].ok ? "ok" : "FAIL", f[i].what, KF_STR_ARG(f[i].detail));
    return all ? 0 : 6;
}
