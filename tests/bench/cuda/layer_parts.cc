#include "tests/bench/cuda/layer_parts.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/backend/projection.h"
#include "tests/bench/cuda/core_to_normed.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/random.h"

namespace gdn::bench {
namespace {

constexpr int kLayers = 5;  // whose weights the calls rotate over
constexpr DType kIo = DType::kBf16;

// One matrix of each layer and what it is multiplied with.
class Gemm {
 public:
  Gemm(int64_t in, int64_t out, int64_t tokens)
      : x_(Normal(kIo, tokens * in, 1.0f, 1)),
        y_(static_cast<size_t>(tokens * out) * SizeOf(kIo)),
        params_({.tokens = tokens, .in = in, .out = out, .io = kIo}) {
    for (uint64_t i = 0; i < kLayers; ++i) w_.push_back(Normal(kIo, out * in, 0.02f, 2 + i));
    params_.x = x_.bytes();
    params_.x_stride = in;
    params_.y = y_.bytes();
    params_.y_stride = out;
    auto projection = cuda::Projection::Make(kIo, in, out);
    if (!projection.ok()) {
      std::fprintf(stderr, "%s\n", std::string(projection.status().message()).c_str());
      std::exit(1);
    }
    projection_ = *std::move(projection);
  }

  cudaError_t Launch(int layer, cudaStream_t stream) const {
    ProjectionParams p = params_;
    p.w = w_[static_cast<size_t>(layer)].bytes();
    return projection_->Run(p, stream);
  }

 private:
  Buffer x_, y_;
  std::vector<Buffer> w_;
  ProjectionParams params_;
  std::unique_ptr<cuda::Projection> projection_;
};

double MicrosOfGemms(const Geometry& g, int64_t tokens) {
  const Gemm in(g.hidden_size, g.in_proj_size(), tokens);
  const Gemm out(g.value_size(), g.hidden_size, tokens);
  return MicrosPerCall(4 * kLayers, [&](int i, cudaStream_t stream) {
    const cudaError_t error = in.Launch(i % kLayers, stream);
    return error == cudaSuccess ? out.Launch(i % kLayers, stream) : error;
  });
}

double MicrosOfCore(int64_t tokens) {
  const CoreToNormed chain(1, tokens);
  Check(chain.Launch(0, nullptr), "prefill");
  Check(cudaDeviceSynchronize(), "prefill");
  return MicrosPerCall(chain.calls(),
                       [&](int i, cudaStream_t stream) { return chain.LaunchCore(i, stream); });
}

}  // namespace

double MicrosOfParts(const Report& report, const std::string& layer, const Geometry& geometry,
                     int64_t tokens) {
  const double gemms = MicrosOfGemms(geometry, tokens);
  report.Line(layer + ": GEMMs alone", {.micros = gemms});
  const double core = MicrosOfCore(tokens);
  report.Line(layer + ": core alone", {.micros = core});
  return gemms + core;
}

}  // namespace gdn::bench
