#include "kernels/cpu/oracle/layer.h"

#include <cmath>

#include "kernels/cpu/oracle/access.h"
#include "kernels/cpu/oracle/math.h"
#include "kernels/ops/operands.h"

namespace gdn::oracle {
namespace {

using Kind = InputTensor::Kind;

std::vector<double> Widen(const TensorView& t) {
  if (t.empty()) return {};
  return LoadVector(t.data, t.type, 0, t.elements());
}

// y = w x, w [y.size(), x.size()]
std::vector<double> Multiply(std::span<const double> w, std::span<const double> x) {
  std::vector<double> y(w.size() / x.size(), 0.0);
  for (size_t i = 0; i < y.size(); ++i) {
    for (size_t j = 0; j < x.size(); ++j) y[i] += w[i * x.size() + j] * x[j];
  }
  return y;
}

}  // namespace

// What a token brings; beta and g are those of the delta rule, z is empty where there is none.
struct Layer::Token {
  std::vector<double> hidden, mixed, z, b, a, beta, g;

  std::vector<double>& of(Kind kind) {
    switch (kind) {
      case Kind::kHidden:
        return hidden;
      case Kind::kMixedQkv:
        return mixed;
      case Kind::kZ:
        return z;
      case Kind::kB:
        return b;
      case Kind::kA:
        return a;
      case Kind::kBeta:
        return beta;
      case Kind::kG:
        break;
    }
    return g;
  }
};

Layer::Layer(const Geometry& geometry, const LayerWeights& w, DType io)
    : g_(geometry),
      io_(io),
      in_proj_(Widen(w.in_proj)),
      out_proj_(Widen(w.out_proj)),
      conv_weight_(Widen(w.conv_weight)),
      conv_bias_(Widen(w.conv_bias)),
      a_log_(Widen(w.a_log)),
      dt_bias_(Widen(w.dt_bias)),
      norm_(Widen(w.norm)) {}

LayerState Layer::EmptyState() const {
  return {std::vector<double>(g_.ssm_elements(), 0.0),
          std::vector<double>(g_.conv_elements(), 0.0)};
}

Layer::Token Layer::Split(InputLayout layout, std::span<const std::byte> input, int64_t tokens,
                          int64_t token) const {
  Token t;
  const std::byte* tensor = input.data();
  for (const InputTensor& in : InputTensors(g_, layout, io_)) {
    t.of(in.kind) = LoadVector(tensor, in.type, token * in.width, in.width);
    tensor += in.row_bytes() * tokens;
  }
  if (layout != InputLayout::kHidden) return t;
  return Project(t.hidden);
}

// q | k | v | z | b | a = in_proj · hidden
Layer::Token Layer::Project(std::span<const double> hidden) const {
  const std::vector<double> projected = Multiply(in_proj_, hidden);
  Token t;
  auto next = projected.begin();
  for (const InputTensor& in : InputTensors(g_, InputLayout::kQkvZBA, io_)) {
    t.of(in.kind).assign(next, next + in.width);
    next += in.width;
  }
  return t;
}

std::vector<double> Layer::Convolve(std::span<const double> mixed, LayerState& state) const {
  const int64_t dim = g_.conv_dim();
  const int width = g_.conv_width;
  if (width == 0) return {mixed.begin(), mixed.end()};
  state.conv.insert(state.conv.end(), mixed.begin(), mixed.end());
  std::vector<double> y(dim);
  for (int64_t c = 0; c < dim; ++c) {
    double sum = conv_bias_.empty() ? 0.0 : conv_bias_[c];
    for (int j = 0; j < width; ++j) sum += conv_weight_[c * width + j] * state.conv[j * dim + c];
    y[c] = Activate(g_.conv_activation, sum);
  }
  state.conv.erase(state.conv.begin(), state.conv.begin() + dim);
  return y;
}

std::vector<double> Layer::Recur(const Token& token, std::vector<double> qkv,
                                 LayerState& state) const {
  const std::span<double> all(qkv);
  if (g_.qk_l2norm) {
    for (int h = 0; h < 2 * g_.key_heads; ++h) {
      L2Normalise(all.subspan(int64_t{h} * g_.key_dim, g_.key_dim), kL2NormEps);
    }
  }
  std::vector<double> o(g_.value_size());
  const int64_t elements = int64_t{g_.value_dim} * g_.key_dim;
  for (int h = 0; h < g_.value_heads; ++h) {
    const int64_t key = int64_t{h / g_.group()} * g_.key_dim;
    const int64_t value = int64_t{h} * g_.value_dim;
    DeltaStep(std::span(state.ssm).subspan(h * elements, elements), all.subspan(key, g_.key_dim),
              all.subspan(g_.key_size() + key, g_.key_dim),
              all.subspan(2 * g_.key_size() + value, g_.value_dim), token.g[h], token.beta[h],
              g_.scale(), std::span(o).subspan(value, g_.value_dim));
  }
  return o;
}

void Layer::NormAndGate(std::span<const double> z, std::span<double> o) const {
  const size_t dim = norm_.size();
  for (size_t begin = 0; begin < o.size(); begin += dim) {
    const double mean = SumOfSquares(o.subspan(begin, dim)) / static_cast<double>(dim);
    const double factor = 1.0 / std::sqrt(mean + g_.norm_eps);
    for (size_t i = 0; i < dim; ++i) {
      o[begin + i] *= factor * norm_[i] * ApplyGate(g_.gate, z[begin + i]);
    }
  }
}

std::vector<double> Layer::Run(InputLayout layout, std::span<const std::byte> input,
                               LayerState& state) const {
  const int64_t tokens = static_cast<int64_t>(input.size() / InputRowBytes(g_, layout, io_));
  std::vector<double> out;
  for (int64_t i = 0; i < tokens; ++i) {
    Token token = Split(layout, input, tokens, i);
    for (size_t h = 0; h < token.a.size(); ++h) {
      token.beta.push_back(Sigmoid(token.b[h]));
      token.g.push_back(LogDecay(token.a[h], a_log_[h], dt_bias_[h]));
    }
    std::vector<double> o = Recur(token, Convolve(token.mixed, state), state);
    if (!token.z.empty()) NormAndGate(token.z, o);
    if (layout == InputLayout::kHidden) o = Multiply(out_proj_, o);
    out.insert(out.end(), o.begin(), o.end());
  }
  return out;
}

}  // namespace gdn::oracle
