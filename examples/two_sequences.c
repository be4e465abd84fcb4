/* SPDX-License-Identifier: Apache-2.0 */
/* Two texts grow at the same time, one token each a step, with a model that was compiled as a
 * library:
 *
 *     kerf compile examples/shakespeare/model --emit lib -o model
 *     cc -I. examples/two_sequences.c model.a -lpcre2-8 -lutf8proc -lm -lpthread -o two_sequences
 *     ./two_sequences
 */
#include "model.h"

#include <stdio.h>
#include <string.h>

#ifndef MODEL
#define MODEL model_model
#endif

enum { STEPS = 48, MAX_IDS = 256, MAX_TEXT = 4096 };

static void on_log(void *user, kf_log_level level, const char *text)
{
    (void)user;
    (void)level;
    fprintf(stderr, "%s\n", text);
}

static kf_status grow(kf_engine *engine, kf_session *session)
{
    static const char *const prompts[2] = {"ROMEO:\n", "First Citizen:\nBefore we proceed"};
    int32_t ids[2][MAX_IDS];
    size_t n[2], len;
    kf_append next[2];
    char text[MAX_TEXT];
    kf_status status = KF_OK;

    for (uint32_t i = 0; i < 2 && status == KF_OK; i++) {
        status = kf_encode(engine, prompts[i], strlen(prompts[i]), ids[i], MAX_IDS - STEPS, &n[i]);
        next[i] = (kf_append){i, (uint32_t)n[i], ids[i], 1, NULL};
    }
    for (int step = 0; step < STEPS && status == KF_OK; step++) {
        status = kf_session_step(session, next, 2); /* first both prompts, then a token of each */
        for (uint32_t i = 0; i < 2 && status == KF_OK; i++) {
            ids[i][n[i]] = kf_session_next(session, i);
            next[i] = (kf_append){i, 1, &ids[i][n[i]++], 1, NULL};
        }
    }
    for (int i = 0; i < 2 && status == KF_OK; i++) {
        status = kf_decode(engine, ids[i], n[i], text, sizeof text, &len);
        printf("--- %d\n%.*s\n", i, (int)(len < sizeof text ? len : sizeof text), text);
    }
    return status;
}

int main(int argc, char **argv)
{
    kf_options options = {.weights_path = argc > 1 ? argv[1] : NULL, .log = on_log};
    kf_engine *engine = NULL;
    kf_session *session = NULL;
    kf_status status = kf_open(MODEL(), &options, &engine);
    if (status == KF_OK)
        status = kf_session_open(engine, &session);
    if (status == KF_OK)
        status = grow(engine, session);
    kf_session_close(session);
    kf_close(engine);
    return status;
}
