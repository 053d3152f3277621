// What a batch in flight has to itself: a stream, its bytes at both ends, and the copies between.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/backend/errors.h"
#include "kernels/cuda/backend/fetch_list.h"
#include "kernels/cuda/backend/memory.h"
#include "kernels/cuda/backend/step_block.h"

namespace gdn::cuda {

class Staging {
 public:
  explicit Staging(const BackendShape& shape) : shape_(shape) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  // Takes the memory for the largest batch.
  absl::Status Allocate();

  // Enqueues the copy of the batch to the device: what is known of its rows, and its input. Gathers
  // on the calling thread what the device does not reach.
  void CopyIn(const Batch& batch, const StepShape& step, Errors& errors);

  // Enqueues the copy of the faults and of the answer that somebody wants, where the step's kernels
  // do not write them by themselves.
  void CopyOut(Errors& errors);

  // Waits for the step and what CopyOut enqueued, and hands it out: the answer to the batch's
  // parts, and the bits of kernels/ops/fused_gdn_decode.h to `faults` [rows].
  void HandOut(std::span<RowFault> faults, Errors& errors);

  const Batch& batch() const { return batch_; }
  cudaStream_t stream() const { return stream_; }
  // Recorded once the batch's ops are enqueued.
  cudaEvent_t computed() const { return computed_; }
  // Where the batch's ops find it and leave its answer; always the same.
  StepMemory memory() const;

 private:
  // Bytes of the block.
  struct Range {
    size_t begin = 0;
    size_t end = 0;

    size_t bytes() const { return end - begin; }
  };
  // Where a tensor of a part comes from, after those before it, and where it goes.
  struct PartTensor {
    size_t row_bytes = 0;
    int64_t width = 0;
    DType type = DType::kFp32;
    size_t bytes_before = 0;   // of a token
    int64_t width_before = 0;  // likewise
    size_t to = 0;             // in the block
  };

  void FillRows(const StepShape& step, const StepBlock& at);
  void PrepareToSend(const StepBlock& at);
  void CopyTensor(const BatchPart& part, const PartTensor& tensor, Errors& errors);
  void Gather(const BatchPart& part, size_t offset, size_t bytes, size_t to, Errors& errors);
  void SendPieces(const BatchPart& part, size_t offset, size_t bytes, size_t to, Errors& errors);
  void SendGathered(Errors& errors);
  void Send(size_t to, const void* from, size_t bytes, Errors& errors);
  void Receive(std::byte* to, const std::byte* from, size_t bytes, Errors& errors);
  void HandOutSlice(size_t begin, size_t end);

  BackendShape shape_;
  Batch batch_;
  size_t faults_ = 0;        // their offset in the block
  bool by_kernels_ = false;  // as of StepShape
  Range gathered_;           // in pinned memory and not yet sent
  FetchList fetch_list_;

  cudaStream_t stream_ = nullptr;
  cudaEvent_t computed_ = nullptr;
  std::vector<cudaEvent_t> copied_out_;  // faults and direct parts, then each slice
  Memory fetches_;                       // of the list
  Memory pinned_in_;
  Memory block_;
  Memory answer_;
  Memory pinned_out_;  // the faults, and the answer after them
};

}  // namespace gdn::cuda
