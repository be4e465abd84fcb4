/* SPDX-License-Identifier: Apache-2.0 */
/* test_eval - the reference evaluator against values that PyTorch computed
 * (tests/golden/ops/cases.txt), its rounding, and ragged runs of a whole module against one
 * sequence at a time. */
#include "base/fs.h"
#include "ir/eval.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_TENSORS = 20 };

typedef struct golden {
    char name[64];
    double tol;
    int64_t syms[KF_SYM_MEMORY];
    kf_tensor in[MAX_TENSORS], out[MAX_TENSORS];
    struct {
        uint32_t seqs;
        int64_t capacity;
    } kv[MAX_TENSORS]; /* seqs 0: a tensor */
    uint32_t n_in, n_out;
    kf_str kir;
} golden;

static bool used[KF_OP_COUNT];
static bool acc_used[KF_ACC_COUNT];

static kf_str read_source(kf_arena *arena, const char *path)
{
    const char *root = getenv("KF_SOURCE_DIR");
    kf_str text, full = kf_strf(arena, "%s/%s", root ? root : ".", path);
    if (kf_fs_read(arena, full.ptr, 1 << 24, &text) != 0)
        fail_msg("cannot read %s", full.ptr);
    return text;
}

/* "2,3 1.0 2.0 ..." */
static kf_tensor read_tensor(kf_arena *arena, const char *p)
{
    int64_t dim[KF_MAX_RANK];
    uint8_t rank = 0;
    char *end;
    if (strncmp(p, "scalar", 6) == 0) {
        p += 6;
    } else {
        do {
            dim[rank++] = strtoll(p, &end, 10);
            p = end + 1;
        } while (*end == ',');
        p = end;
    }
    kf_tensor t = kf_tensor_new(arena, rank, dim);
    for (int64_t i = 0; i < t.n; i++) {
        t.data[i] = strtod(p, &end);
        assert_true(end > p);
        p = end;
    }
    return t;
}

/* Reads one case from |*p| on; false at the end. */
static bool read_case(kf_arena *arena, const char **p, golden *g)
{
    memset(g, 0, sizeof *g);
    for (; **p; *p = strchr(*p, '\n') + 1) {
        const char *line = *p;
        if (strncmp(line, "case ", 5) == 0) {
            sscanf(line, "case %63s", g->name);
        } else if (strncmp(line, "tol ", 4) == 0) {
            g->tol = strtod(line + 4, NULL);
        } else if (strncmp(line, "syms ", 5) == 0) {
            char *end = (char *)line + 5;
            for (int i = 0; i < KF_SYM_MEMORY; i++)
                g->syms[i] = strtoll(end, &end, 10);
        } else if (strncmp(line, "in ", 3) == 0) {
            g->in[g->n_in++] = read_tensor(arena, line + 3);
        } else if (strncmp(line, "kv ", 3) == 0) {
            char *end;
            g->kv[g->n_in].seqs = (uint32_t)strtoul(line + 3, &end, 10);
            g->kv[g->n_in++].capacity = strtoll(end, NULL, 10);
        } else if (strncmp(line, "out ", 4) == 0) {
            g->out[g->n_out++] = read_tensor(arena, line + 4);
        } else if (strncmp(line, "kir\n", 4) == 0) {
            const char *end = strstr(line, "\nend\n");
            g->kir = (kf_str){line + 4, (uint32_t)(end - line - 4)};
            *p = end + 5;
            return true;
        }
        assert_true(g->n_in <= MAX_TENSORS && g->n_out <= KF_MAX_RESULTS);
    }
    return false;
}

static void note_ops(const kf_graph *g)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        used[n->op] = true;
        if (n->op == KF_OP_row_reduce) {
            const kf_accs *accs = &KF_ATTR_OF(n, row_reduce)->acc;
            for (uint8_t a = 0; a < accs->n; a++)
                acc_used[accs->acc[a]] = true;
        }
        if (n->body)
            note_ops(n->body);
    }
}

