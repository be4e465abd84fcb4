/* SPDX-License-Identifier: Apache-2.0 */
/* The sources of the differences: Oniguruma's doc/RE and doc/SYNTAX.md, pcre2pattern(3), and a
 * comparison of both over all code points. */
#include "frontend/pattern.h"

#include <string.h>

#define MAX_GROUPS 64
#define NO_ATOM    UINT32_MAX
#define MAX_REPEAT 65535

/* Parts of character classes. */
#define SPACE                                                                                      \
    "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"        \
    "\\x{205F}\\x{3000}"
#define NOT_SPACE                                                                                  \
    "\\x00-\\x08\\x0E-\\x1F\\x21-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}"       \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"                 \
    "\\x{3001}-\\x{10FFFF}"
#define WORD_BASE "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* Outside of classes Oniguruma counts these Latin-1 numbers as word characters. */
#define WORD_ONIGURUMA "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
#define XDIGIT         "0-9A-Fa-f"
/* Numbers that Unicode 17 adds; the library's digit test knows them. */
#define NUMERIC_17 "\\x{11DE0}-\\x{11DE9}\\x{16FF4}-\\x{16FF6}"
/* The library's punctuation test is older than PCRE2's category P; these are the differences. */
#define PUNCTUATION_MORE "!-/:-@\\[-`{-~\\x{166D}\\x{111C9}"
#define PUNCTUATION_LESS                                                                           \
    "\\x{61D}\\x{9FD}\\x{A76}\\x{C77}\\x{C84}\\x{1B4E}-\\x{1B4F}\\x{1B7D}-\\x{1B7F}"               \
    "\\x{2E43}-\\x{2E4F}\\x{2E52}-\\x{2E5D}\\x{10D6E}\\x{10EAD}\\x{10F55}-\\x{10F59}"              \
    "\\x{10F86}-\\x{10F89}\\x{1144B}-\\x{1144F}\\x{1145A}-\\x{1145B}\\x{1145D}"                    \
    "\\x{11660}-\\x{1166C}\\x{116B9}\\x{1183B}\\x{11944}-\\x{11946}\\x{119E2}"                     \
    "\\x{11A3F}-\\x{11A46}\\x{11A9A}-\\x{11A9C}\\x{11A9E}-\\x{11AA2}\\x{11C41}-\\x{11C45}"         \
    "\\x{11C70}-\\x{11C71}\\x{11EF7}-\\x{11EF8}\\x{11FFF}\\x{12FF1}-\\x{12FF2}"                    \
    "\\x{16E97}-\\x{16E9A}\\x{16FE2}\\x{1E95E}-\\x{1E95F}"

static const struct {
    const char *name, *ranges;
} younger[] = {
#define YOUNGER(name, ranges) {#name, ranges},
#include "frontend/unicode_younger.def"
#undef YOUNGER
};

/* General categories and the scripts whose additions are known. Mn lacks: a character left it after
 * Unicode 14, and a class cannot take one out again. */
static const char *const properties[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mc", "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd",
    "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Han"};

#define COUNT(a) (sizeof(a) / sizeof *(a))

typedef struct reader {
    kf_sbuf out;
    kf_str in;
    uint32_t at;
    uint32_t atom; /* where in |out| the last atom begins; NO_ATOM: nothing to repeat */
    uint32_t groups[MAX_GROUPS];
    bool outer_ignore_case[MAX_GROUPS];
    uint32_t n_groups;
    bool ignore_case;
    uint32_t last_literal; /* in lower case */
    uint32_t literal_end;  /* where in |out| it ends */
    const char *error;
} reader;

static bool fail(reader *r, const char *error)
{
    if (r->error == NULL)
        r->error = error;
    return false;
}

static int peek(const reader *r, uint32_t ahead)
{
    return r->at + ahead < r->in.len ? (uint8_t)r->in.ptr[r->at + ahead] : -1;
}

static bool take(reader *r, const char *text)
{
    size_t n = strlen(text);
    if (r->in.len - r->at < n || memcmp(r->in.ptr + r->at, text, n) != 0)
        return false;
    r->at += (uint32_t)n;
    return true;
}

/* What came to the categories whose name begins with |name|. */
static void add_younger(kf_sbuf *out, const char *name)
{
    for (size_t i = 0; i < COUNT(younger); i++) {
        if (strncmp(younger[i].name, name, strlen(name)) == 0)
            kf_sbuf_c(out, younger[i].ranges);
    }
}

