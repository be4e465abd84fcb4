/* SPDX-License-Identifier: Apache-2.0 */
/* host_c - see host_c.h. Data tables stand between clang-format marks: a table has its own layout.
 */
#include "codegen/host_c.h"

#include "codegen/pack.h"
#include "ir/phase.h"
#include "runtime/kf_artifact.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>

#define LINE_WIDTH 100

typedef struct emitter {
    kf_arena *arena;
    const kf_plan *p;
    const kf_host_c *h;
    kf_sbuf *out;
    kf_str ident; /* of the model */
} emitter;

kf_str kf_c_identifier(kf_arena *arena, kf_str name)
{
    kf_sbuf b = {.arena = arena};

    if (!name.len || isdigit((unsigned char)name.ptr[0]))
        kf_sbuf_char(&b, '_');
    for (uint32_t i = 0; i < name.len; i++)
        kf_sbuf_char(&b, isalnum((unsigned char)name.ptr[i]) ? name.ptr[i] : '_');
    return kf_sbuf_view(&b);
}

/* ---- small parts ----------------------------------------------------------------------------- */

/* "tiny.yaml:8:11", or "" where nothing is known. */
static kf_str place(const emitter *e, kf_loc loc)
{
    if (loc.file == 0)
        return (kf_str){"", 0};
    kf_str path = e->p->module->files.data[loc.file - 1];
    for (uint32_t i = path.len; i > 0; i--) {
        if (path.ptr[i - 1] == '/') {
            path = (kf_str){path.ptr + i, path.len - i};
            break;
        }
    }
    return kf_strf(e->arena, "%.*s:%u:%u", KF_STR_ARG(path), loc.line, loc.col);
}

/* A list that is broken before LINE_WIDTH. */
typedef struct list {
    kf_sbuf *out;
    uint32_t column;
    bool any;
} list;

static void item(list *l, kf_str text)
{
    bool fits = l->column + text.len + 3 <= LINE_WIDTH; /* with ", " before and "," behind */

    if (l->any)
        kf_sbuf_c(l->out, fits ? ", " : ",");
    if (!fits) {
        kf_sbuf_c(l->out, "\n    ");
        l->column = 4;
    }
    kf_sbuf_str(l->out, text);
    l->column += text.len + 2;
    l->any = true;
}

/* What a kernel does, in the words of the IR: the ops of its body that compute, each once. */
static kf_str summary(const emitter *e, const kf_kernel *k)
{
    kf_sbuf text = {.arena = e->arena};

    for (uint32_t i = 0; i < k->body->nodes.len; i++) {
        kf_op op = k->body->nodes.data[i].op;
        bool seen =
            op == KF_OP_reshape || op == KF_OP_slice || op == KF_OP_const || op == KF_OP_transpose;
        for (uint32_t j = 0; j < i; j++)
            seen |= k->body->nodes.data[j].op == op;
        if (!seen)
            kf_sbuf_printf(&text, "%s%s", text.len ? " + " : "", kf_op_infos[op].name);
    }
    return text.len ? kf_sbuf_view(&text) : KF_STR("copy");
}

_Static_assert((int)KF_INPUT_ID_COUNT == (int)KF_INPUT_COUNT, "ORDER: ir/phase.def");

static const char *const space_names[] = {"KF_SPACE_BUFFER", "KF_SPACE_WEIGHT", "KF_SPACE_STATE",
                                          "KF_SPACE_INPUT"};

static kf_str operand_text(const emitter *e, const kf_plan_phase *ph, kf_operand o)
{
    int64_t offset = o.space == KF_SPACE_BUFFER ? ph->buffers.data[o.index].offset : 0;

    uint32_t index = o.space == KF_SPACE_BUFFER  ? 0
                     : o.space == KF_SPACE_INPUT ? kf_input_find(e->p->inputs.data[o.index].name)
                                                 : o.index;

    return kf_strf(e->arena, "{%s, %u, %" PRId64 ", 0}", space_names[o.space], index, offset);
}

/* Where what the tiles of a launch share lies behind its counters; all launches use one place. */
static int64_t shared_offset(const kf_plan *p)
{
    int64_t most = 0;

    for (uint32_t i = 0; i < p->kernels.len; i++)
        most = p->kernels.data[i].shape.cells > most ? p->kernels.data[i].shape.cells : most;
    return (most * 4 + 63) / 64 * 64;
}

