#include "kernels/cuda/backend/layer_pipeline.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/ops/fetch.h"
#include "kernels/cuda/ops/ops.h"
#include "kernels/cuda/ops/step_rows.h"

namespace gdn::cuda {
namespace {

using Kind = InputTensor::Kind;

// Rows of up to so many tokens decode as one kernel: a token and its draft.
constexpr int64_t kMostDecodeTokens = 16;

}  // namespace

struct LayerPipeline::Step {
  const DeviceLayer& layer;
  const LayerPools& pools;
  const StepShape& shape;
  const StepMemory& memory;
  StepBlock at;
  std::byte* core;  // [tokens, HV * V]
  cudaStream_t stream;
  Errors& errors;
  Rows rows;
  Chunks chunks;

  template <typename T>
  T* Of(size_t offset) const {
    return reinterpret_cast<T*>(memory.block + offset);
  }
  const std::byte* tensor(Kind kind) const {
    return memory.block + at.tensor[static_cast<size_t>(kind)];
  }
  uint32_t* faults() const { return Of<uint32_t>(at.faults); }
};

struct LayerPipeline::CoreInput {
  const std::byte* mixed = nullptr;
  int64_t mixed_stride = 0;
  const std::byte* z = nullptr;  // null: o is neither normed nor gated
  int64_t z_stride = 0;
  const std::byte* b = nullptr;
  const std::byte* a = nullptr;
  int64_t ba_stride = 0;
  const float* beta = nullptr;  // null: to be made from b and a
  const float* g = nullptr;
};

LayerPipeline::LayerPipeline(const BackendShape& shape)
    : shape_(shape), g_(shape.geometry), in_stride_((g_.in_proj_size() + 7) / 8 * 8) {
  FusedGdnDecodeParams p;
  p.rows.count = 1;
  p.heads = {g_.key_heads, g_.value_heads, g_.key_dim, g_.value_dim};
  p.conv_width = g_.conv_width;
  p.io = shape.io;
  p.ssm = {&p, shape.state, g_.ssm_elements()};
  p.conv = {&p, shape.io, g_.conv_elements()};
  fused_ = FusedGdnDecodeTakes(p);
}

absl::StatusOr<std::unique_ptr<LayerPipeline>> LayerPipeline::Make(const BackendShape& shape) {
  std::unique_ptr<LayerPipeline> made(new LayerPipeline(shape));
  if (absl::Status status = made->Allocate(); !status.ok()) return status;
  if (!shape.projections) return made;
  const Geometry& g = shape.geometry;
  auto in = Projection::Make(shape.io, g.hidden_size, g.in_proj_size());
  if (!in.ok()) return in.status();
  auto out = Projection::Make(shape.io, g.value_size(), g.hidden_size);
  if (!out.ok()) return out.status();
  made->in_proj_ = *std::move(in);
  made->out_proj_ = *std::move(out);
  return made;
}

absl::Status LayerPipeline::Allocate() {
  const int64_t tokens = shape_.max_tokens;
  const int64_t io = static_cast<int64_t>(SizeOf(shape_.io));
  ChunkGatedDeltaRuleParams rule;
  rule.heads = {g_.key_heads, g_.value_heads, g_.key_dim, g_.value_dim};
  rule.io = rule.o_type = shape_.io;
  rule.ssm.type = shape_.state;
  rule.qk_l2norm = g_.qk_l2norm;
  const int64_t chunks = tokens / kChunk + shape_.max_rows;
  const int64_t gates = tokens * g_.value_heads * static_cast<int64_t>(sizeof(float));
  const int64_t sizes[] = {
      shape_.projections ? tokens * in_stride_ * io : 0,
      tokens * g_.conv_dim() * io,
      gates,
      gates,
      shape_.projections ? tokens * g_.value_size() * io : 0,
      shape_.max_rows * static_cast<int64_t>(sizeof(int32_t)),
      static_cast<int64_t>(ChunkGatedDeltaRuleWorkspaceBytes(rule, tokens, chunks))};
  size_t bytes = 0;
  for (const int64_t size : sizes) bytes += Aligned(static_cast<size_t>(size));
  absl::StatusOr<Memory> memory = Memory::Make(Memory::Place::kDevice, bytes);
  if (!memory.ok()) return memory.status();
  memory_ = *std::move(memory);
  std::byte* at = memory_.data();
  auto take = [&, i = 0]() mutable {
    std::byte* taken = at;
    at += Aligned(static_cast<size_t>(sizes[i++]));
    return taken;
  };
  projected_ = take();
  convolved_ = take();
  beta_ = reinterpret_cast<float*>(take());
  decay_ = reinterpret_cast<float*>(take());
  core_ = take();
  masked_ = reinterpret_cast<int32_t*>(take());
  workspace_ = take();
  return absl::OkStatus();
}

bool LayerPipeline::IsDecode(const StepShape& step) const {
  return fused_ && (step.form == RowForm::kSingle || step.longest <= kMostDecodeTokens);
}

void LayerPipeline::Enqueue(const DeviceLayer& layer, const LayerPools& pools,
                            const StepShape& shape, const StepMemory& memory, cudaStream_t stream,
                            Errors& errors) {
  std::byte* core = shape.layout == InputLayout::kHidden ? core_ : memory.answer;
  Step step = {layer, pools, shape, memory, StepBlock(shape_, shape), core, stream, errors, {}, {}};
  step.rows.count = shape.rows;
  step.rows.slots = step.Of<const int32_t>(step.at.slots);
  step.rows.has_initial_state = step.Of<const uint8_t>(step.at.has_state);
  if (shape.form == RowForm::kAny) {
    step.rows.offsets = step.Of<const int64_t>(step.at.offsets);
    step.chunks = {shape.chunks, step.Of<const int64_t>(step.at.chunk_offsets),
                   step.Of<const int64_t>(step.at.chunk_indices),
                   step.Of<const int64_t>(step.at.longest_first),
                   (shape.longest + kChunk - 1) / kChunk};
  }
  if (step.at.fetch_pieces > 0) FetchBlock(step);
  if (IsDecode(shape)) {
    Decode(step);
  } else {
    step.rows.slots = masked_;
    Prefill(step);
  }
}

// The projection follows, and then the kernel that looks at its rows ahead of time.
void LayerPipeline::FetchBlock(const Step& step) {
  const bool ahead = Projection::WaitsFirst(InProjection(step));
  step.errors.Add("fetch", Fetch(step.memory.fetches, step.at.fetch_pieces, ahead, step.stream));
}

// conv, gates, recurrence, norm and the check of the input in one kernel.
void LayerPipeline::Decode(const Step& step) {
  const bool hidden = step.shape.layout == InputLayout::kHidden;
  const CoreInput in = hidden ? ProjectIn(step) : FromBlock(step);
  FusedGdnDecodeParams p;
  p.rows = step.rows;
  p.heads = {g_.key_heads, g_.value_heads, g_.key_dim, g_.value_dim};
  p.conv_width = g_.conv_width;
  p.io = shape_.io;
  p.activation = g_.conv_activation;
  p.gate = g_.gate;
  p.qk_l2norm = g_.qk_l2norm;
  p.scale = g_.scale();
  p.norm_eps = g_.norm_eps;
  p.mixed_qkv = in.mixed;
  p.mixed_stride = in.mixed_stride;
  p.z = in.z;
  p.z_stride = in.z_stride;
  p.b = in.b;
  p.a = in.a;
  p.ba_stride = in.ba_stride;
  p.beta = in.beta;
  p.g = in.g;
  p.conv_weight = step.layer.conv_weight;
  p.conv_bias = step.layer.conv_bias;
  p.a_log = step.layer.a_log;
  p.dt_bias = step.layer.dt_bias;
  p.norm_weight = step.layer.norm;
  p.conv = step.pools.conv;
  p.ssm = step.pools.ssm;
  p.o = step.core;
  p.o_stride = g_.value_size();
  p.faults = step.faults();
  step.errors.Add("fused_gdn_decode", FusedGdnDecode(p, step.stream));
  // What the kernel checked are projections: finite hidden states may have overflowed there.
  Finish(step, hidden ? step.tensor(Kind::kHidden) : nullptr);
}

// Op by op. Rows with a fault in their input become padding before anything is written.
void LayerPipeline::Prefill(const Step& step) {
  const bool hidden = step.shape.layout == InputLayout::kHidden;
  CheckInput(step);
  CoreInput in = hidden ? ProjectIn(step) : FromBlock(step);
  if (hidden) CheckGates(step, in);
  ConvolveAndGate(step, in);
  DeltaRule(step, in);
  NormAndGate(step, in);
  Finish(step, nullptr);
}

void LayerPipeline::CheckInput(const Step& step) {
  const auto* slots = step.Of<const int32_t>(step.at.slots);
  CheckRowsParams p;
  p.rows = step.rows;
  p.rows.slots = slots;
  p.chunks = step.chunks;
  for (const InputTensor& t : InputTensors(g_, step.shape.layout, shape_.io)) {
    p.tensor[p.tensors++] = {step.tensor(t.kind), t.width, t.width, t.type};
  }
  p.fault = kFaultNonFinite;
  p.faults = step.faults();
  step.errors.Add("check_rows", CheckRows(p, step.stream));
  step.errors.Add("mask_rows",
                  MaskRows({step.shape.rows, slots, step.faults(), masked_}, step.stream));
}

// The projected layouts.
LayerPipeline::CoreInput LayerPipeline::FromBlock(const Step& step) const {
  CoreInput in;
  in.mixed = step.tensor(Kind::kMixedQkv);
  in.mixed_stride = g_.conv_dim();
  for (const InputTensor& t : InputTensors(g_, step.shape.layout, shape_.io)) {
    const std::byte* data = step.tensor(t.kind);
    if (t.kind == Kind::kZ) in.z = data;
    if (t.kind == Kind::kB) in.b = data;
    if (t.kind == Kind::kA) in.a = data;
    if (t.kind == Kind::kBeta) in.beta = reinterpret_cast<const float*>(data);
    if (t.kind == Kind::kG) in.g = reinterpret_cast<const float*>(data);
  }
  in.z_stride = g_.value_size();
  in.ba_stride = g_.value_heads;
  return in;
}

// q | k | v | z | b | a = hidden · in_projᵀ
ProjectionParams LayerPipeline::InProjection(const Step& step) const {
  return {.tokens = step.shape.tokens,
          .in = g_.hidden_size,
          .out = g_.in_proj_size(),
          .io = shape_.io,
          .x = step.tensor(Kind::kHidden),
          .x_stride = g_.hidden_size,
          .w = step.layer.in_proj,
          .y = projected_,
          .y_stride = in_stride_};
}

LayerPipeline::CoreInput LayerPipeline::ProjectIn(const Step& step) {
  step.errors.Add("in_proj", in_proj_->Run(InProjection(step), step.stream));
  const auto at = [&](int64_t column) {
    return projected_ + column * static_cast<int64_t>(SizeOf(shape_.io));
  };
  const int64_t b = g_.conv_dim() + g_.value_size();
  CoreInput in;
  in.mixed = at(0);
  in.mixed_stride = in_stride_;
  in.z = at(g_.conv_dim());
  in.z_stride = in_stride_;
  in.b = at(b);
  in.a = at(b + g_.value_heads);
  in.ba_stride = in_stride_;
  return in;
}

// Infinity that the projections made of finite hidden states and that a sigmoid would make finite
// again; all other infinity reaches the output. (In the projections a follows b.)
void LayerPipeline::CheckGates(const Step& step, const CoreInput& in) {
  CheckRowsParams p;
  p.rows = step.rows;
  p.chunks = step.chunks;
  p.tensor[p.tensors++] = {in.b, int64_t{2} * g_.value_heads, in.ba_stride, shape_.io};
  if (g_.gate == Gate::kSigmoid) {
    p.tensor[p.tensors++] = {in.z, g_.value_size(), in.z_stride, shape_.io};
  }
  p.fault = kFaultOverflow;
  p.faults = step.faults();
  step.errors.Add("check_gates", CheckRows(p, step.stream));
}

// q, k, v and the gates as the delta rule takes them; `in` becomes what names these. The norms of q
// and k are the delta rule's own.
void LayerPipeline::ConvolveAndGate(const Step& step, CoreInput& in) {
  FusedGdnGatingParams gating;
  if (in.beta == nullptr) {
    gating = Gating(step, in);
    in.beta = beta_;
    in.g = decay_;
  }
  if (g_.conv_width == 0) {
    step.errors.Add("fused_gdn_gating", FusedGdnGating(gating, step.stream));
    return;
  }
  step.errors.Add("fused_conv_gating",
                  FusedConvGating({Convolution(step, in), gating}, step.chunks, step.stream));
  in.mixed = convolved_;
  in.mixed_stride = g_.conv_dim();
}

CausalConv1dFnParams LayerPipeline::Convolution(const Step& step, const CoreInput& in) const {
  CausalConv1dFnParams p;
  p.rows = step.rows;
  p.channels = g_.conv_dim();
  p.width = g_.conv_width;
  p.io = shape_.io;
  p.activation = g_.conv_activation;
  p.x = in.mixed;
  p.x_stride = in.mixed_stride;
  p.weight = step.layer.conv_weight;
  p.bias = step.layer.conv_bias;
  p.conv = step.pools.conv;
  p.y = convolved_;
  p.y_stride = g_.conv_dim();
  return p;
}

FusedGdnGatingParams LayerPipeline::Gating(const Step& step, const CoreInput& in) const {
  return {.tokens = step.shape.tokens,
          .value_heads = g_.value_heads,
          .io = shape_.io,
          .a = in.a,
          .a_stride = in.ba_stride,
          .b = in.b,
          .b_stride = in.ba_stride,
          .a_log = step.layer.a_log,
          .dt_bias = step.layer.dt_bias,
          .g = decay_,
          .beta = beta_};
}

void LayerPipeline::DeltaRule(const Step& step, const CoreInput& in) {
  const auto at = [&](int64_t column) {
    return in.mixed + column * static_cast<int64_t>(SizeOf(shape_.io));
  };
  GatedDeltaRuleParams p;
  p.rows = step.rows;
  p.heads = {g_.key_heads, g_.value_heads, g_.key_dim, g_.value_dim};
  p.io = p.o_type = shape_.io;
  p.q = at(0);
  p.k = at(g_.key_size());
  p.v = at(2 * g_.key_size());
  p.q_stride = p.k_stride = p.v_stride = in.mixed_stride;
  p.g = in.g;
  p.beta = in.beta;
  p.scale = g_.scale();
  p.qk_l2norm = g_.qk_l2norm;
  p.ssm = step.pools.ssm;
  p.o = step.core;
  p.o_stride = g_.value_size();
  if (step.shape.longest <= kMostDecodeTokens) {
    step.errors.Add("fused_recurrent_gated_delta_rule",
                    FusedRecurrentGatedDeltaRule({p}, step.stream));
  } else {
    step.errors.Add(
        "chunk_gated_delta_rule",
        ChunkGatedDeltaRule({p}, step.chunks, step.shape.tokens, workspace_, step.stream));
  }
}

void LayerPipeline::NormAndGate(const Step& step, const CoreInput& in) {
  if (in.z == nullptr) return;
  step.errors.Add("rmsnorm_gated", RmsNormGated({.tokens = step.shape.tokens,
                                                 .value_heads = g_.value_heads,
                                                 .value_dim = g_.value_dim,
                                                 .x_type = shape_.io,
                                                 .io = shape_.io,
                                                 .gate = g_.gate,
                                                 .eps = g_.norm_eps,
                                                 .x = step.core,
                                                 .x_stride = g_.value_size(),
                                                 .z = in.z,
                                                 .z_stride = in.z_stride,
                                                 .weight = step.layer.norm,
                                                 .y = step.core,
                                                 .y_stride = g_.value_size()},
                                                step.stream));
}

void LayerPipeline::ProjectOutAndFinish(const Step& step, const void* classify) {
  const ProjectionParams p = {.tokens = step.shape.tokens,
                              .in = g_.value_size(),
                              .out = g_.hidden_size,
                              .io = shape_.io,
                              .x = step.core,
                              .x_stride = g_.value_size(),
                              .w = step.layer.out_proj,
                              .y = step.memory.answer,
                              .y_stride = g_.hidden_size};
  step.errors.Add("out_proj", out_proj_->RunAndFinish(p, FinishOf(step, classify), step.stream));
}

FinishRowsParams LayerPipeline::FinishOf(const Step& step, const void* classify) const {
  FinishRowsParams p;
  p.rows = step.rows;
  p.chunks = step.chunks;
  p.keep = step.Of<const uint8_t>(step.at.keep);
  p.io = shape_.io;
  p.output = step.memory.answer;
  p.width = OutputWidth(g_, step.shape.layout);
  p.answers = step.pools.answers;
  p.answer_stride = step.pools.answer_stride;
  p.input = classify;
  p.input_width = g_.hidden_size;
  p.faults = step.faults();
  if (!step.shape.by_kernels) return p;
  p.answers_to = step.Of<void* const>(step.at.answers_to);
  p.faults_to = step.memory.faults;
  return p;
}

// With the last projection, where there is one. `classify`: what the rows with a fault in their
// input came from, or null.
void LayerPipeline::Finish(const Step& step, const void* classify) {
  if (step.shape.layout == InputLayout::kHidden) return ProjectOutAndFinish(step, classify);
  step.errors.Add("finish_rows", FinishRows(FinishOf(step, classify), step.stream));
}

}  // namespace gdn::cuda
