/* SPDX-License-Identifier: Apache-2.0 */
/* tensor_source - where weights come from, as an interface: a checkpoint, seeded random numbers, a
 * test.
 *
 * The driver injects one into codegen's packing and into the evaluator, which know nothing of
 * files.
 */
#ifndef KF_IR_TENSOR_SOURCE_H
#define KF_IR_TENSOR_SOURCE_H

#include "ir/type.h"

typedef struct kf_tensor_info {
    kf_str name;
    kf_dtype dtype;
    uint8_t rank;
    int64_t dim[KF_MAX_RANK];
    uint32_t file;   /* private to the source */
    uint64_t offset; /* private to the source */
    uint64_t size_bytes;
} kf_tensor_info;

typedef struct kf_tensor_source kf_tensor_source;
struct kf_tensor_source {
    /** False if there is no tensor of that name. */
    bool (*find)(const kf_tensor_source *self, kf_str name, kf_tensor_info *out_info);
    /** Reads |n| elements from element |first| on (row-major, storage dtype) into |dst|; 0 or an
     * errno value (EIO for a file that became shorter). Safe to call from several threads. */
    int (*read)(const kf_tensor_source *self, const kf_tensor_info *info, uint64_t first,
                uint64_t n, void *dst);
    void *user;
};

#endif
