/* SPDX-License-Identifier: Apache-2.0 */
/* contract - see contract.h. */
#include "passes/contract.h"

#include "ir/phase.h"

#include <fnmatch.h>
#include <string.h>

#define MAX_NOTES 16

/* ---- reading --------------------------------------------------------------------------------- */

static void unknown_kind(kf_diags *d, kf_str text, kf_loc loc, kf_str word)
{
    kf_str known[KF_KIND_COUNT - 1];
    kf_diag *e = kf_diag_add(d, KF_E0130, loc, "'%.*s': '%.*s' is no kind of candidate",
                             KF_STR_ARG(text), KF_STR_ARG(word));

    for (int k = 1; k < KF_KIND_COUNT; k++)
        known[k - 1] = kf_str_from(kf_kind_names[k]);
    kf_str near = kf_str_nearest(word, known, KF_KIND_COUNT - 1);
    if (near.len)
        kf_diag_hint(d, e, "did you mean '%.*s'?", KF_STR_ARG(near));
}

/* |part| of the pattern |text|: KIND [GLOB] */
static bool read_part(kf_arena *arena, kf_diags *d, kf_str text, kf_loc loc, kf_str part,
                      kf_pattern_part *out)
{
    part = kf_str_trim(part);
    const char *space = memchr(part.ptr, ' ', part.len);
    kf_str word = {part.ptr, space ? (uint32_t)(space - part.ptr) : part.len};
    kf_str glob = kf_str_trim((kf_str){part.ptr + word.len, part.len - word.len});

    if (!word.len || (glob.len && memchr(glob.ptr, ' ', glob.len))) {
        kf_diag_add(d, KF_E0130, loc, "'%.*s': a part is a kind, or a kind and a name or glob",
                    KF_STR_ARG(text));
        return false;
    }
    *out = (kf_pattern_part){kf_kind_find(word), NULL};
    if (out->kind == KF_KIND_NONE && !kf_str_eq_c(word, "*")) {
        unknown_kind(d, text, loc, word);
        return false;
    }
    if (glob.len && glob.ptr[0] == '%')
        glob = (kf_str){glob.ptr + 1, glob.len - 1};
    out->glob = glob.len ? kf_str_dup(arena, glob).ptr : NULL;
    return true;
}

/* Place of |sign| in |s|, or s.len. */
static uint32_t find(kf_str s, const char *sign)
{
    size_t n = strlen(sign);

    for (uint32_t i = 0; i + n <= s.len; i++)
        if (!memcmp(s.ptr + i, sign, n))
            return i;
    return s.len;
}

bool kf_pattern_parse(kf_arena *arena, kf_diags *d, kf_str text, kf_loc loc, kf_pattern *out)
{
    uint32_t at = find(text, "@"), arrow;
    kf_str parts = {text.ptr, at};

    *out = (kf_pattern){.text = text, .loc = loc};
    if (at < text.len) {
        kf_str func = kf_str_trim((kf_str){text.ptr + at + 1, text.len - at - 1});
        if (!func.len || memchr(func.ptr, ' ', func.len)) {
            kf_diag_add(d, KF_E0130, loc, "'%.*s': '@' is followed by a function or a glob",
                        KF_STR_ARG(text));
            return false;
        }
        out->func = kf_str_dup(arena, func).ptr;
    }
    arrow = find(parts, "->");
    out->has_to = arrow < parts.len;
    return read_part(arena, d, text, loc, (kf_str){parts.ptr, arrow}, &out->from) &&
           (!out->has_to ||
            read_part(arena, d, text, loc, (kf_str){parts.ptr + arrow + 2, parts.len - arrow - 2},
                      &out->to));
}

/* ---- matching -------------------------------------------------------------------------------- */

static bool glob_matches(const char *glob, kf_str name)
{
    char text[256];

    if (name.len >= sizeof text)
        return false;
    memcpy(text, name.ptr, name.len);
    text[name.len] = 0;
    return !fnmatch(glob, text, 0);
}

/* |what| is a list of names: "%wq, %wk". */
static bool names_match(const char *glob, kf_str what)
{
    for (uint32_t i = 0; i < what.len;) {
        uint32_t end = i;
        while (end < what.len && what.ptr[end] != ',')
            end++;
        kf_str name = kf_str_trim((kf_str){what.ptr + i, end - i});
        if (name.len && name.ptr[0] == '%')
            name = (kf_str){name.ptr + 1, name.len - 1};
        if (glob_matches(glob, name))
            return true;
        i = end + 1;
    }
    return false;
}

static bool part_matches(const kf_pattern_part *p, const kf_subject_part *part)
{
    if (p->kind != KF_KIND_NONE && p->kind != part->kind)
        return false;
    return !p->glob || names_match(p->glob, part->what);
}

