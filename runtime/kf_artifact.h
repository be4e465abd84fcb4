/* SPDX-License-Identifier: Apache-2.0 */
/* kf_artifact - everything on which the compiler and the runtime must agree, and nothing else:
 * the packed file (EXE.kfw), the kernel calling convention, the run-time dims and inputs, the
 * layout of a KV page, and the CPU features that a kernel object may need. docs/ARTIFACT.md is its
 * prose.
 *
 * It includes no other header of the project, so that either side can be read alone.
 */
#ifndef KF_RUNTIME_KF_ARTIFACT_H
#define KF_RUNTIME_KF_ARTIFACT_H

#include <stdint.h>
#include <string.h>

/* ---- Run-time dims --------------------------------------------------------------------------- */

/* The dims of one call, in this order in kf_kernel_args.dim. All are checked against the model's
 * bounds before the first kernel runs. */
enum {
    KF_DIM_SEQUENCES = 0, /* S: sequences in this call */
    KF_DIM_TOKENS = 1,    /* N: new tokens in this call, over all sequences */
    KF_DIM_ROWS = 2,      /* R: rows whose logits are wanted */
    KF_DIM_KEYS = 3,      /* K: sum over the sequences of past + new */
    KF_DIM_MEMORY = 4,    /* M: sum over the sequences of the positions of their memories */
    KF_DIM_PAIRS = 5,     /* sum over the new tokens of the keys they may see (for work figures) */
    KF_DIM_COUNT = 6
};

/* The arrays that describe one call. All are int32_t and dense. */
enum {
    KF_INPUT_IDS = 0,          /* [N]            token ids */
    KF_INPUT_POS = 1,          /* [N]            absolute position of each token in its sequence */
    KF_INPUT_SEQ = 2,          /* [N]            index (0..S-1) of the sequence each token is of */
    KF_INPUT_SEQ_START = 3,    /* [S+1]          first token row of each sequence; the last is N */
    KF_INPUT_PAST = 4,         /* [S]            positions already in the cache before this call */
    KF_INPUT_LOGIT_ROWS = 5,   /* [R]            token rows whose logits are wanted, ascending */
    KF_INPUT_PAGES = 6,        /* [S, max_pages] page ids; max_pages = ceil(max_positions / page) */
    KF_INPUT_TYPES = 7,        /* [N]            token types */
    KF_INPUT_MEMORY_LEN = 8,   /* [S]            positions of the memory of each sequence */
    KF_INPUT_MEMORY_PAGES = 9, /* [S, max_pages] its page ids */
    KF_INPUT_COUNT = 10
};

/* ---- Kernels --------------------------------------------------------------------------------- */

/** What a tile function sees. |ptr| holds the operands in the order of the launch's operand list
 *  (region operands, then results); |dim| is indexed by KF_DIM_*. */
typedef struct kf_kernel_args {
    void *const *ptr;
    const int64_t *dim;
} kf_kernel_args;

/** Computes tile |tile| of a launch. |scratch| is private to the worker, 64-byte aligned, of the
 *  model's scratch_bytes, with undefined content. Different tiles of one launch run concurrently
 * and in any order; they write disjoint memory or agree through counters (KF_SPACE_COUNTER). */
typedef void (*kf_kernel_fn)(const kf_kernel_args *args, uint32_t tile, void *scratch);

#define KF_MAX_OPERANDS 24u
#define KF_MAX_TILES    ((1u << 24) - 1u)

/* ---- KV pages -------------------------------------------------------------------------------- */

#define KF_KV_PAGE_TOKENS 64u

/** Byte offset of element |d| of head |head| at absolute position |pos|, relative to the state
 *  operand of a launch (which already points at the launch's layer). |page_id| is
 *  pages[seq][pos / page_tokens]. A page holds all layers, page_stride_bytes all that
 *  they have in it. A layer's part is the keys, [kv_heads, head_dim, page_tokens], then the
 * values, [kv_heads, page_tokens, head_dim]: scores run along positions, weighted sums along
 * elements. */
static inline uint64_t kf_kv_addr(uint64_t page_stride_bytes, uint32_t page_id, uint32_t pos,
                                  uint32_t is_value, uint32_t head, uint32_t d,
                                  uint32_t page_tokens, uint32_t kv_heads, uint32_t head_dim,
                                  uint32_t elem_bytes)
{
    uint64_t slot = pos % page_tokens;
    uint64_t key = ((uint64_t)head * head_dim + d) * page_tokens + slot;
    uint64_t value = (((uint64_t)kv_heads + head) * page_tokens + slot) * head_dim + d;
    return page_id * page_stride_bytes + (is_value ? value : key) * elem_bytes;
}

/* ---- CPU features ---------------------------------------------------------------------------- */

