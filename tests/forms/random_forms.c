/* SPDX-License-Identifier: Apache-2.0 */
/* random_forms - random small descriptions, each compiled fused and unfused and compared with the
 * evaluator.
 *
 * For each seed a description is written (every block word and switch has its chance), `kerf
 * verify` compares the forms (fused, unfused, thread counts, chunks, decode steps) with a random
 * checkpoint, and a batch of three prompts is compared with the same prompts one by one, by the
 * fused executable that verify leaves behind. With --count nothing is compiled: `kerf explain`
 * tells which passes fired and refused. The counters are printed.
 *
 *   random_forms [--count] FIRST COUNT [KEEP-DIR]
 *
 * descriptions FIRST .. FIRST + COUNT - 1; failing ones are kept.
 */
#include "tests/unit/support.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a description may contain. */
/* clang-format off */
#define SWITCHES(X)                                                                                \
    X(rms_norm) X(layer_norm) X(glu) X(mlp) X(parallel) X(gqa) X(qkv_bias) X(o_bias) X(qk_norm)    \
    X(rope) X(rope_fraction) X(rope_interleaved) X(rope_linear) X(rope_llama3)                     \
    X(window) X(sink) X(chunk) X(long_mask) X(softcap) X(alibi) X(tied) X(head_bias) X(inner_bias) X(act_expr)  \
    X(bf16) X(f16) X(kv_bf16) X(post_norm) X(two_attentions) X(no_repeat) X(odd_width)              \
    X(no_gain) X(gain_offset) X(bilinear) X(poly_norm) X(positions) X(embedding_norm)              \
    X(embedding_scale) X(logit_act) X(in_turn) X(packed) X(transposed)                                         \
    X(nested) X(depth_scale) X(batch_norm) X(lora) X(low_rank) X(spectral)
/* clang-format on */

enum {
#define ENUM(name) SW_##name,
    SWITCHES(ENUM)
#undef ENUM
        N_SWITCHES
};

static const char *const switch_names[N_SWITCHES] = {
#define NAME(name) #name,
    SWITCHES(NAME)
#undef NAME
};

/* Fusing passes whose decisions are counted. */
static const char *const pass_names[] = {"merge_weights",   "fold_weights",  "fuse_attention",
                                         "fuse_norm",       "carry_stats",   "fuse_gated",
                                         "fuse_horizontal", "fuse_epilogue", "fuse_rows"};
#define N_PASSES (sizeof pass_names / sizeof pass_names[0])

typedef struct counters {
    uint32_t on[N_SWITCHES];
    uint32_t fired[N_PASSES], refused[N_PASSES];
    uint32_t specs, failed;
} counters;

/* ---- writing a description ------------------------------------------------------------------- */

typedef struct gen {
    uint64_t state;
    FILE *out;
    bool on[N_SWITCHES];
    int hidden, heads, kv_heads, head_dim;
    bool layer_norm; /* one kind of norm a description: default checkpoint names do not tell kinds
                        apart */
    bool packed, transposed; /* how the first attention of each named layer is stored */
    bool in_block;           /* what is written is repeated */
    int n_layers, groups[2]; /* of named layers; their key-value heads */
} gen;

static uint32_t pick(gen *g, uint32_t n)
{
    return (uint32_t)(random_u64(&g->state) % n);
}

/* True in |percent| of the cases; counts as switch |sw|. */
static bool flip(gen *g, int sw, uint32_t percent)
{
    bool yes = pick(g, 100) < percent;

    g->on[sw] |= yes;
    return yes;
}

