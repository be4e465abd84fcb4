/* SPDX-License-Identifier: Apache-2.0 */
/* random_graphs - random modules through every pass and the evaluator.
 *
 *   random_graphs FIRST COUNT [KEEP-DIR]   modules FIRST .. FIRST + COUNT - 1; a failing one is
 *                                          shrunk by kerf reduce and kept as .kir
 *   random_graphs --run FIRST COUNT [KEEP-DIR]  the same, also compiled and run
 *   random_graphs --count FIRST COUNT      only what they reach; fails if anything is not
 *   random_graphs --print SEED             the module
 *   random_graphs --replay FILE...         kept failures
 *
 * Each module is checked in a child with a limit of CPU time, so that an assertion, a crash or a
 * loop is a failure of that module only.
 */
#include "base/fs.h"
#include "ir/text.h"
#include "tests/graphs/forms.h"
#include "tests/graphs/gen.h"
#include "tests/unit/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_S = 10, TEXT = 4096 };

/** Seen by the child and by us. */
typedef struct shared {
    counters c;
    char why[TEXT];
} shared;

/** The first ones are verdicts; each has a status of its own, which kerf reduce keeps. */
typedef enum outcome { OK, WRONG, UNUSABLE, CRASHED, TOO_SLOW } outcome;
static const char *const outcome_names[] = {"ok", "wrong", "unusable", "crashed",
                                            "over the time limit"};

/* ---- one module ------------------------------------------------------------------------------ */

static _Noreturn void child(const kf_module *m, const forms_choice *how, shared *s, bool quiet)
{
    const rlim_t limit = LIMIT_S * 100 / (scaled(100) ? scaled(100) : 1);
    struct rlimit cpu = {limit, limit + 1};
    kf_arena *a = kf_arena_create("why");
    kf_sbuf why = {.arena = a};

    setrlimit(RLIMIT_CPU, &cpu);
    if (quiet)
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);
    verdict v = forms_check(m, how, &s->c, &why);
    snprintf(s->why, sizeof s->why, "%.*s", (int)why.len, why.ptr ? why.ptr : "");
    _exit((int)v);
}

static outcome check(const kf_module *m, const forms_choice *how, shared *s, bool quiet)
{
    int status = 0;

    fflush(NULL);
    s->why[0] = 0;
    pid_t pid = fork();
    if (pid == 0)
        child(m, how, s, quiet);
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return CRASHED;
    if (WIFEXITED(status))
        return WEXITSTATUS(status) <= UNUSABLE ? (outcome)WEXITSTATUS(status) : CRASHED;
    return WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL ? TOO_SLOW : CRASHED;
}

/* ---- keeping --------------------------------------------------------------------------------- */

static kf_str module_text(kf_arena *a, const kf_module *m)
{
    kf_sbuf text = {.arena = a};

    kf_module_print(m, 0, &text);
    return kf_sbuf_view(&text);
}

/* `kerf reduce` with ourselves as the command; the result takes the place of |path|. */
static bool reduce(const char *path)
{
    char self[TEXT] = {0};
    int status = 0;

    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 1);
        execlp("kerf", "kerf", "reduce", "-q", "-o", path, path, "--", self, "--replay", NULL);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* The module as it is, then as little of it as still fails. */
