#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/ops/chunk_gated_delta_rule.h"
#include "kernels/cuda/prefill/chunk_sm90.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/random.h"
#include "tests/bench/cuda/reference.h"
#include "tests/bench/cuda/rows.h"

namespace gdn::bench {
namespace {

constexpr int kDim = 128;  // K and V
constexpr DType kIo = DType::kBf16;
constexpr size_t kColdBytes = size_t{256} << 20;  // that the calls of a graph rotate over

using Lengths = std::vector<int64_t>;

Lengths Equal(int rows, int64_t length) { return Lengths(rows, length); }

std::string Name(const Heads& heads, const Lengths& lengths) {
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const bool equal = lengths.front() * static_cast<int64_t>(lengths.size()) == tokens;
  return "prefill " + std::to_string(heads.key_heads) + "/" + std::to_string(heads.value_heads) +
         (equal
              ? " " + std::to_string(lengths.size()) + "x" + std::to_string(lengths.front())
              : " ragged " + std::to_string(lengths.size()) + " (" + std::to_string(tokens) + ")");
}

// g = -exp(a_log) * softplus(a + dt_bias) as trained layers start: exp(a_log) uniform in (0, 16).
std::vector<float> LogDecays(int64_t tokens, int value_heads, std::mt19937& random) {
  std::uniform_real_distribution<float> rate(0.0f, 16.0f);
  std::normal_distribution<float> normal;
  std::vector<float> rates(value_heads);
  std::vector<float> g(tokens * value_heads);
  for (float& r : rates) r = rate(random);
  for (size_t i = 0; i < g.size(); ++i) {
    g[i] = -rates[i % value_heads] * std::log1p(std::exp(normal(random) - 4.0f));
  }
  return g;
}

std::vector<float> Betas(int64_t n, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> beta(n);
  for (float& b : beta) b = 1.0f / (1.0f + std::exp(-normal(random)));
  return beta;
}

// One set of inputs and the states they run on.
struct Inputs {
  Inputs(const Heads& h, int64_t rows, int64_t tokens, unsigned seed) {
    std::mt19937 random(seed);
    const int64_t states = rows * h.value_heads * kDim * kDim;
    q = Normal(kIo, tokens * h.key_heads * kDim, 1.0f, 4 * seed);
    k = Normal(kIo, tokens * h.key_heads * kDim, 1.0f, 4 * seed + 1);
    v = Normal(kIo, tokens * h.value_heads * kDim, 1.0f, 4 * seed + 2);
    ssm = Normal(DType::kFp32, states, 0.1f, 4 * seed + 3);
    g = ToDevice(LogDecays(tokens, h.value_heads, random));
    beta = ToDevice(Betas(tokens * h.value_heads, random));
    o = Buffer(tokens * h.value_heads * kDim * SizeOf(kIo));
  }

  size_t bytes() const {
    return q.size() + k.size() + v.size() + g.size() + beta.size() + o.size() + 2 * ssm.size();
  }

  Buffer q, k, v, ssm, g, beta, o;
};

class Prefill {
 public:
  Prefill(const Heads& heads, const Lengths& lengths)
      : heads_(heads), device_rows_(lengths), tokens_(device_rows_.tokens()) {
    rows_ = device_rows_.rows().count;
    do {
      inputs_.emplace_back(heads, rows_, tokens_, static_cast<unsigned>(inputs_.size()) + 1);
    } while (inputs_.size() * inputs_[0].bytes() < kColdBytes);
    workspace_ =
        Buffer(cuda::ChunkGatedDeltaRuleWorkspaceBytes(Params(0), tokens_, chunks().count));
  }

  int sets() const { return static_cast<int>(inputs_.size()); }
  Chunks chunks() const { return device_rows_.chunks(); }

  ChunkGatedDeltaRuleParams Params(int set) const {
    const Inputs& in = inputs_[set];
    ChunkGatedDeltaRuleParams p;
    p.rows = device_rows_.rows();
    p.heads = heads_;
    p.io = p.o_type = kIo;
    p.q = in.q.bytes();
    p.k = in.k.bytes();
    p.v = in.v.bytes();
    p.q_stride = p.k_stride = int64_t{heads_.key_heads} * kDim;
    p.v_stride = p.o_stride = int64_t{heads_.value_heads} * kDim;
    p.g = in.g.as<float>();
    p.beta = in.beta.as<float>();
    p.scale = 1.0f / std::sqrt(static_cast<float>(kDim));
    p.qk_l2norm = true;
    p.ssm = {in.ssm.bytes(), DType::kFp32, state_elements()};
    p.o = in.o.bytes();
    return p;
  }

  cudaError_t Launch(int set, cudaStream_t stream) const {
    return cuda::ChunkGatedDeltaRule(Params(set), chunks(), tokens_, workspace_.bytes(), stream);
  }

