/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_reduce - `kerf reduce FILE -- COMMAND...`: the smallest .kir or YAML text on which the
 * command still fails. */
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "driver/load.h"
#include "driver/reduce.h"
#include "driver/verbs.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_ARGS       256
#define MAX_YAML_BYTES (1u << 20)

/* ---- the command ----------------------------------------------------------------------------- */

/* |word| with each "{}" replaced by the candidate's path. */
static const char *with_path(const kf_reduction *r, const char *word, bool *found)
{
    kf_sbuf text = {.arena = r->c->arena};

    for (const char *s = word; *s; s++) {
        if (s[0] != '{' || s[1] != '}') {
            kf_sbuf_char(&text, *s);
            continue;
        }
        kf_sbuf_c(&text, r->candidate);
        *found = true;
        s++;
    }
    return kf_str_dup(r->c->arena, kf_sbuf_view(&text)).ptr;
}

/* The command's words; the path stands at the end where no word asks for it. */
static const char *const *command(const kf_reduction *r)
{
    const char **argv = KF_NEW_N(r->c->arena, const char *, MAX_ARGS + 2);
    bool found = false;
    int n = 0;

    for (int i = 0; i < r->c->opt->n_rest && n < MAX_ARGS; i++)
        argv[n++] = with_path(r, r->c->opt->rest[i], &found);
    if (!found)
        argv[n++] = r->candidate;
    return argv;
}

/* A plain write: thousands of them should not wait for the disk. */
static bool write_candidate(kf_reduction *r, kf_str text)
{
    FILE *f = fopen(r->candidate, "wb");
    bool ok = f && fwrite(text.ptr, 1, text.len, f) == text.len;

    ok = f && fclose(f) == 0 && ok;
    if (!ok)
        kf_diag_add(r->c->diags, KF_E0603, KF_NO_LOC, "%s cannot be written", r->candidate);
    return ok;
}

static bool run(kf_reduction *r, kf_str text, kf_exit *out)
{
    const char *const *argv = command(r);

    r->runs++;
    if (!write_candidate(r, text))
        return false;
    int err = kf_spawn_quiet(argv, out);
    if (err)
        kf_diag_add(r->c->diags, KF_E0803, KF_NO_LOC, "the command '%s': %s", argv[0],
                    strerror(err));
    return err == 0;
}

/* True if the command ends on |text| as it does on the whole text. */
static bool still_fails(kf_reduction *r, kf_str text)
{
    uint64_t key = kf_hash_bytes(text.ptr, text.len).lo;
    kf_exit e;

    for (uint32_t i = 0; i < r->tried.len; i++)
        if (r->tried.data[i] == key)
            return false; /* what failed was taken, and is larger than what there is now */
    kf_vec_push(r->c->arena, &r->tried, key);
    return run(r, text, &e) && e.status == r->want.status && e.signal == r->want.signal;
}

/* ---- rounds ---------------------------------------------------------------------------------- */

/* Tries the edits of one kind; numbers stay while edits are taken, for the text has shrunk. */
static bool sweep(kf_reduction *r, kf_edit_fn edit)
{
    bool progress = false;

    for (uint32_t i = 0; !kf_diags_errors(r->c->diags);) {
        kf_arena_mark mark = kf_arena_save(r->c->scratch);
        kf_str smaller;
        kf_edit e = edit(r->c->scratch, r->text, i, &smaller);
        bool taken = e == KF_EDIT_MADE && still_fails(r, smaller);
        if (taken)
            r->text = kf_str_dup(r->c->arena, smaller);
        kf_arena_restore(r->c->scratch, mark);
        if (e == KF_EDIT_END)
            return progress;
        progress |= taken;
        i += !taken;
    }
    return progress;
}

static void reduce(kf_reduction *r, const kf_edit_fn *edits)
{
    bool progress = true;

    while (progress) {
        progress = false;
        for (const kf_edit_fn *e = edits; *e; e++)
            progress |= sweep(r, *e);
    }
}

/* ---- the verb -------------------------------------------------------------------------------- */