static int64_t counter_bytes(const kf_plan *p)
{
    int64_t most = 0;

    for (uint32_t i = 0; i < p->kernels.len; i++)
        most = p->kernels.data[i].shape.shared_bytes > most ? p->kernels.data[i].shape.shared_bytes
                                                            : most;
    return shared_offset(p) + most;
}

static kf_str launch_name(const emitter *e, const kf_plan_phase *ph, uint32_t l)
{
    uint32_t id = l;

    for (const kf_plan_phase *q = e->p->phases.data; q != ph; q++)
        id += q->launches.len;
    const kf_kernel *k = &e->p->kernels.data[ph->launches.data[l].kernel];
    return kf_strf(e->arena, "l%u_%.*s", id, KF_STR_ARG(k->name));
}

static kf_str phase_name(const emitter *e, const kf_plan_phase *ph)
{
    return kf_strf(e->arena, "%.*s_r%" PRId64, KF_STR_ARG(ph->name), ph->rows_hi);
}

/* ---- kernels and launches -------------------------------------------------------------------- */

static void emit_head(const emitter *e)
{
    kf_sbuf_printf(
        e->out,
        "/* %.*s, for %.*s. Emitted by kerf %s from %s; do not edit.\n"
        " * Launches follow the model's layers; places are those of the description. */\n"
        "#include \"kf_runtime.h\"\n\n"
        "/* Tile functions, in the object file beside this one. */\n",
        KF_STR_ARG(e->p->name), KF_STR_ARG(e->p->target), e->h->compiler_version, e->h->source);
    for (uint32_t i = 0; i < e->p->kernels.len; i++)
        kf_sbuf_printf(e->out,
                       "void %.*s(const kf_kernel_args *args, uint32_t tile, void *scratch);\n",
                       KF_STR_ARG(e->p->kernels.data[i].name));
}

static void emit_work(const emitter *e, const kf_cost *c)
{
    kf_sbuf_printf(e->out,
                   "{%" PRId64 ", {0, %" PRId64 ", %" PRId64 ", %" PRId64 ", 0, %" PRId64 "}}",
                   c->fixed, c->per_token, c->per_row, c->per_key, c->per_pair);
}

static void emit_tiles(const emitter *e, const kf_tile_expr *t)
{
    kf_sbuf_printf(e->out, "{%" PRId64 ", %u, {", t->constant, t->n_terms);
    for (uint8_t i = 0; i < t->n_terms; i++)
        kf_sbuf_printf(e->out, "%s{%u, %" PRId64 "}", i ? ", " : "", t->term[i].sym,
                       t->term[i].div);
    kf_sbuf_c(e->out, t->n_terms ? "}}" : "{0, 0}}}");
}

static void emit_launch(const emitter *e, const kf_plan_phase *ph, uint32_t index, uint32_t id)
{
    const kf_launch *l = &ph->launches.data[index];
    const kf_kernel *k = &e->p->kernels.data[l->kernel];
    kf_str name = launch_name(e, ph, index);
    kf_str head = kf_strf(e->arena, "static const kf_operand o%u[] = {", id);
    list operands = {.out = e->out, .column = head.len};
    kf_sbuf quoted = {.arena = e->arena};

    kf_sbuf_str(e->out, head);
    for (uint32_t i = 0; i < l->n_operands; i++)
        item(&operands, operand_text(e, ph, l->operand[i]));
    if (k->shape.cells) {
        item(&operands, KF_STR("{KF_SPACE_COUNTER, 0, 0, 0}"));
        item(&operands,
             kf_strf(e->arena, "{KF_SPACE_COUNTER, 0, %" PRId64 ", 0}", shared_offset(e->p)));
    }
    kf_sbuf_quoted(&quoted, place(e, l->loc));
    kf_sbuf_printf(e->out,
                   "};\nstatic const kf_launch %.*s = {\n    \"%.*s\", \"%.*s\", %.*s, \"%s\",\n",
                   KF_STR_ARG(name), KF_STR_ARG(k->name), KF_STR_ARG(summary(e, k)),
                   KF_STR_ARG(kf_sbuf_view(&quoted)), kf_family_names[k->family]);
    kf_sbuf_printf(e->out, "    %.*s, o%u, %u, %u, ", KF_STR_ARG(k->name), id,
                   l->n_operands + (k->shape.cells ? 2u : 0u), id);
    emit_tiles(e, &k->shape.tiles);
    kf_sbuf_c(e->out, ", ");
    emit_work(e, &l->flops);
    kf_sbuf_c(e->out, ", ");
    emit_work(e, &l->bytes);
    kf_sbuf_c(e->out, "};\n");
}

