/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_request - one line of --jsonl: it is refused, or its ids are in the vocabulary and its text
 * is where it says. */
#include "runtime/cli.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const kf_model model = {.vocab_size = 1000};
    static const kf_cli cli = {.model = &model};
    kf_cli_request r;
    char *line = malloc(size ? size : 1); /* exactly as long, so that reading on is seen */
    if (!line)
        return 0;
    if (size > 0)
        memcpy(line, data, size);
    if (kf_cli_request_parse(&cli, line, size, 1, &r) == KF_OK) {
        if (r.has_prompt == r.has_ids || r.n < 0 || r.seed < 0)
            abort();
        for (size_t i = 0; i < r.ids.size_bytes / sizeof(int32_t); i++) {
            int32_t id;
            memcpy(&id, r.ids.data + i * sizeof id, sizeof id);
            if (id < 0 || id >= 1000)
                abort();
        }
    }
    kf_cli_request_free(&cli, &r);
    free(line);
    return 0;
}
