/* SPDX-License-Identifier: Apache-2.0 */
/* reprint - print(parse(text)) equals text, for each FILE: a module or a plan as kerf printed it.
 *
 *   reprint FILE...      0: all equal; 1: the first difference of each file that is not
 */
#include "base/fs.h"
#include "ir/plan.h"
#include "ir/text.h"

#include <stdio.h>
#include <string.h>

/** A plan begins with that word, behind comments. */
static bool is_plan(kf_str text)
{
    const char *p = text.ptr, *end = text.ptr + text.len;

    while (p < end && (*p == ';' || *p == '\n')) {
        const char *line = memchr(p, '\n', (size_t)(end - p));
        p = line ? line + 1 : end;
    }
    return kf_str_starts_with((kf_str){p, (uint32_t)(end - p)}, "plan");
}

static uint32_t line_of_difference(kf_str a, kf_str b)
{
    uint32_t line = 1;

    for (uint32_t i = 0; i < a.len && i < b.len && a.ptr[i] == b.ptr[i]; i++)
        line += a.ptr[i] == '\n';
    return line;
}

/** The text printed again, with places if it has any; false when it does not parse. */
static bool reprint(kf_arena *arena, kf_diags *d, const char *path, kf_str text, kf_sbuf *out)
{
    if (is_plan(text)) {
        kf_plan *p = kf_plan_parse(arena, d, kf_str_from(path), text);
        if (p)
            kf_plan_print(p, KF_PRINT_LOCS, out);
        return p != NULL;
    }
    kf_module *m = kf_module_parse(arena, d, kf_str_from(path), text);
    if (m)
        kf_module_print(m, KF_PRINT_LOCS, out);
    return m != NULL;
}

static bool check(const char *path)
{
    kf_arena *arena = kf_arena_create("reprint");
    kf_diags *d = kf_diags_create(arena);
    kf_sbuf again = {.arena = arena};
    kf_str text;
    bool ok = false;

    if (kf_fs_read(arena, path, 64u << 20, &text))
        fprintf(stderr, "reprint: cannot read %s\n", path);
    else if (!text.len || !reprint(arena, d, path, text, &again))
        kf_diags_print(d, stderr, false);
    else if (!kf_str_eq(text, kf_sbuf_view(&again)))
        fprintf(stderr, "reprint: %s:%u is printed differently\n", path,
                line_of_difference(text, kf_sbuf_view(&again)));
    else
        ok = true;
    kf_arena_destroy(arena);
    return ok;
}

int main(int argc, char **argv)
{
    int wrong = 0;

    for (int i = 1; i < argc; i++)
        wrong += !check(argv[i]);
    printf("reprint: %d files, %d differ\n", argc - 1, wrong);
    return argc < 2 || wrong;
}
