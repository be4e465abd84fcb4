/* SPDX-License-Identifier: Apache-2.0 */
/* spawn - see spawn.h. */
#include "driver/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static kf_exit wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return (kf_exit){-1, 0};
    if (WIFSIGNALED(status))
        return (kf_exit){-1, WTERMSIG(status)};
    return (kf_exit){WEXITSTATUS(status), 0};
}

static int spawn(const char *const *argv, const char *out_path, const char *err_path,
                 kf_exit *out_exit)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    if (out_path)
        posix_spawn_file_actions_addopen(&actions, 1, out_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (err_path)
        posix_spawn_file_actions_addopen(&actions, 2, err_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    int err = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (!err)
        *out_exit = wait_for(pid);
    return err;
}

int kf_spawn(const char *const *argv, const char *out_path, kf_exit *out_exit)
{
    return spawn(argv, out_path, NULL, out_exit);
}

int kf_spawn_quiet(const char *const *argv, kf_exit *out_exit)
{
    return spawn(argv, "/dev/null", "/dev/null", out_exit);
}

void kf_fork_start(kf_fork_group *group, uint32_t children, int (*work)(void *user, uint32_t child),
                   void *user)
{
    group->n_children = 0;
    fflush(NULL);
    for (uint32_t i = 0; i < children && i < 64; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            int status = work(user, i);
            fflush(NULL);
            _exit(status);
        }
        group->pid[group->n_children++] = pid;
    }
}

kf_exit kf_fork_join(kf_fork_group *group)
{
    kf_exit first = {0, 0};

    for (uint32_t i = 0; i < group->n_children; i++) {
        kf_exit e = group->pid[i] > 0 ? wait_for(group->pid[i]) : (kf_exit){-1, 0};
        if (first.status == 0 && e.status != 0)
            first = e;
    }
    return first;
}