static void compare(const char *name, uint32_t which, const kf_tensor *got, const kf_tensor *want,
                    double tol)
{
    assert_int_equal(got->n, want->n);
    double scale = 0;
    for (int64_t i = 0; i < want->n; i++) {
        if (isfinite(want->data[i]))
            scale = fmax(scale, fabs(want->data[i]));
    }
    for (int64_t i = 0; i < want->n; i++) {
        double a = got->data[i], b = want->data[i];
        bool same =
            a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= tol * fmax(fabs(b), 1e-3 * scale);
        if (!same)
            fail_msg("%s: result %u element %lld is %.17g, not %.17g", name, which, (long long)i, a,
                     b);
    }
}

static kf_module *parse(kf_arena *arena, const char *name, kf_str text)
{
    kf_diags *d = kf_diags_create(arena);
    kf_module *m = kf_module_parse(arena, d, kf_str_from(name), text);
    kf_sbuf errors = {.arena = arena};
    if (!m) {
        kf_diags_print(d, stderr, false);
        fail_msg("%s does not parse", name);
    }
    if (!kf_module_verify(m, KF_VERIFY_GRAPH, &errors))
        fail_msg("%s does not verify:\n%s", name, errors.ptr);
    return m;
}

static void run_case(kf_arena *arena, golden *g)
{
    kf_module *m = parse(arena, g->name, g->kir);
    const kf_graph *f = kf_module_find_func(m, KF_STR("f"));
    kf_tensor results[KF_MAX_RESULTS];
    kf_sbuf why = {.arena = arena};
    assert_non_null(f);
    assert_int_equal(f->args.len, g->n_in);
    assert_int_equal(f->results.len, g->n_out);
    for (uint32_t i = 0; i < m->funcs.len; i++)
        note_ops(m->funcs.data[i]);
    for (uint32_t i = 0; i < g->n_in; i++) {
        if (g->kv[i].seqs)
            g->in[i] = kf_tensor_new_kv(arena, kf_value_type(f, f->args.data[i]), KF_EVAL_IDEAL,
                                        g->kv[i].seqs, g->kv[i].capacity);
    }
    if (!kf_eval_graph(arena, f, KF_EVAL_IDEAL, g->syms, g->in, NULL, results, &why))
        fail_msg("%s: %s", g->name, why.ptr);
    for (uint32_t i = 0; i < g->n_out; i++)
        compare(g->name, i, &results[i], &g->out[i], g->tol);
}

static void every_op_agrees_with_pytorch(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_str text = read_source(arena, "tests/golden/ops/cases.txt");
    const char *p = text.ptr;
    golden g;
    uint32_t n = 0;
    for (; read_case(arena, &p, &g); n++)
        run_case(arena, &g);
    assert_true(n > 60);
    for (int op = 0; op < KF_OP_COUNT; op++) {
        if (!used[op])
            fail_msg("no case uses op '%s': add one to tests/golden/ops.py", kf_op_infos[op].name);
    }
    for (int acc = 0; acc < KF_ACC_COUNT; acc++) {
        if (!acc_used[acc])
            fail_msg("no case uses accumulator '%s'", kf_acc_infos[acc].name);
    }
    kf_arena_destroy(arena);
}

/* ---- rounding -------------------------------------------------------------------------------- */

