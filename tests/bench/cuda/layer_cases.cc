// Whole layers as chains of ops, hidden states in and out: hidden 2048, 16/32 heads, bf16, fp32
// state. Each op is checked in its own cases.
#include <cublasLt.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/cuda/causal_conv1d.h"
#include "kernels/cuda/chunk_gated_delta_rule.h"
#include "kernels/cuda/fused_gdn_decode.h"
#include "kernels/cuda/fused_gdn_gating.h"
#include "kernels/cuda/rmsnorm_gated.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/random.h"
#include "tests/bench/cuda/rows.h"

namespace gdn::bench {
namespace {

constexpr int kDim = 128;  // K and V
constexpr int kWidth = 4;
constexpr Heads kHeads = {16, 32, kDim, kDim};
constexpr DType kIo = DType::kBf16;
constexpr int64_t kHidden = 2048;
constexpr int64_t kKeySize = int64_t{16} * kDim;
constexpr int64_t kValueSize = int64_t{32} * kDim;
constexpr int64_t kConvDim = 2 * kKeySize + kValueSize;
constexpr int64_t kInput = kConvDim + kValueSize + 2 * 32;  // q | k | v | z | b | a of a token
constexpr int64_t kSsmElements = kValueSize * kDim;
constexpr int64_t kConvElements = (kWidth - 1) * kConvDim;
constexpr int kLayers = 5;  // that calls rotate over: 340 MB of weights

void CheckBlas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s: %s\n", what, cublasLtGetStatusString(status));
  std::exit(1);
}

// y = x · wᵀ for one shape, by the algorithm that cuBLASLt puts first.
class Projection {
 public:
  // Tokens of x and y are `in` and `out` elements apart.
  Projection(int64_t tokens, int64_t in, int64_t out) : workspace_(size_t{32} << 20) {
    CheckBlas(cublasLtCreate(&handle_), "cuBLASLt");
    CheckBlas(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    CheckBlas(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                             sizeof transposed),
              "product");
    // Columns first, as cuBLAS has it: yᵀ [out, tokens] = (wᵀ [in, out])ᵀ · xᵀ [in, tokens].
    CheckBlas(cublasLtMatrixLayoutCreate(&w_, CUDA_R_16BF, in, out, in), "layout");
    CheckBlas(cublasLtMatrixLayoutCreate(&x_, CUDA_R_16BF, in, tokens, in), "layout");
    CheckBlas(cublasLtMatrixLayoutCreate(&y_, CUDA_R_16BF, out, tokens, out), "layout");
    cublasLtMatmulPreference_t preference = nullptr;
    const size_t bytes = workspace_.size();
    CheckBlas(cublasLtMatmulPreferenceCreate(&preference), "preference");
    CheckBlas(cublasLtMatmulPreferenceSetAttribute(
                  preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes),
              "preference");
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    CheckBlas(cublasLtMatmulAlgoGetHeuristic(handle_, product_, w_, x_, y_, y_, preference, 1,
                                             &best, &found),
              "algorithm");
    CheckBlas(found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED, "algorithm");
    algorithm_ = best.algo;
    cublasLtMatmulPreferenceDestroy(preference);
  }
  Projection(const Projection&) = delete;
  Projection& operator=(const Projection&) = delete;
  ~Projection() {
    cublasLtMatrixLayoutDestroy(y_);
    cublasLtMatrixLayoutDestroy(x_);
    cublasLtMatrixLayoutDestroy(w_);
    cublasLtMatmulDescDestroy(product_);
    cublasLtDestroy(handle_);
  }

  void Run(const Buffer& x, const Buffer& w, const Buffer& y, cudaStream_t stream) const {
    const float one = 1.0f;
    const float zero = 0.0f;
    CheckBlas(
        cublasLtMatmul(handle_, product_, &one, w.bytes(), w_, x.bytes(), x_, &zero, y.bytes(), y_,
                       y.bytes(), y_, &algorithm_, workspace_.bytes(), workspace_.size(), stream),
        "projection");
  }

