// The list of cases: shapes, rows and random operands of the ops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <utility>
#include <vector>

#include "kernels/ops/causal_conv1d.h"
#include "kernels/ops/gated_delta_rule.h"
#include "tests/testing/tensor.h"

namespace gdn::test {

// Rows that own their arrays. Slots are scattered over a pool of slots() so that no row has its own
// index, and some slots belong to nobody.
class RowSet {
 public:
  explicit RowSet(const std::vector<int64_t>& lengths) : offsets_{0} {
    const auto count = static_cast<int32_t>(lengths.size());
    for (int32_t row = 0; row < count; ++row) {
      offsets_.push_back(offsets_.back() + lengths[row]);
      slots_.push_back(count - row + (row % 2) * count);
      has_initial_state_.push_back(0);
    }
  }

  int64_t count() const { return static_cast<int64_t>(slots_.size()); }
  int64_t tokens() const { return offsets_.back(); }
  int64_t slots() const { return 2 * count() + 2; }
  int32_t& slot(int64_t row) { return slots_[row]; }
  int64_t begin(int64_t row) const { return offsets_[row]; }
  int64_t length(int64_t row) const { return offsets_[row + 1] - offsets_[row]; }
  const std::vector<int64_t>& offsets() const { return offsets_; }
  void set_initial_state(int64_t row, bool has) { has_initial_state_[row] = has; }
  void set_initial_state(bool has) {
    std::fill(has_initial_state_.begin(), has_initial_state_.end(), has);
  }

  Rows view() const { return {count(), offsets_.data(), slots_.data(), has_initial_state_.data()}; }

 private:
  std::vector<int64_t> offsets_;
  std::vector<int32_t> slots_;
  std::vector<uint8_t> has_initial_state_;
};

struct DeltaShape {
  std::vector<int64_t> lengths;  // one a row
  Heads heads;
};

inline std::ostream& operator<<(std::ostream& out, const DeltaShape& s) {
  out << "lengths";
  for (int64_t length : s.lengths) out << ' ' << length;
  return out << ", H " << s.heads.key_heads << ", HV " << s.heads.value_heads << ", K "
             << s.heads.key_dim << ", V " << s.heads.value_dim;
}

// One to four rows of 1 to 300 tokens, ratios of heads from 1 to 8 and 3 among them, K and V from
// 64 to 256. Lengths lie about the edges of a chunk.
inline std::vector<DeltaShape> DeltaShapes() {
  return {{{1}, {2, 2, 64, 64}},
          {{1, 1, 1, 1}, {2, 4, 128, 128}},
          {{64, 65}, {1, 3, 64, 128}},
          {{63, 1, 129, 17}, {2, 2, 128, 64}},
          {{150, 7, 31}, {1, 3, 128, 128}},
          {{300}, {2, 4, 128, 128}},
          {{65, 3}, {1, 8, 96, 64}},
          {{1, 129}, {1, 4, 160, 96}},
          {{1, 17}, {1, 1, 256, 192}},
          {{2, 66}, {2, 6, 192, 256}},
          {{65}, {8, 64, 64, 64}}};
}

// Operands of the delta rule. k has length about one, so that the rule contracts as it does in a
// layer even where it is not normalised.
struct DeltaInputs {
  DeltaInputs(uint64_t seed, const DeltaShape& shape, DType io)
      : rows(shape.lengths), heads(shape.heads) {
    Rng rng(seed);
    const float k_deviation = 1.0f / std::sqrt(static_cast<float>(heads.key_dim));
    q = Tensor::Normal(rng, io, rows.tokens() * key_stride());
    k = Tensor::Normal(rng, io, rows.tokens() * key_stride(), k_deviation);
    v = Tensor::Normal(rng, io, rows.tokens() * value_stride());
    g = Tensor::Uniform(rng, DType::kFp32, rows.tokens() * heads.value_heads, -1.5f, 0.0f);
    beta = Tensor::Uniform(rng, DType::kFp32, rows.tokens() * heads.value_heads, 0.0f, 1.0f);
  }

  int64_t key_stride() const { return int64_t{heads.key_heads} * heads.key_dim; }
  int64_t value_stride() const { return int64_t{heads.value_heads} * heads.value_dim; }
  int64_t state_size() const { return value_stride() * heads.key_dim; }
  Shape output_shape() const { return {rows.tokens(), heads.value_heads, heads.value_dim}; }
  Shape pool_shape() const {
    return {rows.slots(), heads.value_heads, heads.value_dim, heads.key_dim};
  }

