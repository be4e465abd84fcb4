/* SPDX-License-Identifier: Apache-2.0 */
/* crash - what a bug of the compiler leaves behind: the IR, and a command that meets the bug again.
 */
#ifndef KF_DRIVER_CRASH_H
#define KF_DRIVER_CRASH_H

#include "driver/pipeline_run.h"

/** From now on broken invariants and fatal signals leave a reproducer of |c|; NULL: no more. */
void kf_crash_watch(kf_compilation *c);

/** Writes crash.kir and prints the command; nothing while there is no graph yet. */
void kf_crash_leave(const kf_compilation *c);

#endif