static void add_word(kf_sbuf *out)
{
    kf_sbuf_c(out, WORD_BASE);
    add_younger(out, "L");
    add_younger(out, "M");
    add_younger(out, "Nd");
}

/* ---- Escapes --------------------------------------------------------------------------------- */

/* A set of characters as a part of a class. */
typedef struct char_set {
    bool is_set;
    bool negated;
    uint32_t code_point; /* if not a set */
    kf_str part;
} char_set;

static kf_str set_part(reader *r, int letter, const char *property)
{
    kf_sbuf b = {.arena = r->out.arena};
    if (letter == 's') {
        kf_sbuf_c(&b, SPACE);
    } else if (letter == 'h') {
        kf_sbuf_c(&b, XDIGIT);
    } else if (letter == 'w') {
        add_word(&b);
    } else {
        bool is_script = strcmp(property, "Han") == 0;
        kf_sbuf_printf(&b, is_script ? "\\p{sc:%s}" : "\\p{%s}", property);
        add_younger(&b, property);
    }
    return kf_sbuf_view(&b);
}

/* \p{Name}, \p{^Name}; the 'p' is read already. */
static bool read_property(reader *r, bool negated, char_set *out)
{
    if (!take(r, "{"))
        return fail(r, "\\p without braces");
    if (take(r, "^"))
        negated = !negated;
    for (size_t i = 0; i < COUNT(properties); i++) {
        uint32_t start = r->at;
        if (take(r, properties[i]) && take(r, "}")) {
            *out = (char_set){.is_set = true, .negated = negated};
            out->part = set_part(r, 'p', properties[i]);
            return true;
        }
        r->at = start;
    }
    return fail(r, "a property other than a general category or Han");
}

static int hex_value(int c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool read_hex(reader *r, uint32_t min, uint32_t max, uint32_t *out)
{
    uint32_t v = 0, n = 0;
    for (; n < max && hex_value(peek(r, 0)) >= 0; n++, r->at++)
        v = v * 16 + (uint32_t)hex_value(peek(r, 0));
    if (n < min || v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF))
        return fail(r, "a bad code point");
    *out = v;
    return true;
}

static bool read_code(reader *r, int letter, uint32_t *out)
{
    if (letter == 'u')
        return read_hex(r, 4, 4, out);
    if (!take(r, "{")) {
        if (!read_hex(r, 1, 2, out))
            return false;
        return *out < 0x80 || fail(r, "a single byte of a character");
    }
    if (!read_hex(r, 1, 8, out))
        return false;
    return take(r, "}") || fail(r, "several code points in braces");
}

