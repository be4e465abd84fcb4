/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors - the header of one safetensors file, read as if its author were hostile.
 *
 * Format: 8 bytes little-endian N, N bytes of JSON, data. Rules after huggingface/safetensors
 * README and tensor.rs; stricter where the format leaves room for two readings: after the last '}'
 * only spaces, no unknown keys, and the tensors sorted by offset must tile the data exactly, so
 * that a tensor of no elements may stand only between two others. Data is not read here
 * (weights.h).
 */
#ifndef KF_FRONTEND_SAFETENSORS_H
#define KF_FRONTEND_SAFETENSORS_H

#include "base/diag.h"
#include "ir/type.h"

#define KF_ST_MAX_HEADER  100000000u
#define KF_ST_MAX_TENSORS 1000000u
#define KF_ST_MAX_NAME    4096u
#define KF_ST_MAX_RANK    16u

typedef struct kf_st_tensor {
    kf_str name;
    kf_str type;    /* as in the header: "BF16" */
    bool has_dtype; /* whether |dtype| can hold it; every type of the format is accepted here */
    kf_dtype dtype;
    uint8_t rank;
    const int64_t *dim;
    uint64_t begin, end; /* bytes of the file */
} kf_st_tensor;

typedef struct kf_st_header {
    kf_st_tensor *tensor; /* in order of their offsets */
    uint32_t n_tensors;
    uint64_t data_begin;
} kf_st_header;

/** Parses |head|, the first 8 + N bytes of a file of |file_size| bytes (it may hold more, or less
 * when the file is short). |file| is the diagnostics number. Returns false after reporting E0302 or
 * E0303. */
bool kf_st_parse(kf_arena *arena, kf_diags *diags, uint32_t file, kf_str head, uint64_t file_size,
                 kf_st_header *out_header);

/** Header length N from the first 8 bytes, checked against |file_size| and the limit. */
bool kf_st_header_size(kf_diags *diags, uint32_t file, kf_str first8, uint64_t file_size,
                       uint32_t *out_size);

/** Builds the 8 + N bytes in front of tensors written one after the other in the given order; only
 * name, dtype, rank and dim of each are used. N is padded with spaces so that the data starts at a
 * multiple of 8. */
kf_str kf_st_write_header(kf_arena *arena, const kf_st_tensor *tensors, uint32_t n_tensors);

#endif
