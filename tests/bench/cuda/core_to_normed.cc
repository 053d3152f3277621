#include "tests/bench/cuda/core_to_normed.h"

#include <string>

#include "kernels/cuda/ops/chunk_gated_delta_rule.h"
#include "kernels/cuda/ops/fused_conv_gating.h"
#include "kernels/cuda/ops/rmsnorm_gated.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/random.h"
#include "tests/bench/cuda/reference.h"

namespace gdn::bench {
namespace {

constexpr int kSets = 2;  // of inputs, each larger than the cache
using In = PrefillInputs;

void Run(const Report& report, int64_t rows, int64_t length) {
  const std::string name =
      "core-to-normed 16/32 " + std::to_string(rows) + "x" + std::to_string(length);
  if (!report.Wants(name)) return;
  const CoreToNormed chain(rows, length);
  Result result;
  result.output_error = chain.Error();
  result.micros = MicrosPerCall(
      chain.calls(), [&](int i, cudaStream_t stream) { return chain.Launch(i, stream); });
  const double core = MicrosPerCall(
      chain.calls(), [&](int i, cudaStream_t stream) { return chain.LaunchCore(i, stream); });
  report.Line(name + ": core", {.micros = core});
  result.ratio = result.micros / core;
  report.Line(name, result);
}

}  // namespace

CoreToNormed::CoreToNormed(int64_t rows, int64_t length)
    : inputs_(rows, length, kSets),
      workspace_(cuda::ChunkGatedDeltaRuleWorkspaceBytes(inputs_.Rule(0), inputs_.tokens(),
                                                         inputs_.chunks().count)) {}

cudaError_t CoreToNormed::Launch(int call, cudaStream_t stream) const {
  const int set = call % inputs_.sets();
  const FusedConvGatingParams before = {inputs_.Conv(set), inputs_.Gating(set)};
  cudaError_t error = cuda::FusedConvGating(before, inputs_.chunks(), stream);
  if (error == cudaSuccess) error = LaunchCore(call, stream);
  if (error == cudaSuccess) error = cuda::RmsNormGated(inputs_.Norm(set), stream);
  return error;
}

cudaError_t CoreToNormed::LaunchCore(int call, cudaStream_t stream) const {
  return cuda::ChunkGatedDeltaRule(inputs_.Rule(call % inputs_.sets()), inputs_.chunks(),
                                   inputs_.tokens(), workspace_.bytes(), stream);
}

double CoreToNormed::Error() const {
  const CausalConv1dFnParams conv = inputs_.Conv(0);
  const FusedGdnGatingParams gating = inputs_.Gating(0);
  const ChunkGatedDeltaRuleParams rule = inputs_.Rule(0);
  const RmsNormGatedParams norm = inputs_.Norm(0);
  const int64_t tokens = inputs_.tokens();
  const int64_t rows = conv.rows.count;
  const Buffer input = Widen(conv.x, In::kIo, tokens * In::kInput);
  const Buffer history = Widen(conv.conv.data, In::kIo, rows * In::kConvState);
  const Buffer state = Widen(rule.ssm.data, DType::kFp32, rows * In::kSsmState);
  const Buffer qkv(tokens * In::kConvDim * sizeof(double));
  const Buffer g(tokens * In::kValueHeads * sizeof(double));
  const Buffer beta(tokens * In::kValueHeads * sizeof(double));
  const Buffer o(tokens * In::kValueSize * sizeof(double));
  const double* z = input.as<double>() + In::kConvDim;
  const double* b = z + In::kValueSize;
  Reference(ConvReference{.rows = rows,
                          .length = tokens / rows,
                          .channels = conv.channels,
                          .width = conv.width,
                          .x = input.as<double>(),
                          .x_stride = In::kInput,
                          .weight = conv.weight,
                          .history = history.as<double>(),
                          .y = qkv.as<double>()});
  Reference(GatingReference{.tokens = tokens,
                            .value_heads = In::kValueHeads,
                            .a = b + In::kValueHeads,
                            .b = b,
                            .stride = In::kInput,
                            .a_log = gating.a_log,
                            .dt_bias = gating.dt_bias,
                            .g = g.as<double>(),
                            .beta = beta.as<double>()});
  Reference(DeltaReference{.rows = rows,
                           .tokens = tokens,
                           .offsets = rule.rows.offsets,
                           .heads = rule.heads,
                           .q = qkv.as<double>(),
                           .k = qkv.as<double>() + In::kKeySize,
                           .v = qkv.as<double>() + 2 * In::kKeySize,
                           .qk_stride = In::kConvDim,
                           .v_stride = In::kConvDim,
                           .g = g.as<double>(),
                           .beta = beta.as<double>(),
                           .scale = rule.scale,
                           .state = state.as<double>(),
                           .o = o.as<double>()});
  Reference(NormReference{.tokens = tokens,
                          .value_heads = In::kValueHeads,
                          .z = z,
                          .z_stride = In::kInput,
                          .weight = norm.weight,
                          .o = o.as<double>()});
  Check(Launch(0, nullptr), "prefill");
  Check(cudaDeviceSynchronize(), "prefill");
  const int64_t values = tokens * In::kValueSize;
  return RelativeRms(Widen(norm.y, In::kIo, values).as<double>(), o.as<double>(), values);
}

void CoreToNormedCases(const Report& report) {
  Run(report, 1, 1024);
  Run(report, 1, 8192);
  Run(report, 4, 8192);
}

}  // namespace gdn::bench
