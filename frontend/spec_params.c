/* SPDX-License-Identifier: Apache-2.0 */
/* spec_params - see spec_params.h. */
#include "frontend/spec_params.h"

#include "frontend/presets/preset.h"
#include "ir/plan.h"

#include <stdlib.h>
#include <string.h>

const kf_param_info kf_param_infos[KF_PARAM_ROLE_COUNT] = {
#define PARAM(name, word, summary) {word, summary},
#include "frontend/blocks.def"
#undef PARAM
};

bool kf_reject(kf_reader *r, kf_diag_code code, kf_loc loc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    kf_sbuf b = {.arena = r->arena};
    kf_sbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    kf_diag_add(r->diags, code, loc, "%.*s", KF_STR_ARG(kf_sbuf_view(&b)));
    return false;
}

/* ---- names ----------------------------------------------------------------------------------- */

static int compare_name_keys(const void *a, const void *b)
{
    return kf_str_cmp(((const kf_name_entry *)a)->pair->key->text,
                      ((const kf_name_entry *)b)->pair->key->text);
}

/** The value of weight_names: a name, or a mapping that says where in a tensor the parameter is. */
static void read_name(kf_spec_scope *s, kf_spec_param *p, const kf_yaml_node *value)
{
    p->src = kf_src_at(value);
    p->name = p->key;
    if (value->kind == KF_YAML_MAP) {
        if (kf_schema_read(s->r, KF_SCOPE_VIEW, KF_SCOPE_COUNT, value, p->src, &p->view))
            p->name = p->view.tensor.v;
        if (p->view.transposed.v && p->rank < 2)
            kf_reject(s->r, KF_E0116, p->view.transposed.src.loc,
                      "'%.*s' is a vector; it cannot be transposed", KF_STR_ARG(p->key));
    } else if (value->kind == KF_YAML_SCALAR && value->text.len > 0) {
        p->name = value->text;
    } else {
        kf_reject(s->r, KF_E0116, value->loc, "not a checkpoint name");
    }
}

/* Of a part, the name of the whole with another ending. */
static kf_str default_name(const kf_spec_scope *s, const kf_spec_param *p, const char *local)
{
    const char *name = kf_default_weight_name(local, !s->is_model);
    const char *suffix = kf_param_part_infos[p->part].suffix;
    kf_str whole = kf_str_from(name != NULL ? name : local);

    if (p->part == KF_PART_WHOLE)
        return name == NULL && s->is_model ? p->key : whole;
    const char *end = strstr(whole.ptr, ".weight");
    if (end != NULL && end[strlen(".weight")] == '\0')
        whole.len = (uint32_t)(end - whole.ptr);
    return kf_strf(s->r->arena, "%.*s%s", KF_STR_ARG(whole), suffix);
}

static void resolve_name(kf_spec_scope *s, kf_spec_param *p, const char *local)
{
    kf_yaml_node key = {.text = p->key};
    kf_yaml_pair pair = {&key, NULL};
    kf_name_entry wanted = {.pair = &pair};
    kf_name_entry *given = s->n_names == 0 ? NULL
                                           : bsearch(&wanted, s->names, s->n_names,
                                                     sizeof *s->names, compare_name_keys);
    if (given != NULL) {
        given->is_used = true;
        read_name(s, p, given->pair->value);
        return;
    }
    p->name = default_name(s, p, local);
}

static kf_spec_param *add_part(kf_spec_scope *s, kf_block *b, kf_param_role role,
                               kf_param_part part, int64_t d0, const char *why0, int64_t d1,
                               const char *why1)
{
    enum { MAX_PARAMS = 32 };
    if (b->param == NULL)
        b->param = KF_NEW_N(s->r->arena, kf_spec_param, MAX_PARAMS);
    kf_spec_param *p = &b->param[b->n_params++];
    *p = (kf_spec_param){.role = role,
                         .part = part,
                         .rank = d1 > 0 ? 2 : 1,
                         .dim = {d0, d1},
                         .why = {why0, why1},
                         .tensor_rows = d0,
                         .is_first_part = true,
                         .view = {.groups = {.v = 1}}};
    kf_str whole = kf_strf(s->r->arena, "%.*s.%s", KF_STR_ARG(b->label), kf_param_infos[role].word);
    p->key = part == KF_PART_WHOLE ? whole
                                   : kf_strf(s->r->arena, "%.*s.%s", KF_STR_ARG(whole),
                                             kf_param_part_infos[part].word);
    /* Without the scope's name: "attention2.q". */
    resolve_name(s, p, whole.ptr + s->name.len + 1);
    kf_vec_push(s->r->arena, &s->params, p);
    return p;
}

