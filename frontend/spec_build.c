/* SPDX-License-Identifier: Apache-2.0 */
/* spec_build - `build:` and `generation:`, and the checks that need the whole model: bounds and
 * size. */
#include "frontend/spec_read.h"

#include <string.h>

#define MAX_TENSORS 1000000u

typedef struct totals {
    uint64_t tensors;
    double weight_bytes;
    double kv_values; /* per position: keys and values of all layers */
} totals;

static bool is_target(kf_str s)
{
    static const char *const known[] = {"cpu", "cuda"};
    for (uint32_t i = 0; i < 2; i++) {
        size_t n = strlen(known[i]);
        if (kf_str_starts_with(s, known[i]) && (s.len == n || (s.ptr[n] == ':' && s.len > n + 1)))
            return true;
    }
    return false;
}

static bool check_targets(kf_reader *r, const kf_sv_strs *targets)
{
    for (uint32_t i = 0; i < targets->n; i++) {
        if (is_target(targets->v[i]))
            continue;
        kf_diag_add(r->diags, KF_E0113, targets->src.loc,
                    "a target is cpu, cpu:ARCH, cuda or cuda:ARCH; this is '%.*s'",
                    KF_STR_ARG(targets->v[i]));
        return false;
    }
    return true;
}

static void add_blocks(const kf_spec *spec, const kf_blocks *blocks, double times,
                       double elem_bytes, totals *t)
{
    for (uint32_t i = 0; i < blocks->n; i++) {
        const kf_block *b = &blocks->block[i];
        t->tensors += (uint64_t)times * b->n_params;
        for (uint32_t p = 0; p < b->n_params; p++)
            t->weight_bytes += times * elem_bytes * (double)b->param[p].dim[0] *
                               (b->param[p].rank > 1 ? (double)b->param[p].dim[1] : 1);
        if (b->kind == KF_BLOCK_ATTENTION || b->kind == KF_BLOCK_CROSS)
            t->kv_values += times * 2 * (double)b->u.attention.num_key_value_heads.v *
                            (double)b->u.attention.head_dim.v;
        if (b->kind == KF_BLOCK_RESIDUAL)
            add_blocks(spec, &b->u.residual.body, times, elem_bytes, t);
        for (uint32_t j = 0; b->kind == KF_BLOCK_PARALLEL && j < b->u.parallel.n_branches; j++)
            add_blocks(spec, &b->u.parallel.branch[j], times, elem_bytes, t);
        for (uint32_t j = 0; b->kind == KF_BLOCK_REPEAT && j < b->u.repeat.block.n; j++) {
            kf_blocks body = kf_repeat_body(spec, &b->u.repeat, j);
            add_blocks(spec, &body, times * (double)(b->u.repeat.times.v / b->u.repeat.block.n),
                       elem_bytes, t);
        }
    }
}

static double dtype_bytes(kf_sv_dtype first, kf_sv_dtype second)
{
    kf_dtype d = kf_src_given(first.src)    ? first.v
                 : kf_src_given(second.src) ? second.v
                                            : KF_DTYPE_f32;
    return kf_dtype_infos[d].bytes;
}

static bool check_size(kf_reader *r)
{
    const kf_spec *spec = r->spec;
    const kf_spec_build *b = &spec->build;
    kf_sv_dtype f32 = {0};
    totals t = {0};
    add_blocks(spec, &spec->encoder, 1, dtype_bytes(b->weights, spec->dtype), &t);
    add_blocks(spec, &spec->model, 1, dtype_bytes(b->weights, spec->dtype), &t);
    if (t.tensors > MAX_TENSORS) {
        kf_diag_add(r->diags, KF_E0709, spec->model.block[0].src.loc,
                    "the model has %llu tensors; the limit is %u", (unsigned long long)t.tensors,
                    MAX_TENSORS);
        return false;
    }
    double kv = t.kv_values * dtype_bytes(b->kv, f32) * (double)b->max_positions.v *
                (double)b->max_sequences.v;
    if (b->memory.v == 0 || t.weight_bytes + kv <= (double)b->memory.v)
        return true;
    const double mib = 1 << 20;
    kf_diag *d = kf_diag_add(r->diags, KF_E0118, b->memory.src.loc,
                             "needs %.0f MiB: weights %.0f MiB, key-value caches %.0f MiB",
                             (t.weight_bytes + kv) / mib, t.weight_bytes / mib, kv / mib);
    kf_diag_note(r->diags, d, KF_NO_LOC,
                 "smaller: build.max_sequences (%lld), build.max_positions (%lld), build.dtypes",
                 (long long)b->max_sequences.v, (long long)b->max_positions.v);
    return false;
}

static bool check_bounds(kf_reader *r)
{
    kf_spec_build *b = &r->spec->build;
    const kf_sv_int *limit = &r->spec->max_position_embeddings;
    if (b->max_positions.v == 0)
        b->max_positions.v = limit->v;
    if (b->max_positions.v > limit->v) {
        kf_diag_add(r->diags, KF_E0107, b->max_positions.src.loc,
                    "max_positions %lld exceeds max_position_embeddings %lld",
                    (long long)b->max_positions.v, (long long)limit->v);
        return false;
    }
    if (b->max_sequences.v > b->max_tokens.v) {
        kf_loc loc =
            kf_src_given(b->max_sequences.src) ? b->max_sequences.src.loc : b->max_tokens.src.loc;
        kf_diag_add(r->diags, KF_E0107, loc, "max_sequences %lld exceeds max_tokens %lld",
                    (long long)b->max_sequences.v, (long long)b->max_tokens.v);
        return false;
    }
    return true;
}

/** Token ids must be ids. */
static bool check_ids(kf_reader *r)
{
    const kf_spec_generation *g = &r->spec->generation;
    int64_t vocab = r->spec->vocab_size.v;
    bool ok = true;
    for (uint32_t i = 0; i < g->eos_token_id.n + 1; i++) {
        bool is_bos = i == g->eos_token_id.n;
        int64_t id = is_bos ? g->bos_token_id.v : g->eos_token_id.v[i];
        if (id < vocab)
            continue;
        kf_diag_add(r->diags, KF_E0107, is_bos ? g->bos_token_id.src.loc : g->eos_token_id.src.loc,
                    "%s_token_id %lld is not below vocab_size %lld", is_bos ? "bos" : "eos",
                    (long long)id, (long long)vocab);
        ok = false;
    }
    return ok;
}

bool kf_read_build(kf_reader *r, const kf_yaml_node *root)
{
    kf_src none = {{r->spec->file, 1, 1, 0}, KF_ORIGIN_NONE};
    const kf_yaml_node *build = kf_yaml_get(root, "build");
    const kf_yaml_node *generation = kf_yaml_get(root, "generation");
    kf_spec_build *b = &r->spec->build;
    bool ok = kf_schema_read(r, KF_SCOPE_BUILD, KF_SCOPE_COUNT, build, none, b);
    ok =
        kf_schema_read(r, KF_SCOPE_DTYPES, KF_SCOPE_COUNT, kf_yaml_get(build, "dtypes"), none, b) &&
        ok;
    ok =
        kf_schema_read(r, KF_SCOPE_FUSION, KF_SCOPE_COUNT, kf_yaml_get(build, "fusion"), none, b) &&
        ok;
    ok = kf_schema_read(r, KF_SCOPE_GENERATION, KF_SCOPE_COUNT, generation, none,
                        &r->spec->generation) &&
         ok;
    return ok && check_targets(r, &b->targets) && check_bounds(r) && check_ids(r) && check_size(r);
}
