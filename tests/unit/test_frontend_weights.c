/* SPDX-License-Identifier: Apache-2.0 */
/* test_frontend_weights - safetensors: every rule of the reject list is a named case; shards,
 * reading, the comparison with a Spec, random checkpoints. */
#define _GNU_SOURCE
#include "base/fs.h"
#include "frontend.h"
#include "frontend/safetensors.h"
#include "frontend/weights.h"
#include "frontend/weights_random.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- headers --------------------------------------------------------------------------------- */

/** 8-byte length, |json|, |data_bytes| zero bytes. */
static kf_str make_file(kf_arena *arena, kf_str json, uint32_t data_bytes)
{
    char *p = kf_arena_alloc(arena, 8 + json.len + data_bytes, 1);
    p[0] = (char)(json.len & 0xff);
    p[1] = (char)(json.len >> 8 & 0xff);
    p[2] = (char)(json.len >> 16);
    memcpy(p + 8, json.ptr, json.len);
    return (kf_str){p, 8 + json.len + data_bytes};
}

static bool parse(fixture *f, kf_str bytes, uint64_t file_size, kf_st_header *out)
{
    uint32_t file = kf_diags_add_file(f->diags, KF_STR("m.safetensors"), KF_STR(""));
    return kf_st_parse(f->arena, f->diags, file, bytes, file_size, out);
}

#define T(dtype, shape, begin, end)                                                                \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"
#define A8 "\"a\":" T("F32", "[2]", "0", "8")

