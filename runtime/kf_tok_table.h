/* SPDX-License-Identifier: Apache-2.0 */
/* kf_tok_table - the layout of a compiled tokenizer: what the compiler writes and the runtime maps.
 *
 * One position-independent little-endian blob, the content of the packed file's section
 * KF_SECTION_TOKENIZER. It begins with kf_tok_header; every section starts at a multiple of
 * KF_TOK_ALIGN from the blob's start and holds |count| elements of its type. Nothing in it is
 * parsed: it is checked once (kf_tokenizer_open) and used in place. docs/ARTIFACT.md is its prose.
 *
 * Hash tables are open addressing with linear probing, a power of two of slots, at least one empty.
 * It includes no other header of the project, so that either side can be read alone.
 */
#ifndef KF_RUNTIME_KF_TOK_TABLE_H
#define KF_RUNTIME_KF_TOK_TABLE_H

#include <stdint.h>
#include <string.h>

#define KF_TOK_MAGIC     0x4b4f544bu /* "KTOK" */
#define KF_TOK_VERSION   1u
#define KF_TOK_ALIGN     64u
#define KF_TOK_NONE      0xffffffffu
#define KF_TOK_MAX_IDS   (1u << 24)
#define KF_TOK_SHORT_IDS 2048u /* code points of one or two UTF-8 bytes */
#define KF_TOK_MAX_OPS   32u   /* per list of steps */

/* A piece of the section "strings". */
typedef struct kf_tok_str {
    uint32_t offset;
    uint32_t len;
} kf_tok_str;

enum {
    KF_TOK_ENTRY_PRESENT = 1, /* the id has a text */
    KF_TOK_ENTRY_MODEL = 2,   /* the text is in the model's vocabulary (else an added token only) */
    KF_TOK_ENTRY_ADDED = 4,
    KF_TOK_ENTRY_SPECIAL = 8 /* left out of decoded text on request */
};

/* By token id. */
typedef struct kf_tok_entry {
    kf_tok_str text;
    uint32_t flags; /* KF_TOK_ENTRY_* */
} kf_tok_entry;

/* The model's vocabulary by text; keyed by kf_tok_hash of the text. */
typedef struct kf_tok_vocab_slot {
    uint32_t id;  /* KF_TOK_NONE: empty */
    uint32_t tag; /* upper half of the hash */
} kf_tok_vocab_slot;

/* Merges by pair; keyed by kf_tok_pair_hash. */
typedef struct kf_tok_merge_slot {
    uint32_t left, right;
    uint32_t rank; /* lower first; KF_TOK_NONE: empty slot */
    uint32_t id;   /* what the pair becomes */
} kf_tok_merge_slot;

/* Pairs of neighbouring initial symbols that lie inside some merged token; between all others a
 * text may be cut without changing the result. An empty section: not known, never cut. */
typedef struct kf_tok_join_slot {
    uint32_t left, right; /* both KF_TOK_NONE: empty slot */
} kf_tok_join_slot;

enum {
    KF_TOK_ADDED_SINGLE_WORD = 1,
    KF_TOK_ADDED_LSTRIP = 2,
    KF_TOK_ADDED_RSTRIP = 4,
    KF_TOK_ADDED_NORMALIZED = 8
};

/* Added tokens in ascending id; matched in the text before the model sees it. */
typedef struct kf_tok_added {
    uint32_t id;
    uint32_t flags; /* KF_TOK_ADDED_* */
} kf_tok_added;

/* X(name, arguments): one step of the normalizer, the pre-tokenizer or the decoder. |text| is a
 * literal or a PCRE2 pattern, |text2| a replacement. */
#define KF_TOK_NORM_KINDS(X)                                                                       \
    X(NORM_UNICODE) /* arg: KF_TOK_NFC .. KF_TOK_NFKD */                                           \
    X(NORM_PREPEND) /* text */                                                                     \
    X(NORM_REPLACE) /* text -> text2; arg: KF_TOK_PATTERN_* */                                     \
    X(NORM_LOWERCASE)                                                                              \
    X(NORM_STRIP) /* arg: bit 0 left, bit 1 right */

#define KF_TOK_PRE_KINDS(X)                                                                        \
    X(PRE_SPLIT)   /* text; arg: KF_TOK_PATTERN_*; behavior: KF_TOK_SPLIT_*, KF_TOK_INVERT */      \
    X(PRE_PREFIX)  /* text is put before a piece that does not begin with it;                      \
                      arg 1: only before the piece at the beginning of the text */                 \
    X(PRE_REPLACE) /* text -> text2; arg: KF_TOK_PATTERN_* */                                      \
    X(PRE_BYTES)   /* each byte becomes its character of the byte alphabet */

#define KF_TOK_DEC_KINDS(X)                                                                        \
    X(DEC_BYTES)         /* the inverse of PRE_BYTES, over all tokens */                           \
    X(DEC_BYTE_FALLBACK) /* runs of <0xNN> */                                                      \
    X(DEC_FUSE)                                                                                    \
    X(DEC_REPLACE) /* text -> text2; arg: KF_TOK_PATTERN_* */                                      \
    X(DEC_STRIP)   /* text: one character; arg: at most so many at the start, behavior: end */     \
    X(DEC_META)    /* text: one character -> space; arg 1: dropped in the first token */           \
    X(DEC_JOIN)    /* text is put between tokens */