  // q, k and v of a token side by side, as they are behind the convolution, and NaN up to `width`.
  Tensor Packed(int64_t width) const {
    Tensor packed(q.type(), rows.tokens() * width, std::numeric_limits<float>::quiet_NaN());
    for (int64_t t = 0; t < rows.tokens(); ++t) {
      int64_t to = t * width;
      for (const auto& [from, columns] :
           {std::pair{&q, key_stride()}, {&k, key_stride()}, {&v, value_stride()}}) {
        for (int64_t i = 0; i < columns; ++i) packed.set(to++, (*from)[t * columns + i]);
      }
    }
    return packed;
  }

  // A pool of random states for the rows' slots.
  Tensor Pool(uint64_t seed, DType state) const {
    Rng rng(seed);
    return Tensor::Normal(rng, state, rows.slots() * state_size());
  }

  // Without a pool `pool` is null.
  template <typename Params>
  Params Bind(Tensor* pool, Tensor* o, bool qk_l2norm) const {
    Params p;
    p.rows = rows.view();
    p.heads = heads;
    p.io = q.type();
    p.o_type = o->type();
    p.q = q.data();
    p.q_stride = key_stride();
    p.k = k.data();
    p.k_stride = key_stride();
    p.v = v.data();
    p.v_stride = value_stride();
    p.g = g.f32();
    p.beta = beta.f32();
    p.scale = 1.0f / std::sqrt(static_cast<float>(heads.key_dim));
    p.qk_l2norm = qk_l2norm;
    if (pool != nullptr) p.ssm = {pool->data(), pool->type(), state_size()};
    p.o = o->data();
    p.o_stride = value_stride();
    return p;
  }

  RowSet rows;
  Heads heads;
  Tensor q, k, v, g, beta;
};

struct ConvShape {
  std::vector<int64_t> lengths;
  int64_t channels;
  int width;
};

inline std::ostream& operator<<(std::ostream& out, const ConvShape& s) {
  out << "lengths";
  for (int64_t length : s.lengths) out << ' ' << length;
  return out << ", channels " << s.channels << ", W " << s.width;
}

// The last has so many channels that one thread takes several rows of them.
inline std::vector<ConvShape> ConvShapes() {
  return {
      {{1}, 256, 4},         {{1, 2, 3, 4}, 512, 4},   {{300}, 640, 4},
      {{0, 5, 129}, 320, 3}, {{64, 1, 0, 33}, 384, 2}, {{65, 16, 2}, 1100, 4},  // no multiple of 8
      {{193, 17}, 37, 3},    {{15, 128}, 2056, 2},     {{1, 2, 0, 150, 3, 1, 67, 2, 5}, 8225, 4}};
}

// Shapes for the one-token form: the same channels, a row of one token for each row.
inline std::vector<ConvShape> ConvUpdateShapes() {
  std::vector<ConvShape> shapes = ConvShapes();
  for (ConvShape& s : shapes) std::fill(s.lengths.begin(), s.lengths.end(), 1);
  return shapes;
}

// Operands of the convolution. Weights are rounded to io, as a checkpoint's are.
struct ConvInputs {
  ConvInputs(uint64_t seed, const ConvShape& shape, DType io)
      : rows(shape.lengths), channels(shape.channels), width(shape.width) {
    Rng rng(seed);
    x = Tensor::Normal(rng, io, rows.tokens() * channels);
    weight = Rounded(Tensor::Normal(rng, io, channels * width, 0.5f));
    bias = Rounded(Tensor::Normal(rng, io, channels, 0.5f));
    pool = Tensor::Normal(rng, io, rows.slots() * slot_stride());
  }

  int64_t slot_stride() const { return (width - 1) * channels; }

  template <typename Params>
  Params Bind(Tensor* conv, Tensor* y, bool with_bias) const {
    Params p;
    p.rows = rows.view();
    p.channels = channels;
    p.width = width;
    p.io = x.type();
    p.activation = Activation::kSilu;
    p.x = x.data();
    p.x_stride = channels;
    p.weight = weight.f32();
    p.bias = with_bias ? bias.f32() : nullptr;
    p.conv = {conv->data(), conv->type(), slot_stride()};
    p.y = y->data();
    p.y_stride = channels;
    return p;
  }

  static Tensor Rounded(const Tensor& t) {
    Tensor widened(DType::kFp32, t.size());
    for (int64_t i = 0; i < t.size(); ++i) widened.set(i, t[i]);
    return widened;
  }

  RowSet rows;
  int64_t channels;
  int width;
  Tensor x, weight, bias, pool;
};

}  // namespace gdn::test
