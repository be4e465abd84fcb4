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

#define CLI_MAX_STOPS 8u

/* Filled by the option table of main.c. Strings are borrowed from argv. */
typedef struct cli_options {
    const char *prompt, *file, *ids, *jsonl;
    const char *weights, *device;
    const char *logits, *all_logits;
    const char *stop[CLI_MAX_STOPS];
    uint64_t n_stops;
    const char *operand; /* FILE of `score` */
    uint64_t n_tokens, n_prompt, batch, repeats;
    uint64_t threads, context, prefill_chunk;
    uint64_t top_k, seed, random_seed;
    double temperature, top_p, min_p, repeat_penalty;
    bool has_n, has_prompt_len, has_random, has_context;
    bool json, profile, ignore_eos, verbose, quiet;
} cli_options;

typedef struct cli {
    const kf_model *model;
    cli_options opt;
    kf_logger log;
    kf_engine *engine;
    kf_session *session;
    const kf_tokenizer *tok; /* the engine's; NULL: the packed file has none */
    kf_tok_scratch *scratch;
    kf_launch_stats *stats;
} cli;

/** Opens engine, session and tokenizer as the options say; prints the size of the cache if asked.
 */
kf_status cli_open(cli *c);
void cli_close(cli *c);

/** True once SIGINT or SIGTERM has come; verbs stop at the next step. */
bool cli_is_interrupted(void);

kf_status cli_run(cli *c);
kf_status cli_score(cli *c);
kf_status cli_bench(cli *c);
kf_status cli_info(cli *c);
kf_status cli_verify(cli *c);

/** The table of --profile, to stderr. */
void cli_print_profile(const cli *c);

/** Best read bandwidth in bytes/s of |rounds| passes over |buffer| with all workers. */
double cli_read_probe(kf_pool *pool, const void *buffer, uint64_t size_bytes, uint32_t rounds);
/** Writes every page of |buffer|. */
void cli_read_probe_fill(kf_pool *pool, void *buffer, uint64_t size_bytes);

/* ---- Text ------------------------------------------------------------------------------------ */

/** A growing byte or id array; freed with cli_array_free. Zero-initialise. */
typedef struct cli_array {
    char *data; /* Owned. */
    size_t size_bytes, cap_bytes;
} cli_array;

kf_status cli_array_add(const cli *c, cli_array *a, const void *data, size_t size_bytes);
void cli_array_free(const cli *c, cli_array *a);

/** Reads a file ("-": stdin) of at most |max_bytes|. */
kf_status cli_read_file(const cli *c, const char *path, size_t max_bytes, cli_array *out);

/** Appends the ids of |text| (with the tokenizer's special tokens) as int32_t to |out|. */
kf_status cli_encode(cli *c, const char *text, size_t len, cli_array *out_ids);
/** Appends the ids of "1,2,3" to |out|. */
kf_status cli_parse_ids(const cli *c, const char *text, cli_array *out_ids);

/** A JSON string with quotes; |s| is UTF-8. */
void cli_json_string(FILE *f, const char *s, size_t len);
void cli_json_ids(FILE *f, const int32_t *ids, size_t n);

/** A .npy file (format 1.0) of f32 in C order, written row by row. */
typedef struct cli_npy {
    FILE *f;
    const char *path;
} cli_npy;

/** |rows| 0: one dimension of |cols|. */
kf_status cli_npy_open(const cli *c, cli_npy *n, const char *path, uint64_t rows, uint64_t cols);
void cli_npy_row(cli_npy *n, const float *row, uint64_t cols);
kf_status cli_npy_close(const cli *c, cli_npy *n);
/** Removes a file that is not closed; safe after closing and on a zeroed struct. */
void cli_npy_abandon(cli_npy *n);

/* ---- Requests of --jsonl --------------------------------------------------------------------- */

typedef struct cli_request {
    cli_array prompt; /* text */
    cli_array ids;    /* int32_t */
    bool has_prompt, has_ids, has_n, has_seed;
    int64_t n, seed;
} cli_request;

/** Parses one line: an object with "prompt" or "ids", and optionally "n" and "seed". */
kf_status cli_request_parse(const cli *c, const char *line, size_t len, uint64_t line_no,
                            cli_request *out);
void cli_request_free(const cli *c, cli_request *r);

#endif
