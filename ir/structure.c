/* SPDX-License-Identifier: Apache-2.0 */
/* structure - see structure.h. Mixing is the finalizer of MurmurHash3 (Appleby, public domain). */
#include "ir/structure.h"

#include <string.h>

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

static uint64_t mix_double(uint64_t h, double v)
{
    uint64_t bits;

    memcpy(&bits, &v, sizeof bits);
    return mix(h, bits);
}

static uint64_t mix_str(uint64_t h, kf_str s)
{
    for (uint32_t i = 0; i < s.len; i++)
        h = mix(h, (unsigned char)s.ptr[i]);
    return mix(h, s.len);
}

static uint64_t mix_slot(uint64_t h, const kf_slot *s)
{
    if (!s)
        return mix(h, 0);
    h = mix(mix(h, s->n_params), s->captures);
    for (uint32_t i = 0; i < s->n_insts; i++) {
        const kf_slot_inst *in = &s->inst[i];
        h = mix(h, in->op);
        h = mix(h, in->op == KF_SLOT_FN ? (uint64_t)in->fn : in->index);
        h = mix_double(h, in->op == KF_SLOT_CONST ? in->value : 0);
        for (uint32_t j = 0; j < in->n_args; j++)
            h = mix(h, in->arg[j]);
    }
    return h;
}

static uint64_t mix_field(uint64_t h, const kf_field_info *f, const char *at)
{
    switch (f->type) {
    case KF_FIELD_int:
        return mix(h, (uint64_t)*(const kf_field_int *)at);
    case KF_FIELD_num:
        return mix_double(h, *(const kf_field_num *)at);
    case KF_FIELD_bool:
        return mix(h, *(const kf_field_bool *)at);
    case KF_FIELD_str:
        return mix_str(h, *(const kf_field_str *)at);
    case KF_FIELD_ints: {
        const kf_ints *v = (const kf_ints *)at;
        for (uint32_t i = 0; i < v->n; i++)
            h = mix(h, (uint64_t)v->v[i]);
        return mix(h, v->n);
    }
    case KF_FIELD_accs: {
        const kf_accs *v = (const kf_accs *)at;
        for (uint32_t i = 0; i < v->n; i++)
            h = mix(h, (uint64_t)v->acc[i]);
        return mix(h, v->n);
    }
    case KF_FIELD_slot:
        return mix_slot(h, *(const kf_field_slot *)at);
    case KF_FIELD_fam:
        return mix(h, (uint64_t)*(const kf_field_fam *)at);
    case KF_FIELD_word:
        return mix(h, (uint64_t)*(const kf_field_word *)at);
    }
    return h;
}

uint64_t kf_attr_hash(kf_attr_kind kind, const void *attr)
{
    const kf_attr_info *info = &kf_attr_infos[kind];
    uint64_t h = mix(0, (uint64_t)kind);

    for (uint32_t i = 0; i < info->n_fields; i++)
        h = mix_field(h, &info->field[i], (const char *)attr + info->field[i].offset);
    return h;
}

uint64_t kf_type_hash(const kf_type *t)
{
    uint64_t h = mix(mix(2, (uint64_t)t->kind), (uint64_t)t->dtype);

    for (uint32_t i = 0; i < t->rank; i++) {
        h = mix(mix(h, (uint64_t)t->dim[i].size), t->dim[i].sym);
        h = mix(h, t->shard[i]);
    }
    for (uint32_t i = 0; i < t->layout.n_splits; i++)
        h = mix(mix(h, t->layout.split[i].dim), t->layout.split[i].block);
    h = mix(mix(h, t->partial), t->layout.swizzle);
    h = mix(mix(h, t->kv_page), t->kv_heads);
    return mix(mix(h, t->kv_head_dim), t->kv_layers);
}

static uint64_t recipe_hash(const kf_recipe *r, kf_structure_of of)
{
    uint64_t h = mix(mix(1, (uint64_t)r->op), kf_type_hash(&r->type));

    if (of == KF_WITH_TENSORS)
        h = mix_str(h, r->tensor);
    h = mix_slot(h, r->fn);
    for (uint32_t i = 0; i < KF_RECIPE_MAX_NUMBERS; i++)
        h = mix(h, (uint64_t)r->number[i]);
    for (uint32_t i = 0; i < r->n_parts; i++)
        h = mix(h, recipe_hash(r->part[i], of));
    return h;
}

static uint64_t node_hash(const kf_graph *g, const kf_node *n, const uint64_t *hash,
                          kf_structure_of of, kf_arena *arena)
{
    uint64_t h = mix(3, (uint64_t)n->op);

    if (kf_op_infos[n->op].attr != KF_ATTR_none)
        h = mix(h, kf_attr_hash(kf_op_infos[n->op].attr, n->attr));
    bool turned =
        (kf_op_infos[n->op].traits & KF_COMM) && n->n_in == 2 && hash[n->in[1]] < hash[n->in[0]];
    for (uint32_t i = 0; i < n->n_in; i++)
        h = mix(h, hash[n->in[turned ? n->n_in - 1 - i : i]]);
    h = mix(h, kf_type_hash(kf_value_type(g, n->out[0])));
    if (n->body) {
        const uint64_t *inner = kf_graph_structure(n->body, of, arena);
        for (uint32_t i = 0; i < n->body->results.len; i++)
            h = mix(h, inner[n->body->results.data[i]]);
    }
    return h;
}

uint64_t *kf_graph_structure(const kf_graph *g, kf_structure_of of, kf_arena *arena)
{
    uint64_t *hash = KF_NEW_N(arena, uint64_t, g->values.len);

    for (uint32_t i = 0; i < g->args.len; i++)
        hash[g->args.data[i]] = mix(4, i);
    for (uint32_t i = 0; i < g->params.len; i++)
        hash[g->params.data[i]] = mix(5, recipe_hash(g->recipes.data[i], of));
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op == KF_OP_NONE)
            continue;
        uint64_t h = node_hash(g, n, hash, of, arena);
        for (uint32_t r = 0; r < n->n_out; r++)
            hash[n->out[r]] = mix(h, r);
    }
    return hash;
}