static uint32_t emit_launches(const emitter *e)
{
    uint32_t id = 0;

    kf_sbuf_c(
        e->out,
        "\n/* clang-format off */\n"
        "/* Operands {space, index, offset, layer stride}; launches {kernel, what, place, family,\n"
        "   function, operands, their number, id, tiles, FLOPs, bytes}. */\n");
    for (uint32_t i = 0; i < e->p->phases.len; i++) {
        const kf_plan_phase *ph = &e->p->phases.data[i];
        kf_sbuf_printf(e->out, "\n/* %.*s */\n", KF_STR_ARG(phase_name(e, ph)));
        for (uint32_t l = 0; l < ph->launches.len; l++)
            emit_launch(e, ph, l, id++);
    }
    kf_sbuf_c(e->out, "\nstatic const kf_launch *const launches[] = {\n    ");
    list names = {.out = e->out, .column = 4};
    for (uint32_t i = 0; i < e->p->phases.len; i++)
        for (uint32_t l = 0; l < e->p->phases.data[i].launches.len; l++)
            item(&names,
                 kf_strf(e->arena, "&%.*s", KF_STR_ARG(launch_name(e, &e->p->phases.data[i], l))));
    kf_sbuf_c(e->out, "\n};\n/* clang-format on */\n");
    return id;
}

/* ---- phases ---------------------------------------------------------------------------------- */

/* A place stands above the calls that come from it: behind them the formatter would align it. */
static void emit_call(const emitter *e, const kf_plan_phase *ph, uint32_t l, const char *layer,
                      const char *indent, kf_str *last_place)
{
    kf_str where = place(e, ph->launches.data[l].loc);
    kf_str note = kf_strf(e->arena, "%s/* %.*s */\n", indent, KF_STR_ARG(where));

    if (where.len && note.len <= LINE_WIDTH && !kf_str_eq(where, *last_place))
        kf_sbuf_str(e->out, note);
    *last_place = where;
    kf_sbuf_printf(e->out, "%skf_tiles(w, &%.*s, %s);\n", indent, KF_STR_ARG(launch_name(e, ph, l)),
                   layer);
}

static uint32_t emit_phase(const emitter *e, const kf_plan_phase *ph)
{
    uint32_t calls = 0;

    kf_sbuf_printf(e->out,
                   "\n/* %.*s, %" PRId64 " to %" PRId64
                   " rows */\nstatic void %.*s(kf_worker *w, const kf_step *s)\n{\n    (void)s;\n",
                   KF_STR_ARG(ph->name), ph->rows_lo, ph->rows_hi, KF_STR_ARG(phase_name(e, ph)));
    for (uint32_t i = 0; i < ph->steps.len; i++) {
        const kf_plan_step *st = &ph->steps.data[i];
        calls += st->n * st->times;
        if (st->loop)
            kf_sbuf_printf(e->out, "    for (uint32_t layer = %u; layer < %u; layer++) {\n",
                           st->first_layer, st->first_layer + st->times);
        kf_str last_place = KF_STR("");
        for (uint32_t l = st->first; l < st->first + st->n; l++)
            emit_call(e, ph, l, st->loop ? "layer" : "0", st->loop ? "        " : "    ",
                      &last_place);
        if (st->loop)
            kf_sbuf_c(e->out, "    }\n");
    }
    kf_sbuf_c(e->out, "}\n");
    return calls;
}

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct weight_use {
    bool gathered, multiplied, scales; /* table of a gather; anything else; factor of a product */
} weight_use;

