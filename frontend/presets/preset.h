/* SPDX-License-Identifier: Apache-2.0 */
/* preset - model families as data: the open composition that a family stands for, and the Hugging
 * Face architectures that map to it. Nothing outside this folder knows a family by name.
 */
#ifndef KF_FRONTEND_PRESETS_PRESET_H
#define KF_FRONTEND_PRESETS_PRESET_H

#include <stdbool.h>
#include <stdint.h>

/** How config.json's sliding_window counts for an architecture. */
typedef enum kf_arch_window {
    KF_WINDOW_IF_GIVEN,   /* whenever it is not null */
    KF_WINDOW_IF_ENABLED, /* only with use_sliding_window: true */
} kf_arch_window;

/** A key that the architecture fixes (|fixed|) or whose default differs from the family's. Value:
 * YAML. */
typedef struct kf_arch_key {
    const char *key;
    const char *value;
    bool fixed;
} kf_arch_key;

#define KF_ARCH_MAX_KEYS 8

typedef struct kf_arch {
    const char *name; /* in config.json's architectures */
    const char *family;
    kf_arch_window window;
    kf_arch_key key[KF_ARCH_MAX_KEYS]; /* ends at the first without a key */
} kf_arch;

/** A family. |text|: YAML of blocks and model; a scalar $key stands for the value of that key of
 * the description, and a pair whose value is absent is left out. */
typedef struct kf_preset {
    const char *family;
    const char *summary;
    const char *text;
} kf_preset;

extern const kf_preset kf_presets[];
extern const uint32_t kf_n_presets;
extern const kf_arch kf_archs[];
extern const uint32_t kf_n_archs;

/** Default checkpoint names by parameter, without the scope ("attention.q"); NULL: none.
 * |in_block|: inside an entry of `blocks:`, else in `model:`. */
const char *kf_default_weight_name(const char *parameter, bool in_block);

#endif
