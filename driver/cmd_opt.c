/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_opt - passes over textual IR, for developers and for tests. */
#include "base/fs.h"
#include "driver/load.h"
#include "driver/verbs.h"
#include "ir/text.h"

#include <string.h>

static void list_passes(void)
{
    static const char *const kinds[] = {"opt", "fuse", "required"};

    for (int i = 0; i < KF_PASS_COUNT; i++)
        printf("%-16s %-9s %s\n", kf_pass_infos[i].name, kinds[kf_pass_infos[i].kind],
               kf_pass_infos[i].summary);
}

int kf_verb_opt(kf_compilation *c)
{
    kf_sbuf module = {.arena = c->arena}, text = {.arena = c->arena};

    if (c->opt->help_passes) {
        list_passes();
        return 0;
    }
    if (!kf_compilation_target(c) || !kf_module_load(c, c->opt->operand) ||
        !kf_compilation_fuse(c, NULL))
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
