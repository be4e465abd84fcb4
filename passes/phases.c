/* SPDX-License-Identifier: Apache-2.0 */
/* phases - clone functions per phase and narrow their dims.
 *
 *   before   func @main ... repeat {callee = "layer"}           func @layer(%x: f32[N,256])
 *   after    func @main.prefill ... {callee = "layer.prefill"}  func @layer.prefill(%x: f32[N,256])
 *            func @main.decode ... {callee = "layer.decode"}    func @layer.decode(%x: f32[S,256])
 *
 * A decode step has one new token per sequence, so its N is S: rows are bounded by max_sequences
 * and the planner makes small buffers and its own kernels. Weights are shared: both clones keep
 * the same recipes.
 * The phases are rows of ir/phase.def: a decoder's entry main is split in two, an encoder's entry
 * encoder has one.
 * Fires when    the module has an entry and the dims S and N. Repeated functions are cloned once
 *               per phase.
 * Why here      after attention is recognised (matched once), before anything that may differ per
 *               phase.
 * Needs nothing. Keeps nothing. Terminates: an <entry>.<phase> is not split again.
 */
#include "ir/phase.h"
#include "passes/match.h"

static kf_graph *clone_for(kf_module *m, const kf_graph *g, const kf_phase_info *p)
{
    kf_str name = kf_strf(m->arena, "%.*s.%s", KF_STR_ARG(g->name), p->name);
    kf_graph *c = kf_module_find_func(m, name);

    if (c)
        return c;
    c = kf_graph_clone(g, name);
    if (p->one_token)
        kf_graph_narrow_rows(c);
    for (uint32_t i = 0; i < c->nodes.len; i++) {
        kf_node *n = &c->nodes.data[i];
        if (n->op != KF_OP_repeat)
            continue;
        kf_attr_repeat *attr = KF_ATTR_NEW(m->arena, repeat);
        *attr = *KF_ATTR_OF(n, repeat);
        attr->callee = clone_for(m, kf_module_find_func(m, attr->callee), p)->name;
        n->attr = attr;
    }
    kf_vec_push(m->arena, &m->funcs, c); /* after its callees: definitions before uses */
    return c;
}

static bool was_cloned(const kf_module *m, const kf_graph *g)
{
    for (uint32_t i = 0; i < KF_PHASE_ID_COUNT; i++)
        if (kf_module_find_func(
                m, kf_strf(m->arena, "%.*s.%s", KF_STR_ARG(g->name), kf_phase_infos[i].name)))
            return true;
    return false;
}

/* ORDER of KF_SYM_*: textual IR may hold modules that are no models. */
bool kf_module_has_model_dims(const kf_module *m)
{
    return m->syms.len > KF_SYM_N && kf_str_eq_c(m->syms.data[KF_SYM_S].name, "S") &&
           kf_str_eq_c(m->syms.data[KF_SYM_N].name, "N");
}

bool kf_pass_phases(kf_module *m, kf_pass_ctx *cx)
{
    uint32_t old = m->funcs.len, kept = 0;

    (void)cx;
    if (!kf_module_has_model_dims(m))
        return false;
    for (uint32_t i = 0; i < KF_PHASE_ID_COUNT; i++) {
        kf_graph *entry = kf_module_find_func(m, kf_str_from(kf_phase_infos[i].entry));
        if (entry)
            clone_for(m, entry, &kf_phase_infos[i]);
    }
    if (m->funcs.len == old)
        return false;
    /* The originals go: every function that an entry reaches has been cloned, others stay. */
    for (uint32_t i = 0; i < m->funcs.len; i++)
        if (i >= old || !was_cloned(m, m->funcs.data[i]))
            m->funcs.data[kept++] = m->funcs.data[i];
    m->funcs.len = kept;
    return true;
}
