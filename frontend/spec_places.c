/* SPDX-License-Identifier: Apache-2.0 */
/* spec_places - where blocks may stand, and what a whole model begins with,
 * ends with and gives. */
#include "frontend/spec_read.h"

/** Why |b|, item |i| of a sequence that is the model itself if |is_top|, cannot stand there; or
 * NULL. |is_pooled|: behind a pool. */
static const char *wrong_place(const kf_spec *spec, const kf_block *b, uint32_t i, bool is_top,
                               bool is_pooled)
{
    if (b->kind == KF_BLOCK_EMBEDDING && !(is_top && i == 0))
        return "'embedding' is the first block of the model and stands nowhere else";
    if (b->kind == KF_BLOCK_REPEAT && !is_top)
        return "'repeat' stands in the model itself";
    if (b->kind == KF_BLOCK_TYPES && (!is_top || spec->kind == KF_MODEL_ENCODER_DECODER))
        return "'token_type_embedding' stands in the model itself, without a decoder beside it";
    if (b->kind == KF_BLOCK_BIAS && !is_top)
        return "'relative_bias' stands in the model itself";
    if (b->kind == KF_BLOCK_POOL && (!is_top || spec->kind != KF_MODEL_ENCODER))
        return "'pool' stands in 'encoder:' itself";
    if (is_pooled &&
        (b->kind == KF_BLOCK_POOL || b->kind == KF_BLOCK_ATTENTION || b->kind == KF_BLOCK_REPEAT ||
         b->kind == KF_BLOCK_POSITION_EMBEDDING || b->kind == KF_BLOCK_TYPES))
        return "behind 'pool' a sequence has one row, which this block is not for";
    return NULL;
}

static bool check_places(kf_reader *r, const kf_blocks *blocks, bool is_top, bool is_pooled)
{
    bool ok = true;
    for (uint32_t i = 0; i < blocks->n; i++) {
        const kf_block *b = &blocks->block[i];
        const char *wrong = wrong_place(r->spec, b, i, is_top, is_pooled);
        if (wrong != NULL) {
            kf_diag_add(r->diags, KF_E0117, b->src.loc, "%s", wrong);
            ok = false;
        }
        is_pooled = is_pooled || b->kind == KF_BLOCK_POOL;
        if (b->kind == KF_BLOCK_RESIDUAL)
            ok = check_places(r, &b->u.residual.body, false, is_pooled) && ok;
        for (uint32_t j = 0; b->kind == KF_BLOCK_PARALLEL && j < b->u.parallel.n_branches; j++)
            ok = check_places(r, &b->u.parallel.branch[j], false, is_pooled) && ok;
    }
    return ok;
}

/* ---- what depends on the stack a block is used in -------------------------------------------- */

typedef struct stack {
    kf_reader *r;
    bool is_encoder;
    const kf_spec_bias *bias; /* in effect, or NULL */
    bool ok;
} stack;

static void wrong(stack *s, kf_diag_code code, kf_loc loc, const char *text)
{
    kf_diag_add(s->r->diags, code, loc, "%s", text);
    s->ok = false;
}

static void check_attention(stack *s, const kf_block *b)
{
    const kf_spec_attention *u = &b->u.attention;
    if (!s->is_encoder && !kf_expr_is_causal(u->mask.expr))
        wrong(s, KF_E0406, u->mask.src.loc, "in a decoder the mask has to imply k <= q");
    if (!u->relative_bias.v)
        return;
    if (s->bias == NULL)
        wrong(s, KF_E0117, u->relative_bias.src.loc, "no 'relative_bias' stands before this");
    else if (s->bias->num_attention_heads.v != u->num_attention_heads.v)
        wrong(s, KF_E0107, u->relative_bias.src.loc,
              "the 'relative_bias' before this has another number of heads");
}

static void check_stack(stack *s, const kf_blocks *blocks)
{
    const kf_spec *spec = s->r->spec;
    for (uint32_t i = 0; i < blocks->n; i++) {
        const kf_block *b = &blocks->block[i];
        if (b->kind == KF_BLOCK_BIAS)
            s->bias = &b->u.bias;
        if (b->kind == KF_BLOCK_ATTENTION)
            check_attention(s, b);
        if (b->kind == KF_BLOCK_CROSS && (s->is_encoder || spec->encoder.n == 0))
            wrong(s, KF_E0117, b->src.loc,
                  "'cross_attention' stands in a decoder beside an encoder");
        if (b->kind == KF_BLOCK_RESIDUAL)
            check_stack(s, &b->u.residual.body);
        for (uint32_t j = 0; b->kind == KF_BLOCK_PARALLEL && j < b->u.parallel.n_branches; j++)
            check_stack(s, &b->u.parallel.branch[j]);
        for (uint32_t j = 0; b->kind == KF_BLOCK_REPEAT && j < b->u.repeat.block.n; j++) {
            kf_blocks body = kf_repeat_body(spec, &b->u.repeat, j);
            check_stack(s, &body);
        }
    }
}

static bool check_stacks(kf_reader *r)
{
    stack first = {.r = r, .is_encoder = true, .ok = true};
    stack second = {.r = r, .is_encoder = r->spec->kind == KF_MODEL_ENCODER, .ok = true};
    check_stack(&first, &r->spec->encoder);
    check_stack(&second, &r->spec->model);
    return first.ok && second.ok;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool check_begin(kf_reader *r, const kf_blocks *blocks)
{
    if (blocks->n == 0 || blocks->block[0].kind == KF_BLOCK_EMBEDDING)
        return true;
    kf_diag_add(r->diags, KF_E0117, blocks->block[0].src.loc,
                "the model does not begin with 'embedding'");
    return false;
}

bool kf_check_places(kf_reader *r)
{
    kf_spec *spec = r->spec;
    const kf_block *last = &spec->model.block[spec->model.n - 1];
    bool ok = check_places(r, &spec->encoder, true, false);
    ok = check_places(r, &spec->model, true, false) && ok;
    for (uint32_t i = 0; i < spec->n_blocks; i++) {
        ok = check_places(r, &spec->block[i].body, false, false) && ok;
        if (spec->block[i].used)
            continue;
        kf_diag_add(r->diags, KF_E0117, spec->block[i].src.loc,
                    "block '%.*s' is not used by the model", KF_STR_ARG(spec->block[i].name));
        ok = false;
    }
    ok = check_begin(r, &spec->encoder) && check_begin(r, &spec->model) && ok;
    if (spec->kind != KF_MODEL_ENCODER &&
        (last->kind != KF_BLOCK_LINEAR || last->out_dim != spec->vocab_size.v)) {
        kf_diag_add(r->diags, KF_E0117, last->src.loc,
                    "the model does not end with a head: 'linear: {out: vocab_size}'");
        ok = false;
    }
    spec->head = last;
    return check_stacks(r) && ok;
}

/* ---- facts of a finished Spec ---------------------------------------------------------------- */

int64_t kf_spec_token_types(const kf_spec *spec)
{
    int64_t least = 0;

    for (uint32_t i = 0; i < spec->model.n; i++) {
        const kf_block *b = &spec->model.block[i];
        if (b->kind == KF_BLOCK_TYPES && (least == 0 || b->u.types.type_vocab_size.v < least))
            least = b->u.types.type_vocab_size.v;
    }
    return least;
}

bool kf_spec_is_pooled(const kf_spec *spec)
{
    for (uint32_t i = 0; i < spec->model.n; i++)
        if (spec->model.block[i].kind == KF_BLOCK_POOL)
            return true;
    return false;
}

int64_t kf_spec_row_width(const kf_spec *spec)
{
    return spec->head->out_dim;
}
