/* SPDX-License-Identifier: Apache-2.0 */
/* test_frontend_spec - descriptions to Specs: errors on their lines, round trips, precedence,
 * config.json. */
#define _GNU_SOURCE
#include "base/fs.h"
#include "frontend.h"
#include "frontend/spec.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static kf_spec *load_text(fixture *f, const char *text, const kf_override *o, uint32_t n)
{
    return kf_spec_load_text(f->arena, f->diags, "t.yaml", ".", kf_str_from(text), o, n);
}

static kf_spec *must(fixture *f, kf_spec *spec)
{
    if (spec == NULL)
        kf_diags_print(f->diags, stderr, false);
    assert_non_null(spec);
    return spec;
}

static kf_str print(fixture *f, const kf_spec *spec)
{
    kf_sbuf b = {.arena = f->arena};
    kf_spec_print(spec, false, &b);
    return kf_sbuf_view(&b);
}

/* ---- tests/errors: every file's expected-error comments, without the compiler's driver ------- */

static bool codes_seen[KF_DIAG_COUNT];

/** Takes a diagnostic of |code| on |line| whose message holds |says|. */
static bool take(fixture *f, bool *taken, kf_diag_code code, uint32_t line, kf_str says)
{
    uint32_t i = 0;
    for (const kf_diag *d = kf_diags_first(f->diags); d != NULL; d = d->next, i++) {
        if (taken[i] || d->code != code || d->loc.line != line ||
            memmem(d->message.ptr, d->message.len, says.ptr, says.len) == NULL)
            continue;
        taken[i] = true;
        codes_seen[code] = true;
        return true;
    }
    return false;
}

/** One comment "expected-error[@LINE]: CODE TEXT" at |p|; returns the end of its line or of its
 * text. */
static const char *check_comment(fixture *f, bool *taken, const char *p, uint32_t line)
{
    p += strcspn(p, "@:");
    if (*p == '@')
        line = (uint32_t)strtoul(p + 1, (char **)(uintptr_t)&p, 10);
    p += 2;
    kf_diag_code code;
    if (!kf_diag_find((kf_str){p, 5}, &code))
        fail_msg("unknown code %.5s", p);
    p += 6;
    const char *end = p + strcspn(p, "\n"), *next = memmem(p, (size_t)(end - p), "# expected-", 11);
    if (next != NULL)
        end = next;
    kf_str says = {p, (uint32_t)(end - p)};
    while (says.len > 0 && says.ptr[says.len - 1] == ' ')
        says.len--;
    if (!take(f, taken, code, line, says)) {
        kf_diags_print(f->diags, stderr, false);
        fail_msg("not reported on line %u: %s %.*s", line, kf_diag_infos[code].name,
                 KF_STR_ARG(says));
    }
    return end;
}

static void check_error_file(const char *name)
{
    void *state;
    setup(&state);
    fixture *f = state;
    const char *path = source_path(f, kf_strf(f->arena, "tests/errors/%s", name).ptr);
    kf_str text;
    assert_int_equal(kf_fs_read(f->arena, path, 1 << 20, &text), 0);
    if (kf_spec_load(f->arena, f->diags, path, NULL, 0) != NULL)
        fail_msg("%s was accepted", name);
    bool taken[KF_DIAG_MAX_ERRORS * 2] = {false};
    uint32_t line = 1, n = 0;
    for (const char *p = text.ptr; *p != '\0';) {
        if (strncmp(p, "expected-error", 14) == 0 || strncmp(p, "expected-warning", 16) == 0) {
            p = check_comment(f, taken, p, line);
            n++;
            continue;
        }
        line += *p++ == '\n';
    }
    if (n != kf_diags_errors(f->diags) + kf_diags_warnings(f->diags)) {
        kf_diags_print(f->diags, stderr, false);
        fail_msg("%s: %u diagnostics expected", name, n);
    }
    teardown(&state);
}

