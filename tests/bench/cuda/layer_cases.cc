// Whole layers by the backend's own pipeline, hidden states in and out: hidden 2048, 16/32 heads,
// bf16, fp32 state. `layer` is everything that a step does on the device but the copies from and to
// the host, `step` is with these, from pinned memory and to it, one after the other; small ones
// fetch and send by themselves, as in the backend where no other is before them. A prefill's layer
// stands beside the time of its GEMMs and of the delta rule alone.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/backend/fetch_list.h"
#include "kernels/cuda/backend/layer_pipeline.h"
#include "kernels/cuda/backend/memory.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/device.h"
#include "tests/bench/cuda/layer_parts.h"
#include "tests/bench/cuda/random.h"
#include "tests/bench/cuda/rows.h"

namespace gdn::bench {
namespace {

constexpr int kLayers = 5;  // that calls rotate over: 340 MB of weights

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

cuda::Memory Pinned(size_t bytes) {
  absl::StatusOr<cuda::Memory> memory = cuda::Memory::Make(cuda::Memory::Place::kPinned, bytes);
  Check(memory.status());
  return *std::move(memory);
}

BackendShape ShapeFor(int64_t rows, int64_t tokens) {
  BackendShape shape;
  shape.geometry = {
      .hidden_size = 2048, .key_heads = 16, .value_heads = 32, .key_dim = 128, .value_dim = 128};
  shape.io = DType::kBf16;
  shape.layers = kLayers;
  shape.slots = static_cast<int>(rows);
  shape.max_rows = rows;
  shape.max_tokens = tokens;
  shape.max_decode_tokens = 1;
  return shape;
}

// Weights and pools of one layer.
struct Layer {
  Layer(const BackendShape& s, uint64_t seed)
      : in(Normal(s.io, s.geometry.in_proj_size() * s.geometry.hidden_size, 0.02f, seed)),
        out(Normal(s.io, s.geometry.hidden_size * s.geometry.value_size(), 0.02f, seed + 1)),
        conv_weight(Normal(DType::kFp32, s.geometry.conv_dim() * 4, 0.5f, seed + 2)),
        a_log(Normal(DType::kFp32, s.geometry.value_heads, 1.0f, seed + 3)),
        dt_bias(Normal(DType::kFp32, s.geometry.value_heads, 1.0f, seed + 4)),
        norm(Normal(DType::kFp32, s.geometry.value_dim, 1.0f, seed + 5)),
        ssm(Normal(s.state, s.slots * s.geometry.ssm_elements(), 0.1f, seed + 6)),
        conv(Normal(s.io, s.slots * s.geometry.conv_elements(), 1.0f, seed + 7)),
        answers(static_cast<size_t>(s.slots) * s.answer_row_bytes()) {
    weights.in_proj = in.bytes();
    weights.out_proj = out.bytes();
    weights.conv_weight = conv_weight.as<float>();
    weights.a_log = a_log.as<float>();
    weights.dt_bias = dt_bias.as<float>();
    weights.norm = norm.as<float>();
    pools.ssm = {ssm.bytes(), s.state, s.geometry.ssm_elements()};
    pools.conv = {conv.bytes(), s.io, s.geometry.conv_elements()};
    pools.answers = answers.bytes();
    pools.answer_stride = static_cast<int64_t>(s.answer_row_bytes());
  }

  Buffer in, out, conv_weight, a_log, dt_bias, norm, ssm, conv, answers;
  cuda::DeviceLayer weights;
  cuda::LayerPools pools;
};

// Steps at kLayers layers in turn: a token for each of `rows` rows, or one row of `tokens`.
class Layers {
 public:
  Layers(int64_t rows, int64_t tokens)
      : shape_(ShapeFor(rows, tokens)),
        step_({.form = rows == tokens ? cuda::RowForm::kSingle : cuda::RowForm::kAny,
               .rows = rows,
               .tokens = tokens,
               .longest = tokens / rows}),
        rows_(std::vector<int64_t>(static_cast<size_t>(rows), tokens / rows)) {
    if (step_.form == cuda::RowForm::kAny) step_.chunks = rows_.chunks().count;
    for (int i = 0; i < kLayers; ++i) layers_.emplace_back(shape_, 100 + 10 * i);
    auto pipeline = cuda::LayerPipeline::Make(shape_);
    Check(pipeline.status());
    pipeline_ = *std::move(pipeline);
    answer_ = Buffer(static_cast<size_t>(tokens) * shape_.answer_row_bytes());
    faults_ = Pinned(static_cast<size_t>(rows) * sizeof(uint32_t));
    out_ = Pinned(answer_.size());
    whole_ = step_;
    whole_.by_kernels = IsSmall(shape_, step_);
    block_ = MakeBlock(step_);
    whole_block_ = MakeBlock(whole_);
    in_ = Pinned(whole_block_.size());
    bench::Check(cudaMemcpy(in_.data(), whole_block_.bytes(), in_.size(), cudaMemcpyDefault),
                 "block");
    if (whole_.by_kernels) PrepareToFetch();
  }

  // Of weights and states, read and where they are states also written.
  double BytesMoved() const {
    const Geometry& g = shape_.geometry;
    const double states =
        static_cast<double>(g.ssm_elements()) * 4.0 + static_cast<double>(g.conv_elements()) * 2.0;
    return 2.0 * g.hidden_size * static_cast<double>(g.in_proj_size() + g.value_size()) +
           2.0 * static_cast<double>(step_.rows) * states;
  }

