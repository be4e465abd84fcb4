/* SPDX-License-Identifier: Apache-2.0 */
/* calls - see calls.h. */
#include "tests/graphs/calls.h"

#include "tests/graphs/module_weights.h"
#include "tests/unit/support.h"

#include <math.h>
#include <string.h>

/** Calls in order, with the tokens of each sequence. */
static const struct {
    kf_phase_id phase;
    uint32_t n_tokens[CALL_SEQS];
} plan[CALL_COUNT] = {{KF_PHASE_ID_encode, {2, 4, 1}},
                      {KF_PHASE_ID_prefill, {3, 1, 4}},
                      {KF_PHASE_ID_decode, {1, 1, 1}},
                      {KF_PHASE_ID_prefill, {2, 0, 1}}};

void calls_begin(calls *k, kf_arena *arena, const kf_module *m, uint64_t seed)
{
    int64_t vocabulary = module_vocabulary(m), most = m->syms.data[KF_SYM_S].hi;

    *k = (calls){.arena = arena, .seqs = most < CALL_SEQS ? (uint32_t)most : CALL_SEQS};
    for (int i = 0; i < CALL_COUNT; i++)
        for (int s = 0; s < CALL_SEQS; s++)
            for (int t = 0; t < CALL_MAX_TOKENS; t++)
                k->tokens[i][s][t] = (int32_t)(random_u64(&seed) % (uint64_t)vocabulary);
}

/* The function of |phase|, or the entry that it is made of; NULL: the module has neither. */
static const char *func_of(const calls *k, const kf_module *m, const kf_phase_info *phase)
{
    kf_str split = kf_strf(k->arena, "%s.%s", phase->entry, phase->name);

    return kf_module_find_func(m, split)                       ? split.ptr
           : kf_module_find_func(m, kf_str_from(phase->entry)) ? phase->entry
                                                               : NULL;
}

bool calls_get(const calls *k, const kf_module *m, uint32_t number, call *out)
{
    out->phase = plan[number].phase;
    out->func = func_of(k, m, &kf_phase_infos[out->phase]);
    out->step = (kf_eval_step){0, out->seq, out->n_tokens, out->ids, NULL};
    for (uint32_t s = 0; s < k->seqs; s++) {
        if (!plan[number].n_tokens[s])
            continue;
        uint32_t at = out->step.n_seqs++;
        out->seq[at] = s;
        out->n_tokens[at] = plan[number].n_tokens[s];
        out->ids[at] = k->tokens[number][s];
    }
    return out->func != NULL;
}

/* ---- outputs --------------------------------------------------------------------------------- */

void output_add(const calls *k, output *o, const kf_tensor *t)
{
    o->v = kf_arena_grow(k->arena, o->v, (size_t)o->n * sizeof *o->v,
                         (size_t)(o->n + t->n) * sizeof *o->v, 8);
    memcpy(o->v + o->n, t->data, (size_t)t->n * sizeof *o->v);
    o->n += t->n;
    for (int64_t i = 0; i < t->n; i++)
        o->finite &= isfinite(t->data[i]) != 0;
}

bool calls_evaluate(const calls *k, const kf_module *m, kf_eval_mode mode, output *o, kf_sbuf *why)
{
    kf_arena *a = kf_arena_create("eval");
    kf_eval *e = kf_eval_create(a, m, mode, k->weights, CALL_SEQS);
    bool ok = true;
    kf_tensor t;
    call c;

    *o = (output){.finite = true};
    for (uint32_t i = 0; ok && i < CALL_COUNT; i++) {
        if (!calls_get(k, m, i, &c))
            continue;
        ok = kf_eval_run(e, c.func, &c.step, true, &t, why);
        if (ok)
            output_add(k, o, &t);
    }
    kf_arena_destroy(a);
    return ok;
}

double output_largest(const output *o)
{
    double most = 0;

    for (int64_t i = 0; i < o->n; i++)
        most = fmax(most, fabs(o->v[i]));
    return most;
}

double output_rms(const output *a, const output *b)
{
    double sum = 0;

    if (a->n != b->n)
        return INFINITY;
    for (int64_t i = 0; i < a->n; i++)
        sum += (a->v[i] - b->v[i]) * (a->v[i] - b->v[i]);
    return a->n ? sqrt(sum / (double)a->n) : 0;
}