static const struct reject {
    const char *name;
    const char *json;
    uint32_t data;
    kf_diag_code code;
    const char *says;
} rejects[] = {
    {"first byte", " {" A8 "}", 8, KF_E0302, "begin with '{'"},
    {"array", "[1,2]", 0, KF_E0302, "begin with '{'"},
    {"junk after", "{" A8 "}x", 8, KF_E0302, "follows"},
    {"second object", "{" A8 "}{}", 8, KF_E0302, "not JSON"},
    {"newline after", "{" A8 "}\n", 8, KF_E0302, "follows"},
    {"cut JSON", "{\"a\":{}", 0, KF_E0302, "not JSON"},
    {"not utf-8", "{\"\xff\":" T("F32", "[2]", "0", "8") "}", 8, KF_E0302, "not JSON"},
    {"duplicate", "{" A8 "," A8 "}", 8, KF_E0302, "not JSON"},
    {"duplicate by escape", "{" A8 ",\"\\u0061\":" T("F32", "[2]", "0", "8") "}", 8, KF_E0302,
     "not JSON"},
    {"duplicate inside",
     "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     KF_E0302, "not JSON"},
    {"metadata value", "{\"__metadata__\":{\"k\":1}," A8 "}", 8, KF_E0302, "not a string"},
    {"metadata kind", "{\"__metadata__\":[]," A8 "}", 8, KF_E0302, "__metadata__"},
    {"negative offset", "{\"a\":" T("F32", "[2]", "-8", "0") "}", 8, KF_E0302, "whole numbers"},
    {"float offset", "{\"a\":" T("F32", "[2]", "0.0", "8") "}", 8, KF_E0302, "whole numbers"},
    {"huge offset", "{\"a\":" T("F32", "[2]", "0", "18446744073709551624") "}", 8, KF_E0302,
     "not JSON"},
    {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8,
     KF_E0302, "whole numbers"},
    {"negative size", "{\"a\":" T("F32", "[-2]", "0", "8") "}", 8, KF_E0302, "whole number"},
    {"float size", "{\"a\":" T("F32", "[2.0]", "0", "8") "}", 8, KF_E0302, "whole number"},
    {"begin above end", "{\"a\":" T("F32", "[2]", "8", "0") "}", 8, KF_E0302,
     "begin at 8 and end at 0"},
    {"overflow", "{\"a\":" T("F32", "[4294967296,4294967296,4294967296]", "0", "8") "}", 8,
     KF_E0302, "overflows"},
    {"overflow to fit", "{\"a\":" T("F32", "[4611686018427387904,2,2]", "0", "0") "}", 0, KF_E0302,
     "overflows"},
    {"shape against offsets", "{\"a\":" T("F32", "[3]", "0", "8") "}", 8, KF_E0302, "span 8 bytes"},
    {"half a byte", "{\"a\":" T("F4", "[3]", "0", "1") "}", 1, KF_E0302, "need 12 bits"},
    {"overlap", "{" A8 ",\"b\":" T("F32", "[2]", "4", "12") "}", 12, KF_E0302, "overlapping"},
    {"same bytes twice", "{" A8 ",\"b\":" T("F32", "[2]", "0", "8") "}", 8, KF_E0302,
     "overlapping"},
    {"hole", "{" A8 ",\"b\":" T("F32", "[1]", "12", "16") "}", 16, KF_E0302, "hole"},
    {"hole first", "{\"a\":" T("F32", "[1]", "4", "8") "}", 8, KF_E0302, "hole"},
    {"bytes behind", "{" A8 "}", 12, KF_E0302, "belong to none"},
    {"no elements inside another", "{" A8 ",\"z\":" T("F32", "[0]", "4", "4") "}", 8, KF_E0302,
     "overlapping"},
    {"no elements behind a hole", "{" A8 ",\"z\":" T("F32", "[0]", "12", "12") "}", 12, KF_E0302,
     "hole"},
    {"unknown dtype", "{\"a\":" T("F31", "[2]", "0", "8") "}", 8, KF_E0302, "unknown dtype 'F31'"},
    {"dtype kind", "{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, KF_E0302,
     "object of"},
    {"unknown key", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8,
     KF_E0302, "object of"},
    {"missing key", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, KF_E0302, "object of"},
    {"entry kind", "{\"a\":[]}", 0, KF_E0302, "object of"},
    {"empty name", "{\"\":" T("F32", "[2]", "0", "8") "}", 8, KF_E0302, "name of 0 bytes"},
    {"NUL in name", "{\"a\\u0000b\":" T("F32", "[2]", "0", "8") "}", 8, KF_E0302, "not JSON"},
    {"deep", "{\"a\":{\"shape\":[[[[]]]]}}", 0, KF_E0302, "nests deeper"},
    {"rank", "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, KF_E0302,
     "at most 16"},
    {"end beyond the file", "{\"a\":" T("F32", "[4]", "0", "16") "}", 8, KF_E0303,
     "'a' ends at byte 16"},
};

static void reject_list(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rejects / sizeof *rejects; i++) {
        const struct reject *r = &rejects[i];
        void *inner;
        setup(&inner);
        fixture *f = inner;
        kf_st_header header;
        kf_str bytes = make_file(f->arena, kf_str_from(r->json), r->data);
        if (parse(f, bytes, bytes.len, &header))
            fail_msg("'%s' was accepted", r->name);
        const kf_diag *d = kf_diags_first(f->diags);
        if (d->code != r->code || strstr(d->message.ptr, r->says) == NULL)
            fail_msg("'%s': %s %s", r->name, kf_diag_infos[d->code].name, d->message.ptr);
        teardown(&inner);
    }
}

static void reject_length(void **state)
{
    static const struct {
        uint64_t n, file_size;
        kf_diag_code code;
    } cases[] = {
        {0, 100, KF_E0302},
        {1, 100, KF_E0302},
        {100000001, 1u << 30, KF_E0302},
        {93, 100, KF_E0303},
        {UINT64_MAX - 7, 100, KF_E0302},
        {10, 7, KF_E0303},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *inner;
        setup(&inner);
        fixture *f = inner;
        char head[128] = {0};
        for (int b = 0; b < 8; b++)
            head[b] = (char)(cases[i].n >> (8 * b));
        kf_st_header header;
        assert_false(parse(f, (kf_str){head, 100}, cases[i].file_size, &header));
        expect_first(f, cases[i].code, 0, 0);
        teardown(&inner);
    }
}

