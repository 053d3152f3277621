// From a batch in host memory to its answer there. What runs in between is in layer_pipeline.cc.
#include "kernels/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/chunk_index.h"
#include "kernels/cuda/layer_pipeline.h"
#include "kernels/cuda/step_graphs.h"
#include "kernels/cuda/step_rows.h"
#include "kernels/pieces.h"
#include "kernels/validate.h"

namespace gdn {
namespace cuda {
namespace {

// What is copied at a time, so that host and copy engine work side by side.
constexpr size_t kSlice = size_t{2} << 20;

size_t Aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// In front of a pinned answer.
size_t FaultBytes(int64_t rows) { return Aligned(static_cast<size_t>(rows) * sizeof(uint32_t)); }

// Of one layer's pools, by slot.
struct PoolLayout {
  explicit PoolLayout(const BackendShape& s)
      : ssm(static_cast<size_t>(s.geometry.ssm_elements()) * SizeOf(s.state)),
        conv(static_cast<size_t>(s.geometry.conv_elements()) * SizeOf(s.io)),
        answer(Aligned(static_cast<size_t>(s.max_decode_tokens) * s.answer_row_bytes())),
        slots(static_cast<size_t>(s.slots)) {}

  size_t layer_bytes() const {
    return Aligned(ssm * slots) + Aligned(conv * slots) + answer * slots;
  }

  size_t ssm;
  size_t conv;
  size_t answer;
  size_t slots;
};

// What a batch in flight has to itself. It is free once the batch has ended, because the end waits
// for the last of its copies; what lies between block and answer is shared, on one stream.
struct Staging {
  Batch batch;
  Memory pinned;                        // the input, and what is known of the rows,
  Memory block;                         // and the same on the device
  Memory answer;                        // on the device, [tokens, output width]
  Memory pinned_out;                    // the faults, and the answer after them
  cudaEvent_t copied_in = nullptr;      // the block
  cudaEvent_t computed = nullptr;       // the answer
  std::vector<cudaEvent_t> copied_out;  // the faults, and then each slice of the answer
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const BackendShape& shape)
      : shape_(shape), pool_layout_(shape), layers_(static_cast<size_t>(shape.layers)) {}
  ~CudaBackend() override;

  absl::Status Start();

  std::string_view name() const override { return "cuda"; }
  absl::Status LoadLayer(int layer, const LayerWeights& weights) override;
  int depth() const override { return kDepth; }
  absl::Status Begin(const Batch& batch) override;
  absl::Status End(std::span<RowFault> faults) override;
  absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) override;

 private:
  // One batch computes while another is copied in or out.
  static constexpr int kDepth = 2;

  absl::Status MakeStaging(Staging& staging);
  absl::Status Settle(const Errors& errors);
  StepShape ShapeOf(const Batch& batch) const;
  void FillRows(const Staging& to, const StepShape& step, const StepBlock& at);
  void CopyIn(const Staging& to, const StepBlock& at, bool at_once, Errors& errors);
  void CopyPart(const Staging& to, const BatchPart& part, const InputTensor& tensor, size_t offset,
                size_t at, bool send, Errors& errors);
  void Send(const Staging& to, size_t begin, size_t end, Errors& errors);
  void Compute(const Staging& staging, const StepShape& step, bool graph, Errors& errors);
  void EnqueueStep(const Staging& staging, int layer, const StepShape& step, cudaStream_t stream,
                   Errors& errors);
  void CopyOut(const Staging& from, const StepBlock& at, Errors& errors);
  void HandOut(const Staging& from, Errors& errors);
  LayerPools PoolsOf(int layer) const;
  int IndexOf(const Staging& staging) const { return static_cast<int>(&staging - &staging_[0]); }

