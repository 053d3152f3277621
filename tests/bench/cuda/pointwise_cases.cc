#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/causal_conv1d.h"
#include "kernels/cuda/fused_gdn_gating.h"
#include "kernels/cuda/rmsnorm_gated.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/random.h"
#include "tests/bench/cuda/reference.h"
#include "tests/bench/cuda/rows.h"

namespace gdn::bench {
namespace {

constexpr int kDim = 128;  // K and V
constexpr int kWidth = 4;
constexpr int kKeyHeads = 16;
constexpr int kValueHeads = 32;
constexpr int64_t kTokens = 8192;
constexpr int64_t kConvDim = (2 * kKeyHeads + kValueHeads) * kDim;
constexpr int64_t kValueSize = int64_t{kValueHeads} * kDim;
constexpr int64_t kInput = kConvDim + kValueSize + 2 * kValueHeads;  // of a token
constexpr DType kIo = DType::kBf16;
constexpr int kSets = 3;  // of inputs, each larger than the cache

// One sequence of kTokens tokens, as the merged projection leaves it: [tokens, q | k | v | z | b |
// a]
class Pointwise {
 public:
  Pointwise()
      : input_(Normal(kIo, kSets * kTokens * kInput, 1.0f, 1)),
        conv_(Normal(kIo, (kWidth - 1) * kConvDim, 1.0f, 2)),
        conv_weight_(Normal(DType::kFp32, kConvDim * kWidth, 0.5f, 3)),
        a_log_(Normal(DType::kFp32, kValueHeads, 1.0f, 4)),
        dt_bias_(Normal(DType::kFp32, kValueHeads, 1.0f, 5)),
        norm_(Normal(DType::kFp32, kDim, 1.0f, 6)),
        o_(Normal(kIo, kSets * kTokens * kValueSize, 1.0f, 7)),
        y_(kTokens * kConvDim * SizeOf(kIo)),
        g_(kTokens * kValueHeads * sizeof(float)),
        beta_(kTokens * kValueHeads * sizeof(float)),
        rows_({kTokens}),
        wide_(Widen(input_.bytes(), kIo, kTokens * kInput)) {}

  CausalConv1dFnParams Conv(int set) const {
    CausalConv1dFnParams p;
    p.rows = rows_.rows();
    p.channels = kConvDim;
    p.width = kWidth;
    p.io = kIo;
    p.activation = Activation::kSilu;
    p.x = Token(set);
    p.x_stride = kInput;
    p.weight = conv_weight_.as<float>();
    p.conv = {conv_.bytes(), kIo, (kWidth - 1) * kConvDim};
    p.y = y_.bytes();
    p.y_stride = kConvDim;
    return p;
  }

  FusedGdnGatingParams Gating(int set) const {
    const uint16_t* b = Token(set) + kConvDim + kValueSize;
    return {.tokens = kTokens,
            .value_heads = kValueHeads,
            .io = kIo,
            .a = b + kValueHeads,
            .a_stride = kInput,
            .b = b,
            .b_stride = kInput,
            .a_log = a_log_.as<float>(),
            .dt_bias = dt_bias_.as<float>(),
            .g = g_.as<float>(),
            .beta = beta_.as<float>()};
  }

  // In place, as the prefill runs it.
  RmsNormGatedParams Norm(int set) const {
    uint16_t* o = o_.as<uint16_t>() + set * kTokens * kValueSize;
    return {.tokens = kTokens,
            .value_heads = kValueHeads,
            .value_dim = kDim,
            .x_type = kIo,
            .io = kIo,
            .x = o,
            .x_stride = kValueSize,
            .z = Token(set) + kConvDim,
            .z_stride = kInput,
            .weight = norm_.as<float>(),
            .y = o,
            .y_stride = kValueSize};
  }

  cudaError_t RunConv(int set, cudaStream_t stream) const {
    return cuda::CausalConv1dFn(Conv(set), rows_.chunks(), stream);
  }

  double ConvError() const;
  double GatingError() const;
  double NormError() const;

 private:
  const uint16_t* Token(int set) const { return input_.as<uint16_t>() + set * kTokens * kInput; }