/* An escape that stands for a character or a set; the backslash is read already. */
static bool read_escape(reader *r, char_set *out)
{
    static const char controls[] = "n\nr\rt\tf\fv\va\ae\x1b";
    int c = peek(r, 0);
    if (c < 0)
        return fail(r, "a backslash at the end");
    r->at++;
    int lower = c | 0x20;
    *out = (char_set){.code_point = (uint32_t)c};
    if (c == 'p' || c == 'P')
        return read_property(r, c == 'P', out);
    if (lower == 's' || lower == 'w' || lower == 'd' || lower == 'h') {
        out->is_set = true;
        out->negated = c != lower;
        out->part = lower == 'd' ? set_part(r, 'p', "Nd") : set_part(r, lower, "");
        return true;
    }
    if (c == 'x' || c == 'u')
        return read_code(r, c, &out->code_point);
    for (const char *k = controls; *k != '\0'; k += 2) {
        if (c == *k) {
            out->code_point = (uint8_t)k[1];
            return true;
        }
    }
    bool is_alnum = (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9');
    if (is_alnum || c >= 0x80)
        return fail(r, "an escape without a counterpart");
    return true;
}

static uint32_t read_char(reader *r)
{
    const uint8_t *p = (const uint8_t *)r->in.ptr + r->at;
    uint32_t n = *p < 0x80 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    uint32_t cp = n == 1 ? *p : *p & (0x7Fu >> n);
    for (uint32_t i = 1; i < n; i++)
        cp = cp << 6 | (p[i] & 0x3Fu);
    r->at += n;
    return cp;
}

/* ---- Classes --------------------------------------------------------------------------------- */

static bool add_class_set(reader *r, const char_set *set)
{
    if (!set->negated)
        kf_sbuf_str(&r->out, set->part);
    else if (kf_str_eq_c(set->part, SPACE))
        kf_sbuf_c(&r->out, NOT_SPACE);
    else
        return fail(r, "a negated set inside a class");
    return true;
}

static bool read_class_item(reader *r, char_set *out)
{
    if (peek(r, 0) == '[')
        return fail(r, "a class inside a class");
    if (peek(r, 0) == '&' && peek(r, 1) == '&')
        return fail(r, "an intersection of classes");
    if (!take(r, "\\")) {
        *out = (char_set){.code_point = read_char(r)};
        return true;
    }
    if (take(r, "b")) {
        *out = (char_set){.code_point = 8};
        return true;
    }
    return read_escape(r, out);
}

/* After '['. */
static bool read_class(reader *r)
{
    r->atom = r->out.len;
    if (peek(r, 0) == '^' && r->ignore_case)
        return fail(r, "a negated class without regard to case");
    kf_sbuf_c(&r->out, take(r, "^") ? "[^" : "[");
    if (peek(r, 0) == ']')
        return fail(r, "']' as the first character of a class");
    while (!take(r, "]")) {
        char_set first, last;
        if (peek(r, 0) < 0)
            return fail(r, "a class without an end");
        if (!read_class_item(r, &first))
            return false;
        if (r->ignore_case && (first.is_set || first.code_point >= 0x80))
            return fail(r, "a class beyond ASCII without regard to case");
        if (first.is_set) {
            if (!add_class_set(r, &first))
                return false;
            if (peek(r, 0) == '-' && peek(r, 1) != ']')
                return fail(r, "a range that begins with a set");
            continue;
        }
        kf_sbuf_printf(&r->out, "\\x{%X}", first.code_point);
        if (peek(r, 0) != '-' || peek(r, 1) == ']' || peek(r, 1) < 0)
            continue;
        r->at++;
        if (!read_class_item(r, &last))
            return false;
        if (r->ignore_case && last.code_point >= 0x80)
            return fail(r, "a class beyond ASCII without regard to case");
        if (last.is_set || last.code_point < first.code_point)
            return fail(r, "a range that ends with a set or is empty");
        kf_sbuf_printf(&r->out, "-\\x{%X}", last.code_point);
    }
    kf_sbuf_c(&r->out, "]");
    return true;
}

/* Call when the character's text stands in |out|. Without regard to case Oniguruma also folds one
 * character to several ("ss" matches U+00DF), PCRE2 does not: refused are the letters where that
 * can happen (CaseFolding.txt, status F). */
static bool note_literal(reader *r, uint32_t cp)
{
    static const char *const pairs[] = {"ss", "ff", "fi", "fl", "st"};
    uint32_t lower = cp >= 'A' && cp <= 'Z' ? cp | 0x20 : cp;
    if (r->ignore_case && cp >= 0x80)
        return fail(r, "a character beyond ASCII without regard to case");
    bool is_next = r->ignore_case && r->literal_end == r->atom;
    for (size_t i = 0; i < COUNT(pairs) && is_next; i++) {
        if (r->last_literal == (uint32_t)pairs[i][0] && lower == (uint32_t)pairs[i][1])
            return fail(r, "letters without regard to case that are one character in other case");
    }
    r->last_literal = lower;
    r->literal_end = r->out.len;
    return true;
}

/* ---- Outside of classes ---------------------------------------------------------------------- */

static bool add_boundary(reader *r, bool negated)
{
    kf_sbuf word = {.arena = r->out.arena};
    add_word(&word);
    kf_sbuf_c(&word, WORD_ONIGURUMA);
    kf_sbuf_printf(&r->out,
                   negated ? "(?:(?<=[%s])(?=[%s])|(?<![%s])(?![%s]))"
                           : "(?:(?<=[%s])(?![%s])|(?<![%s])(?=[%s]))",
                   word.ptr, word.ptr, word.ptr, word.ptr);
    return true;
}

static bool read_backslash(reader *r)
{
    char_set set;
    r->atom = NO_ATOM;
    if (take(r, "b") || take(r, "B"))
        return add_boundary(r, r->in.ptr[r->at - 1] == 'B');
    if (take(r, "A") || take(r, "z") || take(r, "Z")) {
        kf_sbuf_printf(&r->out, "\\%c", r->in.ptr[r->at - 1]);
        return true;
    }
    r->atom = r->out.len;
    bool is_word = peek(r, 0) == 'w' || peek(r, 0) == 'W';
    if (!read_escape(r, &set))
        return false;
    if (!set.is_set) {
        kf_sbuf_printf(&r->out, "\\x{%X}", set.code_point);
        return note_literal(r, set.code_point);
    }
    if (r->ignore_case)
        return fail(r, "a set without regard to case");
    kf_sbuf_printf(&r->out, "[%s%.*s%s]", set.negated ? "^" : "", KF_STR_ARG(set.part),
                   is_word ? WORD_ONIGURUMA : "");
    return true;
}

/* After '('. Captures are not needed: plain groups lose them. */
static bool read_group(reader *r)
{
    static const char *const kinds[] = {"?:", "?=", "?!", "?<=", "?<!", "?>", "?i:", "?-i:"};
    if (r->n_groups == MAX_GROUPS)
        return fail(r, "too many nested groups");
    r->outer_ignore_case[r->n_groups] = r->ignore_case;
    r->groups[r->n_groups++] = r->out.len;
    r->atom = NO_ATOM;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (take(r, kinds[i])) {
            if (strchr(kinds[i], 'i') != NULL)
                r->ignore_case = kinds[i][1] == 'i';
            kf_sbuf_printf(&r->out, "(%s", kinds[i]);
            return true;
        }
    }
    if (peek(r, 0) == '?')
        return fail(r, "a group of this kind");
    kf_sbuf_c(&r->out, "(?:");
    return true;
}