static void long_name(void **state)
{
    fixture *f = *state;
    for (uint32_t above = 0; above < 2; above++) {
        kf_sbuf b = {.arena = f->arena};
        kf_sbuf_c(&b, "{\"");
        for (uint32_t i = 0; i < KF_ST_MAX_NAME + above; i++)
            kf_sbuf_char(&b, 'n');
        kf_sbuf_c(&b, "\":" T("F32", "[2]", "0", "8") "}");
        kf_str bytes = make_file(f->arena, kf_sbuf_view(&b), 8);
        kf_st_header header;
        assert_int_equal(parse(f, bytes, bytes.len, &header), above == 0);
    }
    expect_first(f, KF_E0302, 0, 0);
}

static void accepted(void **state)
{
    fixture *f = *state;
    kf_str json = KF_STR(
        "{\"b\":" T("F32", "[]", "8", "12") ",\"__metadata__\":{\"format\":\"pt\"},\"empty\":" T(
            "BF16", "[0,7]", "8", "8") ",\"a\":" T("I64", "[1]", "0", "8") "}   ");
    kf_str bytes = make_file(f->arena, json, 12);
    kf_st_header h;
    assert_true(parse(f, bytes, bytes.len, &h));
    assert_int_equal(h.n_tensors, 3);
    assert_string_equal(h.tensor[0].name.ptr, "a");
    assert_false(h.tensor[0].has_dtype);
    assert_string_equal(h.tensor[1].name.ptr, "empty");
    assert_int_equal(h.tensor[2].rank, 0);
    assert_int_equal(h.tensor[2].begin, h.data_begin + 8);
}

/** Cut anywhere, a file is refused and never read beyond its end. */
static void truncated_everywhere(void **state)
{
    fixture *f = *state;
    kf_str bytes = make_file(f->arena, KF_STR("{" A8 ",\"b\":" T("F32", "[1]", "8", "12") "}"), 12);
    for (uint32_t n = 0; n < bytes.len; n++) {
        void *inner;
        setup(&inner);
        char *exact = malloc(n + 1); /* the sanitizer sees what is read behind it */
        memcpy(exact, bytes.ptr, n);
        kf_st_header h;
        assert_false(parse(inner, (kf_str){exact, n}, n, &h));
        free(exact);
        teardown(&inner);
    }
}

/* ---- checkpoints on disk --------------------------------------------------------------------- */

static const char *scratch_dir(fixture *f)
{
    static int n;
    const char *dir = kf_strf(f->arena, "weights_test.%d.%d", (int)getpid(), n++).ptr;
    assert_int_equal(mkdir(dir, 0777), 0);
    return dir;
}

static const char *in(fixture *f, const char *dir, const char *name)
{
    return kf_strf(f->arena, "%s/%s", dir, name).ptr;
}

static void put(fixture *f, const char *dir, const char *name, kf_str bytes)
{
    assert_int_equal(kf_fs_write(in(f, dir, name), bytes, 0644), 0);
}

static void clean(fixture *f, const char *dir)
{
    static const char *const names[] = {
        "model.safetensors", "model.safetensors.index.json", "s1",        "s2", "link",
        "config.json",       "generation_config.json",       "model.yaml"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in(f, dir, names[i]));
    assert_int_equal(rmdir(dir), 0);
}

static void put_shards(fixture *f, const char *dir)
{
    put(f, dir, "s1", make_file(f->arena, KF_STR("{" A8 "}"), 8));
    put(f, dir, "s2", make_file(f->arena, KF_STR("{\"b\":" T("BF16", "[2,2]", "0", "8") "}"), 8));
}

static void shards(void **state)
{
    fixture *f = *state;
    const char *dir = scratch_dir(f);
    put_shards(f, dir);
    put(f, dir, "model.safetensors.index.json",
        KF_STR("{\"metadata\":{\"total_size\":16},\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\"}}"));
    kf_checkpoint *c = kf_checkpoint_open(f->arena, f->diags, kf_str_from(dir));
    assert_non_null(c);
    assert_int_equal(kf_checkpoint_n_tensors(c), 2);
    assert_int_equal(kf_checkpoint_bytes(c), 16);
    const kf_tensor_source *source = kf_checkpoint_source(c);
    kf_tensor_info info;
    assert_true(source->find(source, KF_STR("b"), &info));
    assert_int_equal(info.rank, 2);
    assert_false(source->find(source, KF_STR("c"), &info));
    assert_int_equal(kf_diags_warnings(f->diags), 0);
    kf_checkpoint_close(c);
    clean(f, dir);
}

