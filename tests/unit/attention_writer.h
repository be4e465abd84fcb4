/* SPDX-License-Identifier: Apache-2.0 */
/* attention_writer - attention written out op by op, in the spelling that is asked for. */
#ifndef KF_TESTS_UNIT_ATTENTION_WRITER_H
#define KF_TESTS_UNIT_ATTENTION_WRITER_H

#include "tests/unit/spelling.h"

/* Heads, KV heads, heads of a group, head size; rows of tables. */
enum { H = 4, G = 2, R = 2, D = 4, BUCKETS = 4, POSITIONS = 8 };
#define SCALE 0.25

typedef struct form {
    const char *name;
    bool cap, slopes, buckets, logs, grid, window, prefix, sink, factor, relu, decay;
    const char *has; /* what the op must hold */
} form;

typedef enum layout {
    GROUPED,
    TURNED,
    ROWS_FIRST,
    EXPANDED,
    GATHERED,
    JOINED,
    SWAPPED,
    PRODUCTS,
    LAYOUTS,
    TILED = LAYOUTS /* heads h, h + G, .. share keys: another function */
} layout;
typedef enum place { AFTER, DIVIDED, QUERY, KEYS, BOTH, SPREAD, SCALES } place;
typedef enum masking { SELECT, NOT, BIAS, TWICE, DE_MORGAN, WEIGHTS, MASKS } masking;
typedef enum softmax {
    GUARDED,
    PLAIN,
    STEPS,
    NO_MAX,
    LATE,
    LOGARITHM,
    SAFE_SUM,
    OVER_SUM,
    SOFTMAXES
} softmax;

typedef struct spelled {
    layout layout;
    place scale;
    masking mask;
    softmax softmax;
    bool commute, detours;
} spelled;

/** One function under construction. */
typedef struct writer {
    spelling s;
    const form *f;
    spelled how;
    kf_value q, pos, seq, seq_start, past, pages, kv, keys, values;
    kf_value row, key; /* positions along the axes of the scores */
} writer;

/** The function's arguments; keys and values appended and read back. */
void aw_begin(writer *w, kf_arena *arena, const form *f, spelled how);

/* Parts, for computations that only resemble one. */
kf_value aw_key_index(writer *w, int plane);
/** Numbers of rows, along the rows of the scores. */
kf_value aw_along_rows(writer *w, kf_value v);
/** Keys or values by heads, so that matmul broadcasts or repeats them. */
kf_value aw_by_heads(writer *w, kf_value rows);
kf_value aw_scores(writer *w);
kf_value aw_own_sequence(writer *w);
kf_value aw_in_sight(writer *w);
/** |x| where the key is seen, |hidden| elsewhere. */
kf_value aw_hide(writer *w, kf_value x, double hidden);
/** The weights; |late|: what is still to be divided by, or KF_NO_VALUE. */
kf_value aw_probabilities(writer *w, kf_value x, kf_value *late);
kf_value aw_weigh(writer *w, kf_value p);
kf_value aw_to_rows(writer *w, kf_value o);

/** All of it; the result is [N, H * D]. */
void aw_write(writer *w);

#endif
