/* SPDX-License-Identifier: Apache-2.0 */
/* main - the command line of every produced executable. One option table parses and prints the
 * help. */
#define _GNU_SOURCE
#include "runtime/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Tables ---------------------------------------------------------------------------------- */

enum {
    RUN = 1,
    SCORE = 2,
    BENCH = 4,
    VERIFY = 8,
    INFO = 16,
    EMBED = 32,
    MODEL = RUN | SCORE | EMBED | BENCH | VERIFY
};

/* Kinds of models that answer a verb. */
#define DECODERS (1u << KF_KIND_DECODER)
#define ENCODERS (1u << KF_KIND_ENCODER)
#define PAIRS    (1u << KF_KIND_ENCODER_DECODER)
#define ALL      (DECODERS | ENCODERS | PAIRS)

typedef struct verb {
    const char *name;
    unsigned bit;
    unsigned kinds;
    const char *operand; /* NULL: none */
    bool may_lack_operand;
    const char *summary;
    const char *notes; /* printed under the options */
    kf_status (*run)(kf_cli *c);
} verb;

static const verb verbs[] = {
    {"run", RUN, DECODERS | PAIRS, NULL, false,
     "continue a prompt (-p, -f, --ids, --jsonl or standard input)",
     "The text after the prompt goes to standard output, as it is made. --json prints one object\n"
     "{\"schema\", \"text\", \"prompt_ids\", \"ids\"} instead, without the prompt in text and ids. "
     "--jsonl "
     "reads one\n"
     "request a line, {\"prompt\" or \"ids\", \"n\", \"seed\"}, runs as many at a time as the "
     "model was\n"
     "compiled for, and prints one object a line, with \"index\", in the order in which they "
     "end. A model of an encoder and a decoder encodes the prompt and writes another text.\n",
     kf_cli_run},
    {"score", SCORE, DECODERS, "FILE", false, "how well the model predicts a text",
     "The tokens are cut into windows of --ctx positions, one after the other; the first input of "
     "a\n"
     "window is the token that the window before predicted last, so every token but the first is\n"
     "predicted exactly once. Prints nats per token, nats per character (Unicode code points of "
     "the\n"
     "text) and perplexity (e to the nats per token).\n",
     kf_cli_score},
    {"embed", EMBED, ENCODERS, "FILE", true,
     "rows of numbers for texts, one text a line (-: stdin)",
     "A model that pools gives one row a text, any other one row a token (after the tokenizer's\n"
     "special tokens). Rows go to standard output, a line each, or to --npy FILE as one array;\n"
     "--json prints one object a text: {\"schema\", \"index\", \"ids\", \"rows\" or "
     "\"row\"}.\n",
     kf_cli_embed},
    {"bench", BENCH, ALL, NULL, false, "tokens per second, beside the memory bandwidth",
     "Medians over the rounds after one that is not counted; each round also reads memory with "
     "all\n"
     "threads (2 GiB, 32-byte loads) and the best of these, at least 5, is the bandwidth. The\n"
     "fraction is weight bytes per token x decoded tokens per second / bandwidth.\n",
     kf_cli_bench},
    {"verify", VERIFY, ALL, NULL, false,
     "check the digests of the weights and the stored probe logits", "", kf_cli_verify},
    {"info", INFO, ALL, NULL, false, "what this executable is", "", kf_cli_info},
};

typedef enum kind { FLAG, U64, REAL, TEXT, TEXTS } kind;

typedef struct option {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    kind kind;
    unsigned verbs;
    const char *arg; /* its name in the help */
    double min, max;
    size_t field;
    size_t has_field; /* 0: none */
    const char *help;
} option;

#define AT(f)   offsetof(kf_cli_options, f)
#define MAX_U32 4294967295.0