static void error_files(void **state)
{
    fixture *f = *state;
    DIR *dir = opendir(source_path(f, "tests/errors"));
    uint32_t n = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        size_t len = strlen(e->d_name);
        kf_str text;
        if (len < 6 || strcmp(e->d_name + len - 5, ".yaml") != 0)
            continue;
        const char *path = source_path(f, kf_strf(f->arena, "tests/errors/%s", e->d_name).ptr);
        assert_int_equal(kf_fs_read(f->arena, path, 1 << 20, &text), 0);
        if (strstr(text.ptr, "expect-diags") == NULL)
            continue;
        check_error_file(e->d_name);
        n++;
    }
    closedir(dir);
    assert_true(n >= 40);
    /* Every code of descriptions has a file there; limits and weights are test_frontend_yaml's,
     * test_frontend_expr's and test_frontend_weights' business. */
    static const kf_diag_code codes[] = {
        KF_E0101, KF_E0102, KF_E0103, KF_E0104, KF_E0105, KF_E0106, KF_E0107, KF_E0108,
        KF_E0109, KF_E0111, KF_E0112, KF_E0113, KF_E0114, KF_E0115, KF_E0116, KF_E0117,
        KF_E0118, KF_E0201, KF_E0202, KF_E0203, KF_E0204, KF_E0205, KF_E0301, KF_E0307,
        KF_E0401, KF_E0402, KF_E0403, KF_E0404, KF_E0405, KF_E0406, KF_E0701, KF_W0101,
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (!codes_seen[codes[i]])
            fail_msg("no file in tests/errors shows %s", kf_diag_infos[codes[i]].name);
}

