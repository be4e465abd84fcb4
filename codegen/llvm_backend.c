/* SPDX-License-Identifier: Apache-2.0 */
#include "codegen/llvm_backend.h"

#include "base/check.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Core.h>
#include <llvm-c/Error.h>
#include <llvm-c/ErrorHandling.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kernels arrive in SSA form, vectorised, unrolled and without calls: what is left is clean-up,
 * address arithmetic and loop-invariant motion. What default<O2>, or gvn, indvars and combining
 * before and after all this, add to it are less than 0.1% of the executed instructions and twice
 * the time. */
#define COMBINE "instcombine<no-verify-fixpoint>"
static const char default_pipeline[] =
    "function(early-cse<memssa>,simplifycfg,loop-simplify,lcssa,loop-mssa(loop-rotate,licm)"
    "," COMBINE ",early-cse<memssa>,loop-mssa(licm),dse,simplifycfg)";

struct kf_llvm {
    kf_llvm_options options;
    LLVMContextRef context;
    LLVMModuleRef module;
    LLVMTargetMachineRef machine;
    const char *cpu;
    const char *features;
};

static pthread_once_t init_once = PTHREAD_ONCE_INIT, sanitize_once = PTHREAD_ONCE_INIT;

static void on_fatal(const char *reason)
{
    kf_check_fail("llvm", 0, "codegen", reason);
}

static void on_diagnostic(LLVMDiagnosticInfoRef info, void *user)
{
    (void)user;
    if (LLVMGetDiagInfoSeverity(info) != LLVMDSError)
        return;
    char *text = LLVMGetDiagInfoDescription(info);
    kf_check_fail("llvm", 0, "codegen", text);
}

static void init_llvm(void)
{
    LLVMInstallFatalErrorHandler(on_fatal);
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();
}

/* Accesses are checked by calls: the same checks as those that the pass writes in line, which make
 * code that takes six times as long to compile. */
static void init_sanitizer(void)
{
    static const char *const argv[] = {"kerf", "-asan-instrumentation-with-call-threshold=0"};

    LLVMParseCommandLineOptions(2, argv, NULL);
}

/* Copies a string that LLVM allocated and releases it. */
static kf_str take(kf_arena *arena, char *message)
{
    kf_str s = kf_str_dup(arena, kf_str_from(message));
    LLVMDisposeMessage(message);
    return s;
}

static void choose_cpu(kf_llvm *ll, kf_arena *arena)
{
    ll->cpu = ll->options.arch.name;
    ll->features = "";
    if (strcmp(ll->cpu, "native") != 0)
        return;
    ll->cpu = take(arena, LLVMGetHostCPUName()).ptr;
    ll->features = take(arena, LLVMGetHostCPUFeatures()).ptr;
}

