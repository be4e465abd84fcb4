/* SPDX-License-Identifier: Apache-2.0 */
/* cpu - what the processor can do and how many of them this process may use. */
#define _GNU_SOURCE
#include "runtime/internal.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "the CPU runtime knows x86-64 only"
#endif

/* __builtin_cpu_supports also checks that the operating system saves the vector registers; it takes
 * only literals, hence one line per row of the table. */
static bool has_feature(uint32_t bit)
{
    switch (bit) {
    case KF_CPU_SSE42:
        return __builtin_cpu_supports("sse4.2");
    case KF_CPU_POPCNT:
        return __builtin_cpu_supports("popcnt");
    case KF_CPU_AVX:
        return __builtin_cpu_supports("avx");
    case KF_CPU_AVX2:
        return __builtin_cpu_supports("avx2");
    case KF_CPU_FMA:
        return __builtin_cpu_supports("fma");
    case KF_CPU_F16C:
        return __builtin_cpu_supports("f16c");
    case KF_CPU_BMI:
        return __builtin_cpu_supports("bmi");
    case KF_CPU_BMI2:
        return __builtin_cpu_supports("bmi2");
    case KF_CPU_LZCNT:
        return __builtin_cpu_supports("lzcnt");
    case KF_CPU_AVX512F:
        return __builtin_cpu_supports("avx512f");
    case KF_CPU_AVX512DQ:
        return __builtin_cpu_supports("avx512dq");
    case KF_CPU_AVX512BW:
        return __builtin_cpu_supports("avx512bw");
    case KF_CPU_AVX512VL:
        return __builtin_cpu_supports("avx512vl");
    case KF_CPU_AVX512CD:
        return __builtin_cpu_supports("avx512cd");
    case KF_CPU_AVX512VNNI:
        return __builtin_cpu_supports("avx512vnni");
    case KF_CPU_AVX512BF16:
        return __builtin_cpu_supports("avx512bf16");
    default:
        return false;
    }
}

/* movbe (leaf 1, ecx bit 22) and avxvnni (leaf 7.1, eax bit 4) are unknown to older compilers'
 * builtin; see Intel SDM volume 2A, CPUID. */
static void cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    __asm__("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(sub));
}

uint32_t kf_cpu_detect(void)
{
    uint32_t mask = 0;
    __builtin_cpu_init();
#define DETECT(name, bit, word) mask |= has_feature(1u << (bit)) ? 1u << (bit) : 0;
    KF_CPU_FEATURES(DETECT)
#undef DETECT
    uint32_t r[4];
    cpuid(0, 0, r);
    uint32_t max_leaf = r[0];
    cpuid(1, 0, r);
    if (r[2] & 1u << 22)
        mask |= KF_CPU_MOVBE;
    if (max_leaf >= 7 && (mask & KF_CPU_AVX2)) {
        cpuid(7, 0, r);
        if (r[0] >= 1) {
            cpuid(7, 1, r);
            if (r[0] & 1u << 4)
                mask |= KF_CPU_AVXVNNI;
        }
    }
    return mask;
}

kf_status kf_cpu_require(uint32_t needed, uint32_t present, const kf_logger *log)
{
    static const struct {
        uint32_t bit;
        const char *word;
    } rows[] = {
#define ROW(name, bit, word) {1u << (bit), word},
        KF_CPU_FEATURES(ROW)
#undef ROW
    };
    uint32_t missing = needed & ~present;
    if (missing == 0)
        return KF_OK;
    char words[256];
    size_t at = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (missing & rows[i].bit)
            at += (size_t)snprintf(words + at, sizeof words - at, "%s%s", at ? ", " : "",
                                   rows[i].word);
    }
    return kf_fail(log, KF_ERR_DEVICE,
                   "this processor lacks %s, which the kernels of this executable need; compile it "
                   "with another --target",
                   words);
}

static bool read_line(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool ok = fgets(out, (int)size, f) != NULL;
    fclose(f);
    return ok;
}

/* cgroup v2's cpu.max ("QUOTA PERIOD" or "max PERIOD"), then v1's pair of files. 0: no quota. */
static uint32_t quota_cpus(void)
{
    char line[128];
    long long quota = -1, period = 0;
    if (read_line("/sys/fs/cgroup/cpu.max", line, sizeof line)) {
        if (sscanf(line, "%lld %lld", &quota, &period) != 2)
            return 0;
    } else if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", line, sizeof line)) {
        if (sscanf(line, "%lld", &quota) != 1 ||
            !read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", line, sizeof line) ||
            sscanf(line, "%lld", &period) != 1)
            return 0;
    }
    if (quota <= 0 || period <= 0)
        return 0;
    return (uint32_t)((quota + period - 1) / period);
}

uint32_t kf_cpu_count(void)
{
    cpu_set_t set;
    uint32_t n = 0;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = (uint32_t)CPU_COUNT(&set);
    if (n == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        n = online > 0 ? (uint32_t)online : 1;
    }
    uint32_t quota = quota_cpus();
    return quota > 0 && quota < n ? quota : n;
}

double kf_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
