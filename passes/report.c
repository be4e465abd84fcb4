/* SPDX-License-Identifier: Apache-2.0 */
/* report - the log of fusion candidates: one grammar of subjects, each candidate logged once.
 *
 * It is not where candidates are printed (driver) nor where contracts are read (contract.c).
 */
#include "base/check.h"
#include "passes/contract.h"
#include "passes/match.h"

#include <string.h>

#ifndef KF_CHECKS
#define KF_CHECKS 0
#endif

const char *const kf_reason_codes[KF_REASON_COUNT] = {
    "",
#define REASON(code, text, more) #code,
#include "passes/reasons.def"
#undef REASON
};

const char *const kf_reason_texts[KF_REASON_COUNT] = {
    "",
#define REASON(code, text, more) text,
#include "passes/reasons.def"
#undef REASON
};

const char *const kf_reason_helps[KF_REASON_COUNT] = {
    "",
#define REASON(code, text, more) more,
#include "passes/reasons.def"
#undef REASON
};

const char *const kf_kind_names[KF_KIND_COUNT] = {
    "",
#define KIND(name, meaning) #name,
#include "passes/kinds.def"
#undef KIND
};

/* ---- subjects -------------------------------------------------------------------------------- */

kf_kind kf_kind_find(kf_str name)
{
    for (int k = 1; k < KF_KIND_COUNT; k++)
        if (kf_str_eq_c(name, kf_kind_names[k]))
            return (kf_kind)k;
    return KF_KIND_NONE;
}

/* KIND [what] */
static bool parse_part(kf_str text, kf_subject_part *out)
{
    const char *space = memchr(text.ptr, ' ', text.len);
    uint32_t len = space ? (uint32_t)(space - text.ptr) : text.len;

    out->kind = kf_kind_find((kf_str){text.ptr, len});
    out->what = space ? (kf_str){space + 1, text.len - len - 1} : (kf_str){"", 0};
    return out->kind != KF_KIND_NONE;
}

bool kf_subject_parse(kf_str text, kf_subject *out)
{
    static const char arrow[] = " -> ";
    const uint32_t width = sizeof arrow - 1;
    kf_subject_part to = {0};

    *out = (kf_subject){0};
    for (uint32_t i = 0; i + width <= text.len; i++) {
        if (memcmp(text.ptr + i, arrow, width))
            continue;
        if (!parse_part((kf_str){text.ptr + i + width, text.len - i - width}, &to))
            return false;
        out->to = to;
        return parse_part((kf_str){text.ptr, i}, &out->from);
    }
    return parse_part(text, &out->from);
}

/* ---- the log --------------------------------------------------------------------------------- */

/* A pass that runs twice, or starts over after each step, meets a refused candidate again. */
static bool is_logged(const kf_pass_ctx *cx, const kf_candidate *c)
{
    for (uint32_t i = 0; i < cx->candidates.len; i++) {
        const kf_candidate *k = &cx->candidates.data[i];
        if (k->pass == c->pass && k->reason == c->reason &&
            !memcmp(&k->loc, &c->loc, sizeof c->loc) && kf_str_eq(k->func, c->func) &&
            kf_str_eq(k->subject, c->subject) && kf_str_eq(k->detail, c->detail))
            return true;
    }
    return false;
}

/* Logs |c|; false if it was to be fused and a contract forbids it: it is then logged as refused. */
static bool log_candidate(kf_pass_ctx *cx, const kf_graph *g, kf_candidate c)
{
    bool known = kf_subject_parse(c.subject, &c.parts);

    KF_ASSERT(known || !KF_CHECKS, "the subject of a candidate is made of kinds (kinds.def)");
    c.pass = cx->current;
    c.func = g->name;
    if (c.detail.len)
        c.detail = kf_str_dup(cx->arena, c.detail);
    const kf_pattern *by = c.reason == KF_REASON_NONE ? kf_contract_forbids(cx, &c) : NULL;
    if (by) {
        c.reason = KF_REASON_F0290;
        c.detail = kf_strf(cx->arena, "'%.*s'", KF_STR_ARG(by->text));
    }
    if (!is_logged(cx, &c))
        kf_vec_push(cx->arena, &cx->candidates, c);
    return by == NULL;
}

