/* SPDX-License-Identifier: Apache-2.0 */
/* kernels - see kernels.h. */
#include "driver/kernels.h"

#include "base/fs.h"
#include "base/hash.h"
#include "codegen/kernel.h"
#include "driver/crash.h"
#include "ir/text.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_OBJECT_BYTES (64u << 20)
#define MAX_SELF_BYTES   (1u << 30)
#define DIGEST_CHARS     32

static kf_llvm *open_backend(const kf_compilation *c, kf_arena *a, const char *name, bool sanitize)
{
    kf_llvm_options o = {.sanitize = sanitize};
    kf_str error;

    kf_cpu_arch_find(c->arch, &o.arch);
    kf_llvm *ll = kf_llvm_create(a, name, &o, &error);
    if (!ll)
        fprintf(stderr, "kerf: LLVM: %.*s\n", KF_STR_ARG(error));
    return ll;
}

/* "native" stands for this machine: its name and features take its place in the key. */
static kf_str arch_key(const kf_compilation *c)
{
    if (strcmp(c->arch, "native"))
        return kf_str_from(c->arch);
    kf_llvm *ll = open_backend(c, c->scratch, "native", false);
    if (!ll)
        return kf_str_from(c->arch);
    kf_str key = kf_strf(c->arena, "%s %s", kf_llvm_cpu(ll), kf_llvm_features(ll));
    kf_llvm_destroy(ll);
    return key;
}

/* ---- cache ----------------------------------------------------------------------------------- */

static kf_str cache_dir(kf_arena *a)
{
    const char *dir = getenv("KERF_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");

    if (dir && *dir)
        return kf_str_from(dir);
    if (xdg && *xdg)
        return kf_strf(a, "%s/kerf", xdg);
    return home && *home ? kf_strf(a, "%s/.cache/kerf", home) : (kf_str){"", 0};
}

/* A version number does not tell two builds of this program apart; their code generators may
 * differ. */
static kf_str compiler_digest(kf_arena *a)
{
    kf_arena *scratch = kf_arena_create("compiler digest");
    kf_str self, digest = {"", 0};

    if (!kf_fs_read(scratch, "/proc/self/exe", MAX_SELF_BYTES, &self))
        digest = kf_hash_hex(a, kf_hash_bytes(self.ptr, self.len));
    kf_arena_destroy(scratch);
    return digest;
}

/* Everything that decides the object's bytes. */
static kf_str cache_key(const kf_kernel_objects *k, uint32_t index, kf_arena *a)
{
    const kf_kernel *kernel = &k->c->plan->kernels.data[index];
    const kf_config *config = &kernel->shape.config;
    kf_hasher *h = kf_hasher_create();
    kf_sbuf body = {.arena = a};

    kf_graph_print(kernel->body, 0, &body);
    kf_hasher_add_str(h, k->compiler);
    kf_hasher_add_str(h, kf_str_from(kf_llvm_version()));
    kf_hasher_add_str(h, k->arch_key);
    kf_hasher_add_str(h, kernel->name);
    kf_hasher_add_str(h, kf_str_from(kf_family_names[kernel->family]));
    kf_hasher_add_str(h, kf_sbuf_view(&body));
    for (uint8_t i = 0; i < config->n; i++)
        kf_hasher_add(h, &config->value[i], sizeof config->value[i]);
    for (uint32_t i = 0; i < k->c->plan->states.len; i++)
        kf_hasher_add(h, &k->c->plan->states.data[i].type.kv_layers, sizeof(uint32_t));
    kf_hasher_add(h, &k->sanitize, sizeof k->sanitize);
    return kf_hash_hex(a, kf_hasher_finish(h));
}

static kf_str cache_path(const kf_kernel_objects *k, uint32_t index, kf_arena *a)
{
    kf_str dir = cache_dir(a), key = cache_key(k, index, a);
    bool cached = dir.len && k->compiler.len;

    return cached ? kf_strf(a, "%.*s/%.*s.o", KF_STR_ARG(dir), KF_STR_ARG(key)) : (kf_str){"", 0};
}

/* An entry is this digest, then the object. The path takes part: it holds the key, so the entry of
 * another kernel does not pass for this one's. */
static kf_str entry_digest(kf_str path, kf_str object, kf_arena *a)
{
    kf_hasher *h = kf_hasher_create();
    uint32_t key = DIGEST_CHARS + 2; /* "KEY.o" */

    kf_hasher_add_str(h, (kf_str){path.ptr + path.len - key, key});
    kf_hasher_add_str(h, object);
    return kf_hash_hex(a, kf_hasher_finish(h));
}

static bool cache_read(const kf_kernel_objects *k, uint32_t index, kf_arena *a)
{
    kf_str path = cache_path(k, index, a), entry;

    if (!path.len || kf_fs_read(a, path.ptr, MAX_OBJECT_BYTES, &entry) || entry.len < DIGEST_CHARS)
        return false;
    kf_str object = {entry.ptr + DIGEST_CHARS, entry.len - DIGEST_CHARS};
    if (memcmp(entry_digest(path, object, a).ptr, entry.ptr, DIGEST_CHARS))
        return false;
    return kf_fs_write_scratch(kf_kernels_path(a, k, index).ptr, object) == 0;
}