static void hints(void **state)
{
    static const struct {
        const char *line, *hint;
    } cases[] = {
        {"num_kv_head: 2", "in this file it is 'num_key_value_heads'"},
        {"num_hiden_layers: 2", "did you mean 'num_hidden_layers'?"},
        {"n_head: 2", "in this file it is 'num_attention_heads'"},
        {"d_ff: 2", "in this file it is 'intermediate_size'"},
        {"tie_word_embeddings: no", "write false"},
        {"tie_word_embeddings: on", "write true"},
        {"dtype: bfloat61", "did you mean 'bfloat16'?"},
        {"qk_norm: rmss", "did you mean 'rms'?"},
        {"build: {memory: 512}", "512MiB?"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *inner;
        setup(&inner);
        fixture *f = inner;
        load_text(
            f,
            kf_strf(f->arena,
                    "spec: 1\nfamily: llama\nvocab_size: 8\nhidden_size: 8\nnum_hidden_layers: 1\n"
                    "num_attention_heads: 2\nintermediate_size: 8\n%s\n",
                    cases[i].line)
                .ptr,
            NULL, 0);
        const kf_diag *d = kf_diags_first(f->diags);
        if (d == NULL || d->hint.len == 0 || strstr(d->hint.ptr, cases[i].hint) == NULL) {
            kf_diags_print(f->diags, stderr, false);
            fail_msg("'%s' gives no hint '%s'", cases[i].line, cases[i].hint);
        }
        teardown(&inner);
    }
}

/* ---- what is read ---------------------------------------------------------------------------- */

static const char tiny[] =
    "spec: 1\nname: t\nfamily: llama\nvocab_size: 1_000\nhidden_size: 64\nnum_hidden_layers: 3\n"
    "num_attention_heads: 4\nintermediate_size: 96\n";

static const char tiny_open[] =
    "spec: 1\nname: t\nvocab_size: 1000\nhidden_size: 64\n"
    "blocks:\n"
    "  layer:\n"
    "    - residual:\n"
    "        - rms_norm\n"
    "        - attention: {num_attention_heads: 4, rope: {}}\n"
    "    - residual: [rms_norm: {eps: 1e-6}, glu: {intermediate_size: 96, act: silu}]\n"
    "model:\n"
    "  - embedding\n"
    "  - repeat: {times: 3, block: layer, weights: 'model.layers.{i}'}\n"
    "  - rms_norm:\n"
    "  - linear: {out: vocab_size}\n";

/** A family and its blocks written by hand are one Spec. */
static void family_is_its_composition(void **state)
{
    fixture *f = *state;
    kf_str a = print(f, must(f, load_text(f, tiny, NULL, 0)));
    kf_str b = print(f, must(f, load_text(f, tiny_open, NULL, 0)));
    assert_string_equal(a.ptr, b.ptr);
}

static void defaults(void **state)
{
    fixture *f = *state;
    const kf_spec *s = must(f, load_text(f, tiny, NULL, 0));
    assert_int_equal(s->vocab_size.v, 1000);
    assert_int_equal(s->max_position_embeddings.v, 2048);
    assert_int_equal(s->build.max_positions.v, 2048);
    assert_int_equal(s->build.max_sequences.v, 8);
    assert_int_equal(s->build.max_tokens.v, 512);
    assert_false(kf_src_given(s->dtype.src));
    assert_string_equal(s->build.targets.v[0].ptr, "cpu");
    const kf_block *attention = &s->block[0].body.block[0].u.residual.body.block[1];
    const kf_spec_attention *a = &attention->u.attention;
    assert_int_equal(a->num_key_value_heads.v, 4);
    assert_int_equal(a->head_dim.v, 16);
    assert_true(a->scale.v == 0.25);
    assert_true(a->rope.present.v && a->rope.theta.v == 10000);
    assert_int_equal(a->rope.rotated_dim, 16);
    assert_string_equal(attention->label.ptr, "layer.attention");
    const kf_spec_param *q = kf_block_param(attention, KF_PARAM_Q);
    assert_string_equal(q->key.ptr, "layer.attention.q");
    assert_string_equal(q->name.ptr, "self_attn.q_proj.weight");
    assert_null(kf_block_param(attention, KF_PARAM_Q_BIAS));
    assert_int_equal(s->head->kind, KF_BLOCK_LINEAR);
}

typedef struct names {
    fixture *f;
    kf_sbuf text;
} names;

static bool add_name(void *user, kf_str name, const kf_spec_param *p, const kf_block *b)
{
    names *n = user;
    (void)b;
    kf_sbuf_printf(&n->text, "%.*s %lld", KF_STR_ARG(name), (long long)p->dim[0]);
    if (p->rank == 2)
        kf_sbuf_printf(&n->text, "x%lld", (long long)p->dim[1]);
    kf_sbuf_char(&n->text, '\n');
    return true;
}

static void parameters(void **state)
{
    fixture *f = *state;
    const char *text =
        "spec: 1\nfamily: llama\nvocab_size: 11\nhidden_size: 8\nnum_hidden_layers: 2\n"
        "num_attention_heads: 4\nnum_key_value_heads: 2\nhead_dim: 4\nintermediate_size: 6\n"
        "qkv_bias: true\nqk_norm: rms\ntie_word_embeddings: true\n";
    names n = {f, {.arena = f->arena}};
    assert_true(kf_spec_each_param(f->arena, must(f, load_text(f, text, NULL, 0)), add_name, &n));
    const char *layer1 = strstr(n.text.ptr, "model.layers.1.");
    assert_non_null(layer1);
    assert_string_equal(layer1, "model.layers.1.input_layernorm.weight 8\n"
                                "model.layers.1.self_attn.q_proj.weight 16x8\n"
                                "model.layers.1.self_attn.k_proj.weight 8x8\n"
                                "model.layers.1.self_attn.v_proj.weight 8x8\n"
                                "model.layers.1.self_attn.o_proj.weight 8x16\n"
                                "model.layers.1.self_attn.q_proj.bias 16\n"
                                "model.layers.1.self_attn.k_proj.bias 8\n"
                                "model.layers.1.self_attn.v_proj.bias 8\n"
                                "model.layers.1.self_attn.q_norm.weight 4\n"
                                "model.layers.1.self_attn.k_norm.weight 4\n"
                                "model.layers.1.post_attention_layernorm.weight 8\n"
                                "model.layers.1.mlp.gate_proj.weight 6x8\n"
                                "model.layers.1.mlp.up_proj.weight 6x8\n"
                                "model.layers.1.mlp.down_proj.weight 8x6\n"
                                "model.norm.weight 8\n"); /* tied: no head */
}

static void round_trips(void **state)
{
    static const char *const more[] = {
        "",
        "rope: {theta: 5e5, scaling: {type: llama3, factor: 8, low_freq_factor: 1, "
        "high_freq_factor: 4, "
        "original_max_position_embeddings: 64}}\n",
        "rope: {theta: 1e6, fraction: 0.5, style: interleaved, scaling: {type: linear, factor: "
        "2.5}}\n",
        "rope: none\nmlp_bias: true\nattention_bias: true\nhidden_act: \"x*sigmoid(1.702*x)\"\n",
        "dtype: f16\nweights: \"a: b #c\"\nqk_norm: rms\nqkv_bias: true\nrms_norm_eps: 0.1\n",
        "build: {targets: [cpu:native, cpu], memory: 8GiB, dtypes: {kv: bf16, weights: f32}, "
        "fusion: {require: [attention, \"norm -> matmul @layer.*\"]}}\n",
        "generation: {eos_token_id: [1, 2], temperature: 0.7, do_sample: true}\n",
        "weight_names: {layer.glu.gate: \"ffn.w1\", model.embedding.table: wte}\n",
    };
    fixture *f = *state;
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        const kf_spec *s =
            must(f, load_text(f, kf_strf(f->arena, "%s%s", tiny, more[i]).ptr, NULL, 0));
        kf_str first = print(f, s);
        kf_str again = print(f, must(f, load_text(f, first.ptr, NULL, 0)));
        assert_string_equal(first.ptr, again.ptr);
        if (i > 0)
            assert_string_not_equal(first.ptr, print(f, must(f, load_text(f, tiny, NULL, 0))).ptr);
    }
}

