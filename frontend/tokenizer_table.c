/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/tokenizer_table.h"

#include <string.h>

#define MIN_SLOTS 16u

kf_tok_str kf_tok_builder_str(kf_tok_builder *b, kf_str s)
{
    kf_tok_str out = {b->strings.len, s.len};
    if (b->strings.cap - b->strings.len < s.len)
        kf_vec_reserve(b->arena, &b->strings, s.len);
    if (s.len > 0)
        memcpy(b->strings.data + b->strings.len, s.ptr, s.len);
    b->strings.len += s.len;
    return out;
}

void kf_tok_builder_set(kf_tok_builder *b, uint32_t id, kf_str s, uint32_t flags)
{
    while (b->tokens.len <= id)
        kf_vec_push(b->arena, &b->tokens, (kf_tok_entry){0});
    b->tokens.data[id].text = kf_tok_builder_str(b, s);
    b->tokens.data[id].flags = flags | KF_TOK_ENTRY_PRESENT;
}

/* Slots for |n| entries: a power of two, at most 2/3 full. */
static uint32_t slots_for(uint32_t n)
{
    uint32_t slots = MIN_SLOTS;
    while (slots < n + n / 2 + 1)
        slots *= 2;
    return slots;
}

void kf_tok_builder_index(kf_tok_builder *b)
{
    uint32_t n = 0;
    for (uint32_t id = 0; id < b->tokens.len; id++)
        n += (b->tokens.data[id].flags & KF_TOK_ENTRY_MODEL) != 0;
    b->n_vocab = slots_for(n);
    b->vocab = KF_NEW_N(b->arena, kf_tok_vocab_slot, b->n_vocab);
    memset(b->vocab, 0xFF, b->n_vocab * sizeof *b->vocab);
    for (uint32_t id = 0; id < b->tokens.len; id++) {
        const kf_tok_entry *e = &b->tokens.data[id];
        if ((e->flags & KF_TOK_ENTRY_MODEL) == 0)
            continue;
        uint64_t hash = kf_tok_hash(b->strings.data + e->text.offset, e->text.len);
        uint32_t i = (uint32_t)hash & (b->n_vocab - 1);
        while (b->vocab[i].id != KF_TOK_NONE)
            i = (i + 1) & (b->n_vocab - 1);
        b->vocab[i] = (kf_tok_vocab_slot){id, (uint32_t)(hash >> 32)};
    }
}

uint32_t kf_tok_builder_find(const kf_tok_builder *b, kf_str s)
{
    return kf_tok_vocab_find(b->vocab, b->n_vocab, b->tokens.data, b->strings.data, s.ptr, s.len);
}

/* ---- Sections that are derived --------------------------------------------------------------- */

typedef struct blob {
    const void *data;
    uint64_t count;
} blob;

/* A pair that occurs twice keeps its last rank, as in the library. */
static blob make_merges(const kf_tok_builder *b)
{
    uint32_t n = slots_for(b->merges.len);
    kf_tok_merge_slot *slots = KF_NEW_N(b->arena, kf_tok_merge_slot, n);
    memset(slots, 0xFF, n * sizeof *slots);
    for (uint32_t rank = 0; rank < b->merges.len; rank++) {
        const kf_tok_merge *m = &b->merges.data[rank];
        uint32_t i = kf_tok_pair_hash(m->left, m->right) & (n - 1);
        while (slots[i].rank != KF_TOK_NONE &&
               (slots[i].left != m->left || slots[i].right != m->right))
            i = (i + 1) & (n - 1);
        slots[i] = (kf_tok_merge_slot){m->left, m->right, rank, m->id};
    }
    return (blob){slots, n};
}

static kf_str text_of(const kf_tok_builder *b, uint32_t id)
{
    kf_tok_str s = b->tokens.data[id].text;
    return (kf_str){b->strings.data + s.offset, s.len};
}

