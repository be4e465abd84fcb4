/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding: a chain of stages through which each token's text goes as it comes.
 *
 * Before the first DEC_FUSE or DEC_BYTES a stage sees whole tokens; behind it the text of all
 * tokens is one token that arrives in chunks. Every chunk is well-formed UTF-8, so what leaves the
 * chain is, too. Decoding at once is the same code with one call per token, hence streamed == at
 * once.
 */
#include "runtime/tokenizer_internal.h"
#include "runtime/utf8.h"

typedef struct stage {
    const kf_tok_step *step;
    bool chunked;        /* behind DEC_FUSE or DEC_BYTES */
    bool started;        /* a token has passed */
    uint32_t n_start;    /* chunked strip: characters cut off so far; UINT32_MAX: done */
    kf_utf8_lossy lossy; /* DEC_BYTES */
    kf_tok_buf held;     /* DEC_BYTE_FALLBACK: the run; chunked replace and strip: undecided text */
    kf_tok_buf temp; /* what the stage makes of a token; its followers may still be reading it */
} stage;

struct kf_tok_stream {
    const kf_tokenizer *tok; /* Borrowed. */
    bool skip_special;
    pcre2_match_data *match; /* Owned. */
    kf_tok_buf out;
    uint32_t n_stages;
    stage stages[KF_TOK_MAX_OPS];
};

static kf_status emit(kf_tok_stream *d, uint32_t at, const char *text, size_t len);

/* ---- Byte fallback --------------------------------------------------------------------------- */

/* As Rust's u8::from_str_radix(.., 16) reads the two characters: a '+' may stand before one digit.
 */
