/* SPDX-License-Identifier: Apache-2.0 */
/* golden - what the programs that compare compiled models with transformers share: files, commands,
 * and mistakes, which are edits of a description. */
#ifndef KF_TESTS_NUMERICS_GOLDEN_H
#define KF_TESTS_NUMERICS_GOLDEN_H

#include <stddef.h>

enum { GOLDEN_TEXT = 1 << 16, GOLDEN_PATH = 1024 };

/** Every |from| in the description of |model| becomes |to|. Names are those of golden.json where it
 * has the figure. */
typedef struct golden_mistake {
    const char *model, *name, *from, *to;
} golden_mistake;

/** Prints and exits with 1. */
void golden_fail(const char *what, const char *detail);
const char *golden_environment(const char *name);

/** Bytes read, at most |max| - 1; |out| is terminated. */
size_t golden_read(const char *path, char *out, size_t max);
void golden_write(const char *path, const char *text);
/** The command's output; a status other than 0 ends the test. */
void golden_run(const char *command, char *out, size_t max);

/** NMSE over |rows| rows of |width|, and of the worst row. */
double golden_nmse(const float *got, const float *want, int rows, int width, double *out_worst);

/** |text| with the comments gone and every m->from replaced; at least one must be there. */
void golden_edit(const char *text, const golden_mistake *m, char *out, size_t max);
/** How far off transformers is with the same mistake; 0 where golden.json does not say. */
double golden_figure(const char *json, const char *mistake);

#endif
