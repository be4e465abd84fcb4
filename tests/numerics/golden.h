/* SPDX-License-Identifier: Apache-2.0 */
/* golden - what the programs that compare compiled models with transformers share: the two checks,
 * files, commands, and mistakes, which are edits of a description.
 *
 *   PROGRAM NAME           worst row within the gate, greedy tokens identical
 *   PROGRAM NAME MISTAKE   the description with one switch the wrong way round: outside ten times
 *                          the gate, and, where golden.json says how far transformers then is, as
 *                          far
 *
 * A mistake edits the open composition that `kerf inspect --stage spec` prints, so every switch can
 * be turned, also those that config.json has no key for.
 */
#ifndef KF_TESTS_NUMERICS_GOLDEN_H
#define KF_TESTS_NUMERICS_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>

enum { GOLDEN_TEXT = 1 << 16, GOLDEN_PATH = 1024, GOLDEN_FLOATS = 4096 };

/** Every |from| in the description of |model| becomes |to|. Names are those of golden.json where it
 * has the figure. */
typedef struct golden_mistake {
    const char *model, *name, *from, *to;
} golden_mistake;

typedef struct golden {
    const char *name;
    const char *set;  /* options of `kerf` that belong to the description */
    const char *rows; /* the .npy file of what is expected: |n| rows of |width| */
    int n, width;
    char dir[GOLDEN_PATH]; /* the folder of tests/golden */
    char out[GOLDEN_PATH]; /* the executable */
    char json[GOLDEN_TEXT];
} golden;

/** What a program compares. */
typedef struct golden_program {
    const char *name;
    /** Fills set, rows, n, width and dir; false: there is no such model. */
    bool (*find)(golden *g);
    /** Runs g->out: |npy| gets the rows. Whether greedy tokens are those of g->json. */
    bool (*run)(const golden *g, const char *npy);
    const golden_mistake *mistakes;
    size_t n_mistakes;
} golden_program;

/** The program: its exit status. */
int golden_main(const golden_program *p, int argc, char **argv);

/** Prints and exits with 1. */
void golden_fail(const char *what, const char *detail);
/** g->dir becomes |model| in |folder| of tests/golden; false: it has no golden.json. */
bool golden_folder(golden *g, const char *folder, const char *model);
/** The command's output; a status other than 0 ends the test. */
void golden_run(const char *command, char *out, size_t max);
/** The first |n| numbers of the list behind |key|. */
void golden_list(const char *json, const char *key, int n, int *out);

#endif
