/* SPDX-License-Identifier: Apache-2.0 */
/* rope - the frequencies of rotary position embedding, one definition for the evaluator and every
 * target. */
#ifndef KF_IR_ROPE_H
#define KF_IR_ROPE_H

#include "ir/attr.h"

/** Frequency of pair |i| (0 <= i < dim / 2) in f32: theta^(-2i/dim) (Su et al. 2021,
 * arXiv:2104.09864), changed by the scaling: linear divides by factor; llama3 leaves wavelengths
 * below original/high, divides those above original/low and interpolates between
 * (modeling_rope_utils.py of transformers). The angle of a position is the f32 product (float)pos *
 * frequency. */
float kf_rope_freq(const kf_attr_rope_table *attr, uint32_t i);

#endif
