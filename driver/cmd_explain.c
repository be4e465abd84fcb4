/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_explain - every fusion candidate by place, taken or refused and why; or the text of a
 * diagnostic. */
#include "base/fs.h"
#include "base/json.h"
#include "driver/verbs.h"

#include <ctype.h>
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
        *out = (code_text){"refusal", kf_reason_texts[r], kf_reason_helps[r], -1};
        return true;
    }
    return false;
}

/* The operand as codes are written, if it looks like one and is no file: a letter, four digits. */
static const char *code_word(const kf_compilation *c)
{
    const char *word = c->opt->operand;

    if (strlen(word) != 5 || !isalpha((unsigned char)word[0]) ||
        strspn(word + 1, "0123456789") != 4 || kf_fs_exists(word))
        return NULL;
    return kf_strf(c->arena, "%c%s", toupper((unsigned char)word[0]), word + 1).ptr;
}

static void print_code(const kf_compilation *c, const char *code, const code_text *t)
{
    kf_sbuf text = {.arena = c->scratch};
    kf_json w = {.out = &text};

    if (!c->opt->json) {
        printf("%s: %s (%s", code, t->title, t->kind);
        if (t->exit_status >= 0)
            printf(", exit %d", t->exit_status);
        printf(")\n%s\n", t->text);
        return;
    }
    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.code.1"));
    kf_json_kstr(&w, "code", kf_str_from(code));
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

static void json_part(kf_json *w, const char *key, const kf_subject_part *p)
{
    kf_json_key(w, key);
    if (p->kind == KF_KIND_NONE) {
        kf_json_null(w);
        return;
    }
    kf_json_open(w, '{');
    kf_json_kstr(w, "kind", kf_str_from(kf_kind_names[p->kind]));
    kf_json_kstr(w, "what", p->what);
    kf_json_close(w, '}');
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
        json_part(&w, "from", &k->parts.from);
        json_part(&w, "to", &k->parts.to);
        kf_json_kbool(&w, "taken_elsewhere", kf_candidate_is_overcome(&c->passes, k));
        kf_json_kstr(&w, "function", k->func);
        kf_json_kstr(&w, "file", kf_candidate_file(c->module, k));
        kf_json_kint(&w, "line", k->loc.line);
        kf_json_kint(&w, "col", k->loc.col);
        kf_json_close(&w, '}');
    }
    kf_json_close(&w, ']');
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
}

/* ---- text: by line of the description -------------------------------------------------------- */

static int line_order(const kf_candidate *a, const kf_candidate *b)
{
    if (a->loc.file != b->loc.file)
        return a->loc.file < b->loc.file ? -1 : 1;
    return a->loc.line < b->loc.line ? -1 : a->loc.line > b->loc.line;
}

/* The same said of another function, or of another op at the same place. */
static bool same_words(const kf_candidate *a, const kf_candidate *b)
{
    return line_order(a, b) == 0 && a->pass == b->pass && a->reason == b->reason &&
           kf_str_eq(a->subject, b->subject) && kf_str_eq(a->detail, b->detail);
}

static bool is_first(const kf_compilation *c, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++)
        if (same_words(&c->passes.candidates.data[i], &c->passes.candidates.data[index]))
            return false;
    return true;
}

/* "@layer.prefill, @layer.decode" */
static kf_str functions_of(const kf_compilation *c, uint32_t first)
{
    const kf_pass_ctx *p = &c->passes;
    kf_sbuf text = {.arena = c->scratch};

    for (uint32_t i = first; i < p->candidates.len; i++) {
        const kf_candidate *k = &p->candidates.data[i];
        bool seen = !same_words(k, &p->candidates.data[first]);
        for (uint32_t j = first; j < i && !seen; j++)
            seen = same_words(k, &p->candidates.data[j]) &&
                   kf_str_eq(k->func, p->candidates.data[j].func);
        if (!seen)
            kf_sbuf_printf(&text, "%s@%.*s", text.len ? ", " : "", KF_STR_ARG(k->func));
    }
    return kf_sbuf_view(&text);
}

static void print_candidate(const kf_compilation *c, uint32_t index)
{
    const kf_candidate *k = &c->passes.candidates.data[index];

    printf("  %-8s %-44.*s %s  %.*s\n", k->reason ? "refused" : "fused", KF_STR_ARG(k->subject),
           kf_pass_infos[k->pass].name, KF_STR_ARG(functions_of(c, index)));
    if (!k->reason)
        return;
    printf("           %s: %s%s%.*s%s\n", kf_reason_codes[k->reason], kf_reason_texts[k->reason],
           k->detail.len ? ": " : "", KF_STR_ARG(k->detail),
           kf_candidate_is_overcome(&c->passes, k) ? "; another region took it" : "");
}

static void print_line(const kf_compilation *c, uint32_t first)
{
    const kf_candidate *k = &c->passes.candidates.data[first];
    kf_str file = kf_candidate_file(c->module, k), source = {"", 0};

    kf_diags_line(c->diags, kf_module_diag_loc(c->module, c->diags, k->loc), &source);
    printf("%.*s:%u: %.*s\n", KF_STR_ARG(file), k->loc.line, KF_STR_ARG(kf_str_trim(source)));
    for (uint32_t i = first; i < c->passes.candidates.len; i++)
        if (!line_order(k, &c->passes.candidates.data[i]) && is_first(c, i))
            print_candidate(c, i);
}

/* Place of the next line to print after |last| (NULL: none yet), or len. Files keep their order. */
static uint32_t next_line(const kf_compilation *c, const kf_candidate *last)
{
    const kf_pass_ctx *p = &c->passes;
    uint32_t best = p->candidates.len;

    for (uint32_t i = 0; i < p->candidates.len; i++) {
        const kf_candidate *k = &p->candidates.data[i];
        if (last && line_order(k, last) <= 0)
            continue;
        if (best == p->candidates.len || line_order(k, &p->candidates.data[best]) < 0)
            best = i;
    }
    return best;
}

static void print_text(const kf_compilation *c)
{
    const kf_pass_ctx *p = &c->passes;
    uint32_t fused = 0, refused = 0;

    for (uint32_t i = next_line(c, NULL); i < p->candidates.len;
         i = next_line(c, &p->candidates.data[i]))
        print_line(c, i);
    for (uint32_t i = 0; i < p->candidates.len; i++) {
        bool no = p->candidates.data[i].reason != KF_REASON_NONE;
        refused += no && !kf_candidate_is_overcome(p, &p->candidates.data[i]);
        fused += !no;
    }
    printf("%u fused, %u refused\n", fused, refused);
}

int kf_verb_explain(kf_compilation *c)
{
    const char *code = code_word(c);
    code_text known;

    if (code && find_code(code, &known)) {
        print_code(c, code, &known);
        return 0;
    }
    if (code) {
        kf_diag_add(c->diags, KF_E0804, KF_NO_LOC,
                    "no diagnostic or refusal is called '%s'; docs/PASSES.md lists refusals", code);
        return 0;
    }
    if (!kf_compilation_load(c, c->opt->operand) || !kf_compilation_target(c) ||
        !kf_compilation_graph(c))
        return 0;
    if (!kf_compilation_fuse(c, NULL) && !c->passes.candidates.len)
        return 0; /* where a contract is not met the candidates are wanted most */
    if (c->opt->json)
        print_json(c);
    else
        print_text(c);
    return 0;
}