static void rounds_to_nearest_even(void **state)
{
    (void)state;
    static const struct {
        kf_dtype dtype;
        double v, want;
    } cases[] = {
        {KF_DTYPE_f32, 0.1, 0x1.99999ap-4},
        {KF_DTYPE_f32, 1e300, INFINITY},
        {KF_DTYPE_bf16, 1.00390625, 1.0},
        {KF_DTYPE_bf16, 1.01171875, 1.015625},
        {KF_DTYPE_bf16, -1.0039062500001, -1.0078125},
        {KF_DTYPE_bf16, 3.4e38, INFINITY},
        {KF_DTYPE_bf16, 0x1.ffp127, INFINITY},
        {KF_DTYPE_bf16, 0x1.fep127, 0x1.fep127},
        {KF_DTYPE_bf16, 0x1p-133, 0x1p-133},
        {KF_DTYPE_bf16, 0x1p-134, 0},
        {KF_DTYPE_f16, 65519, 65504},
        {KF_DTYPE_f16, 65520, INFINITY},
        {KF_DTYPE_f16, 2049, 2048},
        {KF_DTYPE_f16, 0x1.8p-24, 0x1p-23},
        {KF_DTYPE_i32, -2.9, -2},
        {KF_DTYPE_pred, -0.5, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double got = kf_round_to(cases[i].dtype, cases[i].v);
        if (got != cases[i].want)
            fail_msg("%s of %.17g is %.17g, not %.17g", kf_dtype_infos[cases[i].dtype].name,
                     cases[i].v, got, cases[i].want);
    }
    assert_true(isnan(kf_round_to(KF_DTYPE_bf16, NAN)));
    assert_true(signbit(kf_round_to(KF_DTYPE_f16, -1e-30)));
}

/* Nodes of functions round; nodes inside a region do not, its results do. */
static void rounds_where_values_are_stored(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_module *m = parse(arena, "rounding",
                         kf_str_from("module @m {\n"
                                     "  func @loose(%x: f32[1]) -> (f32[1]) {\n"
                                     "    %0 = convert %x : bf16[1]\n"
                                     "    %1 = sub %x, %0 : f32[1]\n"
                                     "    %2 = exp %x : f32[1]\n"
                                     "    %3 = sub %2, %x : f32[1]\n"
                                     "    return %3\n"
                                     "  }\n"
                                     "  func @fused(%x: f32[1]) -> (f32[1]) {\n"
                                     "    %0 = region map %x (%x: f32[1]) {\n"
                                     "      %0 = exp %x : f32[1]\n"
                                     "      %1 = sub %0, %x : f32[1]\n"
                                     "      return %1\n"
                                     "    } : f32[1]\n"
                                     "    return %0\n"
                                     "  }\n"
                                     "}\n"));
    double x = 0.7;
    kf_tensor in = kf_tensor_new(arena, 1, (int64_t[]){1}), out;
    in.data[0] = x;
    kf_eval_graph(arena, kf_module_find_func(m, KF_STR("loose")), KF_EVAL_ROUNDED, NULL, &in, NULL,
                  &out, NULL);
    assert_true(out.data[0] == (double)(float)((double)(float)exp(x) - x));
    kf_eval_graph(arena, kf_module_find_func(m, KF_STR("fused")), KF_EVAL_ROUNDED, NULL, &in, NULL,
                  &out, NULL);
    assert_true(out.data[0] == (double)(float)(exp(x) - x));
    kf_eval_graph(arena, kf_module_find_func(m, KF_STR("fused")), KF_EVAL_IDEAL, NULL, &in, NULL,
                  &out, NULL);
    assert_true(out.data[0] == exp(x) - x);
    kf_arena_destroy(arena);
}

/* ---- whole modules --------------------------------------------------------------------------- */

/* A source that makes every tensor up from its name; dims as the test states them. */
typedef struct made_up {
    const char *name;
    uint8_t rank;
    int64_t dim[2];
} made_up;

static const made_up tensors[] = {
    {"model.embed_tokens.weight", 2, {32, 8}},
    {"model.layers.0.input_layernorm.weight", 1, {8}},
    {"model.layers.1.input_layernorm.weight", 1, {8}},
    {"model.layers.0.self_attn.q_proj.weight", 2, {16, 8}},
    {"model.layers.1.self_attn.q_proj.weight", 2, {16, 8}},
    {"model.layers.0.self_attn.k_proj.weight", 2, {8, 8}},
    {"model.layers.1.self_attn.k_proj.weight", 2, {8, 8}},
    {"model.layers.0.self_attn.v_proj.weight", 2, {8, 8}},
    {"model.layers.1.self_attn.v_proj.weight", 2, {8, 8}},
    {"model.layers.0.self_attn.o_proj.weight", 2, {8, 16}},
    {"model.layers.1.self_attn.o_proj.weight", 2, {8, 16}},
};

static bool find_made_up(const kf_tensor_source *self, kf_str name, kf_tensor_info *out)
{
    (void)self;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        if (!kf_str_eq_c(name, tensors[i].name))
            continue;
        *out = (kf_tensor_info){.name = name, .dtype = KF_DTYPE_bf16, .rank = tensors[i].rank};
        out->file = (uint32_t)i;
        memcpy(out->dim, tensors[i].dim, sizeof tensors[i].dim);
        return true;
    }
    return false;
}

