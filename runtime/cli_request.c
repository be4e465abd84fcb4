/* SPDX-License-Identifier: Apache-2.0 */
/* kf_cli_request - one line of --jsonl. A strict reader of flat objects (RFC 8259) that knows four
 * keys. */
#include "runtime/cli.h"
#include "runtime/utf8.h"

#include <string.h>

typedef struct reader {
    const kf_cli *c;
    const char *at, *end;
    uint64_t line_no;
} reader;

static kf_status bad(const reader *r, const char *what)
{
    return kf_fail(&r->c->log, KF_ERR_INPUT, "request %llu: %s", (unsigned long long)r->line_no,
                   what);
}

static void skip_space(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r' || *r->at == '\n'))
        r->at++;
}

static bool take(reader *r, char ch)
{
    skip_space(r);
    if (r->at < r->end && *r->at == ch) {
        r->at++;
        return true;
    }
    return false;
}

static bool read_hex4(reader *r, uint32_t *out)
{
    uint32_t v = 0;
    if (r->end - r->at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char ch = *r->at++;
        uint32_t digit = ch >= '0' && ch <= '9'   ? (uint32_t)(ch - '0')
                         : ch >= 'a' && ch <= 'f' ? (uint32_t)(ch - 'a' + 10)
                         : ch >= 'A' && ch <= 'F' ? (uint32_t)(ch - 'A' + 10)
                                                  : 16;
        if (digit > 15)
            return false;
        v = v << 4 | digit;
    }
    *out = v;
    return true;
}

static kf_status read_escape(reader *r, kf_cli_array *out)
{
    static const char plain[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end)
        return bad(r, "an escape is cut short");
    char ch = *r->at++;
    const char *found = ch ? strchr(plain, ch) : NULL;
    if (found)
        return kf_cli_array_add(r->c, out, &means[found - plain], 1);
    uint32_t cp, low;
    if (ch != 'u' || !read_hex4(r, &cp))
        return bad(r, "an escape that JSON does not have");
    if (cp >= 0xD800 && cp < 0xDC00) {
        if (r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u')
            return bad(r, "half of a surrogate pair");
        r->at += 2;
        if (!read_hex4(r, &low) || low < 0xDC00 || low > 0xDFFF)
            return bad(r, "half of a surrogate pair");
        cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
    } else if (cp >= 0xDC00 && cp <= 0xDFFF) {
        return bad(r, "half of a surrogate pair");
    }
    char bytes[4];
    return kf_cli_array_add(r->c, out, bytes, kf_utf8_encode(cp, bytes));
}

static kf_status read_string(reader *r, kf_cli_array *out)
{
    if (!take(r, '"'))
        return bad(r, "a string is expected");
    for (;;) {
        const char *from = r->at;
        while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char)*r->at >= 0x20)
            r->at++;
        KF_TRY(kf_cli_array_add(r->c, out, from, (size_t)(r->at - from)));
        if (r->at == r->end || (unsigned char)*r->at < 0x20)
            return bad(r, "a string that does not end");
        if (*r->at++ == '"')
            return KF_OK;
        KF_TRY(read_escape(r, out));
    }
}

static kf_status read_int(reader *r, int64_t *out)
{
    skip_space(r);
    uint64_t v = 0;
    const char *from = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9' && r->at - from < 18)
        v = v * 10 + (uint64_t)(*r->at++ - '0');
    if (r->at == from)
        return bad(r, "a whole number >= 0 is expected");
    *out = (int64_t)v;
    return KF_OK;
}

static kf_status read_ids(reader *r, kf_cli_array *out)
{
    if (!take(r, '['))
        return bad(r, "a list of ids is expected");
    if (take(r, ']'))
        return KF_OK;
    do {
        int64_t v;
        KF_TRY(read_int(r, &v));
        if (v >= r->c->model->vocab_size)
            return bad(r, "an id beyond the vocabulary");
        int32_t id = (int32_t)v;
        KF_TRY(kf_cli_array_add(r->c, out, &id, sizeof id));
    } while (take(r, ','));
    return take(r, ']') ? KF_OK : bad(r, "a list that does not end");
}

static kf_status read_field(reader *r, const char *key, size_t len, kf_cli_request *out)
{
    struct {
        const char *name;
        bool *has;
    } rows[] = {{"prompt", &out->has_prompt},
                {"ids", &out->has_ids},
                {"n", &out->has_n},
                {"seed", &out->has_seed}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (len != strlen(rows[i].name) || memcmp(key, rows[i].name, len) != 0)
            continue;
        if (*rows[i].has)
            return bad(r, "a key twice");
        *rows[i].has = true;
        switch (i) {
        case 0:
            return read_string(r, &out->prompt);
        case 1:
            return read_ids(r, &out->ids);
        case 2:
            return read_int(r, &out->n);
        default:
            return read_int(r, &out->seed);
        }
    }
    return bad(r, "a key other than prompt, ids, n, seed");
}

kf_status kf_cli_request_parse(const kf_cli *c, const char *line, size_t len, uint64_t line_no,
                               kf_cli_request *out)
{
    reader r = {c, line, line + len, line_no};
    *out = (kf_cli_request){0};
    if (!take(&r, '{'))
        return bad(&r, "an object is expected");
    if (!take(&r, '}')) {
        do {
            kf_cli_array key = {0};
            kf_status status = read_string(&r, &key);
            if (status == KF_OK && !take(&r, ':'))
                status = bad(&r, "':' is expected");
            if (status == KF_OK)
                status = read_field(&r, key.data ? key.data : "", key.size_bytes, out);
            kf_cli_array_free(c, &key);
            KF_TRY(status);
        } while (take(&r, ','));
        if (!take(&r, '}'))
            return bad(&r, "an object that does not end");
    }
    skip_space(&r);
    if (r.at != r.end)
        return bad(&r, "text after the object");
    if (out->has_prompt == out->has_ids)
        return bad(&r, "one of prompt and ids is needed");
    return KF_OK;
}

void kf_cli_request_free(const kf_cli *c, kf_cli_request *r)
{
    kf_cli_array_free(c, &r->prompt);
    kf_cli_array_free(c, &r->ids);
}
