// From a batch in host memory to its answer there. What runs in between is in layer_pipeline.cc.
#include "kernels/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <algorithm>
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

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const BackendShape& shape)
      : shape_(shape), pool_layout_(shape), layers_(static_cast<size_t>(shape.layers)) {}
  ~CudaBackend() override;

  absl::Status Start();

  std::string_view name() const override { return "cuda"; }
  absl::Status LoadLayer(int layer, const LayerWeights& weights) override;
  int depth() const override { return 1; }
  absl::Status Begin(const Batch& batch) override;
  absl::Status End(std::span<RowFault> faults) override;
  absl::Status ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) override;

 private:
  absl::Status Settle(const Errors& errors);
  StepShape ShapeOf(const Batch& batch) const;
  void FillRows(const Batch& batch, const StepShape& step, const StepBlock& at);
  void RunGraph(const Batch& batch, const StepShape& step, const StepBlock& at, Errors& errors);
  void RunOnce(const Batch& batch, const StepShape& step, const StepBlock& at, Errors& errors);
  void CopyIn(const Batch& batch, const StepBlock& at, bool send, Errors& errors);
  void CopyPart(const BatchPart& part, const InputTensor& tensor, size_t offset, size_t to,
                bool send, Errors& errors);
  void CopyOut(const Batch& batch, Errors& errors);
  void EnqueueStep(int layer, const StepShape& step, cudaStream_t stream, Errors& errors);
  LayerPools PoolsOf(int layer) const;
  void Send(size_t begin, size_t end, cudaStream_t stream, Errors& errors);

  BackendShape shape_;
  PoolLayout pool_layout_;
  absl::Status lost_;  // why, once the device is
  cudaStream_t stream_ = nullptr;
  Memory pools_;                     // by layer: ssm, conv, answers
  Memory block_;                     // a step's input on the device,
  Memory pinned_;                    // and on its way there
  Memory pinned_out_;                // the answer, and the faults before it
  std::vector<cudaEvent_t> events_;  // of the slices of an answer
  std::vector<RowFault> faults_;     // of the batch begun
  std::unique_ptr<LayerPipeline> pipeline_;
  std::vector<DeviceLayer> layers_;
  StepGraphs graphs_;
};

