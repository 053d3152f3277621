// What a step takes along from host to device, as one block of bytes: what is known of its rows,
// and the tensors of its input. The same offsets hold in pinned memory and on the device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cuda/ops/fetch.h"
#include "kernels/layout.h"

namespace gdn::cuda {

// Every row has one token: no offsets and chunks then.
enum class RowForm : uint8_t { kSingle, kAny };

struct StepShape {
  InputLayout layout = InputLayout::kHidden;
  RowForm form = RowForm::kSingle;
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t chunks = 0;
  int64_t longest = 1;  // tokens of a row
  // The step's own kernels fetch the block, where they can, and send the answers; else copy engines
  // do. REQUIRES IsSmall.
  bool by_kernels = false;

  friend bool operator==(const StepShape&, const StepShape&) = default;
};

// The tensors of a small step at most. What a step saves is much the same at any size, and few
// percent of it here.
inline constexpr size_t kMostSmallBytes = size_t{1} << 20;
bool IsSmall(const BackendShape& backend, const StepShape& shape);

// That a step fetches.
inline constexpr size_t kMostFetchPieces = kMostSmallBytes / FetchPiece::kMostBytes + 16;

// Offsets in bytes, each on 256.
struct StepBlock {
  StepBlock(const BackendShape& backend, const StepShape& shape);

  size_t faults = 0;               // uint32 [rows]
  size_t slots = 0;                // int32 [rows]
  size_t has_state = 0;            // uint8 [rows]
  size_t keep = 0;                 // uint8 [rows]
  size_t answers_to = 0;           // by kernels, void* [rows]: as of FinishRowsParams
  size_t offsets = 0;              // int64 [rows + 1]
  size_t chunk_offsets = 0;        // int64 [rows + 1]
  size_t chunk_indices = 0;        // int64 [chunks, 2]
  size_t longest_first = 0;        // int64 [rows, 2]
  size_t input = 0;                // where the tensors begin
  std::array<size_t, 7> tensor{};  // by InputTensor::Kind, where the layout has it
  size_t bytes = 0;
  size_t fetch_pieces = 0;  // by kernels: that there may be
};

// Where the bytes of a step lie.
struct StepMemory {
  std::byte* block = nullptr;   // as StepBlock says
  std::byte* answer = nullptr;  // [tokens, OutputWidth] io
  // Of the host, for steps by kernels.
  const FetchPiece* fetches = nullptr;  // what comes to the block first
  uint32_t* faults = nullptr;           // [rows], zero before
};

// The most bytes that a step of the backend takes along, whatever its layout.
size_t MostStepBytes(const BackendShape& backend);

}  // namespace gdn::cuda
