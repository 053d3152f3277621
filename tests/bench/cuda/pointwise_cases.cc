#include <cmath>
#include <cstdint>
#include <string>

#include "kernels/cuda/ops/causal_conv1d.h"
#include "kernels/cuda/ops/fused_conv_gating.h"
#include "kernels/cuda/ops/fused_gdn_gating.h"
#include "kernels/cuda/ops/rmsnorm_gated.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/prefill_inputs.h"
#include "tests/bench/cuda/random.h"
#include "tests/bench/cuda/reference.h"

namespace gdn::bench {
namespace {

constexpr int64_t kTokens = 8192;
constexpr int kSets = 3;  // of inputs, each larger than the cache
using In = PrefillInputs;

// Errors of the ops on the first set.
class Errors {
 public:
  explicit Errors(const PrefillInputs& inputs)
      : inputs_(inputs), wide_(Widen(inputs.Conv(0).x, In::kIo, kTokens * In::kInput)) {}

  double Conv() const {
    const CausalConv1dFnParams p = inputs_.Conv(0);
    const Buffer history = Widen(p.conv.data, In::kIo, In::kConvState);
    const Buffer y(kTokens * In::kConvDim * sizeof(double));
    Reference(ConvReference{.rows = 1,
                            .length = kTokens,
                            .channels = p.channels,
                            .width = p.width,
                            .x = wide_.as<double>(),
                            .x_stride = p.x_stride,
                            .weight = p.weight,
                            .history = history.as<double>(),
                            .y = y.as<double>()});
    Check(cuda::CausalConv1dFn(p, inputs_.chunks(), nullptr), "convolution");
    Check(cudaDeviceSynchronize(), "convolution");
    return ErrorOf(p.y, In::kIo, y, kTokens * In::kConvDim);
  }

  double Gating() const {
    constexpr int64_t kGates = kTokens * In::kValueHeads;
    const FusedGdnGatingParams p = inputs_.Gating(0);
    const Buffer g(kGates * sizeof(double));
    const Buffer beta(kGates * sizeof(double));
    const double* b = wide_.as<double>() + In::kConvDim + In::kValueSize;
    Reference(GatingReference{.tokens = kTokens,
                              .value_heads = p.value_heads,
                              .a = b + In::kValueHeads,
                              .b = b,
                              .stride = In::kInput,
                              .a_log = p.a_log,
                              .dt_bias = p.dt_bias,
                              .g = g.as<double>(),
                              .beta = beta.as<double>()});
    Check(cuda::FusedGdnGating(p, nullptr), "gating");
    Check(cudaDeviceSynchronize(), "gating");
    return std::hypot(ErrorOf(p.g, DType::kFp32, g, kGates),
                      ErrorOf(p.beta, DType::kFp32, beta, kGates));
  }

  double Norm() const {
    constexpr int64_t kValues = kTokens * In::kValueSize;
    const RmsNormGatedParams p = inputs_.Norm(0);
    const Buffer o = Widen(p.x, In::kIo, kValues);
    Reference(NormReference{.tokens = kTokens,
                            .value_heads = p.value_heads,
                            .z = wide_.as<double>() + In::kConvDim,
                            .z_stride = p.z_stride,
                            .weight = p.weight,
                            .o = o.as<double>()});
    Check(cuda::RmsNormGated(p, nullptr), "gated norm");
    Check(cudaDeviceSynchronize(), "gated norm");
    return ErrorOf(p.y, In::kIo, o, kValues);
  }

 private:
  static double ErrorOf(const void* x, DType type, const Buffer& reference, int64_t n) {
    return RelativeRms(Widen(x, type, n).as<double>(), reference.as<double>(), n);
  }

  const PrefillInputs& inputs_;
  Buffer wide_;  // the first set as doubles
};

void Run(const Report& report, const std::string& name, int64_t bytes_a_token, double error,
         const Launch& launch) {
  Result result;
  result.output_error = error;
  result.bytes = static_cast<double>(bytes_a_token * kTokens);
  result.micros =
      MicrosPerCall(4 * kSets, [&](int i, cudaStream_t s) { return launch(i % kSets, s); });
  report.Line(name, result);
}

}  // namespace

void PointwiseCases(const Report& report) {
  const std::string conv = "causal_conv1d_fn 8192";
  const std::string gating = "fused_gdn_gating 8192";
  const std::string both = "fused_conv_gating 8192";
  const std::string norm = "rmsnorm_gated 8192";
  constexpr int64_t kConvBytes = 4 * In::kConvDim;
  constexpr int64_t kGatingBytes = 12 * In::kValueHeads;
  constexpr int64_t kNormBytes = 6 * In::kValueSize;
  if (!report.Wants(conv) && !report.Wants(gating) && !report.Wants(both) && !report.Wants(norm)) {
    return;
  }
  const PrefillInputs inputs(1, kTokens, kSets);
  const Errors errors(inputs);
  if (report.Wants(conv)) {
    Run(report, conv, kConvBytes, errors.Conv(), [&](int set, cudaStream_t stream) {
      return cuda::CausalConv1dFn(inputs.Conv(set), inputs.chunks(), stream);
    });
  }
  if (report.Wants(gating)) {
    Run(report, gating, kGatingBytes, errors.Gating(), [&](int set, cudaStream_t stream) {
      return cuda::FusedGdnGating(inputs.Gating(set), stream);
    });
  }
  if (report.Wants(both)) {
    Run(report, both, kConvBytes + kGatingBytes, Result::kUnchecked,
        [&](int set, cudaStream_t stream) {
          return cuda::FusedConvGating({inputs.Conv(set), inputs.Gating(set)}, inputs.chunks(),
                                       stream);
        });
  }
  if (report.Wants(norm)) {
    Run(report, norm, kNormBytes, errors.Norm(),
        [&](int set, cudaStream_t stream) { return cuda::RmsNormGated(inputs.Norm(set), stream); });
  }
}

}  // namespace gdn::bench