/* The tensors of a matrix, in the forms that the description gives it. */
void kf_scope_add_matrix(kf_spec_scope *s, kf_block *b, kf_param_role role, int64_t d0,
                         const char *why0, int64_t d1, const char *why1)
{
    kf_spec *spec = s->r->spec;
    const kf_spec_form *product = kf_form_of(spec, KF_FORM_LOW_RANK, role),
                       *update = kf_form_of(spec, KF_FORM_LORA, role);

    for (int i = 0; i < KF_FORM_COUNT; i++)
        spec->form[i].used |= UINT64_C(1) << role;
    if (product) {
        add_part(s, b, role, KF_PART_FACTOR_A, product->rank.v, "rank", d1, why1);
        add_part(s, b, role, KF_PART_FACTOR_B, d0, why0, product->rank.v, "rank");
    } else {
        add_part(s, b, role, KF_PART_WHOLE, d0, why0, d1, why1);
    }
    if (update) {
        add_part(s, b, role, KF_PART_LORA_A, update->rank.v, "rank", d1, why1);
        add_part(s, b, role, KF_PART_LORA_B, d0, why0, update->rank.v, "rank");
    }
    if (kf_form_of(spec, KF_FORM_SPECTRAL, role))
        add_part(s, b, role, KF_PART_SCALE, 1, "one", 0, NULL);
}

void kf_scope_add_vector(kf_spec_scope *s, kf_block *b, kf_param_role role, int64_t n,
                         const char *why)
{
    add_part(s, b, role, KF_PART_WHOLE, n, why, 0, NULL);
}

/* ---- parts of packed tensors ----------------------------------------------------------------- */

static const kf_spec_param *param_by_word(const kf_block *b, kf_str word)
{
    for (uint32_t i = 0; i < b->n_params; i++)
        if (b->param[i].part == KF_PART_WHOLE &&
            kf_str_eq_c(word, kf_param_infos[b->param[i].role].word))
            return &b->param[i];
    return NULL;
}

static bool same_view(const kf_spec_param *a, const kf_spec_param *b)
{
    bool same = kf_str_eq(a->name, b->name) && a->view.packed.n == b->view.packed.n &&
                a->view.groups.v == b->view.groups.v &&
                a->view.transposed.v == b->view.transposed.v;
    for (uint32_t i = 0; same && i < a->view.packed.n; i++)
        same = kf_str_eq(a->view.packed.v[i], b->view.packed.v[i]);
    return same;
}

/** Rows of the part |word| in each group of the tensor that holds |p|; 0 after reporting. */
static int64_t part_rows(kf_spec_scope *s, const kf_block *b, const kf_spec_param *p, kf_str word)
{
    const kf_spec_param *part = param_by_word(b, word);
    kf_loc loc = p->view.packed.src.loc;
    if (part == NULL)
        kf_reject(s->r, KF_E0116, loc, "this block has no parameter '%.*s'", KF_STR_ARG(word));
    else if (part->rank != p->rank || part->dim[1] != p->dim[1])
        kf_reject(s->r, KF_E0116, loc, "'%.*s' and '%.*s' do not fit one tensor",
                  KF_STR_ARG(p->key), KF_STR_ARG(part->key));
    else if (!same_view(p, part))
        kf_reject(s->r, KF_E0116, loc, "'%.*s' does not say the same of this tensor",
                  KF_STR_ARG(part->key));
    else if (part->dim[0] % p->view.groups.v != 0)
        kf_reject(s->r, KF_E0116, p->view.groups.src.loc,
                  "%lld rows of '%.*s' are no %lld equal groups", (long long)part->dim[0],
                  KF_STR_ARG(part->key), (long long)p->view.groups.v);
    else
        return part->dim[0] / p->view.groups.v;
    return 0;
}

