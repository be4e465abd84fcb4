/* SPDX-License-Identifier: Apache-2.0 */
/* options - see options.h. */
#include "driver/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define V(verb) (1u << KF_VERB_##verb)
#define V_BUILD                                                                                    \
    (V(compile) | V(check) | V(inspect) | V(run) | V(embed) | V(bench) | V(verify) | V(explain) |  \
     V(diff))
#define EVERY ((1u << KF_VERB_COUNT) - 1)

typedef enum option_kind { FLAG, STR, INT, LIST, ABSENT } option_kind;

typedef struct option {
    const char *name;
    char letter;
    option_kind kind;
    size_t offset;
    const char *argument;
    uint32_t verbs;
    const char *help;
} option;

static const option options[] = {
#define OPT(name, letter, kind, field, argument, verbs, help)                                      \
    {name, letter, kind, offsetof(kf_options, field), argument, verbs, help},
#include "driver/options.def"
#undef OPT
};
#define N_OPTIONS (sizeof options / sizeof options[0])

static const struct {
    const char *name, *operands, *summary;
} verbs[KF_VERB_COUNT] = {
#define VERB(name, operands, summary) {#name, operands, summary},
#include "driver/options.def"
#undef VERB
};

bool kf_verb_find(kf_diags *d, const char *word, kf_verb *out_verb)
{
    kf_str names[KF_VERB_COUNT];

    for (int i = 0; i < KF_VERB_COUNT; i++) {
        names[i] = kf_str_from(verbs[i].name);
        if (!strcmp(word, verbs[i].name)) {
            *out_verb = (kf_verb)i;
            return true;
        }
    }
    kf_diag *e = kf_diag_add(d, KF_E0801, KF_NO_LOC, "unknown verb '%s'", word);
    kf_str near = kf_str_nearest(kf_str_from(word), names, KF_VERB_COUNT);
    if (near.len)
        kf_diag_hint(d, e, "did you mean '%.*s'?", KF_STR_ARG(near));
    return false;
}

static const option *find_option(kf_diags *d, kf_verb verb, kf_str name)
{
    kf_str names[N_OPTIONS];
    uint32_t n = 0;

    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (!(options[i].verbs & (1u << verb)))
            continue;
        if (kf_str_eq_c(name, options[i].name))
            return &options[i];
        if (name.len == 1 && name.ptr[0] == options[i].letter)
            return &options[i];
        names[n++] = kf_str_from(options[i].name);
    }
    kf_diag *e = kf_diag_add(d, KF_E0802, KF_NO_LOC, "'kerf %s' has no option '%s%.*s'",
                             verbs[verb].name, name.len == 1 ? "-" : "--", KF_STR_ARG(name));
    kf_str near = kf_str_nearest(name, names, n);
    if (near.len)
        kf_diag_hint(d, e, "did you mean '--%.*s'?", KF_STR_ARG(near));
    return NULL;
}

static bool store(kf_arena *arena, kf_diags *d, const option *o, const char *value, kf_options *out)
{
    char *at = (char *)out + o->offset;

    if (o->kind == FLAG) {
        *(bool *)at = true;
        return true;
    }
    if (o->kind == INT) {
        char *end;
        errno = 0;
        long long v = strtoll(value, &end, 10);
        if (errno || *end || end == value || v < 0) {
            kf_diag_add(d, KF_E0803, KF_NO_LOC, "--%s takes a number, not '%s'", o->name, value);
            return false;
        }
        *(int64_t *)(void *)at = v;
        return true;
    }
    const char **text = (const char **)(void *)at;
    *text = o->kind == LIST && *text ? kf_strf(arena, "%s,%s", *text, value).ptr : value;
    return true;
}

/* One argument that begins with '-'. Advances |*i| past its value. */
static bool parse_option(kf_arena *arena, kf_diags *d, kf_verb verb, int argc, char **argv, int *i,
                         kf_options *out)
{
    const char *word = argv[*i];
    bool is_long = word[1] == '-';
    const char *name = word + (is_long ? 2 : 1), *eq = is_long ? strchr(name, '=') : NULL;
    uint32_t len = is_long ? (uint32_t)(eq ? eq - name : (long)strlen(name)) : 1;
    const option *o = find_option(d, verb, (kf_str){name, len});

    if (!o)
        return false;
    if (o->kind == ABSENT) {
        kf_diag_add(d, KF_E0411, KF_NO_LOC, "--%s: %s", o->name, o->help);
        *i += o->argument[0] && !eq && *i + 1 < argc;
        return false;
    }
    if (o->kind == FLAG) {
        if (eq || (!is_long && word[2])) {
            kf_diag_add(d, KF_E0803, KF_NO_LOC, "--%s takes no argument", o->name);
            return false;
        }
        return store(arena, d, o, NULL, out);
    }
    const char *value = eq ? eq + 1 : !is_long && word[2] ? word + 2 : NULL;
    if (!value) {
        if (*i + 1 >= argc) {
            kf_diag_add(d, KF_E0803, KF_NO_LOC, "--%s needs an argument: --%s %s", o->name, o->name,
                        o->argument);
            return false;
        }
        value = argv[++*i];
    }
    return store(arena, d, o, value, out);
}

static bool takes_two(kf_verb verb)
{
    return verb == KF_VERB_weights || verb == KF_VERB_diff;
}

