/* SPDX-License-Identifier: Apache-2.0 */
/* The normalizer: Unicode forms, prepending, replacing, lower case, stripping.
 *
 * The results follow the tables of the library that defines tokenizer.json, which differ from
 * utf8proc's in characters younger than its own Unicode version; unicode_fix.def lists them.
 * Canonical ordering is done here because utf8proc's is quadratic in a run of combining marks.
 */
#include "runtime/tokenizer_internal.h"
#include "runtime/utf8.h"

#include <utf8proc.h>

typedef struct code_range {
    uint32_t first, last;
} code_range;

/* Characters that normalization leaves alone and does not compose with. */
static const code_range inert_ranges[] = {
#define INERT(first, last) {first, last},
#include "runtime/unicode_fix.def"
#undef INERT
};

/* Lower-case letters that utf8proc does not know: first..last maps to first + delta... */
static const struct {
    uint32_t first, last, to;
} lower_ranges[] = {
#define LOWER(first, last, to) {first, last, to},
#include "runtime/unicode_fix.def"
#undef LOWER
};

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define LONG_RUN 32 /* combining marks; beyond this they are counted instead of inserted */

static bool is_inert(uint32_t cp)
{
    size_t lo = 0, hi = COUNT(inert_ranges);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp > inert_ranges[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < COUNT(inert_ranges) && cp >= inert_ranges[lo].first;
}

static uint32_t combining_class(int32_t cp)
{
    return (uint32_t)utf8proc_get_property(cp)->combining_class & 0xFF;
}

/* Stable sort of a run of |n| marks by class; |spare| has room for them. */
static void sort_marks(int32_t *marks, size_t n, int32_t *spare)
{
    if (n <= LONG_RUN) {
        for (size_t i = 1; i < n; i++) {
            int32_t cp = marks[i];
            uint32_t cls = combining_class(cp);
            size_t at = i;
            for (; at > 0 && combining_class(marks[at - 1]) > cls; at--)
                marks[at] = marks[at - 1];
            marks[at] = cp;
        }
        return;
    }
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++)
        start[combining_class(marks[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        start[c] += start[c - 1];
    for (size_t i = 0; i < n; i++)
        spare[start[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare, n * sizeof *marks);
}

/* Unicode Standard, 3.11 D109: canonical ordering of |n| code points. */
static kf_status order_marks(kf_tok_buf *cps, size_t n)
{
    size_t longest = 0, run = 0;
    int32_t *cp = (int32_t *)(void *)cps->data;
    for (size_t i = 0; i < n; i++) {
        run = combining_class(cp[i]) != 0 ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    if (longest < 2)
        return KF_OK;
    KF_TOK_TRY(kf_tok_buf_reserve(cps, longest * sizeof *cp));
    cp = (int32_t *)(void *)cps->data;
    for (size_t i = 0; i < n; i += run > 0 ? run : 1) {
        for (run = 0; i + run < n && combining_class(cp[i + run]) != 0;)
            run++;
        if (run > 1)
            sort_marks(cp + i, run, cp + n);
    }
    return KF_OK;
}

/* Ends a stretch without inert characters: orders, composes, writes. */
static kf_status flush_stretch(kf_tok_buf *cps, utf8proc_option_t options, kf_tok_buf *out)
{
    size_t n = cps->len / sizeof(int32_t);
    KF_TOK_TRY(order_marks(cps, n));
    int32_t *cp = (int32_t *)(void *)cps->data;
    if (n > 0 && (options & UTF8PROC_COMPOSE) != 0) {
        utf8proc_ssize_t m = utf8proc_normalize_utf32(cp, (utf8proc_ssize_t)n, options);
        if (m < 0)
            return KF_ERR_INPUT;
        n = (size_t)m;
    }
    KF_TOK_TRY(kf_tok_buf_reserve(out, 4 * n));
    for (size_t i = 0; i < n; i++)
        out->len += kf_utf8_encode((uint32_t)cp[i], out->data + out->len);
    cps->len = 0;
    return KF_OK;
}

static kf_status apply_form(kf_tok_scratch *s, uint32_t form, const char *text, size_t len,
                            kf_tok_buf *out)
{
    static const int options_of[KF_TOK_UNICODE_FORMS] = {
        [KF_TOK_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [KF_TOK_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [KF_TOK_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [KF_TOK_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
    enum { MAX_EXPANSION = 32 }; /* U+FDFA has 18 */
    utf8proc_option_t options = (utf8proc_option_t)options_of[form];
    kf_tok_buf *cps = &s->code_points;
    cps->len = 0;
    for (size_t at = 0; at < len;) {
        uint32_t cp;
        at += kf_utf8_next(text + at, &cp);
        KF_TOK_TRY(kf_tok_buf_reserve(cps, MAX_EXPANSION * sizeof(int32_t)));
        int32_t *dst = (int32_t *)(void *)(cps->data + cps->len);
        if (cp < 0x80) {
            *dst = (int32_t)cp;
            cps->len += sizeof *dst;
        } else if (is_inert(cp)) {
            KF_TOK_TRY(flush_stretch(cps, options, out));
            KF_TOK_TRY(kf_tok_buf_reserve(out, 4));
            out->len += kf_utf8_encode(cp, out->data + out->len);
        } else {
            int boundary = 0;
            utf8proc_ssize_t n =
                utf8proc_decompose_char((int32_t)cp, dst, MAX_EXPANSION, options, &boundary);
            if (n < 0 || n > MAX_EXPANSION)
                return KF_ERR_INPUT;
            cps->len += (size_t)n * sizeof *dst;
        }
    }
    return flush_stretch(cps, options, out);
}

static kf_status lower_case(const char *text, size_t len, kf_tok_buf *out)
{
    for (size_t at = 0; at < len;) {
        uint32_t cp;
        at += kf_utf8_next(text + at, &cp);
        KF_TOK_TRY(kf_tok_buf_reserve(out, 8));
        uint32_t lower = (uint32_t)utf8proc_tolower((int32_t)cp);
        for (size_t i = 0; i < COUNT(lower_ranges); i++) {
            if (cp >= lower_ranges[i].first && cp <= lower_ranges[i].last)
                lower = lower_ranges[i].to + (cp - lower_ranges[i].first);
        }
        if (cp == 0x130) /* the one unconditional expansion of SpecialCasing.txt */
            lower = 'i';
        out->len += kf_utf8_encode(lower, out->data + out->len);
        if (cp == 0x130)
            out->len += kf_utf8_encode(0x307, out->data + out->len);
    }
    return KF_OK;
}

/* Bounds of |text| without White_Space on the sides that |sides| names. */
static void strip(uint32_t sides, const char *text, size_t len, size_t *out_start, size_t *out_end)
{
    size_t start = 0, end = len;
    uint32_t cp;
    while ((sides & 1) != 0 && start < end) {
        uint32_t n = kf_utf8_next(text + start, &cp);
        if (!kf_tok_is_space(cp))
            break;
        start += n;
    }
    while ((sides & 2) != 0 && end > start) {
        size_t back = end - 1;
        while (((uint8_t)text[back] & 0xC0) == 0x80)
            back--;
        (void)kf_utf8_next(text + back, &cp);
        if (!kf_tok_is_space(cp))
            break;
        end = back;
    }
    *out_start = start;
    *out_end = end;
}

static kf_status apply_step(kf_tok_scratch *s, const kf_tok_step *step, const char *text,
                            size_t len, kf_tok_buf *out, uint32_t *lead)
{
    size_t start, end;
    switch (step->op->kind) {
    case KF_TOK_NORM_UNICODE:
        return apply_form(s, step->op->arg, text, len, out);
    case KF_TOK_NORM_PREPEND:
        if (len == 0)
            return KF_OK;
        *lead = step->op->text.len + (*lead == KF_TOK_NONE ? 0 : *lead);
        KF_TOK_TRY(kf_tok_buf_append(out, step->text, step->op->text.len));
        return kf_tok_buf_append(out, text, len);
    case KF_TOK_NORM_REPLACE:
        return kf_tok_replace(s->tok, step, s->match, text, len, out);
    case KF_TOK_NORM_LOWERCASE:
        return lower_case(text, len, out);
    case KF_TOK_NORM_STRIP:
        strip(step->op->arg, text, len, &start, &end);
        if (start > 0)
            *lead = KF_TOK_NONE;
        return kf_tok_buf_append(out, text + start, end - start);
    default:
        return KF_ERR_IO;
    }
}

kf_status kf_tok_normalize(kf_tok_scratch *s, const char *text, size_t len, const char **out_text,
                           size_t *out_len, uint32_t *out_lead)
{
    *out_lead = 0;
    for (uint32_t i = 0; i < s->tok->norm_steps.n; i++) {
        kf_tok_buf *out = &s->temp[i % 2];
        out->len = 0;
        KF_TOK_TRY(apply_step(s, &s->tok->norm_steps.step[i], text, len, out, out_lead));
        text = out->data;
        len = out->len;
    }
    *out_text = text;
    *out_len = len;
    return KF_OK;
}
