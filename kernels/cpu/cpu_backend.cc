#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/delta_rule.h"
#include "kernels/cpu/gather.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/matrix.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/token_tile.h"
#include "kernels/validate.h"

namespace gdn {
namespace cpu {
namespace {

using Kind = InputTensor::Kind;

// Weights of one layer, in the backend's own memory.
struct Layer {
  Memory in_proj;
  Memory out_proj;
  std::vector<float> conv_weight;
  std::vector<float> conv_bias;
  std::vector<float> a_log;
  std::vector<float> dt_bias;
  std::vector<float> norm;
};

std::vector<float> Floats(const TensorView& t) {
  if (t.empty()) return {};
  return {t.as<float>(), t.as<float>() + t.elements()};
}

const float* DataOrNull(const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); }

// A tensor of the io type, [tokens, …].
struct Strided {
  const std::byte* data = nullptr;
  int64_t stride = 0;
};

// What a tile's tokens bring to the core: from the input or from the projection.
struct CoreInput {
  Strided mixed;
  Strided z;  // null: o is neither normed nor gated
  Strided b;
  Strided a;
  const float* beta = nullptr;  // null: to be made from b and a
  const float* g = nullptr;
};

// Scratch for one tile.
struct Buffers {
  Memory projected;  // [tokens, in_proj_size] io
  Memory convolved;  // [tokens, conv_dim] io
  Memory beta;       // [tokens, HV] fp32
  Memory g;          // [tokens, HV] fp32
  Memory o;          // [tokens, HV, V] fp32
  Memory core;       // [tokens, HV * V] io
  Memory output;     // [tokens, hidden] io

  Buffers(const BackendShape& shape, int64_t tokens) {
    const Geometry& g = shape.geometry;
    const auto room = [tokens](int64_t width, size_t size) {
      return Memory(static_cast<size_t>(tokens * width) * size);
    };
    const size_t io = SizeOf(shape.io);
    if (shape.projections) {
      projected = room(g.in_proj_size(), io);
      output = room(g.hidden_size, io);
    }
    convolved = room(g.conv_dim(), io);
    beta = room(g.value_heads, sizeof(float));
    this->g = room(g.value_heads, sizeof(float));
    o = room(g.value_size(), sizeof(float));
    core = room(g.value_size(), io);
  }
};

class CpuBackend : public Backend {
 public:
  CpuBackend(const BackendShape& shape, int threads);

  std::string_view name() const override { return "cpu"; }
  absl::Status LoadLayer(int layer, const LayerWeights& weights) override;
  int depth() const override { return 1; }
  absl::Status Begin(const Batch& batch) override;
  absl::Status End(std::span<RowFault> faults) override;
  absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) override;

 private:
  void CheckInput(const Batch& batch, std::span<RowFault> faults);
  void RunTile(const Batch& batch, std::span<RowFault> faults);

  CoreInput FromStage() const;
  CoreInput ProjectIn(const Layer& layer);
  Strided Convolve(const Layer& layer, int index, Strided mixed);
  void Gates(const Layer& layer, CoreInput& in);
  void DeltaRule(int index, Strided qkv, const CoreInput& in);
  void NormAndGate(const Layer& layer, Strided z);
  std::byte* ProjectOut(const Layer& layer);
  void CopyOut(const Batch& batch, std::span<const RowFault> faults, std::byte* output);

  void MarkOverflow(const void* x, DType type, int64_t width, std::span<RowFault> faults);
  std::byte* Answer(int layer, int32_t slot) const;

  BackendShape shape_;
  Geometry g_;
  int threads_;
  int64_t capacity_;  // tokens of a tile
  Memory ssm_;        // [layer][slot][HV][V][K]
  Memory conv_;       // [layer][slot][W-1][conv_dim]
  Memory answers_;    // [layer][slot][max_decode_tokens][answer row]
  std::unique_ptr<MatrixProduct> in_proj_;
  std::unique_ptr<MatrixProduct> out_proj_;
  std::vector<Layer> layers_;
  InputStage stage_;
  TokenTile tile_;
  Buffers buffers_;
  std::vector<RowFault> faults_;  // of the batch begun
};

// Of a tile: a multiple of the chunk, so that staged tensors begin on cache lines.
int64_t Capacity(int64_t max_tokens) {
  return std::min<int64_t>(kMaxProductRows, (max_tokens + kChunk - 1) / kChunk * kChunk);
}

size_t PoolBytes(const BackendShape& shape, size_t slot_bytes) {
  return static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.slots) * slot_bytes;
}

