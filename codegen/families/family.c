/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/families/family.h"

#include "base/check.h"

bool kf_refuse(kf_sbuf *why, const char *fmt, ...)
{
    if (!why)
        return false;
    va_list ap;
    va_start(ap, fmt);
    kf_sbuf_vprintf(why, fmt, ap);
    va_end(ap);
    return false;
}

void kf_config_set(kf_config *c, const char *key, int64_t value)
{
    KF_ASSERT(c->n < KF_MAX_CONFIG, "a kernel has at most KF_MAX_CONFIG integers");
    c->key[c->n] = key;
    c->value[c->n++] = value;
}

int64_t kf_dim_bound(const kf_graph *body, kf_dim d, int64_t rows_hi)
{
    if (kf_dim_is_static(d))
        return d.size;
    const int64_t hi = body->module->syms.data[d.sym - 1].hi;
    return d.sym - 1 != KF_SYM_K && hi > rows_hi ? rows_hi : hi;
}

kb_value kf_result_ptr(const kf_emit *e, uint32_t i)
{
    return kb_ptr(e->b, e->body->args.len + i);
}

static bool static_axis(const kf_graph *g, const kf_node *n, kf_sbuf *why)
{
    const int64_t axis = KF_ATTR_OF(n, axis)->axis;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!kf_dim_is_static(kf_value_type(g, n->in[i])->dim[axis]))
            return kf_refuse(why, "concat joins an axis whose size is known only at the call");
    return true;
}

bool kf_body_is_pointwise(const kf_graph *body, kf_sbuf *why)
{
    for (uint32_t i = 0; i < body->nodes.len; i++) {
        const kf_node *n = &body->nodes.data[i];
        switch (n->op) {
        case KF_OP_attention:
        case KF_OP_repeat:
        case KF_OP_region:
            return kf_refuse(why, "%s is a kernel of its own", kf_op_infos[n->op].name);
        case KF_OP_concat:
            if (!static_axis(body, n, why))
                return false;
            break;
        default:
            break;
        }
    }
    return true;
}
