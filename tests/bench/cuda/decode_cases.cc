#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/ops/fused_gdn_decode.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/random.h"
#include "tests/bench/cuda/reference.h"

namespace gdn::bench {
namespace {

constexpr int kDim = 128;  // K and V
constexpr int kWidth = 4;
constexpr size_t kColdBytes = size_t{512} << 20;  // of state that the calls of a graph rotate over

struct Case {
  int rows;
  int tokens;  // a row
  int value_heads;
  DType state;

  std::string name() const {
    return "decode 16/" + std::to_string(value_heads) +
           (state == DType::kFp32 ? " fp32 " : " bf16 ") + std::to_string(rows) + " rows" +
           (tokens == 1 ? "" : " of " + std::to_string(tokens));
  }
};

// Pools and inputs of one case: `sets` batches of rows in random slots, their inputs as one merged
// projection leaves them, [tokens, q | k | v | z | b | a].
class Decode {
 public:
  explicit Decode(const Case& c)
      : case_(c),
        heads_{16, c.value_heads, kDim, kDim},
        conv_dim_((2 * 16 + c.value_heads) * kDim),
        value_size_(int64_t{c.value_heads} * kDim),
        width_(conv_dim_ + value_size_ + 2 * c.value_heads),
        ssm_elements_(value_size_ * kDim),
        conv_elements_((kWidth - 1) * conv_dim_),
        sets_(static_cast<int>(std::max<size_t>(2, 1 + kColdBytes / BatchBytes()))),
        tokens_(int64_t{c.rows} * c.tokens) {
    const int64_t slots = int64_t{sets_} * c.rows;
    ssm_ = Normal(c.state, slots * ssm_elements_, 0.1f, 1);
    conv_ = Normal(DType::kBf16, slots * conv_elements_, 1.0f, 2);
    input_ = Normal(DType::kBf16, sets_ * tokens_ * width_, 1.0f, 3);
    output_ = Buffer(sets_ * tokens_ * value_size_ * sizeof(uint16_t));
    conv_weight_ = Normal(DType::kFp32, conv_dim_ * kWidth, 0.5f, 4);
    a_log_ = Normal(DType::kFp32, c.value_heads, 1.0f, 5);
    dt_bias_ = Normal(DType::kFp32, c.value_heads, 1.0f, 6);
    norm_ = Normal(DType::kFp32, kDim, 1.0f, 7);
    faults_ = ToDevice(std::vector<uint32_t>(c.rows));
    std::vector<int32_t> order(slots);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    slots_ = ToDevice(order);
    std::vector<int64_t> offsets(c.rows + 1);
    for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = static_cast<int64_t>(i) * c.tokens;
    offsets_ = ToDevice(offsets);
  }

  int sets() const { return sets_; }

  // State of a batch, read and written once.
  double BatchTraffic() const { return 2.0 * static_cast<double>(BatchBytes()); }

  cudaError_t Launch(int set, cudaStream_t stream) const {
    return cuda::FusedGdnDecode(Params(set), stream);
  }

  // Whether a launch found NaN or infinity.
  bool Faulted() const {
    std::vector<uint32_t> faults(case_.rows);
    Check(cudaMemcpy(faults.data(), faults_.bytes(), faults_.size(), cudaMemcpyDeviceToHost),
          "faults");
    return std::any_of(faults.begin(), faults.end(), [](uint32_t f) { return f != 0; });
  }

  // Runs the first batch and the reference on the same inputs.
  void CheckFirstBatch(Result& result) const;

 private:
  size_t BatchBytes() const {
    return case_.rows * (ssm_elements_ * SizeOf(case_.state) + conv_elements_ * sizeof(uint16_t));
  }

  FusedGdnDecodeParams Params(int set) const;
  Buffer ReferenceOutput(const double* input, double* ssm, double* conv) const;

