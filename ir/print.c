/* SPDX-License-Identifier: Apache-2.0 */
/* print - modules and graphs as .kir text. docs/IR.md is the grammar; parse.c reads it back.
 *
 * Callees are printed before their callers, so that one pass can read the text. Also prints graphs
 * that break rules, for the verifier's reports.
 */
#include "ir/print_impl.h"

#include <ctype.h>
#include <inttypes.h>

typedef struct printer {
    const kf_module *m;
    uint32_t flags;
    const kf_print_notes *notes;
    kf_sbuf *out;
} printer;

/* ---- names ----------------------------------------------------------------------------------- */

bool kf_is_identifier(kf_str name)
{
    if (!name.len || !(isalpha((unsigned char)name.ptr[0]) || name.ptr[0] == '_'))
        return false;
    for (uint32_t i = 1; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        bool dot = c == '.' && i + 1 < name.len && name.ptr[i - 1] != '.';
        if (!isalnum(c) && c != '_' && !dot)
            return false;
    }
    return true;
}

void kf_name_print(kf_str name, kf_sbuf *out)
{
    if (kf_is_identifier(name))
        kf_sbuf_str(out, name);
    else
        kf_sbuf_quoted(out, name);
}

void kf_loc_print(const kf_module *m, kf_loc loc, uint32_t flags, kf_sbuf *out)
{
    if (!(flags & KF_PRINT_LOCS) || (flags & KF_PRINT_CANONICAL) || !loc.file ||
        loc.file > m->files.len)
        return;
    kf_sbuf_c(out, "  @");
    kf_sbuf_quoted(out, m->files.data[loc.file - 1]);
    kf_sbuf_printf(out, ":%" PRIu32 ":%" PRIu32, loc.line, loc.col);
}

static bool is_taken(const kf_str *names, const kf_value *values, uint32_t n, kf_str name)
{
    for (uint32_t i = 0; i < n; i++) {
        if (kf_str_eq(names[values[i]], name))
            return true;
    }
    return false;
}

/* Arguments and parameters by their own names where these are unique, results by number. */
static kf_str *name_values(const printer *p, const kf_graph *g)
{
    kf_arena *arena = p->out->arena;
    bool canonical = p->flags & KF_PRINT_CANONICAL;
    kf_str *names = KF_NEW_N(arena, kf_str, g->values.len ? g->values.len : 1);
    for (uint32_t i = 0; i < g->values.len; i++)
        names[i] = KF_STR("?");
    uint32_t n_named = g->args.len + g->params.len;
    kf_value *named = KF_NEW_N(arena, kf_value, n_named ? n_named : 1);
    for (uint32_t i = 0; i < n_named; i++) {
        bool is_arg = i < g->args.len;
        uint32_t number = is_arg ? i : i - g->args.len;
        named[i] = is_arg ? g->args.data[number] : g->params.data[number];
        kf_str name = g->values.data[named[i]].name;
        if (canonical || !name.len)
            name = kf_strf(arena, "%c%" PRIu32, is_arg ? 'a' : 'w', number);
        kf_str unique = name;
        for (uint32_t k = 1; is_taken(names, named, i, unique); k++)
            unique = kf_strf(arena, "%.*s.%" PRIu32, KF_STR_ARG(name), k);
        names[named[i]] = unique;
    }
    for (uint32_t i = 0; i < n_named; i++) {
        kf_sbuf text = {.arena = arena};
        kf_name_print(names[named[i]], &text);
        names[named[i]] = kf_sbuf_view(&text);
    }
    uint32_t next = 0;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint8_t k = 0; n->op != KF_OP_NONE && k < n->n_out; k++)
            names[n->out[k]] = kf_strf(arena, "%" PRIu32, next++);
    }
    return names;
}

static void print_value(const printer *p, const kf_graph *g, const kf_str *names, kf_value v)
{
    kf_sbuf_char(p->out, '%');
    kf_sbuf_str(p->out, v < g->values.len ? names[v] : KF_STR("?"));
}

static void print_values(const printer *p, const kf_graph *g, const kf_str *names, uint32_t n,
                         const kf_value *values)
{
    for (uint32_t i = 0; i < n; i++) {
        kf_sbuf_c(p->out, i ? ", " : "");
        print_value(p, g, names, values[i]);
    }
}

