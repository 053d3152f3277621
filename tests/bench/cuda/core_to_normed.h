// The core of a prefill with its neighbours: convolution and gates, delta rule, gated norm.
#pragma once

#include <cstdint>

#include "tests/bench/cuda/prefill_inputs.h"

namespace gdn::bench {

class CoreToNormed {
 public:
  CoreToNormed(int64_t rows, int64_t length);

  int calls() const { return 4 * inputs_.sets(); }  // to time together

  // From mixed_qkv, z, b and a to the normed output.
  cudaError_t Launch(int call, cudaStream_t stream) const;
  // The delta rule alone, on what the neighbours left.
  cudaError_t LaunchCore(int call, cudaStream_t stream) const;

  // Of the output, against everything in double. Runs the first set.
  double Error() const;

 private:
  PrefillInputs inputs_;
  Buffer workspace_;
};

}  // namespace gdn::bench
