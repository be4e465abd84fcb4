/* SPDX-License-Identifier: Apache-2.0 */
/* check - invariants of the compiler itself.
 *
 * A broken invariant is a bug of Kerf, never of the user's model: it stays on in release builds,
 * prints the sentence and where the compiler was (stage and subject), lets the driver write its
 * reproducer and exits with 70. User errors are diagnostics (diag.h); the runtime uses status
 * values instead.
 */
#ifndef KF_BASE_CHECK_H
#define KF_BASE_CHECK_H

/** Called once before exit(70); the driver installs one that writes crash.kir. Not thread safe. */
typedef void (*kf_crash_hook)(void *user, const char *sentence);

/** Installs |hook| (NULL removes it). Not thread safe; call before work starts. */
void kf_check_set_hook(kf_crash_hook hook, void *user);

/** Names what the compiler is doing now ("pass fuse_norm", "@layer"); printed on failure. Borrowed.
 */
void kf_check_set_context(const char *stage, const char *subject);

/** Prints that context to standard error, if there is one. */
void kf_check_print_context(void);

_Noreturn void kf_check_fail(const char *file, int line, const char *cond, const char *sentence);

#define KF_ASSERT(cond, sentence)                                                                  \
    ((cond) ? (void)0 : kf_check_fail(__FILE__, __LINE__, #cond, sentence))

#endif
