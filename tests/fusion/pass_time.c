/* SPDX-License-Identifier: Apache-2.0 */
/* pass_time - the CPU time of all passes over one description, the least of several runs: a layer
 * is seen once, however often it is repeated.
 *
 *   pass_time SPEC LIMIT-MS
 */
#include "codegen/target_cpu.h"
#include "frontend/build_graph.h"
#include "passes/passes.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RUNS = 5 };

/* Milliseconds of the passes alone, without the frontend and without checks after each; below 0
 * after a diagnostic. */
static double run(const char *path, uint32_t *out_nodes)
{
    kf_arena *a = kf_arena_create("module"), *scratch = kf_arena_create("scratch");
    kf_diags *d = kf_diags_create(a);
    kf_spec *spec = kf_spec_load(a, d, path, NULL, 0);
    kf_module *m = spec ? kf_build_graph(a, d, spec, NULL) : NULL;
    double ms = -1;

    if (m) {
        kf_pass_ctx cx = {
            .arena = a, .scratch = scratch, .target = kf_target_cpu(a, "x86-64-v3"), .diags = d};
        kf_pipeline_options p = {.out = stderr};
        kf_pass_runs runs = {0};
        clock_t start = clock();
        kf_pipeline_run(m, &cx, &p, &runs);
        ms = (double)(clock() - start) * 1e3 / CLOCKS_PER_SEC;
        *out_nodes = runs.data[0].nodes;
    }
    kf_diags_print(d, stderr, false);
    kf_arena_destroy(scratch);
    kf_arena_destroy(a);
    return ms;
}

int main(int argc, char **argv)
{
    double best = -1;
    uint32_t nodes = 0;

    if (argc != 3)
        return fprintf(stderr, "usage: pass_time SPEC LIMIT-MS\n"), 2;
    for (int i = 0; i < RUNS; i++) {
        double ms = run(argv[1], &nodes);
        if (ms < 0)
            return 1;
        best = best < 0 || ms < best ? ms : best;
    }
    printf("%u nodes, all passes: %.1f ms of CPU, at most %s are allowed\n", nodes, best, argv[2]);
    return best > strtod(argv[2], NULL);
}