static void open_module(kf_llvm *ll, const char *name)
{
    ll->context = LLVMContextCreate();
    LLVMContextSetDiagnosticHandler(ll->context, on_diagnostic, NULL);
    ll->module = LLVMModuleCreateWithNameInContext(name, ll->context);
    char *triple = LLVMGetTargetMachineTriple(ll->machine);
    LLVMSetTarget(ll->module, triple);
    LLVMDisposeMessage(triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(ll->machine);
    LLVMSetModuleDataLayout(ll->module, layout);
    LLVMDisposeTargetData(layout);
}

static void close_module(kf_llvm *ll)
{
    LLVMDisposeModule(ll->module);
    LLVMContextDispose(ll->context);
}

kf_llvm *kf_llvm_create(kf_arena *arena, const char *name, const kf_llvm_options *options,
                        kf_str *out_error)
{
    pthread_once(&init_once, init_llvm);
    if (options->sanitize)
        pthread_once(&sanitize_once, init_sanitizer);
    kf_llvm *ll = KF_NEW(arena, kf_llvm);
    ll->options = *options;
    choose_cpu(ll, arena);
    char *triple = LLVMGetDefaultTargetTriple();
    char *error = NULL;
    LLVMTargetRef target = NULL;
    if (LLVMGetTargetFromTriple(triple, &target, &error)) {
        *out_error = take(arena, error);
        LLVMDisposeMessage(triple);
        return NULL;
    }
    ll->machine =
        LLVMCreateTargetMachine(target, triple, ll->cpu, ll->features, LLVMCodeGenLevelDefault,
                                LLVMRelocPIC, LLVMCodeModelDefault);
    LLVMDisposeMessage(triple);
    open_module(ll, name);
    return ll;
}

void kf_llvm_restart(kf_llvm *ll, const char *name)
{
    close_module(ll);
    open_module(ll, name);
}

void kf_llvm_destroy(kf_llvm *ll)
{
    if (!ll)
        return;
    close_module(ll);
    LLVMDisposeTargetMachine(ll->machine);
}

const kf_llvm_options *kf_llvm_get_options(const kf_llvm *ll)
{
    return &ll->options;
}

struct LLVMOpaqueContext *kf_llvm_context(kf_llvm *ll)
{
    return ll->context;
}

struct LLVMOpaqueModule *kf_llvm_module(kf_llvm *ll)
{
    return ll->module;
}

const char *kf_llvm_cpu(const kf_llvm *ll)
{
    return ll->cpu;
}

const char *kf_llvm_features(const kf_llvm *ll)
{
    return ll->features;
}

static void verify(kf_llvm *ll)
{
    char *error = NULL;
    if (LLVMVerifyModule(ll->module, LLVMReturnStatusAction, &error))
        kf_check_fail("llvm", 0, "verify", error);
    LLVMDisposeMessage(error);
}

static void run_passes(kf_llvm *ll, const char *passes)
{
    LLVMPassBuilderOptionsRef opts = LLVMCreatePassBuilderOptions();
    LLVMPassBuilderOptionsSetVerifyEach(opts, ll->options.verify_each);
    /* The emitters chose the unrolling and the vector shape; LLVM must not choose again. */
    LLVMPassBuilderOptionsSetLoopUnrolling(opts, 0);
    LLVMPassBuilderOptionsSetLoopVectorization(opts, 0);
    LLVMPassBuilderOptionsSetSLPVectorization(opts, 0);
    LLVMErrorRef error = LLVMRunPasses(ll->module, passes, ll->machine, opts);
    LLVMDisposePassBuilderOptions(opts);
    if (error)
        kf_check_fail("llvm", 0, passes, LLVMGetErrorMessage(error));
}

void kf_llvm_optimize(kf_llvm *ll)
{
    verify(ll);
    run_passes(ll, ll->options.pipeline ? ll->options.pipeline : default_pipeline);
    if (ll->options.sanitize)
        run_passes(ll, "asan");
}

kf_str kf_llvm_print(kf_llvm *ll, kf_arena *arena)
{
    return take(arena, LLVMPrintModuleToString(ll->module));
}

static kf_str emit(kf_llvm *ll, kf_arena *arena, LLVMCodeGenFileType type)
{
    /* Code generation changes the module; a clone keeps it printable and emittable again. */
    LLVMModuleRef clone = LLVMCloneModule(ll->module);
    char *error = NULL;
    LLVMMemoryBufferRef buffer = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(ll->machine, clone, type, &error, &buffer))
        kf_check_fail("llvm", 0, "emit", error);
    kf_str bytes = {LLVMGetBufferStart(buffer), (uint32_t)LLVMGetBufferSize(buffer)};
    kf_str copy = kf_str_dup(arena, bytes);
    LLVMDisposeMemoryBuffer(buffer);
    LLVMDisposeModule(clone);
    return copy;
}

kf_str kf_llvm_emit_assembly(kf_llvm *ll, kf_arena *arena)
{
    return emit(ll, arena, LLVMAssemblyFile);
}

kf_str kf_llvm_emit_object(kf_llvm *ll, kf_arena *arena)
{
    return emit(ll, arena, LLVMObjectFile);
}

const char *kf_llvm_version(void)
{
    return KF_LLVM_VERSION;
}