static void line(gen *g, int indent, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void line(gen *g, int indent, const char *fmt, ...)
{
    va_list ap;

    fprintf(g->out, "%*s", indent, "");
    va_start(ap, fmt);
    vfprintf(g->out, fmt, ap);
    va_end(ap);
    fputc('\n', g->out);
}

static void write_norm(gen *g, int indent)
{
    static const char *const eps[] = {"1e-5", "1e-6", "1e-3", "0.1"};

    const char *gain = flip(g, SW_no_gain, 8)       ? ", gain: false"
                       : flip(g, SW_gain_offset, 8) ? ", gain_offset: 1"
                                                    : "";

    const char *scale = g->in_block && flip(g, SW_depth_scale, 15) ? ", scale: inv_sqrt_depth" : "";

    if (flip(g, SW_batch_norm, 8)) {
        line(g, indent, "- batch_norm: {eps: 1e-3, residual: %s}", pick(g, 2) ? "true" : "false");
        return;
    }
    if (g->layer_norm) {
        line(g, indent, "- layer_norm: {eps: %s, bias: %s%s%s}", eps[pick(g, 4)],
             pick(g, 2) ? "true" : "false", gain, scale);
        return;
    }
    g->on[SW_rms_norm] = true;
    line(g, indent, "- rms_norm: {eps: %s%s%s}", eps[pick(g, 4)], gain, scale);
}

static void write_rope(gen *g, int indent)
{
    if (!flip(g, SW_rope, 75))
        return;
    line(g, indent, "rope:");
    line(g, indent + 2, "theta: %d", pick(g, 2) ? 10000 : 500);
    if (g->head_dim % 4 == 0 && flip(g, SW_rope_fraction, 30))
        line(g, indent + 2, "fraction: 0.5");
    if (flip(g, SW_rope_interleaved, 30))
        line(g, indent + 2, "style: interleaved");
    if (flip(g, SW_rope_linear, 20))
        line(g, indent + 2, "scaling: {type: linear, factor: 4}");
    else if (flip(g, SW_rope_llama3, 30))
        line(g, indent + 2,
             "scaling: {type: llama3, factor: 8, low_freq_factor: 1, high_freq_factor: 4, "
             "original_max_position_embeddings: 16}");
}

static void write_mask_and_score(gen *g, int indent)
{
    char mask[512] = "causal", score[128] = "";

    if (flip(g, SW_window, 35)) {
        bool sink = flip(g, SW_sink, 50);
        snprintf(mask, sizeof mask,
                 sink ? "causal & (window(%u) | sink(2))" : "causal & window(%u)", 3 + pick(g, 8));
    } else if (flip(g, SW_chunk, 30))
        snprintf(mask, sizeof mask, "chunk(%u) & causal", 4 + pick(g, 8));
    if (flip(g, SW_long_mask, 12)) /* more conjuncts than fuse_attention takes apart */
        for (int i = 0; i < 16; i++)
            snprintf(mask + strlen(mask), sizeof mask - strlen(mask), " & window(%d)", 20 + i);
    if (strcmp(mask, "causal"))
        line(g, indent, "mask: \"%s\"", mask);
    bool cap = flip(g, SW_softcap, 20), alibi = flip(g, SW_alibi, 20);
    if (cap || alibi)
        snprintf(score, sizeof score, "%s%s", cap ? "softcap(score, 5)" : "score",
                 alibi ? " + alibi(h, q, k)" : "");
    if (*score)
        line(g, indent, "score: \"%s\"", score);
}

static void write_attention(gen *g, int indent)
{
    static const int dims[] = {4, 8, 12, 16, 20, 32};

    g->kv_heads = 1 + (int)pick(g, 3);
    if (g->n_layers && !g->groups[g->n_layers - 1])
        g->groups[g->n_layers - 1] = g->kv_heads;
    g->heads = g->kv_heads * (1 + (int)pick(g, 3));
    g->on[SW_gqa] |= g->heads != g->kv_heads;
    g->head_dim = dims[pick(g, 6)];
    line(g, indent, "- attention:");
    indent += 4;
    line(g, indent, "num_attention_heads: %d", g->heads);
    line(g, indent, "num_key_value_heads: %d", g->kv_heads);
    line(g, indent, "head_dim: %d", g->head_dim);
    if (flip(g, SW_qkv_bias, 30))
        line(g, indent, "qkv_bias: true");
    if (flip(g, SW_o_bias, 25))
        line(g, indent, "o_bias: true");
    if (flip(g, SW_qk_norm, 25))
        line(g, indent, "qk_norm: rms");
    write_rope(g, indent);
    write_mask_and_score(g, indent);
}

static void write_ffn(gen *g, int indent)
{
    static const char *const acts[] = {"silu",  "gelu", "gelu_tanh", "relu",
                                       "relu2", "tanh", "sigmoid",   "gelu_quick"};
    const char *act =
        flip(g, SW_act_expr, 20) ? "\"x * sigmoid(1.5 * x) + 0.1 * tanh(x)\"" : acts[pick(g, 8)];
    bool bias = flip(g, SW_inner_bias, 25);
    int inner = 8 * (1 + (int)pick(g, 12)) + (flip(g, SW_odd_width, 30) ? 2 : 0);

    char nested[32] = "";

    if (flip(g, SW_nested, 15))
        snprintf(nested, sizeof nested, ", nested: %d", inner - 4);
    if (flip(g, SW_poly_norm, 15)) {
        line(g, indent, "- linear: {out: %d, bias: %s}", inner, bias ? "true" : "false");
        line(g, indent, "- poly_norm: {order: %u}", 1 + pick(g, 4));
        line(g, indent, "- linear: {out: %d}", g->hidden);
        return;
    }
    if (flip(g, SW_mlp, 30)) {
        line(g, indent, "- mlp: {act: %s, intermediate_size: %d, bias: %s%s}", act, inner,
             bias ? "true" : "false", nested);
        return;
    }
    g->on[SW_glu] = true;
    if (flip(g, SW_bilinear, 20))
        act = "none";
    line(g, indent, "- glu: {act: %s, intermediate_size: %d, bias: %s%s}", act, inner,
         bias ? "true" : "false", nested);
}

static void write_branch(gen *g, int indent, bool attention)
{
    write_norm(g, indent);
    if (attention)
        write_attention(g, indent);
    else
        write_ffn(g, indent);
    if (flip(g, SW_post_norm, 20))
        write_norm(g, indent);
}

static void write_layer(gen *g, int indent)
{
    if (flip(g, SW_parallel, 20)) {
        line(g, indent, "- residual:");
        line(g, indent + 4, "- parallel:");
        line(g, indent + 8, "-");
        write_branch(g, indent + 10, true);
        line(g, indent + 8, "-");
        write_branch(g, indent + 10, false);
        return;
    }
    uint32_t attentions = flip(g, SW_two_attentions, 20) ? 2 : 1;
    for (uint32_t i = 0; i < attentions; i++) {
        line(g, indent, "- residual:");
        write_branch(g, indent + 4, true);
    }
    line(g, indent, "- residual:");
    write_branch(g, indent + 4, false);
}

static const char *const layer_names[] = {"layer", "other"};

/* q, k and v of each layer as parts of one tensor. */
static void write_names(gen *g)
{
    static const char roles[] = {'q', 'k', 'v'};

    if (g->packed || g->transposed)
        line(g, 0, "weight_names:");
    for (int i = 0; i < g->n_layers; i++)
        for (int r = 0; r < 3 && g->packed; r++)
            line(g, 2, "%s.attention.%c: {tensor: qkv, packed: [v, q, k], groups: %d%s}",
                 layer_names[i], roles[r], g->groups[i], g->transposed ? ", transposed: true" : "");
    for (int i = 0; i < g->n_layers && g->transposed; i++)
        line(g, 2, "%s.attention.o: {tensor: out, transposed: true}", layer_names[i]);
}

/* Matrices in parts; a tensor of several parameters has none. */
static void write_forms(gen *g)
{
    if (g->packed || g->transposed)
        return;
    if (flip(g, SW_lora, 25))
        line(g, 0, "adapters: {lora: {rank: %u, alpha: 6, targets: [q, v]}}", 1 + pick(g, 6));
    bool low = flip(g, SW_low_rank, 20), spectral = flip(g, SW_spectral, 20);
    if (low || spectral)
        line(g, 0, "weight_forms:");
    if (low)
        line(g, 2, "low_rank: {rank: %u, targets: [o]}", 1 + pick(g, 40));
    if (spectral)
        line(g, 2, "spectral: {targets: [k, q]}");
}

static void write_start(gen *g)
{
    line(g, 0, "model:\n  - embedding: {scale: %s}", flip(g, SW_embedding_scale, 15) ? "4.5" : "1");
    if (flip(g, SW_positions, 20))
        line(g, 2, "- position_embedding: {offset: %u}", 2 * pick(g, 2));
    if (flip(g, SW_embedding_norm, 15))
        write_norm(g, 2);
}

/* Layers by name, repeated, or with one block written in the model itself. */
static void write_layers(gen *g)
{
    bool in_turn = flip(g, SW_in_turn, 20);

    g->packed = flip(g, SW_packed, 20);
    g->transposed = flip(g, SW_transposed, 20);
    line(g, 0, "blocks:");
    g->in_block = true;
    while (g->n_layers < 1 + in_turn) {
        line(g, 2, "%s:", layer_names[g->n_layers++]);
        write_layer(g, 4);
    }
    g->in_block = false;
    write_start(g);
    if (in_turn)
        line(g, 2, "- repeat: {times: %u, block: [layer, other], weights: \"model.layers.{i}\"}",
             2 + 2 * pick(g, 2));
    else
        line(g, 2, "- repeat: {times: %u, block: layer, weights: \"model.layers.{i}\"}",
             1 + pick(g, 3));
}

static void write_spec(gen *g, uint64_t seed)
{
    bool tied = flip(g, SW_tied, 35), no_repeat = flip(g, SW_no_repeat, 18);

    g->layer_norm = flip(g, SW_layer_norm, 25);
    g->hidden = 8 * (2 + (int)pick(g, 14));
    line(
        g, 0,
        "spec: 1\nname: random-%llu\nvocab_size: %u\nhidden_size: %d\nmax_position_embeddings: 128",
        (unsigned long long)seed, 40 + pick(g, 90), g->hidden);
    const char *dtype = flip(g, SW_bf16, 40)  ? "bfloat16"
                        : flip(g, SW_f16, 30) ? "float16"
                                              : "float32";
    line(g, 0, "dtype: %s\nbuild:\n  max_sequences: 3\n  max_tokens: 32", dtype);
    if (flip(g, SW_kv_bf16, 20))
        line(g, 2, "dtypes: {kv: bfloat16}");
    if (no_repeat) {
        write_start(g);
        write_layer(g, 2);
    } else
        write_layers(g);
    write_norm(g, 2);
    line(g, 2, "- linear: {out: vocab_size%s%s%s}", tied ? ", tied: embedding" : "",
         flip(g, SW_head_bias, 25) ? ", bias: true" : "",
         flip(g, SW_logit_act, 15) ? ", act: \"softcap(0.5 * x, 3)\"" : "");
    write_names(g);
    write_forms(g);
}

enum { N_PROMPTS = 3, N_IDS = 512 };

/* ---- running --------------------------------------------------------------------------------- */

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *fmt, ...)
{
    char command[4096];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 22);

    if (f && text)
        text[fread(text, 1, (1 << 22) - 1, f)] = 0;
    if (f)
        fclose(f);
    return text;
}

