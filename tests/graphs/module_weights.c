/* SPDX-License-Identifier: Apache-2.0 */
/* module_weights - see module_weights.h. */
#include "tests/graphs/module_weights.h"

#include "ir/convert.h"
#include "ir/phase.h"
#include "ir/plan.h"
#include "tests/unit/support.h"

#include <math.h>
#include <string.h>

const char *const fill_names[FILL_COUNT] = {"usual", "small",    "positive", "denormal",
                                            "large", "constant", "sparse"};

typedef struct store {
    kf_tensor_source source; /* first: the source is the store */
    kf_arena *arena;
    const kf_module *m;
    fill how;
    uint64_t seed;
    KF_VEC(kf_tensor_info) tensors; /* |offset|: which */
    void **values;                  /* by tensor; made once for all forms */
} store;

/* ---- what a module loads --------------------------------------------------------------------- */

static const kf_tensor_info *tensor_of(const store *s, kf_str name)
{
    for (uint32_t i = 0; i < s->tensors.len; i++)
        if (kf_str_eq(s->tensors.data[i].name, name))
            return &s->tensors.data[i];
    return NULL;
}

static void add_recipe(store *s, const kf_recipe *r, kf_str prefix, uint32_t layer)
{
    kf_tensor_info t = {.dtype = r->type.dtype, .rank = r->type.rank, .offset = s->tensors.len};

    for (uint32_t i = 0; i < r->n_parts; i++)
        add_recipe(s, r->part[i], prefix, layer);
    if (r->op != KF_RECIPE_load)
        return;
    t.name = kf_plan_tensor_name(s->arena, prefix, layer, r->tensor);
    for (uint8_t d = 0; d < t.rank; d++)
        t.dim[d] = r->type.dim[d].size;
    if (!tensor_of(s, t.name))
        kf_vec_push(s->arena, &s->tensors, t);
}

static void add_function(store *s, const kf_graph *g, kf_str prefix, uint32_t layer)
{
    for (uint32_t i = 0; i < g->params.len; i++)
        add_recipe(s, g->recipes.data[i], prefix, layer);
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        if (n->op != KF_OP_repeat)
            continue;
        const kf_attr_repeat *a = KF_ATTR_OF(n, repeat);
        for (uint32_t l = 0; l < a->times; l++)
            add_function(s, kf_module_find_func(s->m, a->callee), a->weights, l);
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

static uint64_t hash_name(uint64_t seed, kf_str name)
{
    uint64_t h = seed ^ 0xcbf29ce484222325u; /* FNV-1a */

    for (uint32_t i = 0; i < name.len; i++)
        h = (h ^ (uint8_t)name.ptr[i]) * 0x100000001b3u;
    return h;
}

/* Element |i| of a tensor whose name hashes to |name|: vectors are near 1, tables near 1 in size,
 * matrices keep the size of rows. */
static double value(const store *s, const kf_tensor_info *t, uint64_t name, uint64_t i)
{
    uint64_t row = t->rank > 1 ? i / (uint64_t)t->dim[t->rank - 1] : 0;
    uint64_t state = name + (s->how == FILL_CONSTANT ? row : i);
    double u = (double)(random_u64(&state) >> 11) / (double)(1ull << 53);
    double v = t->rank == 1 ? 0.5 + u : (4 * u - 2) / sqrt((double)t->dim[t->rank - 1]) * 0.9;
    bool table = kf_str_starts_with(t->name, "embed") || kf_str_starts_with(t->name, "table");

    if (table)
        v = 4 * u - 2;
    switch (s->how) {
    case FILL_SMALL:
        return v / 4;
    case FILL_POSITIVE:
        return fabs(v) + 0.01;
    case FILL_DENORMAL:
        return table ? v * 1e-39 : v;
    case FILL_LARGE:
        return table ? v * 5e3 : v;
    case FILL_SPARSE:
        return u < 0.2 && t->rank > 1 ? v : t->rank > 1 ? copysign(0, v) : v;
    default:
        return v;
    }
}

static void *make_values(const store *s, const kf_tensor_info *t)
{
    uint64_t n = 1, name = hash_name(s->seed, t->name);

    for (uint8_t d = 0; d < t->rank; d++)
        n *= (uint64_t)t->dim[d];
    void *values = kf_arena_alloc(s->arena, n * kf_dtype_infos[t->dtype].bytes, 8);
    for (uint64_t i = 0; i < n; i++)
        kf_float_store(t->dtype, values, i, (float)value(s, t, name, i));
    return values;
}

static bool find(const kf_tensor_source *self, kf_str name, kf_tensor_info *out)
{
    const kf_tensor_info *t = tensor_of((const store *)(const void *)self, name);

    if (t)
        *out = *t;
    return t != NULL;
}

static int read_values(const kf_tensor_source *self, const kf_tensor_info *t, uint64_t first,
                       uint64_t n, void *dst)
{
    const store *s = (const store *)(const void *)self;
    size_t size = kf_dtype_infos[t->dtype].bytes;

    memcpy(dst, (const char *)s->values[t->offset] + first * size, n * size);
    return 0;
}

const kf_tensor_source *module_weights(kf_arena *arena, const kf_module *m, fill how, uint64_t seed)
{
    store *s = KF_NEW(arena, store);

    s->source = (kf_tensor_source){find, read_values, NULL};
    s->arena = arena;
    s->m = m;
    s->how = how;
    s->seed = seed;
    for (uint32_t i = 0; i < m->funcs.len; i++)
        if (kf_is_entry(m->funcs.data[i]->name))
            add_function(s, m->funcs.data[i], KF_STR(""), 0);
    s->values = KF_NEW_N(arena, void *, s->tensors.len + 1);
    for (uint32_t i = 0; i < s->tensors.len; i++)
        s->values[i] = make_values(s, &s->tensors.data[i]);
    return &s->source;
}

/* The rows of the smallest table in |g|, and in the bodies of its regions, that |ids| looks up. */
static int64_t smallest_table(const kf_graph *g, kf_value ids, int64_t most)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t k = 0; k < n->n_in; k++) {
            if (n->in[k] != ids)
                continue;
            int64_t rows = n->op == KF_OP_gather ? kf_value_type(g, n->in[0])->dim[0].size : 0;
            if (n->body)
                rows = smallest_table(n->body, n->body->args.data[k], most);
            most = rows && rows < most ? rows : most;
        }
    }
    return most;
}

int64_t module_vocabulary(const kf_module *m)
{
    int64_t n = 64;

    for (uint32_t f = 0; f < m->funcs.len; f++) {
        const kf_graph *g = m->funcs.data[f];
        for (uint32_t i = 0; i < g->args.len; i++)
            if (kf_str_eq_c(g->values.data[g->args.data[i]].name, "ids"))
                n = smallest_table(g, g->args.data[i], n);
    }
    return n;
}
