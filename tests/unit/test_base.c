/* SPDX-License-Identifier: Apache-2.0 */
/* test_base - arenas, arrays, strings, diagnostics, files, hashes and JSON. */
#include "base/arena.h"
#include "base/check.h"
#include "base/diag.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/str.h"
#include "base/vec.h"
#include "tests/unit/support.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static kf_arena *arena;

static int setup(void **state)
{
    (void)state;
    arena = kf_arena_create("test");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kf_arena_destroy(arena);
    return 0;
}

static void assert_str(kf_str got, const char *want)
{
    if (!kf_str_eq_c(got, want))
        fail_msg("got:\n%.*s\nwant:\n%s", KF_STR_ARG(got), want);
}

/* Runs |body| in a child process and returns its exit status, or 256 + the signal that ended it. */
static int status_of(void (*body)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(99);
        body();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* ---- arena and vec --------------------------------------------------------------------------- */

static void arena_aligns_and_zeroes(void **state)
{
    (void)state;
    for (size_t align = 1; align <= 64; align *= 2) {
        for (size_t size = 0; size < 300; size += 7) {
            kf_arena_mark mark = kf_arena_save(arena);
            unsigned char *p = kf_arena_alloc(arena, size, align);
            assert_int_equal((uintptr_t)p % align, 0);
            for (size_t i = 0; i < size; i++)
                assert_int_equal(p[i], 0);
            memset(p, 0xff, size);
            if (size % 2)
                kf_arena_restore(arena, mark);
        }
    }
}

static void arena_restore_returns_blocks(void **state)
{
    (void)state;
    int *kept = KF_NEW(arena, int);
    *kept = 42;
    size_t used = kf_arena_used(arena);
    size_t total = kf_arena_allocated(arena);
    kf_arena_mark mark = kf_arena_save(arena);
    for (int i = 0; i < 100; i++)
        memset(kf_arena_alloc(arena, 100000, 8), i, 100000);
    assert_true(kf_arena_used(arena) >= used + 100 * 100000);
    assert_true(kf_arena_allocated(arena) >= kf_arena_used(arena));
    kf_arena_restore(arena, mark);
    assert_int_equal(kf_arena_used(arena), used);
    assert_true(kf_arena_allocated(arena) <= total + (5 << 20)); /* one block may stay in reserve */
    assert_int_equal(*kept, 42);
}

static void arena_grows_in_place(void **state)
{
    (void)state;
    int *a = KF_NEW_N(arena, int, 4);
    a[3] = 7;
    int *b = kf_arena_grow(arena, a, 16, 64, 4);
    assert_ptr_equal(a, b);
    assert_int_equal(b[15], 0);
    KF_NEW(arena, int);
    int *c = kf_arena_grow(arena, b, 64, 128, 4);
    assert_ptr_not_equal(b, c);
    assert_int_equal(c[3], 7);
    int *big = kf_arena_grow(arena, c, 128, 1 << 20, 4); /* does not fit the block */
    assert_int_equal(big[3], 7);
    assert_int_equal(big[(1 << 18) - 1], 0);
}

static void allocate_too_much(void)
{
    kf_arena_alloc(kf_arena_create("huge"), SIZE_MAX / 2, 8);
}

static void arena_exhaustion_exits_5(void **state)
{
    (void)state;
    assert_int_equal(status_of(allocate_too_much), 5);
}

#ifdef __SANITIZE_ADDRESS__
static void read_past_the_end(void)
{
    volatile char *p = kf_arena_alloc(arena, 8, 1);
    KF_NEW(arena, char);
    (void)p[8];
}

static void read_after_restore(void)
{
    kf_arena_mark mark = kf_arena_save(arena);
    volatile char *p = kf_arena_alloc(arena, 8, 1);
    kf_arena_restore(arena, mark);
    (void)p[0];
}

static void arena_errors_are_seen_by_the_sanitizer(void **state)
{
    (void)state;
    assert_int_not_equal(status_of(read_past_the_end), 0);
    assert_int_not_equal(status_of(read_after_restore), 0);
}
#endif

static void vec_keeps_its_elements(void **state)
{
    (void)state;
    KF_VEC(uint64_t) v = {0};
    for (uint64_t i = 0; i < 10000; i++) {
        kf_vec_push(arena, &v, i * i);
        if (i % 1000 == 0)
            KF_NEW(arena, char); /* forces a move at the next growth */
    }
    assert_int_equal(v.len, 10000);
    for (uint64_t i = 0; i < 10000; i++)
        assert_int_equal(v.data[i], i * i);
    kf_vec_reserve(arena, &v, 50000);
    assert_true(v.cap >= 60000);
    assert_int_equal(v.data[9999], 9999 * 9999);
}

/* ---- str ------------------------------------------------------------------------------------- */

static void str_compares(void **state)
{
    (void)state;
    assert_true(kf_str_eq(KF_STR(""), (kf_str){NULL, 0}));
    assert_true(kf_str_eq_c(KF_STR("abc"), "abc"));
    assert_false(kf_str_eq_c(KF_STR("abc"), "ab"));
    assert_true(kf_str_starts_with(KF_STR("abc"), "ab"));
    assert_false(kf_str_starts_with(KF_STR("a"), "ab"));
    assert_true(kf_str_cmp(KF_STR("a"), KF_STR("ab")) < 0);
    assert_true(kf_str_cmp(KF_STR("\x80"), KF_STR("a")) > 0);
    assert_int_equal(kf_str_cmp(KF_STR("a"), KF_STR("a")), 0);
    kf_str dup = kf_str_dup(arena, (kf_str){"xyz", 2});
    assert_str(dup, "xy");
    assert_int_equal(dup.ptr[2], 0);
    assert_str(kf_strf(arena, "%d-%s", 7, "x"), "7-x");
}

static void str_distance_is_osa(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        uint32_t limit, want;
    } rows[] = {
        {"", "", 2, 0},
        {"a", "", 2, 1},
        {"abc", "acb", 2, 1},
        {"kitten", "sitting", 5, 3},
        {"kitten", "sitting", 2, 3},
        {"ca", "abc", 5, 3},
        {"num_kv_heads", "num_key_heads", 2, 2},
        {"abcdef", "a", 2, 3},
        {"hidden", "hiddne", 2, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kf_str a = kf_str_from(rows[i].a), b = kf_str_from(rows[i].b);
        assert_int_equal(kf_str_distance(a, b, rows[i].limit), rows[i].want);
        assert_int_equal(kf_str_distance(b, a, rows[i].limit), rows[i].want);
    }
    char text[70];
    memset(text, 'a', sizeof text);
    assert_int_equal(kf_str_distance((kf_str){text, 64}, (kf_str){text, 63}, 2), 1);
    assert_int_equal(kf_str_distance((kf_str){text, 65}, (kf_str){text, 64}, 2), 3);
}

static void str_nearest_suggests(void **state)
{
    (void)state;
    const kf_str words[] = {KF_STR("rope"), KF_STR("norm"), KF_STR("heads"), KF_STR("eps")};
    assert_str(kf_str_nearest(KF_STR("haeds"), words, 4), "heads");
    assert_str(kf_str_nearest(KF_STR("nrm"), words, 4), "norm");
    assert_str(kf_str_nearest(KF_STR("xyzzy"), words, 4), "");
    assert_str(kf_str_nearest(KF_STR("no"), words, 4),
               ""); /* 2 away, but nothing of it would stay */
}

static kf_str double_text(double v)
{
    kf_sbuf b = {.arena = arena};
    kf_sbuf_double(&b, v);
    return kf_sbuf_view(&b);
}

static void numbers_print_shortest(void **state)
{
    (void)state;
    assert_str(double_text(1e-5), "1e-05");
    assert_str(double_text(0.1), "0.1");
    assert_str(double_text(0.1 + 0.2), "0.30000000000000004");
    assert_str(double_text(10000), "10000");
    assert_str(double_text(-0.0), "-0");
    assert_str(double_text(5e-324), "5e-324");
    assert_str(double_text(DBL_MAX), "1.7976931348623157e+308");
    assert_str(double_text(INFINITY), "inf");
    assert_str(double_text(-INFINITY), "-inf");
    assert_str(double_text(-NAN), "nan");
}

static void numbers_read_back(void **state)
{
    (void)state;
    uint64_t seed = test_seed(1);
    for (uint32_t i = 0; i < scaled(20000); i++) {
        kf_arena_mark mark = kf_arena_save(arena);
        uint64_t bits = random_u64(&seed);
        double d;
        memcpy(&d, &bits, sizeof d);
        if (isfinite(d))
            assert_true(strtod(double_text(d).ptr, NULL) == d);
        kf_arena_restore(arena, mark);
    }
}

static void sbuf_builds_and_quotes(void **state)
{
    (void)state;
    kf_sbuf b = {.arena = arena};
    assert_str(kf_sbuf_view(&b), "");
    for (int i = 0; i < 1000; i++)
        kf_sbuf_printf(&b, "%d,", i);
    kf_sbuf_char(&b, '.');
    assert_int_equal(b.len, 3891);
    assert_int_equal(b.ptr[b.len], 0);
    kf_sbuf q = {.arena = arena};
    kf_sbuf_quoted(&q, KF_STR("a\"b\\c\n\t\r\x01\x7f"
                              "9\xc3\xa9"));
    assert_str(kf_sbuf_view(&q), "\"a\\\"b\\\\c\\n\\t\\r\\001\\1779\xc3\xa9\"");
}

/* ---- diag ------------------------------------------------------------------------------------ */

static const char model_text[] = "version: 1\n\tnum_kv_heads: 8 # \xc3\xa9\xc3\xa9 x\nlast";

static kf_diags *diags_with_file(uint32_t *out_file)
{
    kf_diags *d = kf_diags_create(arena);
    *out_file = kf_diags_add_file(d, KF_STR("dir/model.yaml"), KF_STR(model_text));
    return d;
}

static kf_str printed(const kf_diags *d, bool color)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    kf_diags_print(d, f, color);
    fclose(f);
    kf_str copy = kf_str_dup(arena, (kf_str){text, (uint32_t)size});
    free(text);
    return copy;
}

