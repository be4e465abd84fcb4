/* SPDX-License-Identifier: Apache-2.0 */
/* main - the `kerf` command: finds the verb, runs it, prints diagnostics, returns the exit status.
 */
#include "base/fs.h"
#include "driver/crash.h"
#include "driver/verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int (*const verb_functions[KF_VERB_COUNT])(kf_compilation *) = {
#define VERB(name, operands, summary) kf_verb_##name,
#include "driver/options.def"
#undef VERB
};

static void on_signal(int number)
{
    kf_outfile_abandon_all();
    signal(number, SIG_DFL);
    raise(number);
}

static bool use_color(const kf_options *o)
{
    if (o->color && !strcmp(o->color, "always"))
        return true;
    if (o->color && !strcmp(o->color, "never"))
        return false;
    return isatty(2) && !getenv("NO_COLOR");
}

static void print_diagnostics(const kf_compilation *c)
{
    if (c->opt->diagnostics && !strcmp(c->opt->diagnostics, "json")) {
        kf_sbuf text = {.arena = c->scratch};
        kf_diags_json(c->diags, &text);
        fprintf(stderr, "%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
        return;
    }
    bool only_warnings = kf_diags_errors(c->diags) == 0;
    if (only_warnings && c->opt->quiet)
        return;
    kf_diags_print(c->diags, stderr, use_color(c->opt));
}

static int run_verb(kf_compilation *c, kf_options *o, const char *word, int argc, char **argv)
{
    kf_verb verb;

    if (!kf_verb_find(c->diags, word, &verb) ||
        !kf_options_parse(c->arena, c->diags, verb, argc, argv, o))
        return kf_diags_exit_status(c->diags);
    if (o->help) {
        kf_help_verb(stdout, verb);
        return 0;
    }
    int status = verb_functions[verb](c);
    return status ? status : kf_diags_exit_status(c->diags);
}

/* The exit status, after what stands in the buffer of standard output was written. Earlier writes
 * that failed have left their mark in ferror. */
static int end_output(kf_compilation *c, int status)
{
    bool failed = ferror(stdout) != 0;

    errno = 0;
    failed |= fflush(stdout) != 0;
    if (!failed || status)
        return status;
    if (errno == EPIPE)
        return 128 + SIGPIPE; /* the reader had enough: as if the signal had not been ignored */
    kf_diag_add(c->diags, KF_E0603, KF_NO_LOC, "standard output: %s",
                errno ? strerror(errno) : "a write failed");
    return kf_diags_exit_status(c->diags);
}

int main(int argc, char **argv)
{
    kf_options o = {0};
    kf_arena *arena = kf_arena_create("compilation");
    kf_compilation c = {.arena = arena, .scratch = kf_arena_create("scratch"), .opt = &o};
    int status = 0;

    c.diags = kf_diags_create(arena);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write then fails with EFBIG, and is reported */
    kf_crash_watch(&c);
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        kf_help_print(stdout);
    else if (!strcmp(argv[1], "--version"))
        printf("kerf %s\n", KF_VERSION);
    else if (!strcmp(argv[1], "--help-markdown")) {
        kf_sbuf text = {.arena = arena};
        kf_help_markdown(&text);
        printf("%.*s", KF_STR_ARG(kf_sbuf_view(&text)));
    } else
        status = run_verb(&c, &o, argv[1], argc - 2, argv + 2);
    status = end_output(&c, status);
    print_diagnostics(&c);
    kf_compilation_close(&c);
    kf_crash_watch(NULL);
    kf_arena_destroy(c.scratch);
    kf_arena_destroy(arena);
    return status;
}