enum {
#define KF_TOK_ENUM(name) KF_TOK_##name,
    KF_TOK_OP_INVALID,
    KF_TOK_NORM_KINDS(KF_TOK_ENUM) KF_TOK_NORM_END,
    KF_TOK_PRE_KINDS(KF_TOK_ENUM) KF_TOK_PRE_END,
    KF_TOK_DEC_KINDS(KF_TOK_ENUM) KF_TOK_DEC_END
#undef KF_TOK_ENUM
};

enum { KF_TOK_NFC, KF_TOK_NFKC, KF_TOK_NFD, KF_TOK_NFKD, KF_TOK_UNICODE_FORMS };
enum { KF_TOK_PATTERN_LITERAL, KF_TOK_PATTERN_REGEX };
enum {
    KF_TOK_SPLIT_ISOLATED,
    KF_TOK_SPLIT_REMOVED,
    KF_TOK_SPLIT_MERGED_PREVIOUS,
    KF_TOK_SPLIT_MERGED_NEXT,
    KF_TOK_SPLIT_CONTIGUOUS,
    KF_TOK_SPLIT_BEHAVIORS,
    KF_TOK_INVERT = 0x100
};

typedef struct kf_tok_op {
    uint32_t kind;
    uint32_t arg;
    uint32_t behavior;
    uint32_t reserved; /* zero */
    kf_tok_str text;
    kf_tok_str text2;
} kf_tok_op;

enum {
    KF_TOK_FLAG_IGNORE_MERGES = 1, /* a piece that is a token stays whole */
    KF_TOK_FLAG_BYTE_FALLBACK = 2,
    KF_TOK_FLAG_FUSE_UNK = 4
};

/* X(section, element type) in the order of the header. */
#define KF_TOK_SECTIONS(X)                                                                         \
    X(strings, char)        /* UTF-8, no terminators */                                            \
    X(tokens, kf_tok_entry) /* by id */                                                            \
    X(vocab, kf_tok_vocab_slot)                                                                    \
    X(merges, kf_tok_merge_slot)                                                                   \
    X(joins, kf_tok_join_slot)                                                                     \
    X(short_ids, uint32_t) /* [KF_TOK_SHORT_IDS] id of a one-character text */                     \
    X(byte_ids, uint32_t)  /* [256] id of "<0xNN>" */                                              \
    X(added, kf_tok_added)                                                                         \
    X(norm, kf_tok_op)                                                                             \
    X(pre, kf_tok_op)                                                                              \
    X(dec, kf_tok_op)                                                                              \
    X(prefix, uint32_t) /* ids put before a text on request */                                     \
    X(suffix, uint32_t)

enum {
#define KF_TOK_ENUM(name, type) KF_TOK_SECTION_##name,
    KF_TOK_SECTIONS(KF_TOK_ENUM)
#undef KF_TOK_ENUM
        KF_TOK_SECTION_COUNT
};

typedef struct kf_tok_section {
    uint64_t offset; /* from the start of the table */
    uint64_t count;  /* elements */
} kf_tok_section;

typedef struct kf_tok_header {
    uint32_t magic;
    uint32_t version;
    uint64_t size_bytes;
    uint32_t flags;          /* KF_TOK_FLAG_* */
    uint32_t unk_id;         /* KF_TOK_NONE: none */
    kf_tok_str word_pattern; /* PCRE2 pattern of one word character, for single_word tokens */
    kf_tok_section sections[KF_TOK_SECTION_COUNT];
} kf_tok_header;

_Static_assert(sizeof(kf_tok_entry) == 12, "packed without padding");
_Static_assert(sizeof(kf_tok_op) == 32, "packed without padding");
_Static_assert(sizeof(kf_tok_header) == 32 + 16 * KF_TOK_SECTION_COUNT, "packed without padding");

static inline uint64_t kf_tok_mix(uint64_t h)
{
    h = (h ^ h >> 32) * UINT64_C(0xD6E8FEB86659FD93);
    h = (h ^ h >> 32) * UINT64_C(0xD6E8FEB86659FD93);
    return h ^ h >> 32;
}

/** Hash of a text; slots start at its lower half, the tag is its upper half. */
static inline uint64_t kf_tok_hash(const char *s, uint64_t n)
{
    uint64_t h = n * UINT64_C(0x9E3779B97F4A7C15);
    for (; n >= 8; s += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, s, 8);
        h = kf_tok_mix(h ^ word) + UINT64_C(0x9E3779B97F4A7C15);
    }
    uint64_t tail = 0;
    memcpy(&tail, s, n);
    return kf_tok_mix(h ^ tail);
}

/** Looks |text| up in the vocabulary; KF_TOK_NONE if it is not there. */
static inline uint32_t kf_tok_vocab_find(const kf_tok_vocab_slot *vocab, uint32_t n_slots,
                                         const kf_tok_entry *tokens, const char *strings,
                                         const char *text, uint64_t len)
{
    uint64_t hash = kf_tok_hash(text, len);
    uint32_t tag = (uint32_t)(hash >> 32);
    for (uint32_t i = (uint32_t)hash;; i++) {
        const kf_tok_vocab_slot *slot = &vocab[i & (n_slots - 1)];
        if (slot->id == KF_TOK_NONE)
            return KF_TOK_NONE;
        const kf_tok_str *s = &tokens[slot->id].text;
        if (slot->tag == tag && s->len == len && memcmp(strings + s->offset, text, len) == 0)
            return slot->id;
    }
}

static inline uint32_t kf_tok_pair_hash(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * UINT64_C(0x9E3779B97F4A7C15);
    return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 15);
}

#endif
