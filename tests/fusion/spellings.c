/* SPDX-License-Identifier: Apache-2.0 */
/* spellings - each block of rows.def in many machine-made spellings fuses alike, and what only
 * resembles it is refused with its reason.
 *
 *   spellings FOLDER FILE...     blocks; KF_TEST_SEED repeats a mixture
 *
 * The description at a small size is built, rewritten (scramble.h: each rewrite alone, then
 * mixtures of all), and compared with the plain module: the same values in f64, the same launches
 * in the same order, of kernels with the same products, reductions and stores.
 */
#include "codegen/target_cpu.h"
#include "frontend/build_graph.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "tests/fusion/near_miss.h"
#include "tests/fusion/scramble.h"
#include "tests/graphs/forms.h"
#include "tests/unit/support.h"

#include <stdio.h>
#include <string.h>

enum { MIXTURES = 8 };

static const struct {
    const char *file, *small;
} blocks[] = {
#define ROW(label, file, layers, phase, most, small) {file, small},
#include "tests/fusion/rows.def"
#undef ROW
};
#define N_BLOCKS (sizeof blocks / sizeof blocks[0])

/** What fusing made of a module, one line a kernel. */
typedef struct result {
    kf_arena *arena;
    kf_str kernels, canonical;
    uint32_t launches;
} result;

/* ---- building -------------------------------------------------------------------------------- */

static uint32_t overrides(const char *text, kf_override *out)
{
    uint32_t n = 0;

    for (const char *s = text; *s;) {
        size_t len = strcspn(s, ",");
        const char *eq = memchr(s, '=', len);
        out[n++] = (kf_override){{s, (uint32_t)(eq - s)}, {eq + 1, (uint32_t)(s + len - eq - 1)}};
        s += len + (s[len] == ',');
    }
    return n;
}

