/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_compile - description -> executable, library, or the text of a stage.
 *
 * Kernels are made by child processes while this one packs weights. Everything is made in a scratch
 * folder beside the output and renamed at the end, so that whatever happens the old output or the
 * new one is there.
 */
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "codegen/host_c.h"
#include "codegen/llvm_backend.h"
#include "codegen/pack.h"
#include "driver/kernels.h"
#include "driver/link.h"
#include "driver/load.h"
#include "driver/probe.h"
#include "driver/verbs.h"
#include "frontend/tokenizer_json.h"
#include "ir/text.h"
#include "runtime/kf_artifact.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EMBED_BELOW_BYTES (64 << 20)

/** One compilation of an executable or a library. */
typedef struct job {
    kf_compilation *c;
    const char *output;
    bool library;
    char dir[4096]; /* scratch folder; empty: none */
    kf_kernel_objects kernels;
    kf_str host_c;
    uint64_t digest; /* of the packed file; 0: none */
    bool has_weights, embedded;
    double started, last;
} job;

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- progress and figures -------------------------------------------------------------------- */

/* One plain line per stage, or in place on a terminal; nothing with -q. */
static void report_progress(const kf_compilation *c, const char *stage, double fraction)
{
    static double last_s;
    double now = now_s();

    if (c->opt->quiet || c->opt->json || !isatty(2) || now - last_s < 0.1)
        return;
    last_s = now;
    fprintf(stderr, "\r%-24s %3.0f%%", stage, fraction * 100);
}

static void progress_end(const kf_compilation *c)
{
    if (!c->opt->quiet && !c->opt->json && isatty(2))
        fprintf(stderr, "\r%32s\r", "");
}

static void figure(job *j, const char *stage)
{
    double now = now_s();

    if (j->c->opt->verbose)
        fprintf(stderr, "%-16s %8.1f ms\n", stage, (now - j->last) * 1e3);
    j->last = now;
}

static long max_rss_kib(int who)
{
    struct rusage u;

    return getrusage(who, &u) ? 0 : u.ru_maxrss;
}

static uint64_t file_bytes(const char *path)
{
    struct stat st;

    return stat(path, &st) ? 0 : (uint64_t)st.st_size;
}

static void final_figures(job *j)
{
    if (!j->c->opt->verbose)
        return;
    uint64_t kernels = 0;
    for (uint32_t i = 0; i < j->c->plan->kernels.len; i++)
        kernels += file_bytes(kf_kernels_path(j->c->scratch, &j->kernels, i).ptr);
    fprintf(stderr, "%-16s %8.1f ms\n", "total", (now_s() - j->started) * 1e3);
    fprintf(stderr, "peak memory      %8.1f MiB, in children %.1f MiB\n",
            (double)max_rss_kib(RUSAGE_SELF) / 1024, (double)max_rss_kib(RUSAGE_CHILDREN) / 1024);
    fprintf(stderr, "kernels          %u (%u from the cache), %" PRIu64 " bytes\n",
            j->c->plan->kernels.len, j->c->plan->kernels.len - j->kernels.n_missing, kernels);
    fprintf(stderr, "executable       %" PRIu64 " bytes\n", file_bytes(j->output));
}

/* ---- scratch folder -------------------------------------------------------------------------- */

static bool make_dir(job *j)
{
    kf_str parent = kf_fs_dirname(j->c->arena, kf_str_from(j->output));

    snprintf(j->dir, sizeof j->dir, "%.*s/.kerf-XXXXXX", KF_STR_ARG(parent));
    if (mkdtemp(j->dir))
        return true;
    kf_diag_add(j->c->diags, KF_E0603, KF_NO_LOC, "cannot write to %.*s: %s", KF_STR_ARG(parent),
                strerror(errno));
    j->dir[0] = 0;
    return false;
}

static void remove_dir(job *j)
{
    DIR *d = j->dir[0] ? opendir(j->dir) : NULL;

    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || e->d_name[1] == '.'))
            continue;
        unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
    if (j->dir[0])
        rmdir(j->dir);
}

/* ---- weights --------------------------------------------------------------------------------- */

static void pack_progress(void *user, uint64_t done, uint64_t total)
{
    report_progress(((job *)user)->c, "packing weights", (double)done / (double)total);
}

