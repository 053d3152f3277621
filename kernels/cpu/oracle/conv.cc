#include <vector>

#include "kernels/cpu/oracle/access.h"
#include "kernels/cpu/oracle/math.h"
#include "kernels/cpu/oracle/ops.h"

namespace gdn::oracle {
namespace {

// Inputs of one channel of a row: the W - 1 of its history, then those of its tokens.
std::vector<double> Inputs(const CausalConv1dParams& p, int64_t row, int64_t begin, int64_t end,
                           int64_t channel) {
  std::vector<double> x(p.width - 1, 0.0);
  if (p.conv.data != nullptr && p.rows.has_state(row)) {
    const int64_t base = p.rows.slot(row) * p.conv.slot_stride + channel;
    for (int j = 0; j < p.width - 1; ++j) {
      x[j] = Load(p.conv.data, p.conv.type, base + j * p.channels);
    }
  }
  for (int64_t t = begin; t < end; ++t) x.push_back(Load(p.x, p.io, t * p.x_stride + channel));
  return x;
}

// y[t] = activation(bias + sum over j of weight[j] * x[t + j]), x beginning with the history.
void ConvolveChannel(const CausalConv1dParams& p, int64_t row, int64_t begin, int64_t end,
                     int64_t channel) {
  const std::vector<double> x = Inputs(p, row, begin, end, channel);
  for (int64_t t = begin; t < end; ++t) {
    double sum = p.bias == nullptr ? 0.0 : p.bias[channel];
    for (int j = 0; j < p.width; ++j) {
      sum += static_cast<double>(p.weight[channel * p.width + j]) * x[t - begin + j];
    }
    Store(p.y, p.io, t * p.y_stride + channel, static_cast<float>(Activate(p.activation, sum)));
  }
  if (p.conv.data == nullptr) return;
  const int64_t base = p.rows.slot(row) * p.conv.slot_stride + channel;
  for (int j = 0; j < p.width - 1; ++j) {
    Store(p.conv.data, p.conv.type, base + j * p.channels, static_cast<float>(x[end - begin + j]));
  }
}

void ConvolveRow(const CausalConv1dParams& p, int64_t row, int64_t begin, int64_t end) {
  if (begin == end) return;
  if (p.rows.slot(row) < 0) {
    for (int64_t t = begin; t < end; ++t) StoreZeros(p.y, p.io, t * p.y_stride, p.channels);
    return;
  }
  for (int64_t c = 0; c < p.channels; ++c) ConvolveChannel(p, row, begin, end, c);
}

}  // namespace

void CausalConv1dFn(const CausalConv1dFnParams& p) {
  for (int64_t row = 0; row < p.rows.count; ++row) {
    ConvolveRow(p, row, p.rows.offsets[row], p.rows.offsets[row + 1]);
  }
}

void CausalConv1dUpdate(const CausalConv1dUpdateParams& p) {
  for (int64_t row = 0; row < p.rows.count; ++row) ConvolveRow(p, row, row, row + 1);
}

}  // namespace gdn::oracle