static void diag_prints_carets(void **state)
{
    (void)state;
    uint32_t file;
    kf_diags *d = diags_with_file(&file);
    kf_diag *one =
        kf_diag_add(d, KF_E0102, (kf_loc){file, 2, 2, 12}, "unknown key '%s'", "num_kv_heads");
    kf_diag_hint(d, one, "did you mean '%s'?", "num_key_value_heads");
    kf_diag_note(d, one, KF_NO_LOC, "a plain note");
    kf_diag_note(d, one, (kf_loc){file, 1, 1, 7}, "version is here");
    kf_diag_add(d, KF_E0105, (kf_loc){file, 2, 25, 1}, "odd");
    kf_diag_add(d, KF_E0105, (kf_loc){file, 3, 99, 1}, "past the end");
    kf_diag *no_place = kf_diag_add(d, KF_E0104, KF_NO_LOC, "missing");
    kf_diag_hint(d, no_place, "add it");
    assert_str(printed(d, false), "dir/model.yaml:2:2: error[E0102]: unknown key 'num_kv_heads'\n"
                                  "  2 | \tnum_kv_heads: 8 # \xc3\xa9\xc3\xa9 x\n"
                                  "    | \t^~~~~~~~~~~~ did you mean 'num_key_value_heads'?\n"
                                  "note: a plain note\n"
                                  "dir/model.yaml:1:1: note: version is here\n"
                                  "  1 | version: 1\n"
                                  "    | ^~~~~~~\n"
                                  "dir/model.yaml:2:25: error[E0105]: odd\n"
                                  "  2 | \tnum_kv_heads: 8 # \xc3\xa9\xc3\xa9 x\n"
                                  "    | \t                     ^\n"
                                  "dir/model.yaml:3:99: error[E0105]: past the end\n"
                                  "  3 | last\n"
                                  "    |     ^\n"
                                  "error[E0104]: missing\n"
                                  "hint: add it\n");
    assert_non_null(strstr(printed(d, true).ptr, "\033[1;31merror\033[0m[E0102]"));
    assert_int_equal(kf_diags_errors(d), 4);
    assert_int_equal(kf_diags_exit_status(d), kf_diag_infos[KF_E0102].exit_status);
}