/* (?i) and (?-i). Oniguruma applies them to the rest of the group including its alternatives as one
 * group, PCRE2 to each alternative: the same only where nothing stands before. */
static bool read_option(reader *r, bool *out_taken)
{
    bool at_start = r->at == 0 || r->in.ptr[r->at - 1] == '(' || r->in.ptr[r->at - 1] == ':';
    uint32_t start = r->at;
    *out_taken = false;
    bool on = take(r, "(?i)");
    if (!on && !take(r, "(?-i)"))
        return true;
    *out_taken = true;
    if (!at_start || (start > 1 && r->in.ptr[start - 2] == '\\'))
        return fail(r, "an option in the middle of a group");
    kf_sbuf_c(&r->out, on ? "(?i)" : "(?-i)");
    r->ignore_case = on;
    return true;
}

static bool read_number(reader *r, uint32_t *out)
{
    uint32_t v = 0;
    bool any = false;
    for (; peek(r, 0) >= '0' && peek(r, 0) <= '9'; r->at++, any = true)
        v = v > MAX_REPEAT ? v : v * 10 + (uint32_t)(peek(r, 0) - '0');
    *out = v;
    return any;
}

/* {n}, {n,}, {n,m}, {,m}; false without an error if the brace is an ordinary character. */
static bool read_interval(reader *r)
{
    uint32_t start = r->at, lo = 0, hi = 0;
    r->at++;
    bool has_lo = read_number(r, &lo);
    bool comma = take(r, ",");
    bool has_hi = comma && read_number(r, &hi);
    if ((!has_lo && !has_hi) || !take(r, "}")) {
        r->at = start;
        return false;
    }
    if (lo > MAX_REPEAT || hi > MAX_REPEAT || (has_hi && hi < lo))
        return fail(r, "a repetition out of range");
    kf_sbuf_printf(&r->out, "{%u", lo);
    if (comma)
        kf_sbuf_c(&r->out, ",");
    if (has_hi)
        kf_sbuf_printf(&r->out, "%u", hi);
    kf_sbuf_c(&r->out, "}");
    if (!comma && peek(r, 0) == '?')
        return fail(r, "'?' behind {n}");
    return true;
}

/* In Oniguruma {n,m}+ repeats the repetition; in PCRE2 it would be possessive. */
static void wrap_atom(reader *r)
{
    uint32_t n = r->out.len - r->atom;
    kf_sbuf_c(&r->out, "    ");
    memmove(r->out.ptr + r->atom + 3, r->out.ptr + r->atom, n);
    memcpy(r->out.ptr + r->atom, "(?:", 3);
    r->out.ptr[r->out.len - 1] = ')';
}

