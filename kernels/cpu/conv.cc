#include <algorithm>
#include <cstring>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"

namespace gdn::cpu {
namespace {

// Channels [channel, channel + block) of tokens [begin, end), which are row `row`.
void ConvBlock(const CausalConv1dParams& p, int64_t row, int64_t begin, int64_t end,
               int64_t channel) {
  if (begin == end) return;
  const auto at = [&p](const void* data, int64_t i) {
    return static_cast<std::byte*>(const_cast<void*>(data)) + i * int64_t(SizeOf(p.io));
  };
  const int channels = static_cast<int>(std::min<int64_t>(kConvBlock, p.channels - channel));
  std::byte* y = at(p.y, begin * p.y_stride + channel);
  const int64_t slot = p.rows.slot(row);
  if (slot < 0) {
    for (int64_t t = begin; t < end; ++t, y += p.y_stride * SizeOf(p.io)) {
      std::memset(y, 0, channels * SizeOf(p.io));
    }
    return;
  }
  std::byte* state =
      p.conv.data == nullptr ? nullptr : at(p.conv.data, slot * p.conv.slot_stride + channel);
  BestKernels().conv({.tokens = end - begin,
                      .channels = channels,
                      .width = p.width,
                      .io = p.io,
                      .activation = p.activation,
                      .x = at(p.x, begin * p.x_stride + channel),
                      .x_stride = p.x_stride,
                      .weight = p.weight + channel * p.width,
                      .bias = p.bias == nullptr ? nullptr : p.bias + channel,
                      .state = state,
                      .state_stride = p.channels,
                      .load_state = p.rows.has_state(row),
                      .y = y,
                      .y_stride = p.y_stride});
}

}  // namespace

void CausalConv1dFn(const CausalConv1dFnParams& p) {
  const int64_t blocks = (p.channels + kConvBlock - 1) / kConvBlock;
  ParallelFor(p.rows.count * blocks, [&](int64_t i) {
    const int64_t row = i / blocks;
    ConvBlock(p, row, p.rows.offsets[row], p.rows.offsets[row + 1], i % blocks * kConvBlock);
  });
}

void CausalConv1dUpdate(const CausalConv1dUpdateParams& p) {
  const int64_t blocks = (p.channels + kConvBlock - 1) / kConvBlock;
  ParallelFor(p.rows.count * blocks, [&](int64_t i) {
    const int64_t row = i / blocks;
    ConvBlock(p, row, row, row + 1, i % blocks * kConvBlock);
  });
}

}  // namespace gdn::cpu