static void diag_clips_long_lines(void **state)
{
    (void)state;
    char *text = kf_arena_alloc(arena, 60001, 1);
    memset(text, 'x', 60000);
    text[30000] = 'Y';
    text[29999] = '\033';
    kf_diags *d = kf_diags_create(arena);
    uint32_t file = kf_diags_add_file(d, KF_STR("m"), (kf_str){text, 60000});
    kf_diag_add(d, KF_E0105, (kf_loc){file, 1, 30001, 1000}, "long");
    kf_str out = printed(d, false);
    assert_true(out.len < 500);
    assert_non_null(strstr(out.ptr, "?Y"));
    assert_null(strchr(out.ptr, '\033'));
}

static void diag_limits_and_merges(void **state)
{
    (void)state;
    uint32_t file;
    kf_diags *d = diags_with_file(&file);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < KF_DIAG_MAX_ERRORS; i++)
            kf_diag_hint(d, kf_diag_add(d, KF_E0106, (kf_loc){file, 1, i + 1, 1}, "same"), "hint");
    }
    assert_int_equal(kf_diags_errors(d), KF_DIAG_MAX_ERRORS);
    for (int i = 0; i < 3; i++)
        kf_diag_hint(d, kf_diag_add(d, KF_E0106, KF_NO_LOC, "more %d", i), "unseen");
    assert_int_equal(kf_diags_errors(d), KF_DIAG_MAX_ERRORS + 3);
    uint32_t kept = 0;
    for (const kf_diag *i = kf_diags_first(d); i; i = i->next)
        kept++;
    assert_int_equal(kept, KF_DIAG_MAX_ERRORS);
    kf_str out = printed(d, false);
    assert_non_null(strstr(out.ptr, "\n3 more errors not shown\n"));
    assert_null(strstr(out.ptr, "unseen"));
}

