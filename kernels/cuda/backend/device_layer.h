// A layer's weights where the kernels read them.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/cuda/backend/memory.h"
#include "kernels/weights.h"

namespace gdn::cuda {

// The weights of one layer, on the device.
struct DeviceLayer {
  Memory memory;
  const void* in_proj = nullptr;
  const void* out_proj = nullptr;
  const float* conv_weight = nullptr;
  const float* conv_bias = nullptr;
  const float* a_log = nullptr;
  const float* dt_bias = nullptr;
  const float* norm = nullptr;
};

absl::StatusOr<DeviceLayer> ToDevice(const LayerWeights& weights);

}  // namespace gdn::cuda
