/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/kernel.h"

#include "codegen/families/family.h"

/* Layers behind kvcache argument |arg| of the kernel, from the launches that bind it. */
static uint32_t layers_of_launch(const kf_plan *plan, const kf_launch *l, uint32_t arg)
{
    const kf_operand *o = &l->operand[arg];
    return o->space == KF_SPACE_STATE ? plan->states.data[o->index].type.kv_layers : 0;
}

static uint32_t cache_layers(const kf_plan *plan, const kf_kernel *k)
{
    uint32_t layers = 0;
    for (uint32_t i = 0; i < k->body->args.len; i++) {
        const kf_type *t = kf_value_type(k->body, k->body->args.data[i]);
        if (t->kind != KF_TYPE_KVCACHE)
            continue;
        layers = layers ? layers : t->kv_layers;
        for (uint32_t p = 0; plan && p < plan->phases.len; p++)
            for (uint32_t j = 0; j < plan->phases.data[p].launches.len; j++) {
                const kf_launch *l = &plan->phases.data[p].launches.data[j];
                if (&plan->kernels.data[l->kernel] == k && layers_of_launch(plan, l, i))
                    layers = layers_of_launch(plan, l, i);
            }
    }
    return layers ? layers : 1;
}

bool kf_kernel_emit(kf_llvm *backend, kf_arena *arena, const kf_target *target, const kf_plan *plan,
                    const kf_kernel *k, kf_sbuf *why)
{
    const kf_family_impl *impl = kf_family_find_impl(k->family);
    if (!impl->match(target, k->body, arena, why))
        return false;
    kb *b = kb_create(arena, backend);
    const kf_emit e = {.arena = arena,
                       .b = b,
                       .target = target,
                       .body = k->body,
                       .config = &k->shape.config,
                       .kv_layers = cache_layers(plan, k)};
    if (!impl->check(&e, why)) {
        kb_destroy(b);
        return false;
    }
    kb_begin_kernel(b, kf_str_dup(arena, k->name).ptr);
    impl->emit(&e);
    kb_end_kernel(b);
    kb_destroy(b);
    return true;
}