static void diag_codes_are_described(void **state)
{
    (void)state;
    for (int i = 0; i < KF_DIAG_COUNT; i++) {
        const kf_diag_info *info = &kf_diag_infos[i];
        kf_diag_code code;
        assert_true(kf_diag_find(kf_str_from(info->name), &code));
        assert_int_equal(code, i);
        assert_int_equal(strlen(info->name), 5);
        assert_int_equal(info->name[0], info->severity == KF_ERROR ? 'E' : 'W');
        assert_true(strlen(info->title) > 3 && strlen(info->explain) > 10);
        if (info->severity == KF_WARNING)
            assert_int_equal(info->exit_status, 0);
        else if (info->exit_status != 70) /* an internal error of a child process */
            assert_in_range(info->exit_status, 1, 7);
    }
    kf_diag_code code;
    assert_false(kf_diag_find(KF_STR("E9999"), &code));
}

static void diag_writes_json(void **state)
{
    (void)state;
    uint32_t file;
    kf_diags *d = diags_with_file(&file);
    kf_diag *one = kf_diag_add(d, KF_E0102, (kf_loc){file, 2, 2, 12}, "a \"b\"");
    kf_diag_hint(d, one, "h");
    kf_diag_note(d, one, KF_NO_LOC, "n");
    kf_sbuf out = {.arena = arena};
    kf_diags_json(d, &out);
    assert_str(kf_sbuf_view(&out), "[\n"
                                   "  {\n"
                                   "    \"code\": \"E0102\",\n"
                                   "    \"severity\": \"error\",\n"
                                   "    \"file\": \"dir/model.yaml\",\n"
                                   "    \"line\": 2,\n"
                                   "    \"col\": 2,\n"
                                   "    \"end\": 14,\n"
                                   "    \"message\": \"a \\\"b\\\"\",\n"
                                   "    \"hint\": \"h\",\n"
                                   "    \"notes\": [\n"
                                   "      {\n"
                                   "        \"message\": \"n\"\n"
                                   "      }\n"
                                   "    ]\n"
                                   "  }\n"
                                   "]\n");
}

/* ---- fs -------------------------------------------------------------------------------------- */

static kf_str read_back(const char *path)
{
    kf_str text = KF_STR("");
    assert_int_equal(kf_fs_read(arena, path, 1 << 20, &text), 0);
    return text;
}

