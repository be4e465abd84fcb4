/* SPDX-License-Identifier: Apache-2.0 */
/* test_relative_bias - buckets of distances against those that transformers computes. */
#include "base/fs.h"
#include "frontend.h"
#include "frontend/relative_bias.h"

#include <stdlib.h>

enum { FAR = 512 };

static int64_t bucket_of(const kf_bias_buckets *t, bool bidirectional, int64_t distance)
{
    int64_t n = bidirectional ? llabs(distance) : distance < 0 ? -distance : 0;
    int64_t bucket = n < t->exact ? n : t->exact;

    for (uint32_t i = 0; i < t->n_thresholds; i++)
        bucket += n >= t->threshold[i];
    return bucket + (bidirectional && distance > 0 ? t->side : 0);
}

static void buckets_are_those_of_transformers(void **state)
{
    fixture *f = *state;
    kf_str text;
    int tables = 0;

    assert_int_equal(kf_fs_read(f->arena, source_path(f, "tests/golden/encoders/t5_buckets.txt"),
                                1 << 20, &text),
                     0);
    for (char *at = (char *)(uintptr_t)text.ptr; *at; tables++) {
        long buckets = strtol(at, &at, 10), distance = strtol(at, &at, 10);
        bool bidirectional = strtol(at, &at, 10);
        kf_bias_buckets t = kf_relative_buckets(buckets, distance, bidirectional);
        for (long k = -FAR; k <= FAR; k++) {
            long want = strtol(at, &at, 10);
            if (bucket_of(&t, bidirectional, k) != want)
                fail_msg("%ld buckets up to %ld: %ld is in %ld, not %ld", buckets, distance, k,
                         (long)bucket_of(&t, bidirectional, k), want);
        }
        while (*at == '\n')
            at++;
    }
    assert_true(tables >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {FIXTURE_TEST(buckets_are_those_of_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
