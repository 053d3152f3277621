// A whole layer in double, without rounding anywhere between its input and its output.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/layout.h"
#include "kernels/weights.h"

namespace gdn::oracle {

// State of one sequence at one layer.
struct LayerState {
  std::vector<double> ssm;   // [HV, V, K]
  std::vector<double> conv;  // [W - 1, conv_dim], oldest first
};

class Layer {
 public:
  // Copies the weights.
  Layer(const Geometry& geometry, const LayerWeights& weights, DType io);

  LayerState EmptyState() const;

  // Folds the tokens of one row into `state`. `input` is the row's tensors of `layout` one after
  // another, as on the wire. Returns [tokens, output width].
  std::vector<double> Run(InputLayout layout, std::span<const std::byte> input,
                          LayerState& state) const;

 private:
  struct Token;

  Token Split(InputLayout layout, std::span<const std::byte> input, int64_t tokens,
              int64_t token) const;
  Token Project(std::span<const double> hidden) const;
  std::vector<double> Convolve(std::span<const double> mixed, LayerState& state) const;
  std::vector<double> Recur(const Token& token, std::vector<double> qkv, LayerState& state) const;
  void NormAndGate(std::span<const double> z, std::span<double> o) const;

  Geometry g_;
  DType io_;
  std::vector<double> in_proj_, out_proj_, conv_weight_, conv_bias_, a_log_, dt_bias_, norm_;
};

}  // namespace gdn::oracle