static void fs_writes_and_reads(void **state)
{
    (void)state;
    const char *path = "base_fs.txt";
    assert_int_equal(kf_fs_write(path, KF_STR("one"), 0600), 0);
    assert_str(read_back(path), "one");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(kf_fs_write(path, KF_STR("two two"), 0644), 0);
    assert_str(read_back(path), "two two");
    kf_str text;
    assert_int_equal(kf_fs_read(arena, path, 7, &text), 0);
    assert_int_equal(kf_fs_read(arena, path, 6, &text), EFBIG);
    assert_int_equal(kf_fs_read(arena, "base_fs_absent", 6, &text), ENOENT);
    assert_int_equal(kf_fs_read(arena, ".", 6, &text), EISDIR);
    assert_int_equal(kf_fs_read(arena, "/dev/null", 6, &text), EINVAL);
    assert_int_equal(kf_fs_write("absent_dir/x", KF_STR(""), 0644), ENOENT);
    assert_true(kf_fs_exists(path) && !kf_fs_is_dir(path) && kf_fs_is_dir("."));
    assert_int_equal(unlink(path), 0);
}

static void fs_keeps_the_old_file_until_commit(void **state)
{
    (void)state;
    const char *path = "base_old.txt";
    assert_int_equal(kf_fs_write(path, KF_STR("old"), 0644), 0);
    kf_outfile f;
    assert_int_equal(kf_outfile_open(&f, path, 0644), 0);
    kf_str tmp = kf_str_dup(arena, kf_str_from(f.tmp_path));
    assert_int_equal(kf_outfile_write(&f, "new", 3), 0);
    assert_str(read_back(path), "old");
    assert_true(kf_fs_exists(tmp.ptr));
    kf_outfile_abandon(&f);
    kf_outfile_abandon(&f);
    assert_str(read_back(path), "old");
    assert_false(kf_fs_exists(tmp.ptr));

    assert_int_equal(kf_outfile_open(&f, path, 0644), 0);
    kf_outfile second; /* two writers of one file do not share a temporary */
    assert_int_equal(kf_outfile_open(&second, path, 0644), 0);
    assert_string_not_equal(f.tmp_path, second.tmp_path);
    assert_int_equal(kf_outfile_write(&f, "new", 3), 0);
    assert_int_equal(kf_outfile_commit(&f), 0);
    kf_outfile_abandon(&f);
    assert_str(read_back(path), "new");
    tmp = kf_str_dup(arena, kf_str_from(second.tmp_path));
    kf_outfile_abandon_all();
    assert_false(kf_fs_exists(tmp.ptr));
    kf_outfile_abandon(&second);
    kf_outfile_abandon(&(kf_outfile){0});
    assert_int_equal(unlink(path), 0);
}

