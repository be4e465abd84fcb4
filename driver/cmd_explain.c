/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_explain - every fusion candidate by place, taken or refused and why; or the text of a
 * diagnostic. */
#include "base/json.h"
#include "driver/verbs.h"

#include <string.h>

static bool explain_code(const char *word)
{
    kf_diag_code code;

    if (kf_diag_find(kf_str_from(word), &code)) {
        const kf_diag_info *i = &kf_diag_infos[code];
        printf("%s: %s (%s, exit %d)\n%s\n", i->name, i->title,
               i->severity == KF_ERROR ? "error" : "warning", i->exit_status, i->explain);
        return true;
    }
    for (int r = 1; r < KF_REASON_COUNT; r++) {
        if (!strcmp(word, kf_reason_codes[r])) {
            printf("%s: a fusion was refused: %s\n", word, kf_reason_texts[r]);
            return true;
        }
    }
    return false;
}

static kf_str file_of(const kf_compilation *c, kf_loc loc)
{
    return loc.file ? c->module->files.data[loc.file - 1] : (kf_str){"", 0};
}

static void print_json(const kf_compilation *c)
{
    kf_sbuf text = {.arena = c->scratch};
    kf_json w = {.out = &text};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.explain.1"));
    kf_json_key(&w, "candidates");
    kf_json_open(&w, '[');
    for (uint32_t i = 0; i < c->passes.candidates.len; i++) {
        const kf_candidate *k = &c->passes.candidates.data[i];
        kf_json_open(&w, '{');
        kf_json_kstr(&w, "pass", kf_str_from(kf_pass_infos[k->pass].name));
        kf_json_kstr(&w, "status", k->reason ? KF_STR("refused") : KF_STR("fused"));
        kf_json_kstr(&w, "code", kf_str_from(kf_reason_codes[k->reason]));
        kf_json_kstr(&w, "reason", kf_str_from(kf_reason_texts[k->reason]));
        kf_json_kstr(&w, "detail", k->detail);
        kf_json_kstr(&w, "subject", k->subject);
        kf_json_kstr(&w, "function", k->func);
        kf_json_kstr(&w, "file", file_of(c, k->loc));
        kf_json_kint(&w, "line", k->loc.line);
        kf_json_kint(&w, "col", k->loc.col);
        kf_json_close(&w, '}');
    }
    kf_json_close(&w, ']');
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
}

static void print_text(const kf_compilation *c)
{
    for (uint32_t i = 0; i < c->passes.candidates.len; i++) {
        const kf_candidate *k = &c->passes.candidates.data[i];
        kf_str file = file_of(c, k->loc);
        printf("%-8s%.*s:%u:%u: %.*s  [%s, @%.*s]\n", k->reason ? "refused" : "fused",
               KF_STR_ARG(file), k->loc.line, k->loc.col, KF_STR_ARG(k->subject),
               kf_pass_infos[k->pass].name, KF_STR_ARG(k->func));
        if (k->reason)
            printf("        %s: %s%s%.*s\n", kf_reason_codes[k->reason], kf_reason_texts[k->reason],
                   k->detail.len ? ": " : "", KF_STR_ARG(k->detail));
    }
}

int kf_verb_explain(kf_compilation *c)
{
    if (explain_code(c->opt->operand))
        return 0;
    if (!kf_compilation_load(c, c->opt->operand) || !kf_compilation_target(c) ||
        !kf_compilation_graph(c) || !kf_compilation_fuse(c, NULL))
        return 0;
    if (c->opt->json)
        print_json(c);
    else
        print_text(c);
    return 0;
}