static void examples_round_trip(void **state)
{
    static const char *const paths[] = {"examples/llama-tiny.yaml",
                                        "examples/open-composition.yaml",
                                        "examples/tinyllama-1.1b.yaml"};
    fixture *f = *state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        kf_str first =
            print(f, must(f, kf_spec_load(f->arena, f->diags, source_path(f, paths[i]), NULL, 0)));
        kf_str again = print(f, must(f, load_text(f, first.ptr, NULL, 0)));
        assert_string_equal(first.ptr, again.ptr);
    }
    assert_null(kf_diags_first(f->diags));
}

/* ---- precedence ------------------------------------------------------------------------------ */

static void flags_win(void **state)
{
    fixture *f = *state;
    const kf_override o[] = {{KF_STR("build.max_tokens"), KF_STR("64")},
                             {KF_STR("build.dtypes.kv"), KF_STR("bf16")},
                             {KF_STR("dtype"), KF_STR("float32")}};
    const char *text =
        kf_strf(f->arena, "%sdtype: bf16\nbuild: {max_tokens: 128, max_sequences: 4}\n", tiny).ptr;
    const kf_spec *s = must(f, load_text(f, text, o, 3));
    assert_int_equal(s->build.max_tokens.v, 64);
    assert_int_equal(s->build.max_tokens.src.origin, KF_ORIGIN_FLAG);
    assert_int_equal(s->build.max_sequences.v, 4);
    assert_int_equal(s->build.max_sequences.src.origin, KF_ORIGIN_SPEC);
    assert_int_equal(s->build.kv.v, KF_DTYPE_bf16);
    assert_int_equal(s->dtype.v, KF_DTYPE_f32);
    const kf_override bad = {KF_STR("build.max_token"), KF_STR("64")};
    assert_null(load_text(f, tiny, &bad, 1));
    expect_first(f, KF_E0102, 1, 1);
}

/** Writes |text| as DIR/|name| and returns the path. */
static const char *put(fixture *f, const char *dir, const char *name, const char *text)
{
    const char *path = kf_strf(f->arena, "%s/%s", dir, name).ptr;
    assert_int_equal(kf_fs_write(path, kf_str_from(text), 0644), 0);
    return path;
}

#define DIMS                                                                                       \
    "\"vocab_size\": 100, \"hidden_size\": 16, \"num_hidden_layers\": 2, "                         \
    "\"num_attention_heads\": 4, "                                                                 \
    "\"num_key_value_heads\": 2, \"intermediate_size\": 24"

static void spec_over_config(void **state)
{
    fixture *f = *state;
    const char *dir = kf_strf(f->arena, "spec_test.%d", (int)getpid()).ptr;
    mkdir(dir, 0777);
    const char *config =
        put(f, dir, "config.json",
            "{\"architectures\": [\"LlamaForCausalLM\"], " DIMS ", \"rms_norm_eps\": 0.01,\n"
            "\"rope_theta\": 5000.0, \"torch_dtype\": \"bfloat16\", \"eos_token_id\": 7,\n"
            "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}, \"head_dim\": null}");
    const char *generation =
        put(f, dir, "generation_config.json",
            "{\"eos_token_id\": [3, 4], \"temperature\": 0.6, \"top_k\": null}");
    const char *yaml =
        put(f, dir, "m.yaml", "spec: 1\nfrom: .\nrms_norm_eps: 0.02\nrope: {theta: 6000}\n");
    const kf_spec *s = must(f, kf_spec_load(f->arena, f->diags, yaml, NULL, 0));
    const kf_block *residual = &s->block[0].body.block[0];
    const kf_spec_norm *norm = &residual->u.residual.body.block[0].u.norm;
    const kf_spec_attention *a = &residual->u.residual.body.block[1].u.attention;
    assert_true(norm->eps.v == 0.02);
    assert_int_equal(norm->eps.src.origin, KF_ORIGIN_SPEC);
    assert_int_equal(norm->eps.src.loc.line, 3);
    assert_true(a->rope.theta.v == 6000 && a->rope.factor.v == 2);
    assert_int_equal(a->rope.type.v, KF_ROPE_LINEAR);
    assert_int_equal(a->rope.factor.src.origin, KF_ORIGIN_CONFIG);
    assert_int_equal(a->head_dim.v, 4);
    assert_int_equal(s->dtype.v, KF_DTYPE_bf16);
    assert_int_equal(s->generation.eos_token_id.n, 2);
    assert_int_equal(s->generation.eos_token_id.v[1], 4);
    assert_int_equal(s->generation.eos_token_id.src.origin, KF_ORIGIN_CONFIG);
    assert_int_equal(kf_diags_warnings(f->diags), 0);
    /* The directory itself is a description too. */
    const kf_spec *d = must(f, kf_spec_load(f->arena, f->diags, dir, NULL, 0));
    assert_true(d->block[0].body.block[0].u.residual.body.block[0].u.norm.eps.v == 0.01);
    unlink(config), unlink(generation), unlink(yaml), rmdir(dir);
}

