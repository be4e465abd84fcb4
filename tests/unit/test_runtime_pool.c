/* SPDX-License-Identifier: Apache-2.0 */
/* The worker pool: every tile exactly once, launches in order, nobody waits for a stopped thread.
 */
#include "runtime/internal.h"
#include "tests/unit/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Last: it needs the headers above and does not include them. */
#include <cmocka.h>

enum { TILES = 200, LAUNCHES = 300 };

static kf_pool *open_pool(uint32_t threads)
{
    kf_pool *p;
    assert_int_equal(kf_pool_create(&kf_default_allocator, threads, 100, NULL, &p), KF_OK);
    assert_int_equal(kf_pool_threads(p), threads);
    return p;
}

static void close_pool(kf_pool *p)
{
    kf_pool_destroy(p, &kf_default_allocator);
}

static void count_tile(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    _Atomic uint32_t *count = args->ptr[0];
    (void)scratch;
    atomic_fetch_add(&count[tile], 1);
}

static void test_each_tile_once(void **state)
{
    (void)state;
    static const uint32_t threads[] = {1, 2, 3, 7};
    for (int i = 0; i < 4; i++) {
        kf_pool *p = open_pool(threads[i]);
        _Atomic uint32_t count[TILES] = {0};
        uint64_t rounds = scaled(2000);
        for (uint64_t k = 0; k < rounds; k++)
            kf_pool_for(p, count_tile, (void *)count, k % 5 == 4 ? 0 : TILES);
        uint64_t full = rounds - rounds / 5;
        for (int t = 0; t < TILES; t++)
            assert_int_equal(count[t], full);
        close_pool(p);
    }
}

/* ---- Order of launches ----------------------------------------------------------------------- */

/* Launch |layer| adds up what launch |layer| - 1 wrote, so an early start shows as a wrong sum. */
static void chain_tile(const kf_kernel_args *args, uint32_t tile, void *scratch)
{
    const uint64_t *from = args->ptr[0];
    uint64_t *to = args->ptr[1];
    (void)scratch;
    uint64_t sum = 1;
    for (int t = 0; t < TILES; t++)
        sum += from[t];
    to[tile] = sum % 1000003;
}

static const kf_operand chain_operands[2][2] = {
    {{KF_SPACE_BUFFER, 0, 0, 0}, {KF_SPACE_BUFFER, 0, TILES * 8, 0}},
    {{KF_SPACE_BUFFER, 0, TILES * 8, 0}, {KF_SPACE_BUFFER, 0, 0, 0}},
};
static const kf_launch chain[2] = {
    {.kernel = chain_tile,
     .operands = chain_operands[0],
     .n_operands = 2,
     .tiles = {.base = TILES}},
    {.kernel = chain_tile,
     .operands = chain_operands[1],
     .n_operands = 2,
     .tiles = {.base = TILES}},
};
static const kf_launch nothing = {.kernel = chain_tile, .tiles = {.base = 0}};

static void run_chain(kf_worker *w, const kf_step *s)
{
    (void)s;
    for (uint32_t i = 0; i < LAUNCHES; i++) {
        kf_tiles(w, &chain[i % 2], i);
        if (i % 16 == 0)
            kf_tiles(w, &nothing, i);
    }
}

static void test_launches_in_order(void **state)
{
    (void)state;
    static const uint32_t threads[] = {1, 2, 3, 7};
    uint64_t want[TILES];
    for (int i = 0; i < 4; i++) {
        kf_pool *p = open_pool(threads[i]);
        uint64_t cells[2 * TILES] = {0};
        kf_step step = {.run = run_chain, .pool = (unsigned char *)cells};
        for (uint64_t k = 0; k < scaled(20); k++)
            kf_pool_run(p, &step);
        if (i == 0)
            memcpy(want, cells, sizeof want);
        else
            assert_memory_equal(want, cells, sizeof want);
        close_pool(p);
    }
}

/* ---- A thread that the system has stopped -----------------------------------------------------
 */

static pthread_t caller;
static _Atomic int hold_one, is_held, may_go;
static _Atomic uint32_t held_count[TILES];

static void nap(void)
{
    nanosleep(&(struct timespec){0, 1000000}, NULL);
}

static const kf_operand count_operand = {KF_SPACE_INPUT, 0, 0, 0};
static const kf_launch count_launch = {.kernel = count_tile,
                                       .operands = &count_operand,
                                       .n_operands = 1,
                                       .tiles = {1, 1, {{KF_DIM_TOKENS, 1}}}};

static void run_held(kf_worker *w, const kf_step *s)
{
    (void)s;
    for (uint32_t i = 0; i < 10; i++) {
        if (i == 5 && !pthread_equal(pthread_self(), caller) && atomic_exchange(&hold_one, 0)) {
            is_held = 1;
            while (!may_go)
                nap();
        }
        kf_tiles(w, &count_launch, i);
    }
}

/* While one worker is held between two launches the others finish whole calls; what it finds when
 * it comes back has long ended, and it must take no tile of what runs then. */
static void test_stopped_thread_holds_nobody(void **state)
{
    (void)state;
    caller = pthread_self();
    kf_pool *p = open_pool(3);
    kf_step step = {.run = run_held, .input = {(void *)held_count}};
    uint32_t calls = 0;
    hold_one = 1;
    is_held = may_go = 0;
    for (; !is_held || calls < 50; calls++) {
        step.dim[KF_DIM_TOKENS] = calls % 2 ? TILES : TILES / 2;
        kf_pool_run(p, &step);
    }
    may_go = 1;
    for (uint32_t k = 0; k < 50; k++, calls++) {
        step.dim[KF_DIM_TOKENS] = calls % 2 ? TILES : TILES / 2;
        kf_pool_run(p, &step);
    }
    for (uint32_t t = 0; t < TILES; t++)
        assert_int_equal(held_count[t], 10 * (t < TILES / 2 ? calls : calls / 2));
    close_pool(p);
}

static void test_tile_counts(void **state)
{
    (void)state;
    int64_t dim[KF_DIM_COUNT] = {3, 65, 0, 9, 9};
    kf_tile_count t = {5, 2, {{KF_DIM_TOKENS, 32}, {KF_DIM_SEQUENCES, 1}}};
    assert_int_equal(kf_tile_count_eval(&t, dim), 5 * 3 * 3);
    t = (kf_tile_count){5, 1, {{KF_DIM_ROWS, 4}}};
    assert_int_equal(kf_tile_count_eval(&t, dim), 0);
    t = (kf_tile_count){7, 0, {{0, 0}}};
    assert_int_equal(kf_tile_count_eval(&t, dim), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_tile_once),
        cmocka_unit_test(test_launches_in_order),
        cmocka_unit_test(test_stopped_thread_holds_nobody),
        cmocka_unit_test(test_tile_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
