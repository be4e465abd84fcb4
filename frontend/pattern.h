/* SPDX-License-Identifier: Apache-2.0 */
/* pattern - regular expressions of tokenizer.json (Oniguruma syntax, Unicode 16) rewritten for
 * PCRE2.
 *
 * What has another meaning in PCRE2 is spelled out (\s, \w, \h, \p{..}, {n,m}+, {,n}); what cannot
 * be spelled out is an error, never a guess. Patterns are meant for PCRE2_UTF | PCRE2_UCP |
 * PCRE2_MULTILINE with a newline of LF.
 */
#ifndef KF_FRONTEND_PATTERN_H
#define KF_FRONTEND_PATTERN_H

#include "base/str.h"

/** Translates |onig|. On failure returns false and a phrase for the message in |out_error|. */
bool kf_pattern_translate(kf_arena *arena, kf_str onig, kf_str *out_pcre, kf_str *out_error);

/* Fixed patterns of the library's own splitters. */
typedef enum kf_pattern_name {
    KF_PATTERN_SPACE,       /* one character of White_Space */
    KF_PATTERN_NUMERIC,     /* one character of category N */
    KF_PATTERN_PUNCTUATION, /* one ASCII punctuation character or one of category P */
    KF_PATTERN_WORD,        /* one word character of Unicode (UTS 18, annex C) */
    KF_PATTERN_WORDS        /* a run of word characters, or of characters neither word nor space */
} kf_pattern_name;

kf_str kf_pattern_fixed(kf_arena *arena, kf_pattern_name name);

#endif