/** Switches of the architectures, in the words of both generations of config.json. */
static void architectures(void **state)
{
    static const struct {
        const char *json;
        bool qkv_bias, o_bias, qk_norm;
        int64_t head_dim;
        double theta;
    } cases[] = {
        {"\"LlamaForCausalLM\"], " DIMS ", \"attention_bias\": true", true, true, false, 4, 10000},
        {"\"LlamaForCausalLM\"], " DIMS
         ", \"rope_parameters\": {\"rope_theta\": 9.0, \"rope_type\": \"default\"}",
         false, false, false, 4, 9},
        {"\"Qwen2ForCausalLM\"], " DIMS ", \"use_sliding_window\": false, \"sliding_window\": 4",
         true, false, false, 4, 10000},
        {"\"Qwen3ForCausalLM\"], " DIMS, false, false, true, 128, 10000},
        {"\"Qwen3ForCausalLM\"], " DIMS ", \"head_dim\": 8, \"attention_bias\": true", true, true,
         true, 8, 10000},
        {"\"MistralForCausalLM\"], " DIMS ", \"sliding_window\": null, \"rope_theta\": 1e6", false,
         false, false, 4, 1e6},
        {"\"MistralForCausalLM\"], " DIMS
         ", \"sliding_window\": 64, \"max_position_embeddings\": 64",
         false, false, false, 4, 10000},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *inner;
        setup(&inner);
        fixture *f = inner;
        const char *dir = kf_strf(f->arena, "arch_test.%d", (int)getpid()).ptr;
        mkdir(dir, 0777);
        const char *config = put(f, dir, "config.json",
                                 kf_strf(f->arena, "{\"architectures\": [%s}", cases[i].json).ptr);
        const kf_spec *s = must(f, kf_spec_load(f->arena, f->diags, dir, NULL, 0));
        const kf_spec_attention *a =
            &s->block[0].body.block[0].u.residual.body.block[1].u.attention;
        assert_int_equal(a->qkv_bias.v, cases[i].qkv_bias);
        assert_int_equal(a->o_bias.v, cases[i].o_bias);
        assert_int_equal(a->qk_norm.v, cases[i].qk_norm ? KF_QK_NORM_RMS : KF_QK_NORM_NONE);
        assert_int_equal(a->head_dim.v, cases[i].head_dim);
        assert_true(a->rope.theta.v == cases[i].theta);
        assert_null(kf_diags_first(f->diags));
        unlink(config), rmdir(dir);
        teardown(&inner);
    }
}

static void many_errors(void **state)
{
    fixture *f = *state;
    kf_sbuf b = {.arena = f->arena};
    kf_sbuf_c(&b, "spec: 1\n");
    for (int i = 0; i < 20000; i++)
        kf_sbuf_printf(&b, "unknown_key_%d: 1\n", i);
    assert_null(load_text(f, b.ptr, NULL, 0));
    assert_true(kf_diags_errors(f->diags) >= KF_DIAG_MAX_ERRORS);
}

/** Limits of the model itself: layers times tensors. */
static void too_many_tensors(void **state)
{
    fixture *f = *state;
    kf_sbuf b = {.arena = f->arena};
    kf_sbuf_c(&b, "spec: 1\nvocab_size: 4\nhidden_size: 4\nblocks:\n  layer:\n");
    for (int i = 0; i < 250; i++)
        kf_sbuf_c(&b, "    - rms_norm\n");
    kf_sbuf_c(&b,
              "model:\n  - embedding\n  - repeat: {times: 4096, block: layer, weights: 'l.{i}'}\n"
              "  - linear: {out: vocab_size}\n");
    assert_null(load_text(f, b.ptr, NULL, 0));
    expect_first(f, KF_E0709, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(error_files),
        FIXTURE_TEST(hints),
        FIXTURE_TEST(family_is_its_composition),
        FIXTURE_TEST(defaults),
        FIXTURE_TEST(parameters),
        FIXTURE_TEST(round_trips),
        FIXTURE_TEST(flags_win),
        FIXTURE_TEST(architectures),
        FIXTURE_TEST(spec_over_config),
        FIXTURE_TEST(many_errors),
        FIXTURE_TEST(too_many_tensors),
        FIXTURE_TEST(examples_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