static bool func_matches(const char *glob, kf_str func)
{
    char name[256];
    const char *dot = memchr(func.ptr, '.', func.len);

    if (glob_matches(glob, func))
        return true;
    if (dot)
        return glob_matches(glob, (kf_str){func.ptr, (uint32_t)(dot - func.ptr)});
    for (int i = 0; i < KF_PHASE_ID_COUNT; i++) {
        int len = snprintf(name, sizeof name, "%.*s.%s", KF_STR_ARG(func), kf_phase_infos[i].name);
        if (len > 0 && len < (int)sizeof name && !fnmatch(glob, name, 0))
            return true;
    }
    return false;
}

bool kf_pattern_matches(const kf_pattern *p, const kf_candidate *c)
{
    return part_matches(&p->from, &c->parts.from) &&
           (!p->has_to ||
            (c->parts.to.kind != KF_KIND_NONE && part_matches(&p->to, &c->parts.to))) &&
           (!p->func || func_matches(p->func, c->func));
}

const kf_pattern *kf_contract_forbids(const kf_pass_ctx *cx, const kf_candidate *c)
{
    for (uint32_t i = 0; cx->contract && i < cx->contract->forbid.len; i++)
        if (kf_pattern_matches(&cx->contract->forbid.data[i], c))
            return &cx->contract->forbid.data[i];
    return NULL;
}

/* ---- checking -------------------------------------------------------------------------------- */

/* True if the candidate |c| was refused in one place and a matching one of the same op, or with the
 * same subject, was fused in another. */
static bool is_overcome(const kf_pass_ctx *cx, const kf_pattern *p, const kf_candidate *c)
{
    for (uint32_t i = 0; i < cx->candidates.len; i++) {
        const kf_candidate *k = &cx->candidates.data[i];
        if (k->reason == KF_REASON_NONE && kf_candidate_is_same(k, c) && kf_pattern_matches(p, k))
            return true;
    }
    return false;
}

/* Says once for all functions what stood in the way of |c|; false if an earlier candidate said it.
 */
static bool note_refusal(const kf_pass_ctx *cx, const kf_module *m, const kf_pattern *p,
                         uint32_t index, kf_diags *d, kf_diag *e)
{
    const kf_candidate *c = &cx->candidates.data[index];
    kf_sbuf funcs = {.arena = cx->scratch};

    for (uint32_t i = 0; i < cx->candidates.len; i++) {
        const kf_candidate *k = &cx->candidates.data[i];
        if (k->reason != c->reason || !kf_str_eq(k->subject, c->subject) ||
            k->loc.line != c->loc.line || k->loc.col != c->loc.col ||
            !kf_str_eq(k->detail, c->detail) || !kf_pattern_matches(p, k) || is_overcome(cx, p, k))
            continue;
        if (i < index)
            return false;
        kf_sbuf_printf(&funcs, "%s@%.*s", funcs.len ? ", " : "", KF_STR_ARG(k->func));
    }
    kf_diag_note(d, e, kf_module_diag_loc(m, d, c->loc), "%.*s in %.*s: %s: %s%s%.*s",
                 KF_STR_ARG(c->subject), KF_STR_ARG(kf_sbuf_view(&funcs)),
                 kf_reason_codes[c->reason], kf_reason_texts[c->reason], c->detail.len ? ": " : "",
                 KF_STR_ARG(c->detail));
    return true;
}

/* Where there is more to read. */
static void note_more(kf_diags *d, kf_diag *e, kf_reason reason)
{
    if (reason != KF_REASON_NONE)
        kf_diag_note(d, e, KF_NO_LOC,
                     "`kerf explain %s` says more about the reason, `kerf explain SPEC` lists all "
                     "candidates",
                     kf_reason_codes[reason]);
    else
        kf_diag_note(d, e, KF_NO_LOC, "`kerf explain SPEC` lists all candidates");
}

static void report_refusals(const kf_pass_ctx *cx, const kf_module *m, const kf_pattern *p,
                            uint32_t refused, uint32_t all, kf_diags *d)
{
    kf_diag *e = kf_diag_add(d, KF_E0131, p->loc,
                             "build.fusion.require: '%.*s' is not met: %u of %u candidates refused",
                             KF_STR_ARG(p->text), refused, all);
    kf_reason reason = KF_REASON_NONE;
    uint32_t notes = 0;

    for (uint32_t i = 0; i < cx->candidates.len && notes < MAX_NOTES; i++) {
        const kf_candidate *c = &cx->candidates.data[i];
        if (c->reason == KF_REASON_NONE || !kf_pattern_matches(p, c) || is_overcome(cx, p, c))
            continue;
        if (reason == KF_REASON_NONE)
            reason = c->reason;
        notes += note_refusal(cx, m, p, i, d, e);
    }
    note_more(d, e, reason);
}