/* X(name, bit, the word of LLVM and of /proc/cpuinfo). A kernel object's needs are a mask of these.
 */
#define KF_CPU_FEATURES(X)                                                                         \
    X(SSE42, 0, "sse4.2")                                                                          \
    X(POPCNT, 1, "popcnt")                                                                         \
    X(AVX, 2, "avx")                                                                               \
    X(AVX2, 3, "avx2")                                                                             \
    X(FMA, 4, "fma")                                                                               \
    X(F16C, 5, "f16c")                                                                             \
    X(BMI, 6, "bmi")                                                                               \
    X(BMI2, 7, "bmi2")                                                                             \
    X(LZCNT, 8, "lzcnt")                                                                           \
    X(MOVBE, 9, "movbe")                                                                           \
    X(AVX512F, 10, "avx512f")                                                                      \
    X(AVX512DQ, 11, "avx512dq")                                                                    \
    X(AVX512BW, 12, "avx512bw")                                                                    \
    X(AVX512VL, 13, "avx512vl")                                                                    \
    X(AVX512CD, 14, "avx512cd")                                                                    \
    X(AVX512VNNI, 15, "avx512vnni")                                                                \
    X(AVX512BF16, 16, "avx512bf16")                                                                \
    X(AVXVNNI, 17, "avxvnni")

enum {
#define KF_CPU_ENUM(name, bit, word) KF_CPU_##name = 1 << (bit),
    KF_CPU_FEATURES(KF_CPU_ENUM)
#undef KF_CPU_ENUM
    /* The micro-architecture level of the x86-64 psABI that `--target cpu` means. */
    KF_CPU_X86_64_V3 = KF_CPU_SSE42 | KF_CPU_POPCNT | KF_CPU_AVX | KF_CPU_AVX2 | KF_CPU_FMA |
                       KF_CPU_F16C | KF_CPU_BMI | KF_CPU_BMI2 | KF_CPU_LZCNT | KF_CPU_MOVBE
};

/* ---- The packed file ------------------------------------------------------------------------- */

/* Little endian. The file is: kf_artifact_header, kf_artifact_section[n_sections], then the
 * sections, each at a multiple of KF_ARTIFACT_SECTION_ALIGN, in table order, not overlapping; the
 * gaps are zero. Inside the weights section every weight starts at a multiple of
 * KF_ARTIFACT_WEIGHT_ALIGN and the section ends with KF_ARTIFACT_WEIGHT_TAIL bytes that belong to
 * no weight, so that a kernel may read (never use) a vector beyond the last row. */
#define KF_ARTIFACT_MAGIC         "\x89KERFW\r\n"
#define KF_ARTIFACT_VERSION       1u
#define KF_ARTIFACT_MAX_SECTIONS  64u
#define KF_ARTIFACT_SECTION_ALIGN 4096u
#define KF_ARTIFACT_WEIGHT_ALIGN  64u
#define KF_ARTIFACT_WEIGHT_TAIL   256u

enum {
    KF_SECTION_WEIGHTS = 1,   /* required, exactly one */
    KF_SECTION_TOKENIZER = 2, /* the compiled tokenizer table; at most one */
    KF_SECTION_PROBE = 3      /* kf_probe_header + ids + logits; at most one */
};

typedef struct kf_artifact_header {
    char magic[8];
    uint32_t version;
    uint32_t n_sections;
    uint64_t file_bytes;
    uint64_t header_digest; /* kf_artifact_header_digest; the executable holds the same number */
    char model[64];         /* NUL-padded; for messages only */
    uint8_t reserved[32];   /* zero */
} kf_artifact_header;

typedef struct kf_artifact_section {
    char name[32]; /* NUL-terminated, for messages */
    uint32_t kind; /* KF_SECTION_* */
    uint32_t reserved;
    uint64_t offset; /* from the start of the file */
    uint64_t size_bytes;
    uint64_t digest; /* kf_digest_bytes of the section; 0 for a probe, which carries its own */
} kf_artifact_section;

/** The probe section: this header, |n_ids| x int32 ids, |n_logits| x float logits of the last
 *  position. It has its own digest (over everything after |digest|), so that a compile can fill it
 * in by running the executable whose header digest is already fixed. n_ids == 0: no probe stored.
 */
typedef struct kf_probe_header {
    uint64_t digest;
    uint32_t n_ids;
    uint32_t n_logits;
} kf_probe_header;

_Static_assert(sizeof(kf_artifact_header) == 128, "the header is 128 bytes");
_Static_assert(sizeof(kf_artifact_section) == 64, "a section entry is 64 bytes");
_Static_assert(sizeof(kf_probe_header) == 16, "the probe header is 16 bytes");

/* ---- Digest ---------------------------------------------------------------------------------- */