static void indent_to(const printer *p, uint32_t columns)
{
    for (uint32_t i = 0; i < columns; i++)
        kf_sbuf_char(p->out, ' ');
}

static void print_notes(const printer *p, const kf_graph *g, uint32_t node, uint32_t indent)
{
    for (uint32_t i = 0; p->notes && i < p->notes->n; i++) {
        const kf_print_note *note = &p->notes->note[i];
        if (note->graph != g || note->node != node)
            continue;
        indent_to(p, indent);
        kf_sbuf_printf(p->out, "; ^ error: %.*s\n", KF_STR_ARG(note->text));
    }
}

/* ---- attributes ------------------------------------------------------------------------------ */

static void print_field(const kf_field_info *f, const void *at, kf_sbuf *out)
{
    kf_sbuf_c(out, f->name);
    if (f->type != KF_FIELD_bool)
        kf_sbuf_c(out, " = ");
    switch (f->type) {
    case KF_FIELD_int:
        kf_sbuf_printf(out, "%" PRId64, *(const kf_field_int *)at);
        break;
    case KF_FIELD_num:
        kf_sbuf_double(out, *(const kf_field_num *)at);
        break;
    case KF_FIELD_str:
        kf_sbuf_quoted(out, *(const kf_field_str *)at);
        break;
    case KF_FIELD_fam:
        kf_sbuf_c(out, kf_family_names[*(const kf_field_fam *)at]);
        break;
    case KF_FIELD_word: {
        const char *word = kf_word_text(f->name, *(const kf_field_word *)at);
        kf_sbuf_c(out, word ? word : "?");
        break;
    }
    case KF_FIELD_ints: {
        const kf_ints *v = at;
        for (uint8_t i = 0; i < v->n; i++)
            kf_sbuf_printf(out, "%s%" PRId64, i ? ", " : "[", v->v[i]);
        kf_sbuf_char(out, ']');
        break;
    }
    case KF_FIELD_accs: {
        const kf_accs *v = at;
        for (uint8_t i = 0; i < v->n; i++)
            kf_sbuf_printf(out, "%s%s", i ? ", " : "[", kf_acc_infos[v->acc[i]].name);
        kf_sbuf_char(out, ']');
        break;
    }
    case KF_FIELD_bool:
    case KF_FIELD_slot:
        break;
    }
}

static void print_attr(const printer *p, kf_attr_kind kind, const void *attr)
{
    const kf_attr_info *info = &kf_attr_infos[kind];
    const void *defaults = kf_attr_new(p->out->arena, kind);
    uint32_t printed = 0;
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const kf_field_info *f = &info->field[i];
        const void *at = (const char *)attr + f->offset;
        if (f->type == KF_FIELD_slot ||
            kf_field_eq(f->type, at, (const char *)defaults + f->offset))
            continue;
        kf_sbuf_c(p->out, printed++ ? ", " : " {");
        print_field(f, at, p->out);
    }
    if (printed)
        kf_sbuf_char(p->out, '}');
    for (uint32_t i = 0; i < info->n_fields; i++) {
        const kf_field_info *f = &info->field[i];
        if (f->type != KF_FIELD_slot)
            continue;
        const kf_slot *s = *(const kf_field_slot *)((const char *)attr + f->offset);
        if (s) {
            kf_sbuf_char(p->out, ' ');
            kf_slot_print(f->name, s, p->flags, p->out);
        }
    }
}

static bool slot_is_fn(const kf_slot *s, uint32_t i, kf_fn fn)
{
    return s->inst[i].op == KF_SLOT_FN && s->inst[i].fn == fn;
}

/* x * rsqrt(sum_sq/n + eps), as the frontend writes it (Zhang and Sennrich 2019, arXiv:1910.07467).
 */