  Buffer input_, conv_, conv_weight_, a_log_, dt_bias_, norm_, o_, y_, g_, beta_;
  DeviceRows rows_;
  Buffer wide_;  // the first set as doubles
};

double Pointwise::ConvError() const {
  const Buffer history = Widen(conv_.bytes(), kIo, (kWidth - 1) * kConvDim);
  const Buffer y(kTokens * kConvDim * sizeof(double));
  Reference(ConvReference{.rows = 1,
                          .length = kTokens,
                          .channels = kConvDim,
                          .width = kWidth,
                          .x = wide_.as<double>(),
                          .x_stride = kInput,
                          .weight = conv_weight_.as<float>(),
                          .history = history.as<double>(),
                          .y = y.as<double>()});
  Check(RunConv(0, nullptr), "convolution");
  Check(cudaDeviceSynchronize(), "convolution");
  return RelativeRms(Widen(y_.bytes(), kIo, kTokens * kConvDim).as<double>(), y.as<double>(),
                     kTokens * kConvDim);
}

double Pointwise::GatingError() const {
  constexpr int64_t kGates = kTokens * kValueHeads;
  const Buffer g(kGates * sizeof(double));
  const Buffer beta(kGates * sizeof(double));
  const double* b = wide_.as<double>() + kConvDim + kValueSize;
  Reference(GatingReference{.tokens = kTokens,
                            .value_heads = kValueHeads,
                            .a = b + kValueHeads,
                            .b = b,
                            .stride = kInput,
                            .a_log = a_log_.as<float>(),
                            .dt_bias = dt_bias_.as<float>(),
                            .g = g.as<double>(),
                            .beta = beta.as<double>()});
  Check(cuda::FusedGdnGating(Gating(0), nullptr), "gating");
  Check(cudaDeviceSynchronize(), "gating");
  const auto error = [](const Buffer& x, const Buffer& reference) {
    return RelativeRms(Widen(x.bytes(), DType::kFp32, kGates).as<double>(), reference.as<double>(),
                       kGates);
  };
  return std::hypot(error(g_, g), error(beta_, beta));
}

double Pointwise::NormError() const {
  constexpr int64_t kValues = kTokens * kValueSize;
  const Buffer o = Widen(o_.bytes(), kIo, kValues);
  Reference(NormReference{.tokens = kTokens,
                          .value_heads = kValueHeads,
                          .z = wide_.as<double>() + kConvDim,
                          .z_stride = kInput,
                          .weight = norm_.as<float>(),
                          .o = o.as<double>()});
  Check(cuda::RmsNormGated(Norm(0), nullptr), "gated norm");
  Check(cudaDeviceSynchronize(), "gated norm");
  return RelativeRms(Widen(o_.bytes(), kIo, kValues).as<double>(), o.as<double>(), kValues);
}

void Run(const Report& report, const std::string& name, double bytes_a_token, double error,
         const Launch& launch) {
  Result result;
  result.output_error = error;
  result.bytes = bytes_a_token * kTokens;
  result.micros =
      MicrosPerCall(4 * kSets, [&](int i, cudaStream_t s) { return launch(i % kSets, s); });
  report.Line(name, result);
}

}  // namespace

void PointwiseCases(const Report& report) {
  const std::string conv = "causal_conv1d_fn 8192";
  const std::string gating = "fused_gdn_gating 8192";
  const std::string norm = "rmsnorm_gated 8192";
  if (!report.Wants(conv) && !report.Wants(gating) && !report.Wants(norm)) return;
  const Pointwise pointwise;
  if (report.Wants(conv)) {
    Run(report, conv, 4.0 * kConvDim, pointwise.ConvError(),
        [&](int set, cudaStream_t stream) { return pointwise.RunConv(set, stream); });
  }
  if (report.Wants(gating)) {
    Run(report, gating, 12.0 * kValueHeads, pointwise.GatingError(),
        [&](int set, cudaStream_t stream) {
          return cuda::FusedGdnGating(pointwise.Gating(set), stream);
        });
  }
  if (report.Wants(norm)) {
    Run(report, norm, 6.0 * kValueSize, pointwise.NormError(), [&](int set, cudaStream_t stream) {
      return cuda::RmsNormGated(pointwise.Norm(set), stream);
    });
  }
}

}  // namespace gdn::bench
