/* SPDX-License-Identifier: Apache-2.0 */
/* test_golden_llama - what the frontend builds, evaluated in double precision, against logits and
 * greedy tokens of the same models in transformers (tests/golden/llama). No kernel takes part. */
#include "base/fs.h"
#include "frontend.h"
#include "frontend/build_graph.h"
#include "frontend/weights.h"
#include "ir/eval.h"

#include <math.h>
#include <stdio.h>

enum { N_PROMPT = 24, N_GREEDY = 64, N_VOCAB = 64 };

static const double gate_nmse = 1e-9;

static const char *const models[] = {
    "act_gelu", "act_gelu_tanh", "act_relu",    "all_llama",  "all_qwen2", "all_qwen3", "base",
    "bias",     "gqa",           "head_dim",    "inter_50",   "inter_88",  "mqa",       "qk_norm",
    "qkv_bias", "rope_linear",   "rope_llama3", "rope_theta", "tied",
};

/* The list behind |key| in golden.json. */
static void read_list(const char *json, const char *key, uint32_t n, int32_t *out)
{
    const char *p = strstr(json, key);
    assert_non_null(p);
    p = strchr(p, '[') + 1;
    for (uint32_t i = 0; i < n; i++) {
        char *end;
        out[i] = (int32_t)strtol(p, &end, 10);
        assert_true(end > p);
        p = end + 1;
    }
}

/* NMSE over all rows and of the worst row. */
static void compare(const char *name, const char *how, const double *got, const float *want)
{
    double error = 0, norm = 0, worst = 0;
    for (int r = 0; r < N_PROMPT; r++) {
        double row_error = 0, row_norm = 0;
        for (int i = r * N_VOCAB; i < (r + 1) * N_VOCAB; i++) {
            row_error += (got[i] - (double)want[i]) * (got[i] - (double)want[i]);
            row_norm += (double)want[i] * (double)want[i];
        }
        worst = fmax(worst, row_error / row_norm);
        error += row_error;
        norm += row_norm;
    }
    if (!(error / norm <= gate_nmse && worst <= gate_nmse))
        fail_msg("%s, %s: NMSE %.3g, worst row %.3g", name, how, error / norm, worst);
}

static kf_tensor step(kf_eval *e, uint32_t seq, const int32_t *ids, uint32_t n)
{
    kf_arena *arena = kf_arena_create("why");
    kf_sbuf why = {.arena = arena};
    kf_tensor logits;
    kf_eval_step s = {1, &seq, &n, &ids, NULL};
    if (!kf_eval_run(e, "main", &s, true, &logits, &why))
        fail_msg("%s", why.ptr);
    kf_arena_destroy(arena);
    return logits;
}

static void check_model(fixture *f, const char *name)
{
    kf_str dir = kf_str_from(source_path(f, kf_strf(f->arena, "tests/golden/llama/%s", name).ptr));
    kf_str json, npy;
    int32_t ids[N_PROMPT], greedy[N_GREEDY];
    float want[N_PROMPT * N_VOCAB];
    assert_int_equal(
        kf_fs_read(f->arena, kf_strf(f->arena, "%s/golden.json", dir.ptr).ptr, 1 << 20, &json), 0);
    assert_int_equal(
        kf_fs_read(f->arena, kf_strf(f->arena, "%s/logits.npy", dir.ptr).ptr, 1 << 20, &npy), 0);
    read_list(json.ptr, "\"ids\"", N_PROMPT, ids);
    read_list(json.ptr, "\"greedy\"", N_GREEDY, greedy);
    assert_true(npy.len > sizeof want);
    memcpy(want, npy.ptr + npy.len - sizeof want, sizeof want);

    kf_spec *spec = kf_spec_load(f->arena, f->diags, dir.ptr, NULL, 0);
    kf_checkpoint *weights = kf_checkpoint_open(f->arena, f->diags, dir);
    kf_module *m = spec && weights
                       ? kf_build_graph(f->arena, f->diags, spec, kf_checkpoint_source(weights))
                       : NULL;
    if (!m) {
        kf_diags_print(f->diags, stderr, false);
        fail_msg("%s does not build", name);
    }
    kf_eval *e = kf_eval_create(f->arena, m, KF_EVAL_IDEAL, kf_checkpoint_source(weights), 2);
    compare(name, "one call", step(e, 0, ids, N_PROMPT).data, want);
    double chunks[N_PROMPT * N_VOCAB];
    memcpy(chunks, step(e, 1, ids, 10).data, 10 * N_VOCAB * sizeof(double));
    memcpy(chunks + 10 * N_VOCAB, step(e, 1, ids + 10, 14).data, 14 * N_VOCAB * sizeof(double));
    compare(name, "two chunks", chunks, want);
    const double *row = chunks + (N_PROMPT - 1) * N_VOCAB;
    for (int t = 0; t < N_GREEDY; t++) {
        int best = 0;
        for (int i = 1; i < N_VOCAB; i++)
            best = row[i] > row[best] ? i : best;
        if (best != greedy[t])
            fail_msg("%s: token %d is %d, not %d", name, t, best, greedy[t]);
        row = step(e, 1, &greedy[t], 1).data;
    }
    kf_checkpoint_close(weights);
}

static void models_agree_with_transformers(void **state)
{
    fixture *f = *state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        check_model(f, models[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {FIXTURE_TEST(models_agree_with_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