static void fs_reports_a_full_disk(void **state)
{
    (void)state;
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(kf_fs_write("base_full.txt", KF_STR("old"), 0644), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    kf_str big = {kf_arena_alloc(arena, 10000, 1), 10000};
    int err = kf_fs_write("base_full.txt", big, 0644);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(err, EFBIG);
    assert_str(read_back("base_full.txt"), "old");
    assert_int_equal(unlink("base_full.txt"), 0);
}

static void fs_handles_paths(void **state)
{
    (void)state;
    assert_str(kf_fs_join(arena, KF_STR("a"), KF_STR("b")), "a/b");
    assert_str(kf_fs_join(arena, KF_STR("a/"), KF_STR("b")), "a/b");
    assert_str(kf_fs_join(arena, KF_STR("a"), KF_STR("/b")), "/b");
    assert_str(kf_fs_join(arena, KF_STR(""), KF_STR("b")), "b");
    assert_str(kf_fs_dirname(arena, KF_STR("a/b/c")), "a/b");
    assert_str(kf_fs_dirname(arena, KF_STR("a/b/")), "a");
    assert_str(kf_fs_dirname(arena, KF_STR("a//b")), "a");
    assert_str(kf_fs_dirname(arena, KF_STR("a")), ".");
    assert_str(kf_fs_dirname(arena, KF_STR("/a")), "/");
    kf_str self;
    assert_int_equal(kf_fs_self(arena, &self), 0);
    assert_non_null(strstr(self.ptr, "test_base"));
}

/* ---- hash and JSON --------------------------------------------------------------------------- */

static void hash_is_xxh3_128(void **state)
{
    (void)state;
    /* Test vectors of the xxHash specification: the empty input, seed 0. */
    assert_str(kf_hash_hex(arena, kf_hash_bytes("", 0)), "99aa06d3014798d86001c324468d497f");
    kf_hasher *h = kf_hasher_create();
    kf_hasher_add(h, "hello ", 6);
    kf_hasher_add(h, "world", 5);
    kf_hash parts = kf_hasher_finish(h);
    kf_hash whole = kf_hash_bytes("hello world", 11);
    assert_true(parts.hi == whole.hi && parts.lo == whole.lo);
    h = kf_hasher_create();
    kf_hasher_add_str(h, KF_STR("ab"));
    kf_hasher_add_str(h, KF_STR("c"));
    kf_hash one = kf_hasher_finish(h);
    h = kf_hasher_create();
    kf_hasher_add_str(h, KF_STR("a"));
    kf_hasher_add_str(h, KF_STR("bc"));
    kf_hash other = kf_hasher_finish(h);
    assert_true(one.lo != other.lo);
}

static void json_is_valid_whatever_comes(void **state)
{
    (void)state;
    kf_sbuf out = {.arena = arena};
    kf_json j = {.out = &out};
    kf_json_open(&j, '{');
    kf_json_kstr(&j, "s", KF_STR("\"\\\n\x01\xc3\xa9\xff\xed\xa0\x80\xf0\x9f\x98\x80\xc3"));
    kf_json_kint(&j, "i", INT64_MIN);
    kf_json_kdouble(&j, "d", 0.5);
    kf_json_kdouble(&j, "n", NAN);
    kf_json_kbool(&j, "b", true);
    kf_json_key(&j, "empty");
    kf_json_open(&j, '[');
    kf_json_close(&j, ']');
    kf_json_key(&j, "list");
    kf_json_open(&j, '[');
    kf_json_int(&j, 1);
    kf_json_c(&j, "x");
    kf_json_null(&j);
    kf_json_close(&j, ']');
    kf_json_close(&j, '}');
    assert_str(
        kf_sbuf_view(&out),
        "{\n"
        "  \"s\": "
        "\"\\\"\\\\\\n\\u0001\xc3\xa9\\ufffd\\ufffd\\ufffd\\ufffd\xf0\x9f\x98\x80\\ufffd\",\n"
        "  \"i\": -9223372036854775808,\n"
        "  \"d\": 0.5,\n"
        "  \"n\": null,\n"
        "  \"b\": true,\n"
        "  \"empty\": [],\n"
        "  \"list\": [\n"
        "    1,\n"
        "    \"x\",\n"
        "    null\n"
        "  ]\n"
        "}\n");
}

/* ---- check ----------------------------------------------------------------------------------- */

static void leave_evidence(void *user, const char *sentence)
{
    (void)user;
    kf_fs_write("base_crash.txt", kf_str_from(sentence), 0644);
    KF_ASSERT(false, "the hook itself fails");
}

static void break_an_invariant(void)
{
    kf_check_set_hook(leave_evidence, NULL);
    kf_check_set_context("pass x", "@layer");
    KF_ASSERT(1 + 1 == 3, "sums are right");
}

static void broken_invariant_exits_70(void **state)
{
    (void)state;
    assert_int_equal(status_of(break_an_invariant), 70);
    assert_str(read_back("base_crash.txt"), "sums are right");
    assert_int_equal(unlink("base_crash.txt"), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(arena_aligns_and_zeroes),
        T(arena_restore_returns_blocks),
        T(arena_grows_in_place),
        T(arena_exhaustion_exits_5),
#ifdef __SANITIZE_ADDRESS__
        T(arena_errors_are_seen_by_the_sanitizer),
#endif
        T(vec_keeps_its_elements),
        T(str_compares),
        T(str_distance_is_osa),
        T(str_nearest_suggests),
        T(numbers_print_shortest),
        T(numbers_read_back),
        T(sbuf_builds_and_quotes),
        T(diag_prints_carets),
        T(diag_clips_long_lines),
        T(diag_limits_and_merges),
        T(diag_codes_are_described),
        T(diag_writes_json),
        T(fs_writes_and_reads),
        T(fs_keeps_the_old_file_until_commit),
        T(fs_reports_a_full_disk),
        T(fs_handles_paths),
        T(hash_is_xxh3_128),
        T(json_is_valid_whatever_comes),
        T(broken_invariant_exits_70),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