 private:
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr;
  cublasLtMatrixLayout_t x_ = nullptr;
  cublasLtMatrixLayout_t y_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_ = {};
  Buffer workspace_;
};

// Weights and states of one layer.
struct Layer {
  Layer(int64_t slots, uint64_t seed)
      : in(Normal(kIo, kInput * kHidden, 0.02f, seed)),
        out(Normal(kIo, kHidden * kValueSize, 0.02f, seed + 1)),
        conv_weight(Normal(DType::kFp32, kConvDim * kWidth, 0.5f, seed + 2)),
        a_log(Normal(DType::kFp32, 32, 1.0f, seed + 3)),
        dt_bias(Normal(DType::kFp32, 32, 1.0f, seed + 4)),
        norm(Normal(DType::kFp32, kDim, 1.0f, seed + 5)),
        ssm(Normal(DType::kFp32, slots * kSsmElements, 0.1f, seed + 6)),
        conv(Normal(kIo, slots * kConvElements, 1.0f, seed + 7)) {}

  StatePool ssm_pool() const { return {ssm.bytes(), DType::kFp32, kSsmElements}; }
  StatePool conv_pool() const { return {conv.bytes(), kIo, kConvElements}; }

  Buffer in, out, conv_weight, a_log, dt_bias, norm, ssm, conv;
};

// Steps of `rows` at kLayers layers in turn, and what they need.
class Layers {
 public:
  Layers(const std::vector<int64_t>& lengths, bool decode)
      : rows_(lengths),
        decode_(decode),
        tokens_(rows_.tokens()),
        in_(tokens_, kHidden, kInput),
        out_(tokens_, kValueSize, kHidden),
        hidden_(Normal(kIo, tokens_ * kHidden, 1.0f, 1)),
        projected_(tokens_ * kInput * SizeOf(kIo)),
        convolved_(decode ? 0 : tokens_ * kConvDim * SizeOf(kIo)),
        g_(tokens_ * 32 * sizeof(float)),
        beta_(tokens_ * 32 * sizeof(float)),
        o_(tokens_ * kValueSize * SizeOf(kIo)),
        answer_(tokens_ * kHidden * SizeOf(kIo)),
        empty_(ToDevice(std::vector<uint8_t>(lengths.size()))),
        faults_(ToDevice(std::vector<uint32_t>(lengths.size()))) {
    for (int i = 0; i < kLayers; ++i) layers_.emplace_back(rows_.rows().count, 100 + 10 * i);
    if (!decode) {
      workspace_ = Buffer(
          cuda::ChunkGatedDeltaRuleWorkspaceBytes(Rule(layers_[0]), tokens_, rows_.chunks().count));
    }
  }

  // Of weights and states, read and where they are states also written.
  double BytesMoved() const {
    const double states = kSsmElements * 4.0 + kConvElements * 2.0;
    return 2.0 * kHidden * (kInput + kValueSize) +
           2.0 * static_cast<double>(rows_.rows().count) * states;
  }

  cudaError_t Launch(int i, cudaStream_t stream) const {
    const Layer& layer = layers_[i % kLayers];
    in_.Run(hidden_, layer.in, projected_, stream);
    const cudaError_t error =
        decode_ ? cuda::FusedGdnDecode(Decode(layer), stream) : Prefill(layer, stream);
    out_.Run(o_, layer.out, answer_, stream);
    return error;
  }

 private:
  const uint16_t* Projected(int64_t column) const { return projected_.as<uint16_t>() + column; }

  FusedGdnDecodeParams Decode(const Layer& layer) const {
    FusedGdnDecodeParams p;
    p.rows.count = rows_.rows().count;
    p.heads = kHeads;
    p.scale = 1.0f / std::sqrt(static_cast<float>(kDim));
    p.mixed_qkv = Projected(0);
    p.z = Projected(kConvDim);
    p.b = Projected(kConvDim + kValueSize);
    p.a = Projected(kConvDim + kValueSize + 32);
    p.mixed_stride = p.z_stride = p.ba_stride = kInput;
    p.conv_weight = layer.conv_weight.as<float>();
    p.a_log = layer.a_log.as<float>();
    p.dt_bias = layer.dt_bias.as<float>();
    p.norm_weight = layer.norm.as<float>();
    p.conv = layer.conv_pool();
    p.ssm = layer.ssm_pool();
    p.o = o_.bytes();
    p.o_stride = kValueSize;
    p.faults = faults_.as<uint32_t>();
    return p;
  }