/* XXH64 with seed 0, after the specification "xxHash fast digest algorithm" (Y. Collet,
 * github.com/Cyan4973/xxHash, doc/xxhash_spec.md). It finds damage, not an adversary. Both sides
 * need it and the runtime links nothing, hence inline code here. */
typedef struct kf_digest {
    uint64_t acc[4];
    uint64_t total;
    uint8_t tail[32];
    uint32_t n_tail;
} kf_digest;

#define KF_XXH_P1 UINT64_C(0x9E3779B185EBCA87)
#define KF_XXH_P2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define KF_XXH_P3 UINT64_C(0x165667B19E3779F9)
#define KF_XXH_P4 UINT64_C(0x85EBCA77C2B2AE63)
#define KF_XXH_P5 UINT64_C(0x27D4EB2F165667C5)

static inline uint64_t kf_digest_rotl(uint64_t v, unsigned n)
{
    return v << n | v >> (64 - n);
}

static inline uint64_t kf_digest_round(uint64_t acc, uint64_t lane)
{
    return kf_digest_rotl(acc + lane * KF_XXH_P2, 31) * KF_XXH_P1;
}

static inline void kf_digest_stripe(kf_digest *d, const uint8_t *p)
{
    for (int i = 0; i < 4; i++) {
        uint64_t lane;
        memcpy(&lane, p + 8 * i, 8);
        d->acc[i] = kf_digest_round(d->acc[i], lane);
    }
}

static inline void kf_digest_init(kf_digest *d)
{
    memset(d, 0, sizeof *d);
    d->acc[0] = KF_XXH_P1 + KF_XXH_P2;
    d->acc[1] = KF_XXH_P2;
    d->acc[3] = 0 - KF_XXH_P1;
}

static inline void kf_digest_add(kf_digest *d, const void *data, uint64_t size_bytes)
{
    const uint8_t *p = (const uint8_t *)data;
    d->total += size_bytes;
    if (d->n_tail > 0) {
        uint64_t room = 32 - d->n_tail;
        uint64_t n = size_bytes < room ? size_bytes : room;
        memcpy(d->tail + d->n_tail, p, n);
        d->n_tail += (uint32_t)n;
        p += n;
        size_bytes -= n;
        if (d->n_tail < 32)
            return;
        kf_digest_stripe(d, d->tail);
        d->n_tail = 0;
    }
    for (; size_bytes >= 32; p += 32, size_bytes -= 32)
        kf_digest_stripe(d, p);
    if (size_bytes > 0)
        memcpy(d->tail, p, size_bytes);
    d->n_tail = (uint32_t)size_bytes;
}

static inline uint64_t kf_digest_end(const kf_digest *d)
{
    static const unsigned rot[4] = {1, 7, 12, 18};
    uint64_t h = KF_XXH_P5;
    if (d->total >= 32) {
        h = 0;
        for (int i = 0; i < 4; i++)
            h += kf_digest_rotl(d->acc[i], rot[i]);
        for (int i = 0; i < 4; i++)
            h = (h ^ kf_digest_round(0, d->acc[i])) * KF_XXH_P1 + KF_XXH_P4;
    }
    h += d->total;
    uint32_t at = 0;
    for (; at + 8 <= d->n_tail; at += 8) {
        uint64_t lane;
        memcpy(&lane, d->tail + at, 8);
        h = kf_digest_rotl(h ^ kf_digest_round(0, lane), 27) * KF_XXH_P1 + KF_XXH_P4;
    }
    if (at + 4 <= d->n_tail) {
        uint32_t lane;
        memcpy(&lane, d->tail + at, 4);
        h = kf_digest_rotl(h ^ lane * KF_XXH_P1, 23) * KF_XXH_P2 + KF_XXH_P3;
        at += 4;
    }
    for (; at < d->n_tail; at++)
        h = kf_digest_rotl(h ^ d->tail[at] * KF_XXH_P5, 11) * KF_XXH_P1;
    h = (h ^ h >> 33) * KF_XXH_P2;
    h = (h ^ h >> 29) * KF_XXH_P3;
    return h ^ h >> 32;
}

static inline uint64_t kf_digest_bytes(const void *data, uint64_t size_bytes)
{
    kf_digest d;
    kf_digest_init(&d);
    kf_digest_add(&d, data, size_bytes);
    return kf_digest_end(&d);
}

/** Digest of the header (its header_digest taken as 0) and the section table. */
static inline uint64_t kf_artifact_header_digest(const kf_artifact_header *header,
                                                 const kf_artifact_section *sections)
{
    kf_artifact_header h = *header;
    h.header_digest = 0;
    kf_digest d;
    kf_digest_init(&d);
    kf_digest_add(&d, &h, sizeof h);
    kf_digest_add(&d, sections, (uint64_t)h.n_sections * sizeof *sections);
    return kf_digest_end(&d);
}

#endif