  // On `sms` SMs.
  cuda::ChunkSm90Params StepParams(int set, int sms) const {
    return {Params(set),
            chunks(),
            cuda::ChunkSm90Workspace(heads_, chunks().count, workspace_.bytes()),
            {.lead_chunks = chunks().count,
             .lead_blocks = sms,
             .item_heads = 2,
             .chain_clusters = rows_ * heads_.value_heads}};
  }

  // Runs the first set and the reference on the same inputs.
  void CheckFirstSet(Result& result) const {
    const ChunkGatedDeltaRuleParams p = Params(0);
    const int64_t keys = tokens_ * heads_.key_heads * kDim;
    const int64_t values = tokens_ * heads_.value_heads * kDim;
    const Buffer q = Widen(p.q, kIo, keys);
    const Buffer k = Widen(p.k, kIo, keys);
    const Buffer v = Widen(p.v, kIo, values);
    const Buffer g = Widen(p.g, DType::kFp32, tokens_ * heads_.value_heads);
    const Buffer beta = Widen(p.beta, DType::kFp32, tokens_ * heads_.value_heads);
    const Buffer state = Widen(p.ssm.data, DType::kFp32, rows_ * state_elements());
    const Buffer expected(values * sizeof(double));
    Reference(DeltaReference{.rows = rows_,
                             .tokens = tokens_,
                             .offsets = p.rows.offsets,
                             .heads = heads_,
                             .q = q.as<double>(),
                             .k = k.as<double>(),
                             .v = v.as<double>(),
                             .qk_stride = p.q_stride,
                             .v_stride = p.v_stride,
                             .g = g.as<double>(),
                             .beta = beta.as<double>(),
                             .scale = 1.0 / std::sqrt(double{kDim}),
                             .state = state.as<double>(),
                             .o = expected.as<double>()});
    Check(Launch(0, nullptr), "prefill");
    Check(cudaDeviceSynchronize(), "prefill");
    result.output_error =
        RelativeRms(Widen(p.o, kIo, values).as<double>(), expected.as<double>(), values);
    const Buffer after = Widen(p.ssm.data, DType::kFp32, rows_ * state_elements());
    result.state_error =
        RelativeRms(after.as<double>(), state.as<double>(), rows_ * state_elements());
  }

 private:
  int64_t state_elements() const { return int64_t{heads_.value_heads} * kDim * kDim; }

  Heads heads_;
  DeviceRows device_rows_;
  int64_t tokens_;
  int64_t rows_ = 0;
  std::vector<Inputs> inputs_;
  Buffer workspace_;
};

void Run(const Report& report, int key_heads, int value_heads, const Lengths& lengths) {
  const Heads heads{key_heads, value_heads, kDim, kDim};
  const std::string name = Name(heads, lengths);
  if (!report.Wants(name)) return;
  const Prefill prefill(heads, lengths);
  Result result;
  prefill.CheckFirstSet(result);
  result.micros = MicrosPerCall(std::max(8, prefill.sets()), [&](int i, cudaStream_t stream) {
    return prefill.Launch(i % prefill.sets(), stream);
  });
  report.Line(name, result);
}

// The steps one by one on the whole device, the chain on what prepare has left in the workspace.
void RunSteps(const Report& report) {
  const Heads heads{16, 32, kDim, kDim};
  const std::string name = Name(heads, {8192}) + " ";
  const std::vector<std::pair<const char*, decltype(&cuda::ChunkChainSm90)>> steps = {
      {"prepare", &cuda::ChunkPrepareSm90}, {"chain", &cuda::ChunkChainSm90}};
  const bool wanted = std::any_of(steps.begin(), steps.end(),
                                  [&](const auto& s) { return report.Wants(name + s.first); });
  if (!wanted) return;
  const Prefill prefill(heads, {8192});
  int sms;
  Check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0), "SMs");
  for (const auto& [step, launch] : steps) {
    const double micros = MicrosPerCall(8, [&, launch = launch](int i, cudaStream_t stream) {
      return launch(prefill.StepParams(i % prefill.sets(), sms), stream);
    });
    if (report.Wants(name + step)) report.Line(name + step, {.micros = micros});
  }
}

}  // namespace

void PrefillCases(const Report& report) {
  Run(report, 16, 32, {1024});
  Run(report, 16, 32, {8192});
  Run(report, 16, 32, {4096, 1, 700, 64, 63, 2500, 30, 738});
  if (!report.quick()) {
    Run(report, 16, 32, {32768});
    Run(report, 16, 32, {131072});
    Run(report, 16, 32, Equal(4, 8192));
    Run(report, 16, 32, Equal(8, 1024));
    Run(report, 16, 32, Equal(128, 64));
    Run(report, 2, 8, {8192});
    Run(report, 2, 8, {32768});
    Run(report, 4, 16, {32768});
    Run(report, 16, 64, {8192});
    Run(report, 16, 64, Equal(4, 8192));
    Run(report, 16, 48, Equal(4, 8192));
  }
  RunSteps(report);
}

}  // namespace gdn::bench