CudaBackend::~CudaBackend() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaBackend::Start() {
  Errors errors;
  errors.Add("device", cudaSetDevice(0));
  errors.Add("stream", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  if (!errors.ok()) return errors.status();
  using Place = Memory::Place;
  const size_t block = MostStepBytes(shape_);
  const size_t answer = static_cast<size_t>(shape_.max_tokens) * shape_.answer_row_bytes();
  const size_t faults = Aligned(static_cast<size_t>(GraphRows(shape_.max_rows)) * sizeof(uint32_t));
  const std::pair<Memory*, std::pair<Place, size_t>> wanted[] = {
      {&pools_, {Place::kDevice, pool_layout_.layer_bytes() * layers_.size()}},
      {&block_, {Place::kDevice, block}},
      {&pinned_, {Place::kPinned, block}},
      {&pinned_out_, {Place::kPinned, faults + answer}}};
  for (const auto& [memory, need] : wanted) {
    absl::StatusOr<Memory> made = Memory::Make(need.first, need.second);
    if (!made.ok()) return made.status();
    *memory = *std::move(made);
  }
  events_.resize(answer / kSlice + 1);
  for (cudaEvent_t& event : events_) {
    errors.Add("event", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  if (!errors.ok()) return errors.status();
  auto pipeline = LayerPipeline::Make(shape_);
  if (!pipeline.ok()) return pipeline.status();
  pipeline_ = *std::move(pipeline);
  return absl::OkStatus();
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
    graphs_.Prepare(
        layer, step.layout, rows,
        [&](cudaStream_t stream) { EnqueueStep(layer, step, stream, errors); }, stream_, errors);
  }
  return errors.status();
}

// Does it all, and waits.
absl::Status CudaBackend::Begin(const Batch& batch) {
  if (!lost_.ok()) return lost_;
  faults_.assign(static_cast<size_t>(batch.rows()), RowFault::kNone);
  if (batch.tokens() == 0) return absl::OkStatus();
  const StepShape step = ShapeOf(batch);
  const StepBlock at(shape_, step);
  FillRows(batch, step, at);
  Errors errors;
  const bool synthetic =
      std::any_of(batch.parts.begin(), batch.parts.end(),
                  [](const BatchPart& part) { return part.synthetic_seed != 0; });
  if (step.form == RowForm::kSingle && !synthetic) {
    RunGraph(batch, step, at, errors);
  } else {
    RunOnce(batch, step, at, errors);
  }
  errors.Add("faults", cudaMemcpyAsync(pinned_out_.data(), block_.data() + at.faults,
                                       static_cast<size_t>(batch.rows()) * sizeof(uint32_t),
                                       cudaMemcpyDeviceToHost, stream_));
  CopyOut(batch, errors);
  if (absl::Status status = Settle(errors); !status.ok()) return status;
  const auto* bits = reinterpret_cast<const uint32_t*>(pinned_out_.data());
  for (int64_t row = 0; row < batch.rows(); ++row) {
    if (batch.slots[row] < 0) continue;
    if ((bits[row] & kFaultNonFinite) != 0) {
      faults_[static_cast<size_t>(row)] = RowFault::kNonFiniteInput;
    } else if ((bits[row] & kFaultOverflow) != 0) {
      faults_[static_cast<size_t>(row)] = RowFault::kOverflow;
    }
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::End(std::span<RowFault> faults) {
  std::copy(faults_.begin(), faults_.end(), faults.begin());
  return lost_;
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

void CudaBackend::FillRows(const Batch& batch, const StepShape& step, const StepBlock& at) {
  const auto rows = static_cast<size_t>(step.rows);
  std::byte* block = pinned_.data();
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

void CudaBackend::RunGraph(const Batch& batch, const StepShape& step, const StepBlock& at,
                           Errors& errors) {
  CopyIn(batch, at, /*send=*/false, errors);
  graphs_.Launch(
      batch.layer, step.layout, step.rows,
      [&](cudaStream_t stream) { EnqueueStep(batch.layer, step, stream, errors); }, stream_,
      errors);
}

// What a decode graph holds: the block to the device, and the ops.
void CudaBackend::EnqueueStep(int layer, const StepShape& step, cudaStream_t stream,
                              Errors& errors) {
  Send(0, StepBlock(shape_, step).bytes, stream, errors);
  pipeline_->Enqueue(layers_[static_cast<size_t>(layer)], PoolsOf(layer), step, block_.data(),
                     stream, errors);
}

void CudaBackend::RunOnce(const Batch& batch, const StepShape& step, const StepBlock& at,
                          Errors& errors) {
  Send(0, at.input, stream_, errors);
  CopyIn(batch, at, /*send=*/true, errors);
  pipeline_->Enqueue(layers_[static_cast<size_t>(batch.layer)], PoolsOf(batch.layer), step,
                     block_.data(), stream_, errors);
}

// Bytes [begin, end) of the pinned block to the device.
void CudaBackend::Send(size_t begin, size_t end, cudaStream_t stream, Errors& errors) {
  errors.Add("copy in", cudaMemcpyAsync(block_.data() + begin, pinned_.data() + begin, end - begin,
                                        cudaMemcpyHostToDevice, stream));
}

// The parts' tensors to the pinned block and, with `send`, on to the device. Synthetic input is
// made there.
void CudaBackend::CopyIn(const Batch& batch, const StepBlock& at, bool send, Errors& errors) {
  const std::vector<InputTensor> tensors = InputTensors(shape_.geometry, batch.layout, shape_.io);
  for (const BatchPart& part : batch.parts) {
    size_t offset = 0;  // of the tensor in the part's bytes
    int64_t element = 0;
    for (const InputTensor& tensor : tensors) {
      const size_t to = at.tensor[static_cast<size_t>(tensor.kind)] +
                        static_cast<size_t>(part.first_token) * tensor.row_bytes();
      if (part.synthetic_seed != 0) {
        errors.Add("synthesize",
                   Synthesize({part.synthetic_seed, element, part.tokens * tensor.width,
                               tensor.type, block_.data() + to},
                              stream_));
      } else {
        CopyPart(part, tensor, offset, to, send, errors);
      }
      offset += static_cast<size_t>(part.tokens) * tensor.row_bytes();
      element += part.tokens * tensor.width;
    }
  }
}

void CudaBackend::CopyPart(const BatchPart& part, const InputTensor& tensor, size_t offset,
                           size_t to, bool send, Errors& errors) {
  const size_t bytes = static_cast<size_t>(part.tokens) * tensor.row_bytes();
  for (size_t done = 0; done < bytes; done += kSlice) {
    const size_t size = std::min(kSlice, bytes - done);
    CopyPieces(part.input, offset + done, size, pinned_.data() + to + done);
    if (send) Send(to + done, to + done + size, stream_, errors);
  }
}

// The answer, from the first token that somebody wants to the last, in slices: while one is copied
// to its parts the next is on its way. Ends the step.
void CudaBackend::CopyOut(const Batch& batch, Errors& errors) {
  const size_t width = OutputRowBytes(shape_.geometry, batch.layout, shape_.io);
  size_t begin = 0, end = 0;  // bytes
  for (const BatchPart& part : batch.parts) {
    if (part.output == nullptr) continue;
    if (end == 0) begin = static_cast<size_t>(part.first_token) * width;
    end = static_cast<size_t>(part.first_token + part.tokens) * width;
  }
  const size_t faults = Aligned(static_cast<size_t>(batch.rows()) * sizeof(uint32_t));
  std::byte* answer = pinned_out_.data() + faults;
  const std::byte* output = pipeline_->output(batch.layout);
  size_t event = 0;
  for (size_t at = begin; at < end; at += kSlice, ++event) {
    errors.Add("copy out", cudaMemcpyAsync(answer + at, output + at, std::min(kSlice, end - at),
                                           cudaMemcpyDeviceToHost, stream_));
    errors.Add("copy out", cudaEventRecord(events_[event], stream_));
  }
  event = 0;
  for (size_t at = begin; at < end && errors.ok(); at += kSlice, ++event) {
    const size_t last = std::min(at + kSlice, end);
    errors.Add("step", cudaEventSynchronize(events_[event]));
    for (const BatchPart& part : batch.parts) {
      const size_t first = static_cast<size_t>(part.first_token) * width;
      const size_t from = std::max(at, first);
      const size_t to = std::min(last, first + static_cast<size_t>(part.tokens) * width);
      if (part.output == nullptr || from >= to) continue;
      std::memcpy(part.output + (from - first), answer + from, to - from);
    }
  }
  errors.Add("step", cudaStreamSynchronize(stream_));
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

absl::Status CudaBackend::ReadAnswer(int layer, int32_t slot, std::span<std::byte> out) {
  if (!lost_.ok()) return lost_;
  const LayerPools pools = PoolsOf(layer);
  Errors errors;
  errors.Add("read answer", cudaMemcpyAsync(out.data(), pools.answers + pools.answer_stride * slot,
                                            out.size(), cudaMemcpyDeviceToHost, stream_));
  errors.Add("read answer", cudaStreamSynchronize(stream_));
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