  Rows EmptyRows() const {
    Rows rows = rows_.rows();
    rows.has_initial_state = empty_.as<uint8_t>();
    return rows;
  }

  CausalConv1dFnParams Conv(const Layer& layer) const {
    CausalConv1dFnParams p;
    p.rows = EmptyRows();
    p.channels = kConvDim;
    p.width = kWidth;
    p.io = kIo;
    p.activation = Activation::kSilu;
    p.x = Projected(0);
    p.x_stride = kInput;
    p.weight = layer.conv_weight.as<float>();
    p.conv = layer.conv_pool();
    p.y = convolved_.bytes();
    p.y_stride = kConvDim;
    return p;
  }

  ChunkGatedDeltaRuleParams Rule(const Layer& layer) const {
    ChunkGatedDeltaRuleParams p;
    p.rows = EmptyRows();
    p.heads = kHeads;
    p.io = p.o_type = kIo;
    p.q = convolved_.as<uint16_t>();
    p.k = convolved_.as<uint16_t>() + kKeySize;
    p.v = convolved_.as<uint16_t>() + 2 * kKeySize;
    p.q_stride = p.k_stride = p.v_stride = kConvDim;
    p.g = g_.as<float>();
    p.beta = beta_.as<float>();
    p.scale = 1.0f / std::sqrt(static_cast<float>(kDim));
    p.qk_l2norm = true;
    p.ssm = layer.ssm_pool();
    p.o = o_.bytes();
    p.o_stride = kValueSize;
    return p;
  }

  cudaError_t Prefill(const Layer& layer, cudaStream_t stream) const {
    cudaError_t error = cuda::CausalConv1dFn(Conv(layer), rows_.chunks(), stream);
    if (error != cudaSuccess) return error;
    error = cuda::FusedGdnGating({.tokens = tokens_,
                                  .value_heads = kHeads.value_heads,
                                  .io = kIo,
                                  .a = Projected(kConvDim + kValueSize + 32),
                                  .a_stride = kInput,
                                  .b = Projected(kConvDim + kValueSize),
                                  .b_stride = kInput,
                                  .a_log = layer.a_log.as<float>(),
                                  .dt_bias = layer.dt_bias.as<float>(),
                                  .g = g_.as<float>(),
                                  .beta = beta_.as<float>()},
                                 stream);
    if (error != cudaSuccess) return error;
    error =
        cuda::ChunkGatedDeltaRule(Rule(layer), rows_.chunks(), tokens_, workspace_.bytes(), stream);
    if (error != cudaSuccess) return error;
    return cuda::RmsNormGated({.tokens = tokens_,
                               .value_heads = kHeads.value_heads,
                               .value_dim = kDim,
                               .x_type = kIo,
                               .io = kIo,
                               .x = o_.bytes(),
                               .x_stride = kValueSize,
                               .z = Projected(kConvDim),
                               .z_stride = kInput,
                               .weight = layer.norm.as<float>(),
                               .y = o_.bytes(),
                               .y_stride = kValueSize},
                              stream);
  }

  DeviceRows rows_;
  bool decode_;
  int64_t tokens_;
  Projection in_, out_;
  Buffer hidden_, projected_, convolved_, g_, beta_, o_, answer_, empty_, faults_, workspace_;
  std::vector<Layer> layers_;
};

void Run(const Report& report, const std::string& kind, int64_t n) {
  const std::string name = "layer " + kind + " " + std::to_string(n);
  if (!report.Wants(name)) return;
  const bool decode = kind == "decode";
  const Layers layers(decode ? std::vector<int64_t>(n, 1) : std::vector<int64_t>{n}, decode);
  Result result;
  result.micros = MicrosPerCall(
      4 * kLayers, [&](int i, cudaStream_t stream) { return layers.Launch(i, stream); });
  if (decode) result.bytes = layers.BytesMoved();
  report.Line(name, result);
}

}  // namespace

void LayerCases(const Report& report) {
  for (int64_t rows : {1, 8, 32, 128, 256}) Run(report, "decode", rows);
  for (int64_t tokens : {1024, 8192}) Run(report, "prefill", tokens);
}

}  // namespace gdn::bench
