/* SPDX-License-Identifier: Apache-2.0 */
/* kf_runtime - the one header that emitted host C includes: the constant description of a model and
 * the call that runs one launch. The API of programs that use a model is kf_model.h; this is not
 * it.
 *
 * An emitted file holds, all of it const and static:
 *   1. `void k0_qkv(const kf_kernel_args *, uint32_t, void *);` for each tile function,
 *   2. per launch its operand list and a `kf_launch`, collected in the array kf_model.launches,
 *   3. one function per phase and row bucket that calls kf_tiles in order,
 *   4. the weight offset tables and the `kf_model`,
 * and ends with
 *      int main(int argc, char **argv) { return kf_main(&tiny, argc, argv); }
 * or, in a library (`--emit lib`), with
 *      const kf_model *tiny_model(void) { return &tiny; }
 */
#ifndef KF_RUNTIME_KF_RUNTIME_H
#define KF_RUNTIME_KF_RUNTIME_H

#include "kf_artifact.h"

#include <stddef.h>
#include <stdint.h>

#define KF_ABI_VERSION 3u

/* One of the threads that walk a phase function; what a call computes. Opaque to emitted C. */
typedef struct kf_worker kf_worker;
typedef struct kf_step kf_step;

/* ---- Launches -------------------------------------------------------------------------------- */

/* What an operand's pointer is made of; |layer| is the argument of kf_tiles. */
enum {
    KF_SPACE_BUFFER = 0, /* pool + offset + layer * layer_stride */
    KF_SPACE_WEIGHT =
        1, /* weights section + weights[index].offset[min(layer, layers - 1)] + offset */
    KF_SPACE_STATE = 2,  /* base of kv[index] + layer * page_bytes; see kf_kv_addr */
    KF_SPACE_INPUT = 3,  /* the call's array KF_INPUT_<index> */
    KF_SPACE_COUNTER = 4 /* counters + offset: uint32_t cells that are 0 when a launch starts, and
                            that the launch's last tile leaves at 0 again (split reductions); behind
                            them what the tiles of a launch share */
};

typedef struct kf_operand {
    uint32_t space; /* KF_SPACE_* */
    uint32_t index;
    uint64_t offset;       /* bytes */
    uint64_t layer_stride; /* bytes; buffers only */
} kf_operand;

#define KF_MAX_TILE_TERMS 3u

/** Tiles of a launch: base * product over the terms of ceil(dim[term.dim] / term.div). */
typedef struct kf_tile_count {
    uint32_t base;
    uint32_t n_terms;
    struct {
        uint32_t dim; /* KF_DIM_* */
        uint32_t div; /* >= 1 */
    } term[KF_MAX_TILE_TERMS];
} kf_tile_count;

/** Work of one launch for one layer: fixed + sum over d of per_dim[d] * dim[d]. */
typedef struct kf_work {
    uint64_t fixed;
    uint64_t per_dim[KF_DIM_COUNT];
} kf_work;

typedef struct kf_launch {
    const char *name;   /* "k0_qkv": the name of the tile function */
    const char *what;   /* "rms_norm + q,k,v + rope + kv append" */
    const char *place;  /* "tiny.yaml:8:11" */
    const char *family; /* "matmul" */
    kf_kernel_fn kernel;
    const kf_operand *operands;
    uint32_t n_operands; /* <= KF_MAX_OPERANDS */
    uint32_t id;         /* its index in kf_model.launches */
    kf_tile_count tiles;
    kf_work flops;
    kf_work bytes; /* read and written, each once */
} kf_launch;

/** Runs launch |l| for |layer|: claims tiles until none is left, returns when all of them are done.
 *  Every worker calls it with the same arguments in the same order. */
void kf_tiles(kf_worker *w, const kf_launch *l, uint32_t layer);

/* ---- Phases ---------------------------------------------------------------------------------- */

typedef void (*kf_phase_fn)(kf_worker *w, const kf_step *s);

enum {
    KF_PHASE_PREFILL = 0, /* any call */
    KF_PHASE_DECODE = 1,  /* only calls with S == N == R: one token and one logit row a sequence */
    KF_PHASE_ENCODE = 2   /* an encoder's calls: whole sequences */
};

/* What a step of the model is. */
enum {
    KF_KIND_DECODER = 0, /* appends tokens to sequences; a row is the logits behind a token */
    KF_KIND_ENCODER = 1, /* takes whole sequences; a row belongs to a token */
    KF_KIND_ENCODER_DECODER = 2 /* a decoder that attends to a text which was encoded before */
};