  // The block in, the layer, faults and answer out.
  cudaError_t LaunchStep(int i, cudaStream_t stream) {
    const cuda::StepMemory memory = {whole_block_.bytes(), answer_.bytes(), pieces(),
                                     reinterpret_cast<uint32_t*>(faults_.data())};
    if (whole_.by_kernels) return Launch(i, whole_, memory, stream);
    const auto copy = [&](std::byte* to, const std::byte* from, size_t bytes) {
      errors_.Add("copy", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    };
    copy(memory.block, in_.data(), in_.size());
    Launch(i, whole_, memory, stream);
    copy(faults_.data(), memory.block + cuda::StepBlock(shape_, whole_).faults, faults_.size());
    copy(out_.data(), answer_.bytes(), out_.size());
    return cudaSuccess;
  }

  cudaError_t Launch(int i, cudaStream_t stream) {
    return Launch(i, step_, {block_.bytes(), answer_.bytes()}, stream);
  }

 private:
  cudaError_t Launch(int i, const cuda::StepShape& step, const cuda::StepMemory& memory,
                     cudaStream_t stream) {
    const Layer& layer = layers_[static_cast<size_t>(i % kLayers)];
    pipeline_->Enqueue(layer.weights, layer.pools, step, memory, stream, errors_);
    Check(errors_.status());
    return cudaSuccess;
  }

  cuda::FetchPiece* pieces() const { return reinterpret_cast<cuda::FetchPiece*>(pieces_.data()); }

  // All of the block, and where the answers go.
  void PrepareToFetch() {
    const cuda::StepBlock at(shape_, whole_);
    pieces_ = Pinned(at.fetch_pieces * sizeof(cuda::FetchPiece));
    std::memset(pieces_.data(), 0, pieces_.size());
    cuda::FetchList list({pieces(), at.fetch_pieces});
    list.Clear(at.fetch_pieces);
    list.Add(in_.data(), whole_block_.bytes(), in_.size());
    const size_t row_bytes = OutputRowBytes(shape_.geometry, whole_.layout, shape_.io);
    auto* to = reinterpret_cast<std::byte**>(in_.data() + at.answers_to);
    for (int64_t row = 0; row < whole_.rows; ++row) {
      to[row] = out_.data() + static_cast<size_t>(row) * row_bytes;
    }
  }

  // Row i has slot i; decodes go on from a state, prefills begin.
  Buffer MakeBlock(const cuda::StepShape& step) const {
    const cuda::StepBlock at(shape_, step);
    std::vector<std::byte> host(at.bytes);
    auto* slots = reinterpret_cast<int32_t*>(host.data() + at.slots);
    const bool decode = step_.form == cuda::RowForm::kSingle;
    for (int64_t row = 0; row < step_.rows; ++row) {
      slots[row] = static_cast<int32_t>(row);
      host[at.has_state + static_cast<size_t>(row)] = std::byte{decode};
    }
    Buffer block = ToDevice(host);
    const auto copy = [&](size_t to, const void* from, size_t bytes) {
      bench::Check(cudaMemcpy(block.bytes() + to, from, bytes, cudaMemcpyDeviceToDevice), "copy");
    };
    const Buffer hidden = Normal(shape_.io, step_.tokens * shape_.geometry.hidden_size, 1.0f, 1);
    copy(at.input, hidden.bytes(), hidden.size());
    if (decode) return block;
    const size_t offsets = static_cast<size_t>(step_.rows + 1) * sizeof(int64_t);
    copy(at.offsets, rows_.rows().offsets, offsets);
    copy(at.chunk_offsets, rows_.chunks().chunk_offsets, offsets);
    copy(at.chunk_indices, rows_.chunks().chunk_indices,
         static_cast<size_t>(step_.chunks) * 2 * sizeof(int64_t));
    return block;
  }

  BackendShape shape_;
  cuda::StepShape step_, whole_;  // without and with the copies
  DeviceRows rows_;
  std::vector<Layer> layers_;
  std::unique_ptr<cuda::LayerPipeline> pipeline_;
  Buffer block_, whole_block_;
  Buffer answer_;
  cuda::Memory in_, pieces_, faults_, out_;  // on the host: the block, and what comes back
  cuda::Errors errors_;
};

void Run(const Report& report, const std::string& kind, int64_t rows, int64_t tokens) {
  const std::string size = kind + " " + std::to_string(tokens);
  if (!report.Wants("layer " + size) && !report.Wants("step " + size)) return;
  Layers layers(rows, tokens);
  Result result;
  const bool decode = rows == tokens;
  if (decode) result.bytes = layers.BytesMoved();
  double parts = 0;
  if (!decode && report.Wants("layer " + size)) {
    parts = MicrosOfParts(report, "layer " + size, ShapeFor(1, tokens).geometry, tokens);
  }
  const auto time = [&](const std::string& name, cudaError_t (Layers::*launch)(int, cudaStream_t)) {
    if (!report.Wants(name)) return;
    result.micros = MicrosPerCall(
        4 * kLayers, [&](int i, cudaStream_t stream) { return (layers.*launch)(i, stream); });
    if (parts > 0) result.ratio = result.micros / parts;
    report.Line(name, result);
  };
  time("layer " + size, &Layers::Launch);
  parts = 0;
  time("step " + size, &Layers::LaunchStep);
}

}  // namespace

void LayerCases(const Report& report) {
  for (int64_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 256}) Run(report, "decode", rows, rows);
  for (int64_t tokens : {1024, 8192}) Run(report, "prefill", 1, tokens);
}

}  // namespace gdn::bench