static weight_use use_of_weight(const kf_plan *p, uint32_t w)
{
    weight_use u = {0};

    for (uint32_t i = 0; i < p->phases.len; i++) {
        for (uint32_t l = 0; l < p->phases.data[i].launches.len; l++) {
            const kf_launch *la = &p->phases.data[i].launches.data[l];
            const kf_graph *body = p->kernels.data[la->kernel].body;
            for (uint32_t o = 0; o < body->args.len; o++) {
                if (la->operand[o].space != KF_SPACE_WEIGHT || la->operand[o].index != w)
                    continue;
                for (uint32_t n = 0; n < body->nodes.len; n++) {
                    const kf_node *node = &body->nodes.data[n];
                    for (uint32_t j = 0; j < node->n_in; j++) {
                        if (node->in[j] != body->args.data[o])
                            continue;
                        bool table = node->op == KF_OP_gather && j == 0;
                        u.gathered |= table;
                        u.multiplied |= !table;
                        u.scales |= node->op == KF_OP_mul;
                    }
                }
            }
        }
    }
    return u;
}

static const char *elem_name(kf_dtype t)
{
    return t == KF_DTYPE_f32 ? "KF_ELEM_F32" : t == KF_DTYPE_bf16 ? "KF_ELEM_BF16" : "KF_ELEM_F16";
}

/* Random weights keep activations of order one: gains near 1, matrices of variance 1/width. */
static void emit_weight(const emitter *e, uint32_t w)
{
    const kf_plan_weight *pw = &e->p->weights.data[w];
    weight_use u = use_of_weight(e->p, w);
    int64_t rows = pw->type.dim[0].size;
    int64_t width = pw->type.rank > 1 ? pw->type.dim[1].size : 0;
    int64_t read = u.gathered && !u.multiplied ? pw->size_bytes / rows : pw->size_bytes;
    double mean = !width && u.scales ? 1 : 0;
    double std = width ? 1 / sqrt((double)width) : 0.05;

    kf_sbuf_printf(
        e->out, "    {\"%.*s%.*s\", %s, %u, w%u_at, %" PRId64 ", %" PRId64 ", %g, %.9g, NULL},\n",
        KF_STR_ARG(pw->prefix), KF_STR_ARG(pw->name), elem_name(pw->type.dtype), pw->layers, w,
        pw->size_bytes, read, mean, std);
}

static bool is_encode(const kf_plan_phase *ph)
{
    return kf_phase_find(ph->name) == &kf_phase_infos[KF_PHASE_ID_encode];
}

static bool encodes(const kf_plan *p)
{
    for (uint32_t i = 0; i < p->phases.len; i++)
        if (is_encode(&p->phases.data[i]))
            return true;
    return false;
}

/* Whether a state holds the positions of an encoded text, and not those of the decoder. */
static bool is_memory(const kf_plan *p, uint32_t state)
{
    for (uint32_t i = 0; i < p->phases.len && !is_encode(&p->phases.data[0]); i++) {
        const kf_plan_phase *ph = &p->phases.data[i];
        for (uint32_t l = 0; is_encode(ph) && l < ph->launches.len; l++)
            for (uint32_t o = 0; o < ph->launches.data[l].n_operands; o++) {
                kf_operand at = ph->launches.data[l].operand[o];
                if (at.space == KF_SPACE_STATE && at.index == state)
                    return true;
            }
    }
    return false;
}

static void emit_weights(const emitter *e, const kf_pack_layout *at)
{
    kf_sbuf_c(e->out, "\n/* clang-format off */\n/* Where each layer's copy of a weight starts in "
                      "the packed file. */\n");
    for (uint32_t w = 0; w < e->p->weights.len; w++) {
        kf_str head = kf_strf(e->arena, "static const uint64_t w%u_at[] = {", w);
        list offsets = {.out = e->out, .column = head.len};
        kf_sbuf_str(e->out, head);
        for (uint32_t i = 0; i < e->p->weights.data[w].layers; i++)
            item(&offsets, kf_strf(e->arena, "%" PRIu64, at->offset[w][i]));
        kf_sbuf_c(e->out, "};\n");
    }
    kf_sbuf_c(e->out, "\n/* {name, element, layers, offsets, bytes, bytes read a step, mean, "
                      "deviation, constant} */\n"
                      "static const kf_weight weights[] = {\n");
    for (uint32_t w = 0; w < e->p->weights.len; w++)
        emit_weight(e, w);
    kf_sbuf_c(e->out, "};\n\nstatic const kf_kv_state kv[] = {\n");
    for (uint32_t i = 0; i < e->p->states.len; i++) {
        const kf_plan_state *s = &e->p->states.data[i];
        kf_type one = s->type;
        one.kv_layers = 1;
        kf_sbuf_printf(e->out, "    {\"%.*s\", %u, %u, %" PRId64 ", %d},\n", KF_STR_ARG(s->name),
                       s->type.kv_layers, s->type.kv_page, kf_kvcache_page_bytes(&one),
                       is_memory(e->p, i));
    }
    kf_sbuf_c(e->out, "};\n");
}

