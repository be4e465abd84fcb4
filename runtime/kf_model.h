/* SPDX-License-Identifier: Apache-2.0 */
/* kf_model - how a C program uses a compiled model (`kerf compile --emit lib`).
 *
 * open -> session -> step, step, ... -> logits -> close. There are no globals; nothing here prints
 * or exits; memory comes from the caller's allocator, text goes to the caller's log hook. An engine
 * may be shared by threads (steps are serialised inside); a session belongs to one thread at a
 * time.
 */
#ifndef KF_RUNTIME_KF_MODEL_H
#define KF_RUNTIME_KF_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* what a shared object shows */

/* 0 is success; the others are also the exit codes of the executables. */
typedef enum kf_status {
    KF_OK = 0,
    KF_ERR_INPUT = 1,       /* the caller's data: an id out of range, text that is not UTF-8 */
    KF_ERR_USAGE = 2,       /* a call or an option that makes no sense, a bound exceeded */
    KF_ERR_IO = 3,          /* missing, truncated, damaged or mismatched file */
    KF_ERR_UNSUPPORTED = 4, /* this build of the model has no such thing */
    KF_ERR_MEMORY = 5,
    KF_ERR_DEVICE = 6, /* the processor lacks what the kernels need */
    KF_ERR_VERIFY = 7
} kf_status;

/** A short sentence for a status. */
const char *kf_status_text(kf_status status);

/* Compiled-in description of a model; each library exports `const kf_model *<name>_model(void)`. */
struct kf_model;
typedef struct kf_engine kf_engine;   /* weights and worker threads */
typedef struct kf_session kf_session; /* KV cache and buffers of up to max_sequences sequences */

/** |alloc| returns zeroed memory at |align| (a power of two <= 4096) or NULL; large blocks should
 * be committed lazily, as the default (mmap) does. */
typedef struct kf_allocator {
    void *(*alloc)(void *user, size_t size_bytes, size_t align);
    void (*free)(void *user, void *p, size_t size_bytes);
    void *user;
} kf_allocator;

typedef enum kf_log_level { KF_LOG_ERROR = 0, KF_LOG_WARNING = 1, KF_LOG_INFO = 2 } kf_log_level;

/** All zero is the default: the embedded weights, all processors, malloc and mmap, silence. */
typedef struct kf_options {
    const char *weights_path;      /* NULL: embedded weights, or else <this executable>.kfw */
    const uint64_t *random_seed;   /* not NULL: weights made in memory from this seed, no file */
    uint32_t threads;              /* 0: processors this process may use (affinity, cgroup quota) */
    uint32_t context;              /* positions a sequence may hold; 0: min(max_positions, 4096) */
    const kf_allocator *allocator; /* NULL: the default; copied */
    void (*log)(void *user, kf_log_level level, const char *text);
    void *log_user;
} kf_options;

typedef struct kf_limits {
    uint32_t sequences, tokens, rows, context, vocab_size, threads;
    uint32_t row_width;       /* numbers in a row of results: vocab_size, or an embedding's width */
    uint32_t encoder, pooled; /* 1: it takes whole sequences; and gives one row for each */
    uint32_t memory;          /* 1: sequences attend to texts of kf_session_encode */
    int32_t start_id;         /* and begin with this token */
    uint64_t weights_bytes, pool_bytes,
        kv_bytes; /* kv_bytes: of a session whose pages are all in use */
} kf_limits;

/** Maps and checks the weights, checks the processor, starts the workers. Borrows |model|. */
kf_status kf_open(const struct kf_model *model, const kf_options *options, kf_engine **out_engine);
/** All sessions must be closed before. NULL is allowed. */
void kf_close(kf_engine *engine);
void kf_engine_limits(const kf_engine *engine, kf_limits *out_limits);

kf_status kf_session_open(kf_engine *engine, kf_session **out_session);
void kf_session_close(kf_session *session);

/** What one sequence adds in one step. */
typedef struct kf_append {
    uint32_t sequence; /* 0 .. limits.sequences - 1; each at most once a step */
    uint32_t n_tokens; /* >= 1 */
    const int32_t *tokens;
    uint32_t n_logits;    /* logits of the last n_logits of these tokens are kept; may be 0 */
    const int32_t *types; /* token types, of models that have them; NULL: all 0 */
} kf_append;

/** Appends to |n| sequences in one call. An encoder takes whole sequences: they hold nothing before
 *  (truncate to 0 for the next text), and rows are the results of the last n_logits tokens, or,
 * where limits.pooled, one row of the sequence (n_logits is 1). The tokens of all together are at
 * most limits.tokens (use kf_session_prefill for longer ones), the logit rows at most limits.rows.
 * On failure nothing has changed.
 */
kf_status kf_session_step(kf_session *session, const kf_append *appends, uint32_t n);

/** Only models of an encoder and a decoder: |n| texts, whole and in one call, that the sequences
 * attend to from then on; n_logits is 0. A sequence gives up what it held. */
kf_status kf_session_encode(kf_session *session, const kf_append *texts, uint32_t n);

/** Appends any number of tokens to one sequence in chunks of at most |chunk| tokens (0: the
 * largest); the logits of the last one are kept as row 0. An encoder takes one chunk. */
kf_status kf_session_prefill(kf_session *session, uint32_t sequence, const int32_t *tokens,
                             uint32_t n_tokens, uint32_t chunk);

/** Row |row| of the results of the last step: the rows of its first append, then of its second, ...
 *  limits.row_width floats (vocab_size, where they are logits), valid until the next step. NULL if
 * there is no such row. */
const float *kf_session_logits(const kf_session *session, uint32_t row);

/** The likeliest token behind row |row| of the last step: the id of its largest logit, of equal ones the
 * smallest, 0 if no logit is larger than -inf; NaN is never chosen. It was chosen beside the last
 * product and costs nothing here: this is greedy decoding. Whatever else decides (penalties,
 * temperature, top-k, ...) is the caller's, from kf_session_logits. Like these it may be read by
 * the thread that the session belongs to. -1 if there is no such row, or rows are no logits. */
int32_t kf_session_next(const kf_session *session, uint32_t row);

/** Positions that |sequence| holds. */
uint32_t kf_session_length(const kf_session *session, uint32_t sequence);

/** Keeps the first |n| positions of |sequence|; its other pages become free. */
kf_status kf_session_truncate(kf_session *session, uint32_t sequence, uint32_t n);

/** Ids of |len| bytes of UTF-8 with the tokenizer's special tokens. At most |capacity| are written;
 *  |out_n| is how many there are. KF_ERR_UNSUPPORTED: compiled without a tokenizer. */
kf_status kf_encode(kf_engine *engine, const char *text, size_t len, int32_t *ids, size_t capacity,
                    size_t *out_n);

/** Text of |n| ids without the special ones; not terminated. At most |capacity| bytes are written;
 *  |out_len| is how many there are. */
kf_status kf_decode(kf_engine *engine, const int32_t *ids, size_t n, char *text, size_t capacity,
                    size_t *out_len);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