static int read_made_up(const kf_tensor_source *self, const kf_tensor_info *info, uint64_t first,
                        uint64_t n, void *dst)
{
    (void)self;
    uint16_t *out = dst;
    uint64_t x = info->file * 7919 + 12345;
    for (uint64_t i = 0; i < first + n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
        float v = (float)(x >> 40) / (float)(1 << 24) - 0.5f;
        uint32_t word;
        memcpy(&word, &v, sizeof word);
        if (i >= first)
            out[i - first] = (uint16_t)(word >> 16);
    }
    return 0;
}

static const kf_tensor_source source = {find_made_up, read_made_up, NULL};

static void assert_rows_equal(const double *a, const double *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        assert_true(a[i] == b[i]);
}

/* Two sequences in ragged calls give the very logits of each alone in one call; truncation forgets.
 */
static void ragged_calls_equal_single_ones(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_module *m = parse(arena, "tiny.kir", read_source(arena, "tests/ir/tiny.kir"));
    static const int32_t a[] = {3, 14, 15, 9, 26, 5}, b[] = {8, 31, 7, 9};
    for (int mode = KF_EVAL_IDEAL; mode <= KF_EVAL_ROUNDED; mode++) {
        kf_eval *e = kf_eval_create(arena, m, (kf_eval_mode)mode, &source, 4);
        kf_sbuf why = {.arena = arena};
        kf_tensor whole_a, whole_b, step1, step2;
        kf_eval_step one = {1, (uint32_t[]){0}, (uint32_t[]){6}, (const int32_t *const[]){a}, NULL};
        if (!kf_eval_run(e, "main", &one, true, &whole_a, &why))
            fail_msg("%s", why.ptr);
        one =
            (kf_eval_step){1, (uint32_t[]){1}, (uint32_t[]){4}, (const int32_t *const[]){b}, NULL};
        assert_true(kf_eval_run(e, "main", &one, true, &whole_b, &why));
        kf_eval_step two = {2, (uint32_t[]){3, 2}, (uint32_t[]){3, 2},
                            (const int32_t *const[]){b, a}, NULL};
        assert_true(kf_eval_run(e, "main", &two, false, &step1, &why));
        two = (kf_eval_step){2, (uint32_t[]){2, 3}, (uint32_t[]){4, 1},
                             (const int32_t *const[]){a + 2, b + 3}, NULL};
        assert_true(kf_eval_run(e, "main", &two, false, &step2, &why));
        assert_int_equal(step1.n, 2 * 32);
        assert_rows_equal(step1.data, whole_b.data + 2 * 32, 32);
        assert_rows_equal(step1.data + 32, whole_a.data + 1 * 32, 32);
        assert_rows_equal(step2.data, whole_a.data + 5 * 32, 32);
        assert_rows_equal(step2.data + 32, whole_b.data + 3 * 32, 32);
        assert_true(whole_a.data[0] != whole_a.data[32]);
    }
    kf_arena_destroy(arena);
}

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    kf_arena *arena = kf_arena_create("test");
    kf_module *m = parse(arena, "tiny.kir", read_source(arena, "tests/ir/tiny.kir"));
    kf_eval *e = kf_eval_create(arena, m, KF_EVAL_IDEAL, &source, 2);
    kf_tensor out;
    static const int32_t ids[40] = {0}, bad[] = {32};
    kf_sbuf why = {.arena = arena};
    kf_eval_step step = {1, (uint32_t[]){0}, (uint32_t[]){33}, (const int32_t *const[]){ids}, NULL};
    assert_false(kf_eval_run(e, "main", &step, false, &out, &why));
    assert_string_equal(why.ptr, "N is 33, not in 1..32");
    why = (kf_sbuf){.arena = arena};
    step = (kf_eval_step){1, (uint32_t[]){0}, (uint32_t[]){1}, (const int32_t *const[]){bad}, NULL};
    assert_false(kf_eval_run(e, "main", &step, false, &out, &why));
    assert_string_equal(why.ptr, "gather: row 32 of a table of 32");
    why = (kf_sbuf){.arena = arena};
    assert_false(kf_eval_run(e, "main.nothing", &step, false, &out, &why));
    kf_arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_agrees_with_pytorch),
        cmocka_unit_test(rounds_to_nearest_even),
        cmocka_unit_test(rounds_where_values_are_stored),
        cmocka_unit_test(ragged_calls_equal_single_ones),
        cmocka_unit_test(refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
