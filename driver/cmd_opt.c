/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_opt - passes over textual IR, for developers and for tests. */
#include "base/fs.h"
#include "driver/verbs.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <string.h>
#include <unistd.h>

#define MAX_KIR_BYTES (64u << 20)

static void list_passes(void)
{
    static const char *const kinds[] = {"opt", "fuse", "required"};

    for (int i = 0; i < KF_PASS_COUNT; i++)
        printf("%-16s %-9s %s\n", kf_pass_infos[i].name, kinds[kf_pass_infos[i].kind],
               kf_pass_infos[i].summary);
}

static kf_str read_stdin(kf_arena *arena)
{
    kf_sbuf text = {.arena = arena};
    char chunk[4096];
    size_t n;

    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0 && text.len < MAX_KIR_BYTES)
        kf_sbuf_str(&text, (kf_str){chunk, (uint32_t)n});
    return kf_sbuf_view(&text);
}

static bool read_module(kf_compilation *c)
{
    const char *path = c->opt->operand;
    kf_str text = {"", 0};
    kf_sbuf why = {.arena = c->scratch};

    if (!strcmp(path, "-"))
        text = read_stdin(c->arena);
    else {
        int err = kf_fs_read(c->arena, path, MAX_KIR_BYTES, &text);
        if (err) {
            kf_diag_add(c->diags, KF_E0701, KF_NO_LOC, "%s: %s", path, strerror(err));
            return false;
        }
    }
    c->module = kf_module_parse(c->arena, c->diags, kf_str_from(path), text);
    if (!c->module || kf_module_verify(c->module, KF_VERIFY_GRAPH, &why))
        return c->module != NULL;
    kf_diag_add(c->diags, KF_E0503, KF_NO_LOC, "the verifier refuses %s", path);
    fprintf(stderr, "%.*s\n", KF_STR_ARG(kf_sbuf_view(&why)));
    return false;
}

int kf_verb_opt(kf_compilation *c)
{
    kf_sbuf module = {.arena = c->arena}, text = {.arena = c->arena};

    if (c->opt->help_passes) {
        list_passes();
        return 0;
    }
    if (!kf_compilation_target(c) || !read_module(c) || !kf_compilation_fuse(c, NULL))
        return 0;
    kf_module_print(c->module, c->opt->canonical ? KF_PRINT_CANONICAL : KF_PRINT_LOCS, &module);
    if (c->opt->json) {
        kf_stage_json(c->module->name, "opt", kf_sbuf_view(&module), &text);
        kf_sbuf_char(&text, '\n');
    } else
        kf_sbuf_str(&text, kf_sbuf_view(&module));
    if (!c->opt->output) {
        printf("%.*s", KF_STR_ARG(kf_sbuf_view(&text)));
        return 0;
    }
    int err = kf_fs_write(c->opt->output, kf_sbuf_view(&text), 0644);
    if (err)
        kf_diag_add(c->diags, KF_E0603, KF_NO_LOC, "%s: %s", c->opt->output, strerror(err));
    return 0;
}
