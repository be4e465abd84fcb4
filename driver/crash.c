/* SPDX-License-Identifier: Apache-2.0 */
/* crash - see crash.h. */
#include "driver/crash.h"

#include "base/check.h"
#include "base/fs.h"
#include "ir/text.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STACK_BYTES (1 << 18) /* of the handler: the fault may be that the stack is full */
#define MAX_SECONDS 20        /* of the handler: the fault may be inside malloc */

static kf_compilation *watched;

/* |word| as a word of the shell. */
static void add_word(kf_sbuf *out, kf_str word)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "/._-+=:,@%";
    bool quote = word.len == 0;

    for (uint32_t i = 0; i < word.len; i++)
        quote |= !memchr(plain, word.ptr[i], sizeof plain - 1);
    if (!quote) {
        kf_sbuf_str(out, word);
        return;
    }
    kf_sbuf_char(out, '\'');
    for (uint32_t i = 0; i < word.len; i++)
        if (word.ptr[i] == '\'')
            kf_sbuf_c(out, "'\\''");
        else
            kf_sbuf_char(out, word.ptr[i]);
    kf_sbuf_char(out, '\'');
}

/* The verb that meets the same module at the same place again. */
static kf_str reproducer(const kf_compilation *c, kf_str path)
{
    kf_sbuf out = {.arena = c->arena};
    kf_str target = kf_strf(c->arena, " --target=%s", c->opt->target ? c->opt->target : "cpu");

    if (c->passes.before) {
        kf_sbuf_printf(&out, "kerf opt%.*s --passes=%s --verify-each", KF_STR_ARG(target),
                       kf_pass_infos[c->passes.current].name);
        kf_compilation_switches(c, &out);
    } else if (c->plan)
        kf_sbuf_printf(&out, "kerf compile%.*s --emit=llvm", KF_STR_ARG(target));
    else if (c->runs.len) /* behind the passes */
        kf_sbuf_printf(&out, "kerf inspect%.*s --stage=plan", KF_STR_ARG(target));
    else
        kf_sbuf_c(&out, "kerf opt --passes=canonicalize --verify-each");
    kf_sbuf_char(&out, ' ');
    add_word(&out, path);
    return kf_sbuf_view(&out);
}

/* Here, or where everyone may write. */
static bool write_graph(const kf_compilation *c, kf_str text, kf_str *out_path)
{
    const char *tmp = getenv("TMPDIR");
    char here[4096];

    if (getcwd(here, sizeof here)) {
        *out_path = kf_strf(c->arena, "%s/crash.kir", here);
        if (kf_fs_write(out_path->ptr, text, 0644) == 0)
            return true;
    }
    *out_path =
        kf_strf(c->arena, "%s/kerf-crash-%ld.kir", tmp && *tmp ? tmp : "/tmp", (long)getpid());
    return kf_fs_write(out_path->ptr, text, 0644) == 0;
}

/* The graph is the one that the running pass was given: what it made may not even parse. */
void kf_crash_leave(const kf_compilation *c)
{
    kf_sbuf text = {.arena = c->arena};
    kf_str path;

    if (!c->module)
        return;
    kf_module_print(c->passes.before ? c->passes.before : c->module, KF_PRINT_LOCS, &text);
    if (write_graph(c, kf_sbuf_view(&text), &path))
        fprintf(stderr, "the graph is in %.*s; reproduce with: %.*s\n", KF_STR_ARG(path),
                KF_STR_ARG(reproducer(c, path)));
}

static void on_failed_check(void *user, const char *sentence)
{
    (void)sentence;
    kf_crash_leave(user);
}

/* Not safe in a handler, but the process is lost anyway: a second fault, or no end in sight, ends it. */
static void on_fault(int number)
{
    kf_compilation *c = watched;

    watched = NULL;
    alarm(MAX_SECONDS);
    fprintf(stderr, "kerf: internal error: signal %d (%s)\n", number, strsignal(number));
    kf_check_print_context();
    if (c)
        kf_crash_leave(c);
    fflush(stderr);
    raise(number);
}

/* Not where a sanitizer has a handler of its own. */
static void catch_faults(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    static char stack[STACK_BYTES];
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction mine = {.sa_handler = on_fault,
                             .sa_flags = (int)(SA_ONSTACK | SA_RESETHAND | SA_NODEFER)};
    struct sigaction segv;

    if (sigaction(SIGSEGV, NULL, &segv) == 0 && segv.sa_handler == SIG_DFL)
        sigaltstack(&alternative, NULL); /* else there is a stack of theirs */
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct sigaction now;
        if (sigaction(faults[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL)
            sigaction(faults[i], &mine, NULL);
    }
}

void kf_crash_watch(kf_compilation *c)
{
    watched = c;
    kf_check_set_hook(c ? on_failed_check : NULL, c);
    if (c)
        catch_faults();
}