static const option options[] = {
    {"prompt", 'p', TEXT, RUN, "TEXT", 0, 0, AT(prompt), 0, "the prompt"},
    {"prompt-length", 'p', U64, BENCH, "N", 1, MAX_U32, AT(n_prompt), AT(has_prompt_len),
     "tokens of the prompt (512, or what the context leaves)"},
    {"file", 'f', TEXT, RUN, "FILE", 0, 0, AT(file), 0, "read the prompt from a file (-: stdin)"},
    {"ids", 0, TEXT, RUN | EMBED, "1,2,3", 0, 0, AT(ids), 0,
     "the prompt as token ids; embed: texts, '1,2;3,4'"},
    {"decoder-ids", 0, TEXT, RUN, "1,2,3", 0, 0, AT(decoder_ids), 0,
     "how the text of a decoder beside an encoder begins (its start token)"},
    {"types", 0, TEXT, EMBED, "0,0,1", 0, 0, AT(types), 0, "token types of --ids (all 0)"},
    {"npy", 0, TEXT, EMBED, "FILE.npy", 0, 0, AT(npy), 0, "write the rows as an array"},
    {"jsonl", 0, TEXT, RUN, "FILE", 0, 0, AT(jsonl), 0,
     "a batch of requests, one a line (-: stdin)"},
    {"tokens", 'n', U64, RUN | BENCH, "N", 0, MAX_U32, AT(n_tokens), AT(has_n),
     "tokens to make (128)"},
    {"batch", 'b', U64, BENCH, "N", 1, 65536, AT(batch), 0, "sequences decoded together (1)"},
    {"rounds", 'r', U64, BENCH, "N", 1, 1000, AT(repeats), 0, "rounds (5)"},
    {"temp", 0, REAL, RUN, "T", 0, 1e6, AT(temperature), 0, "temperature; 0 is greedy"},
    {"top-k", 0, U64, RUN, "K", 0, MAX_U32, AT(top_k), 0, "only the K likeliest; 0: all"},
    {"top-p", 0, REAL, RUN, "P", 0, 1, AT(top_p), 0, "only the likeliest that make up P; 1: all"},
    {"min-p", 0, REAL, RUN, "P", 0, 1, AT(min_p), 0,
     "only those of P times the best one's; 0: all"},
    {"repeat-penalty", 0, REAL, RUN, "X", 0.01, 100, AT(repeat_penalty), 0,
     "divide the logits of tokens already seen (1)"},
    {"seed", 0, U64, RUN, "N", 0, 18446744073709549568.0, AT(seed), 0, "seed of the sampler (0)"},
    {"stop", 0, TEXTS, RUN, "TEXT", 0, 0, AT(stop), AT(n_stops),
     "end before this text; up to 8 times"},
    {"ignore-eos", 0, FLAG, RUN, NULL, 0, 0, AT(ignore_eos), 0, "go on after an end-of-text token"},
    {"logits", 0, TEXT, RUN, "FILE.npy", 0, 0, AT(logits), 0, "write the last logits"},
    {"all-logits", 0, TEXT, RUN, "FILE.npy", 0, 0, AT(all_logits), 0,
     "write the logits of every prompt position"},
    {"prefill-chunk", 0, U64, RUN | SCORE | BENCH, "N", 1, MAX_U32, AT(prefill_chunk), 0,
     "tokens of a prompt taken at once (the largest)"},
    {"profile", 0, FLAG, RUN | SCORE | EMBED | BENCH, NULL, 0, 0, AT(profile), 0,
     "print time and work of every launch"},
    {"device", 0, TEXT, MODEL, "cpu", 0, 0, AT(device), 0, "where to run"},
    {"threads", 't', U64, MODEL, "N", 1, 1024, AT(threads), 0,
     "worker threads (processors available)"},
    {"ctx", 'c', U64, MODEL, "N", 1, MAX_U32, AT(context), AT(has_context),
     "positions a sequence may hold (4096 or the model's bound)"},
    {"weights", 0, TEXT, MODEL | INFO, "FILE", 0, 0, AT(weights), 0,
     "the packed weights (embedded, or this executable's name with .kfw)"},
    {"random-weights", 0, U64, MODEL, "SEED", 0, 18446744073709549568.0, AT(random_seed),
     AT(has_random), "make up weights in memory instead"},
    {"json", 0, FLAG, MODEL | INFO, NULL, 0, 0, AT(json), 0, "print one JSON object"},
    {"verbose", 'v', FLAG, MODEL | INFO, NULL, 0, 0, AT(verbose), 0, "say more"},
    {"quiet", 'q', FLAG, MODEL | INFO, NULL, 0, 0, AT(quiet), 0, "say only errors"},
};