static kf_module *build(kf_arena *a, const char *folder, size_t block)
{
    kf_diags *d = kf_diags_create(a);
    kf_override set[24];
    bool other = strstr(blocks[block].small, ".yaml") != NULL;
    kf_str path = other ? kf_strf(a, "%s/%s", folder, blocks[block].small)
                        : kf_strf(a, "%s/%s.yaml", folder, blocks[block].file);
    uint32_t n = other ? 0 : overrides(blocks[block].small, set);
    kf_spec *spec = kf_spec_load(a, d, path.ptr, set, n);
    kf_module *m = spec ? kf_build_graph(a, d, spec, NULL) : NULL;

    if (!m)
        kf_diags_print(d, stdout, false);
    return m;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* How often each op that is neither a view nor a scalar function occurs in a kernel. A scale may
 * stand before or behind the slices of a joined product, a residual with one branch or the other.
 */
static void list_ops(const kf_graph *body, kf_sbuf *out)
{
    uint32_t n[KF_OP_COUNT] = {0};

    for (uint32_t i = 0; i < body->nodes.len; i++)
        n[body->nodes.data[i].op]++;
    for (int op = 0; op < KF_OP_COUNT; op++)
        if (n[op] && !(kf_op_infos[op].traits & (KF_INDEX | KF_LEAF | KF_EW)))
            kf_sbuf_printf(out, " %s %u", kf_op_infos[op].name, n[op]);
}

/* Family and ops of each launch's kernel. */
static void list_kernels(const kf_plan *p, kf_sbuf *out)
{
    for (uint32_t f = 0; f < p->phases.len; f++)
        for (uint32_t l = 0; l < p->phases.data[f].launches.len; l++) {
            const kf_kernel *k = &p->kernels.data[p->phases.data[f].launches.data[l].kernel];
            kf_sbuf_printf(out, "%.*s %s:", KF_STR_ARG(p->phases.data[f].name),
                           kf_family_names[k->family]);
            list_ops(k->body, out);
            kf_sbuf_c(out, "\n");
        }
}

/* |m| behind the pipeline, checked after every pass. */
static fused run_pipeline(const kf_module *m)
{
    kf_arena *a = kf_arena_create("texts");
    counters ignored = {0};
    texts t = {.arena = a, .c = &ignored};
    fused f = fused_run(m, &(fused_how){.texts = &t});

    kf_arena_destroy(a);
    return f;
}

static result fuse(const kf_module *m)
{
    fused f = run_pipeline(m);
    result r = {.arena = kf_arena_create("result")};
    const kf_plan *p = kf_schedule(f.m, f.cx.target, f.arena);
    kf_sbuf kernels = {.arena = r.arena}, text = {.arena = r.arena};

    list_kernels(p, &kernels);
    kf_module_print(f.m, KF_PRINT_CANONICAL, &text);
    r.kernels = kf_sbuf_view(&kernels);
    r.canonical = kf_sbuf_view(&text);
    for (uint32_t i = 0; i < p->phases.len; i++)
        r.launches += p->phases.data[i].launches.len;
    fused_drop(&f);
    return r;
}

static const char *word(uint32_t which)
{
    return which < n_rewrites ? rewrites[which].name : "a mixture";
}

static bool check(const kf_module *m, const result *plain, uint32_t which, uint64_t seed,
                  const char *file, uint32_t *out_applied, uint32_t *out_same)
{
    kf_arena *a = kf_arena_create("spelling");
    kf_sbuf why = {.arena = a};
    kf_module *s = scramble(a, m, which, which < n_rewrites ? 60 : 35, seed, out_applied);
    bool ok = kf_module_verify(s, KF_VERIFY_GRAPH, &why) && forms_same(m, s, seed, &why);

    if (!ok) {
        printf("%s: %s, seed %llu: %.*s\n", file, word(which), (unsigned long long)seed,
               KF_STR_ARG(kf_sbuf_view(&why)));
    } else {
        result r = fuse(s);
        ok = r.launches == plain->launches && kf_str_eq(r.kernels, plain->kernels);
        *out_same += kf_str_eq(r.canonical, plain->canonical);
        if (!ok)
            printf("%s: %s, seed %llu: %u launches, not %u\n%.*s\nnot\n%.*s\n", file, word(which),
                   (unsigned long long)seed, r.launches, plain->launches, KF_STR_ARG(r.kernels),
                   KF_STR_ARG(plain->kernels));
        kf_arena_destroy(r.arena);
    }
    kf_arena_destroy(a);
    return ok;
}

/* ---- near misses ----------------------------------------------------------------------------- */

/* The pass refuses with the reason, and what it makes of the rest computes the same. */
static bool check_near_miss(const kf_module *m, const near_miss *miss, const char *file,
                            uint32_t *out_applied)
{
    kf_arena *a = kf_arena_create("near miss");
    kf_sbuf why = {.arena = a};
    kf_module *s = near_miss_make(a, m, miss);
    bool ok = true;

    if (s && kf_module_verify(s, KF_VERIFY_GRAPH, &why)) {
        fused f = run_pipeline(s);
        bool refused = false;
        for (uint32_t i = 0; i < f.cx.candidates.len; i++) {
            const kf_candidate *c = &f.cx.candidates.data[i];
            refused |= c->pass == miss->pass && c->reason == miss->reason;
            if (c->pass == miss->pass && c->reason && c->reason != miss->reason)
                kf_sbuf_printf(&why, " %s", kf_reason_codes[c->reason]);
        }
        if (!refused)
            printf("%s: %s is not refused with %s by %s; but:%.*s\n", file, miss->name,
                   kf_reason_codes[miss->reason], kf_pass_infos[miss->pass].name,
                   KF_STR_ARG(kf_sbuf_view(&why)));
        ok = refused;
        if (!forms_same(s, f.m, 1, &why))
            ok = printf("%s: %s: %.*s\n", file, miss->name, KF_STR_ARG(kf_sbuf_view(&why))) < 0;
        fused_drop(&f);
        ++*out_applied;
    } else if (s) {
        ok = printf("%s: %s: %.*s\n", file, miss->name, KF_STR_ARG(kf_sbuf_view(&why))) < 0;
    }
    kf_arena_destroy(a);
    return ok;
}

static bool check_block(const char *folder, size_t block)
{
    kf_arena *a = kf_arena_create("block");
    kf_module *m = build(a, folder, block);
    uint32_t spellings = 0, same = 0, failed = 0, misses = 0;

    if (!m)
        return false;
    result plain = fuse(m);
    for (uint32_t i = 0; i < n_rewrites + MIXTURES; i++) {
        uint32_t applied = 0, which = i < n_rewrites ? i : n_rewrites;
        bool ok = check(m, &plain, which, test_seed(1) + i, blocks[block].file, &applied, &same);
        spellings += applied > 0;
        failed += !ok;
    }
    for (uint32_t i = 0; i < n_near_misses; i++)
        failed += !check_near_miss(m, &near_misses[i], blocks[block].file, &misses);
    printf("%s: %u launches, %u spellings, %u with the same text, %u near misses, %u failed\n",
           blocks[block].file, plain.launches, spellings, same, misses, failed);
    kf_arena_destroy(plain.arena);
    kf_arena_destroy(a);
    return !failed && spellings >= 8 && misses >= 3;
}

int main(int argc, char **argv)
{
    bool ok = true;

    if (argc < 2)
        return fprintf(stderr, "usage: spellings FOLDER [FILE...]\n"), 2;
    for (size_t b = 0; b < N_BLOCKS; b++) {
        bool wanted = argc == 2;
        for (int i = 2; i < argc; i++)
            wanted |= !strcmp(argv[i], blocks[b].file);
        if (wanted)
            ok &= check_block(argv[1], b);
    }
    return !ok;
}
