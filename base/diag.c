/* SPDX-License-Identifier: Apache-2.0 */
/* diag - collects diagnostics and prints them as text with carets, or as JSON. */
#include "base/diag.h"

#include "base/check.h"
#include "base/json.h"
#include "base/vec.h"

#include <string.h>

/* A longer source line is shown as a window around the caret. */
enum { MAX_SHOWN_COLUMNS = 120, WINDOW_BEFORE_CARET = 60 };

const kf_diag_info kf_diag_infos[KF_DIAG_COUNT] = {
#define DIAG(code, severity, exit_status, title, explain)                                          \
    [KF_##code] = {#code, severity, exit_status, title, explain},
#include "base/diag.def"
#undef DIAG
};

typedef struct source_file {
    kf_str path;
    kf_str text;
} source_file;

struct kf_diags {
    kf_arena *arena; /* Borrowed */
    KF_VEC(source_file) files;
    kf_diag *first;
    kf_diag **tail;
    uint32_t errors;
    uint32_t warnings;
    uint32_t hidden; /* errors beyond the limit */
    int exit_status;
};

typedef struct palette {
    const char *bold, *error, *warning, *caret, *off;
} palette;

static const palette no_colors = {"", "", "", "", ""};
static const palette ansi_colors = {"\033[1m", "\033[1;31m", "\033[1;35m", "\033[1;32m", "\033[0m"};

/* ---- collecting ------------------------------------------------------------------------------ */

bool kf_diag_find(kf_str name, kf_diag_code *out_code)
{
    for (int i = 0; i < KF_DIAG_COUNT; i++) {
        if (kf_str_eq_c(name, kf_diag_infos[i].name)) {
            *out_code = (kf_diag_code)i;
            return true;
        }
    }
    return false;
}

kf_diags *kf_diags_create(kf_arena *arena)
{
    kf_diags *d = KF_NEW(arena, kf_diags);
    d->arena = arena;
    d->tail = &d->first;
    return d;
}

uint32_t kf_diags_add_file(kf_diags *d, kf_str path, kf_str text)
{
    source_file file = {kf_str_dup(d->arena, path), kf_str_dup(d->arena, text)};
    kf_vec_push(d->arena, &d->files, file);
    return d->files.len;
}

static const source_file *file_of(const kf_diags *d, uint32_t file)
{
    KF_ASSERT(file <= d->files.len, "a location names a registered file");
    return file ? &d->files.data[file - 1] : NULL;
}

uint32_t kf_diags_find_file(const kf_diags *d, kf_str path)
{
    for (uint32_t i = 0; i < d->files.len; i++)
        if (kf_str_eq(d->files.data[i].path, path))
            return i + 1;
    return 0;
}

kf_str kf_diags_file_path(const kf_diags *d, uint32_t file)
{
    const source_file *f = file_of(d, file);
    return f ? f->path : KF_STR("");
}

static kf_str vformat(kf_arena *arena, const char *fmt, va_list ap)
{
    kf_sbuf b = {.arena = arena};
    kf_sbuf_vprintf(&b, fmt, ap);
    return kf_sbuf_view(&b);
}

static bool same_loc(kf_loc a, kf_loc b)
{
    return a.file == b.file && a.line == b.line && a.col == b.col;
}

/* The same fact found on two ways (an alias read twice, a retry) is one diagnostic. */
static kf_diag *find_same(const kf_diags *d, kf_diag_code code, kf_loc loc, kf_str message)
{
    for (kf_diag *i = d->first; i; i = i->next) {
        if (i->code == code && same_loc(i->loc, loc) && kf_str_eq(i->message, message))
            return i;
    }
    return NULL;
}

/* A record that nobody prints, for callers that go on to add hints and notes. */
static kf_diag *unlisted(kf_diags *d, kf_diag_code code)
{
    kf_diag *diag = KF_NEW(d->arena, kf_diag);
    diag->code = code;
    return diag;
}

kf_diag *kf_diag_add(kf_diags *d, kf_diag_code code, kf_loc loc, const char *fmt, ...)
{
    KF_ASSERT((unsigned)code < KF_DIAG_COUNT, "a diagnostic code is a row of diag.def");
    va_list ap;
    va_start(ap, fmt);
    kf_str message = vformat(d->arena, fmt, ap);
    va_end(ap);
    if (find_same(d, code, loc, message))
        return unlisted(d, code);
    const kf_diag_info *info = &kf_diag_infos[code];
    if (info->severity == KF_WARNING) {
        d->warnings++;
    } else {
        if (d->errors++ == 0)
            d->exit_status = info->exit_status;
        if (d->errors > KF_DIAG_MAX_ERRORS) {
            d->hidden++;
            return unlisted(d, code);
        }
    }
    kf_diag *diag = unlisted(d, code);
    diag->loc = loc;
    diag->message = message;
    *d->tail = diag;
    d->tail = &diag->next;
    return diag;
}

void kf_diag_hint(kf_diags *d, kf_diag *diag, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    diag->hint = vformat(d->arena, fmt, ap);
    va_end(ap);
}

void kf_diag_note(kf_diags *d, kf_diag *diag, kf_loc loc, const char *fmt, ...)
{
    kf_note *note = KF_NEW(d->arena, kf_note);
    note->loc = loc;
    va_list ap;
    va_start(ap, fmt);
    note->text = vformat(d->arena, fmt, ap);
    va_end(ap);
    kf_note **tail = &diag->notes;
    while (*tail)
        tail = &(*tail)->next;
    *tail = note;
}

uint32_t kf_diags_errors(const kf_diags *d)
{
    return d->errors;
}

uint32_t kf_diags_warnings(const kf_diags *d)
{
    return d->warnings;
}

const kf_diag *kf_diags_first(const kf_diags *d)
{
    return d->first;
}

int kf_diags_exit_status(const kf_diags *d)
{
    return d->exit_status;
}

/* ---- text ------------------------------------------------------------------------------------ */

static bool source_line(const source_file *f, uint32_t line, kf_str *out_line)
{
    const char *p = f->text.ptr;
    const char *end = p + f->text.len;
    for (uint32_t i = 1; i < line; i++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        if (!nl)
            return false;
        p = nl + 1;
    }
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    uint32_t len = (uint32_t)((nl ? nl : end) - p);
    if (len && p[len - 1] == '\r')
        len--;
    *out_line = (kf_str){p, len};
    return true;
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Control bytes of the user's file must not reach the terminal. */
static void print_source(FILE *out, const char *text, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        fputc((c < 0x20 && c != '\t') || c == 0x7f ? '?' : c, out);
    }
}

/* Moves [*from, *to) to at most MAX_SHOWN_COLUMNS bytes around |at|, on character boundaries. */
static void clip_line(kf_str line, uint32_t at, uint32_t *from, uint32_t *to)
{
    *from = 0;
    *to = line.len;
    if (line.len <= MAX_SHOWN_COLUMNS)
        return;
    *from = at > WINDOW_BEFORE_CARET ? at - WINDOW_BEFORE_CARET : 0;
    *to = line.len - *from > MAX_SHOWN_COLUMNS ? *from + MAX_SHOWN_COLUMNS : line.len;
    while (*from < *to && is_continuation(line.ptr[*from]))
        (*from)++;
    while (*to > *from && *to < line.len && is_continuation(line.ptr[*to]))
        (*to)--;
}

static void print_caret(const kf_diags *d, FILE *out, kf_loc loc, kf_str hint, const palette *color)
{
    const source_file *f = file_of(d, loc.file);
    kf_str line;
    if (!f || loc.line == 0 || loc.col == 0 || !source_line(f, loc.line, &line))
        return;
    uint32_t at = loc.col - 1 < line.len ? loc.col - 1 : line.len;
    uint32_t from, to;
    clip_line(line, at, &from, &to);
    int width = loc.line < 1000 ? 3 : snprintf(NULL, 0, "%u", loc.line);
    fprintf(out, "%*u | ", width, loc.line);
    print_source(out, line.ptr + from, to - from);
    fprintf(out, "\n%*s | ", width, "");
    for (uint32_t i = from; i < at; i++) {
        if (!is_continuation(line.ptr[i]))
            fputc(line.ptr[i] == '\t' ? '\t' : ' ', out);
    }
    fprintf(out, "%s^", color->caret);
    for (uint32_t i = 1; i < loc.len && at + i < to; i++) {
        if (!is_continuation(line.ptr[at + i]))
            fputc('~', out);
    }
    fprintf(out, "%s%s%.*s\n", color->off, hint.len ? " " : "", KF_STR_ARG(hint));
}

static void print_place(const kf_diags *d, FILE *out, kf_loc loc)
{
    const source_file *f = file_of(d, loc.file);
    if (!f)
        return;
    fprintf(out, "%.*s:", KF_STR_ARG(f->path));
    if (loc.line)
        fprintf(out, "%u:", loc.line);
    if (loc.line && loc.col)
        fprintf(out, "%u:", loc.col);
    fputc(' ', out);
}

bool kf_diags_line(const kf_diags *d, kf_loc loc, kf_str *out_line)
{
    const source_file *f = file_of(d, loc.file);
    return f && loc.line && source_line(f, loc.line, out_line);
}

static bool has_caret(const kf_diags *d, kf_loc loc)
{
    kf_str line;
    return loc.col && kf_diags_line(d, loc, &line);
}

static void print_one(const kf_diags *d, const kf_diag *diag, FILE *out, const palette *color)
{
    const kf_diag_info *info = &kf_diag_infos[diag->code];
    bool is_error = info->severity == KF_ERROR;
    fputs(color->bold, out);
    print_place(d, out, diag->loc);
    fprintf(out, "%s%s%s[%s]: %.*s\n", is_error ? color->error : color->warning,
            is_error ? "error" : "warning", color->off, info->name, KF_STR_ARG(diag->message));
    if (has_caret(d, diag->loc))
        print_caret(d, out, diag->loc, diag->hint, color);
    else if (diag->hint.len)
        fprintf(out, "hint: %.*s\n", KF_STR_ARG(diag->hint));
    for (const kf_note *note = diag->notes; note; note = note->next) {
        print_place(d, out, note->loc);
        fprintf(out, "note: %.*s\n", KF_STR_ARG(note->text));
        if (has_caret(d, note->loc))
            print_caret(d, out, note->loc, KF_STR(""), color);
    }
}

void kf_diags_print(const kf_diags *d, FILE *out, bool color)
{
    const palette *colors = color ? &ansi_colors : &no_colors;
    for (const kf_diag *diag = d->first; diag; diag = diag->next)
        print_one(d, diag, out, colors);
    if (d->hidden)
        fprintf(out, "%u more error%s not shown\n", d->hidden, d->hidden == 1 ? "" : "s");
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void json_place(const kf_diags *d, kf_json *j, kf_loc loc)
{
    if (!loc.file)
        return;
    kf_json_kstr(j, "file", kf_diags_file_path(d, loc.file));
    if (!loc.line)
        return;
    kf_json_kint(j, "line", loc.line);
    kf_json_kint(j, "col", loc.col);
    kf_json_kint(j, "end", (int64_t)loc.col + loc.len);
}

static void json_one(const kf_diags *d, const kf_diag *diag, kf_json *j)
{
    const kf_diag_info *info = &kf_diag_infos[diag->code];
    kf_json_open(j, '{');
    kf_json_key(j, "code");
    kf_json_c(j, info->name);
    kf_json_key(j, "severity");
    kf_json_c(j, info->severity == KF_ERROR ? "error" : "warning");
    json_place(d, j, diag->loc);
    kf_json_kstr(j, "message", diag->message);
    if (diag->hint.len)
        kf_json_kstr(j, "hint", diag->hint);
    kf_json_key(j, "notes");
    kf_json_open(j, '[');
    for (const kf_note *note = diag->notes; note; note = note->next) {
        kf_json_open(j, '{');
        json_place(d, j, note->loc);
        kf_json_kstr(j, "message", note->text);
        kf_json_close(j, '}');
    }
    kf_json_close(j, ']');
    kf_json_close(j, '}');
}

void kf_diags_json(const kf_diags *d, kf_sbuf *out)
{
    kf_json j = {.out = out};
    kf_json_open(&j, '[');
    for (const kf_diag *diag = d->first; diag; diag = diag->next)
        json_one(d, diag, &j);
    kf_json_close(&j, ']');
}