static void report(const kf_reduction *r, kf_str whole)
{
    kf_compilation *c = r->c;
    kf_sbuf text = {.arena = c->scratch};
    kf_json w = {.out = &text};
    uint32_t nodes[2] = {kf_reduce_count_nodes(whole), kf_reduce_count_nodes(r->text)};

    if (c->opt->json) {
        kf_json_open(&w, '{');
        kf_json_kstr(&w, "schema", KF_STR("kerf.reduce.1"));
        kf_json_kint(&w, "status", r->want.signal ? 128 + r->want.signal : r->want.status);
        kf_json_kint(&w, "runs", r->runs);
        kf_json_kint(&w, "bytes", r->text.len);
        kf_json_kint(&w, "bytes_before", whole.len);
        kf_json_kint(&w, "nodes", nodes[1]);
        kf_json_kint(&w, "nodes_before", nodes[0]);
        kf_json_kstr(&w, "text", r->text);
        kf_json_close(&w, '}');
        printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
        return;
    }
    if (!c->opt->output)
        printf("%.*s", KF_STR_ARG(r->text));
    if (c->opt->quiet)
        return;
    if (nodes[0])
        fprintf(stderr, "%u -> %u nodes, ", nodes[0], nodes[1]);
    fprintf(stderr, "%u -> %u bytes, %u runs of the command\n", whole.len, r->text.len, r->runs);
}

/* The command may have written over the file: a reproducer leaves crash.kir where it runs. */
static void keep_original(kf_compilation *c, kf_str whole)
{
    kf_str now = {"", 0};
    const char *path = c->opt->operand;

    if (kf_fs_read(c->arena, path, UINT32_MAX, &now) || !kf_str_eq(now, whole))
        kf_fs_write(path, whole, 0644);
}

static void reduce_file(kf_reduction *r, bool kir)
{
    kf_compilation *c = r->c;
    kf_str whole = r->text;
    kf_exit again;

    if (!run(r, whole, &r->want))
        return;
    keep_original(c, whole);
    if (r->want.status == 0) {
        kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                    "the command does not fail on %s: there is nothing to reduce", c->opt->operand);
        return;
    }
    reduce(r, kir ? kf_reduce_kir_edits : kf_reduce_yaml_edits);
    bool ran = !kf_diags_errors(c->diags) && run(r, r->text, &again);
    keep_original(c, whole); /* before the result, which may take its place */
    if (!ran)
        return;
    if (again.status != r->want.status || again.signal != r->want.signal) {
        kf_diag_add(c->diags, KF_E0901, KF_NO_LOC,
                    "the command ends with status %d on the result, with %d before: it does not "
                    "depend on the file alone",
                    again.status, r->want.status);
        return;
    }
    int err = c->opt->output ? kf_fs_write(c->opt->output, r->text, 0644) : 0;
    if (err)
        kf_diag_add(c->diags, KF_E0603, KF_NO_LOC, "%s: %s", c->opt->output, strerror(err));
    else
        report(r, whole);
}

int kf_verb_reduce(kf_compilation *c)
{
    const char *path = c->opt->operand;
    kf_reduction r = {.c = c};
    bool kir = kf_is_kir(path);

    if (!c->opt->n_rest) {
        kf_diag_add(c->diags, KF_E0804, KF_NO_LOC,
                    "usage: kerf reduce FILE [options] -- COMMAND...");
        return 0;
    }
    int err = kf_fs_read(c->arena, path, kir ? UINT32_MAX : MAX_YAML_BYTES, &r.text);
    if (err) {
        kf_diag_add(c->diags, KF_E0701, KF_NO_LOC, "%s: %s", path, strerror(err));
        return 0;
    }
    if (kir && !kf_module_load(c, path))
        return 0;
    /* Beside the file: paths in a description start from its folder. */
    r.candidate = kf_strf(c->arena, "%s.candidate.%s", path, kir ? "kir" : "yaml").ptr;
    reduce_file(&r, kir);
    unlink(r.candidate);
    return 0;
}
