/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_check - everything that can be known without code generation: description, shapes, weights,
 * memory. */
#include "base/json.h"
#include "driver/verbs.h"

#include <inttypes.h>

typedef struct sizes {
    uint64_t parameters, weight_bytes, pool_bytes, kv_bytes_per_token;
} sizes;

static bool count_param(void *user, kf_str name, const kf_spec_param *param, const kf_block *block)
{
    uint64_t *n = user;

    (void)name;
    (void)block;
    *n += (uint64_t)(param->tensor_rows * (param->rank > 1 ? param->dim[1] : 1));
    return true;
}

static sizes measure(const kf_compilation *c)
{
    sizes s = {0};

    kf_spec_each_param(c->scratch, c->spec, count_param, &s.parameters);
    for (uint32_t i = 0; i < c->plan->weights.len; i++) {
        const kf_plan_weight *w = &c->plan->weights.data[i];
        s.weight_bytes += (uint64_t)w->size_bytes * w->layers;
    }
    for (uint32_t i = 0; i < c->plan->phases.len; i++)
        if ((uint64_t)c->plan->phases.data[i].pool_bytes > s.pool_bytes)
            s.pool_bytes = (uint64_t)c->plan->phases.data[i].pool_bytes;
    for (uint32_t i = 0; i < c->plan->states.len; i++) {
        kf_type one = c->plan->states.data[i].type;
        uint32_t layers = one.kv_layers;
        one.kv_layers = 1;
        s.kv_bytes_per_token += (uint64_t)kf_kvcache_page_bytes(&one) / one.kv_page * layers;
    }
    return s;
}

static void print_json(const kf_compilation *c, const sizes *s)
{
    kf_sbuf text = {.arena = c->scratch};
    kf_json w = {.out = &text};

    kf_json_open(&w, '{');
    kf_json_kstr(&w, "schema", KF_STR("kerf.check.1"));
    kf_json_kstr(&w, "model", c->spec->name.v);
    kf_json_kint(&w, "parameters", (int64_t)s->parameters);
    kf_json_kint(&w, "weight_bytes", (int64_t)s->weight_bytes);
    kf_json_kint(&w, "activation_bytes", (int64_t)s->pool_bytes);
    kf_json_kint(&w, "kv_bytes_per_token", (int64_t)s->kv_bytes_per_token);
    kf_json_kbool(&w, "has_weights", kf_compilation_weights(c) != NULL);
    kf_json_close(&w, '}');
    printf("%.*s\n", KF_STR_ARG(kf_sbuf_view(&text)));
}

int kf_verb_check(kf_compilation *c)
{
    if (!kf_compilation_run(c, c->opt->operand))
        return 0;
    sizes s = measure(c);
    if (c->opt->json) {
        print_json(c, &s);
        return 0;
    }
    printf("%.*s: ok\n", KF_STR_ARG(c->spec->name.v));
    printf("  parameters        %12" PRIu64 "\n", s.parameters);
    printf("  packed weights    %12.1f MiB%s\n", (double)s.weight_bytes / (1 << 20),
           kf_compilation_weights(c) ? "" : "  (no checkpoint at hand)");
    printf("  activations       %12.1f MiB\n", (double)s.pool_bytes / (1 << 20));
    printf("  cache per token   %12.1f KiB\n", (double)s.kv_bytes_per_token / 1024);
    return 0;
}
