/* SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding (Sennrich et al., "Neural Machine Translation of Rare Words with Subword
 * Units", ACL 2016): a piece becomes its initial symbols, then the neighbours with the lowest rank
 * are merged, the leftmost first, until no pair has a merge.
 *
 * A piece is first cut where no merge can ever reach across (the section "joins"), which turns the
 * whole-text pieces of SentencePiece-style models into words. Short stretches are merged by
 * scanning, long ones with a heap: O(n log n).
 */
#include "runtime/tokenizer_internal.h"
#include "runtime/utf8.h"

#define SCAN_MAX 24 /* symbols; longer stretches use the heap */

static const kf_tok_merge_slot *find_merge(const kf_tokenizer *t, uint32_t left, uint32_t right)
{
    uint32_t mask = t->n_merges - 1;
    for (uint32_t i = kf_tok_pair_hash(left, right) & mask;; i = (i + 1) & mask) {
        const kf_tok_merge_slot *m = &t->merges[i];
        if (m->rank == KF_TOK_NONE)
            return NULL;
        if (m->left == left && m->right == right)
            return m;
    }
}

static bool can_join(const kf_tokenizer *t, uint32_t left, uint32_t right)
{
    if (t->n_joins == 0)
        return true;
    uint32_t mask = t->n_joins - 1;
    for (uint32_t i = kf_tok_pair_hash(left, right) & mask;; i = (i + 1) & mask) {
        const kf_tok_join_slot *j = &t->joins[i];
        if (j->left == left && j->right == right)
            return true;
        if (j->left == KF_TOK_NONE && j->right == KF_TOK_NONE)
            return false;
    }
}

uint32_t kf_tok_find(const kf_tokenizer *tok, const char *text, size_t len)
{
    return kf_tok_vocab_find(tok->vocab, tok->n_vocab, tok->tokens, tok->strings, text, len);
}

/* ---- Initial symbols ------------------------------------------------------------------------- */

/* The unknown symbol is written one step late, so that neighbours can be fused into it. */
typedef struct unknown {
    bool pending;
    uint32_t len;
} unknown;

static kf_status add_symbol(kf_tok_scratch *s, uint32_t id, uint32_t len)
{
    KF_TOK_TRY(kf_tok_buf_reserve(&s->symbols, sizeof(kf_tok_symbol)));
    kf_tok_symbol *sym = (kf_tok_symbol *)(void *)(s->symbols.data + s->symbols.len);
    *sym = (kf_tok_symbol){.id = id, .len = len};
    s->symbols.len += sizeof *sym;
    return KF_OK;
}

static kf_status flush_unknown(kf_tok_scratch *s, unknown *unk)
{
    if (!unk->pending)
        return KF_OK;
    unk->pending = false;
    return add_symbol(s, s->tok->header->unk_id, unk->len);
}

/* A character that is no token: its bytes, the unknown token, or nothing at all. Byte symbols do
 * not flush a pending unknown symbol; it comes after them (so does the library). */
static kf_status add_unknown_char(kf_tok_scratch *s, const char *text, uint32_t len, unknown *unk)
{
    const kf_tokenizer *t = s->tok;
    if ((t->header->flags & KF_TOK_FLAG_BYTE_FALLBACK) != 0) {
        bool all = true;
        for (uint32_t i = 0; i < len; i++)
            all = all && t->byte_ids[(uint8_t)text[i]] != KF_TOK_NONE;
        for (uint32_t i = 0; all && i < len; i++)
            KF_TOK_TRY(add_symbol(s, t->byte_ids[(uint8_t)text[i]], 1));
        if (all)
            return KF_OK;
    }
    if (t->header->unk_id == KF_TOK_NONE)
        return KF_OK;
    if ((t->header->flags & KF_TOK_FLAG_FUSE_UNK) == 0)
        KF_TOK_TRY(flush_unknown(s, unk));
    unk->len = (unk->pending ? unk->len : 0) + len;
    unk->pending = true;
    return KF_OK;
}

static kf_status add_initial_symbols(kf_tok_scratch *s, const char *text, size_t len)
{
    const kf_tokenizer *t = s->tok;
    unknown unk = {0};
    s->symbols.len = 0;
    for (size_t at = 0; at < len;) {
        uint32_t cp;
        uint32_t n = kf_utf8_next(text + at, &cp);
        uint32_t id = cp < KF_TOK_SHORT_IDS ? t->short_ids[cp] : kf_tok_find(t, text + at, n);
        if (id == KF_TOK_NONE) {
            KF_TOK_TRY(add_unknown_char(s, text + at, n, &unk));
        } else {
            KF_TOK_TRY(flush_unknown(s, &unk));
            KF_TOK_TRY(add_symbol(s, id, n));
        }
        at += n;
    }
    return flush_unknown(s, &unk);
}

/* ---- Merging --------------------------------------------------------------------------------- */