/** A call runs the first phase of the table whose kind admits it and whose bucket holds its N. The
 *  prefill buckets cover 1..max_tokens without gaps, where there is an encoder the encode buckets;
 *  decode buckets are optional. */
typedef struct kf_phase {
    const char *name; /* "decode_r1" */
    uint32_t kind;    /* KF_PHASE_* */
    uint32_t rows_lo, rows_hi;
    uint32_t n_launches; /* kf_tiles calls the function makes */
    kf_phase_fn fn;
    uint64_t logits_offset; /* bytes into the pool; f32 [R, logits_stride] when the call ends; [S,
                               logits_stride] if the model's rows are pooled */
    uint64_t next_offset;   /* the same; i32 [R], the likeliest token behind each row; KF_NO_NEXT
                               where rows are no logits */
} kf_phase;

#define KF_NO_NEXT UINT64_MAX

/* ---- Weights and state ----------------------------------------------------------------------- */

/* Element type of a packed weight, for random weights and messages. */
enum {
    KF_ELEM_F32 = 0,
    KF_ELEM_BF16 = 1,
    KF_ELEM_F16 = 2,
    KF_ELEM_I8 = 3,
    KF_ELEM_U8 = 4,
    KF_ELEM_I32 = 5
};

typedef struct kf_weight {
    const char *name;       /* "model.layers.{i}.wqkv" */
    uint32_t elem;          /* KF_ELEM_* */
    uint32_t layers;        /* entries of |offset|, >= 1 */
    const uint64_t *offset; /* bytes into the weights section, KF_ARTIFACT_WEIGHT_ALIGN'ed */
    uint64_t size_bytes;    /* of one layer */
    uint64_t read_bytes; /* of one layer, read by one decode step (an embedding table: one row) */
    /* With --random-weights the elements are uniform with this mean and standard deviation, unless
     * |constant| gives the bytes (of every layer) themselves. */
    float mean, std;
    const void *constant; /* NULL, or size_bytes bytes */
} kf_weight;

typedef struct kf_kv_state {
    const char *name;
    uint32_t layers;
    uint32_t page_tokens; /* KF_KV_PAGE_TOKENS; the same for all states of a model */
    uint64_t page_bytes;  /* of one layer; page stride = layers * page_bytes */
    uint32_t is_memory; /* 1: holds the positions of the encoded text, not those of the sequence */
} kf_kv_state;

/* ---- The model ------------------------------------------------------------------------------- */

typedef struct kf_sampling_defaults {
    float temperature; /* 0: greedy */
    float top_p;       /* 0 or 1: off */
    float min_p;       /* 0: off */
    uint32_t top_k;    /* 0: off */
} kf_sampling_defaults;

typedef struct kf_model {
    uint32_t abi;          /* KF_ABI_VERSION */
    uint32_t cpu_features; /* KF_CPU_* that the kernels need */
    const char *name;
    const char *target;           /* "cpu:x86-64-v3" */
    const char *compiler_version; /* "0.1.0" */
    const char *manifest;         /* JSON object; printed by info --json */
    uint64_t header_digest;       /* of the packed file; 0: compiled without weights */
    const unsigned char *embedded_start, *embedded_end; /* the packed file, 4096-aligned, or NULL */

    uint32_t max_sequences, max_tokens, max_rows, max_positions;
    uint32_t vocab_size;
    uint32_t type_vocab_size; /* token types; 0: none */
    uint32_t kind;            /* KF_KIND_* */
    uint32_t is_pooled;       /* 1: an encoder that gives one row a sequence */
    uint32_t row_width;       /* numbers in a row of results; vocab_size where they are logits */
    uint64_t pool_bytes;
    uint64_t counter_bytes;
    uint64_t scratch_bytes; /* of each worker */
    uint32_t logits_stride; /* elements, >= row_width */

    uint32_t n_eos;
    const int32_t *eos; /* token ids that end a text */
    kf_sampling_defaults sampling;
    int32_t start_id; /* first token of a decoder beside an encoder */

    uint64_t weights_bytes; /* size of the weights section, tail included */
    const kf_weight *weights;
    const kf_kv_state *kv;
    const kf_launch *const *launches; /* by id */
    const kf_phase *phases;
    uint32_t n_weights, n_kv, n_launches, n_phases;
} kf_model;

/** The main of every produced executable: run and score, or embed; bench, verify, info. */
int kf_main(const kf_model *model, int argc, char **argv);

#endif
