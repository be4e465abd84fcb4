/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/cpu/arch.h"

#include <string.h>

static const kf_cpu_arch archs[] = {
#define ARCH(name, lanes, regs) {name, lanes, regs},
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
    *out_arch = (kf_cpu_arch){"native", wide ? 16 : 8, wide ? 32 : 16};
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
