/* SPDX-License-Identifier: Apache-2.0 */
/* spec_forms - `adapters:` and `weight_forms:`: matrices that the checkpoint holds in parts.
 *
 * Which matrices is said by role (q, down, weight), for the whole model; what the parts are is a
 * table of blocks.def. A matrix may be a low-rank product, carry a low-rank update, and be divided
 * by its largest singular value, all at once.
 */
#include "frontend/spec_read.h"

#include <string.h>

const kf_param_part_info kf_param_part_infos[KF_PART_COUNT] = {
#define PART(name, word, suffix, summary) {word, suffix, summary},
#include "frontend/blocks.def"
#undef PART
};

static const struct {
    const char *word;
    kf_scope scope;
} forms[KF_FORM_COUNT] = {
    [KF_FORM_LORA] = {"lora", KF_SCOPE_LORA},
    [KF_FORM_LOW_RANK] = {"low_rank", KF_SCOPE_LOW_RANK},
    [KF_FORM_SPECTRAL] = {"spectral", KF_SCOPE_SPECTRAL},
};

/* Roles of matrices that are multiplied with rows; tables are not among them. */
static const kf_param_role matrices[] = {KF_PARAM_Q,    KF_PARAM_K,     KF_PARAM_V,
                                         KF_PARAM_O,    KF_PARAM_GATE,  KF_PARAM_UP,
                                         KF_PARAM_DOWN, KF_PARAM_WEIGHT};
#define N_MATRICES (sizeof matrices / sizeof *matrices)

static bool read_target(kf_reader *r, kf_str word, kf_loc loc, kf_spec_form *u)
{
    kf_str words[N_MATRICES];

    for (size_t i = 0; i < N_MATRICES; i++) {
        words[i] = kf_str_from(kf_param_infos[matrices[i]].word);
        if (!kf_str_eq(words[i], word))
            continue;
        u->roles |= UINT64_C(1) << matrices[i];
        return true;
    }
    kf_diag *d = kf_diag_add(r->diags, KF_E0113, loc,
                             "a target is q, k, v, o, gate, up, down or weight; this is '%.*s'",
                             KF_STR_ARG(word));
    kf_str near = kf_str_nearest(word, words, N_MATRICES);
    if (near.len > 0)
        kf_diag_hint(r->diags, d, "did you mean '%.*s'?", KF_STR_ARG(near));
    return false;
}

static bool read_form(kf_reader *r, kf_form which, const kf_yaml_node *node)
{
    kf_spec_form *u = &r->spec->form[which];
    bool ok = true;

    if (node == NULL)
        return true;
    u->present = (kf_sv_bool){true, {node->loc, node->origin}};
    if (!kf_schema_read(r, forms[which].scope, KF_SCOPE_COUNT, node, u->present.src, u))
        return false;
    for (uint32_t i = 0; i < u->targets.n; i++)
        ok = read_target(r, u->targets.v[i], u->targets.at[i], u) && ok;
    return ok;
}

bool kf_read_forms(kf_reader *r, const kf_yaml_node *root)
{
    const kf_yaml_node *adapters = kf_yaml_get(root, "adapters"),
                       *weights = kf_yaml_get(root, "weight_forms");
    kf_src none = {{r->spec->file, 1, 1, 0}, KF_ORIGIN_NONE};
    bool ok =
        kf_schema_read(r, KF_SCOPE_ADAPTERS, KF_SCOPE_COUNT, adapters, none, r->spec->form) &&
        kf_schema_read(r, KF_SCOPE_WEIGHT_FORMS, KF_SCOPE_COUNT, weights, none, r->spec->form);

    for (int i = 0; ok && i < KF_FORM_COUNT; i++)
        ok = read_form(r, (kf_form)i,
                       kf_yaml_get(i == KF_FORM_LORA ? adapters : weights, forms[i].word));
    return ok;
}

bool kf_check_forms(kf_reader *r)
{
    for (int i = 0; i < KF_FORM_COUNT; i++) {
        const kf_spec_form *u = &r->spec->form[i];
        uint64_t missed = u->roles & ~u->used;
        for (size_t k = 0; missed && k < N_MATRICES; k++) {
            if (!(missed >> matrices[k] & 1))
                continue;
            kf_diag_add(r->diags, KF_E0107, u->targets.src.loc,
                        "no block of the model has a parameter '%s' of its own",
                        kf_param_infos[matrices[k]].word);
            return false;
        }
    }
    return true;
}

const kf_spec_form *kf_form_of(const kf_spec *spec, kf_form which, kf_param_role role)
{
    const kf_spec_form *u = &spec->form[which];

    return u->roles >> role & 1 ? u : NULL;
}
