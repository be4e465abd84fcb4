/* SPDX-License-Identifier: Apache-2.0 */
/* Growing buffers, and looking for the matches of a step's literal or PCRE2 pattern. */
#include "runtime/tokenizer_internal.h"
#include "runtime/utf8.h"

kf_status kf_tok_buf_reserve(kf_tok_buf *b, size_t more_bytes)
{
    if (more_bytes <= b->cap - b->len)
        return KF_OK;
    if (more_bytes > SIZE_MAX / 4 - b->len)
        return KF_ERR_MEMORY;
    size_t cap = b->cap < 256 ? 256 : b->cap;
    while (cap < b->len + more_bytes)
        cap *= 2;
    char *data = (char *)b->alloc->alloc(b->alloc->user, cap, 16);
    if (data == NULL)
        return KF_ERR_MEMORY;
    if (b->len > 0)
        memcpy(data, b->data, b->len);
    if (b->data != NULL)
        b->alloc->free(b->alloc->user, b->data, b->cap);
    b->data = data;
    b->cap = cap;
    return KF_OK;
}

kf_status kf_tok_buf_append(kf_tok_buf *b, const char *s, size_t n)
{
    if (n == 0)
        return KF_OK;
    KF_TOK_TRY(kf_tok_buf_reserve(b, n));
    memcpy(b->data + b->len, s, n);
    b->len += n;
    return KF_OK;
}

void kf_tok_buf_free(kf_tok_buf *b)
{
    if (b->data != NULL)
        b->alloc->free(b->alloc->user, b->data, b->cap);
    b->data = NULL;
    b->len = b->cap = 0;
}

void kf_tok_finder_init(kf_tok_finder *f, const kf_tokenizer *tok, const kf_tok_step *step,
                        pcre2_match_data *match, const char *text, size_t len)
{
    *f = (kf_tok_finder){
        .tok = tok, .step = step, .match = match, .text = text, .len = len, .last_end = SIZE_MAX};
}

static bool find_literal(kf_tok_finder *f, size_t *out_start, size_t *out_end)
{
    size_t n = f->step->op->text.len;
    const char *at = f->text + f->at;
    const char *end = f->text + f->len;
    while ((size_t)(end - at) >= n) {
        at = (const char *)memchr(at, f->step->text[0], (size_t)(end - at) - n + 1);
        if (at == NULL)
            return false;
        if (memcmp(at, f->step->text, n) == 0) {
            *out_start = (size_t)(at - f->text);
            *out_end = *out_start + n;
            f->at = *out_end;
            return true;
        }
        at++;
    }
    return false;
}

/* An empty match right behind the last match is not one; the search goes on one character later
 * (the rule of rust-onig's find_iter, which the library uses). */
static kf_status find_regex(kf_tok_finder *f, bool *out_found, size_t *out_start, size_t *out_end)
{
    *out_found = false;
    while (f->at <= f->len) {
        PCRE2_SPTR text = (PCRE2_SPTR)f->text;
        int rc = pcre2_match(f->step->regex, text, f->len, f->at, PCRE2_NO_UTF_CHECK, f->match,
                             f->tok->matching);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(f->step->regex, text, f->len, f->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                             f->match, f->tok->matching);
        if (rc == PCRE2_ERROR_NOMATCH)
            return KF_OK;
        if (rc < 0)
            return rc == PCRE2_ERROR_NOMEMORY ? KF_ERR_MEMORY : KF_ERR_INPUT;
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(f->match);
        if (span[0] > span[1]) /* \K in a look-ahead */
            return KF_ERR_INPUT;
        if (span[0] == span[1] && span[1] == f->last_end) {
            uint32_t cp;
            f->at += f->at < f->len ? kf_utf8_next(f->text + f->at, &cp) : 1;
            continue;
        }
        *out_found = true;
        *out_start = span[0];
        *out_end = f->at = f->last_end = span[1];
        return KF_OK;
    }
    return KF_OK;
}

kf_status kf_tok_finder_next(kf_tok_finder *f, bool *out_found, size_t *out_start, size_t *out_end)
{
    if (f->step->regex != NULL)
        return find_regex(f, out_found, out_start, out_end);
    *out_found = find_literal(f, out_start, out_end);
    return KF_OK;
}

kf_status kf_tok_replace(const kf_tokenizer *tok, const kf_tok_step *step, pcre2_match_data *match,
                         const char *text, size_t len, kf_tok_buf *out)
{
    kf_tok_finder f;
    size_t done = 0;
    kf_tok_finder_init(&f, tok, step, match, text, len);
    while (len > 0) { /* the library looks for no match in an empty text */
        bool found;
        size_t start, end;
        KF_TOK_TRY(kf_tok_finder_next(&f, &found, &start, &end));
        if (!found)
            break;
        KF_TOK_TRY(kf_tok_buf_append(out, text + done, start - done));
        KF_TOK_TRY(kf_tok_buf_append(out, step->text2, step->op->text2.len));
        done = end;
    }
    return kf_tok_buf_append(out, text + done, len - done);
}
