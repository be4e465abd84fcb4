/* SPDX-License-Identifier: Apache-2.0 */
/* schema_print - values of the schema as YAML; see schema.h. */
#include "frontend/schema.h"

#include <string.h>

void kf_print_yaml_str(kf_str s, kf_sbuf *out)
{
    bool plain = s.len > 0;
    for (uint32_t i = 0; i < s.len && plain; i++) {
        char c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool later = (c >= '0' && c <= '9') || strchr("_./-+:", c) != NULL;
        plain = c != '\0' && (letter || (i > 0 && later) || (i == 0 && strchr("./", c) != NULL));
    }
    /* A plain scalar may not end in ':' and must not look like a boolean or null. */
    if (plain && (s.ptr[s.len - 1] == ':' || kf_str_eq_c(s, "true") || kf_str_eq_c(s, "false") ||
                  kf_str_eq_c(s, "null")))
        plain = false;
    if (plain) {
        kf_sbuf_str(out, s);
        return;
    }
    kf_sbuf_char(out, '"');
    for (uint32_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];
        if (c == '"' || c == '\\')
            kf_sbuf_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            kf_sbuf_printf(out, "\\x%02x", c);
        else
            kf_sbuf_char(out, (char)c);
    }
    kf_sbuf_char(out, '"');
}

static void print_strs(const kf_sv_strs *sv, kf_sbuf *out)
{
    if (sv->n == 1) {
        kf_print_yaml_str(sv->v[0], out);
        return;
    }
    kf_sbuf_char(out, '[');
    for (uint32_t i = 0; i < sv->n; i++) {
        kf_sbuf_c(out, i > 0 ? ", " : "");
        kf_print_yaml_str(sv->v[i], out);
    }
    kf_sbuf_char(out, ']');
}

static void print_ints(const kf_sv_ints *sv, kf_sbuf *out)
{
    if (sv->n == 1) {
        kf_sbuf_printf(out, "%lld", (long long)sv->v[0]);
        return;
    }
    kf_sbuf_char(out, '[');
    for (uint32_t i = 0; i < sv->n; i++)
        kf_sbuf_printf(out, "%s%lld", i > 0 ? ", " : "", (long long)sv->v[i]);
    kf_sbuf_char(out, ']');
}

void kf_key_print(const kf_key *key, const void *sv, kf_sbuf *out)
{
    uint32_t n;
    switch (key->type) {
    case KF_KEY_int:
        kf_sbuf_printf(out, "%lld", (long long)((const kf_sv_int *)sv)->v);
        return;
    case KF_KEY_memory:
        kf_sbuf_printf(out, "%lldB", (long long)((const kf_sv_int *)sv)->v);
        return;
    case KF_KEY_num:
        kf_sbuf_double(out, ((const kf_sv_num *)sv)->v);
        return;
    case KF_KEY_bool:
        kf_sbuf_c(out, ((const kf_sv_bool *)sv)->v ? "true" : "false");
        return;
    case KF_KEY_str:
        kf_print_yaml_str(((const kf_sv_str *)sv)->v, out);
        return;
    case KF_KEY_dtype:
        kf_sbuf_c(out, kf_dtype_infos[((const kf_sv_dtype *)sv)->v].name);
        return;
    case KF_KEY_strs:
        print_strs(sv, out);
        return;
    case KF_KEY_ints:
        print_ints(sv, out);
        return;
    case KF_KEY_act:
    case KF_KEY_mask:
    case KF_KEY_score:
    case KF_KEY_prob:
        kf_print_yaml_str(((const kf_sv_expr *)sv)->text, out);
        return;
    case KF_KEY_node:
        return;
    default:
        kf_sbuf_c(out, kf_word_names(key->type, &n)[((const kf_sv_word *)sv)->v]);
        return;
    }
}
