/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a compiled tokenizer: the table is checked once, completely, so that nothing else has to
 * check it again; patterns are compiled; added tokens are sorted for searching. */
#include "runtime/tokenizer_internal.h"
#include "runtime/utf8.h"

#include <stdlib.h>

/* Of one pcre2_match call. The default match limit of PCRE2, and at most 64 MiB for backtracking.
 */
#define MATCH_LIMIT       10000000u
#define DEPTH_LIMIT       1000000u
#define HEAP_LIMIT_KIB    65536u
#define MAX_PATTERN_BYTES 65536u

#define FAIL(sentence) return *error = (sentence), KF_ERR_IO

static void *default_alloc(void *user, size_t size_bytes, size_t align)
{
    (void)user;
    (void)align; /* nothing here asks for more than malloc gives */
    return calloc(1, size_bytes);
}

static void default_free(void *user, void *p, size_t size_bytes)
{
    (void)user;
    (void)size_bytes;
    free(p);
}

/* PCRE2 frees without a size: it stands in front of each block. */
typedef union block_head {
    size_t size_bytes;
    max_align_t align;
} block_head;

static void *pcre_alloc(PCRE2_SIZE size_bytes, void *user)
{
    const kf_allocator *a = (const kf_allocator *)user;
    if (size_bytes > SIZE_MAX / 2)
        return NULL;
    size_t total = size_bytes + sizeof(block_head);
    block_head *head = (block_head *)a->alloc(a->user, total, _Alignof(block_head));
    if (head == NULL)
        return NULL;
    head->size_bytes = total;
    return head + 1;
}

static void pcre_free(void *p, void *user)
{
    const kf_allocator *a = (const kf_allocator *)user;
    block_head *head = (block_head *)p;
    if (head != NULL)
        a->free(a->user, head - 1, head[-1].size_bytes);
}

/* ---- Checking -------------------------------------------------------------------------------- */

