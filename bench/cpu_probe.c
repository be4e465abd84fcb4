/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_probe - prints the read bandwidth and the FMA rate of this machine as one line of JSON.
 *
 *   cpu_probe [--threads N] [--lanes 8|16] [--clock wall|cpu]
 *
 * --clock cpu: one thread, and its CPU time.
 */
#include "bench/probe.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    long threads = sysconf(_SC_NPROCESSORS_ONLN), lanes = 8;
    bool cpu_time = false;
    for (int i = 1; i < argc; i += 2) {
        const char *word = i + 1 < argc ? argv[i + 1] : "";
        char *end = NULL;
        const long v = strtol(word, &end, 10);
        const bool number = end && *end == '\0' && v > 0;
        if (number && strcmp(argv[i], "--threads") == 0) {
            threads = v;
        } else if (number && strcmp(argv[i], "--lanes") == 0 && (v == 8 || v == 16)) {
            lanes = v;
        } else if (strcmp(argv[i], "--clock") == 0 &&
                   (strcmp(word, "cpu") == 0 || strcmp(word, "wall") == 0)) {
            cpu_time = strcmp(word, "cpu") == 0;
        } else {
            fprintf(stderr, "usage: cpu_probe [--threads N] [--lanes 8|16] [--clock wall|cpu]\n");
            return 2;
        }
    }
    if (cpu_time)
        threads = 1;
    kf_probe *p = kf_probe_create(KF_PROBE_READ_BYTES, (uint32_t)threads);
    if (!p) {
        fprintf(stderr, "cpu_probe: no memory for 2 GiB, or more than 256 threads\n");
        return 5;
    }
    if (cpu_time)
        kf_probe_use_cpu_time(p);
    const double read = kf_probe_read_best(p, 5);
    double fma = 0;
    for (int i = 0; i < 5; i++) {
        const double one = kf_probe_fma(p, (uint32_t)lanes, 0.1);
        fma = one > fma ? one : fma;
    }
    printf("{\"threads\": %ld, \"read_bytes_per_s\": %.6g, \"lanes\": %ld, \"fma_flop_per_s\": "
           "%.6g}\n",
           threads, read, lanes, fma);
    kf_probe_destroy(p);
    return 0;
}
