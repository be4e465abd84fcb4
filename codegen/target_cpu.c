/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/target_cpu.h"

#include "base/check.h"
#include "codegen/families/family.h"
#include "codegen/kernel.h"
#include "runtime/kf_artifact.h"

const kf_family_impl *kf_family_find_impl(kf_family family)
{
    switch (family) {
    case KF_FAMILY_map:
    case KF_FAMILY_row_reduce:
    case KF_FAMILY_contract:
    case KF_FAMILY_index:
        return &kf_family_rows;
    case KF_FAMILY_matmul:
        return &kf_family_matmul;
    case KF_FAMILY_attention:
        return &kf_family_attention;
    case KF_FAMILY_COUNT:
        break;
    }
    KF_ASSERT(false, "family out of range");
}

/* A kernel of attention may have counters and shared memory behind its operands. */
static bool match(const kf_target *t, kf_family family, const kf_graph *body, kf_sbuf *why)
{
    const uint32_t n = body->args.len + body->results.len + (family == KF_FAMILY_attention ? 2 : 0);
    if (n > KF_MAX_OPERANDS)
        return kf_refuse(why, "%u operands; a launch has at most %u", n, KF_MAX_OPERANDS);
    kf_arena *scratch = kf_arena_create("match");
    const bool ok = kf_family_find_impl(family)->match(t, body, scratch, why);
    kf_arena_destroy(scratch);
    return ok;
}

static kf_kernel_shape configure(const kf_target *t, kf_family family, const kf_graph *body,
                                 int64_t rows_lo, int64_t rows_hi)
{
    (void)rows_lo;
    kf_arena *scratch = kf_arena_create("configure");
    kf_kernel_shape s = kf_family_find_impl(family)->configure(t, body, scratch, rows_hi);
    kf_arena_destroy(scratch);
    return s;
}

/* The order of codegen/families/matmul.h: panels of 16 columns; bf16 in pairs of k. */
static kf_layout weight_layout(const kf_target *t, const kf_type *weight)
{
    (void)t;
    if (weight->dtype == KF_DTYPE_bf16)
        return (kf_layout){.n_splits = 4, .split = {{0, 16}, {1, 2}, {0, 1}, {1, 1}}};
    return (kf_layout){.n_splits = 3, .split = {{0, 16}, {1, 1}, {0, 1}}};
}

const kf_target *kf_target_cpu(kf_arena *arena, const char *arch)
{
    kf_cpu_arch a;
    if (!kf_cpu_arch_find(arch, &a))
        return NULL;
    kf_target *t = KF_NEW(arena, kf_target);
    t->name = kf_strf(arena, "cpu:%s", a.name).ptr;
    t->vector_bytes = a.lanes * 4;
    t->l1_bytes = 32 << 10;
    t->l2_bytes = 1 << 20;
    t->match = match;
    t->configure = configure;
    t->weight_layout = weight_layout;
    return t;
}
