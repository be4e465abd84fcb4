/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding: cut out the added tokens, normalize, cut out the added tokens that are matched after
 * normalization, pre-tokenize, and give the pieces to the model.
 *
 * The text of all pieces lies in one buffer. A step that cuts makes a new list of pieces; a step
 * that changes text makes a new buffer, too.
 */
#include "runtime/tokenizer_internal.h"
#include "runtime/utf8.h"

bool kf_tok_is_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0D) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

static bool is_byte_char_itself(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

/* The character that stands for |byte| in the byte alphabet: bytes that print as Latin-1 stand for
 *  themselves, the others for U+0100, U+0101, ... (bytes_to_unicode of Radford et al. 2019). */
static uint32_t byte_char(uint8_t byte)
{
    if (is_byte_char_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte == 0xAD ? 0x143u : 0x100u + 0x21u + (byte - 0x7Fu);
}

int kf_tok_char_byte(uint32_t cp)
{
    if (cp < 0x100)
        return is_byte_char_itself(cp) ? (int)cp : -1;
    if (cp <= 0x120)
        return (int)cp - 0x100;
    if (cp <= 0x142)
        return (int)cp - 0x121 + 0x7F;
    return cp == 0x143 ? 0xAD : -1;
}

/* ---- Pieces ---------------------------------------------------------------------------------- */

static kf_tok_piece *pieces_of(const kf_tok_buf *b, size_t *out_n)
{
    *out_n = b->len / sizeof(kf_tok_piece);
    return (kf_tok_piece *)(void *)b->data;
}

static kf_status add_piece(kf_tok_buf *b, kf_tok_piece p)
{
    KF_TOK_TRY(kf_tok_buf_reserve(b, sizeof p));
    memcpy(b->data + b->len, &p, sizeof p);
    b->len += sizeof p;
    return KF_OK;
}

static kf_tok_piece part_of(const kf_tok_piece *parent, size_t start, size_t end)
{
    bool at_start = parent->lead != KF_TOK_NONE && start <= parent->lead;
    return (kf_tok_piece){.offset = parent->offset + start,
                          .len = end - start,
                          .id = KF_TOK_NONE,
                          .lead = at_start ? parent->lead - (uint32_t)start : KF_TOK_NONE};
}

static void swap(kf_tok_buf bufs[2])
{
    kf_tok_buf first = bufs[0];
    bufs[0] = bufs[1];
    bufs[1] = first;
}

/* ---- Added tokens ---------------------------------------------------------------------------- */

/* The longest needle at the start of |text|; KF_TOK_NONE if there is none. Narrows the range of the
 * sorted needles byte by byte. */
static uint32_t longest_needle(const kf_tok_needles *set, const char *text, size_t len)
{
    uint32_t lo = 0, hi = set->n, best = KF_TOK_NONE;
    for (uint32_t depth = 0; lo < hi && depth < len; depth++) {
        uint8_t byte = (uint8_t)text[depth];
        uint32_t a = lo, b = hi;
        while (a < b) { /* first needle whose byte at |depth| is >= byte; shorter ones come first */
            uint32_t mid = a + (b - a) / 2;
            const kf_tok_needle *n = &set->data[mid];
            if (n->len <= depth || (uint8_t)n->text[depth] < byte)
                a = mid + 1;
            else
                b = mid;
        }
        lo = a;
        b = hi;
        while (a < b) {
            uint32_t mid = a + (b - a) / 2;
            if ((uint8_t)set->data[mid].text[depth] <= byte)
                a = mid + 1;
            else
                b = mid;
        }
        hi = a;
        if (lo < hi && set->data[lo].len == depth + 1)
            best = lo;
    }
    return best;
}

static bool is_word_at(const kf_tok_scratch *s, const char *text, size_t len)
{
    return pcre2_match(s->tok->word, (PCRE2_SPTR)text, len, 0, PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED,
                       s->match, s->tok->matching) > 0;
}

static size_t last_char(const char *text, size_t end)
{
    size_t at = end - 1;
    while (((uint8_t)text[at] & 0xC0) == 0x80)
        at--;
    return at;
}

/* Widens the match [*start, *end) as the token asks; false if the token refuses the place. */
static bool fit_match(const kf_tok_scratch *s, uint32_t flags, const char *text, size_t len,
                      size_t done, size_t *start, size_t *end)
{
    uint32_t cp;
    if ((flags & KF_TOK_ADDED_SINGLE_WORD) != 0) {
        if (*start > 0) {
            size_t before = last_char(text, *start);
            if (is_word_at(s, text + before, *start - before))
                return false;
        }
        if (*end < len && is_word_at(s, text + *end, kf_utf8_next(text + *end, &cp)))
            return false;
    }
    while ((flags & KF_TOK_ADDED_LSTRIP) != 0 && *start > 0) {
        size_t before = last_char(text, *start);
        (void)kf_utf8_next(text + before, &cp);
        if (!kf_tok_is_space(cp))
            break;
        *start = before;
    }
    if ((flags & KF_TOK_ADDED_LSTRIP) != 0 && *start < done)
        *start = done;
    while ((flags & KF_TOK_ADDED_RSTRIP) != 0 && *end < len) {
        uint32_t n = kf_utf8_next(text + *end, &cp);
        if (!kf_tok_is_space(cp))
            break;
        *end += n;
    }
    return true;
}

/* Cuts |parent|, whose text is |text|, at the needles. A needle that begins before the end of the
 * last one's widened match is still a match, as in the library, where the search does not see
 * widening. */
static kf_status cut_needles(kf_tok_scratch *s, const kf_tok_needles *set, const char *text,
                             const kf_tok_piece *parent, kf_tok_buf *out)
{
    size_t done = 0;
    for (size_t at = 0; set->n > 0 && at < parent->len;) {
        uint32_t found = set->first_byte[(uint8_t)text[at]]
                             ? longest_needle(set, text + at, parent->len - at)
                             : KF_TOK_NONE;
        if (found == KF_TOK_NONE) {
            at++;
            continue;
        }
        const kf_tok_added *added = &s->tok->added[set->data[found].added];
        size_t start = at, end = at + set->data[found].len;
        at = end;
        if (!fit_match(s, added->flags, text, parent->len, done, &start, &end))
            continue;
        if (done < start)
            KF_TOK_TRY(add_piece(out, part_of(parent, done, start)));
        if (start < end) /* else all of it was white space that the last token took */
            KF_TOK_TRY(add_piece(out, (kf_tok_piece){.id = added->id}));
        done = end;
    }
    if (done < parent->len)
        KF_TOK_TRY(add_piece(out, part_of(parent, done, parent->len)));
    return KF_OK;
}

/* From the input text to s->text[0] and s->pieces[0]: normalized, without the added tokens. */
static kf_status cut_and_normalize(kf_tok_scratch *s, const char *text, size_t len)
{
    const kf_tokenizer *t = s->tok;
    kf_tok_piece whole = {.offset = 0, .len = len, .id = KF_TOK_NONE, .lead = 0};
    size_t n;
    s->pieces[0].len = s->pieces[1].len = s->text[0].len = 0;
    KF_TOK_TRY(cut_needles(s, &t->raw_needles, text, &whole, &s->pieces[1]));
    const kf_tok_piece *raw = pieces_of(&s->pieces[1], &n);
    for (size_t i = 0; i < n; i++) {
        if (raw[i].id != KF_TOK_NONE) {
            KF_TOK_TRY(add_piece(&s->pieces[0], raw[i]));
            continue;
        }
        const char *norm;
        kf_tok_piece p = {.offset = s->text[0].len, .id = KF_TOK_NONE};
        KF_TOK_TRY(kf_tok_normalize(s, text + raw[i].offset, raw[i].len, &norm, &p.len, &p.lead));
        if (raw[i].lead == KF_TOK_NONE)
            p.lead = KF_TOK_NONE;
        KF_TOK_TRY(kf_tok_buf_append(&s->text[0], norm, p.len));
        KF_TOK_TRY(
            cut_needles(s, &t->normalized_needles, s->text[0].data + p.offset, &p, &s->pieces[0]));
    }
    return KF_OK;
}

/* ---- Pre-tokenizer --------------------------------------------------------------------------- */

/* The list of parts of one piece while it is being cut; parts may be empty until the end. */
typedef struct cutting {
    kf_tok_buf *out;
    const kf_tok_piece *parent;
    uint32_t behavior;
    size_t base; /* bytes of |out| before the first part */
    bool last_was_match;
} cutting;

/* Adds the part [start, end). The rules are those of the library's SplitDelimiterBehavior. */
static kf_status add_part(cutting *c, size_t start, size_t end, bool is_match)
{
    bool has_last = c->out->len > c->base;
    bool was_match = c->last_was_match;
    bool extend = false;
    switch (c->behavior & 0xFF) {
    case KF_TOK_SPLIT_REMOVED:
        if (is_match)
            return KF_OK;
        break;
    case KF_TOK_SPLIT_CONTIGUOUS:
        extend = has_last && is_match == was_match;
        break;
    case KF_TOK_SPLIT_MERGED_PREVIOUS:
        extend = has_last && is_match && !was_match;
        break;
    case KF_TOK_SPLIT_MERGED_NEXT:
        extend = has_last && !is_match && was_match;
        break;
    default:
        break;
    }
    c->last_was_match = is_match;
    if (!extend)
        return add_piece(c->out, part_of(c->parent, start, end));
    kf_tok_piece *last = (kf_tok_piece *)(void *)(c->out->data + c->out->len) - 1;
    last->len = c->parent->offset + end - last->offset;
    return KF_OK;
}

static void drop_empty_parts(const cutting *c)
{
    size_t n;
    kf_tok_piece *p = pieces_of(c->out, &n);
    size_t kept = c->base / sizeof *p;
    for (size_t i = kept; i < n; i++) {
        if (p[i].len > 0)
            p[kept++] = p[i];
    }
    c->out->len = kept * sizeof *p;
}

static kf_status split_piece(kf_tok_scratch *s, const kf_tok_step *step, const kf_tok_piece *parent,
                             kf_tok_buf *out)
{
    cutting c = {.out = out, .parent = parent, .behavior = step->op->behavior, .base = out->len};
    bool inverted = (step->op->behavior & KF_TOK_INVERT) != 0;
    kf_tok_finder f;
    size_t done = 0;
    kf_tok_finder_init(&f, s->tok, step, s->match, s->text[0].data + parent->offset, parent->len);
    for (;;) {
        bool found;
        size_t start, end;
        KF_TOK_TRY(kf_tok_finder_next(&f, &found, &start, &end));
        if (!found)
            break;
        if (done != start)
            KF_TOK_TRY(add_part(&c, done, start, inverted));
        KF_TOK_TRY(add_part(&c, start, end, !inverted));
        done = end;
    }
    if (done != parent->len)
        KF_TOK_TRY(add_part(&c, done, parent->len, inverted));
    drop_empty_parts(&c);
    return KF_OK;
}

static kf_status map_bytes(const char *text, size_t len, kf_tok_buf *out)
{
    KF_TOK_TRY(kf_tok_buf_reserve(out, 2 * len));
    for (size_t i = 0; i < len; i++)
        out->len += kf_utf8_encode(byte_char((uint8_t)text[i]), out->data + out->len);
    return KF_OK;
}

/* Appends the changed text of one piece to s->text[1]. */
static kf_status rewrite_piece(kf_tok_scratch *s, const kf_tok_step *step, kf_tok_piece *p)
{
    kf_tok_buf *out = &s->text[1];
    const char *text = s->text[0].data + p->offset;
    size_t start = out->len;
    const kf_tok_op *op = step->op;
    if (op->kind == KF_TOK_PRE_BYTES) {
        KF_TOK_TRY(map_bytes(text, p->len, out));
    } else if (op->kind == KF_TOK_PRE_REPLACE) {
        KF_TOK_TRY(kf_tok_replace(s->tok, step, s->match, text, p->len, out));
    } else {
        bool has = p->len >= op->text.len && memcmp(text, step->text, op->text.len) == 0;
        if (!has && (op->arg == 0 || p->lead != KF_TOK_NONE)) {
            KF_TOK_TRY(kf_tok_buf_append(out, step->text, op->text.len));
            p->lead = p->lead == KF_TOK_NONE ? KF_TOK_NONE : p->lead + op->text.len;
        }
        KF_TOK_TRY(kf_tok_buf_append(out, text, p->len));
    }
    p->offset = start;
    p->len = out->len - start;
    return KF_OK;
}

static kf_status pre_tokenize(kf_tok_scratch *s, const kf_tok_step *step)
{
    size_t n;
    const kf_tok_piece *in = pieces_of(&s->pieces[0], &n);
    bool cuts = step->op->kind == KF_TOK_PRE_SPLIT;
    s->pieces[1].len = s->text[1].len = 0;
    for (size_t i = 0; i < n; i++) {
        kf_tok_piece p = in[i];
        if (p.id != KF_TOK_NONE) {
            KF_TOK_TRY(add_piece(&s->pieces[1], p));
        } else if (cuts) {
            KF_TOK_TRY(split_piece(s, step, &p, &s->pieces[1]));
        } else {
            KF_TOK_TRY(rewrite_piece(s, step, &p));
            if (p.len > 0)
                KF_TOK_TRY(add_piece(&s->pieces[1], p));
        }
    }
    swap(s->pieces);
    if (!cuts)
        swap(s->text);
    return KF_OK;
}

/* ---- Entry points ---------------------------------------------------------------------------- */

kf_status kf_tok_scratch_create(const kf_tokenizer *tok, kf_tok_scratch **out_scratch)
{
    const kf_allocator *a = &tok->alloc;
    *out_scratch = NULL;
    kf_tok_scratch *s = (kf_tok_scratch *)a->alloc(a->user, sizeof *s, _Alignof(kf_tok_scratch));
    if (s == NULL)
        return KF_ERR_MEMORY;
    memset(s, 0, sizeof *s);
    s->tok = tok;
    s->match = pcre2_match_data_create(1, tok->general);
    if (s->match == NULL) {
        a->free(a->user, s, sizeof *s);
        return KF_ERR_MEMORY;
    }
    kf_tok_buf *bufs[] = {&s->text[0], &s->text[1], &s->pieces[0],   &s->pieces[1], &s->temp[0],
                          &s->temp[1], &s->symbols, &s->code_points, &s->heap,      &s->ids};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++)
        bufs[i]->alloc = a;
    *out_scratch = s;
    return KF_OK;
}

void kf_tok_scratch_destroy(kf_tok_scratch *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < 2; i++) {
        kf_tok_buf_free(&s->text[i]);
        kf_tok_buf_free(&s->pieces[i]);
        kf_tok_buf_free(&s->temp[i]);
    }
    kf_tok_buf_free(&s->code_points);
    kf_tok_buf_free(&s->symbols);
    kf_tok_buf_free(&s->heap);
    kf_tok_buf_free(&s->ids);
    pcre2_match_data_free(s->match);
    s->tok->alloc.free(s->tok->alloc.user, s, sizeof *s);
}

