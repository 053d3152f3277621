#include "kernels/cuda/backend/staging.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/chunk_index.h"
#include "kernels/cuda/ops/step_rows.h"
#include "kernels/ops/fused_gdn_decode.h"
#include "kernels/pieces.h"

namespace gdn::cuda {
namespace {

// What is copied at a time, so that host and copy engine work side by side.
constexpr size_t kSlice = size_t{2} << 20;

// In front of a pinned answer.
size_t FaultBytes(int64_t rows) { return Aligned(static_cast<size_t>(rows) * sizeof(uint32_t)); }

RowFault FaultOf(uint32_t bits) {
  if ((bits & kFaultNonFinite) != 0) return RowFault::kNonFiniteInput;
  return (bits & kFaultOverflow) != 0 ? RowFault::kOverflow : RowFault::kNone;
}

bool Stages(const BatchPart& part) { return part.output != nullptr && !part.direct_output; }

// Kernels write 16 bytes at a time.
bool KernelsReach(const std::byte* output) { return reinterpret_cast<uintptr_t>(output) % 16 == 0; }

// Bytes [begin, end) of the answer: from the first that travels through pinned memory to the last.
struct Staged {
  Staged(const Batch& batch, size_t width) {
    for (const BatchPart& part : batch.parts) {
      if (!Stages(part)) continue;
      if (end == 0) begin = static_cast<size_t>(part.first_token) * width;
      end = static_cast<size_t>(part.first_token + part.tokens) * width;
    }
  }

