/* SPDX-License-Identifier: Apache-2.0 */
/* spawn - child processes of the driver: tools, produced executables, and our own code run apart.
 */
#ifndef KF_DRIVER_SPAWN_H
#define KF_DRIVER_SPAWN_H

#include <stdint.h>

/** How a child ended. */
typedef struct kf_exit {
    int status; /* exit status, or -1 if a signal ended it */
    int signal;
} kf_exit;

/** Runs |argv| (NULL-terminated, found on PATH) and waits. |out_path|: standard output goes to this
 * file; NULL: inherited. Returns an errno value if it could not be started. */
int kf_spawn(const char *const *argv, const char *out_path, kf_exit *out_exit);

/** The same with standard output and standard error dropped. */
int kf_spawn_quiet(const char *const *argv, kf_exit *out_exit);

/** Children of this process that run |work(user, child)| and exit with what it returns. join waits
 * for all and returns the first bad ending, or {0, 0}. At most 64. */
typedef struct kf_fork_group {
    uint32_t n_children;
    int pid[64];
} kf_fork_group;
void kf_fork_start(kf_fork_group *group, uint32_t children, int (*work)(void *user, uint32_t child),
                   void *user);
kf_exit kf_fork_join(kf_fork_group *group);

#endif