static uint32_t char_len(char lead)
{
    uint8_t c = (uint8_t)lead;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

static kf_str first_char(kf_str s)
{
    return s.len > 0 ? (kf_str){s.ptr, char_len(s.ptr[0])} : s;
}

static kf_str last_char(kf_str s)
{
    uint32_t at = s.len;
    while (at > 0 && ((uint8_t)s.ptr[--at] & 0xC0) == 0x80)
        ;
    return (kf_str){s.ptr + at, s.len - at};
}

static bool is_single_char(kf_str s)
{
    return s.len > 0 && char_len(s.ptr[0]) == s.len;
}

static void make_char_ids(const kf_tok_builder *b, uint32_t *short_ids, uint32_t *byte_ids)
{
    memset(short_ids, 0xFF, KF_TOK_SHORT_IDS * sizeof *short_ids);
    for (uint32_t id = 0; id < b->tokens.len; id++) {
        kf_str s = text_of(b, id);
        if ((b->tokens.data[id].flags & KF_TOK_ENTRY_MODEL) == 0 || !is_single_char(s) || s.len > 2)
            continue;
        uint32_t cp = s.len == 1 ? (uint8_t)s.ptr[0]
                                 : ((uint8_t)s.ptr[0] & 0x1Fu) << 6 | ((uint8_t)s.ptr[1] & 0x3Fu);
        short_ids[cp] = id;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        byte_ids[byte] = kf_tok_builder_find(b, kf_strf(b->arena, "<0x%02X>", byte));
}

/* True if merged symbols consist of characters only: then the border between two of them is a pair
 * of characters. Merges of byte-fallback or unknown symbols would not be seen in the texts. */
static bool merges_are_of_chars(const kf_tok_builder *b, const uint32_t *byte_ids)
{
    uint8_t *is_odd = KF_NEW_N(b->arena, uint8_t, b->tokens.len + 1);
    for (uint32_t i = 0; i < 256; i++) {
        if ((b->flags & KF_TOK_FLAG_BYTE_FALLBACK) != 0 && byte_ids[i] != KF_TOK_NONE)
            is_odd[byte_ids[i]] = 1;
    }
    if (b->unk_id != KF_TOK_NONE)
        is_odd[b->unk_id] = 1;
    for (uint32_t i = 0; i < b->merges.len; i++) {
        if (is_odd[b->merges.data[i].left] || is_odd[b->merges.data[i].right])
            return false;
    }
    return true;
}

static bool insert_join(kf_tok_join_slot *slots, uint32_t n, kf_tok_join_slot j)
{
    uint32_t i = kf_tok_pair_hash(j.left, j.right) & (n - 1);
    for (; slots[i].left != KF_TOK_NONE || slots[i].right != KF_TOK_NONE; i = (i + 1) & (n - 1)) {
        if (slots[i].left == j.left && slots[i].right == j.right)
            return false;
    }
    slots[i] = j;
    return true;
}

/* The pairs of initial symbols on both sides of every merge's border. */
static blob make_joins(const kf_tok_builder *b, const uint32_t *byte_ids)
{
    if (!merges_are_of_chars(b, byte_ids))
        return (blob){NULL, 0};
    uint32_t n_all = slots_for(b->merges.len), n_distinct = 0;
    kf_tok_join_slot *all = KF_NEW_N(b->arena, kf_tok_join_slot, n_all);
    memset(all, 0xFF, n_all * sizeof *all);
    for (uint32_t i = 0; i < b->merges.len; i++) {
        const kf_tok_merge *m = &b->merges.data[i];
        kf_tok_join_slot j = {kf_tok_builder_find(b, last_char(text_of(b, m->left))),
                              kf_tok_builder_find(b, first_char(text_of(b, m->right)))};
        if (j.left != KF_TOK_NONE && j.right != KF_TOK_NONE)
            n_distinct += insert_join(all, n_all, j);
    }
    uint32_t n = slots_for(n_distinct);
    kf_tok_join_slot *slots = KF_NEW_N(b->arena, kf_tok_join_slot, n);
    memset(slots, 0xFF, n * sizeof *slots);
    for (uint32_t i = 0; i < n_all; i++) {
        if (all[i].left != KF_TOK_NONE)
            (void)insert_join(slots, n, all[i]);
    }
    return (blob){slots, n};
}

/* ---- Layout ---------------------------------------------------------------------------------- */

void kf_tok_builder_finish(kf_tok_builder *b, const void **out_table, uint64_t *out_size_bytes)
{
    uint32_t *short_ids = KF_NEW_N(b->arena, uint32_t, KF_TOK_SHORT_IDS);
    uint32_t *byte_ids = KF_NEW_N(b->arena, uint32_t, 256);
    make_char_ids(b, short_ids, byte_ids);
    const blob blobs[KF_TOK_SECTION_COUNT] = {
        [KF_TOK_SECTION_strings] = {b->strings.data, b->strings.len},
        [KF_TOK_SECTION_tokens] = {b->tokens.data, b->tokens.len},
        [KF_TOK_SECTION_vocab] = {b->vocab, b->n_vocab},
        [KF_TOK_SECTION_merges] = make_merges(b),
        [KF_TOK_SECTION_joins] = make_joins(b, byte_ids),
        [KF_TOK_SECTION_short_ids] = {short_ids, KF_TOK_SHORT_IDS},
        [KF_TOK_SECTION_byte_ids] = {byte_ids, 256},
        [KF_TOK_SECTION_added] = {b->added.data, b->added.len},
        [KF_TOK_SECTION_norm] = {b->norm.data, b->norm.len},
        [KF_TOK_SECTION_pre] = {b->pre.data, b->pre.len},
        [KF_TOK_SECTION_dec] = {b->dec.data, b->dec.len},
        [KF_TOK_SECTION_prefix] = {b->prefix.data, b->prefix.len},
        [KF_TOK_SECTION_suffix] = {b->suffix.data, b->suffix.len}};
    static const uint32_t elem_bytes[KF_TOK_SECTION_COUNT] = {
#define ELEM(name, type) sizeof(type),
        KF_TOK_SECTIONS(ELEM)
#undef ELEM
    };
    kf_tok_header h = {.magic = KF_TOK_MAGIC,
                       .version = KF_TOK_VERSION,
                       .flags = b->flags,
                       .unk_id = b->unk_id,
                       .word_pattern = b->word_pattern};
    uint64_t at = sizeof h;
    for (uint32_t i = 0; i < KF_TOK_SECTION_COUNT; i++) {
        at = (at + KF_TOK_ALIGN - 1) / KF_TOK_ALIGN * KF_TOK_ALIGN;
        h.sections[i] = (kf_tok_section){at, blobs[i].count};
        at += blobs[i].count * elem_bytes[i];
    }
    h.size_bytes = (at + KF_TOK_ALIGN - 1) / KF_TOK_ALIGN * KF_TOK_ALIGN;
    char *table = (char *)kf_arena_alloc(b->arena, h.size_bytes, KF_TOK_ALIGN);
    memcpy(table, &h, sizeof h);
    for (uint32_t i = 0; i < KF_TOK_SECTION_COUNT; i++) {
        if (blobs[i].count > 0)
            memcpy(table + h.sections[i].offset, blobs[i].data, blobs[i].count * elem_bytes[i]);
    }
    *out_table = table;
    *out_size_bytes = h.size_bytes;
}