  size_t begin = 0;
  size_t end = 0;
};

}  // namespace

Staging::~Staging() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  if (computed_ != nullptr) cudaEventDestroy(computed_);
  for (cudaEvent_t event : copied_out_) cudaEventDestroy(event);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status Staging::Allocate() {
  using Place = Memory::Place;
  const size_t block = MostStepBytes(shape_);
  const size_t answer = static_cast<size_t>(shape_.max_tokens) * shape_.answer_row_bytes();
  const std::pair<Memory*, std::pair<Place, size_t>> wanted[] = {
      {&fetches_, {Place::kPinned, kMostFetchPieces * sizeof(FetchPiece)}},
      {&pinned_in_, {Place::kPinned, block}},
      {&block_, {Place::kDevice, block}},
      {&answer_, {Place::kDevice, answer}},
      {&pinned_out_, {Place::kPinned, FaultBytes(shape_.max_rows) + answer}}};
  for (const auto& [memory, need] : wanted) {
    absl::StatusOr<Memory> made = Memory::Make(need.first, need.second);
    if (!made.ok()) return made.status();
    *memory = *std::move(made);
  }
  std::memset(fetches_.data(), 0, fetches_.size());
  fetch_list_ = FetchList({reinterpret_cast<FetchPiece*>(fetches_.data()), kMostFetchPieces});
  Errors errors;
  errors.Add("stream", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  // Padding rows of a graph are computed from whatever lies there: let it be numbers.
  errors.Add("block", cudaMemsetAsync(block_.data(), 0, block, stream_));
  copied_out_.resize(1 + (answer + kSlice - 1) / kSlice);
  errors.Add("event", cudaEventCreateWithFlags(&computed_, cudaEventDisableTiming));
  for (cudaEvent_t& event : copied_out_) {
    errors.Add("event", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  return errors.status();
}

StepMemory Staging::memory() const {
  return {block_.data(), answer_.data(), fetch_list_.pieces(),
          reinterpret_cast<uint32_t*>(pinned_out_.data())};
}

// Gathers in the order of the block, so that small parts travel together.
void Staging::CopyIn(const Batch& batch, const StepShape& step, Errors& errors) {
  batch_ = batch;
  const StepBlock at(shape_, step);
  faults_ = at.faults;
  by_kernels_ = step.by_kernels;
  fetch_list_.Clear(at.fetch_pieces);
  FillRows(step, at);
  if (by_kernels_) PrepareToSend(at);
  gathered_ = {0, at.input};
  PartTensor tensor;
  for (const InputTensor& t : InputTensors(shape_.geometry, batch.layout, shape_.io)) {
    tensor.row_bytes = t.row_bytes();
    tensor.width = t.width;
    tensor.type = t.type;
    for (const BatchPart& part : batch.parts) {
      tensor.to = at.tensor[static_cast<size_t>(t.kind)] +
                  static_cast<size_t>(part.first_token) * tensor.row_bytes;
      CopyTensor(part, tensor, errors);
    }
    tensor.bytes_before += tensor.row_bytes;
    tensor.width_before += tensor.width;
  }
  SendGathered(errors);
}

void Staging::FillRows(const StepShape& step, const StepBlock& at) {
  const auto rows = static_cast<size_t>(step.rows);
  std::byte* block = pinned_in_.data();
  std::memset(block, 0, at.input);
  auto* slots = reinterpret_cast<int32_t*>(block + at.slots);
  std::fill(std::copy(batch_.slots.begin(), batch_.slots.end(), slots), slots + rows, kPadSlotId);
  std::memcpy(block + at.has_state, batch_.has_initial_state.data(),
              batch_.has_initial_state.size());
  std::memcpy(block + at.keep, batch_.keep_answer.data(), batch_.keep_answer.size());
  if (step.form == RowForm::kSingle) return;
  std::memcpy(block + at.offsets, batch_.offsets.data(), batch_.offsets.size_bytes());
  auto* chunk_offsets = reinterpret_cast<int64_t*>(block + at.chunk_offsets);
  ChunkIndices({.rows = step.rows,
                .offsets = batch_.offsets.data(),
                .chunk_offsets = chunk_offsets,
                .chunk_indices = reinterpret_cast<int64_t*>(block + at.chunk_indices)});
  LongestFirst({chunk_offsets, rows + 1}, reinterpret_cast<int64_t*>(block + at.longest_first));
}

// Where the kernels write; of the faults they tell those that there are.
void Staging::PrepareToSend(const StepBlock& at) {
  std::memset(pinned_out_.data(), 0, FaultBytes(batch_.rows()));
  const size_t width = OutputRowBytes(shape_.geometry, batch_.layout, shape_.io);
  auto* to = reinterpret_cast<std::byte**>(pinned_in_.data() + at.answers_to);
  std::byte* staged = pinned_out_.data() + FaultBytes(batch_.rows());
  for (const BatchPart& part : batch_.parts) {
    const auto first = static_cast<size_t>(part.first_token);
    const auto tokens = static_cast<size_t>(part.tokens);
    std::byte* output = part.direct_output ? part.output : staged + first * width;
    if (part.output == nullptr || !KernelsReach(output)) continue;
    for (size_t i = 0; i < tokens; ++i) to[first + i] = output + i * width;
  }
}

void Staging::CopyTensor(const BatchPart& part, const PartTensor& tensor, Errors& errors) {
  const auto tokens = static_cast<size_t>(part.tokens);
  const size_t offset = tokens * tensor.bytes_before;
  const size_t bytes = tokens * tensor.row_bytes;
  if (bytes == 0) return;
  if (part.synthetic_seed == 0 && !part.direct_input) {
    return Gather(part, offset, bytes, tensor.to, errors);
  }
  SendGathered(errors);
  gathered_ = {tensor.to + bytes, tensor.to + bytes};
  if (part.direct_input) return SendPieces(part, offset, bytes, tensor.to, errors);
  const int64_t first =
      (part.tokens_before + part.tokens + part.tokens_after) * tensor.width_before +
      part.tokens_before * tensor.width;
  errors.Add("synthesize", Synthesize({part.synthetic_seed, first, part.tokens * tensor.width,
                                       tensor.type, block_.data() + tensor.to},
                                      stream_));
}

// Slice by slice: while one is on its way the next is gathered.
void Staging::Gather(const BatchPart& part, size_t offset, size_t bytes, size_t to,
                     Errors& errors) {
  for (size_t done = 0; done < bytes; done += kSlice) {
    const size_t size = std::min(kSlice, bytes - done);
    CopyPieces(part.input, offset + done, size, pinned_in_.data() + to + done);
    gathered_.end = to + done + size;
    if (gathered_.bytes() >= kSlice) SendGathered(errors);
  }
}

void Staging::SendPieces(const BatchPart& part, size_t offset, size_t bytes, size_t to,
                         Errors& errors) {
  VisitPieces(part.input, offset, bytes, [&](std::string_view piece) {
    Send(to, piece.data(), piece.size(), errors);
    to += piece.size();
  });
}

void Staging::SendGathered(Errors& errors) {
  if (gathered_.bytes() == 0) return;
  Send(gathered_.begin, pinned_in_.data() + gathered_.begin, gathered_.bytes(), errors);
  gathered_ = {gathered_.end, gathered_.end};
}

void Staging::Send(size_t to, const void* from, size_t bytes, Errors& errors) {
  if (fetch_list_.Add(static_cast<const std::byte*>(from), block_.data() + to, bytes)) return;
  errors.Add("copy in",
             cudaMemcpyAsync(block_.data() + to, from, bytes, cudaMemcpyDefault, stream_));
}

void Staging::Receive(std::byte* to, const std::byte* from, size_t bytes, Errors& errors) {
  errors.Add("copy out", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_));
}

void Staging::CopyOut(Errors& errors) {
  const size_t width = OutputRowBytes(shape_.geometry, batch_.layout, shape_.io);
  if (!by_kernels_) {
    Receive(pinned_out_.data(), block_.data() + faults_,
            static_cast<size_t>(batch_.rows()) * sizeof(uint32_t), errors);
  }
  for (const BatchPart& part : batch_.parts) {
    if (part.output == nullptr || !part.direct_output) continue;
    if (by_kernels_ && KernelsReach(part.output)) continue;
    Receive(part.output, answer_.data() + static_cast<size_t>(part.first_token) * width,
            static_cast<size_t>(part.tokens) * width, errors);
  }
  size_t event = 0;
  errors.Add("copy out", cudaEventRecord(copied_out_[event++], stream_));
  if (by_kernels_) return;
  const Staged staged(batch_, width);
  std::byte* to = pinned_out_.data() + FaultBytes(batch_.rows());
  for (size_t at = staged.begin; at < staged.end; at += kSlice) {
    Receive(to + at, answer_.data() + at, std::min(kSlice, staged.end - at), errors);
    errors.Add("copy out", cudaEventRecord(copied_out_[event++], stream_));
  }
}

// While a slice is handed out the next is on its way.
void Staging::HandOut(std::span<RowFault> faults, Errors& errors) {
  size_t event = 0;
  errors.Add("step", cudaEventSynchronize(copied_out_[event++]));
  const Staged staged(batch_, OutputRowBytes(shape_.geometry, batch_.layout, shape_.io));
  for (size_t at = staged.begin; at < staged.end && errors.ok(); at += kSlice) {
    if (!by_kernels_) errors.Add("step", cudaEventSynchronize(copied_out_[event++]));
    HandOutSlice(at, std::min(at + kSlice, staged.end));
  }
  const auto* bits = reinterpret_cast<const uint32_t*>(pinned_out_.data());
  for (int64_t row = 0; row < batch_.rows(); ++row) {
    faults[row] = batch_.slots[row] < 0 ? RowFault::kNone : FaultOf(bits[row]);
  }
}

void Staging::HandOutSlice(size_t begin, size_t end) {
  const size_t width = OutputRowBytes(shape_.geometry, batch_.layout, shape_.io);
  const std::byte* answer = pinned_out_.data() + FaultBytes(batch_.rows());
  for (const BatchPart& part : batch_.parts) {
    const size_t first = static_cast<size_t>(part.first_token) * width;
    const size_t from = std::max(begin, first);
    const size_t to = std::min(end, first + static_cast<size_t>(part.tokens) * width);
    if (!Stages(part) || from >= to) continue;
    std::memcpy(part.output + (from - first), answer + from, to - from);
  }
}

}  // namespace gdn::cuda