static bool read_quantifier(reader *r)
{
    if (r->atom == NO_ATOM)
        return fail(r, "a repetition of nothing or of a repetition");
    if (peek(r, 0) == '{') {
        if (!read_interval(r))
            return false;
        if (peek(r, 0) == '+') {
            wrap_atom(r);
            return true;
        }
        if (take(r, "?"))
            kf_sbuf_c(&r->out, "?");
    } else {
        kf_sbuf_char(&r->out, r->in.ptr[r->at++]);
        if (take(r, "?"))
            kf_sbuf_c(&r->out, "?");
        else if (take(r, "+"))
            kf_sbuf_c(&r->out, "+");
    }
    r->atom = NO_ATOM;
    return true;
}

static bool is_interval(reader *r)
{
    reader probe = *r;
    kf_sbuf nowhere = {.arena = r->out.arena};
    probe.out = nowhere;
    return read_interval(&probe) || probe.error != NULL;
}

static bool read_literal(reader *r)
{
    uint32_t start = r->at;
    uint32_t cp = read_char(r);
    r->atom = r->out.len;
    if (r->at - start == 1 && strchr("{}]", r->in.ptr[start]) != NULL)
        kf_sbuf_c(&r->out, "\\");
    kf_sbuf_str(&r->out, (kf_str){r->in.ptr + start, r->at - start});
    return note_literal(r, cp);
}

static bool read_term(reader *r)
{
    bool taken;
    int c = peek(r, 0);
    if (!read_option(r, &taken) || taken)
        return r->error == NULL;
    if (c == '*' || c == '+' || c == '?' || (c == '{' && is_interval(r)))
        return read_quantifier(r);
    if (take(r, "\\"))
        return read_backslash(r);
    if (take(r, "["))
        return read_class(r);
    if (take(r, "("))
        return read_group(r);
    if (c == ')') {
        if (r->n_groups == 0)
            return fail(r, "')' without '('");
        r->at++;
        kf_sbuf_c(&r->out, ")");
        r->atom = r->groups[--r->n_groups];
        r->ignore_case = r->outer_ignore_case[r->n_groups];
        return true;
    }
    if (c == '|' || c == '^' || c == '$') {
        kf_sbuf_char(&r->out, r->in.ptr[r->at++]);
        r->atom = NO_ATOM;
        return true;
    }
    return c == 0 ? fail(r, "a NUL character") : read_literal(r);
}

bool kf_pattern_translate(kf_arena *arena, kf_str onig, kf_str *out_pcre, kf_str *out_error)
{
    reader r = {.out = {.arena = arena}, .in = onig, .atom = NO_ATOM};
    kf_sbuf_c(&r.out, "");
    while (r.error == NULL && r.at < onig.len)
        (void)read_term(&r);
    if (r.error == NULL && r.n_groups > 0)
        (void)fail(&r, "'(' without ')'");
    if (r.error != NULL) {
        *out_error = kf_strf(arena, "%s (at byte %u)", r.error, r.at);
        return false;
    }
    *out_pcre = kf_sbuf_view(&r.out);
    return true;
}

kf_str kf_pattern_fixed(kf_arena *arena, kf_pattern_name name)
{
    kf_sbuf b = {.arena = arena};
    switch (name) {
    case KF_PATTERN_SPACE:
        return KF_STR("[" SPACE "]");
    case KF_PATTERN_NUMERIC:
        kf_sbuf_c(&b, "[\\p{N}" NUMERIC_17);
        add_younger(&b, "N");
        break;
    case KF_PATTERN_PUNCTUATION:
        kf_sbuf_c(&b, "(?![" PUNCTUATION_LESS "])[\\p{P}" PUNCTUATION_MORE);
        break;
    case KF_PATTERN_WORD:
        kf_sbuf_c(&b, "[\\x{200C}\\x{200D}");
        add_word(&b);
        break;
    case KF_PATTERN_WORDS:
        kf_sbuf_c(&b, "[\\x{200C}\\x{200D}");
        add_word(&b);
        kf_sbuf_c(&b, "]+|[^\\x{200C}\\x{200D}" SPACE);
        add_word(&b);
        kf_sbuf_c(&b, "]+");
        return kf_sbuf_view(&b);
    }
    kf_sbuf_c(&b, "]");
    return kf_sbuf_view(&b);
}
