/* SPDX-License-Identifier: Apache-2.0 */
/* limit - runs a test and fails it if it took too much CPU time, its children included.
 *
 *   limit SECONDS COMMAND...
 *
 * CPU time hardly depends on what else the machine does, unlike time by the clock: the limit gives
 * no false alarm where many tests share few processors. A single process that never ends is
 * stopped at the limit; processes that wait for ever are ctest's business (its TIMEOUT). The status
 * is the command's own, or 1; the last line of the output is `cpu: 1.23 s`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

static int start(rlim_t limit, char **argv)
{
    struct rlimit cpu = {limit, RLIM_INFINITY};

    setrlimit(RLIMIT_CPU, &cpu);
    execvp(argv[0], argv);
    fprintf(stderr, "limit: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

int main(int argc, char **argv)
{
    struct rusage used;
    int status;

    if (argc < 3)
        return fprintf(stderr, "usage: limit SECONDS COMMAND...\n"), 2;
    double limit = strtod(argv[1], NULL);
    pid_t pid = fork();
    if (pid == 0)
        start((rlim_t)limit + 1, argv + 2);
    while (pid > 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return perror("limit"), 1;
    if (pid < 0 || getrusage(RUSAGE_CHILDREN, &used))
        return perror("limit"), 1;
    double cpu = seconds(used.ru_utime) + seconds(used.ru_stime);
    if (WIFSIGNALED(status))
        printf("killed by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (cpu > limit)
        printf("%.1f s of CPU time; a test may take %g\n", cpu, limit);
    printf("cpu: %.2f s\n", cpu);
    return WIFSIGNALED(status) || cpu > limit ? 1 : WEXITSTATUS(status);
}
