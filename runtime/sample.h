/* SPDX-License-Identifier: Apache-2.0 */
/* sample - picks the next token from a row of logits.
 *
 * Order of the filters, as in Hugging Face transformers: repetition penalty, temperature, top-k,
 * top-p, min-p. Ties go to the smaller id. The same seed and logits give the same token.
 * The likeliest token of a row is not looked for here: the model has chosen it beside its last
 * product. Temperature 0 without repetition penalty takes it and reads no logits; the other filters
 * read the whole row.
 */
#ifndef KF_RUNTIME_SAMPLE_H
#define KF_RUNTIME_SAMPLE_H

#include "runtime/kf_model.h"

typedef struct kf_sampling {
    float temperature;    /* 0: greedy, the other filters do not matter */
    float top_p;          /* smallest set of probability >= top_p; >= 1: off */
    float min_p;          /* at least min_p of the best one's probability; 0: off */
    float repeat_penalty; /* CTRL (Keskar et al. 2019, section 4.1), on ids already seen; 1: off */
    uint32_t top_k;       /* 0: off */
    uint64_t seed;
} kf_sampling;

/* PCG-XSH-RR 64/32 (M. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good
 * Algorithms for Random Number Generation", HMC-CS-2014-0905, section 6.3). */
typedef struct kf_rng {
    uint64_t state, increment;
} kf_rng;

void kf_rng_seed(kf_rng *r, uint64_t seed, uint64_t stream);
uint32_t kf_rng_next(kf_rng *r);
/** Uniform in [0, 1), 53 bits. */
double kf_rng_unit(kf_rng *r);

typedef struct kf_candidate {
    float p; /* relative to the best one, which has 1 */
    int32_t id;
} kf_candidate;

typedef struct kf_sampler {
    kf_sampling how;
    kf_rng rng;
    uint32_t vocab_size;
    kf_candidate *heap;  /* [vocab_size] Borrowed */
    unsigned char *seen; /* [vocab_size] Borrowed; ids for the repetition penalty */
} kf_sampler;

/** |heap| and |seen| (zeroed) have |vocab_size| entries and live as long as the sampler. |stream|
 *  tells samplers of one seed apart. */
void kf_sampler_init(kf_sampler *s, const kf_sampling *how, uint64_t stream, uint32_t vocab_size,
                     kf_candidate *heap, unsigned char *seen);

/** Tells the penalty that |id| is in the text. */
void kf_sampler_accept(kf_sampler *s, int32_t id);

/** The next id; NaN logits are never picked. |likeliest| is the id of the row's largest logit, as by
 *  kf_session_next. |logits| is not changed. */
int32_t kf_sampler_pick(kf_sampler *s, const float *logits, int32_t likeliest);

#endif