static bool add_operand(kf_diags *d, kf_verb verb, const char *word, kf_options *out)
{
    if (!out->operand)
        out->operand = word;
    else if (takes_two(verb) && !out->second)
        out->second = word;
    else {
        kf_diag_add(d, KF_E0804, KF_NO_LOC, "'kerf %s' takes %s; '%s' is one too many",
                    verbs[verb].name, takes_two(verb) ? "two operands" : "one operand", word);
        return false;
    }
    return true;
}

/* Options that take a word of a closed set. */
static bool check_words(kf_diags *d, const kf_options *out)
{
    const struct {
        const char *name, *value, *words[4]; /* ends at NULL */
    } closed[] = {{"color", out->color, {"auto", "always", "never"}},
                  {"diagnostics", out->diagnostics, {"text", "json"}}};
    bool all = true;

    for (size_t i = 0; i < sizeof closed / sizeof closed[0]; i++) {
        const char *const *w = closed[i].words;
        while (closed[i].value && *w && strcmp(*w, closed[i].value))
            w++;
        if (!closed[i].value || *w)
            continue;
        w = closed[i].words;
        kf_diag_add(d, KF_E0803, KF_NO_LOC, "--%s takes %s%s%s or %s, not '%s'", closed[i].name,
                    w[0], w[2] ? ", " : "", w[2] ? w[1] : "", w[2] ? w[2] : w[1], closed[i].value);
        all = false;
    }
    return all;
}

bool kf_options_parse(kf_arena *arena, kf_diags *d, kf_verb verb, int argc, char **argv,
                      kf_options *out)
{
    bool passes_on = strstr(verbs[verb].operands, "[...]") != NULL, ok = true;
    bool behind = false; /* "--": what follows is a command */

    *out = (kf_options){.seed = 1};
    for (int i = 0; i < argc; i++) {
        behind = verb == KF_VERB_reduce && !strcmp(argv[i], "--");
        bool is_option = argv[i][0] == '-' && argv[i][1] && !behind;
        ok &= behind      ? true
              : is_option ? parse_option(arena, d, verb, argc, argv, &i, out)
                          : add_operand(d, verb, argv[i], out);
        if (behind || (passes_on && out->operand)) {
            i += !behind && i + 1 < argc && !strcmp(argv[i + 1], "--");
            out->rest = argv + i + 1;
            out->n_rest = argc - i - 1;
            break;
        }
    }
    ok &= check_words(d, out);
    bool wanted = verbs[verb].operands[0] && !out->help && !out->version && !out->help_passes;
    if (ok && wanted && (!out->operand || (takes_two(verb) && !out->second))) {
        kf_diag_add(d, KF_E0804, KF_NO_LOC, "usage: kerf %s [options] %s", verbs[verb].name,
                    verbs[verb].operands);
        ok = false;
    }
    return ok;
}

/* ---- help ------------------------------------------------------------------------------------ */

void kf_help_print(FILE *out)
{
    fprintf(out, "kerf compiles a YAML model description, or a Hugging Face directory, into one "
                 "executable.\n\n");
    for (int i = 0; i < KF_VERB_COUNT; i++)
        fprintf(out, "  kerf %-8s %-20s %s\n", verbs[i].name, verbs[i].operands, verbs[i].summary);
    fprintf(out, "\n  kerf compile model.yaml -o model && ./model run -p \"To be\"\n"
                 "\n'kerf VERB --help' shows the options of a verb.\n");
}

void kf_help_verb(FILE *out, kf_verb verb)
{
    fprintf(out, "usage: kerf %s [options] %s\n%s\n\n", verbs[verb].name, verbs[verb].operands,
            verbs[verb].summary);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const option *o = &options[i];
        char left[64];
        if (!(o->verbs & (1u << verb)))
            continue;
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", o->letter ? '-' : ' ',
                 o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name,
                 o->argument[0] ? " " : "", o->argument);
        fprintf(out, "  %-28s %s\n", left, o->help);
    }
}

/** |text| in a table cell. */
static void cell(kf_sbuf *out, const char *text)
{
    for (; *text; text++)
        kf_sbuf_printf(out, *text == '|' ? "\\%c" : "%c", *text);
}

static void option_row(kf_sbuf *out, const option *o)
{
    kf_sbuf_c(out, "| `");
    if (o->letter)
        kf_sbuf_printf(out, "-%c`, `", o->letter);
    kf_sbuf_printf(out, "--%s%s", o->name, o->argument[0] ? " " : "");
    cell(out, o->argument);
    kf_sbuf_c(out, "` | ");
    cell(out, o->help);
    kf_sbuf_c(out, " |\n");
}

void kf_help_markdown(kf_sbuf *out)
{
    for (int v = 0; v < KF_VERB_COUNT; v++) {
        kf_sbuf_printf(out, "## kerf %s %s\n\n%s.\n\n| option | meaning |\n| --- | --- |\n",
                       verbs[v].name, verbs[v].operands, verbs[v].summary);
        for (size_t i = 0; i < N_OPTIONS; i++)
            if ((options[i].verbs & (1u << v)) && options[i].verbs != EVERY)
                option_row(out, &options[i]);
        kf_sbuf_c(out, "\n");
    }
    kf_sbuf_c(out, "## Every verb\n\n| option | meaning |\n| --- | --- |\n");
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (options[i].verbs == EVERY)
            option_row(out, &options[i]);
}