static kf_status append_ids(kf_tok_scratch *s, const uint32_t *ids, uint32_t n)
{
    return kf_tok_buf_append(&s->ids, (const char *)ids, n * sizeof *ids);
}

kf_status kf_tokenizer_encode(const kf_tokenizer *tok, kf_tok_scratch *scratch, const char *text,
                              size_t len, bool add_special, const uint32_t **out_ids,
                              size_t *out_n_ids)
{
    size_t n;
    *out_ids = NULL;
    *out_n_ids = 0;
    if (!kf_utf8_valid(text, len))
        return KF_ERR_INPUT;
    KF_TOK_TRY(cut_and_normalize(scratch, text, len));
    for (uint32_t i = 0; i < tok->pre_steps.n; i++)
        KF_TOK_TRY(pre_tokenize(scratch, &tok->pre_steps.step[i]));
    scratch->ids.len = 0;
    if (add_special)
        KF_TOK_TRY(append_ids(scratch, tok->prefix, tok->n_prefix));
    const kf_tok_piece *p = pieces_of(&scratch->pieces[0], &n);
    for (size_t i = 0; i < n; i++) {
        if (p[i].id != KF_TOK_NONE)
            KF_TOK_TRY(append_ids(scratch, &p[i].id, 1));
        else
            KF_TOK_TRY(kf_tok_encode_piece(scratch, scratch->text[0].data + p[i].offset, p[i].len));
    }
    if (add_special)
        KF_TOK_TRY(append_ids(scratch, tok->suffix, tok->n_suffix));
    *out_ids = (const uint32_t *)(const void *)scratch->ids.data;
    *out_n_ids = scratch->ids.len / sizeof(uint32_t);
    return KF_OK;
}