static void report_pack_error(job *j, int err, kf_str tensor)
{
    if (!tensor.len)
        kf_diag_add(j->c->diags, KF_E0603, KF_NO_LOC, "packed weights: %s", strerror(err));
    else if (err == ENOENT)
        kf_diag_add(j->c->diags, KF_E0305, KF_NO_LOC, "no tensor '%.*s'", KF_STR_ARG(tensor));
    else if (err == ERANGE)
        kf_diag_add(j->c->diags, KF_E0309, KF_NO_LOC,
                    "tensor '%.*s': a number is too large for the type that it is stored in",
                    KF_STR_ARG(tensor));
    else
        kf_diag_add(j->c->diags, KF_E0303, KF_NO_LOC, "tensor '%.*s': %s", KF_STR_ARG(tensor),
                    strerror(err));
}

static bool tokenizer_section(job *j, kf_pack_section *out, uint32_t *n)
{
    kf_str path = j->c->spec->tokenizer.v;
    const void *table;
    uint64_t size;

    if (!path.len || !kf_fs_exists(kf_str_dup(j->c->arena, path).ptr))
        return true; /* a model without text: --ids works */
    if (!kf_tokenizer_compile_file(j->c->arena, j->c->diags, kf_str_dup(j->c->arena, path).ptr,
                                   &table, &size))
        return false;
    out[(*n)++] = (kf_pack_section){"tokenizer", KF_SECTION_TOKENIZER, {table, (uint32_t)size}};
    return true;
}

static kf_probe_model probe_model(const kf_spec *spec)
{
    int64_t tokens = spec->build.max_tokens.v, positions = spec->build.max_positions.v;
    bool encoder = spec->kind == KF_MODEL_ENCODER;
    bool whole = spec->kind != KF_MODEL_DECODER;

    return (kf_probe_model){.vocab = spec->vocab_size.v,
                            .width = kf_spec_row_width(spec),
                            .max_tokens = whole && tokens < positions ? tokens : positions,
                            .encoder = encoder};
}

/* Whether |f| goes into the executable. Known before it is closed: only a file that stays beside it
 * has to be durable. */
static bool embeds(const job *j, const kf_outfile *f)
{
    const kf_options *o = j->c->opt;

    return !o->no_embed && (o->embed || j->library || file_bytes(f->tmp_path) < EMBED_BELOW_BYTES);
}

/* Writes |dir|/out.kfw. */
static bool pack(job *j)
{
    const kf_spec *spec = j->c->spec;
    kf_probe_model model = probe_model(spec);
    kf_str probe = kf_probe_section(j->c->arena, &model);
    kf_pack_section sections[2] = {{"probe", KF_SECTION_PROBE, probe}};
    uint32_t n = 1;
    kf_outfile f = {0};
    kf_str tensor = {0}, path = kf_strf(j->c->arena, "%s/out.kfw", j->dir);
    kf_arena *arena = kf_arena_create("pack");

    if (!tokenizer_section(j, sections, &n)) {
        kf_arena_destroy(arena);
        return false;
    }
    int err = kf_outfile_open(&f, path.ptr, 0644);
    if (!err)
        err = kf_pack_write(arena, j->c->plan, kf_compilation_weights(j->c), sections, n, &f,
                            pack_progress, j, &j->digest, &tensor);
    j->embedded = !err && embeds(j, &f);
    if (!err)
        err = j->embedded ? kf_outfile_commit_scratch(&f) : kf_outfile_commit(&f);
    progress_end(j->c);
    if (err)
        report_pack_error(j, err, tensor);
    kf_outfile_abandon(&f);
    kf_arena_destroy(arena);
    return err == 0;
}

/* ---- host C ---------------------------------------------------------------------------------- */

static kf_str base_name(kf_str path)
{
    for (uint32_t i = path.len; i > 0; i--)
        if (path.ptr[i - 1] == '/')
            return (kf_str){path.ptr + i, path.len - i};
    return path;
}

static kf_str manifest(job *j)
{
    const kf_compilation *c = j->c;
    kf_sbuf text = {.arena = c->arena};
    kf_json w = {.out = &text};
    kf_str spec_hash = kf_hash_hex(c->scratch, kf_hash_bytes(c->spec->text.ptr, c->spec->text.len));

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "model", c->spec->name.v);
    kf_json_kstr(&w, "compiler", KF_STR("kerf " KF_VERSION));
    kf_json_kstr(&w, "llvm", kf_str_from(kf_llvm_version()));
    kf_json_kstr(&w, "target", kf_str_from(c->target->name));
    kf_json_kstr(&w, "spec", base_name(c->spec->path));
    kf_json_kstr(&w, "spec_xxh3", spec_hash);
    kf_json_key(&w, "passes");
    kf_json_open(&w, '[');
    for (uint32_t i = 0; i < c->runs.len; i++)
        kf_json_c(&w, kf_pass_infos[c->runs.data[i].pass].name);
    kf_json_close(&w, ']');
    kf_json_close(&w, '}');
    return kf_sbuf_view(&text);
}