static void cache_write(const kf_kernel_objects *k, uint32_t index, kf_str object, kf_arena *a)
{
    kf_str path = cache_path(k, index, a);
    kf_sbuf entry = {.arena = a};

    if (!path.len)
        return;
    (void)kf_fs_make_dirs(kf_fs_dirname(a, path).ptr); /* else writing fails, too */
    kf_sbuf_str(&entry, entry_digest(path, object, a));
    kf_sbuf_str(&entry, object);
    (void)kf_fs_write_scratch(
        path.ptr, kf_sbuf_view(&entry)); /* a cache that cannot be written is no cache */
}

/* ---- LLVM ------------------------------------------------------------------------------------ */

static int emit_one(const kf_kernel_objects *k, kf_llvm *ll, uint32_t index, kf_arena *a)
{
    const kf_compilation *c = k->c;
    const kf_kernel *kernel = &c->plan->kernels.data[index];
    kf_sbuf why = {.arena = a};

    kf_llvm_restart(ll, kernel->name.ptr);
    if (!kf_kernel_emit(ll, a, c->target, c->plan, kernel, &why)) {
        fprintf(stderr, "kerf: kernel %.*s: %.*s\n", KF_STR_ARG(kernel->name),
                KF_STR_ARG(kf_sbuf_view(&why)));
        kf_crash_leave(c);
        return 70;
    }
    kf_llvm_optimize(ll);
    kf_str object = kf_llvm_emit_object(ll, a);
    int err = kf_fs_write_scratch(kf_kernels_path(a, k, index).ptr, object);
    cache_write(k, index, object, a);
    return err ? 3 : 0;
}

static int emit_share(void *user, uint32_t child)
{
    const kf_kernel_objects *k = user;
    kf_arena *a = kf_arena_create("kernels");
    kf_llvm *ll = open_backend(k->c, a, "kernels", k->sanitize);
    int status = ll ? 0 : 70;

    for (uint32_t i = child; !status && i < k->n_missing; i += k->children)
        status = emit_one(k, ll, k->missing[i], a);
    kf_llvm_destroy(ll);
    kf_arena_destroy(a);
    return status;
}

/* Into the module of |ll|, or reported with a reproducer. */
static bool emit_reported(kf_llvm *ll, const kf_compilation *c, const kf_kernel *k)
{
    kf_sbuf why = {.arena = c->scratch};

    if (kf_kernel_emit(ll, c->scratch, c->target, c->plan, k, &why))
        return true;
    kf_diag_add(c->diags, KF_E0602, KF_NO_LOC, "kernel %.*s: %.*s", KF_STR_ARG(k->name),
                KF_STR_ARG(kf_sbuf_view(&why)));
    kf_crash_leave(c);
    return false;
}

bool kf_kernels_llvm(const kf_compilation *c, kf_sbuf *out)
{
    kf_llvm *ll = open_backend(c, c->scratch, c->plan->name.ptr, false);
    bool ok = ll != NULL;

    for (uint32_t i = 0; ok && i < c->plan->kernels.len; i++)
        ok = emit_reported(ll, c, &c->plan->kernels.data[i]);
    if (ok) {
        kf_llvm_optimize(ll);
        kf_sbuf_str(out, kf_llvm_print(ll, c->scratch));
    }
    kf_llvm_destroy(ll);
    return ok;
}

/* ---- children -------------------------------------------------------------------------------- */

kf_str kf_kernels_path(kf_arena *arena, const kf_kernel_objects *k, uint32_t kernel)
{
    return kf_strf(arena, "%s/k%u.o", k->dir, kernel);
}

static uint32_t jobs_of(const kf_options *o)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t jobs = o->jobs ? o->jobs : cpus;

    return jobs < 1 ? 1 : jobs > 64 ? 64 : (uint32_t)jobs;
}

void kf_kernels_start(kf_kernel_objects *k, const kf_compilation *c, const char *dir, bool sanitize)
{
    *k = (kf_kernel_objects){.c = c, .dir = dir, .sanitize = sanitize, .arch_key = arch_key(c)};
    k->compiler = compiler_digest(c->arena);
    k->missing = KF_NEW_N(c->arena, uint32_t, c->plan->kernels.len);
    for (uint32_t i = 0; i < c->plan->kernels.len; i++)
        if (!cache_read(k, i, c->scratch))
            k->missing[k->n_missing++] = i;
    k->children = jobs_of(c->opt);
    if (k->children > k->n_missing)
        k->children = k->n_missing;
    kf_fork_start(&k->group, k->children, emit_share, k);
}

bool kf_kernels_join(kf_kernel_objects *k)
{
    kf_exit e = kf_fork_join(&k->group);

    if (e.status == 0)
        return true;
    if (e.signal == SIGKILL || e.status == 5)
        kf_diag_add(k->c->diags, KF_E0605, KF_NO_LOC, "code generation ran out of memory");
    else if (e.status == 3)
        kf_diag_add(k->c->diags, KF_E0603, KF_NO_LOC, "kernel objects could not be written to %s",
                    k->dir);
    else if (e.signal)
        kf_diag_add(k->c->diags, KF_E0602, KF_NO_LOC, "the code generator was ended by signal %d",
                    e.signal);
    else
        kf_diag_add(k->c->diags, KF_E0602, KF_NO_LOC, "the code generator ended with status %d",
                    e.status);
    return false;
}
