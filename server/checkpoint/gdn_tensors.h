// The tensors of one GDN layer under their checkpoint names, checked against the geometry.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/geometry.h"
#include "server/checkpoint/shards.h"

namespace gdn {

// Qwen3.5 has in_proj_{qkv,z,b,a}; Qwen3-Next has in_proj_{qkvz,ba}, interleaved by key head.
enum class TensorRole : uint8_t {
  kQkv,
  kZ,
  kB,
  kA,
  kQkvz,
  kBa,
  kOut,
  kConvWeight,
  kConvBias,
  kALog,
  kDtBias,
  kNorm
};
inline constexpr size_t kTensorRoles = 12;

// Matrices are served in the io type, the others in fp32.
constexpr bool IsMatrix(TensorRole role) { return role <= TensorRole::kOut; }

// A tensor as a matrix on disk.
struct TensorSource {
  std::string name;  // whole
  const File* file = nullptr;
  DType type = DType::kFp32;
  int64_t rows = 0;
  int64_t columns = 0;  // [n] is [n, 1] and [n, 1, m] is [n, m]
  uint64_t offset = 0;

  uint64_t bytes() const { return static_cast<uint64_t>(rows * columns) * SizeOf(type); }
};

struct LayerTensors {
  std::array<std::optional<TensorSource>, kTensorRoles> by_role;

  const std::optional<TensorSource>& operator[](TensorRole role) const {
    return by_role[static_cast<size_t>(role)];
  }
  bool has_projections() const { return (*this)[TensorRole::kOut].has_value(); }
  bool interleaved() const { return (*this)[TensorRole::kQkvz].has_value(); }
};

// The tensors `prefix`*, where prefix is "model.layers.0.linear_attn." or the like. Either all of
// the projections are there (of one of the two forms) or none. Errors (FAILED_PRECONDITION) name
// the tensor, the file, what was expected and found: tensors that are missing, that have another
// shape or a type other than BF16, F16 and F32, and those that no such layer has.
absl::StatusOr<LayerTensors> FindLayer(const Geometry& g, const Shards& shards,
                                       const std::string& prefix);

}  // namespace gdn