static uint32_t cpu_features(const char *arch)
{
    kf_cpu_arch a;

    return kf_cpu_arch_find(arch, &a) ? a.features : 0;
}

static kf_str host_c(job *j)
{
    const kf_compilation *c = j->c;
    const kf_spec_generation *g = &c->spec->generation;
    kf_sbuf text = {.arena = c->arena};
    kf_host_c h = {.compiler_version = KF_VERSION,
                   .source = base_name(c->spec->path).ptr,
                   .manifest = manifest(j),
                   .header_digest = j->digest,
                   .embedded = j->embedded,
                   .library = j->library,
                   .cpu_features = cpu_features(c->arch),
                   .max_positions = c->spec->build.max_positions.v,
                   .vocab_size = c->spec->vocab_size.v,
                   .type_vocab_size = kf_spec_token_types(c->spec),
                   .start_id =
                       c->spec->kind == KF_MODEL_ENCODER_DECODER ? g->decoder_start_token_id.v : 0,
                   .n_eos = g->eos_token_id.n,
                   .eos = g->eos_token_id.v,
                   .temperature = g->do_sample.v ? g->temperature.v : 0,
                   .top_p = kf_src_given(g->top_p.src) ? g->top_p.v : 1,
                   .top_k = kf_src_given(g->top_k.src) ? g->top_k.v : 0};

    kf_host_c_emit(c->arena, c->plan, &h, &text);
    return kf_sbuf_view(&text);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool put_in_place(job *j, const char *from, const char *suffix)
{
    kf_str to = kf_strf(j->c->arena, "%s%s", j->output, suffix);

    if (rename(kf_strf(j->c->arena, "%s/%s", j->dir, from).ptr, to.ptr) == 0)
        return true;
    kf_diag_add(j->c->diags, KF_E0603, KF_NO_LOC, "cannot write %.*s: %s", KF_STR_ARG(to),
                strerror(errno));
    return false;
}

static void store_probe(job *j)
{
    const kf_spec *spec = j->c->spec;
    kf_probe_model model = probe_model(spec);
    kf_probe_result r = kf_probe_store(j->c->arena, j->dir, j->embedded, &model);

    if (r != KF_PROBE_STORED && !j->c->opt->quiet)
        fprintf(stderr, "note: no probe logits stored, %s\n",
                r == KF_PROBE_OTHER_CPU ? "this machine cannot run the target's code"
                                        : "the executable did not give any");
    figure(j, "probe");
}

static bool link_all(job *j)
{
    kf_compilation *c = j->c;
    kf_str source = kf_strf(c->arena, "%s/host.c", j->dir);
    kf_link_job l = {.arena = c->arena,
                     .diags = c->diags,
                     .dir = j->dir,
                     .host_c = source.ptr,
                     .kernels = &j->kernels,
                     .embed = j->embedded ? kf_strf(c->arena, "%s/out.kfw", j->dir).ptr : NULL,
                     .model_name = kf_c_identifier(c->arena, c->plan->name).ptr};

    int err = kf_fs_write_scratch(source.ptr, host_c(j));
    if (!err && !j->library) {
        kf_sbuf text = {.arena = c->arena};
        l.plan = kf_strf(c->arena, "%s/plan.kir", j->dir).ptr;
        kf_plan_print(c->plan, 0, &text);
        err = kf_fs_write_scratch(l.plan, kf_sbuf_view(&text));
    }
    if (err) {
        kf_diag_add(c->diags, KF_E0603, KF_NO_LOC, "%s: %s", source.ptr, strerror(err));
        return false;
    }
    if (!kf_kernels_join(&j->kernels))
        return false;
    figure(j, "kernels");
    if (j->library ? !kf_link_lib(&l) : !kf_link_exe(&l).len)
        return false;
    figure(j, "host C, link");
    if (j->has_weights && !j->library)
        store_probe(j);
    if (j->has_weights && !j->embedded && !put_in_place(j, "out.kfw", ".kfw"))
        return false;
    if (j->library)
        return put_in_place(j, "lib.a", ".a") && put_in_place(j, "lib.so", ".so") &&
               put_in_place(j, "lib.h", ".h");
    return put_in_place(j, "out", "");
}

static bool compile_in(job *j)
{
    kf_compilation *c = j->c;

    if (!make_dir(j))
        return false;
    j->has_weights = kf_compilation_weights(c) != NULL;
    kf_kernels_start(&j->kernels, c, j->dir, sizeof KF_HOST_CFLAGS > 1);
    bool ok = !j->has_weights || pack(j);
    if (j->has_weights)
        figure(j, "weights");
    if (!ok) {
        kf_fork_join(&j->kernels.group);
        return false;
    }
    return link_all(j);
}

bool kf_compile_to(kf_compilation *c, const char *output, bool library)
{
    job j = {.c = c, .output = output, .library = library, .started = now_s()};

    j.last = j.started;
    bool ok = compile_in(&j);
    if (ok)
        final_figures(&j);
    remove_dir(&j);
    return ok;
}

/* ---- the verb -------------------------------------------------------------------------------- */

static int write_text(kf_compilation *c, const char *stage, kf_str text)
{
    kf_sbuf json = {.arena = c->arena};

    if (c->opt->output) {
        int err = kf_fs_write(c->opt->output, text, 0644);
        if (err)
            kf_diag_add(c->diags, KF_E0603, KF_NO_LOC, "%s: %s", c->opt->output, strerror(err));
        else if (c->opt->json)
            kf_print_output(c, "kerf.compile.1", c->opt->output);
        return 0;
    }
    if (c->opt->json) {
        kf_stage_json(c->spec ? c->spec->name.v : c->plan->name, stage, text, &json);
        kf_sbuf_char(&json, '\n');
        text = kf_sbuf_view(&json);
    }
    return fwrite(text.ptr, 1, text.len, stdout) == text.len ? 0 : 3;
}

static int emit_llvm(kf_compilation *c)
{
    kf_sbuf text = {.arena = c->arena};

    return kf_kernels_llvm(c, &text) ? write_text(c, "llvm", kf_sbuf_view(&text)) : 0;
}

/* Kernels are all that a graph without a description can become. */
static int emit_kir(kf_compilation *c, const char *stage)
{
    if (strcmp(stage, "llvm"))
        kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                    "of a .kir file --emit takes llvm, not '%s'; 'kerf opt' runs passes over it, "
                    "'kerf inspect --stage plan' plans it",
                    stage);
    else if (kf_compilation_target(c) && kf_plan_load(c, c->opt->operand))
        return emit_llvm(c);
    return 0;
}