/* ---- the model ------------------------------------------------------------------------------- */

static void emit_phases_table(const emitter *e, const uint32_t *calls)
{
    kf_sbuf_c(e->out, "\nstatic const kf_phase phases[] = {\n");
    for (uint32_t i = 0; i < e->p->phases.len; i++) {
        const kf_plan_phase *ph = &e->p->phases.data[i];
        kf_str name = phase_name(e, ph);
        kf_sbuf_printf(e->out,
                       "    {\"%.*s\", %s, %" PRId64 ", %" PRId64 ", %u, %.*s, %" PRId64 ", ",
                       KF_STR_ARG(name), kf_phase_find(ph->name)->kind, ph->rows_lo, ph->rows_hi,
                       calls[i], KF_STR_ARG(name), ph->buffers.data[ph->logits].offset);
        if (ph->next < ph->buffers.len)
            kf_sbuf_printf(e->out, "%" PRId64 "},\n", ph->buffers.data[ph->next].offset);
        else
            kf_sbuf_c(e->out, "KF_NO_NEXT},\n");
    }
    kf_sbuf_c(e->out, "};\n");
}

static void emit_manifest(const emitter *e)
{
    kf_str m = e->h->manifest;

    kf_sbuf_c(e->out, "\nstatic const char manifest[] =");
    for (uint32_t at = 0; at < m.len; at += 80) {
        kf_str part = {m.ptr + at, m.len - at < 80 ? m.len - at : 80};
        kf_sbuf_c(e->out, "\n    ");
        kf_sbuf_quoted(e->out, part);
    }
    kf_sbuf_c(e->out, ";\n");
}

static void emit_eos(const emitter *e)
{
    list ids = {.out = e->out, .column = 32};

    if (!e->h->n_eos)
        return;
    kf_sbuf_c(e->out, "\nstatic const int32_t eos[] = {");
    for (uint32_t i = 0; i < e->h->n_eos; i++)
        item(&ids, kf_strf(e->arena, "%" PRId64, e->h->eos[i]));
    kf_sbuf_c(e->out, "};\n");
}

static int64_t max_over_phases(const kf_plan *p, bool scratch)
{
    int64_t most = 0;

    for (uint32_t i = 0; !scratch && i < p->phases.len; i++)
        most = p->phases.data[i].pool_bytes > most ? p->phases.data[i].pool_bytes : most;
    for (uint32_t i = 0; scratch && i < p->kernels.len; i++)
        most = p->kernels.data[i].shape.scratch_bytes > most
                   ? p->kernels.data[i].shape.scratch_bytes
                   : most;
    return most;
}

/* What rows of results are: the first result of an entry has one for each wanted token, or one for
 * each sequence. */
static void emit_rows(const emitter *e)
{
    const kf_plan_phase *ph = &e->p->phases.data[0];
    const kf_type *t = &ph->buffers.data[ph->logits].type;
    bool encoder = is_encode(ph); /* phases of a decoder come first */
    bool pooled = encoder && t->dim[0].sym == KF_SYM_S + 1;
    const char *kind = encoder         ? "KF_KIND_ENCODER"
                       : encodes(e->p) ? "KF_KIND_ENCODER_DECODER"
                                       : "KF_KIND_DECODER";

    kf_sbuf_printf(e->out, "    .vocab_size = %" PRId64 ", .type_vocab_size = %" PRId64 ",\n",
                   e->h->vocab_size, e->h->type_vocab_size);
    kf_sbuf_printf(e->out,
                   "    .kind = %s, .is_pooled = %d, .row_width = %" PRId64
                   ", .logits_stride = %" PRId64 ",\n",
                   kind, pooled, t->dim[1].size, t->dim[1].size);
}