CpuBackend::CpuBackend(const BackendShape& shape, int threads)
    : shape_(shape),
      g_(shape.geometry),
      threads_(threads),
      capacity_(Capacity(shape.max_tokens)),
      ssm_(PoolBytes(shape, static_cast<size_t>(g_.ssm_elements()) * SizeOf(shape.state))),
      conv_(PoolBytes(shape, static_cast<size_t>(g_.conv_elements()) * SizeOf(shape.io))),
      answers_(PoolBytes(shape,
                         static_cast<size_t>(shape.max_decode_tokens) * shape.answer_row_bytes())),
      layers_(static_cast<size_t>(shape.layers)),
      stage_(shape, capacity_),
      buffers_(shape, capacity_) {
  if (!shape.projections) return;
  UseThreads(threads_);
  in_proj_ =
      std::make_unique<MatrixProduct>(shape.io, g_.in_proj_size(), g_.hidden_size, capacity_);
  out_proj_ = std::make_unique<MatrixProduct>(shape.io, g_.hidden_size, g_.value_size(), capacity_);
}

absl::Status CpuBackend::LoadLayer(int layer, const LayerWeights& weights) {
  if (layer < 0 || layer >= shape_.layers) {
    return absl::InvalidArgumentError("no such layer");
  }
  if (absl::Status status = Validate(weights, shape_); !status.ok()) return status;
  UseThreads(threads_);
  Layer& to = layers_[static_cast<size_t>(layer)];
  if (shape_.projections) {
    to.in_proj = in_proj_->Pack(weights.in_proj.data);
    to.out_proj = out_proj_->Pack(weights.out_proj.data);
  }
  to.conv_weight = Floats(weights.conv_weight);
  to.conv_bias = Floats(weights.conv_bias);
  to.a_log = Floats(weights.a_log);
  to.dt_bias = Floats(weights.dt_bias);
  to.norm = Floats(weights.norm);
  return absl::OkStatus();
}