/* By kind, for a verb that it does not answer. */
static const char *const what_it_is[] = {
    [KF_KIND_DECODER] = "no encoder; it answers run and score",
    [KF_KIND_ENCODER] = "an encoder; it answers embed",
    [KF_KIND_ENCODER_DECODER] = "an encoder with a decoder; it answers run",
};

#define N_VERBS   (sizeof verbs / sizeof verbs[0])
#define N_OPTIONS (sizeof options / sizeof options[0])

/* ---- Help ------------------------------------------------------------------------------------ */

static void print_overview(FILE *f, const kf_model *m, const char *self)
{
    fprintf(f, "%s: the model '%s', compiled by kerf %s for %s\n\n", self, m->name,
            m->compiler_version, m->target);
    for (size_t i = 0; i < N_VERBS; i++) {
        if (verbs[i].kinds >> m->kind & 1)
            fprintf(f, "  %s %-6s %-5s %s\n", self, verbs[i].name,
                    verbs[i].operand ? verbs[i].operand : "", verbs[i].summary);
    }
    fprintf(f, "\n  %s VERB --help     the options of a verb\n  %s --version\n\n", self, self);
    if (m->kind == KF_KIND_ENCODER)
        fprintf(f, "  %s embed texts.txt --npy rows.npy\n", self);
    else
        fprintf(f, "  %s run -p \"To be, or not to be\" -n 64 --temp 0.8 --seed 1\n", self);
}

static void print_help(FILE *f, const verb *v, const char *self)
{
    fprintf(f, "usage: %s %s [options]%s%s\n\n%s\n\n", self, v->name, v->operand ? " " : "",
            v->operand ? v->operand : "", v->summary);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const option *o = &options[i];
        if (!(o->verbs & v->bit))
            continue;
        char left[48];
        int n = o->letter ? snprintf(left, sizeof left, "-%c, --%s", o->letter, o->name)
                          : snprintf(left, sizeof left, "    --%s", o->name);
        if (o->arg)
            snprintf(left + n, sizeof left - (size_t)n, " %s", o->arg);
        fprintf(f, "  %-28s %s\n", left, o->help);
    }
    if (v->notes[0])
        fprintf(f, "\n%s", v->notes);
}

/* ---- Parsing --------------------------------------------------------------------------------- */

static kf_status usage(const kf_cli *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static kf_status usage(const kf_cli *c, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return kf_fail(&c->log, KF_ERR_USAGE, "%s (--help shows the options)", text);
}

static const option *find_option(const verb *v, const char *name, size_t len, char letter)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const option *o = &options[i];
        if ((o->verbs & v->bit) &&
            (letter ? o->letter == letter
                    : strlen(o->name) == len && memcmp(o->name, name, len) == 0))
            return o;
    }
    return NULL;
}

static bool parse_u64(const char *s, const option *o, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    if (s[0] < '0' || s[0] > '9' || *end != '\0' || errno != 0 || (double)v < o->min ||
        (double)v > o->max)
        return false;
    *out = v;
    return true;
}

static bool parse_real(const char *s, const option *o, double *out)
{
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end != '\0' || !isfinite(v) || v < o->min || v > o->max)
        return false;
    *out = v;
    return true;
}