static bool is_rms_norm(const kf_graph *g, const kf_node *n)
{
    if (n->op != KF_OP_row_reduce || n->n_in < 1 || n->in[0] >= g->values.len)
        return false;
    const kf_attr_row_reduce *a = KF_ATTR_OF(n, row_reduce);
    const kf_type *x = kf_value_type(g, n->in[0]);
    const kf_slot *s = a->map;
    if (!s || a->acc.n != 1 || a->acc.acc[0] != KF_ACC_sum_sq || !a->keep || s->n_insts != 8)
        return false;
    uint32_t root = s->n_insts - 1;
    if (!slot_is_fn(s, root, KF_FN_mul) || s->inst[s->inst[root].arg[0]].op != KF_SLOT_PARAM ||
        s->inst[s->inst[root].arg[0]].index != 0)
        return false;
    uint32_t rs = s->inst[root].arg[1];
    if (!slot_is_fn(s, rs, KF_FN_rsqrt) || !slot_is_fn(s, s->inst[rs].arg[0], KF_FN_add))
        return false;
    const kf_slot_inst *add = &s->inst[s->inst[rs].arg[0]];
    if (!slot_is_fn(s, add->arg[0], KF_FN_div) || s->inst[add->arg[1]].op != KF_SLOT_CONST)
        return false;
    const kf_slot_inst *div = &s->inst[add->arg[0]];
    const kf_slot_inst *ss = &s->inst[div->arg[0]], *len = &s->inst[div->arg[1]];
    return ss->op == KF_SLOT_PARAM && ss->index == 1 && len->op == KF_SLOT_CONST &&
           len->value == (double)x->dim[x->rank - 1].size;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static void print_graph(const printer *p, const kf_graph *g, uint32_t indent);

static void print_arg_list(const printer *p, const kf_graph *g, const kf_str *names)
{
    kf_sbuf_char(p->out, '(');
    for (uint32_t i = 0; i < g->args.len; i++) {
        kf_sbuf_c(p->out, i ? ", " : "");
        print_value(p, g, names, g->args.data[i]);
        kf_sbuf_c(p->out, ": ");
        kf_type_print(p->m, kf_value_type(g, g->args.data[i]), p->out);
    }
    kf_sbuf_char(p->out, ')');
}

static void print_node(const printer *p, const kf_graph *g, const kf_str *names, const kf_node *n,
                       uint32_t indent)
{
    print_values(p, g, names, n->n_out, n->out);
    kf_sbuf_printf(p->out, "%s%s", n->n_out ? " = " : "", kf_op_infos[n->op].name);
    if (n->op == KF_OP_region) {
        kf_sbuf_printf(p->out, " %s", kf_family_names[KF_ATTR_OF(n, region)->family]);
        if (n->name.len && !(p->flags & KF_PRINT_CANONICAL)) {
            kf_sbuf_char(p->out, ' ');
            kf_sbuf_quoted(p->out, n->name);
        }
    }
    kf_sbuf_c(p->out, n->n_in ? " " : "");
    print_values(p, g, names, n->n_in, n->in);
    if (n->op == KF_OP_region && n->body) {
        kf_sbuf_char(p->out, ' ');
        print_graph(p, n->body, indent);
    } else if (n->op != KF_OP_region) {
        print_attr(p, kf_op_infos[n->op].attr, n->attr);
    }
    for (uint8_t i = 0; i < n->n_out; i++) {
        kf_sbuf_c(p->out, i ? ", " : " : ");
        kf_type_print(p->m, kf_value_type(g, n->out[i]), p->out);
    }
    kf_loc_print(p->m, n->loc, p->flags, p->out);
    if (is_rms_norm(g, n))
        kf_sbuf_c(p->out, "  ; rms_norm");
    kf_sbuf_char(p->out, '\n');
}

static void print_nodes(const printer *p, const kf_graph *g, const kf_str *names, uint32_t indent)
{
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        if (g->nodes.data[i].op == KF_OP_NONE)
            continue;
        indent_to(p, indent + 2);
        print_node(p, g, names, &g->nodes.data[i], indent + 2);
        print_notes(p, g, i, indent + 2);
    }
    indent_to(p, indent + 2);
    kf_sbuf_c(p->out, g->results.len ? "return " : "return");
    print_values(p, g, names, g->results.len, g->results.data);
    kf_sbuf_char(p->out, '\n');
    print_notes(p, g, g->nodes.len, indent + 2);
    indent_to(p, indent);
    kf_sbuf_char(p->out, '}');
}

static void print_graph(const printer *p, const kf_graph *g, uint32_t indent)
{
    kf_str *names = name_values(p, g);
    print_arg_list(p, g, names);
    kf_sbuf_c(p->out, " {\n");
    print_notes(p, g, UINT32_MAX, indent + 2);
    print_nodes(p, g, names, indent);
}

