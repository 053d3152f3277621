// What engine_bench and wire_bench host on the null backend: layers of hidden 2048 in bf16.
#pragma once

#include <cstddef>
#include <numeric>

#include "kernels/backend.h"
#include "server/engine/engine.h"
#include "server/wire/validate_step.h"

namespace gdn {

inline BackendShape NullShape(int slots, int layers = 1) {
  BackendShape shape;
  shape.geometry.hidden_size = 2048;
  shape.geometry.key_heads = 16;
  shape.geometry.value_heads = 32;
  shape.geometry.key_dim = shape.geometry.value_dim = 128;
  shape.io = DType::kBf16;
  shape.layers = layers;
  shape.slots = slots;
  shape.max_rows = 256;
  shape.max_tokens = 8192;
  shape.max_decode_tokens = 1;
  return shape;
}

inline EngineOptions NullOptions(const BackendShape& shape) {
  EngineOptions options;
  options.layers.resize(static_cast<size_t>(shape.layers));
  std::iota(options.layers.begin(), options.layers.end(), 0);
  options.shape = shape;
  options.max_queue_steps = 1024;
  options.max_queue_rows = 1 << 20;
  options.max_queue_bytes = size_t{1} << 30;
  options.step_ttl = absl::Minutes(10);
  options.prefill_max_wait = absl::Seconds(1);
  return options;
}

// One layer, 0, with its projections.
inline StepLimits NullLimits(const BackendShape& shape) {
  StepLimits limits;
  limits.geometry = shape.geometry;
  limits.layers = {0};
  limits.projections = true;
  limits.slots = static_cast<uint32_t>(shape.slots);
  limits.max_rows = static_cast<uint32_t>(shape.max_rows);
  limits.max_tokens = static_cast<uint64_t>(shape.max_tokens);
  limits.max_decode_tokens = static_cast<uint32_t>(shape.max_decode_tokens);
  return limits;
}

}  // namespace gdn