// Does it all: the thread that would wait is the one that computes.
absl::Status CpuBackend::Begin(const Batch& batch) {
  UseThreads(threads_);
  faults_.assign(static_cast<size_t>(batch.rows()), RowFault::kNone);
  CheckInput(batch, faults_);
  const int64_t tokens = batch.tokens();
  for (int64_t begin = 0; begin < tokens; begin += capacity_) {
    const int64_t end = std::min(tokens, begin + capacity_);
    if (tokens > capacity_) stage_.Load(batch, begin, end);
    tile_.Cut(batch, faults_, begin, end);
    RunTile(batch, faults_);
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::End(std::span<RowFault> faults) {
  std::copy(faults_.begin(), faults_.end(), faults.begin());
  return absl::OkStatus();
}

// Marks the rows with NaN or infinity anywhere in their input. Leaves the last tile staged.
void CpuBackend::CheckInput(const Batch& batch, std::span<RowFault> faults) {
  for (int64_t begin = 0; begin < batch.tokens(); begin += capacity_) {
    const int64_t end = std::min(batch.tokens(), begin + capacity_);
    stage_.Load(batch, begin, end);
    tile_.Cut(batch, faults, begin, end);
    const Rows rows = tile_.rows();
    for (int64_t row = 0; row < rows.count; ++row) {
      for (int64_t t = rows.offsets[row]; t < rows.offsets[row + 1] && rows.slot(row) >= 0; ++t) {
        if (!stage_.finite(t)) faults[tile_.batch_row(row)] = RowFault::kNonFiniteInput;
      }
    }
  }
}

void CpuBackend::RunTile(const Batch& batch, std::span<RowFault> faults) {
  const Layer& layer = layers_[static_cast<size_t>(batch.layer)];
  const bool hidden = batch.layout == InputLayout::kHidden;
  CoreInput in = hidden ? ProjectIn(layer) : FromStage();
  if (hidden) MarkOverflow(buffers_.projected.data(), shape_.io, g_.in_proj_size(), faults);
  const Strided qkv = Convolve(layer, batch.layer, in.mixed);
  Gates(layer, in);
  DeltaRule(batch.layer, qkv, in);
  NormAndGate(layer, in.z);
  MarkOverflow(buffers_.core.data(), shape_.io, g_.value_size(), faults);
  std::byte* output = buffers_.core.data();
  if (hidden) {
    output = ProjectOut(layer);
    MarkOverflow(output, shape_.io, g_.hidden_size, faults);
  }
  CopyOut(batch, faults, output);
}

// The projected layouts.
CoreInput CpuBackend::FromStage() const {
  const int64_t heads = g_.value_heads;
  CoreInput in = {.mixed = {stage_.tensor(Kind::kMixedQkv), g_.conv_dim()},
                  .z = {stage_.tensor(Kind::kZ), g_.value_size()},
                  .b = {stage_.tensor(Kind::kB), heads},
                  .a = {stage_.tensor(Kind::kA), heads}};
  in.beta = reinterpret_cast<const float*>(stage_.tensor(Kind::kBeta));
  in.g = reinterpret_cast<const float*>(stage_.tensor(Kind::kG));
  return in;
}

// q | k | v | z | b | a = hidden · in_projᵀ
CoreInput CpuBackend::ProjectIn(const Layer& layer) {
  in_proj_->Run(layer.in_proj, stage_.tensor(Kind::kHidden), tile_.tokens(),
                buffers_.projected.data());
  const int64_t stride = g_.in_proj_size();
  const auto at = [&](int64_t column) {
    return Strided{buffers_.projected.data() + column * static_cast<int64_t>(SizeOf(shape_.io)),
                   stride};
  };
  const int64_t b = g_.conv_dim() + g_.value_size();
  return {.mixed = at(0), .z = at(g_.conv_dim()), .b = at(b), .a = at(b + g_.value_heads)};
}

Strided CpuBackend::Convolve(const Layer& layer, int index, Strided mixed) {
  if (g_.conv_width == 0) return mixed;
  CausalConv1dFnParams p;
  p.rows = tile_.rows();
  p.channels = g_.conv_dim();
  p.width = g_.conv_width;
  p.io = shape_.io;
  p.activation = g_.conv_activation;
  p.x = mixed.data;
  p.x_stride = mixed.stride;
  p.weight = layer.conv_weight.data();
  p.bias = DataOrNull(layer.conv_bias);
  p.conv = {conv_.data() + conv_.size() / layers_.size() * static_cast<size_t>(index), shape_.io,
            g_.conv_elements()};
  p.y = buffers_.convolved.data();
  p.y_stride = g_.conv_dim();
  CausalConv1dFn(p);
  return {buffers_.convolved.data(), g_.conv_dim()};
}

void CpuBackend::Gates(const Layer& layer, CoreInput& in) {
  if (in.beta != nullptr) return;
  FusedGdnGating({.tokens = tile_.tokens(),
                  .value_heads = g_.value_heads,
                  .io = shape_.io,
                  .a = in.a.data,
                  .a_stride = in.a.stride,
                  .b = in.b.data,
                  .b_stride = in.b.stride,
                  .a_log = layer.a_log.data(),
                  .dt_bias = layer.dt_bias.data(),
                  .g = buffers_.g.as<float>(),
                  .beta = buffers_.beta.as<float>()});
  in.beta = buffers_.beta.as<float>();
  in.g = buffers_.g.as<float>();
}

// o goes to `core` where nothing follows, and to `o` in fp32 where it is yet to be normed.
void CpuBackend::DeltaRule(int index, Strided qkv, const CoreInput& in) {
  const auto at = [&](int64_t column) {
    return qkv.data + column * static_cast<int64_t>(SizeOf(shape_.io));
  };
  const bool last = in.z.data == nullptr;
  GatedDeltaRule({.rows = tile_.rows(),
                  .heads = {g_.key_heads, g_.value_heads, g_.key_dim, g_.value_dim},
                  .io = shape_.io,
                  .o_type = last ? shape_.io : DType::kFp32,
                  .q = at(0),
                  .q_stride = qkv.stride,
                  .k = at(g_.key_size()),
                  .k_stride = qkv.stride,
                  .v = at(2 * g_.key_size()),
                  .v_stride = qkv.stride,
                  .g = in.g,
                  .beta = in.beta,
                  .scale = g_.scale(),
                  .qk_l2norm = g_.qk_l2norm,
                  .ssm = {ssm_.data() + ssm_.size() / layers_.size() * static_cast<size_t>(index),
                          shape_.state, g_.ssm_elements()},
                  .o = last ? buffers_.core.data() : buffers_.o.data(),
                  .o_stride = g_.value_size()});
}

void CpuBackend::NormAndGate(const Layer& layer, Strided z) {
  if (z.data == nullptr) return;
  RmsNormGated({.tokens = tile_.tokens(),
                .value_heads = g_.value_heads,
                .value_dim = g_.value_dim,
                .x_type = DType::kFp32,
                .io = shape_.io,
                .gate = g_.gate,
                .eps = g_.norm_eps,
                .x = buffers_.o.data(),
                .x_stride = g_.value_size(),
                .z = z.data,
                .z_stride = z.stride,
                .weight = layer.norm.data(),
                .y = buffers_.core.data(),
                .y_stride = g_.value_size()});
}

std::byte* CpuBackend::ProjectOut(const Layer& layer) {
  out_proj_->Run(layer.out_proj, buffers_.core.data(), tile_.tokens(), buffers_.output.data());
  return buffers_.output.data();
}

// Rows of the tile with NaN or infinity in x [tokens, width], whose input was finite.
void CpuBackend::MarkOverflow(const void* x, DType type, int64_t width,
                              std::span<RowFault> faults) {
  const Rows rows = tile_.rows();
  ParallelFor(rows.count, [&](int64_t row) {
    if (rows.slot(row) < 0) return;
    const size_t first = static_cast<size_t>(rows.offsets[row] * width);
    const int64_t n = (rows.offsets[row + 1] - rows.offsets[row]) * width;
    const auto* data = static_cast<const std::byte*>(x) + first * SizeOf(type);
    if (!BestKernels().all_finite(data, type, n)) {
      faults[tile_.batch_row(row)] = RowFault::kOverflow;
    }
  });
}

// The tile's rows to their parts and to the answer pool.
void CpuBackend::CopyOut(const Batch& batch, std::span<const RowFault> faults, std::byte* output) {
  const size_t width = OutputRowBytes(g_, batch.layout, shape_.io);
  const Rows rows = tile_.rows();
  for (int64_t row = 0; row < rows.count; ++row) {
    const int64_t index = tile_.batch_row(row);
    std::byte* from = output + static_cast<size_t>(rows.offsets[row]) * width;
    const size_t bytes = static_cast<size_t>(rows.offsets[row + 1] - rows.offsets[row]) * width;
    if (rows.slot(row) < 0) {
      std::memset(from, 0, bytes);
    } else if (batch.keep_answer[index] != 0 && faults[index] == RowFault::kNone) {
      const int64_t token = tile_.begin() + rows.offsets[row] - batch.offsets[index];
      std::memcpy(Answer(batch.layer, batch.slots[index]) + static_cast<size_t>(token) * width,
                  from, bytes);
    }
  }
  const int64_t end = tile_.begin() + tile_.tokens();
  for (const BatchPart& part : batch.parts) {
    const int64_t first = std::max(tile_.begin(), part.first_token);
    const int64_t last = std::min(end, part.first_token + part.tokens);
    if (part.output == nullptr || first >= last) continue;
    std::memcpy(part.output + static_cast<size_t>(first - part.first_token) * width,
                output + static_cast<size_t>(first - tile_.begin()) * width,
                static_cast<size_t>(last - first) * width);
  }
}

std::byte* CpuBackend::Answer(int layer, int32_t slot) const {
  const size_t per_slot = static_cast<size_t>(shape_.max_decode_tokens) * shape_.answer_row_bytes();
  const size_t index =
      static_cast<size_t>(layer) * static_cast<size_t>(shape_.slots) + static_cast<size_t>(slot);
  return answers_.data() + index * per_slot;
}

absl::Status CpuBackend::ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) {
  std::memcpy(out.data(), Answer(layer, slot), out.size());
  return absl::OkStatus();
}

}  // namespace
}  // namespace cpu

std::unique_ptr<Backend> MakeCpuBackend(const BackendShape& shape, int threads) {
  return std::make_unique<cpu::CpuBackend>(shape, threads);
}

}  // namespace gdn
