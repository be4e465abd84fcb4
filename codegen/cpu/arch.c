/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/cpu/arch.h"

#include "runtime/kf_artifact.h"

#include <string.h>

#define V3 KF_CPU_X86_64_V3
#define V4                                                                                         \
    (V3 | KF_CPU_AVX512F | KF_CPU_AVX512DQ | KF_CPU_AVX512BW | KF_CPU_AVX512VL | KF_CPU_AVX512CD)

static const kf_cpu_arch archs[] = {
#define ARCH(name, lanes, regs, features) {name, lanes, regs, features},
#include "codegen/cpu/arch.def"
#undef ARCH
};

bool kf_cpu_arch_at(uint32_t i, kf_cpu_arch *out_arch)
{
    if (i >= sizeof archs / sizeof archs[0])
        return false;
    *out_arch = archs[i];
    return true;
}

static bool native_arch(kf_cpu_arch *out_arch)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return false;
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    uint32_t more = __builtin_cpu_supports("avx512vnni") ? KF_CPU_AVX512VNNI : 0;
    if (__builtin_cpu_supports("avx512bf16"))
        more |= KF_CPU_AVX512BF16;
    *out_arch = (kf_cpu_arch){"native", wide ? 16 : 8, wide ? 32 : 16, wide ? V4 | more : V3};
    return true;
#else
    (void)out_arch;
    return false;
#endif
}

bool kf_cpu_arch_find(const char *name, kf_cpu_arch *out_arch)
{
    if (strcmp(name, "native") == 0)
        return native_arch(out_arch);
    for (uint32_t i = 0; kf_cpu_arch_at(i, out_arch); i++) {
        if (strcmp(out_arch->name, name) == 0)
            return true;
    }
    return false;
}
