/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_explain - every fusion candidate by place, taken or refused and why; or the text of a
 * diagnostic. */
#include "base/json.h"
#include "driver/verbs.h"

#include <string.h>

/** A row of diag.def or of reasons.def; exit_status is below 0 where there is none. */
typedef struct code_text {
    const char *kind, *title, *text;
    int exit_status;
} code_text;

static bool find_code(const char *word, code_text *out)
{
    kf_diag_code code;

    if (kf_diag_find(kf_str_from(word), &code)) {
        const kf_diag_info *i = &kf_diag_infos[code];
        *out = (code_text){i->severity == KF_ERROR ? "error" : "warning", i->title, i->explain,
                           i->exit_status};
        return true;
    }
    for (int r = 1; r < KF_REASON_COUNT; r++) {
        if (strcmp(word, kf_reason_codes[r]))
            continue;
        *out = (code_text){"refusal", "a fusion was refused", kf_reason_texts[r], -1};
        return true;
    }
    return false;
}

static void print_code(const kf_compilation *c, const code_text *t)
{
    kf_sbuf text = {.arena = c->scratch};
    kf_json w = {.out = &text};

    if (!c->opt->json) {
        printf("%s: %s (%s", c->opt->operand, t->title, t->kind);
        if (t->exit_status >= 0)
            printf(", exit %d", t->exit_status);
        printf(")\n%s\n", t->text);
        return;
    }
    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.code.1"));
    kf_json_kstr(&w, "code", kf_str_from(c->opt->operand));
    kf_json_kstr(&w, "kind", kf_str_from(t->kind));
    kf_json_kstr(&w, "title", kf_str_from(t->title));
    kf_json_kstr(&w, "text", kf_str_from(t->text));
    kf_json_key(&w, "exit_status");
    if (t->exit_status < 0)
        kf_json_null(&w);
    else
        kf_json_int(&w, t->exit_status);
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
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
    code_text known;

    if (find_code(c->opt->operand, &known)) {
        print_code(c, &known);
        return 0;
    }
    if (!kf_compilation_load(c, c->opt->operand) || !kf_compilation_target(c) ||
        !kf_compilation_graph(c) || !kf_compilation_fuse(c, NULL))
        return 0;
    if (c->opt->json)
        print_json(c);
    else
        print_text(c);
    return 0;
}
