/* SPDX-License-Identifier: Apache-2.0 */
/* broken - what nobody wants, by $KF_BROKEN: fold_const leaves a graph that the verifier refuses
 * (invariant; rewrite: only where norms are to be rewritten), or one that computes something else
 * (result: the first sum of rows becomes a difference), or meets a fatal signal (fault); kernels
 * compute something else than their bodies (kernel: the same), or none comes out (emitter). Linked
 * in place of the pass, and around the emitter.
 */
#include "codegen/kernel.h"
#include "passes/match.h"

#include <stdlib.h>
#include <string.h>

bool __wrap_kf_kernel_emit(kf_llvm *backend, kf_arena *arena, const kf_target *target,
                           const kf_plan *plan, const kf_kernel *k, kf_sbuf *why);
bool __real_kf_kernel_emit(kf_llvm *backend, kf_arena *arena, const kf_target *target,
                           const kf_plan *plan, const kf_kernel *k, kf_sbuf *why);

static bool is_broken(const char *how)
{
    const char *word = getenv("KF_BROKEN");

    return word && !strcmp(word, how);
}

static bool subtract(kf_graph *g)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        if (kf_node_kind(g, &g->nodes.data[i]) != KF_KIND_residual)
            continue;
        g->nodes.data[i].op = KF_OP_sub;
        return true;
    }
    return false;
}

/* Rows stand where a weight should be: the types do not follow any more. */
static bool break_types(kf_graph *g)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        kf_node *n = &g->nodes.data[i];
        if (n->op != KF_OP_matmul)
            continue;
        n->in[1] = n->in[0];
        return true;
    }
    return false;
}

bool kf_pass_fold_const(kf_module *m, kf_pass_ctx *cx)
{
    bool done = false;

    if (is_broken("fault"))
        abort();
    for (uint32_t i = 0; i < m->funcs.len && !done; i++)
        done = is_broken("result")      ? subtract(m->funcs.data[i])
               : is_broken("invariant") ? break_types(m->funcs.data[i])
               : is_broken("rewrite") && cx->norm_rewrite != KF_NORM_REWRITE_NONE
                   ? break_types(m->funcs.data[i])
                   : false;
    return done;
}

bool __wrap_kf_kernel_emit(kf_llvm *backend, kf_arena *arena, const kf_target *target,
                           const kf_plan *plan, const kf_kernel *k, kf_sbuf *why)
{
    kf_kernel other = *k;

    if (is_broken("emitter")) {
        kf_sbuf_c(why, "no such kernel");
        return false;
    }
    other.body = kf_graph_clone(k->body, k->body->name);
    if (is_broken("kernel"))
        subtract(other.body);
    return __real_kf_kernel_emit(backend, arena, target, plan, &other, why);
}