static kf_str vformat(kf_arena *a, const char *fmt, va_list ap)
{
    kf_sbuf b = {.arena = a};

    kf_sbuf_vprintf(&b, fmt, ap);
    return kf_sbuf_view(&b);
}

bool kf_report_fused(kf_pass_ctx *cx, const kf_graph *g, kf_loc loc, const char *fmt, ...)
{
    kf_candidate c = {.loc = loc};
    va_list ap;

    va_start(ap, fmt);
    c.subject = vformat(cx->arena, fmt, ap);
    va_end(ap);
    return log_candidate(cx, g, c);
}

void kf_report_refused(kf_pass_ctx *cx, const kf_graph *g, kf_loc loc, kf_reason reason,
                       kf_str detail, const char *fmt, ...)
{
    kf_candidate c = {.loc = loc, .reason = reason, .detail = detail};
    va_list ap;

    va_start(ap, fmt);
    c.subject = vformat(cx->arena, fmt, ap);
    va_end(ap);
    log_candidate(cx, g, c);
}

void kf_report_node_refused(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n, kf_reason reason,
                            kf_str subject)
{
    kf_candidate c = {.loc = n->loc, .reason = reason, .serial = n->serial, .subject = subject};

    log_candidate(cx, g, c);
}

void kf_report_withdraw(kf_pass_ctx *cx, uint32_t from)
{
    for (uint32_t i = from; i < cx->candidates.len; i++) {
        kf_candidate *c = &cx->candidates.data[i];
        if (c->reason != KF_REASON_NONE)
            continue;
        c->reason = KF_REASON_F0290;
        c->detail = KF_STR("for another part of the same rewrite");
    }
}

/* ---- ops that join a region ------------------------------------------------------------------ */

static kf_candidate join_of(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n,
                            const kf_node *root)
{
    kf_str from = kf_node_title(cx->arena, g, n), to = kf_node_title(cx->arena, g, root);
    kf_str subject = kf_strf(cx->arena, "%.*s -> %.*s", KF_STR_ARG(from), KF_STR_ARG(to));

    return (kf_candidate){.loc = n->loc, .subject = subject, .serial = n->serial};
}

bool kf_report_joined(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n, const kf_node *root)
{
    return log_candidate(cx, g, join_of(cx, g, n, root));
}

void kf_report_not_joined(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n, const kf_node *root,
                          kf_reason reason, kf_str detail)
{
    kf_candidate c = join_of(cx, g, n, root);

    c.reason = reason;
    c.detail = detail;
    log_candidate(cx, g, c);
}

bool kf_report_forbidden(kf_pass_ctx *cx, const kf_graph *g, const kf_node *n, const kf_node *root)
{
    if (!cx->contract || !cx->contract->forbid.len) /* asked for every op that a region meets */
        return false;
    kf_candidate c = join_of(cx, g, n, root);
    bool known = kf_subject_parse(c.subject, &c.parts);
    c.func = g->name;
    return known && kf_contract_forbids(cx, &c) && !log_candidate(cx, g, c);
}

bool kf_candidate_is_same(const kf_candidate *a, const kf_candidate *b)
{
    if (!kf_str_eq(a->func, b->func))
        return false;
    if (a->serial && a->serial == b->serial)
        return true;
    return kf_str_eq(a->subject, b->subject) && a->loc.line == b->loc.line &&
           a->loc.col == b->loc.col && a->loc.file == b->loc.file;
}

bool kf_candidate_is_overcome(const kf_pass_ctx *cx, const kf_candidate *c)
{
    if (c->reason == KF_REASON_NONE)
        return false;
    for (uint32_t i = 0; i < cx->candidates.len; i++) {
        const kf_candidate *k = &cx->candidates.data[i];
        if (k->reason == KF_REASON_NONE && kf_candidate_is_same(k, c))
            return true;
    }
    return false;
}

kf_str kf_candidate_file(const kf_module *m, const kf_candidate *c)
{
    return c->loc.file ? m->files.data[c->loc.file - 1] : (kf_str){"", 0};
}