static int hex_pair(const char *s)
{
    int v = 0;
    for (int i = 0; i < 2; i++) {
        int c = (uint8_t)s[i];
        if (i == 0 && c == '+')
            continue;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

static int fallback_byte(const char *text, size_t len)
{
    bool shaped = len == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>';
    return shaped ? hex_pair(text + 3) : -1;
}

/* A run that is not well-formed as a whole becomes one U+FFFD a byte, each a token. */
static kf_status flush_run(kf_tok_stream *d, uint32_t at)
{
    kf_tok_buf *run = &d->stages[at].held;
    size_t n = run->len;
    run->len = 0;
    if (n == 0)
        return KF_OK;
    if (kf_utf8_valid(run->data, n))
        return emit(d, at + 1, run->data, n);
    for (size_t i = 0; i < n; i++)
        KF_TOK_TRY(emit(d, at + 1, KF_UTF8_REPLACEMENT, 3));
    return KF_OK;
}

static kf_status byte_fallback(kf_tok_stream *d, uint32_t at, const char *text, size_t len)
{
    int byte = fallback_byte(text, len);
    if (byte >= 0) {
        char c = (char)byte;
        return kf_tok_buf_append(&d->stages[at].held, &c, 1);
    }
    KF_TOK_TRY(flush_run(d, at));
    return emit(d, at + 1, text, len);
}

/* ---- Byte alphabet --------------------------------------------------------------------------- */

typedef struct lossy_target {
    kf_tok_stream *stream;
    uint32_t at;
    kf_status status;
} lossy_target;

static bool emit_decided(void *user, const char *text, size_t len)
{
    lossy_target *target = (lossy_target *)user;
    target->status = emit(target->stream, target->at, text, len);
    return target->status == KF_OK;
}

/* A token with a character outside the alphabet is taken as it is. */
static kf_status from_bytes(kf_tok_stream *d, uint32_t at, const char *text, size_t len)
{
    kf_tok_buf *bytes = &d->stages[at].temp;
    bytes->len = 0;
    KF_TOK_TRY(kf_tok_buf_reserve(bytes, len + 1));
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        i += kf_utf8_next(text + i, &cp);
        int byte = kf_tok_char_byte(cp);
        if (byte < 0) {
            bytes->len = 0;
            KF_TOK_TRY(kf_tok_buf_append(bytes, text, len));
            break;
        }
        bytes->data[bytes->len++] = (char)byte;
    }
    lossy_target target = {d, at + 1, KF_OK};
    (void)kf_utf8_lossy_feed(&d->stages[at].lossy, bytes->data, bytes->len, emit_decided, &target);
    return target.status;
}

/* ---- Replace --------------------------------------------------------------------------------- */

/* Length of the longest end of |text| that begins the literal without being all of it. */
static size_t partial_match(const kf_tok_step *step, const char *text, size_t len)
{
    size_t n = step->op->text.len - 1u;
    for (n = n < len ? n : len; n > 0; n--) {
        if (memcmp(text + len - n, step->text, n) == 0)
            return n;
    }
    return 0;
}

/* A literal over chunked text: what may still become a match is held back. */
static kf_status replace_chunk(kf_tok_stream *d, uint32_t at, const char *text, size_t len,
                               bool is_last)
{
    stage *st = &d->stages[at];
    size_t n_literal = st->step->op->text.len;
    kf_tok_buf *temp = &d->stages[at].temp;
    KF_TOK_TRY(kf_tok_buf_append(&st->held, text, len));
    temp->len = 0;
    kf_tok_finder f;
    size_t done = 0;
    kf_tok_finder_init(&f, d->tok, st->step, d->match, st->held.data, st->held.len);
    for (;;) {
        bool found;
        size_t start, end;
        KF_TOK_TRY(kf_tok_finder_next(&f, &found, &start, &end));
        if (!found)
            break;
        KF_TOK_TRY(kf_tok_buf_append(temp, st->held.data + done, start - done));
        KF_TOK_TRY(kf_tok_buf_append(temp, st->step->text2, st->step->op->text2.len));
        done = start + n_literal;
    }
    size_t rest = st->held.len - done;
    size_t keep = is_last ? 0 : partial_match(st->step, st->held.data + done, rest);
    KF_TOK_TRY(kf_tok_buf_append(temp, st->held.data + done, rest - keep));
    if (keep > 0)
        memmove(st->held.data, st->held.data + st->held.len - keep, keep);
    st->held.len = keep;
    return temp->len > 0 ? emit(d, at + 1, temp->data, temp->len) : KF_OK;
}

static kf_status replace_token(kf_tok_stream *d, uint32_t at, const char *text, size_t len)
{
    kf_tok_buf *temp = &d->stages[at].temp;
    temp->len = 0;
    KF_TOK_TRY(kf_tok_replace(d->tok, d->stages[at].step, d->match, text, len, temp));
    return emit(d, at + 1, temp->data, temp->len);
}

/* ---- Strip ----------------------------------------------------------------------------------- */

static bool begins_with(const char *text, size_t len, const kf_tok_step *step)
{
    return len >= step->op->text.len && memcmp(text, step->text, step->op->text.len) == 0;
}

static bool ends_with(const char *text, size_t len, const kf_tok_step *step)
{
    return len >= step->op->text.len &&
           memcmp(text + len - step->op->text.len, step->text, step->op->text.len) == 0;
}

/* At most op.arg characters at the start, op.behavior at the end. The end is looked at in the whole
 * token, as the library does; where both overlap nothing is left. */
static kf_status strip_token(kf_tok_stream *d, uint32_t at, const char *text, size_t len)
{
    const kf_tok_step *step = d->stages[at].step;
    size_t n = step->op->text.len, start = 0, end = len;
    for (uint32_t i = 0; i < step->op->arg && begins_with(text + start, len - start, step); i++)
        start += n;
    for (uint32_t i = 0; i < step->op->behavior && ends_with(text, end, step); i++)
        end -= n;
    return emit(d, at + 1, text + start, end > start ? end - start : 0);
}

/* The same over chunked text: a possible end is held back until more text follows. */
static kf_status strip_chunk(kf_tok_stream *d, uint32_t at, const char *text, size_t len)
{
    stage *st = &d->stages[at];
    const kf_tok_step *step = st->step;
    size_t n = step->op->text.len;
    while (st->n_start < step->op->arg && begins_with(text, len, step)) {
        st->n_start++;
        text += n;
        len -= n;
    }
    if (len == 0)
        return KF_OK;
    st->n_start = UINT32_MAX;
    KF_TOK_TRY(kf_tok_buf_append(&st->held, text, len));
    size_t possible = 0;
    while (possible / n < step->op->behavior &&
           ends_with(st->held.data, st->held.len - possible, step))
        possible += n;
    size_t out = st->held.len - possible;
    if (out > 0)
        KF_TOK_TRY(emit(d, at + 1, st->held.data, out));
    memmove(st->held.data, st->held.data + out, possible);
    st->held.len = possible;
    return KF_OK;
}

/* ---- Metaspace ------------------------------------------------------------------------------- */

static kf_status from_meta(kf_tok_stream *d, uint32_t at, const char *text, size_t len)
{
    stage *st = &d->stages[at];
    const kf_tok_step *step = st->step;
    kf_tok_buf *temp = &d->stages[at].temp;
    bool drop = step->op->arg == 1 && (st->chunked || !st->started);
    temp->len = 0;
    KF_TOK_TRY(kf_tok_buf_reserve(temp, len + 1));
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        uint32_t n = kf_utf8_next(text + i, &cp);
        if (!begins_with(text + i, len - i, step))
            KF_TOK_TRY(kf_tok_buf_append(temp, text + i, n));
        else if (!drop)
            KF_TOK_TRY(kf_tok_buf_append(temp, " ", 1));
        i += n;
    }
    return emit(d, at + 1, temp->data, temp->len);
}

