/* SPDX-License-Identifier: Apache-2.0 */
/* spec_params - parameters of a finished Spec, by role and one after the other. */
#include "frontend/spec.h"
#include "ir/plan.h" /* names of layers' tensors */

const kf_spec_param *kf_block_param(const kf_block *block, kf_param_role role)
{
    return kf_block_part(block, role, KF_PART_WHOLE);
}

const kf_spec_param *kf_block_part(const kf_block *block, kf_param_role role, kf_param_part part)
{
    for (uint32_t i = 0; i < block->n_params; i++)
        if (block->param[i].role == role && block->param[i].part == part)
            return &block->param[i];
    return NULL;
}

typedef struct visitor {
    kf_arena *arena;
    const kf_spec *spec;
    kf_spec_visit_fn visit;
    void *user;
    kf_str prefix; /* of the current layer; empty in the model */
} visitor;

static bool visit_blocks(const visitor *v, const kf_blocks *blocks);

static bool visit_repeat(const visitor *v, const kf_spec_repeat *u)
{
    visitor inner = *v;
    for (int64_t i = 0; i < u->times.v; i++) {
        kf_blocks body = kf_repeat_body(v->spec, u, (uint32_t)i % u->block.n);
        inner.prefix = kf_plan_tensor_name(v->arena, u->weights.v, (uint32_t)i, KF_STR(""));
        if (!visit_blocks(&inner, &body))
            return false;
    }
    return true;
}

static bool visit_block(const visitor *v, const kf_block *b)
{
    for (uint32_t i = 0; i < b->n_params; i++) {
        kf_str name = b->param[i].name;
        if (v->prefix.len > 0)
            name = kf_strf(v->arena, "%.*s.%.*s", KF_STR_ARG(v->prefix), KF_STR_ARG(name));
        if (!v->visit(v->user, name, &b->param[i], b))
            return false;
    }
    if (b->kind == KF_BLOCK_RESIDUAL && !visit_blocks(v, &b->u.residual.body))
        return false;
    for (uint32_t i = 0; b->kind == KF_BLOCK_PARALLEL && i < b->u.parallel.n_branches; i++)
        if (!visit_blocks(v, &b->u.parallel.branch[i]))
            return false;
    return b->kind != KF_BLOCK_REPEAT || visit_repeat(v, &b->u.repeat);
}

static bool visit_blocks(const visitor *v, const kf_blocks *blocks)
{
    for (uint32_t i = 0; i < blocks->n; i++)
        if (!visit_block(v, &blocks->block[i]))
            return false;
    return true;
}

bool kf_spec_each_param(kf_arena *arena, const kf_spec *spec, kf_spec_visit_fn visit, void *user)
{
    visitor v = {.arena = arena, .spec = spec, .visit = visit, .user = user};
    return visit_blocks(&v, &spec->model);
}