static kf_status store(kf_cli *c, const option *o, const char *value)
{
    char *base = (char *)&c->opt;
    bool ok = true;
    switch (o->kind) {
    case FLAG:
        *(bool *)(base + o->field) = true;
        break;
    case U64:
        ok = parse_u64(value, o, (uint64_t *)(void *)(base + o->field));
        break;
    case REAL:
        ok = parse_real(value, o, (double *)(void *)(base + o->field));
        break;
    case TEXT:
        *(const char **)(void *)(base + o->field) = value;
        break;
    case TEXTS: {
        uint64_t *n = (uint64_t *)(void *)(base + o->has_field);
        if (*n == KF_CLI_MAX_STOPS || value[0] == '\0')
            return usage(c, "--%s: at most %u texts, none of them empty", o->name,
                         KF_CLI_MAX_STOPS);
        ((const char **)(void *)(base + o->field))[(*n)++] = value;
        return KF_OK;
    }
    }
    if (!ok)
        return usage(c, "--%s %s: a number from %.15g to %.15g", o->name, value, o->min, o->max);
    if (o->has_field)
        *(bool *)(base + o->has_field) = true;
    return KF_OK;
}

/* "--name value", "--name=value", "-x value", "-xvalue". */
static kf_status parse_option(kf_cli *c, const verb *v, char **argv, int argc, int *at)
{
    const char *arg = argv[*at], *value = NULL;
    const option *o;
    if (arg[1] == '-') {
        const char *eq = strchr(arg, '=');
        o = find_option(v, arg + 2, eq ? (size_t)(eq - arg - 2) : strlen(arg + 2), 0);
        value = eq ? eq + 1 : NULL;
    } else {
        o = find_option(v, NULL, 0, arg[1]);
        value = arg[2] ? arg + 2 : NULL;
    }
    if (!o)
        return usage(c, "%s: unknown option '%s'", v->name, arg);
    if (o->kind == FLAG && value)
        return usage(c, "--%s takes no value", o->name);
    if (o->kind != FLAG && !value) {
        if (*at + 1 >= argc)
            return usage(c, "%s needs a value", arg);
        value = argv[++*at];
    }
    return store(c, o, value);
}

static kf_status parse_all(kf_cli *c, const verb *v, int argc, char **argv)
{
    const kf_sampling_defaults *d = &c->model->sampling;
    c->opt = (kf_cli_options){.n_tokens = 128,
                              .n_prompt = 512,
                              .batch = 1,
                              .repeats = 5,
                              .temperature = d->temperature,
                              .top_k = d->top_k,
                              .top_p = d->top_p > 0 ? d->top_p : 1,
                              .min_p = d->min_p,
                              .repeat_penalty = 1};
    bool only_operands = false;
    for (int i = 2; i < argc; i++) {
        if (!only_operands && strcmp(argv[i], "--") == 0) {
            only_operands = true;
        } else if (!only_operands && argv[i][0] == '-' && argv[i][1] != '\0') {
            KF_TRY(parse_option(c, v, argv, argc, &i));
        } else {
            if (!v->operand || c->opt.operand)
                return usage(c, "%s: unexpected '%s'", v->name, argv[i]);
            c->opt.operand = argv[i];
        }
    }
    if (v->operand && !v->may_lack_operand && !c->opt.operand)
        return usage(c, "%s: %s is missing", v->name, v->operand);
    if (c->opt.device && strcmp(c->opt.device, "cpu") != 0)
        return kf_fail(&c->log, KF_ERR_UNSUPPORTED,
                       "--device %s: this executable was compiled for %s", c->opt.device,
                       c->model->target);
    return KF_OK;
}

/* ---- Signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    interrupted = sig;
    signal(sig, SIG_DFL); /* a second one ends at once */
}

/* The weights are mapped: a file cut short while it is mapped shows up as this signal. */
static void on_bus_error(int sig)
{
    static const char text[] =
        "error: the packed weights changed or became unreadable while in use\n";
    (void)sig;
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(KF_ERR_IO);
}

bool kf_cli_is_interrupted(void)
{
    return interrupted != 0;
}

static void log_to_stderr(void *user, kf_log_level level, const char *text)
{
    static const char *const words[] = {"error: ", "warning: ", ""};
    const kf_cli *c = user;
    if (level != KF_LOG_ERROR && c->opt.quiet)
        return;
    fprintf(stderr, "%s%s\n", words[level], text);
}

/* ---- The opened model ------------------------------------------------------------------------ */