  Case case_;
  Heads heads_;
  int64_t conv_dim_;
  int64_t value_size_;
  int64_t width_;  // of a token's input
  int64_t ssm_elements_;
  int64_t conv_elements_;
  int sets_;
  int64_t tokens_;  // of a batch
  Buffer ssm_, conv_, input_, output_, conv_weight_, a_log_, dt_bias_, norm_, faults_, slots_,
      offsets_;
};

FusedGdnDecodeParams Decode::Params(int set) const {
  const uint16_t* input = input_.as<uint16_t>() + set * tokens_ * width_;
  FusedGdnDecodeParams p;
  p.rows.count = case_.rows;
  p.rows.offsets = case_.tokens == 1 ? nullptr : offsets_.as<int64_t>();
  p.rows.slots = slots_.as<int32_t>() + int64_t{set} * case_.rows;
  p.heads = heads_;
  p.conv_width = kWidth;
  p.scale = 1.0f / std::sqrt(static_cast<float>(kDim));
  p.mixed_qkv = input;
  p.z = input + conv_dim_;
  p.b = input + conv_dim_ + value_size_;
  p.a = input + conv_dim_ + value_size_ + case_.value_heads;
  p.mixed_stride = p.z_stride = p.ba_stride = width_;
  p.conv_weight = conv_weight_.as<float>();
  p.a_log = a_log_.as<float>();
  p.dt_bias = dt_bias_.as<float>();
  p.norm_weight = norm_.as<float>();
  p.conv = {conv_.bytes(), DType::kBf16, conv_elements_};
  p.ssm = {ssm_.bytes(), case_.state, ssm_elements_};
  p.o = output_.as<uint16_t>() + set * tokens_ * value_size_;
  p.o_stride = value_size_;
  p.faults = faults_.as<uint32_t>();
  return p;
}

// What the first batch is to give, from its input and states; these then hold the new states.
Buffer Decode::ReferenceOutput(const double* input, double* ssm, double* conv) const {
  const int64_t gates = tokens_ * case_.value_heads;
  const Buffer y(tokens_ * conv_dim_ * sizeof(double));
  const Buffer g(gates * sizeof(double));
  const Buffer beta(gates * sizeof(double));
  Buffer o(tokens_ * value_size_ * sizeof(double));
  Reference(ConvReference{.rows = case_.rows,
                          .length = case_.tokens,
                          .channels = conv_dim_,
                          .width = kWidth,
                          .x = input,
                          .x_stride = width_,
                          .weight = conv_weight_.as<float>(),
                          .history = conv,
                          .y = y.as<double>()});
  const double* b = input + conv_dim_ + value_size_;
  Reference(GatingReference{.tokens = tokens_,
                            .value_heads = case_.value_heads,
                            .a = b + case_.value_heads,
                            .b = b,
                            .stride = width_,
                            .a_log = a_log_.as<float>(),
                            .dt_bias = dt_bias_.as<float>(),
                            .g = g.as<double>(),
                            .beta = beta.as<double>()});
  const int64_t key_size = int64_t{heads_.key_heads} * kDim;
  Reference(DeltaReference{.rows = case_.rows,
                           .tokens = tokens_,
                           .offsets = offsets_.as<int64_t>(),
                           .heads = heads_,
                           .q = y.as<double>(),
                           .k = y.as<double>() + key_size,
                           .v = y.as<double>() + 2 * key_size,
                           .qk_stride = conv_dim_,
                           .v_stride = conv_dim_,
                           .g = g.as<double>(),
                           .beta = beta.as<double>(),
                           .scale = 1.0 / std::sqrt(double{kDim}),
                           .state = ssm,
                           .o = o.as<double>()});
  Reference(NormReference{.tokens = tokens_,
                          .value_heads = case_.value_heads,
                          .z = input + conv_dim_,
                          .z_stride = width_,
                          .weight = norm_.as<float>(),
                          .o = o.as<double>()});
  return o;
}

void Decode::CheckFirstBatch(Result& result) const {
  const FusedGdnDecodeParams p = Params(0);
  const auto states = [&](const StatePool& pool, int64_t elements) {
    return GatherStates(pool, p.rows.slots, case_.rows, elements);
  };
  const Buffer ssm = states(p.ssm, ssm_elements_);
  const Buffer conv = states(p.conv, conv_elements_);
  const Buffer input = Widen(input_.bytes(), DType::kBf16, tokens_ * width_);
  const Buffer expected = ReferenceOutput(input.as<double>(), ssm.as<double>(), conv.as<double>());
  Check(Launch(0, nullptr), "decode");
  Check(cudaDeviceSynchronize(), "decode");
  const Buffer o = Widen(p.o, DType::kBf16, tokens_ * value_size_);
  result.output_error = RelativeRms(o.as<double>(), expected.as<double>(), tokens_ * value_size_);
  const auto error = [&](const StatePool& pool, int64_t elements, const Buffer& reference) {
    return RelativeRms(states(pool, elements).as<double>(), reference.as<double>(),
                       case_.rows * elements);
  };
  result.state_error =
      std::hypot(error(p.ssm, ssm_elements_, ssm), error(p.conv, conv_elements_, conv));
}

void Run(const Report& report, const Case& c) {
  if (!report.Wants(c.name())) return;
  const Decode decode(c);
  Result result;
  decode.CheckFirstBatch(result);
  const int calls = std::max(decode.sets(), 16);
  result.micros = MicrosPerCall(
      calls, [&](int i, cudaStream_t stream) { return decode.Launch(i % decode.sets(), stream); });
  result.bytes = decode.BatchTraffic();
  if (decode.Faulted()) result.output_error = std::nan("");
  report.Line(c.name(), result);
}

}  // namespace

void DecodeCases(const Report& report) {
  const std::vector<int> all = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
  const std::vector<int> few = {1, 32, 128};
  for (int rows : report.quick() ? few : all) Run(report, {rows, 1, 32, DType::kFp32});
  for (int rows : few) Run(report, {rows, 1, 32, DType::kBf16});
  for (int rows : few) Run(report, {rows, 1, 48, DType::kFp32});
  for (int rows : few) Run(report, {rows, 1, 64, DType::kFp32});
  for (int rows : few) Run(report, {rows, 4, 32, DType::kFp32});
}

}  // namespace gdn::bench