static int emit_stage(kf_compilation *c, const char *stage)
{
    kf_sbuf text = {.arena = c->arena};

    if (!kf_compilation_load(c, c->opt->operand) || !kf_compilation_target(c))
        return 0;
    if (!strcmp(stage, "spec")) {
        kf_spec_print(c->spec, true, &text);
        return write_text(c, stage, kf_sbuf_view(&text));
    }
    if (!kf_compilation_graph(c) || (strcmp(stage, "graph") && !kf_compilation_fuse(c, NULL)))
        return 0;
    if (!strcmp(stage, "graph") || !strcmp(stage, "fused")) {
        kf_module_print(c->module, KF_PRINT_LOCS, &text);
        return write_text(c, stage, kf_sbuf_view(&text));
    }
    if (!kf_compilation_plan(c))
        return 0;
    if (!strcmp(stage, "llvm"))
        return emit_llvm(c);
    if (!strcmp(stage, "plan"))
        kf_plan_print(c->plan, KF_PRINT_LOCS, &text);
    else {
        job j = {.c = c};
        kf_sbuf_str(&text, host_c(&j));
    }
    return write_text(c, stage, kf_sbuf_view(&text));
}

int kf_verb_compile(kf_compilation *c)
{
    static const char *const stages[] = {"spec", "graph", "fused", "plan",
                                         "llvm", "c",     "lib",   "exe"};
    const char *emit = c->opt->emit ? c->opt->emit : "exe";
    bool known = false;

    for (uint32_t i = 0; i < sizeof stages / sizeof stages[0]; i++)
        known |= !strcmp(stages[i], emit);
    if (!known) {
        kf_diag_add(c->diags, strcmp(emit, "ptx") ? KF_E0803 : KF_E0411, KF_NO_LOC,
                    "--emit takes spec, graph, fused, plan, llvm, c, lib or exe, not '%s'", emit);
        return 0;
    }
    if (kf_is_kir(c->opt->operand))
        return emit_kir(c, emit);
    bool library = !strcmp(emit, "lib");
    if (!library && strcmp(emit, "exe"))
        return emit_stage(c, emit);
    if (!kf_compilation_run(c, c->opt->operand))
        return 0;
    const char *output =
        c->opt->output ? c->opt->output : kf_c_identifier(c->arena, c->plan->name).ptr;
    if (kf_compile_to(c, output, library) && c->opt->json)
        kf_print_output(c, "kerf.compile.1", output);
    return 0;
}