static void keep(const kf_module *m, uint64_t seed, const char *dir)
{
    kf_arena *a = kf_arena_create("keep");
    const char *path = kf_strf(a, "%s/graph-%llu.kir", dir, (unsigned long long)seed).ptr;
    kf_str text = module_text(a, m);

    mkdir(dir, 0777);
    if (!kf_fs_write(path, text, 0644)) {
        bool reduced = reduce(path) && !kf_fs_read(a, path, 1u << 22, &text);
        printf("%s, kept as %s:\n%.*s\n", reduced ? "reduced" : "not reduced", path,
               KF_STR_ARG(text));
    }
    kf_arena_destroy(a);
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* A tenth of the modules gets adversarial values. */
static forms_choice choice(uint64_t seed, bool run)
{
    forms_choice how = {.how = FILL_USUAL, .seed = seed, .run = run};

    if (seed % 10 == 3 && !run)
        how.how = (fill)(FILL_SEARCHED + seed / 10 % (FILL_COUNT - FILL_SEARCHED));
    return how;
}

static bool one(uint64_t seed, bool run, shared *s, const char *dir)
{
    kf_arena *a = kf_arena_create("module");
    kf_module *m = gen_module(a, seed);
    forms_choice how = choice(seed, run);
    outcome o = check(m, &how, s, false);

    s->c.modules++;
    s->c.adversarial += how.how >= FILL_SEARCHED;
    if (o != OK) {
        s->c.failed++;
        printf("FAILED: module %llu, values %s: %s %s\n", (unsigned long long)seed,
               fill_names[how.how], outcome_names[o], s->why);
        if (dir)
            keep(m, seed, dir);
    }
    kf_arena_destroy(a);
    return o == OK;
}

static int run(uint64_t first, uint32_t count, bool compiled, const char *dir)
{
    shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (s == MAP_FAILED)
        return perror("mmap"), 1;
    for (uint32_t i = 0; i < count; i++)
        one(first + i, compiled, s, dir);
    counters_print(&s->c);
    return s->c.failed != 0;
}

static int count(uint64_t first, uint32_t n)
{
    counters c = {0};

    for (uint32_t i = 0; i < n; i++) {
        kf_arena *a = kf_arena_create("module");
        forms_count(gen_module(a, first + i), &c);
        c.modules++;
        kf_arena_destroy(a);
    }
    counters_print(&c);
    return !counters_complete(&c);
}

static int print(uint64_t seed)
{
    kf_arena *a = kf_arena_create("module");
    kf_str text = module_text(a, gen_module(a, seed));

    printf("%.*s", KF_STR_ARG(text));
    kf_arena_destroy(a);
    return 0;
}

/* Usual and adversarial values, compiled and run: the first outcome that is not OK. */
static outcome replay(const char *path, shared *s)
{
    kf_arena *a = kf_arena_create("module");
    kf_diags *d = kf_diags_create(a);
    outcome o = OK;
    kf_str text;

    if (kf_fs_read(a, path, 1u << 22, &text))
        return printf("cannot read %s\n", path), UNUSABLE;
    kf_module *m = kf_module_parse(a, d, kf_str_from(path), text);
    if (!m)
        return kf_diags_print(d, stdout, false), UNUSABLE;
    for (int how = FILL_USUAL; o == OK && how < FILL_COUNT; how++) {
        forms_choice k = {.how = (fill)how, .seed = 1, .run = how == FILL_USUAL};
        if (how == FILL_SMALL || how == FILL_POSITIVE)
            continue;
        o = check(m, &k, s, false);
        if (o != OK)
            printf("FAILED: %s, values %s: %s %s\n", path, fill_names[how], outcome_names[o],
                   s->why);
    }
    kf_arena_destroy(a);
    return o;
}

static int replay_all(int n, char **path)
{
    shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    outcome worst = OK;

    if (s == MAP_FAILED)
        return perror("mmap"), 1;
    for (int i = 0; i < n; i++) {
        outcome o = replay(path[i], s);
        worst = o > worst ? o : worst;
    }
    return (int)worst;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    if (!strcmp(verb, "--replay"))
        return replay_all(argc - 2, argv + 2);
    if (!strcmp(verb, "--print") && argc == 3)
        return print(strtoull(argv[2], NULL, 10));
    if (!strcmp(verb, "--count") && argc == 4)
        return count(strtoull(argv[2], NULL, 10), (uint32_t)strtoul(argv[3], NULL, 10));
    bool compiled = !strcmp(verb, "--run");
    argc -= compiled;
    argv += compiled;
    if (argc == 3 || argc == 4)
        return run(strtoull(argv[1], NULL, 10), scaled((uint32_t)strtoul(argv[2], NULL, 10)),
                   compiled, argc == 4 ? argv[3] : NULL);
    fprintf(stderr,
            "usage: random_graphs [--count | --run] FIRST COUNT [KEEP-DIR] | --print SEED | "
            "--replay FILE...\n");
    return 2;
}
