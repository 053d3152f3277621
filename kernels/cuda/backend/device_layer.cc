#include "kernels/cuda/backend/device_layer.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "kernels/cuda/backend/errors.h"

namespace gdn::cuda {
namespace {

// A vector of a layer and where its pointer goes.
template <typename T>
struct Placed {
  const TensorView& from;
  const T** to;
};

}  // namespace

absl::StatusOr<DeviceLayer> ToDevice(const LayerWeights& weights) {
  DeviceLayer layer;
  const Placed<void> matrices[] = {{weights.in_proj, &layer.in_proj},
                                   {weights.out_proj, &layer.out_proj}};
  const Placed<float> vectors[] = {{weights.conv_weight, &layer.conv_weight},
                                   {weights.conv_bias, &layer.conv_bias},
                                   {weights.a_log, &layer.a_log},
                                   {weights.dt_bias, &layer.dt_bias},
                                   {weights.norm, &layer.norm}};
  size_t bytes = 0;
  for (const auto& m : matrices) bytes += Aligned(m.from.bytes());
  for (const auto& v : vectors) bytes += Aligned(v.from.bytes());
  absl::StatusOr<Memory> memory = Memory::Make(Memory::Place::kDevice, bytes);
  if (!memory.ok()) return memory.status();
  layer.memory = *std::move(memory);

  Errors errors;
  std::byte* at = layer.memory.data();
  const auto place = [&](const TensorView& from) -> const std::byte* {
    if (from.empty()) return nullptr;
    std::byte* to = at;
    errors.Add("weights", cudaMemcpy(to, from.data, from.bytes(), cudaMemcpyHostToDevice));
    at += Aligned(from.bytes());
    return to;
  };
  for (const auto& m : matrices) *m.to = place(m.from);
  for (const auto& v : vectors) *v.to = reinterpret_cast<const float*>(place(v.from));
  // A copy from pageable memory returns before it has reached the device, and the steps' streams do
  // not wait for its own.
  errors.Add("weights", cudaDeviceSynchronize());
  if (!errors.ok()) return errors.status();
  return layer;
}

}  // namespace gdn::cuda
