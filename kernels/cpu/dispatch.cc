#include "kernels/cpu/kernels.h"

namespace gdn::cpu {

namespace plain {
extern const Kernels kKernels;
}
#if defined(__x86_64__)
namespace x86_64_v3 {
extern const Kernels kKernels;
}
namespace x86_64_v4 {
extern const Kernels kKernels;
}
#endif

namespace {

const Kernels& Choose() {
#if defined(__x86_64__)
  // The rest of x86-64-v3, F16C among it, came with these.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v3 && v4) return x86_64_v4::kKernels;
  if (v3) return x86_64_v3::kKernels;
#endif
  return plain::kKernels;
}

}  // namespace

const Kernels& BestKernels() {
  static const Kernels& best = Choose();
  return best;
}

}  // namespace gdn::cpu