/* Counts a pass once per description, fired and refused. */
static void count_passes(const char *dir, counters *c)
{
    char path[1024], fired[128];

    snprintf(path, sizeof path, "%s/explain.json", dir);
    char *text = slurp(path);
    for (size_t p = 0; text && p < N_PASSES; p++) {
        bool any_fired = false, any_refused = false;
        snprintf(fired, sizeof fired, "\"pass\": \"%s\"", pass_names[p]);
        for (char *at = text; (at = strstr(at, fired)); at++) {
            char *status = strstr(at, "\"status\": \"");
            any_fired |= status && !strncmp(status + 11, "fused", 5);
            any_refused |= status && !strncmp(status + 11, "refused", 7);
        }
        c->fired[p] += any_fired;
        c->refused[p] += any_refused;
    }
    free(text);
}

/* Runs |fmt| and takes the ids that each line of JSON on its output gives, by its index; the number
 * of lines. */
static int read_ids(char (*ids)[N_IDS], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int read_ids(char (*ids)[N_IDS], const char *fmt, ...)
{
    char command[4096], text[4096];
    int lines = 0;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    FILE *f = popen(command, "r");
    for (; f && fgets(text, sizeof text, f); lines++) {
        const char *index = strstr(text, "\"index\": "), *list = strstr(text, "\"ids\": [");
        unsigned long at = index ? strtoul(index + 9, NULL, 10) : 0;
        if (list && at < N_PROMPTS)
            snprintf(ids[at], N_IDS, "%.*s", (int)strcspn(list, "]"), list);
    }
    return f && pclose(f) == 0 ? lines : -1;
}

/* Three prompts in one batch give the ids that each gives alone; what the model chooses is the best of
 * all its logits, which top-k looks for. */
static bool batch_agrees(const char *dir)
{
    static const char *const prompts[N_PROMPTS] = {"1,2,3,4,5", "7", "9,8,7,6,5,4,3,2,1,0,11"};
    char path[1024], batch[N_PROMPTS][N_IDS] = {""}, alone[N_PROMPTS][N_IDS] = {""};
    char best[N_PROMPTS][N_IDS] = {""};

    snprintf(path, sizeof path, "%s/batch.jsonl", dir);
    FILE *f = fopen(path, "w");
    if (!f)
        return false;
    for (int i = 0; i < N_PROMPTS; i++)
        fprintf(f, "{\"ids\": [%s], \"n\": 6}\n", prompts[i]);
    fclose(f);
    bool ok = read_ids(batch, "exec %s/fused run --jsonl %s --temp 0 --ignore-eos -q 2>/dev/null",
                       dir, path) == N_PROMPTS &&
              read_ids(best,
                       "exec %s/fused run --jsonl %s --temp 1 --top-k 1 --ignore-eos -q "
                       "2>/dev/null",
                       dir, path) == N_PROMPTS;
    for (int i = 0; ok && i < N_PROMPTS; i++) {
        ok = read_ids(alone + i,
                      "exec %s/fused run --ids %s -n 6 --temp 0 --ignore-eos --json 2>/dev/null",
                      dir, prompts[i]) == 1 &&
             *alone[i] && !strcmp(batch[i], alone[i]) && !strcmp(batch[i], best[i]);
        if (!ok)
            printf("prompt %d: in a batch %s, alone %s, best %s\n", i, batch[i], alone[i], best[i]);
    }
    return ok;
}

/* Writes the description and counts its switches. */
static bool generate(uint64_t seed, const char *path, counters *c)
{
    uint64_t mixed = seed * 0xd1342543de82ef95u; /* neighbours must not share a shifted sequence */
    gen g = {.state = random_u64(&mixed)};

    g.out = fopen(path, "w");
    if (!g.out)
        return false;
    write_spec(&g, seed);
    fclose(g.out);
    for (int i = 0; i < N_SWITCHES; i++)
        c->on[i] += g.on[i];
    c->specs++;
    return true;
}

static bool one(uint64_t seed, const char *dir, counters *c, bool only_count)
{
    char path[1024];
    unsigned long long weights_seed = (unsigned long long)seed + 1;

    snprintf(path, sizeof path, "%s/spec.yaml", dir);
    if (!generate(seed, path, c))
        return false;
    if (only_count) {
        bool ok = run("kerf explain %s --json > %s/explain.json", path, dir) == 0;
        count_passes(dir, c);
        return ok;
    }
    /* -j 1: other shards run beside this one. */
    return run("kerf weights random %s -o %s/hf --seed %llu 2> %s/verify.txt", path, dir,
               weights_seed, dir) == 0 &&
           run("kerf verify %s --weights %s/hf -o %s --seed %llu --tokens 18 -j 1 > %s/verify.txt "
               "2>&1",
               path, dir, dir, weights_seed, dir) == 0 &&
           batch_agrees(dir);
}

/* Every switch on in a tenth of the descriptions; every pass fires in a twentieth, and refuses in a
 * twentieth where a description can make it refuse (the others have their refusals in
 * tests/passes). */
static bool shares_hold(const counters *c)
{
    static const bool can_refuse[N_PASSES] = {true, true,  false, true, false,
                                              true, false, true,  false};
    bool ok = true;

    for (int i = 0; i < N_SWITCHES; i++)
        ok &= c->on[i] * 10 >= c->specs;
    for (size_t p = 0; p < N_PASSES; p++)
        ok &= c->fired[p] * 20 >= c->specs && (!can_refuse[p] || c->refused[p] * 20 >= c->specs);
    return ok;
}

static void report(const counters *c, bool only_count)
{
    printf("%u descriptions, %u failed\n", c->specs, c->failed);
    for (int i = 0; i < N_SWITCHES; i++)
        printf("  %-18s %5.1f %%\n", switch_names[i], 100.0 * c->on[i] / c->specs);
    for (size_t p = 0; only_count && p < N_PASSES; p++)
        printf("  %-18s fired in %5.1f %%, refused in %5.1f %%\n", pass_names[p],
               100.0 * c->fired[p] / c->specs, 100.0 * c->refused[p] / c->specs);
}

int main(int argc, char **argv)
{
    counters c = {0};
    char dir[] = "/tmp/kerf-forms-XXXXXX";
    bool only_count = argc > 1 && !strcmp(argv[1], "--count");

    argc -= only_count;
    argv += only_count;
    if (argc < 3)
        return fprintf(stderr, "usage: random_forms [--count] FIRST COUNT [KEEP-DIR]\n"), 2;
    uint64_t first = strtoull(argv[1], NULL, 10);
    uint32_t count = (uint32_t)strtoull(argv[2], NULL, 10);
    count = only_count ? count : scaled(count);
    if (!mkdtemp(dir))
        return perror(dir), 1;
    for (uint32_t i = 0; i < count; i++) {
        if (one(first + i, dir, &c, only_count))
            continue;
        c.failed++;
        printf("FAILED: description %llu\n", (unsigned long long)(first + i));
        fflush(stdout);
        run("cat %s/spec.yaml %s/verify.txt", dir, dir);
        if (argc > 3)
            run("mkdir -p %s && cp %s/spec.yaml %s/forms-%llu.yaml", argv[3], dir, argv[3],
                (unsigned long long)(first + i));
    }
    run("rm -rf %s", dir);
    report(&c, only_count);
    return c.failed != 0 || (only_count && !shares_hold(&c));
}