/* |word|, if |list| does not have it yet. */
static void list_once(kf_sbuf *list, kf_str word)
{
    kf_str have = kf_sbuf_view(list);

    for (uint32_t i = 0; i + word.len <= have.len; i++) {
        bool begins = !i || have.ptr[i - 1] == ' ';
        bool ends = i + word.len == have.len || have.ptr[i + word.len] == ',';
        if (begins && ends && !memcmp(have.ptr + i, word.ptr, word.len))
            return;
    }
    kf_sbuf_printf(list, "%s%.*s", list->len ? ", " : "", KF_STR_ARG(word));
}

/* What did occur where one part of |p| after the other is left out. */
typedef struct near_miss {
    kf_sbuf funcs;      /* all fits but the function */
    kf_sbuf froms, tos; /* the kinds fit, names do not: names that are there */
    kf_sbuf joined;     /* the first kind fits: what it joins */
    kf_sbuf kinds;      /* all of the first parts */
} near_miss;

static void collect(const kf_pass_ctx *cx, const kf_pattern *p, near_miss *out)
{
    kf_pattern anywhere = *p, nameless = *p, first = {.from = {.kind = p->from.kind}};

    anywhere.func = nameless.func = nameless.from.glob = nameless.to.glob = NULL;
    for (uint32_t i = 0; i < cx->candidates.len; i++) {
        const kf_candidate *c = &cx->candidates.data[i];
        const kf_subject_part *from = &c->parts.from, *to = &c->parts.to;
        if (kf_pattern_matches(&anywhere, c))
            list_once(&out->funcs, kf_strf(cx->scratch, "@%.*s", KF_STR_ARG(c->func)));
        if (kf_pattern_matches(&nameless, c) && p->from.glob && from->what.len)
            list_once(&out->froms, from->what);
        if (kf_pattern_matches(&nameless, c) && p->to.glob && to->what.len)
            list_once(&out->tos, to->what);
        if (kf_pattern_matches(&first, c) && to->kind != KF_KIND_NONE)
            list_once(&out->joined, kf_str_from(kf_kind_names[to->kind]));
        list_once(&out->kinds, kf_str_from(kf_kind_names[from->kind]));
    }
}

static void note_list(kf_diags *d, kf_diag *e, const char *what, const kf_sbuf *list)
{
    if (list->len)
        kf_diag_note(d, e, KF_NO_LOC, "%s: %.*s", what, KF_STR_ARG(kf_sbuf_view(list)));
}

/* The first of these says what is wrong with the pattern. */
static void note_near_miss(const kf_pass_ctx *cx, const kf_pattern *p, kf_diags *d, kf_diag *e)
{
    kf_sbuf list = {.arena = cx->scratch};
    near_miss n = {list, list, list, list, list};

    collect(cx, p, &n);
    if (n.funcs.len)
        note_list(d, e, "there are such candidates in other functions", &n.funcs);
    else if (n.froms.len || n.tos.len) {
        note_list(d, e, "names of the first part", &n.froms);
        note_list(d, e, "names of the second part", &n.tos);
    } else if (n.joined.len)
        note_list(d, e, "what it joins", &n.joined);
    else
        note_list(d, e, "kinds that occurred", &n.kinds);
}

static bool check_required(const kf_pass_ctx *cx, const kf_module *m, const kf_pattern *p,
                           kf_diags *d)
{
    uint32_t all = 0, refused = 0;

    for (uint32_t i = 0; i < cx->candidates.len; i++) {
        const kf_candidate *c = &cx->candidates.data[i];
        if (!kf_pattern_matches(p, c) || (c->reason != KF_REASON_NONE && is_overcome(cx, p, c)))
            continue;
        all++;
        refused += c->reason != KF_REASON_NONE;
    }
    if (all && !refused)
        return true;
    if (all) {
        report_refusals(cx, m, p, refused, all, d);
        return false;
    }
    kf_diag *e = kf_diag_add(d, KF_E0131, p->loc,
                             "build.fusion.require: '%.*s' matches no candidate of this model",
                             KF_STR_ARG(p->text));
    note_near_miss(cx, p, d, e);
    note_more(d, e, KF_REASON_NONE);
    return false;
}

bool kf_contract_check(const kf_pass_ctx *cx, const kf_module *m, kf_diags *d)
{
    bool ok = true;

    for (uint32_t i = 0; cx->contract && i < cx->contract->require.len; i++)
        ok &= check_required(cx, m, &cx->contract->require.data[i], d);
    return ok;
}