static kf_status bind_sections(kf_tokenizer *t, const void *table, size_t size_bytes,
                               const char **error)
{
    const kf_tok_header *h = (const kf_tok_header *)table;
    if (size_bytes < sizeof *h || ((uintptr_t)table & 7) != 0)
        FAIL("tokenizer table: too short or not aligned");
    if (h->magic != KF_TOK_MAGIC)
        FAIL("tokenizer table: not a tokenizer table");
    if (h->version != KF_TOK_VERSION)
        FAIL("tokenizer table: written by another version of the compiler");
    if (h->size_bytes != size_bytes)
        FAIL("tokenizer table: truncated");
    t->header = h;
#define BIND(name, type)                                                                           \
    {                                                                                              \
        const kf_tok_section *s = &h->sections[KF_TOK_SECTION_##name];                             \
        if (s->offset % KF_TOK_ALIGN != 0 || s->offset > size_bytes ||                             \
            s->count > (size_bytes - s->offset) / sizeof(type) || s->count > INT32_MAX)            \
            FAIL("tokenizer table: section " #name " lies outside");                               \
        t->name = (const type *)(const void *)((const char *)table + s->offset);                   \
        t->n_##name = (uint32_t)s->count;                                                          \
    }
    KF_TOK_SECTIONS(BIND)
#undef BIND
    return KF_OK;
}

static bool is_string(const kf_tokenizer *t, kf_tok_str s)
{
    return s.offset <= t->n_strings && s.len <= t->n_strings - s.offset &&
           kf_utf8_valid(t->strings + s.offset, s.len);
}

static bool is_present(const kf_tokenizer *t, uint32_t id)
{
    return id < t->n_tokens && (t->tokens[id].flags & KF_TOK_ENTRY_PRESENT) != 0;
}

static bool is_present_or_none(const kf_tokenizer *t, uint32_t id)
{
    return id == KF_TOK_NONE || is_present(t, id);
}

static bool is_power_of_two(uint32_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static kf_status check_tokens(const kf_tokenizer *t, const char **error)
{
    if (t->n_tokens > KF_TOK_MAX_IDS)
        FAIL("tokenizer table: too many tokens");
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        if (!is_string(t, t->tokens[i].text))
            FAIL("tokenizer table: the text of a token lies outside or is not UTF-8");
    }
    for (uint32_t i = 0; i < t->n_added; i++) {
        if (!is_present(t, t->added[i].id) || t->tokens[t->added[i].id].text.len == 0 ||
            (i > 0 && t->added[i].id <= t->added[i - 1].id))
            FAIL("tokenizer table: bad added token");
    }
    if (!is_present_or_none(t, t->header->unk_id))
        FAIL("tokenizer table: bad unknown token");
    const uint32_t *lists[] = {t->short_ids, t->byte_ids, t->prefix, t->suffix};
    const uint32_t lens[] = {t->n_short_ids, t->n_byte_ids, t->n_prefix, t->n_suffix};
    if (t->n_short_ids != KF_TOK_SHORT_IDS || t->n_byte_ids != 256)
        FAIL("tokenizer table: bad list of characters or bytes");
    for (int l = 0; l < 4; l++) {
        for (uint32_t i = 0; i < lens[l]; i++) {
            if (!(l < 2 ? is_present_or_none(t, lists[l][i]) : is_present(t, lists[l][i])))
                FAIL("tokenizer table: a list names an id without text");
        }
    }
    return KF_OK;
}

/* Every probe of a hash table ends: there is an empty slot. */
static kf_status check_hashes(const kf_tokenizer *t, const char **error)
{
    uint32_t empty_vocab = 0, empty_merges = 0, empty_joins = 0;
    if (!is_power_of_two(t->n_vocab) || !is_power_of_two(t->n_merges) ||
        (t->n_joins != 0 && !is_power_of_two(t->n_joins)))
        FAIL("tokenizer table: the size of a hash table is not a power of two");
    for (uint32_t i = 0; i < t->n_vocab; i++) {
        if (!is_present_or_none(t, t->vocab[i].id))
            FAIL("tokenizer table: bad vocabulary slot");
        empty_vocab += t->vocab[i].id == KF_TOK_NONE;
    }
    for (uint32_t i = 0; i < t->n_merges; i++) {
        const kf_tok_merge_slot *m = &t->merges[i];
        if (m->rank == KF_TOK_NONE)
            empty_merges++;
        else if (!is_present(t, m->id))
            FAIL("tokenizer table: bad merge");
    }
    for (uint32_t i = 0; i < t->n_joins; i++)
        empty_joins += t->joins[i].left == KF_TOK_NONE && t->joins[i].right == KF_TOK_NONE;
    if (empty_vocab == 0 || empty_merges == 0 || (t->n_joins != 0 && empty_joins == 0))
        FAIL("tokenizer table: a hash table is full");
    return KF_OK;
}

static bool op_needs_text(const kf_tok_op *op)
{
    return op->kind != KF_TOK_NORM_UNICODE && op->kind != KF_TOK_NORM_LOWERCASE &&
           op->kind != KF_TOK_NORM_STRIP && op->kind != KF_TOK_PRE_BYTES &&
           op->kind != KF_TOK_DEC_BYTES && op->kind != KF_TOK_DEC_BYTE_FALLBACK &&
           op->kind != KF_TOK_DEC_FUSE && op->kind != KF_TOK_DEC_JOIN;
}

static bool op_may_have_regex(const kf_tok_op *op)
{
    return op->kind == KF_TOK_NORM_REPLACE || op->kind == KF_TOK_PRE_SPLIT ||
           op->kind == KF_TOK_PRE_REPLACE || op->kind == KF_TOK_DEC_REPLACE;
}

static bool op_is_sound(const kf_tokenizer *t, const kf_tok_op *op, uint32_t first, uint32_t last)
{
    if (op->kind <= first || op->kind >= last || !is_string(t, op->text) ||
        !is_string(t, op->text2) || (op_needs_text(op) && op->text.len == 0))
        return false;
    if (op_may_have_regex(op) && op->arg > KF_TOK_PATTERN_REGEX)
        return false;
    if (op->kind == KF_TOK_NORM_UNICODE && op->arg >= KF_TOK_UNICODE_FORMS)
        return false;
    if (op->kind == KF_TOK_PRE_SPLIT)
        return (op->behavior & 0xFF) < KF_TOK_SPLIT_BEHAVIORS &&
               (op->behavior & ~(uint32_t)KF_TOK_INVERT) < KF_TOK_SPLIT_BEHAVIORS;
    if (op->kind == KF_TOK_DEC_STRIP || op->kind == KF_TOK_DEC_META) {
        uint32_t cp;
        return kf_utf8_next(t->strings + op->text.offset, &cp) == op->text.len;
    }
    return true;
}

/* ---- Patterns -------------------------------------------------------------------------------- */

static kf_status compile_pattern(const kf_tokenizer *t, kf_tok_str pattern, pcre2_code **out_code,
                                 const char **error)
{
    int code;
    PCRE2_SIZE offset;
    if (pattern.len > MAX_PATTERN_BYTES)
        FAIL("tokenizer table: a pattern is too long");
    *out_code = pcre2_compile((PCRE2_SPTR)(t->strings + pattern.offset), pattern.len,
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &code, &offset, t->compiling);
    if (*out_code == NULL && code == PCRE2_ERROR_HEAP_FAILED)
        return KF_ERR_MEMORY;
    if (*out_code == NULL)
        FAIL("tokenizer table: a pattern is not a PCRE2 pattern");
    /* Where executable memory is forbidden, matching goes on with the interpreter. */
    (void)pcre2_jit_compile(*out_code, PCRE2_JIT_COMPLETE);
    return KF_OK;
}

static kf_status bind_steps(const kf_tokenizer *t, const kf_tok_op *ops, uint32_t n, uint32_t first,
                            uint32_t last, kf_tok_steps *out, const char **error)
{
    if (n > KF_TOK_MAX_OPS)
        FAIL("tokenizer table: too many steps");
    for (uint32_t i = 0; i < n; i++) {
        kf_tok_step *step = &out->step[i];
        if (!op_is_sound(t, &ops[i], first, last))
            FAIL("tokenizer table: bad step");
        step->op = &ops[i];
        step->text = t->strings + ops[i].text.offset;
        step->text2 = t->strings + ops[i].text2.offset;
        out->n = i + 1;
        if (op_may_have_regex(&ops[i]) && ops[i].arg == KF_TOK_PATTERN_REGEX)
            KF_TOK_TRY(compile_pattern(t, ops[i].text, &step->regex, error));
    }
    return KF_OK;
}

/* The decoder's stages must be able to work on text as it comes. */
static kf_status check_decoder(const kf_tokenizer *t, const char **error)
{
    bool fused = false;
    for (uint32_t i = 0; i < t->n_dec; i++) {
        const kf_tok_op *op = &t->dec[i];
        bool whole = op->kind == KF_TOK_DEC_BYTES || op->kind == KF_TOK_DEC_BYTE_FALLBACK ||
                     (op->kind == KF_TOK_DEC_REPLACE && op->arg == KF_TOK_PATTERN_REGEX);
        if (fused && whole)
            FAIL("tokenizer table: a decoder step cannot follow fused text");
        fused = fused || op->kind == KF_TOK_DEC_FUSE || op->kind == KF_TOK_DEC_BYTES;
    }
    return KF_OK;
}

static kf_status bind_patterns(kf_tokenizer *t, const char **error)
{
    t->general = pcre2_general_context_create(pcre_alloc, pcre_free, &t->alloc);
    if (t->general == NULL)
        return KF_ERR_MEMORY;
    t->compiling = pcre2_compile_context_create(t->general);
    t->matching = pcre2_match_context_create(t->general);
    if (t->compiling == NULL || t->matching == NULL)
        return KF_ERR_MEMORY;
    pcre2_set_newline(t->compiling, PCRE2_NEWLINE_LF);
    pcre2_set_match_limit(t->matching, MATCH_LIMIT);
    pcre2_set_depth_limit(t->matching, DEPTH_LIMIT);
    pcre2_set_heap_limit(t->matching, HEAP_LIMIT_KIB);
    KF_TOK_TRY(bind_steps(t, t->norm, t->n_norm, KF_TOK_OP_INVALID, KF_TOK_NORM_END, &t->norm_steps,
                          error));
    KF_TOK_TRY(
        bind_steps(t, t->pre, t->n_pre, KF_TOK_NORM_END, KF_TOK_PRE_END, &t->pre_steps, error));
    KF_TOK_TRY(
        bind_steps(t, t->dec, t->n_dec, KF_TOK_PRE_END, KF_TOK_DEC_END, &t->dec_steps, error));
    KF_TOK_TRY(check_decoder(t, error));
    bool any_word = false;
    for (uint32_t i = 0; i < t->n_added; i++)
        any_word = any_word || (t->added[i].flags & KF_TOK_ADDED_SINGLE_WORD) != 0;
    if (!any_word)
        return KF_OK;
    if (!is_string(t, t->header->word_pattern) || t->header->word_pattern.len == 0)
        FAIL("tokenizer table: no pattern of a word character");
    return compile_pattern(t, t->header->word_pattern, &t->word, error);
}

/* ---- Added tokens ---------------------------------------------------------------------------- */

static int compare_needles(const void *a, const void *b)
{
    const kf_tok_needle *x = (const kf_tok_needle *)a;
    const kf_tok_needle *y = (const kf_tok_needle *)b;
    int c = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    return c != 0 ? c : (x->len > y->len) - (x->len < y->len);
}

static void fill_needles(const kf_tokenizer *t, uint32_t flags, kf_tok_needle *store,
                         kf_tok_needles *set)
{
    set->data = store;
    for (uint32_t i = 0; i < t->n_added; i++) {
        if ((t->added[i].flags & KF_TOK_ADDED_NORMALIZED) != flags ||
            t->decode_texts[i].len == 0) /* normalized away: it never matches */
            continue;
        store[set->n++] = t->decode_texts[i];
        set->first_byte[(uint8_t)t->decode_texts[i].text[0]] = true;
    }
    if (set->n > 0)
        qsort(set->data, set->n, sizeof *set->data, compare_needles);
}

/* Normalizes the texts of the added tokens that are matched after normalization: they are found,
 * and decoded, in that form. */
static kf_status normalize_added(kf_tokenizer *t)
{
    kf_tok_scratch *s;
    kf_tok_buf all = {.alloc = &t->alloc};
    KF_TOK_TRY(kf_tok_scratch_create(t, &s));
    kf_status status = KF_OK;
    for (uint32_t i = 0; i < t->n_added && status == KF_OK; i++) {
        kf_tok_needle *d = &t->decode_texts[i];
        const char *norm;
        size_t len;
        uint32_t lead;
        if ((t->added[i].flags & KF_TOK_ADDED_NORMALIZED) == 0)
            continue;
        status = kf_tok_normalize(s, d->text, d->len, &norm, &len, &lead);
        if (status == KF_OK && len > INT32_MAX)
            status = KF_ERR_INPUT;
        if (status == KF_OK)
            status = kf_tok_buf_append(&all, norm, len);
        d->text = NULL; /* its place in |all| is known when that no longer moves */
        d->len = (uint32_t)len;
    }
    kf_tok_scratch_destroy(s);
    t->normalized_text = all.data;
    t->normalized_text_bytes = all.cap;
    size_t at = 0;
    for (uint32_t i = 0; i < t->n_added && status == KF_OK; i++) {
        if (t->decode_texts[i].text != NULL)
            continue;
        t->decode_texts[i].text = all.data != NULL ? all.data + at : "";
        at += t->decode_texts[i].len;
    }
    return status;
}

/* The library asks whether the text that would be decoded is that of a special token; normalization
 * may have made it another one. */
static bool is_special_text(const kf_tokenizer *t, const kf_tok_needle *d)
{
    const kf_tok_entry *own = &t->tokens[t->added[d->added].id];
    if (own->text.len == d->len && memcmp(t->strings + own->text.offset, d->text, d->len) == 0)
        return (own->flags & KF_TOK_ENTRY_SPECIAL) != 0;
    for (uint32_t i = 0; i < t->n_added; i++) {
        const kf_tok_entry *e = &t->tokens[t->added[i].id];
        if ((e->flags & KF_TOK_ENTRY_SPECIAL) != 0 && e->text.len == d->len &&
            memcmp(t->strings + e->text.offset, d->text, d->len) == 0)
            return true;
    }
    return false;
}

static kf_status bind_added(kf_tokenizer *t)
{
    if (t->n_added == 0)
        return KF_OK;
    size_t bytes = t->n_added * sizeof(kf_tok_needle);
    t->decode_texts = (kf_tok_needle *)t->alloc.alloc(t->alloc.user, bytes, 16);
    t->needle_store = (kf_tok_needle *)t->alloc.alloc(t->alloc.user, bytes, 16);
    if (t->decode_texts == NULL || t->needle_store == NULL)
        return KF_ERR_MEMORY;
    for (uint32_t i = 0; i < t->n_added; i++) {
        kf_tok_str s = t->tokens[t->added[i].id].text;
        t->decode_texts[i] =
            (kf_tok_needle){.text = t->strings + s.offset, .len = s.len, .added = i};
    }
    if (t->norm_steps.n > 0)
        KF_TOK_TRY(normalize_added(t));
    for (uint32_t i = 0; i < t->n_added; i++)
        t->decode_texts[i].is_special = is_special_text(t, &t->decode_texts[i]);
    fill_needles(t, 0, t->needle_store, &t->raw_needles);
    fill_needles(t, KF_TOK_ADDED_NORMALIZED, t->needle_store + t->raw_needles.n,
                 &t->normalized_needles);
    return KF_OK;
}

/* ---- Entry points ---------------------------------------------------------------------------- */

static kf_status open_table(kf_tokenizer *t, const void *table, size_t size_bytes,
                            const char **error)
{
    KF_TOK_TRY(bind_sections(t, table, size_bytes, error));
    KF_TOK_TRY(check_tokens(t, error));
    KF_TOK_TRY(check_hashes(t, error));
    KF_TOK_TRY(bind_patterns(t, error));
    return bind_added(t);
}

kf_status kf_tokenizer_open(const void *table, size_t size_bytes, const kf_allocator *alloc,
                            kf_tokenizer **out_tok, const char **out_error)
{
    static const kf_allocator by_malloc = {default_alloc, default_free, NULL};
    const char *error = NULL;
    const kf_allocator *a = alloc != NULL ? alloc : &by_malloc;
    *out_tok = NULL;
    kf_tokenizer *t = (kf_tokenizer *)a->alloc(a->user, sizeof *t, _Alignof(kf_tokenizer));
    kf_status status = KF_ERR_MEMORY;
    if (t != NULL) {
        memset(t, 0, sizeof *t);
        t->alloc = *a;
        status = open_table(t, table, size_bytes, &error);
    }
    if (status == KF_OK)
        *out_tok = t;
    else
        kf_tokenizer_close(t);
    if (out_error != NULL)
        *out_error = error;
    return status;
}

static void free_steps(kf_tok_steps *steps)
{
    for (uint32_t i = 0; i < steps->n; i++)
        pcre2_code_free(steps->step[i].regex);
}

void kf_tokenizer_close(kf_tokenizer *tok)
{
    if (tok == NULL)
        return;
    kf_allocator a = tok->alloc;
    free_steps(&tok->norm_steps);
    free_steps(&tok->pre_steps);
    free_steps(&tok->dec_steps);
    pcre2_code_free(tok->word);
    pcre2_match_context_free(tok->matching);
    pcre2_compile_context_free(tok->compiling);
    pcre2_general_context_free(tok->general);
    if (tok->decode_texts != NULL)
        a.free(a.user, tok->decode_texts, tok->n_added * sizeof(kf_tok_needle));
    if (tok->needle_store != NULL)
        a.free(a.user, tok->needle_store, tok->n_added * sizeof(kf_tok_needle));
    if (tok->normalized_text != NULL)
        a.free(a.user, tok->normalized_text, tok->normalized_text_bytes);
    a.free(a.user, tok, sizeof *tok);
}

uint32_t kf_tokenizer_n_ids(const kf_tokenizer *tok)
{
    return tok->n_tokens;
}

bool kf_tokenizer_text(const kf_tokenizer *tok, uint32_t id, const char **out_text, size_t *out_len)
{
    if (!is_present(tok, id))
        return false;
    *out_text = tok->strings + tok->tokens[id].text.offset;
    *out_len = tok->tokens[id].text.len;
    return true;
}

bool kf_tokenizer_is_special(const kf_tokenizer *tok, uint32_t id)
{
    return is_present(tok, id) && (tok->tokens[id].flags & KF_TOK_ENTRY_SPECIAL) != 0;
}

bool kf_tokenizer_find(const kf_tokenizer *tok, const char *text, size_t len, uint32_t *out_id)
{
    for (uint32_t i = 0; i < tok->n_added; i++) {
        const kf_tok_str *s = &tok->tokens[tok->added[i].id].text;
        if (s->len == len && memcmp(tok->strings + s->offset, text, len) == 0) {
            *out_id = tok->added[i].id;
            return true;
        }
    }
    *out_id = kf_tok_find(tok, text, len);
    return *out_id != KF_TOK_NONE;
}