kf_status kf_cli_open(kf_cli *c)
{
    kf_options o = {.weights_path = c->opt.weights,
                    .random_seed = c->opt.has_random ? &c->opt.random_seed : NULL,
                    .threads = (uint32_t)c->opt.threads,
                    .context = (uint32_t)c->opt.context,
                    .log = c->log.log,
                    .log_user = c->log.user};
    KF_TRY(kf_open(c->model, &o, &c->engine));
    KF_TRY(kf_session_open(c->engine, &c->session));
    c->tok = c->engine->tok;
    if (c->tok)
        KF_TRY(kf_tok_scratch_create(c->tok, &c->scratch));
    if (c->opt.has_context || c->opt.verbose) {
        kf_limits l;
        kf_engine_limits(c->engine, &l);
        kf_log(
            &c->log, KF_LOG_INFO,
            "%u threads; weights %.1f MiB; buffers %.1f MiB; cache of %u x %u positions up to %.1f "
            "MiB",
            l.threads, (double)l.weights_bytes / 1048576, (double)l.pool_bytes / 1048576,
            l.sequences, l.context, (double)l.kv_bytes / 1048576);
    }
    if (!c->opt.profile)
        return KF_OK;
    c->stats = kf_alloc(&kf_default_allocator, c->model->n_launches * sizeof *c->stats, 16);
    if (!c->stats)
        return kf_fail(&c->log, KF_ERR_MEMORY, "no memory for the profile");
    kf_pool_profile(c->engine->pool, c->stats);
    return KF_OK;
}

static void close_cli(kf_cli *c)
{
    kf_tok_scratch_destroy(c->scratch);
    kf_session_close(c->session);
    kf_close(c->engine);
    kf_free(&kf_default_allocator, c->stats, c->model->n_launches * sizeof *c->stats);
}

/* ---- Main ------------------------------------------------------------------------------------ */

static const verb *find_verb(const char *name)
{
    for (size_t i = 0; i < N_VERBS; i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    }
    return NULL;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

static kf_status flush_stdout(const kf_cli *c, kf_status status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    kf_status failed =
        kf_fail(&c->log, KF_ERR_IO, "cannot write to standard output: %s", strerror(errno));
    return status == KF_OK ? failed : status;
}

static int run_verb(kf_cli *c, const verb *v, int argc, char **argv)
{
    kf_status status = parse_all(c, v, argc, argv);
    if (status != KF_OK)
        return (int)status;
    struct sigaction on_int = {.sa_handler = on_interrupt};
    struct sigaction on_bus = {.sa_handler = on_bus_error};
    sigaction(SIGINT, &on_int, NULL);
    sigaction(SIGTERM, &on_int, NULL);
    sigaction(SIGBUS, &on_bus, NULL);
    status = v->run(c);
    status = flush_stdout(c, status);
    if (c->stats && status == KF_OK)
        kf_cli_print_profile(c);
    close_cli(c);
    return interrupted ? 128 + (int)interrupted : (int)status;
}

int kf_main(const kf_model *model, int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *self = slash ? slash + 1 : argc > 0 ? argv[0] : model->name;
    kf_cli c = {.model = model};
    c.log = (kf_logger){log_to_stderr, &c};
    if (argc < 2) {
        print_overview(stderr, model, self);
        return KF_ERR_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_overview(stdout, model, self);
        return (int)flush_stdout(&c, KF_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("%s (kerf %s, %s)\n", model->name, model->compiler_version, model->target);
        return (int)flush_stdout(&c, KF_OK);
    }
    const verb *v = find_verb(argv[1]);
    if (!v)
        return (int)usage(&c, "'%s' is none of run, score, embed, bench, verify, info", argv[1]);
    if (!(v->kinds >> model->kind & 1))
        return (int)kf_fail(&c.log, KF_ERR_UNSUPPORTED, "%s: '%s' is %s", v->name, model->name,
                            what_it_is[model->kind]);
    if (wants_help(argc, argv)) {
        print_help(stdout, v, self);
        return (int)flush_stdout(&c, KF_OK);
    }
    return run_verb(&c, v, argc, argv);
}