static void emit_model(const emitter *e, uint32_t n_launches, uint64_t weights_bytes)
{
    const kf_plan *p = e->p;
    const kf_host_c *h = e->h;
    const kf_sym *sym = p->module->syms.data;

    if (h->embedded)
        kf_sbuf_c(e->out, "\nextern const unsigned char kf_embedded_start[], kf_embedded_end[];\n");
    kf_sbuf_printf(e->out, "\nstatic const kf_model %.*s = {\n", KF_STR_ARG(e->ident));
    kf_sbuf_printf(e->out, "    .abi = KF_ABI_VERSION, .cpu_features = 0x%x,\n", h->cpu_features);
    kf_sbuf_printf(e->out,
                   "    .name = \"%.*s\", .target = \"%.*s\", .compiler_version = \"%s\",\n",
                   KF_STR_ARG(p->name), KF_STR_ARG(p->target), h->compiler_version);
    kf_sbuf_printf(e->out, "    .manifest = manifest, .header_digest = 0x%016" PRIx64 ",\n",
                   h->header_digest);
    if (h->embedded)
        kf_sbuf_c(e->out,
                  "    .embedded_start = kf_embedded_start, .embedded_end = kf_embedded_end,\n");
    kf_sbuf_printf(e->out,
                   "    .max_sequences = %" PRId64 ", .max_tokens = %" PRId64
                   ", .max_rows = %" PRId64 ", .max_positions = %" PRId64 ",\n",
                   sym[KF_SYM_S].hi, sym[KF_SYM_N].hi, sym[KF_SYM_R].hi, h->max_positions);
    emit_rows(e);
    kf_sbuf_printf(e->out, "    .pool_bytes = %" PRId64 ", .scratch_bytes = %" PRId64 ",\n",
                   max_over_phases(p, false), max_over_phases(p, true));
    if (counter_bytes(p))
        kf_sbuf_printf(e->out, "    .counter_bytes = %" PRId64 ",\n", counter_bytes(p));
    if (h->start_id)
        kf_sbuf_printf(e->out, "    .start_id = %" PRId64 ",\n", h->start_id);
    if (h->n_eos)
        kf_sbuf_printf(e->out, "    .n_eos = %u, .eos = eos,\n", h->n_eos);
    kf_sbuf_printf(
        e->out,
        "    .sampling = {.temperature = %.9g, .top_p = %.9g, .min_p = %.9g, .top_k = %" PRId64
        "},\n",
        h->temperature, h->top_p, h->min_p, h->top_k);
    kf_sbuf_printf(e->out, "    .weights_bytes = %" PRIu64 ", .weights = weights, .kv = kv,\n",
                   weights_bytes);
    kf_sbuf_c(e->out, "    .launches = launches, .phases = phases,\n");
    kf_sbuf_printf(e->out,
                   "    .n_weights = %u, .n_kv = %u, .n_launches = %u, .n_phases = %u};\n"
                   "/* clang-format on */\n\n",
                   p->weights.len, p->states.len, n_launches, p->phases.len);
}

void kf_host_c_emit(kf_arena *arena, const kf_plan *p, const kf_host_c *h, kf_sbuf *out)
{
    emitter e = {arena, p, h, out, kf_c_identifier(arena, p->name)};
    kf_pack_layout at = kf_pack_plan(arena, p);
    uint32_t *calls = KF_NEW_N(arena, uint32_t, p->phases.len);

    emit_head(&e);
    uint32_t n_launches = emit_launches(&e);
    for (uint32_t i = 0; i < p->phases.len; i++)
        calls[i] = emit_phase(&e, &p->phases.data[i]);
    emit_weights(&e, &at);
    emit_phases_table(&e, calls);
    emit_manifest(&e);
    emit_eos(&e);
    emit_model(&e, n_launches, at.section_bytes);
    if (h->library)
        kf_sbuf_printf(out,
                       "const kf_model *%.*s_model(void);\n\nconst kf_model *%.*s_model(void)\n{\n "
                       "   return &%.*s;\n}\n",
                       KF_STR_ARG(e.ident), KF_STR_ARG(e.ident), KF_STR_ARG(e.ident));
    else
        kf_sbuf_printf(
            out, "int main(int argc, char **argv)\n{\n    return kf_main(&%.*s, argc, argv);\n}\n",
            KF_STR_ARG(e.ident));
}