void kf_body_print(const kf_graph *body, uint32_t flags, uint32_t indent, kf_sbuf *out)
{
    print_graph(&(printer){body->module, flags, NULL, out}, body, indent);
}

static void print_func(const printer *p, const kf_graph *g)
{
    kf_str *names = name_values(p, g);
    kf_sbuf_c(p->out, "  func @");
    kf_name_print(g->name, p->out);
    print_arg_list(p, g, names);
    for (uint32_t i = 0; i < g->params.len; i++) {
        const kf_type *t = kf_value_type(g, g->params.data[i]);
        kf_sbuf_c(p->out, i ? ",\n      " : " params {\n      ");
        print_value(p, g, names, g->params.data[i]);
        kf_sbuf_c(p->out, ": ");
        kf_type_print(p->m, t, p->out);
        kf_sbuf_c(p->out, " = ");
        kf_recipe_print(p->m, g->recipes.data[i], !kf_type_eq(t, &g->recipes.data[i]->type),
                        p->out);
    }
    kf_sbuf_c(p->out, g->params.len ? "\n  } -> (" : " -> (");
    for (uint32_t i = 0; i < g->results.len; i++) {
        kf_sbuf_c(p->out, i ? ", " : "");
        if (g->results.data[i] < g->values.len)
            kf_type_print(p->m, kf_value_type(g, g->results.data[i]), p->out);
    }
    kf_sbuf_c(p->out, ") {\n");
    print_notes(p, g, UINT32_MAX, 4);
    print_nodes(p, g, names, 2);
    kf_sbuf_char(p->out, '\n');
}

/* ---- modules --------------------------------------------------------------------------------- */

static void print_with_callees(const printer *p, uint32_t func, bool *printed, bool *first)
{
    const kf_graph *g = p->m->funcs.data[func];
    if (printed[func])
        return;
    printed[func] = true;
    for (uint32_t i = 0; i < g->nodes.len; i++) {
        const kf_node *n = &g->nodes.data[i];
        for (uint32_t f = 0; n->op == KF_OP_repeat && f < p->m->funcs.len; f++) {
            if (kf_str_eq(p->m->funcs.data[f]->name, KF_ATTR_OF(n, repeat)->callee))
                print_with_callees(p, f, printed, first);
        }
    }
    if (!*first)
        kf_sbuf_char(p->out, '\n');
    *first = false;
    print_func(p, g);
}

void kf_module_print_head(const kf_module *m, kf_sbuf *out)
{
    for (uint32_t i = 0; i < m->mesh.len; i++) {
        kf_sbuf_c(out, i ? ", " : "  mesh ");
        kf_sbuf_str(out, m->mesh.data[i]);
    }
    kf_sbuf_c(out, m->mesh.len ? "\n" : "");
    for (uint32_t i = 0; i < m->syms.len; i++)
        kf_sbuf_printf(out, "  dim %.*s in %" PRId64 "..%" PRId64 "\n",
                       KF_STR_ARG(m->syms.data[i].name), m->syms.data[i].lo, m->syms.data[i].hi);
}

void kf_module_print_notes(const kf_module *m, uint32_t flags, const kf_print_notes *notes,
                           kf_sbuf *out)
{
    printer p = {m, flags, notes, out};
    kf_sbuf_c(out, "module @");
    kf_name_print(m->name, out);
    kf_sbuf_c(out, " {\n");
    kf_module_print_head(m, out);
    bool first = !m->syms.len && !m->mesh.len;
    bool *printed = KF_NEW_N(out->arena, bool, m->funcs.len ? m->funcs.len : 1);
    for (uint32_t i = 0; i < m->funcs.len; i++)
        print_with_callees(&p, i, printed, &first);
    kf_sbuf_c(out, "}\n");
}

void kf_module_print(const kf_module *m, uint32_t flags, kf_sbuf *out)
{
    kf_module_print_notes(m, flags, NULL, out);
}

void kf_graph_print(const kf_graph *g, uint32_t flags, kf_sbuf *out)
{
    printer p = {g->module, flags, NULL, out};
    if (g->name.len) {
        print_func(&p, g);
        return;
    }
    print_graph(&p, g, 0);
    kf_sbuf_char(out, '\n');
}