/* ---- The chain ------------------------------------------------------------------------------- */

static kf_status emit(kf_tok_stream *d, uint32_t at, const char *text, size_t len)
{
    if (at == d->n_stages)
        return kf_tok_buf_append(&d->out, text, len);
    stage *st = &d->stages[at];
    kf_status status = KF_OK;
    switch (st->step->op->kind) {
    case KF_TOK_DEC_BYTES:
        return from_bytes(d, at, text, len);
    case KF_TOK_DEC_BYTE_FALLBACK:
        return byte_fallback(d, at, text, len);
    case KF_TOK_DEC_REPLACE:
        return st->chunked ? replace_chunk(d, at, text, len, false)
                           : replace_token(d, at, text, len);
    case KF_TOK_DEC_STRIP:
        return st->chunked ? strip_chunk(d, at, text, len) : strip_token(d, at, text, len);
    case KF_TOK_DEC_META:
        status = from_meta(d, at, text, len);
        st->started = true;
        return status;
    case KF_TOK_DEC_JOIN:
        if (st->started && !st->chunked)
            status = emit(d, at + 1, st->step->text, st->step->op->text.len);
        st->started = true;
        return status == KF_OK ? emit(d, at + 1, text, len) : status;
    default: /* DEC_FUSE only changes what its followers see */
        return emit(d, at + 1, text, len);
    }
}

static kf_status finish_stage(kf_tok_stream *d, uint32_t at)
{
    stage *st = &d->stages[at];
    lossy_target target = {d, at + 1, KF_OK};
    switch (st->step->op->kind) {
    case KF_TOK_DEC_BYTES:
        (void)kf_utf8_lossy_finish(&st->lossy, emit_decided, &target);
        return target.status;
    case KF_TOK_DEC_BYTE_FALLBACK:
        return flush_run(d, at);
    case KF_TOK_DEC_REPLACE:
        return st->chunked ? replace_chunk(d, at, "", 0, true) : KF_OK;
    default:
        return KF_OK;
    }
}

/* ---- Entry points ---------------------------------------------------------------------------- */

