/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_internal - what the tokenizer's files share; not for others. */
#ifndef KF_RUNTIME_TOKENIZER_INTERNAL_H
#define KF_RUNTIME_TOKENIZER_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/kf_tok_table.h"
#include "runtime/tokenizer.h"

#include <pcre2.h>

#define KF_TOK_TRY(expr)                                                                           \
    do {                                                                                           \
        kf_status try_status = (expr);                                                             \
        if (try_status != KF_OK)                                                                   \
            return try_status;                                                                     \
    } while (0)

/* A step with its compiled pattern (NULL for literals and steps without one). */
typedef struct kf_tok_step {
    const kf_tok_op *op;
    const char *text, *text2; /* into the strings of the table */
    pcre2_code *regex;        /* Owned. */
} kf_tok_step;

typedef struct kf_tok_steps {
    kf_tok_step step[KF_TOK_MAX_OPS];
    uint32_t n;
} kf_tok_steps;

/* The text by which an added token is found and as which it is decoded. */
typedef struct kf_tok_needle {
    const char *text; /* Borrowed: from the table, or from kf_tokenizer.normalized_text. */
    uint32_t len;
    uint32_t added;  /* index into the section added */
    bool is_special; /* left out of decoded text on request */
} kf_tok_needle;

/* Needles sorted by bytes. */
typedef struct kf_tok_needles {
    kf_tok_needle *data;
    uint32_t n;
    bool first_byte[256];
} kf_tok_needles;

struct kf_tokenizer {
    kf_allocator alloc;
    const kf_tok_header *header; /* Borrowed. */
#define KF_TOK_FIELD(name, type)                                                                   \
    const type *name;                                                                              \
    uint32_t n_##name;
    KF_TOK_SECTIONS(KF_TOK_FIELD)
#undef KF_TOK_FIELD
    pcre2_general_context *general;   /* Owned. */
    pcre2_compile_context *compiling; /* Owned. */
    pcre2_match_context *matching;    /* Owned; read only while matching. */
    kf_tok_steps norm_steps, pre_steps, dec_steps;
    pcre2_code *word; /* Owned; one word character. NULL: no token asks for it. */
    kf_tok_needles raw_needles, normalized_needles;
    kf_tok_needle *decode_texts; /* Owned: n_added, in the order of the section added. */
    kf_tok_needle *needle_store; /* Owned: n_added, shared by both needle sets. */
    char *normalized_text;       /* Owned. */
    size_t normalized_text_bytes;
};

/* Growing memory: |data| holds |cap| bytes from |alloc|. */
typedef struct kf_tok_buf {
    const kf_allocator *alloc; /* Borrowed. */
    char *data;
    size_t len; /* bytes in use */
    size_t cap;
} kf_tok_buf;

kf_status kf_tok_buf_reserve(kf_tok_buf *b, size_t more_bytes);
kf_status kf_tok_buf_append(kf_tok_buf *b, const char *s, size_t n);
void kf_tok_buf_free(kf_tok_buf *b);

/* A part of the current text of an encoder. */
typedef struct kf_tok_piece {
    size_t offset;
    size_t len;
    uint32_t id;   /* KF_TOK_NONE: text still to be encoded */
    uint32_t lead; /* bytes at its start that stand at the beginning of the input, not counting the
                      first of the input itself; KF_TOK_NONE: it begins later */
} kf_tok_piece;

typedef struct kf_tok_symbol {
    uint32_t id;
    uint32_t len; /* 0: merged into its left neighbour */
    int32_t prev, next;
} kf_tok_symbol;

typedef struct kf_tok_candidate {
    uint32_t rank;
    uint32_t pos;
    uint32_t id;
} kf_tok_candidate;

struct kf_tok_scratch {
    const kf_tokenizer *tok; /* Borrowed. */
    pcre2_match_data *match; /* Owned. */
    kf_tok_buf text[2];      /* the current text and the one being made */
    kf_tok_buf pieces[2];    /* kf_tok_piece, likewise */
    kf_tok_buf temp[2];      /* for the steps of the normalizer */
    kf_tok_buf code_points;  /* int32_t */
    kf_tok_buf symbols, heap, ids;
};

/* Text being looked through for the matches of a step's pattern. */
typedef struct kf_tok_finder {
    const kf_tokenizer *tok;
    const kf_tok_step *step;
    pcre2_match_data *match;
    const char *text;
    size_t len;
    size_t at;       /* where the next search begins */
    size_t last_end; /* end of the last match; SIZE_MAX: none yet */
} kf_tok_finder;

void kf_tok_finder_init(kf_tok_finder *f, const kf_tokenizer *tok, const kf_tok_step *step,
                        pcre2_match_data *match, const char *text, size_t len);
/** Next match; *out_found false at the end. */
kf_status kf_tok_finder_next(kf_tok_finder *f, bool *out_found, size_t *out_start, size_t *out_end);

/** Appends |text| to |out| with every match of the step's pattern replaced by its text2. */
kf_status kf_tok_replace(const kf_tokenizer *tok, const kf_tok_step *step, pcre2_match_data *match,
                         const char *text, size_t len, kf_tok_buf *out);

/** Runs the normalizer over |len| bytes; *out_text points into |s| or at |text|. *out_lead as in
 *  kf_tok_piece, KF_TOK_NONE if the first byte of the result is not the first of |text|. */
kf_status kf_tok_normalize(kf_tok_scratch *s, const char *text, size_t len, const char **out_text,
                           size_t *out_len, uint32_t *out_lead);

/** Appends the ids of one piece to scratch->ids. */
kf_status kf_tok_encode_piece(kf_tok_scratch *s, const char *text, size_t len);

/** Id of a vocabulary entry of the model, or KF_TOK_NONE. */
uint32_t kf_tok_find(const kf_tokenizer *tok, const char *text, size_t len);

/** Unicode White_Space. */
bool kf_tok_is_space(uint32_t cp);

/** The inverse; -1 if |cp| stands for no byte. */
int kf_tok_char_byte(uint32_t cp);

#endif
