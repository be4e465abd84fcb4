/* SPDX-License-Identifier: Apache-2.0 */
/* cli - what the verbs of a produced executable share: options, the opened model, text in and out.
 *
 * Results go to stdout, everything else to stderr. Functions return a kf_status, which is the exit
 * code.
 */
#ifndef KF_RUNTIME_CLI_H
#define KF_RUNTIME_CLI_H

#include "runtime/internal.h"
#include "runtime/sample.h"
#include "runtime/tokenizer.h"

#include <stdio.h>

#define KF_CLI_MAX_STOPS 8u

/* Filled by the option table of main.c. Strings are borrowed from argv. */
typedef struct kf_cli_options {
    const char *prompt, *file, *ids, *jsonl;
    const char *weights, *device;
    const char *logits, *all_logits;
    const char *types, *npy; /* of `embed` */
    const char *decoder_ids;
    const char *stop[KF_CLI_MAX_STOPS];
    uint64_t n_stops;
    const char *operand; /* FILE of `score` and `embed` */
    uint64_t n_tokens, n_prompt, batch, repeats;
    uint64_t threads, context, prefill_chunk;
    uint64_t top_k, seed, random_seed;
    double temperature, top_p, min_p, repeat_penalty;
    bool has_n, has_prompt_len, has_random, has_context;
    bool json, profile, ignore_eos, verbose, quiet;
} kf_cli_options;

typedef struct kf_cli {
    const kf_model *model;
    kf_cli_options opt;
    kf_logger log;
    kf_engine *engine;
    kf_session *session;
    const kf_tokenizer *tok; /* the engine's; NULL: the packed file has none */
    kf_tok_scratch *scratch;
    kf_launch_stats *stats;
} kf_cli;

/** Opens engine, session and tokenizer as the options say; prints the size of the cache if asked.
 */
kf_status kf_cli_open(kf_cli *c);

/** True once SIGINT or SIGTERM has come; verbs stop at the next step. */
bool kf_cli_is_interrupted(void);

kf_status kf_cli_run(kf_cli *c);
kf_status kf_cli_score(kf_cli *c);
kf_status kf_cli_embed(kf_cli *c);
kf_status kf_cli_bench(kf_cli *c);
kf_status kf_cli_info(kf_cli *c);
kf_status kf_cli_verify(kf_cli *c);

/** The table of --profile, to stderr. */
void kf_cli_print_profile(const kf_cli *c);

/** Best read bandwidth in bytes/s of |rounds| passes over |buffer| with all workers. */
double kf_cli_read_probe(kf_pool *pool, const void *buffer, uint64_t size_bytes, uint32_t rounds);
/** Writes every page of |buffer|. */
void kf_cli_read_probe_fill(kf_pool *pool, void *buffer, uint64_t size_bytes);

/* ---- Text ------------------------------------------------------------------------------------ */

/** A growing byte or id array; freed with kf_cli_array_free. Zero-initialise. */
typedef struct kf_cli_array {
    char *data; /* Owned. */
    size_t size_bytes, cap_bytes;
} kf_cli_array;

kf_status kf_cli_array_add(const kf_cli *c, kf_cli_array *a, const void *data, size_t size_bytes);
void kf_cli_array_free(const kf_cli *c, kf_cli_array *a);

/** Reads a file ("-": stdin) of at most |max_bytes|. */
kf_status kf_cli_read_file(const kf_cli *c, const char *path, size_t max_bytes, kf_cli_array *out);

/** Appends the ids of |text| (with the tokenizer's special tokens) as int32_t to |out|. */
kf_status kf_cli_encode(kf_cli *c, const char *text, size_t len, kf_cli_array *out_ids);
/** Appends the ids of "1,2,3" to |out|. */
kf_status kf_cli_parse_ids(const kf_cli *c, const char *text, kf_cli_array *out_ids);

/** A JSON string with quotes; |s| is UTF-8. */
void kf_cli_json_string(FILE *f, const char *s, size_t len);
void kf_cli_json_ids(FILE *f, const int32_t *ids, size_t n);

/** A .npy file (format 1.0) of f32 in C order, written row by row. */
typedef struct kf_cli_npy {
    FILE *f;
    const char *path;
} kf_cli_npy;

/** |rows| 0: one dimension of |cols|. */
kf_status kf_cli_npy_open(const kf_cli *c, kf_cli_npy *n, const char *path, uint64_t rows,
                          uint64_t cols);
void kf_cli_npy_row(kf_cli_npy *n, const float *row, uint64_t cols);
kf_status kf_cli_npy_close(const kf_cli *c, kf_cli_npy *n);
/** Removes a file that is not closed; safe after closing and on a zeroed struct. */
void kf_cli_npy_abandon(kf_cli_npy *n);

/* ---- Requests of --jsonl --------------------------------------------------------------------- */

typedef struct kf_cli_request {
    kf_cli_array prompt; /* text */
    kf_cli_array ids;    /* int32_t */
    bool has_prompt, has_ids, has_n, has_seed;
    int64_t n, seed;
} kf_cli_request;

/** Parses one line: an object with "prompt" or "ids", and optionally "n" and "seed". */
kf_status kf_cli_request_parse(const kf_cli *c, const char *line, size_t len, uint64_t line_no,
                               kf_cli_request *out);
void kf_cli_request_free(const kf_cli *c, kf_cli_request *r);

#endif
