// What a step does to rows beside the ops: inputs made or checked before them, answers kept and
// faults named after them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops/chunk_indices.h"
#include "kernels/ops/fused_gdn_decode.h"

namespace gdn::cuda {

// Elements [first, first + count) of the synthetic input of `seed` (kernels/synthetic.h).
struct SynthesizeParams {
  uint64_t seed = 0;
  int64_t first = 0;
  int64_t count = 0;
  DType type = DType::kFp32;
  void* to = nullptr;
};
cudaError_t Synthesize(const SynthesizeParams& p, cudaStream_t stream);

// Sets `fault` of every row with NaN or infinity in its tokens of any of the tensors.
struct CheckRowsParams {
  struct Tensor {
    const void* data = nullptr;  // [T, width]
    int64_t width = 0;
    int64_t stride = 0;
    DType type = DType::kFp32;
  };
  static constexpr int kMostTensors = 4;

  Rows rows;
  Chunks chunks;
  int tensors = 0;
  Tensor tensor[kMostTensors];
  uint32_t fault = 0;
  uint32_t* faults = nullptr;  // [N]
};
cudaError_t CheckRows(const CheckRowsParams& p, cudaStream_t stream);

// masked[i] = slots[i], or PAD where the row has a fault.
struct MaskRowsParams {
  int64_t rows = 0;
  const int32_t* slots = nullptr;
  const uint32_t* faults = nullptr;
  int32_t* masked = nullptr;
};
cudaError_t MaskRows(const MaskRowsParams& p, cudaStream_t stream);

// The end of a step: rows with NaN or infinity in their output get kFaultOverflow, and rows that
// keep their answer have it copied to the pool. The output of PAD rows becomes zero. `keep`, the
// rows' offsets and chunks and, without offsets, their slots and `answers_to` are read before the
// kernel that precedes on the stream has ended: it must not be what writes them.
struct FinishRowsParams {
  Rows rows;                      // null offsets: every row has one token
  Chunks chunks;                  // without offsets not looked at
  const uint8_t* keep = nullptr;  // [N]
  DType io = DType::kFp32;
  void* output = nullptr;  // [T, width] dense
  int64_t width = 0;
  void* answers = nullptr;    // of the layer
  int64_t answer_stride = 0;  // bytes from slot to slot
  // Where given, a row with kFaultNonFinite whose own input is finite has overflowed on the way: it
  // gets kFaultOverflow instead. For rows of up to kChunk tokens.
  const void* input = nullptr;  // [T, input_width] dense, io
  int64_t input_width = 0;
  uint32_t* faults = nullptr;  // [N]
  // For rows of one token, and where given: where each row's output goes as well (null: nowhere;
  // else on 16 bytes), and its faults if it has any. Of the host or of the device.
  void* const* answers_to = nullptr;  // [N]
  uint32_t* faults_to = nullptr;      // [N]
};
cudaError_t FinishRows(const FinishRowsParams& p, cudaStream_t stream);

}  // namespace gdn::cuda