  BackendShape shape_;
  PoolLayout pool_layout_;
  absl::Status lost_;  // why, once the device is
  cudaStream_t in_ = nullptr;
  cudaStream_t compute_ = nullptr;
  cudaStream_t out_ = nullptr;
  Memory pools_;  // by layer: ssm, conv, answers
  std::array<Staging, kDepth> staging_;
  int oldest_ = 0;  // in staging_, of the batches begun and not ended
  int begun_ = 0;   // how many these are
  std::unique_ptr<LayerPipeline> pipeline_;
  std::vector<DeviceLayer> layers_;
  StepGraphs graphs_;
};

CudaBackend::~CudaBackend() {
  for (cudaStream_t stream : {in_, compute_, out_}) {
    if (stream != nullptr) cudaStreamSynchronize(stream);
  }
  for (Staging& staging : staging_) {
    for (cudaEvent_t event : {staging.copied_in, staging.computed}) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    for (cudaEvent_t event : staging.copied_out) cudaEventDestroy(event);
  }
  for (cudaStream_t stream : {in_, compute_, out_}) {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
}

absl::Status CudaBackend::Start() {
  Errors errors;
  errors.Add("device", cudaSetDevice(0));
  for (cudaStream_t* stream : {&in_, &compute_, &out_}) {
    errors.Add("stream", cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
  }
  if (!errors.ok()) return errors.status();
  auto pools = Memory::Make(Memory::Place::kDevice, pool_layout_.layer_bytes() * layers_.size());
  if (!pools.ok()) return pools.status();
  pools_ = *std::move(pools);
  for (Staging& staging : staging_) {
    if (absl::Status status = MakeStaging(staging); !status.ok()) return status;
  }
  auto pipeline = LayerPipeline::Make(shape_);
  if (!pipeline.ok()) return pipeline.status();
  pipeline_ = *std::move(pipeline);
  return absl::OkStatus();
}

absl::Status CudaBackend::MakeStaging(Staging& staging) {
  using Place = Memory::Place;
  const size_t block = MostStepBytes(shape_);
  const size_t answer = static_cast<size_t>(shape_.max_tokens) * shape_.answer_row_bytes();
  const std::pair<Memory*, std::pair<Place, size_t>> wanted[] = {
      {&staging.pinned, {Place::kPinned, block}},
      {&staging.block, {Place::kDevice, block}},
      {&staging.answer, {Place::kDevice, answer}},
      {&staging.pinned_out, {Place::kPinned, FaultBytes(shape_.max_rows) + answer}}};
  for (const auto& [memory, need] : wanted) {
    absl::StatusOr<Memory> made = Memory::Make(need.first, need.second);
    if (!made.ok()) return made.status();
    *memory = *std::move(made);
  }
  Errors errors;
  const auto make = [&errors](cudaEvent_t& event) {
    errors.Add("event", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  };
  make(staging.copied_in);
  make(staging.computed);
  staging.copied_out.resize(1 + (answer + kSlice - 1) / kSlice);
  for (cudaEvent_t& event : staging.copied_out) make(event);
  return errors.status();
}

absl::Status CudaBackend::LoadLayer(int layer, const LayerWeights& weights) {
  if (layer < 0 || layer >= shape_.layers) return absl::InvalidArgumentError("no such layer");
  if (absl::Status status = Validate(weights, shape_); !status.ok()) return status;
  absl::StatusOr<DeviceLayer> loaded = ToDevice(weights);
  if (!loaded.ok()) return loaded.status();
  layers_[static_cast<size_t>(layer)] = *std::move(loaded);
  if (!pipeline_->fused() || !shape_.projections) return absl::OkStatus();
  // The main way in is captured now, the others when they are first gone.
  Errors errors;
  for (int64_t rows = 1; rows <= GraphRows(shape_.max_rows); rows = GraphRows(rows + 1)) {
    StepShape step;
    step.rows = step.tokens = rows;
    if (rows > shape_.max_tokens) break;
    for (const Staging& staging : staging_) {
      graphs_.Prepare(
          {layer, step.layout, rows, IndexOf(staging)},
          [&](cudaStream_t stream) { EnqueueStep(staging, layer, step, stream, errors); }, compute_,
          errors);
    }
  }
  return errors.status();
}

// Three streams and two events: the block goes in, the ops run, faults and answer come out. While
// the host gathers the input of a batch, and while its block is on the way, the one before
// computes.
absl::Status CudaBackend::Begin(const Batch& batch) {
  if (!lost_.ok()) return lost_;
  Staging& staging = staging_[static_cast<size_t>((oldest_ + begun_) % kDepth)];
  ++begun_;
  staging.batch = batch;
  if (batch.tokens() == 0) return absl::OkStatus();
  const StepShape step = ShapeOf(batch);
  const StepBlock at(shape_, step);
  const bool synthetic =
      std::any_of(batch.parts.begin(), batch.parts.end(),
                  [](const BatchPart& part) { return part.synthetic_seed != 0; });
  const bool graph = step.form == RowForm::kSingle && !synthetic;
  Errors errors;
  FillRows(staging, step, at);
  CopyIn(staging, at, /*at_once=*/graph, errors);
  errors.Add("copy in", cudaEventRecord(staging.copied_in, in_));
  Compute(staging, step, graph, errors);
  errors.Add("step", cudaEventRecord(staging.computed, compute_));
  CopyOut(staging, at, errors);
  return Settle(errors);
}

absl::Status CudaBackend::End(std::span<RowFault> faults) {
  if (!lost_.ok()) return lost_;
  const Staging& staging = staging_[static_cast<size_t>(oldest_)];
  const Batch& batch = staging.batch;
  oldest_ = (oldest_ + 1) % kDepth;
  --begun_;
  std::fill(faults.begin(), faults.end(), RowFault::kNone);
  if (batch.tokens() == 0) return absl::OkStatus();
  Errors errors;
  HandOut(staging, errors);
  if (absl::Status status = Settle(errors); !status.ok()) return status;
  const auto* bits = reinterpret_cast<const uint32_t*>(staging.pinned_out.data());
  for (int64_t row = 0; row < batch.rows(); ++row) {
    if (batch.slots[row] < 0) continue;
    if ((bits[row] & kFaultNonFinite) != 0) {
      faults[row] = RowFault::kNonFiniteInput;
    } else if ((bits[row] & kFaultOverflow) != 0) {
      faults[row] = RowFault::kOverflow;
    }
  }
  return absl::OkStatus();
}

// An error of CUDA's is the device's end: what it was doing, and all that it would do, is lost.
absl::Status CudaBackend::Settle(const Errors& errors) {
  if (!errors.ok()) lost_ = errors.status();
  return lost_;
}

StepShape CudaBackend::ShapeOf(const Batch& batch) const {
  StepShape step;
  step.layout = batch.layout;
  step.rows = batch.rows();
  step.tokens = batch.tokens();
  bool single = pipeline_->fused();
  for (int64_t row = 0; row < batch.rows(); ++row) {
    const int64_t length = batch.length(row);
    single = single && length == 1;
    step.longest = std::max(step.longest, length);
    step.chunks += (length + kChunk - 1) / kChunk;
  }
  const int64_t padded = GraphRows(step.rows);
  if (!single || padded > shape_.max_tokens) {
    step.form = RowForm::kAny;
    return step;
  }
  step.form = RowForm::kSingle;
  step.rows = step.tokens = padded;
  step.chunks = 0;
  return step;
}

void CudaBackend::FillRows(const Staging& to, const StepShape& step, const StepBlock& at) {
  const Batch& batch = to.batch;
  const auto rows = static_cast<size_t>(step.rows);
  std::byte* block = to.pinned.data();
  std::memset(block, 0, at.input);
  auto* slots = reinterpret_cast<int32_t*>(block + at.slots);
  std::fill(std::copy(batch.slots.begin(), batch.slots.end(), slots), slots + rows, kPadSlotId);
  std::memcpy(block + at.has_state, batch.has_initial_state.data(), batch.has_initial_state.size());
  std::memcpy(block + at.keep, batch.keep_answer.data(), batch.keep_answer.size());
  if (step.form == RowForm::kSingle) return;
  std::memcpy(block + at.offsets, batch.offsets.data(), batch.offsets.size_bytes());
  ChunkIndices({.rows = step.rows,
                .offsets = batch.offsets.data(),
                .chunk_offsets = reinterpret_cast<int64_t*>(block + at.chunk_offsets),
                .chunk_indices = reinterpret_cast<int64_t*>(block + at.chunk_indices)});
}

// The block to the device: at once, which costs least where it is small, or slice by slice as the
// host gathers it. Synthetic input is made there.
void CudaBackend::CopyIn(const Staging& to, const StepBlock& at, bool at_once, Errors& errors) {
  const Batch& batch = to.batch;
  if (!at_once) Send(to, 0, at.input, errors);
  const std::vector<InputTensor> tensors = InputTensors(shape_.geometry, batch.layout, shape_.io);
  for (const BatchPart& part : batch.parts) {
    size_t offset = 0;  // of the tensor in the part's bytes
    int64_t element = 0;
    for (const InputTensor& tensor : tensors) {
      const size_t place = at.tensor[static_cast<size_t>(tensor.kind)] +
                           static_cast<size_t>(part.first_token) * tensor.row_bytes();
      if (part.synthetic_seed != 0) {
        errors.Add("synthesize",
                   Synthesize({part.synthetic_seed, element, part.tokens * tensor.width,
                               tensor.type, to.block.data() + place},
                              in_));
      } else {
        CopyPart(to, part, tensor, offset, place, /*send=*/!at_once, errors);
      }
      offset += static_cast<size_t>(part.tokens) * tensor.row_bytes();
      element += part.tokens * tensor.width;
    }
  }
  if (at_once) Send(to, 0, at.bytes, errors);
}

void CudaBackend::CopyPart(const Staging& to, const BatchPart& part, const InputTensor& tensor,
                           size_t offset, size_t at, bool send, Errors& errors) {
  const size_t bytes = static_cast<size_t>(part.tokens) * tensor.row_bytes();
  for (size_t done = 0; done < bytes; done += kSlice) {
    const size_t size = std::min(kSlice, bytes - done);
    CopyPieces(part.input, offset + done, size, to.pinned.data() + at + done);
    if (send) Send(to, at + done, at + done + size, errors);
  }
}

// Bytes [begin, end) of the pinned block to the device.
void CudaBackend::Send(const Staging& to, size_t begin, size_t end, Errors& errors) {
  errors.Add("copy in", cudaMemcpyAsync(to.block.data() + begin, to.pinned.data() + begin,
                                        end - begin, cudaMemcpyHostToDevice, in_));
}

void CudaBackend::Compute(const Staging& staging, const StepShape& step, bool graph,
                          Errors& errors) {
  const int layer = staging.batch.layer;
  errors.Add("step", cudaStreamWaitEvent(compute_, staging.copied_in, 0));
  if (!graph) return EnqueueStep(staging, layer, step, compute_, errors);
  graphs_.Launch(
      {layer, step.layout, step.rows, IndexOf(staging)},
      [&](cudaStream_t stream) { EnqueueStep(staging, layer, step, stream, errors); }, compute_,
      errors);
}

// What a decode graph holds.
void CudaBackend::EnqueueStep(const Staging& staging, int layer, const StepShape& step,
                              cudaStream_t stream, Errors& errors) {
  pipeline_->Enqueue(layers_[static_cast<size_t>(layer)], PoolsOf(layer), step,
                     staging.block.data(), staging.answer.data(), stream, errors);
}

// The bytes of the answer that somebody wants, from the first to the last.
struct Wanted {
  Wanted(const Batch& batch, size_t width) {
    for (const BatchPart& part : batch.parts) {
      if (part.output == nullptr) continue;
      if (end == 0) begin = static_cast<size_t>(part.first_token) * width;
      end = static_cast<size_t>(part.first_token + part.tokens) * width;
    }
  }

  size_t begin = 0;
  size_t end = 0;
};

// The faults, and then the answer in slices: while one is copied to its parts the next is on its
// way.
void CudaBackend::CopyOut(const Staging& from, const StepBlock& at, Errors& errors) {
  const Wanted wanted(from.batch, OutputRowBytes(shape_.geometry, from.batch.layout, shape_.io));
  std::byte* to = from.pinned_out.data();
  size_t event = 0;
  const auto copy = [&](std::byte* host, const std::byte* device, size_t bytes) {
    errors.Add("copy out", cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, out_));
    errors.Add("copy out", cudaEventRecord(from.copied_out[event++], out_));
  };
  errors.Add("copy out", cudaStreamWaitEvent(out_, from.computed, 0));
  copy(to, from.block.data() + at.faults,
       static_cast<size_t>(from.batch.rows()) * sizeof(uint32_t));
  to += FaultBytes(from.batch.rows());
  for (size_t i = wanted.begin; i < wanted.end; i += kSlice) {
    copy(to + i, from.answer.data() + i, std::min(kSlice, wanted.end - i));
  }
}

// Waits for what CopyOut began, slice by slice.
void CudaBackend::HandOut(const Staging& from, Errors& errors) {
  const size_t width = OutputRowBytes(shape_.geometry, from.batch.layout, shape_.io);
  const Wanted wanted(from.batch, width);
  const std::byte* answer = from.pinned_out.data() + FaultBytes(from.batch.rows());
  size_t event = 0;
  errors.Add("step", cudaEventSynchronize(from.copied_out[event++]));
  for (size_t at = wanted.begin; at < wanted.end && errors.ok(); at += kSlice) {
    const size_t last = std::min(at + kSlice, wanted.end);
    errors.Add("step", cudaEventSynchronize(from.copied_out[event++]));
    for (const BatchPart& part : from.batch.parts) {
      const size_t first = static_cast<size_t>(part.first_token) * width;
      const size_t begin = std::max(at, first);
      const size_t end = std::min(last, first + static_cast<size_t>(part.tokens) * width);
      if (part.output == nullptr || begin >= end) continue;
      std::memcpy(part.output + (begin - first), answer + begin, end - begin);
    }
  }
}

LayerPools CudaBackend::PoolsOf(int layer) const {
  const PoolLayout& pool = pool_layout_;
  std::byte* ssm = pools_.data() + pool.layer_bytes() * static_cast<size_t>(layer);
  std::byte* conv = ssm + Aligned(pool.ssm * pool.slots);
  LayerPools pools;
  pools.ssm = {ssm, shape_.state, shape_.geometry.ssm_elements()};
  pools.conv = {conv, shape_.io, shape_.geometry.conv_elements()};
  pools.answers = conv + Aligned(pool.conv * pool.slots);
  pools.answer_stride = static_cast<int64_t>(pool.answer);
  return pools;
}

// Not behind the batches in flight: the one that left the answer has ended.
absl::Status CudaBackend::ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) {
  if (!lost_.ok()) return lost_;
  const LayerPools pools = PoolsOf(layer);
  Errors errors;
  errors.Add("read answer", cudaMemcpyAsync(out.data(), pools.answers + pools.answer_stride * slot,
                                            out.size(), cudaMemcpyDeviceToHost, in_));
  errors.Add("read answer", cudaStreamSynchronize(in_));
  return Settle(errors);
}

}  // namespace
}  // namespace cuda

bool CudaDevicePresent() {
  int count = 0, major = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return false;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess &&
         major == 9;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendShape& shape) {
  if (!CudaDevicePresent()) return absl::FailedPreconditionError("there is no Hopper GPU");
  auto backend = std::make_unique<cuda::CudaBackend>(shape);
  if (absl::Status status = backend->Start(); !status.ok()) return status;
  return backend;
}

}  // namespace gdn