static void bad_indexes(void **state)
{
    static const struct {
        const char *name, *json;
        kf_diag_code code;
    } cases[] = {
        {"absolute", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", KF_E0304},
        {"dots", "{\"weight_map\":{\"a\":\"../s1\"}}", KF_E0304},
        {"dots alone", "{\"weight_map\":{\"a\":\"..\"}}", KF_E0304},
        {"folder", "{\"weight_map\":{\"a\":\"x/s1\"}}", KF_E0304},
        {"link out", "{\"weight_map\":{\"a\":\"link\"}}", KF_E0304},
        {"absent shard", "{\"weight_map\":{\"a\":\"s3\"}}", KF_E0308},
        {"absent tensor", "{\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\",\"c\":\"s2\"}}", KF_E0304},
        {"wrong shard", "{\"weight_map\":{\"a\":\"s2\",\"b\":\"s1\"}}", KF_E0304},
        {"no map", "{\"metadata\":{}}", KF_E0304},
        {"empty map", "{\"weight_map\":{}}", KF_E0304},
        {"shard kind", "{\"weight_map\":{\"a\":1}}", KF_E0304},
        {"duplicate", "{\"weight_map\":{\"a\":\"s1\",\"a\":\"s2\"}}", KF_E0304},
        {"not json", "{", KF_E0304},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *inner;
        setup(&inner);
        fixture *f = inner;
        const char *dir = scratch_dir(f);
        put_shards(f, dir);
        assert_int_equal(symlink("/etc/passwd", in(f, dir, "link")), 0);
        put(f, dir, "model.safetensors.index.json", kf_str_from(cases[i].json));
        if (kf_checkpoint_open(f->arena, f->diags, kf_str_from(dir)) != NULL)
            fail_msg("'%s' was accepted", cases[i].name);
        expect_first(f, cases[i].code, 0, 0);
        clean(f, dir);
        teardown(&inner);
    }
}

static void tensor_in_two_shards(void **state)
{
    fixture *f = *state;
    const char *dir = scratch_dir(f);
    put(f, dir, "s1", make_file(f->arena, KF_STR("{" A8 "}"), 8));
    put(f, dir, "s2",
        make_file(f->arena, KF_STR("{" A8 ",\"b\":" T("F32", "[1]", "8", "12") "}"), 12));
    put(f, dir, "model.safetensors.index.json",
        KF_STR("{\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\"}}"));
    assert_null(kf_checkpoint_open(f->arena, f->diags, kf_str_from(dir)));
    expect_first(f, KF_E0304, 0, 0);
    clean(f, dir);
}

static void total_size_warns(void **state)
{
    fixture *f = *state;
    const char *dir = scratch_dir(f);
    put_shards(f, dir);
    put(f, dir, "model.safetensors.index.json",
        KF_STR("{\"metadata\":{\"total_size\":17},\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\"}}"));
    kf_checkpoint *c = kf_checkpoint_open(f->arena, f->diags, kf_str_from(dir));
    assert_non_null(c);
    expect_first(f, KF_W0103, 0, 0);
    kf_checkpoint_close(c);
    clean(f, dir);
}

static void not_there(void **state)
{
    fixture *f = *state;
    const char *dir = scratch_dir(f);
    assert_null(kf_checkpoint_open(f->arena, f->diags, kf_str_from(dir)));
    expect_first(f, KF_E0308, 0, 0);
    assert_int_equal(kf_diags_exit_status(f->diags), 3);
    clean(f, dir);
}

/** A file that shrinks after opening is an error value, not a signal. */
static void shrunk_while_open(void **state)
{
    fixture *f = *state;
    const char *dir = scratch_dir(f);
    put(f, dir, "model.safetensors", make_file(f->arena, KF_STR("{" A8 "}"), 8));
    kf_checkpoint *c = kf_checkpoint_open(f->arena, f->diags, kf_str_from(dir));
    assert_non_null(c);
    const kf_tensor_source *source = kf_checkpoint_source(c);
    kf_tensor_info info;
    float v[2] = {1, 1};
    assert_true(source->find(source, KF_STR("a"), &info));
    assert_int_equal(source->read(source, &info, 0, 2, v), 0);
    assert_true(v[0] == 0 && v[1] == 0);
    assert_int_equal(truncate(in(f, dir, "model.safetensors"), 66), 0);
    assert_int_equal(source->read(source, &info, 0, 2, v), EIO);
    kf_checkpoint_close(c);
    clean(f, dir);
}

/* ---- against a Spec -------------------------------------------------------------------------- */

static const char tiny[] =
    "spec: 1\nfamily: llama\nvocab_size: 24\nhidden_size: 16\nnum_hidden_layers: 2\n"
    "num_attention_heads: 4\nnum_key_value_heads: 2\nintermediate_size: 20\n";

static kf_spec *load(fixture *f, const char *text)
{
    kf_spec *spec =
        kf_spec_load_text(f->arena, f->diags, "t.yaml", ".", kf_str_from(text), NULL, 0);
    if (spec == NULL)
        kf_diags_print(f->diags, stderr, false);
    assert_non_null(spec);
    return spec;
}

static kf_checkpoint *random_checkpoint(fixture *f, const char *dir, const char *text,
                                        kf_dtype dtype)
{
    assert_true(kf_weights_random_write(f->arena, f->diags, load(f, text), dir, 1, dtype));
    kf_checkpoint *c = kf_checkpoint_open(f->arena, f->diags, kf_str_from(dir));
    assert_non_null(c);
    return c;
}

static void mismatches(void **state)
{
    static const struct {
        const char *add; /* to tiny */
        kf_diag_code code;
        const char *says;
    } cases[] = {
        {"", KF_DIAG_COUNT, NULL},
        {"tie_word_embeddings: true\n", KF_DIAG_COUNT, NULL}, /* a stored head is then redundant */
        {"mlp_bias: true\n", KF_E0305, "no tensor 'model.layers.0.mlp.gate_proj.bias'"},
        {"head_dim: 8\n", KF_E0306, "is [16, 16], the description implies [32, 16]"},
        {"weight_names: {model.rms_norm.gain: model.nrm.weight}\n", KF_E0305,
         "no tensor 'model.nrm.weight'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        void *inner;
        setup(&inner);
        fixture *f = inner;
        const char *dir = scratch_dir(f);
        kf_checkpoint *c = random_checkpoint(f, dir, tiny, KF_DTYPE_bf16);
        kf_spec *spec = load(f, kf_strf(f->arena, "%s%s", tiny, cases[i].add).ptr);
        bool ok = kf_checkpoint_check(f->arena, f->diags, c, spec);
        assert_int_equal(ok, cases[i].says == NULL);
        if (cases[i].says == NULL) {
            assert_null(kf_diags_first(f->diags));
        } else {
            expect_first(f, cases[i].code, 0, 0);
            if (strstr(kf_diags_first(f->diags)->message.ptr, cases[i].says) == NULL)
                fail_msg("%s", kf_diags_first(f->diags)->message.ptr);
        }
        kf_checkpoint_close(c);
        clean(f, dir);
        teardown(&inner);
    }
}

static void extra_tensors_warn(void **state)
{
    fixture *f = *state;
    const char *dir = scratch_dir(f);
    kf_sbuf more = {.arena = f->arena};
    kf_sbuf_c(&more, tiny);
    kf_sbuf_c(&more, "attention_bias: true\n");
    kf_checkpoint *c = random_checkpoint(f, dir, more.ptr, KF_DTYPE_f32);
    assert_true(kf_checkpoint_check(f->arena, f->diags, c, load(f, tiny)));
    expect_first(f, KF_W0102, 0, 0);
    assert_non_null(strstr(kf_diags_first(f->diags)->message.ptr, "8 tensors"));
    kf_checkpoint_close(c);
    clean(f, dir);
}

static void unreadable_type(void **state)
{
    fixture *f = *state;
    const char *dir = scratch_dir(f);
    put(f, dir, "model.safetensors",
        make_file(f->arena,
                  KF_STR("{\"model.embed_tokens.weight\":" T("I8", "[2,2]", "0", "4") "}"), 4));
    kf_checkpoint *c = kf_checkpoint_open(f->arena, f->diags, kf_str_from(dir));
    kf_spec *spec = load(f, "spec: 1\nvocab_size: 2\nhidden_size: 2\nmodel:\n  - embedding\n"
                            "  - linear: {out: vocab_size, tied: embedding}\n");
    assert_false(kf_checkpoint_check(f->arena, f->diags, c, spec));
    expect_first(f, KF_E0307, 5, 5);
    assert_int_equal(kf_diags_exit_status(f->diags), 4);
    kf_checkpoint_close(c);
    clean(f, dir);
}

/** File and in-memory source hold the same numbers; another seed holds others. */
static void random_weights(void **state)
{
    fixture *f = *state;
    for (kf_dtype dtype = KF_DTYPE_f32; dtype <= KF_DTYPE_f16; dtype++) {
        const char *dir = scratch_dir(f);
        kf_checkpoint *c = random_checkpoint(f, dir, tiny, dtype);
        const kf_tensor_source *file = kf_checkpoint_source(c);
        kf_spec *spec = load(f, tiny);
        const kf_tensor_source *same = kf_weights_random_source(f->arena, spec, 1, dtype);
        const kf_tensor_source *other = kf_weights_random_source(f->arena, spec, 2, dtype);
        kf_tensor_info a, b;
        uint8_t x[64], y[64], z[64];
        uint64_t n = 64 / kf_dtype_infos[dtype].bytes;
        kf_str name = KF_STR("model.layers.1.mlp.down_proj.weight");
        assert_true(file->find(file, name, &a) && same->find(same, name, &b));
        assert_int_equal(a.dim[0], 16);
        assert_int_equal(a.dim[1], 20);
        assert_int_equal(file->read(file, &a, 5, n, x), 0);
        assert_int_equal(same->read(same, &b, 5, n, y), 0);
        assert_int_equal(other->read(other, &b, 5, n, z), 0);
        assert_memory_equal(x, y, sizeof x);
        assert_true(memcmp(x, z, sizeof x) != 0);
        kf_checkpoint_close(c);
        clean(f, dir);
    }
}

/** Mean and deviation of one large tensor, and that halves round to the nearest. */
static void random_scale(void **state)
{
    fixture *f = *state;
    kf_spec *spec = load(f, "spec: 1\nvocab_size: 1000\nhidden_size: 100\nmodel:\n  - embedding\n"
                            "  - rms_norm\n  - linear: {out: vocab_size}\n");
    const kf_tensor_source *source = kf_weights_random_source(f->arena, spec, 3, KF_DTYPE_f32);
    kf_tensor_info info;
    assert_true(source->find(source, KF_STR("lm_head.weight"), &info));
    float *v = KF_NEW_N(f->arena, float, 100000);
    assert_int_equal(source->read(source, &info, 0, 100000, v), 0);
    double sum = 0, squares = 0;
    for (int i = 0; i < 100000; i++) {
        sum += v[i];
        squares += (double)v[i] * v[i];
    }
    assert_true(sum / 1e5 < 1e-3 && sum / 1e5 > -1e-3);
    assert_true(squares / 1e5 > 0.0099 && squares / 1e5 < 0.0101);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(reject_list),
        FIXTURE_TEST(reject_length),
        FIXTURE_TEST(long_name),
        FIXTURE_TEST(accepted),
        FIXTURE_TEST(truncated_everywhere),
        FIXTURE_TEST(shards),
        FIXTURE_TEST(bad_indexes),
        FIXTURE_TEST(tensor_in_two_shards),
        FIXTURE_TEST(total_size_warns),
        FIXTURE_TEST(not_there),
        FIXTURE_TEST(shrunk_while_open),
        FIXTURE_TEST(mismatches),
        FIXTURE_TEST(extra_tensors_warn),
        FIXTURE_TEST(unreadable_type),
        FIXTURE_TEST(random_weights),
        FIXTURE_TEST(random_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