kf_status kf_tok_stream_create(const kf_tokenizer *tok, bool skip_special,
                               kf_tok_stream **out_stream)
{
    const kf_allocator *a = &tok->alloc;
    *out_stream = NULL;
    kf_tok_stream *d = (kf_tok_stream *)a->alloc(a->user, sizeof *d, _Alignof(kf_tok_stream));
    if (d == NULL)
        return KF_ERR_MEMORY;
    memset(d, 0, sizeof *d);
    d->tok = tok;
    d->skip_special = skip_special;
    d->match = pcre2_match_data_create(1, tok->general);
    if (d->match == NULL) {
        a->free(a->user, d, sizeof *d);
        return KF_ERR_MEMORY;
    }
    d->out.alloc = a;
    d->n_stages = tok->dec_steps.n;
    bool chunked = false;
    for (uint32_t i = 0; i < d->n_stages; i++) {
        uint32_t kind = tok->dec_steps.step[i].op->kind;
        d->stages[i].step = &tok->dec_steps.step[i];
        d->stages[i].held.alloc = d->stages[i].temp.alloc = a;
        d->stages[i].chunked = chunked;
        chunked = chunked || kind == KF_TOK_DEC_FUSE || kind == KF_TOK_DEC_BYTES;
    }
    *out_stream = d;
    return KF_OK;
}

void kf_tok_stream_destroy(kf_tok_stream *d)
{
    if (d == NULL)
        return;
    for (uint32_t i = 0; i < d->n_stages; i++) {
        kf_tok_buf_free(&d->stages[i].held);
        kf_tok_buf_free(&d->stages[i].temp);
    }
    kf_tok_buf_free(&d->out);
    pcre2_match_data_free(d->match);
    d->tok->alloc.free(d->tok->alloc.user, d, sizeof *d);
}

/* Forgets everything pushed; also after an error. */
static void reset(kf_tok_stream *d)
{
    d->out.len = 0;
    for (uint32_t i = 0; i < d->n_stages; i++) {
        stage *st = &d->stages[i];
        st->started = false;
        st->n_start = 0;
        st->lossy.n_held = 0;
        st->held.len = 0;
    }
}

static const kf_tok_needle *find_added(const kf_tokenizer *t, uint32_t id)
{
    uint32_t lo = 0, hi = t->n_added;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->added[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->n_added && t->added[lo].id == id ? &t->decode_texts[lo] : NULL;
}

/* Sends one token through the chain; its text is appended to d->out. */
static kf_status push_token(kf_tok_stream *d, uint32_t id)
{
    const char *text;
    size_t len;
    if (!kf_tokenizer_text(d->tok, id, &text, &len))
        return KF_OK;
    if ((d->tok->tokens[id].flags & KF_TOK_ENTRY_ADDED) == 0)
        return emit(d, 0, text, len);
    const kf_tok_needle *added = find_added(d->tok, id);
    if (added == NULL) /* a table whose flag and list disagree */
        return emit(d, 0, text, len);
    return d->skip_special && added->is_special ? KF_OK : emit(d, 0, added->text, added->len);
}

kf_status kf_tok_stream_push(kf_tok_stream *d, uint32_t id, const char **out_text, size_t *out_len)
{
    d->out.len = 0;
    kf_status status = push_token(d, id);
    *out_text = d->out.data;
    *out_len = status == KF_OK ? d->out.len : 0;
    return status;
}

static kf_status finish_stages(kf_tok_stream *d)
{
    for (uint32_t i = 0; i < d->n_stages; i++)
        KF_TOK_TRY(finish_stage(d, i));
    return KF_OK;
}

kf_status kf_tok_stream_finish(kf_tok_stream *d, const char **out_text, size_t *out_len)
{
    d->out.len = 0;
    kf_status status = finish_stages(d);
    size_t len = d->out.len;
    reset(d);
    *out_text = d->out.data;
    *out_len = status == KF_OK ? len : 0;
    return status;
}

kf_status kf_tok_stream_decode(kf_tok_stream *d, const uint32_t *ids, size_t n_ids,
                               const char **out_text, size_t *out_len)
{
    reset(d);
    kf_status status = KF_OK;
    for (size_t i = 0; i < n_ids && status == KF_OK; i++)
        status = push_token(d, ids[i]);
    if (status == KF_OK)
        status = finish_stages(d);
    size_t len = d->out.len;
    reset(d);
    *out_text = d->out.data;
    *out_len = status == KF_OK ? len : 0;
    return status;
}
