// Loops over all cores, through OpenMP where the build has it.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace gdn::cpu {

// Of the loops that the calling thread starts from now on. 0: all cores.
inline void UseThreads([[maybe_unused]] int threads) {
#ifdef _OPENMP
  omp_set_num_threads(threads > 0 ? threads : omp_get_num_procs());
#endif
}

inline int Threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// f(i) for i < n, each on some thread. What f computes must not depend on which.
template <typename F>
void ParallelFor(int64_t n, F f) {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) if (n > 1)
#endif
  for (int64_t i = 0; i < n; ++i) f(i);
}

// ParallelFor over [begin, end) pieces of n, `piece` long but for the last.
template <typename F>
void ParallelForPieces(int64_t n, int64_t piece, F f) {
  ParallelFor((n + piece - 1) / piece, [&](int64_t i) {
    const int64_t begin = i * piece;
    f(begin, begin + piece < n ? begin + piece : n);
  });
}

// Scratch of the calling thread, of at least n floats, aligned to a cache line. Kept from call to
// call; one use at a time.
float* ThreadScratch(size_t n);

}  // namespace gdn::cpu
