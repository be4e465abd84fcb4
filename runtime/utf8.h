/* SPDX-License-Identifier: Apache-2.0 */
/* utf8 - reading, writing and checking UTF-8 (RFC 3629; no surrogates, no overlong forms).
 *
 * The lossy decoder replaces each maximal ill-formed subpart by one U+FFFD, the practice that the
 * Unicode Standard recommends (16.0, section 3.9, table 3-8), across chunk borders.
 */
#ifndef KF_RUNTIME_UTF8_H
#define KF_RUNTIME_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KF_UTF8_REPLACEMENT "\xEF\xBF\xBD"

/** Length in bytes of the well-formed character at |s| of |n| bytes, its code point in |out_cp|. 0
 * if ill-formed or cut short; then |out_cp| is the length of the maximal subpart, at least 1 when n
 * > 0 (kf_utf8_is_incomplete tells a beginning from an error). */
uint32_t kf_utf8_decode(const char *s, size_t n, uint32_t *out_cp);

/** Like kf_utf8_decode for text known to be well-formed and not empty. Returns the length. */
uint32_t kf_utf8_next(const char *s, uint32_t *out_cp);

/** Writes |cp| (a scalar value) to |out| of 4 bytes; returns the length. */
uint32_t kf_utf8_encode(uint32_t cp, char *out);

bool kf_utf8_valid(const char *s, size_t n);

/** True if |s| of |n| bytes (n > 0) is a proper beginning of a character. */
bool kf_utf8_is_incomplete(const char *s, size_t n);

/** State of a lossy decoder: a character that is not complete yet. Zero-initialise. */
typedef struct kf_utf8_lossy {
    char held[4];
    uint32_t n_held;
} kf_utf8_lossy;

/** Called with pieces of well-formed text. Returns false to stop. */
typedef bool (*kf_utf8_sink)(void *user, const char *text, size_t len);

/** Feeds |n| bytes; everything that is decided goes to |sink|. False if the sink said so. */
bool kf_utf8_lossy_feed(kf_utf8_lossy *state, const char *s, size_t n, kf_utf8_sink sink,
                        void *user);

/** Ends the text: a held beginning becomes U+FFFD. The state is fresh afterwards. */
bool kf_utf8_lossy_finish(kf_utf8_lossy *state, kf_utf8_sink sink, void *user);

#endif
