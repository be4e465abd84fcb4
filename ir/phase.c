/* SPDX-License-Identifier: Apache-2.0 */
#include "ir/phase.h"

const kf_phase_info kf_phase_infos[KF_PHASE_ID_COUNT] = {
#define PHASE(name, entry, one_token, kind, summary) {#name, entry, one_token, kind, summary},
#include "ir/phase.def"
#undef PHASE
};

static const char *const input_names[KF_INPUT_ID_COUNT] = {
#define INPUT(name, summary) #name,
#include "ir/phase.def"
#undef INPUT
};

const kf_phase_info *kf_phase_find(kf_str name)
{
    for (int i = 0; i < KF_PHASE_ID_COUNT; i++)
        if (kf_str_eq_c(name, kf_phase_infos[i].name))
            return &kf_phase_infos[i];
    return NULL;
}

static bool is_of_entry(kf_str func, const char *name)
{
    kf_str entry = kf_str_from(name);

    return func.len >= entry.len && kf_str_eq((kf_str){func.ptr, entry.len}, entry) &&
           (func.len == entry.len || func.ptr[entry.len] == '.');
}

bool kf_is_entry(kf_str func)
{
    for (int i = 0; i < KF_PHASE_ID_COUNT; i++)
        if (is_of_entry(func, kf_phase_infos[i].entry))
            return true;
    return false;
}

bool kf_is_encoder(kf_str func)
{
    return is_of_entry(func, kf_phase_infos[KF_PHASE_ID_encode].entry);
}

const char *kf_module_entry(const kf_module *m)
{
    for (int i = 0; i < KF_PHASE_ID_COUNT; i++)
        if (kf_module_find_func(m, kf_str_from(kf_phase_infos[i].entry)))
            return kf_phase_infos[i].entry;
    return NULL;
}

kf_input_id kf_input_find(kf_str name)
{
    int i = 0;

    while (i < KF_INPUT_ID_COUNT && !kf_str_eq_c(name, input_names[i]))
        i++;
    return (kf_input_id)i;
}

void kf_type_narrow_rows(kf_type *t)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (t->dim[i].sym == KF_SYM_N + 1)
            t->dim[i].sym = KF_SYM_S + 1;
}

void kf_graph_narrow_rows(kf_graph *g)
{
    for (uint32_t i = 0; i < g->values.len; i++)
        kf_type_narrow_rows(&g->values.data[i].type);
    for (uint32_t i = 0; i < g->nodes.len; i++)
        if (g->nodes.data[i].body)
            kf_graph_narrow_rows(g->nodes.data[i].body);
}
