/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_weights - `kerf weights random SPEC -o DIR`: a Hugging Face directory with seeded random
 * weights. */
#include "driver/verbs.h"
#include "frontend/weights_random.h"

#include <string.h>

static bool find_dtype(const char *word, kf_dtype *out)
{
    static const struct {
        const char *word;
        kf_dtype dtype;
    } words[] = {{"float32", KF_DTYPE_f32}, {"f32", KF_DTYPE_f32},     {"bfloat16", KF_DTYPE_bf16},
                 {"bf16", KF_DTYPE_bf16},   {"float16", KF_DTYPE_f16}, {"f16", KF_DTYPE_f16}};

    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (!strcmp(word, words[i].word)) {
            *out = words[i].dtype;
            return true;
        }
    }
    return false;
}

int kf_verb_weights(kf_compilation *c)
{
    kf_dtype dtype = KF_DTYPE_f32;

    if (strcmp(c->opt->operand, "random")) {
        kf_diag_add(c->diags, KF_E0804, KF_NO_LOC, "'kerf weights' knows 'random', not '%s'",
                    c->opt->operand);
        return 0;
    }
    if (!c->opt->output) {
        kf_diag_add(c->diags, KF_E0804, KF_NO_LOC, "usage: kerf weights random SPEC -o DIR");
        return 0;
    }
    c->spec = kf_spec_load(c->arena, c->diags, c->opt->second, NULL, 0);
    if (!c->spec)
        return 0;
    if (kf_src_given(c->spec->dtype.src))
        dtype = c->spec->dtype.v;
    if (c->opt->dtype && !find_dtype(c->opt->dtype, &dtype)) {
        kf_diag_add(c->diags, KF_E0803, KF_NO_LOC,
                    "--dtype takes float32, bfloat16 or float16, not '%s'", c->opt->dtype);
        return 0;
    }
    if (kf_weights_random_write(c->arena, c->diags, c->spec, c->opt->output, (uint64_t)c->opt->seed,
                                dtype) &&
        c->opt->json)
        kf_print_output(c, "kerf.weights.1", c->opt->output);
    return 0;
}
