// A tensor on the host that owns its bytes, of any element type, and random contents for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/tensor.h"

namespace gdn::test {

using Rng = std::mt19937_64;
using Shape = std::vector<int64_t>;

class Tensor {
 public:
  Tensor() = default;
  Tensor(DType type, int64_t size, float fill = 0.0f)
      : type_(type), size_(size), bytes_(size * SizeOf(type)) {
    for (int64_t i = 0; i < size; ++i) set(i, fill);
  }

  // Independent N(0, deviation²), rounded to `type`.
  static Tensor Normal(Rng& rng, DType type, int64_t size, float deviation = 1.0f) {
    std::normal_distribution<float> distribution(0.0f, deviation);
    Tensor t(type, size);
    for (int64_t i = 0; i < size; ++i) t.set(i, distribution(rng));
    return t;
  }

  // Independent, uniform in [low, high), rounded to `type`.
  static Tensor Uniform(Rng& rng, DType type, int64_t size, float low, float high) {
    std::uniform_real_distribution<float> distribution(low, high);
    Tensor t(type, size);
    for (int64_t i = 0; i < size; ++i) t.set(i, distribution(rng));
    return t;
  }

  DType type() const { return type_; }
  int64_t size() const { return size_; }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  const float* f32() const { return reinterpret_cast<const float*>(bytes_.data()); }
  float* f32() { return reinterpret_cast<float*>(bytes_.data()); }
  std::span<const std::byte> bytes() const { return bytes_; }

  float operator[](int64_t i) const { return Load(data(), type_, i); }
  void set(int64_t i, float x) { Store(data(), type_, i, x); }

  // Elements [begin, begin + count) widened; count < 0: all from begin on.
  std::vector<float> floats(int64_t begin = 0, int64_t count = -1) const {
    std::vector<float> x(count < 0 ? size_ - begin : count);
    for (size_t i = 0; i < x.size(); ++i) x[i] = (*this)[begin + static_cast<int64_t>(i)];
    return x;
  }

  TensorView view(int64_t rows, int64_t columns) const { return {data(), type_, {rows, columns}}; }

  friend bool operator==(const Tensor&, const Tensor&) = default;

 private:
  DType type_ = DType::kFp32;
  int64_t size_ = 0;
  std::vector<std::byte> bytes_;
};

}  // namespace gdn::test