static bool place_part(kf_spec_scope *s, const kf_block *b, kf_spec_param *p)
{
    int64_t rows = 0;
    uint32_t times = 0;
    for (uint32_t i = 0; i < p->view.packed.n; i++) {
        bool is_self = kf_str_eq_c(p->view.packed.v[i], kf_param_infos[p->role].word);
        int64_t part = part_rows(s, b, p, p->view.packed.v[i]);
        if (part == 0)
            return false;
        if (is_self) {
            p->first_row = rows;
            p->is_first_part = i == 0;
            times++;
        }
        rows += part;
    }
    p->tensor_rows = rows * p->view.groups.v;
    return times == 1 ||
           kf_reject(s->r, KF_E0116, p->view.packed.src.loc, "'packed' has '%s' %u times",
                     kf_param_infos[p->role].word, times);
}

bool kf_scope_place_parts(kf_spec_scope *s, kf_block *b)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < b->n_params; i++)
        if (b->param[i].view.packed.n > 0)
            ok = place_part(s, b, &b->param[i]);
    return ok;
}

static int compare_params(const void *a, const void *b)
{
    const kf_spec_param *x = *(kf_spec_param *const *)a, *y = *(kf_spec_param *const *)b;
    int c = kf_str_cmp(x->name, y->name);
    return c != 0 ? c : kf_str_cmp(x->key, y->key);
}

/** Whether two parameters of one name are parts of one tensor; place_part compared them. */
static bool are_parts(const kf_spec_param *a, const kf_spec_param *b)
{
    const char *dot = strrchr(a->key.ptr, '.');
    size_t n = (size_t)(dot - a->key.ptr) + 1;
    return a->view.packed.n > 0 && b->view.packed.n > 0 && strncmp(a->key.ptr, b->key.ptr, n) == 0;
}

bool kf_scope_check_unique(kf_spec_scope *s)
{
    bool ok = true;
    if (s->params.len > 0)
        qsort(s->params.data, s->params.len, sizeof *s->params.data, compare_params);
    for (uint32_t i = 1; i < s->params.len; i++) {
        const kf_spec_param *a = s->params.data[i - 1], *b = s->params.data[i];
        if (!kf_str_eq(a->name, b->name) || are_parts(a, b))
            continue;
        kf_loc loc = kf_src_given(b->src) ? b->src.loc : kf_src_given(a->src) ? a->src.loc : s->loc;
        kf_diag *d = kf_diag_add(s->r->diags, KF_E0116, loc,
                                 "parameters '%.*s' and '%.*s' are both named '%.*s'",
                                 KF_STR_ARG(a->key), KF_STR_ARG(b->key), KF_STR_ARG(b->name));
        kf_diag_note(s->r->diags, d, KF_NO_LOC, "name one of them in 'weight_names:'");
        ok = false;
    }
    return ok;
}

bool kf_scope_open_names(kf_reader *r, const kf_yaml_node *map, kf_spec_scope *s)
{
    if (map == NULL)
        return true;
    if (!kf_expect_kind(r, map, KF_YAML_MAP, "weight_names"))
        return false;
    s->n_names = map->n;
    s->names = KF_NEW_N(r->arena, kf_name_entry, map->n + 1);
    for (uint32_t i = 0; i < map->n; i++)
        s->names[i].pair = &map->u.pairs[i];
    if (map->n > 0)
        qsort(s->names, map->n, sizeof *s->names, compare_name_keys);
    return true;
}

bool kf_scope_check_names_used(kf_reader *r, const kf_spec_scope *s)
{
    bool ok = true;
    for (uint32_t i = 0; i < s->n_names; i++) {
        const kf_yaml_node *key = s->names[i].pair->key;
        /* A family names parameters of switches that may be off. */
        if (s->names[i].is_used || key->origin == KF_ORIGIN_FAMILY)
            continue;
        kf_diag_add(r->diags, KF_E0116, key->loc, "the model has no parameter '%.*s'",
                    KF_STR_ARG(key->text));
        ok = false;
    }
    return ok;
}

/* ---- parameters of a finished Spec ----------------------------------------------------------- */

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

void kf_spec_tensor_shape(const kf_spec_param *p, int64_t dim[2])
{
    dim[0] = p->tensor_rows;
    dim[1] = p->dim[1];
    if (p->view.transposed.v) {
        dim[0] = p->dim[1];
        dim[1] = p->tensor_rows;
    }
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
        if (!b->param[i].is_first_part)
            continue;
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
    return visit_blocks(&v, &spec->encoder) && visit_blocks(&v, &spec->model);
}
