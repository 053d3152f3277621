// A step on its way through the server: what the wire said, who waits for the answer, the answer.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "gdn/v1/types.pb.h"
#include "kernels/device_memory.h"
#include "server/wire/fault.h"

namespace gdn {

enum class StepKind : uint8_t { kPrefill, kDecode };

// gdn.v1.SharedMemory, parsed.
struct SharedPlace {
  std::string region;
  uint64_t input_offset = 0;
  uint64_t output_offset = 0;
};

// gdn.v1.PrefillRequest or DecodeRequest (the same fields), parsed. Arrays are as they came: row i
// is index i of each; ValidateStep says what else holds.
struct StepRequest {
  uint32_t layer = 0;    // N of model.layers.N
  int data_type = 0;     // gdn.v1.DataType, open enum
  int input_layout = 0;  // gdn.v1.InputLayout, open enum
  uint64_t step_id = 0;
  bool create = false;
  bool release_after = false;
  bool speculative = false;
  bool discard_output = false;
  std::optional<SharedPlace> shared_memory;
  uint64_t synthetic_seed = 0;
  std::vector<std::string> request_ids;
  std::vector<int32_t> slots;
  std::vector<uint64_t> epochs;
  std::vector<uint64_t> positions;
  std::vector<uint32_t> token_counts;
  std::vector<std::string_view> input;  // pieces of the message, which must outlive them
  bool direct_input = false;            // as of BatchPart

  bool by_id() const { return !request_ids.empty(); }
  size_t rows() const { return by_id() ? request_ids.size() : slots.size(); }
  bool padding(size_t row) const { return by_id() ? request_ids[row].empty() : slots[row] < 0; }
  uint32_t tokens(size_t row) const { return token_counts.empty() ? 1 : token_counts[row]; }
  uint64_t total_tokens() const;
  size_t input_bytes() const;
};

// Memory that an answer is written to; freed with its owner. The transport sends from it, unless it
// is shared: then the caller finds the answer there.
struct OutputBuffer {
  std::shared_ptr<void> owner;
  std::byte* data = nullptr;  // null where the host does not reach it
  size_t size = 0;
  bool direct = false;  // as of BatchPart: memory of a HostPool, or of `device`
  bool shared = false;
  DeviceMemory* device = nullptr;  // set: whose, from device_offset on
  size_t device_offset = 0;

  // Of BatchPart::output.
  std::byte* address() const {
    return device == nullptr ? data : device->address() + device_offset;
  }
  // By the host; false where the device fails.
  bool Write(size_t at, std::span<const std::byte> from) const;
  bool Read(size_t at, std::span<std::byte> to) const;
};

// Makes the buffer for an answer of `bytes`, in whatever memory the transport sends without a copy.
using OutputAllocator = std::function<OutputBuffer(size_t bytes)>;

// gdn.v1.PrefillResponse or DecodeResponse.
struct StepAnswer {
  std::vector<int32_t> slots;    // only where the rows came by id
  std::vector<uint64_t> epochs;  // likewise
  uint32_t replayed_rows = 0;
  OutputBuffer output;  // empty with discard_output, or where the caller has it already
};

// A validated step in the engine's hands. `done` is called exactly once, with a fault that is ok()
// or an answer that is to be ignored: on the engine's thread, or, unless `in_order`, on one that
// hands in another step or has seen the answer to one go, or on its own where the engine refuses it
// at once.
struct Step {
  StepKind kind = StepKind::kDecode;
  StepRequest request;
  std::shared_ptr<void> message;  // keeps request.input alive
  bool known_finite = false;      // who gathered the input has looked: no NaN and no infinity in it
  // Of a prefill that runs in pieces, the rows with NaN or infinity in their input. For the engine.
  std::vector<uint32_t> non_finite;
  OutputAllocator allocate;
  bool in_order = false;  // after the answers of whatever ended before it
  absl::Time submitted;   // set by Engine::Submit
  absl::Time deadline = absl::InfiniteFuture();
  std::atomic<bool> cancelled = false;  // set by the transport; looked at until the launch
  std::function<void(const Fault&, StepAnswer)> done;
  // May be null. Called once before `done`, on the engine's thread, where the step runs on a device
  // of its own, no other one waits, and so there is time to spare.
  std::function<void()> begun;
};

}  // namespace gdn
