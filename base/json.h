/* SPDX-License-Identifier: Apache-2.0 */
/* json - a small writer over kf_sbuf; reading JSON is jansson's or the event reader's business.
 *
 * The writer keeps track of commas and indentation; keys are written in call order, so output is
 * stable.
 */
#ifndef KF_BASE_JSON_H
#define KF_BASE_JSON_H

#include "base/str.h"

#define KF_JSON_MAX_DEPTH 64

/** Zero-initialise with .out set. */
typedef struct kf_json {
    kf_sbuf *out;
    uint32_t depth;
    bool has_items[KF_JSON_MAX_DEPTH];
    bool after_key;
} kf_json;

void kf_json_open(kf_json *j, char bracket); /* '{' or '[' */
void kf_json_close(kf_json *j, char bracket);
void kf_json_key(kf_json *j, const char *key);
void kf_json_str(kf_json *j, kf_str s);
void kf_json_c(kf_json *j, const char *s);
void kf_json_int(kf_json *j, int64_t v);
void kf_json_null(kf_json *j);
/** key + value in one call. */
void kf_json_kstr(kf_json *j, const char *key, kf_str s);
void kf_json_kint(kf_json *j, const char *key, int64_t v);
void kf_json_kdouble(kf_json *j, const char *key, double v); /* non-finite: null */
void kf_json_kbool(kf_json *j, const char *key, bool v);

#endif
