// What a step takes along from host to device, as one block of bytes: what is known of its rows,
// and the tensors of its input. The same offsets hold in pinned memory and on the device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
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

  friend bool operator==(const StepShape&, const StepShape&) = default;
};

// Offsets in bytes, each on 256.
struct StepBlock {
  StepBlock(const BackendShape& backend, const StepShape& shape);

  size_t faults = 0;               // uint32 [rows]
  size_t slots = 0;                // int32 [rows]
  size_t has_state = 0;            // uint8 [rows]
  size_t keep = 0;                 // uint8 [rows]
  size_t offsets = 0;              // int64 [rows + 1]
  size_t chunk_offsets = 0;        // int64 [rows + 1]
  size_t chunk_indices = 0;        // int64 [chunks, 2]
  size_t longest_first = 0;        // int64 [rows, 2]
  size_t input = 0;                // where the tensors begin
  std::array<size_t, 7> tensor{};  // by InputTensor::Kind, where the layout has it
  size_t bytes = 0;
};

// The most bytes that a step of the backend takes along, whatever its layout.
size_t MostStepBytes(const BackendShape& backend);

}  // namespace gdn::cuda