static uint32_t scan_merge(const kf_tokenizer *t, kf_tok_symbol *sym, uint32_t n)
{
    uint32_t rank[SCAN_MAX], id[SCAN_MAX];
    for (uint32_t i = 0; i + 1 < n; i++) {
        const kf_tok_merge_slot *m = find_merge(t, sym[i].id, sym[i + 1].id);
        rank[i] = m != NULL ? m->rank : KF_TOK_NONE;
        id[i] = m != NULL ? m->id : 0;
    }
    while (n > 1) {
        uint32_t best = 0;
        for (uint32_t i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == KF_TOK_NONE)
            break;
        sym[best].id = id[best];
        n--;
        for (uint32_t i = best + 1; i < n; i++)
            sym[i].id = sym[i + 1].id;
        for (uint32_t i = best + 1; i + 1 < n; i++) {
            rank[i] = rank[i + 1];
            id[i] = id[i + 1];
        }
        for (uint32_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const kf_tok_merge_slot *m = find_merge(t, sym[i].id, sym[i + 1].id);
            rank[i] = m != NULL ? m->rank : KF_TOK_NONE;
            id[i] = m != NULL ? m->id : 0;
        }
    }
    return n;
}

static bool before(kf_tok_candidate a, kf_tok_candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.pos < b.pos;
}

static kf_status heap_push(kf_tok_buf *heap, kf_tok_candidate c)
{
    KF_TOK_TRY(kf_tok_buf_reserve(heap, sizeof c));
    kf_tok_candidate *h = (kf_tok_candidate *)(void *)heap->data;
    size_t i = heap->len / sizeof c;
    for (; i > 0 && before(c, h[(i - 1) / 2]); i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = c;
    heap->len += sizeof c;
    return KF_OK;
}

static kf_tok_candidate heap_pop(kf_tok_buf *heap)
{
    kf_tok_candidate *h = (kf_tok_candidate *)(void *)heap->data;
    kf_tok_candidate top = h[0];
    heap->len -= sizeof top;
    size_t n = heap->len / sizeof top;
    kf_tok_candidate last = h[n];
    size_t i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && before(h[child + 1], h[child]))
            child++;
        if (!before(h[child], last))
            break;
        h[i] = h[child];
        i = child;
    }
    h[i] = last;
    return top;
}

static kf_status push_pair(kf_tok_scratch *s, const kf_tok_symbol *sym, int32_t left)
{
    const kf_tok_merge_slot *m = find_merge(s->tok, sym[left].id, sym[sym[left].next].id);
    if (m == NULL)
        return KF_OK;
    return heap_push(&s->heap,
                     (kf_tok_candidate){.rank = m->rank, .pos = (uint32_t)left, .id = m->id});
}

static kf_status heap_merge(kf_tok_scratch *s, kf_tok_symbol *sym, uint32_t n, uint32_t *out_n)
{
    s->heap.len = 0;
    for (uint32_t i = 0; i < n; i++) {
        sym[i].prev = (int32_t)i - 1;
        sym[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (uint32_t i = 0; i + 1 < n; i++)
        KF_TOK_TRY(push_pair(s, sym, (int32_t)i));
    while (s->heap.len > 0) {
        kf_tok_candidate c = heap_pop(&s->heap);
        kf_tok_symbol *left = &sym[c.pos];
        if (left->len == 0 || left->next < 0)
            continue;
        kf_tok_symbol *right = &sym[left->next];
        const kf_tok_merge_slot *m = find_merge(s->tok, left->id, right->id);
        if (m == NULL || m->id != c.id) /* the pair has changed since */
            continue;
        left->id = c.id;
        left->len = 1;
        left->next = right->next;
        right->len = 0;
        if (left->next >= 0) {
            sym[left->next].prev = (int32_t)c.pos;
            KF_TOK_TRY(push_pair(s, sym, (int32_t)c.pos));
        }
        if (left->prev >= 0)
            KF_TOK_TRY(push_pair(s, sym, left->prev));
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (sym[i].len != 0)
            sym[kept++].id = sym[i].id;
    }
    *out_n = kept;
    return KF_OK;
}

static kf_status merge_stretch(kf_tok_scratch *s, kf_tok_symbol *sym, uint32_t n)
{
    if (n > SCAN_MAX)
        KF_TOK_TRY(heap_merge(s, sym, n, &n));
    else if (n > 1)
        n = scan_merge(s->tok, sym, n);
    KF_TOK_TRY(kf_tok_buf_reserve(&s->ids, n * sizeof(uint32_t)));
    uint32_t *ids = (uint32_t *)(void *)(s->ids.data + s->ids.len);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = sym[i].id;
    s->ids.len += n * sizeof(uint32_t);
    return KF_OK;
}

kf_status kf_tok_encode_piece(kf_tok_scratch *s, const char *text, size_t len)
{
    const kf_tokenizer *t = s->tok;
    if (len > INT32_MAX)
        return KF_ERR_INPUT;
    if ((t->header->flags & KF_TOK_FLAG_IGNORE_MERGES) != 0) {
        uint32_t id = kf_tok_find(t, text, len);
        if (id != KF_TOK_NONE)
            return kf_tok_buf_append(&s->ids, (const char *)&id, sizeof id);
    }
    KF_TOK_TRY(add_initial_symbols(s, text, len));
    kf_tok_symbol *sym = (kf_tok_symbol *)(void *)s->symbols.data;
    uint32_t n = (uint32_t)(s->symbols.len / sizeof *sym);
    for (uint32_t start = 0, i = 1; start < n; i++) {
        if (i < n && can_join(t, sym[i - 1].id, sym[i].id))
            continue;
        KF_TOK_TRY(merge_stretch(s, sym + start, i - start));
        start = i;
    }
    return KF_OK;
}
